"""Check a set of shards by reading all of it again: bytes, places, order, counts, and that no split
knows another.

A set is checked by itself wherever it lies (a copy, too); one that lies in its dataset also against
the tables.
"""

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from idcluster.catalogue.connection import connect
from idcluster.root import parquet
from idcluster.root.parquet import DamagedFile
from idcluster.root.snapshot import Snapshot
from idcluster.root.storage import Store
from pipeline.shards.tars import Place, Tar, read_tar, sha256_beside, told_members
from pipeline.shards.writing import plan_shards
from schemas.columns import vectors
from schemas.errors import UserError
from schemas.samples import METADATA, SAMPLES
from stages.people.matches import near, pairs
from stages.shard.params import ShardParams
from stages.shard.splits import SPLITS
from stages.shard.webdataset import CODE_VERSION, IMAGE, late_of, metadata_json, sample_key

_NAME = re.compile(r"^(?P<split>[a-z]+)-(?P<first>[0-9a-f]{16})-(?P<part>\d{3,})-[0-9a-f]{8}\.tar$")
_TOLD = 20  # faults of one kind that are told one by one


class CheckError(UserError, RuntimeError):
    """There is nothing that could be checked; the message says what to name."""


@dataclass
class Checked:
    """What was read, and what is wrong: (file, what) in the order of the set."""

    shards: int = 0
    samples: int = 0
    people: int = 0
    bytes: int = 0
    faults: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    splits: dict[str, str] = field(default_factory=dict)
    """canonical_id to split."""


@dataclass
class _Shard:
    """What one shard holds: people in their order with samples, and of its images the first 8
    bytes of the sha256.
    """

    faults: list[str] = field(default_factory=list)
    people: list[tuple[str, int]] = field(default_factory=list)
    pictures: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    size: int = 0


def check_set(store: Store, folder: str, done: Callable[[str], None] = lambda url: None) -> Checked:
    """Read the set in `folder` (below the store; "" for the store itself) through its `index.json`.

    `done` is told the file name of every shard that was read. Raises CheckError where there is no
    index.
    """
    prefix = f"{folder}/" if folder else ""
    index = _json(store, f"{prefix}index.json")
    if index is None or not isinstance(index.get("shardlist"), list):
        raise CheckError(
            f"{store.uri(f'{prefix}index.json')}: not there, or no index of shards; name a "
            "dataset or a folder of shards"
        )
    description = index.get("description") or {}
    stripped = bool(description.get("params", {}).get("strip_gps"))
    # Until version 4 the ending of an image was that of its format, and null stood for what is
    # absent.
    earlier = description.get("code_version", CODE_VERSION) % 1000 < 4
    listed: list[dict[str, Any]] = index["shardlist"]
    found = Checked(shards=len(listed))
    seen: dict[str, tuple[str, str]] = {}  # canonical_id: split, shard
    pictures: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
    parts: dict[tuple[str, str], list[int]] = {}

    def look(item: Mapping[str, Any]) -> _Shard:
        read = _check_shard(store, prefix, item, stripped, earlier)
        done(str(item.get("url")))
        return read

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for item, shard in zip(listed, pool.map(look, listed), strict=True):
            url = str(item.get("url"))
            found.faults += [(url, fault) for fault in shard.faults]
            found.bytes += shard.size
            found.samples += sum(count for _, count in shard.people)
            split = str(item.get("split"))
            if split in pictures:
                pictures[split].append(shard.pictures)
            name = _NAME.match(url)
            alone = len(shard.people) == 1
            for person, _ in shard.people:
                before = seen.setdefault(person, (split, url))
                if before[0] != split:
                    found.faults.append(
                        (url, f"person {person} is also in {before[1]}: in two splits")
                    )
                elif before[1] != url and not (alone and name and name["first"] == person):
                    found.faults.append(
                        (
                            url,
                            f"person {person} is also in {before[1]}: samples of a person belong "
                            "together",
                        )
                    )
            if name and alone:
                parts.setdefault((split, name["first"]), []).append(int(name["part"]))
    for (split, person), numbers in parts.items():
        if numbers != list(range(len(numbers))):
            found.faults.append(
                ("index.json", f"parts of person {person} in {split} are numbered {numbers}")
            )
    found.people = len(seen)
    found.splits = {person: split for person, (split, _) in seen.items()}
    found.faults += _shared_pictures(pictures)
    found.faults += _check_indexes(store, prefix, index, found)
    if earlier:
        found.notes.append(
            "is of an earlier version, whose .json members are not compared with the Parquet "
            "files; a run writes it anew"
        )
    strangers = _strangers(store, prefix, listed)
    if strangers:
        found.notes.append(
            f"{strangers} further shards are here that the index does not list: of earlier sets, "
            "until `gc`"
        )
    return found


