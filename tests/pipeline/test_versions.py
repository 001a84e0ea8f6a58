"""Versions of rows and shards: a change that was not meant to compute anything anew must not."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from pipeline.dag import SHARD, load_dag, shard_params
from pipeline.prepared_dag import prepare
from pipeline.shards.writing import shard_version
from stages.stage import LATE, Params

DAGS = Path(__file__).resolve().parents[2] / "dags"
# fmt: off
_DLIB = {
    "crawl": "4bf54ea2", "detect": "2b5cdd60", "embed": "a55731f6", "clean": "6cfbef71",
    "people": "d7788bb1", "match": "f4f7c652", "caption": "c88e3af4", "segment": "cb303a9d",
}
# fmt: on
VERSIONS: dict[str, dict[str, str]] = {
    "celeba": {**_DLIB, "shard": "8cf797a7"},
    "crawl_commons": {**_DLIB, "shard": "f8d3934f"},
    "quickstart": {**_DLIB, "landmark": "6e1b93f0", "fit": "382424f8", "shard": "f8d3934f"},
    "facenet_mtcnn": {
        **_DLIB,
        **{"detect": "b3acf06c", "embed": "806d0cae", "clean": "299f03de", "match": "59840baa"},
        **{"fit": "c084f34c", "shard": "f8d3934f"},
    },
    "flashface": {
        **{name: _DLIB[name] for name in ("crawl", "people", "caption")},
        **{"detect": "db8f280f", "embed": "2d06f342", "clean": "a43fc8e9", "match": "59840baa"},
        **{"fit": "c084f34c", "shard": "ae29bd67"},
    },
    "photos_scrfd_edgeface": {
        **_DLIB,
        **{"detect": "4805bb2d", "embed": "1b6a3358", "clean": "793b36e4", "match": "b7e4159b"},
        **{"fit": "c084f34c", "shard": "f8d3934f"},
    },
}
"""Raised on purpose by whoever changes what a stage gives: then datasets are computed anew."""


def test_there_is_a_case_for_every_dag_file() -> None:
    assert {file.stem for file in DAGS.glob("*.yaml")} == set(VERSIONS)


@pytest.mark.parametrize("name", VERSIONS)
def test_datasets_that_were_made_before_are_not_computed_anew(name: str) -> None:
    """A new parameter, a moved file or another word would cost every user days of computing."""
    dag = load_dag(DAGS / f"{name}.yaml")
    found: dict[str, Any] = dict(prepare(dag, None, check_weights=False).versions)
    found["shard"] = shard_version(shard_params(dag.stages[SHARD]))[0]
    assert found == VERSIONS[name]


def test_a_late_parameter_counts_once_it_is_set() -> None:
    class Before(Params):
        size: int = 1

    class After(Before):
        extra: int = Field(default=7, json_schema_extra=LATE)

    assert After().hashed() == Before().hashed() == {"size": 1}
    assert After(extra=8).hashed() == {"size": 1, "extra": 8}
