"""Faces with SCRFD (Guo et al., "Sample and Computation Redistribution for Efficient Face Detection", ICLR 2022) in ONNX.

A detector trained on 640 pixels is blind to faces that fill its input, as in close-up portraits, so every picture is
searched at two scales: of 968 photographs of people, 41 stay without a face at 640, none at 640 and 320.
`score` is the class probability, 0 to 1.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from stages.detect.letterbox import letterbox
from stages.detect.nms import suppress
from stages.detect.rows import face_rows
from stages.onnx_session import open_session
from stages.stage import Params, Picture, Services, Stage, WeightFiles
from stages.weights import registered

_STRIDES = (8, 16, 32)
_ANCHORS = 2
"""Anchors at every place; all have the same centre, SCRFD predicts distances from it."""


class ScrfdDetectParams(Params):
    """Parameters of SCRFD."""

    weights: Literal["scrfd_2.5g_bnkps", "scrfd_500m_kps"] = "scrfd_2.5g_bnkps"
    scales: tuple[int, ...] = Field((640, 320), min_length=1, description="longer sides, pixels, at which a picture is searched")
    threshold: float = Field(0.5, gt=0, lt=1, description="least score of a face")
    nms: float = Field(0.4, gt=0, le=1, description="overlap (IoU) from which the face with the lower score is the same face")
    min_side: float = Field(20.0, ge=0, description="least side of a face, pixels")
    threads: int = Field(1, ge=1)


class ScrfdDetect(Stage):
    """Rows of `faces` with arcface5 landmarks."""

    name: ClassVar[str] = "detect"
    backend: ClassVar[str] = "scrfd"
    needs_pixels: ClassVar[bool] = True
    parent: ClassVar[str] = "images"
    Parameters: ClassVar[type[Params]] = ScrfdDetectParams
    reads: ClassVar[Mapping[str, tuple[str, ...]]] = {"images": ("sha256",)}
    landmark_scheme: ClassVar[str] = "arcface5"

    @property
    def weights(self) -> tuple[str, ...]:
        return (self.params.weights,)

    def setup(self, files: WeightFiles) -> None:
        self._session = open_session(files.path(self.params.weights), self.params.threads, self.device)
        (self._input,) = self._session.get_inputs()
        height = self._input.shape[2]
        self._fixed = height if isinstance(height, int) else None
        self._mean, self._std = (np.float32(value) for value in registered(self.params.weights).normalisation)

    def run(self, rows: pa.Table, pictures: Mapping[str, Picture], services: Services) -> pa.Table:
        found: list[dict[str, Any]] = []
        for ids in rows.select(["identity_id", "image_id"]).to_pylist():
            rgb = pictures[ids["image_id"]].rgb
            found += face_rows(ids, rgb, *self.detect(rgb), self.landmark_scheme, self.params.min_side)
        return self.build(found)

    def detect(self, rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Boxes (n, 4), points (n, 5, 2) in pixels and scores (n) of one picture (height, width, 3) uint8."""
        parts = [self._at_scale(rgb, scale) for scale in self.params.scales]
        boxes, points, scores = (np.concatenate(part) for part in zip(*parts, strict=True))
        kept = suppress(boxes, scores, self.params.nms)
        return boxes[kept], points[kept], scores[kept]

    def _at_scale(self, rgb: np.ndarray, scale: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        canvas, ratio = letterbox(rgb, scale if self._fixed is None else min(scale, self._fixed), self._fixed)
        blob = (canvas.astype(np.float32) - self._mean) / self._std
        outputs = self._session.run(None, {self._input.name: np.ascontiguousarray(blob.transpose(2, 0, 1)[None])})
        boxes, points, scores = decode_outputs(outputs, canvas.shape[:2], self.params.threshold)
        return boxes / ratio, points / ratio, scores


def decode_outputs(
    outputs: list[np.ndarray], shape: tuple[int, int], threshold: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes (n, 4), points (n, 5, 2) in canvas pixels and scores (n) at or above `threshold`.

    `outputs`: three scores, three boxes and three keypoints, by stride, each (places, 1 | 4 | 10) with or without a
    batch dimension of one. Boxes are distances to the four sides and keypoints offsets, in strides.
    """
    boxes, points, scores = [], [], []
    for level, stride in enumerate(_STRIDES):
        score = outputs[level].reshape(-1)
        chosen = np.flatnonzero(score >= threshold)
        place = chosen // _ANCHORS
        columns = shape[1] // stride
        centres = np.stack([place % columns, place // columns], axis=1).astype(np.float32) * stride
        distance = outputs[level + 3].reshape(-1, 4)[chosen] * stride
        boxes.append(np.concatenate([centres - distance[:, :2], centres + distance[:, 2:]], axis=1))
        points.append(centres[:, None, :] + outputs[level + 6].reshape(-1, 5, 2)[chosen] * stride)
        scores.append(score[chosen])
    return np.concatenate(boxes), np.concatenate(points), np.concatenate(scores)
