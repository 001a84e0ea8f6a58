"""What a second run does: only what changed, and the dataset is the same as if it had been made
afresh.
"""

import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from idcluster.root.storage import Store
from pipeline.prepared_dag import Selection
from tests.pipeline.rooms import computed, run_toy, shown, small_buckets
from tests.pipeline.toy import RAISES, people, picture


@pytest.fixture(autouse=True, params=["one chunk", "many chunks, merged"])
def size(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each promise holds for a bucket that is open, and for finished ones whose chunks lie in one
    file.
    """
    with nullcontext() if request.param == "one chunk" else small_buckets():
        yield


@pytest.fixture
def home(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A folder for DAG files, one of people, and where the dataset goes."""
    return tmp_path, people(tmp_path / "people"), tmp_path / "root"


def files(root: Path) -> dict[str, int]:
    """When each file was written; a replaced shard by the name that it had."""
    return {
        str(path).replace("/.replaced/", "/").removesuffix(".replaced"): path.stat().st_mtime_ns
        for top in ("tables", "shards")
        for path in (root / top).rglob("*")
        if path.is_file()
    }


def afresh(
    home: tuple[Path, Path, Path], tmp_path: Path, sets: tuple[str, ...] = ()
) -> dict[str, object]:
    """What a new dataset of the same source shows."""
    root = tmp_path / "afresh"
    shutil.rmtree(root, ignore_errors=True)
    run_toy(home[0], home[1], root, sets)
    return shown(root)


@pytest.mark.slow
def test_first_run_accounts_for_every_file(home: tuple[Path, Path, Path]) -> None:
    record = run_toy(*home)
    view = shown(home[2])
    assert record.status == "done"
    assert len(view["images"]) == 4 * 11  # every file of every folder
    reasons = {row[-3] for row in view["images"] if row[-4] != "ok"}
    assert reasons == {"not_an_image"}
    assert sorted({row[-3] for row in view["faces"] if row[-4] != "ok"}) == [
        "decode_error",
        "no_face",
    ]
    assert (
        sum(row[5] for row in view["clusters"]) == 4 * 7
    )  # six images and the pair of each person
    assert len(view["captions"]) == 4 * 7
    assert [name for name in view["shards"] if name.endswith(".tar")]


@pytest.mark.slow
def test_nothing_to_do_touches_nothing(home: tuple[Path, Path, Path]) -> None:
    run_toy(*home)
    before = files(home[2])
    record = run_toy(*home)
    assert computed(record) == {}
    assert record.snapshot == record.snapshot_before
    assert files(home[2]) == before
    assert not list((home[2] / "parts").rglob("*.parquet"))


@pytest.mark.slow
def test_changed_threshold_runs_clean_and_what_follows_for_new_faces(
    home: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    strict = ("stages.clean.params.similarity_threshold=0.996",)
    first = run_toy(*home, sets=strict)
    few = first.stages["caption"]["units"]
    assert 0 < few < 28
    record = run_toy(*home)
    assert set(computed(record)) == {"clean", "people", "caption"}
    assert record.stages["caption"]["units"] == 28 - few
    assert shown(home[2]) == afresh(home, tmp_path)
    back = run_toy(*home, sets=strict)
    assert computed(back) == {}, "a switch back finds the old rows"
    assert shown(home[2]) == afresh(home, tmp_path, strict)


@pytest.mark.slow
def test_changed_prompt_runs_captions_alone(home: tuple[Path, Path, Path], tmp_path: Path) -> None:
    run_toy(*home)
    other = ("stages.caption.params.prompt=a portrait",)
    record = run_toy(*home, sets=other)
    assert computed(record) == {"caption": 28}
    assert shown(home[2]) == afresh(home, tmp_path, other)
    assert computed(run_toy(*home)) == {}
    assert shown(home[2]) == afresh(home, tmp_path)


@pytest.mark.slow
def test_new_photographs_cost_their_slices_and_their_people(home: tuple[Path, Path, Path]) -> None:
    run_toy(*home)
    before = files(home[2])
    (home[1] / "person 01" / "new.png").write_bytes(picture(11, noise=77))
    record = run_toy(*home)
    assert computed(record) == {
        "crawl": 1,
        "detect": 1,
        "embed": 1,
        "clean": 1,
        "people": 1,
        "caption": 1,
    }
    assert {
        path: time
        for path, time in files(home[2]).items()
        if path in before and path.endswith(".parquet")
    } == {path: time for path, time in before.items() if path.endswith(".parquet")}, (
        "no file is rewritten"
    )


@pytest.mark.slow
def test_new_person_is_appended(home: tuple[Path, Path, Path]) -> None:
    run_toy(*home)
    (home[1] / "person 99").mkdir()
    (home[1] / "person 99" / "only.png").write_bytes(picture(77, noise=1))
    record = run_toy(*home)
    assert computed(record) == {
        "crawl": 1,
        "detect": 1,
        "embed": 1,
        "clean": 1,
        "people": 1,
        "caption": 1,
    }


@pytest.mark.slow
def test_replaced_photograph_replaces_what_stems_from_it(
    home: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    run_toy(*home)
    (home[1] / "person 02" / "03.png").write_bytes(picture(12, 12, noise=99))
    record = run_toy(*home)
    done = computed(record)
    assert done["crawl"] == done["detect"] == done["clean"] == 1
    assert shown(home[2]) == afresh(home, tmp_path)


@pytest.mark.slow
def test_touched_photograph_is_read_again_and_nothing_more(home: tuple[Path, Path, Path]) -> None:
    run_toy(*home)
    path = home[1] / "person 02" / "03.png"
    path.write_bytes(path.read_bytes())
    path.touch()
    assert computed(run_toy(*home)) == {"crawl": 1}


@pytest.mark.slow
def test_deleted_photograph_leaves_the_views(home: tuple[Path, Path, Path], tmp_path: Path) -> None:
    run_toy(*home)
    (home[1] / "person 02" / "03.png").unlink()
    record = run_toy(*home)
    assert computed(record) == {"clean": 1, "people": 1}
    view, other = shown(home[2]), afresh(home, tmp_path)
    assert [row for row in view["candidates"] if row[-3] == "gone"]
    for table in ("images", "faces", "embeddings", "clusters", "people", "captions", "shards"):
        assert view[table] == other[table], table


@pytest.mark.slow
def test_other_detector_and_back(home: tuple[Path, Path, Path], tmp_path: Path) -> None:
    run_toy(*home)
    other = ("stages.detect.params.margin=1",)
    assert set(computed(run_toy(*home, sets=other))) == {
        "detect",
        "embed",
        "clean",
        "people",
        "caption",
    }
    assert shown(home[2]) == afresh(home, tmp_path, other)
    assert computed(run_toy(*home)) == {}
    assert shown(home[2]) == afresh(home, tmp_path)


@pytest.mark.slow
def test_only_and_the_rest_later(home: tuple[Path, Path, Path], tmp_path: Path) -> None:
    assert set(computed(run_toy(*home, selection=Selection(only=("crawl", "detect"))))) == {
        "crawl",
        "detect",
    }
    assert set(computed(run_toy(*home, selection=Selection(only=("embed", "clean"))))) == {
        "embed",
        "clean",
        "people",
    }
    assert set(computed(run_toy(*home))) == {"caption"}
    assert shown(home[2]) == afresh(home, tmp_path)


@pytest.mark.slow
def test_limit_and_where_cut_down_and_the_rest_comes_later(
    home: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    run_toy(*home, selection=Selection(only=("crawl",)))
    record = run_toy(*home, selection=Selection(only=("detect",), where="name = 'person 02'"))
    assert computed(record) == {"detect": 10}
    record = run_toy(*home, selection=Selection(only=("detect",), limit=5))
    assert computed(record) == {"detect": 5}
    run_toy(*home)
    assert shown(home[2]) == afresh(home, tmp_path)


@pytest.mark.slow
def test_an_exception_in_a_backend_costs_one_row(home: tuple[Path, Path, Path]) -> None:
    (home[1] / "person 00" / "bad.png").write_bytes(picture(10, noise=3, trouble=RAISES))
    record = run_toy(*home)
    outcomes = record.stages["detect"]["outcomes"]
    assert outcomes["failed:error"] == 1
    assert record.stages["detect"]["units"] == 41
    [row] = [row for row in shown(home[2])["faces"] if row[-3] == "error"]
    assert "ArithmeticError: an image that the backend cannot bear" in row[-2]


@pytest.mark.slow
def test_retry_computes_failed_rows_and_what_stems_from_them(
    home: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home[1] / "person 00" / "bad.png").write_bytes(picture(10, noise=3, trouble=RAISES))
    run_toy(*home)
    same = run_toy(*home, selection=Selection(retry="reason = 'error'"))
    assert computed(same) == {"detect": 1}, "it fails again and nothing follows"
    monkeypatch.setattr("tests.pipeline.toy.RAISES", 1000)  # as if the cause had gone
    record = run_toy(*home, selection=Selection(retry="reason = 'error'"))
    done = computed(record)
    assert done["detect"] == done["embed"] == done["clean"] == 1
    assert shown(home[2]) == afresh(home, tmp_path)


@pytest.mark.slow
def test_gone_and_back_is_fetched_again(home: tuple[Path, Path, Path], tmp_path: Path) -> None:
    run_toy(*home)
    path = home[1] / "person 01" / "02.png"
    aside = tmp_path / "aside.png"
    shutil.move(path, aside)
    run_toy(*home)
    shutil.move(aside, path)
    run_toy(*home)
    assert shown(home[2]) == afresh(home, tmp_path)


@pytest.mark.slow
def test_old_snapshots_stay_readable(home: tuple[Path, Path, Path]) -> None:
    record = run_toy(*home)
    before = shown(home[2])["captions"]
    run_toy(*home, sets=("stages.caption.params.prompt=other",))
    from idcluster.catalogue.connection import connect

    connection = connect(str(home[2]), record.snapshot)
    assert len(
        connection.execute("SELECT * FROM captions WHERE caption LIKE 'an image %'").fetchall()
    ) == len(before)
    connection.close()


def test_parts_are_gone_after_a_run(home: tuple[Path, Path, Path]) -> None:
    run_toy(*home)
    assert Store(str(home[2])).list("parts") == []
