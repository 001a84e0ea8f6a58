"""Work: what is to do and why, and tasks that cover it, each image and person once."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from idcluster.root.parquet import SLICE_ROWS, read
from idcluster.root.snapshot import WHOLE, load
from idcluster.root.storage import Store
from pipeline.dag import load_dag
from pipeline.execution.snapshot_tables import SnapshotTables
from pipeline.execution.tasks import Task
from pipeline.execution.work import Work, find_work, phases, tasks
from pipeline.execution.worker import Worker
from pipeline.prepared_dag import PreparedDag, Selection, allowed_images, forced_units, prepare
from schemas import TABLES
from stages.stage import Stage
from tests.pipeline.rooms import run_toy
from tests.pipeline.toy import people, picture, toy_dag

Home = tuple[Path, Path, Path]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A folder for DAG files, one of people, and where the dataset goes."""
    return tmp_path, people(tmp_path / "people"), tmp_path / "root"


@pytest.fixture
def done(home: Home) -> Home:
    """The same with a finished dataset."""
    run_toy(*home)
    return home


@pytest.fixture
def listed(home: Home) -> Home:
    """A dataset in which the images are fetched and nothing more is done."""
    run_toy(*home, selection=Selection(only=("crawl",)))
    return home


@dataclass
class Look:
    """Work and what it stands on."""

    prepared: PreparedDag
    store: Store
    view: SnapshotTables
    found: Work

    def stages(self, *names: str) -> list[Stage]:
        return [stage for stage in self.prepared.stages if stage.name in names]

    def why(self) -> dict[str, dict[str, int]]:
        return {
            stage.name: dict(self.found.why(stage.name))
            for stage in self.prepared.stages
            if self.found.units(stage.name)
        }

    def tasks(
        self, *names: str, limit: int | None = None, rows: int = SLICE_ROWS, token: str = ""
    ) -> list[Task]:
        return tasks(
            self.view, self.stages(*names), self.found.findings, token, limit, slice_rows=rows
        )

    def members(self, task: Task) -> list[str]:
        """The members of a task, looked up where it says `everybody`."""
        if task.members is not None:
            return list(task.members)
        if task.kind == "slice":
            found = [
                read(self.store, TABLES["candidates"], path) for path in task.shown["candidates"]
            ]
            return [
                row["image_id"]
                for table in found
                for row in table.to_pylist()
                if row["rank"] // task.stretch == task.number
            ]
        parent = self.stages(task.chain[0])[0].parent
        found = [read(self.store, TABLES[parent], path) for path in task.shown[parent]]
        ids = sorted({person for table in found for person in table["identity_id"].to_pylist()})
        return [person for person in ids if int(person, 16) % task.stretch == task.number]


def look(
    home: Home,
    sets: Sequence[str] = (),
    only: Sequence[str] = (),
    forced: Mapping[str, frozenset[str]] | None = None,
    allowed: frozenset[str] | None = None,
    explicit: bool = False,
) -> Look:
    prepared = prepare(toy_dag(*home, sets), None)
    store = Store(home[2])
    view = SnapshotTables(store, load(store), prepared.versions)
    stages = [stage for stage in prepared.stages if not only or stage.name in only]
    return Look(prepared, store, view, find_work(view, stages, forced, allowed, explicit))


def ids(home: Home, where: str) -> frozenset[str]:
    store = Store(home[2])
    return allowed_images(store, load(store), where)


# what is to do, and why


def test_nothing_on_an_empty_root(home: Home) -> None:
    seen = look(home)
    assert seen.found.nothing
    assert seen.tasks("crawl", "detect", "embed") == []


def test_nothing_where_all_is_done(done: Home) -> None:
    seen = look(done)
    assert seen.found.nothing
    assert seen.found.done["crawl"] == 44
    assert seen.tasks("clean", "people") == []


def test_new(listed: Home) -> None:
    seen = look(listed)
    assert seen.why()["detect"] == {"new": 40}, "the four texts are no images"
    assert [
        seen.found.behind(name) for name in ("crawl", "detect", "embed", "clean", "caption")
    ] == [False, False, True, True, True]
    assert not seen.found.nothing


@pytest.mark.parametrize("explicit", [False, True])
def test_new_is_the_same_whether_it_is_read_or_counted(listed: Home, explicit: bool) -> None:
    seen = look(listed, only=("detect",), explicit=explicit)
    assert seen.why() == {"detect": {"new": 40}}
    wanted = ids(listed, "address LIKE '%.png'")
    covered = {member for task in seen.tasks("detect") for member in seen.members(task)}
    assert wanted <= covered


