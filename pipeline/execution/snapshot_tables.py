"""What the tables show, chunk by chunk: what plan, seal and shards stand on.

A **scope** of a stage is what it is complete or incomplete for: a chunk at slice grain, a bucket at
bucket grain.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import groupby

import pyarrow as pa
import pyarrow.compute as pc

from idcluster.root.parquet import places, read_entries
from idcluster.root.snapshot import WHOLE, Entry, Snapshot
from idcluster.root.storage import Store
from pipeline.execution.reconcile import by_hand
from schemas import TABLES
from stages.stage import Stage

Scope = tuple[int, int]
"""Bucket and chunk; chunk WHOLE for a bucket."""


@cache
def is_chunked(table: str) -> bool:
    """Whether a table is divided into chunks; tables of people have one file a bucket."""
    return table != "identities" and "image_id" in TABLES[table].names


class SnapshotTables:
    """The tables of one snapshot as the wanted versions show them.

    Planning walks down the stages and lays what *would* be shown over what is: `assume` replaces
    the rows of a table in a chunk for everything that reads it afterwards.
    """

    def __init__(self, store: Store, snapshot: Snapshot, versions: Mapping[str, str]) -> None:
        self.store, self.snapshot, self.versions = store, snapshot, versions
        self._chunks: dict[int, list[int]] = {}
        for bucket, chunk in snapshot.chunks("candidates"):
            self._chunks.setdefault(bucket, []).append(chunk)
        self._assumed: dict[tuple[str, int, int], pa.Table] = {}
        self._shown: dict[tuple[str, int, int], Entry] = {}

    @property
    def buckets(self) -> list[int]:
        return sorted(self._chunks)

    def chunks(self, bucket: int) -> list[int]:
        return self._chunks[bucket]

    def scopes(self, stage: Stage, bucket: int) -> list[Scope]:
        return (
            [(bucket, WHOLE)]
            if stage.grain != "slice"
            else [(bucket, chunk) for chunk in self.chunks(bucket)]
        )

    def parts_of(self, table: str, scope: Scope) -> list[Scope]:
        """Where the rows of a table for a scope are: its chunks, or the bucket's one file."""
        bucket, chunk = scope
        if not is_chunked(table):
            return [(bucket, WHOLE)]
        return [(bucket, c) for c in self.chunks(bucket)] if chunk == WHOLE else [scope]

    def shown_at(self, table: str, at: Scope) -> Entry | None:
        return self._shown.get((table, *at)) or self.snapshot.shown_at(table, *at)

    def files(self, table: str, scope: Scope) -> list[str]:
        """Where what the table shows in the scope lies: places for `files.read`."""
        entries = (self.shown_at(table, at) for at in self.parts_of(table, scope))
        return places(entry for entry in entries if entry is not None)

    def pool(self, stage: Stage, scope: Scope) -> list[str]:
        """Where all rows of the stage's table in the scope in the wanted version lie: rows no
        longer wanted first.
        """
        table = stage.writes.name
        found = [
            e
            for at in self.parts_of(table, scope)
            for e in self.snapshot.of(table, *at, version=self.versions[stage.name])
        ]
        return places(sorted(found, key=lambda entry: (entry.live, entry.chunk)))

    def basis(self, stage: Stage, scope: Scope) -> str | None:
        """The hash of all that the wanted rows of a scope follow from; None where that is not all
        sealed yet.
        """
        hasher = hashlib.blake2b(self.versions[stage.name].encode(), digest_size=8)
        for table in self.tables_of(stage):
            for at in self.parts_of(table, scope):
                entry = self.shown_at(table, at)
                if entry is None and by_hand(table) and table in stage.optional:
                    continue
                if entry is None or (table, *at) in self._assumed:
                    return None
                hasher.update(f"{table} {at[1]} {entry.digest};".encode())
        return hasher.hexdigest()

    def complete(self, stage: Stage, scope: Scope) -> list[Entry] | None:
        """The live entries of the stage in the scope if they are all that is wanted, else None."""
        basis = self.basis(stage, scope)
        if basis is None:
            return None
        table, version = stage.writes.name, self.versions[stage.name]
        entries = []
        for at in self.parts_of(table, scope):
            live = next((e for e in self.snapshot.of(table, *at, version=version) if e.live), None)
            if live is None or live.basis != basis:
                return None
            entries.append(live)
        return entries

    def settle(self, entries: Iterable[Entry]) -> None:
        """Read these entries from now on, whatever the snapshot shows in their place."""
        for entry in entries:
            self._shown[entry.scope] = entry

    def assume(self, table: str, at: Scope, rows: pa.Table) -> None:
        self._assumed[(table, *at)] = rows

    def is_bare(self, table: str, scope: Scope) -> bool:
        """Whether a table is assumed to show nothing in a scope."""
        assumed = [self._assumed.get((table, *at)) for at in self.parts_of(table, scope)]
        return bool(assumed) and all(rows is not None and not rows.num_rows for rows in assumed)

    def forget(self, bucket: int) -> None:
        """Drop what was assumed of a bucket."""
        self._assumed = {key: rows for key, rows in self._assumed.items() if key[1] != bucket}

    def table(self, table: str, scope: Scope, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows that a table shows in a scope: its light columns or `columns`."""
        schema = TABLES[table]
        names = list(schema.light if columns is None else columns)
        found = [schema.bare if columns is None else schema.empty().select(names)]
        parts = self.parts_of(table, scope)
        # Entries between two assumed chunks are read together: they may be one stretch of one file.
        for assumes, stretch in groupby(parts, key=lambda at: (table, *at) in self._assumed):
            if assumes:
                found += [self._assumed[(table, *at)].select(names) for at in stretch]
            else:
                entries = (self.shown_at(table, at) for at in stretch)
                found.append(
                    read_entries(
                        self.store, table, [entry for entry in entries if entry is not None], names
                    )
                )
        return pa.concat_tables(found)

    def ok(self, table: str, scope: Scope) -> int:
        """How many rows of status ok a table shows in a scope, without reading it unless it is
        assumed.
        """
        total = 0
        for at in self.parts_of(table, scope):
            assumed = self._assumed.get((table, *at))
            entry = self.shown_at(table, at)
            if assumed is not None:
                total += pc.sum(pc.equal(assumed["status"], "ok")).as_py() or 0
            elif entry is not None:
                total += entry.ok
        return total

    def rows(self, table: str, scope: Scope) -> int:
        """How many rows a table shows in a scope, without reading it."""
        total = 0
        for at in self.parts_of(table, scope):
            assumed, entry = self._assumed.get((table, *at)), self.shown_at(table, at)
            total += (
                assumed.num_rows if assumed is not None else entry.rows if entry is not None else 0
            )
        return total

    def tables(self, stage: Stage, scope: Scope) -> dict[str, pa.Table]:
        """Everything that the stage reads in a scope."""
        return {table: self.table(table, scope) for table in self.tables_of(stage)}

    def tables_of(self, stage: Stage) -> list[str]:
        """The tables that a stage looks at in this DAG, the parent first: optional ones only if
        they can be there.
        """
        named = dict.fromkeys((stage.parent, *stage.reads, *stage.selects))
        written = {table for table in named if TABLES[table].written_by in self.versions}
        return [
            table
            for table in named
            if table not in stage.optional or table in written or by_hand(table)
        ]

    def chunk_of(self, bucket: int) -> dict[str, int]:
        """Image id to chunk, for all images of a bucket."""
        return {
            image: chunk
            for chunk in self.chunks(bucket)
            for image in self.table("candidates", (bucket, chunk), ["image_id"])[
                "image_id"
            ].to_pylist()
        }
