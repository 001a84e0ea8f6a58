"""How long `idcluster run` and `idcluster plan` take when there is nothing to do, as a share of the
first run.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench.material import REPOSITORY, dag_file, photographs

COUNT = 200


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="idcluster-bench-") as place:
        people, what = photographs(Path(place), COUNT)
        dag, models, backends = dag_file()
        options = [
            str(dag),
            "--set",
            f"source.path={people}",
            "--set",
            f"root={place}/root",
            *(["--models", models] if models else []),
        ]
        first, again = (seconds(["run", *options, "--accept-licence"], place) for _ in range(2))
        plan = seconds(["plan", *options], place)
    table = Table(title=f"{what}, {backends}", title_justify="left", box=None)
    for column in ("command", "seconds", "ratio"):
        table.add_column(column, justify="left" if column == "command" else "right")
    table.add_row("run, everything to do", f"{first:.1f}", "1.00")
    table.add_row("run again, nothing to do", f"{again:.1f}", f"{again / first:.2f}")
    table.add_row("plan, nothing to do", f"{plan:.1f}", f"{plan / first:.2f}")
    Console(width=100).print(table)


def seconds(words: list[str], config: str) -> float:
    start = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "XDG_CONFIG_HOME": config}
    subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *words],
        check=True,
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    return time.perf_counter() - start
