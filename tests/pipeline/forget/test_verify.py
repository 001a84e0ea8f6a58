"""Looking through a root after a removal: whatever is left is found, wherever it is, and nothing
else is.
"""

import io
import json
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from idcluster.catalogue.connection import connect
from idcluster.root import spool
from idcluster.root.dataset_root import RunError
from idcluster.root.parquet import part_path
from idcluster.root.storage import Store
from pipeline.forget.verify import Leftover, verify
from schemas import identity_id, image_id
from schemas.fetched import Fetched
from tests.pipeline.forgotten import WHO, gallery, remove
from tests.pipeline.rooms import run_toy

PERSON = identity_id(WHO)
ADDRESS = f"local:{WHO}/00.png"
IMAGE = image_id(PERSON, ADDRESS)


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("before")
    run_toy(folder, gallery(folder / "people", count=4, pictures=3), folder / "root")
    return folder / "root"


@pytest.fixture(scope="module")
def after(before: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = Path(shutil.copytree(before, tmp_path_factory.mktemp("after") / "root"))
    remove(Store(root), WHO)
    return root


def parquet(**columns: object) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def tar(name: str, data: bytes) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as file:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        file.addfile(member, io.BytesIO(data))
    return sink.getvalue()


def spooled(address: str, data: bytes) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        spool.put(
            store, "it", [("https://other.org", Fetched(None, "failed")), (address, Fetched(data))]
        )
        return store.read("it")


def npy(vector: np.ndarray) -> bytes:
    sink = io.BytesIO()
    np.save(sink, vector)
    return sink.getvalue()


Values = dict[str, object]
PLACES: dict[str, tuple[str, Callable[[Values], bytes]]] = {
    "an id in a table": ("tables/x.parquet", lambda v: parquet(identity_id=[PERSON])),
    "an image's id in a table": ("tables/x.parquet", lambda v: parquet(image_id=["0" * 24, IMAGE])),
    "a name in a table": ("tables/x.parquet", lambda v: parquet(name=["somebody", "PERSON  01"])),
    "an alias in a list": ("tables/x.parquet", lambda v: parquet(aliases=[["a", WHO]])),
    "an address": ("tables/x.parquet", lambda v: parquet(address=[ADDRESS])),
    "a hash": ("tables/x.parquet", lambda v: parquet(sha256=[v["sha256"]])),
    "an image": ("tables/x.parquet", lambda v: parquet(bytes=[v["bytes"]])),
    "a vector": (
        "tables/x.parquet",
        lambda v: parquet(vector=pa.array([v["vector"]], pa.list_(pa.float32()))),
    ),
    "a caption": ("tables/x.parquet", lambda v: parquet(caption=[f"an image of {WHO}, smiling"])),
    "metadata of a table": (
        "snapshots/000099.parquet",
        lambda v: _with_notes({"selection": f"name = '{WHO}'"}),
    ),
    "a part": (part_path("faces", "v", 0, "t", "d"), lambda v: parquet(image_id=[IMAGE])),
    "an address in the spool": ("parts/spool/r/a/0000.spool", lambda v: spooled(ADDRESS, b"x")),
    "an image in the spool": (
        "parts/spool/r/b/0000.spool",
        lambda v: spooled("https://x.org", v["bytes"]),  # type: ignore[arg-type]
    ),
    "what a service listed": (
        "parts/listing/s/1.parquet",
        lambda v: parquet(key=["k"], text=[json.dumps({"who": WHO})]),
    ),
    "a mark of an attempt": (
        "parts/attempts/r/t.json",
        lambda v: json.dumps({"deaths": {f"detect {IMAGE}": 1}}).encode(),
    ),
    "a key in a tar": ("shards/p/x.tar", lambda v: tar(f"{PERSON}_{IMAGE}.txt", b"")),
    "metadata in a tar": (
        "shards/p/x.tar",
        lambda v: tar("a.json", json.dumps({"name": WHO}).encode()),
    ),
    "an image in a tar": ("shards/p/x.tar", lambda v: tar("a.png", v["bytes"])),  # type: ignore[arg-type]
    "a vector in a tar": (
        "shards/p/x.tar",
        lambda v: tar("a.arcface.npy", npy(np.array(v["vector"], np.float32))),
    ),
    "the name of a shard": (
        f"shards/p/train-{PERSON}-000-00000000.tar",
        lambda v: tar("a.txt", b""),
    ),
    "an index": (
        "shards/p/index.json",
        lambda v: json.dumps({"shardlist": [{"url": f"train-{PERSON}-000-0.tar"}]}).encode(),
    ),
    "a record": (
        "runs/r.json",
        lambda v: json.dumps({"selection": {"where": f"name = '{WHO}'"}}).encode(),
    ),
    "an address in a record": (
        "runs/r.json",
        lambda v: json.dumps({"error": f"DamagedFile: {ADDRESS} is"}).encode(),
    ),
    "a report": ("report.html", lambda v: f"<html><p>{WHO}</p></html>".encode()),
    "a page": (f"pages/{PERSON}.html", lambda v: b"<html></html>"),
    "a list": ("lists/0.json", lambda v: json.dumps({"people": {PERSON: "train"}}).encode()),
    "a file that was never finished": ("tables/faces/.0123.tmp", lambda v: b"anything"),
    "a file that cannot be read": ("tables/x.parquet", lambda v: b"PAR1 and no more"),
}


def _with_notes(notes: object) -> bytes:
    sink = io.BytesIO()
    pq.write_table(
        pa.table({"a": [1]}).replace_schema_metadata({"idcluster": json.dumps(notes)}), sink
    )
    return sink.getvalue()


@pytest.fixture(scope="module")
def values(before: Path) -> Values:
    connection = connect(str(before))
    sql = (
        "SELECT i.sha256, i.bytes, e.vector FROM images i JOIN embeddings e USING (image_id) "
        "WHERE i.image_id = ?"
    )
    [found] = connection.execute(sql, [IMAGE]).fetchall()
    connection.close()
    return dict(zip(("sha256", "bytes", "vector"), found, strict=True))


def test_after_a_removal_nothing_is_found(before: Path, after: Path) -> None:
    """A command that always finds something, or never, shows nothing."""
    found = verify(Store(after))
    assert found.leftovers == [] and found.files > 20 and found.values > 1000
    assert verify(Store(after), [WHO], [ADDRESS], ["0" * 64]).leftovers == []
    assert len(verify(Store(before), [WHO]).leftovers) > 20


@pytest.fixture(scope="module")
def planted(
    after: Path, values: Values, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, str], list[Leftover]]:
    """Where something was left in each kind of place, and what is found."""
    store = Store(shutil.copytree(after, tmp_path_factory.mktemp("planted") / "root"))
    paths = {}
    for number, (place, (path, made)) in enumerate(PLACES.items()):
        folder, _, name = path.rpartition("/")
        paths[place] = path if not folder or "snapshots" in folder else f"{folder}/{number}/{name}"
        store.put(paths[place], made(values))
    return paths, verify(store).leftovers


