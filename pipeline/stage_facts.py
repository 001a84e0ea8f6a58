"""What a user asks of stages before writing a DAG: which there are, their backends, and the
parameters of each with types, defaults and descriptions. All of it comes from the code itself.
"""

import importlib
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.dag import SHARD, SHARD_BACKENDS
from schemas import TABLES
from schemas.tables import WRITTEN_BY
from stages.backends import BACKENDS, UnknownBackend, backend, named
from stages.stage import Params
from stages.weights import MissingWeights

STAGES = (*BACKENDS, SHARD)
"""In the order in which a run works them off."""


@dataclass(frozen=True)
class ParameterFacts:
    """One parameter. `kind` and `default` are words for people; `text` says what it is for."""

    name: str
    kind: str
    default: str
    text: str


@dataclass(frozen=True)
class BackendFacts:
    """One backend of a stage. `lacks` says why its code cannot be loaded here, and is empty
    otherwise; then nothing else is known of it.
    """

    name: str
    place: str
    text: str
    parameters: tuple[ParameterFacts, ...] = ()
    weights: tuple[str, ...] = ()
    """The names of the weights that it loads by default."""
    lacks: str = ""


@dataclass(frozen=True)
class StageFacts:
    """One stage. The first of `backends` is the default."""

    name: str
    table: str
    """The table that it writes; of `shard` that of its samples."""
    text: str
    backends: tuple[BackendFacts, ...]


def stage_facts(name: str) -> StageFacts:
    """All that is known of a stage. Raises UnknownBackend."""
    if name not in STAGES:
        backend(name)  # says which is near
        raise UnknownBackend(f"no stage {name!r}")
    if name == SHARD:
        found = tuple(_shard(one, place) for one, place in SHARD_BACKENDS.items())
        return StageFacts(name, "samples", "What the shards hold: one row a sample.", found)
    table = WRITTEN_BY[name]
    backends = tuple(_backend(name, one, place) for one, place in named(name).items())
    return StageFacts(name, table, TABLES[table].description, backends)


def _backend(stage: str, name: str, place: str) -> BackendFacts:
    try:
        found = backend(stage, name)
    except ImportError as error:
        return BackendFacts(name, place, "", lacks=str(error))
    try:
        weights = found().weights
    except (ValueError, MissingWeights):  # it cannot do without a parameter
        weights = ()
    return BackendFacts(
        name, place, _first_paragraph(found), parameters(found.Parameters), tuple(weights)
    )


def _shard(name: str, place: str) -> BackendFacts:
    module, _, attribute = place.partition(":")
    model: type[Params] = getattr(importlib.import_module(module), attribute)
    text = "WebDataset tars with a Parquet file beside each."
    return BackendFacts(name, place, text, parameters(model))


def _first_paragraph(found: type) -> str:
    text = inspect.cleandoc(found.__doc__ or "").split("\n\n")[0]
    return " ".join(text.split())


# Parameters, from the JSON Schema that pydantic makes of their model


def parameters(model: type[Params]) -> tuple[ParameterFacts, ...]:
    """The parameters of a model in their order."""
    schema = model.model_json_schema()
    known: Mapping[str, Any] = schema.get("$defs", {})
    needed = schema.get("required", ())
    return tuple(
        ParameterFacts(
            name,
            _kind(one, known),
            "needed" if name in needed else _value(one.get("default")),
            " ".join(str(one.get("description", "")).split()),
        )
        for name, one in schema.get("properties", {}).items()
    )


def _kind(schema: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    """A type in words: `number, 0 to 1`, `"a" or "b"`, `list of text`."""
    if "$ref" in schema:
        return _kind(known[str(schema["$ref"]).rpartition("/")[2]], known)
    if "const" in schema:
        return _value(schema["const"])
    if "enum" in schema:
        return _alternatives([_value(one) for one in schema["enum"]])
    if "anyOf" in schema:
        return _alternatives([_kind(one, known) for one in schema["anyOf"]])
    kind = str(schema.get("type", "anything"))
    if kind == "array":
        items = schema.get("items") or (schema.get("prefixItems") or [{}])[0]
        return f"list of {_kind(items, known)}"
    if kind == "object":
        inner = schema.get("additionalProperties")
        return f"mapping to {_kind(inner, known)}" if isinstance(inner, Mapping) else "mapping"
    words = {
        "integer": "whole number",
        "string": "text",
        "boolean": "true or false",
        "null": "null",
    }
    return words.get(kind, kind) + _limits(schema)


def _alternatives(words: Sequence[str]) -> str:
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} or {words[-1]}"


def _limits(schema: Mapping[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    if low is not None and high is not None:
        return f" from {_number(low)} to {_number(high)}"
    said = [
        word.format(_number(value))
        for word, value in (
            ("from {}", low),
            ("above {}", above),
            ("to {}", high),
            ("below {}", below),
        )
        if value is not None
    ]
    return "".join(f" {one}" for one in said)


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def _value(value: Any) -> str:
    """A value as YAML takes it."""
    return json.dumps(value, ensure_ascii=False)
