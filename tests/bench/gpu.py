"""Detect with RetinaFace-R50 and embed with iresnet100 on one GPU, in bfloat16: images a second,
and what bounds them.

The weights are random, which changes no time. The class head is shifted so that some 25 anchors a
image pass the threshold on average, as with one face, and of what is found the best face of each
image is described, cut out and embedded. Images are JPEGs of 640 x 480, searched at 640 and
320.

- **each step alone**: one batch, waited for after every step; what it costs an image.
- **pipelined**: images are decoded, scaled, described and aligned in a pool of threads; the main
  thread keeps the GPU
  supplied. This is what the machine gives.
- **slice by slice**: the stages' own `run` on 32 images, the next slice being decoded meanwhile,
  as a worker of a run.

Without a GPU the same is done with a few images on the CPU, so that it is known to work; those
figures say nothing.
"""

import itertools
import os
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import simplejpeg
import torch
from rich.console import Console
from rich.table import Table

from stages.detect.detector import Detections
from stages.detect.face_rows import face_rows
from stages.detect.retinaface import Canvases, Launched, RetinaFaceDetect
from stages.embed.arcface import TEMPLATE, align, similarity
from stages.embed.iresnet import IResNetEmbed
from stages.networks.iresnet import IResNet
from stages.networks.retinaface import RetinaFace
from stages.pictures import decode
from stages.stage import Device, Picture
from stages.weights import WEIGHTS
from tests.bench.material import photographs

GOAL = 800
THRESHOLD = 0.6
PASSING = 25
"""Anchors above the threshold in an image."""
SLICE = 32


@dataclass(frozen=True)
class Size:
    """How much is done."""

    distinct: int
    pictures: int
    batch: int
    repeats: int


ON_GPU = Size(distinct=256, pictures=8000, batch=16, repeats=20)
ON_CPU = Size(distinct=4, pictures=4, batch=2, repeats=1)


def main() -> None:
    console = Console(width=110)
    cuda = torch.cuda.is_available()
    size = ON_GPU if cuda else ON_CPU
    if cuda:
        console.print(
            f"{torch.cuda.get_device_name()}, torch {torch.__version__}, CUDA {torch.version.cuda}"
        )
    else:
        console.print(
            f"no GPU here: {size.pictures} images on the CPU, to see that it works; nobody "
            "needs these figures"
        )
    cv2.setNumThreads(1)
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="idcluster-bench-") as place:
        files = jpegs(Path(place), size.distinct)
    detect, embed = stages("cuda" if cuda else "cpu", size.batch, cores, files)
    with ThreadPoolExecutor(cores) as pool:
        alone = each_alone(detect, embed, files, size)
        for _ in range(2):  # the first round warms up
            pipelined, busy, waited = pipeline(detect, embed, files, size, pool)
        sliced = slice_by_slice(detect, embed, files, size, pool)
    report(console, alone, pipelined, busy, waited, sliced, cores, cuda)


def jpegs(folder: Path, count: int) -> list[bytes]:
    """Photographs cut to 640 x 480 and compressed to quality 90."""
    people, _ = photographs(folder, count)
    made = []
    for path in sorted(people.glob("*/*")):
        rgb = decode(path.read_bytes())
        factor = max(640 / rgb.shape[1], 480 / rgb.shape[0])
        large = cv2.resize(rgb, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)[
            :480, :640
        ]
        made.append(simplejpeg.encode_jpeg(np.ascontiguousarray(large), quality=90))
    return made


def stages(
    device: Device, batch: int, cores: int, files: list[bytes]
) -> tuple[RetinaFaceDetect, IResNetEmbed]:
    """Both stages with random networks on `device`."""
    torch.manual_seed(0)
    common = {"batch": batch, "precision": "bfloat16"}
    detect = RetinaFaceDetect(
        {
            **common,
            "weights": "retinaface_r50",
            "threshold": THRESHOLD,
            "min_side": 0,
            "threads": cores,
        }
    )
    embed = IResNetEmbed({**common, "weights": "arcface_r100_ms1mv3"})
    detect.device = embed.device = device
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    detector, recogniser = RetinaFace("resnet50"), IResNet((3, 13, 30, 3))
    for network in (detector, recogniser):
        network.eval().requires_grad_(False).to(device)
    detect.install(detector, WEIGHTS[detect.params.weights])
    embed.install(recogniser, WEIGHTS[embed.params.weights])
    with torch.inference_mode():
        prepared = [detect.prepare(decode(data)) for data in files[:batch]]
        margins = [detect.forward(stacked(prepared, scale).to(device))[0] for scale in range(2)]
        of_picture = torch.cat([classes[..., 1] - classes[..., 0] for classes in margins], dim=1)
        passing = of_picture.float().flatten().sort(descending=True).values[PASSING * len(prepared)]
        for name, bias in detector.ClassHead.named_parameters():
            if name.endswith("bias"):  # by anchor: not a face, face
                bias[1::2] += float(np.log(THRESHOLD / (1 - THRESHOLD))) - passing
    return detect, embed


