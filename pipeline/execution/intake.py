"""Intake: from what a source lists to rows of `identities` and `candidates`.

A person gets a bucket when first seen, an image a chunk and a rank; both stay. New images open
new chunks, so what is already there is never moved. An image that the source no longer has stays
as a row that says so.
"""

import hashlib
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from idcluster.root.parquet import CHUNK_ROWS, read_entries, seal_table
from idcluster.root.removals import NO_BARS, Bars, load_bars
from idcluster.root.snapshot import WHOLE, Entry, Snapshot
from idcluster.root.storage import Store
from schemas import TABLES, identity_id, image_id
from schemas.wording import counted, verb
from stages.crawl.listing import Listed, Offer, Source, is_reference

BUCKET_ROWS = 50_000
"""Candidates after which a bucket takes no new people."""

VERSION = hashlib.sha256(
    f"intake 1 {TABLES['identities'].version} {TABLES['candidates'].version}".encode()
).hexdigest()[:8]

_NO_INPUTS = bytes(8)
_FACTS = ("page", "licence", "author", "fingerprint", "split", "attributes", "reference")


@dataclass(frozen=True)
class Intake:
    """What an intake found: entries that changed, and counts for the user."""

    entries: list[Entry]
    people: int
    offered: int
    new: int
    changed: int
    gone: int
    remarks: list[str]
    others: bool = False
    """Whether there are images of sources that were not asked."""


def take_in(store: Store, snapshot: Snapshot, *sources: Source, write: bool = True) -> Intake:
    """List `sources` and write what is new or changed, bucket by bucket. The caller publishes the
    entries.

    An image that several of them offer of a person is one candidate, with what the first says of
    it. Whoever was removed (`idcluster.root.removals`) is not listed again, nor is an address. With
    `write=False` nothing is written and there are no entries, only counts. Raises SourceError.
    """
    bars, remarks = load_bars(store), []
    listed: list[tuple[str, Listed]] = []
    unread: set[str] = set()
    for source in sources:
        found, said = source.people()
        if getattr(source, "incomplete", False):
            unread.add(source.name)
        allowed = bars.people(found)
        listed += ((source.name, person) for person in allowed)
        remarks += said
        if len(allowed) < len(found):
            removed = len(found) - len(allowed)
            was = f"{counted(removed, 'person')} who {verb(removed, 'was', 'were')} removed"
            remarks.append(f"{source.name} lists {was} and {verb(removed)} left out")
    people = _by_identity(listed)
    known = {
        row["identity_id"]: row
        for row in read_entries(store, "identities", snapshot.shown("identities")).to_pylist()
    }
    before = dict(known)
    shown: dict[int, list[Entry]] = defaultdict(list)
    for entry in snapshot.shown("candidates"):
        shown[entry.bucket].append(entry)
    members: dict[int, list[str]] = defaultdict(list)
    newcomers: deque[str] = deque()
    by_name = sorted(
        people, key=lambda person_id: (people[person_id].first.name.casefold(), person_id)
    )
    order = {person_id: place for place, person_id in enumerate(by_name)}
    unsure = {
        f"{person_id} {name}"
        for person_id, person in people.items()
        for name, part in person.parts
        if not part.complete
    }
    for person_id in by_name:
        if person_id in known:
            members[known[person_id]["bucket"]].append(person_id)
            known[person_id] = _named(known[person_id], people[person_id])
        else:
            newcomers.append(person_id)

    entries: list[Entry] = []
    pictured: set[str] = set()
    offered = new = changed = gone = 0
    others = False
    last = max((row["bucket"] for row in known.values()), default=0)
    numbers = deque(sorted({*shown, *members, last}))
    while numbers:
        number = numbers.popleft()
        bucket = _Bucket(
            [source.name for source in sources],
            read_entries(store, "candidates", shown[number]),
            bars,
        )
        bucket.compare(
            [
                (person_id, *offer)
                for person_id in members[number]
                for offer in people[person_id].offers()
            ],
            unsure,
            unread,
        )
        if number == last:
            filled = bucket.there.num_rows
            grown = deque(Counter(who for who, _, _ in bucket.fresh).items())
            while newcomers:
                # By name, so that it does not matter in which order the source lists people.
                while grown and order[grown[0][0]] < order[newcomers[0]]:
                    filled += grown.popleft()[1]
                if filled >= BUCKET_ROWS:
                    break
                person_id = newcomers.popleft()
                person = people[person_id]
                row: dict[str, Any] = {
                    "identity_id": person_id,
                    "name": person.first.name,
                    "aliases": [],
                    "external_ids": [],
                }
                known[person_id] = _named({**row, "bucket": number}, person)
                offers = [
                    (person_id, *offer)
                    for offer in person.offers()
                    if not bars.address(offer[0].address)
                ]
                bucket.fresh += offers
                filled += len(offers)
            if newcomers:
                last += 1
                numbers.append(last)
        others |= bucket.others
        offered += len(bucket.matched) + len(bucket.fresh)
        new, changed, gone = (
            new + len(bucket.fresh),
            changed + len(bucket.changed),
            gone + len(bucket.gone),
        )
        pictured |= bucket.pictured()
        if write:
            entries += [
                _write(store, "candidates", number, chunk, rows)
                for chunk, rows in bucket.chunks(shown[number])
            ]

    # Whoever has an image in any source is somebody; without one the row says why nothing follows.
    known = {
        person_id: _with_status(row, person_id in pictured) for person_id, row in known.items()
    }
    touched = {row["bucket"] for person_id, row in known.items() if row != before.get(person_id)}
    rows_of: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for person_id in sorted(known):
        rows_of[known[person_id]["bucket"]].append(known[person_id])
    if write:
        entries += [
            _write(store, "identities", number, WHOLE, rows_of[number])
            for number in sorted(touched)
        ]
    return Intake(entries, len(people), offered, new, changed, gone, remarks, others)


