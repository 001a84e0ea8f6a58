"""One exchange with a web server: the client's session, and what its refusals and failures mean."""

import os
import ssl
import time
import zlib
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime

import aiohttp

from stages.crawl.web.gate import Outcome
from stages.crawl.web.guard import ForbiddenAddress, Guard, GuardedResolver
from stages.crawl.web.params import WebParams
from stages.crawl.web.proxy import Proxy, ProxyConnector, ProxyDenied, ProxyError

_LINE = 2**16
_KEPT_SECONDS = 30.0
"""How long a connection that nobody uses is kept."""


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


def open_session(params: WebParams, guard: Guard, accept: str, encodings: str) -> aiohttp.ClientSession:
    """A session that connects to what `guard` allows, and says who asks. Made inside of the event loop that it is used in."""
    connector: aiohttp.BaseConnector
    if params.proxy is not None:
        connector = ProxyConnector(Proxy.of(params.proxy, os.environ), guard, _KEPT_SECONDS)
    else:
        connector = aiohttp.TCPConnector(
            limit=0, ttl_dns_cache=300, resolver=GuardedResolver(guard), socket_factory=guard.socket, keepalive_timeout=_KEPT_SECONDS
        )
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=params.connect_seconds, sock_read=params.idle_seconds),
        headers={"User-Agent": params.user_agent, "Accept": accept, "Accept-Encoding": encodings},
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        max_line_size=_LINE,
        max_field_size=_LINE,
    )


def unpacker(encoding: str, status: int) -> "zlib._Decompress | None":
    """What undoes a Content-Encoding, piece by piece with a limit: a small body may unpack to a large one."""
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return None
    if name in ("gzip", "x-gzip", "deflate"):
        return zlib.decompressobj(zlib.MAX_WBITS | 32 if name != "deflate" else zlib.MAX_WBITS)
    raise Told("failed", "unsupported_encoding", f"Content-Encoding {encoding[:40]!r}", status)


def refusal(status: int, retry_after: str | None) -> Told:
    detail = f"HTTP {status}"
    if status in (429, 503):
        pause = seconds_of(retry_after)
        refused = Outcome(refused=True, retry_after=pause)
        return Told("failed", f"http_{status}", detail, status, passing=True, outcome=refused, pause=pause)
    if status >= 500 or status == 408:
        return Told("failed", "http_5xx" if status >= 500 else "http_408", detail, status, passing=True, outcome=Outcome(broken=True))
    return Told("failed", f"http_{status}", detail, status)


def explain(error: Exception) -> Told:
    """What went wrong on the way, as a reason."""
    broken = Outcome(broken=True)
    said = f"{type(error).__name__}: {error}"[:300]
    if isinstance(error, ForbiddenAddress):
        return Told("failed", "private_address", str(error))
    if isinstance(error, ProxyDenied):
        return Told("failed", "proxy", str(error))
    if isinstance(error, ProxyError):
        # A proxy that is away is nothing that a host would have to be left alone for.
        outcome = Outcome() if error.reason == "proxy" else broken
        return Told("failed", error.reason, str(error)[:300], passing=error.passing, outcome=outcome)
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


def seconds_of(retry_after: str | None) -> float | None:
    """Retry-After as seconds from now, whichever form it has (RFC 9110, section 10.2.3)."""
    if retry_after is None:
        return None
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return float(min(int(text[:9]), 86_400))
    try:
        return min(86_400.0, max(0.0, parsedate_to_datetime(text).timestamp() - time.time()))
    except (ValueError, TypeError, OverflowError):
        return None