def stacked(prepared: Sequence[Canvases], scale: int) -> torch.Tensor:
    return torch.from_numpy(np.stack([one.canvases[scale] for one in prepared]))


def each_alone(
    detect: RetinaFaceDetect, embed: IResNetEmbed, files: list[bytes], size: Size
) -> dict[str, float]:
    """Milliseconds an image of every step, on one core or the GPU, with nothing beside it."""
    data = list(itertools.islice(itertools.cycle(files), size.batch))
    device = detect.device
    spent: dict[str, float] = {}

    def timed(name: str, step: Callable[[], Any]) -> Any:
        for run in range(size.repeats + 1):
            if run == 1:
                start = time.perf_counter()
            result = step()
            if device == "cuda":
                torch.cuda.synchronize()
        spent[name] = (
            spent.get(name, 0.0) + (time.perf_counter() - start) / size.repeats / size.batch * 1e3
        )
        return result

    rgbs = timed("decode JPEG", lambda: [decode(one) for one in data])
    prepared = timed("scale to 640 and 320", lambda: [detect.prepare(rgb) for rgb in rgbs])
    batches = timed(
        "stack and pin", lambda: [pinned(stacked(prepared, scale), device) for scale in range(2)]
    )
    candidates = []
    with torch.inference_mode():
        for batch in batches:
            there = timed("copy to the device", partial(batch.to, device, non_blocking=True))
            classes, boxes, points = timed("detect: forward", partial(detect.forward, there))
            best = timed(
                "detect: best anchors and boxes",
                partial(detect.best, classes, boxes, points, batch.shape[1:3]),
            )
            candidates.append(timed("copy back", best.cpu))
    launched = Launched(tuple(one.ratios for one in prepared), tuple(candidates), None)
    faces = timed("suppress doubles", lambda: detect.finish(launched))
    shown = list(zip(rgbs, faces, strict=True))
    crops = timed(
        "describe and align the best face",
        lambda: [best_face(detect, rgb, found)[1] for rgb, found in shown],
    )
    timed("embed: stack, copy and forward", lambda: embed.launch(crops))
    return spent


def pinned(batch: torch.Tensor, device: Device) -> torch.Tensor:
    return batch.pin_memory() if device == "cuda" else batch


def best_face(
    detect: RetinaFaceDetect, rgb: np.ndarray, faces: Detections
) -> tuple[list[dict[str, Any]], np.ndarray]:
    """The rows of the best face of an image and its crop (112, 112, 3); grey where random points
    span no face.
    """
    ids = {"identity_id": "0" * 16, "image_id": "0" * 24}
    order = np.argsort(-faces[2])[:1]
    boxes, points, scores = (part[order] for part in faces)
    rows = face_rows(ids, rgb, boxes, points, scores, detect.landmark_scheme, 0.0)
    frames = [frame for frame in similarity(points, TEMPLATE) if np.isfinite(frame).all()]
    return rows, align(rgb, frames[0]) if frames else np.full((112, 112, 3), 127, np.uint8)


def pipeline(
    detect: RetinaFaceDetect,
    embed: IResNetEmbed,
    files: list[bytes],
    size: Size,
    pool: ThreadPoolExecutor,
) -> tuple[float, float, dict[str, float]]:
    """Images a second; the share of the pool's time that is used; what the main thread waits for,
    in seconds.
    """
    times: list[float] = []
    waited = {"pool": 0.0, "GPU": 0.0}

    def timed(work: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any) -> Any:
            start = time.thread_time()
            result = work(*given)
            times.append(time.thread_time() - start)
            return result

        return run

    def read(data: bytes) -> tuple[np.ndarray, Canvases]:
        rgb = decode(data)
        return rgb, detect.prepare(rgb)

    def result(futures: Sequence[Future[Any]]) -> list[Any]:
        start = time.perf_counter()
        done = [future.result() for future in futures]
        waited["pool"] += time.perf_counter() - start
        return done

    reads: deque[list[Future[Any]]] = deque()
    found: deque[tuple[list[np.ndarray], Launched]] = deque()
    aligned: deque[list[Future[Any]]] = deque()
    vectors: deque[torch.Tensor] = deque()
    batches = divided([files[i % len(files)] for i in range(size.pictures)], size.batch)
    start = time.perf_counter()
    more = True
    while more or reads or found or aligned:
        # Three batches ahead in the pool, one ahead on the device.
        while len(reads) < 3 and (batch := next(batches, None)) is not None:
            reads.append([pool.submit(timed(read), data) for data in batch])
        more = bool(reads)
        if reads:
            rgbs, prepared = zip(*result(reads.popleft()), strict=True)
            found.append((list(rgbs), detect.launch(prepared)))
        if found and (len(found) > 1 or not more):
            seen, launched = found.popleft()
            before = time.perf_counter()
            if launched.done is not None:
                launched.done.synchronize()
            waited["GPU"] += time.perf_counter() - before
            faces = detect.finish(launched)
            aligned.append(
                [
                    pool.submit(timed(best_face), detect, *both)
                    for both in zip(seen, faces, strict=True)
                ]
            )
        if aligned and (len(aligned) > 1 or not found):
            vectors.append(embed.launch([crop for _, crop in result(aligned.popleft())]))
        while len(vectors) > 2 or (vectors and not (more or found or aligned)):
            vectors.popleft().cpu()
    seconds = time.perf_counter() - start
    return size.pictures / seconds, sum(times) / seconds, waited


