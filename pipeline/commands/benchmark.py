"""What `idcluster models benchmark` does and prints. Imports `eval`, so that only this command
needs it.
"""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from eval.recognition.measure import Measured, measure
from eval.recognition.photographs import labelled
from eval.recognition.report import curves, report
from eval.recognition.thresholds import TooFew
from idcluster.root.aside import write_text
from pipeline.dag import DagError
from pipeline.weights.stored import weight_files
from schemas.wording import counted
from stages.backends import UnknownBackend, backend
from stages.stage import Stage, WeightFiles
from stages.weights import UnknownWeights
from stages.weights.pinning import calibrate


def benchmark(
    console: Console,
    photographs: Path,
    labels: Path | None,
    detect: str,
    embed: Sequence[str],
    sets: Sequence[str],
    models: str | None,
    device: str,
    output: Path | None,
    write_calibration: bool,
) -> None:
    """Measure, print, and write what is asked for. Raises what `eval/recognition` does,
    MissingWeights and DagError.
    """
    if device not in ("cpu", "cuda"):
        raise DagError([f"--device {device}: there are cpu and cuda"])
    files = weight_files(models)
    found = labelled(photographs, labels)
    params = _parameters(sets)
    detector = _stage("detect", detect, params, files, device)
    recognisers = [_stage("embed", one, params, files, device) for one in embed]
    start = time.monotonic()
    measured = measure(found, detector, recognisers, _progress(console))
    seconds = time.monotonic() - start
    numbers: dict[str, Any] = {
        "photographs": str(photographs),
        "labels": None if labels is None else str(labels),
        "seconds": round(seconds, 1),
        "device": device,
        "detect": _described(detector, files),
        "embed": [_described(one, files) for one in recognisers],
        **report(measured),
    }
    _print(console, numbers)
    if output is not None:
        _write(console, output, numbers, measured)
    if write_calibration:
        _calibrate(console, str(files.models_dir), numbers)


def _parameters(sets: Sequence[str]) -> dict[str, dict[str, Any]]:
    """`detect.scales=[640]` as {"detect": {"scales": [640]}}. Raises DagError."""
    found: dict[str, dict[str, Any]] = {"detect": {}, "embed": {}}
    for text in sets:
        name, equals, written = text.partition("=")
        stage, _, parameter = name.partition(".")
        if not equals or stage not in found or not parameter:
            raise DagError([f"--set {text}: write it as detect.FIELD=VALUE or embed.FIELD=VALUE"])
        try:
            found[stage][parameter] = yaml.safe_load(written)
        except yaml.YAMLError as error:
            raise DagError(
                [f"--set {text}: the value is not YAML: {' '.join(str(error).split())}"]
            ) from error
    return found


def _stage(
    name: Literal["detect", "embed"],
    asked: str,
    params: dict[str, dict[str, Any]],
    files: WeightFiles,
    device: str,
) -> Stage:
    """A backend, set up. `asked`: `scrfd` or `scrfd:scrfd_500m_kps`."""
    chosen, colon, weights = asked.partition(":")
    try:
        found = backend(name, chosen)
        given = {**params[name], **({"weights": weights} if colon else {})}
        stage = found(given, files.local)
    except UnknownBackend as error:
        raise DagError([f"--{name} {asked}: {error}"]) from error
    except ValidationError as error:
        raise DagError(
            [
                f"--{name} {asked}: {'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
                for item in error.errors(include_url=False)
            ]
        ) from error
    stage.device = "cuda" if device == "cuda" else "cpu"
    stage.setup(files)
    return stage


def _described(stage: Stage, files: Any) -> dict[str, Any]:
    hashes = {}
    for name in stage.weights:
        try:
            hashes[name] = files.sha256(name)
        except UnknownWeights:
            hashes[name] = None
    return {
        "backend": stage.backend,
        "params": stage.params.model_dump(mode="json"),
        "weights": hashes,
    }


