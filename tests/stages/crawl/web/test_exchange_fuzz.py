"""Whole exchanges with hosts that send anything at all, beside an innocent one, whose images must
all come.
"""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from idcluster.root.spool import SpoolServices, look, put
from idcluster.root.storage import Store
from schemas.fetched import Fetched
from stages.crawl.web.fetcher import WebFetcher
from stages.crawl.web.gate import LocalGate
from tests.stages.crawl.web.hostile import Grammar, Server, listening
from tests.stages.crawl.web.servers import PICTURE
from tests.stages.crawl.web.test_fetcher import params

BAD, GOOD = ("bad0.test", "bad1.test", "bad2.test"), "good.test"
SHOWN = 6
"""Images of the innocent host."""
# fmt: off
REASONS = {
    "bad_redirect", "connect", "decode_error", "dns", "empty", "host_down", "not_an_image",
    "opt_out", "private_address", "protocol",
    "redirect_loop", "robots", "time_out", "tls", "too_large", "too_many_redirects", "truncated",
    "unsupported_encoding",
    "unsupported_format",
}
# fmt: on
"""What may come of a bad host, beside http_…; `error` would be something that nobody thought of."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with listening() as found:
        yield found


def crawl(server: Server, seed: int) -> dict[str, Fetched]:
    """One crawl of bad hosts and the innocent one; every answer by address."""
    grammar = Grammar(seed, server.port, (*BAD, GOOD))
    server.answers = {
        path: answer for host in BAD for path, answer in grammar.site(host, 3).items()
    }
    bad = [f"http://{host}:{server.port}/{n}.jpg" for host in BAD for n in range(3)]
    good = [f"http://{GOOD}:{server.port}/{n}.jpg" for n in range(SHOWN)]
    given = params(attempts=1, idle_seconds=2.0, total_seconds=5.0, max_bytes=1_000_000)

    async def run() -> dict[str, Fetched]:
        found: dict[str, Fetched] = {}

        async def take(address: str, answer: Fetched) -> None:
            assert address not in found
            found[address] = answer

        fetcher = WebFetcher(given, LocalGate(given.politeness, time.monotonic))
        try:
            async with asyncio.timeout(60):
                assert await fetcher.fetch_all([*bad, *good], take) == []
        finally:
            await fetcher.close()
        assert set(found) == {*bad, *good}
        return found

    return asyncio.run(run())


@pytest.mark.slow
@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32))
def test_whatever_a_host_sends_costs_its_own_rows_and_no_other(
    server: Server, tmp_path: Path, seed: int
) -> None:
    found = crawl(server, seed)
    good = [answer for address, answer in found.items() if f"//{GOOD}" in address]
    assert [answer.data == PICTURE for answer in good] == [True] * SHOWN, [
        answer.reason for answer in good
    ]
    for address, answer in found.items():
        assert answer.status in ("ok", "filtered", "failed")
        assert (answer.data is None) == (answer.status != "ok")
        known = (
            answer.reason is None or answer.reason in REASONS or answer.reason.startswith("http_")
        )
        assert known, (address, answer.reason, answer.detail)
        assert all(
            text is None or text.isprintable()
            for text in (answer.detail, answer.opt_out, answer.final_address)
        )
    store = Store(str(tmp_path))
    put(store, f"parts/spool/{seed}/b/0000.spool", list(found.items()))
    places = look(store, f"parts/spool/{seed}").places
    assert SpoolServices(store, places).fetch(list(found)) == list(found.values())
