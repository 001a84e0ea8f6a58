"""The names of the first nodes of an ONNX file, read from its protobuf without the package onnx.

Exporters leave hints in them about what a network does to its input, and onnxruntime does not show
them.
"""

import mmap
from collections.abc import Iterator
from itertools import islice

# onnx.proto: ModelProto.graph, GraphProto.node, NodeProto.name
_GRAPH, _NODE, _NAME = 7, 1, 3
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def first_nodes(path: str, count: int) -> tuple[str, ...]:
    """Names of the first `count` nodes, as far as there are so many; a node without a name is "".
    Raises ValueError.
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            graphs = [place for field, place in _fields(data, 0, len(data)) if field == _GRAPH]
            nodes = (
                place
                for graph in graphs
                for field, place in _fields(data, *graph)
                if field == _NODE
            )
            return tuple(_name(data, *node) for node in islice(nodes, count))
        except (IndexError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: not a protobuf") from error


def _name(data: mmap.mmap, start: int, end: int) -> str:
    return next(
        (
            data[first:last].decode()
            for field, (first, last) in _fields(data, start, end)
            if field == _NAME
        ),
        "",
    )


def _fields(data: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, tuple[int, int]]]:
    """Number and place of every field with a length of its own between `at` and `end`; others are
    passed over.
    """
    while at < end:
        key, at = _varint(data, at)
        kind = key & 7
        if kind == _BYTES:
            length, at = _varint(data, at)
            if at + length > end:
                raise IndexError(at)
            yield key >> 3, (at, at + length)
            at += length
        elif kind == _VARINT:
            _, at = _varint(data, at)
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            raise IndexError(at)


def _varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    """A base-128 number and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise IndexError(at)
