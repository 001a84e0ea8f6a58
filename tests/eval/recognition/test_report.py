"""What the report says of vectors whose people are known."""

from pathlib import Path

import numpy as np
import pytest

from eval.metrics.verification import Scores
from eval.recognition.measure import Measured
from eval.recognition.photographs import Photograph
from eval.recognition.report import curves, report
from eval.recognition.roc_plot import write


def measured(vectors: np.ndarray, person: list[str], undisputed: list[bool]) -> Measured:
    photographs = [
        Photograph(Path(f"{at}.jpg"), name, fine)
        for at, (name, fine) in enumerate(zip(person, undisputed, strict=True))
    ]
    return Measured(photographs, np.ones(len(person), dtype=np.int64), {"toy": vectors})


def test_disputed_labels_are_reported_apart_and_set_no_thresholds(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    person = [name for name in "abcdefgh" for _ in range(8)]
    vectors = np.repeat(random.normal(size=(8, 16)), 8, axis=0) + 0.1 * random.normal(size=(64, 16))
    vectors[:2] = vectors[-2:]  # two photographs of somebody else
    fine = [False, False, *[True] * 62]
    numbers = report(measured(vectors, person, fine))["recognisers"]["toy"]
    sets = numbers["verification"]
    assert list(sets) == ["undisputed", "all"] and (
        sets["undisputed"]["photographs"],
        sets["all"]["photographs"],
    ) == (62, 64)
    assert (
        sets["undisputed"]["pairs"]["equal_error"]["rate"]
        == 0
        < sets["all"]["pairs"]["equal_error"]["rate"]
    )
    assert numbers["thresholds"]["own_below"] == (0, 62) and numbers["thresholds"][
        "people_linked"
    ] == (0, 28)
    assert list(
        report(measured(vectors, person, [True] * 64))["recognisers"]["toy"]["verification"]
    ) == ["all"]


def test_rates_that_so_few_pairs_cannot_show_are_left_out() -> None:
    vectors = np.random.default_rng(0).normal(size=(20, 8))
    numbers = report(measured(vectors, [str(at // 2) for at in range(20)], [True] * 20))
    found = numbers["recognisers"]["toy"]["verification"]["all"]["pairs"]
    assert found["impostor"] == 180 and [point["far"] for point in found["tar_at_far"]] == [1e-2]


def test_the_curve_as_a_table_and_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    vectors = np.random.default_rng(0).normal(size=(40, 8))
    shown = curves(
        measured(vectors, [str(at // 4) for at in range(40)], [at % 5 > 0 for at in range(40)])
    )
    assert len(shown["toy"].genuine) + len(shown["toy"].impostor) == 32 * 31 // 2, (
        "of undisputed labels only"
    )
    table, plot = write(tmp_path, {**shown, "empty": Scores(np.zeros(0), np.zeros(0))})
    lines = table.read_text().splitlines()
    assert lines[0] == "recogniser,far,tar,threshold" and lines[1].startswith("toy,1.0,1.0,")
    assert plot.read_bytes().startswith(b"\x89PNG")
