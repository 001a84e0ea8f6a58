"""Where shards end."""

import hashlib
from bisect import bisect_left
from collections.abc import Iterator, Sequence


def cut(people: Sequence[tuple[str, int]], target: int) -> list[range]:
    """Where shards end: ranges of indices into `people`, which are (canonical id, bytes) in the
    order of the ids.

    A person begins a shard whose hash is the largest within `target` / 2 bytes before and after.
    That looks at nothing further away, so whoever comes or goes changes the shards around, never
    those beyond; and shards have `target` bytes on average and no less than half of it between two
    such people. What is over twice the target by chance is cut again by the same rule with half the
    distance, until only single people are larger.
    """
    hashes = [(_hash(person), person) for person, _ in people]
    starts = [0]
    for _, size in people:
        starts.append(starts[-1] + max(size, 1))
    return list(_cut(range(len(people)), hashes, starts, target / 2, 2 * target))


def _cut(
    within: range,
    hashes: Sequence[tuple[int, str]],
    starts: Sequence[int],
    reach: float,
    largest: int,
) -> Iterator[range]:
    if len(within) <= 1:
        if within:
            yield within
        return
    begin = within.start
    for index in [
        *(i for i in within[1:] if _begins(i, within, hashes, starts, reach)),
        within.stop,
    ]:
        segment = range(begin, index)
        if starts[segment.stop] - starts[segment.start] > largest:
            yield from _cut(segment, hashes, starts, reach / 2, largest)
        else:
            yield segment
        begin = index


def _begins(
    index: int,
    within: range,
    hashes: Sequence[tuple[int, str]],
    starts: Sequence[int],
    reach: float,
) -> bool:
    low = bisect_left(starts, starts[index] - reach, within.start, index)
    own = hashes[index]
    if any(hashes[i] > own for i in range(index - 1, low - 1, -1)):
        return False
    high = index + 1
    while high < within.stop and starts[high] - starts[index] <= reach:
        if hashes[high] > own:
            return False
        high += 1
    return True


def parts(sizes: Sequence[int], target: int) -> list[range]:
    """Where the numbered parts of a person end who is larger than a shard may be."""
    found, begin, total = [], 0, 0
    for index, size in enumerate(sizes):
        if index > begin and total + size > target:
            found.append(range(begin, index))
            begin, total = index, 0
        total += size
    return [*found, range(begin, len(sizes))] if sizes else []


def _hash(text: str) -> int:
    return int.from_bytes(
        hashlib.blake2b(text.encode(), digest_size=8, person=b"cut").digest(), "big"
    )
