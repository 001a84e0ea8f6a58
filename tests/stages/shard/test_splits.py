"""Nobody is on both sides, draws hold still, lists win, and the benchmark's people are nowhere
else.
"""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.shard.params import ShardParams
from stages.shard.splits import SPLITS, Person, assign, roles, shortfalls


def crowd(count: int, pictures: int = 6) -> list[Person]:
    return [
        Person(f"{n * 7919 % 99991:016x}", f"{n * 7919 % 99991:016x}", pictures)
        for n in range(count)
    ]


def sizes(people: list[Person], params: ShardParams) -> dict[str, int]:
    found = list(assign(people, [], params).split.values())
    return {split: found.count(split) for split in SPLITS}


def test_the_share_of_validation_is_met() -> None:
    found = sizes(crowd(5000), ShardParams(validation=0.2))
    assert 0.17 < found["validation"] / 5000 < 0.23 and found["benchmark"] == 0


def test_validation_has_enough_people_where_there_are_enough() -> None:
    assert sizes(crowd(3000), ShardParams(validation=0.01))["validation"] >= 200
    assert sizes(crowd(300), ShardParams(validation=0.01))["validation"] < 20
    assert sizes(crowd(3000), ShardParams(validation=0.01, validation_people=0))["validation"] < 60
    assert sizes(crowd(3000), ShardParams())["validation"] == 0


@pytest.mark.slow
@given(st.integers(1, 300), st.floats(0, 1), st.floats(0, 1))
def test_nobody_leaves_validation_as_it_grows(count: int, one: float, other: float) -> None:
    small, large = (
        assign(crowd(count), [], ShardParams(validation=share, validation_people=0)).split
        for share in sorted((one, other))
    )
    assert all(split == "train" or large[person] == "validation" for person, split in small.items())
    for share, split in ((0, "train"), (1, "validation")):
        assert set(assign(crowd(count), [], ShardParams(validation=share)).split.values()) == {
            split
        }


def test_newcomers_move_nobody() -> None:
    params = ShardParams(validation=0.3)
    few, many = assign(crowd(100), [], params).split, assign(crowd(130), [], params).split
    assert all(many[person] == split for person, split in few.items())


people_with_kin = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(1, 8)),
    max_size=40,
    unique_by=lambda p: p[0],
)


@given(
    people_with_kin,
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=10),
    st.dictionaries(st.integers(0, 40), st.sampled_from([*SPLITS, "none"]), max_size=8),
    st.integers(0, 10),
    st.floats(0, 1),
)
def test_whoever_is_near_or_shares_a_picture_is_on_one_side(
    given_people: list[tuple[int, int, int]],
    pairs: list[tuple[int, int]],
    lists: dict[int, str],
    benchmark: int,
    share: float,
) -> None:
    names = {n: f"{n:016x}" for n in range(41)}
    people = [
        Person(names[n], names[kin], pictures, lists.get(n)) for n, kin, pictures in given_people
    ]
    there = {person.canonical_id for person in people}
    sharing = [(names[a], names[b]) for a, b in pairs if names[a] in there and names[b] in there]
    params = ShardParams(validation=share, benchmark_people=benchmark)
    found = assign(people, sharing, params)
    assert (
        found.split.keys() | found.reason.keys() == there
        and not found.split.keys() & found.reason.keys()
    )
    linked = [(p.canonical_id, p.kin) for p in people if p.kin in there] + sharing
    listed = {person.canonical_id for person in people if person.listed == "benchmark"}
    for one, other in linked:
        if (
            one != other
            and one in found.split
            and other in found.split
            and not {one, other} <= listed
        ):
            assert found.split[one] == found.split[other] != "benchmark"
    for person in people:
        split = found.split.get(person.canonical_id)
        if split == "benchmark":
            assert person.pictures >= 5
        if person.listed == "none":
            assert found.reason[person.canonical_id] == "listed_out"
        if person.listed == "benchmark":
            assert split in (None, "benchmark")
    assert found == assign(people[::-1], sharing[::-1], params)


