"""Bytes to pixels and back: the one module that decodes images, so that every stage sees the same
pixels.

JPEG goes through simplejpeg (libjpeg-turbo, accurate DCT, smooth chroma upsampling), whose pixels
equal Pillow's and OpenCV's and which is the fastest of the three; everything else through Pillow,
restricted to the formats of the header module. Embedded colour profiles are ignored, as all face
models do.
"""

import io
import re
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

import cv2
import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError, features

from stages.picture_headers import (
    MAX_PIXELS,
    Header,
    PictureError,
    jpeg_frame,
    jpeg_segments,
    read_header,
)

__all__ = [
    "MAX_PIXELS",
    "Header",
    "PictureError",
    "decode",
    "encode_png",
    "perceptual_hash",
    "read_header",
    "sharpness",
]

_MAX_SCANS = 100
"""Encoders write about ten scans of a progressive JPEG; a small file of thousands decodes for
minutes.
"""

# fmt: off
_HARMLESS = (
    "extraneous bytes before marker", "Invalid SOS parameters for sequential JPEG",
    "unknown JFIF revision number",
    "Unknown Adobe color transform code", "bad ICC marker", "Inconsistent progression sequence",
)
# fmt: on
"""Warnings of libjpeg that cost no pixel."""

_MAX_SEGMENTS = 100_000
"""Of a JPEG that has the bytes of so many scans somewhere in it; one with more is refused."""

_HASH_SIDE = 32

