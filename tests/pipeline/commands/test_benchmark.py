"""`idcluster models benchmark`: what it prints and writes, and that a DAG takes the thresholds that
it measured.
"""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from pipeline.dag import load_dag
from tests.pipeline.commands.test_models import call, invoke, refused

DAG = Path(__file__).parents[3] / "dags" / "photos_scrfd_edgeface.yaml"


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "240")


@pytest.fixture
def own(models_dir: Path, tmp_path: Path) -> Path:
    """A models directory of one's own with the two files."""
    folder = tmp_path / "models"
    for name in ("detect/scrfd_2.5g_bnkps.onnx", "embed/derived_edgeface_xs_fp32.onnx"):
        (folder / name).parent.mkdir(parents=True)
        shutil.copy(models_dir / name, folder / name)
    return folder


@pytest.mark.slow
def test_a_teams_own_photographs_calibrate_its_dags(
    photos: Path, own: Path, tmp_path: Path
) -> None:
    people = tmp_path / "people"
    for person in ("ariel_sharon", "serena_williams", "roger_federer"):
        (people / person).mkdir(parents=True)
        for source in sorted((photos / person).glob("*.jpg"))[:7]:
            shutil.copy(source, people / person)
    words = (
        "models",
        "benchmark",
        people,
        "--detect",
        "scrfd:scrfd_2.5g_bnkps",
        "--embed",
        "arcface:edgeface_xs",
        "--models",
        own,
    )
    said = call(
        *words, "--set", "embed.batch=8", "--output", tmp_path / "out", "--write-calibration"
    )
    assert "21 photographs, 21 with a face (100.00% of those that decode), 0 unreadable" in said
    assert (
        "all (21 of 3 people)" in said
        and "image to indicator" in said
        and "TAR at FAR 1e-2" in said
    )
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["detect"]["backend"] == "scrfd" and list(report["detect"]["weights"]) == [
        "scrfd_2.5g_bnkps"
    ]
    assert (
        report["embed"][0]["params"]["batch"] == 8
        and len(report["embed"][0]["weights"]["edgeface_xs"]) == 64
    )
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "report.json",
        "roc.csv",
        "roc.png",
    ]
    written = yaml.safe_load((own / "registry.yaml").read_text())["calibrations"]["edgeface_xs"]
    measured = report["recognisers"]["edgeface_xs"]["thresholds"]
    assert written["similarity_threshold"] == measured["similarity_threshold"]
    assert "20 photographs of 3 people" in written["source"], "one shows two faces"
    clean = load_dag(DAG, (), str(own)).stages["clean"].params
    assert (clean["similarity_threshold"], clean["merge_cosine"]) == (
        written["similarity_threshold"],
        written["merge_cosine"],
    )


def test_faces_alone_are_counted_without_a_recogniser(t1: Path, tmp_path: Path) -> None:
    pytest.importorskip("dlib")
    shutil.copy(t1, tmp_path / "t1.jpg")
    (tmp_path / "LABELS.csv").write_text("file,n_faces\nt1.jpg,5\n")
    said = call("models", "benchmark", tmp_path)
    assert "labelled counts: 0 of 1 agree" in said and "t1.jpg: 6 found, 5 labelled" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("--detect", "dlb"),
            "--detect dlb: stage 'detect' has no backend 'dlb'; did you mean 'dlib'?",
        ),
        (
            ("--detect", "scrfd:scrfd_2.5"),
            "scrfd:scrfd_2.5: weights: 'scrfd_2.5' names no weights of kind detect/scrfd; did "
            "you mean",
        ),
        (("--set", "detect.colour=1"), "--detect dlib: colour: Extra inputs are not permitted"),
        (
            ("--set", "clean.k=1"),
            "--set clean.k=1: write it as detect.FIELD=VALUE or embed.FIELD=VALUE",
        ),
        (("--set", "detect.upsample=["), "the value is not YAML"),
        (("--device", "tpu"), "--device tpu: there are cpu and cuda"),
    ],
)
def test_what_is_asked_wrongly_is_told_before_anything_runs(
    words: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    (tmp_path / "Ada").mkdir()
    (tmp_path / "Ada" / "1.jpg").write_bytes(b"")
    result = invoke("models", "benchmark", tmp_path, *words)
    assert result.exit_code == 2 and said in result.stderr, result.output


def test_no_photographs_no_weights_and_nowhere_to_write(tmp_path: Path) -> None:
    assert refused("models", "benchmark", tmp_path / "gone", code=2).endswith("gone is no folder")
    (tmp_path / "Ada").mkdir()
    (tmp_path / "Ada" / "1.jpg").write_bytes(b"")
    assert refused("models", "benchmark", tmp_path, "--detect", "scrfd").startswith(
        "weights 'scrfd_2.5g_bnkps' are not there"
    )
    assert refused("models", "benchmark", tmp_path, "--write-calibration", code=2).startswith(
        "name the models directory"
    )


def test_too_few_photographs_calibrate_nothing(astronaut: bytes, tmp_path: Path) -> None:
    pytest.importorskip("dlib")
    (tmp_path / "people" / "Eileen").mkdir(parents=True)
    (tmp_path / "people" / "Eileen" / "1.png").write_bytes(astronaut)
    result = invoke(
        "models",
        "benchmark",
        tmp_path / "people",
        "--embed",
        "dlib",
        "--models",
        tmp_path / "m",
        "--write-calibration",
    )
    assert (
        result.exit_code == 1
        and "thresholds need two people with 6 usable photographs" in result.stderr
    )
    assert not (tmp_path / "m" / "registry.yaml").exists()
