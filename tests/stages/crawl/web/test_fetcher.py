"""The fetcher against real servers, most of them hostile: every address ends in one answer with a
reason, and none inside.
"""

import asyncio
import gzip
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from aiohttp import web

from schemas.fetched import Fetched
from stages.crawl.web.fetcher import WebFetcher
from stages.crawl.web.gate import LocalGate
from stages.crawl.web.guard import GuardedResolver
from stages.crawl.web.params import WebParams
from tests.stages.crawl.web.servers import (
    PICTURE,
    Site,
    bomb,
    dripping,
    endless,
    fixed,
    raw,
    serving,
    silent,
)

HOSTS = ("a.test", "b.test", "c.test", "d.test")


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(Site()) as found:
        yield found


def params(**other: Any) -> WebParams:
    base: dict[str, Any] = {
        "contact": "mailto:crawl@example.org",
        "allow_hosts": ["*.test"],
        "resolve": {"*.test": "127.0.0.1"},
        "attempts": 2,
        "politeness": {"rate": None, "concurrency": 4},
        "idle_seconds": 1.0,
        "total_seconds": 3.0,
        "connect_seconds": 1.0,
    }
    return WebParams.model_validate({**base, **other})


def fetch(
    addresses: Sequence[str],
    given: WebParams | None = None,
    patience: float = 20.0,
    deferred: list[str] | None = None,
) -> dict[str, Fetched]:
    """Every answer by address; an address that is answered twice or not at all fails the test."""
    chosen = given or params()

    async def run() -> dict[str, Fetched]:
        found: dict[str, Fetched] = {}

        async def take(address: str, answer: Fetched) -> None:
            assert address not in found
            found[address] = answer

        fetcher = WebFetcher(chosen, LocalGate(chosen.politeness, time.monotonic))
        try:
            async with asyncio.timeout(60):
                late = await fetcher.fetch_all(addresses, take, patience)
        finally:
            await fetcher.close()
        assert set(found) | set(late) == set(addresses)
        if deferred is None:
            assert not late
        else:
            deferred.extend(late)
        return found

    return asyncio.run(run())


def one(address: str, given: WebParams | None = None) -> Fetched:
    return fetch([address], given)[address]


