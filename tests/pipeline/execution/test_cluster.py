"""On a real Ray cluster of three nodes with its root in an object store: the same view as in one
process, whoever goes away.
"""

import json
import os
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("s3fs", reason="object stores need the group s3")
pytest.importorskip("moto", reason="the S3 server of the tests comes with the group dev")


from pipeline.dag import DagError, Resources, WorkerRange
from pipeline.execution.cluster import (
    Node,
    check_address,
    fits,
    runtime_env,
    share,
    worker_environment,
)
from pipeline.execution.engine import EngineError
from pipeline.execution.operators import operators
from pipeline.weights.stored import StoredWeights, cache_folder
from schemas import identity_id, image_id
from stages.weights import MissingWeights
from tests.pipeline.cluster_toy import NET, NODE_CACHE, register_weighed
from tests.pipeline.drivers import REPOSITORY, Driver, starting
from tests.pipeline.in_process import run_here
from tests.pipeline.rooms import run_toy, shown
from tests.pipeline.s3 import S3Server, serving
from tests.pipeline.toy import HOLDS, people, picture, toy_dag

LIMIT = 900.0
"""Seconds after which a run is given up as hanging."""

SPREAD = (
    "resources.memory_mb=50",
    "stages.embed.backend=weighed",
    "stages.embed.resources.gpus=0.5",
    "stages.embed.resources.cpus=0.5",
)
"""detect on CPUs, embed where a GPU is: two operators in one chain."""

GB = 2**30


# Pools


def node(cpus: float, gpus: float = 0, memory: float = 64 * GB, name: str = "n") -> Node:
    return Node(f"{name}-{uuid.uuid4().hex}", name, cpus, gpus, memory)


def pools(
    chain: dict[str, Resources], *nodes: Node, later: tuple[Node, ...] = ()
) -> dict[str, tuple[int, int, int]]:
    made = share([((name,), asked) for name, asked in chain.items()], nodes, later)
    return {name: (pool.least, pool.now, pool.most) for name, pool in zip(chain, made, strict=True)}


def test_a_pool_is_as_large_as_its_actors_fit_on_the_nodes_one_by_one() -> None:
    assert pools({"detect": Resources(cpus=3)}, node(4), node(4), node(2)) == {
        "detect": (2, 2, 2)
    }, "two threes do not make a node"
    assert pools({"detect": Resources(cpus=1, memory_mb=1024)}, node(16, memory=4 * GB)) == {
        "detect": (4, 4, 4)
    }, "memory counts"
    assert pools({"detect": Resources(workers=3)}, node(8)) == {"detect": (3, 3, 3)}
    assert pools({"detect": Resources(workers=30)}, node(8)) == {"detect": (8, 8, 8)}, (
        "no more than fit"
    )


def test_gpu_stages_get_the_gpus_and_nobody_is_left_without() -> None:
    chain = {
        "detect": Resources(cpus=1),
        "embed": Resources(cpus=1, gpus=0.5),
        "fit": Resources(cpus=2),
    }
    made = pools(chain, node(8), node(4, gpus=2), node(0))
    assert made["embed"] == (4, 4, 4), "half a GPU each on two GPUs"
    assert made["detect"][1] + 2 * made["fit"][1] == 8 and made["fit"][1] >= 2, (
        "what is left is shared by cores"
    )
    assert pools(
        {"detect": Resources(cpus=1), "embed": Resources(cpus=1, gpus=1)}, node(1), node(1, gpus=1)
    ) == {"detect": (1, 1, 1), "embed": (1, 1, 1)}


def test_what_fits_nowhere_is_told_with_stage_wish_and_largest_node() -> None:
    with pytest.raises(
        EngineError,
        match=r"stage embed: a worker takes 1 CPUs, 2 GPUs, 1500 MB.*the largest, b, has 4 CPUs, "
        r"1 GPUs",
    ):
        pools({"embed": Resources(gpus=2)}, node(64, name="a"), node(4, gpus=1, name="b"))
    with pytest.raises(EngineError, match="too small for all operators at once"):
        pools({"detect": Resources(cpus=2), "embed": Resources(cpus=1)}, node(2))


def test_nodes_that_an_autoscaler_may_start_count() -> None:
    late = Node("", "one of group gpu", 4, 1, 64 * GB)
    assert pools({"embed": Resources(gpus=1)}, node(2), later=(late, late)) == {"embed": (1, 1, 2)}
    assert pools({"detect": Resources(workers=WorkerRange(min=1, max=50))}, node(2)) == {
        "detect": (1, 2, 50)
    }


