"""Decisions by hand: which faces are a person whatever any rule says, and which two names are one
person, or are not.

They are rows of `overrides`, one a face or person, bucket by bucket like all rows. No stage writes
them, so they outlive every re-run; stages that name the table as optional go by them at the next
run.
"""

import csv
import getpass
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from idcluster.root.lease import Lease
from idcluster.root.parquet import read_entries, seal_table
from idcluster.root.removals import check_finished
from idcluster.root.snapshot import WHOLE, Entry, Snapshot, load
from idcluster.root.storage import Store
from pipeline.execution.reconcile import row_digests
from schemas import TABLES
from schemas.errors import UserError

ACTIONS = ("keep", "reject", "merge", "apart", "clear")
VERSION = "00000002"
"""Of the table `overrides`; decisions belong to no version of any stage."""


class BadDecision(UserError, ValueError):
    """A decision that names nobody in the dataset, or is none; the message says which and what to
    do.
    """

    exit_code = 2


@dataclass(frozen=True)
class Decision:
    """`subject`: a face_id for keep and reject, an identity_id or name for merge and apart, either
    for clear. `target`: a person.
    """

    action: str
    subject: str
    target: str | None = None


def read_csv(path: Path) -> list[Decision]:
    """Decisions of a CSV file with the columns action, subject and, for merge and apart, target.
    Raises BadDecision.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadDecision(f"{path} cannot be read: {error}") from error
    if rows and not {"action", "subject"} <= rows[0].keys():
        there = ", ".join(name for name in rows[0] if name)  # cells beyond the heading have no name
        raise BadDecision(
            f"{path} needs the columns action and subject, and target for merge and apart; it "
            f"has {there or 'none'}"
        )
    cells = [
        {name: (row.get(name) or "").strip() for name in ("action", "subject", "target")}
        for row in rows
    ]
    return [Decision(cell["action"], cell["subject"], cell["target"] or None) for cell in cells]


def pair_of(action: str, text: str) -> Decision:
    """The decision about two people that `A=B` stands for. Raises BadDecision."""
    one, sign, other = (part.strip() for part in text.partition("="))
    if not (one and sign and other):
        raise BadDecision(
            f"{text!r} does not name two people: write them as A=B, by name or identity_id"
        )
    return Decision(action, one, other)


def correct(
    store: Store,
    decisions: Sequence[Decision],
    run: str,
    author: str | None = None,
    notice: Callable[[str], None] = lambda text: None,
) -> tuple[Snapshot, int]:
    """Write decisions down and publish them; the snapshot, and how many rows are others now.

    A later decision about a face or person replaces an earlier one. Takes the lease. Raises
    BadDecision (then nothing is written), LeaseHeld, RunError.
    """
    with Lease(store, run, notice) as lease:
        check_finished(store)
        snapshot = load(store)
        there: dict[str, dict[str, Any]] = {}
        homes: dict[str, int] = {}
        for entry in snapshot.shown("overrides"):
            for row in read_entries(store, "overrides", [entry]).to_pylist():
                there[row["face_id"]], homes[row["face_id"]] = row, entry.bucket
        before = {key: (row["action"], row["target"]) for key, row in there.items()}
        known = _Known(store, snapshot)
        when = datetime.now(UTC)
        for decision in decisions:
            _apply(there, decision, known, author or _user(), when)
        changed = {
            key
            for key in there.keys() | before.keys()
            if before.get(key)
            != ((there[key]["action"], there[key]["target"]) if key in there else None)
        }
        if not changed:
            return snapshot, 0
        notes = {"run": run, "published": when.isoformat(timespec="seconds")}
        entries = _write(store, there.values(), known, homes)
        return lease.publish(snapshot.with_entries(entries).with_notes(**notes)), len(changed)


class _Known:
    """Who and what is in the dataset."""

    def __init__(self, store: Store, snapshot: Snapshot) -> None:
        people = read_entries(
            store,
            "identities",
            snapshot.shown("identities"),
            ["identity_id", "name", "aliases", "bucket"],
        ).to_pylist()
        self.bucket = {row["identity_id"]: row["bucket"] for row in people}
        self.names: dict[str, set[str]] = defaultdict(set)
        for row in people:
            for name in (row["name"], *(row["aliases"] or ())):
                self.names[name.casefold()].add(row["identity_id"])
        self.faces = read_entries(
            store, "faces", snapshot.shown("faces"), ["identity_id", "face_id", "status"]
        )

    def person(self, said: str) -> str:
        if said in self.bucket:
            return said
        found = self.names.get(said.casefold(), set())
        if len(found) == 1:
            return next(iter(found))
        if found:
            raise BadDecision(
                f"{said!r} are {len(found)} people: {', '.join(sorted(found))}; say which by its "
                "identity_id"
            )
        raise BadDecision(
            f"{said!r} is neither an identity_id nor a name here; the table identities has both"
        )

    def owner(self, face: str) -> str | None:
        rows = self.faces.filter(
            pc.and_(pc.equal(self.faces["face_id"], face), pc.equal(self.faces["status"], "ok"))
        )
        return str(rows["identity_id"][0].as_py()) if rows.num_rows else None


def _apply(
    rows: dict[str, dict[str, Any]], decision: Decision, known: _Known, author: str, when: datetime
) -> None:
    action, subject = decision.action, decision.subject
    if action not in ACTIONS:
        raise BadDecision(f"{action!r} is no decision; there are {', '.join(ACTIONS)}")
    about = {"author": author, "decided_at": when, "status": "ok", "target": None}
    if action == "clear":
        key = subject if subject in rows else known.person(subject)
        rows.pop(key, None)
    elif action in ("keep", "reject"):
        owner = known.owner(subject)
        if owner is None:
            raise BadDecision(
                f"{subject!r} is no face_id of this dataset; `idcluster inspect ROOT PERSON` "
                "lists a person's faces"
            )
        rows[subject] = {**about, "identity_id": owner, "face_id": subject, "action": action}
    else:
        if decision.target is None:
            raise BadDecision(f"{action} needs two people: {subject!r} and which other?")
        person, target = known.person(subject), known.person(decision.target)
        if person == target:
            raise BadDecision(
                f"{subject!r} and {decision.target!r} are one person already: {person}"
            )
        rows[person] = {
            **about,
            "identity_id": person,
            "face_id": person,
            "action": action,
            "target": target,
        }


def _write(
    store: Store, rows: Iterable[dict[str, Any]], known: _Known, homes: Mapping[str, int]
) -> list[Entry]:
    """Entries of all buckets with decisions. `homes`: the buckets that they lay in; decisions about
    people whom an older snapshot that is shown again does not know stay there.
    """
    schema = TABLES["overrides"]
    by_bucket: dict[int, list[dict[str, Any]]] = {bucket: [] for bucket in homes.values()}
    for row in rows:
        bucket = known.bucket.get(row["identity_id"], homes.get(row["face_id"]))
        if bucket is not None:
            by_bucket.setdefault(bucket, []).append(row)
    entries = []
    for bucket, mine in sorted(by_bucket.items()):
        table = schema.build_without(
            "inputs",
            [
                {name: value for name, value in row.items() if name != "inputs"}
                for row in sorted(mine, key=lambda row: row["face_id"])
            ],
        )
        inputs = pa.array(row_digests(table, ["face_id", "action", "target"]), pa.binary(8))
        full = table.append_column("inputs", inputs).select(schema.names).cast(schema.arrow)
        sealed = seal_table(store, schema, VERSION, bucket, WHOLE, full)
        entries.append(sealed.entry(schema, VERSION, bucket, WHOLE, sealed.digest))
    return entries


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
