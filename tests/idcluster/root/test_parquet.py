"""Parquet files: the same rows give the same bytes, a slice is read as a slice, and what is damaged
is named.
"""

import hashlib
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from idcluster.root.parquet import (
    NOTHING,
    SLICE_ROWS,
    DamagedFile,
    bucket_name,
    encode,
    part_path,
    read,
    read_entries,
    seal_stream,
    seal_table,
    sealed_path,
)
from idcluster.root.snapshot import WHOLE
from idcluster.root.storage import Store
from schemas import TABLES, SchemaError

IMAGES, FACES = TABLES["images"], TABLES["faces"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "root")


def images(count: int, size: int = 10) -> pa.Table:
    def row(n: int) -> dict[str, Any]:
        data = b"%08d" % n + bytes(size)
        ids = {"identity_id": f"p{n // 40}", "image_id": f"i{n:05d}"}
        return {
            **ids,
            "bytes": data,
            "sha256": hashlib.sha256(data).hexdigest(),
            "status": "ok",
            "inputs": b"12345678",
        }

    return IMAGES.build(row(n) for n in range(count))


def faces(count: int) -> pa.Table:
    def row(n: int) -> dict[str, Any]:
        ids = {"identity_id": "p", "image_id": f"i{n}", "face_id": f"f{n}"}
        if n % 5 == 4:
            return {**ids, "status": "filtered", "reason": "no_face", "inputs": bytes(8)}
        box = [float(n), 1.0, 2.0, 3.0]
        return {
            **ids,
            "box": box,
            "landmarks": [] if n % 3 else box,
            "score": n / 7,
            "status": "ok",
            "inputs": b"%08d" % n,
        }

    return FACES.build(row(n) for n in range(count))


def cut(table: pa.Table, ends: list[int]) -> pa.Table:
    """The same rows in pieces that end at `ends`, each at an offset in a larger buffer."""
    starts = [0, *ends]
    pieces = []
    for start, stop in zip(starts, [*ends, table.num_rows], strict=True):
        padded = pa.concat_tables(
            [table.slice(0, 1), table.slice(start, stop - start), table.slice(0, 1)]
        ).combine_chunks()
        pieces.append(padded.slice(1, stop - start))
    return pa.concat_tables(pieces)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 80), st.lists(st.integers(0, 80), max_size=4), st.sampled_from((images, faces))
)
def test_bytes_do_not_depend_on_how_rows_lie_in_memory(
    count: int, ends: list[int], rows: Any
) -> None:
    """A resumed run would seal other files than an undisturbed one, and everything behind would be
    computed again.
    """
    table = rows(count)
    schema = IMAGES if rows is images else FACES
    assert encode(schema, cut(table, sorted(min(end, count) for end in ends))) == encode(
        schema, table
    )
    assert encode(
        schema, table.select(table.column_names[::-1]).replace_schema_metadata({"pandas": "{}"})
    ) == encode(schema, table)
    assert encode(schema, table.take(pa.array(range(count)))) == encode(schema, table)


def test_what_lies_behind_a_null_does_not_show() -> None:
    """Rows would differ in nothing but memory that nobody can see, and still be sealed as different
    files.
    """
    clean = faces(20)
    scores = clean["score"].combine_chunks()
    filled = pa.array(
        [9.0 if score is None else score for score in scores.to_pylist()], pa.float32()
    )
    dirty = pa.Array.from_buffers(pa.float32(), 20, [scores.buffers()[0], filled.buffers()[1]])
    assert dirty.null_count == 4
    at = FACES.names.index("score")
    assert encode(FACES, clean.set_column(at, "score", dirty)) == encode(FACES, clean)


def test_rows_come_back_as_they_were(store: Store) -> None:
    """Null, empty and zero would be mixed up between two stages."""
    table = faces(50)
    sealed = seal_table(store, FACES, "v", 0, 3, table)
    assert read(store, FACES, sealed.path).equals(table)
    assert read(store, FACES, sealed.path).schema.equals(FACES.arrow)
    assert (sealed.rows, sealed.bytes) == (50, store.size(sealed.path))
    assert sealed.digest == hashlib.sha256(store.read(sealed.path)).hexdigest()[:32]


