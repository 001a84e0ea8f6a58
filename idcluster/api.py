"""The functions of the Python API that run something. They import `pipeline` when they are called,
and not before.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from idcluster import own_packages

if TYPE_CHECKING:
    from rich.console import Console

    from idcluster.dataset import Dataset
    from pipeline.dag import Dag
    from pipeline.plan import Plan
    from pipeline.record import Record


def run(
    dag: "str | Path | Dag",
    *,
    sets: Sequence[str] = (),
    only: Sequence[str] = (),
    limit: int | None = None,
    where: str | None = None,
    retry: str | None = None,
    models: str | None = None,
    address: str | None = None,
    accept_licence: bool | Literal["once"] = False,
    quiet: bool = False,
    console: "Console | None" = None,
) -> "Record":
    """Do what a DAG says and is not done yet, as `idcluster run` does; a second call does only what
    changed.

    `dag`: a DAG file. `sets`: fields to change (`["root=out/",
    "stages.clean.params.near_tie=0.8"]`). `only`: stages. `limit`: images a phase, to try a DAG
    out. `where`: SQL over candidates and identities. `retry`: SQL over rows that are not ok.
    `models`: the folder of weight files. `address`: a Ray cluster. `accept_licence`: your use is
    allowed of weights that are not for any use; `"once"` writes that down nowhere but in the
    record. Progress goes to `console`, by default the terminal or notebook; `quiet` says warnings
    alone.

    The record says what ran, how fast and what failed; its `status` is `done`, or `drained` after
    Ctrl-C. Raises `idcluster.UserError` for what you can mend.
    """
    own_packages.take()
    from pipeline.progress import summarise
    from pipeline.start import start
    from pipeline.telling import Teller

    said = console or Teller(-1 if quiet else 0, highlight=False, soft_wrap=True, markup=False)
    chosen: dict[str, Any] = {
        "sets": sets,
        "only": only,
        "limit": limit,
        "where": where,
        "retry": retry,
    }
    made = start(
        dag, models=models, address=address, accept_licence=accept_licence, console=said, **chosen
    )
    record = made.execute()
    if not quiet:
        summarise(said, vars(record))
    return record


def plan(
    dag: "str | Path | Dag",
    *,
    sets: Sequence[str] = (),
    only: Sequence[str] = (),
    limit: int | None = None,
    where: str | None = None,
    retry: str | None = None,
    models: str | None = None,
) -> "Plan":
    """What `run` would do with the same arguments, why, and about how long it would take. Writes
    nothing, starts no Ray.
    """
    own_packages.take()
    from pipeline.start import plan as make

    return make(dag, sets=sets, only=only, limit=limit, where=where, retry=retry, models=models)


def open(
    root: str | Path, snapshot: int | None = None, verify: Literal["crc", "digest", "none"] = "crc"
) -> "Dataset":
    """A dataset to read: `idcluster.open("out/").sql("SELECT count(*) FROM images")`.

    `snapshot`: an older state, by its number. `verify`: how what is read is compared with what was
    written.
    """
    own_packages.take()
    from idcluster.dataset import Dataset

    return Dataset(root, snapshot, verify)
