"""Images from a folder: `people/<name>/*`, one folder a person; `people/<name>/_reference/*`
surely shows the person.
"""

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote_to_bytes

from schemas.fetched import Fetched
from schemas.wording import counted, verb
from stages.crawl.listing import Listed, Offer, SourceError

REFERENCES = "_reference"
"""The folder inside a person's whose images say who the person is."""


class FolderSource:
    """The folders below `path`. Addresses are `name:<person folder>/<file>`, so that ids do not
    depend on the path.

    All files of a person's folder are offered, whatever their names end in: what is no image
    becomes a row that says so. Hidden files are left out.
    """

    web = False

    def __init__(
        self, path: str | os.PathLike[str], name: str = "local", max_bytes: int = 25_000_000
    ) -> None:
        self.path = Path(path)
        self.name = name
        self.max_bytes = max_bytes

    def check(self) -> None:
        if not self.path.is_dir():
            what = "is not a folder" if self.path.exists() else "does not exist"
            raise SourceError(
                f"source {self.name!r}: {self.path} {what}; set source.path to a folder with one "
                "folder a person"
            )
        try:
            with os.scandir(self.path) as entries:
                empty = not any(
                    is_folder(entry) and not entry.name.startswith(".") for entry in entries
                )
            if empty:
                raise SourceError(
                    f"source {self.name!r}: {self.path} holds no folders; it needs one folder a "
                    "person: people/<name>/*.jpg"
                )
        except OSError as error:
            raise SourceError(
                f"source {self.name!r}: {self.path} cannot be listed: {error.strerror}"
            ) from error

    def people(self) -> tuple[list[Listed], list[str]]:
        self.check()
        try:
            folders = sorted(
                entry.name
                for entry in os.scandir(self.path)
                if is_folder(entry) and not entry.name.startswith(".")
            )
            loose = sum(
                1
                for entry in os.scandir(self.path)
                if not is_folder(entry) and not entry.name.startswith(".")
            )
        except OSError as error:
            raise SourceError(
                f"source {self.name!r}: {self.path} cannot be listed: {error.strerror}"
            ) from error
        listed, remarks = [], []
        if loose:
            remarks.append(
                f"{counted(loose, 'file')} beside the folders of people in {self.path} "
                f"{verb(loose)} not used"
            )
        closed = 0
        for person in folders:
            try:
                offers, nested = self._offers(person)
            except OSError as error:
                # The others are there; of this one nobody knows what it still has.
                remarks.append(
                    f"{self.path / person} cannot be listed ({error.strerror}); its images "
                    "stay as they were"
                )
                listed.append(Listed(readable(person), [], complete=False))
                closed += 1
                continue
            if nested:
                remarks.append(
                    f"{counted(nested, 'folder')} inside {self.path / person} {verb(nested)} not "
                    "used"
                )
            listed.append(Listed(readable(person), offers))
        if closed == len(folders):
            raise SourceError(f"source {self.name!r}: " + "; ".join(remarks))
        return listed, remarks

    def _offers(self, person: str) -> tuple[list[Offer], int]:
        """The files of a person's folder, and how many folders are in it. Raises OSError."""
        offers, nested = [], 0
        with os.scandir(self.path / person) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if is_folder(entry):
                known = entry.name == REFERENCES
                offers += self._references(person) if known else []
                nested += not known
                continue
            offers.append(
                Offer(address_of(self.name, f"{person}/{entry.name}"), fingerprint_of(entry.path))
            )
        return offers, nested

    def _references(self, person: str) -> list[Offer]:
        inside = f"{person}/{REFERENCES}"
        try:
            entries = sorted(os.scandir(self.path / inside), key=lambda entry: entry.name)
        except OSError as error:
            raise SourceError(
                f"source {self.name!r}: {self.path / inside} cannot be listed: {error.strerror}"
            ) from error
        there = [
            entry for entry in entries if not entry.name.startswith(".") and not is_folder(entry)
        ]
        return [
            Offer(
                address_of(self.name, f"{inside}/{entry.name}"),
                fingerprint_of(entry.path),
                reference="yes",
            )
            for entry in there
        ]

    def fetch(self, addresses: Sequence[str]) -> list[Fetched]:
        return [self._fetch(address) for address in addresses]

    def _fetch(self, address: str) -> Fetched:
        relative = relative_of(self.name, address)
        if relative is None or not is_of_a_person(relative):
            return Fetched(
                None, "failed", "bad_address", f"{address!r} is no address of source {self.name!r}"
            )
        return read_file(self.path / relative, self.max_bytes)


def is_of_a_person(relative: str) -> bool:
    """Whether a path leads into a person's folder, or into the one with references inside it."""
    parts = relative.split("/")
    return len(parts) == 2 or (len(parts) == 3 and parts[1] == REFERENCES)


def read_file(path: Path, max_bytes: int) -> Fetched:
    """The bytes of a regular file, or why there are none."""
    try:
        # Not blocking: opening a named pipe would wait for a writer for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        reason = "not_found" if isinstance(error, FileNotFoundError) else "unreadable"
        return Fetched(None, "failed", reason, error.strerror)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return Fetched(None, "failed", "not_a_file", "not a regular file")
    with os.fdopen(descriptor, "rb") as file:
        try:
            data = file.read(max_bytes + 1)
        except OSError as error:
            return Fetched(None, "failed", "unreadable", error.strerror)
    if len(data) > max_bytes:
        return Fetched(None, "failed", "too_large", f"more than {max_bytes} bytes")
    return Fetched(data)


def fingerprint_of(path: str | os.PathLike[str]) -> str:
    """What changes with a file: its size and time."""
    try:
        about = os.stat(path)
    except (OSError, ValueError):
        return "unreadable"  # a dangling link, say: the fetch will tell
    return f"{about.st_size}-{about.st_mtime_ns}"


def address_of(source: str, relative: str) -> str:
    """The address of a file by its path below the folder of a source."""
    return f"{source}:{escape(relative)}"


def relative_of(source: str, address: str) -> str | None:
    """The path behind an address; None for one that is not of this source, or leads out of its
    folder.
    """
    prefix = f"{source}:"
    relative = unescape(address.removeprefix(prefix))
    inside = (
        address.startswith(prefix)
        and "\0" not in relative
        and not any(part in ("", ".", "..") for part in relative.split("/"))
    )
    return relative if inside else None


def is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def escape(path: str) -> str:
    """The path as valid text: `%` and bytes that are no UTF-8 as percent escapes, everything else
    as it is.
    """
    return "".join(
        f"%{ord(c) - 0xDC00:02X}" if 0xDC80 <= ord(c) <= 0xDCFF else c
        for c in path.replace("%", "%25")
    )


def unescape(text: str) -> str:
    return os.fsdecode(unquote_to_bytes(text.encode()))


def readable(folder: str) -> str:
    """A folder's name as text: bytes that are no UTF-8 as percent escapes, so that two such names
    stay two.
    """
    return "".join(f"%{ord(c) - 0xDC00:02X}" if 0xDC80 <= ord(c) <= 0xDCFF else c for c in folder)
