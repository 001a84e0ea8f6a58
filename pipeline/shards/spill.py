"""Rows in another order than they come in, when they are too many for memory: put aside by
stretches, each then sorted alone.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

_PACKED = pa.ipc.IpcWriteOptions(compression="lz4")


class Spill:
    """Takes rows in any order and gives them by `keys`, the first of which tells the stretch: it
    ends with a value of `ends`.

    `ends` rise, and no row lies behind the last of them. `folder` has to be there; files of it stay
    open until `tables`.
    """

    def __init__(self, folder: Path, keys: Sequence[str], ends: Sequence[str]) -> None:
        self._folder, self._keys = folder, keys
        self._ends = np.array(ends)
        self._writers: dict[int, pa.ipc.RecordBatchFileWriter] = {}

    def add(self, rows: pa.Table) -> None:
        stretch = np.searchsorted(
            self._ends, rows[self._keys[0]].to_numpy(zero_copy_only=False).astype(str)
        )
        for number in np.unique(stretch).tolist():
            if number not in self._writers:
                self._writers[number] = pa.ipc.new_file(
                    str(self._path(number)), rows.schema, options=_PACKED
                )
            self._writers[number].write_table(rows.take(np.flatnonzero(stretch == number)))

    def tables(self) -> Iterator[pa.Table]:
        """The rows of each stretch, in order. May be asked once."""
        for writer in self._writers.values():
            writer.close()
        for number in sorted(self._writers):
            path = self._path(number)
            with pa.OSFile(str(path)) as file, pa.ipc.open_file(file) as reader:
                yield in_order(reader.read_all(), self._keys)
            path.unlink()

    def close(self) -> None:
        """Let go of all files; what was not yet given is lost."""
        for writer in self._writers.values():
            writer.close()

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:06d}.arrow"


def in_order(rows: pa.Table, keys: Sequence[str]) -> pa.Table:
    return rows.sort_by([(key, "ascending") for key in keys])
