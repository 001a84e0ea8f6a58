"""Parquet files of the dataset: how they are named, written and read.

Files are named by what is in them and never rewritten. The same rows give the same bytes. Tables with pictures keep
them uncompressed in small row groups, so that a reader who needs a slice reads a slice.
"""

import hashlib
import io
import tempfile
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.snapshot import WHOLE, Entry
from pipeline.storage import Store
from schemas import TABLES, TableSchema

SLICE_ROWS = 32
CHUNK_ROWS = 512

Where = tuple[str, Collection[str]]
"""A column, and the values of it that are wanted."""


class DamagedFile(RuntimeError):
    """A file of the dataset cannot be read; the message names it and what to do."""


def bucket_name(bucket: int) -> str:
    return "all" if bucket == WHOLE else f"{bucket:05d}"


def _chunk_name(chunk: int) -> str:
    return "all" if chunk == WHOLE else f"{chunk:05d}"


def sealed_path(table: str, version: str, bucket: int, chunk: int, digest: str) -> str:
    return f"tables/{table}/v={version}/bucket={bucket_name(bucket)}/chunk-{_chunk_name(chunk)}-{digest[:8]}.parquet"


def part_path(table: str, version: str, bucket: int, task: str, digest: str) -> str:
    return f"parts/{table}/v={version}/bucket={bucket_name(bucket)}/{task}-{digest}.parquet"


@cache
def _settings(schema: TableSchema) -> dict[str, Any]:
    """How a table is written: pictures as they are, everything else compressed, with statistics."""
    sink = io.BytesIO()
    pq.write_table(schema.empty(), sink)
    # Lists and maps have their values in leaves below them (vector.list.element), which is what the writer goes by.
    leaves = pq.ParquetFile(sink).schema
    paths = [leaves.column(i).path for i in range(len(leaves.names))]
    light = [path for path in paths if path not in schema.blobs]
    return {
        "compression": {**dict.fromkeys(light, "ZSTD"), **dict.fromkeys(schema.blobs, "NONE")},
        "use_dictionary": [name for name in schema.light if schema.arrow.field(name).type == pa.string()],
        "write_statistics": light,
        "write_page_checksum": True,
    }


def encode(schema: TableSchema, table: pa.Table) -> bytes:
    """The Parquet file of a checked table."""
    checked = schema.check(table, f"rows for {schema.name}")
    sink = io.BytesIO()
    # A table that is read back row by row or appended from slices has its chunks in memory laid out differently;
    # combining them first makes the bytes a function of the values alone.
    pq.write_table(checked.combine_chunks(), sink, row_group_size=SLICE_ROWS if schema.blobs else 65536, **_settings(schema))
    return sink.getvalue()


@dataclass(frozen=True)
class Sealed:
    """A file that was written: where, how large, and the SHA-256 of its bytes (the first 32 hex digits); `ok` rows of status ok."""

    path: str
    rows: int
    bytes: int
    digest: str
    ok: int

    def entry(self, schema: TableSchema, version: str, bucket: int, chunk: int, basis: str, live: bool = True) -> Entry:
        return Entry(schema.name, version, bucket, chunk, self.path, self.rows, self.bytes, self.digest, basis, live, live, self.ok)


NOTHING = Sealed("", 0, 0, "", 0)


def _ok(table: pa.Table) -> int:
    return pc.sum(pc.equal(table["status"], "ok")).as_py() or 0 if "status" in table.column_names else 0


def seal_table(store: Store, schema: TableSchema, version: str, bucket: int, chunk: int, table: pa.Table) -> Sealed:
    """Put a table as a sealed file; no file for no rows."""
    if table.num_rows == 0:
        return NOTHING
    data = encode(schema, table)
    digest = hashlib.sha256(data).hexdigest()[:32]
    path = sealed_path(schema.name, version, bucket, chunk, digest)
    if not store.exists(path):
        store.put(path, data)
    return Sealed(path, table.num_rows, len(data), digest, _ok(table))


def seal_stream(store: Store, schema: TableSchema, version: str, bucket: int, chunk: int, tables: Iterable[pa.Table]) -> Sealed:
    """As `seal_table` for tables with pictures: row group by row group through a temporary file, never all in memory.

    Each of `tables` becomes one row group, so the caller cuts them to the same sizes each time.
    """
    rows = ok = 0
    with tempfile.TemporaryDirectory(prefix="idcluster-") as folder:
        local = Path(folder) / "sealed"
        with pq.ParquetWriter(local, schema.arrow, **_settings(schema)) as writer:
            for table in tables:
                writer.write_table(schema.check(table, f"rows for {schema.name}").combine_chunks(), row_group_size=table.num_rows)
                rows += table.num_rows
                ok += _ok(table)
        if rows == 0:
            return NOTHING
        with local.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()[:32]
        size = local.stat().st_size
        path = sealed_path(schema.name, version, bucket, chunk, digest)
        if not store.exists(path):
            store.put_file(path, local)
    return Sealed(path, rows, size, digest, ok)


def read(
    store: Store, schema: TableSchema, path: str, columns: Sequence[str] | None = None, where: Where | None = None
) -> pa.Table:
    """Rows of one file: all light columns unless `columns` says which; only rows whose `where` column is in the collection.

    With `where`, only the row groups that hold such rows are read. Raises DamagedFile.
    """
    names = list(schema.light if columns is None else columns)
    if not path:
        return schema.empty().select(names)

    def attempt() -> pa.Table:
        with open_parquet(store, schema, path) as file:
            return file.read(names) if where is None else _read_where(file, names, *where)

    try:
        table = store.patiently(attempt)
    except FileNotFoundError as error:
        lost = f"{store.uri(path)} is named by the snapshot but not there"
        raise DamagedFile(f"{lost}; `idcluster status` lists older snapshots") from error
    except (pa.ArrowException, OSError) as error:
        broken = f"{store.uri(path)} cannot be read ({error})"
        raise DamagedFile(f"{broken}; delete it and run again, or go back to an older snapshot") from error
    return schema.check(table, store.uri(path), names)


def open_parquet(store: Store, schema: TableSchema, path: str) -> pq.ParquetFile:
    """An open file of a table, from a store read whole where it has no pictures: one request instead of several."""
    source = store.uri(path) if store.local else store.open(path) if schema.blobs else io.BytesIO(store.read(path))
    return pq.ParquetFile(source, page_checksum_verification=True)


def _read_where(file: pq.ParquetFile, names: list[str], column: str, values: Collection[str]) -> pa.Table:
    chosen = pa.array(sorted(values), pa.string())
    parts = []
    for group in range(file.num_row_groups):
        mask = pc.is_in(file.read_row_group(group, [column])[column], value_set=chosen)
        if pc.any(mask).as_py():
            parts.append(file.read_row_group(group, names).filter(mask))
    return pa.concat_tables(parts) if parts else file.schema_arrow.empty_table().select(names)


def read_entries(
    store: Store, table: str, entries: Iterable[Entry], columns: Sequence[str] | None = None, where: Where | None = None
) -> pa.Table:
    """The rows of several entries of one table, one after the other."""
    schema = TABLES[table]
    names = list(schema.light if columns is None else columns)
    return pa.concat_tables([schema.empty().select(names), *(read(store, schema, entry.file, names, where) for entry in entries)])
