"""The command `idcluster forget`."""

import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.commands.explained import Usage, explained
from pipeline.commands.options import Models, Root, console

if TYPE_CHECKING:
    from idcluster.root.storage import Store
    from pipeline.forget.erase import Done
    from pipeline.forget.preview import PreparedErasure
    from pipeline.forget.wish import Wish

forget_app = typer.Typer()

_Many = list[str] | None
_SHOWN = 20


@forget_app.command()
def forget(
    root: Root,
    identity: Annotated[
        _Many,
        typer.Option(
            "--identity", metavar="NAME|ID", help="a person, by name, external id or identity_id"
        ),
    ] = None,
    url: Annotated[
        _Many,
        typer.Option("--url", metavar="URL", help="images from this address, whoever's they are"),
    ] = None,
    sha256: Annotated[
        _Many,
        typer.Option(
            "--sha256", metavar="HEX", help="this image and its copies, whoever's they are"
        ),
    ] = None,
    like: Annotated[
        list[Path] | None,
        typer.Option("--like", metavar="PHOTO", help="whoever is in this photograph"),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold",
            metavar="COSINE",
            min=-1,
            max=1,
            help="least cosine of a face to be the person",
        ),
    ] = None,
    own_only: Annotated[
        bool,
        typer.Option(
            "--own-only",
            help="leave images of others alone in which only face or name say that it is the "
            "person",
        ),
    ] = False,
    bar_unknown: Annotated[
        bool, typer.Option("--bar-unknown", help="bar what is not in the dataset (yet) too")
    ] = False,
    bar_face: Annotated[
        bool,
        typer.Option(
            "--bar-face",
            help="bar the face as well, by its vector, which is biometric data and stays in the "
            "root",
        ),
    ] = False,
    sheet: Annotated[
        Path | None,
        typer.Option(
            "--sheet", metavar="FOLDER", help="keep the contact sheet of who would go there"
        ),
    ] = None,
    dag: Annotated[
        Path | None,
        typer.Option(
            "--dag", metavar="DAG", help="the DAG whose detector and recogniser look at --like"
        ),
    ] = None,
    models: Models = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="show what would go, remove nothing")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="finish a removal that was broken off")
    ] = False,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="look through every file for what was removed, and for what is named here; "
            "remove nothing;"
            " exit code 1 where something is left, 2 for a name that was never here",
        ),
    ] = False,
) -> None:
    """Remove people and images from every table, version, snapshot, shard and record, for good,
    and bar them from coming back.

    Shows first what would go. An interrupted removal is finished by the next one, or by --resume.
    """
    with explained():
        from idcluster.root.dataset_root import RunError, new_run_id, open_root
        from idcluster.root.removals import UNFINISHED
        from pipeline.forget.erase import resume as go_on
        from pipeline.forget.wish import Wish

        store = open_root(root)
        wish = Wish(
            tuple(identity or ()),
            _addresses(url or ()),
            tuple(value.strip().lower() for value in sha256 or ()),
            (),
            threshold,
            not own_only,
            bar_unknown,
            bar_face,
        )
        _check_asked(wish, bool(like), resume, verify, sheet, store)
        if verify:
            _verify(store, wish)
            return
        out = console()
        if store.exists(UNFINISHED) and not dry_run:
            out.print("finishing a removal that was broken off")
            done = go_on(store, f"forget-{new_run_id()}", out.print, out.print)
            if done is not None:
                _tell_done(store, done)
        elif resume:
            out.print("no removal was broken off")
        if resume:
            return
        if like:
            wish = _with_likenesses(store, wish, like, models, dag)
        if dry_run and store.exists(UNFINISHED):
            raise RunError(
                f"a removal from {store.root} was broken off; finish it first: idcluster forget "
                f"{store.root} --resume"
            )
        _remove(store, wish, sheet, dry_run, yes)


def _remove(store: "Store", wish: "Wish", sheet: Path | None, dry_run: bool, yes: bool) -> None:
    from idcluster.root.dataset_root import new_run_id
    from pipeline.forget.erase import forget as remove
    from pipeline.forget.like import write_sheet
    from pipeline.forget.preview import prepare

    out = console()
    prepared = prepare(store, wish, out.print)
    _tell(prepared, wish)
    asks = not (yes or dry_run)
    if asks and not _asks_somebody():
        raise Usage(
            "nobody is there to be asked: say --yes to remove this, or --dry-run to look only"
        )
    temporary = (
        None
        if sheet is not None or not asks
        else Path(tempfile.mkdtemp(prefix="idcluster-forget-"))
    )
    try:
        folder = sheet or temporary
        drawn = (
            None
            if folder is None or prepared.found.nothing
            else write_sheet(store, prepared.found, folder)
        )
        if drawn is not None:
            out.print(f"look at {drawn}" + ("" if sheet else " (deleted once you have answered)"))
        if dry_run:
            out.print("nothing was removed (--dry-run)")
            return
        if asks and not typer.confirm("Remove all of this for good?"):
            out.print("nothing was removed")
            raise typer.Exit(1)
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    _tell_done(store, remove(store, prepared, f"forget-{new_run_id()}", out.print, out.print))


def _asks_somebody() -> bool:
    return sys.stdin.isatty()


