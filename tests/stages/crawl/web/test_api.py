"""Asking services for JSON: bounded, in turn, and with an end."""

import asyncio
import gzip
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from aiohttp import web

from stages.crawl.web.api import Answer, ApiClient, ApiError, Stopped
from stages.crawl.web.gate import LocalGate
from stages.crawl.web.params import WebParams
from tests.stages.crawl.web.servers import Site, bomb, endless, fixed, raw, serving, silent
from tests.stages.crawl.wiki import Clock

Use = Callable[[ApiClient], Awaitable[Any]]


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(Site()) as found:
        yield found


def using(use: Use, clock: Clock | None = None, **changes: Any) -> Any:
    """What `use` gives with a client in the time of `clock`."""
    time = clock or Clock()
    stopped = changes.pop("stopped", lambda: False)
    params = WebParams.model_validate(
        {
            "allow_hosts": ["*.test"],
            "resolve": {"*.test": "127.0.0.1"},
            "idle_seconds": 1.0,
            "total_seconds": 3.0,
            "politeness": {"rate": None, "concurrency": 2},
            **changes,
        }
    )

    async def all_of_it() -> Any:
        client = ApiClient(
            params,
            LocalGate(params.politeness, time),
            stopped=stopped,
            sleep=time.sleep,
            clock=time,
        )
        try:
            return await use(client)
        finally:
            await client.close()

    return asyncio.run(all_of_it())


def ask(site: Site, path: str = "/api", clock: Clock | None = None, **changes: Any) -> Any:
    answer: Answer = using(
        lambda client: client.get(site.address(path), {"q": "Zoë & co", "page": 1}),
        clock,
        **changes,
    )
    return answer.body


def refused(site: Site, path: str = "/api", clock: Clock | None = None, **changes: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        ask(site, path, clock, **changes)
    return caught.value


def test_questions_arrive_as_they_were_asked_and_answers_may_be_packed(site: Site) -> None:
    """A name with an ampersand would be cut; a large answer would cost ten times the traffic."""

    async def page(request: web.Request) -> web.Response:
        body = json.dumps(
            {"query": dict(request.query), "accepts": request.headers["Accept-Encoding"]}
        ).encode()
        return web.Response(body=gzip.compress(body), headers={"Content-Encoding": "gzip"})

    site.pages["/api"] = page
    assert ask(site) == {"query": {"q": "Zoë & co", "page": "1"}, "accepts": "gzip, deflate"}


@pytest.mark.parametrize(
    "page", [endless, fixed(bomb("gzip", 80), Content_Encoding="gzip"), fixed(b" " * 3_000_000)]
)
def test_an_answer_without_end_is_not_read_on(
    site: Site, monkeypatch: pytest.MonkeyPatch, page: Any
) -> None:
    """A broken service would fill the memory of the driver."""
    monkeypatch.setattr("stages.crawl.web.api.MAX_BYTES", 2_000_000)
    site.pages["/api"] = page
    error = refused(site)
    assert "an answer of more than 2000000 bytes" in str(error) and not error.lasting
    assert len(site.asked("/api")) == 1


def test_a_silent_service_is_asked_a_few_times_and_given_up(site: Site) -> None:
    """A listing would hang for ever."""
    site.pages["/api"] = silent
    error = refused(site, attempts=2, idle_seconds=0.2)
    assert "time_out" in str(error) or "Timeout" in str(error)
    assert error.lasting and len(site.asked("/api")) == 2


def test_what_the_service_says_is_told(site: Site) -> None:
    """A user would have to guess why a query is refused."""
    site.pages["/api"] = fixed(b'{"detail": "License by-xy does not exist."}', 400)
    error = refused(site)
    assert (str(error), error.status, error.lasting) == (
        "a.test: HTTP 400: License by-xy does not exist.",
        400,
        False,
    )
    site.pages["/api"] = fixed(b"nothing of the kind")
    assert "an answer that is no JSON" in str(refused(site))


def test_redirects_are_not_followed(site: Site) -> None:
    """A service that moved, or was taken over, would be given tokens that are meant for another."""
    site.pages["/api"] = fixed(b"", 302, Location=site.address("/other"))
    assert refused(site).status == 302 and not site.asked("/other")


def test_a_service_that_keeps_refusing_is_left_alone(site: Site) -> None:
    """The crawler would be shut out."""
    clock = Clock()
    site.pages["/api"] = fixed(b"", 429)
    error = refused(site, clock=clock, politeness={"rate": None, "failures": 4})
    assert error.lasting and error.status == 429 and "4 times in a row" in str(error)
    assert len(site.asked("/api")) == 4 and clock.slept >= 2 + 4 + 8


def test_a_connection_that_cannot_be_made_is_lasting() -> None:
    """All of 23,000 people would be tried in vain, three times each."""
    with raw(b"") as port:
        pass
    with pytest.raises(ApiError) as caught:
        using(lambda client: client.get(f"http://a.test:{port}/api", {}), attempts=2)
    assert caught.value.lasting


def test_pauses_end_when_somebody_wants_to_stop(site: Site) -> None:
    """Ctrl-C would take five minutes."""
    clock = Clock()
    site.pages["/api"] = fixed(b"", 503, Retry_After="250")
    with pytest.raises(Stopped):
        ask(site, clock=clock, stopped=lambda: clock.slept > 10)
    assert clock.slept < 13


def test_answers_that_are_nested_without_end_are_no_answers_and_a_byte_order_mark_is_none(
    site: Site,
) -> None:
    site.pages["/api"] = fixed(b"[" * 200_000)
    assert "no JSON" in str(refused(site))
    site.pages["/api"] = fixed(b'\xef\xbb\xbf{"a": 1}', status=203)
    assert ask(site) == {"a": 1}
    site.pages["/api"] = fixed(
        gzip.compress(b'{"a"') + gzip.compress(b": 2}"), Content_Encoding="gzip"
    )
    assert ask(site) == {"a": 2}