@pytest.mark.parametrize("place", PLACES)
def test_what_is_left_is_found_by_the_receipts_alone(
    planted: tuple[dict[str, str], list[Leftover]], place: str
) -> None:
    """A single leftover, in whatever kind of file, would be called clean."""
    paths, found = planted
    mine = [leftover for leftover in found if leftover.path == paths[place]]
    assert mine and all(WHO not in f"{leftover.where} {leftover.what}" for leftover in mine)


def test_nothing_else_is_found(planted: tuple[dict[str, str], list[Leftover]]) -> None:
    """Files of people who stay would be taken for leftovers, and deleted."""
    paths, found = planted
    assert {leftover.path for leftover in found} == set(paths.values())


def test_a_root_without_removals_is_searched_for_a_name_only(before: Path) -> None:
    """Whoever verifies the wrong root would be told that all is well."""
    with pytest.raises(RunError, match="nothing was ever removed from"):
        verify(Store(before))
    assert verify(Store(before), ["somebody else"]).leftovers == []


def test_pictures_that_nobody_can_read_names_off_are_listed(after: Path) -> None:
    """A contact sheet beside the data would be passed over in silence."""
    store = Store(after)
    store.put("pages/sheet.png", b"not even a picture")
    try:
        assert verify(store).unread == ["pages/sheet.png"]
    finally:
        store.delete(["pages/sheet.png"])


def test_lists_in_lists_and_maps_are_looked_into(after: Path) -> None:
    """A column of another kind would never be searched."""
    store = Store(after)
    nested = pa.array(
        [[{"name": WHO, "offset": 1}]],
        pa.list_(pa.struct([("name", pa.string()), ("offset", pa.int64())])),
    )
    mapped = pa.array([[("wikidata", WHO)]], pa.map_(pa.string(), pa.string()))
    store.put("tables/nested.parquet", parquet(members=nested))
    store.put("tables/mapped.parquet", parquet(external_ids=mapped))
    try:
        assert {leftover.path for leftover in verify(store).leftovers} == {
            "tables/nested.parquet",
            "tables/mapped.parquet",
        }
    finally:
        store.delete(["tables/nested.parquet", "tables/mapped.parquet"])
