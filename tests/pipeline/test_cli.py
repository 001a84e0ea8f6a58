"""The command line as a user meets it: what each command prints, and that wrong input gets one
clear message and no traceback.
"""

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from idcluster.root import lease as leases
from idcluster.root.lease import Lease
from idcluster.root.process import started
from idcluster.root.snapshot import numbers, path_of
from idcluster.root.storage import Store
from pipeline.cli import app
from pipeline.execution.inline import Inline
from schemas import TABLES
from tests.pipeline.rooms import run_toy
from tests.pipeline.toy import people, toy_dag

REPOSITORY = Path(__file__).parents[2]
QUICKSTART = REPOSITORY / "dags" / "quickstart.yaml"
SCRFD = REPOSITORY / "dags" / "photos_scrfd_edgeface.yaml"


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wide terminal without colours, and no models directory from the environment."""
    monkeypatch.delenv("IDCLUSTER_MODELS", raising=False)
    for name in ("FORCE_COLOR", "PY_COLORS", "TTY_COMPATIBLE", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("NO_COLOR", "1")


def call(*words: Any, code: int = 0) -> str:
    """The output of a command that has to end with `code`; no error may come as a traceback."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exception is None or isinstance(result.exception, SystemExit), (
        f"{result.exception!r}\n{result.output}"
    )
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result.output


def refused(*words: Any, code: int = 1) -> str:
    """The message of a command that is refused: it says who speaks, and nothing else was
    printed.
    """
    said = call(*words, code=code)
    assert said.startswith("idcluster: ")
    assert "Errno" not in said
    return said.removeprefix("idcluster: ").strip()


def row(output: str, first: str) -> str:
    """The cells of the line that begins with a word, with one blank between them."""
    [line] = [line for line in output.splitlines() if line.split()[:1] == [first]]
    return " ".join(line.split())


@dataclass(frozen=True)
class Home:
    """A DAG file, its source and a root in which it has run."""

    folder: Path
    people: Path
    root: Path

    @property
    def dag(self) -> Path:
        return self.folder / "toy.yaml"

    def copy(self, to: Path) -> "Home":
        shutil.copytree(self.folder, to, dirs_exist_ok=True)
        home = Home(to, to / "people", to / "root")
        toy_dag(home.folder, home.people, home.root)
        return home


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A finished dataset that no test changes."""
    folder = tmp_path_factory.mktemp("made")
    home = Home(folder, people(folder / "people"), folder / "root")
    run_toy(home.folder, home.people, home.root)
    return home


@pytest.fixture
def mine(made: Home, tmp_path: Path) -> Home:
    """A finished dataset of the test's own."""
    return made.copy(tmp_path / "home")


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs without a cluster."""
    monkeypatch.setattr(
        "pipeline.execution.ray_engine.RayEngine", lambda spec, address=None: Inline(spec.build)
    )


# Help


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            (),
            [
                "run",
                "plan",
                "status",
                "query",
                "schema",
                "gc",
                "demo",
                "models",
                "Build identity-cluster face datasets",
            ],
        ),
        ((), ["snapshots", "diff", "rollback"]),
        (
            ("run",),
            [
                "DAG",
                "--set",
                "--only",
                "--limit",
                "--where",
                "--retry",
                "--models",
                "--address",
                "--accept-licence",
                "Ctrl-C",
            ],
        ),
        (
            ("plan",),
            ["DAG", "--set", "--only", "--limit", "--where", "--retry", "--models", "Does nothing"],
        ),
        (("status",), ["ROOT", "--runs", "--snapshot"]),
        (
            ("query",),
            ["ROOT", "SQL", "--format", "--output", "--snapshot", "table, csv, json or parquet"],
        ),
        (("schema",), ["TABLE"]),
        (("gc",), ["ROOT", "--keep", "--current-only", "--dry-run"]),
        (("snapshots",), ["ROOT"]),
        (("diff",), ["ROOT", "A", "[B]", "--people", "--format"]),
        (("rollback",), ["ROOT", "N", "Deletes nothing"]),
        (("demo",), ["FOLDER", "--seed", "no network"]),
        (("models",), ["list", "verify", "fetch", "licences", "pin", "add", "benchmark"]),
        (("models", "list"), ["--models", "IDCLUSTER_MODELS"]),
        (("models", "fetch"), ["--dag", "--all-any", "--mirror", "--pin"]),
        (("models", "verify"), ["--models", "SHA-256"]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_help_names_what_there_is(words: tuple[str, ...], expected: list[str]) -> None:
    said = call(*words, "--help")
    assert [word for word in expected if word.casefold() not in said.casefold()] == []


def test_without_arguments_there_is_help() -> None:
    assert "Commands" in call(code=2)


def test_unknown_command_and_missing_argument() -> None:
    assert "No such command 'runn'" in call("runn", code=2)
    assert "Missing argument 'DAG'" in call("run", code=2)


@pytest.mark.parametrize(
    "words",
    [
        "status {tmp}/nowhere",
        "query {tmp} SELECT",
        "stats {tmp}",
        "report {tmp}/nowhere",
        "snapshots {tmp}",
        "gc {tmp}",
        "diff {tmp} 1",
        "rollback {root} 99",
        "diff {root} 99",
        "status {root} --snapshot 99",
        "query {root} SELECT --snapshot 99",
        "stats {root} --only funel",
        "stats {root} --format xml",
        "report {root} --snapshot 99",
        "status {root} --runs -1",
        "inspect {root} Nobody",
        "correct {root} --merge Nobody",
        "correct {root} --reject 1234",
        "correct {root} --csv {tmp}/nothing.csv",
        "forget {root}",
        "forget {root} --identity Nobody --dry-run",
        "forget {root} --sha256 xyz",
        "forget {root} --like {tmp}/nothing.jpg",
        "shards list {tmp}",
        "shards verify {tmp}",
        "shards verify {root} --profile nofaces",
        "shards splits {root} --profile nofaces",
        "eval clean {root} --labels {tmp}/nothing.csv",
        "models list --kind detec",
        "models list --models {tmp}/nowhere",
        "models fetch nothing --models {tmp}",
        "models fetch dlib_68_points",
        "models pin nothing {tmp} --models {tmp}",
        "models fetch nothing --models {tmp} --mirror {tmp}/nowhere",
        "models benchmark {tmp}/nowhere",
        "schema nothing",
        "run {tmp}/nothing.yaml",
        "plan {tmp}/nothing.yaml",
        "run {dag} -q -v",
        "run {dag} --set stages.shard.params.split_list={tmp}/no.csv",
        "plan {dag} --only detekt",
        "plan {dag} --where nothing=1",
        "nothing",
        "run",
    ],
)
def test_what_is_asked_wrongly_ends_with_2(
    made: Home, tmp_path: Path, inline: None, words: str
) -> None:
    """Scripts tell by it whether to try again."""
    home = made.copy(tmp_path / "home") if "no.csv" in words else made  # that run leaves a record
    given = words.format(root=home.root, tmp=tmp_path, dag=home.dag).split()
    said = call(*given, code=2)
    assert said.strip() and "Traceback" not in said


# schema


def test_schema_shows_all_tables() -> None:
    said = call("schema")
    for name in (*TABLES, "samples"):
        assert f"\n{name} (version " in f"\n{said}"


def test_schema_of_one_table_shows_every_column_with_type_and_meaning() -> None:
    said = call("schema", "faces")
    assert said.startswith("faces (version ")
    assert "written by detect, key face_id, rows stem from images by image_id" in said
    lines = said.splitlines()[1:]
    for column in TABLES["faces"].columns:
        assert (
            f"  {column.name}: {column.type}{'' if column.nullable else ', never null'} - "
            f"{column.description}" in lines
        )


def test_schema_of_a_misspelt_table_names_the_nearest() -> None:
    assert refused("schema", "facez", code=2) == "no table 'facez'; did you mean 'faces'?"
    assert "there are identities, candidates" in refused("schema", "xyzzy", code=2)


@pytest.mark.slow
def test_the_light_core_reads_and_tends_a_dataset_and_says_what_a_run_needs(mine: Home) -> None:
    """An install without the group `faces` has no Ray, OpenCV, psutil, ..."""
    heavy = {
        "ray",
        "cv2",
        "simplejpeg",
        "onnxruntime",
        "dlib",
        "sklearn",
        "PIL",
        "webdataset",
        "psutil",
        "matplotlib",
        "threadpoolctl",
    }
    root, newest = str(mine.root), numbers(Store(mine.root))[-1]
    commands = (
        ("schema",),
        ("models", "list"),
        ("status", root),
        ("query", root, "SELECT count(*) AS n FROM faces", "--format", "csv"),
        ("snapshots", root),
        ("diff", root, "1", "--format", "csv"),
        ("rollback", root, str(newest - 1)),
        ("gc", root, "--current-only"),
        ("plan", str(QUICKSTART)),
    )
    script = f"""
