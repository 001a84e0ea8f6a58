"""The command `idcluster check`."""

import json
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.commands.explained import explained
from pipeline.commands.options import Root, console

if TYPE_CHECKING:
    from pipeline.check.look import Checked, Told
    from pipeline.check.repair import Repaired

check_app = typer.Typer()
_LINES_SECONDS = 10.0


@check_app.command()
def check(
    root: Root,
    deep: Annotated[
        bool,
        typer.Option(
            "--deep",
            help="decode everything as well: rows, photographs, companions, every member of "
            "every shard",
        ),
    ] = False,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair", help="drop what is damaged and can be computed again; the next run does so"
        ),
    ] = False,
    again: Annotated[
        bool,
        typer.Option("--again", help="read again what a check of the last day has found whole"),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Read all that the kept snapshots of a dataset name and say what is missing, damaged or does
    not fit; exit code 1 if anything is.
    """
    with explained():
        from idcluster.root.dataset_root import new_run_id, open_root
        from pipeline.check.look import look
        from pipeline.check.repair import repair as mend

        store = open_root(root)
        shown = console(stderr=True)
        checked = look(store, deep, again, _progress(shown))
        mended = (
            mend(store, checked, f"check-{new_run_id()}", shown.print)
            if repair and checked.faults
            else None
        )
        if as_json:
            print(json.dumps(_as_json(store.root, checked, mended), indent=1, ensure_ascii=False))
        else:
            _print(checked, mended)
        if mended.left if mended else checked.faults:
            raise typer.Exit(1)


def _progress(shown: Any) -> "Told":
    """One line that is written over on a terminal, else a line every ten seconds; on standard
    error.
    """
    state = {"told": time.monotonic()}

    def told(files: int, of: int, done: int, total: int) -> None:
        now, terminal = time.monotonic(), shown.is_terminal
        if now - state["told"] < (0.2 if terminal else _LINES_SECONDS) and not (
            terminal and files == of
        ):
            return
        state["told"] = now
        text = f"read {files} of {of} files, {done / 1e9:.2f} of {total / 1e9:.2f} GB"
        sys.stderr.write(f"\r{text}" + ("\n" if files == of else "") if terminal else f"{text}\n")
        sys.stderr.flush()

    return told


def _print(checked: "Checked", mended: "Repaired | None") -> None:
    done = {fault.path: what for fault, what in mended.done} if mended else {}
    for fault in checked.faults:
        print(
            f"{fault.path}: {fault.what}; {done[fault.path]}" if fault.path in done else str(fault)
        )
    for note in checked.notes:
        print(f"note: {note}")
    if mended is not None and mended.published is not None:
        print(f"published snapshot {mended.published} without what is damaged; run again")
    from schemas.wording import counted

    kept = counted(len(checked.kept), "snapshot")
    size = f"{kept}, {counted(checked.files, 'file')} read, {checked.bytes / 1e6:.1f} MB"
    left = len(mended.left if mended else checked.faults)
    said = (
        "nothing wrong"
        if not checked.faults
        else counted(len(checked.faults), "fault") + (f", {left} left" if mended else "")
    )
    print(f"{size}: {said}")


def _as_json(root: str, checked: "Checked", mended: "Repaired | None") -> dict[str, Any]:
    done = {fault.path: what for fault, what in mended.done} if mended else {}
    return {
        "root": root,
        "snapshots": sorted(checked.kept),
        "files_read": checked.files,
        "bytes_read": checked.bytes,
        "files_not_read_again": checked.not_again,
        "published": mended.published if mended else None,
        "notes": checked.notes,
        "faults": [
            {
                "path": fault.path,
                "kind": fault.kind,
                "what": fault.what,
                "remedy": fault.remedy,
                "repaired": done.get(fault.path),
            }
            for fault in checked.faults
        ],
    }
