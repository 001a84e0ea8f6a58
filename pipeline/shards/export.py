"""A set of shards as Parquet files with the images in them, for viewers, polars and Hugging Face.

One file a shard, under the name of the shard, which has the hash of what is in it: so a file that
is there is whole and current, and a second export writes what is new alone. Until all are written
they lie in a folder `.partial`, and what was there before stays.
"""

import errno
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from idcluster.root.aside import aside, write_text
from idcluster.shards import Sample, Shard, ShardSet
from schemas.errors import UserError
from schemas.samples import METADATA, SAMPLES, SPLITS
from stages.shard.loaders import Feature, exported_head, feature_of, hub_metadata
from stages.shard.params import MEMBERS

_INDEX = "export.json"
_PARTIAL = ".partial"
_FEED = "removals.json"
_ROW_GROUP_BYTES = 64_000_000
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


class ExportError(UserError, RuntimeError):
    """An export cannot be written there; the message says why."""


@dataclass(frozen=True)
class Exported:
    """What an export brought: files of the set, those of them that were written now, and files of
    an earlier export that were deleted.
    """

    files: int
    written: int
    deleted: int
    samples: int
    bytes: int


def export_parquet(
    shards: ShardSet, folder: Path, done: Callable[[Shard], None] = lambda shard: None
) -> Exported:
    """Write the set into `folder`, which has to be empty, missing, or an earlier export.

    `done` is told of every shard that is there. Memory holds about 64 MB of images at a time.
    Raises ExportError, OSError, and what reading the set raises (DamagedShard, DamagedFile).
    """
    before = _earlier(folder)
    if shards.store.local and _is_inside(folder, Path(shards.store.root)):
        raise ExportError(
            f"{folder} lies in {shards.store.root}: erasure would not find the images there; name "
            "a folder outside"
        )
    features = _features(shards)
    schema = _schema(features)
    partial = folder / _PARTIAL
    partial.mkdir(parents=True, exist_ok=True)
    if before is None:  # so that a second try knows the folder as its own
        before = ()
        _put_index(folder, shards, ())
    names = {shard.url: shard.url.removesuffix("tar") + "parquet" for shard in shards.shards}
    written = 0
    for shard in shards.shards:
        name = names[shard.url]
        if not (folder / name).exists() and not (partial / name).exists():
            _put(shards.samples_of(shard), partial / name, schema, features)
            written += 1
        done(shard)
    for name in names.values():
        if (partial / name).exists():
            (partial / name).replace(folder / name)
    stale = sorted({*before} - {*names.values()})
    # First the list without the old files: one that remains after a crash is in no split.
    _put_index(folder, shards, [*names.values(), *stale])
    _put_card(folder, shards, names, features)
    for name in stale:
        (folder / name).unlink(missing_ok=True)
    _put_index(folder, shards, list(names.values()))
    for strange in partial.iterdir():  # of a set that has changed since
        strange.unlink()
    partial.rmdir()
    sizes = [(folder / name).stat().st_size for name in names.values()]
    return Exported(len(names), written, len(stale), sum(shards.splits.values()), sum(sizes))


def _is_inside(folder: Path, root: Path) -> bool:
    return Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(root))


def _earlier(folder: Path) -> Sequence[str] | None:
    """The files of an earlier export; None where there is nothing yet. Raises ExportError."""
    if not folder.exists() or not any(folder.iterdir()):
        return None
    try:
        found = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
        files = [str(name) for name in found["files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExportError(
            f"{folder} is not empty and no export: it has no {_INDEX} that says what is in it; "
            "name another folder"
        ) from error
    # A list that comes with a folder may name anything.
    return [name for name in files if name == os.path.basename(name) and name.endswith(".parquet")]


def _put_index(folder: Path, shards: ShardSet, names: Sequence[str]) -> None:
    shown = {
        "name": shards.profile,
        "version": shards.about.get("version", ""),
        "files": list(names),
    }
    write_text(folder / _INDEX, json.dumps(shown, indent=1, ensure_ascii=False) + "\n")


def _put_card(
    folder: Path, shards: ShardSet, names: Mapping[str, str], features: Sequence[Feature]
) -> None:
    """The card of the set with the files of the export in its head, and what was removed."""
    path = f"{shards.folder}/README.md".lstrip("/")
    card = ""
    with suppress(FileNotFoundError):
        card = shards.store.read(path).decode()
    splits = {
        split: [names[one.url] for one in shards.shards if one.split == split] for split in SPLITS
    }
    write_text(folder / "README.md", exported_head(card, shards.profile, splits, features))
    with suppress(FileNotFoundError):
        feed = shards.store.read(f"{shards.folder}/{_FEED}".lstrip("/"))
        write_text(folder / _FEED, feed.decode())


# One file


def _features(shards: ShardSet) -> list[Feature]:
    """`image`, the further members of the profile by condition, then the columns of METADATA."""
    params = shards.about.get("description", {}).get("params", {})
    wanted = [name for name in params.get("include", ()) if name in MEMBERS]
    return [
        Feature("image", "image"),
        *(Feature(name, "vector" if _is_vector(name) else "image") for name in wanted),
        *(feature_of(name) for name in METADATA),
    ]


def _is_vector(condition: str) -> bool:
    return MEMBERS[condition].ending.endswith(".npy")


def _schema(features: Iterable[Feature]) -> pa.Schema:
    types = {"image": _IMAGE, "vector": pa.list_(pa.float32())}
    fields = [
        pa.field(one.name, types.get(one.kind) or SAMPLES.arrow.field(one.name).type)
        for one in features
    ]
    return pa.schema(fields, metadata=hub_metadata(features))


def _put(
    samples: Iterator[Sample], path: Path, schema: pa.Schema, features: Sequence[Feature]
) -> None:
    try:
        with aside(path) as place:
            _write(samples, place, schema, features)
    except OSError as error:
        if isinstance(error, UserError) or error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        # pyarrow does not name the file
        raise ExportError(
            f"cannot write {path}: {os.strerror(error.errno)}; make room and export again, what is "
            "written stays"
        ) from error


def _write(
    samples: Iterator[Sample], place: Path, schema: pa.Schema, features: Sequence[Feature]
) -> None:
    further = [one for one in features if one.kind in ("image", "vector") and one.name != "image"]
    with pq.ParquetWriter(place, schema, compression="zstd", write_page_checksum=True) as writer:
        for group in _groups(samples):
            rows = [_row(sample, further) for sample in group]
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))


def _groups(samples: Iterator[Sample]) -> Iterator[list[Sample]]:
    """Samples that go into one row group."""
    group: list[Sample] = []
    held = 0
    for sample in samples:
        size = sum(map(len, sample.members.values()))
        if group and held + size > _ROW_GROUP_BYTES:
            yield group
            group, held = [], 0
        group.append(sample)
        held += size
    if group:
        yield group


def _row(sample: Sample, further: Iterable[Feature]) -> dict[str, Any]:
    row: dict[str, Any] = {name: sample.about[name] for name in METADATA}
    row["image"] = {"bytes": sample.image, "path": f"{sample.key}.{sample.about['format']}"}
    for one in further:
        ending = MEMBERS[one.name].ending
        data = sample.members.get(ending)
        if data is None:
            row[one.name] = None
        elif one.kind == "vector":
            row[one.name] = sample.member(ending)
        else:
            row[one.name] = {"bytes": data, "path": f"{sample.key}.{ending}"}
    return row