import sys
for name in {heavy}: sys.modules[name] = None
from pipeline.cli import app
from typer.testing import CliRunner
for words in {commands}:
    result = CliRunner().invoke(app, words)
    error = result.exception if not isinstance(result.exception, SystemExit) else ""
    print(result.exit_code, error, result.output.splitlines()[0])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True
    )
    *light, plan = done.stdout.splitlines()
    said = (
        "identities",
        "kind ",
        root,
        "n",
        "snapshot ",
        "table,identity_id",
        f"snapshot {newest + 1} shows",
        "deleted ",
    )
    assert [
        line
        for line, start in zip(light, said, strict=True)
        if not line.startswith(f"0 None {start}")
    ] == [], done.stderr
    assert plan.startswith("1  idcluster: this needs the package ")
    assert plan.endswith("pip install 'idcluster[faces]'")


# query


COUNT = "SELECT status, count(*) AS n FROM faces GROUP BY ALL ORDER BY ALL"


def test_query_as_a_table(made: Home) -> None:
    assert call("query", made.root, COUNT).splitlines() == [
        "status     n",
        "--------  --",
        "failed     4",
        "filtered   4",
        "ok        36",
    ]


def test_query_as_csv_and_json(made: Home) -> None:
    expected = [("failed", 4), ("filtered", 4), ("ok", 36)]
    lines = list(csv.reader(io.StringIO(call("query", made.root, COUNT, "--format", "csv"))))
    assert lines == [["status", "n"], *([status, str(n)] for status, n in expected)]
    found = json.loads(call("query", made.root, COUNT, "--format", "json"))
    assert found == [{"status": status, "n": n} for status, n in expected]


def test_query_into_files(made: Home, tmp_path: Path) -> None:
    target = tmp_path / "answer.parquet"
    assert call("query", made.root, COUNT, "--format", "parquet", "-o", target) == ""
    assert pq.read_table(target)["n"].to_pylist() == [4, 4, 36]
    assert "name a file" in refused("query", made.root, COUNT, "--format", "parquet", code=2)
    assert str(tmp_path / "no") in refused(
        "query", made.root, COUNT, "-o", tmp_path / "no" / "answer.txt", code=2
    )


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("selec 1", 'syntax error at or near "selec"'),
        ("SELECT * FROM facez", "no table 'facez'; did you mean 'faces'?"),
        ("SELECT scor FROM faces", '"scor"'),
        ("", "there is no statement in it"),
        (
            "SELECT * FROM read_csv('/etc/passwd')",
            "a query reads the tables of the dataset and no other file",
        ),
        (
            "COPY faces TO '/tmp/stolen.csv'",
            "a query reads the tables of the dataset and no other file",
        ),
    ],
)
def test_bad_sql_is_told_in_one_line(made: Home, sql: str, said: str) -> None:
    message = refused("query", made.root, sql, code=2)
    assert said in message
    assert len(message.splitlines()) == 1


