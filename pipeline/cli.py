"""The command line, `idcluster`."""

import io
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from pipeline.commands.check import check_app
from pipeline.commands.eval import eval_app
from pipeline.commands.explained import explained as _explained
from pipeline.commands.forget import forget_app
from pipeline.commands.history import history_app
from pipeline.commands.look import look_app
from pipeline.commands.models import models_app
from pipeline.commands.options import (
    AsJson,
    DagPath,
    Limit,
    LogFile,
    Models,
    Only,
    Quiet,
    Retry,
    Sets,
    Verbose,
    Where,
    print_json,
    with_help,
)
from pipeline.commands.options import console as _console
from pipeline.commands.people import people_app
from pipeline.commands.report import report_app
from pipeline.commands.review import review_app
from pipeline.commands.shards import shards_app
from pipeline.commands.start_here import start_app
from pipeline.telling import without_remarks_of_pillow

app = typer.Typer(
    name="idcluster",
    help="Build identity-cluster face datasets: from photographs of people to clean, captioned, "
    "measured and sharded data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(models_app, name="models")
app.add_typer(eval_app, name="eval")
app.add_typer(shards_app, name="shards")
app.add_typer(start_app)
app.add_typer(look_app)
app.add_typer(history_app)
app.add_typer(check_app)
app.add_typer(review_app)
app.add_typer(people_app)
app.add_typer(report_app)
app.add_typer(forget_app)


def _print_version(asked: bool) -> None:
    if asked:
        import idcluster

        print(f"idcluster {idcluster.__version__}")
        raise typer.Exit


@app.callback()
def _every_command(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="print the version and exit"
        ),
    ] = False,
) -> None:
    pass


def _names(said: str | None) -> list[str]:
    """Of `a, b`."""
    return [name.strip() for name in (said or "").split(",") if name.strip()]


@app.command()
def run(
    dag: DagPath,
    sets: Sets = None,
    only: Only = None,
    limit: Limit = None,
    where: Where = None,
    retry: Retry = None,
    models: Models = None,
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            envvar="RAY_ADDRESS",
            help="a running Ray cluster, `auto` on its nodes (default: this machine's own)",
        ),
    ] = None,
    shared_root: Annotated[
        bool,
        typer.Option(
            "--shared-root",
            help="the root, a path, is the same file system on all nodes of the cluster",
        ),
    ] = False,
    accept_licence: Annotated[
        bool,
        typer.Option(
            "--accept-licence",
            help="say once that your use of weights is allowed which are not for any use",
        ),
    ] = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
    log_file: LogFile = None,
) -> None:
    """Do what a DAG says and is not done yet.

    A second run does only what changed: new images, another threshold, another prompt. Ctrl-C
    finishes what is at work and publishes it; whatever interrupts a run, the next one goes on from
    there.
    """
    with _explained() as watch:
        console = watch.console(verbose, quiet, log_file)
        from pipeline.progress import summarise
        from pipeline.start import start

        made = start(
            dag,
            sets=[*(sets or ()), *["shared_root=true"] * shared_root],
            only=_names(only),
            limit=limit,
            where=where,
            retry=retry,
            models=models,
            address=address,
            accept_licence=accept_licence,
            console=console,
        )
        record = made.execute()
        summarise(console, vars(record))
        if record.status == "drained":
            raise typer.Exit(130)


@app.command()
def plan(
    dag: DagPath,
    sets: Sets = None,
    only: Only = None,
    limit: Limit = None,
    where: Where = None,
    retry: Retry = None,
    models: Models = None,
    as_json: AsJson = False,
) -> None:
    """Say what a run would do, why, and about how long it would take. Does nothing."""
    with _explained():
        from pipeline.plan import as_json as plan_json
        from pipeline.plan import rows
        from pipeline.start import plan as make_plan
        from schemas.wording import counted

        made = make_plan(
            dag,
            sets=sets or (),
            only=_names(only),
            limit=limit,
            where=where,
            retry=retry,
            models=models,
        )
        asked = made.licences
        console = _console()
        if as_json:
            licences = [{"weights": term.weights, "use": term.use} for term in asked]
            print_json({**plan_json(made), "limit": limit, "licences_to_accept": licences})
            return
        if asked:
            names = ", ".join(f"{term.weights} ({term.use})" for term in asked)
            console.print(f"note: a run will ask for --accept-licence: {names}", style="yellow")
        for remark in made.remarks:
            console.print(f"note: {remark}", style="yellow")
        if made.intake is not None:
            listed = made.intake
            for remark in listed.remarks:
                console.print(f"note: {remark}", style="yellow")
            there = f"{counted(listed.people, 'person')}, {counted(listed.offered, 'image')}"
            console.print(
                f"source: {there}: {listed.new} new, {listed.changed} changed, {listed.gone} gone"
            )
        if made.nothing:
            console.print("nothing to do")
            return
        table = Table(box=None, pad_edge=False)
        for column in ("stage", "there", "to do", "tasks", "why", "estimate"):
            table.add_column(
                column, justify="right" if column in ("there", "tasks", "estimate") else "left"
            )
        for cells in rows(made):
            table.add_row(*cells)
        console.print(table)
        if made.again:
            console.print(
                "rows that are there are shown again or in another way, without being computed"
            )
        console.print(f"shards: {made.shards}")
        if limit is not None:
            console.print(f"of this, at most {counted(limit, 'image')} a phase (--limit)")


@app.command()
def demo(
    folder: Annotated[
        Path, typer.Argument(help="where the sample people and the dataset go")
    ] = Path("demo"),
    seed: Annotated[
        int, typer.Option("--seed", help="another seed composes other photographs")
    ] = 0,
    verbose: Verbose = False,
    quiet: Quiet = False,
    log_file: LogFile = None,
) -> None:
    """Run the quickstart DAG on sample people that installed packages bring along; needs no weights
    and no network.
    """
    with _explained() as watch:
        console = watch.console(verbose, quiet, log_file)
        from pipeline.demo import run_demo

        if not run_demo(folder, seed, console):
            raise typer.Exit(1)


def main() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name that the terminal has no letters for is shown with escapes, not as an error.
            stream.reconfigure(errors="backslashreplace")
    without_remarks_of_pillow()
    with_help(app)()


if __name__ == "__main__":
    main()
