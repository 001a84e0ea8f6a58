"""The snapshot: which files make up the dataset.

Every reader starts here; nobody lists directories. An **entry** is one file of one table, version,
bucket and chunk, or a stretch of rows in a file that holds all chunks of a finished bucket
(`pipeline.execution.compact`). Two flags say what it is for:

- `current`: the file belongs to what the dataset shows now. Files of other versions stay known, so
  that switching back
  to an earlier parameter finds its rows.
- `live`: the file holds the wanted rows of its chunk. Rows that once were wanted and no longer are
  (the caption of a
  face that a new threshold rejects) lie in a file of their own, not live, and are taken up again
  when they are wanted.

`basis` is a hash of everything that the wanted rows of the chunk follow from (the version, the live
files read): while it is the same, the chunk is complete and needs no look. It is empty while rows
are missing.

Of tables with images, a finished bucket has a **companion** (`images_light`, an entry for the
whole bucket): the same rows without the images, for whoever asks about all of them. It holds
while its basis is that of the chunks; a snapshot that is put never names one that does not.

The note `epoch` says which writer put a snapshot: the number of its lease. Whoever takes the
dataset over from a writer that may still be at work puts a **fence** first, the newest snapshot
once more (`fence`): the put of the other then finds its number taken. Should garbage collection
have deleted that number by then, the put succeeds and is void: its epoch is behind the fence.
"""

import contextlib
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from functools import cached_property
from operator import attrgetter, itemgetter
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from idcluster.root.checksums import compare_all, with_sums
from idcluster.root.storage import Store
from schemas.errors import UserError
from schemas.schema import LIGHT

SNAPSHOT_FORMAT = 2
"""Of a snapshot's file: the columns of its entries and its notes. Raised without the format of the
root.
"""
SHARD_TABLES = ("shards", "samples", "withheld")
"""What entries of sets of shards are of; all others are of tables."""
WHOLE = -1
"""Bucket or chunk of an entry that is not divided by it."""


class SnapshotError(UserError, RuntimeError):
    """A snapshot is missing, damaged, void, of another format, or was published by somebody else
    meanwhile.
    """


class VoidSnapshot(SnapshotError):
    """A snapshot was put by a writer from which the dataset had been taken over: its files may be
    gone.
    """


class NoSnapshot(SnapshotError):
    """A number that no snapshot has."""

    exit_code = 2


@dataclass(frozen=True, order=True, slots=True)
class Entry:
    """The rows of one chunk in one version. `file` is empty where there are none; `ok` counts those
    with status ok.

    `bytes` and `digest` are those of the chunk as a file of its own, which a digest is a hash of
    the rows by. Where the rows lie in a file with those of other chunks, they begin at row `offset`
    of it, and `file_rows` and `file_bytes` are the size of the whole file; else these are 0.
    """

    table: str
    version: str
    bucket: int
    chunk: int
    file: str
    rows: int
    bytes: int
    digest: str
    basis: str
    live: bool
    current: bool
    ok: int = 0
    offset: int = 0
    file_rows: int = 0
    file_bytes: int = 0

    @property
    def scope(self) -> tuple[str, int, int]:
        return self.table, self.bucket, self.chunk


_ORDER = attrgetter(*(f.name for f in fields(Entry)))

_ARROW = pa.schema(
    [(f.name, {str: pa.string(), int: pa.int64(), bool: pa.bool_()}[f.type]) for f in fields(Entry)]  # type: ignore[index]
)


