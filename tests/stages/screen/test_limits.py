"""Limits: which face is filtered, with which words, and what stays the same beside it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from pipeline.dag import DagError, load_dag
from schemas import TABLES
from stages.backends import backend
from stages.detect.dlib import DlibDetect
from stages.detect.face_rows import face_rows
from stages.detect.scrfd import ScrfdDetect
from stages.pictures import decode
from stages.screen.limits import LimitsScreen
from stages.stage import Picture, Stage
from stages.weights import WeightFiles
from tests.stages.screen.test_classifiers import flat, linear, register

NO_SERVICES: Any = None  # this stage asks nothing of the outside


def rows(faces: list[dict[str, Any]]) -> pa.Table:
    """Faces as the stage gets them; what a dictionary leaves out is that of a good face."""
    good = {
        "box": [10.0, 10.0, 110.0, 110.0],
        "side": 100.0,
        "sharpness": 100.0,
        "faces_in_image": 1,
    }
    made = []
    for number, face in enumerate(faces):
        values = {**good, **face}
        ids = {"identity_id": "p", "image_id": values.pop("image_id", "i"), "face_id": f"f{number}"}
        made.append({**ids, **{f"faces.{name}": value for name, value in values.items()}})
    return pa.Table.from_pylist(made)


def screen(
    params: Mapping[str, Any],
    faces: list[dict[str, Any]],
    pictures: Mapping[str, np.ndarray],
    files: Any = None,
) -> list[dict[str, Any]]:
    stage = LimitsScreen(params)
    stage.setup(files)
    return stage.run(
        rows(faces), {name: Picture(name, rgb) for name, rgb in pictures.items()}, NO_SERVICES
    ).to_pylist()


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    """An image of 400 x 300 that misses no limit."""
    return np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)


def test_a_good_face_is_ok_with_its_values(noise: np.ndarray) -> None:
    [row] = screen({}, [{}], {"i": noise})
    assert (row["status"], row["reason"], row["detail"], row["compared"]) == (
        "ok",
        None,
        None,
        None,
    )
    assert (row["picture_side"], row["face_side"], row["sharpness"]) == (300, 100, 100)
    assert (
        row["aspect"] == pytest.approx(4 / 3, rel=1e-6)
        and row["chroma"] > 10
        and row["brightness"] == pytest.approx(127, abs=3)
    )
    assert row["nsfw"] is None and row["age"] is None


@pytest.mark.parametrize(
    ("params", "face", "shape", "reason", "detail"),
    [
        (
            {},
            {"side": 39.9},
            (300, 400),
            "small_face",
            "the face has a side of 40 pixels, the least is 40",
        ),
        (
            {},
            {"sharpness": 3.0},
            (300, 400),
            "blurred",
            "the face's sharpness is 3.0, the least is 20",
        ),
        (
            {},
            {},
            (99, 200),
            "small_picture",
            "the image's shorter side is 99 pixels, the least is 100",
        ),
        (
            {},
            {},
            (100, 301),
            "extreme_aspect",
            "the image's sides are as 3.0 to 1, the most is 3 to 1",
        ),
        ({"min_contrast": 90}, {}, (300, 400), "flat", "the face's grey levels spread by"),
        ({"min_brightness": 200}, {}, (300, 400), "dark", "the face's mean grey level is 12"),
        ({"max_brightness": 20}, {}, (300, 400), "overexposed", "the face's mean grey level is 12"),
    ],
)
def test_a_missed_limit_is_a_reason_with_value_and_limit(
    noise: np.ndarray,
    params: dict[str, Any],
    face: dict[str, Any],
    shape: tuple[int, int],
    reason: str,
    detail: str,
) -> None:
    picture = np.resize(noise, (*shape, 3))
    [row] = screen(params, [face], {"i": picture})
    assert (row["status"], row["reason"], row["compared"]) == ("filtered", reason, False)
    assert row["detail"].startswith(detail)
    limits = {
        name: None
        for name in LimitsScreen.Parameters.model_fields
        if name.startswith(("min_", "max_"))
    }
    assert screen(limits, [face], {"i": picture})[0]["status"] == "ok", "null switches a limit off"


def test_grey_pictures_are_filtered_only_if_somebody_asks(noise: np.ndarray) -> None:
    grey = np.repeat(noise[:, :, :1], 3, axis=2)
    assert screen({}, [{}], {"i": grey})[0]["status"] == "ok"
    [row] = screen({"min_chroma": 3}, [{}], {"i": grey})
    assert (row["reason"], row["detail"]) == (
        "greyscale",
        "the image's colours spread by 0.0, the least is 3",
    )
    assert screen({"min_chroma": 3}, [{}], {"i": noise})[0]["status"] == "ok"


def test_a_collage_needs_two_faces(noise: np.ndarray) -> None:
    """A portrait before a poster's edge would be lost."""
    halves = np.concatenate(
        [np.full((300, 200, 3), 20, np.uint8), np.full((300, 200, 3), 220, np.uint8)], axis=1
    )
    assert screen({}, [{"faces_in_image": 1}], {"i": halves})[0]["status"] == "ok"
    [row] = screen({}, [{"faces_in_image": 2}], {"i": halves})
    assert (row["reason"], row["detail"]) == (
        "collage",
        "an edge runs across the image, clear by 1.00; the most is 0.65",
    )


