"""A DAG file as data that knows its lines: every problem is told with its place, its field and the
nearest name that exists.
"""

import json
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from schemas.errors import UserError
from schemas.wording import near

Where = tuple[str | int, ...]
"""The path of a value: keys of mappings, numbers in lists."""
_Model = TypeVar("_Model", bound=BaseModel)


class DagError(UserError, ValueError):
    """What is wrong with a DAG file: one problem a line, each with its place, field and remedy."""

    exit_code = 2

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


@dataclass
class Document:
    """The data of the file with the place of every value, and the problems found so far."""

    file: str
    data: Any = None
    places: dict[Where, tuple[int, str]] = field(default_factory=dict)
    """Path to (sort key, what to print before the problem)."""
    problems: list[tuple[int, str]] = field(default_factory=list)
    written: dict[Where, str] = field(default_factory=dict)
    """The values that `set` was given as they were written, which is what they mean where the field
    is a text.
    """
    context: Mapping[str, Any] | None = None
    """What `validate` tells the models beside the data."""

    def read(self, text: str) -> None:
        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else 1
            said = ", ".join(part for part in (error.context, error.problem) if part)
            self.problems.append((line, f"{self.file}:{line}: not YAML: {said}"))
            self.stop()
        except yaml.YAMLError as error:
            raise DagError([f"{self.file}: not YAML: {' '.join(str(error).split())}"]) from error
        self.places[()] = (1, f"{self.file}:1")
        self.data = {} if node is None else self._convert(node, (), None, ())
        if not isinstance(self.data, dict):
            self.problem((), "a DAG file is a mapping that starts with `name:`")
            self.stop()

    def set(self, text: str) -> None:
        """Apply one `a.b.c=value`; errors about it name it instead of a line."""
        name, equals, written = text.partition("=")
        keys: Where = tuple(key.strip() for key in name.split("."))
        label = f"--set {text}" if len(text) <= 60 else f"--set {text[:57]}..."
        order = 1_000_000 + len(self.places)
        if not equals or not all(keys):
            self.problems.append((order, f"{label}: write it as name.of.field=value"))
            return
        written = written.strip()
        try:
            node = yaml.compose(written, Loader=yaml.SafeLoader)
        except yaml.YAMLError:
            node = yaml.ScalarNode(
                "tag:yaml.org,2002:str", written
            )  # *x, @x, a: b: texts, if anything
        parent = self.data
        for depth in range(1, len(keys)):
            key = keys[depth - 1]
            if isinstance(parent, dict) and parent.get(key) is None:
                parent[key] = {}
                self.places[keys[:depth]] = (order, label)
            parent = parent[key]
            if isinstance(parent, list):
                number = str(keys[depth])
                if not number.isdigit() or int(number) >= len(parent):
                    plain = ".".join(map(str, keys[:depth]))
                    there = (
                        f"it has {len(parent)} items: name one by its number, "
                        f"{dotted((*keys[:depth], 0))} is {plain}.0"
                    )
                    self.problems.append(
                        (order, f"{label}: {dotted(keys[:depth])} is a list, {there}")
                    )
                    return
                keys = (*keys[:depth], int(number), *keys[depth + 1 :])
            elif not isinstance(parent, dict):
                self.problems.append(
                    (order, f"{label}: {dotted(keys[:depth])} is {show(parent)}, it has no fields")
                )
                return
        self.places = {
            path: place for path, place in self.places.items() if path[: len(keys)] != keys
        }
        self.places[keys] = (order, label)
        self.written = {
            path: text for path, text in self.written.items() if path[: len(keys)] != keys
        }
        self._note(node, keys)
        if not (isinstance(node, yaml.ScalarNode) and node.style in ("'", '"')):
            self.written[keys] = written
        told = len(self.problems)
        value = None if node is None else self._convert(node, keys, (order, label), ())
        if len(self.problems) > told and isinstance(node, yaml.ScalarNode):
            del self.problems[told:]  # 2024-13-45 is no date, but may be a folder
            value = written
        parent[keys[-1]] = {} if value is None and _holds_fields(keys) else value

    def _note(self, node: yaml.Node | None, path: Where) -> None:
        """Put down how the values inside a value are written."""
        if isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self._note(item, (*path, index))
        elif isinstance(node, yaml.MappingNode):
            for key, item in node.value:
                self._note(item, (*path, key.value))
        elif isinstance(node, yaml.ScalarNode):
            self.written[path] = node.value

    def _convert(
        self,
        node: yaml.Node,
        path: Where,
        place: tuple[int, str] | None,
        above: tuple[yaml.Node, ...],
    ) -> Any:
        """The Python value of a node; fills `places` on the way. `place` overrides the node's
        line.
        """
        if any(node is other for other in above):
            self.problem(path, "an alias stands inside the value that it repeats")
            return None
        above = (*above, node)
        if isinstance(node, yaml.MappingNode):
            return self._convert_mapping(node, path, place, above)
        if isinstance(node, yaml.SequenceNode):
            items = []
            for index, item in enumerate(node.value):
                self.places[(*path, index)] = place or self._line(item)
                items.append(self._convert(item, (*path, index), place, above))
            return items
        try:
            return yaml.constructor.SafeConstructor().construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            kind = node.tag.removeprefix("tag:yaml.org,2002:")
            self.problem(
                path, f"cannot be read as {kind}: {getattr(error, 'problem', None) or error}"
            )
            return None

    def _convert_mapping(
        self,
        node: yaml.MappingNode,
        path: Where,
        place: tuple[int, str] | None,
        above: tuple[yaml.Node, ...],
    ) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            here = place or self._line(key_node)
            if (
                not isinstance(key_node, yaml.ScalarNode)
                or key_node.tag == "tag:yaml.org,2002:merge"
            ):
                self.problems.append(
                    (
                        here[0],
                        f"{here[1]}: {dotted(path)}: a key is a plain name; merge keys are not "
                        "read",
                    )
                )
                continue
            key = key_node.value
            if key in found:
                first = self.places[(*path, key)][1].rsplit(":", 1)[-1]
                self.problems.append(
                    (
                        here[0],
                        f"{here[1]}: {dotted((*path, key))}: stands here twice, first in line "
                        f"{first}",
                    )
                )
                continue
            self.places[(*path, key)] = here
            found[key] = self._convert(value_node, (*path, key), place, above)
        # `crawl:` with nothing behind it is a stage with nothing to say, not the value null.
        return {
            key: {} if value is None and _holds_fields((*path, key)) else value
            for key, value in found.items()
        }

    def _line(self, node: yaml.Node) -> tuple[int, str]:
        line = node.start_mark.line + 1
        return line, f"{self.file}:{line}"

    def place(self, path: Where) -> tuple[int, str]:
        """Of the value, or of the nearest mapping around it that was written down."""
        while path not in self.places:
            path = path[:-1]
        return self.places[path]

    def problem(self, path: Where, text: str) -> None:
        order, label = self.place(path)
        self.problems.append(
            (order, f"{label}: {dotted(path)}: {text}" if path else f"{label}: {text}")
        )

    def error(self) -> DagError:
        """The problems, in the order of the file."""
        return DagError([text for _, text in sorted(self.problems, key=lambda item: item[0])])

    def stop(self) -> None:
        """Raise DagError if there are problems."""
        if self.problems:
            raise self.error()

    def validate(
        self,
        model: type[_Model],
        data: Mapping[str, Any],
        at: Where,
        own: Mapping[str, Any] | None = None,
    ) -> _Model | None:
        """`data` as a `model`; None after noting every problem. With `own`, problems of other
        fields are left out.
        """
        data = self._as_written(model, data, at)
        try:
            return model.model_validate(data, context=self.context)
        except ValidationError as error:
            found: dict[
                Where, list[str]
            ] = {}  # a value that fits no type of a union has an error for each of them
            for item in error.errors(include_url=False):
                if own is not None and item["loc"] and item["loc"][0] not in own:
                    continue
                path, model_there = _locate(model, data, item["loc"])
                found.setdefault((*at, *path), []).append(_explain(item, model_there))
            for path, texts in found.items():
                self.problem(path, ", nor: ".join(dict.fromkeys(texts)))
        return None

    def _as_written(self, annotation: Any, value: Any, at: Where) -> Any:
        """The value of a type, with the texts in it that `set` was given as they were written:
        2024, on and `people #1` are folders.
        """
        if at in self.written and _takes_text(annotation, self.written[at]):
            return self.written[at]
        if isinstance(value, Mapping):
            return {
                key: self._as_written(_type_of(annotation, key), one, (*at, key))
                for key, one in value.items()
            }
        if isinstance(value, list):
            return [
                self._as_written(_type_of(annotation, index), one, (*at, index))
                for index, one in enumerate(value)
            ]
        return value


