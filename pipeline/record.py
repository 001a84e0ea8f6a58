"""The record of a run: what ran, with what, how fast, and what failed."""

import json
import platform
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pipeline.execution.operators import available_cores


@dataclass
class Record:
    """What is written to `runs/<id>.json`."""

    run_id: str
    started: str
    status: str = "running"
    finished: str | None = None
    seconds: float = 0.0
    snapshot_before: int = 0
    snapshot: int = 0
    dag: dict[str, Any] = field(default_factory=dict)
    selection: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    licences: list[dict[str, Any]] = field(default_factory=list)
    machine: dict[str, Any] = field(default_factory=dict)
    intake: dict[str, Any] = field(default_factory=dict)
    fetching: dict[str, Any] = field(default_factory=dict)
    phases: list[dict[str, Any]] = field(default_factory=list)
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    shards: dict[str, Any] = field(default_factory=dict)
    error: str | None = None

    def encode(self) -> bytes:
        """As the file in `runs/`."""
        return json.dumps(vars(self), indent=1, sort_keys=True).encode()


def machine() -> dict[str, Any]:
    packages = {}
    for name in (
        "idcluster",
        "ray",
        "pyarrow",
        "numpy",
        "opencv-contrib-python-headless",
        "onnxruntime",
        "dlib-bin",
        "scikit-learn",
    ):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "processor": platform.machine(),
        "cores": available_cores(),
        "packages": packages,
    }
