"""Real servers on 127.0.0.1 for the fetcher: one with good and bad manners, one that writes raw
bytes.
"""

import asyncio
import contextlib
import gzip
import io
import threading
import time
import zlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import numpy as np
from aiohttp import web
from PIL import Image


def picture(seed: int = 0, side: int = 64, kind: str = "JPEG") -> bytes:
    """A small image that differs from those of other seeds."""
    sink = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(sink, kind)
    return sink.getvalue()


PICTURE = picture()


class Site:
    """A server in a thread of its own. `log` holds time, host and path of every request."""

    def __init__(self) -> None:
        self.log: list[tuple[float, str, str]] = []
        self.robots: dict[str, str | int] = {}
        """By host name: the text of robots.txt or a status; 404 where nothing is said."""
        self.tdmrep: dict[str, str] = {}
        self.pages: dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]] = {}
        """By path, or by host and path, which goes before."""
        self.port = 0

    def address(self, path: str, host: str = "a.test") -> str:
        return f"http://{host}:{self.port}{path}"

    def asked(self, path: str | None = None, host: str | None = None) -> list[float]:
        """When a path, or all that is no rule of a site, was asked for."""
        rules = ("/robots.txt", "/.well-known")
        wanted = [
            (at, name)
            for at, name, where in list(self.log)
            if (where == path if path else not where.startswith(rules))
        ]
        return [at for at, name in wanted if host in (None, name)]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        name = request.host.split(":")[0]
        self.log.append((time.monotonic(), name, request.path))
        own = self.pages.get(name + request.path)
        if own is not None:
            return await own(request)
        if request.path == "/robots.txt":
            said = self.robots.get(name, 404)
            return web.Response(status=said) if isinstance(said, int) else web.Response(text=said)
        if request.path == "/.well-known/tdmrep.json":
            return (
                web.Response(text=self.tdmrep[name])
                if name in self.tdmrep
                else web.Response(status=404)
            )
        page = self.pages.get(request.path)
        if page is not None:
            return await page(request)
        if request.path.startswith("/p/"):
            return web.Response(body=picture(int(request.path.removeprefix("/p/").split(".")[0])))
        return web.Response(status=404)


@contextmanager
def serving(site: Site) -> Iterator[Site]:
    loop = asyncio.new_event_loop()
    ready = threading.Event()

    async def start() -> web.AppRunner:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", site.handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        place = web.TCPSite(runner, "127.0.0.1", 0)
        await place.start()
        site.port = place._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        return runner

    def run() -> None:
        asyncio.set_event_loop(loop)
        runners.append(loop.run_until_complete(start()))
        ready.set()
        loop.run_forever()

    runners: list[web.AppRunner] = []
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    ready.wait(10)
    try:
        yield site
    finally:
        asyncio.run_coroutine_threadsafe(runners[0].cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def fixed(
    body: bytes = PICTURE, status: int = 200, **headers: str
) -> Callable[[web.Request], Awaitable[web.Response]]:
    """A page that always says the same. Underscores in the names of headers stand for hyphens."""

    async def page(request: web.Request) -> web.Response:
        return web.Response(
            body=body,
            status=status,
            headers={name.replace("_", "-"): value for name, value in headers.items()},
        )

    return page


async def endless(request: web.Request) -> web.StreamResponse:
    """An image without an end."""
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(PICTURE[:200])
    while True:
        await response.write(bytes(65536))


def dripping(seconds: float) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """A byte every now and then."""

    async def page(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for byte in PICTURE:
            await response.write(bytes([byte]))
            await asyncio.sleep(seconds)
        return response

    return page


async def silent(request: web.Request) -> web.StreamResponse:
    """Nothing at all."""
    await asyncio.sleep(3600)
    return web.Response()


def bomb(encoding: str, megabytes: int = 200) -> bytes:
    """A body that unpacks to many times its size, and begins like an image."""
    data = PICTURE[:300] + bytes(megabytes * 2**20)
    if encoding == "gzip":
        return gzip.compress(data)
    return zlib.compress(data)


@contextmanager
def raw(answer: bytes, asked: list[bytes] | None = None) -> Iterator[int]:
    """A server that answers every connection with these bytes and closes it; its port. `asked`
    collects the requests.
    """
    loop = asyncio.new_event_loop()
    ready = threading.Event()
    ports: list[int] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        if asked is not None:
            asked.append(request)
        writer.write(answer)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()

    def run() -> None:
        asyncio.set_event_loop(loop)
        server = loop.run_until_complete(asyncio.start_server(handle, "127.0.0.1", 0))
        ports.append(server.sockets[0].getsockname()[1])
        ready.set()
        loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0.01))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    ready.wait(10)
    try:
        yield ports[0]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
