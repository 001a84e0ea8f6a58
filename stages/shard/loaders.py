"""The head of a data card, by which Hugging Face's `datasets` and its hub know what a folder of
shards holds: which tars are which split, and the type of every field.

With the types stated, nothing is guessed from the first samples. Keys and types follow the dataset
card metadata of Hugging Face (https://huggingface.co/docs/hub/datasets-manual-configuration).
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import yaml

from schemas.samples import METADATA, SAMPLES
from stages.shard.params import MEMBERS, ShardParams
from stages.shard.splits import SPLITS
from stages.shard.webdataset import IMAGE

_LICENCES = frozenset(
    [
        "cc0-1.0",
        *(
            f"cc-{kind}-{version}"
            for kind in ("by", "by-sa", "by-nc", "by-nd", "by-nc-sa", "by-nc-nd")
            for version in ("2.0", "2.5", "3.0", "4.0")
        ),
        "mit",
        "apache-2.0",
        "odc-by",
        "odbl",
        "pddl",
    ]
)
"""Names under which the hub knows licences of data."""
_SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
    (10**8, "10M<n<100M"),
    (10**9, "100M<n<1B"),
)


def card_head(
    name: str, params: ShardParams, about: Mapping[str, Any], listed: Sequence[Mapping[str, Any]]
) -> str:
    """The YAML of a data card, between its two lines of dashes.

    `about`: `Contents.as_json`; `listed`: `url` and `split` of every tar, in the order of the
    index.
    """
    head: dict[str, Any] = {"pretty_name": name, **_licence(about["licences"])}
    samples = sum(counts["samples"] for counts in about["splits"].values())
    head["size_categories"] = [next((word for limit, word in _SIZES if samples < limit), "n>1T")]
    captions = about["missing"].get("caption", 0) < samples
    head["task_categories"] = [*(["text-to-image"] if captions else []), "image-feature-extraction"]
    head["tags"] = ["webdataset", "faces", "biometric-data"]
    files = [
        {"split": split, "path": mine}
        for split in SPLITS
        if (mine := [one["url"] for one in listed if one["split"] == split])
    ]
    if files:
        head["configs"] = [{"config_name": "default", "data_files": files}]
        head["dataset_info"] = {"features": _features(params)}
    return _dumped(head)


def _licence(stated: Mapping[str, int]) -> dict[str, Any]:
    """One licence where every image has the same, which the hub knows; else `other`."""
    if len(stated) == 1:
        (text,) = stated
        plain = re.sub(r"[\s_-]+", "-", text.strip().lower())
        known = "cc0-1.0" if plain in ("cc0", "cc-zero", "cc0-1.0") else plain
        if known in _LICENCES:
            return {"license": known}
    return {"license": "other", "license_name": "stated-for-each-image"}


@dataclass(frozen=True)
class Feature:
    """A field as Hugging Face's `datasets` knows it: `kind` is image, vector (a list of float32),
    or what `feature_of` gives.
    """

    name: str
    kind: str

    @property
    def dtype(self) -> dict[str, Any]:
        """As in the YAML of a card."""
        if self.kind == "vector":
            return {"list": "float32"}
        if self.kind.endswith("[]"):
            return {"list": self.kind.removesuffix("[]")}
        return {"dtype": self.kind}

    @property
    def as_json(self) -> dict[str, Any]:
        """As in the metadata of a Parquet file."""
        if self.kind == "image":
            return {"_type": "Image"}
        if "list" in self.dtype:
            inner = {"dtype": self.dtype["list"], "_type": "Value"}
            return {"feature": inner, "_type": "List"}
        return {"dtype": self.kind, "_type": "Value"}


def feature_of(name: str) -> Feature:
    """A column of METADATA."""
    return Feature(name, _word(SAMPLES.arrow.field(name).type))


def _word(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"{_word(kind.value_type)}[]"
    return {"float": "float32", "double": "float64"}.get(str(kind), str(kind))


def _features(params: ShardParams) -> list[dict[str, Any]]:
    """Of the samples in the tars: `datasets` gives what is in the .json as one field."""
    struct = [{"name": name, **feature_of(name).dtype} for name in sorted(METADATA)]
    endings = [MEMBERS[condition].ending for condition in params.include]
    members = [Feature(one, "vector" if one.endswith(".npy") else "image") for one in endings]
    return [
        {"name": "json", "struct": struct},
        {"name": IMAGE, "dtype": "image"},
        *({"name": one.name, **one.dtype} for one in members),
        {"name": "__key__", "dtype": "string"},
        {"name": "__url__", "dtype": "string"},
    ]


# The set as Parquet files with images


def exported_head(
    card: str, name: str, splits: Mapping[str, Sequence[str]], features: Iterable[Feature]
) -> str:
    """The card of a set with the files and types of its export in its head."""
    head, body = _parted(card)
    head = {"pretty_name": name, **head}
    head["tags"] = [one for one in head.get("tags", ()) if one != "webdataset"]
    files = [{"split": split, "path": list(names)} for split, names in splits.items() if names]
    for key in ("configs", "dataset_info"):
        head.pop(key, None)
    if files:
        head["configs"] = [{"config_name": "default", "data_files": files}]
        head["dataset_info"] = {"features": [{"name": one.name, **one.dtype} for one in features]}
    note = "This is the set as Parquet files, one for each tar, with images in `image`.\n\n"
    return f"---\n{_dumped(head)}---\n{note}{body}"


def _parted(card: str) -> tuple[dict[str, Any], str]:
    """Head and body of a card."""
    _, opened, rest = card.partition("---\n")
    text, closed, body = rest.partition("\n---\n")
    if not opened or not closed:
        return {}, card
    try:
        head = yaml.safe_load(text)
    except yaml.YAMLError:
        head = None
    return (head, body) if isinstance(head, dict) else ({}, body)


def hub_metadata(features: Iterable[Feature]) -> dict[str, str]:
    """The metadata of a Parquet file by which `datasets` knows which fields are images."""
    known = {one.name: one.as_json for one in features}
    return {"huggingface": json.dumps({"info": {"features": known}}, sort_keys=True)}


def _dumped(head: Mapping[str, Any]) -> str:
    text: str = yaml.safe_dump(dict(head), sort_keys=False, allow_unicode=True, width=10_000)
    return text
