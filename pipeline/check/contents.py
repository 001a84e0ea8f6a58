"""What is in a file of a table: its rows against what the snapshot says of them, photographs
against their hashes.
"""

import hashlib
from collections.abc import Iterable, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from idcluster.root.parquet import DamagedFile, open_parquet, read, read_entries
from idcluster.root.snapshot import Entry, Snapshot, companion_basis
from idcluster.root.storage import Store
from schemas import TABLES
from schemas.schema import LIGHT


def rows_fault(store: Store, path: str, entries: Sequence[Entry], deep: bool) -> str | None:
    """What is wrong with the rows of a Parquet file that `entries` lie in. Raises what Arrow
    raises.
    """
    table = entries[0].table
    schema = TABLES.get(table.removesuffix(LIGHT))
    if schema is None:
        with (
            store.open(path) as opened,
            pq.ParquetFile(opened, page_checksum_verification=True) as file,
        ):
            return _count_fault(file, entries)
    with open_parquet(store, schema, path) as file:
        what = _count_fault(file, entries)
        if what is not None or not deep:
            return what
        pieces = []
        for number in range(file.num_row_groups):
            rows = store.patiently(lambda n=number: file.read_row_group(n))  # type: ignore[misc]
            what = (
                _photographs_fault(rows)
                if "bytes" in rows.column_names and "sha256" in rows.column_names
                else None
            )
            if what is not None:
                return what
            pieces.append(
                rows.select([name for name in rows.column_names if name not in schema.blobs])
            )
    return _status_fault(pa.concat_tables(pieces), entries) if pieces else None


def _count_fault(file: pq.ParquetFile, entries: Iterable[Entry]) -> str | None:
    there = file.metadata.num_rows
    for entry in entries:
        if there != (entry.file_rows or entry.rows) or entry.offset + entry.rows > there:
            return f"has {there} rows, the snapshot says {entry.file_rows or entry.rows}"
    return None


def _status_fault(rows: pa.Table, entries: Iterable[Entry]) -> str | None:
    if "status" not in rows.column_names:
        return None
    for entry in entries:
        ok = pc.sum(pc.equal(rows["status"].slice(entry.offset, entry.rows), "ok")).as_py() or 0
        if ok != entry.ok:
            return (
                f"has {ok} rows of status ok in chunk {entry.chunk}, the snapshot says {entry.ok}"
            )
    return None


def _photographs_fault(rows: pa.Table) -> str | None:
    for image, data, sha256 in zip(
        *(rows[name].to_pylist() for name in ("image_id", "bytes", "sha256")), strict=True
    ):
        if data is not None and hashlib.sha256(data).hexdigest() != sha256:
            return f"the bytes of image {image} are not those of its SHA-256"
    return None


def companion_fault(
    store: Store, snapshot: Snapshot, companion: Entry, damaged: set[str], deep: bool
) -> str | None:
    """What is wrong with a companion: it stands for other chunks, or (`deep`) has other rows than
    they have.
    """
    name = companion.table.removesuffix(LIGHT)
    chunks = [entry for entry in snapshot.shown(name) if entry.bucket == companion.bucket]
    if (
        companion_basis((entry.version, entry.chunk, entry.digest) for entry in chunks)
        != companion.basis
    ):
        return "stands for other chunks than the snapshot shows"
    if sum(entry.rows for entry in chunks) != companion.rows:
        return f"has {companion.rows} rows, its chunks {sum(entry.rows for entry in chunks)}"
    if not deep or any(entry.file in damaged for entry in chunks):
        return None
    schema = TABLES[name]
    try:
        rows = read(store, schema.companion, companion.file)
        own = read_entries(store, name, chunks, schema.light)
    except DamagedFile as error:
        return str(error)
    return (
        None if rows.equals(own) else f"has other rows than the chunks of {name} that it stands for"
    )