def check_against_tables(
    store: Store, snapshot: Snapshot, profile: str, checked: Checked
) -> Iterator[tuple[str, str]]:
    """What is wrong with a set when the tables are asked: shards that should be there, near people
    in two splits.
    """
    about = snapshot.notes.get(f"index/{profile}")
    index = _json(store, f"shards/{profile}/index.json") or {}
    mine = [e for e in snapshot.shown("shards") if e.file.startswith(f"shards/{profile}/")]
    shown = {e.file.rsplit("/", 1)[-1]: (e.digest, e.rows, e.bytes) for e in mine}
    listed = {
        item["url"]: (item["digest"], item["nsamples"], item["filesize"])
        for item in index.get("shardlist", ())
    }
    for url in sorted(shown.keys() | listed.keys()):
        if shown.get(url) != listed.get(url):
            lacking = "index" if url not in listed else "snapshot"
            what = (
                f"is not in the {lacking}"
                if url not in listed or url not in shown
                else "is another in the snapshot"
            )
            yield url, f"{what}; run again"
    if about is None:
        yield "index.json", "the snapshot does not say how the set was made; run again"
        return
    try:
        params = ShardParams.model_validate(about["description"]["params"])
        plan = plan_shards(store, snapshot, params, write=False)
    except (LookupError, ValueError) as error:
        yield "index.json", f"the snapshot does not say how the set was made ({error}); run again"
        return
    wanted = {f"{shard.name.rsplit('/', 1)[-1]}.tar" for shard in plan.shards}
    for url in sorted(wanted - listed.keys()):
        yield url, "the tables ask for it and it is not in the index: they changed since; run again"
    for url in sorted(listed.keys() - wanted):
        yield url, "the tables do not ask for it any more: they changed since; run again"
    withheld = [e for e in snapshot.shown("withheld") if e.file.startswith(f"shards/{profile}/")]
    rows = sum(entry.rows for entry in withheld)
    if rows != plan.withheld.num_rows:
        yield "withheld", f"names {rows} faces, {plan.withheld.num_rows} are withheld; run again"
    if checked.faults:
        checked.notes.append(
            "near people and images in two splits are looked for once nothing else is wrong"
        )
        return
    yield from _near_people(store, snapshot, checked.splits)
    yield from _near_pictures(store, snapshot, profile)


def told(faults: Sequence[tuple[str, str]]) -> list[str]:
    """Faults as lines; of many alike only the first ones."""
    kinds: Counter[str] = Counter()
    lines = []
    for where, what in faults:
        kind = re.sub(r"[0-9a-f]{8,}|\d+", "#", what)
        kinds[kind] += 1
        if kinds[kind] <= _TOLD:
            lines.append(f"{where}: {what}")
    return lines + [
        f"... and {count - _TOLD} more like: {kind}"
        for kind, count in kinds.items()
        if count > _TOLD
    ]


# One shard