@pytest.mark.parametrize("schema", TABLES.values(), ids=lambda schema: schema.name)
def test_every_table_can_be_written_empty(schema: Any) -> None:
    """A table with columns that Parquet does not know would fail at the first row."""
    assert pq.read_table(io.BytesIO(encode(schema, schema.empty()))).schema.equals(schema.arrow)


def test_wrong_rows_are_never_written(store: Store) -> None:
    """A backend's mistake would lie in the dataset until somebody reads it."""
    with pytest.raises(SchemaError, match="rows for faces"):
        seal_table(store, FACES, "v", 0, 0, images(3))
    with pytest.raises(SchemaError, match="rows for images"):
        seal_stream(store, IMAGES, "v", 0, 0, [images(3), faces(2)])
    assert store.list("") == []


def test_a_sealed_file_is_not_written_again(store: Store) -> None:
    """A reader that has it open would be disturbed."""
    first = seal_table(store, FACES, "v", 0, 0, faces(5))
    before = Path(store.uri(first.path)).stat()
    assert seal_table(store, FACES, "v", 0, 0, faces(5)) == first
    after = Path(store.uri(first.path)).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    other = seal_table(store, FACES, "v", 0, 0, faces(6))
    assert other.path != first.path and len(store.list("tables")) == 2


def test_no_rows_make_no_file(store: Store) -> None:
    """Thousands of empty files, or an entry that names a file that is not there."""
    assert (
        seal_table(store, FACES, "v", 0, 0, FACES.empty())
        == NOTHING
        == seal_stream(store, IMAGES, "v", 0, 0, [])
    )
    assert store.list("") == []
    assert read(store, FACES, "").equals(FACES.empty().select(FACES.light))
    assert read(store, IMAGES, "", ["image_id", "bytes"]).column_names == ["image_id", "bytes"]


# what is read


def test_pictures_are_left_out_unless_asked_for(store: Store) -> None:
    """Planning would load every image of the dataset."""
    sealed = seal_table(store, IMAGES, "v", 0, 0, images(3))
    assert read(store, IMAGES, sealed.path).column_names == list(IMAGES.light)
    found = read(store, IMAGES, sealed.path, ["bytes", "image_id"])
    assert found.column_names == ["bytes", "image_id"] and found["bytes"][2].as_py().startswith(
        b"00000002"
    )


def test_pictures_are_stored_as_they_are_in_small_groups(store: Store) -> None:
    """Reading a slice would decompress a chunk, and compressing JPEGs would cost time for
    nothing.
    """
    sealed = seal_table(store, IMAGES, "v", 0, 0, images(100, size=1000))
    with pq.ParquetFile(store.uri(sealed.path)) as file:
        groups = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
        codecs = {
            g.column(i).path_in_schema: g.column(i).compression
            for g in groups
            for i in range(g.num_columns)
        }
    assert [g.num_rows for g in groups] == [32, 32, 32, 4]
    assert codecs.pop("bytes") == "UNCOMPRESSED" and set(codecs.values()) == {"ZSTD"}
    assert b"00000099" + bytes(1000) in store.read(sealed.path)
    sealed = seal_table(store, FACES, "v", 0, 0, faces(100))
    with pq.ParquetFile(store.uri(sealed.path)) as file:
        assert file.num_row_groups == 1


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(0, 100), st.sets(st.integers(0, 120), max_size=8), st.booleans())
def test_where_finds_the_right_rows_in_every_group(
    store: Store, count: int, chosen: set[int], pictures: bool
) -> None:
    """A stage would compute on the image of somebody else, or miss one at the edge of a row
    group.
    """
    table = images(count)
    sealed = seal_table(store, IMAGES, "v", 0, 0, table)
    names = ["bytes", "image_id"] if pictures else ["status", "sha256"]
    found = read(store, IMAGES, sealed.path, names, ("image_id", {f"i{n:05d}" for n in chosen}))
    assert found.equals(
        table.select(names).take(pa.array(sorted(n for n in chosen if n < count), pa.int64()))
    )


