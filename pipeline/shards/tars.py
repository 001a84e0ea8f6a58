"""Reading a tar of samples from front to back: every member, and the SHA-256 of the whole."""

import hashlib
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any, cast

import pyarrow.parquet as pq

from idcluster.root.storage import Store

_BLOCK = 1 << 20
_MEMBER = re.compile(r"[0-9a-f]+_[0-9a-f]+\.[a-z0-9.]+")

TAR_SHA256 = "tar_sha256"
"""In the metadata of the Parquet file beside a tar: the SHA-256 of the tar, 64 hex digits."""
Place = tuple[int, int, str]
"""Where a member's bytes begin, how many there are, and their SHA-256."""


@dataclass
class Tar:
    """What is in a tar, and what is wrong with it as a tar."""

    size: int = 0
    sha256: str = ""
    members: dict[str, Place] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    @property
    def is_ended(self) -> bool:
        """Whether it has the length that a writer of tars gives it."""
        last = max((offset + length for offset, length, _ in self.members.values()), default=0)
        blocks = -(-last // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE + 2 * tarfile.BLOCKSIZE
        return self.size == -(-blocks // tarfile.RECORDSIZE) * tarfile.RECORDSIZE


def read_tar(store: Store, path: str) -> Tar:
    """Read a tar to its end. Raises FileNotFoundError."""
    found = Tar()
    with store.open(path) as file:
        stream = _Hashed(store, file)
        try:
            with tarfile.open(fileobj=cast(IO[bytes], stream), mode="r|", bufsize=_BLOCK) as tar:
                for member in tar:
                    if not member.isfile() or not _MEMBER.fullmatch(member.name):
                        found.faults.append(
                            f"holds {member.name!r}, which is no member of a sample"
                        )
                        continue
                    if member.name in found.members:
                        found.faults.append(f"member {member.name} is there twice")
                    hasher = hashlib.sha256()
                    inside = tar.extractfile(member)
                    while inside is not None and (block := inside.read(_BLOCK)):
                        hasher.update(block)
                    found.members[member.name] = (
                        member.offset_data,
                        member.size,
                        hasher.hexdigest(),
                    )
        except (tarfile.TarError, EOFError) as error:
            found.faults.append(f"is no whole tar: {error}")
        stream.drain()
    found.size, found.sha256 = stream.size, stream.hasher.hexdigest()
    return found


def told_members(row: dict[str, Any]) -> Iterator[tuple[str, Place]]:
    """The members of a sample as its row in the Parquet file beside the tar tells them."""
    for member in row["members"]:
        yield (
            f"{row['key']}.{member['name']}",
            (member["offset"], member["length"], member["sha256"]),
        )


def sha256_beside(store: Store, path: str) -> str | None:
    """The SHA-256 of a tar as the Parquet file beside it (`path`) tells it; those of earlier
    versions do not. Raises what pyarrow raises, and FileNotFoundError.
    """
    with store.open(path) as file:
        told = (store.patiently(lambda: pq.read_metadata(file)).metadata or {}).get(
            TAR_SHA256.encode()
        )
    return None if told is None else told.decode()


class _Hashed:
    """A file that is read from front to back and hashed on the way."""

    def __init__(self, store: Store, file: IO[bytes]) -> None:
        self._store, self._file = store, file
        self.hasher, self.size = hashlib.sha256(), 0

    def read(self, size: int = -1) -> bytes:
        data = self._store.patiently(lambda: self._read_at(size))
        self.hasher.update(data)
        self.size += len(data)
        return data

    def _read_at(self, size: int) -> bytes:
        self._file.seek(self.size)
        return self._file.read(size)

    def drain(self) -> None:
        while self.read(_BLOCK):
            pass
