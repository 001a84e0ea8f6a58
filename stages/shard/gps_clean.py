"""What is a place in metadata, and overwriting it where it stands: EXIF and other TIFF structures,
XMP, IPTC, Photoshop blocks.

What counts as a place is what ExifTool puts into its group Location, as far as images can have
it: coordinates and heights, and names of cities, states, countries and sites.
"""

import re
import struct
from collections.abc import Callable, Iterator
from xml.parsers import expat

_POINTERS_TO_PLACES = frozenset((0x8825, 0x8290, 0xFE00))
"""Tags that lead to a directory of places: GPS (Exif 2.3, section 4.6.6), and two of Kodak's, which
may hold one.
"""
_PLACES = frozenset((33550, 33920, 33922, 34264, 34735, 34736, 34737, 42112))
"""Tags of GeoTIFF 1.1 and GDAL: where on the ground a raster lies."""
_PRIVATE = frozenset((0x927C, 0xC634))
"""Maker notes, and their copy in DNG: private formats, in which Nikon, Panasonic, Pentax, Samsung
and others write places.
"""
_DIRECTORIES = frozenset((0x014A, 0x8769, 0xA005))
_XMP_TAG, _IPTC_TAG, _PHOTOSHOP_TAG = 0x02BC, 0x83BB, 0x8649
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_MOST_DIRECTORIES = 256


def clean(block: bytearray, kind: str) -> None:
    """Overwrite the places in a block, in place; `kind` is that of `gps_blocks.Block`."""
    if kind == "exif":
        if not _clean_tiff(block):
            block[:] = bytes(len(block))
    elif kind == "tiff":
        # A damaged file of one TIFF structure loses what can be reached: all of it would be the
        # image.
        _clean_tiff(block)
    elif kind == "text":
        block[:] = b" " * len(block)
    else:
        {"xmp": clean_xmp, "iptc": clean_iptc, "photoshop": clean_photoshop, "private": _wipe}[
            kind
        ](block)


def _wipe(block: bytearray) -> None:
    block[:] = bytes(len(block))


# EXIF and TIFF (TIFF 6.0, section 2)