def test_where_may_name_people(store: Store) -> None:
    """A person whose images lie in two row groups would be clustered without half of them."""
    sealed = seal_table(store, IMAGES, "v", 0, 0, images(100))
    assert read(store, IMAGES, sealed.path, ["image_id"], ("identity_id", ["p1"])).num_rows == 40
    assert (
        read(store, IMAGES, sealed.path, ["image_id"], ("identity_id", ["p0", "p2", "p9"])).num_rows
        == 60
    )


def test_entries_are_read_one_after_the_other(store: Store) -> None:
    """A table of several chunks would be in another order each time; one without rows would stop
    the reader.
    """
    entries = [
        seal_table(store, FACES, "v", 0, chunk, table).entry(FACES, "v", 0, chunk, "basis")
        for chunk, table in enumerate([faces(3), FACES.empty(), faces(4)])
    ]
    assert read_entries(store, "faces", entries).equals(pa.concat_tables([faces(3), faces(4)]))
    assert read_entries(store, "faces", [], ["face_id"]).equals(FACES.empty().select(["face_id"]))
    second = read_entries(store, "faces", entries, ["image_id", "face_id"], ("face_id", ["f1"]))
    assert second.to_pylist() == [{"image_id": "i1", "face_id": "f1"}] * 2


# streams of images


def slices(table: pa.Table) -> list[pa.Table]:
    return [table.slice(start, SLICE_ROWS) for start in range(0, table.num_rows, SLICE_ROWS)]


