"""A contact sheet: one row of faces a person, what cleaning kept and what it rejected, and why."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from idcluster.root.aside import aside

_SIDE, _FRAME, _GAP, _CAPTION, _MARGIN = 96, 4, 8, 32, 24
_HEADING, _TITLE, _BETWEEN = 30, 52, 10
_PAPER, _INK, _FAINT = (255, 255, 255), (25, 25, 25), (120, 120, 120)
_KEPT, _REJECTED = (34, 139, 60), (200, 40, 40)


@dataclass(frozen=True)
class SheetFace:
    """A face. `rgb`: (h, w, 3) uint8; `similarity`: cosine to the person's indicator; `reason`: why
    it was rejected.
    """

    rgb: np.ndarray
    keep: bool
    reason: str | None = None
    similarity: float | None = None


@dataclass(frozen=True)
class SheetPerson:
    """A person and their faces, in any order."""

    name: str
    faces: Sequence[SheetFace]


def contact_sheet(path: Path, people: Sequence[SheetPerson], columns: int = 19) -> None:
    """Write a PNG with a row of thumbnails a person (more rows above `columns` faces).

    Kept faces come first, framed green, then the rejected, framed red with the reason below; both
    by falling similarity. Meant for dozens of people: a person takes about 300 000 pixels.
    """
    heights = [_height(person, columns) for person in people]
    width = 2 * _MARGIN + columns * (_SIDE + _GAP) - _GAP
    sheet = Image.new("RGB", (width, _TITLE + _MARGIN + sum(heights)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    kept, faces = (
        sum(_kept(person) for person in people),
        sum(len(person.faces) for person in people),
    )
    title = (
        f"{_count(len(people), 'person', 'people')}, {_count(faces, 'face')}: {kept} kept, "
        f"{faces - kept} rejected"
    )
    draw.text((_MARGIN, 14), title, _INK, _font(20, bold=True))
    top = _TITLE
    for person, height in zip(people, heights, strict=True):
        _draw_person(sheet, draw, top, person, columns)
        top += height
    path.parent.mkdir(parents=True, exist_ok=True)
    with aside(path) as place:
        sheet.save(place, "PNG")


def _draw_person(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, top: int, person: SheetPerson, columns: int
) -> None:
    name = _fitted(person.name, _font(15, bold=True), sheet.width - 2 * _MARGIN - 220)
    draw.text((_MARGIN, top + 4), name, _INK, _font(15, bold=True))
    after = _MARGIN + draw.textlength(name, _font(15, bold=True)) + 12
    draw.text(
        (after, top + 6),
        f"{_kept(person)} of {_count(len(person.faces), 'face')} kept",
        _FAINT,
        _font(13),
    )
    if not person.faces:
        draw.text((_MARGIN, top + _HEADING), "no face was found", _FAINT, _font(12))
    for place, face in enumerate(sorted(person.faces, key=_rank)):
        x = _MARGIN + place % columns * (_SIDE + _GAP)
        y = top + _HEADING + place // columns * (_SIDE + _CAPTION)
        _draw_face(sheet, draw, x, y, face)


def _draw_face(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, x: int, y: int, face: SheetFace
) -> None:
    colour = _KEPT if face.keep else _REJECTED
    draw.rectangle((x, y, x + _SIDE - 1, y + _SIDE - 1), fill=colour)
    sheet.paste(_thumbnail(face.rgb, _SIDE - 2 * _FRAME), (x + _FRAME, y + _FRAME))
    below = "" if face.similarity is None else f"{face.similarity:.3f}"
    lines = (
        [(below, _FAINT)] if face.keep else [(face.reason or "rejected", colour), (below, _FAINT)]
    )
    for row, (text, ink) in enumerate(lines):
        text = _fitted(text.replace("_", " "), _font(11), _SIDE)
        draw.text((x + _SIDE / 2, y + _SIDE + 1 + 13 * row), text, ink, _font(11), anchor="ma")


def _thumbnail(rgb: np.ndarray, side: int) -> Image.Image:
    """A square of `side` pixels with the whole crop in its middle."""
    square = Image.new("RGB", (side, side), _PAPER)
    if rgb.size:
        picture = Image.fromarray(np.ascontiguousarray(rgb))
        scale = side / max(picture.size)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
        square.paste(picture, ((side - size[0]) // 2, (side - size[1]) // 2))
    return square


def _rank(face: SheetFace) -> tuple[bool, float]:
    return not face.keep, float("inf") if face.similarity is None else -face.similarity


def _kept(person: SheetPerson) -> int:
    return sum(face.keep for face in person.faces)


def _height(person: SheetPerson, columns: int) -> int:
    rows = max(1, -(-len(person.faces) // columns))
    return _HEADING + rows * (_SIDE + _CAPTION) + _BETWEEN


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _fitted(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """The text, shortened with an ellipsis where it is wider than `width` pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


@cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, from matplotlib's files: Latin, Greek and Cyrillic names need no system font.
    Chinese, say, shows as boxes.
    """
    spec = find_spec("matplotlib")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            "a contact sheet is written in a font that matplotlib ships: pip install matplotlib"
        )
    fonts = Path(spec.submodule_search_locations[0], "mpl-data", "fonts", "ttf")
    return ImageFont.truetype(
        str(fonts / ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf")), size
    )
