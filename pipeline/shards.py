"""Shards of a snapshot: which there are to be, writing one, and making the set known.

A shard is named by its split, the first person in it and a hash of all that goes into it, and is never rewritten. Where
shards end depends only on the people around (`stages.shard.webdataset.cut`), so a changed person costs its shard and
rarely a neighbour, and a set that did not change costs nothing.
"""

import hashlib
import io
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import files
from pipeline.catalogue import connect
from pipeline.dag import describe
from pipeline.snapshot import WHOLE, Entry, Snapshot
from pipeline.storage import Store
from schemas import TABLES
from stages.shard.webdataset import (
    CODE_VERSION,
    METADATA,
    SAMPLES,
    SPLITS,
    Sample,
    ShardParams,
    cut,
    metadata_json,
    parts,
    sample_key,
    split_of,
    write_tar,
)

_OVERHEAD = 4096  # bytes a sample, about: tar headers, padding and the .json member
_RANGE_SAMPLES = 100_000  # samples whose metadata is in memory at a time
_WINDOW_BYTES = 64_000_000  # pictures that are in memory at a time while a tar is written
# What a job carries beside the metadata of its samples: where the bytes are, how many, and what the mask follows from.
_WORK = ("size", "image_file", "mask_file", "mask_basis")


class ShardError(RuntimeError):
    """A shard cannot be written as planned; the message names the picture or file."""


@dataclass(frozen=True)
class Shard:
    """One shard that is to be there. `name` is its path without `.tar` and `.parquet`; `bytes` is the planned size."""

    name: str
    split: str
    digest: str
    samples: int
    identities: int
    bytes: int


@dataclass(frozen=True)
class ShardPlan:
    """All shards of a profile in their order, and what is to be done for them.

    `jobs` are arguments of `write_shard`, one for every shard that is not there yet. `reused` are the entries of those
    that are.
    """

    params: ShardParams
    version: str
    description: Mapping[str, Any]
    shards: tuple[Shard, ...]
    jobs: tuple[dict[str, Any], ...]
    reused: tuple[Entry, ...]


def shard_version(params: ShardParams) -> tuple[str, dict[str, Any]]:
    """The version of the shard stage and its description, as `pipeline.dag.version_of` gives for the other stages."""
    return describe("shard", "webdataset", CODE_VERSION, SAMPLES.version, params, {})


def plan_shards(store: Store, snapshot: Snapshot, params: ShardParams, write: bool = True) -> ShardPlan:
    """The shards that show `snapshot`, and jobs for those that are not in it.

    A sample is a kept face whose picture is there: at most one a picture, and one where merged people list the same
    picture twice (the face most similar to its person). What has no caption, mask, points or head has nulls there.
    With `write=False` (for a plan that is only shown) the files that jobs read are not put.
    """
    version, description = shard_version(params)
    there = _entries_by_digest(snapshot, params)
    shards: list[Shard] = []
    jobs: list[dict[str, Any]] = []
    reused: list[Entry] = []
    connection = connect(store, snapshot)
    try:
        for split, part, rows in _shard_rows(connection, snapshot, params):
            digest = _digest(rows, params)
            name = f"shards/{params.profile}/{split}-{rows[0]['canonical_id']}-{part:03d}-{digest[:8]}"
            people = len({row["canonical_id"] for row in rows})
            shards.append(Shard(name, split, digest, len(rows), people, sum(row["size"] + _OVERHEAD for row in rows)))
            known = there.get(digest, ())
            if {entry.file for entry in known} >= {f"{name}.tar", f"{name}.parquet"}:
                reused += known
                continue
            work = f"parts/shards/v={version}/{digest}.parquet"
            if write:
                store.put(work, _encode_work(rows), durable=False)
            jobs.append({"name": name, "digest": digest, "version": version, "work": work, "samples": len(rows), "bytes": shards[-1].bytes})
    finally:
        connection.close()
    order = {split: place for place, split in enumerate(SPLITS)}
    shards.sort(key=lambda shard: (order[shard.split], shard.name))
    return ShardPlan(params, version, description, tuple(shards), tuple(jobs), tuple(reused))


