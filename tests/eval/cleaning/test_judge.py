"""A dataset against truth: photographs that count or do not."""

import json

import numpy as np
import pytest

from eval.cleaning.judge import Judged, as_json, judge, parse_thresholds
from eval.cleaning.truth import Label
from eval.labels import BadLabels
from eval.metrics.cleaning import Score

LABELS = {
    "ada/1.jpg": Label("right", "ada"),
    "ada/2.jpg": Label("right", "ada"),
    "ada/3.jpg": Label("wrong", "ada"),
    "ada/4.jpg": Label("right", "zoe"),
    "ada/5.jpg": Label("hard", "ada"),
    "https://example.org/6.jpg": Label("right", None),
    "ada/9.jpg": Label("right", "ada"),
}
PHOTOGRAPHS = [
    Judged("Ada", "local:ada/1.jpg", True, 0.8, None),
    Judged("Ada", "local:ada/2.jpg", False, 0.3, "below_threshold"),
    Judged("Ada", "local:ada/3.jpg", True, 0.5, None),
    Judged("Ada", "local:ada/4.jpg", False, None, "other_cluster"),
    Judged("Ada", "local:ada/5.jpg", True, 0.6, None),
    Judged("Zoe", "https://example.org/6.jpg", True, 0.9, None),
    Judged("Zoe", "local:zoe/7.jpg", True, 0.9, None),
]


def test_every_photograph_counts_as_it_is_labelled() -> None:
    found = judge(PHOTOGRAPHS[:6], LABELS, unlabelled=1)
    assert found.total == Score(right=2, wrong=1, lost=1)
    assert found.people == {"Ada": Score(1, 1, 1), "Zoe": Score(1, 0, 0)}
    assert found.apart == {"hard": (1, 1)} and found.lost == {"below_threshold": 1}
    assert (found.unlabelled, found.missing) == (1, 1)
    assert found.worst() == [("Ada", Score(1, 1, 1))]


def test_somebody_else_s_photograph_is_wrong_though_its_own_label_is_right() -> None:
    """ada/4.jpg shows Zoe: were it kept, it would be a stranger among Ada's."""
    kept = [Judged("Ada", "local:ada/4.jpg", True, 0.7, None)]
    assert judge(kept, LABELS).total == Score(0, 1, 0)


def test_thresholds_tell_what_another_one_would_do() -> None:
    found = judge(PHOTOGRAPHS, LABELS, np.array([0.2, 0.4, 0.6, 0.95]))
    assert [(one.right, one.wrong, one.lost) for one in found.curve] == [
        (3, 1, 0),
        (2, 1, 1),
        (2, 0, 1),
        (0, 0, 3),
    ]
    steps = judge(PHOTOGRAPHS, LABELS).thresholds
    assert len(steps) == 21 and steps[0] == 0.3 and steps[-1] == 0.9
    nothing = judge([Judged("Ada", "local:ada/1.jpg", False, None, "no_face")], LABELS)
    assert len(nothing.thresholds) == 0 and nothing.total.recall == 0


def test_labels_of_another_dataset() -> None:
    with pytest.raises(
        BadLabels,
        match=r"none of the 7 labels is of a photograph of this dataset, for example 'ada/1.jpg'",
    ):
        judge(PHOTOGRAPHS[-1:], LABELS)


def test_thresholds_are_a_range_or_a_list() -> None:
    assert parse_thresholds("0.2:0.5:0.1").tolist() == [0.2, 0.3, 0.4, 0.5]
    assert parse_thresholds("0.3, 0.9").tolist() == [0.3, 0.9]
    for text in ("0.5:0.2:0.1", "0.1:0.2", "much", "0.2:0.5:0", "0:1:1e-9", "nan"):
        with pytest.raises(BadLabels, match="--thresholds"):
            parse_thresholds(text)
    with pytest.raises(BadLabels, match="from -1 to 1"):
        parse_thresholds("0.5,7")


def test_numbers_without_a_meaning_are_null_in_json() -> None:
    found = as_json(judge(PHOTOGRAPHS, LABELS, np.array([0.95])))
    assert found["thresholds"][0] == {
        "threshold": 0.95,
        "right": 0,
        "wrong": 0,
        "lost": 3,
        "precision": None,
        "recall": 0.0,
        "f1": 0.0,
    }
    assert json.loads(json.dumps(found, allow_nan=False)) == found
