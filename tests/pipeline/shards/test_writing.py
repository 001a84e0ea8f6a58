"""Shards of a root: what a training job reads, and what a change of the dataset costs."""

import errno
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
import webdataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from idcluster.catalogue.connection import query
from idcluster.root.snapshot import Snapshot, publish
from idcluster.root.storage import Store
from pipeline.shards.scratch import ShardError
from pipeline.shards.writing import ShardPlan, finish, plan_shards, shard_version, write_shard
from schemas import identity_id
from stages.shard.params import ShardParams
from stages.shard.splits import SPLITS
from tests.pipeline.small_root import VERSIONS, SmallPerson, mask_png, picture, small_root

PEOPLE = [
    SmallPerson("Ada Lovelace", 6, rejected=1, faceless=1),
    SmallPerson("Jr. O'Brien, a.b.c", 3),
    SmallPerson("Zoë Łuczak 图片", 4),
    SmallPerson("Nobody Kept", 0, rejected=2),
    SmallPerson("Grace Hopper", 5),
]
PARAMS = ShardParams(target_mb=0.02, include=("mask",))


def run(
    store: Store, snapshot: Snapshot, params: ShardParams = PARAMS
) -> tuple[Snapshot, ShardPlan]:
    plan = plan_shards(store, snapshot, params)
    jobs = json.loads(json.dumps(plan.jobs))
    results = [json.loads(json.dumps(write_shard(store, job))) for job in jobs]
    return publish(store, snapshot.with_entries(finish(store, snapshot, results, plan))), plan


def shard_files(store: Store) -> dict[str, bytes]:
    return {path: store.read(path) for path in store.list("shards")}


def stream(store: Store, profile: str = "faces", split: str = "train") -> list[dict[str, Any]]:
    names = sorted(
        path
        for path in store.list(f"shards/{profile}")
        if path.endswith(".tar") and f"/{split}-" in path
    )
    return (
        list(webdataset.WebDataset([store.uri(name) for name in names], shardshuffle=False))
        if names
        else []
    )


def test_a_plain_webdataset_reader_gets_everything(tmp_path: Path) -> None:
    store = Store(tmp_path)
    run(store, small_root(store, PEOPLE))
    samples = stream(store)
    metadata = [json.loads(sample["json"]) for sample in samples]
    assert len(samples) == 18
    assert [m["key"] for m in metadata] == [sample["__key__"] for sample in samples]
    assert [(m["canonical_id"], m["image_id"]) for m in metadata] == sorted(
        (m["canonical_id"], m["image_id"]) for m in metadata
    )
    assert {m["name"] for m in metadata} == {p.name for p in PEOPLE if p.pictures}
    for sample, row in zip(samples, metadata, strict=True):
        number = int(row["address"].removesuffix(".jpg").rsplit("/", 1)[1])
        original = picture(f"{row['name']} {number}", row["format"])
        assert sample["jpg"] == original
        assert row["caption"] == ("" if number % 4 == 3 else f"a photo of a person, {number}")
        assert sample.get("mask.png") == (None if number % 5 == 4 else mask_png(number % 8))
        assert (row["mask_window"] == []) == (number % 5 == 4)
        assert row["head_pose"] == [1.0, 2.0, 3.0] and row["points"] == []
        assert row["similarity"] == 0.75 and row["licence"] == "CC0" and row["split"] == "train"


def test_without_conditions_there_are_no_masks(tmp_path: Path) -> None:
    store = Store(tmp_path)
    run(store, small_root(store, PEOPLE), ShardParams())
    assert all("mask.png" not in sample for sample in stream(store))


