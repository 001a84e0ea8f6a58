"""Opening an ONNX file the same way everywhere: on the stage's device, with a fixed number of threads, quiet."""

import os
from typing import Any

from stages.stage import Device, NoDevice


def open_session(path: str, threads: int, device: Device = "cpu") -> Any:
    """An onnxruntime.InferenceSession. `threads` is part of the promise of sameness: sums are split by it.

    Raises NoDevice where `device` is cuda and onnxruntime cannot use one: it would silently compute on the CPU.
    """
    # Read once, when onnxruntime is imported: without it a worker writes a device id below the home directory.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # exporters leave unused initialisers behind, and each makes a warning
    providers: list[Any] = ["CPUExecutionProvider"]
    if device == "cuda":
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise NoDevice("the DAG gives this stage a GPU, but this onnxruntime has no CUDA: install onnxruntime-gpu, or set gpus: 0")
        # TF32 rounds to 10 bits of mantissa: cosines would no longer be those of the CPU.
        providers.insert(0, ("CUDAExecutionProvider", {"use_tf32": "0"}))
    session = onnxruntime.InferenceSession(path, options, providers=providers)
    if device == "cuda" and "CUDAExecutionProvider" not in session.get_providers():
        raise NoDevice("the DAG gives this stage a GPU, but onnxruntime could not open one (driver, CUDA or cuDNN do not fit)")
    return session
