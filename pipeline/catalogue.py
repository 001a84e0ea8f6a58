"""The dataset as SQL: one view a table over the files of one snapshot, in a DuckDB that can read those files and nothing else.

DuckDB sees the dataset through a file system of its own, `dataset:///`, which is read-only and knows only the files of
the snapshot. So a query can neither write a file nor read one of the machine, names with blanks, quotes or wildcards
are only names, and a folder and an object store are the same. (DuckDB's own `allowed_paths` lets COPY overwrite what it
lists; measured on 300 files, the detour costs 20 to 30 ms a query.)
"""

import csv
import io
import json
import re
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import IO, Any, Literal

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem

from pipeline.files import DamagedFile, places
from pipeline.snapshot import Entry, Snapshot, load
from pipeline.storage import Store
from schemas import TABLES, TableSchema
from stages.shard.webdataset import SAMPLES, WITHHELD

TextFormat = Literal["table", "csv", "json"]
Format = Literal[TextFormat, "parquet"]
_SCHEME = "dataset"
_SMALL_FILE = 1_000_000  # bytes that are read at once: in an object store, one request instead of three
_LIST_SHOWN, _TEXT_SHOWN, _ROWS_SHOWN = 4, 60, 1000


class QueryError(ValueError):
    """A query failed; the message is one line and names what is near where a name does not exist."""


def connect(root: str | Store, snapshot: int | Snapshot | None = None) -> duckdb.DuckDBPyConnection:
    """A connection with a view for every table of `schemas.TABLES`, and `samples`, `snapshot_files` and `runs`.

    Views show the newest snapshot, or the one named; tables without rows are there and empty. Views and their columns
    carry the comments of the schema. The connection can be kept: it goes on showing the same snapshot. It works in
    memory, reads the snapshot's files alone, writes nothing and loads no extension. Raises SnapshotError.
    """
    store = root if isinstance(root, Store) else Store(root)
    shown = snapshot if isinstance(snapshot, Snapshot) else load(store, snapshot)
    # Without a spill directory: DuckDB would let COPY write there.
    connection = duckdb.connect(config={"temp_directory": "", "python_enable_replacements": False})
    connection.register_filesystem(_Dataset(store, shown.entries))
    try:
        for schema in (*TABLES.values(), SAMPLES, WITHHELD):
            _create_view(connection, schema, places(shown.shown(schema.name)))
    except duckdb.Error:
        lost = next((entry.file for entry in shown.entries if entry.current and entry.file and not store.exists(entry.file)), None)
        if lost is None:
            raise
        said = f"{store.uri(lost)} is named by the snapshot but not there"
        raise DamagedFile(f"{said}; `idcluster status` lists older snapshots") from None
    _create_table(connection, "snapshot_files", _entries_table(shown.entries), "The files that the snapshot knows.")
    _create_table(connection, "runs", _runs_table(store), "What ran; `record` is the whole record as JSON.")
    for setting in (
        "enable_progress_bar = false",  # it would be printed into the answer
        f"allowed_directories = ['{_SCHEME}:///']",
        "enable_external_access = false",
        "autoinstall_known_extensions = false",
        "autoload_known_extensions = false",
        "allow_community_extensions = false",
        "lock_configuration = true",
    ):
        connection.execute(f"SET {setting}")
    return connection


def query(
    root: str | Store, sql: str, format: Format = "table", output: str | None = None, snapshot: int | None = None
) -> str | None:
    """The answer to a query: as text, or None when it was written to the local file `output`.

    `table` is for reading: at most 1,000 rows, long lists and texts cut. The other formats are complete; `json` is one
    array with one object a line. Raises QueryError and SnapshotError.
    """
    if format == "parquet" and output is None:
        raise QueryError("Parquet is not text: name a file for it (--output answer.parquet)")
    connection = connect(root, snapshot)
    try:
        relation = connection.sql(sql)
        if relation is None:
            raise QueryError("there is no statement in it; `SHOW TABLES` shows what there is to ask about")
        reader: Any = relation.to_arrow_reader(10_000)
        if output is None:
            text = io.StringIO()
            _WRITERS[format](reader, text)
            return text.getvalue()
        if format == "parquet":
            with pq.ParquetWriter(output, reader.schema, compression="zstd") as writer:
                for batch in reader:
                    writer.write_batch(batch)
        else:
            with open(output, "w", encoding="utf-8", newline="") as file:
                _WRITERS[format](reader, file)
        return None
    except duckdb.Error as error:
        raise QueryError(explain(connection, error)) from error
    except pa.ArrowException as error:  # what goes wrong while batches are drawn
        raise QueryError(" ".join(str(error).split())) from error
    except OSError as error:
        raise QueryError(f"cannot write {output}: {error.strerror or error}") from error
    finally:
        connection.close()


