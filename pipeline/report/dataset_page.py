"""A report on a whole dataset: one HTML page with everything in it, for whoever does not ask in
SQL.

The page has no script and asks nobody: plots are SVG, faces small JPEGs, and its
Content-Security-Policy forbids the rest.
"""

import html
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import duckdb

from idcluster.catalogue.connection import connect
from idcluster.catalogue.statistics import AFFECT_STEP, POSE_STEP, compute
from idcluster.root.aside import write_text
from idcluster.root.snapshot import load
from idcluster.root.storage import Store
from pipeline.report import plots as plots
from pipeline.report.html import (
    Run,
    escape,
    figure,
    nothing,
    page,
    people_section,
    runs_table,
    table,
    tiles,
)
from pipeline.report.people import sample_people
from pipeline.report.review_queue import doubtful
from schemas import TABLES
from schemas.samples import SAMPLES
from schemas.wording import counted, verb

RUNS_SHOWN = 20
_STEPS = [schema.step for schema in (*TABLES.values(), SAMPLES) if schema.step is not None]
STEP_NAMES = {step.name: step.label for step in _STEPS}
LOST_NAMES = {step.name: step.lost for step in _STEPS}


@dataclass(frozen=True)
class Made:
    """What was written: people and kept faces of the snapshot, how many people are shown as
    samples, and how many somebody should look at.
    """

    path: Path
    snapshot: int
    people: int
    kept: int
    samples: int
    doubtful: int


