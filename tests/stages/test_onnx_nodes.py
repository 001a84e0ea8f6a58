"""Names of nodes against those that the package onnx reads."""

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from stages.onnx_nodes import first_nodes


def save(path: Path, names: list[str]) -> str:
    """A chain of nodes with these names, after more bytes of documentation than fit a short
    length.
    """
    nodes = [
        helper.make_node("Relu", [f"t{i}"], [f"t{i + 1}"], name=name)
        for i, name in enumerate(names)
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, (1,))
        for name in ("t0", f"t{len(names)}")
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "chain", ends[:1], ends[1:]), doc_string="é" * 500
    )
    onnx.save(model, str(path))
    return str(path)


@pytest.mark.parametrize("names", [["first", "", "Sub_2", "/deep/Mul", "long" * 60], []])
def test_names_come_in_their_order(tmp_path: Path, names: list[str]) -> None:
    path = save(tmp_path / "x.onnx", names)
    assert first_nodes(path, 8) == tuple(names)
    assert first_nodes(path, 2) == tuple(names[:2])


def test_real_files_are_read_as_onnx_reads_them(models_dir: Path) -> None:
    for name in (
        "detect/scrfd_2.5g_bnkps.onnx",
        "embed/derived_edgeface_xs_fp32.onnx",
        "embed/mobilefacenet_128d.onnx",
    ):
        expected = [node.name for node in onnx.load(str(models_dir / name)).graph.node[:8]]
        assert first_nodes(str(models_dir / name), 8) == tuple(expected)


def test_a_file_that_breaks_off_or_is_none_is_said_to_be_no_protobuf(tmp_path: Path) -> None:
    path = Path(save(tmp_path / "x.onnx", ["a", "b"]))
    whole = path.read_bytes()
    for data in (whole[:-5], b"\xff" * 40, b"<html>not found</html>"):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"x\.onnx: not a protobuf"):
            first_nodes(str(path), 8)
