"""What cleaning kept against the truth."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from eval.cleaning.truth import RIGHT, WRONG, Label, label_of
from eval.labels import BadLabels
from eval.metrics.cleaning import Score, by_group, score, sweep

STEPS = 21


@dataclass(frozen=True)
class Judged:
    """A photograph of a dataset and what cleaning made of it.

    `kept`: a face of it is kept, or is the copy of one that is. `similarity`: the highest of its
    faces in the person's cluster to the indicator, None where there is none. `reason`: why it was
    not kept.
    """

    person: str
    address: str
    kept: bool
    similarity: float | None
    reason: str | None


@dataclass(frozen=True)
class Report:
    """Precision and recall. `apart`: of groups that say neither right nor wrong, how many there are
    and how many were kept.
    """

    total: Score
    people: dict[str, Score]
    apart: dict[str, tuple[int, int]]
    lost: dict[str, int]
    """Why right photographs were not kept: reason to count."""
    thresholds: np.ndarray
    curve: list[Score]
    """If only the threshold were another one: clusters and indicators stay as they are."""
    similarity: np.ndarray
    right: np.ndarray
    """Of the photographs that count, for plots: (n,) float64 with nan, and (n,) bool."""
    unlabelled: int
    missing: int
    """Photographs of the dataset without a label, and labels without a photograph in the
    dataset.
    """

    def worst(self, count: int = 10) -> list[tuple[str, Score]]:
        """The people with errors, the lowest F1 first."""
        faulty = [(name, one) for name, one in self.people.items() if one.wrong or one.lost]
        return sorted(faulty, key=lambda item: (item[1].f1, item[0]))[:count]


def parse_thresholds(text: str) -> np.ndarray:
    """`0.2:0.8:0.05` (from, to, step) or `0.3,0.4`. Raises BadLabels."""
    try:
        if ":" in text:
            first, last, step = (float(part) for part in text.split(":"))
            if not (step > 0 and first <= last and (last - first) / step < 10_000):
                raise ValueError
            found = np.round(first + step * np.arange(int((last - first) / step + 1e-6) + 1), 9)
        else:
            found = np.array([float(part) for part in text.split(",")])
    except ValueError:
        raise BadLabels(
            f"--thresholds {text}: write from:to:step, as 0.2:0.8:0.05, or a list, as 0.3,0.4"
        ) from None
    if not (np.abs(found) <= 1).all():
        raise BadLabels(f"--thresholds {text}: cosines are from -1 to 1")
    return found


def judge(
    photographs: Iterable[Judged],
    labels: Mapping[str, Label],
    thresholds: np.ndarray | None = None,
    unlabelled: int = 0,
) -> Report:
    """Compare what was kept with the truth. Raises BadLabels if no photograph has a label.

    A photograph counts as wrong if it is labelled so, or if its `person` is another than the one
    under whose name it is. Without `thresholds` 21 are taken, from the least similarity to the
    greatest. `unlabelled` photographs there are beside.
    """
    counted: list[tuple[Judged, bool]] = []
    apart: dict[str, tuple[int, int]] = {}
    used = 0
    for one in photographs:
        label = label_of(one.address, labels)
        if label is None:
            unlabelled += 1
            continue
        used += 1
        other = label.person is not None and label.person.casefold() != one.person.casefold()
        if other or label.truth in (RIGHT, WRONG):
            counted.append((one, label.truth == RIGHT and not other))
        else:
            there, so_far = apart.get(label.truth, (0, 0))
            apart[label.truth] = (there + 1, so_far + one.kept)
    if not used:
        raise BadLabels(
            f"none of the {len(labels)} labels is of a photograph of this dataset, for example "
            f"{next(iter(labels))!r}"
        )
    kept = np.array([one.kept for one, _ in counted], dtype=bool)
    right = np.array([truth for _, truth in counted], dtype=bool)
    similarity = np.array(
        [np.nan if one.similarity is None else one.similarity for one, _ in counted],
        dtype=np.float64,
    )
    lost = Counter(one.reason or "unknown" for one, truth in counted if truth and not one.kept)
    steps = _steps(similarity) if thresholds is None else np.asarray(thresholds, dtype=np.float64)
    return Report(
        total=score(kept, right),
        people=by_group(np.array([one.person for one, _ in counted], dtype=str), kept, right),
        apart=dict(sorted(apart.items())),
        lost=dict(sorted(lost.items())),
        thresholds=steps,
        curve=sweep(similarity, right, steps),
        similarity=similarity,
        right=right,
        unlabelled=unlabelled,
        missing=len(labels) - used,
    )


def _steps(similarity: np.ndarray) -> np.ndarray:
    known = similarity[~np.isnan(similarity)]
    if not len(known):
        return np.empty(0)
    return np.unique(
        np.round(np.linspace(np.floor(known.min() * 100) / 100, min(1.0, known.max()), STEPS), 4)
    )


def as_json(report: Report) -> dict[str, Any]:
    """The numbers of a report in JSON types; nan as null."""
    return {
        "total": _score(report.total),
        "lost": report.lost,
        "apart": {
            name: {"photographs": there, "kept": kept}
            for name, (there, kept) in report.apart.items()
        },
        "people": {name: _score(one) for name, one in report.people.items()},
        "thresholds": [
            {"threshold": float(threshold), **_score(one)}
            for threshold, one in zip(report.thresholds, report.curve, strict=True)
        ],
        "unlabelled": report.unlabelled,
        "missing": report.missing,
    }


def _score(one: Score) -> dict[str, float | int | None]:
    ratios = {name: getattr(one, name) for name in ("precision", "recall", "f1")}
    counts: dict[str, float | int | None] = {
        "right": one.right,
        "wrong": one.wrong,
        "lost": one.lost,
    }
    return {
        **counts,
        **{name: None if np.isnan(value) else value for name, value in ratios.items()},
    }
