"""Starting Ray on this machine: what is in the way is put aside or told in one sentence."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline.execution import start_ray
from pipeline.execution.engine import EngineError
from pipeline.execution.ray_engine import _cause
from pipeline.execution.start_ray import start_local, temporary_folder
from tests.pipeline.drivers import LIMIT, REPOSITORY
from tests.pipeline.toy import people

LONG = "a" * 80


# Where Ray's files go


def test_rays_usual_folder_is_taken_where_it_will_do(tmp_path: Path) -> None:
    short = tmp_path.parents[len(tmp_path.parents) - 2] / f"idcluster-test-{os.getpid()}"
    try:
        assert temporary_folder(short) == short and list(short.iterdir()) == []
    finally:
        short.rmdir()


@pytest.mark.parametrize("kind", ["long", "missing", "a file", "not ours"])
def test_another_folder_is_taken_where_rays_usual_one_will_not_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Schedulers of batch jobs give every job a TMPDIR with a long name, in which no socket can be
    made.
    """
    first = {
        "long": tmp_path / LONG / "ray",
        "missing": Path("/proc/nothing/ray"),
        "a file": Path(__file__) / "ray",
    }.get(kind)
    if first is None:
        # Somebody else may have put a link where we would put our folder.
        (tmp_path / "elsewhere").mkdir()
        first = Path("/tmp") / f"idcluster-link-{os.getpid()}" / "ray"
        first.parent.symlink_to(tmp_path / "elsewhere")
    try:
        found = temporary_folder(first)
    finally:
        if kind == "not ours":
            first.parent.unlink()
    assert found != first and len(str(found)) <= start_ray._LONGEST_FOLDER and found.is_dir()
    assert found.parent.stat().st_mode & 0o777 == 0o700, "what lies there is nobody else's"


def test_no_folder_at_all_is_told_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start_ray, "_usable", lambda folder: False)
    with pytest.raises(EngineError, match=r"Ray needs a folder .* set RAY_TMPDIR to one"):
        temporary_folder(tmp_path / "ray")


# The second try


Init = Callable[..., None]


@pytest.fixture
def init(monkeypatch: pytest.MonkeyPatch) -> Callable[[Init], None]:
    """Put something in the place of Ray's start, which takes minutes to fail."""
    import ray

    monkeypatch.setenv("RAY_GCS_SERVER_PORT", "6379")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)

    return lambda replacement: monkeypatch.setattr(ray, "init", replacement)


def test_a_start_that_fails_is_tried_once_more_with_more_time_and_nothing_in_the_way(
    init: Callable[[Init], None],
) -> None:
    """A busy machine needs more than the 30 seconds that Ray gives its processes."""
    from ray._private import services

    seen: list[tuple[Any, ...]] = []
    asked = services.get_node

    def start(**options: Any) -> None:
        variables = [
            os.environ.get(name)
            for name in ("RAY_GCS_SERVER_PORT", "RAY_gcs_server_port_wait_time_s", "RAY_AUTH_TOKEN")
        ]
        seen.append((options["_temp_dir"], services.get_node is asked, *variables))
        if len(seen) == 1:
            raise Exception("The current node timed out during startup.")

    init(start)
    said: list[str] = []
    start_local({}, said.append)
    (first, usual, port, wait, token), (second, still_usual, no_port, longer, own_token) = seen
    assert usual and (port, wait, token) == ("6379", None, None)
    assert not still_usual and (no_port, longer) == (None, "300") and len(own_token) == 64
    assert second.startswith("/tmp/idcluster-") and first != second
    assert services.get_node is asked and os.environ["RAY_GCS_SERVER_PORT"] == "6379"
    assert said == [
        "Ray did not start: its processes did not answer within 30 s; it is tried once more, "
        "with more time"
    ]
    for name in (*start_ray._PATIENT, "RAY_AUTH_TOKEN"):
        os.environ.pop(name, None)  # Ray's processes keep them while they run


def raising(error: Exception) -> Init:
    def start(**options: Any) -> None:
        raise error

    return start


@pytest.mark.parametrize(
    ("error", "cause", "remedy"),
    [
        (
            Exception("The current node timed out during startup."),
            "did not answer within 300 s",
            "fewer workers",
        ),
        (
            RuntimeError("Failed to start GCS.\n... server_ The specified port is 40123 ..."),
            "a port is in use",
            "ray stop",
        ),
        (
            PermissionError(13, "Permission denied", "/home/me/.ray"),
            "/home/me/.ray: Permission denied",
            "set HOME and RAY_TMPDIR",
        ),
        (
            ValueError("num_cpus must be positive.\nand more"),
            "num_cpus must be positive",
            "run again",
        ),
        (RuntimeError(""), "RuntimeError", "run again"),
    ],
)
def test_a_second_failure_is_one_sentence_with_the_remedy_and_the_logs(
    init: Callable[[Init], None], error: Exception, cause: str, remedy: str
) -> None:
    before = dict(os.environ)
    init(raising(error))
    with pytest.raises(EngineError) as told:
        start_local({}, lambda text: None)
    said = str(told.value)
    assert (
        said.startswith("Ray could not be started, at the second try either: ") and "\n" not in said
    )
    assert cause in said and remedy in said and "Ray's folder: /tmp/idcluster-" in said
    assert dict(os.environ) == before


