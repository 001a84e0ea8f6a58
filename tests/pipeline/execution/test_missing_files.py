"""A run looks at the files that it builds on: what is gone is computed again, or the run ends
before it publishes.
"""

from pathlib import Path
from typing import Any

import pytest

from idcluster.root.parquet import DamagedFile
from idcluster.root.present import GONE, lacking
from idcluster.root.snapshot import load
from idcluster.root.storage import Store
from pipeline.plan import make_plan
from pipeline.prepared_dag import Selection, prepare
from tests.pipeline.damaged import files
from tests.pipeline.rooms import computed, run_toy, shown, small_buckets
from tests.pipeline.s3 import serving
from tests.pipeline.toy import toy_dag

COMPUTED = ("images", "faces", "embeddings", "clusters", "people", "matches", "captions")


def again(made: Path, root: Path, sets: tuple[str, ...] = (), only: tuple[str, ...] = ()) -> Any:
    with small_buckets():
        return run_toy(root.parent, made / "people", root, sets, Selection(only=only))


@pytest.mark.slow
@pytest.mark.parametrize("table", [*COMPUTED, "images_light", "shards", "samples", "withheld"])
def test_what_is_gone_is_there_again_after_the_next_run(
    made: Path, root: Path, undisturbed: dict[str, Any], table: str
) -> None:
    """The run said that it was done, and queries failed from then on."""
    gone = files(root, table)
    if table == "withheld" and not gone:
        pytest.skip("nothing is withheld")
    for path in gone[:1] if table in ("shards", "samples") else gone:
        path.unlink()
    again(made, root)
    store = Store(root)
    assert lacking(store, load(store).entries) == {}
    assert shown(root) == undisturbed
    assert computed(again(made, root)) == {}


@pytest.mark.parametrize("table", COMPUTED)
def test_so_is_what_lies_beside_others_that_are_there(
    made: Path, root: Path, undisturbed: dict[str, Any], table: str
) -> None:
    """Of a person some rows would be there, and taken for all."""
    files(root, table)[0].unlink()
    again(made, root)
    assert shown(root) == undisturbed


@pytest.mark.parametrize("table", ["candidates", "identities"])
def test_a_run_ends_where_nobody_can_bring_back_what_it_builds_on(
    made: Path, root: Path, table: str
) -> None:
    before = load(Store(root)).number
    path = files(root, table)[0]
    path.unlink()
    with pytest.raises(DamagedFile, match=rf"{path.name} is not there, .*idcluster check"):
        again(made, root, ("stages.clean.params.near_tie=0.8",))
    assert load(Store(root)).number == before
    with pytest.raises(DamagedFile, match=path.name):
        make_plan(
            prepare(toy_dag(root.parent, made / "people", root), None), Selection(), Store(root)
        )


def test_a_run_of_other_stages_does_not_build_on_what_is_gone(made: Path, root: Path) -> None:
    for path in files(root, "faces"):
        path.unlink()
    before = load(Store(root)).number
    with pytest.raises(DamagedFile, match="builds on it"):
        again(made, root, ("stages.embed.params={}",), only=("embed",))
    with pytest.raises(DamagedFile, match="builds on it"):
        again(made, root, only=("shard",))
    assert load(Store(root)).number == before


def test_a_file_of_another_size_is_named(made: Path, root: Path) -> None:
    """What is left of it may be of use to somebody."""
    path = files(root, "faces")[0]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedFile, match=rf"{path.name} has \d+ bytes, not \d+"):
        again(made, root)


def test_half_a_shard_is_written_again(made: Path, root: Path, undisturbed: dict[str, Any]) -> None:
    """Its end is only zeros, so that every member of it is still there."""
    path = files(root, "shards")[0]
    path.write_bytes(path.read_bytes()[:-512])
    again(made, root)
    assert shown(root) == undisturbed


def test_a_plan_says_what_will_be_computed_again(made: Path, root: Path) -> None:
    path = files(root, "captions")[0]
    path.unlink()
    plan = make_plan(
        prepare(toy_dag(root.parent, made / "people", root), None), Selection(), Store(root)
    )
    assert not plan.nothing and path.name in plan.remarks[0]
    assert {line.stage for line in plan.lines if line.units} == {"caption"}


@pytest.mark.slow
def test_rows_kept_for_a_switch_back_are_computed_when_they_are_wanted(
    made: Path, root: Path, undisturbed: dict[str, Any]
) -> None:
    changed = ("stages.caption.params.prompt=other",)
    before = files(root, "captions")
    again(made, root, changed)
    for path in before:
        path.unlink()
    again(made, root, changed)
    again(made, root)
    assert shown(root) == undisturbed


@pytest.mark.slow
def test_an_object_store_is_listed_not_asked_for_every_file(
    made: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with serving() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        server.make_bucket("data")
        root = "s3://data/root"
        run_toy(tmp_path, made / "people", root)
        store = Store(root)
        entries = load(store).entries
        server.requests.clear()
        assert lacking(store, entries) == {}
        assert len(server.requests) == 2
        path = load(store).shown("faces")[0].file
        size = store.size(path)
        store.delete([path])
        assert lacking(store, entries) == {path: (size, GONE)}
        before = shown_without_files(root)
        run_toy(tmp_path, made / "people", root)
        assert store.size(path) == size and before


def shown_without_files(root: str) -> bool:
    try:
        shown(root)
    except DamagedFile:
        return True
    return False
