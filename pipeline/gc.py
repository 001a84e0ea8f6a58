"""Garbage collection: delete what no kept snapshot needs.

Older snapshots are deleted first, and the files of tables that neither the newest nor a kept one
names: that takes no room, and makes some on a full disk. Then the newest snapshot is published anew
without what else is to go, in place of the old one, and what that alone named is deleted, snapshot
before files. So whatever interrupts it leaves files without a snapshot and never a snapshot that
shows files which are gone; collecting again goes on.

What is kept is counted in runs: a run publishes about five times, and nobody wants to go back to
its middle. Of each run the last snapshot stays.

A snapshot needs the files that it names, with one exception: of shards only those that it shows.
Replaced ones can be written again from the tables. What a killed crawl has fetched and no row of
the newest snapshot shows yet stays in the spool.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from idcluster.root.lease import Lease
from idcluster.root.parquet import read, read_entries, seal_stream
from idcluster.root.removals import check_finished
from idcluster.root.snapshot import (
    WHOLE,
    Entry,
    Snapshot,
    in_place,
    is_void,
    load,
    notes_of,
    numbers,
    path_of,
    replaced,
    run_of,
    without_stale,
)
from idcluster.root.spool_in_use import waited_for
from idcluster.root.storage import Store, is_full
from pipeline.shards.index import reindex
from pipeline.shards.writing import SHARD_TABLES
from schemas import TABLES
from schemas.samples import SAMPLES

_LOOK_SECONDS = 2.0  # between two looks at the lease while files are deleted


@dataclass(frozen=True)
class Collected:
    """What was deleted, or would be. `published` is the snapshot in place of the newest, if that
    named what was to go.

    `forgotten` counts the files that it no longer names, `left` the rows by table that images
    which are gone still have, `held` the files that only older kept snapshots name.
    """

    snapshots: list[int]
    files: list[str]
    bytes: int
    published: int | None = None
    forgotten: int = 0
    left: tuple[tuple[str, int], ...] = ()
    held: int = 0


def collect(
    store: Store,
    keep: int,
    run: str,
    dry: bool = False,
    current_only: bool = False,
    notice: Callable[[str], None] = lambda text: None,
) -> Collected:
    """Delete all snapshots but the last ones of the newest `keep` runs, and the files of tables,
    shards and parts that those do not need. (A rollback counts as a run.)

    `current_only` lets the newest snapshot forget all that it does not show: rows of earlier
    parameters, rows set aside and replaced shards. Nobody may write meanwhile: takes the lease
    (`notice` is told what it waits for), raises LeaseHeld.
    """
    if keep < 1:
        raise ValueError("keep at least one snapshot")
    with Lease(store, run, notice, frees=True) as lease:
        check_finished(store)
        there = numbers(store)
        newest = load(store)
        instead_of = replaced(newest.number, newest.notes)
        before = [number for number in there if number not in (*instead_of, newest.number)]
        older = [
            load(store, number, newest) for number in _last_of_runs(store, before, newest, keep - 1)
        ]
        entries = _trimmed(newest, older, current_only)
        thinned = _with_holes(entries) if current_only else []
        changed = bool(thinned) or len(entries) < len(newest.entries)
        shown = Snapshot(newest.number, entries, newest.notes)
        needed = {file for snapshot in older for file in _needed(snapshot)}
        mine = {*_needed(shown)} - {entry.file for entry in thinned}
        held = len(needed - mine)
        needed |= mine | waited_for(store, shown)
        doomed = [
            path
            for top in ("tables", "parts", "shards")
            for path in store.list(top)
            if path not in needed
        ]
        doomed = [
            path
            for path in doomed
            if not (path.startswith("shards/") and path.endswith((".json", "/README.md")))
        ]
        doomed += [path for path in store.list("snapshots") if path.endswith(".tmp")]
        sizes = {path: store.size(path) for path in doomed}
        stays = {snapshot.number for snapshot in older} | (
            {newest.number} if not changed else set()
        )
        dropped = [number for number in there if number not in stays]
        if not dry:

            def delete(paths: Iterable[str]) -> None:
                store.delete(
                    paths,
                    before=lambda: lease.check(
                        "nothing more was deleted. Collect again to go on", _LOOK_SECONDS
                    ),
                )

            # Shards are found by their indexes, which are put right below.
            at_once = {path for path in doomed if not path.startswith("shards/")}.difference(
                newest.files()
            )
            delete(path_of(number) for number in dropped if number != newest.number)
            delete(sorted(at_once))
            if changed:
                moved = _thinned(store, entries, thinned, notice)
                fresh = in_place(Snapshot(newest.number, moved, newest.notes), run)
                shown = lease.publish(fresh, "nothing more was deleted. Collect again to go on")
                named = {*_needed(shown)}
                doomed = [path for path in doomed if path not in named]
            reindex(store, shown)
            delete(path_of(number) for number in dropped if number == newest.number)
            delete(path for path in doomed if path not in at_once)
        return Collected(
            dropped,
            doomed,
            sum(sizes[path] for path in doomed),
            published=newest.number + 1 if changed else None,
            forgotten=len({*newest.files()} - {entry.file for entry in entries}),
            left=_left(store, shown) if current_only else (),
            held=held if current_only else 0,
        )


def _last_of_runs(store: Store, there: Sequence[int], newest: Snapshot, most: int) -> list[int]:
    """Of the snapshots `there`, those before one of the run of `newest`: the last of each run, at
    most so many runs, newest first.
    """
    found: list[int] = []
    run = run_of(newest.number, newest.notes)
    for number in reversed(there):
        if len(found) == most:
            break
        notes = notes_of(store, number)
        if is_void(number, notes, newest.notes):
            continue
        mine = run_of(number, notes)
        if mine is None or mine != run:
            found.append(number)
        run = mine
    return found


def _needed(snapshot: Snapshot) -> Iterator[str]:
    return (
        entry.file
        for entry in snapshot.entries
        if entry.file and (entry.current or entry.table not in SHARD_TABLES)
    )


def _trimmed(newest: Snapshot, older: Iterable[Snapshot], current_only: bool) -> tuple[Entry, ...]:
    if current_only:
        return without_stale(
            tuple(entry for entry in newest.entries if entry.current and entry.live)
        )
    shown = {
        entry.file
        for snapshot in older
        for table in SHARD_TABLES
        for entry in snapshot.shown(table)
    }
    return tuple(
        entry
        for entry in newest.entries
        if entry.table not in SHARD_TABLES or entry.current or entry.file in shown
    )


def _with_holes(entries: Iterable[Entry]) -> list[Entry]:
    """The entries that lie in files of several chunks with rows that no entry shows any more."""
    inside: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.file_rows:
            inside.setdefault(entry.file, []).append(entry)
    return [
        entry
        for found in inside.values()
        if sum(e.rows for e in found) < found[0].file_rows
        for entry in found
    ]


def _thinned(
    store: Store,
    entries: tuple[Entry, ...],
    thinned: Iterable[Entry],
    notice: Callable[[str], None],
) -> tuple[Entry, ...]:
    """`entries` with those of `thinned` in new files; on a full disk as they are."""
    try:
        return _without_holes(store, entries, thinned)
    except OSError as error:
        if not is_full(error):
            raise
    notice(
        f"{store.root}: no room to write files anew without rows that nobody shows; they stay as "
        "they are until the next gc"
    )
    return entries


def _without_holes(
    store: Store, entries: Iterable[Entry], thinned: Iterable[Entry]
) -> tuple[Entry, ...]:
    """`entries`, with those of `thinned` in new files that hold their rows alone."""
    moved: dict[Entry, Entry] = {}
    inside: dict[str, list[Entry]] = {}
    for entry in thinned:
        inside.setdefault(entry.file, []).append(entry)
    for found in inside.values():
        found.sort(key=lambda entry: entry.offset)
        table, offset = found[0].table, 0
        rows = (read_entries(store, table, [entry]) for entry in found)
        made = seal_stream(store, TABLES[table], found[0].version, found[0].bucket, WHOLE, rows)
        for entry in found:
            moved[entry] = replace(
                entry, file=made.path, offset=offset, file_rows=made.rows, file_bytes=made.bytes
            )
            offset += entry.rows
    return tuple(moved.get(entry, entry) for entry in entries)


def _left(store: Store, shown: Snapshot) -> tuple[tuple[str, int], ...]:
    """Rows by table, still shown, of images and people that are gone: of stages that the last run
    left out.
    """
    gone = {}
    for table, key in (("candidates", "image_id"), ("identities", "identity_id")):
        some = [entry for entry in shown.shown(table) if entry.ok != entry.rows]
        rows = read_entries(store, table, some, [key, "status"])
        gone[key] = rows[key].filter(pc.not_equal(rows["status"], "ok")).combine_chunks()
    if not any(map(len, gone.values())):
        return ()
    found = []
    for schema in (*TABLES.values(), SAMPLES):
        key = "image_id" if "image_id" in schema.names else "identity_id"
        if schema.name in ("candidates", "identities") or key not in schema.names:
            continue
        entries = shown.shown(schema.name)
        if schema is SAMPLES:
            rows = pa.concat_tables(
                [
                    SAMPLES.empty().select([key]),
                    *(read(store, SAMPLES, entry.file, [key]) for entry in entries),
                ]
            )
        else:
            rows = read_entries(store, schema.name, entries, [key])
        count = pc.sum(pc.is_in(rows[key], value_set=gone[key])).as_py() or 0
        if count:
            found.append((schema.name, count))
    return tuple(found)
