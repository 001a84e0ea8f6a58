"""Which kept faces of a snapshot become samples of a profile, in which split and shard, and which
are withheld and why.

Every kept face is either in `chosen` or in `withheld`: the rules are applied one after the other,
and the first that a face misses is its reason.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeVar

import duckdb
import numpy as np
import pyarrow as pa

from idcluster.catalogue.connection import connect
from idcluster.root.snapshot import Snapshot
from idcluster.root.storage import Store
from pipeline.shards.scratch import ShardError, scratch
from pipeline.shards.spill import Spill, in_order
from pipeline.shards.split_lists import STATED, BadList, meant_split
from schemas import TABLES
from schemas.samples import WITHHELD
from stages.shard.cut import cut, parts
from stages.shard.params import SOURCES, TABLES_OF, ShardParams
from stages.shard.splits import NOWHERE, SPLITS, SURPLUS, Assigned, Person, assign, roles
from stages.shard.webdataset import sample_key

OVERHEAD = 4096  # bytes a sample, about: tar headers, padding and the .json member
_SAMPLES_AT_ONCE = (
    100_000  # whose metadata is in memory: a quarter of a gigabyte, as much again with vectors
)
_ORDER = ("canonical_id", "image_id")
_Key = TypeVar("_Key", str, int)


BLOBS = tuple(
    table
    for table, schema in TABLES.items()
    if any(column.blob for column in schema.members.values())
)
"""Tables of faces whose images travel with a sample, where a profile includes them."""
CARRIED = tuple(
    table
    for table, schema in TABLES.items()
    if schema.parent == "faces" and (schema.samples or table in BLOBS)
)
"""Tables of faces of which samples carry something."""


@dataclass(frozen=True)
class Rows:
    """The rows of one shard: `rows` have the columns of METADATA and what a job needs to find the
    bytes.
    """

    split: str
    part: int
    rows: Sequence[Mapping[str, Any]]


class SampleSelection:
    """What a snapshot has for a profile. Use as a context: it holds a connection."""

    def __init__(
        self, store: Store, snapshot: Snapshot, params: ShardParams, lists: Mapping[str, str]
    ) -> None:
        """`lists`: identity_id to split, as `stages.shard.splits.assign` takes it."""
        self._params, self._snapshot, self._store = params, snapshot, store
        self._connection = connect(store, snapshot)
        self._connection.execute(_judged(params), list(_patterns(params)))
        self.assigned = self._assign(lists)

    def __enter__(self) -> "SampleSelection":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def _assign(self, lists: Mapping[str, str]) -> Assigned:
        """Put people into splits; makes `chosen`."""
        order = {split: place for place, split in enumerate((*SPLITS[::-1], NOWHERE))}
        if self._params.split_source:
            stated: dict[str, str] = {}
            for who, split in self._connection.execute(_STATED).fetchall():
                meant = meant_split(split)
                if meant is None:
                    raise BadList(
                        f"the source states split {split!r}; split_source knows "
                        f"{', '.join(STATED)}. Name a split_list instead"
                    )
                stated[who] = min(meant, stated.get(who, meant), key=order.__getitem__)
            lists = {**stated, **lists}
        people = []
        for canonical, kin, pictures, names in self._connection.execute(_PEOPLE).fetchall():
            listed = min(
                (lists[name] for name in {*names, canonical} if name in lists),
                key=order.__getitem__,
                default=None,
            )
            people.append(Person(canonical, kin, pictures, listed))
        found = assign(people, self._connection.execute(_SHARING).fetchall(), self._params)
        self._register(
            "assigned", {"canonical_id": list(found.split), "split": list(found.split.values())}
        )
        self._register(
            "barred", {"canonical_id": list(found.reason), "reason": list(found.reason.values())}
        )
        benchmark = [person for person, split in found.split.items() if split == SPLITS[2]]
        images: dict[str, list[str]] = {}
        for canonical, image in self._connection.execute(_IMAGES_OF, [benchmark]).fetchall():
            images.setdefault(canonical, []).append(image)
        drawn = [
            (image, *role)
            for mine in images.values()
            for image, role in roles(mine, self._params).items()
        ]
        self._register(
            "roles",
            {
                "image_id": [image for image, _, _ in drawn],
                "role": [role for _, role, _ in drawn],
                "role_number": [number for _, _, number in drawn],
            },
        )
        self._connection.execute(_CHOSEN)
        return found

    def _register(self, name: str, columns: Mapping[str, list[Any]]) -> None:
        types = {"role_number": pa.int32()}
        table = pa.table(
            {key: pa.array(values, types.get(key, pa.string())) for key, values in columns.items()}
        )
        self._connection.register("given", table)
        self._connection.execute(f"CREATE TEMP TABLE {name} AS FROM given")
        self._connection.unregister("given")

    def withheld(self) -> pa.Table:
        """Rows of WITHHELD, by canonical_id and face_id."""
        found: pa.Table = self._connection.sql(
            _WITHHELD, params=[SURPLUS, self._params.profile]
        ).to_arrow_table()
        return found.select(WITHHELD.names).cast(WITHHELD.arrow)

    def shards(self) -> Iterator[Rows]:
        """The rows of every shard; split by split the shards come in order."""
        people = self._connection.execute(_SIZES, [OVERHEAD]).fetchall()
        shard_of: dict[str, tuple[str, int]] = {}
        for split in SPLITS:
            within = [
                (person, size) for person, _, size in people if self.assigned.split[person] == split
            ]
            for number, shard in enumerate(cut(within, self._params.target)):
                shard_of.update((within[index][0], (split, number)) for index in shard)
        open_rows: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
        open_number: dict[str, int] = {}
        for person, rows in groupby(self._rows(people), key=lambda row: str(row["canonical_id"])):
            split, number = shard_of[person]
            if open_number.get(split, number) != number:
                yield from self._numbered(split, open_rows[split])
                open_rows[split] = []
            open_number[split] = number
            open_rows[split] += rows
        for split in SPLITS:
            yield from self._numbered(split, open_rows[split])

    def _numbered(self, split: str, rows: list[dict[str, Any]]) -> Iterator[Rows]:
        """One shard, or the parts of a person who is larger than a shard may be."""
        sizes = [row["size"] + OVERHEAD for row in rows]
        alone = bool(rows) and rows[0]["canonical_id"] == rows[-1]["canonical_id"]
        if alone and sum(sizes) > 2 * self._params.target:
            for number, part in enumerate(parts(sizes, self._params.target)):
                yield Rows(split, number, rows[part.start : part.stop])
        elif rows:
            yield Rows(split, 0, rows)

    def _rows(self, people: Sequence[tuple[str, int, int]]) -> Iterator[dict[str, Any]]:
        """The samples of all people, by canonical_id and image_id."""
        included = {table for table, _ in (SOURCES[name] for name in self._params.include)} - {
            "embeddings"
        }
        self._versions = {
            table: {e.file: e.version for e in self._snapshot.shown(table)} for table in included
        }
        for table in self._tables(people):
            for batch in table.to_batches(max_chunksize=10_000):
                yield from map(self._finished, batch.to_pylist())

    def _tables(self, people: Sequence[tuple[str, int, int]]) -> Iterator[pa.Table]:
        """The same as tables that fit into memory.

        The order is that of people, whose rows are in whatever bucket. So buckets are read one
        group after the other, each file once, and what there is of each stretch of people is put
        aside until all are read.
        """
        counts: list[tuple[int, int]] = self._connection.execute(_BUCKETS).fetchall()
        buckets = _stretches(counts)
        if len(buckets) < 2:
            yield in_order(self._joined(self._connection, self._snapshot), _ORDER)
            return
        wanted = sum(count for _, count, _ in people)
        with scratch("what samples consist of") as folder:
            spill = Spill(
                folder,
                _ORDER,
                [last for _, last in _stretches([(person, count) for person, count, _ in people])],
            )
            try:
                for first, last in buckets:
                    rows = self._joined_alone(first, last)
                    wanted -= rows.num_rows
                    spill.add(rows)
                if wanted:
                    raise ShardError(
                        f"{wanted} samples are not in the bucket that identities has for their "
                        "person; `idcluster status`"
                    )
                yield from spill.tables()
            finally:
                spill.close()

    def _joined_alone(self, first: int, last: int) -> pa.Table:
        """`_joined` for some buckets: a catalogue of their files alone builds no tables of
        everybody's rows.
        """
        some = Snapshot(
            self._snapshot.number,
            tuple(e for e in self._snapshot.entries if first <= e.bucket <= last),
        )
        chosen = self._connection.sql(
            "FROM chosen WHERE bucket BETWEEN ? AND ?", params=[first, last]
        ).to_arrow_table()
        connection = connect(self._store, some)
        try:
            connection.register("chosen", chosen)
            return self._joined(connection, some)
        finally:
            connection.close()

    def _joined(self, connection: duckdb.DuckDBPyConnection, snapshot: Snapshot) -> pa.Table:
        """`chosen` with all that samples carry, in any order."""
        for table in BLOBS:
            _create_with_names(
                connection,
                f"{table}_places",
                table,
                [e.file for e in snapshot.shown(table) if table in self._versions],
            )
        _create_with_names(
            connection, "images_places", "images", [e.file for e in snapshot.shown("images")]
        )
        sql = _rows("arcface" in self._params.include)
        found: pa.Table = connection.sql(sql).to_arrow_table()
        return found

    def _finished(self, row: dict[str, Any]) -> dict[str, Any]:
        row["key"] = sample_key(row["identity_id"], row["image_id"])
        for name in ("image_file", *(f"{table}_file" for table in BLOBS)):
            row[name] = row[name] and row[name].removeprefix("dataset:///")
        row["basis"] = self._basis(row)
        if row["vector"] is None:
            row["recogniser"] = None
        return row

    def _basis(self, row: Mapping[str, Any]) -> str:
        """What the conditions of a sample follow from."""
        found = [
            f"{self._versions[table][row[f'{table}_file']]}:{row[f'{table}_inputs']}"
            if row[f"{table}_file"]
            else ""
            for table in sorted(self._versions)
        ]
        if row["vector"] is not None:
            found.append(
                hashlib.blake2b(
                    np.asarray(row["vector"], np.float32).tobytes(), digest_size=8
                ).hexdigest()
            )
        return " ".join(found)


# The rules, in their order


def _judged(params: ShardParams) -> str:
    rules = [
        ("same_person", "coalesce(m.status, 'ok') <> 'ok'"),
        ("shared_picture", "coalesce(list_contains(m.dropped_faces, c.face_id), false)"),
    ]
    if params.withhold_flags:
        flags = "[" + ", ".join(f"'{flag}'" for flag in params.withhold_flags) + "]"
        rules.append(
            (
                "flagged",
                f"list_has_any(list_concat(coalesce(w.flags, []), coalesce(m.flags, [])), {flags})",
            )
        )
    if params.licences is not None:
        allowed = " OR ".join(["lower(d.licence) GLOB ?"] * len(params.licences)) or "false"
        rules.append(("licence", f"NOT coalesce({allowed}, false)"))
    if params.min_side:
        rules.append(("small_picture", f"least(i.width, i.height) < {params.min_side:d}"))
    if params.min_face_side:
        rules.append(("small_face", f"coalesce(f.side, 0) < {params.min_face_side!r}"))
    if params.max_nsfw is not None:
        rules.append(("nsfw", f"coalesce(s.nsfw, 2) > {params.max_nsfw!r}"))
    if params.min_age is not None:
        rules.append(("minor", f"coalesce(s.age, -1) < {params.min_age!r}"))
    joins = [
        f"LEFT JOIN {table} ON {table}.face_id = c.face_id"
        for table in sorted({TABLES_OF[need] for need in params.need})
    ]
    rules += [
        (f"no_{need}", f"coalesce({TABLES_OF[need]}.status, 'none') <> 'ok'")
        for need in params.need
    ]
    if params.withhold_flags:
        joins.append("LEFT JOIN people w ON w.identity_id = c.identity_id")
    if params.max_nsfw is not None or params.min_age is not None:
        joins.append("LEFT JOIN screenings s ON s.face_id = c.face_id")
    cases = " ".join(f"WHEN {rule} THEN '{reason}'" for reason, rule in rules)
    return _JUDGED.format(cases=cases, joins=" ".join(joins), min_pictures=params.min_pictures)


def _patterns(params: ShardParams) -> Iterator[str]:
    for pattern in params.licences or ():
        yield pattern.lower()


_JUDGED = """
CREATE TEMP TABLE judged AS
WITH kept AS (
    SELECT coalesce(m.same_as, c.identity_id) AS canonical_id, coalesce(m.kin, m.same_as,
        c.identity_id) AS kin,
        c.identity_id, c.image_id, c.face_id, c.similarity, i.sha256, i.size, d.licence, n.bucket,
        CASE {cases} END AS reason
    FROM clusters c
    JOIN faces f ON f.face_id = c.face_id AND f.status = 'ok'
    JOIN images i ON i.image_id = c.image_id AND i.status = 'ok'
    LEFT JOIN candidates d ON d.image_id = c.image_id
    LEFT JOIN identities n ON n.identity_id = c.identity_id
    LEFT JOIN matches m ON m.identity_id = c.identity_id
    {joins}
    WHERE c.keep AND c.status = 'ok'
), one_a_picture AS (
    SELECT * REPLACE (CASE WHEN reason IS NULL AND row_number() OVER (
        PARTITION BY image_id, reason IS NULL ORDER BY similarity DESC NULLS LAST, face_id) > 1
        THEN 'second_face' ELSE reason END AS reason)
    FROM kept
), unique_pictures AS (
    SELECT * REPLACE (CASE WHEN reason IS NULL AND row_number() OVER (
        PARTITION BY canonical_id, sha256, reason IS NULL
            ORDER BY similarity DESC NULLS LAST, image_id) > 1
        THEN 'same_picture' ELSE reason END AS reason)
    FROM one_a_picture
)
SELECT * REPLACE (CASE WHEN reason IS NULL AND count(*) FILTER (reason IS NULL) OVER (PARTITION BY
    canonical_id) < {min_pictures}
    THEN 'few_pictures' ELSE reason END AS reason)
