"""The faces of people who are to be looked at, as small JPEGs, bucket by bucket.

A bucket's tables are asked alone, and few original images are in memory at a time, so that neither
time nor memory grows with the dataset.
"""

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import duckdb
import numpy as np

from idcluster.catalogue.connection import connect
from idcluster.root.removals import Bars, load_bars
from idcluster.root.snapshot import Entry, Snapshot
from idcluster.root.storage import Store
from pipeline.report.crops import around, nothing_to_see, small_jpeg
from pipeline.report.html import visible
from pipeline.report.review_queue import Person
from stages.pictures import PictureError, decode

FACE_SIDE, FACE_BYTES = 104, 2_700
"""A face on the page: pixels either way, and bytes of its JPEG at most."""
PHOTO_SIDE, PHOTO_BYTES = 480, 45_000
"""A whole photograph on the page."""
_PEOPLE_AT_ONCE = 50
_BYTES_AT_ONCE = 48 << 20
"""Of original images in memory at a time."""
_LONGEST_LINK = 500

_FACES = """
SELECT k.identity_id, k.face_id, k.image_id, k.cluster, k.similarity, k.keep,
    coalesce(k.reason, k.status) AS reason, k.detail, k.duplicate_of IS NOT NULL AS copy, f.box,
    f.side, f.faces_in_image, c.address, c.page, c.licence, c.author, i.width, i.height, i.sha256,
    coalesce(i.size, 0) AS size, o.action AS by_hand
FROM clusters k JOIN faces f ON f.face_id = k.face_id AND f.identity_id = k.identity_id
JOIN images i ON i.image_id = k.image_id AND i.identity_id = k.identity_id
JOIN candidates c ON c.image_id = k.image_id AND c.identity_id = k.identity_id
LEFT JOIN overrides o ON o.face_id = k.face_id
WHERE list_contains($1, k.identity_id) AND list_contains($1, f.identity_id)
    AND list_contains($1, i.identity_id) AND list_contains($1, c.identity_id)
    AND c.status = 'ok' AND f.box IS NOT NULL
ORDER BY k.identity_id, NOT k.keep, copy, k.similarity DESC NULLS LAST, k.face_id
"""
_WITHOUT = """
SELECT c.identity_id, coalesce(f.reason, i.reason) AS reason, count(*) AS images FROM candidates c
LEFT JOIN images i USING (image_id) LEFT JOIN faces f USING (image_id)
LEFT JOIN clusters k ON k.face_id = f.face_id
WHERE list_contains($1, c.identity_id) AND c.status = 'ok' AND k.face_id IS NULL
GROUP BY ALL ORDER BY ALL
"""
_BYTES = (
    "SELECT image_id, bytes FROM images WHERE list_contains($people, identity_id) AND "
    "list_contains($images, image_id)"
)


@dataclass
class Shown:
    """What a page has of a person. `faces`: those that are drawn, group by group; `rest`: the
    others of a group, as face_id, decision made earlier, and whether it is a copy; `photos`: whole
    photographs as base64 by image_id; `without`: images without a face here, by reason.
    """

    person: Person
    faces: list[dict[str, Any]] = field(default_factory=list)
    rest: dict[str, list[tuple[str, str, int]]] = field(default_factory=dict)
    photos: dict[str, str] = field(default_factory=dict)
    without: list[tuple[str, int]] = field(default_factory=list)
    pixels: dict[str, np.ndarray] = field(default_factory=dict)
    """Of faces, where somebody asked for them."""


