"""Looking back and going back: which snapshots there are, what changed between two, and showing an
older one again.
"""

import contextlib
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from idcluster.catalogue.connection import connect
from idcluster.root.dataset_root import RunError, counts
from idcluster.root.lease import Lease, LeaseHeld
from idcluster.root.lease import read as read_lease
from idcluster.root.snapshot import SnapshotError, load, numbers, path_of
from idcluster.root.storage import Store
from pipeline.correct import Decision, correct, pair_of
from pipeline.gc import collect
from pipeline.history import diff, listing, rollback
from schemas import TABLES
from tests.pipeline.rooms import bury, computed, run_toy, shown
from tests.pipeline.toy import DyingStore, Killed, people, picture

STRICT = ("stages.clean.params.similarity_threshold=0.996",)
OTHER = ("stages.caption.params.prompt=other",)
Change = dict[str, tuple[int, int, int]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    folder = tmp_path_factory.mktemp("history")
    home = (folder, people(folder / "people"), folder / "root")
    run_toy(*home)
    return home


@pytest.fixture
def home(made: tuple[Path, Path, Path], tmp_path: Path) -> tuple[Path, Path, Path]:
    """A folder for DAG files, one of people, and a finished dataset."""
    shutil.copytree(made[1], tmp_path / "people")
    shutil.copytree(made[2], tmp_path / "root")
    return tmp_path, tmp_path / "people", tmp_path / "root"


def newest(root: Path) -> int:
    return numbers(Store(root))[-1]


def by_table(root: Path, before: int, after: int | None = None) -> Change:
    found = diff(Store(root), before, after).by("table").to_pylist()
    return {row["table"]: (row["added"], row["changed"], row["gone"]) for row in found}


def by_person(root: Path, before: int) -> Change:
    found = diff(Store(root), before).by("identity_id", "name").to_pylist()
    return {row["name"]: (row["added"], row["changed"], row["gone"]) for row in found}


def rows_at(root: Path, number: int, table: str) -> dict[str, tuple[Any, ...]]:
    """Rows by key as SQL gives them, without what says how and when they came about."""
    schema = TABLES[table]
    columns = [
        name
        for name in schema.names
        if name not in ("inputs", "fetched_at", "decided_at", "removed_at")
    ]
    connection = connect(str(root), number)
    quoted = ", ".join(f'"{name}"' for name in columns)
    rows = connection.execute(f"SELECT {schema.key}, {quoted} FROM {table}").fetchall()
    connection.close()
    return {row[0]: row[1:] for row in rows}


# Diff


def change(home: tuple[Path, Path, Path], how: str) -> None:
    folder, source, root = home
    if how == "new photograph":
        (source / "person 01" / "new.png").write_bytes(picture(11, noise=77))
    elif how == "removed photograph":
        (source / "person 02" / "03.png").unlink()
    elif how == "replaced photograph":
        (source / "person 02" / "03.png").write_bytes(picture(12, 12, noise=99))
    elif how == "new person":
        (source / "person 99").mkdir()
        (source / "person 99" / "only.png").write_bytes(picture(77, noise=1))
    run_toy(
        folder, source, root, STRICT if how == "threshold" else OTHER if how == "prompt" else ()
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        "new photograph",
        "removed photograph",
        "replaced photograph",
        "new person",
        "threshold",
        "prompt",
    ],
)
def test_a_diff_counts_what_a_comparison_of_all_rows_counts(
    home: tuple[Path, Path, Path], how: str
) -> None:
    """Files that both snapshots show are not read: a row in one of them would be told wrongly."""
    before = newest(home[2])
    change(home, how)
    after = newest(home[2])
    expected: dict[str, tuple[int, int, int]] = {}
    people_: Counter[str] = Counter()
    for table, schema in TABLES.items():
        if not {"identity_id", "status"} <= {*schema.names}:
            continue
        old, new = rows_at(home[2], before, table), rows_at(home[2], after, table)
        added, gone = new.keys() - old.keys(), old.keys() - new.keys()
        changed = {key for key in old.keys() & new.keys() if old[key] != new[key]}
        if added or gone or changed:
            expected[table] = (len(added), len(changed), len(gone))
        where = schema.names.index("identity_id")
        people_.update({**old, **new}[key][where] for key in (*added, *gone, *changed))
    found = diff(Store(home[2]), before)
    assert {
        table: row for table, row in by_table(home[2], before).items() if table != "samples"
    } == expected and expected
    told = [row for row in found.rows.to_pylist() if row["table"] != "samples"]
    sums: Counter[str] = Counter()
    for row in told:
        sums[row["identity_id"]] += row["added"] + row["changed"] + row["gone"]
    assert sums == people_
    backwards = by_table(home[2], after, before)
    assert backwards == {
        table: (gone, changed, added)
        for table, (added, changed, gone) in by_table(home[2], before).items()
    }


