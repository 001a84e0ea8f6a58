"""Decoding: what it gives for odd but valid files, and what it says of hostile ones."""

import io
import pickle
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from stages.pictures import (
    PictureError,
    decode,
    encode_png,
    perceptual_hash,
    read_header,
    sharpness,
)


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    """An image of 96 x 64 without any symmetry, smooth enough for JPEG."""
    y, x = np.mgrid[0:64, 0:96]
    planes = [120 + 100 * np.sin(x / 17), 120 + 100 * np.cos(y / 11), (x * 2 + y) * 0.9]
    return np.clip(np.stack(planes, axis=2), 0, 255).astype(np.uint8)


def saved(pixels: np.ndarray, name: str, **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, name, **options)
    return out.getvalue()


def reason(data: bytes) -> str:
    with pytest.raises(PictureError) as caught:
        decode(data)
    return caught.value.reason


def oriented(pixels: np.ndarray, name: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(pixels, name, exif=exif.tobytes() if name != "TIFF" else exif)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_exif_orientation_is_applied(scene: np.ndarray, name: str, orientation: int) -> None:
    data = oriented(scene, name, orientation)
    with Image.open(io.BytesIO(data)) as image:
        stored = np.asarray(image.convert("RGB")) if name != "TIFF" else scene
        if name == "AVIF":  # which says it by turns and mirrors instead
            assert image.getexif().get(0x0112, 1) == orientation
    with Image.open(io.BytesIO(oriented(stored, "PNG", orientation))) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    header = read_header(data)
    assert (header.format, header.orientation) == (name.lower(), orientation)
    assert (header.height, header.width) == expected.shape[:2]
    assert np.array_equal(decode(data), expected)


def test_jpeg_pixels_are_those_of_pillow(t1: Path) -> None:
    data = t1.read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(decode(data), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("progressive", [False, True])
def test_a_truncated_jpeg_fails_instead_of_turning_grey(
    scene: np.ndarray, progressive: bool
) -> None:
    data = saved(scene, "JPEG", progressive=progressive)
    for cut in range(len(data) // 3, len(data) - 12, 97):
        assert reason(data[:cut]) == "decode_error"
        assert perceptual_hash(data[:cut]) is None


def test_a_jpeg_that_lacks_only_its_end_marker_is_whole(scene: np.ndarray) -> None:
    data = saved(scene, "JPEG")
    assert data.endswith(b"\xff\xd9")
    assert np.array_equal(decode(data[:-2]), decode(data))
    assert perceptual_hash(data[:-2]) == perceptual_hash(data)


def test_stray_bytes_before_the_end_marker_of_a_jpeg_cost_nothing(scene: np.ndarray) -> None:
    data = saved(scene, "JPEG")
    stray = data[:-2] + b"\x01\x02\x03\x04\x05\x06" + data[-2:]
    assert np.array_equal(decode(stray), decode(data))


def test_a_jpeg_of_thousands_of_scans_is_refused(scene: np.ndarray) -> None:
    data = saved(scene, "JPEG", progressive=True)
    last_scan = data[data.rindex(b"\xff\xda") : -2]
    with pytest.raises(PictureError, match="decode_error: jpeg with more than 100 scans"):
        decode(data[:-2] + last_scan * 2000 + data[-2:])


def test_a_cmyk_jpeg_of_thousands_of_scans_is_refused(scene: np.ndarray) -> None:
    sink = io.BytesIO()
    Image.fromarray(scene).convert("CMYK").save(sink, "JPEG", progressive=True)
    data = sink.getvalue()
    last_scan = data[data.rindex(b"\xff\xda") : -2]
    with pytest.raises(PictureError, match="decode_error: jpeg with more than 100 scans"):
        decode(data[:-2] + last_scan * 2000 + data[-2:])


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_bomb(side: int) -> bytes:
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(10_000_000)))
        + chunk(b"IEND", b"")
    )


def tiff_entry(tag: int, value: int) -> bytes:
    return struct.pack("<HHII", tag, 4, 1, value)


