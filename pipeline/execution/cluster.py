"""A Ray cluster that is there already: what it has, how a chain of operators shares it, and whether
its nodes can do a run.

Pools are sized by trial: actors are laid into the free room of the nodes one by one, so what is
promised to a pool really fits. Before the first actor, a small task on every node looks whether the
node has what the run needs.
"""

import contextlib
import hashlib
import importlib
import json
import os
import secrets
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idcluster.root.storage import Store
from pipeline.dag import SHARD, Dag, Resources, WorkerRange
from pipeline.execution.attempts import Whereabouts
from pipeline.execution.engine import EngineError
from pipeline.execution.operators import Pool
from stages.backends import backend

if TYPE_CHECKING:
    from pipeline.execution.worker_spec import WorkerSpec

SHIPPED = ("schemas", "idcluster", "stages", "eval", "pipeline")
"""The packages that workers import."""

_CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
# fmt: off
_PASSED = (*_CREDENTIALS, "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
           "IDCLUSTER_PROXY_USER", "IDCLUSTER_PROXY_PASSWORD")
# fmt: on
_JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"
_MOST_LATER = 1000  # nodes of a group without a limit that are counted with


@dataclass(frozen=True)
class Node:
    """A machine of a cluster: what actors may take there. `memory` in bytes. `id` is empty for one
    that may still come.
    """

    id: str
    name: str
    cpus: float
    gpus: float
    memory: float

    def describe(self) -> str:
        return (
            f"{_number(self.cpus)} CPUs, {_number(self.gpus)} GPUs, {self.memory / 2**20:.0f} "
            "MB of memory"
        )


# How a chain shares the nodes


class _Room:
    """What is free on a node."""

    def __init__(self, node: Node) -> None:
        self.node, self.cpus, self.memory = node, node.cpus, node.memory
        self.gpus = [1.0] * int(node.gpus)

    def take(self, asked: Resources) -> bool:
        """Take room for one actor; False if there is none."""
        chosen = self._devices(asked.gpus)
        if chosen is None or self.cpus + 1e-6 < asked.cpus or self.memory < asked.memory_mb * 2**20:
            return False
        for device, part in chosen:
            self.gpus[device] -= part
        self.cpus -= asked.cpus
        self.memory -= asked.memory_mb * 2**20
        return True

    def _devices(self, gpus: float) -> list[tuple[int, float]] | None:
        if gpus == 0:
            return []
        if gpus < 1:  # a fraction lies on one device
            device = next((i for i, free in enumerate(self.gpus) if free + 1e-6 >= gpus), None)
            return None if device is None else [(device, gpus)]
        whole = [(i, 1.0) for i, free in enumerate(self.gpus) if free > 1 - 1e-6][: int(gpus)]
        return whole if len(whole) == int(gpus) else None


def fits(asked: Resources, node: Node) -> bool:
    """Whether one actor fits on a node that has nothing else to do."""
    return _Room(node).take(asked)


