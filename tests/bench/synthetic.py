"""Dataset roots of any size without images: valid tables, real files and a real snapshot, made in
seconds a million rows.

Everything that planning, publishing and querying look at is there: ids, statuses, bases, digests,
versions of a DAG. The vectors are short, the images and masks are null, and the numbers are
noise.
"""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from idcluster.root.dataset_root import make_root
from idcluster.root.parquet import CHUNK_ROWS, seal_stream, seal_table
from idcluster.root.snapshot import WHOLE, Entry, Snapshot, companion_basis, publish
from idcluster.root.storage import Store
from pipeline.dag import load_dag
from pipeline.execution import intake
from pipeline.execution.compact import GROUP
from pipeline.execution.root_stages import basis_of
from pipeline.execution.snapshot_tables import SnapshotTables, is_chunked
from pipeline.prepared_dag import PreparedDag, prepare
from schemas import TABLES, identity_id, image_id
from stages.crawl.listing import Listed, Offer

SOURCE = "made"
VECTOR = 16
_LICENCES = ["CC0", "CC BY 4.0", "CC BY-SA 4.0", None]
HOSTS = 40
_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)


@dataclass(frozen=True)
class Size:
    """How large a dataset is: people, images offered, faces kept."""

    people: int
    candidates: int
    kept: int


SIZES = {
    "small": Size(40, 20_000, 3_100),
    "tenth": Size(2_304, 1_150_000, 180_000),
    "paper": Size(23_042, 11_500_000, 1_800_000),
}


def dag(root: Path, sets: Sequence[str] = ()) -> PreparedDag:
    """The quickstart DAG on a synthetic root."""
    file = Path(__file__).resolve().parents[2] / "dags" / "quickstart.yaml"
    return prepare(
        load_dag(file, [f"root={root}", f"source.path={root}", f"source.name={SOURCE}", *sets]),
        None,
        check_weights=False,
    )


def build(root: Path, size: Size, through: str = "caption", processes: int = 2) -> Snapshot:
    """Make a root of `size` whose stages are done up to `through`, with finished buckets compacted,
    and publish it.
    """
    prepared = dag(root)
    store = make_root(str(root), "synthetic")
    names = [stage.name for stage in prepared.stages]
    done = names[: names.index(through) + 1]
    tables = [stage.writes.name for stage in prepared.stages if stage.name in done]
    versions = {stage.writes.name: prepared.versions[stage.name] for stage in prepared.stages}
    jobs = [
        (str(root), size, number, people, tables, versions)
        for number, people in enumerate(_buckets(size))
    ]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        made = [entry for entries in pool.imap_unordered(_bucket, jobs) for entry in entries]
    snapshot = Snapshot().with_entries(made)
    return publish(
        store,
        _with_bases(store, snapshot, prepared, done).with_notes(versions=prepared.descriptions),
    )


def people(size: Size) -> list[Listed]:
    """What the source of a synthetic root lists."""
    return [
        Listed(
            name(person), [Offer(address(person, n), "f", licence=licence(n)) for n in range(count)]
        )
        for person, count in enumerate(_counts(size))
    ]


def name(person: int) -> str:
    return f"Person {person:07d}"


def address(person: int, number: int) -> str:
    return f"https://pictures{number % HOSTS}.example.org/{person:07d}/{number:05d}.jpg"


def licence(number: int) -> str | None:
    return _LICENCES[number % len(_LICENCES)]


def _counts(size: Size) -> list[int]:
    base, more = divmod(size.candidates, size.people)
    return [base + (person < more) for person in range(size.people)]


def _buckets(size: Size) -> Iterator[list[tuple[int, int]]]:
    """The people of each bucket and how many images they have: filled as intake does."""
    bucket: list[tuple[int, int]] = []
    filled = 0
    for person, count in enumerate(_counts(size)):
        if filled >= intake.BUCKET_ROWS:
            yield bucket
            bucket, filled = [], 0
        bucket.append((person, count))
        filled += count
    yield bucket


class _Quick(Store):
    """A store that does not wait for the disk."""

    def put(self, path: str, data: bytes, durable: bool = True) -> None:
        super().put(path, data, durable=False)


def _bucket(
    job: tuple[str, Size, int, list[tuple[int, int]], list[str], dict[str, str]],
) -> list[Entry]:
    """All files of one bucket."""
    root, size, bucket, members, tables, versions = job
    store = _Quick(root)
    random = np.random.default_rng(bucket)
    rows = _Rows(random, members, size.kept / size.candidates)
    full = sum(count for _, count in members) >= intake.BUCKET_ROWS
    entries = []
    for table in ("identities", "candidates", *tables):
        version = intake.VERSION if table in ("identities", "candidates") else versions[table]
        made, image = rows.table(table, bucket)
        if not is_chunked(table):
            entries.append(
                seal_table(store, TABLES[table], version, bucket, WHOLE, made).entry(
                    TABLES[table], version, bucket, WHOLE, "-"
                )
            )
            continue
        # Rows are in the order of their images, so a chunk is a stretch of them.
        ends = np.searchsorted(image, np.arange(0, rows.count + CHUNK_ROWS, CHUNK_ROWS))
        pieces = [made.slice(start, stop - start) for start, stop in pairwise(ends)]
        entries += _sealed(store, table, version, bucket, pieces, full, random)
    return entries


