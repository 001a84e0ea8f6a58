"""SCRFD as an ONNX file: exports differ in what is fixed, in the order of their outputs, and in
where the batch is.

All take (batch, 3, height, width) and give scores, distances and offsets for three strides. Which
output is which follows from its shape: (places, 1 | 4 | 10), where a smaller stride has more
places. A batch is either a dimension of its own in front, or, as in insightface's own exports,
hidden between place and anchor: rows are (row, column, image, anchor).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.onnx_session import WrongModel, only_picture_input, open_session
from stages.stage import Device

STRIDES = (8, 16, 32)
ANCHORS = 2
"""Anchors at every place; all have the same centre, SCRFD predicts distances from it."""

_SCORE, _BOX, _POINTS = 1, 4, 10
_PROBE_SIDE = 64


@dataclass(frozen=True)
class Raw:
    """What the network says of one image at one stride: scores (p, a), distances (p, a, 4) and
    offsets (p, a, 10).

    p places, row by row, and a anchors; in strides. Views of the outputs: most of it is below every
    threshold.
    """

    scores: np.ndarray
    boxes: np.ndarray
    points: np.ndarray


@dataclass(frozen=True)
class Export:
    """An opened file. `side`: of its fixed square input, pixels, None where any multiple of 32
    goes; `batch`: images a run.
    """

    session: Any
    input: str
    outputs: tuple[str, ...]
    """Scores, boxes and points, each by growing stride."""
    side: int | None
    batch: int
    hidden: bool
    """Whether the images of a batch are told apart between place and anchor."""

    def forward(self, blob: np.ndarray) -> list[list[Raw]]:
        """For every image of `blob` (batch, 3, height, width) float32 what is found, by
        stride.
        """
        found = self.session.run(self.outputs, {self.input: blob})
        split = [_by_picture(out, len(blob), self.hidden) for out in found]
        return [
            [
                Raw(split[level][i, :, :, 0], split[level + 3][i], split[level + 6][i])
                for level in range(len(STRIDES))
            ]
            for i in range(len(blob))
        ]


def open_export(path: str, batch: int, threads: int, device: Device = "cpu") -> Export:
    """The export behind `path`, ready for `batch` images a run. Raises WrongModel and NoDevice.

    A file whose batch is fixed keeps its own. Shapes that a file states are often wrong or missing,
    so it is run once.
    """
    session = open_session(path, threads, device)
    fed = only_picture_input(session, path)
    count, _, height, width = fed.shape
    fixed = [size for size in (height, width) if isinstance(size, int)]
    if fixed and (len(set(fixed)) != 1 or len(fixed) != 2 or height % STRIDES[-1]):
        would = f"export it for any size, or for a square of a multiple of {STRIDES[-1]}"
        raise WrongModel(f"{path}: takes images of {height} x {width}; {would}")
    side = height if fixed else None
    if isinstance(count, int):
        if count == 1 and batch > 1:
            would = "set batch: 1, or export it with a batch dimension that is free"
            raise WrongModel(f"{path}: takes one image at a time; {would}")
        batch = count
    order = _order(session, fed.name, path, batch, side or _PROBE_SIDE)
    flat = len(order[1]) == 2
    hidden = (
        flat
        and batch > 1
        and _hidden(session, fed.name, order[0], path, batch, side or _PROBE_SIDE)
    )
    return Export(session, fed.name, order[0], side, batch, hidden)


def _order(
    session: Any, name: str, path: str, batch: int, side: int
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Names of the nine outputs by what they are, and the shape of the first."""
    names = [out.name for out in session.get_outputs()]
    found = session.run(names, {name: np.zeros((batch, 3, side, side), dtype=np.float32)})
    said = ", ".join(f"{out} {array.shape}" for out, array in zip(names, found, strict=True))
    by_width: dict[int, list[tuple[int, int]]] = {_SCORE: [], _BOX: [], _POINTS: []}
    for at, array in enumerate(found):
        if array.ndim in (2, 3) and array.shape[-1] in by_width:
            by_width[array.shape[-1]].append((-array.size, at))
    if len(found) == 6 and not by_width[_POINTS]:
        raise WrongModel(
            f"{path}: an SCRFD without keypoints; aligning a face needs five points: take a "
            "bnkps or kps export"
        )
    order = [at for width in (_SCORE, _BOX, _POINTS) for _, at in sorted(by_width[width])]
    places = [batch * ANCHORS * (side // stride) ** 2 for stride in STRIDES]
    sizes = [
        places[level] * width for width in (_SCORE, _BOX, _POINTS) for level in range(len(STRIDES))
    ]
    fits = (
        [found[at].size for at in order] == sizes
        and len(found) == len(sizes)
        and len({array.ndim for array in found}) == 1
    )
    if not fits or (found[0].ndim == 3 and {array.shape[0] for array in found} != {batch}):
        wanted = (
            f"scores, boxes and keypoints at strides {', '.join(map(str, STRIDES))} with "
            f"{ANCHORS} anchors"
        )
        raise WrongModel(
            f"{path}: not an SCRFD with {wanted}: for {batch} x 3 x {side} x {side} it gives {said}"
        )
    scores = np.concatenate([found[at].reshape(-1) for at in order[: len(STRIDES)]])
    if not (scores >= 0).all() or not (scores <= 1).all():
        reach = f"they reach from {scores.min():g} to {scores.max():g}"
        raise WrongModel(
            f"{path}: its scores are no probabilities ({reach}); export the sigmoid too"
        )
    return tuple(names[at] for at in order), found[order[0]].shape


def _hidden(
    session: Any, name: str, outputs: tuple[str, ...], path: str, batch: int, side: int
) -> bool:
    """Which of the two ways rows without a batch dimension are meant: told by moving one image
    from first to last place.
    """
    blobs = np.zeros((2, batch, 3, side, side), dtype=np.float32)
    blobs[0, 0] = blobs[1, -1] = np.random.default_rng(0).normal(size=(3, side, side))
    first, last = (session.run(outputs, {name: blob}) for blob in blobs)
    ways = [
        hidden
        for hidden in (True, False)
        if all(
            np.allclose(
                _by_picture(a, batch, hidden)[0],
                _by_picture(b, batch, hidden)[-1],
                rtol=1e-3,
                atol=1e-4,
            )
            for a, b in zip(first, last, strict=True)
        )
    ]
    if len(ways) != 1:
        raise WrongModel(
            f"{path}: the outputs for a batch of {batch} cannot be told apart by image; set "
            "batch: 1"
        )
    return ways[0]


def _by_picture(out: np.ndarray, count: int, hidden: bool) -> np.ndarray:
    """An output as (count, places, anchors, width)."""
    if hidden:
        return out.reshape(-1, count, ANCHORS, out.shape[-1]).swapaxes(0, 1)
    return out.reshape(count, -1, ANCHORS, out.shape[-1])
