"""Local files that a command writes for its user: whole under their name, or not at all."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def aside(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Where to write what is to be `path`: beside it, under its name when the block ends, deleted
    when the block fails.

    What is no ordinary file (a pipe, a terminal) is written directly. A link goes on pointing where
    it did. Raises OSError with `path` as its file name.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        yield target
        return
    # The ending stays, for those who take the format from it.
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp{target.suffix}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        if target.exists():
            temporary.chmod(target.stat().st_mode & 0o7777)
        temporary.replace(target)
    except OSError as error:
        if error.filename == str(temporary):
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        raise
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """A text in UTF-8 as a whole file, its line ends as they are. Raises OSError."""
    with aside(path) as place:
        place.write_text(text, encoding="utf-8", newline="")
