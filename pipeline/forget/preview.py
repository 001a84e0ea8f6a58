"""What an erasure would take away, for a user to look at before anything is done."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from idcluster.root import removals
from idcluster.root.dataset_root import new_run_id
from idcluster.root.parquet import DamagedFile
from idcluster.root.removals import FaceBar, packed, telling, words
from idcluster.root.snapshot import Entry, Snapshot, genuine, load
from idcluster.root.spellings import spellings
from idcluster.root.storage import Store
from pipeline.forget.find import find
from pipeline.forget.other_files import Sweep
from pipeline.forget.rewrite import Doomed, Rewriter
from pipeline.forget.wish import Found, Wish
from pipeline.shards.writing import SHARD_TABLES, shard_version
from schemas import TABLES
from stages.shard.params import ShardParams

VERSION = "00000002"
"""Of the table `removals`, which follows from no stage."""


_SAMPLES_AT_ONCE = 65_536


Say = Callable[[str], None]


def silent(text: str) -> None:
    """Says nothing."""


@dataclass(frozen=True)
class PreparedErasure:
    """What would go. `rows`: by table, of what is shown now; `shards`: by profile, how many would
    be written anew or leave; `files`: other files and what becomes of them; `lean`: people who stay
    and lose images.
    """

    found: Found
    journal: dict[str, Any]
    rows: Counter[str]
    shards: Counter[str]
    snapshots: list[int]
    files: list[tuple[str, str]]
    lean: int
    number: int
    warnings: list[str]


def prepare(store: Store, wish: Wish, say: Say = silent) -> PreparedErasure:
    """Find everything that `wish` names. Reads alone. Raises RunError for what is not there."""
    found = find(store, wish, say)
    doomed = Doomed(frozenset(found.people), frozenset(found.images), frozenset(found.faces))
    needles = found.needles()
    rewriter = _Looking(store, doomed, needles, frozenset(found.buckets))
    newest = load(store)
    rows, lean = _rows(store, newest, rewriter)
    touched = [
        entry
        for entry in newest.entries
        if entry.table in SHARD_TABLES and rewriter.derived(entry.file)
    ]
    shown = sorted({profile_of(entry.file) for entry in touched if entry.current})
    shards = Counter(
        profile_of(entry.file) for entry in touched if entry.current and entry.table == "shards"
    )
    snapshots, named = [], set()
    for number in genuine(store, newest):
        snapshot = newest if number == newest.number else load(store, number, newest)
        named |= set(snapshot.files())
        if rewriter.shows(snapshot):
            snapshots.append(number)
    sweep = Sweep(store, rewriter, found.sha256s, named)
    # Indexes and cards of shards are put anew with them.
    changes = (
        change
        for change in sweep.changes()
        if change.data is None or not change.path.startswith("shards/")
    )
    files = [(change.path, change.what) for change in changes]
    when = datetime.now(UTC)
    journal = {
        "format": removals.FORMAT,
        "receipt": f"{when:%Y%m%dT%H%M%S}-{new_run_id()[-4:]}",
        "removed_at": when.isoformat(timespec="seconds"),
        "asked": wish.counts(),
        "people": sorted(found.people),
        "images": sorted(found.images),
        "faces": sorted(found.faces),
        "buckets": sorted(found.buckets),
        "sha256s": sorted(found.sha256s),
        "needles": needles.as_json(),
        "barred": _barred(found),
        "face_bars": _face_bars(found) if wish.bar_face else [],
        "replan": [profile for profile in shown if is_up_to_date(newest, profile)],
        "samples": _samples(store, rewriter, named),
        "removed": {
            "people": len(found.people),
            "pictures": len(found.images),
            "of_others": len(found.others),
            "rows": dict(rows),
            "shards": dict(shards),
            "snapshots": len(snapshots),
            "files": len(files),
        },
    }
    return PreparedErasure(
        found, journal, rows, shards, snapshots, files, lean, newest.number, _warnings(store)
    )


class _Looking(Rewriter):
    """A rewriter that only looks: which rows of which files would go."""

    def shows(self, snapshot: Snapshot) -> bool:
        """Whether a snapshot names anything of the doomed."""
        if self.needles.strike_json(dict(snapshot.notes)) != dict(snapshot.notes):
            return True
        return any(self.holds_entry(entry) for entry in snapshot.entries)

    def holds_entry(self, entry: Entry) -> bool:
        return (
            bool(entry.file)
            and entry.table != "removals"
            and not self.is_elsewhere(entry)
            and self.derived(entry.file)
        )


def _rows(store: Store, newest: Snapshot, rewriter: Rewriter) -> tuple[Counter[str], int]:
    """Rows that go, by table, of what is shown; and how many people who stay lose images."""
    rows: Counter[str] = Counter()
    losing: set[str] = set()
    inside: dict[str, list[Entry]] = {}
    for entry in newest.entries:
        if (
            entry.current
            and entry.live
            and entry.file
            and entry.table in TABLES
            and entry.bucket in rewriter.buckets
        ):
            inside.setdefault(entry.file, []).append(entry)
    for path, entries in inside.items():
        try:
            with store.open(path) as file, pq.ParquetFile(file) as parquet:
                names = [
                    name
                    for name in ("identity_id", "image_id", "face_id", "target")
                    if name in parquet.schema_arrow.names
                ]
                table = parquet.read(names)
        except (FileNotFoundError, pa.ArrowException) as error:
            raise DamagedFile(
                f"{store.uri(path)} cannot be read ({error}); bring it back from a copy, or go "
                "back to a snapshot that is whole by"
                " `idcluster rollback`, then again"
            ) from error
        gone = rewriter.doomed.rows(table)
        shown = np.zeros(len(gone), bool)
        for entry in entries:
            shown[entry.offset : entry.offset + entry.rows] = True
        if (gone & shown).any():
            rows[entries[0].table] += int((gone & shown).sum())
            losing |= set(table["identity_id"].filter(pa.array(gone & shown)).to_pylist())
    return rows, len(losing - rewriter.doomed.people)


def _barred(found: Found) -> dict[str, list[Any]]:
    """What must not come back, in clear, by kind: hashed once the root has a key. Vectors as
    hexadecimal bytes.
    """
    return {
        "identity": sorted(found.people),
        "name": sorted({words(name) for name in found.names - found.shared_names}),
        "spelling": sorted(
            {key for name in found.names - found.shared_names for key in spellings(name)}
            - found.shared_spellings
        ),
        "external_id": sorted(found.external_ids),
        "address": sorted(found.addresses),
        "image": sorted(found.images),
        "sha256": sorted(found.sha256s),
        "phash": sorted(str(value) for value in found.phashes if telling(value)),
        removals.LOOK: [packed(np.concatenate([looks[:, 0] for looks in found.looks.values()]))]
        if found.looks
        else [],
        "vector": sorted(
            {np.ascontiguousarray(vector, np.float32).tobytes().hex() for vector in found.vectors}
        ),
    }


def _face_bars(found: Found) -> list[dict[str, Any]]:
    made = []
    for like in found.likenesses:
        limit = found.limits.get(like.recogniser, found.limits.get(""))
        if limit is not None:
            bar = FaceBar(like.recogniser, limit, like.vector)
            made.append(
                {
                    "recogniser": bar.recogniser,
                    "threshold": bar.threshold,
                    "vector": list(bar.vector),
                }
            )
    return made


def is_up_to_date(newest: Snapshot, profile: str) -> bool:
    """Whether the shards of a profile show exactly what the tables do, by this program: then only
    touched ones are to be written.
    """
    from pipeline.shards.writing import shard_basis

    params = params_of(newest, profile)
    if params is None or shard_version(params)[0] != newest.notes[f"index/{profile}"]["version"]:
        return False
    return bool(newest.notes.get(f"shards/{profile}") == shard_basis(newest, params))


def params_of(snapshot: Snapshot, profile: str) -> ShardParams | None:
    """The parameters that the shards of a profile were last made with."""
    try:
        return ShardParams.model_validate(
            snapshot.notes[f"index/{profile}"]["description"]["params"]
        )
    except (KeyError, TypeError, ValueError):
        return None


def profile_of(path: str) -> str:
    return path.split("/")[1]


def _samples(store: Store, rewriter: Rewriter, named: Iterable[str]) -> dict[str, list[list[str]]]:
    """By profile, the samples that leave, as the feed names them."""
    found: dict[str, set[tuple[str, str]]] = {}
    for path in sorted(
        {
            path
            for path in (*named, *store.list("shards"))
            if path.startswith("shards/") and path.endswith(".parquet")
        }
    ):
        if not rewriter.derived(path):
            continue
        try:
            with store.open(path) as file, pq.ParquetFile(file) as parquet:
                if not {"key", "sha256", "shard"} <= set(parquet.schema_arrow.names):
                    continue
                for batch in parquet.iter_batches(
                    _SAMPLES_AT_ONCE,
                    columns=["key", "sha256", "canonical_id", "identity_id", "image_id"],
                ):
                    table = pa.Table.from_batches([batch])
                    for row in table.filter(pa.array(rewriter.doomed.rows(table))).to_pylist():
                        found.setdefault(profile_of(path), set()).add(
                            (feed_hash(row["key"]), feed_hash(row["sha256"]))
                        )
        except (FileNotFoundError, pa.ArrowException):
            continue
    return {
        profile: [list(pair) for pair in sorted(pairs)] for profile, pairs in sorted(found.items())
    }


def feed_hash(text: str) -> str:
    """How the feed names a sample, by its key, and its image, by the sha256 in its metadata: who
    has the sample can compute it; who has not cannot look the image up by it.
    """
    return hashlib.sha256(f"idcluster removal\n{text}".encode()).hexdigest()


def _warnings(store: Store) -> list[str]:
    warnings = [
        "backups and copies of this root and of its shards are out of reach, so are the source "
        "and temporary folders (idcluster-*) of"
        " machines on which a run was killed; shards/<profile>/removals.json is for those who "
        "have copies of shards"
    ]
    kept = kept_versions(store)
    return [kept, *warnings] if kept else warnings


def kept_versions(store: Store) -> str | None:
    """What to say of a store that keeps what is deleted or replaced; None for one that does not."""
    try:
        state = store.versioning()
    except Exception as error:  # noqa: BLE001 - clients have no common class of errors, and not every store knows the question
        return (
            f"whether {store.root} keeps old versions of objects could not be asked "
            f"({type(error).__name__}): look yourself"
        )
    if state is None:
        return None
    return (
        f"the bucket of {store.root} keeps old versions of objects (versioning is "
        f"{state.lower()}): what is deleted here stays there until"
        " those are deleted too, by a lifecycle rule for noncurrent versions or by hand"
    )
