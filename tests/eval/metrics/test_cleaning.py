"""Precision and recall of cleaning: whoever chooses a threshold by them must not be told the wrong
side of it.
"""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, precision_score, recall_score

from eval.metrics.cleaning import Score, by_group, score, sweep


@pytest.mark.slow
@given(pairs=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_it_is_what_scikit_learn_counts(pairs: list[tuple[bool, bool]]) -> None:
    kept, right = (np.array(column) for column in zip(*pairs, strict=True))
    found = score(kept, right)
    for mine, theirs in (
        (found.precision, precision_score),
        (found.recall, recall_score),
        (found.f1, f1_score),
    ):
        expected = theirs(right, kept, zero_division=np.nan)
        assert (
            mine == expected
            or (math.isnan(mine) and math.isnan(expected))
            or abs(mine - expected) < 1e-12
        )


def test_nothing_kept_is_no_precision_and_not_a_perfect_one() -> None:
    found = score(np.zeros(3, bool), np.ones(3, bool))
    assert math.isnan(found.precision) and found.recall == 0 and found.f1 == 0
    assert math.isnan(Score(0, 0, 0).f1)


@given(
    values=st.lists(
        st.tuples(
            st.one_of(st.just(math.nan), st.sampled_from([-0.5, 0.1, 0.2, 0.2000001, 0.9])),
            st.booleans(),
        ),
        max_size=30,
    ),
    thresholds=st.lists(st.sampled_from([-1.0, 0.1, 0.2, 0.3, 0.9, 1.0]), max_size=6),
)
def test_a_sweep_is_the_score_at_each_threshold(
    values: list[tuple[float, bool]], thresholds: list[float]
) -> None:
    similarity = np.array([value for value, _ in values])
    right = np.array([truth for _, truth in values], dtype=bool)
    expected = [score(similarity >= threshold, right) for threshold in thresholds]
    assert sweep(similarity, right, np.array(thresholds)) == expected


def test_by_person() -> None:
    found = by_group(
        np.array(["b", "a", "b"]), np.array([True, True, False]), np.array([True, False, True])
    )
    assert found == {"a": Score(0, 1, 0), "b": Score(1, 0, 1)}
    assert list(found) == ["a", "b"]
