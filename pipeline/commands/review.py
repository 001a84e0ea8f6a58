"""The command on which people are decided about in one sitting: `idcluster review`."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipeline.commands.explained import explained
from pipeline.commands.options import Root, SnapshotNumber, check_text, console

review_app = typer.Typer()

_LINES_SECONDS = 10.0


@review_app.command()
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
                store,
                load(store, snapshot),
                output,
                room,
                everybody=everybody,
                where=where,
                progress=_progress(screen),
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


def _progress(screen: Console) -> Callable[[int, int], None]:
    """One line that is written over on a terminal, else a line every ten seconds; on standard
    error.
    """
    state = {"told": time.monotonic()}

    def told(done: int, of: int) -> None:
        now, terminal = time.monotonic(), screen.is_terminal
        if now - state["told"] < (0.2 if terminal else _LINES_SECONDS) and not (
            terminal and done == of
        ):
            return
        state["told"] = now
        text = f"drawn {done} of {of} people"
        sys.stderr.write(f"\r{text}" + ("\n" if done == of else "") if terminal else f"{text}\n")
        sys.stderr.flush()

    return told