def _check_shard(
    store: Store, prefix: str, item: Mapping[str, Any], stripped: bool, earlier: bool
) -> _Shard:
    found = _Shard()
    url = str(item.get("url"))
    name = _NAME.match(url)
    if name is None:
        found.faults.append("not a name of a shard: split, person, part and hash, with .tar")
        return found
    if name["split"] != item.get("split"):
        found.faults.append(f"the index says split {item.get('split')!r}")
    tar = _check_tar(store, f"{prefix}{url}", item, found)
    members = tar.members
    beside = f"{prefix}{url.removesuffix('.tar')}.parquet"
    try:
        rows = parquet.read(store, SAMPLES, beside).to_pylist()
        told_sha256 = sha256_beside(store, beside)
    except (DamagedFile, FileNotFoundError, pa.ArrowException) as error:
        found.faults.append(f"the Parquet file beside it cannot be read: {error}")
        return found
    if tar.sha256 and told_sha256 not in (tar.sha256, None):
        found.faults.append("its sha256 is not that of the Parquet file beside it")
    if len(rows) != item.get("nsamples"):
        found.faults.append(
            f"{len(rows)} rows in the Parquet file, {item.get('nsamples')} in the index"
        )
    expected: set[str] = set()
    order: list[tuple[str, str]] = []
    digests = []
    late = late_of(rows)
    for row in rows:
        found.faults += _check_row(row, url, name["split"], members, stripped, earlier, late)
        expected.update(f"{row['key']}.{member['name']}" for member in row["members"])
        order.append((row["canonical_id"], row["image_id"]))
        digests.append(int(row["sha256"][:16], 16))
    if order != sorted(set(order)):
        found.faults.append(
            "samples are not in the order of person and image, or one is there twice"
        )
    if order and order[0][0] != name["first"]:
        found.faults.append(f"begins with person {order[0][0]}")
    found.faults += [
        f"member {member} is in no row of the Parquet file"
        for member in sorted(members.keys() - expected)
    ]
    found.people = list(Counter(person for person, _ in order).items())
    found.pictures = np.array(digests, np.uint64)
    return found


def _check_tar(store: Store, path: str, item: Mapping[str, Any], found: _Shard) -> Tar:
    try:
        tar = read_tar(store, path)
    except FileNotFoundError:
        found.faults.append("is not there")
        return Tar()
    found.faults += tar.faults
    found.size = tar.size
    if tar.size != item.get("filesize"):
        found.faults.append(f"has {tar.size} bytes, the index says {item.get('filesize')}")
    if not tar.sha256.startswith(str(item.get("digest"))):
        found.faults.append("its sha256 is not that of the index")
    return tar


def _check_row(
    row: dict[str, Any],
    url: str,
    split: str,
    members: Mapping[str, Place],
    stripped: bool,
    earlier: bool,
    late: Collection[str],
) -> Iterator[str]:
    key = row["key"]
    if key != sample_key(row["identity_id"], row["image_id"]):
        yield f"sample {key} does not bear the ids of its row"
    if row["shard"] != url or row["split"] != split:
        yield f"sample {key} says that it is in {row['shard']}, split {row['split']}"
    told = dict(told_members(row))
    for name, place in told.items():
        if name not in members:
            yield f"member {name} is not in the tar"
        elif members[name] != place:
            other = "other bytes" if members[name][:2] == place[:2] else "another place"
            yield f"member {name} is not what the Parquet file says: {other}"
    usual = {"jpeg": IMAGE}.get(row["format"], row["format"])
    picture = told.get(f"{key}.{usual if earlier else IMAGE}")
    if picture is None or picture[:2] != (row["image_offset"], row["image_length"]):
        yield f"sample {key} has its image at another place than the Parquet file says"
    elif not stripped and picture[2] != row["sha256"]:
        yield f"sample {key}: the image is not the one that was fetched"
    about = told.get(f"{key}.json")
    if about is None or (
        not earlier
        and about[2]
        != hashlib.sha256(metadata_json({name: row[name] for name in METADATA}, late)).hexdigest()
    ):
        yield f"sample {key}: its .json and the Parquet file do not say the same"


# The set


def _shared_pictures(pictures: Mapping[str, Iterable[np.ndarray]]) -> Iterator[tuple[str, str]]:
    hashes = {
        split: np.unique(np.concatenate([np.zeros(0, np.uint64), *arrays]))
        for split, arrays in pictures.items()
    }
    for place, split in enumerate(SPLITS):
        for other in SPLITS[place + 1 :]:
            shared = np.intersect1d(hashes[split], hashes[other], assume_unique=True)
            if len(shared):
                yield (
                    "index.json",
                    f"{len(shared)} images are in {split} and in {other}, sha256 "
                    f"{int(shared[0]):016x}... first",
                )


def _check_indexes(
    store: Store, prefix: str, index: Mapping[str, Any], found: Checked
) -> Iterator[tuple[str, str]]:
    listed = index["shardlist"]
    for split in SPLITS:
        mine = [item for item in listed if item.get("split") == split]
        one = _json(store, f"{prefix}{split}.json")
        if one is None:
            if mine:
                yield f"{split}.json", "is not there"
        elif one.get("shardlist") != mine:
            yield f"{split}.json", "does not list the shards of this split that index.json lists"
    sums = {"samples": found.samples, "identities": found.people, "bytes": found.bytes}
    for name, value in sums.items():
        if index.get(name) != value:
            yield "index.json", f"says {index.get(name)} {name}; the shards have {value}"
    about = _json(store, f"{prefix}dataset.json")
    if about is None:
        yield "dataset.json", "is not there"
    elif (
        sum(
            split.get("samples", 0)
            for split in about.get("contents", {}).get("splits", {}).values()
        )
        != found.samples
    ):
        yield "dataset.json", f"does not count {found.samples} samples"


