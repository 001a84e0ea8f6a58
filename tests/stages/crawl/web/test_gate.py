"""The gate, by a clock that the tests turn."""

import math
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.crawl.web.gate import (
    LEASE_SECONDS,
    NO_ROOM,
    SILENT_SECONDS,
    LocalGate,
    Outcome,
    Permit,
    Policies,
)
from stages.crawl.web.params import Politeness
from stages.crawl.web.policy import SitePolicy


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def gate(
    rate: float | None = 2.0, concurrency: int = 2, failures: int = 10, **other: float
) -> tuple[LocalGate, Clock]:
    clock = Clock()
    limits = Politeness.model_validate(
        {"rate": rate, "concurrency": concurrency, "failures": failures, **other}
    )
    return LocalGate(limits, clock), clock


def take(one: LocalGate, host: str, patience: float) -> Permit:
    """A permit now, or none: nobody waits."""
    got: list[Permit] = []
    one.ask(host, patience, got.append).grant = None
    return got[0] if got else Permit(False, NO_ROOM)


def noting(got: list[str], name: str) -> Callable[[Permit], None]:
    """Notes a name when a slot is granted."""

    def note(permit: Permit) -> None:
        assert permit.go
        got.append(name)

    return note


def test_requests_to_a_host_are_spread_evenly_and_hosts_do_not_share() -> None:
    one, clock = gate(rate=2.0, concurrency=100)
    waits = [take(one, "a", 60).wait for _ in range(5)]
    assert waits == [0, 0.5, 1, 1.5, 2]
    assert take(one, "b", 60).wait == 0
    clock.now += 10
    assert take(one, "a", 60).wait == 0  # an idle host saves up nothing
    assert take(one, "a", 60).wait == 0.5


def test_no_more_at_a_time_than_allowed() -> None:
    one, _ = gate(rate=None, concurrency=2)
    assert [take(one, "a", 60).go for _ in range(3)] == [True, True, False]
    one.free("a", Outcome())
    assert take(one, "a", 60).go


def test_whoever_would_wait_too_long_gets_no_slot_and_takes_none() -> None:
    one, _ = gate(rate=0.1, concurrency=5)
    assert take(one, "a", 5).go
    late = take(one, "a", 5)
    assert (late.go, late.wait) == (False, 10)
    assert take(one, "a", 60).wait == 10


def test_slots_of_a_worker_that_died_come_back() -> None:
    one, clock = gate(rate=None, concurrency=1)
    assert take(one, "a", 60).go
    clock.now += LEASE_SECONDS - 1
    assert not take(one, "a", 60).go
    clock.now += 2
    assert take(one, "a", 60).go


def test_slots_of_a_worker_that_fell_silent_come_back_and_those_of_others_do_not() -> None:
    one, clock = gate(rate=None, concurrency=2)
    got: list[str] = []
    for who in ("dead", "alive"):
        one.heard(who)
        one.ask("a", 600, noting(got, who), who)
    one.ask("a", 600, noting(got, "next"), "alive")
    clock.now += SILENT_SECONDS - 1
    one.heard("alive")
    one.ask("a", 600, noting(got, "last"), "alive")
    assert got == ["dead", "alive"]
    clock.now += 2
    one.ask("a", 600, noting(got, "later"), "alive")
    assert got == ["dead", "alive", "next"]
    one.free("a", Outcome(), "alive")
    assert got == ["dead", "alive", "next", "last"]


def test_who_asks_first_is_served_first_and_who_gave_up_is_passed_over() -> None:
    """Else the worker that has just been served asks again at once, and another never gets a
    turn.
    """
    one, clock = gate(rate=None, concurrency=1)
    got: list[str] = []
    patiences = {"first": 60, "second": 5, "third": 60, "fourth": 60}
    tickets = {
        name: one.ask("a", patience, noting(got, name)) for name, patience in patiences.items()
    }
    tickets["third"].grant = None
    clock.now += 10
    for _ in range(2):
        one.free("a", Outcome())
    assert got == ["first", "fourth"]


def test_nobody_waits_for_a_host_that_is_given_up_or_wants_a_long_pause() -> None:
    one, _ = gate(rate=None, concurrency=1)
    got: list[Permit] = []
    for patience in (60, 20, 60):
        one.ask("a", patience, got.append)
    one.free("a", Outcome(refused=True, retry_after=30))
    assert got == [Permit(True, 0), Permit(False, 30), Permit(True, 30)]
    one, _ = gate(rate=None, concurrency=1, failures=1)
    for _ in range(2):
        one.ask("b", 60, got.append)
    one.free("b", Outcome(refused=True))
    assert got[-1] == Permit(False, math.inf)


def test_a_host_that_asks_for_less_gets_less_and_recovers() -> None:
    one, clock = gate(rate=8.0, concurrency=4)
    take(one, "a", 60)
    one.free("a", Outcome(refused=True, retry_after=30))
    assert take(one, "a", 5).wait == 30
    clock.now += 30
    assert take(one, "a", 60).wait == 0
    assert take(one, "a", 60).wait == 0.25  # half as often
    for _ in range(400):
        clock.now += 1
        take(one, "a", 60)
        one.free("a", Outcome())
    clock.now += 10
    assert take(one, "a", 60).wait == 0
    assert take(one, "a", 60).wait == pytest.approx(1 / 8)  # and never more often than allowed


