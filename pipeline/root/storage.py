"""Files below a dataset root, on a disk or in an object store, reached through fsspec.

Files are put whole or not at all: a reader never sees half a file, whatever happens to the writer. On a disk that is
a temporary file and a rename, in an object store one put (or a multipart upload that is completed or aborted). A store
that is overloaded or away for a while is asked again for up to two minutes.
"""

import contextlib
import errno
import os
import random
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import fsspec


class StorageError(OSError):
    """The store refused an operation; the message names the file and what to look at."""


PATIENCE = 120.0
"""Seconds for which a store that is overloaded or away is asked again."""

_OPTIONS: dict[str, dict[str, Any]] = {
    # Our own patience is on top of these: botocore's answers the single hiccup.
    "s3": {"config_kwargs": {"retries": {"mode": "standard", "max_attempts": 2}, "connect_timeout": 10, "read_timeout": 60}},
}

T = TypeVar("T")


def passing(error: BaseException) -> bool:
    """Whether an error of an object store is one that goes by: overload, a server that restarts, a broken connection."""
    if isinstance(error, FileNotFoundError | FileExistsError | PermissionError | IsADirectoryError):
        return False
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    if isinstance(error, OSError):
        return error.errno in (errno.EBUSY, errno.EREMOTEIO, errno.EIO, errno.ETIMEDOUT, errno.EAGAIN)
    # Errors of the HTTP clients below fsspec have no common class: what is no answer of the server is a broken connection.
    return type(error).__module__.split(".")[0] in ("botocore", "aiohttp") and type(error).__name__ != "ParamValidationError"


def _explained(error: OSError, full: str) -> StorageError:
    hints = {errno.ENOSPC: "the disk is full", errno.EROFS: "the place is read-only", errno.EACCES: "no permission to write there"}
    code = error.errno or errno.EIO
    return StorageError(code, f"cannot write {full}: {hints.get(code, error.strerror or type(error).__name__)}")


def _discard(temporary: str) -> None:
    # On a read-only disk, or below a file instead of a folder, this fails too: the first error is the one to tell.
    with contextlib.suppress(OSError):
        os.unlink(temporary)


def _mark(about: Mapping[str, Any]) -> str:
    """What tells a file from one that was put under its name later, from what a file system says of it."""
    return str(about.get("ETag") or f"{about.get('mtime')} {about.get('ino')}")


