"""Which of a person's faces are the person: the rule for one person, as a pure function of that person's faces.

FlashFace (Zhang et al. 2024, section 3.1) clusters the face embeddings of a person with k-means, takes the centre of the
largest cluster as the indicator embedding, and drops the other clusters and everything whose similarity to the indicator
is below a threshold. Four things are added, because a web search brings fewer and worse pictures than the paper's:

- k is about four and clusters that agree are merged again, so that a person with two looks does not lose one of them.
- The largest cluster is the one in most pictures, not the one with most faces: a person is in a picture once, and the
  hundred small faces of one crowd look alike to a recogniser.
- The similarity of a face of the main cluster is taken to the indicator as the *other* faces make it. With five faces a
  stranger that k-means put in is a fifth of the indicator and would pass by its likeness to itself.
- Where no two pictures agree nothing says who is meant, and nothing is kept (`ambiguous`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stages.clean.indicator import normalised, weighted_sums

RESTARTS, ITERATIONS = 10, 100
_ALONE = 1.0  # similarity of a person's only face: to itself


@dataclass(frozen=True)
class Rule:
    """The numbers of the rule. Cosines are in the scale of the recogniser that made the vectors."""

    similarity_threshold: float
    """A face of the main cluster stays from this cosine to the indicator on."""
    merge_cosine: float
    """Clusters are merged when the mean cosine between their faces is at least this."""
    k: int = 4
    """Clusters before merging."""
    min_faces: int = 1
    """With fewer faces kept than this, none is."""


@dataclass(frozen=True)
class PersonResult:
    """What the rule says of n faces, in the order in which they were given."""

    cluster: np.ndarray
    """(n,) int32: 0 is the largest after merging."""
    similarity: np.ndarray
    """(n,) float32: cosine to the indicator, for faces of cluster 0 to the indicator without the face itself."""
    keep: np.ndarray
    """(n,) bool."""
    reason: tuple[str | None, ...]
    """(n) null where kept, else other_cluster, below_threshold, other_face, ambiguous or too_few_faces."""
    indicator: np.ndarray
    """(d,) float64: unit vector of cluster 0, zeros where its faces cancel out."""


def clean_person(
    vectors: np.ndarray, weights: np.ndarray, image_ids: Sequence[str], face_ids: Sequence[str], rule: Rule, seed: int
) -> PersonResult:
    """Judge the faces of one person. The order of the faces does not matter.

    `vectors`: (n, d), unit length. `weights`: (n,) above 0, see stages/clean/indicator.py. `face_ids` are unique. n >= 1.
    The bits depend on the number of threads of the linear algebra library; callers pin it to one.
    """
    order = np.argsort(np.asarray(face_ids, dtype=object), kind="stable")
    unit = normalised(np.asarray(vectors, dtype=np.float64)[order])
    weight = np.asarray(weights, dtype=np.float64)[order]
    images = np.unique(np.asarray(image_ids, dtype=object)[order], return_inverse=True)[1]

    cluster = _ranked(_merged(unit, spherical_kmeans(unit, rule.k, seed), rule.merge_cosine), unit, images)
    main = cluster == 0
    total = weighted_sums(unit[main], weight[main], np.zeros(1, dtype=np.int64))[0]
    indicator = normalised(total)
    # Faces of the main cluster are measured against the others of it; a lone face has only itself.
    rest = total - np.where(main, weight, 0.0)[:, None] * unit
    compared = normalised(rest if main.sum() > 1 else np.broadcast_to(total, unit.shape))
    # Rounded as it is stored before it is judged, so that a query for the threshold finds the very faces that were kept.
    similarity = np.einsum("nd,nd->n", unit, compared).astype(np.float32).astype(np.float64)

    reason = np.full(len(unit), "", dtype=object)
    reason[similarity < rule.similarity_threshold] = "below_threshold"
    reason[~main] = "other_cluster"
    if len(unit) > 1 and len(np.unique(images[main])) < 2:
        reason[:] = "ambiguous"
    elif len(unit) == 1:
        reason[:], similarity = "", np.full(1, _ALONE)
    _one_face_a_picture(reason, similarity, images)
    keep = reason == ""
    if keep.sum() < rule.min_faces:
        reason[keep], keep = "too_few_faces", np.zeros(len(unit), dtype=bool)

    back = np.argsort(order, kind="stable")
    return PersonResult(
        cluster=cluster[back].astype(np.int32),
        similarity=similarity[back].astype(np.float32),
        keep=keep[back],
        reason=tuple(code or None for code in reason[back]),
        indicator=indicator,
    )


def spherical_kmeans(unit: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Labels (n,) int64 of k-means with cosine distance (Dhillon and Modha 2001), the best of ten k-means++ starts.

    `unit`: (n, d) float64 unit vectors. All starts run side by side in one matrix product: for the 80 faces of a usual
    person that is several times faster than one start after the other. A cluster may come out empty, as among
    duplicates.
    """
    count, size = len(unit), unit.shape[1]
    k = min(k, count)
    if k == 1:
        return np.zeros(count, dtype=np.int64)
    centres = _seeded(unit, k, seed)
    labels = np.full((count, RESTARTS), -1)
    for _ in range(ITERATIONS):
        cosine = (unit @ centres.reshape(RESTARTS * k, size).T).reshape(count, RESTARTS, k)
        fresh = cosine.argmax(axis=2)
        if np.array_equal(fresh, labels):
            break
        labels = fresh
        member = labels[:, :, None] == np.arange(k)
        sums = (member.reshape(count, RESTARTS * k).T.astype(np.float64) @ unit).reshape(RESTARTS, k, size)
        # A cluster that lost its last face keeps its centre and may win faces back.
        centres = np.where(member.any(axis=0)[:, :, None], normalised(sums), centres)
    best = cosine.max(axis=2).sum(axis=0).argmax()
    chosen: np.ndarray = labels[:, best]
    return chosen


