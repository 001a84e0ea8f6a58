"""Shards as the loaders of others read them: Hugging Face's `datasets`, Croissant, torch's
DataLoader, DuckDB, pandas and polars.
"""

import io
import json
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pytest
import webdataset
import yaml
from PIL import Image

from idcluster.root.snapshot import load
from idcluster.root.storage import Store
from idcluster.shards import ShardSet, open_shards
from stages.shard.params import ShardParams
from stages.shard.webdataset import Sample as Written
from stages.shard.webdataset import tar_bytes
from tests.pipeline.shards.test_release import changed, show
from tests.pipeline.small_root import SmallPerson, small_root

os.environ["HF_DATASETS_OFFLINE"] = "1"
datasets = pytest.importorskip("datasets")
datasets.disable_progress_bars()

PEOPLE = [SmallPerson(f"Person {number}", 3 + number % 4) for number in range(10)]
PARAMS = ShardParams(target_mb=0.005, include=("mask",), benchmark_people=2, references=1)
LICENCES = [None, "CC BY-SA 4.0", "All rights reserved"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    """JPEG, PNG and WebP; of the first people nothing states a licence; nobody in validation."""
    store = Store(tmp_path_factory.mktemp("loaders") / "root")
    small_root(store, PEOPLE)
    changed(
        store,
        "candidates",
        {
            "licence": lambda row: LICENCES[int(row["identity_id"][0], 16) // 6],
            "author": lambda row: None,
        },
    )
    show(store, load(store), PARAMS)
    found = open_shards(store.root)
    assert set(found.splits) == {"train", "benchmark"} and len(found.shards) > 4
    return found


@pytest.fixture(scope="module")
def folder(shards: ShardSet) -> Path:
    return Path(shards.store.root) / shards.folder


def same(rows: Any, shards: ShardSet, split: str) -> None:
    """Every row is the sample that idcluster reads: image, mask and all that is known of it."""
    ours = list(shards.samples(split))
    assert len(rows) == len(ours) > 1
    for row, sample in zip(rows, ours, strict=True):
        assert row["__key__"] == sample.key
        assert np.array_equal(np.asarray(row["jpg"].convert("RGB")), sample.rgb())
        assert row["jpg"].format == sample.about["format"].upper()
        if "mask.png" in sample.members:
            assert np.array_equal(np.asarray(row["mask.png"]), sample.member("mask"))
        else:
            assert row["mask.png"] is None
        for name, value in sample.about.items():
            assert (row["json"][name] or None) == (value or None), name


def test_datasets_loads_the_folder(shards: ShardSet, folder: Path, tmp_path: Path) -> None:
    found = datasets.load_dataset(str(folder), cache_dir=str(tmp_path))
    assert list(found) == ["train", "benchmark"]
    formats = set()
    for split, rows in found.items():
        same(rows, shards, split)
        formats |= {row["json"]["format"] for row in rows}
        assert rows.features["jpg"] == datasets.Image() == rows.features["mask.png"]
    assert formats == {"jpeg", "png", "webp"}
    licences = {row["json"]["licence"] for row in found["train"]}
    assert licences == {"", *LICENCES[1:]}


def test_datasets_loads_the_tars_alone(shards: ShardSet, tmp_path: Path) -> None:
    """Types come from the first samples then, which have no licence, no author and no points."""
    files = {split: shards.paths(split) for split in shards.splits}
    found = datasets.load_dataset("webdataset", data_files=files, cache_dir=str(tmp_path))
    for split, rows in found.items():
        same(rows, shards, split)


def test_samples_of_which_some_lack_a_mask_are_loaded_with_the_types_of_the_card(
    tmp_path: Path,
) -> None:
    """`datasets` alone refuses tars whose first samples have other members than one another."""
    store = Store(tmp_path / "root")
    params = ShardParams(include=("mask",))
    show(store, small_root(store, [SmallPerson("Ada Lovelace", 10)]), params)
    shards = open_shards(store.root)
    first = [set(one.members) for one in islice(shards.samples("train"), 5)]
    assert {"json", "jpg"} in first and {"json", "jpg", "mask.png"} in first
    files = {"train": shards.paths("train")}
    with pytest.raises(ValueError, match="don't share the same prefix or the same types"):
        datasets.load_dataset("webdataset", data_files=files, cache_dir=str(tmp_path / "alone"))
    folder = Path(shards.store.root) / shards.folder
    found = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "folder"))
    same(found["train"], shards, "train")
    known = datasets.load_dataset_builder(str(folder), cache_dir=str(tmp_path / "folder"))
    named = datasets.load_dataset(
        "webdataset",
        data_files=files,
        features=known.info.features,
        cache_dir=str(tmp_path / "named"),
    )
    same(named["train"], shards, "train")


