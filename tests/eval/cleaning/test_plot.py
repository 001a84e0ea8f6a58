"""Precision and recall, drawn."""

from pathlib import Path

import pytest

from eval.cleaning.judge import Judged, judge
from eval.cleaning.plot import plot
from eval.labels import BadLabels
from tests.eval.cleaning.test_judge import LABELS, PHOTOGRAPHS


@pytest.mark.slow
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
