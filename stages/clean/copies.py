"""Copies and versions of one photograph within a person: which faces are of which, and how many
votes there are.

Two faces of different images are alike if the images look the same (perceptual hash, also in the
mirror) and the faces are of the same person, or if the vectors are so alike that the faces may be
from one photograph, however it was cut, coloured or turned over.

- A **copy** is sure: it counts once, and the better one is kept. The better copy is the larger and
  sharper face. A face is
  the copy of a face that is nobody's copy, so that a series does not become a chain.
- A **version** is likely: both are kept, but a photograph has one vote, in however many versions it
  came. Else a stranger's
  image that the web likes would outvote the person.
"""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

HASH_DISTANCE = 4
"""Bits of 64. Of 190 photographs of people 99 % stay within 4 when halved, or compressed to quality
50; of all pairs of different photographs of one person the nearest two are 8 apart (two expressions
before the same camera).
"""
MIRROR_DISTANCE = 8
"""The same for a photograph and another one in the mirror: of 80 mirrored ones 99 % stay within 8,
different ones come to 16.
"""
MIRROR = np.uint64(0xAAAAAAAAAAAAAAAA)
"""In the mirror the DCT coefficients of odd horizontal frequency change their sign, and with it
these bits of the hash.
"""
BLUR_LIMIT = 100.0
"""Grey levels squared: below this variance of the Laplacian an image is usually called blurred
(Pech-Pacheco et al. 2000).
"""
_TILE = 1024
_PARTNERS = 16
"""Of a face within a tile where there are too many to name them all: a photograph that came a
thousand times.
"""


@dataclass(frozen=True)
class Alike:
    """Pairs of faces of different images that are alike: (m,) each."""

    first: np.ndarray
    second: np.ndarray
    """int64, rows: the better face and the other one."""
    cosine: np.ndarray
    """float32."""
    same_look: np.ndarray
    """bool: the hashes of the images agree."""

    def copies(self, same_photograph: float | None) -> "Alike":
        """Those that are copies for sure: images of one look, or a cosine of `same_photograph` or
        more.
        """
        return self._where(
            self.same_look
            | (self.cosine >= np.float32(2 if same_photograph is None else same_photograph))
        )

    def _where(self, chosen: np.ndarray) -> "Alike":
        return Alike(
            self.first[chosen], self.second[chosen], self.cosine[chosen], self.same_look[chosen]
        )


def alike(
    unit: np.ndarray,
    starts: np.ndarray,
    images: np.ndarray,
    hashes: np.ndarray,
    rank: np.ndarray,
    same_person: float,
    version: float | None = None,
) -> Alike:
    """All pairs that are alike, person by person.

    `unit`: (n, d) float32 unit vectors, zeros for faces that take no part; `starts`: (p + 1,) where
    each person begins, and n; `images`: (n,) int64, equal for faces of one image; `hashes`: (n,)
    uint64 of the images, 0 where unknown; `rank`: (n,) int64, the better face first. Faces at
    `same_person` or more are alike if their images' hashes differ in at most HASH_DISTANCE bits, or
    in at most MIRROR_DISTANCE in the mirror; those at `version` or more whatever the images. Both
    are cosines. Where a photograph came hundreds of times, pairs with the better ones are named.
    """
    look = _Look(unit, images, hashes, same_person, version)
    found: list[tuple[np.ndarray, ...]] = [look.nothing]
    for start, stop in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        rows = start + np.argsort(rank[start:stop], kind="stable")
        tiles = [rows[at : at + _TILE] for at in range(0, len(rows), _TILE)]
        found += [look(tile, other) for at, tile in enumerate(tiles) for other in tiles[at:]]
    return Alike(*(np.concatenate(column) for column in zip(*found, strict=True)))


