"""The demo: its score is right, and the program runs as a newcomer runs it."""

import importlib.util
import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from pipeline import demo
from pipeline.cli import app
from pipeline.demo import Score, run_demo, score_rows
from pipeline.execution.inline import Inline
from pipeline.samples import MissingSample, Truth

REPOSITORY = Path(__file__).parents[2]

TRUTHS = [
    Truth("Ada", "1.jpg", "person", "Ada", True),
    Truth("Ada", "2.jpg", "person", "Ada", True),
    Truth("Ada", "3.jpg", "with_other", "Ada | Grace", True),
    Truth("Ada", "4.jpg", "other_person", "Grace", False),
    Truth("Ada", "5.jpg", "corrupt", "", False),
]


def judged(**keeps: bool) -> list[dict[str, Any]]:
    """Rows as the demo reads them: one a face. Names of files are given as n1 for 1.jpg."""
    return [{"address": f"local:Ada/{name[1:2]}.jpg", "keep": keep} for name, keep in keeps.items()]


def test_perfect_cleaning_scores_one() -> None:
    score = score_rows(judged(n1=True, n2=True, n3=True, n4=False, n5=False), TRUTHS)
    assert score == Score(right=3, wrong=0, missed=0)
    assert score.precision == score.recall == 1.0


def test_wrong_and_missed_photographs_lower_precision_and_recall() -> None:
    score = score_rows(judged(n1=True, n2=False, n3=False, n4=True), TRUTHS)
    assert score == Score(right=1, wrong=1, missed=2)
    assert score.precision == 1 / 2
    assert score.recall == 1 / 3


def test_a_photograph_counts_once_if_one_of_its_faces_is_kept() -> None:
    rows = judged(n1=True, n2=True) + judged(n3=False) + judged(n3=True)
    assert score_rows(rows, TRUTHS) == Score(right=3, wrong=0, missed=0)


def test_photographs_without_rows_are_missed() -> None:
    score = score_rows([], TRUTHS)
    assert score == Score(right=0, wrong=0, missed=3)
    assert score.precision == score.recall == 0.0


def test_a_file_of_the_same_name_of_another_person_is_another_file() -> None:
    rows = [{"address": "local:Grace/1.jpg", "keep": True}]
    assert score_rows(rows, TRUTHS) == Score(right=0, wrong=1, missed=3)


def test_folders_with_quotes_colons_and_brackets_reach_the_dag_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def stop(dag: Any, models: Any) -> None:
        seen.append(dag)
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "compose", lambda folder, seed: TRUTHS)
    monkeypatch.setattr("pipeline.start.prepare", stop)
    folder = tmp_path / "it's: [a] {demo}, # 100%"
    said = CliRunner().invoke(app, ["demo", str(folder)])
    assert said.exit_code == 130
    assert (
        f"1 sample people, 5 files in {folder}/people (2 of them do not belong: corrupt, "
        "other_person)" in said.output
    )
    [dag] = seen
    assert (dag.root, dag.sources[0].path) == (str(folder / "dataset"), str(folder / "people"))


def test_missing_photographs_are_told_with_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(folder: Path, seed: int) -> None:
        raise MissingSample("the demo needs skimage: pip install scikit-image")

    monkeypatch.setattr(demo, "compose", missing)
    said = CliRunner().invoke(app, ["demo", str(tmp_path)])
    assert (said.exit_code, said.output) == (
        1,
        "idcluster: the demo needs skimage: pip install scikit-image\n",
    )


@pytest.mark.slow
def test_a_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    _needs_photographs()
    (tmp_path / "file").touch()
    said = CliRunner().invoke(app, ["demo", str(tmp_path / "file")])
    assert said.exit_code == 1
    assert said.output.startswith(f"idcluster: {tmp_path}/file/")
    assert "Traceback" not in said.output


def test_imperfect_cleaning_ends_with_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "run_demo", lambda folder, seed, console: False)
    assert CliRunner().invoke(app, ["demo", str(tmp_path)]).exit_code == 1


