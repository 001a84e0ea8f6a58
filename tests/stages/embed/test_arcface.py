"""Alignment and vectors of recognisers on aligned crops."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas import TABLES
from stages.detect.scrfd import ScrfdDetect
from stages.embed.arcface import TEMPLATE, ArcFaceEmbed, align, similarity
from stages.embed.calibration import CALIBRATION
from stages.onnx_session import WrongModel
from stages.pictures import decode
from stages.stage import Picture
from stages.weights import NOTHING, WEIGHTS, WeightFiles, names
from tests.stages.embed.tiny_recogniser import WIDTH, write
from tests.stages.one_file import OneFile

NO_SERVICES: Any = None  # this stage asks nothing of the outside
finite = st.floats(-50, 50)


@given(st.floats(0.05, 20), st.floats(-np.pi, np.pi), finite, finite)
def test_a_similarity_is_recovered(scale: float, angle: float, x: float, y: float) -> None:
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = (TEMPLATE - (x, y)) @ np.linalg.inv(linear).T
    assert similarity(points[None], TEMPLATE)[0] == pytest.approx(
        np.column_stack([linear, (x, y)]), abs=1e-6, rel=1e-9
    )


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
    """Seven detected faces of two images as the rows that embed gets."""
    detector = ScrfdDetect()
    detector.setup(WeightFiles(str(models_dir)))
    pictures = {
        "many": Picture("many", decode(t1.read_bytes())),
        "one": Picture("one", decode(astronaut)),
    }
    found = detector.run(
        pa.table({"identity_id": ["p", "p"], "image_id": list(pictures)}), pictures, NO_SERVICES
    )
    ids, columns = (
        ["identity_id", "image_id", "face_id"],
        ["landmarks", "landmark_scheme", "status"],
    )
    rows = found.select([*ids, *columns]).rename_columns(
        [*ids, *(f"faces.{name}" for name in columns)]
    )
    return SimpleNamespace(rows=rows, pictures=pictures)


def test_a_vector_depends_on_its_face_alone(stage: ArcFaceEmbed, faces: SimpleNamespace) -> None:
    """Bit for bit: alone, at every place of a batch, beside other faces, and in a call that is no
    multiple of the batch.
    """
    rng = np.random.default_rng(0)
    crops = list(rng.integers(0, 256, (11, 112, 112, 3), dtype=np.uint8))
    expected = stage.embed(crops)
    for i in range(5):
        assert np.array_equal(stage.embed([crops[i]])[0], expected[i])
        turned = crops[i:] + crops[:i]
        assert np.array_equal(np.roll(stage.embed(turned), i, axis=0), expected)
    together = stage.run(faces.rows, faces.pictures, NO_SERVICES)
    alone = [
        stage.run(faces.rows.slice(i, 1), faces.pictures, NO_SERVICES)
        for i in reversed(range(len(faces.rows)))
    ]
    assert together.equals(pa.concat_tables(alone[::-1]).combine_chunks())


def test_the_network_sees_batches_of_one_size_only(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On chips whose kernels depend on the batch, this is what makes a vector depend on its face
    alone.
    """
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
    TABLES["embeddings"].check(
        table.append_column("inputs", pa.array([b"8 bytes."] * 7, pa.binary(8))), "test"
    )
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


def test_faces_that_do_not_suit_fail_by_themselves(
    stage: ArcFaceEmbed, faces: SimpleNamespace
) -> None:
    rows = faces.rows.slice(0, 3).to_pylist()
    rows[0]["faces.landmark_scheme"] = "dlib5"
    rows[1]["faces.landmarks"] = [7.0] * 10
    table = stage.run(pa.Table.from_pylist(rows, faces.rows.schema), faces.pictures, NO_SERVICES)
    assert table["status"].to_pylist() == ["failed", "failed", "ok"]
    assert table["reason"].to_pylist() == ["wrong_landmarks", "bad_landmarks", None]
    assert table.slice(2).equals(stage.run(faces.rows.slice(2, 1), faces.pictures, NO_SERVICES))
    assert stage.run(faces.rows.slice(0, 0), faces.pictures, NO_SERVICES).num_rows == 0


def made_up(path: str, **params: Any) -> ArcFaceEmbed:
    """The stage on a file of no registered weights."""
    stage = ArcFaceEmbed(params)
    stage.setup(OneFile(path))
    return stage


CROPS = list(np.random.default_rng(3).integers(0, 256, (5, 112, 112, 3), dtype=np.uint8))


@pytest.mark.parametrize("batch", [1, 3, "n"])
@pytest.mark.parametrize("size", [(112, 112), ("h", "w")])
def test_every_export_gives_the_same_vectors(tmp_path: Path, batch: int | str, size: Any) -> None:
    usual = made_up(write(tmp_path / "usual.onnx"), batch=2).embed(CROPS)
    assert usual.shape == (5, WIDTH)
    other = made_up(write(tmp_path / "x.onnx", batch, size))
    assert other.embed(CROPS) == pytest.approx(usual, abs=1e-5)
    assert other.embed([]).shape == (0, WIDTH)


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (
            {"size": (160, 160)},
            "takes images of 160 x 160, crops aligned as for ArcFace are 112 x 112",
        ),
        ({"size": ("h", 128)}, "takes images of h x 128"),
        (
            {"channels_last": True},
            r"\['n', 112, 112, 3\] \(channels last\?\); it has to be \(n, 3, height, width\)",
        ),
        ({"outputs": 2}, r"one vector a face: for 4 crops it gives \(4, 16\), \(4, 16\)"),
        ({"flat": False}, r"one vector a face: for 4 crops it gives \(4, 16, 1, 1\)"),
    ],
)
def test_what_is_no_recogniser_is_refused(tmp_path: Path, made: dict[str, Any], told: str) -> None:
    path = write(tmp_path / "x.onnx", **made)
    with pytest.raises(WrongModel, match=told) as error:
        made_up(path)
    assert str(error.value).startswith(path)


