"""Cleaning against truth: real photographs of people, as they are and with other people mixed in.

Detection and embedding are done once for each pipeline; then hundreds of made-up people are cleaned
in memory, by the default rule and by FlashFace's. What is mixed in is drawn with a fixed seed: 10
to 40 % of a person's photographs are

- `strangers`: of at least five other people; `namesake`: all of one other person; `sister`: of
  Serena among Venus
  Williams and the other way round;
- `groups`: images of several people without the person; `copies`: smaller, compressed and cut
  copies of a third of the
  person's own photographs, which count as kept if they are found to be copies; `no faces`: images
  of things.

Then folders as a web search fills them (tests/bench/crowded.py), up to 86 % of which are other
people, beside four peers on the same vectors: precision, recall, folders in which somebody else was
kept, folders that were refused. `--seeds 3` composes more.

Needs the photographs and weights that may not be redistributed, beside the checkout.
"""

import csv
import io
import multiprocessing
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image
from rich.console import Console
from rich.table import Table

from eval.cleaning.judge import Judged, Report, judge
from eval.cleaning.truth import Label, read_labels
from stages.backends import backend
from stages.clean.kmeans_paper import KMeansPaperClean
from stages.clean.linkage import LinkageClean
from stages.embed.calibration import CALIBRATION
from stages.pictures import PictureError, decode, perceptual_hash
from stages.stage import Picture, Stage
from stages.weights import WeightFiles
from tests.bench import crowded
from tests.bench.clean_peers import PEERS
from tests.bench.material import SHARED

PIPELINES: dict[str, tuple[tuple[str, dict[str, Any]], tuple[str, dict[str, Any]]]] = {
    "SCRFD 2.5G + EdgeFace-XS": (
        ("scrfd", {"scales": (640, 320)}),
        ("arcface", {"weights": "edgeface_xs"}),
    ),
    "dlib (embedded default)": (("dlib", {}), ("dlib", {})),
}
REPEATS, LEAST, SEED = 5, 3, 0
SHARES = (0.1, 0.4)
SISTERS = ("serena_williams", "venus_williams")
CAST = ("bbt_",)
"""People of one series, who are in all group images of it."""
NO_SERVICES: Any = None


@dataclass(frozen=True)
class Case:
    """A made-up person: under whose name which images are. `copies`: which of them are copies of
    another one.
    """

    name: str
    person: str
    files: tuple[str, ...]
    copies: dict[str, str] = field(default_factory=dict)


def main() -> None:
    console = Console(width=150)
    if not (SHARED / "data" / "photos").is_dir() or not (SHARED / "models").is_dir():
        console.print(
            "the photographs and weights are not beside this checkout: nothing to measure"
        )
        return
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
    with multiprocessing.get_context("spawn").Pool(len(PIPELINES)) as pool:
        for name, found in zip(PIPELINES, pool.map(_measure, PIPELINES), strict=True):
            tables, remarks = found
            for table in tables:
                table.title = name
                console.print(table)
            for remark in remarks:
                console.print(remark, highlight=False, markup=False)
            console.print()


def _measure(pipeline: str) -> tuple[list[Table], list[str]]:
    (detect, detect_params), (embed, embed_params) = PIPELINES[pipeline]
    detector, embedder = (
        backend("detect", detect)(detect_params),
        backend("embed", embed)(embed_params),
    )
    for loaded in (detector, embedder):
        loaded.setup(WeightFiles(str(SHARED / "models")))
    labels = read_labels(SHARED / "data" / "photos" / "LABELS.csv")
    seeds = int(sys.argv[sys.argv.index("--seeds") + 1]) if "--seeds" in sys.argv else 1
    composed = crowded.folders(seeds) if crowded.MAKER.is_file() else []
    made = crowded.versions(dict.fromkeys(file for one in composed for file in one.files))
    rows = faces(detector, embedder, chain(_pictures(labels), made))
    limits = CALIBRATION[str(getattr(embedder, "recogniser", ""))]
    names = (
        "similarity_threshold",
        "merge_cosine",
        "join_cosine",
        "same_cosine",
        "duplicate_cosine",
        "vote_cosine",
    )
    ours = LinkageClean({name: getattr(limits, name) for name in names})
    rules = {
        "default": ours,
        "paper, k = 2": KMeansPaperClean({"similarity_threshold": limits.similarity_threshold}),
        "paper, k = 3": KMeansPaperClean(
            {"similarity_threshold": limits.similarity_threshold, "k": 3}
        ),
    }
    table = Table(box=None, pad_edge=False, title_justify="left")
    for column in (
        "rule",
        "mixed in",
        "precision",
        "recall",
        "F1",
        "kept rightly",
        "wrongly",
        "lost",
        "wrong there",
        "apart, kept of all",
    ):
        table.add_column(
            column,
            justify="left" if column in ("rule", "mixed in", "apart, kept of all") else "right",
        )
    remarks: list[str] = []
    for rule, stage in rules.items():
        for mixed, cases in variants(labels):
            report, verdicts = clean(stage, rows, cases, labels)
            table.add_row(rule, mixed, *_cells(report))
            if rule == "default":
                remarks += _remarks(mixed, report, verdicts, cases)
    if not composed:
        return [table], [
            *remarks,
            "the composer of crowded folders is not beside this checkout: they were not measured",
        ]
    cleaned = crowded.Cleaned(rows, ours, limits)
    found = cleaned.measure(composed)
    seconds = ", ".join(f"{rule} {spent:.1f} s" for rule, spent in cleaned.seconds.items())
    return [table, _crowded(found)], [
        *remarks,
        f"processor time on {len(composed)} crowded folders: {seconds}",
    ]


