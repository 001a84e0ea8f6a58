"""Damage to the files of a dataset root."""

from pathlib import Path

from idcluster.root.snapshot import load
from idcluster.root.storage import Store


def files(root: Path, table: str) -> list[Path]:
    """The files that show a table in the newest snapshot."""
    store = Store(root)
    return sorted({Path(store.uri(e.file)) for e in load(store).shown(table) if e.file})


def flip(path: Path) -> None:
    """Turn over one bit in the middle of a file."""
    path.write_bytes(flipped_bytes(path.read_bytes()))


def flipped_bytes(data: bytes, at: int | None = None) -> bytes:
    """The bytes with one bit turned over, in the middle or at a place."""
    turned = bytearray(data)
    turned[len(turned) // 2 if at is None else at] ^= 16
    return bytes(turned)
