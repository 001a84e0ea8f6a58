"""Classifiers in ONNX: pixels in the right place and order, outputs read as what they are."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from stages.onnx_session import WrongModel
from stages.pictures import decode
from stages.screen.classifiers import Classifier, is_distribution, softmax
from stages.weights import WEIGHTS, Weights


def linear(
    path: Path, side: int, weights: np.ndarray, bias: np.ndarray, shape: tuple[Any, ...] = ("n", 3)
) -> Path:
    """An ONNX file whose outputs are linear in the pixels: `weights` (3 * side * side, classes)."""
    nodes = [
        helper.make_node("Sub", ["data", "zero"], ["shifted"], name="Sub0"),
        helper.make_node("Mul", ["shifted", "one"], ["scaled"], name="Mul0"),
        helper.make_node("Flatten", ["scaled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weights", "bias"], ["out"]),
    ]
    constants = {"zero": np.zeros(1), "one": np.ones(1), "weights": weights, "bias": bias}
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, [*shape, side, side])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [shape[0], weights.shape[1]])],
        [
            numpy_helper.from_array(value.astype(np.float32), name)
            for name, value in constants.items()
        ],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path
    )
    return path


def register(
    patch: pytest.MonkeyPatch,
    path: Path,
    kind: str,
    normalisation: tuple[float, float] = (0.0, 1.0),
) -> str:
    """Make the file known by its stem."""
    data = path.read_bytes()
    entry = Weights(
        path.stem,
        path.name,
        hashlib.sha256(data).hexdigest(),
        len(data),
        "MIT",
        "any",
        "made up",
        kind=kind,
        normalisation=normalisation,
    )
    patch.setitem(WEIGHTS, path.stem, entry)
    return path.stem


def classifier(
    patch: pytest.MonkeyPatch,
    path: Path,
    kind: str,
    normalisation: tuple[float, float] = (0.0, 1.0),
) -> Classifier:
    name = register(patch, path, kind, normalisation)
    return Classifier(WEIGHTS[name], str(path), 1, "cpu")


def flat(classes: int, side: int = 8) -> np.ndarray:
    """Weights that see nothing, so that the bias is the output."""
    return np.zeros((3 * side * side, classes))


def test_ages_are_those_of_insightface(
    tmp_path: Path, astronaut: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crop that is shifted or has red for blue would make everybody older or younger. Every pixel
    counts in this model.
    """
    attribute = pytest.importorskip("insightface.model_zoo.attribute")
    rng = np.random.default_rng(0)
    path = linear(
        tmp_path / "genderage.onnx",
        96,
        rng.normal(0, 1e-5, (3 * 96 * 96, 3)),
        np.array([0.0, 0.0, 0.4]),
    )
    rgb = decode(astronaut)
    mine, theirs = classifier(monkeypatch, path, "age/face"), attribute.Attribute(str(path))
    ages = []
    for box in (
        [175.3, 76.2, 265.9, 166.4],
        [-20.0, -30.0, 90.5, 60.0],
        [400.0, 300.0, 620.0, 590.0],
    ):
        _, age = theirs.get(np.ascontiguousarray(rgb[:, :, ::-1]), _Face(bbox=np.array(box)))
        ages.append(mine.of_face(rgb, np.array(box)))
        assert ages[-1] == pytest.approx(age, abs=0.51)
    assert np.ptp(ages) > 3


class _Face(dict[str, Any]):
    """What insightface passes around: a dictionary with attributes."""

    def __init__(self, bbox: np.ndarray) -> None:
        super().__init__()
        self.bbox = bbox


def test_an_age_over_classes_is_their_mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bias = np.full(101, -1000.0)
    bias[[20, 30]] = np.log([0.25, 0.75])
    found = classifier(monkeypatch, linear(tmp_path / "dex.onnx", 8, flat(101), bias), "age/face")
    assert found.of_face(
        np.zeros((50, 50, 3), np.uint8), np.array([10, 10, 30, 30])
    ) == pytest.approx(27.5)


@pytest.mark.parametrize(
    ("bias", "expected"),
    [
        ([0.1, 0.9], 0.9),
        ([0.0, np.log(3)], 0.75),
        ([2.0, -2.0], 0.018),
        ([0.1, 0.2, 0.3, 0.25, 0.15], 0.6),
    ],
)
def test_probabilities_and_logits_of_two_and_five_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bias: list[float], expected: float
) -> None:
    path = linear(tmp_path / "nsfw.onnx", 8, flat(len(bias)), np.array(bias))
    assert classifier(monkeypatch, path, "nsfw/picture").of_picture(
        np.zeros((30, 20, 3), np.uint8)
    ) == pytest.approx(expected, abs=1e-3)


def test_pixels_are_normalised_and_in_the_order_red_green_blue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = np.zeros((3, 8, 8, 2))
    weights[0, :, :, 1] = 1 / 64  # the mean of red is the logit
    path = linear(tmp_path / "red.onnx", 8, weights.reshape(-1, 2), np.zeros(2))
    found = classifier(monkeypatch, path, "nsfw/picture", (127.5, 127.5))
    picture = np.zeros((30, 60, 3), np.uint8)
    picture[:, :, 0] = 255
    assert found.of_picture(picture) == pytest.approx(1 / (1 + np.exp(-1.0)))
    assert found.of_picture(picture[:, :, ::-1]) == pytest.approx(1 / (1 + np.exp(1.0)))


def test_a_fixed_batch_is_filled_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = linear(tmp_path / "four.onnx", 8, flat(2), np.array([0.3, 0.7]), (4, 3))
    assert classifier(monkeypatch, path, "nsfw/picture").of_picture(
        np.zeros((9, 9, 3), np.uint8)
    ) == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("kind", "classes"), [("nsfw/picture", 3), ("age/face", 2), ("age/face", 8)]
)
def test_a_model_of_another_kind_is_refused_when_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, classes: int
) -> None:
    """Its numbers would be taken for ages."""
    path = linear(tmp_path / "other.onnx", 8, flat(classes), np.zeros(classes))
    with pytest.raises(WrongModel, match=r"other\.onnx: its output is"):
        classifier(monkeypatch, path, kind)


def test_logits_that_happen_to_add_up_to_one_are_logits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One image in a thousand would be taken for not safe for work with the certainty of its
    logit.
    """
    weights = np.zeros((3, 8, 8, 2))
    weights[:, :, :, 0] = 1 / 192
    path = linear(tmp_path / "logits.onnx", 8, weights.reshape(-1, 2), np.array([0.0, 1.0]))
    found = classifier(monkeypatch, path, "nsfw/picture", (0.0, 255.0))
    assert found.of_picture(np.zeros((8, 8, 3), np.uint8)) == pytest.approx(1 / (1 + np.exp(-1.0)))


def test_softmax_bears_large_logits() -> None:
    assert softmax(np.array([1000.0, 0.0])).tolist() == [1.0, 0.0]
    assert is_distribution(softmax(np.array([-1.0, 1.0, 1.0]))) and not is_distribution(
        np.array([0.5, 0.6])
    )


@pytest.mark.parametrize("name", ["genderage", "falconsai_nsfw"])
def test_registered_classifiers_are_pinned_and_of_a_kind_that_can_be_read(name: str) -> None:
    assert WEIGHTS[name].sha256 and WEIGHTS[name].bytes and WEIGHTS[name].address
    assert WEIGHTS[name].kind in ("age/face", "nsfw/picture")
