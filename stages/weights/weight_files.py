"""Where registered weights lie on this machine, and that they are the registered ones. Nothing is downloaded here.

Files come from a models directory (`--models DIR`, else the variable IDCLUSTER_MODELS) or from an installed package.
"""

import hashlib
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from schemas.errors import UserError
from stages.weights import local as local_registry
from stages.weights.entry import Weights
from stages.weights.local import BadRegistry, LocalRegistry
from stages.weights.registry import bundle, package_folders, registered

MODELS_VARIABLE = "IDCLUSTER_MODELS"


class MissingWeights(UserError):
    """Registered weights are not on this machine, or are not the registered file; the message says what to do."""


def models_dir_from_environment() -> str | None:
    """The models directory that IDCLUSTER_MODELS names, for the command line to pass down."""
    return os.environ.get(MODELS_VARIABLE) or None


@dataclass(frozen=True)
class FileSearch:
    """What looking for a file gave: its path, and the files that have its name but are not it."""

    path: Path | None
    wrong: tuple[str, ...]


class WeightFiles:
    """Where registered weights lie. Cheap to make; pickles as the name of its directory and what `local` says.

    `local`: what the team has pinned and added; read from `registry.yaml` in the directory unless given.
    """

    def __init__(self, models_dir: str | None = None, local: LocalRegistry | None = None) -> None:
        self.models_dir = models_dir
        self._given = local

    @cached_property
    def local(self) -> LocalRegistry:
        """The team's own registry. Raises MissingWeights where its file is damaged."""
        if self._given is not None:
            return self._given
        try:
            return self.read_local()
        except BadRegistry as error:
            raise MissingWeights(str(error)) from error

    def read_local(self) -> LocalRegistry:
        """`registry.yaml` of the models directory. Raises BadRegistry."""
        return local_registry.read(self.models_dir)

    def entry(self, name: str) -> Weights:
        """The registry's entry as this models directory has it. Raises UnknownWeights, MissingWeights."""
        return registered(name, self.local)

    def path(self, name: str) -> str:
        """The local path of weights whose size and sha256 are the registered ones. Raises MissingWeights, UnknownWeights.

        Looked for, in this order: the registered path below the models directory, a file that is named by the sha256,
        the same file name directly or one folder below it, any file of the right size there, the package.
        """
        weights = self.entry(name)
        found = self.look_at(weights)
        if found.path is not None:
            return str(found.path)
        raise MissingWeights(
            self._not_pinned(weights)
            if weights.sha256 is None
            else self._message(weights, found.wrong)
        )

    def look_at(
        self, weights: Weights, fits: Callable[[Weights, Path], bool] | None = None
    ) -> FileSearch:
        """Where the registered file lies, and which files only have its name. Of what is not pinned none is the one.

        `fits` judges a file; size and sha256 do unless another judge is given.
        """
        fits = fits or is_registered
        wrong: list[str] = []
        for candidate in self._candidates(weights):
            if not candidate.is_file():
                continue
            if weights.sha256 is not None and fits(weights, candidate):
                return FileSearch(candidate, tuple(dict.fromkeys(wrong)))
            if candidate.name == Path(weights.file).name:
                wrong.append(str(candidate))
        return FileSearch(None, tuple(dict.fromkeys(wrong)))

    def sha256(self, name: str) -> str:
        """The pinned hash, whether the file is here or not. Raises UnknownWeights, and MissingWeights where there is none."""
        weights = self.entry(name)
        if weights.sha256 is None:
            raise MissingWeights(self._not_pinned(weights))
        return weights.sha256

    def folder(self, name: str) -> str:
        """The folder with all files of the bundle `name`, each verified. Raises MissingWeights, UnknownWeights."""
        places = {
            one.removeprefix(f"{name}/"): Path(self.path(one)) for one in bundle(name, self.local)
        }
        tops = {
            str(path).removesuffix(within) if str(path).endswith(f"/{within}") else None
            for within, path in places.items()
        }
        [top] = tops if len(tops) == 1 else [None]
        return top if top is not None else _assembled(name, places)

    def _candidates(self, weights: Weights) -> Iterator[Path]:
        bare = Path(weights.file).name
        if self.models_dir is not None:
            top = Path(self.models_dir)
            yield top / weights.file
            if weights.sha256 is not None:
                yield from (top / weights.sha256, top / "sha256" / weights.sha256)
                yield from sorted(
                    top.glob(f"*/blobs/{weights.sha256}")
                )  # as in the cache of the Hugging Face hub
            if weights.bundle is not None:
                # Names such as config.json say nothing by themselves, and a bundle is opened as a folder.
                yield top / weights.name
                return
            yield top / bare
            below = sorted(
                path for pattern in ("*", "*/*") for path in top.glob(pattern) if path.is_file()
            )
            yield from (path for path in below if path.name.split(".")[0] == weights.sha256)
            yield from (path for path in below if path.name == bare)
            yield from (
                path for path in below if path.name != bare and path.stat().st_size == weights.bytes
            )
        if weights.package is not None:
            yield from (Path(folder) / weights.file for folder in package_folders(weights.package))

    def _looked(self, weights: Weights) -> str:
        looked = (
            "no models directory is set"
            if self.models_dir is None
            else f"looked below {self.models_dir}"
        )
        return (
            looked if weights.package is None else f"{looked} and in the package {weights.package}"
        )

    def _not_pinned(self, weights: Weights) -> str:
        return "\n".join(
            [
                f"weights {weights.name!r} are not pinned: no source states their sha256, so what is loaded has to be said once",
                *_facts(weights),
                f"Get the file, look at where it comes from, and run `idcluster models pin {weights.name} FILE --models DIR`.",
            ]
        )

    def _message(self, weights: Weights, wrong: tuple[str, ...]) -> str:
        lines = [
            f"weights {weights.name!r} are not there: {self._looked(weights)}",
            *(
                f"  {path} is another file: its size or sha256 is not the registered one"
                for path in wrong
            ),
            *_facts(weights),
        ]
        asked = weights.bundle or weights.name
        if weights.package is not None:
            lines.append(
                f"Install the package {weights.package}, or put the file below a models directory and pass"
            )
        elif weights.address is not None:
            lines.append(
                f"`idcluster models fetch {asked} --models DIR` brings it; or put the file below a models directory. Pass"
            )
        else:
            lines.append("Put the file below a models directory and pass")
        lines.append(
            f"`--models DIR` or set {MODELS_VARIABLE}; `idcluster models list` shows what is there."
        )
        return "\n".join(lines)