def test_the_sidecar_alone_finds_every_byte(tmp_path: Path) -> None:
    store = Store(tmp_path)
    snapshot, plan = run(store, small_root(store, PEOPLE))
    for shard in plan.shards:
        tar = store.read(f"{shard.name}.tar")
        relation = duckdb.connect().read_parquet(store.uri(f"{shard.name}.parquet"))
        columns = (
            "key",
            "shard",
            "image_offset",
            "image_length",
            "sha256",
            "mask_offset",
            "mask_length",
        )
        for key, name, offset, length, sha256, mask_offset, mask_length in relation.select(
            *(f'"{c}"' for c in columns)
        ).fetchall():
            assert name == shard.name.rsplit("/", 1)[1] + ".tar"
            assert hashlib.sha256(tar[offset : offset + length]).hexdigest() == sha256
            with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
                there = f"{key}.mask.png" in archive.getnames()
            assert there == (mask_offset is not None)
            assert mask_offset is None or tar[mask_offset : mask_offset + mask_length].startswith(
                b"\x89PNG"
            )
    assert (
        query(store, "SELECT count(*) AS n, count(DISTINCT shard) AS s FROM samples", "csv")
        == f"n,s\n18,{len(plan.shards)}\n"
    )
    assert (
        query(store, "SELECT count(*) AS n FROM samples", "csv", snapshot=snapshot.number - 1)
        == "n\n0\n"
    )


def test_two_roots_give_the_same_bytes(tmp_path: Path) -> None:
    one, other = Store(tmp_path / "one"), Store(tmp_path / "other")
    run(one, small_root(one, PEOPLE, people_per_chunk=2))
    run(other, small_root(other, PEOPLE[::-1], people_per_chunk=4))
    assert shard_files(one) == shard_files(other)


def test_nothing_changed_costs_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    snapshot, plan = run(store, small_root(store, PEOPLE))
    times = {
        path: os.stat(store.uri(path)).st_mtime_ns
        for path in store.list("shards")
        if path.endswith((".tar", ".parquet"))
    }
    again, second = run(store, small_root(store, PEOPLE, snapshot))
    assert second.jobs == () and second.shards == plan.shards
    assert {path: os.stat(store.uri(path)).st_mtime_ns for path in times} == times
    assert again.shown("shards") == snapshot.shown("shards") and again.shown(
        "samples"
    ) == snapshot.shown("samples")


def test_a_shown_plan_writes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    snapshot = small_root(store, PEOPLE)
    before = store.list("")
    assert plan_shards(store, snapshot, PARAMS, write=False).jobs
    assert store.list("") == before


@pytest.mark.slow
def test_what_goes_out_stops_being_shown_and_comes_back_for_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first, plan = run(store, small_root(store, PEOPLE))
    without, _ = run(store, small_root(store, PEOPLE[1:], first))
    assert identity_id("Ada Lovelace") not in (
        query(store, "SELECT DISTINCT canonical_id FROM samples", "csv") or ""
    )
    assert {e.file for e in first.shown("shards")} - {e.file for e in without.shown("shards")}
    back, third = run(store, small_root(store, PEOPLE, without))
    assert third.jobs == ()
    assert [e.file for e in back.shown("shards")] and sorted(
        e.file for e in back.shown("shards")
    ) == sorted(f"{shard.name}.tar" for shard in plan.shards)


@pytest.mark.slow
def test_a_changed_caption_rewrites_the_shard_of_its_person(tmp_path: Path) -> None:
    store = Store(tmp_path)
    snapshot, plan = run(
        store, small_root(store, [SmallPerson(f"Person {n}", 3, size=4000) for n in range(40)])
    )
    changed = [
        SmallPerson(
            f"Person {n}", 3, size=4000, caption="new" if n == 17 else "a photo of a person"
        )
        for n in range(40)
    ]
    after, second = run(store, small_root(store, changed, snapshot))
    assert len(plan.shards) > 5 and len(second.jobs) == 1
    assert len(after.shown("shards")) == len(plan.shards)


def test_another_mask_rewrites_though_the_metadata_is_the_same(tmp_path: Path) -> None:
    store = Store(tmp_path)
    snapshot, plan = run(store, small_root(store, PEOPLE))
    moved = small_root(store, PEOPLE, snapshot, versions={**VERSIONS, "masks": "0badcafe"})
    assert len(plan_shards(store, moved, PARAMS).jobs) == len(plan.shards)


@pytest.mark.slow
def test_a_person_larger_than_a_shard_has_numbered_parts(tmp_path: Path) -> None:
    store = Store(tmp_path)
    people = [*PEOPLE, SmallPerson("Much Photographed", 60, size=3000)]
    snapshot, plan = run(store, small_root(store, people))
    big = identity_id("Much Photographed")
    mine = [shard for shard in plan.shards if f"-{big}-" in shard.name]
    assert [shard.name.split("-")[-2] for shard in mine] == [
        f"{n:03d}" for n in range(len(mine))
    ] and len(mine) > 5
    assert sorted(shard.name for shard in plan.shards) == [shard.name for shard in plan.shards]
    owners = [json.loads(sample["json"])["canonical_id"] for sample in stream(store)]
    assert owners == sorted(owners) and owners.count(big) == 60
    index = json.loads(store.read("shards/faces/index.json"))
    assert index["identities"] == 5 and index["samples"] == 78
    assert snapshot.number == 2


