"""Messages that read well, and suggestions that are what was meant."""

import pytest

from schemas.wording import counted, near


@pytest.mark.parametrize(
    ("number", "one", "said"),
    [
        (0, "image", "0 images"),
        (1, "image", "1 image"),
        (2, "image", "2 images"),
        (1, "person", "1 person"),
        (3, "person", "3 people"),
        (2, "sample person", "2 sample people"),
        (2, "kept face", "2 kept faces"),
    ],
)
def test_one_thing_is_not_many(number: int, one: str, said: str) -> None:
    assert counted(number, one) == said


def test_a_noun_may_say_how_it_goes() -> None:
    assert counted(2, "copy", "copies") == "2 copies" and counted(1, "copy", "copies") == "1 copy"


WEIGHTS = ["dlib_68_points", "arcface_r50", "retinaface_r50", "scrfd_2.5g_bnkps", "scrfd_10g_bnkps"]


@pytest.mark.parametrize(
    ("word", "known", "meant"),
    [
        ("scrfd", WEIGHTS, "scrfd_10g_bnkps"),
        ("r50", WEIGHTS, "arcface_r50"),
        ("RetinaFace", WEIGHTS, "retinaface_r50"),
        ("face", ["faces", "fake", "withface"], "faces"),
        ("faces_table", ["facet_tables", "faces"], "faces"),
        ("dection", ["detect", "detection"], "detection"),
        ("sharding", ["shard", "stardig"], "shard"),
        ("emb", ["lamb", "embed"], "embed"),
    ],
)
def test_what_contains_the_word_is_meant_first(word: str, known: list[str], meant: str) -> None:
    """By spelling alone, `scrfd` would be called near to nothing, or to some short name."""
    assert near(word, known) == [meant]


def test_nothing_is_near_to_nonsense_or_to_a_letter() -> None:
    assert near("zzz", WEIGHTS) == [] and near("a", ["alpha", "beta"]) == []


def test_as_many_as_are_asked_for() -> None:
    assert near("bnkps", WEIGHTS, 3) == ["scrfd_10g_bnkps", "scrfd_2.5g_bnkps"]
