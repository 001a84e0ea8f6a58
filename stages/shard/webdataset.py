"""WebDataset tars with a Parquet sidecar: what is in a sample and how the bytes are laid out.

Everything here is a function of its arguments: the same samples give the same bytes, on every
machine.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

import pyarrow as pa

from schemas.samples import LATE, METADATA, SAMPLES

CODE_VERSION = 4
"""Raised by whoever changes the bytes that the same samples give."""
IMAGE = "jpg"
"""The ending of the image's member, whatever its format: webdataset and Hugging Face choose a
decoder by the ending, and that one goes by the content.
"""
_ABSENT: Mapping[str, Any] = {"role_number": 0, "mask_coverage": 0.0}
"""Numbers that say by their value that there is nothing."""


@dataclass(frozen=True)
class Sample:
    """One kept face with its image. `metadata` has the keys of METADATA, `members` further files
    by their ending.
    """

    metadata: Mapping[str, Any]
    picture: bytes
    members: Mapping[str, bytes] = field(default_factory=dict)


def sample_key(identity_id: str, image_id: str) -> str:
    """No dots and no slashes: a WebDataset key ends at the first dot."""
    return f"{identity_id}_{image_id}"


def write_tar(
    samples: Iterable[Sample], name: str, file: IO[bytes], late: Collection[str] = ()
) -> pa.Table:
    """Write a tar of `samples` into `file` (open for reading and writing, empty); the rows of
    SAMPLES for it.

    `name` is the file name that the rows give, `late` what `late_of` gives for the samples. Images
    keep their bytes.
    """
    from webdataset import TarWriter  # slow to import, and planning does not need it

    rows: list[dict[str, Any]] = []
    with TarWriter(
        file, encoder=False, mtime=0, user="idcluster", group="idcluster", mode=0o644
    ) as writer:
        for sample in samples:
            files = files_of(sample, late)
            rows.append(
                {
                    **sample.metadata,
                    "members": {
                        ending: hashlib.sha256(data).hexdigest() for ending, data in files.items()
                    },
                }
            )
            writer.write({"__key__": sample.metadata["key"], **files})
    file.seek(0)
    with tarfile.open(fileobj=file, mode="r:") as tar:
        places = {member.name: (member.offset_data, member.size) for member in tar}
    for row in rows:
        members = [
            (ending, *places[f"{row['key']}.{ending}"], digest)
            for ending, digest in row["members"].items()
        ]
        row["members"] = sorted(
            (
                {"name": ending, "offset": offset, "length": length, "sha256": digest}
                for ending, offset, length, digest in members
            ),
            key=lambda member: int(member["offset"]),
        )
        offset, length = places[f"{row['key']}.{IMAGE}"]
        mask_offset, mask_length = places.get(f"{row['key']}.mask.png", (None, None))
        row |= {
            "shard": name,
            "image_offset": offset,
            "image_length": length,
            "mask_offset": mask_offset,
            "mask_length": mask_length,
        }
    return without_empty_late(SAMPLES.build(rows))


def without_empty_late(rows: pa.Table) -> pa.Table:
    """Rows of SAMPLES without the late columns that none of them has."""
    late = [name for name in rows.column_names if name in LATE]
    return rows.drop_columns([name for name in late if rows[name].null_count == len(rows)])


def tar_bytes(samples: Iterable[Sample], name: str) -> tuple[bytes, pa.Table]:
    """`write_tar` in memory."""
    file = io.BytesIO()
    listed = list(samples)
    rows = write_tar(listed, name, file, late_of(sample.metadata for sample in listed))
    return file.getvalue(), rows


def files_of(sample: Sample, late: Collection[str] = ()) -> dict[str, bytes]:
    """The members of a sample by their ending."""
    return {"json": metadata_json(sample.metadata, late), IMAGE: sample.picture, **sample.members}


def late_of(rows: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """The late columns that the samples of a shard have: each says something of them then."""
    return frozenset(name for row in rows for name in LATE if row.get(name) is not None)


def metadata_json(metadata: Mapping[str, Any], late: Collection[str] = ()) -> bytes:
    """The .json member: sorted keys, late columns where `late` names them or there is something.

    Loaders take the type of a field from the first samples that they see. So what is absent is an
    empty text or list where the column holds such, and null only for numbers.
    """
    said = {
        name: _absent(name) if metadata.get(name) is None else metadata[name]
        for name in METADATA
        if name not in LATE or name in late or metadata.get(name) is not None
    }
    return json.dumps(said, sort_keys=True, ensure_ascii=False).encode()


def _absent(name: str) -> Any:
    kind = SAMPLES.arrow.field(name).type
    if pa.types.is_string(kind):
        return ""
    return [] if pa.types.is_list(kind) else _ABSENT.get(name)
