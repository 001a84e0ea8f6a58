"""What a user sees while a run works: plain lines in a log, a table on a terminal, and which
activity holds everything up.
"""

import io
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from rich.console import Console

from pipeline.execution.tasks import Part, TaskResult
from pipeline.progress import (
    FetchProgress,
    Progress,
    ShardProgress,
    StageProgress,
    Working,
    summarise,
)
from pipeline.telling import WARNING, Teller, detail


def part(
    stage: str,
    rows: int,
    seconds: float = 1.0,
    adopted: bool = False,
    units: int | None = None,
    **outcomes: int,
) -> Part:
    said = {name.replace("__", ":"): count for name, count in outcomes.items()} or {"ok": rows}
    return Part(
        stage,
        f"{stage}s",
        f"parts/{stage}",
        rows,
        rows if units is None else units,
        seconds,
        adopted,
        said,
    )


def receipt(
    *parts: Part,
    members: int = 8,
    skipped: bool = False,
    deaths: int = 0,
    began: float | None = None,
    **seconds: Any,
) -> TaskResult:
    return TaskResult(
        "task",
        0,
        0,
        0,
        members,
        list(parts),
        seconds,
        time.time() if began is None else began,
        skipped,
        deaths,
    )


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Time that passes only when told to."""
    now = [1000.0]

    def advance(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr("pipeline.progress.time.monotonic", lambda: now[0])
    return advance


def console(terminal: bool) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(
        file=file,
        force_terminal=terminal,
        width=120,
        highlight=False,
        color_system=None,
        force_interactive=terminal,
    ), file


def test_plain_lines(clock: Callable[[float], None]) -> None:
    log, file = console(terminal=False)
    with Progress(log, ["detect", "embed"], tasks=4, members=32, unit="image") as progress:
        clock(4.0)
        progress.add(receipt(part("detect", 9), part("embed", 9), embed=3.0, detect=1.0))
        assert file.getvalue().splitlines() == ["detect + embed: 32 images in 4 tasks"], (
            "not a line a task"
        )
        clock(12.0)
        failed = part("detect", 8, ok=6, failed__decode_error=2)
        progress.add(receipt(failed, part("embed", 6), embed=3.0, detect=1.0, decode=0.5))
        assert file.getvalue().splitlines()[1:] == [
            "  16 of 32 images, 1.0/s, 16 s, 16 s left, slowest: embed"
        ]
        progress.add(receipt(part("detect", 8, filtered__no_face=3, ok=5), embed=1.0))
        clock(4.0)
        progress.add(receipt(part("detect", 8)))
    assert file.getvalue().splitlines()[2:] == [
        "  detect: 33 rows, 1.6 rows/s; 3 no_face, 2 decode_error",
        "  embed: 15 rows, 0.8 rows/s",
    ]
    assert "\x1b" not in file.getvalue()


def test_no_line_of_progress_after_the_last_task(clock: Callable[[float], None]) -> None:
    log, file = console(terminal=False)
    with Progress(log, ["detect"], tasks=1, members=8, unit="image") as progress:
        clock(60.0)
        progress.add(receipt(part("detect", 8)))
    assert [line for line in file.getvalue().splitlines() if "left" in line] == []


def test_rows_of_an_interrupted_run_are_told(clock: Callable[[float], None]) -> None:
    log, file = console(terminal=False)
    with Progress(log, ["detect", "embed"], tasks=2, members=16, unit="image") as progress:
        clock(2.0)
        progress.add(receipt(part("detect", 8, adopted=True)))
        progress.add(receipt(part("detect", 8)))
    assert file.getvalue().splitlines()[1:] == [
        "  detect: 16 rows, 8.0 rows/s, 8 of them taken over from an interrupted run",
        "  embed: 0 rows, nothing to do",
    ]


def test_poisoned_rows_and_deaths_are_counted() -> None:
    log, file = console(terminal=False)
    with Progress(log, ["detect"], tasks=2, members=16, unit="image") as progress:
        progress.add(receipt(part("detect", 8, ok=7, poisoned__worker_died=1), deaths=2))
        progress.add(receipt(part("detect", 8), deaths=1))
    assert progress.deaths == 3
    assert file.getvalue().splitlines()[-1].endswith("; 1 worker_died")


def test_skipped_tasks_do_not_count_as_seen() -> None:
    log, _ = console(terminal=False)
    with Progress(log, ["detect"], tasks=2, members=16, unit="image") as progress:
        progress.add(receipt(part("detect", 8)))
        progress.add(receipt(skipped=True))
    assert (progress.seen, progress.tasks) == (8, 2)


def test_bottleneck_is_where_most_time_goes() -> None:
    log, _ = console(terminal=False)
    progress = Progress(log, ["detect", "embed"], tasks=3, members=24, unit="image")
    told = [progress.bottleneck]
    measured: list[dict[str, Any]] = [
        {"detect": 0.0},
        {"detect": 2.0, "embed": 1.0, "read": 0.1},
        {"embed": 1.5, "decode": 2.0},
    ]
    for seconds in measured:
        progress.add(receipt(part("detect", 8), **seconds))
        told.append(progress.bottleneck)
    assert told == [None, None, "detect", "embed"], "None while nothing was measured"
    assert progress.seconds == {"detect": 2.0, "embed": 2.5, "decode": 2.0, "read": 0.1}


def test_bottleneck_is_where_the_busiest_workers_spend_their_time() -> None:
    """Ten workers that took more time than one would be called the bottleneck, while they wait for
    that one.
    """
    log, _ = console(terminal=False)
    progress = Progress(log, ["detect", "embed"], tasks=3, members=24, unit="image")
    progress.pools = [(("detect",), 10), (("embed",), 1)]
    told = []
    measured: list[dict[str, Any]] = [
        {"detect": 20.0, "read for detect": 21.0, "embed": 5.0},
        {"read for embed": 6.0},
        {"read for detect": 100.0},
    ]
    for seconds in measured:
        progress.add(receipt(part("detect", 8), **seconds))
        told.append(progress.bottleneck)
    assert told == ["embed", "read for embed", "read for detect"]


def phase(
    wall: float, bottleneck: str | None, busy: float = 10.0, startup: float = 1.0
) -> dict[str, Any]:
    about = {
        "stages": ["x"],
        "members": 9,
        "workers": 2,
        "wall_seconds": wall,
        "startup_seconds": startup,
    }
    return {**about, "worker_seconds": {"x": busy}, "bottleneck": bottleneck}


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"phases": [phase(5.0, "detect"), phase(9.0, "segment")]}, "segment"),
        ({"phases": [phase(9.0, "segment")], "fetching": {"seconds": 60.0}}, "fetch"),
        ({"phases": [phase(9.0, "segment")], "shards": {"seconds": 12.0}}, "shard"),
        ({"phases": [], "shards": {"seconds": 12.0}}, "shard"),
        (
            {
                "phases": [phase(9.0, "segment")],
                "stages": {"x": {"seconds": 70.0}, "match": {"seconds": 60.0}},
            },
            "match",
        ),
        (
            {"phases": [phase(11.0, "read", busy=2.0)]},
            "read (workers had nothing to do for 90% of the time after start-up)",
        ),
        ({"phases": [phase(0.0, None)]}, None),
    ],
)
def test_the_summary_names_what_took_longest(parts: dict[str, Any], said: str | None) -> None:
    """Hours of fetching would end with the advice to look at a detector that took minutes."""
    log, file = console(terminal=False)
    common = {"stages": {"x": {"seconds": 1.0}}, "shards": {}, "snapshot": 2, "snapshot_before": 1}
    summarise(log, {**common, "status": "done", "seconds": 1.0, "run_id": "r", **parts})
    told = [
        line.removeprefix("bottleneck: ")
        for line in file.getvalue().splitlines()
        if line.startswith("bottleneck: ")
    ]
    assert told == ([] if said is None else [said])


def test_parts_of_other_stages_do_not_count() -> None:
    stage = StageProgress("detect")
    stage.add(receipt(part("embed", 5), part("detect", 7, units=3, ok=5, failed__error=2)))
    assert (stage.rows, stage.units, stage.seconds) == (7, 3, 1.0)
    assert stage.not_ok == "2 error"


def test_startup_is_the_time_until_the_first_worker_began() -> None:
    log, _ = console(terminal=False)
    progress = Progress(log, ["detect"], tasks=2, members=16, unit="image")
    told, now = [progress.startup], time.time()
    for began in (7, 5, 6, -60):
        progress.add(receipt(part("detect", 8), began=now + began))
        told.append(progress.startup)
    assert told == [
        None,
        pytest.approx(7, abs=0.5),
        pytest.approx(5, abs=0.5),
        pytest.approx(5, abs=0.5),
        0.0,
    ], "clocks of machines differ"


def test_terminal_shows_a_table_and_leaves_the_summary() -> None:
    screen, file = console(terminal=True)
    with Progress(screen, ["detect", "embed"], tasks=3, members=24, unit="image") as progress:
        progress.add(
            receipt(
                part("detect", 9, ok=7, failed__decode_error=2),
                part("embed", 7),
                embed=3.0,
                detect=1.0,
            )
        )
        screen.print("a line meanwhile")  # makes the table be drawn again below it
    drawn = file.getvalue()
    for word in ("stage", "rows", "rows/s", " left", "not ok", "8 of 24 images"):
        assert word in drawn
    lines = [line.strip() for line in drawn.splitlines()]
    assert any(line.startswith("detect") and line.endswith("2 decode_error") for line in lines)
    assert any("embed" in line and line.endswith("<- slowest") for line in lines)
    assert "a line meanwhile" in drawn
    assert "\x1b[" in drawn, "the table is drawn over"
    assert "  detect: 9 rows, " in drawn.splitlines()[-2]
    assert "  embed: 7 rows, " in drawn.splitlines()[-1]
    assert drawn.startswith("detect + embed: 24 images in 3 tasks"), "not less than in a file"


def test_a_terminal_shows_from_the_start_what_holds_up_the_first_results(
    clock: Callable[[float], None],
) -> None:
    """Ray takes its time to start, and an empty screen looks like a program that hangs."""
    screen, file = console(terminal=True)
    doing = ["starting Ray"]
    with Progress(screen, ["detect"], 1, 8, "image", "phase 2 of 5", lambda: doing[0]) as progress:
        assert "phase 2 of 5: starting Ray, 0 s" in file.getvalue(), "before anything is waited for"
        clock(12.0)
        assert str(progress.drawn()) == "  phase 2 of 5: starting Ray, 12 s"
        doing[0] = "starting workers"
        assert str(progress.drawn()) == "  phase 2 of 5: starting workers, 12 s"


def test_elsewhere_a_line_comes_though_nothing_else_does(clock: Callable[[float], None]) -> None:
    """Nobody who reads a log could tell a slow start from one that hangs."""
    log, file = console(terminal=False)
    with Progress(
        log, ["detect"], 1, 8, "image", "phase 1 of 1", lambda: "starting Ray"
    ) as progress:
        clock(12.0)
        progress.say_now_and_then()
        progress.say_now_and_then()
    assert file.getvalue().splitlines()[:2] == [
        "detect: 8 images in 1 task",
        "  phase 1 of 1: starting Ray, 12 s",
    ]


def test_a_terminal_that_cannot_move_its_cursor_gets_plain_lines(
    clock: Callable[[float], None],
) -> None:
    file = io.StringIO()
    screen = Console(
        file=file, force_terminal=True, width=120, color_system=None, _environ={"TERM": "dumb"}
    )
    with Working(screen, "reading the source") as working:
        clock(11.0)
        working.say_now_and_then()
    assert file.getvalue() == "  reading the source, 11 s\n"


def test_time_left_does_not_count_the_start(clock: Callable[[float], None]) -> None:
    """Of a run that took a minute to start and does an image a second, the rest would be told too
    long by far.
    """
    log, file = console(terminal=False)
    with Progress(log, ["detect"], 4, 32, "image") as progress:
        clock(68.0)
        progress.add(receipt(part("detect", 8), began=time.time() + 60.0))
    assert file.getvalue().splitlines()[1] == "  8 of 32 images, 1.0/s, 1 min 08 s, 24 s left"


def test_writing_shards_tells_how_many_are_left(clock: Callable[[float], None]) -> None:
    log, file = console(terminal=False)
    with ShardProgress(log, 4, "phase 5 of 5", lambda: "") as progress:
        clock(30.0)
        progress.add()
    assert file.getvalue() == "  phase 5 of 5: 1 of 4 shards, 30 s, 1 min 30 s left\n"


def test_fetching_tells_how_many_are_left(clock: Callable[[float], None]) -> None:
    log, file = console(terminal=False)
    with FetchProgress(log, 1, lambda: "starting Ray") as progress:
        clock(12.0)
        progress.say_now_and_then()
    assert file.getvalue().splitlines() == [
        "fetch: 1 address",
        "  fetch: starting Ray, 12 s",
        "  fetch: 0 answers, 0.0/s, 0.0 MB",
    ]


# How much is said


def teller(level: int, terminal: bool = False) -> tuple[Teller, io.StringIO, io.StringIO]:
    file, kept = io.StringIO(), io.StringIO()
    return (
        Teller(
            level,
            kept,
            file=file,
            force_terminal=terminal,
            width=120,
            highlight=False,
            color_system=None,
        ),
        file,
        kept,
    )


@pytest.mark.parametrize(
    ("level", "said"),
    [(-1, ["careful"]), (0, ["working", "careful"]), (1, ["working", "careful", "why"])],
    ids=["-q", "as usual", "-v"],
)
def test_more_or_less_is_said_and_the_log_file_has_all_of_it(level: int, said: list[str]) -> None:
    told, file, kept = teller(level)
    told.print("working")
    told.print("careful", style=WARNING)
    detail(told, "why")
    assert file.getvalue().splitlines() == said
    lines = [line.split(" ", 1) for line in kept.getvalue().splitlines()]
    assert [line for _, line in lines] == ["working", "careful", "why"]
    assert all(datetime.fromisoformat(when).tzinfo is not None for when, _ in lines)


def test_the_log_file_has_plain_lines_of_progress_beside_a_terminal(
    clock: Callable[[float], None],
) -> None:
    told, _, kept = teller(0, terminal=True)
    with Working(told, "reading the source") as working:
        clock(11.0)
        working.say_now_and_then()
    assert [line.split(" ", 1)[1] for line in kept.getvalue().splitlines()] == [
        "  reading the source, 11 s"
    ]
    assert "\x1b" not in kept.getvalue()


def test_a_log_file_on_a_full_disk_ends_no_run() -> None:
    told, file, _ = teller(0)
    told.log_file = open("/dev/full", "w", encoding="utf-8")  # noqa: SIM115 - closed by whom it is given to
    told.print("one")
    told.print("two")
    assert file.getvalue().splitlines() == [
        "note: the log file cannot be written any more: No space left on device",
        "one",
        "two",
    ]


def test_quietly_a_terminal_stays_empty() -> None:
    told, file, _ = teller(-1, terminal=True)
    with Working(told, "reading the source"):
        pass
    assert file.getvalue() == ""


@pytest.mark.parametrize("terminal", [True, False])
def test_an_error_before_any_receipt_leaves_no_summary(terminal: bool) -> None:
    log, file = console(terminal)

    def fail() -> None:
        with Progress(log, ["detect"], tasks=1, members=8, unit="image"):
            raise RuntimeError("no worker could be started")

    with pytest.raises(RuntimeError, match="no worker"):
        fail()
    assert "0 rows" not in file.getvalue()


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.2, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (125, "2 min 05 s"),
        (3600, "1 h 00 min"),
        (100_000, "27 h 46 min"),
    ],
)
def test_time_left_is_readable(clock: Callable[[float], None], seconds: float, said: str) -> None:
    log, file = console(terminal=False)
    progress = Progress(log, ["detect"], tasks=9, members=24, unit="image")
    with progress:
        clock(max(seconds, 11) if seconds > 11 else 11)
        members = 12 if seconds > 11 else 24
        progress.add(receipt(part("detect", 8), members=members))
    expected = said if seconds > 11 else "0 s"
    assert f", {expected} left" in file.getvalue()
