"""The summary by person: counts and flags that tell a data team whom to look at."""

from typing import Any

import numpy as np
import pyarrow as pa

from schemas import TABLES
from stages.clean.indicator import normalised
from stages.people import summary
from stages.people.summary import SummaryPeople

NO_SERVICES: Any = None  # this stage asks nothing of the outside


def face(
    identity: str, image: str, cluster: int, keep: bool, vector: list[float], **more: Any
) -> dict[str, Any]:
    return {
        "identity_id": identity,
        "image_id": image,
        "face_id": f"{identity}-{image}-{cluster}",
        "clusters.status": "ok" if keep else "filtered",
        "clusters.keep": keep,
        "clusters.cluster": cluster,
        "clusters.duplicate_of": None,
        "clusters.reason": None,
        "clusters.margin": None,
        "candidates.reference": None,
        "embeddings.vector": vector,
        "embeddings.status": "ok",
        **more,
    }


def table(rows: list[dict[str, Any]]) -> pa.Table:
    kinds = {
        "embeddings.vector": pa.list_(pa.float32()),
        "clusters.keep": pa.bool_(),
        "clusters.cluster": pa.int32(),
    }
    kinds["clusters.margin"] = pa.float32()
    return pa.table(
        {
            name: pa.array([row[name] for row in rows], kinds.get(name, pa.string()))
            for name in rows[0]
        }
    )


def run(rows: pa.Table, **params: Any) -> pa.Table:
    stage = SummaryPeople(params)
    return stage.run(rows.filter(stage.wants(rows)), {}, NO_SERVICES)


def flags(rows: list[dict[str, Any]], **params: Any) -> list[str]:
    found: list[str] = run(table(rows), **params)["flags"].to_pylist()[0]
    return found


def shots(count: int, cluster: int, start: int = 0) -> list[dict[str, Any]]:
    return [
        face("a", f"i{at}", cluster, cluster == 0, [1.0, 0.0]) for at in range(start, start + count)
    ]


def test_counts_indicator_and_schema() -> None:
    rows = [
        face("b", "i1", 0, True, [1.0, 0.0]),
        face("a", "i1", 0, True, [0.0, 1.0]),
        face("b", "i2", 0, True, [0.0, 1.0]),
        face("b", "i2", 1, False, [-1.0, 0.0]),
        face("c", "i1", 0, False, [1.0, 0.0]),
    ]
    found = run(table(rows))
    full = found.append_column("inputs", pa.array([b"12345678"] * 3, pa.binary(8)))
    TABLES["people"].check(full.select(TABLES["people"].names), "test")
    a, b, c = found.to_pylist()
    assert (b["images"], b["faces"], b["kept"], b["status"]) == (2, 3, 2, "ok")
    np.testing.assert_allclose(b["indicator"], np.sqrt([0.5, 0.5]), rtol=1e-6)
    assert (b["clusters"], b["largest"], b["second"], b["duplicates"]) == (2, 2, 0, 0)
    assert a["silhouette"] is None and -1 <= b["silhouette"] <= 1
    assert a["identity_id"] == "a" and a["indicator"] == [0.0, 1.0]
    assert (c["status"], c["reason"], c["kept"], c["indicator"]) == (
        "filtered",
        "nobody_kept",
        0,
        None,
    )


def test_faces_that_cleaning_left_out_are_counted() -> None:
    """Were only kept faces wanted, no person could ever have a weak majority or nobody kept."""
    rows = table(
        [
            face("a", "i1", 0, True, [1.0]),
            face("a", "i2", 1, False, [1.0]),
            face("a", "i3", 1, False, [1.0]),
        ]
    )
    rows = rows.set_column(
        rows.column_names.index("clusters.status"),
        "clusters.status",
        pa.array(["ok", "filtered", "failed"]),
    )
    assert SummaryPeople().wants(rows).to_pylist() == [True, True, False]


def test_flags() -> None:
    assert flags(shots(10, 0)) == []
    assert flags(shots(2, 0)) == ["few_images"]
    assert flags(shots(2, 0), min_kept=2) == []
    assert flags(shots(10, 0) + shots(6, 1, start=10)) == ["second_cluster"]
    assert flags(shots(10, 0) + shots(5, 1, start=10)) == []
    assert flags(shots(10, 0) + shots(5, 1, start=10), namesake_share=0.5) == ["second_cluster"]
    assert flags(
        shots(4, 0) + [shot for at in range(1, 6) for shot in shots(1, at, start=3 + at)]
    ) == ["weak_majority"]


def test_who_stands_beside_the_person_is_no_namesake() -> None:
    assert flags(shots(10, 0) + shots(10, 1)) == []


