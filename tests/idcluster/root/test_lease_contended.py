"""Many processes that want one root at once: never two of them hold it, and none stumbles over
another.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from idcluster.root.snapshot import load, numbers
from idcluster.root.storage import Store
from tests.pipeline.s3 import serving

pytestmark = pytest.mark.slow

_REPOSITORY = Path(__file__).resolve().parents[3]


def contend(
    root: str, folder: Path, processes: int, rounds: int, environment: Mapping[str, str]
) -> dict[str, int]:
    """What all of them found, summed."""
    lock = folder / "lock"
    lock.write_bytes(b"")
    command = [
        sys.executable,
        "-m",
        "tests.pipeline.lease_contenders",
        root,
        str(lock),
        str(rounds),
    ]
    started = [
        subprocess.Popen(
            [*command, str(seed)],
            cwd=_REPOSITORY,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for seed in range(processes)
    ]
    answers = [process.communicate(timeout=600) for process in started]
    assert all(process.returncode == 0 for process in started), [
        error.decode()[-2000:] for _, error in answers
    ]
    found = [json.loads(out) for out, _ in answers]
    return {name: sum(one[name] for one in found) for name in found[0]}


def check(root: str, found: Mapping[str, int], wanted: int) -> None:
    assert found["twice"] == 0 and found["held"] == wanted
    assert min(found["refused"], found["died"], found["published"]) > 0, "they met, and some died"
    store = Store(root)
    epochs = [load(store, number).notes["epoch"] for number in numbers(store)]
    assert epochs == sorted(epochs) and len(epochs) >= found["published"]


@pytest.mark.parametrize(
    ("processes", "rounds"), [(4, 20), pytest.param(8, 60, marks=pytest.mark.slow)]
)
def test_on_a_disk(tmp_path: Path, processes: int, rounds: int) -> None:
    """Two runs would write to one root whenever the lease changes hands."""
    found = contend(str(tmp_path / "root"), tmp_path, processes, rounds, {})
    check(str(tmp_path / "root"), found, processes * rounds)


@pytest.fixture
def bucket() -> Iterator[tuple[str, Mapping[str, str]]]:
    pytest.importorskip("s3fs", reason="object stores need the group s3")
    with pytest.MonkeyPatch.context() as patch, serving() as server:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        server.make_bucket("contended")
        yield "s3://contended/root", server.environment


@pytest.mark.parametrize(
    ("processes", "rounds"), [(3, 8), pytest.param(4, 15, marks=pytest.mark.slow)]
)
def test_in_a_store(
    bucket: tuple[str, Mapping[str, str]], tmp_path: Path, processes: int, rounds: int
) -> None:
    """As on a disk; and a file that somebody else has deleted would end a run with an error of the
    store's client.
    """
    root, environment = bucket
    found = contend(root, tmp_path, processes, rounds, environment)
    check(root, found, processes * rounds)