def test_inputs(done: Home) -> None:
    (done[1] / "person 02" / "03.png").write_bytes(picture(12, 12, noise=99))
    run_toy(*done, selection=Selection(only=("crawl",)))
    seen = look(done)
    assert seen.why() == {"detect": {"inputs": 1}, "clean": {"inputs": 1}}, (
        "the person without the old face; the rest follows"
    )
    assert [stage.name for stage in seen.prepared.stages if seen.found.behind(stage.name)] == [
        "embed",
        "clean",
        "people",
        "caption",
    ]


def test_a_new_picture_makes_its_person_s_inputs_others(done: Home) -> None:
    (done[1] / "person 02" / "new.png").write_bytes(picture(12, noise=99))
    run_toy(*done, selection=Selection(only=("crawl", "detect", "embed")))
    seen = look(done)
    assert seen.why() == {"clean": {"inputs": 1}}
    [task] = seen.tasks("clean", "people")
    assert len(seen.members(task)) == 1


def test_version(done: Home) -> None:
    seen = look(done, ["stages.caption.params.prompt=other"])
    assert seen.why() == {"caption": {"version": 28}}
    assert not seen.found.behind("caption")
    seen = look(done, ["stages.detect.params.margin=2"])
    assert seen.why()["detect"] == {"version": 40}


def test_resources_are_no_version(done: Home) -> None:
    assert look(done, ["stages.detect.resources.workers=7"]).found.nothing


def test_a_version_that_was_there_is_shown_again_without_computing(done: Home) -> None:
    run_toy(*done, sets=("stages.caption.params.prompt=other",))
    seen = look(done)
    assert seen.why() == {}
    [finding] = seen.found.findings
    assert (finding.stage, finding.units, finding.reseal) == ("caption", 0, True)
    assert seen.tasks("caption") == []


def test_retry(done: Home) -> None:
    store = Store(done[2])
    prepared = prepare(toy_dag(*done), None)
    forced = forced_units(store, load(store), prepared.stages, "reason = 'no_face'")
    assert set(forced) == {"faces"}
    seen = look(done, forced=forced)
    assert seen.why() == {"detect": {"retry": 4}}
    made = seen.tasks("crawl", "detect", "embed", token="now")
    assert {member for task in made for member in seen.members(task)} == forced["faces"]
    assert all(
        set(task.forced["faces"]) <= forced["faces"] and task.token == "now" for task in made
    )
    assert forced_units(store, load(store), prepared.stages, "reason = 'never'") == {}


def test_tokens_are_for_orders_to_compute_again_alone(listed: Home) -> None:
    seen = look(listed, only=("detect",))
    assert {task.token for task in seen.tasks("detect", token="now")} == {""}


def test_allowed_pictures(listed: Home) -> None:
    allowed = ids(listed, "name = 'person 02'")
    seen = look(listed, only=("detect",), allowed=allowed)
    assert seen.why() == {"detect": {"new": 10}}
    assert {member for task in seen.tasks("detect") for member in seen.members(task)} < allowed
    assert look(listed, only=("detect",), allowed=frozenset()).tasks("detect") == []


# tasks


@pytest.mark.parametrize("rows", [1, 5, 8, 32, 512])
@pytest.mark.parametrize("explicit", [False, True])
def test_slices_cover_every_picture_once(listed: Home, rows: int, explicit: bool) -> None:
    seen = look(listed, only=("detect", "embed"), explicit=explicit)
    made = seen.tasks("detect", "embed", rows=rows)
    members = [seen.members(task) for task in made]
    assert max(len(batch) for batch in members) <= rows
    counts = Counter(member for batch in members for member in batch)
    assert set(counts.values()) == {1}
    assert ids(listed, "address LIKE '%.png'") <= counts.keys()
    assert all(task.kind == "slice" and task.chain == ("detect", "embed") for task in made)
    assert [task.size for task in made] == [len(batch) for batch in members]
    assert len({task.name for task in made}) == len(made)
    assert all(before.number < after.number for before, after in pairwise(made))


def test_a_picture_is_always_cut_into_the_same_slice(listed: Home) -> None:
    """Whoever else is to do: a part that an interrupted run left is found by its slice."""
    whole = look(listed, only=("detect",), explicit=True)
    at = {
        member: task.number
        for task in whole.tasks("detect", rows=8)
        for member in whole.members(task)
    }
    some = look(listed, only=("detect",), allowed=ids(listed, "rank % 3 = 0"))
    made = some.tasks("detect", rows=8)
    assert len(made) > 1
    assert all(task.number == at[member] for task in made for member in some.members(task))


