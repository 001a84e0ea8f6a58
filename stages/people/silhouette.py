"""How well the clusters of people are apart: the silhouette with the cosine distance, for many
people at once.
"""

import numpy as np

from stages.clean.indicator import sums


def silhouettes(
    unit: np.ndarray, person: np.ndarray, cluster: np.ndarray, people: int
) -> np.ndarray:
    """The mean silhouette (people,) float64, nan for people with fewer than two clusters (Rousseeuw
    1987).

    `unit`: (n, d) float64 unit vectors sorted by person; `person`: (n,) 0 to `people` - 1;
    `cluster`: (n,) 0 and up within each person. The distance is 1 - cosine, whose mean over a
    cluster is 1 - the cosine with the cluster's mean, so that no pair of faces has to be looked at.
    A face that is a cluster of its own counts 0.
    """
    width = int(cluster.max(initial=0)) + 1
    group = person * width + cluster
    total, size = sums(unit, group, people * width), np.bincount(group, minlength=people * width)
    inside = size[group]
    own = np.einsum("nd,nd->n", unit, total[group])
    within = np.divide(inside - own, inside - 1, out=np.zeros(len(unit)), where=inside > 1)
    nearest = np.full(len(unit), np.inf)
    for other in range(width):
        at = person * width + other
        there = np.flatnonzero((size[at] > 0) & (cluster != other))
        distance = 1 - np.einsum("nd,nd->n", unit[there], total[at[there]]) / size[at[there]]
        nearest[there] = np.minimum(nearest[there], distance)
    larger = np.maximum(within, nearest)
    use = np.isfinite(nearest) & (inside > 1) & (larger > 0)
    score = np.divide(nearest - within, larger, out=np.zeros(len(unit)), where=use)
    several = (size.reshape(people, width) > 0).sum(axis=1) > 1
    count = np.bincount(person, minlength=people)
    mean: np.ndarray = np.where(
        several, np.bincount(person, score, minlength=people) / np.maximum(count, 1), np.nan
    )
    return mean
