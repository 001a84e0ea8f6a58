"""The command line, `idcluster`."""

import io
import json
import sys
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.table import Table
from rich.text import Text

from pipeline.commands.check import check_app
from pipeline.commands.eval import eval_app
from pipeline.commands.explained import explained as _explained
from pipeline.commands.forget import forget_app
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
    Root,
    Sets,
    SnapshotNumber,
    Verbose,
    Verified,
    Where,
    print_json,
    verifying,
)
from pipeline.commands.options import console as _console
from pipeline.commands.people import people_app
from pipeline.commands.report import report_app
from pipeline.commands.shards import shards_app
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
app.add_typer(check_app)
app.add_typer(people_app)
app.add_typer(report_app)
app.add_typer(forget_app)

PEOPLE_SHOWN = 10


def _selection(only: str | None, limit: int | None, where: str | None, retry: str | None) -> Any:
    from pipeline.prepared_dag import Selection

    return Selection(
        tuple(name.strip() for name in (only or "").split(",") if name.strip()), limit, where, retry
    )


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

    A second run does only what changed: new pictures, another threshold, another prompt. Ctrl-C
    finishes what is at work and publishes it; whatever interrupts a run, the next one goes on from
    there.
    """
    with _explained() as watch:
        console = watch.console(verbose, quiet, log_file)
        from idcluster.root.dataset_root import open_root
        from idcluster.root.lease import is_writable
        from idcluster.root.storage import Store
        from pipeline.dag import load_dag
        from pipeline.execution.engine import RayEngine
        from pipeline.execution.worker_spec import check_sources
        from pipeline.plan import check_sql
        from pipeline.prepared_dag import prepare
        from pipeline.progress import Working, summarise
        from pipeline.run import Run
        from pipeline.weights.licences import as_records, settle, terms

        with Working(console, "reading the DAG and looking at its weights"):
            prepared = prepare(
                load_dag(dag, [*(sets or ()), *["shared_root=true"] * shared_root], models), models
            )
        selection = _selection(only, limit, where, retry)
        check_sql(prepared, selection)
        if "crawl" in prepared.chosen(selection):
            check_sources(prepared.dag)
        chosen = prepared.chosen(selection)
        wanted = terms((stage for stage in prepared.stages if stage.name in chosen), prepared.local)
        prepared.licences = as_records(
            settle(wanted, models or prepared.dag.models, accept_licence, console.print)
        )
        started = Run(
            prepared,
            selection,
            Store(prepared.dag.root),
            console,
            lambda spec: RayEngine(spec, address),
        )
        with Working(console, "looking at the Ray cluster"):
            started.engine.check()  # a cluster that cannot do it is refused before there is a root
        started.store = open_root(prepared.dag.root, prepared.dag.name, create=True)
        is_writable(started.store)
        record = started.execute()
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
        from idcluster.root.storage import Store
        from pipeline.dag import load_dag
        from pipeline.plan import as_json as plan_json
        from pipeline.plan import make_plan, rows
        from pipeline.prepared_dag import prepare
        from pipeline.weights.licences import lacking, terms
        from schemas.wording import counted

        prepared = prepare(load_dag(dag, sets or (), models), models)
        selection = _selection(only, limit, where, retry)
        made = make_plan(prepared, selection, Store(prepared.dag.root))
        console = _console()
        chosen = prepared.chosen(selection)
        asked = lacking(
            terms((stage for stage in prepared.stages if stage.name in chosen), prepared.local),
            models or prepared.dag.models,
        )
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
            there = f"{counted(listed.people, 'person')}, {counted(listed.offered, 'picture')}"
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
            console.print(f"of this, at most {counted(limit, 'picture')} a phase (--limit)")


@app.command()
def status(
    root: Root,
    runs: Annotated[int, typer.Option("--runs", min=0, help="how many of the last runs")] = 5,
    snapshot: SnapshotNumber = None,
    as_json: AsJson = False,
) -> None:
    """Show what a dataset holds, its last runs, whether somebody writes to it, and whether files of
    it are missing (exit code 1).
    """
    with _explained():
        from idcluster.root.dataset_root import counts, open_root
        from idcluster.root.lease import dead
        from idcluster.root.lease import read as read_lease
        from idcluster.root.present import lacking, told
        from idcluster.root.snapshot import load, numbers
        from schemas.wording import counted

        store = open_root(root, "", create=False)
        console = _console()
        shown = load(store, snapshot)
        records = [path for path in store.list("runs") if path.endswith(".json")]
        records = records[max(0, len(records) - runs) :]
        lost = lacking(store, (entry for entry in shown.entries if entry.current and entry.live))
        shards, holder = (
            [entry for entry in shown.shown("shards") if entry.file not in lost],
            read_lease(store),
        )
        if as_json:
            print_json(
                {
                    "root": store.root,
                    "snapshot": shown.number,
                    "published": shown.notes.get("published"),
                    "snapshots": numbers(store),
                    "tables": {
                        name: {"rows": sum(states.values()), **states}
                        for name, states in counts(store, shown, lost).items()
                    },
                    "shards": {
                        "shards": len(shards),
                        "samples": sum(entry.rows for entry in shards),
                    },
                    "runs": [_run_json(path, store.read(path)) for path in records],
                    "writer": None
                    if holder is None
                    else {
                        **{name: holder[name] for name in ("run", "host", "pid")},
                        "dead": dead(holder),
                    },
                    "missing": sorted(lost),
                }
            )
            if lost:
                raise typer.Exit(1)
            return
        there = _spans(numbers(store))
        kept = f"kept: {there} (`idcluster snapshots` says what changed)" if there else "kept: none"
        console.print(
            f"{store.root}: snapshot {shown.number}, published "
            f"{shown.notes.get('published', 'never')}; {kept}"
        )
        table = Table(box=None, pad_edge=False)
        for column in ("table", "rows", "ok", "filtered", "failed", "poisoned"):
            table.add_column(column, justify="left" if column == "table" else "right")
        for name, states in counts(store, shown, lost).items():
            by_status = (
                str(states[state] or "") for state in ("ok", "filtered", "failed", "poisoned")
            )
            table.add_row(name, str(sum(states.values())), *by_status)
        samples = counted(sum(entry.rows for entry in shards), "sample")
        table.add_row("shards", str(len(shards)), samples, "", "", "")
        console.print(table)
        for path in records:
            console.print(_run_line(path, store.read(path)))
        if holder:
            who = f"run {holder['run']} (host {holder['host']}, process {holder['pid']})"
            console.print(
                f"lease left by dead {who}; the next run takes it over"
                if dead(holder)
                else f"being written by {who}"
            )
        if lost:
            said = (
                f"{told(store, lost)}; what lies there is not counted above, `idcluster check "
                f"{store.root}` says what to do"
            )
            console.print(said, style="yellow")
            raise typer.Exit(1)


def _run_line(path: str, content: bytes) -> str:
    try:
        record = json.loads(content)
        error = f": {record['error']}" if record.get("error") else ""
        return (
            f"run {record['run_id']}: {record['status']} in {record['seconds']:.1f} s, "
            f"snapshot {record['snapshot']}{error}"
        )
    except (ValueError, LookupError, TypeError, AttributeError):
        return f"{path}: not a record of a run"


def _run_json(path: str, content: bytes) -> dict[str, Any]:
    try:
        record = json.loads(content)
        return {
            name: record.get(name)
            for name in ("run_id", "status", "started", "seconds", "snapshot", "error")
        }
    except (ValueError, AttributeError):
        return {"file": path, "error": "not a record of a run"}


def _spans(numbers: list[int]) -> str:
    """1, 2, 3, 7 as `1-3, 7`."""
    spans: list[tuple[int, int]] = []
    for number in numbers:
        if spans and spans[-1][1] == number - 1:
            spans[-1] = (spans[-1][0], number)
        else:
            spans.append((number, number))
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)


@app.command()
def query(
    root: Root,
    sql: Annotated[
        str,
        typer.Argument(help="a SELECT; `idcluster schema` lists tables and columns", metavar="SQL"),
    ],
    format: Annotated[str, typer.Option("--format", help="table, csv, json or parquet")] = "table",
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help="write the answer to a file"),
    ] = None,
    snapshot: SnapshotNumber = None,
    verify: Verified = "crc",
) -> None:
    """Ask a dataset in SQL (DuckDB): idcluster query out/ "select status, count(*) from faces group
    by all".
    """
    with _explained():
        from idcluster.catalogue.answers import FORMATS
        from idcluster.catalogue.connection import QueryError
        from idcluster.catalogue.connection import query as ask
        from idcluster.root.dataset_root import open_root

        chosen = next((one for one in FORMATS if one == format), None)
        if chosen is None:
            raise QueryError(
                f"no format {format!r}; there are {', '.join(FORMATS[:-1])} and {FORMATS[-1]}"
            )
        answer = ask(
            open_root(root, "", create=False), sql, chosen, output, snapshot, verifying(verify)
        )
        if answer is not None:
            sys.stdout.write(answer)


@app.command()
def schema(
    table: Annotated[str | None, typer.Argument(help="one table (default: all)")] = None,
) -> None:
    """Print every table that a query sees, with its columns, types, units and keys."""
    with _explained():
        from pipeline.dag import DagError
        from schemas.views import VIEWS
        from schemas.wording import near

        if table is not None and table not in VIEWS:
            meant = near(table, VIEWS)
            raise DagError(
                [
                    f"no table {table!r}; "
                    + (f"did you mean {meant[0]!r}?" if meant else f"there are {', '.join(VIEWS)}")
                ]
            )
        console = _console()
        for one in VIEWS.values() if table is None else [VIEWS[table]]:
            parent = f", rows stem from {one.parent} by {one.parent_key}" if one.parent else ""
            about = (
                f" (version {one.version}, written by {one.written_by}, key "
                f"{one.key}{parent}): {one.description}"
            )
            console.print(Text.assemble((one.name, "bold"), about))
            for column in one.columns:
                null = "" if column.nullable else ", never null"
                console.print(f"  {column.name}: {column.type}{null} - {column.description}")
            console.print()


@app.command()
def snapshots(root: Root, as_json: AsJson = False) -> None:
    """List the snapshots that are kept: when, by which run, and what each shows other than the one
    before.
    """
    with _explained():
        from idcluster.root.dataset_root import open_root
        from pipeline.history import listing

        found = listing(open_root(root, "", create=False))
        if as_json:
            names = ("number", "published", "run", "files", "bytes", "changes")
            print_json([{name: getattr(one, name) for name in names} for one in found])
            return
        lines = [("snapshot", "published", "run", "files", "MB", "changes")]
        lines += [
            (
                str(one.number),
                one.published,
                one.run,
                str(one.files),
                f"{one.bytes / 1e6:.1f}",
                one.changes,
            )
            for one in found
        ]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines:
            cells = zip(line, widths, (">", "<", "<", ">", ">", "<"), strict=True)
            print("  ".join(f"{cell:{side}{width}}" for cell, width, side in cells).rstrip())


@app.command()
def diff(
    root: Root,
    before: Annotated[
        int, typer.Argument(min=0, help="a snapshot; 0 is the empty dataset", metavar="A")
    ],
    after: Annotated[
        int | None, typer.Argument(min=0, help="a later one (default: the newest)", metavar="B")
    ] = None,
    people: Annotated[
        bool,
        typer.Option("--people", help="list all people with changes, not only those with most"),
    ] = False,
    format: Annotated[
        str, typer.Option("--format", help="table; or csv, json: one line a table and person")
    ] = "table",
) -> None:
    """Show what changed between two snapshots: rows added, changed and gone, by table and by
    person.
    """
    with _explained():
        from idcluster.catalogue.answers import TextFormat, as_text
        from idcluster.catalogue.connection import QueryError
        from idcluster.root.dataset_root import open_root
        from pipeline.history import diff as compare
        from schemas.wording import counted

        if format not in ("table", "csv", "json"):
            raise QueryError(f"no format {format!r}; there are table, csv and json")
        found = compare(open_root(root, "", create=False), before, after)
        if format != "table":
            sys.stdout.write(as_text(found.rows, cast(TextFormat, format)))
            return
        print(
            f"from snapshot {found.before} to {found.after}"
            + ("" if found.rows.num_rows else ": both show the same")
        )
        for table, said in found.made_by.items():
            print(f"{table}: {said}")
        if found.rows.num_rows:
            print("\n" + as_text(found.by("table"), "table"))
            by_person = found.by("identity_id", "name")
            shown = by_person if people else by_person.slice(0, PEOPLE_SHOWN)
            sys.stdout.write(as_text(shown, "table"))
            if len(shown) < len(by_person):
                print(f"... and {counted(len(by_person) - len(shown), 'more person')}: --people")


@app.command()
def rollback(
    root: Root,
    number: Annotated[int, typer.Argument(min=1, help="the snapshot to go back to", metavar="N")],
) -> None:
    """Show again what an older snapshot shows, shards and their indexes included. Deletes nothing;
    a new snapshot says so.
    """
    with _explained():
        from idcluster.root.dataset_root import new_run_id, open_root
        from pipeline.history import rollback as go_back

        console = _console()
        made = go_back(
            open_root(root, "", create=False), number, f"rollback-{new_run_id()}", console.print
        )
        console.print(
            f"snapshot {made.number} shows what snapshot {number} shows; a run follows its DAG "
            "and source as always"
        )


@app.command()
def gc(
    root: Root,
    keep: Annotated[
        int, typer.Option("--keep", min=1, help="of how many of the newest runs the result stays")
    ] = 2,
    current_only: Annotated[
        bool,
        typer.Option(
            "--current-only",
            help="forget rows of earlier parameters, rows set aside and replaced shards too",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="say what would go, delete nothing")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Delete old snapshots and the files that no kept snapshot needs."""
    with _explained():
        from idcluster.root.dataset_root import new_run_id, open_root
        from pipeline.gc import collect
        from schemas.wording import counted

        console = _console()
        said: list[str] = []
        say = said.append if as_json else console.print
        done = collect(
            open_root(root, "", create=False),
            keep,
            f"gc-{new_run_id()}",
            dry_run,
            current_only,
            say,
        )
        if as_json:
            names = ("snapshots", "files", "bytes", "held")
            print_json(
                {
                    "dry_run": dry_run,
                    **{name: getattr(done, name) for name in names},
                    "published": done.published or None,
                    "forgotten": done.forgotten,
                    "left": dict(done.left),
                    "remarks": said,
                }
            )
            return
        if done.published:
            verb = "would publish" if dry_run else "published"
            console.print(
                f"{verb} snapshot {done.published}, which shows the same and names "
                f"{counted(done.forgotten, 'file')} less"
            )
            if current_only:
                console.print("a switch back to earlier parameters will compute again")
        verb = "would delete" if dry_run else "deleted"
        gone = f"{counted(len(done.snapshots), 'snapshot')} and {counted(len(done.files), 'file')}"
        console.print(f"{verb} {gone}, {done.bytes / 1e6:.1f} MB")
        if done.held:
            console.print(
                f"kept for older snapshots: {counted(done.held, 'more file')}; --keep 1 deletes "
                "these too"
            )
        for table, rows in done.left:
            still = f"{table} still shows {counted(rows, 'row')} of what is gone at the source"
            console.print(f"note: {still}; run the stage that writes it first")


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
    app()


if __name__ == "__main__":
    main()
