"""Faces as small images, for pages and contact sheets."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from stages.pictures import PictureError, decode

SIDE = 160
_AROUND = 0.35
_QUALITIES = (85, 75, 60, 45)
_LEAST_SIDE = 32


def crop(picture: bytes | None, box: Sequence[float]) -> np.ndarray:
    """The face with some of its surroundings, (h, w, 3) uint8; a grey square where the image does
    not decode.

    `box`: x1 y1 x2 y2 in pixels of the upright image.
    """
    try:
        rgb = decode(picture or b"")
    except PictureError:
        return nothing_to_see()
    return around(rgb, box)


def nothing_to_see() -> np.ndarray:
    """A grey square in place of an image that does not decode."""
    return np.full((SIDE, SIDE, 3), 200, np.uint8)


def around(rgb: np.ndarray, box: Sequence[float]) -> np.ndarray:
    """The face at `box` with some of its surroundings, a view of `rgb`."""
    x1, y1, x2, y2 = box
    half = max(x2 - x1, y2 - y1) * (0.5 + _AROUND)
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    height, width = rgb.shape[:2]
    left, right = max(0, int(x - half)), min(width, int(x + half) + 1)
    top, bottom = max(0, int(y - half)), min(height, int(y + half) + 1)
    return rgb[top:bottom, left:right] if right > left and bottom > top else rgb


def thumbnail(rgb: np.ndarray, side: int = SIDE) -> str:
    """A JPEG of at most `side` pixels either way, without metadata, as the address of an <img>."""
    return "data:image/jpeg;base64," + base64.b64encode(small_jpeg(rgb, side)).decode()


def small_jpeg(rgb: np.ndarray, side: int, most: int | None = None) -> bytes:
    """A JPEG of at most `side` pixels either way, without metadata.

    With `most`, of at most so many bytes where a lower quality or, after that, fewer pixels can
    bring it there.
    """
    picture = Image.fromarray(np.ascontiguousarray(rgb))
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    while True:
        for quality in _QUALITIES:
            sink = io.BytesIO()
            picture.save(sink, "JPEG", quality=quality)
            if most is None or sink.tell() <= most:
                return sink.getvalue()
        if max(picture.size) <= _LEAST_SIDE:
            return sink.getvalue()
        picture.thumbnail((max(picture.size) * 3 // 4,) * 2, Image.Resampling.LANCZOS)