def write_report(
    store: Store, output: Path, people: int, snapshot: int | None = None, review: Path | None = None
) -> Made:
    """Write the page to `output`, with at most `people` sample people, and a link to the page
    `review` on which people are decided about. Raises SnapshotError, RunError.
    """
    notes = load(store, snapshot)
    connection = connect(store, snapshot)
    try:
        found = compute(connection)
        samples = sample_people(store, connection, people)
        doubts = doubtful(connection)
        runs = _runs(store, connection, output)
        name = _name(store)
    finally:
        connection.close()
    rows = {key: value.to_pylist() for key, value in found.items()}
    came = {line["step"]: line for line in rows["funnel"]}
    persons = {line["step"]: line for line in rows["people"]}
    nothing_yet = {"came": 0, "went_through": 0}
    kept = came.get("kept", nothing_yet)["went_through"]
    held = sum(line["samples"] for line in rows["shards"])
    head = tiles(
        [
            ("people", persons["offered"]["came"]),
            ("people with a kept face", persons.get("kept", nothing_yet)["went_through"]),
            ("images offered", came["offered"]["came"]),
            ("faces kept", kept),
            ("samples in shards", held),
        ]
    )
    sections = [
        ("Funnel", _funnel(rows)),
        ("People", _people(rows)),
        ("Pictures", _pictures(rows)),
        ("Who is who", _identity(rows)),
        ("To look at", _to_look_at(doubts, review, output)),
        ("Heads and expressions", _heads(rows)),
        ("Captions", _captions(rows)),
        ("Sample people", people_section(samples)),
        ("Failures", _failures(rows)),
        ("Speed and runs", _speed(rows) + runs_table(runs)),
    ]
    published = notes.notes.get("published")
    about = (
        f"Snapshot {notes.number}"
        + (f", published {published}" if published else "")
        + f", of {store.root}"
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    write_text(output, page(name, about, head, sections))
    return Made(output, notes.number, persons["offered"]["came"], kept, len(samples), doubts)


def _to_look_at(doubts: int, review: Path | None, output: Path) -> str:
    """How many people are doubtful, and where they are decided about."""
    if not doubts:
        return nothing("Nobody is doubtful.")
    said = f"{counted(doubts, 'person')} {verb(doubts)} doubtful"
    if review is None:
        how = "`idcluster review ROOT` writes a page on which they are decided about by keyboard."
        return f"<p>{escape(said)}: {escape(how)}</p>"
    link = quote(os.path.relpath(review.resolve(), output.resolve().parent))
    return f'<p>{escape(said)}: <a href="{html.escape(link)}">decide about them</a></p>'


def _name(store: Store) -> str:
    import json

    try:
        return str(json.loads(store.read("dataset.json")).get("name") or store.root)
    except (OSError, ValueError, AttributeError):
        return store.root


def _runs(store: Store, connection: duckdb.DuckDBPyConnection, output: Path) -> list[Run]:
    """The newest runs, with a link to each record where it is a file."""
    sql = (
        "SELECT run_id, started, status, seconds, snapshot, error FROM runs ORDER BY "  # noqa: S608
        "started "
        f"DESC NULLS LAST, run_id LIMIT {RUNS_SHOWN}"
    )
    found = []
    for row in connection.sql(sql).to_arrow_table().to_pylist():
        path = f"runs/{row['run_id']}.json"
        link = None
        if store.local and "/" not in row["run_id"] and store.exists(path):
            link = os.path.relpath(store.uri(path), output.resolve().parent)
        found.append(Run(link=link, **row))
    return found


def _step(name: str) -> str:
    return (
        f"shards “{name.removeprefix('sharded ')}”"
        if name.startswith("sharded ")
        else STEP_NAMES.get(name, name)
    )


def _lost(line: dict[str, Any]) -> str:
    """A step and a reason in a few words."""
    step, why = line["step"], line["reason"].replace("_", " ")
    where = (
        f"not in shards “{step.removeprefix('sharded ')}”"
        if step.startswith("sharded ")
        else LOST_NAMES.get(step, step)
    )
    return where if where == why else f"{where}: {why}"


def _funnel(rows: dict[str, list[dict[str, Any]]]) -> str:
    steps = [
        {**line, "step": _step(line["step"]), "of": line["of"] and _step(line["of"])}
        for line in rows["funnel"]
    ]
    lost = [{**line, "step": _step(line["step"])} for line in rows["reasons"]]
    labels = [f"{line['step']} ({line['unit']})" for line in steps]
    through, came = [line["went_through"] for line in steps], [line["came"] for line in steps]
    said = "; ".join(
        f"{label}: {b:,} of {a:,}" for label, a, b in zip(labels, came, through, strict=True)
    )
    text = (
        "<p>Grey is what came to a step, blue what went through. What did not has a reason "
        "below: nothing is lost without one.</p>"
    )
    first = figure(
        "What becomes of images and faces",
        plots.bars(labels, came, "images or faces", through),
        said,
        table(steps),
    )
    bars = [_lost(line) for line in rows["reasons"]]
    order = sorted(range(len(lost)), key=lambda i: -lost[i]["rows"])
    if not lost:
        return text + first + nothing("Every row went through every step.")
    alt = "; ".join(f"{bars[i]}: {lost[i]['rows']:,}" for i in order[: plots.BARS_SHOWN])
    drawn = plots.bars(
        [bars[i] for i in order], [lost[i]["rows"] for i in order], "images or faces"
    )
    return text + first + figure("Why they went no further", drawn, alt, table(lost))


def _people(rows: dict[str, list[dict[str, Any]]]) -> str:
    sizes = rows["cluster_sizes"]
    parts = []
    if sizes:
        whose = [f"{line['number']:,} {verb(line['number'], 'person', 'people')}" for line in sizes]
        alt = "; ".join(
            f"{line['from']:g} to {_below(line)} kept faces: {who}"
            for line, who in zip(sizes, whose, strict=True)
        )
        drawn = plots.histogram(sizes, "cluster size: kept faces of a person", "people")
        parts.append(
            figure(
                "People by cluster size",
                drawn,
                alt,
                table(sizes, ["kept faces from", "to below", "people"]),
            )
        )
    steps = [
        {**line, "step": _step(line["step"]), "of": line["of"] and _step(line["of"])}
        for line in rows["people"]
    ]
    labels, came = [line["step"] for line in steps], [line["came"] for line in steps]
    through = [line["went_through"] for line in steps]
    alt = "; ".join(
        f"{label}: {b:,} of {a:,}" for label, a, b in zip(labels, came, through, strict=True)
    )
    lost = [{**line, "step": _step(line["step"])} for line in rows["people_lost"]]
    numbers = table(steps) + (
        "<h4>People who lost their last image or face at a step</h4>" + table(lost) if lost else ""
    )
    parts.append(
        figure(
            "People with an image or face at each step",
            plots.bars(labels, came, "people", through),
            alt,
            numbers,
        )
    )
    quantiles = [
        {**line, "step": _step(line["step"]), "mean": round(line["mean"], 1)}
        for line in rows["images_per_person"]
    ]
    flagged = [{**line, "flag": line["flag"].replace("_", " ")} for line in rows["flags"]]
    parts.append(
        f"<div class='card wide'><h3>Images and faces per person</h3>{table(quantiles)}</div>"
    )
    parts.append(
        "<div class=card><h3>Flags</h3>"
        f"{table(flagged) if flagged else nothing('Nobody is flagged.')}</div>"
    )
    return "".join(parts)


def _below(line: dict[str, Any]) -> str:
    return "any number of" if line["to"] is None else f"below {line['to']:g}"


def _pictures(rows: dict[str, list[dict[str, Any]]]) -> str:
    parts = []
    for key, title, axis, count in (
        ("picture_sizes", "Images by size", "shorter side, pixels", "images"),
        ("face_sizes", "Faces by size", "side, pixels", "faces"),
    ):
        if rows[key]:
            alt = "; ".join(
                f"{line['from']:g} to {_below(line)} pixels: {line['number']:,}"
                for line in rows[key]
            )
            parts.append(
                figure(
                    title,
                    plots.histogram(rows[key], axis, count),
                    alt,
                    table(rows[key], ["pixels from", "to below", count]),
                )
            )
    for key, title, column in (
        ("licences", "Licences", "licence"),
        ("sources", "Sources", "source"),
    ):
        lines = rows[key]
        if lines:
            labels = ["none stated" if line[column] is None else line[column] for line in lines]
            offered, kept = [line["offered"] for line in lines], [line["kept"] for line in lines]
            alt = "With a kept face, of images offered: "
            alt += "; ".join(
                f"{label}: {b:,} of {a:,}"
                for label, a, b in zip(labels, offered, kept, strict=True)
            )
            drawn = plots.bars(labels, offered, "images", kept)
            parts.append(
                figure(
                    f"{title}: images offered (grey), with a kept face (blue)",
                    drawn,
                    alt,
                    table(lines),
                )
            )
    if rows["hosts"]:
        labels, offered = (
            [line["host"] for line in rows["hosts"]],
            [line["offered"] for line in rows["hosts"]],
        )
        alt = "; ".join(f"{label}: {count:,}" for label, count in zip(labels, offered, strict=True))
        parts.append(
            figure(
                "Images offered by host",
                plots.bars(labels, offered, "images"),
                alt,
                table(rows["hosts"]),
            )
        )
    if rows["formats"]:
        lines = [
            {
                **line,
                "MB": round(line["bytes"] / 1e6, 1),
                "mean kB": round(line["mean_bytes"] / 1e3, 1),
            }
            for line in rows["formats"]
        ]
        shown = table(lines, columns=["format", "images", "MB", "mean kB"])
        parts.append(f"<div class=card><h3>Formats</h3>{shown}</div>")
    return "".join(parts) or nothing("No image was fetched.")


def _identity(rows: dict[str, list[dict[str, Any]]]) -> str:
    lines = rows["similarity"]
    if not lines:
        return nothing("No rows: stage clean did not run, so nobody knows which faces are whose.")
    kept, others = (
        [line for line in lines if line["keep"]],
        [line for line in lines if not line["keep"]],
    )
    parts = [("kept", plots.KEPT, kept), ("not kept", plots.REJECTED, others)]
    drawn = plots.layered(
        [part for part in parts if part[2]], "cosine to the person's indicator", "faces", log=True
    )
    counts = [
        f"{name}: {sum(x['number'] for x in some):,} faces{_range(some)}"
        for name, _, some in parts
        if some
    ]
    found = figure(
        "Similarity of faces to their person",
        drawn,
        "; ".join(counts),
        table(lines, ["kept", "from", "to below", "faces"]),
    )
    screened = rows["screening"]
    if screened:
        labels = [(line["reason"] or "misses no limit").replace("_", " ") for line in screened]
        alt = "; ".join(
            f"{label}: {line['faces']:,}" for label, line in zip(labels, screened, strict=True)
        )
        drawn = plots.bars(labels, [line["faces"] for line in screened], "faces")
        return found + figure("Screening", drawn, alt, table(screened))
    return found + nothing("No rows of screening: stage screen did not run.")


def _range(lines: Sequence[dict[str, Any]]) -> str:
    return f" from {lines[0]['from']:g} to {lines[-1]['to']:g}"


def _heads(rows: dict[str, list[dict[str, Any]]]) -> str:
    parts = []
    if rows["pose"]:
        total = sum(line["faces"] for line in rows["pose"])
        frontal = sum(
            line["faces"]
            for line in rows["pose"]
            if -30 <= line["yaw"] < 30 and -20 <= line["pitch"] < 20
        )
        alt = (
            f"{total:,} faces over yaw and pitch in squares of {POSE_STEP} degrees; "
            f"{frontal / total:.0%} lie within 30 degrees of yaw and "
            f"20 of pitch; {len(rows['pose'])} squares have a face"
        )
        axes = ("yaw, degrees (right: to image right)", "pitch, degrees (up)")
        drawn = plots.heat(rows["pose"], "yaw", "pitch", POSE_STEP, "faces", axes)
        parts.append(figure("Pose coverage", drawn, alt, table(rows["pose"])))
    else:
        parts.append(nothing("No rows with a pose: stage fit did not run, or found none."))
    if rows["expression"]:
        lines = rows["expression"]
        drawn = plots.histogram(lines, "root mean square of the coefficients", "faces")
        alt = "; ".join(
            f"{line['scheme']} {line['from']:g} to {line['to']:g}: {line['number']:,}"
            for line in lines
        )
        parts.append(figure("Expression: distance from rest", drawn, alt, table(lines)))
    else:
        parts.append(
            nothing("No expression coefficients: no stage fit with a face model (FLAME, ICT) ran.")
        )
    if rows["affect"]:
        lines = rows["affect"]
        total = sum(line["faces"] for line in lines)
        pleasant = sum(line["faces"] for line in lines if line["valence"] >= 0) / total
        aroused = sum(line["faces"] for line in lines if line["arousal"] >= 0) / total
        alt = (
            f"{total:,} faces over valence and arousal; {pleasant:.0%} have a valence of 0 or "
            f"more, {aroused:.0%} an arousal of 0 or more"
        )
        drawn = plots.heat(
            lines, "valence", "arousal", AFFECT_STEP, "faces", ("valence", "arousal"), (-1.0, 1.0)
        )
        parts.append(figure("Valence and arousal", drawn, alt, table(lines)))
    else:
        parts.append(nothing("No rows of affect: stage affect did not run."))
    if rows["emotions"]:
        labels = [f"class {line['class']}" for line in rows["emotions"]]
        alt = "; ".join(
            f"{label}: {line['faces']:,}"
            for label, line in zip(labels, rows["emotions"], strict=True)
        )
        drawn = plots.bars(labels, [line["faces"] for line in rows["emotions"]], "faces")
        parts.append(
            figure(
                "Most probable emotion, by its place in the backend's order",
                drawn,
                alt,
                table(rows["emotions"]),
            )
        )
    return "".join(parts)


def _captions(rows: dict[str, list[dict[str, Any]]]) -> str:
    lines = rows["captions"]
    if not lines:
        return nothing("No captions: stage caption did not run, or wrote none.")
    total = sum(line["number"] for line in lines)
    mean = sum(line["from"] * line["number"] for line in lines) / total
    alt = (
        f"{total:,} captions of {lines[0]['from']:g} to {lines[-1]['from']:g} words, "
        f"{mean:.1f} on average"
    )
    drawn = plots.histogram(lines, "words", "captions")
    return figure(
        "Captions by length", drawn, alt, table(lines, ["words from", "to below", "captions"])
    )


def _failures(rows: dict[str, list[dict[str, Any]]]) -> str:
    lines = rows["failures"]
    if not lines:
        return nothing("Every image could be had and read.")
    reasons: dict[str, int] = {}
    for line in lines:
        reasons[line["reason"] or line["status"]] = (
            reasons.get(line["reason"] or line["status"], 0) + line["images"]
        )
    ranked = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    alt = "; ".join(f"{name}: {count:,}" for name, count in ranked)
    drawn = plots.bars(
        [name.replace("_", " ") for name, _ in ranked], [count for _, count in ranked], "images"
    )
    both = figure(
        "Failures by reason",
        drawn,
        alt,
        table([{"reason": name, "images": count} for name, count in ranked]),
    )
    labels = [
        f"{(line['reason'] or line['status']).replace('_', ' ')}: {line['host']}" for line in lines
    ]
    alt = "; ".join(
        f"{label}: {line['images']:,}" for label, line in zip(labels, lines, strict=True)
    )
    drawn = plots.bars(labels, [line["images"] for line in lines], "images")
    return both + figure("Failures by host and reason", drawn, alt, table(lines))


def _speed(rows: dict[str, list[dict[str, Any]]]) -> str:
    lines = [line for line in rows["speed"] if line["rows_per_worker_second"]]
    if not lines:
        return nothing("No run left a record that says how fast it was.")
    labels = [line["stage"] for line in lines]
    alt = "; ".join(
        f"{line['stage']}: {line['rows_per_worker_second']:.3g} rows a second" for line in lines
    )
    drawn = plots.bars(
        labels,
        [line["rows_per_worker_second"] for line in lines],
        "rows a second of one worker",
        log=True,
    )
    shown = [
        {
            **line,
            "worker_seconds": round(line["worker_seconds"], 1),
            "rows_per_worker_second": float(f"{line['rows_per_worker_second']:.3g}"),
        }
        for line in lines
    ]
    return figure("Speed by stage", drawn, alt, table(shown))
