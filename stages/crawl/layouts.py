"""Data sets in the layout in which they are published, as rows of path, identity, split, licence,
page, author and attributes.

Names of people who are only numbers in a data set begin with its name, so that they are nobody
else's.
"""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from stages.crawl.listed_rows import TEXT, as_json
from stages.crawl.listing import SourceError
from stages.crawl.reading import json_values

COLUMNS = ("path", "identity", "split", "licence", "page", "author", "attributes")
_AT_ONCE = 2**16
_PICTURES = (".jpg", ".jpeg", ".png")

Fault = Callable[[str], None]
"""Takes what cannot be read, in words: the rest is read nevertheless."""


def celeba(folder: Path, pictures: str | None, fault: Fault) -> Iterator[pa.Table]:
    """CelebA (Liu et al. 2015): 202,599 images of 10,177 numbered people.

    `identity_CelebA.txt` and, if they are there, `list_eval_partition.txt` and
    `list_attr_celeba.txt` (40 attributes, 1 or -1), in the folder or as the download has them in
    `Anno/` and `Eval/`. Images are `img_celeba/` (as they were found) where it is there, else
    `img_align_celeba/`.
    """
    names = _find(folder, "identity_CelebA.txt", ("", "Anno"))
    if names is None:
        raise SourceError(
            f"{folder} has no identity_CelebA.txt, neither there nor in Anno/: it comes with "
            "CelebA on request to its makers"
        )
    usual = ("img_celeba", "Img/img_celeba", "img_align_celeba", "Img/img_align_celeba")
    inside = pictures or next((name for name in usual if (folder / name).is_dir()), None)
    if inside is None:
        raise SourceError(f"{folder} has no folder of images: {' or '.join(usual)}")
    parts = _find(folder, "list_eval_partition.txt", ("", "Eval", "Anno"))
    split = (
        {
            name: {"0": "train", "1": "valid", "2": "test"}.get(number)
            for name, number in _pairs(parts)
        }
        if parts
        else {}
    )
    said = _find(folder, "list_attr_celeba.txt", ("", "Anno"))
    attributes = _celeba_attributes(said) if said else {}
    rows = [
        (f"{inside}/{name}", f"celeba {number}", split.get(name), attributes.get(name))
        for name, number in _pairs(names)
    ]
    path, identity, splits, texts = (
        (list(column) for column in zip(*rows, strict=True)) if rows else ([], [], [], [])
    )
    yield _table(path=path, identity=identity, split=splits, attributes=texts)


def _celeba_attributes(file: Path) -> dict[str, str | None]:
    """Of `list_attr_celeba.txt`: how many, the names, then an image and its values a line."""
    with file.open(encoding="utf-8") as lines:
        next(lines, None)
        names = next(lines, "").split()
        found = {}
        for line in lines:
            picture, *values = line.split() or [""]
            if len(values) != len(names):
                raise ValueError(
                    f"{file}: {picture or 'an empty line'} has {len(values)} values, there are "
                    f"{len(names)} attributes"
                )
            found[picture] = as_json(
                {name: int(value) for name, value in zip(names, values, strict=True)}
            )
    return found


def ffhq(folder: Path, pictures: str | None, fault: Fault) -> Iterator[pa.Table]:
    """FFHQ (Karras et al. 2019): 70,000 images, each taken for a person of its own, as it names
    nobody.

    `ffhq-dataset-v2.json` gives licence, author and page; without it the images in
    `images1024x1024/` are taken alone. With `pictures: in-the-wild-images` those that the crops
    were made from.
    """
    inside = pictures or "images1024x1024"
    about = folder / "ffhq-dataset-v2.json"
    if not about.is_file():
        found = sorted(_walk(folder / inside, fault))
        yield _table(
            path=[f"{inside}/{path}" for path in found],
            identity=[f"ffhq {Path(path).stem}" for path in found],
        )
        return
    entry = "in_the_wild" if inside == "in-the-wild-images" else "image"
    rows: list[tuple[Any, ...]] = []
    for number, value in members(about):
        said, picture = (
            (value.get(name) or {} for name in ("metadata", entry))
            if isinstance(value, dict)
            else (None, None)
        )
        if not isinstance(said, dict) or not isinstance(picture, dict) or not number.isdecimal():
            raise ValueError(f"{about}: member {number[:40]!r} describes no image")
        place = picture.get("file_path")
        if entry == "image" and isinstance(
            place, str
        ):  # images of another size lie in folders of another name
            place = f"{inside}/{place.partition('/')[2]}"
        rows.append(
            (
                place,
                f"ffhq {int(number):05d}",
                value.get("category"),
                *map(said.get, ("license", "photo_url", "author")),
                None,
            )
        )
        if len(rows) == _AT_ONCE:
            yield _table(**dict(zip(COLUMNS, map(list, zip(*rows, strict=True)), strict=True)))
            rows = []
    if rows:
        yield _table(**dict(zip(COLUMNS, map(list, zip(*rows, strict=True)), strict=True)))


