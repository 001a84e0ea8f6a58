"""k-means of many people at once: Lloyd's iterations of all restarts of people of like size in
common matrix products.

People are filled up with nothing to one of few sizes and those of a size go through together. A
matrix product of a stack is one product an item, always of the same shape for a person, whose size
fixes it; every sum runs within one person. So the bits of a person do not depend on who else is
there (the tests compare them).

Up to as many faces as the vectors have dimensions everything is done on the Gram matrix: the sums
of a cluster are never needed, only their products with the faces, and those are products of the
Gram matrix with the memberships. Restarts are searched in single precision. Where a face of the
best one is so near the border of two clusters that rounding may have decided, its labels are
finished in double precision, until nothing moves.
"""

from collections.abc import Iterator
from typing import Protocol

import numpy as np

RESTARTS, ITERATIONS = 10, 100
LEAST_SIZE = 8
DOUBT = 1e-5
"""Faces nearer to a border are looked at again: single precision errs by about 1e-7 in products of
unit vectors.
"""
_BLOCK_VALUES = 2**20
"""About how many numbers the largest array of a block has: what the processor's caches hold."""


def kmeans(
    vectors: np.ndarray, starts: np.ndarray, seeds: np.ndarray, k: int, spherical: bool = True
) -> np.ndarray:
    """Labels (n,) int64, 0 to k - 1 within each person: the best of ten k-means++ starts.

    `vectors`: (n, d) float32 unit vectors, the faces of one person after those of another;
    `starts`: (p + 1,) where each person begins, and n; `seeds`: (p,) uint64, from which the starts
    of a person are drawn; `k`: 1 to 255. People with fewer faces than k have that many clusters; a
    cluster may come out empty, as among duplicates. `spherical`: by cosine (Dhillon and Modha
    2001), else by Euclidean distance as scikit-learn does.
    """
    labels = np.zeros(len(vectors), dtype=np.int64)
    counts = np.diff(starts)
    clusters = np.minimum(k, counts)
    sizes = padded_size(counts)
    # The number of clusters, too, is part of the shape of the products.
    for shape in np.unique(np.stack([sizes, clusters], axis=1)[clusters > 1], axis=0):
        size, count = (int(value) for value in shape)
        members = np.flatnonzero((sizes == size) & (clusters == count))
        for people in _blocks(members, size, vectors.shape[1], count):
            unit, valid, rows = _padded(vectors, starts, people, size)
            products = _products(unit)
            picks = _plus_plus(products, counts[people], seeds[people], count)
            labels[rows] = _labels(unit, products, picks, valid, spherical)[valid]
    return labels


def from_picks(unit: np.ndarray, picks: np.ndarray, spherical: bool = True) -> np.ndarray:
    """Labels (n,) of one person (n, d) from one start: the faces `picks` (k,) are the first
    centres.
    """
    starts = np.array([0, len(unit)])
    padded, valid, _ = _padded(
        unit.astype(np.float32),
        starts,
        np.zeros(1, dtype=np.int64),
        int(padded_size(starts[1:])[0]),
    )
    return _labels(padded, _products(padded), picks[None, :, None], valid, spherical)[valid]


