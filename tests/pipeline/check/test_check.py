"""`idcluster check`: every kind of damage is named with a remedy, and what --repair drops is there
again after a run.
"""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from idcluster.root import spool
from idcluster.root.dataset_root import RunError
from idcluster.root.parquet import encode, seal_table
from idcluster.root.removals import UNFINISHED
from idcluster.root.snapshot import load, numbers, path_of, publish
from idcluster.root.storage import Store
from pipeline.check.look import look
from pipeline.check.read_before import PATH as FINE
from pipeline.check.repair import BUCKET_TABLES, WHOLE_TABLES, repair
from pipeline.cli import app
from pipeline.execution.snapshot_tables import is_chunked
from pipeline.gc import collect
from schemas import TABLES
from schemas.fetched import Fetched
from stages.backends import BACKENDS, backend
from tests.pipeline.damaged import files, flip, flipped_bytes
from tests.pipeline.rooms import computed, run_toy, shown, small_buckets
from tests.pipeline.s3 import serving

TABLES_OF_STAGES = ("images", "faces", "embeddings", "clusters", "people", "matches", "captions")


def again(made: Path, root: Path | str, folder: Path) -> Any:
    with small_buckets():
        return run_toy(folder, made / "people", root)


def check(root: Path | str, *options: str) -> tuple[int, list[str]]:
    with small_buckets():
        done = CliRunner().invoke(app, ["check", str(root), *options])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.output
    return done.exit_code, done.stdout.splitlines()


DAMAGE: dict[str, Callable[[Path], None]] = {
    "flipped": flip,
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "gone": Path.unlink,
}


def test_a_whole_root_has_no_fault(made: Path, root: Path, undisturbed: dict[str, Any]) -> None:
    for options in ((), ("--deep",), ("--repair",), ("--deep", "--repair")):
        code, lines = check(root, *options)
        assert code == 0 and lines[-1].endswith("nothing wrong"), lines
    assert shown(root) == undisturbed
    assert computed(again(made, root, root.parent)) == {}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("table", [*TABLES_OF_STAGES, "images_light", "shards", "samples"])
def test_what_is_damaged_is_named_and_there_again_after_repair_and_run(
    made: Path, root: Path, undisturbed: dict[str, Any], table: str, damage: str
) -> None:
    damaged = files(root, table)[:2]
    for path in damaged:
        DAMAGE[damage](path)
    code, lines = check(root)
    assert code == 1
    for path in damaged:
        [line] = [line for line in lines if line.startswith(path.relative_to(root).as_posix())]
        assert "--repair" in line
    code, lines = check(root, "--repair")
    assert code == 0, lines
    again(made, root, root.parent)
    assert shown(root) == undisturbed
    assert check(root, "--deep")[0] == 0
    assert computed(again(made, root, root.parent)) == {}


@pytest.mark.parametrize("table", ["candidates", "identities"])
def test_what_nobody_computes_is_left_and_said(made: Path, root: Path, table: str) -> None:
    """People would get other places, and what was decided by hand would be gone."""
    collect(Store(root), 1, "gc")
    before = load(Store(root))
    path = files(root, table)[0]
    flip(path)
    code, lines = check(root, "--repair")
    assert code == 1
    [line] = [line for line in lines if path.name in line]
    assert f"nothing computes {table}" in line and "from a copy" in line
    assert load(Store(root)) == before


def test_rows_that_lie_in_an_older_file_too_are_taken_from_there(
    made: Path, root: Path, undisturbed: dict[str, Any]
) -> None:
    """Chunks of a bucket that was compacted since lie in files of their own as well, until they are
    tidied away.
    """
    path = files(root, "candidates")[0]
    assert "chunk-all" in path.name
    flip(path)
    assert check(root, "--repair")[0] == 0
    assert shown(root) == undisturbed and check(root)[0] == 0


@pytest.mark.slow
def test_rows_of_earlier_parameters_that_are_damaged_are_dropped(
    made: Path, root: Path, undisturbed: dict[str, Any]
) -> None:
    before = files(root, "captions")
    with small_buckets():
        run_toy(root.parent, made / "people", root, ("stages.caption.params.prompt=other",))
    for path in before:
        flip(path)
    assert check(root)[0] == 1
    assert check(root, "--repair")[0] == 0
    again(made, root, root.parent)
    assert shown(root) == undisturbed


# What the snapshot says of rows, and what belongs together


