"""Whether the files that a snapshot names are there and have their size: without reading any of
them.
"""

import os
from collections.abc import Iterable, Mapping

from idcluster.root.snapshot import Entry
from idcluster.root.storage import Store

GONE = -1
_FOLDERS = ("tables", "shards")


def lacking(store: Store, entries: Iterable[Entry]) -> dict[str, tuple[int, int]]:
    """Files of `entries` that are not as they were written: the bytes that they are to have, and
    those that they have, GONE where they are not there.
    """
    wanted = sizes(entries)
    there = _sizes_of(store, wanted)
    return {
        file: (size, there.get(file, GONE))
        for file, size in wanted.items()
        if there.get(file, GONE) != size
    }


def sizes(entries: Iterable[Entry]) -> dict[str, int]:
    """The bytes of each file that `entries` lie in."""
    return {entry.file: entry.file_bytes or entry.bytes for entry in entries if entry.file}


def _sizes_of(store: Store, wanted: Mapping[str, int]) -> dict[str, int]:
    if not store.local:
        # A request for a thousand files instead of one for each.
        return (
            {path: size for folder in _FOLDERS for path, (size, _) in store.marks(folder).items()}
            if wanted
            else {}
        )
    found = {}
    for path in wanted:
        try:
            found[path] = os.stat(store.uri(path)).st_size
        except (FileNotFoundError, NotADirectoryError):
            continue
    return found


def told(store: Store, found: Mapping[str, tuple[int, int]]) -> str:
    """Files of `lacking` in words: how many, and the first of them."""
    first, (size, bytes_there) = next(iter(sorted(found.items())))
    what = "is not there" if bytes_there == GONE else f"has {bytes_there} bytes, not {size}"
    more = f", and {len(found) - 1} more are not whole" if len(found) > 1 else ""
    return f"{store.uri(first)} {what}{more}"
