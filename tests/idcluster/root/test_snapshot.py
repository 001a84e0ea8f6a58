"""Snapshots: the one list that every reader trusts, published once, replaced by rule, and refused
when damaged.
"""

import io
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, replace
from pathlib import Path
from threading import Barrier

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idcluster.root.snapshot import (
    SNAPSHOT_FORMAT,
    WHOLE,
    Entry,
    Snapshot,
    SnapshotError,
    load,
    numbers,
    path_of,
    publish,
)
from idcluster.root.storage import Store

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
_NUMBER = st.integers(-(2**63), 2**63 - 1)
ANY_ENTRIES = st.builds(
    Entry,
    _TEXT,
    _TEXT,
    _NUMBER,
    _NUMBER,
    _TEXT,
    _NUMBER,
    _NUMBER,
    _TEXT,
    _TEXT,
    st.booleans(),
    st.booleans(),
)
ANY_NOTES = st.dictionaries(
    _TEXT.filter(lambda k: k not in ("format", "number")),
    _TEXT | st.floats(0, 9) | st.lists(_NUMBER, max_size=2),
)


def entry(
    table: str = "images",
    version: str = "v1",
    bucket: int = 0,
    chunk: int = 0,
    file: str = "f",
    live: bool = True,
    current: bool = True,
) -> Entry:
    return Entry(table, version, bucket, chunk, file, 1, 10, "digest", "basis", live, current)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "root")


# what is written is what is read


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**9), st.lists(ANY_ENTRIES, max_size=5), ANY_NOTES)
def test_a_snapshot_is_read_as_it_was_written(
    number: int, entries: list[Entry], notes: dict[str, object]
) -> None:
    """A file, a flag or a rate would be lost between two runs."""
    snapshot = Snapshot(number, tuple(entries), notes)
    assert Snapshot.decode(snapshot.encode(), "test") == snapshot
    assert Snapshot.decode(snapshot.encode(), "test").encode() == snapshot.encode()


def test_the_empty_root_is_snapshot_zero(store: Store) -> None:
    """The first plan on a fresh root would fail."""
    assert load(store) == load(store, 0) == Snapshot()
    assert numbers(store) == []


def test_the_newest_snapshot_is_current_and_older_ones_are_named_by_number(store: Store) -> None:
    """A view would show the dataset of last week, or going back would be impossible."""
    first = publish(store, Snapshot().with_entries([entry(file="a")]).with_notes(run="r1"))
    second = publish(store, first.with_entries([entry(file="b")]).with_notes(run="r2"))
    assert (first.number, second.number) == (1, 2) and numbers(store) == [1, 2]
    assert load(store) == second and load(store, 1) == first and load(store, 2) == second
    assert load(store).notes == {"run": "r2"}
    assert list(first.files()) == ["a"] and list(second.files()) == ["b"]


def test_numbers_are_numbers_and_other_files_are_none(store: Store) -> None:
    """Snapshot 1000000 would come before 999999; a temporary file would be taken for a snapshot."""
    for name in ("000009", "000010", "999999", "1000000"):
        store.put(f"snapshots/{name}.parquet", b"")
    for name in (".5f.tmp", "000011.parquet.tmp", "latest.parquet", "000012.json"):
        store.put(f"snapshots/{name}", b"")
    assert numbers(store) == [9, 10, 999999, 1000000]
    assert [path_of(n) for n in (9, 1000000)] == [
        "snapshots/000009.parquet",
        "snapshots/1000000.parquet",
    ]


def test_a_snapshot_that_is_not_there_is_named_with_the_remedy(store: Store) -> None:
    """A typing error in `--snapshot` would be a stack trace."""
    for number in (7, -1):
        with pytest.raises(
            SnapshotError, match=rf"root has no snapshot {number}; `idcluster snapshots` lists"
        ):
            load(store, number)


# published once


def test_of_two_writers_one_is_told(store: Store) -> None:
    """The rows of one of two runs would vanish without a word."""
    start = publish(store, Snapshot())
    won = publish(store, start.with_entries([entry(file="a")]))
    with pytest.raises(
        SnapshotError,
        match=r"snapshot 2 of .*root was published by another writer meanwhile; run again",
    ):
        publish(store, start.with_entries([entry(file="b")]))
    assert load(store) == won


