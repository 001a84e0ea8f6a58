"""Erasure: take people and images out of a dataset, everywhere and for good.

First it is found out what there is (`prepare`), for a user to look at; then what is to be done is
put down in the root (`receipts/unfinished.json`) and done step by step, each of which can be done
again: bars, files without the rows, snapshots that name those instead, shards, the newest snapshot,
and then whatever no snapshot names is deleted. Whatever interrupts it, `resume` goes through all
steps once more and comes to the same end; until then nothing else may write to the root.

Snapshots keep their numbers: each that shows the doomed is put again without them, so that going
back to it brings nobody back. Who reads meanwhile has the old bytes, or is told that a file is
gone.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np

from idcluster.root import removals
from idcluster.root.dataset_root import RunError
from idcluster.root.lease import Lease
from idcluster.root.parquet import DamagedFile, seal_table
from idcluster.root.removals import KINDS, UNFINISHED, Key, Receipt, key_of, packed, unpacked
from idcluster.root.snapshot import WHOLE, Snapshot, SnapshotError, genuine, load, numbers, path_of
from idcluster.root.storage import StorageError, Store, is_full
from pipeline.forget.other_files import FEED, Sweep
from pipeline.forget.preview import VERSION, PreparedErasure, Say, _warnings, params_of, silent
from pipeline.forget.rewrite import Doomed, Rewriter
from pipeline.forget.texts import Needles
from pipeline.shards.index import reindex
from pipeline.shards.scratch import ShardError
from pipeline.shards.split_lists import BadList
from pipeline.shards.writing import finish, plan_shards, write_shard
from schemas import TABLES


@dataclass
class Done:
    """What was done. `number` is the snapshot that shows the rest; `unshown`: profiles whose shards
    the next run completes.
    """

    receipt: Receipt
    number: int
    unshown: list[str] = field(default_factory=list)


# Doing it


def forget(
    store: Store, prepared: PreparedErasure, run: str, notice: Say = silent, say: Say = silent
) -> Done:
    """Do what was prepared. Takes the lease. Raises LeaseHeld, and RunError where the dataset is
    another one by now.
    """
    with Lease(store, run, notice, frees=True) as lease:
        removals.check_finished(store)
        newest = max(numbers(store), default=0)
        if newest != prepared.number + (lease.fenced is not None):  # a fence shows the same
            raise RunError(
                f"{store.root} was written meanwhile (snapshot {newest}, looked at "
                f"{prepared.number}); look again"
            )
        try:
            rewriter = _rehearsed(store, prepared.journal)
        except OSError as error:
            if not is_full(error):
                raise
            # there is no room for all new files beside the old ones: they are made as room is freed
            rewriter = None
        if not store.put_new(UNFINISHED, json.dumps(prepared.journal, indent=1).encode()):
            raise RunError(
                f"another removal is under way in {store.root}; `idcluster forget {store.root} "
                "--resume` finishes it"
            )
        try:
            return _work(store, lease, run, prepared.journal, say, rewriter)
        except Exception:
            say(
                "the removal is not finished, and nothing else may write here until it is: "
                f"`idcluster forget {store.root} --resume`"
            )
            raise


def _rehearsed(store: Store, journal: Mapping[str, Any]) -> Rewriter:
    """A rewriter that has made all files that snapshots will name. What cannot be read is met here,
    where nothing has begun yet.

    Raises DamagedFile, RunError and whatever the store raises; then the new files are gone again.
    """
    key_of(store, make=True)
    removals.load_bars(store)
    for profile in journal["samples"]:
        _feed_of(store, profile)
    rewriter = _rewriter(store, journal)
    named: set[str] = set()
    try:
        newest = load(store)
        for number in genuine(store, newest):
            snapshot = load(store, number, newest)
            named |= set(snapshot.files())
            rewriter.snapshot(snapshot)
    except Exception:
        named |= {file for number in numbers(store) for file in _files_of(store, number)}
        with suppress(Exception):
            store.delete(sorted(rewriter.made() - named))
        raise
    return rewriter


def _files_of(store: Store, number: int) -> tuple[str, ...]:
    try:
        return tuple(load(store, number).files())
    except SnapshotError:
        return ()


def _rewriter(store: Store, journal: Mapping[str, Any]) -> Rewriter:
    doomed = Doomed(*(frozenset(journal[name]) for name in ("people", "images", "faces")))
    return Rewriter(
        store, doomed, Needles.from_json(journal["needles"]), frozenset(journal["buckets"])
    )


def resume(store: Store, run: str, notice: Say = silent, say: Say = silent) -> Done | None:
    """Finish a removal that was broken off; None where there is none. Takes the lease."""
    with Lease(store, run, notice, frees=True) as lease:
        try:
            journal = json.loads(store.read(UNFINISHED))
        except FileNotFoundError:
            return None
        except ValueError:  # nothing was done yet: it is put whole, and first
            store.delete([UNFINISHED])
            return None
        if journal.get("format") != removals.FORMAT:
            raise RunError(
                f"{store.uri(UNFINISHED)} has format {journal.get('format')}; this idcluster "
                f"reads format {removals.FORMAT}"
            )
        return _work(store, lease, run, journal, say)


def _work(
    store: Store,
    lease: Lease,
    run: str,
    journal: Mapping[str, Any],
    say: Say,
    rewriter: Rewriter | None = None,
) -> Done:
    def check() -> None:
        lease.check(f"`idcluster forget {store.root} --resume` goes on", within=2.0)

    key = key_of(store, make=True)
    assert key is not None  # noqa: S101 - made if it was not there
    receipt = Receipt(
        journal["receipt"],
        journal["removed_at"],
        asked=journal["asked"],
        removed=journal["removed"],
        hashes=_hashed(key, journal["barred"]),
        faces=journal["face_bars"],
        unreachable=_warnings(store),
    )
    store.put(receipt.path, receipt.encode())
    rewriter = rewriter or _rewriter(store, journal)
    while True:
        try:
            newest = _erase(store, lease, run, journal, receipt, rewriter, check, say)
            break
        except OSError as error:
            if not is_full(error):
                raise
            freed = _make_room(store, rewriter, check)
            if not freed:
                said = (
                    f"{error.strerror}; there is nothing more here to delete before: make "
                    "room and go on with --resume"
                )
                raise StorageError(error.errno, said) from error
            say(f"the disk is full: deleted {freed} files that are not needed, and beginning anew")
            rewriter = _rewriter(store, journal)
    check()
    receipt.finished_at = datetime.now(UTC).isoformat(timespec="seconds")
    store.put(receipt.path, receipt.encode())
    store.delete([UNFINISHED])
    unshown = [
        profile for profile in sorted(journal["samples"]) if profile not in journal["replan"]
    ]
    return Done(receipt, newest.number, unshown)


def _make_room(store: Store, rewriter: Rewriter, check: Callable[[], None]) -> int:
    """Delete what can go before anything is written: files that no snapshot names, and tars that
    hold the doomed (what lies beside them still says that they do); how many.
    """
    newest = load(store)
    named = {
        file for number in genuine(store, newest) for file in load(store, number, newest).files()
    }
    there = [path for top in ("tables", "shards") for path in store.list(top)]
    spare = [
        path for path in there if path not in named and path.endswith((".parquet", ".tar", ".tmp"))
    ]
    spare += [
        path for path in there if path in named and path.endswith(".tar") and rewriter.derived(path)
    ]
    store.delete(spare, before=check)
    return len(spare)


def _erase(
    store: Store,
    lease: Lease,
    run: str,
    journal: Mapping[str, Any],
    receipt: Receipt,
    rewriter: Rewriter,
    check: Callable[[], None],
    say: Say,
) -> Snapshot:
    """All files and snapshots without the doomed; the snapshot that shows the rest."""
    newest = load(store)
    there = genuine(store, newest)
    store.delete(
        (path_of(number) for number in set(numbers(store)).difference(there)), before=check
    )
    named: set[str] = set()
    for number in there:
        check()
        snapshot = load(store, number, newest)
        made = rewriter.snapshot(snapshot)
        if made is not None:
            store.put(path_of(number), made.encode())
            say(f"snapshot {number} is without them")
        named |= set((made or snapshot).files())
    check()
    newest = load(store)
    if newest.notes.get("forgot") != [newest.number, receipt.receipt]:
        following = _following(store, newest, journal["replan"], run, receipt.receipt, say)
        newest = lease.publish(following, f"`idcluster forget {store.root} --resume` goes on")
    named |= set(newest.files())
    _feed(store, journal["samples"], receipt)
    reindex(store, newest)
    for change in Sweep(store, rewriter, frozenset(journal["sha256s"]), named).changes():
        check()
        if change.data is None:
            store.delete([change.path], before=check)
        else:
            store.put(change.path, change.data)
    return newest


def _hashed(key: Key, barred: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    hashes: dict[str, list[str]] = {}
    for kind in KINDS:
        values = list(barred.get(kind, ()))
        if kind == "phash":
            made = [
                f"{value:016x}"
                for value in key.phashes(
                    np.array([int(value) for value in values], np.uint64)
                ).tolist()
            ]
        elif kind == "vector":
            made = [key.vector(np.frombuffer(bytes.fromhex(value), np.float32)) for value in values]
        else:
            made = [key.text(kind, value) for value in values]
        hashes[kind] = sorted(set(made))
    looks = [unpacked(text) for text in barred.get(removals.LOOK, ())]
    if looks:
        clear = np.concatenate(looks)
        clear = clear[(np.bitwise_count(clear) >= 8) & (np.bitwise_count(clear) <= 56)]
        hashes[removals.LOOK] = [packed(key.phashes(clear))]
    return hashes


def _following(
    store: Store, newest: Snapshot, replan: Iterable[str], run: str, receipt: str, say: Say
) -> Snapshot:
    """The snapshot to publish: with the table `removals`, and with the shards of what is left.

    Where shards of those who stay cannot be written, the removal goes on without them.
    """
    schema = TABLES["removals"]
    sealed = seal_table(
        store,
        schema,
        VERSION,
        WHOLE,
        WHOLE,
        schema.build(removals.table_rows(removals.receipts(store))),
    )
    following = newest.with_entries([sealed.entry(schema, VERSION, WHOLE, WHOLE, sealed.digest)])
    # Without what says that shards are up to date: the next run looks at all of them.
    notes = {
        name: value for name, value in following.notes.items() if not name.startswith("shards/")
    }
    following = Snapshot(newest.number, following.entries, notes)
    for profile in replan:
        params = params_of(following, profile)
        if params is None:
            continue
        try:
            plan = plan_shards(store, following, params)
            entries = finish(store, following, [write_shard(store, job) for job in plan.jobs], plan)
        except (ShardError, BadList, DamagedFile) as error:
            say(
                f"shards of {profile} lack people who stay until they can be written by a run: "
                f"{error}"
            )
            continue
        following = following.with_entries(entries).with_notes(**{f"index/{profile}": plan.note()})
    when = datetime.now(UTC).isoformat(timespec="seconds")
    return following.with_notes(run=run, published=when, forgot=[newest.number + 1, receipt])


def _feed_of(store: Store, profile: str) -> dict[str, Any]:
    """What those who have copies of a profile's shards are told so far. Raises RunError for a
    damaged file.
    """
    path = f"shards/{profile}/{FEED}"
    try:
        feed: dict[str, Any] = json.loads(store.read(path))
        if not all("removal" in one for one in feed["removals"]):
            raise ValueError("not in the form that this idcluster writes")
    except FileNotFoundError:
        how = (
            'sample: sha256 of "idcluster removal\\n" and the sample\'s key; image: the same '
            "of the sha256 in its .json"
        )
        return {"format": removals.FORMAT, "how": how, "removals": []}
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{store.uri(path)} is damaged ({error}); it tells who copied shards what to delete: "
            "bring it back from a copy, or delete it"
        ) from error
    return feed


def _feed(store: Store, samples: Mapping[str, list[list[str]]], receipt: Receipt) -> None:
    """Tell those who have copies of shards which samples were removed. Only ever grows."""
    for profile, pairs in samples.items():
        path, feed = f"shards/{profile}/{FEED}", _feed_of(store, profile)
        if any(entry["removal"] == receipt.receipt for entry in feed["removals"]):
            continue
        entries = [{"sample": sample, "picture": picture} for sample, picture in pairs]
        feed["removals"].append(
            {"removal": receipt.receipt, "removed_at": receipt.removed_at, "samples": entries}
        )
        store.put(path, json.dumps(feed, indent=1, sort_keys=True).encode() + b"\n")
