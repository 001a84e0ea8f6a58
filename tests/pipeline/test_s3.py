"""A dataset root in an object store: the same as on a disk, whatever the store does in between."""

import contextlib
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

pytest.importorskip("s3fs", reason="object stores need the group s3")
pytest.importorskip("moto", reason="the S3 server of the tests comes with the group dev")

import idcluster
from idcluster.catalogue.connection import connect
from idcluster.root import storage
from idcluster.root.dataset_root import RunError
from idcluster.root.lease import Lease
from idcluster.root.lease import read as read_lease
from idcluster.root.parquet import read, seal_table
from idcluster.root.snapshot import load
from idcluster.root.spool import SpoolServices, look, put, spool_path
from idcluster.root.storage import PATIENCE, StorageError, Store
from idcluster.shards import open_shards
from pipeline.execution.snapshot_tables import is_chunked
from pipeline.gc import collect
from pipeline.prepared_dag import Selection
from schemas import TABLES, TableSchema
from schemas.fetched import Fetched
from stages.crawl.bucket_folder import BucketFolderSource
from stages.crawl.listing import SourceError
from tests.pipeline.rooms import bury, computed, run_toy, shown, small_buckets
from tests.pipeline.s3 import S3Server, serving
from tests.pipeline.toy import DyingStore, Killed, people, picture


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with serving() as one:
        before = {name: os.environ.get(name) for name in one.environment}
        os.environ.update(one.environment)
        yield one
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@pytest.fixture
def bucket(server: S3Server) -> str:
    name = f"test-{uuid.uuid4().hex[:12]}"
    server.make_bucket(name)
    return name


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return people(tmp_path_factory.mktemp("source") / "people", count=3)


