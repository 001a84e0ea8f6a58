"""One exchange with a web server: the client's session, its time, and what refusals and failures
mean.
"""

import asyncio
import os
import ssl
import time
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime

import aiohttp

from stages.crawl.web.bodies import BadEncoding, Unpacker
from stages.crawl.web.connections import DirectConnector, Frugal
from stages.crawl.web.gate import Outcome
from stages.crawl.web.guard import ForbiddenAddress, Guard
from stages.crawl.web.open_files import OpenFiles, free
from stages.crawl.web.params import WebParams
from stages.crawl.web.proxy import Proxy, ProxyConnector, ProxyDenied, ProxyError

_LINE = 2**16
_KEPT_SECONDS = 30.0
"""How long a connection that nobody uses is kept."""
_IDLE = (4, 256)
"""How many of them, at least and at most: a third of what the process may open."""


@dataclass
class Told(Exception):
    """An answer that ends an attempt. `passing`: another attempt may do better."""

    status: str
    reason: str
    detail: str | None = None
    http_status: int | None = None
    opt_out: str | None = None
    passing: bool = False
    outcome: Outcome = field(default_factory=Outcome)
    pause: float | None = None


class Budget:
    """Seconds for several requests together; time between them does not count."""

    def __init__(self, seconds: float) -> None:
        self.seconds = self.left = seconds

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Raises TimeoutError when what is left runs out."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(self.left):
                yield
        finally:
            self.left = max(0.0, self.left - (time.monotonic() - began))


def open_session(
    params: WebParams, guard: Guard, accept: str, encodings: str
) -> aiohttp.ClientSession:
    """A session that connects to what `guard` allows, and says who asks. Made inside of the event
    loop that it is used in.
    """
    idle = max(_IDLE[0], min(_IDLE[1], free() // 3))
    connector: Frugal
    if params.proxy is not None:
        proxy = Proxy.of(params.proxy, os.environ)
        connector = ProxyConnector(
            proxy,
            guard,
            keepalive_timeout=_KEPT_SECONDS,
            idle=idle,
            patience=params.total_seconds / 2,
        )
    else:
        connector = DirectConnector(
            guard, keepalive_timeout=_KEPT_SECONDS, idle=idle, patience=params.total_seconds / 2
        )
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(
            total=None, sock_connect=params.connect_seconds, sock_read=params.idle_seconds
        ),
        headers={"User-Agent": params.user_agent, "Accept": accept, "Accept-Encoding": encodings},
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        max_line_size=_LINE,
        max_field_size=_LINE,
    )


def unpacker(response: aiohttp.ClientResponse, most: int) -> Unpacker:
    """What undoes the Content-Encoding of an answer. Raises Told."""
    try:
        return Unpacker(", ".join(response.headers.getall("Content-Encoding", [])), most)
    except BadEncoding as error:
        raise Told("failed", "unsupported_encoding", str(error), response.status) from error


def incomplete(status: int) -> Told:
    return Told(
        "failed",
        "truncated",
        "the packed body ends too early",
        status,
        passing=True,
        outcome=Outcome(broken=True),
    )


def refusal(status: int, retry_after: str | None) -> Told:
    detail = f"HTTP {status}"
    if status in (429, 503):
        pause = seconds_of(retry_after)
        refused = Outcome(refused=True, retry_after=pause)
        return Told(
            "failed", f"http_{status}", detail, status, passing=True, outcome=refused, pause=pause
        )
    if status >= 500 or status == 408:
        return Told(
            "failed",
            "http_5xx" if status >= 500 else "http_408",
            detail,
            status,
            passing=True,
            outcome=Outcome(broken=True),
        )
    return Told("failed", f"http_{status}", detail, status)


def explain(error: Exception) -> Told:
    """What went wrong on the way, as a reason."""
    broken = Outcome(broken=True)
    said = f"{type(error).__name__}: {error}"[:300]
    if isinstance(error, OpenFiles):
        return Told("failed", "open_files", str(error), passing=True)  # no host is at fault
    if isinstance(error, ForbiddenAddress):
        return Told("failed", "private_address", str(error))
    if isinstance(error, ProxyDenied):
        return Told("failed", "proxy", str(error))
    if isinstance(error, ProxyError):
        # A proxy that is away is nothing that a host would have to be left alone for.
        outcome = Outcome() if error.reason == "proxy" else broken
        return Told(
            "failed", error.reason, str(error)[:300], passing=error.passing, outcome=outcome
        )
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return Told("failed", "dns", said, passing=True, outcome=broken)
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return Told("failed", "tls", said, outcome=broken)
    if isinstance(error, aiohttp.ServerTimeoutError | TimeoutError):
        return Told("failed", "time_out", said, passing=True, outcome=broken)
    if isinstance(error, aiohttp.ClientConnectorError):
        return Told("failed", "connect", said, passing=True, outcome=broken)
    if isinstance(error, aiohttp.ClientPayloadError):
        return Told("failed", "truncated", said, passing=True, outcome=broken)
    if isinstance(error, aiohttp.InvalidURL):
        return Told("failed", "bad_address", said)
    if isinstance(error, aiohttp.ClientError | OSError):
        return Told("failed", "protocol", said, passing=True, outcome=broken)
    if isinstance(error, zlib.error):
        return Told("failed", "decode_error", f"Content-Encoding: {error}")
    return Told("failed", "error", said, outcome=broken)


def printable(text: str) -> str:
    """Text that a row can hold and a terminal can show, whatever a server put into it."""
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode("ascii")
        for sign in text
    )


def seconds_of(retry_after: str | None) -> float | None:
    """Retry-After as seconds from now, whichever form it has (RFC 9110, section 10.2.3)."""
    if retry_after is None:
        return None
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return float(min(int(text[:9]), 86_400))
    try:
        return min(86_400.0, max(0.0, parsedate_to_datetime(text).timestamp() - time.time()))
    except Exception:  # noqa: BLE001  the parser of the standard library raises what it likes for what it cannot read
        return None
