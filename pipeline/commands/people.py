"""The commands on single people: `idcluster inspect` and `idcluster correct`."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.explained import explained
from pipeline.commands.options import Root, SnapshotNumber, check_text, console

people_app = typer.Typer()

Faces = list[str] | None
Pairs = list[str] | None


@people_app.command()
def inspect(
    root: Root,
    person: Annotated[str, typer.Argument(help="a name, or an identity_id", metavar="PERSON")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="where the page goes")
    ] = Path(),
    snapshot: SnapshotNumber = None,
) -> None:
    """Write a page (HTML) and a contact sheet (PNG) of one person: kept and rejected faces, why, by
    similarity; to correct by hand.
    """
    with explained():
        from idcluster.root.dataset_root import open_root
        from idcluster.root.snapshot import load
        from pipeline.report.person_page import write_page

        check_text(person)
        store = open_root(root)
        page = write_page(store, load(store, snapshot), person, output)
        console().print(f"{page.name}: {page.kept} kept, {page.rejected} rejected", highlight=False)
        print(page.html)
        print(page.png)


@people_app.command()
def correct(
    root: Root,
    keep: Annotated[
        Faces,
        typer.Option(
            "--keep", metavar="FACE", help="this face is the person, whatever any rule says"
        ),
    ] = None,
    reject: Annotated[
        Faces, typer.Option("--reject", metavar="FACE", help="this face is not the person")
    ] = None,
    merge: Annotated[
        Pairs,
        typer.Option(
            "--merge", metavar="A=B", help="two people, by name or identity_id, who are one"
        ),
    ] = None,
    split: Annotated[
        Pairs,
        typer.Option(
            "--split", metavar="A=B", help="two people who are not one, however alike they look"
        ),
    ] = None,
    clear: Annotated[
        Faces, typer.Option("--clear", metavar="FACE|PERSON", help="take an earlier decision back")
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(
            "--csv",
            help="decisions of a file: action,subject,target; `review` and `inspect` save one",
        ),
    ] = None,
    author: Annotated[
        str | None, typer.Option("--author", help="who decided (default: your user name)")
    ] = None,
) -> None:
    """Decide by hand about faces and people. Decisions outlive re-runs and win over every rule; the
    next run applies them.
    """
    with explained():
        from idcluster.root.dataset_root import new_run_id, open_root
        from pipeline.correct import Decision, pair_of, read_csv
        from pipeline.correct import correct as write_down
        from schemas.wording import counted, verb

        check_text(
            author, *(word for given in (keep, reject, merge, split, clear) for word in given or ())
        )
        decisions = [] if table is None else read_csv(table)
        for action, faces in (("keep", keep), ("reject", reject), ("clear", clear)):
            decisions += [Decision(action, face) for face in faces or ()]
        for action, pairs in (("merge", merge), ("apart", split)):
            decisions += [pair_of(action, pair) for pair in pairs or ()]
        store = open_root(root)
        made, changed = write_down(
            store, decisions, f"correct-{new_run_id()}", author, console().print
        )
        if changed:
            said = f"{counted(changed, 'decision')} written down, snapshot {made.number}"
            console().print(
                f"{said}; `idcluster run` applies {verb(changed, 'it', 'them')}", highlight=False
            )
        else:
            console().print("nothing changed", highlight=False)
