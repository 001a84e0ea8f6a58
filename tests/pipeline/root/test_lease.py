"""The lease: a second writer is refused by name, and a dead one does not lock the root."""

import contextlib
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

from pipeline.root import lease
from pipeline.root.lease import PATH, STALE_SECONDS, Lease, LeaseHeld, is_writable, read
from pipeline.root.storage import StorageError, Store

_REPOSITORY = Path(__file__).resolve().parents[3]
_HOLD = """
import sys
from pipeline.root.lease import Lease
from pipeline.root.storage import Store
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
    with subprocess.Popen(command, cwd=_REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def record(**changed: Any) -> bytes:
    me = psutil.Process()
    mine = {"run": "theirs", "host": socket.gethostname(), "pid": me.pid, "born": me.create_time(), "at": time.time(), "secret": "s"}
    return json.dumps({**mine, **changed}).encode()


def test_it_is_held_inside_and_gone_afterwards(store: Store) -> None:
    """The next run would be refused although nobody writes."""
    with Lease(store, "mine") as held:
        found = read(store)
        assert found is not None and found["run"] == "mine" and held.held()
    assert read(store) is None and store.list("") == [] and not held.held()
    with pytest.raises(ZeroDivisionError), Lease(store, "mine"):
        raise ZeroDivisionError
    assert store.list("") == []


def test_a_second_writer_is_refused_by_name(store: Store) -> None:
    """Two runs would write to one root; or the user would not know which one to wait for."""
    with another_process(store) as process:
        before = store.read(PATH)
        with pytest.raises(LeaseHeld) as caught, Lease(store, "mine"):
            pytest.fail("two writers")
        for word in (store.root, "run theirs", f"host {socket.gethostname()}", f"process {process.pid}", "last sign 0 s ago"):
            assert word in str(caught.value)
        assert store.read(PATH) == before
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
    """After `kill -9` the root would be locked; not reaped, as in a container without an init process, even for ever."""
    with another_process(store) as process:
        process.send_signal(signal.SIGKILL)
        if reaped:
            process.wait()
        else:
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # wait for the end and leave it unreaped
        assert read(store) is not None
        with Lease(store, "mine") as held:
            found = read(store)
            assert held.held() and found is not None and found["run"] == "mine"


def test_another_process_with_the_same_number_is_not_the_holder(store: Store) -> None:
    """After a restart of the machine some other program would keep the root locked."""
    store.put(PATH, record(born=psutil.Process().create_time() - 1000))
    with Lease(store, "mine") as held:
        assert held.held()


@pytest.mark.parametrize("skew", [-7200.0, 0.0, 7200.0], ids=["clock behind", "clock right", "clock ahead"])
def test_a_holder_elsewhere_without_a_sign_is_dead(store: Store, monkeypatch: pytest.MonkeyPatch, skew: float) -> None:
    """A node that went down would lock the root, for hours if its clock was ahead."""
    monkeypatch.setattr(lease, "STALE_SECONDS", 0.3)
    monkeypatch.setattr(lease, "WATCH_SECONDS", 0.05)
    store.put(PATH, record(host="elsewhere", pid=1, born=0, at=time.time() + skew, epoch=4))
    said: list[str] = []
    with Lease(store, "mine", said.append) as held:
        assert held.held()
        assert held.epoch == 5
        assert "epoch\": 5" in store.read(PATH).decode()
    assert "run theirs (host elsewhere, process 1); watching it" in said[0]


@pytest.mark.parametrize("skew", [-7200.0, 0.0, 7200.0], ids=["clock behind", "clock right", "clock ahead"])
def test_a_holder_elsewhere_that_gives_a_sign_is_not_dead(store: Store, monkeypatch: pytest.MonkeyPatch, skew: float) -> None:
    """A living writer on a machine whose clock is behind would lose the root."""
    monkeypatch.setattr(lease, "WATCH_SECONDS", 0.05)
    elsewhere = {"host": "elsewhere", "pid": 1, "born": 0}
    store.put(PATH, record(**elsewhere, at=time.time() + skew))

    def renew(text: str) -> None:
        threading.Timer(0.1, store.put, (PATH, record(**elsewhere, at=time.time() + skew + 10))).start()

    with pytest.raises(LeaseHeld, match="host elsewhere"), Lease(store, "mine", renew):
        pytest.fail("two writers")


def test_a_holder_here_that_is_busy_is_not_dead(store: Store) -> None:
    """A process that was stopped for a while, as a laptop that slept, would lose the root to a second run."""
    store.put(PATH, record(at=time.time() - 10 * STALE_SECONDS))
    with pytest.raises(LeaseHeld, match="last sign 600 s ago"), Lease(store, "mine"):
        pytest.fail("two writers")


@pytest.mark.parametrize("torn", [b"", b'{"run": "th', b"\0\0\0", b"[]", b"\xff"])
def test_a_torn_lease_is_nobodys(store: Store, torn: bytes) -> None:
    """After a power cut the root would be locked for ever."""
    store.put(PATH, torn)
    assert read(store) is None
    with Lease(store, "mine") as held:
        assert held.held()


def test_a_lost_lease_is_noticed_and_left_alone(store: Store) -> None:
    """A writer that slept for an hour would publish over its successor, or take the lease from it when it ends."""
    with Lease(store, "mine") as held:
        store.put(PATH, record(secret="another"))
        assert not held.held()
    found = read(store)
    assert found is not None and found["run"] == "theirs"
    with Lease(Store(f"{store.root}-other"), "mine") as held:
        held.store.delete([PATH])
        assert not held.held()


class _Turns(threading.Event):
    """The event that stops the renewals, set after some turns without waiting; `between` runs before each."""

    def __init__(self, *between: Any) -> None:
        super().__init__()
        self.between = list(between)

    def wait(self, timeout: float | None = None) -> bool:
        if not self.between:
            return True
        self.between.pop(0)()
        return False


def test_renewals_give_a_sign_and_keep_the_name(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of more than a minute would be taken for dead by other hosts."""
    monkeypatch.setattr(lease, "RENEW_SECONDS", 3600.0)
    with Lease(store, "mine") as held:
        before = read(store)
        renewer = Lease(store, "mine")
        renewer._secret, renewer._stop = held._secret, _Turns(lambda: None)
        renewer._renew()
        after = read(store)
        assert before is not None and after is not None and after["at"] > before["at"]
        assert {**before, "at": 0} == {**after, "at": 0} and held.held()


def test_renewals_do_not_take_back_what_is_lost(store: Store) -> None:
    """Two writers would renew the lease in turn, each believing that it is theirs."""
    renewer = Lease(store, "mine")
    renewer._stop = _Turns(lambda: None, lambda: store.put(PATH, record(secret="another")))
    renewer._renew()
    assert json.loads(store.read(PATH))["secret"] == "another"


def test_a_renewal_that_fails_is_tried_again(store: Store) -> None:
    """A store that is away for a second would end all renewals, and a minute later somebody else takes the root."""
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

        renewer._secret, renewer._stop = held._secret, _Turns(away, back)
        renewer._renew()
        after = read(store)
        assert before is not None and after is not None and after["at"] > before["at"]


def test_an_error_of_the_stores_client_does_not_end_the_renewals(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """After two minutes without the store a run would go on without a sign of life, and lose its root to the next one."""
    errors = pytest.importorskip("botocore.exceptions", reason="the errors of a store's client come with the group s3")

    def refuse(path: str) -> bytes:
        raise errors.EndpointConnectionError(endpoint_url="http://away")

    with Lease(store, "mine") as held:
        before = read(store)
        renewer = Lease(store, "mine")
        renewer._secret = held._secret
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
