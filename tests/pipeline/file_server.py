"""A real HTTP server on this machine that hands out files, and misbehaves as it is told."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Files:
    """What the server has by path. `faults`: by path, what to do with the next requests instead,
    each once.
    """

    base: str = ""
    bodies: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, list[Callable[["Answer"], None]]] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    """Path and Range of every request."""
    ranges: bool = True
    tag: str | None = '"one"'


class Answer(BaseHTTPRequestHandler):
    """GET with ranges, as the big hosts do it."""

    files: Files
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.files.asked.append((self.path, self.headers.get("Range")))
        faults = self.files.faults.get(self.path, [])
        if faults:
            faults.pop(0)(self)
        elif self.path not in self.files.bodies:
            self.refuse(404)
        else:
            self.body(self.files.bodies[self.path])

    def body(self, body: bytes) -> None:
        start, asked = 0, self.headers.get("Range")
        wanted = self.headers.get("If-Range")
        if self.files.ranges and asked is not None and wanted in (None, self.files.tag):
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                self.refuse(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body) - start))
        if self.files.tag is not None:
            self.send_header("ETag", self.files.tag)
        self.end_headers()
        self.wfile.write(body[start:])

    def refuse(self, code: int, **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


def broken_after(count: int) -> Callable[[Answer], None]:
    """Announce the whole body, send so many bytes, and hang up."""

    def fault(answer: Answer) -> None:
        body = answer.files.bodies[answer.path]
        answer.send_response(200)
        answer.send_header("Content-Length", str(len(body)))
        if answer.files.tag is not None:
            answer.send_header("ETag", answer.files.tag)
        answer.end_headers()
        answer.wfile.write(body[:count])
        answer.wfile.flush()
        answer.close_connection = True

    return fault


def busy(code: int, **headers: str) -> Callable[[Answer], None]:
    return lambda answer: answer.refuse(code, **headers)


def endless(answer: Answer) -> None:
    """A body without end and without a length."""
    answer.send_response(200)
    answer.send_header("Connection", "close")
    answer.end_headers()
    answer.close_connection = True
    try:
        while True:
            answer.wfile.write(b"x" * 2**16)
    except OSError:
        pass  # the other side has had enough


def redirect(address: str) -> Callable[[Answer], None]:
    return lambda answer: answer.refuse(302, Location=address)


@contextmanager
def file_server(**bodies: bytes) -> Iterator[Files]:
    """A server for as long as the block lasts; `files.base` is its address."""
    files = Files(bodies={f"/{name}": body for name, body in bodies.items()})
    handler = type("Handler", (Answer,), {"files": files})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    files.base = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield files
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