def test_query_of_a_wrong_format_or_place(made: Home, tmp_path: Path) -> None:
    assert (
        refused("query", made.root, COUNT, "--format", "jsn", code=2)
        == "no format 'jsn'; there are table, csv, json and parquet"
    )
    assert "is no dataset (it has no dataset.json); `idcluster run` makes one" in refused(
        "query", tmp_path, COUNT, code=2
    )


def test_query_of_an_older_snapshot(made: Home) -> None:
    first = call(
        "query", made.root, "SELECT count(*) AS n FROM faces", "--format", "csv", "--snapshot", 1
    )
    assert first.split() == ["n", "0"]
    assert "has no snapshot 99; `idcluster snapshots` lists what there is" in refused(
        "query", made.root, COUNT, "--snapshot", 99, code=2
    )


# status


def test_status_after_a_run(made: Home) -> None:
    said = call("status", made.root)
    newest = numbers(Store(made.root))[-1]
    assert said.startswith(f"{made.root}: snapshot {newest}, published 20")
    assert f"; kept: 1-{newest}" in said
    assert row(said, "faces") == "faces 44 36 4 4"
    assert row(said, "images") == "images 44 40 4"
    assert row(said, "shards") == "shards 1 28 samples"
    assert " done in " in row(said, "run")
    assert "being written" not in said


def test_status_of_an_older_snapshot(made: Home) -> None:
    said = call("status", made.root, "--snapshot", 1)
    assert ": snapshot 1, published" in said
    assert row(said, "candidates").startswith("candidates 44 ")
    assert "captions" not in said


def test_status_shows_the_last_runs_and_their_errors(mine: Home) -> None:
    for number, content in enumerate(
        (
            {
                "run_id": "a",
                "status": "failed",
                "seconds": 1.0,
                "snapshot": 3,
                "error": "OSError: the disk [is] full",
            },
            {"run_id": "b", "status": "drained", "seconds": 2.0, "snapshot": 3},
        )
    ):
        (mine.root / "runs" / f"3{number}.json").write_text(json.dumps(content))
    (mine.root / "runs" / "39.json").write_text("{ damaged")
    lines = call("status", mine.root, "--runs", 3).splitlines()[-3:]
    assert lines == [
        "run a: failed in 1.0 s, snapshot 3: OSError: the disk [is] full",
        "run b: drained in 2.0 s, snapshot 3",
        "runs/39.json: not a record of a run",
    ]
    assert "run " not in call("status", mine.root, "--runs", 0)


def test_status_says_who_writes(mine: Home) -> None:
    with Lease(Store(mine.root), "run-of-somebody"):
        assert (
            f"being written by run run-of-somebody (host {os.uname().nodename}, process "
            f"{os.getpid()})" in call("status", mine.root)
        )


def test_status_tells_a_lease_that_a_dead_run_left(mine: Home) -> None:
    """A user would wait for a run that is gone."""
    dead = {
        "run": "run-that-died",
        "host": "elsewhere",
        "pid": 7,
        "started": 0,
        "secret": "s",
        "at": time.time() - 100,
    }
    (mine.root / leases.path_of(999)).write_text(json.dumps(dead))
    said = call("status", mine.root)
    assert (
        "lease left by dead run run-that-died (host elsewhere, process 7); the next run takes it "
        "over" in said
    )
    assert "being written" not in said


def test_status_of_a_dataset_without_snapshots(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "dataset.json").write_text('{"format": 1, "name": "new"}')
    said = call("status", root)
    assert "snapshot 0, published never; kept: none" in said
    assert row(said, "shards") == "shards 0 0 samples"


@pytest.mark.parametrize("content", ["[]", "7", "null", '"text"'])
def test_a_dataset_json_that_is_no_mapping_is_called_damaged(tmp_path: Path, content: str) -> None:
    (tmp_path / "dataset.json").write_text(content)
    assert (
        refused("status", tmp_path, code=1)
        == f'{tmp_path}/dataset.json is damaged: it is to hold {{"format": 1, "name": ...}}'
    )


def test_status_of_no_dataset(tmp_path: Path) -> None:
    assert (
        refused("status", tmp_path, code=2)
        == f"{tmp_path} is no dataset (it has no dataset.json); `idcluster run` makes one"
    )
    assert "no dataset" in refused("status", tmp_path / "nowhere", code=2)
    assert not (tmp_path / "nowhere").exists()


# plan


def test_plan_on_a_fresh_root_does_nothing_but_tell(made: Home, tmp_path: Path) -> None:
    said = call("plan", made.dag, "--set", f"root={tmp_path / 'fresh'}")
    assert "source: 4 people, 44 images: 44 new, 0 changed, 0 gone" in said
    assert row(said, "crawl") == "crawl 0 44 44 new or changed at the source"
    assert row(said, "caption") == "caption 0 what follows"
    assert "shards: follow from the rows above" in said
    assert not (tmp_path / "fresh").exists()


def test_plan_where_all_is_done(made: Home) -> None:
    assert call("plan", made.dag).splitlines()[1:] == ["nothing to do"]


