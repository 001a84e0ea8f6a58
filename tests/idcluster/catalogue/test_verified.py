"""Queries read nothing that is not what was written: bits that flipped, files cut short, changed or
gone.
"""

import hashlib
import io
import os
import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import duckdb
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from idcluster.catalogue.connection import QueryError, connect, damage, query
from idcluster.catalogue.snapshot_files import Verify
from idcluster.catalogue.statistics import compute
from idcluster.root import checksums, intact
from idcluster.root.parquet import DamagedFile
from idcluster.root.snapshot import load
from idcluster.root.storage import Store
from pipeline.cli import app
from schemas import TABLES
from schemas.views import VIEWS
from tests.pipeline.rooms import run_toy, small_buckets
from tests.pipeline.s3 import serving
from tests.pipeline.small_root import SmallPerson, small_root
from tests.pipeline.toy import people

SIZES = {"by check sums": 0, "by digest": 1_000_000}
"""Up to which size files are read and compared whole."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with finished buckets, so with files of several chunks and companions, and with
    shards.
    """
    folder = tmp_path_factory.mktemp("made")
    with small_buckets():
        run_toy(folder, people(folder / "people", count=3), folder / "root")
    return folder / "root"


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "root")
    return tmp_path / "root"


def asked(
    root: Path | str, tables: Sequence[str] = (*TABLES, "samples", "withheld")
) -> dict[str, Any]:
    """All rows of all tables; of some columns alone, as other pieces of files are read for them;
    and what only footers say.
    """
    connection = connect(str(root))
    try:
        found: dict[str, Any] = {}
        for table in tables:
            found[table] = connection.execute(f"SELECT * FROM {table} ORDER BY ALL").fetchall()
            found[f"rows of {table}"] = connection.execute(
                f"SELECT count(*) FROM {table}"
            ).fetchall()
            key = VIEWS[table].key
            found[f"some of {table}"] = connection.execute(
                f"SELECT * FROM {table} WHERE {key} > '8' ORDER BY ALL"
            ).fetchall()
        return found
    finally:
        connection.close()


def answer(root: Path, table: str) -> dict[str, Any] | DamagedFile:
    try:
        return asked(root, [table])
    except DamagedFile as error:
        return error
    except duckdb.Error as error:
        met = damage(error)
        if met is None:
            raise
        return met


def read_files(root: Path) -> list[Path]:
    """The files that the tables show."""
    store = Store(root)
    shown = {
        e.file for e in load(store).entries if e.file.endswith(".parquet") and e.current and e.live
    }
    return sorted(Path(store.uri(file)) for file in shown)


