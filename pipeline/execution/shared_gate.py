"""One gate for the fetching workers of all processes: it lives in one of them, the others ask it in
bundles.

A question of its own for every request would cost more than the request: what a worker has to ask
and to tell is gathered while the exchange before is under way. Nothing here knows Ray; the engine
says how an exchange travels.
"""

import asyncio
import contextlib
import itertools
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from stages.crawl.web.gate import NO_ROOM, LocalGate, Outcome, Permit, Policies
from stages.crawl.web.params import Politeness
from stages.crawl.web.policy import SitePolicy

Left = tuple[str, Outcome | None]
"""A host whose slot is given back, and how it went; None where the slot was not used."""
Wanted = tuple[int, str, float]
"""Ticket, host and patience of a slot that is wanted."""
Granted = tuple[int, str, Permit]
"""Ticket, host and permit."""
Exchange = Callable[[str, Sequence[Left], Sequence[Wanted]], Awaitable[Sequence[Granted]]]

_GATHER, _LOOK, _BEAT = 0.01, 0.05, 5.0
"""Seconds between two exchanges: with something to say, with somebody waiting, and only to be heard
of.
"""
_PATIENCE = 5.0
"""Seconds beyond the own for which an answer is waited for."""


class GateKeeper:
    """The gate itself, with a box for each worker in which permits wait until it asks for them."""

    def __init__(self, politeness: Politeness) -> None:
        self.gate = LocalGate(politeness, time.monotonic)
        self._boxes: dict[str, list[Granted]] = {}

    def exchange(self, who: str, left: Sequence[Left], wanted: Sequence[Wanted]) -> list[Granted]:
        """Take what a worker gives back and wants; what it gets now."""
        self.gate.heard(who)
        box = self._boxes.setdefault(who, [])
        for host, outcome in left:
            self.gate.free(host, outcome, who)
        for ticket, host, patience in wanted:
            self.gate.ask(host, patience, partial(_put, box, ticket, host), who)
        granted = list(box)
        box.clear()
        return granted

    def known(self, origin: str) -> tuple[SitePolicy | None, bool]:
        return self.gate.known(origin)

    def learn(self, origin: str, host: str, policy: SitePolicy, delay: float | None) -> None:
        self.gate.learn(origin, host, policy, delay)


def _put(box: list[Granted], ticket: int, host: str, permit: Permit) -> None:
    box.append((ticket, host, permit))


class SharedGate:
    """A worker's `Gate` that asks the keeper. Used in one event loop; rules of sites are remembered
    here as well.
    """

    def __init__(
        self,
        exchange: Exchange,
        known: Callable[[str], Awaitable[tuple[SitePolicy | None, bool]]],
        learn: Callable[[str, str, SitePolicy, float | None], Awaitable[None]],
    ) -> None:
        self._exchange, self._known, self._learn = exchange, known, learn
        self.who = secrets.token_hex(8)
        self._tickets = itertools.count()
        self._waiting: dict[int, asyncio.Future[Permit]] = {}
        self._wanted: list[Wanted] = []
        self._left: list[Left] = []
        self._held = 0
        self._news = asyncio.Event()
        self._talking: asyncio.Task[None] | None = None
        self._policies = Policies()

    async def enter(self, host: str, patience: float) -> Permit:
        ticket, answer = next(self._tickets), asyncio.get_running_loop().create_future()
        self._waiting[ticket] = answer
        self._wanted.append((ticket, host, patience))
        self._talk()
        try:
            async with asyncio.timeout(patience + _PATIENCE):
                return await answer
        except TimeoutError:
            return (
                answer.result()
                if answer.done() and not answer.cancelled()
                else Permit(False, NO_ROOM)
            )
        finally:
            self._waiting.pop(ticket, None)

    async def leave(self, host: str, outcome: Outcome) -> None:
        self._held -= 1
        self._left.append((host, outcome))
        self._talk()

    async def policy(self, origin: str) -> tuple[SitePolicy | None, bool]:
        policy = self._policies.get(origin, time.monotonic())
        if policy is not None:
            return policy, False
        policy, mine = await self._known(origin)
        if policy is not None:
            self._policies.put(origin, policy, time.monotonic() + min(600.0, policy.lasts))
        return policy, mine

    async def tell(self, origin: str, host: str, policy: SitePolicy, delay: float | None) -> None:
        self._policies.put(origin, policy, time.monotonic() + min(600.0, policy.lasts))
        await self._learn(origin, host, policy, delay)

    def _talk(self) -> None:
        self._news.set()
        if self._talking is None or self._talking.done():
            self._talking = asyncio.get_running_loop().create_task(self._exchanges())

    async def _exchanges(self) -> None:
        """Exchange until nobody waits and nothing is held."""
        while self._left or self._wanted or self._waiting or self._held > 0:
            self._news.clear()
            left, wanted = self._left, self._wanted
            self._left, self._wanted = [], []
            try:
                granted = await self._exchange(self.who, left, wanted)
            except Exception as error:  # noqa: BLE001  whatever it was, it is raised where somebody waits
                for answer in self._waiting.values():
                    if not answer.done():
                        answer.set_exception(error)
                return
            for ticket, host, permit in granted:
                wanted_by = self._waiting.get(ticket)
                if wanted_by is not None and not wanted_by.done():
                    self._held += permit.go
                    wanted_by.set_result(permit)
                elif permit.go:
                    self._left.append((host, None))  # whoever wanted it is gone
            await asyncio.sleep(_GATHER)
            if not (self._left or self._wanted):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK if self._waiting else _BEAT):
                        await self._news.wait()
