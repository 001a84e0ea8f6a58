"""What all detectors share: order, ids, and the row for an image without a face."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from schemas import face_id, no_face_id
from stages.detect.face_rows import crop, face_rows, yaw

IDS = {"identity_id": "p", "image_id": "i"}
RGB = np.zeros((100, 100, 3), np.uint8)
FRONTAL = np.array([[30, 40], [70, 40], [50, 60], [35, 80], [65, 80]], np.float32)


def rows(
    boxes: Sequence[Sequence[float]], scores: Sequence[float], min_side: float = 0
) -> list[dict[str, Any]]:
    points = np.repeat(FRONTAL[None], len(boxes), axis=0)
    return face_rows(IDS, RGB, np.array(boxes), points, np.array(scores), "arcface5", min_side)


def test_faces_come_by_falling_score_whatever_order_they_were_found_in() -> None:
    boxes, scores = (
        [[0, 0, 10, 10], [5, 5, 45, 15], [1, 1, 9, 9], [0, 0, 11, 11]],
        [0.5, 0.9, 0.5, 0.5],
    )
    found = rows(boxes, scores)
    assert [row["face"] for row in found] == [0, 1, 2, 3]
    assert [row["box"] for row in found] == [boxes[1], boxes[0], boxes[3], boxes[2]]
    assert rows(boxes[::-1], scores[::-1]) == found
    assert {row["faces_in_image"] for row in found} == {4}
    assert [row["subject"] for row in found] == [True, False, False, False]
    assert found[0]["side"] == 20
    assert found[0]["face_id"] == face_id("i", boxes[1])


def test_ids_can_be_made_again_from_the_row() -> None:
    (row,) = rows([[0.1, 0.2, 33.3333333, 44.4444444]], [0.5])
    assert row["face_id"] == face_id("i", row["box"])


def test_one_box_found_twice_is_one_face() -> None:
    assert [
        row["faces_in_image"] for row in rows([[0, 0, 10, 10], [0, 0, 10, 10.01]], [0.5, 0.6])
    ] == [1]


@pytest.mark.parametrize(
    ("boxes", "detail"), [([], None), ([[0, 0, 10, 10]], "1 found, all smaller than 20 pixels")]
)
def test_a_picture_without_a_face_says_so(boxes: list[list[float]], detail: str | None) -> None:
    (row,) = rows(boxes, [0.9] * len(boxes), min_side=20)
    assert (row["face_id"], row["status"], row["reason"]) == (
        no_face_id("i"),
        "filtered",
        "no_face",
    )
    assert (row["detail"], row["faces_in_image"], row.get("subject")) == (detail, 0, None)


def test_of_the_faces_that_are_left_one_is_the_subject() -> None:
    found = rows([[40, 40, 45, 45], [0, 0, 20, 20], [30, 10, 60, 60]], [0.9, 0.8, 0.7], min_side=10)
    assert [(row["score"], row["subject"]) for row in found] == [
        (pytest.approx(0.8), False),
        (pytest.approx(0.7), True),
    ]


def test_boxes_beyond_the_edge_are_cut() -> None:
    assert crop(RGB, np.array([-5, -5, 10.2, 20])).shape == (20, 11, 3)
    assert crop(RGB, np.array([200, 200, 210, 210])).size == 0
    assert rows([[90, 90, 120, 120], [200, 0, 250, 50]], [0.9, 0.8])[1]["sharpness"] == 0


def test_yaw_follows_the_nose_and_not_the_tilt() -> None:
    assert yaw(FRONTAL, "arcface5") == 0
    turned = FRONTAL + np.array([[0, 0], [0, 0], [10, 0], [0, 0], [0, 0]], np.float32)
    assert yaw(turned, "arcface5") == pytest.approx(0.5)
    assert yaw(turned * (-1, 1), "arcface5") is not None
    angle = np.radians(35)
    tilt = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    assert yaw(turned @ tilt.T, "arcface5") == pytest.approx(0.5, abs=1e-6)
    dlib5 = np.array([[75, 40], [65, 40], [25, 40], [35, 40], [40, 60]], np.float32)
    assert yaw(dlib5, "dlib5") == pytest.approx(-0.5)
    assert yaw(np.ones((5, 2)), "arcface5") is None
    with pytest.raises(ValueError, match="arcface5, dlib5"):
        yaw(FRONTAL, "fan68")
