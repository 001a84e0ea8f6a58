"""The toy DAG on a cluster: as a program of its own that joins one, and with weights that a node
may lack.

python -m tests.pipeline.cluster_toy ADDRESS FOLDER SOURCE ROOT MODELS SETS... (MODELS may be empty)
"""

import hashlib
import os
import sys
from pathlib import Path
from typing import ClassVar

from rich.console import Console

from pipeline.execution.engine import EngineError
from pipeline.execution.ray_engine import RayEngine
from pipeline.execution.worker import Worker
from pipeline.start import start
from stages.backends import BACKENDS
from stages.stage import WeightFiles
from stages.weights import WEIGHTS, Weights
from tests.pipeline.toy import ToyEmbed, ToySpec, register, toy_dag

NET = b"weights of a toy" * 1000
NODE_CACHE = "TOY_NODE_CACHE"
"""Where a logical node keeps its weights; all nodes of a test lie on one disk."""


class WeighedEmbed(ToyEmbed):
    """The toy embedding, with a file of weights that it opens but does not use."""

    backend: ClassVar[str] = "weighed"

    @property
    def weights(self) -> tuple[str, ...]:
        return ("toy_net",)

    def setup(self, files: WeightFiles) -> None:
        if Path(files.path("toy_net")).read_bytes() != NET:
            raise ValueError("these are not the weights")


def register_weighed() -> None:
    register()
    BACKENDS["embed"]["weighed"] = "tests.pipeline.cluster_toy:WeighedEmbed"
    sha256 = hashlib.sha256(NET).hexdigest()
    WEIGHTS["toy_net"] = Weights(
        "toy_net", "embed/toy.net", sha256, len(NET), "CC0-1.0", "any", "nowhere"
    )


class ClusterSpec(ToySpec):
    """A spec whose workers know the weighed toys too, and whose nodes have caches of their own."""

    def _on_this_node(self) -> None:
        register_weighed()
        if NODE_CACHE in os.environ:
            os.environ["XDG_CACHE_HOME"] = os.environ[NODE_CACHE]

    def lacking(self, names: object) -> list[str]:
        self._on_this_node()
        return super().lacking(names)  # type: ignore[arg-type]

    def build(self, *arguments: object, **named: object) -> Worker:
        self._on_this_node()
        return super().build(*arguments, **named)


def main(address: str, folder: str, source: str, root: str, models: str, *sets: str) -> int:
    register_weighed()
    run = start(
        toy_dag(Path(folder), Path(source), root, sets),
        models=models or None,
        console=Console(),
        engine=lambda spec: RayEngine(ClusterSpec(**vars(spec)), address),
    )
    try:
        record = run.execute()
    except EngineError as error:
        print(f"idcluster: {error}", flush=True)
        return 1
    for phase in record.phases:
        print("phase", *phase["stages"], phase["workers"], "workers", flush=True)
    return 0 if record.status == "done" else 130


if __name__ == "__main__":
    # By its name, so that workers import the classes from here instead of getting copies of them.
    from tests.pipeline.cluster_toy import main

    sys.exit(main(*sys.argv[1:]))
