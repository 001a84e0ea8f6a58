"""Opening an ONNX file the same way everywhere: on the stage's device, with a fixed number of
threads, quiet.
"""

import os
import sys
import threading
from typing import Any

from schemas.errors import UserError
from stages.stage import Device, NoDevice


class WrongModel(UserError, ValueError):
    """An ONNX file that is not what a stage can use; the message names the file, what is wrong, and
    what would do.
    """


_TELEMETRY = "ORT_DISABLE_TELEMETRY"
_IMPORTING = threading.Lock()


def _onnxruntime() -> Any:
    """The package. It looks once, when it is imported, whether it may write a device id and what it
    counts below the home directory; here it may not, unless the variable says so. The environment
    is left as it was: it belongs to whoever started the process.
    """
    with _IMPORTING:
        asked = "onnxruntime" not in sys.modules and _TELEMETRY not in os.environ
        if asked:
            os.environ[_TELEMETRY] = "1"
        try:
            import onnxruntime
        finally:
            if asked:
                del os.environ[_TELEMETRY]
    return onnxruntime


def open_session(path: str, threads: int, device: Device = "cpu") -> Any:
    """An onnxruntime.InferenceSession. `threads` is part of the promise of sameness: sums are split
    by it.

    Raises WrongModel for a file that is no ONNX model, NoDevice where `device` is cuda and
    onnxruntime cannot use one: it would silently compute on the CPU.
    """
    onnxruntime = _onnxruntime()
    from onnxruntime.capi import onnxruntime_pybind11_state as ort

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    # Threads that wait for the next run would burn what the decoder and other workers could use.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = (
        3  # exporters leave unused initialisers behind, and each makes a warning
    )
    providers: list[Any] = ["CPUExecutionProvider"]
    if device == "cuda":
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            lacking = "this onnxruntime has no CUDA: install onnxruntime-gpu, or set gpus: 0"
            raise NoDevice(f"the DAG gives this stage a GPU, but {lacking}")
        # TF32 rounds to 10 bits of mantissa: cosines would no longer be those of the CPU.
        providers.insert(0, ("CUDAExecutionProvider", {"use_tf32": "0"}))
    try:
        session = onnxruntime.InferenceSession(path, options, providers=providers)
    except (
        ort.Fail,
        ort.InvalidProtobuf,
        ort.InvalidGraph,
        ort.InvalidArgument,
        ort.NotImplemented,
    ) as error:
        told = " ".join(str(error).split())
        raise WrongModel(
            f"{path}: not an ONNX model that onnxruntime {onnxruntime.__version__} can run: {told}"
        ) from error
    if device == "cuda" and "CUDAExecutionProvider" not in session.get_providers():
        raise NoDevice(
            "the DAG gives this stage a GPU, but onnxruntime could not open one (driver, CUDA or "
            "cuDNN do not fit)"
        )
    return session


def only_picture_input(session: Any, path: str) -> Any:
    """The one input of a model that takes float32 images (n, 3, height, width). Raises
    WrongModel.
    """
    inputs = session.get_inputs()
    if len(inputs) != 1:
        names = ", ".join(one.name for one in inputs)
        raise WrongModel(f"{path}: has {len(inputs)} inputs ({names}), images alone would be one")
    [one] = inputs
    shape, kind = one.shape, one.type
    if kind != "tensor(float)":
        raise WrongModel(f"{path}: its input {one.name!r} is {kind}; export it with float32 input")
    if len(shape) != 4 or shape[1] != 3:
        last = " (channels last?)" if len(shape) == 4 and shape[3] == 3 else ""
        raise WrongModel(
            f"{path}: its input {one.name!r} is {shape}{last}; it has to be (n, 3, height, width)"
        )
    return one
