"""Which files of the spool hold answers that a later run still takes: what garbage collection
leaves there.
"""

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from idcluster.root.parquet import read_entries
from idcluster.root.snapshot import Entry, Snapshot
from idcluster.root.spool import look
from idcluster.root.storage import Store

_FRESH = timedelta(days=14)
"""For so long an answer may still replace the row that is there: later the page will have changed
again.
"""


def waited_for(store: Store, snapshot: Snapshot) -> set[str]:
    """Spool files with an answer for a candidate that has no row in `images`, or one that was
    fetched before.

    The latter is what a crawl leaves that was killed while it fetched everything anew. Reads no
    images, and nothing at all where there is no spool.
    """
    found = look(store, tidy=False)
    wanted: set[str] = set()
    if not found.files:
        return wanted
    began = {path: _began(path) for path in found.files}
    addresses = pa.array(sorted(found.places), pa.string())
    candidates, images = _by_bucket(snapshot, "candidates"), _by_bucket(snapshot, "images")
    for bucket, entries in candidates.items():
        rows = read_entries(store, "candidates", entries, ["image_id", "address", "status"])
        rows = rows.filter(
            pc.and_(pc.equal(rows["status"], "ok"), pc.is_in(rows["address"], value_set=addresses))
        )
        if not rows.num_rows:
            continue
        there = read_entries(store, "images", images.get(bucket, []), ["image_id", "fetched_at"])
        taken = dict(
            zip(there["image_id"].to_pylist(), there["fetched_at"].to_pylist(), strict=True)
        )
        for image, address in zip(
            rows["image_id"].to_pylist(), rows["address"].to_pylist(), strict=True
        ):
            path = found.places[address][0]
            if image not in taken or _is_newer(began[path], taken[image]):
                wanted.add(path)
    return wanted


def _by_bucket(snapshot: Snapshot, table: str) -> dict[int, list[Entry]]:
    found: dict[int, list[Entry]] = {}
    for entry in snapshot.shown(table):
        found.setdefault(entry.bucket, []).append(entry)
    return found


def _is_newer(began: datetime | None, fetched: datetime | None) -> bool:
    if began is None or began < datetime.now(UTC) - _FRESH:
        return False
    return fetched is None or fetched < began


def _began(path: str) -> datetime | None:
    """When the run began that a spool file is of, by its name."""
    try:
        return datetime.strptime(path.split("/")[2][:15], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None