def _takes_text(annotation: Any, text: str) -> bool:
    """Whether a field of this type holds texts, or this one of a few. Of one that may be empty,
    null is no text.
    """
    if typing.get_origin(annotation) is typing.Annotated:
        return _takes_text(typing.get_args(annotation)[0], text)
    kinds = (
        typing.get_args(annotation)
        if typing.get_origin(annotation) in (typing.Union, types.UnionType)
        else (annotation,)
    )
    if type(None) in kinds and text in ("", "~", "null", "Null", "NULL"):
        return False
    if len(kinds) > 1:
        return all(kind is type(None) or _takes_text(kind, text) for kind in kinds)
    return annotation is str or (
        typing.get_origin(annotation) is Literal and text in typing.get_args(annotation)
    )


def _holds_fields(path: Where) -> bool:
    return path in (("stages",), ("resources",)) or (
        path[0] == "stages"
        and (len(path) == 2 or (len(path) == 3 and path[2] in ("params", "resources")))
    )


def dotted(path: Where) -> str:
    """A path as users write it: `source[0].path`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def _locate(
    model: type[BaseModel], data: Any, loc: Sequence[str | int]
) -> tuple[Where, type[BaseModel] | None]:
    """The path of an error without what pydantic puts in for unions, and the model whose field its
    last part is.
    """
    path: Where = ()
    annotation: Any = model
    holder: type[BaseModel] | None = model
    value: Any = data
    for index, part in enumerate(loc):
        inside = (isinstance(value, Mapping) and part in value) or (
            isinstance(value, list) and isinstance(part, int)
        )
        missing = isinstance(value, Mapping) and index == len(loc) - 1
        if inside or missing:
            path = (*path, part)
            holder = next(_models_in(annotation), None)
            annotation = _type_of(annotation, part)
            value = value[part] if inside else None
    return path, holder


def _type_of(annotation: Any, part: str | int) -> Any:
    """The type of a part (a field, a key, an index) of a value of the type `annotation`; None where
    that says nothing.
    """
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field_there = annotation.model_fields.get(str(part))
        return field_there.annotation if field_there else None
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) in (dict, Mapping):
        return arguments[1]
    if typing.get_origin(annotation) in (list, tuple, Sequence):
        return arguments[0]
    return next(
        (found for argument in arguments if (found := _type_of(argument, part)) is not None), None
    )


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _models_in(argument)


def _explain(error: Any, model: type[BaseModel] | None) -> str:
    """A pydantic error in the words of this file."""
    kind, message, value = error["type"], str(error["msg"]), error["input"]
    if kind == "extra_forbidden":
        known = list(model.model_fields) if model else []
        return f"unknown name{nearest(str(error['loc'][-1]), known)}"
    if kind == "missing":
        return "is missing"
    if kind == "literal_error":
        expected = str(error["ctx"]["expected"])
        names = [name.strip("'") for name in expected.replace(" or ", ", ").split(", ")]
        close = near(value, names) if isinstance(value, str) else []
        return f"{show(value)} is not one of {expected}" + (
            f"; did you mean {close[0]!r}?" if close else ""
        )
    if kind in ("model_type", "dict_type"):
        return f"input should be a mapping, is {show(value)}"
    if kind in ("value_error", "assertion_error"):
        return message.partition(", ")[2]
    return f"{message[0].lower()}{message[1:]}, is {show(value)}"


def show(value: Any) -> str:
    """A value as it stands in a file, cut where it is long."""
    text = "empty" if value is None else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def nearest(name: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    """`; did you mean 'x'?`, or what there is where nothing is near."""
    close = near(name, known)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; there are: {', '.join(known)}" if known else "; it has no fields"
