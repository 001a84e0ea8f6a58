"""What a catalogue reads from: the files of one snapshot as a file system of their own, and
images picked out of them.
"""

import io
import threading
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import IO, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem

from idcluster.root.checksums import Sums, WrongBytes
from idcluster.root.intact import check_digest, check_size, known_sums, named_digest
from idcluster.root.parquet import damaged, lost
from idcluster.root.snapshot import companion_basis
from idcluster.root.storage import Store
from schemas import TableSchema
from schemas.schema import LIGHT

SCHEME = "dataset"
Verify = Literal["crc", "digest", "none"]
"""How a query makes sure that what it reads is what was written, file by file, once a process: by
the check sums in the file of what it reads, by the SHA-256 of whole files, or not at all. Files
without check sums (small ones, which are read whole anyway, and those of an earlier version of the
program) are compared by their SHA-256 in the first case too.
"""
VERIFY: tuple[Verify, ...] = ("crc", "digest", "none")
_SMALL_FILE = (
    1_000_000  # bytes that are read at once: in an object store, one request instead of three
)
_KEPT_BYTES = (
    32_000_000  # of a stretch that was read in order to compare it, so that it is not read twice
)
_GROUPS_KEPT = 8  # row groups of images, of at most 32 rows each


class Shown:
    """What a snapshot shows, from its entries as a table: without an object for each of hundreds of
    thousands of them.
    """

    def __init__(self, entries: pa.Table) -> None:
        self._entries = entries
        names = entries["table"].combine_chunks().dictionary_encode()
        self._number = {name: number for number, name in enumerate(names.dictionary.to_pylist())}
        numbers = names.indices.to_numpy()
        order = np.flatnonzero(entries["current"].to_numpy() & entries["live"].to_numpy())
        # Entries are in the order of table, version, bucket, chunk; what is shown goes by bucket
        # and chunk, whatever the version.
        bucket, chunk = entries["bucket"].to_numpy(), entries["chunk"].to_numpy()
        order = order[np.lexsort((chunk[order], bucket[order], numbers[order]))]
        ends = np.searchsorted(numbers[order], np.arange(len(self._number) + 1))
        self._rows = {
            name: order[ends[number] : ends[number + 1]] for name, number in self._number.items()
        }

    @cached_property
    def _sizes(self) -> Mapping[str, tuple[int, int]]:
        """Of every file that the snapshot knows, its bytes and the number of an entry that lies in
        it.
        """
        entries = self._entries
        whole, own = entries["file_bytes"].to_numpy(), entries["bytes"].to_numpy()
        sizes = zip(np.where(whole > 0, whole, own).tolist(), range(len(whole)), strict=True)
        found = dict(zip(entries["file"].to_pylist(), sizes, strict=True))
        found.pop("", None)
        return found

    def size(self, path: str) -> int | None:
        """Bytes of a file; None for one that the snapshot does not know."""
        found = self._sizes.get(path)
        return None if found is None else found[0]

    def digest(self, path: str) -> str:
        """The first digits of the SHA-256 of a file that the snapshot knows; empty where nothing
        says them.
        """
        number = self._sizes[path][1]
        # The digest of an entry that shares its file is of its rows alone.
        shared = self._entries["file_rows"][number].as_py() > 0
        return named_digest(path) if shared else str(self._entries["digest"][number].as_py())

    @cached_property
    def files(self) -> list[str]:
        """The files that are shown, each once."""
        rows = np.sort(np.concatenate([np.empty(0, np.int64), *self._rows.values()]))
        return [
            file
            for file in pc.unique(self._entries["file"].take(pa.array(rows))).to_pylist()
            if file
        ]

    def places(self, table: str, buckets: np.ndarray | None = None) -> list[str]:
        """As `files.places`: where the rows that a table shows lie; of these buckets alone."""
        rows = self._rows.get(table, np.empty(0, np.int64))
        if buckets is not None:
            rows = rows[np.isin(self._entries["bucket"].to_numpy()[rows], buckets)]
        chosen = self._entries.take(pa.array(rows))
        chosen = chosen.filter(pc.not_equal(chosen["file"], ""))
        if not chosen.num_rows:
            return []
        first, count, whole = (chosen[name].to_numpy() for name in ("offset", "rows", "file_rows"))
        codes = chosen["file"].combine_chunks().dictionary_encode().indices.to_numpy()
        follows = (
            (codes[1:] == codes[:-1])
            & (first[1:] == first[:-1] + count[:-1])
            & (first[1:] < whole[1:])
        )
        starts = np.flatnonzero(np.concatenate([[True], ~follows]))
        totals = np.add.reduceat(count, starts).tolist()
        heads = zip(
            chosen["file"].take(pa.array(starts)).to_pylist(),
            first[starts].tolist(),
            whole[starts].tolist(),
            strict=True,
        )
        return [
            file if rows_there in (0, total) else f"{file}#{begin}+{total}"
            for (file, begin, rows_there), total in zip(heads, totals, strict=True)
        ]

    def buckets(self, table: str) -> np.ndarray:
        """The buckets that a table shows anything of, rising."""
        return np.unique(
            self._entries["bucket"].to_numpy()[self._rows.get(table, np.empty(0, np.int64))]
        )

    @property
    def has_companions(self) -> bool:
        return any(name.endswith(LIGHT) and len(rows) for name, rows in self._rows.items())

    def companions(self, table: str) -> dict[int, tuple[str, list[tuple[str, int]]]]:
        """By bucket, the file with the light columns of what a table with images shows, and the
        files that have the images: path and rows, in the order of its rows. Only of buckets whose
        companion holds.
        """
        of_chunks, of_buckets = (
            self._rows.get(name, np.empty(0, np.int64)) for name in (table, f"{table}{LIGHT}")
        )
        if not len(of_buckets):
            return {}
        names = ["bucket", "version", "chunk", "digest", "file", "rows"]
        chosen = self._entries.select(names).take(pa.array(of_chunks))
        by_bucket: dict[int, list[tuple[str, int, str, str, int]]] = {}
        for bucket, *chunk in zip(*(chosen[name].to_pylist() for name in names), strict=True):
            by_bucket.setdefault(bucket, []).append(tuple(chunk))
        found = {}
        for companion in (
            self._entries.select(["bucket", "file", "basis"]).take(pa.array(of_buckets)).to_pylist()
        ):
            chunks = by_bucket.get(companion["bucket"], [])
            if (
                companion["file"]
                and companion_basis(chunk[:3] for chunk in chunks) == companion["basis"]
            ):
                found[companion["bucket"]] = (
                    companion["file"],
                    [(file, rows) for _, _, _, file, rows in chunks if file],
                )
        return found


