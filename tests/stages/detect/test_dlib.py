"""dlib's detector on real photographs."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest

from schemas import TABLES
from stages.detect.dlib import DlibDetect, landmarks, rectangle
from stages.pictures import decode
from stages.stage import Picture
from stages.weights import WeightFiles

NO_SERVICES: Any = None  # this stage asks nothing of the outside


@pytest.fixture(scope="module")
def stage() -> DlibDetect:
    made = DlibDetect()
    made.setup(WeightFiles())
    return made


def head(astronaut: bytes) -> np.ndarray:
    """The upper part: dlib takes the mission patch below for a face, with a margin of 0.12."""
    return decode(astronaut)[:320].copy()


def run(stage: DlibDetect, pictures: dict[str, np.ndarray]) -> pa.Table:
    for rgb in pictures.values():
        rgb.flags.writeable = False  # as workers hand them out
    rows = pa.table({"identity_id": ["p"] * len(pictures), "image_id": list(pictures)})
    return stage.run(
        rows, {name: Picture(name, rgb) for name, rgb in pictures.items()}, NO_SERVICES
    )


def test_one_face_with_points_in_dlibs_order(stage: DlibDetect, astronaut: bytes) -> None:
    (row,) = run(stage, {"a": head(astronaut)}).to_pylist()
    assert np.abs(np.array(row["box"]) - (175, 76, 265, 166)).max() < 25
    right_outer, right_inner, left_outer, left_inner, nose = np.array(row["landmarks"]).reshape(
        5, 2
    )
    assert left_outer[0] < left_inner[0] < nose[0] < right_inner[0] < right_outer[0]
    assert nose[1] > max(left_outer[1], right_outer[1])
    assert row["landmark_scheme"] == stage.landmark_scheme == "dlib5"


def test_neighbours_change_nothing_and_faceless_pictures_have_a_row(
    stage: DlibDetect, astronaut: bytes, t1: Path
) -> None:
    one, many, none = head(astronaut), decode(t1.read_bytes()), np.full((80, 120, 3), 128, np.uint8)
    together = run(stage, {"many": many, "none": none, "one": one})
    alone = pa.concat_tables(
        [
            run(stage, {"many": many.copy()}),
            run(stage, {"none": none.copy()}),
            run(stage, {"one": one.copy()}),
        ]
    )
    assert together.equals(alone)
    by_image = {row["image_id"]: row for row in together.to_pylist()}
    assert (by_image["many"]["faces_in_image"], by_image["one"]["faces_in_image"]) == (6, 1)
    assert (by_image["none"]["status"], by_image["none"]["reason"]) == ("filtered", "no_face")
    TABLES["faces"].check(
        together.append_column("inputs", pa.array([b"8 bytes."] * len(together), pa.binary(8))),
        "test",
    )


def test_large_pictures_are_searched_small_and_answered_in_their_own_pixels(
    stage: DlibDetect, astronaut: bytes
) -> None:
    rgb = head(astronaut)
    large = cv2.resize(rgb, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    small_box, small_points, _ = stage.detect(rgb)
    box, points, _ = stage.detect(large)
    assert np.abs(box / 4 - small_box).max() < 12
    assert np.abs(points / 4 - small_points).max() < 4
    assert stage.detect(rgb[:, ::-1])[0].shape == (1, 4)


def test_a_stricter_threshold_leaves_out_the_doubtful(t1: Path) -> None:
    strict = DlibDetect({"threshold": 2.0, "upsample": 0})
    strict.setup(WeightFiles())
    scores = strict.detect(decode(t1.read_bytes()))[2]
    assert 0 < len(scores) < 6
    assert (scores >= 2).all()


def test_boxes_and_points_go_to_dlib_and_back_unchanged() -> None:
    there = rectangle(np.array([10, 20, 30, 50]))
    assert (there.left(), there.top(), there.width(), there.height()) == (10, 20, 20, 30)

    class Corner:
        """A predictor that answers with the first pixel of its box."""

        def __call__(self, rgb, box):
            return self

        def parts(self):
            return [there.tl_corner()]

    assert landmarks(
        Corner(), np.zeros((60, 60, 3), np.uint8), np.array([10, 20, 30, 50])
    ).tolist() == [[10.5, 20.5]]