def test_of_many_writers_at_once_one_publishes(store: Store) -> None:
    """As above, when it happens in the same moment."""
    barrier = Barrier(8)

    def write(number: int) -> str | None:
        barrier.wait()
        try:
            return next(publish(store, Snapshot().with_entries([entry(file=f"f{number}")])).files())
        except SnapshotError:
            return None

    with ThreadPoolExecutor(8) as pool:
        published = [file for file in pool.map(write, range(8)) if file]
    assert published == list(load(store).files()) and numbers(store) == [1]


# damaged or foreign


def _foreign(notes: object, columns: Sequence[str] | None = None) -> bytes:
    table = pq.read_table(io.BytesIO(Snapshot(1, (entry(),)).encode()))
    sink = io.BytesIO()
    metadata = {} if notes is None else {"idcluster": json.dumps(notes)}
    pq.write_table(
        table.select(columns or table.column_names).replace_schema_metadata(metadata), sink
    )
    return sink.getvalue()


GOOD = {"format": SNAPSHOT_FORMAT, "number": 1, "entries": 1}
BROKEN = {
    "empty": b"",
    "text": b"not a snapshot",
    "half": Snapshot(1, (entry(),)).encode()[:-200],
    "no notes": _foreign(None),
    "no number": _foreign({"format": SNAPSHOT_FORMAT, "entries": 1}),
    "other number of entries": _foreign({**GOOD, "entries": 2}),
    "no format": _foreign({"number": 1}),
    "no column": _foreign(GOOD, ["table", "version"]),
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())
def test_a_damaged_snapshot_is_named_with_the_remedy(store: Store, data: bytes) -> None:
    """A user would read a stack trace of Parquet, and not that an older snapshot can be named."""
    publish(store, Snapshot())
    store.put(path_of(2), data)
    remedy = r"delete this file and run again to go on from the one before; .*`--snapshot`"
    with pytest.raises(
        SnapshotError, match=rf"root/snapshots/000002\.parquet is damaged \(.*{remedy}"
    ):
        load(store)
    assert load(store, 1).number == 1


def test_another_format_is_called_that(store: Store) -> None:
    """A newer dataset would be called damaged by an older program."""
    assert Snapshot.decode(_foreign(GOOD), "test").number == 1
    store.put(path_of(1), _foreign({"format": SNAPSHOT_FORMAT + 1, "number": 1}, ["table"]))
    with pytest.raises(
        SnapshotError,
        match=rf"000001\.parquet has another format; this idcluster reads format {SNAPSHOT_FORMAT}",
    ):
        load(store)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_flipped_bit_never_shows_another_dataset(data: st.DataObject) -> None:
    """A bad disk would make a run delete, skip or recompute files without a word."""
    snapshot = Snapshot(
        3, tuple(entry(chunk=n, file=f"tables/images/{n}") for n in range(5)), {"run": "r"}
    )
    encoded = bytearray(snapshot.encode())
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= 1 << data.draw(st.integers(0, 7))
    try:
        found = Snapshot.decode(bytes(encoded), "test")
    except SnapshotError:
        return
    footer = len(encoded) - 8 - int.from_bytes(snapshot.encode()[-8:-4], "little")
    # Parquet has checksums for its pages and none for its footer, where most damage makes the file
    # unreadable anyway.
    assert at >= footer or found.entries == snapshot.entries


# what replaces what

SMALL = st.builds(
    entry,
    table=st.sampled_from(("images", "faces")),
    version=st.sampled_from(("v1", "v2", "v3")),
    bucket=st.integers(0, 1),
    chunk=st.sampled_from((WHOLE, 0, 1)),
    file=st.text("abc", max_size=2),
    live=st.booleans(),
    current=st.booleans(),
)
Model = dict[tuple[str, int, int, str], list[Entry]]


def in_order(entries: Iterable[Entry]) -> list[Entry]:
    return sorted(entries, key=astuple)


def _has_two_live(entries: Sequence[Entry]) -> bool:
    live = [(*e.scope, e.version) for e in entries if e.live]
    return len(set(live)) < len(live)


