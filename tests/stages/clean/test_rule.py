"""The clean rule: a wrong face kept poisons an identity, a right one lost thins it out."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.clean import groups
from stages.clean.faces import KEEP, OTHER_IMAGE, REFERENCE, REJECT, Faces, Verdict
from stages.clean.indicator import normalised
from stages.clean.rule import Rule, judge
from tests.stages.clean.made_up import SIZE, faces_of, person, reasons, some_person, together

RULE = Rule(similarity_threshold=0.3, merge_cosine=0.3)


def look(vectors: np.ndarray, images: Any = None, rule: Rule = RULE, **more: Any) -> Verdict:
    return judge(person(vectors, images, **more), rule)


def crowd(seed: int, *counts: int) -> np.ndarray:
    """Faces of as many people as there are counts, one after the other."""
    rng = np.random.default_rng(seed)
    return np.concatenate([faces_of(rng, count) for count in counts])


def test_strangers_are_dropped_and_the_person_kept() -> None:
    found = look(crowd(0, 30, 1, 1, 1, 1, 1, 1, 5))
    assert found.keep[:30].all() and not found.keep[30:].any()
    assert set(reasons(found)[30:]) == {"other_cluster"}
    assert found.cluster[36:].tolist() == [1] * 5, "the second group comes second"
    assert found.margin[0] == np.float32(5 / 30)


@pytest.mark.parametrize("others", [[3] * 3, [4] * 6, [5] * 6, [5] * 12, [2] * 10])
def test_a_crowded_folder(others: list[int]) -> None:
    """Most of what a search brings is somebody else: k clusters for more than k people put two of
    them into one.
    """
    for seed in range(5):
        found = look(crowd(seed, 10, *others))
        assert found.keep.tolist() == [True] * 10 + [False] * sum(others)


def test_a_person_with_two_looks_is_not_halved() -> None:
    rng = np.random.default_rng(1)
    centre = normalised(rng.standard_normal(SIZE))
    looks = [normalised(centre + 0.6 * normalised(rng.standard_normal(SIZE))) for _ in range(2)]
    vectors = normalised(
        np.concatenate([one + 0.08 * rng.standard_normal((12, SIZE)) for one in looks])
    )
    between = vectors[:12].mean(axis=0) @ vectors[12:].mean(axis=0)
    assert look(vectors, rule=Rule(0.3, between - 0.01)).keep.all()
    assert "near_tie" in reasons(look(vectors, rule=Rule(0.65, between + 0.05))), (
        "they must be two groups, or nothing is tested"
    )
    assert look(vectors, rule=Rule(0.65, between + 0.05, same_cosine=0.5)).keep.all(), (
        "two groups that agree are one"
    )


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6, 8])
def test_where_nobody_resembles_anybody_nothing_is_kept(count: int) -> None:
    for seed in range(20):
        strangers = np.linalg.qr(np.random.default_rng(seed).standard_normal((SIZE, count)))[0].T
        assert set(reasons(look(strangers))) == {"ambiguous"}


def test_the_person_is_who_is_in_most_images_not_who_has_most_faces() -> None:
    found = look(crowd(2, 12, 60), [*range(12), *[99] * 60])
    assert found.keep[:12].all() and not found.keep[12:].any()


def test_background_faces_of_the_persons_images_do_not_vote_for_a_stranger() -> None:
    """A face counts for a group that it is near, not for the one that it was put into for want of a
    better one.
    """
    vectors = crowd(3, 6, 4, *[1] * 12)
    images = [*range(6), *range(6, 10), *[at % 6 for at in range(12)]]
    found = look(vectors, images)
    assert found.keep.tolist() == [True] * 6 + [False] * 16 and found.margin[0] == np.float32(4 / 6)


def test_faces_that_agree_in_one_image_are_no_agreement() -> None:
    """Two prints of one head in an image, or a face and its reflection, among strangers."""
    vectors = np.concatenate([crowd(4, 2), crowd(5, 1, 1)])
    assert set(reasons(look(vectors, [0, 0, 1, 2]))) == {"ambiguous"}
    assert set(reasons(look(vectors[:2], [0, 0]))) == {"ambiguous"}
    assert look(vectors, [0, 1, 2, 3]).keep.tolist() == [True, True, False, False]


def test_versions_of_one_photograph_have_one_vote() -> None:
    vectors = np.concatenate([crowd(6, 3), np.repeat(crowd(7, 1), 6, axis=0)])
    assert "near_tie" not in reasons(look(vectors)) and look(vectors).keep[3:].all(), (
        "else the versions win"
    )
    found = look(vectors, votes=[0, 1, 2, *[3] * 6])
    assert found.keep.tolist() == [True] * 3 + [False] * 6
    alone = look(vectors[3:], votes=[0] * 6)
    assert alone.keep.all(), "where there is nothing else, nothing speaks against it"
    assert set(reasons(look(vectors[2:], votes=[0, *[1] * 6]))) == {"ambiguous"}


def test_an_odd_image_of_the_person_comes_back() -> None:
    """A grimace hangs together with nobody, but is near the person."""
    rng = np.random.default_rng(3)
    own = faces_of(rng, 20, 0.7)
    odd = normalised(
        0.4 * normalised(own.mean(axis=0)) + 0.9 * normalised(rng.standard_normal(SIZE))
    )
    vectors = np.concatenate([own, odd[None], faces_of(rng, 3)])
    assert (own @ odd).mean() < 0.36, "linkage must leave it out, or nothing is tested"
    found = look(vectors, rule=Rule(0.38, 0.36))
    assert found.keep.tolist() == [True] * 21 + [False] * 3


def test_a_look_alike_stays_out_though_near_the_indicator() -> None:
    """A sister's faces are above the threshold, but nearer to one another."""
    rng = np.random.default_rng(4)
    own = faces_of(rng, 20, 0.7)
    sister = normalised(
        0.45 * normalised(own.mean(axis=0)) + 0.9 * normalised(rng.standard_normal(SIZE))
    )
    sisters = normalised(sister + 0.05 * rng.standard_normal((8, SIZE)))
    vectors = np.concatenate([own, sisters])
    found = look(vectors, rule=Rule(0.3, 0.45))
    assert (found.similarity[20:] >= 0.3).all(), (
        "they must be above the threshold, or nothing is tested"
    )
    assert found.keep.tolist() == [True] * 20 + [False] * 8
    assert look(vectors, rule=Rule(0.3, 0.45, join_cosine=0.3)).keep.all()


