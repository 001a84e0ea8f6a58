"""Check sums inside a file of a table, so that whoever reads a piece of it knows that the piece is
what was written.

Parquet's own check sums cover the bytes of pages: neither the headers of pages nor the footer,
which says where columns lie and holds the counts and the least and largest values by which a query
leaves rows out. And not every reader looks at them. So between the last page and the footer, where
no Parquet reader looks, lies a list: of each column chunk where it begins and the CRC-32 of its
bytes, then the CRC-32 of this list and the footer.

    pages | begin (8 bytes), CRC-32 (4) of each chunk | number of chunks (4), CRC-32 (4), mark (8) |
    footer | its length (4), PAR1

Numbers are little-endian. Files that an earlier version of the program wrote have no such list.
"""

import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

MARK = b"idsums01"
_CHUNK = np.dtype([("begin", "<u8"), ("crc", "<u4")])
_HEAD = struct.Struct("<II8s")
_END = struct.Struct("<I4s")
_MAGIC = b"PAR1"
_LIKELY = 64 * 2**10
"""Bytes of the end of a file that are read at once: mostly footer and list."""
_BLOCK = 1 << 22


class WrongBytes(pa.ArrowInvalid):
    """Bytes are not what was written; the message says which, without the name of the file.

    An error of Arrow's, as a page is that has another check sum than its header: whoever reads
    files expects those.
    """


@dataclass
class Sums:
    """The check sums of one file. `tail` is its end from byte `stop` on, which is known to be
    right.
    """

    begins: np.ndarray
    crcs: np.ndarray
    stop: int
    """Where the last chunk ends."""
    tail: bytes
    seen: np.ndarray = field(init=False)
    """Of which chunks the bytes were compared."""

    def __post_init__(self) -> None:
        self.seen = np.zeros(len(self.begins), bool)

    @property
    def footer(self) -> bytes:
        """As a Parquet file without pages, which has the metadata of the whole one."""
        return _MAGIC + self.tail[len(self.begins) * _CHUNK.itemsize + _HEAD.size :]

    def unseen(self, start: int, stop: int) -> tuple[int, int]:
        """From where to where to read so that all chunks that a stretch touches can be compared;
        empty if all were.
        """
        first, last = self._touched(start, stop)
        new = np.flatnonzero(~self.seen[first:last])
        return (
            (start, start)
            if not len(new)
            else (self._begin(first + int(new[0])), self._begin(first + int(new[-1]) + 1))
        )

    def compare(self, start: int, data: bytes | memoryview) -> None:
        """Compare the chunks that lie whole in `data`, the bytes from `start` on. Raises
        WrongBytes.
        """
        view = memoryview(data)
        first, last = self._touched(start, start + len(view))
        for number in range(first, last):
            begin, end = self._begin(number) - start, self._begin(number + 1) - start
            if begin < 0 or end > len(view) or self.seen[number]:
                continue
            if zlib.crc32(view[begin:end]) != int(self.crcs[number]):
                raise WrongBytes(f"bytes {begin + start} to {end + start} are not what was written")
            self.seen[number] = True

    def _touched(self, start: int, stop: int) -> tuple[int, int]:
        first = max(0, int(np.searchsorted(self.begins, start, "right")) - 1)
        return first, max(first, int(np.searchsorted(self.begins, min(stop, self.stop), "left")))

    def _begin(self, number: int) -> int:
        return int(self.begins[number]) if number < len(self.begins) else self.stop


def with_sums(data: bytes) -> bytes:
    """A Parquet file in memory, with its check sums."""
    stop, begins = _places(io.BytesIO(data), len(data))
    view = memoryview(data)
    crcs = [zlib.crc32(view[begin:end]) for begin, end in _stretches(begins, stop)]
    return b"".join([view[:stop], *_tail(begins, crcs, data[stop:])])


