"""Memory that does not suffice, on a real Ray: an error costs the image, a killed worker costs it
after the second time.
"""

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from idcluster.root.parquet import read_entries
from idcluster.root.snapshot import load
from idcluster.root.storage import Store
from tests.pipeline.drivers import Driver, starting
from tests.pipeline.rooms import run_toy, shown
from tests.pipeline.toy import GROWS, people, picture

pytestmark = pytest.mark.ray

ONE_WORKER = tuple(f"stages.{stage}.resources.workers=1" for stage in ("crawl", "detect", "embed"))
"""The three share an actor, and there is no other that Ray could kill in the place of the one that
grows.
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """People, with an image of which detect takes more and more memory."""
    folder = people(tmp_path / "people", count=3)
    (folder / "person 01" / "grows.png").write_bytes(picture(11, noise=5, trouble=GROWS))
    return folder


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Driver]]:
    with starting() as one:
        yield lambda *arguments, **variables: one(
            "tests.pipeline.toy_run", tmp_path, *arguments, **variables
        )


def not_seen(root: Path) -> dict[str, Any]:
    """The one row of faces that is neither ok nor filtered."""
    store = Store(root)
    rows = read_entries(
        store, "faces", load(store).shown("faces"), ["image_id", "status", "reason", "detail"]
    ).to_pylist()
    # The broken files of the toys fail too, in images or by their pixels.
    [row] = [
        row
        for row in rows
        if row["status"] in ("failed", "poisoned") and row["reason"] != "decode_error"
    ]
    return row


def check_neighbours(root: Path, source: Path, folder: Path) -> None:
    """Everything else is as if the image had never been there: tested by taking it away."""
    (source / "person 01" / "grows.png").unlink()
    run_toy(folder, source, root)
    run_toy(folder, source, folder / "without")
    for table in ("images", "faces", "embeddings", "clusters", "people", "captions", "shards"):
        assert shown(root)[table] == shown(folder / "without")[table], table


def test_memory_that_is_refused_costs_the_picture_alone(
    source: Path, tmp_path: Path, start: Callable[..., Driver]
) -> None:
    """One image of 100,000 pixels a side would end a run of days."""
    root = tmp_path / "root"
    start(source, root, TOY_ADDRESS_ROOM=str(500_000_000)).succeed()
    row = not_seen(root)
    assert (row["status"], row["reason"]) == ("failed", "error") and "MemoryError" in row["detail"]
    check_neighbours(root, source, tmp_path)


V1, V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
"""Where control groups of the two versions lie, as far as they can limit memory."""


@pytest.fixture
def memory_group() -> Iterator[Callable[[int], Path]]:
    """Makes a control group with a limit of so many bytes. Skips where this machine does not let
    us.
    """
    made: list[Path] = []

    def make(limit: int) -> Path:
        top, file = (
            (V1, "memory.limit_in_bytes")
            if (V1 / "memory.limit_in_bytes").exists()
            else (V2, "memory.max")
        )
        with contextlib.suppress(OSError):
            if top is V2 and "memory" not in (V2 / "cgroup.subtree_control").read_text().split():
                raise PermissionError("not ours to change")
            group = top / f"idcluster-test-{os.getpid()}"
            group.mkdir()
            made.append(group)
            (group / file).write_text(str(limit))
            return group
        pytest.skip("needs the right to make control groups with a limit on memory")

    yield make
    for group in made:
        group.rmdir()


def test_a_picture_whose_worker_the_kernel_kills_is_poisoned(
    source: Path, tmp_path: Path, start: Callable[..., Driver], memory_group: Callable[[int], Path]
) -> None:
    """It would kill one worker after the other, and the run never end."""
    root, group = tmp_path / "root", memory_group(200_000_000)
    start(source, root, TOY_MEMORY_GROUP=str(group)).succeed()
    row = not_seen(root)
    assert (row["status"], row["reason"], row["detail"]) == (
        "poisoned",
        "worker_died",
        "killed its worker 2 times",
    )
    check_neighbours(root, source, tmp_path)


@pytest.mark.slow
def test_a_picture_whose_worker_ray_kills_for_its_memory_is_poisoned(
    source: Path, tmp_path: Path, start: Callable[..., Driver], memory_group: Callable[[int], Path]
) -> None:
    """Ray kills workers before the kernel does; a run under its memory monitor must end as well."""
    group = memory_group(6_000_000_000)
    if group.parent != V1:
        pytest.skip(
            "needs control groups of version 1, of which one can be put in the place of the "
            "machine's"
        )
    # Whatever asks for the machine's memory below this command is told that of the group.
    inside = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        f'echo $$ > {group}/cgroup.procs && mount --bind {group} {V1} && exec "$@"',
        "sh",
    ]
    if subprocess.run([*inside, "true"], capture_output=True).returncode:
        pytest.skip("needs the right to mount in a namespace")
    root = tmp_path / "root"
    variables = {"RAY_memory_usage_threshold": "0.6", "TOY_GROW_SECONDS": "0.02"}
    start(source, root, *ONE_WORKER, before=inside, **variables).succeed()
    assert not_seen(root)["detail"] == "killed its worker 2 times"
    killed = int((group / "memory.failcnt").read_text())
    assert killed == 0, "it was not the kernel"
    check_neighbours(root, source, tmp_path)
