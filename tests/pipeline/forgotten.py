"""Roots to remove somebody from, and what a removal leaves of them."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from idcluster.root.snapshot import load, numbers
from idcluster.root.storage import Store
from pipeline.forget.erase import Done, forget
from pipeline.forget.preview import prepare
from pipeline.forget.wish import Wish
from tests.pipeline.toy import people, picture

WHO = "person 01"


def gallery(folder: Path, count: int = 4, pictures: int = 6) -> Path:
    """The toy people, with two images under other names in which person 01 is: with somebody
    else, and a copy.
    """
    source = people(folder, count, pictures)
    (source / "person 02" / "group.png").write_bytes(picture(12, 11, noise=3))
    shutil.copyfile(source / WHO / "00.png", source / "person 03" / "copy.png")
    return source


def without(source: Path, target: Path) -> Path:
    """The same source as if person 01 had never been in it."""
    shutil.copytree(source, target)
    shutil.rmtree(target / WHO)
    (target / "person 02" / "group.png").unlink()
    (target / "person 03" / "copy.png").unlink()
    return target


def remove(store: Store, *names: str, **wish: Any) -> Done:
    return forget(store, prepare(store, Wish(identities=names, **wish)), "forget-test")


def contents(store: Store) -> dict[str, Any]:
    """What is in a root, file by file, but for leases; of snapshots and receipts what does not hang
    on the clock or on who wrote.
    """
    other = ("snapshots/", "receipts/2", "leases/")
    found: dict[str, Any] = {
        path: store.read(path) for path in store.list("") if not path.startswith(other)
    }
    for number in numbers(store):
        snapshot = load(store, number)
        notes: Mapping[str, Any] = {
            name: value
            for name, value in snapshot.notes.items()
            if name not in ("published", "run", "epoch")
        }
        found[f"snapshots/{number}"] = (snapshot.entries, notes)
    return found


def holding(store: Store, texts: Sequence[str]) -> list[str]:
    """The files with one of the texts in their bytes or name."""
    return [
        path
        for path in store.list("")
        if any(text in path or text.encode() in store.read(path) for text in texts)
    ]