class Store:
    """The files of one root. Paths are relative, with `/` between their parts."""

    def __init__(self, root: str | os.PathLike[str], patience: float = PATIENCE) -> None:
        text = os.fspath(root).removeprefix("file://")
        self.local = "://" not in text
        self.patience = patience
        if self.local:
            text = os.path.abspath(os.path.expanduser(text))
            self._fs: Any = fsspec.filesystem("file")
            self._prefix = text
        else:
            # Listings that are remembered hide what others have written since.
            self._fs, self._prefix = fsspec.core.url_to_fs(text, use_listings_cache=False, **_OPTIONS.get(text.split("://")[0], {}))
            self._fs.retries = 1  # s3fs would wait in between as well
        self.root = text.rstrip("/") if len(text) > 1 else text

    def __repr__(self) -> str:
        return f"Store({self.root!r})"

    def _full(self, path: str) -> str:
        parts = path.split("/")
        if path.startswith("/") or ".." in parts or "\x00" in path:
            raise StorageError(f"{path!r} is not a path below the dataset root")
        return f"{self._prefix.rstrip('/')}/{path}"

    def uri(self, path: str) -> str:
        """What other readers (DuckDB, pyarrow) open: a plain path on a disk, a URL elsewhere."""
        return self._full(path) if self.local else f"{self.root}/{path}"

    def patiently(self, action: Callable[[], T]) -> T:
        """What `action` gives, tried again while the store is overloaded or away. Raises what it raises in the end."""
        deadline = time.monotonic() + self.patience
        delay = 0.1
        while True:
            try:
                return action()
            except Exception as error:
                if self.local or not passing(error) or time.monotonic() + delay > deadline:
                    raise
            # Jitter: the workers of a cluster that were refused together must not come back together.
            time.sleep(delay * random.uniform(0.5, 1.5))  # noqa: S311
            delay = min(delay * 2, 8.0)

    def read(self, path: str) -> bytes:
        """All bytes of a file. Raises FileNotFoundError."""
        return cast(bytes, self.patiently(lambda: self._fs.cat_file(self._full(path))))

    def read_part(self, path: str, start: int, length: int) -> bytes:
        """So many bytes of a file from byte `start`; fewer where it ends before. Raises FileNotFoundError."""
        full = self._full(path)
        if not self.local:
            return cast(bytes, self.patiently(lambda: self._fs.cat_file(full, start=start, end=start + length)))
        with open(full, "rb", buffering=0) as file:
            file.seek(start)
            return file.read(length)

    def read_end(self, path: str, length: int) -> bytes:
        """The last bytes of a file, at most so many. Raises FileNotFoundError."""
        size = self.size(path)
        return self.read_part(path, max(0, size - length), min(size, length)) if size else b""

    def open(self, path: str) -> IO[bytes]:
        """A file for random access. Raises FileNotFoundError. Who reads from it does so `patiently`."""
        return cast(IO[bytes], self.patiently(lambda: self._fs.open(self._full(path), "rb")))

    def exists(self, path: str) -> bool:
        full = self._full(path)
        if self.local:
            return os.path.exists(full)
        # One small read: asking for the existence of a key makes fsspec list what is below it as well.
        try:
            self.patiently(lambda: self._fs.cat_file(full, start=0, end=1))
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # An empty file has no first byte to be read: that answer is of one that is there.
        return True

    def size(self, path: str) -> int:
        """Bytes of a file. Raises FileNotFoundError."""
        return int(self.patiently(lambda: self._fs.size(self._full(path))))

    def put(self, path: str, data: bytes, durable: bool = True) -> None:
        """Write a whole file, replacing what was there.

        `durable=False` leaves out the wait for the disk: for work that is cheap to do again after a power cut. Raises
        StorageError when the place is read-only or full.
        """
        full = self._full(path)
        if not self.local:
            self._put_object(full, lambda: self._fs.pipe_file(full, data))
            return
        temporary = self._write_temporary(full, data, durable)
        try:
            os.replace(temporary, full)
        except OSError as error:
            _discard(temporary)
            raise _explained(error, full) from error

    def put_new(self, path: str, data: bytes) -> bool:
        """Write a whole file only if there is none. False when there is one already, which stays as it is."""
        full = self._full(path)
        if not self.local:
            try:
                self._put_object(full, lambda: self._fs.pipe_file(full, data, mode="create"))
            except FileExistsError:
                # The answer to an earlier try may have been lost on the way: then what is there is ours.
                return self.read(path) == data
            return True
        temporary = self._write_temporary(full, data, durable=True)
        try:
            os.link(temporary, full)  # unlike a rename, a link fails where a file is
        except FileExistsError:
            return False
        except OSError as error:
            raise _explained(error, full) from error
        finally:
            _discard(temporary)
        return True

    def put_file(self, path: str, local: str | os.PathLike[str]) -> None:
        """Put a whole local file, for what is too large for memory. The local file may be gone afterwards."""
        full = self._full(path)
        if not self.local:
            self._put_object(full, lambda: self._fs.put_file(os.fspath(local), full))
            return
        temporary = f"{os.path.dirname(full)}/.{secrets.token_hex(8)}.tmp"
        try:
            os.makedirs(os.path.dirname(full), exist_ok=True)
            shutil.move(os.fspath(local), temporary)
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, full)
        except OSError as error:
            _discard(temporary)
            raise _explained(error, full) from error

    def _put_object(self, full: str, action: Callable[[], object]) -> None:
        try:
            self.patiently(action)
        except FileExistsError:
            raise
        except FileNotFoundError as error:
            raise StorageError(errno.ENOENT, f"cannot write {full}: there is no such bucket") from error
        except PermissionError as error:
            raise StorageError(errno.EACCES, f"cannot write {full}: the store refuses these credentials ({error})") from error
        except Exception as error:
            raise StorageError(getattr(error, "errno", None) or errno.EIO, f"cannot write {full}: {error}") from error

    def _write_temporary(self, full: str, data: bytes, durable: bool) -> str:
        temporary = f"{os.path.dirname(full)}/.{secrets.token_hex(8)}.tmp"
        try:
            os.makedirs(os.path.dirname(full), exist_ok=True)
            with open(temporary, "xb") as file:
                file.write(data)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            _discard(temporary)
            raise _explained(error, full) from error
        return temporary

    def delete(self, paths: Iterable[str]) -> None:
        """Delete files; one that is gone already is fine."""
        for path in paths:
            full = self._full(path)
            if self.local:
                Path(full).unlink(missing_ok=True)
            else:
                with contextlib.suppress(FileNotFoundError):
                    self.patiently(lambda full=full: self._fs.rm_file(full))  # type: ignore[misc]

    def list(self, prefix: str) -> list[str]:
        """All files below a directory, sorted; temporary ones too. For `gc` and for finding the newest snapshot only."""
        full = self._full(prefix)
        try:
            found = self.patiently(lambda: self._fs.find(full))
        except FileNotFoundError:
            return []
        start = len(self._prefix.rstrip("/")) + 1
        return sorted(str(path)[start:] for path in found)

    def marks(self, prefix: str) -> dict[str, tuple[int, str]]:
        """All files below a directory with their bytes and a mark that changes when one is put again (its time, or its ETag).

        One listing instead of a look at each.
        """
        full = self._full(prefix)
        try:
            found = self.patiently(lambda: self._fs.find(full, detail=True))
        except FileNotFoundError:
            return {}
        start = len(self._prefix.rstrip("/")) + 1
        return {str(path)[start:]: (int(about["size"]), _mark(about)) for path, about in sorted(found.items())}

    def versioning(self) -> str | None:
        """Whether the store keeps what is deleted or replaced: Enabled, Suspended (what was kept before stays) or None.

        Raises NotImplementedError for stores other than S3, and what the client raises where it may not be asked.
        """
        if self.local:
            return None
        scheme, _, place = self.root.partition("://")
        if scheme != "s3":
            raise NotImplementedError(f"{scheme} is not asked")
        answer = self.patiently(lambda: self._fs.call_s3("get_bucket_versioning", Bucket=place.split("/")[0]))
        state = answer.get("Status")
        return None if state is None else str(state)
