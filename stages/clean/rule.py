"""Which of a person's faces are the person: the rule of the backend `linkage`, as a pure function
of the faces.

A web search for a name brings the person, other people with one image each, and other people with
many. The rule

1. puts the faces into groups that hang together (stages/clean/groups.py), as many as there are;
2. counts in how many photographs each group is, by the faces that are near the others of their
  group. All versions of one
   photograph have one vote, a further face in the background of a person's own images has one, like
   any other;
3. takes for the person: the group with faces that were kept by hand; else the one that agrees with
  a reference image of the
   source; else the one with most votes. One photograph is no agreement: where no two agree, nothing
   is kept (`ambiguous`);
4. keeps nothing where another group has nearly as many votes or images and would have been taken as
  well (`near_tie`);
5. takes in what is so near the person as no stranger is, and puts out a part that does not agree
  with the rest.

Of the person's group a face is kept that is near the sum of the others; of up to four, one whose
mean cosine with them is what makes a group. The face itself is left out: a stranger would pass by
likeness to itself among five. Nothing depends on names, on the order of the faces or on chance, and
a person's results depend on that person alone, to the last bit.
"""

from dataclasses import dataclass, fields

import numpy as np

from stages.clean.faces import (
    ALONE,
    CODE,
    KEEP,
    REFERENCE,
    REJECT,
    Faces,
    Verdict,
    conclude,
    distinct,
)
from stages.clean.groups import hang_together, joined
from stages.clean.indicator import normalised, similarities, sums

AGREEMENT = 2
"""Photographs in which somebody has to be to be taken for the person where there are others."""
_FEW = 4
"""Up to so many faces a group has no indicator that a threshold for indicators could be held
against.
"""
_HASHED = 32
"""Values of a vector that its place in the order is taken from; two different faces never have so
many in common.
"""


@dataclass(frozen=True)
class Rule:
    """The numbers of the rule. Cosines are in the scale of the recogniser that made the vectors."""

    similarity_threshold: float
    """A face is near a group from this cosine to the sum of its other faces on."""
    merge_cosine: float
    """Groups are one from this mean cosine between their faces on."""
    join_cosine: float | None = None
    """A face is the person from this cosine to the person's sum on, whatever group it is in; None:
    no face is.
    """
    same_cosine: float | None = None
    """Groups are one from this cosine between their sums on; None: never for that."""
    near_tie: float = 0.9
    """Nothing is kept where a second group has at least this share of the votes, or of the images,
    of the first.
    """
    min_faces: int = 1
    """With fewer faces kept than this, none is."""


def judge(faces: Faces, rule: Rule) -> Verdict:
    """Judge the faces of all people. The bits depend on the threads of the linear algebra library;
    callers pin it to one.
    """
    order = by_content(faces)
    ordered = faces.reorder(order)
    parts = [_person(ordered.take(person, person + 1), rule) for person in range(faces.people)]
    if not parts:
        nothing = np.zeros(0, np.float32)
        return Verdict(
            np.zeros(0, np.int32),
            nothing,
            np.zeros(0, bool),
            np.zeros(0, np.int8),
            np.zeros((0, faces.vectors.shape[1])),
            nothing,
        )
    columns = {
        field.name: np.concatenate([getattr(part, field.name) for part in parts])
        for field in fields(Verdict)
    }
    for name in ("cluster", "similarity", "keep", "reason"):
        back = np.empty_like(columns[name])
        back[order] = columns[name]
        columns[name] = back
    return Verdict(**columns)


def by_content(faces: Faces) -> np.ndarray:
    """Rows (n,) int64 person by person, within a person by a hash of the vectors: an order that no
    name and no input decides.

    Equal vectors stay in the order in which they are: it makes no difference which of them is
    which.
    """
    words = np.ascontiguousarray(faces.vectors[:, :_HASHED]).view(np.uint32).astype(np.uint64)
    odd = np.random.default_rng(0).integers(
        0, 2**63, size=words.shape[1], dtype=np.uint64
    ) * np.uint64(2) + np.uint64(1)
    # The bits are stirred before and after, so that faces that are alike do not come one after the
    # other.
    mixed = (words ^ (words >> np.uint64(15))) * odd
    hashed = (mixed ^ (mixed >> np.uint64(29))).sum(axis=1, dtype=np.uint64)
    order: np.ndarray = np.lexsort((hashed, faces.person))
    return order


@dataclass(frozen=True)
class _Groups:
    """The groups of a person's faces that count, n of them in g groups."""

    labels: np.ndarray
    """(n,) int64."""
    near: np.ndarray
    """(n,) bool: the face is near the others of its group."""
    votes: np.ndarray
    """(g,) int64: photographs that show the group by a face that is near."""
    images: np.ndarray
    """(g,) int64: the same, every version counted."""