def test_datasets_streams(shards: ShardSet, folder: Path) -> None:
    found = datasets.load_dataset(str(folder), split="train", streaming=True)
    assert [row["__key__"] for row in found] == [one.key for one in shards.samples("train")]


def test_a_set_without_samples_has_a_card_all_the_same(tmp_path: Path) -> None:
    store = Store(tmp_path)
    show(store, small_root(store, PEOPLE[:2]), ShardParams(licences=("none such",)))
    head = yaml.safe_load(store.read("shards/faces/README.md").decode().split("---\n")[1])
    assert "configs" not in head and head["size_categories"] == ["n<1K"]
    assert json.loads(store.read("shards/faces/croissant.json"))["recordSet"] == []


@pytest.mark.parametrize(
    ("stated", "known"),
    [
        ("CC0", "cc0-1.0"),
        ("CC BY-SA 4.0", "cc-by-sa-4.0"),
        ("cc-by-2.0", "cc-by-2.0"),
        ("All rights reserved", "other"),
        (None, "other"),
    ],
)
def test_one_licence_of_all_images_is_named(tmp_path: Path, stated: str | None, known: str) -> None:
    store = Store(tmp_path)
    small_root(store, PEOPLE[:2])
    show(store, changed(store, "candidates", {"licence": lambda row: stated}), ShardParams())
    head = yaml.safe_load(store.read("shards/faces/README.md").decode().split("---\n")[1])
    assert head["license"] == known


