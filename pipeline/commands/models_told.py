"""What the commands `idcluster models ...` show: rows about weights, and progress of downloads."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from stages.weights import LocalRegistry


HASHED_AT_ONCE = 500_000_000
"""Bytes from which `list` goes by size alone; `verify` reads every file."""


def files_of(names: Sequence[str], local: "LocalRegistry") -> list[str]:
    """The files behind names of models."""
    from stages.weights import bundle

    return list(dict.fromkeys(part for name in names for part in bundle(name, local)))


def rows_of(
    models: str | None, names: Sequence[str], thorough: bool
) -> list[tuple[str, list[dict[str, Any]]]]:
    """What is known of each model: its name, and a dictionary for each of its files."""
    from stages.weights import WeightFiles, Weights, is_registered

    files = WeightFiles(models)

    def fits(weights: Weights, path: Path) -> bool:
        size = path.stat().st_size
        if not thorough and size > HASHED_AT_ONCE and weights.bytes is not None:
            return size == weights.bytes
        return is_registered(weights, path)

    found: dict[str, list[dict[str, Any]]] = {}
    for name in files_of(names, files.local):
        entry = files.entry(name)
        seen = files.look_at(entry, fits)
        state = (
            "here"
            if seen.path
            else "not pinned"
            if entry.sha256 is None
            else "damaged"
            if seen.wrong
            else "missing"
        )
        remark = (
            f"{'; '.join(seen.wrong)}: size or sha256 is not the registered one"
            if state == "damaged"
            else how(entry, seen.wrong)
        )
        found.setdefault(entry.bundle or entry.name, []).append(
            {
                "kind": entry.kind,
                "name": name,
                "state": state,
                "path": None if seen.path is None else str(seen.path),
                "by_size": seen.path is not None
                and not thorough
                and seen.path.stat().st_size > HASHED_AT_ONCE,
                "bytes": entry.bytes,
                "sha256": entry.sha256,
                "use": entry.use,
                "licence": entry.licence,
                "source": entry.source,
                "address": entry.address,
                "needed_by": list(entry.needed_by),
                "remark": remark,
            }
        )
    return list(found.items())


def how(entry: Any, wrong: Sequence[str]) -> str:
    name = entry.bundle or entry.name
    if entry.sha256 is None and wrong:
        return f"`models pin {name} {wrong[0]}`"
    if entry.package is not None:
        return f"pip install {entry.package}"
    if entry.address is not None:
        return f"`models fetch {name}`"
    return f"by hand; `models fetch {name}` says how"


def state(parts: Sequence[dict[str, Any]]) -> str:
    states = [part["state"] for part in parts]
    if len(set(states)) == 1:
        return str(states[0])
    here = states.count("here")
    worst = next(state for state in ("damaged", "missing", "not pinned") if state in states)
    return f"{worst} ({here} of {len(states)} here)"


def size(parts: Sequence[dict[str, Any]]) -> str:
    known = [part["bytes"] for part in parts if part["bytes"] is not None]
    if not known:
        return ""
    more = "+" if len(known) < len(parts) else ""
    total = sum(known)
    return f"{total / 1e6:,.1f} MB{more}" if total >= 1e5 else f"{total / 1e3:,.1f} kB{more}"


def remark(name: str, parts: Sequence[dict[str, Any]]) -> str:
    bad = next((part for part in parts if part["state"] != "here"), None)
    if bad is not None:
        return str(bad["remark"])
    path = str(parts[0]["path"])
    return path if len(parts) == 1 else path.removesuffix(parts[0]["name"].removeprefix(f"{name}/"))


@contextmanager
def bars(shown: Console) -> Iterator[Callable[[str], Callable[[int, int | None], None]]]:
    """A bar a file on a terminal, a line every tenth of a file otherwise."""
    if not shown.is_terminal:
        yield lambda name: _lines(shown, name)
        return
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=shown, transient=True) as progress:

        def bar(name: str) -> Callable[[int, int | None], None]:
            task = progress.add_task(name, total=None)

            def told(have: int, total: int | None) -> None:
                progress.update(task, completed=have, total=total)

            return told

        yield bar


def _lines(shown: Console, name: str) -> Callable[[int, int | None], None]:
    last = [0]

    def told(have: int, total: int | None) -> None:
        step = max(total // 10, 50_000_000) if total else 500_000_000
        if have - last[0] >= step:
            last[0] = have
            shown.print(
                f"  {name}: {have / 1e6:.0f} of {total / 1e6:.0f} MB"
                if total
                else f"  {name}: {have / 1e6:.0f} MB"
            )

    return told
