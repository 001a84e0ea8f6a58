"""Who may be one person, and which images may be one image, over a whole dataset: pure
functions, bounded in memory.
"""

from collections.abc import Iterator
from itertools import combinations, pairwise

import numpy as np

_BLOCK = 2048
_SLACK = 1e-5
"""Single precision errs less than this in products of unit vectors."""
_BITS, _MOST_BITS = 64, 8
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
"""An odd number without pattern; the upper half of products with it spreads like a hash."""


def pairs(
    indicators: np.ndarray, threshold: float, block: int = _BLOCK
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pairs of people whose indicators have a cosine of `threshold` or more: i < j (m,) int64,
    cosines (m,) float64.

    `indicators`: (n, d) float32 unit vectors; a row that is zero or not finite matches nobody. By
    falling cosine, then by i and j. Found in single precision in blocks, decided in double
    precision, so that the answer does not depend on the blocks. Takes n * n * d multiplications
    and, beside the answer, 4 * block * block bytes.
    """
    found_i, found_j, found_cosine = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0)]
    usable = np.flatnonzero(np.isfinite(indicators).all(axis=1) & indicators.any(axis=1))
    unit = np.ascontiguousarray(indicators[usable], dtype=np.float32)
    least = np.float32(threshold - _SLACK)
    for first in range(0, len(unit), block):
        for second in range(first, len(unit), block):
            near = unit[first : first + block] @ unit[second : second + block].T >= least
            i, j = np.nonzero(np.triu(near, 1) if first == second else near)
            for at in range(0, len(i), 65_536):
                here, there = first + i[at : at + 65_536], second + j[at : at + 65_536]
                cosine = np.einsum(
                    "nd,nd->n", unit[here].astype(np.float64), unit[there].astype(np.float64)
                )
                kept = cosine >= threshold
                found_i.append(usable[here[kept]])
                found_j.append(usable[there[kept]])
                found_cosine.append(cosine[kept])
    left, right, cosines = (
        np.concatenate(found_i),
        np.concatenate(found_j),
        np.concatenate(found_cosine),
    )
    order = np.lexsort((right, left, -cosines))
    return left[order], right[order], cosines[order]


def near(phashes: np.ndarray, distance: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of 64-bit hashes that differ in at most `distance` bits: i < j (m,) int64 by i and j,
    and bits (m,) int64.

    `phashes`: (n,) uint64, n below 2^32; `distance`: 0 to 8. Among equal hashes each is paired with
    the first of them only, and of two hashes that differ only the first of each kind are paired: a
    image that is there a thousand times has 999 pairs, and who follows pairs reaches all that are
    near. No pair is missed.

    Of d + 2 stretches of bits two hashes at distance d agree in two or more. So hashes are sorted
    by every two stretches, and those that agree there are compared (multi-index hashing, Norouzi et
    al. 2012). Raises ValueError.
    """
    if not 0 <= distance <= _MOST_BITS:
        raise ValueError(
            f"a distance of {distance} bits: from 0 to {_MOST_BITS} are looked for, and beyond "
            "that everything is near"
        )
    hashes = np.ascontiguousarray(phashes, dtype=np.uint64)
    if len(hashes) >= 2**32:
        raise ValueError(f"{len(hashes)} hashes: at most 2^32 - 1 are compared in one call")
    kinds, first, of = np.unique(hashes, return_index=True, return_inverse=True)
    again = np.flatnonzero(first[of] != np.arange(len(hashes)))
    found = [first[of[again]].astype(np.uint64) << np.uint64(32) | again.astype(np.uint64)]
    for mask in _masks(distance) if distance else ():
        for one, other in _agreeing(kinds, mask):
            close = np.bitwise_count(kinds[one] ^ kinds[other]) <= distance
            low, high = (
                np.minimum(first[one[close]], first[other[close]]),
                np.maximum(first[one[close]], first[other[close]]),
            )
            found.append(np.unique(low.astype(np.uint64) << np.uint64(32) | high.astype(np.uint64)))
    packed = np.unique(np.concatenate(found))
    left, right = (
        (packed >> np.uint64(32)).astype(np.int64),
        (packed & np.uint64(2**32 - 1)).astype(np.int64),
    )
    return left, right, np.bitwise_count(hashes[left] ^ hashes[right]).astype(np.int64)


def _masks(distance: int) -> list[np.uint64]:
    """Every two of `distance` + 2 stretches of the 64 bits."""
    edges = [round(at * _BITS / (distance + 2)) for at in range(distance + 3)]
    stretches = [(1 << stop) - (1 << start) for start, stop in pairwise(edges)]
    return [np.uint64(one | other) for one, other in combinations(stretches, 2)]


def _agreeing(hashes: np.ndarray, mask: np.uint64) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of places of hashes that agree in the bits of `mask` (and a few that do not)."""
    key = ((hashes & mask) * _SPREAD) & np.uint64(0xFFFFFFFF00000000)
    # Key and place in one number: sorting numbers is several times faster than sorting places by
    # numbers.
    packed = np.sort(key | np.arange(len(hashes), dtype=np.uint64))
    key, place = packed >> np.uint64(32), (packed & np.uint64(0xFFFFFFFF)).astype(np.int64)
    ahead, step = np.flatnonzero(key[1:] == key[:-1]), 1
    while len(ahead):
        yield place[ahead], place[ahead + step]
        step += 1
        ahead = ahead[ahead + step < len(key)]
        ahead = ahead[key[ahead] == key[ahead + step]]
