"""`idcluster shards export`: Parquet files with images, whole, resumable, brought up to date."""

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from idcluster.root.snapshot import load
from idcluster.root.storage import Store
from idcluster.shards import DamagedShard, Shard, open_shards
from pipeline.cli import app
from pipeline.shards.export import ExportError, export_parquet
from stages.shard.params import ShardParams
from tests.pipeline.shards.test_release import show
from tests.pipeline.small_root import SmallPerson, small_root

PEOPLE = [SmallPerson(f"Person {number}", 3 + number % 4) for number in range(8)]
PARAMS = ShardParams(target_mb=0.005, include=("mask", "arcface"), validation=0.4)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = Store(tmp_path_factory.mktemp("export") / "root")
    show(store, small_root(store, PEOPLE), PARAMS)
    return Path(store.root)


def parquets(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.parquet")}


@pytest.mark.slow
def test_every_sample_is_there_with_its_image(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = CliRunner().invoke(
        app, ["shards", "export", str(root), "--parquet", str(tmp_path / "out")]
    )
    assert result.exit_code == 0, result.output
    shards = open_shards(root)
    frame = pl.read_parquet(tmp_path / "out" / "*.parquet")
    rows = {row["key"]: row for row in frame.to_dicts()}
    ours = list(shards.samples())
    assert len(rows) == len(ours) == len(frame)
    for sample in ours:
        row = rows[sample.key]
        assert row["image"]["bytes"] == sample.image
        assert row["image"]["path"].endswith("." + sample.about["format"])
        assert (row["mask"] or {}).get("bytes") == sample.members.get("mask.png")
        assert row["arcface"] == sample.member("arcface").tolist()
        assert {name: row[name] for name in sample.about} == dict(sample.about)
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    found = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {split: len(mine) for split, mine in found.items()} == shards.splits
    first = next(shards.samples("train"))
    assert np.array_equal(np.asarray(found["train"][0]["image"].convert("RGB")), first.rgb())
    alone = datasets.load_dataset(
        "parquet",
        data_files=str(next((tmp_path / "out").glob("train-*.parquet"))),
        cache_dir=str(tmp_path / "cache2"),
        split="train",
    )
    assert alone.features["image"] == datasets.Image() == alone.features["mask"]


def test_interrupted_it_goes_on_and_is_no_export_until_then(root: Path, tmp_path: Path) -> None:
    shards, out = open_shards(root), tmp_path / "out"

    class Stop(Exception):
        pass

    seen: list[str] = []

    def stop(shard: Shard) -> None:
        seen.append(shard.url)
        if len(seen) == 3:
            raise Stop

    with pytest.raises(Stop):
        export_parquet(shards, out, stop)
    assert not parquets(out) and not (out / "README.md").exists(), "nothing that looks whole"
    made = export_parquet(shards, out)
    assert made.written == made.files - 3 and made.files == len(shards.shards)
    whole = export_parquet(shards, tmp_path / "other")
    assert whole.written == whole.files and parquets(out) == parquets(tmp_path / "other")
    assert not (out / ".partial").exists()
    assert sorted(os.listdir(out)) == sorted(os.listdir(tmp_path / "other"))


def test_a_changed_set_costs_its_changed_shards_and_leaves_no_old_ones(
    root: Path, tmp_path: Path
) -> None:
    shutil.copytree(root, tmp_path / "root")
    out, store = tmp_path / "out", Store(tmp_path / "root")
    export_parquet(open_shards(store.root), out)
    before = parquets(out)
    show(store, small_root(store, PEOPLE[:-1], load(store)), PARAMS)
    shards = open_shards(store.root)
    made = export_parquet(shards, out)
    assert made.deleted > 0 and made.written < made.files
    after = parquets(out)
    assert set(after) == {shard.url.replace(".tar", ".parquet") for shard in shards.shards}
    assert len(before.keys() & after.keys()) == made.files - made.written
    said = json.loads((out / "export.json").read_text())
    assert sorted(said["files"]) == sorted(after)


def test_where_it_may_not_be_written(root: Path, tmp_path: Path) -> None:
    shards = open_shards(root)
    with pytest.raises(ExportError, match="erasure would not find the images there"):
        export_parquet(shards, root / "shards" / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.parquet").write_text("precious")
    with pytest.raises(ExportError, match="is not empty and no export"):
        export_parquet(shards, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.parquet").read_text() == "precious"
    result = CliRunner().invoke(
        app, ["shards", "export", str(root), "--parquet", str(tmp_path / "mine")]
    )
    assert result.exit_code != 0


def test_a_list_of_files_deletes_nothing_elsewhere(root: Path, tmp_path: Path) -> None:
    """`export.json` comes with a folder, from whoever."""
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "thesis.parquet").write_text("precious")
    (out / "export.json").write_text(json.dumps({"files": ["../thesis.parquet", "README.md"]}))
    export_parquet(open_shards(root), out)
    assert (tmp_path / "thesis.parquet").read_text() == "precious"


def test_a_damaged_shard_stops_it(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "shards/faces", tmp_path / "copy")
    shards = open_shards(tmp_path / "copy")
    tar = Path(shards.paths()[-1])
    data = bytearray(tar.read_bytes())
    data[530] ^= 1
    tar.write_bytes(data)
    with pytest.raises(DamagedShard, match="is not what was written"):
        export_parquet(shards, tmp_path / "out")
    assert not parquets(tmp_path / "out")


def test_row_groups_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.shards.export._ROW_GROUP_BYTES", 500)
    store = Store(tmp_path / "root")
    show(store, small_root(store, PEOPLE), ShardParams())
    export_parquet(open_shards(store.root), tmp_path / "out")
    groups = [
        pq.read_metadata(path).num_row_groups for path in (tmp_path / "out").glob("*.parquet")
    ]
    assert max(groups) > 1


def test_a_full_disk_is_named_and_what_is_written_stays(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[pq.ParquetWriter] = []
    write = pq.ParquetWriter.write_table

    def full(self: pq.ParquetWriter, *arguments: Any) -> None:
        if len(written) == 2:
            # As pyarrow says it: without a file.
            raise OSError(errno.ENOSPC, "Error writing bytes to file")
        written.append(self)
        write(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(pq.ParquetWriter, "write_table", full)
        with pytest.raises(ExportError, match=r"cannot write .*\.parquet: No space left on device"):
            export_parquet(open_shards(root), tmp_path / "out")
    made = export_parquet(open_shards(root), tmp_path / "out")
    assert made.written == made.files - 2
