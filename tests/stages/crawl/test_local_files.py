"""Crawling files: every candidate gets one row, with its bytes or with a reason."""

import hashlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from schemas import TABLES
from schemas.fetched import Fetched
from stages.crawl.local_files import FilesCrawl


class Shelf:
    """Answers by address, as the pipeline's fetch gate does."""

    def __init__(self, answers: dict[str, Fetched]) -> None:
        self.answers = answers

    def fetch(self, addresses: Sequence[str]) -> list[Fetched]:
        return [self.answers[address] for address in addresses]


def crawl(answers: dict[str, Fetched], **params: Any) -> list[dict[str, Any]]:
    rows = pa.table(
        {
            "identity_id": ["p"] * len(answers),
            "image_id": [f"i{n}" for n in range(len(answers))],
            "candidates.address": list(answers),
            "candidates.fingerprint": ["f"] * len(answers),
            "candidates.status": ["ok"] * len(answers),
        }
    )
    stage = FilesCrawl(params)
    assert stage.wants(rows).to_pylist() == [True] * len(answers)
    table = stage.run(rows, {}, Shelf(answers))
    checked = TABLES["images"].check(
        table.append_column("inputs", pa.array([b"8 bytes."] * len(table), pa.binary(8))), "test"
    )
    assert checked["image_id"].to_pylist() == rows["image_id"].to_pylist()
    return checked.to_pylist()


@pytest.fixture(scope="module")
def jpeg() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    out = io.BytesIO()
    pixels = (np.arange(40 * 60 * 3) % 251).reshape(40, 60, 3).astype(np.uint8)
    Image.fromarray(pixels).save(out, "JPEG", exif=exif.tobytes())
    return out.getvalue()


def test_a_picture_is_kept_byte_for_byte(jpeg: bytes) -> None:
    (row,) = crawl({"a": Fetched(jpeg)})
    assert row["bytes"] == jpeg
    assert row["sha256"] == hashlib.sha256(jpeg).hexdigest()
    assert (row["format"], row["width"], row["height"], row["orientation"]) == ("jpeg", 40, 60, 6)
    assert (row["size"], row["status"], row["fetched_at"]) == (len(jpeg), "ok", None)
    assert row["phash"] is not None


def test_refused_content_keeps_its_hash_and_not_its_bytes(jpeg: bytes) -> None:
    bomb = b"GIF89a\xff\xff\xff\xff" + bytes(20)
    answers = {
        "a": Fetched(b""),
        "b": Fetched(b"<html>"),
        "c": Fetched(bomb),
        "d": Fetched(jpeg + bytes(5000)),
        "e": Fetched(jpeg),
    }
    rows = crawl(answers, max_bytes=len(jpeg) + 100)
    assert [row["reason"] for row in rows] == [
        "empty",
        "not_an_image",
        "too_many_pixels",
        "too_large",
        None,
    ]
    assert [row["status"] for row in rows] == ["failed"] * 4 + ["ok"]
    for row, data in zip(
        rows[:4], (answer.data or b"" for answer in answers.values()), strict=False
    ):
        assert row["bytes"] is None
        assert (row["sha256"], row["size"]) == (hashlib.sha256(data).hexdigest(), len(data))


def test_what_the_fetch_says_is_passed_on(jpeg: bytes) -> None:
    rows = crawl(
        {
            "a": Fetched(None, "failed", "http_404", "Not Found", fetched_at=1_700_000_000_000_000),
            "b": Fetched(None, "filtered", "robots", opt_out="X-Robots-Tag: noai"),
            "c": Fetched(jpeg, opt_out="noted", fetched_at=5),
        }
    )
    assert [(row["status"], row["reason"], row["detail"]) for row in rows[:2]] == [
        ("failed", "http_404", "Not Found"),
        ("filtered", "robots", None),
    ]
    assert rows[0]["fetched_at"].year == 2023
    assert [row["opt_out"] for row in rows] == [None, "X-Robots-Tag: noai", "noted"]
    assert [row["sha256"] is None for row in rows] == [True, True, False]


