"""A run of the toy DAG on Ray as a program of its own, to be killed: python -m
tests.pipeline.toy_run FOLDER SOURCE ROOT.
"""

import sys
from pathlib import Path

from rich.console import Console

from pipeline.execution.ray_engine import RayEngine
from pipeline.progress import summarise
from pipeline.start import start
from tests.pipeline.toy import toy_dag, toy_spec


def main(folder: str, source: str, root: str, *sets: str) -> int:
    console = Console(width=200)
    dag = toy_dag(Path(folder), Path(source), root, sets)
    record = start(dag, console=console, engine=lambda spec: RayEngine(toy_spec(spec))).execute()
    summarise(console, vars(record))
    return 0 if record.status == "done" else 130


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
