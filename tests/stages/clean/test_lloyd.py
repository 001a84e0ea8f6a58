"""k-means of many people at once: its clusters must be those of k-means, and nobody's may depend on
who else is there.
"""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from stages.clean.indicator import normalised
from stages.clean.lloyd import LEAST_SIZE, from_picks, kmeans, padded_size, uniform


def some_faces(rng: np.random.Generator, count: int, size: int, people: int) -> np.ndarray:
    """(count, size) float32 unit vectors about `people` centres."""
    centres = rng.standard_normal((people, size))
    vectors = centres[rng.integers(people, size=count)] + rng.uniform(0.3, 2) * rng.standard_normal(
        (count, size)
    )
    return normalised(vectors).astype(np.float32)


def lloyd(unit: np.ndarray, centres: np.ndarray, spherical: bool) -> np.ndarray | None:
    """Lloyd's algorithm as a textbook has it, in double precision; None where a cluster becomes
    empty.

    None also where two centres are as near to a face as makes no difference in single precision, in
    which the stage works.
    """
    unit, labels = unit.astype(np.float64), np.full(len(unit), -1)
    for _ in range(200):
        scores = unit @ centres.T - (0 if spherical else (centres**2).sum(axis=1) / 2)
        fresh = scores.argmax(axis=1)
        if np.ptp(np.sort(scores, axis=1)[:, -2:], axis=1).min() < 1e-6:
            return None
        if (fresh == labels).all():
            break
        labels = fresh
        if len(np.unique(labels)) < len(centres):
            return None
        centres = np.stack([unit[labels == at].mean(axis=0) for at in range(len(centres))])
        centres = normalised(centres) if spherical else centres
    return labels


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(4, 90),
    size=st.sampled_from([8, 32, 128]),
    k=st.integers(2, 6),
)
def test_labels_are_those_of_scikit_learn_from_the_same_centres(
    seed: int, count: int, size: int, k: int
) -> None:
    rng = np.random.default_rng(seed)
    unit = some_faces(rng, count, size, int(rng.integers(1, 5)))
    assume(count >= k)
    picks = rng.choice(count, k, replace=False)
    first = unit[picks].astype(np.float64)
    assume(
        lloyd(unit, first, spherical=False) is not None
    )  # scikit-learn moves a face into an empty cluster, we do not
    theirs = (
        KMeans(k, init=first, n_init=1, tol=0, max_iter=100, algorithm="lloyd")
        .fit(unit.astype(np.float64))
        .labels_
    )
    assert from_picks(unit, picks, spherical=False).tolist() == theirs.tolist()


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(4, 200),
    size=st.sampled_from([8, 32, 128]),
    k=st.integers(2, 6),
)
def test_spherical_labels_are_those_of_the_textbook(
    seed: int, count: int, size: int, k: int
) -> None:
    """On the Gram matrix where it is smaller (up to `size` faces) and on the vectors themselves."""
    rng = np.random.default_rng(seed)
    unit = some_faces(rng, count, size, int(rng.integers(1, 5)))
    assume(count >= k)
    picks = rng.choice(count, k, replace=False)
    expected = lloyd(unit, unit[picks].astype(np.float64), spherical=True)
    assume(expected is not None)
    assert expected is not None and from_picks(unit, picks).tolist() == expected.tolist()


def inertia(unit: np.ndarray, labels: np.ndarray) -> float:
    unit = unit.astype(np.float64)
    return float(
        sum(
            ((unit[labels == at] - unit[labels == at].mean(axis=0)) ** 2).sum()
            for at in np.unique(labels)
        )
    )


def test_ten_starts_get_as_far_as_scikit_learn_s() -> None:
    rng = np.random.default_rng(0)
    people = [some_faces(rng, int(rng.integers(20, 200)), 64, 3) for _ in range(40)]
    starts = np.cumsum([0, *map(len, people)])
    for k in (2, 4):
        labels = kmeans(
            np.concatenate(people), starts, np.arange(40, dtype=np.uint64), k, spherical=False
        )
        ours = sum(
            inertia(unit, labels[start:stop])
            for unit, start, stop in zip(people, starts, starts[1:], strict=False)
        )
        theirs = sum(KMeans(k, n_init=10, random_state=0).fit(unit).inertia_ for unit in people)
        assert ours <= 1.002 * theirs


