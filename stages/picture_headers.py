"""What a file says about its image in its first bytes: format, size, orientation. Nothing is
decoded here.

Own parsers, because opening a file in an imaging library already allocates for some formats
(animated WebP) and tries every plugin it knows. They read the fields that the rest of the house
needs and trust no length that they find.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

MAX_PIXELS = 178_956_970
"""Pixels of the largest image that is decoded: half a GiB of RGB; the limit at which Pillow, too,
speaks of a bomb.
"""


class PictureError(Exception):
    """Bytes that do not become an image. `reason` is the short code of a row, `detail` the same in
    words.

    Reasons: `empty`, `not_an_image`, `unsupported_format`, `too_many_pixels`, `decode_error`.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type["PictureError"], tuple[str, str]]:
        return type(self), (self.reason, self.detail)


@dataclass(frozen=True)
class Header:
    """`format` is jpeg, png, webp, avif, gif, bmp or tiff; `width` and `height` are upright pixels,
    `orientation` EXIF's 1 to 8.
    """

    format: str
    width: int
    height: int
    orientation: int


def read_header(data: bytes, max_pixels: int = MAX_PIXELS) -> Header:
    """The header of a file by content, whatever its name was. Raises PictureError."""
    if not data:
        raise PictureError("empty", "the file has no bytes")
    name = format_of(data)
    try:
        width, height, orientation = _PARSERS[name](data)
    except (struct.error, IndexError):
        raise PictureError("decode_error", f"{name} header is incomplete") from None
    if width < 1 or height < 1:
        raise PictureError("decode_error", f"{name} header gives a size of {width}x{height}")
    if width * height > max_pixels:
        raise PictureError(
            "too_many_pixels", f"{width}x{height} pixels, at most {max_pixels} are decoded"
        )
    if orientation >= 5:
        width, height = height, width
    return Header(name, width, height, orientation)


def jpeg_frame(data: bytes) -> tuple[int, int, int, int]:
    """Start-of-frame marker (0xC0 baseline, 0xC2 progressive, ...), width, height and number of
    components as stored.
    """
    return _jpeg_frame(data)[0]


def format_of(data: bytes) -> str:
    """The format by the first bytes, of which a few dozen are enough. Raises PictureError:
    `not_an_image`, `unsupported_format`.
    """
    for magic, name in _MAGIC:
        if data.startswith(magic):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[4:8] == b"ftyp":
        return _iso_format(data)
    for magic, name in _KNOWN_UNSUPPORTED:
        if data.startswith(magic):
            raise PictureError("unsupported_format", name)
    raise PictureError("not_an_image", f"begins with {data[:8]!r}")


_MAGIC = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"BM", "bmp"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
)
_KNOWN_UNSUPPORTED = (
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"II+\0", "BigTIFF"),
    (b"MM\0+", "BigTIFF"),
    (b"8BPS", "Photoshop"),
    (b"FUJIFILMCCD-RAW", "a camera's raw file (Fujifilm)"),
    (b"IIRO", "a camera's raw file (Olympus)"),
    (b"IIRS", "a camera's raw file (Olympus)"),
    (b"MMOR", "a camera's raw file (Olympus)"),
    (b"IIU\0", "a camera's raw file (Panasonic)"),
    (b"II\x1a\0\0\0HEAPCCDR", "a camera's raw file (Canon)"),
    (b"\0MRM", "a camera's raw file (Minolta)"),
    (b"FOVb", "a camera's raw file (Sigma)"),
    (b"\0\0\1\0", "icon"),
    (b"<svg", "SVG"),
    (b"<?xml", "XML, SVG perhaps"),
)
_HEIF = {
    "heic": "HEIC",
    "heix": "HEIC",
    "heim": "HEIC",
    "heis": "HEIC",
    "hevc": "HEIC",
    "hevx": "HEIC",
    "mif1": "HEIF",
    "msf1": "HEIF",
}
_OTHERS = {**_HEIF, "crx": "a camera's raw file (Canon)"}


