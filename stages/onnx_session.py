"""Opening an ONNX file the same way everywhere: on the CPU, with a fixed number of threads, quiet."""

import os
from typing import Any


def open_session(path: str, threads: int) -> Any:
    """An onnxruntime.InferenceSession. `threads` is part of the promise of sameness: sums are split by it."""
    # Read once, when onnxruntime is imported: without it a worker writes a device id below the home directory.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # exporters leave unused initialisers behind, and each makes a warning
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
