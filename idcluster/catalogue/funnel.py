"""The funnel: how many images, faces and people came to each step, how many went through, and why
others did not.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from schemas import TABLES
from schemas.samples import SAMPLES

Query = Callable[[duckdb.DuckDBPyConnection], pa.Table]


@dataclass(frozen=True)
class Step:
    """One step of the funnel: the rows of `table` say what became of the rows that step `of` let
    through.
    """

    name: str
    of: str | None
    unit: str
    table: str


STEPS = tuple(
    Step(schema.step.name, schema.step.of, schema.step.unit, schema.name)
    for schema in (*TABLES.values(), SAMPLES)
    if schema.step is not None
)
"""As the tables declare them."""


USUAL = {
    schema.step.name
    for schema in (*TABLES.values(), SAMPLES)
    if schema.step is not None and schema.step.usual
}
"""Steps that are told of though nothing is there, where no record of a run says which stages its
DAG named.
"""


FACES = "faces_found"
"""Under this name the faces of `with_face` are counted, beside its images."""


_PROFILES = """
    CREATE TEMP TABLE profiles AS
    SELECT DISTINCT split_part(file, '/', 2) AS profile, replace(split_part(file, '/', 3),
        '.parquet', '.tar') AS shard FROM snapshot_files
    WHERE "table" = 'samples' AND live AND current"""


_SHARDED = """(
    SELECT profile, identity_id, 'ok' AS status, NULL AS reason FROM samples
        JOIN profiles USING (shard)
    UNION ALL SELECT profile, identity_id, 'filtered', reason FROM withheld)"""
"""Kept faces by shard profile: in its shards, or withheld from them."""


_TEXT, _INT = pa.string(), pa.int64()
_FUNNEL = pa.schema(
    [("step", _TEXT), ("of", _TEXT), ("unit", _TEXT), ("came", _INT), ("went_through", _INT)]
)


_REASONS = pa.schema([("step", _TEXT), ("status", _TEXT), ("reason", _TEXT), ("rows", _INT)])


_PEOPLE = pa.schema([("step", _TEXT), ("of", _TEXT), ("came", _INT), ("went_through", _INT)])


_PEOPLE_LOST = pa.schema([("step", _TEXT), ("reason", _TEXT), ("people", _INT)])


@dataclass(frozen=True)
class _Told:
    """A step under the name that it is told by: of shards there is one a profile."""

    name: str
    step: Step

    @property
    def parent(self) -> str | None:
        """Where what came to the step is counted."""
        return FACES if self.step.of == "with_face" and self.step.unit == "faces" else self.step.of


def asked(
    connection: duckdb.DuckDBPyConnection, sql: str, parameters: Sequence[Any] = ()
) -> pa.Table:
    found: pa.Table = connection.sql(sql, params=list(parameters)).to_arrow_table()
    return found


def _outcomes(connection: duckdb.DuckDBPyConnection) -> list[_Told]:
    """The steps that there is something to say about, and the temporary table `outcomes`: step,
    identity_id, status (ok: went through), reason, rows. Made once a connection.

    A step is told of if it has rows, if a DAG of this root names its stage, and on the way to
    another such step: what nobody asked for is no loss.
    """
    known = "SELECT 1 FROM information_schema.tables WHERE table_name = 'outcomes'"
    if not connection.execute(known).fetchall():
        connection.execute(
            "CREATE TEMP TABLE outcomes (step VARCHAR, identity_id VARCHAR, status VARCHAR, "
            "reason VARCHAR, rows BIGINT)"
        )
        connection.execute(_PROFILES)
        # Images are offered last: what is known of the fetched ones mostly tells.
        for step in (*STEPS[1:], STEPS[0]):
            connection.execute(f"INSERT INTO outcomes {_counts(connection, step)}")
        connection.execute("CREATE TEMP TABLE wanted_steps (step VARCHAR)")
        for name in _wanted(connection):
            connection.execute("INSERT INTO wanted_steps VALUES (?)", [name])
    there = {row[0] for row in connection.execute("SELECT DISTINCT step FROM outcomes").fetchall()}
    shards = sorted(name for name in there if name.startswith("sharded "))
    shown = {row[0] for row in connection.execute("SELECT step FROM wanted_steps").fetchall()} | {
        name.split(" ")[0] for name in there
    }
    for step in reversed(STEPS):
        if step.name in shown and step.of is not None:
            shown.add(step.of)
    told = []
    for step in STEPS:
        names = (shards or ["sharded"]) if step.name == "sharded" else [step.name]
        told += [_Told(name, step) for name in names if step.name in shown]
    return told


def _wanted(connection: duckdb.DuckDBPyConnection) -> set[str]:
    """Steps whose stages the DAGs of this root name, as the records of its runs have them."""
    named: set[str] = set()
    for (record,) in connection.execute("SELECT record FROM runs").fetchall():
        dag = json.loads(record).get("dag")
        stages = dag.get("stages") if isinstance(dag, dict) else None
        named.update(stages if isinstance(stages, dict) else ())
    if not named:
        return set(USUAL)
    return {
        step.name
        for step in STEPS
        if ("shard" if step.table == "samples" else TABLES[step.table].written_by) in named
    }


def _counts(connection: duckdb.DuckDBPyConnection, step: Step) -> str:
    """A query that gives the rows of `outcomes` of a step: of its table, unless those of another
    step say the same.
    """
    if step.name == "sharded":
        return (
            "SELECT 'sharded ' || profile, identity_id, status, reason, count(*) "  # noqa: S608
            "FROM "
            f"{_SHARDED} GROUP BY ALL"
        )
    if (
        step.name == "offered"
        and _is_whole(connection, "candidates")
        and _is_same(connection, "images", "candidates")
    ):
        return (
            "SELECT 'offered', identity_id, 'ok', NULL, sum(rows) FROM outcomes WHERE step = "
            "'fetched' GROUP BY ALL"
        )
    parent = next((other for other in STEPS[1:] if other.name == step.of), None)
    if (
        parent is not None
        and _is_whole(connection, step.table)
        and _is_same(connection, step.table, parent.table)
    ):
        counted = _Told(step.name, step).parent
        return f"""SELECT '{step.name}', identity_id, 'ok', NULL, sum(rows) FROM outcomes
            WHERE step = '{counted}' AND status = 'ok' GROUP BY ALL"""  # noqa: S608 - constants of this module
    if step.name == "with_face":
        # One row an image without a face, else one a face: images and faces are counted in one
        # go.
        return f"""SELECT unnest(['with_face', '{FACES}']), identity_id, status, reason,
            unnest([images, faces])
            FROM (SELECT identity_id, status, reason, count(*) AS faces,
                count(*) FILTER (coalesce(face, 0) = 0) AS images
                FROM faces GROUP BY ALL)"""  # noqa: S608 - constants of this module
    return (
        f"SELECT '{step.name}', identity_id, status, reason, count(*) FROM {step.table} "  # noqa: S608
        "GROUP "
        "BY ALL"
    )


_ENTRIES = """(SELECT bucket, chunk, sum(rows) AS rows, sum(ok) AS ok FROM snapshot_files
    WHERE "table" = '{}' AND live AND current GROUP BY ALL)"""


def _is_whole(connection: duckdb.DuckDBPyConnection, table: str) -> bool:
    """Whether a table has rows and all of them are ok, by the list of files."""
    sql = f"SELECT coalesce(sum(rows), 0), coalesce(sum(ok), 0) FROM {_ENTRIES.format(table)}"  # noqa: S608 - names of tables
    rows, ok = connection.execute(sql).fetchall()[0]
    return bool(rows) and bool(rows == ok)


def _is_same(connection: duckdb.DuckDBPyConnection, table: str, parent: str) -> bool:
    """Whether a table has as many rows as its parent has that are ok, chunk by chunk, by the list
    of files.
    """
    sql = f"""SELECT count(*) FROM {_ENTRIES.format(table)} a FULL
        JOIN {_ENTRIES.format(parent)} b USING (bucket, chunk)
        WHERE coalesce(a.rows, 0) <> coalesce(b.ok, 0)"""  # noqa: S608 - names of tables
    return bool(connection.execute(sql).fetchall()[0][0] == 0)


def funnel(connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """Images and faces: how many rows came to each step, and how many went through. `reasons` has
    the others, every one.
    """
    told = _outcomes(connection)
    through = dict(
        connection.execute(
            "SELECT step, sum(rows)::BIGINT FROM outcomes WHERE status = 'ok' GROUP BY ALL"
        ).fetchall()
    )
    total = dict(
        connection.execute("SELECT step, sum(rows)::BIGINT FROM outcomes GROUP BY ALL").fetchall()
    )
    rows = []
    for one in told:
        came = total.get(one.name, 0) if one.step.of is None else through.get(one.parent, 0)
        rows.append(
            {
                "step": one.name,
                "of": one.step.of,
                "unit": one.step.unit,
                "came": came,
                "went_through": through.get(one.name, 0),
            }
        )
    return pa.Table.from_pylist(rows, schema=_FUNNEL)


def reasons(connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """Images and faces that went no further: by step, status and reason.

    `not_yet`: nobody has looked at them. `left_over` (negative): rows of what has left an earlier
    step since, which the next run takes away. With these, what came is what went through and the
    sum of the reasons.
    """
    rows: list[dict[str, Any]] = []
    for line in funnel(connection).to_pylist():
        lost = connection.execute(
            "SELECT status, coalesce(reason, status), sum(rows)::BIGINT AS n FROM outcomes WHERE "
            "step = ? AND status <> 'ok'"
            " GROUP BY ALL ORDER BY n DESC, 2",
            [line["step"]],
        ).fetchall()
        open_rows = line["came"] - line["went_through"] - sum(count for _, _, count in lost)
        if open_rows:
            lost.append((None, "not_yet" if open_rows > 0 else "left_over", open_rows))
        rows += [
            {"step": line["step"], "status": status, "reason": reason, "rows": count}
            for status, reason, count in lost
        ]
    return pa.Table.from_pylist(rows, schema=_REASONS)


def people(connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """People: how many came to each step with an image or face, and for how many one went through.
    `people_lost` has the others.
    """
    return _people(connection)[0]


def people_lost(connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """People who lost their last image or face at a step, by the most frequent reason there."""
    return _people(connection)[1]


_CAME = """CREATE OR REPLACE TEMP TABLE came AS SELECT identity_id, identity_id IN (
        SELECT identity_id FROM outcomes WHERE step = $step AND status = 'ok'
            AND rows > 0) AS through
    FROM (SELECT identity_id FROM identities WHERE $parent IS NULL
        UNION SELECT identity_id FROM outcomes WHERE step = $parent AND status = 'ok'
            AND rows > 0)"""


_WHY = """
    WITH most AS (
        SELECT identity_id, arg_max(coalesce(reason, status), (rows, reason)) AS reason
            FROM outcomes
        WHERE step = $step AND identity_id IN (SELECT identity_id FROM came WHERE NOT through)
            GROUP BY ALL
    )
    SELECT coalesce(m.reason, $nothing) AS reason, count(*) AS people FROM came LEFT
        JOIN most m USING (identity_id)
    WHERE NOT through GROUP BY ALL ORDER BY 2 DESC, 1"""


def _people(connection: duckdb.DuckDBPyConnection) -> tuple[pa.Table, pa.Table]:
    counts, lost = [], []
    for one in _outcomes(connection):
        connection.execute(_CAME, {"step": one.name, "parent": one.step.of})
        number, through = connection.execute(
            "SELECT count(*), count(*) FILTER (through) FROM came"
        ).fetchall()[0]
        counts.append(
            {"step": one.name, "of": one.step.of, "came": number, "went_through": through}
        )
        if number != through:
            nothing = "no_candidates" if one.step.of is None else "not_yet"
            why = connection.execute(_WHY, {"step": one.name, "nothing": nothing}).fetchall()
            lost += [
                {"step": one.name, "reason": reason, "people": people} for reason, people in why
            ]
    return pa.Table.from_pylist(counts, schema=_PEOPLE), pa.Table.from_pylist(
        lost, schema=_PEOPLE_LOST
    )
