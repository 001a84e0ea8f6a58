"""The contact sheet: whoever looks at it must see every face, which were kept, and why the others
were not.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.report.sheet import SheetFace, SheetPerson, contact_sheet

_GREEN, _RED = (34, 139, 60), (200, 40, 40)


def _face(
    grey: int, keep: bool, similarity: float | None = None, reason: str | None = None, size=(64, 64)
) -> SheetFace:
    return SheetFace(np.full((*size, 3), grey, np.uint8), keep, reason, similarity)


def _drawn(path: Path, people: list[SheetPerson], **options: int) -> np.ndarray:
    contact_sheet(path, people, **options)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))


def _frames(sheet: np.ndarray, colour: tuple[int, int, int]) -> list[tuple[int, int, int]]:
    """Row, column and grey level of the middle of every frame of a colour, by its top edge of 96
    pixels.
    """
    hit = (sheet == colour).all(axis=2)
    found = []
    for y, x in zip(*np.nonzero(hit), strict=True):
        starts = not hit[y - 1, x] and not hit[y, x - 1]
        if starts and hit[y, x : x + 96].all() and hit[y : y + 96, x].all():
            found.append((int(y), int(x), int(sheet[y + 48, x + 48, 0])))
    return found


def test_kept_faces_come_first_by_similarity_then_the_rejected(tmp_path):
    faces = [
        _face(10, False, 0.2, "below_threshold"),
        _face(60, True, 0.6),
        _face(110, True, 0.9),
        _face(160, False, 0.4, "other"),
    ]
    sheet = _drawn(tmp_path / "sheet.png", [SheetPerson("Ada", faces)])
    kept, rejected = _frames(sheet, _GREEN), _frames(sheet, _RED)
    assert [grey for _, _, grey in kept] == [110, 60]
    assert [grey for _, _, grey in rejected] == [160, 10]
    assert max(x for _, x, _ in kept) < min(x for _, x, _ in rejected)


def test_every_face_is_there_when_rows_wrap(tmp_path):
    people = [
        SheetPerson(name, [_face(40, True, 0.5) for _ in range(7)]) for name in ("Ada", "Bob")
    ]
    frames = _frames(_drawn(tmp_path / "sheet.png", people, columns=3), _GREEN)
    assert len(frames) == 14
    assert len({y for y, _, _ in frames}) == 6


def test_a_reason_is_written_below_a_rejected_face(tmp_path):
    without = _drawn(tmp_path / "a.png", [SheetPerson("Ada", [_face(40, False, reason=" ")])])
    written = _drawn(
        tmp_path / "b.png", [SheetPerson("Ada", [_face(40, False, reason="below_threshold")])]
    )
    ((y, x, _),) = _frames(written, _RED)
    below = np.s_[y + 96 : y + 112, x - 4 : x + 100]
    assert (without[below] == 255).all()
    assert (written[below] == _RED).all(axis=2).any()


def test_names_beyond_ascii_are_drawn_as_themselves(tmp_path):
    """A font without the letter would draw the same box for both."""
    first = _drawn(tmp_path / "a.png", [SheetPerson("ë", [])])
    second = _drawn(tmp_path / "b.png", [SheetPerson("Ж", [])])
    assert (first != second).any()


def test_odd_input_makes_a_sheet(tmp_path):
    faces = [
        _face(40, True, None, size=(5, 300)),
        _face(40, False, None, None, size=(300, 5)),
        SheetFace(
            np.zeros((0, 0, 3), np.uint8),
            False,
            "a reason that is far too long for the width of a thumbnail",
        ),
        SheetFace(np.zeros((50, 80, 3), np.uint8)[:, ::-1], True, None, float("nan")),
    ]
    sheet = _drawn(
        tmp_path / "new" / "sheet.png", [SheetPerson("x" * 500, faces), SheetPerson("nobody", [])]
    )
    assert len(_frames(sheet, _GREEN)) == len(_frames(sheet, _RED)) == 2
    _drawn(tmp_path / "empty.png", [])


def test_the_same_faces_give_the_same_bytes(tmp_path):
    people = [SheetPerson("Zoë", [_face(40, True, 0.5), _face(90, False, 0.1, "other")])]
    for name in ("a.png", "b.png"):
        contact_sheet(tmp_path / name, people)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