def write_shard(store: Store, job: Mapping[str, Any]) -> dict[str, Any]:
    """Write the tar and the sidecar of one job of a plan. Gives `{"entries": [...]}`, both in JSON types, for `finish`.

    Raises ShardError when a picture is not what the snapshot says, DamagedFile when a table cannot be read.
    """
    name = job["name"].rsplit("/", 1)[-1]
    work = pq.read_table(io.BytesIO(store.read(job["work"]))).to_pylist()
    with tempfile.TemporaryDirectory(prefix="idcluster-") as folder:
        local = Path(folder) / "shard.tar"
        with local.open("w+b") as file:
            rows = write_tar(_samples(store, work), f"{name}.tar", file)
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()[:32]
        size = local.stat().st_size
        store.put_file(f"{job['name']}.tar", local)
    sidecar = files.encode(SAMPLES, rows)
    store.put(f"{job['name']}.parquet", sidecar)
    common = {"version": job["version"], "bucket": WHOLE, "chunk": _chunk(job["digest"]), "rows": rows.num_rows}
    common |= {"basis": job["digest"], "live": True, "current": True}
    return {
        "entries": [
            {**common, "table": "shards", "file": f"{job['name']}.tar", "bytes": size, "digest": digest},
            {
                **common, "table": "samples", "file": f"{job['name']}.parquet", "bytes": len(sidecar),
                "digest": hashlib.sha256(sidecar).hexdigest()[:32],
            },
        ]
    }  # fmt: skip


def finish(store: Store, snapshot: Snapshot, results: Iterable[Mapping[str, Any]], plan: ShardPlan) -> list[Entry]:
    """Put the index files of the set and give what to pass to `snapshot.with_entries`.

    `results` are what `write_shard` gave for every job. Shards of the profile that are in no plan any more stop being
    current; they stay known, so that going back finds them. Raises ShardError when a job's result is missing.
    """
    fresh = [Entry(**entry) for result in results for entry in result["entries"]]
    wanted = {e.file: replace(e, current=True, live=True) for e in (*plan.reused, *fresh)}
    missing = [s.name for s in plan.shards if not {f"{s.name}.tar", f"{s.name}.parquet"} <= wanted.keys()]
    if missing:
        raise ShardError(f"{len(missing)} of {len(plan.shards)} shards were not written, {missing[0]} first; run again to go on")
    retired = [replace(e, current=False) for e in _entries(snapshot, plan.params) if e.current and e.file not in wanted]
    _put_indexes(store, plan, wanted)
    store.delete(job["work"] for job in plan.jobs)
    return [*wanted.values(), *retired]


# What is in the shards


_PICKED = """
CREATE TEMP VIEW picked AS
SELECT coalesce(m.same_as, c.identity_id) AS canonical_id, c.identity_id, c.image_id, c.face_id, c.similarity,
    i.sha256, i.size
FROM clusters c
JOIN faces f ON f.face_id = c.face_id AND f.status = 'ok'
JOIN images i ON i.image_id = c.image_id AND i.status = 'ok'
LEFT JOIN matches m ON m.identity_id = c.identity_id
WHERE c.keep AND c.status = 'ok' AND coalesce(m.status, 'ok') = 'ok'
    AND NOT coalesce(list_contains(m.dropped_faces, c.face_id), false)
QUALIFY row_number() OVER (PARTITION BY c.image_id ORDER BY c.similarity DESC NULLS LAST, c.face_id) = 1
"""
_UNIQUE = """
CREATE TEMP TABLE chosen AS SELECT * FROM picked
QUALIFY row_number() OVER (PARTITION BY canonical_id, sha256 ORDER BY similarity DESC NULLS LAST, image_id) = 1
"""
_PEOPLE = "SELECT canonical_id, count(*), sum(size + ?)::BIGINT FROM chosen GROUP BY canonical_id ORDER BY canonical_id"
_ROWS = """
SELECT s.canonical_id, s.identity_id, s.image_id, s.face_id, s.similarity, s.sha256, s.size,
    n.name, d.address, d.page, d.source, d.licence, d.author, i.format, i.width, i.height, i.orientation,
    f.box, f.landmarks, f.landmark_scheme, f.score, f.side, f.sharpness, f.yaw, f.faces_in_image, f.subject,
    t.caption, t.prompt_id, t.model AS caption_model, l.scheme AS points_scheme, l.points,
    h.scheme AS head_scheme, h.shape AS head_shape, h.expression AS head_expression, h.pose AS head_pose,
    h.camera AS head_camera, h.light AS head_light, h.texture AS head_texture,
    m."window" AS mask_window, m.classes AS mask_classes, m.coverage AS mask_coverage,
    g.filename AS image_file, m.filename AS mask_file, lower(hex(m.inputs)) AS mask_basis
FROM chosen s
JOIN faces f ON f.face_id = s.face_id
JOIN images i ON i.image_id = s.image_id
JOIN image_files g ON g.image_id = s.image_id
LEFT JOIN identities n ON n.identity_id = s.identity_id
LEFT JOIN candidates d ON d.image_id = s.image_id
LEFT JOIN captions t ON t.face_id = s.face_id AND t.status = 'ok'
LEFT JOIN landmarks l ON l.face_id = s.face_id AND l.status = 'ok'
LEFT JOIN heads h ON h.face_id = s.face_id AND h.status = 'ok'
LEFT JOIN mask_files m ON m.face_id = s.face_id AND m.status = 'ok'
WHERE s.canonical_id BETWEEN ? AND ?
ORDER BY s.canonical_id, s.image_id
"""


