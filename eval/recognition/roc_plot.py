"""ROC curves as an image and as a table."""

import csv
from collections.abc import Mapping
from pathlib import Path

from eval.metrics.verification import Scores, roc


def write(folder: Path, curves: Mapping[str, Scores]) -> list[Path]:
    """`roc.csv` (recogniser, far, tar, threshold) and `roc.png` in a folder; what was written.
    Raises OSError.
    """
    from matplotlib.figure import Figure

    table, picture = folder / "roc.csv", folder / "roc.png"
    figure = Figure(figsize=(7, 5))
    axes = figure.add_subplot()
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("recogniser", "far", "tar", "threshold"))
        for name, scores in curves.items():
            far, tar, threshold = roc(scores)
            writer.writerows(
                (name, *(float(value) for value in point))
                for point in zip(far, tar, threshold, strict=True)
            )
            shown = far > 0
            axes.step(
                far[shown],
                tar[shown],
                where="post",
                label=f"{name} ({len(scores.genuine)} / {len(scores.impostor)} pairs)",
            )
    axes.set(xscale="log", ylim=(None, 1.002))
    axes.set(
        xlabel="FAR: share of pairs of two people that are accepted",
        ylabel="TAR: share of pairs of one person",
    )
    axes.grid(alpha=0.3)
    if curves:
        axes.legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(picture, dpi=120)
    return [table, picture]
