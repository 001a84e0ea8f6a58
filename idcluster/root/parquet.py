"""Parquet files of the dataset: how they are named, written and read.

Files are named by what is in them and never rewritten. The same rows give the same bytes. Tables
with images keep them uncompressed in small row groups, so that a reader who needs a slice reads a
slice.
"""

import hashlib
import io
import tempfile
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from itertools import accumulate
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from idcluster.root.checksums import add_sums, sums_of_file, with_sums
from idcluster.root.intact import check_digest, is_whole, named_digest
from idcluster.root.snapshot import WHOLE, Entry
from idcluster.root.storage import StorageError, Store
from schemas import TABLES, TableSchema
from schemas.errors import UserError

SLICE_ROWS = 32
CHUNK_ROWS = 512

Where = tuple[str, Collection[str]]
"""A column, and the values of it that are wanted."""


class DamagedFile(UserError, RuntimeError):
    """A file of the dataset cannot be read; the message names it and what to do."""


def lost(store: Store, path: str) -> DamagedFile:
    """What to say of a file that a snapshot names and that is not there."""
    gone = f"{store.uri(path)} is named by the snapshot but not there"
    return DamagedFile(f"{gone}; ask again if it was deleted meanwhile, else {_remedy(store)}")


def damaged(store: Store, path: str, why: object) -> DamagedFile:
    """What to say of a file that is not what was written."""
    return DamagedFile(
        f"{store.uri(path)} cannot be read ({' '.join(str(why).split())}); {_remedy(store)}"
    )


def _remedy(store: Store) -> str:
    return (
        f"bring it back from a copy, or `idcluster check {store.root} --repair` and run again, "
        "or go back to an older snapshot (`idcluster snapshots` lists them)"
    )


def bucket_name(bucket: int) -> str:
    return "all" if bucket == WHOLE else f"{bucket:05d}"


def _chunk_name(chunk: int) -> str:
    return "all" if chunk == WHOLE else f"{chunk:05d}"


def sealed_path(table: str, version: str, bucket: int, chunk: int, digest: str) -> str:
    folder = f"tables/{table}/v={version}/bucket={bucket_name(bucket)}"
    return f"{folder}/chunk-{_chunk_name(chunk)}-{digest[:8]}.parquet"


def places(entries: Iterable[Entry]) -> list[str]:
    """Where the rows of `entries` lie, for `read`: paths, or `path#first+count` for a stretch of
    the rows of a file.

    Entries whose rows follow one another in a file are one place, so that it is read once.
    """
    found: list[tuple[str, int, int, int]] = []
    for entry in entries:
        if not entry.file:
            continue
        file, first, rows, whole = found[-1] if found else ("", 0, 0, 0)
        if entry.file == file and entry.offset == first + rows < whole:
            found[-1] = (file, first, rows + entry.rows, whole)
        else:
            found.append((entry.file, entry.offset, entry.rows, entry.file_rows))
    return [
        file if whole in (0, rows) else f"{file}#{first}+{rows}"
        for file, first, rows, whole in found
    ]


def part_path(table: str, version: str, bucket: int, task: str, digest: str) -> str:
    return f"parts/{table}/v={version}/bucket={bucket_name(bucket)}/{task}-{digest}.parquet"


@cache
def _settings(schema: TableSchema) -> dict[str, Any]:
    """How a table is written: images as they are, everything else compressed, with statistics."""
    sink = io.BytesIO()
    pq.write_table(schema.empty(), sink)
    # Lists and maps have their values in leaves below them (vector.list.element), which is what the
    # writer goes by.
    leaves = pq.ParquetFile(sink).schema
    paths = [leaves.column(i).path for i in range(len(leaves.names))]
    light = [path for path in paths if path not in schema.blobs]
    return {
        "compression": {**dict.fromkeys(light, "ZSTD"), **dict.fromkeys(schema.blobs, "NONE")},
        "use_dictionary": [
            name for name in schema.light if schema.arrow.field(name).type == pa.string()
        ],
        "write_statistics": light,
        "write_page_checksum": True,
    }


