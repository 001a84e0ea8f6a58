"""`idcluster forget` as a user meets it: what is shown, asked and done, and what wrong input is
answered.
"""

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from idcluster.catalogue.connection import connect
from idcluster.root.storage import Store
from pipeline.cli import app
from pipeline.forget.erase import forget
from pipeline.forget.preview import prepare
from pipeline.forget.wish import Wish
from schemas import identity_id
from tests.pipeline.forget.test_crash import Failing
from tests.pipeline.forgotten import WHO, gallery, holding
from tests.pipeline.rooms import bury, run_toy
from tests.pipeline.toy import Killed, picture, toy_dag


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    run_toy(folder, gallery(folder / "people", count=4, pictures=3), folder / "root")
    return folder / "root"


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "root"))


def call(*words: Any, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["forget", *map(str, words)])
    assert result.exception is None or isinstance(result.exception, SystemExit), (
        f"{result.exception!r}\n{result.output}"
    )
    assert result.exit_code == code, result.output
    return result.output


def test_it_shows_who_would_go_and_removes_nothing(root: Path, tmp_path: Path) -> None:
    """A user would remove the wrong person, or lose images to a look."""
    before = Store(root).list("")
    said = call(root, "--identity", WHO, "--sheet", tmp_path / "look", "--dry-run")
    assert f"{WHO} ({identity_id(WHO)}): named" in said
    assert "images: 8 of theirs, 2 under other names (of 2 people)" in said
    assert "1 by the same image" in said and "1 by the face" in said
    assert re.search(r"rows: 10 candidates, .*, 1 people", said) and re.search(
        r"shards of faces: \d written anew", said
    )
    assert "backups and copies of this root" in said and "nothing was removed (--dry-run)" in said
    assert (tmp_path / "look" / "who-would-go.png").read_bytes().startswith(b"\x89PNG")
    assert Store(root).list("") == before


def test_it_asks_nobody_and_does_nothing_unless_told_to(root: Path) -> None:
    """A script that forgot --yes would remove somebody, or hang."""
    assert "say --yes to remove this, or --dry-run to look only" in call(
        root, "--identity", WHO, code=2
    )
    assert holding(Store(root), [identity_id(WHO)])


