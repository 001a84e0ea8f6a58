"""FlashFace's rule, to the letter: what the default is compared with must be what the paper says
and not a better rule.
"""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.clean.faces import KEEP, Faces, Verdict
from stages.clean.indicator import normalised
from stages.clean.paper import PaperRule, judge
from tests.stages.clean.made_up import SIZE, faces_of, person, reasons, some_person, together

SEED = 7


def look(
    vectors: np.ndarray, images: list[int] | None = None, rule: PaperRule | None = None
) -> Verdict:
    return judge(person(vectors, images), np.array([SEED], np.uint64), rule or PaperRule(0.3))


def two_looks(rng: np.random.Generator) -> np.ndarray:
    centre = normalised(rng.standard_normal(SIZE))
    looks = [normalised(centre + 0.6 * normalised(rng.standard_normal(SIZE))) for _ in range(2)]
    return normalised(
        np.concatenate([look + 0.08 * rng.standard_normal((12, SIZE)) for look in looks])
    )


def test_all_but_one_cluster_goes() -> None:
    vectors = two_looks(np.random.default_rng(1))[:-2]
    found = look(vectors)
    assert found.keep.tolist() == [True] * 12 + [False] * 10 and set(reasons(found)[12:]) == {
        "other_cluster"
    }
    centre = normalised(vectors[:12].mean(axis=0))
    np.testing.assert_allclose(found.similarity, vectors @ centre, atol=1e-6)
    strict = look(vectors, rule=PaperRule(float(np.median(found.similarity[:12]))))
    assert reasons(strict).count("below_threshold") == 6


def test_size_counts_faces_and_ties_go_to_the_tighter() -> None:
    rng = np.random.default_rng(2)
    person_, crowd = faces_of(rng, 12), faces_of(rng, 30)
    images = [*range(12), *[99] * 30]
    assert look(np.concatenate([person_, crowd]), images).keep.nonzero()[0].min() >= 12
    loose, tight = faces_of(rng, 8, 0.5), faces_of(rng, 8, 0.9)
    assert look(np.concatenate([loose, tight])).keep.tolist() == [False] * 8 + [True] * 8
    assert look(faces_of(rng, 1)).keep.all()
    assert look(faces_of(rng, 2)).keep.tolist() == [True, False]


def test_identical_and_opposite_vectors_do_not_break() -> None:
    same = np.repeat(faces_of(np.random.default_rng(6), 1), 7, axis=0)
    found = look(same)
    assert found.keep.all() and np.isfinite(found.similarity).all()
    assert np.isfinite(look(np.concatenate([same[:1], -same[:1]])).similarity).all()


def test_no_people() -> None:
    nobody = Faces(
        np.zeros((0, SIZE), np.float32), np.zeros(1, np.int64), *[np.zeros(0, np.int64)] * 6
    )
    found = judge(nobody, np.zeros(0, np.uint64), PaperRule(0.3))
    assert found.indicator.shape == (0, SIZE) and len(found.keep) == 0


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), k=st.integers(1, 6))
def test_a_person_is_judged_alike_alone_and_among_others_to_the_last_bit(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    people = [some_person(rng) for _ in range(int(rng.integers(2, 9)))]
    seeds = rng.integers(2**62, size=len(people)).astype(np.uint64)
    rule = PaperRule(0.3, k)
    everybody = judge(together(people), seeds, rule)
    starts = np.cumsum([0, *(len(one.vectors) for one in people)])
    for at, one in enumerate(people):
        alone, mine = judge(one, seeds[at : at + 1], rule), slice(starts[at], starts[at + 1])
        assert alone.similarity.tobytes() == everybody.similarity[mine].tobytes()
        assert alone.cluster.tolist() == everybody.cluster[mine].tolist()
        assert alone.reason.tolist() == everybody.reason[mine].tolist()
        assert alone.indicator[0].tobytes() == everybody.indicator[at].tobytes()
        kept = np.flatnonzero(alone.keep & (one.forced == 0))
        assert (alone.cluster[kept] == 0).all() and (
            alone.similarity[kept] >= np.float32(0.3)
        ).all()
        assert len({*one.images[kept]}) == len(kept) and alone.keep[one.forced == KEEP].all()
