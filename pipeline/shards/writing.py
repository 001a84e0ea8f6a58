"""Shards of a snapshot: which there are to be, writing one, and making the set known.

A shard is named by its split, the first person in it and a hash of all that goes into it, and is
never rewritten. Where shards end depends only on the people around (`stages.shard.cut`), so a
changed person costs its shard and rarely a neighbour, and a set that did not change costs nothing.
"""

import hashlib
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from idcluster.root import parquet
from idcluster.root.snapshot import SHARD_TABLES as SHARD_TABLES
from idcluster.root.snapshot import WHOLE, Entry, Snapshot
from idcluster.root.storage import Store
from pipeline.dag import describe
from pipeline.shards.index import put_indexes
from pipeline.shards.sample_rows import BLOBS, OVERHEAD, SampleSelection
from pipeline.shards.scratch import ShardError, scratch
from pipeline.shards.split_lists import resolve
from pipeline.shards.tars import TAR_SHA256, read_tar, told_members
from schemas import TABLES, SchemaError
from schemas.samples import METADATA, SAMPLES, WITHHELD
from stages.shard.card import Contents, withheld_counts
from stages.shard.gps import VERSION as GPS_VERSION
from stages.shard.gps import strip_gps
from stages.shard.params import SOURCES, ShardParams
from stages.shard.splits import SPLITS, shortfalls
from stages.shard.webdataset import CODE_VERSION, Sample, late_of, metadata_json, write_tar

_WINDOW_BYTES = 64_000_000  # images that are in memory at a time while a tar is written
# What a job carries beside the metadata of its samples: where the bytes are, how many, and what the
# conditions follow from.
_WORK = ("size", "image_file", *(f"{table}_file" for table in BLOBS), "basis", "vector")


@dataclass(frozen=True)
class Shard:
    """One shard that is to be there. `name` is its path without `.tar` and `.parquet`; `bytes` is
    the planned size.
    """

    name: str
    split: str
    digest: str
    samples: int
    identities: int
    bytes: int


@dataclass(frozen=True)
class ShardPlan:
    """All shards of a profile in their order, and what is to be done for them.

    `jobs` are arguments of `write_shard`, one for every shard that is not there yet. `reused` are
    the entries of those that are. `withheld` are the rows of WITHHELD.
    """

    params: ShardParams
    version: str
    description: Mapping[str, Any]
    shards: tuple[Shard, ...]
    jobs: tuple[dict[str, Any], ...]
    reused: tuple[Entry, ...]
    withheld: pa.Table
    contents: Mapping[str, Any]
    """What the set holds, for its card."""

    def note(self) -> dict[str, Any]:
        """What a snapshot keeps of the set beside its files, under `index/<profile>`: enough to put
        its indexes again.
        """
        return {
            "version": self.version,
            "description": dict(self.description),
            "contents": dict(self.contents),
        }


def shard_version(params: ShardParams) -> tuple[str, dict[str, Any]]:
    """The version of the shard stage and its description, as `pipeline.dag.version_of` gives for
    the other stages.
    """
    return describe("shard", "webdataset", _code(params), SAMPLES.version, params, {})


def _code(params: ShardParams) -> int:
    """The version of what writes the bytes: of profiles without places also that of what takes
    these out.
    """
    return CODE_VERSION + (1000 * GPS_VERSION if params.strip_gps else 0)


def shard_basis(snapshot: Snapshot, params: Any) -> str:
    """What the shards of a profile follow from: every live file of every table, and the
    parameters.
    """
    digests = sorted(
        f"{e.table}/{e.digest}"
        for e in snapshot.entries
        if e.current and e.live and e.table in TABLES
    )
    return hashlib.blake2b(
        "\n".join([shard_version(params)[0], *digests]).encode(), digest_size=8
    ).hexdigest()


