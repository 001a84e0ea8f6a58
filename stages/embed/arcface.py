"""Recognisers that take 112 x 112 crops aligned by five points, as ArcFace introduced them, in
ONNX.

Any file does that has one input (n, 3, 112, 112) and one output (n, d): ArcFace's own (glintr100,
w600k_r50), MobileFaceNet, EdgeFace, or one that a team registered like one of these.

A network's last bits depend on its batch. So crops go through in batches of one fixed size, filled
up with grey, and a face's vector depends on that face alone (see the tests). Files with a fixed
batch dimension keep theirs.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

import cv2
import numpy as np
import pyarrow as pa
from pydantic import Field

from stages.embed.embedder import Embedder
from stages.embed.vector_rows import Store, vector_row
from stages.onnx_nodes import first_nodes
from stages.onnx_session import WrongModel, only_picture_input, open_session
from stages.planar import planar
from stages.stage import Params, Picture, Services, WeightFiles
from stages.weights import WeightsName

SIDE = 112
TEMPLATE = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ],
    dtype=np.float64,
)
"""Where the arcface5 points of a face belong in the crop, pixels (Deng et al., "ArcFace", 2019;
insightface's `arcface_dst`).
"""


class ArcFaceEmbedParams(Params):
    """Parameters of recognisers on aligned crops."""

    weights: Annotated[str, WeightsName("embed/arcface")] = "edgeface_xs"
    """A name of `idcluster models list`, of the same kind."""
    batch: int = Field(4, ge=1, le=512, description="faces that go through the network together")
    store: Store = Field(
        "float32", description="float16 rounds the stored vectors to half precision: smaller files"
    )
    threads: int = Field(1, ge=1)
    """Of the network, in each worker. More than one may change the last bits of its numbers."""


class ArcFaceEmbed(Embedder):
    """Rows of `embeddings` for faces with arcface5 landmarks."""

    backend: ClassVar[str] = "arcface"
    code_version: ClassVar[int] = 2
    Parameters: ClassVar[type[Params]] = ArcFaceEmbedParams
    reads: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "faces": ("landmarks", "landmark_scheme"),
        "images": ("sha256",),
    }
    landmark_scheme: ClassVar[str | None] = "arcface5"

    def setup(self, files: WeightFiles) -> None:
        """Raises MissingWeights, WrongModel, NoDevice."""
        path = files.path(self.params.weights)
        self._session = open_session(path, self.params.threads, self.device)
        self._input = only_picture_input(self._session, path)
        fixed, _, *size = self._input.shape
        if any(isinstance(side, int) and side != SIDE for side in size):
            raise WrongModel(
                f"{path}: takes images of {size[0]} x {size[1]}, crops aligned as for ArcFace "
                f"are {SIDE} x {SIDE}"
            )
        self._batch = fixed if isinstance(fixed, int) else self.params.batch
        self._mean, self._std = (
            (0.0, 1.0) if normalises(path) else files.entry(self.params.weights).normalisation
        )
        # What a file states of its output is often wrong, so it is run once.
        found = self._session.run(
            None, {self._input.name: np.zeros((self._batch, 3, SIDE, SIDE), dtype=np.float32)}
        )
        if len(found) != 1 or found[0].ndim != 2 or len(found[0]) != self._batch:
            said = ", ".join(str(out.shape) for out in found)
            raise WrongModel(
                f"{path}: not a recogniser with one vector a face: for {self._batch} crops it "
                f"gives {said}"
            )
        self._width = found[0].shape[1]

    def run(self, rows: pa.Table, pictures: Mapping[str, Picture], services: Services) -> pa.Table:
        faces = rows.to_pylist()
        suited = [
            i
            for i, face in enumerate(faces)
            if face["faces.landmark_scheme"] == self.landmark_scheme
        ]
        points = np.array([faces[i]["faces.landmarks"] for i in suited], dtype=np.float64).reshape(
            -1, 5, 2
        )
        # Points within one pixel of each other span no face, and whatever lies there would get a
        # plausible vector.
        sound = np.isfinite(points).all(axis=(1, 2)) & (np.ptp(points, axis=1).max(axis=1) >= 1)
        found = zip(suited, similarity(points, TEMPLATE), sound, strict=True)
        frames = {i: frame for i, frame, usable in found if usable and np.isfinite(frame).all()}
        crops = {i: align(pictures[faces[i]["image_id"]].rgb, frame) for i, frame in frames.items()}
        # Points may lie beyond the edge, but a crop with nothing of the image in it would get a
        # plausible vector too.
        shown = {i: crop for i, crop in crops.items() if crop.any()}
        vectors: dict[int, np.ndarray] = dict(
            zip(shown, self.embed(list(shown.values())), strict=True)
        )
        return self.build(
            [
                vector_row(face, self, vectors.get(i), self.params.store)
                for i, face in enumerate(faces)
            ]
        )

    def embed(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        """Raw vectors (n, d) float32 of aligned crops, each (112, 112, 3) uint8 RGB."""
        out = [np.zeros((0, self._width), dtype=np.float32)]
        for start in range(0, len(crops), self._batch):
            part = crops[start : start + self._batch]
            blob = np.zeros((self._batch, 3, SIDE, SIDE), dtype=np.float32)
            for crop, one in zip(part, blob, strict=False):
                planar(crop, self._mean, self._std, one)
            out.append(self._session.run(None, {self._input.name: blob})[0][: len(part)])
        return np.concatenate(out)


def normalises(path: str) -> bool:
    """Whether a recogniser shifts and scales its input itself, so that it takes pixels of 0 to 255.

    Those that were trained in MXNet do. They are known by a subtraction and a multiplication among
    their first eight nodes, by the names that its exporter gives (insightface, `ArcFaceONNX`).
    Raises WrongModel.
    """
    try:
        names = first_nodes(path, 8)
    except ValueError as error:
        raise WrongModel(
            f"{path}: its nodes cannot be read; export it as ONNX, not in onnxruntime's own format"
        ) from error
    return any(name.startswith(("Sub", "_minus")) for name in names) and any(
        name.startswith(("Mul", "_mul")) for name in names
    )


def similarity(points: np.ndarray, template: np.ndarray) -> np.ndarray:
    """Similarity transforms (n, 2, 3) float64 that bring `points` (n, k, 2) closest to `template`
    (k, 2); NaN where none does.

    Least squares over scale, rotation and translation without reflection (Umeyama, "Least-squares
    estimation of transformation parameters between two point patterns", PAMI 1991). In the plane it
    has a closed form: with points as complex numbers about their means, scale and rotation are one
    number, sum(conj(p) t) / sum(|p|^2).
    """
    points = np.asarray(points, dtype=np.float64)
    source_mean, target_mean = points.mean(axis=1), template.mean(axis=0)
    source, target = points - source_mean[:, None], template - target_mean
    spread = (source**2).sum(axis=(1, 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        a = (source * target).sum(axis=(1, 2)) / spread
        b = (source[:, :, 0] * target[:, 1] - source[:, :, 1] * target[:, 0]).sum(axis=1) / spread
    # Five times the same point leaves rounding errors to divide by.
    usable = (spread > 1e-6) & (a**2 + b**2 > 0)
    a, b = np.where(usable, a, np.nan), np.where(usable, b, np.nan)
    linear = np.stack([np.stack([a, -b], axis=1), np.stack([b, a], axis=1)], axis=1)
    shift = target_mean - np.einsum("nij,nj->ni", linear, source_mean)
    return np.concatenate([linear, shift[:, :, None]], axis=2)


def align(rgb: np.ndarray, frame: np.ndarray, side: int = SIDE) -> np.ndarray:
    """The crop (side, side, 3) uint8 that `frame` (2, 3) cuts out of `rgb`; black where the image
    ends.

    Bilinear and without a half-pixel shift, because that is how the recognisers' training crops
    were cut.
    """
    return np.asarray(
        cv2.warpAffine(
            rgb, frame, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT
        )
    )
