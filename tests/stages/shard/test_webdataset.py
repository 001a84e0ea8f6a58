"""Tars that other programs read, byte for byte the same each time, and boundaries that a change moves only nearby."""

import hashlib
import io
import json
import tarfile
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.shard.webdataset import METADATA, SAMPLES, Sample, ShardParams, cut, parts, sample_key, split_of, tar_bytes


def sample(number: int, **changes: Any) -> Sample:
    who, which = f"{number // 2:016x}", f"{number:024x}"
    data = bytes([number % 256]) * (number * 700 + 1)
    values: dict[str, Any] = dict.fromkeys(METADATA)
    values |= {
        "key": sample_key(who, which), "canonical_id": who, "identity_id": who, "image_id": which, "face_id": which,
        "split": "train", "name": "Zoë O'Brien, Jr.", "address": "local:Zoë O'Brien, Jr./a.b.c.jpg", "format": "jpeg",
        "sha256": hashlib.sha256(data).hexdigest(), "box": [1.0, 2.0, 3.5, 4.0], **changes,
    }  # fmt: skip
    return Sample(values, data, b"mask" if number % 2 else None)


def test_members_offsets_and_metadata() -> None:
    samples = [sample(number, format=("jpeg", "png", "webp", "gif")[number % 4]) for number in range(8)]
    data, rows = tar_bytes(samples, "train-0.tar")
    assert rows.schema.equals(SAMPLES.arrow)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in tar} == {(0, 0, 0, "idcluster", "idcluster", 0o644)}
        names = tar.getnames()
        metadata = json.loads(tar.extractfile(f"{samples[0].metadata['key']}.json").read())  # type: ignore[union-attr]
    assert metadata == samples[0].metadata
    assert names[:2] == [f"{samples[0].metadata['key']}.jpg", f"{samples[0].metadata['key']}.json"]
    assert not any("/" in name or "Zo" in name for name in names)
    for row, given_sample in zip(rows.to_pylist(), samples, strict=True):
        assert data[row["image_offset"] : row["image_offset"] + row["image_length"]] == given_sample.picture
        assert hashlib.sha256(given_sample.picture).hexdigest() == row["sha256"]
        assert row["shard"] == "train-0.tar"
        if given_sample.mask is None:
            assert row["mask_offset"] is None and row["mask_length"] is None
        else:
            assert data[row["mask_offset"] : row["mask_offset"] + row["mask_length"]] == b"mask"


def test_the_same_samples_give_the_same_bytes() -> None:
    assert tar_bytes(map(sample, range(5)), "a.tar")[0] == tar_bytes(map(sample, range(5)), "a.tar")[0]


def test_parameters() -> None:
    assert list(ShardParams().tables()) == ["images", "faces", "clusters"]
    assert list(ShardParams(include=("mask",)).tables()) == ["images", "faces", "clusters", "masks"]
    with pytest.raises(ValueError, match="pattern"):
        ShardParams(profile="../up")


@given(st.lists(st.text("0123456789abcdef", min_size=16, max_size=16), unique=True), st.floats(0, 1), st.floats(0, 1))
def test_nobody_leaves_validation_as_it_grows(people: list[str], one: float, other: float) -> None:
    small, large = sorted((one, other))
    for person in people:
        assert split_of(person, small) == "train" or split_of(person, large) == "validation"
        assert (split_of(person, 0), split_of(person, 1)) == ("train", "validation")


def test_the_share_of_validation_is_met() -> None:
    found = [split_of(f"{number:016x}", 0.2) for number in range(5000)]
    assert 0.17 < found.count("validation") / 5000 < 0.23


People = list[tuple[str, int]]
people_lists = st.dictionaries(st.integers(0, 2**64 - 1), st.integers(0, 60), max_size=120).map(
    lambda found: [(f"{key:016x}", size) for key, size in sorted(found.items())]
)


def shards_of(people: People, target: int) -> list[tuple[str, ...]]:
    return [tuple(people[index][0] for index in shard) for shard in cut(people, target)]


@given(people_lists, st.integers(1, 100))
def test_everybody_is_in_one_shard_in_order_and_shards_are_not_too_large(people: People, target: int) -> None:
    shards = cut(people, target)
    assert [index for shard in shards for index in shard] == list(range(len(people)))
    assert all(len(shard) > 0 for shard in shards)
    assert all(len(shard) == 1 or sum(max(people[i][1], 1) for i in shard) <= 2 * target for shard in shards)


@settings(max_examples=300)
@given(people_lists.filter(bool), st.integers(1, 100), st.data())
def test_a_removed_person_changes_only_shards_nearby(people: People, target: int, data: st.DataObject) -> None:
    """Nearby: within twice the largest shard. A boundary looks half a target around it, a second cut stays in its shard."""
    gone = data.draw(st.integers(0, len(people) - 1))
    starts = [0]
    for _, size in people:
        starts.append(starts[-1] + max(size, 1))
    before, after = shards_of(people, target), set(shards_of(people[:gone] + people[gone + 1 :], target))
    reach = target / 2
    # What the first rule alone gives: those boundaries that can see the removed person may move, no others.
    seeing = {i for i in range(len(people)) if starts[gone] - reach <= starts[i] <= starts[gone + 1] + reach}
    first_rule = _first_rule(people, target)
    settled = sorted(i for i in first_rule if i not in seeing)
    low = max((i for i in settled if i <= gone), default=0)
    high = min((i for i in settled if i > gone), default=len(people))
    position = {person: index for index, (person, _) in enumerate(people)}
    for shard in before:
        if position[shard[-1]] < low or position[shard[0]] >= high:
            assert shard in after


def _first_rule(people: People, target: int) -> set[int]:
    """The boundaries of the first cut, by the definition: the largest hash within half a target, both ways."""
    starts = [0]
    for _, size in people:
        starts.append(starts[-1] + max(size, 1))
    hashes = [(int.from_bytes(hashlib.blake2b(p.encode(), digest_size=8, person=b"cut").digest(), "big"), p) for p, _ in people]
    near = range(len(people))
    return {
        i for i in near
        if all(hashes[j] <= hashes[i] for j in near if abs(starts[j] - starts[i]) <= target / 2)
    }  # fmt: skip


def test_shards_are_as_large_as_asked_and_a_removal_costs_one_of_them() -> None:
    people = [(hashlib.blake2b(str(n).encode(), digest_size=8).hexdigest(), 500 + n * 7919 % 3000) for n in range(4000)]
    people.sort()
    before = shards_of(people, 100_000)
    sizes = dict(people)
    mean = sum(sizes.values()) / len(before)
    assert 80_000 < mean < 125_000
    changed = [len(set(shards_of(people[:k] + people[k + 1 :], 100_000)) - set(before)) for k in range(0, 4000, 97)]
    assert sum(changed) / len(changed) < 1.3


@given(st.lists(st.integers(0, 50)), st.integers(1, 100))
def test_parts_cover_a_person_in_order(sizes: list[int], target: int) -> None:
    found = parts(sizes, target)
    assert [index for part in found for index in part] == list(range(len(sizes)))
    assert all(len(part) == 1 or sum(sizes[i] for i in part) <= target for part in found)
