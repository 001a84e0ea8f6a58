"""Connections through a proxy of one's own: CONNECT (RFC 9110, section 9.3.6) and SOCKS5 (RFC 1928
and 1929).

Names are resolved and checked here, and the proxy is told the address that was checked, for http as
for https. So what the guard refuses stays refused, and no proxy looks a name up a second time. TLS
is spoken with the host, through the proxy.

No library does that: aiohttp tells a proxy the name, and sends it http requests to pass on, whose
Host the proxy replaces by what it was told; aiohttp-socks compares a host's certificate with what
the proxy was told, which then has to be the name.
"""

import asyncio
import base64
import ipaddress
import re
import socket
import ssl
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlsplit

import aiohttp
from aiohttp.client_proto import ResponseHandler

from stages.crawl.web.connections import Frugal
from stages.crawl.web.guard import ForbiddenAddress, Guard, GuardedResolver

CREDENTIALS = ("IDCLUSTER_PROXY_USER", "IDCLUSTER_PROXY_PASSWORD")
"""Variables that hold the user and the password: a DAG file is kept in the records of runs."""
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})(?: ([^\r\n]*))?\r\n")
_HEAD_BYTES = 2**16
_GONE = (502, 503, 504)
"""What HTTP proxies say of a host that they cannot reach."""
_REPLIES = {
    1: ("general failure", "proxy", True),
    2: ("not allowed", "proxy", False),
    3: ("network unreachable", "connect", True),
    4: ("host unreachable", "connect", True),
    5: ("connection refused", "connect", True),
    6: ("expired on the way", "connect", True),
    7: ("no such command", "proxy", False),
    8: ("no such kind of address", "proxy", False),
}
"""What SOCKS proxies say (RFC 1928, section 6), the reason that it is for a row, and whether it may
pass.
"""
_T = TypeVar("_T")


class ProxyError(Exception):
    """A connection that a proxy did not make; the message names the proxy.

    `reason`: `proxy` where the host is not at fault, `connect` where the proxy says that it cannot
    reach the host, `time_out` where it says nothing: proxies wait longer for a host than we do for
    them. `passing`: another attempt may do better.
    """

    def __init__(self, text: str, reason: str = "proxy", passing: bool = True) -> None:
        super().__init__(text)
        self.reason, self.passing = reason, passing


class ProxyDenied(Exception):
    """A proxy that wants a user and a password, or others. It would deny every address; the message
    says what to set.
    """


