"""WebDataset tars with a Parquet sidecar: what is in a sample and how the bytes are laid out.

Everything here is a function of its arguments: the same samples give the same bytes, on every
machine.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

import pyarrow as pa

from schemas.samples import LATE, METADATA, SAMPLES

CODE_VERSION = 3
"""Raised by whoever changes the bytes that the same samples give."""


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


def write_tar(samples: Iterable[Sample], name: str, file: IO[bytes]) -> pa.Table:
    """Write a tar of `samples` into `file` (open for reading and writing, empty); the rows of
    SAMPLES for it.

    `name` is the file name that the rows give. Images keep their bytes.
    """
    from webdataset import TarWriter  # slow to import, and planning does not need it

    rows: list[dict[str, Any]] = []
    with TarWriter(
        file, encoder=False, mtime=0, user="idcluster", group="idcluster", mode=0o644
    ) as writer:
        for sample in samples:
            files = files_of(sample)
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
        offset, length = places[f"{row['key']}.{extension(row['format'])}"]
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
    rows = write_tar(samples, name, file)
    return file.getvalue(), rows


def files_of(sample: Sample) -> dict[str, bytes]:
    """The members of a sample by their ending."""
    return {
        "json": metadata_json(sample.metadata),
        extension(sample.metadata["format"]): sample.picture,
        **sample.members,
    }


def metadata_json(metadata: Mapping[str, Any]) -> bytes:
    """The .json member: sorted keys, null for what there is not; late columns are left out then."""
    said = {
        name: metadata[name]
        for name in METADATA
        if name not in LATE or metadata.get(name) is not None
    }
    return json.dumps(said, sort_keys=True, ensure_ascii=False).encode()


def extension(format: str) -> str:
    """Of the image's member."""
    return {"jpeg": "jpg"}.get(format, format)
