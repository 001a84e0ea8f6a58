"""SCRFD and ArcFace against insightface's own classes on the same files of weights and real
photographs.
"""

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.detect.letterbox import letterbox
from stages.detect.nms import suppress
from stages.detect.scrfd import ScrfdDetect, decode_outputs
from stages.embed.arcface import TEMPLATE, ArcFaceEmbed, align, normalises, similarity
from stages.pictures import decode
from stages.weights import WeightFiles
from tests.stages.embed.tiny_recogniser import write

COUNT = 40


@pytest.fixture(scope="module")
def zoo() -> Any:
    os.environ.setdefault(
        "ORT_DISABLE_TELEMETRY", "1"
    )  # as in open_session, and before the first import of onnxruntime
    pytest.importorskip(
        "insightface", reason="needs the package insightface: `make venv` installs it"
    )
    return pytest.importorskip(
        "insightface.model_zoo", reason="insightface is there without what it needs"
    )


@pytest.fixture(scope="module")
def pictures(photos: Path) -> list[np.ndarray]:
    """Photographs of one person, spread over all people, and of groups."""
    alone, together = (
        sorted(photos.glob("*/*.jpg")),
        sorted((photos.parent / "group_photos").glob("*.jpg")),
    )
    chosen = alone[:: max(1, len(alone) // (COUNT - 12))][: COUNT - 12] + together[:12]
    assert len(chosen) == COUNT
    return [decode(path.read_bytes()) for path in chosen]


def session(path: str) -> Any:
    """As ours, on one thread: insightface's default is all cores."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["scrfd_2.5g_bnkps", "scrfd_500m_kps"])
def test_faces_on_the_same_letterbox_are_the_same(
    zoo: Any, pictures: list[np.ndarray], models_dir: Path, name: str
) -> None:
    stage = ScrfdDetect({"weights": name})
    stage.setup(WeightFiles(str(models_dir)))
    path = str(models_dir / "detect" / f"{name}.onnx")
    theirs = zoo.SCRFD(path, session(path), static_shape_sessions=False)
    theirs.prepare(-1, det_thresh=0.5, nms_thresh=0.4)
    found = 0
    for rgb in pictures:
        canvas, _ = letterbox(rgb, 640, stage._canvas_side(640))
        boxes, points, scores = decode_outputs(stage._forward([canvas])[0], canvas.shape[1], 1, 0.5)
        kept = suppress(boxes, scores, 0.4)
        # A canvas of the input's own size is left as it is by insightface's letterbox.
        expected, expected_points = theirs.detect(
            canvas[:, :, ::-1], input_size=canvas.shape[1::-1]
        )
        assert boxes[kept] == pytest.approx(expected[:, :4], abs=0.5)
        assert points[kept] == pytest.approx(expected_points, abs=0.5)
        assert scores[kept] == pytest.approx(expected[:, 4], abs=1e-3)
        found += len(kept)
    assert found > COUNT


@pytest.mark.slow
@pytest.mark.parametrize("name", ["edgeface_xs", "mobilefacenet_128d"])
def test_vectors_of_the_same_landmarks_are_the_same(
    zoo: Any, pictures: list[np.ndarray], models_dir: Path, name: str
) -> None:
    from insightface.utils.face_align import norm_crop

    detector, stage = ScrfdDetect(), ArcFaceEmbed({"weights": name})
    detector.setup(WeightFiles(str(models_dir)))
    stage.setup(WeightFiles(str(models_dir)))
    path = WeightFiles(str(models_dir)).path(name)
    theirs = zoo.ArcFaceONNX(path, session(path))
    found = 0
    for rgb in pictures:
        points = detector.detect(rgb)[1]
        ours = stage.embed([align(rgb, frame) for frame in similarity(points, TEMPLATE)])
        for vector, landmarks in zip(ours, points, strict=True):
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore", FutureWarning
                )  # it calls what scikit-image will rename
                crop = norm_crop(np.ascontiguousarray(rgb[:, :, ::-1]), landmarks)
            expected = theirs.get_feat(crop)[0]
            assert vector @ expected >= 0.9999 * np.linalg.norm(vector) * np.linalg.norm(expected)
            assert np.linalg.norm(vector) == pytest.approx(np.linalg.norm(expected), rel=1e-3)
            found += 1
    assert found > COUNT


@pytest.mark.parametrize(
    "names",
    [
        None,
        ("_minusscalar0", "_mulscalar0"),
        ("Sub_0", "Mul_1"),
        ("/a/Sub", "/a/Mul"),
        ("Sub", "Div"),
        ("", "Mul"),
    ],
)
def test_the_same_files_are_taken_to_normalise_pixels_themselves(
    zoo: Any, tmp_path: Path, names: tuple[str, str] | None
) -> None:
    path = write(tmp_path / "x.onnx", names=names)
    assert normalises(path) == (zoo.ArcFaceONNX(path, session(path)).input_std == 1.0)
