"""Garbage collection: delete what no kept snapshot names."""

from dataclasses import dataclass

from pipeline.lease import Lease
from pipeline.snapshot import load, numbers, path_of
from pipeline.storage import Store


@dataclass(frozen=True)
class Collected:
    """What was deleted, or would be."""

    snapshots: list[int]
    files: list[str]
    bytes: int


def collect(store: Store, keep: int, run: str, dry: bool = False) -> Collected:
    """Delete all snapshots but the newest `keep`, and the files of tables, shards and parts that those do not name.

    Nobody may write meanwhile: takes the lease, raises LeaseHeld. Snapshots go first, so that an interruption leaves
    files without a snapshot and never a snapshot without its files.
    """
    if keep < 1:
        raise ValueError("keep at least one snapshot")
    with Lease(store, run):
        there = numbers(store)
        kept, dropped = there[-keep:], there[:-keep]
        named = {file for number in kept for file in load(store, number).files()}
        doomed = [path for top in ("tables", "parts") for path in store.list(top) if path not in named]
        doomed += [path for path in store.list("shards") if path not in named and not path.endswith(".json")]
        doomed += [path for path in store.list("snapshots") if path.endswith(".tmp")]
        size = sum(store.size(path) for path in doomed)
        if not dry:
            store.delete(path_of(number) for number in dropped)
            store.delete(doomed)
        return Collected(dropped, doomed, size)
