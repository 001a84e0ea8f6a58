"""Copies that are mirrored, cropped or turned a little are known again, and other photographs are
not taken for them.
"""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from stages.lookalikes import guesses, looks
from stages.pictures import perceptual_hash


def saved(image: Image.Image, scale: float = 0.7) -> bytes:
    """As somebody puts it on another page: smaller, and compressed anew."""
    out = io.BytesIO()
    image.resize((round(image.width * scale), round(image.height * scale))).save(
        out, "JPEG", quality=85
    )
    return out.getvalue()


def cropped(
    left: float, top: float, right: float, bottom: float
) -> Callable[[Image.Image], Image.Image]:
    def cut(image: Image.Image) -> Image.Image:
        w, h = image.size
        return image.crop(
            (round(w * left), round(h * top), round(w * (1 - right)), round(h * (1 - bottom)))
        )

    return cut


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "as it is": lambda image: image,
    "mirrored": ImageOps.mirror,
    "cropped by a twentieth a side": cropped(0.05, 0.05, 0.05, 0.05),
    "cropped by a tenth a side": cropped(0.1, 0.1, 0.1, 0.1),
    "cropped at the left": cropped(0.1, 0, 0, 0),
    "cropped at the bottom": cropped(0, 0, 0, 0.1),
    "mirrored and cropped": lambda image: cropped(0.1, 0, 0, 0.1)(ImageOps.mirror(image)),
    "turned": lambda image: image.rotate(2, Image.Resampling.BILINEAR),
    "turned the other way": lambda image: image.rotate(-3, Image.Resampling.BILINEAR),
    "turned on a larger canvas": lambda image: image.rotate(
        2, Image.Resampling.BILINEAR, expand=True
    ),
    "turned and mirrored": lambda image: ImageOps.mirror(
        image.rotate(2, Image.Resampling.BILINEAR)
    ),
}


def opened(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as image:
        return image.convert("RGB")


@pytest.fixture(scope="module")
def photographs(astronaut: bytes, t1: Path) -> list[Image.Image]:
    return [opened(astronaut), opened(t1.read_bytes())]


@pytest.mark.parametrize("copy", COPIES)
def test_copies_are_known_again(photographs: list[Image.Image], copy: str) -> None:
    """Whoever mirrors or crops a photograph brings it back under another name."""
    for image in photographs:
        assert np.isin(guesses(saved(COPIES[copy](image))), looks(saved(image, 1.0))[:, 0]).any()


def test_other_photographs_are_not_taken_for_copies(photographs: list[Image.Image]) -> None:
    one, other = map(saved, photographs)
    assert (
        not np.isin(guesses(one), looks(other)).any()
        and not np.isin(guesses(other), looks(one)).any()
    )


def test_the_first_look_is_the_picture_itself_and_its_mirror_image(
    photographs: list[Image.Image],
) -> None:
    image = photographs[0].resize((200, 200))
    out, mirrored = io.BytesIO(), io.BytesIO()
    image.save(out, "PNG")
    ImageOps.mirror(image).save(mirrored, "PNG")
    assert looks(out.getvalue())[0].tolist() == [
        perceptual_hash(out.getvalue()),
        perceptual_hash(mirrored.getvalue()),
    ]
    assert perceptual_hash(out.getvalue()) in guesses(out.getvalue()).tolist()


@pytest.mark.parametrize("data", [b"", b"no picture", b"\xff\xd8\xff\xe0 and no more"])
def test_what_does_not_decode_looks_like_nothing(data: bytes) -> None:
    assert looks(data).shape == (0, 2) and guesses(data).shape == (0,)


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (3, 2), (40, 2)])
def test_pictures_of_any_shape_can_be_looked_at(size: tuple[int, int]) -> None:
    out = io.BytesIO()
    Image.new("RGB", size, "red").save(out, "PNG")
    assert looks(out.getvalue()).shape == looks(saved(Image.new("RGB", (64, 64)))).shape and len(
        guesses(out.getvalue())
    )
