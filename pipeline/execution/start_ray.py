"""How Ray is started on this machine, or connected to: what workers import, where Ray's files go,
one more try, and what to say where it does not start.

A first start may fail on what is no fault of the machine's: a slow disk or busy cores, a folder for
temporary files with a long name, a port of somebody else's, a home folder that cannot be written.
The second one waits longer and puts all of that aside.
"""

import os
import secrets
import signal
import site
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipeline.execution.cluster import package_folders
from pipeline.execution.engine import EngineError

_LONGEST_SOCKET = 107
"""Bytes that a name of a local socket may have on Linux; Ray puts sockets into its folder."""
_BELOW = len("/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")
_LONGEST_FOLDER = _LONGEST_SOCKET - _BELOW
_LONG_SECONDS = 300
"""How long the second start waits for each of Ray's processes; Ray itself gives up after 30."""
# fmt: off
_PATIENT = {
    "RAY_gcs_server_port_wait_time_s": str(_LONG_SECONDS),
    "RAY_raylet_start_wait_time_s": str(_LONG_SECONDS),
    "RAY_worker_register_timeout_seconds": str(_LONG_SECONDS),
    "RAY_agent_register_timeout_ms": str(_LONG_SECONDS * 1000),
    "RAY_gcs_rpc_server_connect_timeout_s": "60", "RAY_py_gcs_connect_timeout_s": "60",
}
# fmt: on
_PORT, _LEVEL = "RAY_GCS_SERVER_PORT", "RAY_BACKEND_LOG_LEVEL"


def start_local(
    options: Mapping[str, Any], say: Callable[[str], None], further: Sequence[str] = ()
) -> str:
    """Start a Ray of our own with the arguments `options` of `ray.init`, and return the folder of
    its logs. `further`: packages, beside ours, that workers import.

    `say` is told of a second try. Raises EngineError, whose message has the cause and what to do.
    """
    folder = temporary_folder(_usual_folder())
    try:
        return _attempt(options, folder, further)
    except Exception as error:  # noqa: BLE001 - Ray raises RuntimeError, OSError, ValueError and plain Exception here
        first = error
    say(f"Ray did not start: {_why(first, 30)[0]}; it is tried once more, with more time")
    # Ray's own folder may be what is in the way.
    folder = temporary_folder(own_folder(Path("/tmp")))  # noqa: S108 - the folder below is ours alone
    try:
        with _longer(os.environ.get(_LEVEL)), _put_aside():
            return _attempt(options, folder, further)
    except Exception as error:
        raise EngineError(_told(error, folder)) from error


def connect(address: str, options: Mapping[str, Any]) -> None:
    """Connect to the cluster at `address`. Raises EngineError."""
    import ray

    try:
        with _our_signals():
            ray.init(address=address, job_config=_job(()), **options)
    except Exception as error:
        raise EngineError(f"no connection to a Ray cluster at {address}: {_line(error)}") from error


def logs() -> str | None:
    """The folder of the logs of the Ray that this process started; None where there is none."""
    with suppress(Exception):
        from ray._private import worker

        node: Any = worker._global_node
        if node is not None and node.head:
            return str(node.get_logs_dir_path())
    return None


def _attempt(options: Mapping[str, Any], folder: Path, further: Sequence[str]) -> str:
    """One start. Processes of one that fails are ended, so that they are not in the way of the
    next.
    """
    import psutil  # comes with Ray
    import ray

    ours = psutil.Process()
    before = {child.pid for child in ours.children(recursive=True)}
    try:
        with _our_signals():
            # "local": a variable RAY_ADDRESS would otherwise lead to a cluster.
            ray.init(
                address="local",
                _temp_dir=str(folder),
                job_config=_job(_search_path(further)),
                **options,
            )
    except BaseException:
        with suppress(Exception):
            ray.shutdown()
        left = [child for child in ours.children(recursive=True) if child.pid not in before]
        for child in left:
            with suppress(psutil.Error):
                child.kill()
        psutil.wait_procs(left, timeout=10)
        raise
    return logs() or str(folder)


# What workers import


def _job(path: Sequence[str]) -> Any:
    """A job whose workers do not look into the folder in which the driver was started, where
    anything may lie.

    Ray puts that folder before all others, and a `pipeline/` or `cv2.py` there would be imported in
    place of what is installed. `path` is searched before all others instead.
    """
    from ray.job_config import JobConfig

    class Job(JobConfig):
        def _serialize(self) -> Any:
            given = list(self._py_driver_sys_path)
            if given and given[-1] == os.path.abspath(os.curdir):
                given.pop()  # what is before it is the folder of a script that the user wrote
            # Ray's workers put them in front one by one, so the last is the first.
            self._py_driver_sys_path = [*given, *path]
            return super()._serialize()

    return Job()


