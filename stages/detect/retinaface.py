"""Faces with RetinaFace (Deng et al. 2019) in torch: the detector of FlashFace's, FaceStudio's and
others' data.

Every image is searched at two scales. At 640 alone no photograph of 968 stays without a face, but
on close-ups the points lie twice as far from where they belong as at 320 (3.1% of the face's side
against 1.6%), and on small faces it is the other way round. So of one face seen at both scales the
one counts that is of `_BEST_SEEN` size there.

Work is cut so that a GPU need not wait: `prepare` scales an image and is all that the CPU does
before the network, `launch` sends a batch through it and picks the best anchors there, and
`finish`, which waits for it, removes doubles among those few. `run` has launched the next batch
when it finishes one.
`score` is the class probability, 0 to 1.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from stages.detect.detector import Detections, Detector
from stages.detect.letterbox import halved, letterbox
from stages.detect.nms import suppress
from stages.networks.fold import fold
from stages.networks.retinaface import STRIDES, Backbone, RetinaFace, anchors, decode
from stages.stage import Params, WeightFiles
from stages.torch_session import load_state, ready
from stages.weights import Weights, WeightsName

_CANDIDATES = 2000
"""Anchors of a canvas that are looked at after the network, the best ones; a face has some ten to
fifty.
"""

_BEST_SEEN = (96.0, 192.0)
"""Sides of faces in pixels of the canvas at which points are best: an octave, so that of scales 1
to 2 one fits each face.

