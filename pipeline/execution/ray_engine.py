"""Execution on Ray Data: tasks in, receipts out. Beside `cluster` and `starting` the only module
that knows Ray.

A row is a task, a block a few of them, a pool of actors an operator. Neighbouring stages with the
same resources run in one actor; images stay where they are decoded. Ray restarts actors that die
and gives them their tasks again; what a death means is decided in `pipeline.execution.attempts`.
"""

import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import pyarrow as pa

from pipeline.dag import Resources
from pipeline.execution import cluster, start_ray
from pipeline.execution.cluster import Node
from pipeline.execution.engine import EngineError
from pipeline.execution.fetching import Block, Haul
from pipeline.execution.operators import Operator, Pool, available_cores, fuse, operators
from pipeline.execution.ray_actors import FetchActor, MapFunction, TaskActor
from pipeline.execution.shared_gate import GateKeeper
from pipeline.execution.tasks import Task, TaskResult
from pipeline.execution.worker_spec import WorkerSpec

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_OBJECT_STORE = 256 * 2**20  # task descriptions and receipts only
_INIT_DEATHS = 20  # actors lost in a row while they start, before a run on a cluster gives up
_WATCH_SECONDS = 20.0
_BLOCKS_AT_ONCE = 4  # of web addresses, in one worker


