"""What breaks under a run: a full disk, files cut short, a store that is away; and that the next
run goes on from there.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from idcluster.root.parquet import DamagedFile
from idcluster.root.snapshot import SnapshotError, load, publish
from idcluster.root.storage import Store
from tests.pipeline.damaged import flipped_bytes
from tests.pipeline.rooms import bury, computed, run_toy, shown
from tests.pipeline.toy import DyingStore, Killed, people

REPOSITORY = Path(__file__).parents[2]

FULL_DISK = """
import subprocess, sys
from pathlib import Path
from idcluster.root.storage import StorageError
from tests.pipeline.damaged import flipped_bytes
from tests.pipeline.rooms import bury, computed, run_toy, shown

folder, source, disk = map(Path, sys.argv[1:])
run_toy(folder, source, folder / "root")
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], check=True)
refused = 0
for size in range(48, 2000, 24):
    # The disk grows little by little, so that it is full at ever other places of the run.
    (disk / "ballast").write_bytes(b"")
    subprocess.run(["mount", "-o", f"remount,size={size}k", disk], check=True)
    try:
        run_toy(folder, source, disk / "root")
    except StorageError as error:
        assert "the disk is full" in str(error), error
        refused += 1
        continue
    break
same = shown(disk / "root") == shown(folder / "root")
print(refused > 5, same, computed(run_toy(folder, source, disk / "root")) == {})
"""


@pytest.mark.slow
def test_a_full_disk_stops_a_run_with_a_word_and_a_larger_one_lets_it_go_on(tmp_path: Path) -> None:
    source = people(tmp_path / "people", count=3)
    disk = tmp_path / "disk"
    disk.mkdir()
    inside = ["unshare", "--mount", "--map-root-user"]
    if subprocess.run(
        [*inside, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True
    ).returncode:
        pytest.skip("needs the right to mount disks in a namespace")
    command = [*inside, sys.executable, "-c", FULL_DISK, str(tmp_path), str(source), str(disk)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, timeout=240, env=environment
    )
    assert done.stdout.split() == ["True", "True", "True"], done.stderr


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return people(tmp_path_factory.mktemp("source") / "people", count=3, pictures=14)


@pytest.fixture(scope="module")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("undisturbed")
    run_toy(folder, source, folder / "root")
    return shown(folder / "root")


@pytest.mark.slow
@pytest.mark.parametrize("left", [0, 4, 200], ids=["emptied", "a few bytes", "half"])
def test_parts_cut_short_by_a_power_cut_are_computed_again(
    source: Path, undisturbed: dict[str, Any], tmp_path: Path, left: int
) -> None:
    """Parts are not waited for on the disk; what a power cut leaves of them must not be taken for
    rows.
    """
    root = tmp_path / "root"
    Store(root).put("dataset.json", b'{"format": 1, "name": "toy"}')
    with pytest.raises(Killed):
        run_toy(tmp_path, source, root, store=DyingStore(root, at=30))
    parts = list((root / "parts").rglob("*.parquet"))
    assert parts
    for path in parts:
        path.write_bytes(path.read_bytes()[:left])
    bury(root)
    record = run_toy(tmp_path, source, root)
    assert all(stage["adopted"] == 0 for stage in record.stages.values())
    assert shown(root) == undisturbed


CHANGES = {
    "faces": "clean.params.near_tie=0.8",
    "images": "detect.params.margin=3",
    "clusters": "caption.params.prompt=other",
}
"""A table, and what to change so that it is read again."""


@pytest.mark.parametrize("table", CHANGES)
def test_a_damaged_file_is_named_and_nothing_is_made_of_it(
    source: Path, tmp_path: Path, table: str
) -> None:
    """Rows would be lost in silence, or computed from half of what they stem from."""
    root = tmp_path / "root"
    run_toy(tmp_path, source, root)
    before = load(Store(root)).number
    [path] = (root / "tables" / table).rglob("*.parquet")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DamagedFile, match=path.name):
        run_toy(tmp_path, source, root, (f"stages.{CHANGES[table]}",))
    path.write_bytes(whole)
    run_toy(tmp_path, source, root)
    assert load(Store(root)).number >= before


def test_a_picture_whose_bytes_changed_on_the_disk_is_never_used(
    source: Path, tmp_path: Path
) -> None:
    """A rotten bit would become a face that nobody has, and a shard that nobody can check."""
    root = tmp_path / "root"
    run_toy(tmp_path, source, root)
    [path] = (root / "tables" / "images").rglob("*.parquet")
    data = path.read_bytes()
    path.write_bytes(flipped_bytes(data, data.index(b"\x89PNG") + 40))
    with pytest.raises(DamagedFile, match=path.name):
        run_toy(tmp_path, source, root, ("stages.detect.params.margin=3",))


@pytest.mark.slow
def test_a_file_that_is_gone_is_computed_again(
    source: Path, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    """Whatever the run changes beside; where nothing else is to be done, too."""
    root = tmp_path / "root"
    run_toy(tmp_path, source, root)
    [path] = (root / "tables" / "embeddings").rglob("*.parquet")
    path.unlink()
    assert set(
        computed(run_toy(tmp_path, source, root, ("stages.clean.params.near_tie=0.8",)))
    ) >= {"embed", "clean"}
    path.unlink()
    assert set(computed(run_toy(tmp_path, source, root))) == {"embed"}
    assert shown(root) == undisturbed


@pytest.mark.slow
def test_whoever_publishes_in_between_is_not_overwritten(source: Path, tmp_path: Path) -> None:
    """Two writers, of whom one believes wrongly that it holds the lease: the later one stops, and
    the views are whole.
    """
    root = tmp_path / "root"
    store = Store(root)
    store.put("dataset.json", b'{"format": 1, "name": "toy"}')

    class Intruder(DyingStore):
        def put_new(self, path: str, data: bytes) -> bool:
            if path == "snapshots/000003.parquet":
                publish(store, load(store))
            return super().put_new(path, data)

    with pytest.raises(
        SnapshotError, match="was published by another writer meanwhile; run again to go on from it"
    ):
        run_toy(tmp_path, source, root, store=Intruder(root))
    run_toy(tmp_path, source, root)
    shutil.rmtree(tmp_path / "afresh", ignore_errors=True)
    run_toy(tmp_path, source, tmp_path / "afresh")
    assert shown(root) == shown(tmp_path / "afresh")
    assert computed(run_toy(tmp_path, source, root)) == {}
