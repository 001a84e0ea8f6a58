"""The lease: one writer at a time on a dataset root.

The lease is a file that says who writes and since when; its holder renews it. A second writer is refused by name. A
lease whose holder is dead (a process that is gone on this machine, or one elsewhere that gives no sign for a minute while
we watch) is taken over; the number of takeovers since is its epoch. Clocks are never compared between machines.
"""

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from pipeline.root.storage import Store

PATH = "lease"
RENEW_SECONDS = 10.0
STALE_SECONDS = 60.0
WATCH_SECONDS = 1.0


class LeaseHeld(RuntimeError):
    """Somebody else writes to the root."""


@dataclass
class Lease:
    """Hold it as a context. `run` is shown to whoever is refused."""

    store: Store
    run: str
    notice: Callable[[str], None] = lambda text: None
    """Told what we wait for."""
    epoch: int = 0

    def __post_init__(self) -> None:
        self._secret = secrets.token_hex(8)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)

    def _content(self) -> bytes:
        pid = os.getpid()
        who = {"run": self.run, "host": socket.gethostname(), "pid": pid, "born": _born(pid), "secret": self._secret, "epoch": self.epoch}
        return json.dumps({**who, "at": time.time()}).encode()

    def __enter__(self) -> "Lease":
        while not self.store.put_new(PATH, self._content()):
            holder = read(self.store)
            if holder is not None and not self._gone(holder):
                age = max(0.0, time.time() - holder["at"])
                raise LeaseHeld(
                    f"{self.store.root} is being written by run {holder['run']} (host {holder['host']}, process {holder['pid']}, "
                    f"last sign {age:.0f} s ago); wait for it, or stop it and run again"
                )
            self.epoch = int(holder.get("epoch", 0)) + 1 if holder else self.epoch
            self.store.delete([PATH])
        if not self.held():
            # Two writers found the same dead lease, and the other one was later: it has the root.
            raise LeaseHeld(f"{self.store.root} was taken by another writer in this moment; wait for it and run again")
        self._thread.start()
        return self

    def _gone(self, holder: dict[str, Any]) -> bool:
        """Whether a holder is dead. One on another machine, whose clock may be wrong by hours, is watched for a sign."""
        if holder["host"] == socket.gethostname():
            return dead(holder)
        who = f"run {holder['run']} (host {holder['host']}, process {holder['pid']})"
        self.notice(f"{self.store.root} has a lease of {who}; watching it for up to {STALE_SECONDS:.0f} s for a sign of life")
        deadline = time.monotonic() + STALE_SECONDS
        while time.monotonic() < deadline:
            time.sleep(WATCH_SECONDS)
            now = read(self.store)
            if now != holder:
                return now is None  # given back meanwhile, or renewed
        return True

    def _renew(self) -> None:
        while not self._stop.wait(RENEW_SECONDS):
            # A full disk, a store that is away for longer than its patience (whose errors have no common class): the next turn
            # tries again. Would the thread end, so would the signs of life of a run that goes on.
            with contextlib.suppress(Exception):
                if self.held():
                    self.store.put(PATH, self._content(), durable=False)

    def held(self) -> bool:
        """Whether the lease is still ours."""
        holder = read(self.store)
        return holder is not None and holder.get("secret") == self._secret

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        if self.held():
            self.store.delete([PATH])


def read(store: Store) -> dict[str, Any] | None:
    """Who holds the lease, or None."""
    try:
        found = json.loads(store.read(PATH))
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def dead(holder: dict[str, Any]) -> bool:
    """Whether the holder of a lease is gone: for sure on this machine, by its last sign and our clock elsewhere."""
    if holder["host"] == socket.gethostname():
        born = _born(holder["pid"])
        return born is None or abs(born - holder["born"]) > 1
    return time.time() - float(holder["at"]) > STALE_SECONDS


def _born(pid: int) -> float | None:
    """When a process was started, in seconds since 1970; None if it is gone.

    From /proc itself: a root is also looked at and collected where the packages of a run are not installed.
    """
    try:
        about = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is a name in brackets, in which anything may stand.
    state, *rest = about.rpartition(")")[2].split()
    if state == "Z":
        # Killed, and nobody has asked for its exit code yet: in containers often nobody ever does.
        return None
    [booted] = [line.split()[1] for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime ")]
    return int(booted) + int(rest[18]) / os.sysconf("SC_CLK_TCK")


def is_writable(store: Store) -> None:
    """Raise StorageError if nothing can be written to the root."""
    path = f".probe-{os.getpid()}"
    store.put(path, b"", durable=False)
    store.delete([path])
