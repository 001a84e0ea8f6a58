"""Verification: what the numbers are on cases that can be worked out by hand, and against a plain
loop.
"""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.metrics.verification import (
    Scores,
    accepted,
    at_far,
    best_threshold,
    equal_error,
    indicator_scores,
    pair_scores,
    roc,
    unit,
    usable,
)

TWO = np.array(["a", "a", "b", "b"])


def people(
    count: int, photographs: int, spread: float, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Vectors about a random direction a person, in no order."""
    random = np.random.default_rng(seed)
    centre = random.normal(size=(count, 16))
    vectors = np.repeat(centre, photographs, axis=0) + spread * random.normal(
        size=(count * photographs, 16)
    )
    person = np.repeat(np.arange(count), photographs)
    order = random.permutation(len(person))
    return vectors[order], person[order]


def test_all_pairs_once_and_by_who_they_are() -> None:
    vectors = np.array([[1, 0], [0, 2], [3, 3], [-1, 0]])
    found = pair_scores(vectors, TWO)
    half = math.sqrt(0.5)
    assert np.allclose(np.sort(found.genuine), [-half, 0])
    assert np.allclose(np.sort(found.impostor), [-1, 0, half, half])


@pytest.mark.parametrize("count", [3, 130, 300])
def test_pairs_are_those_of_a_plain_loop(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eval.metrics.verification._BLOCK", 64)
    vectors, person = people(count // 3, 3, 0.5)
    ready = unit(vectors)
    genuine: list[float] = []
    impostor: list[float] = []
    for i in range(len(person)):
        for j in range(i + 1, len(person)):
            (genuine if person[i] == person[j] else impostor).append(float(ready[i] @ ready[j]))
    found = pair_scores(vectors, person)
    assert np.allclose(np.sort(found.genuine), np.sort(genuine)) and np.allclose(
        np.sort(found.impostor), np.sort(impostor)
    )


def test_more_pairs_than_fit_are_drawn_and_say_the_same() -> None:
    vectors, person = people(60, 4, 1.0)
    whole, drawn = pair_scores(vectors, person), pair_scores(vectors, person, most=20_000)
    assert np.allclose(np.sort(whole.genuine), np.sort(drawn.genuine)), (
        "pairs of one person are always all of them"
    )
    assert len(drawn.impostor) == 20_000
    assert (
        abs(drawn.impostor.mean() - whole.impostor.mean()) < 0.01
        and abs(drawn.impostor.std() - whole.impostor.std()) < 0.01
    )
    assert np.array_equal(drawn.impostor, pair_scores(vectors, person, most=20_000).impostor), (
        "and the same ones every time"
    )


def test_a_photograph_without_a_vector_is_refused_by_all() -> None:
    vectors = np.array([[1, 0], [np.nan, np.nan], [1, 0], [0, 0]])
    assert usable(vectors).tolist() == [True, False, True, False]
    found = pair_scores(vectors, TWO)
    assert found.genuine.tolist() == [-1, -1] and sorted(found.impostor.tolist()) == [-1, -1, -1, 1]
    against = indicator_scores(vectors, np.array(["a", "a", "a", "a"]))
    assert sorted(against.genuine.tolist()) == [-1, -1, 1, 1], (
        "neither does it blur the indicator of the others"
    )


def test_the_indicator_leaves_the_photograph_itself_out() -> None:
    vectors = np.array([[1.0, 0], [0, 1.0], [5, 0], [0, 5]])
    found = indicator_scores(vectors, TWO)
    assert found.genuine.tolist() == [0, 0, 0, 0], (
        "with itself in it, each would be 0.71 to its indicator"
    )
    half = math.sqrt(0.5)
    assert np.allclose(found.impostor, half)


def test_people_with_one_photograph_have_no_indicator() -> None:
    vectors, person = np.array([[1.0, 0], [1, 0], [0, 1]]), np.array(["a", "a", "b"])
    found = indicator_scores(vectors, person)
    assert found.genuine.tolist() == [1, 1] and found.impostor.tolist() == [0]
    assert len(indicator_scores(vectors, person, least=3).genuine) == 0


def test_tar_at_far_counts_impostors_at_the_threshold() -> None:
    scores = Scores(np.array([0.9, 0.5, 0.31, 0.1]), np.arange(100) / 250)  # impostors 0 to 0.396
    ten = at_far(scores, 0.1)
    assert ten.reached == 0.1 and 0.356 < ten.threshold <= 0.36 and ten.tar == 0.5
    none = at_far(scores, 0.0)
    assert none.reached == 0 and none.threshold > 0.396 and none.tar == 0.5
    assert at_far(scores, 1.0).tar == 1.0
    with pytest.raises(ValueError, match="no share"):
        at_far(scores, 1.5)


def test_impostors_that_score_alike_do_not_slip_over_the_rate() -> None:
    scores = Scores(np.array([0.5, 0.6]), np.array([0.5] * 5 + [0.1] * 95))
    found = at_far(scores, 0.02)
    assert found.reached == 0 and found.tar == 0.5


def test_a_perfect_and_a_blind_recogniser() -> None:
    perfect = Scores(np.full(50, 0.8), np.full(500, 0.1))
    assert at_far(perfect, 1e-3).tar == 1 and equal_error(perfect)[0] == 0
    same = np.linspace(-1, 1, 400)
    rate, threshold = equal_error(Scores(same, same))
    assert abs(rate - 0.5) < 0.01 and abs(threshold) < 0.01


def test_no_scores_are_no_numbers() -> None:
    empty = Scores(np.zeros(0), np.zeros(0))
    assert (
        math.isnan(at_far(empty, 0.1).tar)
        and math.isnan(equal_error(empty)[0])
        and math.isnan(accepted(empty.genuine, 0))
    )
    assert [len(part) for part in roc(empty)] == [0, 0, 0]
    with pytest.raises(ValueError, match="scores of both kinds"):
        best_threshold(np.ones(3), np.zeros(0))
    assert len(pair_scores(np.zeros((0, 4)), np.zeros(0)).genuine) == 0


def test_the_curve_runs_through_its_working_points() -> None:
    vectors, person = people(40, 5, 1.2)
    scores = pair_scores(vectors, person)
    far, tar, threshold = roc(scores)
    assert (
        (np.diff(far) <= 0).all() and (np.diff(tar) <= 0).all() and (np.diff(threshold) > 0).all()
    )
    assert far[0] == 1 and far[-1] == 0
    for share, hit, limit in list(zip(far, tar, threshold, strict=True))[:: len(far) // 20]:
        assert (
            share == (scores.impostor >= limit).mean() and hit == (scores.genuine >= limit).mean()
        )


def test_the_best_threshold_lies_in_the_middle_of_a_gap() -> None:
    assert best_threshold(np.array([0.6, 0.9]), np.array([0.1, 0.2])) == pytest.approx(0.4)
    one_wrong = best_threshold(np.array([0.05, 0.6, 0.7, 0.8]), np.array([0.1, 0.2, 0.3]))
    assert one_wrong == pytest.approx(0.45), "a wrong label does not pull it down"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(-20, 20), min_size=1, max_size=15),
    st.lists(st.integers(-20, 20), min_size=1, max_size=15),
)
def test_no_threshold_does_better_than_the_best(own: list[int], others: list[int]) -> None:
    mine, theirs = np.array(own) / 20, np.array(others) / 20

    def cost(threshold: float) -> float:
        return float((mine < threshold).mean() + (theirs >= threshold).mean())

    found = cost(best_threshold(mine, theirs))
    assert all(found <= cost(threshold) + 1e-9 for threshold in np.linspace(-1.1, 1.1, 221))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_neither_the_order_of_photographs_nor_their_lengths_matter(seed: int) -> None:
    vectors, person = people(6, 4, 0.8, seed)
    order = np.random.default_rng(seed).permutation(len(person))
    for scores in (pair_scores, indicator_scores):
        one, two = scores(vectors, person), scores(vectors[order] * 7.5, person[order])
        assert np.allclose(np.sort(one.genuine), np.sort(two.genuine)) and np.allclose(
            np.sort(one.impostor), np.sort(two.impostor)
        )