@settings(deadline=None)
@given(st.lists(st.lists(SMALL, max_size=4), max_size=6))
def test_entries_are_replaced_scope_by_scope(rounds: list[list[Entry]]) -> None:
    """A changed chunk would show its old rows, or take another chunk's or another version's along.

    The model is a dictionary: entries by table, bucket, chunk and version.
    """
    snapshot = Snapshot(5, (), {"run": "r"})
    model: Model = {}
    for changed in rounds:
        if _has_two_live(changed):
            with pytest.raises(ValueError, match="two live files"):
                snapshot.with_entries(changed)
            continue
        before = snapshot.entries
        following = snapshot.with_entries(changed)
        assert snapshot.entries == before  # whoever still reads it is not disturbed
        for key in {(*e.scope, e.version) for e in changed}:
            model[key] = [e for e in changed if (*e.scope, e.version) == key]
        for scope in {e.scope for e in changed if e.current}:
            for key, entries in model.items():
                if key[:3] == scope and key not in {(*e.scope, e.version) for e in changed}:
                    model[key] = [replace(e, current=False) for e in entries]
        snapshot = following
        assert in_order(snapshot.entries) == in_order(
            e for entries in model.values() for e in entries
        )
        assert (snapshot.number, snapshot.notes) == (5, {"run": "r"})
        for (table, bucket, chunk, version), entries in model.items():
            assert in_order(snapshot.of(table, bucket, chunk, version)) == in_order(entries)


@settings(max_examples=50, deadline=None)
@given(st.lists(SMALL, max_size=5), st.data())
def test_the_order_of_changes_does_not_show(changed: list[Entry], data: st.DataObject) -> None:
    """Two runs with the same result would publish different bytes."""
    if _has_two_live(changed):
        return
    shuffled = data.draw(st.permutations(changed))
    assert Snapshot().with_entries(changed).encode() == Snapshot().with_entries(shuffled).encode()


def test_a_switch_of_versions_and_back_loses_nothing() -> None:
    """A changed threshold that is changed back would be paid for twice, or two versions would be
    shown at once.
    """
    old, kept = (
        entry(version="v1", file="a"),
        entry(version="v1", file="stale", live=False, current=False),
    )
    other = entry(version="v1", chunk=1, file="b")
    first = Snapshot().with_entries([old, kept, other])
    new = entry(version="v2", file="c")
    second = first.with_entries([new])
    assert second.shown_at("images", 0, 0) == new
    assert second.of("images", 0, 0, "v1") == in_order([replace(old, current=False), kept])
    assert second.shown("images") == [new, other]
    third = second.with_entries([old, kept])
    assert third.shown("images") == [old, other]
    assert sorted(third.files()) == ["a", "b", "c", "stale"]


def test_what_is_shown_is_live_and_current_and_in_order() -> None:
    """A view would show rejected rows or rows of another version, or give images in another order
    each time.
    """
    shown = [entry(bucket=b, chunk=c, file=f"{b}{c}") for b, c in ((0, 0), (0, 2), (0, 10), (1, 0))]
    hidden = [
        entry(bucket=0, chunk=0, file="x", live=False),
        entry(bucket=0, chunk=1, file="y", version="v2", current=False),
        entry(table="faces", bucket=0, chunk=0, file="z"),
    ]
    snapshot = Snapshot(1, tuple(in_order(hidden + shown[::-1])))
    assert snapshot.shown("images") == shown
    assert snapshot.chunks("images") == [(0, 0), (0, 2), (0, 10), (1, 0)]
    assert (
        snapshot.shown_at("images", 0, 1) is None and snapshot.shown_at("images", 0, 2) == shown[1]
    )
    assert len(snapshot.of("images", 0, 0)) == 2


def test_an_entry_without_rows_names_no_file() -> None:
    """`gc` and readers would look for a file that was never written."""
    assert list(Snapshot().with_entries([entry(file=""), entry(chunk=1, file="a")]).files()) == [
        "a"
    ]


def test_columns_of_the_file_stay() -> None:
    """Other tools that read snapshots would break; to change one of these takes a new
    SNAPSHOT_FORMAT.
    """
    found = pq.read_schema(io.BytesIO(Snapshot(1, (entry(),)).encode()))
    types = {field.name: str(field.type) for field in found}
    for name in ("table", "version", "file", "digest", "basis"):
        assert types[name] == "string"
    for name in ("bucket", "chunk", "rows", "bytes"):
        assert types[name] == "int64"
    assert types["live"] == types["current"] == "bool"
