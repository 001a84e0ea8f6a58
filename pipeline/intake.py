"""Intake: from what a source lists to rows of `identities` and `candidates`.

A person gets a bucket when first seen, a picture a chunk and a rank; both stay. New pictures open new chunks, so what
is already there is never moved. A picture that the source no longer has stays as a row that says so.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pipeline.files import CHUNK_ROWS, read_entries, seal_table
from pipeline.snapshot import WHOLE, Entry, Snapshot
from pipeline.storage import Store
from schemas import TABLES, identity_id, image_id
from stages.crawl.listing import Listed, Source

BUCKET_ROWS = 50_000
"""Candidates after which a bucket takes no new people."""

VERSION = hashlib.sha256(f"intake 1 {TABLES['identities'].version} {TABLES['candidates'].version}".encode()).hexdigest()[:8]

_NO_INPUTS = bytes(8)


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


def _by_identity(listed: Iterable[Listed]) -> dict[str, Listed]:
    """People by id, the first spelling first; folders that differ only in case are one person."""
    people: dict[str, Listed] = {}
    for person in listed:
        person_id = identity_id(person.name, person.given)
        if person_id in people:
            first = people[person_id]
            offers = [*first.offers, *person.offers]
            people[person_id] = Listed(first.name, offers, first.given, {**first.external_ids, **person.external_ids})
        else:
            people[person_id] = person
    return people


def _spellings(listed: Iterable[Listed]) -> dict[str, set[str]]:
    names: dict[str, set[str]] = defaultdict(set)
    for person in listed:
        names[identity_id(person.name, person.given)].add(person.name)
    return names


def take_in(store: Store, snapshot: Snapshot, source: Source, write: bool = True) -> Intake:
    """List `source` and write what is new or changed. The caller publishes the entries.

    With `write=False` nothing is written and there are no entries, only counts. Raises SourceError.
    """
    listed, remarks = source.people()
    people = _by_identity(listed)
    spellings = _spellings(listed)

    known = {row["identity_id"]: row for row in read_entries(store, "identities", snapshot.shown("identities")).to_pylist()}
    chunks: dict[tuple[int, int], list[dict[str, Any]]] = {}
    place: dict[str, tuple[int, int, int]] = {}
    filled: dict[int, int] = defaultdict(int)
    for entry in snapshot.shown("candidates"):
        rows = read_entries(store, "candidates", [entry]).to_pylist()
        chunks[entry.bucket, entry.chunk] = rows
        filled[entry.bucket] += len(rows)
        for number, row in enumerate(rows):
            place[row["image_id"]] = (entry.bucket, entry.chunk, number)

    before = dict(known)
    touched_chunks: set[tuple[int, int]] = set()
    fresh: dict[int, list[dict[str, Any]]] = defaultdict(list)
    seen: set[str] = set()
    offered = new = changed = 0
    bucket = max((row["bucket"] for row in known.values()), default=0)

    for person_id, person in sorted(people.items(), key=lambda item: (item[1].name.casefold(), item[0])):
        row = known.get(person_id)
        if row is None and filled[bucket] >= BUCKET_ROWS:
            bucket += 1
        row = row or {"identity_id": person_id, "name": person.name, "aliases": [], "external_ids": [], "bucket": bucket}
        updated = known[person_id] = _named(row, person, spellings[person_id])
        for offer in person.offers:
            picture = image_id(person_id, offer.address)
            if picture in seen:
                continue  # the source lists it twice for the person
            seen.add(picture)
            offered += 1
            facts = {"page": offer.page, "licence": offer.licence, "author": offer.author, "fingerprint": offer.fingerprint}
            facts |= {"status": "ok", "reason": None, "detail": None}
            if picture in place:
                where = place[picture]
                old = chunks[where[:2]][where[2]]
                if any(old[name] != value for name, value in facts.items()):
                    old.update(facts)
                    touched_chunks.add(where[:2])
                    changed += 1
                continue
            new += 1
            filled[updated["bucket"]] += 1
            ids = {"identity_id": person_id, "image_id": picture, "address": offer.address, "source": source.name}
            fresh[updated["bucket"]].append({**ids, **facts, "inputs": _NO_INPUTS})

    gone = 0
    for scope, rows in chunks.items():
        for row in rows:
            if row["source"] == source.name and row["image_id"] not in seen and row["status"] == "ok":
                row.update(status="filtered", reason="gone", detail="the source no longer has it")
                touched_chunks.add(scope)
                gone += 1

    for number, rows in fresh.items():
        first = max((chunk for b, chunk in chunks if b == number), default=-1) + 1
        for start in range(0, len(rows), CHUNK_ROWS):
            chunk = (number, first + start // CHUNK_ROWS)
            chunks[chunk] = [{**row, "rank": rank} for rank, row in enumerate(rows[start : start + CHUNK_ROWS])]
            touched_chunks.add(chunk)

    # Whoever has a picture in any source is somebody; without one the row says why nothing follows.
    pictured = {row["identity_id"] for rows in chunks.values() for row in rows if row["status"] == "ok"}
    known = {person_id: _with_status(row, person_id in pictured) for person_id, row in known.items()}
    touched_people = {row["bucket"] for person_id, row in known.items() if row != before.get(person_id)}

    if not write:
        return Intake([], len(people), offered, new, changed, gone, remarks)
    entries = []
    for number in sorted(touched_people):
        members = [row for row in known.values() if row["bucket"] == number]
        entries.append(_write(store, "identities", number, WHOLE, sorted(members, key=lambda row: str(row["identity_id"]))))
    entries += [_write(store, "candidates", number, chunk, chunks[number, chunk]) for number, chunk in sorted(touched_chunks)]
    return Intake(entries, len(people), offered, new, changed, gone, remarks)


def _named(row: dict[str, Any], person: Listed, spellings: set[str]) -> dict[str, Any]:
    aliases = sorted({*(row["aliases"] or []), *spellings} - {row["name"]})
    external = sorted({**dict(row["external_ids"] or []), **person.external_ids}.items())
    return {**row, "aliases": aliases, "external_ids": external}


def _with_status(row: dict[str, Any], pictured: bool) -> dict[str, Any]:
    return {
        **row,
        "status": "ok" if pictured else "filtered",
        "reason": None if pictured else "no_candidates",
        "detail": None if pictured else "no source offers a picture",
        "inputs": _NO_INPUTS,
    }


def _write(store: Store, table: str, bucket: int, chunk: int, rows: list[dict[str, Any]]) -> Entry:
    schema = TABLES[table]
    sealed = seal_table(store, schema, VERSION, bucket, chunk, schema.build(rows))
    return sealed.entry(schema, VERSION, bucket, chunk, basis=sealed.digest)