def _shard_rows(
    connection: duckdb.DuckDBPyConnection, snapshot: Snapshot, params: ShardParams
) -> Iterator[tuple[str, int, list[dict[str, Any]]]]:
    """Split, number of the part and the rows of every shard: split by split the shards come in order."""
    connection.execute(_PICKED)
    connection.execute(_UNIQUE)
    mask_versions = {e.file: e.version for e in snapshot.shown("masks")} if "mask" in params.include else {}
    _create_with_names(connection, "image_files", "images", [e.file for e in snapshot.shown("images")])
    _create_with_names(connection, "mask_files", "masks", mask_versions)
    people = connection.execute(_PEOPLE, [_OVERHEAD]).fetchall()
    shard_of: dict[str, tuple[str, int]] = {}
    for split in SPLITS:
        within = [(person, size) for person, _, size in people if split_of(person, params.validation) == split]
        for number, shard in enumerate(cut(within, params.target)):
            shard_of.update((within[index][0], (split, number)) for index in shard)
    open_rows: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    open_number: dict[str, int] = {}
    for first, last in _ranges(people):
        for person, rows in groupby(_rows(connection, first, last, params, mask_versions), key=lambda row: str(row["canonical_id"])):
            split, number = shard_of[person]
            if open_number.get(split, number) != number:
                yield from _numbered(split, open_rows[split], params)
                open_rows[split] = []
            open_number[split] = number
            open_rows[split] += rows
    for split in SPLITS:
        yield from _numbered(split, open_rows[split], params)


def _create_with_names(connection: duckdb.DuckDBPyConnection, view: str, table: str, paths: Iterable[str]) -> None:
    """A view of some files of a table with the column `filename`: the table's own view does not say where a row lies."""
    quoted = ", ".join("'dataset:///" + path.replace("'", "''") + "'" for path in paths if path)
    if quoted:
        source = f"FROM read_parquet([{quoted}], filename = true, hive_partitioning = false)"
    else:
        source = f"SELECT *, NULL::VARCHAR AS filename FROM {table} WHERE false"  # noqa: S608 - the caller's constant
    connection.execute(f"CREATE TEMP VIEW {view} AS {source}")


def _ranges(people: Sequence[tuple[str, int, int]]) -> Iterator[tuple[str, str]]:
    """First and last person of stretches whose metadata fits into memory."""
    first, samples = None, 0
    for person, count, _ in people:
        first = person if first is None else first
        samples += count
        if samples >= _RANGE_SAMPLES:
            yield first, person
            first, samples = None, 0
    if first is not None:
        yield first, people[-1][0]