def share(
    chain: Sequence[tuple[tuple[str, ...], Resources]],
    nodes: Sequence[Node],
    later: Sequence[Node] = (),
) -> list[Pool]:
    """A pool for each operator (its stages, what an actor takes), so that all of them fit at once
    and none is left without.

    Each gets one actor first, those that fit on few nodes before the others. What GPUs carry goes
    to stages that ask for them; then whoever holds the fewest cores gets the next actor. `later`
    are nodes that an autoscaler may still start: pools grow onto them. Raises EngineError when an
    actor fits on no node, or not all operators fit at once.
    """
    for stages, asked in chain:
        _check_fits(stages, asked, [*nodes, *later])
    rooms, coming = [_Room(node) for node in nodes], [_Room(node) for node in later]
    placed, now = [0] * len(chain), [0] * len(chain)

    def add(index: int, among: Sequence[_Room]) -> bool:
        asked = chain[index][1]
        # Nodes with GPUs last for whoever needs none, the emptiest first.
        order = sorted(
            among,
            key=lambda room: (
                bool(room.gpus) and not asked.gpus,
                -sum(room.gpus) if asked.gpus else 0,
                -room.cpus,
            ),
        )
        room = next((room for room in order if room.take(asked)), None)
        if room is None:
            return False
        placed[index] += 1
        now[index] += bool(room.node.id)
        return True

    def fill(among: Sequence[_Room], limits: Sequence[float]) -> None:
        open_ones = set(range(len(chain)))
        while open_ones:
            index = min(
                open_ones, key=lambda i: (not chain[i][1].gpus, placed[i] * chain[i][1].cpus, i)
            )
            if placed[index] >= limits[index] or not add(index, among):
                open_ones.discard(index)

    def ease(index: int) -> tuple[float, ...]:
        asked = chain[index][1]
        return (
            sum(fits(asked, node) for node in nodes) or len(nodes) + 1,
            -asked.gpus,
            -asked.cpus,
        )

    for index in sorted(range(len(chain)), key=ease):
        if not add(index, rooms) and not add(index, coming):
            wishes = "; ".join(f"{' + '.join(stages)}: {_wish(asked)}" for stages, asked in chain)
            raise EngineError(
                "the cluster is too small for all operators at once: "
                f"{' + '.join(chain[index][0])} finds no room beside the others."
                f" A worker takes: {wishes}. The nodes have: "
                f"{'; '.join(node.describe() for node in [*nodes, *later])}. Give the stages"
                " equal resources (they then share an actor) or fewer cpus, or add nodes"
            )
    asked_most = [_limits(asked)[1] for _, asked in chain]
    fill(rooms, asked_most)
    today = [max(1, count) for count in now]
    if later:
        fill(coming, asked_most)
    pools = []
    for index, (_, asked) in enumerate(chain):
        least, most = _limits(asked)
        if isinstance(asked.workers, WorkerRange):
            # Whoever writes a range expects nodes that come and go, so its upper end stands.
            pools.append(Pool(int(least), min(max(today[index], int(least)), int(most)), int(most)))
        else:
            pools.append(Pool(today[index], today[index], placed[index] if later else today[index]))
    return pools


def _limits(asked: Resources) -> tuple[float, float]:
    if isinstance(asked.workers, WorkerRange):
        return asked.workers.min, asked.workers.max
    return (1, float("inf")) if asked.workers == "auto" else (1, asked.workers)


def _check_fits(stages: Sequence[str], asked: Resources, nodes: Sequence[Node]) -> None:
    if any(fits(asked, node) for node in nodes):
        return
    if not nodes:
        raise EngineError("the cluster has no nodes")
    largest = max(nodes, key=lambda node: (node.gpus if asked.gpus else 0, node.cpus, node.memory))
    raise EngineError(
        f"stage {' + '.join(stages)}: a worker takes {_wish(asked)}, and no node of the cluster "
        f"has that; the largest, {largest.name}, has"
        f" {largest.describe()}. Set stages.{stages[0]}.resources (cpus, gpus, memory_mb) to "
        "what fits, or add a larger node"
    )


def _wish(asked: Resources) -> str:
    return f"{_number(asked.cpus)} CPUs, {_number(asked.gpus)} GPUs, {asked.memory_mb} MB of memory"


def _number(value: float) -> str:
    return f"{value:g}"


# What the cluster has


def alive_nodes() -> list[Node]:
    """The nodes of the cluster that this process is connected to."""
    import ray

    found = []
    for node in ray.nodes():  # type: ignore[no-untyped-call]
        if node["Alive"]:
            resources = node["Resources"]
            name = (
                f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']}, node "
                f"{node['NodeID'][:8]})"
            )
            sizes = (float(resources.get(key, 0)) for key in ("CPU", "GPU", "memory"))
            found.append(Node(node["NodeID"], name, *sizes))
    return found


def whereabouts() -> Whereabouts:
    """Where this worker is."""
    import ray

    return Whereabouts(ray.get_runtime_context().get_node_id(), _gone)


def _gone(node: str) -> bool:
    # Work of a lost node is given to others only once Ray has noticed the loss, so the list shows
    # it by then.
    with contextlib.suppress(
        Exception
    ):  # no answer: the death counts, as it does where nothing is known of nodes
        return node not in {other.id for other in alive_nodes()}
    return False


