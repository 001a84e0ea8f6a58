"""The tensors of a TorchScript archive, without running anything from it.

Some networks are published only so: `torch.jit.load` would run the code that the archive brings
along, and torch refuses to read its pickle otherwise. That pickle names nothing but modules (as
`__torch__.<class>`), tensors and their storages, so it is read with a table of those few names;
every other name ends the reading. Format: torch/csrc/jit/serialization.
"""

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import torch

_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "ShortStorage": torch.int16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "BoolStorage": torch.bool,
}
_CONTAINERS = (
    "build_intlist",
    "build_doublelist",
    "build_boollist",
    "build_tensorlist",
    "restore_type_tag",
)


def is_torchscript(path: str) -> bool:
    """Whether the file is such an archive, by the names in it."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def tensors(path: str) -> dict[str, torch.Tensor]:
    """Parameters, buffers and other tensors of the archive's modules on the CPU, named as in a
    state dict.

    Raises ValueError, pickle.UnpicklingError, KeyError or zipfile.BadZipFile where it is not what
    it should be.
    """
    with zipfile.ZipFile(path) as archive:
        (top,) = {name.split("/")[0] for name in archive.namelist()}
        if any(
            info.compress_type != zipfile.ZIP_STORED
            for info in archive.infolist()
            if info.filename.startswith(f"{top}/data")
        ):
            raise ValueError("tensors in a TorchScript archive are never compressed, these are")
        if (
            f"{top}/byteorder" in archive.namelist()
            and archive.read(f"{top}/byteorder") != b"little"
        ):
            raise ValueError("the tensors were written by a machine with another byte order")
        with archive.open(f"{top}/data.pkl") as file:
            root = _Reader(file, lambda key: archive.read(f"{top}/data/{key}")).load()
    if not isinstance(root, _Module):
        raise ValueError("the archive does not hold a module")
    return dict(_walk(root, "", set()))


class _Module:
    """Stands for any class of the archive: keeps what it is given."""

    attributes: dict[str, Any]

    def __setstate__(self, state: Any) -> None:
        self.attributes = state if isinstance(state, dict) else {}


class _Reader(pickle.Unpickler):
    """A pickle reader that knows a dozen names. What they stand for belongs to this reader alone,
    so no file can change it.
    """

    def __init__(self, file: Any, record: Callable[[str], bytes]) -> None:
        super().__init__(file)
        self._record = record
        self._module = type("Module", (_Module,), {})
        self._storages: dict[str, torch.Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "__torch__":
            return self._module
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self._tensor
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if module == "torch.jit._pickle" and name in _CONTAINERS:
            return self._container
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        raise pickle.UnpicklingError(
            f"the archive asks for {module}.{name}, which no network needs"
        )

    def persistent_load(self, pid: Any) -> torch.Tensor:
        """A storage as (n,): ("storage", type, record, device, number of elements)."""
        kind, dtype, key, _, count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError("the archive refers to something that is no storage")
        if key not in self._storages:
            data = self._record(key)
            if len(data) != count * dtype.itemsize:
                raise ValueError(
                    f"storage {key} has {len(data)} bytes, {count * dtype.itemsize} were announced"
                )
            self._storages[key] = (
                torch.frombuffer(bytearray(data), dtype=dtype)
                if count
                else torch.empty(0, dtype=dtype)
            )
        return self._storages[key]

    def _tensor(
        self,
        storage: torch.Tensor,
        offset: int,
        size: tuple[int, ...],
        stride: tuple[int, ...],
        *_: Any,
    ) -> torch.Tensor:
        return storage.as_strided(size, stride, offset)  # torch checks that it stays inside

    def _container(self, content: Any, *_: Any) -> Any:
        return content


def _walk(module: _Module, prefix: str, seen: set[int]) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors by name; every module once, under the first of its names, whatever refers to what."""
    seen.add(id(module))
    for name, value in getattr(module, "attributes", {}).items():
        if isinstance(value, torch.Tensor):
            yield f"{prefix}{name}", value
        elif isinstance(value, _Module) and id(value) not in seen:
            yield from _walk(value, f"{prefix}{name}.", seen)
