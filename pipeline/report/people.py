"""The sample people of a report: who they are, and which of their faces are shown.

Drawn by a hash of their ids, so that the same dataset shows the same people. Whoever is gone or may
not come back is not among them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from idcluster.root.removals import load_bars
from idcluster.root.storage import Store
from pipeline.report.crops import crop, thumbnail
from stages.crawl.listing import Listed

KEPT_SHOWN, REJECTED_SHOWN = 6, 4
_SIDE = 112
_AT_ONCE = 4
"""People whose originals are in memory at a time: each time goes over the ids of all images."""
_SPARE = 50
"""People who are looked at beyond those asked for, in place of those who are barred."""

_PEOPLE = """
SELECT identity_id, name, aliases, external_ids FROM identities
WHERE status = 'ok' AND identity_id IN (SELECT identity_id FROM clusters)
    ORDER BY md5(identity_id) LIMIT ?
"""
_FACES = """
SELECT k.identity_id, k.image_id, k.face_id, k.keep, coalesce(k.reason, k.status) AS reason,
    k.similarity, f.box
FROM clusters k JOIN faces f ON f.face_id = k.face_id AND f.identity_id = k.identity_id
WHERE list_contains($1, k.identity_id) AND list_contains($1, f.identity_id) AND f.box IS NOT NULL
ORDER BY k.identity_id, k.similarity DESC NULLS LAST, k.face_id
"""
_ABOUT = """
SELECT c.image_id, c.address, c.licence, c.author FROM candidates c
WHERE list_contains($people, c.identity_id) AND list_contains($images, c.image_id)
    AND c.status = 'ok'
"""
_CAPTIONS = """
SELECT face_id, caption FROM captions
WHERE list_contains($people, identity_id) AND list_contains($faces, face_id) AND status = 'ok'
"""
_BYTES = (
    "SELECT image_id, bytes FROM images WHERE list_contains($people, identity_id) AND "
    "list_contains($images, image_id)"
)


@dataclass(frozen=True)
class SampleFace:
    """`picture`: address of a small JPEG; `reason`: why it was rejected; `similarity`: cosine to
    the person.
    """

    picture: str
    keep: bool
    reason: str
    similarity: float | None
    caption: str | None
    address: str
    licence: str | None
    author: str | None


@dataclass(frozen=True)
class SamplePerson:
    """A person, how many faces were kept and rejected, and some of both."""

    name: str
    kept: int
    rejected: int
    faces: tuple[SampleFace, ...]


def sample_people(
    store: Store, connection: duckdb.DuckDBPyConnection, most: int
) -> list[SamplePerson]:
    """At most `most` people with faces that were cleaned, in the order of their names."""
    chosen = _chosen(store, connection, most)
    ids = [person for person, _ in chosen]
    if not ids:
        return []
    faces: dict[str, list[dict[str, Any]]] = {person: [] for person in ids}
    for face in _rows(connection, _FACES, [ids]):
        faces[face["identity_id"]].append(face)
    shown = {person: _spread(mine) for person, mine in faces.items()}
    all_shown = [face for mine in shown.values() for face in mine]
    images, people = [face["image_id"] for face in all_shown], ids
    about = {
        row["image_id"]: row
        for row in _rows(connection, _ABOUT, {"people": people, "images": images})
    }
    values = {"people": people, "faces": [face["face_id"] for face in all_shown]}
    captions = {row["face_id"]: row["caption"] for row in _rows(connection, _CAPTIONS, values)}
    for start in range(0, len(ids), _AT_ONCE):
        some = ids[start : start + _AT_ONCE]
        drawn_now = [face for person in some for face in shown[person]]
        values = {"people": some, "images": [face["image_id"] for face in drawn_now]}
        pictures = {row["image_id"]: row["bytes"] for row in _rows(connection, _BYTES, values)}
        for face in drawn_now:
            face["picture"] = thumbnail(crop(pictures.get(face["image_id"]), face["box"]), _SIDE)
    made = []
    for person, name in chosen:
        drawn = tuple(
            SampleFace(
                face["picture"],
                face["keep"],
                face["reason"],
                face["similarity"],
                captions.get(face["face_id"]),
                about[face["image_id"]]["address"],
                about[face["image_id"]]["licence"],
                about[face["image_id"]]["author"],
            )
            for face in shown[person]
            if face["image_id"] in about
        )
        kept = sum(face["keep"] for face in faces[person])
        made.append(SamplePerson(name, kept, len(faces[person]) - kept, drawn))
    return sorted(made, key=lambda person: person.name)


def _chosen(
    store: Store, connection: duckdb.DuckDBPyConnection, most: int
) -> list[tuple[str, str]]:
    """Id and name of the people drawn."""
    bars = load_bars(store)
    found = []
    for row in _rows(connection, _PEOPLE, [most + _SPARE]):
        listed = Listed(
            row["name"],
            [],
            aliases=tuple(row["aliases"] or ()),
            external_ids=dict(row["external_ids"] or {}),
        )
        if not bars.text("identity", row["identity_id"]) and not bars.person(listed):
            found.append((row["identity_id"], row["name"]))
    return found[:most]


def _spread(faces: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Some of a person's faces, which come by falling similarity: kept ones from the likest to the
    least like, and of the rejected those that came nearest to being kept.
    """
    kept = [face for face in faces if face["keep"]]
    places = (
        sorted({round(i * (len(kept) - 1) / max(1, KEPT_SHOWN - 1)) for i in range(KEPT_SHOWN)})
        if kept
        else []
    )
    return [
        *(kept[place] for place in places),
        *[face for face in faces if not face["keep"]][:REJECTED_SHOWN],
    ]


def _rows(connection: duckdb.DuckDBPyConnection, sql: str, parameters: Any) -> list[dict[str, Any]]:
    answer = connection.execute(sql, parameters)
    names = [column[0] for column in answer.description or []]
    return [dict(zip(names, row, strict=True)) for row in answer.fetchall()]
