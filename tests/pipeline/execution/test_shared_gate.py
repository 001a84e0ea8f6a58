"""One gate for several workers, asked in bundles: limits hold for all together, and nobody's slot
is lost.
"""

import asyncio
from collections.abc import Callable, Sequence

import pytest

from pipeline.execution.shared_gate import GateKeeper, Granted, Left, SharedGate, Wanted
from stages.crawl.web.gate import Outcome, Policies
from stages.crawl.web.params import Politeness
from stages.crawl.web.policy import SitePolicy


class Line:
    """How workers reach the keeper: a call that yields to others, as one to another process does.
    Counts exchanges.
    """

    def __init__(self, rate: float | None, concurrency: int) -> None:
        self.keeper = GateKeeper(Politeness(rate=rate, concurrency=concurrency))
        self.exchanges = 0
        self.cut = False

    async def exchange(
        self, who: str, left: Sequence[Left], wanted: Sequence[Wanted]
    ) -> list[Granted]:
        await asyncio.sleep(0)
        if self.cut:
            raise ConnectionError("the keeper is gone")
        self.exchanges += 1
        return self.keeper.exchange(who, left, wanted)

    async def known(self, origin: str) -> tuple[SitePolicy | None, bool]:
        return self.keeper.known(origin)

    async def learn(self, origin: str, host: str, policy: SitePolicy, delay: float | None) -> None:
        self.keeper.learn(origin, host, policy, delay)

    def worker(self) -> SharedGate:
        return SharedGate(self.exchange, self.known, self.learn)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)


def test_workers_together_have_no_more_slots_than_one_and_all_get_their_turn() -> None:
    async def run() -> tuple[int, dict[int, int], int]:
        line = Line(None, 2)
        running = most = 0
        done = {0: 0, 1: 0}

        async def lane(gate: SharedGate, number: int) -> None:
            nonlocal running, most
            for _ in range(5):
                permit = await gate.enter("a", 30)
                assert permit.go
                running += 1
                most = max(most, running)
                await asyncio.sleep(0)
                running -= 1
                done[number] += 1
                await gate.leave("a", Outcome())

        gates = [line.worker(), line.worker()]
        await asyncio.gather(
            *(lane(gate, number) for number, gate in enumerate(gates) for _ in range(3))
        )
        return most, done, line.exchanges

    most, done, exchanges = asyncio.run(run())
    assert most <= 2
    assert done == {0: 15, 1: 15}
    assert exchanges < 60  # a question and an answer for each would be more


def test_many_questions_travel_together() -> None:
    async def run() -> int:
        line = Line(None, 1)
        gate = line.worker()
        permits = await asyncio.gather(*(gate.enter(f"h{number}", 5) for number in range(500)))
        assert all(permit.go for permit in permits)
        return line.exchanges

    assert asyncio.run(run()) <= 3


def test_a_slot_for_somebody_who_waits_no_more_goes_to_the_next() -> None:
    async def run() -> bool:
        line = Line(None, 1)
        one, other = line.worker(), line.worker()
        assert (await one.enter("a", 5)).go
        waiting = asyncio.create_task(one.enter("a", 5))
        await until(lambda: len(line.keeper.gate._hosts["a"].waiting) == 1)
        waiting.cancel()
        last = asyncio.create_task(other.enter("a", 5))
        await until(lambda: len(line.keeper.gate._hosts["a"].waiting) == 2)
        await one.leave("a", Outcome())
        return (await last).go

    assert asyncio.run(run())


def test_rules_of_a_site_are_asked_of_the_keeper_once() -> None:
    async def run() -> None:
        line = Line(None, 1)
        one, other = line.worker(), line.worker()
        assert await one.policy("http://a") == (None, True)
        assert await other.policy("http://a") == (None, False)
        policy = SitePolicy("", (), 100.0)
        await one.tell("http://a", "a", policy, None)
        line.keeper.gate._policies = Policies()
        assert await one.policy("http://a") == (policy, False)

    asyncio.run(run())


def test_who_waits_learns_that_the_keeper_is_gone() -> None:
    async def run() -> None:
        line = Line(None, 1)
        line.cut = True
        with pytest.raises(ConnectionError, match="the keeper is gone"):
            await line.worker().enter("a", 5)

    asyncio.run(run())
