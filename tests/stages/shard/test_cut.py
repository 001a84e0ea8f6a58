"""Shards as large as asked, boundaries that a change moves only nearby."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.shard.cut import cut, parts

People = list[tuple[str, int]]
people_lists = st.dictionaries(st.integers(0, 2**64 - 1), st.integers(0, 60), max_size=120).map(
    lambda found: [(f"{key:016x}", size) for key, size in sorted(found.items())]
)


def shards_of(people: People, target: int) -> list[tuple[str, ...]]:
    return [tuple(people[index][0] for index in shard) for shard in cut(people, target)]


@given(people_lists, st.integers(1, 100))
def test_everybody_is_in_one_shard_in_order_and_shards_are_not_too_large(
    people: People, target: int
) -> None:
    shards = cut(people, target)
    assert [index for shard in shards for index in shard] == list(range(len(people)))
    assert all(len(shard) > 0 for shard in shards)
    assert all(
        len(shard) == 1 or sum(max(people[i][1], 1) for i in shard) <= 2 * target
        for shard in shards
    )


@pytest.mark.slow
@settings(max_examples=300)
@given(people_lists.filter(bool), st.integers(1, 100), st.data())
def test_a_removed_person_changes_only_shards_nearby(
    people: People, target: int, data: st.DataObject
) -> None:
    """Nearby: within twice the largest shard. A boundary looks half a target around it, a second
    cut stays in its shard.
    """
    gone = data.draw(st.integers(0, len(people) - 1))
    starts = [0]
    for _, size in people:
        starts.append(starts[-1] + max(size, 1))
    before, after = (
        shards_of(people, target),
        set(shards_of(people[:gone] + people[gone + 1 :], target)),
    )
    reach = target / 2
    # What the first rule alone gives: those boundaries that can see the removed person may move, no
    # others.
    seeing = {
        i
        for i in range(len(people))
        if starts[gone] - reach <= starts[i] <= starts[gone + 1] + reach
    }
    first_rule = _first_rule(people, target)
    settled = sorted(i for i in first_rule if i not in seeing)
    low = max((i for i in settled if i <= gone), default=0)
    high = min((i for i in settled if i > gone), default=len(people))
    position = {person: index for index, (person, _) in enumerate(people)}
    for shard in before:
        if position[shard[-1]] < low or position[shard[0]] >= high:
            assert shard in after


def _first_rule(people: People, target: int) -> set[int]:
    """The boundaries of the first cut, by the definition: the largest hash within half a target,
    both ways.
    """
    starts = [0]
    for _, size in people:
        starts.append(starts[-1] + max(size, 1))
    hashes = [
        (
            int.from_bytes(
                hashlib.blake2b(p.encode(), digest_size=8, person=b"cut").digest(), "big"
            ),
            p,
        )
        for p, _ in people
    ]
    near = range(len(people))
    return {
        i
        for i in near
        if all(hashes[j] <= hashes[i] for j in near if abs(starts[j] - starts[i]) <= target / 2)
    }


def test_shards_are_as_large_as_asked_and_a_removal_costs_one_of_them() -> None:
    people = [
        (hashlib.blake2b(str(n).encode(), digest_size=8).hexdigest(), 500 + n * 7919 % 3000)
        for n in range(4000)
    ]
    people.sort()
    before = shards_of(people, 100_000)
    sizes = dict(people)
    mean = sum(sizes.values()) / len(before)
    assert 80_000 < mean < 125_000
    changed = [
        len(set(shards_of(people[:k] + people[k + 1 :], 100_000)) - set(before))
        for k in range(0, 4000, 97)
    ]
    assert sum(changed) / len(changed) < 1.3


@given(st.lists(st.integers(0, 50)), st.integers(1, 100))
def test_parts_cover_a_person_in_order(sizes: list[int], target: int) -> None:
    found = parts(sizes, target)
    assert [index for part in found for index in part] == list(range(len(sizes)))
    assert all(len(part) == 1 or sum(sizes[i] for i in part) <= target for part in found)
