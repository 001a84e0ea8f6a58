"""FaceNet (Schroff et al., CVPR 2015) as facenet-pytorch has it: Inception-ResNet-v1 on unaligned
crops.

The crop is the detector's box, cut at the image's edge and squashed to 160 x 160. Any detector
gives boxes, so any may stand before this stage; but the network was trained, and the metric of
papers that say "FaceNet" is defined, on the boxes of MTCNN: only with `detect: {backend: mtcnn}` do
vectors compare with theirs.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import cv2
import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from pydantic import Field

from stages.embed.embedder import Embedder
from stages.embed.vector_rows import Store, vector_row
from stages.networks.inception_resnet_v1 import InceptionResnetV1
from stages.stage import Params, Picture, Services, WeightFiles
from stages.torch_session import load_state, ready
from stages.weights import WeightsName

SIDE = InceptionResnetV1.side
_CLASSIFIER = "logits."
"""Prefix of the layer that told the training people apart; checkpoints have it, vectors do not need
it.
"""


class FacenetEmbedParams(Params):
    """Parameters of FaceNet."""

    weights: Annotated[str, WeightsName("embed/facenet")] = "facenet_vggface2"
    """A name of `idcluster models list`, of the same kind."""
    resize: Literal["bilinear", "area"] = Field(
        "bilinear",
        description="how crops are scaled; bilinear: Pillow's with antialiasing, as "
        "facenet-pytorch does with Pillow's images;"
        " area: OpenCV's, as it does with arrays",
    )
    store: Store = Field(
        "float32", description="float16 rounds the stored vectors to half precision: smaller files"
    )
    batch: int = Field(8, ge=1, le=512, description="faces that go through the network together")
    threads: int = Field(1, ge=1)
    """Of the network, in each worker. More than one may change the last bits of its numbers."""


class FacenetEmbed(Embedder):
    """Rows of `embeddings`, 512 values each, for faces with whatever landmarks."""

    backend: ClassVar[str] = "facenet"
    Parameters: ClassVar[type[Params]] = FacenetEmbedParams
    reads: ClassVar[Mapping[str, tuple[str, ...]]] = {"faces": ("box",), "images": ("sha256",)}

    def setup(self, files: WeightFiles) -> None:
        path = files.path(self.params.weights)
        state = {
            name: value
            for name, value in load_state(path).items()
            if not name.startswith(_CLASSIFIER)
        }
        network: Any = ready(InceptionResnetV1(), state, path, self.device, self.params.threads)
        self._network = network.to(
            memory_format=torch.channels_last
        )  # two thirds of the time on a CPU

    def run(self, rows: pa.Table, pictures: Mapping[str, Picture], services: Services) -> pa.Table:
        faces = rows.to_pylist()
        crops = [
            squash(pictures[face["image_id"]].rgb, face["faces.box"], self.params.resize)
            for face in faces
        ]
        found = iter(self.embed([crop for crop in crops if crop is not None]))
        vectors = [None if crop is None else next(found) for crop in crops]
        return self.build(
            [
                vector_row(face, self, vector, self.params.store)
                for face, vector in zip(faces, vectors, strict=True)
            ]
        )

    def embed(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        """Raw vectors (n, 512) float32 of crops, each (160, 160, 3) uint8 RGB."""
        out = [np.zeros((0, 512), dtype=np.float32)]
        for start in range(0, len(crops), self.params.batch):
            part = crops[start : start + self.params.batch]
            blob = np.zeros((self.params.batch, SIDE, SIDE, 3), dtype=np.float32)
            blob[: len(part)] = (np.stack(part).astype(np.float32) - 127.5) / 128.0
            pixels = torch.from_numpy(blob).to(self.device).permute(0, 3, 1, 2)
            out.append(self._network(pixels).cpu().numpy()[: len(part)])
        return np.concatenate(out)


def squash(rgb: np.ndarray, box: Sequence[float], resize: str = "bilinear") -> np.ndarray | None:
    """The part of an image within a box (4, pixels) as (160, 160, 3) uint8, whatever its aspect;
    None if they share no pixel.

    Corners are rounded down, then the box is cut at the edge: facenet-pytorch's `extract_face` with
    margin 0.
    """
    height, width = rgb.shape[:2]
    if not np.isfinite(box).all():
        return None
    x1, y1 = (int(max(value, 0)) for value in box[:2])
    x2, y2 = int(min(box[2], width)), int(min(box[3], height))
    if x2 <= x1 or y2 <= y1:
        return None
    part = np.ascontiguousarray(rgb[y1:y2, x1:x2])
    if resize == "area":
        return cv2.resize(part, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(Image.fromarray(part).resize((SIDE, SIDE), Image.Resampling.BILINEAR))
