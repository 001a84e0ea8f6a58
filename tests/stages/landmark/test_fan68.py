"""68 points by heat maps: what the network sees, and where its peaks end up in the image."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest
import torch

from schemas import TABLES
from stages.backends import backend
from stages.landmark.dlib68 import Dlib68Landmark
from stages.landmark.fan68 import MIRROR, Fan68Landmark, crop, decode, frame, in_picture
from stages.networks.fan import Fan
from stages.pictures import decode as decode_picture
from stages.stage import Picture
from stages.torch_session import BadCheckpoint
from stages.weights import WEIGHTS, MissingWeights, WeightFiles

NO_SERVICES: Any = None  # this stage asks nothing of the outside
BOX = [175.0, 76.0, 265.0, 166.0]


def rows(
    boxes: list[list[float]], scheme: str = "arcface5", images: list[str] | None = None
) -> pa.Table:
    count = len(boxes)
    return pa.table(
        {
            "identity_id": ["p"] * count,
            "image_id": images or ["i"] * count,
            "face_id": [f"f{n}" for n in range(count)],
            "faces.box": pa.array(boxes, pa.list_(pa.float32())),
            "faces.landmark_scheme": [scheme] * count,
            "faces.status": ["ok"] * count,
            "images.status": ["ok"] * count,
        }
    )


def checkpoint(
    path: Path,
    state: dict[str, torch.Tensor],
    monkeypatch: pytest.MonkeyPatch,
    name: str = "fan68_4hg",
) -> WeightFiles:
    """A models directory with `state` as the registered file `name`."""
    torch.save(state, path)
    body = path.read_bytes()
    entry = replace(
        WEIGHTS[name],
        file=path.name,
        sha256=hashlib.sha256(body).hexdigest(),
        bytes=len(body),
        sha256_prefix=None,
    )
    monkeypatch.setitem(WEIGHTS, name, entry)
    return WeightFiles(str(path.parent))


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Fan68Landmark:
    """With one hourglass and random weights, in the layout of the published checkpoints."""
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as monkeypatch:
        state = {
            f"module.{name}": value
            for name, value in Fan(1).state_dict().items()
            if not name.endswith("num_batches_tracked")
        }
        files = checkpoint(tmp_path_factory.mktemp("models") / "fan.pth.tar", state, monkeypatch)
        made = backend("landmark", "fan68")({"batch": 2})
        assert isinstance(made, Fan68Landmark)
        made.setup(files)
    return made


@pytest.mark.slow
def test_rows_are_right_and_depend_on_their_face_alone(
    stage: Fan68Landmark, astronaut: bytes
) -> None:
    """Whoever resumes a run cuts its batches elsewhere and must get the same bytes."""
    rgb = decode_picture(astronaut)
    rgb.flags.writeable = False
    boxes = [BOX, [160.0, 60.0, 280.0, 190.0], [-20.0, -10.0, 120.0, 90.0]]
    whole = stage.run(rows(boxes), {"i": Picture("i", rgb)}, NO_SERVICES)
    TABLES["landmarks"].check(
        whole.append_column("inputs", pa.array([b"8 bytes."] * 3, pa.binary(8))), "test"
    )
    assert whole["scheme"].to_pylist() == ["fan68"] * 3
    assert {len(points) for points in whole["points"].to_pylist()} == {136}
    for i in range(3):
        alone = stage.run(rows(boxes).slice(i, 1), {"i": Picture("i", rgb)}, NO_SERVICES)
        assert alone.equals(whole.slice(i, 1))
    assert stage.run(rows([]), {}, NO_SERVICES).num_rows == 0


def dots(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image with soft dots in red, one brightest pixel each."""
    rgb = np.zeros((*size, 3), np.float32)
    for x, y in points:
        rgb[round(y), round(x), 0] = 1
    soft = np.asarray(cv2.GaussianBlur(rgb, (0, 0), 5))
    return (soft * (255 / soft.max())).astype(np.uint8)


