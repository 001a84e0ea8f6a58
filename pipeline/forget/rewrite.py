"""Files and snapshots without the rows of somebody.

What a file is without them is a function of the file alone, and its name of what is in it: so
however often this is broken off and begun anew, it comes to the same. No file is rewritten under
its name.
"""

import hashlib
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from idcluster.root.parquet import (
    NOTHING,
    SLICE_ROWS,
    DamagedFile,
    Sealed,
    encode,
    open_parquet,
    seal_stream,
    seal_table,
)
from idcluster.root.snapshot import WHOLE, Entry, Snapshot
from idcluster.root.storage import Store
from pipeline.execution.reconcile import row_digests
from pipeline.forget.text_columns import CLOSED, NAMES, OF_PEOPLE, texts_in, with_each_text
from pipeline.forget.texts import Needles
from schemas import TABLES, TableSchema
from schemas.schema import is_text

_IDS = ("identity_id", "canonical_id", "image_id", "face_id")
EVERYWHERE = tuple(OF_PEOPLE)
"""Tables whose rows may name people of other buckets."""
_BY_CONTENT = ("identities", "candidates", "overrides")
"""Tables whose entries carry their digest as basis: they follow from nothing in the dataset."""


@dataclass(frozen=True)
class Doomed:
    """Whose rows go: people with all that is theirs, and images of others. `faces` are those in
    the images.
    """

    people: frozenset[str]
    images: frozenset[str]
    faces: frozenset[str]

    def rows(self, table: pa.Table) -> np.ndarray:
        """Which rows go: bool. Decided by the ids alone, whatever the table."""
        gone = np.zeros(table.num_rows, bool)
        for name in (*_IDS, "target"):
            if name in table.column_names:
                gone |= np.asarray(
                    pc.is_in(
                        table[name],
                        value_set=self._values[{"image_id": 1, "face_id": 2}.get(name, 0)],
                    )
                )
        return gone

    @cached_property
    def _values(self) -> tuple[pa.Array, ...]:
        return tuple(
            pa.array(sorted(ids), pa.string()) for ids in (self.people, self.images, self.faces)
        )

    def refers(self, faces: pa.ChunkedArray) -> np.ndarray:
        """Which of some face ids, or nulls, are of faces that go: bool."""
        return np.asarray(
            pc.fill_null(pc.is_in(faces, value_set=self._values[2]), False)
        ) & np.asarray(faces.is_valid())

    def in_name(self, path: str) -> bool:
        """Whether a file name has one of the ids in it, as those of shards have."""
        name = path.rsplit("/", 1)[-1]
        return any(
            part in self.people or part in self.images
            for part in name.replace("_", "-").replace(".", "-").split("-")
        )


def struck(
    table: str, rows: pa.Table, doomed: Doomed, needles: Needles | None = None
) -> tuple[pa.Table, np.ndarray]:
    """Rows of others without what they say of the doomed, and which rows are others now.

    Whoever was one with somebody who goes, near or akin to them, stands alone; the next run looks
    at all anew. Of the texts of rows about people `needles` are struck; images whose texts name
    the doomed are doomed themselves.
    """
    rows, named = (
        _unnamed(table, rows, needles.sure) if needles else (rows, np.zeros(rows.num_rows, bool))
    )
    rows, hit = _apart(table, rows, doomed)
    return rows, hit | named


def _unnamed(table: str, rows: pa.Table, needles: Needles) -> tuple[pa.Table, np.ndarray]:
    hit = np.zeros(rows.num_rows, bool)
    for name in OF_PEOPLE.get(table, ()):
        if name not in rows.column_names or rows[name].null_count == rows.num_rows:
            continue
        before = rows[name].to_pylist()
        after = [with_each_text(value, needles.strike) for value in before]
        changed = np.array([new != old for new, old in zip(after, before, strict=True)], bool)
        if changed.any():
            rows = rows.set_column(
                rows.column_names.index(name),
                rows.schema.field(name),
                pa.array(after, rows[name].type),
            )
            hit |= changed
    return rows, hit


def naming(column: pa.ChunkedArray | pa.Array, needles: Needles) -> set[int]:
    """The rows of a column with texts in which somebody is named for sure."""
    if not (needles.telling or needles.spellings):
        return set()
    found: set[int] = set()
    for rows, array in texts_in(column):
        # Longest word first: most texts do not even have that.
        rough = pc.match_substring_regex(array, needles.rough, ignore_case=True)
        some = np.flatnonzero(pc.fill_null(rough, False).to_numpy(zero_copy_only=False))
        said = array.take(pa.array(some)).to_pylist()
        found |= {
            int(row) for row, text in zip(rows[some], said, strict=True) if needles.mentions(text)
        }
    return found


