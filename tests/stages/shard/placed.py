"""Images with a place in each of the ways in which files have one. Where it is, the bytes say
PLACE or 51,12.345N.
"""

import contextlib
import io
import re
import struct
import zlib
from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

MARKS = (b"PLACE", b"51,12.345N")
_EXIF = "http://ns.adobe.com/exif/1.0/"
_RDF = 'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"'
XMP_HEAD = b"http://ns.adobe.com/xap/1.0/\0"


def rgb(side: int = 32) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (side, side, 3), np.uint8))


def saved(format: str, **options: object) -> bytes:
    out = io.BytesIO()
    rgb().save(out, format, **options)
    return out.getvalue()


def says_a_place(data: bytes) -> bool:
    """Whether one of the marks stands in the bytes: as it is, in UTF-16, packed, or in
    hexadecimal.
    """
    texts = [data, data.replace(b"\0", b"")]
    for found in re.finditer(rb"\x78[\x01\x5e\x9c\xda]", data):
        with contextlib.suppress(zlib.error):
            texts.append(zlib.decompressobj().decompress(data[found.start() :]))
    for text in list(texts):
        texts += [
            bytes.fromhex(digits.decode())
            for digits in re.findall(rb"\n((?:[0-9a-f]{2}){8,})\n", text)
        ]
    return any(mark in text for text in texts for mark in MARKS)


# EXIF


def tiff(
    entries: dict[int, tuple[int, bytes]], order: str = "<", first: int = 8, following: bytes = b""
) -> bytes:
    """A directory of `tag: (type, value)` and what is behind it, as it is at `first` in a TIFF
    structure.
    """
    body, at = b"", first + 2 + 12 * len(entries) + 4
    made = struct.pack(f"{order}H", len(entries))
    sizes = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1, 12: 8}
    for tag, (kind, value) in sorted(entries.items()):
        made += struct.pack(f"{order}HHI", tag, kind, len(value) // sizes[kind])
        if len(value) > 4:
            made += struct.pack(f"{order}I", at + len(body))
            body += value + b"\0" * (len(value) % 2)
        else:
            made += value.ljust(4, b"\0")
    return made + struct.pack(f"{order}I", 0) + body + following


def gps(order: str = "<", first: int = 8) -> bytes:
    """A directory of GPS entries, as it is at `first`."""
    degrees = struct.pack(f"{order}6I", 51, 1, 12, 1, 345, 10)
    return tiff(
        {0: (1, b"\2\3\0\0"), 1: (2, b"N\0"), 2: (5, degrees), 27: (7, b"ASCII\0\0\0PLACE")},
        order,
        first,
    )


def head(order: str = "<") -> bytes:
    return (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8)


def exif(order: str = "<", make: bytes = b"A camera\0") -> bytes:
    """A TIFF structure with a GPS directory behind the first one."""
    at = 8 + 2 + 12 * 2 + 4 + len(make) + len(make) % 2
    pointer = struct.pack(f"{order}I", at)
    return head(order) + tiff({0x010F: (2, make), 0x8825: (4, pointer)}, order) + gps(order, at)


def gps_in_exif_directory() -> bytes:
    inner = 8 + 2 + 12 + 4
    return (
        head()
        + tiff({0x8769: (4, struct.pack("<I", inner))})
        + tiff({0x8825: (4, struct.pack("<I", inner + 18))}, first=inner)
        + gps(first=inner + 18)
    )


def gps_in_second_directory() -> bytes:
    made = bytearray(head() + tiff({0x010F: (2, b"A camera\0")}))
    second = len(made)
    struct.pack_into("<I", made, 8 + 2 + 12, second)
    return (
        bytes(made)
        + tiff({0x8825: (4, struct.pack("<I", second + 18))}, first=second)
        + gps(first=second + 18)
    )


def exif_with(tag: int, value: bytes, kind: int = 7) -> bytes:
    return head() + tiff({0x010F: (2, b"Panasonic\0"), tag: (kind, value)})


def maker_note() -> bytes:
    """Panasonic's: a directory of its own, in which tag 0x6d is the city. Offsets count from the
    beginning of the structure.
    """
    at = 8 + 2 + 12 * 2 + 4 + 10
    note = at + 2 + 12 + 4
    inner = tiff({0x6D: (2, b"PLACE of a city\0")}, first=note + 12)
    value = b"Panasonic\0\0\0" + inner
    return (
        head()
        + tiff({0x010F: (2, b"Panasonic\0"), 0x8769: (4, struct.pack("<I", at))})
        + tiff({0x927C: (7, value)}, first=at)
    )


# XMP


def xmp(inside: str, attributes: str = "", names: str = f'xmlns:exif="{_EXIF}"') -> bytes:
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta '
        f'xmlns:x="adobe:ns:meta/"><rdf:RDF {_RDF}>'
        f'<rdf:Description rdf:about="" {names} xmlns:dc="http://purl.org/dc/elements/1.1/" '
        f'dc:format="a day &gt; a night" {attributes}>'
        f"{inside}<dc:source>kept</dc:source></rdf:Description></rdf:RDF></x:xmpmeta>"
        f"{' ' * 200}"
        '<?xpacket end="w"?>'
    ).encode()


