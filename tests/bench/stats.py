"""What numbers about a dataset cost: opening the catalogue, every statistic, and the report, on a
synthetic root.

`python tests/bench/run.py stats --full` does it at the size of the largest published set (23,042
people, 11.5 million images offered, 1.8 million kept) and writes STATS.md beside this file.
Making that root takes 5 GB of disk and ten minutes on two free cores; BENCH_ROOTS=FOLDER keeps it
for the next time.
"""

import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from idcluster.catalogue.connection import connect
from idcluster.catalogue.snapshot_files import Verify
from idcluster.catalogue.statistics import STATISTICS
from idcluster.root.storage import Store
from pipeline.report.dataset_page import write_report
from tests.bench.synthetic import SIZES, Size, build

SOME, FULL = "tenth", "paper"
TIMES = 3
"""Each is measured so often, in a process of its own, and the quickest told: others work on the
machine too.
"""

Cost = dict[str, float]


def main() -> None:
    name = FULL if "--full" in sys.argv else SOME
    kept = os.environ.get("BENCH_ROOTS")
    with tempfile.TemporaryDirectory(
        prefix="idcluster-bench-", dir=os.environ.get("TMPDIR")
    ) as place:
        root = Path(kept or place) / name
        if not (root / "dataset.json").exists():
            build(root, SIZES[name])
        found = measure(root)
    Console(width=130).print(_table(found))
    if name == FULL:
        (Path(__file__).parent / "STATS.md").write_text(report(found, SIZES[name]))


def measure(root: Path) -> dict[str, Cost]:
    """Seconds, seconds on the processor, and bytes of memory, by what was done."""
    asked = ["open", *STATISTICS, "all statistics", "report"]
    found: dict[str, Cost] = {}
    for what in asked:
        for _ in range(TIMES):
            # Turn by turn, so that whoever else works on the machine slows both.
            bare = _in_a_process(what, root, "none") if what != "report" else {}
            cost = _in_a_process(what, root, "crc")
            before = found.get(what, cost)
            unverified = min(
                before.get("unverified", bare.get("processor", 0.0)), bare.get("processor", 0.0)
            )
            found[what] = {
                **min(before, cost, key=lambda cost: cost["seconds"]),
                "unverified": unverified,
            }
            found[what]["processor"] = min(before["processor"], cost["processor"])
    return found


def _in_a_process(what: str, root: Path, verify: Verify) -> Cost:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_one, (what, str(root), verify))


def _one(what: str, root: str, verify: Verify) -> Cost:
    store = Store(root)
    connect(store, 0).close()  # what is imported when first needed
    actions: dict[str, Callable[[], Any]] = {
        "open": lambda: connect(store, verify=verify),
        "report": lambda: _report(store),
    }
    if what in actions:
        return _timed(actions[what])
    connection = connect(store, verify=verify)
    if what == "all statistics":
        return _timed(lambda: [query(connection) for query in STATISTICS.values()])
    return _timed(lambda: STATISTICS[what](connection))


def _report(store: Store) -> Cost:
    with tempfile.TemporaryDirectory() as folder:
        made = write_report(store, Path(folder) / "report.html", 12)
        return {"bytes": made.path.stat().st_size}


def _timed(action: Callable[[], Any]) -> Cost:
    wall, processor = time.perf_counter(), time.process_time()
    made = action()
    more = made if isinstance(made, dict) else {}
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "seconds": time.perf_counter() - wall,
        "processor": time.process_time() - processor,
        "memory": memory,
        **more,
    }


def _rows(found: dict[str, Cost]) -> list[tuple[str, ...]]:
    return [
        (
            what,
            f"{cost['seconds']:.2f}",
            f"{cost['processor']:.2f}",
            f"{cost['processor'] / cost['unverified']:.2f}" if cost["unverified"] > 0.05 else "",
            f"{cost['memory'] / 1e6:,.0f}",
        )
        for what, cost in found.items()
    ]


def _table(found: dict[str, Cost]) -> Table:
    table = Table(
        title=f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores",
        title_justify="left",
        box=None,
    )
    for column in ("", "seconds", "of the processor", "by that of unverified", "MB of memory"):
        table.add_column(column, justify="right" if column else "left")
    for row in _rows(found):
        table.add_row(*row)
    return table


def report(found: dict[str, Cost], size: Size) -> str:
    """The text of STATS.md."""
    from tests.bench.run import machine

    lines = [
        "# What numbers about a dataset cost",
        "",
        "Written by `python tests/bench/run.py stats --full`; not edited by hand.",
        "",
        f"Machine: {machine()}; a local disk; {date.today():%d %B %Y}.",
        f"Load of the machine when this was written: {os.getloadavg()[2]:.1f} over 15 minutes on "
        f"{os.cpu_count()} cores. Where it is above",
        "1 or so, others worked on it too, and a statistic had one core or less instead of two.",
        "",
        f"A synthetic root (`tests/bench/synthetic.py`) of {size.people:,} people, "
        f"{size.candidates:,} images offered and",
        f"{size.kept:,} kept: finished buckets, compacted. Each is done {TIMES} times in a "
        "process and a connection of its own, and",
        "the quickest told: statistics without opening the catalogue, the report with "
        "everything. `funnel`, `reasons` and those",
        "of people share one count, which only the first of them in a connection pays.",
        "",
        "| | seconds | of the processor | by that of `verify='none'` | MB of memory |",
        "| --- | ---: | ---: | ---: | ---: |",
        *(f"| {' | '.join(row)} |" for row in _rows(found)),
        "",
        f"The report is a file of {found['report']['bytes'] / 1e6:.1f} MB.",
        "",
    ]
    return "\n".join(lines)