def test_a_picture_comes_as_it_is_with_what_happened(site: Site) -> None:
    seen: dict[str, str] = {}

    async def page(request: web.Request) -> web.Response:
        seen.update(request.headers)
        return web.Response(body=PICTURE, content_type="text/plain", headers={"Set-Cookie": "a=b"})

    site.pages["/x.jpg"] = page
    answer = one(site.address("/x.jpg"))
    assert (answer.data, answer.status, answer.reason, answer.http_status, answer.attempts) == (
        PICTURE,
        "ok",
        None,
        200,
        1,
    )
    assert answer.fetched_at and answer.final_address is None
    assert seen["User-Agent"] == "idcluster/0.1 (+mailto:crawl@example.org)"
    assert "Cookie" not in seen and "Referer" not in seen and "Authorization" not in seen
    one(site.address("/x.jpg"))
    assert "Cookie" not in seen


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "reason", "tries"),
    [
        (fixed(status=404), "http_404", 1),
        (fixed(status=403), "http_403", 1),
        (fixed(status=410), "http_410", 1),
        (fixed(status=500), "http_5xx", 2),
        (fixed(status=503), "http_503", 2),
        (fixed(status=429, Retry_After="0"), "http_429", 2),
        (fixed(status=206), "http_206", 1),
        (fixed(b""), "empty", 1),
        (fixed(b"<html>" * 100, Content_Type="image/jpeg"), "not_an_image", 1),
        (fixed(b"%PDF-1.7" + bytes(100), Content_Type="image/png"), "not_an_image", 1),
        (fixed(b"<svg xmlns='http://www.w3.org/2000/svg'>" + b" " * 100), "unsupported_format", 1),
        (fixed(PICTURE, Content_Encoding="br"), "unsupported_encoding", 1),
        (fixed(PICTURE, Content_Encoding="gzip"), "decode_error", 1),
        (fixed(gzip.compress(PICTURE)[:-20], Content_Encoding="gzip"), "truncated", 2),
        (fixed(bytes(70_000_000)), "too_large", 1),
        (endless, "too_large", 1),
        (silent, "time_out", 2),
        (dripping(0.02), "time_out", 2),
        (fixed(bomb("gzip"), Content_Encoding="gzip"), "too_large", 1),
        (fixed(bomb("deflate"), Content_Encoding="deflate"), "too_large", 1),
        (fixed(status=302), "bad_redirect", 1),
        (fixed(status=302, Location="/x.jpg"), "redirect_loop", 1),
        (fixed(status=302, Location="file:///etc/passwd"), "bad_redirect", 1),
        (fixed(status=302, Location="http://me:secret@b.test/"), "bad_redirect", 1),
        (fixed(PICTURE, X_Robots_Tag="noai"), "opt_out", 1),
        (fixed(PICTURE, tdm_reservation="1"), "opt_out", 1),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_bad_answer_ends_in_a_reason(site: Site, page: Any, reason: str, tries: int) -> None:
    site.pages["/x.jpg"] = page
    answer = one(site.address("/x.jpg"))
    assert answer.data is None
    assert (answer.status, answer.reason) == (
        "filtered" if reason == "opt_out" else "failed",
        reason,
    )
    assert len(site.asked("/x.jpg")) == answer.attempts == tries
    assert (answer.opt_out is not None) == (reason == "opt_out")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "protocol"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + PICTURE[:100], "truncated"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nabc", "truncated"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "protocol"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000 + b"\r\n\r\n", "protocol"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", "protocol"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", "too_large"),
    ],
)
def test_servers_that_do_not_keep_to_the_protocol(answer: bytes, reason: str) -> None:
    with raw(answer) as port:
        got = one(
            f"http://a.test:{port}/x.jpg", params(respect_robots=False, respect_opt_out=False)
        )
    assert (got.status, got.reason, got.data) == ("failed", reason, None)


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1:{port}/secret",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::1]:{port}/secret",
        "http://2130706433:{port}/secret",
        "http://0x7f.1:{port}/secret",
        "http://0177.0.0.1:{port}/secret",
        "http://localhost:{port}/secret",
        "http://[::ffff:127.0.0.1]:{port}/secret",
        "//127.0.0.1:{port}/secret",
        "http://127.0.0.1.:{port}/secret",
    ],
)
def test_no_redirect_leads_inside(site: Site, target: str) -> None:
    site.pages["/x.jpg"] = fixed(status=302, Location=target.format(port=site.port))
    site.pages["/secret"] = fixed(PICTURE)
    answer = one(site.address("/x.jpg"))
    assert (answer.status, answer.data) == ("failed", None)
    assert answer.reason in ("private_address", "bad_redirect"), answer
    assert not site.asked("/secret")
    direct = one(
        target.format(port=site.port)
        if target.startswith("http")
        else f"http:{target.format(port=site.port)}"
    )
    assert direct.reason in ("private_address", "bad_address"), direct
    assert not site.asked("/secret")


def test_a_name_that_changes_its_address_after_the_check_reaches_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The resolver answers a public address to whoever asks first and an inside one afterwards.
    site.pages["/secret"] = fixed(PICTURE)
    answers = iter(["93.184.216.34"])
    true_resolve = GuardedResolver.resolve

    async def rebinding(self: GuardedResolver, host: str, port: int = 0, family: Any = 0) -> Any:
        if host != "rebind.example":
            return await true_resolve(self, host, port, family)
        address = next(answers, "127.0.0.1")
        self.guard.check(host, ["93.184.216.34"])
        return [
            {"hostname": host, "host": address, "port": port, "family": 2, "proto": 0, "flags": 0}
        ]

    monkeypatch.setattr(GuardedResolver, "resolve", rebinding)
    next(answers)
    answer = one(
        f"http://rebind.example:{site.port}/secret",
        params(respect_robots=False, respect_opt_out=False),
    )
    assert answer.reason == "private_address"
    assert not site.log


