"""Running the toy DAG in this process, and comparing what two roots show."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from idcluster.catalogue.connection import connect
from idcluster.root.lease import path_of, standing
from idcluster.root.storage import Store
from pipeline.prepared_dag import Selection
from pipeline.record import Record
from schemas import TABLES
from tests.pipeline.in_process import run_here
from tests.pipeline.toy import toy_dag


@contextmanager
def small_buckets() -> Iterator[None]:
    """Two people fill a bucket and four images a chunk, so that finished buckets are
    compacted.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.execution.intake.BUCKET_ROWS", 22)
        patch.setattr("pipeline.execution.intake.CHUNK_ROWS", 4)
        yield


def run_toy(
    folder: Path,
    source: Path,
    root: Path | str,
    sets: Sequence[str] = (),
    selection: Selection | None = None,
    store: Store | None = None,
) -> Record:
    """One run of the toy DAG without a cluster."""
    place = store or Store(root)
    chosen = selection or Selection()
    return run_here(
        toy_dag(folder, source, root, sets),
        only=chosen.only,
        limit=chosen.limit,
        where=chosen.where,
        retry=chosen.retry,
        store=place,
    )


def bury(root: Path | str) -> None:
    """Let the process that holds the lease of a root be dead: it is this one, and alive."""
    store = Store(root)
    number, data = standing(store)
    if data:
        store.put(path_of(number), json.dumps({**json.loads(data), "started": -1}).encode())


def shown(root: Path | str) -> dict[str, Any]:
    """What the views and the shards of a root show: rows by table, and the hash of every index and
    of every file of a shard.
    """
    connection = connect(str(root))
    rows: dict[str, Any] = {}
    for name, schema in TABLES.items():
        if "status" in schema.names:
            volatile = {"decided_at", "fetched_at", "removed_at"}
            columns = ", ".join(f'"{c}"' for c in schema.names if c not in volatile)
            rows[name] = connection.execute(f"SELECT {columns} FROM {name} ORDER BY ALL").fetchall()
    connection.close()
    store = Store(root)
    # The feed of removals says what once was there.
    indexes = [
        path
        for path in store.list("shards")
        if path.endswith(".json") and not path.endswith("/removals.json")
    ]
    listed = {index: json.loads(store.read(index)).get("shardlist", ()) for index in indexes}
    named = [
        f"{index.rsplit('/', 1)[0]}/{shard['url']}"
        for index, shards in listed.items()
        for shard in shards
    ]
    files = {*indexes, *named, *(path.removesuffix(".tar") + ".parquet" for path in named)}
    rows["shards"] = {path: hashlib.sha256(store.read(path)).hexdigest() for path in sorted(files)}
    return rows


def computed(record: Record) -> dict[str, int]:
    """Units that a run computed, by stage, leaving out stages with none, and `match`, which looks
    at everybody each time.
    """
    return {
        name: stage["units"]
        for name, stage in record.stages.items()
        if stage["units"] and name != "match"
    }
