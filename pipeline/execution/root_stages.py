"""Stages that look at the whole dataset at once: whether they have to run, and where their rows go.

Their rows lie bucket by bucket like all others. What they follow from is everything that their
tables show, so one hash says whether anything changed; a bucket whose rows are the same as before
keeps its file.
"""

import hashlib
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from idcluster.root.parquet import read_entries, seal_table
from idcluster.root.snapshot import WHOLE, Entry, Snapshot
from idcluster.root.storage import Store
from pipeline.execution.reconcile import row_digests
from schemas import TABLES
from stages.stage import Stage


def basis_of(snapshot: Snapshot, stage: Stage, version: str) -> str:
    """The hash of all that the rows of a stage follow from."""
    hasher = hashlib.blake2b(version.encode(), digest_size=8)
    for table in stage.reads:
        for entry in snapshot.shown(table):
            hasher.update(f"{table} {entry.bucket} {entry.chunk} {entry.digest};".encode())
    return hasher.hexdigest()


def starved(snapshot: Snapshot, stage: Stage) -> bool:
    """Whether a table that the stage cannot do without has no rows at all."""
    return any(not snapshot.shown(table) for table in stage.reads if table not in stage.optional)


def complete(snapshot: Snapshot, stage: Stage, version: str) -> bool:
    """Whether what the stage's table shows is all that is wanted."""
    shown = snapshot.shown(stage.writes.name)
    basis = basis_of(snapshot, stage, version)
    return bool(shown) and all(entry.version == version and entry.basis == basis for entry in shown)


def run_whole(store: Store, snapshot: Snapshot, stage: Stage, version: str) -> list[Entry]:
    """Run the stage; the entries for the snapshot. Raises what the stage raises: there are no
    neighbours to be kept.
    """
    written = stage.run_whole(_tables(store, snapshot, stage))
    # Every row follows from everything. A hash of that would change all rows whenever anything
    # does, so `inputs` is one of the row itself: the same rows are the same file, whatever came
    # before.
    digests = pa.array(row_digests(written, written.column_names), pa.binary(8))
    rows = written.append_column("inputs", digests).select(stage.writes.names)
    rows = stage.writes.check(rows, f"rows of {stage.name} ({stage.backend})")
    basis = basis_of(snapshot, stage, version)
    people = read_entries(
        store, "identities", snapshot.shown("identities"), ["identity_id", "bucket"]
    )
    bucket = people["bucket"].take(
        pc.index_in(rows["identity_id"], value_set=people["identity_id"].combine_chunks())
    )
    entries = []
    for number in sorted(set(people["bucket"].to_pylist())):
        sealed = seal_table(
            store, stage.writes, version, number, WHOLE, rows.filter(pc.equal(bucket, number))
        )
        entries.append(sealed.entry(stage.writes, version, number, WHOLE, basis))
    return entries


def _tables(store: Store, snapshot: Snapshot, stage: Stage) -> Mapping[str, pa.Table]:
    found = {}
    for table, columns in stage.reads.items():
        schema = TABLES[table]
        ids = [name for name in ("identity_id", "image_id", "face_id") if name in schema.names]
        shown = snapshot.shown(table)
        if shown or table not in stage.optional:
            found[table] = read_entries(
                store, table, shown, list(dict.fromkeys((*ids, *columns, "status")))
            )
    return found
