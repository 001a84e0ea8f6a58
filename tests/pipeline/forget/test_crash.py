"""A removal that is killed at any step: it is finished later, and what comes of it is the same."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from idcluster.root.dataset_root import RunError
from idcluster.root.parquet import DamagedFile
from idcluster.root.removals import UNFINISHED, key_of
from idcluster.root.snapshot import load, numbers
from idcluster.root.storage import Store
from pipeline.correct import correct, pair_of
from pipeline.forget.erase import forget, resume
from pipeline.forget.preview import PreparedErasure, prepare
from pipeline.forget.verify import verify
from pipeline.forget.wish import Wish
from pipeline.gc import collect
from pipeline.history import rollback
from pipeline.shards.scratch import ShardError
from tests.pipeline.forgotten import WHO, contents, gallery
from tests.pipeline.rooms import bury, run_toy
from tests.pipeline.toy import DyingStore, Killed


class Failing(DyingStore):
    """Dies at its n-th change of the root; what only reads does not count."""

    def _call(self, name: str, *arguments: Any, **named: Any) -> Any:
        if name in ("read", "exists", "list"):
            if self.dead:
                raise Killed
            return getattr(Store, name)(self, *arguments, **named)
        return super()._call(name, *arguments, **named)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gallery(tmp_path_factory.mktemp("source") / "people", count=4, pictures=2)


@pytest.fixture(scope="module")
def base(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with what a removal touches: two profiles, one behind the tables, a record with the
    name, a report.
    """
    folder = tmp_path_factory.mktemp("base")
    run_toy(
        folder,
        source,
        folder / "root",
        ("stages.caption.params.prompt=x", "stages.shard.params.profile=second"),
    )
    run_toy(folder, source, folder / "root")
    store = Store(folder / "root")
    store.put("runs/20000101T000000-aaaa.json", b'{"selection": {"where": "name = \'person 01\'"}}')
    store.put("report.html", b"person 01")
    for number in numbers(store)[:-3]:  # fewer steps, of the same kinds
        store.delete([f"snapshots/{number:06d}.parquet"])
    key_of(store, make=True)
    return folder / "root"


@pytest.fixture(scope="module")
def prepared(base: Path) -> PreparedErasure:
    return prepare(Store(base), Wish(identities=(WHO,)))


@pytest.mark.slow
def test_killed_at_any_step_it_comes_to_the_same_end(
    base: Path, prepared: PreparedErasure, tmp_path: Path
) -> None:
    """Somebody would stay half removed, or others be lost, wherever a machine dies."""
    undisturbed = Path(shutil.copytree(base, tmp_path / "undisturbed"))
    counting = Failing(undisturbed)
    forget(counting, prepared, "forget-test")
    expected = contents(Store(undisturbed))
    assert counting.calls > 30 and UNFINISHED not in expected
    for at in [*range(1, counting.calls, 2), counting.calls]:
        root = Path(shutil.copytree(base, tmp_path / "killed"))
        with pytest.raises(Killed):
            forget(Failing(root, at=at, after=at == counting.calls), prepared, "forget-test")
        store = Store(root)
        bury(store.root)
        if store.exists(UNFINISHED):
            assert resume(store, "forget-again") is not None
        elif at < counting.calls - 2:  # it had not begun
            forget(store, prepared, "forget-test")
        found = contents(store)
        assert found.keys() == expected.keys(), at
        assert found == expected, at
        shutil.rmtree(root)


@pytest.mark.slow
def test_killed_while_it_goes_on_it_goes_on_once_more(
    base: Path, prepared: PreparedErasure, tmp_path: Path
) -> None:
    """What is at work a second time starts from a root that is neither as before nor as after."""
    root = Path(shutil.copytree(base, tmp_path / "root"))
    with pytest.raises(Killed):
        forget(Failing(root, at=25), prepared, "forget-test")
    for at in (5, 12, 19):
        bury(root)
        with pytest.raises(Killed):
            resume(Failing(root, at=at), "forget-again")
    bury(root)
    assert resume(Store(root), "forget-again") is not None
    undisturbed = Path(shutil.copytree(base, tmp_path / "undisturbed"))
    forget(Store(undisturbed), prepared, "forget-test")
    assert contents(Store(root)) == contents(Store(undisturbed))
    assert (
        verify(Store(root), [WHO]).leftovers == [] and resume(Store(root), "forget-again") is None
    )