def plan_shards(
    store: Store, snapshot: Snapshot, params: ShardParams, write: bool = True
) -> ShardPlan:
    """The shards that show `snapshot`, and jobs for those that are not in it.

    A sample is a kept face whose image is there: at most one an image, and one where merged
    people list the same image twice (the face most similar to its person). What has no caption,
    mask, points or head has nulls there. With `write=False` (for a plan that is only shown) the
    files that jobs read are not put. Raises BadList and ShardError.
    """
    params, lists = resolve(store, params, write)
    version, description = shard_version(params)
    there = _entries_by_digest(snapshot, params)
    shards: list[Shard] = []
    jobs: list[dict[str, Any]] = []
    reused: list[Entry] = []
    contents = Contents()
    with SampleSelection(store, snapshot, params, lists) as selection:
        withheld = selection.withheld()
        for found in selection.shards():
            rows = found.rows
            digest = _digest(rows, params)
            first = f"{rows[0]['canonical_id']}-{found.part:03d}"
            name = f"shards/{params.profile}/{found.split}-{first}-{digest[:8]}"
            people = len({row["canonical_id"] for row in rows})
            shards.append(
                Shard(
                    name,
                    found.split,
                    digest,
                    len(rows),
                    people,
                    sum(row["size"] + OVERHEAD for row in rows),
                )
            )
            for row in rows:
                contents.add(row)
            known = there.get(digest, ())
            if {entry.file for entry in known} >= {f"{name}.tar", f"{name}.parquet"}:
                reused += known
                continue
            work = f"parts/shards/v={version}/{digest}.parquet"
            if write:
                store.put(work, _encode_work(rows), durable=False)
            job = {
                "name": name,
                "digest": digest,
                "version": version,
                "work": work,
                "samples": len(rows),
                "bytes": shards[-1].bytes,
            }
            jobs.append(
                {
                    **job,
                    "include": list(params.include),
                    "need": list(params.need),
                    "strip_gps": params.strip_gps,
                }
            )
        drawn = {
            "validation_share": selection.assigned.share,
            "moved_from_list": selection.assigned.moved,
        }
    order = {split: place for place, split in enumerate(SPLITS)}
    shards.sort(key=lambda shard: (order[shard.split], shard.name))
    about = {
        **contents.as_json(),
        **drawn,
        "withheld": withheld_counts(withheld["reason"].to_pylist()),
    }
    remarks = shortfalls(
        {split: counts["people"] for split, counts in contents.splits.items()}, params
    )
    if remarks:
        about["remarks"] = remarks
    return ShardPlan(
        params, version, description, tuple(shards), tuple(jobs), tuple(reused), withheld, about
    )


def write_shard(store: Store, job: Mapping[str, Any]) -> dict[str, Any]:
    """Write the tar and the sidecar of one job of a plan. Gives `{"entries": [...], "sha256": ...}`
    in JSON types, for `finish`.

    A shard that is there already, put by a run that did not come to its end, is taken as it is.
    Raises ShardError when an image is not what the snapshot says, DamagedFile when a table cannot
    be read.
    """
    name = job["name"].rsplit("/", 1)[-1]
    found = _adopt(store, job)
    if found is not None:
        return found
    work = pq.read_table(io.BytesIO(store.read(job["work"]))).to_pylist()
    with scratch(f"a shard of about {math.ceil(job['bytes'] / 1e6)} MB") as folder:
        local = folder / "shard.tar"
        with local.open("w+b") as file:
            rows = write_tar(_samples(store, job, work), f"{name}.tar", file, late_of(work))
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        size = local.stat().st_size
        # The sidecar comes last: where it is, the tar is whole.
        sidecar = parquet.encode(SAMPLES, rows, {TAR_SHA256: sha256})
        store.put_file(f"{job['name']}.tar", local)
    store.put(f"{job['name']}.parquet", sidecar)
    return _written(job, rows.num_rows, size, sha256, sidecar)


def _written(
    job: Mapping[str, Any], rows: int, size: int, sha256: str, sidecar: bytes
) -> dict[str, Any]:
    common = {
        "version": job["version"],
        "bucket": WHOLE,
        "chunk": _chunk(job["digest"]),
        "rows": rows,
    }
    common |= {"basis": job["digest"], "live": True, "current": True}
    return {
        "sha256": sha256,
        "entries": [
            {
                **common,
                "table": "shards",
                "file": f"{job['name']}.tar",
                "bytes": size,
                "digest": sha256[:32],
            },
            {
                **common,
                "table": "samples",
                "file": f"{job['name']}.parquet",
                "bytes": len(sidecar),
                "digest": hashlib.sha256(sidecar).hexdigest()[:32],
            },
        ],
    }