def _sealed(
    store: Store,
    table: str,
    version: str,
    bucket: int,
    pieces: list[pa.Table],
    full: bool,
    random: np.random.Generator,
) -> Iterator[Entry]:
    schema = TABLES[table]
    groups = [
        pa.concat_tables(pieces[start : start + GROUP]) for start in range(0, len(pieces), GROUP)
    ]
    if schema.blobs or not full:
        found = [
            seal_table(store, schema, version, bucket, chunk, piece).entry(
                schema, version, bucket, chunk, "-"
            )
            for chunk, piece in enumerate(pieces)
        ]
        yield from found
        if full:
            light = (group.select(schema.light) for group in groups if group.num_rows)
            made = seal_stream(store, schema.companion, version, bucket, WHOLE, light)
            basis = companion_basis((entry.version, entry.chunk, entry.digest) for entry in found)
            yield made.entry(schema.companion, version, bucket, WHOLE, basis)
        return
    whole = seal_stream(
        store, schema, version, bucket, WHOLE, (group for group in groups if group.num_rows)
    )
    offset = 0
    for chunk, piece in enumerate(pieces):
        rows, ok = piece.num_rows, pc.sum(pc.equal(piece["status"], "ok")).as_py() or 0
        where = (offset, whole.rows, whole.bytes) if rows else (0, 0, 0)
        size = whole.bytes * rows // whole.rows
        digest = random.bytes(16).hex()
        yield Entry(
            table,
            version,
            bucket,
            chunk,
            whole.path if rows else "",
            rows,
            size,
            digest,
            "-",
            True,
            True,
            ok,
            *where,
        )
        offset += rows


def _with_bases(
    store: Store, snapshot: Snapshot, prepared: PreparedDag, done: Sequence[str]
) -> Snapshot:
    """Every entry with the basis that makes it complete."""
    view = SnapshotTables(store, snapshot, prepared.versions)
    changed = []
    for stage in prepared.stages:
        if stage.name in done:
            for scope in (scope for bucket in view.buckets for scope in view.scopes(stage, bucket)):
                whole = stage.grain == "root"
                basis = (
                    basis_of(snapshot, stage, prepared.versions[stage.name])
                    if whole
                    else view.basis(stage, scope) or ""
                )
                entries = (
                    snapshot.shown_at(stage.writes.name, *at)
                    for at in view.parts_of(stage.writes.name, scope)
                )
                changed += [_based(entry, basis) for entry in entries if entry is not None]
    return snapshot.with_entries(changed)


def _based(entry: Entry, basis: str) -> Entry:
    values = {name: getattr(entry, name) for name in Entry.__slots__}
    return Entry(**{**values, "basis": basis})


def _text(characters: np.ndarray) -> pa.Array:
    """(n, width) ASCII codes as n strings."""
    count, width = characters.shape
    offsets = np.arange(0, (count + 1) * width, width, dtype=np.int32)
    return pa.StringArray.from_buffers(
        count, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(characters))
    )


