"""What a user sees while a run works: on a terminal what is at work, redrawn four times a second,
elsewhere plain lines.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline.execution.fetching import Haul
from pipeline.execution.tasks import TaskResult
from pipeline.telling import Teller
from schemas.wording import counted

PLAIN_SECONDS = 10.0
"""Between two lines where there is no terminal, and in a log file."""


class Working:
    """Something at work. Use as a context: from the first second a terminal shows what it is and
    how long it takes; elsewhere and in the log file stands a line every ten seconds, whether or not
    anything comes back meanwhile.
    """

    def __init__(self, console: Console, what: str = "") -> None:
        self.console, self.what = console, what
        self.started = self._spoken = time.monotonic()
        self._live: Live | None = None
        self._ended, self._one = threading.Event(), threading.Lock()
        self._ticker: threading.Thread | None = None

    def __enter__(self) -> Self:
        quiet = isinstance(self.console, Teller) and self.console.level < 0
        if self.console.is_terminal and not self.console.is_dumb_terminal and not quiet:
            self._live = Live(
                console=self.console,
                get_renderable=self.drawn,
                refresh_per_second=4,
                transient=True,
            )
            self._live.start(refresh=True)
        self._ticker = threading.Thread(target=self._tick, daemon=True)
        self._ticker.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        if self._ticker is not None:
            self._ticker.join()
        if self._live is not None:
            self._live.stop()

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.started

    def line(self) -> str:
        """What is at work and how far, in one line."""
        return f"{self.what}, {_duration(self.elapsed)}"

    def drawn(self) -> RenderableType:
        """The same for a terminal."""
        return Text(f"  {self.line()}")

    def _tick(self) -> None:
        while not self._ended.wait(1.0):
            self.say_now_and_then()

    def say_now_and_then(self) -> None:
        """A plain line, if the last one is ten seconds old."""
        now = time.monotonic()
        with self._one:
            if now - self._spoken < PLAIN_SECONDS:
                return
            self._spoken = now
        if self._live is None:
            self.console.print(f"  {self.line()}", highlight=False)
        elif isinstance(self.console, Teller):
            self.console.note(f"  {self.line()}")


@dataclass
class StageProgress:
    """Counts of one stage in the phase at hand."""

    name: str
    units: int = 0
    rows: int = 0
    adopted: int = 0
    seconds: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)

    def add(self, receipt: TaskResult) -> None:
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
        return ", ".join(
            f"{count} {name.split(':', 1)[-1]}"
            for name, count in self.outcomes.most_common()
            if name != "ok"
        )


class Progress(Working):
    """Progress of one phase; `add` takes a receipt."""

    def __init__(
        self,
        console: Console,
        stages: Sequence[str],
        tasks: int,
        members: int,
        unit: str,
        place: str = "",
        activity: Callable[[], str] = lambda: "",
    ) -> None:
        """`members`: how many of `unit` (image, person) there are. `place`: which phase of how
        many. `activity`: what holds up the first receipt.
        """
        super().__init__(console)
        self.total, self.members, self.unit, self.place, self.activity = (
            tasks,
            members,
            unit,
            place,
            activity,
        )
        self.stages = [StageProgress(name) for name in stages]
        self.pools: Sequence[tuple[Sequence[str], int]] = ()
        """Which stages share workers, and how many these are."""
        self.seconds: Counter[str] = Counter()
        self.tasks = self.seen = self.deaths = 0
        self.startup: float | None = None
        """Seconds until the first worker began, by the wall clock; None while none has."""
        self._wall = time.time()

    def __enter__(self) -> Self:
        names = " + ".join(stage.name for stage in self.stages)
        self.console.print(
            f"{names}: {counted(self.members, self.unit)} in {counted(self.total, 'task')}",
            highlight=False,
        )
        return super().__enter__()

    def add(self, receipt: TaskResult) -> None:
        startup = max(0.0, receipt.began - self._wall)
        self.startup = startup if self.startup is None else min(self.startup, startup)
        self.tasks += 1
        self.seen += 0 if receipt.skipped else receipt.members
        self.deaths += receipt.deaths
        self.seconds.update(receipt.seconds)
        for stage in self.stages:
            stage.add(receipt)
        if self.tasks < self.total:
            self.say_now_and_then()

    @property
    def bottleneck(self) -> str | None:
        """The activity that took most of the time of its workers: of those that were the busiest,
        if there are several pools.
        """
        load: dict[int, float] = {}
        for what, seconds in list(self.seconds.items()):
            number = self._pool_of(what)
            load[number] = load.get(number, 0.0) + seconds / (
                self.pools[number][1] if self.pools else 1
            )
        if not load or max(load.values()) <= 0:
            return None
        busiest = max(load, key=lambda number: load[number])
        return next(
            what for what, _ in self.seconds.most_common() if self._pool_of(what) == busiest
        )

    def _pool_of(self, what: str) -> int:
        stage = what.rpartition(" for ")[
            2
        ]  # reading and the like is told for one stage of its pool
        return next((number for number, (stages, _) in enumerate(self.pools) if stage in stages), 0)

    def _rate(self) -> float:
        """Members a second since workers began."""
        working = self.elapsed - (self.startup or 0.0)
        return self.seen / working if working > 0 else 0.0

    def line(self) -> str:
        start = f"{self.place}: " if self.place else ""
        if not self.tasks:
            return (
                f"{start}{self.activity() or 'waiting for the first results'}, "
                f"{_duration(self.elapsed)}"
            )
        rate = self._rate()
        left = f"{_duration((self.members - self.seen) / rate)} left" if rate else "? left"
        bottleneck = f", slowest: {self.bottleneck}" if self.bottleneck else ""
        done = f"{self.seen} of {counted(self.members, self.unit)}"
        return f"{start}{done}, {rate:.1f}/s, {_duration(self.elapsed)}, {left}{bottleneck}"

    def drawn(self) -> RenderableType:
        if not self.tasks:
            return super().drawn()
        table = Table(box=None, pad_edge=False)
        for column in ("  stage", "rows", "rows/s", "not ok"):
            table.add_column(column, justify="left" if column in ("  stage", "not ok") else "right")
        working = max(self.elapsed - (self.startup or 0.0), 1e-9)
        bottleneck = self.bottleneck
        for stage in self.stages:
            mark = "  <- slowest" if stage.name == bottleneck else ""
            table.add_row(
                f"  {stage.name}",
                str(stage.rows),
                f"{stage.rows / working:.1f}",
                stage.not_ok + mark,
            )
        return Group(super().drawn(), table)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)
        if error is None or self.tasks:
            for stage in self.stages:
                adopted = (
                    f", {stage.adopted} of them taken over from an interrupted run"
                    if stage.adopted
                    else ""
                )
                wrong = f"; {stage.not_ok}" if stage.not_ok else ""
                rate = f"{stage.rows / self.elapsed:.1f} rows/s" if stage.rows else "nothing to do"
                self.console.print(
                    f"  {stage.name}: {counted(stage.rows, 'row')}, {rate}{adopted}{wrong}",
                    highlight=False,
                )


class FetchProgress(Working):
    """Progress of one round of fetching; `add` takes a haul."""

    def __init__(
        self, console: Console, addresses: int, activity: Callable[[], str] = lambda: ""
    ) -> None:
        super().__init__(console)
        self.total, self.activity = addresses, activity
        self.answers = self.put_off = self.bytes = 0
        self.outcomes: Counter[str] = Counter()

    def __enter__(self) -> Self:
        self.console.print(f"fetch: {counted(self.total, 'address', 'addresses')}", highlight=False)
        return super().__enter__()

    def add(self, haul: Haul) -> None:
        self.answers += haul.answers
        self.bytes += haul.bytes
        self.put_off += len(haul.deferred)
        self.outcomes.update(haul.outcomes)
        self.say_now_and_then()

    def line(self) -> str:
        elapsed = self.elapsed
        if not self.answers:
            return (
                f"fetch: {self.activity() or 'waiting for the first answers'}, {_duration(elapsed)}"
            )
        seconds = max(elapsed, 1e-9)
        rate = self.answers / seconds
        left = f"{_duration((self.total - self.answers) / rate)} left"
        wrong = ", ".join(
            f"{count} {name}" for name, count in self.outcomes.most_common(6) if name != "ok"
        )
        done = f"{self.answers} of {counted(self.total, 'address', 'addresses')}"
        said = (
            f"fetch: {done}, {rate:.1f}/s, {self.bytes / seconds / 1e6:.1f} MB/s, "
            f"{_duration(elapsed)}, {left}"
        )
        return said + (f"; {wrong}" if wrong else "")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)
        seconds = max(self.elapsed, 1e-9)
        wrong = "".join(
            f", {count} {name}" for name, count in self.outcomes.most_common() if name != "ok"
        )
        later = f"; {self.put_off} put off for slow hosts" if self.put_off else ""
        answers = counted(self.answers, "answer")
        self.console.print(
            f"  fetch: {answers}, {self.answers / seconds:.1f}/s, {self.bytes / 1e6:.1f} "
            f"MB{wrong}{later}",
            highlight=False,
        )


class ShardProgress(Working):
    """Progress of writing shards; `add` takes the shards that are written."""

    def __init__(
        self, console: Console, shards: int, place: str, activity: Callable[[], str]
    ) -> None:
        super().__init__(console)
        self.total, self.place, self.activity, self.written = shards, place, activity, 0

    def add(self, shards: int = 1) -> None:
        self.written += shards
        if self.written < self.total:
            self.say_now_and_then()

    def line(self) -> str:
        if not self.written:
            return f"{self.place}: {self.activity() or 'writing shards'}, {_duration(self.elapsed)}"
        left = _duration((self.total - self.written) * self.elapsed / self.written)
        return (
            f"{self.place}: {self.written} of {counted(self.total, 'shard')}, "
            f"{_duration(self.elapsed)}, {left} left"
        )


def summarise(console: Console, record: dict[str, Any]) -> None:
    """The end of a run in a few lines."""
    if (
        not record["stages"]
        and not record["shards"]
        and record["snapshot"] == record["snapshot_before"]
    ):
        console.print(
            f"nothing to do; snapshot {record['snapshot']} is up to date "
            f"({record['seconds']:.1f} s)"
        )
        return
    for phase in record["phases"]:
        busy = sum(phase["worker_seconds"].values())
        told = ", ".join(
            f"{name} {seconds:.1f} s" for name, seconds in list(phase["worker_seconds"].items())[:4]
        )
        rate = phase["members"] / phase["wall_seconds"] if phase["wall_seconds"] else 0.0
        console.print(
            f"{' + '.join(phase['stages'])}: {phase['members']} in {phase['wall_seconds']:.1f} s "
            f"({rate:.1f}/s, start-up "
            f"{phase['startup_seconds']:.1f} s), workers busy {busy:.1f} s: {told}"
        )
    bottleneck = _bottleneck(record)
    if bottleneck:
        console.print(f"bottleneck: {bottleneck}", highlight=False)
    word = {"done": "done", "drained": "stopped as asked", "failed": "failed"}[record["status"]]
    console.print(
        f"{word}: snapshot {record['snapshot']} in {record['seconds']:.1f} s; record "
        f"runs/{record['run_id']}.json"
    )


def _bottleneck(record: dict[str, Any]) -> str | None:
    """What took longest: of fetching, the phases, stages of the whole root and the shards; of a
    phase what its workers did most.
    """
    took = {
        name: record.get(part, {}).get("seconds", 0.0)
        for name, part in (("fetch", "fetching"), ("shard", "shards"))
    }
    inside = {name for phase in record["phases"] for name in phase["stages"]}
    took |= {
        name: about["seconds"] for name, about in record["stages"].items() if name not in inside
    }
    longest = max(took, key=lambda name: took[name])
    slowest = max(record["phases"], key=lambda phase: phase["wall_seconds"], default=None)
    if slowest is None or took[longest] > slowest["wall_seconds"]:
        return longest if took[longest] else None
    if not slowest["bottleneck"]:
        return None
    there = (slowest["wall_seconds"] - slowest["startup_seconds"]) * slowest["workers"]
    idle = 1 - sum(slowest["worker_seconds"].values()) / there if there > 0 else 0.0
    return str(slowest["bottleneck"]) + (
        f" (workers had nothing to do for {idle:.0%} of the time after start-up)"
        if idle > 0.5
        else ""
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes:02d} min"
        if hours
        else f"{minutes} min {rest:02d} s"
        if minutes
        else f"{rest} s"
    )
