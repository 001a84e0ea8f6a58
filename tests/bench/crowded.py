"""Folders as a web search fills them, composed beside the checkout, cleaned in memory by our rule
and by its peers.

A folder's photographs are of the person, of somebody else, or nobody can say whose (a tie, of which
nothing may be kept). Half of the people, drawn by a hash of the name, were never looked at when
limits and rules were chosen.
"""

import hashlib
import importlib.util
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.columns import vectors
from stages.clean import copies
from stages.embed.calibration import Calibration
from stages.stage import Stage
from tests.bench.clean_peers import PEERS
from tests.bench.material import SHARED

MAKER = SHARED / "cases" / "crowded" / "make.py"
OURS = "ours"
NEAR_TIE = 0.85
"""Share of the person's photographs, copies counted once, from which somebody else makes a folder a
near tie.
"""
NO_SERVICES: Any = None


@dataclass(frozen=True)
class Folder:
    """`files` as the maker names them, with `truth` for each: 1 the person, 0 somebody else, -1
    nobody can say.
    """

    kind: str
    name: str
    person: str
    files: tuple[str, ...]
    truth: np.ndarray

    @property
    def unseen(self) -> bool:
        return hashlib.sha256(self.person.encode()).digest()[0] % 2 == 1


@dataclass
class Score:
    """Sums over folders."""

    right: int = 0
    wrong: int = 0
    there: int = 0
    folders: int = 0
    taken_over: int = 0
    """Folders in which somebody else was kept."""
    refused: int = 0

    def add(self, right: int, wrong: int, there: int, refused: bool) -> None:
        self.right, self.wrong, self.there, self.folders = (
            self.right + right,
            self.wrong + wrong,
            self.there + there,
            self.folders + 1,
        )
        self.taken_over, self.refused = self.taken_over + (wrong > 0), self.refused + refused

    def __str__(self) -> str:
        precision = (
            f"{self.right / (self.right + self.wrong):.3f}" if self.right + self.wrong else "-"
        )
        recall = f"{self.right / self.there:.3f}" if self.there else "-"
        return f"{precision} {recall} {self.taken_over} {self.refused}"


APART = ("near ties", "tie", "nobody", "copies", "small2own1")
"""Sets that are no part of the sum over all."""


def total(scores: Iterable[Score]) -> Score:
    """The sum of some."""
    found = Score()
    for one in scores:
        for field in fields(Score):
            setattr(found, field.name, getattr(found, field.name) + getattr(one, field.name))
    return found


