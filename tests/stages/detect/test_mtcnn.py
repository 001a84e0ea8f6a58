"""MTCNN: the rules between its networks, and facenet-pytorch's own boxes with the real weights."""

import csv
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest
import torch
from pydantic import ValidationError

from schemas import TABLES
from stages.detect import mtcnn
from stages.detect.mtcnn import (
    MtcnnDetect,
    cuts,
    proposals,
    pyramid,
    regress,
    square,
    strips,
    suppress_inner,
)
from stages.networks.mtcnn import OutputNet, ProposalNet, RefinementNet
from stages.pictures import decode
from stages.torch_session import BadCheckpoint
from stages.weights import WeightFiles
from tests.stages.detect.running import run
from tests.stages.networks.filled import filled

# The rules


def test_the_pyramid_goes_from_the_smallest_face_to_a_level_that_is_smaller_than_what_is_seen() -> (
    None
):
    assert list(pyramid(250, 300, 20, 0.709)) == pytest.approx(
        [0.6 * 0.709**i for i in range(8)]
    )  # 150 to 13.5 pixels
    assert list(pyramid(20, 20_000, 20, 0.709)) == [0.6]
    assert list(pyramid(19, 20_000, 20, 0.709)) == []
    assert next(pyramid(1000, 1000, 40, 0.5)) == 0.3


def test_proposals_are_whole_pixels_of_the_picture_counted_from_one() -> None:
    probability = np.zeros((3, 4), np.float32)
    probability[2, 1], probability[0, 0] = 0.75, 0.6
    shift = np.arange(48, dtype=np.float32).reshape(4, 3, 4)
    rows = proposals(probability, shift, 0.6, 0.6)
    assert rows[:, :5].tolist() == [[1, 1, 20, 20, np.float32(0.6)], [5, 8, 23, 26, 0.75]]
    assert rows[1, 5:].tolist() == [9, 21, 33, 45]


def test_of_too_many_proposals_the_best_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mtcnn, "_MOST_PROPOSALS", 2)
    rows = proposals(
        np.array([[0.7, 0.9, 0.8, 0.7]], np.float32), np.zeros((4, 1, 4), np.float32), 1.0, 0.5
    )
    assert rows[:, 4] == pytest.approx([0.9, 0.8])


def test_boxes_are_moved_by_extents_that_count_both_ends_and_squared_about_their_centre() -> None:
    box = np.array([[11, 21, 20, 40]], np.float32)
    assert regress(box, np.array([[0.1, -0.1, 0.5, 0.2]], np.float32)).tolist() == [
        [12, 19, 25, 44]
    ]
    assert square(box).tolist() == [[6, 21, 25, 40]]
    assert square(box[:0]).shape == (0, 4)


def test_cuts_end_at_the_edge_of_the_picture_and_are_empty_outside() -> None:
    boxes = np.array(
        [
            [1, 1, 10, 10],
            [-5.9, 0, 12.9, 30.2],
            [90, 40, 200, 70],
            [101, 1, 120, 10],
            [-20, -20, 0.9, 5],
        ],
        np.float32,
    )
    found = cuts(boxes, 50, 100)
    assert found[:3].tolist() == [[0, 0, 10, 10], [0, 0, 12, 30], [89, 39, 100, 50]]
    assert ((found[3:, 2:] <= found[3:, :2]).any(axis=1)).all()


def test_a_box_within_another_is_the_same_face_and_of_equals_the_later_stays() -> None:
    boxes = np.array(
        [[0, 0, 99, 99], [10, 10, 39, 39], [60, 0, 159, 99], [0, 0, 99, 99]], np.float32
    )
    scores = np.array([1.0, 0.9, 0.8, 1.0], np.float32)
    assert suppress_inner(boxes, scores, 0.7).tolist() == [3, 2]
    assert suppress_inner(boxes[:0], scores[:0], 0.7).tolist() == []


