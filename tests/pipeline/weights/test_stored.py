"""Weights of a team's own on their way: from the models directory into a DAG, into workers, and
through an object store.
"""

import hashlib
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.dag import Dag, DagError, load_dag
from pipeline.execution.worker_spec import WorkerSpec
from pipeline.prepared_dag import prepare
from pipeline.weights.licences import accepted, terms
from pipeline.weights.stored import cache_folder, weight_files
from stages.embed.calibration import CALIBRATION
from stages.weights import NOTHING, MissingWeights, UnknownWeights, WeightFiles
from stages.weights.local import FILE
from stages.weights.pinning import add, calibrate

DAG = Path(__file__).parents[3] / "dags" / "photos_scrfd_edgeface.yaml"
OURS = ("stages.embed.params.weights=ours", "source.path=.", "root=root")
BODY = b"a recogniser of our own"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A models directory with a recogniser of one's own, calibrated."""
    (tmp_path / "ours.onnx").write_bytes(BODY)
    models = tmp_path / "models"
    add(str(models), "ours", tmp_path / "ours.onnx", "edgeface_xs", "own", "any")
    calibrate(str(models), "ours", 0.33, 0.31, "measured here")
    return models


def test_a_dag_names_weights_of_the_models_directory_and_takes_their_thresholds(
    models: Path,
) -> None:
    with pytest.raises(DagError, match="'ours' names no weights of kind embed/arcface"):
        load_dag(DAG, OURS)
    dag = load_dag(DAG, OURS, str(models))
    assert dag.stages["embed"].params["weights"] == "ours"
    clean = dag.stages["clean"].params
    assert (clean["similarity_threshold"], clean["merge_cosine"]) == (0.33, 0.31)
    assert load_dag(DAG, [*OURS, f"models={models}"]).stages["embed"].params["weights"] == "ours", (
        "as the file's own field"
    )


def test_thresholds_measured_here_go_before_those_of_the_code(models: Path) -> None:
    calibrate(str(models), "edgeface_xs", 0.123, 0.111, "measured here")
    clean = load_dag(DAG, OURS[1:], str(models)).stages["clean"].params
    assert (clean["similarity_threshold"], clean["merge_cosine"]) == (0.123, 0.111)
    assert clean["duplicate_cosine"] == CALIBRATION["edgeface_xs"].duplicate_cosine, (
        "what was not measured here stays"
    )
    clean = (
        load_dag(DAG, [*OURS[1:], "stages.clean.params.similarity_threshold=0.5"], str(models))
        .stages["clean"]
        .params
    )
    assert (clean["similarity_threshold"], clean["merge_cosine"]) == (0.5, 0.111), (
        "what the file says goes before both"
    )


def test_other_bytes_are_another_version(models: Path) -> None:
    dag = load_dag(DAG, OURS, str(models))
    before = prepare(dag, str(models), check_weights=False).versions
    text = (models / FILE).read_text()
    (models / FILE).write_text(
        text.replace(hashlib.sha256(BODY).hexdigest(), hashlib.sha256(BODY[::-1]).hexdigest())
    )
    after = prepare(dag, str(models), check_weights=False).versions
    assert before["embed"] != after["embed"] and before["detect"] == after["detect"]


def test_workers_take_the_drivers_registry_and_not_that_of_their_node(
    models: Path, tmp_path: Path
) -> None:
    """On another node the folder may hold the file, but an older registry.yaml, or none."""
    prepared = prepare(load_dag(DAG, OURS, str(models)), str(models), check_weights=False)
    spec = WorkerSpec(
        "root", prepared.dag, prepared.versions, prepared.models, "run", prepared.local
    )
    (models / FILE).unlink()
    arrived: WorkerSpec = pickle.loads(pickle.dumps(spec))  # noqa: S301 - our own bytes
    assert arrived.lacking(["embed"]) == []
    assert arrived.weights().sha256("ours") == hashlib.sha256(BODY).hexdigest()
    (models / "embed" / "ours.onnx").write_bytes(b"another file")
    [problem] = arrived.lacking(["embed"])
    assert (
        problem.startswith("stage embed: weights 'ours' are not there")
        and "is another file" in problem
    )


