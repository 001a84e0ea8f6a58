"""Take the place where a photograph was taken out of its bytes, and touch nothing else.

Nothing is re-encoded and nothing moves: GPS entries of EXIF (Exif 2.3, section 4.6.6) and GPS properties of XMP are
overwritten where they stand, and checksums that go over them are renewed. Metadata that cannot be understood, or is packed
and names a place, is overwritten whole. Maker notes are private formats and stay as they are.
"""

import re
import struct
import zlib
from collections.abc import Iterator

GPS_POINTER = 0x8825
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_EXIF, _XMP, _MORE_XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"
_IN_XMP = re.compile(rb"""\bexif:GPS\w+\s*=\s*(?:"[^"]*"|'[^']*')|<(exif:GPS\w+)\b[^>]*?(?:/>|>.*?</\1\s*>)""", re.DOTALL)
_NAMES_GPS = re.compile(rb"GPS(?:Lat|Long|Alt|Pos|Dest|Area|Date|Time)")
_MOST_ENTRIES = 4096


class _Damaged(ValueError):
    """A block of metadata that cannot be understood."""


def strip_gps(data: bytes, format: str) -> bytes:
    """`data` without places, of the same length; `data` itself where there are none. `format` is that of `images.format`."""
    made = bytearray(data)
    for first, last, kind in _blocks(data, format):
        stop = min(last, len(data))
        if first >= stop:
            continue
        if kind == "exif":
            try:
                _clean_tiff(made, first, stop)
            except _Damaged:
                # Readers that take it for EXIF find nothing; of a file that is one TIFF structure all would be lost.
                if format != "tiff":
                    made[first:stop] = bytes(stop - first)
        elif kind == "head":
            try:
                _clean_tiff(made, first, stop)
            except _Damaged:
                made[first : first + 4] = bytes(4)
        elif kind == "xmp":
            _clean_xmp(made, first, stop)
        else:
            made[first:stop] = bytes(stop - first)
    if bytes(made) == data:
        return data
    if format == "png":
        _renew_checksums(made)
    return bytes(made)


def _blocks(data: bytes, format: str) -> Iterator[tuple[int, int, str]]:
    """First byte, last byte + 1 and kind of what may hold a place.

    Kinds: exif, a TIFF structure; head, the same with other things after it; xmp, text; all, whatever it is.
    """
    if format == "jpeg":
        yield from _jpeg(data)
    elif format == "png":
        yield from _png(data)
    elif format == "webp":
        yield from _webp(data)
    elif format == "tiff":
        yield (0, len(data), "exif")
        yield (0, len(data), "xmp")
    elif format == "gif":
        yield (0, len(data), "xmp")
    elif format != "bmp":
        # ISO containers (AVIF, HEIC) keep EXIF as an item with this head and XMP as text.
        for found in re.finditer(rb"Exif\0\0(?=II\*\0|MM\0\*)", data):
            yield (found.end(), len(data), "head")
        yield (0, len(data), "xmp")


def _jpeg(data: bytes) -> Iterator[tuple[int, int, str]]:
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill
            at += 1
            continue
        if marker in (0xD9, 0xDA):
            return
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:
            at += 2
            continue
        stop = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        body = at + 4
        if marker == 0xE1 and data.startswith(_EXIF, body):
            yield (body + len(_EXIF), stop, "exif")
        elif marker == 0xE1 and (data.startswith(_XMP, body) or data.startswith(_MORE_XMP, body)):
            yield (body, stop, "xmp")
        at = stop


def _png(data: bytes) -> Iterator[tuple[int, int, str]]:
    for kind, first, stop in _png_chunks(data):
        if kind == b"eXIf":
            yield (first, stop, "exif")
        elif kind in (b"iTXt", b"tEXt", b"zTXt"):
            word, _, rest = data[first:stop].partition(b"\0")
            text = first + len(word) + 1
            if word.startswith(b"Raw profile"):
                yield (text, stop, "all")  # EXIF or XMP in hexadecimal, packed or not
            elif kind == b"tEXt" or (kind == b"iTXt" and rest[:1] == b"\0"):
                yield (text, stop, "xmp")
            else:
                packed = rest[1:] if kind == b"zTXt" else rest[2:].partition(b"\0")[2].partition(b"\0")[2]
                if _packs_a_place(packed):
                    yield (stop - len(packed), stop, "all")


