"""The indicator embedding of a person: the quality-weighted mean direction of the faces that are the person."""

import numpy as np

CROP_SIDE = 112.0
"""Pixels: the picture that face recognisers look at; a smaller face is scaled up for them."""
BLUR_LIMIT = 100.0
"""Grey levels squared: below this variance of the Laplacian a picture is usually called blurred (Pech-Pacheco et al. 2000)."""
LEAST_WEIGHT = 0.1
"""A person known from poor pictures only still has an indicator."""


def quality_weights(score: np.ndarray, side: np.ndarray, sharpness: np.ndarray, person: np.ndarray | None = None) -> np.ndarray:
    """How much each face counts in the indicator of its person: (n,) float64 in 0.1 to 1.

    `score`: the detector's; `side`: pixels; `sharpness`: Laplacian variance of the face at 112 pixels; each (n,), nan
    where unknown, which counts as good. `person`: (n,) integers, 0 and up, all one person if left out. A face smaller
    or less sharp than the limits above counts less in proportion. Detectors have no common scale of scores, so that the
    score is taken relative to the median of the person, and left out where that is not above 0.
    """
    score, side, sharpness = (np.asarray(values, dtype=np.float64) for values in (score, side, sharpness))
    median = _medians(score, np.zeros(len(score), dtype=np.int64) if person is None else person)
    relative = np.divide(score, median, out=np.ones(len(score)), where=median > 0)
    weights = np.ones(len(score))
    for factor in (relative, side / CROP_SIDE, sharpness / BLUR_LIMIT):
        weights *= np.clip(np.where(np.isfinite(factor), factor, 1.0), 0.0, 1.0)
    return np.clip(weights, LEAST_WEIGHT, 1.0)


def weighted_sums(vectors: np.ndarray, weights: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Sums of weighted vectors by person: (p, d) float64.

    `vectors`: (n, d), the faces of one person after those of another; `weights`: (n,); `starts`: (p,) where each person
    begins, rising. Every sum runs in the order of the rows, so that its bits do not depend on the other people.
    """
    weighted = vectors.astype(np.float64) * weights[:, None]
    sums: np.ndarray = np.add.reduceat(weighted, starts, axis=0)
    return sums


def normalised(vectors: np.ndarray) -> np.ndarray:
    """Unit vectors along the last axis; what is as good as zero becomes zero rather than noise."""
    norm = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit: np.ndarray = np.where(norm > 1e-9, vectors / np.maximum(norm, 1e-9), 0.0)
    return unit


def _medians(values: np.ndarray, person: np.ndarray) -> np.ndarray:
    """For every value the median of its person's finite values, nan where there is none: (n,) float64."""
    count = int(person.max(initial=-1)) + 1
    known = np.flatnonzero(np.isfinite(values))
    known = known[np.lexsort((values[known], person[known]))]
    size = np.bincount(person[known], minlength=count)
    start = np.cumsum(size) - size
    medians = np.full(count, np.nan)
    has = size > 0
    low, high = (start + (size - 1) // 2)[has], (start + size // 2)[has]
    medians[has] = (values[known[low]] + values[known[high]]) / 2
    of_person: np.ndarray = medians[person]
    return of_person
