"""Places leave the pictures; nothing else does."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from stages.shard.gps import strip_gps

XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description exif:GPSLatitude="52,31.2N" exif:GPSLongitude="13,24.5E" dc:title="A day">'
    b"<exif:GPSAltitude>34/1</exif:GPSAltitude></rdf:Description></x:xmpmeta>"
)
PLACES = (b"52,31.2N", b"13,24.5E", b"34/1", b"WGS-84 here")


def rgb() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8))


def exif(order: str = "<") -> Image.Exif:
    made = Image.Exif()
    made.endian = order
    made[ExifTags.Base.Make] = "A camera with a long name"
    made[ExifTags.Base.Orientation] = 6
    made[ExifTags.Base.ImageDescription] = "what comes after the pointer"
    gps = made.get_ifd(ExifTags.IFD.GPSInfo)
    gps[ExifTags.GPS.GPSLatitudeRef], gps[ExifTags.GPS.GPSLatitude] = "N", (52.0, 31.0, 12.5)
    gps[ExifTags.GPS.GPSLongitudeRef], gps[ExifTags.GPS.GPSLongitude] = "E", (13.0, 24.0, 36.25)
    gps[ExifTags.GPS.GPSMapDatum] = "WGS-84 here"
    made.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b"ASCII\0\0\0kept"
    made[0xC4A5] = b"a tag behind the pointer to the place"
    return made


def saved(format: str, order: str = "<") -> bytes:
    out = io.BytesIO()
    options: dict[str, object] = {"exif": exif(order), "xmp": XMP} if format != "tiff" else {"exif": exif(order).tobytes()}
    if format == "png":
        options = {"exif": exif(order), "pnginfo": PngInfo()}
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", XMP.decode())  # type: ignore[attr-defined]
    rgb().save(out, format, **({"lossless": True} if format == "webp" else {}), **options)
    return out.getvalue()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("format", ["jpeg", "png", "webp", "tiff"])
def test_places_go_and_everything_else_stays(format: str, order: str) -> None:
    before = saved(format, order)
    assert Image.open(io.BytesIO(before)).getexif().get_ifd(ExifTags.IFD.GPSInfo)
    after = strip_gps(before, format)
    picture, original = Image.open(io.BytesIO(after)), Image.open(io.BytesIO(before))
    found, had = picture.getexif(), original.getexif()
    assert ExifTags.Base.GPSInfo not in found and not found.get_ifd(ExifTags.IFD.GPSInfo)
    assert {tag: value for tag, value in had.items() if tag != ExifTags.Base.GPSInfo} == dict(found)
    assert found.get_ifd(ExifTags.IFD.Exif) == had.get_ifd(ExifTags.IFD.Exif)
    assert np.array_equal(np.asarray(picture), np.asarray(original))
    assert len(after) == len(before)
    assert not any(place in after for place in PLACES)
    assert format == "tiff" or b'dc:title="A day"' in after
    assert strip_gps(after, format) == after


def test_a_picture_without_a_place_keeps_every_byte() -> None:
    out = io.BytesIO()
    rgb().save(out, "jpeg", comment=b"GPSLatitude is only a word here")
    assert strip_gps(out.getvalue(), "jpeg") is out.getvalue() or strip_gps(out.getvalue(), "jpeg") == out.getvalue()


def test_checksums_of_png_are_right_afterwards() -> None:
    data = strip_gps(saved("png"), "png")
    at, kinds = 8, []
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        assert zlib.crc32(data[at + 4 : at + 8 + length]) == int.from_bytes(data[at + 8 + length : at + 12 + length], "big")
        kinds.append(data[at + 4 : at + 8])
        at += 12 + length
    assert b"eXIf" in kinds and b"iTXt" in kinds


def test_packed_metadata_that_names_a_place_is_wiped() -> None:
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", XMP.decode(), zip=True)
    info.add_text("Raw profile type exif", "45786966 hex with a place", zip=True)
    info.add_text("Title", "kept", zip=True)
    out = io.BytesIO()
    rgb().save(out, "png", pnginfo=info)
    after = Image.open(io.BytesIO(strip_gps(out.getvalue(), "png")))
    texts = getattr(after, "text", {})
    assert np.array_equal(np.asarray(after), np.asarray(rgb())) and texts["Title"] == "kept"
    assert "GPS" not in str(texts) and "hex with" not in str(texts)


def test_damaged_metadata_is_wiped_and_the_picture_stays() -> None:
    before = saved("jpeg")
    at = before.index(b"Exif\0\0") + 6
    damaged = bytearray(before)
    struct.pack_into("<I", damaged, at + 4, 1 << 30)
    after = strip_gps(bytes(damaged), "jpeg")
    assert not any(place in after for place in PLACES)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(after))), np.asarray(Image.open(io.BytesIO(before))))


def test_avif_loses_its_place_too() -> None:
    out = io.BytesIO()
    try:
        rgb().save(out, "avif", exif=exif().tobytes())
    except (KeyError, OSError, ValueError) as error:
        pytest.skip(f"this Pillow writes no AVIF: {error}")
    before = out.getvalue()
    assert Image.open(io.BytesIO(before)).getexif().get_ifd(ExifTags.IFD.GPSInfo)
    after = Image.open(io.BytesIO(strip_gps(before, "avif")))
    assert not after.getexif().get_ifd(ExifTags.IFD.GPSInfo) and after.getexif()[ExifTags.Base.Make] == "A camera with a long name"
    assert np.array_equal(np.asarray(after), np.asarray(Image.open(io.BytesIO(before))))


@given(st.sampled_from(["jpeg", "png", "webp", "tiff", "gif", "avif"]), st.data())
def test_nothing_makes_it_fail(format: str, data: st.DataObject) -> None:
    start = bytearray(saved(format) if format in ("jpeg", "png", "webp", "tiff") else b"GIF89a")
    for place, value in data.draw(st.lists(st.tuples(st.integers(0, len(start) - 1), st.integers(0, 255)), max_size=20)):
        start[place] = value
    cut = data.draw(st.integers(0, len(start)))
    assert len(strip_gps(bytes(start[:cut]), format)) == cut