def show(
    store: Store,
    snapshot: Snapshot,
    people: Sequence[Person],
    faces: Mapping[str, int],
    photos: Mapping[str, int],
    pixels: bool = False,
) -> Iterator[Shown]:
    """What is shown of each of `people`, bucket by bucket.

    `faces` and `photos`: how many of each there is room for, by identity_id. With `pixels`, the
    faces as they were cut out come along.
    """
    bars = load_bars(store)
    there: dict[int, list[Entry]] = {person.bucket: [] for person in people}
    for entry in snapshot.entries:
        if entry.bucket in there:
            there[entry.bucket].append(entry)
    ordered = sorted(people, key=lambda person: (person.bucket, person.identity_id))
    for bucket, members in groupby(ordered, key=lambda person: person.bucket):
        mine_alone = Snapshot(snapshot.number, tuple(there[bucket]), snapshot.notes)
        connection = connect(store, mine_alone)
        try:
            mine = list(members)
            for start in range(0, len(mine), _PEOPLE_AT_ONCE):
                made = _described(connection, mine[start : start + _PEOPLE_AT_ONCE], faces, bars)
                _draw(connection, made, photos, pixels)
                yield from made
        finally:
            connection.close()


def _described(
    connection: duckdb.DuckDBPyConnection,
    people: Sequence[Person],
    most: Mapping[str, int],
    bars: Bars,
) -> list[Shown]:
    ids = [person.identity_id for person in people]
    answer = connection.execute(_FACES, [ids])
    names = [column[0] for column in answer.description or []]
    by_person: dict[str, list[dict[str, Any]]] = {one: [] for one in ids}
    for values in answer.fetchall():
        face = dict(zip(names, values, strict=True))
        barred = bars.address(face["address"]) or bars.text("sha256", face["sha256"] or "")
        if not barred:
            by_person[face["identity_id"]].append(face)
    without: dict[str, list[tuple[str, int]]] = {one: [] for one in ids}
    for who, reason, images in connection.execute(_WITHOUT, [ids]).fetchall():
        without[who].append((reason or "not looked at yet", images))
    made = []
    for person in people:
        one = Shown(person, without=without[person.identity_id])
        groups: dict[str, list[dict[str, Any]]] = {}
        for face in by_person[person.identity_id]:
            groups.setdefault(group_of(face["cluster"]), []).append(face)
        for name, drawn, rest in chosen(groups, most[person.identity_id]):
            one.faces += drawn
            one.rest[name] = [
                (face["face_id"], _hand(face["by_hand"]), int(face["copy"])) for face in rest
            ]
        made.append(one)
    return made


def group_of(cluster: int | None) -> str:
    """What faces are put together by: the number of their cluster, or nothing."""
    return "" if cluster is None else str(cluster)


def chosen(
    groups: Mapping[str, list[dict[str, Any]]], most: int
) -> list[tuple[str, list[dict[str, Any]], list[dict[str, Any]]]]:
    """Of each group the faces that are drawn and the others; the person's own cluster first, then
    by size.

    Groups take turns until `most` faces are chosen, and of a group faces from the likest to the
    least like, so that a stranger at its end is seen.
    """
    names = sorted(groups, key=lambda name: (name != "0", name == "", -len(groups[name]), name))
    room = dict.fromkeys(names, 0)
    left = most
    while left > 0:
        open_ones = [name for name in names if room[name] < len(groups[name])][:left]
        if not open_ones:
            break
        for name in open_ones:
            room[name] += 1
        left -= len(open_ones)
    found = []
    for name in names:
        faces, count = groups[name], room[name]
        if count >= len(faces):
            places = set(range(len(faces)))
        elif count == 1:
            places = {0}
        else:
            places = {round(i * (len(faces) - 1) / (count - 1)) for i in range(count)}
        drawn = [face for place, face in enumerate(faces) if place in places]
        rest = [face for place, face in enumerate(faces) if place not in places]
        found.append((name, drawn, rest))
    return found


