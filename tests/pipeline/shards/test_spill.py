"""Rows put aside and given in order: the same rows, whatever the order in which they came."""

import tempfile
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.shards.spill import Spill, in_order

PEOPLE = st.text("0123456789abcdef", min_size=1, max_size=3)
KEYS = ("person", "picture")


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.lists(st.tuples(PEOPLE, st.integers(0, 99)), unique=True, max_size=12), max_size=5),
    st.sets(PEOPLE, max_size=4),
)
def test_stretches_one_after_the_other_are_all_rows_in_order(
    parts: list[list[tuple[str, int]]], ends: set[str]
) -> None:
    types = pa.schema([("person", pa.string()), ("picture", pa.int64())])
    tables = [
        pa.table({"person": [who for who, _ in part], "picture": [n for _, n in part]}, types)
        for part in parts
    ]
    everything = pa.concat_tables([types.empty_table(), *tables])
    last = max([*everything["person"].to_pylist(), *ends], default="f")
    with tempfile.TemporaryDirectory() as folder:
        spill = Spill(Path(folder), KEYS, sorted({*ends, last}))
        for table in tables:
            spill.add(table)
        found = list(spill.tables())
        assert list(Path(folder).iterdir()) == []
    assert (
        pa.concat_tables([types.empty_table(), *found]).to_pylist()
        == in_order(everything, KEYS).to_pylist()
    )
    bounds = [(table["person"][0].as_py(), table["person"][-1].as_py()) for table in found]
    assert all(end < start for (_, end), (start, _) in pairwise(bounds)), (
        "each is a stretch of its own"
    )
