"""Errors that a user can mend, told without a traceback."""

import shlex
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import typer

from pipeline.commands.options import teller
from pipeline.telling import Teller
from schemas.errors import UserError


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
        made = teller(1 if verbose else -1 if quiet else 0)
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


class Usage(UserError, ValueError):
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
        raise typer.Exit(error.exit_code if isinstance(error, UserError) else 1) from error
    finally:
        watch.close()


def _told(error: Exception) -> str | None:
    """What to say of an error; None for one that is the program's own fault."""
    if isinstance(error, UserError):
        return str(error.strerror or error) if isinstance(error, OSError) else str(error)
    # What has not been imported cannot have been raised, and importing it may need packages that
    # are not installed.
    if "idcluster.catalogue.connection" in sys.modules and type(error).__module__.lstrip("_").split(
        "."
    )[0] in ("duckdb", "pyarrow"):
        met = sys.modules["idcluster.catalogue.connection"].damage(error)
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
        and error.name.split(".")[0]
        not in ("idcluster", "pipeline", "stages", "schemas", "eval", "training")
    ):
        return (
            f"this needs the package {error.name}, which is not installed: pip install "
            "'idcluster[faces]'"
        )
    return None
