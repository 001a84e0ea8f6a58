"""What every worker of a run is made from: small, picklable, the same on every machine."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from idcluster.root.storage import Store
from pipeline.dag import SHARD, Dag, version_of
from pipeline.execution.worker import Worker
from pipeline.sources import (
    CommonsConfig,
    FolderConfig,
    OpenverseConfig,
    TableConfig,
    UrlsConfig,
    VideoConfig,
)
from pipeline.sources import Source as SourceConfig
from pipeline.weights.stored import weight_files
from schemas.fetched import Fetched
from stages.backends import backend
from stages.crawl.bucket_folder import BucketFolderSource
from stages.crawl.folder import FolderSource
from stages.crawl.listing import Shelf, Source, SourceError
from stages.crawl.service import Asking
from stages.crawl.table import TableSource
from stages.crawl.urls import UrlsSource
from stages.crawl.web.gate import Gate
from stages.stage import Stage
from stages.weights import LocalRegistry, MissingWeights, WeightFiles

if TYPE_CHECKING:
    from pipeline.execution.fetching import FetchWorker


def sources_of(
    dag: Dag, asking: Asking | None = None, shelf: Callable[[str], Shelf] | None = None
) -> list[Source]:
    """The sources that a DAG names. `asking` is what those that ask a service need to list people;
    `shelf` gives by the name of a source where it keeps what it has learnt.
    """
    crawl = dag.stages.get("crawl")
    limits = (
        {"max_bytes": crawl.params["max_bytes"]} if crawl and "max_bytes" in crawl.params else {}
    )
    told = replace(asking or Asking(), params=dag.fetch)
    return [
        _source_of(config, replace(told, shelf=shelf(config.name) if shelf else None), limits)
        for config in dag.sources
    ]


def check_sources(dag: Dag) -> None:
    """Raise SourceError where one cannot be listed at all."""
    for source in sources_of(dag):
        source.check()


def has_web(dag: Dag) -> bool:
    """Whether a source has addresses on the web."""
    return any(source.web for source in sources_of(dag))


def _source_of(config: SourceConfig, asking: Asking, limits: dict[str, Any]) -> Source:
    path = config.place()
    match config:
        case FolderConfig():
            in_store = "://" in config.path
            return (
                BucketFolderSource(config.path, config.name, **limits)
                if in_store
                else FolderSource(path, config.name, **limits)
            )
        case UrlsConfig():
            return UrlsSource(path, config.name, config.columns)
        case TableConfig():
            return TableSource(
                path,
                config.name,
                config.layout,
                config.base,
                config.columns,
                config.splits,
                **limits,
            )
        case VideoConfig():
            from stages.crawl.video import VideoSource  # OpenCV, which only this source needs

            video = VideoSource(
                path,
                config.name,
                config.rate,
                config.per_clip,
                config.clips,
                config.prefix,
                config.format,
            )
            video.shelf = asking.shelf
            return video
        case CommonsConfig():
            from stages.crawl.commons import CommonsSettings, CommonsSource

            chosen = CommonsSettings(
                **{field.name: getattr(config, field.name) for field in fields(CommonsSettings)}
            )
            return CommonsSource(
                path, config.name, chosen, config.columns, config.relist_days, asking
            )
        case OpenverseConfig():
            from stages.crawl.openverse import OpenverseSettings, OpenverseSource

            searched = OpenverseSettings(
                **{field.name: getattr(config, field.name) for field in fields(OpenverseSettings)}
            )
            token = os.environ.get(config.token_env) if config.token_env else None
            return OpenverseSource(
                path,
                config.name,
                searched,
                config.columns,
                config.relist_days,
                token,
                config.token_env,
                asking,
            )


def versions_of(
    stages: Sequence[Stage], files: WeightFiles
) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
    """The version of each stage by name, and the description of each version by `table/version`."""
    versions, descriptions = {}, {}
    for stage in stages:
        version, description = version_of(
            stage, {name: files.sha256(name) for name in stage.weights}
        )
        versions[stage.name] = version
        descriptions[f"{stage.writes.name}/{version}"] = description
    return versions, descriptions


class _Services:
    """Images of the sources that are no crawl: each has the addresses that begin with its
    name.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = {source.name: source for source in sources}

    def fetch(self, addresses: Sequence[str]) -> list[Fetched]:
        whose: dict[str, list[str]] = {}
        for address in addresses:
            whose.setdefault(address.partition(":")[0], []).append(address)
        found: dict[str, Fetched] = {}
        for name, mine in whose.items():
            source = self.sources.get(name)
            if source is None or source.web:
                detail = f"belongs to no source of this DAG, which has {', '.join(self.sources)}"
                answers = [
                    Fetched(None, "failed", "bad_address", f"{address!r} {detail}")
                    for address in mine
                ]
            else:
                answers = source.fetch(mine)
            found.update(zip(mine, answers, strict=True))
        return [found[address] for address in addresses]


def drain_path(run: str) -> str:
    """A file that tells the workers of a run to take no more tasks."""
    return f"parts/attempts/{run}/drain"


@dataclass(frozen=True)
class WorkerSpec:
    root: str
    dag: Dag
    versions: Mapping[str, str]
    models: str | None
    run: str
    local: LocalRegistry | None = None
    """What the driver found in the registry of its models directory: a node with another one would
    load other weights.
    """

    def __post_init__(self) -> None:
        # Workers have another current directory than the driver, where relative paths of the DAG
        # start.
        sources = tuple(
            source.model_copy(update={"path": source.anchored()}) for source in self.dag.sources
        )
        object.__setattr__(self, "dag", self.dag.model_copy(update={"sources": sources}))

    def weights(self) -> WeightFiles:
        """The weights as this machine finds them."""
        return weight_files(self.models, self.local)

    def lacking(self, names: Sequence[str]) -> list[str]:
        """What this machine lacks to run the stages `names`, in words. Brings weights of an object
        store here.
        """
        problems = []
        if "crawl" in names:
            for source in sources_of(self.dag):
                try:
                    if not source.web:  # else nodes read nothing of it
                        source.check()
                except SourceError as error:
                    problems.append(f"stage crawl: {error}")
        files = self.weights()
        for name in names:
            config = self.dag.stages[name]
            for weights in backend(name, config.backend)(config.params, files.local).weights:
                try:
                    files.path(weights)
                except MissingWeights as error:
                    problems.append(f"stage {name}: {error}")
        return problems

    def fetch_worker(self, gate: Gate) -> "FetchWorker":
        """A worker that fetches from the web."""
        from pipeline.execution.fetching import FetchWorker

        store, path = Store(self.root), drain_path(self.run)
        limits = (
            {name: self.dag.stages["crawl"].params[name] for name in ("max_bytes",)}
            if "crawl" in self.dag.stages
            else {}
        )
        return FetchWorker(
            store,
            self.run,
            self.dag.fetch.model_copy(update=limits),
            gate,
            lambda: store.exists(path),
        )

    def build(
        self, store: Store | None = None, draining: Callable[[], bool] | None = None
    ) -> Worker:
        """A worker. `store` and `draining` are given where the caller has its own."""
        place = store or Store(self.root)
        files = self.weights()
        stages = {
            name: backend(name, config.backend)(config.params, files.local)
            for name, config in self.dag.stages.items()
            if name != SHARD
        }
        for name, stage in stages.items():
            stage.device = "cuda" if self.dag.stages[name].resources.gpus else "cpu"
        path = drain_path(self.run)
        return Worker(
            place,
            stages,
            self.versions,
            files,
            _Services(sources_of(self.dag)),
            self.run,
            draining or (lambda: place.exists(path)),
        )
