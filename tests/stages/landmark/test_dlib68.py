"""68 points: for whom, and where they lie."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from schemas import TABLES
from stages.landmark.dlib68 import Dlib68Landmark, hog_box
from stages.pictures import decode
from stages.stage import Picture
from stages.weights import WeightFiles

NO_SERVICES: Any = None  # this stage asks nothing of the outside
DLIB_BOX = [175.0, 76.0, 265.0, 166.0]


@pytest.fixture(scope="module")
def stage() -> Dlib68Landmark:
    made = Dlib68Landmark()
    made.setup(WeightFiles())
    return made


def rows(count: int, scheme: str = "dlib5", box: list[float] = DLIB_BOX) -> pa.Table:
    return pa.table(
        {
            "identity_id": ["p"] * count,
            "image_id": ["i"] * count,
            "face_id": [f"f{n}" for n in range(count)],
            "faces.box": pa.array([box] * count, pa.list_(pa.float32())),
            "faces.landmark_scheme": [scheme] * count,
            "faces.status": ["ok"] * count,
            "images.status": ["ok"] * count,
        }
    )


def test_points_lie_on_the_face(stage: Dlib68Landmark, astronaut: bytes) -> None:
    picture = Picture("i", decode(astronaut))
    picture.rgb.flags.writeable = False
    table = stage.run(rows(1), {"i": picture}, NO_SERVICES)
    TABLES["landmarks"].check(
        table.append_column("inputs", pa.array([b"8 bytes."], pa.binary(8))), "test"
    )
    (row,) = table.to_pylist()
    points = np.array(row["points"]).reshape(68, 2)
    jaw, brows, nose, eyes, mouth = (
        points[:17],
        points[17:27],
        points[27:36],
        points[36:48],
        points[48:],
    )
    assert row["scheme"] == "dlib68"
    assert brows[:, 1].mean() < eyes[:, 1].mean() < nose[-1, 1] < mouth[:, 1].mean() < jaw[8, 1]
    assert jaw[0, 0] < eyes[:6, 0].mean() < nose[3, 0] < eyes[6:, 0].mean() < jaw[16, 0]
    assert DLIB_BOX[0] - 10 < points[:, 0].min() < points[:, 0].max() < DLIB_BOX[2] + 10


def test_boxes_of_other_detectors_start_at_the_same_shape(
    stage: Dlib68Landmark, astronaut: bytes
) -> None:
    """A box that is tight around the face, as SCRFD draws it, must not pull the points off it."""
    rgb = decode(astronaut)
    tight = [182.0, 62.0, 257.0, 168.0]
    results = {}
    for scheme, box in (("dlib5", DLIB_BOX), ("arcface5", tight), ("raw", tight)):
        table = stage.run(
            rows(1, "dlib5" if scheme == "raw" else scheme, box),
            {"i": Picture("i", rgb)},
            NO_SERVICES,
        )
        results[scheme] = np.array(table["points"][0].as_py()).reshape(68, 2)
    eyes = np.linalg.norm(
        results["dlib5"][36:42].mean(axis=0) - results["dlib5"][42:48].mean(axis=0)
    )
    moved = {
        name: np.linalg.norm(results[name] - results["dlib5"], axis=1).mean() / eyes
        for name in ("arcface5", "raw")
    }
    assert moved["arcface5"] < 0.05
    assert moved["arcface5"] < moved["raw"]


def test_the_box_is_a_square_that_moves_and_grows_with_the_face() -> None:
    x1, y1, x2, y2 = hog_box(np.array([0.0, 0.0, 80.0, 110.0]))
    assert x2 - x1 == pytest.approx(y2 - y1)
    assert (x1 + x2) / 2 == pytest.approx(40)
    assert (y1 + y2) / 2 > 55
    assert hog_box(np.array([100.0, 200.0, 260.0, 420.0])) == pytest.approx(
        2 * np.array([x1, y1, x2, y2]) + (100, 200, 100, 200)
    )


def test_only_kept_faces_are_wanted(stage: Dlib68Landmark) -> None:
    table = rows(5).append_column("clusters.keep", pa.array([True, False, None, True, True]))
    table = table.append_column("clusters.status", pa.array(["ok", "ok", None, "failed", "ok"]))
    table = table.set_column(
        table.column_names.index("images.status"),
        "images.status",
        pa.array(["ok"] * 4 + ["failed"]),
    )
    assert stage.wants(table).to_pylist() == [True, False, False, False, False]