@pytest.mark.parametrize("height", [13, 14, 33, 60])
@pytest.mark.parametrize("most", [1, 300, 800, 10**6])
def test_strips_join_into_what_the_whole_gives(height: int, most: int) -> None:
    """Else large images would lose faces where they are cut, or see them twice."""
    network = ProposalNet().requires_grad_(False)
    network.load_state_dict(filled(network.state_dict()))
    level = torch.rand((1, 3, height, 37), generator=torch.Generator().manual_seed(height))
    parts = [network(level[:, :, start:end]) for start, end in strips(height, 37, most)]
    for whole, *cut in zip(network(level), *parts, strict=True):
        assert torch.allclose(torch.cat(cut, dim=-2), whole, atol=1e-6)
    assert len(parts) == 1 if most == 10**6 else len(parts) > 1 or height < 15


# With weights made up by a formula: what must hold for any


class Made(WeightFiles):
    """A models directory with three checkpoints in facenet-pytorch's layout."""

    def __init__(self, top: Path) -> None:
        super().__init__(str(top))
        self.top = top
        for name, network in (
            ("mtcnn_pnet", ProposalNet()),
            ("mtcnn_rnet", RefinementNet()),
            ("mtcnn_onet", OutputNet()),
        ):
            state = filled(network.state_dict())
            for key in state:
                if key.startswith(
                    ("conv4_", "dense5_", "dense6_")
                ):  # undecided networks let much through
                    state[key] = state[key] / 20
            torch.save(state, self.path(name))

    def path(self, name: str) -> str:
        return str(self.top / f"{name}.pt")

    def folder(self, name: str) -> str:
        return str(self.top)


def unusual() -> dict[str, np.ndarray]:
    """Images that no photographer took, read-only as the pipeline's are."""
    noise = np.random.default_rng(0).integers(0, 256, (50, 20_000, 3), dtype=np.uint8)
    black = np.zeros((300, 400, 3), np.uint8)
    made = {
        "dot": noise[:1, :1],
        "wide": noise,
        "tall": noise.transpose(1, 0, 2),
        "line": noise[:1],
        "black": black,
    }
    for rgb in made.values():
        rgb.setflags(write=False)
    return made


