"""Registered weights brought into a models directory: from a mirror, from their address, out of an
archive.

Nothing gets its name before size and sha256 are those that the registry has. What no source states
a hash of is put in place as well, and stays unusable until it is pinned.
"""

import fcntl
import hashlib
import os
import stat
import urllib.parse
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipeline.weights.download import (
    BadMirror,
    DownloadError,
    NotThere,
    Progress,
    check_address,
    download,
    room_for,
    settle,
)
from stages.weights import WeightFiles, Weights
from stages.weights.pinning import Wrong, contradiction, digests, pin

_WORK = ".fetch"
"""Folder below the models directory for what is not complete yet."""
_MEMBER_MOST = 16 * 2**30
_PIECE = 2**20


@dataclass(frozen=True)
class Outcome:
    """What became of one file. `state`: here, fetched, unpinned (fetched, but nobody has said that
    it is the right one), by_hand (its owner hands it out in person) or failed.
    """

    weights: Weights
    state: str
    said: str = ""


class Supply:
    """Fetches into one models directory.

    `mirror`: a folder, `file://` or the base of https addresses that holds files by registered
    path, by name or by sha256; it is asked first. `pin_unstated`: take what comes for files without
    any stated hash as the right file.
    """

    def __init__(
        self,
        models_dir: str,
        mirror: str | None = None,
        pin_unstated: bool = False,
        say: Callable[[str], None] = lambda text: None,
        bar: Callable[[str], Progress] = lambda name: lambda have, total: None,
        get: Callable[..., None] = download,
    ) -> None:
        self.top = Path(models_dir)
        self.mirror = _mirror(mirror)
        self.pin_unstated, self.say, self.bar, self.get = pin_unstated, say, bar, get
        self.work = self.top / _WORK

    def bring(self, names: Sequence[str]) -> Iterator[Outcome]:
        """Each file in turn. Raises DownloadError before the first if the disk has no room for all
        of them.
        """
        self.top.mkdir(parents=True, exist_ok=True)
        wanted = [
            weights
            for weights in (self._files().entry(name) for name in names)
            if not self._is_here(weights)
        ]
        # An archive lies beside what is unpacked from it for a while.
        needed = sum((weights.bytes or 0) * (2 if weights.member else 1) for weights in wanted)
        lacking = room_for(self.top, needed)
        if lacking:
            raise DownloadError(lacking)
        archives: set[Path] = set()
        with self._alone():
            self.work.mkdir(exist_ok=True)
            try:
                for name in names:
                    yield self._bring(self._files().entry(name), archives)
            finally:
                for archive in archives:
                    archive.unlink(missing_ok=True)
                if not any(self.work.iterdir()):
                    self.work.rmdir()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time fetches into a models directory; what the first one brings the
        second need not.
        """
        with (self.top / ".fetch.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.say(f"another process fetches into {self.top}; waiting for it")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _files(self) -> WeightFiles:
        return WeightFiles(str(self.top))  # anew every time: pinning changes the registry

    def _is_here(self, weights: Weights) -> bool:
        return self._files().look_at(weights).path is not None

    def _bring(self, weights: Weights, archives: set[Path]) -> Outcome:
        target = self.top / weights.file
        mark = hashlib.blake2b(weights.file.encode(), digest_size=8).hexdigest()
        part = self.work / f"{mark}-{target.name}.part"
        try:
            if self._is_here(weights):
                return Outcome(weights, "here")
            if weights.package is not None:
                return Outcome(
                    weights,
                    "by_hand",
                    f"comes in the package {weights.package}: pip install {weights.package}",
                )
            if not self._obtain(weights, part, archives):
                return Outcome(weights, "by_hand", _by_hand(weights, target))
            return self._accept(weights, part, target)
        except (DownloadError, Wrong) as error:
            return Outcome(weights, "failed", str(error))
        except OSError as error:
            return Outcome(
                weights, "failed", f"{error.filename or target}: {error.strerror or error}"
            )

    def _obtain(self, weights: Weights, part: Path, archives: set[Path]) -> bool:
        """Fill `part` from the mirror or the address. False for what comes only by hand."""
        resumed = part.exists()
        for again in (False, True):
            found = self._from_mirror(weights, part, archives) or self._from_address(
                weights, part, archives
            )
            if not found or not resumed or again or not _contradicts(weights, part):
                return found
            # What was begun earlier may have been another file: once more, from its first byte.
            part.unlink(missing_ok=True)
        return True

    def _from_mirror(self, weights: Weights, part: Path, archives: set[Path]) -> bool:
        if self.mirror is None:
            return False
        archive = (
            None
            if weights.member is None or weights.address is None
            else PurePosixPath(weights.address).name
        )
        if isinstance(self.mirror, Path):
            for place in _places(weights):
                candidate = self.mirror / place
                if candidate.is_file() and not _contradicts(weights, candidate):
                    _copy(candidate, part, self.bar(weights.name))
                    return True
            if archive is not None and (self.mirror / archive).is_file():
                self._unpack(weights, self.mirror / archive, part)
                return True
            return False
        for place in _places(weights):
            try:
                self._get(
                    f"{self.mirror}/{urllib.parse.quote(place)}", part, weights.bytes, weights.name
                )
                return True
            except NotThere:
                continue
        if archive is not None:
            try:
                self._unpack(weights, self._archive(f"{self.mirror}/{archive}", archives), part)
                return True
            except NotThere:
                return False
        return False

    def _from_address(self, weights: Weights, part: Path, archives: set[Path]) -> bool:
        if weights.address is None:
            return False
        if weights.member is None:
            self._get(weights.address, part, weights.bytes, weights.name)
        else:
            self._unpack(weights, self._archive(weights.address, archives), part)
        return True

    def _get(self, address: str, part: Path, size: int | None, name: str) -> None:
        self.say(f"{name}: {address}")
        self.get(address, part, size, self.bar(name))

    def _archive(self, address: str, archives: set[Path]) -> Path:
        """The archive behind an address, fetched once for all that is unpacked from it."""
        path = self.work / PurePosixPath(urllib.parse.urlsplit(address).path).name
        if path not in archives:
            part = path.with_name(f"{path.name}.part")
            self._get(address, part, None, path.name)
            os.replace(part, path)
            archives.add(path)
        return path

    def _unpack(self, weights: Weights, archive: Path, part: Path) -> None:
        self.say(f"{weights.name}: {weights.member} in {archive.name}")
        unpack(archive, str(weights.member), part, weights.bytes)

    def _accept(self, weights: Weights, part: Path, target: Path) -> Outcome:
        """Give a complete file its name, if it is the registered one."""
        found = digests(part)
        said = contradiction(weights, found)
        if said is not None:
            part.unlink(missing_ok=True)
            return Outcome(
                weights, "failed", f"what came is another file: {said}; it was thrown away"
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        settle(part, target)
        if weights.sha256 is not None:
            return Outcome(weights, "fetched", str(target))
        if weights.stated or self.pin_unstated:
            pin(str(self.top), weights.name, target)
            how = "agrees with what its source states" if weights.stated else "as it came"
            return Outcome(weights, "fetched", f"{target}; pinned {how}: sha256 {found.sha256}")
        return Outcome(
            weights,
            "unpinned",
            f"{target} has sha256 {found.sha256}, and no source states one. If it is what you "
            "expect:"
            f" idcluster models pin {weights.name} {target} --models {self.top}",
        )


def unpack(archive: Path, member: str, target: Path, size: int | None) -> None:
    """Write one member of a zip file to `target`.

    Names of members are never used as paths. `member` is looked for by path, then by file name
    alone. Raises DownloadError for an archive that is damaged, has no such member, or holds
    something else than a file of `size`.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                name = PurePosixPath(info.filename.replace("\\", "/"))
                if (
                    name.is_absolute()
                    or ".." in name.parts
                    or stat.S_ISLNK(info.external_attr >> 16)
                ):
                    raise DownloadError(
                        f"{archive.name}: has the member {info.filename!r}, which leads out of a "
                        "folder; not unpacked"
                    )
            files = [info for info in opened.infolist() if not info.is_dir()]
            named = [info for info in files if info.filename == member]
            named = named or [
                info
                for info in files
                if PurePosixPath(info.filename).name == PurePosixPath(member).name
            ]
            if len(named) != 1:
                raise DownloadError(f"{archive.name}: has {len(named) or 'no'} members {member!r}")
            most = _MEMBER_MOST if size is None else size
            if named[0].file_size > most:
                raise DownloadError(
                    f"{archive.name}: {member} is said to have {named[0].file_size} bytes, it "
                    f"may have {most}"
                )
            written = 0
            with opened.open(named[0]) as source, target.open("wb") as sink:
                while piece := source.read(_PIECE):
                    written += len(piece)
                    if written > most:
                        raise DownloadError(
                            f"{archive.name}: {member} is longer than the {most} bytes that it "
                            "may have"
                        )
                    sink.write(piece)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error) as error:
        target.unlink(missing_ok=True)
        if isinstance(error, DownloadError):
            raise
        raise DownloadError(
            f"{archive.name}: not a zip file that can be unpacked: {error}"
        ) from error


