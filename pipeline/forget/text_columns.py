"""Which columns may hold a name, as their tables declare it."""

from collections.abc import Mapping

import pyarrow as pa

from schemas import TABLES, TableSchema
from schemas.samples import SAMPLES, WITHHELD

_ALL = (*TABLES.values(), SAMPLES, WITHHELD)
NAMES = frozenset(column.name for schema in _ALL for column in schema.columns if column.is_name)
"""Columns with the name of a person and nothing else: a longer name is somebody else's."""
CLOSED = frozenset(
    column.name for schema in _ALL for column in schema.columns if column.text is False
) - {column.name for schema in _ALL for column in schema.texts}
"""Columns, in whatever table they stand, whose values are an id or a hash and nothing else, or one
of a few words of the program's own.
"""


def may_name(schema: TableSchema) -> tuple[str, ...]:
    """The columns of a table that may hold a name."""
    return tuple(column.name for column in schema.texts)


def texts(schema: TableSchema) -> tuple[str, ...]:
    """Those of them that are one text a row in which a name may be a part."""
    return tuple(
        column.name
        for column in schema.texts
        if not column.is_name and pa.types.is_string(column.type)
    )


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
