"""The files of all snapshots of a root: every row that there is or was, once, whichever of them
shows it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pyarrow as pa

from idcluster.root.parquet import DamagedFile, open_parquet
from idcluster.root.snapshot import Entry, genuine, load
from idcluster.root.storage import Store
from schemas import TABLES
from schemas.schema import LIGHT

T = TypeVar("T")


class Files:
    """Every file of tables that any snapshot names, once."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.newest = load(store)
        self.tables: dict[str, dict[str, Entry]] = {}
        for number in genuine(store, self.newest):
            snapshot = (
                self.newest if number == self.newest.number else load(store, number, self.newest)
            )
            for entry in snapshot.entries:
                if entry.file and entry.table in TABLES:
                    self.tables.setdefault(entry.table, {}).setdefault(entry.file, entry)

        self._instead: dict[str, tuple[set[str], list[Entry]]] = {}

    def of(self, table: str, buckets: Iterable[int] | None = None) -> list[Entry]:
        """The files to look at for the columns of a table that are no images: the companion of a
        finished bucket in place of the files that it stands for.
        """
        inside = None if buckets is None else set(buckets)
        if table not in self._instead:
            companions = {
                (e.version, e.bucket): e
                for e in self.newest.entries
                if e.table == f"{table}{LIGHT}" and e.current and e.file
            }
            covered = {
                e.file for e in self.newest.shown(table) if (e.version, e.bucket) in companions
            }
            self._instead[table] = covered, list(companions.values())
        covered, companions_of = self._instead[table]
        found = [
            *companions_of,
            *(entry for entry in self.tables.get(table, {}).values() if entry.file not in covered),
        ]
        return [entry for entry in found if inside is None or entry.bucket in inside]

    def each(
        self,
        table: str,
        columns: Sequence[str],
        look: Callable[[Entry, pa.Table], T],
        buckets: Iterable[int] | None = None,
    ) -> Iterator[T]:
        """What `look` makes of the columns of each file, a few files at a time; a column that a
        file lacks is null.
        """
        with ThreadPoolExecutor(4 if self.store.local else 16) as pool:
            yield from pool.map(
                lambda entry: look(entry, self.read(table, entry, columns)), self.of(table, buckets)
            )

    def read(self, table: str, entry: Entry, columns: Sequence[str]) -> pa.Table:
        schema = TABLES[table]

        def attempt() -> pa.Table:
            with open_parquet(self.store, schema, entry.file) as file:
                there = file.read([name for name in columns if name in file.schema_arrow.names])
            missing = [name for name in columns if name not in there.column_names]
            for name in missing:
                there = there.append_column(
                    name, pa.nulls(there.num_rows, schema.arrow.field(name).type)
                )
            return there.select(list(columns))

        try:
            return self.store.patiently(attempt)
        except FileNotFoundError:
            # A snapshot whose files are gone can be shown by nobody: nothing of it is left.
            return schema.empty().select(list(columns))
        except pa.ArrowException as error:
            raise DamagedFile(
                f"{self.store.uri(entry.file)} cannot be read ({error}); bring it back from a "
                "copy, or delete it"
            ) from error
