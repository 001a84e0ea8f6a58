"""The lease: one writer at a time on a dataset root.

A lease is a file `leases/<number>` that says who writes; the highest number counts. Whoever wants
the root puts the next number, which only one can: a file is put only where there is none. Its
holder alone writes to it afterwards: renews it, and empties it to give it back. So nobody ever
deletes or overwrites the lease of somebody else, and the last one stays.

A second writer is refused by name. A lease is taken over from a dead holder: at once if it was a
process on this machine that is gone; from elsewhere after a minute without a sign, in which the
store answered and took writes all the time. Clocks are never compared.

A holder that only seemed dead may still be about to put a snapshot. So whoever takes over from one
that is not gone for sure puts a fence first (`idcluster.root.snapshot`), before anything else;
until that is done, its lease says that it is not `settled`.
"""

import contextlib
import errno
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from idcluster.root import process
from idcluster.root.dataset_root import RunError
from idcluster.root.snapshot import Snapshot, fence, notes_of, publish
from idcluster.root.snapshot import numbers as snapshot_numbers
from idcluster.root.storage import StorageError, Store, is_full
from schemas.errors import UserError

FOLDER = "leases"
PROBE = f"{FOLDER}/probe"
RESERVE = f"{FOLDER}/reserve"
RESERVE_BYTES = 512 << 10
"""Kept back on a disk, so that what frees room on a full one has room to begin with."""
RENEW_SECONDS = 10.0
STALE_SECONDS = 60.0
WATCH_SECONDS = 1.0
GAP_SECONDS = 5.0
"""Between two answers of the store while a holder is watched; after a longer one the watch begins
anew.
"""
_BEFORE = "lease"
"""Where earlier versions of the program had it."""
_REFUSED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # goes on while a laptop sleeps


class LeaseHeld(UserError, RuntimeError):
    """Somebody else writes to the root."""


