"""Wanted against done: what is computed again, what is kept, and what must not make a
difference.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.execution.reconcile import (
    Wanted,
    join,
    ordered,
    reconcile,
    row_digests,
    unit_column,
    wanted,
)
from schemas import TABLES
from schemas.schema import Column, TableSchema
from stages.backends import BACKENDS
from stages.stage import Grain, Params, Stage

FLOATS = pa.list_(pa.float32())


def digests(values: Sequence[Any], type: pa.DataType) -> list[bytes]:
    return row_digests(pa.table({"a": pa.array(values, type)}), ["a"])


# the hash of a row

TYPES: dict[str, tuple[pa.DataType, list[Any]]] = {
    "text": (pa.string(), [None, "", "a", "b", "ab", "\0", "a\0", "0", "None"]),
    "bytes": (pa.binary(), [None, b"", b"\0", b"\1", b"\0\0"]),
    "large bytes": (pa.large_binary(), [None, b"", b"\0", b"\1", b"\0\0"]),
    "digest": (pa.binary(2), [None, b"\0\0", b"\0\1"]),
    "int": (pa.int32(), [None, 0, 1, -1, 256]),
    "hash": (pa.uint64(), [None, 0, 1, 2**63, 2**64 - 1]),
    "float": (pa.float32(), [None, 0.0, 1.0, float("nan"), float("inf"), 1e-30]),
    "bool": (pa.bool_(), [None, False, True]),
    "time": (pa.timestamp("us", tz="UTC"), [None, 0, 1, -1]),
    "floats": (
        FLOATS,
        [
            None,
            [],
            [0.0],
            [0.0, 0.0],
            [1.0],
            [None],
            [0.0, None],
            [None, 0.0],
            [None] * 4,
            [0.0] * 5,
        ],
    ),
    "ints": (pa.list_(pa.int32()), [None, [], [0], [0, 0], [256], [None], [1, 2, 3]]),
    "bools": (pa.list_(pa.bool_()), [None, [], [False], [True], [None], [False, False]]),
    "texts": (
        pa.list_(pa.string()),
        [None, [], [""], ["", ""], ["a", "b"], ["ab"], ["a', 'b"], [None]],
    ),
    "map": (
        pa.map_(pa.string(), pa.string()),
        [None, [], [("a", "b")], [("a", None)], [("a", "b"), ("c", "d")]],
    ),
}


@pytest.mark.parametrize("kind", TYPES)
def test_null_empty_and_zero_are_three_values(kind: str) -> None:
    """A landmark that was not found and one at zero would count as unchanged."""
    type, values = TYPES[kind]
    found = digests(values, type)
    assert len(set(found)) == len(values) and all(len(digest) == 8 for digest in found)


@pytest.mark.parametrize("kind", TYPES)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_a_row_is_hashed_for_itself(kind: str, data: st.DataObject) -> None:
    """A row would be computed again because of its neighbours, its place or the way that Arrow
    keeps it in memory.
    """
    type, values = TYPES[kind]
    alone = {repr(value): digests([value], type)[0] for value in values}
    chosen = data.draw(st.lists(st.sampled_from(values), min_size=1, max_size=12))
    expected = [alone[repr(value)] for value in chosen]
    array = pa.array(chosen, type)
    table = pa.table({"a": array})
    start = data.draw(st.integers(0, len(chosen)))
    stop = data.draw(st.integers(start, len(chosen)))
    assert row_digests(table, ["a"]) == expected
    assert row_digests(table.slice(start, stop - start), ["a"]) == expected[start:stop]
    assert (
        row_digests(pa.table({"a": array.slice(start, stop - start)}), ["a"])
        == expected[start:stop]
    )
    pieces = pa.chunked_array([array.slice(start), array.slice(0, start)], type)
    assert row_digests(pa.table({"a": pieces}), ["a"]) == expected[start:] + expected[:start]
    assert (
        row_digests(pa.table({"a": pieces.slice(1)}), ["a"])
        == (expected[start:] + expected[:start])[1:]
    )
    order = data.draw(st.permutations(range(len(chosen))))
    assert row_digests(table.take(pa.array(order, pa.int64())), ["a"]) == [
        expected[i] for i in order
    ]
    batch = pa.table({"a": array}).to_batches()[0]
    assert row_digests(batch.slice(start), ["a"]) == expected[start:]
    doubled = pa.Table.from_batches([batch.slice(start), batch])
    assert row_digests(doubled, ["a"]) == expected[start:] + expected


def test_no_rows_have_no_hash_and_no_columns_the_same_for_all() -> None:
    """A stage that only looks at the status of a table would fail."""
    table = pa.table({"a": pa.array([1, 2], pa.int32())})
    assert row_digests(table.slice(2), ["a"]) == []
    assert row_digests(pa.table({"a": pa.chunked_array([], pa.string())}), ["a"]) == []
    first, second = row_digests(table, [])
    assert first == second


@given(st.lists(st.tuples(st.text(max_size=3), st.binary(max_size=3)), min_size=2, max_size=5))
def test_where_a_value_ends_matters(rows: list[tuple[str, bytes]]) -> None:
    """`ab` and `c` would count as unchanged beside `a` and `bc`."""
    table = pa.table(
        {
            "a": pa.array([a for a, _ in rows], pa.string()),
            "b": pa.array([b for _, b in rows], pa.binary()),
        }
    )
    found = row_digests(table, ["a", "b"])
    for i, row in enumerate(rows):
        assert [digest == found[i] for digest in found] == [other == row for other in rows]


def test_which_column_a_value_is_in_matters() -> None:
    """Width and height exchanged, or a value that moves to another column, would go unseen."""
    table = pa.table(
        {
            "a": pa.array([1, 2], pa.int32()),
            "b": pa.array([2, 1], pa.int32()),
            "c": pa.array([None, None], pa.int32()),
        }
    )
    variants = [
        row_digests(table, names)[0]
        for names in (["a", "b"], ["b", "a"], ["a"], ["b"], ["a", "c"], ["c", "a"], ["a", "b", "c"])
    ]
    assert len(set(variants)) == len(variants)


def test_hashes_are_what_they_have_always_been() -> None:
    """After an update of the program every row of every dataset would be computed again."""
    table = pa.table(
        {
            "faces.face_id": pa.array(["f1", "f2"], pa.string()),
            "faces.box": pa.array([[1.0, 2.0, 30.5, 40.0], None], FLOATS),
            "faces.face": pa.array([0, None], pa.int32()),
            "clusters.keep": pa.array([True, None], pa.bool_()),
            "images.phash": pa.array([2**63 + 1, 0], pa.uint64()),
            "images.bytes": pa.array([b"\xff", None], pa.large_binary()),
            "masks.classes": pa.array([["skin", "it's"], None], pa.list_(pa.string())),
            "images.fetched_at": pa.array(
                [1_700_000_000_000_000, None], pa.timestamp("us", tz="UTC")
            ),
        }
    )
    assert [digest.hex() for digest in row_digests(table, table.column_names)] == [
        "25f14936884b8d5b",
        "9091bc781fef7f1e",
    ]


# a stage of each grain


class Embed(Stage):
    """Slice grain: reads faces, and looks at clusters to choose."""

    name: ClassVar[str] = "embed"
    backend: ClassVar[str] = "test"
    parent: ClassVar[str] = "faces"
    reads: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "faces": ("box", "score"),
        "people": ("indicator",),
    }


class KeptOnly(Embed):
    reads: ClassVar[Mapping[str, tuple[str, ...]]] = {"faces": ("box", "score")}
    selects: ClassVar[Mapping[str, tuple[str, ...]]] = {"clusters": ("keep",)}

    def wants(self, rows: pa.Table) -> pa.ChunkedArray | pa.Array:
        return pc.and_(super().wants(rows), pc.fill_null(rows["clusters.keep"], False))


class Clean(Stage):
    """Bucket grain: reads embeddings, and faces beside them."""

    name: ClassVar[str] = "clean"
    backend: ClassVar[str] = "test"
    grain: ClassVar[Grain] = "bucket"
    parent: ClassVar[str] = "embeddings"
    reads: ClassVar[Mapping[str, tuple[str, ...]]] = {"embeddings": ("vector",), "faces": ("box",)}
    Parameters: ClassVar[type[Params]] = Params


def _ids(n: int) -> dict[str, Any]:
    return {
        "identity_id": f"p{n // 3}",
        "image_id": f"i{n:02d}",
        "face_id": f"f{n:02d}",
        "inputs": bytes(8),
        "status": "ok",
    }


def faces(numbers: Sequence[int], **changed: Any) -> pa.Table:
    rows = [{**_ids(n), "box": [float(n), 0.0, 1.0, 1.0], "score": 0.5} for n in numbers]
    return TABLES["faces"].build([{**row, **changed} for row in rows])


def embeddings(
    numbers: Sequence[int], moved: Sequence[int] = (), failed: Sequence[int] = ()
) -> pa.Table:
    rows = [
        {**_ids(n), "vector": [float(n), float(n in moved)], "recogniser": "r", "norm": 1.0}
        for n in numbers
    ]
    return TABLES["embeddings"].build(
        [
            {**row, "status": "failed" if n in failed else "ok"}
            for n, row in zip(numbers, rows, strict=True)
        ]
    )


def clusters(numbers: Sequence[int], keep: Callable[[int], bool] = lambda _: True) -> pa.Table:
    return TABLES["clusters"].build([{**_ids(n), "keep": keep(n)} for n in numbers])


def people(numbers: Sequence[int]) -> pa.Table:
    common = {"inputs": bytes(8), "status": "ok"}
    return TABLES["people"].build(
        [{**common, "identity_id": f"p{n}", "indicator": [float(n)]} for n in numbers]
    )


def test_units_are_rows_or_people() -> None:
    """A person would be clustered image by image."""
    assert (unit_column(Embed()), unit_column(Clean())) == ("face_id", "identity_id")


def test_a_join_finds_every_row_wherever_it_lies() -> None:
    """A face would be embedded with the box of another one."""
    found = join(Clean(), {"embeddings": embeddings([5, 1, 3]), "faces": faces([0, 3, 1, 5])})
    read = ["embeddings.status", "embeddings.vector", "faces.status", "faces.box"]
    assert found.column_names == ["identity_id", "image_id", "face_id", *read]
    assert found["face_id"].to_pylist() == ["f05", "f01", "f03"]
    assert [box[0] for box in found["faces.box"].to_pylist()] == [5.0, 1.0, 3.0]
    person = join(Embed(), {"faces": faces([5, 1, 3]), "people": people([1, 0])})
    assert person["people.indicator"].to_pylist() == [[1.0], [0.0], [1.0]]


@pytest.mark.parametrize("pieces", [1, 3])
def test_rows_missing_in_a_join_are_null(pieces: int) -> None:
    """Values of some other row would be taken, or the whole slice would fail, where a table has no
    row.
    """
    boxes = pa.concat_tables([faces([n]) for n in (1, 2, 3)[:pieces]])
    vectors = pa.concat_tables([embeddings([3, 9]), embeddings([1])])
    found = join(Clean(), {"embeddings": vectors, "faces": boxes})
    there = [n <= pieces for n in (3, 9, 1)]
    assert [box is not None for box in found["faces.box"].to_pylist()] == there
    assert [status is not None for status in found["faces.status"].to_pylist()] == there
    nothing = join(Clean(), {"embeddings": vectors, "faces": faces([])})
    assert nothing["faces.box"].to_pylist() == [None] * 3
    assert Clean().wants(nothing).to_pylist() == [False] * 3
    assert join(Clean(), {"embeddings": embeddings([]), "faces": boxes}).num_rows == 0


def test_only_what_is_in_order_is_wanted() -> None:
    """A caption would be written for a rejected face, or a failed image would be looked for
    faces.
    """
    tables = {"faces": faces(range(6)), "clusters": clusters(range(5), keep=lambda n: n != 2)}
    assert wanted(KeptOnly(), tables).units == ["f00", "f01", "f03", "f04"]
    failed = {"embeddings": embeddings(range(6), failed=[1]), "faces": faces(range(6))}
    assert wanted(Clean(), failed).rows["face_id"].to_pylist() == [
        "f00",
        "f02",
        "f03",
        "f04",
        "f05",
    ]
    assert wanted(Clean(), {"embeddings": embeddings([]), "faces": faces([])}).units == []


def test_what_only_decides_does_not_make_inputs() -> None:
    """A face that is rejected and kept again would be captioned twice."""
    keeps = [
        wanted(KeptOnly(), {"faces": faces([1]), "clusters": t}).inputs
        for t in (clusters([1]), clusters([0, 1, 2]))
    ]
    assert keeps[0] == keeps[1]
    other = [
        wanted(KeptOnly(), {"faces": t, "clusters": clusters([1])}).inputs
        for t in (faces([1], score=0.6), faces([1], sharpness=3.0))
    ]
    assert other[0] != keeps[0] == other[1]


def test_neighbours_do_not_make_inputs_at_slice_grain() -> None:
    """A new image would have all others computed again."""
    tables = {"faces": faces(range(9)), "people": people(range(3))}
    everything = wanted(Embed(), tables).inputs_of()
    for chosen in ([4], [8, 0], [2, 1, 0]):
        assert wanted(Embed(), {**tables, "faces": faces(chosen)}).inputs == [
            everything[f"f{n:02d}"] for n in chosen
        ]
        assert (
            wanted(Embed(), {**tables, "faces": tables["faces"].slice(min(chosen))}).inputs[0]
            == everything[f"f{min(chosen):02d}"]
        )


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(9)), st.permutations(range(9)), st.integers(0, 9))
def test_the_order_of_pictures_does_not_make_a_person(
    order: list[int], beside: list[int], end: int
) -> None:
    """A person would be clustered again because the source lists the images in another order."""
    expected = wanted(
        Clean(), {"embeddings": embeddings(range(9)), "faces": faces(range(9))}
    ).inputs_of()
    pieces = pa.concat_tables([embeddings(order[:end]), embeddings(order[end:])])
    found = wanted(Clean(), {"embeddings": pieces, "faces": faces(beside)})
    assert found.inputs_of() == expected
    assert found.rows["face_id"].to_pylist() == [f"f{n:02d}" for n in order]


@settings(max_examples=30, deadline=None)
@given(st.sets(st.integers(0, 8), min_size=1))
def test_a_changed_picture_changes_its_person_only(changed: set[int]) -> None:
    """One new photograph would have everybody clustered again, or not even its person."""
    base = {"embeddings": embeddings(range(9)), "faces": faces(range(9))}
    before = wanted(Clean(), base).inputs_of()
    touched = {f"p{n // 3}" for n in changed}
    variants = [
        embeddings(range(9), moved=sorted(changed)),
        embeddings([n for n in range(9) if n not in changed]),
        embeddings(range(9), failed=sorted(changed)),
    ]
    for variant in variants:
        after = wanted(Clean(), {**base, "embeddings": variant}).inputs_of()
        assert {person for person in before if before[person] != after.get(person)} == touched


# what is there


class Plain(Embed):
    """Wants every face; the inputs follow from the score alone."""

    reads: ClassVar[Mapping[str, tuple[str, ...]]] = {"faces": ("score",)}


def _pool(rows: Sequence[tuple[int, bytes]]) -> pa.Table:
    return TABLES["embeddings"].build([{**_ids(n), "inputs": inputs} for n, inputs in rows])


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.data())
def test_what_is_there_is_wanted_or_stale_or_superseded(data: st.DataObject) -> None:
    """A row would be shown twice, lost, or computed although it is there."""
    numbers = data.draw(st.lists(st.integers(0, 7), unique=True, max_size=8))
    stage, tables = Plain(), {"faces": faces(numbers)}
    right = wanted(stage, tables).inputs_of()
    unit = st.integers(0, 7)
    inputs = st.sampled_from((b"", b"old in 1", b"old in 2"))  # empty: those that are wanted
    # One file holds a unit with given inputs once; several rows of one unit come from one attempt
    # and stay together.
    files = data.draw(
        st.lists(
            st.lists(
                st.tuples(unit, inputs, st.integers(1, 2)), unique_by=lambda r: r[:2], max_size=6
            ),
            max_size=4,
        )
    )
    pool, model = [], []
    for file in files:
        rows = [
            (n, i or right.get(f"f{n:02d}", b"gone ..."))
            for n, i, times in file
            for _ in range(times)
        ]
        pool.append(_pool(rows))
        model.append(rows)
    forced = {f"f{n:02d}" for n in data.draw(st.sets(unit, max_size=3))}
    found = reconcile(stage, tables, pool, forced)

    newest = {row: number for number, rows in enumerate(model) for row in rows}
    for number, rows in enumerate(model):
        best = [i for i, row in enumerate(rows) if newest[row] == number]
        assert found.live[number].tolist() == [
            i for i in best if right.get(f"f{rows[i][0]:02d}") == rows[i][1]
        ]
        assert found.stale[number].tolist() == [
            i for i in best if right.get(f"f{rows[i][0]:02d}") != rows[i][1]
        ]
    there = {f"f{n:02d}" for (n, i) in newest if right.get(f"f{n:02d}") == i}
    assert found.missing_units == [
        f"f{n:02d}" for n in numbers if f"f{n:02d}" not in there or f"f{n:02d}" in forced
    ]
    assert found.wanted.take(found.missing).units == found.missing_units
    if not forced:
        assert there | set(found.missing_units) == set(right) and not there & set(
            found.missing_units
        )


def test_the_newer_attempt_wins() -> None:
    """`--retry` would compute a failed row again and then show the failure."""
    stage, tables = Plain(), {"faces": faces([1])}
    inputs = wanted(stage, tables).inputs[0]
    found = reconcile(
        stage, tables, [_pool([(1, inputs)]), _pool([(1, b"other...")]), _pool([(1, inputs)])]
    )
    assert [rows.tolist() for rows in found.live] == [[], [], [0]]
    assert [rows.tolist() for rows in found.stale] == [[], [0], []]
    assert found.missing.tolist() == []


def test_a_forced_unit_is_missing_and_shown_until_then() -> None:
    """A retry that is interrupted would lose the row that was there."""
    stage, tables = Plain(), {"faces": faces([1, 2])}
    want = wanted(stage, tables)
    found = reconcile(
        stage, tables, [_pool([(1, want.inputs[0]), (2, want.inputs[1])])], {"f02", "unknown"}
    )
    assert found.live[0].tolist() == [0, 1] and found.missing_units == ["f02"]


def test_a_switch_back_finds_the_rows_that_were_put_aside() -> None:
    """A threshold that is tried and taken back would be paid for twice."""
    stage = Plain()
    before = {"faces": faces([1, 2])}
    rows = _pool(list(zip((1, 2), wanted(stage, before).inputs, strict=True)))
    away = reconcile(stage, {"faces": faces([1])}, [rows])
    assert (away.live[0].tolist(), away.stale[0].tolist(), away.missing.tolist()) == ([0], [1], [])
    back = reconcile(
        stage, before, [rows.take(pa.array(away.stale[0])), rows.take(pa.array(away.live[0]))]
    )
    assert [r.tolist() for r in back.live] == [[0], [0]] and back.missing.tolist() == []


def test_a_person_is_there_with_all_rows_or_missing() -> None:
    """Half a person would be clustered."""
    stage, tables = Clean(), {"embeddings": embeddings(range(6)), "faces": faces(range(6))}
    want = wanted(stage, tables)
    done = TABLES["clusters"].build(
        [{**_ids(n), "inputs": want.inputs_of()["p0"], "keep": True} for n in range(3)]
    )
    found = reconcile(stage, tables, [done])
    assert found.live[0].tolist() == [0, 1, 2]
    assert found.missing.tolist() == [3, 4, 5] and found.missing_units == ["p1"]
    more = reconcile(stage, {"embeddings": embeddings(range(7)), "faces": faces(range(7))}, [done])
    assert more.missing_units == ["p1", "p2"]
    fewer = reconcile(stage, {"embeddings": embeddings([0, 1]), "faces": faces(range(3))}, [done])
    assert fewer.stale[0].tolist() == [0, 1, 2] and fewer.missing_units == ["p0"]


@settings(deadline=None)
@given(st.permutations(range(8)), st.lists(st.integers(0, 9), max_size=12))
def test_rows_come_in_the_order_of_their_parents(order: list[int], written: list[int]) -> None:
    """A resumed run would seal the same rows in another order, which is another file."""
    want = Wanted(faces(order), [f"f{n:02d}" for n in order], [bytes(8)] * 8)
    rows = TABLES["embeddings"].build(
        [{**_ids(n), "norm": float(place)} for place, n in enumerate(written)]
    )
    place = {n: i for i, n in enumerate(order)}
    expected = sorted(range(len(written)), key=lambda i: place.get(written[i], 8))
    assert ordered(Embed(), want, rows)["norm"].to_pylist() == [float(i) for i in expected]


def test_faces_follow_their_pictures_and_clusters_their_faces() -> None:
    """The second face of an image would come before the first, or people would be mixed."""
    want = wanted(Clean(), {"embeddings": embeddings([4, 3, 0]), "faces": faces([0, 3, 4])})
    rows = clusters([0, 3, 4])
    assert ordered(Clean(), want, rows)["face_id"].to_pylist() == ["f04", "f03", "f00"]


def test_taking_of_wanted_rows_keeps_units_and_inputs_beside_them() -> None:
    """A part would be written with the inputs of other rows, and be found done when it is not."""
    want = wanted(Plain(), {"faces": faces(range(5))})
    some = want.take(np.array([3, 1]))
    assert some.rows["face_id"].to_pylist() == some.units == ["f03", "f01"]
    assert some.inputs == [want.inputs[3], want.inputs[1]]
    assert want.take([]).units == [] and want.take([]).rows.num_rows == 0


# tables that need not be there


class Judged(Clean):
    """Clean with a table that a stage may write, and one that is written by hand; both by face."""

    reads: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **Clean.reads,
        "screenings": ("compared",),
        "verdicts": ("action", "weight"),
    }
    optional: ClassVar[frozenset[str]] = frozenset({"screenings", "verdicts"})


class Sharp(KeptOnly):
    """Slice grain, with an optional table that only decides."""

    selects: ClassVar[Mapping[str, tuple[str, ...]]] = {**KeptOnly.selects, "screenings": ()}
    optional: ClassVar[frozenset[str]] = frozenset({"screenings"})


@pytest.fixture
def two_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """`screenings` is written by a stage that exists, `verdicts` by a person."""
    monkeypatch.setitem(BACKENDS, "screen", {"toy": "nowhere:Toy"})
    kinds = {
        "face_id": pa.string(),
        "action": pa.string(),
        "weight": pa.float32(),
        "status": pa.string(),
    }
    columns = tuple(Column(name, kind, "a column", text=False) for name, kind in kinds.items())
    monkeypatch.setitem(
        TABLES,
        "verdicts",
        TableSchema("verdicts", 1, "correct", "By hand.", "face_id", None, None, columns),
    )


def screenings(
    numbers: Iterable[int], filtered: Set[int] = frozenset(), compared: Set[int] = frozenset()
) -> pa.Table:
    rows = [
        {
            **_ids(n),
            "status": "filtered" if n in filtered else "ok",
            "compared": True if n in compared else None,
        }
        for n in numbers
    ]
    return TABLES["screenings"].build(rows)


def verdicts(rows: Mapping[int, tuple[str | None, float | None]]) -> pa.Table:
    found = [
        {"face_id": f"f{n:02d}", "action": action, "weight": weight, "status": "ok"}
        for n, (action, weight) in rows.items()
    ]
    return TABLES["verdicts"].build(found)


numbers = st.sets(st.integers(0, 8))


@pytest.mark.usefixtures("two_tables")
def test_a_dataset_from_before_an_optional_table_is_as_if_the_stage_had_never_named_it() -> None:
    """An update of the program that adds a table would have everything computed again."""
    tables = {"embeddings": embeddings(range(9)), "faces": faces(range(9))}
    before = wanted(Clean(), tables)
    for there in (
        tables,
        {**tables, "verdicts": verdicts({})},
        {**tables, "screenings": screenings(range(9))},
    ):
        after = wanted(Judged(), there)
        assert (after.units, after.inputs) == (before.units, before.inputs)
    kept = {"faces": faces(range(6)), "clusters": clusters(range(6))}
    assert wanted(Sharp(), kept).inputs_of() == wanted(KeptOnly(), kept).inputs_of()


@pytest.mark.usefixtures("two_tables")
def test_an_optional_table_that_is_not_there_is_null() -> None:
    """A stage would fail on a column that it names."""
    found = join(Judged(), {"embeddings": embeddings([5, 1]), "faces": faces([1, 5])})
    for column, kind in (
        ("screenings.status", pa.string()),
        ("screenings.compared", pa.bool_()),
        ("verdicts.weight", pa.float32()),
    ):
        assert found[column].to_pylist() == [None, None] and found[column].type == kind
    assert Judged().wants(found).to_pylist() == [True, True]
    with pytest.raises(KeyError):
        join(KeptOnly(), {"faces": faces([1])})


@pytest.mark.usefixtures("two_tables")
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(numbers, numbers)
def test_a_stage_of_the_dag_that_writes_an_optional_table_comes_first(
    looked_at: set[int], filtered: set[int]
) -> None:
    """Faces would be clustered before they are screened, and again afterwards."""
    tables = {
        "embeddings": embeddings(range(9)),
        "faces": faces(range(9)),
        "screenings": screenings(looked_at, filtered),
    }
    fit = sorted(looked_at - filtered)
    assert wanted(Judged(), tables).rows["face_id"].to_pylist() == [f"f{n:02d}" for n in fit]
    kept = {
        "faces": faces(range(9)),
        "clusters": clusters(range(9)),
        "screenings": tables["screenings"],
    }
    assert wanted(Sharp(), kept).units == [f"f{n:02d}" for n in fit]


@pytest.mark.usefixtures("two_tables")
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.dictionaries(
        st.integers(0, 8),
        st.tuples(st.sampled_from([None, "keep", "reject"]), st.sampled_from([None, 0.0, 1.0])),
    ),
    numbers,
)
def test_only_people_with_something_in_an_optional_table_change(
    said: dict[int, tuple[str | None, float | None]], compared: set[int]
) -> None:
    """One decision by hand would have everybody clustered again, or not even the person whom it is
    about.
    """
    tables = {"embeddings": embeddings(range(9)), "faces": faces(range(9))}
    before = wanted(Judged(), tables).inputs_of()
    after = wanted(Judged(), {**tables, "verdicts": verdicts(said)}).inputs_of()
    assert after.keys() == before.keys()
    touched = {f"p{n // 3}" for n, values in said.items() if values != (None, None)}
    assert {person for person in before if before[person] != after[person]} == touched
    both = {
        **tables,
        "verdicts": verdicts(said),
        "screenings": screenings(range(9), frozenset(), compared),
    }
    changed = {
        person
        for person, inputs in wanted(Judged(), both).inputs_of().items()
        if inputs != before[person]
    }
    assert changed == touched | {f"p{n // 3}" for n in compared}


@pytest.mark.usefixtures("two_tables")
def test_values_of_optional_tables_are_not_mixed_up() -> None:
    """A decision that moves to another face, column or table of a person would go unseen."""
    tables = {"embeddings": embeddings(range(3)), "faces": faces(range(3))}
    variants = [
        verdicts(rows)
        for rows in (
            {},
            {0: ("a", None)},
            {1: ("a", None)},
            {0: (None, 1.0)},
            {0: ("a", 1.0)},
            {0: ("a", 0.0)},
        )
    ]
    found = [wanted(Judged(), {**tables, "verdicts": variant}).inputs[0] for variant in variants]
    found.append(
        wanted(Judged(), {**tables, "screenings": screenings(range(3), frozenset(), {0})}).inputs[0]
    )
    assert len(set(found)) == len(found)
