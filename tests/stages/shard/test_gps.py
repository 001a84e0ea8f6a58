"""Places leave the images; nothing else does."""

import io
import json
import shutil
import struct
import subprocess
import zlib
from pathlib import Path
from xml.parsers import expat

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from stages.pictures import decode
from stages.shard.gps import strip_gps
from tests.stages.shard.placed import (
    XMP_HEAD,
    XMPS,
    corpus,
    exif_with,
    head,
    iptc,
    jpeg,
    mpo,
    png,
    resource,
    rgb,
    saved,
    says_a_place,
    segment,
    xmp,
)

XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description exif:GPSLatitude="52,31.2N" '
    b'exif:GPSLongitude="13,24.5E" dc:title="A day">'
    b"<exif:GPSAltitude>34/1</exif:GPSAltitude></rdf:Description></x:xmpmeta>"
)
PLACES = (b"52,31.2N", b"13,24.5E", b"34/1", b"WGS-84 here")


def camera(order: str = "<") -> Image.Exif:
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


def photograph(format: str, order: str = "<") -> bytes:
    options: dict[str, object] = (
        {"exif": camera(order), "xmp": XMP}
        if format != "tiff"
        else {"exif": camera(order).tobytes()}
    )
    if format == "png":
        options = {"exif": camera(order), "pnginfo": PngInfo()}
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", XMP.decode())  # type: ignore[attr-defined]
    return saved(format, **({"lossless": True} if format == "webp" else {}), **options)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("format", ["jpeg", "png", "webp", "tiff"])
def test_places_go_and_everything_else_stays(format: str, order: str) -> None:
    before = photograph(format, order)
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
    assert (
        strip_gps(out.getvalue(), "jpeg") is out.getvalue()
        or strip_gps(out.getvalue(), "jpeg") == out.getvalue()
    )


def test_checksums_of_png_are_right_afterwards() -> None:
    data = strip_gps(photograph("png"), "png")
    at, kinds = 8, []
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        assert zlib.crc32(data[at + 4 : at + 8 + length]) == int.from_bytes(
            data[at + 8 + length : at + 12 + length], "big"
        )
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
    before = photograph("jpeg")
    at = before.index(b"Exif\0\0") + 6
    damaged = bytearray(before)
    struct.pack_into("<I", damaged, at + 4, 1 << 30)
    after = strip_gps(bytes(damaged), "jpeg")
    assert not any(place in after for place in PLACES)
    assert np.array_equal(
        np.asarray(Image.open(io.BytesIO(after))), np.asarray(Image.open(io.BytesIO(before)))
    )


CORPUS = corpus()


@pytest.mark.parametrize("what", CORPUS)
def test_wherever_a_place_is_it_goes_and_the_picture_stays(what: str) -> None:
    """Somebody's home could be read off an image that was shipped as one without places."""
    format, before = CORPUS[what]
    assert says_a_place(before)
    after = strip_gps(before, format)
    assert not says_a_place(after) and len(after) == len(before)
    picture, original = Image.open(io.BytesIO(after)), Image.open(io.BytesIO(before))
    assert np.array_equal(np.asarray(picture), np.asarray(original)) and np.array_equal(
        decode(after), decode(before)
    )
    found = picture.getexif()
    assert not found.get_ifd(ExifTags.IFD.GPSInfo) and ExifTags.Base.GPSInfo not in found.get_ifd(
        ExifTags.IFD.Exif
    )
    assert "raw profile" in what or found.get(ExifTags.Base.Make) == original.getexif().get(
        ExifTags.Base.Make
    )
    assert strip_gps(after, format) == after


@pytest.mark.parametrize(
    "what", [name for name in XMPS if name not in ("UTF-16", "cut off", "entities")]
)
def test_of_xmp_only_the_place_goes(what: str) -> None:
    """Authors and rights would be lost with it."""
    before = jpeg(segment(XMP_HEAD + XMPS[what]))
    after = strip_gps(before, "jpeg")
    assert b"<dc:source>kept</dc:source>" in after and b'dc:format="a day &gt; a night"' in after
    blanked = sum(a != b for a, b in zip(before, after, strict=True))
    assert 0 < blanked < len(XMPS[what]) // 2
    text = after[after.index(b"<?xpacket") : after.index(b'end="w"?>') + 9]
    expat.ParserCreate().Parse(text, True)