def test_the_benchmark_is_as_large_as_asked_but_never_most_of_the_people() -> None:
    assert sizes(crowd(1000), ShardParams(benchmark_people=200))["benchmark"] == 200
    assert sizes(crowd(100), ShardParams(benchmark_people=200))["benchmark"] == 25
    assert sizes(crowd(1000, pictures=4), ShardParams(benchmark_people=200))["benchmark"] == 0
    found = sizes(crowd(1000), ShardParams(benchmark_people=200, validation=0.1))
    assert sum(found.values()) == 1000 and found["validation"] > 40


def test_who_is_near_somebody_in_the_benchmark_is_nowhere() -> None:
    a, b = f"{1:016x}", f"{2:016x}"
    found = assign(
        [
            Person(a, a, 9, "benchmark"),
            Person(b, a, 9),
            Person(f"{3:016x}", f"{3:016x}", 2, "benchmark"),
        ],
        [],
        ShardParams(),
    )
    assert found.split == {a: "benchmark"}
    assert found.reason == {b: "near_benchmark", f"{3:016x}": "few_for_benchmark"}


def test_a_list_that_parts_near_people_gives_way_and_says_so() -> None:
    a, b = f"{1:016x}", f"{2:016x}"
    found = assign([Person(a, a, 9, "train"), Person(b, a, 9, "validation")], [], ShardParams())
    assert found.split == {a: "validation", b: "validation"} and found.moved == 1


def test_roles_are_drawn_and_numbered() -> None:
    found = roles([f"image {n}" for n in range(9)], ShardParams(references=4, targets=2))
    assert sorted(found.values()) == [
        ("reference", 1),
        ("reference", 2),
        ("reference", 3),
        ("reference", 4),
        ("target", 1),
        ("target", 2),
    ]
    assert found == roles(
        [f"image {n}" for n in range(8, -1, -1)], ShardParams(references=4, targets=2)
    )


def test_profiles_of_the_papers_bring_what_their_training_reads() -> None:
    assert ShardParams(profile="flashface").need == ("caption",)
    caphuman = ShardParams(profile="caphuman")
    assert list(caphuman.tables()) == [
        "images",
        "faces",
        "clusters",
        "captions",
        "heads",
        "masks",
        "renders",
    ]
    assert ShardParams.model_validate(caphuman.model_dump(mode="json")) == caphuman
    assert ShardParams(profile="caphuman", include=(), need=()).include == ()
    assert ShardParams(profile="facestudio").members == {
        "mask": "mask.png",
        "arcface": "arcface.npy",
    }
    assert ShardParams(include=("arcface", "mask", "mask")) == ShardParams(
        include=("mask", "arcface")
    )


def test_parameters() -> None:
    assert list(ShardParams().tables()) == ["images", "faces", "clusters"]
    assert list(ShardParams(include=("mask",)).tables()) == ["images", "faces", "clusters", "masks"]
    assert "screenings" in ShardParams(min_age=18).tables()
    with pytest.raises(ValueError, match="pattern"):
        ShardParams(profile="../up")


@pytest.mark.parametrize(
    ("people", "params", "said"),
    [
        (
            {"train": 8, "validation": 0},
            {"validation": 0.2},
            ["nobody is in validation: the draw put none of 8 there (validation: 0.2)"],
        ),
        (
            {"train": 1},
            {"validation": 0.5},
            ["nobody is in validation: the draw put not even the one there"],
        ),
        ({"train": 8}, {}, []),
        ({"train": 6, "validation": 2}, {"validation": 0.2}, []),
        (
            {"validation": 3},
            {"validation": 0.9},
            ["nobody is in train: the draw put none of 3 there"],
        ),
        ({"validation": 3}, {"validation": 1.0}, []),
        ({}, {"validation": 0.2, "benchmark_people": 5}, []),
        (
            {"train": 6, "benchmark": 2},
            {"benchmark_people": 5},
            ["benchmark has 2 of 5 people: at most a quarter of all"],
        ),
        ({"train": 8, "benchmark": 2}, {"benchmark_people": 2}, []),
    ],
)
def test_what_the_draw_did_not_give_is_told(
    people: dict[str, int], params: dict[str, Any], said: list[str]
) -> None:
    """A training would begin and find nobody to validate with."""
    found = shortfalls(people, ShardParams(**params))
    assert len(found) == len(said) and all(
        one.startswith(part) for one, part in zip(found, said, strict=True)
    ), found