def _needs_photographs() -> None:
    for package in ("skimage", "matplotlib", "insightface"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs the photograph that {package} ships: `make venv` installs it")


@pytest.mark.slow
@pytest.mark.ray
def test_the_whole_demo_and_a_second_call(tmp_path: Path) -> None:
    """As a newcomer calls it: scores, a contact sheet, shards; called again it
    computes nothing.
    """
    _needs_photographs()
    environment = {name: value for name, value in os.environ.items() if name != "IDCLUSTER_MODELS"}

    def call() -> list[str]:
        command = [sys.executable, "-m", "pipeline.cli", "demo", str(tmp_path / "demo")]
        done = subprocess.run(
            command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=900
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stderr == ""
        return done.stdout.splitlines()

    first = call()
    assert first[0].startswith("8 sample people, ")
    [scores] = [line for line in first if line.startswith("cleaning")]
    assert "precision 1.000, recall 1.000" in scores
    assert "0 kept wrongly, 0 missed" in scores
    with Image.open(tmp_path / "demo" / "contact_sheet.png") as sheet:
        assert sheet.format == "PNG"
        sheet.load()
        assert min(sheet.size) > 300
    root = tmp_path / "demo" / "dataset"
    tars = sorted(path.name for path in root.rglob("*.tar"))
    assert tars
    shown = [line for line in first if ".tar" in line]
    assert sorted(line.split()[0].rsplit("/", 1)[-1] for line in shown) == tars
    assert sum(int(line.split()[1]) for line in shown) == int(
        scores.split(" kept rightly")[0].split("(")[-1]
    )

    before = {
        path: path.stat().st_mtime_ns
        for top in ("tables", "shards")
        for path in (root / top).rglob("*")
        if path.is_file()
    }
    again = call()
    assert [line for line in again if line.startswith("nothing to do; snapshot ")]
    assert [line for line in again if line.startswith("cleaning")] == [scores]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert not [line for line in again if " tasks" in line], "no worker was started"
    hint = next(line for line in again if line.startswith("ask it:"))
    question = hint.split("idcluster query ", 1)[1].split(" ", 1)
    answer = CliRunner().invoke(app, ["query", question[0], question[1].strip('"')])
    assert answer.exit_code == 0
    assert "Grace M. Hopper" in answer.output
    (tmp_path / "dags").symlink_to(REPOSITORY / "dags")
    for page, least in (("README.md", 1), ("docs/python.md", 1), ("docs/shards.md", 2)):
        _as_the_page_says(tmp_path, page, least)


def _as_the_page_says(folder: Path, page: str, least: int) -> None:
    """The Python of a page prints what stands below it there, over the demo; a page is one
    program.
    """
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    pairs = re.findall(r"```python\n(.*?)```\n```\n(.*?)```", text, re.DOTALL)
    assert len(pairs) >= least, page
    code = "\n".join(block for block, _ in pairs)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == "", page
    said = done.stdout.replace(str(folder.resolve()), "...")
    assert said == "".join(shown for _, shown in pairs), page


@pytest.mark.slow
def test_run_demo_gives_whether_cleaning_was_perfect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no face is found there is nothing to keep; the demo still ends with its results."""
    _needs_photographs()
    folder = tmp_path / "people" / "Ada"
    folder.mkdir(parents=True)
    Image.new("RGB", (64, 64), (120, 130, 140)).save(folder / "1.jpg")
    monkeypatch.setattr(demo, "compose", lambda folder, seed: TRUTHS[:1])
    monkeypatch.setattr(
        "pipeline.execution.ray_engine.RayEngine", lambda spec, address: Inline(spec.build)
    )
    said = io.StringIO()
    assert run_demo(tmp_path, 0, Console(file=said, soft_wrap=True)) is False
    assert (
        "precision 0.000, recall 0.000 (0 kept rightly, 0 kept wrongly, 1 missed)"
        in said.getvalue()
    )
