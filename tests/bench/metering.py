"""What a program and everything that it starts costs: processor time and memory of all its
processes together.

Processor time holds on a machine that others use too, which seconds do not.
"""

import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    """Of one program: seconds, seconds on the processor, and the most memory at once (PSS,
    bytes).
    """

    seconds: float
    cpu: float
    memory: int


def measure(
    command: Sequence[str], environment: Mapping[str, str], folder: Path, every: float = 0.2
) -> Cost:
    """Run a program to its end. Raises SystemExit with the end of what it said where it fails.

    Processes are looked at `every` so many seconds, memory at every fifth look; what one does after
    the last look is missed.
    """
    output = folder / "output.txt"
    started = time.monotonic()
    with output.open("wb") as sink:
        process = subprocess.Popen(
            command, env=dict(environment), cwd=folder, stdout=sink, stderr=subprocess.STDOUT
        )
        spent: dict[tuple[int, str], float] = {}
        memory = looks = 0
        waiting = threading.Event()
        while process.poll() is None:
            tree = _tree(process.pid)
            spent.update(tree)
            if looks % 5 == 0:
                memory = max(memory, sum(_pss(pid) for pid, _ in tree))
            looks += 1
            waiting.wait(every)
    if process.returncode:
        raise SystemExit(
            f"{' '.join(command[:4])} ... ended with "
            f"{process.returncode}:\n{output.read_text(errors='replace')[-2000:]}"
        )
    return Cost(time.monotonic() - started, sum(spent.values()), memory)


def _tree(root: int) -> dict[tuple[int, str], float]:
    """Seconds on the processor of a process and everything below it, by process id and time of
    start.
    """
    found: dict[int, tuple[int, str, float]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                text = Path("/proc", entry, "stat").read_text()
            except OSError:
                continue
            fields = text[text.rindex(")") + 2 :].split()
            found[int(entry)] = (
                int(fields[1]),
                fields[19],
                (int(fields[11]) + int(fields[12])) / _TICK,
            )
    children: dict[int, list[int]] = {}
    for pid, (parent, _, _) in found.items():
        children.setdefault(parent, []).append(pid)
    below, todo = [], [root]
    while todo:
        pid = todo.pop()
        below.append(pid)
        todo += children.get(pid, [])
    return {(pid, found[pid][1]): found[pid][2] for pid in below if pid in found}


def _pss(pid: int) -> int:
    try:
        lines = Path("/proc", str(pid), "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
