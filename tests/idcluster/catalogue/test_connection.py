"""Queries: what a data team sees of a dataset, and what a query must not be able to do to it or to
the machine.
"""

import csv
import hashlib
import io
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from idcluster.catalogue.connection import QueryError, connect, query
from idcluster.catalogue.snapshot_files import SharedFile
from idcluster.root.snapshot import Snapshot, SnapshotError, load
from idcluster.root.storage import Store
from schemas import TABLES
from schemas.views import VIEWS
from tests.pipeline.small_root import SmallPerson, small_root

PEOPLE = [SmallPerson("Ada Lovelace", 3, rejected=1, faceless=1), SmallPerson("Zoë Łuczak", 2)]
AWKWARD = [
    "plain",
    "with blank",
    'it\'s "quoted"',
    "Zoë-图片",
    "100%41",
    "[a-c]*",
    "what?",
    "{x,y}",
    "a;b",
    "**",
]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = Store(tmp_path / "root")
    small_root(found, PEOPLE)
    return found


@pytest.mark.parametrize("name", AWKWARD)
def test_roots_with_awkward_names(tmp_path: Path, name: str) -> None:
    store = Store(tmp_path / name / "out")
    small_root(store, PEOPLE, people_per_chunk=1)
    (tmp_path / "a").mkdir()  # what `[a-c]*` would match
    connection = connect(store.root)
    assert connection.execute("SELECT count(*) FROM images").fetchall() == [(7,)]
    assert (
        connection.execute("SELECT octet_length(bytes) = size FROM images").fetchall()
        == [(True,)] * 7
    )


def test_times_come_to_python(store: Store) -> None:
    """In a notebook every row of `images` would be an error, as DuckDB needs another package for
    times with a zone.
    """
    connection = connect(store)
    sql = "SELECT coalesce(fetched_at, TIMESTAMPTZ '2026-11-29 10:00:00+01') FROM images"
    assert {row[0] for row in connection.sql(sql).fetchall()} == {
        datetime(2026, 11, 29, 9, tzinfo=UTC)
    }
    assert len(connection.sql("SELECT * FROM images").fetchall()) == 7
    assert connection.sql("SELECT max(started) FROM runs").fetchall() == [(None,)]
    assert connection.execute(sql).fetchone() == (datetime(2026, 11, 29, 9, tzinfo=UTC),)


def test_every_table_is_there_with_its_types_and_comments(store: Store, tmp_path: Path) -> None:
    full, empty = connect(store), connect(str(tmp_path / "nothing yet"))
    for schema in TABLES.values():
        described = [row[:2] for row in full.execute(f"DESCRIBE {schema.name}").fetchall()]
        assert described == [row[:2] for row in empty.execute(f"DESCRIBE {schema.name}").fetchall()]
        assert tuple(name for name, _ in described) == schema.names
        assert empty.table(schema.name).fetchall() == []
    found = full.execute(
        "SELECT comment FROM duckdb_columns() WHERE table_name = 'faces' AND column_name = 'yaw'"
    ).fetchall()
    assert found == [(next(c.description for c in TABLES["faces"].columns if c.name == "yaw"),)]
    comments = full.execute(
        "SELECT comment FROM duckdb_views() WHERE view_name = 'removals'"
    ).fetchall()
    assert comments == [(TABLES["removals"].description,)]


def test_columns_that_an_earlier_version_of_the_program_did_not_write_are_null(
    store: Store,
) -> None:
    """Beside files that have them, as after a run that was broken off, and where no file has
    them.
    """
    snapshot = load(store)
    faces, people = snapshot.shown("faces"), snapshot.shown("people")
    before = connect(store).execute("SELECT * FROM faces ORDER BY face_id").fetchall()
    older = []
    for entry, column in ((faces[0], "subject"), (people[0], "indicator")):
        path = Path(store.uri(entry.file)).with_name("old.parquet")
        pq.write_table(
            pq.read_table(store.uri(entry.file), partitioning=None).drop_columns([column]), path
        )
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:32]
        older.append(
            replace(
                entry,
                file=entry.file.rpartition("/")[0] + "/old.parquet",
                bytes=path.stat().st_size,
                digest=digest,
            )
        )
    newer = replace(
        faces[0],
        version="0badcafe",
        chunk=7,
        file=faces[0].file.replace(f"v={faces[0].version}", "v=0badcafe"),
    )
    Path(store.uri(newer.file)).parent.mkdir(parents=True)
    Path(store.uri(newer.file)).write_bytes(Path(store.uri(faces[0].file)).read_bytes())
    connection = connect(store, Snapshot(9, (*older, newer)))
    at = TABLES["faces"].names.index("subject")
    found = connection.execute("SELECT * FROM faces ORDER BY face_id, subject IS NULL").fetchall()
    assert found[::2] == [row for row in before if row in found]
    assert found[1::2] == [(*row[:at], None, *row[at + 1 :]) for row in found[::2]]
    assert set(connection.execute("SELECT indicator FROM people").fetchall()) == {(None,)}
    assert [row[:2] for row in connection.execute("DESCRIBE faces").fetchall()] == [
        row[:2] for row in connect(store).execute("DESCRIBE faces").fetchall()
    ]