_IPTC_EXT = (
    'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    'xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/"'
)
# fmt: off
XMPS = {
    "an attribute": xmp("", 'exif:GPSLatitude="51,12.345N"'),
    "single quotes": xmp("", "exif:GPSLatitude = '51,12.345N'"),
    "an element": xmp("<exif:GPSLatitude>51,12.345N</exif:GPSLatitude>"),
    "another prefix": xmp("<e:GPSLongitude>PLACE</e:GPSLongitude>", 'e:GPSLatitude="51,12.345N"',
        f'xmlns:e="{_EXIF}"'),
    "an element with line breaks": xmp("<exif:GPSLatitude\n>\n51,12.345N\n</exif:GPSLatitude\n>"),
    "an attribute of an element": xmp('<exif:GPSLatitude rdf:value="51,12.345N"/>'),
    "a place that is a structure": xmp(
        "<Iptc4xmpExt:LocationShown><rdf:Bag><rdf:li><rdf:Description><Iptc4xmpExt:City>PLACE</Iptc4xmpExt:City>"
        "</rdf:Description></rdf:li></rdf:Bag></Iptc4xmpExt:LocationShown>", "", _IPTC_EXT,
    ),
    "a city and a country": xmp("<photoshop:City>PLACE</photoshop:City>",
        'photoshop:Country="PLACE"', _IPTC_EXT),
    "a drone's": xmp("", 'drone-dji:GpsLongtitude="PLACE" drone-dji:AbsoluteAltitude="PLACE"',
        'xmlns:drone-dji="http://www.dji.com/drone-dji/1.0/"'),
    "UTF-16": xmp("",
        'exif:GPSLatitude="51,12.345N"').decode().encode("utf-16-be").replace(b"51,12.345N",
            b"PLACE"),
    "cut off":
        xmp("<exif:GPSLatitude>51,12.345N</exif:GPSLatitude>").partition(b"SLatitude>\n")[0][:520],
    "entities":
        b'<!DOCTYPE x [<!ENTITY e "51,12.345N">]>' + xmp("<exif:GPSLatitude>&e;</exif:GPSLatitude>"),  # noqa: E501
}
# fmt: on


# Other metadata


def iptc() -> bytes:
    def dataset(number: int, value: bytes) -> bytes:
        return struct.pack(">BBBH", 0x1C, 2, number, len(value)) + value

    return (
        dataset(0, b"\0\4")
        + dataset(5, b"kept")
        + dataset(90, b"PLACE, a city")
        + dataset(101, b"PLACE")
        + dataset(105, b"kept")
    )