@pytest.mark.slow
def test_a_file_that_cannot_be_read_stops_it_before_it_begins(base: Path, tmp_path: Path) -> None:
    """Half of the snapshots would be without the person, and nothing could finish it: `gc` and
    `rollback` would be refused, too.
    """
    root = Path(shutil.copytree(base, tmp_path / "root"))
    store = Store(root)
    newest = load(store)
    [file] = {entry.file for entry in newest.shown("clusters")}
    whole = store.read(file)
    prepared = prepare(store, Wish(identities=(WHO,)))
    (root / file).write_bytes(whole[: len(whole) // 2])
    before = contents(store)
    with pytest.raises(DamagedFile, match=r"cannot be read"):
        prepare(store, Wish(identities=(WHO,)))
    with pytest.raises(DamagedFile, match=r"cannot be read"):
        forget(store, prepared, "forget-test")
    assert contents(store) == before and not store.exists(UNFINISHED)
    (root / file).write_bytes(whole)
    forget(store, prepared, "forget-test")
    assert verify(store, [WHO]).leftovers == []


def test_a_damaged_list_of_removals_or_receipt_stops_it_before_it_begins(
    base: Path, prepared: PreparedErasure, tmp_path: Path
) -> None:
    """It would end in the middle, each time anew."""
    for path in ("shards/faces/removals.json", "receipts/20200101T000000-aaaa.json"):
        root = Path(shutil.copytree(base, tmp_path / path.split("/")[0]))
        store = Store(root)
        store.put(path, b'{"removals": [')
        before = contents(store)
        with pytest.raises(RunError, match="is damaged"):
            forget(store, prepared, "forget-test")
        assert contents(store) == before


def test_shards_of_others_that_cannot_be_written_do_not_hold_it_up(
    base: Path, prepared: PreparedErasure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged image of somebody else would keep the person in the dataset, and everybody from
    writing to it.
    """
    root = Path(shutil.copytree(base, tmp_path / "root"))
    said: list[str] = []

    def fail(store: Store, job: object) -> None:
        raise ShardError("the bytes of image 0 are not there")

    monkeypatch.setattr("pipeline.forget.erase.write_shard", fail)
    assert prepared.journal["replan"]
    forget(Store(root), prepared, "forget-test", say=said.append)
    assert any("the bytes of image 0 are not there" in text for text in said)
    assert verify(Store(root), [WHO]).leftovers == [] and not Store(root).exists(UNFINISHED)


@pytest.mark.slow
def test_until_it_is_finished_nothing_else_writes(
    base: Path, prepared: PreparedErasure, source: Path, tmp_path: Path
) -> None:
    """A run would compute from what is half gone and publish it; a rollback would show the
    person.
    """
    root = Path(shutil.copytree(base, tmp_path / "root"))
    with pytest.raises(Killed):
        forget(Failing(root, at=25), prepared, "forget-test")
    store = Store(root)
    bury(store.root)
    said = r"was broken off; `idcluster forget .* --resume` finishes it"
    with pytest.raises(RunError, match=said):
        run_toy(tmp_path, source, root)
    with pytest.raises(RunError, match=said):
        collect(store, 1, "gc")
    with pytest.raises(RunError, match=said):
        rollback(store, numbers(store)[0], "back")
    with pytest.raises(RunError, match=said):
        correct(store, [pair_of("apart", "person 00=person 02")], "by hand")
    assert any(found.path == UNFINISHED for found in verify(store, [WHO]).leftovers)
    resume(store, "forget-again")
    run_toy(tmp_path, source, root)
    assert verify(store, [WHO]).leftovers == []
