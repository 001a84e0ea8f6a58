"""The commands that tell about a whole dataset: `idcluster stats` and `idcluster report`."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.explained import explained
from pipeline.commands.options import Root, SnapshotNumber, Verified, console, verifying

report_app = typer.Typer()


@report_app.command()
def stats(
    root: Root,
    only: Annotated[
        str | None,
        typer.Option("--only", metavar="NAMES", help="these alone: --only funnel,reasons"),
    ] = None,
    format: Annotated[str, typer.Option("--format", help="table, csv, json or parquet")] = "table",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="a file; for csv and parquet of several, a folder",
        ),
    ] = None,
    snapshot: SnapshotNumber = None,
    verify: Verified = "crc",
    names: Annotated[bool, typer.Option("--list", help="say which statistics there are")] = False,
) -> None:
    """Count what a dataset holds: what was lost where and why, images per person, sizes,
    licences, hosts, similarity, speed.
    """
    with explained():
        from idcluster.catalogue.answers import FORMATS, as_json, as_text, write
        from idcluster.catalogue.connection import QueryError, connect
        from idcluster.catalogue.statistics import STATISTICS, chosen, compute, title
        from idcluster.root.aside import write_text
        from idcluster.root.dataset_root import open_root

        if names:
            for name in STATISTICS:
                print(f"{name:18} {title(name)}")
            return
        kind = next((one for one in FORMATS if one == format), None)
        if kind is None:
            raise QueryError(
                f"no format {format!r}; there are {', '.join(FORMATS[:-1])} and {FORMATS[-1]}"
            )
        asked = chosen((only or "").split(","))
        if kind in ("csv", "parquet") and len(asked) > 1 and output is None:
            raise QueryError(
                f"{len(asked)} statistics do not fit one {kind}: name one (--only funnel) or a "
                "folder (--output numbers/)"
            )
        if kind == "parquet" and output is None:
            raise QueryError("Parquet is not text: name a file for it (--output funnel.parquet)")
        connection = connect(open_root(root), snapshot, verifying(verify))
        try:
            found = compute(connection, asked)
        finally:
            connection.close()
        if kind in ("csv", "parquet"):
            if output is None:
                sys.stdout.write(as_text(found[asked[0]], "csv"))
            elif len(asked) == 1 and not output.is_dir():
                write(found[asked[0]], kind, str(output))
            else:
                output.mkdir(parents=True, exist_ok=True)
                for name, table in found.items():
                    write(table, kind, str(output / f"{name}.{kind}"))
            return
        if kind == "json":
            text = (
                json.dumps(
                    {name: as_json(table) for name, table in found.items()},
                    indent=1,
                    ensure_ascii=False,
                )
                + "\n"
            )
        else:
            text = "\n".join(
                f"{name}: {title(name)}\n{as_text(table, 'table')}"
                for name, table in found.items()
                if table.num_rows
            )
            empty = ", ".join(name for name, table in found.items() if not table.num_rows)
            text += f"\nno rows: {empty}\n" if empty else ""
        if output is None:
            sys.stdout.write(text)
        else:
            write_text(output, text)


@report_app.command()
def report(
    root: Root,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="where the page goes")
    ] = Path("report.html"),
    people: Annotated[
        int, typer.Option("--people", min=0, max=10_000, help="sample people whose faces are shown")
    ] = 12,
    review: Annotated[
        bool,
        typer.Option(
            "--review", help="beside it, and linked, the page of `idcluster review` on the doubtful"
        ),
    ] = False,
    snapshot: SnapshotNumber = None,
) -> None:
    """Write one HTML page about a dataset, with plots and sample faces; it needs no network and no
    server.
    """
    with explained():
        from idcluster.root.dataset_root import open_root
        from idcluster.root.snapshot import load
        from pipeline.report.dataset_page import write_report
        from pipeline.report.review_page import NothingToReview, write_review
        from schemas.wording import counted

        store = open_root(root)
        beside = output.with_name(f"{output.stem}-review.html") if review else None
        if beside is not None:
            try:
                write_review(store, load(store, snapshot), beside)
            except NothingToReview as error:
                console().print(str(error))
                beside = None
        made = write_report(store, output, people, snapshot, beside)
        there = f"{counted(made.people, 'person')}, {counted(made.kept, 'kept face')}"
        console().print(
            f"snapshot {made.snapshot}: {there}, {counted(made.samples, 'sample person')} shown"
        )
        if beside is not None:
            print(beside)
        print(made.path)