class Dataset(AbstractFileSystem):
    """The files that a snapshot knows under `dataset:///`, for reading. What is not what was
    written is not given out.
    """

    protocol = SCHEME
    cachable = False

    def __init__(self, store: Store, files: Shown, verify: Verify = "crc") -> None:
        super().__init__()
        self._store, self._files, self._verify = store, files, verify

    def _relative(self, path: str) -> str:
        return path.removeprefix(f"{SCHEME}://").lstrip("/")

    def _size(self, path: str) -> int:
        size = self._files.size(self._relative(path))
        if size is None:
            raise FileNotFoundError(f"{path}: not a file of this snapshot")
        return size

    def open(self, path: str, mode: str = "rb", **_: Any) -> "SharedFile":
        """Raises DamagedFile, as reading does."""
        if mode != "rb":
            raise PermissionError(f"{path}: a query cannot write files")
        size = self._size(path)
        with self.telling(self._relative(path)):
            return self._open(self._relative(path), size)

    @contextmanager
    def telling(self, path: str) -> Iterator[None]:
        """What goes wrong with a file becomes DamagedFile."""
        try:
            yield
        except FileNotFoundError as error:
            raise lost(self._store, path) from error
        except pa.ArrowException as error:
            raise damaged(self._store, path, error) from error

    def _open(self, path: str, size: int) -> "SharedFile":
        if size <= _SMALL_FILE:
            data = self._store.read(path)
            if self._verify != "none":
                check_size(len(data), size)
                check_digest(self._store, path, self._files.digest(path), data)
            return SharedFile(self._store, io.BytesIO(data))
        file = self._store.open(path)
        try:
            return SharedFile(self._store, file, path, self._sums_of(path, file, size))
        except BaseException:
            file.close()
            raise

    def _sums_of(self, path: str, file: IO[bytes], size: int) -> Sums | None:
        """The check sums that go with an open file, None where it has none and was compared whole,
        or is not to be.
        """
        if self._verify == "none":
            return None
        check_size(file.seek(0, io.SEEK_END), size)
        sums = known_sums(self._store, path, file) if self._verify == "crc" else None
        if sums is None:
            check_digest(self._store, path, self._files.digest(path))
        return sums

    def glob(self, path: str, **_: Any) -> list[str]:
        """The file itself: a name is only a name here."""
        return [path] if self.exists(path) else []

    def exists(self, path: str, **_: Any) -> bool:
        return self._files.size(self._relative(path)) is not None

    isfile = exists

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        return {"name": path, "size": self._size(path), "type": "file"}

    def modified(self, path: str) -> datetime:
        """Never: files of a dataset are not rewritten."""
        return datetime.fromtimestamp(0, UTC)


