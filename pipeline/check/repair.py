"""Dropping what a check has found damaged and what can be computed again, so that the next run does
so.

A snapshot without these files is published; older ones stay as they are. A damaged file stays where
it is until what is computed again takes its name, or `gc` deletes it: it may be of use to somebody.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from idcluster.root.dataset_root import RunError
from idcluster.root.intact import is_whole
from idcluster.root.lease import Lease
from idcluster.root.parquet import sealed_path
from idcluster.root.removals import check_finished
from idcluster.root.snapshot import SHARD_TABLES, Entry, Snapshot, load
from idcluster.root.storage import Store
from pipeline.check.look import BY_HAND, Checked, Fault
from pipeline.check.read_before import PATH as FINE
from pipeline.execution.compact import compact
from pipeline.shards.index import reindex
from schemas.schema import LIGHT

WHOLE_TABLES, BUCKET_TABLES = ("matches",), ("clusters",)
"""Tables of which all rows are computed together, or all of a bucket: those of one person lie in
several chunks.
"""


@dataclass
class Repaired:
    """What was done about each fault, and what could not be."""

    done: list[tuple[Fault, str]] = field(default_factory=list)
    left: list[Fault] = field(default_factory=list)
    published: int | None = None


def repair(
    store: Store, checked: Checked, run: str, notice: Callable[[str], None] = lambda text: None
) -> Repaired:
    """Do what can be done about the faults of `checked`. Takes the lease (`notice` is told what it
    waits for).

    Raises LeaseHeld, and RunError where somebody has published since: what was checked is not what
    is shown then.
    """
    found = Repaired()
    with Lease(store, run, notice) as lease:
        check_finished(store)
        snapshot = checked.newest
        if snapshot is not None:
            newest = load(store)
            # Whoever takes the lease over from a writer that seemed dead publishes the newest
            # snapshot once more.
            if (
                newest.number != (snapshot.number if lease.fenced is None else lease.fenced)
                or newest.entries != snapshot.entries
            ):
                raise RunError(
                    f"{store.root} was published to while it was checked; nothing was changed. "
                    "Check again"
                )
            snapshot = newest
        for fault in checked.faults:
            if fault.kind in ("part", "spool") or (
                fault.kind == "snapshot" and snapshot is not None
            ):
                store.delete([fault.path])
                found.done.append((fault, "deleted"))
            elif fault.kind not in ("file", "index") or snapshot is None:
                found.left.append(fault)
        mine = [fault for fault in checked.faults if fault.kind in ("file", "index")]
        if snapshot is None or not mine:
            return found
        work = _Work(store, checked, snapshot, mine)
        following = work.following(found)
        if following is not None:
            notes = {"run": run, "published": datetime.now(UTC).isoformat(timespec="seconds")}
            snapshot = lease.publish(
                following.with_notes(**notes), "nothing was published. Repair again"
            )
            found.published = snapshot.number
        _indexes(store, snapshot, work, found)
        # What is damaged now may be computed again under its name: a check is to read it then.
        store.delete([FINE])
    return found


class _Work:
    """The snapshot that is to follow, and what of the faults that settles."""

    def __init__(
        self, store: Store, checked: Checked, snapshot: Snapshot, faults: Iterable[Fault]
    ) -> None:
        self.store, self.checked, self.snapshot = store, checked, snapshot
        self.faults = {fault.path: fault for fault in faults}
        self.profiles: set[str] = set()
        """Sets of shards of which some are dropped: a run puts their indexes."""

    def following(self, found: Repaired) -> Snapshot | None:
        """None where nothing of the newest snapshot changes."""
        damaged = {path for path, fault in self.faults.items() if fault.kind == "file"}
        stems = {path.rpartition(".")[0] for path in damaged if path.startswith("shards/")}
        drop: set[Entry] = set()
        instead: dict[Entry, Entry] = {}
        for entry in self.snapshot.entries:
            if entry.table in SHARD_TABLES and entry.file.rpartition(".")[0] in stems:
                drop.add(entry)
                if entry.current:
                    self.profiles.add(entry.file.split("/")[1])
            elif entry.file in damaged:
                twin = self._twin(entry, damaged)
                if twin is not None:
                    instead[entry] = twin
                elif not (entry.table in BY_HAND and entry.live and entry.current):
                    drop.add(entry)
        whole = {entry.table for entry in drop if entry.table in WHOLE_TABLES}
        parts = {
            (entry.table, entry.version, entry.bucket)
            for entry in drop
            if entry.table in BUCKET_TABLES
        }
        drop |= {
            entry
            for entry in self.snapshot.entries
            if (entry.table in whole and entry.current)
            or (entry.table, entry.version, entry.bucket) in parts
        }
        self._settle(damaged, drop, instead, found)
        if not drop and not instead:
            return None
        entries = tuple(
            sorted(
                instead.get(entry, entry) for entry in self.snapshot.entries if entry not in drop
            )
        )
        done = {f"shards/{profile}" for profile in self.profiles}
        notes = {name: value for name, value in self.snapshot.notes.items() if name not in done}
        rest = Snapshot(self.snapshot.number, entries, notes)
        # Rows taken from elsewhere are put together again, under the name of what was damaged.
        buckets = {entry.bucket for entry in drop if entry.table.endswith(LIGHT)} | {
            entry.bucket for entry in instead
        }
        return rest.with_entries(compact(self.store, rest, buckets))

    def _twin(self, entry: Entry, damaged: set[str]) -> Entry | None:
        """The same rows in another file that is whole: before a bucket was compacted they lay in
        one of their own, which may be there still, and other snapshots may show them elsewhere.
        """
        own = sealed_path(entry.table, entry.version, entry.bucket, entry.chunk, entry.digest)
        if entry.file_rows and is_whole(self.store, own, entry.bytes, entry.digest):
            return replace(entry, file=own, offset=0, file_rows=0, file_bytes=0)
        others = (
            other
            for number in sorted(self.checked.kept, reverse=True)
            for other in self.checked.kept[number].entries
        )
        for other in others:
            if (*other.scope, other.version, other.digest) == (
                *entry.scope,
                entry.version,
                entry.digest,
            ) and other.file not in damaged:
                place = {
                    "file": other.file,
                    "offset": other.offset,
                    "file_rows": other.file_rows,
                    "file_bytes": other.file_bytes,
                }
                return replace(entry, **place)  # type: ignore[arg-type]
        return None

    def _settle(
        self, damaged: set[str], drop: set[Entry], instead: dict[Entry, Entry], found: Repaired
    ) -> None:
        """Say of every damaged file what becomes of it."""
        of: dict[str, list[Entry]] = {}
        for entry in self.snapshot.entries:
            of.setdefault(entry.file, []).append(entry)
        for path in sorted(damaged):
            entries = of.get(path, [])
            if not entries or any(entry not in drop and entry not in instead for entry in entries):
                found.left.append(self.faults[path])
            elif all(entry in instead for entry in entries):
                found.done.append(
                    (
                        self.faults[path],
                        "the same rows lay in other files and were taken from there",
                    )
                )
            elif entries[0].table.endswith(LIGHT):
                found.done.append((self.faults[path], "made anew where its chunks are whole"))
            elif entries[0].table in SHARD_TABLES:
                found.done.append(
                    (self.faults[path], "dropped; a run with the DAG of this set writes it again")
                )
            elif any(entry.current and entry.live for entry in entries):
                what = "fetches its images" if entries[0].table == "images" else "computes its rows"
                found.done.append((self.faults[path], f"dropped; the next run {what} again"))
            else:
                found.done.append(
                    (self.faults[path], "dropped; it held rows of earlier parameters")
                )


def _indexes(store: Store, snapshot: Snapshot, work: _Work, found: Repaired) -> None:
    stale = [fault for fault in work.faults.values() if fault.kind == "index"]
    put: set[str] = set()
    if stale and not work.profiles:
        put = set(reindex(store, snapshot))
    for fault in stale:
        profile = fault.path.split("/")[1]
        if profile in put:
            found.done.append((fault, "put again"))
        elif profile in work.profiles:
            found.done.append((fault, "a run with the DAG of this set puts it again"))
        else:
            found.left.append(fault)
