"""Sealing: from what was there and what was just computed to the files of a scope.

The rows that are wanted go into the live file of their chunk, the rows that no longer are into a
second one, where a switch back finds them. Old images are not kept: whoever replaces a photograph
has replaced it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from idcluster.root.parquet import (
    NOTHING,
    SLICE_ROWS,
    Sealed,
    open_parquet,
    read,
    seal_stream,
    seal_table,
)
from idcluster.root.snapshot import WHOLE, Entry
from idcluster.root.storage import Store
from pipeline.execution.reconcile import ordered, reconcile
from pipeline.execution.snapshot_tables import Scope, SnapshotTables, is_chunked
from schemas import TableSchema
from stages.stage import Stage


def seal(view: SnapshotTables, stage: Stage, scope: Scope, parts: Sequence[str]) -> list[Entry]:
    """The entries that a snapshot is to have for the stage in the scope, or none if nothing
    changes.

    `parts` are paths of new parts, oldest first. Files are written, nothing is published; `view`
    shows the result.
    """
    complete = view.complete(stage, scope)
    if complete is not None and not parts:
        view.settle(complete)
        return (
            [] if all(entry.current for entry in complete) else _shown_again(view, stage, complete)
        )
    basis = view.basis(stage, scope)
    if basis is None:
        return []  # what it reads was never computed: there is nothing to want yet
    schema = stage.writes
    paths = [*view.pool(stage, scope), *parts]
    pool = [read(view.store, schema, path) for path in paths]
    found = reconcile(stage, view.tables(stage, scope), pool)
    everything = pa.concat_tables([schema.empty().select(schema.light), *pool])
    starts = np.cumsum([0, *(table.num_rows for table in pool)])
    pick = _Pick(view.store, schema, paths, everything, starts)
    live = _flat(found.live, starts)
    order = ordered(
        stage, found.wanted, everything.take(pa.array(live)).append_column("_row", pa.array(live))
    )
    live = order["_row"].to_numpy()
    stale = np.empty(0, np.int64) if schema.name == "images" else _flat(found.stale, starts)
    ready = basis if len(found.missing) == 0 else ""
    version = view.versions[stage.name]
    entries = []
    for (bucket, chunk), rows, old in _by_chunk(view, schema, scope, everything, live, stale):
        entries.append(
            pick.seal(version, bucket, chunk, rows).entry(schema, version, bucket, chunk, ready)
        )
        kept = pick.seal(version, bucket, chunk, old)
        if kept.rows:
            entries.append(kept.entry(schema, version, bucket, chunk, "", live=False))
    view.settle(entry for entry in entries if entry.live)
    return entries


def _shown_again(view: SnapshotTables, stage: Stage, live: Sequence[Entry]) -> list[Entry]:
    """The entries of a version that was shown before: nothing is written."""
    version = view.versions[stage.name]
    beside = [
        e for entry in live for e in view.snapshot.of(*entry.scope, version=version) if not e.live
    ]
    return [*(replace(entry, current=True) for entry in live), *beside]


def _flat(indices: Sequence[np.ndarray], starts: np.ndarray) -> np.ndarray:
    return np.concatenate(
        [
            np.empty(0, np.int64),
            *(rows + start for rows, start in zip(indices, starts, strict=False)),
        ]
    )


def _by_chunk(
    view: SnapshotTables,
    schema: TableSchema,
    scope: Scope,
    everything: pa.Table,
    live: np.ndarray,
    stale: np.ndarray,
) -> Iterator[tuple[Scope, np.ndarray, np.ndarray]]:
    bucket, chunk = scope
    if chunk != WHOLE or not is_chunked(schema.name):
        yield scope, live, stale
        return
    chunk_of = view.chunk_of(bucket)
    at = np.array([chunk_of[image] for image in everything["image_id"].to_pylist()], np.int64)
    for number in view.chunks(bucket):
        yield (bucket, number), live[at[live] == number], stale[at[stale] == number]


class _Pick:
    """Chosen rows of several files of a table, as new files."""

    def __init__(
        self,
        store: Store,
        schema: TableSchema,
        paths: Sequence[str],
        light: pa.Table,
        starts: np.ndarray,
    ) -> None:
        self.store, self.schema, self.paths, self.light, self.starts = (
            store,
            schema,
            paths,
            light,
            starts,
        )
        self._ends: dict[int, np.ndarray] = {}

    def seal(self, version: str, bucket: int, chunk: int, rows: np.ndarray) -> Sealed:
        if not len(rows):
            return NOTHING
        if not self.schema.blobs:
            return seal_table(
                self.store, self.schema, version, bucket, chunk, self.light.take(pa.array(rows))
            )
        return seal_stream(self.store, self.schema, version, bucket, chunk, self._blocks(rows))

    def _blocks(self, rows: np.ndarray) -> Iterator[pa.Table]:
        group = lru_cache(maxsize=4)(self._group)
        for start in range(0, len(rows), SLICE_ROWS):
            block = rows[start : start + SLICE_ROWS]
            pieces = []
            # Neighbouring rows mostly come from one row group of one file: read each run of them at
            # once.
            located = [self._locate(int(row)) for row in block]
            first = 0
            for i in range(1, len(located) + 1):
                if i == len(located) or located[i][:2] != located[first][:2]:
                    number, row_group, _ = located[first]
                    offsets = [offset for _, _, offset in located[first:i]]
                    rows_there = group(number, row_group)
                    whole = offsets == list(
                        range(rows_there.num_rows)
                    )  # mostly: then nothing is copied
                    pieces.append(rows_there if whole else rows_there.take(pa.array(offsets)))
                    first = i
            yield pa.concat_tables(pieces).select(self.schema.names)

    def _locate(self, row: int) -> tuple[int, int, int]:
        """File number, row group and place in it of a row of all files together."""
        number = int(np.searchsorted(self.starts, row, side="right")) - 1
        ends = self._row_groups(number)
        offset = row - int(self.starts[number])
        row_group = int(np.searchsorted(ends, offset, side="right"))
        return number, row_group, offset - (int(ends[row_group - 1]) if row_group else 0)

    def _row_groups(self, number: int) -> np.ndarray:
        if number not in self._ends:
            self._ends[number] = self.store.patiently(lambda: self._sizes(number)).cumsum()
        return self._ends[number]

    def _sizes(self, number: int) -> np.ndarray:
        with self._open(number) as file:
            return np.array(
                [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
            )

    def _group(self, number: int, row_group: int) -> pa.Table:
        def attempt() -> pa.Table:
            with self._open(number) as file:
                return file.read_row_group(row_group, list(self.schema.names))

        return self.store.patiently(attempt)

    def _open(self, number: int) -> pq.ParquetFile:
        return open_parquet(self.store, self.schema, self.paths[number])
