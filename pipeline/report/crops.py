"""Faces as small images, for pages and contact sheets."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from stages.pictures import PictureError, decode

SIDE = 160
_AROUND = 0.35


def crop(picture: bytes | None, box: Sequence[float]) -> np.ndarray:
    """The face with some of its surroundings, (h, w, 3) uint8; a grey square where the image does
    not decode.

    `box`: x1 y1 x2 y2 in pixels of the upright image.
    """
    try:
        rgb = decode(picture or b"")
    except PictureError:
        return np.full((SIDE, SIDE, 3), 200, np.uint8)
    x1, y1, x2, y2 = box
    half = max(x2 - x1, y2 - y1) * (0.5 + _AROUND)
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    height, width = rgb.shape[:2]
    left, right = max(0, int(x - half)), min(width, int(x + half) + 1)
    top, bottom = max(0, int(y - half)), min(height, int(y + half) + 1)
    return rgb[top:bottom, left:right] if right > left and bottom > top else rgb


def thumbnail(rgb: np.ndarray, side: int = SIDE) -> str:
    """A JPEG of at most `side` pixels either way, without metadata, as the address of an <img>."""
    picture = Image.fromarray(np.ascontiguousarray(rgb))
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    sink = io.BytesIO()
    picture.save(sink, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(sink.getvalue()).decode()
