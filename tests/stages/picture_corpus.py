"""Images as cameras, telephones, programs and servers write them: made here, so that decoders can
be compared on them.

All are of one scene, in files that other decoders read although something about them is odd.
"""

import io
import random
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import cv2
import numpy as np
from PIL import Image, PngImagePlugin

SIZE = (96, 64)


def scene(width: int = SIZE[0], height: int = SIZE[1]) -> np.ndarray:
    """An image without any symmetry, smooth enough for JPEG: (height, width, 3) uint8."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [120 + 100 * np.sin(x / 17), 120 + 100 * np.cos(y / 11), (x * 2 + y) * 0.9]
    return np.clip(np.stack(planes, axis=2), 0, 255).astype(np.uint8)


PICTURE = Image.fromarray(scene())


def saved(kind: str, picture: Image.Image = PICTURE, **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def segment(marker: int, body: bytes) -> bytes:
    """Of a JPEG."""
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


def chunk(kind: bytes, body: bytes, crc: int | None = None) -> bytes:
    """Of a PNG."""
    return (
        struct.pack(">I", len(body))
        + kind
        + body
        + struct.pack(">I", zlib.crc32(kind + body) if crc is None else crc)
    )


def exif(kind: int, value: int = 6, order: str = ">") -> bytes:
    """An EXIF segment that says an orientation in a field of some type."""
    code = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}[kind]
    field = struct.pack(order + code, value).ljust(4, b"\0")
    head = b"II*\0" if order == "<" else b"MM\0*"
    return segment(
        0xE1,
        b"Exif\0\0"
        + head
        + struct.pack(order + "IHHHI", 8, 1, 0x0112, kind, 1)
        + field
        + struct.pack(order + "I", 0),
    )


def place_of(data: bytes, *markers: int) -> int:
    """Where the first segment of one of these kinds begins in a JPEG."""
    at = 2
    while data[at + 1] not in markers:
        at += 2 + int(struct.unpack_from(">H", data, at + 2)[0])
    return at


def put(data: bytes, at: int, more: bytes) -> bytes:
    return data[:at] + more + data[at:]


def jpegs() -> Iterator[tuple[str, bytes]]:
    plain = saved("JPEG", quality=90)
    progressive = saved("JPEG", quality=90, progressive=True)
    for sampling in (0, 1, 2):
        yield f"sampling {sampling}", saved("JPEG", quality=90, subsampling=sampling)
    yield "progressive", progressive
    yield "grey", saved("JPEG", PICTURE.convert("L"), quality=90)
    yield "restarts", saved("JPEG", quality=90, restart_marker_blocks=1)
    yield "one pixel", saved("JPEG", PICTURE.crop((5, 5, 6, 6)), quality=90)
    yield "odd size", saved("JPEG", PICTURE.crop((0, 0, 37, 61)), quality=90)
    yield (
        "large profile",
        saved("JPEG", quality=90, icc_profile=random.Random(1).randbytes(200_000)),
    )
    yield "comment", saved("JPEG", quality=90, comment=b"\xff\xda" * 200)
    scans, table, frame = place_of(plain, 0xDA), place_of(plain, 0xDB), place_of(plain, 0xC0)
    films = {
        size: b"\0\0\0\x18ftypmp42" + random.Random(size).randbytes(size * 1_000_000)
        for size in (2, 12)
    }
    for size, film in films.items():
        yield f"film of {size} MB behind it", plain + film
    yield "film behind a progressive one", progressive + films[12]
    yield (
        "scans in a thumbnail",
        put(
            plain,
            2,
            segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0" + b"\xff\xda\0\x08" * 300),
        ),
    )
    yield "scans in a profile", put(plain, 2, segment(0xE2, b"something\0" + b"\xff\xda" * 300))
    yield "zeros behind it", plain + bytes(5000)
    yield "a page behind it", plain + b"<html></html>"
    yield "another one behind it", plain + progressive
    yield "no end marker", plain[:-2]
    yield "stray bytes before the end", plain[:-2] + b"\x01\x02\x03" + plain[-2:]
    yield "fill bytes", put(plain, table, b"\xff" * 7)
    yield "stray bytes between segments", put(plain, table, b"\0\0\0")
    yield "stray bytes before the frame", put(plain, frame, b"abc\xff\0")
    yield "stray bytes before the scan", put(plain, scans, b"\0\0")
    yield "empty comment", put(plain, 2, segment(0xFE, b""))
    yield "unknown segment", put(plain, 2, segment(0xEB, b"HDR_RI ver=11"))
    yield "later JFIF", plain.replace(b"JFIF\0\x01", b"JFIF\0\x05", 1)
    yield "no JFIF", plain[:2] + plain[table:]
    yield (
        "unknown colour number",
        plain[:2] + segment(0xEE, b"Adobe\0\x64\0\0\0\0\x07") + plain[table:],
    )
    yield "broken profile", put(plain, table, segment(0xE2, b"ICC_PROFILE\0\x05\x02abc"))
    at = scans + 4 + 1 + 2 * 3
    yield "sequential with odd numbers", plain[:at] + b"\0\0\0" + plain[at + 3 :]
    yield "segments behind the frame", put(plain, scans, segment(0xFE, b"x") + segment(0xE5, b"y"))
    for kind in (1, 3, 4, 6, 8, 9):
        yield f"orientation of type {kind}", put(plain, 2, exif(kind))
        yield f"orientation of type {kind}, little end first", put(plain, 2, exif(kind, order="<"))
    yield "orientation behind the frame", put(plain, scans, exif(3))
    yield (
        "orientation before the scan of a progressive one",
        put(progressive, place_of(progressive, 0xDA), exif(3)),
    )
    yield "orientation behind a comment", put(plain, frame, segment(0xFE, b"x") + exif(3, 8))
    yield "orientation that is none", put(plain, 2, exif(3, 0))
    yield (
        "orientation behind a film's worth of segments",
        put(plain, 2, segment(0xE4, bytes(65_000)) * 20 + exif(3)),
    )
    other = io.BytesIO()
    PICTURE.save(other, "MPO", save_all=True, append_images=[PICTURE.rotate(180)], quality=90)
    yield "two in one file", other.getvalue()


def pngs() -> Iterator[tuple[str, bytes]]:
    plain = saved("PNG")
    for mode in ("1", "L", "P", "LA", "RGBA"):
        yield f"mode {mode}", saved("PNG", PICTURE.convert(mode))
    for bits in (1, 2, 4):
        yield f"palette of {bits} bits", saved("PNG", PICTURE.quantize(2**bits), bits=bits)
    yield "transparent colour", saved("PNG", transparency=(120, 220, 0))
    yield (
        "sixteen bits",
        cv2.imencode(".png", scene()[:, :, ::-1].astype(np.uint16) * 257)[1].tobytes(),
    )

    def before(made: bytes) -> bytes:
        return put(plain, 33, made)

    text = PngImagePlugin.PngInfo()
    text.add_text("Raw profile type xmp", "A" * 2_000_000, zip=True)
    yield "packed text of 2 MB", saved("PNG", pnginfo=text)
    long = PngImagePlugin.PngInfo()
    long.add_itxt("XML:com.adobe.xmp", "<x/>" + " " * 3_000_000, zip=True)
    yield "international text of 3 MB", saved("PNG", pnginfo=long)
    many = PngImagePlugin.PngInfo()
    for number in range(80):
        many.add_text(f"note {number}", "A" * 1_000_000, zip=True)
    yield "80 MB of texts", saved("PNG", pnginfo=many)
    yield "plain text of 2 MB", before(chunk(b"tEXt", b"a\0" + b"b" * 2_000_000))
    yield "profile of 1.5 MB", before(chunk(b"iCCP", b"x\0\0" + zlib.compress(b"A" * 1_500_000)))
    yield "broken profile", before(chunk(b"iCCP", b"x\0\0not packed"))
    bodies = {
        b"tEXt": b"a\0b",
        b"pHYs": struct.pack(">IIB", 2835, 2835, 1),
        b"gAMA": struct.pack(">I", 45455),
        b"tIME": b"1234567",
    }
    for kind, body in bodies.items():
        yield f"checksum of {kind.decode()}", before(chunk(kind, body, 1))
    for kind in (
        b"pHYs",
        b"gAMA",
        b"cHRM",
        b"sRGB",
        b"bKGD",
        b"tIME",
        b"sBIT",
        b"zTXt",
        b"iTXt",
        b"iCCP",
        b"eXIf",
        b"acTL",
        b"tEXt",
    ):
        yield f"empty {kind.decode()}", before(chunk(kind, b""))
    yield "checksum of tRNS", before(chunk(b"tRNS", struct.pack(">HHH", 120, 220, 0), 1))
    yield "two sRGB", before(chunk(b"sRGB", b"\0") * 2)
    yield "unknown chunk", before(chunk(b"vpAg", bytes(9)))
    yield (
        "text behind the pixels",
        put(plain, len(plain) - 12, chunk(b"zTXt", b"a\0\0" + zlib.compress(b"A" * 3_000_000))),
    )
    yield "checksum behind the pixels", put(plain, len(plain) - 12, chunk(b"tEXt", b"a\0b", 1))
    yield "bytes behind it", plain + b"\0" * 1000
    yield "no end", plain[:-12]
    info = Image.Exif()
    info[0x0112] = 6
    yield "orientation", saved("PNG", exif=info)
    yield (
        "orientation behind the pixels",
        put(plain, len(plain) - 12, chunk(b"eXIf", info.tobytes()[6:])),
    )
    yield "orientation and a broken chunk", put(saved("PNG", exif=info), 33, chunk(b"pHYs", b""))


def gif(screen: tuple[int, int], at: tuple[int, int] = (0, 0)) -> bytes:
    """A GIF of the scene on a screen of some size."""
    data = saved("GIF", PICTURE.quantize(64))
    picture = data.index(b"\x2c" + struct.pack("<HHHH", 0, 0, *SIZE))
    data = data[:picture] + b"\x2c" + struct.pack("<HHHH", *at, *SIZE) + data[picture + 9 :]
    return data[:6] + struct.pack("<HH", *screen) + data[10:]


def gifs() -> Iterator[tuple[str, bytes]]:
    yield "plain", saved("GIF", PICTURE.quantize(64))
    yield "transparent", saved("GIF", PICTURE.quantize(64), transparency=0)
    yield "not interlaced", saved("GIF", PICTURE.quantize(64), interlace=0)
    yield "comment", saved("GIF", PICTURE.quantize(64), comment=b"x" * 1000)
    yield (
        "film",
        saved(
            "GIF",
            PICTURE.quantize(64),
            save_all=True,
            append_images=[Image.new("P", SIZE)],
            duration=50,
        ),
    )
    yield "no screen", gif((0, 0))
    yield "no width of the screen", gif((0, 64))
    yield "smaller screen", gif((20, 10))
    yield "no end", saved("GIF", PICTURE.quantize(64))[:-1]
    yield "bytes behind it", saved("GIF", PICTURE.quantize(64)) + bytes(100)


def bmp(alpha: np.ndarray | None = None, version: int = 5, flip: bool = False) -> bytes:
    """A BMP of 32 bits with a fourth channel, in the header of Windows 98 or 95."""
    pixels = np.dstack(
        [scene()[:, :, ::-1], np.zeros(SIZE[::-1], np.uint8) if alpha is None else alpha]
    )
    rows = np.ascontiguousarray(pixels if flip else pixels[::-1]).tobytes()
    size = {4: 108, 5: 124}[version]
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    head = (
        struct.pack(
            "<IiiHHIIiiII",
            size,
            SIZE[0],
            -SIZE[1] if flip else SIZE[1],
            1,
            32,
            3,
            len(rows),
            2835,
            2835,
            0,
            0,
        )
        + masks
    )
    head = head.ljust(size, b"\0")
    return b"BM" + struct.pack("<IHHI", 14 + size + len(rows), 0, 0, 14 + size) + head + rows


def bmps() -> Iterator[tuple[str, bytes]]:
    for mode in ("1", "L", "P", "RGB"):
        yield f"mode {mode}", saved("BMP", PICTURE.convert(mode))
    yield "empty alpha", bmp()
    yield "empty alpha, version 4", bmp(version=4)
    yield "empty alpha, top first", bmp(flip=True)
    yield "full alpha", bmp(np.full(SIZE[::-1], 255, np.uint8))
    yield "bytes behind it", saved("BMP") + bytes(100)


def tiffs() -> Iterator[tuple[str, bytes]]:
    for compression in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits"):
        yield f"compression {compression}", saved("TIFF", compression=compression)
    for mode in ("1", "L", "P"):
        yield f"mode {mode}", saved("TIFF", PICTURE.convert(mode))
    yield "big end first", cv2.imencode(".tiff", scene()[:, :, ::-1])[1].tobytes()
    yield "pages", saved("TIFF", save_all=True, append_images=[PICTURE.rotate(180)])
    for orientation in (3, 6):
        info = Image.Exif()
        info[0x0112] = orientation
        yield f"orientation {orientation}", saved("TIFF", exif=info)


def others() -> Iterator[tuple[str, bytes]]:
    info = Image.Exif()
    info[0x0112] = 6
    yield "webp", saved("WEBP", quality=90)
    yield "webp without loss", saved("WEBP", lossless=True)
    yield "webp, alpha", saved("WEBP", PICTURE.convert("RGBA"), lossless=True)
    yield "webp, orientation", saved("WEBP", lossless=True, exif=info)
    yield "webp, profile", saved("WEBP", lossless=True, icc_profile=b"x" * 3000)
    yield "webp, bytes behind it", saved("WEBP", lossless=True) + bytes(100)
    yield "avif", saved("AVIF", quality=90)


# fmt: off
FORMATS: Mapping[str, Callable[[], Iterator[tuple[str, bytes]]]] = {
    "jpeg": jpegs, "png": pngs, "gif": gifs, "bmp": bmps, "tiff": tiffs, "other": others,
}
# fmt: on


def corpus() -> dict[str, bytes]:
    """All of them, by name."""
    return {f"{kind}: {name}": data for kind, make in FORMATS.items() for name, data in make()}
