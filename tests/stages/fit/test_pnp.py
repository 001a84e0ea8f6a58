"""Head pose: its numbers steer generators, so a wrong sign or a false zero is worse than no row."""

import importlib.util
from pathlib import Path
from typing import Any

import cv2
import dlib
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import TABLES
from stages.fit.head_model import POINTS, model_points
from stages.fit.pnp import PnpFit, Pose, angles_of, camera_matrix, head_pose, rotation_of
from stages.pictures import decode

NO_SERVICES: Any = None  # this stage asks nothing of the outside
COUNTS = {"dlib68": 68, "fan68": 68, "mediapipe478": 478, "arcface5": 5, "dlib5": 5}
SIZE, SIDE = (1280, 960), 150.0


def seen(
    scheme: str,
    yaw: float,
    pitch: float,
    roll: float,
    position: tuple[float, float, float] = (0.3, -0.2, 6.0),
) -> np.ndarray:
    """The points of a scheme, flat, as a camera of SIZE sees the model head; unused points are
    noise.
    """
    index, model = model_points(scheme)
    turn = cv2.Rodrigues(rotation_of(yaw, pitch, roll))[0]
    places = cv2.projectPoints(
        model, turn, np.array(position, dtype=np.float64), camera_matrix(SIZE, SIDE), None
    )[0].reshape(-1, 2)
    flat = np.random.default_rng(0).uniform(0, 900, (COUNTS[scheme], 2))
    flat[index] = places
    return flat.reshape(-1)


def solve(scheme: str, flat: np.ndarray) -> Pose:
    return head_pose(scheme, flat, camera_matrix(SIZE, SIDE))


@pytest.mark.parametrize("scheme", COUNTS)
@pytest.mark.parametrize(
    ("yaw", "pitch", "roll"),
    [(0, 0, 0), (30, 0, 0), (-45, 10, 0), (0, 25, 0), (5, -30, 12), (-20, 10, -40), (10, 5, 170)],
)
def test_known_rotations_are_found(scheme: str, yaw: float, pitch: float, roll: float) -> None:
    pose = solve(scheme, seen(scheme, yaw, pitch, roll))
    assert (pose.yaw, pose.pitch, pose.roll) == pytest.approx((yaw, pitch, roll), abs=1)
    assert pose.position == pytest.approx((0.3, -0.2, 6.0), abs=0.1)
    assert pose.error < 1


def test_signs_as_the_table_has_them() -> None:
    """Checked on the image itself, not on our own rotation matrices."""

    def points(yaw: float, pitch: float, roll: float) -> np.ndarray:
        return seen("dlib68", yaw, pitch, roll, position=(0, 0, 6)).reshape(-1, 2)

    middle = points(0, 0, 0)
    assert points(30, 0, 0)[30, 0] > middle[30, 0] + 10, "yaw > 0: the nose goes to image right"
    assert points(0, 30, 0)[30, 1] < middle[30, 1] - 10, "pitch > 0: the nose goes up"
    tilted = points(0, 0, 30)
    assert tilted[45, 1] > tilted[36, 1] + 10, (
        "roll > 0: clockwise, the eye at image right comes down"
    )


@given(st.floats(-179, 179), st.floats(-85, 85), st.floats(-179, 179))
def test_angles_and_rotations_are_inverses(yaw: float, pitch: float, roll: float) -> None:
    rotation = rotation_of(yaw, pitch, roll)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1)
    np.testing.assert_allclose(rotation_of(*angles_of(rotation)), rotation, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.floats(-40, 40), st.floats(-30, 30), st.floats(-60, 60), st.integers(0, 10**6))
def test_unsteady_points_give_a_near_pose(yaw: float, pitch: float, roll: float, seed: int) -> None:
    """Two pixels of noise on a face of some 150: what a landmark model does on a good image."""
    flat = seen("dlib68", yaw, pitch, roll) + np.random.default_rng(seed).normal(0, 2, 136)
    pose = solve("dlib68", flat)
    assert np.abs(np.array([pose.yaw - yaw, pose.pitch - pitch, pose.roll - roll])).max() < 12
    assert 0 < pose.error < 8


def test_the_model_is_symmetric_and_faces_the_camera() -> None:
    for name, (x, y, z) in POINTS.items():
        other = name.replace("left", "R").replace("right", "left").replace("R", "right")
        assert POINTS[other] == (-x, y, z)
    assert min(POINTS, key=lambda name: POINTS[name][2]) == "pronasale"


