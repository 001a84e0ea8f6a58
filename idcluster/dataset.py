"""A dataset as people use it: questions in SQL, tables, samples, numbers. Reads one snapshot and
writes nothing.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from idcluster.catalogue.connection import QueryError, connect, damage, explain
from idcluster.catalogue.snapshot_files import Verify
from idcluster.catalogue.statistics import compute
from idcluster.root.dataset_root import open_root
from idcluster.root.snapshot import load
from idcluster.shards import Sample, ShardSet, only_profile, shards_of
from schemas.views import VIEWS
from schemas.wording import counted, near

_PEOPLE = """
    SELECT i.identity_id, coalesce(m.same_as, i.identity_id) AS canonical_id, i.name, i.aliases,
        i.external_ids, p.images, p.faces, p.kept, p.duplicates, p.flags
    FROM identities i LEFT JOIN people p USING (identity_id) LEFT JOIN matches m USING (identity_id)
    ORDER BY lower(i.name), i.identity_id"""


class Dataset:
    """A dataset at one snapshot. It goes on showing that one, whatever is run meanwhile; open it
    again to see more.

    Use it as a context, or leave it to be closed with the process. Its connection to DuckDB is made
    when it is first needed, reads the files of the snapshot alone and writes nothing.
    """

    def __init__(
        self, root: str | Path, snapshot: int | None = None, verify: Verify = "crc"
    ) -> None:
        """`verify`: how what is read is compared with what was written: `crc`, `digest` (whole
        files) or `none`.

        Raises RunError where there is no dataset, SnapshotError where there is no such snapshot.
        """
        self._store = open_root(Path(root).as_posix() if isinstance(root, Path) else root)
        self._shown = load(self._store, snapshot)
        self._verify: Verify = verify
        self._connection: duckdb.DuckDBPyConnection | None = None

    @property
    def root(self) -> str:
        """Where it lies: a folder, or an address in an object store."""
        return self._store.root

    @property
    def snapshot(self) -> int:
        """The number of the snapshot that is shown; 0 before the first."""
        return self._shown.number

    @property
    def tables(self) -> dict[str, int]:
        """Rows by table, of tables that have any."""
        entries = self._shown.table
        shown = entries.filter(pc.and_(entries["current"], entries["live"]))
        rows = shown.group_by("table").aggregate([("rows", "sum")]).to_pylist()
        found = {row["table"]: row["rows_sum"] for row in rows}
        return {name: found[name] for name in VIEWS if found.get(name)}

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """The connection that `sql` asks: one view a table, with the comments of the schema."""
        if self._connection is None:
            self._connection = connect(self._store, self._shown.number, self._verify)
        return self._connection

    def sql(
        self, query: str, parameters: Sequence[Any] | dict[str, Any] | None = None
    ) -> duckdb.DuckDBPyRelation:
        """The answer to a question in SQL, as a relation of DuckDB: `.fetchall()`,
        `.to_arrow_table()`, `.df()`.

        `dataset.sql("SELECT name, count(*) FROM samples GROUP BY ALL")`. `idcluster schema` lists
        tables and columns. Raises QueryError for what is no question about them, and DamagedFile.
        """
        try:
            relation = self.connection.sql(query, params=parameters)
        except duckdb.Error as error:
            raise damage(error) or QueryError(explain(self.connection, error)) from error
        if relation is None:
            raise QueryError(
                "there is no question in it; `SHOW TABLES` shows what there is to ask about"
            )
        return relation

    def table(
        self, name: str, columns: Iterable[str] | None = None, where: str | None = None
    ) -> pa.Table:
        """A table in memory: all its columns but images, or `columns`; rows for which the SQL
        condition `where` holds.

        Raises QueryError for a table or column that does not exist.
        """
        if name not in VIEWS:
            close = near(name, VIEWS)
            raise QueryError(
                f"no table {name!r}; "
                + (f"did you mean {close[0]!r}?" if close else f"there are {', '.join(VIEWS)}")
            )
        schema = VIEWS[name]
        chosen = list(schema.light if columns is None else columns)
        strange = next((one for one in chosen if one not in schema.names), None)
        if strange is not None:
            close = near(strange, schema.names)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise QueryError(f"table {name!r} has no column {strange!r}{hint}")
        picked = ", ".join(f'"{one}"' for one in chosen)
        condition = "" if where is None else f" WHERE {where}"
        found: pa.Table = self.sql(f'SELECT {picked} FROM "{name}"{condition}').to_arrow_table()  # noqa: S608 - names of the schema; the rest is the user's own
        return found

    @property
    def people(self) -> pa.Table:
        """Everybody, by name: identity_id, canonical_id (after merging), names, ids, counts and
        flags of cleaning.
        """
        found: pa.Table = self.sql(_PEOPLE).to_arrow_table()
        return found

    def stats(self, *names: str) -> dict[str, pa.Table]:
        """Numbers about the dataset by name, all or those named: funnel, reasons, licences, ...
        Raises QueryError.
        """
        return compute(self.connection, names)

    @property
    def profiles(self) -> list[str]:
        """The sets of shards that the snapshot shows."""
        files = self._shown.table.filter(self._shown.table["live"])
        shown = files.filter(files["current"]).select(["table", "file"]).to_pylist()
        return sorted({row["file"].split("/")[1] for row in shown if row["table"] == "shards"})

    def shards(self, profile: str | None = None, verify: bool = True) -> ShardSet:
        """The set of shards of a profile, as the snapshot shows it. Raises NoShards."""
        chosen = only_profile(self.root, self.profiles, profile)
        about = {"name": chosen, **dict(self._shown.notes.get(f"index/{chosen}", {}))}
        return ShardSet(
            self._store, f"shards/{chosen}", shards_of(chosen, self._shown.table), about, verify
        )

    def samples(
        self,
        profile: str | None = None,
        split: str | None = None,
        people: Collection[str] | None = None,
    ) -> Iterator[Sample]:
        """Samples of a profile with their images, grouped by person: of all splits or of one, of
        all people or of some.

        `dataset.samples("flashface", "train")`. Raises NoShards and DamagedShard.
        """
        return self.shards(profile).samples(split, people)

    def close(self) -> None:
        """Close the connection; the dataset can be used again all the same."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> "Dataset":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        rows = self.tables
        told = ", ".join(
            counted(rows[table], word)
            for table, word in (
                ("identities", "person"),
                ("images", "image"),
                ("faces", "face"),
                ("samples", "sample"),
            )
            if table in rows
        )
        return f"Dataset({self.root!r}, snapshot {self.snapshot}: {told or 'empty'})"
