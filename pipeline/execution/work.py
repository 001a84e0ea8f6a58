"""Work: what is wanted and not there, scope by scope, and the tasks that follow from it.

Nothing is computed and nothing is written. Complete scopes are told by their basis without being
read.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.compute as pc

from idcluster.root.parquet import SLICE_ROWS, read
from idcluster.root.snapshot import WHOLE
from pipeline.execution.reconcile import Reconciled, by_hand, ordered, reconcile, unit_column
from pipeline.execution.snapshot_tables import Scope, SnapshotTables, is_chunked
from pipeline.execution.tasks import Task, share
from schemas import TABLES
from stages.stage import Stage

SPREAD, SMALL_SLICE_ROWS = 8, 8
PEOPLE_ROWS = 4096
"""Rows of a parent table after which a task takes no more people."""


@dataclass(frozen=True)
class Finding:
    """What a stage has to do in a scope. `members` are image ids (slice grain) or identity ids
    (bucket grain), None for all.

    `units` counts the units without rows; `behind` says that more may follow from what stages
    before it have to do. `why` counts the units by reason: new, inputs (upstream changed), version
    (code, parameters or weights changed), retry.
    """

    stage: str
    scope: Scope
    units: int
    members: list[str] | None
    why: Counter[str]
    behind: bool
    reseal: bool
    forced: frozenset[str] = frozenset()
    """The units of the scope that are there and are to be computed again."""


@dataclass
class Work:
    """All findings, in pipeline order, buckets and chunks rising. Complete scopes only count in
    `done`.
    """

    findings: list[Finding] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    """Rows that are there and wanted, by stage."""

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


def find_work(
    view: SnapshotTables,
    stages: Sequence[Stage],
    forced: Mapping[str, frozenset[str]] | None = None,
    allowed: Set[str] | None = None,
    explicit: bool = False,
) -> Work:
    """What `stages` (in pipeline order) have to do on `view`.

    `forced` are units by table that count as missing; `allowed` restricts what is to do to these
    image ids. Where a stage has no rows yet in a scope, nothing is read: units are then counted by
    the rows of status ok in what it reads, and members are not named. `explicit` asks for them all
    the same.
    """
    result = Work()
    forced = forced or {}
    for bucket in view.buckets:
        behind: set[tuple[str, int, int]] = set()
        for stage in (
            stage for stage in stages if stage.grain != "root"
        ):  # those are for `pipeline.execution.root_stages`
            for scope in view.scopes(stage, bucket):
                _look(
                    result,
                    view,
                    stage,
                    scope,
                    forced.get(stage.writes.name, frozenset()),
                    allowed,
                    behind,
                    explicit,
                )
        view.forget(bucket)
    return result


def _look(
    result: Work,
    view: SnapshotTables,
    stage: Stage,
    scope: Scope,
    forced: frozenset[str],
    allowed: Set[str] | None,
    behind: set[tuple[str, int, int]],
    explicit: bool,
) -> None:
    table = stage.writes.name
    complete = None if forced else view.complete(stage, scope)
    if complete is not None:
        view.settle(complete)
        result.done[stage.name] += sum(entry.rows for entry in complete)
        if not all(entry.current for entry in complete):
            result.findings.append(Finding(stage.name, scope, 0, [], Counter(), False, reseal=True))
        return
    looks_at = view.tables_of(stage)
    if any(
        view.is_bare(name, scope)
        and all((name, *at) in behind for at in view.parts_of(name, scope))
        for name in looks_at
    ):
        _wait(result, view, stage, scope, behind)
        return
    places = view.pool(stage, scope)
    if not places and allowed is None and not explicit:
        _look_at_nothing(result, view, stage, scope, behind)
        return
    pool = [read(view.store, stage.writes, place) for place in places]
    found = reconcile(stage, view.tables(stage, scope), pool, forced)
    waits = any((name, *at) in behind for name in looks_at for at in view.parts_of(name, scope))
    indices = found.missing
    rows = found.wanted.rows
    column = "identity_id" if stage.grain == "bucket" else "image_id"
    if allowed is not None and stage.grain != "bucket" and len(indices):
        inside = pc.is_in(
            rows["image_id"], value_set=pa.array(sorted(allowed), pa.string())
        ).to_pylist()
        indices = indices[[inside[i] for i in indices]]
    units = list(dict.fromkeys(found.wanted.units[i] for i in indices))
    members = list(dict.fromkeys(rows[column].take(pa.array(indices)).to_pylist()))
    why = _why(view, stage, scope, found, pool, units, forced)
    result.done[stage.name] += sum(len(rows) for rows in found.live)
    reseal = view.basis(stage, scope) is not None and len(found.missing) == 0
    if units or waits or reseal:
        result.findings.append(
            Finding(
                stage.name,
                scope,
                len(units),
                members,
                why,
                waits,
                reseal,
                forced.intersection(units),
            )
        )
    _assume(view, stage, scope, found, pool)
    if len(found.missing) or waits:
        behind.update((table, *at) for at in view.parts_of(table, scope))


def _wait(
    result: Work,
    view: SnapshotTables,
    stage: Stage,
    scope: Scope,
    behind: set[tuple[str, int, int]],
) -> None:
    """The finding of a stage that looks at a table which has no rows yet: nothing is known, so
    nothing is read.
    """
    result.findings.append(Finding(stage.name, scope, 0, [], Counter(), behind=True, reseal=False))
    for at in view.parts_of(stage.writes.name, scope):
        view.assume(stage.writes.name, at, stage.writes.bare)
        behind.add((stage.writes.name, *at))


def _look_at_nothing(
    result: Work,
    view: SnapshotTables,
    stage: Stage,
    scope: Scope,
    behind: set[tuple[str, int, int]],
) -> None:
    """The finding of a stage that has no rows in a scope: all of it, without reading any of it."""
    waits = any(
        (name, *at) in behind for name in view.tables_of(stage) for at in view.parts_of(name, scope)
    )
    # Tables of the same key have a row for the same things: no more can be wanted than the shortest
    # has. A stage may want something in spite of what an optional table says of it, but not before
    # it is there.
    key = TABLES[stage.parent].key
    tables = [
        name for name in view.tables_of(stage) if TABLES[name].key == key and not by_hand(name)
    ]
    units = min((view.rows if name in stage.optional else view.ok)(name, scope) for name in tables)
    if stage.grain == "bucket" and units:
        units = min(units, view.ok("identities", scope))
    others = any(
        view.snapshot.of(stage.writes.name, *at) for at in view.parts_of(stage.writes.name, scope)
    )
    reseal = units == 0 and view.basis(stage, scope) is not None
    if units or waits or reseal:
        why = Counter({"version" if others else "new": units}) if units else Counter[str]()
        result.findings.append(
            Finding(stage.name, scope, units, None if units else [], why, waits, reseal)
        )
    for at in view.parts_of(stage.writes.name, scope):
        view.assume(stage.writes.name, at, stage.writes.bare)
        if units or waits:
            behind.add((stage.writes.name, *at))


def _assume(
    view: SnapshotTables, stage: Stage, scope: Scope, found: Reconciled, pool: Sequence[pa.Table]
) -> None:
    """Let the stages behind see what would be shown if the run stopped here."""
    schema = stage.writes
    there = [table.take(pa.array(indices)) for table, indices in zip(pool, found.live, strict=True)]
    live = ordered(stage, found.wanted, pa.concat_tables([schema.bare, *there]))
    bucket, chunk = scope
    if chunk != WHOLE or not is_chunked(schema.name):
        view.assume(schema.name, (bucket, chunk), live)
        return
    chunk_of = view.chunk_of(bucket)
    at = [chunk_of.get(image) for image in live["image_id"].to_pylist()]
    for number in view.chunks(bucket):
        view.assume(
            schema.name,
            (bucket, number),
            live.filter(pa.array([where == number for where in at], pa.bool_())),
        )


def _why(
    view: SnapshotTables,
    stage: Stage,
    scope: Scope,
    found: Reconciled,
    pool: Sequence[pa.Table],
    units: Iterable[str],
    forced: Set[str],
) -> Counter[str]:
    column = unit_column(stage)
    there = {unit for table in pool for unit in table[column].to_pylist()}
    needed = found.wanted.inputs_of()
    current = {
        pair
        for table in pool
        for pair in zip(table[column].to_pylist(), table["inputs"].to_pylist(), strict=True)
    }
    version = view.versions[stage.name]
    others = any(
        entry.version != version
        for at in view.parts_of(stage.writes.name, scope)
        for entry in view.snapshot.of(stage.writes.name, *at)
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
    """Stages in runs of equal grain: between two of them everything before is finished and
    published. One of grain root is alone.
    """
    runs: list[list[Stage]] = []
    for stage in stages:
        if runs and runs[-1][-1].grain == stage.grain != "root":
            runs[-1].append(stage)
        else:
            runs.append([stage])
    return runs


def tasks(
    view: SnapshotTables,
    phase: Sequence[Stage],
    findings: Iterable[Finding],
    token: str = "",
    limit: int | None = None,
    cores: int = 0,
    slice_rows: int | None = None,
) -> list[Task]:
    """The tasks of one phase. `limit` is the number of images (slice grain) after which no task
    is added.

    Slices are fixed stretches of ranks of a chunk, so that an image is always cut into the same
    one. Where there is too little to do for `cores`, they are smaller, so that all have some of it;
    `slice_rows` says how small.
    """
    if slice_rows is not None:
        return _tasks(view, phase, findings, token, limit, slice_rows)
    made = _tasks(view, phase, findings, token, limit, SLICE_ROWS)
    return (
        made
        if len(made) >= SPREAD * cores
        else _tasks(view, phase, findings, token, limit, SMALL_SLICE_ROWS)
    )


def _tasks(
    view: SnapshotTables,
    phase: Sequence[Stage],
    findings: Iterable[Finding],
    token: str,
    limit: int | None,
    slice_rows: int,
) -> list[Task]:
    names = {stage.name for stage in phase}
    members: dict[Scope, dict[str, None] | None] = {}
    forced: dict[Scope, dict[str, list[str]]] = {}
    tables = {stage.name: stage.writes.name for stage in phase}
    for finding in findings:
        if finding.stage in names and finding.members != []:
            known = members.setdefault(finding.scope, {})
            if finding.members is None:
                members[finding.scope] = None
            elif known is not None:
                known.update(dict.fromkeys(finding.members))
            if finding.forced:
                forced.setdefault(finding.scope, {})[tables[finding.stage]] = sorted(finding.forced)
    made: list[Task] = []
    left = limit
    for scope in sorted(members):
        asked = members[scope]
        of_people = phase[0].grain == "bucket"
        cut = (
            _people(view, phase[0], scope, asked)
            if of_people
            else _slices(view, scope, asked, slice_rows)
        )
        common = _common(view, phase, scope, forced.get(scope, {}), token)
        for number, stretch, size, batch in cut:
            if left is not None and batch is not None and not of_people:
                batch = batch[:left]
                left -= len(batch)
                size = len(batch)
            if size:
                made.append(
                    replace(
                        common,
                        number=number,
                        stretch=stretch,
                        size=size,
                        members=None if batch is None else tuple(batch),
                    )
                )
    return made


Cut = tuple[int, int, int, list[str] | None]
"""Number, stretch, size and members of a task."""


def _slices(
    view: SnapshotTables, scope: Scope, wanted: Mapping[str, None] | None, slice_rows: int
) -> list[Cut]:
    if wanted is None:
        entry = view.shown_at("candidates", scope)
        rows = entry.rows if entry else 0
        return [
            (start // slice_rows, slice_rows, min(slice_rows, rows - start), None)
            for start in range(0, rows, slice_rows)
        ]
    slices: dict[int, list[str]] = {}
    candidates = view.table("candidates", scope, ["image_id", "rank"])
    for image, rank in zip(
        candidates["image_id"].to_pylist(), candidates["rank"].to_pylist(), strict=True
    ):
        if image in wanted:
            slices.setdefault(rank // slice_rows, []).append(image)
    return [(number, slice_rows, len(batch), batch) for number, batch in sorted(slices.items())]


def _people(
    view: SnapshotTables, stage: Stage, scope: Scope, wanted: Mapping[str, None] | None
) -> list[Cut]:
    rows = view.ok(stage.parent, scope)
    stretch = max(1, -(-rows // PEOPLE_ROWS))
    people = view.ok("identities", scope)
    if wanted is None:
        return [(number, stretch, max(1, people // stretch), None) for number in range(stretch)]
    batches: dict[int, list[str]] = {}
    for person in wanted:
        batches.setdefault(share(person, stretch), []).append(person)
    return [(number, stretch, len(batch), batch) for number, batch in sorted(batches.items())]


def _common(
    view: SnapshotTables,
    phase: Sequence[Stage],
    scope: Scope,
    forced: dict[str, list[str]],
    token: str,
) -> Task:
    """What all tasks of a scope share."""
    written = {stage.writes.name for stage in phase}
    bucket, chunk = scope
    # A slice says by ranks of candidates which images it has.
    first = ("candidates",) if chunk != WHOLE else ()
    read_only = dict.fromkeys(
        (
            *first,
            *(table for stage in phase for table in view.tables_of(stage) if table not in written),
        )
    )
    return Task(
        kind="people" if phase[0].grain == "bucket" else "slice",
        bucket=bucket,
        chunk=chunk,
        number=0,
        members=None,
        chain=tuple(stage.name for stage in phase),
        shown={table: view.files(table, scope) for table in read_only},
        pool={stage.writes.name: view.pool(stage, scope) for stage in phase},
        forced=forced,
        token=token if forced else "",
    )
