"""Memory of a whole run over large photographs: the proportional set size (PSS) of all its
processes, over time.

PSS counts shared pages once, so the sum over driver, Ray and workers is what the machine has to
have. The ratio is against the bytes of the decoded photographs that are in memory at once if each
worker holds one.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from pipeline.execution.operators import available_cores
from stages.pictures import decode
from tests.bench.material import REPOSITORY, dag_file, photographs

COUNT, FULL_COUNT = 300, 5000
WIDTH, HEIGHT = 4000, 3000


def main() -> None:
    count = FULL_COUNT if "--full" in sys.argv else COUNT
    with tempfile.TemporaryDirectory(prefix="idcluster-bench-") as place:
        people = large_photographs(Path(place), count)
        dag, models, backends = dag_file()
        command = [
            sys.executable,
            "-m",
            "pipeline.cli",
            "run",
            str(dag),
            "--set",
            f"source.path={people}",
            "--set",
            f"root={place}/root",
        ]
        command += ["--only", "crawl,detect,embed", *(["--models", models] if models else [])]
        started = time.monotonic()
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        samples: list[tuple[float, float]] = []
        while process.poll() is None:
            samples.append((time.monotonic() - started, tree_pss(process.pid)))
            time.sleep(0.5)
        if process.returncode:
            raise SystemExit(f"the run ended with {process.returncode}")
    held = available_cores() * WIDTH * HEIGHT * 3 / 2**30
    peak = max(pss for _, pss in samples)
    title = (
        f"{count} photographs of {WIDTH * HEIGHT / 1e6:.0f} megapixels, {backends}, "
        f"{available_cores()} workers"
    )
    table = Table(title=title, title_justify="left", box=None)
    for column in ("what", "GiB", "ratio"):
        table.add_column(column, justify="left" if column == "what" else "right")
    table.add_row("one decoded photograph a worker", f"{held:.2f}", "1.0")
    table.add_row("peak PSS of all processes", f"{peak:.2f}", f"{peak / held:.1f}")
    third = len(samples) // 3
    for name, part in (
        ("first", samples[:third]),
        ("second", samples[third : 2 * third]),
        ("last", samples[2 * third :]),
    ):
        median = statistics.median(pss for _, pss in part)
        table.add_row(f"median of the {name} third", f"{median:.2f}", f"{median / held:.1f}")
    Console(width=100).print(table)
    print(f"{samples[-1][0]:.0f} s, {len(samples)} samples")


def large_photographs(folder: Path, count: int) -> Path:
    """`count` files, a dozen of them different, each an enlarged photograph as a JPEG of a few
    megabytes.
    """
    small, _ = photographs(folder / "small", 12)
    originals = []
    for number, file in enumerate(sorted(small.glob("*/*"))):
        large = cv2.resize(
            decode(file.read_bytes()), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC
        )
        grain = np.random.default_rng(number).integers(0, 12, large.shape, dtype=np.int16)
        target = folder / f"{number}.jpg"
        cv2.imwrite(
            str(target),
            np.clip(large + grain, 0, 255).astype(np.uint8),
            [cv2.IMWRITE_JPEG_QUALITY, 90],
        )
        originals.append(target)
    people = folder / "people"
    for number in range(count):
        target = people / f"person {number // 50:04d}" / f"{number:05d}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(originals[number % len(originals)], target)
    return people


def tree_pss(pid: int) -> float:
    """GiB of a process and everything below it."""
    total = 0
    try:
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    for process in processes:
        try:
            total += process.memory_full_info().pss
        except psutil.Error:
            continue
    return total / 2**30
