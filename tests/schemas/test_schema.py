"""Schemas: every table is described and checked, and a table that does not fit is refused in words
that help.
"""

import pyarrow as pa
import pytest

from schemas import TABLES, SchemaError, TableSchema
from schemas.schema import STATUSES, Column

WRITTEN = [schema for schema in TABLES.values() if schema.name != "removals"]


def rows(schema: TableSchema, count: int = 2) -> pa.Table:
    """Rows with the smallest values that the schema allows."""
    by_type = {
        pa.string(): "x",
        pa.int32(): 0,
        pa.bool_(): True,
        pa.binary(8): b"8 bytes.",
        pa.timestamp("us", tz="UTC"): 0,
    }
    row = {c.name: by_type[c.type] for c in schema.columns if not c.nullable}
    return schema.build([row | ({"status": "ok"} if "status" in schema.names else {})] * count)


@pytest.mark.parametrize("schema", TABLES.values(), ids=lambda schema: schema.name)
def test_every_table_says_what_it_holds(schema: TableSchema) -> None:
    """`idcluster schema` and the comments in SQL would have holes."""
    assert schema.description.endswith(".") and schema.written_by and schema.version >= 1
    assert len(set(schema.names)) == len(schema.names)
    for column in schema.columns:
        assert column.description.strip() == column.description != "", column.name
        assert column.name == column.name.lower() and column.name.isidentifier()
    assert {*schema.light, *schema.blobs} == set(schema.names) and not {*schema.light} & {
        *schema.blobs
    }


@pytest.mark.parametrize("schema", TABLES.values(), ids=lambda schema: schema.name)
def test_keys_and_parents_are_columns(schema: TableSchema) -> None:
    """A key that may be null, or a parent without the parent's key, would lose rows in joins."""
    by_name = {c.name: c for c in schema.columns}
    assert not by_name[schema.key].nullable and by_name[schema.key].type == pa.string()
    assert (schema.parent is None) == (schema.parent_key is None)
    if schema.parent is not None and schema.parent_key is not None:
        assert not by_name[schema.parent_key].nullable
        assert TABLES[schema.parent].key == schema.parent_key


@pytest.mark.parametrize("schema", WRITTEN, ids=lambda schema: schema.name)
def test_every_row_can_say_what_became_of_it(schema: TableSchema) -> None:
    """A bad row would vanish, or could never be found done."""
    by_name = {c.name: c for c in schema.columns}
    assert not by_name["identity_id"].nullable
    assert not by_name["status"].nullable and by_name["reason"].type == pa.string()
    assert by_name["inputs"].type == pa.binary(8) and not by_name["inputs"].nullable


@pytest.mark.parametrize("schema", TABLES.values(), ids=lambda schema: schema.name)
def test_empty_and_least_tables_pass(schema: TableSchema) -> None:
    """The first run on an empty root, or a row of nothing but nulls, would be refused."""
    assert schema.check(schema.empty(), "test").num_rows == 0
    checked = schema.check(rows(schema), "test")
    assert checked.schema.equals(schema.arrow) and checked.num_rows == 2
    assert schema.check(
        schema.empty().select(schema.light), "test", schema.light
    ).column_names == list(schema.light)
    assert schema.build([]).schema.equals(schema.arrow)


def test_check_puts_columns_in_order_and_drops_foreign_metadata() -> None:
    """The same rows from two writers would give different files."""
    schema = TABLES["clusters"]
    table = rows(schema)
    shuffled = table.select(sorted(table.column_names, reverse=True)).replace_schema_metadata(
        {"pandas": "{}"}
    )
    assert schema.check(shuffled, "test").equals(table)
    assert schema.check(shuffled, "test").schema.metadata is None


