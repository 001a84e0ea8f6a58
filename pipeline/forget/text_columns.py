"""Which columns may hold a name, as the tables declare it (`schemas.Column.text`), and the texts in
them.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas import TABLES, TableSchema
from schemas.schema import Column, is_text
from schemas.views import VIEWS


def _of_name(name: str) -> list[Column]:
    """The columns with texts that have a name, of whatever table."""
    return [
        column
        for schema in VIEWS.values()
        for column in schema.columns
        if column.name == name and is_text(column.type)
    ]


_WITH_TEXTS = {
    column.name for schema in VIEWS.values() for column in schema.columns if is_text(column.type)
}
CLOSED = frozenset(
    name for name in _WITH_TEXTS if all(column.text is False for column in _of_name(name))
)
"""Columns, of whatever table, whose values are an id or a hash and nothing else, or one of a few
words of the program's own. One that some table has otherwise, or that no table has, is none.
"""
NAMES = frozenset(name for name in _WITH_TEXTS if all(column.is_name for column in _of_name(name)))
"""Columns with the name of a person and nothing else: a longer name is somebody else's."""


def may_name(schema: TableSchema) -> tuple[str, ...]:
    """The columns of a table that may hold a name."""
    return tuple(
        column.name
        for column in schema.columns
        if is_text(column.type) and column.text is not False
    )


def texts(schema: TableSchema) -> tuple[str, ...]:
    """Those of them in whose texts, of each row one or several, a name may be a part."""
    names = {column.name for column in schema.columns if column.is_name}
    return tuple(name for name in may_name(schema) if name not in names)


OF_PICTURES: Mapping[str, tuple[str, ...]] = {
    name: texts(schema) for name, schema in TABLES.items() if "image_id" in schema.names
}
"""By table, the columns in which an image may say by name whom it shows."""
OF_PEOPLE: Mapping[str, tuple[str, ...]] = {
    name: texts(schema)
    for name, schema in TABLES.items()
    if "identity_id" in schema.names and "image_id" not in schema.names
}
"""By table, the columns in which a row about somebody may name somebody else."""


def texts_in(column: pa.ChunkedArray | pa.Array) -> Iterator[tuple[np.ndarray, pa.Array]]:
    """The texts of a column, and of each the row that it is in: of columns of texts, and of lists,
    maps and structs of them.
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    yield from _texts_in(np.arange(len(array)), array)


def _texts_in(rows: np.ndarray, array: pa.Array) -> Iterator[tuple[np.ndarray, pa.Array]]:
    kind = array.type
    if pa.types.is_dictionary(kind):
        yield from _texts_in(rows, array.dictionary_decode())
    elif pa.types.is_map(kind):
        for values in (array.keys, array.items):
            yield from _texts_in(rows, pa.ListArray.from_arrays(array.offsets, values))
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        parents = pc.list_parent_indices(array).to_numpy(zero_copy_only=False)
        yield from _texts_in(rows[parents], array.flatten())
    elif pa.types.is_struct(kind):
        for field in array.flatten():
            yield from _texts_in(rows, field)
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        yield rows, array


def with_each_text(value: Any, change: Callable[[str], str]) -> Any:
    """A value of a column, as Python has it, with every text in it changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list | tuple):
        return type(value)(with_each_text(one, change) for one in value)
    if isinstance(value, dict):
        return {name: with_each_text(one, change) for name, one in value.items()}
    return value