def _apart(table: str, rows: pa.Table, doomed: Doomed) -> tuple[pa.Table, np.ndarray]:
    if table == "clusters" and "duplicate_of" in rows.column_names:
        hit = doomed.refers(rows["duplicate_of"])
        return (_blanked(rows, hit, "duplicate_of"), hit) if hit.any() else (rows, hit)
    if table != "matches":
        return rows, np.zeros(rows.num_rows, bool)
    before = rows.to_pylist()
    after = [_alone(row, doomed) for row in before]
    hit = np.array([new is not old for new, old in zip(after, before, strict=True)], bool)
    if not hit.any():
        return rows, hit
    made = pa.Table.from_pylist(after, schema=rows.schema)
    digests = row_digests(made, [name for name in made.column_names if name != "inputs"])
    inputs = [
        digest if changed else row["inputs"]
        for digest, changed, row in zip(digests, hit.tolist(), before, strict=True)
    ]
    return made.set_column(
        made.column_names.index("inputs"),
        rows.schema.field("inputs"),
        pa.array(inputs, pa.binary(8)),
    ), hit


def _blanked(rows: pa.Table, hit: np.ndarray, column: str) -> pa.Table:
    at = rows.column_names.index(column)
    nothing = pa.scalar(None, rows[column].type)
    return rows.set_column(
        at, rows.schema.field(column), pc.if_else(pa.array(hit), nothing, rows[column])
    )


def _alone(row: Mapping[str, Any], doomed: Doomed) -> Mapping[str, Any]:
    changed: dict[str, Any] = {}
    flags = list(row["flags"] or ())
    if row["nearest"] in doomed.people:
        changed |= {"nearest": None, "nearest_cosine": None}
        flags = [flag for flag in flags if flag not in ("near_person", "same_person")]
    if row["same_as"] in doomed.people:
        changed["same_as"] = row["identity_id"]
        flags = [flag for flag in flags if flag != "merged"]
    if row["kin"] in doomed.people:
        changed["kin"] = changed.get("same_as", row["same_as"])
    dropped = [face for face in row["dropped_faces"] or () if face not in doomed.faces]
    if len(dropped) < len(row["dropped_faces"] or ()):
        changed["dropped_faces"] = dropped
    if any(person in (row["detail"] or "") for person in doomed.people):
        changed["detail"] = None
    if not changed:
        return row
    return {**row, **changed, "flags": flags}


@dataclass
class _Thinned:
    """A file without the doomed. `starts`: (rows + 1,) how many rows are left before each;
    `changed`: the same of those that went or are others now. `table`: what is left, of files of
    many chunks; `known`: what a stretch of it would be as a file.
    """

    made: Sealed
    starts: np.ndarray
    changed: np.ndarray
    table: pa.Table | None
    known: dict[tuple[int, int], Sealed] = field(default_factory=dict)

    def moved(self, schema: TableSchema, entry: Entry) -> Entry:
        """The entry with its rows in the new file. Raises LookupError where the table is needed and
        was put away.
        """
        first, stop = entry.offset, entry.offset + entry.rows
        begin, rows = int(self.starts[first]), int(self.starts[stop] - self.starts[first])
        if not rows:
            return replace(
                entry,
                file="",
                rows=0,
                bytes=0,
                digest="",
                basis="",
                ok=0,
                offset=0,
                file_rows=0,
                file_bytes=0,
            )
        fresh = replace(entry, file=self.made.path)
        if entry.file_rows:
            fresh = replace(
                fresh, offset=begin, file_rows=self.made.rows, file_bytes=self.made.bytes
            )
        if self.changed[stop] == self.changed[first]:
            return fresh
        about = self._alone(schema, begin, rows) if entry.file_rows else self.made
        basis = about.digest if entry.table in _BY_CONTENT else ""
        return replace(
            fresh, rows=rows, bytes=about.bytes, digest=about.digest, ok=about.ok, basis=basis
        )

    def _alone(self, schema: TableSchema, begin: int, rows: int) -> Sealed:
        if (begin, rows) not in self.known:
            if self.table is None:
                raise LookupError(self.made.path)
            own = self.table.slice(begin, rows)
            data = encode(schema, own)
            ok = pc.sum(pc.equal(own["status"], "ok")).as_py() or 0
            self.known[begin, rows] = Sealed(
                "", rows, len(data), hashlib.sha256(data).hexdigest()[:32], ok
            )
        return self.known[begin, rows]


