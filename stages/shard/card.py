"""What is said of a set of shards: `dataset.json` for programs and a data card in Markdown for
people.

Both are functions of what is in the set and how it was made; neither has a date or a name of a run,
so the same set has the same card.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from schemas import TABLES
from stages.shard.loaders import card_head
from stages.shard.params import MEMBERS, ShardParams
from stages.shard.splits import SPLITS
from stages.shard.webdataset import IMAGE, late_of

FORMAT = 1
"""Of `dataset.json`."""

_WHY = {
    "same_person": "is another name's person, with fewer images",
    "shared_picture": "the image is kept under several people's names",
    "flagged": "the person has a flag with which people are withheld until somebody looked",
    "second_face": "another face of the same person in the same image",
    "same_picture": "the same file is there under another address",
    "licence": "the licence is not on the list of those that may leave",
    "small_picture": "the image is smaller than asked",
    "small_face": "the face is smaller than asked",
    "nsfw": "the screening's limit for nudity, or not measured",
    "minor": "the screening's limit for age, or not measured",
    "few_pictures": "the person has fewer images than asked",
    "near_benchmark": "is near, or shares an image with, somebody in the benchmark",
    "few_for_benchmark": "was listed for the benchmark and has too few images for it",
    "listed_out": "the list of splits says none",
    "benchmark_surplus": "more images of a benchmark's person than its references and targets",
}


_COUNTED = {
    schema.need or next(iter(schema.members), schema.name): tuple(
        str(column.sample) for column in schema.samples
    )
    for schema in TABLES.values()
    if schema.parent == "faces" and schema.samples
}
"""What samples can lack, and the columns that are null then."""
_FIRST = ("caption", "points", "head", "mask")
"""What a card has always counted, also where no sample has it."""


@dataclass
class Contents:
    """What is in a set of shards, counted sample by sample in the order of the shards."""

    splits: dict[str, dict[str, int]] = field(
        default_factory=lambda: {split: _nothing() for split in SPLITS}
    )
    licences: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    formats: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)
    """Samples without what others have, by what a profile calls it."""
    late: set[str] = field(default_factory=set)
    """The late columns that some sample has."""
    _samples: int = 0
    _last: dict[str, str] = field(default_factory=dict)

    def add(self, row: Mapping[str, Any]) -> None:
        """A sample; those of a person follow one another in their split."""
        split = self.splits[row["split"]]
        split["samples"] += 1
        split["bytes"] += row["size"]
        if self._last.get(row["split"]) != row["canonical_id"]:
            split["people"] += 1
            self._last[row["split"]] = row["canonical_id"]
        self.licences[row["licence"] or "none stated"] += 1
        self.sources[row["source"] or "unknown"] += 1
        self.formats[row["format"]] += 1
        self.late |= late_of([row])
        for name, columns in _COUNTED.items():
            self.missing[name] += all(row.get(column) is None for column in columns)
            self._samples += name == _FIRST[0]

    def as_json(self) -> dict[str, Any]:
        counted = {
            "licences": self.licences,
            "sources": self.sources,
            "formats": self.formats,
            "missing": +Counter(
                {
                    name: count
                    for name, count in self.missing.items()
                    if name in _FIRST or count < self._samples
                }
            ),
        }
        return {
            "splits": self.splits,
            **{name: dict(_ranked(counts)) for name, counts in counted.items()},
            **({"late": sorted(self.late)} if self.late else {}),
        }


def _in_order(about: Mapping[str, Any]) -> dict[str, Any]:
    """What is counted, the most frequent first: a snapshot keeps it in another order."""
    counted = ("licences", "sources", "formats", "missing", "withheld")
    return {
        name: dict(_ranked(value)) if name in counted else value for name, value in about.items()
    }


def _nothing() -> dict[str, int]:
    return {"people": 0, "samples": 0, "bytes": 0}


def _ranked(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def withheld_counts(reasons: Iterable[str]) -> dict[str, int]:
    return dict(_ranked(Counter(reasons)))


def dataset_json(
    name: str,
    version: str,
    params: Mapping[str, Any],
    about: Mapping[str, Any],
    stages: Mapping[str, Any],
) -> bytes:
    """`about`: `Contents.as_json` with `withheld`, and `remarks` where there are any; `stages`:
    table to its description.
    """
    contents = {name: value for name, value in about.items() if name not in ("withheld", "remarks")}
    shown = {
        "format": FORMAT,
        "name": name,
        "version": version,
        "contents": contents,
        "withheld": about.get("withheld", {}),
        **_remarks(about),
        "parameters": dict(params),
        "stages": dict(stages),
    }
    return (json.dumps(shown, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _remarks(about: Mapping[str, Any]) -> dict[str, Any]:
    return {"remarks": list(about["remarks"])} if about.get("remarks") else {}


def data_card(
    name: str,
    version: str,
    given: Mapping[str, Any],
    about: Mapping[str, Any],
    stages: Mapping[str, Any],
    listed: Sequence[Mapping[str, Any]] = (),
) -> bytes:
    """The card; arguments as for `dataset_json`, and `url` and `split` of every tar."""
    params = ShardParams.model_validate(dict(given))
    about = _in_order(about)
    splits = {split: about["splits"][split] for split in SPLITS}
    splits = {split: counts for split, counts in splits.items() if counts["samples"]}
    samples = sum(counts["samples"] for counts in splits.values())
    people = sum(counts["people"] for counts in splits.values())
    members = {
        "`.json`": "everything known about it",
        **{f"`.{MEMBERS[c].ending}`": MEMBERS[c].says for c in params.include},
    }
    text = [
        f"---\n{card_head(name, params, about, listed)}---",
        f"# {name}: {samples:,} {'image' if samples == 1 else 'images'} of {people:,} "
        f"{'person' if people == 1 else 'people'}",
        "",
        "One face of one person a sample, grouped by person. The images are the "
        + (
            "originals, without the places in their metadata"
            if params.strip_gps
            else "original files, byte for byte"
        )
        + f". Made by idcluster; set version `{version}`.",
        "",
        "**Faces are biometric data.** Who uses this set needs a legal ground for it, and a "
        "licence for every image.",
        "",
        *_table(
            ("split", "people", "images", "MB"),
            [
                (split, count["people"], count["samples"], f"{count['bytes'] / 1e6:.1f}")
                for split, count in splits.items()
            ],
        ),
        *(f"\n**Note:** {_line(remark)}." for remark in about.get("remarks", ())),
        "",
        "No person is in two splits; nor are people who look alike or share an image."
        + (
            f" Each person of the benchmark has {params.references} references and "
            f"{params.targets} "
            f"{'target' if params.targets == 1 else 'targets'} (`role`)."
            if "benchmark" in splits
            else ""
        ),
        "",
        "## What is in a sample",
        "",
        *_table(
            ("member", "holds"),
            [(f"`.{IMAGE}`", f"the image: {', '.join(about['formats']) or '-'}"), *members.items()],
        ),
        "",
        "Whatever the format of an image, its member ends in `.jpg`: decoders go by the content. "
        "`format` in the metadata names it. In the `.json`, an empty text or list stands for what "
        "is absent.",
        "",
        "Beside each tar lies a `.parquet` with one row a sample, places in the tar included. "
        "`index.json` lists the shards for idcluster; `croissant.json` describes them for programs "
        "that read Croissant. `datasets.load_dataset` takes this folder.",
        *_missing(about["missing"], samples),
        "",
        "## Sources and licences",
        "",
        *_table(("source", "images"), about["sources"].items()),
        "",
        *_table(("licence, as the source states it", "images"), about["licences"].items()),
        "",
        "Author and page of each image are in its metadata, where the source states them.",
        "",
        "## How it was made",
        "",
        *_table(
            ("table", "backend", "parameters", "weights"),
            [(table, *_stage(stage)) for table, stage in sorted(stages.items())],
        ),
        "",
        "Rules for what may leave: " + _rules(params) + ".",
        "",
        "## What was withheld",
        "",
        *_withheld(about.get("withheld", {})),
        "",
        "## Known limits",
        "",
        "- Who an image shows follows from where it was found and from likeness to the person's "
        "other images; some are wrong.",
        "- Likeness is measured by a recogniser, whose errors are not the same for all groups of "
        "people.",
        "- Captions and measurements come from the models named above and were not checked by "
        "hand.",
        "",
        "## To be removed",
        "",
        (
            f"Write to {_line(params.contact)}. "
            if params.contact
            else "Write to whoever gave you this set. "
        )
        + "Who has a copy of this set compares it with `removals.json`, where there is one, and "
        "deletes what it names.",
    ]
    return ("\n".join(text) + "\n").encode()


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    body = [[_line(cell) for cell in row] for row in rows]
    if not body:
        return ["Nothing."]
    return [f"| {' | '.join(line)} |" for line in (list(head), ["---"] * len(head), *body)]


def _line(cell: Any) -> str:
    """Text from elsewhere as one cell of a Markdown table: no markup, no new line."""
    text = f"{cell:,}" if isinstance(cell, int) else " ".join(str(cell).split())
    return text.replace("|", "\\|").replace("<", "&lt;").replace("[", "\\[")


def _missing(missing: Mapping[str, int], samples: int) -> list[str]:
    told = [f"{count:,} no {name}" for name, count in missing.items() if 0 < count < samples]
    return ["", f"Of the samples, {', '.join(told)}."] if told else []


def _stage(stage: Mapping[str, Any]) -> tuple[str, str, str]:
    params = ", ".join(
        f"{name} {json.dumps(value, ensure_ascii=False)}"
        for name, value in sorted(stage.get("params", {}).items())
    )
    weights = ", ".join(
        f"{name} {digest[:12]}" for name, digest in sorted(stage.get("weights", {}).items())
    )
    return str(stage.get("backend", "")), params or "-", weights or "-"


def _rules(params: ShardParams) -> str:
    rules = []
    if params.licences is not None:
        rules.append("licences " + ", ".join(map(_line, params.licences)))
    if params.min_side:
        rules.append(f"images of {params.min_side} pixels or more")
    if params.min_face_side:
        rules.append(f"faces of {params.min_face_side:g} pixels or more")
    if params.max_nsfw is not None:
        rules.append(f"nudity at most {params.max_nsfw:g}")
    if params.min_age is not None:
        rules.append(f"apparent age of {params.min_age:g} or more")
    if params.min_pictures > 1:
        rules.append(f"people with {params.min_pictures} images or more")
    if params.need:
        rules.append("samples with " + ", ".join(params.need))
    return "; ".join(rules) or "none beyond cleaning"


def _withheld(counts: Mapping[str, int]) -> list[str]:
    if not counts:
        return ["Nothing: every kept face is a sample."]
    said = [
        (reason, _WHY.get(reason, reason.replace("_", " ")), count)
        for reason, count in counts.items()
    ]
    return _table(("reason", "", "kept faces"), said)
