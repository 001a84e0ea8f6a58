"""The registry: every file of weights that something here can load by name, with those that a team registered itself."""

import importlib.util
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from pydantic import GetCoreSchemaHandler, ValidationInfo
from pydantic_core import PydanticCustomError, core_schema

from schemas.errors import UserError
from schemas.wording import near
from stages.weights import (
    affect,
    captioners,
    clip,
    detect,
    embed,
    generators,
    heads,
    landmark,
    metrics,
    screen,
    segment,
)
from stages.weights.entry import Weights
from stages.weights.local import NOTHING, LocalRegistry

_SUBJECTS = (
    detect,
    embed,
    landmark,
    clip,
    captioners,
    segment,
    heads,
    affect,
    screen,
    generators,
    metrics,
)

WEIGHTS: dict[str, Weights] = {
    weights.name: weights for subject in _SUBJECTS for weights in subject.WEIGHTS
}
"""By name, as the code has them; `registered` also knows what a team has pinned and added."""


class UnknownWeights(UserError, KeyError):
    """A name that is not in the registry."""

    exit_code = 2

    def __str__(self) -> str:
        return str(self.args[0])


def registered(name: str, local: LocalRegistry) -> Weights:
    """The registry's entry, with the pins and additions of `local`. Raises UnknownWeights."""
    if name in WEIGHTS:
        entry = WEIGHTS[name]
        pin = local.pins.get(name)
        # What the code pins cannot be pinned otherwise: `models add` is the way to use another file.
        if (
            entry.sha256 is not None
            or pin is None
            or not pin.sha256.startswith(entry.sha256_prefix or "")
        ):
            return entry
        return replace(entry, sha256=pin.sha256, bytes=pin.bytes)
    if name in local.weights:
        return _added(name, local)
    raise UnknownWeights(f"no weights {name!r} in the registry{_instead(name, all_names(local))}")


def _added(name: str, local: LocalRegistry) -> Weights:
    added = local.weights[name]
    if added.like not in WEIGHTS:
        raise UnknownWeights(
            f"weights {name!r} are registered like {added.like!r}, which is not in the registry"
        )
    like = WEIGHTS[added.like]
    return Weights(
        name,
        added.file,
        added.sha256,
        added.bytes,
        added.licence,
        added.use,
        added.source,
        normalisation=added.normalisation or like.normalisation,
        kind=like.kind,
        needed_by=like.needed_by,
    )


def all_names(local: LocalRegistry) -> tuple[str, ...]:
    """Every registered name: of the code, then those that a team added."""
    return (*WEIGHTS, *(name for name in local.weights if name not in WEIGHTS))


def bundle(name: str, local: LocalRegistry) -> tuple[str, ...]:
    """The names of all files of a model that comes as several, registered as `<name>/<file>`. Raises UnknownWeights."""
    found = tuple(one for one in all_names(local) if one.startswith(f"{name}/"))
    return found or (registered(name, local).name,)


def names(*kinds: str, local: LocalRegistry) -> tuple[str, ...]:
    """The names of all weights of these kinds, as a parameter would give them: a bundle is one name.

    A kind is `<subject>/<loader>` (`detect/scrfd`) or a whole subject (`detect`).
    """
    found = (registered(name, local) for name in all_names(local))
    return tuple(
        dict.fromkeys(
            one.bundle or one.name for one in found if one.kind in kinds or one.subject in kinds
        )
    )


_REGISTRY = "registry"


def knowing(local: LocalRegistry) -> dict[str, LocalRegistry]:
    """The context of a validation in which parameters may name the team's own weights.

    ArcFaceEmbedParams.model_validate({"weights": "our_r100"}, context=knowing(files.local))
    """
    return {_REGISTRY: local}


def known_to(info: ValidationInfo) -> LocalRegistry:
    """The registry that a validation knows; an empty one where it was given none."""
    local: LocalRegistry = (info.context or {}).get(_REGISTRY, NOTHING)
    return local


class WeightsName:
    """The type of a parameter that names weights of given kinds: of the code, and of the registry in the context.

        class ArcFaceEmbedParams(Params):
            weights: Annotated[str, WeightsName("embed/arcface")] = "edgeface_xs"

    Another name is refused with the nearest one that would do. `names("embed/arcface", local=...)` lists what is accepted.
    """

    def __init__(self, *kinds: str) -> None:
        self.kinds = kinds

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.with_info_after_validator_function(self.check, handler(source))

    def check(self, name: str, info: ValidationInfo) -> str:
        """The name itself. Raises a pydantic error for one that is not registered as one of the kinds."""
        known = names(*self.kinds, local=known_to(info))
        if name in known:
            return name
        context = {"name": name, "kinds": " or ".join(self.kinds), "instead": _instead(name, known)}
        raise PydanticCustomError(
            "weights_name", "'{name}' names no weights of kind {kinds}{instead}", context
        )


def _instead(name: str, known: Iterable[str]) -> str:
    known = list(known)
    close = near(name, known, 3, 0.5)
    if close:
        return f"; did you mean {' or '.join(repr(one) for one in close)}?"
    return f"; there are: {', '.join(known)}" if known else ""


def package_folders(package: str) -> list[str]:
    """Where a package lies, without importing it: face_recognition_models cannot be imported with setuptools 80 or later."""
    spec = importlib.util.find_spec(package)
    return list(spec.submodule_search_locations or []) if spec is not None else []
