"""SCRFD: the decoding of its outputs, with real weights where they are and with tiny ones everywhere."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest

from stages.detect.scrfd import ScrfdDetect, decode_outputs
from stages.pictures import decode
from stages.stage import Picture
from stages.weights import WeightFiles

NO_SERVICES: Any = None  # this stage asks nothing of the outside


def outputs(shape: tuple[int, int], batch: bool) -> list[np.ndarray]:
    """Nine outputs that see one face at stride 16, row 1, column 2 of a canvas."""
    made = []
    for width in (1, 4, 10):
        for stride in (8, 16, 32):
            places = (shape[0] // stride) * (shape[1] // stride) * 2
            made.append(np.zeros((1, places, width) if batch else (places, width), np.float32))
    at = (1 * (shape[1] // 16) + 2) * 2 + 1  # the second anchor
    view = [out.reshape(-1, out.shape[-1]) for out in made]
    view[1][at] = 0.8
    view[4][at] = (1, 0.5, 2, 3)
    view[7][at] = np.arange(10) / 10
    return made


@pytest.mark.parametrize("batch", [False, True])
def test_outputs_become_boxes_and_points(batch: bool) -> None:
    boxes, points, scores = decode_outputs(outputs((64, 96), batch), (64, 96), 0.5)
    assert boxes.tolist() == [[32 - 16, 16 - 8, 32 + 32, 16 + 48]]
    assert points[0] == pytest.approx(np.array([32, 16]) + 16 * np.arange(10).reshape(5, 2) / 10)
    assert scores == pytest.approx([0.8])
    assert decode_outputs(outputs((64, 96), batch), (64, 96), 0.9)[0].shape == (0, 4)


@pytest.fixture(scope="module", params=["scrfd_2.5g_bnkps", "scrfd_500m_kps"])
def stage(request: pytest.FixtureRequest, models_dir: Path) -> ScrfdDetect:
    made = ScrfdDetect({"weights": request.param})
    made.setup(WeightFiles(str(models_dir)))
    return made


def run(stage: ScrfdDetect, pictures: dict[str, np.ndarray]) -> pa.Table:
    rows = pa.table({"identity_id": ["p"] * len(pictures), "image_id": list(pictures)})
    return stage.run(rows, {name: Picture(name, rgb) for name, rgb in pictures.items()}, NO_SERVICES)


def test_real_faces_with_points_in_arcface_order(stage: ScrfdDetect, astronaut: bytes, t1: Path) -> None:
    pictures = {"many": decode(t1.read_bytes()), "none": np.zeros((40, 60, 3), np.uint8), "one": decode(astronaut)}
    together = run(stage, pictures)
    assert together.equals(pa.concat_tables([run(stage, {name: rgb}) for name, rgb in pictures.items()]))
    rows = together.to_pylist()
    assert [row["image_id"] for row in rows] == ["many"] * 6 + ["none", "one"]
    assert rows[6]["reason"] == "no_face"
    left_eye, right_eye, nose, left_mouth, right_mouth = np.array(rows[7]["landmarks"]).reshape(5, 2)
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_mouth[0] < right_mouth[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])
    assert np.abs(np.array(rows[7]["box"]) - (175, 76, 265, 166)).max() < 30


def test_a_face_that_fills_the_picture_is_found_by_the_second_scale(models_dir: Path, photos: Path) -> None:
    rgb = decode((photos / "john_schneider" / "001.jpg").read_bytes())
    found = {}
    for scales in ((640,), (640, 320)):
        made = ScrfdDetect({"scales": scales})
        made.setup(WeightFiles(str(models_dir)))
        found[scales] = len(made.detect(rgb)[0])
    assert found == {(640,): 0, (640, 320): 1}


def test_boxes_are_in_pixels_of_the_picture(stage: ScrfdDetect, astronaut: bytes) -> None:
    rgb = decode(astronaut)
    box, points, _ = stage.detect(rgb)
    wide = np.zeros((1024, 2048, 3), np.uint8)
    wide[:, 1024:] = cv2.resize(rgb, (1024, 1024), interpolation=cv2.INTER_CUBIC)
    moved_box, moved_points, _ = stage.detect(wide)
    assert np.abs(moved_box - (box * 2 + [1024, 0] * 2)).max() < 20  # of 200
    assert np.abs(moved_points - (points * 2 + [1024, 0])).max() < 8
