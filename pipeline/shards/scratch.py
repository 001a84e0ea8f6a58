"""Room on this machine's own disk for what does not fit into memory."""

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from idcluster.root.storage import StorageError
from schemas.errors import UserError


class ShardError(UserError, RuntimeError):
    """A shard cannot be planned or written; the message names the image or file."""


@contextmanager
def scratch(what: str) -> Iterator[Path]:
    """A folder that is deleted in the end. Raises ShardError where its disk is full: it says that
    `what` needs room.
    """
    with tempfile.TemporaryDirectory(prefix="idcluster-") as folder:
        try:
            yield Path(folder)
        except OSError as error:
            if isinstance(error, StorageError) or error.errno not in (
                errno.ENOSPC,
                errno.EDQUOT,
                errno.EFBIG,
            ):
                raise
            said = f"cannot write {what} in {tempfile.gettempdir()}: {error.strerror or error}"
            raise ShardError(
                f"{said}; make room there or let TMPDIR name a larger disk, and run again"
            ) from error