def _rows(
    connection: duckdb.DuckDBPyConnection, first: str, last: str, params: ShardParams, mask_versions: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    reader: Any = connection.sql(_ROWS, params=[first, last]).to_arrow_reader(10_000)
    for batch in reader:
        for row in batch.to_pylist():
            row["key"] = sample_key(row["identity_id"], row["image_id"])
            row["split"] = split_of(row["canonical_id"], params.validation)
            for name in ("image_file", "mask_file"):
                row[name] = row[name] and row[name].removeprefix("dataset:///")
            if row["mask_file"]:
                row["mask_basis"] = f"{mask_versions[row['mask_file']]}:{row['mask_basis']}"
            yield row


def _numbered(split: str, rows: list[dict[str, Any]], params: ShardParams) -> Iterator[tuple[str, int, list[dict[str, Any]]]]:
    """One shard, or the parts of a person who is larger than a shard may be."""
    sizes = [row["size"] + _OVERHEAD for row in rows]
    alone = bool(rows) and rows[0]["canonical_id"] == rows[-1]["canonical_id"]
    if alone and sum(sizes) > 2 * params.target:
        for number, part in enumerate(parts(sizes, params.target)):
            yield split, number, rows[part.start : part.stop]
    elif rows:
        yield split, 0, rows


def _digest(rows: Iterable[Mapping[str, Any]], params: ShardParams) -> str:
    """32 hex digits over everything that the bytes of a shard and its sidecar follow from."""
    head = {"code": CODE_VERSION, "schema": SAMPLES.version, "profile": params.profile, "include": list(params.include)}
    hasher = hashlib.blake2b(json.dumps(head, sort_keys=True).encode(), digest_size=16)
    for row in rows:
        hasher.update(metadata_json(row))
        hasher.update(f"\n{row['mask_basis']}\n".encode())
    return hasher.hexdigest()


def _encode_work(rows: Sequence[Mapping[str, Any]]) -> bytes:
    schema = pa.schema(
        [SAMPLES.arrow.field(name) for name in METADATA] + [pa.field("size", pa.int64())] + [pa.field(n, pa.string()) for n in _WORK[1:]]
    )
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), sink, compression="zstd")
    return sink.getvalue()


# Reading pictures


def _samples(store: Store, work: Sequence[Mapping[str, Any]]) -> Iterator[Sample]:
    for window in _windows(work):
        pictures = _blobs(store, "images", "image_id", "bytes", window, "image_file")
        masks = _blobs(store, "masks", "face_id", "mask", window, "mask_file")
        for row in window:
            picture = pictures.get(row["image_id"])
            if picture is None or hashlib.sha256(picture).hexdigest() != row["sha256"]:
                raise ShardError(
                    f"{store.uri(row['image_file'])}: the bytes of image {row['image_id']} "
                    + ("are not there" if picture is None else f"do not have the SHA-256 {row['sha256'][:16]}... of their row")
                    + "; go back to an older snapshot, or delete the file and run again"
                )
            yield Sample({name: row[name] for name in METADATA}, picture, masks.get(row["face_id"]))


def _windows(work: Sequence[Mapping[str, Any]]) -> Iterator[Sequence[Mapping[str, Any]]]:
    begin, total = 0, 0
    for index, row in enumerate(work):
        if index > begin and total + row["size"] > _WINDOW_BYTES:
            yield work[begin:index]
            begin, total = index, 0
        total += row["size"]
    if work:
        yield work[begin:]


def _blobs(
    store: Store, table: str, key: str, blob: str, window: Iterable[Mapping[str, Any]], file_column: str
) -> dict[str, bytes]:
    """The bytes of one blob column by key; of each file only the row groups that hold wanted rows are read."""
    wanted: dict[str, list[str]] = {}
    for row in window:
        if row[file_column]:
            wanted.setdefault(row[file_column], []).append(row[key])
    found: dict[str, bytes] = {}
    for path, keys in wanted.items():
        rows = files.read(store, TABLES[table], path, [key, blob], (key, keys))
        pairs = zip(rows[key].to_pylist(), rows[blob].to_pylist(), strict=True)
        found |= {name: value for name, value in pairs if value is not None}
    return found


# Making the set known