class Rewriter:
    """Makes files and snapshots without the doomed. `buckets`: where their rows are; what names
    people of other buckets is looked at everywhere.
    """

    def __init__(
        self, store: Store, doomed: Doomed, needles: Needles, buckets: frozenset[int]
    ) -> None:
        self.store, self.doomed, self.needles, self.buckets = store, doomed, needles, buckets
        self._thinned: dict[str, _Thinned | None] = {}
        self._derived: dict[str, bool] = {}

    def snapshot(self, snapshot: Snapshot) -> Snapshot | None:
        """The snapshot that shows the rest, its new files put; None where it shows nothing of the
        doomed.
        """
        entries = []
        for entry in snapshot.entries:
            moved = self._entry(entry)
            if moved is not None:
                entries.append(moved)
        notes = self.needles.strike_json(dict(snapshot.notes))
        if entries == list(snapshot.entries) and notes == dict(snapshot.notes):
            return None
        for found in self._thinned.values():
            if found is not None:
                found.table = None
        return Snapshot(snapshot.number, tuple(sorted(_without_empty(entries))), notes)

    def made(self) -> set[str]:
        """The new files that were put so far."""
        return {
            found.made.path
            for found in self._thinned.values()
            if found is not None and found.made.path
        }

    def _entry(self, entry: Entry) -> Entry | None:
        """What stands in the place of an entry: itself, one that is moved, or None where only a run
        can make it again.
        """
        schema = TABLES.get(entry.table)
        if not entry.file or entry.table == "removals" or self.is_elsewhere(entry):
            return entry
        if schema is None:
            return None if self.derived(entry.file) else entry
        if entry.file not in self._thinned:
            self._thinned[entry.file] = self._thin(schema, entry)
        found = self._thinned[entry.file]
        try:
            return entry if found is None else found.moved(schema, entry)
        except LookupError:  # another snapshot shows another stretch of the file
            del self._thinned[entry.file]
            return self._entry(entry)

    def is_elsewhere(self, entry: Entry) -> bool:
        """Whether an entry is of a bucket in which none of the doomed are, and names nobody of
        another one.
        """
        return (
            entry.bucket != WHOLE
            and entry.bucket not in self.buckets
            and entry.table not in EVERYWHERE
        )

    def derived(self, path: str) -> bool:
        """Whether a shard, what lies beside it, or a copy of other tables' columns holds anything
        of the doomed.
        """
        stem = path.removesuffix(".tar").removesuffix(".parquet")
        if stem not in self._derived:
            there = self.store.exists(f"{stem}.parquet")
            self._derived[stem] = self.doomed.in_name(path) or (
                self.holds(f"{stem}.parquet") or self.names_in(f"{stem}.parquet")
                if there
                else self.tar_holds(f"{stem}.tar")
            )
        return self._derived[stem]

    def holds(self, path: str) -> bool:
        """Whether a Parquet file has rows of the doomed; False for one that is gone, or damaged and
        of no use to anybody.
        """
        try:
            return self.store.patiently(lambda: self._holds(path))
        except (FileNotFoundError, pa.ArrowException):
            return False

    def says(self, path: str) -> bool:
        """Whether rows of others in a file of tables say anything of the doomed; as for `holds`."""
        schema = TABLES.get(path.split("/")[1])
        if schema is None or schema.name not in EVERYWHERE:
            return False
        try:
            with self.store.open(path) as file, pq.ParquetFile(file) as parquet:
                rows = parquet.read()
        except (FileNotFoundError, pa.ArrowException):
            return False
        return bool(struck(schema.name, rows, self.doomed, self.needles)[1].any())

    def tar_holds(self, path: str) -> bool:
        """Whether a tar has members of the doomed; they are named by person and image."""
        try:
            with self.store.open(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
                return any(self.doomed.in_name(member.name) for member in tar)
        except (FileNotFoundError, tarfile.TarError):
            return False

    def names_in(self, path: str) -> bool:
        """Whether a text of a Parquet file, in whatever column that may hold a name, names somebody
        of the doomed; False for a file that is gone or damaged.
        """
        needles = self.needles.sure
        if not (needles.telling or needles.spellings):
            return False

        def look() -> bool:
            with self.store.open(path) as file, pq.ParquetFile(file) as parquet:
                columns = [
                    field.name
                    for field in parquet.schema_arrow
                    if is_text(field.type) and field.name not in CLOSED | NAMES
                ]
                return any(
                    naming(parquet.read_row_group(number, [name])[name], needles)
                    for number in range(parquet.num_row_groups)
                    for name in columns
                )

        try:
            return self.store.patiently(look)
        except (FileNotFoundError, pa.ArrowException):
            return False

    def _holds(self, path: str) -> bool:
        with self.store.open(path) as file, pq.ParquetFile(file) as parquet:
            names = [name for name in (*_IDS, "target") if name in parquet.schema_arrow.names]
            if not names:
                return False
            return any(
                self.doomed.rows(parquet.read_row_group(n, names)).any()
                for n in range(parquet.num_row_groups)
            )

    def _thin(self, schema: TableSchema, entry: Entry) -> _Thinned | None:
        def attempt() -> _Thinned | None:
            with open_parquet(self.store, schema, entry.file) as file:
                return self._thin_open(schema, entry, file)

        try:
            return self.store.patiently(attempt)
        except FileNotFoundError as error:
            raise DamagedFile(
                f"{self.store.uri(entry.file)} is named by a snapshot but not there; `idcluster "
                "rollback` to one that is"
                " whole, or `idcluster gc --keep 1` to do without older ones, then again"
            ) from error
        except (pa.ArrowException, OSError) as error:
            if (
                not isinstance(error, pa.ArrowException)
                and "checksum" not in str(error)
                and "CRC" not in str(error)
            ):
                raise
            raise DamagedFile(
                f"{self.store.uri(entry.file)} cannot be read ({error}); bring it back from a "
                "copy, or delete it and run"
                " again, then remove anew"
            ) from error

    def _thin_open(
        self, schema: TableSchema, entry: Entry, file: pq.ParquetFile
    ) -> _Thinned | None:
        there = file.schema_arrow.names
        if set(there) < set(schema.names):  # an earlier version of the program wrote it
            schema = replace(
                schema, columns=tuple(column for column in schema.columns if column.name in there)
            )
        ids = [name for name in (*_IDS, "target") if name in there]
        groups = [file.read_row_group(n, ids) for n in range(file.num_row_groups)]
        gone = np.concatenate([np.zeros(0, bool), *(self.doomed.rows(group) for group in groups)])
        if schema.blobs:
            if not gone.any():
                return None
            made = seal_stream(
                self.store,
                schema,
                entry.version,
                entry.bucket,
                entry.chunk,
                _blocks(file, schema, ~gone),
            )
            return _Thinned(made, _starts(~gone), _starts(gone), None)
        groups = [file.read_row_group(n, list(schema.names)) for n in range(file.num_row_groups)]
        rows, others = struck(
            schema.name, pa.concat_tables([schema.empty(), *groups]), self.doomed, self.needles
        )
        changed = gone | others
        if not changed.any():
            return None
        starts = _starts(~gone)
        rows = rows.filter(pa.array(~gone))
        if schema.name == "candidates":
            rows = _ranked(
                rows, ~gone, np.concatenate([group["rank"].to_numpy() for group in groups])
            )
        if not rows.num_rows:
            made = NOTHING
        elif entry.file_rows:
            ends = starts[np.cumsum([0, *(group.num_rows for group in groups)])].tolist()
            left = (rows.slice(begin, end - begin) for begin, end in pairwise(ends) if end > begin)
            made = seal_stream(self.store, schema, entry.version, entry.bucket, WHOLE, left)
        else:
            made = seal_table(self.store, schema, entry.version, entry.bucket, entry.chunk, rows)
        return _Thinned(made, starts, _starts(changed), rows if entry.file_rows else None)


def _ranked(rows: pa.Table, kept: np.ndarray, ranks: np.ndarray) -> pa.Table:
    """Candidates with ranks without gaps again: slices are cut by them. A chunk begins where the
    rank is 0.
    """
    begins = np.flatnonzero((ranks == 0) | (np.arange(len(ranks)) == 0))
    chunk = np.searchsorted(begins, np.arange(len(ranks)), side="right") - 1
    before = _starts(kept)[:-1]
    fresh = (before - before[begins[chunk]])[kept]
    at = rows.column_names.index("rank")
    return rows.set_column(at, rows.schema.field("rank"), pa.array(fresh, pa.int32()))


def _starts(mask: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(mask)]).astype(np.int64)