Offered = tuple[str, Offer, str]
"""Who, what, and the name of the source that says so."""


@dataclass
class _Person:
    """Somebody as all sources together list them. `spellings`: all names; `parts`: by source, in
    their order.
    """

    first: Listed
    spellings: set[str]
    parts: list[tuple[str, Listed]]

    def offers(self) -> Iterable[tuple[Offer, str]]:
        """Without what is listed a second time, and the name of the source that lists it.

        Where one is a reference, every other one says that it is not: so each of them knows that
        there is one.
        """
        found: dict[str, tuple[Offer, str]] = {}
        references: set[str] = set()
        said = False
        for name, part in self.parts:
            for offer in part.offers:
                found.setdefault(offer.address, (offer, name))
                if offer.reference is not None:
                    said = True
                    if is_reference(offer.reference):
                        references.add(offer.address)
        if not said:
            return found.values()
        words = {True: "yes", False: "no" if references else None}
        return [
            (replace(offer, reference=words[address in references]), name)
            for address, (offer, name) in found.items()
        ]


def _by_identity(listed: Iterable[tuple[str, Listed]]) -> dict[str, _Person]:
    """People by id, the first spelling first; folders that differ only in case are one person."""
    people: dict[str, _Person] = {}
    for name, person in listed:
        person_id = identity_id(person.name, person.given)
        there = people.setdefault(person_id, _Person(person, set(), []))
        there.spellings |= {person.name, *person.aliases}
        there.parts.append((name, person))
    return people


