"""Files and snapshots without somebody: what is left of a file, of an entry, and of what others'
rows said of them.
"""

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from idcluster.root.parquet import DamagedFile, encode, read_entries, seal_stream, seal_table
from idcluster.root.snapshot import WHOLE, Entry, Snapshot
from idcluster.root.storage import Store
from pipeline.execution.reconcile import row_digests
from pipeline.forget.rewrite import Doomed, Rewriter, struck
from pipeline.forget.texts import Needles
from schemas import TABLES

DOOMED = Doomed(
    frozenset({"gone"}), frozenset({"gone-1", "gone-2", "stay-7"}), frozenset({"face-7"})
)
NOBODY = Needles()


def matches(**values: Any) -> pa.Table:
    row = {
        "identity_id": "stay",
        "same_as": "stay",
        "kin": "stay",
        "dropped_faces": [],
        "flags": [],
        "status": "ok",
        "inputs": bytes(8),
    }
    return TABLES["matches"].build([{**row, **values}])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            {"nearest": "gone", "nearest_cosine": 0.5, "flags": ["near_person"]},
            {"nearest": None, "nearest_cosine": None, "flags": []},
        ),
        (
            {"same_as": "gone", "kin": "gone", "flags": ["merged"]},
            {"same_as": "stay", "kin": "stay", "flags": []},
        ),
        (
            {"kin": "gone", "flags": ["shared_pictures"]},
            {"kin": "stay", "flags": ["shared_pictures"]},
        ),
        ({"dropped_faces": ["face-7", "face-8"]}, {"dropped_faces": ["face-8"]}),
        (
            {"status": "filtered", "reason": "same_person", "detail": "is gone with fewer images"},
            {"detail": None},
        ),
    ],
)
def test_whoever_was_near_stands_alone(before: dict[str, Any], after: dict[str, Any]) -> None:
    """The row of a sister or namesake would go on naming the person, with a measure of the face."""
    rows, hit = struck("matches", matches(**before), DOOMED)
    assert hit.tolist() == [True]
    [row], [old] = rows.to_pylist(), matches(**before).to_pylist()
    assert row == {**old, **after, "inputs": row["inputs"]}
    assert (
        row["inputs"]
        == row_digests(rows, [name for name in rows.column_names if name != "inputs"])[0]
    )


def test_rows_that_say_nothing_of_them_stay_to_the_last_bit() -> None:
    """Every file of matches would get another name, and every bucket be computed again."""
    table = matches(nearest="other", nearest_cosine=0.4)
    rows, hit = struck("matches", table, DOOMED)
    assert rows is table and not hit.any()


def test_a_copy_of_a_picture_that_goes_is_nobodys_copy() -> None:
    """A face would be left out for the sake of one that is not there any more."""
    ids = {
        "identity_id": "stay",
        "image_id": "i",
        "keep": False,
        "status": "filtered",
        "reason": "duplicate",
        "inputs": bytes(8),
    }
    table = TABLES["clusters"].build(
        [
            {**ids, "face_id": "a", "duplicate_of": "face-7"},
            {**ids, "face_id": "b", "duplicate_of": "face-8"},
        ]
    )
    rows, hit = struck("clusters", table, DOOMED)
    assert hit.tolist() == [True, False] and rows["duplicate_of"].to_pylist() == [None, "face-8"]


def candidates(names: Sequence[str]) -> pa.Table:
    same = {"source": "s", "status": "ok", "inputs": bytes(8)}
    rows = [
        {"identity_id": n.split("-")[0], "image_id": n, "address": n, "rank": rank, **same}
        for rank, n in enumerate(names)
    ]
    return TABLES["candidates"].build(rows)


