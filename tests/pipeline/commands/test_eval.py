"""`idcluster eval clean` on a real root: what a data team reads before it trusts a threshold."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from idcluster.root.snapshot import publish
from idcluster.root.storage import Store
from pipeline.cli import app
from tests.pipeline.small_root import VERSIONS, SmallPerson, small_root

LABELS = """file,person,label_check
Ada Lovelace/0.jpg,Ada Lovelace,ok
Ada Lovelace/1.jpg,Ada Lovelace,wrong person
Ada Lovelace/2.jpg,Ada Lovelace,scraped: agrees
Ada Lovelace/3.jpg,Ada Lovelace,ok
Ada Lovelace/4.jpg,Ada Lovelace,ok
local:Zoë Łuczak/0.jpg,Zoë Łuczak,ok
nobody/1.jpg,nobody,ok
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    store, everybody = (
        Store(tmp_path / "root"),
        [SmallPerson("Ada Lovelace", 3, rejected=1, faceless=1), SmallPerson("Zoë Łuczak", 2)],
    )
    made = small_root(store, everybody)
    described = {
        f"clusters/{VERSIONS['clusters']}": {
            "stage": "clean",
            "params": {"similarity_threshold": 0.42},
        }
    }
    publish(store, made.with_notes(versions=described))
    (tmp_path / "labels.csv").write_text(LABELS, encoding="utf-8")
    (tmp_path / "root" / "dataset.json").write_text('{"format": 1, "name": "test"}')
    return tmp_path / "root"


def call(root: Path, *more: str) -> tuple[int, str]:
    result = CliRunner().invoke(
        app, ["eval", "clean", str(root), "--labels", str(root.parent / "labels.csv"), *more]
    )
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_precision_recall_and_where_the_errors_are(root: Path) -> None:
    code, said = call(root)
    assert code == 0
    assert (
        "precision 0.6667, recall 0.5000, F1 0.5714: 2 kept rightly, 1 kept wrongly, 2 lost" in said
    )
    assert "another one (it is 0.42)" in said
    assert "1 no_face" in said and "apart, scraped: 1 of 1 kept" in said
    assert "1 photograph has no label; 1 label is of no photograph in the dataset" in said
    assert [line.split()[:2] for line in said.splitlines() if line.startswith("Ada")] == [
        ["Ada", "Lovelace"]
    ]


def test_for_programs_and_as_a_plot(root: Path, tmp_path: Path) -> None:
    plot = tmp_path / "plot.png"
    code, said = call(root, "--format", "json", "--thresholds", "0.7:0.8:0.1", "--plot", str(plot))
    found = json.loads(said)
    assert (
        code == 0
        and found["total"]["right"] == 2
        and [one["right"] for one in found["thresholds"]] == [3, 0]
    )
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_what_was_asked_wrongly_is_told_in_one_line(root: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("photo\nx\n")
    code, said = call(root)
    assert (
        code == 2
        and said.startswith("idcluster: ")
        and "needs the columns file" in said
        and len(said.splitlines()) == 1
    )
    code, said = call(root, "--format", "xml")
    assert code == 2 and "no format 'xml'" in said