def test_plan_after_a_changed_threshold(made: Home) -> None:
    said = call("plan", made.dag, "--set", "stages.clean.params.similarity_threshold=0.9")
    assert row(said, "detect") == "detect 44 -"
    assert re.fullmatch(r"clean 0 4 \d+ 4 parameters, code or weights changed", row(said, "clean"))
    assert row(said, "caption").endswith(" what follows")


def test_plan_with_retry_names_rows_tasks_and_estimate(made: Home) -> None:
    said = call("plan", made.dag, "--retry", "reason = 'no_face'")
    assert re.fullmatch(r"detect \d+ 4 \d+ 4 asked to retry < 1 s", row(said, "detect"))
    assert row(said, "crawl") == "crawl 44 -", "no tasks of its own"


def test_plan_with_a_limit_says_so(made: Home) -> None:
    said = call("plan", made.dag, "--retry", "reason = 'no_face'", "--limit", 1)
    assert "at most 1 image a phase (--limit)" in said
    assert row(said, "detect").split()[3] == "1", "one task for one image"


@pytest.mark.parametrize("command", ["plan", "run"])
def test_wrong_selections(made: Home, command: str) -> None:
    only = refused(command, made.dag, "--only", "detct", code=2)
    assert only.startswith("--only detct: the DAG has no such stage; it has crawl, detect,")
    where = refused(command, made.dag, "--where", "nam = 'Ada'", code=2)
    assert where.startswith("""--where "nam = 'Ada'": """) and '"nam"' in where
    retry = refused(command, made.dag, "--retry", "reason = ", code=2)
    assert retry.startswith("--retry 'reason = ': ") and "syntax error" in retry
    assert "columns that every table has: status, reason, detail" in refused(
        command, made.dag, "--retry", "nam = 1", code=2
    )
    assert "'--limit'" in call(command, made.dag, "--limit", 0, code=2)


# gc


def test_gc_dry_run_and_for_real(mine: Home) -> None:
    store = Store(mine.root)
    there = numbers(store)
    orphan = mine.root / "tables" / "faces" / "orphan.parquet"
    orphan.write_bytes(bytes(1_500_000))
    said = call("gc", mine.root, "--keep", 2, "--dry-run")
    assert said == f"would delete {len(there) - 1} snapshots and 1 file, 1.5 MB\n", (
        "one run, one state"
    )
    assert numbers(store) == there and orphan.exists()
    assert call("gc", mine.root) == f"deleted {len(there) - 1} snapshots and 1 file, 1.5 MB\n"
    assert numbers(store) == there[-1:] and not orphan.exists()
    assert f"kept: {there[-1]}" in call("status", mine.root)
    assert call("plan", mine.dag).splitlines()[1:] == ["nothing to do"]
    assert call("gc", mine.root) == "deleted 0 snapshots and 0 files, 0.0 MB\n"


def test_gc_is_refused_where_somebody_writes(mine: Home) -> None:
    with Lease(Store(mine.root), "run-of-somebody"):
        assert "being written by run run-of-somebody" in refused("gc", mine.root)
    assert "'--keep'" in call("gc", mine.root, "--keep", 0, code=2)
    assert "is no dataset" in refused("gc", mine.people, code=2)


def test_gc_of_all_that_is_not_current(mine: Home) -> None:
    other = ("stages.caption.params.prompt=other",)
    run_toy(mine.folder, mine.people, mine.root, other)
    newest = numbers(Store(mine.root))[-1]
    lines = call("gc", mine.root, "--current-only", "--dry-run").splitlines()
    # The earlier captions, the replaced shard and its sidecar.
    assert (
        lines[0]
        == f"would publish snapshot {newest + 1}, which shows the same and names 3 files less"
    )
    lines = call("gc", mine.root, "--current-only").splitlines()
    assert lines[:2] == [
        f"published snapshot {newest + 1}, which shows the same and names 3 files less",
        "a switch back to earlier parameters will compute again",
    ]
    assert lines[3] == "kept for older snapshots: 3 more files; --keep 1 deletes these too"
    assert re.fullmatch(
        r"deleted 1 snapshot and 3 files, \d.\d MB\n",
        call("gc", mine.root, "--current-only", "--keep", 1),
    )


# snapshots, diff, rollback


def test_snapshots_lists_what_changed(mine: Home) -> None:
    head, first, *_, last = call("snapshots", mine.root).splitlines()
    assert head.split() == ["snapshot", "published", "run", "files", "MB", "changes"]
    assert first.split()[0] == "1" and first.endswith("identities +4, candidates +44")
    assert last.split()[0] == str(numbers(Store(mine.root))[-1]) and last.endswith("samples +28")
    assert "is no dataset" in refused("snapshots", mine.people, code=2)


def test_diff_by_table_and_person(mine: Home) -> None:
    newest = numbers(Store(mine.root))[-1]
    assert (
        call("diff", mine.root, newest)
        == f"from snapshot {newest} to {newest}: both show the same\n"
    )
    run_toy(mine.folder, mine.people, mine.root, ("stages.caption.params.prompt=other",))
    said = call("diff", mine.root, newest)
    assert "captions: prompt an image -> other" in said.splitlines()
    assert row(said, "captions") == "captions 0 28 0"
    assert len(re.findall(r"person 0\d +0 +14 +0", said)) == 4
    found = json.loads(call("diff", mine.root, newest, "--format", "json"))
    assert sum(line["changed"] for line in found if line["table"] == "captions") == 28
    lines = list(
        csv.reader(io.StringIO(call("diff", mine.root, newest, newest + 2, "--format", "csv")))
    )
    assert lines[0] == ["table", "identity_id", "name", "added", "changed", "gone"] and len(
        lines
    ) == 1 + len(found)
    assert (
        refused("diff", mine.root, newest, "--format", "parquet", code=2)
        == "no format 'parquet'; there are table, csv and json"
    )
    assert "has no snapshot 99" in refused("diff", mine.root, 99, code=2)


