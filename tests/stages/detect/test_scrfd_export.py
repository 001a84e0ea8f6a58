"""Exports of SCRFD: whatever a file looks like, the same faces come out, or an error that says what
would do.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from stages.detect.scrfd_export import Raw, open_export
from stages.onnx_session import WrongModel
from tests.stages.detect.tiny_scrfd import USUAL, Layout, write

SHUFFLED = [USUAL[i] for i in (5, 0, 7, 2, 3, 8, 1, 6, 4)]


def blob(count: int, side: int = 128) -> np.ndarray:
    return (
        np.random.default_rng(1)
        .uniform(-1, 1, (count, 3, side, side))
        .astype(np.float32)
        .cumsum(axis=3)
        / 8
    )


def same(one: list[Raw], other: list[Raw]) -> bool:
    pairs = zip(one, other, strict=True)
    names = ("scores", "boxes", "points")
    return all(
        np.allclose(getattr(a, name), getattr(b, name), atol=1e-5)
        for a, b in pairs
        for name in names
    )


@pytest.mark.parametrize("layout", ["batched", "hidden", "flat"])
@pytest.mark.parametrize("batch", [1, 3, "n"])
@pytest.mark.parametrize("size", [("h", "w"), (128, 128)])
@pytest.mark.parametrize("outputs", [USUAL, SHUFFLED])
def test_every_layout_says_the_same(
    tmp_path: Path, layout: Layout, batch: int | str, size: Any, outputs: list[str]
) -> None:
    usual = open_export(write(tmp_path / "usual.onnx"), 1, 1)
    export = open_export(
        write(tmp_path / "x.onnx", layout, batch, size, outputs), 1 if batch == 1 else 3, 1
    )
    assert (export.batch, export.side) == (1 if batch == 1 else 3, None if size[0] == "h" else 128)
    pictures = blob(export.batch)
    found = export.forward(pictures)
    assert len(found) == export.batch
    for i, raw in enumerate(found):
        assert [level.scores.shape for level in raw] == [(256, 2), (64, 2), (16, 2)]
        assert [level.points.shape for level in raw] == [(256, 2, 10), (64, 2, 10), (16, 2, 10)]
        assert same(raw, usual.forward(pictures[i : i + 1])[0])


def test_a_free_batch_is_run_one_by_one_unless_asked_otherwise(tmp_path: Path) -> None:
    path = write(tmp_path / "x.onnx", "hidden")
    assert [open_export(path, batch, 1).batch for batch in (1, 5)] == [1, 5]


WITHOUT_POINTS = [name for name in USUAL if "points" not in name]


@pytest.mark.parametrize(
    ("made", "batch", "told"),
    [
        (
            {"outputs": WITHOUT_POINTS},
            1,
            "without keypoints; aligning a face needs five points: take a bnkps or kps export",
        ),
        (
            {"outputs": USUAL[:8]},
            1,
            r"not an SCRFD with scores, boxes and keypoints .* it gives score_8 \(1, 128, 1\), ",
        ),
        ({"anchors": 3}, 1, "with 2 anchors: for 1 x 3 x 64 x 64 it gives"),
        ({"batch": 1}, 4, "one image at a time; set batch: 1, or export it with a batch dimension"),
        (
            {"size": (480, 640)},
            1,
            "takes images of 480 x 640; export it for any size, or for a square",
        ),
        ({"size": (100, 100)}, 1, "takes images of 100 x 100"),
        ({"size": (640, "w")}, 1, "takes images of 640 x w"),
        ({"sigmoid": False}, 1, "scores are no probabilities .* export the sigmoid too"),
        (
            {"element": TensorProto.FLOAT16},
            1,
            r"'x' is tensor\(float16\); export it with float32 input",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_with_what_would_do(
    tmp_path: Path, made: dict[str, Any], batch: int, told: str
) -> None:
    path = write(tmp_path / "x.onnx", **made)
    with pytest.raises(WrongModel, match=told) as error:
        open_export(path, batch, 1)
    assert str(error.value).startswith(path)


def save(path: Path, operator: str, shapes: dict[str, tuple[int, ...]]) -> None:
    """A model of one operator whose inputs have these shapes."""
    fed = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    ]
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    graph = helper.make_graph(
        [helper.make_node(operator, list(shapes), ["out"])], operator, fed, [out]
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8),
        str(path),
    )


@pytest.mark.parametrize(
    ("operator", "shapes", "told"),
    [
        ("Relu", {"x": (1, 64, 64, 3)}, "channels last"),
        ("Relu", {"x": (1, 3)}, r"is \[1, 3\]; it has to be \(n, 3, height, width\)"),
        ("Relu", {"x": (1, 3, 64, 64)}, r"not an SCRFD .* it gives out \(1, 3, 64, 64\)"),
        ("Add", {"x": (1, 3, 64, 64), "z": (1, 3, 64, 64)}, r"has 2 inputs \(x, z\)"),
    ],
)
def test_a_model_of_something_else_is_refused(
    tmp_path: Path, operator: str, shapes: dict[str, tuple[int, ...]], told: str
) -> None:
    save(tmp_path / "x.onnx", operator, shapes)
    with pytest.raises(WrongModel, match=told):
        open_export(str(tmp_path / "x.onnx"), 1, 1)


def test_a_file_that_is_no_model_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    whole = Path(write(path)).read_bytes()
    for data in (b"", b"<html>not found</html>", whole[: len(whole) // 2]):
        path.write_bytes(data)
        with pytest.raises(WrongModel, match=r"x\.onnx: not an ONNX model") as error:
            open_export(str(path), 1, 1)
        assert "\n" not in str(error.value)


def test_the_published_export_batches_once_its_input_is_freed(
    tmp_path: Path, models_dir: Path
) -> None:
    """As it is, it declares one image; its rows are (row, column, image, anchor), and every
    image keeps its own.
    """
    path = str(models_dir / "detect" / "scrfd_2.5g_bnkps.onnx")
    with pytest.raises(WrongModel, match="one image at a time"):
        open_export(path, 2, 1)
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"
    onnx.save(model, str(tmp_path / "freed.onnx"))
    one, three = open_export(path, 1, 1), open_export(str(tmp_path / "freed.onnx"), 3, 1)
    assert three.hidden
    pictures = blob(3)
    for i, raw in enumerate(three.forward(pictures)):
        assert same(raw, one.forward(pictures[i : i + 1])[0])
