"""Files below a dataset root, on a disk or in an object store, reached through fsspec.

Files are put whole or not at all: a reader never sees half a file, whatever happens to the writer.
On a disk that is a temporary file and a rename, in an object store one put (or a multipart upload
that is completed or aborted). A store that is overloaded or away for a while is asked again for up
to two minutes, and so is one whose answer takes longer than the slowest line would need for it.
"""

import contextlib
import errno
import os
import random
import secrets
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import fsspec
from fsspec.spec import AbstractBufferedFile

from schemas.errors import UserError


class StorageError(UserError, OSError):
    """The store refused an operation; the message names the file and what to look at."""


PATIENCE = 120.0
"""Seconds for which a store that is overloaded or away is asked again."""
ANSWER_SECONDS = 20.0
"""For so long one answer of a store is waited for, whole, and longer by what `SLOWEST` needs for
its bytes. A lease is renewed in time though one answer never comes.
"""
SLOWEST = 30_000
"""Bytes a second below which an answer counts as stalled: one that trickles would never meet a
limit of silence alone.
"""
_LISTING_SECONDS = 3600.0
_BLOCK = 8 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT)

_OPTIONS: dict[str, dict[str, Any]] = {
    # Our own patience is on top of these: botocore's answers the single hiccup.
    "s3": {
        "config_kwargs": {
            "retries": {"mode": "standard", "max_attempts": 2},
            "connect_timeout": 10,
            "read_timeout": 60,
        }
    }
}

REPLACED = ".replaced"
"""The folder of a set of shards for those that are not of it any more, until they are collected,
and what their names end with there: a recursive `*.tar` looks into hidden folders too.
"""

T = TypeVar("T")


def passing(error: BaseException) -> bool:
    """Whether an error of an object store is one that goes by: overload, a server that restarts, a
    broken connection.
    """
    if isinstance(error, FileNotFoundError | FileExistsError | PermissionError | IsADirectoryError):
        return False
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    if isinstance(error, OSError):
        return error.errno in (
            errno.EBUSY,
            errno.EREMOTEIO,
            errno.EIO,
            errno.ETIMEDOUT,
            errno.EAGAIN,
        )
    # Errors of the HTTP clients below fsspec have no common class: what is no answer of the server
    # is a broken connection.
    return (
        type(error).__module__.split(".")[0] in ("botocore", "aiohttp")
        and type(error).__name__ != "ParamValidationError"
    )


def is_full(error: BaseException) -> bool:
    """Whether an error says that there is no room left."""
    return isinstance(error, OSError) and error.errno in _FULL


def _code(error: BaseException | None) -> str:
    """The code of S3's answer that an error stems from; empty for other errors."""
    while error is not None:
        answer = getattr(error, "response", None)
        if isinstance(answer, dict):
            return str(answer.get("Error", {}).get("Code"))
        error = error.__cause__
    return ""


def _explained(error: OSError, full: str) -> StorageError:
    hints = {
        errno.ENOSPC: "the disk is full",
        errno.EDQUOT: "the quota is used up",
        errno.EROFS: "the place is read-only",
        errno.EACCES: "no permission to write there",
    }
    code = error.errno or errno.EIO
    return StorageError(
        code, f"cannot write {full}: {hints.get(code, error.strerror or type(error).__name__)}"
    )


def _discard(temporary: str) -> None:
    # On a read-only disk, or below a file instead of a folder, this fails too: the first error is
    # the one to tell.
    with contextlib.suppress(OSError):
        os.unlink(temporary)


def _mark(about: Mapping[str, Any]) -> str:
    """What tells a file from one that was put under its name later, from what a file system says of
    it.
    """
    return str(about.get("ETag") or f"{about.get('mtime')} {about.get('ino')}")


def _since(path: str) -> str | None:
    """Where a file of a set of shards lies once it was replaced; None for other files."""
    parts = path.split("/")
    if not _is_of_a_set(parts):
        return None
    return "/".join([*parts[:2], REPLACED, f"{parts[2]}{REPLACED}"])


def _is_of_a_set(parts: Sequence[str]) -> bool:
    """Whether these are the parts of a path to a shard. What was withheld is no part of a set."""
    return (
        len(parts) == 3
        and parts[0] == "shards"
        and parts[2].endswith((".tar", ".parquet"))
        and not parts[2].startswith("withheld-")
    )


