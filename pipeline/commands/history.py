"""The commands on snapshots: what there is, what changed, going back, deleting old ones."""

import sys
from typing import Annotated, cast

import typer

from pipeline.commands.explained import explained
from pipeline.commands.options import AsJson, Root, console, print_json

history_app = typer.Typer()

PEOPLE_SHOWN = 10


@history_app.command()
def snapshots(root: Root, as_json: AsJson = False) -> None:
    """List the snapshots that are kept: when, by which run, and what each shows other than the one
    before.
    """
    with explained():
        from idcluster.root.dataset_root import open_root
        from pipeline.history import listing

        found = listing(open_root(root))
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


@history_app.command()
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
    with explained():
        from idcluster.catalogue.answers import TextFormat, as_text
        from idcluster.catalogue.connection import QueryError
        from idcluster.root.dataset_root import open_root
        from pipeline.history import diff as compare
        from schemas.wording import counted

        if format not in ("table", "csv", "json"):
            raise QueryError(f"no format {format!r}; there are table, csv and json")
        found = compare(open_root(root), before, after)
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


@history_app.command()
def rollback(
    root: Root,
    number: Annotated[int, typer.Argument(min=1, help="the snapshot to go back to", metavar="N")],
) -> None:
    """Show again what an older snapshot shows, shards and their indexes included. Deletes nothing;
    a new snapshot says so.
    """
    with explained():
        from idcluster.root.dataset_root import new_run_id, open_root
        from pipeline.history import rollback as go_back

        shown = console()
        made = go_back(open_root(root), number, f"rollback-{new_run_id()}", shown.print)
        shown.print(
            f"snapshot {made.number} shows what snapshot {number} shows; a run follows its DAG "
            "and source as always"
        )


@history_app.command()
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
    with explained():
        from idcluster.root.dataset_root import new_run_id, open_root
        from pipeline.gc import collect
        from schemas.wording import counted

        shown = console()
        said: list[str] = []
        say = said.append if as_json else shown.print
        done = collect(open_root(root), keep, f"gc-{new_run_id()}", dry_run, current_only, say)
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
            shown.print(
                f"{verb} snapshot {done.published}, which shows the same and names "
                f"{counted(done.forgotten, 'file')} less"
            )
            if current_only:
                shown.print("a switch back to earlier parameters will compute again")
        verb = "would delete" if dry_run else "deleted"
        gone = f"{counted(len(done.snapshots), 'snapshot')} and {counted(len(done.files), 'file')}"
        shown.print(f"{verb} {gone}, {done.bytes / 1e6:.1f} MB")
        if done.held:
            shown.print(
                f"kept for older snapshots: {counted(done.held, 'more file')}; --keep 1 deletes "
                "these too"
            )
        for table, rows in done.left:
            still = f"{table} still shows {counted(rows, 'row')} of what is gone at the source"
            shown.print(f"note: {still}; run the stage that writes it first")
