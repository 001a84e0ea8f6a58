"""A dataset against truth: labels as people write them, and photographs that count or do not."""

import json
from pathlib import Path

import numpy as np
import pytest

from eval.cleaning import (
    BadLabels,
    Judged,
    Label,
    as_json,
    judge,
    parse_thresholds,
    plot,
    read_labels,
)
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


def test_labels_as_they_are_written(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text(
        "file,person,label_check\na/1.jpg,a,ok\na/2.jpg,a,single photo\na/3.jpg,a,wrong person "
        "(single face)\n"
        'a/4.jpg,a,scraped: agrees\na/5.jpg,,\n"a/6, b.jpg",a,hard (low)\n'
    )
    found = read_labels(file)
    assert [one.truth for one in found.values()] == [
        "right",
        "right",
        "wrong",
        "scraped",
        "right",
        "hard",
    ]
    assert found["a/5.jpg"].person is None and "a/6, b.jpg" in found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "name,person\nx,y\n",
            "needs the columns file and person, label_check or both; it has name, person",
        ),
        ("file\nx\n", "it has file"),
        ("", "it has none"),
        ("file,person\n", "there are no labels"),
        ("file,person\na.jpg,a\n,a\n", "labels.csv:3: the column file is empty"),
        ("file,person\na.jpg,a\na.jpg,b\n", "labels.csv:3: a.jpg is labelled twice"),
    ],
)
def test_labels_that_cannot_be_used_are_told_with_file_and_line(
    tmp_path: Path, text: str, said: str
) -> None:
    file = tmp_path / "labels.csv"
    file.write_text(text)
    with pytest.raises(BadLabels) as caught:
        read_labels(file)
    assert said in str(caught.value) and str(file) in str(caught.value)


def test_labels_of_another_dataset_and_no_file_at_all(tmp_path: Path) -> None:
    with pytest.raises(
        BadLabels,
        match=r"none of the 7 labels is of a photograph of this dataset, for example 'ada/1.jpg'",
    ):
        judge(PHOTOGRAPHS[-1:], LABELS)
    with pytest.raises(BadLabels, match="cannot be read: No such file"):
        read_labels(tmp_path / "nowhere.csv")
    (tmp_path / "bytes.csv").write_bytes(b"file,person\n\xff\xfe,a\n")
    with pytest.raises(BadLabels, match="cannot be read"):
        read_labels(tmp_path / "bytes.csv")


def test_thresholds_are_a_range_or_a_list() -> None:
    assert parse_thresholds("0.2:0.5:0.1").tolist() == [0.2, 0.3, 0.4, 0.5]
    assert parse_thresholds("0.3, 0.9").tolist() == [0.3, 0.9]
    for text in ("0.5:0.2:0.1", "0.1:0.2", "much", "0.2:0.5:0", "0:1:1e-9", "nan"):
        with pytest.raises(BadLabels, match="--thresholds"):
            parse_thresholds(text)
    with pytest.raises(BadLabels, match="from -1 to 1"):
        parse_thresholds("0.5,7")


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_plots_are_written(tmp_path: Path, ending: str) -> None:
    for name, photographs in (
        ("all", PHOTOGRAPHS),
        ("none", [Judged("Ada", "local:ada/1.jpg", False, None, "no_face")]),
    ):
        file = tmp_path / f"{name}.{ending}"
        plot(judge(photographs, LABELS), file, [0.4])
        assert file.stat().st_size > 1000


def test_a_plot_with_a_strange_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadLabels, match=r"a plot is written as .png, .svg, .pdf"):
        plot(judge(PHOTOGRAPHS, LABELS), tmp_path / "plot.txt")


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