@dataclass(frozen=True)
class _Counted:
    """The faces of a person that count: neither copies, nor rejected, nor bad vectors; n of
    them.
    """

    unit: np.ndarray
    """(n, d) float64 unit vectors."""
    rounded: np.ndarray
    """(n, d) float32, the same as they are stored."""
    images: np.ndarray
    votes: np.ndarray
    """(n,) int64, as in Faces."""
    by_hand: np.ndarray
    reference: np.ndarray
    """(n,) bool: kept by hand; in a reference image."""
    copied: np.ndarray
    copied_images: np.ndarray
    """(m,) int64 each, for all copies: which of the n faces it is a copy of, and its image."""


def _person(faces: Faces, rule: Rule) -> Verdict:
    rounded, fine = faces.vectors, faces.vectors.any(axis=1)
    count, unit = len(rounded), rounded.astype(np.float64)
    usable = fine & (faces.forced != REJECT)
    own = np.where(faces.duplicate_of < 0, np.arange(count), faces.duplicate_of)
    counted = usable & (faces.duplicate_of < 0)
    rows = np.flatnonzero(counted)
    cluster, reason = (
        np.full(count, -1, dtype=np.int64),
        np.full(count, CODE["other_cluster"], dtype=np.int8),
    )
    margin = np.float32(np.nan)
    if len(rows):
        copy = np.flatnonzero(usable & ~counted & counted[own])
        mine = _Counted(
            unit[rows],
            rounded[rows],
            faces.images[rows],
            faces.votes[rows],
            faces.forced[rows] == KEEP,
            faces.reference[rows] == REFERENCE,
            np.searchsorted(rows, own[copy]),
            faces.images[copy],
        )
        cluster[rows], reason[rows], margin = _decided(mine, rule)
    cluster = np.where(usable, cluster[own], -1)
    main = counted & ((cluster == 0) | (faces.forced == KEEP))
    size = int(main.sum())
    one = np.zeros(count, dtype=np.int64)
    total = sums(unit[main], one[main], 1)
    # Where a person is one face only, that is all there is to compare with. A copy is compared as
    # what it is a copy of.
    similarity = similarities(unit[own], total, one, main[own] & (size > 1))
    if len(rows) == 1:
        similarity[main[own]] = ALONE
    similarity = np.where(fine & (size > 0), similarity, np.nan).astype(np.float32)
    reason = conclude(faces, cluster, similarity, reason, rule.min_faces)
    return Verdict(
        cluster.astype(np.int32),
        similarity,
        reason == 0,
        reason,
        normalised(total),
        np.full(1, margin, dtype=np.float32),
    )


def _decided(mine: _Counted, rule: Rule) -> tuple[np.ndarray, np.ndarray, np.float32]:
    """Ranks and reasons (n,), rank 0 for the person's group, and the margin of the second."""
    parts = hang_together(mine.rounded, rule.merge_cosine, rule.similarity_threshold)
    labels = joined(
        mine.unit, parts, rule.merge_cosine, rule.similarity_threshold, rule.same_cosine
    )
    groups = _look(mine, labels, rule)
    main, told = _chosen(mine, groups, rule)
    if main < 0:
        return (
            _ranked(groups, main, main),
            np.full(len(labels), CODE["ambiguous"], dtype=np.int8),
            np.float32(0),
        )
    taken = _recovered(mine.unit, labels, main, rule)
    taken = _without_strangers(mine, parts, taken, main, rule)
    if taken is not labels:
        groups = _look(mine, taken, rule)
    second, margin = _second(mine, groups, main)
    reason = np.full(len(labels), CODE["other_cluster"], dtype=np.int8)
    own = groups.labels == main
    if second >= 0 and margin >= rule.near_tie and not told:
        reason[own | (groups.labels == second)] = CODE["near_tie"]
    else:
        reason[own] = np.where(groups.near[own], 0, CODE["below_threshold"])
    return _ranked(groups, main, second), reason, np.float32(margin)


def _look(mine: _Counted, labels: np.ndarray, rule: Rule) -> _Groups:
    unit, count = mine.unit, int(labels.max()) + 1
    size, total = np.bincount(labels, minlength=count), sums(unit, labels, count)
    near = similarities(unit, total, labels, size[labels] > 1) >= rule.similarity_threshold
    # The sum of one to three others is no indicator yet: there counts what made them a group.
    product = np.einsum("nd,nd->n", unit, total[labels]) - np.einsum("nd,nd->n", unit, unit)
    near |= (size[labels] <= _FEW) & (product >= rule.merge_cosine * (size[labels] - 1))
    near |= size[labels] == 1
    votes = distinct(labels[near], mine.votes[near], count)
    of = np.concatenate([np.flatnonzero(near), mine.copied[near[mine.copied]]])
    images = np.concatenate([mine.images[near], mine.copied_images[near[mine.copied]]])
    return _Groups(labels, near, votes, distinct(labels[of], images, count))