def test_a_detector_in_place_of_a_recogniser_is_refused(models_dir: Path) -> None:
    with pytest.raises(WrongModel, match="one vector a face: for 1 crops it gives"):
        made_up(str(models_dir / "detect" / "scrfd_2.5g_bnkps.onnx"))


@pytest.mark.parametrize(
    ("names", "itself"),
    [
        (("_minusscalar0", "_mulscalar0"), True),
        (("Sub_0", "Mul_1"), True),
        (("/stem/Sub", "/stem/Mul"), False),
        (("Sub_0", "Scale"), False),
        (None, False),
    ],
)
def test_a_network_that_normalises_pixels_itself_gets_pixels(
    tmp_path: Path, names: tuple[str, str] | None, itself: bool
) -> None:
    stage = made_up(write(tmp_path / "x.onnx", names=names))
    assert (stage._mean, stage._std) == ((0.0, 1.0) if itself else (127.5, 127.5))
    if itself:
        assert stage.embed(CROPS) == pytest.approx(
            made_up(write(tmp_path / "usual.onnx")).embed(CROPS), abs=1e-3
        )


def test_a_recogniser_of_ones_own_is_normalised_as_it_was_registered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = replace(WEIGHTS["edgeface_xs"], name="our_r50", normalisation=(100.0, 64.0))
    monkeypatch.setitem(WEIGHTS, "our_r50", own)
    stage = made_up(write(tmp_path / "x.onnx"), weights="our_r50")
    assert (stage._mean, stage._std, stage.recogniser) == (100.0, 64.0, "our_r50")


def test_published_names_are_known_and_others_are_refused_with_the_nearest() -> None:
    for name in ("glintr100", "w600k_r50"):
        assert ArcFaceEmbed({"weights": name}).recogniser == name
    with pytest.raises(
        ValidationError, match="names no weights of kind embed/arcface; did you mean 'glintr100'"
    ):
        ArcFaceEmbed({"weights": "glint_r100"})


def rows_with(points: np.ndarray) -> pa.Table:
    ids = {"identity_id": "p", "image_id": "i", "face_id": "f"}
    same = {**ids, "faces.landmark_scheme": "arcface5", "faces.status": "ok"}
    return pa.Table.from_pylist(
        [{**same, "faces.landmarks": each.ravel().tolist()} for each in points]
    )


def test_points_beyond_the_edge_are_embedded_with_black_as_long_as_something_is_shown(
    tmp_path: Path,
) -> None:
    rgb = np.random.default_rng(0).integers(1, 256, (200, 300, 3), dtype=np.uint8)
    stage = made_up(write(tmp_path / "x.onnx"))
    half = TEMPLATE + np.array([-60, 20])  # both left points lie beyond the edge
    outside, dot = (
        [half - np.array([200, 0]), TEMPLATE - 1e7],
        [np.full((5, 2), 20.0), TEMPLATE * 1e-2],
    )
    points = np.stack([TEMPLATE + 50, half, *outside, *dot, TEMPLATE * 1e5])
    table = stage.run(rows_with(points), {"i": Picture("i", rgb)}, NO_SERVICES)
    assert table["status"].to_pylist() == ["ok", "ok", *["failed"] * 4, "ok"]
    assert set(table["reason"].to_pylist()[2:6]) == {"bad_landmarks"}
    crop = np.zeros((112, 112, 3), np.uint8)
    crop[:, 60:] = rgb[20:132, :52]
    [expected] = stage.embed([crop])
    vector = np.array(table["vector"][1].as_py())
    assert vector @ expected / np.linalg.norm(expected) == pytest.approx(1, abs=1e-4)


def test_vectors_can_be_stored_to_half_precision(tmp_path: Path) -> None:
    """The column stays float32: whoever reads it need not know."""
    rgb = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    points = np.stack([TEMPLATE + at for at in (0, 20, 60, 80)])
    tables = []
    for store in ("float32", "float16"):
        stage = made_up(write(tmp_path / "x.onnx"), store=store)
        tables.append(stage.run(rows_with(points), {"i": Picture("i", rgb)}, NO_SERVICES))
    exact, rounded = (np.array(table["vector"].to_pylist(), np.float32) for table in tables)
    assert tables[0]["norm"].equals(tables[1]["norm"])
    assert np.array_equal(rounded, exact.astype(np.float16).astype(np.float32))
    assert not np.array_equal(rounded, exact)
    assert np.abs(rounded @ rounded.T - exact @ exact.T).max() < 1e-3
    with pytest.raises(ValidationError, match="float16"):
        ArcFaceEmbed({"store": "int8"})


def test_the_recognisers_at_hand_are_calibrated() -> None:
    """A DAG without thresholds takes them from here; for others it has to give them, or the team's
    registry does.
    """
    assert (
        {"edgeface_xs", "mobilefacenet_128d", "dlib_resnet_v1"}
        <= set(CALIBRATION)
        <= set(names("embed", local=NOTHING))
    )
    assert all(
        0 < entry.merge_cosine <= entry.similarity_threshold < 1 for entry in CALIBRATION.values()
    )