@dataclass
class Lease:
    """Hold it as a context. `run` is shown to whoever is refused.

    Entering raises LeaseHeld, StorageError, and SnapshotError where the newest snapshot is damaged.
    """

    store: Store
    run: str
    notice: Callable[[str], None] = lambda text: None
    """Told what we wait for."""
    frees: bool = False
    """Whether what is done frees room: then it may use what is kept back for a full disk."""
    epoch: int = field(default=0, init=False)
    """The number of the lease. Whoever held one before has a lower one."""
    fenced: int | None = field(default=None, init=False)
    """The snapshot that was put as a fence when the lease was taken; it shows what the one before
    it shows.
    """

    def __post_init__(self) -> None:
        self._secret = secrets.token_hex(8)
        self._settled = False
        self._looked = -1e9
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)

    def __enter__(self) -> "Lease":
        if not self.store.local:
            check_puts(self.store)
        while not self._take():
            time.sleep(0.01)
        self._thread.start()
        try:
            if self.frees:
                self.store.delete([RESERVE])
            else:
                _keep_back(self.store)
            if not self._settled:
                self.fenced = fence(self.store, self.epoch, self.run).number
                self._settled = True
                self.store.put(path_of(self.epoch), self._content(), durable=False)
        except BaseException:
            # As if it had never been taken: who comes next finds the holder before us.
            self._end_renewing()
            with contextlib.suppress(Exception):
                self.store.delete([path_of(self.epoch)])
            raise
        return self

    def _take(self) -> bool:
        """Put the next lease if that of now is nobody's, or of somebody dead; whether that went
        well. Raises LeaseHeld.
        """
        number, data = standing(self.store)
        last = number or _last_epoch(self.store)
        # Where snapshots are of an epoch and there are no leases, somebody has deleted these, and
        # nobody knows who writes.
        self._settled = not data and number == last
        holder = _holder(data)
        if holder is not None:
            alive = is_alive(holder)
            # A process that is gone can do nothing more on a disk. What it has sent to a store may
            # still be on its way.
            self._settled = alive is False and self.store.local and bool(holder.get("settled"))
            if alive is None:
                alive = self._gives_sign(number, data, holder)
            if alive is None:
                return False
            if alive:
                age = max(0.0, time.time() - holder["at"])
                raise LeaseHeld(
                    f"{self.store.root} is being written by {who(holder)[:-1]}, last sign "
                    f"{age:.0f} s ago);"
                    " wait for it, or stop it and run again"
                )
        self.epoch = last + 1
        if not self._put_next():
            return False
        if max(_numbers(self.store), default=0) > self.epoch:
            # We were slow: others have held the root since, and given back and deleted what we have
            # put now.
            self.store.delete([path_of(self.epoch)])
            return False
        return True

    def _put_next(self) -> bool:
        try:
            return self.store.put_new(path_of(self.epoch), self._content())
        except StorageError as error:
            if not (is_full(error) and self.frees):
                raise
            if not self.store.exists(RESERVE):
                said = (
                    f"{error.strerror}; to free room here takes about 100 kB to begin with: "
                    "delete or move something else on this disk"
                )
                raise StorageError(error.errno, said) from error
        self.store.delete([RESERVE])
        return self.store.put_new(path_of(self.epoch), self._content())

    def _content(self) -> bytes:
        pid, place = os.getpid(), process.place()
        started = process.started(pid) if place else None
        me = {
            "run": self.run,
            "host": socket.gethostname(),
            "pid": pid,
            "place": place,
            "started": started,
        }
        return json.dumps(
            {**me, "secret": self._secret, "settled": self._settled, "at": time.time()}
        ).encode()

    def _gives_sign(self, number: int, data: bytes, holder: dict[str, Any]) -> bool | None:
        """Watch a holder of whom nobody can tell here whether it lives: True for a sign, False for
        none, None where it has changed.

        A store that does not answer, or takes no writes, is no sign of its death: it then cannot
        give one.
        """
        self.notice(
            f"{self.store.root} has a lease of {who(holder)}; watching it for up to "
            f"{STALE_SECONDS:.0f} s for a sign of life"
        )
        began = answered = time.monotonic()
        while True:
            time.sleep(WATCH_SECONDS)
            self._probe()
            found = standing(self.store)
            if found != (number, data):
                return None if found[0] != number or not found[1] else True
            now = time.monotonic()
            if now - answered > GAP_SECONDS:
                self.notice(
                    f"{self.store.root} gave no answer for {now - answered:.0f} s; watching the "
                    "lease anew"
                )
                began = now
            answered = now
            if now - began >= STALE_SECONDS:
                return False

    def _probe(self) -> None:
        try:
            check_puts(self.store)
        except StorageError as error:
            if not (is_full(error) and self.frees and self.store.exists(RESERVE)):
                raise
            self.store.delete([RESERVE])  # the holder needs room for its sign, too

    def _renew(self) -> None:
        while not self._stop.wait(RENEW_SECONDS):
            # A full disk, a store that is away for longer than its patience: the next turn tries
            # again. Would the thread end, so would the signs of life of a run that goes on.
            with contextlib.suppress(Exception):
                if self.held():
                    self.store.put(path_of(self.epoch), self._content(), durable=False)

    def held(self) -> bool:
        """Whether the lease is still ours."""
        number, data = standing(self.store)
        holder = _holder(data)
        return number == self.epoch and holder is not None and holder.get("secret") == self._secret

    def check(self, otherwise: str, within: float = 0.0) -> None:
        """Raise RunError if another writer has taken the root over; `otherwise` says what that
        means.

        A look that is not older than `within` seconds will do. Whoever deletes asks before each
        file: a process that was stopped for an hour finds its last look too old.
        """
        now = time.clock_gettime(_CLOCK)
        if within and now - self._looked <= within:
            return
        if not self.held():
            raise RunError(f"the lease on {self.store.root} was lost; {otherwise}")
        self._looked = now

    def publish(
        self, snapshot: Snapshot, otherwise: str = "nothing was published. Run again to go on"
    ) -> Snapshot:
        """`idcluster.root.snapshot.publish` by the holder of this lease. Raises RunError where it
        was lost, and SnapshotError.
        """
        self.check(otherwise)
        return publish(self.store, snapshot, self.epoch)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end_renewing()
        try:
            if self.held():
                self.store.put(path_of(self.epoch), b"", durable=False)
                self.store.delete(
                    [path_of(number) for number in _numbers(self.store) if number < self.epoch]
                    or [_BEFORE]
                )
                _keep_back(self.store)
        except Exception as failed:  # noqa: BLE001 - what was done is done; a dead holder's lease is taken over
            self.notice(
                f"the lease on {self.store.root} could not be given back ({failed}); it counts "
                "until this process ends"
            )

    def _end_renewing(self) -> None:
        self._stop.set()
        self._thread.join()