def _check_asked(
    wish: "Wish", like: bool, resume: bool, verify: bool, sheet: Path | None, store: "Store"
) -> None:
    if not (wish or like or resume or verify):
        raise Usage("name somebody or something: --identity, --url, --sha256 or --like")
    bad = [
        value for value in wish.sha256s if len(value) != 64 or set(value) - set("0123456789abcdef")
    ]
    if bad:
        raise Usage(f"--sha256 {bad[0]}: a SHA-256 has 64 hexadecimal digits")
    if verify and like:
        raise Usage("--verify does not look at photographs; name the person by --identity")
    if (
        sheet is not None
        and store.local
        and sheet.resolve().is_relative_to(Path(store.root).resolve())
    ):
        raise Usage(
            f"--sheet {sheet} lies in the dataset, which is to hold nothing of the person; name "
            "another folder"
        )


def _addresses(urls: "list[str] | tuple[()]") -> tuple[str, ...]:
    """As given, and as sources write them."""
    from stages.crawl.web.address import BadAddress, canonical

    found: dict[str, None] = {}
    for text in urls:
        found[text] = None
        try:
            found[canonical(text)] = None
        except BadAddress:
            continue
    return tuple(found)


def _with_likenesses(
    store: "Store", wish: "Wish", photographs: list[Path], models: str | None, dag: Path | None
) -> "Wish":
    from dataclasses import replace

    from pipeline.dag import load_dag
    from pipeline.forget.like import likeness

    loaded = None if dag is None else load_dag(dag, (), models)
    return replace(
        wish, likes=tuple(likeness(store, photograph, models, loaded) for photograph in photographs)
    )


def _tell(prepared: "PreparedErasure", wish: "Wish") -> None:
    from schemas.wording import counted

    out, found = console(), prepared.found
    for person, name in list(found.people.items())[:_SHOWN]:
        out.print(f"{name} ({person}): {found.why[person]}")
    if len(found.people) > _SHOWN:
        out.print(f"... and {counted(len(found.people) - _SHOWN, 'more person')}")
    own = len(found.images) - len(found.others)
    whose = f" (of {counted(prepared.lean, 'person')})" if prepared.lean else ""
    out.print(f"images: {own} of theirs, {len(found.others)} under other names{whose}")
    for why, count in Counter(
        reason.split(" (")[0] for reason in found.others.values()
    ).most_common():
        out.print(f"  {count} by {why}")
    if prepared.rows:
        out.print(
            "rows: "
            + ", ".join(f"{count} {table}" for table, count in sorted(prepared.rows.items()))
        )
    for profile, count in sorted(prepared.shards.items()):
        how = (
            "written anew"
            if profile in prepared.journal["replan"]
            else "dropped until the next run: they are behind the tables"
        )
        out.print(f"shards of {profile}: {count} {how}")
    if prepared.snapshots:
        out.print(
            f"snapshots that are put again without them: {', '.join(map(str, prepared.snapshots))}"
        )
    for path, what in prepared.files[:_SHOWN]:
        out.print(f"{path}: {what}")
    if len(prepared.files) > _SHOWN:
        out.print(f"... and {counted(len(prepared.files) - _SHOWN, 'more file')}")
    shared = sorted(found.shared_names)
    notes = [
        *found.notes,
        *(
            [f"not barred by name, for others who stay have it too: {', '.join(shared)}"]
            if shared
            else []
        ),
    ]
    if not wish.bar_face and found.images:
        notes.append(
            "copies under another name are known again if they are scaled, mirrored, cropped by "
            "up to a tenth a side or turned by up to 4"
            " degrees, not all of them (docs/erasure.md), and other photographs of the person "
            "are not: --bar-face knows the face itself"
        )
    if wish.bar_face:
        notes.append(
            "the face is barred by a vector, which is biometric data and stays in receipts/"
        )
    for note in notes:
        out.print(f"note: {note}", style="yellow")
    for warning in prepared.warnings:
        out.print(f"warning: {warning}", style="yellow")


def _tell_done(store: "Store", done: "Done") -> None:
    from schemas.wording import counted

    out = console()
    removed = done.receipt.removed
    gone = f"{counted(removed['people'], 'person')} and {counted(removed['pictures'], 'image')}"
    out.print(f"removed {gone}; snapshot {done.number} shows the rest")
    for profile in done.unshown:
        out.print(
            f"note: shards of {profile} lack people who stay until the next run writes them",
            style="yellow",
        )
    if removed["of_others"]:
        out.print("people who stay lost images: the next run cleans them anew")
    print(f"receipt: {store.uri(done.receipt.path)}")


def _verify(store: "Store", wish: "Wish") -> None:
    from pipeline.forget.verify import verify
    from schemas.wording import counted, verb

    out = console()
    checked = verify(store, wish.identities, wish.urls, wish.sha256s)
    for leftover in checked.leftovers:
        print(f"{leftover.path}: {leftover.where}: {leftover.what}")
    for path in checked.unread:
        out.print(f"note: {path}: nobody can tell who is on it", style="yellow")
    said = f"{counted(checked.files, 'file')}, {counted(checked.values, 'value')} looked at"
    if checked.leftovers:
        out.print(
            f"{said}: {counted(len(checked.leftovers), 'place')} "
            f"{verb(len(checked.leftovers), 'holds', 'hold')} what was removed"
        )
        raise typer.Exit(1)
    out.print(f"{said}: nothing is left")
    for asked in checked.strangers:
        print(
            f"{asked!r} was never removed from here and is nowhere: look whether it is written "
            "as it was"
        )
    if checked.strangers:
        raise typer.Exit(2)
