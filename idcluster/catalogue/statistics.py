"""What a dataset consists of, in numbers: each statistic is a function from a connection of the
catalogue to a table.

The report draws from the same tables. Every statistic goes over its tables once; none holds more
than a row a person.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from idcluster.catalogue.connection import QueryError
from schemas import TABLES
from schemas.samples import SAMPLES
from schemas.wording import near

Query = Callable[[duckdb.DuckDBPyConnection], pa.Table]

HOSTS_SHOWN = 50
"""Hosts, and reasons by host, that a table has at most; the rest is one row."""
_HOST = """CASE WHEN starts_with(address, 'http') AND contains(address,
    '://') THEN split_part(address, '/', 3)
    ELSE split_part(address, ':', 1) || ':' END"""
# Without the user and the port: only asked of hosts, not of addresses.
_BARE = "regexp_replace(host, '^.*@|:[0-9]+$', '', 'g')"
_SIZES = (0, 64, 128, 256, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192)
_FACE_SIDES = (0, 20, 40, 60, 80, 112, 160, 224, 320, 448, 640, 1024, 2048)
_STEPS, _BINS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000), 40
POSE_STEP = 10
"""Degrees a bin of yaw and pitch."""
AFFECT_STEP = 0.1


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


def _table(
    connection: duckdb.DuckDBPyConnection, sql: str, parameters: Sequence[Any] = ()
) -> pa.Table:
    found: pa.Table = connection.sql(sql, params=list(parameters)).to_arrow_table()
    return found


# The funnel


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


# Distributions


def _histogram(
    connection: duckdb.DuckDBPyConnection, values: str, edges: Sequence[float]
) -> pa.Table:
    """Counts of the whole numbers `value` of the query `values` by bins that begin at `edges`, the
    last one open.
    """
    return _table(
        connection,
        f"""
        WITH counted AS (SELECT value, count(*) AS number FROM ({values}) WHERE value IS NOT NULL
            GROUP BY ALL),
        placed AS (SELECT greatest(list_sum([(value >= edge)::INTEGER for edge in $1]),
            1)::INTEGER AS bin, number FROM counted)
        SELECT ($1)[bin]::DOUBLE AS "from", ($1)[bin + 1]::DOUBLE AS "to",
            sum(number)::BIGINT AS number
        FROM placed GROUP BY ALL ORDER BY ALL""",  # noqa: S608
        [[float(edge) for edge in edges]],
    )


def _even(
    connection: duckdb.DuckDBPyConnection, values: str, step: float, by: Sequence[str] = ()
) -> pa.Table:
    """Counts of `value` by bins of one width."""
    groups = "".join(f"{name}, " for name in by)
    return _table(
        connection,
        f"""
        SELECT {groups}round(bin * $1, 6) AS "from", round((bin + 1) * $1, 6) AS "to",
            count(*) AS number
        FROM (SELECT {groups}floor(value / $1 + 1e-6)::INTEGER AS bin FROM ({values})
            WHERE isfinite(value::DOUBLE))
        GROUP BY ALL ORDER BY ALL""",  # noqa: S608
        [step],
    )


def cluster_sizes(connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """People by how many of their faces are kept: FlashFace's figure (supplement, figure 2: number
    of clusters by cluster size).
    """
    kept = "SELECT identity_id, count(*) AS value FROM clusters WHERE keep GROUP BY ALL"
    found = (
        f"SELECT coalesce(k.value, 0) AS value FROM identities LEFT JOIN ({kept}) k "  # noqa: S608
        "USING "
        "(identity_id)"
    )
    connection.execute(f"CREATE OR REPLACE TEMP TABLE cluster_size AS {found}")
    most = connection.execute("SELECT coalesce(max(value), 0) FROM cluster_size").fetchall()[0][0]
    step = next((step for step in _STEPS if most < step * _BINS), _STEPS[-1])
    return _even(connection, "SELECT value FROM cluster_size", step)


def images_per_person(connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """Quantiles over people: of images offered, fetched and with a face, and of faces kept and
    described.
    """
    told = _outcomes(connection)
    names = [[one.name for one in told], list(range(len(told)))]
    return _table(
        connection,
        """
        SELECT s.step, count(*) AS people, sum(n)::BIGINT AS total, avg(n) AS mean, min(n) AS least,
            quantile_disc(n, 0.05) AS p05, quantile_disc(n, 0.25) AS p25, quantile_disc(n,
                0.5) AS median, quantile_disc(n, 0.75) AS p75,
            quantile_disc(n, 0.95) AS p95, max(n) AS most
        FROM (SELECT s.step, s.number, coalesce(p.rows, 0) AS n FROM identities
            CROSS JOIN (SELECT unnest($1) AS step, unnest($2) AS number) s
            LEFT JOIN (SELECT step, identity_id, sum(rows)::BIGINT AS rows FROM outcomes
                WHERE status = 'ok' GROUP BY ALL) p
                ON p.step = s.step AND p.identity_id = identities.identity_id) s
        GROUP BY s.step, s.number ORDER BY s.number""",
        names,
    )


def picture_sizes(connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """Images by their shorter side, pixels."""
    return _histogram(
        connection, "SELECT least(width, height) AS value FROM images WHERE status = 'ok'", _SIZES
    )


def face_sizes(connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """Faces by their side, pixels."""
    return _histogram(
        connection,
        "SELECT floor(side)::INTEGER AS value FROM faces WHERE status = 'ok'",
        _FACE_SIDES,
    )


def formats(connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """Images and bytes by format."""
    return _table(
        connection,
        """
        SELECT format, count(*) AS images, sum(size)::BIGINT AS bytes, avg(size) AS mean_bytes
        FROM images WHERE status = 'ok' GROUP BY ALL ORDER BY 2 DESC, 1""",
    )


def _offered_and_kept(connection: duckdb.DuckDBPyConnection, column: str) -> pa.Table:
    return _table(
        connection,
        f"""
        SELECT {column}, count(*) AS offered, count(*) FILTER (image_id IN (SELECT image_id
            FROM clusters WHERE keep)) AS kept
        FROM candidates WHERE status = 'ok' GROUP BY ALL ORDER BY 2 DESC, 1""",  # noqa: S608
    )


def licences(connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """Images offered, and of them with a kept face, by licence; null where the source states
    none.
    """
    return _offered_and_kept(connection, "licence")


def sources(connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """Images offered, and of them with a kept face, by source."""
    return _offered_and_kept(connection, "source")


def hosts(connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """Images offered by host; files by the name of their source. `failures` has what could not be
    had of them.
    """
    return _table(
        connection,
        f"""
        WITH found AS (SELECT {_HOST} AS host, count(*) AS offered FROM candidates
            WHERE status = 'ok' GROUP BY ALL),
        bare AS (SELECT {_BARE} AS host, sum(offered) AS offered FROM found GROUP BY ALL),
        ranked AS (SELECT *, row_number() OVER (ORDER BY offered DESC, host) AS place FROM bare)
        SELECT CASE WHEN place <= $1 THEN host ELSE 'all others' END AS host,
            sum(offered)::BIGINT AS offered, count(*) AS hosts
        FROM ranked GROUP BY 1 ORDER BY min(place)""",  # noqa: S608
        [HOSTS_SHOWN],
    )


def failures(connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """Images that could not be had or read, by host and reason."""
    return _table(
        connection,
        f"""
        WITH lost AS (
            SELECT image_id, status, reason FROM images WHERE status <> 'ok'
            UNION ALL SELECT image_id, status, reason FROM faces
                WHERE status IN ('failed', 'poisoned')
        ), found AS (
            SELECT {_HOST} AS host, l.status, l.reason, count(*) AS images
            FROM lost l JOIN candidates c ON c.image_id = l.image_id GROUP BY ALL
        ), bare AS (SELECT {_BARE} AS host, status, reason, sum(images) AS images FROM found
            GROUP BY ALL),
        ranked AS (SELECT *, row_number() OVER (ORDER BY images DESC, host, reason) AS place
            FROM bare)
        SELECT CASE WHEN place <= $1 THEN host ELSE 'all others' END AS host, status, reason,
            sum(images)::BIGINT AS images
        FROM ranked GROUP BY ALL ORDER BY min(place)""",  # noqa: S608
        [HOSTS_SHOWN],
    )


def similarity(connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """Faces by their cosine to their person, kept and not."""
    return _even(connection, "SELECT keep, similarity AS value FROM clusters", 0.02, ["keep"])


def captions(connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """Captions by their length, words."""
    values = (
        "SELECT length(caption) - length(replace(caption, ' ', '')) + 1 AS value FROM "
        "captions WHERE status = 'ok' AND caption <> ''"
    )
    return _even(connection, values, 1)


def pose(connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """Kept faces by yaw and pitch of the head, degrees (heads of scheme `pose`)."""
    return _table(
        connection,
        """
        SELECT (floor(pose[1] / $1 + 1e-6) * $1)::INTEGER AS yaw,
            (floor(pose[2] / $1 + 1e-6) * $1)::INTEGER AS pitch, count(*) AS faces
        FROM heads WHERE status = 'ok' AND scheme = 'pose' AND isfinite(pose[1])
            AND isfinite(pose[2]) GROUP BY ALL ORDER BY ALL""",
        [POSE_STEP],
    )


def expression(connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """Kept faces by how far their expression is from rest: root mean square of the coefficients, by
    scheme (flame, ict).
    """
    values = """SELECT scheme, sqrt(list_sum([x * x for x in expression]) / len(expression)) AS
        value
        FROM heads WHERE status = 'ok' AND len(expression) > 0"""
    return _even(connection, values, 0.1, ["scheme"])


def emotions(connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """Kept faces by their most probable class of emotion: its place in the backend's order,
    from 0.
    """
    return _table(
        connection,
        """
        SELECT (list_position(emotions, list_max(emotions)) - 1)::INTEGER AS class,
            count(*) AS faces
        FROM affect WHERE status = 'ok' AND len(emotions) > 0 GROUP BY ALL ORDER BY ALL""",
    )


def affect(connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """Kept faces by valence and arousal."""
    return _table(
        connection,
        """
        SELECT round(floor(valence / $1 + 1e-6) * $1, 3) AS valence,
            round(floor(arousal / $1 + 1e-6) * $1, 3) AS arousal,
            count(*) AS faces
        FROM affect WHERE status = 'ok' AND isfinite(valence) AND isfinite(arousal) GROUP BY ALL
            ORDER BY ALL""",
        [AFFECT_STEP],
    )


def flags(connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """People by what cleaning and matching flagged."""
    return _table(
        connection,
        """
        SELECT flag, count(*) AS people FROM (SELECT unnest(flags) AS flag FROM people UNION ALL
            SELECT unnest(flags) FROM matches)
        GROUP BY ALL ORDER BY 2 DESC, 1""",
    )


def screening(connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """Faces by the limit that they miss; null where they miss none."""
    return _table(
        connection,
        "SELECT reason, count(*) AS faces FROM screenings GROUP BY ALL ORDER BY 2 DESC, 1",
    )


def shards(connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """Shards, samples and bytes by profile and split."""
    return _table(
        connection,
        """
        SELECT split_part(file, '/', 2) AS profile, split_part(split_part(file, '/', 3), '-',
            1) AS split, count(*) AS shards,
            sum(rows)::BIGINT AS samples, sum(bytes)::BIGINT AS bytes
        FROM snapshot_files WHERE "table" = 'shards' AND live AND current GROUP BY ALL
            ORDER BY ALL""",
    )


def speed(connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """What stages computed and how fast, over all runs whose records are there: rows a second of
    one worker.
    """
    return _table(
        connection,
        """
        SELECT s.stage, count(*) AS runs, sum(s.rows)::BIGINT AS rows,
            sum(s.failed)::BIGINT AS failed, sum(s.seconds) AS worker_seconds,
            sum(s.rows) / nullif(sum(s.seconds), 0) AS rows_per_worker_second
        FROM (SELECT started, unnest(stages) AS s FROM runs) WHERE s.rows > 0 GROUP BY s.stage
            ORDER BY min(started), 5 DESC, 1""",
    )


# fmt: off
STATISTICS: dict[str, Query] = {
    query.__name__: query
    for query in (
        funnel, reasons, people, people_lost, images_per_person, cluster_sizes, picture_sizes,
        face_sizes, formats, licences, sources,
        hosts, failures, similarity, flags, screening, pose, expression, emotions, affect, captions,
        shards, speed,
    )
}
# fmt: on
"""By name, in the order of telling."""


def title(name: str) -> str:
    """What a statistic says, in one line."""
    return (STATISTICS[name].__doc__ or "").strip().split("\n")[0]


def chosen(names: Iterable[str]) -> list[str]:
    """Names of statistics, checked. Raises QueryError."""
    wanted = [name.strip() for name in names if name.strip()]
    for name in wanted:
        if name not in STATISTICS:
            meant = near(name, STATISTICS)
            raise QueryError(
                f"no statistic {name!r}; "
                + (f"did you mean {meant[0]!r}?" if meant else f"there are {', '.join(STATISTICS)}")
            )
    return [name for name in STATISTICS if name in wanted] if wanted else list(STATISTICS)


def compute(
    connection: duckdb.DuckDBPyConnection, names: Iterable[str] = ()
) -> dict[str, pa.Table]:
    """Statistics by name: all, or those named. Raises QueryError."""
    return {name: STATISTICS[name](connection) for name in chosen(names)}