By share of the image's longer side, median distance of the points from SCRFD's in sides of the
face, MobileNet-0.25 on 320 photographs: 0.1 to 0.3: 0.021 at 640, 0.028 at 320; 0.3 to 0.6: 0.017
and 0.015; above 0.9: 0.031 and 0.016.
"""


@dataclass(frozen=True)
class _Training:
    """What a family of weights was trained with. `mean` and `std`: of red, green and blue, 0 to
    255; `leak`: see RetinaFace.
    """

    sizes: tuple[tuple[int, ...], ...] = ((16, 32), (64, 128), (256, 512))
    mean: tuple[float, float, float] = (123.0, 117.0, 104.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    blue_first: bool = True
    leak: float | None = None


_TRAININGS = {
    "detect/retinaface": _Training(),
    # Looks the same by its keys. With other anchors its boxes are wrong; with leaking rectifiers it
    # sees faces everywhere.
    "detect/retinaface_1mb": _Training(sizes=((10, 20), (32, 64), (128, 256)), leak=0.0),
    # albumentations' Normalize: ImageNet's mean and deviation.
    "detect/retinaface_pytorch": _Training(
        mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375), blue_first=False
    ),
}
"""By the kind of the weights in the registry."""


class RetinaFaceDetectParams(Params):
    """Parameters of RetinaFace."""

    weights: Annotated[str, WeightsName(*_TRAININGS)] = "retinaface_r50"
    """A name of `idcluster models list`, of the same kind."""
    scales: tuple[Annotated[int, Field(ge=32, le=4096)], ...] = Field(
        (640, 320), min_length=1, description="longer sides, pixels, at which an image is searched"
    )
    threshold: float = Field(0.6, gt=0, lt=1, description="least score of a face")
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
        description="images that go through the network together, on squares; 1: each on a "
        "canvas of its shape",
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="of the network; bfloat16 is for GPUs"
    )
    threads: int = Field(1, ge=1)
    """Of the network, in each worker. More than one may change the last bits of its numbers."""


@dataclass(frozen=True)
class Canvases:
    """An image on its canvases: (height, width, 3) uint8 for every scale, and the factors from
    image to canvas.
    """

    canvases: tuple[np.ndarray, ...]
    ratios: tuple[float, ...]


@dataclass(frozen=True)
class Launched:
    """A batch on its way through the network: for every scale (batch, candidates, 15), there once
    `done` says so.
    """

    ratios: tuple[tuple[float, ...], ...]
    candidates: tuple[torch.Tensor, ...]
    done: Any


class RetinaFaceDetect(Detector):
    """Rows of `faces` with arcface5 landmarks."""

    backend: ClassVar[str] = "retinaface"
    Parameters: ClassVar[type[Params]] = RetinaFaceDetectParams

    @property
    def weights(self) -> tuple[str, ...]:
        return (self.params.weights,)

    def setup(self, files: WeightFiles) -> None:
        path = files.path(self.params.weights)
        state = load_state(path)
        backbone: Backbone = (
            "mobilenet025" if any(name.startswith("body.stage1.") for name in state) else "resnet50"
        )
        weights = files.entry(self.params.weights)
        network = RetinaFace(backbone, _TRAININGS[weights.kind].leak)
        ready(network, state, path, self.device, self.params.threads)
        self.install(network, weights)

    def install(self, network: RetinaFace, weights: Weights) -> None:
        """Take a network in eval mode, in float32 and on the stage's device, trained as `weights`
        were.
        """
        self._training = _TRAININGS[weights.kind]
        self._scales = sorted(set(self.params.scales), reverse=True)
        self._dtype = getattr(torch, self.params.precision)
        fold(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._network = network.lowered(self._dtype)
        red, green, blue = (round(value) for value in self._training.mean)
        self._fill = (red, green, blue)
        self._mean, self._std = (
            torch.tensor(value, device=self.device)
            for value in (self._training.mean, self._training.std)
        )
        self._anchors: dict[tuple[int, int], torch.Tensor] = {}
        self._pool = ThreadPoolExecutor(self.params.threads) if self.params.threads > 1 else None

    def detect(self, rgb: np.ndarray) -> Detections:
        """The faces of one image (height, width, 3) uint8."""
        return self.detect_all([rgb])[0]

    def detect_each(self, rgbs: Sequence[np.ndarray]) -> Iterator[Detections]:
        """The faces of each image, in batches of one size: whatever is done between two is done
        while a GPU works on the next.
        """
        before: Launched | None = None
        for start in range(0, len(rgbs), self.params.batch):
            part = rgbs[start : start + self.params.batch]
            now = self.launch(list((self._pool.map if self._pool else map)(self.prepare, part)))
            if before is not None:
                yield from self.finish(before)
            before = now
        if before is not None:
            yield from self.finish(before)

    def prepare(self, rgb: np.ndarray) -> Canvases:
        """An image (height, width, 3) uint8 as the network wants to see it; may be called from
        several threads.
        """
        grain, canvases, ratios, smaller = STRIDES[-1], [], [], 1
        for scale in self._scales:
            # Falling, so that an image is halved for one scale from where it was left for the one
            # before.
            rgb, halvings = halved(rgb, scale)
            smaller *= 2**halvings
            square = None if self.params.batch == 1 else -(-scale // grain) * grain
            canvas, ratio = letterbox(rgb, scale, square, grain, self._fill)
            canvases.append(canvas)
            ratios.append(ratio / smaller)
        return Canvases(tuple(canvases), tuple(ratios))

    @torch.inference_mode()
    def launch(self, pictures: Sequence[Canvases]) -> Launched:
        """Send up to `batch` images through the network; on a GPU without waiting for it."""
        cuda = self.device == "cuda"
        candidates = []
        for canvases in zip(*(picture.canvases for picture in pictures), strict=True):
            # Always a whole batch: the last bits of a network depend on its size.
            batch = torch.zeros(
                (self.params.batch, *canvases[0].shape), dtype=torch.uint8, pin_memory=cuda
            )
            np.stack(canvases, out=batch.numpy()[: len(canvases)])
            best = self.best(
                *self.forward(batch.to(self.device, non_blocking=True)), batch.shape[1:3]
            )
            there = torch.empty(best.shape, dtype=best.dtype, pin_memory=cuda)
            candidates.append(there.copy_(best, non_blocking=True))
        done = torch.cuda.Event() if cuda else None  # type: ignore[no-untyped-call]
        if done is not None:
            done.record()
        return Launched(tuple(picture.ratios for picture in pictures), tuple(candidates), done)

    def finish(self, launched: Launched) -> list[Detections]:
        """The faces of the images of a batch."""
        if launched.done is not None:
            launched.done.synchronize()
        scales = [candidates.numpy() for candidates in launched.candidates]
        least, most = ([side] * (len(scales) - 1) for side in _BEST_SEEN)
        found = []
        for i, ratios in enumerate(launched.ratios):
            parts, ranks = [], []
            # The largest scale has no finer one beside it for small faces, the smallest no coarser
            # one for large faces.
            for scale, ratio, low, high in zip(
                scales, ratios, [0.0, *least], [*most, np.inf], strict=True
            ):
                part = scale[i][scale[i][:, 0] >= self.params.threshold]
                part = part[np.isfinite(part).all(axis=1)]  # exp of a wild output has no bound
                side = np.sqrt((part[:, 3] - part[:, 1]) * (part[:, 4] - part[:, 2]))
                ranks.append(part[:, 0] - ((side < low) | (side > high)))
                part[:, 1:] /= ratio
                parts.append(part)
            faces = np.concatenate(parts)
            faces = faces[suppress(faces[:, 1:5], np.concatenate(ranks), self.params.nms)]
            found.append((faces[:, 1:5], faces[:, 5:].reshape(-1, 5, 2), faces[:, 0]))
        return found

    def forward(self, canvases: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What the network says of canvases (n, height, width, 3) uint8."""
        pictures = (canvases.float() - self._mean) / self._std
        pictures = pictures.flip(-1) if self._training.blue_first else pictures
        said: tuple[torch.Tensor, torch.Tensor, torch.Tensor] = self._network(
            pictures.to(self._dtype).permute(0, 3, 1, 2)
        )
        return said

    def best(
        self, classes: torch.Tensor, boxes: torch.Tensor, points: torch.Tensor, shape: Sequence[int]
    ) -> torch.Tensor:
        """The best anchors of canvases of `shape`, in the network's order: (n, candidates, 15)
        float32.

        Score, box and points, in pixels of the canvas. Their number is fixed, so that nobody has to
        wait for a count.
        """
        # The probability of a face, but where it has run into 1 in float32 this still tells better
        # from best.
        margin = classes[..., 1] - classes[..., 0]
        chosen = margin.topk(min(_CANDIDATES, margin.shape[1]), sorted=False).indices.sort().values
        at = chosen[..., None]
        best = (
            margin.gather(1, chosen)[..., None],
            boxes.gather(1, at.expand(-1, -1, 4)),
            points.gather(1, at.expand(-1, -1, 10)),
            self._places(*shape)[chosen],
        )
        # A CPU computes the last few exponentials of an array one by one, and those differ by a bit
        # from the many at once: whether a face is among them must not depend on its image's place
        # in the batch.
        pieces = (
            [best]
            if self.device == "cuda"
            else zip(*(values.chunk(len(values)) for values in best), strict=True)
        )
        faces = [torch.cat([logit.sigmoid(), *decode(*said)], dim=-1) for logit, *said in pieces]
        return torch.cat(faces)

    def _places(self, height: int, width: int) -> torch.Tensor:
        if (height, width) not in self._anchors:
            if (
                len(self._anchors) > 100
            ):  # images of ever other shapes; a canvas of 640 takes 0.2 MB
                self._anchors.clear()
            self._anchors[height, width] = anchors(height, width, self._training.sizes, self.device)
        return self._anchors[height, width]
