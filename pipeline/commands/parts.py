"""What all commands share: options, the console, and errors that a user can mend told without a
traceback.
"""

import json
import shlex
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from pipeline.telling import Teller

if TYPE_CHECKING:
    from pipeline.catalogue.snapshot_files import Verify

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
    typer.Option("--limit", min=1, help="work on at most so many pictures, to try a DAG out"),
]
Where = Annotated[
    str | None,
    typer.Option(
        "--where",
        metavar="SQL",
        help='only pictures that match, by columns of candidates and identities: --where "name '
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
    from pipeline.catalogue.connection import QueryError
    from pipeline.catalogue.snapshot_files import VERIFY

    found = next((one for one in VERIFY if one == said), None)
    if found is None:
        raise QueryError(f"no way to verify {said!r}; there are {', '.join(VERIFY)}")
    return found


_EXPECTED = {
    "eval.cleaning": "BadLabels",
    "eval.recognition": "BadLabels",
    "eval.thresholds": "TooFew",
    "pipeline.catalogue.connection": "QueryError",
    "pipeline.commands.parts": "Usage",
    "pipeline.correct": "BadDecision",
    "pipeline.dag": "DagError",
    "pipeline.weights.download": "DownloadError",
    "pipeline.execution.engine": "EngineError",
    "pipeline.root.files": "DamagedFile",
    "pipeline.root.lease": "LeaseHeld",
    "pipeline.weights.licences": "NotAccepted",
    "pipeline.root.opening": "RunError",
    "pipeline.samples": "MissingSample",
    "pipeline.shards.check": "CheckError",
    "pipeline.shards.scratch": "ShardError",
    "pipeline.root.snapshot": "SnapshotError",
    "pipeline.shards.split_lists": "BadList",
    "pipeline.root.storage": "StorageError",
    "schemas": "SchemaError",
    "stages.crawl.listing": "SourceError",
    "stages.onnx_session": "WrongModel",
    "stages.stage": "NoDevice",
    "stages.torch_session": "BadCheckpoint",
    "stages.weights": "MissingWeights",
    "stages.weights.local": "BadRegistry",
    "stages.weights.pinning": "Wrong",
    "stages.weights.registry": "UnknownWeights",
}
"""Errors whose message says what to do, by module."""


class Watch:
    """What `explained` gives: consoles whose log file hears of errors as well."""

    def __init__(self) -> None:
        self._log: Teller | None = None

    def console(self, verbose: bool, quiet: bool, log_file: Path | None) -> Teller:
        """A console that says as much as was asked for. Raises OSError for a file that cannot be
        written, and Usage.
        """
        if verbose and quiet:
            raise Usage("-v and -q exclude each other; --log-file keeps what is not said")
        made = _teller(1 if verbose else -1 if quiet else 0)
        if log_file is not None:
            log_file.parent.mkdir(parents=True, exist_ok=True)
            made.log_file = log_file.open("a", encoding="utf-8", errors="backslashreplace")
            made.note(f"idcluster {' '.join(map(shlex.quote, sys.argv[1:]))}")
            self._log = made
        return made

    def note(self, text: str) -> None:
        if self._log is not None:
            self._log.note(text)

    def close(self) -> None:
        """Close the log file."""
        if self._log is not None and self._log.log_file is not None:
            with suppress(OSError):  # a full disk, which was told when it was written to
                self._log.log_file.close()
            self._log.log_file = None


class Usage(ValueError):
    """Something was asked in a way that has no answer."""

    exit_code = 2


@contextmanager
def explained() -> Iterator[Watch]:
    """Errors that a user can mend as text without a traceback.

    The exit code is the error's `exit_code`: 2 where the command line, the DAG, or a file of
    decisions, labels or splits asks for what is not there or cannot be meant; else 1.
    """
    watch = Watch()
    try:
        yield watch
    except KeyboardInterrupt as error:
        watch.note("idcluster: broken off")
        print("idcluster: broken off; run again to go on", file=sys.stderr)
        raise typer.Exit(130) from error
    except Exception as error:
        told = _told(error)
        if told is None:
            watch.note("".join(traceback.format_exception(error)))
            raise
        watch.note(f"idcluster: {told}")
        print(f"idcluster: {told}", file=sys.stderr)
        raise typer.Exit(getattr(error, "exit_code", 1)) from error
    finally:
        watch.close()


def _told(error: Exception) -> str | None:
    """What to say of an error; None for one that is the program's own fault."""
    # What has not been imported cannot have been raised, and importing it may need packages that
    # are not installed.
    expected = tuple(
        getattr(sys.modules[module], name)
        for module, name in _EXPECTED.items()
        if module in sys.modules
    )
    if isinstance(error, expected):
        return str(error.strerror or error) if isinstance(error, OSError) else str(error)
    if "pipeline.catalogue.connection" in sys.modules and type(error).__module__.lstrip("_").split(
        "."
    )[0] in ("duckdb", "pyarrow"):
        met = sys.modules["pipeline.catalogue.connection"].damage(error)
        if met is not None:
            return str(met)
    if isinstance(error, NotADirectoryError) and error.filename:
        return f"{error.filename}: a folder on the way there is a file; name another place"
    if isinstance(error, FileNotFoundError):
        return f"{error.filename or error}: no such file"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, OSError) and error.strerror and not isinstance(error, BrokenPipeError):
        return f"{error.strerror.lower()}: a file or place that was named cannot be read or written"
    if isinstance(error, UnicodeEncodeError) and "surrogates" in error.reason:
        return f"{error.object[:60]!r} is no UTF-8 text; names and addresses have to be"
    if (
        isinstance(error, ModuleNotFoundError)
        and error.name
        and error.name.split(".")[0] not in ("pipeline", "stages", "schemas")
    ):
        return (
            f"this needs the package {error.name}, which is not installed: pip install "
            "'idcluster[faces]'"
        )
    return None


def check_text(*texts: str | None) -> None:
    """Raise UnicodeEncodeError for what is no text in UTF-8, as words of a command line can be."""
    for text in texts:
        (text or "").encode()


def console(stderr: bool = False) -> Console:
    return _teller(0, stderr)


def _teller(level: int, stderr: bool = False) -> Teller:
    # Names of people and paths are shown as they are, brackets and all.
    made = Teller(level, highlight=False, soft_wrap=True, markup=False, stderr=stderr)
    if not made.is_terminal:
        made.width = 200  # one line a row in files and pipes
    return made


def print_json(value: Any) -> None:
    """The one thing that a command with --json prints."""
    sys.stdout.write(json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n")
