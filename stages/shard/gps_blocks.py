"""Where the metadata of an image lies, format by format: stretches of bytes and what they hold.
Nothing is changed here.

Parts of one thing that lie apart (long EXIF, extended XMP and Photoshop blocks of JPEG, items of
AVIF) are one block.
"""

import re
import struct
import zlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass

from stages.picture_headers import box_in, boxes_in

Span = tuple[int, int]
_Groups = dict[bytes, list[tuple[int, Span]]]
"""Parts of one thing by what it is, with their places in it."""


@dataclass(frozen=True)
class Block:
    """Bytes that belong together: `spans` are first byte and last byte + 1, in order.

    Kinds: `exif` and `tiff`, a TIFF structure, the second being the image itself; `xmp`; `iptc`;
    `photoshop`; `private`, which is overwritten whole with zeros; `text`, the same with blanks.
    """

    kind: str
    spans: tuple[Span, ...]


def blocks(data: bytes, format: str) -> Iterator[Block]:
    """All that may hold a place. `format` is that of `images.format`; BMP has no metadata. Damaged
    files give what can be found.
    """
    walk = {
        "jpeg": _jpegs,
        "png": _png,
        "webp": _webp,
        "gif": _gif,
        "avif": _avif,
        "tiff": _tiff,
    }.get(format)
    for block in walk(data) if walk else ():
        spans = tuple(
            (first, min(stop, len(data)))
            for first, stop in block.spans
            if first < min(stop, len(data))
        )
        if spans:
            yield Block(block.kind, spans)


def _tiff(data: bytes) -> Iterator[Block]:
    yield Block("tiff", ((0, len(data)),))


def _rest(data: bytes, first: int, stop: int) -> Iterator[Block]:
    """What stands behind an image and is none; fill bytes are nothing."""
    if data[first:stop].strip(b"\0\xff \r\n\t"):
        yield Block("private", ((first, stop),))


# JPEG (ITU T.81; Exif 2.3; CIPA DC-007 for several images in one file)

_EXIF, _XMP, _MORE_XMP = (
    b"Exif\0\0",
    b"http://ns.adobe.com/xap/1.0/\0",
    b"http://ns.adobe.com/xmp/extension/\0",
)
_PHOTOSHOP = b"Photoshop 3.0\0"
_ODD_EXIF = re.compile(rb".{0,4}exif\0.", re.DOTALL | re.IGNORECASE)
_XML = re.compile(rb"<x:xmpmeta|<rdf:RDF|<\?xpacket|<exif:|^http", re.IGNORECASE)
_MORE_XMP_HEAD = len(_MORE_XMP) + 32 + 8
"""Before a stretch of extended XMP: its signature, 32 hex digits that name the whole, the length of
that and the offset.
"""
# fmt: off
_OWN = {
    0xE0: (b"JFIF\0", b"JFXX\0"), 0xE2: (b"ICC_PROFILE\0", b"MPF\0",
        b"urn:iso:std:iso:ts:21496:-1\0"), 0xE8: (b"SPIFF\0",),
    0xEB: (b"HDR_RI",), 0xEC: (b"Ducky",), 0xEE: (b"Adobe",),
}
# fmt: on
"""Application segments without places, by marker: sizes, colours, other images of the file."""
_IN_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")


def _jpegs(data: bytes) -> Iterator[Block]:
    """The image, those behind it, and what else is there."""
    more: set[int] = set()
    walked = {0}
    at = yield from _jpeg(data, 0, more)
    while at < len(data):
        if data.startswith(b"\xff\xd8\xff", at):
            walked.add(at)
            at = yield from _jpeg(data, at, more)
        else:
            following = min((place for place in more if place > at), default=len(data))
            yield from _rest(data, at, following)
            at = following
    for at in sorted(more - walked):  # a damaged image hides where the next one begins
        yield from _jpeg(data, at, set())


def _jpeg(data: bytes, at: int, more: set[int]) -> Generator[Block, None, int]:
    """One image from its first byte; returns where it ends. `more` gets the places of others that
    it names.
    """
    groups: _Groups = {_EXIF: [], _PHOTOSHOP: []}
    at += 2
    while at + 4 <= len(data):
        if (
            data[at] != 0xFF or data[at + 1] == 0
        ):  # not where a marker should be: readers look for the next one
            found = _IN_SCAN.search(data, at)
            if found is None:
                at = len(data)
                break
            at = found.start()
            continue
        marker = data[at + 1]
        if marker == 0xFF:  # fill
            at += 1
            continue
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:
            at += 2
            continue
        if marker == 0xD9:
            at += 2
            break
        stop = at + 2 + max(int.from_bytes(data[at + 2 : at + 4], "big"), 2)
        if 0xE0 <= marker <= 0xEF:
            yield from _segment(data, marker, at + 4, stop, groups, more)
        at = stop
        if marker == 0xDA:
            found = _IN_SCAN.search(data, at)
            at = len(data) if found is None else found.start()
    else:
        at = len(data)
    yield from _grouped(data, groups)
    return at