def test_merged_people_are_together_and_listed_pictures_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    people = [*PEOPLE, SmallPerson("Ada King", 2, same_as="Ada Lovelace")]
    run(store, small_root(store, people), ShardParams(target_mb=0.02, validation=0.5))
    rows = [json.loads(sample["json"]) for split in SPLITS for sample in stream(store, split=split)]
    merged = [row for row in rows if row["canonical_id"] == identity_id("Ada Lovelace")]
    assert {row["name"] for row in merged} == {"Ada Lovelace", "Ada King"} and len(merged) == 8
    assert len({row["split"] for row in merged}) == 1


def test_train_and_validation_share_nobody(tmp_path: Path) -> None:
    store = Store(tmp_path)
    people = [SmallPerson(f"Person {n}", 1) for n in range(40)]
    run(
        store,
        small_root(store, people, people_per_chunk=40),
        ShardParams(target_mb=0.02, validation=0.3),
    )
    train, validation = (
        {json.loads(s["json"])["canonical_id"] for s in stream(store, split=split)}
        for split in SPLITS[:2]
    )
    assert train and validation and not train & validation and len(train | validation) == 40
    index = json.loads(store.read("shards/faces/index.json"))
    assert [item["split"] for item in index["shardlist"]] == sorted(
        item["split"] for item in index["shardlist"]
    )
    assert json.loads(store.read("shards/faces/validation.json"))["identities"] == len(validation)


def test_profiles_live_side_by_side(tmp_path: Path) -> None:
    store = Store(tmp_path)
    snapshot, _ = run(store, small_root(store, PEOPLE))
    both, _ = run(store, snapshot, ShardParams(profile="plain"))
    assert {e.file.split("/")[1] for e in both.shown("shards")} == {"faces", "plain"}
    assert len(stream(store, "plain")) == len(stream(store, "faces")) == 18


@pytest.mark.parametrize("people", [[], [SmallPerson("Nobody Kept", 0, rejected=2)]])
def test_an_empty_dataset_is_an_empty_set(tmp_path: Path, people: Sequence[SmallPerson]) -> None:
    store = Store(tmp_path)
    _, plan = run(store, small_root(store, people))
    assert plan.shards == () and stream(store) == []
    assert json.loads(store.read("shards/faces/index.json"))["shardlist"] == []


def test_an_awkward_root(tmp_path: Path) -> None:
    store = Store(tmp_path / "it's [a-b]* 100%41 图片")
    run(store, small_root(store, PEOPLE))
    assert query(store, "SELECT count(*) AS n FROM samples", "csv") == "n\n18\n"


def test_a_root_in_an_object_store(tmp_path: Path) -> None:
    store, local = Store(f"memory://bucket/{tmp_path.name} 1%41"), Store(tmp_path)
    run(store, small_root(store, PEOPLE))
    run(local, small_root(local, PEOPLE))
    assert query(store, "SELECT count(*) AS n FROM samples", "csv") == "n\n18\n"
    assert shard_files(store) == shard_files(local)


def test_the_index_tells_every_tar(tmp_path: Path) -> None:
    store = Store(tmp_path)
    run(store, small_root(store, PEOPLE))
    index = json.loads(store.read("shards/faces/index.json"))
    assert index["wids_version"] == 1 and index["name"] == "faces" and index["samples"] == 18
    for item in index["shardlist"]:
        data = store.read(f"shards/faces/{item['url']}")
        assert len(data) == item["filesize"]
        assert hashlib.sha256(data).hexdigest() == item["sha256"]
        assert item["sha256"].startswith(item["digest"])
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            assert sum(name.endswith(".json") for name in tar.getnames()) == item["nsamples"]


