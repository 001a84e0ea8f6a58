"""Garbage collection: what a kept snapshot names stays, everything else goes."""

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idcluster.root import lease
from idcluster.root.dataset_root import RunError
from idcluster.root.lease import Lease, LeaseHeld
from idcluster.root.parquet import read_entries, seal_stream
from idcluster.root.snapshot import (
    WHOLE,
    Entry,
    Snapshot,
    SnapshotError,
    load,
    numbers,
    path_of,
    publish,
)
from idcluster.root.storage import StorageError, Store
from pipeline.gc import collect
from schemas import TABLES, identity_id, image_id
from tests.pipeline.rooms import bury, computed, run_toy, shown
from tests.pipeline.small_root import SmallPerson, small_root
from tests.pipeline.toy import DyingStore, Killed, people

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
    """Three snapshots: a, then a and b, then b and c (with b not shown any more); and files that
    none of them names.
    """
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
    """Publish a snapshot with a file of each name; the last is shown, the others are kept beside
    it.
    """
    for name in names:
        store.put(table(name), name.encode() * 7, durable=False)
    entries = [
        Entry("faces", name, 0, 0, table(name), 1, 7, "d", "b", True, name == names[-1])
        for name in names
    ]
    return publish(
        store,
        Snapshot(
            before.number, (*entries, Entry("faces", "1", 0, 1, "", 0, 0, "", "b", True, True))
        ),
    )


def there(store: Store) -> set[str]:
    """All files but those of the lease."""
    return {path for path in store.list("") if not path.startswith(f"{lease.FOLDER}/")}


@pytest.mark.parametrize(("keep", "kept"), [(1, "bc"), (2, "abc"), (3, "abc"), (9, "abc")])
def test_kept_snapshots_keep_their_files(store: Store, keep: int, kept: str) -> None:
    """Going back to an older snapshot would fail, or a switch back to an earlier parameter would be
    paid for again.
    """
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
        assert there(store) == before
    collect(store, 1, "gc")
    assert lease.read(store) is None


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


# Kept are runs


def by_runs(store: Store, runs: str) -> Snapshot:
    """A snapshot a letter, each with a file of its own, published by the run of that letter."""
    snapshot = load(store)
    for run in runs:
        name = f"{run}{snapshot.number + 1}"
        store.put(table(name), name.encode(), durable=False)
        entry = Entry("faces", "1", 0, 0, table(name), 1, 7, "d", "b", True, True)
        snapshot = publish(
            store, Snapshot(snapshot.number, (entry,), snapshot.notes).with_notes(run=run)
        )
    return snapshot


@pytest.mark.parametrize(
    ("runs", "keep", "left"),
    [
        ("AAAAA", 1, [5]),
        ("AAAAA", 2, [5]),
        ("AAABBBB", 2, [3, 7]),
        ("AAABBCDD", 2, [6, 8]),
        ("AAABBCDD", 3, [5, 6, 8]),
        ("AABBA", 2, [4, 5]),
    ],
)
def test_of_each_kept_run_the_last_snapshot_stays(
    tmp_path: Path, runs: str, keep: int, left: list[int]
) -> None:
    """A run publishes about five times: the state before it would be gone after it, however small
    it was.
    """
    store = Store(tmp_path / "root")
    by_runs(store, runs)
    assert collect(store, keep, "gc").published is None
    assert numbers(store) == left
    assert there(store) == {*map(path_of, left), *(table(f"{runs[n - 1]}{n}") for n in left)}
    assert collect(store, keep, "gc").snapshots == []


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.text("ABCD", min_size=1, max_size=6), min_size=1, max_size=4),
    st.integers(1, 4),
    st.integers(1, 4),
    st.booleans(),
)
def test_collecting_between_runs_changes_nothing_that_is_kept(
    tmp_path_factory: pytest.TempPathFactory,
    stretches: list[str],
    often: int,
    keep: int,
    current_only: bool,
) -> None:
    """`gc` publishes a snapshot of its own, which must not count as one more state, nor hide that
    of the run before.
    """
    store = Store(tmp_path_factory.mktemp("gc") / "root")
    number = 0
    last: list[int] = []
    runs: list[str] = []
    for turn, stretch in enumerate(stretches):
        for letter in stretch:
            run = f"{letter}{turn}"
            snapshot = load(store)
            file = table(f"n{number}")
            store.put(file, b"x", durable=False)
            # What was shown before stays beside it, so that there is something to forget.
            before = [
                replace(e, current=False, version=f"v{number}")
                for e in snapshot.entries
                if e.current
            ]
            entry = Entry("faces", "1", 0, 0, file, 1, 7, "d", "b", True, True)
            publish(
                store,
                Snapshot(snapshot.number, (*before, entry), snapshot.notes).with_notes(run=run),
            )
            if runs and runs[-1] == run:
                last[-1] = number
            else:
                runs.append(run)
                last.append(number)
            number += 1
        if turn % often == 0:
            collect(store, 9, "gc", current_only=current_only)
    collect(store, keep, "gc", current_only=current_only)
    shown_files = [
        next(e.file for e in load(store, n).entries if e.current) for n in numbers(store)
    ]
    assert shown_files == [table(f"n{n}") for n in last][-keep:]


