"""What a table is: named, typed, described columns with a key, a parent and a version; checked on
write and on read.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pyarrow as pa

from schemas.errors import UserError

LIGHT = "_light"
"""How the name of a companion ends: the columns of a table with images that are no images."""
STATUSES = ("ok", "filtered", "failed", "poisoned")


def is_text(kind: pa.DataType) -> bool:
    """Whether values of a type are texts, or hold texts."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return is_text(kind.value_type)
    if pa.types.is_map(kind):
        return is_text(kind.key_type) or is_text(kind.item_type)
    if pa.types.is_struct(kind):
        return any(is_text(kind.field(place).type) for place in range(kind.num_fields))
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


class SchemaError(UserError, ValueError):
    """A table does not have the columns, types or values that its schema promises."""


@dataclass(frozen=True)
class Member:
    """A file of a sample that carries a column: its name behind the key, and what the data card
    says of it.
    """

    ending: str
    says: str

    @property
    def condition(self) -> str:
        """What a shard profile calls it: `mask` for `mask.png`."""
        return self.ending.partition(".")[0]


@dataclass(frozen=True)
class Step:
    """A step of the funnel: the rows of the table say what became of what step `of` let through.

    `unit` is what is counted. A `usual` step is told of though nothing is there, where nobody knows
    which stages there were.
    """

    name: str
    of: str | None
    label: str
    lost: str
    """How reports call what went through, and what did not."""
    unit: str = "faces"
    usual: bool = True


@dataclass(frozen=True)
class Column:
    """One column. `description` gives the unit and what null means."""

    name: str
    type: pa.DataType
    description: str
    nullable: bool = True
    blob: bool = False
    """Bytes that only their readers load."""
    late: bool = False
    """Files of an earlier version of the program lack it: there all its values are null."""
    text: bool | None = None
    """Of a column of texts: whether a name may stand in it, so that erasure looks there. False for
    ids, hashes and words of the program's own. Every column of texts says one or the other.
    """
    is_name: bool = False
    """It holds the name of a person and nothing else: a longer one is somebody else's."""
    default: Any = None
    """What a row has that only says why there is nothing; for columns that may not be null."""
    sample: str | None = None
    """The column of samples that carries it along."""
    member: Member | None = None
    """The file of a sample that carries it, where a shard profile includes that."""

    def __post_init__(self) -> None:
        if is_text(self.type) and self.text is None:
            raise SchemaError(
                f"column {self.name!r}: say with `text` whether a name may stand in it"
            )


@dataclass(frozen=True)
class TableSchema:
    """One table. `parent` is the table whose rows its rows stem from, `parent_key` the column that
    says from which.
    """

    name: str
    version: int
    written_by: str
    description: str
    key: str
    parent: str | None
    parent_key: str | None
    columns: tuple[Column, ...]
    step: Step | None = None
    """Its place in the funnel."""
    need: str | None = None
    """What a shard profile calls a row of it, where it can ask for one."""

    @cached_property
    def arrow(self) -> pa.Schema:
        return pa.schema([pa.field(c.name, c.type, nullable=c.nullable) for c in self.columns])

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.columns)

    @cached_property
    def light(self) -> tuple[str, ...]:
        """All columns but the blobs: what planning and queries read."""
        return tuple(c.name for c in self.columns if not c.blob)

    @cached_property
    def blobs(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.columns if c.blob)

    @cached_property
    def texts(self) -> tuple[Column, ...]:
        """The columns in which a name may stand."""
        return tuple(c for c in self.columns if c.text)

    @cached_property
    def samples(self) -> tuple[Column, ...]:
        """The columns that samples carry along."""
        return tuple(c for c in self.columns if c.sample)

    @cached_property
    def members(self) -> dict[str, Column]:
        """The columns that samples carry as files, by condition."""
        return {c.member.condition: c for c in self.columns if c.member}

    @cached_property
    def companion(self) -> "TableSchema":
        """The light columns as a table of its own: what a finished bucket has beside files with
        images.
        """
        return replace(
            self,
            name=f"{self.name}{LIGHT}",
            columns=tuple(column for column in self.columns if not column.blob),
        )

    @cached_property
    def _empty(self) -> pa.Table:
        return self.arrow.empty_table()

    def empty(self) -> pa.Table:
        return self._empty

    @cached_property
    def bare(self) -> pa.Table:
        """No rows, with the light columns."""
        return self.empty().select(self.light)

    def build(self, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
        """A table of this schema from dictionaries; columns that a dictionary leaves out are null.
        Raises SchemaError.
        """
        return self._table(list(rows), self.arrow)

    def build_without(self, column: str, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
        """As `build`, without one column."""
        return self._table(list(rows), self.arrow.remove(self.arrow.get_field_index(column)))

    def _table(self, rows: list[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
        known = set(schema.names)
        strange = {name for row in rows for name in row if name not in known}
        if strange:
            names = ", ".join(sorted(strange))
            raise SchemaError(
                f"table {self.name!r} has no column {names}; `idcluster schema` prints what "
                "belongs in it"
            )
        try:
            return pa.Table.from_pylist(rows, schema=schema)
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise SchemaError(
                f"rows for table {self.name!r} do not fit its schema: {error}"
            ) from error

    def check(self, table: pa.Table, source: str, columns: Iterable[str] | None = None) -> pa.Table:
        """`table` in this schema's column order, or SchemaError naming `source`, the column and the
        remedy.

        `columns` restricts the check to a projection, as a reader that left out blobs has it.
        """
        wanted = self.names if columns is None else tuple(columns)
        missing = [name for name in wanted if name not in table.column_names]
        extra = [name for name in table.column_names if name not in wanted]
        if missing or extra:
            raise SchemaError(
                f"{source}: table {self.name!r} (schema version {self.version}) "
                + (f"lacks {', '.join(missing)}" if missing else "")
                + (" and " if missing and extra else "")
                + (f"has unknown {', '.join(extra)}" if extra else "")
                + "; `idcluster schema` prints what belongs in it"
            )
        table = table.select(wanted)
        for field in (self.arrow.field(name) for name in wanted):
            column = table.column(field.name)
            if not column.type.equals(field.type):
                raise SchemaError(
                    f"{source}: {self.name}.{field.name} is {column.type}, expected {field.type}"
                )
            if not field.nullable and column.null_count:
                raise SchemaError(
                    f"{source}: {self.name}.{field.name} has {column.null_count} null values, "
                    "may have none"
                )
        if "status" in wanted:
            strange = set(table.column("status").unique().to_pylist()) - set(STATUSES)
            if strange:
                raise SchemaError(
                    f"{source}: {self.name}.status holds {sorted(strange)}, known are "
                    f"{list(STATUSES)}"
                )
        return table.cast(pa.schema([self.arrow.field(name) for name in wanted]))
