"""Whom a photograph is of."""

from pathlib import Path

import numpy as np
import pytest

from stages.detect.scrfd import ScrfdDetect
from stages.detect.subject import subject
from stages.embed.arcface import TEMPLATE, ArcFaceEmbed, align, similarity
from stages.pictures import decode
from stages.weights import WeightFiles

# Photographs with two to nine faces, and three of the same person alone. Size decides some, the
# centre others.
GROUPS = {
    "lionel_messi": (("006", "008", "012", "013", "022"), ("001", "002", "003")),
    "roger_federer": (("032",), ("001", "002", "003")),
    "serena_williams": (("025", "029", "034", "041", "043", "044"), ("001", "002", "003")),
    "virat_kohli": (("006", "007", "017"), ("001", "002", "005")),
    "tony_blair": (("001",), ("002", "003", "004")),
    "halle_berry": (("009",), ("001", "002", "003")),
}


def test_the_large_face_near_the_centre_wins_over_the_sure_one_at_the_edge() -> None:
    boxes = np.array([[0, 0, 90, 90], [150, 100, 250, 220], [380, 180, 400, 200]], np.float32)
    assert subject(boxes, np.array([0.99, 0.7, 0.9]), 400, 320) == 1


def test_of_equals_the_surer_and_then_the_first() -> None:
    boxes = np.array([[0, 50, 50, 100], [100, 50, 150, 100], [0, 50, 50, 100]], np.float32)
    assert subject(boxes, np.array([0.5, 0.9, 0.6]), 150, 150) == 1
    assert subject(boxes, np.array([0.5, 0.5, 0.5]), 150, 150) == 0


def test_there_is_no_subject_without_a_face() -> None:
    with pytest.raises(ValueError, match="without faces"):
        subject(np.zeros((0, 4)), np.zeros(0), 10, 10)


def test_a_picture_twice_as_large_is_of_the_same_face() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        corners = rng.uniform(0, 300, (4, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(5, 80, (4, 2))], axis=1)
        assert subject(boxes, np.ones(4), 400, 300) == subject(boxes * 2, np.ones(4), 800, 600)


def test_boxes_without_area_can_be_told_apart_too() -> None:
    assert subject(np.array([[5, 5, 5, 9], [9, 9, 4, 4]]), np.array([0.1, 0.2]), 10, 10) == 1


@pytest.mark.slow
def test_photographs_of_a_person_among_others_are_of_that_person(
    photos: Path, models_dir: Path
) -> None:
    """Whose face it is, is told by the vectors: the subject is the one like the person's
    photographs without others.
    """
    detector, embedder = ScrfdDetect(), ArcFaceEmbed()
    for stage in (detector, embedder):
        stage.setup(WeightFiles(str(models_dir)))

    def faces(person: str, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[int, int]]:
        rgb = decode((photos / person / f"{name}.jpg").read_bytes())
        boxes, points, scores = detector.detect(rgb)
        vectors = embedder.embed([align(rgb, frame) for frame in similarity(points, TEMPLATE)])
        return (
            vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
            boxes,
            scores,
            (rgb.shape[1], rgb.shape[0]),
        )

    for person, (together, alone) in GROUPS.items():
        portraits = [faces(person, name) for name in alone]
        assert [len(found[0]) for found in portraits] == [1, 1, 1], person
        likeness = np.mean([found[0][0] for found in portraits], axis=0)
        for name in together:
            vectors, boxes, scores, size = faces(person, name)
            assert len(boxes) > 1
            assert subject(boxes, scores, *size) == (vectors @ likeness).argmax(), (
                f"{person}/{name}"
            )
