"""The commands on sets of shards: `idcluster shards list`, `verify`, `splits` and `export`."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.explained import Usage, explained
from pipeline.commands.options import AsJson, Root, SnapshotNumber, console, print_json

shards_app = typer.Typer(
    no_args_is_help=True,
    help="Look at the shards of a dataset, check them byte by byte, write down who is in which "
    "split, export them.",
)

Profile = Annotated[
    str | None,
    typer.Option(
        "--profile", help="one set, by its folder below shards/ (default: all, or the only one)"
    ),
]


@shards_app.command("list")
def list_shards(root: Root, snapshot: SnapshotNumber = None, as_json: AsJson = False) -> None:
    """Print the sets of a dataset: people, images and bytes by split, and what was withheld."""
    with explained():
        from idcluster.catalogue.connection import query
        from idcluster.root.dataset_root import open_root

        store = open_root(root)
        sql = (
            "SELECT split_part(f.file, '/', 2) AS profile, s.split, count(DISTINCT "
            "s.canonical_id) AS people, count(*) AS images, "
            "count(DISTINCT s.shard) AS shards, round(sum(s.image_length) / 1e6, 1) AS mb FROM "
            "samples s JOIN snapshot_files f ON "
            "f.current AND f.table = 'shards' AND f.file LIKE '%/' || s.shard GROUP BY ALL ORDER "
            "BY ALL"
        )
        withheld_sql = (
            "SELECT profile, reason AS withheld, count(*) AS faces FROM withheld "
            "GROUP BY ALL ORDER BY ALL"
        )
        if as_json:
            sets, held = (
                json.loads(query(store, one, "json", snapshot=snapshot) or "[]")
                for one in (sql, withheld_sql)
            )
            print_json({"splits": sets, "withheld": held})
            return
        sys.stdout.write(query(store, sql, snapshot=snapshot) or "")
        withheld = query(store, withheld_sql, snapshot=snapshot)
        if withheld and withheld.count("\n") > 2:
            sys.stdout.write("\n" + withheld)


@shards_app.command()
def verify(
    place: Annotated[
        str,
        typer.Argument(
            help="a dataset, or any folder of shards with an index.json", metavar="PLACE"
        ),
    ],
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """Read every byte of the shards again and compare: sha256, places, order, counts, splits; of a
    dataset also with its tables.

    Prints what is wrong, by file, and then exits with 1.
    """
    with explained():
        from rich.progress import Progress

        from idcluster.root.snapshot import load
        from idcluster.root.storage import Store
        from idcluster.shards import profiles
        from pipeline.shards.check import CheckError, check_against_tables, check_set, told
        from schemas.wording import counted

        store = Store(place)
        whole = store.exists("dataset.json") and bool(store.list("snapshots"))
        names = profiles(store) if whole else []
        if profile is not None and whole:
            if profile not in names:
                raise Usage(
                    f"{place}: no set {profile!r}; "
                    + (f"there are {', '.join(names)}" if names else "there is none yet")
                )
            names = [profile]
        if not whole and not store.exists("index.json"):
            raise Usage(f"{place} is no dataset and no folder of shards, which has an index.json")
        if whole and not names:
            raise CheckError(f"{place}: no shards yet; a DAG with the stage `shard` writes them")
        shown = console()
        wrong = 0
        sets = []
        for folder in [f"shards/{name}" for name in names] or [""]:
            with Progress(
                console=shown, disable=as_json or not shown.is_terminal, transient=True
            ) as progress:
                task = progress.add_task(folder or place, total=None)
                checked = check_set(
                    store,
                    folder,
                    lambda url, task=task, progress=progress: progress.advance(task),  # type: ignore[misc]
                )
            faults = list(checked.faults)
            if whole:
                faults += check_against_tables(
                    store, load(store), folder.removeprefix("shards/"), checked
                )
            wrong += len(faults)
            if as_json:
                counts = {
                    name: getattr(checked, name)
                    for name in ("shards", "samples", "people", "bytes")
                }
                told_all = [{"where": where, "what": what} for where, what in faults]
                sets.append(
                    {
                        "set": folder or place,
                        **counts,
                        "faults": told_all,
                        "notes": list(checked.notes),
                    }
                )
                continue
            for line in told(faults):
                print(f"{folder or place}: {line}")
            for note in checked.notes:
                shown.print(f"{folder or place}: note: {note}", highlight=False)
            said = "nothing wrong" if not faults else counted(len(faults), "fault")
            size = (
                f"{counted(checked.shards, 'shard')}, {counted(checked.samples, 'sample')} of "
                f"{counted(checked.people, 'person')}"
            )
            shown.print(
                f"{folder or place}: {size}, {checked.bytes / 1e6:.1f} MB: {said}", highlight=False
            )
        if as_json:
            print_json({"wrong": wrong, "sets": sets})
        if wrong:
            raise typer.Exit(1)


@shards_app.command()
def splits(
    root: Root,
    profile: Profile = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="write CSV there (default: print it)"),
    ] = None,
) -> None:
    """Write down who is in which split, as the CSV that `split_list` of a DAG takes: so that a draw
    stays for good.
    """
    with explained():
        from idcluster.root.aside import write_text
        from idcluster.root.dataset_root import open_root
        from idcluster.root.snapshot import load
        from idcluster.shards import profiles
        from pipeline.shards.check import CheckError
        from pipeline.shards.split_lists import drawn, write_csv
        from schemas.wording import counted

        store = open_root(root)
        names = profiles(store)
        if not names:
            raise CheckError(f"{root}: no shards yet")
        if profile is None and len(names) != 1:
            raise Usage(f"{root}: name a set with --profile: {', '.join(names)}")
        if profile is not None and profile not in names:
            raise Usage(f"{root}: no set {profile!r}; there are {', '.join(names)}")
        text = write_csv(drawn(store, load(store), profile or names[0]))
        if output is None:
            sys.stdout.write(text)
        else:
            write_text(output, text)
            console().print(
                f"{output}: {counted(text.count(chr(10)) - 1, 'person')}", highlight=False
            )


@shards_app.command()
def export(
    place: Annotated[
        str,
        typer.Argument(
            help="a dataset, or any folder of shards with an index.json", metavar="PLACE"
        ),
    ],
    parquet: Annotated[
        Path,
        typer.Option(
            "--parquet",
            metavar="FOLDER",
            help="where to write Parquet files with the images in them: empty, or an earlier "
            "export, which is brought up to date",
        ),
    ],
    profile: Profile = None,
) -> None:
    """Write a set as Parquet files with images, one a shard, for viewers, polars and pandas.

    Interrupted, it goes on where it was when asked again. Images are compared with their SHA-256 on
    the way. `datasets.load_dataset(FOLDER)` reads the result; so does a viewer of the Hugging Face
    hub.
    """
    with explained():
        from rich.progress import Progress

        from idcluster.shards import open_shards
        from pipeline.shards.export import export_parquet
        from schemas.wording import counted

        shards = open_shards(place, profile)
        shown = console()
        with Progress(console=shown, disable=not shown.is_terminal, transient=True) as progress:
            task = progress.add_task(f"{parquet}", total=len(shards.shards))
            made = export_parquet(shards, parquet, lambda shard: progress.advance(task))
        gone = f", {counted(made.deleted, 'old file')} deleted" if made.deleted else ""
        shown.print(
            f"{parquet}: {counted(made.samples, 'sample')} in {counted(made.files, 'file')}, "
            f"{made.bytes / 1e6:.1f} MB; {made.written} written now{gone}",
            highlight=False,
        )
