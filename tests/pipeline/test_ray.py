"""On a real local Ray: the same rows and shards as in one process, whoever is killed."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.prepared_dag import Selection
from tests.pipeline.drivers import Driver, starting
from tests.pipeline.rooms import run_toy, shown
from tests.pipeline.toy import KILLS, people, picture

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return people(tmp_path_factory.mktemp("source") / "people", count=6, pictures=20)


@pytest.fixture(scope="module")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the same DAG shows when it runs in one process without Ray."""
    folder = tmp_path_factory.mktemp("undisturbed")
    run_toy(folder, source, folder / "root")
    return shown(folder / "root")


Start = Callable[..., Driver]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a run of the toys on a Ray of its own."""
    with starting() as one:
        yield lambda source, root, *sets, **variables: one(
            "tests.pipeline.toy_run", tmp_path, source, root, *sets, **variables
        )


def parts(root: Path) -> int:
    return len(list((root / "parts").rglob("*.parquet")))


def test_the_same_bytes_from_three_workers(source: Path, tmp_path: Path, start: Start) -> None:
    """Whoever runs a DAG on a larger cluster would get another dataset."""
    root, log, sets = (
        tmp_path / "root",
        tmp_path / "log",
        ("stages.shard.params.target_mb=0.02", "stages.shard.params.validation=0"),
    )
    run_toy(tmp_path, source, tmp_path / "one", sets)
    start(
        source,
        root,
        *sets,
        "resources.workers=3",
        "resources.cpus=0.5",
        TOY_SECONDS="0.05",
        TOY_LOG=str(log),
    ).succeed()
    assert len({line.split()[0] for line in log.read_text().splitlines()}) == 3, (
        "each of the three had work"
    )
    view = shown(root)
    assert (
        view == shown(tmp_path / "one")
        and sum(path.endswith(".tar") for path in view["shards"]) >= 3
    )
    assert list((root / "parts").rglob("*.*")) == []


def test_stages_with_other_resources_run_in_actors_of_their_own(
    undisturbed: dict[str, Any], source: Path, tmp_path: Path, start: Start
) -> None:
    root = tmp_path / "root"
    sets = (
        "stages.detect.resources.cpus=0.5",
        "stages.embed.resources.workers=1",
        "stages.clean.resources.workers=1",
    )
    start(source, root, *sets).succeed()
    assert shown(root) == undisturbed


def test_a_picture_that_kills_its_worker_is_poisoned_and_its_neighbours_are_kept(
    source: Path, tmp_path: Path, start: Start
) -> None:
    import shutil

    mine = tmp_path / "people"
    shutil.copytree(source, mine)
    bad = mine / "person 01" / "killer.png"
    bad.write_bytes(picture(11, noise=5, trouble=KILLS))
    root = tmp_path / "root"
    start(mine, root).succeed()
    view = shown(root)
    poisoned = [row for row in view["faces"] if "poisoned" in row]
    assert len(poisoned) == 1
    assert "worker_died" in poisoned[0]
    # Everything else is as if the image had never been there (tested by taking it away).
    bad.unlink()
    run_toy(tmp_path, mine, root)
    run_toy(tmp_path, mine, tmp_path / "other")
    for table in ("images", "faces", "embeddings", "clusters", "people", "captions", "shards"):
        assert shown(root)[table] == shown(tmp_path / "other")[table], table


def test_killed_driver_is_resumed(
    undisturbed: dict[str, Any], source: Path, tmp_path: Path, start: Start
) -> None:
    root = tmp_path / "root"
    driver = start(source, root, TOY_SECONDS="0.02")
    driver.when(lambda: parts(root) >= 5)
    driver.kill()
    output = start(source, root).succeed()
    assert "taken over from an interrupted run" in output, "what was finished is not done again"
    assert shown(root) == undisturbed


def test_killed_worker_costs_nothing(
    undisturbed: dict[str, Any], source: Path, tmp_path: Path, start: Start
) -> None:
    root = tmp_path / "root"
    driver = start(source, root, TOY_SECONDS="0.02")
    driver.when(lambda: parts(root) >= 3 and bool(driver.workers()))
    driver.workers()[0].kill()
    driver.succeed()
    assert shown(root) == undisturbed


def test_models_that_crash_while_they_are_loaded_are_nobodys_fault(
    undisturbed: dict[str, Any], source: Path, tmp_path: Path, start: Start
) -> None:
    """Images would be given up one after the other, or a run that can do nothing would go on for
    ever.
    """
    root, crashes = tmp_path / "root", tmp_path / "crashes"
    sets = ("stages.detect.resources.workers=1", "stages.embed.resources.workers=1")
    crashes.write_bytes(b"cc")
    start(source, root, *sets, TOY_CRASHES=str(crashes)).succeed()
    assert crashes.read_bytes() == b"" and shown(root) == undisturbed
    crashes.write_bytes(b"c" * 1000)
    code, output = start(source, tmp_path / "other", *sets, TOY_CRASHES=str(crashes)).finish()
    assert (
        code == 1 and "workers died one after the other while stage embed was set up" in output
    ), output
    # Where a new worker begins before the system has done with the dead one, it takes one more.
    assert 990 < len(crashes.read_bytes()) <= 997


def test_an_actor_that_grows_is_replaced(
    undisturbed: dict[str, Any], source: Path, tmp_path: Path, start: Start
) -> None:
    """A library that leaks would end in the hands of the system's out-of-memory killer, hours into
    a run.
    """
    root, log = tmp_path / "root", tmp_path / "log"
    sets = ("resources.memory_mb=200", "stages.detect.resources.workers=1")
    start(source, root, *sets, TOY_LEAK_BYTES=str(6 * 2**20), TOY_LOG=str(log)).succeed()
    lines = [line.split() for line in log.read_text().splitlines()]
    assert len({process for process, _ in lines}) >= 3, "several processes, one after the other"
    assert len(lines) == len({image for _, image in lines}), "no image was looked at twice"
    assert shown(root) == undisturbed


def bottleneck(output: str) -> list[str]:
    return [
        line.removeprefix("bottleneck: ").split(" (")[0]
        for line in output.splitlines()
        if line.startswith("bottleneck: ")
    ]


@pytest.fixture
def few(tmp_path: Path) -> Path:
    return people(tmp_path / "few", count=3)


@pytest.mark.parametrize("slow", ["detect", "embed"])
def test_the_summary_names_the_slow_stage(
    few: Path, tmp_path: Path, start: Start, slow: str
) -> None:
    """Somebody would give more workers, or another backend, to a stage that holds up nothing."""
    seconds = {
        "TOY_SECONDS": "0",
        "TOY_EMBED_SECONDS": "0",
        ("TOY_SECONDS" if slow == "detect" else "TOY_EMBED_SECONDS"): "0.4",
    }
    assert bottleneck(start(few, tmp_path / "root", **seconds).succeed()) == [slow]


@pytest.mark.slow
def test_the_summary_names_the_stage_with_too_few_workers(
    few: Path, tmp_path: Path, start: Start
) -> None:
    """A stage on a GPU holds up ten workers on CPUs that have taken more time than it, all
    together.
    """
    sets = (
        "resources.cpus=0.2",
        *(
            f"stages.{stage}.resources.workers={n}"
            for stage, n in (("crawl", 6), ("detect", 6), ("embed", 1))
        ),
    )
    root = tmp_path / "root"
    output = start(few, root, *sets, TOY_SECONDS="0.6", TOY_EMBED_SECONDS="0.3").succeed()
    [record] = [json.loads(file.read_text()) for file in (root / "runs").glob("*.json")]
    took = record["phases"][0]["worker_seconds"]
    assert took["detect"] > took["embed"] and "read for embed" in took, (
        "by its time alone it would be detect"
    )
    assert bottleneck(output) == ["embed"]


@pytest.mark.slow
def test_the_summary_names_reading_where_the_store_is_slow(
    few: Path, tmp_path: Path, start: Start
) -> None:
    pytest.importorskip("s3fs", reason="object stores need the group s3")
    pytest.importorskip("moto", reason="the S3 server of the tests comes with the group dev")
    from tests.pipeline.s3 import serving

    with serving() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        server.make_bucket("slow")
        run_toy(tmp_path, few, "s3://slow/root")
        server.delay = lambda method: 0.2 if method == "GET" else 0.0
        output = start(few, "s3://slow/root", "stages.detect.params.margin=3").succeed()
    # Shards do nothing but read and put: where they took longest, naming them says the same. No
    # model is named.
    assert bottleneck(output)[0] in ("read", "shard")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_signal_drains(
    undisturbed: dict[str, Any], source: Path, tmp_path: Path, start: Start, number: int
) -> None:
    root = tmp_path / "root"
    driver = start(source, root, TOY_SECONDS="0.02")
    driver.when(lambda: parts(root) >= 3)
    os.kill(driver.process.pid, number)
    code, output = driver.finish()
    assert code == 130, output
    assert "stopping: slices at work are finished and published" in output
    assert list((root / "parts").rglob("*.parquet")) == [], (
        "what was finished is sealed and published"
    )
    some = shown(root)["faces"]
    assert 0 < len(some) < len(undisturbed["faces"])
    run_toy(tmp_path, source, root, selection=Selection())
    assert shown(root) == undisturbed
