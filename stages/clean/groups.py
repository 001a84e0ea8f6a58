"""Groups of faces that hang together, by average linkage on their cosines.

Two groups are one as long as the mean cosine between their faces is at least a limit (Sokal and
Michener 1958; by scipy). The number of groups follows from the faces, so that a folder of twenty
people has twenty, and a person with two looks one.

Linkage takes memory by the square of the faces. So it is done for a block of them at a time: the
groups of a block take in what is near them of all other faces, and the next block is drawn from
what is left over. Groups of two blocks are joined by the same limit, which is exact, for the mean
cosine of two groups is the product of their plain means.
"""

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from stages.clean.indicator import normalised, similarities, sums

BLOCK = 1024
"""Faces that are linked at a time: 8 MB of distances."""
COMPARED = 64
"""Groups that faces may move to and that may be joined: the largest. Smaller ones decide nothing
where there are more.
"""
_ROUNDS = 10  # of moving faces; two are usual


def hang_together(vectors: np.ndarray, merge_cosine: float, near_cosine: float) -> np.ndarray:
    """Labels (n,) int64, 0 and up: faces of one label hang together.

    `vectors`: (n, d) float32 unit vectors. More than BLOCK faces should come in an order that has
    nothing to do with who they are. `merge_cosine`: least mean cosine between two groups that are
    one. `near_cosine`: least cosine to the sum of a group with which a face outside the block
    belongs to it.
    """
    labels = np.empty(len(vectors), dtype=np.int64)
    rest, count = np.arange(len(vectors)), 0
    while len(rest):
        block, rest = rest[:BLOCK], rest[BLOCK:]
        own = _linked(vectors[block], merge_cosine)
        labels[block] = count + own
        size = np.bincount(own)
        larger = np.flatnonzero(size > 1)
        if len(rest) and len(larger):
            centre = normalised(sums(vectors[block], own, len(size))[larger]).astype(np.float32)
            cosine = vectors[rest] @ centre.T
            best = cosine.argmax(axis=1)
            taken = cosine[np.arange(len(rest)), best] >= near_cosine
            labels[rest[taken]] = count + larger[best[taken]]
            rest = rest[~taken]
        count += len(size)
    return labels


def _linked(vectors: np.ndarray, merge_cosine: float) -> np.ndarray:
    """Labels (n,) from 0 by average linkage, cut where the mean cosine falls below
    `merge_cosine`.
    """
    if len(vectors) < 2:
        return np.zeros(len(vectors), dtype=np.int64)
    distance = 1.0 - (vectors @ vectors.T).astype(np.float64)
    tree = linkage(squareform(np.maximum(distance, 0.0), checks=False), "average")
    found: np.ndarray = fcluster(tree, 1.0 - merge_cosine, "distance").astype(np.int64) - 1
    return found


def joined(
    unit: np.ndarray,
    labels: np.ndarray,
    merge_cosine: float,
    near_cosine: float,
    same_cosine: float | None,
) -> np.ndarray:
    """Labels (n,) int64, 0 and up, after groups that agree are one and faces have gone where they
    are nearer.

    `unit`: (n, d) float64 unit vectors. Groups are one whose faces have a mean cosine of
    `merge_cosine`, or whose sums have one of `same_cosine`; the most alike first. Then a face moves
    to the group whose sum it is nearest to, from `near_cosine` on, if it is nearer to that than to
    the others of its own group. Groups of one face take in nobody.
    """
    for _ in range(_ROUNDS):
        labels = _merged(unit, labels, merge_cosine, same_cosine)
        moved = _moved(unit, labels, near_cosine)
        if moved is labels:
            break
        labels = moved
    return labels


def _compared(labels: np.ndarray) -> np.ndarray:
    """The groups of two faces or more, the largest COMPARED of them, in the order of their
    labels.
    """
    size = np.bincount(labels)
    largest = np.argsort(-size, kind="stable")[:COMPARED]
    return np.sort(largest[size[largest] > 1])


def _merged(
    unit: np.ndarray, labels: np.ndarray, merge_cosine: float, same_cosine: float | None
) -> np.ndarray:
    groups = _compared(labels)
    if len(groups) < 2:
        return labels
    size = np.bincount(labels)[groups].astype(np.float64)
    total = _sums_of(unit, labels, groups)
    # How far above its limit a pair is; same_cosine None means that sums are not compared.
    products = total @ total.T
    count = len(groups)
    owner = np.arange(count)
    alive = np.ones(count, dtype=bool)
    while True:
        length = np.sqrt(np.maximum(np.diag(products), 1e-12))
        above = products / np.outer(size, size) - merge_cosine
        if same_cosine is not None:
            above = np.maximum(above, products / np.outer(length, length) - same_cosine)
        above[~alive] = -np.inf
        above[:, ~alive] = -np.inf
        np.fill_diagonal(above, -np.inf)
        one, other = np.unravel_index(above.argmax(), above.shape)
        if above[one, other] < 0:
            break
        one, other = sorted((int(one), int(other)))
        products[one] += products[other]
        products[:, one] += products[:, other]
        size[one] += size[other]
        alive[other] = False
        owner[owner == other] = one
    if alive.all():
        return labels
    renamed = np.arange(int(labels.max()) + 1)
    renamed[groups] = groups[owner]
    merged: np.ndarray = np.unique(renamed[labels], return_inverse=True)[1]
    return merged


def _moved(unit: np.ndarray, labels: np.ndarray, near_cosine: float) -> np.ndarray:
    groups = _compared(labels)
    if not len(groups):
        return labels
    total = _sums_of(unit, labels, groups)
    cosine = unit @ normalised(total).T
    place = np.full(int(labels.max()) + 1, -1)
    place[groups] = np.arange(len(groups))
    inside = place[labels] >= 0
    rows, at = np.flatnonzero(inside), place[labels[inside]]
    own = np.full(len(unit), -1.0)
    own[rows] = similarities(unit[rows], total, at, np.ones(len(rows), dtype=bool))
    cosine[rows, at] = -1.0
    best = cosine.argmax(axis=1)
    nearest = cosine[np.arange(len(unit)), best]
    move = (nearest >= near_cosine) & (nearest > own)
    if not move.any():
        return labels
    labels = labels.copy()
    labels[move] = groups[best[move]]
    moved: np.ndarray = np.unique(labels, return_inverse=True)[1]
    return moved


def _sums_of(unit: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Sums (g, d) float64 of the faces of some groups."""
    place = np.full(int(labels.max()) + 1, -1)
    place[groups] = np.arange(len(groups))
    rows = np.flatnonzero(place[labels] >= 0)
    return sums(unit[rows], place[labels[rows]], len(groups))
