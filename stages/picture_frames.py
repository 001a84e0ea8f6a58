"""How many frames a file holds, by its structure; nothing is decoded.

Only the first frame of a file is an image here. A file of thousands is a film, or an attack on
whoever opens it next.
"""

import struct
from collections.abc import Callable

from stages.picture_headers import Header, box_in


def frames(data: bytes, header: Header, most: int) -> int:
    """Frames of a file whose header was read, counted up to `most` + 1; 1 where that cannot be
    seen.
    """
    count = _COUNTERS.get(header.format)
    if count is None:
        return 1
    try:
        return max(1, count(data, most + 1))
    except (struct.error, IndexError):
        return 1  # damaged: that is found out when it is decoded


def _gif(data: bytes, enough: int) -> int:
    """Image descriptors (GIF89a specification, section 20)."""
    at = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    found = 0
    while at < len(data) and found < enough:
        mark = data[at]
        if mark == 0x2C:
            found += 1
            at += 11 + (3 << (data[at + 9] & 7) + 1 if data[at + 9] & 0x80 else 0)
        elif mark == 0x21:
            at += 2
        else:
            break
        while data[at]:  # blocks of at most 255 bytes, the last of them empty
            at += data[at] + 1
        at += 1
    return found


def _png(data: bytes, enough: int) -> int:
    """Frames that the animation control chunk announces (PNG specification, third edition, section
    11.3.5); it stands before the pixels.
    """
    at = 8
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"acTL":
            return min(enough, int(struct.unpack_from(">I", data, at + 8)[0]))
        if kind == b"IDAT":
            break
        at += 12 + length
    return 1


def _webp(data: bytes, enough: int) -> int:
    """ANMF chunks (WebP container specification)."""
    at, found = 12, 0
    while at + 8 <= len(data) and found < enough:
        kind, length = struct.unpack_from("<4sI", data, at)
        found += kind == b"ANMF"
        at += 8 + length + (length & 1)
    return found


def _tiff(data: bytes, enough: int) -> int:
    """Directories, one after the other (TIFF 6.0, section 2); a chain that leads back ends."""
    order = "<" if data[:2] == b"II" else ">"
    (at,) = struct.unpack_from(order + "I", data, 4)
    seen: set[int] = set()
    while at and at not in seen and len(seen) < enough:
        seen.add(at)
        (count,) = struct.unpack_from(order + "H", data, at)
        (at,) = struct.unpack_from(order + "I", data, at + 2 + 12 * count)
    return len(seen)


def _avif(data: bytes, enough: int) -> int:
    """Samples of the first track (ISO 14496-12, section 8.7.3.2)."""
    place: tuple[int, int] | None = (0, len(data))
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsz"):
        place = box_in(data, place, kind) if place else None
    return 1 if place is None else min(enough, int(struct.unpack_from(">I", data, place[0] + 8)[0]))


_COUNTERS: dict[str, Callable[[bytes, int], int]] = {
    "gif": _gif,
    "png": _png,
    "webp": _webp,
    "tiff": _tiff,
    "avif": _avif,
}
