"""A writer that only seemed dead: whatever it still puts is refused or void, and never shown."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idcluster.root import lease
from idcluster.root.all_files import Files
from idcluster.root.lease import Lease, path_of, standing
from idcluster.root.snapshot import (
    Entry,
    Snapshot,
    SnapshotError,
    VoidSnapshot,
    fence,
    genuine,
    is_void,
    load,
    numbers,
    publish,
)
from idcluster.root.snapshot import path_of as snapshot_path
from idcluster.root.storage import Store
from pipeline.gc import collect
from pipeline.history import listing, rollback
from tests.pipeline.forgotten import WHO, gallery, remove
from tests.pipeline.rooms import bury, run_toy, shown
from tests.pipeline.s3 import S3Server, serving

_REPOSITORY = Path(__file__).resolve().parents[3]


def file_of(name: str) -> str:
    return f"tables/faces/v=1/bucket=00000/chunk-00000-{name}.parquet"


def naming(before: Snapshot, *names: str) -> Snapshot:
    entries = [
        Entry("faces", name, 0, 0, file_of(name), 1, 7, name, "b", True, name == names[-1])
        for name in names
    ]
    return Snapshot(before.number, tuple(entries), before.notes)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A root of an earlier version of the program, with one snapshot."""
    store = Store(tmp_path / "root")
    store.put(file_of("a"), b"a")
    publish(store, naming(Snapshot(), "a").with_notes(run="old"))
    return store


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "STALE_SECONDS", 0.2)
    monkeypatch.setattr(lease, "WATCH_SECONDS", 0.02)


def elsewhere(store: Store) -> None:
    """Let the holder of the lease be on another machine."""
    number, data = standing(store)
    store.put(
        path_of(number),
        json.dumps({**json.loads(data), "place": "elsewhere", "host": "elsewhere"}).encode(),
    )


class _Stalled(Store):
    """A store whose writer is stopped on the way to putting a snapshot, after its look at the
    lease.
    """

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.reached, self.go_on = threading.Event(), threading.Event()

    def put_new(self, path: str, data: bytes) -> bool:
        if path.startswith("snapshots/"):
            self.reached.set()
            assert self.go_on.wait(60)
        return super().put_new(path, data)


def overtaken(store: Store, meanwhile: Callable[[], None]) -> SnapshotError | Snapshot:
    """What comes of a writer that is stopped before its put, while its lease is taken for that of a
    dead one elsewhere.
    """
    stalled = _Stalled(store.root)

    def write() -> SnapshotError | Snapshot:
        with Lease(stalled, "late") as held:
            stalled.put(file_of("late"), b"late")
            try:
                return held.publish(naming(load(stalled), "a", "late").with_notes(run="late"))
            except SnapshotError as error:
                return error

    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(write)
        try:
            assert stalled.reached.wait(60)
            elsewhere(store)
            meanwhile()
        finally:
            stalled.go_on.set()
        return late.result()


def whole(store: Store) -> bool:
    return all(
        store.exists(file)
        for number in genuine(store, load(store))
        for file in load(store, number).files()
    )


@pytest.mark.usefixtures("quick")
def test_a_put_that_comes_late_is_refused(store: Store) -> None:
    """A snapshot would be published whose files garbage collection has just deleted: the dataset
    could not be read.
    """
    collected: list[str] = []
    late = overtaken(store, lambda: collected.extend(collect(store, 1, "gc").files))
    assert isinstance(
        late, SnapshotError
    ) and "was published by another writer meanwhile; run again" in str(late)
    assert collected == [file_of("late")] and not store.exists(file_of("late"))
    assert [*load(store).files()] == [file_of("a")] and whole(store)


