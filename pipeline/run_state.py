"""What the parts of a run share: where it writes, what the dataset shows by now, what is told."""

from collections.abc import Sequence
from datetime import UTC, datetime

from rich.console import Console

from idcluster.root.lease import Lease
from idcluster.root.snapshot import Entry, Snapshot
from idcluster.root.storage import Store
from pipeline.execution.compact import compact
from pipeline.execution.engine import Engine
from pipeline.execution.snapshot_tables import SnapshotTables
from pipeline.prepared_dag import PreparedDag
from pipeline.record import Record
from pipeline.telling import WARNING, detail
from schemas.wording import counted


class RunState:
    """A run at work. Only `publish` changes what the dataset shows."""

    def __init__(
        self, prepared: PreparedDag, store: Store, console: Console, engine: Engine, record: Record
    ) -> None:
        self.prepared, self.store, self.console = prepared, store, console
        self.engine, self.record = engine, record
        self.lease: Lease | None = None
        """Held while the run is at work."""
        self.snapshot = Snapshot()
        self.place = ""
        """Which phase of how many this is, in words."""
        self.work_done = False
        self.owed = False
        """Whether the snapshot that is published names files that this run knows to be gone."""

    def view(self) -> SnapshotTables:
        return SnapshotTables(self.store, self.snapshot, self.prepared.versions)

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False)

    def note(self, text: str) -> None:
        """Say what is heard however quiet the run shall be."""
        self.console.print(f"note: {text}", style=WARNING, highlight=False)

    def check_lease(self, said: str) -> None:
        """Raise LeaseHeld if somebody else writes by now."""
        if self.lease is not None:
            self.lease.check(said)

    def publish(self, entries: Sequence[Entry]) -> None:
        following = self.snapshot.with_entries(entries)
        following = following.with_entries(
            compact(self.store, following, {entry.bucket for entry in entries})
        )
        self.work_done, self.owed = True, False
        notes = {
            "run": self.record.run_id,
            "published": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        known = {**self.snapshot.notes.get("versions", {}), **self.prepared.descriptions}
        assert self.lease is not None  # noqa: S101 - a run that publishes holds it
        self.snapshot = self.lease.publish(following.with_notes(**notes, versions=known))
        files = sum(1 for entry in entries if entry.rows)
        detail(
            self.console,
            f"snapshot {self.snapshot.number} published: {counted(files, 'file')} new or changed",
        )
