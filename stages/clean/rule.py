"""Which of a person's faces are the person: the rule, as a pure function of the faces of many people.

FlashFace (Zhang et al. 2024, section 3.1) clusters the face embeddings of a person with k-means, takes the centre of the
largest cluster as the indicator embedding, and drops the other clusters and everything whose similarity to the indicator
is below a threshold. `Rule.paper` is that to the letter. By default five things are added, because a web search brings
fewer and worse pictures than the paper's:

- k is about four and clusters that agree are merged again, so that a person with two looks does not lose one of them.
- The largest cluster is the one in most pictures, not the one with most faces: a person is in a picture once, and the
  hundred small faces of one crowd look alike to a recogniser.
- The similarity of a face of the main cluster is taken to the indicator as the *other* faces make it. With five faces a
  stranger that k-means put in is a fifth of the indicator and would pass by its likeness to itself.
- What k-means put elsewhere joins the main cluster if it is near the indicator and nearer to it than to the others of its
  own cluster, or so near as no stranger is. k-means has to put strangers somewhere, and puts odd pictures of the person
  with them; a look-alike's faces are nearer to one another.
- Where no two pictures agree nothing says who is meant, and nothing is kept (`ambiguous`).

In both, the face nearest to the indicator stands for a person in a picture; copies of a picture count once; decisions by
hand win. A person's results depend on that person alone, to the last bit.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np

from stages.clean.indicator import normalised, similarities, sums
from stages.clean.lloyd import kmeans

KEEP, REJECT = 1, -1
REASONS = (
    "", "other_cluster", "below_threshold", "other_face", "ambiguous", "duplicate", "too_few_faces", "rejected", "screened", "bad_vector",
)  # fmt: skip
"""Why a face is not kept; the first stands for those that are."""
_CODE = {reason: np.int8(code) for code, reason in enumerate(REASONS)}
_ALONE = 1.0  # similarity of a person's only face: to itself
_ROUNDS = 10  # of joining; two are usual
_BLOCK_FACES, _BLOCK_MEANS = 4096, 2**21


@dataclass(frozen=True)
class Rule:
    """The numbers of the rule. Cosines are in the scale of the recogniser that made the vectors."""

    similarity_threshold: float
    """A face of the main cluster stays from this cosine to the indicator on."""
    merge_cosine: float | None
    """Clusters are merged when the mean cosine between their faces is at least this; None merges none."""
    join_cosine: float | None = None
    """A face joins the main cluster from this cosine to the indicator on, whatever cluster it is in; None: only if its own
    cluster is farther away."""
    k: int = 4
    """Clusters before merging."""
    min_faces: int = 1
    """With fewer faces kept than this, none is."""
    paper: bool = False
    """FlashFace to the letter: the largest cluster is that of most faces, its own faces count in the indicator that they
    are compared with, and a pair that disagrees is a person of one picture."""
    spherical: bool = True
    """k-means by cosine, else by Euclidean distance."""


@dataclass(frozen=True)
class Faces:
    """The faces of p people, one person after the other; n in all."""

    vectors: np.ndarray
    """(n, d) float32, as `unit_vectors` gives them: zeros are set aside as bad_vector."""
    starts: np.ndarray
    """(p + 1,) int64: where each person begins, and n. Everybody has a face."""
    seeds: np.ndarray
    """(p,) uint64, of which k-means draws."""
    images: np.ndarray
    """(n,) int64: equal for faces of one picture."""
    forced: np.ndarray
    """(n,) int8: KEEP, REJECT or 0, as somebody decided by hand. What is kept by hand also says who the person is."""
    screened: np.ndarray
    """(n,) bool: counts as any other, but is not kept."""
    duplicate_of: np.ndarray
    """(n,) int64: the better copy, a row that is nobody's copy itself, or -1. See stages/clean/duplicates.py."""

    @property
    def person(self) -> np.ndarray:
        """(n,) int64: whose face it is, 0 to p - 1."""
        return np.repeat(np.arange(len(self.seeds)), np.diff(self.starts))

    def take(self, first: int, last: int) -> "Faces":
        """The people from `first` up to `last`."""
        start, stop = int(self.starts[first]), int(self.starts[last])
        own = {field.name: getattr(self, field.name)[start:stop] for field in fields(self) if field.name not in ("starts", "seeds")}
        own["duplicate_of"] = np.where(own["duplicate_of"] < 0, -1, own["duplicate_of"] - start)
        return Faces(starts=self.starts[first : last + 1] - start, seeds=self.seeds[first:last], **own)