@pytest.mark.parametrize("count", [1, 31, 32, 33, 100])
def test_a_stream_seals_what_a_table_seals(store: Store, tmp_path: Path, count: int) -> None:
    """A chunk too large for memory would be another file than a small one with the same rows."""
    table = images(count)
    streamed = seal_stream(store, IMAGES, "v", 2, 3, iter(slices(table)))
    there = read(store, IMAGES, streamed.path, IMAGES.names)
    assert there.equals(table)
    assert streamed == seal_table(Store(tmp_path / "other"), IMAGES, "v", 2, 3, table)
    assert seal_stream(store, IMAGES, "v", 2, 3, slices(cut(table, [count // 2]))) == streamed
    assert store.list("") == [streamed.path]


def test_a_stream_that_breaks_off_leaves_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a chunk of images would be taken for a whole one, or the disk for temporary files
    would fill up.
    """
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def broken() -> Any:
        yield images(32)
        raise RuntimeError("a part is gone")

    with pytest.raises(RuntimeError, match="a part is gone"):
        seal_stream(store, IMAGES, "v", 0, 0, broken())
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    seal_stream(store, IMAGES, "v", 0, 0, [images(2)])
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


# damaged and missing


@pytest.mark.parametrize("root", ["root", "with blank", "100%41", "Zoë-图片", "a:b"])
def test_a_missing_file_is_named(tmp_path: Path, root: str) -> None:
    """A stack trace, and nobody would know that a file of the dataset was deleted by hand."""
    store = Store(tmp_path / root)
    path = sealed_path("faces", "v", 0, 0, "0" * 32)
    with pytest.raises(DamagedFile) as caught:
        read(store, FACES, path)
    assert store.uri(path) in str(caught.value) and "`idcluster snapshots`" in str(caught.value)


@pytest.mark.parametrize("damage", ["empty", "half", "no end", "text"])
@pytest.mark.parametrize("where", [None, ("face_id", ["f1"])])
def test_a_damaged_file_is_named_with_the_remedy(store: Store, damage: str, where: Any) -> None:
    """A disk error would look like a defect of the program."""
    path = seal_table(store, FACES, "v", 0, 0, faces(500)).path
    data = store.read(path)
    store.put(
        path,
        {"empty": b"", "half": data[: len(data) // 2], "no end": data[:-8], "text": b"x" * 100}[
            damage
        ],
    )
    with pytest.raises(
        DamagedFile, match=r"cannot be read \(.*\); bring it back from a copy, or `idcluster check"
    ) as caught:
        read(store, FACES, path, where=where)
    assert store.uri(path) in str(caught.value)


def test_a_damaged_page_is_named(store: Store) -> None:
    """Nonsense instead of names and hashes would be computed on."""
    path = seal_table(store, FACES, "v", 0, 0, faces(500)).path
    data = bytearray(store.read(path))
    with pq.ParquetFile(io.BytesIO(bytes(data))) as file:
        column = file.metadata.row_group(0).column(2)
    middle = column.data_page_offset + 60
    data[middle : middle + 40] = bytes(40)
    store.put(path, bytes(data))
    with pytest.raises(DamagedFile, match="cannot be read"):
        read(store, FACES, path)


def test_a_file_of_another_schema_is_named(store: Store) -> None:
    """A file of an older version would be read as if columns were empty."""
    path = "tables/faces/old.parquet"
    sink = io.BytesIO()
    pq.write_table(faces(3).drop_columns(["box"]), sink)
    store.put(path, sink.getvalue())
    with pytest.raises(SchemaError, match=r"tables/faces/old\.parquet: table 'faces' .* lacks box"):
        read(store, FACES, path)


# names


def test_names_of_files_are_what_the_design_says() -> None:
    """Files of earlier runs would not be found again, and two versions would share a file."""
    digest = "0123456789abcdef" * 2
    assert (
        sealed_path("faces", "89ab", 7, 3, digest)
        == "tables/faces/v=89ab/bucket=00007/chunk-00003-01234567.parquet"
    )
    assert (
        sealed_path("identities", "v", 7, WHOLE, digest)
        == "tables/identities/v=v/bucket=00007/chunk-all-01234567.parquet"
    )
    assert (
        part_path("faces", "v", 7, "00003-00001", digest)
        == f"parts/faces/v=v/bucket=00007/00003-00001-{digest}.parquet"
    )
    assert [bucket_name(n) for n in (0, 99999, 100000, WHOLE)] == [
        "00000",
        "99999",
        "100000",
        "all",
    ]


def test_an_entry_says_what_was_sealed(store: Store) -> None:
    """A plan would see rows of another chunk, or show what is no longer wanted."""
    sealed = seal_table(store, FACES, "v", 1, 2, faces(5))
    for live in (True, False):
        entry = sealed.entry(FACES, "v", 1, 2, "b", live=live)
        assert (entry.table, entry.version, entry.bucket, entry.chunk, entry.basis) == (
            "faces",
            "v",
            1,
            2,
            "b",
        )
        assert (entry.file, entry.rows, entry.bytes, entry.digest) == (
            sealed.path,
            5,
            sealed.bytes,
            sealed.digest,
        )
        assert entry.live == entry.current == live


def test_a_file_from_before_a_column_was_there_has_nulls_in_it(store: Store) -> None:
    """A dataset that a program of last year began could not be gone on with."""
    schema = TABLES["candidates"]
    rows = [
        {
            "identity_id": "p",
            "image_id": f"i{n}",
            "address": f"a{n}",
            "source": "s",
            "rank": n,
            "status": "ok",
            "inputs": bytes(8),
        }
        for n in range(5)
    ]
    old = schema.build(rows).drop_columns(["split", "attributes"])
    sink = io.BytesIO()
    pq.write_table(old, sink)
    store.put("old.parquet", sink.getvalue())
    for place, where, count in (
        ("old.parquet", None, 5),
        ("old.parquet#1+3", None, 3),
        ("old.parquet", ("image_id", ["i2"]), 1),
        ("old.parquet", ("image_id", ["x"]), 0),
        ("old.parquet#1+3", ("image_id", ["i2", "i4"]), 1),
    ):
        table = read(store, schema, place, None, where)
        assert table.num_rows == count and table.column_names == list(schema.names)
        assert table["split"].null_count == table["attributes"].null_count == count
    assert read(store, schema, "old.parquet", ["split", "image_id"])["image_id"].to_pylist() == [
        f"i{n}" for n in range(5)
    ]
