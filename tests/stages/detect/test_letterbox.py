"""The letterbox: what a detector sees, and how its pixels lead back to the image's."""

import cv2
import numpy as np
import pytest

from stages.detect.letterbox import halved, letterbox


@pytest.mark.parametrize(
    "shape", [(250, 250), (300, 1000), (1000, 300), (1, 500), (1, 1), (50, 20000), (3000, 2000)]
)
def test_it_keeps_the_aspect_and_fits_the_strides(shape: tuple[int, int]) -> None:
    rgb = np.full((*shape, 3), 255, np.uint8)
    canvas, ratio = letterbox(rgb, 640, None)
    assert max(shape) * ratio == pytest.approx(640)
    assert canvas.shape[0] % 32 == canvas.shape[1] % 32 == 0
    assert (canvas[:, :, 0] > 0).sum() == pytest.approx(
        max(1, round(shape[0] * ratio)) * max(1, round(shape[1] * ratio))
    )
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
        expected[:height, :width] = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_LINEAR)
        assert np.array_equal(canvas, expected)


def test_a_picture_that_is_read_only_or_a_part_of_another_is_scaled_alike() -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (300, 500, 3), dtype=np.uint8)
    part = rgb[20:220, 100:400]
    whole = part.copy()
    whole.setflags(write=False)
    assert np.array_equal(letterbox(part, 640, None)[0], letterbox(whole, 640, None)[0])


def test_halving_takes_means_and_stops_above_the_side() -> None:
    rgb = np.random.default_rng(2).integers(0, 256, (80, 168, 3), dtype=np.uint8)
    small, halvings = halved(rgb, 30)
    assert (small.shape, halvings) == ((20, 42, 3), 2)
    means = rgb.reshape(20, 4, 42, 4, 3).astype(float).mean(axis=(1, 3))
    assert np.abs(small - means).max() <= 1  # each halving rounds
    assert halved(rgb, 84)[1] == 1
    assert halved(rgb, 85)[1] == 0


@pytest.mark.parametrize(("width", "height"), [(5183, 3001), (1279, 1281), (700, 333), (200, 150)])
def test_places_on_the_canvas_lead_back_to_the_picture(width: int, height: int) -> None:
    """Also where odd rows and columns are left out on the way: the grey levels of a ramp say where
    a pixel came from.
    """
    across, down = (np.linspace(0, 255, size, dtype=np.float32) for size in (width, height))
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[:, :, 0], rgb[:, :, 1] = across.round(), down.round()[:, None]
    canvas, ratio = letterbox(rgb, 640, None)
    for x, y in ((0, 0), (100, 50), (round(width * ratio) - 2, round(height * ratio) - 2)):
        came = ((np.array([x, y]) + 0.5) / ratio - 0.5) / (width - 1, height - 1) * 255
        assert canvas[y, x, :2] == pytest.approx(came, abs=1.5)


def test_fine_patterns_of_large_pictures_become_grey_and_not_stripes() -> None:
    rgb = np.zeros((2000, 3000, 3), np.uint8)
    rgb[::2] = rgb[1::2, ::2] = 255  # three pixels of four
    canvas, ratio = letterbox(rgb, 640, None)
    assert np.ptp(canvas[: round(2000 * ratio), : round(3000 * ratio)]) <= 1
