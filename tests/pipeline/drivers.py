"""Runs as programs of their own, to be watched, killed and waited for: on a Ray of their own or on
a cluster that is there.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

REPOSITORY = Path(__file__).parents[2]
LIMIT = 900.0
"""Seconds after which a run is given up as hanging."""


class Driver:
    """`python -m MODULE ARGUMENTS` with some variables set, started by the command `before` if
    there is one.
    """

    def __init__(
        self,
        module: str,
        *arguments: object,
        limit: float = LIMIT,
        before: Sequence[str] = (),
        **variables: str,
    ) -> None:
        self.limit = limit
        self.process = subprocess.Popen(
            [*before, sys.executable, "-m", module, *map(str, arguments)],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def finish(self) -> tuple[int, str]:
        """Exit code and all that was printed."""
        try:
            output, _ = self.process.communicate(timeout=self.limit)
        except subprocess.TimeoutExpired:
            self.process.kill()
            output, _ = self.process.communicate()
            pytest.fail(f"still running after {self.limit} s:\n{output}")
        return self.process.returncode, output

    def succeed(self) -> str:
        """What was printed by a run that ends well."""
        code, output = self.finish()
        assert code == 0, output
        return output

    def when(self, happened: Callable[[], bool]) -> None:
        """Return as soon as something has happened; fail if the run ends before."""
        deadline = time.monotonic() + self.limit
        while not happened():
            if self.process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"it never happened:\n{self.finish()[1]}")
            time.sleep(0.02)

    def kill(self) -> None:
        """The program alone, not what it has started."""
        self.process.kill()
        self.process.communicate()

    def workers(self) -> list[psutil.Process]:
        """Actors of Ray Data below this program."""
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


@contextmanager
def starting() -> Iterator[Callable[..., Driver]]:
    """Starts drivers; whatever is still there at the end is killed, with everything below it."""
    started: list[Driver] = []

    def start(module: str, *arguments: object, **named: Any) -> Driver:
        started.append(Driver(module, *arguments, **named))
        return started[-1]

    try:
        yield start
    finally:
        for driver in started:
            if driver.process.poll() is None:
                for child in psutil.Process(driver.process.pid).children(recursive=True):
                    child.kill()
                driver.kill()
