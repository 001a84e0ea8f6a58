"""68 points with dlib's shape predictor (Kazemi and Sullivan, 2014), trained on iBUG 300-W."""

from collections.abc import Mapping
from typing import Any, ClassVar

import dlib
import numpy as np
import pyarrow as pa

from stages.detect.dlib import landmarks
from stages.selection import KEPT, kept
from stages.stage import Picture, Services, Stage, WeightFiles

_HOG_SIDE, _HOG_SHIFT = 0.947, 0.067
"""Side of dlib's box and its shift downwards, as shares of the geometric mean of the other box's
sides.
"""


class Dlib68Landmark(Stage):
    """Rows of `landmarks` for the faces that cleaning kept."""

    name: ClassVar[str] = "landmark"
    backend: ClassVar[str] = "dlib68"
    needs_pixels: ClassVar[bool] = True
    parent: ClassVar[str] = "faces"
    reads: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "faces": ("box", "landmark_scheme"),
        "images": ("sha256",),
    }
    selects: ClassVar[Mapping[str, tuple[str, ...]]] = KEPT

    @property
    def weights(self) -> tuple[str, ...]:
        return ("dlib_68_points",)

    def wants(self, rows: pa.Table) -> pa.ChunkedArray | pa.Array:
        return kept(self, rows)

    def setup(self, files: WeightFiles) -> None:
        self._predictor = dlib.shape_predictor(files.path("dlib_68_points"))

    def run(self, rows: pa.Table, pictures: Mapping[str, Picture], services: Services) -> pa.Table:
        return self.build(
            [self._row(face, pictures[face["image_id"]].rgb) for face in rows.to_pylist()]
        )

    def _row(self, face: Mapping[str, Any], rgb: np.ndarray) -> dict[str, Any]:
        box = np.array(face["faces.box"], dtype=np.float64)
        if face["faces.landmark_scheme"] != "dlib5":
            box = hog_box(box)
        points = landmarks(self._predictor, np.ascontiguousarray(rgb), box)
        ids = {name: face[name] for name in ("identity_id", "image_id", "face_id")}
        return {**ids, "scheme": "dlib68", "points": points.reshape(-1).tolist(), "status": "ok"}


def hog_box(box: np.ndarray) -> np.ndarray:
    """The square (4) that dlib's detector draws where another detector draws `box` (4), tight
    around the face.

    The predictor starts from its mean shape in the box, so it needs boxes like those it was trained
    with. Size and shift are medians over 929 faces found by both dlib and SCRFD; dlib's own boxes
    scatter by 8 % in size. Eyes and mouth corners lie as near to SCRFD's as from dlib's own boxes:
    median 0.043 of the distance between the eyes, 0.048 from boxes as they are.
    """
    width, height = box[2] - box[0], box[3] - box[1]
    side = float(np.sqrt(width * height))
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2 + _HOG_SHIFT * side
    half = _HOG_SIDE * side / 2
    return np.array([x - half, y - half, x + half, y + half])
