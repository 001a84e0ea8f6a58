"""One phase of a run: a few stages over what is missing of them."""

import time
from collections import Counter
from collections.abc import Sequence

from idcluster.root.snapshot import Entry
from pipeline.execution.operators import Operator
from pipeline.execution.seal import seal
from pipeline.execution.snapshot_tables import Scope
from pipeline.execution.tasks import Task, TaskResult
from pipeline.execution.work import Work
from pipeline.progress import Progress, Working
from pipeline.run_state import RunState
from pipeline.telling import detail
from schemas.wording import counted
from stages.stage import Stage

PUBLISH_SECONDS = 60.0


class Phase:
    """One phase at work: receipts come in, scopes are sealed when their last task is back, and
    published from time to time.
    """

    def __init__(
        self, state: RunState, chain: Sequence[Stage], found: Work, todo: Sequence[Task]
    ) -> None:
        self.state, self.chain, self.found, self.todo = state, chain, found, todo
        self.left: Counter[Scope] = Counter((task.bucket, task.chunk) for task in todo)
        self.parts: dict[Scope, dict[str, list[str]]] = {}
        self.sealed: set[Scope] = set()
        self.changed: list[Entry] = []
        self.spent: list[str] = []
        self.view = state.view()
        self.published = time.monotonic()

    def run(self) -> None:
        run, names = self.state, [stage.name for stage in self.chain]
        resources = {name: run.prepared.dag.stages[name].resources for name in names}
        unit = "person" if self.chain[0].grain == "bucket" else "image"
        members = sum(task.size for task in self.todo)
        progress = Progress(
            run.console,
            names,
            len(self.todo),
            members,
            unit,
            run.place,
            lambda: run.engine.activity,
        )
        wall = 0.0
        if self.todo:
            run.work_done = True
            chain = run.engine.operators(names, resources)
            progress.pools = [(operator.stages, operator.workers) for operator in chain]
            self._tell_details(chain)
            with progress:
                for receipt in run.engine.run(self.todo, chain):
                    progress.add(receipt)
                    self._take(receipt)
            wall = progress.elapsed
            self._record(progress, wall, sum(operator.workers for operator in chain))
        with Working(run.console, f"{run.place}: sealing and publishing"):
            for scope in dict.fromkeys(finding.scope for finding in self.found.findings):
                if scope not in self.sealed:
                    self._seal(scope)
            self._publish(progress)

    def _tell_details(self, chain: Sequence[Operator]) -> None:
        why: dict[str, Counter[str]] = {}
        for finding in self.found.findings:
            why.setdefault(finding.stage, Counter()).update(finding.why)
        for operator in chain:
            detail(
                self.state.console,
                f"  {' + '.join(operator.stages)}: {counted(operator.workers, 'worker')}",
            )
            for stage in operator.stages:
                if why.get(stage):
                    told = ", ".join(
                        f"{count} {reason}" for reason, count in why[stage].most_common()
                    )
                    detail(self.state.console, f"  {stage}: {told}")

    def _take(self, receipt: TaskResult) -> None:
        scope = (receipt.bucket, receipt.chunk)
        for part in receipt.parts:
            self.parts.setdefault(scope, {}).setdefault(part.table, []).append(part.path)
            self.spent.append(part.path)
        self.left[scope] -= 1
        if not self.left[scope]:
            self._seal(scope)
            if time.monotonic() - self.published > PUBLISH_SECONDS:
                self._publish(None)

    def _seal(self, scope: Scope) -> None:
        parts = self.parts.pop(scope, {})
        self.sealed.add(scope)
        for stage in self.chain:
            self.changed += seal(self.view, stage, scope, parts.get(stage.writes.name, ()))

    def _publish(self, progress: Progress | None) -> None:
        if progress is not None:
            rates = dict(self.state.snapshot.notes.get("rates", {}))
            for stage in progress.stages:
                computed = stage.rows - stage.adopted
                if computed and stage.seconds:
                    rates[f"{stage.name}/{self.state.prepared.versions[stage.name]}"] = round(
                        stage.seconds / computed, 6
                    )
            self.state.snapshot = self.state.snapshot.with_notes(rates=rates)
        if self.changed:
            self.state.publish(self.changed)
            self.changed = []
        if not self.parts:
            # Only now are the parts' rows safe elsewhere.
            self.state.store.delete(self.spent)
            self.spent = []
        self.published = time.monotonic()

    def _record(self, progress: Progress, wall: float, workers: int) -> None:
        record = self.state.record
        record.phases.append(
            {
                "stages": [stage.name for stage in self.chain],
                "tasks": progress.tasks,
                "members": progress.seen,
                "workers": workers,
                "wall_seconds": round(wall, 3),
                "startup_seconds": round(progress.startup or 0.0, 3),
                "worker_seconds": {
                    name: round(seconds, 3) for name, seconds in progress.seconds.most_common()
                },
                "bottleneck": progress.bottleneck,
                "deaths": progress.deaths,
            }
        )
        for stage in progress.stages:
            failed = sum(
                count
                for name, count in stage.outcomes.items()
                if name.split(":")[0] in ("failed", "poisoned")
            )
            record.stages[stage.name] = {
                "rows": stage.rows,
                "units": stage.units,
                "failed": failed,
                "adopted": stage.adopted,
                "seconds": round(stage.seconds, 3),
                "rows_per_second": round(stage.rows / wall, 2) if wall else None,
                "outcomes": dict(stage.outcomes.most_common()),
            }
