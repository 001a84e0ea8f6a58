"""The DAG file: which stages run, with which backends, parameters and resources, on which source,
into which root.

A mistake in the file is told with its line, its field and the nearest name that exists, and all
mistakes are told at once. Backends are imported only when the file names them.
"""

import hashlib
import importlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from pipeline.document import DagError as DagError
from pipeline.document import Document, Where, dotted, nearest, show
from pipeline.sources import KINDS, Source
from pipeline.weights.stored import weight_files
from schemas import TABLES
from stages.backends import BACKENDS, UnknownBackend, backend, default, named, place
from stages.crawl.web.params import FETCH, WebParams
from stages.stage import Params, Stage
from stages.weights import NOTHING, LocalRegistry, knowing

SHARD = "shard"
SHARD_BACKENDS = {"webdataset": "stages.shard.params:ShardParams"}


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WorkerRange(_Closed):
    """A pool that grows from `min` to `max` workers and shrinks again: for clusters whose nodes
    come and go.
    """

    min: int = Field(ge=1)
    max: int = Field(ge=1)

    @model_validator(mode="after")
    def _in_order(self) -> "WorkerRange":
        if self.max < self.min:
            raise ValueError(f"max ({self.max}) is less than min ({self.min})")
        return self


class Resources(_Closed):
    """What one worker of a stage takes, and how many workers there are."""

    cpus: float = Field(default=1, gt=0)
    gpus: float = Field(default=0, ge=0)
    """Fractions share a GPU; above 1 they are whole."""
    memory_mb: int = Field(default=1500, gt=0)
    workers: Literal["auto"] | Annotated[int, Field(ge=1)] | WorkerRange = "auto"
    """`auto`: as many as fit. On a cluster a number is the most, and a range lets the pool follow
    an autoscaler.
    """

    @field_validator("gpus")
    @classmethod
    def _whole_above_one(cls, gpus: float) -> float:
        if gpus > 1 and gpus != int(gpus):
            raise ValueError(f"{gpus:g} GPUs: a worker takes a fraction of one GPU or whole ones")
        return gpus


class StageConfig(_Closed):
    """One stage, with everything filled in: parameters are complete, in JSON types, resources are
    merged.
    """

    backend: str
    params: dict[str, Any] = {}
    resources: Resources = Resources()


class _StageFile(_Closed):
    backend: str | None = None
    params: dict[str, Any] = {}
    resources: dict[str, Any] = {}


class _DagFile(_Closed):
    name: str = Field(min_length=1)
    root: str = Field(min_length=1)
    shared_root: bool = False
    source: Any
    """A source, or a list of them."""
    fetch: WebParams = FETCH
    models: str | None = None
    resources: dict[str, Any] = {}
    stages: dict[str, _StageFile] = Field(min_length=1)


class Dag(_Closed):
    """A checked DAG. `stages` is in the order in which the pipeline runs them, `shard` last."""

    name: str
    root: str
    sources: tuple[Source, ...]
    """What `source` names, in that order. Their names differ."""
    models: str | None
    stages: dict[str, StageConfig]
    fetch: WebParams = FETCH
    """How images are fetched from the web."""
    shared_root: bool = False
    """Whether `root`, a path on a disk, is the same file system on all nodes of a cluster."""
    local: LocalRegistry = Field(default=NOTHING, exclude=True, repr=False)
    """What the team registered in the models directory, which parameters may name. Not a part of
    what is written down about a DAG: versions and the hashes in them are.
    """

    def build(self) -> list[Stage]:
        """An instance of every stage but shard, in pipeline order. Nothing is loaded before their
        `setup`.
        """
        return [
            backend(name, config.backend)(config.params, self.local)
            for name, config in self.stages.items()
            if name != SHARD
        ]


