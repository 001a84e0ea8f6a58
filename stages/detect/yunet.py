"""YuNet (Wu et al., "YuNet: A Tiny Millisecond-level Face Detector", Machine Intelligence Research
2023) through OpenCV.

75 thousand parameters and a few milliseconds an image: the quickest detector here, on the CPU
alone. Every image is searched at several sizes, so that faces that fill it are found as well as
small ones. `score` is the geometric mean of YuNet's two probabilities, 0 to 1. Its points (a
person's right eye, left eye, nose, right and left corner of the mouth) are arcface5 as they come: a
person's right is the left of the image.
"""

from typing import Annotated, Any, ClassVar

import cv2
import numpy as np
from pydantic import Field

from stages.detect.detector import Detector
from stages.detect.nms import suppress
from stages.stage import NoDevice, Params, WeightFiles
from stages.weights import WeightsName

_CANDIDATES = 5000
"""The best that OpenCV looks at before it suppresses doubles; its own default."""


class YunetDetectParams(Params):
    """Parameters of YuNet."""

    weights: Annotated[str, WeightsName("detect/yunet")] = "yunet_320"
    """A name of `idcluster models list`, of the same kind."""
    scales: tuple[Annotated[int, Field(ge=32, le=4096)], ...] = Field(
        (640, 320),
        min_length=1,
        max_length=8,
        description="longer sides, pixels, at which an image is searched",
    )
    threshold: float = Field(0.7, gt=0, lt=1, description="least score of a face")
    nms: float = Field(
        0.4,
        gt=0,
        le=1,
        description="overlap (IoU) from which the face with the lower score is the same face",
    )
    min_side: float = Field(20.0, ge=0, description="least side of a face, pixels")


class YunetDetect(Detector):
    """Rows of `faces` with arcface5 landmarks."""

    backend: ClassVar[str] = "yunet"
    Parameters: ClassVar[type[Params]] = YunetDetectParams

    @property
    def weights(self) -> tuple[str, ...]:
        return (self.params.weights,)

    def setup(self, files: WeightFiles) -> None:
        if self.device != "cpu":
            raise NoDevice(
                "the DAG gives this stage a GPU, but OpenCV's packages run YuNet on the CPU "
                "only: set gpus: 0"
            )
        path = files.path(self.params.weights)
        level = cv2.utils.logging.getLogLevel()
        cv2.utils.logging.setLogLevel(
            cv2.utils.logging.LOG_LEVEL_ERROR
        )  # OpenCV 5 warns of the target that it chose itself
        try:
            self._detector = cv2.FaceDetectorYN.create(
                path, "", (320, 320), self.params.threshold, self.params.nms, _CANDIDATES
            )
        finally:
            cv2.utils.logging.setLogLevel(level)

    def detect(self, rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Boxes (n, 4), points (n, 5, 2) in pixels and scores (n), float32, of one image (height,
        width, 3) uint8.
        """
        found = np.concatenate([self._at_scale(rgb, scale) for scale in self.params.scales])
        found = found[suppress(found[:, :4], found[:, 14], self.params.nms)]
        return found[:, :4], found[:, 4:14].reshape(-1, 5, 2), found[:, 14]

    def _at_scale(self, rgb: np.ndarray, scale: int) -> np.ndarray:
        """Rows (n, 15) of box, points and score in pixels of the image, searched with its longer
        side at `scale` pixels.
        """
        height, width = rgb.shape[:2]
        ratio = scale / max(height, width)
        size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
        way = cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR
        searched = cv2.cvtColor(cv2.resize(rgb, size, interpolation=way), cv2.COLOR_RGB2BGR)
        self._detector.setInputSize(size)
        answer: Any = self._detector.detect(searched)[1]  # None where there is no face
        found = (
            np.zeros((0, 15), dtype=np.float32)
            if answer is None
            else np.array(answer, dtype=np.float32)
        )
        found[:, 2:4] += found[:, :2]
        # The two sides were rounded for themselves: a narrow image's factors differ.
        found[:, :14] *= np.tile(np.array([width / size[0], height / size[1]], dtype=np.float32), 7)
        return found[np.isfinite(found).all(axis=1)]