def as_text(rows: pa.Table, format: TextFormat) -> str:
    """Rows as `query` prints them."""
    text = io.StringIO()
    _WRITERS[format](rows.to_reader(), text)
    return text.getvalue()


def explain(connection: duckdb.DuckDBPyConnection, error: duckdb.Error) -> str:
    """A DuckDB error in one line, with the nearest table of the dataset where a table does not exist."""
    said = str(error).partition("\n\nLINE ")[0]
    missing = re.search(r"Table with name (.+?) does not exist", said)
    if missing:
        rows = connection.execute("SELECT table_name FROM information_schema.tables").fetchall()
        names = sorted(row[0] for row in rows)
        close = get_close_matches(missing[1], names, 1)
        return f"no table {missing[1]!r}; " + (f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(names)}")
    denied = re.search(r'Cannot access (?:file|directory) "(.*?)"', said)
    if denied:
        return f"{denied[1]}: a query reads the tables of the dataset and no other file; --output writes its answer to a file"
    return " ".join(re.sub(r"^[A-Z]\w+(?: \w+)? Error: ", "", said).split())


class _Dataset(AbstractFileSystem):
    """The files of one snapshot under `dataset:///`, for reading."""

    protocol = _SCHEME
    cachable = False

    def __init__(self, store: Store, entries: Iterable[Entry]) -> None:
        super().__init__()
        self._store = store
        self._sizes = {entry.file: entry.file_bytes or entry.bytes for entry in entries if entry.file}

    def _relative(self, path: str) -> str:
        return path.removeprefix(f"{_SCHEME}://").lstrip("/")

    def open(self, path: str, mode: str = "rb", **_: Any) -> "_SharedFile":
        if mode != "rb":
            raise PermissionError(f"{path}: a query cannot write files")
        relative = self._relative(path)
        if relative not in self._sizes:
            raise FileNotFoundError(f"{path}: not a file of this snapshot")
        if self._sizes[relative] <= _SMALL_FILE:
            return _SharedFile(self._store, io.BytesIO(self._store.read(relative)))
        return _SharedFile(self._store, self._store.open(relative))

    def glob(self, path: str, **_: Any) -> list[str]:
        """The file itself: a name is only a name here."""
        return [path] if self._relative(path) in self._sizes else []

    def exists(self, path: str, **_: Any) -> bool:
        return self._relative(path) in self._sizes

    isfile = exists

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        relative = self._relative(path)
        if relative not in self._sizes:
            raise FileNotFoundError(f"{path}: not a file of this snapshot")
        return {"name": path, "size": self._sizes[relative], "type": "file"}

    def modified(self, path: str) -> datetime:
        """Never: files of a dataset are not rewritten."""
        return datetime.fromtimestamp(0, UTC)


class _SharedFile:
    """An open file with a position for every thread, which waits for a store that is away.

    DuckDB's threads share one handle and read with `seek` and then `read`; on an ordinary file one thread moves the
    position between the two calls of another, which then gets bytes from elsewhere.
    """

    def __init__(self, store: Store, file: IO[bytes]) -> None:
        self._store, self._file, self._lock, self._own = store, file, threading.Lock(), threading.local()

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
        self._file.seek(offset)
        return self._file.read(size)

    def close(self) -> None:
        self._file.close()


def _create_view(connection: duckdb.DuckDBPyConnection, schema: TableSchema, shown: list[str]) -> None:
    """`shown` are places of `files.places`.

    Files that an earlier version of the program wrote may lack columns: those are null.
    """
    versions: dict[str, list[str]] = {}
    for place in shown:
        versions.setdefault(_version(place), []).append(place)
    types = connection.from_arrow(schema.empty()).types
    nulls = {name: f"NULL::{kind} AS {_quoted(name)}" for name, kind in zip(schema.names, types, strict=True)}

    def create(lacking: Mapping[str, Collection[str]]) -> None:
        sources: list[str] = []
        for version, group in versions.items():
            without = lacking.get(version, ())
            sources += _sources([null if name in without else f"t.{_quoted(name)}" for name, null in nulls.items()], group)
        source = " UNION ALL ".join(sources) or f"SELECT {', '.join(nulls.values())} WHERE false"
        connection.execute(f"CREATE VIEW {_quoted(schema.name)} AS {source}")

    try:
        create({})
    except duckdb.BinderException:
        # Only now are the files asked what they have: each look is a request to the store.
        found = {version: _columns(connection, group[0]) for version, group in versions.items()}
        create({version: set(schema.names) - columns for version, columns in found.items()})
    connection.execute(f"COMMENT ON VIEW {_quoted(schema.name)} IS {_literal(schema.description)}")
    for column in schema.columns:
        target = f"{_quoted(schema.name)}.{_quoted(column.name)}"
        connection.execute(f"COMMENT ON COLUMN {target} IS {_literal(column.description)}")


