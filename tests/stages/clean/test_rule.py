"""The clean rule for one person: a wrong face kept poisons an identity, a right one lost thins it out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from stages.clean.indicator import normalised, quality_weights, weighted_sums
from stages.clean.rule import PersonResult, Rule, clean_person, spherical_kmeans

RULE = Rule(similarity_threshold=0.3, merge_cosine=0.3)
SIZE = 64


def faces_of(rng: np.random.Generator, count: int, likeness: float = 0.6) -> np.ndarray:
    """(count, SIZE) unit vectors of one made-up person, with a mean cosine of `likeness` among them."""
    centre = normalised(rng.standard_normal(SIZE))
    noise = rng.standard_normal((count, SIZE))
    noise = normalised(noise - (noise @ centre)[:, None] * centre)
    return np.sqrt(likeness) * centre + np.sqrt(1 - likeness) * noise


def judge(vectors: np.ndarray, images: list[str] | None = None, rule: Rule = RULE, seed: int = 7) -> PersonResult:
    ids = [f"face{at:03d}" for at in range(len(vectors))]
    return clean_person(vectors, np.ones(len(vectors)), images or ids, ids, rule, seed)


def test_strangers_are_dropped_and_the_person_kept() -> None:
    rng = np.random.default_rng(0)
    strangers = [faces_of(rng, 1) for _ in range(6)]
    result = judge(np.concatenate([faces_of(rng, 30), *strangers, faces_of(rng, 5)]))
    assert result.keep[:30].all() and not result.keep[30:].any()
    assert set(result.reason[30:]) <= {"other_cluster", "below_threshold"}
    assert set(result.reason[35:]) == {"other_cluster"}


def test_a_person_with_two_looks_is_not_halved() -> None:
    rng = np.random.default_rng(1)
    person = normalised(rng.standard_normal(SIZE))
    looks = [normalised(person + 0.6 * normalised(rng.standard_normal(SIZE))) for _ in range(2)]
    vectors = normalised(np.concatenate([look + 0.08 * rng.standard_normal((12, SIZE)) for look in looks]))
    apart = judge(vectors, rule=Rule(0.3, merge_cosine=1.0, k=2))
    assert sorted(np.bincount(apart.cluster)) == [12, 12], "the two looks must be what k-means finds, or nothing is tested"
    assert judge(vectors, rule=Rule(0.3, 0.3, k=2)).keep.all()


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6, 8])
def test_a_stranger_among_few_does_not_pass_by_its_likeness_to_itself(count: int) -> None:
    """With k below the number of faces k-means has to put strangers together; they carry the indicator themselves."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        strangers = np.concatenate([faces_of(rng, 1) for _ in range(count)])
        strangers = np.linalg.qr(strangers.T)[0].T[:count]  # nobody resembles anybody
        result = judge(strangers, rule=Rule(0.3, 0.3, k=2))
        assert not result.keep.any(), (seed, result)


def test_the_person_is_who_is_in_most_pictures_not_who_has_most_faces() -> None:
    rng = np.random.default_rng(2)
    person, crowd = faces_of(rng, 12), faces_of(rng, 60)
    result = judge(np.concatenate([person, crowd]), [f"i{at}" for at in range(12)] + ["stadium"] * 60)
    assert result.keep[:12].all() and not result.keep[12:].any()


def test_one_face_a_picture_the_nearest() -> None:
    rng = np.random.default_rng(3)
    vectors = faces_of(rng, 10)
    images = [f"i{at}" for at in range(9)] + ["i0"]
    result = judge(vectors, images)
    near, far = (0, 9) if result.similarity[0] >= result.similarity[9] else (9, 0)
    assert result.keep[near] and not result.keep[far] and result.reason[far] == "other_face"
    assert result.keep.sum() == 9


def test_single_pictures_and_pairs() -> None:
    rng = np.random.default_rng(4)
    pair, stranger = faces_of(rng, 2), faces_of(rng, 1)
    alone = judge(pair[:1])
    assert alone.keep.all() and alone.similarity[0] == 1 and alone.reason == (None,)
    agreeing = judge(pair)
    assert agreeing.keep.all()
    np.testing.assert_allclose(agreeing.similarity, pair[0] @ pair[1], atol=1e-6)
    assert judge(np.concatenate([pair[:1], stranger])).reason == ("ambiguous", "ambiguous")
    assert judge(np.concatenate([pair[:1], stranger]), ["one", "one"]).reason == ("ambiguous", "ambiguous")


def test_too_few_faces() -> None:
    vectors = faces_of(np.random.default_rng(5), 3)
    assert judge(vectors, rule=Rule(0.3, 0.3, min_faces=3)).keep.all()
    assert judge(vectors, rule=Rule(0.3, 0.3, min_faces=4)).reason == ("too_few_faces",) * 3


