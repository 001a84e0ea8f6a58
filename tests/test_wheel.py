"""The package as it is installed: a wheel in an environment of its own, away from any checkout."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from pipeline.samples import compose

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout. Built from a copy: setuptools writes beside what it builds."""
    folder = tmp_path_factory.mktemp("wheel")
    copied = folder / "source"
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=REPOSITORY,
        capture_output=True,
        check=True,
    ).stdout.decode()
    for name in filter(None, names.split("\0")):
        if not name.startswith("tests/") and (REPOSITORY / name).exists():
            (copied / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, copied / name, follow_symlinks=False)
    made = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"),
            *("--no-build-isolation", "--wheel-dir", str(folder), str(copied)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment that has the wheel, and the tested environment's
    packages for all that it needs.
    """
    folder = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    # A line of a .pth is a folder to import from; the .pth files in it, by which the checkout is
    # found, are not followed.
    (site / "tested.pth").write_text(sysconfig.get_path("purelib") + "\n")
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python")),
            *("install", "--quiet", "--no-deps", "--no-index", str(wheel)),
        ],
        check=True,
    )
    return folder / "bin"


def call(
    installed: Path, folder: Path, *words: str, failing: bool = False
) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "IDCLUSTER_MODELS")
    }
    done = subprocess.run(
        [str(installed / "idcluster"), *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )
    assert (done.returncode != 0) == failing, done.stdout + done.stderr
    return done


def test_all_data_of_the_packages_is_in_it(wheel: Path) -> None:
    endings = (".yaml", ".csv", ".json", ".sql", ".html", ".css", ".js", ".py")
    wanted = {
        path.relative_to(REPOSITORY).as_posix()
        for package in ("idcluster", "schemas", "stages", "pipeline", "eval")
        for path in (REPOSITORY / package).rglob("*")
        if path.suffix in endings and "__pycache__" not in path.parts
    }
    there = set(zipfile.ZipFile(wheel).namelist())
    assert not wanted - there
    assert not [name for name in there if name.startswith(("tests/", "deploy/"))]


def test_a_dag_is_written_and_the_stages_are_told(installed: Path, tmp_path: Path) -> None:
    where = subprocess.run(
        [str(installed / "python"), "-c", "import idcluster; print(idcluster.__file__)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert where.startswith(str(installed.parent)), "the wheel's, not the checkout's"
    assert call(installed, tmp_path, "--version").stdout.startswith("idcluster 0.")
    listed = call(installed, tmp_path, "init", "--list").stdout
    assert {"quickstart", "flashface"} <= {line.split()[0] for line in listed.splitlines()}
    for name in ("quickstart", "flashface"):
        call(installed, tmp_path, "init", f"{name}.yaml", "--like", name)
        assert "idcluster run" in (tmp_path / f"{name}.yaml").read_text()
    assert "dags/quickstart.yaml" not in (tmp_path / "quickstart.yaml").read_text()
    again = call(installed, tmp_path, "init", "quickstart.yaml", failing=True)
    assert again.returncode == 2 and "is there already" in again.stderr
    wrong = call(installed, tmp_path, "init", "x.yaml", "--like", "quickstrat", failing=True)
    assert "did you mean 'quickstart'?" in wrong.stderr
    facts = json.loads(call(installed, tmp_path, "stages", "--json").stdout)
    by_name = {one["name"]: one for one in facts}
    clean = {one["name"]: one for one in by_name["clean"]["backends"]}
    near_tie = next(p for p in clean["linkage"]["parameters"] if p["name"] == "near_tie")
    assert near_tie["default"] == "0.9" and near_tie["kind"] == "number above 0"
    assert "second group" in near_tie["text"]
    assert by_name["shard"]["backends"][0]["parameters"]


@pytest.mark.slow
@pytest.mark.ray
def test_a_newcomer_gets_from_three_folders_to_answers(installed: Path, tmp_path: Path) -> None:
    for package in ("skimage", "matplotlib", "insightface"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs the photograph that {package} ships: `make venv` installs it")
    compose(tmp_path / "samples")
    for person in sorted((tmp_path / "samples" / "people").iterdir())[:3]:
        shutil.move(person, tmp_path / "people" / person.name)
    call(installed, tmp_path, "init")
    call(installed, tmp_path, "plan", "dag.yaml")
    refused = call(installed, tmp_path, "run", "dag.yaml", failing=True)
    assert "--accept-licence" in refused.stderr
    # The sample people are copies of a few photographs, and cleaning would find them out.
    alike = ("--set", "stages.clean.params.duplicates=false")
    call(installed, tmp_path, "run", "dag.yaml", "--accept-licence", *alike)
    answer = call(installed, tmp_path, "query", "out", "SELECT count(DISTINCT name) FROM samples")
    assert "3" in answer.stdout
    call(installed, tmp_path, "report", "out", "-o", "report.html")
    call(installed, tmp_path, "review", "out", "--all", "-o", "review.html")
    assert (tmp_path / "report.html").stat().st_size > 10_000
    assert "<script" in (tmp_path / "review.html").read_text()
    call(installed, tmp_path, "shards", "verify", "out")