def _crowded(found: dict[str, dict[tuple[str, bool], crowded.Score]]) -> Table:
    """A row a set: precision, recall, folders with somebody else, folders refused; near ties are
    taken out of their sets.
    """
    table = Table(
        box=None,
        pad_edge=False,
        title_justify="left",
        caption="precision, recall, folders with somebody else, refused",
    )
    for column in ("folders", "of", "ours: people looked at", "never looked at", *PEERS):
        table.add_column(column, justify="left" if column == "folders" else "right")
    total: dict[tuple[str, bool], crowded.Score] = {}
    for name in dict.fromkeys(name for name, _ in found[crowded.OURS]):
        mine = [
            found[crowded.OURS].get((name, unseen), crowded.Score()) for unseen in (False, True)
        ]
        peers = [
            crowded.total(
                found[peer].get((name, unseen), crowded.Score()) for unseen in (False, True)
            )
            for peer in PEERS
        ]
        table.add_row(
            name, str(sum(one.folders for one in mine)), *map(str, mine), *map(str, peers)
        )
        if not name.startswith(crowded.APART):
            for rule in found:
                for unseen in (False, True):
                    before = total.get((rule, unseen), crowded.Score())
                    total[rule, unseen] = crowded.total(
                        [before, found[rule].get((name, unseen), crowded.Score())]
                    )
    ours = [total[crowded.OURS, unseen] for unseen in (False, True)]
    peers = [crowded.total(total[peer, unseen] for unseen in (False, True)) for peer in PEERS]
    table.add_row(
        "all but the above and ties",
        str(sum(one.folders for one in ours)),
        *map(str, ours),
        *map(str, peers),
    )
    return table


def _cells(report: Report) -> tuple[str, ...]:
    total = report.total
    wrong = int((~report.right).sum())
    apart = ", ".join(f"{name} {kept}/{there}" for name, (there, kept) in report.apart.items())
    ratios = (f"{value:.4f}" for value in (total.precision, total.recall, total.f1))
    return (*ratios, str(total.right), str(total.wrong), str(total.lost), str(wrong), apart)


# What there is


def faces(detect: Stage, embed: Stage, pictures: Iterable[tuple[str, bytes]]) -> pa.Table:
    """All faces of all images, as the clean stage reads them; identity_id is empty, image_id the
    name of the file.
    """
    found = []
    for file, data in pictures:
        try:
            rgb = decode(data)
        except PictureError:
            continue
        picture = {file: Picture(file, rgb)}
        rows = detect.run(pa.table({"identity_id": [""], "image_id": [file]}), picture, NO_SERVICES)
        rows = rows.filter(pc.equal(rows["status"], "ok"))
        if not rows.num_rows:
            continue
        keys = ("identity_id", "image_id", "face_id")
        rows = rows.rename_columns(
            [name if name in keys else f"faces.{name}" for name in rows.column_names]
        )
        vectors = embed.run(rows, picture, NO_SERVICES)
        count = rows.num_rows
        columns = {
            **{
                name: rows[name]
                for name in (*keys, "faces.side", "faces.sharpness", "faces.status")
            },
            **{f"embeddings.{name}": vectors[name] for name in ("vector", "recogniser", "status")},
            "images.phash": pa.array([perceptual_hash(data)] * count, pa.uint64()),
            "images.width": pa.array([rgb.shape[1]] * count, pa.int32()),
            "images.height": pa.array([rgb.shape[0]] * count, pa.int32()),
            **{
                f"screenings.{name}": pa.nulls(count, kind)
                for name, kind in (("status", pa.string()), ("compared", pa.bool_()))
            },
            "overrides.action": pa.nulls(count, pa.string()),
            "candidates.reference": pa.nulls(count, pa.string()),
        }
        found.append(pa.table(columns))
    rows = pa.concat_tables(found).combine_chunks()
    return rows.filter(pc.equal(rows["embeddings.status"], "ok"))