def table(
    schemes: list[str | None], points: list[list[float] | None], five: bool = False
) -> pa.Table:
    rows = len(schemes)
    source = (
        ("faces.landmark_scheme", "faces.landmarks")
        if five
        else ("landmarks.scheme", "landmarks.points")
    )
    return pa.table(
        {
            **{
                name: [f"{name}{at}" for at in range(rows)]
                for name in ("identity_id", "image_id", "face_id")
            },
            source[0]: pa.array(schemes, pa.string()),
            source[1]: pa.array(points, pa.list_(pa.float32())),
            "faces.box": pa.array(
                [[600.0, 350.0, 600.0 + SIDE, 350.0 + SIDE]] * rows, pa.list_(pa.float32())
            ),
            "images.width": pa.array([SIZE[0]] * rows, pa.int32()),
            "images.height": pa.array([SIZE[1]] * rows, pa.int32()),
        }
    )


def test_rows_and_schema() -> None:
    found = PnpFit().run(table(["dlib68"], [seen("dlib68", 20, -10, 5).tolist()]), {}, NO_SERVICES)
    full = found.append_column("inputs", pa.array([b"12345678"], pa.binary(8)))
    TABLES["heads"].check(full.select(TABLES["heads"].names), "test")
    row = found.to_pylist()[0]
    assert row["status"] == "ok" and row["scheme"] == "pose"
    assert row["pose"] == pytest.approx([20, -10, 5], abs=0.5) and row["error"] < 0.01
    five = PnpFit({"points": "five"}).run(
        table(["arcface5"], [seen("arcface5", 20, -10, 5).tolist()], five=True), {}, NO_SERVICES
    )
    assert five.to_pylist()[0]["pose"] == pytest.approx([20, -10, 5], abs=1)


def test_what_cannot_be_fitted_is_a_failed_row_without_numbers() -> None:
    good = seen("dlib68", 0, 0, 0)
    broken = good.copy()
    broken[60] = np.nan
    scattered = np.random.default_rng(1).uniform(0, 900, 136)
    cases: dict[str, tuple[str | None, list[float] | None]] = {
        "nan": ("dlib68", broken.tolist()),
        "one place": ("dlib68", [300.0] * 136),
        "scattered": ("dlib68", scattered.tolist()),
        "too few": ("dlib68", good[:20].tolist()),
        "unknown": ("wflw98", good.tolist()),
        "null": (None, None),
        "good": ("dlib68", good.tolist()),
    }
    schemes, points = zip(*cases.values(), strict=True)
    rows = PnpFit().run(table(list(schemes), list(points)), {}, NO_SERVICES).to_pylist()
    for name, row in zip(cases, rows, strict=True):
        if name == "good":
            assert row["status"] == "ok"
            continue
        assert (row["status"], row["reason"]) == ("failed", "fit_failed"), name
        assert (
            row["detail"] and row["pose"] is None and row["camera"] is None and row["error"] is None
        )
    assert "wflw98" in rows[4]["detail"]


def test_reads_what_its_points_need_and_nothing_else() -> None:
    """The columns read make the inputs of a row: landmarks that are not used must not make heads
    out of date.
    """
    dense, five = PnpFit(), PnpFit({"points": "five"})
    assert "landmarks" in dense.reads and "landmarks" not in dense.reads["faces"]
    assert "landmarks" not in five.reads and "landmarks" in five.reads["faces"]
    assert "landmarks" in PnpFit.reads, "the class has those of the default"
    for stage in (dense, five):
        for name, columns in {**stage.reads, **stage.selects}.items():
            assert set(columns) <= set(TABLES[name].names)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "angle", "sign"),
    [
        # In these photographs the face turns to the left of the image, looks down, looks up, and
        # tilts clockwise.
        ("left_face.jpeg", "yaw", -1),
        ("lower_face.jpeg", "pitch", -1),
        ("rise_face.jpeg", "pitch", 1),
        ("right_wryneck.png", "roll", 1),
    ],
)
def test_signs_on_photographs(shared: Path, file: str, angle: str, sign: int) -> None:
    source = shared / "data" / "extra" / "pose" / file
    if not source.is_file():
        pytest.skip(f"needs {file} of the extra photographs")
    package = importlib.util.find_spec("face_recognition_models")
    if package is None or not package.submodule_search_locations:
        pytest.skip("needs the package face_recognition_models")
    weights = (
        Path(package.submodule_search_locations[0])
        / "models"
        / "shape_predictor_68_face_landmarks.dat"
    )
    rgb = decode(source.read_bytes())
    rectangle = dlib.get_frontal_face_detector()(rgb, 1)[0]
    parts = dlib.shape_predictor(str(weights))(rgb, rectangle).parts()
    flat = np.array([(part.x + 0.5, part.y + 0.5) for part in parts]).reshape(-1)
    pose = head_pose("dlib68", flat, camera_matrix((rgb.shape[1], rgb.shape[0]), rectangle.width()))
    assert sign * getattr(pose, angle) > 12, pose
    assert pose.error < 0.06 * rectangle.width()
