"""Real proxies on 127.0.0.1: CONNECT and SOCKS5, with a log of what they were told. And a server
that speaks TLS.
"""

import asyncio
import base64
import contextlib
import ipaddress
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.stages.crawl.web.servers import PICTURE

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Proxy:
    """A proxy of one kind, http or socks5. Whatever address it is told, it connects to that port of
    127.0.0.1.

    `log` holds the addresses and ports as it was told them. `says`: what it answers instead of
    connecting: a status line, a reply of SOCKS5 or nothing at all (None: it connects). `refuses`:
    addresses for which it says so alone; all, if empty. `times`: how often it says so. `login`:
    user and password that it asks for.
    """

    def __init__(
        self,
        kind: str,
        says: bytes | None = None,
        refuses: tuple[str, ...] = (),
        login: tuple[str, str] | None = None,
    ) -> None:
        self.kind, self.says, self.refuses, self.login = kind, says, refuses, login
        self.times = 10**9
        self.log: list[tuple[str, int]] = []
        self.connections = 0
        self.port = 0

    @property
    def url(self) -> str:
        return f"{self.kind}://127.0.0.1:{self.port}"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await (self._http if self.kind == "http" else self._socks5)(reader, writer)
        except (OSError, EOFError):
            pass
        finally:
            writer.close()

    async def _http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, target, _ = head.split("\r\n")[0].split(" ")
        host, _, port = target.rpartition(":")
        self.log.append((host.strip("[]"), int(port) if method == "CONNECT" else 0))
        proof = base64.b64encode(":".join(self.login or ()).encode()).decode()
        if self.login and f"\r\nProxy-Authorization: Basic {proof}\r\n" not in head:
            writer.write(
                b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n"
            )
            return
        if await self._refused(reader, writer):
            return
        writer.write(b"HTTP/1.1 200 Connection ")
        await writer.drain()
        await asyncio.sleep(0.001)  # answers come in pieces
        await self._connect(reader, writer, b"established\r\nVia: 1.1 proxy\r\n\r\n")

    async def _socks5(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        methods = await reader.readexactly((await reader.readexactly(2))[1])
        wanted = 2 if self.login else 0
        if wanted not in methods:
            writer.write(b"\x05\xff")
            return
        writer.write(bytes([5, wanted]))
        if self.login:
            user = await reader.readexactly((await reader.readexactly(2))[1])
            password = await reader.readexactly((await reader.readexactly(1))[0])
            right = (user.decode(), password.decode()) == self.login
            writer.write(b"\x01\x00" if right else b"\x01\x01")
            if not right:
                return
        kind = (await reader.readexactly(4))[3]
        if kind == 3:
            host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        else:
            packed = await reader.readexactly(4 if kind == 1 else 16)
            host = str(ipaddress.ip_address(packed))
        self.log.append((host, int.from_bytes(await reader.readexactly(2), "big")))
        if not await self._refused(reader, writer):
            await self._connect(reader, writer, b"\x05\x00\x00\x03\x05bound\x00\x50")

    async def _refused(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        if (
            self.says is None
            or len(self.log) > self.times
            or (self.refuses and self.log[-1][0] not in self.refuses)
        ):
            return False
        writer.write(self.says)
        if not self.says:
            await reader.read()  # until whoever asks goes away
        return True

    async def _connect(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: bytes
    ) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self.log[-1][1])
        writer.write(answer)
        try:
            await asyncio.gather(_pass_on(reader, back), _pass_on(there, writer))
        finally:
            back.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(65536):
        writer.write(piece)
        await writer.drain()
    writer.close()


@contextmanager
def listening(handle: Handler, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """A server in a thread of its own; its port."""
    loop = asyncio.new_event_loop()
    ready = threading.Event()
    ports: list[int] = []

    def run() -> None:
        asyncio.set_event_loop(loop)
        server = loop.run_until_complete(asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls))
        ports.append(server.sockets[0].getsockname()[1])
        ready.set()
        loop.run_forever()
        server.close()
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
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


@contextmanager
def proxying(proxy: Proxy) -> Iterator[Proxy]:
    with listening(proxy.handle) as proxy.port:
        yield proxy


@contextmanager
def secure(folder: Path, name: str, asked: list[str | None]) -> Iterator[tuple[int, Path]]:
    """A server with a certificate for `name` that has an image everywhere: its port, and the file
    of whoever signed.

    `asked` collects the names that clients want to speak with (SNI), and the Host headers.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), False)
        .sign(key, hashes.SHA256())
    )
    certificate, secret = folder / "certificate.pem", folder / "key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, secret)

    def hear(sock: object, server: str | None, of: object) -> None:
        asked.append(server)

    context.sni_callback = hear

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            asked.append(next(line for line in head.split("\r\n") if line.startswith("Host: ")))
            writer.write(
                b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(PICTURE)
                + PICTURE
            )
            await writer.drain()
        writer.close()

    with listening(handle, context) as port:
        yield port, certificate
