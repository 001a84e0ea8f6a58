"""One task worked off: what it lacks is computed stage by stage, and written as parts."""

import hashlib
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from idcluster.root.parquet import DamagedFile, encode, part_path, read
from idcluster.root.removals import Bars
from idcluster.root.snapshot import WHOLE
from idcluster.root.spool import SpoolServices
from idcluster.root.storage import Store
from pipeline.execution.attempts import Attempt
from pipeline.execution.decoded_images import Originals
from pipeline.execution.reconcile import Reconciled, Wanted, ordered, reconcile, unit_column
from pipeline.execution.tasks import Part, Task, share
from schemas import TABLES, no_face_id
from stages.pictures import PictureError
from stages.stage import Picture, Services, Stage

GROUP_BYTES = 192 * 2**20
"""Decoded images that a worker holds at once; a slice of large photographs is worked off in
groups.
"""


_DETAIL = 300


class Clock:
    def __init__(self, chain: Sequence[str], mine: Collection[str] | None) -> None:
        self.seconds: dict[str, float] = {}
        self.chain = chain
        first = next((name for name in chain if name in (mine or ())), "")
        self.whose = f" for {first}" if first and len(set(mine or ())) < len(chain) else ""

    def time(self, what: str) -> "_Span":
        return _Span(self, what if what in self.chain else what + self.whose)


class _Span:
    def __init__(self, clock: Clock, what: str) -> None:
        self.clock, self.what, self.seconds = clock, what, 0.0

    def __enter__(self) -> "_Span":
        self.start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self.start
        self.clock.seconds[self.what] = self.clock.seconds.get(self.what, 0.0) + self.seconds


class Host(Protocol):
    """What a task needs of the worker that works it off."""

    store: Store
    stages: Mapping[str, Stage]
    versions: Mapping[str, str]
    services: Services

    @property
    def bars(self) -> Bars:
        """What was removed and must not come back."""
        ...

    def is_ready(self, name: str) -> bool:
        """Whether there is nothing (more) to set up."""
        ...

    def ready(self, name: str) -> Stage:
        """The stage, set up."""
        ...

    def light(self, table: str, path: str) -> pa.Table:
        """The light columns of a file."""
        ...