def test_a_range_of_workers_can_be_written_in_a_dag(tmp_path: Path) -> None:
    asked = (
        toy_dag(tmp_path, tmp_path, tmp_path, ["stages.detect.resources.workers={min: 2, max: 9}"])
        .stages["detect"]
        .resources
    )
    assert asked.workers == WorkerRange(min=2, max=9)
    assert operators(["detect"], {"detect": asked}, cores=4)[0].workers == 4, (
        "one machine does not grow"
    )
    for wrong, said in (
        ("{min: 3, max: 2}", "less than min"),
        ("{min: 0, max: 2}", "greater than or equal to 1"),
        ("many", "auto"),
    ):
        with pytest.raises(DagError, match=said):
            toy_dag(tmp_path, tmp_path, tmp_path, [f"stages.detect.resources.workers={wrong}"])
    with pytest.raises(DagError, match="a fraction of one GPU or whole ones"):
        toy_dag(tmp_path, tmp_path, tmp_path, ["resources.gpus=1.5"])
    assert not fits(Resources(gpus=0.6), node(4, gpus=0)) and fits(
        Resources(gpus=0.6), node(4, gpus=1)
    )


# What workers get


def test_packages_travel_unless_a_job_brings_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = ["schemas", "idcluster", "stages", "eval", "pipeline"]
    alone = runtime_env({"OMP_NUM_THREADS": "1"}, {})
    assert [Path(folder).name for folder in alone["py_modules"]] == ours
    monkeypatch.chdir(Path(__file__).parents[3])
    job: dict[str, Any] = {
        "runtime_env": {"working_dir": "gcs://it.zip", "env_vars": {"OMP_NUM_THREADS": "2"}}
    }
    inside = runtime_env(
        {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"},
        {"RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps(job)},
    )
    assert inside == {"env_vars": {"PYTHONHASHSEED": "0"}}, "Ray refuses what both set"
    monkeypatch.chdir(
        tmp_path
    )  # a job's working directory that holds a DAG file and a `pipeline/` of somebody's
    inside = runtime_env({}, {"RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps(job)})
    assert [Path(folder).name for folder in inside["py_modules"]] == ours and "excludes" in inside
    job["runtime_env"]["excludes"] = ["*.mp4"]
    assert "excludes" not in runtime_env({}, {"RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps(job)})


def test_keys_travel_but_not_names_of_this_machines_files() -> None:
    given = {
        "AWS_ACCESS_KEY_ID": "k",
        "AWS_ENDPOINT_URL": "u",
        "AWS_PROFILE": "me",
        "AWS_WEB_IDENTITY_TOKEN_FILE": "/f",
        "HOME": "/",
    }
    assert worker_environment(given) == {"AWS_ACCESS_KEY_ID": "k", "AWS_ENDPOINT_URL": "u"}


@pytest.mark.parametrize("address", ["ray://head:10001", "http://head:8265"])
def test_addresses_of_clients_are_refused(address: str) -> None:
    with pytest.raises(EngineError, match="ray job submit"):
        check_address(address)


def test_an_address_where_nobody_listens_is_told_at_once() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound, but not listening
        with pytest.raises(EngineError, match="no Ray cluster at"):
            check_address(f"127.0.0.1:{nobody.getsockname()[1]}")


# On a cluster


@dataclass
class Rack:
    """A head without work, a node with two CPUs, one with a CPU and a GPU, and an S3 server."""

    cluster: Any
    server: S3Server
    folder: Path
    nodes: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, **resources: float) -> None:
        cache = self.folder / f"cache {name}"
        cache.mkdir(exist_ok=True)
        self.nodes[name] = self.cluster.add_node(
            **resources, env_vars={NODE_CACHE: str(cache)}, object_store_memory=100 * 2**20
        )

    @property
    def hold(self) -> Path:
        """While this file is there, toys are at work on the images that wait for it."""
        return self.folder / "hold"

    def begun(self, image: str) -> int:
        """How often a toy has begun with an image."""
        log = self.folder / "log"
        return (
            sum(line.split()[1:] == [image] for line in log.read_text().splitlines())
            if log.exists()
            else 0
        )

    def lose(self, name: str) -> None:
        """Everything that ran on the node is killed at once."""
        self.cluster.remove_node(self.nodes.pop(name), allow_graceful=False)

    def bucket(self) -> str:
        name = f"test-{uuid.uuid4().hex[:12]}"
        self.server.make_bucket(name)
        return name

    def parts(self, bucket: str) -> int:
        return sum(
            r.startswith(f"PUT /{bucket}/root/parts/") and ".parquet" in r
            for r in list(self.server.requests)
        )


@pytest.fixture(scope="module")
def rack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rack]:
    from ray.cluster_utils import Cluster

    before, folder = dict(os.environ), tmp_path_factory.mktemp("rack")
    os.environ.update({"TOY_LOG": str(folder / "log"), "TOY_HOLD": str(folder / "hold")})
    # Nodes know nothing of the store: what they need has to come from the driver.
    os.environ.update(
        {"TOY_SECONDS": "0.05", "RAY_BACKEND_LOG_LEVEL": "fatal", "PYTHONPATH": str(REPOSITORY)}
    )
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    try:
        with serving() as server:
            found = Rack(cluster, server, folder)
            found.add("cpu", num_cpus=2)
            found.add("gpu", num_cpus=1, num_gpus=1)
            os.environ.update(server.environment)
            yield found
    finally:
        cluster.shutdown()
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return people(tmp_path_factory.mktemp("source") / "people", count=4, pictures=8)


@pytest.fixture(scope="module")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the same DAG shows when it runs in one process without Ray."""
    folder = tmp_path_factory.mktemp("undisturbed")
    register_weighed()
    (folder / "toy.net").write_bytes(NET)
    run_here(toy_dag(folder, source, folder / "root", SPREAD), models=str(folder))
    return shown(folder / "root")


Start = Callable[..., Driver]


@pytest.fixture
def start(rack: Rack, tmp_path: Path, source: Path) -> Iterator[Start]:
    """Starts a run that joins the cluster."""
    with starting() as one:
        yield lambda root, *sets, models="", people=source, limit=LIMIT, **variables: one(
            "tests.pipeline.cluster_toy",
            rack.cluster.address,
            tmp_path,
            people,
            root,
            models,
            *sets,
            limit=limit,
            **rack.server.environment,
            **variables,
        )


@pytest.fixture
def bucket(rack: Rack) -> str:
    """A bucket that holds the weights below `models`."""
    from idcluster.root.storage import Store

    name = rack.bucket()
    Store(f"s3://{name}/models").put("embed/toy.net", NET)
    rack.server.requests.clear()
    return name


@pytest.mark.ray
def test_same_as_in_one_process_and_weights_are_brought_once_a_node(
    rack: Rack, bucket: str, start: Start, undisturbed: dict[str, Any]
) -> None:
    models = f"s3://{bucket}/models"
    output = start(f"s3://{bucket}/root", *SPREAD, models=models).succeed()
    assert shown(f"s3://{bucket}/root") == undisturbed
    assert "phase crawl detect embed 4 workers" in output, "two CPUs and two halves of the GPU"
    place = f"idcluster/models/{cache_folder(models).name}/embed/toy.net"
    assert [path.read_bytes() == NET for path in rack.folder.glob(f"*/{place}")] == [True], (
        "the node that embeds has them, no other"
    )
    fetched = [
        r for r in rack.server.requests if r.startswith(f"GET /{bucket}/models/embed/toy.net")
    ]
    assert len(fetched) == 1, "two actors, one download"


@pytest.mark.ray
def test_lost_nodes_cost_nothing_and_new_ones_are_used(
    rack: Rack, bucket: str, start: Start, undisturbed: dict[str, Any]
) -> None:
    driver = start(f"s3://{bucket}/root", *SPREAD, models=f"s3://{bucket}/models")
    driver.when(lambda: rack.parts(bucket) >= 3)
    rack.lose("cpu")
    rack.lose("gpu")  # now no node is left that could do anything
    rack.add("gpu", num_cpus=1, num_gpus=1)
    rack.add("cpu", num_cpus=2)
    driver.succeed()
    assert shown(f"s3://{bucket}/root") == undisturbed


@pytest.mark.ray
@pytest.mark.slow
def test_a_picture_at_work_in_three_lost_nodes_is_not_blamed(
    rack: Rack, bucket: str, start: Start, source: Path, tmp_path: Path
) -> None:
    """On machines that are taken away at any time, images that take long would be given up."""
    mine = Path(shutil.copytree(source, tmp_path / "people"))
    (mine / "person 00" / "long.png").write_bytes(picture(10, noise=33, trouble=HOLDS))
    image = image_id(identity_id("person 00"), "local:person 00/long.png")
    rack.hold.touch()
    driver = start(f"s3://{bucket}/root", "resources.memory_mb=50", people=mine, limit=LIMIT + 150)
    for times in (1, 2, 3):
        driver.when(lambda times=times: rack.begun(image) >= times)  # type: ignore[misc]
        rack.lose("cpu")
        rack.lose("gpu")
        rack.add("gpu", num_cpus=1, num_gpus=1)
        rack.add("cpu", num_cpus=2)
    driver.when(lambda: rack.begun(image) >= 4)
    rack.hold.unlink()
    driver.succeed()
    run_toy(tmp_path, mine, tmp_path / "alone")
    assert shown(f"s3://{bucket}/root") == shown(tmp_path / "alone")


@pytest.mark.ray
def test_killed_driver_is_resumed(
    rack: Rack, bucket: str, start: Start, undisturbed: dict[str, Any]
) -> None:
    first = start(f"s3://{bucket}/root", *SPREAD, models=f"s3://{bucket}/models")
    first.when(lambda: rack.parts(bucket) >= 3)
    first.kill()
    output = start(f"s3://{bucket}/root", *SPREAD, models=f"s3://{bucket}/models").succeed()
    assert "taken over from an interrupted run" in output, "what was finished is not done again"
    assert shown(f"s3://{bucket}/root") == undisturbed


@pytest.mark.ray
@pytest.mark.slow
def test_a_store_that_is_away_and_then_refuses_for_more_than_a_minute_is_waited_for(
    rack: Rack, bucket: str, start: Start, undisturbed: dict[str, Any]
) -> None:
    driver = start(
        f"s3://{bucket}/root", *SPREAD, models=f"s3://{bucket}/models", limit=LIMIT + 100
    )
    driver.when(lambda: rack.parts(bucket) >= 3)
    rack.server.refused, back = 0, time.monotonic() + 65.0
    rack.server.away = lambda: time.monotonic() < back
    rack.server.stop()
    time.sleep(3)  # what is away has to be away for some time
    rack.server.start()
    try:
        driver.succeed()
    finally:
        rack.server.away = lambda: False
    assert rack.server.refused > 20 and time.monotonic() > back
    assert shown(f"s3://{bucket}/root") == undisturbed


@pytest.mark.ray
def test_small_actors_do_not_keep_a_large_one_waiting_for_ever(
    rack: Rack, bucket: str, start: Start, undisturbed: dict[str, Any]
) -> None:
    sets = (*SPREAD[:2], "resources.cpus=0.5", "stages.embed.resources.cpus=2")
    start(f"s3://{bucket}/root", *sets, models=f"s3://{bucket}/models").succeed()
    assert shown(f"s3://{bucket}/root") == undisturbed


@pytest.mark.ray
def test_a_local_root_is_refused_unless_it_is_said_to_be_shared(
    start: Start, tmp_path: Path
) -> None:
    code, output = start(str(tmp_path / "root"), *SPREAD[:1]).finish()
    assert code == 1, output
    assert (
        "each node would write to its own disk" in output
        and "--shared-root" in output
        and "s3://" in output
    )
    assert not (tmp_path / "root").exists(), "nothing is left behind"


@pytest.mark.ray
def test_a_stage_that_fits_nowhere_is_told(rack: Rack, bucket: str, start: Start) -> None:
    code, output = start(
        f"s3://{bucket}/root", *SPREAD[:1], "stages.detect.resources.cpus=5"
    ).finish()
    assert code == 1, output
    assert "stage detect: a worker takes 5 CPUs" in output and "has 2 CPUs, 0 GPUs" in output


@pytest.mark.ray
def test_a_node_that_cannot_have_the_weights_is_named_with_stage_and_file(
    rack: Rack, bucket: str, start: Start
) -> None:
    broken = rack.folder / "cache gpu" / "idcluster"
    kept = broken.with_name("kept")
    if broken.exists():
        broken.rename(kept)
    broken.write_text("a file where a folder should be")
    code, output = start(f"s3://{bucket}/root", *SPREAD, models=f"s3://{bucket}/models").finish()
    broken.unlink()
    if kept.exists():
        kept.rename(broken)
    assert code == 1, output
    named = [line for line in output.splitlines() if "stage embed: weights 'toy_net'" in line]
    assert len(named) == 1 and "node " in named[0] and "cannot be kept in" in named[0], output
    assert "embed/toy.net" in named[0]


@pytest.mark.ray
def test_weights_that_the_store_does_not_hold_are_told_before_anything_runs(
    rack: Rack, bucket: str
) -> None:
    from idcluster.root.storage import Store

    register_weighed()
    with pytest.raises(MissingWeights, match=r"holds neither embed/toy.net nor toy.net"):
        StoredWeights(f"s3://{bucket}/elsewhere").look("toy_net")
    Store(f"s3://{bucket}/wrong").put("toy.net", NET[::-1])
    with pytest.raises(MissingWeights, match="is another file: its sha256 is"):
        StoredWeights(f"s3://{bucket}/wrong").path("toy_net")
