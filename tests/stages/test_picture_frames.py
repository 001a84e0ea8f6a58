"""Counting frames: a file of thousands is told from an image without decoding it."""

import io

import numpy as np
import pytest
from PIL import Image

from stages.picture_frames import frames
from stages.picture_headers import read_header


def film(name: str, count: int) -> bytes:
    """So many frames that differ from one another."""
    pixels = np.random.default_rng(1).integers(0, 255, (count, 16, 16, 3), dtype=np.uint8)
    out = io.BytesIO()
    first, *rest = (Image.fromarray(frame) for frame in pixels)
    first.save(
        out,
        name,
        save_all=True,
        append_images=rest,
        **({} if name == "TIFF" else {"duration": 100}),
    )
    return out.getvalue()


@pytest.mark.parametrize("name", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_frames_are_counted_as_pillow_does_and_no_further_than_asked(name: str, count: int) -> None:
    data = film(name, count)
    with Image.open(io.BytesIO(data)) as image:
        assert getattr(image, "n_frames", 1) == count
    header = read_header(data)
    assert frames(data, header, 100) == count
    assert frames(data, header, 3) == min(count, 4)


@pytest.mark.parametrize("name", ["JPEG", "BMP"])
def test_formats_without_frames_have_one(name: str) -> None:
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, name)
    assert frames(out.getvalue(), read_header(out.getvalue()), 10) == 1


@pytest.mark.parametrize("name", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_damaged_files_are_counted_without_an_end_or_an_error(name: str) -> None:
    data = film(name, 3)
    header = read_header(data)
    rng = np.random.default_rng(len(data))
    for _ in range(200):
        broken = bytearray(data[: rng.integers(40, len(data) + 1)])
        for place in rng.integers(8, len(broken), 4):
            broken[place] = rng.integers(256)
        assert 1 <= frames(bytes(broken), header, 5) <= 6


def test_a_chain_of_directories_that_leads_back_ends() -> None:
    data = bytearray(film("TIFF", 2))
    header = read_header(bytes(data))
    first = int.from_bytes(data[4:8], "little")
    count = int.from_bytes(data[first : first + 2], "little")
    data[first + 2 + 12 * count : first + 6 + 12 * count] = data[4:8]
    assert frames(bytes(data), header, 1000) == 1