class _Tiff:
    """Walks the directories of a TIFF structure. `sound`: whether all of it could be understood."""

    def __init__(self, block: bytearray, order: str) -> None:
        self.block, self.order, self.sound, self.seen = block, order, True, set[int]()

    def walk(self, at: int) -> None:
        """Clean the chain of directories that begins at `at`, and those below it: of those readers
        follow no chain.
        """
        self.sound = at >= 8 and at + 2 <= len(self.block)
        waiting: list[int] = []
        while at:
            at = self._directory(at, waiting)
        while waiting:
            self._directory(waiting.pop(), waiting)

    def _directory(self, at: int, waiting: list[int]) -> int:
        """Clean the directory at `at`; where the next one is, or 0. Those that it leads to are
        added to `waiting`.
        """
        if at in self.seen or len(self.seen) >= _MOST_DIRECTORIES:
            self.sound &= at in self.seen
            return 0
        self.seen.add(at)
        count = self._entries(at)
        place = at + 2
        for _ in range(count):
            tag, kind, length, value = struct.unpack_from(f"{self.order}HHII", self.block, place)
            if tag in _POINTERS_TO_PLACES:
                self._wipe_directory(value)
            elif tag in _PLACES or tag in _PRIVATE:
                self._change(place, _wipe)
            else:
                if tag in _DIRECTORIES:
                    waiting += self._offsets(place, kind, length, value)
                elif tag == _XMP_TAG:
                    self._change(place, clean_xmp)
                elif tag == _IPTC_TAG:
                    self._change(place, clean_iptc)
                elif tag == _PHOTOSHOP_TAG:
                    self._change(place, clean_photoshop)
                place += 12
                continue
            # What follows moves up, the address of the next directory too.
            after = at + 2 + 12 * count
            tail = self.block[place + 12 : min(after + 4, len(self.block))]
            self.block[place : place + len(tail) + 12] = tail + bytes(12)
            count -= 1
            struct.pack_into(f"{self.order}H", self.block, at, count)
        after = at + 2 + 12 * count if at >= 8 else len(self.block)
        return (
            int(struct.unpack_from(f"{self.order}I", self.block, after)[0])
            if after + 4 <= len(self.block)
            else 0
        )

    def _entries(self, at: int) -> int:
        """How many entries the directory at `at` has, at most those that are there: readers take
        what they get.
        """
        if at < 8 or at + 2 > len(self.block):
            return 0
        count = int(struct.unpack_from(f"{self.order}H", self.block, at)[0])
        there = (len(self.block) - at - 2) // 12
        if count > there:
            self.sound = False
        return min(count, there)

    def _offsets(self, place: int, kind: int, length: int, value: int) -> list[int]:
        if length <= 1 or _SIZES.get(kind) != 4:
            return [value]
        there = max(min(length, _MOST_DIRECTORIES, (len(self.block) - value) // 4), 0)
        return list(struct.unpack_from(f"{self.order}{there}I", self.block, value))

    def _change(self, place: int, change: Callable[[bytearray], None]) -> None:
        """Let `change` work on the value of the entry at `place`."""
        _, kind, length, value = struct.unpack_from(f"{self.order}HHII", self.block, place)
        size = _SIZES.get(kind, 1) * length
        first = place + 8 if size <= 4 else value
        stop = min(first + size, len(self.block))
        if first >= stop:
            return
        content = self.block[first:stop]
        change(content)
        self.block[first:stop] = content

    def _wipe_directory(self, at: int) -> None:
        if at < 8 or at + 2 > len(self.block):
            return  # there is nothing where the pointer led, and it goes
        count = min(
            int(struct.unpack_from(f"{self.order}H", self.block, at)[0]),
            (len(self.block) - at - 2) // 12,
        )
        for place in range(at + 2, at + 2 + 12 * count, 12):
            self._change(place, _wipe)
            self.block[place : place + 12] = bytes(12)
        struct.pack_into(f"{self.order}H", self.block, at, 0)


def _clean_tiff(block: bytearray) -> bool:
    """Clean a TIFF structure; whether it could be understood."""
    order = {b"II": "<", b"MM": ">"}.get(bytes(block[:2]))
    if order is None or len(block) < 8:
        return not any(block)
    magic, at = struct.unpack_from(f"{order}HI", block, 2)
    if magic != 42:
        return False
    tiff = _Tiff(block, order)
    tiff.walk(at)
    return tiff.sound


# XMP (ISO 16684-1): RDF, in which a property is an element or an attribute; what it is called
# decides, whatever its prefix

# fmt: off
_PLACE_NAMES = frozenset((
    "city", "state", "country", "countrycode", "countryname", "provincestate", "sublocation",
    "worldregion", "ratingregion", "county",
    "locality", "municipality", "island", "islandgroup", "continent", "stateprovince", "waterbody",
    "coverage", "cellid", "cgi", "lac",
    "mcc", "mnc",
))
# fmt: on
_IN_NAMES = ("gps", "latitude", "longitude", "longtitude", "altitude", "elevation", "coordinate")
_BEGINNINGS = ("location", "geo", "footprint", "verbatim")
_SIGNS = re.compile(
    rb"gps|latitude|longt?itude|altitude|location|city|country|state|region|geo|coordinate",
    re.IGNORECASE,
)
_NAME = re.compile(rb"<[^\s=<>/\"']+")
_ATTRIBUTE = re.compile(rb"\s+([^\s=<>/\"']+)\s*=\s*(?:\"[^\"]*\"|'[^']*')")
_TAG_END = re.compile(rb"\s*(/?)>")


class _Unclear(ValueError):
    """XML that is not searched: it declares entities, or names things in a way that this module
    does not follow.
    """


def _is_place(name: str) -> bool:
    local = name.rpartition(":")[2].casefold()
    return (
        local in _PLACE_NAMES
        or local.startswith(_BEGINNINGS)
        or any(part in local for part in _IN_NAMES)
    )


def clean_xmp(block: bytearray) -> None:
    """Overwrite elements and attributes that are places with blanks; all of it where it names one
    and is no XML in UTF-8.
    """
    text = bytes(block)
    begin = text.find(b"<")
    stop = len(text.rstrip(b"\0 \t\r\n"))
    try:
        spans = list(_places_in(text[begin:stop])) if begin >= 0 else []
    except (expat.ExpatError, _Unclear):
        spans = [(0, len(block))]
        begin = 0
        if not _SIGNS.search(text.replace(b"\0", b"")) and b"<!ENTITY" not in text:
            return
    else:
        if b"\0" in text[:stop] or (begin < 0 and _SIGNS.search(text)):
            spans, begin = [(0, len(block))], 0
    for first, last in spans:
        block[begin + first : begin + last] = b" " * (last - first)


def _places_in(text: bytes) -> Iterator[tuple[int, int]]:
    """First byte and last byte + 1 of each place in XML. Raises ExpatError, _Unclear."""
    found: list[tuple[int, int]] = []
    parser = expat.ParserCreate("UTF-8")
    depth, opened = 0, 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth, opened
        if depth:
            depth += 1
        elif _is_place(name):
            depth, opened = 1, parser.CurrentByteIndex
        elif any(map(_is_place, attributes)):
            found.extend(_attributes(text, parser.CurrentByteIndex))

    def end(name: str) -> None:
        nonlocal depth
        if depth:
            depth -= 1
            if not depth:
                found.append((opened, _end_of(text, opened, parser.CurrentByteIndex)))

    def refuse(*_: object) -> None:
        raise _Unclear("a document type")

    parser.StartElementHandler, parser.EndElementHandler, parser.StartDoctypeDeclHandler = (
        start,
        end,
        refuse,
    )
    parser.Parse(text, True)
    return iter(found)


def _attributes(text: bytes, at: int) -> Iterator[tuple[int, int]]:
    """The places among the attributes of the tag at `at`."""
    name = _NAME.match(text, at)
    if name is None:
        raise _Unclear("a tag")
    at = name.end()
    while (one := _ATTRIBUTE.match(text, at)) is not None:
        if _is_place(one[1].decode(errors="replace")):
            yield one.start(), one.end()
        at = one.end()
    if _TAG_END.match(text, at) is None:
        raise _Unclear("a tag")


def _end_of(text: bytes, opened: int, closing: int) -> int:
    """Where the element ends that was opened by one tag and closed by another, or by itself."""
    name = _NAME.match(text, opened)
    at = name.end() if name else opened
    while (one := _ATTRIBUTE.match(text, at)) is not None:
        at = one.end()
    tag = _TAG_END.match(text, at)
    if tag is None:
        raise _Unclear("a tag")
    return tag.end() if tag[1] else text.index(b">", closing) + 1


# IPTC (IIM 4.2) and Photoshop's blocks that it travels in

_IPTC_PLACES = frozenset(((1, 5), (2, 26), (2, 27), (2, 90), (2, 92), (2, 95), (2, 100), (2, 101)))
"""Record and dataset: destination, content location, city, sublocation, state and country."""
_IPTC_NOTHING = 255
"""A dataset of record 2 that has no meaning: what was a place becomes one."""
_IPTC_IN, _EXIF_IN, _XMP_IN = (0x0404,), (0x0422, 0x0423), (0x0424,)


def clean_iptc(block: bytearray) -> None:
    """Overwrite the places of IPTC datasets with ones of blanks, and with zeros what cannot be read
    from there on.
    """
    at = 0
    while at + 5 <= len(block) and block[at] == 0x1C:
        record, dataset, size = struct.unpack_from(">BBH", block, at + 1)
        head, at = at, at + 5
        if size & 0x8000:
            long = size & 0x7FFF
            size = int.from_bytes(block[at : at + long], "big")
            at += long
        stop = min(at + size, len(block))
        if (record, dataset) in _IPTC_PLACES:
            block[head : head + 3] = bytes((0x1C, 2, _IPTC_NOTHING))
            block[at:stop] = b" " * max(stop - at, 0)
        at = stop
    block[at:] = bytes(len(block) - at)


def clean_photoshop(block: bytearray) -> None:
    """Clean the image resources of Photoshop that hold metadata; with zeros what cannot be read
    from there on.
    """
    at = 0
    while at + 12 <= len(block) and bytes(block[at : at + 4]) in (
        b"8BIM",
        b"PHUT",
        b"AgHg",
        b"DCSR",
        b"MeSa",
    ):
        number = int.from_bytes(block[at + 4 : at + 6], "big")
        name = 1 + block[at + 6]
        first = at + 6 + name + (name & 1)
        size = int.from_bytes(block[first : first + 4], "big")
        first += 4
        stop = min(first + size, len(block))
        kind = (
            "iptc"
            if number in _IPTC_IN
            else "exif"
            if number in _EXIF_IN
            else "xmp"
            if number in _XMP_IN
            else None
        )
        if kind and first < stop:
            content = block[first:stop]
            clean(content, kind)
            block[first:stop] = content
        at = stop + (size & 1)
    block[at:] = bytes(max(len(block) - at, 0))
