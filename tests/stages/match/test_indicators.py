"""Who is whom across a dataset."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from schemas import TABLES
from stages.match.indicators import IndicatorMatch

Row = dict[str, Any]


def person(letter: str) -> str:
    return letter * 16


def unit(*values: float) -> list[float]:
    vector = np.array([*values, *[0.0] * (8 - len(values))])
    return [float(x) for x in (vector / np.linalg.norm(vector)).astype(np.float32)]


def match(
    indicators: Mapping[str, tuple[list[float], int]],
    pictures: Sequence[tuple[str, int, int | None]] = (),
    overrides: Sequence[tuple[str, str, str]] = (),
    boxes: Mapping[str, tuple[float, float, float, float]] | None = None,
    **params: Any,
) -> dict[str, Row]:
    """Rows of `matches` by letter. `indicators`: vector and kept faces; `pictures`: person, number,
    perceptual hash; `boxes`: of the faces in somebody's images, of 100 x 100 pixels.
    """
    people = [
        {
            "identity_id": person(name),
            "indicator": vector,
            "kept": kept,
            "status": "ok" if kept else "filtered",
        }
        for name, (vector, kept) in indicators.items()
    ]
    images, clusters, faces = [], [], []
    for name, number, phash in pictures:
        ids = {"identity_id": person(name), "image_id": f"{name}{number:023d}"}
        images.append(
            {
                **ids,
                "sha256": f"{phash}",
                "phash": phash,
                "width": 100,
                "height": 100,
                "status": "ok",
            }
        )
        box = list((boxes or {}).get(name, (10.0, 10.0, 40.0, 40.0)))
        faces.append({**ids, "face_id": f"{name}{number:022d}f", "box": box, "status": "ok"})
        clusters.append({**ids, "face_id": f"{name}{number:022d}f", "keep": True, "status": "ok"})

    def table(name: str, rows: list[Row], columns: list[str]) -> pa.Table:
        fields = [TABLES[name].arrow.field(column) for column in columns]
        return pa.Table.from_pylist(
            rows, schema=pa.schema([field.with_nullable(True) for field in fields])
        )

    tables = {
        "people": table("people", people, ["identity_id", "indicator", "kept", "status"]),
        "images": table(
            "images",
            images,
            ["identity_id", "image_id", "sha256", "phash", "width", "height", "status"],
        ),
        "faces": table("faces", faces, ["identity_id", "image_id", "face_id", "box", "status"]),
        "clusters": table(
            "clusters", clusters, ["identity_id", "image_id", "face_id", "keep", "status"]
        ),
    }
    if overrides:
        by_hand = [
            {"identity_id": person(a), "action": action, "target": person(b), "status": "ok"}
            for a, action, b in overrides
        ]
        tables["overrides"] = table(
            "overrides", by_hand, ["identity_id", "action", "target", "status"]
        )
    stage = IndicatorMatch({"same_cosine": 0.9, "near_cosine": 0.5, **params})
    rows = stage.run_whole(tables).to_pylist()
    assert [row["identity_id"] for row in rows] == sorted(row["identity_id"] for row in rows)
    return {row["identity_id"][0]: row for row in rows}


TWO = {"a": (unit(1, 0.1), 5), "b": (unit(1, 0.2), 9), "c": (unit(0, 0, 1), 5)}
SISTERS = {"a": (unit(1, 0), 5), "b": (unit(1, 1), 9), "c": (unit(0, 0, 1), 5)}


def test_two_names_of_one_person_become_the_one_with_more_pictures() -> None:
    found = match(TWO)
    assert [found[name]["same_as"][0] for name in "abc"] == ["b", "b", "c"]
    assert found["a"]["flags"] == found["b"]["flags"] == ["merged"]
    assert found["a"]["nearest"] == person("b")
    assert found["a"]["nearest_cosine"] == pytest.approx(
        float(np.dot(unit(1, 0.1), unit(1, 0.2))), abs=1e-6
    )
    assert found["c"] == {
        **found["c"],
        "nearest": None,
        "flags": [],
        "status": "ok",
        "kin": person("c"),
    }


def test_sisters_stay_two_and_on_one_side_of_a_split() -> None:
    found = match(SISTERS)
    assert [found[name]["same_as"][0] for name in "abc"] == ["a", "b", "c"]
    assert [found[name]["kin"][0] for name in "abc"] == ["a", "a", "c"]
    assert found["a"]["flags"] == ["near_person"]


def test_the_rule_says_what_becomes_of_two_names() -> None:
    dropped = match(TWO, same="drop")
    assert (dropped["a"]["status"], dropped["a"]["reason"], dropped["b"]["status"]) == (
        "filtered",
        "same_person",
        "ok",
    )
    assert dropped["a"]["flags"] == ["dropped"]
    reported = match(TWO, same="report")
    assert [reported[name]["same_as"][0] for name in "ab"] == ["a", "b"]
    assert "same_person" in reported["a"]["flags"]
    assert reported["a"]["status"] == "ok"


def test_without_limits_nobody_is_anybody_else() -> None:
    found = match(TWO, same_cosine=None, near_cosine=None)
    assert all(row["same_as"] == row["identity_id"] == row["kin"] for row in found.values())


def test_a_hand_merges_and_sets_apart_and_wins() -> None:
    assert match(SISTERS, overrides=[("a", "merge", "c")])["a"]["same_as"] == person("a")
    assert match(SISTERS, overrides=[("a", "merge", "c")])["c"]["same_as"] == person("a")
    apart = match(TWO, overrides=[("b", "apart", "a")])
    assert [apart[name]["same_as"][0] for name in "ab"] == ["a", "b"]
    assert apart["a"]["kin"] == apart["b"]["kin"]
    # A third name that is like both does not bring them together again.
    three = {**TWO, "d": (unit(1, 0.15), 1)}
    found = match(three, overrides=[("a", "apart", "b")])
    assert found["a"]["same_as"] != found["b"]["same_as"]
    assert found["d"]["same_as"] in (found["a"]["same_as"], found["b"]["same_as"])
    # Whoever is not in the dataset any more is nobody.
    assert match(TWO, overrides=[("a", "merge", "z")])["c"]["same_as"] == person("c")


PHASH = 0x0F0F_3C3C_5A5A_9966


def test_a_picture_under_two_names_is_nobodys() -> None:
    found = match(
        SISTERS,
        [
            ("a", 1, PHASH),
            ("c", 1, PHASH ^ 0b101),
            ("a", 2, PHASH ^ (2**40 - 1)),
            ("b", 3, 2**63 + 99),
        ],
    )
    assert found["a"]["dropped_faces"] == ["a" + "0" * 21 + "1f"]
    assert found["c"]["dropped_faces"] == ["c" + "0" * 21 + "1f"]
    assert (found["a"]["shared"], found["b"]["shared"], found["c"]["shared"]) == (1, 0, 1)
    assert "shared_pictures" in found["c"]["flags"]
    kept = match(SISTERS, [("a", 1, PHASH), ("c", 1, PHASH)], shared="report")
    assert kept["a"]["dropped_faces"] == []
    assert kept["a"]["shared"] == 1


def test_a_picture_of_two_people_stays_with_both() -> None:
    """A wedding photograph under both names: each has a face of their own in it."""
    pictures = [("a", 1, PHASH), ("c", 1, PHASH)]
    both = match(SISTERS, pictures, boxes={"a": (10, 10, 40, 40), "c": (50, 10, 80, 40)})
    assert (
        both["a"]["dropped_faces"] == both["c"]["dropped_faces"] == [] and both["a"]["shared"] == 0
    )
    assert "shared_pictures" not in both["a"]["flags"]
    one = match(SISTERS, pictures, boxes={"a": (10, 10, 40, 40), "c": (12, 11, 41, 42)})
    assert one["a"]["dropped_faces"] and one["c"]["dropped_faces"], (
        "the same face under two names is nobody's"
    )
    three = match(
        SISTERS,
        [*pictures, ("b", 1, PHASH)],
        boxes={"a": (10, 10, 40, 40), "b": (11, 10, 41, 40), "c": (50, 10, 80, 40)},
    )
    assert (
        three["a"]["dropped_faces"]
        and three["b"]["dropped_faces"]
        and not three["c"]["dropped_faces"]
    )


def test_who_may_be_one_person_is_proposed() -> None:
    found = match(SISTERS, propose_cosine=0.7)
    assert (
        "maybe_same" in found["a"]["flags"]
        and "maybe_same" in found["b"]["flags"]
        and "maybe_same" not in found["c"]["flags"]
    )
    assert found["a"]["nearest"] == person("b") and found["a"]["same_as"] == person("a"), (
        "proposed, not done"
    )
    assert "maybe_same" not in match(SISTERS)["a"]["flags"]
    assert (
        "maybe_same"
        not in match(SISTERS, overrides=[("a", "apart", "b")], propose_cosine=0.7)["a"]["flags"]
    ), "somebody looked"
    assert "maybe_same" not in match(TWO, propose_cosine=0.7)["a"]["flags"], (
        "who was merged is not proposed"
    )


def test_of_a_merged_persons_picture_one_copy_stays() -> None:
    found = match(TWO, [("a", 1, PHASH), ("b", 1, PHASH), ("b", 2, PHASH ^ 1)])
    assert found["a"]["dropped_faces"] == ["a" + "0" * 21 + "1f"]
    assert found["b"]["dropped_faces"] == []
    assert found["a"]["shared"] == found["b"]["shared"] == 0


def test_pictures_of_somebody_who_is_dropped_take_nothing_from_others() -> None:
    found = match(TWO, [("a", 1, PHASH), ("b", 1, PHASH)], same="drop")
    assert found["b"]["dropped_faces"] == []


def test_flat_pictures_are_not_one_picture() -> None:
    assert match(SISTERS, [("a", 1, 0), ("c", 1, 1)])["a"]["dropped_faces"] == []
    assert (
        match(SISTERS, [("a", 1, 0), ("c", 1, 0)])["a"]["dropped_faces"] != []
    )  # but the same bytes are


def test_people_without_an_indicator_and_pictures_without_a_hash_are_left_out() -> None:
    found = match({**SISTERS, "e": (unit(1), 0)}, [("a", 1, None), ("c", 1, None), ("e", 1, PHASH)])
    assert set(found) == set("abc")
    assert found["a"]["dropped_faces"] == []
    assert match({}) == {}
