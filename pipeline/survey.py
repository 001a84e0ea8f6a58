"""The survey: what is wanted and not there, scope by scope, and the tasks that follow from it.

Nothing is computed and nothing is written. Complete scopes are told by their basis without being read.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.files import SLICE_ROWS, read
from pipeline.ground import Ground, Scope, is_chunked, tables_of
from pipeline.reconcile import Reconciled, ordered, reconcile, unit_column
from pipeline.snapshot import WHOLE
from pipeline.worker import Task
from stages.stage import Stage

PEOPLE_ROWS = 4096
"""Rows of a parent table after which a task takes no more people."""


@dataclass(frozen=True)
class Finding:
    """What a stage has to do in a scope. `members` are image ids (slice grain) or identity ids (bucket grain).

    `units` counts the units without rows; `behind` says that more may follow from what stages before it have to do.
    `why` counts the units by reason: new, inputs (upstream changed), version (code, parameters or weights changed),
    retry.
    """

    stage: str
    scope: Scope
    units: int
    wanted: int
    members: list[str]
    why: Counter[str]
    behind: bool
    reseal: bool
    forced: frozenset[str] = frozenset()
    """The units of the scope that are there and are to be computed again."""


@dataclass
class Survey:
    """All findings, in pipeline order, buckets and chunks rising. Complete scopes only count in `done`."""

    findings: list[Finding] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    """Units that are there, by stage."""

    def of(self, stage: str) -> list[Finding]:
        return [finding for finding in self.findings if finding.stage == stage]

    def units(self, stage: str) -> int:
        return sum(finding.units for finding in self.of(stage))

    def why(self, stage: str) -> Counter[str]:
        total: Counter[str] = Counter()
        for finding in self.of(stage):
            total.update(finding.why)
        return total

    def behind(self, stage: str) -> bool:
        return any(finding.behind for finding in self.of(stage))

    @property
    def nothing(self) -> bool:
        return not self.findings


def survey(
    ground: Ground,
    stages: Sequence[Stage],
    forced: Mapping[str, frozenset[str]] | None = None,
    allowed: Set[str] | None = None,
) -> Survey:
    """What `stages` (in pipeline order) have to do on `ground`.

    `forced` are units by table that count as missing; `allowed` restricts what is to do to these image ids.
    """
    result = Survey()
    forced = forced or {}
    for bucket in ground.buckets:
        behind: set[tuple[str, int, int]] = set()
        for stage in stages:
            for scope in ground.scopes(stage, bucket):
                _look(result, ground, stage, scope, forced.get(stage.writes.name, frozenset()), allowed, behind)
        ground.forget(bucket)
    return result


def _look(
    result: Survey, ground: Ground, stage: Stage, scope: Scope, forced: frozenset[str], allowed: Set[str] | None, behind: set[tuple[str, int, int]]
) -> None:
    table = stage.writes.name
    complete = None if forced else ground.complete(stage, scope)
    if complete is not None:
        ground.settle(complete)
        result.done[stage.name] += sum(entry.rows for entry in complete)
        if not all(entry.current for entry in complete):
            result.findings.append(Finding(stage.name, scope, 0, 0, [], Counter(), False, reseal=True))
        return
    entries = ground.pool(stage, scope)
    pool = [read(ground.store, stage.writes, entry.file) for entry in entries]
    found = reconcile(stage, ground.tables(stage, scope), pool, forced)
    waits = any((name, *at) in behind for name in tables_of(stage) for at in ground.parts_of(name, scope))
    indices = found.missing
    rows = found.wanted.rows
    column = "identity_id" if stage.grain == "bucket" else "image_id"
    if allowed is not None and stage.grain != "bucket" and len(indices):
        inside = pc.is_in(rows["image_id"], value_set=pa.array(sorted(allowed), pa.string())).to_pylist()
        indices = indices[[inside[i] for i in indices]]
    units = list(dict.fromkeys(found.wanted.units[i] for i in indices))
    members = list(dict.fromkeys(rows[column].take(pa.array(indices)).to_pylist()))
    why = _why(ground, stage, scope, found, pool, units, forced)
    result.done[stage.name] += len(set(found.wanted.units)) - len(found.missing_units)
    reseal = ground.basis(stage, scope) is not None and len(found.missing) == 0
    if units or waits or reseal:
        result.findings.append(
            Finding(stage.name, scope, len(units), len(set(found.wanted.units)), members, why, waits, reseal, forced.intersection(units))
        )
    _assume(ground, stage, scope, found, pool)
    if len(found.missing) or waits:
        behind.update((table, *at) for at in ground.parts_of(table, scope))


def _assume(ground: Ground, stage: Stage, scope: Scope, found: Reconciled, pool: Sequence[pa.Table]) -> None:
    """Let the stages behind see what would be shown if the run stopped here."""
    schema = stage.writes
    there = [table.take(pa.array(indices)) for table, indices in zip(pool, found.live, strict=True)]
    live = ordered(stage, found.wanted, pa.concat_tables([schema.empty().select(schema.light), *there]))
    bucket, chunk = scope
    if chunk != WHOLE or not is_chunked(schema.name):
        ground.assume(schema.name, (bucket, chunk), live)
        return
    chunk_of = ground.chunk_of(bucket)
    at = [chunk_of.get(image) for image in live["image_id"].to_pylist()]
    for number in ground.chunks(bucket):
        ground.assume(schema.name, (bucket, number), live.filter(pa.array([where == number for where in at], pa.bool_())))


def _why(
    ground: Ground, stage: Stage, scope: Scope, found: Reconciled, pool: Sequence[pa.Table], units: Iterable[str], forced: Set[str]
) -> Counter[str]:
    column = unit_column(stage)
    there = {unit for table in pool for unit in table[column].to_pylist()}
    needed = found.wanted.inputs_of()
    current = {pair for table in pool for pair in zip(table[column].to_pylist(), table["inputs"].to_pylist(), strict=True)}
    version = ground.versions[stage.name]
    others = any(
        entry.version != version for at in ground.parts_of(stage.writes.name, scope) for entry in ground.snapshot.of(stage.writes.name, *at)
    )
    why: Counter[str] = Counter()
    for unit in units:
        if unit in forced and (unit, needed[unit]) in current:
            why["retry"] += 1
        elif unit in there:
            why["inputs"] += 1
        else:
            why["version" if others and not pool else "new"] += 1
    return why


def phases(stages: Sequence[Stage]) -> list[list[Stage]]:
    """Stages in runs of equal grain: between two of them everything before is finished and published."""
    runs: list[list[Stage]] = []
    for stage in stages:
        if runs and runs[-1][-1].grain == stage.grain:
            runs[-1].append(stage)
        else:
            runs.append([stage])
    return runs


def tasks(
    ground: Ground, phase: Sequence[Stage], findings: Iterable[Finding], token: str = "", limit: int | None = None
) -> list[Task]:
    """The tasks of one phase. `limit` is the number of pictures (slice grain) after which no task is added."""
    names = {stage.name for stage in phase}
    members: dict[Scope, dict[str, None]] = {}
    forced: dict[Scope, dict[str, list[str]]] = {}
    tables = {stage.name: stage.writes.name for stage in phase}
    for finding in findings:
        if finding.stage in names and finding.members:
            members.setdefault(finding.scope, {}).update(dict.fromkeys(finding.members))
            if finding.forced:
                forced.setdefault(finding.scope, {})[tables[finding.stage]] = sorted(finding.forced)
    made: list[Task] = []
    left = limit
    for scope in sorted(members):
        wanted = members[scope]
        batches = _slices(ground, scope, wanted) if phase[0].grain != "bucket" else _people(ground, phase[0], scope, wanted)
        for number, batch in batches:
            if left is not None and phase[0].grain != "bucket":
                batch = batch[:left]
                left -= len(batch)
            if batch:
                made.append(_task(ground, phase, scope, number, batch, forced.get(scope, {}), token))
    return made


def _slices(ground: Ground, scope: Scope, wanted: Mapping[str, None]) -> list[tuple[int, list[str]]]:
    """Members by slice. A slice is a fixed stretch of ranks, so that a picture is always cut into the same one."""
    slices: dict[int, list[str]] = {}
    candidates = ground.table("candidates", scope, ["image_id", "rank"])
    for image, rank in zip(candidates["image_id"].to_pylist(), candidates["rank"].to_pylist(), strict=True):
        if image in wanted:
            slices.setdefault(rank // SLICE_ROWS, []).append(image)
    return sorted(slices.items())


def _people(ground: Ground, stage: Stage, scope: Scope, wanted: Mapping[str, None]) -> list[tuple[int, list[str]]]:
    sizes = Counter(ground.table(stage.parent, scope, ["identity_id"])["identity_id"].to_pylist())
    batches: list[list[str]] = []
    filled = PEOPLE_ROWS
    for person in wanted:
        if filled >= PEOPLE_ROWS:
            batches.append([])
            filled = 0
        batches[-1].append(person)
        filled += sizes[person]
    return list(enumerate(batches))


def _task(
    ground: Ground, phase: Sequence[Stage], scope: Scope, number: int, batch: Sequence[str], forced: dict[str, list[str]], token: str
) -> Task:
    written = {stage.writes.name for stage in phase}
    read_only = dict.fromkeys(table for stage in phase for table in tables_of(stage) if table not in written)
    bucket, chunk = scope
    return Task(
        kind="people" if phase[0].grain == "bucket" else "slice",
        bucket=bucket,
        chunk=chunk,
        number=number,
        members=tuple(batch),
        chain=tuple(stage.name for stage in phase),
        shown={table: ground.files(table, scope) for table in read_only},
        pool={stage.writes.name: [entry.file for entry in ground.pool(stage, scope)] for stage in phase},
        forced=forced,
        token=token if forced else "",
    )
