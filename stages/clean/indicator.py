"""The indicator embedding of a person: the mean direction of the faces that are the person.

All faces count alike. Weights by the detector's score, side, sharpness or the raw norm of the
vectors were measured on 768 photographs of 60 people against everybody else's: no share of own
faces found at one stranger in 10,000 rises (edgeface_xs 0.9987 whatever the weights;
dlib_resnet_v1, with indicators of four photographs, 0.886 without and 0.870 to 0.891 with).
"""

from itertools import pairwise

import numpy as np


def sums(vectors: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
    """Sums of vectors by group: (groups, d) float64, zeros for groups without any.

    `vectors`: (n, d); `group`: (n,) integers, 0 to `groups` - 1. Every sum runs in the order of the
    rows, so that its bits do not depend on the other groups.
    """
    found = np.zeros((groups, vectors.shape[1]))
    if len(vectors):
        if not (group[1:] >= group[:-1]).all():
            order = np.argsort(group, kind="stable")
            vectors, group = vectors[order], group[order]
        edges = [0, *(np.flatnonzero(group[1:] != group[:-1]) + 1).tolist(), len(group)]
        # One call a group: reduceat goes down the columns and takes several times as long.
        for start, stop in pairwise(edges):
            np.add.reduce(vectors[start:stop], axis=0, dtype=np.float64, out=found[group[start]])
    return found


def normalised(vectors: np.ndarray) -> np.ndarray:
    """Unit vectors along the last axis; what is as good as zero becomes zero rather than noise."""
    norm = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit: np.ndarray = np.where(norm > 1e-9, vectors / np.maximum(norm, 1e-9), 0.0)
    return unit


def similarities(
    vectors: np.ndarray, total: np.ndarray, group: np.ndarray, without: np.ndarray
) -> np.ndarray:
    """Cosines (n,) float64 of unit vectors with a sum of unit vectors each, 0 where that is
    nothing.

    `vectors`: (n, d); `total`: (groups, d) float64; `group`: (n,) which sum a vector is compared
    with; `without`: (n,) bool, the vector is a part of that sum and is left out of it.
    """
    square = np.einsum("gd,gd->g", total, total)[group]
    dot, own = (
        np.einsum("nd,nd->n", vectors, total[group]),
        np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64),
    )
    dot = dot - np.where(without, own, 0.0)
    # |t - x|^2 = |t|^2 - 2 x (t - x) - |x|^2, with x (t - x) in `dot` already.
    square = np.where(without, square - 2 * dot - own, square)
    length = np.sqrt(np.maximum(square, 0.0))
    found: np.ndarray = np.divide(dot, length, out=np.zeros(len(dot)), where=length > 1e-6)
    return found