def test_a_part_that_does_not_agree_with_the_rest_is_put_out() -> None:
    """Four faces of another person, each of which comes near the person by chance, would make a
    second half.
    """
    rng = np.random.default_rng(8)
    own = faces_of(rng, 12, 0.7)
    centre = normalised(own.mean(axis=0))
    other = normalised(rng.standard_normal(SIZE))
    other = normalised(other - (other @ centre) * centre)
    half = normalised(0.42 * centre + 0.9 * other + 0.02 * rng.standard_normal((4, SIZE)))
    vectors = np.concatenate([own, half])
    near = vectors[12:] @ centre
    assert near.min() > 0.38
    # Taken in face by face at 0.38, the four are put out again, as their sum is below 0.5.
    found = look(vectors, rule=Rule(0.5, 0.5, join_cosine=0.38))
    assert found.keep.tolist() == [True] * 12 + [False] * 4


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [(10, 10, 0), (10, 9, 0), (20, 18, 0), (10, 8, 10), (3, 2, 3), (2, 2, 0)],
)
def test_a_near_tie_is_refused(first: int, second: int, kept: int) -> None:
    found = look(crowd(9, first, second, 1, 1))
    assert found.keep.sum() == kept and found.margin[0] == np.float32(second / first)
    if not kept:
        assert reasons(found) == ["near_tie"] * (first + second) + ["other_cluster"] * 2
        assert sorted(set(found.cluster[: first + second].tolist())) == [0, 1]


def test_where_a_tie_begins_is_the_users_choice() -> None:
    vectors = crowd(9, 10, 8)
    assert not look(vectors, rule=Rule(0.3, 0.3, near_tie=0.8)).keep.any()
    assert look(crowd(9, 10, 9), rule=Rule(0.3, 0.3, near_tie=1.0)).keep.sum() == 10
    assert look(crowd(9, 10, 10), rule=Rule(0.3, 0.3, near_tie=1.5)).keep.sum() == 10


def test_a_rival_by_images_or_by_votes_is_one() -> None:
    """Copies may be copies or a person's favourite: where the two ways of counting disagree nobody
    knows.
    """
    vectors = crowd(10, 8, 8)
    copies = [-1, 0, 0, *[-1] * 13]
    assert not look(vectors, duplicate_of=copies).keep.any()
    assert not look(vectors, votes=[0, 0, 0, *range(1, 14)]).keep.any()


def test_who_stands_beside_the_person_is_no_rival() -> None:
    """A spouse is in nine of the person's ten images, and nowhere else."""
    vectors = crowd(11, 10, 9)
    found = look(vectors, [*range(10), *range(9)])
    assert found.keep.tolist() == [True] * 10 + [False] * 9
    assert not look(vectors, [*range(10), *range(8), 10]).keep.any(), "one image without the person"
    assert not look(crowd(11, 10, 10), [*range(10), *range(10)]).keep.any(), (
        "who is meant if both are in all of them?"
    )


