"""`idcluster shards verify` finds what is wrong with a set, wherever it lies, and nothing where
nothing is.
"""

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from idcluster.root.dataset_root import make_root
from idcluster.root.snapshot import Snapshot, load, publish
from idcluster.root.storage import Store
from pipeline.cli import app
from pipeline.shards.check import CheckError, check_against_tables, check_set, told
from pipeline.shards.writing import finish, plan_shards, write_shard
from schemas import identity_id
from stages.shard.params import ShardParams
from tests.pipeline.damaged import flipped_bytes
from tests.pipeline.small_root import SmallPerson, small_root

PARAMS = ShardParams(target_mb=0.02, include=("mask",), validation=0.4)
PEOPLE = [SmallPerson(f"Person {n}", 2 + n % 4, rejected=n % 2) for n in range(12)]


def made(folder: Path, params: ShardParams = PARAMS, people: list[SmallPerson] = PEOPLE) -> Store:
    store = make_root(str(folder), "test")
    snapshot = small_root(store, people)
    show(store, snapshot, params)
    return store


def show(store: Store, snapshot: Snapshot, params: ShardParams) -> Snapshot:
    plan = plan_shards(store, snapshot, params)
    entries = finish(store, snapshot, [write_shard(store, job) for job in plan.jobs], plan)
    return publish(
        store, snapshot.with_entries(entries).with_notes(**{f"index/{params.profile}": plan.note()})
    )


def faults(store: Store, tables: bool = True) -> list[str]:
    checked = check_set(store, "shards/faces")
    found = list(checked.faults)
    if tables:
        found += check_against_tables(store, load(store), "faces", checked)
    return told(found)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("whole") / "root"
    made(root)
    return root


@pytest.fixture
def root(whole: Path, tmp_path: Path) -> Store:
    shutil.copytree(whole, tmp_path / "root")
    return Store(tmp_path / "root")


def first(store: Store, ending: str = ".tar") -> str:
    return next(
        path for path in store.list("shards") if path.endswith(ending) and "/train-" in path
    )


@pytest.mark.slow
def test_a_whole_set_has_nothing_wrong_in_its_dataset_and_as_a_copy(
    root: Store, tmp_path: Path
) -> None:
    assert faults(root) == []
    checked = check_set(root, "shards/faces")
    assert (checked.samples, checked.people) == (
        sum(p.pictures for p in PEOPLE),
        12,
    ) and checked.shards > 4
    shutil.copytree(Path(root.root) / "shards" / "faces", tmp_path / "copy")
    alone = check_set(Store(tmp_path / "copy"), "")
    assert alone.faults == [] and alone.samples == checked.samples
    result = CliRunner().invoke(app, ["shards", "verify", str(root.root)])
    assert result.exit_code == 0 and "nothing wrong" in result.output
    assert CliRunner().invoke(app, ["shards", "verify", str(tmp_path / "copy")]).exit_code == 0


def damaged_tar(store: Store) -> None:
    path = first(store)
    data = store.read(path)
    store.put(path, flipped_bytes(data, data.index(b"\xff\xd8\xff") + 300))


def short_tar(store: Store) -> None:
    store.put(first(store), store.read(first(store))[:2000])


def no_tar(store: Store) -> None:
    store.delete([first(store)])


def no_sidecar(store: Store) -> None:
    store.delete([first(store, ".parquet")])


def another_order(store: Store) -> None:
    rewrite(store, lambda rows: rows.take(list(range(rows.num_rows))[::-1]))


def lost_row(store: Store) -> None:
    rewrite(store, lambda rows: rows.slice(1))


def moved_row(store: Store) -> None:
    def move(rows: pa.Table) -> pa.Table:
        place = rows.schema.get_field_index("image_offset")
        return rows.set_column(
            place,
            rows.schema.field(place),
            pa.array([value + 512 for value in rows["image_offset"].to_pylist()]),
        )

    rewrite(store, move)


def another_name(store: Store) -> None:
    def rename(rows: pa.Table) -> pa.Table:
        place = rows.schema.get_field_index("name")
        return rows.set_column(
            place, rows.schema.field(place), pa.array(["Somebody else"] * rows.num_rows)
        )

    rewrite(store, rename)


def rewrite(store: Store, change: Callable[[pa.Table], pa.Table]) -> None:
    path = first(store, ".parquet")
    out = io.BytesIO()
    pq.write_table(change(pq.read_table(io.BytesIO(store.read(path)))), out)
    store.put(path, out.getvalue())


def foreign_member(store: Store) -> None:
    path = first(store)
    out = io.BytesIO(store.read(path))
    with tarfile.open(fileobj=out, mode="a:") as tar:
        info = tarfile.TarInfo("../../etc/passwd")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
    store.put(path, out.getvalue())


def lost_from_the_index(store: Store) -> None:
    index = json.loads(store.read("shards/faces/index.json"))
    index["shardlist"] = index["shardlist"][1:]
    store.put("shards/faces/index.json", json.dumps(index).encode())


