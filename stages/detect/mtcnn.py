"""MTCNN (Zhang et al., SPL 2016) as facenet-pytorch runs it: the detector that FaceNet's crops are
defined on.

Three networks in a row: the first proposes squares on a pyramid of the image, the second takes or
leaves them, the third decides and places five points. Every rule between them (rounding, squaring,
cutting, suppressing, coordinates that count from 1) is facenet-pytorch's, so that boxes, points and
scores are, too. `score` is the third network's probability.
"""

from collections.abc import Iterator
from typing import Annotated, ClassVar

import cv2
import numpy as np
import torch
from pydantic import Field
from torch.nn import functional

from stages.detect.detector import Detector
from stages.detect.nms import suppress
from stages.networks.mtcnn import OutputNet, ProposalNet, RefinementNet
from stages.stage import Params, WeightFiles
from stages.torch_session import load_state, ready

_SEEN = 12
"""Side of the square that a place of the first network's output sees, pixels."""
_STRIDE = 2
_SAME_AT_SCALE, _SAME = 0.5, 0.7
"""Overlaps from which two boxes are one face: within a level of the pyramid, and everywhere
later.
"""
_MOST_PROPOSALS = 10_000
"""The best of a level that are looked at, so that noise or wallpaper cannot hold a worker up;
photographs have hundreds.
"""
_STRIP = 2_000_000
"""Pixels of a level that go through the first network at a time: it needs 120 bytes for each."""


_Probability = Annotated[float, Field(gt=0, lt=1)]


class MtcnnDetectParams(Params):
    """Parameters of MTCNN; the defaults are those of the paper and of facenet-pytorch."""

    min_face_size: int = Field(
        20, ge=12, description="side of the smallest face that is searched for, pixels"
    )
    factor: float = Field(
        0.709, ge=0.3, le=0.95, description="from one level of the pyramid to the next"
    )
    thresholds: tuple[_Probability, _Probability, _Probability] = Field(
        (0.6, 0.7, 0.7), description="least probability of a face, by network"
    )
    min_side: float = Field(0.0, ge=0, description="least side of a face that gets a row, pixels")
    max_pixels: int = Field(
        25_000_000,
        ge=10_000,
        description="larger images are searched scaled down to so many pixels; bounds memory "
        "and time",
    )
    batch: int = Field(
        16,
        ge=1,
        le=1024,
        description="candidates that go through the second and third network together",
    )
    threads: int = Field(1, ge=1)
    """Of the network, in each worker. More than one may change the last bits of its numbers."""


