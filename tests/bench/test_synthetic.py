"""A synthetic root is a dataset like any other: complete, known to its source, and the same in
every view.
"""

from pathlib import Path

import pytest

from idcluster.catalogue.connection import connect
from idcluster.root.storage import Store
from pipeline.execution.intake import take_in
from pipeline.execution.snapshot_tables import SnapshotTables
from pipeline.execution.work import find_work
from tests.bench.scale import Listing
from tests.bench.synthetic import Size, build, dag

SIZE = Size(3, 1500, 250)


@pytest.mark.slow
def test_a_synthetic_root_has_nothing_to_do(tmp_path: Path) -> None:
    """The benchmark would measure reading tables where a real dataset is complete, or the other way
    round.
    """
    snapshot = build(tmp_path / "root", SIZE, processes=1)
    prepared, store = dag(tmp_path / "root"), Store(tmp_path / "root")
    assert find_work(SnapshotTables(store, snapshot, prepared.versions), prepared.stages).nothing
    found = take_in(store, snapshot, Listing(SIZE))
    assert (found.people, found.offered, found.new, found.changed, found.gone, found.entries) == (
        3,
        1500,
        0,
        0,
        0,
        [],
    )
    connection = connect(store, snapshot)
    kept = connection.execute(
        "SELECT count(*) FROM clusters JOIN captions USING (face_id) WHERE keep"
    ).fetchall()
    held = connection.execute("SELECT count(*) FROM clusters WHERE keep").fetchall()
    assert kept == held and 150 < kept[0][0] < 350
    connection.close()
