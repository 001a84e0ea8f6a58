"""YuNet through OpenCV, with its real weights."""

import csv
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from schemas import TABLES
from stages.detect.scrfd import ScrfdDetect
from stages.detect.yunet import YunetDetect
from stages.pictures import decode
from stages.stage import NoDevice
from stages.weights import WeightFiles
from tests.stages.detect.running import run


@pytest.fixture(scope="module")
def stage(models_dir: Path) -> YunetDetect:
    made = YunetDetect()
    made.setup(WeightFiles(str(models_dir)))
    return made


def test_a_picture_has_the_same_rows_beside_others(
    stage: YunetDetect, astronaut: bytes, t1: Path
) -> None:
    """OpenCV's detector keeps the size of the last image: the next must not notice."""
    pictures = {
        "many": decode(t1.read_bytes()),
        "none": np.zeros((40, 60, 3), np.uint8),
        "one": decode(astronaut),
    }
    together = run(stage, pictures)
    assert together.equals(
        pa.concat_tables(
            [run(stage, {name: rgb}) for name, rgb in reversed(pictures.items())][::-1]
        )
    )
    rows = together.to_pylist()
    assert [row["image_id"] for row in rows] == ["many"] * 6 + ["none", "one"]
    assert rows[6]["reason"] == "no_face"
    assert rows[7]["landmark_scheme"] == "arcface5"
    assert np.abs(np.array(rows[7]["box"]) - (175, 76, 265, 166)).max() < 30


def test_a_face_that_fills_the_picture_and_a_small_one_are_both_found(
    stage: YunetDetect, models_dir: Path, photos: Path
) -> None:
    close = decode((photos / "london_010" / "001.jpg").read_bytes())[400:900, 450:850]
    small = np.zeros((1200, 1200, 3), np.uint8)
    small[900:1000, 900:1000] = cv2.resize(
        decode((photos / "ariel_sharon" / "001.jpg").read_bytes()), (100, 100)
    )
    for rgb, side in ((close, 400), (small, 45)):
        boxes = stage.detect(rgb)[0]
        assert len(boxes) == 1
        assert 0.7 * side < np.ptp(boxes.reshape(2, 2), axis=0).prod() ** 0.5 < 1.3 * side
    coarse = YunetDetect({"scales": [160]})
    coarse.setup(WeightFiles(str(models_dir)))
    assert len(coarse.detect(close)[0]) == 1
    assert len(coarse.detect(small)[0]) == 0


def test_boxes_are_in_pixels_of_the_picture(stage: YunetDetect, astronaut: bytes) -> None:
    rgb = decode(astronaut)
    box, points, _ = stage.detect(rgb)
    wide = np.zeros((1024, 2048, 3), np.uint8)
    wide[:, 1024:] = cv2.resize(rgb, (1024, 1024), interpolation=cv2.INTER_CUBIC)
    moved_box, moved_points, _ = stage.detect(wide)
    assert np.abs(moved_box - (box * 2 + [1024, 0] * 2)).max() < 20  # of 200
    assert np.abs(moved_points - (points * 2 + [1024, 0])).max() < 20


def test_unusual_pictures_have_a_row(stage: YunetDetect, photos: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (50, 20_000, 3), dtype=np.uint8)
    face = decode((photos / "ariel_sharon" / "001.jpg").read_bytes())
    pictures = {
        "dot": noise[:1, :1],
        "wide": noise,
        "tall": noise.transpose(1, 0, 2),
        "line": noise[:1],
        "black": np.zeros((3000, 4000, 3), np.uint8),
        "grey": np.repeat(face.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2),
        "fifty": np.tile(face, (5, 10, 1)),
    }
    for rgb in pictures.values():
        rgb.setflags(write=False)
    table = run(stage, pictures)
    TABLES["faces"].check(
        table.append_column("inputs", pa.array([b"8 bytes."] * len(table), pa.binary(8))), "test"
    )
    names = table["image_id"].to_pylist()
    assert names[:6] == list(pictures)[:6]
    assert table["status"].to_pylist()[:6] == ["filtered"] * 5 + ["ok"]
    wallpaper = np.array(table["box"].to_pylist()[6:])
    tiles = {tuple(at) for at in ((wallpaper[:, :2] + wallpaper[:, 2:]) // 500).tolist()}
    assert (
        len(tiles) == 50 and len(wallpaper) <= 52
    )  # one is cut by the edge, and found again in part


def test_a_gpu_is_refused_with_what_to_set(models_dir: Path) -> None:
    made = YunetDetect()
    made.device = "cuda"
    with pytest.raises(NoDevice, match="set gpus: 0"):
        made.setup(WeightFiles(str(models_dir)))


@pytest.mark.parametrize("scales", [[], [0], [640, 100_000]])
def test_scales_that_no_machine_can_search_are_refused(scales: list[int]) -> None:
    with pytest.raises(ValidationError, match="scales"):
        YunetDetect({"scales": scales})


@pytest.mark.slow
def test_photographs_of_people_have_faces_whose_points_are_those_of_scrfd(
    stage: YunetDetect, photos: Path, models_dir: Path
) -> None:
    """Were the points in another order than arcface5, crops would be mirrored or nonsense, and
    vectors with them.
    """
    other = ScrfdDetect()
    other.setup(WeightFiles(str(models_dir)))
    with (photos / "LABELS.csv").open(newline="", encoding="utf-8") as file:
        names = [row["file"] for row in csv.DictReader(file)][::7]
    assert len(names) > 130
    found, away = 0, []
    for name in names:
        rgb = decode((photos / name).read_bytes())
        boxes, points, _ = stage.detect(rgb)
        if not len(boxes):
            continue
        found += 1
        side = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) ** 0.5
        largest = int(np.argmax(side))
        near = other.detect(rgb)[1] - points[largest]
        away.append(np.linalg.norm(near, axis=2).mean(axis=1).min() / side[largest])
        left_eye, right_eye, _, left_mouth, right_mouth = points[largest]
        assert (left_eye + right_eye)[1] < (left_mouth + right_mouth)[1]
    assert found >= 0.99 * len(names)
    assert np.median(away) < 0.05
    assert np.mean(np.array(away) < 0.15) > 0.97