@pytest.mark.parametrize("rule", ["face_alignment", "ibug", "auto"])
@pytest.mark.parametrize("mirror", [True, False])
def test_a_peak_in_the_heat_map_is_found_in_the_picture(
    monkeypatch: pytest.MonkeyPatch, rule: str, mirror: bool
) -> None:
    """Crop, mirrored crop, heat maps and the way back, with a network that marks what is red."""
    made = Fan68Landmark({"crop": rule, "mirror": mirror})
    asked = []

    def red(pixels: torch.Tensor) -> torch.Tensor:
        asked.append(pixels)
        return torch.nn.functional.avg_pool2d(pixels[:, :1], 4).expand(-1, 68, -1, -1)

    monkeypatch.setattr(made, "_network", red, raising=False)
    spots = {"a": (140.0, 150.0), "b": (30.0, 12.0), "c": (288.0, 196.0)}
    boxes = {
        "a": [90.0, 80.0, 190.0, 220.0],
        "b": [-15.0, -20.0, 55.0, 60.0],
        "c": [230.0, 130.0, 330.0, 260.0],
    }
    pictures = {
        name: Picture(name, dots(np.array([spot]), (200, 300))) for name, spot in spots.items()
    }
    table = made.run(rows(list(boxes.values()), images=list(boxes)), pictures, NO_SERVICES)
    for spot, box, points in zip(
        spots.values(), boxes.values(), table["points"].to_pylist(), strict=True
    ):
        cell = 2.06 * (box[2] - box[0] + box[3] - box[1]) / 2 / 64
        assert np.abs(np.array(points).reshape(68, 2) - spot).max() < cell
    assert len(asked) == 1 + mirror
    assert asked[0].shape == (4, 3, 256, 256)
    assert 0.9 < float(asked[0].max()) <= 1


def test_mirrored_points_are_the_right_ones(astronaut: bytes) -> None:
    """A wrong pair would pull two points of the face onto each other."""
    predictor = Dlib68Landmark()
    predictor.setup(WeightFiles())
    rgb = decode_picture(astronaut)
    width = rgb.shape[1]
    box = [width - 1 - BOX[2], BOX[1], width - 1 - BOX[0], BOX[3]]
    found = [
        np.array(
            predictor.run(rows([one], "dlib5"), {"i": Picture("i", picture)}, NO_SERVICES)[
                "points"
            ][0].as_py()
        ).reshape(68, 2)
        for one, picture in ((BOX, rgb), (box, np.ascontiguousarray(rgb[:, ::-1])))
    ]
    turned = found[1][MIRROR] * (-1, 1) + (width - 1, 0)
    assert np.linalg.norm(turned - found[0], axis=1).max() < 8
    assert (MIRROR[MIRROR] == np.arange(68)).all()


def test_peaks_are_moved_towards_the_higher_neighbour() -> None:
    maps = np.zeros((1, 3, 64, 64), np.float32)
    maps[0, 0, 20, 30] = 1
    maps[0, 0, 20, 31], maps[0, 0, 19, 30] = 0.5, 0.5
    maps[0, 1, 0, 63] = 1
    maps[0, 1, 0, 62] = 0.5
    maps[0, 2, 5, 5] = np.nan
    cells = decode(maps)
    assert cells[0, 0].tolist() == [30.75, 20.25]
    assert cells[0, 1].tolist() == [63.5, 0.5]
    assert np.isnan(cells[0, 2]).all()


def test_the_crop_has_the_size_and_place_of_the_rule() -> None:
    """Size and centre are what the network was trained with."""
    centre, side = frame(np.array([100.0, 80.0, 200.0, 230.0]), 400 / 195, 0.12)
    assert centre.tolist() == [150, 155 - 18]
    assert side == pytest.approx(200 * 250 / 195)
    corners = in_picture(np.array([[0.0, 0.0], [64.0, 64.0]]), centre, side)
    assert corners[1] - corners[0] == pytest.approx(side)
    rgb = np.zeros((300, 300, 3), np.uint8)
    rgb[100:180, 110:190] = 255
    cut = crop(rgb, centre, side)
    assert cut is not None
    assert (cut[:, :, 0] > 128).sum() * (side / 256) ** 2 == pytest.approx(80 * 80, rel=0.03)


