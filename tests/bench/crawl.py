"""Fetching images of about 100 kB from servers under 50 host names, beside img2dataset on the
same list and cores.

img2dataset has an environment of its own, made below the cache folder at the first run. It asks for
no robots.txt here, and is measured twice: as it works by itself without resizing, where it decodes
every image and encodes it anew, and told to leave the bytes as they came, where nothing is looked
at. Beside the first stands a whole crawl of ours: list, fetch, check, sha256, perceptual hash, rows
of `images`, sealed and published; beside the second its fetching half: rules of sites, limits,
sniffing, bytes put down.

Each program runs over a short and a four times longer list. Processor time by image is that of
the difference, so that starting up (Ray, imports) is no part of it; memory is flat if the longer
list takes no more.
"""

import csv
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from rich.console import Console
from rich.table import Table

from pipeline.execution.operators import available_cores
from tests.bench.material import REPOSITORY
from tests.bench.metering import Cost, measure

COUNT, FULL_COUNT = 8_000, 20_000
HOSTS = 50
LIMITED, RATE = 3_000, 4.0
"""Images and requests a second and host with limits."""
BYTES = 100_000
PINNED = "img2dataset==1.47.0"
THREADS = 32
"""Of img2dataset, by process; ours has as many requests at a time."""

_RESOLVING = """
import socket
_real = socket.getaddrinfo
def getaddrinfo(host, *rest, **more):
    return _real("127.0.0.1" if str(host).endswith(".test") else host, *rest, **more)
socket.getaddrinfo = getaddrinfo
"""
"""Names without DNS, as `resolve` gives them to ours: put before all else that img2dataset's
processes import.
"""

_DAG = """
name: bench
root: "{root}"
source: {{kind: urls, path: "{path}"}}
fetch:
  allow_hosts: ["*.test"]
  resolve: {{"*.test": 127.0.0.1}}
  connections: {connections}
  politeness: {{rate: {rate}, concurrency: {concurrency}}}
stages:
  crawl: {{}}
"""


_DECODED, _UNTOUCHED = "img2dataset, decodes and encodes", "img2dataset, bytes as they came"
_RUN, _FETCH = "idcluster, whole run", "idcluster, fetch alone"
_BESIDE = {_RUN: _DECODED, _FETCH: _UNTOUCHED}


