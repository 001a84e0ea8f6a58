"""The store: a file is there whole or not at all, and an error says which file and what to look
at.
"""

import errno
import subprocess
import sys
import textwrap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import fsspec
import pytest

from idcluster.root.storage import StorageError, Store

NAMES = [
    "plain",
    "with blank",
    "100%41",
    "%2e%2e",
    "Zoë-图片",
    "quote'\"",
    "[a]*?",
    "#frag",
    "a;b=c&d",
    "back\\slash",
    "..three",
]
NAMES += ["line\nbreak", "~", "-rf", "$HOME"]
ESCAPES = ["..", "../x", "a/../../x", "a/..", "/etc/passwd", "/", "a\0b", "\0"]
_REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "root")


@pytest.fixture(params=["disk", "memory"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A store on a disk and one behind fsspec, as object stores are."""
    return Store(tmp_path / "root" if request.param == "disk" else f"memory://test{tmp_path}/root")


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def test_a_file_is_put_read_replaced_and_deleted(either: Store) -> None:
    """What a stage wrote would not be what the next one reads."""
    either.put("a/b/c", b"one")
    either.put("a/b/c", b"two, longer", durable=False)
    assert either.read("a/b/c") == b"two, longer"
    assert either.size("a/b/c") == 11 and either.exists("a/b/c") and not either.exists("a/b/d")
    with either.open("a/b/c") as file:
        file.seek(5)
        assert file.read(6) == b"longer"
    either.delete(["a/b/c", "a/b/c", "never/was"])
    assert not either.exists("a/b/c")


def test_parts_of_a_file_are_read_alone(either: Store) -> None:
    either.put("a/b", b"0123456789")
    assert either.read_part("a/b", 3, 4) == b"3456"
    assert either.read_part("a/b", 8, 4) == b"89"
    assert either.read_end("a/b", 3) == b"789"
    assert either.read_end("a/b", 30) == b"0123456789"
    either.put("empty", b"")
    assert either.read_end("empty", 5) == b""


def test_missing_files_are_told_by_the_usual_error(either: Store) -> None:
    """Whoever looks for a first snapshot, a lease or a mark would crash on an empty root."""
    for action in (either.read, either.open, either.size):
        with pytest.raises(FileNotFoundError):
            action("no/such")


def test_list_finds_all_files_below_a_folder_sorted(either: Store) -> None:
    """`gc` would leave files behind or the newest snapshot would not be found."""
    for path in ("a/2", "a/10", "a/b/1", "ab/1", "c"):
        either.put(path, b"")
    assert either.list("a") == ["a/10", "a/2", "a/b/1"]
    assert either.list("nothing") == []


@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_taken_as_it_is(either: Store, name: str) -> None:
    """A person or a folder with such a name would be read from another place than it was written
    to.
    """
    either.put(f"{name}/{name}.parquet", name.encode())
    either.put("other", b"")
    assert either.list(name) == [f"{name}/{name}.parquet"]
    assert either.read(f"{name}/{name}.parquet") == name.encode()
    assert either.put_new(f"{name}/{name}.parquet", b"") is False
    either.delete([f"{name}/{name}.parquet"])
    assert either.list(name) == []


@pytest.mark.parametrize("name", NAMES)
def test_any_root_is_taken_as_it_is(tmp_path: Path, name: str) -> None:
    """A dataset in such a folder could not be opened by the readers that get a path."""
    store = Store(tmp_path / name)
    store.put("a/b", b"x")
    assert Path(store.uri("a/b")).read_bytes() == b"x" == (tmp_path / name / "a" / "b").read_bytes()
    assert Store(f"{tmp_path / name}/").list("a") == ["a/b"]


def test_a_root_may_be_relative_or_in_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`root: ~/faces` would create a folder named `~`; a worker in another folder would write
    elsewhere.
    """
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert Store("~/faces").root == Store("faces").root == str(tmp_path / "faces")


@pytest.mark.parametrize("path", ESCAPES)
def test_nothing_outside_the_root_is_touched(either: Store, tmp_path: Path, path: str) -> None:
    """A hostile name in a list of people would overwrite somebody's files."""
    (tmp_path / "x").write_bytes(b"mine")
    actions: list[Callable[[], object]] = [
        lambda: either.put(path, b"evil"),
        lambda: either.put_new(path, b"evil"),
        lambda: either.put_file(path, tmp_path / "x"),
        lambda: either.read(path),
        lambda: either.open(path),
        lambda: either.delete([path]),
        lambda: either.list(path),
        lambda: either.exists(path),
        lambda: either.size(path),
    ]
    for action in actions:
        with pytest.raises(StorageError, match="is not a path below the dataset root"):
            action()
    assert everything(tmp_path) == ["x"] and (tmp_path / "x").read_bytes() == b"mine"


def test_no_temporary_file_is_left(store: Store, tmp_path: Path) -> None:
    """Roots would fill up with files that nothing names."""
    local = tmp_path / "local"
    local.write_bytes(b"large")
    store.put("a", b"1")
    store.put("d/b", b"2", durable=False)
    assert store.put_new("d/c", b"3") is True
    assert store.put_new("d/c", b"4") is False
    store.put_file("d/e", local)
    assert everything(tmp_path / "root") == ["a", "d/b", "d/c", "d/e"]
    assert store.read("d/c") == b"3" and store.read("d/e") == b"large"


def test_a_file_where_a_folder_should_be_is_an_error_that_leaves_nothing(
    store: Store, tmp_path: Path
) -> None:
    """A run would end in a stack trace about a temporary file that nobody has heard of."""
    store.put("file", b"old")
    store.put("folder/x", b"old")
    local = tmp_path / "local"
    local.write_bytes(b"large")
    for path in ("file/below", "folder"):
        full = f"cannot write {tmp_path}/root/{path}: "
        for action in (lambda p: store.put(p, b"new"), lambda p: store.put_file(p, local)):
            with pytest.raises(StorageError) as caught:
                action(path)
            assert full in str(caught.value)
    with pytest.raises(StorageError, match=r"cannot write .*/file/below: "):
        store.put_new("file/below", b"new")
    assert everything(tmp_path / "root") == ["file", "folder/x"]
    assert store.read("file") == store.read("folder/x") == b"old"


def test_a_name_too_long_is_an_error_that_leaves_nothing(store: Store, tmp_path: Path) -> None:
    """A worker would be restarted for ever because of one name."""
    for action in (store.put, store.put_new):
        with pytest.raises(StorageError, match=r"cannot write .*: File name too long") as caught:
            action("a" * 300, b"new")
        assert caught.value.errno == errno.ENAMETOOLONG
    assert everything(tmp_path) == []


def test_only_one_of_many_puts_a_new_file(store: Store) -> None:
    """Two runs would both believe that they published a snapshot, and one of them would be lost."""
    barrier = Barrier(16)

    def write(number: int, path: str) -> bool:
        barrier.wait()
        return store.put_new(path, b"%d" % number)

    with ThreadPoolExecutor(16) as pool:
        for attempt in range(10):
            path = f"snapshots/{attempt}"
            won = list(pool.map(write, range(16), [path] * 16))
            assert won.count(True) == 1
            assert store.read(path) == b"%d" % won.index(True)
    assert store.list("snapshots") == sorted(f"snapshots/{attempt}" for attempt in range(10))


def test_a_new_file_in_an_object_store_is_put_once() -> None:
    """The lease of an object store would have two holders."""
    store = Store("memory://test-once/root")
    assert [store.put_new("lease", b"1"), store.put_new("lease", b"2")] == [True, False]
    assert store.read("lease") == b"1"
    fsspec.filesystem("memory").rm("/test-once", recursive=True)


def test_readers_see_the_old_file_or_the_new_one(store: Store) -> None:
    """A lease or a mark would be read half written, and taken for nobody's."""
    contents = {b"a" * 200_000, b"b" * 100_000}
    store.put("x", min(contents))

    def write(data: bytes) -> None:
        for _ in range(40):
            store.put("x", data, durable=False)

    with ThreadPoolExecutor(2) as pool:
        writers = [pool.submit(write, data) for data in contents]
        while not all(writer.done() for writer in writers):
            assert store.read("x") in contents
        assert [writer.result() for writer in writers] == [None, None]


def run(program: str, *arguments: object, inside: tuple[str, ...] = ()) -> list[str]:
    """The lines that a program prints in a process of its own."""
    source = (
        "import sys\nfrom pathlib import Path\nfrom idcluster.root.storage import Store, "
        "StorageError\n" + textwrap.dedent(program)
    )
    command = [*inside, sys.executable, "-c", source, *map(str, arguments)]
    done = subprocess.run(command, cwd=_REPOSITORY, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_write_that_breaks_off_leaves_what_was_there(tmp_path: Path) -> None:
    """A full disk would leave half a file under a good name: every later reader would stumble over
    it.
    """
    lines = run(
        """
        import resource, signal
        store = Store(sys.argv[1])
        store.put("a", b"old")
        Path(sys.argv[2]).write_bytes(b"x" * 3000)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        for write in (lambda: store.put("a", b"x" * 3000), lambda: store.put_new("b", b"x" * 3000)):
            try:
                write()
            except StorageError as error:
                print(error)
        """,
        tmp_path / "root",
        tmp_path / "large",
    )
    assert [line.partition("cannot write ")[2] for line in lines] == [
        f"{tmp_path}/root/{name}: File too large" for name in "ab"
    ]
    assert everything(tmp_path / "root") == ["a"] and (tmp_path / "root/a").read_bytes() == b"old"


@pytest.fixture(scope="session")
def own_mounts() -> tuple[str, ...]:
    """The start of a command line that runs the rest where it may mount disks, unseen by others."""
    inside = ("unshare", "--mount", "--map-root-user")
    try:
        subprocess.run(
            [*inside, "mount", "-t", "tmpfs", "none", "/mnt"],
            check=True,
            capture_output=True,
            timeout=60,
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip(
            "needs the right to mount disks in a namespace (user namespaces are switched off here)"
        )
    return inside


def test_a_full_disk_is_called_that(tmp_path: Path, own_mounts: tuple[str, ...]) -> None:
    """`OSError` in the middle of the night, and nobody would know that a disk is full."""
    lines = run(
        """
        import subprocess
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", sys.argv[1]], check=True)
        store = Store(sys.argv[1])
        store.put("a", b"old")
        Path(sys.argv[2]).write_bytes(b"x" * 100_000)
        for write in (
            lambda: store.put("a", b"x" * 100_000),
            lambda: store.put_new("b", b"x" * 100_000),
            lambda: store.put_file("c", sys.argv[2]),
        ):
            try:
                write()
            except StorageError as error:
                print(error)
        print(store.list(""), store.read("a"))
        store.put("d", b"x" * 40_000)
        print(store.size("d"))
        """,
        tmp_path,
        tmp_path.with_suffix(".large"),
        inside=own_mounts,
    )
    full = [
        f"[Errno {errno.ENOSPC}] cannot write {tmp_path}/{name}: the disk is full" for name in "abc"
    ]
    assert lines == [*full, "['a'] b'old'", "40000"]


def test_a_read_only_place_is_called_that(tmp_path: Path, own_mounts: tuple[str, ...]) -> None:
    """A root on a read-only share would look like a defect of the program."""
    lines = run(
        """
        import subprocess
        subprocess.run(["mount", "-t", "tmpfs", "none", sys.argv[1]], check=True)
        store = Store(sys.argv[1])
        store.put("a", b"old")
        subprocess.run(["mount", "-o", "remount,ro", sys.argv[1]], check=True)
        for write in (store.put, store.put_new):
            try:
                write("a", b"new")
            except StorageError as error:
                print(error)
        print(store.read("a"))
        """,
        tmp_path,
        inside=own_mounts,
    )
    assert lines == [
        f"[Errno {errno.EROFS}] cannot write {tmp_path}/a: the place is read-only"
    ] * 2 + ["b'old'"]


def test_a_folder_without_permission_is_called_that(tmp_path: Path) -> None:
    """A root that belongs to somebody else would look like a defect of the program."""
    (tmp_path / "root").mkdir(mode=0o555)
    (line,) = run(
        """
        import os
        if os.geteuid() == 0:
            os.setegid(65534)
            os.seteuid(65534)
        try:
            Store(sys.argv[1]).put("a", b"")
        except StorageError as error:
            print(error)
        """,
        tmp_path / "root",
    )
    assert (
        line
        == f"[Errno {errno.EACCES}] cannot write {tmp_path}/root/a: no permission to write there"
    )
