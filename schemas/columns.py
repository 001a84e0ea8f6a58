"""Arrow columns as numpy arrays, without a Python object a value."""

import numpy as np
import pyarrow as pa


def floats(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """A numeric column as (n,) float64, null as nan."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    values: np.ndarray = array.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return values


def vectors(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """A column of equally long lists as (n, d) float32. Raises ValueError for nulls and lists of
    different lengths.
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if not len(array):
        return np.zeros((0, 0), dtype=np.float32)
    lengths = np.diff(array.offsets.to_numpy())
    if array.null_count or (lengths != lengths[0]).any():
        raise ValueError(
            f"{array.null_count} of {len(array)} vectors are null; lengths are "
            f"{sorted(set(lengths.tolist()))}"
        )
    flat: np.ndarray = array.flatten().to_numpy(zero_copy_only=False)
    return flat.astype(np.float32, copy=False).reshape(len(array), -1)