class TaskAtWork:
    """The state of one attempt at one task."""

    def __init__(
        self,
        worker: Host,
        task: Task,
        mine: set[str],
        fresh: Sequence[Part],
        attempt: Attempt,
        clock: Clock,
    ) -> None:
        self.worker, self.task, self.mine, self.attempt, self.clock = (
            worker,
            task,
            mine,
            attempt,
            clock,
        )
        self.chain = [worker.stages[name] for name in task.chain]
        self.tables: dict[str, pa.Table] = {}
        self.pools: dict[str, list[pa.Table]] = {}
        self.originals = Originals(worker.store, task.shown.get("images", []))
        self.services: Services = (
            worker.services
            if task.spool is None
            else SpoolServices(worker.store, task.spool, worker.services)
        )
        with clock.time("read"):
            self.members = self._members()
            for table, paths in task.shown.items():
                self.tables[table] = self._gather(table, paths)
            for stage in self.chain:
                table = stage.writes.name
                paths = [
                    *task.pool.get(table, ()),
                    *(part.path for part in fresh if part.table == table),
                ]
                self.pools[table] = [
                    self._restrict(worker.light(table, path), self.members) for path in paths
                ]
                if table == "images":
                    self.originals.paths = paths

    def _members(self) -> tuple[str, ...]:
        task = self.task
        if task.members is not None:
            return task.members
        if task.kind == "slice":
            rows = pa.concat_tables(
                [self.worker.light("candidates", path) for path in task.shown["candidates"]]
            )
            inside = [rank // task.stretch == task.number for rank in rows["rank"].to_pylist()]
            return tuple(rows["image_id"].filter(pa.array(inside, pa.bool_())).to_pylist())
        parent = self.chain[0].parent
        people = {
            person
            for path in task.shown[parent]
            for person in self.worker.light(parent, path)["identity_id"].to_pylist()
        }
        return tuple(
            sorted(person for person in people if share(person, task.stretch) == task.number)
        )

    def _gather(self, table: str, paths: Sequence[str]) -> pa.Table:
        schema = TABLES[table]
        light = [self._restrict(self.worker.light(table, path), self.members) for path in paths]
        return pa.concat_tables([schema.empty().select(schema.light), *light])

    def _restrict(self, table: pa.Table, members: Collection[str]) -> pa.Table:
        column = self.task.member_column
        if column not in table.column_names:
            return table  # a table of people beside a task of images: the join picks what it needs
        return table.filter(pc.is_in(table[column], value_set=pa.array(list(members), pa.string())))

    def work(self) -> list[Part]:
        parts: list[Part] = []
        chain = list(self.chain)
        while chain:
            stage = chain[0]
            whole = self._reconcile(stage, self.tables, self.members)
            adopted = self._adopt(stage, whole)
            if adopted is None:
                if stage.needs_pixels and not self.attempt.careful:
                    break
                adopted = self._write(stage, *self._compute_all(stage, whole))
            part, new = adopted
            if part:
                parts.append(part)
                if part.table == "images":
                    self.originals.paths = [*self.originals.paths, part.path]
            self._show(stage, whole, new)
            self.originals.forget()
            chain.pop(0)
        if chain:
            parts += self._work_in_groups(chain)
        return parts

    def _reconcile(
        self, stage: Stage, tables: Mapping[str, pa.Table], members: Collection[str]
    ) -> Reconciled:
        pool = self.pools[stage.writes.name]
        if len(members) < len(self.members):
            pool = [self._restrict(table, members) for table in pool]
        return reconcile(stage, tables, pool, set(self.task.forced.get(stage.writes.name, ())))

    def _adopt(self, stage: Stage, found: Reconciled) -> tuple[Part | None, pa.Table | None] | None:
        """What is there of a stage without computing anything, or None if it has to be computed."""
        if not len(found.missing) or stage.name not in self.mine:
            return None, None
        path = self._part_path(stage, found.wanted.take(found.missing))
        with self.clock.time("read"):
            if not self.worker.store.exists(path):
                return None
            try:
                rows = read(self.worker.store, stage.writes, path, stage.writes.names)
            except DamagedFile:
                return (
                    None  # a power cut can leave an empty part; what is computed again replaces it
                )
        return self._part(stage, path, rows, 0.0, adopted=True), rows

    def _compute_all(self, stage: Stage, whole: Reconciled) -> tuple[Wanted, pa.Table, float]:
        missing = whole.wanted.take(whole.missing)
        before = self.clock.seconds.get(stage.name, 0.0)
        if not self.attempt.careful:
            rows = self._run(stage, missing)
        else:
            column = missing.rows[self.task.member_column].to_pylist()
            single = [
                [i for i, value in enumerate(column) if value == member] for member in self.members
            ]
            rows = pa.concat_tables(
                [self._careful(stage, missing.take(indices)) for indices in single if indices]
            )
        return missing, rows, self.clock.seconds.get(stage.name, 0.0) - before

    def _work_in_groups(self, chain: Sequence[Stage]) -> list[Part]:
        """The rest of the chain, group by group, so that each image is decoded once and few are
        held at a time.
        """
        new: dict[str, list[pa.Table]] = {stage.name: [] for stage in chain}
        done: dict[str, list[Wanted]] = {stage.name: [] for stage in chain}
        before = {stage.name: self.clock.seconds.get(stage.name, 0.0) for stage in chain}
        for group in self._groups():
            self.originals.forget()
            tables = {name: self._restrict(table, group) for name, table in self.tables.items()}
            for stage in chain:
                found = self._reconcile(stage, tables, group)
                fresh = None
                if len(found.missing) and stage.name in self.mine:
                    missing = found.wanted.take(found.missing)
                    fresh = self._run(stage, missing)
                    new[stage.name].append(fresh)
                    done[stage.name].append(missing)
                tables[stage.writes.name] = self._live(stage, found, fresh, group)
        parts = []
        for stage in chain:
            if new[stage.name]:
                seconds = self.clock.seconds.get(stage.name, 0.0) - before[stage.name]
                missing = _concat(done[stage.name])
                part, _ = self._write(stage, missing, pa.concat_tables(new[stage.name]), seconds)
                parts.append(part)
        return parts

    def _groups(self) -> Iterator[list[str]]:
        images = self.tables["images"]
        columns = (images[name].to_pylist() for name in ("image_id", "width", "height"))
        sizes = {image: (width, height) for image, width, height in zip(*columns, strict=True)}
        group: list[str] = []
        held = 0
        for member in self.members:
            width, height = sizes.get(member, (0, 0))
            size = 3 * (width or 0) * (height or 0)
            if group and held + size > GROUP_BYTES:
                yield group
                group, held = [], 0
            group.append(member)
            held += size
        yield group

    def _show(self, stage: Stage, found: Reconciled, new: pa.Table | None) -> None:
        self.tables[stage.writes.name] = self._live(stage, found, new, self.members)
        if stage.writes.name == "images" and new is not None:
            self.originals.add(new)

    def _live(
        self, stage: Stage, found: Reconciled, new: pa.Table | None, members: Collection[str]
    ) -> pa.Table:
        schema = stage.writes
        pool = [self._restrict(table, members) for table in self.pools[schema.name]]
        rows = [
            table.take(pa.array(indices)) for table, indices in zip(pool, found.live, strict=True)
        ]
        if new is not None:
            taken = pa.array(new[unit_column(stage)].unique().to_pylist(), pa.string())
            # A forced unit is in the pool and in the new rows: the new ones count.
            rows = [
                table.filter(pc.invert(pc.is_in(table[unit_column(stage)], value_set=taken)))
                for table in rows
            ]
            rows.append(new.select(schema.light))
        return ordered(
            stage, found.wanted, pa.concat_tables([schema.empty().select(schema.light), *rows])
        )

    def _careful(self, stage: Stage, missing: Wanted) -> pa.Table:
        """Run the units of one member after a death, marked; poisoned ones are recorded without
        running.
        """
        member = missing.rows[self.task.member_column][0].as_py()
        if not self.worker.is_ready(stage.name):
            self.attempt.leave()
            self._set_up(stage)
        if self.attempt.step(stage.name, member):
            return self._run(stage, missing)
        detail = self.attempt.told(stage.name, member)
        return _with_inputs(
            stage, missing, _given_up(stage, missing.rows, "poisoned", "worker_died", detail)
        )

    def _set_up(self, stage: Stage) -> None:
        with self.clock.time("setup"):
            self.worker.ready(stage.name)

    def _run(self, stage: Stage, missing: Wanted) -> pa.Table:
        """Rows for all units in `missing`, with inputs; what fails becomes rows that say so."""
        outcome = []
        rows = missing.rows
        pictures: dict[str, Picture] = {}
        if stage.needs_pixels:
            pictures, errors = self._pictures(rows["image_id"].unique().to_pylist())
            bad = pc.is_in(rows["image_id"], value_set=pa.array(list(errors), pa.string()))
            for image, error in errors.items():
                broken = rows.filter(pc.equal(rows["image_id"], image))
                outcome.append(_given_up(stage, broken, "failed", error.reason, error.detail))
            rows = rows.filter(pc.invert(bad))
        self._set_up(stage)
        with self.clock.time(stage.name):
            if rows.num_rows:
                outcome.append(
                    self.worker.bars.screen(stage.writes.name, self._attempt(stage, rows, pictures))
                )
        return ordered(stage, missing, _with_inputs(stage, missing, pa.concat_tables(outcome)))

    def _attempt(self, stage: Stage, rows: pa.Table, pictures: Mapping[str, Picture]) -> pa.Table:
        column = unit_column(stage)
        try:
            written = stage.run(rows, pictures, self.services)
            schema = stage.writes.arrow
            schema = schema.remove(schema.get_field_index("inputs"))
            written = written.select(schema.names).cast(schema)
            units, wrote = set(rows[column].to_pylist()), set(written[column].to_pylist())
            if units != wrote:
                raise RuntimeError(
                    f"the backend left {len(units - wrote)} units without a row and wrote "
                    f"{len(wrote - units)} unasked ones"
                )
            return written
        except Exception as error:  # noqa: BLE001 - whatever a backend raises costs the rows at fault and no others
            units_there = rows[column].unique().to_pylist()
            if len(units_there) == 1:
                return _given_up(
                    stage, rows, "failed", "error", f"{type(error).__name__}: {error}"[:_DETAIL]
                )
            single = [
                self._attempt(stage, rows.filter(pc.equal(rows[column], unit)), pictures)
                for unit in units_there
            ]
            return pa.concat_tables(single)

    def _pictures(
        self, images: Sequence[str]
    ) -> tuple[dict[str, Picture], dict[str, PictureError]]:
        table = self.tables["images"]
        hashes = dict(zip(table["image_id"].to_pylist(), table["sha256"].to_pylist(), strict=True))
        with self.clock.time("read"):
            self.originals.load(
                [image for image in images if image not in self.originals.decoded], hashes
            )
        pictures, errors = {}, {}
        with self.clock.time("decode"):
            for image in images:
                found = self.originals.picture(image)
                if isinstance(found, PictureError):
                    errors[image] = found
                else:
                    pictures[image] = found
        return pictures, errors

    def _part_path(self, stage: Stage, missing: Wanted) -> str:
        hasher = hashlib.blake2b(self.task.token.encode(), digest_size=8)
        for unit, inputs in zip(missing.units, missing.inputs, strict=True):
            hasher.update(unit.encode() + inputs)
        chunk = "all" if self.task.chunk == WHOLE else f"{self.task.chunk:05d}"
        return part_path(
            stage.writes.name,
            self.worker.versions[stage.name],
            self.task.bucket,
            f"{chunk}-{self.task.number:05d}",
            hasher.hexdigest(),
        )

    def _write(
        self, stage: Stage, missing: Wanted, rows: pa.Table, seconds: float
    ) -> tuple[Part, pa.Table]:
        path = self._part_path(stage, missing)
        with self.clock.time("write"):
            # Not waiting for the disk: a part lost to a power cut is computed again.
            self.worker.store.put(path, encode(stage.writes, rows), durable=False)
        return self._part(stage, path, rows, seconds, adopted=False), rows

    def _part(self, stage: Stage, path: str, rows: pa.Table, seconds: float, adopted: bool) -> Part:
        outcomes: dict[str, int] = {}
        for status, reason in zip(
            rows["status"].to_pylist(), rows["reason"].to_pylist(), strict=True
        ):
            name = status if reason is None else f"{status}:{reason}"
            outcomes[name] = outcomes.get(name, 0) + 1
        units = len(rows[unit_column(stage)].unique())
        return Part(
            stage.name, stage.writes.name, path, rows.num_rows, units, seconds, adopted, outcomes
        )


def _concat(wanted: Sequence[Wanted]) -> Wanted:
    rows = pa.concat_tables([want.rows for want in wanted])
    return Wanted(
        rows,
        [unit for want in wanted for unit in want.units],
        [inputs for want in wanted for inputs in want.inputs],
    )


def _given_up(
    stage: Stage, rows: pa.Table, status: str, reason: str, detail: str | None
) -> pa.Table:
    """Rows that say why there is nothing: one for each unit (for each row of the person where a
    unit is a person).
    """
    columns = [name for name in ("identity_id", "image_id", "face_id") if name in rows.column_names]
    records = rows.select(columns).to_pylist()
    if stage.writes.key == "identity_id":
        records = list({record["identity_id"]: record for record in records}.values())
    built = []
    for record in records:
        if stage.writes.key == "face_id" and "face_id" not in record:
            record["face_id"] = no_face_id(record["image_id"])
        record |= {"status": status, "reason": reason, "detail": detail}
        record |= {
            column.name: column.default
            for column in stage.writes.columns
            if column.default is not None
        }
        built.append({name: value for name, value in record.items() if name in stage.writes.names})
    return stage.build(built)


def _with_inputs(stage: Stage, missing: Wanted, rows: pa.Table) -> pa.Table:
    inputs = missing.inputs_of()
    column = pa.array([inputs[unit] for unit in rows[unit_column(stage)].to_pylist()], pa.binary(8))
    return rows.append_column("inputs", column).select(stage.writes.names).cast(stage.writes.arrow)
