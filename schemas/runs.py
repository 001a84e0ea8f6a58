"""What ran: the records of runs as rows."""

import pyarrow as pa

from schemas.schema import Column, TableSchema

_TEXT, _INT, _FLOAT, _TIME = pa.string(), pa.int64(), pa.float64(), pa.timestamp("us", tz="UTC")
# fmt: off
_STAGE = pa.struct(
    {
        "stage": _TEXT, "rows": _INT, "units": _INT, "adopted": _INT, "failed": _INT,
        "seconds": _FLOAT, "rows_per_second": _FLOAT,
    }
)
# fmt: on
# fmt: off
_PHASE = pa.struct(
    {
        "stages": pa.list_(_TEXT), "members": _INT, "workers": _INT, "wall_seconds": _FLOAT,
        "startup_seconds": _FLOAT, "deaths": _INT,
        "bottleneck": _TEXT,
    }
)
# fmt: on

# fmt: off
RUNS = TableSchema(
    "runs", 1, "run", "What ran: one row a record in `runs/`.", "run_id", None, None,
    (
        Column("run_id", _TEXT, "name of the record, without .json", nullable=False, text=False),
        Column("started", _TIME, "when"),
        Column("finished", _TIME, "when"),
        Column("status", _TEXT, "done, drained (stopped as asked) or failed", text=False),
        Column("seconds", _FLOAT, "from the first to the last"),
        Column("snapshot", _INT, "the newest one when it ended"),
        Column("stages", pa.list_(_STAGE),
            "by stage: rows written, units computed, rows taken over from an interrupted run, "
            "rows that "
               "failed, seconds of its workers, rows a second by the wall clock of its phase",
               text=False),
        Column("phases", pa.list_(_PHASE),
            "stages that ran together: units, workers, seconds by the wall clock, seconds before "
            "the first "
               "worker began, workers that died, the activity that took most of the time",
               text=False),
        Column("error", _TEXT, "of one that failed", text=True),
        Column("record", _TEXT, "the whole record as JSON", text=True),
    ),
)
# fmt: on