def test_a_picture_that_changed_under_its_row_is_not_shipped(tmp_path: Path) -> None:
    store = Store(tmp_path)
    snapshot = small_root(store, PEOPLE)
    plan = plan_shards(store, snapshot, PARAMS)
    work = pq.read_table(io.BytesIO(store.read(plan.jobs[0]["work"])))
    column = work.schema.get_field_index("sha256")
    changed = work.set_column(column, work.schema.field(column), [["0" * 64] * work.num_rows])
    sink = io.BytesIO()
    pq.write_table(changed, sink)
    store.put(plan.jobs[0]["work"], sink.getvalue())
    with pytest.raises(ShardError, match="do not have the SHA-256 0000"):
        write_shard(store, plan.jobs[0])
    assert not [path for path in store.list("shards") if path.endswith(".tar")]


def test_a_shard_that_a_killed_run_had_put_is_taken_as_it_is(tmp_path: Path) -> None:
    store = Store(tmp_path)
    plan = plan_shards(store, small_root(store, PEOPLE), PARAMS)
    job = plan.jobs[0]
    first = write_shard(store, job)
    times = {path: os.stat(store.uri(path)).st_mtime_ns for path in store.list("shards")}
    store.delete([job["work"]])
    assert write_shard(store, job) == first
    assert {path: os.stat(store.uri(path)).st_mtime_ns for path in store.list("shards")} == times


@pytest.mark.parametrize("lost", [".tar", ".parquet"])
def test_half_a_shard_is_written_again(tmp_path: Path, lost: str) -> None:
    store = Store(tmp_path)
    plan = plan_shards(store, small_root(store, PEOPLE), PARAMS)
    first = write_shard(store, plan.jobs[0])
    before = shard_files(store)
    store.delete([plan.jobs[0]["name"] + lost])
    assert write_shard(store, plan.jobs[0]) == first and shard_files(store) == before
    store.put(plan.jobs[0]["name"] + lost, b"")
    assert write_shard(store, plan.jobs[0]) == first and shard_files(store) == before


_FULL = """
import json, sys
from pipeline.shards.scratch import ShardError
from pipeline.shards.writing import write_shard
from idcluster.root.storage import Store, StorageError
try:
    write_shard(Store(sys.argv[1]), json.loads(sys.argv[2]))
except (ShardError, StorageError) as error:
    print(type(error).__name__, error)
"""


@pytest.mark.slow
@pytest.mark.parametrize("full", ["temporary", "root"])
def test_a_disk_that_is_full_in_the_middle_of_a_tar_leaves_nothing_behind(
    tmp_path: Path, full: str
) -> None:
    """On a real disk of 64 kB, mounted in a namespace of its own."""
    if (
        shutil.which("unshare") is None
        or subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode
    ):
        pytest.skip("mounting is not allowed here")
    store = Store(tmp_path / "root")
    plan = plan_shards(
        store, small_root(store, [SmallPerson("Ada Lovelace", 40, size=5000)]), ShardParams()
    )
    place = tmp_path / "small" if full == "temporary" else tmp_path / "root" / "shards"
    place.mkdir()
    mount = f"mount -t tmpfs -o size=64k none '{place}' && \"$@\" && find '{place}' -type f | wc -l"
    command = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        mount,
        "sh",
        sys.executable,
        "-c",
        _FULL,
        str(store.root),
        json.dumps(plan.jobs[0]),
    ]
    settings = {**os.environ, **({"TMPDIR": str(place)} if full == "temporary" else {})}
    done = subprocess.run(
        command, cwd=Path(__file__).parents[3], env=settings, capture_output=True, text=True
    )
    said = {
        "temporary": "ShardError cannot write a shard of about 1 MB in ",
        "root": "StorageError [Errno 28] cannot write ",
    }
    lines = done.stdout.splitlines()
    assert lines[0].startswith(said[full]) and ("TMPDIR" in lines[0]) == (full == "temporary"), (
        done.stdout + done.stderr
    )
    assert lines[1] == "0", "something is left"
    write_shard(store, plan.jobs[0])
    assert len(shard_files(store)) == 2


def test_a_set_is_not_made_known_while_a_shard_is_missing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    snapshot = small_root(store, PEOPLE)
    plan = plan_shards(store, snapshot, PARAMS)
    results = [write_shard(store, job) for job in plan.jobs[1:]]
    with pytest.raises(ShardError, match=r"1 of \d+ shards were not written, shards/faces/train-"):
        finish(store, snapshot, results, plan)
    assert not store.exists("shards/faces/index.json")


