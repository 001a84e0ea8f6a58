"""Whom a photograph is of."""

import numpy as np
import pytest

from stages.detect.subject import subject


def test_the_large_face_near_the_centre_wins_over_the_sure_one_at_the_edge() -> None:
    boxes = np.array([[0, 0, 90, 90], [150, 100, 250, 220], [380, 180, 400, 200]], np.float32)
    assert subject(boxes, np.array([0.99, 0.7, 0.9]), 400, 320) == 1


def test_of_equals_the_surer_and_then_the_first() -> None:
    boxes = np.array([[0, 50, 50, 100], [100, 50, 150, 100], [0, 50, 50, 100]], np.float32)
    assert subject(boxes, np.array([0.5, 0.9, 0.6]), 150, 150) == 1
    assert subject(boxes, np.array([0.5, 0.5, 0.5]), 150, 150) == 0


def test_there_is_no_subject_without_a_face() -> None:
    with pytest.raises(ValueError, match="without faces"):
        subject(np.zeros((0, 4)), np.zeros(0), 10, 10)
