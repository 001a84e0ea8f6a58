"""Reading sets of shards: what is in them, samples with their fields decoded, one person by byte
ranges.

A set is read where it lies, in a dataset or as a copy, in a folder or an object store. Which shards
belong to it is said by its `index.json`, or by a snapshot of the dataset; where the members of a
sample lie in a tar is said by the Parquet file beside it, so nothing is searched for and a person
is read without what lies around.

    from idcluster.shards import open_shards

    shards = open_shards("out/", "flashface")
    for sample in shards.samples("train"):
        rgb, caption = sample.rgb(), sample.about["caption"]
"""

import hashlib
import io
import json
import re
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from idcluster.root import parquet
from idcluster.root.storage import Store
from schemas.errors import UserError
from schemas.samples import METADATA, SAMPLES, SPLITS
from schemas.wording import near

_AT_ONCE = 16 * 2**20
"""Bytes of neighbouring samples that are read in one go."""
_ID = re.compile(r"[0-9a-f]{16}")
_FIRST = re.compile(r"^[a-z]+-([0-9a-f]{16})-\d+-")
"""In the name of a shard the id of its first person; see `pipeline.shards.writing`."""


class NoShards(UserError, LookupError):
    """There is no such set, split or person; the message says what there is."""

    exit_code = 2


class DamagedShard(UserError, RuntimeError):
    """What lies in a tar is not what the file beside it says."""


@dataclass(frozen=True)
class Shard:
    """A tar of a set. `url` is its name in the folder of the set; `samples` and `bytes` count what
    is in it.
    """

    url: str
    split: str
    samples: int
    bytes: int
    digest: str
    """The first 32 hex digits of its SHA-256."""


@dataclass(frozen=True)
class Sample:
    """One kept face with its image.

    `about` is all that is known of it, as in the sample's .json (`schemas.samples`). `members` are
    its files by their ending: the image under `jpg` whatever its format, `mask.png`, `arcface.npy`
    and whatever the profile includes.
    """

    key: str
    about: Mapping[str, Any]
    members: Mapping[str, bytes] = field(repr=False)

    @property
    def image(self) -> bytes:
        """The bytes of the image, as they were fetched (without places, where the profile strips
        them).
        """
        return self.members[_ending_of_image(self.about["format"], self.members)]

    def rgb(self) -> np.ndarray:
        """The image decoded: (height, width, 3) uint8, upright as boxes and points mean it, what is
        transparent on white. Needs Pillow.
        """
        from PIL import Image

        with Image.open(io.BytesIO(self.image)) as opened:
            return _upright(_pixels(opened), self.about["orientation"] or 1)

    def member(self, name: str) -> np.ndarray:
        """A member decoded, by its ending with or without the format: `mask` (height, width) uint8
        of class indices, `normal`, `albedo`, `lambertian`, `landmarks` (height, width, 3) uint8,
        `arcface` (d,) float32.

        Raises NoShards where the sample has none of that name. Images need Pillow.
        """
        found = next((one for one in self.members if name in (one, one.partition(".")[0])), None)
        if found is None or found == "json":
            there = ", ".join(sorted(set(self.members) - {"json"}))
            raise NoShards(f"sample {self.key} has no member {name!r}; it has {there}")
        data = self.members[found]
        if found.endswith(".npy"):
            loaded: np.ndarray = np.load(io.BytesIO(data), allow_pickle=False)
            return loaded
        from PIL import Image

        with Image.open(io.BytesIO(data)) as opened:
            return np.asarray(opened)

    def decoded(self) -> dict[str, Any]:
        """Everything: the fields of `about`, `image` as `rgb` gives it, and each further member
        under its first word.
        """
        names = [
            one
            for one in self.members
            if one not in ("json", _ending_of_image(self.about["format"], self.members))
        ]
        further = {name.partition(".")[0]: self.member(name) for name in names}
        return {**self.about, "image": self.rgb(), **further}


