"""What a file says about its picture in its first bytes: format, size, orientation. Nothing is decoded here.

Own parsers, because opening a file in an imaging library already allocates for some formats (animated WebP) and tries
every plugin it knows. They read the fields that the rest of the house needs and trust no length that they find.
"""

import struct
from dataclasses import dataclass

MAX_PIXELS = 178_956_970
"""Pixels of the largest picture that is decoded: half a GiB of RGB; the limit at which Pillow, too, speaks of a bomb."""


class PictureError(Exception):
    """Bytes that do not become a picture. `reason` is the short code of a row, `detail` the same in words.

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
    """`format` is jpeg, png, webp, gif, bmp or tiff; `width` and `height` are upright pixels, `orientation` EXIF's 1 to 8."""

    format: str
    width: int
    height: int
    orientation: int


def read_header(data: bytes, max_pixels: int = MAX_PIXELS) -> Header:
    """The header of a file by content, whatever its name was. Raises PictureError."""
    if not data:
        raise PictureError("empty", "the file has no bytes")
    name = _format(data)
    try:
        width, height, orientation = _PARSERS[name](data)
    except (struct.error, IndexError):
        raise PictureError("decode_error", f"{name} header is incomplete") from None
    if width < 1 or height < 1:
        raise PictureError("decode_error", f"{name} header gives a size of {width}x{height}")
    if width * height > max_pixels:
        raise PictureError("too_many_pixels", f"{width}x{height} pixels, at most {max_pixels} are decoded")
    if orientation >= 5:
        width, height = height, width
    return Header(name, width, height, orientation)


def jpeg_frame(data: bytes) -> tuple[int, int, int, int]:
    """Start-of-frame marker (0xC0 baseline, 0xC2 progressive, ...), width, height and number of components as stored."""
    return _jpeg_frame(data)[0]


def _format(data: bytes) -> str:
    for magic, name in _MAGIC:
        if data.startswith(magic):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[4:8] == b"ftyp":
        raise PictureError("unsupported_format", f"ISO media file of brand {data[8:12].decode('latin-1').strip()!r}")
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
    (b"\0\0\1\0", "icon"),
    (b"<svg", "SVG"),
)


def _jpeg(data: bytes) -> tuple[int, int, int]:
    (_, width, height, _), orientation = _jpeg_frame(data)
    return width, height, orientation


def _jpeg_frame(data: bytes) -> tuple[tuple[int, int, int, int], int]:
    at, orientation = 2, 1
    while True:
        if data[at] != 0xFF:
            raise PictureError("decode_error", "jpeg segments do not follow each other")
        while data[at] == 0xFF:  # any number of fill bytes may stand before a marker
            at += 1
        marker = data[at]
        at += 1
        if marker in (0x01, *range(0xD0, 0xD8)):  # markers without a segment
            continue
        if marker in (0xD9, 0xDA):
            raise PictureError("decode_error", "jpeg without a frame header")
        (length,) = struct.unpack_from(">H", data, at)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width, components = struct.unpack_from(">HHB", data, at + 3)
            return (marker, width, height, components), orientation
        if marker == 0xE1 and data[at + 2 : at + 8] == b"Exif\0\0" and orientation == 1:
            orientation = _exif_orientation(data[at + 8 : at + length])
        at += max(length, 2)


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
    width, height = struct.unpack_from("<HH", data, 6)
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


def _tiff(data: bytes) -> tuple[int, int, int]:
    tags = _tiff_tags(data, (256, 257, 274))
    return tags.get(256, 0), tags.get(257, 0), _valid(tags.get(274, 1))


def _exif_orientation(block: bytes) -> int:
    """EXIF tag 0x0112 of a TIFF block; 1 where it is missing or nonsense, as every viewer does."""
    try:
        return _valid(_tiff_tags(block, (274,)).get(274, 1))
    except struct.error:
        return 1


def _valid(orientation: int) -> int:
    return orientation if 1 <= orientation <= 8 else 1


def _tiff_tags(block: bytes, wanted: tuple[int, ...]) -> dict[int, int]:
    """Values of SHORT and LONG tags with one value in the first directory (TIFF 6.0, section 2)."""
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None:
        return {}
    (at,) = struct.unpack_from(order + "I", block, 4)
    (count,) = struct.unpack_from(order + "H", block, at)
    found: dict[int, int] = {}
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind, number = struct.unpack_from(order + "HHI", block, entry)
        if tag in wanted and number == 1 and kind in (3, 4):
            (found[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "I"), block, entry + 8)
    return found


_PARSERS = {"jpeg": _jpeg, "png": _png, "gif": _gif, "bmp": _bmp, "webp": _webp, "tiff": _tiff}
