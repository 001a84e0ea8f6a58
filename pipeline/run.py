"""A run: take in what the source lists, then phase by phase find the work, compute, seal and
publish, and shards at the end.

Whatever interrupts it, the next run goes on: sealed chunks are in the snapshot, and slices that
were finished but not sealed are found by their names.
"""

import signal
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from types import FrameType

from rich.console import Console

from idcluster.catalogue.connection import damage
from idcluster.root.dataset_root import make_root, new_run_id
from idcluster.root.lease import Lease, is_writable
from idcluster.root.listing_cache import ListingCache
from idcluster.root.removals import check_finished
from idcluster.root.snapshot import Entry, load
from idcluster.root.spool import Place, is_web
from idcluster.root.storage import Store
from pipeline.dag import SHARD, shard_params
from pipeline.execution.compact import compact
from pipeline.execution.crawl_rounds import Rounds, check_contact, missing
from pipeline.execution.engine import MakeEngine
from pipeline.execution.fetching import Block, Haul
from pipeline.execution.intake import take_in
from pipeline.execution.missing_files import without_missing
from pipeline.execution.reconcile import by_hand
from pipeline.execution.root_stages import complete, run_whole, starved
from pipeline.execution.seal import seal
from pipeline.execution.snapshot_tables import Scope
from pipeline.execution.tasks import Task
from pipeline.execution.work import find_work, phases, tasks
from pipeline.execution.worker_spec import WorkerSpec, drain_path, has_web, sources_of
from pipeline.phase import Phase
from pipeline.prepared_dag import PreparedDag, Selection, allowed_images, forced_units
from pipeline.progress import FetchProgress, Working
from pipeline.record import Record, machine
from pipeline.run_state import RunState
from pipeline.shard_phase import write_shards
from pipeline.telling import WARNING, detail
from schemas import TABLES
from schemas.wording import counted
from stages.crawl.service import Asking
from stages.stage import Stage