CHUNKS = (
    ("stay-1", "gone-1", "stay-2"),
    ("gone-2",),
    ("stay-3", "stay-4"),
    ("stay-5", "stay-7", "stay-6"),
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def in_one_file(store: Store) -> Snapshot:
    """Candidates of four chunks in one file, as a finished bucket has them."""
    schema, entries, offset = TABLES["candidates"], [], 0
    made = seal_stream(store, schema, "v", 0, WHOLE, (candidates(chunk) for chunk in CHUNKS))
    for number, chunk in enumerate(CHUNKS):
        alone = seal_table(Store(f"{store.root}/alone"), schema, "v", 0, number, candidates(chunk))
        entry = alone.entry(schema, "v", 0, number, "basis")
        entries.append(
            replace(
                entry, file=made.path, offset=offset, file_rows=made.rows, file_bytes=made.bytes
            )
        )
        offset += len(chunk)
    return Snapshot(1, tuple(entries), {})


def test_of_a_file_with_many_chunks_each_keeps_its_own_rows_and_digest(store: Store) -> None:
    """Rows would be shown in the wrong chunk, or chunks that lost nothing be computed again."""
    before = in_one_file(store)
    after = Rewriter(store, DOOMED, NOBODY, frozenset({0})).snapshot(before)
    assert after is not None and [entry.chunk for entry in after.entries] == [0, 2, 3]
    rows = [read_entries(store, "candidates", [entry]) for entry in after.entries]
    assert [table["image_id"].to_pylist() for table in rows] == [
        ["stay-1", "stay-2"],
        ["stay-3", "stay-4"],
        ["stay-5", "stay-6"],
    ]
    assert [table["rank"].to_pylist() for table in rows] == [[0, 1], [0, 1], [0, 1]]
    first, untouched, last = after.entries
    was = before.entries[2]
    assert (untouched.digest, untouched.bytes, untouched.basis) == (
        was.digest,
        was.bytes,
        was.basis,
    )
    for entry, table in ((first, rows[0]), (last, rows[2])):
        alone = encode(TABLES["candidates"], table)
        assert entry.bytes == len(alone) and entry.basis == entry.digest != ""
    assert {entry.file_rows for entry in after.entries} == {6} and {
        entry.file for entry in after.entries
    }.isdisjoint(before.files())


def test_what_was_done_is_not_done_again(store: Store) -> None:
    """A removal that goes on after a kill would make other files each time, and end elsewhere."""
    before = in_one_file(store)
    rewriter = Rewriter(store, DOOMED, NOBODY, frozenset({0}))
    after = rewriter.snapshot(before)
    assert after is not None and rewriter.snapshot(before) == after
    assert Rewriter(store, DOOMED, NOBODY, frozenset({0})).snapshot(after) is None
    assert Rewriter(store, DOOMED, NOBODY, frozenset({1})).snapshot(before) is None


def test_files_of_earlier_programs_are_thinned_with_the_columns_they_have(store: Store) -> None:
    """Somebody would stay in a table because it was written last year."""
    rows = candidates(CHUNKS[0]).drop_columns(["licence", "author"])
    sink = io.BytesIO()
    pq.write_table(rows, sink)
    store.put("tables/candidates/v=old/bucket=00000/chunk-00000-old.parquet", sink.getvalue())
    entry = Entry(
        "candidates",
        "old",
        0,
        0,
        "tables/candidates/v=old/bucket=00000/chunk-00000-old.parquet",
        3,
        1,
        "d",
        "b",
        True,
        True,
        3,
    )
    after = Rewriter(store, DOOMED, NOBODY, frozenset({0})).snapshot(Snapshot(1, (entry,), {}))
    assert after is not None
    left = pq.read_table(io.BytesIO(store.read(after.entries[0].file)))
    assert (
        left["image_id"].to_pylist() == ["stay-1", "stay-2"]
        and left.column_names == rows.column_names
    )


def test_a_file_that_is_gone_is_named(store: Store) -> None:
    """Nobody could know whether the person was in it."""
    before = in_one_file(store)
    store.delete(before.files())
    with pytest.raises(DamagedFile, match="is named by a snapshot but not there"):
        Rewriter(store, DOOMED, NOBODY, frozenset({0})).snapshot(before)


def test_notes_of_a_snapshot_name_nobody(store: Store) -> None:
    """Parameters that somebody was named in are kept with every snapshot."""
    needles = Needles.of(["Ada Lovelace"], [], [], [])
    before = Snapshot(
        1,
        (),
        {
            "index/p": {"description": {"params": {"drop": ["Ada Lovelace", "B"]}}},
            "published": "2026",
        },
    )
    after = Rewriter(store, DOOMED, needles, frozenset()).snapshot(before)
    assert after is not None and after.notes == {
        "index/p": {"description": {"params": {"drop": ["(removed)", "B"]}}},
        "published": "2026",
    }
