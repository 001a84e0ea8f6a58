"""A mistake in a DAG file costs a user a minute if the message names line, field and remedy, and an
evening if not.
"""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Literal

import pytest
from pydantic import model_validator

from pipeline.dag import DagError, load_dag, shard_params, version_of
from stages.backends import BACKENDS, RENAMED, UnknownBackend, backend
from stages.stage import Calibrated, Params, Stage


class FakeCrawl(Stage):
    name, backend, parent = "crawl", "files", "candidates"
    reads: ClassVar[Mapping[str, tuple[str, ...]]] = {"candidates": ("address",)}


class DetectParams(Params):
    class Tiles(Params):
        overlap: float = 0.25
        size: int = 640

    upsample: int = 1
    threshold: float = 0.5
    order: Literal["score", "side"] = "score"
    tiles: Tiles | None = None
    scales: tuple[int, ...] = (640,)

    @model_validator(mode="after")
    def _enough(self) -> "DetectParams":
        if self.upsample > 3:
            raise ValueError("upsample above 3 needs more memory than a worker has; use 3 or less")
        return self


class FakeDetect(Stage):
    name, backend, parent, needs_pixels, code_version = "detect", "dlib", "images", True, 3
    reads: ClassVar[Mapping[str, tuple[str, ...]]] = {"images": ("sha256",)}
    Parameters = DetectParams
    landmark_scheme = "dlib5"


class OtherDetect(FakeDetect):
    backend, landmark_scheme = "scrfd", "arcface5"


class FakeEmbed(Stage):
    name, backend, parent = "embed", "dlib", "faces"
    reads: ClassVar[Mapping[str, tuple[str, ...]]] = {"faces": ("box", "landmarks")}
    landmark_scheme, recogniser, weights = "dlib5", "dlib128", ("dlib_resnet",)
    landmarks_from = "detect"


class OtherEmbed(FakeEmbed):
    backend, landmark_scheme, recogniser = "arcface", "arcface5", "homemade"


class CleanParams(Params):
    k: int = 4
    similarity_threshold: float | None = None
    merge_cosine: float | None = None


class FakeClean(Stage):
    name, backend, parent, grain = "clean", "linkage", "embeddings", "bucket"
    reads: ClassVar[Mapping[str, tuple[str, ...]]] = {"embeddings": ("vector",)}
    Parameters = CleanParams
    calibrated: ClassVar[Mapping[str, Calibrated]] = {
        "similarity_threshold": Calibrated(needed=True),
        "merge_cosine": Calibrated(needed=True),
    }


class FakePeople(Stage):
    name, backend, parent = "people", "summary", "identities"
    reads: ClassVar[Mapping[str, tuple[str, ...]]] = {"clusters": ("keep",)}


class FakeCaption(Stage):
    name, backend, parent = "caption", "attributes", "faces"
    reads: ClassVar[Mapping[str, tuple[str, ...]]] = {"faces": ("yaw",), "heads": ("pose",)}
    selects: ClassVar[Mapping[str, tuple[str, ...]]] = {"clusters": ("keep",)}


GOOD = """\
name: quickstart
root: out/
source: {kind: folder, path: people/, name: local}
resources: {cpus: 1, workers: auto}
stages:
  clean: {params: {k: 3}}
  crawl:
  embed: {backend: dlib}
  detect:
    backend: dlib
    params:
      upsample: 2
    resources: {workers: 2}
  shard: {params: {profile: faces}}
"""


