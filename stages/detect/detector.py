"""What detectors have in common: from images to rows of `faces`."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from stages.detect.face_rows import face_rows
from stages.stage import Picture, Services, Stage

Detections = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Boxes (n, 4) and points (n, 5, 2) in pixels of the image, scores (n), as float32."""


class Detector(Stage):
    """A detector has a parameter `min_side`, the least side of a face in pixels, and says how its
    points are laid out.
    """

    name: ClassVar[str] = "detect"
    needs_pixels: ClassVar[bool] = True
    parent: ClassVar[str] = "images"
    reads: ClassVar[Mapping[str, tuple[str, ...]]] = {"images": ("sha256",)}
    landmark_scheme: ClassVar[str] = "arcface5"

    def run(self, rows: pa.Table, pictures: Mapping[str, Picture], services: Services) -> pa.Table:
        ids = rows.select(["identity_id", "image_id"]).to_pylist()
        shown = [pictures[one["image_id"]].rgb for one in ids]
        found: list[dict[str, Any]] = []
        for one, rgb, faces in zip(ids, shown, self.detect_each(shown), strict=True):
            found += face_rows(one, rgb, *faces, self.landmark_scheme, self.params.min_side)
        return self.build(found)

    def detect(self, rgb: np.ndarray) -> Detections:
        """The faces of one image (height, width, 3) uint8."""
        raise NotImplementedError

    def detect_all(self, rgbs: Sequence[np.ndarray]) -> list[Detections]:
        """The faces of all images."""
        return list(self.detect_each(rgbs))

    def detect_each(self, rgbs: Sequence[np.ndarray]) -> Iterable[Detections]:
        """The faces of each image as they are found; its neighbours make no difference."""
        return map(self.detect, rgbs)