def _progress(console: Console) -> Callable[[int, int], None]:
    """One line that is written over on a terminal, a line every tenth otherwise."""
    state = {"told": 0.0}

    def told(done: int, of: int) -> None:
        now = time.monotonic()
        if console.is_terminal:
            if now - state["told"] > 0.2 or done == of:
                state["told"] = now
                console.print(f"{done} of {of} photographs", end="\r" if done < of else "\n")
        elif done % max(of // 10, 1) == 0:
            console.print(f"{done} of {of} photographs")

    return told


def _print(console: Console, numbers: dict[str, Any]) -> None:
    found = numbers["detection"]
    share = found["share_with_face"]
    told = "" if share is None else f" ({share:.2%} of those that decode)"
    seen = counted(found["photographs"], "photograph")
    console.print(
        f"{seen}, {found['with_face']} with a face{told}, {len(found['unreadable'])} unreadable"
    )
    if found["counted"]:
        console.print(f"labelled counts: {found['count_agrees']} of {found['counted']} agree")
        for one in found["count_differs"]:
            console.print(f"  {one['file']}: {one['found']} found, {one['labelled']} labelled")
    for path in found["without_face"][:10]:
        console.print(f"  no face: {path}")
    if numbers["recognisers"]:
        console.print(_table(numbers["recognisers"]))
    for name, measured in numbers["recognisers"].items():
        thresholds = measured["thresholds"]
        if thresholds is None:
            console.print(f"{name}: no thresholds for clean: {measured['thresholds_lack']}")
            continue
        limits = ", ".join(
            f"{limit} {thresholds[limit]:.4f}"
            for limit in ("similarity_threshold", "merge_cosine", "join_cosine")
        )
        console.print(f"{name}: {limits}\n  {thresholds['source']}")


def _table(recognisers: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in (
        "recogniser",
        "labels",
        "compared",
        "pairs of one",
        "of two people",
        "TAR at FAR 1e-2",
        "1e-3",
        "1e-4",
        "equal error",
    ):
        table.add_column(
            column, justify="left" if column in ("recogniser", "labels", "compared") else "right"
        )
    for name, measured in recognisers.items():
        for labels, numbers in measured["verification"].items():
            for what, key in (
                ("image to image", "pairs"),
                ("image to indicator", "image_to_indicator"),
            ):
                each = numbers[key]
                cells = {
                    point["far"]: f"{point['tar']:.4f} (>= {point['threshold']:.3f})"
                    for point in each["tar_at_far"]
                }
                error = "" if each["equal_error"] is None else f"{each['equal_error']['rate']:.4f}"
                about = f"{labels} ({numbers['photographs']} of {numbers['people']} people)"
                rates = (cells.get(far, "-") for far in (1e-2, 1e-3, 1e-4))
                table.add_row(
                    name, about, what, str(each["genuine"]), str(each["impostor"]), *rates, error
                )
    return table


def _write(console: Console, output: Path, numbers: dict[str, Any], measured: Measured) -> None:
    from eval.recognition.roc_plot import write

    output.mkdir(parents=True, exist_ok=True)
    write_text(output / "report.json", json.dumps(numbers, indent=1, sort_keys=True) + "\n")
    written = [
        output / "report.json",
        *(write(output, curves(measured)) if measured.vectors else []),
    ]
    console.print(f"written: {', '.join(str(path) for path in written)}")


def _calibrate(console: Console, models_dir: str, numbers: dict[str, Any]) -> None:
    if not numbers["recognisers"]:
        raise DagError(["--write-calibration: name a recogniser with --embed"])
    for name, measured in numbers["recognisers"].items():
        found = measured["thresholds"]
        if found is None:
            raise TooFew(f"{name}: {measured['thresholds_lack']}")
        place = calibrate(
            models_dir,
            name,
            found["similarity_threshold"],
            found["merge_cosine"],
            found["source"],
            join_cosine=found["join_cosine"],
        )
        console.print(
            f"{name}: thresholds written into {place}; DAGs that use this models directory take "
            "them"
        )
