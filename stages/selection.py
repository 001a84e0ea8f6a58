"""Which faces the stages after cleaning look at."""

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from stages.stage import Stage

KEPT: Mapping[str, tuple[str, ...]] = {"clusters": ("keep",)}
"""The `selects` of a stage whose `wants` is `kept`."""


def kept(stage: Stage, rows: pa.Table) -> pa.ChunkedArray | pa.Array:
    """bool a row: every table that `stage` reads or selects says ok for it, and cleaning kept the
    face.
    """
    return pc.and_(Stage.wants(stage, rows), pc.fill_null(rows["clusters.keep"], False))
