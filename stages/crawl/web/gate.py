"""The gate: how often and how many at a time a host is asked, whoever asks.

Pure bookkeeping with a clock that is passed in. One gate serves all workers of a run, so that the
limits hold for them together; where there are several processes, it lives in one of them and the
others ask it there.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from stages.crawl.web.params import Politeness
from stages.crawl.web.policy import SitePolicy

POLICY_BYTES = 128 * 2**20
"""About what the rules of all sites may take; the site that was asked longest ago is asked again
when it is needed.
"""
LEASE_SECONDS = 900.0
"""After this long a slot counts as left, whoever holds it: longer than any fetch may take."""
SILENT_SECONDS = 60.0
"""A worker that has not been heard of for so long is dead, and the slots that it held are free."""
_RECOVERY = 20
"""Answers in a row without complaint after which a slowed-down host is asked a little more often
again.
"""
_CLOSED_SECONDS, _CLOSED_TIMES = 60.0, 3
_SLOWEST = 1 / 120
NO_ROOM = 1.0
"""Seconds after which to ask again where as many as may were asking a host for all of one's
patience.
"""


@dataclass(frozen=True)
class Outcome:
    """How a request ended. `refused`: the host asked for less (429, 503), with the seconds of its
    Retry-After if it gave them; `broken`: no answer at all, or a fault of the server.
    """

    refused: bool = False
    broken: bool = False
    retry_after: float | None = None


@dataclass(frozen=True)
class Permit:
    """`go`: a slot is taken, begin in `wait` seconds and leave it afterwards. Else there was none
    in time: ask again in `wait` seconds; never, if infinite.
    """

    go: bool
    wait: float


class Gate(Protocol):
    """What a fetcher asks before it asks a host."""

    async def enter(self, host: str, patience: float) -> Permit:
        """A slot for one request, if it comes within `patience` seconds: who asks first gets the
        first that is free.
        """
        ...

    async def leave(self, host: str, outcome: Outcome) -> None:
        """Give the slot back and say how it went."""
        ...

    async def policy(self, origin: str) -> tuple[SitePolicy | None, bool]:
        """What is known of a site; and, where that is nothing, whether the asker is the one to find
        out.
        """
        ...

    async def tell(self, origin: str, host: str, policy: SitePolicy, delay: float | None) -> None:
        """What a site said, and the crawl-delay that it asks for."""
        ...


Grant = Callable[[Permit], None]
"""Gets the permit that was waited for."""


@dataclass
class Ticket:
    """Somebody who waits for a slot until `end`. Whoever waits no longer sets `grant` to None."""

    who: str
    end: float
    grant: Grant | None


@dataclass
class _Host:
    rate: float | None
    concurrency: int
    free_at: float = 0.0
    """When the next request may begin."""
    quiet_until: float = 0.0
    leases: list[tuple[float, str]] = field(default_factory=list)
    """When each slot that is taken counts as abandoned, and who has it."""
    waiting: deque[Ticket] = field(default_factory=deque)
    refusals: int = 0
    refused_since: float = 0.0
    """When the first of these refusals came."""
    fine: int = 0
    failures: int = 0
    closed: int = 0
    ceiling: float | None = None


class Policies:
    """Rules of sites, each for as long as it holds, and no more than `most` bytes of them."""

    def __init__(self, most: int = POLICY_BYTES) -> None:
        self._most, self._bytes = most, 0
        self._kept: dict[str, tuple[SitePolicy, float]] = {}

    def get(self, origin: str, now: float) -> SitePolicy | None:
        policy, end = self._kept.get(origin, (None, 0.0))
        return policy if end > now else None

    def put(self, origin: str, policy: SitePolicy, end: float) -> None:
        self._drop(origin)
        self._kept[origin] = policy, end
        self._bytes += policy.weight
        while self._bytes > self._most and len(self._kept) > 1:
            self._drop(next(iter(self._kept)))

    def _drop(self, origin: str) -> None:
        policy, _ = self._kept.pop(origin, (None, 0.0))
        self._bytes -= policy.weight if policy is not None else 0


class LocalGate:
    """The bookkeeping itself; also the gate of a single process. Times are seconds of `clock`.

    `who` names a worker where there are several; one that is `heard` of no more loses its slots.
    """

    def __init__(self, politeness: Politeness, clock: Callable[[], float]) -> None:
        self.politeness, self.clock = politeness, clock
        self._hosts: dict[str, _Host] = {}
        self._policies = Policies()
        self._asking: dict[str, float] = {}
        self._heard: dict[str, float] = {}

    async def enter(self, host: str, patience: float) -> Permit:
        answer: asyncio.Future[Permit] = asyncio.get_running_loop().create_future()
        ticket = self.ask(host, patience, answer.set_result)
        if answer.done():
            return answer.result()
        try:
            async with asyncio.timeout(patience):
                return await answer
        except TimeoutError:
            if answer.done() and not answer.cancelled():
                return answer.result()  # it came at the last moment
            return Permit(False, NO_ROOM)
        finally:
            ticket.grant = None

    async def leave(self, host: str, outcome: Outcome) -> None:
        self.free(host, outcome)

    async def policy(self, origin: str) -> tuple[SitePolicy | None, bool]:
        return self.known(origin)

    async def tell(self, origin: str, host: str, policy: SitePolicy, delay: float | None) -> None:
        self.learn(origin, host, policy, delay)

    def heard(self, who: str) -> None:
        """A worker is alive."""
        self._heard[who] = self.clock()

    def ask(self, host: str, patience: float, grant: Grant, who: str = "") -> Ticket:
        """`enter` with a function that is called with the permit: at once, or when a slot is
        free.
        """
        ticket = Ticket(who, self.clock() + patience, grant)
        state = self._host(host)
        state.waiting.append(ticket)
        self._serve(state)
        return ticket

    def free(self, host: str, outcome: Outcome | None, who: str = "") -> None:
        """`leave`, at once. No outcome: the slot was not used."""
        now, state = self.clock(), self._host(host)
        mine = next((lease for lease in state.leases if lease[1] == who), None)
        if mine is not None:
            state.leases.remove(mine)
        if outcome is not None:
            self._learn_from(state, now, outcome)
        self._serve(state)

    def _serve(self, state: _Host) -> None:
        """Give slots to those who wait, first come first served."""
        now = self.clock()
        while state.waiting:
            ticket = state.waiting[0]
            if ticket.grant is not None and now <= ticket.end:
                permit = self._permit(state, now, ticket.end, ticket.who)
                if permit is None:
                    return
                state.waiting.popleft()
                ticket.grant(permit)
            else:
                state.waiting.popleft()

    def _permit(self, state: _Host, now: float, end: float, who: str) -> Permit | None:
        """A permit; None while as many as may are asking the host."""
        if state.closed >= _CLOSED_TIMES:
            return Permit(False, math.inf)
        state.leases = [
            lease for lease in state.leases if lease[0] > now and self._alive(lease[1], now)
        ]
        begin = max(now, state.quiet_until, state.free_at)
        if begin > end:
            return Permit(False, begin - now)
        # Where a host has just failed again and again, one request finds out whether it is back.
        room = 1 if state.failures >= self.politeness.failures else state.concurrency
        if len(state.leases) >= room:
            return None
        if state.rate is not None:
            state.free_at = begin + 1 / state.rate
        state.leases.append((begin + LEASE_SECONDS, who))
        return Permit(True, begin - now)

    def _alive(self, who: str, now: float) -> bool:
        return self._heard.get(who, now) > now - SILENT_SECONDS

    def _learn_from(self, state: _Host, now: float, outcome: Outcome) -> None:
        if outcome.refused:
            self._slow_down(state, now, outcome.retry_after)
        elif outcome.broken:
            state.fine = 0
            state.failures += 1
            if state.failures % self.politeness.failures == 0:
                state.closed += 1
                state.quiet_until = max(state.quiet_until, now + _CLOSED_SECONDS)
        else:
            state.failures = state.refusals = state.closed = 0
            state.fine += 1
            if state.fine % _RECOVERY == 0:
                self._speed_up(state)

    def _slow_down(self, state: _Host, now: float, retry_after: float | None) -> None:
        state.refusals, state.fine, state.failures = state.refusals + 1, 0, 0
        if state.refusals == 1:
            state.refused_since = now
        pause = min(600.0, 2.0 ** min(state.refusals, 20)) if retry_after is None else retry_after
        state.quiet_until = max(state.quiet_until, now + pause)
        state.rate = max(_SLOWEST, (state.rate or 10.0) / 2)
        state.concurrency = max(1, state.concurrency // 2)
        too_late = (
            max(state.quiet_until, state.free_at) - state.refused_since
            > self.politeness.refusal_seconds
        )
        if state.refusals >= self.politeness.failures or too_late:
            state.closed = _CLOSED_TIMES

    def _speed_up(self, state: _Host) -> None:
        if state.rate is not None:
            faster = state.rate * 1.25
            state.rate = faster if state.ceiling is None else min(state.ceiling, faster)
            if state.ceiling is None and faster > 100:
                state.rate = None
        state.concurrency = min(self.politeness.concurrency, state.concurrency + 1)

    def known(self, origin: str) -> tuple[SitePolicy | None, bool]:
        """`policy`, at once."""
        now = self.clock()
        policy = self._policies.get(origin, now)
        if policy is not None:
            return policy, False
        mine = self._asking.get(origin, 0.0) <= now
        if mine:
            self._asking[origin] = now + 60  # if this one dies, somebody else will ask
        return None, mine

    def learn(self, origin: str, host: str, policy: SitePolicy, delay: float | None) -> None:
        """`tell`, at once."""
        self._policies.put(origin, policy, self.clock() + policy.lasts)
        self._asking.pop(origin, None)
        if delay:
            state = self._host(host)
            slow = max(_SLOWEST / 1000, 1 / delay)
            state.ceiling = slow if state.ceiling is None else min(state.ceiling, slow)
            state.rate = slow if state.rate is None else min(state.rate, slow)
            state.concurrency = 1

    def _host(self, host: str) -> _Host:
        if host not in self._hosts:
            rate = self.politeness.rate
            self._hosts[host] = _Host(rate, self.politeness.concurrency, ceiling=rate)
        return self._hosts[host]
