"""Thresholds of `clean` from labelled vectors: they separate what can be separated, and agree with
what ships.
"""

import numpy as np
import pytest

from eval.metrics.verification import Scores, unit
from eval.recognition.thresholds import TooFew, clean_thresholds, cluster_links
from stages.clean.rule import Rule
from tests.eval.metrics.test_verification import people


def test_people_that_lie_apart_are_separated() -> None:
    vectors, person = people(12, 10, 0.4)
    found = clean_thresholds(vectors, person)
    assert (
        found.own_below == (0, 120)
        and found.strangers_above[0] == 0
        and found.strangers_above[1] == 120 * 11
    )
    assert found.faces_cut_off == (0, 120) and found.people_linked == (0, 66)
    assert found.join_cosine >= found.similarity_threshold - 0.2
    assert (found.photographs, found.people) == (120, 12)
    assert found.source.startswith(
        "120 photographs of 12 people: own photographs below: 0 of 120, strangers above: 0 of 1320;"
    )
    Rule(found.similarity_threshold, found.merge_cosine, found.join_cosine)


def test_what_it_counts_is_what_the_thresholds_do() -> None:
    vectors, person = people(10, 8, 1.3, seed=3)
    found = clean_thresholds(vectors, person)
    own, strangers = 0, 0
    ready = unit(vectors)
    for at, name in enumerate(person):
        others = [i for i in range(len(person)) if person[i] == name and i != at]
        own += (
            float(ready[at] @ unit(ready[others].sum(axis=0)[None])[0]) < found.similarity_threshold
        )
        for other in set(person.tolist()) - {name}:
            indicator = unit(ready[person == other].sum(axis=0)[None])[0]
            strangers += float(ready[at] @ indicator) >= found.similarity_threshold
    assert (found.own_below[0], found.strangers_above[0]) == (own, strangers) and strangers > 0, (
        "the case is a hard one"
    )


def test_join_lies_above_every_stranger() -> None:
    for seed in range(5):
        vectors, person = people(10, 8, 1.0, seed)
        found = clean_thresholds(vectors, person)
        sums = np.stack([unit(vectors)[person == name].sum(axis=0) for name in range(10)])
        against = unit(vectors) @ unit(sums).T
        assert found.join_cosine > against[person[:, None] != np.arange(10)].max()


def test_two_looks_of_one_person_are_linked_by_the_weakest_step_between_them() -> None:
    """Three looks in a row: the first resembles the last only by way of the one between."""
    angles = np.deg2rad([0, 60, 120])
    looks = np.stack([np.cos(angles), np.sin(angles), np.zeros(3)], axis=1)
    jitter = np.random.default_rng(0).normal(scale=1e-3, size=(18, 3))
    chain = np.repeat(looks, [10, 4, 4], axis=0) + jitter
    stranger = np.tile([0.0, 0, 1], (6, 1)) + jitter[:6]
    links = cluster_links(
        np.concatenate([chain, stranger]), np.array(["chain"] * 18 + ["stranger"] * 6)
    )
    assert links.genuine.min() == pytest.approx(0.5, abs=0.01), (
        "cos 60: the step, not cos 120 straight across"
    )
    assert links.impostor.tolist() == [pytest.approx(0.0, abs=0.01)]


def test_too_few_photographs_are_refused_in_words() -> None:
    vectors, person = people(5, 4, 0.5)
    with pytest.raises(
        TooFew, match=r"two people with 6 usable photographs at least .*; there are 0"
    ):
        clean_thresholds(vectors, person)
    vectors = np.full((20, 4), np.nan)
    with pytest.raises(TooFew):
        clean_thresholds(vectors, np.repeat([0, 1], 10))


def test_photographs_without_a_vector_do_not_count() -> None:
    vectors, person = people(8, 8, 0.4)
    blind = np.concatenate([vectors, np.full((5, vectors.shape[1]), np.nan)])
    assert clean_thresholds(
        blind, np.concatenate([person, np.zeros(5, dtype=int)])
    ) == clean_thresholds(vectors, person)


def test_scores_hold_what_they_say() -> None:
    vectors, person = people(4, 7, 0.5)
    links = cluster_links(vectors, person)
    assert isinstance(links, Scores) and len(links.genuine) == 28 and len(links.impostor) == 6
