"""Fixtures that several folders of tests use: real photographs, real weights, and images that
packages ship.
"""

import importlib.util
import secrets
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from stages.backends import BACKENDS
from stages.weights import WEIGHTS

_ROOT = Path(__file__).resolve().parent.parent

# The same examples in every run, so that a failure is the change's and not the day's;
# `--hypothesis-profile=default` tries others.
settings.register_profile("same", derandomize=True)
settings.load_profile("same")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Whole files go to a worker process, all files that start clusters and kill their processes to
    the same one.

    So only one such cluster runs at a time. xdist's own way, `--dist=loadgroup`, does nothing with
    pytest 9.2 (xdist 3.8 writes the group into a field that is no longer read).
    """
    from xdist.scheduler import LoadFileScheduling

    class OneProcessForRay(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::", 1)[0]
            return (
                "ray"
                if _starts_ray(config.rootpath / file) and Path(file).name not in _BESIDE
                else file
            )

    # The long ones come first (see below), so that the last minutes are not one process's alone.
    config.option.loadscopereorder = False
    return OneProcessForRay(config, log)


_BESIDE = {"test_cli.py", "test_crawl.py", "test_demo.py", "test_photographs.py"}
"""Files that start Ray and leave all but their own processes alone: they run beside another."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that start Ray first, then those with slow tests."""
    items.sort(
        key=lambda item: (
            not _starts_ray(item.path) or item.path.name in _BESIDE,
            not _has_slow_tests(item.path),
        )
    )


@cache
def _starts_ray(file: Path) -> bool:
    return file.is_file() and "pytest.mark.ray" in file.read_text(encoding="utf-8")


@cache
def _has_slow_tests(file: Path) -> bool:
    return file.is_file() and "pytest.mark.slow" in file.read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def _nobodys_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """What the person who runs the tests has accepted and keeps in a models directory is not theirs
    to find.
    """
    monkeypatch.setenv(
        "XDG_CONFIG_HOME", str(tmp_path_factory.getbasetemp() / "config" / secrets.token_hex(8))
    )
    monkeypatch.delenv("IDCLUSTER_MODELS", raising=False)


@pytest.fixture(autouse=True, scope="module")
def _registries_as_they_were() -> Iterator[None]:
    """Toys that one file of tests registers are not there for the next file of the same process."""
    weights, backends = dict(WEIGHTS), {stage: dict(known) for stage, known in BACKENDS.items()}
    yield
    WEIGHTS.clear()
    WEIGHTS.update(weights)
    for stage in set(BACKENDS) - set(backends):
        del BACKENDS[stage]
    for stage, known in backends.items():
        BACKENDS[stage].clear()
        BACKENDS[stage].update(known)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with test material that may not be redistributed, beside the checkout."""
    return _existing(_ROOT.parent / "shared")


@pytest.fixture(scope="session")
def photos(shared: Path) -> Path:
    """Photographs of people: `<person>/*.jpg` and LABELS.csv."""
    return _existing(shared / "data" / "photos")


@pytest.fixture(scope="session")
def models_dir(shared: Path) -> Path:
    """Real weights of detectors, recognisers and others: MANIFEST.csv lists them."""
    return _existing(shared / "models")


@pytest.fixture(scope="session")
def astronaut() -> bytes:
    """A PNG of 512 x 512 pixels with one face, box about (175, 76, 265, 166)."""
    return _shipped("skimage", "data/astronaut.png").read_bytes()


@pytest.fixture(scope="session")
def t1() -> Path:
    """A JPEG of 1280 x 886 pixels with six faces."""
    return _shipped("insightface", "data/images/t1.jpg")


def _existing(folder: Path) -> Path:
    if not folder.is_dir():
        pytest.skip(f"needs the folder {folder.relative_to(_ROOT.parent)} beside the checkout")
    return folder


def _shipped(package: str, file: str) -> Path:
    """A file inside an installed package, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"needs the package {package}: `make venv` installs it")
    path = Path(spec.submodule_search_locations[0]) / file
    if not path.is_file():
        pytest.skip(f"this version of {package} does not ship {file}")
    return path
