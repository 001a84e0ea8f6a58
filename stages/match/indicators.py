"""Compare all people of a dataset: the same person under two names, and the same picture under two people's names.

Rows never move. Two names that are one person get the same canonical identity; views and shards go by that. People who are
near one another without being the same (relatives, lookalikes) come into one group, whose members belong on the same side
of a split.
"""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from stages.columns import vectors
from stages.people.matches import near, pairs
from stages.stage import Grain, Params, Stage


class IndicatorMatchParams(Params):
    """Parameters of `IndicatorMatch`; cosines are in the scale of the recogniser. The pipeline fills in calibrated ones."""

    same_cosine: float | None = Field(None, ge=-1, le=1)
    """Least cosine between the indicators of two names that are one person. None: no two are."""
    near_cosine: float | None = Field(None, ge=-1, le=1)
    """Least cosine between the indicators of people who stay on one side of a split. None: as same_cosine."""
    same: Literal["merge", "drop", "report"] = "merge"
    """What becomes of two names that are one person: one person, only the one with more pictures, or two with a flag."""
    shared: Literal["drop", "report"] = "drop"
    """What becomes of a kept picture that is kept under another person's name as well: it is nobody's, or stays with a flag.
    Of people who were merged, one copy stays."""
    phash_bits: int = Field(3, ge=0, le=8)
    """Bits in which the perceptual hashes of one picture may differ."""


class IndicatorMatch(Stage):
    """One row of `matches` a person who has an indicator. Decisions by hand (`overrides`: merge, apart) win over cosines."""

    name: ClassVar[str] = "match"
    backend: ClassVar[str] = "indicators"
    grain: ClassVar[Grain] = "root"
    parent: ClassVar[str] = "people"
    Parameters: ClassVar[type[Params]] = IndicatorMatchParams
    reads: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "people": ("indicator", "kept"),
        "clusters": ("keep",),
        "images": ("sha256", "phash"),
        "overrides": ("action", "target"),
    }
    optional: ClassVar[frozenset[str]] = frozenset({"overrides"})

    def run_whole(self, tables: Mapping[str, pa.Table]) -> pa.Table:
        """Rows of `matches` without the column `inputs`, by identity_id.

        `tables`: all rows of the tables in `reads`, with ids, status and the columns named there.
        """
        params: IndicatorMatchParams = self.params
        people = tables["people"].filter(pc.equal(tables["people"]["status"], "ok")).sort_by("identity_id")
        names: list[str] = people["identity_id"].to_pylist()
        index = {name: place for place, name in enumerate(names)}
        kept = pc.fill_null(people["kept"], 0).to_numpy()
        merged, apart = _by_hand(tables.get("overrides"), index)
        together, close, nearest = self._compare(vectors(people["indicator"]) if names else np.zeros((0, 1), np.float32), apart)

        same = _Union(len(names))
        for left, right in [*merged, *(together if params.same == "merge" else ())]:
            if not same.would_unite(left, right, apart):
                same.join(left, right)
        canonical = same.best(kept)
        lost = _beaten(together, kept, canonical) if params.same == "drop" else set()
        groups = _Union(len(names))
        for left, right in [*together, *close, *merged]:
            groups.join(left, right)
        group = groups.best(np.zeros(len(names)))

        shared, dropped = self._shared(tables, index, canonical, lost)
        reported = {place for pair in together for place in pair} if params.same == "report" else set()
        rows = []
        for place, name in enumerate(names):
            other, cosine = nearest.get(place, (None, None))
            marks = {
                "merged": canonical[place] != place or any(canonical[other] == place for other in same.members(place) if other != place),
                "same_person": place in reported,
                "dropped": place in lost,
                "near_person": other is not None and canonical[other] != canonical[place] and place not in lost,
                "shared_pictures": bool(shared.get(place)),
            }
            rows.append(
                {
                    "identity_id": name,
                    "same_as": names[canonical[place]],
                    "kin": names[group[place]],
                    "nearest": None if other is None else names[other],
                    "nearest_cosine": cosine,
                    "shared": shared.get(place, 0),
                    "dropped_faces": sorted(dropped.get(place, ())),
                    "flags": [flag for flag, there in marks.items() if there],
                    "status": "filtered" if place in lost else "ok",
                    "reason": "same_person" if place in lost else None,
                    "detail": f"is {names[canonical[place]]} with fewer pictures" if place in lost else None,
                }
            )
        return self.build(rows)

    def _compare(
        self, indicators: np.ndarray, apart: set[tuple[int, int]]
    ) -> tuple[list[tuple[int, int]], list[tuple[int, int]], dict[int, tuple[int, float]]]:
        """Pairs that are one person, further pairs that are near, and of each person in a pair the nearest one with the cosine."""
        same, close = self.params.same_cosine, self.params.near_cosine
        limits = [limit for limit in (same, close) if limit is not None]
        if not limits:
            return [], [], {}
        left, right, cosines = pairs(indicators, min(limits))
        together: list[tuple[int, int]] = []
        others: list[tuple[int, int]] = []
        nearest: dict[int, tuple[int, float]] = {}
        for i, j, cosine in zip(left.tolist(), right.tolist(), cosines.tolist(), strict=True):  # by falling cosine
            nearest.setdefault(i, (j, cosine))
            nearest.setdefault(j, (i, cosine))
            one = same is not None and cosine >= same and (i, j) not in apart
            (together if one else others).append((i, j))
        return together, others, nearest

    def _shared(
        self, tables: Mapping[str, pa.Table], index: Mapping[str, int], canonical: np.ndarray, lost: set[int]
    ) -> tuple[dict[int, int], dict[int, set[str]]]:
        """Of each person, how many kept pictures somebody else has too, and the faces that are dropped for it."""
        clusters = tables["clusters"]
        clusters = clusters.filter(pc.and_(pc.equal(clusters["status"], "ok"), pc.fill_null(clusters["keep"], False)))
        images = tables["images"]
        where = pc.index_in(clusters["image_id"], value_set=images["image_id"].combine_chunks())
        phash, sha256 = images["phash"].take(where), images["sha256"].take(where)
        known = np.asarray(pc.is_valid(phash)) & np.asarray(pc.is_in(clusters["identity_id"], value_set=pa.array(list(index), pa.string())))
        rows = np.flatnonzero(known)
        person = np.array([index[name] for name in clusters["identity_id"].take(rows).to_pylist()], np.int64)
        faces = clusters["face_id"].take(rows).to_pylist()
        digests = pc.fill_null(sha256.take(rows), "").to_pylist()
        order = np.lexsort((np.array(faces), person)) if len(faces) else np.zeros(0, np.int64)
        hashes = phash.take(rows).to_numpy().astype(np.uint64)[order]
        left, right, _ = near(hashes, self.params.phash_bits)
        # A flat or empty picture has a hash that many have: only pictures with something in them can be told to be one.
        telling = np.array([8 <= int(value).bit_count() <= 56 for value in hashes.tolist()], bool)
        pictures = _Union(len(order))
        for i, j in zip(left.tolist(), right.tolist(), strict=True):
            if telling[i] or digests[order[i]] == digests[order[j]] != "":
                pictures.join(i, j)
        shared: dict[int, int] = {}
        dropped: dict[int, set[str]] = {}
        for members in pictures.groups():
            owners = [int(person[order[i]]) for i in members]
            counted = [owner for owner in owners if owner not in lost]
            if len({int(canonical[owner]) for owner in counted}) > 1:
                for i, owner in zip(members, owners, strict=True):
                    if owner not in lost:
                        shared[owner] = shared.get(owner, 0) + 1
                        if self.params.shared == "drop":
                            dropped.setdefault(owner, set()).add(faces[order[i]])
            elif len(set(counted)) > 1:
                # One person under two names: the copy of the canonical name stays, else the first.
                stays = min(range(len(members)), key=lambda n: (owners[n] in lost, owners[n] != canonical[owners[n]], n))
                for n, (i, owner) in enumerate(zip(members, owners, strict=True)):
                    if n != stays and owner != owners[stays]:
                        dropped.setdefault(owner, set()).add(faces[order[i]])
        return shared, dropped