FROM unique_pictures
"""
_BUCKETS = "SELECT bucket, count(*) FROM chosen GROUP BY bucket ORDER BY bucket"
_STATED = (
    "SELECT DISTINCT identity_id, split FROM candidates WHERE status = 'ok' AND split IS "
    "NOT NULL ORDER BY ALL"
)
_PEOPLE = """
SELECT canonical_id, min(kin), count(*), list(DISTINCT identity_id) FROM judged WHERE reason IS NULL
GROUP BY canonical_id ORDER BY canonical_id
"""
_SHARING = """
SELECT first, other FROM (
    SELECT min(canonical_id) AS first, unnest(list(DISTINCT canonical_id)) AS other
    FROM judged WHERE reason IS NULL GROUP BY sha256 HAVING count(DISTINCT canonical_id) > 1
) WHERE first <> other ORDER BY ALL
"""
_IMAGES_OF = (
    "SELECT canonical_id, image_id FROM judged WHERE reason IS NULL AND canonical_id IN "
    "(SELECT unnest(?)) ORDER BY ALL"
)
_CHOSEN = """
CREATE TEMP TABLE chosen AS SELECT j.*, a.split, r.role, r.role_number
FROM judged j JOIN assigned a USING (canonical_id) LEFT JOIN roles r USING (image_id)
WHERE j.reason IS NULL AND (a.split <> 'benchmark' OR r.role IS NOT NULL)
"""
_WITHHELD = """
SELECT j.canonical_id, j.identity_id, j.image_id, j.face_id, coalesce(j.reason, b.reason,
    $1) AS reason, $2 AS profile,
    CASE WHEN j.reason = 'licence' THEN coalesce('stated as ' || j.licence,
        'none is stated') END AS detail