def republished(store: Store, change: Callable[[Any], Any]) -> None:
    snapshot = load(store)
    publish(store, change(snapshot))


def test_counts_that_rows_do_not_have_are_named(root: Path) -> None:
    store = Store(root)
    entry = load(store).shown("people")[0]
    republished(
        store, lambda snapshot: snapshot.with_entries([replace(entry, rows=entry.rows + 1)])
    )
    code, lines = check(root)
    assert code == 1 and any(entry.file in line and "rows" in line for line in lines)
    faces = load(store).shown("faces")[0]
    republished(store, lambda snapshot: snapshot.with_entries([replace(faces, ok=faces.ok - 1)]))
    assert any(
        faces.file in line and "rows of status ok" in line
        for line in check(root, "--deep", "--again")[1]
    )


def test_photographs_that_are_not_those_of_their_hash_are_named(root: Path) -> None:
    """Files that are what was written, and were written wrongly."""
    store = Store(root)
    entry = load(store).shown("images")[0]
    table = pq.read_table(store.uri(entry.file), partitioning=None)
    data = [b"something else", *table["bytes"].to_pylist()[1:]]
    column = pa.chunked_array([pa.array(data, pa.large_binary())])
    wrong = table.set_column(table.column_names.index("bytes"), table.schema.field("bytes"), column)
    sealed = seal_table(store, TABLES["images"], entry.version, entry.bucket, entry.chunk, wrong)
    moved = replace(entry, file=sealed.path, bytes=sealed.bytes, digest=sealed.digest)
    republished(store, lambda snapshot: snapshot.with_entries([moved]))
    assert check(root)[0] == 0
    assert any(
        moved.file in line and "not those of its SHA-256" in line
        for line in check(root, "--deep")[1]
    )


@pytest.mark.parametrize("name", ["index.json", "train.json", "dataset.json", "README.md"])
@pytest.mark.parametrize("damage", ["other", "gone"])
def test_indexes_are_put_again(
    root: Path, undisturbed: dict[str, Any], name: str, damage: str
) -> None:
    path = root / "shards" / "faces" / name
    path.write_text('{"shardlist": []}') if damage == "other" else path.unlink()
    assert check(root)[0] == 1
    assert check(root, "--repair")[0] == 0
    assert shown(root) == undisturbed and check(root, "--deep")[0] == 0


# Beside the tables


def test_parts_spool_records_and_receipts_are_looked_at(made: Path, root: Path) -> None:
    store = Store(root)
    part = "parts/faces/v=1/bucket=00000/00000-00000-00.parquet"
    store.put(part, encode(TABLES["faces"], TABLES["faces"].empty()))
    spooled = spool.spool_path("20260101T000000-aaaa", "b", 1)
    spool.put(store, spooled, [("https://a.example/1.jpg", Fetched(b"picture", "ok"))])
    assert check(root)[0] == 0
    torn = spool.spool_path("20260101T000000-aaaa", "b", 2)
    store.put(torn, store.read(spooled)[:-3])
    for path in (part, spooled):
        flip(root / path)
    (root / "runs" / "20260101T000000-aaaa.json").write_text("{")
    store.put(UNFINISHED, b"{}")
    store.put("receipts/a.json", b"{")
    code, lines = check(root)
    assert code == 1
    named = {line.partition(":")[0] for line in lines}
    assert {part, spooled, torn, "runs/20260101T000000-aaaa.json", UNFINISHED, "receipts"} <= named
    store.delete([UNFINISHED])
    code, lines = check(root, "--repair")
    assert code == 1 and not any(store.exists(path) for path in (part, spooled, torn)), lines
    store.delete(["receipts/a.json", "runs/20260101T000000-aaaa.json"])
    assert check(root)[0] == 0


def test_a_broken_off_removal_is_finished_before_anything_is_repaired(root: Path) -> None:
    store = Store(root)
    store.put(UNFINISHED, b"{}")
    with pytest.raises(RunError, match="--resume"):
        repair(store, look(store), "check")


def test_files_that_no_snapshot_names_are_no_damage(root: Path) -> None:
    Store(root).put(
        "tables/faces/v=1/bucket=00000/chunk-00000-00000000.parquet",
        b"left by a run that was killed",
    )
    Store(root).put("shards/faces/.abc.tmp", b"")
    code, lines = check(root)
    assert code == 0 and any("2 files" in line and "idcluster gc" in line for line in lines)


