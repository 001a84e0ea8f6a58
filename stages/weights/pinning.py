"""Pinning: writing down once which bytes a name stands for, and adding names of one's own."""

import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from schemas.errors import UserError
from stages.weights import local as local_registry
from stages.weights.entry import USES, Weights
from stages.weights.local import Added, LocalRegistry, Pin, Thresholds, is_name
from stages.weights.registry import WEIGHTS, bundle, registered

_PIECE = 2**20


class Wrong(UserError, ValueError):
    """A file or a name cannot be registered; the message says why and what would do."""

    exit_code = 2


@dataclass(frozen=True)
class Digests:
    """What a file is told apart by. `git_blob`: its id in a git repository."""

    bytes: int
    sha256: str
    git_blob: str
    md5: str


def digests(
    path: Path, progress: Callable[[int, int | None], None] = lambda have, total: None
) -> Digests:
    """Size and hashes of a file, read once. Raises OSError."""
    size = path.stat().st_size
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    blob = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    have = 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            for hasher in (sha256, md5, blob):
                hasher.update(piece)
            have += len(piece)
            progress(have, size)
    return Digests(size, sha256.hexdigest(), blob.hexdigest(), md5.hexdigest())


def contradiction(weights: Weights, found: Digests) -> str | None:
    """What tells a file from the registered one; None if nothing does."""
    if weights.bytes is not None and found.bytes != weights.bytes:
        return f"it has {found.bytes} bytes, registered are {weights.bytes}"
    if weights.sha256 is not None and found.sha256 != weights.sha256:
        return f"its sha256 is {found.sha256}, registered is {weights.sha256}"
    if weights.sha256_prefix is not None and not found.sha256.startswith(weights.sha256_prefix):
        return (
            f"its sha256 is {found.sha256}, the registered one begins with {weights.sha256_prefix}"
        )
    if weights.git_blob is not None and found.git_blob != weights.git_blob:
        return f"its git blob id is {found.git_blob}, the source's is {weights.git_blob}"
    if weights.md5 is not None and found.md5 != weights.md5:
        return f"its md5 is {found.md5}, the source states {weights.md5}"
    return None


def pin(models_dir: str, name: str, file: Path, again: bool = False) -> tuple[Weights, ...]:
    """Write sha256 and size of a file into the registry of a models directory, and copy the file there.

    For a bundle `file` is the folder with all its files, or with those that are not pinned yet. `again`: in place of an
    earlier pin. The entries as they are now. Raises Wrong, UnknownWeights, BadRegistry, OSError.
    """
    local = local_registry.read(models_dir)
    pins: dict[str, Pin] = {}
    for one, path in _files(name, file, local):
        weights = WEIGHTS.get(one)
        if weights is None:
            raise Wrong(
                f"{one!r} is a name of your own, which has its hash already; `idcluster models add` takes another name"
            )
        known = registered(one, local)
        found = digests(path)
        said = contradiction(weights if again else known, found)
        if said is not None:
            raise Wrong(
                f"{path} is not {one!r}: {said}"
                + (
                    ""
                    if weights.sha256 or known.sha256 is None
                    else "; --again pins it in place of the earlier one"
                )
                + (
                    "; to use another file, register it under a name of your own: `idcluster models add`"
                    if weights.sha256
                    else ""
                )
            )
        _keep(path, Path(models_dir) / known.file)
        if weights.sha256 is None:
            pins[one] = Pin(sha256=found.sha256, bytes=found.bytes, date=_today())
    changed = _change(models_dir, lambda now: now.model_copy(update={"pins": {**now.pins, **pins}}))
    return tuple(registered(one, changed) for one in bundle(name, changed))


