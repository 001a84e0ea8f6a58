"""Reading shards: every sample, its fields decoded, and people by the bytes that are theirs."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from PIL import Image

import idcluster
from idcluster.root.snapshot import Snapshot, publish
from idcluster.root.storage import Store
from idcluster.shards import DamagedShard, NoShards, Sample, ShardSet, open_shards
from pipeline.shards.writing import finish, plan_shards, write_shard
from schemas import identity_id
from schemas.samples import SPLITS
from stages.pictures import decode
from stages.shard.params import ShardParams
from stages.shard.webdataset import Sample as Written
from stages.shard.webdataset import write_tar
from tests.pipeline.small_root import SmallPerson, mask_png, picture, small_root

PEOPLE = [SmallPerson(f"Person {number}", 3 + number % 4) for number in range(14)]
PEOPLE += [
    SmallPerson("Ada Lovelace", 6, rejected=1, faceless=1),
    SmallPerson("Ada King", 2, same_as="Ada Lovelace"),
    SmallPerson("Large", 9, size=6_000),
]
PARAMS: dict[str, Any] = {
    "target_mb": 0.02,
    "include": ("mask",),
    "validation": 0.3,
    "benchmark_people": 1,
    "references": 1,
    "targets": 1,
}


def make(store: Store, snapshot: Snapshot | None = None, **changes: Any) -> Snapshot:
    """A root with a set of shards."""
    shown = snapshot or small_root(store, PEOPLE)
    plan = plan_shards(store, shown, ShardParams(**{**PARAMS, **changes}))
    results = [write_shard(store, job) for job in plan.jobs]
    following = shown.with_entries(finish(store, shown, results, plan))
    return publish(store, following.with_notes(**{f"index/{plan.params.profile}": plan.note()}))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards") / "root"
    make(Store(folder))
    (folder / "dataset.json").write_text('{"format": 1, "name": "small"}')
    return folder


@pytest.fixture(scope="module")
def shards(root: Path) -> ShardSet:
    return open_shards(root)


def keys(samples: Any) -> list[str]:
    return [sample.key for sample in samples]


def test_every_sample_is_what_plain_webdataset_reads(root: Path, shards: ShardSet) -> None:
    index = json.loads((root / "shards/faces/index.json").read_text())
    urls = [str(root / "shards/faces" / one["url"]) for one in index["shardlist"]]
    plain = list(webdataset.WebDataset(urls, shardshuffle=False))
    ours = list(shards.samples())
    assert len(urls) > 5 and len(ours) == index["samples"]
    assert keys(ours) == [one["__key__"] for one in plain]
    for sample, other in zip(ours, plain, strict=True):
        assert sample.members == {
            name: data for name, data in other.items() if not name.startswith("__")
        }
        said = json.loads(other["json"])
        assert {name: value or None for name, value in said.items()} == {
            name: value or None for name, value in sample.about.items()
        }, "and what is absent is an empty text or list there"
        assert said["page"] == "" and said["points"] == [] and said["role_number"] in (0, 1)


def test_splits_make_up_the_whole_and_share_nobody(shards: ShardSet) -> None:
    by_split = {split: list(shards.samples(split)) for split in SPLITS}
    assert {split: len(found) for split, found in by_split.items()} == shards.splits
    assert sum(map(len, by_split.values())) == len(list(shards.samples()))
    people = [{one.about["canonical_id"] for one in found} for found in by_split.values()]
    assert all(people) and not set.intersection(*people)
    assert all(one.about["split"] == split for split, mine in by_split.items() for one in mine)


def test_a_sample_is_decoded_with_its_fields(shards: ShardSet) -> None:
    sample = next(one for one in shards.samples() if "mask.png" in one.members)
    number = int(sample.about["address"].removesuffix(".jpg").rsplit("/", 1)[1])
    assert sample.image == picture(f"{sample.about['name']} {number}", sample.about["format"])
    assert sample.rgb().shape == (24, 32, 3) and sample.rgb().dtype == np.uint8
    assert sample.member("mask").tolist() == sample.member("mask.png").tolist()
    expected = np.asarray(Image.open(io.BytesIO(mask_png(number % 8))))
    assert np.array_equal(sample.member("mask"), expected)
    fields = sample.decoded()
    assert fields["name"] == sample.about["name"] and fields["image"].shape == (24, 32, 3)
    assert np.array_equal(fields["mask"], expected)
    with pytest.raises(NoShards, match=r"has no member 'arcface'; it has .*mask\.png"):
        sample.member("arcface")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_upright_as_boxes_mean_them(orientation: int) -> None:
    """Boxes would lie beside the faces of every photograph that a phone took upright."""
    upright = np.arange(5 * 3 * 3, dtype=np.uint8).reshape(5, 3, 3) * 5
    lying = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    stored = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(lying)).save(stored, "PNG")
    about = {"format": "png", "orientation": orientation}
    assert np.array_equal(Sample("k", about, {"png": stored.getvalue()}).rgb(), upright)


@pytest.mark.parametrize(
    ("mode", "format"),
    [
        ("RGBA", "PNG"),
        ("LA", "PNG"),
        ("P", "PNG"),
        ("I;16", "PNG"),
        ("L", "JPEG"),
        ("P", "GIF"),
        ("RGB", "JPEG"),
        ("RGB", "WEBP"),
        ("RGBA", "WEBP"),
    ],
)
def test_pixels_are_those_that_the_stages_saw(mode: str, format: str) -> None:
    """Boxes, masks and captions would be of another image than a training job looks at."""
    levels = np.linspace(0, 255, 24 * 16 * 4).reshape(24, 16, 4).astype(np.uint8)
    image = Image.fromarray(levels, "RGBA")
    if mode == "I;16":
        image = Image.fromarray((levels[:, :, 0].astype(np.uint16) << 8) + 7)
    elif mode != "RGBA":
        image = image.convert(mode)
    stored = io.BytesIO()
    image.save(stored, format, **({"transparency": 3} if mode == "P" else {}))
    data = stored.getvalue()
    sample = Sample("k", {"format": format.lower(), "orientation": 1}, {"jpg": data})
    assert np.abs(sample.rgb().astype(int) - decode(data).astype(int)).max() <= 2


def test_a_person_is_found_by_id_name_or_an_id_that_was_merged(shards: ShardSet) -> None:
    ada, king = identity_id("Ada Lovelace"), identity_id("Ada King")
    mine = [one.key for one in shards.samples() if one.about["canonical_id"] == ada]
    assert len(mine) == 8
    assert keys(shards.person(ada)) == mine
    assert len(shards.person("Ada Lovelace")) == 6, "a name is that of one identity"
    assert {one.about["identity_id"] for one in shards.person(king)} == {king}
    both = list(shards.samples(people=[king, identity_id("Person 3")]))
    assert {one.about["name"] for one in both} == {"Ada King", "Person 3"}
    for person in PEOPLE:
        assert shards.person(identity_id(person.name)), person.name
    with pytest.raises(NoShards, match="no samples of 'Ada Lovelance'; did you mean 'Ada Love"):
        shards.person("Ada Lovelance")


def test_of_a_person_nothing_else_is_read(root: Path) -> None:
    """Reading one person of a large set in an object store would fetch all of it."""
    fetched: list[tuple[str, int]] = []

    class Counting(Store):
        def read_part(self, path: str, start: int, length: int) -> bytes:
            fetched.append((path, length))
            return super().read_part(path, start, length)

    shards = open_shards(root)
    shards.store = Counting(root)
    found = shards.person(identity_id("Person 5"))
    assert len(fetched) == 1
    size = sum(len(data) for one in found for data in one.members.values())
    assert size < fetched[0][1] < size + 3_000 * len(found), "tar headers lie in between"


def test_a_person_in_numbered_parts_is_read_whole(tmp_path: Path) -> None:
    store = Store(tmp_path / "root")
    make(store, small_root(store, [SmallPerson("Large", 9, size=6_000), PEOPLE[0]]), target_mb=0.01)
    shards = open_shards(tmp_path / "root")
    assert sum(one.url.split("-")[1] == identity_id("Large") for one in shards.shards) > 2
    assert len(shards.person(identity_id("Large"))) == 9


def test_rows_and_paths_serve_duckdb_and_webdataset(shards: ShardSet) -> None:
    rows = shards.rows("train", ["name", "side"])
    assert rows.num_rows == shards.splits["train"] and rows.column_names == ["name", "side"]
    assert all(
        Path(path).is_file() for kind in ("tar", "parquet") for path in shards.paths(kind=kind)
    )
    with pytest.raises(NoShards, match="no column 'sid'; did you mean 'side'"):
        shards.rows(columns=["sid"])
    with pytest.raises(NoShards, match="no split 'test'; there are train, validation, benchmark"):
        shards.rows("test")


def test_a_copy_of_the_folder_is_a_set_by_itself(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "shards/faces", tmp_path / "copy")
    copy = open_shards(tmp_path / "copy")
    assert keys(copy.samples()) == keys(open_shards(root, "faces").samples())
    with pytest.raises(NoShards, match="is the set 'faces', not 'flashface'"):
        open_shards(tmp_path / "copy", "flashface")


@pytest.mark.slow
def test_what_is_not_there_is_said_with_what_is(root: Path, tmp_path: Path) -> None:
    with pytest.raises(NoShards, match="no set 'flashface'; there are faces"):
        open_shards(root, "flashface")
    with pytest.raises(NoShards, match="has no shards; a run with the stage shard makes them"):
        open_shards(tmp_path)
    store = Store(tmp_path / "two")
    make(store, make(store), profile="other")
    with pytest.raises(NoShards, match="name the set; there are faces, other"):
        open_shards(tmp_path / "two")
    (tmp_path / "index.json").write_text("[")
    with pytest.raises(NoShards, match=r"index\.json is no index of shards"):
        open_shards(tmp_path)


@pytest.mark.parametrize("url", ["../train.tar", "/etc/passwd", "a/b.tar", "s3://x/y.tar", 3])
def test_an_index_names_no_file_elsewhere(root: Path, tmp_path: Path, url: Any) -> None:
    """An index comes with a copy, from whoever."""
    index = json.loads((root / "shards/faces/index.json").read_text())
    index["shardlist"][0]["url"] = url
    (tmp_path / "index.json").write_text(json.dumps(index))
    with pytest.raises(NoShards, match="is no shard beside it"):
        open_shards(tmp_path)


def test_damage_is_told_and_not_given_out(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "shards/faces", tmp_path / "copy")
    shards = open_shards(tmp_path / "copy")
    tar = Path(shards.paths()[0])
    data = bytearray(tar.read_bytes())
    data[530] ^= 1  # in the first member
    tar.write_bytes(data)
    with pytest.raises(DamagedShard, match="is not what was written; `idcluster shards verify`"):
        list(shards.samples())
    assert len(list(open_shards(tmp_path / "copy", verify=False).samples())) == len(
        list(open_shards(root).samples())
    )
    tar.write_bytes(data[:1000])
    with pytest.raises(DamagedShard):
        list(open_shards(tmp_path / "copy", verify=False).samples())
    tar.unlink()
    with pytest.raises(DamagedShard, match="is not there"):
        list(shards.samples())


def test_an_older_snapshot_shows_its_own_shards(tmp_path: Path) -> None:
    store = Store(tmp_path / "root")
    first = make(store, small_root(store, PEOPLE[:4]))
    (tmp_path / "root/dataset.json").write_text('{"format": 1, "name": "small"}')
    second = make(store, small_root(store, PEOPLE[2:9], first))
    before = idcluster.open(tmp_path / "root", snapshot=first.number)
    after = idcluster.open(tmp_path / "root", snapshot=second.number)
    assert {one.about["name"] for one in before.samples()} == {one.name for one in PEOPLE[:4]}
    assert {one.about["name"] for one in after.samples("faces")} == {
        one.name for one in PEOPLE[2:9]
    }
    assert keys(after.samples()) == keys(open_shards(tmp_path / "root").samples())


def test_shards_without_the_programs_names_are_read(tmp_path: Path, shards: ShardSet) -> None:
    """Somebody renamed the tars: which person is in which file is then in the files alone."""
    sample = next(iter(shards.samples("train")))
    with (tmp_path / "mine.tar").open("wb+") as file:
        rows = write_tar([Written(sample.about, sample.image, {})], "mine.tar", file)
    from idcluster.root.parquet import encode
    from schemas.samples import SAMPLES

    (tmp_path / "mine.parquet").write_bytes(encode(SAMPLES, rows))
    listed = {"url": "mine.tar", "nsamples": 1, "filesize": 0, "split": "train", "digest": ""}
    (tmp_path / "index.json").write_text(json.dumps({"name": "x", "shardlist": [listed]}))
    assert keys(open_shards(tmp_path).person(sample.about["canonical_id"])) == [sample.key]
