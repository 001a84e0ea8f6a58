"""What all commands share: options, the console, and errors that a user can mend told without a traceback."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from pipeline.catalogue.snapshot_files import Verify

DagPath = Annotated[Path, typer.Argument(help="DAG file (YAML); dags/quickstart.yaml shows what can stand in it", metavar="DAG")]
Root = Annotated[str, typer.Argument(help="dataset root: a folder", metavar="ROOT")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="change a field of the DAG: --set source.path=people/ --set stages.clean.params.near_tie=0.8"),
]
Only = Annotated[str | None, typer.Option("--only", metavar="STAGES", help="these stages alone: --only clean,shard")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="work on at most so many pictures, to try a DAG out")]
Where = Annotated[
    str | None,
    typer.Option(
        "--where", metavar="SQL", help="only pictures that match, by columns of candidates and identities: --where \"name = 'Ada'\""
    ),
]
Retry = Annotated[
    str | None,
    typer.Option("--retry", metavar="SQL", help="compute rows that are not ok again: --retry \"reason = 'decode_error'\""),
]
Models = Annotated[
    str | None,
    typer.Option("--models", envvar="IDCLUSTER_MODELS", metavar="DIR", help="folder that holds weight files, by name or anywhere below"),
]
SnapshotNumber = Annotated[int | None, typer.Option("--snapshot", help="look at an older snapshot (default: the newest)")]

Verified = Annotated[
    str, typer.Option("--verify", help="how what is read is compared with what was written: crc, digest (whole files) or none")
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


@contextmanager
def explained() -> Iterator[None]:
    """Errors that a user can mend as text without a traceback; exit code 2 for what was asked wrongly, else 1."""
    try:
        yield
    except KeyboardInterrupt as error:
        print("idcluster: broken off; run again to go on", file=sys.stderr)
        raise typer.Exit(130) from error
    except Exception as error:
        told = _told(error)
        if told is None:
            raise
        print(f"idcluster: {told}", file=sys.stderr)
        raise typer.Exit(2 if type(error).__name__ in ("DagError", "QueryError") else 1) from error


def _told(error: Exception) -> str | None:
    """What to say of an error; None for one that is the program's own fault."""
    # What has not been imported cannot have been raised, and importing it may need packages that are not installed.
    expected = tuple(getattr(sys.modules[module], name) for module, name in _EXPECTED.items() if module in sys.modules)
    if isinstance(error, expected):
        return str(error.strerror or error) if isinstance(error, OSError) else str(error)
    if "pipeline.catalogue.connection" in sys.modules and type(error).__module__.lstrip("_").split(".")[0] in ("duckdb", "pyarrow"):
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
    if isinstance(error, ModuleNotFoundError) and error.name and error.name.split(".")[0] not in ("pipeline", "stages", "schemas"):
        return f"this needs the package {error.name}, which is not installed: pip install 'idcluster[faces]'"
    return None


def check_text(*texts: str | None) -> None:
    """Raise UnicodeEncodeError for what is no text in UTF-8, as words of a command line can be."""
    for text in texts:
        (text or "").encode()


def console(stderr: bool = False) -> Console:
    # Names of people and paths are shown as they are, brackets and all.
    made = Console(highlight=False, soft_wrap=True, markup=False, stderr=stderr)
    if not made.is_terminal:
        made.width = 200  # one line a row in files and pipes
    return made
