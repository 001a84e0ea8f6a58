"""Which weights of the registry some backend can load; others wait for their code."""

import typing
from collections.abc import Iterator
from functools import cache
from typing import Any

from stages.backends import BACKENDS, backend
from stages.stage import Params
from stages.weights import NOTHING, WEIGHTS, LocalRegistry, MissingWeights, WeightsName, names


def loadable(local: LocalRegistry = NOTHING) -> frozenset[str]:
    """The names of weights that a backend can be told to load, or loads anyway."""
    kinds, fixed = _of_backends()
    return frozenset({*names(*kinds, local=local), *fixed})


@cache
def _of_backends() -> tuple[tuple[str, ...], frozenset[str]]:
    """The kinds that parameters of backends accept, and what backends load by default."""
    kinds: dict[str, None] = {}
    fixed: set[str] = set()
    for stage, known in BACKENDS.items():
        for name in known:
            found = backend(stage, name)
            kinds |= dict.fromkeys(_kinds(found.Parameters))
            try:
                fixed |= {one.partition("/")[0] for one in found().weights}
            except (ValueError, MissingWeights):  # it cannot do without a parameter
                continue
    return tuple(kinds), frozenset(fixed & {one.partition("/")[0] for one in WEIGHTS})


def _kinds(model: type[Params]) -> Iterator[str]:
    for field in model.model_fields.values():
        for marker in (*field.metadata, *_markers(field.annotation)):
            if isinstance(marker, WeightsName):
                yield from marker.kinds


def _markers(annotation: Any) -> Iterator[Any]:
    """What stands beside types, however deep: in `Annotated[str, ...] | None` as well."""
    yield from getattr(annotation, "__metadata__", ())
    for inner in typing.get_args(annotation):
        yield from _markers(inner)