@pytest.mark.usefixtures("quick")
def test_a_put_that_finds_its_number_deleted_is_void(store: Store) -> None:
    """Garbage collection deletes old numbers: the late put would succeed as an older state to go
    back to, without its files.
    """

    def meanwhile() -> None:
        collect(store, 1, "gc")
        for run in ("r1", "r2"):
            with Lease(store, run) as held:
                held.publish(naming(load(store), "a").with_notes(run=run))
        collect(store, 1, "gc")
        assert numbers(store) == [4]

    late = overtaken(store, meanwhile)
    assert (
        isinstance(late, Snapshot)
        and numbers(store) == [2, 4]
        and not store.exists(file_of("late"))
    )
    with pytest.raises(
        VoidSnapshot, match=r"000002\.parquet is void: .* `idcluster gc` deletes it"
    ):
        load(store, 2)
    with pytest.raises(VoidSnapshot):
        rollback(store, 2, "back")
    assert load(store).number == 4 and genuine(store, load(store)) == [4] and whole(store)
    assert [one.changes for one in listing(store)] == [
        "void: put by a writer that had lost the lease",
        "faces +1",
    ]
    assert {*Files(store).tables["faces"]} == {file_of("a")}
    assert collect(store, 5, "gc").snapshots == [2] and numbers(store) == [4]


@pytest.mark.usefixtures("quick")
def test_what_was_put_in_time_stays(store: Store) -> None:
    """Work of a run that was cut off from the store, all of it there, would be thrown away by its
    successor.
    """
    with Lease(store, "cut off") as held:
        store.put(file_of("b"), b"b")
        held.publish(naming(load(store), "b").with_notes(run="cut off"))
        elsewhere(store)
        with Lease(store, "next") as other:
            assert other.fenced == 3 and not held.held()
            assert [*load(store).files()] == [file_of("b")]
            with pytest.raises(SnapshotError):
                publish(store, load(store, 2), held.epoch)
    first, second, third = listing(store)
    assert (first.changes, second.changes) == ("faces +1", "faces changed")
    assert third.changes == "in place of 2 (a writer that seemed dead)" and third.run == "next"
    assert collect(store, 1, "gc").snapshots == [1, 2], "the fence is no state of its own"
    assert load(store, 3).notes["result_of"] == "cut off"


def test_going_back_to_before_a_fence_keeps_it(store: Store) -> None:
    """What was void would be a state to go back to again, without its files."""
    fence(store, 5, "next")
    store.put(file_of("b"), b"b")
    publish(store, naming(load(store), "b"), 5)
    back = rollback(store, 1, "back")
    assert [*back.files()] == [file_of("a")] and [5, 2] in back.notes["fences"]
    assert load(store).notes["epoch"] == 6


_STOPPED = """
import os, signal, sys
from idcluster.root import lease, process
from idcluster.root.snapshot import SnapshotError, load
from idcluster.root.storage import Store

class Stopped(Store):
    def put_new(self, path, data):
        if path.startswith("snapshots/"):
            os.kill(os.getpid(), signal.SIGSTOP)
        return super().put_new(path, data)

process.place = lambda: "another container"
with lease.Lease(Stopped(sys.argv[1]), "late") as held:
    held.store.put("tables/faces/late.parquet", b"late")
    try:
        held.publish(load(held.store))
    except SnapshotError as error:
        print(error)
print("held" if held.held() else "lost")
"""


