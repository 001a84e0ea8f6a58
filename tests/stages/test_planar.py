"""Pixels as networks take them, against the same in plain numpy."""

import numpy as np
import pytest

from stages.planar import planar

RGB = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("mean", "std"), [(127.5, 128.0), (127.5, 127.5), (0.0, 1.0), (0.0, 255.0)]
)
def test_pixels_are_shifted_and_scaled_plane_by_plane(mean: float, std: float) -> None:
    out = np.full((2, 3, 37, 53), np.nan, np.float32)
    planar(RGB, mean, std, out[1])
    assert out[1] == pytest.approx(
        (RGB.astype(np.float64).transpose(2, 0, 1) - mean) / std, abs=2e-7 * max(1, 255 / std)
    )
    assert np.isnan(out[0]).all()


def test_a_part_of_a_read_only_picture_goes_into_a_part_of_an_array() -> None:
    whole, out = RGB.copy(), np.zeros((3, 64, 64), np.float32)
    whole.setflags(write=False)
    planar(whole[5:25, 10:40], 0, 1, out[:, 1:21, 2:32])
    assert np.array_equal(out[:, 1:21, 2:32], RGB[5:25, 10:40].transpose(2, 0, 1))
    assert out.sum() == RGB[5:25, 10:40].sum(dtype=np.int64)


@pytest.mark.parametrize(
    "out",
    [
        np.zeros((3, 37, 52), np.float32),
        np.zeros((3, 37, 53)),
        np.zeros((1, 3, 37, 53), np.float32),
    ],
)
def test_an_array_that_would_stay_as_it_was_is_refused(out: np.ndarray) -> None:
    with pytest.raises(ValueError, match="does not go into"):
        planar(RGB, 0, 1, out)
