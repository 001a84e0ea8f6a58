"""Detectors run on images of a test."""

from typing import Any

import numpy as np
import pyarrow as pa

from stages.detect.detector import Detector
from stages.stage import Picture

_NO_SERVICES: Any = None  # detectors ask nothing of the outside


def run(stage: Detector, images: dict[str, np.ndarray]) -> pa.Table:
    """The rows of `faces` of images by id, all of one person."""
    rows = pa.table({"identity_id": ["p"] * len(images), "image_id": list(images)})
    shown = {name: Picture(name, rgb) for name, rgb in images.items()}
    return stage.run(rows, shown, _NO_SERVICES)


def assert_same(one: list[Any], other: list[Any]) -> None:
    """The same faces of the same images, to the last bit."""
    for faces, again in zip(one, other, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(faces, again, strict=True))
