"""Decisions by hand, from writing them down to the shards, and the page that people decide on."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from idcluster.catalogue.connection import query
from idcluster.root.dataset_root import RunError, open_root
from idcluster.root.snapshot import load
from pipeline.cli import app
from pipeline.correct import BadDecision, Decision, correct, read_csv
from pipeline.report.person_page import write_page
from tests.pipeline.rooms import computed, run_toy, shown
from tests.pipeline.toy import people

Home = tuple[Path, Path, Path]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = tmp_path, people(tmp_path / "people"), tmp_path / "root"
    run_toy(*made)
    return made


def ask(root: Path, sql: str) -> list[dict[str, Any]]:
    return list(json.loads(query(open_root(str(root)), sql, "json") or "[]"))


def decide(root: Path, *decisions: Decision) -> int:
    return correct(open_root(str(root)), decisions, "test", "somebody")[1]


def faces(root: Path, keep: bool, name: str = "person 01") -> list[str]:
    sql = (
        "select face_id from clusters join identities using (identity_id) where name = "
        f"'{name}' and keep = {keep} order by 1"
    )
    return [row["face_id"] for row in ask(root, sql)]


def sampled(root: Path) -> set[str]:
    return {row["face_id"] for row in ask(root, "select face_id from samples")}


@pytest.mark.slow
def test_a_face_is_kept_and_one_rejected_by_hand_and_only_what_follows_is_computed(
    home: Home,
) -> None:
    root = home[2]
    out, into = faces(root, True)[0], faces(root, False)[0]
    assert decide(root, Decision("reject", out), Decision("keep", into)) == 2
    assert computed(run_toy(*home)) == {"clean": 1, "people": 1, "caption": 1}
    assert out not in sampled(root)
    assert into in sampled(root)
    reasons = {
        row["face_id"]: (row["keep"], row["reason"])
        for row in ask(root, "select face_id, keep, reason from clusters")
    }
    assert reasons[out] == (False, "rejected")
    assert reasons[into][0] is True
    assert computed(run_toy(*home)) == {}


@pytest.mark.slow
def test_decisions_outlive_other_parameters_and_are_taken_back(home: Home) -> None:
    root = home[2]
    before, out = shown(root), faces(root, True)[0]
    decide(root, Decision("reject", out))
    run_toy(*home, sets=["stages.clean.params.similarity_threshold=0.7"])
    assert out not in sampled(root)
    assert decide(root, Decision("clear", out)) == 1
    run_toy(*home)
    after = shown(root)
    assert {name: rows for name, rows in after.items() if name != "overrides"} == {
        name: rows for name, rows in before.items() if name != "overrides"
    }


@pytest.mark.slow
def test_two_names_become_one_person_in_the_shards_and_rows_stay(home: Home) -> None:
    root = home[2]
    ids = {
        row["name"]: row["identity_id"]
        for row in ask(root, "select name, identity_id from identities")
    }
    rows = ask(root, "select identity_id, count(*) n from clusters group by all order by all")
    decide(root, Decision("merge", "Person 02", ids["person 03"]))
    assert computed(run_toy(*home)) == {}
    matches = {
        row["identity_id"]: row
        for row in ask(root, "select identity_id, same_as, flags from matches")
    }
    assert matches[ids["person 02"]]["same_as"] == matches[ids["person 03"]]["same_as"]
    assert "merged" in matches[ids["person 02"]]["flags"]
    assert (
        ask(root, "select identity_id, count(*) n from clusters group by all order by all") == rows
    )
    shards = ask(
        root,
        "select canonical_id, count(distinct identity_id) people from samples group by all order "
        "by people desc",
    )
    assert [row["people"] for row in shards] == [2, 1, 1]


def test_a_decision_about_nobody_is_refused_and_nothing_is_written(home: Home) -> None:
    root, before = home[2], load(open_root(str(home[2]))).number
    good = Decision("reject", faces(root, True)[0])
    bad = [
        Decision("reject", "0" * 24),
        Decision("merge", "person 01", "nobody"),
        Decision("merge", "person 01"),
        Decision("mend", "person 01"),
        Decision("merge", "person 01", "PERSON 01"),
        Decision("clear", "nobody"),
    ]
    for one in bad:
        with pytest.raises(BadDecision):
            decide(root, good, one)
    assert load(open_root(str(root))).number == before
    assert decide(root, good) == 1
    assert decide(root, good) == 0


def test_decisions_come_from_a_file_as_the_page_saves_it(home: Home, tmp_path: Path) -> None:
    root = home[2]
    face = faces(root, True)[0]
    file = tmp_path / "decisions.csv"
    file.write_text(f"action,subject,target\nreject,{face},\nmerge,person 02,person 03\n")
    assert read_csv(file) == [Decision("reject", face), Decision("merge", "person 02", "person 03")]
    result = CliRunner().invoke(
        app,
        [
            "correct",
            str(root),
            "--csv",
            str(file),
            "--author",
            "Ada",
            "--split",
            "person 00=person 01",
        ],
    )
    assert result.exit_code == 0, result.output
    assert "3 decisions" in result.output
    assert {
        (row["action"], row["author"]) for row in ask(root, "select action, author from overrides")
    } == {("reject", "Ada"), ("merge", "Ada"), ("apart", "Ada")}
    file.write_text("a,b\n1,2\n")
    wrong = CliRunner().invoke(app, ["correct", str(root), "--csv", str(file)])
    assert wrong.exit_code == 2
    assert "action and subject" in wrong.output
    assert CliRunner().invoke(app, ["correct", str(root), "--merge", "person 01"]).exit_code == 2


@pytest.mark.slow
def test_the_page_shows_every_face_with_its_reason(home: Home, tmp_path: Path) -> None:
    root = home[2]
    decide(root, Decision("reject", faces(root, True)[0]))
    run_toy(*home)
    store = open_root(str(root))
    page = write_page(store, load(store), "PERSON 01", tmp_path / "pages")
    text = page.html.read_text()
    about = [
        json.loads(data)
        for data in re.findall(r'<script type="application/json" id=".*?">(.*?)</script>', text)
    ]
    drawn, queue = about[0], about[-1]
    assert sorted(face["id"] for face in drawn["faces"]) == sorted(
        row["face_id"]
        for row in ask(
            root,
            "select face_id from clusters join identities i using (identity_id)"
            " where i.name = 'person 01'",
        )
    )
    assert (page.kept, page.rejected) == (len(faces(root, True)), len(faces(root, False)))
    assert "other cluster" in {face.get("why") for face in drawn["faces"]}
    assert any("decode error" in line for line in drawn["without"])
    assert any("no face" in line for line in drawn["without"])
    assert [list(person["hand"].values()) for person in queue["people"]] == [["reject"]]
    assert not re.search(r'(?:src|href)="(?!data:)', text)  # nothing from outside
    assert page.png.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(RunError, match="nearest names"):
        write_page(store, load(store), "persn 01", tmp_path)


@pytest.mark.slow
def test_names_cannot_write_into_the_page(tmp_path: Path) -> None:
    source = people(tmp_path / "people", count=2)
    (source / "person 00").rename(source / "<script>alert(1)<")
    home = tmp_path, source, tmp_path / "root"
    run_toy(*home)
    store = open_root(str(home[2]))
    text = write_page(store, load(store), "<script>alert(1)<", tmp_path).html.read_text()
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text
