"""On a real local Ray: the same rows and shards as in one process, whoever is killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline.run import Selection
from tests.pipeline.rooms import run_toy, shown
from tests.pipeline.toy import KILLS, people, picture

pytestmark = pytest.mark.ray

REPOSITORY = Path(__file__).parents[2]
LIMIT = 150.0
"""Seconds after which a run is given up as hanging."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return people(tmp_path_factory.mktemp("source") / "people", count=6, pictures=20)


@pytest.fixture(scope="module")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the same DAG shows when it runs in one process without Ray."""
    folder = tmp_path_factory.mktemp("undisturbed")
    run_toy(folder, source, folder / "root")
    return shown(folder / "root")


class Driver:
    """A run in a process of its own."""

    def __init__(self, folder: Path, source: Path, root: Path, *sets: str, seconds: float = 0.0, **variables: str) -> None:
        self.root = root
        command = [sys.executable, "-m", "tests.pipeline.toy_run", str(folder), str(source), str(root), *sets]
        environment = {**os.environ, "TOY_SECONDS": str(seconds), "PYTHONPATH": str(REPOSITORY), **variables}
        self.process = subprocess.Popen(
            command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )

    def finish(self) -> tuple[int, str]:
        try:
            output, _ = self.process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            output, _ = self.process.communicate()
            pytest.fail(f"still running after {LIMIT} s:\n{output}")
        return self.process.returncode, output

    def when(self, happened: Callable[[], bool]) -> None:
        """Return as soon as something has happened; fail if the run ends before."""
        deadline = time.monotonic() + LIMIT
        while not happened():
            if self.process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"it never happened:\n{self.finish()[1]}")
            time.sleep(0.02)

    def parts(self) -> int:
        return len(list((self.root / "parts").rglob("*.parquet")))

    def workers(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter(["cmdline"]):
            if "MapWorker" in " ".join(process.info["cmdline"] or []) and self._is_ours(process):
                found.append(process)
        return found

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return self.process.pid in {parent.pid for parent in process.parents()}
        except psutil.Error:
            return False


@pytest.fixture
def drivers() -> Iterator[list[Driver]]:
    """Whatever a test starts is gone after it, with everything below it."""
    started: list[Driver] = []
    yield started
    for driver in started:
        if driver.process.poll() is None:
            for child in psutil.Process(driver.process.pid).children(recursive=True):
                child.kill()
            driver.process.kill()
            driver.process.communicate()


def test_same_as_in_one_process(undisturbed: dict[str, Any], source: Path, tmp_path: Path, drivers: list[Driver]) -> None:
    root = tmp_path / "root"
    drivers.append(Driver(tmp_path, source, root))
    code, output = drivers[-1].finish()
    assert code == 0, output
    assert shown(root) == undisturbed
    assert list((root / "parts").rglob("*.*")) == []


def test_stages_with_other_resources_run_in_actors_of_their_own(
    undisturbed: dict[str, Any], source: Path, tmp_path: Path, drivers: list[Driver]
) -> None:
    root = tmp_path / "root"
    sets = ("stages.detect.resources.cpus=0.5", "stages.embed.resources.workers=1", "stages.clean.resources.workers=1")
    drivers.append(Driver(tmp_path, source, root, *sets))
    code, output = drivers[-1].finish()
    assert code == 0, output
    assert shown(root) == undisturbed


def test_a_picture_that_kills_its_worker_is_poisoned_and_its_neighbours_are_kept(
    source: Path, tmp_path: Path, drivers: list[Driver]
) -> None:
    import shutil

    mine = tmp_path / "people"
    shutil.copytree(source, mine)
    bad = mine / "person 01" / "killer.png"
    bad.write_bytes(picture(11, noise=5, trouble=KILLS))
    root = tmp_path / "root"
    drivers.append(Driver(tmp_path, mine, root))
    code, output = drivers[-1].finish()
    assert code == 0, output
    view = shown(root)
    poisoned = [row for row in view["faces"] if "poisoned" in row]
    assert len(poisoned) == 1
    assert "worker_died" in poisoned[0]
    # Everything else is as if the picture had never been there (tested by taking it away).
    bad.unlink()
    run_toy(tmp_path, mine, root)
    run_toy(tmp_path, mine, tmp_path / "other")
    for table in ("images", "faces", "embeddings", "clusters", "people", "captions", "shards"):
        assert shown(root)[table] == shown(tmp_path / "other")[table], table


def test_killed_driver_is_resumed(undisturbed: dict[str, Any], source: Path, tmp_path: Path, drivers: list[Driver]) -> None:
    root = tmp_path / "root"
    drivers.append(Driver(tmp_path, source, root, seconds=0.02))
    drivers[-1].when(lambda: drivers[-1].parts() >= 5)
    os.kill(drivers[-1].process.pid, signal.SIGKILL)
    drivers[-1].process.wait()
    drivers.append(Driver(tmp_path, source, root))
    code, output = drivers[-1].finish()
    assert code == 0, output
    assert "taken over from an interrupted run" in output, "what was finished is not done again"
    assert shown(root) == undisturbed


def test_killed_worker_costs_nothing(undisturbed: dict[str, Any], source: Path, tmp_path: Path, drivers: list[Driver]) -> None:
    root = tmp_path / "root"
    drivers.append(Driver(tmp_path, source, root, seconds=0.02))
    drivers[-1].when(lambda: drivers[-1].parts() >= 3 and bool(drivers[-1].workers()))
    drivers[-1].workers()[0].kill()
    code, output = drivers[-1].finish()
    assert code == 0, output
    assert shown(root) == undisturbed


def test_an_actor_that_grows_is_replaced(undisturbed: dict[str, Any], source: Path, tmp_path: Path, drivers: list[Driver]) -> None:
    """A library that leaks would end in the hands of the system's out-of-memory killer, hours into a run."""
    root, log = tmp_path / "root", tmp_path / "log"
    sets = ("resources.memory_mb=200", "stages.detect.resources.workers=1")
    drivers.append(Driver(tmp_path, source, root, *sets, TOY_LEAK_BYTES=str(6 * 2**20), TOY_LOG=str(log)))
    code, output = drivers[-1].finish()
    assert code == 0, output
    lines = [line.split() for line in log.read_text().splitlines()]
    assert len({process for process, _ in lines}) >= 3, "several processes, one after the other"
    assert len(lines) == len({image for _, image in lines}), "no picture was looked at twice"
    assert shown(root) == undisturbed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_signal_drains(undisturbed: dict[str, Any], source: Path, tmp_path: Path, drivers: list[Driver], number: int) -> None:
    root = tmp_path / "root"
    drivers.append(Driver(tmp_path, source, root, seconds=0.02))
    drivers[-1].when(lambda: drivers[-1].parts() >= 3)
    os.kill(drivers[-1].process.pid, number)
    code, output = drivers[-1].finish()
    assert code == 130, output
    assert "stopping: slices at work are finished and published" in output
    assert list((root / "parts").rglob("*.parquet")) == [], "what was finished is sealed and published"
    some = shown(root)["faces"]
    assert 0 < len(some) < len(undisturbed["faces"])
    run_toy(tmp_path, source, root, selection=Selection())
    assert shown(root) == undisturbed