def encode(schema: TableSchema, table: pa.Table, notes: Mapping[str, str] | None = None) -> bytes:
    """The Parquet file of a checked table; of tables of the dataset with its check sums.

    Late columns that `table` lacks are not written. `notes` go into the metadata of the file.
    """
    there = tuple(one for one in schema.columns if not one.late or one.name in table.column_names)
    if len(there) < len(schema.columns):
        schema = replace(schema, columns=there)
    checked = schema.check(table, f"rows for {schema.name}")
    sink = io.BytesIO()
    # A table that is read back row by row or appended from slices has its chunks in memory laid out
    # differently; combining them first makes the bytes a function of the values alone.
    pq.write_table(
        checked.combine_chunks().replace_schema_metadata(notes),
        sink,
        row_group_size=SLICE_ROWS if schema.blobs else 65536,
        **_settings(schema),
    )
    # What lies beside shards goes to people who have copies of it: its bytes stay what they always
    # were.
    return with_sums(sink.getvalue()) if schema.name in TABLES else sink.getvalue()


@dataclass(frozen=True)
class Sealed:
    """A file that was written: where, how large, and the SHA-256 of its bytes (the first 32 hex
    digits); `ok` rows of status ok.
    """

    path: str
    rows: int
    bytes: int
    digest: str
    ok: int

    def entry(
        self,
        schema: TableSchema,
        version: str,
        bucket: int,
        chunk: int,
        basis: str,
        live: bool = True,
    ) -> Entry:
        return Entry(
            schema.name,
            version,
            bucket,
            chunk,
            self.path,
            self.rows,
            self.bytes,
            self.digest,
            basis,
            live,
            live,
            self.ok,
        )


NOTHING = Sealed("", 0, 0, "", 0)


def _ok(table: pa.Table) -> int:
    return (
        pc.sum(pc.equal(table["status"], "ok")).as_py() or 0
        if "status" in table.column_names
        else 0
    )


def seal_table(
    store: Store, schema: TableSchema, version: str, bucket: int, chunk: int, table: pa.Table
) -> Sealed:
    """Put a table as a sealed file; no file for no rows."""
    if table.num_rows == 0:
        return NOTHING
    data = encode(schema, table)
    digest = hashlib.sha256(data).hexdigest()[:32]
    path = sealed_path(schema.name, version, bucket, chunk, digest)
    put_missing(store, path, data, digest)
    return Sealed(path, table.num_rows, len(data), digest, _ok(table))


def put_missing(store: Store, path: str, data: bytes, digest: str) -> None:
    """Put a file that is named by what is in it, unless it is there already. One that was damaged
    since is put again.
    """
    if not (store.exists(path) and is_whole(store, path, len(data), digest)):
        store.put(path, data)


def seal_stream(
    store: Store,
    schema: TableSchema,
    version: str,
    bucket: int,
    chunk: int,
    tables: Iterable[pa.Table],
) -> Sealed:
    """As `seal_table` for tables with images: row group by row group through a temporary file,
    never all in memory.

    Each of `tables` becomes one row group, so the caller cuts them to the same sizes each time.
    """
    rows = ok = 0
    with tempfile.TemporaryDirectory(prefix="idcluster-") as folder:
        local = Path(folder) / "sealed"
        with pq.ParquetWriter(local, schema.arrow, **_settings(schema)) as writer:
            for table in tables:
                writer.write_table(
                    schema.check(table, f"rows for {schema.name}").combine_chunks(),
                    row_group_size=table.num_rows,
                )
                rows += table.num_rows
                ok += _ok(table)
        if rows == 0:
            return NOTHING
        add_sums(local)
        with local.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()[:32]
        size = local.stat().st_size
        path = sealed_path(schema.name, version, bucket, chunk, digest)
        if not (store.exists(path) and is_whole(store, path, size, digest)):
            store.put_file(path, local)
    return Sealed(path, rows, size, digest, ok)


def read(
    store: Store,
    schema: TableSchema,
    place: str,
    columns: Sequence[str] | None = None,
    where: Where | None = None,
) -> pa.Table:
    """Rows of one place (see `places`): all light columns unless `columns` says which; only rows
    whose `where` column is in the collection.

    With `where`, only the row groups that hold such rows are read. Late columns (`schemas.Column`)
    that a file lacks are null. Files without images are compared with the SHA-256 in their name,
    once a process. Raises DamagedFile.
    """
    names = list(schema.light if columns is None else columns)
    path, _, stretch = place.partition("#")
    if not path:
        return schema.empty().select(names)

    def attempt() -> pa.Table:
        if store.local and not schema.blobs:
            check_digest(store, path, named_digest(path))
        if stretch:
            first, count = map(int, stretch.split("+"))
            return _read_stretch(store, path, names, first, count, where)
        with open_parquet(store, schema, path) as file:
            return file.read(names) if where is None else _read_where(file, names, *where)

    try:
        table = store.patiently(attempt)
    except FileNotFoundError as error:
        raise lost(store, path) from error
    except StorageError:
        raise  # the store is away, and the file may be whole
    except (pa.ArrowException, OSError) as error:
        raise damaged(store, path, error) from error
    for column in schema.columns:
        if column.late and column.name in names and column.name not in table.column_names:
            table = table.append_column(column.name, pa.nulls(table.num_rows, column.type))
    return schema.check(table, store.uri(path), names)


