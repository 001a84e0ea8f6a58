"""Person masks: they must follow the person, say where they lie, and be the same bytes every
time.
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest

from schemas import TABLES
from stages.pictures import decode
from stages.segment.grabcut import CLASSES, GrabCutSegment, person_mask, window_around
from stages.stage import Picture

NO_SERVICES: Any = None  # this stage asks nothing of the outside
BOX = [175.0, 76.0, 265.0, 166.0]


@pytest.fixture(scope="module")
def portrait(astronaut: bytes) -> np.ndarray:
    """(512, 512, 3) uint8."""
    return decode(astronaut)


def rows_of(boxes: list[list[float]], images: list[str]) -> pa.Table:
    return pa.table(
        {
            "identity_id": ["p"] * len(boxes),
            "image_id": images,
            "face_id": [f"{image}-{box[0]:.0f}" for image, box in zip(images, boxes, strict=True)],
            "faces.box": pa.array(boxes, pa.list_(pa.float32())),
            "images.sha256": ["-"] * len(boxes),
        }
    )


def segment(
    boxes: list[list[float]], pictures: dict[str, np.ndarray], images: list[str], **params: Any
) -> list[dict[str, Any]]:
    found = GrabCutSegment(params).run(
        rows_of(boxes, images),
        {name: Picture(name, rgb) for name, rgb in pictures.items()},
        NO_SERVICES,
    )
    full = found.append_column("inputs", pa.array([b"12345678"] * len(boxes), pa.binary(8)))
    TABLES["masks"].check(full.select(TABLES["masks"].names), "test")
    rows: list[dict[str, Any]] = found.to_pylist()
    return rows


def unpacked(row: dict[str, Any]) -> np.ndarray:
    mask = cv2.imdecode(np.frombuffer(row["mask"], np.uint8), cv2.IMREAD_UNCHANGED)
    assert mask is not None
    return mask


def drawn_person(size: int = 400) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """An image of a head and shoulders before a noisy wall, its true mask, and the face box."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:size, 0:size] / size
    head = ((x - 0.5) / 0.11) ** 2 + ((y - 0.35) / 0.15) ** 2 < 1
    body = (y > 0.49) & (abs(x - 0.5) < 0.07 + np.clip((y - 0.52) * 1.2, 0, 0.2))
    picture = np.full((size, size, 3), (60, 110, 70), dtype=np.float64)
    picture[body], picture[head] = (150, 40, 40), (215, 170, 140)
    picture = np.clip(picture + rng.normal(0, 9, picture.shape), 0, 255).astype(np.uint8)
    return picture, head | body, [0.41 * size, 0.27 * size, 0.59 * size, 0.47 * size]


def test_a_known_outline_is_found() -> None:
    picture, truth, box = drawn_person()
    row = segment([box], {"one": picture}, ["one"])[0]
    x1, y1, x2, y2 = map(int, row["window"])
    mask = unpacked(row)
    assert (
        mask.shape == (y2 - y1, x2 - x1)
        and mask.dtype == np.uint8
        and set(np.unique(mask)) <= {0, 1}
    )
    assert row["classes"] == CLASSES == ["background", "person"]
    inside = truth[y1:y2, x1:x2]
    overlap = (inside & (mask == 1)).sum() / (inside | (mask == 1)).sum()
    assert overlap > 0.93
    assert row["coverage"] == pytest.approx(mask.mean(), abs=1e-6)


def test_a_real_portrait(portrait: np.ndarray) -> None:
    """Face, hair and suit are the person; the flag at the left and the shuttle at the right are
    not.
    """
    row = segment([BOX], {"one": portrait}, ["one"])[0]
    x1, y1, *_ = map(int, row["window"])
    mask = unpacked(row)

    def share(left: int, top: int, right: int, bottom: int) -> float:
        return float(mask[top - y1 : bottom - y1, left - x1 : right - x1].mean())

    assert share(190, 85, 250, 160) == 1
    assert share(170, 220, 280, 300) > 0.9
    assert share(60, 10, 110, 120) < 0.1 and share(320, 10, 380, 120) < 0.1


