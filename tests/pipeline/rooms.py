"""Running the toy DAG in this process, and comparing what two roots show."""

import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from pipeline.catalogue import connect
from pipeline.engine import Inline
from pipeline.run import Record, Run, Selection, open_root, prepare
from pipeline.storage import Store
from schemas import TABLES
from tests.pipeline.toy import toy_dag


def run_toy(
    folder: Path, source: Path, root: Path, sets: Sequence[str] = (), selection: Selection | None = None, store: Store | None = None
) -> Record:
    """One run of the toy DAG without a cluster."""
    prepared = prepare(toy_dag(folder, source, root, sets), None)
    place = store or open_root(str(root), "toy", create=True)
    place.exists("dataset.json")
    run = Run(prepared, selection or Selection(), place, Console(file=io.StringIO()), lambda spec: Inline(lambda: spec.build(place)))
    return run.execute()


def shown(root: Path) -> dict[str, Any]:
    """What the views and the shards of a root show: rows by table, and the hash of every index and of every file of a shard."""
    connection = connect(str(root))
    rows: dict[str, Any] = {}
    for name, schema in TABLES.items():
        if "status" in schema.names:
            volatile = {"decided_at", "fetched_at", "removed_at"}
            columns = ", ".join(f'"{c}"' for c in schema.names if c not in volatile)
            rows[name] = connection.execute(f"SELECT {columns} FROM {name} ORDER BY ALL").fetchall()
    connection.close()
    indexes = sorted((root / "shards").rglob("*.json"))
    named = [index.with_name(shard["url"]) for index in indexes for shard in json.loads(index.read_bytes())["shardlist"]]
    files = [*indexes, *named, *(path.with_suffix(".parquet") for path in named)]
    rows["shards"] = {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    return rows


def computed(record: Record) -> dict[str, int]:
    """Units that a run computed, by stage, leaving out stages with none."""
    return {name: stage["units"] for name, stage in record.stages.items() if stage["units"]}
