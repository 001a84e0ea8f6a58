"""Shards that were replaced lie aside, where no glob finds them, and are known until `gc`."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import webdataset

import idcluster
from idcluster.root.dataset_root import make_root
from idcluster.root.snapshot import Snapshot, load
from idcluster.root.storage import Store
from pipeline.gc import collect
from pipeline.history import rollback
from pipeline.shards.check import check_set
from stages.shard.params import ShardParams
from tests.pipeline.s3 import S3Server, serving
from tests.pipeline.shards.test_release import show
from tests.pipeline.small_root import SmallPerson, small_root

PEOPLE = [SmallPerson(f"Person {number}", 3 + number % 4) for number in range(8)]
PARAMS = ShardParams(target_mb=0.005)


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with serving() as one:
        yield one


@pytest.fixture(params=["disk", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    root = str(tmp_path / "root") if request.param == "disk" else f"memory://{tmp_path.name}/root"
    return make_root(root, "test")


@pytest.fixture
def in_s3(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Store:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    bucket = f"test-{uuid.uuid4().hex[:12]}"
    server.make_bucket(bucket)
    return make_root(f"s3://{bucket}/root", "test")


def replaced(store: Store) -> tuple[Snapshot, Snapshot]:
    """Two states of a dataset: in the second, somebody is gone and somebody new is there."""
    first = show(store, small_root(store, PEOPLE[:6]), PARAMS)
    return first, show(store, small_root(store, PEOPLE[1:], first), PARAMS)


def there(store: Store) -> set[str]:
    """The tars and Parquet files that a glob of the set's folder finds."""
    names = [name.rpartition("/shards/faces/")[2] for name in store._names("shards/faces")]
    return {one for one in names if "/" not in one and one.endswith((".tar", ".parquet"))}


def shown(snapshot: Snapshot) -> set[str]:
    return {
        entry.file.rpartition("/")[2]
        for table in ("shards", "samples")
        for entry in snapshot.shown(table)
    }


@pytest.mark.slow
def test_a_glob_finds_the_set_and_nothing_else(store: Store) -> None:
    first, second = replaced(store)
    assert shown(first) - shown(second) and there(store) == shown(second)
    for name in shown(first) | shown(second):
        path = f"shards/faces/{name}"
        assert store.exists(path) and path in store.list("shards")
        assert store.size(path) == len(store.read(path)) > 0
        assert store.read_part(path, 0, 4) == store.read(path)[:4]
        with store.open(path) as file:
            assert file.read() == store.read(path)
    assert check_set(store, "shards/faces").faults == []
    if store.local:
        deep = {path.name for path in Path(store.root).rglob("*.tar")}
        assert deep == {name for name in shown(second) if name.endswith(".tar")}


@pytest.mark.slow
def test_an_older_snapshot_is_read_where_its_shards_lie(store: Store) -> None:
    first, second = replaced(store)
    before = idcluster.open(store.root, snapshot=first.number)
    assert {one.about["name"] for one in before.samples()} == {one.name for one in PEOPLE[:6]}
    assert before.sql("SELECT count(DISTINCT name) FROM samples").fetchall() == [(6,)]
    if store.local:
        assert all(Path(path).is_file() for path in before.shards().paths())
        assert any(".replaced" in path for path in before.shards().paths())
        plain = webdataset.WebDataset(before.shards().paths(), shardshuffle=False)
        assert [one["__key__"] for one in plain] == [one.key for one in before.samples()]
    after = idcluster.open(store.root, snapshot=second.number)
    assert not any(".replaced" in path for path in after.shards().paths())


@pytest.mark.slow
def test_going_back_brings_them_back(store: Store) -> None:
    first, second = replaced(store)
    back = rollback(store, first.number, "back")
    assert there(store) == shown(first) == shown(back)
    rollback(store, second.number, "forth")
    assert there(store) == shown(second)
    assert check_set(store, "shards/faces").faults == []


@pytest.mark.slow
def test_going_back_in_an_object_store(in_s3: Store) -> None:
    test_going_back_brings_them_back(in_s3)


@pytest.mark.slow
def test_collecting_deletes_them(store: Store) -> None:
    first, second = replaced(store)
    collect(store, 1, "gc")
    assert {path.rpartition("/")[2] for path in store.list("shards")} >= shown(second)
    gone = {f"shards/faces/{name}" for name in shown(first) - shown(second)}
    assert gone and not gone & {*store.list("shards")}
    assert not [name for name in store._names("shards") if ".replaced" in name]


@pytest.mark.slow
def test_a_move_that_broke_off_goes_on(store: Store) -> None:
    """In an object store a move is a copy and a deletion; between them a file lies in both."""
    first, second = replaced(store)
    name = sorted(shown(first) - shown(second))[0]
    kept = sorted(shown(second))[0]
    data = store.read(f"shards/faces/{name}")
    store.put(f"shards/faces/{name}", data)
    store.put(f"shards/faces/.replaced/{kept}.replaced", b"half of something")
    store.arrange("shards/faces", {f"shards/faces/{one}" for one in shown(second)})
    assert there(store) == shown(second) and store.read(f"shards/faces/{name}") == data
    assert store.read(f"shards/faces/{kept}") != b"half of something"
    store.put(f"shards/faces/{name}", data)
    store.delete([f"shards/faces/{name}"])
    assert not [one for one in store._names("shards") if name in one], "in neither place"
    assert load(store).number == second.number