def test_diff_lists_the_people_with_most_changes_first(
    made: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.commands.history.PEOPLE_SHOWN", 2)
    said = call("diff", made.root, 0)
    assert said.count("person 0") == 2 and said.endswith("... and 2 more people: --people\n")
    assert call("diff", made.root, 0, "--people").count("person 0") == 4


def test_rollback_and_the_run_after(mine: Home, inline: None) -> None:
    newest = numbers(Store(mine.root))[-1]
    assert call("rollback", mine.root, newest - 2).startswith(
        f"snapshot {newest + 1} shows what snapshot {newest - 2} shows; "
    )
    assert f"back to {newest - 2}" in call("snapshots", mine.root)
    assert "has no snapshot 99" in refused("rollback", mine.root, 99, code=2)
    with Lease(Store(mine.root), "run-of-somebody"):
        assert "being written by run run-of-somebody" in refused("rollback", mine.root, 1)
    assert "  caption: 28 rows" in call("run", mine.dag)


# Wrong inputs to `run` and `plan`


both = pytest.mark.parametrize("command", ["run", "plan"])


@both
def test_typos_in_a_dag_are_told_with_their_lines(command: str, made: Home, tmp_path: Path) -> None:
    text = (
        made.dag.read_text().replace("  detect:", "  detct:").replace("min_faces: 1", "mn_faces: 1")
    )
    text = text.replace("target_mb: 1", "target_mb: many")
    file = tmp_path / "typo.yaml"
    file.write_text(text)
    said = refused(command, file, code=2).splitlines()
    at = {
        name: next(n for n, line in enumerate(text.splitlines(), 1) if name in line)
        for name in ("detct:", "mn_faces:", "target_mb:")
    }
    assert f"{file}:{at['detct:']}: stages.detct: unknown stage; did you mean 'detect'?" in said
    assert (
        f"{file}:{at['mn_faces:']}: stages.clean.params.mn_faces: unknown name; did you mean "
        "'min_faces'?" in said
    )
    assert any(
        line.startswith(f"{file}:{at['target_mb:']}: stages.shard.params.target_mb: ")
        and '"many"' in line
        for line in said
    )


@both
def test_unknown_backends_stages_and_fields(command: str, made: Home) -> None:
    said = refused(command, made.dag, "--set", "stages.detect.backend=tyo", code=2)
    assert (
        said == "--set stages.detect.backend=tyo: stages.detect.backend: stage 'detect' has no "
        "backend 'tyo'; did you mean 'toy'?"
    )
    assert "did you mean 'caption'?" in refused(
        command, made.dag, "--set", "stages.captoin.backend=toy", code=2
    )
    assert "--set root: write it as name.of.field=value" in refused(
        command, made.dag, "--set", "root", code=2
    )


@both
def test_a_dag_file_that_is_not_there(command: str, made: Home) -> None:
    assert "toy.yml: there is no such file; did you mean 'toy.yaml'?" in refused(
        command, made.folder / "toy.yml", code=2
    )
    assert f"{made.folder}: cannot be read" in call(command, made.folder, code=2)


@both
def test_missing_weights_say_where_to_get_them(command: str, made: Home, tmp_path: Path) -> None:
    words = (SCRFD, "--set", f"source.path={made.people}", "--set", f"root={tmp_path / 'root'}")
    said = refused(command, *words)
    assert said.startswith("weights 'scrfd_2.5g_bnkps' are not there: no models directory is set")
    for part in (
        "sha256 ",
        "licence",
        "source",
        "`--models DIR`",
        "IDCLUSTER_MODELS",
        "idcluster models list",
    ):
        assert part in said
    assert f"looked below {tmp_path}" in refused(command, *words, "--models", tmp_path)
    assert not (tmp_path / "root").exists(), "nothing was begun"


@both
def test_a_source_that_is_missing_empty_or_a_file(
    command: str, made: Home, tmp_path: Path, inline: None
) -> None:
    def said(path: Path) -> str:
        return refused(
            command, made.dag, "--set", f"source.path={path}", "--set", f"root={tmp_path / 'root'}"
        )

    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    remedy = "set source.path to a folder with one folder a person"
    assert f"source 'local': {tmp_path}/nowhere does not exist; {remedy}" in said(
        tmp_path / "nowhere"
    )
    assert (
        f"{tmp_path}/empty holds no folders; it needs one folder a person: people/<name>/*.jpg"
        in said(tmp_path / "empty")
    )
    assert f"{tmp_path}/file is not a folder" in said(tmp_path / "file")


@both
def test_a_root_that_is_a_file_or_below_one(command: str, made: Home, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("not a folder")
    for root in (file, file / "below"):
        said = refused(command, made.dag, "--set", f"root={root}")
        assert (
            said == f"{root}/dataset.json: a folder on the way there is a file; name another place"
        )
        assert "is a file" in refused("status", root)


@pytest.mark.parametrize("place", ["/proc/idcluster/root", "/sys/idcluster/root"])
def test_a_root_where_nothing_can_be_written(made: Home, place: str) -> None:
    if not Path(place).parents[1].is_dir():
        pytest.skip(f"there is no {Path(place).parents[1]} here")
    assert f"cannot write {place}/dataset.json: " in refused(
        "run", made.dag, "--set", f"root={place}"
    )


@pytest.mark.slow
def test_a_dataset_on_a_read_only_disk_can_be_read_and_not_run_or_collected(mine: Home) -> None:
    """Root may write wherever permissions forbid it, so the disk is made read-only, in a mount
    namespace of its own.
    """
    if (
        shutil.which("unshare") is None
        or subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode
    ):
        pytest.skip("mounting is not allowed here")
    script = """
from pipeline.cli import app
from tests.pipeline.toy import register
from typer.testing import CliRunner
import sys
register()
dag, root = sys.argv[1:]
query = ["query", root, "SELECT 1"]
for words in (["plan", dag], ["status", root], query, ["run", dag], ["gc", root]):
    result = CliRunner().invoke(app, words)
    error = repr(result.exception) if result.exit_code == 0 else ""
    print(result.exit_code, error, result.output.splitlines()[0])
"""
    mount = (
        f"mount --bind '{mine.root}' '{mine.root}' && mount -o remount,bind,ro '{mine.root}' "
        '&& exec "$@"'
    )
    command = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        mount,
        "sh",
        sys.executable,
        "-c",
        script,
        str(mine.dag),
        str(mine.root),
    ]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    plan, status, query, run, gc = done.stdout.splitlines()
    assert [line[0] for line in (plan, status, query)] == ["0", "0", "0"], done.stdout
    for line in (run, gc):
        assert (
            line.startswith("1 ")
            and "idcluster: cannot write " in line
            and line.endswith(": the place is read-only")
        )


@pytest.mark.parametrize("command", ["run", "plan", "status", "gc", "query"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"format": 2, "name": "x"}', "has format 2; this idcluster reads format 1"),
        ("{", "dataset.json is damaged: "),
    ],
    ids=["other", "damaged"],
)
def test_a_root_of_another_format(command: str, content: str, said: str, mine: Home) -> None:
    (mine.root / "dataset.json").write_text(content)
    extra = ("SELECT 1",) if command == "query" else ()
    message = refused(command, mine.dag if command in ("run", "plan") else mine.root, *extra)
    assert said in message and str(mine.root) in message