_PILLOWS_LIMIT = MAX_PIXELS // 2
"""Pillow warns of more pixels than its limit, and refuses twice as many."""


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The image as (height, width, 3) uint8 RGB, upright, transparency on white, first frame of
    an animation.

    Raises PictureError: the reasons of `read_header`, and `decode_error` for anything incomplete or
    damaged.
    """
    header = read_header(data, max_pixels)
    if header.format == "jpeg" and jpeg_frame(data)[3] in (1, 3):
        rgb = _decode_jpeg(data, "RGB", max_pixels)
    else:
        if header.format == "jpeg":
            _check_scans(data)
        rgb = _decode_other(data, header, max_pixels)
    # Pillow turns TIFF upright by itself while loading; of AVIF it leaves turns to others, as of
    # the rest.
    return rgb if header.format == "tiff" else _upright(rgb, header.orientation)


def perceptual_hash(data: bytes) -> int | None:
    """64-bit hash of what the upright image looks like; None if it does not decode.

    Signs of the 8 x 8 lowest DCT coefficients without the constant row and column, against their
    median, of the grey image at 32 x 32 (Zauner, "Implementation and Benchmarking of Perceptual
    Image Hash Functions", 2010, section 3.2.1). Copies in another size or quality differ by a few
    bits of 64, unrelated images by about half. JPEGs are decoded at down to an eighth of their
    size.
    """
    try:
        return hash_of(low_frequencies(grey(data, 2 * _HASH_SIDE)))
    except PictureError:
        return None


def grey(data: bytes, least: int) -> np.ndarray:
    """(height, width) uint8 of the upright image; JPEGs scaled down while both sides stay at or
    above `least` pixels. Raises PictureError.
    """
    header = read_header(data)
    if header.format == "jpeg" and jpeg_frame(data)[3] in (1, 3):
        return _upright(_decode_jpeg(data, "GRAY", MAX_PIXELS, least), header.orientation).squeeze()
    return np.asarray(cv2.cvtColor(decode(data), cv2.COLOR_RGB2GRAY))


def low_frequencies(grey: np.ndarray) -> np.ndarray:
    """(8, 8) float64: the DCT coefficients that a perceptual hash is made of. `grey`: (height,
    width) uint8.
    """
    small = cv2.resize(grey, (_HASH_SIDE, _HASH_SIDE), interpolation=cv2.INTER_AREA).astype(
        np.float64
    )
    # Rounded, so that a flat image gives 0 on every machine and not the signs of its rounding
    # errors.
    return np.round(_DCT @ small @ _DCT.T, 3)


def above_median(low: np.ndarray) -> np.ndarray:
    """(..., 8, 8) float64 to (..., 64) float64: how far each coefficient is above the median of
    all.
    """
    flat = low.reshape(*low.shape[:-2], 64)
    ranked = np.sort(flat, axis=-1)
    return np.asarray(flat - (ranked[..., 31:32] + ranked[..., 32:33]) / 2)


def hash_of(low: np.ndarray) -> int:
    """The perceptual hash of coefficients."""
    return int.from_bytes(np.packbits(above_median(low) > 0).tobytes(), "big")


def encode_png(pixels: np.ndarray) -> bytes:
    """(height, width) or (height, width, 3) uint8 as PNG; the same pixels give the same bytes."""
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(out, "PNG", compress_level=6)
    return out.getvalue()


def sharpness(face: np.ndarray) -> float:
    """Variance of the Laplacian of a face crop at 112 x 112, in grey levels squared; 0 for an empty
    crop.

    `face`: (height, width, 3) uint8 RGB. The fixed size makes faces of different size comparable: a
    small face that is blown up counts as blurred, which it is to a recogniser.
    """
    if face.shape[0] < 1 or face.shape[1] < 1:
        return 0.0
    grey = cv2.cvtColor(np.ascontiguousarray(face), cv2.COLOR_RGB2GRAY)
    way = cv2.INTER_AREA if min(grey.shape) > 112 else cv2.INTER_LINEAR
    return float(cv2.Laplacian(cv2.resize(grey, (112, 112), interpolation=way), cv2.CV_64F).var())


def _check_scans(data: bytes) -> None:
    """Refuse an image of too many scans. What lies within segments (a thumbnail) or behind the
    image (a film) does not count.
    """
    values = np.frombuffer(data, np.uint8)
    if np.count_nonzero((values[:-1] == 0xFF) & (values[1:] == 0xDA)) <= _MAX_SCANS:
        return
    at, scans, segments = 2, 0, 0
    while scans <= _MAX_SCANS and segments < _MAX_SEGMENTS:
        try:
            found = list(islice(jpeg_segments(data, at), _MAX_SEGMENTS))
        except struct.error:
            return  # it ends within a segment
        if not found or found[-1][0] == 0xD9:
            return
        at, scans, segments = found[-1][2], scans + 1, segments + len(found)
    raise PictureError("decode_error", f"jpeg with more than {_MAX_SCANS} scans")


def _decode_jpeg(data: bytes, colours: str, max_pixels: int, least: int = 0) -> np.ndarray:
    """(height, width, 1 or 3) uint8 as stored; scaled down by eighths while both sides stay at or
    above `least` pixels.
    """
    _check_scans(data)
    scale = {"min_height": least, "min_width": least, "min_factor": 2} if least else {}
    try:
        # strict: libjpeg fills what is missing with grey and only warns.
        return np.asarray(simplejpeg.decode_jpeg(data, colours, strict=True, **scale))
    except ValueError as error:
        warning = str(error)
    if _is_harmless(warning):
        # Common in the wild. It was the first warning; were it the only one that is looked at,
        # damage behind it would not be told.
        try:
            data = _without_oddities(data)
            return np.asarray(simplejpeg.decode_jpeg(data, colours, strict=True, **scale))
        except (ValueError, struct.error) as error:
            warning = warning if isinstance(error, struct.error) else str(error)
    if _is_harmless(warning):
        # Pillow lets these pass but, unlike simplejpeg without strict, not a file that ends early.
        rgb = _decode_other(data, read_header(data, max_pixels), max_pixels)
        return rgb if colours == "RGB" else cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    # The end marker alone may be missing: a file cut within its pixels still fails with it in
    # place. Of a progressive one cut between two scans it would make a blurred image, hence
    # baseline only.
    if "Premature end of JPEG file" not in warning or jpeg_frame(data)[0] not in (0xC0, 0xC1):
        raise PictureError("decode_error", f"jpeg: {warning}")
    try:
        return np.asarray(simplejpeg.decode_jpeg(data + b"\xff\xd9", colours, strict=True, **scale))
    except ValueError:
        raise PictureError("decode_error", f"jpeg: {warning}") from None


def _is_harmless(warning: str) -> bool:
    return any(harmless in warning for harmless in _HARMLESS)


def _without_oddities(data: bytes) -> bytes:
    """The same image without what libjpeg warns of before the first scan: stray bytes, profiles,
    numbers from the future.
    """
    kept = [b"\xff\xd8"]
    rest = len(data)
    for marker, start, end in jpeg_segments(data):
        body = data[start:end]
        if marker == 0xDA:
            if _is_sequential(data):
                body = (
                    body[:-3] + b"\x00\x3f\x00"
                )  # what such a scan has to say, and libjpeg takes for said
            rest = end
        elif marker == 0xE0 and body[:5] == b"JFIF\0":
            body = body[:5] + b"\x01\x02" + body[7:]
        elif marker == 0xEE and body[:5] == b"Adobe" and len(body) >= 12 and body[11] > 2:
            # Of an unknown number libjpeg makes that of the usual colours.
            body = body[:11] + (b"\x02" if jpeg_frame(data)[3] == 4 else b"\x01") + body[12:]
        elif (0xE1 <= marker <= 0xEF and marker != 0xEE) or marker == 0xFE:
            continue
        kept.append(bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body)
    return b"".join(kept) + data[rest:]


def _is_sequential(data: bytes) -> bool:
    return jpeg_frame(data)[0] in (0xC0, 0xC1)


def _decode_other(data: bytes, header: Header, max_pixels: int) -> np.ndarray:
    if header.format == "avif" and not features.check("avif"):
        raise PictureError(
            "unsupported_format",
            "AVIF, which this build of Pillow does not read; install Pillow 11.3 or newer",
        )
    try:
        return _by_pillow(data, header, max_pixels)
    except PictureError as error:
        bare = (
            _bare_png(data) if header.format == "png" and error.reason == "decode_error" else None
        )
        if bare is None:
            raise
        return _by_pillow(bare, header, max_pixels)


def _by_pillow(data: bytes, header: Header, max_pixels: int) -> np.ndarray:
    try:
        with (
            _BOUNDS.held(),
            Image.open(io.BytesIO(data), formats=(header.format.upper(),)) as image,
        ):
            _check_size(image, max_pixels)  # of the file's own account, before memory is taken
            if (
                header.format == "tiff"
            ):  # which Pillow turns upright while loading, also by what is no EXIF
                image.getexif()[0x0112] = header.orientation
            image.load()
            _check_size(image, max_pixels)
            return _rgb(image)
    except (PictureError, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise PictureError(
            "too_many_pixels",
            f"{header.format}: more pixels than its header says, at most {MAX_PIXELS} are decoded",
        ) from None
    except UnidentifiedImageError:  # its message names an object in memory
        raise PictureError("decode_error", f"{header.format}: the header is damaged") from None
    except Exception as error:  # noqa: BLE001 - Pillow's parsers let almost any exception escape from damaged files
        said = re.sub(r"<[^<>]* at 0x[0-9a-fA-F]+>", "the file", str(error))
        raise PictureError(
            "decode_error", f"{header.format}: {said or type(error).__name__}"
        ) from None


def _check_size(image: Image.Image, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise PictureError(
            "too_many_pixels",
            f"{image.width}x{image.height} pixels, at most {max_pixels} are decoded",
        )


class _Bounds:
    """Pillow's own limit while images are decoded here.

    Our checks come first, by the header and by what Pillow makes of it. Pillow's is for what its
    parsers take memory for while they open or load a file: frames, tiles and canvases that are
    larger than the header says. It is a variable of Pillow's for the whole process. As Pillow
    comes it is as strict as ours, and nothing is touched. Where somebody has raised it or switched
    it off for files of their own, it is lowered while any thread is in here, and what it was is put
    back by the last one that leaves.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before: int | None = None
        self._lowered = False

    @contextmanager
    def held(self) -> Iterator[None]:
        with self._lock:
            self._inside += 1
            limit = Image.MAX_IMAGE_PIXELS
            if limit is None or limit > _PILLOWS_LIMIT:
                self._before, self._lowered = limit, True
                Image.MAX_IMAGE_PIXELS = _PILLOWS_LIMIT
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside and self._lowered:
                    self._lowered = False
                    # Unless somebody has set another one meanwhile.
                    if Image.MAX_IMAGE_PIXELS == _PILLOWS_LIMIT:
                        Image.MAX_IMAGE_PIXELS = self._before


_BOUNDS = _Bounds()


_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
"""Chunks of a PNG that say what its pixels are; all others stand beside them."""


def _bare_png(data: bytes) -> bytes | None:
    """The chunks that pixels need, without a transparency that is damaged; None where there was
    nothing else.

    Texts and profiles that are large or damaged cost no other decoder the image.
    """
    kept, at, others = [data[:8]], 8, False
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        whole = data[at : at + 12 + length]
        damaged = kind == b"tRNS" and zlib.crc32(whole[4:-4]).to_bytes(4, "big") != whole[-4:]
        # A chunk that pixels may need and we do not know has a capital letter first.
        if (kind in _PIXELS or kind[:1].isupper()) and not damaged:
            kept.append(whole)
        else:
            others = True
        at += 12 + length
        if kind == b"IEND":
            break
    return b"".join(kept) if others else None


def _rgb(image: Image.Image) -> np.ndarray:
    """(height, width, 3) uint8 of any Pillow mode."""
    if image.mode.startswith("I;16"):  # Pillow would clip at 255
        grey = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise PictureError("unsupported_format", f"{image.format} with pixels of 32 bits")
    if (
        image.format == "BMP"
        and image.mode == "RGBA"
        and image.getchannel("A").getextrema() == (0, 0)
    ):
        image = image.convert("RGB")  # the fourth byte was never filled in
    if image.has_transparency_data:
        picture = image.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        return np.array(Image.alpha_composite(white, picture).convert("RGB"))
    return np.array(image.convert("RGB"))


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo EXIF orientation (EXIF 2.3, tag 0x0112): 2 to 4 mirror and turn, 5 to 8 swap the axes
    first.
    """
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _dct_rows(size: int, first: int, last: int) -> np.ndarray:
    """Rows `first` to `last` of the orthonormal DCT-II of `size` points: (last - first, size)
    float64.
    """
    k, n = np.arange(first, last)[:, None], np.arange(size)[None, :]
    return np.asarray(np.sqrt(2 / size) * np.cos(np.pi * (2 * n + 1) * k / (2 * size)))


_DCT = _dct_rows(_HASH_SIDE, 1, 9)