def test_two_models_directories_in_one_process_do_not_disturb_each_other(
    models: Path, tmp_path: Path
) -> None:
    """In a notebook two DAGs are loaded, and then used in any order, one of them in a thread."""
    (tmp_path / "theirs.onnx").write_bytes(BODY[::-1])
    other = tmp_path / "other"
    for name in ("ours", "theirs"):
        add(str(other), name, tmp_path / "theirs.onnx", "edgeface_xs", "own", "non-commercial")
        calibrate(str(other), name, 0.44, 0.42, "measured elsewhere")
    first = load_dag(DAG, OURS, str(models))
    second = load_dag(DAG, OURS, str(other))
    third = load_dag(DAG, ["stages.embed.params.weights=theirs", *OURS[1:]], str(other))
    with pytest.raises(DagError, match="'theirs' names no weights of kind embed/arcface"):
        load_dag(DAG, ["stages.embed.params.weights=theirs"], str(models))
    with pytest.raises(DagError, match="did you mean 'theirs'"):
        load_dag(DAG, ["stages.embed.params.weights=their"], str(other))

    def seen(dag: Dag, folder: Path) -> tuple[object, ...]:
        [embed] = [stage for stage in dag.build() if stage.name == "embed"]
        prepared = prepare(dag, str(folder), check_weights=False)
        spec = WorkerSpec(
            "root", prepared.dag, prepared.versions, prepared.models, "run", prepared.local
        )
        return (
            embed.params.weights,
            dag.stages["clean"].params["similarity_threshold"],
            spec.weights().sha256(embed.params.weights),
            [term.weights for term in terms([embed], prepared.local)],
            spec.build().stages["embed"].params.weights,
        )

    sha256s = [hashlib.sha256(body).hexdigest() for body in (BODY, BODY[::-1])]
    expected = [
        ("ours", 0.33, sha256s[0], [], "ours"),
        ("ours", 0.44, sha256s[1], ["ours"], "ours"),
        ("theirs", 0.44, sha256s[1], ["theirs"], "theirs"),
    ]
    asked = [(first, models), (second, other), (third, other)]
    assert [seen(*one) for one in asked] == expected
    assert [seen(*one) for one in asked[::-1]] == expected[::-1]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda number: seen(*asked[number % 3]), range(12)))
    assert found == [*expected, *expected, *expected, *expected]


def test_what_is_written_down_about_a_dag_names_no_registry(models: Path) -> None:
    """Versions and hashes do; a run's record of the DAG stays what it is."""
    dag = load_dag(DAG, OURS, str(models))
    assert dag.model_dump() == load_dag(DAG, OURS, str(models)).model_dump()
    assert "local" not in dag.model_dump(mode="json") and pickle.loads(pickle.dumps(dag)) == dag  # noqa: S301 - our own bytes


def test_a_registry_that_cannot_be_read_stops_the_run(models: Path) -> None:
    (models / FILE).write_text("weights: [")
    with pytest.raises(MissingWeights, match=r"registry\.yaml: not YAML"):
        load_dag(DAG, OURS, str(models))


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The address of an empty bucket."""
    pytest.importorskip("s3fs", reason="object stores need the group s3")
    pytest.importorskip("moto", reason="the S3 server of the tests comes with the group dev")
    from s3fs import S3FileSystem

    from tests.pipeline.s3 import serving

    with serving() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        S3FileSystem.clear_instance_cache()  # other files of tests have servers of their own
        server.make_bucket("weights")
        yield "s3://weights"
        S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize(
    "place", ["embed/ours.onnx", "ours.onnx", hashlib.sha256(BODY).hexdigest()]
)
def test_the_registry_of_an_object_store(
    place: str, bucket: str, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from idcluster.root.storage import Store

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    url = f"{bucket}/{hashlib.md5(place.encode(), usedforsecurity=False).hexdigest()}"
    assert weight_files(url).local == NOTHING
    Store(url).put(FILE, (models / FILE).read_bytes())
    Store(url).put(place, BODY)
    dag = load_dag(DAG, [*OURS, f"models={url}"])
    assert dag.stages["clean"].params["similarity_threshold"] == 0.33
    path = weight_files(url).path("ours")
    assert path.startswith(str(cache_folder(url))) and Path(path).read_bytes() == BODY
    assert accepted(url) == {}
    word = "{weights: glintr100, licence: x, use: non-commercial, when: '2026-11-21', by: ada@host}"
    Store(url).put("accepted.yaml", f"accepted: [{word}]".encode())
    assert accepted(url)["glintr100"].by == "ada@host", (
        "a models directory that was put into the store as it was"
    )
    Store(url).put(FILE, b"pins: [")
    with pytest.raises(MissingWeights, match=rf"{url}/registry\.yaml: not YAML"):
        assert weight_files(url).local


def test_what_is_given_is_not_read_again(models: Path) -> None:
    files = WeightFiles(str(models), NOTHING)
    with pytest.raises(UnknownWeights):
        files.path("ours")
    assert WeightFiles(str(models)).path("ours") == str(models / "embed" / "ours.onnx")
