"""Compaction: of a finished bucket, each table without pictures in one file.

Chunks are sealed one by one, so a bucket of 50,000 pictures has about a hundred files a table. Once the bucket is full
and every chunk of a table is complete, the rows that are shown are put into one file, a row group a chunk. The entries
stay, one a chunk, with the digest and the basis that they had: only where their rows lie is new, so nothing that
follows from them is computed again. What is replaced or appended later lies in files of its own, until these are many
enough to be worth another file. The files merged away stay for older snapshots until `idcluster gc`.
"""

from collections.abc import Iterable
from dataclasses import replace

from pipeline import intake
from pipeline.files import DamagedFile, read_entries, seal_stream
from pipeline.ground import is_chunked
from pipeline.snapshot import WHOLE, Entry, Snapshot
from pipeline.storage import Store
from schemas import TABLES

LOOSE = 8
"""A file is made anew when one in so many chunks lies outside of it: each row is rewritten a few times, not a hundred."""


def compact(store: Store, snapshot: Snapshot, buckets: Iterable[int]) -> list[Entry]:
    """The entries to replace for what of `buckets` is finished and scattered. Files are written, nothing is published."""
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
            if is_chunked(table) and not schema.blobs:
                changed += _merged(store, snapshot, table, bucket, [entry.chunk for entry in candidates])
    return changed


def _merged(store: Store, snapshot: Snapshot, table: str, bucket: int, chunks: Iterable[int]) -> list[Entry]:
    found = [snapshot.shown_at(table, bucket, chunk) for chunk in chunks]
    shown = [entry for entry in found if entry is not None]
    if len(shown) < len(found) or not all(entry.basis for entry in shown) or len({entry.version for entry in shown}) != 1:
        return []
    there = [entry for entry in shown if entry.file]
    loose = sum(not entry.file_rows for entry in there)
    if len(there) < 2 or loose * LOOSE < len(there):
        return []
    schema, version = TABLES[table], shown[0].version
    try:
        made = seal_stream(store, schema, version, bucket, WHOLE, (read_entries(store, table, [entry]) for entry in there))
    except DamagedFile:
        return []  # whoever needs those rows will say so
    offset, moved = 0, []
    for entry in there:
        moved.append(replace(entry, file=made.path, offset=offset, file_rows=made.rows, file_bytes=made.bytes))
        offset += entry.rows
    # An entry replaces all of its chunk and version: rows kept for a switch back are named again.
    beside = [e for entry in there for e in snapshot.of(*entry.scope, version=version) if not e.live]
    return [*moved, *beside]
