"""idcluster: from a list of people to a clean, captioned, measured and sharded face dataset.

    import idcluster

    idcluster.run("dags/quickstart.yaml", sets=["source.path=people/", "root=out/"])
    dataset = idcluster.open("out/")
    dataset.sql("SELECT name, count(*) FROM samples GROUP BY ALL").show()
    for sample in dataset.samples("faces", "train"):
        print(sample.about["name"], sample.rgb().shape)

`python -m idcluster` is the command line. Importing this package imports nothing else; Ray, torch
and OpenCV are needed by `run` alone.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from idcluster.api import open, plan, run
    from idcluster.dataset import Dataset
    from idcluster.shards import Sample, ShardSet, open_shards
    from pipeline.plan import Plan
    from pipeline.record import Record
    from schemas.errors import UserError

    __version__: str

_PLACES = {
    "run": "idcluster.api",
    "plan": "idcluster.api",
    "open": "idcluster.api",
    "Dataset": "idcluster.dataset",
    "ShardSet": "idcluster.shards",
    "Sample": "idcluster.shards",
    "open_shards": "idcluster.shards",
    "UserError": "schemas.errors",
    "Plan": "pipeline.plan",
    "Record": "pipeline.record",
}
"""Names of the API and where they are: imported when they are first asked for."""

__all__ = [
    "Dataset",
    "Plan",
    "Record",
    "Sample",
    "ShardSet",
    "UserError",
    "__version__",
    "open",
    "open_shards",
    "plan",
    "run",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("idcluster")
        except PackageNotFoundError:  # a checkout that is not installed
            return "0+unknown"
    if name not in _PLACES:
        raise AttributeError(f"module 'idcluster' has no attribute {name!r}")
    from importlib import import_module

    from idcluster import own_packages

    own_packages.take()
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