class _Look:
    def __init__(
        self,
        unit: np.ndarray,
        images: np.ndarray,
        hashes: np.ndarray,
        same_person: float,
        version: float | None,
    ) -> None:
        self.unit, self.images = unit, images
        self.signs, self.mirrored = (
            _signs(hashes),
            _signs(np.where(hashes != 0, hashes ^ MIRROR, hashes)),
        )
        self.same_person, self.version = (
            np.float32(same_person),
            np.float32(2 if version is None else version),
        )
        self.nothing = (
            np.empty(0, np.int64),
            np.empty(0, np.int64),
            np.empty(0, np.float32),
            np.empty(0, bool),
        )

    def __call__(self, left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, ...]:
        """The pairs of two stretches of rows, or of one: better face, other face, cosine, same
        look.
        """
        vectors = self.unit[left]
        # The same array twice lets the product use its symmetry.
        cosine = vectors @ (vectors if left is right else self.unit[right]).T
        others = self.signs[right].T
        # Of 64 signs, those that agree less those that do not: each bit that differs costs 2.
        # Products are several times as quick as counting bits.
        near = (self.signs[left] @ others >= 64 - 2 * HASH_DISTANCE) | (
            self.mirrored[left] @ others >= 64 - 2 * MIRROR_DISTANCE
        )
        near &= cosine >= self.same_person
        hit = near | (cosine >= self.version)
        if hit.sum() > _PARTNERS * _TILE:
            hit &= self.images[left][:, None] != self.images[right][None]
            hit &= np.cumsum(hit, axis=0, dtype=np.int16) <= _PARTNERS
        first, second = np.nonzero(hit)
        near, cosine = near[first, second], cosine[first, second]
        behind = first < second if left is right else np.ones(len(first), dtype=bool)
        first, second = left[first], right[second]
        there = behind & (self.images[first] != self.images[second])
        return first[there], second[there], cosine[there], near[there]


def _signs(hashes: np.ndarray) -> np.ndarray:
    """(n, 64) float32, 1 and -1 for the bits of (n,) uint64; zeros where the hash is 0, that is,
    unknown.
    """
    bits = np.unpackbits(
        np.ascontiguousarray(hashes).view(np.uint8).reshape(len(hashes), 8), axis=1
    ).astype(np.float32)
    signs: np.ndarray = np.where((hashes != 0)[:, None], 2 * bits - 1, 0).astype(np.float32)
    return signs


def votes(images: np.ndarray, pairs: Alike) -> np.ndarray:
    """(n,) int64: equal for faces of images that are alike, directly or by way of others. `images`:
    (n,) int64 from 0.
    """
    if not len(pairs.first):
        return images
    count = int(images.max()) + 1
    edges = coo_array(
        (np.ones(len(pairs.first), bool), (images[pairs.first], images[pairs.second])),
        shape=(count, count),
    )
    label: np.ndarray = connected_components(edges, directed=False)[1]
    return label[images].astype(np.int64)


def better(
    side: np.ndarray, sharpness: np.ndarray, width: np.ndarray, height: np.ndarray
) -> np.ndarray:
    """Ranks (n,) int64 of faces, 0 for the best copy; nan counts as worst.

    By `side`, pixels, less where the face is blurred (`sharpness`, Laplacian variance at 112
    pixels); then by the size of the image; then the first.
    """
    blur = np.clip(np.where(np.isfinite(sharpness), sharpness, BLUR_LIMIT) / BLUR_LIMIT, 0.0, 1.0)
    order = np.lexsort((-np.nan_to_num(width * height), -np.nan_to_num(side) * blur))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return rank


def best_copies(pairs: Alike, rank: np.ndarray) -> np.ndarray:
    """For each face the row of the better copy that stands for it, -1 for those that are nobody's
    copy: (n,) int64.

    `pairs`: faces that are copies of one another; `rank`: (n,) int64, lower is better.
    """
    found = np.full(len(rank), -1, dtype=np.int64)
    first, second = pairs.first, pairs.second
    faces, places = np.unique(np.concatenate([first, second]), return_inverse=True)
    good, bad = places[: len(first)], places[len(first) :]
    stays, copy = np.zeros(len(faces), dtype=bool), np.zeros(len(faces), dtype=bool)
    while not (stays | copy).all():
        # Who has no better face left to be a copy of stays; who is alike to one that stays is its
        # copy.
        waits = np.zeros(len(faces), dtype=bool)
        waits[bad[~copy[good]]] = True
        stays |= ~waits & ~copy
        copy[bad[stays[good]]] = True
    order = np.argsort(-rank[faces[good]], kind="stable")  # the best is written last
    order = order[stays[good[order]]]
    found[faces[bad[order]]] = faces[good[order]]
    return found