@dataclass(frozen=True)
class Proxy:
    """Where the proxy is and who asks it. `scheme`: http or socks5."""

    scheme: str
    host: str
    port: int
    user: str = ""
    password: str = field(default="", repr=False)

    @staticmethod
    def of(url: str, environ: Mapping[str, str]) -> "Proxy":
        """The proxy of a checked `WebParams.proxy`, with the credentials of the environment."""
        parts = urlsplit(url)
        user, password = (environ.get(name, "") for name in CREDENTIALS)
        return Proxy(parts.scheme, parts.hostname or "", parts.port or 0, user, password)

    def __str__(self) -> str:
        return f"proxy {self.scheme}://{_bracketed(self.host)}:{self.port}"

    async def reach(self) -> socket.socket:
        """A socket to the proxy, which is ready to be told an address. Raises ProxyError and
        ProxyDenied.
        """
        loop = asyncio.get_running_loop()
        failed: OSError | None = None
        try:
            found = await loop.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise ProxyError(f"{self} has no address: {error}") from error
        for family, kind, protocol, _, where in found:
            sock = socket.socket(family, kind, protocol)
            try:
                sock.setblocking(False)
                await loop.sock_connect(sock, where)
                if self.scheme == "socks5":
                    await self._greet(sock)
            except OSError as error:
                sock.close()
                failed = error
            except BaseException:
                sock.close()
                raise
            else:
                return sock
        raise ProxyError(f"{self} cannot be reached: {failed}") from failed

    async def ask(self, sock: socket.socket, address: str, port: int) -> None:
        """Have the proxy connect a socket that it was reached by to an address. Raises ProxyError
        and ProxyDenied.
        """
        try:
            await (self._ask_socks if self.scheme == "socks5" else self._ask_http)(
                sock, address, port
            )
        except OSError as error:
            raise ProxyError(f"{self} broke off: {error}") from error

    async def _ask_http(self, sock: socket.socket, address: str, port: int) -> None:
        loop = asyncio.get_running_loop()
        where = f"{_bracketed(address)}:{port}"
        request = f"CONNECT {where} HTTP/1.1\r\nHost: {where}\r\n"
        if self.user:
            request += (
                "Proxy-Authorization: Basic "
                f"{base64.b64encode(f'{self.user}:{self.password}'.encode()).decode()}\r\n"
            )
        await loop.sock_sendall(sock, f"{request}\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            piece = await loop.sock_recv(sock, 4096)
            head += piece
            if not piece or len(head) > _HEAD_BYTES:
                raise ProxyError(f"{self} gave no answer of HTTP")
        line = _STATUS_LINE.match(head)
        if line is None:
            raise ProxyError(f"{self} gave no answer of HTTP")
        status = int(line[1])
        if status == 407:
            raise self._denied()
        if status // 100 != 2:
            words = "".join(
                sign for sign in (line[2] or b"").decode("latin-1")[:80] if sign.isprintable()
            )
            reason, passing = (
                "connect" if status in _GONE else "proxy",
                status >= 500 or status in (408, 429),
            )
            raise ProxyError(
                f"{self}: HTTP {status} {words}".rstrip() + f", for {where}", reason, passing
            )
        if head.partition(b"\r\n\r\n")[2]:
            # Hosts speak when they are spoken to: it would be read as the answer to a request that
            # has not been sent.
            raise ProxyError(f"{self} said more than that it has connected")

    async def _greet(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        user, password = self.user.encode(), self.password.encode()
        if len(user) > 255 or len(password) > 255:
            raise ProxyDenied(
                f"{self}: the user or the password in {' and '.join(CREDENTIALS)} has more than "
                "255 bytes"
            )
        await loop.sock_sendall(sock, b"\x05\x02\x00\x02" if user else b"\x05\x01\x00")
        version, method = await self._read(sock, 2)
        if version != 5:
            raise ProxyError(f"{self} does not speak SOCKS5")
        if method == 0:
            return
        if method != 2 or not user:
            raise self._denied()
        await loop.sock_sendall(
            sock, bytes([1, len(user)]) + user + bytes([len(password)]) + password
        )
        if (await self._read(sock, 2))[1] != 0:
            raise self._denied()

    async def _ask_socks(self, sock: socket.socket, address: str, port: int) -> None:
        literal = ipaddress.ip_address(address)
        told = (
            b"\x05\x01\x00"
            + (b"\x01" if literal.version == 4 else b"\x04")
            + literal.packed
            + port.to_bytes(2, "big")
        )
        await asyncio.get_running_loop().sock_sendall(sock, told)
        version, reply = await self._read(sock, 2)
        if version != 5:
            raise ProxyError(f"{self} does not speak SOCKS5")
        if reply != 0:
            words, reason, passing = _REPLIES.get(reply, ("unknown", "proxy", False))
            raise ProxyError(
                f"{self}: reply {reply}, {words}, for {_bracketed(address)}:{port}", reason, passing
            )
        _, kind = await self._read(sock, 2)
        bound = {1: 4, 4: 16}.get(kind)
        await self._read(sock, ((await self._read(sock, 1))[0] if bound is None else bound) + 2)

    async def _read(self, sock: socket.socket, size: int) -> bytes:
        loop = asyncio.get_running_loop()
        data = b""
        while len(data) < size:
            piece = await loop.sock_recv(sock, size - len(data))
            if not piece:
                raise ProxyError(f"{self} broke off")
            data += piece
        return data

    def _denied(self) -> ProxyDenied:
        names = " and ".join(CREDENTIALS)
        if self.user:
            return ProxyDenied(f"{self} refuses the user and the password in {names}")
        return ProxyDenied(f"{self} wants a user and a password: set {names}")


class ProxyConnector(Frugal):
    """Connects to what `guard` allows, through a proxy. No connection goes past the proxy, to hosts
    of one's own neither.

    The address of the proxy itself is not checked: it is the user's. It becomes allowed for nothing
    else by that.
    """

    def __init__(
        self, proxy: Proxy, guard: Guard, *, keepalive_timeout: float, idle: int, patience: float
    ) -> None:
        super().__init__(
            GuardedResolver(guard),
            idle=idle,
            patience=patience,
            keepalive_timeout=keepalive_timeout,
        )
        self._proxy, self._guard = proxy, guard
        self._tls = ssl.create_default_context()
        self._tls.set_alpn_protocols(["http/1.1"])

    async def _open(
        self, req: aiohttp.ClientRequest, traces: Any, timeout: aiohttp.ClientTimeout
    ) -> ResponseHandler:
        host, port = req.url.raw_host or "", req.url.port or 0
        try:
            found = await self._guarded.resolve(host, port)
        except OSError as error:
            raise aiohttp.ClientConnectorDNSError(req.connection_key, error) from error
        # IPv4 first: whether the proxy has IPv6 is not known here.
        addresses = [one["host"] for one in sorted(found, key=lambda one: ":" in one["host"])]
        for address in addresses:
            self._guard.check_address(address)
        sock = await self._tunnel(host, addresses, port, timeout.sock_connect)
        loop = asyncio.get_running_loop()
        secret: dict[str, Any] = (
            {"ssl": self._tls, "server_hostname": host.rstrip(".")}
            if req.url.scheme == "https"
            else {}
        )
        async with asyncio.timeout(timeout.sock_connect):
            try:
                _, protocol = await loop.create_connection(self._factory, sock=sock, **secret)
            except ssl.SSLCertVerificationError as error:
                raise aiohttp.ClientConnectorCertificateError(req.connection_key, error) from error
            except ssl.SSLError as error:
                raise aiohttp.ClientConnectorSSLError(req.connection_key, error) from error
            except OSError as error:
                raise aiohttp.ClientConnectorError(req.connection_key, error) from error
        return protocol

    async def _tunnel(
        self, host: str, addresses: Sequence[str], port: int, seconds: float | None
    ) -> socket.socket:
        """A socket that the proxy has connected to the first of the addresses that it can reach."""
        failed: ProxyError | None = None
        for address in addresses:
            silent = ProxyError(f"{self._proxy} did not answer within {seconds} s")
            sock = await _within(seconds, self._proxy.reach(), silent)
            try:
                peer = sock.getpeername()
                if (ipaddress.ip_address(peer[0].split("%")[0]), peer[1]) == (
                    ipaddress.ip_address(address),
                    port,
                ):
                    raise ForbiddenAddress(f"{host} is the proxy itself")
                late = ProxyError(
                    f"{self._proxy} did not connect to {_bracketed(address)}:{port} within "
                    f"{seconds} s",
                    "time_out",
                )
                await _within(seconds, self._proxy.ask(sock, address, port), late)
            except ProxyError as error:
                sock.close()
                if error.reason != "connect":
                    raise
                failed = error
            except BaseException:
                sock.close()
                raise
            else:
                return sock
        raise failed or ProxyError(f"{host} has no address")


async def _within(seconds: float | None, wanted: Awaitable[_T], late: ProxyError) -> _T:
    try:
        async with asyncio.timeout(seconds):
            return await wanted
    except TimeoutError as error:
        raise late from error


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
