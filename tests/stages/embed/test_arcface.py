"""Alignment and vectors of recognisers on aligned crops."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import TABLES
from stages.detect.scrfd import ScrfdDetect
from stages.embed.arcface import TEMPLATE, ArcFaceEmbed, align, similarity
from stages.embed.calibration import CALIBRATION
from stages.pictures import decode
from stages.stage import Picture
from stages.weights import WEIGHTS, WeightFiles

NO_SERVICES: Any = None  # this stage asks nothing of the outside
finite = st.floats(-50, 50)


@given(st.floats(0.05, 20), st.floats(-np.pi, np.pi), finite, finite)
def test_a_similarity_is_recovered(scale: float, angle: float, x: float, y: float) -> None:
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = (TEMPLATE - (x, y)) @ np.linalg.inv(linear).T
    assert similarity(points[None], TEMPLATE)[0] == pytest.approx(np.column_stack([linear, (x, y)]), abs=1e-6, rel=1e-9)


def test_no_other_similarity_comes_closer() -> None:
    rng = np.random.default_rng(0)
    points = TEMPLATE * 2 + rng.normal(0, 10, (20, 5, 2)) + 100
    frames = similarity(points, TEMPLATE)

    def error(frames: np.ndarray) -> np.ndarray:
        moved = np.einsum("nij,nkj->nki", frames[:, :, :2], points) + frames[:, None, :, 2]
        return ((moved - TEMPLATE) ** 2).sum(axis=(1, 2))

    assert frames[:, 0, 0] == pytest.approx(frames[:, 1, 1])
    assert frames[:, 0, 1] == pytest.approx(-frames[:, 1, 0])
    for _ in range(50):
        a, b, x, y = rng.normal(0, 1e-3, 4)
        nudged = frames + np.array([[a, -b, x * 100], [b, a, y * 100]])
        assert (error(nudged) >= error(frames)).all()


def test_degenerate_points_give_no_frame_and_leave_their_neighbours_alone() -> None:
    points = np.stack([TEMPLATE, np.ones((5, 2)), np.full((5, 2), np.nan), TEMPLATE * 3])
    frames = similarity(points, TEMPLATE)
    assert np.isfinite(frames).all(axis=(1, 2)).tolist() == [True, False, False, True]
    assert frames[0] == pytest.approx(np.eye(2, 3), abs=1e-9)


def test_the_crop_has_the_points_where_the_template_wants_them() -> None:
    rgb = np.zeros((300, 300, 3), np.uint8)
    points = np.round(TEMPLATE * 2 + 20)
    for x, y in points.astype(int):
        rgb[y - 2 : y + 3, x - 2 : x + 3] = 255
    crop = align(rgb, similarity(points[None], TEMPLATE)[0])
    assert crop.shape == (112, 112, 3)
    assert all(crop[round(y), round(x), 0] > 200 for x, y in TEMPLATE)


@pytest.fixture(scope="module", params=["edgeface_xs", "mobilefacenet_128d"])
def stage(request: pytest.FixtureRequest, models_dir: Path) -> ArcFaceEmbed:
    made = ArcFaceEmbed({"weights": request.param})
    made.setup(WeightFiles(str(models_dir)))
    return made


@pytest.fixture(scope="module")
def faces(t1: Path, astronaut: bytes, models_dir: Path) -> SimpleNamespace:
    """Seven detected faces of two pictures as the rows that embed gets."""
    detector = ScrfdDetect()
    detector.setup(WeightFiles(str(models_dir)))
    pictures = {"many": Picture("many", decode(t1.read_bytes())), "one": Picture("one", decode(astronaut))}
    found = detector.run(pa.table({"identity_id": ["p", "p"], "image_id": list(pictures)}), pictures, NO_SERVICES)
    ids, columns = ["identity_id", "image_id", "face_id"], ["landmarks", "landmark_scheme", "status"]
    rows = found.select([*ids, *columns]).rename_columns([*ids, *(f"faces.{name}" for name in columns)])
    return SimpleNamespace(rows=rows, pictures=pictures)


def test_a_vector_depends_on_its_face_alone(stage: ArcFaceEmbed, faces: SimpleNamespace) -> None:
    """Bit for bit: alone, at every place of a batch, beside other faces, and in a call that is no multiple of the batch."""
    rng = np.random.default_rng(0)
    crops = list(rng.integers(0, 256, (11, 112, 112, 3), dtype=np.uint8))
    expected = stage.embed(crops)
    for i in range(5):
        assert np.array_equal(stage.embed([crops[i]])[0], expected[i])
        turned = crops[i:] + crops[:i]
        assert np.array_equal(np.roll(stage.embed(turned), i, axis=0), expected)
    together = stage.run(faces.rows, faces.pictures, NO_SERVICES)
    alone = [stage.run(faces.rows.slice(i, 1), faces.pictures, NO_SERVICES) for i in reversed(range(len(faces.rows)))]
    assert together.equals(pa.concat_tables(alone[::-1]).combine_chunks())


def test_the_network_sees_batches_of_one_size_only(models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On chips whose kernels depend on the batch, this is what makes a vector depend on its face alone."""
    for name, sizes in (("edgeface_xs", {3}), ("mobilefacenet_128d", {1})):
        made = ArcFaceEmbed({"weights": name, "batch": 3})
        made.setup(WeightFiles(str(models_dir)))
        session = made._session
        seen: set[int] = set()

        class Watched:
            get_outputs = session.get_outputs

            def run(self, names, feed, session=session, seen=seen):
                seen.update(len(blob) for blob in feed.values())
                return session.run(names, feed)

        monkeypatch.setattr(made, "_session", Watched())
        for count in (1, 3, 4):
            assert made.embed([np.zeros((112, 112, 3), np.uint8)] * count).shape[0] == count
        assert seen == sizes


