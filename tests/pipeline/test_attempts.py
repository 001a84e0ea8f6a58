"""Attempts: who kills its worker again and again is given up, and nobody else."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.attempts import DEATHS, Attempt, mark_path
from pipeline.storage import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "root")


def test_a_first_attempt_is_not_careful(store: Store) -> None:
    """Every task would be computed picture by picture, many times slower."""
    attempt = Attempt.begin(store, "run", "task")
    assert not attempt.careful and attempt.deaths == {}
    assert store.list("parts") == [mark_path("run", "task")]
    assert not Attempt.begin(store, "run", "other").careful


def test_an_attempt_after_a_death_is_careful(store: Store) -> None:
    """A picture that kills its worker would kill one worker after the other."""
    Attempt.begin(store, "run", "task")
    second = Attempt.begin(store, "run", "task")
    assert second.careful and second.deaths == {}
    assert second.step("detect", "a")


def test_two_deaths_on_a_step_give_it_up_and_nothing_else(store: Store) -> None:
    """A run would never end, or neighbours and later stages of the picture would be lost with it."""
    Attempt.begin(store, "run", "task")
    for deaths in range(DEATHS):
        attempt = Attempt.begin(store, "run", "task")
        assert attempt.step("detect", "innocent")
        assert attempt.deaths.get("detect killer", 0) == deaths
        assert attempt.step("detect", "killer")
    last = Attempt.begin(store, "run", "task")
    assert last.deaths == {"detect killer": DEATHS}
    assert not last.step("detect", "killer")
    assert last.step("detect", "innocent") and last.step("embed", "killer")


def test_a_step_that_was_refused_counts_no_further_death(store: Store) -> None:
    """Another step would be blamed for a death that happened elsewhere."""
    Attempt.begin(store, "run", "task")
    for _ in range(DEATHS):
        Attempt.begin(store, "run", "task").step("detect", "killer")
    attempt = Attempt.begin(store, "run", "task")
    assert attempt.step("detect", "innocent")
    assert not attempt.step("detect", "killer")
    assert Attempt.begin(store, "run", "task").deaths == {"detect killer": DEATHS, "detect innocent": 1}


def test_deaths_of_other_runs_count_for_nothing(store: Store) -> None:
    """Whoever interrupts a run twice would find innocent pictures poisoned."""
    for run in ("first", "second", "third"):
        attempt = Attempt.begin(store, run, "task")
        assert not attempt.careful
        assert attempt.step("detect", "a")


@pytest.mark.parametrize("torn", [b"", b'{"at": "det', b"\0" * 40, b"\xff\xfe"])
def test_a_torn_mark_means_that_somebody_began(store: Store, torn: bytes) -> None:
    """After a power cut the task could not be started again."""
    store.put(mark_path("run", "task"), torn)
    attempt = Attempt.begin(store, "run", "task")
    assert attempt.careful and attempt.deaths == {} and attempt.step("detect", "a")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(killers=st.sets(st.sampled_from("abcdef"), max_size=4))
def test_all_killers_and_only_they_are_given_up(tmp_path_factory: pytest.TempPathFactory, killers: set[str]) -> None:
    """With several bad pictures in a slice a run would lose good ones or never end."""
    store = Store(tmp_path_factory.mktemp("root"))
    given_up: set[str] = set()
    for _ in range(2 + DEATHS * len(killers)):
        attempt = Attempt.begin(store, "run", "task")
        given_up = set()
        for member in "abcdef":
            if not attempt.step("detect", member):
                given_up.add(member)
            elif member in killers:
                break  # the worker dies here
        else:
            break
    else:
        pytest.fail("the task never came to its end")
    assert given_up == killers
