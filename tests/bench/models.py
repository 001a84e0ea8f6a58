"""Detect and embed decoded photographs, ours against insightface's FaceAnalysis on the same
weights, scales and images.

Ours are the stages as the pipeline calls them, 32 images at a time, with ids, sharpness and rows
in Arrow. What is not spent in `InferenceSession.run` counts as outside the networks, for both. All
variants take turns on the same images, and medians are shown, because other programs run on the
machine too; CPU time hardly depends on those. Decoding is stated apart.
"""

import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from pipeline.execution.ray_engine import THREAD_VARIABLES
from stages.stage import Picture
from tests.bench.material import SHARED, photographs

PICTURES, REPETITIONS = 32, 7
DETECTOR, RECOGNISER, SCALES = "scrfd_2.5g_bnkps", "edgeface_xs", (640, 320)
OURS, OURS_BATCHED, THEIRS = "ours, batch 1", "ours, batch 16", "insightface"

Timed = dict[str, list[tuple[float, float, float]]]
"""By variant, for every repetition: seconds in all, seconds in the networks, and seconds of all
threads on a core.
"""


def main() -> None:
    if not (SHARED / "models").is_dir():
        print(
            "needs the folder shared/models beside the checkout, with the weights of SCRFD and "
            "EdgeFace"
        )
        return
    for name in THREAD_VARIABLES:
        os.environ[name] = "1"
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    console = Console(width=120)
    with tempfile.TemporaryDirectory(prefix="idcluster-bench-") as place:
        people, _ = photographs(Path(place), 968 + PICTURES)
        # Evenly from all, so that there are close-ups, news images and groups among them.
        found = sorted(people.glob("*/*"), key=lambda path: path.name)
        files = [str(path) for path in found[:: len(found) // PICTURES][:PICTURES]]
        models = _models(Path(place))
        for title, processes, threads in (
            ("one core: one process, one thread", 1, 1),
            ("two cores: two processes at once, one thread each", 2, 1),
            ("two cores: one process, two threads in the networks", 1, 2),
        ):
            faces, decoding, timed = _together(models, files, processes, threads)
            console.print(_table(title, faces, timed))
            console.print(
                f"decoding: {1e3 * decoding / PICTURES:.1f} ms an image, in none of these\n"
            )


def _table(title: str, faces: dict[str, int], timed: Timed) -> Table:
    """A row a variant; ratios are medians over repetitions of turns that followed one another."""
    table = Table(
        title=f"{DETECTOR} at {SCALES} and {RECOGNISER}, {title}", title_justify="left", box=None
    )
    for column in (
        "ms an image",
        "faces",
        "in all",
        "in networks",
        "outside",
        "share outside",
        "CPU time",
        "insightface = 1",
    ):
        table.add_column(column, justify="left" if column == "ms an image" else "right")
    for variant, turns in timed.items():
        all_of, inside, busy = ([1e3 * turn[i] / PICTURES for turn in turns] for i in range(3))
        outside = [a - b for a, b in zip(all_of, inside, strict=True)]
        share = statistics.median(b / a for a, b in zip(all_of, outside, strict=True))
        theirs = timed.get(THEIRS)
        speed = (
            statistics.median(b[0] / a[0] for a, b in zip(turns, theirs, strict=True))
            if theirs
            else float("nan")
        )
        figures = [f"{statistics.median(values):.2f}" for values in (all_of, inside, outside)]
        table.add_row(
            variant,
            str(faces[variant]),
            *figures,
            f"{share:.1%}",
            f"{statistics.median(busy):.2f}",
            f"{speed:.2f}",
        )
    return table


def _models(place: Path) -> dict[str, str]:
    """Paths of the weights: as published, and the detector with its declared batch of one freed,
    which it needs for more.
    """
    import onnx

    from stages.weights import WeightFiles

    files = WeightFiles(str(SHARED / "models"))
    paths = {name: files.path(name) for name in (DETECTOR, RECOGNISER)}
    model = onnx.load(paths[DETECTOR])
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"
    paths["freed"] = str(place / "freed.onnx")
    onnx.save(model, paths["freed"])
    folder = place / "analysis"
    folder.mkdir()
    for name in (DETECTOR, RECOGNISER):
        (folder / f"{name}.onnx").write_bytes(Path(paths[name]).read_bytes())
    return {**paths, "folder": str(folder)}


def _together(
    models: dict[str, str], files: list[str], processes: int, threads: int
) -> tuple[dict[str, int], float, Timed]:
    """Faces found, seconds of decoding, and times of `processes` that take their turns at once; the
    slower one's counts.
    """
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        barrier: Any = manager.Barrier(processes)
        with context.Pool(processes) as pool:
            each = pool.starmap(_turns, [(models, files, threads, barrier)] * processes)
    faces, decoding, timed = each[0]
    slower = {
        name: [max(one[2][name][turn] for one in each) for turn in range(REPETITIONS)]
        for name in timed
    }
    return faces, decoding, slower


def _turns(
    models: dict[str, str], files: list[str], threads: int, barrier: Any
) -> tuple[dict[str, int], float, Timed]:
    """Runs in a process of its own."""
    import cv2

    from stages.pictures import decode

    cv2.setNumThreads(1)
    data = [Path(file).read_bytes() for file in files]
    start = time.perf_counter()
    pictures = [decode(one) for one in data]
    decoding = time.perf_counter() - start
    variants = {
        OURS: _ours(models, pictures, threads, 1),
        OURS_BATCHED: _ours({**models, DETECTOR: models["freed"]}, pictures, threads, 16),
    }
    if theirs := _theirs(models, pictures, threads):
        variants[THEIRS] = theirs
    faces = {name: run() for name, run in variants.items()}  # and everything is loaded and warm
    timed: Timed = {name: [] for name in variants}
    with _watched_networks() as inside:
        for _ in range(REPETITIONS):
            for name, run in variants.items():
                barrier.wait()
                inside[0], start, busy = 0.0, time.perf_counter(), time.process_time()
                run()
                timed[name].append(
                    (time.perf_counter() - start, inside[0], time.process_time() - busy)
                )
    return faces, decoding, timed


@contextmanager
def _watched_networks() -> Iterator[list[float]]:
    """Seconds spent in onnxruntime, whoever calls it."""
    import onnxruntime

    kind: Any = onnxruntime.InferenceSession
    run, seconds = kind.run, [0.0]

    def watched(*arguments: Any, **named: Any) -> Any:
        start = time.perf_counter()
        found = run(*arguments, **named)
        seconds[0] += time.perf_counter() - start
        return found

    kind.run = watched
    try:
        yield seconds
    finally:
        kind.run = run


def _ours(
    models: dict[str, str], pictures: list[np.ndarray], threads: int, batch: int
) -> Callable[[], int]:
    """Both stages as a worker runs them; gives the number of faces."""
    from types import SimpleNamespace

    import pyarrow as pa

    from stages.detect.scrfd import ScrfdDetect
    from stages.embed.arcface import ArcFaceEmbed
    from stages.weights import WEIGHTS

    detect = ScrfdDetect(
        {"weights": DETECTOR, "scales": SCALES, "batch": batch, "threads": threads}
    )
    embed = ArcFaceEmbed({"weights": RECOGNISER, "batch": batch, "threads": threads})
    for stage in (detect, embed):
        stage.setup(SimpleNamespace(path=lambda name: models[name], entry=WEIGHTS.__getitem__))
    nothing: Any = None
    shown = {f"{i:024x}": Picture(f"{i:024x}", rgb) for i, rgb in enumerate(pictures)}
    images = pa.table({"identity_id": ["0" * 16] * len(shown), "image_id": list(shown)})

    def run() -> int:
        found = detect.run(images, shown, nothing)
        faces = found.filter(pa.compute.equal(found["status"], "ok"))
        columns = {name: faces[name] for name in ("identity_id", "image_id", "face_id")}
        columns |= {
            f"faces.{name}": faces[name] for name in ("landmarks", "landmark_scheme", "status")
        }
        return int(embed.run(pa.table(columns), shown, nothing).num_rows)

    return run


def _theirs(
    models: dict[str, str], pictures: list[np.ndarray], threads: int
) -> Callable[[], int] | None:
    """FaceAnalysis with the same files, scales and threads; None where insightface is not
    installed.
    """
    import warnings

    import onnxruntime

    try:
        from insightface.app import FaceAnalysis
    except ImportError:
        return None
    warnings.simplefilter("ignore", FutureWarning)  # of scikit-image, at every face
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = (
        threads,
        1,
        3,
    )
    analysis = FaceAnalysis(
        models["folder"], sess_options=options, providers=["CPUExecutionProvider"]
    )
    analysis.prepare(ctx_id=-1, det_thresh=0.5, det_size=[(scale, scale) for scale in SCALES])
    shown = [np.ascontiguousarray(rgb[:, :, ::-1]) for rgb in pictures]
    return lambda: sum(len(analysis.get(bgr)) for bgr in shown)


if __name__ == "__main__":
    main()
