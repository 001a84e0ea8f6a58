"""As a notebook does it: nothing but `import idcluster`, from photographs to an image of a
statistic.
"""

from pathlib import Path

import pytest

import idcluster

pytestmark = [pytest.mark.ray, pytest.mark.slow]

DAG = Path(__file__).resolve().parents[2] / "dags" / "quickstart.yaml"


def test_from_photographs_to_shards_and_answers(tmp_path: Path) -> None:
    pytest.importorskip(
        "skimage", reason="sample people are made of photographs that packages ship"
    )
    from pipeline.samples import compose

    truths = compose(tmp_path, seed=0)
    sets = [
        f"source.path={tmp_path / 'people'}",
        f"root={tmp_path / 'out'}",
        # All sample people are copies of a few photographs, and cleaning would find them out.
        "stages.clean.params.duplicates=false",
        # Weights for any use, so that nothing has to be accepted.
        "stages.fit.params.points=five",
    ]
    only = ["crawl", "detect", "embed", "clean", "caption", "fit", "segment", "shard"]

    planned = idcluster.plan(DAG, sets=sets, only=only)
    assert not planned.nothing and not planned.licences
    record = idcluster.run(DAG, sets=sets, only=only, quiet=True)
    assert record.status == "done"
    assert idcluster.plan(DAG, sets=sets, only=only).nothing

    dataset = idcluster.open(tmp_path / "out")
    kept = dataset.sql("SELECT count(DISTINCT image_id) FROM clusters WHERE keep").fetchall()
    assert kept == [(sum(truth.expected_keep for truth in truths),)]
    people = dataset.sql("SELECT name FROM samples GROUP BY name ORDER BY count(*) DESC").fetchall()
    assert {name for (name,) in people} == set(dataset.people["name"].to_pylist())
    captions = dataset.sql("SELECT caption FROM captions WHERE status = 'ok' LIMIT 3").fetchall()
    assert all(caption for (caption,) in captions)

    shards = dataset.shards("faces")
    seen = [(sample.about["name"], sample.rgb().shape) for sample in dataset.samples("faces")]
    assert len(seen) == kept[0][0] == sum(shards.splits.values())
    first = shards.person(seen[0][0])
    assert {sample.about["name"] for sample in first} == {seen[0][0]}

    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plot

    sizes = dataset.stats("cluster_sizes")["cluster_sizes"].to_pydict()
    figure, axes = plot.subplots()
    axes.bar(sizes["from"], sizes["number"])
    figure.savefig(tmp_path / "sizes.png")
    plot.close(figure)
    assert (tmp_path / "sizes.png").stat().st_size > 1000
