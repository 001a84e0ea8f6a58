"""Which columns may hold a name: all texts but ids, hashes and words of a fixed list."""

from collections.abc import Mapping

import pyarrow as pa

from schemas import TABLES, TableSchema

# fmt: off
CLOSED = frozenset((
    "identity_id", "image_id", "face_id", "canonical_id", "same_as", "kin", "nearest",
    "duplicate_of", "target", "dropped_faces", "hash",
    "sha256", "receipt", "status", "reason", "kind", "action", "format", "flags", "role",
    "landmark_scheme", "points_scheme", "head_scheme",
    "scheme", "classes", "mask_classes",
))
# fmt: on
"""Columns, of whatever table, whose values are an id or a hash and nothing else, or one of a few
words of the program's own.
"""
NAMES = frozenset(("name", "aliases"))
"""Columns with the name of a person and nothing else: a longer name is somebody else's."""


def is_text(kind: pa.DataType) -> bool:
    """Whether values of a type are texts, or lists or maps of texts."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return is_text(kind.value_type)
    if pa.types.is_map(kind):
        return is_text(kind.item_type)
    if pa.types.is_struct(kind):
        return any(is_text(kind.field(place).type) for place in range(kind.num_fields))
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def may_name(schema: TableSchema) -> tuple[str, ...]:
    """The columns of a table that may hold a name."""
    return tuple(
        column.name
        for column in schema.columns
        if is_text(column.type) and column.name not in CLOSED
    )


def texts(schema: TableSchema) -> tuple[str, ...]:
    """Those of them that are one text a row in which a name may be a part."""
    return tuple(
        name
        for name in may_name(schema)
        if name not in NAMES and pa.types.is_string(schema.arrow.field(name).type)
    )


OF_PICTURES: Mapping[str, tuple[str, ...]] = {
    name: texts(schema) for name, schema in TABLES.items() if "image_id" in schema.names
}
"""By table, the columns in which a picture may say by name whom it shows."""
OF_PEOPLE: Mapping[str, tuple[str, ...]] = {
    name: texts(schema)
    for name, schema in TABLES.items()
    if "identity_id" in schema.names and "image_id" not in schema.names
}
"""By table, the columns in which a row about somebody may name somebody else."""