def test_redirects_are_followed_within_limits_and_each_host_is_asked_for_its_rules(
    site: Site,
) -> None:
    site.pages["/x.jpg"] = fixed(status=301, Location=site.address("/y.jpg", "b.test"))
    site.pages["/y.jpg"] = fixed(status=307, Location="/p/1.jpg")
    answer = one(site.address("/x.jpg"))
    assert answer.status == "ok"
    assert answer.final_address == site.address("/p/1.jpg", "b.test")
    assert site.asked("/robots.txt", "a.test") and site.asked("/robots.txt", "b.test")
    site.robots["c.test"] = "User-agent: *\nDisallow: /"
    site.pages["/z.jpg"] = fixed(status=302, Location=site.address("/p/2.jpg", "c.test"))
    assert one(site.address("/z.jpg")).reason == "robots"
    assert not site.asked("/p/2.jpg")
    for number in range(8):
        site.pages[f"/hop{number}"] = fixed(status=302, Location=f"/hop{number + 1}")
    assert one(site.address("/hop0")).reason == "too_many_redirects"


def test_rules_are_asked_once_a_site_and_kept(site: Site) -> None:
    site.robots["a.test"] = "User-agent: *\nDisallow: /p/1\n"
    found = fetch([site.address(f"/p/{number}.jpg") for number in range(20)])
    refused = {address for address, answer in found.items() if answer.reason == "robots"}
    assert refused == {site.address(f"/p/{number}.jpg") for number in (1, *range(10, 20))}
    assert all(found[address].opt_out for address in refused)
    assert len(site.asked("/robots.txt")) == 1
    assert len(site.asked()) == 9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("said", "reason"),
    [(500, "robots"), (503, "robots"), (429, "robots"), (404, None), (401, None), ("", None)],
)
def test_a_site_whose_rules_cannot_be_had_is_not_asked(
    site: Site, said: str | int, reason: str | None
) -> None:
    site.robots["a.test"] = said
    assert one(site.address("/p/1.jpg")).reason == reason
    assert bool(site.asked()) == (reason is None)


def test_reserved_places_are_left_out_unless_told_otherwise(site: Site) -> None:
    site.tdmrep["a.test"] = '[{"location": "/p/", "tdm-reservation": 1}]'
    answer = one(site.address("/p/1.jpg"))
    assert (answer.status, answer.reason) == ("filtered", "opt_out")
    assert "tdmrep.json reserves /p/" in (answer.opt_out or "")
    assert one(site.address("/p/1.jpg"), params(respect_opt_out=False)).status == "ok"


def test_hosts_that_cannot_be_reached_say_how() -> None:
    unreachable = fetch(
        ["http://nowhere.invalid/a.jpg", "http://a.test:1/a.jpg", "ftp://a.test/a", "http://"],
        params(),
    )
    assert {address: answer.reason for address, answer in unreachable.items()} == {
        "http://nowhere.invalid/a.jpg": "dns",
        "http://a.test:1/a.jpg": "connect",
        "ftp://a.test/a": "bad_address",
        "http://": "bad_address",
    }


def test_a_server_without_tls_is_no_server_for_https(site: Site) -> None:
    answer = one(f"https://a.test:{site.port}/p/1.jpg")
    assert (answer.status, answer.reason) == ("failed", "tls")


def test_the_limits_of_a_host_hold_and_others_are_not_held_up(site: Site) -> None:
    addresses = [site.address(f"/p/{number}.jpg", host) for host in HOSTS for number in range(11)]
    found = fetch(
        addresses,
        params(
            politeness={"rate": 20, "concurrency": 2}, respect_robots=False, respect_opt_out=False
        ),
    )
    assert all(answer.status == "ok" for answer in found.values())
    for host in HOSTS:
        times = site.asked(host=host)
        assert len(times) == 11
        assert times[-1] - times[0] >= 10 / 20 - 0.05
    everything = site.asked()
    assert max(everything) - min(everything) < len(HOSTS) * 10 / 20  # hosts side by side