@pytest.mark.slow
def test_boxes_beside_the_picture_fail_by_themselves(
    stage: Fan68Landmark, astronaut: bytes
) -> None:
    picture = Picture("i", decode_picture(astronaut))
    boxes = [
        [900.0, 900.0, 950.0, 960.0],
        BOX,
        [float("nan")] * 4,
        [0.0, 0.0, 1e7, 1e7],
        [60.0] * 4,
        [50.0, 50.0, 20.0, 20.0],
    ]
    table = stage.run(rows(boxes), {"i": picture}, NO_SERVICES)
    assert table["status"].to_pylist() == ["failed", "ok", "failed", "failed", "failed", "failed"]
    assert set(table["reason"].to_pylist()) == {"bad_box", None}
    assert table.slice(1, 1)["points"].equals(
        stage.run(rows([BOX]), {"i": picture}, NO_SERVICES)["points"]
    )


def test_a_network_gone_wrong_gives_no_points(
    monkeypatch: pytest.MonkeyPatch, astronaut: bytes
) -> None:
    made = Fan68Landmark()
    monkeypatch.setattr(
        made,
        "_network",
        lambda pixels: torch.full((len(pixels), 68, 64, 64), float("nan")),
        raising=False,
    )
    table = made.run(rows([BOX]), {"i": Picture("i", decode_picture(astronaut))}, NO_SERVICES)
    assert (table["status"][0].as_py(), table["reason"][0].as_py()) == ("failed", "bad_landmarks")


def test_foreign_and_missing_files_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MissingWeights, match="fan68_4hg"):
        Fan68Landmark().setup(WeightFiles(str(tmp_path)))
    files = checkpoint(tmp_path / "other.pth", {"fc.weight": torch.ones(2)}, monkeypatch)
    with pytest.raises(
        BadCheckpoint,
        match=r"other\.pth: not a FAN: it has no heat maps \(l0\.weight\); it begins with "
        r"fc\.weight",
    ):
        Fan68Landmark().setup(files)
    state = Fan(1).state_dict()
    del state["conv1.bias"]
    state["extra.weight"] = torch.ones(1)
    files = checkpoint(tmp_path / "half.pth", state, monkeypatch)
    with pytest.raises(
        BadCheckpoint, match=r"half\.pth: lacks conv1\.bias \(1\); has unknown extra\.weight \(1\)"
    ):
        Fan68Landmark().setup(files)
    with pytest.raises(ValueError, match="names no weights of kind landmark/fan68"):
        Fan68Landmark({"weights": "dlib_68_points"})


@pytest.mark.slow
def test_emonets_file_serves_as_a_fan_of_two_hourglasses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It carries a head of its own, and its FAN halves sizes by the maximum."""
    torch.manual_seed(0)
    network = Fan(2, "max")
    state = {
        **network.state_dict(),
        "emo_fc_2.0.weight": torch.ones(3, 3),
        "conv1x1_input_emo_2.bias": torch.ones(3),
    }
    files = checkpoint(
        tmp_path / "emonet_8.pth",
        {f"module.{name}": value for name, value in state.items()},
        monkeypatch,
        "fan68_2hg",
    )
    made = Fan68Landmark({"weights": "fan68_2hg", "mirror": False, "batch": 1})
    made.setup(files)
    picture = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    with torch.inference_mode():
        expected = network.eval()(
            torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
        ).numpy()
    assert np.allclose(made.heat_maps([picture]), expected, rtol=1e-4, atol=1e-5)