def agedb(folder: Path, pictures: str | None, fault: Fault) -> Iterator[pa.Table]:
    """AgeDB (Moschoglou et al. 2017): files `12_ArielSharon_47_f.jpg`, that is number, name, age
    and gender.

    Names stay as they are written there, without blanks.
    """
    inside = f"{pictures}/" if pictures else ""
    paths, names, attributes = [], [], []
    for file in sorted(_walk(folder / inside, fault)):
        told = re.fullmatch(
            r"\d+_(.+)_(\d+)_([mf])\.(?:jpe?g|png)", file.rpartition("/")[2], re.IGNORECASE
        )
        paths.append(inside + file)
        names.append(told[1] if told else None)
        attributes.append(
            as_json({"age": int(told[2]), "gender": told[3].lower()}) if told else None
        )
    yield _table(path=paths, identity=names, attributes=attributes)


def lfw(folder: Path, pictures: str | None, fault: Fault) -> Iterator[pa.Table]:
    """Labeled Faces in the Wild (Huang et al. 2007): `Aaron_Eckhart/Aaron_Eckhart_0001.jpg`."""
    inside = f"{pictures}/" if pictures else ""
    found = [file for file in sorted(_walk(folder / inside, fault)) if file.count("/") == 1]
    yield _table(
        path=[inside + file for file in found],
        identity=[file.partition("/")[0].replace("_", " ") for file in found],
    )


LAYOUTS: dict[str, Callable[[Path, str | None, Fault], Iterator[pa.Table]]] = {
    "celeba": celeba,
    "ffhq": ffhq,
    "agedb": agedb,
    "lfw": lfw,
}


def members(file: Path, at_once: int = 2**20) -> Iterator[tuple[str, Any]]:
    """The members of the JSON object in a file, one after the other: FFHQ's is 255 MB, and ten
    times that as Python objects.

    Raises ValueError for what is no JSON object.
    """
    with file.open(encoding="utf-8-sig") as source:
        try:
            yield from json_values(source.read, "{", at_once)
        except ValueError as error:
            raise ValueError(f"{file} {error}") from error


def _table(**columns: list[str | None] | list[str]) -> pa.Table:
    count = len(columns["path"])
    return pa.table(
        {
            name: pa.array(columns[name], TEXT) if name in columns else pa.nulls(count, TEXT)
            for name in COLUMNS
        }
    )


def _find(folder: Path, name: str, places: tuple[str, ...]) -> Path | None:
    return next((file for place in places if (file := folder / place / name).is_file()), None)


def _pairs(file: Path) -> Iterator[tuple[str, str]]:
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            words = line.split()
            if len(words) == 2:
                yield words[0], words[1]


def _walk(folder: Path, fault: Fault) -> Iterator[str]:
    """The images below a folder, relative to it. Folders that cannot be listed go to `fault`."""
    if not folder.is_dir():
        raise SourceError(f"{folder} is not a folder")

    def unlisted(error: OSError) -> None:
        fault(
            f"{error.filename} cannot be listed ({error.strerror}), and what is in it is not used"
        )

    for where, folders, files in os.walk(folder, onerror=unlisted, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = os.path.relpath(where, folder)
        for name in files:
            if name.lower().endswith(_PICTURES) and not name.startswith("."):
                yield name if below == "." else f"{below}/{name}"
