"""Backends from packages of one's own: by their place, by a name, and on workers that know nothing
of them.
"""

import io
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

import idcluster
from pipeline.dag import DagError, load_dag
from pipeline.execution.cluster import foreign_packages, package_folders, runtime_env
from pipeline.execution.ray_engine import RayEngine
from pipeline.start import start
from tests.pipeline import toy
from tests.pipeline.in_process import run_here

PACKAGES = Path(__file__).resolve().parents[1] / "packages"
BY_PLACE = "my_faces.captions:SizeCaption"


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PACKAGES))


def dag_file(folder: Path, backend: str, stage: str = "caption") -> Path:
    toy.register()
    source = toy.people(folder / "people", count=2, pictures=4)
    text = toy.DAG.format(root=folder / "root", people=source)
    text = text.replace("  caption: {backend: toy}", f"  {stage}: {{backend: {backend!r}}}")
    (folder / "dag.yaml").write_text(text)
    return folder / "dag.yaml"


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("backend", [BY_PLACE, "size"])
def test_a_backend_of_ones_own_runs(tmp_path: Path, backend: str) -> None:
    assert run_here(dag_file(tmp_path, backend)).status == "done"
    captions = idcluster.open(tmp_path / "root").sql("SELECT DISTINCT caption FROM captions")
    assert captions.fetchall() == [("32 x 32",)]


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("backend", "stage", "said"),
    [
        ("my_faces.captions:NoStage", "caption", "derives from stages.stage.Stage"),
        ("my_faces.captions:Nothing", "caption", "is no class that derives from"),
        ("my_faces.nowhere:X", "caption", "No module named 'my_faces.nowhere'; its package has to"),
        (BY_PLACE, "segment", "is a backend of the stage 'caption', not of 'segment'"),
        ("my_faces.captions:Usurper", "caption", "calls itself 'attributes', as a backend of ours"),
        ("siz", "caption", "no backend 'siz'; did you mean 'size'?"),
        ("size", "affect", "is a backend of the stage 'caption', not of 'affect'"),
    ],
)
def test_a_backend_that_cannot_be_is_told_with_its_line(
    tmp_path: Path, backend: str, stage: str, said: str
) -> None:
    with pytest.raises(DagError) as error:
        load_dag(dag_file(tmp_path, backend, stage))
    assert f"dag.yaml:10: stages.{stage}.backend: " in str(error.value) and said in str(error.value)


@pytest.mark.parametrize("stage", ["render", "latents"])
def test_a_stage_without_a_backend_says_how_to_bring_one(tmp_path: Path, stage: str) -> None:
    file = dag_file(tmp_path, "toy")
    file.write_text(file.read_text().replace("  caption:", f"  {stage}: {{}}\n  caption:"))
    with pytest.raises(DagError, match=f"stage '{stage}' has no backend yet; a package of your"):
        load_dag(file)


@pytest.mark.usefixtures("installed")
def test_a_name_that_a_package_brings_becomes_the_place_of_the_class(tmp_path: Path) -> None:
    """Workers that got the package alone would not know the name."""
    assert load_dag(dag_file(tmp_path, "size")).stages["caption"].backend == BY_PLACE


@pytest.mark.usefixtures("installed")
def test_its_package_travels(tmp_path: Path) -> None:
    """On a cluster every task would fail: no module named my_faces."""
    dag = load_dag(dag_file(tmp_path, BY_PLACE))
    assert foreign_packages(dag) == ["my_faces"]
    assert package_folders(["my_faces"])[-1] == PACKAGES / "my_faces"
    assert str(PACKAGES / "my_faces") in runtime_env({}, {}, ["my_faces"])["py_modules"]
    assert foreign_packages(load_dag(dag_file(tmp_path / "toy", "toy"))) == []


@pytest.mark.ray
@pytest.mark.slow
def test_workers_of_a_local_ray_find_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are processes of their own, which do not look where the driver's process looks."""
    monkeypatch.syspath_prepend(str(PACKAGES))
    run = start(
        dag_file(tmp_path, BY_PLACE),
        console=Console(file=io.StringIO()),
        engine=lambda spec: RayEngine(toy.toy_spec(spec)),
    )
    assert run.execute().status == "done"
    captions = idcluster.open(tmp_path / "root").sql("SELECT DISTINCT caption FROM captions")
    assert captions.fetchall() == [("32 x 32",)]


@pytest.mark.slow
def test_what_is_not_installed_is_told(tmp_path: Path) -> None:
    file = dag_file(tmp_path, BY_PLACE)
    code = f"import idcluster\nidcluster.plan({str(file)!r})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PACKAGES.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "No module named 'my_faces'" in done.stderr and "PYTHONPATH" in done.stderr
