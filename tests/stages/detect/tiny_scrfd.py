"""A made-up SCRFD of a few kilobytes that finds bright squares, in all the ways in which real ones
are exported.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Layout = Literal["batched", "hidden", "flat"]
"""Outputs (batch, places, width); (row, column, image, anchor) in one; (image, row, column,
anchor) in one.
"""

_PERMUTE = {"batched": (0, 2, 3, 1), "hidden": (2, 3, 0, 1), "flat": (0, 2, 3, 1)}
USUAL = [f"{what}_{stride}" for what in ("score", "box", "points") for stride in (8, 16, 32)]


def write(
    path: Path,
    layout: Layout = "batched",
    batch: int | str = "n",
    size: tuple[int | str, int | str] = ("h", "w"),
    outputs: list[str] = USUAL,
    sigmoid: bool = True,
    anchors: int = 2,
    element: int = TensorProto.FLOAT,
) -> str:
    """The path as a string; the network is the same whatever the layout."""
    rng = np.random.default_rng(0)
    nodes: list[Any] = []
    constants: list[Any] = []

    def constant(name: str, values: np.ndarray) -> str:
        constants.append(numpy_helper.from_array(values, name))
        return name

    kind = helper.tensor_dtype_to_np_dtype(element)
    for stride in (8, 16, 32):
        square = [stride, stride]
        nodes.append(
            helper.make_node(
                "AveragePool", ["x"], [f"mean_{stride}"], kernel_shape=square, strides=square
            )
        )
        for what, width in (("score", 1), ("box", 4), ("points", 10)):
            name, channels = f"{what}_{stride}", anchors * width
            # A bright square scores above 0.5, and all it says depends on its colours.
            weight = (
                np.full((channels, 3, 1, 1), 3.0)
                if what == "score"
                else rng.uniform(0.1, 0.3, (channels, 3, 1, 1))
            )
            bias = np.full(channels, -6.0) if what == "score" else rng.uniform(0.5, 1.5, channels)
            fed = [
                f"mean_{stride}",
                constant(f"{name}_w", weight.astype(kind)),
                constant(f"{name}_b", bias.astype(kind)),
            ]
            nodes.append(helper.make_node("Conv", fed, [f"{name}_maps"]))
            last = f"{name}_maps"
            if what == "score" and sigmoid:
                nodes.append(helper.make_node("Sigmoid", [last], [last := f"{name}_sure"]))
            nodes.append(
                helper.make_node("Transpose", [last], [f"{name}_turned"], perm=_PERMUTE[layout])
            )
            rows = [0, -1, width] if layout == "batched" else [-1, width]
            nodes.append(
                helper.make_node(
                    "Reshape", [f"{name}_turned", constant(f"{name}_rows", np.array(rows))], [name]
                )
            )
    free = [None, None, None] if layout == "batched" else [None, None]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", element, [batch, 3, *size])],
        [helper.make_tensor_value_info(name, element, free) for name in outputs],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, str(path))
    return str(path)


def bright(width: int, height: int, *squares: tuple[int, int, int]) -> np.ndarray:
    """A dark image (height, width, 3) with bright squares at (x, y, side)."""
    rgb = np.full((height, width, 3), 20, np.uint8)
    for number, (x, y, side) in enumerate(squares):
        rgb[y : y + side, x : x + side] = (255, 250 - 9 * number, 240)
    return rgb