def test_what_a_table_lacks_or_has_too_much_is_named_with_the_remedy() -> None:
    """A user whose backend forgets a column would read a stack trace of Arrow."""
    schema = TABLES["faces"]
    with pytest.raises(SchemaError) as caught:
        schema.check(
            rows(schema)
            .drop_columns(["box", "score"])
            .append_column("colour", pa.array(["red"] * 2)),
            "rows of mybackend",
        )
    message = str(caught.value)
    assert message.startswith(
        f"rows of mybackend: table 'faces' (schema version {TABLES['faces'].version})"
    )
    assert (
        "lacks box, score" in message
        and "has unknown colour" in message
        and "`idcluster schema`" in message
        and "\n" not in message
    )


def test_wrong_types_nulls_and_statuses_name_table_and_column() -> None:
    """A float64 box or a null id would be written, and fail much later in somebody else's query."""
    schema = TABLES["faces"]
    table = rows(schema)
    at = schema.names.index

    def changed(name: str, values: pa.Array) -> pa.Table:
        return table.set_column(at(name), name, values)

    with pytest.raises(SchemaError, match=r"source: faces\.score is double, expected float"):
        schema.check(changed("score", pa.array([0.5, 0.5])), "source")
    with pytest.raises(SchemaError, match=r"source: faces\.face_id has 1 null values"):
        schema.check(changed("face_id", pa.array(["a", None])), "source")
    with pytest.raises(
        SchemaError, match=r"source: faces\.status holds \['fine'\], known are \['ok', 'filtered'"
    ):
        schema.check(changed("status", pa.array(["ok", "fine"])), "source")


@pytest.mark.parametrize("status", STATUSES)
def test_known_statuses_pass(status: str) -> None:
    """A poisoned row would be refused and take its neighbours along."""
    schema = TABLES["faces"]
    table = rows(schema).set_column(schema.names.index("status"), "status", pa.array([status] * 2))
    assert schema.check(table, "test")["status"].to_pylist() == [status] * 2


def test_a_projection_is_checked_for_itself() -> None:
    """A reader that leaves images out would be told that they are missing."""
    schema = TABLES["images"]
    light = rows(schema).select(schema.light)
    assert schema.check(light, "test", schema.light).column_names == list(schema.light)
    with pytest.raises(SchemaError, match="lacks bytes"):
        schema.check(light, "test")
    with pytest.raises(SchemaError, match="has unknown"):
        schema.check(light, "test", ["image_id"])


def test_build_fills_what_is_left_out_and_refuses_wrong_values() -> None:
    """A backend that writes text where numbers belong would be noticed after the run."""
    schema = TABLES["faces"]
    assert schema.build([{"score": 0.5}, {}])["score"].to_pylist() == [0.5, None]
    with pytest.raises(SchemaError, match=r"rows for table 'faces' do not fit its schema: .*high"):
        schema.build([{"score": "high"}])
    with pytest.raises(
        SchemaError, match=r"table 'faces' has no column scores; `idcluster schema`"
    ):
        schema.build([{"scores": 0.5}])
    with pytest.raises(SchemaError, match=r"faces\.identity_id has 1 null"):
        schema.check(schema.build([{"score": 0.5}]), "test")


def test_pictures_are_the_only_columns_that_planning_leaves_out() -> None:
    """A plan or a query would read every image."""
    blobs = {schema.name: schema.blobs for schema in TABLES.values() if schema.blobs}
    assert blobs == {
        "images": ("bytes",),
        "masks": ("mask",),
        "renders": ("normal", "albedo", "lambertian", "landmark_picture"),
        "latents": ("moments",),
    }
    assert Column("a", pa.int64(), "b").nullable and not Column("a", pa.int64(), "b").blob


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.list_(pa.string()), pa.map_(pa.string(), pa.string())]
)
def test_a_column_of_texts_says_whether_a_name_may_stand_in_it(kind: pa.DataType) -> None:
    """Erasure would pass by a column that somebody adds and does not think of."""
    with pytest.raises(SchemaError, match="column 'tags': say with `text`"):
        Column("tags", kind, "what it shows")
    assert Column("tags", kind, "what it shows", text=True).text
