"""Looking at all of a dataset root: what is not there, not whole, or does not fit together.

Everything that a kept snapshot names is read and compared with its SHA-256; with `deep` it is
decoded too, rows are counted, photographs compared with their hashes, companions with what they
stand for, and shards checked member by member.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from idcluster.root import lease, spool
from idcluster.root.dataset_root import RunError
from idcluster.root.intact import digest_of, named_digest
from idcluster.root.parquet import open_parquet
from idcluster.root.removals import FOLDER as RECEIPTS
from idcluster.root.removals import UNFINISHED, load_bars
from idcluster.root.snapshot import (
    SHARD_TABLES,
    Entry,
    Snapshot,
    SnapshotError,
    VoidSnapshot,
    load,
    numbers,
    path_of,
)
from idcluster.root.storage import Store
from pipeline.check.contents import companion_fault, rows_fault
from pipeline.check.read_before import HOURS, Fine
from pipeline.shards.check import CheckError, check_set
from pipeline.shards.index import reindex
from schemas import TABLES, SchemaError
from schemas.schema import LIGHT
from schemas.wording import counted, verb

Kind = Literal["snapshot", "file", "index", "part", "spool", "receipt", "record"]
_READERS = 4
_READERS_OF_STORE = 16
BY_HAND = ("identities", "candidates", "overrides", "removals")
"""Tables that no stage computes: places once given, and what people decided."""


@dataclass(frozen=True)
class Fault:
    """Something that is wrong with a file, and what to do about it."""

    path: str
    what: str
    remedy: str
    kind: Kind

    def __str__(self) -> str:
        return f"{self.path}: {self.what}; {self.remedy}"


@dataclass
class Checked:
    """What was looked at and what is wrong."""

    newest: Snapshot | None = None
    kept: dict[int, Snapshot] = field(default_factory=dict)
    """Every snapshot that can be read, by number."""
    files: int = 0
    bytes: int = 0
    not_again: int = 0
    """Files that an earlier check has read and that were not read again."""
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


Told = Callable[[int, int, int, int], None]
"""Files done and to do, bytes done and to do."""


def look(
    store: Store, deep: bool = False, again: bool = False, told: Told = lambda *_: None
) -> Checked:
    """Check a root. `again` reads again what a check of the last hours has found whole. Writes
    nothing but what was found whole (`pipeline.check.read_before`). Raises what the store raises.
    """
    found = Checked()
    marks = store.marks("")
    _snapshots(store, found)
    fine = Fine(store, deep, again)
    _files(store, found, marks, fine, told)
    if found.newest is not None:
        _companions(store, found, deep)
        _sets(store, found, marks, fine)
    _beside(store, found, marks)
    found.faults.sort(key=lambda fault: fault.path)
    return found


# Snapshots and what they name


def _snapshots(store: Store, found: Checked) -> None:
    there = numbers(store)
    for number in there:
        try:
            found.kept[number] = load(store, number)
        except VoidSnapshot as error:
            found.notes.append(_line(error))  # it is none, and nothing shows it
        except SnapshotError as error:
            last = number == there[-1]
            remedy = (
                "bring it back from a copy, or delete it and run again to go on from the one "
                "before, without what was decided since"
                if last
                else "it cannot be gone back to: `idcluster check --repair` deletes it"
            )
            found.faults.append(
                Fault(path_of(number), f"is damaged ({_line(error)})", remedy, "snapshot")
            )
    if there and there[-1] in found.kept:
        found.newest = found.kept[there[-1]]
        for table, version in sorted(
            {(e.table, e.version) for e in found.newest.entries if e.current and e.table in TABLES}
        ):
            known = found.newest.notes.get("versions", {})
            if (
                known
                and TABLES[table].written_by not in ("crawl", "correct", "forget")
                and f"{table}/{version}" not in known
            ):
                found.notes.append(
                    f"snapshot {there[-1]} does not say what version {version} of {table} is"
                )


def needed(snapshot: Snapshot) -> Iterator[Entry]:
    """The entries whose files have to be there: of shards those that are shown, as others can be
    written again.
    """
    return (
        entry
        for entry in snapshot.entries
        if entry.file and (entry.current or entry.table not in SHARD_TABLES)
    )


def _files(
    store: Store, found: Checked, marks: Mapping[str, tuple[int, str]], fine: Fine, told: Told
) -> None:
    wanted: dict[str, list[Entry]] = {}
    for number in sorted(found.kept, reverse=True):
        for entry in needed(found.kept[number]):
            entries = wanted.setdefault(entry.file, [])
            if entry not in entries[-1:]:
                entries.append(entry)
    newest = set(found.newest.files()) if found.newest else set()
    todo: list[str] = []
    for path, entries in sorted(wanted.items()):
        size = entries[0].file_bytes or entries[0].bytes
        if path not in marks:
            found.faults.append(
                Fault(path, "is not there", _remedy(found, path, entries, newest), "file")
            )
        elif marks[path][0] != size:
            found.faults.append(
                Fault(
                    path,
                    f"has {marks[path][0]} bytes, not {size}",
                    _remedy(found, path, entries, newest),
                    "file",
                )
            )
        elif fine.knows(path, *marks[path]):
            found.not_again += 1
        else:
            todo.append(path)
    total = sum(marks[path][0] for path in todo)

    def one(path: str) -> tuple[str, str | None]:
        return path, _file_fault(store, path, wanted[path], fine.deep)

    pool = ThreadPoolExecutor(_READERS if store.local else _READERS_OF_STORE)
    try:
        for path, what in pool.map(one, todo):
            found.files += 1
            found.bytes += marks[path][0]
            if what is None:
                fine.add(path, *marks[path])
            else:
                found.faults.append(
                    Fault(path, what, _remedy(found, path, wanted[path], newest), "file")
                )
            told(found.files, len(todo), found.bytes, total)
    finally:
        # Whoever breaks it off does not wait for what was not begun.
        pool.shutdown(cancel_futures=True)
        if todo:
            fine.save()
    if found.not_again:
        said = (
            f"{counted(found.not_again, 'file')} {verb(found.not_again, 'was', 'were')} found "
            f"whole within the last {HOURS:g} hours"
        )
        found.notes.append(f"{said} and not read again (--again reads them)")
    if not fine.kept:
        found.notes.append(
            "what was read could not be written down in the root: the next check reads all of it "
            "again"
        )


def _file_fault(store: Store, path: str, entries: list[Entry], deep: bool) -> str | None:
    """What is wrong with a file of the right size."""
    digest = next((entry.digest for entry in entries if not entry.file_rows), named_digest(path))
    try:
        sha256 = digest_of(store, path)[1]
    except FileNotFoundError:
        return "is not there"
    except OSError as error:
        return f"cannot be read ({_line(error)})"
    if not sha256.startswith(digest):
        return f"its SHA-256 is {sha256[: len(digest)]}, not {digest}"
    if path.endswith(".parquet"):
        try:
            return rows_fault(store, path, entries, deep)
        except (pa.ArrowException, SchemaError, OSError) as error:
            return f"cannot be read ({_line(error)})"
    return None


def _remedy(found: Checked, path: str, entries: list[Entry], newest: set[str]) -> str:
    mine = [entry for entry in entries if entry.file == path]
    shown = found.newest is not None and any(
        e.file == path and e.current and e.live for e in found.newest.entries
    )
    if path not in newest:
        return (
            "only older snapshots name it: bring it back from a copy, or `idcluster gc --keep "
            "1` does without them"
        )
    if mine[0].table in BY_HAND and shown:
        return (
            f"nothing computes {mine[0].table}: bring it back from a copy, or go back to a "
            "snapshot without it (`idcluster rollback`)"
        )
    if mine[0].table == "images":
        return "`idcluster check --repair`, then a run fetches its images again"
    return "`idcluster check --repair`, then a run computes it again"


# What belongs together


def _companions(store: Store, found: Checked, deep: bool) -> None:
    snapshot = found.newest
    damaged = {fault.path for fault in found.faults}
    for entry in snapshot.entries if snapshot else ():
        if (
            snapshot is None
            or not (entry.table.endswith(LIGHT) and entry.current and entry.live)
            or entry.file in damaged
        ):
            continue
        what = companion_fault(store, snapshot, entry, damaged, deep)
        if what is not None:
            found.faults.append(
                Fault(entry.file, what, "`idcluster check --repair` makes it anew", "file")
            )


def _sets(store: Store, found: Checked, marks: Mapping[str, tuple[int, str]], fine: Fine) -> None:
    snapshot = found.newest
    if snapshot is None:
        return
    damaged = {fault.path for fault in found.faults}
    shown = [
        entry
        for entry in snapshot.entries
        if entry.table in SHARD_TABLES and entry.current and entry.live
    ]
    rows = {entry.file: entry for entry in shown}
    for entry in (entry for entry in shown if entry.table == "shards"):
        beside = rows.get(entry.file.removesuffix(".tar") + ".parquet")
        if beside is None or beside.rows != entry.rows:
            what = (
                "has no file of rows beside it"
                if beside is None
                else f"has {entry.rows} samples, the file beside it {beside.rows}"
            )
            found.faults.append(
                Fault(
                    entry.file,
                    what,
                    "`idcluster check --repair`, then a run writes it again",
                    "file",
                )
            )
    profiles = sorted({entry.file.split("/")[1] for entry in shown if entry.table == "shards"})
    if not any(path.startswith("shards/") for path in damaged):
        for profile in reindex(store, snapshot, write=False):
            what = (
                "does not list the shards that the snapshot shows, or files beside it are not "
                "what they are to be"
            )
            found.faults.append(
                Fault(
                    f"shards/{profile}/index.json",
                    what,
                    "`idcluster check --repair` puts it again",
                    "index",
                )
            )
            profiles = [name for name in profiles if name != profile]
    for profile in profiles:
        if f"index/{profile}" not in snapshot.notes:
            found.faults.append(
                Fault(
                    f"shards/{profile}/index.json",
                    "the snapshot does not say how the set was made",
                    "run with its DAG again",
                    "index",
                )
            )
        if fine.deep:
            _deep_set(store, found, f"shards/{profile}", damaged, marks, fine)


def _deep_set(
    store: Store,
    found: Checked,
    folder: str,
    damaged: set[str],
    marks: Mapping[str, tuple[int, str]],
    fine: Fine,
) -> None:
    mine = sorted((path, *mark) for path, mark in marks.items() if path.startswith(f"{folder}/"))
    state = sum(size for _, size, _ in mine), hashlib.sha256(repr(mine).encode()).hexdigest()
    if fine.knows(folder, *state):
        return
    try:
        checked = check_set(store, folder)
    except CheckError as error:
        found.faults.append(
            Fault(
                f"{folder}/index.json",
                _line(error),
                "`idcluster check --repair` puts it again",
                "index",
            )
        )
        return
    if not checked.faults:
        fine.add(folder, *state)
        fine.save()
    first: dict[str, str] = {}
    for url, what in checked.faults:
        first.setdefault(url, what)
    for url, what in first.items():
        if (
            f"{folder}/{url}" in damaged
            or f"{folder}/{url.removesuffix('.tar')}.parquet" in damaged
        ):
            continue
        is_shard = url.endswith(".tar")
        remedy = (
            "`idcluster check --repair`, then a run writes it again"
            if is_shard
            else "run with its DAG again"
        )
        found.faults.append(Fault(f"{folder}/{url}", what, remedy, "file" if is_shard else "index"))


# What lies beside the tables


def _beside(store: Store, found: Checked, marks: Mapping[str, tuple[int, str]]) -> None:
    for path in marks:
        what = None
        if (
            path.startswith("parts/")
            and path.endswith(".parquet")
            and not path.startswith("parts/attempts/")
        ):
            what = _part_fault(store, path)
            if what:
                found.faults.append(
                    Fault(
                        path,
                        what,
                        "`idcluster check --repair` deletes it; what it held is computed again",
                        "part",
                    )
                )
        elif path.endswith(spool.ENDING):
            what = _spool_fault(store, path)
            if what:
                found.faults.append(
                    Fault(
                        path,
                        what,
                        "`idcluster check --repair` deletes it; a run fetches again what it held",
                        "spool",
                    )
                )
        elif path.startswith("runs/") and path.endswith(".json"):
            what = _record_fault(store, path)
            if what:
                found.faults.append(
                    Fault(path, what, "only the record of that run is lost: delete it", "record")
                )
    if UNFINISHED in marks:
        found.faults.append(
            Fault(
                UNFINISHED,
                "a removal was broken off",
                "`idcluster forget --resume` finishes it",
                "receipt",
            )
        )
    try:
        load_bars(store)
    except RunError as error:
        found.faults.append(
            Fault(
                RECEIPTS,
                _line(error),
                "until then a run could bring back what was removed",
                "receipt",
            )
        )
    _orphans(found, marks)
    if lease.read(store) is not None:
        found.notes.append(
            "somebody writes to it, or was killed while writing: what they have not published "
            "yet counts as left over"
        )


def _orphans(found: Checked, marks: Mapping[str, tuple[int, str]]) -> None:
    named = {entry.file for snapshot in found.kept.values() for entry in snapshot.entries}
    left = [path for path in marks if path.startswith("tables/") and path not in named]
    left += [
        path
        for path in marks
        if path.startswith("shards/") and path.endswith((".tar", ".parquet")) and path not in named
    ]
    left += [path for path in marks if path.endswith(".tmp")]
    left = sorted(set(left))
    if left and found.kept:
        size = sum(marks[path][0] for path in left)
        many = (
            f"{counted(len(left), 'file')}, {size / 1e6:.1f} MB, that no snapshot names "
            f"({left[0]} first)"
        )
        found.notes.append(f"{many}: `idcluster gc` deletes {verb(len(left), 'it', 'them')}")


def _part_fault(store: Store, path: str) -> str | None:
    table = path.split("/")[1]
    try:
        if table in TABLES:
            with open_parquet(store, TABLES[table], path) as file:
                for group in range(file.num_row_groups):
                    file.read_row_group(group)
        else:
            with store.open(path) as opened:
                pq.read_table(opened, page_checksum_verification=True)
    except FileNotFoundError:
        return None
    except (pa.ArrowException, OSError) as error:
        return f"cannot be read ({_line(error)})"
    return None


def _spool_fault(store: Store, path: str) -> str | None:
    try:
        return "is torn" if spool.answers(store, path) is None else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        return f"is damaged ({_line(error)})"


def _record_fault(store: Store, path: str) -> str | None:
    try:
        record = json.loads(store.read(path))
    except FileNotFoundError:
        return None
    except ValueError as error:
        return f"is no record of a run ({_line(error)})"
    return None if isinstance(record, dict) and "run_id" in record else "is no record of a run"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
