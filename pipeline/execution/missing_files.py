"""Files that the newest snapshot names and that are not there: what of them a run computes again,
and what it cannot.

A file of a table that this run's stages write is left out of what the run goes on from, so that its
rows count as missing. Rows that nobody could bring back in this run, and that it would build on,
stop it before it publishes anything.
"""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field

from idcluster.root.parquet import DamagedFile
from idcluster.root.present import GONE, lacking, told
from idcluster.root.snapshot import SHARD_TABLES, Entry, Snapshot
from idcluster.root.storage import Store
from schemas import TABLES
from schemas.schema import LIGHT
from stages.stage import Stage


@dataclass(frozen=True)
class Rest:
    """What is left to go on from. `dropped` are the entries left out, `companions` the buckets of
    those among them that stand beside files with images, `files` what is to be deleted before it
    is written again, `remarks` what to tell.
    """

    snapshot: Snapshot
    dropped: tuple[Entry, ...] = ()
    companions: frozenset[int] = frozenset()
    files: tuple[str, ...] = ()
    remarks: tuple[str, ...] = field(default=())


def without_missing(
    store: Store, snapshot: Snapshot, stages: Iterable[Stage], chosen: Set[str], profile: str | None
) -> Rest:
    """`snapshot` without what is not there and can be had again by a run of those of the DAG's
    `stages` that are `chosen`.

    `profile` is the set of shards that the run writes, if it does. Raises DamagedFile, which names
    a file, where the run would build on what it cannot bring back, and for files of tables that
    have another size: somebody may have a use for what is left of them.
    """
    # Shards that are not shown may have been tidied away; they can be written again.
    found = lacking(
        store,
        (entry for entry in snapshot.entries if entry.current or entry.table not in SHARD_TABLES),
    )
    if not found:
        return Rest(snapshot)
    by_table = {stage.writes.name: stage for stage in stages}
    written = {table: stage for table, stage in by_table.items() if stage.name in chosen}
    everything = profile is not None
    read = {
        table
        for stage in written.values()
        for table in (stage.parent, *stage.reads, *stage.selects)
    } | {"candidates", "identities"}
    stems = _stems(found, profile)
    drop: set[Entry] = set()
    refused: dict[str, tuple[int, int]] = {}
    others: dict[str, tuple[int, int]] = {}
    for entry in snapshot.entries:
        if entry.table in SHARD_TABLES:
            if entry.file.rpartition(".")[0] in stems:
                drop.add(entry)
            elif entry.file in found:
                others[entry.file] = found[entry.file]
            continue
        if entry.file not in found:
            continue
        size = found[entry.file]
        shown = entry.current and entry.live
        if entry.table.endswith(LIGHT) or not shown or (entry.table in written and size[1] == GONE):
            drop.add(entry)
        elif (
            entry.table in written or entry.table in read or (everything and entry.table in TABLES)
        ):
            refused[entry.file] = size
        else:
            others[entry.file] = size
    if refused:
        raise DamagedFile(
            f"{told(store, refused)}, and this run builds on it; bring it back from a copy, run "
            "with the stage that writes it, "
            f"or let `idcluster check {store.root} --repair` say what can be computed again"
        )
    # A stage that looks at everything at once writes all of its rows or none.
    whole = {
        entry.table
        for entry in drop
        if entry.table in by_table and by_table[entry.table].grain == "root"
    }
    # Of a person whose rows lie in several chunks all are computed, or none.
    of_people = {
        (e.table, e.version, e.bucket)
        for e in drop
        if e.table in by_table and by_table[e.table].grain == "bucket"
    }
    drop |= {
        entry
        for entry in snapshot.entries
        if (entry.table in whole and entry.current)
        or (entry.table, entry.version, entry.bucket) in of_people
    }
    notes = {
        name: value
        for name, value in snapshot.notes.items()
        if not (stems and name == f"shards/{profile}")
    }
    rest = Snapshot(
        snapshot.number, tuple(entry for entry in snapshot.entries if entry not in drop), notes
    )
    return Rest(
        rest,
        tuple(sorted(drop)),
        companions=frozenset(entry.bucket for entry in drop if entry.table.endswith(LIGHT)),
        files=tuple(sorted({entry.file for entry in drop if entry.table in SHARD_TABLES})),
        remarks=tuple(
            _remarks(
                store, {file: size for file, size in found.items() if file not in others}, others
            )
        ),
    )


def _stems(found: Mapping[str, tuple[int, int]], profile: str | None) -> set[str]:
    """The shards of a profile of which the tar, or what lies beside it, is not whole: paths without
    ending.
    """
    return {
        file.rpartition(".")[0]
        for file in found
        if profile is not None and file.startswith(f"shards/{profile}/")
    }


def _remarks(
    store: Store, again: Mapping[str, tuple[int, int]], others: Mapping[str, tuple[int, int]]
) -> list[str]:
    remarks = []
    if again:
        remarks.append(f"{told(store, again)}; what lay there and is wanted is computed again")
    if others:
        remarks.append(
            f"{told(store, others)}, and no stage of this run writes it; a run with the DAG of "
            "then computes it again"
        )
    return remarks