def divided(data: list[bytes], count: int) -> Iterator[list[bytes]]:
    return (data[start : start + count] for start in range(0, len(data), count))


def slice_by_slice(
    detect: RetinaFaceDetect,
    embed: IResNetEmbed,
    files: list[bytes],
    size: Size,
    pool: ThreadPoolExecutor,
) -> float:
    """Images a second of the stages' `run` on one slice after the other."""
    count = max(SLICE, size.pictures // 4) if size is ON_GPU else size.pictures
    slices = list(divided([files[i % len(files)] for i in range(count)], SLICE))
    start = time.perf_counter()
    ahead = [pool.submit(decode, data) for data in slices[0]]
    for following in [*slices[1:], []]:
        names = [f"{i:024x}" for i in range(len(ahead))]
        pictures = {
            name: Picture(name, future.result()) for name, future in zip(names, ahead, strict=True)
        }
        ahead = [pool.submit(decode, data) for data in following]
        rows = pa.table({"identity_id": ["0" * 16] * len(names), "image_id": names})
        faces = detect.run(rows, pictures, None)  # type: ignore[arg-type]
        faces = faces.filter(pa.compute.equal(faces["face"], 0))
        columns = {name: faces[name] for name in ("identity_id", "image_id", "face_id")}
        columns |= {
            f"faces.{name}": faces[name] for name in ("landmarks", "landmark_scheme", "status")
        }
        embed.run(pa.table(columns), pictures, None)  # type: ignore[arg-type]
    return count / (time.perf_counter() - start)


_POOLED = ("decode JPEG", "scale to 640 and 320", "describe and align the best face")
_MAIN = ("stack and pin", "suppress doubles")


def report(
    console: Console,
    alone: dict[str, float],
    rate: float,
    busy: float,
    waited: dict[str, float],
    sliced: float,
    cores: int,
    cuda: bool,
) -> None:
    where = "GPU" if cuda else "CPU"
    table = Table(title="each step alone", title_justify="left", box=None)
    for column in ("step", "on", "ms an image", "share"):
        table.add_column(column, justify="left" if column in ("step", "on") else "right")
    total = sum(alone.values())
    for name, spent in alone.items():
        on = "pool" if name in _POOLED else "main thread" if name in _MAIN else where
        table.add_row(name, on, f"{spent:.3f}", f"{spent / total:.0%}")
    console.print(table)
    limits = {
        f"the pool of {cores} threads": 1e3 * cores / sum(alone[name] for name in _POOLED),
        "the main thread": 1e3 / sum(alone[name] for name in _MAIN),
        f"the {where}": 1e3
        / sum(spent for name, spent in alone.items() if name not in _POOLED + _MAIN),
    }
    console.print(
        "these steps alone would allow, in pictures/s: "
        + ", ".join(f"{who} {most:.1f}" for who, most in limits.items())
    )
    least = min(limits, key=lambda who: limits[who])
    console.print(
        f"pipelined: {rate:.1f} pictures/s, {rate / limits[least]:.2f} of what {least} allows, "
        "which bounds it"
    )
    console.print(
        f"  of the pool's threads {busy:.1f} of {cores} are busy; the main thread waits "
        f"{waited['pool']:.2f} s for the pool,"
        f" {waited['GPU']:.2f} s for the {where}"
    )
    console.print(f"slice by slice: {sliced:.1f} pictures/s, {sliced / rate:.2f} of that")
    if cuda:
        console.print(
            f"goal: {GOAL} pictures/s; reached {rate / GOAL:.2f} of it pipelined, "
            f"{sliced / GOAL:.2f} slice by slice"
        )


if __name__ == "__main__":
    main()
