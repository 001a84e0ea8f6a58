"""Face verification: how well the cosine of two vectors tells one person from two.

A **genuine** score compares a person with themselves, an **impostor** score with somebody else. At
a threshold t a pair is accepted if its score is at least t; TAR is the share of genuine pairs that
are accepted, FAR that of impostor pairs. A photograph without a vector has NaNs and is accepted by
nothing: its pairs score -1.
"""

from dataclasses import dataclass

import numpy as np

_BLOCK = 1024


@dataclass(frozen=True)
class Scores:
    """Cosines of pairs, float64, in no order. `genuine`: (g,), `impostor`: (m,)."""

    genuine: np.ndarray
    impostor: np.ndarray


@dataclass(frozen=True)
class Point:
    """One working point. `far`: the rate that was asked for, `reached`: the rate at the threshold,
    never above it.
    """

    far: float
    reached: float
    threshold: float
    tar: float


def unit(vectors: np.ndarray) -> np.ndarray:
    """(n, d) float64 at unit length; zeros where a row has no direction or is not finite."""
    wide = np.asarray(vectors, dtype=np.float64)
    norm = np.linalg.norm(wide, axis=1, keepdims=True)
    usable = np.isfinite(norm) & (norm > 1e-12)
    return np.where(usable, wide / np.where(usable, norm, 1.0), 0.0)


def usable(vectors: np.ndarray) -> np.ndarray:
    """(n,) bool: the rows that have a direction."""
    norm = np.linalg.norm(np.asarray(vectors, dtype=np.float64), axis=1)
    answer: np.ndarray = np.isfinite(norm) & (norm > 1e-12)
    return answer


def pair_scores(
    vectors: np.ndarray, person: np.ndarray, most: int = 20_000_000, seed: int = 0
) -> Scores:
    """Scores of all pairs of photographs, each pair once.

    `vectors`: (n, d); `person`: (n,) labels. With more than `most` impostor pairs so many are
    drawn, with replacement.
    """
    ready, has = unit(vectors), usable(vectors)
    code = np.unique(person, return_inverse=True)[1]
    sizes = np.bincount(code) if len(code) else np.zeros(0, dtype=np.int64)
    impostors = (len(code) * (len(code) - 1) - int((sizes * (sizes - 1)).sum())) // 2
    drawn = impostors > most
    genuine, impostor = [np.zeros(0)], [np.zeros(0)]
    if drawn:
        order = np.argsort(code, kind="stable")
        for group in np.split(order, np.cumsum(sizes)[:-1]):
            upper = np.triu_indices(len(group), 1)
            genuine.append(_masked(ready[group] @ ready[group].T, has[group], has[group])[upper])
        impostor.append(_drawn(ready, has, code, most, seed))
    else:
        for start in range(0, len(code), _BLOCK):
            rows = np.arange(start, min(start + _BLOCK, len(code)))
            cosine = _masked(ready[rows] @ ready[start:].T, has[rows], has[start:])
            later = np.arange(start, len(code))[None, :] > rows[:, None]
            same = code[rows][:, None] == code[start:][None, :]
            genuine.append(cosine[later & same])
            impostor.append(cosine[later & ~same])
    return Scores(np.concatenate(genuine), np.concatenate(impostor))


def indicator_scores(vectors: np.ndarray, person: np.ndarray, least: int = 2) -> Scores:
    """Scores of photographs against indicators, the unit means of people's vectors.

    A photograph meets the indicator of its own person as the *others* make it (genuine), and every
    other person's (impostor). People with fewer than `least` vectors have no indicator; their
    photographs are impostors all the same.
    """
    ready, has = unit(vectors), usable(vectors)
    names, code = np.unique(person, return_inverse=True)
    sums = np.zeros((len(names), ready.shape[1]))
    np.add.at(sums, code, ready)
    counts = np.bincount(code[has], minlength=len(names))
    known = counts >= max(least, 2)
    against = _masked(ready @ unit(sums).T, has, np.ones(len(names), dtype=bool))
    own = np.where(has, np.einsum("nd,nd->n", ready, unit(sums[code] - ready)), -1.0)
    other = known[None, :] & (code[:, None] != np.arange(len(names))[None, :])
    return Scores(own[known[code]], against[other])