def add(
    models_dir: str,
    name: str,
    file: Path,
    like: str,
    licence: str,
    use: str,
    source: str = "added by hand",
    normalisation: tuple[float, float] | None = None,
) -> tuple[Weights, ...]:
    """Register a file (for a bundle: a folder) under a name of the team's own, loaded as the registered `like` is.

    The entries as they are now. Raises Wrong, UnknownWeights, BadRegistry, OSError.
    """
    local = local_registry.read(models_dir)
    if not is_name(name) or "/" in name:
        raise Wrong(
            f"{name!r} is no name: letters, digits, dots, dashes and underscores, beginning with a letter or digit"
        )
    if use not in USES:
        raise Wrong(f"use {use!r} is not one of {', '.join(USES)}")
    if not licence.strip():
        raise Wrong(
            "say under which licence the file is: --licence own, if you trained it on data of your own"
        )
    if name in WEIGHTS or any(one.startswith(f"{name}/") for one in WEIGHTS):
        raise Wrong(f"{name!r} is registered already; take a name of your own")
    if any(one == name or one.startswith(f"{name}/") for one in local.weights):
        raise Wrong(
            f"{name!r} is registered in {models_dir}/{local_registry.FILE} already; take another name, or edit that file"
        )
    added: dict[str, Added] = {}
    for one, path in _files(like, file, local):
        model = registered(one, local)
        within = one.removeprefix(f"{like}/") if model.bundle is not None else ""
        place = (
            f"{model.subject}/{name}/{within}"
            if within
            else f"{model.subject}/{name}{''.join(path.suffixes[-1:])}"
        )
        found = digests(path)
        kept = _below(path, Path(models_dir)) if not within else None
        if kept is None:
            kept = place
            _keep(path, Path(models_dir) / place)
        added[f"{name}/{within}" if within else name] = Added(
            like=local.weights[one].like if one in local.weights else one,
            file=kept,
            sha256=found.sha256,
            bytes=found.bytes,
            licence=licence,
            use=use,
            source=source,
            normalisation=normalisation or (model.normalisation if one in local.weights else None),
            date=_today(),
        )
    changed = _change(
        models_dir, lambda now: now.model_copy(update={"weights": {**now.weights, **added}})
    )
    return tuple(registered(one, changed) for one in added)


def calibrate(
    models_dir: str,
    recogniser: str,
    similarity_threshold: float,
    merge_cosine: float,
    source: str,
    **more: float,
) -> Path:
    """Write the thresholds of `clean` for a recogniser into the registry of a models directory. Raises BadRegistry, OSError.

    `more`: `join_cosine`, `duplicate_cosine`, where they were measured.
    """
    found = Thresholds(
        similarity_threshold=similarity_threshold,
        merge_cosine=merge_cosine,
        source=source,
        date=_today(),
        **more,
    )
    _change(
        models_dir,
        lambda now: now.model_copy(
            update={"calibrations": {**now.calibrations, recogniser: found}}
        ),
    )
    return Path(models_dir) / local_registry.FILE


def _files(name: str, file: Path, local: LocalRegistry) -> Iterator[tuple[str, Path]]:
    """The registered names behind `name`, each with its file."""
    parts = bundle(name, local)
    if parts == (name,):
        if not file.is_file():
            raise Wrong(f"{file} is no file")
        yield name, file
        return
    if not file.is_dir():
        raise Wrong(
            f"{name!r} comes as {len(parts)} files; name the folder that holds them instead of {file}"
        )
    missing = []
    for one in parts:
        path = file / PurePosixPath(one.removeprefix(f"{name}/"))
        if path.is_file():
            yield one, path
        elif registered(one, local).sha256 is None or one in local.weights:
            missing.append(path)
    if missing:
        raise Wrong(
            f"{file} lacks {', '.join(str(path.relative_to(file)) for path in missing)} of {name!r}"
        )


def _below(path: Path, top: Path) -> str | None:
    """The path of a file below a folder; None if it lies elsewhere."""
    try:
        return path.resolve().relative_to(top.resolve()).as_posix()
    except ValueError:
        return None


def _keep(source: Path, target: Path) -> None:
    """Copy a file to its registered place, whole, unless it is that file."""
    if target.exists() and target.samefile(source):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        shutil.copyfile(source, temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _change(models_dir: str, change: Callable[[LocalRegistry], LocalRegistry]) -> LocalRegistry:
    Path(models_dir).mkdir(parents=True, exist_ok=True)
    with _alone(Path(models_dir)):
        changed = change(local_registry.read(models_dir))
        local_registry.write(models_dir, changed)
    return changed


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Two processes that pin at once must not lose each other's line."""
    with (folder / ".registry.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _today() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d}"
