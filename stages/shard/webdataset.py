"""WebDataset tars with a Parquet sidecar: what is in a sample, where people are cut into shards, how the bytes are laid out.

Everything here is a function of its arguments: the same samples give the same bytes, on every machine.
"""

import hashlib
import io
import json
import tarfile
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, Literal

import pyarrow as pa
from pydantic import Field

from schemas.schema import Column, TableSchema
from stages.stage import Params

CODE_VERSION = 2
"""Raised by whoever changes the bytes that the same samples give."""
SPLITS = ("train", "validation")


class ShardParams(Params):
    """What a shard profile is."""

    profile: str = Field(default="faces", pattern=r"^[A-Za-z0-9_-]+$")
    """Name of the folder below `shards/`."""
    target_mb: float = Field(default=256, gt=0)
    """Size that shards have on average, in 10^6 bytes. They end between people: usually half of it to twice it."""
    validation: float = Field(default=0.0, ge=0, le=1)
    """Share of the people that go into the split `validation`, drawn by a hash of the canonical identity."""
    include: tuple[Literal["mask"], ...] = ()
    """Conditions that travel with the picture, each as a member of the sample."""

    @property
    def target(self) -> int:
        """Bytes."""
        return max(1, round(self.target_mb * 1_000_000))

    def tables(self) -> Iterator[str]:
        """The tables that must be there; captions, heads and landmarks are taken where they are."""
        yield from ("images", "faces", "clusters")
        if "mask" in self.include:
            yield "masks"


_TEXT, _F32, _I32, _I64, _FLOATS = pa.string(), pa.float32(), pa.int32(), pa.int64(), pa.list_(pa.float32())

_METADATA = (
    Column("key", _TEXT, "of the sample in the tar: identity_id, underscore, image_id", nullable=False),
    Column("canonical_id", _TEXT, "the person, after merging; all samples of one are adjacent and in one split", nullable=False),
    Column("identity_id", _TEXT, "the person as listed", nullable=False),
    Column("image_id", _TEXT, "the picture", nullable=False),
    Column("face_id", _TEXT, "the kept face in it", nullable=False),
    Column("split", _TEXT, "train or validation", nullable=False),
    Column("name", _TEXT, "of the person, as first seen"),
    Column("address", _TEXT, "where the picture came from"),
    Column("page", _TEXT, "the page that showed it"),
    Column("source", _TEXT, "name of the source in the DAG"),
    Column("licence", _TEXT, "as the source states it; null where it states none"),
    Column("author", _TEXT, "as the source states it"),
    Column("sha256", _TEXT, "of the picture's bytes, 64 hex digits", nullable=False),
    Column("format", _TEXT, "of the picture: jpeg, png, webp, gif, bmp or tiff", nullable=False),
    Column("width", _I32, "pixels, upright"),
    Column("height", _I32, "pixels, upright"),
    Column("orientation", _I32, "EXIF orientation: apply it before using boxes and points"),
    Column("box", _FLOATS, "(4) x1 y1 x2 y2 of the face, pixels of the upright picture"),
    Column("landmarks", _FLOATS, "(10) five points x y, pixels"),
    Column("landmark_scheme", _TEXT, "arcface5 or dlib5"),
    Column("score", _F32, "of the detector"),
    Column("side", _F32, "geometric mean of the box's sides, pixels"),
    Column("sharpness", _F32, "variance of the Laplacian of the face at 112 pixels"),
    Column("yaw", _F32, "rough turn, -1 (image left) to 1 (image right)"),
    Column("faces_in_image", _I32, "faces found in the picture"),
    Column("subject", pa.bool_(), "of those the one that the picture seems to be of, by size and place; null where unknown"),
    Column("similarity", _F32, "cosine to the person's indicator"),
    Column("caption", _TEXT, "one line; null where there is none"),
    Column("prompt_id", _TEXT, "what the caption was made with"),
    Column("caption_model", _TEXT, "who wrote the caption"),
    Column("points_scheme", _TEXT, "of the dense points: dlib68, mediapipe478 or fan68"),
    Column("points", _FLOATS, "dense points, pixels"),
    Column("head_scheme", _TEXT, "flame, ict or pose"),
    Column("head_shape", _FLOATS, "identity coefficients"),
    Column("head_expression", _FLOATS, "expression coefficients"),
    Column("head_pose", _FLOATS, "as in the table heads"),
    Column("head_camera", _FLOATS, "as in the table heads"),
    Column("head_light", _FLOATS, "(27) spherical harmonics, flame only"),
    Column("head_texture", _FLOATS, "albedo coefficients, flame only"),
    Column("mask_window", _FLOATS, "(4) x1 y1 x2 y2 of the mask in the picture, pixels; null without a mask"),
    Column("mask_classes", pa.list_(_TEXT), "names of the class indices"),
    Column("mask_coverage", _F32, "share of the window that is not background"),
)
_PLACES = (
    Column("shard", _TEXT, "file name of the tar beside this file", nullable=False),
    Column("image_offset", _I64, "of the picture's bytes in the tar", nullable=False),
    Column("image_length", _I64, "of the picture, bytes", nullable=False),
    Column("mask_offset", _I64, "of the mask's bytes in the tar"),
    Column("mask_length", _I64, "of the mask, bytes"),
)