class ShardSet:
    """A set of shards: of one profile, in one folder. Made by `open_shards` or
    `idcluster.Dataset.shards`.
    """

    def __init__(
        self,
        store: Store,
        folder: str,
        shards: Sequence[Shard],
        about: Mapping[str, Any],
        verify: bool = True,
    ) -> None:
        """`shards` in their order, `about` the head of the index. With `verify` every member is
        compared with its SHA-256.
        """
        self.store, self.folder, self.verify = store, folder, verify
        self.shards, self.about = tuple(shards), dict(about)
        self.profile = str(about.get("name") or folder.rpartition("/")[2])

    def __repr__(self) -> str:
        counts = ", ".join(f"{split} {count}" for split, count in self.splits.items())
        return (
            f"ShardSet({self.store.uri(self.folder)!r}: {len(self.shards)} shards; samples: "
            f"{counts or 'none'})"
        )

    @cached_property
    def splits(self) -> dict[str, int]:
        """Samples by split; splits without any are left out."""
        return {
            split: sum(one.samples for one in mine) for split in SPLITS if (mine := self._of(split))
        }

    def paths(self, split: str | None = None, kind: str = "tar") -> list[str]:
        """Where the tars of a split lie, for webdataset, or the Parquet files beside them
        (`kind="parquet"`), for DuckDB.
        """
        names = (one.url.removesuffix("tar") + kind for one in self._chosen(split))
        return list(self.store.uris(self.folder, names))

    def rows(self, split: str | None = None, columns: Iterable[str] | None = None) -> pa.Table:
        """A row a sample, without images: columns of `schemas.samples.SAMPLES`, all by default."""
        names = list(SAMPLES.names if columns is None else columns)
        self._check_columns(names)
        tables = [self._rows(one, names) for one in self._chosen(split)]
        return pa.concat_tables([SAMPLES.empty().select(names), *tables])

    def samples(
        self, split: str | None = None, people: Collection[str] | None = None
    ) -> Iterator[Sample]:
        """Samples in the order of the shards, which is grouped by person: of all splits, or of one.

        `people`: only those, by canonical_id, identity_id or name; of the others nothing is read.
        Raises NoShards and DamagedShard.
        """
        chosen = self._chosen(split)
        if people is None:
            return self._read(chosen, None)
        wanted = set(people)
        return self._read(self._of_people(chosen, wanted), wanted)

    def samples_of(self, shard: Shard) -> Iterator[Sample]:
        """All samples of one shard of `shards`. Raises DamagedShard."""
        return self._read([shard], None)

    def person(self, who: str) -> list[Sample]:
        """All samples of one person, by canonical_id, identity_id or name, read by byte ranges.
        Raises NoShards.
        """
        found = list(self.samples(people=[who]))
        if not found:
            names = [one for one in self.rows(columns=["name"])["name"].unique().to_pylist() if one]
            close = near(who, names)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise NoShards(f"{self.store.uri(self.folder)} has no samples of {who!r}{hint}")
        return found

    # Which shards

    def _of(self, split: str) -> list[Shard]:
        return [one for one in self.shards if one.split == split]

    def _chosen(self, split: str | None) -> Sequence[Shard]:
        if split is None:
            return self.shards
        if split not in SPLITS:
            raise NoShards(f"no split {split!r}; there are {', '.join(SPLITS)}")
        return self._of(split)

    def _of_people(self, shards: Sequence[Shard], people: Collection[str]) -> Sequence[Shard]:
        """Those of `shards` that can hold samples of `people`.

        For canonical ids these are known by the names of shards; for names, and ids that were
        merged into others, all files beside shards are asked.
        """
        if not all(_ID.fullmatch(who) for who in people):
            return shards
        held = self._holding(shards, people)
        there = {
            who
            for one in held
            for who in self._rows(one, ["canonical_id"])["canonical_id"].unique().to_pylist()
        }
        return held if there.issuperset(people) else shards

    def _holding(self, shards: Sequence[Shard], ids: Collection[str]) -> list[Shard]:
        """The shards in which these canonical ids can be: in each split, people rise from shard to
        shard.
        """
        found: list[Shard] = []
        for split in SPLITS:
            mine = [one for one in shards if one.split == split]
            firsts = [_first(one) for one in mine]
            if "" in firsts:
                found += mine  # named by somebody else
                continue
            # A person in numbered parts begins several shards.
            places = {
                place
                for who in ids
                for place in range(
                    firsts.index(who) if who in firsts else bisect_right(firsts, who) - 1,
                    bisect_right(firsts, who),
                )
                if place >= 0
            }
            found += [mine[place] for place in sorted(places)]
        return found

    # Reading

    def _path(self, name: str) -> str:
        return f"{self.folder}/{name}" if self.folder else name

    def _check_columns(self, names: Sequence[str]) -> None:
        for name in names:
            if name not in SAMPLES.names:
                close = near(name, SAMPLES.names)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                raise NoShards(f"samples have no column {name!r}{hint}")

    def _rows(self, shard: Shard, columns: Sequence[str]) -> pa.Table:
        return parquet.read(
            self.store, SAMPLES, self._path(shard.url.removesuffix("tar") + "parquet"), columns
        )

    def _read(self, shards: Iterable[Shard], people: Collection[str] | None) -> Iterator[Sample]:
        for shard in shards:
            rows = self._rows(shard, (*METADATA, "members"))
            if people is not None:
                among = pa.array(sorted(people), pa.string())
                masks = [
                    pc.is_in(rows[name], value_set=among)
                    for name in ("canonical_id", "identity_id", "name")
                ]
                rows = rows.filter(pc.or_(pc.or_(masks[0], masks[1]), masks[2]))
            yield from self._samples(shard, rows)

    def _samples(self, shard: Shard, rows: pa.Table) -> Iterator[Sample]:
        path = self._path(shard.url)
        spans = [_span(members) for members in rows["members"].to_pylist()]
        for first, stop in _stretches(spans):
            start, end = spans[first][0], spans[stop - 1][1]
            try:
                data = memoryview(self.store.read_part(path, start, end - start))
            except FileNotFoundError as error:
                raise DamagedShard(
                    f"{self.store.uri(path)} is not there; `idcluster check` says what to do, a "
                    "copy has to be made again"
                ) from error
            for row in rows.slice(first, stop - first).to_pylist():
                members = {
                    one["name"]: self._member(path, row["key"], one, data, start)
                    for one in row.pop("members")
                }
                yield Sample(row["key"], row, members)

    def _member(
        self, path: str, key: str, member: Mapping[str, Any], data: memoryview, start: int
    ) -> bytes:
        at = member["offset"] - start
        found = bytes(data[at : at + member["length"]])
        if len(found) != member["length"] or (
            self.verify and hashlib.sha256(found).hexdigest() != member["sha256"]
        ):
            raise DamagedShard(
                f"{self.store.uri(path)}: {key}.{member['name']} is not what was written; "
                "`idcluster shards verify` tells all"
            )
        return found


