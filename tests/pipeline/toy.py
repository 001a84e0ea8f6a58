"""Small stages that compute in microseconds what the real ones do, on images that carry their
truth in their pixels.

A toy image is 32 x 32 pixels of one colour a face: red says who it is, green is noise, blue makes
trouble.
"""

import io
import os
import resource
import signal
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from PIL import Image

from idcluster.root.storage import Store
from pipeline.dag import Dag, load_dag
from pipeline.execution.worker import Worker
from pipeline.execution.worker_spec import WorkerSpec
from schemas import face_id, no_face_id
from stages.backends import BACKENDS
from stages.selection import kept
from stages.stage import Params, Picture, Services, Stage, WeightFiles

KILLS, RAISES, GROWS, HOLDS = 250, 240, 230, 220
LEAKED: list[np.ndarray] = []

DAG = """
name: toy
root: "{root}"
source: {{kind: folder, path: '{people}'}}
stages:
  crawl: {{}}
  detect: {{backend: toy}}
  embed: {{backend: toy}}
  clean: {{params: {{min_faces: 1, similarity_threshold: 0.8, merge_cosine: 0.7}}}}
  caption: {{backend: toy}}
  shard: {{params: {{profile: faces, target_mb: 1, validation: 0.3, include: []}}}}
"""


def grow() -> None:
    """Take memory until somebody objects: the limit of a control group, one on addresses, or Ray;
    at most 8 GB.
    """
    if group := os.environ.get("TOY_MEMORY_GROUP"):
        Path(group, "cgroup.procs").write_text(str(os.getpid()))
    before = resource.getrlimit(resource.RLIMIT_AS)
    if room := os.environ.get("TOY_ADDRESS_ROOM"):
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (taken + int(room), before[1]))
    try:
        held: list[np.ndarray] = []
        for _ in range(400):
            held.append(np.ones(20_000_000, np.uint8))
            time.sleep(float(os.environ.get("TOY_GROW_SECONDS", "0")))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


class ToyDetectParams(Params):
    margin: int = 0


class ToyDetect(Stage):
    """A face a colour, counted from the left."""

    name: ClassVar[str] = "detect"
    backend: ClassVar[str] = "toy"
    parent: ClassVar[str] = "images"
    needs_pixels: ClassVar[bool] = True
    landmark_scheme: ClassVar[str] = "arcface5"
    Parameters: ClassVar[type[Params]] = ToyDetectParams
    reads: ClassVar[Mapping[str, tuple[str, ...]]] = {"images": ("sha256",)}

    def run(self, rows: pa.Table, pictures: Mapping[str, Picture], services: Services) -> pa.Table:
        out: list[dict[str, Any]] = []
        for row in rows.to_pylist():
            rgb = pictures[row["image_id"]].rgb
            time.sleep(float(os.environ.get("TOY_SECONDS", "0")))
            LEAKED.append(np.ones(int(os.environ.get("TOY_LEAK_BYTES", "0")), np.uint8))
            if log := os.environ.get("TOY_LOG"):
                with open(log, "a", encoding="utf-8") as lines:
                    lines.write(f"{os.getpid()} {row['image_id']}\n")
            trouble = int(rgb[0, 0, 2])
            if trouble == KILLS:
                os.kill(os.getpid(), signal.SIGKILL)
            if trouble == GROWS:
                grow()
            if trouble == HOLDS:
                # Like an image that takes long: at work until somebody takes the file away.
                while os.path.exists(os.environ.get("TOY_HOLD", "")):
                    time.sleep(0.02)
            if trouble == RAISES:
                raise ArithmeticError("an image that the backend cannot bear")
            ids = {"identity_id": row["identity_id"], "image_id": row["image_id"]}
            starts = [
                0,
                *(
                    np.flatnonzero(np.any(np.diff(rgb[0].astype(int), axis=0) != 0, axis=1)) + 1
                ).tolist(),
                rgb.shape[1],
            ]
            boxes = [(a, 0, b, rgb.shape[0]) for a, b in pairwise(starts) if rgb[0, a, 0] > 0]
            if not boxes:
                out.append(
                    {
                        **ids,
                        "face_id": no_face_id(row["image_id"]),
                        "status": "filtered",
                        "reason": "no_face",
                        "faces_in_image": 0,
                    }
                )
            for number, box in enumerate(boxes):
                grown = [float(value + self.params.margin) for value in box]
                out.append(
                    {
                        **ids,
                        "face_id": face_id(row["image_id"], grown),
                        "face": number,
                        "box": grown,
                        "landmarks": [float(box[0])] * 10,
                        "landmark_scheme": "arcface5",
                        "score": 1.0 - number / 10,
                        "side": float(box[2] - box[0]),
                        "sharpness": 10.0,
                        "yaw": 0.0,
                        "faces_in_image": len(boxes),
                        "subject": number == 0,
                        "status": "ok",
                    }
                )
        return self.build(out)


