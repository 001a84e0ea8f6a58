"""Compare all people of a dataset: the same person under two names, and the same image under two
people's names.

Rows never move. Two names that are one person get the same canonical identity; views and shards go
by that. People who are near one another without being the same (relatives, lookalikes) come into
one group, whose members belong on the same side of a split.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from schemas.columns import vectors
from stages.people.matches import near, pairs
from stages.stage import Calibrated, Grain, Params, Stage

SAME_FACE = 0.3
"""Overlap (intersection over union) of two boxes in one image from which they are of one face."""


class IndicatorMatchParams(Params):
    """Parameters of `IndicatorMatch`; cosines are in the scale of the recogniser. The pipeline
    fills in calibrated ones.
    """

    same_cosine: float | None = Field(None, ge=-1, le=1)
    """Least cosine between the indicators of two names that are one person. None: no two are."""
    propose_cosine: float | None = Field(None, ge=-1, le=1)
    """Least cosine between the indicators of two names that may be one person and are flagged for
    somebody to look. None: as same_cosine.
    """
    near_cosine: float | None = Field(None, ge=-1, le=1)
    """Least cosine between the indicators of people who stay on one side of a split. None: as
    same_cosine.
    """
    same: Literal["merge", "drop", "report"] = "merge"
    """What becomes of two names that are one person: one person, only the one with more images,
    or two with a flag.
    """
    shared: Literal["drop", "report"] = "drop"
    """What becomes of a kept face that is kept under another person's name as well: it is nobody's,
    or stays with a flag. An image of two people stays with both, each with a face of their own. Of
    people who were merged, one copy stays.
    """
    phash_bits: int = Field(3, ge=0, le=8)
    """Bits in which the perceptual hashes of one image may differ."""


class IndicatorMatch(Stage):
    """One row of `matches` a person who has an indicator. Decisions by hand (`overrides`: merge,
    apart) win over cosines.

    Flags: `merged`; `same_person`, would have been with `same: merge`; `maybe_same`, somebody
    should look whether `nearest` is this person; `dropped`; `near_person`; `shared_pictures`, a
    face is kept under another name as well.
    """

    name: ClassVar[str] = "match"
    backend: ClassVar[str] = "indicators"
    grain: ClassVar[Grain] = "root"
    parent: ClassVar[str] = "people"
    code_version: ClassVar[int] = 2
    Parameters: ClassVar[type[Params]] = IndicatorMatchParams
    reads: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "people": ("indicator", "kept"),
        "clusters": ("keep",),
        "faces": ("box",),
        "images": ("sha256", "phash", "width", "height"),
        "overrides": ("action", "target"),
    }
    optional: ClassVar[frozenset[str]] = frozenset({"overrides"})
    calibrated: ClassVar[Mapping[str, Calibrated]] = dict.fromkeys(
        ("same_cosine", "propose_cosine", "near_cosine"), Calibrated(shipped=False)
    )

    def run_whole(self, tables: Mapping[str, pa.Table]) -> pa.Table:
        """Rows of `matches` without the column `inputs`, by identity_id.

        `tables`: all rows of the tables in `reads`, with ids, status and the columns named there.
        """
        params: IndicatorMatchParams = self.params
        people = (
            tables["people"]
            .filter(pc.equal(tables["people"]["status"], "ok"))
            .sort_by("identity_id")
        )
        names: list[str] = people["identity_id"].to_pylist()
        index = {name: place for place, name in enumerate(names)}
        kept = pc.fill_null(people["kept"], 0).to_numpy()
        merged, apart = _by_hand(tables.get("overrides"), index)
        together, close, proposed, nearest = self._compare(
            vectors(people["indicator"]) if names else np.zeros((0, 1), np.float32), apart
        )

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
        doubtful = {
            place for pair in proposed if canonical[pair[0]] != canonical[pair[1]] for place in pair
        } - lost
        reported = (
            {place for pair in together for place in pair} if params.same == "report" else set()
        )
        rows = []
        for place, name in enumerate(names):
            other, cosine = nearest.get(place, (None, None))
            marks = {
                "merged": canonical[place] != place
                or any(
                    canonical[other] == place for other in same.members(place) if other != place
                ),
                "same_person": place in reported,
                "maybe_same": place in doubtful and place not in reported,
                "dropped": place in lost,
                "near_person": other is not None
                and canonical[other] != canonical[place]
                and place not in lost,
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
                    "detail": f"is {names[canonical[place]]} with fewer images"
                    if place in lost
                    else None,
                }
            )
        return self.build(rows)

    def _compare(
        self, indicators: np.ndarray, apart: set[tuple[int, int]]
    ) -> tuple[
        list[tuple[int, int]],
        list[tuple[int, int]],
        set[tuple[int, int]],
        dict[int, tuple[int, float]],
    ]:
        """Pairs that are one person, further pairs that are near, those of both that somebody
        should look at, and of each person in a pair the nearest one with the cosine.
        """
        same, close = self.params.same_cosine, self.params.near_cosine
        propose = same if self.params.propose_cosine is None else self.params.propose_cosine
        limits = [limit for limit in (same, propose, close) if limit is not None]
        if not limits:
            return [], [], set(), {}
        left, right, cosines = pairs(indicators, min(limits))
        together: list[tuple[int, int]] = []
        others: list[tuple[int, int]] = []
        proposed: set[tuple[int, int]] = set()
        nearest: dict[int, tuple[int, float]] = {}
        for i, j, cosine in zip(
            left.tolist(), right.tolist(), cosines.tolist(), strict=True
        ):  # by falling cosine
            nearest.setdefault(i, (j, cosine))
            nearest.setdefault(j, (i, cosine))
            one = same is not None and cosine >= same and (i, j) not in apart
            (together if one else others).append((i, j))
            if propose is not None and cosine >= propose and (i, j) not in apart:
                proposed.add((i, j))
        return together, others, proposed, nearest

    def _shared(
        self,
        tables: Mapping[str, pa.Table],
        index: Mapping[str, int],
        canonical: np.ndarray,
        lost: set[int],
    ) -> tuple[dict[int, int], dict[int, set[str]]]:
        """Of each person, how many kept faces somebody else has too, and the faces that are dropped
        for it.
        """
        clusters = tables["clusters"]
        clusters = clusters.filter(
            pc.and_(pc.equal(clusters["status"], "ok"), pc.fill_null(clusters["keep"], False))
        )
        images = tables["images"]
        where = pc.index_in(clusters["image_id"], value_set=images["image_id"].combine_chunks())
        phash, sha256 = images["phash"].take(where), images["sha256"].take(where)
        known = np.asarray(pc.is_valid(phash)) & np.asarray(
            pc.is_in(clusters["identity_id"], value_set=pa.array(list(index), pa.string()))
        )
        rows = np.flatnonzero(known)
        person = np.array(
            [index[name] for name in clusters["identity_id"].take(rows).to_pylist()], np.int64
        )
        faces = clusters["face_id"].take(rows).to_pylist()
        digests = pc.fill_null(sha256.take(rows), "").to_pylist()
        order = np.lexsort((np.array(faces), person)) if len(faces) else np.zeros(0, np.int64)
        hashes = phash.take(rows).to_numpy().astype(np.uint64)[order]
        left, right, _ = near(hashes, self.params.phash_bits)
        # A flat or empty image has a hash that many have: only images with something in them
        # can be told to be one.
        telling = np.array([8 <= int(value).bit_count() <= 56 for value in hashes.tolist()], bool)
        pictures = _Union(len(order))
        for i, j in zip(left.tolist(), right.tolist(), strict=True):
            if telling[i] or digests[order[i]] == digests[order[j]] != "":
                pictures.join(i, j)
        groups = pictures.groups()
        boxes = _Boxes(tables, {faces[order[i]] for members in groups for i in members})
        shared: dict[int, int] = {}
        dropped: dict[int, set[str]] = {}
        for members in groups:
            owners = {
                i: int(person[order[i]]) for i in members if int(person[order[i]]) not in lost
            }
            for i, owner in owners.items():
                others = [n for n in owners if canonical[owners[n]] != canonical[owner]]
                if any(boxes.same(faces[order[i]], faces[order[n]]) for n in others):
                    shared[owner] = shared.get(owner, 0) + 1
                    if self.params.shared == "drop":
                        dropped.setdefault(owner, set()).add(faces[order[i]])
            for one in {int(canonical[owner]) for owner in owners.values()}:
                mine = [i for i, owner in owners.items() if canonical[owner] == one]
                # One person under two names: the copy of the canonical name stays, else the first.
                stays = min(mine, key=lambda i: (owners[i] != one, i))
                for i in mine:
                    if owners[i] != owners[stays]:
                        dropped.setdefault(owners[i], set()).add(faces[order[i]])
        return shared, dropped


class _Boxes:
    """Where faces are in their images, in shares of width and height, so that it holds in every
    size of an image.
    """

    def __init__(self, tables: Mapping[str, pa.Table], wanted: set[str]) -> None:
        faces, images = tables["faces"], tables["images"]
        faces = faces.filter(
            pc.is_in(faces["face_id"], value_set=pa.array(sorted(wanted), pa.string()))
        )
        where = pc.index_in(faces["image_id"], value_set=images["image_id"].combine_chunks())
        sizes = zip(
            images["width"].take(where).to_pylist(),
            images["height"].take(where).to_pylist(),
            strict=True,
        )
        self._boxes: dict[str, tuple[float, ...]] = {}
        for face, box, (width, height) in zip(
            faces["face_id"].to_pylist(), faces["box"].to_pylist(), sizes, strict=True
        ):
            if box is not None and width and height:
                self._boxes[face] = (
                    box[0] / width,
                    box[1] / height,
                    box[2] / width,
                    box[3] / height,
                )

    def same(self, one: str, other: str) -> bool:
        """Whether two faces in copies of one image are one face, as far as anybody knows."""
        first, second = self._boxes.get(one), self._boxes.get(other)
        return first is None or second is None or _overlap(first, second) >= SAME_FACE


def _overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """Intersection over union of two boxes x1, y1, x2, y2."""
    across = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    inside = across * max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    both = (
        (one[2] - one[0]) * (one[3] - one[1])
        + (other[2] - other[0]) * (other[3] - other[1])
        - inside
    )
    return inside / both if both > 0 else 1.0


def _by_hand(
    overrides: pa.Table | None, index: Mapping[str, int]
) -> tuple[list[tuple[int, int]], set[tuple[int, int]]]:
    """Pairs that somebody merged and pairs that somebody set apart; people who are not here (any
    more) count for nothing.
    """
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


def _beaten(
    together: Iterable[tuple[int, int]], kept: np.ndarray, canonical: np.ndarray
) -> set[int]:
    """Of names that are one person, all but the one with most images; those that a hand merged
    stand for one another.
    """
    union = _Union(len(kept))
    for left, right in together:
        union.join(left, right)
    best = union.best(kept)
    return {
        place
        for place in range(len(kept))
        if best[place] != place and canonical[place] != canonical[best[place]]
    }


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
            self._sets: dict[int, list[int]] = {
                self.root(group[0]): group for group in self.groups()
            }
        return self._sets.get(self.root(one), [one])

    def best(self, weight: Any) -> np.ndarray:
        """For each, the member of its set with the largest weight; the first of equals."""
        found = np.arange(len(self.parent))
        for members in self.groups():
            best = max(members, key=lambda one: (weight[one], -one))
            found[members] = best
        return found
