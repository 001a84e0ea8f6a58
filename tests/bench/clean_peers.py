"""What else chooses the person among vectors: four usual ways, by scikit-learn, each the group that
is in most images.
"""

from collections.abc import Callable, Mapping

import numpy as np
from sklearn.cluster import DBSCAN, AgglomerativeClustering, KMeans
from sklearn.neighbors import NearestNeighbors

from stages.embed.calibration import Calibration

Peer = Callable[[np.ndarray, np.ndarray, Calibration], np.ndarray]
"""bool (n,), which faces are kept, of unit vectors (n, d) and the images (n,) that they are in."""

NEIGHBOURS = 5


def kmeans(unit: np.ndarray, images: np.ndarray, limits: Calibration) -> np.ndarray:
    """FlashFace's way with k = 4: near the centre of the largest cluster."""
    labels = KMeans(min(4, len(unit)), n_init=10, random_state=0).fit_predict(unit)
    own = _largest(labels, images)
    centre = unit[own].sum(axis=0)
    return own & (unit @ (centre / np.linalg.norm(centre)) >= limits.similarity_threshold)


def linkage(unit: np.ndarray, images: np.ndarray, limits: Calibration) -> np.ndarray:
    if len(unit) < 2:
        return np.ones(len(unit), dtype=bool)
    model = AgglomerativeClustering(
        None, metric="cosine", linkage="average", distance_threshold=1 - limits.merge_cosine
    )
    return _largest(model.fit_predict(unit), images)


def dbscan(unit: np.ndarray, images: np.ndarray, limits: Calibration) -> np.ndarray:
    labels = DBSCAN(
        eps=1 - limits.similarity_threshold, min_samples=2, metric="cosine"
    ).fit_predict(unit)
    return np.zeros(len(unit), dtype=bool) if (labels < 0).all() else _largest(labels, images)


def mutual_neighbours(unit: np.ndarray, images: np.ndarray, limits: Calibration) -> np.ndarray:
    """Who is among the five nearest of one another and at the threshold hangs together."""
    count = min(NEIGHBOURS + 1, len(unit))
    distance, nearest = (
        NearestNeighbors(n_neighbors=count, metric="cosine").fit(unit).kneighbors(unit)
    )
    linked = np.zeros((len(unit), len(unit)), dtype=bool)
    np.put_along_axis(linked, nearest, distance <= 1 - limits.similarity_threshold, axis=1)
    linked &= linked.T
    labels = np.arange(len(unit))
    for _ in range(len(unit)):
        lowest = np.where(linked | np.eye(len(unit), dtype=bool), labels[None], len(unit)).min(
            axis=1
        )
        if (lowest == labels).all():
            break
        labels = lowest
    return _largest(labels, images)


def _largest(labels: np.ndarray, images: np.ndarray) -> np.ndarray:
    """bool (n,): the label from 0 that is in most images; the first of equals."""
    names = np.unique(labels[labels >= 0])
    best = max(names.tolist(), key=lambda name: (len(np.unique(images[labels == name])), -name))
    own: np.ndarray = labels == best
    return own


PEERS: Mapping[str, Peer] = {
    "k-means 4": kmeans,
    "average linkage": linkage,
    "DBSCAN": dbscan,
    "mutual 5-NN": mutual_neighbours,
}
