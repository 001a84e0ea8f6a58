"""A crawl through a proxy: it brings the same images, and leads inside no more than without
one.
"""

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.dag import DagError, load_dag
from schemas.fetched import Fetched
from stages.crawl.web.api import ApiClient, ApiError
from stages.crawl.web.fetcher import WebFetcher
from stages.crawl.web.gate import LocalGate
from stages.crawl.web.guard import GuardedResolver
from stages.crawl.web.params import WebParams
from stages.crawl.web.proxy import CREDENTIALS, ProxyDenied
from tests.stages.crawl.web.proxies import Proxy, proxying, secure
from tests.stages.crawl.web.servers import PICTURE, Site, fixed, serving

PUBLIC = "93.184.216.34"
KINDS = ("http", "socks5")
LOGIN = ("somebody", "pass:wörd")


@pytest.fixture(scope="module")
def shared() -> Iterator[Site]:
    with serving(Site()) as found:
        yield found


@pytest.fixture
def site(shared: Site) -> Site:
    shared.log.clear()
    shared.pages = {"/x.jpg": fixed(PICTURE)}
    return shared


@pytest.fixture
def started() -> Iterator[Any]:
    """Starts proxies that end with the test."""
    with ExitStack() as stack:
        yield lambda *args, **named: stack.enter_context(proxying(Proxy(*args, **named)))


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between attempts: how long they are is not looked at here."""
    monkeypatch.setattr("stages.crawl.web.fetcher.random.uniform", lambda least, most: 0.0)


def params(proxy: Proxy | str | None, **other: Any) -> WebParams:
    base: dict[str, Any] = {
        "contact": "mailto:me@example.org",
        "resolve": {"*.example": PUBLIC},
        "attempts": 1,
        "respect_robots": False,
        "respect_opt_out": False,
        "politeness": {"rate": None},
        "idle_seconds": 1.0,
        "total_seconds": 3.0,
        "connect_seconds": 1.0,
        "proxy": proxy.url if isinstance(proxy, Proxy) else proxy,
    }
    return WebParams.model_validate({**base, **other})


def fetch(given: WebParams, *addresses: str) -> list[Fetched]:
    """The answers, one after the other."""

    async def run() -> list[Fetched]:
        found: list[Fetched] = []

        async def take(address: str, answer: Fetched) -> None:
            found.append(answer)

        fetcher = WebFetcher(given, LocalGate(given.politeness, time.monotonic))
        try:
            async with asyncio.timeout(30):
                for address in addresses:
                    assert not await fetcher.fetch_all([address], take)
        finally:
            await fetcher.close()
        return found

    return asyncio.run(run())


def no_port() -> int:
    """A port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_comes_through_and_the_proxy_is_told_the_checked_address(
    site: Site, started: Any, kind: str
) -> None:
    proxy = started(kind)
    wanted = [
        site.address(path, host)
        for host in ("a.example", "b.example")
        for path in ("/x.jpg", "/p/1.jpg")
    ]
    answers = fetch(params(proxy, respect_robots=True, respect_opt_out=True), *wanted)
    assert [answer.status for answer in answers] == ["ok"] * 4
    assert answers[0].data == PICTURE
    assert set(proxy.log) == {(PUBLIC, site.port)}
    assert proxy.connections == 2  # kept by host, as without a proxy
    assert [(name, path) for _, name, path in site.log if path == "/x.jpg"] == [
        ("a.example", "/x.jpg"),
        ("b.example", "/x.jpg"),
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_tls_is_spoken_with_the_host_by_its_name(
    started: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    proxy = started(kind)
    asked: list[str | None] = []
    with secure(tmp_path, "a.example", asked) as (port, certificate):
        (untrusted,) = fetch(params(proxy), f"https://a.example:{port}/x.jpg")
        assert untrusted.reason == "tls"
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        asked.clear()
        (answer,) = fetch(params(proxy), f"https://a.example:{port}/x.jpg")
        assert (answer.status, answer.data) == ("ok", PICTURE)
        assert asked == ["a.example", f"Host: a.example:{port}"]
        (other,) = fetch(params(proxy), f"https://b.example:{port}/x.jpg")
        assert (other.reason, other.data) == ("tls", None)
    assert set(proxy.log) == {(PUBLIC, port)}


@pytest.mark.parametrize("kind", KINDS)
def test_no_proxy_leads_inside(site: Site, started: Any, kind: str) -> None:
    proxy = started(kind)
    inside = [
        "10.0.0.1",
        f"127.0.0.1:{site.port}",
        f"localhost:{site.port}",
        "inside.test",
        f"127.0.0.1:{proxy.port}",
    ]
    for number, target in enumerate(f"http://{place}/x.jpg" for place in inside):
        site.pages[f"/to/{number}"] = fixed(status=302, Location=target)
        resolve = {"*.example": PUBLIC, "inside.test": "10.0.0.1"}
        direct, led = fetch(
            params(proxy, resolve=resolve), target, site.address(f"/to/{number}", "a.example")
        )
        assert (direct.reason, led.reason) == ("private_address", "private_address"), target
    assert not site.asked("/x.jpg")
    assert set(proxy.log) == {(PUBLIC, site.port)}  # those who redirect, and nobody inside


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_that_changes_its_address_after_the_check_is_not_asked_for(
    site: Site, started: Any, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    proxy = started(kind)

    async def rebinding(self: GuardedResolver, host: str, port: int = 0, family: Any = 0) -> Any:
        self.guard.check(host, [PUBLIC])
        return [
            {
                "hostname": host,
                "host": "127.0.0.1",
                "port": port,
                "family": 2,
                "proto": 0,
                "flags": 0,
            }
        ]

    monkeypatch.setattr(GuardedResolver, "resolve", rebinding)
    (answer,) = fetch(params(proxy), site.address("/x.jpg", "rebind.example"))
    assert answer.reason == "private_address"
    assert not proxy.connections
    assert not site.log


@pytest.mark.parametrize("kind", KINDS)
def test_the_proxy_does_not_connect_to_itself(started: Any, kind: str) -> None:
    # A host that may be private, so that only this rule is left.
    proxy = started(kind)
    (answer,) = fetch(
        params(proxy, allow_hosts=["own.test"], resolve={"own.test": "127.0.0.1"}),
        f"http://own.test:{proxy.port}/",
    )
    assert answer.reason == "private_address"
    assert "itself" in (answer.detail or "")
    assert not proxy.log


@pytest.mark.parametrize("kind", KINDS)
def test_the_next_address_is_asked_for_where_the_proxy_cannot_reach_the_first(
    site: Site, started: Any, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    refusal = (
        b"HTTP/1.1 503 Service Unavailable\r\n\r\n"
        if kind == "http"
        else b"\x05\x03\x00\x01" + bytes(6)
    )
    proxy = started(kind, says=refusal, refuses=(PUBLIC,))

    async def both(self: GuardedResolver, host: str, port: int = 0, family: Any = 0) -> Any:
        found = ["2606:2800:220:1:248:1893:25c8:1946", PUBLIC]
        return [
            {"hostname": host, "host": one, "port": port, "family": 2, "proto": 0, "flags": 0}
            for one in found
        ]

    monkeypatch.setattr(GuardedResolver, "resolve", both)
    (answer,) = fetch(params(proxy), site.address("/x.jpg", "two.example"))
    assert answer.status == "ok"
    assert [address for address, _ in proxy.log] == [PUBLIC, "2606:2800:220:1:248:1893:25c8:1946"]


@pytest.mark.parametrize("kind", KINDS)
def test_user_and_password_come_from_the_environment(
    site: Site, started: Any, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    proxy = started(kind, login=LOGIN)
    for name in CREDENTIALS:
        monkeypatch.delenv(name, raising=False)
    address = site.address("/x.jpg", "a.example")
    for robots in (False, True):
        with pytest.raises(ProxyDenied, match=f"set {CREDENTIALS[0]} and {CREDENTIALS[1]}"):
            fetch(params(proxy, respect_robots=robots), address)
    monkeypatch.setenv(CREDENTIALS[0], LOGIN[0])
    monkeypatch.setenv(CREDENTIALS[1], "wrong")
    with pytest.raises(ProxyDenied, match="refuses the user and the password") as refused:
        fetch(params(proxy), address)
    assert "wrong" not in str(refused.value)
    assert not site.log
    monkeypatch.setenv(CREDENTIALS[1], LOGIN[1])
    (answer,) = fetch(params(proxy), address)
    assert answer.status == "ok"


@pytest.mark.parametrize(
    ("kind", "says", "reason", "tries"),
    [
        ("http", b"HTTP/1.1 403 Forbidden\r\n\r\n", "proxy", 1),
        ("http", b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "connect", 2),
        ("http", b"HTTP/1.1 500 Oh\x1b[31m no\r\n\r\n", "proxy", 2),
        ("http", b"", "time_out", 2),
        ("http", b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "proxy", 2),
        ("http", b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "proxy", 2),
        ("http", b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000, "proxy", 2),
        ("http", b"HTTP/1.1 2", "proxy", 2),
        ("socks5", b"\x05\x02\x00\x01" + bytes(6), "proxy", 1),
        ("socks5", b"\x05\x05\x00\x01" + bytes(6), "connect", 2),
        ("socks5", b"\x05\x63\x00\x01" + bytes(6), "proxy", 1),
        ("socks5", b"\x04\x5a", "proxy", 2),
        ("socks5", b"\x05", "proxy", 2),
        ("socks5", b"", "time_out", 2),
    ],
)
def test_every_refusal_ends_in_a_reason_that_names_the_proxy(
    site: Site, started: Any, kind: str, says: bytes, reason: str, tries: int
) -> None:
    proxy = started(kind, says=says)
    (answer,) = fetch(
        params(proxy, attempts=2, connect_seconds=0.2), site.address("/x.jpg", "a.example")
    )
    assert (answer.status, answer.reason, answer.attempts) == ("failed", reason, tries)
    assert proxy.url in (answer.detail or "")
    assert (answer.detail or "").isprintable()
    assert len(proxy.log) == tries
    assert not site.log


@pytest.mark.parametrize("kind", KINDS)
def test_a_proxy_that_is_away_is_not_the_fault_of_hosts(site: Site, kind: str) -> None:
    port = no_port()
    given = params(f"{kind}://127.0.0.1:{port}", politeness={"rate": None, "failures": 2})
    addresses = [site.address(f"/p/{number}.jpg", "a.example") for number in range(8)]
    answers = fetch(given, *addresses)
    assert {answer.reason for answer in answers} == {"proxy"}  # and never host_down
    assert all(
        f"proxy {kind}://127.0.0.1:{port} cannot be reached" in (answer.detail or "")
        for answer in answers
    )
    # One failure to get the rules of a site would be enough to leave the host alone for the other
    # site.
    ruled = params(given.proxy, politeness={"rate": None, "failures": 1}, respect_robots=True)
    both = [
        address.replace("http:", f"{scheme}:")
        for scheme in ("http", "https")
        for address in addresses[:2]
    ]
    assert {answer.reason for answer in fetch(ruled, *both)} == {"proxy"}


def test_a_proxy_that_comes_back_costs_no_picture(
    site: Site, started: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.crawl.web.fetcher.random.uniform", lambda least, most: least)
    proxy = started("http", says=b"HTTP/1.1 500 Starting\r\n\r\n")
    proxy.times = 1
    (answer,) = fetch(params(proxy, attempts=3), site.address("/x.jpg", "a.example"))
    assert (answer.status, answer.attempts) == ("ok", 2)
    proxy.times = 1
    (answer,) = fetch(
        params(proxy, attempts=3, respect_robots=True), site.address("/x.jpg", "a.example")
    )
    assert (answer.status, answer.attempts) == ("ok", 1)  # the rules were asked for again


def test_a_silent_proxy_is_waited_for_no_longer_than_a_connection(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        given = params(f"socks5://127.0.0.1:{server.getsockname()[1]}", connect_seconds=0.2)
        (answer,) = fetch(given, site.address("/x.jpg", "a.example"))
    assert answer.reason == "proxy"
    assert "did not answer within 0.2 s" in (answer.detail or "")


def test_services_are_asked_through_the_proxy_too(site: Site, started: Any) -> None:
    proxy = started("http")
    site.pages["/api"] = fixed(b'{"a": 1}')

    async def ask(given: WebParams) -> Any:
        client = ApiClient(given, LocalGate(given.politeness, time.monotonic))
        try:
            return (await client.get(site.address("/api", "a.example"), {})).body
        finally:
            await client.close()

    assert asyncio.run(ask(params(proxy))) == {"a": 1}
    assert proxy.log == [(PUBLIC, site.port)]
    proxy.login = LOGIN
    with pytest.raises(ApiError, match="wants a user and a password") as refused:
        asyncio.run(ask(params(proxy)))
    assert refused.value.lasting


@pytest.mark.parametrize(
    "proxy",
    [
        "http://me:secret@10.0.0.1:3128",
        "socks5://secret@10.0.0.1:1080",
        "secret",
        "10.0.0.1:3128",
        "https://secret:3128",
        "socks5h://secret:1080",
        "http://secret",
        "http://secret:0",
        "http://secret:99999",
        "http://secret:3128/path",
        "http://[secret:3128",
        "environment",
        "",
    ],
)
def test_what_is_no_proxy_is_refused_and_not_repeated(proxy: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError) as refused:
        params(proxy)
    assert "secret" not in str(refused.value)
    file = tmp_path / "dag.yaml"
    source = "{kind: urls, path: list.csv}"
    file.write_text(
        f'name: web\nroot: {tmp_path}\nsource: {source}\nfetch: {{proxy: "{proxy}"}}\nstages: '
        f"{{crawl: {{}}}}\n"
    )
    with pytest.raises(DagError, match=r"fetch\.proxy") as told:
        load_dag(file)
    assert "secret" not in str(told.value)
    assert params("socks5://[fd00::1]:1080/").proxy