def resource(number: int, value: bytes) -> bytes:
    return b"8BIM" + struct.pack(">HHI", number, 0, len(value)) + value + b"\0" * (len(value) % 2)


def video() -> bytes:
    """What a telephone puts behind a photograph: a film that says where it was taken."""
    where = box(
        b"udta", box(b"\xa9xyz", struct.pack(">HH", 19, 0x15C7) + b"+51.2057+000.1234/PLACE")
    )
    return box(b"ftyp", b"mp42\0\0\0\0mp42") + box(b"mdat", bytes(range(256))) + box(b"moov", where)


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", len(content) + 8, kind) + content


# JPEG


def segment(content: bytes, marker: int = 0xE1) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(content) + 2) + content


def jpeg(*segments: bytes, behind: bytes = b"", **options: object) -> bytes:
    plain = saved("jpeg", **options)
    return plain[:2] + b"".join(segments) + plain[2:] + behind


def mpo() -> bytes:
    """Two images of equal size, the second with a place, and an index of both (CIPA DC-007)."""
    second = jpeg(segment(b"Exif\0\0" + exif()), segment(XMP_HEAD + XMPS["an element"]))
    plain = saved("jpeg")
    index = len(segment(b"MPF\0" + bytes(8 + 2 + 12 * 3 + 4 + 32), 0xE2))
    first_size = len(plain) + index
    gap = 6
    entries = struct.pack("<IIIHH", 0x20030000, first_size, 0, 0, 0) + struct.pack(
        "<IIIHH", 0, len(second), first_size + gap - 2 - 8, 0, 0
    )
    content = head() + tiff(
        {0xB000: (7, b"0100"), 0xB001: (4, struct.pack("<I", 2)), 0xB002: (7, entries)}
    )
    return jpeg(segment(b"MPF\0" + content, 0xE2)) + b"\0" * gap + second


def between_scans() -> bytes:
    plain = saved("jpeg", progressive=True, quality=95)
    at = plain.index(b"\xff\xda", plain.index(b"\xff\xda") + 2)
    at = max(plain.rindex(b"\xff\xc4", 0, at), plain.index(b"\xff\xda") + 2)
    return plain[:at] + segment(b"Exif\0\0" + exif()) + plain[at:]


def long_exif() -> bytes:
    """A structure that goes on in a second segment, as it is read by those who put segments
    together.
    """
    made = exif(make=b"a long name " * 10 + b"\0")
    return jpeg(segment(b"Exif\0\0" + made[:60]), segment(b"Exif\0\0" + made[60:]))


def extended_xmp() -> bytes:
    guid, text = (
        b"0123456789ABCDEF0123456789ABCDEF",
        xmp("<exif:GPSLatitude>51,12.345N</exif:GPSLatitude>"),
    )
    half = text.index(b"GPSLatitude") + 5
    parts = ((0, text[:half]), (half, text[half:]))
    pieces = [
        segment(
            b"http://ns.adobe.com/xmp/extension/\0"
            + guid
            + struct.pack(">II", len(text), at)
            + part
        )
        for at, part in parts
    ]
    return jpeg(*reversed(pieces))


def thumbnail() -> bytes:
    small = jpeg(segment(XMP_HEAD + XMPS["an element"]))
    return jpeg(segment(b"Exif\0\0" + head() + tiff({0x010F: (2, b"A camera\0")})), behind=small)


# PNG, GIF, AVIF, WebP, TIFF


def png(*chunks: tuple[bytes, bytes], behind: bytes = b"") -> bytes:
    plain = saved("png")
    made = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return plain[:33] + made + plain[33:] + behind


def profile(name: str, data: bytes) -> bytes:
    """As ImageMagick writes metadata into PNG."""
    return f"\n{name}\n{len(data):8d}\n{data.hex()}\n".encode()


def gif(application: bytes, content: bytes) -> bytes:
    plain = saved("gif")
    at = 13 + 3 * 2 ** ((plain[10] & 7) + 1)
    return plain[:at] + b"\x21\xff\x0b" + application + content + plain[at:]


