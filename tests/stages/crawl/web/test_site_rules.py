"""Asking sites for their rules: a fault that passes costs no address, a file that makes no sense is
a no.
"""

import asyncio
import codecs
import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aiohttp import web

from schemas.fetched import Fetched
from stages.crawl.web.fetcher import WebFetcher
from stages.crawl.web.gate import LocalGate
from tests.stages.crawl.web.servers import PICTURE, Site, dripping, fixed, raw, serving, silent
from tests.stages.crawl.web.test_fetcher import fetch, one, params

ROBOTS, TDMREP = "/robots.txt", "/.well-known/tdmrep.json"
FORBIDDEN = b"User-agent: *\nDisallow: /\n"
RESERVED = b'[{"location": "/", "tdm-reservation": 1}]'


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(Site()) as found:
        yield found


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.uniform", lambda least, most: 0.01)


def rules(site: Site, robots: Any = None, tdmrep: Any = None, host: str = "a.test") -> None:
    """Have a host answer for its rules with pages."""
    site.pages.update(
        {
            host + path: page
            for path, page in ((ROBOTS, robots), (TDMREP, tdmrep))
            if page is not None
        }
    )


def failing(times: int, then: bytes, status: int = 500) -> Callable[[web.Request], Any]:
    """A page that fails some times before it says something."""
    left = times

    async def page(request: web.Request) -> web.StreamResponse:
        nonlocal left
        left -= 1
        if left >= 0 and status:
            return web.Response(status=status)
        return await silent(request) if left >= 0 else web.Response(body=then)

    return page


@pytest.fixture
def asks(site: Site) -> Callable[..., Any]:
    def ask(robots: Any = None, tdmrep: Any = None, **given: Any) -> Any:
        """The answer to an image of a site with these rules."""
        chosen = params(**{"idle_seconds": 0.2, **given})
        with serving(Site()) as own:
            rules(own, robots, tdmrep)
            answer = one(own.address("/p/1.jpg"), chosen)
            site.log[:] = own.log
            return answer

    return ask


@pytest.mark.parametrize("status", [500, 502, 0])
def test_rules_are_asked_for_again_before_all_addresses_of_a_site_are_given_up(
    site: Site, status: int
) -> None:
    """One time-out cost 20,000 of 20,000 addresses."""
    rules(site, failing(2, b"User-agent: *\nDisallow: /p/1.jpg", status), failing(1, b"[]", status))
    addresses = [site.address(f"/p/{n}.jpg") for n in range(1, 5)]
    found = fetch(addresses, params(attempts=3, idle_seconds=0.2))
    assert [found[address].reason for address in addresses] == ["robots", None, None, None]
    assert len(site.asked(ROBOTS)) == 3


