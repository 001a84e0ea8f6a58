"""The letterbox: what a detector sees, and how its pixels lead back to the picture's."""

import cv2
import numpy as np
import pytest

from stages.detect.letterbox import letterbox


@pytest.mark.parametrize("shape", [(250, 250), (300, 1000), (1000, 300), (1, 500), (1, 1), (50, 20000), (3000, 2000)])
def test_it_keeps_the_aspect_and_fits_the_strides(shape: tuple[int, int]) -> None:
    rgb = np.full((*shape, 3), 255, np.uint8)
    canvas, ratio = letterbox(rgb, 640, None)
    assert max(shape) * ratio == pytest.approx(640)
    assert canvas.shape[0] % 32 == canvas.shape[1] % 32 == 0
    assert (canvas[:, :, 0] > 0).sum() == pytest.approx(max(1, round(shape[0] * ratio)) * max(1, round(shape[1] * ratio)))
    assert letterbox(rgb, 320, 640)[0].shape == (640, 640, 3)
    assert letterbox(rgb, 640, None, grain=64)[0].shape[0] % 64 == 0


@pytest.mark.parametrize("shape", [(400, 900), (900, 400), (90, 41)])
@pytest.mark.parametrize("canvas_side", [None, 640])
@pytest.mark.parametrize("fill", [(0, 0, 0), (123, 117, 104)])
def test_the_picture_lies_top_left_and_all_else_is_one_colour(
    shape: tuple[int, int], canvas_side: int | None, fill: tuple[int, int, int]
) -> None:
    rgb = np.random.default_rng(0).integers(1, 256, (*shape, 3), dtype=np.uint8)
    for _ in range(3):
        np.full((700, 700, 3), 77, np.uint8)  # so that fresh memory is not black by chance
        canvas, ratio = letterbox(rgb, 640, canvas_side, fill=fill)
        height, width = round(shape[0] * ratio), round(shape[1] * ratio)
        expected = np.full_like(canvas, fill)
        way = cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR
        expected[:height, :width] = cv2.resize(rgb, (width, height), interpolation=way)
        assert np.array_equal(canvas, expected)


def test_a_picture_that_is_read_only_or_a_part_of_another_is_scaled_alike() -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (300, 500, 3), dtype=np.uint8)
    part = rgb[20:220, 100:400]
    whole = part.copy()
    whole.setflags(write=False)
    assert np.array_equal(letterbox(part, 640, None)[0], letterbox(whole, 640, None)[0])
