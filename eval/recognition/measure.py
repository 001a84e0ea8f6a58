"""A detector and recognisers run over photographs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from eval.labels import BadLabels
from eval.recognition.photographs import Photograph
from schemas import identity_id, image_id
from stages.pictures import PictureError, decode
from stages.stage import Picture, Stage

_CHUNK = 16
"""Photographs whose faces go through the recogniser together: it pads to batches of its own."""

Progress = Callable[[int, int], None]
"""Told after every photograph: how many are done, how many there are."""


@dataclass
class Measured:
    """What a detector found and recognisers made of it. `found`: (n,) faces a photograph, -1 where
    it does not decode.

    `vectors`: by recogniser (n, d), the face that the photograph seems to be of; NaN where there is
    none.
    """

    photographs: list[Photograph]
    found: np.ndarray
    vectors: dict[str, np.ndarray]
    unreadable: list[str] = field(default_factory=list)


def measure(
    photographs: Sequence[Photograph],
    detect: Stage,
    embed: Sequence[Stage],
    progress: Progress = lambda done, of: None,
) -> Measured:
    """Detect in every photograph, and embed the face that it seems to be of. The stages are set up.
    Raises BadLabels.
    """
    scheme = getattr(detect, "landmark_scheme", None)
    for stage in embed:
        needs = getattr(stage, "landmark_scheme", None)
        if needs not in (None, scheme):
            said = f"embed backend {stage.backend!r} aligns faces by {needs} landmarks"
            raise BadLabels(f"{said}, detect backend {detect.backend!r} gives {scheme}")
    photographs = list(photographs)
    done = Measured(photographs, np.zeros(len(photographs), dtype=np.int64), {})
    lists: dict[str, list[np.ndarray | None]] = {_name(stage): [] for stage in embed}
    for start in range(0, len(photographs), _CHUNK):
        chunk = range(start, min(start + _CHUNK, len(photographs)))
        pictures: dict[str, Picture] = {}
        subjects: dict[int, dict[str, Any]] = {}
        for at in chunk:
            faces = _faces(photographs[at], at, detect, pictures, done)
            chosen = [face for face in faces if face["subject"]]
            if chosen:
                subjects[at] = chosen[0]
            progress(at + 1, len(photographs))
        for stage in embed:
            vectors = _vectors(stage, list(subjects.values()), pictures)
            by_photograph = dict(zip(subjects, vectors, strict=True))
            lists[_name(stage)] += [by_photograph.get(at) for at in chunk]
    for name, found in lists.items():
        width = next((len(vector) for vector in found if vector is not None), 1)
        done.vectors[name] = np.array(
            [np.full(width, np.nan) if vector is None else vector for vector in found],
            dtype=np.float64,
        )
    return done


def _name(stage: Stage) -> str:
    return str(getattr(stage, "recogniser", stage.backend))


def _faces(
    photograph: Photograph, at: int, detect: Stage, pictures: dict[str, Picture], done: Measured
) -> list[dict[str, Any]]:
    """The rows of `faces` of one photograph; its pixels are put into `pictures`."""
    try:
        rgb = decode(photograph.path.read_bytes())
    except (PictureError, OSError) as error:
        done.found[at] = -1
        done.unreadable.append(f"{photograph.path}: {error}")
        return []
    rgb.setflags(write=False)
    person = identity_id(photograph.person or "nobody")
    key = image_id(person, str(photograph.path))
    pictures[key] = Picture(key, rgb)
    rows = pa.Table.from_pylist(
        [{"identity_id": person, "image_id": key, "images.sha256": "", "images.status": "ok"}]
    )
    found: list[dict[str, Any]] = detect.run(rows, pictures, _NoServices()).to_pylist()
    faces = [face for face in found if face["status"] == "ok"]
    done.found[at] = len(faces)
    return faces


def _vectors(
    stage: Stage, faces: Sequence[dict[str, Any]], pictures: dict[str, Picture]
) -> list[np.ndarray | None]:
    """The vector of each face, None where the recogniser has none for it."""
    if not faces:
        return []
    asked = []
    for face in faces:
        row = {name: face[name] for name in ("identity_id", "image_id", "face_id")}
        asked.append(
            {
                **row,
                **{f"faces.{name}": value for name, value in face.items()},
                "images.sha256": "",
                "images.status": "ok",
            }
        )
    rows = pa.Table.from_pylist(asked)
    found = {
        row["face_id"]: row["vector"]
        for row in stage.run(rows, pictures, _NoServices()).to_pylist()
        if row["status"] == "ok"
    }
    return [
        None
        if found.get(face["face_id"]) is None
        else np.asarray(found[face["face_id"]], dtype=np.float64)
        for face in faces
    ]


class _NoServices:
    def fetch(self, addresses: Sequence[str]) -> list[Any]:
        raise RuntimeError("detecting and embedding fetch nothing")