def test_files_and_runs_are_described_as_well(store: Store) -> None:
    """`idcluster schema` and DuckDB name every view that a query can see, with the same words."""
    connection = connect(store)
    seen = {
        row[0]
        for row in connection.execute("SELECT table_name FROM information_schema.tables").fetchall()
    }
    assert seen == set(VIEWS)
    for schema in VIEWS.values():
        columns = connection.execute(
            "SELECT column_name, comment FROM duckdb_columns() WHERE table_name = ?", [schema.name]
        ).fetchall()
        assert columns == [(column.name, column.description) for column in schema.columns]


def test_a_question_of_a_data_team(store: Store) -> None:
    sql = """
        SELECT n.name, count(*) FILTER (c.keep) AS kept, count(*) FILTER (NOT c.keep) AS rejected
        FROM identities n JOIN clusters c USING (identity_id) GROUP BY n.name ORDER BY n.name
    """
    assert query(store, sql, "csv") == "name,kept,rejected\nAda Lovelace,3,1\nZoë Łuczak,2,0\n"
    assert (
        query(store, "SELECT external_ids['test'] AS x FROM identities ORDER BY 1", "csv")
        == "x\nAda Lovelace\nZoë Łuczak\n"
    )


def test_only_what_the_snapshot_shows(store: Store) -> None:
    second = small_root(store, PEOPLE[:1], Snapshot(1))
    assert second.number == 2
    assert query(store, "SELECT count(*) AS n FROM identities", "csv") == "n\n1\n"
    assert query(store, "SELECT count(*) AS n FROM identities", "csv", snapshot=1) == "n\n2\n"
    assert (
        query(store, 'SELECT DISTINCT "table" FROM snapshot_files ORDER BY 1 LIMIT 1', "csv")
        == "table\ncandidates\n"
    )
    with pytest.raises(SnapshotError, match="no snapshot 7"):
        query(store, "SELECT 1", snapshot=7)


ESCAPES = [
    "COPY (SELECT 1) TO '{outside}/new.csv'",
    "COPY (SELECT 1) TO '{root}/new.csv'",
    "COPY (SELECT 1) TO '{file}' (FORMAT parquet, USE_TMP_FILE false)",
    "COPY (SELECT 1) TO 'dataset:///{relative}' (FORMAT parquet, USE_TMP_FILE false)",
    "COPY (SELECT 1) TO 'dataset:///tables/new.parquet' (FORMAT parquet, USE_TMP_FILE false)",
    "COPY (SELECT 1) TO '/dev/stdout'",
    "EXPORT DATABASE '{outside}/export'",
    "ATTACH '{outside}/new.db'",
    "ATTACH 'dataset:///new.db'",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM read_blob('/proc/self/environ')",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM '{outside}/secret.parquet'",
    "SELECT * FROM glob('/etc/*')",
    "SELECT * FROM 'https://example.org/a.parquet'",
    "SELECT * FROM 's3://bucket/a.parquet'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET enable_external_access = true",
    "SET lock_configuration = false",
    "SET temp_directory = '{outside}'",
    "PRAGMA enable_profiling = 'json'",
    "SELECT * FROM a_python_variable",
]


@pytest.mark.parametrize("sql", ESCAPES)
def test_a_query_stays_inside(
    store: Store, tmp_path: Path, sql: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outside = tmp_path / "outside"
    outside.mkdir()
    pq.write_table(TABLES["images"].empty(), outside / "secret.parquet")
    a_python_variable = TABLES["images"].empty()  # noqa: F841 - what DuckDB would otherwise find
    relative = next(path for path in store.list("tables") if "identities" in path)
    before = {path: os.stat(path).st_mtime_ns for path in tmp_path.rglob("*")}
    statement = sql.format(
        outside=outside, root=store.root, file=store.uri(relative), relative=relative
    )
    with pytest.raises(duckdb.Error):
        connect(store).execute(statement).fetchall()
    with pytest.raises(QueryError) as caught:
        query(store, statement)
    assert "\n" not in str(caught.value)
    assert {path: os.stat(path).st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("path", ["/../../../../../../etc/passwd", "/runs/*", "/dataset.json"])
def test_files_beside_the_snapshot_are_not_there(store: Store, path: str) -> None:
    store.put("dataset.json", b"{}")
    store.put("runs/r1.json", b"{}")
    assert (
        connect(store).execute("SELECT * FROM read_text(?)", [f"dataset://{path}"]).fetchall() == []
    )


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT * FROM facs", "no table 'facs'; did you mean 'faces'?"),
        (
            "SELECT scor FROM faces",
            'Referenced column "scor" not found in FROM clause! Candidate bindings: "score"',
        ),
        (
            "SELECT * FROM read_csv('/etc/passwd')",
            "/etc/passwd: a query reads the tables of the dataset and no other file",
        ),
        ("SELECT FROM", 'syntax error at or near "FROM"'),
        (" -- nothing", "there is no statement in it"),
        ("SELECT 1/0::INT, 'x'::INT", "Could not convert string 'x' to INT32"),
        (
            "SELECT a.name::INT AS x FROM identities a",
            "Could not convert string 'Ada Lovelace' to INT32",
        ),
    ],
)
def test_errors_are_one_line_that_teaches(store: Store, sql: str, expected: str) -> None:
    with pytest.raises(QueryError) as caught:
        query(store, sql, "csv")
    assert expected in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.slow
