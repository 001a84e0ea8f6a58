"""Wanted against done: the one rule by which planning, working and sealing all decide.

A stage wants rows for its **units**: rows of its parent table, or whole people where its grain is
the bucket. The `inputs` of a unit are a hash of the upstream values that its rows follow from. A
unit is done when rows with its key and its inputs are there, in the stage's version. Everything
here is a pure function of Arrow tables.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas import TABLES
from stages.backends import BACKENDS
from stages.stage import Stage

Tables = Mapping[str, pa.Table]
"""Table name to the rows that it shows."""


_NULL = b"\x00"


def by_hand(table: str) -> bool:
    """Whether no stage can write a table: it is there from the beginning, with as many rows as
    somebody has put into it.
    """
    return TABLES[table].written_by not in BACKENDS


def unit_column(stage: Stage) -> str:
    """The column that names the unit in the rows that the stage writes."""
    if stage.grain == "bucket":
        return "identity_id"
    key = stage.writes.parent_key
    if key is None:
        raise ValueError(
            f"stage {stage.name!r} writes {stage.writes.name}, which has no parent to have units of"
        )
    return key


@dataclass(frozen=True)
class Wanted:
    """The rows of the units that a stage wants. `units` and `inputs` run parallel to `rows`.

    At slice grain a unit is one row, at bucket grain all rows of a person, with the same inputs.
    """

    rows: pa.Table
    units: list[str]
    inputs: list[bytes]

    def inputs_of(self) -> dict[str, bytes]:
        return dict(zip(self.units, self.inputs, strict=True))

    def take(self, indices: Sequence[int] | np.ndarray) -> "Wanted":
        return Wanted(
            self.rows.take(pa.array(indices, pa.int64())),
            [self.units[i] for i in indices],
            [self.inputs[i] for i in indices],
        )


@dataclass(frozen=True)
class Reconciled:
    """How the rows that are there fit what is wanted.

    `live` and `stale` give, for each table of the pool, the indices of the rows that are wanted and
    of those that are not (superseded attempts are in neither). `missing` are the indices into
    `wanted.rows` of units without rows.
    """

    wanted: Wanted
    live: list[np.ndarray]
    stale: list[np.ndarray]
    missing: np.ndarray

    @property
    def missing_units(self) -> list[str]:
        return list(dict.fromkeys(self.wanted.units[i] for i in self.missing))


def _cells(column: pa.ChunkedArray | pa.Array) -> list[bytes]:
    """Every value of a column as bytes that tell it from every other value; null as its own."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    kind = array.type
    valid = array.is_valid().to_pylist()
    if pa.types.is_list(kind) and pa.types.is_primitive(kind.value_type):
        offsets = array.offsets.to_numpy()
        # Filled: numpy would turn all integers into floats because of one null in some list.
        there = array.values.is_valid().to_numpy(zero_copy_only=False)
        values = pc.fill_null(
            array.values, False if pa.types.is_boolean(kind.value_type) else 0
        ).to_numpy(zero_copy_only=False)
        spans = [slice(start, stop) for start, stop in pairwise(offsets)]
        # A list with nulls as a hash: with the mask beside the values it could be mistaken for a
        # longer list without.
        both = ((values[at].tobytes(), there[at]) for at in spans)
        cells = [
            data if mask.all() else hashlib.blake2b(data + mask.tobytes()).digest()
            for data, mask in both
        ]
    elif pa.types.is_primitive(kind):
        filled = array.cast(pa.int64()) if pa.types.is_timestamp(kind) else array
        filled = pc.fill_null(filled, False if pa.types.is_boolean(kind) else 0)
        cells = [value.tobytes() for value in filled.to_numpy(zero_copy_only=False)]
    elif (
        pa.types.is_string(kind) or pa.types.is_binary(kind) or pa.types.is_fixed_size_binary(kind)
    ):
        cells = [
            (value.encode() if isinstance(value, str) else value) if value is not None else b""
            for value in array.to_pylist()
        ]
    else:
        cells = [repr(value).encode() for value in array.to_pylist()]
    return [b"\x01" + cell if there else _NULL for cell, there in zip(cells, valid, strict=True)]


def row_digests(
    table: pa.Table, columns: Sequence[str], optional: Sequence[str] = ()
) -> list[bytes]:
    """An 8-byte hash of the values of `columns` in every row, the same on every machine.

    Of the columns `optional` nulls count for nothing: a row that has nothing but nulls there has
    the hash without them.
    """
    seed = hashlib.blake2b(digest_size=8)
    for name in columns:
        seed.update(len(name).to_bytes(4, "little") + name.encode())
    hashers = []
    rows: Iterable[tuple[bytes, ...]] = (
        zip(*(_cells(table[name]) for name in columns), strict=True)
        if columns
        else [()] * table.num_rows
    )
    for row in rows:
        hasher = seed.copy()
        for cell in row:
            hasher.update(len(cell).to_bytes(4, "little"))
            hasher.update(cell)
        hashers.append(hasher)
    for name in optional:
        for hasher, cell in zip(hashers, _cells(table[name]), strict=True):
            if cell != _NULL:
                for item in (name.encode(), cell):
                    hasher.update(len(item).to_bytes(4, "little"))
                    hasher.update(item)
    return [hasher.digest() for hasher in hashers]