class _Rows:
    """The rows of one bucket. Every image has one face or none, a share of the faces is kept."""

    def __init__(
        self, random: np.random.Generator, members: list[tuple[int, int]], kept: float
    ) -> None:
        self.random, self.members = random, members
        self.count = sum(count for _, count in members)
        self.ids = [identity_id(name(person)) for person, _ in members]
        counts = [count for _, count in members]
        self.person = np.repeat(np.arange(len(members)), counts)
        addresses = [
            address(person, number) for person, count in members for number in range(count)
        ]
        self.address = pa.array(addresses)
        self.image = pa.array(
            [
                image_id(self.ids[at], text)
                for at, text in zip(self.person.tolist(), addresses, strict=True)
            ]
        )
        chance = random.random(self.count)
        self.all = np.arange(self.count)
        self.fetched = np.flatnonzero(chance < 0.98)
        self.with_face = np.flatnonzero(chance < 0.9)
        self.kept = np.flatnonzero(chance < kept)
        self.face = self._hex(self.count, 24)
        # The faces that are kept are of people, so that views have something to join.
        self.keep = chance < kept

    def _hex(self, count: int, digits: int) -> pa.Array:
        return _text(_HEX[self.random.integers(0, 16, (count, digits), np.uint8)])

    def _floats(self, count: int, width: int) -> pa.Array:
        values = pa.array(self.random.random(count * width, np.float32))
        return pa.ListArray.from_arrays(
            pa.array(np.arange(0, (count + 1) * width, width, dtype=np.int32)), values
        )

    def _degrees(self, count: int) -> pa.Array:
        """Yaw, pitch and roll of so many heads."""
        values = pa.array(
            (self.random.standard_normal((count, 3)) * (25, 12, 8)).astype(np.float32).ravel()
        )
        return pa.ListArray.from_arrays(
            pa.array(np.arange(0, (count + 1) * 3, 3, dtype=np.int32)), values
        )

    def table(self, table: str, bucket: int) -> tuple[pa.Table, np.ndarray]:
        """The rows of a table and the number of the image of each."""
        schema = TABLES[table]
        of_people = table in ("identities", "people", "matches")
        image = (
            np.empty(0, np.int64)
            if of_people
            else {"candidates": self.all, "images": self.all, "faces": self.fetched}.get(
                table, self.with_face if table in ("embeddings", "clusters") else self.kept
            )
        )
        count = len(self.ids) if of_people else len(image)
        status = np.ones(count, bool)
        if table == "images":
            status = np.isin(image, self.fetched)
        if table == "faces":
            status = np.isin(image, self.with_face)
        if table == "clusters":
            status = self.keep[image]
        why = {"faces": "no_face", "clusters": "other_cluster"}.get(table, "http_404")
        columns: dict[str, Callable[[], Any]] = {
            "identity_id": lambda: (
                pa.array(self.ids)
                if of_people
                else pa.array(self.ids).take(pa.array(self.person[image]))
            ),
            "image_id": lambda: self.image.take(pa.array(image)),
            "face_id": lambda: self.face.take(pa.array(image)),
            "status": lambda: pc.if_else(
                pa.array(status), "ok", "failed" if table == "images" else "filtered"
            ),
            "reason": lambda: pc.if_else(pa.array(status), None, why),
            "inputs": lambda: pa.array([bytes(8)] * count, pa.binary(8)),
            "name": lambda: pa.array([name(person) for person, _ in self.members]),
            "aliases": lambda: pa.array([[]] * count, pa.list_(pa.string())),
            "external_ids": lambda: pa.array([[]] * count, pa.map_(pa.string(), pa.string())),
            "bucket": lambda: pa.array(np.full(count, bucket, np.int32)),
            "address": lambda: self.address,
            "licence": lambda: pa.array(
                [licence(number) for _, count in self.members for number in range(count)],
                pa.string(),
            ),
            "source": lambda: pa.array([SOURCE] * count),
            "fingerprint": lambda: pa.array(["f"] * count),
            "rank": lambda: pa.array((image % CHUNK_ROWS).astype(np.int32)),
            "sha256": lambda: pc.if_else(pa.array(status), self._hex(count, 64), None),
            "phash": lambda: pa.array(self.random.integers(0, 2**63, count).astype(np.uint64)),
            "format": lambda: pa.array(["jpeg"] * count),
            "width": lambda: pa.array(self.random.integers(200, 2000, count).astype(np.int32)),
            "height": lambda: pa.array(self.random.integers(200, 2000, count).astype(np.int32)),
            "size": lambda: pa.array(self.random.integers(20_000, 900_000, count)),
            "box": lambda: self._floats(count, 4),
            "landmarks": lambda: self._floats(count, 10),
            "landmark_scheme": lambda: pa.array(["dlib5"] * count),
            "vector": lambda: self._floats(count, VECTOR),
            "indicator": lambda: self._floats(count, VECTOR),
            "face": lambda: pa.array(np.zeros(count, np.int32)),
            "faces_in_image": lambda: pa.array(np.ones(count, np.int32)),
            "pose": lambda: self._degrees(count),
            "cluster": lambda: pa.array(np.where(self.keep[image], 0, 1).astype(np.int32)),
            "keep": lambda: pa.array(self.keep[image]),
            "same_as": lambda: pa.array(self.ids),
            "kin": lambda: pa.array(self.ids),
            "images": lambda: pa.array([pictures for _, pictures in self.members], pa.int32()),
            "faces": lambda: pa.array([pictures for _, pictures in self.members], pa.int32()),
            "caption": lambda: pa.array(
                ["A portrait photo of a person who looks at the camera"] * count
            ),
            "points": lambda: self._floats(count, VECTOR),
            "scheme": lambda: pa.array(["pose" if table == "heads" else "made"] * count),
            "classes": lambda: pa.array([["background", "face"]] * count, pa.list_(pa.string())),
        }
        columns |= {
            column: lambda: pa.array(self.random.random(count, np.float32))
            for column in ("score", "sharpness", "yaw", "norm", "similarity", "coverage")
        }
        columns["side"] = lambda: pa.array(
            (self.random.random(count, np.float32) + np.float32(0.2)) * np.float32(300)
        )
        made = {
            column.name: columns[column.name]()
            if column.name in columns
            else pa.nulls(count, column.type)
            for column in schema.columns
        }
        return schema.check(pa.table(made), table), image
