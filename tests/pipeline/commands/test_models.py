"""`idcluster models` and `run --accept-licence` as a user types them."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from pipeline import cli
from pipeline.cli import app
from stages.weights import WEIGHTS, Weights
from tests.pipeline.file_server import Files, file_server

BODY = b"weights of a tiny network"
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "220")


@pytest.fixture
def server() -> Iterator[Files]:
    with file_server() as files:
        files.bodies["/tiny.onnx"] = BODY
        yield files


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, server: Files) -> Weights:
    entry = Weights(
        "tiny",
        "detect/tiny.onnx",
        SHA256,
        len(BODY),
        "own",
        "non-commercial",
        "https://example.org",
        kind="detect/tiny",
        address=f"{server.base}/tiny.onnx",
        needed_by=("detect:tiny",),
    )
    monkeypatch.setitem(WEIGHTS, "tiny", entry)
    return entry


def invoke(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def call(*words: object, code: int = 0) -> str:
    result = invoke(*words)
    assert result.exit_code == code, result.output
    return str(result.stdout)


def refused(*words: object, code: int = 1) -> str:
    result = invoke(*words)
    assert result.exit_code == code and isinstance(result.exception, SystemExit), result.output
    return str(result.stderr).removeprefix("idcluster: ").strip()


def test_list_without_a_directory() -> None:
    lines = call("models", "list", "--all").splitlines()
    cells = {line.split()[1]: line for line in lines}
    assert " here " in cells["dlib_resnet_v1"] and " any " in cells["dlib_resnet_v1"]
    assert (
        " missing " in cells["glintr100"]
        and "260.7 MB" in cells["glintr100"]
        and "`models fetch glintr100`" in cells["glintr100"]
    )
    assert " not pinned " in cells["deca"] and "no backend yet" in cells["deca"]
    assert "clip_vit_l14" in cells and not any("/" in name for name in cells), (
        "a model of several files is one line"
    )


def test_weights_without_a_backend_are_shown_when_asked_for() -> None:
    usual, everything = call("models", "list"), call("models", "list", "--all")
    names = {line.split()[1] for line in usual.splitlines()[1:-1]}
    assert {"dlib_resnet_v1", "glintr100", "retinaface_r50", "falconsai_nsfw"} <= names
    assert "deca" not in names and "more models have no backend yet" in usual
    waiting = [line for line in everything.splitlines() if "no backend yet" in line]
    assert any(line.split()[1] == "deca" for line in waiting)
    assert not names & {line.split()[1] for line in waiting}
    assert json.loads(call("models", "list", "--kind", "fit", "--json")) == []


def test_list_by_kind_and_for_programs(models_dir: Path) -> None:
    said = json.loads(call("models", "list", "--kind", "detect", "--json", "--models", models_dir))
    by_name = {row["name"]: row for row in said}
    assert (
        by_name["scrfd_2.5g_bnkps"]["state"] == "here"
        and by_name["retinaface_r50"]["state"] == "missing"
    )
    assert by_name["scrfd_2.5g_bnkps"]["path"] == f"{models_dir}/detect/scrfd_2.5g_bnkps.onnx"
    assert {row["kind"].split("/")[0] for row in said} == {"detect"}
    assert "no weights of kind 'detec'; did you mean 'detect'?" in refused(
        "models", "list", "--kind", "detec", code=2
    )
    assert "there are: affect, " in refused("models", "list", "--kind", "xyzzy", code=2)


def test_large_files_are_listed_by_size_and_read_by_verify(
    tmp_path: Path, tiny: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.commands.models_told.HASHED_AT_ONCE", 5)
    (tmp_path / "tiny.onnx").write_bytes(BODY[:-1] + b"!")
    said = call("models", "list", "--kind", "detect/tiny", "--all", "--models", tmp_path)
    assert " here " in said and "judged by size; `idcluster models verify` reads them" in said
    said = call("models", "verify", "--models", tmp_path, code=1)
    assert f"tiny: damaged ({tmp_path}/tiny.onnx: size or sha256 is not the registered one)" in said


def test_verify_all_and_by_name(tmp_path: Path, tiny: Weights) -> None:
    said = call("models", "verify", "--models", tmp_path)
    assert " files are whole, 0 damaged, " in said, "what is missing is not damaged"
    assert "tiny: missing" in call("models", "verify", "tiny", "--models", tmp_path, code=1)
    (tmp_path / SHA256).write_bytes(BODY)
    assert f"tiny: here ({tmp_path}/{SHA256})" in call(
        "models", "verify", "tiny", "--models", tmp_path
    )


def test_a_models_directory_that_is_not_there(tmp_path: Path) -> None:
    said = refused("models", "list", "--models", tmp_path / "nowhere", code=2)
    assert (
        said
        == f"{tmp_path}/nowhere is no folder; --models or IDCLUSTER_MODELS names the folder that "
        "holds weight files"
    )
    assert "work on a folder" in refused("models", "list", "--models", "s3://bucket/models", code=2)
    nowhere = refused("models", "fetch", "glintr100", code=2)
    assert nowhere == "name the models directory: --models DIR, or the variable IDCLUSTER_MODELS"


def test_fetch_by_name_and_again(tmp_path: Path, tiny: Weights, server: Files) -> None:
    models = tmp_path / "models"
    lines = call("models", "fetch", "tiny", "--models", models).splitlines()
    assert lines[0] == f"tiny: {server.base}/tiny.onnx"
    assert lines[-2:] == [
        "1 fetched",
        "some of them may not be used for everything (non-commercial): `idcluster models licences`",
    ]
    assert call("models", "fetch", "tiny", "--models", models).splitlines() == ["1 here"]
    assert (models / "detect" / "tiny.onnx").read_bytes() == BODY


def test_fetch_what_a_dag_needs_and_what_is_free(
    tmp_path: Path, server: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    dag = tmp_path / "dag.yaml"
    shutil.copy(Path(__file__).parents[3] / "dags" / "photos_scrfd_edgeface.yaml", dag)
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    body = b"a small detector"
    entry = WEIGHTS["scrfd_2.5g_bnkps"]
    known = {
        **vars(entry),
        "sha256": hashlib.sha256(body).hexdigest(),
        "bytes": len(body),
        "address": f"{server.base}/gone",
    }
    monkeypatch.setitem(WEIGHTS, entry.name, Weights(**known))
    (mirror / "scrfd_2.5g_bnkps.onnx").write_bytes(body)
    said = call(
        "models", "fetch", "--dag", dag, "--models", tmp_path / "m", "--mirror", mirror, code=1
    )
    assert "scrfd_2.5g_bnkps: fetched: " in said
    assert (
        "edgeface_xs: by hand: an export of the published checkpoint without a public copy; "
        in said
    )
    assert f"; put it at {tmp_path}/m/embed/" in said
    assert said.splitlines()[-2] == "1 fetched, 1 by hand"
    for name, entry in list(WEIGHTS.items()):
        if entry.use == "any" and entry.address is not None:
            monkeypatch.delitem(WEIGHTS, name)
    free = Weights(
        "free",
        "free.bin",
        SHA256,
        None,
        "MIT",
        "any",
        "x",
        kind="a/b",
        address=f"{server.base}/tiny.onnx",
    )
    monkeypatch.setitem(WEIGHTS, "free", free)
    assert "free: fetched" in call("models", "fetch", "--all-any", "--models", tmp_path / "m")
    assert "say what to fetch: names, --dag DAG or --all-any" in refused(
        "models", "fetch", "--models", tmp_path / "m", code=2
    )
    assert "did you mean 'free'" in refused(
        "models", "fetch", "fre", "--models", tmp_path / "m", code=2
    )


def test_fetch_and_pin_what_nobody_states(
    tmp_path: Path, tiny: Weights, server: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(WEIGHTS, "tiny", Weights(**{**vars(tiny), "sha256": None, "bytes": None}))
    said = call("models", "fetch", "tiny", "--models", tmp_path, code=1)
    assert f"idcluster models pin tiny {tmp_path}/detect/tiny.onnx --models {tmp_path}" in said
    assert f"`models pin tiny {tmp_path}/detect/tiny.onnx`" in call(
        "models", "list", "--kind", "detect/tiny", "--all", "--models", tmp_path
    )
    said = call("models", "pin", "tiny", tmp_path / "detect/tiny.onnx", "--models", tmp_path)
    assert said == f"tiny: {tmp_path}/detect/tiny.onnx, {len(BODY)} bytes, sha256 {SHA256}\n"
    assert "tiny: here" in call("models", "verify", "tiny", "--models", tmp_path)


def test_add_and_list_weights_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "ours.onnx"
    file.write_bytes(BODY)
    models = tmp_path / "models"
    words = (
        "models",
        "add",
        "ours",
        file,
        "--like",
        "glintr100",
        "--licence",
        "own",
        "--use",
        "any",
        "--models",
        models,
    )
    assert "kind embed/arcface" in call(*words)
    [row] = [
        line
        for line in call(
            "models", "list", "--kind", "embed/arcface", "--models", models
        ).splitlines()
        if " ours " in line
    ]
    assert " here " in row and f"{models}/embed/ours.onnx" in row
    assert "registry.yaml already" in refused(*words, code=2)
    assert "use 'sell' is not one of any, " in refused(
        *words[:2], "other", file, *words[4:8], "--use", "sell", "--models", models, code=2
    )


def test_a_damaged_registry_is_named(tmp_path: Path) -> None:
    (tmp_path / "registry.yaml").write_text("pins: 3")
    assert refused("models", "list", "--models", tmp_path).startswith(
        f"{tmp_path}/registry.yaml: pins: "
    )


def test_licences_of_a_dag_and_what_was_accepted(tmp_path: Path) -> None:
    dag = Path(__file__).parents[3] / "dags" / "quickstart.yaml"
    said = call("models", "licences", "--dag", dag, "--models", tmp_path)
    assert (
        "  dlib_68_points, stage landmark, not accepted" in said
        and "  dlib_5_points, stage detect\n" in said
    )
    word = {
        "weights": "dlib_68_points",
        "licence": WEIGHTS["dlib_68_points"].licence,
        "use": "non-commercial",
    }
    (tmp_path / "accepted.yaml").write_text(
        yaml.safe_dump(
            {"accepted": [{**word, "when": "2026-11-21T05:00:00+00:00", "by": "ada@host"}]}
        )
    )
    said = call("models", "licences", "dlib_68_points", "--models", tmp_path)
    assert (
        said.splitlines()[-1] == "  dlib_68_points, accepted 2026-11-21T05:00:00+00:00 by ada@host"
    )


# run


@pytest.fixture
def people(tmp_path: Path) -> Path:
    (tmp_path / "people" / "Nobody").mkdir(parents=True)
    return tmp_path / "people"


def test_a_run_asks_once_and_keeps_the_answer_in_its_record(
    people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the question: Ray is not started."""
    root = tmp_path / "root"
    words = (
        "run",
        Path(cli.__file__).parents[1] / "dags" / "quickstart.yaml",
        "--set",
        f"source.path={people}",
        "--set",
        f"root={root}",
    )
    said = refused(*words)
    assert said.startswith("this DAG loads weights that may not be used for everything (1):")
    assert "dlib_68_points (stage landmark): non-commercial" in said and "--accept-licence" in said
    assert not root.exists(), "a refused run leaves nothing behind"
    note = "note: a run will ask for --accept-licence: dlib_68_points (non-commercial)"
    assert note in call("plan", *words[1:]) and note not in call(
        "plan", *words[1:], "--only", "crawl,detect"
    )
    from pipeline.run import Run

    seen = []

    def stop(self: Run) -> None:
        seen.append(self.record.licences)
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "execute", stop)
    assert invoke(*words, "--only", "crawl,detect").exit_code == 130, (
        "stages that are left out need no word"
    )
    accepted = invoke(*words, "--accept-licence")
    assert accepted.exit_code == 130
    place = Path(os.environ["XDG_CONFIG_HOME"]) / "idcluster" / "accepted.yaml"
    assert f"accepted and written down in {place}: dlib_68_points" in accepted.output
    assert "accepted" not in invoke(*words).output
    assert (
        seen[0] == []
        and seen[1] == seen[2]
        and seen[1][0]["weights"] == "dlib_68_points"
        and "@" in seen[1][0]["by"]
    )


def test_what_parameters_of_backends_accept_is_what_a_backend_can_load() -> None:
    """The list goes by what entries say of themselves, so that it needs no backend's packages."""
    import typing

    from pipeline.weights.loadable import loadable
    from stages.backends import BACKENDS, backend
    from stages.weights import NOTHING, WeightsName, names

    def markers(annotation: Any) -> Iterator[Any]:
        yield from getattr(annotation, "__metadata__", ())
        for inner in typing.get_args(annotation):
            yield from markers(inner)

    kinds = {
        kind
        for stage, known in BACKENDS.items()
        for name in known
        for field in backend(stage, name).Parameters.model_fields.values()
        for marker in (*field.metadata, *markers(field.annotation))
        if isinstance(marker, WeightsName)
        for kind in marker.kinds
    }
    assert kinds and set(names(*kinds, local=NOTHING)) <= loadable()
