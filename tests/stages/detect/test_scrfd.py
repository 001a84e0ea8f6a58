"""SCRFD as a stage: with a made-up network everywhere, with real weights where they are."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pyarrow as pa
import pytest
from pydantic import ValidationError

from stages.detect.scrfd import ScrfdDetect, decode_outputs
from stages.detect.scrfd_export import Raw
from stages.pictures import decode
from stages.weights import WeightFiles
from tests.stages.detect.running import assert_same, run
from tests.stages.detect.tiny_scrfd import Layout, bright, write
from tests.stages.one_file import OneFile


def raw(shape: tuple[int, int]) -> list[Raw]:
    """A network that sees one face at stride 16, row 1, column 2 of a canvas."""
    places = [(shape[0] // stride) * (shape[1] // stride) for stride in (8, 16, 32)]
    zeros = [np.zeros((count, 2, 15), np.float32) for count in places]
    made = [Raw(each[:, :, 0], each[:, :, 1:5], each[:, :, 5:]) for each in zeros]
    at = 1 * (shape[1] // 16) + 2, 1  # the second anchor
    made[1].scores[at] = 0.8
    made[1].boxes[at] = (1, 0.5, 2, 3)
    made[1].points[at] = np.arange(10) / 10
    return made


def test_outputs_become_boxes_and_points_of_the_picture() -> None:
    boxes, points, scores = decode_outputs(raw((64, 96)), 96, 0.5, 0.5)
    assert boxes.tolist() == [[2 * (32 - 16), 2 * (16 - 8), 2 * (32 + 32), 2 * (16 + 48)]]
    assert points[0] / 2 == pytest.approx(
        np.array([32, 16]) + 16 * np.arange(10).reshape(5, 2) / 10
    )
    assert scores == pytest.approx([0.8])
    assert [part.shape for part in decode_outputs(raw((64, 96)), 96, 1, 0.9)] == [
        (0, 4),
        (0, 5, 2),
        (0,),
    ]


def made_up(path: str, **params: Any) -> ScrfdDetect:
    """The stage on a file of no registered weights."""
    stage = ScrfdDetect({"min_side": 0, **params})
    stage.setup(OneFile(path))
    return stage


PICTURES = [
    bright(300, 200, (100, 50, 60)),
    bright(200, 300, (20, 200, 40), (120, 10, 70)),
    bright(64, 64),
    bright(1000, 500, (600, 100, 300)),
    bright(90, 90, (0, 0, 50)),
    bright(1500, 700, (200, 200, 150), (900, 300, 200)),
    bright(31, 500, (0, 250, 31)),
]


@pytest.mark.parametrize("layout", ["batched", "hidden", "flat"])
@pytest.mark.parametrize("size", [("h", "w"), (640, 640)])
def test_the_faces_of_a_picture_do_not_depend_on_its_batch(
    tmp_path: Path, layout: Layout, size: Any
) -> None:
    path = write(tmp_path / "x.onnx", layout, size=size)
    stage = made_up(path, batch=4)
    together = stage.detect_all(PICTURES)
    assert [len(faces[0]) > 0 for faces in together] == [True, True, False, True, True, True, True]
    assert_same([stage.detect(rgb) for rgb in PICTURES], together)
    for shift in (1, 3):
        turned = stage.detect_all(PICTURES[shift:] + PICTURES[:shift])
        assert_same(turned[-shift:] + turned[:-shift], together)
    assert stage.detect_all([]) == []
    # On a square canvas there is more black around an image than on one of its own shape, and
    # nothing else.
    for alone, faces in zip(made_up(path).detect_all(PICTURES), together, strict=True):
        assert len(alone[0]) == len(faces[0])
        assert all(np.allclose(a, b, atol=1e-3) for a, b in zip(alone, faces, strict=True))


def test_the_network_sees_batches_of_one_shape_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On chips whose kernels depend on the batch, this is what makes a face depend on its image
    alone.
    """
    stage = made_up(write(tmp_path / "x.onnx"), batch=3, scales=[100, 64])
    seen: list[tuple[int, ...]] = []
    forward = type(stage._export).forward

    def watched(export: Any, blob: np.ndarray) -> Any:
        seen.append(blob.shape)
        return forward(export, blob)

    monkeypatch.setattr(type(stage._export), "forward", watched)
    for count in (1, 3, 4):
        assert len(stage.detect_all(PICTURES[:count])) == count
    assert seen == [(3, 3, 128, 128), (3, 3, 64, 64)] * 4


def test_what_fills_up_a_batch_is_black(tmp_path: Path) -> None:
    stage = made_up(write(tmp_path / "x.onnx"), batch=4, weights="scrfd_500m_kps")
    first, *others = stage._forward([np.zeros((64, 64, 3), np.uint8)])
    assert all(
        np.array_equal(a.boxes, b.boxes)
        for other in others
        for a, b in zip(first, other, strict=True)
    )