def _draw(
    connection: duckdb.DuckDBPyConnection,
    people: Sequence[Shown],
    photos: Mapping[str, int],
    pixels: bool,
) -> None:
    """Put the pictures in, and leave of each face what the page says of it."""
    wanted = {one.person.identity_id: _photographs(one, photos) for one in people}
    todo: dict[str, list[tuple[Shown, int]]] = {}
    sizes: dict[str, int] = {}
    for one in people:
        for place, face in enumerate(one.faces):
            todo.setdefault(face["image_id"], []).append((one, place))
            sizes[face["image_id"]] = face["size"]
    ids = [one.person.identity_id for one in people]
    for some in _by_bytes(sizes):
        values = {"people": ids, "images": some}
        originals = dict(connection.execute(_BYTES, values).fetchall())
        for image in some:
            rgb = _decoded(originals.pop(image, None))
            for one, place in todo[image]:
                face = one.faces[place]
                cut = nothing_to_see() if rgb is None else around(rgb, face["box"])
                if pixels:
                    one.pixels[face["face_id"]] = np.ascontiguousarray(cut)
                face["picture"] = _base64(small_jpeg(cut, FACE_SIDE, FACE_BYTES))
                asked = image in wanted[one.person.identity_id]
                if rgb is not None and asked and image not in one.photos:
                    one.photos[image] = _base64(small_jpeg(rgb, PHOTO_SIDE, PHOTO_BYTES))
    for one in people:
        one.faces = [_said(face, one.person) for face in one.faces]


def _photographs(one: Shown, most: Mapping[str, int]) -> set[str]:
    """Those that are shown whole: first those with others in them, where the face alone says
    least.
    """
    crowded = sorted(
        range(len(one.faces)),
        key=lambda place: ((one.faces[place]["faces_in_image"] or 1) < 2, place),
    )
    images = list(dict.fromkeys(one.faces[place]["image_id"] for place in crowded))
    return set(images[: most.get(one.person.identity_id, 0)])


def _by_bytes(sizes: Mapping[str, int]) -> Iterator[list[str]]:
    """Images in batches of about _BYTES_AT_ONCE."""
    batch: list[str] = []
    held = 0
    for image, size in sizes.items():
        if batch and held + size > _BYTES_AT_ONCE:
            yield batch
            batch, held = [], 0
        batch.append(image)
        held += size
    if batch:
        yield batch


def _decoded(data: bytes | None) -> np.ndarray | None:
    try:
        return decode(data or b"")
    except PictureError:
        return None


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _hand(action: str | None) -> str:
    return action if action in ("keep", "reject") else ""


def _said(face: Mapping[str, Any], person: Person) -> dict[str, Any]:
    """A face as the page has it; what is not known is left out."""
    links = [face["address"], face["page"]]
    said = {
        "id": face["face_id"],
        "image": face["image_id"],
        "group": group_of(face["cluster"]),
        "kept": int(face["keep"]),
        "why": None if face["keep"] else visible(face["reason"].replace("_", " ")),
        "copy": int(face["copy"]),
        "hand": _hand(face["by_hand"]),
        "like": None if face["similarity"] is None else round(face["similarity"], 3),
        "side": None if face["side"] is None else round(face["side"]),
        "faces": face["faces_in_image"],
        "elsewhere": int(face["face_id"] in person.dropped_faces),
        "detail": None if face["detail"] is None else visible(face["detail"]),
        "address": visible(face["address"]),
        "link": next((link for link in links if _is_link(link)), None),
        "licence": None if face["licence"] is None else visible(face["licence"]),
        "author": None if face["author"] is None else visible(face["author"]),
        "box": _share(face["box"], face["width"], face["height"]),
        "picture": face["picture"],
    }
    return {name: value for name, value in said.items() if value or (name == "like" and value == 0)}


def _is_link(text: str | None) -> bool:
    return (
        text is not None
        and text.startswith(("https://", "http://"))
        and len(text) <= _LONGEST_LINK
        and text.isprintable()
    )


def _share(box: Sequence[float], width: int | None, height: int | None) -> list[float] | None:
    """A box in shares of the image's sides."""
    if not width or not height:
        return None
    sides = (width, height, width, height)
    shares = [float(value) / side for value, side in zip(box, sides, strict=True)]
    return [round(min(1.0, max(0.0, share)), 4) for share in shares]
