"""Whatever column a name stands in: it is found after a removal, and taken out by one."""

import hashlib
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from idcluster.catalogue.connection import connect
from idcluster.root.parquet import encode, seal_table
from idcluster.root.snapshot import WHOLE, Entry, Snapshot, load, publish
from idcluster.root.storage import Store
from pipeline.forget.erase import forget
from pipeline.forget.preview import prepare
from pipeline.forget.text_columns import CLOSED, NAMES, OF_PEOPLE, OF_PICTURES, may_name, texts
from pipeline.forget.verify import Leftover, verify
from pipeline.forget.wish import Wish
from schemas import TABLES, TableSchema, face_id, identity_id, image_id
from schemas.samples import SAMPLES
from schemas.schema import is_text
from schemas.views import VIEWS
from tests.pipeline.forgotten import remove
from tests.pipeline.small_root import BOX, SmallPerson, small_root

ALL = VIEWS
COLUMNS = [(schema.name, column) for schema in ALL.values() for column in may_name(schema)]
WHO, OTHER = "Ada Lovelace", "Grace Hopper"
STUDIO = "by LOVELACE, Аdа (studio)"  # with two letters that are not Latin
NOBODY = 2.0
"""A cosine that no face has."""
PLACES = [(table, column) for table, columns in OF_PICTURES.items() for column in columns]


def test_every_column_is_one_or_the_other() -> None:
    """A column that is added later is searched unless somebody says that it cannot hold a name."""
    names = {
        column.name for schema in ALL.values() for column in schema.columns if is_text(column.type)
    }
    assert names >= CLOSED
    assert {"licence", "source", "opt_out", "detail", "author", "split"} <= {
        column for _, column in COLUMNS
    }
    assert names >= NAMES and not NAMES & CLOSED and "tags" not in CLOSED, "nor what nobody knows"


def names_left(store: Store, *names: str) -> list[Leftover]:
    """Vectors of small roots are all equal: they are left out."""
    return [
        leftover for leftover in verify(store, names).leftovers if "vector" not in leftover.what
    ]