def test_people_are_found_apart() -> None:
    rng = np.random.default_rng(1)
    unit = normalised(
        np.repeat(rng.standard_normal((3, 64)), 20, axis=0) + 0.5 * rng.standard_normal((60, 64))
    ).astype(np.float32)
    labels = kmeans(unit, np.array([0, 60]), np.array([3], np.uint64), 3)
    assert [len(set(labels[at : at + 20])) for at in (0, 20, 40)] == [1, 1, 1] and len(
        set(labels)
    ) == 3


@pytest.mark.parametrize("spherical", [True, False])
def test_a_person_s_clusters_do_not_depend_on_who_else_is_there(spherical: bool) -> None:
    rng = np.random.default_rng(2)
    counts = [1, 2, 3, 5, 7, 8, 9, 16, 17, 30, 31, 64, 65, 100, 130, 131, 200, 200, 200, 300]
    people = [some_faces(rng, count, 128, 2) for count in counts]
    seeds = np.arange(100, 100 + len(counts), dtype=np.uint64)
    alone = [
        kmeans(unit, np.array([0, len(unit)]), seeds[at : at + 1], 4, spherical)
        for at, unit in enumerate(people)
    ]
    for _ in range(5):
        some = rng.permutation(len(counts))[: rng.integers(2, len(counts))]
        starts = np.cumsum([0, *(counts[at] for at in some)])
        labels = kmeans(
            np.concatenate([people[at] for at in some]), starts, seeds[some], 4, spherical
        )
        for at, start, stop in zip(some, starts, starts[1:], strict=False):
            assert labels[start:stop].tolist() == alone[at].tolist()


def test_degenerate_people() -> None:
    rng = np.random.default_rng(3)
    one, seed = some_faces(rng, 1, 16, 1), np.array([1], np.uint64)
    assert kmeans(one, np.array([0, 1]), seed, 4).tolist() == [0]
    same = np.repeat(one, 50, axis=0)
    assert len(set(kmeans(same, np.array([0, 50]), seed, 4).tolist())) == 1, (
        "copies are one cluster, the others stay empty"
    )
    assert sorted(kmeans(some_faces(rng, 4, 16, 1), np.array([0, 4]), seed, 4).tolist()) == [
        0,
        1,
        2,
        3,
    ]
    assert (
        kmeans(np.zeros((0, 16), np.float32), np.array([0]), np.zeros(0, np.uint64), 4).tolist()
        == []
    )
    apart = kmeans(np.concatenate([same, -same]), np.array([0, 100]), seed, 2)
    assert [
        len(set(apart[:50].tolist())),
        len(set(apart[50:].tolist())),
        len(set(apart.tolist())),
    ] == [1, 1, 2]
    assert set(kmeans(same, np.array([0, 50]), seed, 1).tolist()) == {0}


def test_draws_are_uniform_and_differ_by_seed() -> None:
    drawn = uniform(np.arange(2000, dtype=np.uint64), 40)
    assert drawn.min() >= 0 and drawn.max() < 1 and len(np.unique(drawn)) == drawn.size
    assert (
        abs(drawn.mean() - 0.5) < 0.005
        and abs(np.corrcoef(drawn[:-1].ravel(), drawn[1:].ravel())[0, 1]) < 0.02
    )
    assert (uniform(np.array([5], np.uint64), 3) == drawn[5:6, :3]).all(), (
        "a longer stream begins like a shorter one"
    )


def test_few_sizes_and_little_padding() -> None:
    counts = np.arange(1, 20_000)
    sizes = padded_size(counts)
    assert (sizes >= counts).all() and len(np.unique(sizes)) < 130
    assert (sizes[counts >= 64] <= 1.13 * counts[counts >= 64] + 1).all() and padded_size(
        np.array([0, 1])
    )[0] == LEAST_SIZE