def maker() -> Any:
    """The composer, as a module. Raises FileNotFoundError."""
    spec = importlib.util.spec_from_file_location("crowded_folders", MAKER)
    if spec is None or spec.loader is None or not MAKER.is_file():
        raise FileNotFoundError(MAKER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def folders(seeds: int) -> list[Folder]:
    found = []
    for kind, name, seed, good, bad, tie in maker().cases(seeds):
        truth = np.array([1] * len(good) + [0] * len(bad) + [-1] * len(tie))
        person = name.rpartition(" ")[0] if kind.startswith("names") else name
        files = tuple(file.removeprefix("../") for file in (*good, *bad, *tie))
        found.append(Folder(kind, f"{kind} {name} {seed}", person, files, truth))
    return found


class Cleaned:
    """What one recogniser's vectors give. `rows`: all faces of all files, as the clean stage reads
    them, image_id the file.
    """

    def __init__(self, rows: pa.Table, stage: Stage, limits: Calibration) -> None:
        self.rows, self.stage, self.limits = rows, stage, limits
        self.places: dict[str, list[int]] = {}
        for at, file in enumerate(rows["image_id"].to_pylist()):
            self.places.setdefault(file, []).append(at)
        self.unit = vectors(rows["embeddings.vector"])
        self.seconds: dict[str, float] = dict.fromkeys((OURS, *PEERS), 0.0)

    def measure(self, cases: Sequence[Folder]) -> dict[str, dict[tuple[str, bool], Score]]:
        """By rule: by set and whether its people were unseen. Near ties are a set of their own."""
        found: dict[str, dict[tuple[str, bool], Score]] = {OURS: {}, **{name: {} for name in PEERS}}
        ours = self._ours(cases)
        for case, (kept, refused) in zip(cases, ours, strict=True):
            where = "near ties" if self._is_near_tie(case) else case.kind
            peers = {name: (self._peer(name, case), False) for name in PEERS}
            by_rule: Mapping[str, tuple[set[int], bool]] = {OURS: (kept, refused), **peers}
            for rule, (images, no) in by_rule.items():
                right = sum(case.truth[image] == 1 for image in images)
                score = found[rule].setdefault((where, case.unseen), Score())
                score.add(right, len(images) - right, int((case.truth == 1).sum()), no)
        return found

    def _ours(self, cases: Sequence[Folder]) -> Iterator[tuple[set[int], bool]]:
        """The images of each folder that are kept, copies of kept ones included, and whether the
        folder was refused.
        """
        places, people, images = [], [], []
        for number, case in enumerate(cases):
            for image, file in enumerate(case.files):
                for at in self.places.get(file, ()):
                    places.append(at)
                    people.append(f"{number:08d}")
                    images.append(_id(case.name, str(image)))
        rows = self.rows.take(pa.array(places))
        faces = [_id(image, str(at)) for image, at in zip(images, places, strict=True)]
        for name, values in (("identity_id", people), ("image_id", images), ("face_id", faces)):
            rows = rows.set_column(rows.column_names.index(name), name, pa.array(values))
        began = time.process_time()
        verdicts = self.stage.run(rows, {}, NO_SERVICES)
        self.seconds[OURS] += time.process_time() - began
        kept = pc.or_(
            verdicts["keep"], pc.fill_null(pc.equal(verdicts["reason"], "duplicate"), False)
        ).to_pylist()
        by_image: dict[str, bool] = {}
        refused: set[str] = set()
        for person, key, keeps, reason in zip(
            people, images, kept, verdicts["reason"].to_pylist(), strict=True
        ):
            by_image[key] = by_image.get(key, False) or keeps
            if reason in ("near_tie", "ambiguous"):
                refused.add(person)
        for number, case in enumerate(cases):
            mine = {
                image
                for image in range(len(case.files))
                if by_image.get(_id(case.name, str(image)), False)
            }
            yield mine, f"{number:08d}" in refused

    def _faces(self, case: Folder) -> tuple[np.ndarray, np.ndarray]:
        found = [
            (at, image) for image, file in enumerate(case.files) for at in self.places.get(file, ())
        ]
        return np.array([at for at, _ in found], np.int64), np.array(
            [image for _, image in found], np.int64
        )

    def _peer(self, name: str, case: Folder) -> set[int]:
        places, images = self._faces(case)
        if not len(places):
            return set()
        began = time.process_time()
        keep = PEERS[name](self.unit[places].astype(np.float64), images, self.limits)
        self.seconds[name] += time.process_time() - began
        return set(images[keep].tolist())

    def _is_near_tie(self, case: Folder) -> bool:
        """Whether somebody else has nearly as many photographs as the person, when versions of one
        photograph count once.
        """
        if not (case.truth == 1).any() or case.kind == "copies":
            return case.kind == "minusone"
        places, images = self._faces(case)
        hashes = pc.fill_null(self.rows["images.phash"], 0).to_numpy().astype(np.uint64)[places]
        starts, rank, limits = np.array([0, len(places)]), np.arange(len(places)), self.limits
        pairs = copies.alike(
            self.unit[places],
            starts,
            images,
            hashes,
            rank,
            limits.similarity_threshold,
            limits.vote_cosine,
        )
        vote = dict(zip(images.tolist(), copies.votes(images, pairs).tolist(), strict=True))
        count: dict[str, set[int]] = {}
        for image, file in enumerate(case.files):
            if image in vote:
                who = (
                    case.person if case.truth[image] == 1 else file.rpartition(":")[2].split("/")[0]
                )
                count.setdefault(who, set()).add(vote[image])
        others = [
            len(mine) for who, mine in count.items() if who not in (case.person, "group_photos")
        ]
        return case.kind == "minusone" or max(others, default=0) >= NEAR_TIE * len(
            count.get(case.person, ())
        )


def _id(*parts: str) -> str:
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=12).hexdigest()


def versions(files: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """The bytes of those files that the maker makes out of others, as `flip:person/001.jpg`."""
    make = maker()
    with tempfile.TemporaryDirectory() as folder:
        for file in files:
            how, _, plain = file.rpartition(":")
            if how:
                made = Path(folder) / "version.jpg"
                make.version(how, SHARED / "data" / "photos" / plain, made)
                yield file, made.read_bytes()