def test_one_face_kept_by_hand_decides_a_tie() -> None:
    vectors = crowd(12, 8, 9, 3)
    assert not look(crowd(12, 9, 9, 1, 1, 1)).keep.any()
    forced = np.zeros(20, np.int8)
    forced[2] = KEEP
    assert look(vectors, forced=forced).keep.tolist() == [True] * 8 + [False] * 12
    odd = np.zeros(21, np.int8)
    odd[19] = KEEP
    assert look(crowd(12, 9, 9, 1, 1, 1), forced=odd).keep.nonzero()[0].tolist() == [19], (
        "a face that nothing agrees with decides nothing"
    )


def test_a_reference_of_the_source_decides() -> None:
    vectors = crowd(13, 4, 9)

    def said(*shown: int) -> np.ndarray:
        found = np.full(len(vectors), OTHER_IMAGE, np.int8)
        found[list(shown)] = REFERENCE
        return found

    assert look(vectors).keep.tolist() == [False] * 4 + [True] * 9
    assert look(vectors, reference=said(1)).keep.tolist() == [True] * 4 + [False] * 9
    assert (
        look(crowd(13, 9, 9), reference=np.eye(1, 18, 3, dtype=np.int8)[0]).keep.tolist()
        == [True] * 9 + [False] * 9
    ), "a tie, too"
    assert look(vectors, reference=said()).keep.sum() == 9, "a reference that came to nothing"
    lone = np.concatenate([vectors, faces_of(np.random.default_rng(99), 1)])
    alone = look(lone, reference=[*[OTHER_IMAGE] * 13, REFERENCE])
    assert alone.keep.tolist() == [False] * 13 + [True], "nothing agrees with it"
    by_hand = look(vectors, reference=said(1), forced=[0] * 5 + [KEEP] + [0] * 7)
    assert by_hand.keep.tolist() == [False] * 4 + [True] * 9, "a hand goes before it"


def test_a_reference_that_hangs_together_with_nobody_is_still_near_somebody() -> None:
    rng = np.random.default_rng(14)
    vectors = np.concatenate([faces_of(rng, 6, 0.7), faces_of(rng, 9, 0.7)])
    odd = normalised(
        0.45 * normalised(vectors[:6].mean(axis=0)) + 0.9 * normalised(rng.standard_normal(SIZE))
    )
    found = look(
        np.concatenate([vectors, odd[None]]),
        rule=Rule(0.42, 0.42),
        reference=[*[OTHER_IMAGE] * 15, REFERENCE],
    )
    assert found.keep[:6].all() and not found.keep[6:15].any()


def test_one_face_an_image_the_nearest() -> None:
    found = look(crowd(3, 10), [*range(9), 0])
    near, far = (0, 9) if found.similarity[0] >= found.similarity[9] else (9, 0)
    assert found.keep[near] and not found.keep[far] and reasons(found)[far] == "other_face"
    assert found.keep.sum() == 9


def test_single_images_and_pairs() -> None:
    rng = np.random.default_rng(4)
    one, stranger = faces_of(rng, 1), faces_of(rng, 1)
    across = rng.standard_normal(SIZE)
    pair = np.concatenate(
        [one, 0.4 * one + 0.84**0.5 * normalised(across - (across @ one[0]) * one[0])]
    )
    alone = look(pair[:1])
    assert alone.keep.all() and alone.similarity[0] == 1 and reasons(alone) == [""]
    agreeing = look(pair, rule=Rule(0.5, 0.3))
    assert agreeing.keep.all(), (
        "two that agree are kept, though the threshold to an indicator of many is higher"
    )
    np.testing.assert_allclose(agreeing.similarity, pair[0] @ pair[1], atol=1e-6)
    assert look(np.concatenate([pair, stranger]), rule=Rule(0.5, 0.3)).keep.tolist() == [
        True,
        True,
        False,
    ]
    assert reasons(look(np.concatenate([pair[:1], stranger]))) == ["ambiguous"] * 2
    assert reasons(look(np.concatenate([pair[:1], stranger]), [0, 0])) == ["ambiguous"] * 2


def test_too_few_faces() -> None:
    vectors = crowd(5, 3)
    assert look(vectors, rule=Rule(0.3, 0.3, min_faces=3)).keep.all()
    assert reasons(look(vectors, rule=Rule(0.3, 0.3, min_faces=4))) == ["too_few_faces"] * 3