def wrong_count(store: Store) -> None:
    index = json.loads(store.read("shards/faces/index.json"))
    store.put("shards/faces/index.json", json.dumps({**index, "samples": 1}).encode())


def no_split_index(store: Store) -> None:
    store.delete(["shards/faces/validation.json"])


def in_two_splits(store: Store) -> None:
    index = json.loads(store.read("shards/faces/index.json"))
    train = next(item for item in index["shardlist"] if item["split"] == "train")
    name = train["url"].replace("train-", "validation-")
    for ending in (".tar", ".parquet"):
        source = f"shards/faces/{train['url'].removesuffix('.tar')}{ending}"
        store.put(f"shards/faces/{name.removesuffix('.tar')}{ending}", store.read(source))
    index["shardlist"].append({**train, "url": name, "split": "validation"})
    store.put("shards/faces/index.json", json.dumps(index).encode())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (damaged_tar, "is not what the Parquet file says: other bytes"),
        (damaged_tar, "its sha256 is not that of the index"),
        (short_tar, "bytes, the index says"),
        (no_tar, "is not there"),
        (no_sidecar, "the Parquet file beside it cannot be read"),
        (another_order, "not in the order of person and image"),
        (lost_row, "is in no row of the Parquet file"),
        (moved_row, "has its image at another place"),
        (another_name, "do not say the same"),
        (foreign_member, "holds '../../etc/passwd', which is no member of a sample"),
        (lost_from_the_index, "is not in the index"),
        (wrong_count, "says 1 samples; the shards have 42"),
        (no_split_index, "validation.json: is not there"),
        (in_two_splits, "in two splits"),
        (in_two_splits, "images are in train and in validation"),
    ],
)
def test_what_is_wrong_is_found_and_named(
    root: Store, spoil: Callable[[Store], None], said: str
) -> None:
    spoil(root)
    found = faults(root)
    assert any(said in line for line in found), found
    result = CliRunner().invoke(app, ["shards", "verify", str(root.root)])
    assert result.exit_code == 1 and said in result.output


def test_tables_that_changed_since_are_told(root: Store) -> None:
    small_root(root, [*PEOPLE[:-1], SmallPerson("A newcomer", 3)], load(root))
    found = faults(root)
    assert any("they changed since" in line for line in found)
    assert check_set(root, "shards/faces").faults == []


def test_near_people_and_pictures_in_two_splits_are_told(tmp_path: Path) -> None:
    """Made with a list before anybody had looked who is near whom."""
    lists = tmp_path / "splits.csv"
    lists.write_text("identity,split\nPerson 0,train\nPerson 1,validation\n")
    store = made(tmp_path / "root", ShardParams(split_list=str(lists)), PEOPLE[:2])
    versions = {
        f"matches/{entry.version}": {"params": {"near_cosine": 0.9}}
        for entry in load(store).shown("matches")
    }
    snapshot = publish(store, load(store).with_notes(versions=versions))
    checked = check_set(store, "shards/faces")
    near = list(check_against_tables(store, snapshot, "faces", checked))
    assert [what for _, what in near if "near one another" in what], near
    who = {identity_id("Person 0"), identity_id("Person 1")}
    assert all(person in near[0][1] for person in who)


def test_without_an_index_there_is_nothing_to_check(tmp_path: Path) -> None:
    with pytest.raises(CheckError, match="name a dataset or a folder of shards"):
        check_set(Store(tmp_path), "")
    assert CliRunner().invoke(app, ["shards", "verify", str(tmp_path)]).exit_code == 2


@pytest.mark.slow
def test_a_draw_written_down_is_the_draw_of_the_next_set(tmp_path: Path) -> None:
    people = [SmallPerson(f"Person {n}", 6) for n in range(40)]
    params = ShardParams(target_mb=0.05, validation=0.3, benchmark_people=5)
    store = made(tmp_path / "root", params, people)
    written = tmp_path / "splits.csv"
    result = CliRunner().invoke(
        app, ["shards", "splits", str(store.root), "--output", str(written)]
    )
    assert result.exit_code == 0 and "40 people" in result.output
    before = check_set(store, "shards/faces").splits
    assert list(before.values()).count("benchmark") == 5
    snapshot = small_root(
        store, people + [SmallPerson(f"Newcomer {n}", 6) for n in range(40)], load(store)
    )
    show(store, snapshot, ShardParams(target_mb=0.05, validation=0.3, split_list=str(written)))
    after = check_set(store, "shards/faces")
    assert {person: after.splits[person] for person in before} == before and len(after.splits) == 80
    assert after.faults == []
    index = json.loads(store.read("shards/faces/index.json"))
    assert index["description"]["params"]["split_list"] is None, (
        "a path of this machine must not travel with the set"
    )
    written.unlink()
    params = ShardParams.model_validate(index["description"]["params"])
    assert plan_shards(store, load(store), params, write=False).jobs == ()
