"""Heads of answers as browsers read them: what has no meaning is passed over instead of losing a
image for it.

The library below refuses a head for a line without a colon, a length that is told twice or a blank
in the wrong place. So a head is set right before the library sees it. What would change how long
the body is stays refused: lengths that differ.
"""

import re
from typing import Any

from aiohttp.client_proto import ResponseHandler

_HEAD_BYTES = 256 * 1024
"""Bytes after which a head without an end is none; as much as browsers read."""
_FIELDS = 100
"""Fields that are handed on; the library takes 128. Those that are read come first."""
_STATUS = re.compile(rb"(?:HTTP|ICY)(?:/(\d+)(?:\.(\d+))?)?[ \t]+(\d{3})(?!\d)", re.IGNORECASE)
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = bytes(range(9)) + bytes(range(10, 32)) + b"\x7f"
# fmt: off
_READ = (
    b"content-length", b"transfer-encoding", b"connection", b"content-encoding", b"location",
    b"retry-after", b"x-robots-tag",
    b"tdm-reservation",
)
# fmt: on
_UNREAD = (b"set-cookie", b"set-cookie2", b"sec-websocket-key1")
"""Never handed on: nothing here wants them, and the library would take them apart."""
_WITHOUT_BODY = (204, 304)

Field = tuple[bytes, bytes]


class LenientHandler(ResponseHandler):
    """One connection. Sets heads right, leaves out announcements (1xx), and drops what comes after
    a body of known length.
    """

    _head: bytearray | None = None
    """What came of a head that is not whole yet; None while a body comes, or nothing was asked."""
    _looked = 0
    _left: int | None = None
    """Bytes of the body that are still to come; None where its end is marked in another way."""

    def set_response_params(self, **params: Any) -> None:
        self._head, self._looked, self._left = bytearray(), 0, None
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        if self._parser is None or not data:
            super().data_received(
                data
            )  # nothing was asked yet, or the library goes on with what it has
        elif self._head is None:
            self._body(data)
        else:
            self._head += data
            self._heads()

    def _heads(self) -> None:
        while self._head is not None:
            end = _end_of(self._head, self._looked)
            if end is None:
                self._looked = len(self._head)
                if len(self._head) > _HEAD_BYTES:
                    head, self._head = bytes(self._head), None
                    super().data_received(head[:_HEAD_BYTES] + b"\r\n\0")  # refused, as it says
                return
            head, rest = bytes(self._head[:end]), bytes(self._head[end:])
            right, status, self._left = set_right(head)
            if 100 <= status < 200 and status != 101:
                self._head, self._looked = bytearray(rest), 0
                continue
            self._head = None
            if self._left is not None and len(rest) > self._left:
                self.force_close()
            super().data_received(
                right + rest if self._left is None else right + rest[: self._left]
            )
            if self._left is not None:
                self._left = max(0, self._left - len(rest))

    def _body(self, data: bytes) -> None:
        if self._left is None:
            super().data_received(data)
            return
        if not self._left:
            # Nobody asked for more: the next answer on this connection would be taken for
            # another's.
            self.force_close()
            if self.transport is not None:
                self.transport.close()
            return
        if len(data) > self._left:
            self.force_close()
        mine = data[: self._left]
        self._left -= len(mine)
        super().data_received(mine)


def _end_of(head: bytearray, looked: int) -> int | None:
    """Where a head ends, with its empty line; None if it is not there yet. `looked`: bytes that
    were looked at before.
    """
    begin = len(head) - len(head.lstrip(b"\r\n"))
    start = max(begin, looked - 3)
    ends = [at + len(mark) for mark in (b"\n\r\n", b"\n\n") if (at := head.find(mark, start)) >= 0]
    return min(ends, default=None)


def set_right(head: bytes) -> tuple[bytes, int, int | None]:
    """A head as the library takes it, its status, and the length of the body where it is told in
    bytes.

    A head that makes no sense comes back as it was, with status 0, for the library to refuse.
    """
    first, _, rest = head.lstrip(b"\r\n").partition(b"\n")
    line = _STATUS.match(first)
    if line is None:
        return head, 0, None
    old = line[1] is None or (line[1], line[2]) in ((b"1", b"0"), (b"0", b"9"))
    status = int(line[3])
    fields = [field for field in _fields(rest) if field[0].lower() not in _UNREAD]
    fields, length, closing = _framed(fields)
    if closing:
        fields.append((b"Connection", b"close"))
    if len(fields) > _FIELDS:
        fields = sorted(fields, key=lambda field: field[0].lower() not in _READ)[:_FIELDS]
    lines = [
        b"HTTP/1.%d %03d -" % (not old, status),
        *(name + b": " + value for name, value in fields),
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n", status, 0 if status in _WITHOUT_BODY else length


def _fields(text: bytes) -> list[Field]:
    """The fields of a head without its first line. What is no field is left out; folded lines
    become one.
    """
    found: list[list[bytes]] = []
    for line in text.split(b"\n"):
        if line[:1] in (b" ", b"\t"):
            if found and line.strip():
                found[-1].append(line)
            continue
        found.append([line])
    fields = []
    for lines in found:
        name, colon, value = b" ".join(line.strip() for line in lines).partition(b":")
        name = name.strip()
        if colon and _NAME.fullmatch(name):
            fields.append((name, value.translate(None, _CONTROL).strip()))
    return fields


def _framed(fields: list[Field]) -> tuple[list[Field], int | None, bool]:
    """The fields with one statement of how long the body is; that length, if it is told; whether
    the connection is to be closed.
    """
    codings = [
        coding
        for value in _values(fields, b"transfer-encoding")
        for coding in (value.lower(),)
        if coding != b"identity"
    ]
    lengths = _values(fields, b"content-length")
    others = [
        field
        for field in fields
        if field[0].lower() not in (b"transfer-encoding", b"content-length")
    ]
    if codings:
        # RFC 9112, section 6.3: chunks count, a length beside them does not.
        said = b"chunked" if set(codings) == {b"chunked"} else b", ".join(codings)
        return [*others, (b"Transfer-Encoding", said)], None, bool(lengths)
    if len(set(lengths)) == 1:
        length = int(lengths[0]) if lengths[0].isdigit() and len(lengths[0]) < 19 else None
        return [*others, (b"Content-Length", lengths[0])], length, False
    return [*others, *((b"Content-Length", length) for length in lengths)], None, False


def _values(fields: list[Field], name: bytes) -> list[bytes]:
    """What is said under a name, piece by piece."""
    pieces = [
        piece.strip()
        for field, value in fields
        if field.lower() == name
        for piece in value.split(b",")
    ]
    return [piece for piece in pieces if piece]