def at_far(scores: Scores, far: float) -> Point:
    """The lowest threshold at which no more than the share `far` of the impostors is accepted.

    Without impostors, or with fewer than 1/far of them, none is accepted. Raises ValueError for far
    outside 0 to 1.
    """
    if not 0 <= far <= 1:
        raise ValueError(f"a FAR of {far} is no share")
    falling = np.sort(scores.impostor)[::-1]
    allowed = int(np.floor(far * len(falling) + 1e-9))
    if allowed >= len(falling):
        threshold = -1.0 if len(falling) else 0.0
    else:
        # The next float above the best impostor that must stay out.
        threshold = float(np.nextafter(falling[allowed], np.inf))
    reached = float((falling >= threshold).mean()) if len(falling) else 0.0
    return Point(far, reached, threshold, accepted(scores.genuine, threshold))


def accepted(values: np.ndarray, threshold: float) -> float:
    """The share of scores at or above a threshold; NaN of none."""
    return float((values >= threshold).mean()) if len(values) else float("nan")


def roc(scores: Scores, points: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """FAR, TAR and threshold (p,) along the curve, FAR falling: where the FAR takes values evenly
    spread on a logarithmic scale.
    """
    falling = np.sort(scores.impostor)[::-1]
    if not len(falling) or not len(scores.genuine):
        return np.zeros(0), np.zeros(0), np.zeros(0)
    ranks = np.unique(np.geomspace(1, len(falling), points).astype(np.int64)) - 1
    thresholds = np.unique(np.concatenate([falling[ranks], np.nextafter(falling[:1], np.inf)]))
    return _shares(scores.impostor, thresholds), _shares(scores.genuine, thresholds), thresholds


def equal_error(scores: Scores) -> tuple[float, float]:
    """The rate at which as many genuine pairs are refused as impostors are accepted, and its
    threshold; NaN without both kinds.
    """
    if not len(scores.genuine) or not len(scores.impostor):
        return float("nan"), float("nan")
    thresholds = np.unique(np.concatenate([scores.genuine, scores.impostor]))
    refused, taken = 1 - _shares(scores.genuine, thresholds), _shares(scores.impostor, thresholds)
    best = int(np.argmin(np.abs(refused - taken)))
    return float((refused[best] + taken[best]) / 2), float(thresholds[best])


def best_threshold(own: np.ndarray, others: np.ndarray) -> float:
    """The threshold with the least sum of the share of `own` below it and of `others` at or above
    it.

    It lies in the middle between two scores; of several that do equally well the lowest is taken,
    which loses fewest of `own`. Raises ValueError if there are none of either.
    """
    if not len(own) or not len(others):
        raise ValueError("a threshold needs scores of both kinds")
    values = np.unique(np.concatenate([own, others]))
    # Nothing changes between two neighbouring values: one candidate for each gap, one that accepts
    # all, one that accepts none.
    candidates = np.concatenate(
        [values[:1], (values[:-1] + values[1:]) / 2, [np.nextafter(values[-1], np.inf)]]
    )
    cost = 1 - _shares(own, candidates) + _shares(others, candidates)
    return float(candidates[np.flatnonzero(cost <= cost.min() + 1e-12)[0]])


def _shares(values: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """For each threshold the share of values at or above it."""
    if not len(values):
        return np.full(len(thresholds), np.nan)
    below = np.searchsorted(np.sort(values), thresholds, side="left")
    shares: np.ndarray = (len(values) - below) / len(values)
    return shares


def _masked(cosine: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return np.where(rows[:, None] & columns[None, :], cosine, -1.0)


def _drawn(
    ready: np.ndarray, has: np.ndarray, code: np.ndarray, count: int, seed: int
) -> np.ndarray:
    random = np.random.default_rng(seed)
    found: list[np.ndarray] = []
    left = count
    while left > 0:
        one, two = random.integers(0, len(code), (2, min(left * 2, 4_000_000)))
        differ = code[one] != code[two]
        one, two = one[differ][:left], two[differ][:left]
        for start in range(0, len(one), 262_144):
            a, b = one[start : start + 262_144], two[start : start + 262_144]
            found.append(np.where(has[a] & has[b], np.einsum("nd,nd->n", ready[a], ready[b]), -1.0))
        left -= len(one)
    return np.concatenate(found)