@pytest.fixture(autouse=True)
def backends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small stand-ins, so that a DAG file is tested and not the models behind it."""
    fakes = {
        "crawl": {"files": "FakeCrawl"},
        "detect": {"dlib": "FakeDetect", "scrfd": "OtherDetect"},
        "embed": {"dlib": "FakeEmbed", "arcface": "OtherEmbed"},
        "clean": {"linkage": "FakeClean"},
        "people": {"summary": "FakePeople"},
        "caption": {"attributes": "FakeCaption"},
        "segment": {"grabcut": "Absent", "missing": "Absent"},
    }
    for stage, names in fakes.items():
        monkeypatch.setitem(
            BACKENDS, stage, {name: f"{__name__}:{attribute}" for name, attribute in names.items()}
        )
    monkeypatch.setitem(BACKENDS, "segment", {"grabcut": "no_such_package.grabcut:Segment"})
    calibration = SimpleNamespace(
        CALIBRATION={"dlib128": SimpleNamespace(similarity_threshold=0.9, merge_cosine=0.95)}
    )
    monkeypatch.setitem(__import__("sys").modules, "stages.embed.calibration", calibration)


def problems(tmp_path: Path, text: str, *sets: str) -> list[str]:
    file = tmp_path / "quickstart.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(DagError) as caught:
        load_dag(file, sets)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return [problem.replace(str(file), "quickstart.yaml") for problem in caught.value.problems]


def good(tmp_path: Path, text: str = GOOD, *sets: str) -> Any:
    file = tmp_path / "quickstart.yaml"
    file.write_text(text, encoding="utf-8")
    return load_dag(file, sets)


def test_stages_come_in_pipeline_order_with_people_added(tmp_path: Path) -> None:
    dag = good(tmp_path)
    assert list(dag.stages) == ["crawl", "detect", "embed", "clean", "people", "match", "shard"]
    assert [stage.name for stage in dag.build()] == [
        "crawl",
        "detect",
        "embed",
        "clean",
        "people",
        "match",
    ]
    assert dag.stages["detect"].params["upsample"] == 2
    assert shard_params(dag.stages["shard"]).profile == "faces"
    assert (dag.name, dag.root, dag.sources[0].name, dag.models) == (
        "quickstart",
        "out/",
        "local",
        None,
    )


def test_resources_of_a_stage_go_before_the_defaults(tmp_path: Path) -> None:
    dag = good(tmp_path, GOOD, "resources.memory_mb=900")
    assert dag.stages["detect"].resources.model_dump() == {
        "cpus": 1,
        "gpus": 0,
        "memory_mb": 900,
        "workers": 2,
    }
    assert dag.stages["embed"].resources.workers == "auto"


def test_thresholds_come_from_the_calibration_of_the_recogniser(tmp_path: Path) -> None:
    clean = good(tmp_path).build()[3]
    assert (clean.params.similarity_threshold, clean.params.merge_cosine) == (0.9, 0.95)
    clean = good(tmp_path, GOOD, "stages.clean.params.similarity_threshold=0.5").build()[3]
    assert (clean.params.similarity_threshold, clean.params.merge_cosine) == (0.5, 0.95)


def test_set_overrides_creates_and_parses_yaml(tmp_path: Path) -> None:
    dag = good(
        tmp_path,
        GOOD,
        "stages.detect.params={upsample: 3, scales: [320, 640]}",
        "stages.people=",
        "models=weights",
        "stages.embed.resources.cpus=0.5",
        "name=a=b",
    )
    assert dag.stages["detect"].params["scales"] == [320, 640]
    assert (dag.models, dag.name, dag.stages["embed"].resources.cpus) == ("weights", "a=b", 0.5)


def test_a_dag_travels(tmp_path: Path) -> None:
    dag = good(tmp_path)
    assert type(dag).model_validate_json(dag.model_dump_json()) == dag


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            ("upsample: 2", "upsampel: 2"),
            "quickstart.yaml:12: stages.detect.params.upsampel: unknown name; did you mean "
            "'upsample'?",
        ),
        (
            ("upsample: 2", "qqq: 2"),
            "quickstart.yaml:12: stages.detect.params.qqq: unknown name; there are: upsample, "
            "threshold, order, tiles, scales",
        ),
        (
            ("upsample: 2", "upsample: two"),
            (
                "quickstart.yaml:12: stages.detect.params.upsample: input should be a valid "
                "integer, unable to parse string as an integer,"
                ' is "two"'
            ),
        ),
        (
            ("upsample: 2", "upsample: 9"),
            "quickstart.yaml:11: stages.detect.params: upsample above 3 needs more memory than a "
            "worker has; use 3 or less",
        ),
        (
            ("upsample: 2", "order: sco"),
            "quickstart.yaml:12: stages.detect.params.order: \"sco\" is not one of 'score' or "
            "'side'; did you mean 'score'?",
        ),
        (
            ("upsample: 2", "tiles:\n        overlapp: 1"),
            "quickstart.yaml:13: stages.detect.params.tiles.overlapp: unknown name; did you mean "
            "'overlap'?",
        ),
        (
            ("upsample: 2", "scales:\n      - 640\n      - big"),
            (
                "quickstart.yaml:14: stages.detect.params.scales[1]: input should be a valid "
                "integer, unable to parse string as an integer,"
                ' is "big"'
            ),
        ),
        (
            ("upsample: 2", "upsample: 2\n      upsample: 3"),
            "quickstart.yaml:13: stages.detect.params.upsample: stands here twice, first in line "
            "12",
        ),
        (
            ("  embed: {backend: dlib}", "  embed: {backend: dlip}"),
            "quickstart.yaml:8: stages.embed.backend: stage 'embed' has no backend 'dlip'; did "
            "you mean 'dlib'?",
        ),
        (
            ("  embed: {backend: dlib}", "  embed: {backnd: dlib}"),
            "quickstart.yaml:8: stages.embed.backnd: unknown name; did you mean 'backend'?",
        ),
        (
            ("  embed:", "  embedd: {}\n  embed:"),
            "quickstart.yaml:8: stages.embedd: unknown stage; did you mean 'embed'?",
        ),
        (
            ("profile: faces", "profil: faces"),
            "quickstart.yaml:14: stages.shard.params.profil: unknown name; did you mean 'profile'?",
        ),
        (
            ("profile: faces", "profile: a/b"),
            "quickstart.yaml:14: stages.shard.params.profile: string should match pattern "
            "'^[A-Za-z0-9_-]+$', is \"a/b\"",
        ),
        (
            ("workers: 2", "wokers: 2"),
            "quickstart.yaml:13: stages.detect.resources.wokers: unknown name; did you mean "
            "'workers'?",
        ),
        (
            ("workers: 2", "workers: many"),
            (
                'quickstart.yaml:13: stages.detect.resources.workers: "many" is not one of '
                "'auto', nor: input should be a valid integer,"
                ' unable to parse string as an integer, is "many", nor: input should be a '
                'mapping, is "many"'
            ),
        ),
        (
            ("workers: auto", "cpu: 2"),
            "quickstart.yaml:4: resources.cpu: unknown name; did you mean 'cpus'?",
        ),
        (("root: out/", "rot: out/"), "quickstart.yaml:2: rot: unknown name; did you mean 'root'?"),
        (("root: out/\n", ""), "quickstart.yaml:1: root: is missing"),
        (
            ("kind: folder", "kind: foldr"),
            "quickstart.yaml:3: source.kind: there is no kind \"foldr\"; did you mean 'folder'?",
        ),
        (
            ("name: quickstart", "name: 7"),
            "quickstart.yaml:1: name: input should be a valid string, is 7",
        ),
        (
            ("  crawl:\n", ""),
            "quickstart.yaml:8: stages.detect: reads images, which no stage here writes; add "
            "`crawl: {}` to stages",
        ),
        (
            ("  shard: ", "  segment: {}\n  shard: "),
            "quickstart.yaml:14: stages.segment.backend: backend 'grabcut' cannot be loaded: No "
            "module named 'no_such_package'",
        ),
        (
            ("  shard: ", "  caption: {}\n  shard: "),
            "quickstart.yaml:14: stages.caption: reads heads, which no stage here writes; add "
            "`fit: {}` to stages",
        ),
        (
            ("profile: faces", "include: [mask]"),
            "quickstart.yaml:14: stages.shard: reads masks, which no stage here writes; add "
            "`segment: {}` to stages",
        ),
        (
            ("backend: dlib\n", "backend: scrfd\n"),
            (
                "quickstart.yaml:8: stages.embed.backend: 'dlib' aligns faces by dlib5 "
                "landmarks, but detect backend 'scrfd' gives arcface5;"
                " use stages.detect.backend: dlib or stages.embed.backend: arcface"
            ),
        ),
        (
            ("  embed: {backend: dlib}", "  embed: &a\n    params: *a"),
            "quickstart.yaml:9: stages.embed.params: an alias stands inside the value that it "
            "repeats",
        ),
        (
            ("  embed: {backend: dlib}", "  embed: {<<: {backend: dlib}}"),
            "quickstart.yaml:8: stages.embed: a key is a plain name; merge keys are not read",
        ),
    ],
)
def test_a_mistake_is_told_with_line_field_and_remedy(
    tmp_path: Path, change: tuple[str, str], expected: str
) -> None:
    assert GOOD.count(change[0]) >= 1
    assert expected in problems(tmp_path, GOOD.replace(*change))


SOURCES = {
    "folder": "{kind: folder, path: people/}",
    "urls": "{kind: urls, path: list.csv, columns: {identity: TEXT}}",
    "table": "{kind: table, path: celeba/, layout: celeba, splits: [train]}",
    "video": "{kind: video, path: MEAD/, rate: 1, clips: ['video/front/*'], prefix: 'MEAD '}",
    "commons": "{kind: commons, path: names.csv, by: [image, category], depth: 2}",
    "openverse": "{kind: openverse, path: names.csv, licences: [cc0], token_env: OPENVERSE_TOKEN}",
}


@pytest.mark.parametrize("kind", SOURCES)
def test_every_kind_of_source_is_read_and_set(tmp_path: Path, kind: str) -> None:
    """A source that the documents name could not be used, or its path not be set from the command
    line.
    """
    text = GOOD.replace("{kind: folder, path: people/, name: local}", SOURCES[kind])
    dag = good(tmp_path, text, "source.path=elsewhere", "source.name=mine")
    assert (dag.sources[0].kind, dag.sources[0].path, dag.sources[0].name) == (
        kind,
        "elsewhere",
        "mine",
    )
    assert dag.sources[0].place() == Path("elsewhere").absolute()
    assert type(dag).model_validate(dag.model_dump()) == dag


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            "{kind: tabel, path: x}",
            "source.kind: there is no kind \"tabel\"; did you mean 'table'?",
        ),
        (
            "{kind: [urls], path: x}",
            "source.kind: there is no kind [\"urls\"]; did you mean 'urls'?",
        ),
        (
            "{path: x}",
            "source.kind: is missing; there are: folder, urls, table, video, commons, openverse",
        ),
        ("{kind: urls}", "source.path: is missing"),
        (
            "{kind: urls, path: x, urls: y}",
            "source.urls: unknown name; there are: path, name, kind, columns",
        ),
        (
            "{kind: folder, path: x, rate: 2}",
            "source.rate: unknown name; there are: path, name, kind",
        ),
        (
            "{kind: table, path: x, layout: celebA}",
            (
                "source.layout: \"celebA\" is not one of 'columns', 'celeba', 'ffhq', 'agedb' or "
                "'lfw'; did you mean 'celeba'?"
            ),
        ),
        ("{kind: video, path: x, rate: 0}", "source.rate: input should be greater than 0, is 0"),
        (
            "{kind: commons, path: x, by: [image, categories]}",
            "source.by[1]: \"categories\" is not one of 'image', 'category' or 'depicts'",
        ),
        (
            "{kind: openverse, path: x, token_env: 'a b'}",
            "source.token_env: string should match pattern",
        ),
        (
            "people/",
            "source: input should be a mapping with `kind` and `path`, or a list of such, is "
            '"people/"',
        ),
        (
            "[]",
            "source: input should be a mapping with `kind` and `path`, or a list of such, is []",
        ),
        (
            "[{kind: folder, path: x}, people/]",
            'source[1]: input should be a mapping with `kind` and `path`, is "people/"',
        ),
        (
            "[{kind: folder, path: x}, {kind: urls, pth: x, path: y}]",
            "source[1].pth: unknown name; did you mean 'path'?",
        ),
        (
            "[{kind: folder, path: x}, {kind: folder, path: y}]",
            "source[1]: is called 'local' as source[0] is; images are told apart by that, so "
            "give it a `name` of its own",
        ),
    ],
)
def test_a_mistake_in_a_source_is_told_with_line_and_field(
    tmp_path: Path, source: str, expected: str
) -> None:
    """A field of another kind would be told in the words of a library."""
    (problem,) = problems(
        tmp_path, GOOD.replace("{kind: folder, path: people/, name: local}", source)
    )
    assert problem.startswith(f"quickstart.yaml:3: {expected}")


def test_several_sources_are_read_and_set_by_number(tmp_path: Path) -> None:
    text = GOOD.replace(
        "{kind: folder, path: people/, name: local}",
        "[{kind: folder, path: people/}, {kind: urls, path: list.csv}]",
    )
    dag = good(tmp_path, text, "source.1.path=other.csv", "source.0.name=mine")
    found = [(source.kind, source.name, source.path) for source in dag.sources]
    assert found == [("folder", "mine", "people/"), ("urls", "web", "other.csv")]
    assert type(dag).model_validate(dag.model_dump()) == dag
    [problem] = problems(tmp_path, text, "source.path=x")
    assert (
        problem == "--set source.path=x: source is a list, it has 2 items: name one by its number, "
        "source[0] is source.0"
    )
    [problem] = problems(tmp_path, text, "source.2.path=x")
    assert "it has 2 items" in problem


def test_a_field_of_a_source_that_was_set_wrongly_is_told_as_set(tmp_path: Path) -> None:
    assert problems(tmp_path, GOOD, "source.kind=video", "source.rate=fast") == [
        "--set source.rate=fast: source.rate: input should be a valid number, unable to parse "
        'string as a number, is "fast"'
    ]


def test_a_mistake_is_told_once(tmp_path: Path) -> None:
    text = GOOD.replace("workers: auto", "cpu: 2")
    assert problems(tmp_path, text) == [
        "quickstart.yaml:4: resources.cpu: unknown name; did you mean 'cpus'?"
    ]


def test_all_mistakes_come_at_once_in_file_order(tmp_path: Path) -> None:
    text = GOOD.replace("upsample: 2", "upsampel: 2").replace("k: 3", "kk: 3")
    assert problems(tmp_path, text, "stages.embed.backend=x") == [
        "quickstart.yaml:6: stages.clean.params.kk: unknown name; did you mean 'k'?",
        "quickstart.yaml:12: stages.detect.params.upsampel: unknown name; did you mean 'upsample'?",
        "--set stages.embed.backend=x: stages.embed.backend: stage 'embed' has no backend 'x'; "
        "there are: dlib, arcface",
    ]


def test_a_backend_that_was_renamed_is_told_what_it_became(tmp_path: Path) -> None:
    """The nearest name alone would lead from a cleaning that is gone to one that nobody wants."""
    assert problems(tmp_path, GOOD, "stages.clean.backend=kmeans") == [
        "--set stages.clean.backend=kmeans: stages.clean.backend: stage 'clean' has no backend "
        "'kmeans'; 'kmeans' is now 'kmeans_paper' (the papers' method); the default is 'linkage'"
    ]
    with pytest.raises(UnknownBackend, match="'kmeans' is now 'kmeans_paper'"):
        backend("clean", "kmeans")


def test_what_a_renamed_backend_became_is_there() -> None:
    for stage, names in RENAMED.items():
        for old, said in names.items():
            assert old not in BACKENDS[stage]
            assert next(iter(BACKENDS[stage])) in said.split("default is ")[1]


def test_missing_thresholds_of_an_unknown_recogniser(tmp_path: Path) -> None:
    text = GOOD.replace("  embed: {backend: dlib}", "  embed: {backend: arcface}").replace(
        "backend: dlib\n", "backend: scrfd\n"
    )
    assert problems(tmp_path, text, "stages.clean.params.merge_cosine=0.8") == [
        (
            "quickstart.yaml:6: stages.clean.params.similarity_threshold: is open, and there is "
            "no calibration for the recogniser"
            " 'homemade' to fill it from; set it, or measure it: `idcluster models benchmark "
            "--write-calibration` (calibrated: dlib128)"
        )
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "name: [a\n",
            "quickstart.yaml:2: not YAML: while parsing a flow sequence, expected ',' or ']', "
            "but got '<stream end>'",
        ),
        ("- a\n", "quickstart.yaml:1: a DAG file is a mapping that starts with `name:`"),
        (
            "name: !!python/object:os.system x\n",
            "quickstart.yaml:1: name: cannot be read as python/object:os.system: ",
        ),
        ("name: a\0b\n", "not YAML"),
    ],
)
def test_what_is_not_a_dag_at_all(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in problems(tmp_path, text)[0]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "quickstart.yaml").write_text(GOOD, encoding="utf-8")
    with pytest.raises(
        DagError, match=r"quikstart.yaml: there is no such file; did you mean 'quickstart.yaml'\?"
    ):
        load_dag(tmp_path / "quikstart.yaml")
    with pytest.raises(DagError, match="cannot be read"):
        load_dag(tmp_path)
    (tmp_path / "latin.yaml").write_bytes("name: Zoë".encode("latin-1"))
    with pytest.raises(DagError, match="cannot be read"):
        load_dag(tmp_path / "latin.yaml")


def test_an_empty_file_lacks_everything(tmp_path: Path) -> None:
    assert problems(tmp_path, "") == [
        f"quickstart.yaml:1: {name}: is missing" for name in ("name", "root", "source", "stages")
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "stages.detect.params.upsampel=2",
            "--set stages.detect.params.upsampel=2: stages.detect.params.upsampel: unknown name; "
            "did you mean 'upsample'?",
        ),
        (
            "stages.detect.params={tiles: {sise: 1}}",
            "--set stages.detect.params={tiles: {sise: 1}}: stages.detect.params.tiles.sise: "
            "unknown name; did you mean 'size'?",
        ),
        (
            "stages.detect.params.upsample.x=2",
            "--set stages.detect.params.upsample.x=2: stages.detect.params.upsample is 2, it has "
            "no fields",
        ),
        ("stages.detect", "--set stages.detect: write it as name.of.field=value"),
        ("stages..detect=1", "--set stages..detect=1: write it as name.of.field=value"),
        ("root=", "--set root=: root: string should have at least 1 character"),
        (
            "stages.detect.params.upsample=[",
            "--set stages.detect.params.upsample=[: stages.detect.params.upsample: input should be",
        ),
        (
            "stages.detect.params.upsample=2024-13-45",
            "--set stages.detect.params.upsample=2024-13-45: stages.detect.params.upsample: ",
        ),
        (
            "shared_root=people #1",
            "--set shared_root=people #1: shared_root: input should be a valid boolean",
        ),
    ],
)
def test_a_mistake_in_set_names_the_option(tmp_path: Path, text: str, expected: str) -> None:
    found = problems(tmp_path, GOOD, text)
    assert len(found) == 1 and found[0].startswith(expected)


# fmt: off
WRITTEN = [
    "2024", "on", "no", "0x10", "12:30", "1e3", "null", "~", "people #1", "a: b", "{x}", "[x", "*x",
    "@x", "%x", "!x", "&x", "- x", "`x",
    "2024-13-45", "2024-01-02", "x=y", "it's", "Zoë", "a\\b", "|", ">", "? x", "#x", "x:", "1_000",
    ".5", "~user",
]
# fmt: on


@pytest.mark.parametrize("text", WRITTEN)
def test_set_takes_texts_as_they_are_written(tmp_path: Path, text: str) -> None:
    """`people #1` would be read as `people`, without a word, and a folder called 2024 be
    refused.
    """
    dag = good(tmp_path, GOOD, f"source.path={text}", f"root={text}", f"name= {text} ")
    assert (dag.sources[0].path, dag.root, dag.name) == (text, text, text)


def test_set_takes_texts_in_lists_of_them_and_below_them(tmp_path: Path) -> None:
    """Splits and columns that look like numbers would be refused; and what is no text would be
    one.
    """
    sets = [
        "source={kind: table, path: 2024, splits: [on, 1e3, 'x']}",
        "source.columns.identity=on",
        "source.layout=celeba",
    ]
    dag = good(
        tmp_path,
        GOOD,
        *sets,
        "shared_root=yes",
        "stages.detect.params.upsample=1",
        "source.base=null",
        "models=2024",
    )
    (source,) = dag.sources
    assert (source.path, source.splits, source.columns, source.layout) == (
        "2024",
        ("on", "1e3", "x"),
        {"identity": "on"},
        "celeba",
    )
    assert (source.base, dag.models, dag.shared_root, dag.stages["detect"].params["upsample"]) == (
        None,
        "2024",
        True,
        1,
    )
    assert good(tmp_path, GOOD, "source.path='people #1'").sources[0].path == "people #1"
    assert good(tmp_path, GOOD, "source.path=1", 'source.path="2"').sources[0].path == "2"
    assert (
        good(tmp_path, GOOD, "source=[{kind: folder, path: a}]", "source.0.path=007")
        .sources[0]
        .path
        == "007"
    )


def test_version_follows_parameters_code_and_weights_alone(tmp_path: Path) -> None:
    stages = good(tmp_path).build()
    detect, embed = stages[1], stages[2]
    version, description = version_of(detect, {})
    assert len(version) == 8 and int(version, 16) >= 0
    assert description["params"]["upsample"] == 2 and description["code_version"] == 3
    assert version_of(type(detect)(detect.params), {})[0] == version
    assert version_of(type(detect)({"upsample": 1}), {})[0] != version
    assert version_of(embed, {"dlib_resnet": "a"})[0] != version_of(embed, {"dlib_resnet": "b"})[0]
    with pytest.raises(KeyError):
        version_of(embed, {})


def test_the_dag_files_that_ship_are_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    pytest.importorskip("cv2")
    for file in sorted((Path(__file__).parents[2] / "dags").glob("*.yaml")):
        assert next(iter(load_dag(file).stages)) == "crawl"


def test_a_profile_that_needs_what_nothing_writes_is_refused(tmp_path: Path) -> None:
    text = GOOD.replace("profile: faces", "profile: faces, need: [affect]")
    assert problems(tmp_path, text) == [
        "quickstart.yaml:14: stages.shard: reads affect, which no stage writes (`affect` has no "
        "backend yet; a package of your own can bring one)"
    ]