class SharedFile:
    """An open file with a position for every thread, which waits for a store that is away.

    DuckDB's threads share one handle and read with `seek` and then `read`; on an ordinary file one
    thread moves the position between the two calls of another, which then gets bytes from
    elsewhere.
    """

    def __init__(
        self, store: Store, file: IO[bytes], path: str = "", sums: Sums | None = None
    ) -> None:
        self._store, self._file, self._lock, self._own = (
            store,
            file,
            threading.Lock(),
            threading.local(),
        )
        self._path, self._sums = path, sums
        self._last: tuple[int, bytes] = 0, b""
        """The stretch that was compared last, and where it begins: readers mostly go on in it."""

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_CUR:
            offset += self.tell()
        elif whence == io.SEEK_END:
            with self._lock:
                offset = self._file.seek(offset, io.SEEK_END)
        self._own.position = offset
        return offset

    def tell(self) -> int:
        return getattr(self._own, "position", 0)

    def read(self, size: int = -1) -> bytes:
        with self._lock:
            data = self._store.patiently(lambda: self._read_at(self.tell(), size))
        self._own.position = self.tell() + len(data)
        return data

    def _read_at(self, offset: int, size: int) -> bytes:
        sums = self._sums
        if sums is None or size < 0:
            return self._plain(offset, size)
        if offset >= sums.stop:
            return sums.tail[offset - sums.stop : offset - sums.stop + size]
        start, stop = sums.unseen(offset, offset + size)
        if start < stop:
            data = self._plain(start, stop - start)
            try:
                check_size(len(data), stop - start)
                sums.compare(start, data)
            except WrongBytes as error:
                raise damaged(self._store, self._path, error) from error
            self._last = (start, data) if len(data) <= _KEPT_BYTES else (0, b"")
        start, data = self._last
        if start <= offset and offset + size <= start + len(data):
            return data[offset - start : offset - start + size]
        return self._plain(offset, size)

    def _plain(self, offset: int, size: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(size)

    def close(self) -> None:
        self._file.close()

    def __del__(self) -> None:
        # DuckDB lets go of files without closing them.
        self._file.close()

    @property
    def closed(self) -> bool:
        return self._file.closed


class Blobs:
    """A function of DuckDB: the image of a row of a companion.

    The views of tables with images read companions, which open quickly, and call this for the
    columns that those lack: only where a query wants them, and only for the rows that it wants.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._places: dict[str, tuple[TableSchema, list[int], list[str]]] = {}
        self._lock = threading.Lock()
        self._group = lru_cache(maxsize=_GROUPS_KEPT)(self._read)
        self._ends = lru_cache(maxsize=4096)(self._count)

    def add(self, schema: TableSchema, companion: str, files: list[tuple[str, int]]) -> None:
        """Say where the images of a companion's rows lie: files and how many rows each has, in
        the order of the rows.
        """
        self._places[f"{SCHEME}:///{companion}"] = (
            schema,
            [0, *accumulate(rows for _, rows in files)],
            [file for file, _ in files],
        )

    def __call__(
        self, column: pa.ChunkedArray, companion: pa.ChunkedArray, row: pa.ChunkedArray
    ) -> pa.Array:
        wanted = zip(column.to_pylist(), companion.to_pylist(), row.to_pylist(), strict=True)
        return pa.array([self._blob(*one) for one in wanted], pa.large_binary())

    def _blob(self, column: str, companion: str, row: int) -> bytes | None:
        if companion not in self._places:
            raise ValueError(f"{companion} is no companion of this snapshot")
        schema, starts, files = self._places[companion]
        number = bisect_right(starts, row) - 1
        if column not in schema.blobs or not 0 <= row < starts[-1]:
            raise ValueError(f"{companion} has no {column} of row {row}")
        with self._lock:  # DuckDB calls from several threads; what is in memory is shared
            ends = self._ends(files[number])
            inside = row - starts[number]
            group = bisect_right(ends, inside)
            found: bytes | None = self._group(files[number], group, column)[
                inside - (ends[group - 1] if group else 0)
            ].as_py()
        return found

    def _count(self, path: str) -> list[int]:
        with self._opened(path) as file:
            return list(
                accumulate(file.metadata.row_group(i).num_rows for i in range(file.num_row_groups))
            )

    def _read(self, path: str, group: int, column: str) -> pa.ChunkedArray:
        with self._opened(path) as file:
            return file.read_row_group(group, [column])[column]

    @contextmanager
    def _opened(self, path: str) -> Iterator[pq.ParquetFile]:
        with self._dataset.telling(path), closing(self._dataset.open(path)) as file:
            yield pq.ParquetFile(pa.PythonFile(file, "r"), page_checksum_verification=True)
