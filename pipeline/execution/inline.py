"""Tasks one after the other in this process."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pipeline.dag import Resources
from pipeline.execution.fetching import Block, Haul
from pipeline.execution.operators import Operator, available_cores, operators
from pipeline.execution.tasks import Task, TaskResult
from pipeline.execution.worker_spec import WorkerSpec
from stages.crawl.web.gate import LocalGate


class Inline:
    """Tasks one after the other in this process: for tests that need no cluster, and as the bench's
    plain loop.
    """

    activity = ""
    say: Callable[[str], None]
    detail: Callable[[str], None]

    def __init__(self, build: Callable[[], Any]) -> None:
        self._build = build
        self._gate: LocalGate | None = None

    def run(self, tasks: Sequence[Task], chain: Sequence[Operator]) -> Iterator[TaskResult]:
        worker = self._build()
        for task in tasks:
            yield worker.process(task)

    def map(
        self, function: Callable[[str], str], items: Sequence[str], workers: int
    ) -> Iterator[str]:
        return map(function, items)

    def fetch(self, spec: WorkerSpec, blocks: Sequence[Block]) -> Iterator[Haul]:
        if self._gate is None:
            self._gate = LocalGate(spec.dag.fetch.politeness, time.monotonic)
        worker = spec.fetch_worker(self._gate)
        try:
            for block in blocks:
                yield worker.fetch(block)
        finally:
            worker.close()

    def check(self) -> None:
        return None

    def cores(self) -> int:
        return available_cores()

    def operators(self, chain: Sequence[str], resources: Mapping[str, Resources]) -> list[Operator]:
        return operators(chain, resources, self.cores())

    def close(self) -> None:
        return None