def test_identical_and_opposite_vectors_do_not_break() -> None:
    same = np.repeat(crowd(6, 1), 7, axis=0)
    found = look(same)
    assert found.keep.all() and np.isfinite(found.similarity).all()
    opposite = look(np.concatenate([same[:1], -same[:1]]))
    assert np.isfinite(opposite.similarity).all() and reasons(opposite) == [
        "ambiguous",
        "ambiguous",
    ]


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_a_broken_vector_costs_itself_alone(bad: float) -> None:
    vectors = crowd(7, 9)
    broken = np.concatenate([vectors, np.full((2, SIZE), bad)])
    found = look(broken)
    assert reasons(found) == [""] * 9 + ["bad_vector"] * 2
    assert found.cluster[9:].tolist() == [-1, -1] and np.isnan(found.similarity[9:]).all()
    assert found.similarity[:9].tobytes() == look(vectors).similarity.tobytes()
    assert reasons(look(broken[9:])) == ["bad_vector"] * 2 and np.isnan(look(broken[9:]).margin[0])
    assert reasons(look(broken[8:])) == ["", "bad_vector", "bad_vector"], (
        "one good face is a person of one image"
    )


def test_ten_thousand_images() -> None:
    found = look(crowd(8, 6_000, 3_000, *[1] * 1_000), rule=Rule(0.6, 0.4))
    assert found.keep[:6_000].all() and not found.keep[6_000:].any()
    assert found.margin[0] == np.float32(0.5) and set(found.cluster[6_000:9_000].tolist()) == {1}