def test_what_finds_no_room_in_time_is_put_off_and_nothing_is_lost(site: Site) -> None:
    slow = [site.address(f"/p/{number}.jpg", "a.test") for number in range(10)]
    quick = [site.address(f"/p/{number}.jpg", "b.test") for number in range(3)]
    late: list[str] = []
    given = params(
        politeness={"rate": 1, "concurrency": 1}, respect_robots=False, respect_opt_out=False
    )
    found = fetch([*slow, *quick], given, patience=0.2, deferred=late)
    assert len(late) >= 9
    assert len(found) + len(late) == 13
    assert len(site.asked()) == len(found)


def test_an_address_that_leads_to_a_host_without_room_waits_alone(site: Site) -> None:
    """All others of its own host would have to wait with it, and would be given up in the last
    round.
    """
    site.robots["slow.test"] = "User-agent: *\nCrawl-delay: 30"
    site.pages["/away.jpg"] = fixed(status=302, Location=site.address("/p/99.jpg", "slow.test"))
    late: list[str] = []
    addresses = [site.address(path) for path in ("/away.jpg", *(f"/p/{n}.jpg" for n in range(12)))]
    given = params(politeness={"rate": None, "concurrency": 1}, respect_opt_out=False)
    found = fetch(
        [site.address("/p/0.jpg", "slow.test"), *addresses], given, patience=0.5, deferred=late
    )
    assert set(late) <= {addresses[0], site.address("/p/0.jpg", "slow.test")}
    assert late
    assert all(answer.status == "ok" for answer in found.values())


def test_a_crawl_that_is_stopped_finishes_what_it_began(site: Site) -> None:
    async def run() -> tuple[dict[str, Fetched], list[str]]:
        found: dict[str, Fetched] = {}

        async def take(address: str, answer: Fetched) -> None:
            found[address] = answer

        given = params(politeness={"rate": None, "concurrency": 1})
        fetcher = WebFetcher(given, LocalGate(given.politeness, time.monotonic))
        late = await fetcher.fetch_all(
            [site.address(f"/p/{n}.jpg") for n in range(10)], take, 20, lambda: len(found) >= 3
        )
        await fetcher.close()
        return found, late

    found, late = asyncio.run(run())
    assert len(found) == 3
    assert len(late) == 7
    assert all(answer.status == "ok" for answer in found.values())


def test_a_failure_that_passes_is_tried_again_after_the_time_that_the_server_asks_for(
    site: Site,
) -> None:
    times: list[float] = []

    async def page(request: web.Request) -> web.Response:
        times.append(time.monotonic())
        return (
            web.Response(status=503, headers={"Retry-After": "1"})
            if len(times) == 1
            else web.Response(body=PICTURE)
        )

    site.pages["/x.jpg"] = page
    answer = one(site.address("/x.jpg"))
    assert (answer.status, answer.attempts) == ("ok", 2)
    assert times[1] - times[0] >= 0.95


def test_the_environment_cannot_send_requests_elsewhere(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    with raw(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nproxy!") as port:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
        assert one(site.address("/p/1.jpg")).status == "ok"


@pytest.mark.parametrize("path", ["/%FF%00.jpg", "/a%2F..%2F..%2Fetc.jpg", "/p%20q.jpg?x=%2B+&y"])
def test_escapes_in_paths_reach_the_server_as_they_are(path: str) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(PICTURE) + PICTURE
    asked: list[bytes] = []
    with raw(answer, asked=asked) as port:
        got = one(
            f"http://a.test:{port}{path}", params(respect_robots=False, respect_opt_out=False)
        )
    assert got.data == PICTURE
    assert asked[0].split(b" ")[1].decode() == path