def _segment(
    data: bytes, marker: int, body: int, stop: int, groups: _Groups, more: set[int]
) -> Iterator[Block]:
    content = data[body:stop]
    if marker == 0xE1:
        odd = _ODD_EXIF.match(content)
        if content.startswith(_EXIF):
            groups[_EXIF].append((0, (body + len(_EXIF), stop)))
        elif odd:
            yield Block("exif", ((body + odd.end(), stop),))
        elif content.startswith(_MORE_XMP):
            offset = int.from_bytes(content[_MORE_XMP_HEAD - 4 : _MORE_XMP_HEAD], "big")
            groups.setdefault(content[: len(_MORE_XMP) + 32], []).append(
                (offset, (body + _MORE_XMP_HEAD, stop))
            )
        elif _XML.search(content):
            yield Block("xmp", ((body + (len(_XMP) if content.startswith(_XMP) else 0), stop),))
        else:
            yield from _rest(data, body, stop)
    elif marker == 0xED and content.startswith(_PHOTOSHOP):
        groups[_PHOTOSHOP].append((0, (body + len(_PHOTOSHOP), stop)))
    elif marker == 0xE2 and content.startswith(b"MPF\0"):
        more.update(_pictures(data, body + 4, stop))
    elif not content.startswith(_OWN.get(marker, ())):
        yield from _rest(data, body, stop)


def _grouped(data: bytes, groups: _Groups) -> Iterator[Block]:
    for kind, parts in groups.items():
        spans = tuple(span for _, span in sorted(parts))
        if kind == _EXIF:
            # Some readers take several segments for one long structure, others each for itself.
            if spans:
                yield Block("exif", spans)
            for first, stop in spans[1:]:
                if data.startswith((b"II*\0", b"MM\0*"), first):
                    yield Block("exif", ((first, stop),))
        elif spans:
            yield Block("photoshop" if kind == _PHOTOSHOP else "xmp", spans)