def test_a_picture_that_does_not_decode_stays_without_a_hash(jpeg: bytes) -> None:
    """Its header is sound, so the bytes are kept; who needs pixels will say decode_error."""
    (row,) = crawl({"a": Fetched(jpeg[: len(jpeg) // 2])})
    assert (row["status"], row["phash"], row["width"]) == ("ok", None, 40)


def test_nothing_gives_nothing() -> None:
    assert crawl({}) == []


def saved(name: str, side: int = 40, frames: int = 1, mode: str = "RGB") -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(side).integers(0, 255, (frames, side, side, 3), dtype=np.uint8)
    first, *rest = (Image.fromarray(frame).convert(mode) for frame in pixels)
    first.save(out, name, **({"save_all": True, "append_images": rest} if rest else {}))
    return out.getvalue()


def test_limits_on_small_files_and_films_are_parameters_and_off_unless_set() -> None:
    answers = {
        "small": Fetched(saved("PNG", 20)),
        "film": Fetched(saved("GIF", 40, 9)),
        "fine": Fetched(saved("GIF", 40, 3)),
    }
    assert [row["reason"] for row in crawl(answers)] == [None] * 3
    assert [row["reason"] for row in crawl(answers, min_side=21, max_frames=3)] == [
        "too_small",
        "too_many_frames",
        None,
    ]
    (row,) = crawl({"small": answers["small"]}, min_bytes=100_000)
    assert (row["status"], row["reason"], row["bytes"]) == ("failed", "too_small", None)
    assert row["sha256"]


def test_every_kind_of_picture_has_one_outcome() -> None:
    """The same file would be kept by one machine and refused by another."""
    grey = io.BytesIO()
    Image.fromarray(np.full((30, 30), 40_000, np.uint16)).save(grey, "PNG")
    kinds = {
        "cmyk": saved("JPEG", mode="CMYK"),
        "sixteen bits": grey.getvalue(),
        "webp": saved("WEBP"),
        "avif": saved("AVIF"),
        "bmp": saved("BMP"),
        "gif": saved("GIF"),
        "film": saved("WEBP", 40, 3),
        "pages": saved("TIFF", 40, 3),
        "palette": saved("PNG", mode="P"),
    }
    rows = crawl({name: Fetched(data) for name, data in kinds.items()})
    assert [(row["status"], row["phash"] is not None) for row in rows] == [("ok", True)] * len(
        kinds
    )
    assert [row["format"] for row in rows] == [
        "jpeg",
        "png",
        "webp",
        "avif",
        "bmp",
        "gif",
        "webp",
        "tiff",
        "png",
    ]
    refused = {
        "heic": (
            b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(100),
            "unsupported_format",
            "HEIC",
        ),
        "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported_format", "SVG"),
        "page": (b"<!DOCTYPE html><html></html>", "not_an_image", "begins with"),
        "jpeg xl": (b"\xff\x0a" + bytes(50), "unsupported_format", "JPEG XL"),
    }
    rows = crawl({name: Fetched(data) for name, (data, _, _) in refused.items()})
    assert [row["reason"] for row in rows] == [reason for _, reason, _ in refused.values()]
    assert all(
        words in row["detail"] for row, (_, _, words) in zip(rows, refused.values(), strict=True)
    )


@pytest.mark.slow
def test_pictures_of_more_than_64_megapixels_are_refused_unless_asked_for() -> None:
    out = io.BytesIO()
    Image.new("1", (8001, 8000)).save(out, "PNG")
    assert crawl({"a": Fetched(out.getvalue())})[0]["reason"] == "too_many_pixels"
    assert crawl({"a": Fetched(out.getvalue())}, max_pixels=70_000_000)[0]["status"] == "ok"
