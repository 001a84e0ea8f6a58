"""A crawl in rounds: fetch what is missing into the spool, then let the stages take it from there.

Candidates are taken chunk by chunk, a window of them a round. A round ends when all of the window
is answered or put off; what was put off waits for a later round with more patience, and the last of
them gives up what still found no room. So a slow host holds up nobody, and after the last round
every candidate has its row.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from idcluster.root.dataset_root import RunError
from idcluster.root.parquet import read, read_entries
from idcluster.root.snapshot import WHOLE
from idcluster.root.spool import Place, is_web, look
from idcluster.root.storage import Store
from pipeline.execution.fetching import UNEXPECTED, Block, Haul, blocks
from pipeline.execution.reconcile import reconcile
from pipeline.execution.snapshot_tables import Scope, SnapshotTables
from schemas import TABLES
from stages.crawl.web.address import BadAddress, canonical
from stages.crawl.web.guard import Guard
from stages.crawl.web.params import WebParams
from stages.stage import Stage

WINDOW = 200_000
"""Candidates of a round."""
PATIENCE = (30.0, 120.0, 600.0)
"""Seconds that an address waits for room at its host: in the first round, in the next, in the
last.
"""
BREATH = 1.0
"""Seconds before a later round: longer than workers believe that a site's rules cannot be had for
now.
"""
_REFUSALS = ("robots", "opt_out")


@dataclass(frozen=True)
class Missing:
    """Candidates of one chunk that have no row in `images`: address by image id. `again`: those
    whose row is to be replaced.
    """

    scope: Scope
    addresses: Mapping[str, str]
    again: frozenset[str]

    def only(self, addresses: Set[str]) -> "Missing":
        """Those of these addresses."""
        kept = {image: address for image, address in self.addresses.items() if address in addresses}
        return Missing(self.scope, kept, self.again & kept.keys())


def missing(
    view: SnapshotTables,
    crawl: Stage,
    forced: Set[str],
    allowed: Set[str] | None,
    refusals_before: int,
    limit: int | None = None,
    serves: Callable[[str], bool] = lambda address: True,
) -> Iterator[Missing]:
    """What `crawl` has to fetch, chunk by chunk. `forced` are image ids that are fetched again.

    So are those whose site refused them before `refusals_before`, microseconds since 1970: a
    refusal is asked about anew. `serves` tells the addresses that this run can read: others are
    left to the DAG that has their source.
    """
    left = limit
    for bucket in view.buckets:
        old = frozenset() if forced else _with_old_refusals(view, bucket, refusals_before)
        for scope in view.scopes(crawl, bucket):
            if not forced and scope[1] not in old and view.complete(crawl, scope) is not None:
                continue
            found = _missing(view, crawl, scope, forced, allowed, refusals_before)
            found = found.only({address for address in found.addresses.values() if serves(address)})
            if left is not None:
                kept = dict(list(found.addresses.items())[:left])
                left -= len(kept)
                found = Missing(scope, kept, found.again & kept.keys())
            if found.addresses:
                yield found


def _missing(
    view: SnapshotTables,
    crawl: Stage,
    scope: Scope,
    forced: Set[str],
    allowed: Set[str] | None,
    refusals_before: int,
) -> Missing:
    places = view.pool(crawl, scope)
    columns = ["image_id", "inputs", "status", "reason", "fetched_at"]
    pool = [read(view.store, crawl.writes, place) for place in places]
    expired = {
        image
        for table in (table.select(columns) for table in pool)
        for image in table.filter(_expired(table, refusals_before))["image_id"].to_pylist()
    }
    found = reconcile(crawl, view.tables(crawl, scope), pool, {*forced, *expired})
    rows = found.wanted.rows.take(pa.array(found.missing))
    if allowed is not None:
        rows = rows.filter(
            pc.is_in(rows["image_id"], value_set=pa.array(sorted(allowed), pa.string()))
        )
    addresses = dict(
        zip(rows["image_id"].to_pylist(), rows["candidates.address"].to_pylist(), strict=True)
    )
    return Missing(scope, addresses, frozenset((forced | expired) & addresses.keys()))


def _expired(table: pa.Table, before: int) -> pa.ChunkedArray:
    refused = pc.is_in(table["reason"], value_set=pa.array(_REFUSALS))
    old = pc.less(table["fetched_at"].cast(pa.int64()), pa.scalar(before, pa.int64()))
    return pc.and_(pc.fill_null(refused, False), pc.fill_null(old, False))


def _with_old_refusals(view: SnapshotTables, bucket: int, before: int) -> frozenset[int]:
    """The chunks of a bucket with refusals from before a time.

    Of a finished bucket one file is read, its companion; else those with a row that is not ok; of
    either two columns.
    """
    images, columns = TABLES["images"], ["reason", "fetched_at"]
    found = (view.shown_at("images", (bucket, chunk)) for chunk in view.chunks(bucket))
    shown = [entry for entry in found if entry is not None and entry.file]
    suspect = [entry for entry in shown if entry.ok < entry.rows]
    companion = view.shown_at(images.companion.name, (bucket, WHOLE))
    if (
        len(suspect) > 1
        and companion is not None
        and companion.rows == sum(entry.rows for entry in shown)
    ):
        rows = read(view.store, images.companion, companion.file, columns)
        starts = np.cumsum([entry.rows for entry in shown])
        at = np.flatnonzero(np.asarray(_expired(rows, before)))
        return frozenset(
            shown[i].chunk for i in np.unique(np.searchsorted(starts, at, side="right")).tolist()
        )
    tables = (
        (entry.chunk, read_entries(view.store, "images", [entry], columns)) for entry in suspect
    )
    return frozenset(chunk for chunk, rows in tables if np.asarray(_expired(rows, before)).any())


def windows(chunks: Iterator[Missing], size: int = WINDOW) -> Iterator[list[Missing]]:
    """Chunks gathered until they hold `size` candidates."""
    gathered: list[Missing] = []
    held = 0
    for one in chunks:
        gathered.append(one)
        held += len(one.addresses)
        if held >= size:
            yield gathered
            gathered, held = [], 0
    if gathered:
        yield gathered


@dataclass
class Fetching:
    """Counts of a crawl, for whoever watches and for the record of the run."""

    answers: int = 0
    bytes: int = 0
    seconds: float = 0.0
    rounds: int = 0
    spooled: int = 0
    """Answers that an earlier run had left in the spool."""
    outcomes: Counter[str] = field(default_factory=Counter)
    hosts: Counter[str] = field(default_factory=Counter)
    unexpected: dict[str, str] = field(default_factory=dict)

    def as_record(self) -> dict[str, Any]:
        return {
            **{name: getattr(self, name) for name in ("answers", "bytes", "rounds", "spooled")},
            "seconds": round(self.seconds, 3),
            "outcomes": dict(self.outcomes.most_common()),
            "failures_by_host": dict(self.hosts.most_common(20)),
            "unexpected": self.unexpected,
        }

    def add(self, haul: Haul) -> None:
        self.answers += haul.answers
        self.bytes += haul.bytes
        self.outcomes.update(haul.outcomes)
        self.hosts.update(haul.hosts)
        self.unexpected = dict(list({**self.unexpected, **haul.unexpected}.items())[:UNEXPECTED])


def check_contact(fetch: WebParams, addresses: Sequence[str]) -> None:
    """Raise RunError where the public web would be crawled without saying who does it."""
    guard = Guard(fetch.allow_hosts, fetch.resolve)
    foreign = next(
        (host for host in map(_host, addresses) if host is not None and not guard.is_own(host)),
        None,
    )
    if foreign is not None and not fetch.contact:
        raise RunError(
            f"the crawl would ask {foreign} without saying for whom: set fetch.contact in the "
            "DAG to an address or a"
            " page where its owner can complain (--set fetch.contact=mailto:you@example.org); it "
            "goes into the User-Agent of all requests"
        )


def _host(address: str) -> str | None:
    """The host of an address; None for one that will not be asked."""
    try:
        return urlsplit(canonical(address)).hostname
    except BadAddress:
        return None


class Rounds:
    """The rounds of one crawl. `fetch` fetches blocks, `process` lets the stages take what is in
    the spool.
    """

    def __init__(
        self,
        store: Store,
        run: str,
        fetch: Callable[[list[Block], int], Iterator[Haul]],
        process: Callable[[Set[str], Set[str], Mapping[str, Place]], None],
        stopped: Callable[[], bool],
    ) -> None:
        self.store, self.run, self.fetch, self.process, self.stopped = (
            store,
            run,
            fetch,
            process,
            stopped,
        )
        self.counts = Fetching()

    def crawl(self, chunks: Iterator[Missing]) -> None:
        """Fetch and process until every candidate of `chunks` has its row, or until stopped."""
        late: list[Missing] = []
        for window in windows(chunks):
            late += self._round(window, PATIENCE[0], final=False)
            if self.stopped():
                return
        for number, patience in enumerate(PATIENCE[1:], 2):
            if late and not self.stopped():
                time.sleep(BREATH)
                late = self._round(late, patience, final=number == len(PATIENCE))

    def _round(self, window: list[Missing], patience: float, final: bool) -> list[Missing]:
        """One round; returns what was put off."""
        wanted = dict.fromkeys(
            address for one in window for address in one.addresses.values() if is_web(address)
        )
        again = {one.addresses[image] for one in window for image in one.again}
        there = look(self.store).places
        mine = f"/{self.run}/"
        usable = {
            address
            for address in wanted
            if address in there and (address not in again or mine in there[address][0])
        }
        self.counts.spooled += sum(mine not in there[address][0] for address in usable)
        todo = [address for address in wanted if address not in usable]
        began = time.monotonic()
        put_off: set[str] = set()
        if todo:
            for haul in self.fetch(list(blocks(todo, patience, final)), len(todo)):
                self.counts.add(haul)
                put_off.update(haul.deferred)
        self.counts.seconds += time.monotonic() - began
        self.counts.rounds += 1
        found = look(self.store)
        fresh = {
            a: place
            for a, place in found.places.items()
            if a in wanted and a not in put_off and (a not in again or mine in place[0])
        }
        images = {
            image
            for one in window
            for image, address in one.addresses.items()
            if address in fresh or not is_web(address)
        }
        if images:
            self.process(images, {image for one in window for image in one.again} & images, fresh)
        if not self.stopped():
            # Only now are the answers safe in the dataset. A file may hold some that wait for a run
            # with more stages.
            self.store.delete(
                path for path, addresses in found.files.items() if set(addresses) <= fresh.keys()
            )
        left = [one.only(put_off) for one in window]
        return [one for one in left if one.addresses]