def _by_hand(overrides: pa.Table | None, index: Mapping[str, int]) -> tuple[list[tuple[int, int]], set[tuple[int, int]]]:
    """Pairs that somebody merged and pairs that somebody set apart; people who are not here (any more) count for nothing."""
    merged, apart = [], set()
    for row in overrides.to_pylist() if overrides is not None else ():
        left, right = index.get(row["identity_id"]), index.get(row["target"] or "")
        if left is None or right is None or left == right:
            continue
        if row["action"] == "merge":
            merged.append((left, right))
        elif row["action"] == "apart":
            apart |= {(left, right), (right, left)}
    return merged, apart


def _beaten(together: Iterable[tuple[int, int]], kept: np.ndarray, canonical: np.ndarray) -> set[int]:
    """Of names that are one person, all but the one with most pictures; those that a hand merged stand for one another."""
    union = _Union(len(kept))
    for left, right in together:
        union.join(left, right)
    best = union.best(kept)
    return {place for place in range(len(kept)) if best[place] != place and canonical[place] != canonical[best[place]]}


class _Union:
    """Disjoint sets of 0 ... n-1."""

    def __init__(self, count: int) -> None:
        self.parent = list(range(count))

    def root(self, one: int) -> int:
        while self.parent[one] != one:
            self.parent[one] = self.parent[self.parent[one]]
            one = self.parent[one]
        return one

    def join(self, left: int, right: int) -> None:
        first, second = sorted((self.root(left), self.root(right)))
        self.parent[second] = first

    def would_unite(self, left: int, right: int, apart: Iterable[tuple[int, int]]) -> bool:
        """Whether joining these two would bring two together that are to stay apart."""
        both = {self.root(left), self.root(right)}
        return any({self.root(one), self.root(other)} == both for one, other in apart)

    def groups(self) -> list[list[int]]:
        """Sets of two or more, members rising."""
        found: dict[int, list[int]] = {}
        for one in range(len(self.parent)):
            found.setdefault(self.root(one), []).append(one)
        return [members for members in found.values() if len(members) > 1]

    def members(self, one: int) -> list[int]:
        """The set that `one` is in; looked up in a list that is made once."""
        if not hasattr(self, "_sets"):
            self._sets: dict[int, list[int]] = {self.root(group[0]): group for group in self.groups()}
        return self._sets.get(self.root(one), [one])

    def best(self, weight: Any) -> np.ndarray:
        """For each, the member of its set with the largest weight; the first of equals."""
        found = np.arange(len(self.parent))
        for members in self.groups():
            best = max(members, key=lambda one: (weight[one], -one))
            found[members] = best
        return found