class Snapshot:
    """An immutable list of entries with a number; 0 is the empty dataset before the first
    publication.

    `notes` is what a reader wants to know beside the files: run id, time, the description of every
    version, measured rates (seconds a row by table and version).

    What was loaded is a table (`table`), one row an entry; the objects of `entries` are made when
    they are first asked for, which readers of hundreds of thousands of entries never do.
    """

    def __init__(
        self,
        number: int = 0,
        entries: Iterable[Entry] = (),
        notes: Mapping[str, Any] | None = None,
        table: pa.Table | None = None,
    ) -> None:
        """Of `entries` or, in their place, a `table` as `decode` reads it."""
        self.number: Final = number
        self.notes: Final[Mapping[str, Any]] = {} if notes is None else notes
        if table is None:
            self.__dict__["entries"] = tuple(entries)
        else:
            self.__dict__["table"] = table

    def __repr__(self) -> str:
        return f"Snapshot({self.number}, {self.table.num_rows} entries)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Snapshot) and (self.number, self.entries, self.notes) == (
            other.number,
            other.entries,
            other.notes,
        )

    __hash__ = None  # type: ignore[assignment]

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """All entries, in their order."""
        columns = [self.table.column(f.name).to_pylist() for f in fields(Entry)]
        return tuple(Entry(*row) for row in zip(*columns, strict=True))

    @cached_property
    def table(self) -> pa.Table:
        """The entries as a table with the fields of Entry, without companions that do not hold."""
        valid = without_stale(self.entries)
        return pa.table(
            {f.name: pa.array([getattr(e, f.name) for e in valid], f.type) for f in _ARROW},
            schema=_ARROW,
        )

    @cached_property
    def _by_scope(self) -> dict[tuple[str, int, int], list[Entry]]:
        # Made when first asked for: a snapshot that is only published needs none.
        found: dict[tuple[str, int, int], list[Entry]] = {}
        for entry in self.entries:
            found.setdefault((entry.table, entry.bucket, entry.chunk), []).append(entry)
        return found

    def of(self, table: str, bucket: int, chunk: int, version: str | None = None) -> list[Entry]:
        """All entries of a table in a chunk, of one version or of every version, live or not."""
        return [
            e
            for e in self._by_scope.get((table, bucket, chunk), ())
            if version is None or e.version == version
        ]

    def shown(self, table: str) -> list[Entry]:
        """The entries that hold what the table shows, in the order of buckets and chunks."""
        return sorted(
            (e for e in self.entries if e.table == table and e.current and e.live),
            key=lambda e: (e.bucket, e.chunk, e.file),
        )

    def shown_at(self, table: str, bucket: int, chunk: int) -> Entry | None:
        """The entry that holds what the table shows of a chunk."""
        return next(
            (e for e in self._by_scope.get((table, bucket, chunk), ()) if e.current and e.live),
            None,
        )

    def chunks(self, table: str) -> list[tuple[int, int]]:
        """Bucket and chunk of everything that the table shows."""
        return [(e.bucket, e.chunk) for e in self.shown(table)]

    def files(self) -> Iterator[str]:
        return (e.file for e in self.entries if e.file)

    def with_entries(self, changed: Iterable[Entry]) -> "Snapshot":
        """This snapshot, where the entries of each table, version, bucket and chunk named in
        `changed` are replaced.

        Entries of other versions in those scopes stop being current if any changed entry of the
        scope is current. Raises ValueError for two live entries of one table, version, bucket and
        chunk.
        """
        fresh = list(changed)
        if not fresh:
            return self
        twice = [
            key
            for key, count in Counter((*e.scope, e.version) for e in fresh if e.live).items()
            if count > 1
        ]
        if twice:
            raise ValueError(f"two live files for {twice[0]}")
        keys = {(*e.scope, e.version) for e in fresh}
        taken = {e.scope for e in fresh if e.current}
        kept = [
            replace(e, current=False) if e.current and e.scope in taken else e
            for e in self.entries
            if (*e.scope, e.version) not in keys
        ]
        return Snapshot(self.number, tuple(sorted((*kept, *fresh), key=_ORDER)), self.notes)

    def with_notes(self, **notes: Any) -> "Snapshot":
        return Snapshot(self.number, self.entries, {**self.notes, **notes})

    def encode(self) -> bytes:
        # The number of entries guards the footer of files that an earlier version of the program is
        # to read.
        own = {"format": SNAPSHOT_FORMAT, "number": self.number, "entries": self.table.num_rows}
        notes = json.dumps({**self.notes, **own}, sort_keys=True)
        sink = io.BytesIO()
        table = self.table.replace_schema_metadata({"idcluster": notes})
        pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
        return with_sums(sink.getvalue())

    @staticmethod
    def decode(data: bytes, source: str) -> "Snapshot":
        """What `encode` gave. `source` is where it is from. Raises SnapshotError."""
        try:
            compare_all(data)
            table = pq.read_table(io.BytesIO(data), page_checksum_verification=True)
            notes = json.loads((table.schema.metadata or {})[b"idcluster"])
            if notes.pop("format") != SNAPSHOT_FORMAT:
                raise SnapshotError(
                    f"{source} has another format; this idcluster reads format {SNAPSHOT_FORMAT}"
                )
            number = notes.pop("number")
            if notes.pop("entries") != table.num_rows:
                raise ValueError("it lacks entries")
            if not table.schema.equals(_ARROW):
                raise ValueError("its columns are not those of a snapshot")
        except (pa.ArrowException, KeyError, ValueError, OSError) as error:
            remedy = (
                "delete this file and run again to go on from the one before; to look at an "
                "older one, name it by `--snapshot`"
            )
            raise SnapshotError(f"{source} is damaged ({error}); {remedy}") from error
        return Snapshot(number, notes=notes, table=table.replace_schema_metadata(None))


