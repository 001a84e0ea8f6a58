"""Somebody known by a photograph, in the space of a dataset's own vectors; and faces to look at
before they are removed.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from idcluster.catalogue.connection import connect
from idcluster.root.dataset_root import RunError, UsageError
from idcluster.root.snapshot import Snapshot, load
from idcluster.root.storage import Store
from pipeline.dag import Dag, version_of
from pipeline.execution.reconcile import wanted
from pipeline.forget.wish import Found, Likeness
from pipeline.report.crops import crop
from pipeline.report.sheet import SheetFace, SheetPerson, contact_sheet
from pipeline.weights.stored import weight_files
from schemas import TABLES
from stages.backends import UnknownBackend, backend
from stages.lookalikes import looks
from stages.pictures import PictureError, decode, perceptual_hash, read_header
from stages.stage import Picture, Stage
from stages.weights import WeightFiles

SHEET = "who-would-go.png"
_PEOPLE, _FACES = 30, 57
_IDS = {"identity_id": "0" * 16, "image_id": "0" * 24}


def likeness(
    store: Store, photograph: Path, models: str | None, dag: Dag | None = None
) -> Likeness:
    """The face in a photograph, found and embedded as the dataset's own are: by the stages of
    `dag`, else as its snapshot says.

    Of several faces the one that the image seems to be of, else the largest. Raises RunError,
    MissingWeights.
    """
    try:
        data = photograph.read_bytes()
        rgb = decode(data)
        header = read_header(data)
    except OSError as error:
        raise UsageError(f"{photograph} cannot be read: {error.strerror or error}") from error
    except PictureError as error:
        raise UsageError(
            f"{photograph} is no image that can be used: {error.detail or error.reason}"
        ) from error
    detect, embed = _stages(load(store), models, dag)
    digest, phash = hashlib.sha256(data).hexdigest(), perceptual_hash(data)
    image = {
        **_IDS,
        "sha256": digest,
        "phash": phash,
        "format": header.format,
        "width": rgb.shape[1],
        "height": rgb.shape[0],
        "orientation": header.orientation,
        "size": len(data),
        "status": "ok",
        "inputs": bytes(8),
    }
    tables = {"images": _light("images", image)}
    faces = _run(detect, tables, rgb)
    found = [face for face in faces.to_pylist() if face["status"] == "ok"]
    if not found:
        raise RunError(
            f"{photograph}: {detect.backend} finds no face in it; use a photograph that shows "
            "one clearly"
        )
    best = max(found, key=lambda face: (bool(face["subject"]), face["side"] or 0.0))
    tables["faces"] = _light("faces", {**best, "inputs": bytes(8)})
    [row] = _run(embed, tables, rgb).to_pylist()
    if row["status"] != "ok" or row["vector"] is None:
        raise RunError(
            f"{photograph}: {embed.backend} gives no vector for the face ({row['reason']}); use "
            "another photograph"
        )
    return Likeness(row["recogniser"], tuple(row["vector"]), digest, phash, looks(data))


def _light(table: str, row: Mapping[str, Any]) -> pa.Table:
    schema = TABLES[table]
    return schema.build([row]).select(schema.light)


def _run(stage: Stage, tables: Mapping[str, pa.Table], rgb: np.ndarray) -> pa.Table:
    rows = wanted(stage, tables).rows
    return stage.run(rows, {_IDS["image_id"]: Picture(_IDS["image_id"], rgb)}, _NoServices())


class _NoServices:
    def fetch(self, addresses: Sequence[str]) -> list[Any]:
        raise NotImplementedError("nothing is fetched to look at a photograph")


def _stages(newest: Snapshot, models: str | None, dag: Dag | None) -> tuple[Stage, Stage]:
    files = weight_files(models or (dag.models if dag else None))
    if dag is not None:
        by_name = {stage.name: stage for stage in dag.build()}
        if not {"detect", "embed"} <= by_name.keys():
            raise RunError("the DAG has no stages detect and embed")
        made = (by_name["detect"], by_name["embed"])
    else:
        made = (_as_recorded(newest, "faces", files), _as_recorded(newest, "embeddings", files))
    for stage in made:
        stage.setup(files)
    return made


def _as_recorded(newest: Snapshot, table: str, files: WeightFiles) -> Stage:
    """The stage that has written what a table shows. Raises RunError where it is not here, or with
    other weights.
    """
    versions = {entry.version for entry in newest.shown(table)}
    described = [
        newest.notes.get("versions", {}).get(f"{table}/{version}") for version in sorted(versions)
    ]
    if not described or described[0] is None:
        raise RunError(f"the dataset does not say how {table} were made; name its DAG by --dag")
    about = described[0]
    try:
        stage = backend(about["stage"], about["backend"])(about["params"], files.local)
    except (UnknownBackend, ValueError, KeyError) as error:
        raise RunError(
            f"{table} were made by {about['backend']}, which cannot be opened here ({error}); "
            "name a DAG by --dag"
        ) from error
    version, _ = version_of(stage, {name: files.sha256(name) for name in stage.weights})
    if version not in versions:
        raise RunError(
            f"{table} were made by another version or other weights of {about['backend']}; "
            "vectors cannot be compared"
        )
    return stage


# To look at


_SHOWN = """
SELECT f.box, k.keep, k.similarity, k.reason, i.bytes, f.image_id, n.name FROM (FROM faces
    WHERE status = 'ok' AND {which}) f
JOIN (FROM images WHERE {which}) i USING (image_id) JOIN identities n ON n.identity_id =
    f.identity_id
LEFT JOIN (FROM clusters WHERE {which}) k ON k.face_id = f.face_id
ORDER BY NOT coalesce(k.keep, false), k.similarity DESC NULLS LAST, f.face_id LIMIT {most}
"""


def write_sheet(store: Store, found: Found, folder: Path) -> Path | None:
    """A contact sheet of who would go into `folder`: a row of faces a person, then images under
    other names; None without faces.

    Of many people and faces the first ones. Only what the newest snapshot shows can be drawn.
    """
    rows: list[SheetPerson] = []
    with connect(store) as connection:

        def faces(
            which: str, given: list[Any], why: Mapping[str, str]
        ) -> dict[str, list[SheetFace]]:
            by_name: dict[str, list[SheetFace]] = {}
            sql = _SHOWN.format(which=which, most=_FACES)
            for box, keep, similarity, reason, data, image, name in connection.execute(
                sql, given
            ).fetchall():
                face = SheetFace(
                    crop(data, box),
                    bool(keep) and image not in why,
                    why.get(image, reason),
                    similarity,
                )
                by_name.setdefault(name, []).append(face)
            return by_name

        for person, name in sorted(found.people.items(), key=lambda item: (item[1], item[0]))[
            :_PEOPLE
        ]:
            mine = faces("identity_id = $1", [person], {})
            rows += [
                SheetPerson(f"{name}: {found.why[person]}", several) for several in mine.values()
            ]
        if found.others:
            others = faces("list_contains($1, image_id)", [sorted(found.others)], found.others)
            rows += [
                SheetPerson(f"images of {name}", several)
                for name, several in sorted(others.items())[:_PEOPLE]
            ]
    if not rows:
        return None
    contact_sheet(folder / SHEET, rows)
    return folder / SHEET
