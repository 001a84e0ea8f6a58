"""What a dataset showed before: which snapshots there are, what changed between two of them, and
going back to one.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import duckdb
import pyarrow as pa

from idcluster.root.dataset_root import RunError
from idcluster.root.lease import Lease
from idcluster.root.parquet import read, read_entries
from idcluster.root.removals import check_finished
from idcluster.root.snapshot import (
    WHOLE,
    Entry,
    Snapshot,
    SnapshotError,
    VoidSnapshot,
    load,
    numbers,
)
from idcluster.root.storage import Store
from pipeline.shards.index import reindex
from pipeline.shards.writing import SHARD_TABLES
from schemas import TABLES, TableSchema
from schemas.samples import METADATA, SAMPLES

_COMPARED = {
    **{
        name: schema
        for name, schema in TABLES.items()
        if {"identity_id", "status"} <= {*schema.names}
    },
    "samples": SAMPLES,
}
_NOT_VALUES = {"inputs", "fetched_at", "decided_at", "removed_at"}
"""Columns that say how and when a row came about."""

# fmt: off
CHANGES = pa.schema(
    [("table", pa.string()), ("identity_id", pa.string()), ("name", pa.string())]
    + [(name, pa.int64()) for name in ("added", "changed", "gone")]
)
# fmt: on
"""Rows that came, that have other values and that left, by table and person."""


# Which snapshots there are


@dataclass(frozen=True)
class SnapshotLine:
    """One snapshot in a list. `changes` says what it shows other than the one listed before it."""

    number: int
    published: str
    run: str
    changes: str
    files: int
    bytes: int


def listing(store: Store) -> list[SnapshotLine]:
    """All snapshots that are there, rising. A damaged one is listed as such."""
    listed = []
    before = Snapshot()
    try:
        newest = load(store)
    except SnapshotError:
        newest = None
    for number in numbers(store):
        try:
            one = load(store, number, newest)
        except SnapshotError as error:
            said = (
                "void: put by a writer that had lost the lease"
                if isinstance(error, VoidSnapshot)
                else "damaged"
            )
            listed.append(SnapshotLine(number, "", "", said, 0, 0))
            continue
        sizes = {entry.file: entry.file_bytes or entry.bytes for entry in one.entries if entry.file}
        said = ", ".join(_remarks(one) + _moves(before, one)) or "shows the same"
        listed.append(
            SnapshotLine(
                number,
                one.notes.get("published", ""),
                one.notes.get("run", ""),
                said,
                len(sizes),
                sum(sizes.values()),
            )
        )
        before = one
    return listed


def _remarks(one: Snapshot) -> list[str]:
    # Notes are handed on from snapshot to snapshot: these are of the one that they name.
    back_to, replaces = one.notes.get("back_to", [0, 0]), one.notes.get("replaces", [-1])
    back = [f"back to {back_to[1]}"] if back_to[0] == one.number else []
    forgot = one.notes.get("forgot", [0, ""])
    back += [f"without what was removed ({forgot[1]})"] if forgot[0] == one.number else []
    fenced = any(first == one.number for _, first in one.notes.get("fences", ()))
    why = "a writer that seemed dead" if fenced else "gc"
    return back + (
        [f"in place of {replaces[-1]} ({why})"] if replaces[-1] == one.number - 1 else []
    )


def _moves(before: Snapshot, after: Snapshot) -> list[str]:
    """Rows by table against the snapshot before, from the lists of files alone."""
    moves = []
    for table in (*TABLES, "samples"):
        old, new = before.shown(table), after.shown(table)
        rows = sum(entry.rows for entry in new) - sum(entry.rows for entry in old)
        if rows:
            moves.append(f"{table} {rows:+d}")
        elif {entry.digest for entry in old} != {entry.digest for entry in new}:
            moves.append(f"{table} changed")
    return moves


# What changed between two


@dataclass(frozen=True)
class Diff:
    """What snapshot `after` shows other than `before`: `rows` in the columns of CHANGES, and by
    table what it is made by now.
    """

    before: int
    after: int
    rows: pa.Table
    made_by: Mapping[str, str]

    def by(self, *columns: str) -> pa.Table:
        """Sums by table, or by person with those of most rows first."""
        grouped = self.rows.group_by(list(columns), use_threads=False).aggregate(
            [(name, "sum") for name in CHANGES.names[3:]]
        )
        grouped = grouped.rename_columns(
            [name.removesuffix("_sum") for name in grouped.column_names]
        )
        if "identity_id" not in columns:
            return grouped.select([*columns, *CHANGES.names[3:]])
        rows = grouped.to_pylist()
        rows.sort(
            key=lambda row: (
                -row["added"] - row["changed"] - row["gone"],
                row["name"] or "",
                row["identity_id"],
            )
        )
        return pa.Table.from_pylist(
            rows, schema=pa.schema([CHANGES.field(name) for name in (*columns, *CHANGES.names[3:])])
        )


def diff(store: Store, before: int, after: int | None = None) -> Diff:
    """Compare what two snapshots show, row by row by key; files that both show are not read. Raises
    SnapshotError.
    """
    old, new = load(store, before), load(store, after)
    connection = duckdb.connect()
    found: list[tuple[str, str | None, int, int, int]] = []
    try:
        for table, schema in _COMPARED.items():
            for left, right in _differing(schema, old.shown(table), new.shown(table)):
                found += [
                    (table, *row)
                    for row in _compare(
                        connection, schema, _rows(store, schema, left), _rows(store, schema, right)
                    )
                ]
    finally:
        connection.close()
    totals: dict[tuple[str, str | None], list[int]] = {}
    for table, person, *row in found:
        known = totals.setdefault((table, person), [0, 0, 0])
        totals[table, person] = [a + b for a, b in zip(known, row, strict=True)]
    names = _names(store, old) | _names(store, new) if totals else {}
    place = {table: number for number, table in enumerate(_COMPARED)}
    order = sorted(totals, key=lambda key: (place[key[0]], names.get(key[1], ""), key[1] or ""))
    values = [(table, person, names.get(person), *totals[table, person]) for table, person in order]
    rows = pa.Table.from_pylist(
        [dict(zip(CHANGES.names, row, strict=True)) for row in values], schema=CHANGES
    )
    return Diff(old.number, new.number, rows, _made_by(old, new))


def _differing(
    schema: TableSchema, old: Iterable[Entry], new: Iterable[Entry]
) -> Iterator[tuple[list[Entry], list[Entry]]]:
    """The entries that only one side shows, in groups that fit into memory: by bucket, with
    images in it by chunk.
    """
    groups: dict[tuple[int, int], tuple[dict[tuple[int, int, str], Entry], ...]] = {}
    for side, entries in enumerate((old, new)):
        for entry in entries:
            whole = not schema.blobs or entry.bucket == WHOLE
            group = groups.setdefault(
                (entry.bucket if entry.bucket != WHOLE else 0, WHOLE if whole else entry.chunk),
                ({}, {}),
            )
            group[side][entry.bucket, entry.chunk, entry.digest] = entry
    for _, (left, right) in sorted(groups.items()):
        if left.keys() != right.keys():
            yield (
                [left[key] for key in left.keys() - right.keys()],
                [right[key] for key in right.keys() - left.keys()],
            )


def _values(schema: TableSchema) -> list[str]:
    """The columns by which two rows of a key are compared. Images have a hash among them; of
    other tables the blobs count too.
    """
    names = (
        METADATA
        if schema is SAMPLES
        else schema.light
        if "sha256" in schema.names
        else schema.names
    )
    return [name for name in names if name not in _NOT_VALUES]


def _rows(store: Store, schema: TableSchema, entries: list[Entry]) -> pa.Table:
    names = _values(schema)
    if schema is SAMPLES:
        return pa.concat_tables(
            [
                schema.empty().select(names),
                *(read(store, schema, entry.file, names) for entry in entries),
            ]
        )
    return read_entries(store, schema.name, entries, names)


def _compare(
    connection: duckdb.DuckDBPyConnection, schema: TableSchema, old: pa.Table, new: pa.Table
) -> list[tuple[str | None, int, int, int]]:
    """Person, and how many rows were added, changed and are gone."""
    key = schema.key
    other = " OR ".join(
        f'a."{name}" IS DISTINCT FROM b."{name}"' for name in _values(schema) if name != key
    )
    connection.register("a", old)
    connection.register("b", new)
    sql = f"""
    SELECT coalesce(b.identity_id, a.identity_id),
        count(*) FILTER (a."{key}" IS NULL),
        count(*) FILTER (a."{key}" IS NOT NULL AND b."{key}" IS NOT NULL),
        count(*) FILTER (b."{key}" IS NULL)
    FROM a FULL JOIN b ON a."{key}" = b."{key}"
    WHERE a."{key}" IS NULL OR b."{key}" IS NULL OR {other} GROUP BY 1
    """  # noqa: S608 - names of the schema
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.unregister("a")
        connection.unregister("b")


def _names(store: Store, snapshot: Snapshot) -> dict[str | None, str]:
    rows = read_entries(store, "identities", snapshot.shown("identities"), ["identity_id", "name"])
    return dict(zip(rows["identity_id"].to_pylist(), rows["name"].to_pylist(), strict=True))


def _made_by(old: Snapshot, new: Snapshot) -> dict[str, str]:
    """What is other in backend, code, parameters and weights, by table."""
    said = {}
    for table in _COMPARED:
        sides = [{entry.version for entry in snapshot.shown(table)} for snapshot in (old, new)]
        if sides[0] != sides[1] and all(len(side) == 1 for side in sides):
            known = {**old.notes.get("versions", {}), **new.notes.get("versions", {})}
            left, right = (_flat(known.get(f"{table}/{side.pop()}", {})) for side in sides)
            changes = [
                f"{name} {left.get(name)} -> {right.get(name)}"
                for name in {**left, **right}
                if left.get(name) != right.get(name)
            ]
            if changes:
                said[table] = ", ".join(changes)
    return said


def _flat(description: Mapping[str, Any]) -> dict[str, Any]:
    """A description of a version, with its parameters and weights beside the rest; hashes short."""
    weights = {name: str(digest)[:8] for name, digest in description.get("weights", {}).items()}
    rest = {name: value for name, value in description.items() if name not in ("params", "weights")}
    return {**rest, **description.get("params", {}), **weights}


# Going back


def rollback(
    store: Store, number: int, run: str, notice: Callable[[str], None] = lambda text: None
) -> Snapshot:
    """Publish what snapshot `number` is as the newest one; shards and their indexes are again those
    of then.

    History is kept: the snapshots since stay. So are decisions by hand and removals: those of now
    go before those of then, and the next run applies them. Takes the lease (`notice` is told what
    it waits for, and how many decisions stay). Raises LeaseHeld, SnapshotError, and RunError where
    files of that snapshot are gone.
    """
    with Lease(store, run, notice, frees=True) as lease:
        check_finished(store)
        newest = load(store)
        target = load(store, number, newest)
        there = {*store.list("tables"), *store.list("shards")}
        # Garbage collection leaves out shards that were not shown even then; they can be written
        # again.
        spare = {
            entry for entry in target.entries if entry.table in SHARD_TABLES and not entry.current
        }
        known = [
            entry
            for entry in target.entries
            if entry.table not in _STAY and (entry.file in there or entry not in spare)
        ]
        known = sorted((*known, *(entry for entry in newest.entries if entry.table in _STAY)))
        missing = sorted({entry.file for entry in known if entry.file} - there)
        if missing:
            named = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
            raise RunError(
                f"snapshot {number} of {store.root} cannot be shown again: {len(missing)} of its "
                f"files are gone ({named}). "
                "`idcluster snapshots` lists the others; a run with the DAG of then computes it "
                "anew"
            )
        # Sets of the same shards may have been made by other rules: their cards differ.
        if {*known} != {*newest.entries} or _sets(target) != _sets(newest):
            # Without what says that shards are up to date: should this end before the indexes are
            # put, a run puts them.
            notes = {
                name: value
                for name, value in target.notes.items()
                if not name.startswith("shards/")
            }
            for name in ("versions", "rates"):
                notes[name] = {**target.notes.get(name, {}), **newest.notes.get(name, {})}
            notes["fences"] = newest.notes.get("fences", [])
            notes |= {
                "run": run,
                "published": datetime.now(UTC).isoformat(timespec="seconds"),
                "back_to": [newest.number + 1, number],
            }
            newest = lease.publish(Snapshot(newest.number, tuple(known), notes))
        try:
            reindex(store, newest)
        except Exception:
            notice(
                f"snapshot {newest.number} is published; shard indexes are not all put yet: roll "
                "back once more, or run"
            )
            raise
        stay = _decisions(store, newest) ^ _decisions(store, target)
        if stay:
            notice(
                f"{len({face for face, _, _ in stay})} decisions by hand made since then stay as "
                "they are; the next run applies them"
            )
        return newest


_STAY = ("removals", "overrides")
"""Tables that no way back leads behind: what was removed stays removed, and what somebody decided
by hand stays decided.
"""


def _decisions(store: Store, snapshot: Snapshot) -> set[tuple[str, str, str | None]]:
    rows = read_entries(
        store, "overrides", snapshot.shown("overrides"), ["face_id", "action", "target"]
    ).to_pylist()
    return {(row["face_id"], row["action"], row["target"]) for row in rows}


def _sets(snapshot: Snapshot) -> dict[str, Any]:
    return {name: about for name, about in snapshot.notes.items() if name.startswith("index/")}
