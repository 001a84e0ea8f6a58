"""The real DAG on real photographs with real weights: what is kept, and that the bytes do not
depend on how it was run.
"""

import csv
import shutil
from pathlib import Path

import pytest

from idcluster.catalogue.connection import connect
from pipeline.record import Record
from pipeline.start import start
from tests.pipeline.rooms import shown

pytestmark = [pytest.mark.ray, pytest.mark.slow]

DAG = Path(__file__).parents[2] / "dags" / "photos_scrfd_edgeface.yaml"
WRONG = {"michael_schumacher/008.jpg", "virat_kohli/018.jpg"}
"""Photographs of somebody else, by the labels."""


def run(source: Path, root: Path, models: Path, workers: int, only: tuple[str, ...] = ()) -> Record:
    sets = [f"source.path={source}", f"root={root}", f"resources.workers={workers}"]
    made = start(DAG, sets=sets, only=only, models=str(models), accept_licence="once")
    return made.execute()


def test_who_is_kept(photos: Path, models_dir: Path, tmp_path: Path) -> None:
    """Every photograph is accounted for, the known wrong people are rejected, and those that are
    right are kept.
    """
    root = tmp_path / "root"
    run(photos, root, models_dir, 2, ("crawl", "detect", "embed", "clean"))
    connection = connect(str(root))
    kept = dict(
        connection.execute(
            "SELECT split_part(c.address, ':', 2), bool_or(k.keep) FROM candidates c LEFT JOIN "
            "clusters k USING (image_id) GROUP BY ALL"
        ).fetchall()
    )
    assert connection.execute("SELECT count(DISTINCT image_id) FROM faces").fetchone() == (
        len(kept),
    )
    connection.close()
    with (photos / "LABELS.csv").open(newline="") as file:
        labels = list(csv.DictReader(file))
    assert {row["file"] for row in labels} == set(kept)
    right = [bool(kept[row["file"]]) for row in labels if row["label_check"] == "ok"]
    assert sum(right) / len(right) >= 0.99
    assert not any(kept[file] for file in WRONG)


def test_the_same_bytes_from_one_worker_and_from_two(
    photos: Path, models_dir: Path, tmp_path: Path
) -> None:
    """Last bits of networks depend on batches; views and shards must not, whoever works on what."""
    people = tmp_path / "people"
    for person in ("serena_williams", "bbt_amy", "london_010", "virat_kohli"):
        (people / person).mkdir(parents=True)
        for file in sorted((photos / person).iterdir())[:8]:
            shutil.copyfile(file, people / person / file.name)
    run(people, tmp_path / "one", models_dir, 1)
    run(people, tmp_path / "two", models_dir, 2, ("crawl",))
    run(people, tmp_path / "two", models_dir, 2)
    one, two = shown(tmp_path / "one"), shown(tmp_path / "two")
    assert one["masks"] and one["captions"] and one["heads"]
    assert any(name.endswith(".tar") for name in one["shards"])
    for table in one:
        assert one[table] == two[table], table