def _iso_format(data: bytes) -> str:
    """AVIF by its brands (ISO 14496-12, section 4.3). HEIC is known by name alone: its decoders are
    no part of Pillow.
    """
    (size,) = struct.unpack_from(">I", data)
    box = data[8:size]
    if len(box) < 8 or size > len(data):
        raise PictureError("decode_error", "the brands of an ISO media file are incomplete")
    brands = [box[at : at + 4].decode("latin-1").strip() for at in (0, *range(8, len(box) - 3, 4))]
    if "avif" in brands or "avis" in brands:
        return "avif"
    raise PictureError(
        "unsupported_format", _OTHERS.get(brands[0], f"ISO media file of brand {brands[0]!r}")
    )


def _jpeg(data: bytes) -> tuple[int, int, int]:
    (_, width, height, _), orientation = _jpeg_frame(data)
    return width, height, orientation


_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
"""Of a JPEG segment, as libjpeg looks for one: behind any bytes that are none, pixels, and any
number of fill bytes.
"""
_MOST_SEGMENTS = 10_000


def jpeg_segments(data: bytes, at: int = 2) -> Iterator[tuple[int, int, int]]:
    """Marker, start (behind the length) and end of the segments of a JPEG file from a place on, up
    to the head of the first scan or the end of the image, which come last. What is no segment is
    passed over, as libjpeg does. Raises struct.error.
    """
    while found := _MARKER.search(data, at):
        marker, at = data[found.end() - 1], found.end()
        if marker == 0xD9:
            yield marker, at, at
            return
        (length,) = struct.unpack_from(">H", data, at)
        yield marker, at + 2, at + max(length, 2)
        if marker == 0xDA:
            return
        at += max(length, 2)


def _jpeg_frame(data: bytes) -> tuple[tuple[int, int, int, int], int]:
    frame, orientation = None, 1
    try:
        for number, (marker, start, end) in enumerate(jpeg_segments(data)):
            if frame is None and 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
                height, width, components = struct.unpack_from(">HHB", data, start + 1)
                frame = (marker, width, height, components)
            if marker == 0xE1 and data[start : start + 6] == b"Exif\0\0" and orientation == 1:
                orientation = _exif_orientation(data[start + 6 : end])
            if frame is not None and (orientation != 1 or number > _MOST_SEGMENTS):
                break
            if frame is None and marker in (0xD9, 0xDA):
                raise PictureError("decode_error", "jpeg without a frame header")
    except struct.error:
        if frame is None:  # behind it nothing is needed of the first bytes of a file
            raise
    if frame is None:
        raise IndexError
    return frame, orientation


def _png(data: bytes) -> tuple[int, int, int]:
    if data[12:16] != b"IHDR":
        raise PictureError("decode_error", "png without IHDR")
    width, height = struct.unpack_from(">II", data, 16)
    orientation, at = 1, 8
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"eXIf":
            orientation = _exif_orientation(data[at + 8 : at + 8 + length])
        if kind in (b"eXIf", b"IEND"):
            break
        at += 12 + length
    return width, height, orientation


def _gif(data: bytes) -> tuple[int, int, int]:
    """The screen, which the first frame makes larger where it reaches beyond it, as in all
    viewers.
    """
    width, height = struct.unpack_from("<HH", data, 6)
    at = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    try:
        while data[at] == 0x21:  # extensions stand before the frame
            at += 2
            while data[at]:
                at += data[at] + 1
            at += 1
        if data[at] == 0x2C:
            left, top, across, down = struct.unpack_from("<HHHH", data, at + 1)
            width, height = max(width, left + across), max(height, top + down)
    except (IndexError, struct.error):
        pass  # that it is damaged is found out when it is decoded
    return width, height, 1


def _bmp(data: bytes) -> tuple[int, int, int]:
    (size,) = struct.unpack_from("<I", data, 14)
    if size == 12:
        width, height = struct.unpack_from("<HH", data, 18)
        return width, height, 1
    if not 16 <= size <= 256:
        raise PictureError("not_an_image", "begins like a BMP but has no BMP header")
    width, height = struct.unpack_from("<ii", data, 18)
    return width, abs(height), 1  # a negative height means rows from top to bottom


