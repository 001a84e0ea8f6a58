"""A run: take in what the source lists, then phase by phase find the work, compute, seal and
publish, and shards at the end.

Whatever interrupts it, the next run goes on: sealed chunks are in the snapshot, and slices that
were finished but not sealed are found by their names.
"""

import json
import platform
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from types import FrameType
from typing import Any, Protocol

from rich.console import Console

from idcluster.catalogue.connection import damage
from idcluster.root.dataset_root import new_run_id
from idcluster.root.lease import Lease
from idcluster.root.listing_cache import ListingCache
from idcluster.root.removals import check_finished
from idcluster.root.snapshot import Entry, Snapshot, load
from idcluster.root.spool import Place, is_web
from idcluster.root.storage import Store
from pipeline.dag import SHARD, Resources, shard_params
from pipeline.execution.compact import compact
from pipeline.execution.crawl_rounds import Rounds, check_contact, missing
from pipeline.execution.fetching import Block, Haul
from pipeline.execution.intake import take_in
from pipeline.execution.missing_files import without_missing
from pipeline.execution.operators import Operator, available_cores
from pipeline.execution.reconcile import by_hand
from pipeline.execution.root_stages import complete, run_whole, starved
from pipeline.execution.seal import seal
from pipeline.execution.snapshot_tables import Scope, SnapshotTables
from pipeline.execution.tasks import Task, TaskResult
from pipeline.execution.work import Work, find_work, phases, tasks
from pipeline.execution.worker_spec import WorkerSpec, drain_path, has_web, sources_of
from pipeline.prepared_dag import PreparedDag, Selection, allowed_images, forced_units
from pipeline.progress import FetchProgress, Progress, ShardProgress, Working
from pipeline.shards.split_lists import resolve
from pipeline.shards.writing import finish, plan_shards, shard_basis, write_shard
from pipeline.telling import WARNING, detail
from schemas import TABLES
from schemas.wording import counted
from stages.crawl.service import Asking
from stages.stage import Stage

PUBLISH_SECONDS = 60.0


class Engine(Protocol):
    activity: str
    say: Callable[[str], None]
    detail: Callable[[str], None]

    def fetch(self, spec: WorkerSpec, blocks: Sequence[Block]) -> Iterator[Haul]: ...

    def run(self, tasks: Sequence[Task], chain: Sequence[Operator]) -> Iterator[TaskResult]: ...

    def map(
        self, function: Callable[[str], str], items: Sequence[str], workers: int
    ) -> Iterator[str]: ...

    def check(self) -> None: ...

    def cores(self) -> int: ...

    def operators(
        self, chain: Sequence[str], resources: Mapping[str, Resources]
    ) -> list[Operator]: ...

    def close(self) -> None: ...


@dataclass
class Record:
    """What is written to `runs/<id>.json`."""

    run_id: str
    started: str
    status: str = "running"
    finished: str | None = None
    seconds: float = 0.0
    snapshot_before: int = 0
    snapshot: int = 0
    dag: dict[str, Any] = field(default_factory=dict)
    selection: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    licences: list[dict[str, Any]] = field(default_factory=list)
    machine: dict[str, Any] = field(default_factory=dict)
    intake: dict[str, Any] = field(default_factory=dict)
    fetching: dict[str, Any] = field(default_factory=dict)
    phases: list[dict[str, Any]] = field(default_factory=list)
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    shards: dict[str, Any] = field(default_factory=dict)
    error: str | None = None


