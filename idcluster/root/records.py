"""What runs left behind: their records in `runs/`, as rows."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from idcluster.root.storage import Store
from schemas.runs import RUNS


def runs_table(store: Store) -> pa.Table:
    """One row a record in `runs/`. Records of other versions of the program are read as far as they
    are understood.
    """
    rows = []
    for path in store.list("runs"):
        if not path.endswith(".json"):
            continue
        try:
            record = json.loads(store.read(path))
        except (OSError, ValueError):
            continue
        if isinstance(record, dict):
            rows.append(_run_row(record, path.rsplit("/", 1)[-1].removesuffix(".json")))
    return pa.Table.from_pylist(rows, schema=RUNS.arrow)


def _run_row(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    started, finished = _time(record.get("started")), _time(record.get("finished"))
    seconds = _number(record.get("seconds"))
    if seconds is None and started and finished:
        seconds = (finished - started).total_seconds()
    return {
        "run_id": str(record.get("run_id", name)),
        "started": started,
        "finished": finished,
        "status": None if record.get("status") is None else str(record["status"]),
        "seconds": seconds,
        "snapshot": _whole(record.get("snapshot")),
        "stages": _stage_rows(record.get("stages")),
        "phases": _phases(record.get("phases")),
        "error": None if record.get("error") is None else str(record["error"]),
        "record": json.dumps(record, ensure_ascii=False, sort_keys=True),
    }


def _stage_rows(value: Any) -> list[dict[str, Any]]:
    """Of `{stage: {...}}` or `[{"stage": ..., ...}]`."""
    if isinstance(value, Mapping):
        value = [
            {"stage": name, **(row if isinstance(row, Mapping) else {"rows": row})}
            for name, row in value.items()
        ]
    if not isinstance(value, list):
        return []
    return [
        {
            "stage": str(row.get("stage", row.get("name"))),
            **{name: _whole(row.get(name)) for name in ("rows", "units", "adopted", "failed")},
            **{name: _number(row.get(name)) for name in ("seconds", "rows_per_second")},
        }
        for row in value
        if isinstance(row, Mapping)
    ]


def _phases(value: Any) -> list[dict[str, Any]]:
    return [
        {
            "stages": [str(name) for name in row.get("stages") or ()],
            **{name: _whole(row.get(name)) for name in ("members", "workers", "deaths")},
            **{name: _number(row.get(name)) for name in ("wall_seconds", "startup_seconds")},
            "bottleneck": None if row.get("bottleneck") is None else str(row["bottleneck"]),
        }
        for row in (value if isinstance(value, list) else ())
        if isinstance(row, Mapping)
    ]


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _time(value: Any) -> datetime | None:
    """Of ISO 8601 text or seconds since 1970."""
    try:
        if isinstance(value, str):
            found = datetime.fromisoformat(value)
            return found if found.tzinfo else found.replace(tzinfo=UTC)
        return datetime.fromtimestamp(value, UTC) if _number(value) is not None else None
    except (ValueError, OverflowError, OSError):
        return None