def _webp(data: bytes) -> tuple[int, int, int]:
    width = height = 0
    orientation, at = 1, 12
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        body = at + 8
        if kind == b"VP8X":
            width = 1 + int.from_bytes(data[body + 4 : body + 7], "little")
            height = 1 + int.from_bytes(data[body + 7 : body + 10], "little")
        elif kind == b"VP8 " and not width:
            width, height = (value & 0x3FFF for value in struct.unpack_from("<HH", data, body + 6))
        elif kind == b"VP8L" and not width:
            (bits,) = struct.unpack_from("<I", data, body + 1)
            width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        elif kind == b"EXIF":
            block = data[body : body + length]
            orientation = _exif_orientation(block.removeprefix(b"Exif\0\0"))
        at = body + length + (length & 1)
    return width, height, orientation


def _avif(data: bytes) -> tuple[int, int, int]:
    """Size and turn of the primary item, from its properties (ISO 23008-12, sections 6.5 and 9.3);
    EXIF does not count there.
    """
    whole = (0, len(data))
    meta = box_in(data, whole, b"meta")
    if meta is None:
        raise PictureError("unsupported_format", "AVIF without a still image")
    meta = (meta[0] + 4, meta[1])
    properties = box_in(data, meta, b"iprp")
    primary = box_in(data, meta, b"pitm")
    if properties is None or primary is None:
        raise PictureError("decode_error", "AVIF without a primary image")
    item = struct.unpack_from(">H" if data[primary[0]] == 0 else ">I", data, primary[0] + 4)[0]
    held, named = box_in(data, properties, b"ipco"), box_in(data, properties, b"ipma")
    if held is None or named is None:
        raise PictureError("decode_error", "AVIF without a size")
    boxes = list(boxes_in(data, held))
    size, angle, axis = (0, 0), 0, None
    for number in _properties_of(data, named, item):
        if not 1 <= number <= len(boxes):
            continue
        kind, at, _ = boxes[number - 1]
        if kind == b"ispe":
            size = struct.unpack_from(">II", data, at + 4)
        elif kind == b"irot":
            angle = data[at] & 3
        elif kind == b"imir":
            axis = data[at] & 1
    return (*size, _TURNS[angle, axis])


# fmt: off
_TURNS = {
    (0, None): 1, (0, 1): 2, (2, 0): 2, (2, None): 3, (0, 0): 4, (2, 1): 4, (1, 0): 5, (3, 1): 5,
    (3, None): 6, (3, 0): 7, (1, 1): 7,
    (1, None): 8,
}
# fmt: on
"""EXIF's orientation by quarter turns to the left and the axis of a mirror (0: top and bottom
change places, 1: left and right).
"""


def _properties_of(data: bytes, where: tuple[int, int], item: int) -> list[int]:
    """Numbers, from 1, of the properties that a box `ipma` gives to an item."""
    at, end = where
    wide_items, wide_numbers = data[at] > 0, data[at + 3] & 1
    (count,) = struct.unpack_from(">I", data, at + 4)
    at += 8
    for _ in range(min(count, end - at)):
        (whose,) = struct.unpack_from(">I" if wide_items else ">H", data, at)
        at += 4 if wide_items else 2
        numbers = data[at]
        at += 1
        step = 2 if wide_numbers else 1
        if whose == item:
            found = (
                struct.unpack_from(">H" if wide_numbers else ">B", data, at + step * i)[0]
                for i in range(numbers)
            )
            return [number & (0x7FFF if wide_numbers else 0x7F) for number in found]
        at += step * numbers
    return []