class Run:
    """One run of a DAG on a root."""

    def __init__(
        self,
        prepared: PreparedDag,
        selection: Selection,
        store: Store,
        console: Console,
        engine: Callable[[WorkerSpec], Engine],
        run_id: str | None = None,
    ) -> None:
        self.prepared, self.selection, self.store, self.console = (
            prepared,
            selection,
            store,
            console,
        )
        self.chosen = prepared.chosen(selection)
        self.run_id = run_id or new_run_id()
        self.spec = WorkerSpec(
            store.root,
            prepared.dag,
            prepared.versions,
            prepared.models,
            self.run_id,
            prepared.local,
        )
        self.engine = engine(self.spec)
        self.engine.say = lambda text: console.print(text, style=WARNING, highlight=False)
        self.engine.detail = lambda text: detail(console, text)
        self.drained = False
        self.work_done = False
        self.others = False
        self.owed = False
        """Whether the snapshot that is published names files that this run knows to be gone."""
        self.place = ""
        self.snapshot = Snapshot()
        self._candidates_of: tuple[tuple[Scope, int] | None, list[tuple[str, str]]] = (None, [])
        self.record = Record(
            run_id=self.run_id,
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            dag=prepared.dag.model_dump(mode="json"),
            selection={
                "only": list(selection.only),
                "limit": selection.limit,
                "where": selection.where,
                "retry": selection.retry,
            },
            versions=prepared.versions,
            licences=prepared.licences,
            machine=_machine(),
        )

    def execute(self) -> Record:
        """Do it all. The record is written whatever happens; errors are raised after that."""
        start = time.monotonic()
        with Lease(
            self.store, self.run_id, lambda text: self.console.print(text, style=WARNING)
        ) as lease:
            self.lease = lease
            try:
                with self._draining():
                    self._execute()
                self.record.status = "drained" if self.drained else "done"
            except BaseException as error:
                # What planning shards asks of DuckDB may lie in a damaged file.
                met = damage(error) if isinstance(error, Exception) else None
                self.record.status = "failed"
                self.record.error = f"{type(met or error).__name__}: {met or error}"
                if met is not None and met is not error:
                    raise met from error
                raise
            finally:
                self.record.seconds = round(time.monotonic() - start, 3)
                self.record.finished = datetime.now(UTC).isoformat(timespec="seconds")
                self.record.snapshot = self.snapshot.number
                if self.work_done or self.record.status != "done":
                    content = json.dumps(vars(self.record), indent=1, sort_keys=True)
                    self.store.put(f"runs/{self.run_id}.json", content.encode())
                self.engine.close()
        return self.record

    def _execute(self) -> None:
        check_finished(self.store)
        self.snapshot = load(self.store)
        self.record.snapshot_before = self.snapshot.number
        self._leave_out_missing()
        if "crawl" in self.chosen:
            self._take_in()
        stages = self.prepared.stages
        forced = self._forced()
        allowed = (
            None
            if self.selection.where is None
            else allowed_images(self.store, self.snapshot, self.selection.where)
        )
        token = f"{self.selection.retry} {self.snapshot.number}"
        parts = [{stage.name for stage in phase} for phase in phases(stages)] + [{SHARD}]
        todo = [names for names in parts if names & set(self.chosen)]
        for phase in phases(stages):
            mine = {stage.name for stage in phase if stage.name in self.chosen}
            self.place = next(
                (f"phase {n} of {len(todo)}" for n, names in enumerate(todo, 1) if names & mine), ""
            )
            if "crawl" in mine and (self.others or has_web(self.prepared.dag)):
                self._crawl(phase, mine, forced, allowed, token)
                mine.discard("crawl")
            if mine and not self.drained:
                if phase[0].grain == "root":
                    self._whole(phase[0])
                else:
                    self._phase(phase, mine, forced, allowed, token)
        self._refresh([stage for stage in stages if stage.name not in self.chosen])
        if SHARD in self.chosen and not self.drained:
            self.place = f"phase {len(todo)} of {len(todo)}"
            self._shards()
        if self.owed:
            self._publish([])

    def _leave_out_missing(self) -> None:
        """Go on from what is there: what a snapshot names and is gone is computed again, or the run
        ends here.
        """
        profile = (
            shard_params(self.prepared.dag.stages[SHARD]).profile if SHARD in self.chosen else None
        )
        rest = without_missing(
            self.store, self.snapshot, self.prepared.stages, self.chosen, profile
        )
        for remark in rest.remarks:
            self.console.print(f"note: {remark}", style=WARNING, highlight=False)
        self.snapshot, self.owed = rest.snapshot, bool(rest.dropped)
        # Half a shard must not be taken for one that an earlier run has finished.
        self.store.delete(rest.files)
        fresh = compact(self.store, self.snapshot, rest.companions)
        if fresh:
            self._publish(fresh)

    def _take_in(self) -> None:
        asking = Asking(
            stopped=lambda: self.drained, say=lambda text: self.console.print(text, highlight=False)
        )
        sources = sources_of(self.prepared.dag, asking, lambda name: ListingCache(self.store, name))
        with Working(self.console, "reading the source"):
            found = take_in(self.store, self.snapshot, *sources)
        self.others = found.others
        for remark in found.remarks:
            self.console.print(f"note: {remark}", style=WARNING, highlight=False)
        if found.entries:
            self._publish(found.entries)
        counts = {
            "people": found.people,
            "offered": found.offered,
            "new": found.new,
            "changed": found.changed,
            "gone": found.gone,
        }
        self.record.intake = counts
        said = (
            ", ".join(
                f"{counts[name]} {name}" for name in ("new", "changed", "gone") if counts[name]
            )
            or "nothing new"
        )
        listed = f"{counted(found.people, 'person')}, {counted(found.offered, 'picture')}"
        self.console.print(f"source: {listed}; {said}", highlight=False)

    def _forced(self) -> dict[str, frozenset[str]]:
        if self.selection.retry is None:
            return {}
        chosen = [stage for stage in self.prepared.stages if stage.name in self.chosen]
        forced = forced_units(self.store, self.snapshot, chosen, self.selection.retry)
        if not forced:
            self.console.print(f"nothing matches --retry {self.selection.retry!r}", highlight=False)
        return forced

    def _view(self) -> SnapshotTables:
        return SnapshotTables(self.store, self.snapshot, self.prepared.versions)

    def _crawl(
        self,
        phase: Sequence[Stage],
        mine: set[str],
        forced: Mapping[str, frozenset[str]],
        allowed: frozenset[str] | None,
        token: str,
    ) -> None:
        """Fetch what is missing, round by round, each followed by the phase over what came."""
        crawl = next(stage for stage in phase if stage.name == "crawl")
        fetch = self.prepared.dag.fetch
        refusals_before = int((time.time() - fetch.opt_out_days * 86_400) * 1e6)

        def process(images: Set[str], again: Set[str], places: Mapping[str, Place]) -> None:
            mine_only = {"images": frozenset(again)} if again else {}
            self._phase(phase, mine, mine_only, frozenset(images), f"{token} {self.run_id}", places)

        def bring(blocks: list[Block], addresses: int) -> Iterator[Haul]:
            check_contact(fetch, [address for block in blocks for address in block.addresses])
            self.work_done = True
            with FetchProgress(self.console, addresses, lambda: self.engine.activity) as progress:
                for haul in self.engine.fetch(self.spec, blocks):
                    progress.add(haul)
                    yield haul

        rounds = Rounds(self.store, self.run_id, bring, process, lambda: self.drained)
        asked = forced.get("images", frozenset())
        web, names = (
            has_web(self.prepared.dag),
            {source.name for source in self.prepared.dag.sources},
        )

        def serves(address: str) -> bool:
            return web if is_web(address) else address.partition(":")[0] in names

        # What other DAGs have brought into the root is theirs to fetch.
        rounds.crawl(
            missing(
                self._view(), crawl, asked, allowed, refusals_before, self.selection.limit, serves
            )
        )
        if rounds.counts.rounds:
            self.record.fetching = rounds.counts.as_record()

    def _phase(
        self,
        phase: Sequence[Stage],
        mine: set[str],
        forced: Mapping[str, frozenset[str]],
        allowed: frozenset[str] | None,
        token: str,
        places: Mapping[str, Place] | None = None,
    ) -> None:
        chain = [stage for stage in phase if stage.name in mine]
        explicit = self.selection.limit is not None or places is not None
        with Working(self.console, f"{self.place}: looking what there is to do"):
            found = find_work(self._view(), chain, forced, allowed, explicit=explicit)
        if found.nothing:
            self._tell_if_starved(chain)
            return
        # The limit of a crawl was kept when it was fetched.
        limit = self.selection.limit if places is None else None
        todo = tasks(self._view(), chain, found.findings, token, limit, self.engine.cores())
        if places is not None:
            todo = [self._with_places(task, places) for task in todo]
        work = _Phase(self, chain, found, todo)
        work.run()

    def _with_places(self, task: Task, places: Mapping[str, Place]) -> Task:
        """The task with where its pictures lie in the spool."""
        rows = self._candidates((task.bucket, task.chunk))
        members = set(task.members or ())
        return replace(
            task,
            spool={
                address: places[address]
                for image, address in rows
                if image in members and address in places
            },
        )

    def _candidates(self, scope: Scope) -> list[tuple[str, str]]:
        """Image id and address of the candidates of a chunk; tasks of one chunk come one after the
        other.
        """
        if self._candidates_of[0] != (scope, self.snapshot.number):
            rows = self._view().table("candidates", scope, ["image_id", "address"])
            pairs = list(
                zip(rows["image_id"].to_pylist(), rows["address"].to_pylist(), strict=True)
            )
            self._candidates_of = ((scope, self.snapshot.number), pairs)
        return self._candidates_of[1]

    def _whole(self, stage: Stage) -> None:
        """A stage over the whole dataset, in this process."""
        version = self.prepared.versions[stage.name]
        if starved(self.snapshot, stage):
            self._tell_if_starved([stage])
            return
        if complete(self.snapshot, stage, version):
            return
        start = time.monotonic()
        self.console.print(f"{stage.name}: the whole dataset", highlight=False)
        with Working(self.console, f"{self.place}: {stage.name} over the whole dataset"):
            entries = run_whole(self.store, self.snapshot, stage, version)
        self._publish(entries)
        seconds, count = time.monotonic() - start, sum(entry.rows for entry in entries)
        rate = round(count / seconds, 2) if seconds else None
        about = {
            "rows": count,
            "units": count,
            "failed": 0,
            "adopted": 0,
            "seconds": round(seconds, 3),
            "rows_per_second": rate,
        }
        self.record.stages[stage.name] = {
            **about,
            "outcomes": {"ok": sum(entry.ok for entry in entries)},
        }
        self.console.print(
            f"  {stage.name}: {counted(count, 'row')}, {seconds:.1f} s", highlight=False
        )

    def _tell_if_starved(self, chain: Sequence[Stage]) -> None:
        """Say so when a stage that was asked for has nothing to read, because the one before it
        never ran.
        """
        if not self.selection.only:
            return
        written = {stage.writes.name for stage in chain}
        for stage in chain:
            for table in self._view().tables_of(stage):
                if table not in written and not by_hand(table) and not self.snapshot.shown(table):
                    note = (
                        f"note: {stage.name} reads {table}, which has no rows yet; run "
                        f"{TABLES[table].written_by} too"
                    )
                    self.console.print(note, style=WARNING, highlight=False)

    def _refresh(self, stages: Sequence[Stage]) -> None:
        """Let tables of stages that this run leaves out show what still fits, without computing
        anything.
        """
        view = self._view()
        changed: list[Entry] = []
        for stage in (stage for stage in stages if stage.grain != "root"):
            shown = {entry.version for entry in self.snapshot.shown(stage.writes.name)}
            if shown == {self.prepared.versions[stage.name]}:
                for bucket in view.buckets:
                    for scope in view.scopes(stage, bucket):
                        changed += seal(view, stage, scope, ())
        if changed:
            self._publish(changed)

    def _shards(self) -> None:
        params, _ = resolve(self.store, shard_params(self.prepared.dag.stages[SHARD]))
        basis = shard_basis(self.snapshot, params)
        note = f"shards/{params.profile}"
        if self.snapshot.notes.get(note) == basis:
            return
        start = time.monotonic()
        with Working(self.console, f"{self.place}: planning shards"):
            plan = plan_shards(self.store, self.snapshot, params)
        workers = min(self.engine.cores(), len(plan.jobs)) if plan.jobs else 0
        results = []
        if plan.jobs:
            said = (
                f"{counted(len(plan.jobs), 'shard')} to write, "
                f"{len(plan.shards) - len(plan.jobs)} as they are"
            )
            self.console.print(f"shard: {said}", highlight=False)
            job = ShardJob(self.store.root)
            with ShardProgress(
                self.console, len(plan.jobs), self.place, lambda: self.engine.activity
            ) as progress:
                for text in self.engine.map(job, [json.dumps(item) for item in plan.jobs], workers):
                    results.append(json.loads(text))
                    progress.add()
        # Shards follow from all tables: had somebody else published meanwhile, this set would be of
        # nothing. Indexes are put over others.
        self.lease.check("nothing was published. Run again to go on")
        entries = finish(self.store, self.snapshot, results, plan)
        self.snapshot = self.snapshot.with_notes(
            **{note: basis, f"index/{params.profile}": plan.note()}
        )
        self._publish(entries)
        samples = sum(shard.samples for shard in plan.shards)
        seconds = time.monotonic() - start
        self.record.shards = {
            "shards": len(plan.shards),
            "written": len(plan.jobs),
            "samples": samples,
            "seconds": round(seconds, 3),
        }
        self.record.shards["withheld"] = dict(plan.contents["withheld"])
        why_not = ", ".join(f"{count} {why}" for why, count in plan.contents["withheld"].items())
        withheld = f"; withheld: {why_not}" if why_not else ""
        said = (
            f"{counted(samples, 'sample')} in {counted(len(plan.shards), 'shard')}, "
            f"{len(plan.jobs)} written"
        )
        self.console.print(f"  shard: {said}{withheld}", highlight=False)
        for remark in plan.contents.get("remarks", ()):
            self.console.print(
                f"note: shards of {params.profile}: {remark}", style=WARNING, highlight=False
            )
            self.record.shards.setdefault("remarks", []).append(remark)

    def _publish(self, entries: Sequence[Entry]) -> None:
        following = self.snapshot.with_entries(entries)
        following = following.with_entries(
            compact(self.store, following, {entry.bucket for entry in entries})
        )
        self.work_done, self.owed = True, False
        notes = {"run": self.run_id, "published": datetime.now(UTC).isoformat(timespec="seconds")}
        known = {**self.snapshot.notes.get("versions", {}), **self.prepared.descriptions}
        self.snapshot = self.lease.publish(following.with_notes(**notes, versions=known))
        files = sum(1 for entry in entries if entry.rows)
        detail(
            self.console,
            f"snapshot {self.snapshot.number} published: {counted(files, 'file')} new or changed",
        )

    def drain(self) -> None:
        """Let the workers finish what they have begun and take no more."""
        self.drained = True
        self.store.put(drain_path(self.run_id), b"", durable=False)

    @contextmanager
    def _draining(self) -> Iterator[None]:
        """The first Ctrl-C or SIGTERM drains, the second breaks off."""

        def stop(number: int, frame: FrameType | None) -> None:
            if self.drained:
                raise KeyboardInterrupt
            self.console.print(
                "stopping: slices at work are finished and published; once more to break off",
                style=WARNING,
            )
            self.drain()

        try:
            before = {
                number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)
            }
        except ValueError:  # not the main thread: whoever runs us there has its own way to stop
            before = {}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            self.store.delete(self.store.list(f"parts/attempts/{self.run_id}"))