def _seeded(unit: np.ndarray, k: int, seed: int) -> np.ndarray:
    """k-means++ (Arthur and Vassilvitskii 2007) with the distance 1 - cosine: (RESTARTS, k, d) centres among the faces."""
    draws = np.random.default_rng(seed).random((k, RESTARTS))
    first = (draws[0] * len(unit)).astype(np.int64)
    picks, distance = [first], np.maximum(1.0 - unit @ unit[first].T, 0.0)
    for draw in draws[1:]:
        mass = np.cumsum(distance, axis=0)
        # Where all faces are duplicates of a centre there is no mass, and the draw falls on the first face.
        pick = np.minimum((mass <= draw * mass[-1]).sum(axis=0), len(unit) - 1) * (mass[-1] > 0)
        picks.append(pick)
        distance = np.minimum(distance, np.maximum(1.0 - unit @ unit[pick].T, 0.0))
    centres: np.ndarray = unit[np.stack(picks, axis=1)]
    return centres


def _merged(unit: np.ndarray, labels: np.ndarray, merge_cosine: float) -> np.ndarray:
    """Labels after clusters are joined that are linked by a mean cosine between their faces of `merge_cosine` or more.

    The mean cosine of the faces (the product of the plain means) and not the cosine of the centres: that grows with
    the number of faces behind a centre, so that no one limit would do for a person of five pictures and one of fifty.
    """
    groups = np.unique(labels)
    means = np.stack([unit[labels == group].mean(axis=0) for group in groups])
    linked = means @ means.T >= merge_cosine
    # Each cluster takes the lowest label that it reaches; as many rounds as clusters follow every chain.
    root = np.arange(len(groups))
    for _ in groups:
        root = np.where(linked | np.eye(len(groups), dtype=bool), root[None, :], len(groups)).min(axis=1)
    merged: np.ndarray = root[np.searchsorted(groups, labels)]
    return merged


def _ranked(labels: np.ndarray, unit: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Labels as ranks: 0 is in most pictures; ties go to the tighter cluster, then to the first face."""
    groups, first = np.unique(labels, return_index=True)
    pictures = [len(np.unique(images[labels == group])) for group in groups]
    tightness = [float(np.linalg.norm(unit[labels == group].mean(axis=0))) for group in groups]
    order = sorted(range(len(groups)), key=lambda at: (-pictures[at], -tightness[at], first[at]))
    rank = np.empty(len(groups), dtype=np.int64)
    rank[order] = np.arange(len(groups))
    ranked: np.ndarray = rank[np.searchsorted(groups, labels)]
    return ranked


def _one_face_a_picture(reason: np.ndarray, similarity: np.ndarray, images: np.ndarray) -> None:
    """Leave in each picture only the face nearest to the indicator, the first of equals; the others become other_face."""
    kept = np.flatnonzero(reason == "")
    kept = kept[np.lexsort((kept, -similarity[kept], images[kept]))]
    again = images[kept][1:] == images[kept][:-1]
    reason[kept[1:][again]] = "other_face"
