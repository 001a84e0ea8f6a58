"""From a DAG to a run or a plan of it: the one way, for the command line, the Python API,
benchmarks and tests.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from rich.console import Console

from idcluster.root.storage import Store
from pipeline.dag import Dag, load_dag
from pipeline.execution.engine import Engine, MakeEngine
from pipeline.execution.worker_spec import WorkerSpec, check_sources
from pipeline.plan import Plan, check_sql, make_plan
from pipeline.prepared_dag import PreparedDag, Selection, prepare
from pipeline.progress import Working
from pipeline.run import Run
from pipeline.weights.licences import Term, acceptance, as_records, lacking, settle, terms


def start(
    dag: str | Path | Dag,
    *,
    sets: Sequence[str] = (),
    only: Sequence[str] = (),
    limit: int | None = None,
    where: str | None = None,
    retry: str | None = None,
    models: str | None = None,
    address: str | None = None,
    accept_licence: bool | Literal["once"] = False,
    console: Console | None = None,
    engine: MakeEngine | None = None,
    store: Store | None = None,
) -> Run:
    """A run that is ready to be executed: its DAG read, its weights found, its selection checked.

    `dag`: a DAG file, or one that was read. `sets`: fields to change, as `--set` takes them.
    `only`, `limit`, `where` and `retry` choose what to do of it, as the options of `idcluster run`
    do. `address`: a Ray cluster. `accept_licence`: say that the use of weights is allowed which are
    not for any use, and have it written down, or for this run alone (`once`). `engine`: what
    executes it, where that is not Ray; `store`: the root, where that is not simply the DAG's.

    Raises DagError, MissingWeights, NotAccepted and whatever else a user can mend
    (`schemas.errors.UserError`), before anything is written.
    """
    console = console or Console(quiet=True)
    with Working(console, "reading the DAG and looking at its weights"):
        prepared = _prepared(dag, sets, models)
    selection = Selection(tuple(only), limit, where, retry)
    check_sql(prepared, selection)
    if "crawl" in prepared.chosen(selection):
        check_sources(prepared.dag)
    wanted, place = _terms(prepared, selection), models or prepared.dag.models
    if accept_licence == "once":
        given = [acceptance(term) for term in wanted]
    else:
        given = settle(wanted, place, accept_licence, console.print)
    prepared.licences = as_records(given)
    return Run(prepared, selection, engine or _on_ray(address), console, store)


def plan(
    dag: str | Path | Dag,
    *,
    sets: Sequence[str] = (),
    only: Sequence[str] = (),
    limit: int | None = None,
    where: str | None = None,
    retry: str | None = None,
    models: str | None = None,
) -> Plan:
    """What a run would do; the arguments are those of `start`. Nothing is written, and Ray is not
    started.
    """
    prepared = _prepared(dag, sets, models)
    selection = Selection(tuple(only), limit, where, retry)
    made = make_plan(prepared, selection, Store(prepared.dag.root))
    asked = lacking(_terms(prepared, selection), models or prepared.dag.models)
    return replace(made, licences=tuple(asked))


def _prepared(dag: str | Path | Dag, sets: Sequence[str], models: str | None) -> PreparedDag:
    read = dag if isinstance(dag, Dag) else load_dag(Path(dag), sets, models)
    return prepare(read, models)


def _terms(prepared: PreparedDag, selection: Selection) -> list[Term]:
    """The terms of the weights that the chosen stages load."""
    chosen = prepared.chosen(selection)
    return terms((stage for stage in prepared.stages if stage.name in chosen), prepared.local)


def _on_ray(address: str | None) -> MakeEngine:
    def make(spec: WorkerSpec) -> Engine:
        from pipeline.execution import ray_engine

        return ray_engine.RayEngine(spec, address)

    return make