def test_sites_whose_rules_cannot_be_had_are_put_off_while_there_is_a_later_round(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.crawl.web.site_rules._SOON_SECONDS", 0.0)
    rules(site, failing(4, FORBIDDEN))
    addresses = [site.address(f"/p/{n}.jpg") for n in range(5)] + [
        "http://nowhere.invalid/x.jpg",
        site.address("/p/9.jpg", "b.test"),
    ]
    late = _rounds(addresses, final=[False, False, True])
    assert late == [6, 6, 0]


def _rounds(addresses: list[str], final: list[bool]) -> list[int]:
    """How many addresses each round puts off; all are answered, the innocent one in the first."""

    async def run() -> list[int]:
        given = params()
        fetcher, found, left = (
            WebFetcher(given, LocalGate(given.politeness, time.monotonic)),
            dict[str, Fetched](),
            list(addresses),
        )

        async def take(address: str, answer: Fetched) -> None:
            found[address] = answer

        counts = []
        for last in final:
            left = await fetcher.fetch_all(left, take, 20, final=last)
            counts.append(len(left))
            assert found[addresses[-1]].status == "ok"
        await fetcher.close()
        assert {answer.reason for address, answer in found.items() if address != addresses[-1]} == {
            "robots",
            "dns",
        }
        return counts

    return asyncio.run(run())


# fmt: off
NONSENSE = [
    fixed(b"\0\1\2" * 99), fixed(b"nothing to say"), fixed(FORBIDDEN, Content_Encoding="br"),
    fixed(FORBIDDEN, Content_Encoding="gzip"),
    fixed(status=302, Location="http://["),
]
# fmt: on


@pytest.mark.parametrize("page", NONSENSE)
def test_a_robots_txt_that_is_there_and_makes_no_sense_is_a_no(
    asks: Callable[..., Any], site: Site, page: Any
) -> None:
    answer = asks(page)
    assert (answer.status, answer.reason, answer.data) == ("filtered", "robots", None)
    assert answer.opt_out
    assert not site.asked()
    assert asks(page, respect_robots=False).data is not None


@pytest.mark.parametrize(
    "page",
    [
        fixed(b"[" * 200_000),
        fixed(b"{"),
        fixed(b"not found"),
        fixed(RESERVED, Content_Encoding="br"),
        fixed(RESERVED, Content_Encoding="gzip"),
        fixed(b"[" + b'{"location": "/a/", "tdm-reservation": 0},' * 20_000 + b"{}]"),
    ],
)
def test_so_is_a_tdmrep_json(asks: Callable[..., Any], page: Any) -> None:
    answer = asks(None, page)
    assert (answer.status, answer.reason, answer.data) == ("filtered", "opt_out", None)
    assert "cannot be understood" in (answer.opt_out or "") or "Encoding" in (answer.opt_out or "")


@pytest.mark.parametrize(
    "page",
    [
        fixed(status=404),
        fixed(status=403),
        fixed(status=204),
        fixed(b""),
        fixed(b"<!doctype html><p>Not found"),
        fixed(status=302, Location="/robots.txt"),
    ],
)
def test_where_there_is_none_nothing_is_forbidden(asks: Callable[..., Any], page: Any) -> None:
    assert asks(page, page).status == "ok"


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (codecs.BOM_UTF8, {}),
        (b"", {"Content_Encoding": "utf-8"}),
        (b"", {"Content_Type": "image/png"}),
        (b"", {"Content_Encoding": "none"}),
        (b"", {"status": 203}),
    ],
)
def test_rules_are_heard_whatever_the_server_says_beside(
    asks: Callable[..., Any], body: bytes, headers: dict[str, Any]
) -> None:
    assert asks(fixed(body + FORBIDDEN, **headers)).reason == "robots"
    assert asks(None, fixed(body + RESERVED, **headers)).reason == "opt_out"


def test_packed_rules_are_unpacked_whole(asks: Callable[..., Any]) -> None:
    members = gzip.compress(b"User-agent: *\n") + gzip.compress(b"Disallow: /\n")
    assert asks(fixed(members, Content_Encoding="gzip")).reason == "robots"
    assert (
        asks(fixed(gzip.compress(b"# " + bytes(10**7)), Content_Encoding="gzip")).reason == "robots"
    )  # zeros: no text
    cut = gzip.compress(FORBIDDEN + bytes(range(256)) * 100)[:-20]
    assert asks(fixed(cut, Content_Encoding="gzip")).reason == "robots"


def test_a_harmless_large_file_is_harmless(asks: Callable[..., Any]) -> None:
    robots = b"User-agent: *\n" + b"".join(b"Disallow: /albums/%d/\n" % n for n in range(20_000))
    tdmrep = (
        b"["
        + b",".join(b'{"location": "/a/%d/*", "tdm-reservation": 0}' % n for n in range(9_000))
        + b"]"
    )
    assert asks(fixed(robots), fixed(tdmrep)).data is not None


