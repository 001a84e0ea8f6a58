"""How many files and connections this process may have open, and what to do with little of it."""

import errno
import os
import resource

_WANTED = 16_384
_KEPT = 64
"""Left for everything else that a process opens: answers that are put down, names that are looked
up, libraries.
"""
_EXHAUSTED = (errno.EMFILE, errno.ENFILE)


class OpenFiles(Exception):
    """No connection can be opened because too many files are open; the message says what to do."""

    def __init__(self) -> None:
        soft = _limit()
        super().__init__(
            f"too many open files (limit {soft}): raise it (ulimit -n 4096) or lower "
            "fetch.connections"
        )


def raise_limit() -> None:
    """Raise the limit of this process as far as it may itself. For processes of our own only."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED if hard == resource.RLIM_INFINITY else min(_WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (ValueError, OSError):  # some systems state a hard limit that they do not grant
            return


def free() -> int:
    """How many connections may be opened beside what is open now; 8 at least, for less would be no
    crawl.
    """
    return max(8, _limit() - _open() - _KEPT)


def exhausted(error: BaseException) -> bool:
    """Whether an error, or what led to it, is that too many files are open."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        if isinstance(cause, OSError) and cause.errno in _EXHAUSTED:
            return True
        seen.add(id(cause))
        cause = cause.__cause__ or cause.__context__
    return False


def _limit() -> int:
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _WANTED if soft == resource.RLIM_INFINITY else min(soft, _WANTED)


def _open() -> int:
    for folder in ("/proc/self/fd", "/dev/fd"):
        try:
            return len(os.listdir(folder))
        except OSError:
            continue
    return _KEPT
