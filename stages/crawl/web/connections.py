"""Connections to web servers: few that nobody uses, none beyond what this process may open, heads
read leniently.
"""

import asyncio
import functools
from typing import Any, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler

from stages.crawl.web.guard import Guard, GuardedResolver
from stages.crawl.web.heads import LenientHandler
from stages.crawl.web.open_files import OpenFiles, exhausted

_LOOK = 0.1
"""Seconds between two attempts to open a connection where too many files are open."""


class Frugal(aiohttp.BaseConnector):
    """Beside a connector of aiohttp: closes the connection that nobody has used for longest when
    there are more than `idle`.

    Where too many files are open, it closes all of these and tries again for `patience` seconds;
    then it raises OpenFiles.
    """

    def __init__(
        self, guarded: GuardedResolver, *, idle: int, patience: float, **rest: Any
    ) -> None:
        super().__init__(limit=0, **rest)
        self._guarded = guarded
        self._most_idle, self._patience = idle, patience
        self._idle: dict[ResponseHandler, None] = {}
        # What the library makes its connections with. It has no public name; test_connections.py
        # notices if it goes.
        self._factory = cast("Any", functools.partial(LenientHandler, loop=self._loop))

    async def close(self, *, abort_ssl: bool = False) -> None:
        await super().close(abort_ssl=abort_ssl)
        await self._guarded.close()

    async def connect(self, req: Any, traces: Any, timeout: aiohttp.ClientTimeout) -> Any:
        connection = await super().connect(req, traces, timeout)
        if connection.protocol is not None:
            self._idle.pop(connection.protocol, None)
        return connection

    def _release(self, key: Any, protocol: ResponseHandler, *, should_close: bool = False) -> None:
        super()._release(key, protocol, should_close=should_close)
        if protocol.is_connected():
            self._idle[protocol] = None
        if len(self._idle) > self._most_idle:
            self._close_idle(self._most_idle)

    def _close_idle(self, but: int = 0) -> None:
        """Close those that were used longest ago. The library passes over what is closed."""
        for protocol in list(self._idle)[: max(0, len(self._idle) - but)]:
            del self._idle[protocol]
            protocol.close()

    async def _open(self, req: Any, traces: Any, timeout: aiohttp.ClientTimeout) -> ResponseHandler:
        """A new connection, for subclasses to make."""
        raise NotImplementedError

    async def _create_connection(
        self, req: Any, traces: Any, timeout: aiohttp.ClientTimeout
    ) -> ResponseHandler:
        # The method that aiohttp's documentation leaves to subclasses of BaseConnector.
        end = self._loop.time() + self._patience
        while True:
            try:
                return await self._open(req, traces, timeout)
            except Exception as error:
                if not exhausted(error):
                    raise
                if self._loop.time() > end:
                    raise OpenFiles from error
            self._close_idle()
            await asyncio.sleep(_LOOK)


class DirectConnector(Frugal, aiohttp.TCPConnector):
    """Connects to hosts themselves."""

    def __init__(
        self, guard: Guard, *, idle: int, patience: float, keepalive_timeout: float
    ) -> None:
        resolver = GuardedResolver(guard)
        super().__init__(
            resolver,
            idle=idle,
            patience=patience,
            keepalive_timeout=keepalive_timeout,
            resolver=resolver,
            ttl_dns_cache=300,
            socket_factory=guard.socket,
        )

    async def _open(self, req: Any, traces: Any, timeout: aiohttp.ClientTimeout) -> ResponseHandler:
        return await aiohttp.TCPConnector._create_connection(self, req, traces, timeout)