def test_an_error_in_reading_is_a_no_and_costs_only_this_site(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(data: bytes, agent: str) -> str:
        if b"trap" in data:
            raise ZeroDivisionError("unthought of")
        return ""

    monkeypatch.setattr("stages.crawl.web.site_rules.read_robots", broken)
    site.robots["a.test"] = "trap"
    found = fetch([site.address("/p/1.jpg"), site.address("/p/1.jpg", "b.test")])
    assert [answer.reason for answer in found.values()] == ["robots", None]
    assert "ZeroDivisionError" in (found[site.address("/p/1.jpg")].opt_out or "")


def test_what_nobody_thought_of_is_a_row_with_a_reason(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(self: WebFetcher, response: Any) -> bytes:
        data = await response.read()
        if response.url.path == "/p/1.jpg":
            raise RecursionError("unthought of\0\udce9")
        return bytes(data)

    monkeypatch.setattr(WebFetcher, "_body", broken)
    found = fetch(
        [site.address("/p/1.jpg"), site.address("/p/2.jpg"), site.address("/p/3.jpg", "b.test")]
    )
    bad = found.pop(site.address("/p/1.jpg"))
    assert (bad.status, bad.reason, bad.data) == ("failed", "error", None)
    assert bad.detail == "RecursionError: unthought of\\x00\\udce9"  # as a row can hold it
    assert [answer.status for answer in found.values()] == ["ok", "ok"]


def test_nor_does_it_end_the_crawl_where_no_request_is_under_way(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(policy: Any, agent: str, address: str) -> None:
        if "/p/1" in address:
            raise RecursionError("unthought of")

    monkeypatch.setattr("stages.crawl.web.site_rules.robots_verdict", broken)
    found = fetch(
        [site.address("/p/1.jpg"), site.address("/p/2.jpg"), site.address("/p/3.jpg", "b.test")]
    )
    assert [found[address].reason for address in sorted(found)] == ["error", None, None]


@pytest.mark.parametrize(
    "location",
    [
        "http://[",
        "http://[::1",
        "//[",
        "http://a.test:99999/",
        "http://a.test:x/",
        "ftp://a.test/",
        "http://" + "é" * 3000,
    ],
)
def test_redirects_to_nowhere_cost_one_row(site: Site, location: str) -> None:
    site.pages["/x.jpg"] = fixed(status=302, Location=location)
    found = fetch(
        [site.address("/x.jpg"), site.address("/p/1.jpg"), site.address("/p/1.jpg", "b.test")]
    )
    assert {address: answer.reason for address, answer in found.items()} == {
        site.address("/x.jpg"): "bad_redirect",
        site.address("/p/1.jpg"): None,
        site.address("/p/1.jpg", "b.test"): None,
    }


def test_all_redirects_of_an_attempt_share_its_time(site: Site) -> None:
    async def slow(request: web.Request) -> web.Response:
        await asyncio.sleep(0.4)
        return web.Response(status=302, headers={"Location": f"{request.path}x"})

    site.pages.update({f"/{'x' * n}": slow for n in range(1, 9)})
    assert (
        one(site.address("/x"), params(total_seconds=1.0, redirects=7, attempts=1)).reason
        == "time_out"
    )


def test_files_of_a_site_share_their_time_and_hold_up_no_other(site: Site) -> None:
    rules(site, dripping(0.05), dripping(0.05))
    found = fetch(
        [site.address("/p/1.jpg"), site.address("/p/1.jpg", "b.test")],
        params(total_seconds=0.5, attempts=5),
    )
    assert [answer.reason for answer in found.values()] in ([None, "time_out"], ["time_out", None])


def test_names_that_are_long_looked_up_hold_up_no_other(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than the threads that a machine with few cores has for everything."""
    answered, real = threading.Event(), socket.getaddrinfo

    def lookup(host: str, *rest: Any, **more: Any) -> Any:
        if host.startswith("slow"):
            answered.wait(30)
        return real("127.0.0.1", *rest, **more)

    monkeypatch.setattr("socket.getaddrinfo", lookup)
    given = params(allow_hosts=["*.example"], resolve={}, total_seconds=20.0)
    order: list[str] = []

    async def run() -> None:
        fetcher = WebFetcher(given, LocalGate(given.politeness, time.monotonic))

        async def take(address: str, answer: Fetched) -> None:
            assert answer.status == "ok", answer
            order.append(address)
            if "quick" in address:
                answered.set()

        hosts = [f"slow{n}.example" for n in range(20)] + ["quick.example"]
        await fetcher.fetch_all([site.address("/p/1.jpg", host) for host in hosts], take)
        await fetcher.close()

    asyncio.run(run())
    assert "quick" in order[0]


def test_redirects_with_bytes_that_are_no_text_are_followed(site: Site) -> None:
    asked: list[bytes] = []
    there = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(PICTURE) + PICTURE
    with raw(there, asked) as port:
        here = (
            b"HTTP/1.1 302 Found\r\nLocation: "
            b"http://b.test:%d/\xe9t\xc3\xa9.jpg\r\nContent-Length: 0\r\n\r\n" % port
        )
        with raw(here) as first:
            answer = one(
                f"http://a.test:{first}/x.jpg", params(respect_robots=False, respect_opt_out=False)
            )
    assert answer.data == PICTURE
    assert asked[0].split(b" ")[1] == b"/%E9t%C3%A9.jpg"