def companion_basis(chunks: Iterable[tuple[str, int, str]]) -> str:
    """What the companion of a bucket follows from: version, chunk and digest of its entries, which
    come in the order of chunks.
    """
    hasher = hashlib.blake2b(digest_size=8)
    for version, chunk, digest in chunks:
        hasher.update(f"{version} {chunk} {digest};".encode())
    return hasher.hexdigest()


def without_stale(entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
    """`entries` without companions of chunks that are not what they were."""
    companions = {
        (e.table.removesuffix(LIGHT), e.version, e.bucket): e
        for e in entries
        if e.table.endswith(LIGHT)
    }
    if not companions:
        return entries
    chunks: dict[tuple[str, str, int], list[tuple[str, int, str]]] = {key: [] for key in companions}
    tables = {table for table, _, _ in companions}
    for entry in entries:
        key = entry.table, entry.version, entry.bucket
        if entry.table in tables and entry.live and key in chunks:
            chunks[key].append((entry.version, entry.chunk, entry.digest))
    stale = {
        companions[key]
        for key, found in chunks.items()
        if companion_basis(sorted(found, key=itemgetter(1))) != companions[key].basis
    }
    return tuple(entry for entry in entries if entry not in stale) if stale else entries


def path_of(number: int) -> str:
    return f"snapshots/{number:06d}.parquet"


def numbers(store: Store) -> list[int]:
    """The numbers of all snapshots there are, rising."""
    names = (path.rsplit("/", 1)[-1] for path in store.list("snapshots"))
    return sorted(
        int(name[:-8])
        for name in names
        if name.endswith(".parquet") and name[:-8].isascii() and name[:-8].isdigit()
    )


def load(store: Store, number: int | None = None, newest: "Snapshot | None" = None) -> Snapshot:
    """Snapshot `number`, or the newest one; the empty snapshot 0 where there is none yet. Raises
    SnapshotError.

    `newest` is the newest one, for whoever has it and loads many.
    """
    data, source = _read(store, number)
    found = Snapshot() if data is None else Snapshot.decode(data, source)
    if number:
        _refuse_void(store, found, newest)
    return found


def _read(store: Store, number: int | None) -> tuple[bytes | None, str]:
    """The bytes of a snapshot, None for snapshot 0, and where they are from."""
    if number is None:
        number = max(numbers(store), default=0)
    path = path_of(number)
    try:
        return store.read(path) if number else None, store.uri(path)
    except FileNotFoundError as error:
        raise NoSnapshot(
            f"{store.root} has no snapshot {number}; `idcluster snapshots` lists what there is"
        ) from error


def notes_of(store: Store, number: int) -> Mapping[str, Any]:
    """The notes of snapshot `number` alone, without its entries. Raises SnapshotError."""
    path = path_of(number)
    try:
        data = store.read(path)
        compare_all(data)
        notes: dict[str, Any] = json.loads(
            (pq.read_schema(io.BytesIO(data)).metadata or {})[b"idcluster"]
        )
    except (pa.ArrowException, KeyError, ValueError, OSError) as error:
        raise SnapshotError(
            f"{store.uri(path)} is damaged ({error}); delete this file to do without it"
        ) from error
    return notes


# Who put it


def is_void(number: int, notes: Mapping[str, Any], newest: Mapping[str, Any]) -> bool:
    """Whether a snapshot with these notes was put behind a fence that the notes of the newest one
    know of.
    """
    return any(
        number >= first and notes.get("epoch", 0) < epoch
        for epoch, first in newest.get("fences", ())
    )


def genuine(store: Store, newest: Snapshot) -> list[int]:
    """The numbers of all snapshots there are but void ones, rising. Raises SnapshotError."""
    there = numbers(store)
    if not newest.notes.get("fences"):
        return there
    return [
        number for number in there if not is_void(number, notes_of(store, number), newest.notes)
    ]


def _refuse_void(store: Store, found: Snapshot, newest: Snapshot | None) -> None:
    if is_void(
        found.number,
        found.notes,
        _newest_notes(store, found.number) if newest is None else newest.notes,
    ):
        said = (
            "was put by a writer from which the dataset had been taken over: its files may be gone"
        )
        raise VoidSnapshot(
            f"{store.uri(path_of(found.number))} is void: it {said}. `idcluster gc` deletes it"
        )


def _newest_notes(store: Store, after: int) -> Mapping[str, Any]:
    """The notes of the newest snapshot that can be read, if it comes after `after`."""
    for number in reversed(numbers(store)):
        if number <= after:
            break
        with contextlib.suppress(SnapshotError):
            return notes_of(store, number)
    return {}


def publish(store: Store, snapshot: Snapshot, epoch: int | None = None) -> Snapshot:
    """Put `snapshot` as the successor of the one that it came from; `epoch` is that of the lease
    (`Lease.publish` gives it).

    Raises SnapshotError when somebody else has published that number: the caller's view of the
    dataset is old then, and nothing of it is shown.
    """
    notes = snapshot.notes if epoch is None else {**snapshot.notes, "epoch": epoch}
    following = Snapshot(snapshot.number + 1, without_stale(snapshot.entries), notes)
    if not store.put_new(path_of(following.number), following.encode()):
        raise SnapshotError(
            f"snapshot {following.number} of {store.root} was published by another writer "
            "meanwhile; run again to go on from it"
        )
    return following


def fence(store: Store, epoch: int, run: str) -> Snapshot:
    """Put the newest snapshot once more, so that no writer of an earlier epoch can publish any
    more. Raises SnapshotError.
    """
    while True:
        newest = load(store)
        fences = [*newest.notes.get("fences", ()), [epoch, newest.number + 1]]
        try:
            return publish(store, in_place(newest, run).with_notes(fences=fences), epoch)
        except SnapshotError:
            if max(numbers(store), default=0) == newest.number:
                raise
            # The other writer was quicker, once: what it published is what we begin with.


# In whose place it stands


def in_place(snapshot: Snapshot, run: str) -> Snapshot:
    """`snapshot` with the notes of one that stands in its place and shows the same."""
    number, notes = snapshot.number, snapshot.notes
    when = datetime.now(UTC).isoformat(timespec="seconds")
    whose = {"replaces": [*replaced(number, notes), number], "result_of": run_of(number, notes)}
    return snapshot.with_notes(run=run, published=when, **whose)


def replaced(number: int, notes: Mapping[str, Any]) -> list[int]:
    """The numbers of snapshots in whose place snapshot `number` was published."""
    found: list[int] = notes.get("replaces", [])
    # Notes are handed on from snapshot to snapshot: those of an earlier one say nothing of this
    # one.
    return found if found and found[-1] == number - 1 else []


def run_of(number: int, notes: Mapping[str, Any]) -> str | None:
    """The run whose result snapshot `number` shows; None for one that does not say."""
    return notes.get("result_of" if replaced(number, notes) else "run")