def test_vectors_are_unit_and_people_differ(stage: ArcFaceEmbed, faces: SimpleNamespace) -> None:
    table = stage.run(faces.rows, faces.pictures, NO_SERVICES)
    TABLES["embeddings"].check(table.append_column("inputs", pa.array([b"8 bytes."] * 7, pa.binary(8))), "test")
    vectors = np.array(table["vector"].to_pylist())
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert set(table["recogniser"].to_pylist()) == {stage.recogniser}
    strangers = (vectors @ vectors.T)[np.triu_indices(7, 1)]
    assert strangers.max() < CALIBRATION[stage.recogniser].similarity_threshold
    assert min(table["norm"].to_pylist()) > 0


def test_one_person_in_two_photographs(stage: ArcFaceEmbed, photos: Path, models_dir: Path) -> None:
    detector = ScrfdDetect()
    detector.setup(WeightFiles(str(models_dir)))
    crops = []
    for name in ("ariel_sharon/001.jpg", "ariel_sharon/002.jpg", "serena_williams/001.jpg"):
        rgb = decode((photos / name).read_bytes())
        crops.append(align(rgb, similarity(detector.detect(rgb)[1][:1], TEMPLATE)[0]))
    vectors = stage.embed(crops)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert vectors[0] @ vectors[1] > 0.4
    assert max(vectors[0] @ vectors[2], vectors[1] @ vectors[2]) < 0.3


def test_faces_that_do_not_suit_fail_by_themselves(stage: ArcFaceEmbed, faces: SimpleNamespace) -> None:
    rows = faces.rows.slice(0, 3).to_pylist()
    rows[0]["faces.landmark_scheme"] = "dlib5"
    rows[1]["faces.landmarks"] = [7.0] * 10
    table = stage.run(pa.Table.from_pylist(rows, faces.rows.schema), faces.pictures, NO_SERVICES)
    assert table["status"].to_pylist() == ["failed", "failed", "ok"]
    assert table["reason"].to_pylist() == ["wrong_landmarks", "bad_landmarks", None]
    assert table.slice(2).equals(stage.run(faces.rows.slice(2, 1), faces.pictures, NO_SERVICES))
    assert stage.run(faces.rows.slice(0, 0), faces.pictures, NO_SERVICES).num_rows == 0


def test_every_recogniser_is_calibrated() -> None:
    """A DAG without thresholds takes them from here."""
    choices = get_args(ArcFaceEmbed.Parameters.model_fields["weights"].annotation)
    assert set(choices) <= set(WEIGHTS)
    assert set(CALIBRATION) == {*choices, "dlib_resnet_v1"}
    assert all(0 < entry.merge_cosine <= entry.similarity_threshold < 1 for entry in CALIBRATION.values())