def _pictures(data: bytes, first: int, stop: int) -> Iterator[int]:
    """Where further images begin, by the index of a multi-picture file (tag 0xB002: 16 bytes a
    image).
    """
    order = {b"II": "<", b"MM": ">"}.get(data[first : first + 2])
    try:
        (at,) = struct.unpack_from(f"{order}I", data, first + 4)
        (count,) = struct.unpack_from(f"{order}H", data, first + at)
        for entry in range(first + at + 2, min(first + at + 2 + 12 * count, stop), 12):
            tag, _, length, value = struct.unpack_from(f"{order}HHII", data, entry)
            for number in range(length // 16 if tag == 0xB002 else 0):
                (offset,) = struct.unpack_from(f"{order}I", data, first + value + 16 * number + 8)
                if offset and data.startswith(b"\xff\xd8", first + offset):
                    yield first + offset
    except struct.error:
        return


# PNG (ISO 15948)

_PNG_OWN = frozenset(
    b"IHDR PLTE IDAT IEND tRNS cHRM gAMA iCCP sBIT sRGB cICP mDCV mDCv cLLI cLLi bKGD hIST pHYs "
    b"sPLT tIME acTL fcTL fdAT iDOT sTER oFFs"
    b" pCAL sCAL vpAg CgBI".split()
)
_NAMES_PLACE = re.compile(rb"gps|latitude|longt?itude|location|geo", re.IGNORECASE)
_XMP_WORD = b"XML:com.adobe.xmp"
_MOST_UNPACKED = 1_000_000


def _png(data: bytes) -> Iterator[Block]:
    end = 8
    for kind, first, stop in _png_chunks(data):
        end = stop + 4
        if kind == b"eXIf":
            yield Block(
                "exif", ((first + (len(_EXIF) if data.startswith(_EXIF, first) else 0), stop),)
            )
        elif kind in (b"iTXt", b"tEXt", b"zTXt"):
            yield from _png_text(data, kind, first, stop)
        elif kind not in _PNG_OWN:
            yield from _rest(data, first, stop)
        if kind == b"IEND":
            break
    yield from _rest(data, end, len(data))


def _png_text(data: bytes, kind: bytes, first: int, stop: int) -> Iterator[Block]:
    word, _, rest = data[first:stop].partition(b"\0")
    begin = first + len(word) + 1
    text, packed = rest, kind == b"zTXt"
    if packed:
        text = rest[1:]
    elif kind == b"iTXt":
        packed = rest[:1] != b"\0"
        text = rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    at = stop - len(text)
    if word.startswith(b"Raw profile"):
        yield Block("private", ((begin, stop),))  # EXIF, IPTC or XMP in hexadecimal, packed or not
    elif packed:
        if _NAMES_PLACE.search(word) or _packs_a_place(text):
            yield Block("private", ((at, stop),))
    elif _NAMES_PLACE.search(word):
        yield Block("text", ((at, stop),))
    elif word == _XMP_WORD or _XML.search(text):
        yield Block("xmp", ((at, stop),))


def _packs_a_place(packed: bytes) -> bool:
    from stages.shard.gps_clean import clean

    try:
        unpacking = zlib.decompressobj()
        text = bytearray(unpacking.decompress(packed, _MOST_UNPACKED))
    except zlib.error:
        return True
    before = bytes(text)
    if not _XML.search(before) and not unpacking.unconsumed_tail:
        return False
    clean(text, "xmp")
    return bool(unpacking.unconsumed_tail) or bytes(text) != before


def _png_chunks(data: bytes | bytearray) -> Iterator[tuple[bytes, int, int]]:
    at = 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if at + 12 + length > len(data):
            return
        yield bytes(data[at + 4 : at + 8]), at + 8, at + 8 + length
        at += 12 + length


def renew_checksums(made: bytearray) -> None:
    """Of all chunks of a PNG, in place."""
    for _, first, stop in list(_png_chunks(made)):
        made[stop : stop + 4] = zlib.crc32(memoryview(made)[first - 4 : stop]).to_bytes(4, "big")


# WebP (RFC 9649)

_WEBP_OWN = frozenset((b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP"))


def _webp(data: bytes) -> Iterator[Block]:
    at = 12
    while at + 8 <= len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        kind, first, stop = data[at : at + 4], at + 8, min(at + 8 + length, len(data))
        if kind == b"EXIF":
            odd = _ODD_EXIF.match(data, first, stop)
            yield Block("exif", ((odd.end() if odd else first, stop),))
        elif kind in (b"XMP ", b"XMP\0"):
            yield Block("xmp", ((first, stop),))
        elif kind not in _WEBP_OWN:
            yield from _rest(data, first, stop)
        at = stop + (length & 1)


# GIF (version 89a, with the XMP of the XMP specification, part 3, section 1.1.2)

_GIF_OWN = (b"NETSCAPE2.0", b"ANIMEXTS1.0", b"ICCRGBG1012")
_XMP_GIF = b"XMP DataXMP"
_MAGIC = re.compile(rb"\x01\xff\xfe\xfd")


def _gif(data: bytes) -> Iterator[Block]:
    at = 13 + (3 << ((data[10] & 7) + 1) if len(data) > 10 and data[10] & 0x80 else 0)
    while at + 1 < len(data):
        if data[at] == 0x2C:
            colours = data[at + 9] if at + 9 < len(data) else 0
            at += 11 + (3 << ((colours & 7) + 1) if colours & 0x80 else 0)
            at = _sub_blocks(data, at)[1]
        elif data[at] == 0x21 and data[at + 1] == 0xFF and data[at + 2 : at + 3] == b"\x0b":
            name, first = data[at + 3 : at + 14], at + 14
            spans, at = _sub_blocks(data, first)
            if (
                name == _XMP_GIF
                and data[first : first + 1] != b"\xff"
                and data[first : first + 1] in b"<\xef"
            ):
                # The text stands there as it is; its letters are read as lengths until the numbers
                # behind it end the chain.
                magic = _MAGIC.search(data, first, at)
                yield Block("xmp", ((first, magic.start() if magic else at - 1),))
            elif name == _XMP_GIF:
                yield Block("xmp", tuple(spans))
            elif name not in _GIF_OWN and spans:
                yield Block("private", tuple(spans))
        elif data[at] == 0x21:
            at = _sub_blocks(data, at + 2)[1]
        else:
            return


def _sub_blocks(data: bytes, at: int) -> tuple[list[Span], int]:
    """The contents of a chain of sub-blocks, and where it ends."""
    spans: list[Span] = []
    while at < len(data) and data[at]:
        spans.append((at + 1, at + 1 + data[at]))
        at += 1 + data[at]
    return spans, at + 1


# AVIF (ISO 14496-12; ISO 23008-12)

_AVIF_OWN = (b"ftyp", b"mdat", b"free", b"skip", b"wide")
_DEEP = (b"moov", b"trak", b"mdia")
_PICTURES = (b"pict", b"vide", b"auxv", b"soun")


def _avif(data: bytes) -> Iterator[Block]:
    for kind, first, stop in boxes_in(data, (0, len(data))):
        if kind == b"meta":
            yield from _items(data, first + 4, stop)
        elif kind in _DEEP:
            yield from _film(data, first, stop)
        elif kind not in _AVIF_OWN:
            yield from _rest(data, first, stop)


def _film(data: bytes, first: int, stop: int) -> Iterator[Block]:
    """Of an animation: what its users wrote, and tracks that are neither image nor sound."""
    for kind, begin, end in boxes_in(data, (first, stop)):
        if kind in (b"udta", b"meta", b"uuid"):
            yield from _rest(data, begin, end)
        elif kind == b"trak":
            media = box_in(data, (begin, end), b"mdia")
            handler = box_in(data, media, b"hdlr") if media else None
            if handler is None or data[handler[0] + 8 : handler[0] + 12] not in _PICTURES:
                yield Block(
                    "private", ((begin - 4, end),)
                )  # with its name, which becomes one that nobody knows
            else:
                yield from _film(data, begin, end)
        elif kind in _DEEP:
            yield from _film(data, begin, end)


def _items(data: bytes, first: int, stop: int) -> Iterator[Block]:
    """EXIF and texts among the items of a box `meta`."""
    where = (first, stop)
    kinds = dict(_item_kinds(data, where))
    inside = box_in(data, where, b"idat")
    for item, spans in _item_places(data, where, inside[0] if inside else None):
        kind, about = kinds.get(item, (b"", b""))
        content = b"".join(data[begin:end] for begin, end in spans)
        if kind == b"Exif":
            # Four bytes say how far it is from there to the TIFF structure.
            yield Block(
                "exif",
                tuple(_without(spans, min(4 + int.from_bytes(content[:4], "big"), len(content)))),
            )
        elif (
            kind in (b"mime", b"uri ")
            and b"rdf+xml" in about
            and not about.rstrip(b"\0").endswith((b"deflate", b"gzip", b"br"))
        ):
            yield Block("xmp", tuple(spans))
        elif kind in (b"mime", b"uri "):
            yield Block("private", tuple(spans))
    for kind, begin, end in boxes_in(data, where):
        if kind in (b"uuid", b"udta", b"xml ", b"bxml", b"jumb"):
            yield from _rest(data, begin, end)


def _without(spans: list[Span], count: int) -> Iterator[Span]:
    """The spans without their first bytes."""
    for begin, end in spans:
        cut = min(count, end - begin)
        count -= cut
        if begin + cut < end:
            yield begin + cut, end


def _item_kinds(data: bytes, where: Span) -> Iterator[tuple[int, tuple[bytes, bytes]]]:
    """Number, type and what follows it (name, content type) of each item."""
    found = box_in(data, where, b"iinf")
    if found is None:
        return
    for kind, at, end in boxes_in(data, (found[0] + (6 if data[found[0]] == 0 else 8), found[1])):
        if kind != b"infe" or data[at] < 2:
            continue
        wide = data[at] > 2
        number = int.from_bytes(data[at + 4 : at + (8 if wide else 6)], "big")
        at += 10 if wide else 8  # the number, and that of its protection
        yield number, (data[at : at + 4], data[at + 4 : end])


def _item_places(data: bytes, where: Span, inside: int | None) -> Iterator[tuple[int, list[Span]]]:
    """Where each item lies: box `iloc`. `inside`: where the box `idat` begins."""
    found = box_in(data, where, b"iloc")
    if found is None:
        return
    at, end = found
    version, sizes, more = data[at], data[at + 4], data[at + 5]
    offset_size, length_size, base_size, index_size = (
        sizes >> 4,
        sizes & 15,
        more >> 4,
        more & 15 if version else 0,
    )
    at += 6
    wide = 4 if version == 2 else 2

    def number(size: int) -> int:
        nonlocal at
        value = int.from_bytes(data[at : at + size], "big")
        at += size
        return value

    for _ in range(min(number(wide), len(data))):
        if at >= end:
            return
        item = number(wide)
        way = number(2) & 15 if version else 0
        number(2)
        base = number(base_size)
        spans = []
        for _ in range(min(number(2), len(data))):
            if at >= end:
                break
            number(index_size)
            offset, length = number(offset_size), number(length_size)
            begin = base + offset + ((inside or 0) if way == 1 else 0)
            if way < 2 and (way == 0 or inside is not None) and begin < len(data):
                spans.append((begin, min(begin + length, len(data)) if length else len(data)))
        yield item, spans