MAGIC = b"\x01" + bytes(range(255, -1, -1)) + b"\0"


def sub_blocks(data: bytes) -> bytes:
    return (
        b"".join(
            bytes((len(data[at : at + 255]),)) + data[at : at + 255]
            for at in range(0, len(data), 255)
        )
        + b"\0"
    )


def webp(*chunks: tuple[bytes, bytes]) -> bytes:
    plain = saved(
        "webp", lossless=True, exif=head() + tiff({0x010F: (2, b"A camera\0")}), xmp=b"<x/>"
    )
    made = plain[12:] + b"".join(
        kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
        for kind, data in chunks
    )
    return b"RIFF" + struct.pack("<I", len(made) + 4) + b"WEBP" + made


def with_info(**texts: tuple[str, bool]) -> bytes:
    info = PngInfo()
    for word, (text, packed) in texts.items():
        info.add_itxt(word.replace("_", ":", 1).replace("_", "."), text, zip=packed)
    return saved("png", pnginfo=info)


def avif(**options: object) -> bytes:
    return saved("avif", **options)


def geotiff() -> bytes:
    made = Image.Exif()
    return saved("tiff", exif=made, tiffinfo=_geo_tags())


def _geo_tags() -> object:
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    tags = ImageFileDirectory_v2()
    tags.tagtype[33922], tags.tagtype[34737], tags.tagtype[0x02BC], tags.tagtype[0x83BB] = (
        12,
        2,
        7,
        7,
    )
    tags[33922], tags[34737] = (0.0, 0.0, 0.0, 51.2057, 0.1234, 0.0), "PLACE on the ground"
    tags[0x02BC], tags[0x83BB] = XMPS["an element"], iptc()
    return tags