def add_sums(file: Path) -> None:
    """Give a Parquet file its check sums, in place."""
    size = file.stat().st_size
    with file.open("r+b") as opened:
        stop, begins = _places(opened, size)
        crcs = []
        for begin, end in _stretches(begins, stop):
            opened.seek(begin)
            crc = 0
            for at in range(begin, end, _BLOCK):
                crc = zlib.crc32(opened.read(min(_BLOCK, end - at)), crc)
            crcs.append(crc)
        opened.seek(stop)
        footer = opened.read()
        opened.seek(stop)
        opened.writelines(_tail(begins, crcs, footer))


def _places(file: IO[bytes], size: int) -> tuple[int, list[int]]:
    """Where the pages of a Parquet file end, and where its column chunks begin, rising."""
    file.seek(size - _END.size)
    length, _ = _END.unpack(file.read(_END.size))
    file.seek(0)
    metadata = pq.read_metadata(file)
    begins = []
    for group in (metadata.row_group(number) for number in range(metadata.num_row_groups)):
        for column in (group.column(number) for number in range(group.num_columns)):
            first = column.dictionary_page_offset if column.has_dictionary_page else None
            begins.append(
                column.data_page_offset if first is None else min(first, column.data_page_offset)
            )
    return size - _END.size - length, sorted(set(begins))


def _stretches(begins: list[int], stop: int) -> Iterator[tuple[int, int]]:
    return zip(begins, [*begins[1:], stop], strict=True)


def _tail(begins: list[int], crcs: list[int], footer: bytes) -> tuple[bytes, bytes, bytes]:
    listed = np.empty(len(begins), _CHUNK)
    listed["begin"], listed["crc"] = begins, crcs
    body = listed.tobytes()
    return body, _HEAD.pack(len(begins), _crc(body, len(begins), footer), MARK), footer


def _crc(body: bytes, number: int, footer: bytes) -> int:
    return zlib.crc32(footer, zlib.crc32(struct.pack("<I", number) + MARK, zlib.crc32(body)))


def read_sums(read: Callable[[int, int], bytes], size: int) -> Sums | None:
    """The check sums of a file of `size` bytes, of which `read` gives so many bytes from a place;
    None where it has none.

    Raises WrongBytes where the file does not end as a Parquet file does, or its list and footer are
    not what was written.
    """
    least = min(size, _LIKELY)
    end = read(size - least, least)
    if len(end) < _END.size or end[-4:] != _MAGIC:
        raise WrongBytes("it does not end as a Parquet file does")
    footer = _END.unpack(end[-_END.size :])[0] + _END.size
    head = footer + _HEAD.size
    if head > size:
        return None
    if head > len(end):
        end = read(size - head, head)
    number, crc, mark = _HEAD.unpack_from(end, len(end) - head)
    if mark != MARK:
        return None
    whole = head + number * _CHUNK.itemsize
    if whole > size:
        raise WrongBytes("its list of check sums is not what was written")
    if whole > len(end):
        end = read(size - whole, whole)
    tail = end[len(end) - whole :]
    body = tail[: number * _CHUNK.itemsize]
    if len(tail) != whole or _crc(body, number, tail[-footer:]) != crc:
        raise WrongBytes("its footer is not what was written")
    listed = np.frombuffer(body, _CHUNK)
    return Sums(listed["begin"].astype(np.int64), listed["crc"], size - whole, tail)


def compare_all(data: bytes) -> None:
    """Compare a file in memory with its check sums, if it has any. Raises WrongBytes."""
    sums = read_sums(lambda start, length: data[start : start + length], len(data))
    if sums is not None:
        sums.compare(0, data)


def sums_of_file(file: IO[bytes]) -> Sums | None:
    """As `read_sums`, of an open file, whose position is moved."""
    size = file.seek(0, os.SEEK_END)

    def read(start: int, length: int) -> bytes:
        file.seek(start)
        return file.read(length)

    return read_sums(read, size)
