"""The command line, `idcluster`."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer
from rich.console import Console
from rich.table import Table

app = typer.Typer(
    name="idcluster",
    help="Build identity-cluster face datasets: from photographs of people to clean, captioned, measured and sharded data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
models_app = typer.Typer(help="The weight files that backends load.", no_args_is_help=True)
app.add_typer(models_app, name="models")

DagPath = Annotated[Path, typer.Argument(help="DAG file (YAML); dags/quickstart.yaml shows what can stand in it", metavar="DAG")]
Root = Annotated[str, typer.Argument(help="dataset root: a folder", metavar="ROOT")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="change a field of the DAG: --set source.path=people/ --set stages.clean.params.k=3"),
]
Only = Annotated[str | None, typer.Option("--only", metavar="STAGES", help="these stages alone: --only clean,shard")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="work on at most so many pictures, to try a DAG out")]
Where = Annotated[
    str | None,
    typer.Option("--where", metavar="SQL", help="only pictures that match, by columns of candidates and identities: --where \"name = 'Ada'\""),
]
Retry = Annotated[
    str | None,
    typer.Option("--retry", metavar="SQL", help="compute rows that are not ok again: --retry \"reason = 'decode_error'\""),
]
Models = Annotated[
    str | None, typer.Option("--models", envvar="IDCLUSTER_MODELS", metavar="DIR", help="folder that holds weight files, by name or anywhere below")
]
SnapshotNumber = Annotated[int | None, typer.Option("--snapshot", help="look at an older snapshot (default: the newest)")]


@contextmanager
def _explained() -> Iterator[None]:
    """Errors that a user can mend as text without a traceback; exit code 2 for what was asked wrongly, else 1."""
    from pipeline.dag import DagError
    from pipeline.files import DamagedFile
    from pipeline.lease import LeaseHeld
    from pipeline.run import RunError
    from pipeline.snapshot import SnapshotError
    from pipeline.storage import StorageError
    from schemas import SchemaError

    wanted: list[type[Exception]] = [DagError, DamagedFile, LeaseHeld, RunError, SnapshotError, StorageError, SchemaError]
    from pipeline.catalogue import QueryError
    from pipeline.engine import EngineError
    from pipeline.samples import MissingSample
    from pipeline.shards import ShardError
    from stages.crawl.listing import SourceError
    from stages.weights import MissingWeights

    wanted += [QueryError, EngineError, MissingSample, ShardError, SourceError, MissingWeights]
    try:
        yield
    except tuple(wanted) as error:
        print(f"idcluster: {error}", file=sys.stderr)
        raise typer.Exit(2 if isinstance(error, DagError | QueryError) else 1) from error
    except FileNotFoundError as error:
        print(f"idcluster: {error.filename or error}: no such file", file=sys.stderr)
        raise typer.Exit(1) from error
    except KeyboardInterrupt as error:
        print("idcluster: broken off; run again to go on", file=sys.stderr)
        raise typer.Exit(130) from error


def _console() -> Console:
    return Console(highlight=False, soft_wrap=True)


def _selection(only: str | None, limit: int | None, where: str | None, retry: str | None) -> Any:
    from pipeline.run import Selection

    return Selection(tuple(name.strip() for name in (only or "").split(",") if name.strip()), limit, where, retry)


@app.command()
def run(
    dag: DagPath, sets: Sets = None, only: Only = None, limit: Limit = None, where: Where = None, retry: Retry = None, models: Models = None,
    address: Annotated[str | None, typer.Option("--address", help="a running Ray cluster (default: a Ray of this machine's own)")] = None,
) -> None:  # fmt: skip
    """Do what a DAG says and is not done yet.

    A second run does only what changed: new pictures, another threshold, another prompt. Ctrl-C finishes what is at work
    and publishes it; whatever interrupts a run, the next one goes on from there.
    """
    with _explained():
        from pipeline.dag import load_dag
        from pipeline.engine import RayEngine
        from pipeline.lease import is_writable
        from pipeline.run import Run, open_root, prepare

        prepared = prepare(load_dag(dag, sets or ()), models)
        selection = _selection(only, limit, where, retry)
        prepared.chosen(selection)
        store = open_root(prepared.dag.root, prepared.dag.name, create=True)
        is_writable(store)
        console = _console()
        started = Run(prepared, selection, store, console, lambda spec: RayEngine(spec, address))
        record = started.execute()
        summarise(console, vars(record))
        if record.status == "drained":
            raise typer.Exit(130)


def summarise(console: Console, record: dict[str, Any]) -> None:
    """The end of a run in a few lines."""
    if not record["stages"] and not record["shards"] and record["snapshot"] == record["snapshot_before"]:
        console.print(f"nothing to do; snapshot {record['snapshot']} is up to date ({record['seconds']:.1f} s)")
        return
    for phase in record["phases"]:
        busy = sum(phase["worker_seconds"].values())
        told = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in list(phase["worker_seconds"].items())[:4])
        rate = phase["members"] / phase["wall_seconds"] if phase["wall_seconds"] else 0.0
        console.print(
            f"{' + '.join(phase['stages'])}: {phase['members']} in {phase['wall_seconds']:.1f} s ({rate:.1f}/s, first after "
            f"{phase['first_receipt_seconds']:.1f} s), workers busy {busy:.1f} s: {told}"
        )
    if record["phases"]:
        slowest = max(record["phases"], key=lambda phase: phase["wall_seconds"])
        console.print(f"bottleneck: {slowest['bottleneck']}")
    word = {"done": "done", "drained": "stopped as asked", "failed": "failed"}[record["status"]]
    console.print(f"{word}: snapshot {record['snapshot']} in {record['seconds']:.1f} s; record runs/{record['run_id']}.json")


@app.command()
def plan(
    dag: DagPath, sets: Sets = None, only: Only = None, limit: Limit = None, where: Where = None, retry: Retry = None, models: Models = None
) -> None:
    """Say what a run would do, why, and about how long it would take. Does nothing."""
    with _explained():
        from pipeline.dag import load_dag
        from pipeline.plan import make_plan, rows
        from pipeline.run import prepare
        from pipeline.storage import Store

        prepared = prepare(load_dag(dag, sets or ()), models)
        made = make_plan(prepared, _selection(only, limit, where, retry), Store(prepared.dag.root))
        console = _console()
        if made.intake is not None:
            listed = made.intake
            console.print(
                f"source: {listed.people} people, {listed.offered} pictures: {listed.new} new, {listed.changed} changed, {listed.gone} gone"
            )
        if made.nothing:
            console.print("nothing to do")
            return
        table = Table(box=None, pad_edge=False)
        for column in ("stage", "there", "to do", "tasks", "why", "estimate"):
            table.add_column(column, justify="right" if column in ("there", "tasks", "estimate") else "left")
        for cells in rows(made):
            table.add_row(*cells)
        console.print(table)
        console.print(f"shards: {made.shards}")


@app.command()
def status(root: Root, runs: Annotated[int, typer.Option("--runs", help="how many of the last runs")] = 5) -> None:
    """Show what a dataset holds, its last runs, and whether somebody writes to it."""
    with _explained():
        import json

        from pipeline.lease import read as read_lease
        from pipeline.run import counts, open_root
        from pipeline.snapshot import load, numbers

        store = open_root(root, "", create=False)
        console = _console()
        snapshot = load(store)
        there = numbers(store)
        console.print(f"{store.root}: snapshot {snapshot.number}, published {snapshot.notes.get('published', 'never')}; {len(there)} kept")
        table = Table(box=None, pad_edge=False)
        for column in ("table", "rows", "ok", "filtered", "failed", "poisoned"):
            table.add_column(column, justify="left" if column == "table" else "right")
        for name, states in counts(store, snapshot).items():
            table.add_row(name, str(sum(states.values())), *(str(states[state] or "") for state in ("ok", "filtered", "failed", "poisoned")))
        shards = snapshot.shown("shards")
        table.add_row("shards", str(len(shards)), f"{sum(entry.rows for entry in shards)} samples", "", "", "")
        console.print(table)
        for path in [path for path in store.list("runs") if path.endswith(".json")][-runs:]:
            record = json.loads(store.read(path))
            error = f": {record['error']}" if record.get("error") else ""
            console.print(f"run {record['run_id']}: {record['status']} in {record['seconds']:.1f} s, snapshot {record['snapshot']}{error}")
        holder = read_lease(store)
        if holder:
            console.print(f"being written by run {holder['run']} (host {holder['host']}, process {holder['pid']})")


@app.command()
def query(
    root: Root,
    sql: Annotated[str, typer.Argument(help="a SELECT; `idcluster schema` lists tables and columns", metavar="SQL")],
    format: Annotated[str, typer.Option("--format", help="table, csv, json or parquet")] = "table",
    output: Annotated[str | None, typer.Option("--output", "-o", metavar="FILE", help="write the answer to a file")] = None,
    snapshot: SnapshotNumber = None,
) -> None:
    """Ask a dataset in SQL (DuckDB): idcluster query out/ "select status, count(*) from faces group by all"."""
    with _explained():
        from pipeline.catalogue import Format, QueryError
        from pipeline.catalogue import query as ask
        from pipeline.run import open_root

        if format not in ("table", "csv", "json", "parquet"):
            raise QueryError(f"no format {format!r}; there are table, csv, json and parquet")
        answer = ask(open_root(root, "", create=False), sql, cast(Format, format), output, snapshot)
        if answer is not None:
            sys.stdout.write(answer)


@app.command()
def schema(table: Annotated[str | None, typer.Argument(help="one table (default: all)")] = None) -> None:
    """Print every table with its columns, types, units and keys."""
    with _explained():
        from difflib import get_close_matches

        from pipeline.dag import DagError
        from schemas import TABLES
        from stages.shard.webdataset import SAMPLES

        known = {**TABLES, SAMPLES.name: SAMPLES}
        if table is not None and table not in known:
            near = get_close_matches(table, known, 1)
            raise DagError([f"no table {table!r}; " + (f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}")])
        console = _console()
        for one in known.values() if table is None else [known[table]]:
            parent = f", rows stem from {one.parent} by {one.parent_key}" if one.parent else ""
            console.print(f"[bold]{one.name}[/bold] (version {one.version}, written by {one.written_by}, key {one.key}{parent}): {one.description}")
            for column in one.columns:
                null = "" if column.nullable else ", never null"
                console.print(f"  {column.name}: {column.type}{null} - {column.description}", markup=False)
            console.print()


@app.command()
def gc(
    root: Root,
    keep: Annotated[int, typer.Option("--keep", min=1, help="how many of the newest snapshots stay")] = 2,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would go, delete nothing")] = False,
) -> None:
    """Delete old snapshots and the files that no kept snapshot names."""
    with _explained():
        from pipeline.gc import collect
        from pipeline.run import new_run_id, open_root

        done = collect(open_root(root, "", create=False), keep, f"gc-{new_run_id()}", dry_run)
        verb = "would delete" if dry_run else "deleted"
        _console().print(f"{verb} {len(done.snapshots)} snapshots and {len(done.files)} files, {done.bytes / 1e6:.1f} MB")


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="where the sample people and the dataset go")] = Path("demo"),
    seed: Annotated[int, typer.Option("--seed", help="another seed composes other photographs")] = 0,
) -> None:
    """Run the quickstart DAG on sample people that installed packages bring along; needs no weights and no network."""
    with _explained():
        from pipeline.demo import run_demo

        if not run_demo(folder, seed, _console()):
            raise typer.Exit(1)


@models_app.command("list")
def models_list(models: Models = None) -> None:
    """List all registered weight files: what they are, their licences, and whether they are here."""
    _models(models, lambda found: True)


@models_app.command("verify")
def models_verify(models: Models = None) -> None:
    """Check size and SHA-256 of every weight file that is here; exits with 1 if one is damaged."""
    _models(models, lambda found: found != "damaged")


def _models(directory: str | None, fine: Callable[[str], bool]) -> None:
    with _explained():
        from stages.weights import WEIGHTS, MissingWeights, WeightFiles

        files = WeightFiles(directory)
        console = _console()
        good = True
        for name, weights in WEIGHTS.items():
            try:
                state: Literal["here", "missing", "damaged"] = "here"
                where = files.path(name)
            except MissingWeights as error:
                state = "damaged" if "is another file" in str(error) else "missing"
                where = weights.source
            good = good and fine(state)
            console.print(f"{name}: {state} ({where})\n  {weights.bytes} bytes, sha256 {weights.sha256}\n  licence: {weights.licence}; use: {weights.use}")
        if not good:
            raise typer.Exit(1)


def main() -> None:
    app()


if __name__ == "__main__":
    main()
