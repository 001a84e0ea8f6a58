"""Precision and recall over thresholds, drawn."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from eval.cleaning.judge import Report
from eval.labels import BadLabels

ENDINGS = (".png", ".svg", ".pdf")


def plot(report: Report, path: Path, thresholds_used: Sequence[float] = ()) -> None:
    """Precision, recall and F1 over thresholds, and below them the similarities. Raises BadLabels
    for a strange ending.
    """
    from matplotlib.figure import Figure

    if path.suffix.lower() not in ENDINGS:
        raise BadLabels(f"{path}: a plot is written as {', '.join(ENDINGS)}; name it so")
    figure = Figure(figsize=(7, 7))
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    for name in ("precision", "recall", "f1"):
        above.plot(
            report.thresholds, [getattr(one, name) for one in report.curve], label=name, marker="."
        )
    above.set(
        ylabel="share of photographs",
        title=f"{int(report.right.sum())} right photographs, {int((~report.right).sum())} wrong "
        "ones",
    )
    groups = [
        report.similarity[mask & ~np.isnan(report.similarity)]
        for mask in (report.right, ~report.right)
    ]
    if any(map(len, groups)):
        below.hist(groups, bins=40, stacked=True, label=["right", "wrong"])
    below.set(
        xlabel="cosine to the indicator, of faces in the person's cluster",
        ylabel="photographs",
        yscale="log",
    )
    for axes in (above, below):
        for threshold in thresholds_used:
            axes.axvline(threshold, color="black", linestyle=":", label=f"threshold {threshold:g}")
        axes.grid(alpha=0.3)
        axes.legend(loc="lower left")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
