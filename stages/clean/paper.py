"""FlashFace's rule to the letter, as a pure function of the faces of many people; for comparisons.

FlashFace (Zhang et al. 2024, section 3.1) clusters the face embeddings of a person with k-means,
takes the centre of the largest cluster as the indicator embedding, and drops the other clusters and
everything whose similarity to the indicator is below a threshold. What it does not say: ties of
size go to the tighter cluster, then to the first face.

k-means alone is not enough: it has to make k clusters, whoever is there. A person of one look is
cut up, and all but one cluster is lost; where more people than k have several images, two of them
share a cluster, and both pass by their likeness to their common mean. A stranger with most faces in
a crowd wins; of a tie somebody is kept. stages/clean/rule.py does better.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np

from stages.clean.faces import CODE, KEEP, REJECT, Faces, Verdict, conclude
from stages.clean.indicator import normalised, similarities, sums
from stages.clean.lloyd import kmeans

_BLOCK_FACES, _BLOCK_MEANS = 4096, 2**21


@dataclass(frozen=True)
class PaperRule:
    """The numbers of the rule."""

    similarity_threshold: float
    """A face of the main cluster stays from this cosine to the indicator on."""
    k: int = 2
    """Clusters."""
    min_faces: int = 1
    """With fewer faces kept than this, none is."""
    spherical: bool = True
    """k-means by cosine, else by Euclidean distance."""


def judge(faces: Faces, seeds: np.ndarray, rule: PaperRule) -> Verdict:
    """Judge the faces of all people. `seeds`: (p,) uint64, of which k-means draws.

    The bits depend on the threads of the linear algebra library; callers pin it to one.
    """
    blocks = list(_blocks(faces.starts, rule, faces.vectors.shape[1])) or [(0, 0)]
    parts = [_judge(faces.take(first, last), seeds[first:last], rule) for first, last in blocks]
    return Verdict(
        **{
            field.name: np.concatenate([getattr(part, field.name) for part in parts])
            for field in fields(Verdict)
        }
    )


def _blocks(starts: np.ndarray, rule: PaperRule, width: int) -> Iterator[tuple[int, int]]:
    """Stretches of people that are held in double precision at a time."""
    most, first, count = max(1, _BLOCK_MEANS // (rule.k * max(1, width))), 0, len(starts) - 1
    while first < count:
        reach = int(np.searchsorted(starts, starts[first] + _BLOCK_FACES, side="right")) - 1
        last = min(max(reach, first + 1), first + most)
        yield first, last
        first = last


def _judge(faces: Faces, seeds: np.ndarray, rule: PaperRule) -> Verdict:
    person, people = faces.person, faces.people
    rounded, fine = faces.vectors, faces.vectors.any(axis=1)
    unit = rounded.astype(np.float64)
    counted = fine & (faces.forced != REJECT) & (faces.duplicate_of < 0)
    rows = np.flatnonzero(counted)
    cluster = np.full(len(unit), -1, dtype=np.int64)
    if len(rows):
        cluster[rows] = _clusters(
            rounded[rows], unit[rows], person[rows], faces.forced[rows] == KEEP, seeds, rule
        )
    own = np.where(faces.duplicate_of < 0, np.arange(len(unit)), faces.duplicate_of)
    cluster = np.where(fine & (faces.forced != REJECT), cluster[own], -1)

    main = counted & ((cluster == 0) | (faces.forced == KEEP))
    total, size = (
        sums(unit[main], person[main], people),
        np.bincount(person[main], minlength=people),
    )
    # A copy is compared as what it is a copy of.
    similarity = similarities(unit[own], total, person, np.zeros(len(unit), dtype=bool))
    # Rounded as it is stored before it is judged, so that a query for the threshold finds the very
    # faces that were kept.
    similarity = np.where(fine & (size > 0)[person], similarity, np.nan).astype(np.float32)
    reason = np.zeros(len(unit), dtype=np.int8)
    reason[~(similarity >= rule.similarity_threshold)] = CODE["below_threshold"]
    reason[cluster != 0] = CODE["other_cluster"]
    alone = (np.bincount(person[counted], minlength=people) == 1)[person]
    reason[alone & main] = 0
    reason = conclude(faces, cluster, similarity, reason, rule.min_faces)
    return Verdict(
        cluster.astype(np.int32),
        similarity,
        reason == 0,
        reason,
        normalised(total),
        np.full(people, np.nan, dtype=np.float32),
    )


def _clusters(
    rounded: np.ndarray,
    unit: np.ndarray,
    person: np.ndarray,
    by_hand: np.ndarray,
    seeds: np.ndarray,
    rule: PaperRule,
) -> np.ndarray:
    """Clusters (n,) as ranks within the person: 0 has most faces; ties go to the tighter, then to
    the first.

    A cluster with faces that were kept by hand goes before all others.
    """
    owners = np.unique(person)
    starts = np.searchsorted(person, np.append(owners, len(seeds)))
    labels = kmeans(rounded, starts, seeds[owners], rule.k, rule.spherical)
    group, first, of = np.unique(
        person * (rule.k + 1) + labels, return_index=True, return_inverse=True
    )
    owner, size = person[first], np.bincount(of, minlength=len(group))
    means = sums(unit, of, len(group)) / size[:, None]
    tightness = np.sqrt(np.einsum("gd,gd->g", means, means))
    order = np.lexsort(
        (first, -tightness, -size, -np.bincount(of[by_hand], minlength=len(group)), owner)
    )
    rank = np.empty(len(group), dtype=np.int64)
    rank[order] = np.arange(len(group)) - np.searchsorted(owner[order], owner[order])
    ranked: np.ndarray = rank[of]
    return ranked