def test_of_iptc_and_photoshop_only_the_place_goes() -> None:
    """Who made the image, and under which licence, stands beside the city."""
    for what in ("IPTC inside EXIF", "IPTC in Photoshop's block"):
        assert strip_gps(CORPUS[what][1], "jpeg").count(b"kept") == 2
    assert b"kept" in strip_gps(CORPUS["EXIF and XMP in Photoshop's block"][1], "jpeg")


def test_both_pictures_of_two_stay_pictures() -> None:
    """The second one would be overwritten as something behind the image."""
    after = Image.open(io.BytesIO(strip_gps(mpo(), "jpeg")))
    assert (after.format, after.n_frames) == ("MPO", 2)  # type: ignore[attr-defined]
    after.seek(1)
    assert np.array_equal(np.asarray(after), np.asarray(Image.open(io.BytesIO(mpo()))))
    assert after.getexif()[ExifTags.Base.Make] == "A camera"


def test_metadata_without_a_place_keeps_every_byte() -> None:
    """Images without places would be others than in the sets of before."""
    harmless = exif_with(0x0131, b"a program of the city\0", 2)
    plain = [
        jpeg(
            segment(b"Exif\0\0" + harmless), segment(XMP_HEAD + xmp("", 'dc:title="Geo, a city"'))
        ),
        jpeg(
            segment(
                b"Photoshop 3.0\0" + resource(0x03ED, b"kept") + resource(0x0404, iptc()[:14]), 0xED
            ),
            behind=jpeg() + b"\0" * 9,
        ),
        saved(
            "jpeg",
            icc_profile=b"a profile" * 9000,
            comment=b"GPSLatitude is only a word here",
            progressive=True,
        ),
    ]
    assert [strip_gps(data, "jpeg") == data for data in plain] == [True, True, True]
    for format in ("png", "webp", "gif", "tiff", "avif", "bmp"):
        data = saved(format)
        assert strip_gps(data, format) == data
    assert (
        strip_gps(
            png((b"tEXt", b"Title\0A city"), (b"zTXt", b"Comment\0\0" + zlib.compress(b"GPS"))),
            "png",
        ).count(b"A city")
        == 1
    )


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="ExifTool is not installed")
def test_exiftool_reads_no_place_either(tmp_path: Path) -> None:
    """It reads more than we know of."""
    for number, (format, data) in enumerate(CORPUS.values()):
        (tmp_path / f"{number}.{format}").write_bytes(strip_gps(data, format))
    asked = ["exiftool", "-j", "-a", "-G", "-ee", "-Location:all", str(tmp_path)]
    found = json.loads(subprocess.run(asked, capture_output=True, check=True).stdout)
    assert len(found) == len(CORPUS) and [one for one in found if len(one) > 1] == []


def test_hostile_metadata_takes_no_time() -> None:
    """An image of a megabyte would hold up the writing of shards for hours."""
    texts = (
        b"<a exif:GPSLatitude" * 20000,
        b"<exif:GPSLatitude>" * 50000,
        b"<a " + b"GPS " * 200000,
        b'<a b="' + b"<exif:GPS" * 100000,
    )
    for text in texts:
        assert b"GPS" not in strip_gps(png((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + text)), "png")
    loop = head() + struct.pack("<HHHIII", 1, 0x014A, 4, 60000, 8, 8) + bytes(240000)
    assert strip_gps(png((b"eXIf", loop)), "png")


@settings(max_examples=300)
@given(st.sampled_from(sorted(CORPUS)), st.data())
def test_nothing_makes_it_fail(what: str, data: st.DataObject) -> None:
    format, before = CORPUS[what]
    start = bytearray(before)
    for place, value in data.draw(
        st.lists(st.tuples(st.integers(0, len(start) - 1), st.integers(0, 255)), max_size=20)
    ):
        start[place] = value
    cut = data.draw(st.integers(0, len(start)))
    assert len(strip_gps(bytes(start[:cut]), format)) == cut