def test_all_missed_limits_are_named_and_the_gravest_is_the_reason(noise: np.ndarray) -> None:
    [row] = screen({}, [{"side": 5.0, "sharpness": 1.0}], {"i": noise[:50, :60]})
    assert row["reason"] == "small_picture"
    assert [part.split()[1] for part in row["detail"].split("; ")] == ["image's", "face", "face's"]


def test_a_face_is_compared_if_all_that_it_misses_allows_it(noise: np.ndarray) -> None:
    params = {"min_chroma": 3, "compared": ["greyscale"]}
    grey = np.repeat(noise[:, :, :1], 3, axis=2)
    found = screen(
        params,
        [{"image_id": "grey"}, {"image_id": "grey", "sharpness": 1.0}, {}],
        {"grey": grey, "i": noise},
    )
    assert [row["compared"] for row in found] == [True, False, None]


@pytest.mark.slow
def test_a_face_has_the_same_row_whatever_is_beside_it(astronaut: bytes, t1: Path) -> None:
    pictures = {"a": decode(astronaut), "t": decode(t1.read_bytes())}
    detect = DlibDetect()
    detect.setup(WeightFiles())
    stage = LimitsScreen()
    stage.setup(WeightFiles())
    everything = faces_of(detect, pictures)
    there = {name: Picture(name, rgb) for name, rgb in pictures.items()}
    together = stage.run(everything, there, NO_SERVICES)
    alone = [
        stage.run(everything.slice(at, 1), there, NO_SERVICES) for at in range(everything.num_rows)
    ]
    assert everything.num_rows > 6
    assert together.equals(pa.concat_tables(alone))


def faces_of(detect: Stage, pictures: Mapping[str, np.ndarray]) -> pa.Table:
    """The faces that a detector finds, as the stage gets them."""
    listed = pa.table({"identity_id": ["p"] * len(pictures), "image_id": list(pictures)})
    found = detect.run(
        listed, {name: Picture(name, rgb) for name, rgb in pictures.items()}, NO_SERVICES
    )
    found = found.filter(pa.compute.equal(found["status"], "ok"))
    ids = ("identity_id", "image_id", "face_id")
    return found.rename_columns(
        [name if name in ids else f"faces.{name}" for name in found.column_names]
    )


def test_a_blurred_or_shrunk_face_is_filtered(astronaut: bytes) -> None:
    rgb = decode(astronaut)
    box = np.array([175.0, 76.0, 265.0, 166.0])
    pictures = {
        "sharp": (rgb, box),
        "blurred": (cv2.GaussianBlur(rgb, (0, 0), 4), box),
        "small": (cv2.resize(rgb, (200, 200), interpolation=cv2.INTER_AREA), box * 200 / 512),
    }
    found = {}
    for name, (picture, at) in pictures.items():
        face = face_rows(
            {"identity_id": "p", "image_id": name},
            picture,
            at[None],
            np.zeros((1, 5, 2)),
            np.ones(1),
            "dlib5",
            1.0,
        )[0]
        given = {
            key: face[key] for key in ("image_id", "box", "side", "sharpness", "faces_in_image")
        }
        [row] = screen({}, [given], {name: picture})
        found[name] = row["reason"]
    assert found == {"sharp": None, "blurred": "blurred", "small": "small_face"}


