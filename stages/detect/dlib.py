"""Frontal faces with dlib's HOG detector and its 5-point predictor: the detector that needs nothing
but packages.

It finds upright faces from about 80 pixels (40 with one upsampling) and misses profiles. `score` is
the detector's margin: 0 is its own limit, clear faces have 1 and more.
"""

from typing import Any, ClassVar

import cv2
import dlib
import numpy as np
from pydantic import Field

from stages.detect.detector import Detector
from stages.stage import Params, WeightFiles


class DlibDetectParams(Params):
    """Parameters of dlib's detector."""

    upsample: int = Field(
        1,
        ge=0,
        le=2,
        description="doublings of the image before the search; each finds faces half as large",
    )
    threshold: float = Field(0.0, description="least margin of a face")
    min_side: float = Field(20.0, ge=0, description="least side of a face, pixels")
    max_side: int = Field(
        1000, ge=64, description="longer images are searched at this size, so that time is bounded"
    )


class DlibDetect(Detector):
    """Rows of `faces` with dlib5 landmarks."""

    backend: ClassVar[str] = "dlib"
    Parameters: ClassVar[type[Params]] = DlibDetectParams
    landmark_scheme: ClassVar[str] = "dlib5"

    @property
    def weights(self) -> tuple[str, ...]:
        return ("dlib_5_points",)

    def setup(self, files: WeightFiles) -> None:
        self._detector = dlib.get_frontal_face_detector()
        self._predictor = dlib.shape_predictor(files.path("dlib_5_points"))

    def detect(self, rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Boxes (n, 4), points (n, 5, 2) in pixels and scores (n) of one image (height, width, 3)
        uint8.
        """
        scale = min(1.0, self.params.max_side / max(rgb.shape[:2]))
        searched = np.ascontiguousarray(rgb)
        if scale < 1:
            size = (max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale)))
            searched = cv2.resize(searched, size, interpolation=cv2.INTER_AREA)
        rectangles, scores, _ = self._detector.run(
            searched, self.params.upsample, self.params.threshold
        )
        ratio = np.array([rgb.shape[1] / searched.shape[1], rgb.shape[0] / searched.shape[0]] * 2)
        boxes = (
            np.array([_box(rectangle) for rectangle in rectangles], dtype=np.float64).reshape(-1, 4)
            * ratio
        )
        # Points are found in the full image: the predictor's time does not depend on its size,
        # and its answer is whole pixels.
        full = searched if scale == 1 else np.ascontiguousarray(rgb)
        points = [landmarks(self._predictor, full, box) for box in boxes]
        return boxes, np.array(points).reshape(-1, 5, 2), np.array(scores)


def _box(rectangle: Any) -> tuple[int, int, int, int]:
    """dlib's rectangles include their last row and column."""
    return rectangle.left(), rectangle.top(), rectangle.right() + 1, rectangle.bottom() + 1


def rectangle(box: np.ndarray) -> Any:
    """The dlib.rectangle of a box (4) in pixels."""
    x1, y1, x2, y2 = (round(float(value)) for value in box)
    return dlib.rectangle(x1, y1, x2 - 1, y2 - 1)


def landmarks(predictor: Any, rgb: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Points (n, 2) of a dlib shape predictor, in pixels with the origin at the corner of the first
    pixel.

    dlib numbers pixels, so its points lie half a pixel into them.
    """
    return np.array(
        [(point.x + 0.5, point.y + 0.5) for point in predictor(rgb, rectangle(box)).parts()]
    )