@pytest.mark.slow
def test_the_same_bytes_in_any_order_and_on_any_threads(portrait: np.ndarray) -> None:
    picture, _, box = drawn_person()
    pictures = {"a": portrait, "b": picture, "c": portrait[:, ::-1].copy()}
    boxes = {"a": BOX, "b": box, "c": [512 - BOX[2], BOX[1], 512 - BOX[0], BOX[3]]}
    first = {
        row["image_id"]: row["mask"]
        for row in segment([boxes[name] for name in "abc"], pictures, list("abc"))
    }
    again = {
        row["image_id"]: row["mask"]
        for row in segment([boxes[name] for name in "cab"], pictures, list("cab"))
    }
    assert first == again
    threads = cv2.getNumThreads()
    try:
        cv2.setNumThreads(1)
        assert segment([BOX], pictures, ["a"])[0]["mask"] == first["a"]
    finally:
        cv2.setNumThreads(threads)


def test_large_pictures_cost_no_more_and_keep_their_size() -> None:
    picture, truth, box = drawn_person()
    large = cv2.resize(picture, (2000, 2000), interpolation=cv2.INTER_CUBIC)
    row = segment([[value * 5 for value in box]], {"one": large}, ["one"])[0]
    x1, y1, x2, y2 = map(int, row["window"])
    assert unpacked(row).shape == (y2 - y1, x2 - x1) and y2 - y1 > 1000
    inside = cv2.resize(truth.astype(np.uint8), (2000, 2000), interpolation=cv2.INTER_NEAREST)[
        y1:y2, x1:x2
    ]
    assert (inside == unpacked(row)).mean() > 0.95


def test_no_person_is_a_failed_row_and_hurts_no_neighbour() -> None:
    picture, _, box = drawn_person()
    flat = np.full((300, 300, 3), 128, dtype=np.uint8)
    boxes = [[100.0, 100.0, 150.0, 150.0], box, [900.0, 900.0, 950.0, 950.0]]
    rows = segment(boxes, {"flat": flat, "good": picture}, ["flat", "good", "good"])
    assert [row["status"] for row in rows] == ["failed", "ok", "failed"]
    assert {row["reason"] for row in rows} == {"no_foreground", None}
    assert rows[0]["mask"] is None and rows[0]["detail"] and rows[2]["detail"]


def test_a_crop_that_its_face_fills_is_all_person() -> None:
    picture, _, box = drawn_person()
    x1, y1, x2, y2 = map(int, box)
    row = segment(
        [[-10.0, -10.0, x2 - x1 + 10.0, y2 - y1 + 10.0]], {"one": picture[y1:y2, x1:x2]}, ["one"]
    )[0]
    assert row["status"] == "ok" and row["coverage"] > 0.95


def test_the_window_stays_in_the_picture() -> None:
    wide, narrow = (
        GrabCutSegment().params,
        GrabCutSegment({"margin_x": 1, "margin_top": 0.5, "margin_bottom": 2}).params,
    )
    assert window_around([10, 10, 60, 60], (100, 80), wide) == [0, 0, 100, 80]
    assert window_around([400, 400, 500, 500], (2000, 2000), narrow) == [300, 350, 600, 700]


def test_a_face_at_the_rim() -> None:
    """A box that reaches out of the image, as detectors give them, is cut and not refused."""
    picture, truth, box = drawn_person()
    cut = picture[:, 180:]
    mask = person_mask(cut, np.array(box) - (180, 0, 180, 0), 256, 3)
    assert mask is not None and (mask == truth[:, 180:]).mean() > 0.9


@pytest.mark.slow
def test_photographs(photos: Path) -> None:
    """Every one of some press portraits gives a mask with the face in it and without the upper
    corners.
    """
    files = [photos / "ariel_sharon" / f"{at:03d}.jpg" for at in range(1, 7)]
    pictures = {file.name: decode(file.read_bytes()) for file in files}
    box = [75.0, 75.0, 175.0, 185.0]  # LFW images are centred on the face
    for row in segment([box] * len(files), pictures, list(pictures)):
        assert row["status"] == "ok"
        mask = unpacked(row)
        x1, y1, *_ = map(int, row["window"])
        assert mask[100 - y1 : 150 - y1, 105 - x1 : 145 - x1].mean() > 0.95
        assert mask[:15, :15].mean() < 0.5 and mask[:15, -15:].mean() < 0.5