SAMPLES = TableSchema(
    "samples", 2, "shard", "What the shards hold: one row a sample, beside each tar.", "key", None, None, (*_METADATA, *_PLACES)
)
METADATA = tuple(column.name for column in _METADATA)
"""The columns of SAMPLES that are known before the tar is written; they are the sample's .json as well."""


@dataclass(frozen=True)
class Sample:
    """One kept face with its picture. `metadata` has the keys of METADATA."""

    metadata: Mapping[str, Any]
    picture: bytes
    mask: bytes | None = None


def sample_key(identity_id: str, image_id: str) -> str:
    """No dots and no slashes: a WebDataset key ends at the first dot."""
    return f"{identity_id}_{image_id}"


def split_of(canonical_id: str, validation: float) -> str:
    """Of a person, by a hash of the id: stays the same whoever else comes or goes, and nobody leaves validation as it grows."""
    return SPLITS[1] if _hash(b"split", canonical_id) < validation * 2**64 else SPLITS[0]


def write_tar(samples: Iterable[Sample], name: str, file: IO[bytes]) -> pa.Table:
    """Write a tar of `samples` into `file` (open for reading and writing, empty); the rows of SAMPLES for it.

    `name` is the file name that the rows give. Pictures keep their bytes.
    """
    from webdataset import TarWriter  # slow to import, and planning does not need it

    rows: list[dict[str, Any]] = []
    with TarWriter(file, encoder=False, mtime=0, user="idcluster", group="idcluster", mode=0o644) as writer:
        for sample in samples:
            rows.append(dict(sample.metadata))
            writer.write(_members(sample))
    file.seek(0)
    with tarfile.open(fileobj=file, mode="r:") as tar:
        places = {member.name: (member.offset_data, member.size) for member in tar}
    for row in rows:
        offset, length = places[f"{row['key']}.{extension(row['format'])}"]
        mask_offset, mask_length = places.get(f"{row['key']}.mask.png", (None, None))
        row |= {"shard": name, "image_offset": offset, "image_length": length, "mask_offset": mask_offset, "mask_length": mask_length}
    return SAMPLES.build(rows)


def tar_bytes(samples: Iterable[Sample], name: str) -> tuple[bytes, pa.Table]:
    """`write_tar` in memory."""
    file = io.BytesIO()
    rows = write_tar(samples, name, file)
    return file.getvalue(), rows


def _members(sample: Sample) -> dict[str, Any]:
    members = {
        "__key__": sample.metadata["key"],
        "json": metadata_json(sample.metadata),
        extension(sample.metadata["format"]): sample.picture,
    }
    return members if sample.mask is None else {**members, "mask.png": sample.mask}


def metadata_json(metadata: Mapping[str, Any]) -> bytes:
    """The .json member: sorted keys, null for what there is not."""
    return json.dumps({name: metadata[name] for name in METADATA}, sort_keys=True, ensure_ascii=False).encode()


def extension(format: str) -> str:
    """Of the picture's member."""
    return {"jpeg": "jpg"}.get(format, format)


# Where shards end


def cut(people: Sequence[tuple[str, int]], target: int) -> list[range]:
    """Where shards end: ranges of indices into `people`, which are (canonical id, bytes) in the order of the ids.

    A person begins a shard whose hash is the largest within `target` / 2 bytes before and after. That looks at nothing
    further away, so whoever comes or goes changes the shards around, never those beyond; and shards have `target` bytes
    on average and no less than half of it between two such people. What is over twice the target by chance is cut again by
    the same rule with half the distance, until only single people are larger.
    """
    hashes = [(_hash(b"cut", person), person) for person, _ in people]
    starts = [0]
    for _, size in people:
        starts.append(starts[-1] + max(size, 1))
    return list(_cut(range(len(people)), hashes, starts, target / 2, 2 * target))


def _cut(within: range, hashes: Sequence[tuple[int, str]], starts: Sequence[int], reach: float, largest: int) -> Iterator[range]:
    if len(within) <= 1:
        if within:
            yield within
        return
    begin = within.start
    for index in [*(i for i in within[1:] if _begins(i, within, hashes, starts, reach)), within.stop]:
        segment = range(begin, index)
        if starts[segment.stop] - starts[segment.start] > largest:
            yield from _cut(segment, hashes, starts, reach / 2, largest)
        else:
            yield segment
        begin = index


def _begins(index: int, within: range, hashes: Sequence[tuple[int, str]], starts: Sequence[int], reach: float) -> bool:
    low = bisect_left(starts, starts[index] - reach, within.start, index)
    own = hashes[index]
    if any(hashes[i] > own for i in range(index - 1, low - 1, -1)):
        return False
    high = index + 1
    while high < within.stop and starts[high] - starts[index] <= reach:
        if hashes[high] > own:
            return False
        high += 1
    return True


def parts(sizes: Sequence[int], target: int) -> list[range]:
    """Where the numbered parts of a person end who is larger than a shard may be."""
    found, begin, total = [], 0, 0
    for index, size in enumerate(sizes):
        if index > begin and total + size > target:
            found.append(range(begin, index))
            begin, total = index, 0
        total += size
    return [*found, range(begin, len(sizes))] if sizes else []


def _hash(domain: bytes, text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8, person=domain).digest(), "big")