def test_a_collection_that_broke_off_counts_no_state_twice(tmp_path: Path) -> None:
    """Its snapshot and the one in whose place it stands would both be kept, and the run before
    go.
    """
    store = Store(tmp_path / "root")
    by_runs(store, "AAABB")
    newest = load(store)
    hidden = Entry("faces", "0", 0, 0, table("A1"), 1, 7, "d", "b", True, False)
    publish(store, Snapshot(newest.number, (*newest.entries, hidden), newest.notes))
    with pytest.raises(Killed):
        collect(
            DyingStore(store.root, _call_of_publishing(tmp_path, store) + 1),
            2,
            "gc",
            current_only=True,
        )
    bury(store.root)
    assert numbers(store) == [3, 6, 7]
    collect(store, 2, "gc", current_only=True)
    assert numbers(store) == [3, 7]


def _call_of_publishing(folder: Path, store: Store) -> int:
    """The call of a collection that publishes, counted on a copy."""

    class Counting(DyingStore):
        found = 0

        def put_new(self, path: str, data: bytes) -> bool:
            done = super().put_new(path, data)
            self.found = self.calls if path.startswith("snapshots/") else self.found
            return done

    counting = Counting(shutil.copytree(store.root, folder / "copy"))
    collect(counting, 2, "gc", current_only=True)
    assert counting.found
    return counting.found


class _Stopped(Store):
    """A store whose process ends after some deletions."""

    left = 0

    def delete(self, paths: Iterable[str], before: Callable[[], None] = lambda: None) -> None:
        for path in paths:
            if not path.startswith("lease"):
                if not self.left:
                    raise KeyboardInterrupt
                self.left -= 1
            super().delete([path])


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10))
def test_an_interruption_leaves_no_snapshot_without_its_files(
    tmp_path_factory: pytest.TempPathFactory, deletions: int
) -> None:
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


# Of a dataset that has been through some changes

