"""The list of check sums in a file: no reader of Parquet sees it, and no byte changes without being
found.
"""

import io
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idcluster.root.checksums import MARK, WrongBytes, add_sums, compare_all, read_sums, with_sums

TABLE = pa.table(
    {
        "name": ["Ada", None, "Zoë"] * 40,
        "vector": [[1.0, 2.0], [], [3.0]] * 40,
        "n": list(range(120)),
    }
)


def parquet(table: pa.Table = TABLE, rows: int = 50) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=rows, compression="zstd", write_page_checksum=True)
    return sink.getvalue()


@pytest.mark.parametrize("rows", [1, 50, 200])
def test_readers_see_the_same_table(tmp_path: Path, rows: int) -> None:
    data = with_sums(parquet(rows=rows))
    file = tmp_path / "a.parquet"
    file.write_bytes(data)
    assert pq.read_table(file).equals(TABLE)
    assert duckdb.read_parquet(str(file)).fetchall() == duckdb.from_arrow(TABLE).fetchall()
    sums = read_sums(lambda start, length: data[start : start + length], len(data))
    assert sums is not None and pq.read_metadata(io.BytesIO(sums.footer)).num_rows == 120


def test_on_disk_it_is_the_same_as_in_memory(tmp_path: Path) -> None:
    for table in (TABLE, TABLE.slice(0, 0)):
        file = tmp_path / "a.parquet"
        file.write_bytes(parquet(table))
        add_sums(file)
        assert file.read_bytes() == with_sums(parquet(table))


def test_no_byte_changes_without_being_found() -> None:
    data = with_sums(parquet(TABLE.slice(0, 6)))
    for at in range(4, len(data)):
        flipped = bytearray(data)
        flipped[at] ^= 1 << at % 8
        # Where the list is not known for one any more, readers compare the whole file.
        is_list = MARK in flipped and flipped[-8:-4] == data[-8:-4]
        if is_list:
            with pytest.raises(WrongBytes):
                compare_all(bytes(flipped))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 400), st.integers(1, 400))
def test_what_a_stretch_touches_is_compared_and_no_more(start: int, length: int) -> None:
    data = with_sums(parquet())
    sums = read_sums(lambda at, count: data[at : at + count], len(data))
    assert sums is not None
    first, stop = sums.unseen(start, start + length)
    if first < stop:
        assert first <= max(start, 4) and stop >= min(start + length, sums.stop)
        sums.compare(first, data[first:stop])
        assert sums.unseen(start, start + length) == (start, start)


def test_a_file_without_a_list_has_none() -> None:
    data = parquet()
    assert read_sums(lambda start, length: data[start : start + length], len(data)) is None
    compare_all(data)
    with pytest.raises(WrongBytes):
        compare_all(data[:-1])
    with pytest.raises(WrongBytes):
        compare_all(b"")