# fmt: off
JPEGS: dict[str, Callable[[], bytes]] = {
    "EXIF, little end first": lambda: jpeg(segment(b"Exif\0\0" + exif())),
    "EXIF, big end first": lambda: jpeg(segment(b"Exif\0\0" + exif(">"))),
    "EXIF with another fill byte": lambda: jpeg(segment(b"Exif\0\xff" + exif())),
    "EXIF behind a stray byte": lambda: jpeg(segment(b"\0Exif\0\0" + exif())),
    "EXIF twice": lambda: jpeg(segment(b"Exif\0\0" + exif_with(0x0131, b"a program\0", 2)),
        segment(b"Exif\0\0" + exif())),
    "EXIF in two segments": long_exif,
    "EXIF between two scans": between_scans,
    "a pointer in the Exif directory": lambda: jpeg(segment(b"Exif\0\0" + gps_in_exif_directory())),
    "a pointer in the second directory":
        lambda: jpeg(segment(b"Exif\0\0" + gps_in_second_directory())),
    "maker notes": lambda: jpeg(segment(b"Exif\0\0" + maker_note())),
    "XMP inside EXIF": lambda: jpeg(segment(b"Exif\0\0" + exif_with(0x02BC, XMPS["an element"],
        1))),
    "IPTC inside EXIF": lambda: jpeg(segment(b"Exif\0\0" + exif_with(0x83BB, iptc()))),
    "IPTC in Photoshop's block": lambda: jpeg(segment(b"Photoshop 3.0\0" + resource(0x0404, iptc()),
        0xED)),
    "IPTC in two segments": lambda: jpeg(
        segment(b"Photoshop 3.0\0" + resource(0x0404, iptc())[:40], 0xED),
        segment(b"Photoshop 3.0\0" + resource(0x0404, iptc())[40:], 0xED)
    ),
    "EXIF and XMP in Photoshop's block": lambda: jpeg(
        segment(b"Photoshop 3.0\0" + resource(0x03ED, b"kept") + resource(0x0422,
            exif()) + resource(0x0424, XMPS["an element"]), 0xED)
    ),
    "extended XMP in two segments": extended_xmp,
    "the second of two images": mpo,
    "an image behind the image": thumbnail,
    "a film behind the image": lambda: jpeg(behind=video()),
    "a private segment": lambda: jpeg(segment(b"GoPro\0GPS5PLACE", 0xE6)),
    **{f"XMP, {name}": partial(jpeg, segment(XMP_HEAD + text)) for name, text in XMPS.items()},
}
# fmt: on
# fmt: off
OTHERS: dict[str, Callable[[], bytes]] = {
    "png: eXIf": lambda: png((b"eXIf", exif())),
    "png: XMP": lambda: with_info(XML_com_adobe_xmp=(XMPS["another prefix"].decode(), False)),
    "png: packed XMP": lambda: with_info(XML_com_adobe_xmp=(XMPS["another prefix"].decode(), True)),
    "png: XMP in tEXt": lambda: png((b"tEXt", b"XML:com.adobe.xmp\0" + XMPS["another prefix"])),
    "png: XMP in zTXt": lambda: png((b"zTXt",
        b"XML:com.adobe.xmp\0\0" + zlib.compress(XMPS["another prefix"]))),
    "png: raw profile of EXIF": lambda: png((b"zTXt",
        b"Raw profile type exif\0\0" + zlib.compress(profile("exif", b"Exif\0\0" + exif())))),
    "png: raw profile of APP1": lambda: png((b"tEXt",
        b"Raw profile type APP1\0" + profile("generic", b"Exif\0\0" + exif()))),
    "png: raw profile of IPTC": lambda: png((b"zTXt",
        b"Raw profile type iptc\0\0" + zlib.compress(profile("iptc", iptc())))),
    "png: a word of its own": lambda: png((b"tEXt", b"exif:GPSLatitude\0PLACE 51/1, 12/1")),
    "png: a private chunk": lambda: png((b"meTa", b"<gps>PLACE</gps>")),
    "png: a film behind it": lambda: png(behind=video()),
    "webp: EXIF": lambda: webp((b"EXIF", exif())),
    "webp: EXIF with a head": lambda: webp((b"EXIF", b"Exif\0\0" + exif())),
    "webp: XMP": lambda: webp((b"XMP ", XMPS["another prefix"])),
    "webp: a private chunk": lambda: webp((b"C2PA", b"PLACE")),
    "gif: XMP": lambda: gif(b"XMP DataXMP", XMPS["another prefix"] + MAGIC),
    "gif: XMP in sub-blocks": lambda: gif(b"XMP DataXMP", sub_blocks(XMPS["another prefix"])),
    "gif: XMP that is cut off": lambda: gif(b"XMP DataXMP", XMPS["cut off"] + MAGIC),
    "gif: a private block": lambda: gif(b"C2PA_GIF\1\0\0", sub_blocks(b"PLACE")),
    "avif: EXIF": lambda: avif(exif=exif()),
    "avif: EXIF with a head": lambda: avif(exif=b"Exif\0\0" + exif(">")),
    "avif: XMP": lambda: avif(xmp=XMPS["another prefix"]),
    "avif: a box of its own": lambda: avif() + box(b"uuid",
        bytes.fromhex("be7acfcb97a942e89c71999491e3afac") + XMPS["another prefix"]),
    "tiff: EXIF": lambda: saved("tiff", exif=_pillows()),
    "tiff: places on the ground, XMP, IPTC": geotiff,
}
# fmt: on


def _pillows() -> bytes:
    made = Image.Exif()
    place = made.get_ifd(ExifTags.IFD.GPSInfo)
    place[ExifTags.GPS.GPSLatitude], place[ExifTags.GPS.GPSMapDatum] = (51.0, 12.0, 34.5), "PLACE"
    return made.tobytes()


def corpus() -> dict[str, tuple[str, bytes]]:
    """Format and bytes by what it is."""
    made = {name: ("jpeg", make()) for name, make in JPEGS.items()}
    return made | {name: (name.split(":")[0], make()) for name, make in OTHERS.items()}
