"""A run that dies at any call to the store and is resumed shows the same as one that nothing
disturbed.
"""

import contextlib
import os
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from idcluster.root.dataset_root import make_root
from tests.pipeline.rooms import bury, run_toy, shown, small_buckets
from tests.pipeline.toy import DyingStore, Killed, people, picture

STEP, SWEEP = 11, 20
"""Every eleventh call in the quick test; so many calls, evenly spread, in the slow one.
IDCLUSTER_SWEEP=all takes them all.
"""


@pytest.fixture(scope="module", autouse=True, params=["one chunk", "many chunks, merged"])
def size(request: pytest.FixtureRequest) -> Iterator[int]:
    """How many times larger than `STEP` the steps are: more files make more calls."""
    with nullcontext() if request.param == "one chunk" else small_buckets():
        yield 1 if request.param == "one chunk" else 7


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return people(tmp_path_factory.mktemp("source") / "people", count=3, pictures=14)


@pytest.fixture(scope="module")
def undisturbed(
    size: int, source: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[int, dict[str, Any]]:
    """How many calls to the store a whole run makes, and what it shows."""
    folder = tmp_path_factory.mktemp("undisturbed")
    make_root(str(folder / "root"), "toy")
    store = DyingStore(folder / "root")
    run_toy(folder, source, folder / "root", store=store)
    return store.calls, shown(folder / "root")


def die_and_resume(folder: Path, source: Path, at: int, after: bool) -> dict[str, Any]:
    root = folder / f"root-{at}-{after}"
    store = make_root(str(root), "toy")
    with contextlib.suppress(Killed):
        run_toy(folder, source, root, store=DyingStore(root, at, after))
    # The process that held the lease is this one and alive; a dead one's lease is taken over
    # (tested with the lease).
    bury(store.root)
    record = run_toy(folder, source, root)
    assert record.status == "done"
    return shown(root)


def test_every_file_matters(undisturbed: tuple[int, dict[str, Any]]) -> None:
    calls, view = undisturbed
    assert calls > 60
    assert view["captions"]
    assert view["shards"]


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_death_at_some_calls(
    undisturbed: tuple[int, dict[str, Any]], source: Path, tmp_path: Path, size: int, after: bool
) -> None:
    calls, view = undisturbed
    for at in range(1 + after * STEP // 2, calls + 1, STEP * size):
        assert die_and_resume(tmp_path, source, at, after) == view, f"died at call {at} of {calls}"


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_death_at_calls_all_over(
    undisturbed: tuple[int, dict[str, Any]], source: Path, tmp_path: Path, after: bool
) -> None:
    calls, view = undisturbed
    step = 1 if os.environ.get("IDCLUSTER_SWEEP") == "all" else max(1, calls // SWEEP)
    for at in range(1 + after * step // 2, calls + 1, step):
        assert die_and_resume(tmp_path, source, at, after) == view, f"died at call {at} of {calls}"


@pytest.mark.slow
def test_death_twice_and_while_something_changes(source: Path, tmp_path: Path) -> None:
    """Dead in a first run, dead again in the second, which has other parameters and a new image;
    then resumed.
    """
    import shutil

    mine = tmp_path / "people"
    shutil.copytree(source, mine)
    sets = ("stages.caption.params.prompt=other",)
    for at in (25, 40, 55, 70):
        root = tmp_path / f"root-{at}"
        store = make_root(str(root), "toy")
        with contextlib.suppress(Killed):
            run_toy(tmp_path, mine, root, store=DyingStore(root, at))
        bury(store.root)
        (mine / "person 01" / f"new-{at}.png").write_bytes(picture(11, noise=at))
        with contextlib.suppress(Killed):
            run_toy(tmp_path, mine, root, sets, store=DyingStore(root, at // 2))
        bury(store.root)
        run_toy(tmp_path, mine, root, sets)
        kept = shown(root)
        again = tmp_path / f"again-{at}"
        run_toy(tmp_path, mine, again, sets)
        afresh = shown(again)
        # Where an image was first seen decides its chunk and so its place in the candidates; all
        # else is the same.
        for table in ("images", "faces", "embeddings", "clusters", "people", "captions", "shards"):
            assert kept[table] == afresh[table], (at, table)
