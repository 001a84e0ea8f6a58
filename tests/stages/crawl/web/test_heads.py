"""Heads as browsers read them, from a real server that writes them byte by byte."""

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.crawl.web.heads import set_right
from tests.stages.crawl.web.servers import PICTURE, raw
from tests.stages.crawl.web.test_fetcher import fetch, one, params

LENGTH = b"Content-Length: %d" % len(PICTURE)
OPEN = {"respect_robots": False, "respect_opt_out": False}


def head(*lines: bytes, status: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"\r\n".join([status, *lines, b"", b""])


CHUNKED = b"%x\r\n" % len(PICTURE) + PICTURE + b"\r\n0\r\n\r\n"
# fmt: off
READ = {
    "a length twice": head(LENGTH, LENGTH) + PICTURE,
    "a length twice in a line": head(LENGTH + b", %d" % len(PICTURE)) + PICTURE,
    "no length": head(b"Content-Length:") + PICTURE,
    "a blank before the colon": head(LENGTH.replace(b":", b" :")) + PICTURE,
    "a line without a colon": head(b"nothing to see", LENGTH) + PICTURE,
    "a line without a name": head(b": nothing", LENGTH) + PICTURE,
    "a folded line": head(b"X-Long: one", b"\ttwo", LENGTH) + PICTURE,
    "a name with a blank": head(b"X Long: one", LENGTH) + PICTURE,
    "a name with brackets": head(b"X(1): one", LENGTH) + PICTURE,
    "a name that is no ASCII": head(b"X-\xc3\xa9: one", LENGTH) + PICTURE,
    "control characters": head(b"X: a\0b\1c\rd", LENGTH) + PICTURE,
    "line feeds alone": (b"HTTP/1.1 200 OK\n" + LENGTH + b"\n\n") + PICTURE,
    "a length beside chunks": head(LENGTH, b"Transfer-Encoding: chunked") + CHUNKED,
    "no length beside chunks": head(b"Content-Length: 0", b"Transfer-Encoding: chunked") + CHUNKED,
    "chunked twice": head(b"Transfer-Encoding: chunked", b"Transfer-Encoding: Chunked") + CHUNKED,
    "identity": head(LENGTH, b"Transfer-Encoding: identity") + PICTURE,
    "no reason phrase": head(LENGTH, status=b"HTTP/1.1 200") + PICTURE,
    "two blanks": head(LENGTH, status=b"HTTP/1.1  200  OK") + PICTURE,
    "small letters": head(LENGTH, status=b"http/1.1 200 ok") + PICTURE,
    "a version of its own": head(LENGTH, status=b"HTTP/2 200") + PICTURE,
    "no version": head(LENGTH, status=b"ICY 200 OK") + PICTURE,
    "empty lines before": b"\r\n\r\n" + head(LENGTH) + PICTURE,
    "announcements":
        head(status=b"HTTP/1.1 100 Continue") + head(b"Link: </x>",
            status=b"HTTP/1.1 103 Early Hints") + head(LENGTH) + PICTURE,
    "many fields": head(*(b"X-%d: 1" % n for n in range(500)), LENGTH) + PICTURE,
    "many cookies": head(*(b"Set-Cookie: %s=1" % (b"a" * 5000) for _ in range(20)),
        LENGTH) + PICTURE,
    "an offer to speak otherwise": head(b"Connection: Upgrade", b"Upgrade: h2,h2c",
        LENGTH) + PICTURE,
    "more than the length": head(LENGTH) + PICTURE + b"and more",
    "203": head(LENGTH, status=b"HTTP/1.1 203 Non-Authoritative Information") + PICTURE,
}
# fmt: on


@pytest.mark.parametrize("name", READ)
def test_what_browsers_get_over_loses_no_picture(name: str) -> None:
    with raw(READ[name]) as port:
        answer = one(f"http://a.test:{port}/x.jpg", params(**OPEN))
    assert (answer.reason, answer.data == PICTURE) == (None, True), answer.detail


@pytest.mark.parametrize("name", READ)
def test_nor_does_it_hide_rules_or_silence_a_host(name: str) -> None:
    rules = b"# These are the rules of a site, and no picture.\nUser-agent: *\nDisallow: /x.jpg\n"
    body, said = b"%d" % len(PICTURE), b"%d" % len(rules)
    text = (
        READ[name]
        .replace(body, said)
        .replace(b"%x\r\n" % len(PICTURE), b"%x\r\n" % len(rules))
        .replace(PICTURE, rules)
    )
    with raw(text) as port:
        found = fetch(
            [f"http://a.test:{port}/x.jpg", f"http://a.test:{port}/y.jpg"],
            params(respect_opt_out=False),
        )
    assert {address[-5:]: answer.reason for address, answer in found.items()} == {
        "x.jpg": "robots",
        "y.jpg": "not_an_image",
    }


@pytest.mark.parametrize(
    "text",
    [
        head(LENGTH, b"Content-Length: 5") + PICTURE,
        head(b"Content-Length: 5, 6") + PICTURE,
        head(b"Content-Length: many") + PICTURE,
        head(LENGTH, status=b"HTTP/1.1 twohundred OK") + PICTURE,
        head(LENGTH, status=b"HTTP/1.1 2000 OK") + PICTURE,
        b"\0" * 300_000,
        head(LENGTH, b"X: " + b"a" * 300_000) + PICTURE,
        head(*(b"X-Robots-Tag: all" for _ in range(300))),
        b"HTTP/1.1 200 OK\r\n" + LENGTH,
    ],
)
def test_what_has_no_meaning_is_refused(text: bytes) -> None:
    with raw(text) as port:
        answer = one(f"http://a.test:{port}/x.jpg", params(**OPEN, attempts=1))
    assert (answer.status, answer.data) == ("failed", None)
    assert answer.reason in ("protocol", "truncated", "empty"), answer


@contextmanager
def in_a_row(answers: Sequence[bytes]) -> Iterator[tuple[int, list[int]]]:
    """A server that gives one answer a request over connections that it leaves open; its port, and
    requests by connection.
    """
    server = socket.create_server(("127.0.0.1", 0))
    left, counts = list(answers), list[int]()

    def serve(connection: socket.socket, number: int) -> None:
        with connection:
            text = b""
            while piece := connection.recv(65536):
                text += piece
                while b"\r\n\r\n" in text and left:
                    text = text.partition(b"\r\n\r\n")[2]
                    counts[number] += 1
                    connection.sendall(left.pop(0))

    def accept() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            counts.append(0)
            threading.Thread(target=serve, args=(connection, len(counts) - 1), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield server.getsockname()[1], counts
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


def test_one_connection_serves_many_requests_and_none_that_said_too_much() -> None:
    given = params(**OPEN, politeness={"rate": None, "concurrency": 1})
    good, much = (
        head(LENGTH) + PICTURE,
        head(LENGTH) + PICTURE + head(b"Content-Length: 6") + b"poison",
    )
    with in_a_row([good, good, much, good, good]) as (port, counts):
        found = fetch([f"http://a.test:{port}/{n}.jpg" for n in range(5)], given)
    assert all(answer.data == PICTURE for answer in found.values())
    assert counts == [3, 2]


@settings(max_examples=300)
@given(st.binary(max_size=300))
def test_any_head_is_set_right_or_left_as_it_is(text: bytes) -> None:
    for first in (b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\nContent-Length: "):
        made, status, length = set_right(first + text + b"\r\n\r\n")
        assert made.endswith(b"\r\n\r\n")
        assert length is None or length >= 0
        if status:
            lines = made.split(b"\r\n")
            assert lines[0].startswith(b"HTTP/1.")
            assert all(
                b": " in line and b"\n" not in line and b"\r" not in line for line in lines[1:-2]
            )
