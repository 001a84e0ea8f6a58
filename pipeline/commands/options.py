"""What all commands share: options, the console, and JSON for programs."""

import inspect
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from pipeline.telling import Teller

if TYPE_CHECKING:
    from idcluster.catalogue.snapshot_files import Verify

DagPath = Annotated[
    Path,
    typer.Argument(
        help="DAG file (YAML); dags/quickstart.yaml shows what can stand in it", metavar="DAG"
    ),
]
Root = Annotated[str, typer.Argument(help="dataset root: a folder", metavar="ROOT")]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="change a field of the DAG: --set root=out/ --set stages.clean.params.near_tie=0.8",
    ),
]
Only = Annotated[
    str | None,
    typer.Option("--only", metavar="STAGES", help="these stages alone: --only clean,shard"),
]
Limit = Annotated[
    int | None,
    typer.Option("--limit", min=1, help="work on at most so many images, to try a DAG out"),
]
Where = Annotated[
    str | None,
    typer.Option(
        "--where",
        metavar="SQL",
        help='only images that match, by columns of candidates and identities: --where "name '
        "= 'Ada'\"",
    ),
]
Retry = Annotated[
    str | None,
    typer.Option(
        "--retry",
        metavar="SQL",
        help="compute rows that are not ok again: --retry \"reason = 'decode_error'\"",
    ),
]
Models = Annotated[
    str | None,
    typer.Option(
        "--models",
        envvar="IDCLUSTER_MODELS",
        metavar="DIR",
        help="folder that holds weight files, by name or anywhere below",
    ),
]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose",
        "-v",
        help="say more: why there is something to do, workers, publications, Ray's logs",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="say nothing but warnings and errors")]
LogFile = Annotated[
    Path | None,
    typer.Option(
        "--log-file",
        metavar="FILE",
        help="append all that -v says to a file, each line with the time",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON, for programs")]
SnapshotNumber = Annotated[
    int | None, typer.Option("--snapshot", help="look at an older snapshot (default: the newest)")
]

Verified = Annotated[
    str,
    typer.Option(
        "--verify",
        help="how what is read is compared with what was written: crc, digest (whole files) or "
        "none",
    ),
]


def verifying(said: str) -> "Verify":
    """What `--verify` says, checked. Raises QueryError."""
    from idcluster.catalogue.connection import QueryError
    from idcluster.catalogue.snapshot_files import VERIFY

    found = next((one for one in VERIFY if one == said), None)
    if found is None:
        raise QueryError(f"no way to verify {said!r}; there are {', '.join(VERIFY)}")
    return found


def check_text(*texts: str | None) -> None:
    """Raise UnicodeEncodeError for what is no text in UTF-8, as words of a command line can be."""
    for text in texts:
        (text or "").encode()


def console(stderr: bool = False) -> Console:
    return teller(0, stderr)


def teller(level: int, stderr: bool = False) -> Teller:
    # Names of people and paths are shown as they are, brackets and all.
    made = Teller(level, highlight=False, soft_wrap=True, markup=False, stderr=stderr)
    if not made.is_terminal:
        made.width = 200  # one line a row in files and pipes
    return made


def print_json(value: Any) -> None:
    """The one thing that a command with --json prints."""
    sys.stdout.write(json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n")


def with_help(app: typer.Typer) -> typer.Typer:
    """The commands of an app with their docstrings as help, a paragraph a line: the terminal wraps
    them.
    """
    for command in app.registered_commands:
        said = inspect.getdoc(command.callback) or ""
        command.help = "\n\n".join(" ".join(part.split()) for part in said.split("\n\n"))
    for group in app.registered_groups:
        if group.typer_instance is not None:
            with_help(group.typer_instance)
    return app