# What lies in the root


def path_of(number: int) -> str:
    return f"{FOLDER}/{number:06d}"


def _numbers(store: Store) -> list[int]:
    names = (path.rsplit("/", 1)[-1] for path in store.list(FOLDER, few=True))
    return [int(name) for name in names if name.isascii() and name.isdigit()]


def standing(store: Store) -> tuple[int, bytes]:
    """Number and content of the lease that counts; no content where nobody holds the root."""
    while True:
        number = max(_numbers(store), default=0)
        try:
            return number, store.read(path_of(number) if number else _BEFORE)
        except FileNotFoundError:
            if not number:
                return 0, b""
            # A later one stands in its place by now.


def _holder(data: bytes) -> dict[str, Any] | None:
    """Who holds a lease; None for nobody, and for one that a power cut has torn."""
    try:
        found = json.loads(data)
    except ValueError:
        return None
    return (
        found if isinstance(found, dict) and {"run", "host", "pid", "at"} <= found.keys() else None
    )


def read(store: Store) -> dict[str, Any] | None:
    """Who holds the lease, or None."""
    return _holder(standing(store)[1])


def who(holder: dict[str, Any]) -> str:
    return f"run {holder['run']} (host {holder['host']}, process {holder['pid']})"


def _last_epoch(store: Store) -> int:
    newest = max(snapshot_numbers(store), default=0)
    return int(notes_of(store, newest).get("epoch", 0)) if newest else 0


def _keep_back(store: Store) -> None:
    """Have room kept back on a disk, if there is as much."""
    if not store.local or store.exists(RESERVE):
        return
    place = store.uri(RESERVE)
    try:
        with open(place, "xb") as file:
            os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)
    except (OSError, AttributeError):  # no room, or a system without the call
        with contextlib.suppress(OSError):
            os.unlink(place)


# Whether it is alive


def is_alive(holder: dict[str, Any]) -> bool | None:
    """Whether the holder of a lease lives; None where that cannot be told from here, as of another
    machine or container.
    """
    if not holder.get("place") or holder["place"] != process.place():
        return None
    return process.runs(holder["pid"], holder["started"])


def dead(holder: dict[str, Any]) -> bool:
    """Whether the holder of a lease seems gone: by its process, or by its last sign and our clock
    where that cannot be told.
    """
    alive = is_alive(holder)
    return time.time() - float(holder["at"]) > STALE_SECONDS if alive is None else not alive


# Whether the store will do


def check_puts(store: Store) -> None:
    """Raise StorageError where nothing can be written, or where a put that must not replace a file
    does.
    """
    mine = secrets.token_hex(8)
    # The file stays for ever, so that nobody who deletes it makes a good store look bad.
    try:
        ignored = store.put_new(PROBE, f"{mine} 1".encode()) and store.put_new(
            PROBE, f"{mine} 2".encode()
        )
    except StorageError as error:
        if error.errno not in _REFUSED:
            raise
        raise StorageError(error.errno, f"{_unfit(store)} ({error.strerror})") from error
    if ignored:
        raise StorageError(errno.ENOTSUP, _unfit(store))


def _unfit(store: Store) -> str:
    return (
        f"{store.root} lies in a store without conditional writes: it puts a file over another "
        "one in spite of `If-None-Match: *`, or"
        " refuses to be asked, so two writers could not be told apart. Use a store that has "
        "them, or a folder on a disk"
    )


def is_writable(store: Store) -> None:
    """Raise StorageError if nothing can be written to the root."""
    path = f".probe-{os.getpid()}"
    store.put(path, b"", durable=False)
    store.delete([path])