def _adopt(store: Store, job: Mapping[str, Any]) -> dict[str, Any] | None:
    """What `write_shard` gives for a shard that is there; None where it is not, or is not what its
    sidecar says in every member.
    """
    try:
        sidecar = store.read(f"{job['name']}.parquet")
        table = pq.read_table(io.BytesIO(sidecar), page_checksum_verification=True)
        rows = table.to_pylist()
        tar = read_tar(store, f"{job['name']}.tar")
        told = dict(place for row in rows for place in told_members(row))
        # Nobody knows the check sum of the sidecar yet: written anew it is the same, and the tar
        # says the same as it.
        same = parquet.encode(SAMPLES, table, {TAR_SHA256: tar.sha256}) == sidecar
        late = late_of(rows)
        said = {
            f"{row['key']}.json": hashlib.sha256(metadata_json(row, late)).hexdigest()
            for row in rows
        }
    except (FileNotFoundError, KeyError, TypeError, SchemaError, pa.ArrowException, OSError):
        return None
    whole = (
        same
        and not tar.faults
        and tar.is_ended
        and tar.members == told
        and len(rows) == job["samples"]
    )
    if (
        not whole
        or any(told[name][2] != sha256 for name, sha256 in said.items() if name in told)
        or not said.keys() <= told.keys()
    ):
        return None
    return _written(job, len(rows), tar.size, tar.sha256, sidecar)


def finish(
    store: Store, snapshot: Snapshot, results: Iterable[Mapping[str, Any]], plan: ShardPlan
) -> list[Entry]:
    """Put the index files of the set and give what to pass to `snapshot.with_entries`.

    `results` are what `write_shard` gave for every job. Shards of the profile that are in no plan
    any more stop being current; they stay known, so that going back finds them. Raises ShardError
    when a job's result is missing.
    """
    fresh, hashes = [], {}
    for result in results:
        fresh += [Entry(**entry) for entry in result["entries"]]
        hashes[result["entries"][0]["file"].rpartition("/")[2]] = result["sha256"]
    wanted = {e.file: replace(e, current=True, live=True) for e in (*plan.reused, *fresh)}
    missing = [
        s.name for s in plan.shards if not {f"{s.name}.tar", f"{s.name}.parquet"} <= wanted.keys()
    ]
    if missing:
        raise ShardError(
            f"{len(missing)} of {len(plan.shards)} shards were not written, {missing[0]} first; "
            "run again to go on"
        )
    if plan.withheld.num_rows:
        entry = _put_withheld(store, plan)
        wanted[entry.file] = entry
    retired = [
        replace(e, current=False)
        for e in _entries(snapshot, plan.params)
        if e.current and e.file not in wanted
    ]
    tars = [(wanted[f"{shard.name}.tar"], shard.identities) for shard in plan.shards]
    put_indexes(store, snapshot, plan.params.profile, plan.note(), tars, hashes)
    store.delete(job["work"] for job in plan.jobs)
    return [*wanted.values(), *retired]


def _put_withheld(store: Store, plan: ShardPlan) -> Entry:
    data = parquet.encode(WITHHELD, plan.withheld)
    digest = hashlib.sha256(data).hexdigest()[:32]
    # One for each profile: a scope of its own, so that it replaces the one before and no other.
    chunk = _chunk(hashlib.sha256(f"withheld {plan.params.profile} {digest}".encode()).hexdigest())
    path = f"shards/{plan.params.profile}/withheld-{digest[:8]}.parquet"
    parquet.put_missing(store, path, data, digest)
    return Entry(
        table="withheld",
        version=plan.version,
        bucket=WHOLE,
        chunk=chunk,
        file=path,
        rows=plan.withheld.num_rows,
        bytes=len(data),
        digest=digest,
        basis=digest,
        live=True,
        current=True,
    )


def _digest(rows: Iterable[Mapping[str, Any]], params: ShardParams) -> str:
    """32 hex digits over everything that the bytes of a shard and its sidecar follow from."""
    head = {
        "code": _code(params),
        "schema": SAMPLES.version,
        "profile": params.profile,
        "include": list(params.include),
    }
    if params.strip_gps:
        head["strip_gps"] = True
    hasher = hashlib.blake2b(json.dumps(head, sort_keys=True).encode(), digest_size=16)
    for row in rows:
        hasher.update(metadata_json(row))
        hasher.update(f"\n{row['basis']}\n".encode())
    return hasher.hexdigest()