def main() -> None:
    count = FULL_COUNT if "--full" in sys.argv else COUNT
    tool = img2dataset()
    with tempfile.TemporaryDirectory(prefix="idcluster-bench-") as place, serving() as port:
        bench = Bench(Path(place), port)
        programs: dict[str, Callable[[int], Cost]] = {}
        if tool is not None:
            programs[_DECODED] = lambda pictures: bench.theirs(tool, pictures, untouched=False)
            programs[_UNTOUCHED] = lambda pictures: bench.theirs(tool, pictures, untouched=True)
        programs |= {_RUN: bench.run, _FETCH: bench.fetch}
        found = {
            name: Pair(count, program(count // 4), program(count))
            for name, program in programs.items()
        }
        limited = bench.limits()
    _show(count, found)
    print(limited)


@dataclass(frozen=True)
class Pair:
    """One program over `count` images and over a quarter of them."""

    count: int
    short: Cost
    long: Cost

    @property
    def cpu(self) -> float:
        """Milliseconds on the processor by image, without the start."""
        return 1000 * (self.long.cpu - self.short.cpu) / (self.count - self.count // 4)

    @property
    def rate(self) -> float:
        """Images a second of the long list, the start included."""
        return self.count / self.long.seconds


def _show(count: int, found: dict[str, Pair]) -> None:
    title = (
        f"{count} images of {BYTES // 1000} kB, {HOSTS} hosts, no limits, {available_cores()} cores"
    )
    table = Table(title=title, title_justify="left", box=None)
    columns = (
        "what",
        "CPU ms an image",
        "ratio",
        "start, CPU s",
        "pictures/s",
        "MB/s",
        "peak MB",
        "to short",
    )
    for column in columns:
        table.add_column(column, justify="left" if column == "what" else "right")
    for name, pair in found.items():
        start = pair.short.cpu - pair.cpu * (count // 4) / 1000
        base = found.get(_BESIDE.get(name, name))
        ratio = f"{base.cpu / pair.cpu:.2f}" if base else ""
        memory = (f"{pair.long.memory / 1e6:.0f}", f"{pair.long.memory / pair.short.memory:.2f}")
        rates = (f"{pair.rate:.0f}", f"{pair.rate * BYTES / 1e6:.0f}")
        table.add_row(name, f"{pair.cpu:.2f}", ratio, f"{max(0.0, start):.1f}", *rates, *memory)
    Console(width=140).print(table)
    print(
        "CPU: of all processes of a program, not of the servers, by the difference of the long "
        "and the short list. Ratio: of"
        " img2dataset's to this, its first line beside the whole run, its second beside the "
        "fetching. Pictures/s have the start"
        " in them and share the cores with the servers and with whoever else is on the machine. "
        "Peak: PSS of all processes, and"
        " over that of the short list."
    )


class Bench:
    """The programs over lists of so many images, each into a folder of its own."""

    def __init__(self, place: Path, port: int) -> None:
        self.place, self.port = place, port
        self.made = 0

    def _folder(self, count: int) -> tuple[Path, Path]:
        """A new folder, and in it the list."""
        self.made += 1
        folder = self.place / f"{self.made}"
        folder.mkdir()
        listing = folder / "list.csv"
        with listing.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["name", "url"])
            for number in range(count):
                writer.writerow(
                    [
                        f"person {number % (count // 100):05d}",
                        f"http://h{number % HOSTS}.test:{self.port}/{number}.jpg",
                    ]
                )
        return folder, listing

    def _dag(self, count: int, rate: float | None = None) -> tuple[Path, Path]:
        folder, listing = self._folder(count)
        file = folder / "dag.yaml"
        # As many requests at a time as img2dataset has threads; a host takes its share of them.
        settings = {
            "connections": THREADS,
            "concurrency": 4,
            "rate": "null" if rate is None else rate,
        }
        file.write_text(_DAG.format(root=folder / "root", path=listing, **settings))
        return folder, file

    def run(self, count: int) -> Cost:
        folder, dag = self._dag(count)
        return measure(
            [sys.executable, "-m", "pipeline.cli", "run", str(dag)],
            self._environment(folder),
            folder,
        )

    def fetch(self, count: int) -> Cost:
        folder, dag = self._dag(count)
        return measure(
            [sys.executable, "-m", "tests.bench.crawl_fetch", str(dag)],
            self._environment(folder),
            folder,
        )

    def theirs(self, tool: Path, count: int, untouched: bool) -> Cost:
        """Into tars, without resizing; the headers that it can keep to are switched off."""
        folder, listing = self._folder(count)
        (folder / "names").mkdir()
        (folder / "names" / "sitecustomize.py").write_text(_RESOLVING)
        options = {
            "url_list": str(listing),
            "input_format": "csv",
            "url_col": "url",
            "save_additional_columns": '["name"]',
            "output_folder": str(folder / "out"),
            "output_format": "webdataset",
            "resize_mode": "no",
            "disable_all_reencoding": str(untouched),
            "processes_count": str(available_cores()),
            "thread_count": str(THREADS),
            "number_sample_per_shard": "500",
            "disallowed_header_directives": "[]",
            "enable_wandb": "False",
            "timeout": "60",
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        cost = measure(
            [str(tool), *words],
            {**os.environ, "PYTHONPATH": str(folder / "names"), "NO_ALBUMENTATIONS_UPDATE": "1"},
            folder,
        )
        done = sum(
            json.loads(path.read_text())["successes"]
            for path in (folder / "out").glob("*_stats.json")
        )
        if done != count:
            raise SystemExit(
                f"img2dataset brought {done} of {count} images; see {folder / 'output.txt'}"
            )
        return cost

    def limits(self) -> str:
        """A run with limits, judged by the servers' own log."""
        folder, dag = self._dag(LIMITED, RATE)
        self._log()
        cost = measure(
            [sys.executable, "-m", "pipeline.cli", "run", str(dag)],
            self._environment(folder),
            folder,
        )
        rates = [(len(times) - 1) / (max(times) - min(times)) for times in self._log().values()]
        return (
            f"with limits, {LIMITED} images: {RATE:g} requests a second and host allowed; "
            f"{mean(rates):.2f} on average,"
            f" {min(rates):.2f} to {max(rates):.2f} by the servers' log; "
            f"{1000 * cost.cpu / LIMITED:.2f} ms CPU an image with the start"
        )

    def _log(self) -> dict[str, list[float]]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/log") as answer:
            return dict(json.load(answer))

    def _environment(self, folder: Path) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(REPOSITORY), "XDG_CONFIG_HOME": str(folder)}


@contextmanager
def serving() -> Iterator[int]:
    """The servers; their port."""
    command = [sys.executable, "-m", "tests.bench.picture_server"]
    server = subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        yield int(server.stdout.readline())
    finally:
        server.terminate()
        server.wait()


def img2dataset() -> Path | None:
    """The program, installed into an environment of its own at the first run; None where it cannot
    be.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "idcluster" / "bench"
    folder = cache / PINNED.replace("==", "-")
    program = folder / "bin" / "img2dataset"
    if not (folder / "whole").exists():
        print(f"making an environment for {PINNED} in {folder}", flush=True)
        try:
            subprocess.run(
                [sys.executable, "-m", "venv", "--clear", str(folder)],
                check=True,
                capture_output=True,
            )
            subprocess.run(
                [str(folder / "bin" / "pip"), "install", "--quiet", PINNED],
                check=True,
                capture_output=True,
                text=True,
            )
            (folder / "whole").touch()
        except (subprocess.CalledProcessError, OSError) as error:
            said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
            print(f"img2dataset is left out, it cannot be installed: {said[-1] if said else error}")
            return None
    return program


if __name__ == "__main__":
    main()
