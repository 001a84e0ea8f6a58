"""Connections of a crawl of many hosts: few that nobody uses, and none lost for want of open
files.
"""

import asyncio
import errno
import json
import os
import resource
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from schemas.fetched import Fetched
from stages.crawl.web import exchange, open_files
from stages.crawl.web.connections import DirectConnector
from stages.crawl.web.fetcher import WebFetcher
from stages.crawl.web.gate import LocalGate
from stages.crawl.web.guard import Guard
from stages.crawl.web.heads import LenientHandler
from tests.stages.crawl.web.servers import Site, serving
from tests.stages.crawl.web.test_fetcher import fetch, params

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(Site()) as found:
        yield found


def test_the_library_still_makes_its_connections_with_what_it_is_given(site: Site) -> None:
    async def run() -> Any:
        given = params()
        fetcher = WebFetcher(given, LocalGate(given.politeness, time.monotonic))
        async with fetcher.session.get(site.address("/p/1.jpg")) as response:
            await response.read()
        made = list(fetcher.session.connector._idle)  # type: ignore[union-attr]
        await fetcher.close()
        return made

    (made,) = asyncio.run(run())
    assert isinstance(made, LenientHandler)


def test_no_more_connections_are_kept_than_allowed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "_IDLE", (5, 5))
    before = open_files._open()

    async def run() -> list[int]:
        given = params(respect_robots=False, respect_opt_out=False)
        fetcher = WebFetcher(given, LocalGate(given.politeness, time.monotonic))
        counts: list[int] = []

        async def take(address: str, answer: Fetched) -> None:
            assert answer.status == "ok"
            counts.append(len(fetcher.session.connector._idle))  # type: ignore[union-attr]

        for part in range(4):  # addresses of one host one after the other still share a connection
            await fetcher.fetch_all(
                [site.address(f"/p/{n}.jpg", f"h{part}-{n}.test") for n in range(15)], take
            )
        await asyncio.sleep(0)
        counts.append(len(fetcher.session.connector._idle))  # type: ignore[union-attr]
        counts.append(open_files._open() - before)
        await fetcher.close()
        return counts

    *counts, opened = asyncio.run(run())
    assert max(counts) <= 5
    assert (
        opened < 40
    )  # with the other ends of these connections, for the server is in this process


def test_where_too_many_files_are_open_a_connection_is_waited_for(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = 20
    real = Guard.socket

    def scarce(self: Guard, info: Any) -> socket.socket:
        nonlocal left
        left -= 1
        if left >= 0:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(self, info)

    monkeypatch.setattr(Guard, "socket", scarce)
    monkeypatch.setattr("stages.crawl.web.connections._LOOK", 0.01)
    found = fetch([site.address(f"/p/{n}.jpg", f"h{n}.test") for n in range(10)])
    assert [answer.status for answer in found.values()] == ["ok"] * 10


def test_where_there_are_none_to_the_end_the_reason_says_what_to_do(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(self: Guard, info: Any) -> socket.socket:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(Guard, "socket", none)
    monkeypatch.setattr("stages.crawl.web.connections._LOOK", 0.01)
    given = params(total_seconds=0.2, attempts=1, politeness={"rate": None, "failures": 1})
    found = fetch(
        [site.address(f"/p/{n}.jpg", host) for n in range(2) for host in ("a.test", "b.test")],
        given,
    )
    assert {answer.reason for answer in found.values()} == {
        "open_files"
    }  # and never host_down: no host is at fault
    assert all("ulimit -n" in (answer.detail or "") for answer in found.values())


CRAWL = """
    import asyncio, json, resource, sys, time
    from stages.crawl.web.fetcher import WebFetcher
    from stages.crawl.web.gate import LocalGate
    from stages.crawl.web import open_files
    from tests.stages.crawl.web.test_fetcher import params
    soft, hard, raised, port = json.loads(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if raised:
        open_files.raise_limit()
        print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    most = 0

    async def run():
        given = params(connections=1000)
        fetcher, found = WebFetcher(given, LocalGate(given.politeness, time.monotonic)), []

        async def take(address, answer):
            global most
            most = max(most, open_files._open())
            open("/dev/null").close()
            found.append(answer.reason or answer.status)

        await fetcher.fetch_all([f"http://h{n}.test:{port}/p/1.jpg" for n in range(150)], take)
        await fetcher.close()
        return found

    found = asyncio.run(run())
    print(json.dumps([found.count("ok"), most, sorted(set(found))]))
"""


def crawl(site: Site, soft: int, hard: int, raised: bool) -> list[str]:
    command = [
        sys.executable,
        "-c",
        textwrap.dedent(CRAWL),
        json.dumps([soft, hard, raised, site.port]),
    ]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_a_crawl_of_more_hosts_than_files_may_be_open_loses_nothing(site: Site) -> None:
    ok, most, reasons = json.loads(crawl(site, 110, 110, False)[-1])
    assert ok == 150, reasons
    assert most < 110


@pytest.mark.slow
def test_the_limit_is_raised_as_far_as_it_may(site: Site) -> None:
    soft, result = crawl(site, 60, 300, True)
    assert int(soft) == 300
    assert json.loads(result)[0] == 150


def test_this_process_keeps_its_limit() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def run() -> None:
        await DirectConnector(Guard(), keepalive_timeout=1.0, idle=1, patience=1.0).close()

    asyncio.run(run())
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before
