"""Attempts: who kills its worker again and again is given up, and nobody else."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from idcluster.root.storage import Store
from pipeline.execution.attempts import (
    DEATHS,
    LOST,
    SETUP_DEATHS,
    Attempt,
    SetupDied,
    Whereabouts,
    mark_path,
    setting_up,
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "root")


def test_a_first_attempt_is_not_careful(store: Store) -> None:
    """Every task would be computed image by image, many times slower."""
    attempt = Attempt.begin(store, "run", "task")
    assert not attempt.careful and attempt.deaths == {}
    assert store.list("parts") == [mark_path("run", "task")]
    assert not Attempt.begin(store, "run", "other").careful


def test_an_attempt_after_a_death_is_careful(store: Store) -> None:
    """An image that kills its worker would kill one worker after the other."""
    Attempt.begin(store, "run", "task")
    second = Attempt.begin(store, "run", "task")
    assert second.careful and second.deaths == {}
    assert second.step("detect", "a")


def test_two_deaths_on_a_step_give_it_up_and_nothing_else(store: Store) -> None:
    """A run would never end, or neighbours and later stages of the image would be lost with
    it.
    """
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
    assert Attempt.begin(store, "run", "task").deaths == {
        "detect killer": DEATHS,
        "detect innocent": 1,
    }


def test_deaths_of_other_runs_count_for_nothing(store: Store) -> None:
    """Whoever interrupts a run twice would find innocent images poisoned."""
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


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(killers=st.sets(st.sampled_from("abcdef"), max_size=4))
def test_all_killers_and_only_they_are_given_up(
    tmp_path_factory: pytest.TempPathFactory, killers: set[str]
) -> None:
    """With several bad images in a slice a run would lose good ones or never end."""
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


# Nodes


def at(node: str, *gone: str) -> Whereabouts:
    return Whereabouts(node, gone.__contains__)


def test_deaths_together_with_the_node_do_not_count(store: Store) -> None:
    """An image that is at work in three machines that are taken away would be given up."""
    Attempt.begin(store, "run", "task", at("n0"))
    for number in range(1, 4):
        attempt = Attempt.begin(store, "run", "task", at(f"n{number}", f"n{number - 1}"))
        assert attempt.careful and attempt.deaths == {} and attempt.step("detect", "a")
    assert Attempt.begin(store, "run", "task", at("n4", "n3")).lost == {"detect a": 3}


def test_deaths_on_nodes_that_are_there_count_wherever_they_are_found(store: Store) -> None:
    """An image that kills its workers would go from node to node for ever."""
    Attempt.begin(store, "run", "task", at("n0"))
    for number in range(1, 1 + DEATHS):
        assert Attempt.begin(store, "run", "task", at(f"n{number}")).step("detect", "a")
    last = Attempt.begin(store, "run", "task", at("n9", "n1"))
    assert last.deaths == {"detect a": DEATHS} and not last.step("detect", "a")
    assert last.told("detect", "a") == "killed its worker 2 times"


def test_a_death_on_the_finders_own_node_counts(store: Store) -> None:
    """A list of nodes that is not up to date would let a killer go."""
    Attempt.begin(store, "run", "task", at("n0")).step("detect", "a")
    assert Attempt.begin(store, "run", "task", at("n0", "n0")).deaths == {"detect a": 1}


def test_what_takes_many_nodes_down_is_given_up_after_all(store: Store) -> None:
    """An image whose memory brings down every machine would bring down all of a cluster."""
    Attempt.begin(store, "run", "task", at("n0"))
    for number in range(1, 1 + LOST):
        assert Attempt.begin(store, "run", "task", at(f"n{number}", f"n{number - 1}")).step(
            "detect", "a"
        )
    last = Attempt.begin(store, "run", "task", at("n9", f"n{LOST}"))
    assert not last.step("detect", "a") and last.step("detect", "b")
    assert last.told("detect", "a") == "killed its worker 5 times, 5 times together with its node"


# Setting up


def dead_process() -> int:
    done = subprocess.Popen(["true"])
    done.wait()
    return done.pid


def test_a_death_while_a_stage_is_set_up_is_nobodys_fault(store: Store) -> None:
    """Images that were at work before a model crashed while it was loaded would be given up."""
    Attempt.begin(store, "run", "task")
    for _ in range(DEATHS + 1):
        attempt = Attempt.begin(store, "run", "task")
        assert attempt.step("crawl", "a")
        attempt.leave()
    assert Attempt.begin(store, "run", "task").deaths == {}


def test_a_stage_that_always_dies_while_it_is_set_up_ends_the_run(store: Store) -> None:
    """Ray would start workers for ever, and nobody would learn why nothing gets done."""

    def die(times: int) -> None:
        for _ in range(times):
            store.put(f"parts/attempts/run/setup/detect/n1/{dead_process()}", b"")

    for deaths in range(SETUP_DEATHS):
        die(deaths)
        with setting_up(store, "run", "detect", "n1"):
            assert len(store.list("parts")) == deaths + 1
        assert store.list("parts") == [], "what was set up in the end begins anew"
    die(SETUP_DEATHS)
    said = "3 workers died one after the other while stage detect was set up"
    with pytest.raises(SetupDied, match=said), setting_up(store, "run", "detect", "n1"):
        pass
    for run, stage, node in (
        ("other", "detect", "n1"),
        ("run", "embed", "n1"),
        ("run", "detect", "n2"),
    ):
        with setting_up(store, run, stage, node):
            pass


def test_workers_that_set_up_at_the_same_time_do_not_take_each_other_for_dead(store: Store) -> None:
    """With many workers on a node every run would end at once."""
    others = [subprocess.Popen(["sleep", "100"]) for _ in range(SETUP_DEATHS)]
    try:
        for other in others:
            store.put(f"parts/attempts/run/setup/detect/n1/{other.pid}", b"")
        with setting_up(store, "run", "detect", "n1"):
            pass
        assert len(store.list("parts")) == len(others), "their marks stay"
    finally:
        for other in others:
            other.kill()
            other.wait()


def test_an_error_of_a_setup_is_told_as_it_is_and_counts_no_death(store: Store) -> None:
    for _ in range(SETUP_DEATHS + 1):
        with pytest.raises(ValueError, match="wrong weights"), setting_up(store, "run", "detect"):
            raise ValueError("wrong weights")
    assert store.list("parts") == []