class MtcnnDetect(Detector):
    """Rows of `faces` with arcface5 landmarks."""

    backend: ClassVar[str] = "mtcnn"
    Parameters: ClassVar[type[Params]] = MtcnnDetectParams

    @property
    def weights(self) -> tuple[str, ...]:
        return ("mtcnn_pnet", "mtcnn_rnet", "mtcnn_onet")

    def setup(self, files: WeightFiles) -> None:
        networks = []
        for name, network in zip(
            self.weights, (ProposalNet(), RefinementNet(), OutputNet()), strict=True
        ):
            path = files.path(name)
            networks.append(
                ready(network, load_state(path), path, self.device, self.params.threads)
            )
        self._propose, self._refine, self._decide = networks

    def detect(self, rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Boxes (n, 4), points (n, 5, 2) in pixels and scores (n), float32, of one image (height,
        width, 3) uint8.

        Images never share a call of a network, so what is found in one depends on it alone.
        """
        searched = _bounded(rgb, self.params.max_pixels)
        pixels = torch.from_numpy(np.array(searched)).to(self.device).permute(2, 0, 1)[None].float()
        boxes = self._proposals(pixels)

        boxes, (probability, shift) = self._look(self._refine, RefinementNet.side, pixels, boxes)
        boxes, shift, scores = _passed(probability, self.params.thresholds[1], boxes, shift)
        kept = suppress(boxes, scores, _SAME)
        boxes = square(regress(boxes[kept], shift[kept]))

        boxes, (probability, shift, places) = self._look(
            self._decide, OutputNet.side, pixels, boxes
        )
        boxes, shift, places, scores = _passed(
            probability, self.params.thresholds[2], boxes, shift, places
        )
        extent = boxes[:, None, 2:] - boxes[:, None, :2] + 1
        points = places.reshape(-1, 2, 5).transpose(0, 2, 1) * extent + boxes[:, None, :2] - 1
        boxes = regress(boxes, shift)
        kept = suppress_inner(boxes, scores, _SAME)

        ratio = np.array(
            [rgb.shape[1] / searched.shape[1], rgb.shape[0] / searched.shape[0]], dtype=np.float32
        )
        return boxes[kept] * np.tile(ratio, 2), points[kept] * ratio, scores[kept]

    def _proposals(self, pixels: torch.Tensor) -> np.ndarray:
        """Squares (n, 4) that may hold a face, from `pixels` (1, 3, height, width)."""
        found = [np.zeros((0, 9), dtype=np.float32)]
        height, width = pixels.shape[2:]
        for scale in pyramid(height, width, self.params.min_face_size, self.params.factor):
            level = _normalised(
                functional.adaptive_avg_pool2d(
                    pixels, (int(height * scale + 1), int(width * scale + 1))
                )
            )
            parts = [
                self._propose(level[:, :, start:end]) for start, end in strips(*level.shape[2:])
            ]
            probability, shift = (
                np.concatenate([_array(part)[0] for part in kind], axis=-2)
                for kind in zip(*parts, strict=True)
            )
            at_level = proposals(probability, shift, scale, self.params.thresholds[0])
            found.append(at_level[suppress(at_level[:, :4], at_level[:, 4], _SAME_AT_SCALE)])
        rows = np.concatenate(found)
        rows = rows[suppress(rows[:, :4], rows[:, 4], _SAME)]
        extent = rows[:, 2:4] - rows[:, :2]
        return square(rows[:, :4] + rows[:, 5:] * np.tile(extent, 2))

    def _look(
        self, network: torch.nn.Module, side: int, pixels: torch.Tensor, boxes: np.ndarray
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """The boxes that lie in the image, and what a network says of each, in batches of one
        size.
        """
        places = cuts(boxes, *pixels.shape[2:])
        inside = (places[:, 2] > places[:, 0]) & (places[:, 3] > places[:, 1])
        boxes, places = boxes[inside], places[inside]
        answers: list[list[np.ndarray]] = []
        batch = self.params.batch
        # At least one batch, so that no candidate gives empty arrays of the right shape.
        for start in range(0, max(1, len(places)), batch):
            part = places[start : start + batch]
            blob = torch.zeros((batch, 3, side, side), device=pixels.device)
            for i, (x1, y1, x2, y2) in enumerate(part.tolist()):
                blob[i] = functional.adaptive_avg_pool2d(pixels[0, :, y1:y2, x1:x2], side)
            answers.append([_array(answer)[: len(part)] for answer in network(_normalised(blob))])
        return boxes, [np.concatenate(answer) for answer in zip(*answers, strict=True)]


def pyramid(height: int, width: int, min_face_size: int, factor: float) -> Iterator[float]:
    """Factors by which an image is scaled, until its shorter side is smaller than what the first
    network sees.
    """
    scale = _SEEN / min_face_size
    shorter = min(height, width) * scale
    while shorter >= _SEEN:
        yield scale
        scale *= factor
        shorter *= factor


def strips(height: int, width: int, most: int = _STRIP) -> Iterator[tuple[int, int]]:
    """First rows and ends of strips of about `most` pixels, whose outputs of the first network join
    into that of the whole.
    """
    # Output row r sees rows 2 r to 2 r + 11; one of its windows may be cut off by the lower edge.
    rows = -(-(height - 2) // _STRIDE) - 4
    step = max(1, most // (_STRIDE * width))
    for first in range(0, rows, step):
        last = first + step >= rows
        yield _STRIDE * first, height if last else _STRIDE * (first + step - 1) + _SEEN


def proposals(
    probability: np.ndarray, shift: np.ndarray, scale: float, threshold: float
) -> np.ndarray:
    """Rows (n, 9) of box, probability and shift where `probability` (h, w) is at or above
    `threshold`; `shift`: (4, h, w).

    Boxes are whole pixels of the full image, counted from 1. Not more than the best
    `_MOST_PROPOSALS`.
    """
    y, x = np.nonzero(probability >= threshold)
    if len(y) > _MOST_PROPOSALS:
        best = np.sort(np.argsort(-probability[y, x], kind="stable")[:_MOST_PROPOSALS])
        y, x = y[best], x[best]
    corner = np.stack([x, y], axis=1).astype(np.float32) * _STRIDE
    boxes = np.floor(np.concatenate([corner + 1, corner + _SEEN], axis=1) / np.float32(scale))
    return np.concatenate([boxes, probability[y, x, None], shift[:, y, x].T], axis=1)


def regress(boxes: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Boxes (n, 4) moved by `shift` (n, 4), which is in widths and heights that count both ends."""
    return boxes + shift * np.tile(boxes[:, 2:] - boxes[:, :2] + 1, 2)


def square(boxes: np.ndarray) -> np.ndarray:
    """Squares (n, 4) about the centres of boxes, as long as the longer side."""
    extent = boxes[:, 2:] - boxes[:, :2]
    side = extent.max(axis=1, keepdims=True)
    corner = boxes[:, :2] + extent * 0.5 - side * 0.5
    return np.concatenate([corner, corner + side], axis=1)


def cuts(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Where to cut boxes (n, 4), which count pixels from 1, out of an array: (n, 4) int, ends
    outside; empty if not inside.
    """
    whole = np.trunc(boxes).astype(np.int64)
    return np.concatenate(
        [np.maximum(whole[:, :2], 1) - 1, np.minimum(whole[:, 2:], (width, height))], axis=1
    )


def suppress_inner(boxes: np.ndarray, scores: np.ndarray, limit: float) -> np.ndarray:
    """As `stages.detect.nms.suppress`, but overlap is the share of the smaller box: a box within
    another is the same face.

    Of equal scores the later box counts as better. That is not idle: clear faces often have several
    boxes of probability 1.
    """
    order = np.argsort(scores, kind="stable")[::-1]
    area = (boxes[:, 2:] - boxes[:, :2] + 1).prod(axis=1)
    kept = []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        low, high = (
            np.maximum(boxes[best, :2], boxes[order, :2]),
            np.minimum(boxes[best, 2:], boxes[order, 2:]),
        )
        common = np.maximum(high - low + 1, 0).prod(axis=1)
        order = order[~(common > limit * np.minimum(area[best], area[order]))]
    return np.array(kept, dtype=np.intp)


def _bounded(rgb: np.ndarray, most: int) -> np.ndarray:
    height, width = rgb.shape[:2]
    if height * width <= most:
        return rgb
    ratio = (most / (height * width)) ** 0.5
    return cv2.resize(
        rgb, (max(1, int(width * ratio)), max(1, int(height * ratio))), interpolation=cv2.INTER_AREA
    )


def _passed(
    probability: np.ndarray, threshold: float, *others: np.ndarray
) -> tuple[np.ndarray, ...]:
    """`others` and the probabilities (n), each without what is not above the threshold."""
    chosen = probability > threshold
    return (*(other[chosen] for other in others), probability[chosen])


def _normalised(pixels: torch.Tensor) -> torch.Tensor:
    """`pixels` themselves, as the networks expect them."""
    return pixels.sub_(127.5).mul_(0.0078125)


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.cpu().numpy()
