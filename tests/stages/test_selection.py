"""Which faces the stages after cleaning look at: a face that was not kept must get no caption, mask
or head.
"""

from itertools import product

import pyarrow as pa
import pytest

from schemas.columns import floats, vectors
from stages.backends import backend


@pytest.mark.parametrize("stage", ["caption", "fit", "segment"])
def test_only_kept_faces_with_everything_there(stage: str) -> None:
    made = backend(stage)()
    tables = list(dict.fromkeys((*made.reads, *made.selects)))
    assert "clusters" in tables
    cases = [*product(["ok", "filtered", None], [True, False, None])]
    for broken in tables:
        rows = pa.table(
            {
                f"{table}.status": pa.array(
                    [status if table == broken else "ok" for status, _ in cases]
                )
                for table in tables
            }
            | {"clusters.keep": pa.array([keep for _, keep in cases])}
        )
        assert made.wants(rows).to_pylist() == [
            status == "ok" and keep is True for status, keep in cases
        ]


def test_columns_as_arrays() -> None:
    assert floats(pa.chunked_array([[1, None], [3]]))[[0, 2]].tolist() == [1, 3]
    lists = pa.chunked_array([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0]]], pa.list_(pa.float32()))
    assert vectors(lists.slice(1)).tolist() == [[3, 4], [5, 6]]
    with pytest.raises(ValueError, match="null"):
        vectors(pa.array([[1.0], None]))
    with pytest.raises(ValueError, match="lengths"):
        vectors(pa.array([[1.0], [1.0, 2.0]]))
