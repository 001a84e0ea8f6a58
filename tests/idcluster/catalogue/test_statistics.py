"""Numbers about a dataset: that they add up, whatever state it is in, and that they are those of
the tables.
"""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from idcluster.catalogue.connection import connect
from idcluster.catalogue.funnel import funnel, people, people_lost, reasons
from idcluster.catalogue.statistics import STATISTICS, compute
from idcluster.root.dataset_root import make_root
from idcluster.root.parquet import seal_table
from idcluster.root.snapshot import Snapshot, publish
from idcluster.root.storage import Store
from pipeline.cli import app
from pipeline.prepared_dag import Selection
from pipeline.report.dataset_page import write_report
from schemas import TABLES
from tests.pipeline.rooms import run_toy, small_buckets
from tests.pipeline.small_root import SmallPerson, small_root
from tests.pipeline.toy import RAISES, picture
from tests.pipeline.toy import people as toy_people

# fmt: off
PEOPLE = [
    SmallPerson("Ada Lovelace", 5, rejected=2, faceless=1), SmallPerson("Zoë Łuczak", 3),
    SmallPerson("Nobody's Face", 0, faceless=2),
]
# fmt: on


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = make_root(str(tmp_path / "root"), "small")
    small_root(found, PEOPLE)
    return found


@pytest.fixture
def connection(store: Store) -> Iterator[duckdb.DuckDBPyConnection]:
    made = connect(store)
    yield made
    made.close()


def adds_up(connection: duckdb.DuckDBPyConnection) -> dict[str, dict[str, int]]:
    """Of every step, what came is what went through and what did not, by reason; and what came went
    through the step before.
    """
    lines = {line["step"]: line for line in funnel(connection).to_pylist()}
    lost: dict[str, dict[str, int]] = {}
    for row in reasons(connection).to_pylist():
        assert row["reason"] not in lost.setdefault(row["step"], {}) or row["status"], (
            "one line a reason"
        )
        lost[row["step"]][row["reason"]] = lost[row["step"]].get(row["reason"], 0) + row["rows"]
    for line in lines.values():
        assert line["came"] == line["went_through"] + sum(lost.get(line["step"], {}).values()), line
        parent = lines.get(line["of"] or "")
        if parent is not None and parent["unit"] == line["unit"]:
            assert line["came"] == parent["went_through"], line
    persons = {line["step"]: line for line in people(connection).to_pylist()}
    gone: dict[str, int] = {}
    for row in people_lost(connection).to_pylist():
        gone[row["step"]] = gone.get(row["step"], 0) + row["people"]
    for line in persons.values():
        assert line["came"] == line["went_through"] + gone.get(line["step"], 0), line
    return lost


def test_nothing_is_lost_without_a_reason(connection: duckdb.DuckDBPyConnection) -> None:
    lost = adds_up(connection)
    assert lost["with_face"] == {"no_face": 3}
    assert lost["kept"] == {"filtered": 2}
    assert lost["captioned"] == {"no_answer": 1}
    assert lost["sharded"] == {"not_yet": 8}
    said = {
        line["step"]: (line["came"], line["went_through"])
        for line in funnel(connection).to_pylist()
    }
    assert said["offered"] == (13, 13)
    assert said["with_face"] == (13, 10)
    assert said["kept"] == (10, 8)
    assert {
        row["step"]: (row["reason"], row["people"]) for row in people_lost(connection).to_pylist()
    } == {"with_face": ("no_face", 1), "sharded": ("not_yet", 2)}


@pytest.mark.slow
@pytest.mark.parametrize("finished", [False, True])
def test_it_adds_up_after_real_runs_in_every_state(tmp_path: Path, finished: bool) -> None:
    """After a crawl alone, with images that nobody can read, with people who go, and with
    shards.
    """
    source = toy_people(tmp_path / "people")
    (source / "person 00" / "raises.png").write_bytes(picture(10, trouble=RAISES))
    (source / "Nobody").mkdir()
    (source / "Nobody" / "broken.jpg").write_bytes(b"no picture at all")
    names = sorted(folder.name for folder in source.iterdir())

    def told(**selection: Any) -> dict[str, dict[str, int]]:
        if finished:
            with small_buckets():
                run_toy(tmp_path, source, tmp_path / "root", selection=Selection(**selection))
        else:
            run_toy(tmp_path, source, tmp_path / "root", selection=Selection(**selection))
        connection = connect(str(tmp_path / "root"))
        try:
            return adds_up(connection)
        finally:
            connection.close()

    crawled = told(only=("crawl",))
    assert set(crawled["with_face"]) == {"not_yet"}
    assert crawled["fetched"]["not_an_image"] >= 1
    some = told(limit=5)
    assert some["with_face"]["not_yet"] > 0
    whole = told()
    assert not [step for step, found in whole.items() if "not_yet" in found], (
        "this DAG has no stage fit: nothing is lost there"
    )
    assert {"no_face", "decode_error"} <= set(whole["with_face"])
    for file in (source / names[1]).iterdir():
        file.unlink()
    (source / names[2] / "new.png").write_bytes(picture(30, noise=3))
    gone = told()
    assert gone["offered"]["gone"] > 0
    assert not [step for step, found in gone.items() if "left_over" in found]
    left = told(only=("crawl", "detect"))
    assert all(
        rows > 0 for step in left.values() for reason, rows in step.items() if reason != "left_over"
    )


