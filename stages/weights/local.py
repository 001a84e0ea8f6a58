"""What a team has written down about its own weights: `registry.yaml` in the models directory.

    pins:           # hashes of registered files that no source states
      deca_model: {sha256: "5a1b...", bytes: 434142943, date: 2026-11-21}
    weights:        # files of their own, each used like a registered one
      our_r100: {like: glintr100, file: embed/our_r100.onnx, sha256: "77c0...", bytes: 260665334,
                 licence: own, use: any, source: trained here, date: 2026-11-21}
    calibrations:   # thresholds of `clean`, by recogniser
      our_r100: {similarity_threshold: 0.36, merge_cosine: 0.33, source: "own photographs below: ..."}

It is read once and handed on: with a DAG, with the weight files, with what a worker is made from. Nothing here is kept
for the process, so two models directories can be used side by side.
"""

import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from schemas.errors import UserError
from stages.weights.entry import USES

FILE = "registry.yaml"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")

_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# A person who edits the file need not quote dates: YAML reads 2026-11-21 as a date.
_Date = Annotated[str, BeforeValidator(str)]


class BadRegistry(UserError, ValueError):
    """A registry.yaml that cannot be read; the message names file and field."""


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Pin(_Closed):
    """The hash of a registered file for which the registry has none."""

    sha256: _Sha256
    bytes: int = Field(gt=0)
    date: _Date = ""


class Added(_Closed):
    """A file of the team's own: loaded as `like` is."""

    like: str
    file: str
    sha256: _Sha256
    bytes: int = Field(gt=0)
    licence: str = Field(min_length=1)
    use: str = "any"
    source: str = "added by hand"
    normalisation: tuple[float, float] | None = None
    """Mean and standard deviation; those of `like` unless given."""
    date: _Date = ""

    @field_validator("file")
    @classmethod
    def _below_the_folder(cls, file: str) -> str:
        if os.path.isabs(file) or ".." in file.split("/") or not file:
            raise ValueError(f"{file!r} is not a path below the models directory")
        return file

    @field_validator("use")
    @classmethod
    def _known_use(cls, use: str) -> str:
        if use not in USES:
            raise ValueError(f"{use!r} is not one of {', '.join(USES)}")
        return use


class Thresholds(_Closed):
    """The thresholds of `clean` in the space of one recogniser; see stages/embed/calibration.py."""

    similarity_threshold: float = Field(ge=-1, le=1)
    merge_cosine: float = Field(ge=-1, le=1)
    join_cosine: float | None = Field(default=None, ge=-1, le=1)
    duplicate_cosine: float | None = Field(default=None, ge=-1, le=1)
    vote_cosine: float | None = Field(default=None, ge=-1, le=1)
    source: str = ""
    date: _Date = ""


class LocalRegistry(_Closed):
    """All that a registry.yaml says."""

    pins: Mapping[str, Pin] = {}
    weights: Mapping[str, Added] = {}
    calibrations: Mapping[str, Thresholds] = {}

    @field_validator("weights")
    @classmethod
    def _plain_names(cls, weights: Mapping[str, Added]) -> Mapping[str, Added]:
        for name in weights:
            if not is_name(name):
                raise ValueError(
                    f"{name!r} is no name: letters, digits, dots, dashes and underscores"
                )
        return weights


NOTHING = LocalRegistry()
"""Of whoever has no models directory, or none with a registry.yaml."""


def is_name(name: str) -> bool:
    """Whether weights can have this name."""
    return _NAME.fullmatch(name) is not None


def parse(text: str, place: str) -> LocalRegistry:
    """What a registry.yaml says. Raises BadRegistry, which names `place`."""
    try:
        found: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadRegistry(f"{place}: not YAML: {' '.join(str(error).split())}") from error
    try:
        return LocalRegistry.model_validate({} if found is None else found)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        field = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise BadRegistry(f"{place}: {field}: {first['msg']}{more}") from error


def read(models_dir: str | None) -> LocalRegistry:
    """The registry of a models directory, empty where it has none. Raises BadRegistry."""
    if models_dir is None:
        return NOTHING
    path = Path(models_dir) / FILE
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except (FileNotFoundError, NotADirectoryError):
        return NOTHING
    except (OSError, UnicodeDecodeError) as error:
        raise BadRegistry(
            f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from error


def write(models_dir: str, registry: LocalRegistry) -> Path:
    """Write the registry of a models directory, whole. Raises OSError."""
    path = Path(models_dir) / FILE
    said = registry.model_dump(mode="json", exclude_none=True)
    text = yaml.safe_dump(
        {key: value for key, value in said.items() if value},
        sort_keys=True,
        allow_unicode=True,
        width=130,
    )
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(
                "# Weights of this folder that are pinned, added or calibrated here; `idcluster models` writes it.\n"
                + text
            )
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
