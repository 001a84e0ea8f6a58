"""Tars that other programs read, byte for byte the same each time, and boundaries that a change
moves only nearby.
"""

import hashlib
import io
import json
import tarfile
from typing import Any

from schemas.samples import METADATA, SAMPLES
from stages.shard.webdataset import Sample, sample_key, tar_bytes


def sample(number: int, **changes: Any) -> Sample:
    who, which = f"{number // 2:016x}", f"{number:024x}"
    data = bytes([number % 256]) * (number * 700 + 1)
    values: dict[str, Any] = dict.fromkeys(METADATA)
    values |= {
        "key": sample_key(who, which),
        "canonical_id": who,
        "identity_id": who,
        "image_id": which,
        "face_id": which,
        "split": "train",
        "name": "Zoë O'Brien, Jr.",
        "address": "local:Zoë O'Brien, Jr./a.b.c.jpg",
        "format": "jpeg",
        "sha256": hashlib.sha256(data).hexdigest(),
        "box": [1.0, 2.0, 3.5, 4.0],
        **changes,
    }
    return Sample(values, data, {"mask.png": b"mask"} if number % 2 else {})


def test_members_offsets_and_metadata() -> None:
    samples = [
        sample(number, format=("jpeg", "png", "webp", "gif")[number % 4]) for number in range(8)
    ]
    data, rows = tar_bytes(samples, "train-0.tar")
    assert rows.schema.equals(SAMPLES.arrow)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in tar} == {
            (0, 0, 0, "idcluster", "idcluster", 0o644)
        }
        names = tar.getnames()
        metadata = json.loads(tar.extractfile(f"{samples[0].metadata['key']}.json").read())  # type: ignore[union-attr]
    assert metadata.keys() == samples[0].metadata.keys()
    assert {name: value or None for name, value in metadata.items()} == samples[0].metadata
    assert metadata["licence"] == "" and metadata["points"] == [] and metadata["yaw"] is None
    assert names[:2] == [f"{samples[0].metadata['key']}.jpg", f"{samples[0].metadata['key']}.json"]
    assert not any("/" in name or "Zo" in name for name in names)
    for row, given_sample in zip(rows.to_pylist(), samples, strict=True):
        assert (
            data[row["image_offset"] : row["image_offset"] + row["image_length"]]
            == given_sample.picture
        )
        assert hashlib.sha256(given_sample.picture).hexdigest() == row["sha256"]
        assert row["shard"] == "train-0.tar"
        if not given_sample.members:
            assert row["mask_offset"] is None and row["mask_length"] is None
        else:
            assert data[row["mask_offset"] : row["mask_offset"] + row["mask_length"]] == b"mask"


def test_the_same_samples_give_the_same_bytes() -> None:
    assert (
        tar_bytes(map(sample, range(5)), "a.tar")[0] == tar_bytes(map(sample, range(5)), "a.tar")[0]
    )
