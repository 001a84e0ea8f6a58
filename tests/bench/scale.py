"""What metadata costs as a dataset grows: planning, publishing, taking in, collecting and querying,
on synthetic roots.

`python tests/bench/run.py scale --full` goes up to the size of the largest published set (23,042
people, 11.5 million images offered), which takes 5 GB of disk and about ten minutes on two free
cores, and writes SCALE.md beside this file.
"""

import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from idcluster.catalogue.connection import connect
from idcluster.root.snapshot import Snapshot, load, path_of, publish
from idcluster.root.storage import Store
from pipeline.dag import SHARD, shard_params
from pipeline.execution.intake import take_in
from pipeline.execution.snapshot_tables import SnapshotTables
from pipeline.execution.work import find_work, phases, tasks
from pipeline.gc import collect
from pipeline.shards.writing import plan_shards
from schemas.fetched import Fetched
from tests.bench import synthetic
from tests.bench.synthetic import SIZES, SOURCE, Size, build, dag

SOME, FULL = ("small", "tenth"), ("small", "tenth", "paper")
GOAL = Size(1_000_000, 500_000_000, 78_000_000)
CHANGED = 300
"""Entries that are replaced when a publication is measured: a minute's work."""
LISTED = 1000
"""Names that an object store gives in answer to one request."""

QUERIES = {
    "rows by status": "SELECT status, reason, count(*) FROM images GROUP BY ALL",
    "kept faces a person": "SELECT count(*), avg(n) FROM (SELECT identity_id, count(*) n FROM "
    "clusters WHERE keep GROUP BY ALL)",
    "mean similarity of kept faces": "SELECT avg(similarity) FROM clusters WHERE keep",
    "captions of one person": "SELECT count(caption) FROM captions WHERE identity_id = (SELECT "
    "min(identity_id) FROM identities)",
    "kept faces joined with images": "SELECT format, count(*) FROM clusters JOIN images USING "
    "(image_id) WHERE keep GROUP BY ALL",
}


class CountingStore(Store):
    """A store that counts listings and the names in them."""

    listings = names = 0

    def list(self, prefix: str, few: bool = False) -> list[str]:
        found = super().list(prefix, few)
        self.listings += 1
        self.names += len(found)
        return found


class Listing:
    """The source of a synthetic root."""

    name = SOURCE
    web = False

    def __init__(self, size: Size) -> None:
        self.listed = synthetic.people(size)

    def check(self) -> None:
        return None

    def people(self) -> tuple[list[Any], list[str]]:
        return self.listed, []

    def fetch(self, addresses: Any) -> list[Fetched]:
        raise NotImplementedError


