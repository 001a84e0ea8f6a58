"""What a user sees while a run works: one live line a stage on a terminal, plain lines elsewhere."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from pipeline.execution.fetching import Haul
from pipeline.execution.tasks import Receipt

PLAIN_SECONDS = 10.0


@dataclass
class StageProgress:
    """Counts of one stage in the phase at hand."""

    name: str
    units: int = 0
    rows: int = 0
    adopted: int = 0
    seconds: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)

    def add(self, receipt: Receipt) -> None:
        for part in receipt.parts:
            if part.stage == self.name:
                self.units += part.units
                self.rows += part.rows
                self.adopted += part.rows if part.adopted else 0
                self.seconds += part.seconds
                self.outcomes.update(part.outcomes)

    @property
    def not_ok(self) -> str:
        """Outcomes that are not ok, the most frequent first."""
        return ", ".join(f"{count} {name.split(':', 1)[-1]}" for name, count in self.outcomes.most_common() if name != "ok")


class Progress:
    """Progress of one phase. Use as a context; `add` takes a receipt."""

    def __init__(self, console: Console, stages: Sequence[str], tasks: int, members: int, what: str) -> None:
        self.console, self.total, self.members, self.what = console, tasks, members, what
        self.stages = [StageProgress(name) for name in stages]
        self.pools: Sequence[tuple[Sequence[str], int]] = ()
        """Which stages share workers, and how many these are."""
        self.seconds: Counter[str] = Counter()
        self.tasks = self.seen = self.deaths = 0
        self.started = time.monotonic()
        self.startup: float | None = None
        """Seconds until the first worker began, by the wall clock; None while none has."""
        self._wall = time.time()
        self._spoken = self.started
        self._live: Live | None = None

    def __enter__(self) -> "Progress":
        if self.console.is_terminal:
            self._live = Live(console=self.console, get_renderable=self._table, refresh_per_second=4, transient=True)
            self._live.start()
        else:
            self.console.print(f"{' + '.join(stage.name for stage in self.stages)}: {self.members} {self.what} in {self.total} tasks")
        return self

    def add(self, receipt: Receipt) -> None:
        now = time.monotonic()
        startup = max(0.0, receipt.began - self._wall)
        self.startup = startup if self.startup is None else min(self.startup, startup)
        self.tasks += 1
        self.seen += 0 if receipt.skipped else receipt.members
        self.deaths += receipt.deaths
        self.seconds.update(receipt.seconds)
        for stage in self.stages:
            stage.add(receipt)
        if self._live is None and now - self._spoken > PLAIN_SECONDS and self.tasks < self.total:
            self._spoken = now
            self.console.print(f"  {self._line()}")

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.started

    @property
    def bottleneck(self) -> str | None:
        """The activity that took most of the time of its workers: of those that were the busiest, if there are several pools."""
        load: dict[int, float] = {}
        for what, seconds in self.seconds.items():
            number = self._pool_of(what)
            load[number] = load.get(number, 0.0) + seconds / (self.pools[number][1] if self.pools else 1)
        if not load or max(load.values()) <= 0:
            return None
        busiest = max(load, key=lambda number: load[number])
        return next(what for what, _ in self.seconds.most_common() if self._pool_of(what) == busiest)

    def _pool_of(self, what: str) -> int:
        stage = what.rpartition(" for ")[2]  # reading and the like is told for one stage of its pool
        return next((number for number, (stages, _) in enumerate(self.pools) if stage in stages), 0)

    def _rate(self) -> float:
        return self.seen / self.elapsed if self.elapsed > 0 else 0.0

    def _line(self) -> str:
        rate = self._rate()
        left = (self.members - self.seen) / rate if rate else 0.0
        said = f"{self.seen}/{self.members} {self.what}, {rate:.1f}/s, {_duration(left)} left"
        bottleneck = self.bottleneck
        return said + (f", most time in {bottleneck}" if bottleneck else "")

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False)
        for column in ("stage", "rows", "rows/s", "left", "not ok"):
            table.add_column(column, justify="left" if column in ("stage", "not ok") else "right")
        elapsed = max(self.elapsed, 1e-9)
        rate = self._rate()
        left = _duration((self.members - self.seen) / rate) if rate else "?"
        for stage in self.stages:
            mark = "  <- slowest" if stage.name == self.bottleneck else ""
            table.add_row(stage.name, str(stage.rows), f"{stage.rows / elapsed:.1f}", left, stage.not_ok + mark)
        return table

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()
        if error is None or self.tasks:
            for stage in self.stages:
                adopted = f", {stage.adopted} of them taken over from an interrupted run" if stage.adopted else ""
                wrong = f"; {stage.not_ok}" if stage.not_ok else ""
                rate = f"{stage.rows / self.elapsed:.1f} rows/s" if stage.rows else "nothing to do"
                self.console.print(f"  {stage.name}: {stage.rows} rows, {rate}{adopted}{wrong}", highlight=False)


class FetchProgress:
    """Progress of one round of fetching. Use as a context; `add` takes a haul."""

    def __init__(self, console: Console, addresses: int) -> None:
        self.console, self.total = console, addresses
        self.answers = self.put_off = self.bytes = 0
        self.outcomes: Counter[str] = Counter()
        self.started = self._spoken = time.monotonic()
        self._live: Live | None = None

    def __enter__(self) -> "FetchProgress":
        if self.console.is_terminal:
            self._live = Live(console=self.console, get_renderable=self._line, refresh_per_second=4, transient=True)
            self._live.start()
        else:
            self.console.print(f"fetch: {self.total} addresses", highlight=False)
        return self

    def add(self, haul: Haul) -> None:
        self.answers += haul.answers
        self.bytes += haul.bytes
        self.put_off += len(haul.deferred)
        self.outcomes.update(haul.outcomes)
        if self._live is None and time.monotonic() - self._spoken > PLAIN_SECONDS:
            self._spoken = time.monotonic()
            self.console.print(f"  {self._line()}", highlight=False)

    def _line(self) -> str:
        seconds = max(time.monotonic() - self.started, 1e-9)
        rate = self.answers / seconds
        left = _duration((self.total - self.answers) / rate) if rate else "?"
        wrong = ", ".join(f"{count} {name}" for name, count in self.outcomes.most_common(6) if name != "ok")
        said = f"fetch: {self.answers}/{self.total}, {rate:.1f}/s, {self.bytes / seconds / 1e6:.1f} MB/s, {left} left"
        return said + (f"; {wrong}" if wrong else "")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()
        seconds = max(time.monotonic() - self.started, 1e-9)
        wrong = "".join(f", {count} {name}" for name, count in self.outcomes.most_common() if name != "ok")
        later = f"; {self.put_off} put off for slow hosts" if self.put_off else ""
        said = f"  fetch: {self.answers} answers, {self.answers / seconds:.1f}/s, {self.bytes / 1e6:.1f} MB{wrong}{later}"
        self.console.print(said, highlight=False)


def summarise(console: Console, record: dict[str, Any]) -> None:
    """The end of a run in a few lines."""
    if not record["stages"] and not record["shards"] and record["snapshot"] == record["snapshot_before"]:
        console.print(f"nothing to do; snapshot {record['snapshot']} is up to date ({record['seconds']:.1f} s)")
        return
    for phase in record["phases"]:
        busy = sum(phase["worker_seconds"].values())
        told = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in list(phase["worker_seconds"].items())[:4])
        rate = phase["members"] / phase["wall_seconds"] if phase["wall_seconds"] else 0.0
        console.print(
            f"{' + '.join(phase['stages'])}: {phase['members']} in {phase['wall_seconds']:.1f} s ({rate:.1f}/s, start-up "
            f"{phase['startup_seconds']:.1f} s), workers busy {busy:.1f} s: {told}"
        )
    bottleneck = _bottleneck(record)
    if bottleneck:
        console.print(f"bottleneck: {bottleneck}", highlight=False)
    word = {"done": "done", "drained": "stopped as asked", "failed": "failed"}[record["status"]]
    console.print(f"{word}: snapshot {record['snapshot']} in {record['seconds']:.1f} s; record runs/{record['run_id']}.json")


def _bottleneck(record: dict[str, Any]) -> str | None:
    """What took longest: of fetching, the phases, stages of the whole root and the shards; of a phase what its workers did most."""
    took = {name: record.get(part, {}).get("seconds", 0.0) for name, part in (("fetch", "fetching"), ("shard", "shards"))}
    inside = {name for phase in record["phases"] for name in phase["stages"]}
    took |= {name: about["seconds"] for name, about in record["stages"].items() if name not in inside}
    longest = max(took, key=lambda name: took[name])
    slowest = max(record["phases"], key=lambda phase: phase["wall_seconds"], default=None)
    if slowest is None or took[longest] > slowest["wall_seconds"]:
        return longest if took[longest] else None
    if not slowest["bottleneck"]:
        return None
    there = (slowest["wall_seconds"] - slowest["startup_seconds"]) * slowest["workers"]
    idle = 1 - sum(slowest["worker_seconds"].values()) / there if there > 0 else 0.0
    return str(slowest["bottleneck"]) + (f" (workers had nothing to do for {idle:.0%} of the time after start-up)" if idle > 0.5 else "")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