class Run:
    """One run of a DAG on a root."""

    def __init__(
        self,
        prepared: PreparedDag,
        selection: Selection,
        engine: MakeEngine,
        console: Console,
        store: Store | None = None,
        run_id: str | None = None,
    ) -> None:
        """`store`: the root, where it is not simply that of the DAG."""
        self.prepared, self.selection, self.console = prepared, selection, console
        self.store = Store(prepared.dag.root) if store is None else store
        self.chosen = prepared.chosen(selection)
        self.run_id = run_id or new_run_id()
        self.spec = WorkerSpec(
            self.store.root,
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
        self.others = False
        """Whether a source has files, which are read by rounds as addresses of the web are."""
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
            machine=machine(),
        )
        self.state = RunState(prepared, self.store, console, self.engine, self.record)

    def execute(self) -> Record:
        """Do it all, and close the engine. The record is written whatever happens; errors are
        raised after that.

        A cluster that cannot do it is refused before there is a root.
        """
        state, start = self.state, time.monotonic()
        try:
            with Working(self.console, "looking at the Ray cluster"):
                self.engine.check()
            make_root(self.store, self.prepared.dag.name)
            is_writable(self.store)
            with Lease(
                self.store, self.run_id, lambda text: self.console.print(text, style=WARNING)
            ) as lease:
                state.lease = lease
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
                    self.record.snapshot = state.snapshot.number
                    if state.work_done or self.record.status != "done":
                        self.store.put(f"runs/{self.run_id}.json", self.record.encode())
        finally:
            self.engine.close()
        return self.record

    def _execute(self) -> None:
        check_finished(self.store)
        self.state.snapshot = load(self.store)
        self.record.snapshot_before = self.state.snapshot.number
        self._leave_out_missing()
        if "crawl" in self.chosen:
            self._take_in()
        stages = self.prepared.stages
        forced = self._forced()
        allowed = (
            None
            if self.selection.where is None
            else allowed_images(self.store, self.state.snapshot, self.selection.where)
        )
        token = f"{self.selection.retry} {self.state.snapshot.number}"
        parts = [{stage.name for stage in phase} for phase in phases(stages)] + [{SHARD}]
        todo = [names for names in parts if names & set(self.chosen)]
        for phase in phases(stages):
            mine = {stage.name for stage in phase if stage.name in self.chosen}
            self.state.place = next(
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
            self.state.place = f"phase {len(todo)} of {len(todo)}"
            write_shards(self.state)
        if self.state.owed:
            self.state.publish([])

    def _leave_out_missing(self) -> None:
        """Go on from what is there: what a snapshot names and is gone is computed again, or the run
        ends here.
        """
        profile = (
            shard_params(self.prepared.dag.stages[SHARD]).profile if SHARD in self.chosen else None
        )
        rest = without_missing(
            self.store, self.state.snapshot, self.prepared.stages, self.chosen, profile
        )
        for remark in rest.remarks:
            self.state.note(remark)
        self.state.snapshot, self.state.owed = rest.snapshot, bool(rest.dropped)
        # Half a shard must not be taken for one that an earlier run has finished.
        self.store.delete(rest.files)
        fresh = compact(self.store, self.state.snapshot, rest.companions)
        if fresh:
            self.state.publish(fresh)

    def _take_in(self) -> None:
        asking = Asking(
            stopped=lambda: self.drained, say=lambda text: self.console.print(text, highlight=False)
        )
        sources = sources_of(self.prepared.dag, asking, lambda name: ListingCache(self.store, name))
        with Working(self.console, "reading the source"):
            found = take_in(self.store, self.state.snapshot, *sources)
        self.others = found.others
        for remark in found.remarks:
            self.state.note(remark)
        if found.entries:
            self.state.publish(found.entries)
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
        listed = f"{counted(found.people, 'person')}, {counted(found.offered, 'image')}"
        self.console.print(f"source: {listed}; {said}", highlight=False)

    def _forced(self) -> dict[str, frozenset[str]]:
        if self.selection.retry is None:
            return {}
        chosen = [stage for stage in self.prepared.stages if stage.name in self.chosen]
        forced = forced_units(self.store, self.state.snapshot, chosen, self.selection.retry)
        if not forced:
            self.console.print(f"nothing matches --retry {self.selection.retry!r}", highlight=False)
        return forced

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
            self.state.work_done = True
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
                self.state.view(),
                crawl,
                asked,
                allowed,
                refusals_before,
                self.selection.limit,
                serves,
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
        with Working(self.console, f"{self.state.place}: looking what there is to do"):
            found = find_work(self.state.view(), chain, forced, allowed, explicit=explicit)
        if found.nothing:
            self._tell_if_starved(chain)
            return
        # The limit of a crawl was kept when it was fetched.
        limit = self.selection.limit if places is None else None
        todo = tasks(self.state.view(), chain, found.findings, token, limit, self.engine.cores())
        if places is not None:
            todo = [self._with_places(task, places) for task in todo]
        work = Phase(self.state, chain, found, todo)
        work.run()

    def _with_places(self, task: Task, places: Mapping[str, Place]) -> Task:
        """The task with where its images lie in the spool."""
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
        if self._candidates_of[0] != (scope, self.state.snapshot.number):
            rows = self.state.view().table("candidates", scope, ["image_id", "address"])
            pairs = list(
                zip(rows["image_id"].to_pylist(), rows["address"].to_pylist(), strict=True)
            )
            self._candidates_of = ((scope, self.state.snapshot.number), pairs)
        return self._candidates_of[1]

    def _whole(self, stage: Stage) -> None:
        """A stage over the whole dataset, in this process."""
        version = self.prepared.versions[stage.name]
        if starved(self.state.snapshot, stage):
            self._tell_if_starved([stage])
            return
        if complete(self.state.snapshot, stage, version):
            return
        start = time.monotonic()
        self.console.print(f"{stage.name}: the whole dataset", highlight=False)
        with Working(self.console, f"{self.state.place}: {stage.name} over the whole dataset"):
            entries = run_whole(self.store, self.state.snapshot, stage, version)
        self.state.publish(entries)
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
            for table in self.state.view().tables_of(stage):
                if (
                    table not in written
                    and not by_hand(table)
                    and not self.state.snapshot.shown(table)
                ):
                    note = (
                        f"note: {stage.name} reads {table}, which has no rows yet; run "
                        f"{TABLES[table].written_by} too"
                    )
                    self.console.print(note, style=WARNING, highlight=False)

    def _refresh(self, stages: Sequence[Stage]) -> None:
        """Let tables of stages that this run leaves out show what still fits, without computing
        anything.
        """
        view = self.state.view()
        changed: list[Entry] = []
        for stage in (stage for stage in stages if stage.grain != "root"):
            shown = {entry.version for entry in self.state.snapshot.shown(stage.writes.name)}
            if shown == {self.prepared.versions[stage.name]}:
                for bucket in view.buckets:
                    for scope in view.scopes(stage, bucket):
                        changed += seal(view, stage, scope, ())
        if changed:
            self.state.publish(changed)

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