@pytest.mark.slow
def test_unusual_pictures_have_a_row_whatever_the_networks_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Networks of nonsense propose boxes everywhere, also outside of the image."""
    monkeypatch.setattr(mtcnn, "_MOST_PROPOSALS", 40)
    stage = MtcnnDetect({"thresholds": (0.4, 0.4, 0.4)})
    stage.setup(Made(tmp_path))
    pictures = unusual()
    table = run(stage, pictures)
    TABLES["faces"].check(
        table.append_column("inputs", pa.array([b"8 bytes."] * len(table), pa.binary(8))), "test"
    )
    assert list(dict.fromkeys(table["image_id"].to_pylist())) == list(pictures)
    assert len(table) > len(pictures)  # the test would say nothing if nothing got through
    assert table.equals(
        pa.concat_tables([run(stage, {name: rgb}) for name, rgb in pictures.items()])
    )


def test_candidates_outside_of_the_picture_are_dropped_with_their_rows(tmp_path: Path) -> None:
    stage = MtcnnDetect({"batch": 2})
    stage.setup(Made(tmp_path))
    pixels = torch.arange(3 * 60 * 80, dtype=torch.float32).reshape(1, 3, 60, 80) % 251
    boxes = np.array(
        [[1, 1, 30, 30], [200, 1, 230, 30], [20, 20, 50, 50], [10, 5, 70, 55]], np.float32
    )
    kept, (probability, shift) = stage._look(stage._refine, 24, pixels, boxes)
    assert kept.tolist() == boxes[[0, 2, 3]].tolist()
    assert probability.shape == (3,)
    for i in range(3):  # alone, in another place of another batch
        alone = stage._look(stage._refine, 24, pixels, kept[i : i + 1])[1]
        assert np.allclose(alone[0], probability[i], atol=1e-6) and np.allclose(
            alone[1], shift[i], atol=1e-5
        )
    nothing, answers = stage._look(stage._refine, 24, pixels, boxes[1:2])
    assert nothing.shape == (0, 4) and [answer.shape for answer in answers] == [(0,), (0, 4)]


def test_the_weights_of_another_network_are_refused_by_name(tmp_path: Path) -> None:
    files = Made(tmp_path)
    Path(files.path("mtcnn_rnet")).write_bytes(Path(files.path("mtcnn_onet")).read_bytes())
    with pytest.raises(
        BadCheckpoint, match=r"mtcnn_rnet\.pt: lacks dense4\.bias.*has unknown conv4\.bias"
    ):
        MtcnnDetect().setup(files)


@pytest.mark.parametrize(
    "params",
    [
        {"thresholds": [0.6, 0.7]},
        {"thresholds": [0.6, 0.7, 70]},
        {"factor": 1},
        {"min_face_size": 0},
    ],
)
def test_settings_that_would_find_nothing_or_never_end_are_refused(params: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(params))):
        MtcnnDetect(params)


# With the real weights


@pytest.fixture(scope="module")
def stage(models_dir: Path) -> MtcnnDetect:
    made = MtcnnDetect()
    made.setup(WeightFiles(str(models_dir)))
    return made


ASTRONAUT = [
    (
        [181.05, 62.16, 267.75, 172.05],
        1.0,
        [205.0, 101.7, 246.8, 103.7, 224.7, 129.0, 201.7, 139.2, 245.3, 141.9],
    )
]
T1 = [
    (
        [908.18, 61.96, 1013.65, 201.54],
        0.99999,
        [919.2, 119.1, 954.6, 112.0, 926.2, 151.1, 933.2, 176.5, 961.5, 170.0],
    ),
    (
        [54.62, 262.77, 165.26, 397.31],
        0.99994,
        [84.1, 330.3, 128.1, 303.5, 118.4, 337.7, 114.5, 373.2, 149.7, 349.0],
    ),
    (
        [742.99, 346.03, 843.51, 473.85],
        0.99989,
        [761.2, 397.2, 803.4, 401.4, 773.6, 431.8, 761.6, 439.0, 808.7, 442.4],
    ),
    (
        [268.18, 149.75, 375.05, 272.43],
        0.99988,
        [292.5, 209.1, 323.1, 187.4, 311.4, 224.2, 315.1, 244.3, 344.2, 228.2],
    ),
    (
        [464.97, 261.78, 570.38, 405.17],
        0.99964,
        [492.8, 319.0, 543.4, 331.6, 510.6, 362.9, 482.5, 369.6, 529.9, 380.5],
    ),
    (
        [1134.53, 276.29, 1227.67, 395.42],
        0.97547,
        [1150.1, 326.3, 1193.7, 324.6, 1164.1, 349.5, 1155.3, 367.6, 1196.5, 365.4],
    ),
    (
        [690.72, 539.34, 741.39, 599.7],
        0.86943,
        [719.9, 563.5, 735.5, 563.2, 734.1, 575.9, 720.0, 583.3, 732.7, 582.4],
    ),
    (
        [1093.9, 691.59, 1135.36, 741.5],
        0.8632,
        [1107.9, 709.9, 1128.1, 709.1, 1119.7, 721.4, 1109.0, 731.5, 1127.1, 731.4],
    ),
]
"""What MTCNN(keep_all=True) of facenet-pytorch 2.6.0 finds: box, probability, points; two of these
are no faces.
"""


@pytest.mark.slow
def test_boxes_points_and_scores_are_those_of_facenet_pytorch(
    stage: MtcnnDetect, astronaut: bytes, t1: Path
) -> None:
    for data, expected in ((astronaut, ASTRONAUT), (t1.read_bytes(), T1)):
        boxes, points, scores = stage.detect(decode(data))
        order = np.argsort(-scores, kind="stable")
        assert len(boxes) == len(expected)
        assert np.abs(boxes[order] - [box for box, _, _ in expected]).max() < 0.02
        assert np.abs(points[order].reshape(-1, 10) - [at for _, _, at in expected]).max() < 0.1
        assert np.abs(scores[order] - [score for _, score, _ in expected]).max() < 1e-4


@pytest.mark.slow
def test_a_picture_has_the_same_rows_beside_others(
    stage: MtcnnDetect, astronaut: bytes, t1: Path
) -> None:
    pictures = {
        "many": decode(t1.read_bytes()),
        "none": np.zeros((40, 60, 3), np.uint8),
        "one": decode(astronaut),
    }
    together = run(stage, pictures)
    assert together.equals(
        pa.concat_tables(
            [run(stage, {name: rgb}) for name, rgb in reversed(pictures.items())][::-1]
        )
    )
    rows = together.to_pylist()
    assert [row["image_id"] for row in rows] == ["many"] * 8 + ["none", "one"]
    assert rows[8]["reason"] == "no_face"
    assert rows[9]["landmark_scheme"] == "arcface5"


def test_the_least_side_leaves_out_small_faces(models_dir: Path, t1: Path) -> None:
    made = MtcnnDetect({"min_side": 60})
    made.setup(WeightFiles(str(models_dir)))
    assert len(run(made, {"many": decode(t1.read_bytes())})) == 6


@pytest.mark.slow
def test_faces_are_found_in_grey_and_in_a_wallpaper_of_them(
    stage: MtcnnDetect, photos: Path
) -> None:
    face = decode((photos / "ariel_sharon" / "001.jpg").read_bytes())
    grey = np.repeat(face.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)
    box = stage.detect(face)[0]
    assert np.abs(stage.detect(grey)[0] - box).max() < 12
    boxes = stage.detect(np.tile(face, (5, 10, 1)))[0]
    assert len(boxes) == 50
    offset = np.round((boxes - box) / 250)
    assert len({tuple(at) for at in offset.tolist()}) == 50
    assert np.abs(boxes - box - offset * 250).max() < 12


def test_nothing_is_found_where_nothing_is(stage: MtcnnDetect) -> None:
    assert run(stage, unusual())["reason"].to_pylist() == ["no_face"] * 5


def test_a_picture_beyond_the_limit_has_boxes_in_its_own_pixels(
    stage: MtcnnDetect, models_dir: Path, astronaut: bytes
) -> None:
    rgb = decode(astronaut)
    box, points, _ = stage.detect(rgb)
    bounded = MtcnnDetect({"max_pixels": rgb.shape[0] * rgb.shape[1] // 2})
    bounded.setup(WeightFiles(str(models_dir)))
    wide = cv2.resize(rgb, (1024, 512), interpolation=cv2.INTER_CUBIC)
    small = cv2.resize(wide, (512, 256), interpolation=cv2.INTER_AREA)
    found, expected = bounded.detect(wide), stage.detect(small)
    assert len(found[0]) == len(expected[0]) > 0
    assert np.abs(found[0] - expected[0] * 2).max() < 1
    assert np.abs(found[1] - expected[1] * 2).max() < 1
    assert (
        np.abs(bounded.detect(rgb)[0] - box).max() < 10
        and np.abs(bounded.detect(rgb)[1] - points).max() < 5
    )


@pytest.mark.slow
def test_nearly_every_photograph_of_a_person_has_a_face_with_points_where_they_belong(
    stage: MtcnnDetect, photos: Path
) -> None:
    with (photos / "LABELS.csv").open(newline="", encoding="utf-8") as file:
        names = [row["file"] for row in csv.DictReader(file)][::7]
    assert len(names) > 130
    found = 0
    upright = 0
    for name in names:
        boxes, points, _ = stage.detect(decode((photos / name).read_bytes()))
        if not len(boxes):
            continue
        found += 1
        largest = int(np.argmax((boxes[:, 2:] - boxes[:, :2]).prod(axis=1)))
        left_eye, right_eye, nose, left_mouth, right_mouth = points[largest]
        upright += bool(
            left_eye[0] < right_eye[0]
            and left_mouth[0] < right_mouth[0]
            and max(left_eye[1], right_eye[1]) < min(left_mouth[1], right_mouth[1])
            and (left_eye[1] + right_eye[1]) / 2 < nose[1] < (left_mouth[1] + right_mouth[1]) / 2
        )
    assert found >= 0.99 * len(names)
    assert upright >= 0.97 * found
