"""A vector as a row of `embeddings`: what is the same for every recogniser."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from stages.embed.embedder import Embedder

Store = Literal["float32", "float16"]
"""How exactly the values of a vector are kept. The column is float32 either way: float16 rounds
them to half precision, so that files of vectors are 30 % smaller. Cosines between 1 130 faces moved
by 0.0001 at most, lengths by 0.00005 (EdgeFace).
"""


def vector_row(
    face: Mapping[str, Any], stage: Embedder, vector: np.ndarray | None, store: Store = "float32"
) -> dict[str, Any]:
    """The row of one face: its vector (d) at unit length, its raw length, or why it has none.

    None stands for a face whose landmarks do not suit: another scheme, or points that span no face
    in the image. For a recogniser that asks for no landmarks it stands for a box that has no
    pixel. A vector that is zero or not finite has no direction, and fails alike.
    """
    row = {name: face[name] for name in ("identity_id", "image_id", "face_id")} | {
        "recogniser": stage.recogniser
    }
    if stage.landmark_scheme is None:
        if vector is None:
            return {
                **row,
                "status": "failed",
                "reason": "bad_box",
                "detail": "the box lies outside the image",
            }
    elif (scheme := face["faces.landmark_scheme"]) != stage.landmark_scheme:
        detail = f"landmarks are {scheme}, {stage.recogniser} needs {stage.landmark_scheme}"
        return {**row, "status": "failed", "reason": "wrong_landmarks", "detail": detail}
    if vector is None:
        return {
            **row,
            "status": "failed",
            "reason": "bad_landmarks",
            "detail": "the five points span no face in the image",
        }
    wide = vector.astype(np.float64)
    norm = float(np.sqrt(wide @ wide))
    if not np.isfinite(norm) or norm == 0:
        return {**row, "status": "failed", "reason": "bad_vector", "detail": f"length {norm}"}
    kept = (wide / norm).astype(store).astype(np.float32)
    return {**row, "vector": kept, "norm": norm, "status": "ok"}
