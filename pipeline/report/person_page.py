"""A page and a contact sheet about one person: every face with what cleaning decided and why.

The page is the one of `review_page`, with this person alone.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from idcluster.catalogue.connection import connect
from idcluster.root.dataset_root import RunError, UsageError
from idcluster.root.snapshot import Snapshot
from idcluster.root.storage import Store
from pipeline.report.review_faces import Shown
from pipeline.report.review_page import Room, write_queue
from pipeline.report.review_queue import make_queue
from pipeline.report.sheet import SheetFace, SheetPerson, contact_sheet

MOST_FACES = 1000
"""Faces on one page; the page says how many more there are."""


@dataclass(frozen=True)
class Page:
    """What was written, and what is on it."""

    html: Path
    png: Path
    name: str
    kept: int
    rejected: int


def write_page(store: Store, snapshot: Snapshot, person: str, folder: Path) -> Page:
    """Write `<identity_id>.html` and `.png` into `folder`. `person`: an identity_id or a name.
    Raises RunError.
    """
    connection = connect(store, snapshot)
    try:
        who, name = _person(connection, person)
        queue = make_queue(store, connection, people=[who])
    finally:
        connection.close()
    if not queue.asked:
        raise RunError(
            f"{name} ({who}) has no face that was cleaned; run clean first, or look at `status`"
        )
    sheet = folder / f"{who}.png"
    faces: list[SheetFace] = []

    def cut_out(shown: Shown) -> None:
        if shown.person.identity_id == who:
            faces.extend(
                SheetFace(
                    shown.pixels[face["id"]],
                    bool(face.get("kept")),
                    face.get("why"),
                    face.get("like"),
                )
                for face in shown.faces
            )

    page = folder / f"{who}.html"
    write_queue(store, snapshot, queue, page, Room(faces=MOST_FACES), title=name, pixels=cut_out)
    contact_sheet(sheet, [SheetPerson(name, faces)])
    kept = sum(face.keep for face in faces)
    return Page(page, sheet, name, kept, len(faces) - kept)


def _person(connection: Any, said: str) -> tuple[str, str]:
    """Id and name of the one who is meant."""
    sql = (
        "SELECT identity_id, name FROM identities WHERE identity_id = $1 OR lower(name) = lower($1)"
    )
    found = connection.execute(sql, [said]).fetchall()
    if not found:
        nearest = "NOT contains(lower(name), lower($1)), levenshtein(lower(name), lower($1))"
        near = connection.execute(
            f"SELECT name FROM identities ORDER BY {nearest} LIMIT 3",  # noqa: S608 - constants
            [said],
        ).fetchall()
        raise UsageError(
            f"nobody here is called {said!r}; the nearest names are "
            f"{', '.join(repr(row[0]) for row in near) or 'none'}"
        )
    if len(found) > 1:
        raise UsageError(
            f"{said!r} are {len(found)} people: {', '.join(row[0] for row in found)}; name one "
            "by its identity_id"
        )
    return str(found[0][0]), str(found[0][1])