@pytest.mark.parametrize("limit", [1, 7, 8, 9, 39, 1000])
def test_limit_is_the_number_of_pictures(listed: Home, limit: int) -> None:
    seen = look(listed, only=("detect", "embed"), explicit=True)
    made = seen.tasks("detect", "embed", limit=limit, rows=8)
    assert (
        sum(task.size for task in made)
        == sum(len(seen.members(task)) for task in made)
        == min(limit, 40)
    )


def test_limit_does_not_cut_people(done: Home) -> None:
    seen = look(done, ["stages.clean.params.similarity_threshold=0.9"], explicit=True)
    made = seen.tasks("clean", "people", limit=1)
    assert sum(len(seen.members(task)) for task in made) == 4


@pytest.mark.parametrize("rows", [1, 10, 20, 4096])
@pytest.mark.parametrize("explicit", [False, True])
def test_batches_of_people_cover_every_person_once(
    done: Home, monkeypatch: pytest.MonkeyPatch, rows: int, explicit: bool
) -> None:
    monkeypatch.setattr("pipeline.execution.work.PEOPLE_ROWS", rows)
    seen = look(done, ["stages.clean.params.similarity_threshold=0.9"], explicit=explicit)
    made = seen.tasks("clean", "people")
    counts = Counter(member for task in made for member in seen.members(task))
    assert sorted(counts.values()) == [1] * 4
    assert all(
        task.kind == "people" and task.chunk == WHOLE and task.chain == ("clean", "people")
        for task in made
    )
    assert len(made) == 1 if rows == 4096 else len(made) >= 1


def test_tasks_name_the_files_that_a_worker_needs(done: Home) -> None:
    seen = look(done, ["stages.caption.params.prompt=other"])
    [task, *_] = seen.tasks("caption")
    assert {"faces", "images", "clusters"} <= task.shown.keys()
    assert all(
        seen.store.exists(path)
        for paths in (*task.shown.values(), *task.pool.values())
        for path in paths
    )
    assert task.pool == {"captions": []}, "rows of another version are no help"


def test_tasks_survive_the_way_to_a_worker(done: Home, listed: Home) -> None:
    for seen in (look(done, ["stages.detect.params.margin=2"]), look(listed, explicit=True)):
        for task in seen.tasks("crawl", "detect", "embed"):
            assert Task.decode(task.encode()) == task


def test_stages_that_are_not_in_the_phase_get_no_tasks(listed: Home) -> None:
    seen = look(listed)
    assert seen.tasks("caption") == []
    assert {task.chain for task in seen.tasks("crawl", "detect", "embed")} == {
        ("crawl", "detect", "embed")
    }


# phases


def names(stages: Sequence[Stage]) -> list[list[str]]:
    return [[stage.name for stage in phase] for phase in phases(stages)]


def test_phases_change_where_the_grain_changes(home: Home) -> None:
    prepared = prepare(toy_dag(*home), None)
    assert names(prepared.stages) == [
        ["crawl", "detect", "embed"],
        ["clean", "people"],
        ["match"],
        ["caption"],
    ]
    assert names([]) == []
    assert names([stage for stage in prepared.stages if stage.grain == "slice"]) == [
        ["crawl", "detect", "embed", "caption"]
    ]


def test_phases_of_the_quickstart() -> None:
    dag = load_dag(Path(__file__).parents[3] / "dags" / "quickstart.yaml")
    found = names(dag.build())
    assert found[:3] == [["crawl", "detect", "embed"], ["clean", "people"], ["match"]]
    assert len(found) == 4
    assert {"landmark", "fit", "segment", "caption"} == set(found[3])


def test_every_phase_is_done_by_a_worker_as_planned(listed: Home, tmp_path: Path) -> None:
    """The count of work that reads nothing is what a worker then finds."""
    from pipeline.execution.worker_spec import WorkerSpec

    seen = look(listed, only=("detect",))
    spec = WorkerSpec(str(listed[2]), seen.prepared.dag, seen.prepared.versions, None, "test")
    worker: Any = spec.build()
    assert isinstance(worker, Worker)
    receipts = [worker.process(task) for task in seen.tasks("detect")]
    assert (
        sum(part.units for receipt in receipts for part in receipt.parts)
        == seen.found.units("detect")
        == 40
    )