@pytest.mark.slow
def test_it_asks_and_the_sheet_is_gone_afterwards(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images of somebody who wanted to be removed would stay in a temporary folder."""
    asked: list[Path] = []

    def answer(question: str) -> bool:
        assert question == "Remove all of this for good?"
        [sheet] = folders[-1].iterdir()
        asked.append(sheet)
        return len(asked) > 1

    folders: list[Path] = []
    real = tempfile.mkdtemp

    def noted(*arguments: Any, **named: Any) -> str:
        made: str = real(*arguments, **named)
        if Path(made).name.startswith("idcluster-forget-"):
            folders.append(Path(made))
        return made

    monkeypatch.setattr("tempfile.mkdtemp", noted)
    monkeypatch.setattr("pipeline.commands.forget._asks_somebody", lambda: True)
    monkeypatch.setattr("typer.confirm", answer)
    assert "nothing was removed" in call(root, "--identity", WHO, code=1)
    assert holding(Store(root), [identity_id(WHO)])
    assert "removed 1 person and 10 images" in call(root, "--identity", WHO)
    assert holding(Store(root), [identity_id(WHO)]) == [] and not any(
        folder.exists() for folder in folders
    )


@pytest.mark.slow
def test_removed_and_shown_to_be(root: Path, tmp_path: Path) -> None:
    """The command that shows that nothing is left would say so whatever is there."""
    assert "nothing was ever removed from" in call(root, "--verify", code=1)
    assert "hold what was removed" in call(root, "--verify", "--identity", WHO, code=1)
    said = call(root, "--identity", WHO, "--yes")
    assert (
        "receipt: " in said and "people who stay lost images: the next run cleans them anew" in said
    )
    assert re.search(r"\d+ files, \d+ values looked at: nothing is left", call(root, "--verify"))
    (root / "notes.txt").write_text(f"we removed {WHO} today")
    found = call(root, "--verify", code=1)
    assert (
        "notes.txt: the text: the name of somebody removed" in found
        and "1 place holds what was removed" in found
    )
    assert f"nobody here is called {WHO!r}" in call(root, "--identity", WHO, "--yes", code=2)


@pytest.mark.slow
def test_a_name_that_never_was_there_is_told(root: Path) -> None:
    """A mistyped name would be reported as removed: nothing is left of somebody whom nobody looked
    for.
    """
    said = call(root, "--verify", "--identity", "persn 01", code=2)
    assert (
        "'persn 01' was never removed from here and is nowhere: look whether it is written as it "
        "was" in said
    )
    call(root, "--identity", WHO, "--yes")
    for given in (WHO, "01, PERSON", identity_id(WHO)):
        assert "nothing is left" in call(root, "--verify", "--identity", given)
    wrong = ("--identity", "persn 01", "--url", "https://x.org/none.jpg", "--sha256", "0" * 64)
    said = call(root, "--verify", "--identity", WHO, *wrong, code=2)
    assert said.count("was never removed from here") == 3 and f"{WHO!r}" not in said
    assert "hold what was removed" in call(
        root, "--verify", "--identity", "person 02", *wrong, code=1
    )


def test_what_the_bars_cannot_know_again_is_said(root: Path) -> None:
    """Somebody would take it for granted that no photograph of theirs can come back."""
    assert "--bar-face knows the face itself" in call(root, "--identity", WHO, "--dry-run")
    assert "--bar-face knows" not in call(root, "--identity", WHO, "--bar-face", "--dry-run")


@pytest.mark.slow
def test_one_that_was_broken_off_is_finished(root: Path) -> None:
    """Half a removal would stay until somebody notices."""
    store = Store(root)
    with pytest.raises(Killed):
        forget(Failing(root, at=30), prepare(store, Wish(identities=(WHO,))), "forget-test")
    bury(store.root)
    assert "finish it first: idcluster forget" in call(
        root, "--identity", "person 02", "--dry-run", code=1
    )
    said = call(root, "--identity", "person 02", "--yes")
    assert said.index("finishing a removal that was broken off") < said.index("person 02 (")
    assert holding(store, [identity_id(WHO), identity_id("person 02")]) == []
    assert "no removal was broken off" in call(root, "--resume")


@pytest.mark.slow
def test_a_photograph_finds_the_person_and_their_pictures_elsewhere(
    root: Path, tmp_path: Path
) -> None:
    """Who does not know under which names they are listed could not be removed."""
    photograph = tmp_path / "me.png"
    photograph.write_bytes(picture(11, noise=200))
    toy_dag(tmp_path, tmp_path, root)
    assert f"{WHO} (" in call(
        root,
        "--like",
        photograph,
        "--threshold",
        "0.9",
        "--dag",
        tmp_path / "toy.yaml",
        "--dry-run",
    )
    said = call(root, "--like", photograph, "--threshold", "0.9", "--bar-face", "--yes")
    assert re.search(rf"{WHO} \({identity_id(WHO)}\): like the photograph \(0\.9\d\d\)", said)
    assert "biometric data" in said and "removed 1 person" in said
    assert holding(Store(root), [identity_id(WHO)]) == []
    (again := tmp_path / "again" / "unknown").mkdir(parents=True)
    for number in range(3):
        (again / f"{number}.png").write_bytes(picture(11, noise=230 + number))
        (again / f"else{number}.png").write_bytes(picture(60, noise=number))
    run_toy(tmp_path, tmp_path / "again", root)
    connection = connect(str(root))
    sql = (
        "SELECT status, reason, count(*), count(vector) FROM embeddings WHERE identity_id = ? "
        "GROUP BY ALL ORDER BY ALL"
    )
    assert connection.execute(sql, [identity_id("unknown")]).fetchall() == [
        ("filtered", "removed", 3, 0),
        ("ok", None, 3, 3),
    ]
    connection.close()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name somebody or something: --identity, --url, --sha256 or --like"),
        (["--sha256", "xyz"], "a SHA-256 has 64 hexadecimal digits"),
        (["--identity", "persn 01"], "the nearest names are 'person 01'"),
        (["--url", "https://example.org/1.jpg"], "no image here is from https://example.org/1.jpg"),
        (["--like", "{root}/dataset.json"], "is no image that can be used"),
        (["--like", "{root}/nothing.png"], "cannot be read: No such file"),
        (
            ["--identity", "person 01", "--sheet", "{root}/sheet"],
            "lies in the dataset, which is to hold nothing of the person",
        ),
        (["--verify", "--like", "x.png"], "--verify does not look at photographs"),
    ],
)
def test_what_is_asked_wrongly_is_answered(made: Path, words: list[str], message: str) -> None:
    """A user would get a traceback, or be told that something was removed."""
    said = call(made, *(word.format(root=made) for word in words), code=2)
    assert message in said and "Traceback" not in said