def _search_path(further: Sequence[str]) -> list[str]:
    """The folders that our packages and `further` ones lie in, ours last, so that a PYTHONPATH does
    not hide them; without those that belong to the interpreter.
    """
    ours = package_folders()
    folders = [folder.parent for folder in (*package_folders(further)[len(ours) :], ours[0])]
    shared = {
        Path(place).resolve() for place in (*site.getsitepackages(), site.getusersitepackages())
    }
    return [str(folder) for folder in folders if folder.resolve() not in shared]


# Where Ray's files go


def _usual_folder() -> Path:
    """Where Ray would put its files by itself."""
    return (
        Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or tempfile.gettempdir())
        / "ray"
    )


def own_folder(parent: Path) -> Path:
    """A folder for Ray below a parent that everybody may write to."""
    return parent / f"idcluster-{os.getuid()}" / "ray"


def temporary_folder(first: Path) -> Path:
    """`first` if Ray's sockets fit below it and it can be written, else another one. Raises
    EngineError if there is none.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    others = [
        own_folder(Path("/tmp")),  # noqa: S108
        own_folder(Path("/var/tmp")),  # noqa: S108
        *([Path(runtime) / "ray"] if runtime else []),
    ]
    for folder in (first, *others):
        if len(os.fsencode(folder)) <= _LONGEST_FOLDER and _usable(folder):
            return folder
    raise EngineError(
        "Ray needs a folder for its files that can be written and whose name is not longer than "
        f"{_LONGEST_FOLDER - len('/ray')} bytes,"
        f" and {first.parent} is none: set RAY_TMPDIR to one"
    )


def _usable(folder: Path) -> bool:
    """Whether files can be put into a folder that is nobody else's, or everybody's as Ray's usual
    one is.
    """
    try:
        if folder.parent.name.startswith("idcluster-"):
            folder.parent.mkdir(mode=0o700, exist_ok=True)
            about = folder.parent.lstat()
            if folder.parent.is_symlink() or about.st_uid != os.getuid():
                return False
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


# The second start


@contextmanager
def _put_aside() -> Iterator[None]:
    """Without a port that somebody chose, with a token of our own, with logs that say more."""
    changed: dict[str, str | None] = {_PORT: None, _LEVEL: "info", **_PATIENT}
    if os.environ.get("RAY_AUTH_MODE", "token") == "token" and not {
        "RAY_AUTH_TOKEN",
        "RAY_AUTH_TOKEN_PATH",
    } & set(os.environ):
        changed["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # Ray would keep one in the home folder
    before = {name: os.environ.get(name) for name in changed}
    _set(changed)
    try:
        yield
    except BaseException:
        _set(before)
        raise
    # Processes that Ray starts later need the token and the limits as well.
    _set({name: before[name] for name in (_PORT, _LEVEL)})


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextmanager
def _longer(level: str | None) -> Iterator[None]:
    """Ray waits 30 seconds for a node to show itself, and no setting changes that: let the question
    take longer.

    From then on this process logs at `level`.
    """
    from ray._private import services

    asked: Any = services.get_node
    deadline = time.monotonic() + _LONG_SECONDS

    def patient(*arguments: Any, **named: Any) -> Any:
        _set(
            {_LEVEL: level}
        )  # Ray's processes are there; what this one would log comes out between our lines
        while True:
            try:
                return asked(*arguments, **named)
            except RuntimeError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    services.get_node = patient
    try:
        yield
    finally:
        services.get_node = asked


@contextmanager
def _our_signals() -> Iterator[None]:
    """Ray puts its own handlers in place, which end the process at once; put back what was
    there.
    """
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


# What to say


def _line(error: BaseException) -> str:
    """What an error says, in one line."""
    said = str(error).strip()
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[0][:200].rstrip(".:") if lines else type(error).__name__


def _told(error: BaseException, folder: Path) -> str:
    """Why Ray did not start and what to do, in one sentence, with the place of its logs."""
    if isinstance(error, EngineError):
        return str(error)
    cause, remedy = _why(error, _LONG_SECONDS)
    return (
        f"Ray could not be started, at the second try either: {cause}; {remedy}. {_where(folder)}"
    )


def _why(error: BaseException, seconds: int) -> tuple[str, str]:
    """The cause in a few words, and what helps."""
    said = str(error)
    if isinstance(error, OSError) and error.filename:
        return (
            f"{error.filename}: {error.strerror}",
            "mend that, or set HOME and RAY_TMPDIR to folders that can be written",
        )
    if "Address already in use" in said or "specified port" in said:
        return (
            "a port is in use",
            "end the program that has it (a Ray of an earlier run: `ray stop`) and run again",
        )
    if any(word in said.lower() for word in ("timed out", "timeout", "unavailable", "overloaded")):
        remedy = (
            "run again when the machine has less to do, or with fewer workers (resources.workers)"
        )
        return f"its processes did not answer within {seconds} s", remedy
    return _line(error), "run again"


def _where(folder: Path) -> str:
    """Where the logs of the newest Ray that this process has started below `folder` lie."""
    with suppress(OSError):
        mine = sorted(folder.glob(f"session_*_{os.getpid()}"))
        if mine:
            return f"Ray's logs: {mine[-1] / 'logs'}"
    return f"Ray's folder: {folder}"