def open_shards(where: str | Path, profile: str | None = None, verify: bool = True) -> ShardSet:
    """The set of shards of a profile in a dataset, or a set by itself: the folder that holds
    `index.json`.

    `profile` may be left out where there is one alone. Raises NoShards.
    """
    store = Store(where)
    index = _index(store, "")
    if index is not None:
        if profile is not None and index.get("name") != profile:
            raise NoShards(f"{store.root} is the set {index.get('name')!r}, not {profile!r}")
        return _made(store, "", index, verify)
    chosen = only_profile(store.root, profiles(store), profile)
    index = _index(store, f"shards/{chosen}")
    if index is None:
        raise NoShards(
            f"{store.uri(f'shards/{chosen}/index.json')} is no index of shards; run the stage "
            "shard again"
        )
    return _made(store, f"shards/{chosen}", index, verify)


def profiles(store: Store) -> list[str]:
    """Names of the sets of a dataset."""
    return sorted(
        path.split("/")[1] for path in store.list("shards") if path.endswith("/index.json")
    )


def only_profile(root: str, there: Sequence[str], profile: str | None) -> str:
    """The profile that is meant: the one named, or the only one. Raises NoShards."""
    if profile is None and len(there) == 1:
        return there[0]
    if profile in there and profile is not None:
        return profile
    if not there:
        raise NoShards(f"{root} has no shards; a run with the stage shard makes them")
    asked = "name the set" if profile is None else f"no set {profile!r}"
    raise NoShards(f"{root}: {asked}; there are {', '.join(there)}")