class _Bucket:
    """The candidates of one bucket beside what the source offers of its people.

    Compared column by column: a source may list millions of images of which none is new.
    """

    def __init__(self, sources: Sequence[str], there: pa.Table, bars: Bars = NO_BARS) -> None:
        self.sources, self.there, self.bars = sources, there, bars
        self.fresh: list[Offered] = []
        """Who and what is to be appended."""
        self.matched, self.gone = np.empty(0, np.int64), np.empty(0, np.int64)
        """Rows that the source lists, and that it no longer does."""
        self.others = False
        self.changed: dict[int, tuple[Offer, str]] = {}
        """Rows whose facts are others now."""

    def compare(
        self,
        offers: Sequence[Offered],
        unsure: Set[str] = frozenset(),
        unread: Set[str] = frozenset(),
    ) -> None:
        """Take what the sources offer of people who are in the bucket, every image once.

        Of those who are `unsure` (person and source), nothing is gone: the source does not know
        what it no longer has; nor of anybody in sources that could not be read whole (`unread`).
        What a source says that is not asked now stays as it is.
        """
        there = self.there
        names = pa.array(self.sources, pa.string())
        keys = _keys(there["identity_id"], there["address"]).combine_chunks()
        columns = {
            name: pa.array([getattr(offer, name) for _, offer, _ in offers], pa.string())
            for name in ("address", *_FACTS)
        }
        columns["source"] = pa.array([source for _, _, source in offers], pa.string())
        listed = _keys(pa.array([who for who, _, _ in offers], pa.string()), columns["address"])
        where = pc.index_in(listed, value_set=keys)
        known = np.asarray(where.is_valid())
        # What was removed is not there, so it comes as if it were new.
        self.fresh = [
            offers[i]
            for i in np.flatnonzero(~known).tolist()
            if not self.bars.address(offers[i][1].address)
        ]
        self.matched = where.drop_null().to_numpy()
        lives = np.asarray(pc.equal(there["status"].take(where.drop_null()), "ok"))
        others = np.asarray(
            pc.invert(pc.is_in(there["source"].take(where.drop_null()), value_set=names))
        )
        same = lives.copy()
        for name in ("source", *_FACTS):
            new, old = columns[name].filter(pa.array(known)), there[name].take(where.drop_null())
            # Null beside null is the same here, and no fact holds a zero byte.
            same &= np.asarray(pc.equal(pc.fill_null(new, "\0"), pc.fill_null(old, "\0")))
        at = np.flatnonzero(known)
        same |= lives & others
        self.changed = {int(self.matched[i]): offers[int(at[i])][1:] for i in np.flatnonzero(~same)}
        lives_there = pc.equal(there["status"], "ok")
        mine = pc.and_(pc.is_in(there["source"], value_set=names), lives_there)
        self.others = bool(pc.any(pc.and_not(lives_there, mine)).as_py())
        if unread:
            mine = pc.and_not(
                mine, pc.is_in(there["source"], value_set=pa.array(sorted(unread), pa.string()))
            )
        if unsure:
            mine = pc.and_not(
                mine,
                pc.is_in(
                    _keys(there["identity_id"], there["source"]),
                    value_set=pa.array(sorted(unsure), pa.string()),
                ),
            )
        self.gone = np.flatnonzero(np.asarray(pc.and_not(mine, pc.is_in(keys, value_set=listed))))

    def pictured(self) -> set[str]:
        """The people who have an image."""
        ok = pc.equal(self.there["status"], "ok").to_numpy().copy()
        ok[self.matched], ok[self.gone] = True, False
        return {
            *self.there["identity_id"].filter(pa.array(ok)).unique().to_pylist(),
            *(who for who, _, _ in self.fresh),
        }

    def chunks(self, entries: Sequence[Entry]) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        """Number and rows of the chunks that are to be written: those with changes, then new
        ones.
        """
        touched = np.zeros(self.there.num_rows, bool)
        touched[self.gone] = touched[list(self.changed)] = True
        lost, start = set(self.gone.tolist()), 0
        for entry in entries:
            if touched[start : start + entry.rows].any():
                rows = self.there.slice(start, entry.rows).to_pylist()
                yield (
                    entry.chunk,
                    [self._row(start + rank, row, lost) for rank, row in enumerate(rows)],
                )
            start += entry.rows
        first = max((entry.chunk for entry in entries), default=-1) + 1
        for begin in range(0, len(self.fresh), CHUNK_ROWS):
            offers = enumerate(self.fresh[begin : begin + CHUNK_ROWS])
            yield (
                first + begin // CHUNK_ROWS,
                [self._new(*offered, rank) for rank, offered in offers],
            )

    def _row(self, number: int, row: dict[str, Any], lost: Set[int]) -> dict[str, Any]:
        if number in self.changed:
            offer, source = self.changed[number]
            return {**row, **_facts(offer), "source": source}
        if number in lost:
            return {
                **row,
                "status": "filtered",
                "reason": "gone",
                "detail": "the source no longer has it",
            }
        return row

    def _new(self, person_id: str, offer: Offer, source: str, rank: int) -> dict[str, Any]:
        ids = {
            "identity_id": person_id,
            "image_id": image_id(person_id, offer.address),
            "address": offer.address,
        }
        return {**ids, "source": source, "rank": rank, "inputs": _NO_INPUTS, **_facts(offer)}


def _facts(offer: Offer) -> dict[str, Any]:
    return {
        **{name: getattr(offer, name) for name in _FACTS},
        "status": "ok",
        "reason": None,
        "detail": None,
    }


def _keys(
    people: pa.Array | pa.ChunkedArray, addresses: pa.Array | pa.ChunkedArray
) -> pa.Array | pa.ChunkedArray:
    """What tells an image of a person from all others, as `image_id` does."""
    return pc.binary_join_element_wise(people, addresses, " ")


def _named(row: dict[str, Any], person: _Person) -> dict[str, Any]:
    aliases = sorted({*(row["aliases"] or []), *person.spellings} - {row["name"]})
    said = {scheme: own for _, part in person.parts for scheme, own in part.external_ids.items()}
    external = sorted({**dict(row["external_ids"] or []), **said}.items())
    return {**row, "aliases": aliases, "external_ids": external}


def _with_status(row: dict[str, Any], pictured: bool) -> dict[str, Any]:
    return {
        **row,
        "status": "ok" if pictured else "filtered",
        "reason": None if pictured else "no_candidates",
        "detail": None if pictured else "no source offers an image",
        "inputs": _NO_INPUTS,
    }


def _write(store: Store, table: str, bucket: int, chunk: int, rows: list[dict[str, Any]]) -> Entry:
    schema = TABLES[table]
    sealed = seal_table(store, schema, VERSION, bucket, chunk, schema.build(rows))
    return sealed.entry(schema, VERSION, bucket, chunk, basis=sealed.digest)