def test_a_damaged_snapshot_is_named(root: Path, undisturbed: dict[str, Any]) -> None:
    store = Store(root)
    there = numbers(store)
    flip(root / path_of(there[0]))
    code, lines = check(root)
    assert code == 1 and lines[0].startswith(path_of(there[0]))
    assert check(root, "--repair")[0] == 0
    assert numbers(store) == there[1:] and shown(root) == undisturbed
    flip(root / path_of(there[-1]))
    code, lines = check(root, "--repair")
    assert code == 1 and numbers(store) == there[1:]


# How it is done


def test_what_was_found_whole_is_not_read_again(root: Path) -> None:
    store = Store(root)
    first = look(store)
    second = look(store)
    assert first.files > 10 and (second.files, second.not_again) == (0, first.files)
    assert look(store, again=True).files == first.files
    assert look(store, deep=True).files == first.files and look(store, deep=True).files == 0
    path = files(root, "faces")[0]
    flip(path)
    third = look(store)
    assert third.files == 1 and [fault.path for fault in third.faults] == [
        path.relative_to(root).as_posix()
    ]
    assert "person" not in store.read(FINE).decode()


def test_a_check_that_is_broken_off_is_gone_on_with(root: Path) -> None:
    class Stop(Exception):
        pass

    def stop(files: int, *_: int) -> None:
        if files == 5:
            raise Stop

    store = Store(root)
    with pytest.raises(Stop):
        look(store, told=stop)
    assert look(store).not_again >= 5


def test_nothing_is_repaired_that_was_published_since(root: Path) -> None:
    store = Store(root)
    flip(files(root, "faces")[0])
    checked = look(store)
    publish(store, load(store))
    with pytest.raises(RunError, match="published to while it was checked"):
        repair(store, checked, "check")


def test_machines_can_read_it(root: Path) -> None:
    path = files(root, "faces")[0]
    flip(path)
    code, lines = check(root, "--json", "--repair")
    found = json.loads("\n".join(lines))
    [fault] = found["faults"]
    assert (
        code == 0
        and fault["path"] == path.relative_to(root).as_posix()
        and fault["repaired"]
        and found["published"]
    )


@pytest.mark.slow
def test_in_an_object_store_too(
    made: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with serving() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        server.make_bucket("data")
        root = "s3://data/root"
        run_toy(tmp_path, made / "people", root)
        before = shown(root)
        store = Store(root)
        store.put("parts/empty", b"")
        assert store.exists("parts/empty") and not store.exists("parts/nothing")
        assert check(root, "--deep") == check(root, "--deep", "--again")
        assert look(store, deep=True).files == 0
        snapshot = load(store)
        flipped, gone, shard = (
            snapshot.shown(table)[0].file for table in ("faces", "captions", "shards")
        )
        store.put(flipped, flipped_bytes(store.read(flipped)))
        store.delete([gone])
        store.put(shard, store.read(shard)[:-512])
        code, lines = check(root)
        assert code == 1 and sorted(
            line.partition(":")[0] for line in lines if "--repair" in line
        ) == sorted([flipped, gone, shard])
        assert check(root, "--repair")[0] == 0
        run_toy(tmp_path, made / "people", root)
        assert shown(root) == before and check(root, "--deep")[0] == 0


def test_status_tells_what_is_not_there(root: Path) -> None:
    whole = CliRunner().invoke(app, ["status", str(root)])
    assert whole.exit_code == 0
    gone, cut = files(root, "faces")[0], files(root, "clusters")[0]
    gone.unlink()
    DAMAGE["cut"](cut)
    done = CliRunner().invoke(app, ["status", str(root)])
    assert done.exit_code == 1 and "idcluster check" in done.output and "1 more" in done.output
    assert cut.name in done.output or gone.name in done.output


def test_tables_whose_rows_are_computed_together_are_those_of_such_stages() -> None:
    """Of a person whose rows lie in two chunks one would be dropped, and the other taken for all
    there is.
    """
    grains = {
        stage.writes.name: stage.grain
        for name in filter(BACKENDS.get, BACKENDS)
        for stage in [backend(name, next(iter(BACKENDS[name])))()]
    }
    assert {table for table, grain in grains.items() if grain == "root"} == set(WHOLE_TABLES)
    assert {
        table for table, grain in grains.items() if grain == "bucket" and is_chunked(table)
    } == set(BUCKET_TABLES)