def test_published_names_are_known_and_others_are_refused_with_the_nearest() -> None:
    for name in ("scrfd_10g_bnkps", "scrfd_500m_kps"):
        assert ScrfdDetect({"weights": name}).weights == (name,)
    with pytest.raises(
        ValidationError,
        match="names no weights of kind detect/scrfd; did you mean 'scrfd_10g_bnkps'",
    ):
        ScrfdDetect({"weights": "scrfd_10g_bnkp"})
    with pytest.raises(ValidationError, match="greater than or equal to 32"):
        ScrfdDetect({"scales": [640, 0]})


@pytest.fixture(scope="module", params=["scrfd_2.5g_bnkps", "scrfd_500m_kps"])
def stage(request: pytest.FixtureRequest, models_dir: Path) -> ScrfdDetect:
    made = ScrfdDetect({"weights": request.param})
    made.setup(WeightFiles(str(models_dir)))
    return made


def test_real_faces_with_points_in_arcface_order(
    stage: ScrfdDetect, astronaut: bytes, t1: Path
) -> None:
    pictures = {
        "many": decode(t1.read_bytes()),
        "none": np.zeros((40, 60, 3), np.uint8),
        "one": decode(astronaut),
    }
    together = run(stage, pictures)
    assert together.equals(
        pa.concat_tables([run(stage, {name: rgb}) for name, rgb in pictures.items()])
    )
    rows = together.to_pylist()
    assert [row["image_id"] for row in rows] == ["many"] * 6 + ["none", "one"]
    assert rows[6]["reason"] == "no_face"
    left_eye, right_eye, nose, left_mouth, right_mouth = np.array(rows[7]["landmarks"]).reshape(
        5, 2
    )
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_mouth[0] < right_mouth[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])
    assert np.abs(np.array(rows[7]["box"]) - (175, 76, 265, 166)).max() < 30


def test_a_face_that_fills_the_picture_is_found_by_the_second_scale(
    models_dir: Path, photos: Path
) -> None:
    rgb = decode((photos / "john_schneider" / "001.jpg").read_bytes())
    found = {}
    for scales in ((640,), (640, 320)):
        made = ScrfdDetect({"scales": scales})
        made.setup(WeightFiles(str(models_dir)))
        found[scales] = len(made.detect(rgb)[0])
    assert found == {(640,): 0, (640, 320): 1}


def test_boxes_are_in_pixels_of_the_picture(stage: ScrfdDetect, astronaut: bytes) -> None:
    rgb = decode(astronaut)
    box, points, _ = stage.detect(rgb)
    wide = np.zeros((1024, 2048, 3), np.uint8)
    wide[:, 1024:] = cv2.resize(rgb, (1024, 1024), interpolation=cv2.INTER_CUBIC)
    moved_box, moved_points, _ = stage.detect(wide)
    assert np.abs(moved_box - (box * 2 + [1024, 0] * 2)).max() < 20  # of 200
    assert np.abs(moved_points - (points * 2 + [1024, 0])).max() < 8


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 4])
def test_real_faces_do_not_depend_on_their_batch(
    models_dir: Path, tmp_path: Path, t1: Path, astronaut: bytes, batch: int
) -> None:
    """The published file declares a batch of one; freed of that, it finds the same faces on square
    canvases.
    """
    model = onnx.load(str(models_dir / "detect" / "scrfd_2.5g_bnkps.onnx"))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"
    onnx.save(model, str(tmp_path / "freed.onnx"))
    many, one = decode(t1.read_bytes()), decode(astronaut)
    pictures = [many, one, np.zeros((100, 100, 3), np.uint8), one[:300], many[:, ::-1]]
    stage = made_up(str(tmp_path / "freed.onnx"), batch=batch, weights="scrfd_2.5g_bnkps")
    together = stage.detect_all(pictures)
    assert [len(faces[0]) for faces in together] == [6, 1, 0, 1, 6]
    assert_same([stage.detect(rgb) for rgb in pictures], together)


def test_pictures_of_odd_shapes_are_searched_and_answered(
    stage: ScrfdDetect, astronaut: bytes
) -> None:
    face = decode(astronaut)[40:200, 140:300]
    thin = np.zeros((50, 20_000, 3), np.uint8)
    thin[:, 9_000:9_050] = cv2.resize(face, (50, 50), interpolation=cv2.INTER_AREA)
    odd = {
        "dot": face[:1, :1],
        "row": face[:1],
        "column": face[:, :1],
        "thin": thin,
        "tall": thin.swapaxes(0, 1),
    }
    odd["black"] = np.zeros_like(face)
    rows = run(stage, odd).to_pylist()
    assert [(row["image_id"], row["reason"]) for row in rows] == [(name, "no_face") for name in odd]


def test_fifty_faces_are_found_one_by_one(stage: ScrfdDetect, astronaut: bytes) -> None:
    face = cv2.resize(decode(astronaut)[60:180, 160:280], (128, 128), interpolation=cv2.INTER_AREA)
    rows = run(stage, {"tiles": np.tile(face, (5, 10, 1))}).to_pylist()
    assert [row["faces_in_image"] for row in rows] == [50] * 50
    centres = np.array(
        [
            ((row["box"][0] + row["box"][2]) // 256, (row["box"][1] + row["box"][3]) // 256)
            for row in rows
        ]
    )
    assert len({tuple(centre) for centre in centres.tolist()}) == 50
    assert sum(row["subject"] for row in rows) == 1