def _encode_work(rows: Sequence[Mapping[str, Any]]) -> bytes:
    types = {"size": pa.int64(), "vector": pa.list_(pa.float32())}
    own = [pa.field(name, types.get(name, pa.string())) for name in _WORK]
    schema = pa.schema([SAMPLES.arrow.field(name) for name in METADATA] + own)
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), sink, compression="zstd")
    return sink.getvalue()


# Reading what goes into a sample


def _samples(
    store: Store, job: Mapping[str, Any], work: Sequence[Mapping[str, Any]]
) -> Iterator[Sample]:
    endings = ShardParams.model_construct(include=tuple(job["include"])).members
    for window in _windows(work):
        pictures = _blobs(store, "images", "image_id", ["bytes"], window, "image_file")
        found = {
            table: _blobs(store, table, "face_id", columns, window, f"{table}_file")
            for table, columns in _columns(job).items()
        }
        for row in window:
            picture = pictures.get(row["image_id"], {}).get("bytes")
            if picture is None or hashlib.sha256(picture).hexdigest() != row["sha256"]:
                raise ShardError(
                    f"{store.uri(row['image_file'])}: the bytes of image {row['image_id']} "
                    + (
                        "are not there"
                        if picture is None
                        else f"do not have the SHA-256 {row['sha256'][:16]}... of their row"
                    )
                    + "; go back to an older snapshot, or delete the file and run again"
                )
            members = {}
            for condition, ending in endings.items():
                table, column = SOURCES[condition]
                data = (
                    _npy(row["vector"])
                    if condition == "arcface"
                    else found[table].get(row["face_id"], {}).get(column)
                )
                if data is not None:
                    members[ending] = data
                elif condition in job["need"]:
                    said = f"face {row['face_id']} has no {column} in {table}, though its row is ok"
                    raise ShardError(f"{said}; take {condition} out of `need`")
            metadata = {name: row[name] for name in METADATA}
            yield Sample(
                metadata,
                strip_gps(picture, row["format"]) if job["strip_gps"] else picture,
                members,
            )


def _columns(job: Mapping[str, Any]) -> dict[str, list[str]]:
    """Table to the columns that are read of it for the conditions of a job."""
    found: dict[str, list[str]] = {}
    for table, column in (SOURCES[name] for name in job["include"] if name != "arcface"):
        found.setdefault(table, []).append(column)
    return found


def _npy(vector: Sequence[float] | None) -> bytes | None:
    if vector is None:
        return None
    sink = io.BytesIO()
    np.lib.format.write_array(
        sink, np.asarray(vector, np.float32), version=(1, 0), allow_pickle=False
    )
    return sink.getvalue()


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
    store: Store,
    table: str,
    key: str,
    blobs: Sequence[str],
    window: Iterable[Mapping[str, Any]],
    file_column: str,
) -> dict[str, dict[str, bytes]]:
    """The bytes of blob columns by key; of each file only the row groups that hold wanted rows are
    read.
    """
    wanted: dict[str, list[str]] = {}
    for row in window:
        if row[file_column]:
            wanted.setdefault(row[file_column], []).append(row[key])
    found: dict[str, dict[str, bytes]] = {}
    for path, keys in wanted.items():
        for values in parquet.read(
            store, TABLES[table], path, [key, *blobs], (key, keys)
        ).to_pylist():
            found[values[key]] = {name: values[name] for name in blobs if values[name] is not None}
    return found


def _entries(snapshot: Snapshot, params: ShardParams) -> list[Entry]:
    folder = f"shards/{params.profile}/"
    return [e for e in snapshot.entries if e.table in SHARD_TABLES and e.file.startswith(folder)]


def _entries_by_digest(snapshot: Snapshot, params: ShardParams) -> dict[str, tuple[Entry, ...]]:
    found: dict[str, tuple[Entry, ...]] = {}
    for entry in _entries(snapshot, params):
        found[entry.basis] = (*found.get(entry.basis, ()), entry)
    return found


def _chunk(digest: str) -> int:
    """A scope of its own for every shard, so that entries of one never replace those of another."""
    return int(digest[:15], 16)
