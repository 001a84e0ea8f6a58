"""The commands on sets of shards: `idcluster shards list`, `verify` and `splits`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.parts import Root, SnapshotNumber, console, explained

shards_app = typer.Typer(
    no_args_is_help=True, help="Look at the shards of a dataset, check them byte by byte, write down who is in which split."
)

Profile = Annotated[str | None, typer.Option("--profile", help="one set, by its folder below shards/ (default: all, or the only one)")]


@shards_app.command("list")
def list_shards(root: Root, snapshot: SnapshotNumber = None) -> None:
    """Print the sets of a dataset: people, pictures and bytes by split, and what was withheld."""
    with explained():
        from pipeline.catalogue.connection import query
        from pipeline.root.opening import open_root

        store = open_root(root, "", create=False)
        sql = (
            "SELECT split_part(f.file, '/', 2) AS profile, s.split, count(DISTINCT s.canonical_id) AS people, count(*) AS pictures, "
            "count(DISTINCT s.shard) AS shards, round(sum(s.image_length) / 1e6, 1) AS mb FROM samples s JOIN snapshot_files f ON "
            "f.current AND f.table = 'shards' AND f.file LIKE '%/' || s.shard GROUP BY ALL ORDER BY ALL"
        )
        sys.stdout.write(query(store, sql, snapshot=snapshot) or "")
        sql = "SELECT profile, reason AS withheld, count(*) AS faces FROM withheld GROUP BY ALL ORDER BY ALL"
        withheld = query(store, sql, snapshot=snapshot)
        if withheld and withheld.count("\n") > 2:
            sys.stdout.write("\n" + withheld)


@shards_app.command()
def verify(
    place: Annotated[str, typer.Argument(help="a dataset, or any folder of shards with an index.json", metavar="PLACE")],
    profile: Profile = None,
) -> None:
    """Read every byte of the shards again and compare: sha256, places, order, counts, splits; of a dataset also with its tables.

    Prints what is wrong, by file, and then exits with 1.
    """
    with explained():
        from rich.progress import Progress

        from pipeline.root.snapshot import load
        from pipeline.root.storage import Store
        from pipeline.shards.check import CheckError, check_against_tables, check_set, profiles, told

        store = Store(place)
        whole = store.exists("dataset.json") and bool(store.list("snapshots"))
        names = profiles(store) if whole else []
        if profile is not None and whole:
            if profile not in names:
                raise CheckError(f"{place}: no set {profile!r}; " + (f"there are {', '.join(names)}" if names else "there is none yet"))
            names = [profile]
        if whole and not names:
            raise CheckError(f"{place}: no shards yet; a DAG with the stage `shard` writes them")
        shown = console()
        wrong = 0
        for folder in [f"shards/{name}" for name in names] or [""]:
            with Progress(console=shown, disable=not shown.is_terminal, transient=True) as progress:
                task = progress.add_task(folder or place, total=None)
                checked = check_set(store, folder, lambda url, task=task, progress=progress: progress.advance(task))  # type: ignore[misc]
            faults = list(checked.faults)
            if whole:
                faults += check_against_tables(store, load(store), folder.removeprefix("shards/"), checked)
            for line in told(faults):
                print(f"{folder or place}: {line}")
            for note in checked.notes:
                shown.print(f"{folder or place}: note: {note}", highlight=False)
            said = "nothing wrong" if not faults else f"{len(faults)} faults"
            size = f"{checked.shards} shards, {checked.samples} samples of {checked.people} people, {checked.bytes / 1e6:.1f} MB"
            shown.print(f"{folder or place}: {size}: {said}", highlight=False)
            wrong += len(faults)
        if wrong:
            raise typer.Exit(1)


@shards_app.command()
def splits(
    root: Root,
    profile: Profile = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="write CSV there (default: print it)")] = None,
) -> None:
    """Write down who is in which split, as the CSV that `split_list` of a DAG takes: so that a draw stays for good."""
    with explained():
        from pipeline.root.aside import write_text
        from pipeline.root.opening import open_root
        from pipeline.root.snapshot import load
        from pipeline.shards.check import CheckError, profiles
        from pipeline.shards.split_lists import drawn, write_csv

        store = open_root(root, "", create=False)
        names = profiles(store)
        if profile is None and len(names) != 1:
            raise CheckError(f"{root}: " + (f"name a set with --profile: {', '.join(names)}" if names else "no shards yet"))
        if profile is not None and profile not in names:
            raise CheckError(f"{root}: no set {profile!r}; there are {', '.join(names)}")
        text = write_csv(drawn(store, load(store), profile or names[0]))
        if output is None:
            sys.stdout.write(text)
        else:
            write_text(output, text)
            console().print(f"{output}: {text.count(chr(10)) - 1} people", highlight=False)