def _strangers(store: Store, prefix: str, listed: Iterable[Mapping[str, Any]]) -> int:
    known = {f"{prefix}{item.get('url')}" for item in listed}
    return sum(
        path.endswith(".tar") and path not in known for path in store.list(prefix.rstrip("/"))
    )


def _json(store: Store, path: str) -> dict[str, Any] | None:
    try:
        found = json.loads(store.read(path))
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None


# Against the tables


def _near_people(
    store: Store, snapshot: Snapshot, splits: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Pairs of people in two splits whose indicators are as near as the stage match calls near."""
    limit = _near_limit(snapshot)
    if limit is None:
        return
    with connect(store, snapshot) as connection:
        rows = connection.sql(_INDICATORS).to_arrow_table()
        apart = {frozenset(pair) for pair in connection.execute(_APART).fetchall()}
    rows = rows.filter(
        pa.array(
            [canonical in splits for canonical in rows["canonical_id"].to_pylist()], pa.bool_()
        )
    )
    if not rows.num_rows:
        return
    who, canonical = rows["identity_id"].to_pylist(), rows["canonical_id"].to_pylist()
    left, right, cosines = pairs(vectors(rows["indicator"]), limit)
    for i, j, cosine in zip(left.tolist(), right.tolist(), cosines.tolist(), strict=True):
        one, other = splits[canonical[i]], splits[canonical[j]]
        if one != other and frozenset((who[i], who[j])) not in apart:
            yield (
                "index.json",
                f"{who[i]} in {one} and {who[j]} in {other} are near one another: cosine "
                f"{cosine:.3f}, limit {limit:g}",
            )


def _near_limit(snapshot: Snapshot) -> float | None:
    known = snapshot.notes.get("versions", {})
    for entry in snapshot.shown("matches"):
        params = known.get(f"matches/{entry.version}", {}).get("params", {})
        limits = [
            params[name] for name in ("near_cosine", "same_cosine") if params.get(name) is not None
        ]
        return min(limits, default=None)
    return None


_INDICATORS = """
SELECT p.identity_id, coalesce(m.same_as, p.identity_id) AS canonical_id, p.indicator
FROM people p LEFT JOIN matches m USING (identity_id)
WHERE p.status = 'ok' AND p.indicator IS NOT NULL AND coalesce(m.status, 'ok') = 'ok' ORDER BY 1
"""
_APART = "SELECT identity_id, target FROM overrides WHERE action = 'apart'"
_PHASHES = """
SELECT s.split, i.phash, s.key FROM samples s JOIN images i USING (image_id)
WHERE i.status = 'ok' AND bit_count(i.phash) BETWEEN 8 AND 56 ORDER BY s.key
"""
_SAME_BITS = 3


def _near_pictures(store: Store, snapshot: Snapshot, profile: str) -> Iterator[tuple[str, str]]:
    """Images in two splits that are the same to the eye: perceptual hashes that differ in at most
    3 bits.
    """
    shown = Snapshot(
        snapshot.number,
        tuple(
            e
            for e in snapshot.entries
            if e.table != "samples" or e.file.startswith(f"shards/{profile}/")
        ),
        snapshot.notes,
    )
    with connect(store, shown) as connection:
        rows = connection.sql(_PHASHES).to_arrow_table()
    if len(set(rows["split"].to_pylist())) < 2:
        return
    splits, keys = rows["split"].to_pylist(), rows["key"].to_pylist()
    left, right, _ = near(rows["phash"].to_numpy().astype(np.uint64), _SAME_BITS)
    for i, j in zip(left.tolist(), right.tolist(), strict=True):
        if splits[i] != splits[j]:
            yield (
                "index.json",
                f"sample {keys[i]} in {splits[i]} and {keys[j]} in {splits[j]} are one image "
                "to the eye",
            )