@pytest.mark.slow
@pytest.mark.parametrize("detector", [DlibDetect, ScrfdDetect])
def test_the_limits_by_default_keep_good_photographs(
    detector: type[Stage], photos: Path, models_dir: Path
) -> None:
    """Measured on all 868 that are marked ok: 863 with dlib, 868 with SCRFD. Here one of each
    person.
    """
    detect, stage = detector(), LimitsScreen()
    for one in (detect, stage):
        one.setup(WeightFiles(str(models_dir)))
    kept = []
    for path in sorted(photos.glob("*/002.jpg")):
        pictures = {"i": decode(path.read_bytes())}
        faces = faces_of(detect, pictures)
        largest = faces.slice(int(np.argmax(faces["faces.side"].to_numpy())), 1)
        kept += stage.run(largest, {"i": Picture("i", pictures["i"])}, NO_SERVICES)[
            "status"
        ].to_pylist()
    assert len(kept) > 70
    assert kept.count("ok") >= 0.98 * len(kept)


# models


def test_models_measure_pictures_and_faces(
    noise: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(
        monkeypatch,
        linear(tmp_path / "our_nsfw.onnx", 8, flat(2), np.array([0.2, 0.8])),
        "nsfw/picture",
    )
    register(
        monkeypatch,
        linear(tmp_path / "our_age.onnx", 8, flat(3), np.array([0.0, 0.0, 0.16])),
        "age/face",
    )
    files = WeightFiles(str(tmp_path))
    models = {"nsfw_model": "our_nsfw", "age_model": "our_age"}
    assert LimitsScreen(models).weights == ("our_nsfw", "our_age"), (
        "their hashes become part of the version"
    )
    [row] = screen(models, [{}], {"i": noise}, files)
    assert (row["status"], row["nsfw"], row["age"]) == (
        "ok",
        pytest.approx(0.8),
        pytest.approx(16),
    ), "a model alone filters nothing"
    [row] = screen(
        {**models, "max_nsfw": 0.5, "min_age": 18, "min_face_side": 101}, [{}], {"i": noise}, files
    )
    assert row["reason"] == "nsfw"
    assert row["detail"] == (
        "is not safe for work with probability 0.80, the most is 0.5; looks 16 years old, the "
        "least is 18;"
        " the face has a side of 100 pixels, the least is 101"
    )
    [row] = screen({**models, "min_age": 18}, [{}], {"i": noise}, files)
    assert row["reason"] == "minor"


@pytest.mark.parametrize(
    ("params", "said"),
    [
        (
            {"max_nsfw": 0.5},
            "max_nsfw is set but no model measures it; name one by nsfw_model (registered: "
            "falconsai_nsfw",
        ),
        (
            {"min_age": 18},
            "min_age is set but no model measures it; name one by age_model (registered: genderage",
        ),
        (
            {"age_model": "gendrage"},
            "'gendrage' names no weights of kind age; did you mean 'genderage'?",
        ),
        ({"nsfw_model": "genderage"}, "'genderage' names no weights of kind nsfw"),
        ({"compared": ["blured"]}, '"blured" is not one of'),
    ],
)
def test_a_dag_says_what_is_wrong_with_a_limit(
    tmp_path: Path, params: dict[str, Any], said: str
) -> None:
    file = tmp_path / "dag.yaml"
    stages = f"stages:\n  crawl: {{}}\n  detect: {{}}\n  screen:\n    params: {params}\n"
    file.write_text(f"name: x\nroot: out\nsource: {{kind: folder, path: people}}\n{stages}")
    with pytest.raises(DagError) as caught:
        load_dag(file)
    [problem] = caught.value.problems
    assert said in problem
    assert f"{file}:8: stages.screen.params" in problem


def test_screen_stands_in_any_dag_after_detect(tmp_path: Path) -> None:
    file = tmp_path / "dag.yaml"
    file.write_text(
        "name: x\nroot: out\nsource: {kind: folder, path: people}\nstages: {screen: {}, detect: "
        "{}, crawl: {}}\n"
    )
    assert list(load_dag(file).stages) == ["crawl", "detect", "screen"]
    assert backend("screen") is LimitsScreen
    with pytest.raises(ValidationError):
        LimitsScreen({"min_sharpnes": 3})


def test_names_and_columns_are_those_of_the_tables() -> None:
    for table, columns in LimitsScreen.reads.items():
        assert set(columns) <= set(TABLES[table].names)
