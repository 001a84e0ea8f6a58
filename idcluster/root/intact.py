"""Whether a file is still the one that was written: by its size, and the SHA-256 that its name or
the snapshot gives.

A process looks at a file once. On a disk it looks again when the file bears another time or number
since.
"""

import hashlib
import os
import re
from typing import IO

from idcluster.root.checksums import Sums, WrongBytes, sums_of_file
from idcluster.root.storage import Store

_BLOCK = 1 << 22
_NAMED = re.compile(r"^tables/.*-([0-9a-f]{8})\.parquet$")

Stamp = tuple[int, ...]

# What was found whole in this process, by root and path. Files are not rewritten, so this is true
# while the stamp is.
_WHOLE: dict[tuple[str, str], Stamp] = {}
# Check sums, and which chunks were compared with them.
_SUMS: dict[tuple[str, str], tuple[Stamp, Sums | None]] = {}


def named_digest(path: str) -> str:
    """The first digits of the SHA-256 of a file of a table, as its name gives them; empty where the
    name has none.
    """
    found = _NAMED.match(path)
    return found[1] if found else ""


def stamp(store: Store, path: str) -> Stamp:
    """What tells a file from one that has taken its place: size, time and number on a disk, nothing
    in an object store.

    Raises FileNotFoundError.
    """
    if not store.local:
        return ()
    found = os.stat(store.uri(path))
    return found.st_size, found.st_mtime_ns, found.st_ino


def digest_of(store: Store, path: str) -> tuple[int, str]:
    """Bytes of a file and their SHA-256. Raises FileNotFoundError."""
    hasher, size = hashlib.sha256(), 0
    with store.open(path) as file:

        def block() -> bytes:
            file.seek(size)
            return file.read(_BLOCK)

        while data := store.patiently(block):
            hasher.update(data)
            size += len(data)
    return size, hasher.hexdigest()


def check_digest(store: Store, path: str, digest: str, data: bytes | None = None) -> None:
    """Compare a file with the first digits of its SHA-256, or `data`, which was read from it; with
    none nothing is compared.

    Raises WrongBytes and FileNotFoundError.
    """
    if not digest:
        return
    now = stamp(store, path)
    if _WHOLE.get((store.root, path)) == now and (now or data is None):
        return
    found = digest_of(store, path)[1] if data is None else hashlib.sha256(data).hexdigest()
    if not found.startswith(digest):
        raise WrongBytes(f"its SHA-256 is {found[: len(digest)]}, not {digest}")
    _WHOLE[store.root, path] = now


def check_size(found: int, size: int) -> None:
    """Raises WrongBytes."""
    if found != size:
        raise WrongBytes(f"it has {found} bytes, not {size}")


def known_sums(store: Store, path: str, file: IO[bytes]) -> Sums | None:
    """The check sums of an open file with what this process has compared of it; None where it has
    none. Raises WrongBytes.
    """
    now = stamp(store, path)
    known = _SUMS.get((store.root, path))
    if known is None or known[0] != now:
        known = now, store.patiently(lambda: sums_of_file(file))
        _SUMS[store.root, path] = known
    return known[1]


def is_whole(store: Store, path: str, size: int, digest: str) -> bool:
    """Whether a file is there and is what it is to be: looked at now, whatever was found before."""
    try:
        return store.size(path) == size and digest_of(store, path)[1].startswith(digest)
    except FileNotFoundError:
        return False
