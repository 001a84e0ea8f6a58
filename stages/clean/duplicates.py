"""Copies of one photograph within a person: which faces are worse copies of which.

Two faces of different pictures are copies if the pictures look the same (perceptual hash) and the faces are of the same
person, or if the vectors are so alike that the faces must be from one photograph, however it was cut. The better copy is
the larger and sharper face. A face is the copy of a face that is nobody's copy, so that a series does not become a chain.
"""

import numpy as np

from stages.clean.lloyd import padded_size

HASH_DISTANCE = 4
"""Bits of 64. Of 190 photographs of people 99 % stay within 4 when halved, or compressed to quality 50; of all pairs of
different photographs of one person the nearest two are 8 apart (two expressions before the same camera)."""
BLUR_LIMIT = 100.0
"""Grey levels squared: below this variance of the Laplacian a picture is usually called blurred (Pech-Pacheco et al. 2000)."""
_TILE = 1024
_BLOCK_VALUES = 2**21


def better(side: np.ndarray, sharpness: np.ndarray, width: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Ranks (n,) int64 of faces, 0 for the best copy; nan counts as worst.

    By `side`, pixels, less where the face is blurred (`sharpness`, Laplacian variance at 112 pixels); then by the size of
    the picture; then the first.
    """
    blur = np.clip(np.where(np.isfinite(sharpness), sharpness, BLUR_LIMIT) / BLUR_LIMIT, 0.0, 1.0)
    order = np.lexsort((-np.nan_to_num(width * height), -np.nan_to_num(side) * blur))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return rank


def find(
    unit: np.ndarray, starts: np.ndarray, images: np.ndarray, hashes: np.ndarray, rank: np.ndarray, same_person: float,
    same_photograph: float | None = None, distance: int = HASH_DISTANCE,
) -> np.ndarray:  # fmt: skip
    """For each face the row of the better copy that stands for it, -1 for those that are nobody's copy: (n,) int64.

    `unit`: (n, d) float32 unit vectors, zeros for faces that take no part; `starts`: (p + 1,) where each person begins,
    and n; `images`: (n,) int64, equal for faces of one picture; `hashes`: (n,) uint64 of the pictures, 0 where unknown;
    `rank`: (n,) int64, lower is better. Faces at `same_person` or more are copies if their pictures' hashes differ in at
    most `distance` bits, those at `same_photograph` or more whatever the pictures; both are cosines.
    """
    alike = _Alike(unit, images, hashes, same_person, same_photograph, distance)
    found = np.full(len(unit), -1, dtype=np.int64)
    counts = np.diff(starts)
    sizes = np.where((counts > 1) & (counts <= _TILE), padded_size(counts), 0)
    for size in np.unique(sizes[sizes > 0]):
        members = np.flatnonzero(sizes == size)
        most = max(1, _BLOCK_VALUES // (int(size) * max(int(size), unit.shape[1])))
        for at in range(0, len(members), most):
            people = members[at : at + most]
            rows = np.minimum(starts[people][:, None] + np.arange(size), len(unit) - 1)
            there = np.arange(size) < counts[people][:, None]
            who, first, second = np.nonzero(alike(rows, rows, there, there))
            _settle(found, rows[who, first], rows[who, second], rank)
    for person in np.flatnonzero(counts > _TILE):
        rows = np.arange(starts[person], starts[person + 1])
        _find_among_many(found, rows[np.argsort(rank[rows], kind="stable")], rank, alike)
    return found


class _Alike:
    """Which pairs of faces are of one photograph."""

    def __init__(
        self, unit: np.ndarray, images: np.ndarray, hashes: np.ndarray, same_person: float, same_photograph: float | None, distance: int
    ) -> None:
        self.unit, self.images, self.hashes = unit, images, hashes
        self.same_person, self.same_photograph, self.distance = same_person, same_photograph, distance

    def __call__(self, left: np.ndarray, right: np.ndarray, left_there: np.ndarray, right_there: np.ndarray) -> np.ndarray:
        """bool (b, l, r) for the rows `left` (b, l) and `right` (b, r), false for those that are not there."""
        cosine = self._vectors(left, left_there)
        # The same array twice lets the product of a stack use its symmetry.
        others = cosine if right is left else self._vectors(right, right_there)
        cosine = cosine @ others.transpose(0, 2, 1)
        bits = np.bitwise_count(self.hashes[left][:, :, None] ^ self.hashes[right][:, None, :])
        known = (self.hashes[left] != 0)[:, :, None] & (self.hashes[right] != 0)[:, None, :]
        found = (bits <= self.distance) & known & (cosine >= np.float32(self.same_person))
        if self.same_photograph is not None:
            found |= cosine >= np.float32(self.same_photograph)
        return found & (self.images[left][:, :, None] != self.images[right][:, None, :])

    def _vectors(self, rows: np.ndarray, there: np.ndarray) -> np.ndarray:
        found = self.unit[rows]
        found[~there] = 0.0
        return found


def _settle(found: np.ndarray, first: np.ndarray, second: np.ndarray, rank: np.ndarray) -> None:
    """Give every face that is alike to a better one that stays the best of those. `first`, `second`: pairs, in any order."""
    right_way = rank[first] < rank[second]
    first, second = first[right_way], second[right_way]
    faces, places = np.unique(np.concatenate([first, second]), return_inverse=True)
    good, bad = places[: len(first)], places[len(first) :]
    stays, copy = np.zeros(len(faces), dtype=bool), np.zeros(len(faces), dtype=bool)
    while not (stays | copy).all():
        # Who has no better face left to be a copy of stays; who is alike to one that stays is its copy.
        waits = np.zeros(len(faces), dtype=bool)
        waits[bad[~copy[good]]] = True
        stays |= ~waits & ~copy
        copy[bad[stays[good]]] = True
    order = np.argsort(-rank[faces[good]], kind="stable")  # the best is written last
    order = order[stays[good[order]]]
    found[faces[bad[order]]] = faces[good[order]]


def _find_among_many(found: np.ndarray, rows: np.ndarray, rank: np.ndarray, alike: _Alike) -> None:
    """`find` for one person of very many faces, `rows` with the best first: tile by tile against those that stay so far."""
    stay = np.empty(0, dtype=np.int64)
    for start in range(0, len(rows), _TILE):
        tile = rows[start : start + _TILE]
        all_of_them = np.ones((1, len(tile)), dtype=bool)
        for at in range(0, len(stay), _TILE):
            some = stay[at : at + _TILE]
            near = alike(tile[None], some[None], all_of_them, np.ones((1, len(some)), dtype=bool))[0]
            hit = near.any(axis=1) & (found[tile] < 0)
            found[tile[hit]] = some[near[hit].argmax(axis=1)]
        left = tile[found[tile] < 0]
        there = np.ones((1, len(left)), dtype=bool)
        _, first, second = np.nonzero(alike(left[None], left[None], there, there))
        _settle(found, left[first], left[second], rank)
        stay = np.concatenate([stay, left[found[left] < 0]])