def test_a_damaged_snapshot_is_named_and_an_older_one_readable(mine: Home, inline: None) -> None:
    newest = numbers(Store(mine.root))[-1]
    file = mine.root / path_of(newest)
    whole = file.read_bytes()
    for broken in (b"", whole[:-20], whole[:500] + bytes(20) + whole[520:]):
        file.write_bytes(broken)
        for words in (
            ["run", mine.dag],
            ["plan", mine.dag],
            ["status", mine.root],
            ["gc", mine.root],
            ["query", mine.root, "SELECT 1"],
        ):
            said = refused(*words)
            assert said.startswith(f"{file} is damaged (") and "--snapshot" in said
    assert f"snapshot {newest - 1}, " in call("status", mine.root, "--snapshot", newest - 1)
    assert call(
        "query", mine.root, "SELECT 1 AS x", "--snapshot", newest - 1, "--format", "csv"
    ).split() == ["x", "1"]
    file.unlink()
    assert f"done: snapshot {newest}" in call("run", mine.dag), (
        "without it, a run goes on from the one before"
    )


def test_a_file_that_the_snapshot_names_and_that_is_gone(mine: Home) -> None:
    [file] = (mine.root / "tables" / "embeddings").rglob("*.parquet")
    file.unlink()
    said = call("plan", mine.dag)
    assert said.startswith(f"note: {file} is not there") and "36 new" in said
    assert refused("plan", mine.dag, "--only", "clean").startswith(
        f"{file} is not there, and this run builds on it"
    )
    assert refused("query", mine.root, "SELECT * FROM embeddings").startswith(
        f"{file} is named by the snapshot but not there"
    )


@pytest.mark.parametrize("by", ["itself", "another"])
def test_a_root_that_somebody_writes_to(mine: Home, inline: None, by: str) -> None:
    lease = Lease(Store(mine.root), "run-of-somebody")
    with lease:
        if by == "another":  # a living process of this machine that is not ours
            file = mine.root / leases.path_of(lease.epoch)
            other = {
                **json.loads(file.read_bytes()),
                "pid": os.getppid(),
                "started": started(os.getppid()),
            }
            file.write_text(json.dumps(other))
        said = refused("run", mine.dag)
        assert said.startswith(f"{mine.root} is being written by run run-of-somebody (host ")
        assert said.endswith("; wait for it, or stop it and run again")
        assert call("plan", mine.dag).splitlines()[1:] == ["nothing to do"], "looking is allowed"
    assert "nothing to do" in call("run", mine.dag)


# run


def test_run_tells_what_it_does_in_plain_lines(made: Home, tmp_path: Path, inline: None) -> None:
    home = made.copy(tmp_path / "home")
    shutil.rmtree(home.root)
    (home.people / "person 00" / "nested").mkdir()
    (home.people / "loose.txt").touch()
    said = call("run", home.dag)
    assert "\x1b" not in said
    lines = said.splitlines()
    assert lines[0] == f"note: 1 file beside the folders of people in {home.people} is not used"
    assert lines[1] == f"note: 1 folder inside {home.people}/person 00 is not used"
    assert lines[2] == "source: 4 people, 44 images; 44 new"
    assert re.fullmatch(r"crawl \+ detect \+ embed: 44 images in \d+ tasks", lines[3])
    assert lines[4].startswith("  crawl: 44 rows, ") and lines[4].endswith(
        " rows/s; 4 not_an_image"
    )
    assert any(line.startswith("clean + people: 4 people in ") for line in lines)
    assert "  shard: 28 samples in 1 shard, 1 written" in lines
    assert any(line.startswith("bottleneck: ") for line in lines)
    newest = numbers(Store(home.root))[-1]
    assert lines[-1].startswith(f"done: snapshot {newest} in ")
    record = lines[-1].split("record ")[1]
    assert json.loads((home.root / record).read_text())["status"] == "done"

    again = call("run", home.dag).splitlines()
    assert again[2] == "source: 4 people, 44 images; nothing new"
    assert again[3].startswith(f"nothing to do; snapshot {newest} is up to date (")
    assert len(list((home.root / "runs").glob("*.json"))) == 1, (
        "a run that did nothing leaves no record"
    )


