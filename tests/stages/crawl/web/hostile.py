"""Answers of servers that send anything at all, and a real server that sends them.

A grammar makes answers from parts that are right, parts that are wrong in ways that were seen, and
bytes at random: first lines, fields, encodings, lengths, redirects, site files, and how the
connection ends.
"""

import asyncio
import contextlib
import gzip
import random
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.stages.crawl.web.servers import PICTURE

Part = bytes | Callable[[], bytes]


@dataclass(frozen=True)
class Answer:
    """What a path says: bytes, and how the connection ends: closed, cut off, left open in silence,
    or kept for more.
    """

    said: bytes
    end: str = "closed"


NOTHING = Answer(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


@dataclass
class Server:
    """Answers by host and path, or by host; of any other host as it should be: images, and no
    rules.
    """

    answers: Mapping[str, Answer] = field(default_factory=dict)
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(
                ConnectionError,
                asyncio.IncompleteReadError,
                asyncio.LimitOverrunError,
                asyncio.CancelledError,
            ):
                while await self._answered(reader, writer):
                    pass
        finally:
            writer.close()

    async def _answered(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer a request; whether another may come."""
        request = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        host = request.partition("\r\nHost: ")[2].partition("\r\n")[0].partition(":")[0]
        path = request.split(" ", 2)[1]
        answer = self.answers.get(f"{host}{path}") or self.answers.get(host)
        if answer is None:
            found, body = (b"200 OK", PICTURE) if path.endswith(".jpg") else (b"404 Not Found", b"")
            answer = Answer(
                b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n" % (found, len(body)) + body, "kept"
            )
        writer.write(answer.said)
        await writer.drain()
        if answer.end == "cut off":
            writer.transport.abort()
        if answer.end == "left open":
            await reader.read()
        return answer.end == "kept"


@contextmanager
def listening() -> Iterator[Server]:
    """A server in a thread of its own."""
    server, loop, ready = Server(), asyncio.new_event_loop(), threading.Event()
    running: list[asyncio.Task[None]] = []

    async def run() -> None:
        listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, backlog=1000)
        server.port = listener.sockets[0].getsockname()[1]
        ready.set()
        with contextlib.suppress(asyncio.CancelledError):
            await listener.serve_forever()

    def serve() -> None:
        running.append(loop.create_task(run()))
        loop.run_until_complete(running[0])

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    assert ready.wait(30)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(running[0].cancel)
        thread.join(30)
        loop.close()


# fmt: off
CODES = (
    b"200 203 204 206 301 302 303 304 307 308 404 410 500 101 100 0 999 20 2000 -1".split()
)
# fmt: on
VERSIONS = (b"HTTP/1.0 ", b"HTTP/2 ", b"HTTP/9.9 ", b"http/1.1  ", b"ICY ", b"HTTP/1.1", b"")
# fmt: off
LOCATIONS = (
    b"http://[", b"//[", b"http://[::1", b"http://[v1.x]/", b"/1.jpg", b"2.jpg", b"", b"#", b"?",
    b"http:", b"//", b"\\\\good.test\\x",
    b"/" + b"a" * 4000, b"/" + b"a" * 20_000, b"../" * 2000, b"file:///etc/passwd", b"javascript:0",
    b"http://u:p@good.test/",
    b"http://good.test:99999/", b"http://good.test:x/", b"http://" + b"\xc3\xa9" * 300 + b"/",
    b"http://xn--\xff/",
    b"http://" + b"a." * 3000, b"/\xff\xfe.jpg", b"http://0x7f.1/", b"http://169.254.169.254/",
    b"http://[::ffff:0:127.0.0.1]/",
)
# fmt: on
NUMBERS = (
    b"1",
    b"0",
    b"-1",
    b"9" * 30,
    b"",
    b"abc",
    b"1e9",
    b"Wed, 21 Oct 2015 07:28:00 GMT",
    b"Mon, 99 Foo 99999999999 25:61:61 +9999",
)
# fmt: off
FIELDS = (
    b"Content-Type: image/jpeg", b"Content-Type: text/html", b"Content-Type: ;;;=",
    b"X" * 70_000 + b": y", b"X: " + b"y" * 70_000,
    b"no colon", b": no name", b" folded", b"\tfolded", b"Na me: x", b"N\xff: x", b"X: \0\1\r",
    b"Connection: close",
    b"Connection: keep-alive, Upgrade", b"Upgrade: h2c", b"Sec-WebSocket-Key1: x",
    b"Set-Cookie: " + b"a=b; " * 3000,
    b"X-Robots-Tag: noai", b"X-Robots-Tag: x: y: z", b"X-Robots-Tag: ,,,:",
    b"X-Robots-Tag: " + b":" * 5000,
    b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: x",
    b"Transfer-Encoding:",
    b"Content-Disposition: attachment; filename*=utf-8''%ff", b"Link: <" + b"x" * 3000,
)
# fmt: on
NUMBERED = (b"Retry-After: ", b"Keep-Alive: ", b"tdm-reservation: ", b"Content-Length: ", b"Age: ")
# fmt: off
RULES = (
    b"User-agent: *", b"Disallow: /", b"Disallow: " + b"*a" * 2000 + b"b", b"Allow: " + b"/$" * 500,
    b"Crawl-delay: 1e400",
    b"Crawl-delay: 1e-320", b"Crawl-delay: nan", b"Request-rate: 1/" + b"9" * 400, b"\xef\xbb\xbf",
    b"a" * 100_000,
)
# fmt: on
# fmt: off
ROBOTS = (
    b"", b"User-agent: *\nAllow: /", bytes(1000), b"<html>",
    b"User-agent: *\n" + b"Disallow: /x*y\n" * 40_000,
    b"User-agent: a\nDisallow: /\n" * 20_000,
    b"User-agent: *\n" + b"".join(b"Disallow: /%d*\n" % n for n in range(30_000)),
)
# fmt: on
# fmt: off
ENTRIES = (
    b"{}", b"1", b"null", b'{"location": "/*"}', b'{"location": 1, "tdm-reservation": 1}',
    b'{"location": "/", "tdm-reservation": 0}',
    b'{"location": "%sb", "tdm-reservation": 1}' % (b"*a" * 2000),
    b'{"location": "\\ud800", "tdm-reservation": 1}',
    b'{"location": "/", "tdm-reservation": [[]]}',
)
# fmt: on
TDMREPS = (
    b"",
    b"[]",
    b"[" * 200_000,
    b'{"a":' * 90_000,
    b"1" * 5000,
    b"\xef\xbb\xbf[]",
    b"<html>",
    b"[NaN]",
)


class Grammar:
    """Draws answers. `port` is that of the server, for redirects that lead somewhere; `hosts` are
    its names.
    """

    def __init__(self, seed: int, port: int, hosts: tuple[str, ...]) -> None:
        self.draw, self.port, self.hosts = random.Random(seed), port, hosts

    def one(self, *parts: Part) -> bytes:
        part = self.draw.choice(parts)
        return part if isinstance(part, bytes) else part()

    def often(self, usual: bytes, *odd: Part) -> bytes:
        return usual if self.draw.random() < 0.6 else self.one(*odd)

    def rubbish(self) -> bytes:
        return self.draw.randbytes(self.draw.choice((0, 1, 5, 40, 3000)))

    def status(self) -> bytes:
        return (
            self.often(b"HTTP/1.1 ", *VERSIONS, self.rubbish)
            + self.often(b"200", *CODES, self.rubbish)
            + b" OK"
        )

    def location(self) -> bytes:
        host = self.draw.choice((*self.hosts, "127.0.0.1", "localhost", "[::1]"))
        near = b"http://%s:%d/" % (host.encode(), self.port)
        return self.one(
            *LOCATIONS,
            self.rubbish,
            near,
            near + b"1.jpg",
            near + b"2.jpg",
            near + b"?" + self.rubbish().replace(b"\n", b""),
        )

    def line(self) -> bytes:
        """One field of a head."""
        return self.one(
            *FIELDS,
            self.rubbish,
            lambda: b"Location: " + self.location(),
            lambda: b"X-Robots-Tag: " + self.rubbish(),
            lambda: self.one(*NUMBERED) + self.one(*NUMBERS, self.rubbish),
        )

    def packed(self, body: bytes) -> tuple[bytes, bytes]:
        """The name of an encoding, and a body as it makes it, or otherwise."""
        bare = zlib.compressobj(9, zlib.DEFLATED, -15)
        name = self.rubbish().replace(b"\n", b"")
        return self.draw.choice(
            (
                (b"gzip", gzip.compress(body)),
                (b"gzip", gzip.compress(body[:20]) + gzip.compress(body[20:])),
                (b"gzip", body),
                (b"gzip", gzip.compress(bytes(2_000_000))),
                (b"gzip", gzip.compress(b"") * 5000),
                (b"gzip", gzip.compress(body)[:-5]),
                (b"deflate", zlib.compress(body)),
                (b"deflate", bare.compress(body) + bare.flush()),
                (b"deflate", self.rubbish()),
                (b"gzip, gzip", gzip.compress(gzip.compress(body))),
                (b"utf-8", body),
                (b"br", body),
                (name, body),
                (b"," * 3000, body),
                (b"gzip," * 50, body),
            )
        )

    def answer(self, body: bytes) -> Answer:
        fields = [self.line() for _ in range(self.draw.choice((0, 0, 1, 2, 3, 200)))]
        if self.draw.random() < 0.3:
            name, body = self.packed(body)
            fields.append(b"Content-Encoding: " + name)
        framing = self.draw.random()
        if framing < 0.15:
            size = self.often(
                b"%x" % len(body),
                b"%x;a=b" % len(body),
                b"0%x " % len(body),
                b"-1",
                b"f" * 30,
                b"",
                self.rubbish,
            )
            fields.append(b"Transfer-Encoding: chunked")
            body = (
                size
                + b"\r\n"
                + body
                + self.often(b"\r\n0\r\n\r\n", b"\r\n", b"", b"\n0\n\n", b"\r\n0\r\nX: y\r\n\r\n")
            )
        elif framing < 0.8:
            right, more, less = (b"%d" % max(0, len(body) + by) for by in (0, 5, -5))
            fields += [
                b"Content-Length: "
                + self.often(right, more, less, b"0", b"-5", b"x", b"9" * 25, b"")
            ] * self.draw.choice((1, 1, 2))
        self.draw.shuffle(fields)
        before = self.often(
            b"",
            b"\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\n",
            b"HTTP/1.1 103 Early\r\nX: y\r\n\r\n" * 30,
            self.rubbish,
        )
        head = self.often(b"\r\n", b"\n", b"\r").join([self.status(), *fields])
        ends = self.often(b"\r\n\r\n", b"\n\n", b"\r\n", b"", b"\r\r")
        said = (
            before
            + head
            + ends
            + body
            + self.often(b"", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", self.rubbish)
        )
        if self.draw.random() < 0.1:
            said = said[: self.draw.randrange(len(said) + 1)]
        return Answer(said, self.draw.choices(("closed", "cut off", "left open"), (90, 9, 1))[0])

    def robots(self) -> bytes:
        rule = self.one(*RULES, self.rubbish)
        return self.one(
            *ROBOTS,
            self.rubbish,
            rule,
            b"User-agent: *\n" + rule + b"\n",
            b"\xff\xfe" + self.rubbish(),
        )

    def tdmrep(self) -> bytes:
        entry = self.one(*ENTRIES)
        return self.one(
            *TDMREPS, self.rubbish, entry, b"[%s]" % entry, b"[" + b",".join([entry] * 300) + b"]"
        )

    def site(self, host: str, pictures: int) -> dict[str, Answer]:
        """What a host says by its paths. Some of it is plain, so that the rest is reached."""
        robots, tdmrep = (
            self.answer(said) if self.draw.random() < 0.4 else NOTHING
            for said in (self.robots(), self.tdmrep())
        )
        shown = {
            f"{host}/{n}.jpg": self.answer(self.one(PICTURE, b"", b"<html>" * 30, self.rubbish))
            for n in range(pictures)
        }
        return {
            f"{host}/robots.txt": robots,
            f"{host}/.well-known/tdmrep.json": tdmrep,
            **shown,
            host: self.answer(PICTURE),
        }
