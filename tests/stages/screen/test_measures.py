"""What is measured of an image without a network: colour, light, and whether it is put together
from several.
"""

import random
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from stages.pictures import decode
from stages.screen.limits import LimitsScreen
from stages.screen.measures import chroma, light, seam

LIMIT = LimitsScreen().params.max_seam
COMPOSED = {f"group_photos/{name}.jpg" for name in ("3ddfa_trump_hillary", "two_people")} | {
    f"photos/virat_kohli/{number}.jpg" for number in ("010", "017")
}
"""The collages among the photographs at hand, by looking at them."""


def tiles(
    pictures: Sequence[np.ndarray],
    rows: int,
    columns: int,
    gutter: int,
    colour: int,
    side: int = 240,
) -> np.ndarray:
    """A collage of the middle squares of `pictures`."""
    canvas = np.full(
        (rows * side + (rows - 1) * gutter, columns * side + (columns - 1) * gutter, 3),
        colour,
        np.uint8,
    )
    for at, rgb in enumerate(pictures):
        edge = min(rgb.shape[:2])
        top, left = (rgb.shape[0] - edge) // 2, (rgb.shape[1] - edge) // 2
        square = np.ascontiguousarray(rgb[top : top + edge, left : left + edge])
        y, x = at // columns * (side + gutter), at % columns * (side + gutter)
        canvas[y : y + side, x : x + side] = cv2.resize(
            square, (side, side), interpolation=cv2.INTER_AREA
        )
    return canvas


def published(rgb: np.ndarray, scale: float, quality: int) -> np.ndarray:
    """The image as the web would have it: another size, and JPEG."""
    small = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return decode(
        cv2.imencode(".jpg", small[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
    )


@pytest.mark.parametrize(("rows", "columns"), [(1, 2), (2, 1), (2, 2)])
@pytest.mark.parametrize(("gutter", "colour"), [(0, 0), (6, 255)])
def test_a_collage_of_shipped_photographs_has_a_seam(
    astronaut: bytes, t1: Path, rows: int, columns: int, gutter: int, colour: int
) -> None:
    rgb, group = decode(astronaut), decode(t1.read_bytes())
    collage = tiles(
        [rgb, group, group[:, ::-1], rgb[::-1]][: rows * columns], rows, columns, gutter, colour
    )
    assert seam(collage) > LIMIT
    assert seam(published(collage, 0.73, 80)) > LIMIT
    assert seam(rgb) < LIMIT and seam(group) < LIMIT


@pytest.mark.parametrize(
    ("rows", "columns", "least"), [(1, 2, 9), (2, 1, 10), (2, 2, 9), (3, 3, 12)]
)
def test_most_collages_of_real_photographs_are_found(
    photos: Path, rows: int, columns: int, least: int
) -> None:
    """Of twelve: tiles that end in the same colour on both sides of an edge leave none to see."""
    rng = random.Random(f"{rows} {columns}")
    files = sorted(
        path
        for path in photos.glob("*/*.jpg")
        if path.relative_to(photos.parent).as_posix() not in COMPOSED
    )
    found = 0
    for number in range(12):
        pictures = [decode(path.read_bytes()) for path in rng.sample(files, rows * columns)]
        gutter, colour = ((0, 0), (4, 255), (10, 0))[number % 3]
        found += (
            seam(
                published(
                    tiles(pictures, rows, columns, gutter, colour), (1.0, 0.73)[number % 2], 85
                )
            )
            > LIMIT
        )
    assert found >= least


@pytest.mark.slow
def test_photographs_of_several_people_are_no_collages(shared: Path) -> None:
    """Door frames, pillars and posters would cost a person the images with friends."""
    data = shared / "data"
    found = {}
    for path in [
        *sorted((data / "group_photos").glob("*.jpg")),
        *(data / name for name in COMPOSED),
    ]:
        found[path.relative_to(data).as_posix()] = seam(decode(path.read_bytes()))
    assert len(found) >= 25
    assert {name for name, value in found.items() if value > LIMIT} == COMPOSED


def test_frames_at_the_border_and_pictures_too_small_to_say_are_no_seams(astronaut: bytes) -> None:
    rgb = decode(astronaut)
    framed = cv2.copyMakeBorder(rgb, 40, 40, 40, 40, cv2.BORDER_CONSTANT, value=(0, 0, 0))
    assert seam(framed) < LIMIT
    assert seam(rgb[:20]) == seam(rgb[:1, :1]) == 0
    assert seam(np.zeros((40, 2000, 3), np.uint8)) == 0


def test_a_wide_panorama_is_looked_at_in_bounded_memory() -> None:
    rgb = np.zeros((300, 20_000, 3), np.uint8)
    rgb[:, 7_000:] = 200
    assert seam(rgb) == 1


def test_grey_and_toned_pictures_have_no_spread_of_colours(astronaut: bytes, t1: Path) -> None:
    for rgb in (decode(astronaut), decode(t1.read_bytes())):
        grey = np.repeat(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[:, :, None], 3, axis=2)
        sepia = np.clip(grey * np.array([1.0, 0.93, 0.82]), 0, 255).astype(np.uint8)
        assert chroma(grey) < 0.1
        assert chroma(sepia) < 3 < chroma(rgb)
        assert chroma(published(grey, 0.5, 60)) < 3


def test_light_is_the_grey_levels_inside_the_box() -> None:
    face = np.zeros((10, 20, 3), np.uint8)
    face[:, 10:] = 100
    assert light(face) == (50.0, 50.0)
    assert light(face[:0]) == (0.0, 0.0)
