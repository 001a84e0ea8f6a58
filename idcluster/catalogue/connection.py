"""The dataset as SQL: one view a table over the files of one snapshot, in a DuckDB that can read
those files and nothing else.

DuckDB sees the dataset through a file system of its own, `dataset:///`, which is read-only and
knows only the files of the snapshot. So a query can neither write a file nor read one of the
machine, names with blanks, quotes or wildcards are only names, and a folder and an object store are
the same. (DuckDB's own `allowed_paths` lets COPY overwrite what it lists; measured on 300 files,
the detour costs 20 to 30 ms a query.)
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import duckdb
import numpy as np
import pyarrow as pa

from idcluster.catalogue.answers import Format, TextFormat, as_text, write
from idcluster.catalogue.snapshot_files import SCHEME, VERIFY, Blobs, Dataset, Shown, Verify
from idcluster.root.parquet import DamagedFile
from idcluster.root.records import runs_table
from idcluster.root.snapshot import Snapshot, load
from idcluster.root.storage import Store
from schemas import TABLES, TableSchema
from schemas.errors import UserError
from schemas.runs import RUNS
from schemas.samples import SAMPLES, WITHHELD
from schemas.snapshot_files import SNAPSHOT_FILES
from schemas.wording import near

_BLOB = "idcluster_blob"


class QueryError(UserError, ValueError):
    """A query failed; the message is one line and names what is near where a name does not
    exist.
    """

    exit_code = 2


def connect(
    root: str | Store, snapshot: int | Snapshot | None = None, verify: Verify = "crc"
) -> duckdb.DuckDBPyConnection:
    """A connection with a view for every table of `schemas.TABLES`, and `samples`, `withheld`,
    `snapshot_files` and `runs`.

    Views show the newest snapshot, or the one named; tables without rows are there and empty. Views
    and their columns carry the comments of the schema. The connection can be kept: it goes on
    showing the same snapshot. It works in memory, reads the snapshot's files alone, writes nothing
    and loads no extension.

    `verify` says how what a query reads is compared with what was written, once a process
    (`snapshot_files.Verify`). A query that meets a file which is not is a `duckdb.Error` whose text
    ends with what is wrong; see `damage`. Raises SnapshotError, DamagedFile and QueryError.
    """
    if verify not in VERIFY:
        raise QueryError(f"no way to verify {verify!r}; there are {', '.join(VERIFY)}")
    store = root if isinstance(root, Store) else Store(root)
    chosen = snapshot if isinstance(snapshot, Snapshot) else load(store, snapshot)
    shown = Shown(chosen.table)
    # Without a spill directory: DuckDB would let COPY write there.
    connection = duckdb.connect(config={"temp_directory": "", "python_enable_replacements": False})
    dataset = Dataset(store, shown, verify)
    connection.register_filesystem(dataset)
    blobs = Blobs(dataset)
    if shown.has_companions:
        # the module that has these as enumerations has moved between versions of DuckDB
        arrow: Any = "arrow"
        nulls: Any = "special"  # an image that failed is a null that the function gives
        connection.create_function(
            _BLOB, blobs, ["VARCHAR", "VARCHAR", "BIGINT"], "BLOB", type=arrow, null_handling=nulls
        )
    try:
        for schema in (*TABLES.values(), SAMPLES, WITHHELD):
            _create_view(connection, schema, shown, blobs)
    except duckdb.Error as error:
        found = damage(error)
        if found is None:
            raise
        raise found from None
    _create_table(connection, SNAPSHOT_FILES, chosen.table)
    _create_table(connection, RUNS, runs_table(store))
    for setting in (
        "enable_progress_bar = false",  # it would be printed into the answer
        f"allowed_directories = ['{SCHEME}:///']",
        "enable_external_access = false",
        "autoinstall_known_extensions = false",
        "autoload_known_extensions = false",
        "allow_community_extensions = false",
        "lock_configuration = true",
    ):
        connection.execute(f"SET {setting}")
    return connection


def query(
    root: str | Store,
    sql: str,
    format: Format = "table",
    output: str | None = None,
    snapshot: int | None = None,
    verify: Verify = "crc",
) -> str | None:
    """The answer to a query: as text, or None when it was written to the local file `output`.

    `table` is for reading: at most 1,000 rows, long lists and texts cut. The other formats are
    complete; `json` is one array with one object a line. Raises QueryError, SnapshotError and
    DamagedFile.
    """
    if format == "parquet" and output is None:
        raise QueryError("Parquet is not text: name a file for it (--output answer.parquet)")
    connection = connect(root, snapshot, verify)
    try:
        relation = connection.sql(sql)
        if relation is None:
            raise QueryError(
                "there is no statement in it; `SHOW TABLES` shows what there is to ask about"
            )
        reader: Any = relation.to_arrow_reader(10_000)
        if output is None:
            return as_text(reader, cast(TextFormat, format))
        write(reader, format, output)
        return None
    except duckdb.Error as error:
        raise damage(error) or QueryError(explain(connection, error)) from error
    except pa.ArrowException as error:  # what goes wrong while batches are drawn
        raise damage(error) or QueryError(" ".join(str(error).split())) from error
    except OSError as error:
        raise QueryError(f"cannot write {output}: {error.strerror or error}") from error
    finally:
        connection.close()


def damage(error: Exception) -> DamagedFile | None:
    """What a query met if that was a damaged file: DuckDB passes errors of what it reads from on as
    text.
    """
    if isinstance(error, DamagedFile):
        return error
    said = re.search(r"^(?:.*\b)?DamagedFile: (.+)$", str(error), re.MULTILINE)
    return DamagedFile(said[1]) if said else None


def explain(connection: duckdb.DuckDBPyConnection, error: duckdb.Error) -> str:
    """A DuckDB error in one line, with the nearest table of the dataset where a table does not
    exist.
    """
    said = str(error).partition("\n\nLINE ")[0]
    missing = re.search(r"Table with name (.+?) does not exist", said)
    if missing:
        rows = connection.execute("SELECT table_name FROM information_schema.tables").fetchall()
        names = sorted(row[0] for row in rows)
        close = near(missing[1], names)
        return f"no table {missing[1]!r}; " + (
            f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(names)}"
        )
    denied = re.search(r'Cannot access (?:file|directory) "(.*?)"', said)
    if denied:
        return (
            f"{denied[1]}: a query reads the tables of the dataset and no other file; "
            "--output writes its answer to a file"
        )
    return " ".join(re.sub(r"^[A-Z]\w+(?: \w+)? Error: ", "", said).split())


def _create_view(
    connection: duckdb.DuckDBPyConnection, schema: TableSchema, shown: Shown, blobs: Blobs
) -> None:
    """Files that an earlier version of the program wrote may lack columns: those are null."""
    companions = shown.companions(schema.name) if schema.blobs else {}
    for path, files in companions.values():
        blobs.add(schema, path, files)
    buckets = np.setdiff1d(shown.buckets(schema.name), list(companions)) if companions else None
    whole = [path for path, _ in companions.values()]
    versions: dict[tuple[bool, str], list[str]] = {}
    for light, places in ((True, whole), (False, shown.places(schema.name, buckets))):
        for place in places:
            versions.setdefault((light, _version(place)), []).append(place)
    types = connection.from_arrow(schema.empty()).types
    nulls = {
        name: f"NULL::{kind} AS {_quoted(name)}"
        for name, kind in zip(schema.names, types, strict=True)
    }

    def create(lacking: Mapping[tuple[bool, str], Collection[str]]) -> None:
        sources: list[str] = []
        for version, group in versions.items():
            without = lacking.get(version, ())
            columns = [
                null if name in without else f"t.{_quoted(name)}" for name, null in nulls.items()
            ]
            sources += (
                [_companions(schema, columns, group)]
                if version[0]
                else _sources(columns, group, _varies(schema))
            )
        source = " UNION ALL ".join(sources) or f"SELECT {', '.join(nulls.values())} WHERE false"
        connection.execute(f"CREATE VIEW {_quoted(schema.name)} AS {source}")

    try:
        create({})
    except duckdb.BinderException:
        # Only now are the files asked what they have: each look is a request to the store.
        found = {
            version: _columns(connection, group if _varies(schema) else group[:1], _varies(schema))
            for version, group in versions.items()
        }
        create(
            {
                version: set(schema.names) - columns - {*schema.blobs * version[0]}
                for version, columns in found.items()
            }
        )
    _comment(connection, "VIEW", schema)


def _comment(connection: duckdb.DuckDBPyConnection, kind: str, schema: TableSchema) -> None:
    connection.execute(
        f"COMMENT ON {kind} {_quoted(schema.name)} IS {_literal(schema.description)}"
    )
    for column in schema.columns:
        target = f"{_quoted(schema.name)}.{_quoted(column.name)}"
        connection.execute(f"COMMENT ON COLUMN {target} IS {_literal(column.description)}")


def _companions(schema: TableSchema, columns: Sequence[str], paths: Sequence[str]) -> str:
    """A SELECT of `columns` from companions, with the images from where they are."""
    picked = [
        f"{_BLOB}({_literal(name)}, t.filename, t.file_row_number) AS {_quoted(name)}"
        if name in schema.blobs
        else column
        for name, column in zip(schema.names, columns, strict=True)
    ]
    return (
        f"SELECT {', '.join(picked)} FROM "  # noqa: S608
        f"{_parquet(paths, 'filename = true', 'file_row_number = true')} "
        "t"
    )


_UNION = ("union_by_name = true",)


def _parquet(paths: Iterable[str], *options: str) -> str:
    names = ", ".join(_literal(f"{SCHEME}:///{path}") for path in paths)
    return f"read_parquet({', '.join((f'[{names}]', 'hive_partitioning = false', *options))})"


def _version(place: str) -> str:
    """What the files of a table are told apart by that may have other columns: the stage's version,
    or the folder of shards.
    """
    path, _, _ = place.partition("#")
    return next(
        (part for part in path.split("/") if part.startswith("v=")), path.rpartition("/")[0]
    )


def _varies(schema: TableSchema) -> bool:
    """Whether files of one folder may have other columns: those beside shards have late ones only
    where a sample has a value.
    """
    return schema is SAMPLES and any(column.late for column in schema.columns)


def _columns(
    connection: duckdb.DuckDBPyConnection, places: Iterable[str], vary: bool = False
) -> set[str]:
    paths = [place.partition("#")[0] for place in places]
    source = _parquet(paths, *_UNION[:vary])
    return {row[0] for row in connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()}  # noqa: S608


def _sources(columns: Sequence[str], shown: Sequence[str], vary: bool = False) -> Iterator[str]:
    """SELECTs of `columns`, each one of a table t or a null, from places."""
    whole = [place for place in shown if "#" not in place]
    if whole:
        yield f"SELECT {', '.join(columns)} FROM {_parquet(whole, *_UNION[:vary])} t"  # noqa: S608 - quoted there
    if len(whole) < len(shown):
        yield _stretches(columns, [place for place in shown if "#" in place])


def _stretches(columns: Sequence[str], shown: Iterable[str]) -> str:
    """Of files where only some rows are shown (of a chunk that was replaced the others are), those
    rows.
    """
    stretches = []
    for place in shown:
        path, _, stretch = place.partition("#")
        first, count = map(int, stretch.split("+"))
        stretches.append((path, first, first + count))
    values = ", ".join(
        f"({_literal(f'{SCHEME}:///{path}')}, {first}, {stop})" for path, first, stop in stretches
    )
    source = _parquet(
        dict.fromkeys(path for path, _, _ in stretches), "filename = true", "file_row_number = true"
    )
    on = "t.filename = s.path AND t.file_row_number >= s.first AND t.file_row_number < s.stop"
    return (
        f"SELECT {', '.join(columns)} FROM {source} t JOIN (VALUES {values}) s(path, "  # noqa: S608
        "first, "
        f"stop) ON {on}"
    )


def _create_table(
    connection: duckdb.DuckDBPyConnection, schema: TableSchema, table: pa.Table
) -> None:
    connection.register("arrow_input", table.select(schema.names))
    connection.execute(f"CREATE TABLE {_quoted(schema.name)} AS FROM arrow_input")
    connection.unregister("arrow_input")
    _comment(connection, "TABLE", schema)


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
