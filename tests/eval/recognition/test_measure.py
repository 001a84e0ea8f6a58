"""Real detectors and recognisers on labelled photographs."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from eval.labels import BadLabels
from eval.recognition.measure import measure
from eval.recognition.photographs import Photograph, labelled
from eval.recognition.report import report
from stages.backends import backend
from stages.stage import Stage
from stages.weights import WeightFiles
from tests.eval.recognition.test_photographs import image_file


def made(stage: str, name: str, files: WeightFiles, **params: object) -> Stage:
    one = backend(stage, name)(params)
    one.setup(files)
    return one


@pytest.fixture(scope="module")
def dlib() -> tuple[Stage, Stage]:
    pytest.importorskip("dlib")
    return made("detect", "dlib", WeightFiles()), made("embed", "dlib", WeightFiles())


def test_faces_are_found_counted_and_recognised(
    astronaut: bytes, t1: Path, tmp_path: Path, dlib: tuple[Stage, Stage]
) -> None:
    detect, embed = dlib
    photographs = [
        Photograph(image_file(tmp_path / "Eileen/1.png", astronaut), "Eileen", faces=2),
        Photograph(image_file(tmp_path / "Eileen/2.png", astronaut), "Eileen", faces=1),
        Photograph(image_file(tmp_path / "Friend/1.jpg", t1.read_bytes()), "Friend"),
        Photograph(
            image_file(tmp_path / "Friend/broken.jpg", b"\xff\xd8\xff no picture"), "Friend"
        ),
    ]
    told: list[tuple[int, int]] = []
    measured = measure(photographs, detect, [embed], lambda done, of: told.append((done, of)))
    assert told[-1] == (4, 4) and measured.found.tolist() == [2, 2, 6, -1], (
        "dlib takes the suit for a face"
    )
    vectors = measured.vectors["dlib_resnet_v1"]
    assert (
        vectors.shape == (4, 128)
        and np.allclose(vectors[0], vectors[1])
        and np.isnan(vectors[3]).all()
    )
    numbers = report(measured)
    found = numbers["detection"]
    assert (found["photographs"], found["with_face"], found["share_with_face"]) == (4, 3, 1.0)
    assert [text.split(":")[0] for text in found["unreadable"]] == [
        str(tmp_path / "Friend/broken.jpg")
    ]
    assert (found["counted"], found["count_agrees"]) == (2, 1)
    assert found["count_differs"] == [
        {"file": str(tmp_path / "Eileen/2.png"), "labelled": 1, "found": 2}
    ]
    pairs = numbers["recognisers"]["dlib_resnet_v1"]["verification"]["all"]["pairs"]
    assert (pairs["genuine"], pairs["impostor"]) == (2, 4)
    assert "there are 0" in numbers["recognisers"]["dlib_resnet_v1"]["thresholds_lack"]


def test_landmarks_that_do_not_fit_are_refused_before_anything_is_measured(
    models_dir: Path, tmp_path: Path, dlib: tuple[Stage, Stage]
) -> None:
    embed = made("embed", "arcface", WeightFiles(str(models_dir)))
    with pytest.raises(
        BadLabels,
        match="'arcface' aligns faces by arcface5 landmarks, detect backend 'dlib' gives dlib5",
    ):
        measure([Photograph(tmp_path / "gone.jpg", "a")], dlib[0], [embed])


@pytest.mark.slow
def test_scrfd_and_edgeface_on_real_photographs(
    photos: Path, models_dir: Path, shared: Path
) -> None:
    """968 photographs of 84 people, and 9 with several faces that somebody counted."""
    files = WeightFiles(str(models_dir))
    detect, embed = (
        made("detect", "scrfd", files),
        made("embed", "arcface", files, weights="edgeface_xs", batch=16),
    )
    numbers = report(measure(labelled(photos), detect, [embed]))
    assert numbers["detection"]["share_with_face"] >= 0.999
    found = numbers["recognisers"]["edgeface_xs"]
    tar = {
        name: {point["far"]: point["tar"] for point in each["pairs"]["tar_at_far"]}
        for name, each in found["verification"].items()
    }
    assert tar["undisputed"][1e-3] >= 0.998 and tar["all"][1e-3] >= 0.93
    assert (
        found["verification"]["undisputed"]["image_to_indicator"]["tar_at_far"][1]["tar"] >= 0.998
    )
    assert abs(found["thresholds"]["similarity_threshold"] - 0.40) < 0.08, (
        "what ships was chosen on a part of these photographs"
    )
    groups = report(measure(labelled(shared / "data" / "group_photos"), detect, []))["detection"]
    assert (groups["counted"], groups["count_agrees"]) == (9, 9)


@pytest.mark.slow
def test_a_copy_of_real_photographs_by_folders(
    photos: Path, models_dir: Path, tmp_path: Path
) -> None:
    for person in ("ariel_sharon", "serena_williams"):
        (tmp_path / person).mkdir()
        for source in sorted((photos / person).glob("*.jpg"))[:4]:
            shutil.copy(source, tmp_path / person)
    files = WeightFiles(str(models_dir))
    detect, embed = (
        made("detect", "scrfd", files),
        made("embed", "arcface", files, weights="edgeface_xs"),
    )
    measured = measure(labelled(tmp_path), detect, [embed])
    pairs = report(measured)["recognisers"]["edgeface_xs"]["verification"]["all"]["pairs"]
    assert (pairs["genuine"], pairs["impostor"]) == (12, 16) and pairs["equal_error"]["rate"] == 0