def test_refusals_without_a_time_are_answered_by_growing_pauses() -> None:
    one, clock = gate(rate=None)
    pauses = []
    for _ in range(4):
        assert take(one, "a", 1e9).go
        one.free("a", Outcome(refused=True))
        pauses.append(take(one, "a", 0).wait)
        clock.now += pauses[-1]
    assert pauses == [2, 4, 8, 16]


def test_a_host_that_keeps_failing_is_left_alone_then_probed_then_given_up() -> None:
    one, clock = gate(rate=None, concurrency=4, failures=3)
    for times in range(3):
        for _ in range(3):
            assert take(one, "a", 1e9).go
            one.free("a", Outcome(broken=True))
        if times < 2:
            assert take(one, "a", 5).wait == 60
            clock.now += 60
            assert take(one, "a", 5).go
            assert not take(one, "a", 5).go  # one request finds out whether it is back
            one._hosts["a"].leases.clear()
    assert take(one, "a", 1e9).wait == math.inf


@pytest.mark.parametrize("pause", [None, 0.0, 40.0])
def test_a_host_that_only_refuses_is_given_up_after_a_time_that_the_user_sets(
    pause: float | None,
) -> None:
    one, clock = gate(rate=None, concurrency=1, failures=1_000_000, refusal_seconds=100)
    began, asked = clock.now, 0
    while (permit := take(one, "a", 1e9)).go:
        clock.now += permit.wait + 1
        asked += 1
        one.free("a", Outcome(refused=True, retry_after=pause))
    assert permit.wait == math.inf
    assert asked > 1
    assert clock.now - began <= 100 + 1


def test_a_host_that_wants_a_longer_pause_is_given_up_at_once_and_one_good_answer_begins_anew() -> (
    None
):
    one, clock = gate(rate=None, concurrency=1, refusal_seconds=100)
    for _ in range(5):
        for outcome in (Outcome(refused=True, retry_after=60), Outcome()):
            clock.now += take(one, "a", 1e9).wait
            one.free("a", outcome)
    assert take(one, "a", 1e9).go
    one.free("a", Outcome(refused=True, retry_after=101))
    assert take(one, "a", 1e9).wait == math.inf


def test_rules_of_many_sites_do_not_fill_the_memory() -> None:
    kept = Policies(most=10_000)
    large = SitePolicy("x" * 3000, (), 100.0)
    for n in range(100):
        kept.put(f"https://{n}", large, 200.0)
    assert sum(kept.get(f"https://{n}", 100.0) is not None for n in range(100)) == 2
    assert kept.get("https://99", 100.0) is large
    assert kept.get("https://99", 200.0) is None
    kept.put(
        "https://99", SitePolicy("y" * 20_000, (), 100.0), 200.0
    )  # larger than all: kept alone
    assert [n for n in range(100) if kept.get(f"https://{n}", 100.0)] == [99]


def test_a_host_that_is_back_is_asked_as_before() -> None:
    one, clock = gate(rate=None, concurrency=4, failures=2)
    for _ in range(2):
        take(one, "a", 5)
        one.free("a", Outcome(broken=True))
    clock.now += 60
    assert take(one, "a", 5).go
    one.free("a", Outcome())
    assert [take(one, "a", 5).go for _ in range(5)] == [True] * 4 + [False]


def test_a_crawl_delay_slows_down_for_good() -> None:
    one, _ = gate(rate=10.0, concurrency=4)
    policy = SitePolicy("Crawl-delay: 5", (), 3600.0)
    assert one.known("https://a") == (None, True)
    assert one.known("https://a") == (None, False)  # one asks for all
    one.learn("https://a", "a", policy, 5.0)
    assert one.known("https://a") == (policy, False)
    assert take(one, "a", 60).wait == 0
    one.free("a", Outcome())
    assert take(one, "a", 60).wait == 5
    assert not take(one, "a", 60).go  # one at a time


def test_rules_are_asked_again_when_they_are_old_or_whoever_asked_died() -> None:
    one, clock = gate()
    assert one.known("https://a") == (None, True)
    clock.now += 61
    assert one.known("https://a") == (None, True)
    one.learn("https://a", "a", SitePolicy("", (), 100.0), None)
    clock.now += 101
    assert one.known("https://a") == (None, True)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 3), st.booleans()), max_size=60),
    st.sampled_from([0.5, 2.0, 7.0]),
)
def test_whatever_workers_do_a_host_is_never_asked_faster_than_allowed(
    steps: list[tuple[str, float, bool]], rate: float
) -> None:
    one, clock = gate(rate=rate, concurrency=3)
    begun: dict[str, list[float]] = {"a": [], "b": []}
    running: dict[str, int] = {"a": 0, "b": 0}
    for host, pause, leave in steps:
        clock.now += pause
        if leave and running[host]:
            one.free(host, Outcome())
            running[host] -= 1
        permit = take(one, host, 30)
        if permit.go:
            begun[host].append(clock.now + permit.wait)
            running[host] += 1
            assert running[host] <= 3
    for times in begun.values():
        gaps = [b - a for a, b in zip(sorted(times), sorted(times)[1:], strict=False)]
        assert all(gap >= 1 / rate - 1e-6 for gap in gaps)
