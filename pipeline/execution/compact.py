"""Compaction: of a finished bucket, each table without images in one file.

Chunks are sealed one by one, so a bucket of 50,000 images has about a hundred files a table. Once
the bucket is full and every chunk of a table is complete, the rows that are shown are put into one
file, a row group a chunk. The entries stay, one a chunk, with the digest and the basis that they
had: only where their rows lie is new, so nothing that follows from them is computed again. What is
replaced or appended later lies in files of its own, until these are many enough to be worth another
file. The files merged away stay for older snapshots until `idcluster gc`.

Files with images stay one a chunk. Their other columns are written once more, into a companion: a
question about all images then opens one file a bucket instead of a hundred.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pyarrow as pa

from idcluster.root.parquet import DamagedFile, read, read_entries, seal_stream
from idcluster.root.snapshot import WHOLE, Entry, Snapshot, companion_basis
from idcluster.root.storage import Store
from pipeline.execution import intake
from pipeline.execution.snapshot_tables import is_chunked
from schemas import TABLES, TableSchema

GROUP = 8
"""Chunks a row group: a query over a bucket pays for every row group, whoever wants one chunk reads
all of its group.
"""
_READERS = 8
"""Files of a store that are read at a time."""
LOOSE = 8
"""A file is made anew when one in so many chunks lies outside of it: each row is rewritten a few
times, not a hundred.
"""


def compact(store: Store, snapshot: Snapshot, buckets: Iterable[int]) -> list[Entry]:
    """The entries to replace for what of `buckets` is finished and scattered. Files are written,
    nothing is published.
    """
    asked = set(buckets)
    chunks: dict[int, list[Entry]] = {}
    for entry in snapshot.shown("candidates"):
        if entry.bucket in asked:
            chunks.setdefault(entry.bucket, []).append(entry)
    changed: list[Entry] = []
    for bucket, candidates in chunks.items():
        if sum(entry.rows for entry in candidates) < intake.BUCKET_ROWS:
            continue  # it takes new people still
        for table, schema in TABLES.items():
            if is_chunked(table):
                merge = _companion if schema.blobs else _merged
                changed += merge(
                    store, snapshot, table, bucket, [entry.chunk for entry in candidates]
                )
    return changed


def _finished(snapshot: Snapshot, table: str, bucket: int, chunks: Iterable[int]) -> list[Entry]:
    """What a table shows of a bucket; nothing unless every chunk is complete and all are of one
    version.
    """
    found = [snapshot.shown_at(table, bucket, chunk) for chunk in chunks]
    shown = [entry for entry in found if entry is not None]
    if (
        len(shown) < len(found)
        or not all(entry.basis for entry in shown)
        or len({entry.version for entry in shown}) != 1
    ):
        return []
    return shown


def _merged(
    store: Store, snapshot: Snapshot, table: str, bucket: int, chunks: Iterable[int]
) -> list[Entry]:
    shown = _finished(snapshot, table, bucket, chunks)
    there = [entry for entry in shown if entry.file]
    loose = sum(not entry.file_rows for entry in there)
    if len(there) < 2 or loose * LOOSE < len(there):
        return []
    schema, version = TABLES[table], shown[0].version
    try:
        groups = (there[start : start + GROUP] for start in range(0, len(there), GROUP))
        made = seal_stream(
            store,
            schema,
            version,
            bucket,
            WHOLE,
            (read_entries(store, table, group) for group in groups),
        )
    except DamagedFile:
        return []  # whoever needs those rows will say so
    offset, moved = 0, []
    for entry in there:
        moved.append(
            replace(
                entry, file=made.path, offset=offset, file_rows=made.rows, file_bytes=made.bytes
            )
        )
        offset += entry.rows
    # An entry replaces all of its chunk and version: rows kept for a switch back are named again.
    beside = [
        e for entry in there for e in snapshot.of(*entry.scope, version=version) if not e.live
    ]
    return [*moved, *beside]


def _companion(
    store: Store, snapshot: Snapshot, table: str, bucket: int, chunks: Iterable[int]
) -> list[Entry]:
    shown = _finished(snapshot, table, bucket, chunks)
    if not shown:
        return []
    schema, version = TABLES[table].companion, shown[0].version
    basis = companion_basis((entry.version, entry.chunk, entry.digest) for entry in shown)
    for entry in snapshot.of(schema.name, bucket, WHOLE, version):
        if entry.basis == basis:
            return [] if entry.current else [replace(entry, current=True)]
    try:
        made = seal_stream(
            store,
            schema,
            version,
            bucket,
            WHOLE,
            _light(store, TABLES[table], [e for e in shown if e.file]),
        )
    except DamagedFile:
        return []
    return [made.entry(schema, version, bucket, WHOLE, basis)]


def _light(store: Store, schema: TableSchema, entries: Sequence[Entry]) -> Iterator[pa.Table]:
    """The rows without images, in groups that do not hang on how many rows a chunk has."""
    # Few bytes of each file are wanted: in an object store it is the waiting that takes long.
    with ThreadPoolExecutor(1 if store.local else _READERS) as pool:
        tables = pool.map(lambda entry: read(store, schema, entry.file, schema.light), entries)
        waiting: list[pa.Table] = []
        for number, table in enumerate(tables, 1):
            waiting.append(table)
            if number % GROUP == 0 or number == len(entries):
                yield pa.concat_tables(waiting)
                waiting = []