STRICT = ("stages.clean.params.similarity_threshold=0.996",)


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Folder, source and a root that ran with other parameters, then lost a photograph and a person
    at the source.
    """
    folder = tmp_path_factory.mktemp("changed")
    home = (folder, people(folder / "people"), folder / "root")
    run_toy(*home, sets=STRICT)
    run_toy(*home)
    shutil.copytree(home[1], folder / "before")
    (home[1] / "person 02" / "03.png").unlink()
    shutil.rmtree(home[1] / "person 03")
    run_toy(*home)
    return home


@pytest.fixture
def root(changed: tuple[Path, Path, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(changed[2], tmp_path / "root"))


def holding(root: Path, data: bytes) -> list[str]:
    """The files of a root in which some bytes stand as they are."""
    return sorted(
        str(path.relative_to(root))
        for path in root.rglob("*")
        if path.is_file() and data in path.read_bytes()
    )


def rows_of(root: Path, column: str, value: str) -> list[str]:
    """The Parquet files of a root that have a row with some value in a column."""
    found = []
    for path in sorted(root.rglob("*.parquet")):
        file = pq.ParquetFile(path)
        if column in file.schema_arrow.names and value in file.read([column])[column].to_pylist():
            found.append(str(path.relative_to(root)))
    return found


def removed(changed: tuple[Path, Path, Path]) -> Iterator[tuple[str, bytes]]:
    """Image id and bytes of every photograph that is gone at the source; no bytes where somebody
    else has the same ones.
    """
    before = changed[0] / "before"
    others = {path.read_bytes() for path in changed[1].rglob("*.*")}
    for path in sorted(before.rglob("*.*")):
        if not (changed[1] / path.relative_to(before)).exists():
            person, name, data = path.parent.name, path.name, path.read_bytes()
            yield (
                image_id(identity_id(person), f"local:{person}/{name}"),
                b"" if data in others else data,
            )


def test_no_byte_of_a_removed_photograph_is_left(
    changed: tuple[Path, Path, Path], root: Path
) -> None:
    """README promises it; what stays are the name and the addresses, which say that they are
    gone.
    """
    gone = list(removed(changed))
    assert len(gone) == 12 and sum(bool(data) for _, data in gone) == 10
    for image, data in gone:
        assert holding(root, data) and rows_of(root, "image_id", image)
    view = shown(root)
    found = collect(Store(root), 1, "gc", current_only=True)
    assert found.left == () and found.held == 0
    for image, data in gone:
        assert not data or holding(root, data) == []
        assert [path.split("/")[1] for path in rows_of(root, "image_id", image)] == ["candidates"]
        assert not [
            path
            for path in holding(root, image.encode())
            if not path.startswith("tables/candidates/")
        ]
    person = identity_id("person 03")
    assert {path.split("/")[1] for path in rows_of(root, "identity_id", person)} == {
        "identities",
        "candidates",
    }
    assert shown(root) == view
    assert computed(run_toy(changed[0], changed[1], root)) == {}
    assert shown(root) == view


@pytest.mark.slow
def test_plain_collection_keeps_earlier_rows_and_drops_replaced_shards(
    changed: tuple[Path, Path, Path], root: Path
) -> None:
    """A switch back would be paid for again, or every shard that was ever written stay."""
    store, view = Store(root), shown(root)
    replaced = {
        e.file for e in load(store).entries if e.table in ("shards", "samples") and not e.current
    }
    assert len(replaced) == 4
    found = collect(store, 1, "gc")
    assert found.published and found.forgotten == 4 and replaced <= {*found.files}
    assert not any(map(store.exists, replaced)) and {*load(store).files()} == {
        *store.list("tables"),
        *_tars(root),
    }
    assert shown(root) == view
    before = numbers(store)
    assert collect(store, 1, "gc").published is None and numbers(store) == before, (
        "the second time finds nothing"
    )
    back = run_toy(changed[0], changed[1], root, STRICT)
    assert computed(back) == {"clean": 1, "people": 1}, "of the person who lost a photograph"
    assert back.shards["written"] == 1
    run_toy(changed[0], changed[1], root)
    assert shown(root) == view


def test_shards_that_a_kept_snapshot_shows_stay(
    changed: tuple[Path, Path, Path], root: Path
) -> None:
    store = Store(root)
    last = numbers(store)[-1]
    other = run_toy(changed[0], changed[1], root, STRICT)
    assert other.shards["written"] == 1
    collect(store, 2, "gc")
    assert numbers(store) in ([last, other.snapshot], [last, other.snapshot + 1])
    for number in numbers(store):
        kept = load(store, number)
        assert all(
            store.exists(e.file) for table in ("shards", "samples") for e in kept.shown(table)
        )
        assert all(store.exists(e.file) for e in kept.entries if e.file and e.table in TABLES)


def test_the_tidied_snapshot_takes_the_place_of_the_newest(root: Path) -> None:
    """`--keep 2` would keep the same state twice, and the one to go back to would be gone."""
    store = Store(root)
    there, newest = numbers(store), load(store).notes["run"]
    before = max(number for number in there if load(store, number).notes["run"] != newest)
    found = collect(store, 2, "gc")
    assert numbers(store) == [before, there[-1] + 1] and found.snapshots == [
        number for number in there if number != before
    ]
    collect(store, 2, "gc")
    assert numbers(store) == [before, there[-1] + 1]


def test_a_dry_run_of_everything_says_the_same(root: Path) -> None:
    for current_only in (False, True):
        planned = collect(Store(root), 2, "gc", dry=True, current_only=current_only)
        before = {path: path.stat().st_mtime_ns for path in root.rglob("*.parquet")}
        assert collect(Store(root), 2, "gc", dry=True, current_only=current_only) == planned
        assert {path: path.stat().st_mtime_ns for path in root.rglob("*.parquet")} == before
        assert collect(Store(root), 2, "gc", current_only=current_only) == planned
    assert planned.held, "files that the older snapshot names"
    assert collect(Store(root), 1, "gc", current_only=True).held == 0


def test_what_a_stage_that_did_not_run_still_shows_is_told(
    changed: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    """Somebody would believe that a removed photograph is gone while captions and shards have
    it.
    """
    root = tmp_path / "root"
    source = Path(shutil.copytree(changed[0] / "before", tmp_path / "people"))
    run_toy(tmp_path, source, root)
    (source / "person 02" / "03.png").unlink()
    file = tmp_path / "toy.yaml"
    from tests.pipeline import toy

    without = toy.DAG.replace("  caption: {{backend: toy}}\n", "")
    kept, toy.DAG = (
        toy.DAG,
        "\n".join(line for line in without.splitlines() if not line.startswith("  shard:")) + "\n",
    )
    try:
        run_toy(tmp_path, source, root)
    finally:
        toy.DAG = kept
    assert "caption" not in file.read_text()
    assert collect(Store(root), 1, "gc", current_only=True).left == (
        ("captions", 1),
        ("samples", 1),
    )


def with_a_hole(store: Store) -> str:
    """A root in which the captions of three chunks lie in one file, and one of them is shown no
    more; the file.
    """
    first = small_root(
        store,
        [SmallPerson(name, 3, caption=name) for name in ("Ada", "Bea", "Cy")],
        people_per_chunk=1,
    )
    entries = first.shown("captions")
    made = seal_stream(
        store,
        TABLES["captions"],
        entries[0].version,
        0,
        WHOLE,
        (read_entries(store, "captions", [e]) for e in entries),
    )
    offsets = [sum(e.rows for e in entries[:number]) for number in range(3)]
    moved = [
        replace(e, file=made.path, offset=offset, file_rows=made.rows, file_bytes=made.bytes)
        for e, offset in zip(entries, offsets, strict=True)
    ]
    second = publish(store, first.with_entries(moved))
    assert collect(store, 1, "gc", current_only=True).published is None, "no row is too many"
    rest = [e for e in second.entries if e.chunk != 1]
    publish(store, Snapshot(second.number, tuple(rest), second.notes))
    return made.path


def test_files_of_several_chunks_lose_the_rows_that_nobody_shows(tmp_path: Path) -> None:
    """Rows of a removed person would stay in the file of the bucket."""
    store = Store(tmp_path / "root")
    file = with_a_hole(store)
    before = read_entries(store, "captions", load(store).shown("captions"))
    assert before.num_rows == 6
    planned = collect(store, 1, "gc", dry=True, current_only=True)
    assert file in planned.files
    assert file in collect(store, 1, "gc", current_only=True).files
    assert read_entries(store, "captions", load(store).shown("captions")).equals(before)
    assert not [
        path
        for path in rows_of(tmp_path / "root", "identity_id", identity_id("Bea"))
        if "/captions/" in path
    ]
    assert collect(store, 1, "gc", current_only=True).published is None


def test_a_file_for_which_there_is_no_room_stays_as_it_is(tmp_path: Path) -> None:
    """On a full disk nothing would be collected, because one file cannot be written anew first."""

    class Full(Store):
        def put_file(self, path: str, local: str | os.PathLike[str]) -> None:
            raise StorageError(errno.ENOSPC, "the disk is full")

    store = Store(tmp_path / "root")
    file = with_a_hole(store)
    store.put(table("orphan"), b"x")
    before, said = read_entries(store, "captions", load(store).shown("captions")), list[str]()
    found = collect(Full(store.root), 1, "gc", current_only=True, notice=said.append)
    assert (
        table("orphan") in found.files
        and file not in found.files
        and "no room to write files anew" in said[0]
    )
    assert read_entries(store, "captions", load(store).shown("captions")).equals(before)
    assert file in collect(store, 1, "gc", current_only=True).files


@pytest.mark.parametrize("good", range(3))
def test_a_lost_lease_ends_the_deleting(
    root: Path, monkeypatch: pytest.MonkeyPatch, good: int
) -> None:
    """Another run that has taken the root over would lose what it has just written."""
    store = Store(root)
    before = there(store)
    answers = iter([*[True] * good, *[False] * 9])
    monkeypatch.setattr("pipeline.gc._LOOK_SECONDS", 0.0)
    monkeypatch.setattr(Lease, "held", lambda self: next(answers))
    with pytest.raises(RunError, match=r"the lease on .* was lost; nothing more was deleted"):
        collect(store, 1, "gc", current_only=True)
    assert len(before - there(store)) == good


def test_an_index_that_lists_other_shards_is_put_right(root: Path) -> None:
    """A run that died after it had put the index: the shards listed there would be deleted under
    its readers.
    """
    index = root / "shards" / "faces" / "train.json"
    good = index.read_bytes()
    about = json.loads(good)
    about["shardlist"][0]["url"] = "train-0123456789abcdef-000-01234567.tar"
    index.write_text(json.dumps(about))
    collect(Store(root), 1, "gc")
    assert index.read_bytes() == good


@pytest.mark.slow
@pytest.mark.parametrize("current_only", [False, True], ids=["plain", "current only"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_death_at_some_calls(root: Path, tmp_path: Path, after: bool, current_only: bool) -> None:
    """Wherever it dies, what is there is whole, and the next collection ends as if nothing had
    been.
    """
    view = shown(root)
    whole = Path(shutil.copytree(root, tmp_path / "whole"))
    counting = DyingStore(whole)
    collect(counting, 1, "gc", current_only=current_only)
    for at in range(1 + after, counting.calls + 1, 5):
        mine = Path(shutil.copytree(root, tmp_path / f"root-{at}"))
        with contextlib.suppress(Killed):
            collect(DyingStore(mine, at, after), 1, "gc", current_only=current_only)
        store = Store(mine)
        bury(store.root)
        for number in numbers(store):
            kept: Any = load(store, number)
            assert all(
                store.exists(e.file)
                for e in kept.entries
                if e.file and (e.current or e.table in TABLES)
            ), at
        assert shown(mine) == view, at
        collect(store, 1, "gc", current_only=current_only)
        assert _tars(mine) == _tars(whole) and store.list("tables") == Store(whole).list(
            "tables"
        ), at
        assert shown(mine) == view, at
        shutil.rmtree(mine)


def _tars(root: Path) -> list[str]:
    return [
        path for path in Store(root).list("shards") if not path.endswith((".json", "/README.md"))
    ]