FROM judged j LEFT JOIN barred b USING (canonical_id) ANTI JOIN chosen USING (face_id)
ORDER BY ALL
"""
_SIZES = (
    "SELECT canonical_id, count(*), sum(size + ?)::BIGINT FROM chosen GROUP BY canonical_id "
    "ORDER BY canonical_id"
)
_ROWS = """
SELECT s.canonical_id, s.identity_id, s.image_id, s.face_id, s.similarity, s.sha256, s.size,
    s.split, s.role, s.role_number,
    n.name, d.address, d.page, d.source, d.licence, d.author, d.attributes, i.format, i.width,
    i.height, i.orientation,
    f.box, f.landmarks, f.landmark_scheme, f.score, f.side, f.sharpness, f.yaw, f.faces_in_image,
    f.subject, {columns}, {vector} AS vector, g.filename AS image_file
FROM chosen s
JOIN faces f ON f.face_id = s.face_id
JOIN images i ON i.image_id = s.image_id
JOIN images_places g ON g.image_id = s.image_id
LEFT JOIN identities n ON n.identity_id = s.identity_id
LEFT JOIN candidates d ON d.image_id = s.image_id
{joins}
"""


def _rows(vector: bool) -> str:
    """`chosen` with what the tables of faces declare that samples carry."""
    columns, joins = [], []
    for table in CARRIED:
        columns += [f'{table}."{one.name}" AS "{one.sample}"' for one in TABLES[table].samples]
        if table in BLOBS:
            columns.append(f"{table}.filename AS {table}_file")
            columns.append(f"lower(hex({table}.inputs)) AS {table}_inputs")
        source = f"{table}_places" if table in BLOBS else table
        joins.append(
            f"LEFT JOIN {source} {table} ON {table}.face_id = s.face_id AND {table}.status = 'ok'"
        )
    return _ROWS.format(
        columns=", ".join(columns),
        joins="\n".join(joins),
        vector="embeddings.vector" if vector else "NULL",
    )


def _create_with_names(
    connection: duckdb.DuckDBPyConnection, view: str, table: str, paths: Iterable[str]
) -> None:
    quoted = ", ".join("'dataset:///" + path.replace("'", "''") + "'" for path in paths if path)
    if quoted:
        source = f"FROM read_parquet([{quoted}], filename = true, hive_partitioning = false)"
    else:
        source = f"SELECT *, NULL::VARCHAR AS filename FROM {table} WHERE false"  # noqa: S608 - the caller's constant
    connection.execute(f"CREATE TEMP VIEW {view} AS {source}")


def _stretches(counts: Sequence[tuple[_Key, int]]) -> list[tuple[_Key, _Key]]:
    """First and last of neighbours that have about `_SAMPLES_AT_ONCE` samples together; the last
    ones may have fewer.
    """
    found: list[tuple[_Key, _Key]] = []
    mine: list[_Key] = []
    samples = 0
    for key, count in counts:
        mine.append(key)
        samples += count
        if samples >= _SAMPLES_AT_ONCE:
            found.append((mine[0], key))
            mine, samples = [], 0
    if mine:
        found.append((mine[0], mine[-1]))
    return found