@pytest.fixture(scope="module")
def on_disk(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("disk")
    run_toy(folder, source, folder / "root")
    return shown(folder / "root")


def test_a_file_is_put_whole_read_listed_and_deleted(bucket: str) -> None:
    store = Store(f"s3://{bucket}/a root/with 100% ünïcode")
    path = "tables/x/ä b%20c+d=e.parquet"
    assert not store.exists(path)
    store.put(path, b"one")
    store.put(path, b"two")
    assert store.exists(path) and store.read(path) == b"two" and store.size(path) == 3
    with store.open(path) as file:
        file.seek(1)
        assert file.read() == b"wo"
    assert store.list("tables") == [path]
    store.delete([path, "not/there"])
    assert not store.exists(path)
    with pytest.raises(FileNotFoundError):
        store.read(path)


def test_answers_of_web_servers_are_put_down_and_found_in_a_store(bucket: str) -> None:
    store = Store(f"s3://{bucket}/root")
    put(
        store,
        spool_path("run", "b", 0),
        [(f"http://a/{n}", Fetched(bytes([n]) * 1000)) for n in range(100)],
    )
    found = look(store)
    got = SpoolServices(store, found.places).fetch(["http://a/99", "http://a/3"])
    assert [answer.data for answer in got] == [b"c" * 1000, b"\3" * 1000]


def test_a_file_is_created_once(bucket: str) -> None:
    store = Store(f"s3://{bucket}/root")
    assert store.put_new("lease", b"mine")
    assert not store.put_new("lease", b"yours")
    assert store.read("lease") == b"mine"


def test_a_file_is_created_once_where_the_store_does_not_say_why_it_refuses(
    server: S3Server, bucket: str, monkeypatch: Any
) -> None:
    """Other stores than S3 leave out which condition failed: a second writer would end with an
    error of the store's client.
    """
    monkeypatch.setattr(server, "names_condition", False)
    store = Store(f"s3://{bucket}/root")
    assert store.put_new("a", b"mine") and not store.put_new("a", b"yours")
    assert store.read("a") == b"mine"


def test_a_file_that_was_there_and_is_gone_was_somebody_elses(bucket: str) -> None:
    """Who comes second, while the first gives back what it had, would end with an error about a
    missing file.
    """

    class Gone(Store):
        def read(self, path: str) -> bytes:
            self.delete([path])
            return super().read(path)

    store = Gone(f"s3://{bucket}/root")
    assert store.put_new("a", b"mine") and not store.put_new("a", b"yours")


def test_an_empty_file_is_there(bucket: str) -> None:
    """S3 has no first byte of it to give, and says that the question is invalid."""
    store = Store(f"s3://{bucket}/root")
    store.put("empty", b"")
    assert store.exists("empty") and store.read("empty") == b"" == store.read_end("empty", 8)
    with store.open("empty") as file:
        assert file.read() == b""


def test_a_store_that_ignores_conditions_is_found_out(
    server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two writers the second would put its snapshot over that of the first, in silence."""
    store = Store(f"s3://{bucket}/root")
    with Lease(store, "while it is good"):
        pass
    monkeypatch.setattr(server, "conditional", False)
    for root in (store, Store(f"s3://{bucket}/fresh")):
        with (
            pytest.raises(StorageError, match=r"without conditional writes: .*If-None-Match"),
            Lease(root, "mine"),
        ):
            pytest.fail("without a lease that can be trusted")
        assert read_lease(root) is None


@pytest.fixture
def trickling(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever is read comes at ten bytes a second, and is not waited for as long as usual."""
    monkeypatch.setattr(storage, "ANSWER_SECONDS", 1.0)
    yield
    server.trickles = lambda path: False


@pytest.mark.slow
def test_a_read_that_trickles_ends(server: S3Server, bucket: str, trickling: None) -> None:
    """A run would hang for ever on a line that is neither dead nor alive."""
    store = Store(f"s3://{bucket}/root")
    data = bytes(range(256)) * 40
    store.put("a", data)
    server.trickles = lambda path: path.endswith("/a")
    with store.open("a") as file:
        store.patience = 0.0
        for look in (
            lambda: store.read("a"),
            lambda: store.read_part("a", 7, 5000),
            lambda: file.read(100),
        ):
            with pytest.raises(
                StorageError, match=rf"s3://{bucket}/root is overloaded or away \(FSTimeoutError\)"
            ):
                look()
        server.trickles = lambda path: False
        store.patience = PATIENCE  # a busy machine may take longer than a second
        assert file.read() == data == store.read("a"), "later it comes"


@pytest.mark.slow
def test_a_file_that_does_not_come_is_not_called_damaged(
    server: S3Server, bucket: str, trickling: None
) -> None:
    """A user would be told to delete a good file."""
    store = Store(f"s3://{bucket}/root")
    for schema in (TABLES["identities"], TABLES["images"]):
        made = seal_table(
            store, schema, "v", 0, 0, pa.Table.from_pylist([blank(schema)], schema=schema.arrow)
        )
        server.trickles = lambda path, file=made.path: path.endswith(file)  # type: ignore[misc]
        store.patience = 0.0
        with pytest.raises(StorageError, match="is overloaded or away"):
            read(store, schema, made.path)
        server.trickles = lambda path: False
        store.patience = PATIENCE  # a busy machine may take longer than a second
        assert read(store, schema, made.path).num_rows == 1


def blank(schema: TableSchema) -> dict[str, Any]:
    """A row with nothing in it but what may not be null."""
    zero = {"string": "x", "binary": b"", "fixed_size_binary[8]": bytes(8), "bool": False}
    return {
        c.name: None if c.nullable else "ok" if c.name == "status" else zero.get(str(c.type), 0)
        for c in schema.columns
    }


@pytest.mark.slow
def test_a_large_file_is_put_in_parts_or_not_at_all(
    server: S3Server, bucket: str, tmp_path: Path
) -> None:
    local = tmp_path / "large"
    content = os.urandom(1 << 20) * 120
    local.write_bytes(content)
    store = Store(f"s3://{bucket}/root")
    server.requests.clear()
    store.put_file("shards/large.tar", local)
    assert sum("partNumber" in request for request in server.requests) >= 2, "in parts"
    assert store.read("shards/large.tar") == content


@pytest.mark.slow
def test_an_overloaded_store_is_asked_again(server: S3Server, bucket: str) -> None:
    store = Store(f"s3://{bucket}/root", patience=30)
    server.refuse = 6
    store.put("a", b"1")
    assert server.refuse == 0
    server.refuse = 6
    assert store.read("a") == b"1"
    server.refuse = 6
    assert store.put_new("b", b"2")


@pytest.mark.slow
def test_every_try_of_a_deletion_is_asked_for_before(server: S3Server, bucket: str) -> None:
    """A writer that waits for the store would delete files of its successor once the store is
    back.
    """
    store = Store(f"s3://{bucket}/root", patience=30)
    store.put("a", b"1")
    asked: list[None] = []

    def before() -> None:
        asked.append(None)
        if len(asked) == 2:
            raise RunError("the lease was lost")

    server.refuse = 1000
    try:
        with pytest.raises(RunError, match="the lease was lost"):
            store.delete(["a"], before)
    finally:
        server.refuse = 0
    assert len(asked) == 2 and store.read("a") == b"1"


@pytest.mark.slow
def test_patience_has_an_end(server: S3Server, bucket: str) -> None:
    store = Store(f"s3://{bucket}/root", patience=0.0)
    server.refuse = 1000
    try:
        with pytest.raises(StorageError, match="cannot write"):
            store.put("a", b"1")
    finally:
        server.refuse = 0


def test_no_bucket_and_no_permission_are_told_at_once(server: S3Server) -> None:
    with pytest.raises(StorageError, match="no such bucket"):
        Store("s3://there-is-no-such-bucket/root").put("a", b"1")


@pytest.mark.slow
def test_a_run_in_a_store_shows_what_a_run_on_a_disk_shows(
    bucket: str, source: Path, tmp_path: Path, on_disk: dict[str, Any]
) -> None:
    root = f"s3://{bucket}/data sets/50% tëst"
    record = run_toy(tmp_path, source, root)
    assert record.status == "done"
    assert shown(root) == on_disk
    again = run_toy(tmp_path, source, root)
    assert computed(again) == {} and again.snapshot == record.snapshot
    other = run_toy(tmp_path, source, root, ("stages.caption.params.prompt=other",))
    assert set(computed(other)) == {"caption"}
    collect(Store(root), 1, "gc")
    connection = connect(root)
    assert connection.execute(
        "SELECT count(*) FROM captions WHERE prompt_id = 'other'"
    ).fetchone() == (21,)
    assert Store(root).list("parts") == []


@pytest.mark.slow
def test_a_run_outlasts_an_overloaded_store(
    server: S3Server, bucket: str, source: Path, tmp_path: Path, on_disk: dict[str, Any]
) -> None:
    root = f"s3://{bucket}/root"
    store = Store(root)
    store.put("dataset.json", b'{"format": 1, "name": "toy"}')
    server.refuse, server.refused = 5, 0

    def refuse_again() -> None:
        server.refuse = 5

    calls = iter(range(10**6))

    class Shaky(DyingStore):
        def _call(self, name: str, *arguments: Any, **named: Any) -> Any:
            if next(calls) % 30 == 29:
                refuse_again()
            return super()._call(name, *arguments, **named)

    record = run_toy(tmp_path, source, root, store=Shaky(root))
    server.refuse = 0
    assert record.status == "done"
    assert server.refused > 15
    assert shown(root) == on_disk


class Minutes:
    """Time that passes only while a store is waited for; from every n-th request on the server is
    away for a minute of it.

    It goes away again only when everybody who waited is through: who is slow to come on is not to
    meet three outages in a row.
    """

    def __init__(self, every: int, first: int) -> None:
        self.now = self.back = 0.0
        self.left, self.every, self.outages = first, every, 0
        self.waiting: set[int] = set()

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.waiting.add(threading.get_ident())
        until = self.now + seconds
        time.sleep(0.005)  # lets other threads sleep too: the same time passes for all
        self.now = max(self.now, until)

    def through(self) -> None:
        self.waiting.discard(threading.get_ident())

    def away(self) -> bool:
        if self.now >= self.back and not self.waiting:
            self.left -= 1
            if self.left < 0:
                self.left, self.back = self.every, self.now + 60.0
                self.outages += 1
        return self.now < self.back


@pytest.mark.parametrize(
    ("every", "first"),
    [(40, 5), *(pytest.param(12, first, marks=pytest.mark.slow) for first in (0, 4, 8))],
)
def test_a_store_that_refuses_for_a_minute_at_many_places_of_a_run_is_waited_for(
    server: S3Server,
    bucket: str,
    source: Path,
    tmp_path: Path,
    on_disk: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    every: int,
    first: int,
) -> None:
    """Hours of work of a whole cluster would end because the store has a minute of maintenance."""
    # Without botocore's own retry, which waits by the real clock, each refusal meets our patience
    # alone.
    monkeypatch.setitem(
        storage._OPTIONS,
        "s3",
        {"config_kwargs": {"retries": {"mode": "standard", "total_max_attempts": 1}}},
    )
    monkeypatch.setattr(
        "idcluster.catalogue.snapshot_files._SMALL_FILE", 1500
    )  # else no toy is read in stretches
    minutes = Minutes(every, first)
    monkeypatch.setattr(storage, "time", minutes)
    patiently = Store.patiently

    def through(store: Store, action: Callable[[], Any]) -> Any:
        try:
            return patiently(store, action)
        finally:
            minutes.through()

    monkeypatch.setattr(Store, "patiently", through)
    root = f"s3://{bucket}/root"
    server.refused, server.away = 0, minutes.away
    try:
        record = run_toy(tmp_path, source, root)
    finally:
        server.away = lambda: False
    assert record.status == "done"
    assert (
        minutes.outages > 5
        and minutes.now > 60 * minutes.outages
        and server.refused > 5 * minutes.outages
    )
    assert shown(root) == on_disk


@pytest.mark.slow
def test_death_at_some_calls_and_resume(
    bucket: str, source: Path, tmp_path: Path, on_disk: dict[str, Any]
) -> None:
    for at in range(8, 90, 20):
        root = f"s3://{bucket}/root-{at}"
        Store(root).put("dataset.json", b'{"format": 1, "name": "toy"}')
        with contextlib.suppress(Killed):
            run_toy(tmp_path, source, root, store=DyingStore(root, at))
        bury(root)
        run_toy(tmp_path, source, root)
        assert shown(root) == on_disk, at


@pytest.mark.slow
def test_new_pictures_in_a_store(bucket: str, source: Path, tmp_path: Path) -> None:
    import shutil

    mine = tmp_path / "people"
    shutil.copytree(source, mine)
    root = f"s3://{bucket}/root"
    run_toy(tmp_path, mine, root, selection=Selection())
    (mine / "person 01" / "new.png").write_bytes(picture(11, noise=77))
    done = computed(run_toy(tmp_path, mine, root))
    assert done == {"crawl": 1, "detect": 1, "embed": 1, "clean": 1, "people": 1, "caption": 1}


@pytest.mark.slow
def test_a_finished_bucket_in_a_store_has_one_file_a_table(
    bucket: str, source: Path, tmp_path: Path
) -> None:
    """Millions of small objects, each a request for every reader; or rows that the merged files
    have lost.
    """
    root, light = (
        f"s3://{bucket}/root",
        [name for name, schema in TABLES.items() if is_chunked(name) and not schema.blobs],
    )
    with small_buckets():
        for place in (root, tmp_path / "root"):
            run_toy(tmp_path, source, place)
        view = shown(root)
        assert view == shown(tmp_path / "root")
        store, first = Store(root), load(Store(root))
        finished = {name: [e for e in first.shown(name) if e.bucket == 0] for name in light}
        assert {e.bucket for e in first.shown("candidates")} == {0, 1}, (
            "one is finished, one still takes people"
        )
        some = {name: found for name, found in finished.items() if found}
        assert set(some) >= {"candidates", "faces", "embeddings", "clusters", "captions"}
        assert all(
            len(found) == 6 and len({e.file for e in found if e.file}) == 1
            for found in some.values()
        )
        assert len({e.file for e in first.shown("images") if e.bucket == 0}) == 6, (
            "files with images stay as they are"
        )
        assert len(first.shown("images_light")) == 1, (
            "what is no image in them lies in one file more"
        )
        again = run_toy(tmp_path, source, root)
        assert computed(again) == {} and again.snapshot == first.number

        named = {e.file for e in first.entries if e.file.startswith("tables/")}
        assert set(store.list("tables")) > named, "what was merged lies there still"
        collect(store, 1, "gc")
        assert set(store.list("tables")) == {
            e.file for e in load(store).entries if e.file.startswith("tables/")
        }
        assert shown(root) == view

        for place in (root, tmp_path / "root"):
            other = run_toy(tmp_path, source, place, ("stages.caption.params.prompt=other",))
            assert set(computed(other)) == {"caption"}
        assert shown(root) == shown(tmp_path / "root")
        collect(store, 1, "gc", current_only=True)
        captions = load(store).shown("captions")
        assert len({e.file for e in captions if e.bucket == 0 and e.file}) == 1
        assert set(store.list("tables/captions")) == {e.file for e in captions if e.file}
        assert shown(root) == shown(tmp_path / "root")


@pytest.mark.slow
def test_people_in_a_bucket_are_those_of_the_same_folder_on_a_disk(
    bucket: str, source: Path, tmp_path: Path, on_disk: dict[str, Any]
) -> None:
    """Whoever moves the folder into a bucket would get other ids, and compute everything anew."""
    store = Store(f"s3://{bucket}/some people")
    for file in source.glob("*/*"):
        store.put(f"{file.relative_to(source)}", file.read_bytes())
    store.put("beside.jpg", b"x")
    store.put("Ada/deeper/1.jpg", b"x")
    store.put("Ada/.hidden", b"x")
    run_toy(tmp_path, source, tmp_path / "root", [f"source.path=s3://{bucket}/some people"])
    found = shown(tmp_path / "root")
    same = ("identities", "faces", "embeddings", "clusters", "people", "shards")
    assert {name: found[name] for name in same} == {name: on_disk[name] for name in same}
    assert (
        computed(
            run_toy(tmp_path, source, tmp_path / "root", [f"source.path=s3://{bucket}/some people"])
        )
        == {}
    )


def test_pictures_that_are_gone_or_too_large_in_a_bucket_say_so(bucket: str) -> None:
    store = Store(f"s3://{bucket}/people")
    store.put("Ada/1.jpg", b"0123456789")
    source = BucketFolderSource(f"s3://{bucket}/people", max_bytes=9)
    found = source.fetch(
        ["local:Ada/1.jpg", "local:Ada/2.jpg", "local:../x/1.jpg", "other:Ada/1.jpg"]
    )
    assert [answer.reason for answer in found] == [
        "too_large",
        "not_found",
        "bad_address",
        "bad_address",
    ]
    [ada] = source.people()[0]
    store.put("Ada/1.jpg", b"9876543210")
    [changed] = source.people()[0]
    assert (
        ada.offers[0].address == changed.offers[0].address
        and ada.offers[0].fingerprint != changed.offers[0].fingerprint
    )


def test_a_bucket_that_is_not_there_or_holds_nobody_is_told_with_what_to_do(bucket: str) -> None:
    cases = {
        f"s3://{bucket}/empty": "holds no folders",
        "s3://not-there-at-all/x": "not-there-at-all",
        "gopher://x": "gopher",
    }
    for path, words in cases.items():
        with pytest.raises(SourceError, match=words):
            BucketFolderSource(path).check()


@pytest.mark.slow
def test_shards_are_read_where_they_lie(bucket: str, source: Path, tmp_path: Path) -> None:
    """A training job far from the disk would have to copy the set first."""
    run_toy(tmp_path, source, tmp_path / "root")
    run_toy(tmp_path, source, f"s3://{bucket}/root")
    here, there = open_shards(tmp_path / "root"), open_shards(f"s3://{bucket}/root", "faces")
    assert [one.members for one in there.samples()] == [one.members for one in here.samples()]
    who = here.rows(columns=["canonical_id"])["canonical_id"][0].as_py()
    assert [one.key for one in there.person(who)] == [one.key for one in here.person(who)] != []
    assert idcluster.open(f"s3://{bucket}/root").shards().splits == here.splits
