"""The plan: what a run would do, why, and about how long it would take. Reads the snapshot and the
source, writes nothing.
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from idcluster.root.dataset_root import open_root
from idcluster.root.listing_cache import ListingCache
from idcluster.root.snapshot import Snapshot, load
from idcluster.root.storage import Store
from pipeline.dag import SHARD, shard_params
from pipeline.execution.intake import Intake, take_in
from pipeline.execution.missing_files import without_missing
from pipeline.execution.operators import available_cores, operators
from pipeline.execution.root_stages import complete, starved
from pipeline.execution.snapshot_tables import SnapshotTables
from pipeline.execution.work import find_work, phases, tasks
from pipeline.execution.worker_spec import sources_of
from pipeline.prepared_dag import PreparedDag, Selection, allowed_images, forced_units
from pipeline.shards.split_lists import resolve
from pipeline.shards.writing import shard_basis
from pipeline.weights.licences import Term
from stages.crawl.service import Asking
from stages.stage import Stage


@dataclass(frozen=True)
class Line:
    """What one stage would do. `units` are known; `more` says that others follow from what stages
    before it bring.

    `seconds` is the estimate for the known units on this machine's workers, None where no run has
    measured the stage.
    """

    stage: str
    done: int
    units: int
    more: bool
    tasks: int
    why: Counter[str]
    seconds: float | None


@dataclass(frozen=True)
class Plan:
    intake: Intake | None
    lines: list[Line]
    shards: str
    again: bool = False
    """Rows that are there come to be shown again, without computing anything."""
    remarks: tuple[str, ...] = ()
    """What to tell about files that are not there."""
    licences: tuple[Term, ...] = ()
    """What a run would ask to be accepted."""

    @property
    def nothing(self) -> bool:
        if self.remarks:
            return False
        fresh = self.intake is not None and (
            self.intake.new or self.intake.changed or self.intake.gone
        )
        work = any(line.units or line.more for line in self.lines)
        return (
            not fresh
            and not work
            and not self.again
            and self.shards in ("as they are", "not in this run")
        )


def make_plan(prepared: PreparedDag, selection: Selection, store: Store) -> Plan:
    """Compare what the DAG wants with what is there. Raises what a run would raise before it
    starts.
    """
    with suppress(FileNotFoundError):
        store.read("dataset.json")
        open_root(store.root)
    chosen = prepared.chosen(selection)
    profile = shard_params(prepared.dag.stages[SHARD]).profile if SHARD in chosen else None
    rest = without_missing(store, load(store), prepared.stages, chosen, profile)
    snapshot = rest.snapshot
    # Nobody is asked over the network for a plan: what runs have learnt has to do.
    sources = sources_of(
        prepared.dag, Asking(ask=False), lambda name: ListingCache(store, name, write=False)
    )
    intake = take_in(store, snapshot, *sources, write=False) if "crawl" in chosen else None
    stages = [stage for stage in prepared.stages if stage.name in chosen]
    forced = (
        {} if selection.retry is None else forced_units(store, snapshot, stages, selection.retry)
    )
    allowed = None if selection.where is None else allowed_images(store, snapshot, selection.where)
    view = SnapshotTables(store, snapshot, prepared.versions)
    # Stages that are not chosen are looked at too: what they would do is not done, so nothing
    # follows from it.
    found = find_work(view, stages, forced, allowed, explicit=selection.limit is not None)
    listed = (intake.new + intake.changed) if intake else 0
    lines: list[Line] = []
    following = intake is not None and listed + intake.gone > 0
    rates = snapshot.notes.get("rates", {})
    for phase in phases(stages):
        for stage in phase:
            if stage.grain == "root":
                lines.append(_whole(snapshot, stage, prepared.versions[stage.name], following))
                following = following or lines[-1].more
                continue
            units = found.units(stage.name) + (listed if stage.name == "crawl" else 0)
            why = found.why(stage.name) + (
                Counter({"source": listed}) if stage.name == "crawl" and listed else Counter()
            )
            more = (following and stage.name != "crawl") or found.behind(stage.name)
            rate = rates.get(f"{stage.name}/{prepared.versions[stage.name]}")
            resources = {stage.name: prepared.dag.stages[stage.name].resources}
            workers = operators([stage.name], resources, available_cores())[0].workers
            seconds = None if rate is None else units * rate / workers
            count = len(
                tasks(view, phase, found.of(stage.name), "", selection.limit, available_cores())
            )
            lines.append(Line(stage.name, found.done[stage.name], units, more, count, why, seconds))
            following = following or units > 0 or more
    again = any(finding.reseal for finding in found.findings)
    return Plan(
        intake, lines, _shards(prepared, chosen, store, snapshot, following), again, rest.remarks
    )


def _whole(snapshot: Snapshot, stage: Stage, version: str, following: bool) -> Line:
    """The line of a stage over the whole dataset: all of it, or nothing."""
    done = sum(entry.rows for entry in snapshot.shown(stage.writes.name))
    if following or starved(snapshot, stage):
        return Line(stage.name, done, 0, following, 0, Counter(), None)
    if complete(snapshot, stage, version):
        return Line(stage.name, done, 0, False, 0, Counter(), None)
    people = sum(entry.rows for entry in snapshot.shown(stage.parent))
    return Line(
        stage.name, 0, people, False, 0, Counter({"inputs" if done else "new": people}), None
    )


def check_sql(prepared: PreparedDag, selection: Selection) -> None:
    """Raise DagError for a --where or --retry that is no SQL over the tables, before a run begins
    to work.
    """
    nowhere, empty = Store("."), Snapshot()
    if selection.retry is not None:
        chosen = prepared.chosen(selection)
        forced_units(
            nowhere,
            empty,
            [stage for stage in prepared.stages if stage.name in chosen],
            selection.retry,
        )
    if selection.where is not None:
        allowed_images(nowhere, empty, selection.where)


def _shards(
    prepared: PreparedDag, chosen: set[str], store: Store, snapshot: Snapshot, following: bool
) -> str:
    if SHARD not in chosen:
        return "not in this run"
    params, _ = resolve(store, shard_params(prepared.dag.stages[SHARD]), write=False)
    if following:
        return "follow from the rows above"
    same = snapshot.notes.get(f"shards/{params.profile}") == shard_basis(snapshot, params)
    return "as they are" if same else "to be compared"


def reasons(why: Counter[str]) -> str:
    """The reasons of a line in words."""
    words = {
        "new": "new",
        "inputs": "upstream changed",
        "version": "parameters, code or weights changed",
        "retry": "asked to retry",
        "source": "new or changed at the source",
    }
    return ", ".join(f"{count} {words[name]}" for name, count in why.most_common())


def as_json(plan: Plan) -> dict[str, Any]:
    """The plan for programs. `to_do` is what is known; `more_follows` from what the stages before
    bring.
    """
    source = plan.intake
    counts = ("people", "offered", "new", "changed", "gone")
    return {
        "nothing_to_do": plan.nothing,
        "source": None
        if source is None
        else {**{name: getattr(source, name) for name in counts}, "remarks": list(source.remarks)},
        "stages": [
            {
                "stage": line.stage,
                "there": line.done,
                "to_do": line.units,
                "more_follows": line.more,
                "tasks": line.tasks,
                "why": dict(line.why),
                "seconds": None if line.seconds is None else round(line.seconds, 1),
            }
            for line in plan.lines
        ],
        "shown_again": plan.again,
        "shards": plan.shards,
    }


def rows(plan: Plan) -> Sequence[tuple[str, ...]]:
    """The plan as text cells: stage, done, to do, tasks, why, estimate."""
    cells = []
    for line in plan.lines:
        todo = (
            " and ".join([str(line.units)] * (line.units > 0) + ["what follows"] * line.more) or "-"
        )
        estimate = (
            ""
            if line.seconds is None or not line.units
            else f"{line.seconds:.0f} s"
            if line.seconds >= 1
            else "< 1 s"
        )
        cells.append(
            (line.stage, str(line.done), todo, str(line.tasks or ""), reasons(line.why), estimate)
        )
    return cells