def padded_size(counts: np.ndarray) -> np.ndarray:
    """What people with so many faces are filled up to: steps of an eighth to a quarter, so that few
    sizes serve all.
    """
    counts = np.maximum(np.asarray(counts, dtype=np.int64), 1)
    step = np.maximum(2 ** np.floor(np.log2(counts)).astype(np.int64) // 8, LEAST_SIZE)
    sizes: np.ndarray = -(-counts // step) * step
    return sizes


def uniform(seeds: np.ndarray, count: int) -> np.ndarray:
    """(p, count) float64 in [0, 1) from (p,) uint64 seeds: SplitMix64 (Steele, Lea and Flood 2014),
    a stream a seed.
    """
    steps = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed = np.asarray(seeds, dtype=np.uint64)[:, None] + steps
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    drawn: np.ndarray = ((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53
    return drawn


class _Products(Protocol):
    """The products of faces with sums of faces."""

    def take(self, people: np.ndarray) -> "_Products":
        """Those of some of the people."""

    def of_sums(self, members: np.ndarray) -> np.ndarray:
        """(b, c, n): of every face with the sums over `members` (b, c, n), 0 or 1."""

    def of_faces(self, picks: np.ndarray) -> np.ndarray:
        """(b, r, n): of every face with the faces `picks` (b, r)."""


class _Gram:
    def __init__(self, gram: np.ndarray) -> None:
        self.gram = gram

    def take(self, people: np.ndarray) -> "_Gram":
        return _Gram(self.gram[people])

    def of_sums(self, members: np.ndarray) -> np.ndarray:
        found: np.ndarray = members @ self.gram
        return found

    def of_faces(self, picks: np.ndarray) -> np.ndarray:
        return self.gram[np.arange(len(picks))[:, None], picks]


class _Direct:
    def __init__(self, unit: np.ndarray) -> None:
        self.unit = unit

    def take(self, people: np.ndarray) -> "_Direct":
        return _Direct(self.unit[people])

    def of_sums(self, members: np.ndarray) -> np.ndarray:
        found: np.ndarray = (members @ self.unit) @ self.unit.transpose(0, 2, 1)
        return found

    def of_faces(self, picks: np.ndarray) -> np.ndarray:
        picked = self.unit[np.arange(len(picks))[:, None], picks]
        found: np.ndarray = picked @ self.unit.transpose(0, 2, 1)
        return found


def _products(unit: np.ndarray) -> _Products:
    if unit.shape[1] > unit.shape[2]:
        return _Direct(unit)
    return _Gram(unit @ unit.transpose(0, 2, 1))


def _blocks(people: np.ndarray, size: int, width: int, k: int) -> Iterator[np.ndarray]:
    most = max(1, _BLOCK_VALUES // (size * max(min(size, width), width, k * RESTARTS)))
    for start in range(0, len(people), most):
        yield people[start : start + most]


def _padded(
    vectors: np.ndarray, starts: np.ndarray, people: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The faces of `people` as (b, size, d), which of them are there (b, size), and the rows where
    these came from.
    """
    counts = starts[people + 1] - starts[people]
    valid = np.arange(size) < counts[:, None]
    rows = (starts[people][:, None] + np.arange(size))[valid]
    unit = np.zeros((len(people), size, vectors.shape[1]), dtype=np.float32)
    unit[valid] = vectors[rows]
    return unit, valid, rows


def _plus_plus(products: _Products, counts: np.ndarray, seeds: np.ndarray, k: int) -> np.ndarray:
    """Faces (b, k, RESTARTS) to start from: k-means++ (Arthur and Vassilvitskii 2007) with the
    distance 1 - cosine.
    """
    draws = uniform(seeds, k * RESTARTS).reshape(-1, k, RESTARTS)
    pick = (draws[:, 0] * counts[:, None]).astype(np.int64)
    picks = [pick]
    distance = np.maximum(1.0 - products.of_faces(pick), 0.0)
    # What fills up must never be drawn.
    distance *= np.arange(distance.shape[2]) < counts[:, None, None]
    for at in range(1, k):
        mass = np.cumsum(distance, axis=2, dtype=np.float64)
        # Where all faces are duplicates of a centre there is no mass, and the draw falls on the
        # first face.
        pick = (mass <= draws[:, at, :, None] * mass[:, :, -1:]).sum(axis=2)
        pick = np.minimum(pick, counts[:, None] - 1) * (mass[:, :, -1] > 0)
        picks.append(pick)
        np.minimum(distance, np.maximum(1.0 - products.of_faces(pick), 0.0), out=distance)
    return np.stack(picks, axis=1)


def _labels(
    unit: np.ndarray, products: _Products, picks: np.ndarray, valid: np.ndarray, spherical: bool
) -> np.ndarray:
    """The labels (b, n) uint8 of the best restart. `picks`: (b, k, r) faces to start from."""
    labels, doubtful = _search(products, picks, valid, spherical)
    again = np.flatnonzero(doubtful)
    if len(again):
        labels[again] = _finish(unit[again], labels[again], picks.shape[1], valid[again], spherical)
    return labels


def _search(
    products: _Products, picks: np.ndarray, valid: np.ndarray, spherical: bool
) -> tuple[np.ndarray, np.ndarray]:
    """`_labels` in single precision, and the people (b,) for whom that may be too little."""
    people, k, restarts = picks.shape
    size = valid.shape[1]
    chosen = np.zeros((people, size), dtype=np.uint8)
    doubtful = np.zeros(people, dtype=bool)
    active = np.arange(people)
    scores = products.of_faces(picks.reshape(people, k * restarts)).reshape(
        people, k, restarts, size
    )
    labels = _nearest(scores)
    for step in range(ITERATIONS):
        members = np.empty((len(active), k, restarts, size), dtype=np.float32)
        for cluster in range(k):
            np.multiply(labels == cluster, valid[:, None, :], out=members[:, cluster])
        sums = products.of_sums(members.reshape(len(active), k * restarts, size)).reshape(
            members.shape
        )
        inside = members.sum(axis=3)
        # The squared length of a sum is the sum of its members' products with it.
        squared = np.maximum(np.einsum("bkrn,bkrn->bkr", members, sums), 0.0)
        scores = _scores(sums, inside, squared, scores, spherical)
        fresh = _nearest(scores)
        still = (
            (fresh == labels).all(axis=(1, 2))
            if step + 1 < ITERATIONS
            else np.ones(len(active), dtype=bool)
        )
        labels = fresh
        if still.any():
            # The clusters' tightness; within-cluster inertia is the number of faces minus it.
            tightness = (np.sqrt(squared) if spherical else squared / np.maximum(inside, 1.0)).sum(
                axis=1
            )
            done = np.flatnonzero(still)
            best = tightness[done].argmax(axis=1)
            chosen[active[done]] = labels[done, best]
            margin = _margins(scores[done, :, best], labels[done, best])
            doubtful[active[done]] = ((margin < DOUBT) & valid[done]).any(axis=1)
            left = np.flatnonzero(~still)
            if not len(left):
                break
            active, labels, scores, valid, products = (
                active[left],
                labels[left],
                scores[left],
                valid[left],
                products.take(left),
            )
    return chosen, doubtful


def _scores(
    sums: np.ndarray, inside: np.ndarray, squared: np.ndarray, before: np.ndarray, spherical: bool
) -> np.ndarray:
    """How near faces are to centres, (b, k, r, n): cosines, or half the squared distance up to what
    all centres share.
    """
    there = inside > 0
    if spherical:
        length = np.sqrt(squared)
        scores = (
            sums * np.divide(1.0, length, out=np.zeros_like(length), where=length > 1e-6)[..., None]
        )
    else:
        share = np.divide(1.0, inside, out=np.zeros_like(inside), where=there)
        scores = sums * share[..., None]
        scores -= (0.5 * squared * share * share)[..., None]
    if not there.all():
        # A cluster that lost its last face keeps its centre and may win faces back.
        scores = np.where(there[..., None], scores, before)
    return scores


def _nearest(scores: np.ndarray) -> np.ndarray:
    """The first of the best along axis 1, as uint8: a few passes over long rows, where argmax would
    go crosswise.
    """
    best = scores[:, 0].copy()
    labels = np.zeros(best.shape, dtype=np.uint8)
    for cluster in range(1, scores.shape[1]):
        np.copyto(labels, np.uint8(cluster), where=scores[:, cluster] > best)
        np.maximum(best, scores[:, cluster], out=best)
    return labels


def _margins(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How much nearer each face is to its own centre than to the next, (b, n). `scores`: (b, k,
    n).
    """
    others = np.where(
        np.arange(scores.shape[1])[:, None] == labels[:, None, :], -np.inf, scores
    ).max(axis=1)
    margins: np.ndarray = scores.max(axis=1) - others
    return margins


def _finish(
    unit: np.ndarray, labels: np.ndarray, k: int, valid: np.ndarray, spherical: bool
) -> np.ndarray:
    """Lloyd's iterations in double precision from `labels` (b, n) until nothing moves: (b, n)
    uint8.
    """
    found = labels.copy()
    active = np.arange(len(labels))
    unit = unit.astype(np.float64)
    for _ in range(ITERATIONS):
        members = ((labels[:, None, :] == np.arange(k)[:, None]) & valid[:, None, :]).astype(
            np.float64
        )
        centres = members @ unit
        inside = members.sum(axis=2)
        if spherical:
            length = np.sqrt(np.einsum("bkd,bkd->bk", centres, centres))
            centres *= np.divide(1.0, length, out=np.zeros_like(length), where=length > 1e-9)[
                ..., None
            ]
            offset = np.zeros_like(length)
        else:
            centres /= np.maximum(inside, 1.0)[..., None]
            offset = 0.5 * np.einsum("bkd,bkd->bk", centres, centres)
        scores = centres @ unit.transpose(0, 2, 1) - offset[..., None]
        scores[inside == 0] = -np.inf
        fresh = _nearest(scores)
        moved = (fresh != labels).any(axis=1)
        found[active] = labels = fresh
        if not moved.any():
            break
        left = np.flatnonzero(moved)
        active, labels, valid, unit = active[left], labels[left], valid[left], unit[left]
    return found
