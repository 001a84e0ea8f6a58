"""What others read, we read, and the same image; what is only a thumbnail of something else is
told.
"""

import io
import re
import struct
from contextlib import suppress

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from stages.pictures import PictureError, decode, perceptual_hash, read_header
from tests.stages.picture_corpus import (
    PICTURE,
    SIZE,
    chunk,
    corpus,
    exif,
    gif,
    place_of,
    put,
    saved,
    scene,
    segment,
)

CORPUS = corpus()

OTHERWISE_IN_PILLOW = (
    r"bmp: empty alpha.*",  # shows nothing but the paper behind the image
    r"jpeg: orientation of type 1\b.*",  # passes over it
)
# fmt: off
OTHERWISE_IN_OPENCV = (
    r"jpeg: orientation of type [1469]\b.*",  # passes over it, or over some of them
    r"png: transparent colour", r"gif: transparent", r".*: mode (LA|RGBA)",
    r"webp, alpha",  # knows no transparency here
)
# fmt: on


def by_pillow(data: bytes) -> np.ndarray | None:
    """The upright image on white paper; None for what Pillow refuses."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.has_transparency_data:
                above = upright.convert("RGBA")
                upright = Image.alpha_composite(
                    Image.new("RGBA", above.size, (255, 255, 255, 255)), above
                )
            return np.asarray(upright.convert("RGB"))
    except (OSError, ValueError, SyntaxError):
        return None


def by_opencv(data: bytes) -> np.ndarray | None:
    found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    return None if found is None else np.asarray(found)


def listed(name: str, patterns: tuple[str, ...]) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in patterns)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("name", CORPUS)
def test_it_is_the_picture_that_pillow_and_opencv_read(name: str) -> None:
    """A photograph that opens everywhere else would be lost, or its boxes lie beside the faces that
    training sees.
    """
    data = CORPUS[name]
    found = decode(data)
    header = read_header(data)
    assert found.shape == (header.height, header.width, 3)
    assert perceptual_hash(data) is not None
    others = {
        who: other
        for who, read, differs in (
            ("Pillow", by_pillow, OTHERWISE_IN_PILLOW),
            ("OpenCV", by_opencv, OTHERWISE_IN_OPENCV),
        )
        if not listed(name, differs) and (other := read(data)) is not None
    }
    assert others or name.startswith(
        ("jpeg: no end marker", "png: empty acTL", "jpeg: orientation of type 1")
    )
    for who, other in others.items():
        assert found.shape == other.shape, who
        assert np.abs(found.astype(int) - other).max() <= 2, who


def test_all_of_them_show_the_scene() -> None:
    """Decoders that agree may all be wrong: of what is stored as it is, every image looks like
    the one it was made from.
    """
    for name, data in CORPUS.items():
        header = read_header(data)
        if (header.width, header.height, header.orientation) == (*SIZE, 1) and not re.search(
            "mode|palette of|grey", name
        ):
            assert np.abs(decode(data).astype(int) - scene()).mean() < 16, name


def told(data: bytes) -> str:
    with pytest.raises(PictureError) as caught:
        decode(data, max_pixels=10_000_000)
    return str(caught.value)


def reason(data: bytes) -> str:
    return told(data).partition(":")[0]


def tiff(**tags: object) -> bytes:
    return saved("TIFF", tiffinfo={int(tag[1:]): value for tag, value in tags.items()})


def with_inner(outer: dict[int, int], inner: dict[int, int]) -> bytes:
    """A TIFF of one grey pixel with a directory below its own that holds nothing but those tags."""
    first = {
        256: 1,
        257: 1,
        258: 8,
        259: 1,
        262: 1,
        273: 8,
        277: 1,
        278: 1,
        279: 1,
        **outer,
        330: 0,
    }
    head = 10 + 2 + 12 * len(first) + 4
    first[330] = head
    directories = [
        b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
        for tags in (first, inner)
    ]
    counted = [
        struct.pack("<H", len(one) // 12) + one + struct.pack("<I", 0) for one in directories
    ]
    return b"II*\0\x0a\0\0\0\x80\0" + b"".join(counted)


@pytest.mark.parametrize(
    "data",
    [
        tiff(t254=1, t50706=b"\1\4\0\0", t271="Maker"),  # DNG
        tiff(t50706=b"\1\4\0\0"),
        tiff(t262=32803),
        b"II*\0\x10\0\0\0CR\x02\0" + bytes(100),  # Canon's CR2
        with_inner({254: 1}, {254: 0, 256: 6000, 257: 4000, 262: 32803}),  # Nikon's NEF, Sony's ARW
        with_inner({}, {256: 6000, 257: 4000, 262: 34892}),
        with_inner({}, {254: 0, 256: 6000, 257: 4000, 262: 2}),
        with_inner({255: 2}, {}),
        saved("TIFF", tiffinfo={254: 1}, save_all=True, append_images=[PICTURE.resize((960, 640))]),
        b"FUJIFILMCCD-RAW 0201" + bytes(100),
        b"IIRO\x08\0\0\0" + bytes(100),
        b"IIU\0\x08\0\0\0" + bytes(100),
        b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(100),
    ],
)
def test_what_is_only_a_thumbnail_of_something_else_is_told(data: bytes) -> None:
    """The raw file of a camera would be taken for its preview of 160 x 120, and shipped with the
    face measured in that.
    """
    assert reason(data) == "unsupported_format"


@pytest.mark.parametrize(
    "data",
    [
        tiff(t254=1),  # there is nothing else that it could be a thumbnail of
        with_inner(
            {}, {254: 1, 256: 1, 257: 1, 262: 1}
        ),  # a preview below the image, as Photoshop writes it
        with_inner({}, {330: 0xFFFFFFFF}),
        saved("TIFF", save_all=True, append_images=[PICTURE.resize((960, 640))]),
    ],
)
def test_a_picture_with_a_thumbnail_is_no_thumbnail(data: bytes) -> None:
    """Scans of a photo laboratory would be refused as camera files."""
    assert decode(data).shape in ((64, 96, 3), (1, 1, 3))


def test_damage_behind_an_oddity_is_told() -> None:
    """libjpeg tells its first warning only: an image half grey would pass as one with an odd
    number in its head.
    """
    plain = saved("JPEG", quality=90)
    for odd in (
        plain.replace(b"JFIF\0\x01", b"JFIF\0\x05", 1),
        put(plain, place_of(plain, 0xDB), b"\0\0"),
    ):
        assert decode(odd).shape == (64, 96, 3)
        at = len(odd) - len(plain) + place_of(plain, 0xDA) + 300
        for broken in (odd[:at], odd[:at] + b"\xff\xd0\xff\xd1" + odd[at + 4 :]):
            assert reason(broken) == "decode_error"


def test_limits_hold_for_what_is_read_leniently() -> None:
    """Whoever knows what is passed over would get a bomb through in it."""
    assert reason(gif((0, 0), at=(65_000, 65_000))) == "too_many_pixels"
    plain = saved("JPEG", quality=90, progressive=True)
    scan = plain[plain.rindex(b"\xff\xda") : -2]
    for odd in (plain, put(plain, 3, b"\xff" * 9), put(plain, 2, segment(0xE2, b"\xff\xd9"))):
        with pytest.raises(PictureError, match="more than 100 scans"):
            decode(odd[:-2] + scan * 2000 + odd[-2:])
    huge = struct.pack(">HH", 60_000, 60_000)
    frame = place_of(plain, 0xC2)
    small, bomb = (
        plain[frame : frame + 19],
        plain[frame : frame + 5] + huge + plain[frame + 9 : frame + 19],
    )
    assert reason(put(plain, frame, bomb)) == "too_many_pixels"
    for hidden in (
        segment(0xE3, small) + bomb,
        b"\0\xff\0" + bomb,
        b"\xff" * 9 + bomb,
        b"\xff\x01" + bomb,
    ):
        assert reason(plain[:frame] + hidden + plain[frame + 19 :]) == "too_many_pixels"
    assert reason(plain[:2] + segment(0xFE, b"") * 200_000) == "decode_error"


def test_a_png_whose_pixels_are_damaged_fails_whatever_stands_beside_them() -> None:
    """Leaving out chunks must not leave out pixels."""
    plain = saved("PNG")
    odd = put(plain, 33, chunk(b"pHYs", b""))
    at = odd.index(b"IDAT")
    assert reason(odd[: at + 300]) == "decode_error"
    assert reason(odd[: at - 4] + odd[-12:]) == "decode_error"
    assert reason(odd[: at + 4] + bytes(200) + odd[at + 204 :]) == "decode_error"
    assert (
        decode(
            put(plain, 33, chunk(b"tRNS", struct.pack(">HHH", 120, 220, 0)) + chunk(b"pHYs", b""))
        )[0, 0].tolist()
        == [255] * 3
    )


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_no_detail_holds_an_address_in_memory() -> None:
    """The same damaged image would have another row in every run."""
    rng = np.random.default_rng(7)
    for kind in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF"):
        data = saved(kind)
        for _ in range(60):
            broken = bytearray(data)
            for place in rng.integers(0, min(len(data), 300), 4):
                broken[place] = rng.integers(256)
            with suppress(PictureError):
                decode(bytes(broken), max_pixels=10_000_000)
                continue
            assert " at 0x" not in told(bytes(broken))


def test_an_orientation_that_cannot_be_read_is_none() -> None:
    """A field of a type that we have never seen would turn an image at random."""
    plain = saved("JPEG", quality=90)
    odd = exif(3).replace(struct.pack(">HHI", 0x0112, 3, 1), struct.pack(">HHI", 0x0112, 12, 1))
    for block in (odd, exif(4, 2**31), exif(8, -3), exif(3)[:-20], exif(3, 9)):
        assert read_header(put(plain, 2, block)).orientation == 1