def test_blocks_find_what_all_at_once_does(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(5):
        vectors = crowd(seed, 40, 25, 12, *[3] * 8, *[1] * 30)
        whole = look(vectors)
        with monkeypatch.context() as patch:
            patch.setattr(groups, "BLOCK", 32)
            assert look(vectors).keep.tolist() == whole.keep.tolist()
            assert look(vectors).margin == whole.margin


def test_decisions_by_hand_win_over_every_rule() -> None:
    rng = np.random.default_rng(9)
    own, other = faces_of(rng, 10), faces_of(rng, 4)
    vectors = np.concatenate([own, other])
    forced = np.zeros(14, np.int8)
    forced[[0, 12]] = REJECT, KEEP
    found = look(vectors, forced=forced)
    # Who is marked once as the person is the person: the group of the marked face, though the
    # smaller one.
    assert reasons(found) == ["rejected", *["other_cluster"] * 9, *[""] * 4]
    assert found.cluster[0] == -1 and np.isfinite(found.similarity[0])

    forced[1] = KEEP
    found = look(vectors, forced=forced)
    assert found.keep[1] and found.keep[12], "whatever else is decided"
    centre = normalised(vectors[[*range(1, 10), 12]].sum(axis=0))
    assert found.indicator[0] @ centre > 0.9999, "and both say who the person is"

    alone = look(np.concatenate([own[:1], other[:1]]), forced=[KEEP, 0])
    assert reasons(alone) == ["", "other_cluster"], "no longer ambiguous"
    assert reasons(look(own[:2], rule=Rule(0.3, 0.3, min_faces=5), forced=[KEEP, 0])) == [
        "",
        "too_few_faces",
    ]
    both = look(own, [*range(9), 0], forced=[KEEP] + [0] * 8 + [KEEP])
    assert both.keep.all(), "two faces of one image, if somebody says so"
    assert reasons(look(own[:2], forced=[REJECT, REJECT])) == ["rejected"] * 2
    assert not look(own, forced=[REJECT] * 10).indicator.any()
    hidden = look(own, [*range(9), 0], forced=[0] * 9 + [KEEP])
    assert hidden.keep[9] and reasons(hidden)[0] == "other_face", (
        "the marked face stands for its image"
    )


def test_what_is_rejected_counts_for_nothing() -> None:
    rng = np.random.default_rng(10)
    own, other = faces_of(rng, 5), faces_of(rng, 9)
    forced = np.array([0] * 5 + [REJECT] * 9, np.int8)
    found = look(np.concatenate([own, other]), forced=forced)
    assert found.keep.tolist() == [True] * 5 + [False] * 9
    assert found.similarity[:5].tobytes() == look(own).similarity.tobytes()


def test_copies_count_once_and_share_the_lot_of_the_better_one() -> None:
    rng = np.random.default_rng(11)
    own, stranger = faces_of(rng, 6), faces_of(rng, 1)
    vectors = np.concatenate([own, np.repeat(own[:1], 3, axis=0), stranger, stranger])
    copies = [-1] * 6 + [0, 0, 0] + [-1, 9]
    found = look(vectors, duplicate_of=copies)
    assert (
        reasons(found) == [""] * 6 + ["duplicate"] * 3 + [reasons(found)[9]] * 2
        and not found.keep[9]
    )
    plain = look(np.concatenate([own, stranger]))
    assert found.similarity[[0, 1, 2, 3, 4, 5, 9]].tobytes() == plain.similarity.tobytes(), (
        "as if the copies were not there"
    )
    np.testing.assert_allclose(found.similarity[6:9], found.similarity[0], atol=1e-6)
    # One photograph five times is no agreement of five.
    assert (
        reasons(look(np.concatenate([own[:1]] * 4 + [stranger]), duplicate_of=[-1, 0, 0, 0, -1]))
        == ["ambiguous"] * 5
    )
    assert reasons(look(np.concatenate([own[:1]] * 3), duplicate_of=[-1, 0, 0])) == [
        "",
        "duplicate",
        "duplicate",
    ]


def test_what_was_screened_says_who_the_person_is_and_is_not_kept() -> None:
    vectors = crowd(12, 6)
    found = look(vectors, screened=[True] + [False] * 5)
    assert reasons(found) == ["screened", *[""] * 5]
    assert found.similarity.tobytes() == look(vectors).similarity.tobytes()
    assert look(vectors, screened=[True] + [False] * 5, forced=[KEEP] + [0] * 5).keep.all()


def test_no_people() -> None:
    nobody = Faces(
        np.zeros((0, SIZE), np.float32), np.zeros(1, np.int64), *[np.zeros(0, np.int64)] * 6
    )
    assert len(judge(nobody, RULE).keep) == 0


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    join=st.sampled_from([None, 0.35]),
    near_tie=st.sampled_from([0.5, 0.9, 2.0]),
)
def test_what_always_holds(seed: int, join: float | None, near_tie: float) -> None:
    faces = some_person(np.random.default_rng(seed))
    found = judge(faces, Rule(0.3, 0.25, join, 0.6, near_tie))
    kept = np.flatnonzero(found.keep & (faces.forced == 0))
    assert (found.cluster[kept] == 0).all()
    assert not {*faces.images[kept]} & {*faces.images[found.keep & (faces.forced == KEEP)]}
    assert len({*faces.images[kept]}) == len(kept)
    assert [code == "" for code in reasons(found)] == found.keep.tolist()
    assert found.keep[faces.forced == KEEP].all() and not found.keep[faces.forced == REJECT].any()
    assert not found.keep[(faces.duplicate_of >= 0) & (faces.forced == 0)].any()
    clusters = found.cluster[found.cluster >= 0]
    assert sorted(set(clusters.tolist())) == list(range(clusters.max(initial=-1) + 1))
    if "near_tie" in reasons(found):
        assert not len(kept) and found.margin[0] >= np.float32(near_tie)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_order_of_the_faces_makes_no_difference(seed: int) -> None:
    """Ids, and with them the order, come from the name of the folder: the same files must be judged
    alike under every name.
    """
    rng = np.random.default_rng(seed)
    faces = some_person(rng)
    order = rng.permutation(len(faces.vectors))
    one, other = judge(faces, RULE), judge(faces.reorder(order), RULE)
    # Of equal vectors, as of copies that somebody kept, either may be named first.
    if len(np.unique(faces.vectors, axis=0)) == len(faces.vectors):
        assert one.reason[order].tolist() == other.reason.tolist()
        assert one.cluster[order].tolist() == other.cluster.tolist()
        assert one.similarity[order].tobytes() == other.similarity.tobytes()
    assert sorted(reasons(one)) == sorted(reasons(other))
    assert one.margin.tobytes() == other.margin.tobytes()
    np.testing.assert_allclose(one.indicator, other.indicator, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_a_person_is_judged_alike_alone_and_among_others_to_the_last_bit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    people = [some_person(rng) for _ in range(int(rng.integers(2, 9)))]
    rule = Rule(0.3, 0.3, 0.4)
    everybody = judge(together(people), rule)
    starts = np.cumsum([0, *(len(one.vectors) for one in people)])
    for at, one in enumerate(people):
        alone, mine = judge(one, rule), slice(starts[at], starts[at + 1])
        assert alone.similarity.tobytes() == everybody.similarity[mine].tobytes()
        assert alone.cluster.tolist() == everybody.cluster[mine].tolist()
        assert alone.reason.tolist() == everybody.reason[mine].tolist()
        assert alone.indicator[0].tobytes() == everybody.indicator[at].tobytes()
