"""Faces with SCRFD (Guo et al., "Sample and Computation Redistribution for Efficient Face
Detection", ICLR 2022) in ONNX.

A detector trained on 640 pixels is blind to faces that fill its input, as in close-up portraits, so
every image is searched at two scales: of 968 photographs of people, 41 stay without a face at
640, none at 640 and 320. `score` is the class probability, 0 to 1.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from stages.detect.detector import Detections, Detector
from stages.detect.letterbox import halved, letterbox
from stages.detect.nms import suppress
from stages.detect.scrfd_export import STRIDES, Raw, open_export
from stages.planar import planar
from stages.stage import Params, WeightFiles
from stages.weights import WeightsName


class ScrfdDetectParams(Params):
    """Parameters of SCRFD."""

    weights: Annotated[str, WeightsName("detect/scrfd")] = "scrfd_2.5g_bnkps"
    """A name of `idcluster models list`, of the same kind."""
    scales: tuple[Annotated[int, Field(ge=STRIDES[-1], le=8192)], ...] = Field(
        (640, 320), min_length=1, description="longer sides, pixels, at which an image is searched"
    )
    threshold: float = Field(0.5, gt=0, lt=1, description="least score of a face")
    nms: float = Field(
        0.4,
        gt=0,
        le=1,
        description="overlap (IoU) from which the face with the lower score is the same face",
    )
    min_side: float = Field(20.0, ge=0, description="least side of a face, pixels")
    batch: int = Field(
        1,
        ge=1,
        le=256,
        description="images that go through the network together, each on a square canvas",
    )
    threads: int = Field(1, ge=1)
    """Of the network, in each worker. More than one may change the last bits of its numbers."""


class ScrfdDetect(Detector):
    """Rows of `faces` with arcface5 landmarks.

    With `batch` 1 the canvas is as large as the image needs, which on a CPU is fastest. A GPU is
    busier with more images at once: they go on square canvases, in batches of one size that are
    filled up with black, for a network's last bits depend on its batch. That needs an export whose
    batch dimension is free.
    """

    backend: ClassVar[str] = "scrfd"
    code_version: ClassVar[int] = 2
    Parameters: ClassVar[type[Params]] = ScrfdDetectParams

    @property
    def weights(self) -> tuple[str, ...]:
        return (self.params.weights,)

    def setup(self, files: WeightFiles) -> None:
        """Raises MissingWeights, WrongModel, NoDevice."""
        self._export = open_export(
            files.path(self.params.weights), self.params.batch, self.params.threads, self.device
        )
        self._mean, self._std = files.entry(self.params.weights).normalisation
        self._blobs: dict[tuple[int, ...], np.ndarray] = {}
        scales = (
            scale if self._export.side is None else min(scale, self._export.side)
            for scale in self.params.scales
        )
        # Falling, so that an image is halved for one scale from where it was left for the one
        # before.
        self._scales = sorted(set(scales), reverse=True)

    def detect(self, rgb: np.ndarray) -> Detections:
        """The faces of one image (height, width, 3) uint8, by falling score."""
        return self.detect_all([rgb])[0]

    def detect_each(self, rgbs: Sequence[np.ndarray]) -> Iterator[Detections]:
        size = self._export.batch
        for start in range(0, len(rgbs), size):
            yield from self._group(rgbs[start : start + size])

    def _group(self, pictures: Sequence[np.ndarray]) -> list[Detections]:
        """The faces of as many images as go into one batch."""
        parts: list[list[Detections]] = [[] for _ in pictures]
        levels = [(rgb, 0) for rgb in pictures]
        for scale in self._scales:
            drawn = []
            for i, (rgb, before) in enumerate(levels):
                smaller, halvings = halved(rgb, scale)
                levels[i] = smaller, before + halvings
                canvas, ratio = letterbox(smaller, scale, self._canvas_side(scale))
                drawn.append((canvas, ratio / 2 ** levels[i][1]))
            for part, raw, (canvas, ratio) in zip(
                parts, self._forward([canvas for canvas, _ in drawn]), drawn, strict=False
            ):
                part.append(decode_outputs(raw, canvas.shape[1], ratio, self.params.threshold))
        return [self._best(part) for part in parts]

    def _canvas_side(self, scale: int) -> int | None:
        if self._export.side is not None:
            return self._export.side
        return None if self._export.batch == 1 else -(-scale // STRIDES[-1]) * STRIDES[-1]

    def _forward(self, canvases: Sequence[np.ndarray]) -> list[list[Raw]]:
        """What the network says of each of a batch's images (equal sizes), and of the black that
        fills it up.
        """
        shape = (self._export.batch, 3, *canvases[0].shape[:2])
        blob = self._blobs.get(shape)
        if blob is None:
            blob = np.empty(shape, dtype=np.float32)
        if shape[0] > 1:
            # Batches have one shape for each scale, and so much fresh memory would cost more than
            # what is written into it.
            self._blobs[shape] = blob
        for canvas, one in zip(canvases, blob, strict=False):
            planar(canvas, self._mean, self._std, one)
        blob[len(canvases) :] = -self._mean / self._std
        return self._export.forward(blob)

    def _best(self, parts: Sequence[Detections]) -> Detections:
        boxes, points, scores = (np.concatenate(part) for part in zip(*parts, strict=True))
        kept = suppress(boxes, scores, self.params.nms)
        return boxes[kept], points[kept], scores[kept]


def decode_outputs(raw: Sequence[Raw], width: int, ratio: float, threshold: float) -> Detections:
    """What is found with `threshold` or more on a canvas `width` pixels wide, in pixels of the
    image.

    `ratio` leads from image to canvas. Boxes are distances from the anchors' centres to the four
    sides, and points offsets from there, in strides.
    """
    boxes, points, scores = (
        [np.zeros((0, 4), np.float32)],
        [np.zeros((0, 5, 2), np.float32)],
        [np.zeros(0, np.float32)],
    )
    for level, stride in zip(raw, STRIDES, strict=True):
        chosen = place, _ = np.nonzero(level.scores >= threshold)
        if not len(place):
            continue
        columns = width // stride
        centres = np.stack([place % columns, place // columns], axis=1).astype(np.float32) * stride
        distance = level.boxes[chosen] * stride
        boxes.append(np.concatenate([centres - distance[:, :2], centres + distance[:, 2:]], axis=1))
        points.append(centres[:, None, :] + level.points[chosen].reshape(-1, 5, 2) * stride)
        scores.append(level.scores[chosen])
    return np.concatenate(boxes) / ratio, np.concatenate(points) / ratio, np.concatenate(scores)