@pytest.mark.slow
def test_run_with_only_limit_where_and_retry(made: Home, tmp_path: Path, inline: None) -> None:
    root = ("--set", f"root={tmp_path / 'root'}")
    assert "  crawl: 44 rows" in call("run", made.dag, *root, "--only", "crawl")
    said = call("run", made.dag, *root, "--only", "detect", "--where", "name = 'person 02'")
    assert "detect: 10 images in " in said
    assert "detect: 5 images in " in call("run", made.dag, *root, "--only", "detect", "--limit", 5)
    said = call("run", made.dag, *root, "--only", "detect", "--retry", "reason = 'no such reason'")
    assert "nothing matches --retry \"reason = 'no such reason'\"" in said
    said = call("run", made.dag, *root, "--only", "detect", "--retry", "reason = 'no_face'")
    assert "  detect: " in said and "no_face" in said


@pytest.mark.slow
def test_quietly_with_details_and_into_a_log_file(made: Home, tmp_path: Path, inline: None) -> None:
    home, log = made.copy(tmp_path / "home"), tmp_path / "logs" / "run.log"
    shutil.rmtree(home.root)
    loose = home.people / "loose.txt"
    loose.touch()
    said = call("run", home.dag, "-q", "--log-file", log)
    lines = said.splitlines()
    assert lines[0].startswith("note: 1 file") and all(
        line.startswith("note: ") for line in lines
    ), "what may matter is said"
    kept = log.read_text()
    for part in (
        "source: 4 people",
        "  clean: 36 rows",
        "crawl: 44 new",
        "snapshot 1 published",
        "done: snapshot",
    ):
        assert part in kept, part
    assert kept.split(" ", 1)[1].startswith("idcluster ") and "\x1b" not in kept
    loose.unlink()
    words = (
        "run",
        home.dag,
        "--set",
        "stages.shard.params.validation=0",
        "--set",
        "stages.caption.params.prompt=other",
    )
    said = call(*words, "--verbose", "--log-file", log)
    assert "  caption: 28 version" in said and "published: " in said
    assert log.read_text().startswith(kept), "what was there stays"
    assert call(*words[:-1], "stages.caption.params.prompt=third", "-q") == ""


