"""The photographs that a measurement is made on: of a folder, by a label file or by its folders."""

from dataclasses import dataclass
from pathlib import Path

from eval.labels import BadLabels, read_rows

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


@dataclass(frozen=True)
class Photograph:
    """One photograph. `person` is None where nobody said whom it shows; `faces`: how many there
    are, where somebody counted.
    """

    path: Path
    person: str | None
    undisputed: bool = True
    faces: int | None = None


def labelled(folder: Path, labels: Path | None = None) -> list[Photograph]:
    """The photographs of a folder, by a label file or else by its folders, one a person.

    A label file has a column `file` (a path below the folder), and as far as known `person`,
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
            f"{labels or folder}: no photographs; a folder has one folder a person with images "
            "in it"
        )
    return found


def _by_folders(folder: Path) -> list[Photograph]:
    return [
        Photograph(path, person.name)
        for person in sorted(folder.iterdir())
        if person.is_dir() and not person.name.startswith(".")
        for path in sorted(person.iterdir())
        if path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")
    ]


def _by_labels(folder: Path, labels: Path) -> list[Photograph]:
    found = []
    for row in read_rows(labels):
        path = folder / row.file
        if ".." in Path(row.file).parts or Path(row.file).is_absolute():
            raise BadLabels(f"{row.where}: file {row.file!r} is no path below {folder}")
        if not path.is_file():
            raise BadLabels(
                f"{row.where}: {path} is not there; is this the labels file of that folder?"
            )
        if row.n_faces and not row.n_faces.isdecimal():
            raise BadLabels(f"{row.where}: n_faces {row.n_faces!r} is no number")
        undisputed = row.label_check in ("", "ok")
        faces = int(row.n_faces) if row.n_faces else None
        found.append(Photograph(path, row.person or None, undisputed, faces))
    return found
