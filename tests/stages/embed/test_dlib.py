"""dlib's recogniser: it runs on any machine, so this is the chain that is tested everywhere."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from stages.detect.dlib import DlibDetect
from stages.embed.calibration import CALIBRATION
from stages.embed.dlib import DlibEmbed
from stages.pictures import decode
from stages.stage import Picture
from stages.weights import WeightFiles

NO_SERVICES: Any = None  # this stage asks nothing of the outside
COLUMNS = ("box", "landmarks", "landmark_scheme", "status")


@pytest.fixture(scope="module")
def stage() -> DlibEmbed:
    made = DlibEmbed()
    made.setup(WeightFiles())
    return made


@pytest.fixture(scope="module")
def pictures(astronaut: bytes, t1: Path) -> dict[str, Picture]:
    head = decode(astronaut)[:320].copy()  # without the mission patch, which dlib takes for a face
    found = {"many": Picture("many", decode(t1.read_bytes())), "one": Picture("one", head)}
    for picture in found.values():
        picture.rgb.flags.writeable = False
    return found


@pytest.fixture(scope="module")
def rows(pictures: dict[str, Picture]) -> pa.Table:
    detector = DlibDetect()
    detector.setup(WeightFiles())
    found = detector.run(
        pa.table({"identity_id": ["p", "p"], "image_id": list(pictures)}), pictures, NO_SERVICES
    )
    ids = ["identity_id", "image_id", "face_id"]
    return found.select([*ids, *COLUMNS]).rename_columns(
        [*ids, *(f"faces.{name}" for name in COLUMNS)]
    )


def test_seven_strangers(stage: DlibEmbed, rows: pa.Table, pictures: dict[str, Picture]) -> None:
    table = stage.run(rows, pictures, NO_SERVICES)
    vectors = np.array(table["vector"].to_pylist())
    assert vectors.shape == (7, 128)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    raw = vectors * np.array(table["norm"].to_pylist())[:, None]
    distances = np.linalg.norm(raw[:, None] - raw[None], axis=2)[np.triu_indices(7, 1)]
    assert distances.min() > 0.55  # 0.6 is the limit that dlib's author gives
    assert (vectors @ vectors.T)[np.triu_indices(7, 1)].max() < CALIBRATION[
        "dlib_resnet_v1"
    ].similarity_threshold
    assert set(table["recogniser"].to_pylist()) == {"dlib_resnet_v1"}


def test_a_vector_depends_on_its_face_alone(
    stage: DlibEmbed, rows: pa.Table, pictures: dict[str, Picture]
) -> None:
    three = rows.slice(4, 3)
    alone = [stage.run(three.slice(i, 1), pictures, NO_SERVICES) for i in (2, 1, 0)]
    assert stage.run(three, pictures, NO_SERVICES).equals(
        pa.concat_tables(alone[::-1]).combine_chunks()
    )


def test_stored_points_are_the_predictors_own(
    stage: DlibEmbed, rows: pa.Table, pictures: dict[str, Picture]
) -> None:
    """The vector from stored points must be the one that dlib gives for its own detection, bit for
    bit.
    """
    detector = DlibDetect()
    detector.setup(WeightFiles())
    rgb = pictures["one"].rgb
    (rectangle,), _, _ = detector._detector.run(rgb, 1, 0.0)
    expected = np.array(
        stage._model.compute_face_descriptor(rgb, detector._predictor(rgb, rectangle)), np.float32
    )
    row = rows.to_pylist()[-1]
    assert np.array_equal(
        stage.embed(rgb, np.array(row["faces.box"]), np.array(row["faces.landmarks"])), expected
    )


def test_faces_that_do_not_suit_fail_by_themselves(
    stage: DlibEmbed, rows: pa.Table, pictures: dict[str, Picture]
) -> None:
    changed = rows.slice(3, 4).to_pylist()
    changed[0]["faces.landmark_scheme"] = "arcface5"
    changed[1]["faces.landmarks"] = [20.5] * 10
    changed[2]["faces.landmarks"] = [float("nan")] * 10
    table = stage.run(pa.Table.from_pylist(changed, rows.schema), pictures, NO_SERVICES)
    assert table["reason"].to_pylist() == [
        "wrong_landmarks",
        "bad_landmarks",
        "bad_landmarks",
        None,
    ]
    assert "needs dlib5" in table["detail"][0].as_py()