class ToyEmbed(Stage):
    """People are directions in eight dimensions, green turns them a little."""

    name: ClassVar[str] = "embed"
    backend: ClassVar[str] = "toy"
    parent: ClassVar[str] = "faces"
    needs_pixels: ClassVar[bool] = True
    recogniser: ClassVar[str] = "toy"
    landmark_scheme: ClassVar[str] = "arcface5"
    reads: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "faces": ("box", "landmarks"),
        "images": ("sha256",),
    }

    def setup(self, files: WeightFiles) -> None:
        """Crash as native code does, once for every byte of a file that a test has made."""
        file = Path(os.environ.get("TOY_CRASHES", "/nowhere"))
        if file.exists() and (left := file.read_bytes()):
            file.write_bytes(left[1:])
            os.kill(os.getpid(), signal.SIGSEGV)

    def run(self, rows: pa.Table, pictures: Mapping[str, Picture], services: Services) -> pa.Table:
        out = []
        for row in rows.to_pylist():
            time.sleep(float(os.environ.get("TOY_EMBED_SECONDS", "0")))
            red, green, _ = (
                pictures[row["image_id"]].rgb[0, int(row["faces.box"][0]) % 32].astype(float)
            )
            vector = (
                np.random.default_rng(int(red)).normal(size=8)
                + np.random.default_rng(int(green) + 1000).normal(size=8) * 0.1
            )
            norm = float(np.linalg.norm(vector))
            ids = {name: row[name] for name in ("identity_id", "image_id", "face_id")}
            out.append(
                {
                    **ids,
                    "recogniser": "toy",
                    "vector": (vector / norm).astype(np.float32).tolist(),
                    "norm": norm,
                    "status": "ok",
                }
            )
        return self.build(out)


class ToyScreenParams(Params):
    max_noise: int = 255
    compared: bool = False


class ToyScreen(Stage):
    """Faces with much green are unfit."""

    name: ClassVar[str] = "screen"
    backend: ClassVar[str] = "toy"
    parent: ClassVar[str] = "faces"
    needs_pixels: ClassVar[bool] = True
    Parameters: ClassVar[type[Params]] = ToyScreenParams
    reads: ClassVar[Mapping[str, tuple[str, ...]]] = {"faces": ("box",), "images": ("sha256",)}

    def run(self, rows: pa.Table, pictures: Mapping[str, Picture], services: Services) -> pa.Table:
        out = []
        for row in rows.to_pylist():
            noise = int(pictures[row["image_id"]].rgb[0, int(row["faces.box"][0]) % 32, 1])
            ids = {name: row[name] for name in ("identity_id", "image_id", "face_id")}
            fit = noise <= self.params.max_noise
            verdict = (
                {"status": "ok"}
                if fit
                else {"status": "filtered", "reason": "noisy", "compared": self.params.compared}
            )
            out.append({**ids, "brightness": float(noise), **verdict})
        return self.build(out)


class ToyCaptionParams(Params):
    prompt: str = "an image"


class ToyCaption(Stage):
    name: ClassVar[str] = "caption"
    backend: ClassVar[str] = "toy"
    parent: ClassVar[str] = "faces"
    Parameters: ClassVar[type[Params]] = ToyCaptionParams
    reads: ClassVar[Mapping[str, tuple[str, ...]]] = {"faces": ("box",), "images": ("sha256",)}
    selects: ClassVar[Mapping[str, tuple[str, ...]]] = {"clusters": ("keep",)}

    def wants(self, rows: pa.Table) -> pa.ChunkedArray | pa.Array:
        return kept(self, rows)

    def run(self, rows: pa.Table, pictures: Mapping[str, Picture], services: Services) -> pa.Table:
        ids = ("identity_id", "image_id", "face_id")
        common = {"prompt_id": self.params.prompt, "model": "toy", "tokens": 3, "status": "ok"}
        said = [
            (row, f"{self.params.prompt} {row['images.sha256'][:6]}") for row in rows.to_pylist()
        ]
        return self.build(
            [
                {**{name: row[name] for name in ids}, "caption": caption, **common}
                for row, caption in said
            ]
        )