BOMBS = {
    "png": png_bomb(60_000),
    "jpeg": b"\xff\xd8\xff\xc0\x00\x11\x08"
    + struct.pack(">HH", 65_500, 65_500)
    + b"\x03\x01\x22\x00\x02\x11\x01\x03\x11\x01",
    "gif": b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + bytes(20),
    "bmp": b"BM" + struct.pack("<IIIIii", 54, 0, 54, 40, 100_000, -100_000) + bytes(30),
    "webp": b"RIFF\x00\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00\x00\x00\x00\x00" + b"\xff\x3f\x00" * 2,
    "tiff": b"II*\0\x08\0\0\0\x02\0" + tiff_entry(256, 1_000_000) + tiff_entry(257, 1_000_000),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_by_their_header(name: str) -> None:
    assert reason(BOMBS[name]) == "too_many_pixels"
    assert perceptual_hash(BOMBS[name]) is None


def test_the_limit_on_pixels_is_the_callers(scene: np.ndarray) -> None:
    data = saved(scene, "PNG")
    assert read_header(data, max_pixels=64 * 96).width == 96
    with pytest.raises(PictureError, match="too_many_pixels"):
        read_header(data, max_pixels=64 * 96 - 1)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "empty"),
        (b"<!doctype html><title>404</title>", "not_an_image"),
        (b"BMW is a maker of cars, and this is a text about them", "not_an_image"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic", "unsupported_format"),
        (b"\x00\x00\x00\x14ftypisom\x00\x00\x00\x00mp42", "unsupported_format"),
        (b"\x00\x00\x00\x1cftypavif\x00\x00\x00\x00avifmif1miaf", "unsupported_format"),
        (b"\x00\x00\x00\x1cftypavif\x00\x00", "decode_error"),
        (b"<?xml version='1.0'?><svg/>", "unsupported_format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported_format"),
        (b"\xff\xd8\xff", "decode_error"),
        (b"\x89PNG\r\n\x1a\n", "decode_error"),
        (b"GIF89a\x00\x00\x00\x00", "decode_error"),
        (b"RIFF\x00\x00\x00\x00WEBP", "decode_error"),
    ],
)
def test_what_is_no_picture_says_what_it_is(data: bytes, expected: str) -> None:
    assert reason(data) == expected


def test_files_that_broke_other_peoples_tools(shared: Path) -> None:
    folder = shared / "data" / "extra" / "bad_files"
    reasons = {
        name: reason((folder / name).read_bytes())
        for name in ("corrupted.png", "empty.png", "truncated.jpg")
    }
    assert reasons == {
        "corrupted.png": "decode_error",
        "empty.png": "not_an_image",
        "truncated.jpg": "decode_error",
    }
    whole = [
        decode((folder / f"einstein.{name}").read_bytes()).astype(int)
        for name in ("png", "bmp", "jpeg", "webp")
    ]
    assert all(np.abs(picture - whole[0]).mean() < 3 for picture in whole)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF"])
def test_damaged_files_give_a_picture_or_a_picture_error(scene: np.ndarray, name: str) -> None:
    """One damaged file of millions must not stop a worker with an exception that nobody expects."""
    data = saved(scene, name)
    rng = np.random.default_rng(len(data))
    outcomes = set()
    for _ in range(80):
        broken = bytearray(data)
        for place in rng.integers(0, min(len(data), 400), 3):
            broken[place] = rng.integers(256)
        broken = broken[: rng.integers(1, len(data) + 1)] if rng.random() < 0.5 else broken
        try:
            picture = decode(bytes(broken), max_pixels=10_000_000)
        except PictureError as error:
            outcomes.add(error.reason)
        else:
            assert picture.dtype == np.uint8
            assert picture.ndim == 3
        perceptual_hash(bytes(broken[:300]))
    assert "decode_error" in outcomes


@pytest.mark.parametrize("name", ["PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF"])
def test_files_of_every_format_that_end_early_fail(scene: np.ndarray, name: str) -> None:
    data = saved(scene, name)
    assert reason(data[: len(data) // 2]) == "decode_error"


def test_transparency_lies_on_white() -> None:
    pixels = np.zeros((2, 3, 4), np.uint8)
    pixels[:, 0] = (255, 0, 0, 255)
    pixels[:, 1] = (0, 0, 0, 0)
    pixels[:, 2] = (0, 0, 0, 127)
    assert decode(saved(pixels, "PNG"))[0].tolist() == [
        [255, 0, 0],
        [255, 255, 255],
        [128, 128, 128],
    ]


def test_palettes_with_a_transparent_colour_lie_on_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1])
    for name in ("PNG", "GIF"):
        out = io.BytesIO()
        image.save(out, name, transparency=0)
        assert decode(out.getvalue())[0].tolist() == [[255, 255, 255], [200, 100, 50]]


def test_sixteen_bits_keep_their_range() -> None:
    grey = np.array([[0, 255, 256, 32_768, 65_535]], np.uint16)
    assert decode(saved(grey, "PNG"))[0, :, 1].tolist() == [0, 0, 1, 128, 255]
    colour = np.array([[[0, 32_768, 65_535]]], np.uint16)
    data = cv2.imencode(".png", colour[:, :, ::-1])[1].tobytes()
    assert decode(data)[0, 0].tolist() == [0, 128, 255]