def load_dag(path: Path, sets: Sequence[str] = (), models: str | None = None) -> Dag:
    """The DAG of a YAML file, after `sets` (`a.b.c=value`, the value in YAML). Raises DagError, and
    MissingWeights where the models directory (`models`, else the file's own) has a registry.yaml
    that cannot be read.

    The weights that a team registered there can be named in the file, and their calibrations are
    known.

    `people` and `match` are added where `clean` is. Thresholds of `clean` that the file leaves open
    come from the calibration of the recogniser that `embed` names.
    """
    document = Document(str(path))
    try:
        document.read(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        there = sorted(other.name for other in path.parent.glob("*.y*ml"))
        raise DagError(
            [f"{path}: there is no such file" + (nearest(path.name, there) if there else "")]
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise DagError(
            [f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}"]
        ) from error
    for text in sets:
        document.set(text)
    document.stop()
    file = document.validate(_DagFile, document.data, ())
    if file is None:
        raise document.error()
    local = weight_files(models or file.models).local
    document.context = knowing(local)
    return _resolve(document, file, local)


def version_of(stage: Stage, weights_sha256: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    """The version of a stage, 8 hex digits, and the description that it is the hash of.

    `weights_sha256` maps the names in `stage.weights` to the hashes of their files. Raises KeyError
    on a missing one.
    """
    return describe(
        stage.name,
        stage.backend,
        stage.code_version,
        stage.writes.version,
        stage.params,
        {name: weights_sha256[name] for name in stage.weights},
    )


def describe(
    stage: str,
    backend_name: str,
    code: int,
    schema: int,
    params: Params,
    weights: Mapping[str, str],
) -> tuple[str, dict[str, Any]]:
    """`version_of` for what is not an instance of Stage."""
    description = {
        "stage": stage,
        "backend": backend_name,
        "code_version": code,
        "schema_version": schema,
        "params": params.hashed(),
        "weights": dict(weights),
    }
    canonical = json.dumps(description, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(canonical.encode(), digest_size=4).hexdigest(), description


def shard_params(config: StageConfig) -> Any:
    """The parameters of the shard stage as its backend's own model."""
    return _shard_parameters(config.backend).model_validate(config.params)


# How a file becomes a Dag


def _resolve(document: Document, file: _DagFile, local: LocalRegistry) -> Dag:
    order = (*BACKENDS, SHARD)
    given = dict(file.stages)
    for name in [name for name in given if name not in order]:
        document.problem(("stages", name), f"unknown stage{nearest(name, order)}")
        del given[name]
    if "clean" in given:
        for name in ("people", "match"):
            if name in BACKENDS:
                given.setdefault(name, _StageFile())
    document.validate(Resources, file.resources, ("resources",))
    sources = _sources(document, file.source)
    configs: dict[str, StageConfig] = {}
    built: dict[str, Stage] = {}
    for name in (name for name in order if name in given):
        asked = given[name]
        at: Where = ("stages", name)
        resources = document.validate(
            Resources, {**file.resources, **asked.resources}, (*at, "resources"), asked.resources
        )
        try:
            if name == SHARD:
                chosen, found = asked.backend or next(iter(SHARD_BACKENDS)), None
                if chosen not in SHARD_BACKENDS:
                    said = f"stage {name!r} has no backend {chosen!r}"
                    raise UnknownBackend(said + nearest(chosen, SHARD_BACKENDS))
                parameters = _shard_parameters(chosen)
            else:
                found = backend(name, asked.backend)
                # By its place: workers need not know which packages bring names.
                chosen, parameters = place(name, asked.backend), found.Parameters
        except UnknownBackend as error:
            document.problem((*at, "backend"), str(error))
            continue
        except ImportError as error:
            document.problem(
                (*at, "backend"),
                f"backend {asked.backend or default(name)!r} cannot be loaded: {error}"
                + (
                    "; its package has to be installed, or in a folder that PYTHONPATH names"
                    if ":" in str(asked.backend)
                    else ""
                ),
            )
            continue
        params = document.validate(parameters, asked.params, (*at, "params"))
        if params is None:
            continue
        if found is not None:
            built[name] = found(params)
        configs[name] = StageConfig(
            backend=chosen,
            params=params.model_dump(mode="json"),
            resources=resources or Resources(),
        )
    if not document.problems:
        _calibrate(document, configs, built, local)
        _check_landmarks(document, built)
        _check_tables(document, configs, built)
    document.stop()
    return Dag(
        name=file.name,
        root=file.root,
        sources=sources,
        models=file.models,
        stages=configs,
        fetch=file.fetch,
        shared_root=file.shared_root,
        local=local,
    )


def _sources(document: Document, given: Any) -> tuple[Any, ...]:
    """The sources, each as the model of its kind."""
    if isinstance(given, Mapping):
        return (_source(document, given, ("source",)),)
    if not isinstance(given, list) or not given:
        document.problem(
            ("source",),
            "input should be a mapping with `kind` and `path`, or a list of such, is "
            f"{show(given)}",
        )
        return ()
    found: list[Any] = []
    names: dict[str, int] = {}
    for number, one in enumerate(given):
        at: Where = ("source", number)
        if not isinstance(one, Mapping):
            document.problem(
                at, f"input should be a mapping with `kind` and `path`, is {show(one)}"
            )
            continue
        source = _source(document, one, at)
        if source is not None and names.setdefault(source.name, number) != number:
            which = f"is called {source.name!r} as {dotted(('source', names[source.name]))} is"
            document.problem(
                at, f"{which}; images are told apart by that, so give it a `name` of its own"
            )
        found.append(source)
    return tuple(found)


def _source(document: Document, given: Mapping[str, Any], at: Where) -> Any:
    kind = given.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        what = f"there is no kind {show(kind)}" if "kind" in given else "is missing"
        document.problem((*at, "kind"), what + nearest(str(kind or ""), KINDS))
        return None
    return document.validate(KINDS[kind], given, at)


def _shard_parameters(name: str) -> type[Params]:
    module, _, attribute = SHARD_BACKENDS[name].partition(":")
    found: type[Params] = getattr(importlib.import_module(module), attribute)
    return found


def _calibrate(
    document: Document,
    configs: dict[str, StageConfig],
    built: dict[str, Stage],
    local: LocalRegistry,
) -> None:
    """Fill in the parameters that belong to the recogniser's space, where the file leaves them
    open.
    """
    if "embed" not in built:
        return
    # What a team measured on photographs like its own goes before what came with the code.
    shipped = importlib.import_module("stages.embed.calibration").CALIBRATION
    calibrations = {**shipped, **local.calibrations}
    recogniser = getattr(built["embed"], "recogniser", None)
    own, usual = calibrations.get(recogniser), shipped.get(recogniser)
    for name, stage in list(built.items()):
        at: Where = ("stages", name, "params")
        params = stage.params
        left = [one for one in stage.calibrated if getattr(params, one, 0) is None]
        if not left:
            continue
        if own is None:
            for one in (one for one in left if stage.calibrated[one].needed):
                document.problem(
                    (*at, one),
                    f"is open, and there is no calibration for the recogniser {recogniser!r} to "
                    "fill it from; set it, or measure it: `idcluster models benchmark "
                    f"--write-calibration` (calibrated: {', '.join(sorted(calibrations))})",
                )
            continue
        filled = {one: getattr(own, one, None) for one in left}
        for one in (one for one in left if filled[one] is None and stage.calibrated[one].shipped):
            filled[one] = getattr(usual, one, None)  # what they did not measure
        resolved = document.validate(type(params), {**params.model_dump(), **filled}, at)
        if resolved is not None:
            built[name] = type(stage)(resolved, local)
            configs[name] = configs[name].model_copy(
                update={"params": resolved.model_dump(mode="json")}
            )


def _check_landmarks(document: Document, built: dict[str, Stage]) -> None:
    """A stage that goes by five points has to get those that it was trained with."""
    for name, stage in built.items():
        giver = built.get(stage.landmarks_from or "")
        if giver is None:
            continue
        gives, needs = giver.landmark_scheme, stage.landmark_scheme
        if needs is None or gives is None or gives == needs:
            continue
        fitting = [
            f"stages.{giver.name}.backend: {one}" for one in _backends_with(giver.name, needs)
        ]
        fitting += [f"stages.{name}.backend: {one}" for one in _backends_with(name, gives)]
        document.problem(
            ("stages", name, "backend"),
            f"{stage.backend!r} aligns faces by {needs} landmarks, but {giver.name} backend "
            f"{giver.backend!r} gives {gives}"
            + (f"; use {' or '.join(fitting)}" if fitting else ""),
        )


def _backends_with(stage: str, scheme: str) -> Iterator[str]:
    for name in BACKENDS[stage]:
        try:
            if backend(stage, name).landmark_scheme == scheme:
                yield name
        except ImportError:
            continue


def _check_tables(
    document: Document, configs: dict[str, StageConfig], built: dict[str, Stage]
) -> None:
    """Every table that a stage reads and does not call optional must be written by a stage of the
    DAG.
    """
    reads = {
        name: [t for t in (*stage.reads, *stage.selects, stage.parent) if t not in stage.optional]
        for name, stage in built.items()
    }
    if SHARD in configs:
        reads[SHARD] = list(shard_params(configs[SHARD]).tables())
    written = {stage.writes.name for stage in built.values()} | {"identities", "candidates"}
    for name, tables in reads.items():
        missing = {
            TABLES[t].written_by for t in tables if TABLES[t].written_by in BACKENDS
        } - configs.keys()
        for writer in sorted(missing, key=list(BACKENDS).index):
            wanted = ", ".join(sorted({t for t in tables if TABLES[t].written_by == writer}))
            document.problem(
                ("stages", name),
                f"reads {wanted}, which no stage here writes; add `{writer}: {{}}` to stages"
                if named(writer)
                else f"reads {wanted}, which no stage writes (`{writer}` has no backend yet; a "
                "package of your own can bring one)",
            )
        for table in sorted({t for t in tables if t not in written}):
            writer = TABLES[table].written_by
            if writer in configs:
                said = (
                    f"reads {table}, which {writer} does not write with backend "
                    f"{configs[writer].backend!r}"
                )
                document.problem(("stages", name), said)