def test_identical_and_opposite_vectors_do_not_break() -> None:
    rng = np.random.default_rng(6)
    same = np.repeat(faces_of(rng, 1), 7, axis=0)
    assert judge(same).keep.all()
    opposite = judge(np.concatenate([same[:1], -same[:1]]))
    assert opposite.reason == ("ambiguous", "ambiguous")
    assert np.isfinite(opposite.similarity).all()


@settings(max_examples=60, deadline=None)
@given(data=st.data(), count=st.integers(1, 14), people=st.integers(1, 3), seed=st.integers(0, 10**6))
def test_what_always_holds(data: st.DataObject, count: int, people: int, seed: int) -> None:
    """Any order of rows gives the same bits; kept faces are of cluster 0, near, and one a picture."""
    rng = np.random.default_rng(seed)
    vectors = np.concatenate([faces_of(rng, count) for _ in range(people)]).astype(np.float32)
    total = len(vectors)
    images = data.draw(st.lists(st.sampled_from([f"i{at}" for at in range(total)]), min_size=total, max_size=total))
    weights = rng.uniform(0.1, 1, total)
    ids = [f"face{at:03d}" for at in range(total)]
    result = clean_person(vectors, weights, images, ids, RULE, seed)

    order = np.array(data.draw(st.permutations(range(total))))
    shuffled = clean_person(vectors[order], weights[order], [images[at] for at in order], [ids[at] for at in order], RULE, seed)
    assert shuffled.similarity.tobytes() == result.similarity[order].tobytes()
    assert shuffled.cluster.tolist() == result.cluster[order].tolist()
    assert shuffled.reason == tuple(result.reason[at] for at in order)

    kept = np.flatnonzero(result.keep)
    assert (result.cluster[kept] == 0).all()
    assert (result.similarity[kept] >= RULE.similarity_threshold).all()
    assert len({images[at] for at in kept}) == len(kept)
    assert [code is None for code in result.reason] == result.keep.tolist()
    assert sorted(set(result.cluster.tolist())) == list(range(result.cluster.max() + 1))
    pictures = [len({images[at] for at in np.flatnonzero(result.cluster == rank)}) for rank in range(result.cluster.max() + 1)]
    assert pictures == sorted(pictures, reverse=True)


def test_kmeans_is_as_good_as_scikit_learn() -> None:
    """Where there is an answer it is found; where local optima abound ours is not worse than theirs with ten starts."""
    rng = np.random.default_rng(8)
    people = np.concatenate([faces_of(rng, 20) for _ in range(3)])
    labels = spherical_kmeans(people, 3, 0)
    assert [len(set(labels[at : at + 20])) for at in (0, 20, 40)] == [1, 1, 1] and len(set(labels)) == 3
    reached = np.zeros(2)
    for seed in range(5):
        unit = np.concatenate([people, *(faces_of(rng, 1) for _ in range(10))])
        theirs = KMeans(4, n_init=10, random_state=seed).fit(unit).labels_
        for at, found in enumerate((spherical_kmeans(unit, 4, seed), theirs)):
            reached[at] += sum(np.linalg.norm(unit[found == cluster].sum(axis=0)) for cluster in range(4))
    assert reached[0] >= 0.99 * reached[1]


def test_poor_faces_count_less_but_count() -> None:
    nan = np.nan
    score, side, sharpness = np.array([0.9, 0.9, 0.9, 0.3, nan]), np.array([200, 28, 112, 112, nan]), np.array([300, 300, 50, 300, nan])
    np.testing.assert_allclose(quality_weights(score, side, sharpness), [1, 0.25, 0.5, 1 / 3, 1])
    assert quality_weights(np.array([1.0]), np.array([2.0]), np.array([1.0]))[0] == 0.1
    # Margins of a detector that scores good faces 2 and more mean the same as shares of one.
    np.testing.assert_allclose(quality_weights(score * 3, side, sharpness), quality_weights(score, side, sharpness))


def test_weights_and_sums_of_many_people_are_those_of_each() -> None:
    rng = np.random.default_rng(9)
    person = np.repeat([0, 1, 2], [4, 1, 6])
    score, side, sharpness = rng.uniform(0.1, 1, 11), rng.uniform(20, 200, 11), rng.uniform(10, 300, 11)
    vectors = rng.standard_normal((11, SIZE)).astype(np.float32)
    weights = quality_weights(score, side, sharpness, person)
    sums = weighted_sums(vectors, weights, np.array([0, 4, 5]))
    for at, part in enumerate((slice(0, 4), slice(4, 5), slice(5, 11))):
        own = quality_weights(score[part], side[part], sharpness[part])
        assert own.tolist() == weights[part].tolist()
        assert weighted_sums(vectors[part], own, np.array([0]))[0].tobytes() == sums[at].tobytes()