def shards_of(profile: str, entries: pa.Table) -> list[Shard]:
    """The shards of a profile among the entries of a snapshot, in the order of the index."""
    mine = entries.filter(
        pc.and_(
            pc.and_(
                pc.equal(entries["table"], "shards"), pc.and_(entries["live"], entries["current"])
            ),
            pc.starts_with(entries["file"], f"shards/{profile}/"),
        )
    )
    found = [
        Shard(
            row["file"].rpartition("/")[2],
            row["file"].rpartition("/")[2].split("-")[0],
            row["rows"],
            row["bytes"],
            row["digest"],
        )
        for row in mine.select(["file", "rows", "bytes", "digest"]).to_pylist()
    ]
    order = {split: place for place, split in enumerate(SPLITS)}
    return sorted(
        found, key=lambda one: (order.get(one.split, len(order)), one.url.removesuffix(".tar"))
    )


def _made(store: Store, folder: str, index: Mapping[str, Any], verify: bool) -> ShardSet:
    listed = [
        Shard(one["url"], one["split"], one["nsamples"], one["filesize"], one["digest"])
        for one in index["shardlist"]
        if _is_name(one["url"])
    ]
    about = {name: value for name, value in index.items() if name != "shardlist"}
    return ShardSet(store, folder, listed, about, verify)


def _index(store: Store, folder: str) -> dict[str, Any] | None:
    path = f"{folder}/index.json" if folder else "index.json"
    try:
        found = json.loads(store.read(path))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise NoShards(f"{store.uri(path)} is no index of shards: {error}") from error
    if not isinstance(found, dict) or not isinstance(found.get("shardlist"), list):
        raise NoShards(f"{store.uri(path)} is no index of shards; run the stage shard again")
    return found


def _is_name(url: object) -> bool:
    """Whether an index names a tar of its own folder: an index comes with a copy, from wherever."""
    if not isinstance(url, str) or not re.fullmatch(r"[A-Za-z0-9_-]+\.tar", url):
        raise NoShards(f"the index names {url!r}, which is no shard beside it")
    return True


def _first(shard: Shard) -> str:
    found = _FIRST.match(shard.url)
    return found[1] if found else ""


def _span(members: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """Where the members of a sample begin and end."""
    return min(one["offset"] for one in members), max(
        one["offset"] + one["length"] for one in members
    )


def _stretches(spans: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Rows from `first` to before `stop` that lie together and are read in one go."""
    first = 0
    for row in range(1, len(spans) + 1):
        if (
            row == len(spans)
            or spans[row][1] - spans[first][0] > _AT_ONCE
            or spans[row][0] - spans[row - 1][1] > 2**16
        ):
            yield first, row
            first = row


def _ending_of_image(format: str, members: Mapping[str, bytes]) -> str:
    """The ending of the image's member: `jpg` whatever its format, before version 4 that of its
    format.
    """
    return "jpg" if "jpg" in members else format


def _pixels(image: Any) -> np.ndarray:
    """(height, width, 3) uint8 of an image of Pillow, as stages see it."""
    from PIL import Image

    if image.mode.startswith("I;16"):  # Pillow would clip at 255
        grey = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.asarray(image.convert("RGB"))


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo EXIF orientation (EXIF 2.3, tag 0x0112)."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