def _put_indexes(store: Store, plan: ShardPlan, wanted: Mapping[str, Entry]) -> None:
    profile = plan.params.profile
    listed = [_listed(wanted[f"{shard.name}.tar"], shard.identities) for shard in plan.shards]
    for path, data in _indexes(profile, plan.version, plan.description, listed).items():
        store.put(path, data)


def _listed(tar: Entry, identities: int) -> dict[str, Any]:
    url = tar.file.rsplit("/", 1)[-1]
    return {
        "url": url, "nsamples": tar.rows, "filesize": tar.bytes, "split": url.split("-")[0], "identities": identities, "digest": tar.digest
    }  # fmt: skip


def _indexes(profile: str, version: str, description: Mapping[str, Any], listed: Sequence[Mapping[str, Any]]) -> dict[str, bytes]:
    """One index a split, then `index.json` over all: the format of wids (version 1), with our counts beside it."""
    made = {}
    for split in (*SPLITS, None):
        shown = [item for item in listed if split in (None, item["split"])]
        # A person in numbered parts is counted with the first.
        people = {(item["split"], item["url"].split("-")[-3]): item["identities"] for item in shown}
        index = {
            "wids_version": 1,
            "name": f"{profile}-{split}" if split else profile,
            "shardlist": shown,
            "samples": sum(item["nsamples"] for item in shown),
            "identities": sum(people.values()),
            "bytes": sum(item["filesize"] for item in shown),
            "version": version,
            "description": dict(description),
        }
        data = json.dumps(index, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        made[f"shards/{profile}/{split or 'index'}.json"] = data.encode()
    return made


def reindex(store: Store, snapshot: Snapshot) -> list[str]:
    """Put the index files of every profile whose indexes do not list the shards that `snapshot` shows; their names.

    For what publishes a snapshot without planning shards: going back, and tidying up after a run that broke off.
    """
    tars: dict[str, list[Entry]] = {path.split("/")[1]: [] for path in store.list("shards") if path.endswith(".json")}
    for entry in snapshot.shown("shards"):
        tars.setdefault(entry.file.split("/")[1], []).append(entry)
    order = {split: place for place, split in enumerate(SPLITS)}
    renewed = []
    for profile, entries in sorted(tars.items()):
        # As `plan_shards` orders them: names without their ending.
        entries.sort(key=lambda e: (order[_listed(e, 0)["split"]], e.file.removesuffix(".tar")))
        found = {path: _read_index(store, path) for path in _indexes(profile, "", {}, [])}
        about = snapshot.notes.get(f"index/{profile}") or found[f"shards/{profile}/index.json"]
        version, description = about.get("version", ""), about.get("description", {})
        expected = _indexes(profile, version, description, [_listed(e, 0) for e in entries])
        if all(_digests(json.loads(data)) == _digests(found[path]) for path, data in expected.items()):
            continue
        listed = []
        for entry in entries:
            people = files.read(store, SAMPLES, entry.file.removesuffix(".tar") + ".parquet", ["canonical_id"])["canonical_id"]
            listed.append(_listed(entry, len(people.unique())))
        for path, data in _indexes(profile, version, description, listed).items():
            store.put(path, data)
        renewed.append(profile)
    return renewed


def _read_index(store: Store, path: str) -> Mapping[str, Any]:
    try:
        found = json.loads(store.read(path))
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _digests(index: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    """What tells one list of shards from another."""
    return [(item.get("url"), item.get("digest")) for item in index.get("shardlist", ())]


def _entries(snapshot: Snapshot, params: ShardParams) -> list[Entry]:
    folder = f"shards/{params.profile}/"
    return [e for e in snapshot.entries if e.table in ("shards", "samples") and e.file.startswith(folder)]


def _entries_by_digest(snapshot: Snapshot, params: ShardParams) -> dict[str, tuple[Entry, ...]]:
    found: dict[str, tuple[Entry, ...]] = {}
    for entry in _entries(snapshot, params):
        found[entry.basis] = (*found.get(entry.basis, ()), entry)
    return found


def _chunk(digest: str) -> int:
    """A scope of its own for every shard, so that entries of one never replace those of another."""
    return int(digest[:15], 16)
