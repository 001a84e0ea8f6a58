"""Garbage collection: what a kept snapshot names stays, everything else goes."""

from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import lease
from pipeline.gc import collect
from pipeline.lease import Lease, LeaseHeld
from pipeline.snapshot import Entry, Snapshot, SnapshotError, load, numbers, path_of, publish
from pipeline.storage import Store

ORPHANS = {
    "tables/faces/v=1/bucket=00000/chunk-00000-orphan.parquet": b"12345",
    "tables/faces/v=1/bucket=00000/.0123456789abcdef.tmp": b"123",
    "parts/faces/v=1/bucket=00000/00000-00000-aa.parquet": b"12",
    "parts/attempts/run/task.json": b"{}",
    "shards/p/train-000009.tar": b"1234",
    "shards/p/.0123.tmp": b"1",
    "snapshots/.0123456789abcdef.tmp": b"1",
}
OTHERS = {"dataset.json": b"{}", "runs/r1.json": b"{}", "shards/p/index.json": b"{}"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Three snapshots: a, then a and b, then b and c (with b not shown any more); and files that none of them names."""
    store = Store(tmp_path / "root")
    put(store, {**ORPHANS, **OTHERS})
    first = named(store, Snapshot(), "a")
    second = named(store, first, "a", "b")
    named(store, second, "b", "c")
    return store


def put(store: Store, files: dict[str, bytes]) -> None:
    for path, data in files.items():
        store.put(path, data, durable=False)


def table(name: str) -> str:
    return f"tables/faces/v=1/bucket=00000/chunk-00000-{name}.parquet"


def named(store: Store, before: Snapshot, *names: str) -> Snapshot:
    """Publish a snapshot with a file of each name; the last is shown, the others are kept beside it."""
    for name in names:
        store.put(table(name), name.encode() * 7, durable=False)
    entries = [Entry("faces", name, 0, 0, table(name), 1, 7, "d", "b", True, name == names[-1]) for name in names]
    return publish(store, Snapshot(before.number, (*entries, Entry("faces", "1", 0, 1, "", 0, 0, "", "b", True, True))))


def there(store: Store) -> set[str]:
    return set(store.list(""))


@pytest.mark.parametrize(("keep", "kept"), [(1, "bc"), (2, "abc"), (3, "abc"), (9, "abc")])
def test_kept_snapshots_keep_their_files(store: Store, keep: int, kept: str) -> None:
    """Going back to an older snapshot would fail, or a switch back to an earlier parameter would be paid for again."""
    found = collect(store, keep, "gc")
    left = [number for number in (1, 2, 3) if number > 3 - keep]
    assert there(store) == {*OTHERS, *map(path_of, left), *map(table, kept)}
    assert found.snapshots == [number for number in (1, 2, 3) if number not in left]
    gone = {**ORPHANS, **({} if "a" in kept else {table("a"): b"a" * 7})}
    assert set(found.files) == set(gone) and found.bytes == sum(map(len, gone.values()))
    for number in left:
        assert all(store.exists(file) for file in load(store, number).files())


def test_a_dry_run_says_the_same_and_does_nothing(store: Store) -> None:
    """A user who only looks would lose files, or be shown something else than what happens."""
    before = there(store)
    planned = collect(store, 1, "gc", dry=True)
    assert there(store) == before
    assert collect(store, 1, "gc") == planned and planned.files


def test_nothing_is_left_to_do_the_second_time(store: Store) -> None:
    """Each run would report and delete again."""
    collect(store, 2, "gc")
    before = there(store)
    found = collect(store, 2, "gc")
    assert (found.snapshots, found.files, found.bytes) == ([], [], 0) and there(store) == before


def test_a_run_in_progress_is_left_alone(store: Store) -> None:
    """The parts that a run has just written would be deleted under it."""
    before = there(store)
    with Lease(store, "r9"):
        for dry in (True, False):
            with pytest.raises(LeaseHeld, match="run r9"):
                collect(store, 1, "gc", dry)
        assert there(store) == {*before, lease.PATH}
    collect(store, 1, "gc")
    assert lease.PATH not in there(store)


def test_at_least_one_snapshot_is_kept(store: Store) -> None:
    """`--keep 0` would delete the whole dataset."""
    before = there(store)
    for keep in (0, -1):
        with pytest.raises(ValueError, match="keep at least one"):
            collect(store, keep, "gc")
    assert there(store) == before


def test_a_damaged_snapshot_stops_everything(store: Store) -> None:
    """All files that only this snapshot names would be deleted because it cannot be read."""
    store.put(path_of(2), b"damaged")
    before = there(store)
    with pytest.raises(SnapshotError, match=r"000002\.parquet is damaged"):
        collect(store, 2, "gc")
    assert there(store) == before
    collect(store, 1, "gc")
    assert numbers(store) == [3] and all(store.exists(file) for file in load(store).files())


def test_an_empty_root_has_nothing_to_delete(tmp_path: Path) -> None:
    """`idcluster gc` on a root before its first run would fail."""
    found = collect(Store(tmp_path / "root"), 1, "gc")
    assert (found.snapshots, found.files, found.bytes) == ([], [], 0)


class _Stopped(Store):
    """A store whose process ends after some deletions."""

    left = 0

    def delete(self, paths: Iterable[str]) -> None:
        for path in paths:
            if path != lease.PATH:
                if not self.left:
                    raise KeyboardInterrupt
                self.left -= 1
            super().delete([path])


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10))
def test_an_interruption_leaves_no_snapshot_without_its_files(tmp_path_factory: pytest.TempPathFactory, deletions: int) -> None:
    """A snapshot would be offered that names files which are gone."""
    stopped = _Stopped(tmp_path_factory.mktemp("gc") / "root")
    put(stopped, ORPHANS)
    named(stopped, named(stopped, named(stopped, Snapshot(), "a"), "a", "b"), "b", "c")
    stopped.left = deletions
    try:
        collect(stopped, 1, "gc")
    except KeyboardInterrupt:
        assert deletions < 2 + len(ORPHANS) + 1
    store = Store(stopped.root)
    for number in numbers(store):
        assert all(store.exists(file) for file in load(store, number).files())
    collect(store, 1, "gc")
    assert there(store) == {path_of(3), table("b"), table("c")}