def test_grey_and_one_bit_become_rgb() -> None:
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    assert np.array_equal(decode(saved(grey, "PNG")), np.repeat(grey[:, :, None], 3, axis=2))
    assert decode(saved(grey, "JPEG")).shape == (8, 8, 3)
    assert set(np.unique(decode(saved(grey > 20, "PNG")))) == {0, 255}


def test_cmyk_is_not_taken_for_a_negative(scene: np.ndarray) -> None:
    out = io.BytesIO()
    Image.fromarray(scene).convert("CMYK").save(out, "JPEG", quality=95)
    assert np.abs(decode(out.getvalue()).astype(int) - scene).mean() < 4
    assert perceptual_hash(out.getvalue()) is not None


def test_animations_give_their_first_frame() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    for name in ("GIF", "WEBP", "PNG", "TIFF", "AVIF"):
        out = io.BytesIO()
        frames[0].save(
            out, name, save_all=True, append_images=frames[1:], duration=100, lossless=True
        )
        red, green, blue = decode(out.getvalue())[0, 0].tolist()
        assert red > 250 and green < 5 and blue < 5


def test_a_picture_with_an_alpha_channel_in_avif_lies_on_white() -> None:
    pixels = np.zeros((16, 16, 4), np.uint8)
    pixels[:8] = (200, 100, 50, 255)
    found = decode(saved(pixels, "AVIF", quality=100))
    assert np.abs(found[2, 2].astype(int) - (200, 100, 50)).max() < 6
    assert found[14, 14].min() > 250


def test_a_build_of_pillow_without_avif_says_so(
    scene: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = saved(scene, "AVIF")
    monkeypatch.setattr("stages.pictures.features.check", lambda name: False)
    assert reason(data) == "unsupported_format"


def distance(first: bytes, second: bytes) -> int:
    hashes = perceptual_hash(first), perceptual_hash(second)
    assert hashes[0] is not None
    assert hashes[1] is not None
    return (hashes[0] ^ hashes[1]).bit_count()


def test_copies_hash_alike_and_strangers_apart(t1: Path, astronaut: bytes) -> None:
    original = t1.read_bytes()
    pixels = decode(original)
    small = cv2.resize(pixels, None, fx=0.3, fy=0.3, interpolation=cv2.INTER_AREA)
    assert distance(original, saved(small, "JPEG", quality=60)) <= 4
    assert distance(original, saved(pixels, "PNG")) <= 2
    assert distance(original, oriented(np.rot90(pixels).copy(), "JPEG", 6)) <= 2
    assert distance(original, astronaut) >= 16
    assert distance(original, saved(pixels[::-1], "JPEG")) >= 16


def test_the_hash_stays_what_it_was() -> None:
    """Hashes lie in data sets and in lists of removals: a new definition would no longer recognise
    them.
    """
    y, x = np.mgrid[0:200, 0:300] // 10
    pattern = np.stack(
        [(x * 7 + y * 13 + x * y) % 256, (x * x + 3 * y) % 256, (x * y * y + x) % 256], axis=2
    ).astype(np.uint8)
    assert perceptual_hash(saved(pattern, "PNG")) == 0x012F78676D52D49B
    assert perceptual_hash(saved(np.full((50, 50, 3), 200, np.uint8), "PNG")) == 0


def test_png_round_trip_gives_the_same_bytes(scene: np.ndarray) -> None:
    for pixels in (scene, scene[:, :, 0], scene[::2, ::-1]):
        data = encode_png(pixels)
        assert data == encode_png(pixels.copy())
        with Image.open(io.BytesIO(data)) as image:
            assert np.array_equal(np.asarray(image), pixels)


def test_sharpness_falls_with_blur_and_with_enlargement(astronaut: bytes) -> None:
    face = decode(astronaut)[76:166, 175:265]
    tiny = cv2.resize(face, (20, 20), interpolation=cv2.INTER_AREA)
    assert sharpness(face) > 3 * sharpness(cv2.GaussianBlur(face, (0, 0), 2))
    assert sharpness(face) > 3 * sharpness(tiny)
    assert sharpness(np.full((30, 30, 3), 9, np.uint8)) == 0
    assert sharpness(face[:0]) == 0


def test_errors_cross_processes() -> None:
    again = pickle.loads(pickle.dumps(PictureError("empty", "the file has no bytes")))  # noqa: S301 - our own bytes
    assert (again.reason, again.detail) == ("empty", "the file has no bytes")