@dataclass(frozen=True)
class Verdict:
    """What the rule says of n faces of p people, in their order."""

    cluster: np.ndarray
    """(n,) int32: 0 is the main one after merging, the others by falling size; -1 for what was not clustered."""
    similarity: np.ndarray
    """(n,) float32: cosine to the indicator; unless `paper`, for faces of cluster 0 to the indicator without the face
    itself. nan for bad vectors and where there is no indicator."""
    keep: np.ndarray
    """(n,) bool."""
    reason: np.ndarray
    """(n,) int8: index in REASONS."""
    indicator: np.ndarray
    """(p, d) float64: unit vector of the main cluster, zeros where its faces cancel out or there are none."""


def judge(faces: Faces, rule: Rule) -> Verdict:
    """Judge the faces of all people. The bits depend on the threads of the linear algebra library; callers pin it to one."""
    blocks = list(_blocks(faces.starts, rule, faces.vectors.shape[1])) or [(0, 0)]
    parts = [_judge(faces.take(first, last), rule) for first, last in blocks]
    joined = {field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Verdict)}
    return Verdict(**joined)


def _blocks(starts: np.ndarray, rule: Rule, width: int) -> Iterator[tuple[int, int]]:
    """Stretches of people that are held in double precision at a time."""
    most, first, count = max(1, _BLOCK_MEANS // (rule.k * max(1, width))), 0, len(starts) - 1
    while first < count:
        reach = int(np.searchsorted(starts, starts[first] + _BLOCK_FACES, side="right")) - 1
        last = min(max(reach, first + 1), first + most)
        yield first, last
        first = last


def _judge(faces: Faces, rule: Rule) -> Verdict:
    person, people = faces.person, len(faces.seeds)
    rounded, fine = faces.vectors, faces.vectors.any(axis=1)
    unit = rounded.astype(np.float64)
    counted = fine & (faces.forced != REJECT) & (faces.duplicate_of < 0)
    rows = np.flatnonzero(counted)
    cluster = np.full(len(unit), -1, dtype=np.int64)
    cluster[rows] = _clusters(rounded[rows], unit[rows], person[rows], rows, faces, rule)
    own = np.where(faces.duplicate_of < 0, np.arange(len(unit)), faces.duplicate_of)
    cluster = np.where(fine & (faces.forced != REJECT), cluster[own], -1)

    main = counted & ((cluster == 0) | (faces.forced == KEEP))
    total, size = sums(unit[main], person[main], people), np.bincount(person[main], minlength=people)
    indicator = normalised(total)
    # Where a person is one face only, that is all there is to compare with. A copy is compared as what it is a copy of.
    without = main[own] & (size > 1)[person] & (not rule.paper)
    similarity = similarities(unit[own], total, person, without)
    there = fine & (size > 0)[person]
    alone = (np.bincount(person[counted], minlength=people) == 1)[person]
    if not rule.paper:
        similarity[alone & main] = _ALONE
    # Rounded as it is stored before it is judged, so that a query for the threshold finds the very faces that were kept.
    similarity = np.where(there, similarity, np.nan).astype(np.float32)

    reason = np.zeros(len(unit), dtype=np.int8)
    reason[~(similarity >= rule.similarity_threshold)] = _CODE["below_threshold"]
    reason[cluster != 0] = _CODE["other_cluster"]
    by_hand = np.bincount(person[faces.forced == KEEP], minlength=people) > 0
    if not rule.paper:
        pictures = _distinct(person[main], faces.images[main], people)
        reason[((pictures < 2) & ~by_hand)[person] & ~alone] = _CODE["ambiguous"]
    reason[alone & main] = 0
    reason[~fine] = _CODE["bad_vector"]
    reason[faces.forced == KEEP] = 0
    reason[faces.forced == REJECT] = _CODE["rejected"]
    _one_face_a_picture(reason, counted, similarity, faces)
    reason[(reason == 0) & faces.screened & (faces.forced != KEEP)] = _CODE["screened"]
    copy = faces.duplicate_of >= 0
    reason[copy & (reason == 0)] = _CODE["duplicate"]
    few = np.bincount(person[reason == 0], minlength=people) < rule.min_faces
    reason[few[person] & (reason == 0) & (faces.forced != KEEP)] = _CODE["too_few_faces"]
    # Copies share the lot of the face that they are copies of.
    shared = copy & ~np.isin(reason, [_CODE["rejected"], _CODE["bad_vector"]])
    reason[shared] = np.where(reason[own] == 0, _CODE["duplicate"], reason[own])[shared]
    return Verdict(cluster.astype(np.int32), similarity, reason == 0, reason, indicator)


def unit_vectors(vectors: np.ndarray) -> np.ndarray:
    """`vectors` (n, d) as float32 unit vectors, zeros for what is not finite or zero."""
    vectors = np.asarray(vectors, dtype=np.float32)
    square = np.einsum("nd,nd->n", vectors, vectors)
    fine = np.isfinite(square) & (square > 1e-12)
    if not fine.all():
        vectors = np.where(fine[:, None], vectors, np.float32(0))
    return vectors * np.divide(1.0, np.sqrt(square), out=np.zeros_like(square), where=fine)[:, None]


def _clusters(rounded: np.ndarray, unit: np.ndarray, person: np.ndarray, rows: np.ndarray, faces: Faces, rule: Rule) -> np.ndarray:
    """Ranks of clusters (n,) of those faces `rows` of `faces` that count; `person` says whose they are."""
    if not len(rows):
        return np.zeros(0, dtype=np.int64)
    owners = np.unique(person)
    starts = np.searchsorted(person, np.append(owners, len(faces.seeds)))
    labels = kmeans(rounded, starts, faces.seeds[owners], rule.k, rule.spherical)
    if rule.merge_cosine is not None:
        labels = _merged(unit, labels, np.searchsorted(owners, person), len(owners), rule.k, rule.merge_cosine)
    ranks = _ranked(unit, labels, person, rows, faces, rule)
    if rule.paper:
        return ranks
    joined = _joined(unit, ranks, person, rule)
    return ranks if joined is ranks else _ranked(unit, joined, person, rows, faces, rule, settled=True)


def _joined(unit: np.ndarray, ranks: np.ndarray, person: np.ndarray, rule: Rule) -> np.ndarray:
    """`ranks` with 0 for the faces that join the main cluster, in rounds, for what joins moves the indicator."""
    width = rule.k + 1
    everybody = np.arange(len(unit))
    rows = everybody
    for _ in range(_ROUNDS):
        whose = person[rows]
        owners, whose = np.unique(whose, return_inverse=True)
        own = whose * width + ranks[rows]
        total, size = sums(unit[rows], own, len(owners) * width), np.bincount(own, minlength=len(owners) * width)
        outside = ranks[rows] != 0
        inside = similarities(unit[rows][outside], total, own[outside], np.ones(outside.sum(), dtype=bool))
        near = similarities(unit[rows][outside], total, whose[outside] * width, np.zeros(outside.sum(), dtype=bool))
        certain = np.inf if rule.join_cosine is None else rule.join_cosine
        join = (near >= certain) | ((near >= rule.similarity_threshold) & ((near > inside) | (size[own[outside]] == 1)))
        if not join.any():
            break
        ranks = ranks.copy()
        ranks[rows[outside][join]] = 0
        rows = everybody[np.isin(person, person[rows[outside][join]])]
    return ranks


def _merged(unit: np.ndarray, labels: np.ndarray, person: np.ndarray, people: int, k: int, merge_cosine: float) -> np.ndarray:
    """Labels after clusters are joined that are linked by a mean cosine between their faces of `merge_cosine` or more.

    The mean cosine of the faces (the product of the plain means) and not the cosine of the centres: that grows with
    the number of faces behind a centre, so that no one limit would do for a person of five pictures and one of fifty.
    """
    group = person * k + labels
    size = np.bincount(group, minlength=people * k)
    means = (sums(unit, group, people * k) / np.maximum(size, 1)[:, None]).reshape(people, k, -1)
    there = (size > 0).reshape(people, k)
    linked = (means @ means.transpose(0, 2, 1) >= merge_cosine) & there[:, :, None] & there[:, None, :]
    linked |= np.eye(k, dtype=bool)
    # Each cluster takes the lowest label that it reaches; as many rounds as clusters follow every chain.
    root = np.broadcast_to(np.arange(k), (people, k))
    for _ in range(k):
        root = np.where(linked, root[:, None, :], k).min(axis=2)
    merged: np.ndarray = root[person, labels]
    return merged


def _ranked(
    unit: np.ndarray, labels: np.ndarray, person: np.ndarray, rows: np.ndarray, faces: Faces, rule: Rule, settled: bool = False
) -> np.ndarray:
    """Labels as ranks within the person: 0 has most pictures (faces, by the paper); ties go to the tighter, then the first.

    A cluster with pictures that were kept by hand goes before all others. `settled`: label 0 is and stays the first.
    """
    group, first, of = np.unique(person * (rule.k + 1) + labels, return_index=True, return_inverse=True)
    owner = person[first]
    size = np.bincount(of, minlength=len(group))
    means = sums(unit, of, len(group)) / size[:, None]
    tightness = np.sqrt(np.einsum("gd,gd->g", means, means))
    if not rule.paper:
        size = _distinct(of, faces.images[rows], len(group))
    by_hand = np.bincount(of[faces.forced[rows] == KEEP], minlength=len(group))
    behind = (labels[first] != 0) & settled
    order = np.lexsort((first, -tightness, -size, -by_hand, behind, owner))
    before = np.searchsorted(owner[order], owner[order])
    rank = np.empty(len(group), dtype=np.int64)
    rank[order] = np.arange(len(group)) - before
    ranked: np.ndarray = rank[of]
    return ranked


def _distinct(group: np.ndarray, images: np.ndarray, groups: int) -> np.ndarray:
    """How many different pictures there are in each group: (groups,) int64."""
    order = np.lexsort((images, group))
    group, images = group[order], images[order]
    new = np.ones(len(order), dtype=bool)
    new[1:] = (group[1:] != group[:-1]) | (images[1:] != images[:-1])
    return np.bincount(group[new], minlength=groups)


def _one_face_a_picture(reason: np.ndarray, counted: np.ndarray, similarity: np.ndarray, faces: Faces) -> None:
    """Leave in each picture only the face nearest to the indicator, the first of equals; the others become other_face.

    Faces kept by hand all stay.
    """
    kept = np.flatnonzero((reason == 0) & (counted | (faces.forced == KEEP)))
    by_hand = faces.forced[kept] == KEEP
    order = np.lexsort((kept, -np.nan_to_num(similarity[kept]), ~by_hand, faces.images[kept], faces.person[kept]))
    kept, by_hand = kept[order], by_hand[order]
    again = (faces.images[kept][1:] == faces.images[kept][:-1]) & (faces.person[kept][1:] == faces.person[kept][:-1]) & ~by_hand[1:]
    reason[kept[1:][again]] = _CODE["other_face"]
