"""One task, worked off: read what is there, run what is missing, write the new rows as parts.

A **task** is a slice (at most 32 images of one chunk) or a batch of people of one bucket, with
the chain of stages of one phase. It is described by plain JSON: which files to read, which members
to look at. The worker finds out by itself what is missing (`reconcile`), so a task can be repeated
at any time: parts are named by the work that they hold, and a part that is there already is taken
as it is. Nothing here knows Ray.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property

import numpy as np
import pyarrow as pa

from idcluster.root.parquet import read
from idcluster.root.removals import Bars, load_bars
from idcluster.root.storage import Store
from pipeline.execution.attempts import HERE, Attempt, Whereabouts, setting_up
from pipeline.execution.task_at_work import Clock, TaskAtWork
from pipeline.execution.tasks import Part, Task, TaskResult
from schemas import TABLES
from stages.stage import Services, Stage, WeightFiles


class Worker:
    """Works off tasks. Models are loaded once, when first needed."""

    def __init__(
        self,
        store: Store,
        stages: Mapping[str, Stage],
        versions: Mapping[str, str],
        weights: WeightFiles,
        services: Services,
        run: str,
        draining: Callable[[], bool] = lambda: False,
    ) -> None:
        self.store, self.stages, self.versions, self.weights = store, stages, versions, weights
        self.services, self.run, self.draining = services, run, draining
        self.whereabouts: Whereabouts = HERE
        self._ready: set[str] = set()
        self._files: OrderedDict[str, pa.Table] = OrderedDict()

    @cached_property
    def bars(self) -> Bars:
        """What was removed and must not come back. Nobody removes anything while a run is on."""
        return load_bars(self.store, _guesses)

    def process(
        self, task: Task, mine: Collection[str] | None = None, fresh: Sequence[Part] = ()
    ) -> TaskResult:
        """Work off `task`; `mine` are the stages of its chain to compute (all by default).

        `fresh` are the parts that other workers have written for the same task. Raises what is not
        the fault of single rows: a full disk, missing weights, a damaged file.
        """
        clock, began = Clock(task.chain, mine), time.time()
        with clock.time("read"):
            if self.draining():
                return TaskResult(
                    task.name,
                    task.bucket,
                    task.chunk,
                    task.number,
                    task.size,
                    [],
                    {},
                    began,
                    skipped=True,
                )
            attempt = Attempt.begin(
                self.store,
                self.run,
                f"{task.name}-{'-'.join(sorted(mine))}" if mine else task.name,
                self.whereabouts,
            )
        job = TaskAtWork(
            self, task, set(task.chain if mine is None else mine), fresh, attempt, clock
        )
        parts = job.work()
        return TaskResult(
            task.name,
            task.bucket,
            task.chunk,
            task.number,
            len(job.members),
            parts,
            clock.seconds,
            began,
            deaths=sum(attempt.deaths.values()) + sum(attempt.lost.values()),
        )

    def is_ready(self, name: str) -> bool:
        """Whether there is nothing (more) to set up."""
        return name in self._ready or type(self.stages[name]).setup is Stage.setup

    def ready(self, name: str) -> Stage:
        stage = self.stages[name]
        if not self.is_ready(name):
            try:
                with setting_up(self.store, self.run, name, self.whereabouts.node):
                    stage.setup(self.weights)
            except Exception as error:
                error.add_note(f"stage {name} ({stage.backend}) could not be set up")
                raise
            self._ready.add(name)
        return stage

    def light(self, table: str, path: str) -> pa.Table:
        """The light columns of a file. Files never change, so what was read for one slice serves
        the next.
        """
        if path in self._files:
            self._files.move_to_end(path)
        else:
            self._files[path] = read(self.store, TABLES[table], path)
            while len(self._files) > 64:
                self._files.popitem(last=False)
        return self._files[path]


def _guesses(data: bytes) -> np.ndarray:
    from stages.lookalikes import guesses  # OpenCV, which a worker that only fetches does without

    return guesses(data)
