"""One file over https: resumed where it broke off, bounded, patient with a server that is busy.

A server that sends something else than was asked for is not trusted to say so: sizes are counted
here, and whoever called checks the hash.
"""

import http.client
import json
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from schemas.errors import UserError

_PIECE = 2**20
_TIMEOUT = 60.0
_LOCALHOST = ("127.0.0.1", "::1", "localhost")
MOST = 64 * 2**30
"""Bytes at which a body of unknown size is given up."""

Progress = Callable[[int, int | None], None]
"""Told after every piece: bytes that are here, bytes that there will be (None: not known)."""


class DownloadError(UserError, RuntimeError):
    """A file could not be brought; the message names address and reason."""


class BadMirror(DownloadError):
    """What was named as a mirror is none."""

    exit_code = 2


class NotThere(DownloadError):
    """The server has no such file."""


class _Again(Exception):
    """A try failed in a way that may pass. `wait`: seconds that the server asked for."""

    def __init__(self, said: str, wait: float | None = None) -> None:
        super().__init__(said)
        self.wait = wait


def check_address(address: str) -> None:
    """Raises DownloadError for an address that is not https, nor http on this machine."""
    parts = urlsplit(address)
    if parts.scheme == "https" and parts.hostname:
        return
    if parts.scheme == "http" and parts.hostname in _LOCALHOST:
        return
    raise BadMirror(
        f"{address}: only https is fetched from (http on localhost alone): what comes over http "
        "can be changed on the way"
    )


