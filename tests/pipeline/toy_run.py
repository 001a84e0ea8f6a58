"""A run of the toy DAG on Ray as a program of its own, to be killed: python -m
tests.pipeline.toy_run FOLDER SOURCE ROOT.
"""

import sys
from pathlib import Path

from rich.console import Console

from idcluster.root.dataset_root import open_root
from pipeline.execution.ray_engine import RayEngine
from pipeline.prepared_dag import Selection, prepare
from pipeline.progress import summarise
from pipeline.run import Run
from tests.pipeline.toy import toy_dag, toy_spec


def main(folder: str, source: str, root: str, *sets: str) -> int:
    prepared = prepare(toy_dag(Path(folder), Path(source), root, sets), None)
    store = open_root(root, "toy", create=True)
    console = Console(width=200)
    record = Run(
        prepared, Selection(), store, console, lambda spec: RayEngine(toy_spec(spec))
    ).execute()
    summarise(console, vars(record))
    return 0 if record.status == "done" else 130


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
