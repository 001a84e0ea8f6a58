"""A made-up recogniser of a few kilobytes in all the ways in which real ones are exported."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTH = 16


def write(
    path: Path,
    batch: int | str = "n",
    size: tuple[int | str, int | str] = (112, 112),
    names: tuple[str, str] | None = None,
    outputs: int = 1,
    flat: bool = True,
    channels_last: bool = False,
) -> str:
    """The path as a string. `names`: of a subtraction and a multiplication that normalise pixels
    inside the network.
    """
    rng = np.random.default_rng(0)
    values = {
        "mean": np.array(127.5, np.float32),
        "scale": np.array(1 / 127.5, np.float32),
        "rows": np.array([-1, 147]),
        "weight": rng.normal(0, 1, (147, WIDTH)).astype(np.float32),
        "bias": rng.normal(0, 1, WIDTH).astype(np.float32),
        "single": np.array([-1, WIDTH, 1, 1]),
    }
    nodes: list[Any] = []
    last = "x"

    def then(operator: str, *more: str, name: str = "", **attributes: Any) -> None:
        nonlocal last
        nodes.append(
            helper.make_node(operator, [last, *more], [f"t{len(nodes)}"], name=name, **attributes)
        )
        last = f"t{len(nodes) - 1}"

    if channels_last:
        then("Transpose", perm=[0, 3, 1, 2])
    if names is not None:
        then("Sub", "mean", name=names[0])
        then("Mul", "scale", name=names[1])
    then("AveragePool", kernel_shape=[16, 16], strides=[16, 16])
    then("Reshape", "rows")
    then("MatMul", "weight")
    then("Add", "bias")
    if not flat:
        then("Reshape", "single")
    shape = [batch, *size, 3] if channels_last else [batch, 3, *size]
    found = [
        helper.make_tensor_value_info(f"t{len(nodes) - 1 - i}", TensorProto.FLOAT, None)
        for i in range(outputs)
    ]
    constants = [numpy_helper.from_array(value, name) for name, value in values.items()]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        found,
        constants,
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8),
        str(path),
    )
    return str(path)