class _Phase:
    """One phase at work: receipts come in, scopes are sealed when their last task is back, and
    published from time to time.
    """

    def __init__(self, run: Run, chain: Sequence[Stage], found: Work, todo: Sequence[Task]) -> None:
        self.run_, self.chain, self.found, self.todo = run, chain, found, todo
        self.left: Counter[Scope] = Counter((task.bucket, task.chunk) for task in todo)
        self.parts: dict[Scope, dict[str, list[str]]] = {}
        self.sealed: set[Scope] = set()
        self.changed: list[Entry] = []
        self.spent: list[str] = []
        self.view = run._view()
        self.published = time.monotonic()

    def run(self) -> None:
        run, names = self.run_, [stage.name for stage in self.chain]
        resources = {name: run.prepared.dag.stages[name].resources for name in names}
        unit = "person" if self.chain[0].grain == "bucket" else "picture"
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
                self.run_.console,
                f"  {' + '.join(operator.stages)}: {counted(operator.workers, 'worker')}",
            )
            for stage in operator.stages:
                if why.get(stage):
                    told = ", ".join(
                        f"{count} {reason}" for reason, count in why[stage].most_common()
                    )
                    detail(self.run_.console, f"  {stage}: {told}")

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
            rates = dict(self.run_.snapshot.notes.get("rates", {}))
            for stage in progress.stages:
                computed = stage.rows - stage.adopted
                if computed and stage.seconds:
                    rates[f"{stage.name}/{self.run_.prepared.versions[stage.name]}"] = round(
                        stage.seconds / computed, 6
                    )
            self.run_.snapshot = self.run_.snapshot.with_notes(rates=rates)
        if self.changed:
            self.run_._publish(self.changed)
            self.changed = []
        if not self.parts:
            # Only now are the parts' rows safe elsewhere.
            self.run_.store.delete(self.spent)
            self.spent = []
        self.published = time.monotonic()

    def _record(self, progress: Progress, wall: float, workers: int) -> None:
        record = self.run_.record
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


@dataclass(frozen=True)
class ShardJob:
    """`write_shard` as a function of text that can travel."""

    root: str

    def __call__(self, item: str) -> str:
        return json.dumps(write_shard(Store(self.root), json.loads(item)))


def _machine() -> dict[str, Any]:
    packages = {}
    for name in (
        "idcluster",
        "ray",
        "pyarrow",
        "numpy",
        "opencv-contrib-python-headless",
        "onnxruntime",
        "dlib-bin",
        "scikit-learn",
    ):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "processor": platform.machine(),
        "cores": available_cores(),
        "packages": packages,
    }
