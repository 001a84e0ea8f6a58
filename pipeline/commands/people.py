"""The commands on people: `idcluster review`, `idcluster inspect` and `idcluster correct`."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.explained import explained
from pipeline.commands.options import Root, SnapshotNumber, check_text, console

people_app = typer.Typer()

Faces = list[str] | None
Pairs = list[str] | None


@people_app.command()
def review(
    root: Root,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="where the page goes")
    ] = Path("review.html"),
    everybody: Annotated[
        bool, typer.Option("--all", help="after the doubtful, all others as well")
    ] = False,
    where: Annotated[
        str | None,
        typer.Option(
            "--where",
            metavar="SQL",
            help="only people who match, by name, kept, cleaned, images, clusters, margin, flags, "
            'nearest_cosine, shared: --where "margin > 0.7"',
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", min=1, help="at most so many people, the most doubtful")
    ] = 1_000,
    faces: Annotated[
        int,
        typer.Option(
            "--faces",
            min=1,
            max=1_000,
            help="faces of a person that are drawn; more have decisions by cluster alone",
        ),
    ] = 24,
    max_mb: Annotated[
        float, typer.Option("--max-mb", min=1, help="megabytes of the page; faces go first")
    ] = 128.0,
    photos_mb: Annotated[
        float,
        typer.Option(
            "--photos-mb",
            min=0,
            help="of these for whole photographs; the others are named by their address",
        ),
    ] = 24.0,
    snapshot: SnapshotNumber = None,
) -> None:
    """Write one HTML page on which people are looked at and decided about by keyboard: the
    doubtful first, each with why.

    The page needs no network and no server. Open it in a browser and press ? for the keys: keep or
    reject a face, a whole cluster with Shift, say whether two names are one person, go on with
    Enter. Decisions stay in the browser, also when the page is closed or made anew.

    Key d downloads them as decisions.csv. Then: idcluster correct ROOT --csv decisions.csv, and
    idcluster run applies them.

    It shows faces: keep it as private as the root.
    """
    with explained():
        from idcluster.root.dataset_root import open_root
        from idcluster.root.snapshot import load
        from pipeline.report.review_page import NothingToReview, Room, write_review
        from schemas.wording import counted

        check_text(where)
        store = open_root(root)
        room = Room(limit, faces, max_mb, min(photos_mb, max_mb / 2))
        screen = console()
        try:
            made = write_review(
                store, load(store, snapshot), output, room, everybody=everybody, where=where
            )
        except NothingToReview as error:
            screen.print(str(error))
            return
        left = [
            counted(number, what)
            for number, what in (
                (made.left_out, "person"),
                (made.more_faces, "face"),
                (made.more_photos, "whole photograph"),
            )
            if number
        ]
        screen.print(
            f"{counted(made.people, 'person')} to look at, {made.doubtful} of them doubtful; "
            f"{counted(made.faces, 'face')}, {counted(made.photos, 'whole photograph')}, "
            f"{made.bytes / 1e6:.1f} MB"
        )
        if left:
            screen.print(
                f"not on the page: {', '.join(left)} (--limit, --faces, --max-mb, --photos-mb)"
            )
        print(made.path)


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
