"""Fixtures that several folders of these tests use: a finished root of three toy people."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.rooms import run_toy, shown, small_buckets
from tests.pipeline.toy import people


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `people` and the finished `root`, for all tests of a file: they leave it as it
    is.
    """
    folder = tmp_path_factory.mktemp("made")
    with small_buckets():
        run_toy(folder, people(folder / "people", count=3), folder / "root")
    return folder


@pytest.fixture(scope="module")
def undisturbed(made: Path) -> dict[str, Any]:
    """What the finished root shows."""
    return shown(made / "root")


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    """A copy of the finished root, to be damaged."""
    shutil.copytree(made / "root", tmp_path / "root")
    return tmp_path / "root"
