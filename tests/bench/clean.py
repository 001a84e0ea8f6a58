"""Cleaning: the whole stage and its groups against scikit-learn loops, one person of many faces,
and all people compared.

23,042 people (as many as FlashFace's data set has) with 80 to 500 faces each and 512 numbers a face
are made up, written to Parquet and read again, a share at a time; by default 1,000 of them, with
`--full` all. People have 20 % of other faces, half of them of one other person. Times are per 1,000
people and core.
"""

import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from schemas.columns import vectors
from stages.clean.groups import hang_together
from stages.clean.kmeans_paper import seed_of
from stages.clean.linkage import LinkageClean
from stages.clean.lloyd import kmeans
from stages.people.matches import near, pairs

PEOPLE, SOME, SHARE, WORKERS = 23_042, 1_000, 250, 2
WIDTH, LEAST, MOST = 512, 80, 500
CODECS = ("zstd", "none")
LIMITS = {
    "similarity_threshold": 0.4,
    "merge_cosine": 0.38,
    "join_cosine": 0.45,
    "duplicate_cosine": 0.97,
}
GROUPS = "average linkage"
ALONE = (700, 3_000, 10_000)
COMPARED = 20
"""People of a share whom scikit-learn clusters too."""
TASK = 4096
"""Faces after which a task of a run takes no more people."""
HASHES = 10_000_000
NO_SERVICES: Any = None


@dataclass
class Measured:
    """Sums over shares; `seconds` and `processor` by what was done."""

    people: int = 0
    faces: int = 0
    compared: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    processor: dict[str, float] = field(default_factory=dict)
    inertia: dict[str, float] = field(default_factory=dict)
    worst: float = 0.0
    memory: float = 0.0
    bytes: dict[str, int] = field(default_factory=dict)

    def time(self, what: str, act: Callable[[], Any]) -> Any:
        wall, processor = time.perf_counter(), time.process_time()
        result = act()
        self.seconds[what] = self.seconds.get(what, 0.0) + time.perf_counter() - wall
        self.processor[what] = self.processor.get(what, 0.0) + time.process_time() - processor
        return result

    def add(self, other: "Measured") -> None:
        self.people, self.faces, self.compared = (
            self.people + other.people,
            self.faces + other.faces,
            self.compared + other.compared,
        )
        for mine, theirs in (
            (self.seconds, other.seconds),
            (self.processor, other.processor),
            (self.inertia, other.inertia),
        ):
            for name, value in theirs.items():
                mine[name] = mine.get(name, 0.0) + value
        for name, size in other.bytes.items():
            self.bytes[name] = self.bytes.get(name, 0) + size
        self.worst, self.memory = max(self.worst, other.worst), max(self.memory, other.memory)


def main() -> None:
    people = PEOPLE if "--full" in sys.argv else SOME
    total, console = Measured(), Console(width=130)
    # Before numpy is loaded in the workers: one thread each.
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(
        prefix="idcluster-bench-", dir=os.environ.get("TMPDIR")
    ) as place:
        jobs = [(place, first, min(SHARE, people - first)) for first in range(0, people, SHARE)]
        with multiprocessing.get_context("spawn").Pool(WORKERS) as pool:
            for found in pool.imap_unordered(_share, jobs):
                total.add(found)
    took = time.perf_counter() - started
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        over_all = pool.apply(_over_all)
        alone = pool.apply(_alone)
    console.print(_table(total))
    ours, theirs = total.inertia["ours"], total.inertia["scikit-learn"]
    console.print(
        f"{total.people} people, {total.faces} faces; inertia {ours / theirs:.7f} of "
        f"scikit-learn's over {total.compared} people, "
        f"at worst {total.worst:.7f}; most memory of a worker {total.memory / 2**30:.2f} GiB; in "
        f"all {took:.0f} s"
    )
    console.print(over_all)
    console.print(alone)