TOYS = {"detect": "ToyDetect", "embed": "ToyEmbed", "screen": "ToyScreen", "caption": "ToyCaption"}
"""Stages of the toy DAG; `screen` is not in it, tests add it by `--set`."""


def register() -> None:
    for stage, name in TOYS.items():
        BACKENDS[stage]["toy"] = f"tests.pipeline.toy:{name}"


class ToySpec(WorkerSpec):
    """A spec whose workers know the toys, in other processes too."""

    def build(self, *arguments: Any, **named: Any) -> Worker:
        register()
        return super().build(*arguments, **named)


def toy_spec(spec: WorkerSpec) -> ToySpec:
    return ToySpec(**vars(spec))


def picture(*faces: int, noise: int = 0, trouble: int = 0) -> bytes:
    """A PNG with a stripe a face; 0 is no face."""
    rgb = np.zeros((32, 32, 3), np.uint8)
    edges = np.linspace(0, 32, len(faces) + 1).astype(int)
    for who, start, stop in zip(faces, edges[:-1], edges[1:], strict=True):
        rgb[:, start:stop] = (who, noise if who else 0, trouble)
    sink = io.BytesIO()
    Image.fromarray(rgb).save(sink, "PNG")
    return sink.getvalue()


def people(folder: Path, count: int = 4, pictures: int = 6) -> Path:
    """Folders of people: images of each, one of somebody else, one of two people, one without a
    face, one broken file.
    """
    for person in range(count):
        place = folder / f"person {person:02d}"
        place.mkdir(parents=True)
        who = 10 + person
        for number in range(pictures):
            (place / f"{number:02d}.png").write_bytes(picture(who, noise=number))
        (place / "other.png").write_bytes(picture(100 + person, noise=1))
        (place / "pair.png").write_bytes(picture(who, 200 + person % 20, noise=90))
        (place / "none.png").write_bytes(picture(0, noise=1 + person))
        (place / "broken.png").write_bytes(picture(who, noise=50)[:-30])
        (place / "text.txt").write_bytes(b"no picture")
    return folder


def toy_dag(folder: Path, source: Path, root: Path | str, sets: Sequence[str] = ()) -> Dag:
    register()
    file = folder / "toy.yaml"
    file.write_text(DAG.format(root=root, people=source))
    return load_dag(file, sets)


class Killed(BaseException):
    """The process is gone. Not an Exception: nothing in the program may catch it and go on."""


class DyingStore(Store):
    """A store whose process dies at its n-th call: before the call has an effect, or right after.

    Everything after that fails too, as it does for a process that is gone.
    """

    def __init__(
        self, root: str | os.PathLike[str], at: int | None = None, after: bool = False
    ) -> None:
        super().__init__(root)
        self.calls, self.at, self.after, self.dead = 0, at, after, False

    def _call(self, name: str, *arguments: Any, **named: Any) -> Any:
        self.calls += 1
        if self.dead or (self.calls == self.at and not self.after):
            self.dead = True
            raise Killed
        result = getattr(super(), name)(*arguments, **named)
        if self.calls == self.at:
            self.dead = True
            raise Killed
        return result

    def read(self, path: str) -> bytes:
        return self._call("read", path)

    def exists(self, path: str) -> bool:
        return self._call("exists", path)

    def put(self, path: str, data: bytes, durable: bool = True) -> None:
        self._call("put", path, data, durable)

    def put_new(self, path: str, data: bytes) -> bool:
        return self._call("put_new", path, data)

    def put_file(self, path: str, local: str | os.PathLike[str]) -> None:
        self._call("put_file", path, local)

    def delete(self, paths: Any, before: Any = lambda: None) -> None:
        for path in paths:
            self._call("delete", [path], before)

    def list(self, prefix: str, few: bool = False) -> list[str]:
        return self._call("list", prefix, few)