def _mirror(mirror: str | None) -> Path | str | None:
    if mirror is None:
        return None
    if "://" in mirror and not mirror.startswith("file://"):
        check_address(mirror)
        return mirror.rstrip("/")
    folder = Path(
        os.path.expanduser(urllib.parse.unquote(mirror.removeprefix("file://")))
    ).absolute()
    if not folder.is_dir():
        raise BadMirror(
            f"{folder} is no folder; --mirror names a folder, or the beginning of https addresses"
        )
    return folder


def _places(weights: Weights) -> tuple[str, ...]:
    """Where a mirror may hold a file: at its registered path, by sha256, by name unless that says
    nothing.
    """
    bare = weights.name if weights.bundle is not None else PurePosixPath(weights.file).name
    by_hash = (weights.sha256, f"sha256/{weights.sha256}") if weights.sha256 is not None else ()
    return tuple(dict.fromkeys((weights.file, *by_hash, bare)))


def _contradicts(weights: Weights, path: Path) -> bool:
    return contradiction(weights, digests(path)) is not None


def _copy(source: Path, target: Path, progress: Progress) -> None:
    total, have = source.stat().st_size, 0
    with source.open("rb") as reading, target.open("wb") as writing:
        while piece := reading.read(_PIECE):
            writing.write(piece)
            have += len(piece)
            progress(have, total)


def _by_hand(weights: Weights, target: Path) -> str:
    how = weights.by_hand or f"from {weights.source}"
    then = f"put it at {target}"
    if weights.sha256 is None:
        then = (
            f"then: idcluster models pin {weights.name} FILE --models "
            f"{target.parents[len(PurePosixPath(weights.file).parts) - 1]}"
        )
    return f"{how}; {then}"