@pytest.mark.parametrize(
    ("stages", "steps"),
    [
        (["crawl"], ["offered", "fetched"]),
        (
            ["crawl", "caption", "clean"],
            ["offered", "fetched", "with_face", "embedded", "kept", "captioned"],
        ),
        (["crawl", "shard"], ["offered", "fetched", "with_face", "embedded", "kept", "sharded"]),
    ],
)
def test_stages_that_no_dag_names_are_no_losses(
    tmp_path: Path, stages: list[str], steps: list[str]
) -> None:
    """Whoever wants images alone would be told that all of them were lost on the way to captions
    and shards.
    """
    root = make_root(str(tmp_path), "small")
    schema = TABLES["candidates"]
    row = {
        "identity_id": "1" * 16,
        "image_id": "2" * 24,
        "address": "local:a/1.jpg",
        "source": "local",
        "rank": 0,
    }
    sealed = seal_table(
        root, schema, "00000000", 0, 0, schema.build([{**row, "status": "ok", "inputs": bytes(8)}])
    )
    publish(root, Snapshot(0, (sealed.entry(schema, "00000000", 0, 0, "basis"),)))
    root.put(
        "runs/1.json",
        json.dumps({"run_id": "1", "dag": {"stages": {name: {} for name in stages}}}).encode(),
    )
    root.put("runs/2.json", json.dumps({"run_id": "2", "dag": "of another version"}).encode())
    connection = connect(root)
    assert funnel(connection)["step"].to_pylist() == steps
    assert set(reasons(connection)["step"].to_pylist()) <= set(steps) and set(
        people_lost(connection)["step"].to_pylist()
    ) <= set(steps)
    connection.close()
    assert write_report(root, tmp_path / "report.html", 1).people == 0


def test_the_numbers_are_those_of_the_tables(connection: duckdb.DuckDBPyConnection) -> None:
    tables = compute(connection)
    found = {name: table.to_pylist() for name, table in tables.items()}
    assert set(found) == set(STATISTICS)
    assert not [
        field
        for table in tables.values()
        for field in table.schema
        if pa.types.is_decimal(field.type)
    ], "JSON has none"
    assert [(line["from"], line["number"]) for line in found["cluster_sizes"]] == [
        (0.0, 1),
        (3.0, 1),
        (5.0, 1),
    ]
    per_person = {line["step"]: line for line in found["images_per_person"]}
    assert (
        per_person["offered"]["people"],
        per_person["offered"]["total"],
        per_person["offered"]["most"],
    ) == (3, 13, 8)
    assert (per_person["kept"]["least"], per_person["kept"]["median"]) == (0, 3)
    assert [(line["from"], line["to"], line["number"]) for line in found["picture_sizes"]] == [
        (0.0, 64.0, 13)
    ]
    assert sum(line["images"] for line in found["formats"]) == 13
    assert found["licences"] == [{"licence": "CC0", "offered": 13, "kept": 8}]
    assert found["sources"] == [{"source": "local", "offered": 13, "kept": 8}]
    assert found["hosts"] == [{"host": "local:", "offered": 13, "hosts": 1}]
    assert {(line["keep"], line["from"]): line["number"] for line in found["similarity"]} == {
        (True, 0.74): 8,
        (False, 0.74): 2,
    }
    assert found["pose"] == [{"yaw": 0, "pitch": 0, "faces": 8}]
    assert sum(line["number"] for line in found["captions"]) == 7
    assert found["affect"] == [] == found["screening"]


def test_every_statistic_of_an_empty_dataset_is_empty_or_zero(tmp_path: Path) -> None:
    connection = connect(str(tmp_path / "nothing"))
    for table in compute(connection).values():
        for row in table.to_pylist():
            assert all(value in (0, None, 0.0) or isinstance(value, str) for value in row.values())
    connection.close()


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("https://user:secret@Pictures.example.org:8443/a/b.jpg", "Pictures.example.org"),
        ("http://example.org", "example.org"),
        ("local:http stuff/1.jpg", "local:"),
        ("https-folder:a/1.jpg", "https-folder:"),
    ],
)
def test_hosts_are_told_without_user_and_port(address: str, host: str) -> None:
    from idcluster.catalogue import statistics

    sql = (
        f"SELECT {statistics._BARE} FROM (SELECT {statistics._HOST} AS host FROM (SELECT ? AS "
        "address))"
    )
    assert duckdb.connect().execute(sql, [address]).fetchall() == [(host,)]


@pytest.mark.slow
def test_the_command_in_every_format(store: Store, tmp_path: Path) -> None:
    def said(*arguments: str) -> str:
        answer = CliRunner().invoke(app, ["stats", store.root, *arguments])
        assert answer.exit_code == 0, answer.output
        return answer.output

    assert "funnel: Images and faces" in said() and "no rows:" in said()
    assert "  8  " in said("--only", "funnel")
    assert json.loads(said("--format", "json", "--only", "sources,formats"))["sources"] == [
        {"source": "local", "offered": 13, "kept": 8}
    ]
    assert list(csv.reader(io.StringIO(said("--format", "csv", "--only", "sources"))))[1] == [
        "local",
        "13",
        "8",
    ]
    said("--format", "parquet", "--output", str(tmp_path / "numbers"))
    assert {path.stem for path in (tmp_path / "numbers").iterdir()} == set(STATISTICS)
    assert pq.read_table(tmp_path / "numbers" / "sources.parquet").num_rows == 1
    assert "cluster_sizes" in said("--list")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "funel"], "did you mean 'funnel'?"),
        (["--format", "xml"], "there are table, csv, json and parquet"),
        (["--format", "csv"], "name one (--only funnel) or a folder"),
        (["--format", "parquet", "--only", "funnel"], "name a file"),
        (["--snapshot", "9"], "no snapshot 9"),
    ],
)
def test_what_is_asked_wrongly_is_told(store: Store, arguments: list[str], said: str) -> None:
    answer = CliRunner().invoke(app, ["stats", store.root, *arguments])
    assert answer.exit_code in (1, 2)
    assert said in answer.output
