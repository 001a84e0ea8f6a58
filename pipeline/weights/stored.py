"""Weights that are kept in an object store: brought to a machine once, checked, and opened from its
own disk.
"""

import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from idcluster.root.storage import Store
from stages.weights import BadRegistry, LocalRegistry, MissingWeights, WeightFiles, Weights
from stages.weights.local import FILE, NOTHING, parse

_PIECE = 16 * 2**20


def is_url(models: str | None) -> bool:
    """Whether a models directory is a place in an object store."""
    return models is not None and "://" in models and not models.startswith("file://")


def weight_files(models: str | None, local: LocalRegistry | None = None) -> WeightFiles:
    """The weights of a models directory: a folder, the URL of one in an object store, or None.

    `local`: what the team registered there, where the driver of a run has read it; else it is read
    from `registry.yaml` when it is first asked for, which raises MissingWeights where that file is
    damaged.
    """
    if models is None:
        return WeightFiles(None, local)
    if is_url(models):
        return StoredWeights(models, local)
    return WeightFiles(os.path.abspath(os.path.expanduser(models.removeprefix("file://"))), local)


def cache_folder(url: str) -> Path:
    """Where this machine keeps what it fetched from `url`: below XDG_CACHE_HOME, else
    `~/.cache`.
    """
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return (
        Path(home)
        / "idcluster"
        / "models"
        / hashlib.blake2b(url.rstrip("/").encode(), digest_size=6).hexdigest()
    )


class StoredWeights(WeightFiles):
    """Weights below the URL of an object store. `path` fetches a file that this machine does not
    have yet.
    """

    def __init__(self, url: str, local: LocalRegistry | None = None) -> None:
        super().__init__(url, local)
        self.url = url

    def read_local(self) -> LocalRegistry:
        store = Store(self.url)
        try:
            return parse(store.read(FILE).decode(), store.uri(FILE))
        except FileNotFoundError:
            return NOTHING
        except BadRegistry:
            raise
        except (
            Exception
        ) as error:  # the clients below fsspec have no common error: no keys, no connection, ...
            raise BadRegistry(f"{store.uri(FILE)}: cannot be read: {error}") from error

    def look(self, name: str) -> None:
        """Raise MissingWeights if the store does not hold `name` in its size. Fetches nothing."""
        self.sha256(name)
        weights = self.entry(name)
        if not self._has_package(weights):
            self._find(weights)

    def path(self, name: str) -> str:
        """The local path of weights whose sha256 is the registered one. Raises MissingWeights,
        UnknownWeights.
        """
        self.sha256(name)
        weights = self.entry(name)
        if self._has_package(weights):
            return WeightFiles(None, self.local).path(name)
        folder = cache_folder(self.url)
        target = folder / weights.file
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            # The workers of a machine all want it at once: one fetches, the others wait for it.
            with _locked(target):
                if not _is_there(WeightFiles(str(folder), self.local), name):
                    self._fetch(weights, target)
        except OSError as error:
            said = error.strerror or error
            raise MissingWeights(
                f"weights {name!r}: {self.url}/{weights.file} cannot be kept in {target}: {said}"
            ) from error
        return WeightFiles(str(folder), self.local).path(name)

    def _has_package(self, weights: Weights) -> bool:
        return weights.package is not None and _is_there(
            WeightFiles(None, self.local), weights.name
        )

    def _find(self, weights: Weights) -> tuple[Store, str]:
        store = Store(self.url)
        wrong = []
        for file in _places(weights):
            try:
                size = store.size(file)
            except FileNotFoundError:
                continue
            except PermissionError as error:
                raise MissingWeights(
                    f"weights {weights.name!r}: {store.uri(file)} may not be read: {error}"
                ) from error
            if weights.bytes in (None, size):
                return store, file
            wrong.append(f"; {store.uri(file)} is another file: {size} bytes, not {weights.bytes}")
        raise MissingWeights(
            f"weights {weights.name!r} are not there: {self.url} holds neither {weights.file} "
            f"nor {Path(weights.file).name}"
            f"{''.join(wrong)}\n"
            f"  sha256   {weights.sha256}\n  source   {weights.source}\nPut the file there "
            "(`idcluster models list` names all of them)."
        )

    def _fetch(self, weights: Weights, target: Path) -> None:
        store, file = self._find(weights)
        temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
        try:
            digest = store.patiently(lambda: _copy(store, file, temporary))
            if digest != weights.sha256:
                raise MissingWeights(
                    f"weights {weights.name!r}: {store.uri(file)} is another file: its sha256 is "
                    f"{digest}, registered is {weights.sha256}"
                )
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)


def _places(weights: Weights) -> tuple[str, ...]:
    """Where a store may hold a file: at the registered path, by bare name unless that says nothing,
    by sha256.
    """
    bare = weights.name if weights.bundle is not None else Path(weights.file).name
    return tuple(
        dict.fromkeys((weights.file, bare, *((weights.sha256,) if weights.sha256 else ())))
    )


def _copy(store: Store, file: str, target: Path) -> str:
    """Copy a file of a store to a local one; its sha256."""
    hasher = hashlib.sha256()
    with store.open(file) as source, target.open("wb") as sink:
        while piece := source.read(_PIECE):
            hasher.update(piece)
            sink.write(piece)
    return hasher.hexdigest()


def _is_there(files: WeightFiles, name: str) -> bool:
    try:
        files.path(name)
    except MissingWeights:
        return False
    return True


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    with target.with_name(f".{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield  # closing the file lets go of the lock, as does the death of the process
