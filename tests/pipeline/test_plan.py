"""The plan: says what a run then does, why, and how long it takes; writes nothing."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from idcluster.root.dataset_root import RunError
from idcluster.root.snapshot import load
from idcluster.root.storage import Store
from pipeline.dag import DagError
from pipeline.plan import Line, Plan, check_sql, make_plan, reasons, rows
from pipeline.prepared_dag import Selection, prepare
from stages.crawl.listing import SourceError
from tests.pipeline.rooms import computed, run_toy
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


def plan(home: Home, sets: Sequence[str] = (), **selection: object) -> Plan:
    return make_plan(prepare(toy_dag(*home, sets), None), Selection(**selection), Store(home[2]))  # type: ignore[arg-type]


def lines(made: Plan) -> dict[str, Line]:
    return {line.stage: line for line in made.lines}


def units(made: Plan) -> dict[str, int]:
    """Known units to do by stage, leaving out stages with none."""
    return {line.stage: line.units for line in made.lines if line.units}


def everything(root: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in root.rglob("*")}


def test_fresh_root(home: Home) -> None:
    made = plan(home)
    assert made.intake is not None
    assert (made.intake.people, made.intake.offered, made.intake.new, made.intake.entries) == (
        4,
        44,
        44,
        [],
    )
    assert units(made) == {"crawl": 44}
    assert lines(made)["crawl"].why == {"source": 44}
    assert [line.stage for line in made.lines if line.more] == [
        "detect",
        "embed",
        "clean",
        "people",
        "match",
        "caption",
    ]
    assert made.shards == "follow from the rows above"
    assert not made.nothing
    assert not home[2].exists(), "a plan makes nothing"


def test_nothing_to_do(done: Home) -> None:
    before = everything(done[2])
    made = plan(done)
    assert made.nothing
    assert units(made) == {}
    assert not any(line.more or line.tasks or line.why for line in made.lines)
    assert made.shards == "as they are"
    assert {
        name: line.done
        for name, line in lines(made).items()
        if name in ("crawl", "embed", "clean", "people", "caption")
    } == {"crawl": 44, "embed": 36, "clean": 36, "people": 4, "caption": 28}
    assert everything(done[2]) == before


def test_changed_threshold(done: Home) -> None:
    before = everything(done[2])
    made = plan(done, ["stages.clean.params.similarity_threshold=0.9"])
    assert units(made) == {"clean": 4}
    assert lines(made)["clean"].why == {"version": 4}
    assert [line.stage for line in made.lines if line.more] == ["people", "match", "caption"]
    assert made.shards == "follow from the rows above"
    assert everything(done[2]) == before


def test_a_switch_back_has_nothing_to_compute(done: Home) -> None:
    other = ["stages.caption.params.prompt=a portrait"]
    run_toy(*done, sets=other)
    made = plan(done)
    assert units(made) == {}
    assert plan(done, other).nothing


@pytest.mark.parametrize("change", ["prompt", "new image", "replaced image", "threshold", "margin"])
def test_a_run_does_what_the_plan_knows_and_what_follows(done: Home, change: str) -> None:
    """Units that are known are what the run does; a stage that is neither named nor follows does
    nothing.
    """
    sets: tuple[str, ...] = ()
    if change == "prompt":
        sets = ("stages.caption.params.prompt=a portrait",)
    elif change == "threshold":
        sets = ("stages.clean.params.similarity_threshold=0.9",)
    elif change == "margin":
        sets = ("stages.detect.params.margin=1",)
    elif change == "new image":
        (done[1] / "person 01" / "new.png").write_bytes(picture(11, noise=77))
    else:
        (done[1] / "person 02" / "03.png").write_bytes(picture(12, 12, noise=99))
    made = plan(done, sets)
    did = computed(run_toy(*done, sets=sets))
    for line in made.lines:
        if not line.more:
            assert did.get(line.stage, 0) == line.units, line
        else:
            assert did.get(line.stage, 0) >= line.units, line
    assert sum(units(made).values()) > 0
    assert plan(done, sets).nothing


def test_gone_pictures_are_something_to_do(done: Home) -> None:
    (done[1] / "person 01" / "02.png").unlink()
    made = plan(done)
    assert made.intake is not None and made.intake.gone == 1
    assert not made.nothing
    assert made.shards == "follow from the rows above"


def test_remarks_of_the_source_are_kept(done: Home) -> None:
    (done[1] / "loose.txt").touch()
    intake = plan(done).intake
    assert intake is not None
    assert intake.remarks == [f"1 file beside the folders of people in {done[1]} is not used"]


def test_estimates_come_from_measured_rates_of_the_same_version(done: Home) -> None:
    retry = plan(done, retry="reason = 'no_face'")
    line = lines(retry)["detect"]
    assert line.seconds is not None and line.seconds > 0
    rates = load(Store(done[2])).notes["rates"]
    [rate] = [value for name, value in rates.items() if name.startswith("detect/")]
    alone = plan(done, ["stages.detect.resources.workers=1"], retry="reason = 'no_face'")
    pair = plan(done, ["stages.detect.resources.workers=2"], retry="reason = 'no_face'")
    assert lines(alone)["detect"].seconds == pytest.approx(4 * rate)
    assert lines(pair)["detect"].seconds == pytest.approx(2 * rate), (
        "resources do not change a version"
    )
    assert lines(plan(done, ["stages.detect.params.margin=1"]))["detect"].seconds is None, (
        "never measured"
    )


def test_only(home: Home, done: Home) -> None:
    made = plan(done, ["stages.clean.params.similarity_threshold=0.9"], only=("clean",))
    assert [line.stage for line in made.lines] == ["clean", "people", "match"]
    assert made.intake is None
    assert made.shards == "not in this run"
    made = plan(done, ["stages.clean.params.similarity_threshold=0.9"], only=("shard",))
    assert made.lines == []
    assert made.shards == "as they are", "what is shown has not changed"
    with pytest.raises(
        DagError, match="--only clan: the DAG has no such stage; it has crawl, detect"
    ):
        plan(done, only=("clan",))


def test_changed_shard_parameters(done: Home) -> None:
    made = plan(done, ["stages.shard.params.validation=0"])
    assert units(made) == {}
    assert made.shards == "to be compared"
    assert not made.nothing


@pytest.mark.slow
def test_where_and_limit_cut_down(home: Home) -> None:
    run_toy(*home, selection=Selection(only=("crawl",)))
    made = plan(home, only=("detect",), where="name = 'person 02'")
    assert units(made) == {"detect": 10}
    assert computed(
        run_toy(*home, selection=Selection(only=("detect",), where="name = 'person 02'"))
    ) == {"detect": 10}
    assert plan(home, only=("detect",), where="name = 'person 02'").lines[0].units == 0
    limited, free = plan(home, only=("detect",), limit=1), plan(home, only=("detect",))
    assert lines(limited)["detect"].tasks == 1
    assert lines(free)["detect"].tasks > 1


def test_retry(done: Home) -> None:
    made = plan(done, retry="reason = 'no_face'")
    assert units(made) == {"detect": 4}
    assert lines(made)["detect"].why == {"retry": 4}
    assert units(plan(done, retry="reason = 'never seen'")) == {}


def test_wrong_sql_is_told_before_anything_is_done(home: Home) -> None:
    prepared = prepare(toy_dag(*home), None)
    for selection, said in (
        (Selection(where="nam = 'Ada'"), '--where "nam = \'Ada\'": .*"nam"'),
        (Selection(where="name = "), "--where 'name = ': .*syntax error"),
        (Selection(retry="nam = 1"), "--retry 'nam = 1': .*status, reason, detail"),
    ):
        with pytest.raises(DagError, match=said):
            check_sql(prepared, selection)
    check_sql(prepared, Selection(where="name = 'Ada' AND rank < 5", retry="reason LIKE 'http_%'"))
    assert not home[2].exists()


def test_what_a_run_would_refuse_a_plan_refuses(done: Home) -> None:
    with pytest.raises(SourceError, match="does not exist; set source"):
        plan(done, ["source.path=nowhere"])
    (done[2] / "dataset.json").write_text('{"format": 7}')
    with pytest.raises(RunError, match="has format 7; this idcluster reads format 1"):
        plan(done)


def test_reasons_are_words_the_most_frequent_first() -> None:
    assert (
        reasons(Counter({"new": 1, "inputs": 3, "version": 2}))
        == "3 upstream changed, 2 parameters, code or weights changed, 1 new"
    )
    assert (
        reasons(Counter({"retry": 1, "source": 2}))
        == "2 new or changed at the source, 1 asked to retry"
    )
    assert reasons(Counter()) == ""


def test_rows_as_text() -> None:
    made = Plan(
        None,
        [
            Line("detect", 5, 0, False, 0, Counter(), 0.0),
            Line("embed", 5, 7, False, 2, Counter(new=7), 90.4),
            Line("clean", 0, 7, True, 2, Counter(), 0.3),
            Line("caption", 0, 0, True, 0, Counter(), None),
        ],
        "as they are",
    )
    assert list(rows(made)) == [
        ("detect", "5", "-", "", "", ""),
        ("embed", "5", "7", "2", "7 new", "90 s"),
        ("clean", "0", "7 and what follows", "2", "", "< 1 s"),
        ("caption", "0", "what follows", "", "", ""),
    ]


def test_a_switch_back_is_something_to_do(done: Home) -> None:
    """The plan said that there is nothing to do, and the run changed what is shown."""
    run_toy(*done, sets=["stages.caption.params.prompt=other"])
    made = plan(done)
    assert not made.nothing
    assert made.again
    assert not any(line.units for line in made.lines)