def _parquet(paths: Iterable[str], *options: str) -> str:
    names = ", ".join(_literal(f"{_SCHEME}:///{path}") for path in paths)
    return f"read_parquet({', '.join((f'[{names}]', 'hive_partitioning = false', *options))})"


def _version(place: str) -> str:
    """What the files of a table are told apart by that may have other columns: the stage's version, or the folder of shards."""
    path, _, _ = place.partition("#")
    return next((part for part in path.split("/") if part.startswith("v=")), path.rpartition("/")[0])


def _columns(connection: duckdb.DuckDBPyConnection, place: str) -> set[str]:
    path, _, _ = place.partition("#")
    return {row[0] for row in connection.execute(f"DESCRIBE SELECT * FROM {_parquet([path])}").fetchall()}  # noqa: S608 - quoted there


def _sources(columns: Sequence[str], shown: Sequence[str]) -> Iterator[str]:
    """SELECTs of `columns`, each one of a table t or a null, from places."""
    whole = [place for place in shown if "#" not in place]
    if whole:
        yield f"SELECT {', '.join(columns)} FROM {_parquet(whole)} t"  # noqa: S608 - quoted there
    if len(whole) < len(shown):
        yield _stretches(columns, [place for place in shown if "#" in place])


def _stretches(columns: Sequence[str], shown: Iterable[str]) -> str:
    """Of files where only some rows are shown (of a chunk that was replaced the others are), those rows."""
    stretches = []
    for place in shown:
        path, _, stretch = place.partition("#")
        first, count = map(int, stretch.split("+"))
        stretches.append((path, first, first + count))
    values = ", ".join(f"({_literal(f'{_SCHEME}:///{path}')}, {first}, {stop})" for path, first, stop in stretches)
    source = _parquet(dict.fromkeys(path for path, _, _ in stretches), "filename = true", "file_row_number = true")
    on = "t.filename = s.path AND t.file_row_number >= s.first AND t.file_row_number < s.stop"
    return f"SELECT {', '.join(columns)} FROM {source} t JOIN (VALUES {values}) s(path, first, stop) ON {on}"  # noqa: S608 - quoted above


def _create_table(connection: duckdb.DuckDBPyConnection, name: str, table: pa.Table, comment: str) -> None:
    connection.register("arrow_input", table)
    connection.execute(f"CREATE TABLE {_quoted(name)} AS FROM arrow_input")
    connection.unregister("arrow_input")
    connection.execute(f"COMMENT ON TABLE {_quoted(name)} IS {_literal(comment)}")


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _entries_table(entries: Sequence[Entry]) -> pa.Table:
    kinds: dict[Any, pa.DataType] = {str: pa.string(), int: pa.int64(), bool: pa.bool_()}
    return pa.table({f.name: pa.array([getattr(entry, f.name) for entry in entries], kinds[f.type]) for f in fields(Entry)})


_STAGE_ROW = pa.struct([("stage", pa.string()), ("rows", pa.int64()), ("failed", pa.int64()), ("seconds", pa.float64())])
_RUNS = pa.schema(
    [
        ("run_id", pa.string()),
        ("started", pa.timestamp("us", tz="UTC")),
        ("finished", pa.timestamp("us", tz="UTC")),
        ("status", pa.string()),
        ("seconds", pa.float64()),
        ("snapshot", pa.int64()),
        ("stages", pa.list_(_STAGE_ROW)),
        ("error", pa.string()),
        ("record", pa.string()),
    ]
)


def _runs_table(store: Store) -> pa.Table:
    """One row a record in `runs/`. Records of other versions of the program are read as far as they are understood."""
    rows = []
    for path in store.list("runs"):
        if not path.endswith(".json"):
            continue
        try:
            record = json.loads(store.read(path))
        except (OSError, ValueError):
            continue
        if isinstance(record, dict):
            rows.append(_run_row(record, path.rsplit("/", 1)[-1].removesuffix(".json")))
    return pa.Table.from_pylist(rows, schema=_RUNS)


