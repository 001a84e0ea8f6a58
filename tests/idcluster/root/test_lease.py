"""The lease: a second writer is refused by name, and a dead one does not lock the root."""

import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import psutil
import pytest

from idcluster.root import lease, process, storage
from idcluster.root.dataset_root import RunError
from idcluster.root.lease import (
    RESERVE,
    STALE_SECONDS,
    Lease,
    LeaseHeld,
    dead,
    is_alive,
    is_writable,
    path_of,
    read,
    standing,
)
from idcluster.root.snapshot import Snapshot, load, numbers, publish
from idcluster.root.storage import StorageError, Store

_REPOSITORY = Path(__file__).resolve().parents[3]
_HOLD = """
import sys
from idcluster.root.lease import Lease
from idcluster.root.storage import Store
with Lease(Store(sys.argv[1]), "theirs"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "root")


@contextlib.contextmanager
def another_process(store: Store) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lease until its input ends."""
    command = [sys.executable, "-c", _HOLD, store.root]
    with subprocess.Popen(
        command, cwd=_REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


FIRST = path_of(1)
ELSEWHERE = {"host": "elsewhere", "place": "elsewhere", "pid": 1, "started": 0}


def record(**changed: Any) -> bytes:
    mine = json.loads(Lease(Store("nowhere"), "theirs")._content())
    return json.dumps({**mine, "secret": "s", "settled": True, **changed}).encode()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A holder elsewhere is watched for a moment, not for a minute."""
    monkeypatch.setattr(lease, "STALE_SECONDS", 0.3)
    monkeypatch.setattr(lease, "WATCH_SECONDS", 0.05)


def test_it_is_held_inside_and_gone_afterwards(store: Store) -> None:
    """The next run would be refused although nobody writes."""
    with Lease(store, "mine") as held:
        found = read(store)
        assert found is not None and found["run"] == "mine" and held.held()
    assert read(store) is None and not held.held()
    with pytest.raises(ZeroDivisionError), Lease(store, "mine"):
        raise ZeroDivisionError
    assert read(store) is None


def test_each_holder_has_a_higher_number_and_leaves_one_file(store: Store) -> None:
    """A late writer could not be told from its successor; or a root would collect a file a run."""
    for number in (1, 2, 3):
        with Lease(store, f"r{number}") as held:
            assert held.epoch == number
        assert standing(store) == (number, b"") and store.list("leases") == [
            path_of(number),
            RESERVE,
        ]


def test_a_second_writer_is_refused_by_name(store: Store) -> None:
    """Two runs would write to one root; or the user would not know which one to wait for."""
    with another_process(store) as process:
        before = store.read(FIRST)
        with pytest.raises(LeaseHeld) as caught, Lease(store, "mine"):
            pytest.fail("two writers")
        for word in (
            store.root,
            "run theirs",
            f"host {socket.gethostname()}",
            f"process {process.pid}",
            "last sign 0 s ago",
        ):
            assert word in str(caught.value)
        assert store.read(FIRST) == before
        assert process.communicate("")[0] == "" and process.returncode == 0
    with Lease(store, "mine") as held:
        assert held.held()


def test_within_one_process_too(store: Store) -> None:
    """Two runs started from one notebook would write to one root."""
    with Lease(store, "first"), pytest.raises(LeaseHeld, match="run first"), Lease(store, "second"):
        pytest.fail("two writers")


def test_of_many_at_once_one_gets_it(store: Store) -> None:
    """Two runs started in the same moment would both write."""
    barrier = Barrier(8)
    done = Barrier(8)

    def enter(number: int) -> bool:
        barrier.wait()
        try:
            with Lease(store, f"r{number}"):
                done.wait()
                return True
        except LeaseHeld:
            done.wait()
            return False

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(enter, range(8))).count(True) == 1


@pytest.mark.parametrize("reaped", [True, False])
def test_the_lease_of_a_killed_process_is_taken_over(store: Store, reaped: bool) -> None:
    """After `kill -9` the root would be locked; not reaped, as in a container without an init
    process, even for ever.
    """
    with another_process(store) as process:
        process.send_signal(signal.SIGKILL)
        if reaped:
            process.wait()
        else:
            os.waitid(
                os.P_PID, process.pid, os.WEXITED | os.WNOWAIT
            )  # wait for the end and leave it unreaped
        assert read(store) is not None
        with Lease(store, "mine") as held:
            found = read(store)
            assert held.held() and found is not None and found["run"] == "mine"


def test_another_process_with_the_same_number_is_not_the_holder(store: Store) -> None:
    """After a restart of the machine some other program would keep the root locked."""
    store.put(FIRST, record(started=7))
    with Lease(store, "mine") as held:
        assert held.held()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "skew", [-7200.0, 0.0, 7200.0], ids=["clock behind", "clock right", "clock ahead"]
)
def test_a_holder_elsewhere_without_a_sign_is_dead(store: Store, skew: float) -> None:
    """A node that went down would lock the root, for hours if its clock was ahead."""
    store.put(path_of(4), record(**ELSEWHERE, at=time.time() + skew))
    said: list[str] = []
    with Lease(store, "mine", said.append) as held:
        assert held.held() and held.epoch == 5
    assert "run theirs (host elsewhere, process 1); watching it" in said[0]


@pytest.mark.parametrize(
    "skew", [-7200.0, 0.0, 7200.0], ids=["clock behind", "clock right", "clock ahead"]
)
def test_a_holder_elsewhere_that_gives_a_sign_is_not_dead(
    store: Store, monkeypatch: pytest.MonkeyPatch, skew: float
) -> None:
    """A living writer on a machine whose clock is behind would lose the root."""
    monkeypatch.setattr(lease, "WATCH_SECONDS", 0.05)
    store.put(FIRST, record(**ELSEWHERE, at=time.time() + skew))

    def renew(text: str) -> None:
        threading.Timer(
            0.1, store.put, (FIRST, record(**ELSEWHERE, at=time.time() + skew + 10))
        ).start()

    with pytest.raises(LeaseHeld, match="host elsewhere"), Lease(store, "mine", renew):
        pytest.fail("two writers")


def test_a_holder_elsewhere_that_gives_the_lease_back_is_followed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits would be refused by a run that has ended meanwhile."""
    monkeypatch.setattr(lease, "WATCH_SECONDS", 0.05)
    store.put(FIRST, record(**ELSEWHERE))
    with Lease(store, "mine", lambda text: store.put(FIRST, b"")) as held:
        assert held.held() and held.epoch == 2 and held.fenced is None


@pytest.mark.parametrize(
    "changed", ["", "elsewhere", "pid:[1]"], ids=["unknown", "another machine", "another container"]
)
def test_the_name_of_a_machine_alone_says_nothing_of_its_processes(
    store: Store, changed: str
) -> None:
    """Two containers of one name: the process of the other one is not to be found here, and would
    count as dead at once.
    """
    holder = json.loads(record(pid=2**22 - 1))
    assert is_alive(holder) is False, "a process of ours that is gone"
    place = (
        holder["place"].rpartition(" ")[0] + f" {changed}" if changed.startswith("pid") else changed
    )
    assert is_alive({**holder, "place": place}) is None
    assert (
        is_alive({key: value for key, value in holder.items() if key not in ("place", "started")})
        is None
    ), "by an earlier version"


@pytest.mark.slow
def test_a_writer_in_another_container_is_not_evicted(store: Store) -> None:
    """A second run in a container on the same machine would take the root from the first at
    once.
    """
    inside = ["unshare", "--pid", "--fork", "--mount-proc", "--map-root-user"]
    if subprocess.run([*inside, "true"], capture_output=True).returncode:
        pytest.skip("needs the right to make a namespace of processes")
    hold = _HOLD.replace(
        "with Lease", "import idcluster.root.lease as lease; lease.RENEW_SECONDS = 0.1\nwith Lease"
    )
    command = [*inside, sys.executable, "-c", hold, store.root]
    with subprocess.Popen(
        command, cwd=_REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "held\n"
            with pytest.raises(LeaseHeld, match="run theirs"), Lease(store, "mine"):
                pytest.fail("two writers")
        finally:
            process.communicate("")


def test_a_holder_here_that_is_busy_is_not_dead(store: Store) -> None:
    """A process that was stopped for a while, as a laptop that slept, would lose the root to a
    second run.
    """
    store.put(FIRST, record(at=time.time() - 10 * STALE_SECONDS))
    with pytest.raises(LeaseHeld, match="last sign 600 s ago"), Lease(store, "mine"):
        pytest.fail("two writers")


@pytest.mark.parametrize("seconds", [-3600, 5, 3600])
def test_a_clock_that_is_set_evicts_nobody(
    store: Store, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    """The time at which the machine was started, as /proc tells it, moves with the clock: a live
    run would lose the root.
    """
    read_text = Path.read_text

    def shifted(path: Path, *arguments: Any, **named: Any) -> str:
        text = read_text(path, *arguments, **named)
        if str(path) != "/proc/stat":
            return text
        return "\n".join(
            f"btime {int(line[6:]) + seconds}" if line.startswith("btime ") else line
            for line in text.splitlines()
        )

    now = time.time
    with Lease(store, "theirs"):
        monkeypatch.setattr(Path, "read_text", shifted)
        monkeypatch.setattr(time, "time", lambda: now() + seconds)
        with pytest.raises(LeaseHeld, match="run theirs"), Lease(store, "mine"):
            pytest.fail("two writers")


def test_a_process_that_is_hidden_from_us_is_not_taken_for_dead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where /proc shows users their own processes alone, a run of somebody else would lose the
    root.
    """
    holder = json.loads(record())

    def hidden(pid: int) -> int | None:
        raise FileNotFoundError(f"/proc/{pid}/stat")

    monkeypatch.setattr(process, "place", lambda: holder["place"])
    monkeypatch.setattr(process, "started", hidden)
    assert is_alive(holder) is None
    assert is_alive({**holder, "pid": 2**22 - 1}) is False

    def refused(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refused)
    assert is_alive(holder) is None, "somebody else's"


class _Silent(Store):
    """A store that gives no answer for `GAP_SECONDS` of real time, when a lease is watched for the
    n-th time; its holder then renews the lease.
    """

    def __init__(self, root: str, at: int, renew: Any) -> None:
        super().__init__(root)
        self.at, self.renew, self.looks = at, renew, 0

    def read(self, path: str) -> bytes:
        data = super().read(path)
        if path == FIRST:
            self.looks += 1
            if self.looks == self.at:
                time.sleep(lease.GAP_SECONDS * 2)
            if self.looks == self.at + 3:
                self.renew()
        return data


def test_silence_of_the_store_is_no_sign_of_death(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that is away for longer than a minute: nobody can renew, and a live run would lose
    the root when it is back.
    """
    for name, value in {"STALE_SECONDS": 0.5, "WATCH_SECONDS": 0.02, "GAP_SECONDS": 0.4}.items():
        monkeypatch.setattr(lease, name, value)
    store.put(FIRST, record(**ELSEWHERE))
    silent = _Silent(store.root, 5, lambda: store.put(FIRST, record(**ELSEWHERE, at=0)))
    said: list[str] = []
    with pytest.raises(LeaseHeld, match="host elsewhere"), Lease(silent, "mine", said.append):
        pytest.fail("two writers")
    assert "gave no answer for 1 s; watching the lease anew" in said[1]


@pytest.mark.usefixtures("quick")
def test_a_store_that_takes_no_writes_is_no_sign_of_death(store: Store) -> None:
    """A full disk, or a store that refuses writes alone: a live run cannot renew its lease, and
    would lose the root.
    """

    class Full(Store):
        def put_new(self, path: str, data: bytes) -> bool:
            if path != lease.PROBE:  # when the holder is given up, there may be room again
                return super().put_new(path, data)
            raise StorageError(errno.ENOSPC, "cannot write: the disk is full")

    store.put(FIRST, record(**ELSEWHERE))
    with pytest.raises(StorageError, match="the disk is full"), Lease(Full(store.root), "mine"):
        pytest.fail("two writers")
    assert store.list("leases") == [FIRST]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("torn", [b'{"run": "th', b"\0\0\0", b"[]", b"\xff", b'{"run": "r"}'])
def test_a_torn_lease_is_nobodys(store: Store, torn: bytes) -> None:
    """After a power cut the root would be locked for ever."""
    store.put(FIRST, torn)
    assert read(store) is None
    with Lease(store, "mine") as held:
        assert held.held() and held.epoch == 2
        assert held.fenced == 1, "nobody knows whose it was"


def test_a_lost_lease_is_noticed_and_left_alone(store: Store) -> None:
    """A writer that slept for an hour would publish over its successor, or take the lease from it
    when it ends.
    """
    with Lease(store, "mine") as held:
        store.put(path_of(2), record(secret="another"))
        assert not held.held()
        for act in (lambda: held.check("nothing was done"), lambda: held.publish(Snapshot())):
            with pytest.raises(RunError, match=r"the lease on .*root was lost; nothing was "):
                act()
    found = read(store)
    assert found is not None and found["run"] == "theirs"
    assert numbers(store) == []


def test_a_lease_that_somebody_deleted_is_lost(store: Store) -> None:
    """`rm -r leases`, to unlock a root: its holder would go on beside the next one, who begins to
    count anew.
    """
    with Lease(store, "mine") as held:
        store.delete([FIRST])
        assert not held.held()
        with Lease(store, "another") as other:
            assert other.epoch == held.epoch and other.held() and not held.held()


def test_numbers_go_on_where_the_leases_were_deleted(store: Store) -> None:
    """A snapshot of the writer that was locked out would be of a later epoch than those of its
    successor.
    """
    for _ in range(3):
        with Lease(store, "r") as held:
            held.publish(load(store))
    store.delete(store.list("leases"))
    with Lease(store, "next") as held:
        assert held.epoch == 4 and held.fenced == 4 and load(store).notes["epoch"] == 4


@pytest.mark.usefixtures("quick")
def test_a_lease_of_an_earlier_version_counts(store: Store) -> None:
    """Who updates the program while a run is at work, or after one was killed, would have two
    writers, or none.
    """
    old = {
        "run": "old",
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "born": psutil.Process().create_time(),
        "secret": "s",
    }
    store.put("lease", json.dumps({**old, "at": 1.0}).encode())

    def renew(text: str) -> None:
        store.put("lease", json.dumps({**old, "at": 2.0}).encode())

    with pytest.raises(LeaseHeld, match="run old"), Lease(store, "mine", renew):
        pytest.fail("two writers")
    publish(store, Snapshot())
    with Lease(store, "mine") as held:
        assert held.epoch == 1 and held.fenced == 2
    assert not store.exists("lease")


def test_a_late_number_is_taken_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was slow to put the next lease, while others came and went, would hold a root that is
    somebody else's.
    """
    with Lease(store, "first"):
        pass
    look = standing(store)
    with Lease(store, "second"), Lease(Store(f"{store.root}-other"), "aside"):
        pass
    other = Lease(store, "third")
    other.__enter__()
    store.delete([path_of(2)])
    late, answers = Lease(store, "late"), iter([look])
    monkeypatch.setattr(lease, "standing", lambda store: next(answers))
    assert not late._take()
    monkeypatch.undo()
    assert other.held() and not store.exists(path_of(2))
    other.__exit__(None, None, None)


def test_a_check_is_remembered_for_as_long_as_one_says(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deleting would ask the store twice for every file, or once in an hour for a process that was
    stopped for one.
    """
    clock = iter(range(100, 200, 1))
    with Lease(store, "mine") as held:
        monkeypatch.setattr(time, "clock_gettime", lambda which: next(clock))
        looks: list[Lease] = []

        def look(lease: Lease) -> bool:
            looks.append(lease)
            return True

        monkeypatch.setattr(Lease, "held", look)
        for _ in range(9):
            held.check("", within=3.0)
        assert len(looks) == 3
        held.check("")
        assert len(looks) == 4
        monkeypatch.setattr(Lease, "held", lambda self: False)
        with pytest.raises(RunError):  # noqa: PT012 - at one of them
            for _ in range(5):
                held.check("", within=3.0)
        monkeypatch.undo()


def test_a_sign_comes_in_time_though_one_answer_of_the_store_never_does() -> None:
    """A connection that hangs once would be enough for the root to be taken from a live run."""
    assert lease.RENEW_SECONDS + 2 * storage.ANSWER_SECONDS < lease.STALE_SECONDS


def test_seeming_dead_is_told_by_the_process_or_by_the_last_sign() -> None:
    """`status` would send a user to wait for a run that is gone, or to write beside one that is
    not.
    """
    assert dead(json.loads(record(started=7))) and not dead(json.loads(record(at=0)))
    assert dead(json.loads(record(**ELSEWHERE, at=time.time() - 100))) and not dead(
        json.loads(record(**ELSEWHERE))
    )


class _Turns(threading.Event):
    """The event that stops the renewals, set after some turns without waiting; `between` runs
    before each.
    """

    def __init__(self, *between: Any) -> None:
        super().__init__()
        self.between = list(between)

    def wait(self, timeout: float | None = None) -> bool:
        if not self.between:
            return True
        self.between.pop(0)()
        return False


def test_renewals_give_a_sign_and_keep_the_name(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of more than a minute would be taken for dead by other hosts."""
    monkeypatch.setattr(lease, "RENEW_SECONDS", 3600.0)
    with Lease(store, "mine") as held:
        before = read(store)
        renewer = Lease(store, "mine")
        renewer.epoch, renewer._secret, renewer._stop = (
            held.epoch,
            held._secret,
            _Turns(lambda: None),
        )
        renewer._renew()
        after = read(store)
        assert before is not None and after is not None and after["at"] > before["at"]
        assert {**before, "at": 0} == {**after, "at": 0, "settled": True} and held.held()


def test_renewals_do_not_take_back_what_is_lost(store: Store) -> None:
    """Two writers would renew the lease in turn, each believing that it is theirs."""
    with Lease(store, "mine") as held:
        renewer = Lease(store, "mine")
        renewer.epoch, renewer._secret = held.epoch, held._secret
        renewer._stop = _Turns(lambda: store.put(path_of(2), record(secret="another")))
        before = store.read(FIRST)
        renewer._renew()
        assert store.read(FIRST) == before
    assert store.read(FIRST) == before and json.loads(store.read(path_of(2)))["secret"] == "another"


def test_a_renewal_that_fails_is_tried_again(store: Store) -> None:
    """A store that is away for a second would end all renewals, and a minute later somebody else
    takes the root.
    """
    root = Path(store.root)
    with Lease(store, "mine") as held:
        before = read(store)
        renewer = Lease(store, "mine")
        moved = root.with_name("away")

        def away() -> None:
            root.rename(moved)
            root.write_bytes(b"a file where the root was: nothing can be read or written")

        def back() -> None:
            root.unlink()
            moved.rename(root)

        renewer.epoch, renewer._secret, renewer._stop = held.epoch, held._secret, _Turns(away, back)
        renewer._renew()
        after = read(store)
        assert before is not None and after is not None and after["at"] > before["at"]


def test_an_error_of_the_stores_client_does_not_end_the_renewals(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After two minutes without the store a run would go on without a sign of life, and lose its
    root to the next one.
    """
    errors = pytest.importorskip(
        "botocore.exceptions", reason="the errors of a store's client come with the group s3"
    )

    def refuse(path: str) -> bytes:
        raise errors.EndpointConnectionError(endpoint_url="http://away")

    with Lease(store, "mine") as held:
        before = read(store)
        renewer = Lease(store, "mine")
        renewer.epoch, renewer._secret = held.epoch, held._secret
        renewer._stop = _Turns(lambda: monkeypatch.setattr(store, "read", refuse), monkeypatch.undo)
        renewer._renew()
        after = read(store)
        assert before is not None and after is not None and after["at"] > before["at"]


def test_is_writable_leaves_nothing_and_explains(store: Store) -> None:
    """A run would work for an hour before it finds that it cannot write."""
    is_writable(store)
    assert store.list("") == []
    Path(store.root).rmdir()
    Path(store.root).write_bytes(b"")
    with pytest.raises(StorageError, match="cannot write "):
        is_writable(store)