def person(rng: np.random.Generator, count: int | None = None) -> np.ndarray:
    """(n, 512) float32 unit vectors of somebody with so many faces, by default 80 to 500."""
    count = int(rng.integers(LEAST, MOST + 1)) if count is None else count
    noise = rng.standard_normal((count, WIDTH), dtype=np.float32) / np.float32(WIDTH**0.5)
    centre, other = (_unit(rng.standard_normal((1, WIDTH), dtype=np.float32)) for _ in range(2))
    chance = rng.random((count, 1), dtype=np.float32)
    strangers = rng.standard_normal((count, WIDTH), dtype=np.float32) / np.float32(WIDTH**0.5)
    base = np.where(chance < 0.8, centre, np.where(chance < 0.9, other, strangers))
    likeness = rng.uniform(0.45, 0.75, (count, 1)).astype(np.float32)
    return _unit(np.sqrt(likeness) * base + np.sqrt(1 - likeness) * noise)


def _unit(values: np.ndarray) -> np.ndarray:
    found: np.ndarray = values / np.linalg.norm(values, axis=1, keepdims=True)
    return found


def _rows(first: int, count: int, each: int | None = None) -> pa.Table:
    """What the stage reads of `count` people, of `each` faces or of 80 to 500."""
    rng = np.random.default_rng(first)
    people = [person(rng, each) for _ in range(count)]
    sizes = [len(one) for one in people]
    faces = sum(sizes)
    ids = pa.array([f"{first:08x}{at:016x}" for at in range(faces)])
    offsets = pa.array(np.arange(faces + 1, dtype=np.int32) * WIDTH)
    number = {
        name: pa.array(rng.uniform(30, 300, faces).astype(np.float32))
        for name in ("faces.side", "faces.sharpness")
    }
    size = {
        name: pa.array(rng.integers(200, 3000, faces).astype(np.int32))
        for name in ("images.width", "images.height")
    }
    return pa.table(
        {
            "identity_id": pa.array(
                np.repeat([f"{first + at:016x}" for at in range(count)], sizes)
            ),
            "image_id": ids,
            "face_id": ids,
            "embeddings.vector": pa.ListArray.from_arrays(
                offsets, pa.array(np.concatenate(people).reshape(-1))
            ),
            "embeddings.recogniser": pa.array(["made_up"] * faces),
            **number,
            "images.phash": pa.array(rng.integers(1, 2**64, faces, dtype=np.uint64)),
            **size,
            "screenings.compared": pa.nulls(faces, pa.bool_()),
            "overrides.action": pa.nulls(faces, pa.string()),
        }
    )


def _share(job: tuple[str, int, int]) -> Measured:
    """One share of the people: made, written, read, clustered and cleaned, with one thread."""
    place, first, count = job
    found = Measured(people=count)
    rows = _rows(first, count)
    found.faces = rows.num_rows
    for codec in CODECS:
        path = Path(place) / f"{first}-{codec}.parquet"
        pq.write_table(rows, path, compression=codec, row_group_size=16_384)
        found.bytes[codec] = path.stat().st_size
        rows = found.time(f"read, {codec}", partial(pq.read_table, path, use_threads=False))
        path.unlink()
    with threadpool_limits(1):
        _cluster(found, rows, first)
        stage = LinkageClean(LIMITS)
        for task in _tasks(rows):
            found.time("stage run, default rule", partial(stage.run, task, {}, NO_SERVICES))
    found.memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return found


def _tasks(rows: pa.Table) -> Iterator[pa.Table]:
    """Whole people, about as many faces as a task of a run has."""
    edges = _edges(rows)
    start = 0
    for stop in edges[1:]:
        if stop - start >= TASK or stop == edges[-1]:
            yield rows.slice(start, stop - start)
            start = stop