def _run_row(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    started, finished = _time(record.get("started")), _time(record.get("finished"))
    seconds = _number(record.get("seconds"))
    if seconds is None and started and finished:
        seconds = (finished - started).total_seconds()
    return {
        "run_id": str(record.get("run_id", name)),
        "started": started,
        "finished": finished,
        "status": None if record.get("status") is None else str(record["status"]),
        "seconds": seconds,
        "snapshot": _whole(record.get("snapshot")),
        "stages": _stage_rows(record.get("stages")),
        "error": None if record.get("error") is None else str(record["error"]),
        "record": json.dumps(record, ensure_ascii=False, sort_keys=True),
    }


def _stage_rows(value: Any) -> list[dict[str, Any]]:
    """Of `{stage: {...}}` or `[{"stage": ..., ...}]`."""
    if isinstance(value, Mapping):
        value = [{"stage": name, **(row if isinstance(row, Mapping) else {"rows": row})} for name, row in value.items()]
    if not isinstance(value, list):
        return []
    return [
        {
            "stage": str(row.get("stage", row.get("name"))),
            "rows": _whole(row.get("rows")),
            "failed": _whole(row.get("failed")),
            "seconds": _number(row.get("seconds")),
        }
        for row in value
        if isinstance(row, Mapping)
    ]


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _time(value: Any) -> datetime | None:
    """Of ISO 8601 text or seconds since 1970."""
    try:
        if isinstance(value, str):
            found = datetime.fromisoformat(value)
            return found if found.tzinfo else found.replace(tzinfo=UTC)
        return datetime.fromtimestamp(value, UTC) if _number(value) is not None else None
    except (ValueError, OverflowError, OSError):
        return None


# How answers are written


def _plain(value: Any) -> Any:
    """A value in JSON types; bytes as hexadecimal digits."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list):
        # Arrow gives a map as a list of pairs.
        if value and all(isinstance(item, tuple) and len(item) == 2 for item in value):
            return {str(key): _plain(item) for key, item in value}
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _write_csv(reader: pa.RecordBatchReader, file: Any) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(reader.schema.names)
    for batch in reader:
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            values = (_plain(value) for value in row)
            writer.writerow([json.dumps(v, ensure_ascii=False) if isinstance(v, list | dict) else v for v in values])


def _write_json(reader: pa.RecordBatchReader, file: Any) -> None:
    names, before = reader.schema.names, "[\n"
    for batch in reader:
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            file.write(before + json.dumps(dict(zip(names, map(_plain, row), strict=True)), ensure_ascii=False))
            before = ",\n"
    file.write("[]\n" if before == "[\n" else "\n]\n")


def _write_table(reader: pa.RecordBatchReader, file: Any) -> None:
    names = [_printable(name) for name in reader.schema.names]
    rows: list[list[str]] = []
    more = False
    for batch in reader:
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            if len(rows) == _ROWS_SHOWN:
                more = True
                break
            rows.append([_cell(value) for value in row])
        if more:
            break
    numeric = [pa.types.is_integer(f.type) or pa.types.is_floating(f.type) or pa.types.is_decimal(f.type) for f in reader.schema]
    widths = [max(map(_width, column)) for column in zip(names, *rows, strict=True)]
    for line in (names, ["-" * width for width in widths], *rows):
        cells = [
            " " * (width - _width(cell)) + cell if right else cell + " " * (width - _width(cell))
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ]
        file.write("  ".join(cells).rstrip() + "\n")
    if more:
        file.write(f"... more rows: a table shows {_ROWS_SHOWN}; the other formats show all\n")


def _cell(value: Any) -> str:
    if isinstance(value, bytes) and len(value) > 16:
        return f"<{len(value)} bytes>"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list) and len(value) > _LIST_SHOWN and not isinstance(value[0], tuple | dict):
        return f"[{', '.join(map(_cell, value[:_LIST_SHOWN]))}, ... {len(value)}]"
    if isinstance(value, list) and not any(isinstance(item, tuple | dict) for item in value):
        return f"[{', '.join(map(_cell, value))}]"
    plain = _plain(value)
    if isinstance(plain, list | dict):
        plain = json.dumps(plain, ensure_ascii=False)
    text = "" if plain is None else _printable(str(plain))
    return text if len(text) <= _TEXT_SHOWN else f"{text[: _TEXT_SHOWN - 3]}..."


def _printable(text: str) -> str:
    """Names from the web must not steer a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _width(text: str) -> int:
    """Columns on a terminal: East Asian wide characters take two, combining marks none."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len  # slow to import, and rarely needed

    return cell_len(text)


_WRITERS: dict[str, Callable[[pa.RecordBatchReader, Any], None]] = {"table": _write_table, "csv": _write_csv, "json": _write_json}