def planted(schema: TableSchema, column: str) -> bytes:
    text = "lovelace  ADA" if column in NAMES else STUDIO
    kind = schema.arrow.field(column).type
    value: Any = text
    if pa.types.is_map(kind):
        value = [("other", "x"), ("alias", text)]
    elif pa.types.is_list(kind) and column in ("stages", "phases"):
        value = [{"stage" if column == "stages" else "bottleneck": text}]
    elif pa.types.is_list(kind):
        value = ["x", text]
        if pa.types.is_struct(kind.value_type):
            value = [{"name": text, "offset": 1, "length": 1, "sha256": "x"}]
    sink = io.BytesIO()
    pq.write_table(pa.table({column: pa.array([None, value], kind)}), sink)
    return sink.getvalue()


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Where names are found that were planted in all columns of all tables after a removal."""
    store = Store(tmp_path_factory.mktemp("searched"))
    small_root(store, [SmallPerson(WHO, 2), SmallPerson(OTHER, 2)])
    remove(store, WHO, threshold=NOBODY)
    assert names_left(store) == []
    for table, column in COLUMNS:
        store.put(f"tables/{table}/v=00000000/{column}.parquet", planted(ALL[table], column))
    return {leftover.path for leftover in names_left(store)}


@pytest.mark.parametrize(("table", "column"), COLUMNS)
def test_a_name_is_found_in_every_column_that_may_hold_one(
    searched: set[str], table: str, column: str
) -> None:
    """A dataset would be called clean that goes on naming somebody, as a photographer or in a
    licence.
    """
    assert f"tables/{table}/v=00000000/{column}.parquet" in searched


def as_kind(kind: pa.DataType, text: str) -> Any:
    """A text as a column of a type holds it."""
    if pa.types.is_map(kind):
        return [("alias", text)]
    return ["x", text] if pa.types.is_list(kind) else text


def row(schema: TableSchema, **values: Any) -> dict[str, Any]:
    """A row with the values and something in all columns that may not be null."""
    needed = {column.name: column.type for column in schema.columns if not column.nullable}
    blank: dict[str, Any] = {
        name: "x"
        if kind == pa.string()
        else bytes(8)
        if kind == pa.binary(8)
        else False
        if kind == pa.bool_()
        else 0
        for name, kind in needed.items()
    }
    return {**blank, "status": "ok", **values}


def with_rows(store: Store, snapshot: Snapshot, table: str, rows: list[dict[str, Any]]) -> Snapshot:
    """The snapshot with rows of an earlier version of a table."""
    schema = TABLES[table]
    entry = seal_table(store, schema, "0ld", 0, 0, schema.build(rows)).entry(
        schema, "0ld", 0, 0, "basis"
    )
    return snapshot.with_entries([replace(entry, current=False)])


def test_a_picture_goes_whatever_column_of_whatever_table_names_who_is_on_it(
    tmp_path: Path,
) -> None:
    """The photograph under another name would stay because its licence says whom it shows, and not
    its caption.
    """
    store = Store(tmp_path)
    snapshot = small_root(store, [SmallPerson(WHO, 1), SmallPerson(OTHER, len(PLACES) + 1)])
    other = identity_id(OTHER)
    images = [image_id(other, f"local:{OTHER}/{number}.jpg") for number in range(len(PLACES) + 1)]
    for table, columns in OF_PICTURES.items():
        rows = []
        for column in columns:
            image = images[PLACES.index((table, column))]
            ids = {"identity_id": other, "image_id": image, "face_id": face_id(image, BOX)}
            known = {name: value for name, value in ids.items() if name in TABLES[table].names}
            rows.append(
                row(
                    TABLES[table],
                    **known,
                    **{column: as_kind(TABLES[table].arrow.field(column).type, STUDIO)},
                )
            )
        snapshot = with_rows(store, snapshot, table, rows)
    publish(store, Snapshot(load(store).number, snapshot.entries, snapshot.notes))
    prepared = prepare(store, Wish(identities=(WHO,), threshold=NOBODY))
    own = {image for image, why in prepared.found.others.items() if why.startswith("named in the ")}
    assert own == set(images[:-1])
    forget(store, prepared, "forget-test")
    assert names_left(store, WHO) == []
    assert [
        one for one in verify(store, [OTHER]).leftovers if one.path.startswith("tables/candidates/")
    ]


@pytest.mark.parametrize(
    ("table", "column"),
    [(table, column) for table, columns in OF_PEOPLE.items() for column in columns],
)
def test_rows_about_people_who_stay_do_not_name_them_either(
    tmp_path: Path, table: str, column: str
) -> None:
    """A decision by hand, or a remark on somebody else, would go on naming the person."""
    store = Store(tmp_path)
    small_root(store, [SmallPerson(WHO, 1), SmallPerson(OTHER, 1)])
    schema, other = TABLES[table], identity_id(OTHER)
    values = {
        "identity_id": other,
        "same_as": other,
        "kin": other,
        "face_id": other,
        "name": OTHER,
        "action": "apart",
        column: as_kind(schema.arrow.field(column).type, STUDIO),
    }
    one = row(schema, **{name: value for name, value in values.items() if name in schema.names})
    if "decided_at" in schema.names:
        from datetime import UTC, datetime

        one["decided_at"] = datetime(2026, 1, 2, tzinfo=UTC)
    snapshot = with_rows(store, load(store), table, [one])
    publish(
        store,
        Snapshot(
            snapshot.number,
            tuple(
                replace(entry, current=True) if entry.version == "0ld" else entry
                for entry in snapshot.entries
                if entry.table != table or entry.version == "0ld"
            ),
            snapshot.notes,
        ),
    )
    remove(store, WHO, threshold=NOBODY)
    assert names_left(store, WHO) == []
    connection = connect(str(tmp_path))
    left = connection.execute(f'SELECT identity_id, "{column}" FROM {table}').fetchall()
    found = [values["alias"] if isinstance(values, dict) else values for _, values in left]
    assert ([who for who, _ in left], found) == ([other], ["by (removed) (studio)"])
    connection.close()


def test_a_shard_goes_whose_samples_name_somebody_in_whatever_column(tmp_path: Path) -> None:
    """The tables have another caption by now, and the shard of an earlier day goes on naming whom
    nobody may name.
    """
    store = Store(tmp_path)
    snapshot = small_root(store, [SmallPerson(WHO, 1), SmallPerson(OTHER, 2)])
    other = identity_id(OTHER)
    image = image_id(other, f"local:{OTHER}/0.jpg")
    ids = {"identity_id": other, "canonical_id": other, "image_id": image}
    member = {"name": STUDIO, "offset": 0, "length": 1, "sha256": "x"}
    entries = []
    for number, column in enumerate(texts(SAMPLES)):
        kind = SAMPLES.arrow.field(column).type
        said = [member] if column == "members" else as_kind(kind, STUDIO)
        one = row(SAMPLES, **{**ids, "members": [], column: said})
        del one["status"]
        data = encode(SAMPLES, SAMPLES.build([one]))
        path = f"shards/faces/train-{other}-{number:03d}-00000000"
        for table, ending, held in (("shards", "tar", b"\0" * 1024), ("samples", "parquet", data)):
            store.put(f"{path}.{ending}", held)
            digest = hashlib.sha256(held).hexdigest()[:32]
            entries.append(
                Entry(
                    table, "v", WHOLE, number, f"{path}.{ending}", 1, len(held), digest, "b",
                    True, True,
                )
            )  # fmt: skip
    shown = (*snapshot.entries, *entries)
    publish(store, Snapshot(load(store).number, tuple(sorted(shown)), snapshot.notes))
    remove(store, WHO, threshold=NOBODY)
    assert names_left(store, WHO) == []
    assert [entry for entry in load(store).entries if entry.table in ("shards", "samples")] == []
