"""The thresholds of `clean` in a recogniser's space, from photographs whose people are known (see
stages/embed/calibration.py).
"""

from dataclasses import dataclass

import numpy as np

from eval.metrics.verification import Scores, best_threshold, indicator_scores, unit, usable
from schemas.errors import UserError
from stages.clean.lloyd import kmeans

CLUSTERS = 4
"""So that the faces of a person fall into parts that can be compared as groups are."""
LEAST_FACES = 6
"""Of a person whose clusters are looked at."""
LEAST_JOINED = 5
"""Of a person whose indicator is sharp enough to judge faces of other groups."""


class TooFew(UserError, ValueError):
    """There are not enough photographs to measure thresholds; the message says what is missing."""


@dataclass(frozen=True)
class CleanThresholds:
    """What a DAG takes for `clean` where it sets nothing, and how well it separates the photographs
    that it was measured on.
    """

    similarity_threshold: float
    merge_cosine: float
    join_cosine: float
    photographs: int
    people: int
    own_below: tuple[int, int]
    """Photographs whose cosine to the indicator of their own person is below
    `similarity_threshold`, of how many.
    """
    strangers_above: tuple[int, int]
    """The same for photographs and the indicators of other people that are at or above it."""
    faces_cut_off: tuple[int, int]
    """Faces that `merge_cosine` does not link to their person's largest cluster."""
    people_linked: tuple[int, int]
    """Pairs of people whose clusters it would link."""

    @property
    def source(self) -> str:
        """For the registry: what was measured."""
        return (
            f"{self.photographs} photographs of {self.people} people: own photographs below: "
            f"{_of(self.own_below)},"
            f" strangers above: {_of(self.strangers_above)}; merge cuts off "
            f"{_of(self.faces_cut_off)} faces,"
            f" links {_of(self.people_linked)} pairs of people"
        )


def _of(counted: tuple[int, int]) -> str:
    return f"{counted[0]} of {counted[1]}"


def clean_thresholds(vectors: np.ndarray, person: np.ndarray) -> CleanThresholds:
    """`vectors`: (n, d), one face of each photograph; `person`: (n,) labels. Raises TooFew.

    `similarity_threshold` separates a person's photographs from everybody else's against
    indicators, `merge_cosine` the clusters of one person from those of two; both with the least sum
    of both shares of errors, in the middle of the gap if there is one. `join_cosine` lies above
    every stranger, halfway to the lowest own photograph if that is higher.
    """
    has = usable(vectors)
    vectors, person = np.asarray(vectors)[has], np.asarray(person)[has]
    names, counts = np.unique(person, return_counts=True)
    if (counts >= LEAST_FACES).sum() < 2:
        raise TooFew(
            f"thresholds need two people with {LEAST_FACES} usable photographs at least (one "
            "face, an undisputed label);"
            f" there are {int((counts >= LEAST_FACES).sum())}"
        )
    likeness, links = indicator_scores(vectors, person), cluster_links(vectors, person)
    similarity = round(best_threshold(likeness.genuine, likeness.impostor), 4)
    merge = round(best_threshold(links.genuine, links.impostor), 4)
    sharp = indicator_scores(vectors, person, LEAST_JOINED)
    highest, lowest = float(sharp.impostor.max()), float(sharp.genuine.min())
    # Rounded up: it is to lie above every stranger.
    join = float(
        np.ceil(((highest + lowest) / 2 if lowest > highest else highest) * 1e4 + 1e-6) / 1e4
    )
    return CleanThresholds(
        similarity,
        merge,
        min(join, 1.0),
        len(vectors),
        len(names),
        *_errors(likeness, similarity),
        *_errors(links, merge),
    )


def _errors(scores: Scores, threshold: float) -> tuple[tuple[int, int], tuple[int, int]]:
    """How many genuine scores are below a threshold, and how many impostors are not, each of how
    many.
    """
    below, above = (
        int((scores.genuine < threshold).sum()),
        int((scores.impostor >= threshold).sum()),
    )
    return (below, len(scores.genuine)), (above, len(scores.impostor))


def cluster_links(vectors: np.ndarray, person: np.ndarray) -> Scores:
    """What `merge_cosine` is held against: mean cosines between the faces of clusters, by k-means
    with k = 4.

    Genuine: for every face of a person with six or more the lowest link on the best way from its
    cluster to the person's largest (1 for faces of that cluster). Impostor: for every pair of these
    people their most alike clusters.
    """
    ready = unit(vectors)
    _, code, counts = np.unique(person, return_inverse=True, return_counts=True)
    means, own = [], [np.zeros(0)]
    for each in np.flatnonzero(counts >= LEAST_FACES):
        faces = ready[code == each]
        starts = np.array([0, len(faces)])
        labels = kmeans(faces.astype(np.float32), starts, np.zeros(1, dtype=np.uint64), CLUSTERS)
        groups, labels = np.unique(labels, return_inverse=True)
        centre = np.stack([faces[labels == group].mean(axis=0) for group in range(len(groups))])
        means.append(centre)
        way = _widest(centre @ centre.T)
        own.append(way[labels, np.bincount(labels).argmax()])
    others = [float((one @ two.T).max()) for i, one in enumerate(means) for two in means[i + 1 :]]
    return Scores(np.concatenate(own), np.array(others))


def _widest(links: np.ndarray) -> np.ndarray:
    """For every two clusters the lowest link on the way between them whose lowest link is highest;
    1 to itself.
    """
    way = links.copy()
    np.fill_diagonal(way, 1.0)
    for middle in range(len(way)):
        way = np.maximum(way, np.minimum(way[:, [middle]], way[[middle], :]))
    return way