def test_formats_are_complete_and_readable_elsewhere(store: Store, tmp_path: Path) -> None:
    sql = "SELECT name, bucket, external_ids, inputs FROM identities ORDER BY name"
    rows = json.loads(query(store, sql, "json") or "")
    assert rows[0]["external_ids"] == {"test": "Ada Lovelace"} and len(rows[0]["inputs"]) == 16
    assert json.loads(query(store, "SELECT 1 WHERE false", "json") or "") == []
    boxes = list(
        csv.DictReader(
            io.StringIO(query(store, "SELECT box FROM faces WHERE status = 'ok'", "csv") or "")
        )
    )
    assert json.loads(boxes[0]["box"]) == [4.0, 2.0, 20.0, 22.0]
    assert query(store, sql, "parquet", str(tmp_path / "a.parquet")) is None
    assert pq.read_table(tmp_path / "a.parquet")["name"].to_pylist() == [
        "Ada Lovelace",
        "Zoë Łuczak",
    ]
    assert query(store, sql, "json", str(tmp_path / "a.json")) is None
    assert json.loads((tmp_path / "a.json").read_text("utf-8")) == rows
    with pytest.raises(QueryError, match="name a file"):
        query(store, sql, "parquet")
    with pytest.raises(QueryError, match="cannot write"):
        query(store, sql, "csv", str(tmp_path / "no" / "such" / "a.csv"))


def test_a_table_is_aligned_cut_and_harmless_to_the_terminal(store: Store) -> None:
    sql = (
        "SELECT '图片' AS name, 5 AS n, range(100) AS r UNION ALL SELECT 'a' || chr(27) || "
        "'[31m', 1234, [7] ORDER BY n"
    )
    text = query(store, sql) or ""
    assert text.splitlines() == [
        "name          n  r",
        "---------  ----  ---------------------",
        "图片          5  [0, 1, 2, 3, ... 100]",
        "a\\x1b[31m  1234  [7]",
    ]
    long = query(store, "SELECT * FROM range(5000)") or ""
    assert len(long.splitlines()) == 1003 and "other formats show all" in long


def test_threads_of_a_query_do_not_move_each_other_in_a_file(store: Store) -> None:
    """DuckDB seeks and reads in two calls, and its threads share one open file."""
    file = SharedFile(store, io.BytesIO(bytes(range(200))))
    assert file.seek(100) == 100
    with ThreadPoolExecutor(1) as other:
        assert other.submit(file.read, 3).result() == b"\0\1\2"
        assert file.read(2) == bytes([100, 101])
        assert other.submit(file.read, 1).result() == b"\3"
    assert (file.seek(-1, io.SEEK_END), file.read(5), file.tell()) == (199, bytes([199]), 200)
    small_root(
        store,
        [SmallPerson(f"Person {n}", 40, size=20_000) for n in range(8)],
        Snapshot(1),
        people_per_chunk=8,
    )
    connection = connect(store)
    assert max(e.bytes for e in load(store).entries) > 5_000_000
    for _ in range(5):
        assert connection.execute(
            "SELECT count(*) FILTER (sha256(bytes) = sha256) FROM images"
        ).fetchall() == [(320,)]


def test_runs_are_read_leniently(store: Store) -> None:
    record = {
        "run_id": "r1",
        "started": "2026-01-02T03:04:05+00:00",
        "finished": "2026-01-02T03:05:05Z",
        "status": "done",
    }
    store.put(
        "runs/r1.json",
        json.dumps({**record, "stages": {"detect": {"rows": 7, "seconds": 1.5}}}).encode(),
    )
    store.put(
        "runs/r2.json",
        json.dumps(
            {"started": 1.0, "status": None, "stages": [{"stage": "x"}, 3], "extra": {}}
        ).encode(),
    )
    store.put("runs/broken.json", b"{")
    found = json.loads(
        query(store, "SELECT run_id, seconds, status, stages FROM runs ORDER BY run_id", "json")
        or ""
    )
    nothing = dict.fromkeys(("rows", "units", "adopted", "failed", "seconds", "rows_per_second"))
    assert found == [
        {
            "run_id": "r1",
            "seconds": 60.0,
            "status": "done",
            "stages": [{"stage": "detect", **nothing, "rows": 7, "seconds": 1.5}],
        },
        {"run_id": "r2", "seconds": None, "status": None, "stages": [{"stage": "x", **nothing}]},
    ]
    assert (
        query(store, "SELECT record->>'extra' AS e FROM runs WHERE run_id = 'r2'", "csv")
        == "e\n{}\n"
    )