def _before(path: str) -> str:
    """The path by which a file is known, wherever it lies."""
    parts = path.split("/")
    if len(parts) != 4 or parts[2] != REPLACED or not parts[3].endswith(REPLACED):
        return path
    known = [*parts[:2], parts[3].removesuffix(REPLACED)]
    return "/".join(known) if _is_of_a_set(known) else path


class Store:
    """The files of one root. Paths are relative, with `/` between their parts.

    A shard that was replaced lies in the folder `.replaced` of its set, where no `*.tar` of a user
    finds it (`arrange`), and is still known by the path that it had: it is read, listed and
    deleted by that.
    """

    def __init__(self, root: str | os.PathLike[str], patience: float = PATIENCE) -> None:
        text = os.fspath(root).removeprefix("file://")
        self.local = "://" not in text
        self.patience = patience
        if self.local:
            text = os.path.abspath(os.path.expanduser(text))
            self._fs: Any = fsspec.filesystem("file")
            self._prefix = text
        else:
            scheme, _, rest = text.partition("://")
            if scheme not in fsspec.available_protocols():
                raise StorageError(
                    f"{text}: no store is known by {scheme}://; a root is a folder, or "
                    "s3://bucket/prefix"
                )
            if scheme == "s3" and not rest.strip("/"):
                raise StorageError(f"{text}: names no bucket; write s3://bucket/prefix")
            # Listings that are remembered hide what others have written since.
            self._fs, self._prefix = fsspec.core.url_to_fs(
                text, use_listings_cache=False, **_OPTIONS.get(text.split("://")[0], {})
            )
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
        return self._place(path) if self.local else f"{self.root}/{path}"

    def uris(self, folder: str, names: Iterable[str]) -> Sequence[str]:
        """`uri` of files of a set of shards, of replaced ones where they lie since."""
        paths = [f"{folder}/{name}" if folder else name for name in names]
        if self.local:
            return [self.uri(path) for path in paths]
        since = {path: _since(path) for path in paths}
        aside = {*self._names(f"{folder}/{REPLACED}")} if any(since.values()) else set()
        return [
            self.uri(other if other and self._full(other) in aside else path)
            for path, other in since.items()
        ]

    def _place(self, path: str) -> str:
        """The full name of a file on a disk, of a replaced one where it lies since."""
        full, other = self._full(path), _since(path)
        if other is not None and not os.path.lexists(full):
            since = self._full(other)
            return since if os.path.lexists(since) else full
        return full

    def _found(self, path: str, look: Callable[[str], T]) -> T:
        """What `look` gives for the full name of a file, of a replaced one where it lies since.

        Patient. Raises FileNotFoundError.
        """
        full, other = self._full(path), _since(path)
        try:
            return self.patiently(lambda: look(full))
        except FileNotFoundError:
            if other is not None:
                with contextlib.suppress(FileNotFoundError):
                    return self.patiently(lambda: look(self._full(other)))
            raise

    def _ask(self, action: str, *arguments: Any, seconds: float = 0.0, **named: Any) -> Any:
        """One call of the file system below; what comes over a network has `ANSWER_SECONDS` and so
        many more.

        Raises TimeoutError.
        """
        if getattr(self._fs, "async_impl", False):
            named["timeout"] = ANSWER_SECONDS + seconds
        return getattr(self._fs, action)(*arguments, **named)

    def patiently(self, action: Callable[[], T]) -> T:
        """What `action` gives, tried again while the store is overloaded or away.

        Raises what it raises, and StorageError where the store is overloaded or away to the end.
        """
        deadline = time.monotonic() + self.patience
        delay = 0.1
        while True:
            try:
                return action()
            except Exception as error:
                if self.local or isinstance(error, StorageError) or not passing(error):
                    raise
                if time.monotonic() + delay > deadline:
                    said = str(error) or type(error).__name__
                    raise StorageError(
                        errno.EIO,
                        f"{self.root} is overloaded or away ({said}); once it answers, run again",
                    ) from error
            # Jitter: the workers of a cluster that were refused together must not come back
            # together.
            time.sleep(delay * random.uniform(0.5, 1.5))  # noqa: S311
            delay = min(delay * 2, 8.0)

    def read(self, path: str) -> bytes:
        """All bytes of a file. Raises FileNotFoundError."""
        # s3fs asks for the size as well, unless it is told not to cut the file up.
        whole = {"max_concurrency": 1} if self.root.startswith("s3://") else {}

        def attempt(full: str) -> bytes:
            seconds = 0.0 if self.local else int(self._ask("size", full)) / SLOWEST
            return cast(bytes, self._ask("cat_file", full, seconds=seconds, **whole))

        return self._found(path, attempt)

    def read_part(self, path: str, start: int, length: int) -> bytes:
        """So many bytes of a file from byte `start`; fewer where it ends before. Raises
        FileNotFoundError.
        """
        if not self.local:
            seconds = length / SLOWEST
            return cast(
                bytes,
                self._found(
                    path,
                    lambda full: self._ask(
                        "cat_file", full, start=start, end=start + length, seconds=seconds
                    ),
                ),
            )
        with open(self._place(path), "rb", buffering=0) as file:
            file.seek(start)
            return file.read(length)

    def read_end(self, path: str, length: int) -> bytes:
        """The last bytes of a file, at most so many. Raises FileNotFoundError."""
        size = self.size(path)
        return self.read_part(path, max(0, size - length), min(size, length)) if size else b""

    def open(self, path: str) -> IO[bytes]:
        """A file for random access. Raises FileNotFoundError."""
        if self.local:
            return open(self._place(path), "rb")
        return cast(IO[bytes], _Blocks(self, path, self.size(path)))

    def exists(self, path: str) -> bool:
        if self.local:
            return os.path.exists(self._place(path))
        # One small read: asking for the existence of a key makes fsspec list what is below it as
        # well.
        try:
            self._found(path, lambda full: self._ask("cat_file", full, start=0, end=1))
        except FileNotFoundError:
            return False
        except OSError as error:
            if _code(error) not in (
                "InvalidRange",
                "416",
            ):  # an empty file has no first byte to give
                raise
        return True

    def size(self, path: str) -> int:
        """Bytes of a file. Raises FileNotFoundError."""
        return int(self._found(path, lambda full: self._ask("size", full)))

    def put(self, path: str, data: bytes, durable: bool = True) -> None:
        """Write a whole file, replacing what was there.

        `durable=False` leaves out the wait for the disk: for work that is cheap to do again after a
        power cut. Raises StorageError when the place is read-only or full.
        """
        full = self._full(path)
        if not self.local:
            self._put_object(
                full, lambda: self._ask("pipe_file", full, data, seconds=len(data) / SLOWEST)
            )
            return
        temporary = self._write_temporary(full, data, durable)
        try:
            os.replace(temporary, full)
        except OSError as error:
            _discard(temporary)
            raise _explained(error, full) from error

    def put_new(self, path: str, data: bytes) -> bool:
        """Write a whole file only if there is none. False when there is one already, which stays as
        it is.
        """
        full = self._full(path)
        if not self.local:

            def create() -> None:
                try:
                    self._ask("pipe_file", full, data, mode="create", seconds=len(data) / SLOWEST)
                except OSError as error:
                    # The answer of S3 names the condition, and s3fs goes by that; others name none.
                    if _code(error) in ("PreconditionFailed", "412"):
                        raise FileExistsError(full) from error
                    raise

            try:
                self._put_object(full, create)
            except FileExistsError:
                try:
                    # The answer to an earlier try may have been lost on the way: then what is there
                    # is ours.
                    return self.read(path) == data
                except FileNotFoundError:
                    return False  # there was one, and it is gone
            return True
        temporary = self._write_temporary(full, data, durable=True)
        try:
            os.link(temporary, full)  # unlike a rename, a link fails where a file is
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno in (errno.EPERM, errno.EOPNOTSUPP):
                text = (
                    f"cannot write {full}: the file system has no hard links, by which a file "
                    "is put only where there is none"
                )
                raise StorageError(error.errno, text) from error
            raise _explained(error, full) from error
        finally:
            _discard(temporary)
        return True

    def put_file(self, path: str, local: str | os.PathLike[str]) -> None:
        """Put a whole local file, for what is too large for memory. The local file may be gone
        afterwards.
        """
        full = self._full(path)
        if not self.local:
            seconds = os.path.getsize(local) / SLOWEST
            self._put_object(
                full, lambda: self._ask("put_file", os.fspath(local), full, seconds=seconds)
            )
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
            raise StorageError(
                errno.ENOENT, f"cannot write {full}: there is no such bucket"
            ) from error
        except PermissionError as error:
            raise StorageError(
                errno.EACCES, f"cannot write {full}: the store refuses these credentials ({error})"
            ) from error
        except Exception as error:
            said = getattr(error, "strerror", None) or error
            raise StorageError(
                getattr(error, "errno", None) or errno.EIO, f"cannot write {full}: {said}"
            ) from error

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

    def delete(self, paths: Iterable[str], before: Callable[[], None] = lambda: None) -> None:
        """Delete files; one that is gone already is fine. `before` is called before each try of
        each, and may raise.
        """

        for path in paths:
            for place in (path, _since(path)):
                if place is not None:
                    self._remove(self._full(place), before)

    def _remove(self, full: str, before: Callable[[], None] = lambda: None) -> None:
        def attempt() -> None:
            before()
            if self.local:
                Path(full).unlink(missing_ok=True)
            else:
                with contextlib.suppress(FileNotFoundError):
                    self._ask("rm_file", full)

        self.patiently(attempt)

    def arrange(self, folder: str, shown: Collection[str]) -> None:
        """Put the tars and Parquet files of the set in `folder` (`shards/<profile>`) where they
        belong: those `shown` into it, all others aside.

        Each is there throughout, in one place or the other, and is known by the same path. An
        interruption leaves some in both; asked again, it goes on.
        """
        start = len(self._prefix.rstrip("/")) + 1
        there = {name[start:] for name in self._names(folder)}
        for lies in sorted(there):
            path = _before(lies)
            since = _since(path)
            if since is None or path.rpartition("/")[0] != folder:
                continue
            to = path if path in shown else since
            if lies != to and to == path and to in there:
                self._remove(self._full(lies))
            elif lies != to:
                self._move(lies, to)

    def _move(self, source: str, target: str) -> None:
        full, to = self._full(source), self._full(target)
        try:
            if self.local:
                os.makedirs(os.path.dirname(to), exist_ok=True)
                os.replace(full, to)
                return
            seconds = int(self.patiently(lambda: self._ask("size", full))) / SLOWEST
            self.patiently(lambda: self._ask("cp_file", full, to, seconds=seconds))
            self._remove(full)
        except FileNotFoundError:
            return  # collected meanwhile
        except OSError as error:
            raise error if isinstance(error, StorageError) else _explained(error, to) from error

    def list(self, prefix: str, few: bool = False) -> list[str]:
        """All files below a directory, sorted; temporary ones too. For `gc` and for finding the
        newest snapshot and lease only.

        `few` of them are to come as quickly as any other answer.
        """
        start = len(self._prefix.rstrip("/")) + 1
        return sorted({_before(name[start:]) for name in self._names(prefix, few)})

    def _names(self, prefix: str, few: bool = False) -> Sequence[str]:
        """The full names of all files below a directory, where they lie."""
        full = self._full(prefix)
        try:
            found = self.patiently(
                lambda: self._ask("find", full, seconds=0.0 if few else _LISTING_SECONDS)
            )
        except FileNotFoundError:
            return []
        return [str(path) for path in found]

    def marks(self, prefix: str) -> dict[str, tuple[int, str]]:
        """All files below a directory with their bytes and a mark that changes when one is put
        again (its time, or its ETag).

        One listing instead of a look at each.
        """
        full = self._full(prefix)
        try:
            found = self.patiently(lambda: self._fs.find(full, detail=True))
        except FileNotFoundError:
            return {}
        start = len(self._prefix.rstrip("/")) + 1
        return {
            _before(str(path)[start:]): (int(about["size"]), _mark(about))
            for path, about in sorted(found.items())
        }

    def versioning(self) -> str | None:
        """Whether the store keeps what is deleted or replaced: Enabled, Suspended (what was kept
        before stays) or None.

        Raises NotImplementedError for stores other than S3, and what the client raises where it may
        not be asked.
        """
        if self.local:
            return None
        scheme, _, place = self.root.partition("://")
        if scheme != "s3":
            raise NotImplementedError(f"{scheme} is not asked")
        answer = self.patiently(
            lambda: self._ask("call_s3", "get_bucket_versioning", Bucket=place.split("/")[0])
        )
        state = answer.get("Status")
        return None if state is None else str(state)


class _Blocks(AbstractBufferedFile):
    """A file of an object store for random access, read block by block, each of them patiently."""

    def __init__(self, store: Store, path: str, size: int) -> None:
        self._store, self._path = store, path
        super().__init__(
            store._fs, path, "rb", block_size=_BLOCK, cache_type="readahead", size=size
        )

    def _fetch_range(self, start: int, end: int) -> bytes:
        return self._store.read_part(self._path, start, end - start) if end > start else b""
