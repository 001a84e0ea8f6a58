"""Packed bodies: what every browser unpacks is unpacked, whatever the pieces in which it comes, and
never beyond a limit.
"""

import gzip
import zlib
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.crawl.web.bodies import BadEncoding, Unpacker

DATA = bytes(range(256)) * 40


def bare(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def unpacked(encoding: str, data: bytes, size: int = 1000, most: int = 10**6) -> tuple[bytes, bool]:
    unpack = Unpacker(encoding, most)
    return b"".join(unpack(piece) for piece in pieces(data, size)), unpack.whole


# fmt: off
PACKED = [
    ("gzip", gzip.compress(DATA)), ("x-gzip", gzip.compress(DATA)), ("GZip", gzip.compress(DATA)),
    (" gzip ", gzip.compress(DATA)),
    ("gzip", gzip.compress(DATA[:99]) + gzip.compress(DATA[99:])),
    ("gzip", b"".join(gzip.compress(DATA[n : n + 64]) for n in range(0, 10240, 64))),
    ("gzip", gzip.compress(DATA) + bytes(600)), ("gzip", gzip.compress(DATA) + b"rubbish"), ("gzip",
        gzip.compress(DATA) + b"\x1f"),
    ("gzip", gzip.compress(b"") + gzip.compress(DATA) + gzip.compress(b"")), ("deflate",
        zlib.compress(DATA)), ("deflate", bare(DATA)),
    ("deflate", zlib.compress(DATA, 1)), ("deflate", zlib.compress(DATA) + b"more"),
    ("gzip, identity", gzip.compress(DATA)),
    ("identity, gzip", gzip.compress(DATA)), ("deflate, gzip", gzip.compress(zlib.compress(DATA))),
    ("gzip, gzip", gzip.compress(gzip.compress(DATA))),
    *((name, DATA) for name in ("", "identity", "none", "utf-8", "UTF-8", "binary", "8bit",
                              "base64", "image/jpeg", "aws-chunked", ",", "x" * 5000)),
]
# fmt: on


@pytest.mark.parametrize("size", [1, 7, 10**6])
@pytest.mark.parametrize(
    ("encoding", "data"), PACKED, ids=lambda value: value[:12] if isinstance(value, str) else ""
)
def test_bodies_unpack_in_any_pieces(encoding: str, data: bytes, size: int) -> None:
    assert unpacked(encoding, data, size) == (DATA, True)


@pytest.mark.parametrize(
    "encoding", ["br", "zstd", "compress", "gzip, br", "BR", "gzip, gzip, gzip, gzip"]
)
def test_what_cannot_be_unpacked_is_told(encoding: str) -> None:
    with pytest.raises(BadEncoding, match=encoding):
        Unpacker(encoding, 100)


@pytest.mark.parametrize(
    "data", [gzip.compress(DATA)[:-9], gzip.compress(DATA) + gzip.compress(DATA)[:50], b"\x1f", b""]
)
def test_what_ends_too_early_is_not_whole(data: bytes) -> None:
    assert not unpacked("gzip", data)[1]


@pytest.mark.parametrize(
    ("encoding", "data"),
    [("gzip", DATA), ("deflate", b"\xff" * 99), ("gzip", gzip.compress(DATA)[:-8] + bytes(8))],
)
def test_what_is_not_packed_as_it_says_is_an_error(encoding: str, data: bytes) -> None:
    with pytest.raises(zlib.error):
        unpacked(encoding, data)


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("gzip", gzip.compress(bytes(10**8))),
        ("deflate", bare(bytes(10**8))),
        ("gzip, gzip", gzip.compress(gzip.compress(bytes(10**8)))),
        ("gzip", gzip.compress(bytes(10**5)) * 50),
        ("", bytes(10**6)),
        ("gzip", gzip.compress(b"x") + bytes(10**6)),
    ],
)
def test_nothing_unpacks_beyond_the_limit(encoding: str, data: bytes) -> None:
    unpack = Unpacker(encoding, 50_000)
    made = 0
    for piece in pieces(data, 4096):
        made += len(unpack(piece))
        if unpack.size > 50_000:
            break
    assert made <= 50_001
    assert unpack.size > 50_000


def test_members_without_end_end() -> None:
    with pytest.raises(zlib.error, match="members"):
        unpacked("gzip", gzip.compress(b"") * 5000, 65536)


@settings(max_examples=200)
@given(
    st.lists(st.sampled_from(["gzip", "deflate", "x", ""]), max_size=4),
    st.binary(max_size=300),
    st.integers(1, 50),
)
def test_any_bytes_unpack_or_are_an_error(names: list[str], data: bytes, size: int) -> None:
    try:
        made, _ = unpacked(", ".join(names), data, size, most=200)
    except (zlib.error, BadEncoding):
        return
    assert len(made) <= 201
