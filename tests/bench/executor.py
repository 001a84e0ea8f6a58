"""Detect and embed 1,000 photographs: the run on Ray against a plain loop over the same stage
functions.

The ideal is the plain loop's rate times the cores. Because two busy cores often are slower than
twice one (shared caches, hyper-threads, memory), the same loop in as many processes as there are
cores is measured too: that is what the machine gives.
"""

import multiprocessing
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline.dag import load_dag
from pipeline.execution.operators import available_cores
from pipeline.execution.ray_engine import THREAD_VARIABLES
from pipeline.start import start
from stages.backends import backend
from stages.pictures import PictureError, decode
from stages.stage import Picture, Stage
from stages.weights import WeightFiles
from tests.bench.material import dag_file, photographs

COUNT = 1000
CHOSEN = ("crawl", "detect", "embed")


def main() -> None:
    for name in THREAD_VARIABLES:
        os.environ[name] = "1"
    cores = available_cores()
    with tempfile.TemporaryDirectory(prefix="idcluster-bench-") as place:
        people, what = photographs(Path(place), COUNT)
        dag, models, backends = dag_file()
        files = sorted(str(path) for path in people.glob("*/*"))
        one = plain(str(dag), models, files[::4]) / len(files[::4])
        with multiprocessing.get_context("spawn").Pool(cores) as pool:
            each = pool.starmap(plain, [(str(dag), models, files[::4])] * cores)
        together = cores / (sum(each) / cores / len(files[::4]))
        record = executor(dag, models, people, Path(place) / "root")
    [phase] = record["phases"]
    steady = phase["wall_seconds"] - phase["startup_seconds"]
    rate, ideal = COUNT / steady, cores / one
    table = Table(title=f"{what}, {backends}, {cores} cores", title_justify="left", box=None)
    for column in ("what", "pictures/s", "ratio"):
        table.add_column(column, justify="left" if column == "what" else "right")
    table.add_row("plain loop, one process", f"{1 / one:.1f}", "")
    table.add_row(f"ideal: that times {cores}", f"{ideal:.1f}", "1.00")
    table.add_row(
        f"plain loop in {cores} processes at once", f"{together:.1f}", f"{together / ideal:.2f}"
    )
    table.add_row("run on Ray, after start-up", f"{rate:.1f}", f"{rate / ideal:.2f}")
    table.add_row("the same against the processes at once", "", f"{rate / together:.2f}")
    console = Console(width=100)
    console.print(table)
    console.print(
        f"start-up (Ray, actors, models): {phase['startup_seconds']:.1f} s; whole phase "
        f"{phase['wall_seconds']:.1f} s"
    )
    busy = sum(phase["worker_seconds"].values())
    told = ", ".join(
        f"{name} {seconds / busy:.1%}" for name, seconds in phase["worker_seconds"].items()
    )
    console.print(
        f"share of the workers' time: {told}; idle or Ray "
        f"{1 - busy / (steady * phase['workers']):.1%} of {steady:.1f} s"
    )


def plain(dag: str, models: str | None, files: list[str]) -> float:
    """Seconds of a loop over files in this process, models loaded before."""
    loaded = load_dag(Path(dag), ["source.path=."])
    crawl, detect, embed = (
        backend(name, loaded.stages[name].backend)(loaded.stages[name].params) for name in CHOSEN
    )
    for stage in (crawl, detect, embed):
        stage.setup(WeightFiles(models))
    import cv2

    cv2.setNumThreads(1)
    start = time.perf_counter()
    for number, file in enumerate(files):
        one(number, Path(file).read_bytes(), crawl, detect, embed)
    return time.perf_counter() - start


class _Bytes:
    """A source with one image in it."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def fetch(self, addresses: Any) -> list[Any]:
        from schemas.fetched import Fetched

        return [Fetched(self.data) for _ in addresses]


def one(number: int, data: bytes, crawl: Stage, detect: Stage, embed: Stage) -> None:
    """One image through the three stages, rows handed on by hand."""
    import pyarrow as pa

    ids = {"identity_id": "0" * 16, "image_id": f"{number:024x}"}
    candidate = {
        **ids,
        "candidates.address": "a",
        "candidates.fingerprint": "f",
        "candidates.status": "ok",
    }
    [image] = crawl.run(pa.Table.from_pylist([candidate]), {}, _Bytes(data)).to_pylist()
    if image["status"] != "ok":
        return
    try:
        pictures = {ids["image_id"]: Picture(ids["image_id"], decode(data))}
    except PictureError:
        return
    found = detect.run(
        pa.Table.from_pylist([{**ids, "images.sha256": image["sha256"], "images.status": "ok"}]),
        pictures,
        _Bytes(b""),
    )
    faces = found.filter(pa.compute.equal(found["status"], "ok"))
    if faces.num_rows:
        columns = {name: faces[name] for name in ("identity_id", "image_id", "face_id")}
        columns |= {
            f"faces.{name}": faces[name]
            for name in ("box", "landmarks", "landmark_scheme", "status")
        }
        columns |= {
            "images.sha256": pa.array([image["sha256"]] * faces.num_rows),
            "images.status": pa.array(["ok"] * faces.num_rows),
        }
        embed.run(pa.table(columns), pictures, _Bytes(b""))


def executor(dag: Path, models: str | None, people: Path, root: Path) -> dict[str, Any]:
    """The record of a run of the three stages."""
    sets = [f"source.path={people}", f"root={root}"]
    return vars(start(dag, sets=sets, only=CHOSEN, models=models, accept_licence="once").execute())