def _edges(rows: pa.Table) -> list[int]:
    codes = rows["identity_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    return [0, *(np.flatnonzero(np.diff(codes)) + 1).tolist(), rows.num_rows]


def _cluster(found: Measured, rows: pa.Table, first: int) -> None:
    from sklearn.cluster import AgglomerativeClustering, KMeans

    unit, edges = vectors(rows["embeddings.vector"]), np.array(_edges(rows))
    seeds = np.array(
        [seed_of(f"{first + at:016x}") for at in range(len(edges) - 1)], dtype=np.uint64
    )
    labels = found.time(
        "k-means, k = 2, 10 starts", lambda: kmeans(unit, edges, seeds, 2, spherical=False)
    )
    found.time("k-means, k = 4, 10 starts, by cosine", lambda: kmeans(unit, edges, seeds, 4))
    people = [
        (unit[start:stop], labels[start:stop]) for start, stop in pairwise(edges[: COMPARED + 1])
    ]
    theirs = found.time(
        "k-means, k = 2, 10 starts, scikit-learn",
        lambda: [KMeans(2, n_init=10, random_state=0).fit(one) for one, _ in people],
    )
    found.time(
        GROUPS,
        lambda: [
            hang_together(one, LIMITS["merge_cosine"], LIMITS["similarity_threshold"])
            for one, _ in people
        ],
    )
    model = AgglomerativeClustering(
        None, metric="cosine", linkage="average", distance_threshold=1 - LIMITS["merge_cosine"]
    )
    found.time(f"{GROUPS}, scikit-learn", lambda: [model.fit(one) for one, _ in people])
    ours = [_inertia(one, mine) for one, mine in people]
    reached = [float(model.inertia_) for model in theirs]
    found.compared, found.inertia = len(people), {"ours": sum(ours), "scikit-learn": sum(reached)}
    found.worst = max(mine / other for mine, other in zip(ours, reached, strict=True))


def _inertia(unit: np.ndarray, labels: np.ndarray) -> float:
    wide = unit.astype(np.float64)
    return float(
        sum(
            ((wide[labels == at] - wide[labels == at].mean(axis=0)) ** 2).sum()
            for at in np.unique(labels)
        )
    )


def _alone() -> str:
    """The stage on one person of many faces, with one thread."""
    told = []
    with threadpool_limits(1):
        for count in ALONE:
            rows, stage = _rows(0, 1, count), LinkageClean(LIMITS)
            stage.run(rows, {}, NO_SERVICES)
            found = Measured()
            found.time("stage", partial(stage.run, rows, {}, NO_SERVICES))
            told.append(f"{count} faces {1000 * found.processor['stage']:.0f} ms")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return f"one person, processor time of the stage: {', '.join(told)}; within {memory:.2f} GiB"


def _over_all() -> str:
    """What is compared over all people, with as many threads as there are cores."""
    rng = np.random.default_rng(0)
    unit = _unit(rng.standard_normal((PEOPLE, WIDTH), dtype=np.float32))
    hashes = rng.integers(0, 2**64, HASHES, dtype=np.uint64)
    found = Measured()
    with threadpool_limits(WORKERS):
        found.time("pairs", lambda: pairs(unit, 0.5))
        found.time("near", lambda: near(hashes, 3))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return (
        f"all pairs of {PEOPLE} indicators: {found.seconds['pairs']:.1f} s; pairs of {HASHES} "
        "image hashes within 3 bits: "
        f"{found.seconds['near']:.1f} s; both within {memory:.2f} GiB"
    )


def _table(total: Measured) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in (
        "seconds per 1,000 people, one core",
        "elapsed",
        "processor",
        "against scikit-learn",
        "MB",
    ):
        table.add_column(column, justify="left" if column.startswith("seconds") else "right")
    for what, seconds in total.seconds.items():
        people = total.compared if "scikit" in what or what == GROUPS else total.people
        processor = total.processor[what] / people
        theirs = total.processor.get(f"{what}, scikit-learn")
        ratio = f"{theirs / total.compared / processor:.1f} x as fast" if theirs else ""
        size = next(
            (
                f"{total.bytes[codec] / total.people / 1e3:.0f}"
                for codec in CODECS
                if what == f"read, {codec}"
            ),
            "",
        )
        table.add_row(
            what, f"{1000 * seconds / people:.2f}", f"{1000 * processor:.2f}", ratio, size
        )
    return table


if __name__ == "__main__":
    main()
