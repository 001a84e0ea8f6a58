"""The commands that look at a dataset: status, query, schema."""

import json
import sys
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from pipeline.commands.explained import explained
from pipeline.commands.options import (
    AsJson,
    Root,
    SnapshotNumber,
    Verified,
    console,
    print_json,
    verifying,
)

look_app = typer.Typer()


@look_app.command()
def status(
    root: Root,
    runs: Annotated[int, typer.Option("--runs", min=0, help="how many of the last runs")] = 5,
    snapshot: SnapshotNumber = None,
    as_json: AsJson = False,
) -> None:
    """Show what a dataset holds, its last runs, whether somebody writes to it, and whether files of
    it are missing (exit code 1).
    """
    with explained():
        from idcluster.root.dataset_root import counts, open_root
        from idcluster.root.lease import dead
        from idcluster.root.lease import read as read_lease
        from idcluster.root.present import lacking, told
        from idcluster.root.snapshot import load, numbers
        from schemas.wording import counted

        store = open_root(root)
        screen = console()
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
        screen.print(
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
        screen.print(table)
        for path in records:
            screen.print(_run_line(path, store.read(path)))
        if holder:
            who = f"run {holder['run']} (host {holder['host']}, process {holder['pid']})"
            screen.print(
                f"lease left by dead {who}; the next run takes it over"
                if dead(holder)
                else f"being written by {who}"
            )
        if lost:
            said = (
                f"{told(store, lost)}; what lies there is not counted above, `idcluster check "
                f"{store.root}` says what to do"
            )
            screen.print(said, style="yellow")
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


@look_app.command()
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
    with explained():
        from idcluster.catalogue.answers import FORMATS
        from idcluster.catalogue.connection import QueryError
        from idcluster.catalogue.connection import query as ask
        from idcluster.root.dataset_root import open_root

        chosen = next((one for one in FORMATS if one == format), None)
        if chosen is None:
            raise QueryError(
                f"no format {format!r}; there are {', '.join(FORMATS[:-1])} and {FORMATS[-1]}"
            )
        answer = ask(open_root(root), sql, chosen, output, snapshot, verifying(verify))
        if answer is not None:
            sys.stdout.write(answer)


@look_app.command()
def schema(
    table: Annotated[str | None, typer.Argument(help="one table (default: all)")] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="print the page of the documentation")
    ] = False,
) -> None:
    """Print every table that a query sees, with its columns, types, units and keys."""
    with explained():
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
        if markdown:
            from pipeline.docs_pages import tables_page

            sys.stdout.write(tables_page())
            return
        shown = console()
        for one in VIEWS.values() if table is None else [VIEWS[table]]:
            parent = f", rows stem from {one.parent} by {one.parent_key}" if one.parent else ""
            about = (
                f" (version {one.version}, written by {one.written_by}, key "
                f"{one.key}{parent}): {one.description}"
            )
            shown.print(Text.assemble((one.name, "bold"), about))
            for column in one.columns:
                null = "" if column.nullable else ", never null"
                shown.print(f"  {column.name}: {column.type}{null} - {column.description}")
            shown.print()
