"""A dataset root small enough for tests: real Parquet files and a published snapshot, from tiny
generated images.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from PIL import Image

from idcluster.root.parquet import seal_table
from idcluster.root.snapshot import Entry, Snapshot, publish
from idcluster.root.storage import Store
from schemas import TABLES, face_id, identity_id, image_id, no_face_id

VERSIONS = {table: hashlib.blake2b(table.encode(), digest_size=4).hexdigest() for table in TABLES}
BOX = [4.0, 2.0, 20.0, 22.0]
_FORMATS = ("jpeg", "png", "webp")


@dataclass(frozen=True)
class SmallPerson:
    """A person with `pictures` images, of `size` bytes or a little more each.

    `rejected` of them are kept out by cleaning, `others` show somebody else (cluster 1), `faceless`
    have no face; these come on top of `pictures`. `flags` and `margin` are of the table people,
    `near` (a name, a cosine, flags) and `shared` of matches.
    """

    name: str
    pictures: int
    size: int = 0
    rejected: int = 0
    faceless: int = 0
    same_as: str | None = None
    caption: str = "a photo of a person"
    others: int = 0
    flags: tuple[str, ...] = ()
    margin: float | None = None
    near: tuple[str, float, tuple[str, ...]] | None = None
    shared: int = 0
    reason: str | None = None


@lru_cache(maxsize=4096)
def picture(seed: str, format: str = "jpeg", size: int = 0) -> bytes:
    """An image of 32 x 24 pixels; what follows its end is padding that decoders skip."""
    digest = hashlib.blake2b(seed.encode()).digest()
    sink = io.BytesIO()
    Image.new("RGB", (32, 24), (digest[0], digest[1], digest[2])).save(sink, format)
    data = sink.getvalue()
    return data + hashlib.shake_128(seed.encode()).digest(max(size - len(data), 16))


@lru_cache(maxsize=16)
def mask_png(level: int) -> bytes:
    sink = io.BytesIO()
    Image.new("L", (16, 20), level).save(sink, "PNG")
    return sink.getvalue()


def small_root(
    store: Store,
    people: Sequence[SmallPerson],
    snapshot: Snapshot | None = None,
    people_per_chunk: int = 3,
    chunks_per_bucket: int = 1000,
    versions: Mapping[str, str] = VERSIONS,
) -> Snapshot:
    """Write `people` into `store` and publish; with `snapshot`, as its successor that shows them
    and keeps its shards.
    """
    entries: list[Entry] = []
    for chunk, start in enumerate(range(0, len(people), people_per_chunk)):
        bucket, number = divmod(chunk, chunks_per_bucket)
        rows = _rows(people[start : start + people_per_chunk], bucket)
        for table, found in rows.items():
            schema, version = TABLES[table], versions[table]
            sealed = seal_table(store, schema, version, bucket, number, schema.build(found))
            entries.append(sealed.entry(schema, version, bucket, number, "basis"))
    before = snapshot or Snapshot()
    shards = [e for e in before.entries if e.table in ("shards", "samples")]
    return publish(store, Snapshot(before.number, tuple(sorted((*shards, *entries))), before.notes))


def _rows(people: Sequence[SmallPerson], bucket: int) -> dict[str, list[dict[str, Any]]]:
    tables = (
        "identities",
        "candidates",
        "images",
        "faces",
        "embeddings",
        "clusters",
        "people",
        "matches",
        "captions",
        "heads",
        "masks",
    )
    rows: dict[str, list[dict[str, Any]]] = {table: [] for table in tables}

    def add(table: str, **values: Any) -> None:
        rows[table].append(
            {
                "status": "ok",
                "inputs": hashlib.blake2b(repr(values).encode(), digest_size=8).digest(),
                **values,
            }
        )

    for person in people:
        who = identity_id(person.name)
        add(
            "identities",
            identity_id=who,
            name=person.name,
            bucket=bucket,
            external_ids={"test": person.name},
        )
        add(
            "people",
            identity_id=who,
            images=person.pictures,
            faces=person.pictures,
            kept=person.pictures,
            flags=list(person.flags),
            margin=person.margin,
            indicator=[1.0, 0.0],
        )
        canonical = identity_id(person.same_as) if person.same_as else who
        nearest, cosine, flags = person.near or (None, None, ())
        add(
            "matches",
            identity_id=who,
            same_as=canonical,
            kin=canonical,
            nearest=None if nearest is None else identity_id(nearest),
            nearest_cosine=cosine,
            shared=person.shared,
            dropped_faces=[],
            flags=[*flags, *["shared_pictures"] * bool(person.shared)],
        )
        for number in range(person.pictures + person.rejected + person.others + person.faceless):
            _add_picture(add, person, who, number)
    return rows


def _add_picture(add: Any, person: SmallPerson, who: str, number: int) -> None:
    address = f"local:{person.name}/{number}.jpg"
    which = image_id(who, address)
    format = _FORMATS[number % len(_FORMATS)]
    data = picture(f"{person.name} {number}", format, person.size)
    ids = {"identity_id": who, "image_id": which}
    add(
        "candidates",
        **ids,
        address=address,
        source="local",
        rank=number,
        licence="CC0",
        author="A. Nobody",
    )
    add(
        "images",
        **ids,
        bytes=data,
        sha256=hashlib.sha256(data).hexdigest(),
        phash=number,
        format=format,
        width=32,
        height=24,
        orientation=1,
        size=len(data),
    )
    stranger = number >= person.pictures + person.rejected
    if number >= person.pictures + person.rejected + person.others:
        add(
            "faces",
            **ids,
            face_id=no_face_id(which),
            faces_in_image=0,
            status="filtered",
            reason="no_face",
        )
        return
    face = {**ids, "face_id": face_id(which, BOX)}
    keep = number < person.pictures
    add(
        "faces",
        **face,
        face=0,
        box=BOX,
        landmarks=[float(v) for v in range(10)],
        landmark_scheme="dlib5",
        score=0.9,
        side=17.9,
        sharpness=3.0,
        yaw=0.1,
        faces_in_image=1,
        subject=True,
    )
    add("embeddings", **face, recogniser="test2", vector=[1.0, 0.0], norm=2.0)
    add(
        "clusters",
        **face,
        cluster=int(stranger),
        similarity=0.2 if stranger else 0.75,
        keep=keep,
        status="ok" if keep else "filtered",
        reason=None if keep else "other_cluster" if stranger else person.reason,
    )
    if not keep:
        return
    if number % 4 == 3:
        add("captions", **face, status="failed", reason="no_answer")
    else:
        add(
            "captions",
            **face,
            caption=f"{person.caption}, {number}",
            prompt_id="p1",
            model="m1",
            tokens=5,
        )
    add("heads", **face, scheme="pose", pose=[1.0, 2.0, 3.0], camera=[0.0, 0.0, 1.0], error=0.01)
    if number % 5 == 4:
        add("masks", **face, status="failed", reason="no_mask")
    else:
        add(
            "masks",
            **face,
            mask=mask_png(number % 8),
            window=[2.0, 2.0, 18.0, 22.0],
            classes=["background", "face"],
            coverage=0.5,
        )
