"""Who is in which split.

People who are near one another (`kin`) or share an image form a group, and a group is on one side:
in train or in validation, or one of its people is in the benchmark and the others are nowhere.
Everything is drawn by hashes of ids, so a person's side does not depend on how many others there
are, with two exceptions that are told in `assign`.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from schemas.samples import SPLITS as SPLITS
from schemas.wording import counted
from stages.shard.params import ShardParams

NOWHERE = "none"
"""What a list says of people who are in no split."""
BARRED, FEW, LISTED_OUT, SURPLUS = (
    "near_benchmark",
    "few_for_benchmark",
    "listed_out",
    "benchmark_surplus",
)
"""Reasons for which a person, or an image of one, is in no split."""
_LARGEST_SHARE = (
    1 / 4
)  # of the people, that a count of people may bring into validation or the benchmark


@dataclass(frozen=True)
class Person:
    """A canonical person with `pictures` images that may leave. `listed` is what a list says of
    any of the person's names.
    """

    canonical_id: str
    kin: str
    pictures: int
    listed: str | None = None


@dataclass(frozen=True)
class Assigned:
    """`split` of every person who is in one, else `reason`.

    `share` is the share of the groups that the hash brought into validation, `moved` counts people
    whom their group took to another split than the list said.
    """

    split: dict[str, str]
    reason: dict[str, str]
    share: float
    moved: int


@dataclass
class _Group:
    first: str
    people: list[Person] = field(default_factory=list)
    listed: set[str] = field(default_factory=set)


def assign(
    people: Sequence[Person], sharing: Iterable[tuple[str, str]], params: ShardParams
) -> Assigned:
    """Put `people` into splits. `sharing` are pairs of canonical ids who have the same image.

    The benchmark is filled to its number in the order of a hash, so somebody new may take another's
    place there; and the share of validation doubles or halves when the number of people crosses
    what `validation_people` needs. Whoever wants to keep a draw for good passes it as a list.
    """
    groups = _groups(people, sharing)
    enough = params.references + params.targets
    split: dict[str, str] = {}
    reason: dict[str, str] = {}
    moved = 0
    free: list[_Group] = []
    for group in groups:
        listed = next(
            (name for name in (SPLITS[2], SPLITS[1], SPLITS[0]) if name in group.listed), None
        )
        if listed is None:
            free.append(group)
        for person in group.people:
            if person.listed == NOWHERE:
                reason[person.canonical_id] = LISTED_OUT
            elif listed == SPLITS[2]:
                # Asked for by name: all that are asked for, also near ones.
                _benchmark(person, person.listed == listed, enough, split, reason)
            elif listed is not None:
                split[person.canonical_id] = listed
            moved += person.listed not in (None, NOWHERE, split.get(person.canonical_id))
    free = [
        group for group in free if any(person.canonical_id not in reason for person in group.people)
    ]
    drawn = _drawn(free, params.benchmark_people, enough)
    for group in free:
        chosen = drawn.get(group.first)
        for person in group.people:
            if chosen is not None and person.canonical_id not in reason:
                _benchmark(person, person.canonical_id == chosen, enough, split, reason)
    rest = [group for group in free if group.first not in drawn]
    share = _share(rest, params)
    for group in rest:
        for person in group.people:
            if person.canonical_id not in reason:
                split[person.canonical_id] = (
                    SPLITS[1] if _place(b"split", group.first) < share else SPLITS[0]
                )
    return Assigned(split, reason, share, moved)


def shortfalls(people: Mapping[str, int], params: ShardParams) -> list[str]:
    """What was asked for and the draw did not give, in sentences: `people` are counted by split.

    It is told and not mended: were somebody moved so that no split is empty, that person would move
    back with the next newcomers, and the sets of two days would have people on both sides.
    """
    total = sum(people.values())
    if not total:
        return []
    said = []
    none_of = f"none of {total}" if total > 1 else "not even the one"
    if params.validation and not people.get(SPLITS[1]):
        share = f"validation: {params.validation:g}"
        said.append(
            f"nobody is in {SPLITS[1]}: the draw put {none_of} there ({share}); a larger share "
            "or a split_list does"
        )
    if params.validation < 1 and not people.get(SPLITS[0]):
        said.append(
            f"nobody is in {SPLITS[0]}: the draw put {none_of} there; a smaller share of "
            "validation or a split_list does"
        )
    there = people.get(SPLITS[2], 0)
    if there < params.benchmark_people:
        enough = counted(params.references + params.targets, "image")
        said.append(
            f"{SPLITS[2]} has {there} of {counted(params.benchmark_people, 'person')}: at most a "
            f"quarter of all, each with {enough} or more"
        )
    return said


def roles(image_ids: Iterable[str], params: ShardParams) -> dict[str, tuple[str, int]]:
    """Which of a benchmark person's images are references and targets, each numbered from 1:
    drawn by a hash.
    """
    drawn = sorted(image_ids, key=lambda image: (_place(b"role", image), image))
    found = {
        image: ("reference", place + 1) for place, image in enumerate(drawn[: params.references])
    }
    for place, image in enumerate(drawn[params.references : params.references + params.targets]):
        found[image] = ("target", place + 1)
    return found


def _benchmark(
    person: Person, chosen: bool, enough: int, split: dict[str, str], reason: dict[str, str]
) -> None:
    if not chosen:
        reason[person.canonical_id] = BARRED
    elif person.pictures < enough:
        reason[person.canonical_id] = FEW
    else:
        split[person.canonical_id] = SPLITS[2]


def _groups(people: Sequence[Person], sharing: Iterable[tuple[str, str]]) -> list[_Group]:
    """By the first canonical id in them, rising."""
    parent: dict[str, str] = {}

    def root(one: str) -> str:
        found = one
        while parent.get(found, found) != found:
            found = parent[found]
        while parent.get(one, one) != one:
            parent[one], one = found, parent[one]
        return found

    def join(one: str, other: str) -> None:
        first, second = sorted((root(one), root(other)))
        parent[second] = first

    for person in people:
        join(person.canonical_id, person.kin)
    for one, other in sharing:
        join(one, other)
    groups: dict[str, _Group] = {}
    for person in sorted(people, key=lambda person: person.canonical_id):
        # Named by who is there: kin that have nothing to show must not decide.
        group = groups.setdefault(root(person.canonical_id), _Group(person.canonical_id))
        group.people.append(person)
        if person.listed not in (None, NOWHERE):
            group.listed.add(str(person.listed))
    return list(groups.values())


def _drawn(groups: Sequence[_Group], most: int, enough: int) -> dict[str, str]:
    """Of each group with somebody in the benchmark, who it is."""
    able = {}
    for group in groups:
        found = [
            person.canonical_id
            for person in group.people
            if person.pictures >= enough and person.listed is None
        ]
        if found:
            able[group.first] = min(found, key=_order)
    most = min(most, int(len(groups) * _LARGEST_SHARE))
    return {first: able[first] for first in sorted(able, key=_order)[:most]}


def _share(groups: Sequence[_Group], params: ShardParams) -> float:
    """The share of validation: as asked, or as much more as gives enough people."""
    if not params.validation or not params.validation_people:
        return params.validation
    places = [
        (_place(b"split", group.first), sum(p.listed != NOWHERE for p in group.people))
        for group in groups
    ]

    def count(share: float) -> int:
        return sum(people for place, people in places if place < share)

    if count(params.validation) >= params.validation_people:
        return params.validation
    larger = [
        1 / 2**n
        for n in range(20, 1, -1)
        if 1 / 2**n > params.validation and 1 / 2**n <= _LARGEST_SHARE
    ]
    return next(
        (share for share in larger if count(share) >= params.validation_people), params.validation
    )


def _order(canonical_id: str) -> tuple[float, str]:
    return _place(b"benchmark", canonical_id), canonical_id


def _place(domain: bytes, text: str) -> float:
    """Uniform in [0, 1)."""
    digest = hashlib.blake2b(text.encode(), digest_size=8, person=domain).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53