def test_what_a_failed_start_has_started_is_ended(init: Callable[[Init], None]) -> None:
    """Its processes would hold memory and ports while the next start waits for them."""
    started: list[subprocess.Popen[bytes]] = []

    def start(**options: Any) -> None:
        started.append(subprocess.Popen(["sleep", "600"]))
        raise Exception("The current node timed out during startup.")

    bystander = subprocess.Popen(["sleep", "600"])
    try:
        init(start)
        with pytest.raises(EngineError):
            start_local({}, lambda text: None)
        assert len(started) == 2 and not any(psutil.pid_exists(process.pid) for process in started)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_the_second_start_lets_a_node_take_its_time_to_show_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ray._private import services

    answers: list[Any] = [RuntimeError("not there"), RuntimeError("not there"), {"node": 1}]

    def get_node(*arguments: Any) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(services, "get_node", get_node)
    monkeypatch.setattr("pipeline.execution.start_ray.time.sleep", lambda seconds: None)
    monkeypatch.setenv("RAY_BACKEND_LOG_LEVEL", "info")
    with start_ray._longer("fatal"):
        assert services.get_node("address", "id") == {"node": 1}
    assert services.get_node is get_node and os.environ["RAY_BACKEND_LOG_LEVEL"] == "fatal"


# What is said of workers that end


def ray_data_error(cause: Any) -> Exception:
    """As Ray Data raises what is no fault of a stage."""
    from ray.data.exceptions import SystemException
    from ray.exceptions import ActorDiedError

    error = ActorDiedError(cause)
    error.__cause__ = SystemException()
    return error


def test_an_actor_that_could_not_start_is_told_by_its_error_alone() -> None:
    from ray.exceptions import RayTaskError

    trace = (
        'ray::MapWorker.__init__() (pid=1)\n  File "x.py", line 1\nModuleNotFoundError: No '
        "module named 'pipeline.execution'"
    )
    said = _cause(
        ray_data_error(RayTaskError("f", trace, ModuleNotFoundError("no"), "p", 1, "::1"))
    )
    assert (
        said == "a worker of Ray ended: ModuleNotFoundError: No module named 'pipeline.execution'"
    )


def test_an_actor_that_died_is_told_in_one_line() -> None:
    said = _cause(ray_data_error(None))
    assert said == "a worker of Ray ended: The actor died unexpectedly before finishing this task."


def test_an_error_of_a_stage_is_told_as_it_is() -> None:
    error = RuntimeError("outer")
    error.__cause__ = ValueError("the weights are for another network")
    assert _cause(error) == "ValueError: the weights are for another network"


# All of it on a real Ray


@pytest.mark.ray
def test_a_run_where_everything_is_in_the_way(tmp_path: Path) -> None:
    """Packages of our names and a cv2 in the current folder, a long TMPDIR, a home that cannot be
    written.
    """
    here = tmp_path / LONG
    people(here / "people", count=1, pictures=2)  # and five that are no images of anybody
    for name in ("pipeline", "stages", "schemas", "tests"):
        (here / name).mkdir()
        (here / name / "__init__.py").write_text("raise RuntimeError('somebody else\\'s')")
    (here / "cv2.py").write_text("raise RuntimeError('somebody else\\'s')")
    (here / "dag.yaml").write_text(
        "name: faces\nroot: out/\nsource: {kind: folder, path: people/, name: local}\nstages: "
        "{crawl: {}, detect: {}}\n"
    )
    variables = {
        **os.environ,
        "TMPDIR": str(here),
        "HOME": "/proc/nothing",
        "PYTHONPATH": str(REPOSITORY),
    }
    for name in ("RAY_TMPDIR", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        variables.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-m", "idcluster", "run", "dag.yaml"],
        cwd=here,
        env=variables,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0 and done.stderr == "", done.stdout + done.stderr
    assert (
        "crawl: 7 rows" in done.stdout
        and "Ray did not start: /proc/nothing: No such file or directory" in done.stdout
    )
    assert done.stdout.splitlines()[-1].startswith("done: ")