def _blocks(file: pq.ParquetFile, schema: TableSchema, kept: np.ndarray) -> Iterator[pa.Table]:
    """The rows that stay, in the blocks in which images are sealed."""
    waiting = schema.empty()
    at = 0
    for number in range(file.num_row_groups):
        rows = file.metadata.row_group(number).num_rows
        mask = kept[at : at + rows]
        at += rows
        if mask.any():
            waiting = pa.concat_tables(
                [waiting, file.read_row_group(number, list(schema.names)).filter(pa.array(mask))]
            )
        while waiting.num_rows >= SLICE_ROWS:
            yield waiting.slice(0, SLICE_ROWS)
            waiting = waiting.slice(SLICE_ROWS)
    if waiting.num_rows:
        yield waiting


def _without_empty(entries: list[Entry]) -> Iterator[Entry]:
    """Entries without those of chunks and buckets that nobody is in any more."""
    candidates = {
        (e.bucket, e.chunk): e.rows
        for e in entries
        if e.table == "candidates" and e.current and e.live
    }
    people = {e.bucket: e.rows for e in entries if e.table == "identities" and e.current and e.live}
    for entry in entries:
        at = (entry.bucket, entry.chunk)
        of_nobody = people.get(entry.bucket, 1) == 0 and entry.bucket != WHOLE
        if not of_nobody and not (at in candidates and candidates[at] == 0):
            yield entry
