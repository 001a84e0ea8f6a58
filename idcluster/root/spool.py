"""The spool: answers of web servers, put down as soon as they are there.

A small immutable file holds the answers of a few dozen addresses. What is in the spool is never
asked for again, however a run ends; the crawl stage takes rows of `images` from it, and files whose
answers are in the dataset are deleted.

An answer is found without reading what lies beside it, for the images of a person come from many
files (in Parquet the footer alone would cost more than the image). A file holds records, each a
header of two numbers, JSON, and the bytes that a server sent; then an index of addresses and places
as JSON, its length and check sum, and a mark.
"""

import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from idcluster.root.storage import Store
from schemas.fetched import Fetched

FOLDER = "parts/spool"
ENDING = ".spool"

_FACTS = (
    "status",
    "reason",
    "detail",
    "opt_out",
    "fetched_at",
    "http_status",
    "attempts",
    "final_address",
)
_HEAD = struct.Struct("<II")
"""Of a record: the length of its JSON, and the CRC-32 of all that follows."""
_TAIL = struct.Struct("<II8s")
"""Of a file: length and CRC-32 of the index, and the mark."""
_MARK = b"idspool1"
_LIKELY = 64 * 2**10
"""Bytes of the end of a file that are read at once: mostly the whole index."""

_AGAIN = "; run again with --retry \"reason = 'error'\""

Place = tuple[str, int, int]
"""Where an answer lies: spool file, first byte and length."""


@dataclass(frozen=True)
class SpoolContents:
    """What the spool holds: the place of the newest answer to each address, and the addresses of
    each file.
    """

    places: Mapping[str, Place]
    files: Mapping[str, Sequence[str]]


class DamagedSpool(OSError):
    """An answer is not what was put down."""


def is_web(address: str) -> bool:
    """Whether an address is asked over the web; others are `name:path`, of a source that reads
    files.
    """
    return address.startswith(("http://", "https://"))


def folder_of(run: str, block: str) -> str:
    return f"{FOLDER}/{run}/{block}"


def spool_path(run: str, block: str, number: int) -> str:
    return f"{folder_of(run, block)}/{number:04d}{ENDING}"


def put(store: Store, path: str, answers: Sequence[tuple[str, Fetched]]) -> None:
    """Put answers down as one file."""
    pieces, index, start = [], [], 0
    for address, answer in answers:
        facts = json.dumps(
            [getattr(answer, name) for name in _FACTS] + [answer.data is not None]
        ).encode()
        data = answer.data or b""
        pieces += [_HEAD.pack(len(facts), zlib.crc32(data, zlib.crc32(facts))), facts, data]
        length = _HEAD.size + len(facts) + len(data)
        index.append((address, start, length))
        start += length
    said = json.dumps(index).encode()
    store.put(
        path,
        b"".join([*pieces, said, _TAIL.pack(len(said), zlib.crc32(said), _MARK)]),
        durable=False,
    )


def look(store: Store, folder: str = FOLDER, tidy: bool = True) -> SpoolContents:
    """What is in the spool, or in a folder of it; the images are not read. Files that a power cut
    tore are deleted if `tidy`.
    """
    places: dict[str, Place] = {}
    files: dict[str, list[str]] = {}
    for path in (path for path in store.list(folder) if path.endswith(ENDING)):
        index = _index(store, path)
        if index is None:
            if tidy:
                store.delete([path])
            continue
        files[path] = [address for address, _, _ in index]
        # Names of runs begin with their time, so that the newest answer comes last.
        places.update((address, (path, start, length)) for address, start, length in index)
    return SpoolContents(places, files)


def _index(store: Store, path: str) -> list[tuple[str, int, int]] | None:
    """The index of a file; None for one that is torn."""
    end = store.read_end(path, _LIKELY)
    if len(end) < _TAIL.size:
        return None
    length, check, mark = _TAIL.unpack(end[-_TAIL.size :])
    if mark != _MARK:
        return None
    if length + _TAIL.size > len(end):
        end = store.read_end(path, length + _TAIL.size)
    said = end[-_TAIL.size - length : -_TAIL.size]
    return json.loads(said) if len(said) == length and zlib.crc32(said) == check else None


def answers(store: Store, path: str) -> list[tuple[str, Fetched]] | None:
    """Everything in a file, by address; None for one that is torn. Raises DamagedSpool."""
    index = _index(store, path)
    if index is None:
        return None
    services = SpoolServices(store, {})
    return [(address, services.answer(path, start, length)) for address, start, length in index]


class Fetches(Protocol):
    """Whoever has the files of sources that are not on the web."""

    def fetch(self, addresses: Sequence[str]) -> list[Fetched]: ...


class SpoolServices:
    """What the crawl stage of one task takes its images from. Implements `stages.stage.Services`.

    Addresses that are not on the web are those of `others`.
    """

    def __init__(
        self, store: Store, places: Mapping[str, Place], others: Fetches | None = None
    ) -> None:
        self.store, self.places, self.others = store, places, others

    def fetch(self, addresses: Sequence[str]) -> list[Fetched]:
        """The answers to addresses. Raises KeyError for one of the web that was never asked: such a
        image is in no task.
        """
        local = (
            [] if self.others is None else [address for address in addresses if not is_web(address)]
        )
        found = (
            dict(zip(local, self.others.fetch(local), strict=True))
            if self.others is not None and local
            else {}
        )
        return [
            found[address] if address in found else self.answer(*self.places[address])
            for address in addresses
        ]

    def answer(self, path: str, start: int, length: int) -> Fetched:
        """The answer at a place. Raises DamagedSpool."""
        record = self.store.read_part(path, start, length)
        if len(record) != length:
            raise DamagedSpool(f"{path} is shorter than its index says{_AGAIN}")
        size, check = _HEAD.unpack_from(record)
        if zlib.crc32(memoryview(record)[_HEAD.size :]) != check:
            raise DamagedSpool(f"{path} is damaged: an answer is not what was put down{_AGAIN}")
        *facts, with_data = json.loads(record[_HEAD.size : _HEAD.size + size])
        return Fetched(
            record[_HEAD.size + size :] if with_data else None,
            **dict(zip(_FACTS, facts, strict=True)),
        )