@pytest.mark.slow
def test_stretches_and_windows_that_bound_the_memory_change_no_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = [*PEOPLE, SmallPerson("Ada King", 3, same_as="Ada Lovelace"), SmallPerson("Last", 2)]
    params = ShardParams(target_mb=0.02, validation=0.5, include=("mask", "arcface"))
    one, other, third = (Store(tmp_path / name) for name in ("one", "other", "third"))
    run(one, small_root(one, people, people_per_chunk=1, chunks_per_bucket=2), params)
    monkeypatch.setattr("pipeline.shards.sample_rows._SAMPLES_AT_ONCE", 1)
    monkeypatch.setattr("pipeline.shards.writing._WINDOW_BYTES", 1)
    run(other, small_root(other, people, people_per_chunk=1, chunks_per_bucket=2), params)
    assert shard_files(one) == shard_files(other)
    monkeypatch.setattr("pipeline.shards.sample_rows._SAMPLES_AT_ONCE", 10)
    run(third, small_root(third, people, people_per_chunk=1, chunks_per_bucket=2), params)
    assert shard_files(one) == shard_files(third)


def test_samples_whose_rows_lie_elsewhere_than_their_person_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    snapshot = small_root(store, PEOPLE, people_per_chunk=2, chunks_per_bucket=1)
    moved = [
        replace(e, bucket=7) if (e.table, e.bucket) == ("faces", 1) else e for e in snapshot.entries
    ]
    monkeypatch.setattr("pipeline.shards.sample_rows._SAMPLES_AT_ONCE", 1)
    with pytest.raises(ShardError, match="4 samples are not in the bucket"):
        plan_shards(store, Snapshot(snapshot.number, tuple(moved)), PARAMS)


def test_a_disk_without_room_for_the_plan_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    snapshot = small_root(store, PEOPLE, people_per_chunk=2, chunks_per_bucket=1)
    monkeypatch.setattr("pipeline.shards.sample_rows._SAMPLES_AT_ONCE", 1)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pipeline.shards.spill.Spill.add", full)
    with pytest.raises(
        ShardError,
        match=r"cannot write what samples consist of in .*: No space .*; make room there or let "
        r"TMPDIR",
    ):
        plan_shards(store, snapshot, PARAMS)


def test_the_version_follows_the_parameters() -> None:
    version, description = shard_version(PARAMS)
    assert len(version) == 8 and description["params"]["include"] == ["mask"]
    assert shard_version(ShardParams())[0] != version
    late = shard_version(PARAMS.model_copy(update={"withhold_flags": ("second_cluster",)}))
    assert "withhold_flags" not in description["params"] and late[0] != version, (
        "a new rule that is not used makes no new version"
    )


@pytest.mark.slow
@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(0, 9000)), min_size=2, max_size=25), st.data()
)
def test_removing_a_person_keeps_everything_else(
    tmp_path: Path, shape: list[tuple[int, int]], data: st.DataObject
) -> None:
    """After any removal the shards are those of a fresh run without the person, and the shards in
    common are not rewritten.
    """
    people = [
        SmallPerson(f"Person {n}", pictures, size) for n, (pictures, size) in enumerate(shape)
    ]
    gone = data.draw(st.integers(0, len(people) - 1))
    rest = people[:gone] + people[gone + 1 :]
    store, fresh = Store(tmp_path / "store"), Store(tmp_path / "fresh")
    for each in (store, fresh):
        shutil.rmtree(each.root, ignore_errors=True)
    before, _ = run(store, small_root(store, people, people_per_chunk=10))
    after, second = run(store, small_root(store, rest, before, people_per_chunk=10))
    expected, _ = run(fresh, small_root(fresh, rest, people_per_chunk=10))
    assert [e.file for e in after.shown("shards")] == [e.file for e in expected.shown("shards")]
    shown = {e.file for e in after.shown("shards")}
    assert {e.file: store.read(e.file) for e in after.shown("shards")} == {
        e.file: fresh.read(e.file) for e in expected.shown("shards")
    }
    assert len(second.jobs) == len(shown - {e.file for e in before.shown("shards")})