class RayEngine:
    """Ray Data, on this machine or on the cluster at `address`. Started by the first call that has
    work.
    """

    def __init__(
        self, spec: WorkerSpec, address: str | None = None, cores: int | None = None
    ) -> None:
        self.spec, self.address = spec, None if address in ("", "local") else address
        self._cores = cores or available_cores()
        self.activity = "starting Ray" if self.address is None else ""
        """What holds up the first receipt, as long as nothing else is known."""
        self.say: Callable[[str], None] = lambda text: None
        """Takes what a user should hear of meanwhile."""
        self.detail: Callable[[str], None] = lambda text: None
        """Takes what a user may want to know."""
        self._environment: dict[str, str] = {}
        self._nodes: list[Node] = []
        self._started = self._ours = False
        self._before: dict[str, str] | None = None
        """The environment as it was."""
        self._gate: Any = None

    def check(self) -> None:
        """Connect to a cluster and refuse one whose nodes cannot do the run; nothing on a machine
        of its own.
        """
        if self.address is not None:
            self._start(0)

    def cores(self) -> int:
        """Cores that workers may use: of the cluster, else of this machine."""
        if self.address is None:
            return self._cores
        self._start(0)
        return max(1, int(sum(node.cpus for node in cluster.alive_nodes())))

    def operators(self, chain: Sequence[str], resources: Mapping[str, Resources]) -> list[Operator]:
        """The operators of a chain with pools that fit what there is. Raises EngineError if they
        cannot.
        """
        if self.address is None:
            return operators(chain, resources, self._cores)
        self._start(0)
        groups, nodes = fuse(chain, resources), cluster.alive_nodes()
        there = {node.id for node in nodes}
        # Nodes that went since the start may be replaced: what fits on them waits for that and is
        # no error.
        gone = [replace(node, id="") for node in self._nodes if node.id not in there]
        pools = cluster.share(groups, nodes, [*cluster.later_nodes(nodes), *gone])
        return [
            Operator(names, asked, pool.now, pool)
            for (names, asked), pool in zip(groups, pools, strict=True)
        ]

    def _start(self, workers: int) -> None:
        if self._started:
            return
        import ray
        from ray.data import DataContext

        self._before = dict(os.environ)
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Ray's own processes otherwise print remarks of theirs between our lines;
        # RAY_BACKEND_LOG_LEVEL=info brings them back.
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        variables = {
            **dict.fromkeys(THREAD_VARIABLES, "1"),
            "ORT_DISABLE_TELEMETRY": "1",
            "PYTHONHASHSEED": "0",
        }
        if not ray.is_initialized():
            options: dict[str, Any] = {"logging_level": logging.WARNING, "log_to_driver": False}
            if self.address:
                self.activity = f"connecting to the Ray cluster at {self.address}"
                cluster.check_address(self.address)
                with _Quiet():
                    start_ray.connect(
                        self.address,
                        {
                            **options,
                            "runtime_env": cluster.runtime_env(
                                variables, os.environ, cluster.foreign_packages(self.spec.dag)
                            ),
                        },
                    )
            else:
                self.activity = "starting Ray"
                # Processes of a local Ray inherit the environment: cheaper than a runtime
                # environment.
                os.environ.update(variables)
                # Two more logical cores than actors take: pools that hold every core leave Ray's
                # own tasks waiting for ever.
                logical = max(self._cores, workers) + 2
                options |= {
                    "num_cpus": logical,
                    "include_dashboard": False,
                    "object_store_memory": _OBJECT_STORE,
                }
                with _Quiet():
                    logs = start_ray.start_local(
                        options,
                        lambda text: self.say(text),
                        cluster.foreign_packages(self.spec.dag),
                    )
                self.detail(f"Ray's logs: {logs}")
            self._ours = True
        self.activity = "starting workers"
        context = DataContext.get_current()
        context.enable_progress_bars = False
        context.enable_operator_progress_bars = False
        context.max_errored_blocks = 0
        context.execution_no_progress_timeout_s = -1  # a large model takes its time to load
        for name in ("ray.data", "ray._private"):
            logging.getLogger(name).setLevel(logging.ERROR)
        for handler in logging.getLogger("ray.data").handlers:
            if isinstance(handler, logging.StreamHandler):
                handler.setLevel(
                    logging.CRITICAL + 1
                )  # what goes wrong is told in one line; all of it is in Ray's logs
        if self.address is not None:
            # Ray Data would spread actors over all nodes; so those without a GPU keep off the nodes
            # with GPUs while they can.
            if hasattr(context, "scheduling_strategy"):
                with warnings.catch_warnings(
                    action="ignore"
                ):  # announced to go, without anything in its place
                    context.scheduling_strategy = "DEFAULT"
            context.max_consecutive_actor_init_deaths = (
                _INIT_DEATHS  # nodes may go while their actors start
            )
            self._environment = cluster.worker_environment(os.environ)
            nodes = self._nodes = cluster.alive_nodes()
            later = cluster.later_nodes(nodes)
            cluster.check_shared(self.spec, nodes, later)
            cluster.check_fits(self.spec, [*nodes, *later])
            cluster.check_nodes(self.spec, nodes, self._environment)
        self._started = True

    def run(self, tasks: Sequence[Task], chain: Sequence[Operator]) -> Iterator[TaskResult]:
        """Receipts in the order in which tasks finish. Raises EngineError."""
        import ray.data

        workers = [min(operator.workers, len(tasks)) for operator in chain]
        self._start(sum(workers))
        rows = [{"task": task.encode(), "fresh": "[]", "receipt": ""} for task in tasks]
        data: Any = ray.data.from_arrow(_blocks(rows, max(workers)))
        for operator, size in zip(chain, workers, strict=True):
            pool = operator.pool or Pool(size, size, size)
            most = max(size, min(pool.most, len(tasks)))
            data = data.map_batches(
                TaskActor,
                fn_constructor_args=(
                    self.spec,
                    operator.stages,
                    self._environment,
                    self.address is not None,
                    operator.resources.memory_mb,
                ),
                batch_size=1
                if operator.resources.gpus
                else None,  # where GPUs are asked for, Ray insists on a number
                batch_format="pyarrow",
                compute=ray.data.ActorPoolStrategy(
                    min_size=min(pool.least, size),
                    max_size=most,
                    initial_size=size,
                    max_tasks_in_flight_per_actor=2,
                ),
                num_cpus=operator.resources.cpus,
                num_gpus=operator.resources.gpus or None,
                memory=None if self.address is None else operator.resources.memory_mb * 2**20,
            )
        with self._watching(chain):
            for row in self._iterate(data):
                yield TaskResult.decode(row["receipt"])

    @contextmanager
    def _watching(self, chain: Sequence[Operator]) -> Iterator[None]:
        """On a cluster: say so when nodes have gone and an operator has none left that it fits on;
        it waits for one.
        """
        done = threading.Event()

        def watch() -> None:
            told: set[Operator] = set()
            while not done.wait(_WATCH_SECONDS):
                with suppress(Exception):  # no answer for a moment is no news
                    told = _tell_homeless(chain, cluster.alive_nodes(), told)

        thread = threading.Thread(target=watch, daemon=True)
        if self.address is not None:
            thread.start()
        try:
            yield
        finally:
            done.set()
            if self.address is not None:
                thread.join()

    def map(
        self, function: Callable[[str], str], items: Sequence[str], workers: int
    ) -> Iterator[str]:
        """`function` of every item, in no order, in parallel."""
        import ray.data

        self._start(workers)
        rows = [{"item": item} for item in items]
        data = ray.data.from_arrow(_blocks(rows, len(rows))).map(
            MapFunction(function, self._environment), num_cpus=1
        )
        for row in self._iterate(data):
            yield row["item"]

    def fetch(self, spec: WorkerSpec, blocks: Sequence[Block]) -> Iterator[Haul]:
        """Hauls in the order in which blocks end. All workers ask one gate, so that limits by host
        hold for them together.
        """
        import ray
        import ray.data

        workers = max(1, min(self.cores(), -(-len(blocks) // _BLOCKS_AT_ONCE)))
        self._start(workers)
        if self._gate is None:
            # One gate for all rounds of a run: it remembers what hosts said. On the driver's node:
            # it dies with the run.
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

            here = NodeAffinitySchedulingStrategy(
                ray.get_runtime_context().get_node_id(), soft=True
            )
            kind: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(GateKeeper)
            self._gate = kind.options(scheduling_strategy=here).remote(spec.dag.fetch.politeness)
        data = ray.data.from_arrow(
            [pa.Table.from_pylist([{"block": block.encode()}]) for block in blocks]
        ).map_batches(
            FetchActor,
            fn_constructor_args=(spec, self._environment, self._gate),
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(
                size=workers,
                max_tasks_in_flight_per_actor=_BLOCKS_AT_ONCE + 2,
                max_concurrent_calls_per_actor=_BLOCKS_AT_ONCE,
                enable_true_multi_threading=True,
            ),
            num_cpus=1,
        )
        for row in self._iterate(data):
            if row["denied"] is not None:
                raise EngineError(row["denied"])
            yield Haul.decode(row["haul"])

    def _iterate(self, data: Any) -> Iterator[dict[str, Any]]:
        from ray.exceptions import RayError

        try:
            for batch in data.iter_batches(
                batch_size=None, batch_format="pyarrow", prefetch_batches=0
            ):
                yield from batch.to_pylist()
        except RayError as error:
            raise EngineError(_cause(error)) from error

    def close(self) -> None:
        """Stop the Ray that this engine started; one that was there before stays."""
        if self._ours:
            import ray

            with suppress(Exception), _Quiet():
                ray.shutdown()
        self._gate = None
        self._started = self._ours = False
        if self._before is not None:
            # Whoever runs us in a process of theirs gets it back as it was.
            for name in set(os.environ) - set(self._before):
                del os.environ[name]
            os.environ.update(self._before)
            self._before = None


def _tell_homeless(
    chain: Sequence[Operator], nodes: Sequence[Node], told: set[Operator]
) -> set[Operator]:
    """Operators that fit on no node that is there; those not in `told` are told."""
    homeless = {
        operator
        for operator in chain
        if not any(cluster.fits(operator.resources, node) for node in nodes)
    }
    for operator in homeless - told:
        logging.getLogger("idcluster").warning(
            "%s waits: the nodes that it fits on are gone; it goes on when one is there again",
            " + ".join(operator.stages),
        )
    return homeless


def _blocks(rows: Sequence[dict[str, str]], workers: int) -> list[pa.Table]:
    """Few tasks a block: receipts come when a block is done, and the last blocks decide how evenly
    the work ends.
    """
    size = max(1, min(8, len(rows) // (workers * 32)))
    return [
        pa.Table.from_pylist(list(rows[start : start + size]))
        for start in range(0, len(rows), size)
    ]


def _cause(error: BaseException) -> str:
    """The innermost error that a worker raised and that says something, in one line."""
    told, cause = error, getattr(error, "cause", None) or error.__cause__
    while cause is not None:
        # Ray Data hangs an empty exception of its own below whatever is not the fault of a stage.
        told = cause if str(cause).strip() else told
        cause = getattr(cause, "cause", None) or cause.__cause__
    said = (
        str(told).split("\nFailed to apply UDF transform")[0].strip()
    )  # Ray adds advice that is of no use here
    if type(told) is EngineError:
        return said
    if told is error:  # nothing but Ray's own account
        where = start_ray.logs()
        return f"a worker of Ray ended: {_shortened(said) or type(told).__name__}" + (
            f"; Ray's logs: {where}" if where else ""
        )
    return f"{type(told).__name__}: {said}"


def _shortened(said: str) -> str:
    """What Ray says of an actor or task that ended, in one line: the error itself where a traceback
    is told.
    """
    lines = [line for line in said.splitlines() if line.strip() and not line.startswith("\t")]
    if any(line.startswith(("Traceback", "  File ", "ray::")) or "ray::" in line for line in lines):
        lines = lines[-1:]
    return " ".join(line.strip() for line in lines)[:500]


class _Quiet:
    """Keep the lines off standard error that Ray prints while it starts and stops; what goes wrong
    is raised, not printed.
    """

    def __enter__(self) -> None:
        self.level = logging.root.manager.disable
        logging.disable(logging.WARNING)
        sys.stderr.flush()
        # Ray's compiled part writes past sys.stderr, straight to the descriptor.
        self.kept = os.dup(2)
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)

    def __exit__(self, *_: object) -> None:
        os.dup2(self.kept, 2)
        os.close(self.kept)
        logging.disable(self.level)