def places(data: bytes, random: random.Random) -> Iterator[int]:
    """Bytes of a Parquet file: in its footer, in the list before it, at the heads of pages,
    anywhere.
    """
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    yield from random.sample(range(footer, len(data)), 6)
    yield from range(footer - 16, footer, 5)
    yield random.randrange(4, footer)
    with pq.ParquetFile(io.BytesIO(data)) as file:
        group = file.metadata.row_group(random.randrange(file.num_row_groups))
        column = group.column(random.randrange(group.num_columns))
    yield from (column.data_page_offset + at for at in random.sample(range(25), 4))


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_no_flipped_bit_becomes_a_value(
    root: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Vectors with a wrong number in them, or rows left out, in an answer that looks right."""
    monkeypatch.setattr("idcluster.catalogue.snapshot_files._SMALL_FILE", size)
    right = {table: asked(root, [table]) for table in (*TABLES, "samples", "withheld")}
    chance = random.Random(5)
    told = 0
    by_table = {path.relative_to(root).parts[:2]: path for path in read_files(root)}
    for path in by_table.values():
        data = path.read_bytes()
        table = path.relative_to(root).parts[1].removesuffix("_light")
        table = (
            table
            if table in TABLES
            else "withheld"
            if path.name.startswith("withheld")
            else "samples"
        )
        for at in chance.sample(list(places(data, chance)), 3 if size else 9):
            flipped = bytearray(data)
            flipped[at] ^= 1 << chance.randrange(8)
            path.write_bytes(flipped)
            found = answer(root, table)
            if isinstance(found, DamagedFile):
                told += str(path) in str(found) and "idcluster check" in str(found)
            else:
                assert found == right[table], f"{path}: byte {at} of {len(data)}"
        path.write_bytes(data)
    assert told > 30


@pytest.mark.parametrize("verify", get_args(Verify))
def test_files_of_an_earlier_version_are_compared_whole(
    root: Path, verify: Verify, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have no list of check sums; a query would take what is in them on trust."""
    monkeypatch.setattr("idcluster.root.parquet.with_sums", lambda data: data)
    monkeypatch.setattr("idcluster.catalogue.snapshot_files._SMALL_FILE", 0)
    store = Store(root.parent / "old")
    small_root(store, [SmallPerson("Ada", 3)])
    path = Path(store.uri(load(store).shown("faces")[0].file))
    assert checksums.MARK not in path.read_bytes()
    assert (
        query(
            store, "SELECT count(*) AS n, round(min(side)) AS side FROM faces", "csv", verify=verify
        )
        == "n,side\n3,18.0\n"
    )
    data = bytearray(path.read_bytes())
    with pq.ParquetFile(path) as file:
        names = [
            file.metadata.row_group(0).column(n).path_in_schema
            for n in range(file.metadata.num_columns)
        ]
        column = file.metadata.row_group(0).column(names.index("side"))
    data[column.data_page_offset + column.total_compressed_size - 3] ^= 1
    path.write_bytes(data)
    if verify == "none":
        query(store, "SELECT count(*) AS n FROM faces", "csv", verify=verify)
        return
    with pytest.raises(DamagedFile, match="SHA-256"):
        query(store, "SELECT count(*) AS n FROM faces", "csv", verify=verify)


def test_every_kind_of_damage_is_named_with_its_file(root: Path) -> None:
    faces = next(path for path in read_files(root) if "/faces/" in str(path))
    data = faces.read_bytes()
    kinds = {
        "bytes, not": data[:-9],
        "bytes, no": data + b"more",
        "0 bytes": b"",
        "SHA-256": bytes(len(data)),
        "not there": None,
    }
    for said, content in kinds.items():
        if content is None:
            faces.unlink()
        else:
            faces.write_bytes(content)
        with pytest.raises(DamagedFile, match=said) as caught:
            query(str(root), "SELECT * FROM faces")
        assert str(faces) in str(caught.value)


def test_the_commands_end_with_one_and_one_line(root: Path, tmp_path: Path) -> None:
    """A traceback, or exit code 0, which a script takes for an answer."""
    for table in ("faces", "images"):
        for path in (path for path in read_files(root) if f"/{table}" in str(path)):
            flipped = bytearray(path.read_bytes())
            flipped[len(flipped) // 2] ^= 4
            path.write_bytes(flipped)
    for command in (
        ["query", str(root), "SELECT * FROM faces"],
        ["stats", str(root)],
        ["report", str(root), "-o", str(tmp_path / "page.html")],
        [
            "query",
            str(root),
            "SELECT * FROM images",
            "--format",
            "csv",
            "-o",
            str(tmp_path / "images.csv"),
        ],
        ["inspect", str(root), "person 00", "-o", str(tmp_path / "page")],
        ["query", str(root), "SELECT * FROM faces", "--verify", "digest"],
    ):
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 1 and isinstance(done.exception, SystemExit), (
            command,
            done.output,
        )
        said = done.stderr.strip().splitlines()
        assert len(said) == 1 and "idcluster check" in said[0], said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["root"]
    assert (
        CliRunner().invoke(app, ["query", str(root), "SELECT 1", "--verify", "sha"]).exit_code == 2
    )


def test_a_file_is_compared_once_a_process_and_again_when_it_was_written_to(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every question of a report would read everything twice; and whoever keeps a connection would
    never hear of damage.
    """
    looked: list[int] = []
    real = hashlib.sha256

    def counted(data: bytes = b"") -> Any:
        looked.append(len(data))
        return real(data)

    monkeypatch.setattr("idcluster.root.intact.hashlib.sha256", counted)
    for _ in range(2):
        query(str(root), "SELECT * FROM faces")
    once = len(looked)
    query(str(root), "SELECT * FROM faces")
    assert once == len(looked) > 0
    faces = next(path for path in read_files(root) if "/faces/" in str(path))
    data = bytearray(faces.read_bytes())
    data[len(data) // 2] ^= 1
    faces.write_bytes(data)
    with pytest.raises(DamagedFile):
        query(str(root), "SELECT * FROM faces")


def test_an_unknown_way_to_verify_is_refused(root: Path) -> None:
    with pytest.raises(QueryError, match="crc, digest, none"):
        connect(str(root), verify="md5")  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("verify", ["crc", "digest"])
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_in_an_object_store_too(monkeypatch: pytest.MonkeyPatch, verify: Verify, size: int) -> None:
    monkeypatch.setattr("idcluster.catalogue.snapshot_files._SMALL_FILE", size)
    with serving() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        server.make_bucket("data")
        store = Store(f"s3://data/{verify}-{size}")
        small_root(store, [SmallPerson("Ada", 3), SmallPerson("Zoë", 2)])
        right = query(store, "SELECT * FROM faces ORDER BY ALL", "csv", verify=verify)
        path = load(store).shown("faces")[0].file
        data = bytearray(store.read(path))
        data[len(data) // 3] ^= 1
        intact._WHOLE.clear()
        intact._SUMS.clear()
        store.put(path, bytes(data))
        with pytest.raises(DamagedFile, match=path):
            query(store, "SELECT * FROM faces ORDER BY ALL", "csv", verify=verify)
        data[len(data) // 3] ^= 1
        store.put(path, bytes(data))
        assert query(store, "SELECT * FROM faces ORDER BY ALL", "csv", verify=verify) == right


def test_statistics_say_nothing_about_what_is_damaged(root: Path) -> None:
    """The first file of a table is looked at when the catalogue is opened, the others when somebody
    asks.
    """
    first, *others = (path for path in read_files(root) if "/clusters/" in str(path))
    for path in others:
        os.truncate(path, path.stat().st_size - 1)
    with connect(str(root)) as connection, pytest.raises(duckdb.Error) as caught:
        compute(connection, ["similarity"])
    assert isinstance(damage(caught.value), DamagedFile)
    os.truncate(first, first.stat().st_size - 1)
    with pytest.raises(DamagedFile, match=first.name):
        connect(str(root))