def _chosen(mine: _Counted, groups: _Groups, rule: Rule) -> tuple[int, bool]:
    """The group that is the person, -1 for none, and whether somebody said so."""
    count, labels = len(groups.votes), groups.labels
    agrees = groups.votes >= AGREEMENT
    by_hand, stated = (
        np.bincount(labels[said], minlength=count) for said in (mine.by_hand, mine.reference)
    )
    for said in (by_hand * agrees, stated * agrees):
        if said.any():
            return _first(said, groups.votes, groups.images), True
    if stated.any():
        near = _nearest(mine.unit, groups, mine.reference, agrees, rule.similarity_threshold)
        return (near if near >= 0 else _first(stated, groups.votes, groups.images)), True
    if agrees.any():
        return _first(groups.votes * agrees, groups.images), False
    # All there is are versions of one photograph, or a single face: nothing speaks against it.
    if count == 1 and bool(groups.near.all()) and len(np.unique(mine.images)) == len(labels):
        return 0, False
    if by_hand.any():
        return _first(by_hand, groups.votes, groups.images), True
    return -1, False


def _first(*values: np.ndarray) -> int:
    """The place of the largest by the first values, then by the next ones; the first of equals."""
    return int(np.lexsort([-value for value in reversed(values)])[0])


def _nearest(
    unit: np.ndarray, groups: _Groups, asked: np.ndarray, agrees: np.ndarray, threshold: float
) -> int:
    """The group that agrees and is nearest to one of the faces `asked`, from `threshold` on; -1 if
    there is none.
    """
    if not agrees.any():
        return -1
    centre = normalised(sums(unit, groups.labels, len(agrees))[agrees])
    cosine = (unit[asked] @ centre.T).max(axis=0)
    return int(np.flatnonzero(agrees)[cosine.argmax()]) if cosine.max() >= threshold else -1


def _recovered(unit: np.ndarray, labels: np.ndarray, main: int, rule: Rule) -> np.ndarray:
    """`labels` with `main` for every face that is nearer to it than any stranger is."""
    if rule.join_cosine is None:
        return labels
    total = sums(unit, (labels != main).astype(np.int64), 2)[0]
    near = (labels != main) & (unit @ normalised(total) >= rule.join_cosine)
    return np.where(near, main, labels) if near.any() else labels


def _without_strangers(
    mine: _Counted, parts: np.ndarray, labels: np.ndarray, main: int, rule: Rule
) -> np.ndarray:
    """`labels` without a part of `main` that does not agree with the rest of it: it becomes a group
    of its own again.

    Parts are what hung together at first; one of a single photograph was looked at face by face.
    """
    rows = np.flatnonzero(labels == main)
    names, of = np.unique(parts[rows], return_inverse=True)
    if len(names) < 2:
        return labels
    total, size = sums(mine.unit[rows], of, len(names)), distinct(of, mine.votes[rows], len(names))
    rest, faces = total.sum(axis=0) - total, np.bincount(of, minlength=len(names))
    mean = np.einsum("gd,gd->g", total, rest) / np.maximum(faces * (len(rows) - faces), 1)
    limit = (
        rule.similarity_threshold
        if rule.same_cosine is None
        else min(rule.similarity_threshold, rule.same_cosine)
    )
    agrees = (np.einsum("gd,gd->g", normalised(total), normalised(rest)) >= limit) | (
        mean >= rule.merge_cosine
    )
    out = (size >= AGREEMENT) & ~agrees
    out[_first(size)] = False
    if not out.any():
        return labels
    labels = labels.copy()
    labels[rows[out[of]]] = int(labels.max()) + 1 + of[out[of]]
    return labels


def _second(mine: _Counted, groups: _Groups, main: int) -> tuple[int, float]:
    """The rival that comes nearest to the group `main`, -1 if there is none, and its share of the
    votes or images, the larger.

    A group all of whose photographs show the person as well, while the person is in others too, is
    no rival: a spouse.
    """
    share = np.maximum(
        groups.votes / max(int(groups.votes[main]), 1),
        groups.images / max(int(groups.images[main]), 1),
    )
    share[(groups.votes < AGREEMENT) | (np.arange(len(share)) == main)] = 0
    own = np.unique(mine.votes[groups.near & (groups.labels == main)])
    for other in np.argsort(-share, kind="stable")[: int((share > 0).sum())].tolist():
        theirs = np.unique(mine.votes[groups.near & (groups.labels == other)])
        if len(theirs) >= len(own) or not np.isin(theirs, own).all():
            return other, float(share[other])
    return -1, 0.0


def _ranked(groups: _Groups, main: int, second: int) -> np.ndarray:
    """Ranks (n,) of groups: 0 the person's, 1 the second, the others by falling votes, images and
    faces; then the first.
    """
    count = len(groups.votes)
    size, there = np.bincount(groups.labels, minlength=count), np.arange(count)
    order = np.lexsort(
        (there, -size, -groups.images, -groups.votes, there != second, there != main)
    )
    order = order[size[order] > 0]
    rank = np.empty(count, dtype=np.int64)
    rank[order] = np.arange(len(order))
    ranked: np.ndarray = rank[groups.labels]
    return ranked