def test_order_and_blocks_do_not_change_a_bit(monkeypatch: Any) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for at in range(300):
        vector = normalised(rng.standard_normal(16)).tolist()
        copy = {"clusters.duplicate_of": "another" if at % 9 == 0 else None}
        rows.append(
            face(
                f"p{rng.integers(12):02d}",
                f"i{at:03d}",
                int(rng.integers(3)),
                bool(rng.random() < 0.7),
                vector,
                **copy,
            )
        )
    whole = table(rows)
    found = run(whole)
    pieces = pa.concat_tables(
        [whole.take(pa.array(part)) for part in np.array_split(rng.permutation(300), 7)]
    )
    monkeypatch.setattr(summary, "_BLOCK", 10)
    assert run(pieces).combine_chunks().equals(found.combine_chunks())

    # And it is what a plain loop over people gives.
    for row in found.to_pylist():
        own = sorted(
            (r for r in rows if r["identity_id"] == row["identity_id"]), key=lambda r: r["face_id"]
        )
        kept = np.array([r["clusters.keep"] for r in own])
        vectors = np.array([r["embeddings.vector"] for r in own], dtype=np.float32).astype(
            np.float64
        )
        expected = normalised(vectors[kept].cumsum(axis=0)[-1])
        np.testing.assert_array_equal(
            np.array(row["indicator"], dtype=np.float32), expected.astype(np.float32)
        )
        assert row["images"] == len({r["image_id"] for r in own}) and row["kept"] == kept.sum()


def test_copies_are_no_pictures_of_their_own() -> None:
    """A stranger's image that is all over the web would be flagged as a namesake, and hide a weak
    majority.
    """
    copies = [{**shot, "clusters.duplicate_of": "x"} for shot in shots(8, 1, start=11)]
    assert flags(shots(10, 0) + shots(1, 1, start=10) + copies) == []
    found = run(table(shots(10, 0) + shots(1, 1, start=10) + copies)).to_pylist()[0]
    assert (
        found["images"],
        found["faces"],
        found["duplicates"],
        found["largest"],
        found["second"],
    ) == (19, 19, 8, 10, 1)


def test_faces_that_were_rejected_or_broken_are_counted_and_nothing_else() -> None:
    nan = float("nan")
    rows = [*shots(4, 0), {**face("a", "i9", 1, False, [nan, nan]), "clusters.cluster": None}]
    found = run(table(rows)).to_pylist()[0]
    assert (
        found["images"],
        found["faces"],
        found["kept"],
        found["largest"],
        found["clusters"],
    ) == (5, 5, 4, 4, 1)
    assert found["indicator"] == [1.0, 0.0] and found["flags"] == [] and found["silhouette"] is None


def test_no_rows() -> None:
    assert run(table([face("a", "i1", 0, True, [1.0])]).slice(0, 0)).num_rows == 0


def test_a_near_tie_shows_both() -> None:
    """Whoever reviews it has to see between whom."""
    tied = {"clusters.reason": "near_tie", "clusters.margin": 0.9}
    rows = [face("a", f"i{at}", 0, False, [1.0, 0.0], **tied) for at in range(10)]
    rows += [face("a", f"i{at}", 1, False, [0.0, 1.0], **tied) for at in range(10, 19)]
    rows += [
        face(
            "a",
            "i19",
            2,
            False,
            [-1.0, 0.0],
            **{"clusters.reason": "other_cluster", "clusters.margin": 0.9},
        )
    ]
    [found] = run(table(rows)).to_pylist()
    assert (found["status"], found["reason"], found["kept"]) == ("filtered", "near_tie", 0)
    assert (found["indicator"], found["second_indicator"]) == ([1.0, 0.0], [0.0, 1.0])
    assert "near_tie" in found["flags"] and found["margin"] == np.float32(0.9)
    [plain] = run(table(shots(5, 0))).to_pylist()
    assert (
        plain["margin"] is None
        and plain["second_indicator"] is None
        and "near_tie" not in plain["flags"]
    )


def test_what_became_of_a_reference_is_told() -> None:
    other, mine = {"candidates.reference": "no"}, {"candidates.reference": "yes"}
    rest = [face("a", f"i{at}", 0, True, [1.0, 0.0], **other) for at in range(4)]
    assert flags(rest) == ["reference_missing"]
    assert flags([*rest, face("a", "r", 0, True, [1.0, 0.0], **mine)]) == []
    lost = [face("a", f"i{at}", 1, False, [0.0, 1.0], **other) for at in range(4)]
    assert "reference_alone" in flags([*lost, face("a", "r", 0, True, [1.0, 0.0], **mine)])