@pytest.mark.slow
def test_croissant_is_valid_and_gives_records(shards: ShardSet, folder: Path) -> None:
    code = """
import itertools, json, sys
import mlcroissant
found = mlcroissant.Dataset(sys.argv[1])
assert not found.metadata.ctx.issues.errors, found.metadata.ctx.issues.report()
rows = list(itertools.islice(found.records("samples"), 10))
images = list(itertools.islice(found.records("images"), 10))
print(json.dumps([
    rows, [[one["images/key"], list(one["images/image"].size)] for one in images],
], default=bytes.decode))
"""
    # It unpacks tars into a folder of the user, and tells of its own through the root logger.
    home = {**os.environ, "HOME": str(folder.parent), "XDG_CACHE_HOME": str(folder.parent)}
    ran = subprocess.run(
        [sys.executable, "-c", code, str(folder / "croissant.json")],
        env=home,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    rows, images = json.loads(ran.stdout.splitlines()[-1])
    ours = {sample.key: sample for sample in shards.samples()}
    assert len(rows) == len(images) == 10
    for row in rows:
        about = ours[row["samples/key"]].about
        for name in ("split", "licence", "format", "width", "box", "caption", "role_number"):
            assert row[f"samples/{name}"] == about[name], name
    assert all(key in ours and size == [32, 24] for key, size in images)


def test_croissant_tells_the_tars_by_their_hash(shards: ShardSet, folder: Path) -> None:
    said = json.loads((folder / "croissant.json").read_text())
    told = {
        one["contentUrl"]: one["sha256"]
        for one in said["distribution"]
        if one["@type"] == "cr:FileObject"
    }
    index = json.loads((folder / "index.json").read_text())
    assert told == {one["url"]: one["sha256"] for one in index["shardlist"]}


def test_torch_loads_with_several_workers(shards: ShardSet) -> None:
    torch = pytest.importorskip("torch")
    urls = shards.paths("train")
    plain = webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8").to_tuple("jpg", "json")
    loader = torch.utils.data.DataLoader(plain, batch_size=None, num_workers=2)
    seen = {about["key"]: tuple(image.shape) for image, about in loader}
    assert seen == {sample.key: sample.rgb().shape for sample in shards.samples("train")}


def test_duckdb_pandas_and_polars_read_the_files_beside(shards: ShardSet, folder: Path) -> None:
    names = [str(path) for path in sorted(folder.glob("train-*.parquet"))]
    assert names == sorted(shards.paths("train", "parquet"))
    count = sum(1 for _ in shards.samples("train"))
    relation = duckdb.connect().read_parquet(names).aggregate("count(*), sum(side)")
    (by_duckdb,) = relation.fetchall()
    by_polars = pl.read_parquet(names)
    by_pandas = pd.concat([pd.read_parquet(name) for name in names])
    assert by_duckdb[0] == len(by_polars) == len(by_pandas) == count
    assert by_polars["side"].sum() == pytest.approx(by_duckdb[1])
    assert set(by_pandas["licence"].dropna()) == set(LICENCES[1:])


@pytest.mark.parametrize("format", ["png", "webp", "gif", "jpeg"])
def test_an_image_of_any_format_is_decoded_from_its_jpg(tmp_path: Path, format: str) -> None:
    pixels = np.arange(24 * 32 * 3, dtype=np.uint8).reshape(24, 32, 3)
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, format, **({"lossless": True} if format == "webp" else {}))
    metadata = {
        "key": f"{'a' * 16}_{'b' * 24}",
        "canonical_id": "a" * 16,
        "identity_id": "a" * 16,
        "image_id": "b" * 24,
        "face_id": "c" * 24,
        "split": "train",
        "sha256": "0" * 64,
        "format": format,
    }
    data, _ = tar_bytes([Written(metadata, sink.getvalue(), {})], "train-0.tar")
    (tmp_path / "train-0.tar").write_bytes(data)
    (plain,) = webdataset.WebDataset(str(tmp_path / "train-0.tar"), shardshuffle=False).decode(
        "rgb8"
    )
    by_datasets = datasets.load_dataset(
        "webdataset",
        data_files=str(tmp_path / "train-0.tar"),
        split="train",
        cache_dir=str(tmp_path / "cache"),
    )[0]["jpg"]
    expected = np.asarray(Image.open(io.BytesIO(sink.getvalue())).convert("RGB"))
    assert np.array_equal(plain["jpg"], expected)
    assert np.array_equal(np.asarray(by_datasets.convert("RGB")), expected)
    assert plain["json"]["format"] == format


def test_what_all_first_samples_lack_has_its_type_all_the_same(tmp_path: Path) -> None:
    """`datasets` takes the types of fields from the first five samples of a tar."""

    def written(number: int) -> Written:
        late = number > 5
        metadata = {
            "key": f"{'a' * 16}_{number:024x}",
            "canonical_id": "a" * 16,
            "identity_id": "a" * 16,
            "image_id": f"{number:024x}",
            "face_id": f"{number:024x}",
            "split": "train",
            "sha256": "0" * 64,
            "format": "png",
            "licence": "CC0" if late else None,
            "caption": "a face" if late else None,
            "role_number": 2 if late else None,
            "mask_coverage": 0.5 if late else None,
        }
        sink = io.BytesIO()
        Image.new("RGB", (4, 4)).save(sink, "png")
        return Written(metadata, sink.getvalue(), {})

    data, _ = tar_bytes(map(written, range(8)), "train-0.tar")
    (tmp_path / "train-0.tar").write_bytes(data)
    rows = datasets.load_dataset(
        "webdataset",
        data_files=str(tmp_path / "train-0.tar"),
        split="train",
        cache_dir=str(tmp_path / "cache"),
    )
    said = [row["json"] for row in islice(rows, 8)]
    assert [one["licence"] for one in said] == [""] * 6 + ["CC0"] * 2
    assert [one["role_number"] for one in said] == [0] * 6 + [2] * 2
    assert [one["mask_coverage"] for one in said] == [0.0] * 6 + [0.5] * 2