def _pictures(labels: dict[str, Label]) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of the photographs, of copies that are made of some, and of images of
    groups and of things.
    """
    photos, data = SHARED / "data" / "photos", SHARED / "data"
    for file in labels:
        original = (photos / file).read_bytes()
        yield file, original
        if file in _copied(labels):
            for kind, made in _copies(original).items():
                yield f"{file}#{kind}", made
    for folder in (data / "group_photos", data / "extra" / "no_face"):
        for path in sorted(folder.iterdir()):
            if path.suffix != ".csv":
                yield f"{folder.name}/{path.name}", path.read_bytes()


def _copied(labels: dict[str, Label]) -> list[str]:
    return [file for file, label in labels.items() if label.truth == "right"][::3]


def _copies(data: bytes) -> dict[str, bytes]:
    """What becomes of a photograph on its way through the web."""
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    width, height = picture.size
    small = picture.resize(
        (max(1, width * 2 // 3), max(1, height * 2 // 3)), Image.Resampling.LANCZOS
    )
    cut = picture.crop((width // 12, height // 12, width - width // 12, height - height // 12))
    return {"small": _jpeg(small, 75), "cut": _jpeg(cut, 90), "worse": _jpeg(picture, 50)}


def _jpeg(picture: Image.Image, quality: int) -> bytes:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality)
    return out.getvalue()


# What is made of it


def variants(labels: dict[str, Label]) -> Iterator[tuple[str, list[Case]]]:
    """The names of what is mixed in, and the people with it."""
    people: dict[str, list[str]] = {}
    for file, label in labels.items():
        people.setdefault(str(label.person), []).append(file)
    own = {
        who: [file for file in files if labels[file].truth == "right"]
        for who, files in people.items()
    }
    many = [who for who, files in own.items() if len(files) >= LEAST]
    yield (
        "nothing",
        [Case(who, who, tuple(files), _labelled_copies()) for who, files in people.items()],
    )
    random = np.random.default_rng(SEED)
    turns = [(turn, who) for turn in range(REPEATS) for who in many]
    yield (
        "strangers",
        [_mixed("strangers", turn, who, own, _strangers(random, who, own)) for turn, who in turns],
    )
    yield (
        "namesake",
        [_mixed("namesake", turn, who, own, _namesake(random, who, own)) for turn, who in turns],
    )
    sisters = [
        (turn, share, *pair)
        for turn in range(REPEATS)
        for share in (0.1, 0.2, 0.3, 0.4)
        for pair in (SISTERS, SISTERS[::-1])
    ]
    yield (
        "sister",
        [
            _mixed(
                f"sister {share}",
                turn,
                who,
                own,
                random.permutation(own[other])[: _count(share, own[who])].tolist(),
            )
            for turn, share, who, other in sisters
        ],
    )
    yield (
        "groups",
        [_mixed("groups", turn, who, own, _groups(random, who, own)) for turn, who in turns],
    )
    copied = set(_copied(labels))
    cases = []
    for who in many:
        copies = {
            f"{file}#{kind}": file
            for file in own[who]
            if file in copied
            for kind in ("small", "cut", "worse")
        }
        cases.append(
            Case(f"copies {who}", who, (*own[who], *copies), {**copies, **_labelled_copies()})
        )
    yield "copies", cases
    things = tuple(
        f"no_face/{path.name}" for path in sorted((SHARED / "data" / "extra" / "no_face").iterdir())
    )
    yield "no faces", [Case(f"things {who}", who, (*own[who], *things)) for who in many]


def _mixed(
    what: str, turn: int, who: str, own: dict[str, list[str]], others: Sequence[str]
) -> Case:
    return Case(f"{what} {turn} {who}", who, (*own[who], *others))


def _count(share: float, files: Sequence[str]) -> int:
    """How many further images make `share` of all."""
    return max(1, round(share / (1 - share) * len(files)))


def _strangers(random: np.random.Generator, who: str, own: dict[str, list[str]]) -> list[str]:
    count = _count(random.uniform(*SHARES), own[who])
    others = [other for other in own if other != who and own[other]]
    first = random.permutation(others)[: max(5, count)].tolist()
    chosen = [str(random.choice(own[other])) for other in first[:count]]
    left = [file for other in first for file in own[other] if file not in chosen]
    return chosen + random.permutation(left)[: count - len(chosen)].tolist()


def _namesake(random: np.random.Generator, who: str, own: dict[str, list[str]]) -> list[str]:
    count = _count(random.uniform(*SHARES), own[who])
    other = str(
        random.choice([other for other in own if other != who and len(own[other]) >= count])
    )
    found: list[str] = random.permutation(own[other])[:count].tolist()
    return found


def _groups(random: np.random.Generator, who: str, own: dict[str, list[str]]) -> list[str]:
    with (SHARED / "data" / "group_photos" / "LABELS.csv").open(
        newline="", encoding="utf-8"
    ) as file:
        shown = {
            row["file"]: {*row["people"].split(";"), *row["people_by_embedding"].split(";")}
            for row in csv.DictReader(file)
        }
    cast = next((prefix for prefix in CAST if who.startswith(prefix)), None)
    fit = [
        name
        for name, there in shown.items()
        if who not in there and not (cast and any(one.startswith(cast) for one in there))
    ]
    found = random.permutation(fit)[: _count(random.uniform(*SHARES), own[who])].tolist()
    return [f"group_photos/{name}" for name in found]


def _labelled_copies() -> dict[str, str]:
    """Near-duplicates that the labels name: file to file."""
    with (SHARED / "data" / "photos" / "LABELS.csv").open(newline="", encoding="utf-8") as file:
        notes = {row["file"]: row["note"] for row in csv.DictReader(file)}
    return {
        name: note.split("near-duplicate of ")[1].split(";")[0].strip()
        for name, note in notes.items()
        if "near-duplicate of " in note
    }


def clean(
    stage: Stage, rows: pa.Table, cases: Sequence[Case], labels: dict[str, Label]
) -> tuple[Report, list[dict[str, Any]]]:
    """What the stage makes of the cases against truth, and its rows with the names of cases and
    files.
    """
    places: dict[str, list[int]] = {}
    for at, file in enumerate(rows["image_id"].to_pylist()):
        places.setdefault(file, []).append(at)
    chosen = [
        (at, case.name) for case in cases for file in case.files for at in places.get(file, ())
    ]
    given = rows.take(pa.array([at for at, _ in chosen])).set_column(
        0, "identity_id", pa.array([name for _, name in chosen])
    )
    verdicts = stage.run(given, {}, NO_SERVICES).to_pylist()
    by_picture: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in verdicts:
        by_picture.setdefault((row["identity_id"], row["image_id"]), []).append(row)
    photographs, truth = [], {}
    for case in cases:
        for file in case.files:
            found = by_picture.get((case.name, file), [])
            kept = any(row["keep"] or row["reason"] == "duplicate" for row in found)
            near = [
                row["similarity"]
                for row in found
                if row["cluster"] == 0 and row["similarity"] is not None
            ]
            reason = found[0]["reason"] if found else "no_face"
            photographs.append(
                Judged(
                    case.name,
                    f"{case.name}/{file}",
                    kept,
                    max(near, default=None),
                    None if kept else reason,
                )
            )
            label = labels.get(file.partition("#")[0])
            mine = label is not None and label.person == case.person
            truth[f"{case.name}/{file}"] = Label(label.truth if mine and label else "wrong", None)
    return judge(photographs, truth), verdicts


def _remarks(
    mixed: str, report: Report, verdicts: list[dict[str, Any]], cases: Sequence[Case]
) -> list[str]:
    found = []
    if report.lost:
        found.append(
            f"{mixed}: lost for "
            f"{', '.join(f'{reason} {count}' for reason, count in report.lost.items())}"
        )
    worst = [f"{name} ({one.wrong} wrongly, {one.lost} lost)" for name, one in report.worst(4)]
    if worst:
        found.append(f"{mixed}: worst {', '.join(worst)}")
    known = {
        (case.name, frozenset((copy, of))) for case in cases for copy, of in case.copies.items()
    }
    known |= {(case.name, frozenset(pair)) for case in cases for pair in _siblings(case.copies)}
    images = {(row["identity_id"], row["face_id"]): row["image_id"] for row in verdicts}
    marked = [
        (row["identity_id"], row["image_id"], images[row["identity_id"], row["duplicate_of"]])
        for row in verdicts
        if row["duplicate_of"]
    ]
    if mixed in ("nothing", "copies"):
        right = Counter((name, frozenset((one, other))) in known for name, one, other in marked)
        there = {
            (name, image)
            for name, image in ((row["identity_id"], row["image_id"]) for row in verdicts)
        }
        wanted = sum(
            (case.name, copy) in there and (case.name, of) in there
            for case in cases
            for copy, of in case.copies.items()
        )
        found.append(
            f"{mixed}: of {wanted} known copies {right[True]} faces are marked so, and "
            f"{right[False]} others"
        )
        others = [
            f"{one} = {other}"
            for name, one, other in marked
            if (name, frozenset((one, other))) not in known
        ]
        if mixed == "nothing" and others:
            found.append(f"{mixed}: marked without a label: {', '.join(others)}")
    return found


def _siblings(copies: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Copies of one photograph are copies of one another."""
    for one, of in copies.items():
        for other, also in copies.items():
            if one < other and of == also:
                yield one, other


if __name__ == "__main__":
    main()