def join(stage: Stage, tables: Tables) -> pa.Table:
    """One row a row of the parent table, with what the stage reads of every table, as `stage.run`
    gets it.

    Optional tables that are not in `tables` give nulls.
    """
    parent = tables[stage.parent]
    ids = [name for name in ("identity_id", "image_id", "face_id") if name in parent.column_names]
    columns: dict[str, pa.ChunkedArray | pa.Array] = {name: parent[name] for name in ids}
    for name in dict.fromkeys((*stage.reads, *stage.selects)):
        table = tables[name] if name in tables or name not in stage.optional else TABLES[name].bare
        key = TABLES[name].key
        # The parent's own rows are in place; other tables have at most one row a key.
        where = (
            None
            if name == stage.parent
            else pc.index_in(parent[key], value_set=table[key].combine_chunks())
        )
        for column in (
            "status",
            *dict.fromkeys((*stage.reads.get(name, ()), *stage.selects.get(name, ()))),
        ):
            columns[f"{name}.{column}"] = (
                table[column] if where is None else table[column].take(where)
            )
    return pa.table(columns)


def wanted(stage: Stage, tables: Tables) -> Wanted:
    """The units that the stage wants rows for, in the order of the parent table, and their
    inputs.
    """
    rows = join(stage, tables)
    mask = stage.wants(rows)
    for table in sorted(stage.optional & tables.keys()):
        if not by_hand(
            table
        ):  # a stage of the DAG writes it: where it has not come to a unit yet, nothing follows
            mask = pc.and_(mask, pc.is_valid(rows[f"{table}.status"]))
    rows = rows.filter(mask)
    read = [
        (table, f"{table}.{column}") for table, columns in stage.reads.items() for column in columns
    ]
    values = [column for table, column in read if table not in stage.optional]
    optional = [column for table, column in read if table in stage.optional]
    if stage.grain != "bucket":
        return Wanted(
            rows, rows[unit_column(stage)].to_pylist(), row_digests(rows, values, optional)
        )
    key = TABLES[stage.parent].key
    people = rows["identity_id"].to_pylist()
    members: dict[str, list[bytes]] = {}
    for person, row in zip(people, row_digests(rows, [key, *values], optional), strict=True):
        members.setdefault(person, []).append(row)
    # Sorted: a person is the same whatever the order in which the images were listed.
    inputs = {
        person: hashlib.blake2b(b"".join(sorted(rows)), digest_size=8).digest()
        for person, rows in members.items()
    }
    return Wanted(rows, people, [inputs[person] for person in people])


def reconcile(
    stage: Stage, tables: Tables, pool: Sequence[pa.Table], forced: Set[str] = frozenset()
) -> Reconciled:
    """Compare what the stage wants with the rows of `pool`, oldest table first.

    Where two tables of the pool hold the same unit with the same inputs, the later one is the newer
    attempt and wins. Units in `forced` count as missing even if they are there.
    """
    want = wanted(stage, tables)
    column = unit_column(stage)
    needed = want.inputs_of()
    there = [
        list(zip(table[column].to_pylist(), table["inputs"].to_pylist(), strict=True))
        for table in pool
    ]
    # The rows of a person lie in several tables of the pool, one a chunk: only rows of one parent
    # tell attempts apart.
    key = stage.writes.parent_key
    parents = (
        there
        if key == column
        else [
            list(zip(table[key].to_pylist(), table["inputs"].to_pylist(), strict=True))
            for table in pool
        ]
    )
    winner = {parent: number for number, rows in enumerate(parents) for parent in rows}
    done = {unit for units in there for unit in units}
    live, stale = [], []
    for number, units in enumerate(there):
        hit = [(needed.get(unit) == inputs) for unit, inputs in units]
        best = [winner[parent] == number for parent in parents[number]]
        live.append(np.flatnonzero(np.array(hit, bool) & np.array(best, bool)))
        stale.append(np.flatnonzero(~np.array(hit, bool) & np.array(best, bool)))
    missing = [
        i
        for i, unit in enumerate(zip(want.units, want.inputs, strict=True))
        if unit not in done or unit[0] in forced
    ]
    return Reconciled(want, live, stale, np.array(missing, np.int64))


def ordered(stage: Stage, want: Wanted, rows: pa.Table) -> pa.Table:
    """`rows` in the order of the units, the rows of one parent in the order in which they were
    written.
    """
    key = (
        unit_column(stage)
        if stage.writes.parent_key not in want.rows.column_names
        else stage.writes.parent_key
    )
    place = {
        parent: number for number, parent in reversed(list(enumerate(want.rows[key].to_pylist())))
    }
    order = np.argsort(
        np.array([place.get(parent, len(place)) for parent in rows[key].to_pylist()], np.int64),
        kind="stable",
    )
    return rows.take(pa.array(order, pa.int64()))
