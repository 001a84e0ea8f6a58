"""ArcFace's checkpoints as a stage, in the official layout with made-up values."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pydantic import ValidationError

from stages.backends import backend
from stages.embed.arcface import TEMPLATE
from stages.embed.iresnet import IResNetEmbed
from stages.networks.iresnet import IResNet
from stages.stage import NoDevice, Picture
from stages.torch_session import BadCheckpoint
from tests.stages.networks.filled import filled
from tests.stages.one_file import OneFile

NO_SERVICES: Any = None  # this stage asks nothing of the outside
CROPS = list(np.random.default_rng(0).integers(0, 256, (7, 112, 112, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An iresnet of few blocks, no more of any kind than an official one has."""
    path = tmp_path_factory.mktemp("iresnet") / "backbone.pth"
    torch.save(filled(IResNet((1, 2, 1, 1)).state_dict()), path)
    return str(path)


def made_up(path: str, **params: Any) -> IResNetEmbed:
    """The stage on a file of no registered weights."""
    stage = IResNetEmbed(params)
    stage.setup(OneFile(path))
    return stage


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_vector_depends_on_its_face_alone(path: str, batch: int, precision: str) -> None:
    """Bit for bit: alone, at every place of a batch, beside other faces, and in a call that is no
    multiple of the batch.
    """
    stage = made_up(path, batch=batch, precision=precision)
    expected = stage.embed(CROPS)
    assert expected.shape == (7, 512) and expected.dtype == np.float32
    for i in range(4):
        assert np.array_equal(stage.embed([CROPS[i]])[0], expected[i])
        assert np.array_equal(np.roll(stage.embed(CROPS[i:] + CROPS[:i]), i, axis=0), expected)
    assert stage.embed([]).shape == (0, 512)


def test_the_network_sees_batches_of_one_size_only(path: str) -> None:
    """On chips whose kernels depend on the batch, this is what makes a vector depend on its face
    alone.
    """
    stage = made_up(path, batch=3)
    seen: set[tuple[int, ...]] = set()
    stage._network.register_forward_pre_hook(lambda module, args: seen.add(tuple(args[0].shape)))
    for count in (1, 3, 4):
        stage.embed(CROPS[:count])
    assert seen == {(3, 3, 112, 112)}


@pytest.mark.slow
def test_vectors_are_those_of_the_plain_network_on_red_green_blue(path: str) -> None:
    network = IResNet((1, 2, 1, 1)).eval()
    network.load_state_dict(torch.load(path, weights_only=True))
    shown = (torch.from_numpy(np.stack(CROPS)).permute(0, 3, 1, 2).float() - 127.5) / 127.5
    with torch.inference_mode():
        expected = network(shown).numpy()
    assert made_up(path).embed(CROPS) == pytest.approx(
        expected, abs=1e-5 * float(np.abs(expected).max())
    )
    rough = made_up(path, precision="bfloat16").embed(CROPS)
    cosines = (
        (rough * expected).sum(1) / np.linalg.norm(rough, axis=1) / np.linalg.norm(expected, axis=1)
    )
    assert 0.999 < cosines.min() < 1


def test_rows_carry_the_name_of_the_weights(path: str) -> None:
    """`clean` finds its thresholds by that name."""
    stage = made_up(path, weights="arcface_r50_ms1mv3")
    ids = {"identity_id": "0" * 16, "image_id": "1" * 24, "face_id": "2" * 24, "faces.status": "ok"}
    rows = [
        {
            **ids,
            "faces.landmarks": TEMPLATE.reshape(-1).tolist(),
            "faces.landmark_scheme": "arcface5",
        },
        {**ids, "faces.landmarks": [7.0] * 10, "faces.landmark_scheme": "arcface5"},
        {**ids, "faces.landmarks": TEMPLATE.reshape(-1).tolist(), "faces.landmark_scheme": "dlib5"},
    ]
    table = stage.run(
        pa.Table.from_pylist(rows),
        {ids["image_id"]: Picture(ids["image_id"], CROPS[0])},
        NO_SERVICES,
    )
    assert table["status"].to_pylist() == ["ok", "failed", "failed"]
    assert table["reason"].to_pylist() == [None, "bad_landmarks", "wrong_landmarks"]
    assert table["recogniser"].to_pylist() == ["arcface_r50_ms1mv3"] * 3
    expected = stage.embed([CROPS[0]])[0]
    assert table["vector"][0].as_py() == pytest.approx(
        expected / np.linalg.norm(expected), abs=1e-6
    )


def test_the_depth_is_read_from_the_file(path: str) -> None:
    assert [
        len(layer) for layer in (made_up(path)._network.layer1, made_up(path)._network.layer2)
    ] == [1, 2]


def test_another_networks_file_is_refused(path: str, tmp_path: Path) -> None:
    state = torch.load(path, weights_only=True)
    other = tmp_path / "other.pth"
    torch.save(
        {name: value for name, value in state.items() if not name.startswith("layer3.")}, other
    )
    with pytest.raises(BadCheckpoint, match=r"other\.pth: no iresnet of arcface_torch"):
        made_up(str(other))
    torch.save({**state, "logits.weight": torch.zeros(2)}, other)
    with pytest.raises(BadCheckpoint, match=r"has unknown logits.weight \(1\)"):
        made_up(str(other))
    torch.save({**state, "bn1.weight": torch.zeros(2)}, other)
    with pytest.raises(BadCheckpoint, match=r"has another shape for bn1.weight \(1\)"):
        made_up(str(other))


def test_the_backend_is_there_and_takes_its_own_weights_only() -> None:
    assert backend("embed", "iresnet") is IResNetEmbed
    assert IResNetEmbed().recogniser == "arcface_r100_ms1mv3"
    with pytest.raises(ValidationError, match="names no weights of kind embed/iresnet"):
        IResNetEmbed({"weights": "glintr100"})


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_told(path: str) -> None:
    stage = IResNetEmbed()
    stage.device = "cuda"
    with pytest.raises(NoDevice, match="torch sees none"):
        stage.setup(OneFile(path))
