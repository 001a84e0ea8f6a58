"""Copies of an image that are mirrored, cropped or turned a little, known again by perceptual
hashes.

Of the image that is looked for, hashes are made of what is left when up to a tenth is cut off at
each side, and of the image turned by a few degrees (`looks`). Of an image that comes, hashes are
made of it and its mirror image, with the bits that are the least sure of it the one way and the
other (`guesses`): a crop between two of those that were made differs in just these bits. Two hashes
have to be equal then, so they can be kept under a key.
"""

from functools import cache
from itertools import combinations, product

import cv2
import numpy as np

from stages.pictures import PictureError, above_median, grey, low_frequencies

WEAK_BITS, FLIPS = 18, 6
"""How many bits of a hash are held to be unsure, and how many of them may be wrong at a time: 31
180 guesses.
"""
_SIDE, _SIDE_COMING = 256, 128
"""Pixels to which images are decoded at least; more changes no hash."""
_CUTS = sorted(
    {*product((0, 1 / 30, 1 / 15, 1 / 10), repeat=4), *product((0, 1 / 20, 1 / 10), repeat=4)}
)
"""What is cut off at the left, top, right and bottom, as shares of the sides."""
_DEGREES = (-4, -2, 2, 4)
_MIRROR = np.where(np.arange(1, 9) % 2, -1.0, 1.0)
"""What a mirror does to the columns of coefficients: those of odd waves change their sign."""


def looks(data: bytes) -> np.ndarray:
    """(n, 2) uint64: perceptual hashes of what copies may look like, and of their mirror images;
    none for what does not decode.
    """
    try:
        picture = _small(grey(data, _SIDE), _SIDE)
    except PictureError:
        return np.zeros((0, 2), np.uint64)
    low = np.stack([low_frequencies(part) for part in (*_cut(picture), *_turned(picture))])
    return np.stack(
        [_packed(above_median(low) > 0), _packed(above_median(low * _MIRROR) > 0)], axis=1
    )


def guesses(data: bytes) -> np.ndarray:
    """(m,) uint64: the hashes that an image may have if it is a copy, both ways round; none for
    what does not decode.
    """
    try:
        low = low_frequencies(_small(grey(data, _SIDE_COMING), _SIDE))
    except PictureError:
        return np.zeros(0, np.uint64)
    found = []
    for one in (low, low * _MIRROR):
        above = above_median(one)
        weak = np.argsort(np.abs(above), kind="stable")[:WEAK_BITS]
        flips = np.bitwise_or.reduce(
            np.where(_flips(), np.uint64(1) << (63 - weak).astype(np.uint64), np.uint64(0)), axis=1
        )
        found.append(_packed(above > 0) ^ flips)
    return np.concatenate(found)


def _packed(bits: np.ndarray) -> np.ndarray:
    """(..., 64) bool to (...) uint64, the first bit on top."""
    return np.packbits(bits, axis=-1).view(">u8").astype(np.uint64)[..., 0]


@cache
def _flips() -> np.ndarray:
    """(m, WEAK_BITS) bool: all choices of at most FLIPS of them."""
    chosen = [
        places for count in range(FLIPS + 1) for places in combinations(range(WEAK_BITS), count)
    ]
    made = np.zeros((len(chosen), WEAK_BITS), bool)
    for row, places in enumerate(chosen):
        made[row, list(places)] = True
    return made


def _small(picture: np.ndarray, side: int) -> np.ndarray:
    scale = side / min(picture.shape)
    if scale >= 1:
        return picture
    return np.asarray(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))


def _cut(picture: np.ndarray) -> list[np.ndarray]:
    height, width = picture.shape
    parts = []
    for left, top, right, bottom in _CUTS:
        part = picture[
            round(height * top) : height - round(height * bottom),
            round(width * left) : width - round(width * right),
        ]
        parts.append(part if part.size else picture)
    return parts


def _turned(picture: np.ndarray) -> list[np.ndarray]:
    """Turned by a few degrees: with black corners, with what is inside of these alone, and with all
    of it on a larger canvas.
    """
    height, width = picture.shape
    parts = []
    for degrees in _DEGREES:
        turn = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1)
        same = np.asarray(cv2.warpAffine(picture, turn, (width, height), flags=cv2.INTER_LINEAR))
        cosine, sine = abs(turn[0, 0]), abs(turn[0, 1])
        inside = (1 - 1 / (cosine + max(width, height) / min(width, height) * sine)) / 2
        y, x = round(height * inside), round(width * inside)
        larger = (int(height * sine + width * cosine), int(height * cosine + width * sine))
        turn[0, 2] += larger[0] / 2 - width / 2
        turn[1, 2] += larger[1] / 2 - height / 2
        parts += [
            same,
            same[y : height - y, x : width - x],
            np.asarray(cv2.warpAffine(picture, turn, larger, flags=cv2.INTER_LINEAR)),
        ]
    return [part if part.size else picture for part in parts]
