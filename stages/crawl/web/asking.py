"""One request with all that belongs around it: the guard, a slot of the host, the time that is
left, how it went.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

import aiohttp
from yarl import URL

from stages.crawl.web.address import host_of
from stages.crawl.web.exchange import Budget, Told, explain
from stages.crawl.web.gate import Gate, Outcome
from stages.crawl.web.guard import ForbiddenAddress, Guard
from stages.crawl.web.proxy import ProxyDenied

REDIRECTS = (301, 302, 303, 307, 308)
FINE = (200, 203)
"""203: what a proxy of the server's made of a 200."""
_T = TypeVar("_T")


class Deferred(Exception):
    """No slot of `host` came in time, or its rules could not be had for now."""

    def __init__(self, host: str) -> None:
        super().__init__(host)
        self.host = host


class GateLost(Exception):
    """The gate did not answer: nothing that an address could be blamed for. Its cause is what went
    wrong.
    """


class Asker:
    """Asks hosts, each when it is its turn."""

    def __init__(self, session: aiohttp.ClientSession, guard: Guard, gate: Gate) -> None:
        self.session, self.guard, self.gate = session, guard, gate

    @asynccontextmanager
    async def ask(
        self,
        address: str,
        patience: float,
        budget: Budget,
        room: AbstractAsyncContextManager[object],
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer, while its body is read. `room` limits how many are asked at a time.

        Raises Told for what goes wrong, also while the body is read, Deferred, ProxyDenied and
        GateLost.
        """
        host = host_of(address)
        self._check(address)
        await self._enter(host, patience)
        outcome = Outcome(broken=True)
        try:
            async with (
                room,
                budget.running(),
                self.session.get(URL(address, encoded=True), allow_redirects=False) as response,
            ):
                yield response
            outcome = Outcome()
        except Told as told:
            outcome = told.outcome
            raise
        except (ProxyDenied, GateLost):
            raise
        except Exception as error:
            ended = explain(error)
            outcome = ended.outcome
            raise ended from error
        finally:
            await trusted(self.gate.leave(host, outcome))

    def _check(self, address: str) -> None:
        try:
            self.guard.check_host(URL(address, encoded=True).host or "")
        except ForbiddenAddress as error:
            raise Told("failed", "private_address", str(error)) from error

    async def _enter(self, host: str, patience: float) -> None:
        permit = await trusted(self.gate.enter(host, patience))
        if permit.wait == float("inf"):
            raise Told("failed", "host_down", f"{host} failed again and again in this run")
        if not permit.go:
            raise Deferred(host)
        if permit.wait > 0:
            await asyncio.sleep(permit.wait)


async def trusted(answer: Awaitable[_T]) -> _T:
    """What the gate says. Raises GateLost."""
    try:
        return await answer
    except Exception as error:
        raise GateLost from error
