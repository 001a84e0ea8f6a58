"""Precision and recall of what cleaning kept: pure functions of arrays."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Score:
    """Counts of photographs: kept rightly, kept wrongly, and lost, that is to say right and not
    kept.
    """

    right: int
    wrong: int
    lost: int

    @property
    def precision(self) -> float:
        """The share of what was kept that is right; nan if nothing was kept."""
        return self.right / (self.right + self.wrong) if self.right + self.wrong else float("nan")

    @property
    def recall(self) -> float:
        """The share of what is right that was kept; nan if nothing is right."""
        return self.right / (self.right + self.lost) if self.right + self.lost else float("nan")

    @property
    def f1(self) -> float:
        """The harmonic mean of both (van Rijsbergen 1979), 0 if nothing was kept rightly; nan if
        nothing is right or kept.
        """
        every = 2 * self.right + self.wrong + self.lost
        return 2 * self.right / every if every else float("nan")


def score(kept: np.ndarray, right: np.ndarray) -> Score:
    """`kept`, `right`: (n,) bool, of photographs whose truth is known."""
    kept, right = np.asarray(kept, dtype=bool), np.asarray(right, dtype=bool)
    return Score(int((kept & right).sum()), int((kept & ~right).sum()), int((~kept & right).sum()))


def sweep(similarity: np.ndarray, right: np.ndarray, thresholds: np.ndarray) -> list[Score]:
    """The scores (t) if all photographs were kept whose `similarity` is at a threshold (t,) or
    above.

    `similarity`: (n,) float64, nan for photographs that are not kept at any threshold; `right`:
    (n,) bool.
    """
    similarity, right = np.asarray(similarity, dtype=np.float64), np.asarray(right, dtype=bool)
    lowest = np.where(np.isnan(similarity), -np.inf, similarity)
    inside = {name: np.sort(lowest[mask]) for name, mask in (("right", right), ("wrong", ~right))}
    found = []
    for threshold in np.asarray(thresholds, dtype=np.float64):
        counts = {
            name: len(values) - int(np.searchsorted(values, threshold, side="left"))
            for name, values in inside.items()
        }
        found.append(Score(counts["right"], counts["wrong"], int(right.sum()) - counts["right"]))
    return found


def by_group(group: np.ndarray, kept: np.ndarray, right: np.ndarray) -> dict[str, Score]:
    """The score of each group (a person), in the order of their names. `group`: (n,) texts."""
    names, of = np.unique(np.asarray(group, dtype=str), return_inverse=True)
    kept, right = np.asarray(kept, dtype=bool), np.asarray(right, dtype=bool)
    counts = [
        np.bincount(of[mask], minlength=len(names))
        for mask in (kept & right, kept & ~right, ~kept & right)
    ]
    return {
        str(name): Score(*(int(count[at]) for count in counts)) for at, name in enumerate(names)
    }
