"""On a disk that is full to the last byte, what frees room runs: gc, rollback and forget; and what
cannot says so.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]

PROGRAM = """
import errno, shutil, subprocess, sys
from pathlib import Path
from pipeline.forget.erase import forget
from pipeline.forget.preview import prepare
from pipeline.forget.wish import Wish
from pipeline.forget.verify import verify
from pipeline.gc import collect
from pipeline.history import rollback
from idcluster.root.lease import RESERVE
from idcluster.root.snapshot import load, numbers
from idcluster.root.storage import StorageError, Store
from tests.pipeline.forgotten import WHO, contents, gallery, remove
from tests.pipeline.rooms import bury, run_toy, shown

folder, disk = map(Path, sys.argv[1:3])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", disk], check=True)
root = disk / "root"
source = gallery(folder / "people", count=4, pictures=4)
run_toy(folder, source, root, ["stages.caption.params.prompt=other"])
first = load(Store(root)).number
before = shown(root)
run_toy(folder, source, root)
view = shown(root)
shutil.copytree(root, folder / "copy")


def fill():
    with open(disk / "ballast", "ab", buffering=0) as file:
        while True:
            try:
                file.write(bytes(4096))
            except OSError as error:
                assert error.errno == errno.ENOSPC
                return


def again(action):
    shutil.rmtree(root, ignore_errors=True)
    Path(disk / "ballast").unlink(missing_ok=True)
    shutil.copytree(folder / "copy", root)
    said = []
    action(Store(root), said.append)
    return said


"""

GC = """
def collected(store, say):
    store.put("tables/faces/v=1/bucket=00000/chunk-00000-orphan.parquet", bytes(100_000))
    fill()
    made = collect(store, 1, "gc", current_only=only, notice=say)
    assert made.published and len(made.snapshots) > 3 and numbers(store) == [made.published]
    assert shown(root) == view and store.exists(RESERVE)

for only in (False, True):
    again(collected)
"""

AFTER_A_DEATH = """
def collected(store, say):
    from idcluster.root.lease import Lease
    lease = Lease(store, "dead")
    lease.__enter__()
    lease._end_renewing()
    bury(root)
    fill()
    assert collect(store, 1, "gc", notice=say).snapshots
    assert shown(root) == view

again(collected)
"""

ROLLBACK = """
def back(store, say):
    fill()
    rollback(store, first, "back", say)
    assert shown(root) == before

again(back)
"""

FORGET = """
def removed(store, say):
    prepared = prepare(store, Wish(identities=(WHO,)))
    fill()
    forget(store, prepared, "forget", say, say)
    assert verify(store, [WHO]).leftovers == []

shutil.copytree(folder / "copy", folder / "undisturbed")
remove(Store(folder / "undisturbed"), WHO)
again(removed)
left = shown(root)
assert left == shown(folder / "undisturbed")

# What is kept back does not do: the person's own shard makes room.
from idcluster.root import lease
lease.RESERVE_BYTES = 96 << 10
kept = (folder / "copy" / RESERVE).read_bytes()
(folder / "copy" / RESERVE).write_bytes(bytes(lease.RESERVE_BYTES))
assert any("the disk is full: deleted" in text for text in again(removed)), "room was made"
(folder / "copy" / RESERVE).write_bytes(kept)
assert shown(root) == left
"""

NOT_A_BYTE = """
def refused(store, say):
    store.delete([RESERVE])
    fill()
    names = store.list("")
    for act in (
        lambda: collect(store, 1, "gc"),
        lambda: rollback(store, first, "back"),
        lambda: forget(store, prepare(store, Wish(identities=(WHO,))), "forget"),
    ):
        try:
            act()
        except StorageError as error:
            said = "the disk is full; to free room here takes about 100 kB to begin with"
            assert said in str(error), error
        else:
            raise AssertionError("there was room")
    assert store.list("") == names and shown(root) == view
    (disk / "ballast").write_bytes(b"")
    assert collect(store, 1, "gc").snapshots

again(refused)
"""


@pytest.fixture(scope="session")
def own_mounts() -> tuple[str, ...]:
    inside = ("unshare", "--mount", "--map-root-user")
    if subprocess.run(
        [*inside, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True
    ).returncode:
        pytest.skip("needs the right to mount disks in a namespace")
    return inside


@pytest.mark.slow
def test_what_frees_room_needs_none(tmp_path: Path, own_mounts: tuple[str, ...]) -> None:
    """The one command that would help would end with the same error as the run that filled the
    disk.
    """
    disk = tmp_path / "disk"
    disk.mkdir()
    program = "".join((PROGRAM, GC, AFTER_A_DEATH, ROLLBACK, FORGET, NOT_A_BYTE))
    command = [*own_mounts, sys.executable, "-c", program, str(tmp_path), str(disk)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, timeout=600, env=environment
    )
    assert done.returncode == 0, done.stderr
