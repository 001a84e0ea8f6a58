"""A web server for the crawl benchmark: images of about 100 kB under any host name, with as
little work as it can.

Started as `python -m tests.bench.picture_server`; prints its port. Every `/<number>.jpg` is a
image of its own (a few dozen photographs' worth of pixels, the number in a comment segment),
`/log` gives and forgets what was asked for: host to the times of its images, in seconds. There
are no rules of sites.
"""

import asyncio
import json
import re
import struct
import time

import cv2
import numpy as np

PICTURES, BYTES = 24, 100_000
_REQUEST = re.compile(rb"GET (\S+) HTTP/1\.1\r\n")
_HOST = re.compile(rb"\r\nhost: *([^\r:]+)", re.IGNORECASE)


def photograph(seed: int) -> bytes:
    """A JPEG of 1024 x 768 pixels and about `BYTES` bytes, with detail of all sizes as photographs
    have it.
    """
    chance = np.random.default_rng(seed)
    scene = np.zeros((768, 1024, 3), np.float32)
    for octave in range(8):
        coarse = chance.normal(0, 60 / 1.6**octave, (3 * 2**octave, 4 * 2**octave, 3)).astype(
            np.float32
        )
        scene += cv2.resize(coarse, (1024, 768), interpolation=cv2.INTER_CUBIC)
    pixels = np.clip(scene + 128, 0, 255).astype(np.uint8)
    qualities = (
        cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        for quality in range(96, 20, -4)
    )
    return next(data for data in qualities if len(data) <= BYTES * 1.1)


class Server(asyncio.Protocol):
    """One connection; `log` is shared by all."""

    def __init__(self, bodies: list[bytes], log: dict[str, list[float]]) -> None:
        self.bodies, self.log, self.held = bodies, log, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.held += data
        while (end := self.held.find(b"\r\n\r\n")) >= 0:
            head, self.held = self.held[: end + 2], self.held[end + 4 :]
            self._answer(head)

    def _answer(self, head: bytes) -> None:
        asked, host = _REQUEST.match(head), _HOST.search(head)
        path = asked[1].decode() if asked else ""
        number = path[1:].removesuffix(".jpg")
        if path == "/log":
            said = json.dumps(self.log).encode()
            self.log.clear()
            self._send(b"200 OK", said)
        elif number.isdigit() and host:
            self.log.setdefault(host[1].decode(), []).append(time.time())
            # A comment segment behind the first two bytes: every image is another file with the
            # same pixels.
            comment = b"\xff\xd8\xff\xfe" + struct.pack(">H", 12) + number.encode().rjust(10)
            body = self.bodies[int(number) % len(self.bodies)]
            self._send(b"200 OK", comment, body)
        else:
            self._send(b"404 Not Found", b"")
        if b"\r\nconnection: close" in head.lower():
            self.transport.close()

    def _send(self, status: bytes, *body: bytes) -> None:
        head = b"HTTP/1.1 %s\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % (
            status,
            sum(map(len, body)),
        )
        self.transport.writelines([head, *body])


async def main() -> None:
    bodies = [photograph(seed)[2:] for seed in range(PICTURES)]
    log: dict[str, list[float]] = {}
    server = await asyncio.get_running_loop().create_server(
        lambda: Server(bodies, log), "127.0.0.1", 0, backlog=1024
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
