"""128-d vectors of dlib's face recognition ResNet: the recogniser that needs nothing but packages.

Trained with a metric loss on raw distances (0.6 between two vectors is its own limit), not on
angles: all vectors lie in one cone, cosines between strangers are around 0.85. Compare with the
thresholds of `stages.embed.calibration` only.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import dlib
import numpy as np
import pyarrow as pa

from stages.detect.dlib import rectangle
from stages.embed.embedder import Embedder
from stages.embed.vector_rows import vector_row
from stages.stage import Picture, Services, WeightFiles


class DlibEmbed(Embedder):
    """Rows of `embeddings` for faces with dlib5 landmarks."""

    backend: ClassVar[str] = "dlib"
    reads: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "faces": ("box", "landmarks", "landmark_scheme"),
        "images": ("sha256",),
    }
    landmark_scheme: ClassVar[str | None] = "dlib5"

    @property
    def recogniser(self) -> str:
        return "dlib_resnet_v1"

    def setup(self, files: WeightFiles) -> None:
        self._model = dlib.face_recognition_model_v1(files.path("dlib_resnet_v1"))

    def run(self, rows: pa.Table, pictures: Mapping[str, Picture], services: Services) -> pa.Table:
        # One by one: the batch overload gives the same values at the same speed.
        return self.build(
            [vector_row(face, self, self._vector(face, pictures)) for face in rows.to_pylist()]
        )

    def _vector(
        self, face: Mapping[str, Any], pictures: Mapping[str, Picture]
    ) -> np.ndarray | None:
        points = np.array(face["faces.landmarks"], dtype=np.float64)
        # dlib would describe whatever lies at a single point, and a stranger's face would get a
        # plausible vector.
        spread = np.ptp(points.reshape(-1, 2), axis=0).max()
        if face["faces.landmark_scheme"] != self.landmark_scheme or not 1 <= spread < np.inf:
            return None
        return self.embed(pictures[face["image_id"]].rgb, np.array(face["faces.box"]), points)

    def embed(self, rgb: np.ndarray, box: np.ndarray, points: np.ndarray) -> np.ndarray:
        """The raw vector (128) float32 of one face: box (4) and dlib5 points (10) in pixels of
        `rgb` (height, width, 3).
        """
        # dlib numbers pixels, see stages.detect.dlib.landmarks.
        parts = [
            dlib.point(*(round(float(value)) for value in point))
            for point in points.reshape(-1, 2) - 0.5
        ]
        face = dlib.full_object_detection(rectangle(box), parts)
        return np.array(
            self._model.compute_face_descriptor(np.ascontiguousarray(rgb), face), dtype=np.float32
        )
