"""Bodies of answers, unpacked piece by piece and with a limit: a small body may unpack to a large
one.
"""

import zlib
from collections.abc import Iterator

_PACKED = {"gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate"}
_UNKNOWN = (
    "br",
    "zstd",
    "compress",
    "x-compress",
    "lzma",
    "xz",
    "bzip2",
    "dcb",
    "dcz",
    "exi",
    "pack200-gzip",
)
"""Codings that exist and cannot be undone here. Any other name is none: servers put charsets and
types there.
"""
_LAYERS = 3
_MEMBERS = 4096
"""Members of a gzip body that are unpacked; empty ones without end would cost time and give
nothing.
"""
_GZIP = b"\x1f\x8b"


class BadEncoding(Exception):
    """A Content-Encoding that is not undone here; the message names it."""


class Unpacker:
    """Undoes the Content-Encoding of one body. `most`: bytes that it may unpack to; more are not
    made.
    """

    def __init__(self, encoding: str, most: int) -> None:
        names = [name for part in encoding.split(",") if (name := part.strip().lower())]
        bad = next((name for name in names if name in _UNKNOWN), None)
        layers = [_PACKED[name] for name in reversed(names) if name in _PACKED]
        if bad is not None or len(layers) > _LAYERS:
            raise BadEncoding(f"Content-Encoding {encoding[:80]!r}")
        self._layers = [_Gzip() if layer == "gzip" else _Deflate() for layer in layers]
        self.most, self.size = most, 0
        self._read = 0

    def __call__(self, data: bytes) -> bytes:
        """What a piece unpacks to, up to a byte more than `most` in all. Raises zlib.error.

        `size` counts these bytes. A body that is packed and still much larger than `most` counts as
        too large, too: what comes behind its end has none.
        """
        self._read += len(data)
        for layer in self._layers:
            data = b"".join(layer.unpack(data, self.most + 1))
        made = data[: self.most + 1 - self.size]
        self.size += len(made)
        if self._read > self.most + self.most // 8 + 65536:
            self.size = max(self.size, self.most + 1)
        return made

    @property
    def whole(self) -> bool:
        """Whether the body may end here."""
        return all(layer.whole for layer in self._layers)


class _Gzip:
    """Members one after the other (RFC 1952, section 2.2). What comes behind them and is none, as
    zeros, is passed over.
    """

    def __init__(self) -> None:
        self._member = zlib.decompressobj(zlib.MAX_WBITS | 16)
        self._members = 1
        self._made = 0
        self._rest: bytes | None = None
        """What came behind a member, until it shows whether that is another one; None within a
        member.
        """
        self._over = False

    @property
    def whole(self) -> bool:
        return self._over or self._rest is not None

    def unpack(self, data: bytes, most: int) -> Iterator[bytes]:
        while data and not self._over and self._made < most:
            if self._rest is not None:
                data, self._rest = self._rest + data, b""
                if len(data) < len(_GZIP) and _GZIP.startswith(data):
                    self._rest = data
                    return
                if not data.startswith(_GZIP):
                    self._over = True
                    return
                self._members += 1
                if self._members > _MEMBERS:
                    raise zlib.error(f"more than {_MEMBERS} members of gzip")
                self._member, self._rest = zlib.decompressobj(zlib.MAX_WBITS | 16), None
            made = self._member.decompress(data, most - self._made)
            self._made += len(made)
            yield made
            if not self._member.eof:
                return
            data, self._rest = self._member.unused_data, b""


class _Deflate:
    """zlib's format (RFC 1950), which is what the name means, or bare deflate (RFC 1951), which
    some servers send.
    """

    def __init__(self) -> None:
        self._head = b""
        self._stream: zlib._Decompress | None = None
        self._made = 0

    @property
    def whole(self) -> bool:
        return self._stream is not None and self._stream.eof

    def unpack(self, data: bytes, most: int) -> Iterator[bytes]:
        if self._stream is None:
            data, self._head = self._head + data, b""
            if len(data) < 2:
                self._head = data
                return
            with_head = (
                data[0] & 0x0F == zlib.DEFLATED and int.from_bytes(data[:2], "big") % 31 == 0
            )
            self._stream = zlib.decompressobj(zlib.MAX_WBITS if with_head else -zlib.MAX_WBITS)
        if self._made < most and not self._stream.eof:
            made = self._stream.decompress(data, most - self._made)
            self._made += len(made)
            yield made
