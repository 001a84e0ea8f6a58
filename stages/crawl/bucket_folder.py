"""Images from a folder in an object store: `s3://bucket/people/<name>/*`, one folder a person."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import fsspec

from schemas.fetched import Fetched
from schemas.wording import counted, verb
from stages.crawl.folder import address_of, is_of_a_person, relative_of
from stages.crawl.listing import Listed, Offer, SourceError

_READERS = 8
"""Images that a worker reads at a time: it is the waiting that takes long."""


class BucketFolderSource:
    """The folders below `path`, a URL that fsspec knows. Addresses are those that the same folder
    has on a disk.

    Names that begin with a dot are left out, as is what does not lie in a person's folder directly.
    """

    web = False

    def __init__(self, path: str, name: str = "local", max_bytes: int = 25_000_000) -> None:
        self.path, self.name, self.max_bytes = path.rstrip("/"), name, max_bytes

    def check(self) -> None:
        """One small listing; everything else is found out by `people`."""
        fs, top = self._open()
        try:
            fs.invalidate_cache()
            found = fs.ls(top, detail=True)
        except FileNotFoundError:
            found = []
        except Exception as error:
            raise self._refused(error) from error
        if not any(entry["type"] == "directory" for entry in found):
            raise SourceError(
                f"source {self.name!r}: {self.path} holds no folders; it needs one folder a "
                "person: people/<name>/*.jpg"
            )

    def people(self) -> tuple[list[Listed], list[str]]:
        self.check()
        fs, top = self._open()
        try:
            found: dict[str, dict[str, Any]] = fs.find(top, detail=True)
        except Exception as error:
            raise self._refused(error) from error
        offers: dict[str, list[Offer]] = {}
        loose = nested = 0
        for key in sorted(found):
            parts = key[len(top) + 1 :].split("/")
            if any(part.startswith(".") or not part for part in parts):
                continue
            loose += len(parts) == 1
            relative = "/".join(parts)
            if is_of_a_person(relative):
                said = "yes" if len(parts) == 3 else None
                offers.setdefault(parts[0], []).append(
                    Offer(address_of(self.name, relative), _fingerprint(found[key]), reference=said)
                )
            else:
                nested += len(parts) > 1
        remarks = []
        for count, where in (
            (loose, "beside the folders of people"),
            (nested, "in folders inside those of people"),
        ):
            if count:
                remarks.append(
                    f"{counted(count, 'file')} {where} in {self.path} {verb(count)} not used"
                )
        return [Listed(person, offers[person]) for person in sorted(offers)], remarks

    def fetch(self, addresses: Sequence[str]) -> list[Fetched]:
        with ThreadPoolExecutor(_READERS) as pool:
            return list(pool.map(self._fetch, addresses))

    def _fetch(self, address: str) -> Fetched:
        relative = relative_of(self.name, address)
        if relative is None or not is_of_a_person(relative):
            return Fetched(
                None, "failed", "bad_address", f"{address!r} is no address of source {self.name!r}"
            )
        fs, top = self._open()
        try:
            data = fs.cat_file(f"{top}/{relative}", start=0, end=self.max_bytes + 1)
        except FileNotFoundError as error:
            return Fetched(None, "failed", "not_found", str(error)[:300])
        except Exception as error:  # noqa: BLE001  clients of stores have no common class of errors; all cost this one row
            return Fetched(None, "failed", "unreadable", f"{type(error).__name__}: {error}"[:300])
        if len(data) > self.max_bytes:
            return Fetched(None, "failed", "too_large", f"more than {self.max_bytes} bytes")
        return Fetched(data)

    def _open(self) -> tuple[Any, str]:
        try:
            # Clients of equal settings are one and the same to fsspec.
            fs, top = fsspec.core.url_to_fs(self.path, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            scheme = self.path.split("://")[0]
            hint = (
                "install the group s3: pip install 'idcluster[s3]'"
                if scheme == "s3"
                else "set source.path to a folder or to s3://..."
            )
            raise SourceError(
                f"source {self.name!r}: {self.path} cannot be opened ({error}); {hint}"
            ) from error
        return fs, str(top).rstrip("/")

    def _refused(self, error: Exception) -> SourceError:
        said = " ".join(str(error).split())[:200] or type(error).__name__
        return SourceError(
            f"source {self.name!r}: {self.path} cannot be listed: {said}; look at address, keys "
            "and AWS_ENDPOINT_URL"
        )


def _fingerprint(about: dict[str, Any]) -> str:
    """What changes with a file: its size, and its tag or time, whichever the store gives."""
    changes = next(
        (
            str(about[name])
            for name in ("ETag", "etag", "LastModified", "mtime", "created")
            if about.get(name) is not None
        ),
        "",
    )
    return f"{about.get('size')}-{changes.strip(chr(34))}"