def test_errors_reach_the_log_file(made: Home, tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    told = refused(
        "run", made.dag, "--set", "stages.detect.backend=toyy", "--log-file", log, code=2
    )
    assert told.splitlines()[-1] in log.read_text()
    assert refused("run", made.dag, "-v", "-q", code=2).startswith("-v and -q exclude each other")
    assert str(made.dag) in refused("run", made.dag, "--log-file", made.dag / "below", code=1)


# JSON


def as_json(*words: object, code: int = 0) -> Any:
    """What a command prints with --json: one document and nothing else."""
    return json.loads(call(*words, "--json", code=code))


def test_a_plan_as_json(made: Home) -> None:
    assert as_json("plan", made.dag)["nothing_to_do"] is True
    plan = as_json("plan", made.dag, "--set", "stages.caption.params.prompt=other", "--limit", 5)
    assert (
        plan["nothing_to_do"] is False and plan["limit"] == 5 and plan["licences_to_accept"] == []
    )
    assert plan["source"] == {
        "people": 4,
        "offered": 44,
        "new": 0,
        "changed": 0,
        "gone": 0,
        "remarks": [],
    }
    [caption] = [stage for stage in plan["stages"] if stage["stage"] == "caption"]
    assert (
        caption["to_do"] == 28
        and caption["why"] == {"version": 28}
        and caption["more_follows"] is False
    )


def test_status_as_json(mine: Home) -> None:
    (mine.root / "runs" / "x.json").write_text("no JSON")
    status = as_json("status", mine.root)
    assert (
        status["root"] == str(mine.root)
        and status["snapshot"] == status["snapshots"][-1]
        and status["writer"] is None
    )
    assert status["tables"]["faces"] == {"rows": 44, "ok": 36, "filtered": 4, "failed": 4}
    assert status["shards"] == {"shards": 1, "samples": 28}
    assert [run.get("status") for run in status["runs"]] == ["done", None] and status["runs"][1][
        "file"
    ] == "runs/x.json"
    with Lease(Store(mine.root), "r", lambda text: None):
        assert as_json("status", mine.root)["writer"]["run"] == "r"


@pytest.mark.slow
def test_snapshots_gc_and_shards_as_json(mine: Home) -> None:
    (mine.root / "tables" / "faces" / "orphan.parquet").write_bytes(bytes(10))
    found = as_json("snapshots", mine.root)
    assert [one["number"] for one in found] == numbers(Store(mine.root)) and found[0]["changes"]
    for dry_run in (True, False):
        done = as_json("gc", mine.root, *["--dry-run"] * dry_run)
        assert (
            done["dry_run"] is dry_run
            and done["files"] == ["tables/faces/orphan.parquet"]
            and done["published"] is None
        )
        assert len(done["snapshots"]) == len(found) - 1
    [train] = as_json("shards", "list", mine.root)["splits"]
    assert (train["split"], train["images"], train["people"]) == ("train", 28, 4)
    checked = as_json("shards", "verify", mine.root)
    assert checked["wrong"] == 0 and checked["sets"][0]["samples"] == 28
    [tar] = mine.root.rglob("*.tar")
    tar.write_bytes(tar.read_bytes()[:-1024] + bytes(1024))
    tar.write_bytes(b"x" + tar.read_bytes()[1:])
    checked = as_json("shards", "verify", mine.root, code=1)
    assert checked["wrong"] >= 1 and all(
        fault["where"] and fault["what"] for fault in checked["sets"][0]["faults"]
    )


def test_names_with_brackets_are_shown_as_they_are(tmp_path: Path, inline: None) -> None:
    folder = tmp_path / "[red]a [/b]"
    source = people(folder / "people", count=1, pictures=3)
    (source / "loose").touch()
    root = folder / "root"
    toy_dag(folder, tmp_path / "unused", tmp_path / "unused")
    words = (
        folder / "toy.yaml",
        "--set",
        f"root={json.dumps(str(root))}",
        "--set",
        f"source.path={json.dumps(str(source))}",
    )
    assert f"in {source} is not used" in call("plan", *words)
    assert "  crawl: 8 rows" in call("run", *words)
    assert call("status", root).startswith(f"{root}: snapshot ")


def test_a_failed_run_says_why_and_is_recorded(mine: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.execution.engine import EngineError

    class Broken(Inline):
        def run(self, *_: Any) -> Any:
            raise EngineError("StorageError: cannot write part: the disk is full")

    monkeypatch.setattr(
        "pipeline.execution.ray_engine.RayEngine", lambda spec, address=None: Broken(spec.build)
    )
    words = ("run", mine.dag, "--set", "stages.caption.params.prompt=other")
    said = call(*words, code=1)
    assert said.splitlines()[-1] == "idcluster: StorageError: cannot write part: the disk is full"
    assert "failed in " in call("status", mine.root) and "the disk is full" in call(
        "status", mine.root
    )
    assert leases.read(Store(mine.root)) is None


def test_ctrl_c_breaks_off_with_a_line(mine: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(Inline):
        def run(self, *_: Any) -> Any:
            raise KeyboardInterrupt

    monkeypatch.setattr(
        "pipeline.execution.ray_engine.RayEngine",
        lambda spec, address=None: Interrupted(spec.build),
    )
    said = call("run", mine.dag, "--set", "stages.caption.params.prompt=other", code=130)
    assert said.splitlines()[-1] == "idcluster: broken off; run again to go on"


def test_drained_run_ends_with_130(mine: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(spec: Any, address: str | None = None) -> Inline:
        class Stopping(Inline):
            def run(self, *arguments: Any) -> Any:
                os.kill(os.getpid(), 15)
                yield from super().run(*arguments)

        return Stopping(spec.build)

    monkeypatch.setattr("pipeline.execution.ray_engine.RayEngine", start)
    words = ("run", mine.dag, "--set", "stages.caption.params.prompt=other")
    said = call(*words, code=130)
    assert "stopping: slices at work are finished and published; once more to break off" in said
    assert "stopped as asked: snapshot " in said
    monkeypatch.setattr(
        "pipeline.execution.ray_engine.RayEngine", lambda spec, address=None: Inline(spec.build)
    )
    assert "  caption: 28 rows" in call(*words)


def test_address_is_handed_to_the_engine(mine: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str | None] = []
    start: Callable[..., Inline] = lambda spec, address=None: (
        given.append(address) or Inline(spec.build)  # type: ignore[func-returns-value]
    )
    monkeypatch.setattr("pipeline.execution.ray_engine.RayEngine", start)
    call("run", mine.dag, "--address", "ray://head:10001")
    assert given == ["ray://head:10001"]


@pytest.mark.ray
def test_quickstart_on_ray_in_a_pipe(tmp_path: Path, astronaut: bytes) -> None:
    """The real thing: program, Ray, embedded backends; three crops of one photograph."""
    folder = tmp_path / "people" / "Eileen Collins"
    folder.mkdir(parents=True)
    with Image.open(io.BytesIO(astronaut)) as picture:
        for number, margin in enumerate((20, 40, 60)):
            crop = picture.convert("RGB").crop(
                (175 - margin, 76 - margin, 265 + margin, 166 + margin)
            )
            crop.resize((240, 240)).save(folder / f"{number}.jpg")
    root = tmp_path / "root"
    command = [sys.executable, "-m", "pipeline.cli", "run", str(QUICKSTART)]
    command += [
        "--set",
        f"source.path={folder.parent}",
        "--set",
        f"root={root}",
        "--set",
        "resources.workers=1",
    ]
    command += [
        "--set",
        "stages.clean.params.duplicates=false",
    ]  # crops of one photograph are copies of it

    def run(*words: str) -> list[str]:
        done = subprocess.run(
            [*command, *words], cwd=REPOSITORY, capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stderr == ""
        assert "\x1b" not in done.stdout and "\r" not in done.stdout
        return done.stdout.splitlines()

    first = run("--accept-licence")
    assert re.fullmatch(
        r"accepted and written down in .+/accepted\.yaml: dlib_68_points", first.pop(0)
    )
    assert first[0] == "source: 1 person, 3 images; 3 new"
    assert [line for line in first if line.startswith("crawl + detect + embed: 3 images in ")]
    assert any(line.startswith("  shard: 3 samples in ") for line in first)
    assert first[-1].startswith("done: snapshot ")
    assert [line for line in first if line.startswith("bottleneck: ")]
    second = run()
    assert second[0] == "source: 1 person, 3 images; nothing new"
    assert len(second) == 2 and second[1].startswith("nothing to do; snapshot ")
    assert len(list(root.rglob("*.tar"))) == 1