def _facts(weights: Weights) -> list[str]:
    size = "" if weights.bytes is None else f" ({weights.bytes} bytes)"
    begins = (
        "not stated" if weights.sha256_prefix is None else f"begins with {weights.sha256_prefix}"
    )
    return [
        f"  file     {weights.file}{size}",
        f"  sha256   {weights.sha256 or begins}",
        f"  licence  {weights.licence}; use: {weights.use}",
        f"  source   {weights.source}",
        *([f"  by hand  {weights.by_hand}"] if weights.by_hand else []),
    ]


def _assembled(name: str, places: Mapping[str, Path]) -> str:
    """A folder of links to files that lie apart, such as those of a store by hash: what opens a bundle wants a folder.

    Raises MissingWeights where no such folder can be made.
    """
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    said = "\n".join(f"{within} {path.resolve()}" for within, path in sorted(places.items()))
    folder = (
        Path(home)
        / "idcluster"
        / "bundles"
        / f"{name}-{hashlib.blake2b(said.encode(), digest_size=8).hexdigest()}"
    )
    try:
        for within, path in places.items():
            link = folder / within
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.is_symlink():
                temporary = link.with_name(f".{secrets.token_hex(8)}.tmp")
                temporary.symlink_to(path.resolve())
                os.replace(temporary, link)  # several workers may do this at once
    except OSError as error:
        raise MissingWeights(
            f"the files of {name!r} lie apart, and {folder} cannot hold links to them: {error.strerror}"
        ) from error
    return f"{folder}/"


_CHECKED: dict[tuple[str, int, int], str] = {}
"""sha256 by path, size and modification time: hashing 100 MB once a process, not once a stage."""


def is_registered(weights: Weights, path: Path) -> bool:
    """Whether a file is the registered one, by size and sha256. Of a file that did not change it is computed once."""
    stat = path.stat()
    if weights.bytes is not None and stat.st_size != weights.bytes:
        return False
    key = (str(path.resolve()), stat.st_size, stat.st_mtime_ns)
    if key not in _CHECKED:
        with path.open("rb") as file:
            _CHECKED[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return _CHECKED[key] == weights.sha256
