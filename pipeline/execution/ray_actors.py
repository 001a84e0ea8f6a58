"""What runs in Ray's processes: a worker for tasks, one for fetching, and a function for items."""

import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeline.execution import cluster
from pipeline.execution.engine import EngineError
from pipeline.execution.fetching import Block
from pipeline.execution.shared_gate import SharedGate
from pipeline.execution.tasks import Part, Task, TaskResult
from pipeline.execution.worker_spec import WorkerSpec
from pipeline.telling import without_remarks_of_pillow


class TaskActor:
    """One worker in an actor of its own.

    Libraries leak and heaps fragment: an actor whose resident memory has grown by half since its
    first block, and beyond what its stages ask for, ends itself before it begins the next. Ray
    starts a new one, which takes that block up.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        stages: Sequence[str],
        environment: Mapping[str, str],
        on_cluster: bool,
        memory_mb: int,
    ) -> None:
        import cv2

        cv2.setNumThreads(1)
        without_remarks_of_pillow()
        cluster.adopt_environment(environment)
        self.on_cluster = on_cluster
        self.worker = spec.build()
        self.worker.whereabouts = cluster.whereabouts()
        self.stages = list(stages)
        self.memory = memory_mb * 2**20
        self.usual: int | None = None
        self.meters = Meters()

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        if self.usual is not None and resident() > max(self.memory, 1.5 * self.usual):
            os._exit(0)  # nothing is begun: the task counts no death
        for row in batch.to_pylist():
            fresh = [Part(**part) for part in json.loads(row["fresh"])]
            try:
                receipt = self.worker.process(Task.decode(row["task"]), self.stages, fresh)
            except Exception as error:
                if not self.on_cluster:
                    raise
                raise EngineError(_on_node(error)) from error
            self.meters.count(receipt)
            if row["receipt"]:
                receipt = _merge(TaskResult.decode(row["receipt"]), receipt)
            done = {
                "task": row["task"],
                "fresh": json.dumps([vars(part) for part in receipt.parts]),
                "receipt": receipt.encode(),
            }
            yield pa.Table.from_pylist([done])
        self.usual = self.usual or resident()


class Meters:
    """Counters for dashboards, by worker: Ray exports them to Prometheus as
    `ray_idcluster_rows_total` and so on.

    It does so on nodes with `ray[default]`; elsewhere they are counted and nobody asks.
    """

    def __init__(self) -> None:
        from ray.util.metrics import Counter

        self.rows = Counter("idcluster_rows", "Rows computed.", tag_keys=("stage", "status"))
        self.failures = Counter(
            "idcluster_failures", "Rows that failed or are poisoned.", tag_keys=("stage", "reason")
        )
        self.seconds = Counter(
            "idcluster_seconds",
            "Time of workers: by stage, and reading, decoding, writing.",
            tag_keys=("activity",),
        )
        self.deaths = Counter(
            "idcluster_deaths", "Workers that died on a task which was then done by another one."
        )

    def count(self, receipt: TaskResult) -> None:
        """Add what a worker has done for a task: its own stages alone, and nothing that it found
        done.
        """
        for activity, seconds in receipt.seconds.items():
            _add(self.seconds, seconds, {"activity": activity})
        _add(self.deaths, receipt.deaths)
        for part in receipt.parts:
            for outcome, rows in ({} if part.adopted else part.outcomes).items():
                status, _, reason = outcome.partition(":")
                _add(self.rows, rows, {"stage": part.stage, "status": status})
                if status in ("failed", "poisoned"):
                    _add(self.failures, rows, {"stage": part.stage, "reason": reason or "none"})


def _add(counter: Any, value: float, tags: dict[str, str] | None = None) -> None:
    if value > 0:  # Ray refuses to add nothing
        counter.inc(value, tags)


_HAULS = pa.schema([("haul", pa.string()), ("denied", pa.string())])
"""What a fetching worker tells of a block: one of the two."""


class FetchActor:
    """One fetching worker: several blocks at a time over one client."""

    def __init__(self, spec: WorkerSpec, environment: Mapping[str, str], gate: Any) -> None:
        cluster.adopt_environment(environment)
        gate_of = SharedGate(gate.exchange.remote, gate.known.remote, gate.learn.remote)
        self.worker = spec.fetch_worker(gate_of)

    def __call__(self, batch: pa.Table) -> pa.Table:
        return pa.Table.from_pylist(
            [self._fetch(Block.decode(row["block"])) for row in batch.to_pylist()], _HAULS
        )

    def _fetch(self, block: Block) -> dict[str, str]:
        from stages.crawl.web.proxy import ProxyDenied

        try:
            return {"haul": self.worker.fetch(block).encode()}
        except ProxyDenied as error:
            return {"denied": str(error)}  # of an exception Ray shows everything but what it says


def resident() -> int:
    """Bytes of this process that are in memory; 0 where the system does not say (it has no
    /proc).
    """
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


class MapFunction:
    def __init__(self, function: Callable[[str], str], environment: Mapping[str, str]) -> None:
        self.function, self.environment = function, environment

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        cluster.adopt_environment(self.environment)
        return {"item": self.function(row["item"])}


def _on_node(error: Exception) -> str:
    """An error with the node where it happened and what was being done."""
    import ray

    place = f"node {socket.gethostname()} (node {ray.get_runtime_context().get_node_id()[:8]})"
    return ": ".join([place, *getattr(error, "__notes__", ()), f"{type(error).__name__}: {error}"])


def _merge(first: TaskResult, second: TaskResult) -> TaskResult:
    """The receipt of a task that went through two operators."""
    seconds = {
        name: first.seconds.get(name, 0.0) + second.seconds.get(name, 0.0)
        for name in {**first.seconds, **second.seconds}
    }
    second.parts = [*first.parts, *second.parts]
    second.seconds = seconds
    second.skipped = first.skipped or second.skipped
    second.deaths += first.deaths
    second.began = first.began
    return second
