"""RetinaFace as a stage: official layouts with made-up values everywhere, real weights where they
are.
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest
import torch
from pydantic import ValidationError

from stages.detect.retinaface import RetinaFaceDetect
from stages.detect.scrfd import ScrfdDetect
from stages.networks.retinaface import Backbone, RetinaFace
from stages.pictures import decode
from stages.stage import NoDevice
from stages.torch_session import BadCheckpoint
from stages.weights import WEIGHTS, WeightFiles
from tests.stages.detect.running import assert_same, run
from tests.stages.networks.filled import filled
from tests.stages.one_file import OneFile


def checkpoint(path: Path, backbone: Backbone = "mobilenet025", prefix: str = "module.") -> str:
    """A file in the official layout with values of no use."""
    state = filled(RetinaFace(backbone).state_dict())
    torch.save({prefix + name: value for name, value in state.items()}, path)
    return str(path)


def made_up(path: str, **params: Any) -> RetinaFaceDetect:
    """The stage on a file of no registered weights."""
    stage = RetinaFaceDetect({"weights": "retinaface_mobilenet025", "min_side": 0, **params})
    stage.setup(OneFile(path))
    return stage


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape[0]).integers(0, 256, (*shape, 3), dtype=np.uint8)


PICTURES = [noise(60, 90), noise(90, 60), noise(64, 64), noise(200, 31), noise(33, 300)]


@pytest.mark.parametrize(
    ("weights", "backbone", "prefix"),
    [
        ("retinaface_r50", "resnet50", "module."),
        ("retinaface_r50_pytorch", "resnet50", ""),
        ("retinaface_mobilenet025", "mobilenet025", "module."),
        ("retinaface_mobilenet025_1mb", "mobilenet025", ""),
    ],
)
def test_official_layouts_load(
    tmp_path: Path, weights: str, backbone: Backbone, prefix: str
) -> None:
    stage = made_up(
        checkpoint(tmp_path / "x.pth", backbone, prefix),
        weights=weights,
        scales=[64],
        threshold=0.01,
    )
    boxes, points, scores = stage.detect(PICTURES[0])
    assert len(boxes) == len(points) == len(scores) > 0
    assert np.isfinite(boxes).all() and np.isfinite(points).all()
    assert ((scores >= 0.01) & (scores <= 1)).all()


def test_another_networks_file_is_refused_by_its_first_keys(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    state = filled(RetinaFace("mobilenet025").state_dict())
    torch.save({**state, "body.fc.weight": torch.zeros(3)}, path)
    with pytest.raises(BadCheckpoint, match=r"x.pth: has unknown body.fc.weight \(1\)"):
        made_up(str(path))
    state.pop("fpn.merge2.0.weight")
    torch.save(state, path)
    with pytest.raises(BadCheckpoint, match=r"lacks fpn.merge2.0.weight \(1\)"):
        made_up(str(path))
    torch.save(RetinaFace("resnet50").fpn.state_dict(), path)
    with pytest.raises(
        BadCheckpoint, match=r"lacks BboxHead.0.conv1x1.bias, .* \(\d+\); has unknown merge1"
    ):
        made_up(str(path))
    path.write_bytes(b"no checkpoint")
    with pytest.raises(BadCheckpoint, match="not a checkpoint that can be read"):
        made_up(str(path))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_told(tmp_path: Path) -> None:
    stage = RetinaFaceDetect({"weights": "retinaface_mobilenet025"})
    stage.device = "cuda"
    path = checkpoint(tmp_path / "x.pth")
    with pytest.raises(NoDevice, match="torch sees none"):
        stage.setup(OneFile(path))


def test_wrong_parameters_are_refused() -> None:
    with pytest.raises(ValidationError, match="did you mean 'retinaface_r50'"):
        RetinaFaceDetect({"weights": "retinaface_r5"})
    wrongs: list[dict[str, Any]] = [
        {"scales": [640, 0]},
        {"scales": []},
        {"batch": 0},
        {"precision": "float16"},
    ]
    for wrong in wrongs:
        with pytest.raises(ValidationError):
            RetinaFaceDetect(wrong)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ("retinaface_mobilenet025", (30 - 104, 20 - 117, 10 - 123)),
        (
            "retinaface_r50_pytorch",
            ((10 / 255 - 0.485) / 0.229, (20 / 255 - 0.456) / 0.224, (30 / 255 - 0.406) / 0.225),
        ),
    ],
)
def test_the_network_sees_colours_as_in_training_and_grey_around_them(
    weights: str, expected: tuple[float, ...]
) -> None:
    stage = RetinaFaceDetect({"weights": weights, "scales": [64]})
    network = RetinaFace("mobilenet025").eval()
    stage.install(network, WEIGHTS[weights])
    seen: list[torch.Tensor] = []
    network.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    stage.detect(np.full((64, 50, 3), (10, 20, 30), np.uint8))
    assert seen[0].shape == (1, 3, 64, 64)
    assert seen[0][0, :, 5, 5].tolist() == pytest.approx(expected, abs=1e-5)
    assert seen[0][0, :, 5, 60].abs().max() < 0.01  # what training pads with: the mean colour


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_faces_of_a_picture_do_not_depend_on_its_batch(
    tmp_path: Path, batch: int, precision: str
) -> None:
    stage = made_up(
        checkpoint(tmp_path / "x.pth"),
        batch=batch,
        precision=precision,
        scales=[64, 32],
        threshold=0.5,
    )
    together = stage.detect_all(PICTURES)
    assert all(len(faces[0]) for faces in together)
    assert_same([stage.detect(rgb) for rgb in PICTURES], together)
    for shift in (1, 3):
        turned = stage.detect_all(PICTURES[shift:] + PICTURES[:shift])
        assert_same(turned[-shift:] + turned[:-shift], together)
    assert stage.detect_all([]) == []


def test_pictures_may_be_scaled_in_several_threads(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "x.pth")
    one, two = (made_up(path, batch=3, scales=[64, 32], threads=threads) for threads in (1, 2))
    torch.set_num_threads(1)  # of the network, that is, so that its last bits are the same
    assert two._pool is not None
    for rgb, prepared in zip(PICTURES, two._pool.map(two.prepare, PICTURES), strict=True):
        assert prepared.ratios == one.prepare(rgb).ratios
        assert all(
            np.array_equal(a, b)
            for a, b in zip(prepared.canvases, one.prepare(rgb).canvases, strict=True)
        )
    assert_same(two.detect_all(PICTURES), one.detect_all(PICTURES))


def test_the_network_sees_batches_of_one_shape_only(tmp_path: Path) -> None:
    """On chips whose kernels depend on the batch, this is what makes a face depend on its image
    alone.
    """
    stage = made_up(checkpoint(tmp_path / "x.pth"), batch=3, scales=[64, 100])
    seen: list[tuple[int, ...]] = []
    stage._network.register_forward_pre_hook(lambda module, args: seen.append(tuple(args[0].shape)))
    for count in (1, 3, 4):
        assert len(stage.detect_all(PICTURES[:count])) == count
    assert seen == [(3, 3, 128, 128), (3, 3, 64, 64)] * 4


def test_outputs_without_bounds_make_no_face(tmp_path: Path) -> None:
    """exp of a wild size is infinite; a row could not hold that."""
    state = filled(RetinaFace("mobilenet025").state_dict())
    state["BboxHead.0.conv1x1.bias"] += 1e6
    path = tmp_path / "x.pth"
    torch.save(state, path)
    stage = made_up(str(path), scales=[64], threshold=0.01)
    boxes, points, _ = stage.detect(PICTURES[0])
    assert len(boxes)
    assert np.isfinite(boxes).all() and np.isfinite(points).all()


@pytest.fixture(scope="module", params=["retinaface_mobilenet025", "retinaface_mobilenet025_1mb"])
def stage(request: pytest.FixtureRequest, models_dir: Path) -> RetinaFaceDetect:
    return real(models_dir, weights=request.param)


def real(models_dir: Path, **params: Any) -> RetinaFaceDetect:
    made = RetinaFaceDetect({"weights": "retinaface_mobilenet025", **params})
    made.setup(WeightFiles(str(models_dir)))
    return made


# fmt: off
GOLDEN = {
    "retinaface_mobilenet025": (
        (177.75581, 53.71216, 271.00583, 179.0425), 0.9989,
        (202.555, 102.075, 248.284, 104.033, 224.419, 128.76, 201.69, 140.395, 244.478, 142.075),
    ),
    "retinaface_mobilenet025_1mb": (
        (179.41547, 54.52834, 270.47778, 177.74223), 0.9997,
        (202.119, 101.248, 246.215, 102.277, 222.733, 128.478, 203.035, 141.32, 244.848, 142.42),
    ),
}
# fmt: on
"""The face of skimage's astronaut (512 x 512) by the authors' own code: network, `PriorBox`,
`decode`, `decode_landm` and `py_cpu_nms` of https://github.com/biubug6/Pytorch_Retinaface at
b984b4b and of biubug6/Face-Detector-1MB-with-landmark at 2b07565, as their `detect.py` calls them,
without scaling.
"""


def test_real_weights_see_what_their_authors_code_sees(
    stage: RetinaFaceDetect, models_dir: Path, astronaut: bytes
) -> None:
    made = real(models_dir, weights=stage.params.weights, scales=[512])
    [box], [points], [score] = made.detect(decode(astronaut))
    expected_box, expected_score, expected_points = GOLDEN[stage.params.weights]
    assert box == pytest.approx(expected_box, abs=2e-3)
    assert points.reshape(-1) == pytest.approx(expected_points, abs=2e-3)
    assert score == pytest.approx(expected_score, abs=1e-4)


def test_half_precision_moves_a_face_by_less_than_a_pixel(
    models_dir: Path, astronaut: bytes
) -> None:
    [box], [points], _ = real(models_dir).detect(decode(astronaut))
    [rough_box], [rough_points], _ = real(models_dir, precision="bfloat16").detect(
        decode(astronaut)
    )
    assert 0 < np.abs(box - rough_box).max() < 1.5
    assert 0 < np.abs(points - rough_points).max() < 1


@pytest.mark.parametrize("batch", [1, 4])
def test_real_faces_do_not_depend_on_their_neighbours(
    models_dir: Path, astronaut: bytes, t1: Path, batch: int
) -> None:
    pictures = {
        "many": decode(t1.read_bytes()),
        "none": np.zeros((40, 60, 3), np.uint8),
        "one": decode(astronaut),
    }
    made = real(models_dir, batch=batch)
    together = run(made, pictures)
    assert together.equals(
        pa.concat_tables([run(made, {name: rgb}) for name, rgb in pictures.items()])
    )
    rows = together.to_pylist()
    assert [row["image_id"] for row in rows] == ["many"] * 6 + ["none", "one"]
    assert rows[6]["reason"] == "no_face"
    assert np.abs(np.array(rows[7]["box"]) - (175, 76, 265, 166)).max() < 30


def test_the_five_points_are_in_arcface_order(
    stage: RetinaFaceDetect, models_dir: Path, photos: Path
) -> None:
    """A recogniser would get mirrored or turned crops; SCRFD's order is the one that its template
    is written for.
    """
    other = ScrfdDetect()
    other.setup(WeightFiles(str(models_dir)))
    for name in (
        "ariel_sharon/001.jpg",
        "serena_williams/001.jpg",
        "john_bolton/016.jpg",
        "virat_kohli/001.jpg",
    ):
        rgb = decode((photos / name).read_bytes())
        box, points = (part[0] for part in other.detect(rgb)[:2])
        boxes, found, _ = stage.detect(rgb)
        nearest = np.abs(boxes - box).max(axis=1).argmin()
        side = np.sqrt(np.prod(box[2:] - box[:2]))
        assert np.linalg.norm(found[nearest] - points, axis=1).max() < 0.1 * side, name
        left_eye, right_eye, nose, left_mouth, right_mouth = found[nearest]
        assert left_eye[0] < right_eye[0] and left_mouth[0] < right_mouth[0]
        assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])


def test_boxes_are_in_pixels_of_the_picture(stage: RetinaFaceDetect, astronaut: bytes) -> None:
    rgb = decode(astronaut)
    [box], [points], _ = stage.detect(rgb)
    wide = np.zeros((1024, 2048, 3), np.uint8)
    wide[:, 1024:] = cv2.resize(rgb, (1024, 1024), interpolation=cv2.INTER_CUBIC)
    [moved_box], [moved_points], _ = stage.detect(wide)
    assert np.abs(moved_box - (box * 2 + [1024, 0] * 2)).max() < 20  # of 200
    assert np.abs(moved_points - (points * 2 + [1024, 0])).max() < 15


def test_a_face_is_taken_from_the_scale_that_sees_it_best(
    models_dir: Path, astronaut: bytes
) -> None:
    both, fine, coarse = (real(models_dir, scales=scales) for scales in ([640, 320], [640], [320]))
    whole = decode(astronaut)
    assert_same([both.detect(whole)], [fine.detect(whole)])
    close = whole[30:190, 140:300]
    assert_same([both.detect(close)], [coarse.detect(close)])
    assert not np.array_equal(fine.detect(close)[0], coarse.detect(close)[0])
    assert len(both.detect(close)[0]) == 1


def test_pictures_of_odd_shapes_are_searched_and_answered(
    stage: RetinaFaceDetect, astronaut: bytes
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


def test_a_grey_photograph_shows_the_same_face(stage: RetinaFaceDetect, astronaut: bytes) -> None:
    rgb = decode(astronaut)
    grey = np.repeat(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[:, :, None], 3, axis=2)
    [box], [points], _ = stage.detect(rgb)
    [grey_box], [grey_points], _ = stage.detect(grey)
    assert np.abs(box - grey_box).max() < 10
    assert np.abs(points - grey_points).max() < 5


def test_fifty_faces_are_found_one_by_one(stage: RetinaFaceDetect, astronaut: bytes) -> None:
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
