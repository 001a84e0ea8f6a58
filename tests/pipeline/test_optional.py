"""A stage or decisions by hand that are added to a dataset later, changed, and taken away again:
only what follows is computed.
"""

import contextlib
import shutil
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from idcluster.root.dataset_root import open_root
from idcluster.root.parquet import seal_table
from idcluster.root.snapshot import WHOLE, Entry, load, publish
from pipeline.execution.snapshot_tables import is_chunked
from pipeline.prepared_dag import Selection, prepare
from pipeline.record import Record
from schemas import TABLES, identity_id
from schemas.schema import Column, TableSchema
from stages.backends import BACKENDS
from stages.stage import Picture, Services, Stage
from tests.pipeline import rooms
from tests.pipeline.rooms import bury, run_toy, shown, small_buckets
from tests.pipeline.toy import DyingStore, Killed, people, toy_dag

Home = tuple[Path, Path, Path]

FACES, KEPT, PEOPLE = 36, 28, 4
"""Of four people: eight photographs with nine faces, of which seven are kept."""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A folder for DAG files, one of people, and where the dataset goes."""
    return tmp_path, people(tmp_path / "people"), tmp_path / "root"


def computed(record: Record) -> dict[str, int]:
    """Units that a run computed, by stage; without what is done for the whole dataset whenever a
    person changes.
    """
    return {name: units for name, units in rooms.computed(record).items() if name != "match"}


def screened(noise: int, compared: bool = False) -> tuple[str, ...]:
    """The toy DAG with screening: faces with more noise are filtered."""
    return (
        f"stages.screen={{backend: toy, params: {{max_noise: {noise}, compared: "
        f"{str(compared).lower()}}}}}",
    )


def afresh(home: Home, sets: Sequence[str] = ()) -> dict[str, Any]:
    """What a new dataset of the same source shows."""
    root = home[0] / "afresh"
    shutil.rmtree(root, ignore_errors=True)
    run_toy(home[0], home[1], root, sets)
    return shown(root)


def without_screenings(view: Mapping[str, Any]) -> dict[str, Any]:
    """A stage that the DAG no longer has leaves its rows in the dataset, as every stage does, and
    `dataset.json` says so.
    """
    shards = {
        path: digest
        for path, digest in view["shards"].items()
        if not path.endswith("/dataset.json")
    }
    return {name: rows for name, rows in view.items() if name != "screenings"} | {"shards": shards}


def reasons(root: Path, table: str) -> dict[str | None, int]:
    column = TABLES[table].names.index("reason")
    found = [row[column] for row in shown(root)[table]]
    return {reason: found.count(reason) for reason in found}


# a stage


@pytest.mark.slow
def test_a_stage_that_filters_nothing_costs_its_own_rows(home: Home) -> None:
    """Whoever adds screening to a finished dataset would pay for all of it again."""
    run_toy(*home)
    before = shown(home[2])
    assert computed(run_toy(*home, sets=screened(255))) == {"screen": FACES}
    after = shown(home[2])
    assert len(after["screenings"]) == FACES and not before["screenings"]
    assert without_screenings(after) == without_screenings(before), "inputs too are what they were"
    assert computed(run_toy(*home, sets=screened(255))) == {}


def test_versions_do_not_depend_on_a_stage_that_may_be_missing(home: Home) -> None:
    plain, more = (prepare(toy_dag(*home, sets), None).versions for sets in ((), screened(3)))
    assert {name: version for name, version in more.items() if name != "screen"} == plain


@pytest.mark.slow
def test_what_is_filtered_is_neither_clustered_nor_captioned_nor_sharded(home: Home) -> None:
    run_toy(*home)
    record = run_toy(*home, sets=screened(3))
    # Images 4 and 5 and the pair of each person go; nobody else's captions are touched.
    assert computed(record) == {"screen": FACES, "clean": PEOPLE, "people": PEOPLE}
    view = shown(home[2])
    assert reasons(home[2], "screenings") == {None: 20, "noisy": 16}
    assert (len(view["clusters"]), len(view["captions"])) == (20, 16)
    assert view == afresh(home, screened(3))


@pytest.mark.slow
@pytest.mark.parametrize(
    "buckets", [nullcontext, small_buckets], ids=["one chunk", "many chunks, merged"]
)
def test_another_limit_runs_what_follows_and_back_runs_nothing(home: Home, buckets: Any) -> None:
    with buckets():
        run_toy(*home, sets=screened(3))
        record = run_toy(*home, sets=screened(4))
        assert computed(record) == {
            "screen": FACES,
            "clean": PEOPLE,
            "people": PEOPLE,
            "caption": PEOPLE,
        }
        assert shown(home[2]) == afresh(home, screened(4))
        assert computed(run_toy(*home, sets=screened(3))) == {}
        assert shown(home[2]) == afresh(home, screened(3))


@pytest.mark.slow
def test_a_stage_that_is_taken_away_leaves_everything_as_it_was_without_it(home: Home) -> None:
    run_toy(*home)
    run_toy(*home, sets=screened(3))
    assert computed(run_toy(*home)) == {}, "the rows from before are shown again"
    assert without_screenings(shown(home[2])) == without_screenings(afresh(home))
    assert computed(run_toy(*home, sets=screened(3))) == {}
    assert shown(home[2]) == afresh(home, screened(3))


@pytest.mark.slow
def test_only_people_with_a_filtered_face_are_cleaned_again(home: Home) -> None:
    """One bad image of one person would have everybody clustered again."""
    extra = people(home[0] / "more", count=1, pictures=8) / "person 00"
    for number in (6, 7):
        shutil.copy(extra / f"{number:02d}.png", home[1] / "person 02")
    run_toy(*home, sets=screened(95))
    record = run_toy(*home, sets=screened(90))
    assert computed(record) == {"screen": FACES + 2}
    for person in ("person 00", "person 01", "person 03"):
        (home[1] / person / "pair.png").unlink()
    run_toy(*home, sets=screened(90))
    record = run_toy(*home, sets=screened(6))
    assert computed(record) == {"screen": FACES - 4, "clean": 1, "people": 1}, (
        "number 7 and the pair are of one person"
    )
    assert without_gone(shown(home[2])) == without_gone(afresh(home, screened(6)))


def without_gone(view: Mapping[str, Any]) -> dict[str, Any]:
    """A dataset remembers images that are gone as candidates, a new one does not."""
    return {name: rows for name, rows in view.items() if name != "candidates"}


@pytest.mark.slow
def test_filtered_faces_can_still_say_who_the_person_is(home: Home) -> None:
    run_toy(*home, sets=screened(3, compared=True))
    view = shown(home[2])
    assert len(view["clusters"]) == FACES
    assert reasons(home[2], "clusters") == {None: 16, "screened": 12, "other_cluster": 8}
    assert len(view["captions"]) == 16


@pytest.mark.slow
def test_clean_waits_for_a_screening_that_the_dag_has(home: Home) -> None:
    """Whoever runs stages one by one would cluster everything, and again after screening."""
    run_toy(*home, sets=screened(3), selection=Selection(only=("crawl", "detect", "embed")))
    for selection in (
        Selection(only=("clean",)),
        Selection(only=("clean",), limit=100),
        Selection(only=("clean",), where="rank >= 0"),
    ):
        assert computed(run_toy(*home, sets=screened(3), selection=selection)) == {}
    assert computed(run_toy(*home, sets=screened(3), selection=Selection(only=("screen",)))) == {
        "screen": FACES
    }
    assert computed(run_toy(*home, sets=screened(3))) == {
        "clean": PEOPLE,
        "people": PEOPLE,
        "caption": 16,
    }
    assert shown(home[2]) == afresh(home, screened(3))


@pytest.mark.slow
def test_screening_of_some_pictures_lets_clean_see_those(home: Home) -> None:
    run_toy(*home, sets=screened(3), selection=Selection(only=("crawl", "detect", "embed")))
    some = Selection(only=("screen", "clean"), where="name = 'person 01'")
    assert computed(run_toy(*home, sets=screened(3), selection=some)) == {
        "screen": 9,
        "clean": 1,
        "people": 1,
    }
    run_toy(*home, sets=screened(3))
    assert shown(home[2]) == afresh(home, screened(3))


PARTS: tuple[tuple[str, ...], ...] = ((), ("clean",), ("screen",), ("caption",))
STATES: tuple[tuple[str, ...], ...] = (
    (),
    screened(2),
    screened(4),
    screened(4, compared=True),
    screened(255),
)


@pytest.mark.slow
@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.tuples(st.sampled_from(STATES), st.sampled_from(PARTS)), max_size=4),
    st.integers(0, len(STATES) - 1),
)
def test_the_way_does_not_matter(
    home: Home, way: list[tuple[tuple[str, ...], tuple[str, ...]]], last: int
) -> None:
    """On, off, stricter, in parts: what is shown at the end is what the last DAG makes from
    scratch.
    """
    shutil.rmtree(home[2], ignore_errors=True)
    for sets, only in way:
        run_toy(
            *home,
            sets=sets,
            selection=Selection(only=tuple(name for name in only if name != "screen" or sets)),
        )
    run_toy(*home, sets=STATES[last])
    assert computed(run_toy(*home, sets=STATES[last])) == {}
    found, expected = shown(home[2]), afresh(home, STATES[last])
    assert (found if STATES[last] else without_screenings(found)) == (
        expected if STATES[last] else without_screenings(expected)
    )


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_run_that_dies_while_screening_is_added_and_is_resumed(home: Home, after: bool) -> None:
    run_toy(*home)
    kept = home[0] / "kept"
    shutil.copytree(home[2], kept)
    counting = DyingStore(home[2])
    run_toy(*home, sets=screened(3), store=counting)
    view = shown(home[2])
    for at in range(2 + after, counting.calls + 1, 7):
        root = home[0] / f"root-{at}"
        shutil.copytree(kept, root)
        with contextlib.suppress(Killed):
            run_toy(home[0], home[1], root, sets=screened(3), store=DyingStore(root, at, after))
        bury(root)
        run_toy(home[0], home[1], root, sets=screened(3))
        assert shown(root) == view, f"died at call {at} of {counting.calls}"
        shutil.rmtree(root)


# a table that is written by hand


# fmt: off
VERDICTS = TableSchema(
    "verdicts", 1, "judge", "Decisions by hand.", "face_id", None, None,
    tuple(
        Column(name, pa.string(), "a column", nullable=False, text=False)
        for name in ("identity_id", "face_id", "action", "status")
    ),
)
# fmt: on


class JudgedCaption(Stage):
    """Captions of kept faces with what somebody said of them: a stage of slices that reads a table
    of people's buckets.
    """

    name: ClassVar[str] = "caption"
    backend: ClassVar[str] = "judged"
    parent: ClassVar[str] = "faces"
    reads: ClassVar[Mapping[str, tuple[str, ...]]] = {"faces": ("box",), "verdicts": ("action",)}
    optional: ClassVar[frozenset[str]] = frozenset({"verdicts"})

    def run(self, rows: pa.Table, pictures: Mapping[str, Picture], services: Services) -> pa.Table:
        ids = ("identity_id", "image_id", "face_id")
        said = [
            ({name: row[name] for name in ids}, row["verdicts.action"]) for row in rows.to_pylist()
        ]
        return self.build(
            [{**face, "caption": action or "nothing said", "status": "ok"} for face, action in said]
        )


class JudgedPeople(Stage):
    """How many faces of a person nobody has rejected: a stage of people."""

    name: ClassVar[str] = "people"
    backend: ClassVar[str] = "judged"
    grain = "bucket"
    parent: ClassVar[str] = "embeddings"
    reads: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "embeddings": ("vector",),
        "verdicts": ("action",),
    }
    optional: ClassVar[frozenset[str]] = frozenset({"verdicts"})

    def run(self, rows: pa.Table, pictures: Mapping[str, Picture], services: Services) -> pa.Table:
        faces: dict[str, list[dict[str, Any]]] = {}
        for row in rows.to_pylist():
            faces.setdefault(row["identity_id"], []).append(row)
        return self.build(
            [
                {
                    "identity_id": who,
                    "indicator": min(mine, key=lambda row: row["face_id"])["embeddings.vector"],
                    "kept": sum(row["verdicts.action"] != "reject" for row in mine),
                    "status": "ok",
                }
                for who, mine in faces.items()
            ]
        )


JUDGED = (
    "stages.caption={backend: judged}",
    "stages.people={backend: judged}",
    "stages.shard.params.include=[]",
)


@pytest.fixture
def judged(home: Home, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setitem(TABLES, "verdicts", VERDICTS)
    monkeypatch.setitem(BACKENDS["caption"], "judged", f"{__name__}:JudgedCaption")
    monkeypatch.setitem(BACKENDS["people"], "judged", f"{__name__}:JudgedPeople")
    assert not is_chunked("verdicts")
    return home


def decide(root: Path, actions: Mapping[str, str]) -> None:
    """Put decisions by face id into the dataset, in place of those that are there."""
    store = open_root(str(root))
    snapshot = load(store)
    [bucket] = {entry.bucket for entry in snapshot.shown("faces")}
    who = {row[TABLES["faces"].names.index("face_id")]: row[0] for row in shown(root)["faces"]}
    rows = [
        {"identity_id": who[face], "face_id": face, "action": action, "status": "ok"}
        for face, action in sorted(actions.items())
    ]
    sealed = seal_table(store, VERDICTS, "byhand00", bucket, WHOLE, VERDICTS.build(rows))
    entry: Entry = sealed.entry(VERDICTS, "byhand00", bucket, WHOLE, "")
    publish(store, snapshot.with_entries([entry]))


def faces_of(root: Path, person: int) -> list[str]:
    """Ids of the embedded faces of the n-th person."""
    return sorted(
        row[2] for row in shown(root)["embeddings"] if row[0] == identity_id(f"person {person:02d}")
    )


def left(root: Path) -> list[int]:
    """Faces that nobody has rejected, by person."""
    kept = TABLES["people"].names.index("kept")
    found = {row[0]: row[kept] for row in shown(root)["people"]}
    return [found[identity_id(f"person {person:02d}")] for person in range(PEOPLE)]


@pytest.mark.slow
def test_decisions_by_hand_change_the_people_and_faces_that_they_are_about(judged: Home) -> None:
    """One decision would have everybody computed again, or would not be seen."""
    first = run_toy(*judged, sets=JUDGED)
    assert computed(first)["caption"] == FACES and computed(first)["people"] == PEOPLE
    one, other = faces_of(judged[2], 1), faces_of(judged[2], 3)
    decide(judged[2], {one[0]: "reject", one[1]: "keep", other[0]: "reject"})
    assert computed(run_toy(*judged, sets=JUDGED)) == {"people": 2, "caption": 3}
    assert left(judged[2]) == [9, 8, 9, 8]
    decide(judged[2], {one[0]: "reject", one[1]: "keep"})
    assert computed(run_toy(*judged, sets=JUDGED)) == {}, (
        "what is taken back finds the rows from before"
    )
    assert left(judged[2]) == [9, 8, 9, 9]
    decide(judged[2], {one[0]: "keep", one[1]: "keep"})
    assert computed(run_toy(*judged, sets=JUDGED)) == {"people": 1, "caption": 1}


@pytest.mark.slow
def test_decisions_outlive_whatever_is_computed_again(judged: Home) -> None:
    run_toy(*judged, sets=JUDGED)
    decide(judged[2], dict.fromkeys(faces_of(judged[2], 0), "reject"))
    run_toy(*judged, sets=JUDGED)
    (judged[1] / "person 02" / "03.png").unlink()
    run_toy(
        *judged, sets=(*JUDGED, "stages.detect.params.margin=0", "stages.clean.params.near_tie=0.8")
    )
    assert left(judged[2]) == [0, 9, 8, 9]


@pytest.mark.slow
def test_a_run_that_dies_after_a_decision_is_resumed(judged: Home) -> None:
    run_toy(*judged, sets=JUDGED)
    decide(judged[2], {faces_of(judged[2], 1)[0]: "reject"})
    kept = judged[0] / "kept"
    shutil.copytree(judged[2], kept)
    counting = DyingStore(judged[2])
    run_toy(*judged, sets=JUDGED, store=counting)
    view = shown(judged[2])
    for at in range(2, counting.calls + 1, 9):
        root = judged[0] / f"root-{at}"
        shutil.copytree(kept, root)
        with contextlib.suppress(Killed):
            run_toy(judged[0], judged[1], root, sets=JUDGED, store=DyingStore(root, at))
        bury(root)
        run_toy(judged[0], judged[1], root, sets=JUDGED)
        assert shown(root) == view, f"died at call {at} of {counting.calls}"
