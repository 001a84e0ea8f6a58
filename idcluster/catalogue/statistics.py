"""What a dataset consists of, in numbers: each statistic is a function from a connection of the
catalogue to a table.

The report draws from the same tables. Every statistic goes over its tables once; none holds more
than a row a person.
"""

from collections.abc import Iterable, Sequence

import duckdb
import pyarrow as pa

from idcluster.catalogue.connection import QueryError
from idcluster.catalogue.funnel import Query, _outcomes, asked, funnel, people, people_lost, reasons
from schemas.wording import near

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


# Distributions


def _histogram(
    connection: duckdb.DuckDBPyConnection, values: str, edges: Sequence[float]
) -> pa.Table:
    """Counts of the whole numbers `value` of the query `values` by bins that begin at `edges`, the
    last one open.
    """
    return asked(
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
    return asked(
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
    return asked(
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
    return asked(
        connection,
        """
        SELECT format, count(*) AS images, sum(size)::BIGINT AS bytes, avg(size) AS mean_bytes
        FROM images WHERE status = 'ok' GROUP BY ALL ORDER BY 2 DESC, 1""",
    )


def _offered_and_kept(connection: duckdb.DuckDBPyConnection, column: str) -> pa.Table:
    return asked(
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
    return asked(
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
    return asked(
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
    return asked(
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
    return asked(
        connection,
        """
        SELECT (list_position(emotions, list_max(emotions)) - 1)::INTEGER AS class,
            count(*) AS faces
        FROM affect WHERE status = 'ok' AND len(emotions) > 0 GROUP BY ALL ORDER BY ALL""",
    )


def affect(connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """Kept faces by valence and arousal."""
    return asked(
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
    return asked(
        connection,
        """
        SELECT flag, count(*) AS people FROM (SELECT unnest(flags) AS flag FROM people UNION ALL
            SELECT unnest(flags) FROM matches)
        GROUP BY ALL ORDER BY 2 DESC, 1""",
    )


def screening(connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """Faces by the limit that they miss; null where they miss none."""
    return asked(
        connection,
        "SELECT reason, count(*) AS faces FROM screenings GROUP BY ALL ORDER BY 2 DESC, 1",
    )


def shards(connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """Shards, samples and bytes by profile and split."""
    return asked(
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
    return asked(
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