@pytest.mark.usefixtures("quick")
def test_a_stopped_process_that_goes_on_is_told(store: Store) -> None:
    """As above, with a process that a machine, a debugger or a laptop's lid has stopped."""
    with subprocess.Popen(
        [sys.executable, "-c", _STOPPED, store.root],
        cwd=_REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            os.waitid(os.P_PID, process.pid, os.WSTOPPED)
            assert collect(store, 1, "gc").files == ["tables/faces/late.parquet"]
        finally:
            os.kill(process.pid, signal.SIGCONT)
        out, _ = process.communicate(timeout=60)
    assert "was published by another writer meanwhile" in out and out.endswith("lost\n")
    assert numbers(store) == [2] and whole(store)


@pytest.mark.usefixtures("quick")
def test_whoever_comes_between_taking_the_lease_and_the_fence_puts_it(store: Store) -> None:
    """The successor is killed in this moment: the next one finds a dead process here, and would
    believe that all is settled.
    """

    class Killed(Store):
        def put_new(self, path: str, data: bytes) -> bool:
            if path.startswith("snapshots/"):
                bury(self.root)
                raise SystemExit
            return super().put_new(path, data)

        def delete(self, paths: object, before: object = None) -> None:
            raise SystemExit

    def meanwhile() -> None:
        with pytest.raises(SystemExit), Lease(Killed(store.root), "killed"):
            pytest.fail("it was killed")
        assert standing(store)[0] == 2
        with Lease(store, "next") as held:
            assert held.fenced == 2

    assert isinstance(overtaken(store, meanwhile), SnapshotError)


@pytest.mark.usefixtures("quick")
def test_a_fence_that_cannot_be_put_leaves_the_lease_as_it_was(store: Store) -> None:
    """The root would count as taken over, without the fence; or be locked by a process that does
    nothing.
    """
    with Lease(store, "seems dead") as held:
        elsewhere(store)
        good = store.read(snapshot_path(1))
        store.put(snapshot_path(1), b"damaged")
        with pytest.raises(SnapshotError, match="is damaged"), Lease(store, "next"):
            pytest.fail("without a fence")
        assert standing(store)[0] == 1
        store.put(snapshot_path(1), good)
        with Lease(store, "next") as other:
            assert other.fenced == 2 and not held.held()


EPOCHS = st.lists(st.integers(0, 3), max_size=12)


@given(EPOCHS, st.integers(1, 12), st.integers(0, 20))
def test_void_is_what_was_put_behind_a_fence(steps: list[int], number: int, epoch: int) -> None:
    """The model: writers one after another, each with a fence before its snapshots; late is who
    puts where another one has.
    """
    fences, owner, at = [], {}, 0
    for writer, count in enumerate(steps, 1):
        at += 1
        fences.append([writer, at])
        for one in range(at, at + count + 1):
            owner[one] = writer
        at += count
    expected = epoch < owner.get(min(number, at), 0)
    assert is_void(number, {"epoch": epoch}, {"fences": fences}) == expected
    assert not is_void(number, {}, {}), "of a root without epochs"


@pytest.mark.slow
def test_who_is_forgotten_goes_from_void_snapshots_too(tmp_path: Path) -> None:
    """A snapshot that nobody can go back to would stay with the person's files, or stop the
    removal.
    """
    run_toy(tmp_path, gallery(tmp_path / "people", count=4, pictures=2), tmp_path / "root")
    store = Store(tmp_path / "root")
    late = load(store)
    publish(store, fence(store, 9, "next"), 9)
    store.put(
        snapshot_path(late.number + 1), Snapshot(late.number + 1, late.entries, late.notes).encode()
    )
    with pytest.raises(VoidSnapshot):
        load(store, late.number + 1)
    view = shown(tmp_path / "root")
    assert view["identities"]
    remove(store, WHO)
    assert late.number + 1 not in numbers(store)
    assert not any(row[1] == WHO for row in shown(tmp_path / "root")["identities"])


@pytest.fixture
def server() -> Iterator[S3Server]:
    pytest.importorskip("s3fs", reason="object stores need the group s3")
    with pytest.MonkeyPatch.context() as patch, serving() as server:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        server.make_bucket("fence")
        yield server


def test_a_put_that_is_on_its_way_to_a_store_is_refused(server: S3Server) -> None:
    """The process is gone, its lease taken over, and what it had sent comes to the store after
    that.
    """
    store = Store("s3://fence/root")
    publish(store, naming(Snapshot(), "a"))
    reached, go_on = threading.Event(), threading.Event()

    def hold(method: str, path: str) -> None:
        if method == "PUT" and path.endswith("snapshots/000002.parquet") and not reached.is_set():
            reached.set()
            assert go_on.wait(60)

    def write() -> Snapshot:
        with Lease(store, "late") as held:
            return held.publish(naming(load(store), "late"))

    server.hold = hold
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(write)
        try:
            assert reached.wait(60)
            bury(store.root)
            with Lease(store, "next") as held:
                assert held.fenced == 2
        finally:
            go_on.set()
        with pytest.raises(SnapshotError, match="was published by another writer meanwhile"):
            late.result()
    assert [*load(store).files()] == [file_of("a")]
