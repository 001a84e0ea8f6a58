"""Take the place where a photograph was taken out of its bytes, and touch nothing else.

Nothing is re-encoded and nothing moves: what readers take for a place, coordinates as well as names
of cities and countries, is overwritten where it stands, and checksums that go over it are renewed.
What cannot be searched is overwritten whole: metadata that cannot be understood, packed metadata
that names a place, and private formats (maker notes, unknown segments, whatever stands behind the
image and is none), in many of which cameras and telephones write places.

`gps_blocks` says where metadata lies, `gps_clean` what is a place in it.
"""

from stages.shard.gps_blocks import blocks, renew_checksums
from stages.shard.gps_clean import clean

VERSION = 2
"""Raised by whoever changes the bytes that the same image gives."""


def strip_gps(data: bytes, format: str) -> bytes:
    """`data` without places, of the same length; `data` itself where there are none. `format` is
    that of `images.format`.
    """
    made = bytearray(data)
    for block in blocks(data, format):
        content = bytearray(b"".join(made[first:stop] for first, stop in block.spans))
        clean(content, block.kind)
        at = 0
        for first, stop in block.spans:
            made[first:stop] = content[at : at + stop - first]
            at += stop - first
    if made == data:
        return data
    if format == "png":
        renew_checksums(made)
    return bytes(made)
