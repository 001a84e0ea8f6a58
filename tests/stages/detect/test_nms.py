"""Non-maximum suppression against the textbook loop over pairs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.detect.nms import suppress


def pair_by_pair(boxes: np.ndarray, scores: np.ndarray, limit: float) -> list[int]:
    """The definition: by falling score, a box stays unless one that stayed overlaps it by more than
    `limit`.
    """
    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda at: -float(scores[at])):
        if not any(overlap(boxes[i], boxes[j]) > limit for j in kept):
            kept.append(i)
    return kept


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    wide = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    high = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    areas = [max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1]) for box in (one, other)]
    return float(wide * high / (sum(areas) - wide * high)) if sum(areas) > wide * high else 0.0


def test_overlapping_boxes_leave_the_best() -> None:
    boxes = np.array(
        [[0, 0, 10, 10], [1, 1, 11, 11], [20, 0, 30, 10], [0, 0, 10, 5], [20, 0, 30, 10]],
        np.float32,
    )
    scores = np.array([0.7, 0.9, 0.5, 0.6, 0.5], np.float32)
    # Box 3 overlaps box 1 by 0.29, and box 0, by which it would fall, is gone itself.
    assert suppress(boxes, scores, 0.4).tolist() == [1, 3, 2]
    assert suppress(boxes[:0], scores[:0], 0.4).tolist() == []


@given(st.integers(0, 2**32 - 1), st.integers(0, 60), st.sampled_from([0.13, 0.3, 0.41, 0.7, 1.0]))
def test_it_keeps_what_the_definition_keeps(seed: int, count: int, limit: float) -> None:
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 40, (count, 2))
    boxes = np.concatenate([corners, corners + rng.integers(-2, 30, (count, 2))], axis=1).astype(
        np.float32
    )
    scores = (rng.integers(50, 70, count) / 100).astype(np.float32)  # with ties
    assert suppress(boxes, scores, limit).tolist() == pair_by_pair(
        boxes.astype(np.float64), scores, limit
    )


@pytest.mark.parametrize("apart", [True, False])
def test_a_picture_full_of_faces_takes_memory_by_the_box_and_not_by_the_pair(apart: bool) -> None:
    import tracemalloc

    count = 4000
    at = np.arange(count, dtype=np.float32)[:, None] * (20 if apart else 0)
    boxes = np.concatenate([at, np.zeros_like(at), at + 10, np.full_like(at, 10)], axis=1)
    tracemalloc.start()
    kept = suppress(boxes, np.linspace(0.5, 0.9, count, dtype=np.float32), 0.4)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(kept) == (count if apart else 1)
    assert peak < 1000 * count