def _packs_a_place(packed: bytes) -> bool:
    try:
        return bool(_NAMES_GPS.search(zlib.decompressobj().decompress(packed, 1_000_000)))
    except zlib.error:
        return True


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    at = 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if at + 12 + length > len(data):
            return
        yield bytes(data[at + 4 : at + 8]), at + 8, at + 8 + length
        at += 12 + length


def _renew_checksums(made: bytearray) -> None:
    for _, first, stop in list(_png_chunks(bytes(made))):
        made[stop : stop + 4] = zlib.crc32(made[first - 4 : stop]).to_bytes(4, "big")


def _webp(data: bytes) -> Iterator[tuple[int, int, str]]:
    at = 12
    while at + 8 <= len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        first, stop = at + 8, min(at + 8 + length, len(data))
        if data[at : at + 4] == b"EXIF":
            yield (first + (len(_EXIF) if data.startswith(_EXIF, first) else 0), stop, "exif")
        elif data[at : at + 4] == b"XMP ":
            yield (first, stop, "xmp")
        at = stop + (length & 1)


def _clean_xmp(made: bytearray, first: int, stop: int) -> None:
    text = bytes(made[first:stop])
    blank = _IN_XMP.sub(lambda found: b" " * len(found[0]), text)
    if blank != text:
        made[first:stop] = blank


def _clean_tiff(made: bytearray, first: int, stop: int) -> None:
    """Overwrite the GPS directory of a TIFF structure and take the pointer to it out of its directory."""
    order = {b"II": "<", b"MM": ">"}.get(bytes(made[first : first + 2]))
    if order is None or stop - first < 8:
        raise _Damaged("EXIF with a damaged head")
    magic, at = struct.unpack_from(order + "HI", made, first + 2)
    if magic != 42:
        raise _Damaged("EXIF of another kind than TIFF 6.0")
    seen: set[int] = set()
    while at:
        if at in seen or len(seen) > 64:
            raise _Damaged("EXIF whose directories run in a circle")
        seen.add(at)
        at = _clean_directory(made, first, stop, at, order)


def _clean_directory(made: bytearray, first: int, stop: int, at: int, order: str) -> int:
    """Clean the directory at `at`; where the next one is, or 0."""
    count = _entries(made, first, stop, at, order)
    start = first + at + 2
    after = start + 12 * count
    place = start
    for _ in range(count):
        tag, _, _, value = struct.unpack_from(order + "HHII", made, place)
        if tag != GPS_POINTER:
            place += 12
            continue
        _wipe_directory(made, first, stop, value, order)
        # What follows moves up, the address of the next directory too.
        tail = made[place + 12 : min(after + 4, stop)]
        made[place : place + len(tail) + 12] = tail + bytes(12)
        count -= 1
        after -= 12
        struct.pack_into(order + "H", made, first + at, count)
    return int(struct.unpack_from(order + "I", made, after)[0]) if after + 4 <= stop else 0


def _wipe_directory(made: bytearray, first: int, stop: int, at: int, order: str) -> None:
    try:
        count = _entries(made, first, stop, at, order)
    except _Damaged:
        return  # there is nothing where the pointer led, and it goes
    for number in range(count):
        place = first + at + 2 + 12 * number
        _, kind, length, value = struct.unpack_from(order + "HHII", made, place)
        size = _SIZES.get(kind, 0) * length
        begin = first + value
        if size > 4 and begin + size <= stop:
            made[begin : begin + size] = bytes(size)
        made[place : place + 12] = bytes(12)
    struct.pack_into(order + "H", made, first + at, 0)


def _entries(made: bytearray, first: int, stop: int, at: int, order: str) -> int:
    if at < 8 or first + at + 2 > stop:
        raise _Damaged("EXIF whose directory lies outside of it")
    count = int(struct.unpack_from(order + "H", made, first + at)[0])
    if count > _MOST_ENTRIES or first + at + 2 + 12 * count > stop:
        raise _Damaged("EXIF whose directory lies outside of it")
    return count
