"""Detect and embed photographs on clusters of 1, 2 and 3 Ray nodes, all on this machine, against a
plain loop.

Each node is a raylet of its own with its own processes, object store and id, so what a cluster
costs is there: packages that travel, checks of the nodes, actors that are placed, receipts that
come from elsewhere. What is not there is a network. The cores of the machine are divided among the
nodes; with more nodes than cores there are more workers than cores, which the table says. The head
of each cluster does no work.
"""

import contextlib
import logging
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline.execution.operators import Operator, available_cores
from pipeline.execution.ray_engine import THREAD_VARIABLES, RayEngine
from pipeline.execution.tasks import Task, TaskResult
from pipeline.start import start
from tests.bench.executor import CHOSEN, plain
from tests.bench.material import REPOSITORY, dag_file, photographs

COUNT = 1000
_STORE = 100 * 2**20  # bytes of a node's object store


@dataclass
class Measured:
    """A run on a cluster: seconds until the nodes were there, until the first receipt came, and the
    record's phase.
    """

    nodes: float
    first: float
    phase: dict[str, Any]

    @property
    def steady(self) -> float:
        """Seconds after the first worker has begun."""
        return float(self.phase["wall_seconds"] - self.phase["startup_seconds"])

    def share(self, *names: str) -> float:
        """Share of the workers' time that went into some activities."""
        return float(
            sum(self.phase["worker_seconds"].get(name, 0.0) for name in names)
            / (self.steady * self.phase["workers"])
        )


def main(count: int = COUNT) -> None:
    for name in THREAD_VARIABLES:
        os.environ[name] = "1"
    cores = available_cores()
    with tempfile.TemporaryDirectory(prefix="idcluster-bench-") as place:
        people, what = photographs(Path(place), count)
        dag, models, backends = dag_file()
        files = sorted(str(path) for path in people.glob("*/*"))[::4]
        with multiprocessing.get_context("spawn").Pool(1) as alone:
            one = alone.apply(plain, (str(dag), models, files)) / len(files)
        with multiprocessing.get_context("spawn").Pool(cores) as pool:
            each = pool.starmap(plain, [(str(dag), models, files)] * cores)
        together = cores / (sum(each) / cores / len(files))
        found = {}
        for nodes in (1, 2, 3):
            cpus = max(1, cores // nodes)
            name = (
                f"{nodes} {'node' if nodes == 1 else 'nodes'} x {cpus} "
                f"{'CPU' if cpus == 1 else 'CPUs'}"
            )
            found[name] = measure(dag, models, people, f"{place}/root-{nodes}", [cpus] * nodes)
            if nodes == 2:
                with _s3(Path(place)) as root:
                    if root:
                        found[f"{name}, root in S3 on this machine"] = measure(
                            dag, models, people, root, [cpus] * nodes
                        )
    _show(f"{what}, {backends}, {cores} cores", count, cores, one, together, found)


def _show(
    title: str, count: int, cores: int, one: float, together: float, found: dict[str, Measured]
) -> None:
    ideal = cores / one
    table = Table(title=title, title_justify="left", box=None)
    right = ("workers", "pictures/s", "of ideal", "of loops", "nodes up", "start-up", "first slice")
    for column in (
        "what",
        *right,
        *(shares := ("read", "decode", *CHOSEN, "setup", "write", "idle, Ray")),
    ):
        table.add_column(column, justify="left" if column == "what" else "right")
    empty = [""] * (len(shares) + 3)
    table.add_row("plain loop, one process", "1", f"{1 / one:.1f}", "", "", *empty)
    table.add_row(f"ideal: that times {cores}", str(cores), f"{ideal:.1f}", "1.00", "", *empty)
    table.add_row(
        f"plain loops in {cores} processes",
        str(cores),
        f"{together:.1f}",
        f"{together / ideal:.2f}",
        "1.00",
        *empty,
    )
    for name, run in found.items():
        rate, workers = count / run.steady, run.phase["workers"]
        told = [f"{run.share(share):.1%}" for share in shares[:-1]]
        idle = 1 - run.share(*run.phase["worker_seconds"])
        seconds = [
            f"{value:.1f} s" for value in (run.nodes, run.phase["startup_seconds"], run.first)
        ]
        figures = (
            str(workers),
            f"{rate:.1f}",
            f"{rate / ideal:.2f}",
            f"{rate / together:.2f}",
            *seconds,
            *told,
            f"{idle:.1%}",
        )
        table.add_row(f"{name}{' (more workers than cores)' if workers > cores else ''}", *figures)
    console = Console(width=200)
    console.print(table)
    console.print(
        "pictures/s: after start-up. Start-up and first slice: from the start of the phase until "
        "the first worker begins, and until the"
        " first slices are back. Shares are of the workers' time after start-up; with more "
        "workers than cores each waits for its turn"
        " within its stages."
    )


def measure(
    dag: Path, models: str | None, people: Path, root: str, cpus: Sequence[int]
) -> Measured:
    """A run of the three stages on a cluster with a node for each number of CPUs."""
    from ray.cluster_utils import Cluster

    logging.getLogger("ray").setLevel(logging.WARNING)
    before = dict(os.environ)
    os.environ.update({"RAY_BACKEND_LOG_LEVEL": "fatal", "PYTHONPATH": str(REPOSITORY)})
    began = time.monotonic()
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    try:
        for number in cpus:
            cluster.add_node(num_cpus=number, object_store_memory=_STORE)
        cluster.wait_for_nodes()
        up = time.monotonic() - began
        sets = [f"source.path={people}", f"root={root}", "shared_root=true"]
        engine: list[_Timed] = []

        def timed(spec: Any) -> _Timed:
            engine.append(_Timed(spec, cluster.address))
            return engine[0]

        made = start(
            dag, sets=sets, only=CHOSEN, models=models, accept_licence="once", engine=timed
        )
        record = vars(made.execute())
        [phase] = record["phases"]
        return Measured(up, engine[0].first - engine[0].began, phase)
    finally:
        cluster.shutdown()
        os.environ.clear()
        os.environ.update(before)


class _Timed(RayEngine):
    """Remembers when it was asked for operators, which is when a phase begins, and when the first
    receipt came.
    """

    began = first = 0.0

    def operators(self, *arguments: Any) -> list[Operator]:
        self.began = self.began or time.monotonic()
        return super().operators(*arguments)

    def run(self, tasks: Sequence[Task], chain: Sequence[Operator]) -> Iterator[TaskResult]:
        for receipt in super().run(tasks, chain):
            self.first = self.first or time.monotonic()
            yield receipt


@contextlib.contextmanager
def _s3(folder: Path) -> Iterator[str | None]:
    """A root on an S3 server in a process of its own; None where there is none to start."""
    try:
        import boto3
        import moto  # noqa: F401
        import s3fs  # noqa: F401
    except ImportError:
        yield None
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    before = dict(os.environ)
    keys = {
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    os.environ.update({**keys, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"})
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder
    )
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        boto3.client("s3").create_bucket(Bucket="bench")
        yield "s3://bench/root"
    finally:
        server.terminate()
        server.wait()
        os.environ.clear()
        os.environ.update(before)
