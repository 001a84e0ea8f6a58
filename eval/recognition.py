"""How well a detector and a recogniser do on photographs whose people are known."""

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from eval.metrics.verification import (
    Scores,
    at_far,
    equal_error,
    indicator_scores,
    pair_scores,
    usable,
)
from eval.thresholds import CleanThresholds, TooFew, clean_thresholds
from schemas import identity_id, image_id
from schemas.errors import UserError
from stages.pictures import PictureError, decode
from stages.stage import Picture, Stage

FARS = (1e-2, 1e-3, 1e-4)
_CHUNK = 16
"""Photographs whose faces go through the recogniser together: it pads to batches of its own."""
_PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")

Progress = Callable[[int, int], None]
"""Told after every photograph: how many are done, how many there are."""


class BadLabels(UserError, ValueError):
    """Photographs or their labels cannot be used; the message names file, line and remedy."""

    exit_code = 2


@dataclass(frozen=True)
class Photograph:
    """One photograph. `person` is None where nobody said whom it shows; `faces`: how many there
    are, where somebody counted.
    """

    path: Path
    person: str | None
    undisputed: bool = True
    faces: int | None = None


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


def labelled(folder: Path, labels: Path | None = None) -> list[Photograph]:
    """The photographs of a folder, by a labels file or else by its folders, one a person.

    A labels file has a column `file` (a path below the folder), and as far as known `person`,
    `label_check` (anything but `ok` is disputed) and `n_faces`. Without one given, LABELS.csv in
    the folder is taken. Raises BadLabels.
    """
    if not folder.is_dir():
        raise BadLabels(f"{folder} is no folder")
    if labels is None and (folder / "LABELS.csv").is_file():
        labels = folder / "LABELS.csv"
    found = _by_folders(folder) if labels is None else _by_labels(folder, labels)
    if not found:
        raise BadLabels(
            f"{labels or folder}: no photographs; a folder has one folder a person with pictures "
            "in it"
        )
    return found


def _by_folders(folder: Path) -> list[Photograph]:
    return [
        Photograph(path, person.name)
        for person in sorted(folder.iterdir())
        if person.is_dir() and not person.name.startswith(".")
        for path in sorted(person.iterdir())
        if path.suffix.lower() in _PICTURES and not path.name.startswith(".")
    ]


def _by_labels(folder: Path, labels: Path) -> list[Photograph]:
    found = []
    try:
        with labels.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if "file" not in (reader.fieldnames or ()):
                raise BadLabels(
                    f"{labels}: has no column `file`; it has "
                    f"{', '.join(reader.fieldnames or ()) or 'none'}"
                )
            for row in reader:
                where = f"{labels}:{reader.line_num}"
                path = folder / (row["file"] or "")
                if (
                    not row["file"]
                    or ".." in Path(row["file"]).parts
                    or Path(row["file"]).is_absolute()
                ):
                    raise BadLabels(f"{where}: file {row['file']!r} is no path below {folder}")
                if not path.is_file():
                    raise BadLabels(
                        f"{where}: {path} is not there; is this the labels file of that folder?"
                    )
                count = (row.get("n_faces") or "").strip()
                if count and not count.isdecimal():
                    raise BadLabels(f"{where}: n_faces {count!r} is no number")
                undisputed = (row.get("label_check") or "ok").strip() == "ok"
                found.append(
                    Photograph(
                        path,
                        (row.get("person") or "").strip() or None,
                        undisputed,
                        int(count) if count else None,
                    )
                )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadLabels(
            f"{labels}: cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from error
    return found


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


def report(measured: Measured) -> dict[str, Any]:
    """What was measured, as numbers: detection, and for every recogniser verification on undisputed
    and on all labels.
    """
    readable = measured.found >= 0
    counted = [
        (photo, int(found))
        for photo, found in zip(measured.photographs, measured.found, strict=True)
        if photo.faces is not None
    ]
    wrong = [
        {"file": str(photo.path), "labelled": photo.faces, "found": found}
        for photo, found in counted
        if photo.faces != found
    ]
    detection = {
        "photographs": len(measured.photographs),
        "unreadable": measured.unreadable,
        "with_face": int((measured.found > 0).sum()),
        "share_with_face": float((measured.found[readable] > 0).mean()) if readable.any() else None,
        "without_face": [
            str(photo.path)
            for photo, found in zip(measured.photographs, measured.found, strict=True)
            if found == 0
        ],
        "counted": len(counted),
        "count_agrees": len(counted) - len(wrong),
        "count_differs": wrong,
    }
    return {
        "detection": detection,
        "recognisers": {
            name: _recogniser(measured, vectors) for name, vectors in measured.vectors.items()
        },
    }


def _recogniser(measured: Measured, vectors: np.ndarray) -> dict[str, Any]:
    photographs = measured.photographs
    named = np.array([photo.person is not None for photo in photographs], dtype=bool)
    person = np.array([photo.person or "" for photo in photographs], dtype=object)
    undisputed = np.array([photo.undisputed for photo in photographs], dtype=bool)
    chosen = {"all": named}
    if not undisputed[named].all():
        chosen = {"undisputed": named & undisputed, **chosen}
    sets = {name: _verification(vectors[mask], person[mask]) for name, mask in chosen.items()}
    alone = named & undisputed & (measured.found == 1)
    try:
        thresholds: CleanThresholds | None = clean_thresholds(vectors[alone], person[alone])
        said = None
    except TooFew as error:
        thresholds, said = None, str(error)
    return {
        "verification": sets,
        "thresholds": None
        if thresholds is None
        else {**asdict(thresholds), "source": thresholds.source},
        "thresholds_lack": said,
    }


def _verification(vectors: np.ndarray, person: np.ndarray) -> dict[str, Any]:
    return {
        "photographs": len(person),
        "people": len(np.unique(person)),
        "without_vector": int((~usable(vectors)).sum()),
        "pairs": _summary(pair_scores(vectors, person)),
        "image_to_indicator": _summary(indicator_scores(vectors, person)),
    }


def _summary(scores: Scores) -> dict[str, Any]:
    rate, threshold = equal_error(scores)
    # A rate that is less than one impostor of all that there are cannot be measured.
    points = [at_far(scores, far) for far in FARS if far * len(scores.impostor) >= 1]
    return {
        "genuine": len(scores.genuine),
        "impostor": len(scores.impostor),
        "tar_at_far": [asdict(point) for point in points],
        "equal_error": None if math.isnan(rate) else {"rate": rate, "threshold": threshold},
    }


def curves(measured: Measured) -> dict[str, Scores]:
    """The scores of all pairs by recogniser, for a ROC: of undisputed labels where some are
    disputed.
    """
    kept = np.array(
        [photo.person is not None and photo.undisputed for photo in measured.photographs],
        dtype=bool,
    )
    person = np.array([photo.person or "" for photo in measured.photographs], dtype=object)
    return {
        name: pair_scores(vectors[kept], person[kept]) for name, vectors in measured.vectors.items()
    }