def open_parquet(store: Store, schema: TableSchema, path: str) -> pq.ParquetFile:
    """An open file of a table, from a store read whole where it has no images: one request
    instead of several.

    Its footer is compared with its check sum, pages are when they are read. Raises what Arrow
    raises.
    """
    if not store.local and not schema.blobs:
        data = store.read(path)
        check_digest(store, path, named_digest(path), data)
        return pq.ParquetFile(io.BytesIO(data), page_checksum_verification=True)
    if not store.local:
        file = store.open(path)
        return pq.ParquetFile(file, metadata=_checked_footer(file), page_checksum_verification=True)
    with store.open(path) as file:
        metadata = _checked_footer(file)
    return pq.ParquetFile(store.uri(path), metadata=metadata, page_checksum_verification=True)


def _checked_footer(file: IO[bytes]) -> pq.FileMetaData | None:
    """The metadata of a file that has check sums; None for one of an earlier version of the
    program.
    """
    sums = sums_of_file(file)
    return None if sums is None else pq.read_metadata(io.BytesIO(sums.footer))


def _read_where(
    file: pq.ParquetFile, names: list[str], column: str, values: Collection[str]
) -> pa.Table:
    chosen = pa.array(sorted(values), pa.string())
    parts = []
    for group in range(file.num_row_groups):
        mask = pc.is_in(file.read_row_group(group, [column])[column], value_set=chosen)
        if pc.any(mask).as_py():
            parts.append(file.read_row_group(group, names).filter(mask))
    empty = file.schema_arrow.empty_table()
    return (
        pa.concat_tables(parts)
        if parts
        else empty.select([name for name in names if name in empty.column_names])
    )


@lru_cache(maxsize=64)
def _footer(store: Store, path: str) -> pq.FileMetaData:
    # A file with many chunks in it has a long footer, and is asked for one chunk after the other.
    with store.open(path) as file:
        checked = _checked_footer(file)
        if checked is not None:
            return checked
        if not store.local:
            check_digest(store, path, named_digest(path))
        file.seek(0)
        return pq.read_metadata(file)


def _read_stretch(
    store: Store, path: str, names: list[str], first: int, count: int, where: Where | None
) -> pa.Table:
    """Rows `first` to `first + count` of a file; only the row groups that hold them are read."""
    metadata = _footer(store, path)
    ends = list(accumulate(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)))
    if first + count > metadata.num_rows:
        raise pa.ArrowInvalid(
            f"it has {metadata.num_rows} rows, rows {first} to {first + count} are asked for"
        )
    low, high = bisect_right(ends, first), bisect_left(ends, first + count)
    source = store.uri(path) if store.local else store.open(path)
    columns = names if where is None else list(dict.fromkeys((*names, where[0])))
    with pq.ParquetFile(
        source, metadata=metadata, pre_buffer=not store.local, page_checksum_verification=True
    ) as file:
        table = file.read_row_groups(range(low, high + 1), columns)
    table = table.slice(first - (ends[low - 1] if low else 0), count)
    if where is not None:
        table = table.filter(
            pc.is_in(table[where[0]], value_set=pa.array(sorted(where[1]), pa.string()))
        )
    return table.select([name for name in names if name in table.column_names])


def read_entries(
    store: Store,
    table: str,
    entries: Iterable[Entry],
    columns: Sequence[str] | None = None,
    where: Where | None = None,
) -> pa.Table:
    """The rows of several entries of one table, one after the other."""
    schema = TABLES[table]
    names = list(schema.light if columns is None else columns)
    return pa.concat_tables(
        [
            schema.empty().select(names),
            *(read(store, schema, place, names, where) for place in places(entries)),
        ]
    )
