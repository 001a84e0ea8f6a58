"""68 points with FAN, a network of stacked hourglasses that draws a heat map a point (see
stages/networks/fan.py).

It keeps its points on faces that are turned, hidden or lit from one side, where regression trees
lose them. What is cut out of the image and how heat maps are read follows face-alignment by the
network's author. That cuts points down to whole pixels; here they keep their fractions and lie
where those would on average, half a pixel further up and left.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import cv2
import numpy as np
import pyarrow as pa
import torch
from pydantic import Field

from stages.networks.fan import MAP_SIDE, SIDE, Fan, hourglasses_of
from stages.selection import KEPT, kept
from stages.stage import Params, Picture, Services, Stage, WeightFiles
from stages.torch_session import BadCheckpoint, load_state, ready
from stages.weights import WeightsName

# fmt: off
MIRROR = np.array(
    [*range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1), 45, 44, 43, 42, 47,
        46, 39, 38, 37, 36, 41, 40,
     *range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), *range(67, 64, -1)]
)
# fmt: on
"""Which point each of the 68 is in a mirrored image."""

_RULES = {"face_alignment": (400 / 195, 0.12), "ibug": (1 / 0.55, 0.0)}
"""Side of the crop as a multiple of the box's mean side, and how far its centre lies above the
box's, as a share of the box's height.
"""

_EMONET_HEAD = ("conv1x1_input_emo_2.", "emo_net_2.", "emo_fc_2.")
"""What an EmoNet checkpoint has besides its FAN."""


class Fan68LandmarkParams(Params):
    """Parameters of `Fan68Landmark`."""

    weights: Annotated[str, WeightsName("landmark/fan68")] = "fan68_4hg"
    """A name of `idcluster models list`, of the same kind."""
    crop: Literal["auto", "face_alignment", "ibug"] = "auto"
    """Which part of the image the network sees. It was trained on crops made from the box around
    the 68 points themselves: the centre moved up by 0.12 of its height, the side 2.05 times its
    mean side. face_alignment: the same on the detector's box, for boxes such as dlib's (median over
    234 faces: 1.07 times the training crop). ibug: not moved, 1.82 times the mean side, for boxes
    that reach up to the hair, as SCRFD's and RetinaFace's do (1.04 times; the other rule gives 1.17
    times, and 0.12 of the crop too far up). auto: face_alignment for faces with landmarks of scheme
    dlib5, ibug for others.
    """
    mirror: bool = True
    """Add the heat maps of the mirrored crop, as face-alignment does. Twice the time."""
    batch: int = Field(4, ge=1, le=512, description="faces that go through the network together")
    threads: int = Field(1, ge=1)
    """Of the network, in each worker. More than one may change the last bits of its numbers."""


class Fan68Landmark(Stage):
    """Rows of `landmarks` for the faces that cleaning kept."""

    name: ClassVar[str] = "landmark"
    backend: ClassVar[str] = "fan68"
    needs_pixels: ClassVar[bool] = True
    parent: ClassVar[str] = "faces"
    Parameters: ClassVar[type[Params]] = Fan68LandmarkParams
    reads: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "faces": ("box", "landmark_scheme"),
        "images": ("sha256",),
    }
    selects: ClassVar[Mapping[str, tuple[str, ...]]] = KEPT

    @property
    def weights(self) -> tuple[str, ...]:
        return (self.params.weights,)

    def wants(self, rows: pa.Table) -> pa.ChunkedArray | pa.Array:
        return kept(self, rows)

    def setup(self, files: WeightFiles) -> None:
        """Raises MissingWeights, BadCheckpoint, NoDevice."""
        path = files.path(self.params.weights)
        state = {
            name: value
            for name, value in load_state(path).items()
            if not name.startswith(_EMONET_HEAD)
        }
        hourglasses = hourglasses_of(state)
        if not hourglasses:
            raise BadCheckpoint(
                f"{path}: not a FAN: it has no heat maps (l0.weight); it begins with "
                f"{', '.join(list(state)[:3])}"
            )
        # Pooling leaves no trace in a checkpoint. Of those published, iBUG's 2dfan2 and EmoNet take
        # the maximum.
        network = Fan(hourglasses, "max" if hourglasses == 2 else "avg")
        self._network = ready(network, state, path, self.device, self.params.threads)

    def run(self, rows: pa.Table, pictures: Mapping[str, Picture], services: Services) -> pa.Table:
        faces = rows.to_pylist()
        frames = [self._frame(face) for face in faces]
        crops: dict[int, np.ndarray] = {}
        for i, (face, (centre, side)) in enumerate(zip(faces, frames, strict=True)):
            cut = crop(pictures[face["image_id"]].rgb, centre, side)
            if cut is not None:
                crops[i] = cut
        cells = dict(zip(crops, decode(self.heat_maps(list(crops.values()))), strict=True))
        return self.build(
            [self._row(face, cells.get(i), *frames[i]) for i, face in enumerate(faces)]
        )

    def heat_maps(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        """(n, 68, 64, 64) float32 for crops (256, 256, 3) uint8 RGB."""
        out = [np.zeros((0, len(MIRROR), MAP_SIDE, MAP_SIDE), dtype=np.float32)]
        for start in range(0, len(crops), self.params.batch):
            part = crops[start : start + self.params.batch]
            batch = np.zeros((self.params.batch, SIDE, SIDE, 3), dtype=np.uint8)
            batch[: len(part)] = part
            out.append(self._forward(batch)[: len(part)])
        return np.concatenate(out)

    @torch.inference_mode()
    def _forward(self, batch: np.ndarray) -> np.ndarray:
        pixels = (
            torch.from_numpy(batch)
            .to(self.device)
            .permute(0, 3, 1, 2)
            .float()
            .div(255)
            .contiguous()
        )
        maps = self._network(pixels)
        if self.params.mirror:
            maps = maps + self._network(pixels.flip(3))[
                :, torch.from_numpy(MIRROR).to(self.device)
            ].flip(3)
        found: np.ndarray = maps.cpu().numpy()
        return found

    def _frame(self, face: Mapping[str, Any]) -> tuple[np.ndarray, float]:
        rule = self.params.crop
        if rule == "auto":
            rule = "face_alignment" if face["faces.landmark_scheme"] == "dlib5" else "ibug"
        return frame(np.array(face["faces.box"], dtype=np.float64), *_RULES[rule])

    def _row(
        self, face: Mapping[str, Any], cells: np.ndarray | None, centre: np.ndarray, side: float
    ) -> dict[str, Any]:
        row = {name: face[name] for name in ("identity_id", "image_id", "face_id")}
        if cells is None:
            detail = (
                "nothing of the image is in the box "
                f"{[round(value, 1) for value in face['faces.box']]}"
            )
            return {**row, "status": "failed", "reason": "bad_box", "detail": detail}
        if not np.isfinite(cells).all():
            return {
                **row,
                "status": "failed",
                "reason": "bad_landmarks",
                "detail": "the network gave heat maps that are not finite",
            }
        return {
            **row,
            "scheme": "fan68",
            "points": in_picture(cells, centre, side).reshape(-1).tolist(),
            "status": "ok",
        }


def frame(box: np.ndarray, scale: float, up: float) -> tuple[np.ndarray, float]:
    """Centre (2) and side of the square that is cut out for a box (4), pixels; see `_RULES`."""
    width, height = box[2] - box[0], box[3] - box[1]
    centre = np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2 - up * height])
    return centre, float(scale * (width + height) / 2)


def crop(rgb: np.ndarray, centre: np.ndarray, side: float) -> np.ndarray | None:
    """The square as (256, 256, 3) uint8, black where the image ends; None where nothing of the
    image is in it.

    Edges lie on whole pixels and scaling does not smooth, as in face-alignment: the network was
    trained on such crops.
    """
    height, width = rgb.shape[:2]
    # Whatever is far larger than the image is no face, and its square would fill the memory.
    if not (np.isfinite(centre).all() and 0 < side <= 8 * max(height, width)):
        return None
    left, top = (int(value) for value in np.trunc(centre - side / 2 + side / SIDE))
    right, bottom = (int(value) for value in np.trunc(centre + side / 2))
    inside = rgb[max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
    if not inside.size:
        return None
    square = np.zeros((bottom - top, right - left, 3), dtype=np.uint8)
    y, x = max(0, -top), max(0, -left)
    square[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
    return np.asarray(cv2.resize(square, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR))


def decode(maps: np.ndarray) -> np.ndarray:
    """Where heat maps (n, p, h, w) peak: (n, p, 2) float32, x y in cells, the middle of the first
    cell at 0.5.

    The highest cell, moved by a quarter towards the higher of its neighbours on either axis; not at
    the border.
    """
    n, points, height, width = maps.shape
    flat = maps.reshape(n, points, height * width)
    y, x = np.divmod(flat.argmax(axis=2), width)
    inner = (x > 0) & (x < width - 1) & (y > 0) & (y < height - 1)
    index = np.where(inner, y * width + x, width + 1)

    def rise(step: int) -> np.ndarray:
        ahead, behind = (
            np.take_along_axis(flat, (index + sign * step)[:, :, None], axis=2)[:, :, 0]
            for sign in (1, -1)
        )
        return np.where(inner, 0.25 * np.sign(ahead - behind), 0)

    cells: np.ndarray = np.stack([x + 0.5 + rise(1), y + 0.5 + rise(width)], axis=2).astype(
        np.float32
    )
    cells[~np.isfinite(flat).all(axis=2)] = np.nan
    return cells


def in_picture(cells: np.ndarray, centre: np.ndarray, side: float) -> np.ndarray:
    """Points (p, 2) in pixels of the image, the middle of the first pixel at 0, from `cells` (p,
    2) of a heat map.
    """
    return np.asarray(cells, dtype=np.float64) * (side / MAP_SIDE) + (centre - side / 2 - 0.5)
