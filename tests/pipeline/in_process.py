"""Runs without a cluster: every task in the process of the test."""

import io
from pathlib import Path
from typing import Any

from rich.console import Console

from idcluster.root.storage import Store
from pipeline.dag import Dag
from pipeline.execution.engine import MakeEngine
from pipeline.execution.inline import Inline
from pipeline.record import Record
from pipeline.start import start


def inline(store: Store | None = None) -> MakeEngine:
    """Workers that write to `store`, where it is not simply the root of the DAG."""
    return lambda spec: Inline(lambda: spec.build(store))


def run_here(dag: Path | Dag, said: io.StringIO | None = None, **choices: Any) -> Record:
    """A run, and into `said` what it says. `choices` are those of `pipeline.start.start`."""
    choices.setdefault("accept_licence", "once")  # weights of tests are theirs to use
    console = Console(file=said or io.StringIO(), width=300)
    return start(dag, console=console, engine=inline(choices.get("store")), **choices).execute()
