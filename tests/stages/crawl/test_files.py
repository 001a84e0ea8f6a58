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
from stages.crawl.files import FilesCrawl
from stages.stage import Fetched


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
    checked = TABLES["images"].check(table.append_column("inputs", pa.array([b"8 bytes."] * len(table), pa.binary(8))), "test")
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
    answers = {"a": Fetched(b""), "b": Fetched(b"<html>"), "c": Fetched(bomb), "d": Fetched(jpeg + bytes(5000)), "e": Fetched(jpeg)}
    rows = crawl(answers, max_bytes=len(jpeg) + 100)
    assert [row["reason"] for row in rows] == ["empty", "not_an_image", "too_many_pixels", "too_large", None]
    assert [row["status"] for row in rows] == ["failed"] * 4 + ["ok"]
    for row, data in zip(rows[:4], (answer.data or b"" for answer in answers.values()), strict=False):
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
        ("failed", "http_404", "Not Found"), ("filtered", "robots", None),
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