def download(
    address: str,
    target: Path,
    size: int | None = None,
    progress: Progress = lambda have, total: None,
    attempts: int = 6,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Bring what is behind `address` into `target`; what lies there from an earlier try is gone on
    with.

    `size`: the bytes that it has to have. Busy servers and broken connections are tried `attempts`
    times in a row without a byte of progress, with growing pauses. Raises DownloadError, NotThere,
    and OSError of the disk.
    """
    check_address(address)
    failures, pause = 0, 1.0
    while True:
        before = target.stat().st_size if target.exists() else 0
        try:
            _attempt(address, target, size, progress)
            _about(target).unlink(missing_ok=True)
            return
        except _Again as error:
            after = target.stat().st_size if target.exists() else 0
            # A body that breaks off again and again still arrives, as long as each try brings some
            # of it.
            failures, pause = (failures + 1, pause) if after <= before else (0, 1.0)
            if failures >= attempts:
                raise DownloadError(
                    f"{address}: {error} (tried {attempts} times; what came is kept, so that it "
                    "can go on)"
                ) from error
            wait(min(error.wait if error.wait is not None else pause, 120.0))
            pause = min(pause * 2, 60.0)


def _attempt(address: str, target: Path, size: int | None, progress: Progress) -> None:
    have = target.stat().st_size if target.exists() else 0
    tag = _remembered(target, address) if have else None
    if size is not None and have > size:
        have = _restart(target)
    if size is not None and have == size:
        progress(have, size)
        return
    if have and size is None and tag is None:
        have = _restart(
            target
        )  # nothing says whether the file behind the address is still the one that was begun
    headers = {"User-Agent": "idcluster", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if tag:
            headers["If-Range"] = tag
    try:
        with _opener().open(
            urllib.request.Request(address, headers=headers),  # noqa: S310 - checked above
            timeout=_TIMEOUT,
        ) as answer:
            _receive(address, answer, target, have, size, progress)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            _restart(target)
            raise _Again("the server has another file than the one that was begun", 0.0) from error
        _refuse(address, error)
    except (
        urllib.error.URLError,
        http.client.HTTPException,
        TimeoutError,
        ConnectionError,
    ) as error:
        reason = getattr(error, "reason", None) or error
        raise _Again(f"no connection: {reason}") from error


def _receive(
    address: str, answer: Any, target: Path, have: int, size: int | None, progress: Progress
) -> None:
    total = _total(answer, have)
    if have and answer.status != http.HTTPStatus.PARTIAL_CONTENT:
        have = 0  # the server knows no ranges, or the file has changed: it sends the whole
    if size is not None and total is not None and total != size:
        _restart(target)
        raise DownloadError(f"{address}: has {total} bytes, the registered file has {size}")
    _remember(target, address, answer.headers.get("ETag"))
    most = size if size is not None else total if total is not None else MOST
    with target.open("ab" if have else "wb") as sink:
        while True:
            piece = _read(answer, have, total)
            if not piece:
                break
            have += len(piece)
            if have > most:
                sink.truncate(0)
                raise DownloadError(f"{address}: sends more than the {most} bytes that it may have")
            sink.write(piece)
            progress(have, size if size is not None else total)
    expected = size if size is not None else total
    if expected is not None and have < expected:
        raise _Again(f"the connection broke off after {have} of {expected} bytes")


def _read(answer: Any, have: int, total: int | None) -> bytes:
    try:
        piece: bytes = answer.read(_PIECE)
    except http.client.IncompleteRead as error:
        return bytes(error.partial)  # the end of the body; what is missing is seen by its size
    except (http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise _Again(
            f"the connection broke off after {have} of {total or 'unknown'} bytes: {error}"
        ) from error
    return piece


def _total(answer: Any, have: int) -> int | None:
    """The bytes of the whole file, as the answer's headers say; raises _Again where they do not fit
    the question.
    """
    if answer.status == http.HTTPStatus.PARTIAL_CONTENT:
        span, _, total = (
            str(answer.headers.get("Content-Range", "")).removeprefix("bytes ").partition("/")
        )
        if span.partition("-")[0] != str(have):
            raise _Again(f"the server sent another range than the one that begins at {have}")
        return int(total) if total.isdecimal() else None
    length = answer.headers.get("Content-Length")
    return int(length) if length is not None and length.isdecimal() else None


def _refuse(address: str, error: urllib.error.HTTPError) -> NoReturn:
    said = f"{address}: HTTP {error.code} {error.reason}"
    if error.code in (404, 410):
        raise NotThere(said) from error
    if error.code in (401, 403):
        raise DownloadError(
            f"{said}: the owner hands it out to registered people only, or no longer"
        ) from error
    if error.code in (408, 425, 429) or error.code >= 500:
        after = error.headers.get("Retry-After", "") if error.headers else ""
        raise _Again(
            f"HTTP {error.code} {error.reason}", float(after) if after.isdecimal() else None
        ) from error
    raise DownloadError(said) from error


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from https to http."""

    def redirect_request(self, request: Any, *rest: Any) -> Any:
        check_address(rest[-1])
        return super().redirect_request(request, *rest)


def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_Redirects())


def _about(target: Path) -> Path:
    return target.with_name(f"{target.name}.about")


def _remember(target: Path, address: str, tag: str | None) -> None:
    """Keep the strong validator of what is being fetched, so that a later try asks for the rest of
    that very file.
    """
    if tag is None or tag.startswith("W/"):
        _about(target).unlink(missing_ok=True)
    else:
        _about(target).write_text(json.dumps({"address": address, "tag": tag}), encoding="utf-8")


def _remembered(target: Path, address: str) -> str | None:
    try:
        about = json.loads(_about(target).read_text(encoding="utf-8"))
        return str(about["tag"]) if about["address"] == address else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _restart(target: Path) -> int:
    target.unlink(missing_ok=True)
    _about(target).unlink(missing_ok=True)
    return 0


def settle(part: Path, target: Path) -> None:
    """Make a complete file visible under its name, on the disk before it is."""
    with part.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(part, target)
    _about(part).unlink(missing_ok=True)


def room_for(folder: Path, needed: int) -> str | None:
    """What to say if the disk of `folder` has no room for so many bytes; None if it has."""
    free = shutil.disk_usage(folder).free
    if free >= needed + 2**28:  # a quarter of a GiB stays for whoever else writes there
        return None
    return f"{folder} has {free / 1e9:.1f} GB of free disk; {needed / 1e9:.1f} GB are needed"
