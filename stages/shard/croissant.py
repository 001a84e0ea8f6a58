"""`croissant.json`: what a set of shards holds, for programs that read Croissant, the metadata
format for machine learning of MLCommons (version 1.1, https://docs.mlcommons.org/croissant/).

Like the data card it is a function of the set: no date, and no place where the set lies.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from schemas.samples import LATE, METADATA, SAMPLES
from stages.shard.params import ShardParams
from stages.shard.splits import SPLITS
from stages.shard.webdataset import IMAGE

_CONTEXT: Mapping[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "arrayShape": "cr:arrayShape",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
_KEY = r"^(?:.*/)?([0-9a-f]+_[0-9a-f]+)\.[a-z]+$"
"""The key of a sample in the name of a member."""


def croissant_json(
    name: str,
    version: str,
    given: Mapping[str, Any],
    about: Mapping[str, Any],
    stages: Mapping[str, Any],
    listed: Sequence[Mapping[str, Any]],
) -> bytes:
    """Arguments as for `stages.shard.card.data_card`; of `listed` also `filesize` and `sha256`."""
    params = ShardParams.model_validate(dict(given))
    samples = sum(counts["samples"] for counts in about["splits"].values())
    people = sum(counts["people"] for counts in about["splits"].values())
    splits = [split for split in SPLITS if about["splits"][split]["samples"]]
    tars = [
        {
            "@type": "cr:FileObject",
            "@id": item["url"],
            "name": item["url"],
            "contentUrl": item["url"],
            "contentSize": f"{item['filesize']} B",
            "encodingFormat": "application/x-tar",
            "sha256": item["sha256"],
        }
        for item in listed
    ]
    shown: dict[str, Any] = {
        "@context": dict(_CONTEXT),
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": name,
        "description": f"{samples:,} images of {people:,} people, one face of one person a sample, "
        "grouped by person. Faces are biometric data: who uses this set needs a legal ground for "
        "it, and a licence for every image. README.md says more.",
        "version": f"1.0.0+{version}",
        "license": sorted(about["licences"]) or ["none stated"],
        "keywords": ["faces", "identity", "webdataset"],
        **(
            {"publisher": {"@type": "sc:Organization", "name": params.contact}}
            if params.contact
            else {}
        ),
        "distribution": [*tars, *(_file_sets(tars, splits) if tars else [])],
        "recordSet": [_samples(about), _images()] if tars else [],
    }
    return (json.dumps(shown, indent=1, ensure_ascii=False) + "\n").encode()


def _file_sets(
    tars: Sequence[Mapping[str, Any]], splits: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """The files beside the tars, and the images in the tars."""
    yield {
        "@type": "cr:FileSet",
        "@id": "rows",
        "name": "rows",
        "description": "beside each tar: what is known of its samples",
        "encodingFormat": "application/x-parquet",
        "includes": [f"{split}-*.parquet" for split in splits],
    }
    yield {
        "@type": "cr:FileSet",
        "@id": "members",
        "name": "members",
        "description": "the images; some are of other formats than their ending says, see `format`",
        "containedIn": [{"@id": tar["@id"]} for tar in tars],
        "encodingFormat": "image/jpeg",
        "includes": f"*.{IMAGE}",
    }


def _samples(about: Mapping[str, Any]) -> dict[str, Any]:
    # A field whose column no file has would stop readers.
    there = [name for name in METADATA if name not in LATE or name in about.get("late", ())]
    return {
        "@type": "cr:RecordSet",
        "@id": "samples",
        "name": "samples",
        "description": "What is known of every sample; `key` is that of `images`.",
        "key": {"@id": "samples/key"},
        "field": [_field(name) for name in there],
    }


def _images() -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": "images",
        "name": "images",
        "description": "The image of every sample; `key` is that of `samples`.",
        "key": {"@id": "images/key"},
        "field": [
            {
                "@type": "cr:Field",
                "@id": "images/key",
                "name": "key",
                "description": "of the sample: identity_id, underscore, image_id",
                "dataType": "sc:Text",
                "source": {
                    "fileSet": {"@id": "members"},
                    "extract": {"fileProperty": "fullpath"},
                    "transform": {"regex": _KEY},
                },
            },
            {
                "@type": "cr:Field",
                "@id": "images/image",
                "name": "image",
                "description": "the image, decoded by its content",
                "dataType": "sc:ImageObject",
                "source": {"fileSet": {"@id": "members"}, "extract": {"fileProperty": "content"}},
            },
        ],
    }


def _field(name: str) -> dict[str, Any]:
    column = next(one for one in SAMPLES.columns if one.name == name)
    kind = column.type
    listed = pa.types.is_list(kind)
    return {
        "@type": "cr:Field",
        "@id": f"samples/{name}",
        "name": name,
        "description": column.description,
        "dataType": _type(kind.value_type if listed else kind),
        **({"repeated": True} if listed else {}),
        "source": {"fileSet": {"@id": "rows"}, "extract": {"column": name}},
    }


def _type(kind: pa.DataType) -> str:
    if pa.types.is_boolean(kind):
        return "sc:Boolean"
    if pa.types.is_integer(kind):
        return "sc:Integer"
    return "sc:Float" if pa.types.is_floating(kind) else "sc:Text"