def main() -> None:
    full = "--full" in sys.argv
    measured: dict[str, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(
        prefix="idcluster-bench-", dir=os.environ.get("TMPDIR")
    ) as place:
        for name in FULL if full else SOME:
            measured[name] = _measure(Path(place) / name, SIZES[name])
    text = report(measured)
    Console(width=130).print(_table(measured))
    if full:
        (Path(__file__).parent / "SCALE.md").write_text(text)


def _measure(root: Path, size: Size) -> dict[str, dict[str, float]]:
    start = time.perf_counter()
    build(root, size)
    found = {"make the root": {"seconds": time.perf_counter() - start}}
    for what in MEASURES:
        # Each in a process of its own, for its memory.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found[what] = pool.apply(_one, (what, str(root), size))
    return found


def _one(what: str, root: str, size: Size) -> dict[str, float]:
    prepare, act = MEASURES[what]
    store = CountingStore(root)
    ready = prepare(store, size)
    before = _memory()
    store.listings = store.names = 0
    wall, processor = time.perf_counter(), time.process_time()
    result = act(store, ready)
    found = {"seconds": time.perf_counter() - wall, "processor": time.process_time() - processor}
    more = result if isinstance(result, Mapping) else {}
    return {
        **found,
        "memory": _memory(),
        "before": before,
        "listings": store.listings,
        "names": store.names,
        **more,
    }


def _memory() -> float:
    """Most bytes that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# What is measured: what is made ready beforehand, and what is timed.


def _newest(store: Store, size: Size) -> Snapshot:
    return load(store)


def _nothing(store: Store, size: Size) -> None:
    return None


def _crawled(store: Store, size: Size) -> Snapshot:
    """The dataset as it is before detection."""
    snapshot = load(store)
    return Snapshot(
        snapshot.number,
        tuple(e for e in snapshot.entries if e.table in ("identities", "candidates", "images")),
    )


def _load(store: Store, ready: None) -> dict[str, float]:
    snapshot = load(store)
    return {"entries": len(snapshot.entries), "bytes": store.size(path_of(snapshot.number))}


def _publish(store: Store, ready: Snapshot) -> None:
    publish(store, ready.with_entries(ready.entries[:CHANGED]))


def _plan(*sets: str) -> Callable[[Store, Snapshot], dict[str, float]]:
    def plan(store: Store, ready: Snapshot) -> dict[str, float]:
        prepared = dag(Path(store.root), sets)
        view = SnapshotTables(store, ready, prepared.versions)
        found = find_work(view, prepared.stages)
        return {
            "tasks": sum(
                len(tasks(view, phase, found.findings)) for phase in phases(prepared.stages)
            )
        }

    return plan


def _listing(store: Store, size: Size) -> tuple[Snapshot, Listing]:
    return load(store), Listing(size)


def _take_in(store: Store, ready: tuple[Snapshot, Listing]) -> None:
    take_in(store, *ready, write=False)


def _plan_shards(store: Store, ready: Snapshot) -> dict[str, float]:
    plan = plan_shards(
        store, ready, shard_params(dag(Path(store.root)).dag.stages[SHARD]), write=False
    )
    return {"samples": sum(shard.samples for shard in plan.shards)}


def _collect(store: Store, ready: None) -> dict[str, float]:
    return {"deleted": len(collect(store, 1, "bench").files)}


def _connect(store: Store, ready: Snapshot) -> None:
    connect(store, ready).close()


def _query(sql: str) -> Callable[[Store, Any], None]:
    return lambda store, connection: connection.execute(sql).fetchall()


def _count(store: Store, ready: None) -> dict[str, float]:
    paths = [path for path in store.list("") if not path.startswith("snapshots/.")]
    blobs = sum(
        path.split("/")[1] in ("images", "masks") for path in paths if path.startswith("tables/")
    )
    size = sum(store.size(path) for path in paths)
    return {"objects": len(paths), "with images": blobs, "bytes": size}


MEASURES: dict[str, tuple[Callable[[Store, Size], Any], Callable[[Store, Any], Any]]] = {
    "count objects": (_nothing, _count),
    "load the snapshot": (_nothing, _load),
    "publish": (_newest, _publish),
    "plan: nothing to do": (_newest, _plan()),
    "plan: detect everything": (_crawled, _plan()),
    "plan: another threshold": (_newest, _plan("stages.clean.params.similarity_threshold=0.77")),
    "plan the shards": (_newest, _plan_shards),
    "intake: nothing new": (_listing, _take_in),
    "gc": (_nothing, _collect),
    "open the catalogue": (_newest, _connect),
    **{
        f"query: {name}": (lambda store, size: connect(store), _query(sql))
        for name, sql in QUERIES.items()
    },
}


# How it is told


def _law(
    measured: Mapping[str, Mapping[str, Mapping[str, float]]], what: str, value: str
) -> tuple[float, float]:
    """The slope of y = a + b x through the two largest sizes, x being millions of images offered;
    and y at the goal.
    """
    one, two = list(measured)[-2:]
    low, high = measured[one][what][value], measured[two][what][value]
    x1, x2 = SIZES[one].candidates / 1e6, SIZES[two].candidates / 1e6
    slope = (high - low) / (x2 - x1)
    return slope, high + slope * (GOAL.candidates / 1e6 - x2)


def _table(measured: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Table:
    table = Table(
        title="seconds (of them on the processor), and the most memory",
        title_justify="left",
        box=None,
    )
    table.add_column("")
    for name in measured:
        table.add_column(f"{SIZES[name].candidates:,} images", justify="right")
    for what in MEASURES:
        table.add_row(what, *(_cell(found[what]) for found in measured.values()))
    return table


def _cell(found: Mapping[str, float]) -> str:
    return f"{found['seconds']:.2f} ({found['processor']:.2f}), {found['memory'] / 1e6:,.0f} MB"


def report(measured: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """The text of SCALE.md."""
    from tests.bench.run import machine

    sizes = [SIZES[name] for name in measured]
    cores = multiprocessing.cpu_count()
    lines = [
        "# What metadata costs as a dataset grows",
        "",
        "Written by `python tests/bench/run.py scale --full`; not edited by hand.",
        "",
        f"Machine: {machine()}; a local disk; {date.today():%d %B %Y}.",
        f"Load of the machine when this was written: {os.getloadavg()[2]:.1f} over 15 minutes on "
        f"{cores} cores. Where it is above 1 or so,",
        "others worked on it too, and seconds on the processor say more than seconds.",
        "",
        "## Measured",
        "",
        "Synthetic roots (`tests/bench/synthetic.py`): all tables of the quickstart DAG with "
        "every row, real files and a real snapshot;",
        "images and masks are null, vectors have 16 numbers. Each line is a process of its own.",
        "Cells: seconds (of them on the processor), the most memory of the process with all that "
        "was loaded before.",
        "",
        _row(
            "", *(f"{s.people:,} people, {s.candidates:,} images, {s.kept:,} kept" for s in sizes)
        ),
        _row("---", *("---:" for _ in sizes)),
        *(
            _row(what, *(_cell(found[what]) for found in measured.values()))
            for what in MEASURES
            if what != "count objects"
        ),
        "",
        f"Publish: {CHANGED} entries replaced, encoded, and put. Plan: finding the work, and "
        "tasks, the "
        "snapshot loaded before. Plan the shards:",
        "what is in which, and a hash of each; nothing is put. Intake: the source lists "
        "everything again; the listing itself is in",
        "memory before. Queries: without opening the catalogue.",
        "",
        _row("", *(f"{s.candidates:,} images" for s in sizes)),
        _row("---", *("---:" for _ in sizes)),
    ]
    facts = {
        "entries of the snapshot": ("load the snapshot", "entries"),
        "bytes of the snapshot": ("load the snapshot", "bytes"),
        "objects in the root": ("count objects", "objects"),
        "of them with images or masks": ("count objects", "with images"),
        "bytes of the root": ("count objects", "bytes"),
        "tasks to detect everything": ("plan: detect everything", "tasks"),
        "listings by load": ("load the snapshot", "listings"),
        "listings by a plan, a publication, a query": ("plan: detect everything", "listings"),
        "listings by gc": ("gc", "listings"),
        "names that gc is given": ("gc", "names"),
    }
    lines += [
        _row(name, *(f"{found[what][value]:,.0f}" for found in measured.values()))
        for name, (what, value) in facts.items()
    ]
    lines += [
        "",
        f"An object store answers a listing with {LISTED:,} names a request. Finding the newest "
        "snapshot lists `snapshots/` alone,",
        "which `idcluster gc` keeps short. Of a finished bucket each table without images is "
        "one object; of images and masks each",
        "chunk is one, and what is no image in them one more for the bucket.",
        "",
        "## Extrapolated, not measured",
        "",
        f"To {GOAL.people:,} people and {GOAL.candidates:,} images, by a straight line through "
        "the two largest sizes above: all of this",
        "goes over lists once. Memory and seconds that do not fit a machine say that it would "
        "not work so.",
        "",
        _row("", "a million images", "at the goal"),
        _row("---", "---:", "---:"),
    ]
    for what in MEASURES:
        if what != "count objects":
            slope, value = _law(measured, what, "processor")
            lines.append(_row(f"{what}, seconds on the processor", f"{slope:.3f}", f"{value:,.0f}"))
    for what in ("load the snapshot", "plan: detect everything", "intake: nothing new"):
        slope, value = _law(measured, what, "memory")
        lines.append(_row(f"{what}, GB of memory", f"{slope / 1e9:.3f}", f"{value / 1e9:,.0f}"))
    for name, (what, fact) in facts.items():
        if max(found[what][fact] for found in measured.values()) > 10:
            slope, at_goal = _law(measured, what, fact)
            lines.append(_row(name, f"{slope:,.0f}", f"{at_goal:,.0f}"))
    slope, names = _law(measured, "gc", "names")
    lines += [
        _row("requests to list by gc", f"{slope / LISTED:,.1f}", f"{names / LISTED:,.0f}"),
        "",
        "What grows with the number of images and is held whole is the snapshot and the "
        "source's listing: they, not the tables, are",
        "what a dataset of that size would outgrow first.",
        "",
    ]
    return "\n".join(lines)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