def boxes_in(data: bytes, where: tuple[int, int]) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of the content of each box of an ISO media file between two places."""
    at, end = where
    while at + 8 <= end:
        length, kind = struct.unpack_from(">I4s", data, at)
        start = at + 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, start)
            start += 8
        stop = end if length == 0 else at + length
        if stop < start or stop > end:
            return
        yield kind, start, stop
        at = stop


def box_in(data: bytes, where: tuple[int, int], kind: bytes) -> tuple[int, int] | None:
    """Start and end of the content of the first box of a kind."""
    return next(
        ((start, stop) for found, start, stop in boxes_in(data, where) if found == kind), None
    )


def _tiff(data: bytes) -> tuple[int, int, int]:
    if data[8:11] == b"CR\x02":  # Canon's, which do not say so in their directories
        raise PictureError("unsupported_format", _RAW)
    first = _Directory(data)
    inside = [_read(data, at) for at in first.inside]
    if any(one.is_raw for one in (first, *inside)):
        raise PictureError("unsupported_format", _RAW)
    width, height = first.number(256, 0), first.number(257, 0)
    reduced = (
        first.number(254, 0) & 1 or first.number(255, 0) == 2
    )  # of the two tags one is the older
    larger = any(one.number(256, 0) * one.number(257, 0) > width * height for one in inside)
    if larger or (reduced and (inside or first.next)):
        raise PictureError(
            "unsupported_format", "TIFF whose first image is only a thumbnail of another one in it"
        )
    return width, height, _valid(first.number(274, 1))


_RAW = "a camera's raw file; develop it, or take the JPEG beside it"
_MOST_INSIDE = 16
_RAW_COLOURS = (32803, 34892)
"""What a sensor measured, before and after its mosaic was filled in (DNG specification 1.7,
PhotometricInterpretation).
"""
_INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I"}
"""Types of TIFF that hold an integer, and how `struct` calls them (TIFF 6.0, section 2; 13: place
of a directory).
"""


class _Directory:
    """The integers of a directory of a TIFF file or EXIF block: of the first, or of the one at a
    place. Raises struct.error.

    `inside`: places of the directories below it; `next`: of the one behind it, 0 for none.
    `is_raw`: it is, or belongs to, what a camera's sensor measured.
    """

    def __init__(self, block: bytes, at: int | None = None) -> None:
        self.inside: tuple[int, ...] = ()
        self.next, self.is_raw = 0, False
        self._single: dict[int, int] = {}
        order = {b"II": "<", b"MM": ">"}.get(block[:2])
        if order is None:
            return
        if at is None:
            (at,) = struct.unpack_from(order + "I", block, 4)
        (count,) = struct.unpack_from(order + "H", block, at)
        end = at + 2 + 12 * count
        for entry in range(at + 2, end, 12):
            tag, kind, number = struct.unpack_from(order + "HHI", block, entry)
            code = _INTEGERS.get(kind)
            if number == 1 and code:
                (self._single[tag],) = struct.unpack_from(order + code, block, entry + 8)
            if tag == 330 and code == "I":  # directories below this one
                place = (
                    entry + 8
                    if number == 1
                    else struct.unpack_from(order + "I", block, entry + 8)[0]
                )
                known = range(place, min(place + 4 * min(number, _MOST_INSIDE), len(block) - 3), 4)
                self.inside = tuple(struct.unpack_from(order + "I", block, one)[0] for one in known)
            self.is_raw |= tag == 50706  # DNGVersion
        self.is_raw |= self._single.get(262) in _RAW_COLOURS
        if end + 4 <= len(block):
            (self.next,) = struct.unpack_from(order + "I", block, end)

    def number(self, tag: int, otherwise: int) -> int:
        """The value of a tag that holds one integer."""
        return self._single.get(tag, otherwise)


def _read(block: bytes, at: int) -> _Directory:
    """The directory at a place; an empty one where there is none."""
    try:
        return _Directory(block, at)
    except struct.error:
        return _Directory(b"")


def _exif_orientation(block: bytes) -> int:
    """EXIF tag 0x0112 of a TIFF block; 1 where it is missing or nonsense, as every viewer does."""
    try:
        return _valid(_Directory(block).number(274, 1))
    except struct.error:
        return 1


def _valid(orientation: int) -> int:
    return orientation if 1 <= orientation <= 8 else 1


_PARSERS = {
    "jpeg": _jpeg,
    "png": _png,
    "gif": _gif,
    "bmp": _bmp,
    "webp": _webp,
    "avif": _avif,
    "tiff": _tiff,
}