def later_nodes(alive: Sequence[Node]) -> list[Node]:
    """Nodes that an autoscaler may still start, by the groups that it has announced; none where
    there is no autoscaler.
    """
    from ray._private.state import state

    config = None
    with contextlib.suppress(
        Exception
    ):  # no public call gives this; without it the cluster counts as fixed
        config = state.get_cluster_config()
    made = []
    for group in config.node_group_configs if config else ():
        has = dict(group.resources)
        cpus, gpus, memory = (float(has.get(key, 0)) for key in ("CPU", "GPU", "memory"))
        most = _MOST_LATER if group.max_count < 0 else min(group.max_count, _MOST_LATER)
        there = sum(node.cpus == cpus and node.gpus == gpus for node in alive)
        made += [Node("", f"one of group {group.name}", cpus, gpus, memory or float(2**40))] * max(
            0, most - there
        )
    return made


# How workers get their code and their credentials


def worker_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Variables of this process that workers need to reach the stores, keys, region and address of
    S3, and a proxy of the crawl.

    They travel with the actors, not in Ray's runtime environment, which its dashboard shows to
    everybody. Names of files and of roles are left out: they mean this machine.
    """
    return {name: environ[name] for name in _PASSED if name in environ}


def adopt_environment(passed: Mapping[str, str]) -> None:
    """Take over what `worker_environment` gave on the driver."""
    if "AWS_ACCESS_KEY_ID" in passed:
        for name in _CREDENTIALS:  # the token of one key and the secret of another make no pair
            os.environ.pop(name, None)
    os.environ.update(passed)


def runtime_env(
    variables: Mapping[str, str], environ: Mapping[str, str], further: Sequence[str] = ()
) -> dict[str, Any]:
    """The runtime environment of the workers: thread limits, our packages and `further` ones (see
    `foreign_packages`) unless the job brings them along.

    A job (`ray job submit --working-dir .`) has a runtime environment of its own; what it sets
    already must not be set again.
    """
    job = _job_environment(environ)
    made: dict[str, Any] = {}
    ours = {name: value for name, value in variables.items() if name not in job.get("env_vars", {})}
    if ours:
        made["env_vars"] = ours
    # A working directory may be anything; if we were not imported from there, it does not bring us
    # along.
    brings = job.get("py_modules") or (
        job.get("working_dir") and package_folders()[0].parent.resolve() == Path.cwd().resolve()
    )
    if not brings:
        made["py_modules"] = [str(folder) for folder in package_folders(further)]
        if "excludes" not in job:
            made["excludes"] = ["__pycache__", "*.pyc", "tests", ".git", ".venv"]
    return made


def _job_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    try:
        found = json.loads(environ.get(_JOB_VARIABLE, "{}"))
    except ValueError:
        return {}
    return dict(found.get("runtime_env") or {})


def package_folders(further: Sequence[str] = ()) -> list[Path]:
    """The folders of our packages, and of further ones, as this process imports them."""
    names = (*SHIPPED, *further)
    return [Path(str(importlib.import_module(name).__file__)).parent for name in names]


def foreign_packages(dag: Dag) -> list[str]:
    """The packages that backends of a DAG come from and that are not ours: they travel as ours do.

    A backend in a single file, or in a folder without an `__init__.py`, is none: such a file has to
    be on every node.
    """
    tops = {
        backend(name, config.backend).__module__.partition(".")[0]
        for name, config in dag.stages.items()
        if name != SHARD
    }
    found = []
    for top in sorted(tops - set(SHIPPED)):
        file = getattr(sys.modules.get(top), "__file__", None)
        if file is not None and Path(file).name == "__init__.py":
            found.append(top)
    return found


def code_digest(further: Sequence[str] = ()) -> str:
    """A hash of the code that this process imports."""
    hasher = hashlib.blake2b(digest_size=8)
    for folder in package_folders(further):
        for file in sorted(folder.rglob("*.py")):
            hasher.update(
                f"{folder.name}/{file.relative_to(folder)}".encode()
                + b"\0"
                + hashlib.sha256(file.read_bytes()).digest()
            )
    return hasher.hexdigest()


# Whether the nodes can do the run


def check_address(address: str) -> None:
    """Raise EngineError for addresses that Ray Data cannot work through, and for those where nobody
    listens.
    """
    if address.startswith(("ray://", "http://", "https://")):
        raise EngineError(
            f"{address} is the address of Ray's client or dashboard; a run has to be a process "
            "on the cluster: start it on a node with"
            " `--address auto`, or send it there: ray job submit --address <dashboard> "
            "--working-dir . -- idcluster run ..."
        )
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit():
        try:  # Ray itself would try for minutes
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        except OSError as error:
            raise EngineError(f"no Ray cluster at {address}: {error.strerror or error}") from error


def check_shared(spec: "WorkerSpec", nodes: Sequence[Node], later: Sequence[Node]) -> None:
    """Raise EngineError for a root on a disk, if the cluster has several nodes and nobody says that
    they share it.
    """
    many = len(nodes) + len(later)
    if many > 1 and Store(spec.root).local and not spec.dag.shared_root:
        raise EngineError(
            f"{spec.root} is a local path and the cluster has {len(nodes)} nodes (it may grow to "
            f"{many}): each node would write to its own"
            " disk. Set root to an object store (s3://bucket/prefix), or, if all nodes mount the "
            "same file system there, say so:"
            " `shared_root: true` in the DAG or --shared-root"
        )


def check_fits(spec: "WorkerSpec", nodes: Sequence[Node]) -> None:
    """Raise EngineError for a stage whose worker fits on no node, before anything is computed for
    the stages before it.
    """
    for name, config in spec.dag.stages.items():
        if name != SHARD:
            _check_fits((name,), config.resources, nodes)


def check_nodes(spec: "WorkerSpec", nodes: Sequence[Node], environment: Mapping[str, str]) -> None:
    """Let every node that work may go to look for root, source, weights and code. Raises
    EngineError naming node and file.
    """
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    further = foreign_packages(spec.dag)
    store, token, digest = Store(spec.root), secrets.token_hex(8), code_digest(further)
    probe = f".probe-{token}"
    store.put(probe, token.encode(), durable=False)
    look: Any = ray.remote(num_cpus=0, max_retries=2)(_look)
    asked = []
    for node in nodes:
        names = [
            name
            for name, config in spec.dag.stages.items()
            if name != SHARD and fits(config.resources, node)
        ]
        if names:
            strategy = NodeAffinitySchedulingStrategy(node.id, soft=False)
            asked.append(
                (
                    node,
                    look.options(scheduling_strategy=strategy).remote(
                        spec, names, probe, node.id, digest, further, dict(environment)
                    ),
                )
            )
    problems: list[str] = []
    try:
        for node, answer in asked:
            try:
                problems += [f"node {node.name}: {text}" for text in ray.get(answer)]
            except RayError as error:
                if node.id in {
                    other.id for other in alive_nodes()
                }:  # else it is gone, and nothing will run there
                    cause = getattr(error, "cause", None)
                    said = (
                        f"{type(cause).__name__}: {cause}"
                        if cause
                        else f"cannot start a worker: {str(error).strip().splitlines()[-1]}"
                    )
                    problems.append(f"node {node.name}: {said}")
    finally:
        store.delete([probe, *(f"{probe}-{node.id}" for node in nodes)])
    if problems:
        raise EngineError("\n".join(problems))


def _look(
    spec: "WorkerSpec",
    names: Sequence[str],
    probe: str,
    node: str,
    digest: str,
    further: Sequence[str],
    environment: Mapping[str, str],
) -> list[str]:
    """Runs on a node: what it lacks for the stages `names`."""
    adopt_environment(environment)
    problems = []
    try:
        other = code_digest(further) != digest
    except ImportError as error:
        return [f"its workers cannot import the package of a backend: {error}"]
    if other:
        problems.append(
            f"its workers import other code ({package_folders()[0].parent}) than the driver: "
            "install the same version everywhere, or"
            " leave the packages out of the image and let the run bring them"
        )
    try:
        store = Store(spec.root, patience=20.0)
        read = store.read(probe)
        store.put(f"{probe}-{node}", read, durable=False)
        if not store.local:
            store.delete([f"{probe}-{node}"])
    except FileNotFoundError:
        problems.append(
            f"{spec.root} is not the same place there: what the driver wrote does not exist; "
            "mount the shared file system"
        )
    except Exception as error:  # noqa: BLE001 - whatever a store raises is told with the node's name
        problems.append(f"{spec.root} cannot be reached or written: {error}")
    return problems + spec.lacking(names)