@pytest.mark.slow
def test_a_diff_names_people_and_says_which_parameter_changed(
    home: tuple[Path, Path, Path],
) -> None:
    before = newest(home[2])
    change(home, "new photograph")
    assert [*by_person(home[2], before)] == ["person 01"]
    assert diff(Store(home[2]), before).made_by == {}
    before = newest(home[2])
    change(home, "threshold")
    assert diff(Store(home[2]), before).made_by == {"clusters": "similarity_threshold 0.8 -> 0.996"}


def test_equal_files_are_not_read(
    home: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A diff of a large dataset would read all of it."""
    before = newest(home[2])
    change(home, "prompt")
    read: list[str] = []
    monkeypatch.setattr("pipeline.history.read_entries", _spy(read))
    diff(Store(home[2]), before)
    assert set(read) == {"captions", "identities"}


def _spy(read: list[str]) -> Callable[..., Any]:
    from idcluster.root.parquet import read_entries

    def spy(store: Store, table: str, entries: Any, *rest: Any) -> Any:
        read.extend([table] if entries else [])
        return read_entries(store, table, entries, *rest)

    return spy


def test_a_mask_with_other_pixels_is_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Masks have no hash among their columns."""
    from tests.pipeline import small_root

    store = Store(tmp_path)
    before = small_root.small_root(store, [small_root.SmallPerson("Ada", 3)])
    monkeypatch.setattr(small_root, "mask_png", lambda level: b"other")
    small_root.small_root(store, [small_root.SmallPerson("Ada", 3)], before)
    assert by_table(tmp_path, 1) == {"masks": (0, 3, 0)}


def test_from_nothing_and_to_itself(home: tuple[Path, Path, Path]) -> None:
    assert by_table(home[2], 0)["images"] == (44, 0, 0)
    assert by_table(home[2], newest(home[2])) == {}
    with pytest.raises(SnapshotError, match="has no snapshot 99; `idcluster snapshots` lists"):
        diff(Store(home[2]), 99)


# List


def test_every_snapshot_is_listed_with_what_it_changed(home: tuple[Path, Path, Path]) -> None:
    change(home, "removed photograph")
    store = Store(home[2])
    store.put(path_of(2), b"damaged")
    found = {one.number: one for one in listing(store)}
    assert [*found] == numbers(store)
    assert found[1].changes == "identities +4, candidates +44"
    assert found[2].changes == "damaged"
    assert found[newest(home[2])].changes == "samples -1"
    assert all(
        one.run and one.published and one.files and one.bytes
        for one in found.values()
        if one.number != 2
    )


def test_counts_read_only_files_with_other_rows_than_ok(
    home: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, snapshot = Store(home[2]), load(Store(home[2]))
    read: list[str] = []
    from idcluster.root.parquet import read_entries

    def spy(store: Store, table: str, entries: Any, *rest: Any) -> Any:
        read.extend([table] if entries else [])
        return read_entries(store, table, entries, *rest)

    monkeypatch.setattr("idcluster.root.dataset_root.read_entries", spy)
    found = counts(store, snapshot)
    assert {table: (sum(states.values()), states["ok"]) for table, states in found.items()} == {
        table: (
            sum(e.rows for e in snapshot.shown(table)),
            sum(e.ok for e in snapshot.shown(table)),
        )
        for table in found
    }
    assert (
        set(read) == {table for table, states in found.items() if set(states) - {"ok"}}
        and "embeddings" not in read
    )


# Going back


@pytest.mark.slow
def test_rollback_shows_what_was_shown_then(home: tuple[Path, Path, Path]) -> None:
    """Tables, shards and their indexes are those of then, to the byte; a run with the DAG of then
    has nothing to compute.
    """
    before, number = shown(home[2]), newest(home[2])
    change(home, "threshold")
    between = newest(home[2])
    assert shown(home[2]) != before
    made = rollback(Store(home[2]), number, "back")
    assert made.number == between + 1 == newest(home[2])
    assert made.notes["run"] == "back" and made.notes["published"]
    assert shown(home[2]) == before
    assert numbers(Store(home[2])) == [*range(1, between + 2)], "history is kept"
    assert listing(Store(home[2]))[-1].changes.startswith(f"back to {number}, clusters changed")
    assert computed(run_toy(*home)) == {}
    assert shown(home[2]) == before
    assert read_lease(Store(home[2])) is None


def decisions(root: Path) -> list[tuple[str, str]]:
    connection = connect(str(root))
    found = connection.execute("SELECT face_id, action FROM overrides ORDER BY ALL").fetchall()
    connection.close()
    return found


@pytest.mark.slow
def test_rollback_keeps_decisions_by_hand(home: tuple[Path, Path, Path]) -> None:
    """Somebody has looked at hundreds of faces; a way back to last week's thresholds would lose all
    that was decided since.
    """
    store, number = Store(home[2]), newest(home[2])
    connection = connect(str(home[2]))
    [first, second] = [
        face
        for (face,) in connection.execute(
            "SELECT face_id FROM clusters WHERE keep ORDER BY 1 LIMIT 2"
        ).fetchall()
    ]
    connection.close()
    correct(store, [Decision("reject", first)], "by hand", "me")
    with_one = newest(home[2])
    change(home, "new person")
    correct(
        store,
        [
            Decision("clear", first),
            Decision("reject", second),
            pair_of("apart", "person 99=person 00"),
        ],
        "by hand",
        "me",
    )
    run_toy(*home)
    now = decisions(home[2])
    for back, count in ((number, 2), (with_one, 3)):
        said: list[str] = []
        rollback(store, back, "back", said.append)
        assert said == [
            f"{count} decisions by hand made since then stay as they are; the next run applies them"
        ]
        assert decisions(home[2]) == now
    # Of somebody whom that snapshot does not know, too.
    correct(store, [Decision("reject", first)], "by hand", "me")
    assert decisions(home[2]) == sorted([*now, (first, "reject")])
    run_toy(*home)
    connection = connect(str(home[2]))
    kept = connection.execute(
        "SELECT face_id, keep, reason FROM clusters WHERE face_id IN (?, ?) ORDER BY 1",
        [first, second],
    ).fetchall()
    connection.close()
    assert (
        kept == [(first, False, "rejected"), (second, False, "rejected")]
        and len(decisions(home[2])) == 3
    )


def test_rollback_and_forth(home: tuple[Path, Path, Path]) -> None:
    first = newest(home[2])
    change(home, "removed photograph")
    second, view = newest(home[2]), shown(home[2])
    store = Store(home[2])
    rollback(store, first, "a")
    rollback(store, second, "b")
    assert shown(home[2]) == view
    assert rollback(store, second, "c").number == second + 2, "the same again publishes nothing"


def test_rollback_to_before_there_were_shards_empties_the_index(
    home: tuple[Path, Path, Path],
) -> None:
    """A training would go on with shards that the dataset does not show."""
    made = rollback(Store(home[2]), 2, "back")
    for name in ("index", "train", "validation"):
        index = json.loads((home[2] / "shards" / "faces" / f"{name}.json").read_text())
        assert (index["shardlist"], index["samples"], index["identities"]) == ([], 0, 0)
    assert not made.shown("shards")
    run_toy(*home)
    assert json.loads((home[2] / "shards" / "faces" / "index.json").read_text())["samples"] == 28


def test_rollback_is_refused_where_files_are_gone(home: tuple[Path, Path, Path]) -> None:
    store, number = Store(home[2]), newest(home[2])
    gone = load(store).shown("captions")[0].file
    change(home, "prompt")
    before = newest(home[2])
    store.delete([gone])
    with pytest.raises(
        RunError,
        match=rf"snapshot {number} of .* cannot be shown again: 1 of its files are gone \({gone}\)",
    ):
        rollback(store, number, "back")
    assert newest(home[2]) == before


@pytest.mark.slow
def test_rollback_after_a_collection_does_without_shards_that_were_not_shown(
    home: tuple[Path, Path, Path],
) -> None:
    change(home, "threshold")
    change(home, "removed photograph")
    store = Store(home[2])
    number = newest(home[2])
    view = shown(home[2])
    change(home, "new person")
    collect(store, newest(home[2]) - number + 1, "gc")
    made = rollback(store, number, "back")
    assert all(store.exists(file) for file in made.files())
    assert shown(home[2]) == view


def test_rollback_waits_for_whoever_writes_and_notices_a_lost_lease(
    home: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(home[2])
    with Lease(store, "r9"), pytest.raises(LeaseHeld, match="run r9"):
        rollback(store, 2, "back")
    before = newest(home[2])
    monkeypatch.setattr(Lease, "held", lambda self: False)
    with pytest.raises(RunError, match=r"the lease on .* was lost; nothing was published"):
        rollback(store, 2, "back")
    assert newest(home[2]) == before


@pytest.mark.slow
def test_rollback_that_dies_is_mended_by_another_or_by_a_run(
    home: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    """The index would list other shards than the dataset shows, for good."""
    number, before = newest(home[2]), shown(home[2])
    change(home, "threshold")
    for mend in ("rollback", "run", "gc"):
        at = 0
        while True:
            at += 2
            root = tmp_path / f"{mend}-{at}"
            shutil.copytree(home[2], root)
            store = DyingStore(root, at, after=True)
            with contextlib.suppress(Killed):
                rollback(store, number, "back")
            bury(root)
            published = newest(root) > newest(home[2])
            if mend == "rollback":
                rollback(Store(root), number, "back")
            elif mend == "run":
                run_toy(home[0], home[1], root)
            elif published:
                collect(Store(root), 1, "gc")
            if mend != "gc" or published:
                assert shown(root) == before, (mend, at)
            if not store.dead:
                break
        assert at > 10
