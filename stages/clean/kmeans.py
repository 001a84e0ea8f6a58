"""Clean with k-means: the faces that are the person are those of the largest cluster that are near its centre."""

import hashlib
from collections.abc import Mapping
from functools import cache
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field
from threadpoolctl import ThreadpoolController

from stages.clean import duplicates
from stages.clean.rule import KEEP, REASONS, REJECT, Faces, Rule, Verdict, judge, unit_vectors
from stages.columns import floats, vectors
from stages.stage import Grain, Params, Picture, Services, Stage


class KMeansParams(Params):
    """Parameters of `KMeansClean`; cosines are in the scale of the recogniser. The pipeline fills in calibrated ones."""

    k: int = Field(4, ge=1, le=64)
    """Clusters before those that agree are merged."""
    similarity_threshold: float | None = Field(None, ge=-1, le=1)
    """Least cosine of a kept face to the indicator. None: the calibrated value of the recogniser."""
    merge_cosine: float | None = Field(None, ge=-1, le=1)
    """Least mean cosine between the faces of two clusters that are one person. None: as above; the similarity threshold if still None."""
    join_cosine: float | None = Field(None, ge=-1, le=1)
    """Least cosine to the indicator with which a face is the person whatever cluster it is in. None: the calibrated value,
    if there is one, else no face is; 1 says so, too."""
    duplicates: bool = True
    """Whether to look for copies of a photograph, of which the best is kept."""
    duplicate_cosine: float | None = Field(None, ge=-1, le=1)
    """Least cosine of two faces that must be from one photograph however it was cut. None: the calibrated value, if there
    is one, else copies are found by the look of the whole picture alone."""
    min_faces: int = Field(1, ge=1)
    """A person with fewer kept faces keeps none."""


class KMeansPaperParams(Params):
    """Parameters of `KMeansPaperClean`."""

    k: int = Field(2, ge=1, le=64)
    """Clusters; the paper does not say how many."""
    similarity_threshold: float | None = Field(None, ge=-1, le=1)
    """Least cosine of a kept face to the indicator: 0.6 in the paper, with an ArcFace of its own. None: the calibrated value."""
    distance: Literal["cosine", "euclidean"] = "cosine"
    """By what k-means is done; the paper does not say. `euclidean` gives the clusters of scikit-learn."""
    duplicates: bool = False
    """Whether to look for copies of a photograph, of which the best is kept; the paper does not."""
    duplicate_cosine: float | None = Field(None, ge=-1, le=1)
    """As for `kmeans`."""
    min_faces: int = Field(1, ge=1)
    """A person with fewer kept faces keeps none."""


class KMeansClean(Stage):
    """One row of `clusters` a face; see stages/clean/rule.py for the rule and its reasons.

    A person's only face is kept with similarity 1. Two that agree (merge_cosine) are both kept, two that do not are
    `ambiguous`; so is a person of whom all agreeing faces are in one picture.
    """

    name: ClassVar[str] = "clean"
    backend: ClassVar[str] = "kmeans"
    code_version: ClassVar[int] = 2
    grain: ClassVar[Grain] = "bucket"
    parent: ClassVar[str] = "embeddings"
    Parameters: ClassVar[type[Params]] = KMeansParams
    reads: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "embeddings": ("vector", "recogniser"),
        "faces": ("side", "sharpness"),
        "images": ("phash", "width", "height"),
        "screenings": ("compared",),
        "overrides": ("action",),
    }
    optional: ClassVar[frozenset[str]] = frozenset({"screenings", "overrides"})

    def wants(self, rows: pa.Table) -> pa.ChunkedArray | pa.Array:
        """Embedded faces without those that screening filtered, unless they are to be compared or kept all the same."""
        fit = pc.fill_null(pc.equal(rows["screenings.status"], "ok"), True)
        fit = pc.or_(fit, pc.fill_null(rows["screenings.compared"], False))
        fit = pc.or_(fit, pc.fill_null(pc.equal(rows["overrides.action"], "keep"), False))
        embedded = pc.and_(pc.equal(rows["embeddings.status"], "ok"), pc.equal(rows["faces.status"], "ok"))
        return pc.and_(pc.fill_null(embedded, False), fit)

    def run(self, rows: pa.Table, pictures: Mapping[str, Picture], services: Services) -> pa.Table:
        """Rows of `clusters`, in the order of `rows`, which holds all faces of every person in it.

        Raises ValueError without a similarity threshold and for a person with vectors of two recognisers.
        """
        rule = self.rule()
        if not rows.num_rows:
            return self.build([])
        # By face within a person: the order in which the faces came must not change a bit.
        order = pc.sort_indices(rows, [("identity_id", "ascending"), ("face_id", "ascending")])
        ordered = rows.take(order)
        # More threads make these small products slower, and the order of their sums, so the last bits, would vary.
        with _libraries().limit(limits=1):
            faces = self._faces(ordered, rule)
            verdict = judge(faces, rule)
        made = self._table(ordered, faces, verdict)
        back = np.empty(rows.num_rows, dtype=np.int64)
        back[order.to_numpy()] = np.arange(rows.num_rows)
        return made.take(pa.array(back))

    def rule(self) -> Rule:
        """The numbers that it judges by. Raises ValueError without a similarity threshold."""
        params: KMeansParams = self.params
        threshold = _required(params.similarity_threshold)
        merge = threshold if params.merge_cosine is None else params.merge_cosine
        return Rule(threshold, merge, params.join_cosine, params.k, params.min_faces)

    def _faces(self, rows: pa.Table, rule: Rule) -> Faces:
        """What the rule looks at, of rows sorted by person."""
        starts = _starts(rows["identity_id"])
        names = rows["identity_id"].take(pa.array(starts[:-1])).to_pylist()
        _check_recognisers(rows["embeddings.recogniser"], starts, names)
        count, unit = rows.num_rows, unit_vectors(vectors(rows["embeddings.vector"]))
        images = _codes(rows["image_id"])
        copies = np.full(count, -1, dtype=np.int64)
        screened = pc.fill_null(rows["screenings.compared"], False).to_numpy()
        by_hand = {action: pc.fill_null(pc.equal(rows["overrides.action"], action), False).to_numpy() for action in ("keep", "reject")}
        forced = np.where(by_hand["keep"], KEEP, np.where(by_hand["reject"], REJECT, 0)).astype(np.int8)
        if self.params.duplicates:
            side, sharpness = (floats(rows[f"faces.{name}"]) for name in ("side", "sharpness"))
            width, height = (floats(rows[f"images.{name}"]) for name in ("width", "height"))
            # A copy that was screened out stands for nobody, one that is kept by hand for all.
            rank = duplicates.better(side, sharpness, width, height) + count * (screened & (forced != KEEP)) - count * (forced == KEEP)
            hashes = pc.fill_null(rows["images.phash"], 0).to_numpy().astype(np.uint64)
            taking_part = np.where((forced == REJECT)[:, None], np.float32(0), unit) if by_hand["reject"].any() else unit
            copies = duplicates.find(taking_part, starts, images, hashes, rank, rule.similarity_threshold, self.params.duplicate_cosine)
        seeds = np.array([seed_of(name) for name in names], dtype=np.uint64)
        copies[forced == KEEP] = -1
        return Faces(unit, starts, seeds, images, forced, screened, copies)

    def _table(self, rows: pa.Table, faces: Faces, verdict: Verdict) -> pa.Table:
        reason = pa.DictionaryArray.from_arrays(pa.array(verdict.reason), pa.array([None, *REASONS[1:]], pa.string())).cast(pa.string())
        bad = verdict.reason == REASONS.index("bad_vector")
        ids = rows["face_id"].combine_chunks() if isinstance(rows["face_id"], pa.ChunkedArray) else rows["face_id"]
        columns = {
            **{name: rows[name] for name in ("identity_id", "image_id", "face_id")},
            "cluster": pa.array(verdict.cluster, mask=verdict.cluster < 0),
            "similarity": pa.array(verdict.similarity, mask=np.isnan(verdict.similarity)),
            "keep": pa.array(verdict.keep),
            "duplicate_of": ids.take(pa.array(faces.duplicate_of, mask=faces.duplicate_of < 0)),
            "status": pc.if_else(pa.array(verdict.keep), "ok", pc.if_else(pa.array(bad), "failed", "filtered")),
            "reason": reason,
            "detail": pa.nulls(rows.num_rows, pa.string()),
        }
        schema = self.writes.arrow
        schema = schema.remove(schema.get_field_index("inputs"))
        return pa.table([columns[name] for name in schema.names], schema=schema)


class KMeansPaperClean(KMeansClean):
    """FlashFace's rule to the letter: k-means, and of the largest cluster what is near its centre. For comparisons.

    A person of one look is cut up as well, and all but one cluster is lost; of two pictures one is left. Ties of size go
    to the tighter cluster, then to the first face.
    """

    backend: ClassVar[str] = "kmeans_paper"
    code_version: ClassVar[int] = 1
    Parameters: ClassVar[type[Params]] = KMeansPaperParams

    def rule(self) -> Rule:
        params: KMeansPaperParams = self.params
        threshold, spherical = _required(params.similarity_threshold), params.distance == "cosine"
        return Rule(threshold, None, None, params.k, params.min_faces, paper=True, spherical=spherical)


@cache
def _libraries() -> ThreadpoolController:
    """The linear algebra of this process; to look for it takes milliseconds."""
    return ThreadpoolController()


def seed_of(identity: str) -> int:
    """The seed of a person: 64 bits of a hash that is the same in every process, unlike Python's own."""
    return int.from_bytes(hashlib.blake2b(identity.encode(), digest_size=8, person=b"clean seed").digest(), "little")


def _required(threshold: float | None) -> float:
    if threshold is None:
        raise ValueError(
            "clean needs a similarity_threshold: it depends on the recogniser, so that it has no default here; "
            "the pipeline fills in the calibrated value of the embed backend, a caller of its own gives one"
        )
    return threshold


def _starts(names: pa.ChunkedArray) -> np.ndarray:
    """(p + 1,) int64: where each of the names of a sorted column begins, and its length."""
    codes = _codes(names)
    return np.concatenate([[0], np.flatnonzero(np.diff(codes)) + 1, [len(codes)]]).astype(np.int64)


def _codes(column: pa.ChunkedArray) -> np.ndarray:
    """(n,) int64: equal for equal texts."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    codes: np.ndarray = pc.dictionary_encode(array).indices.to_numpy().astype(np.int64)
    return codes


def _check_recognisers(recognisers: pa.ChunkedArray, starts: np.ndarray, names: list[str]) -> None:
    codes = _codes(recognisers)
    for person in np.flatnonzero(np.maximum.reduceat(codes, starts[:-1]) != np.minimum.reduceat(codes, starts[:-1])):
        found = pc.unique(recognisers.slice(starts[person], starts[person + 1] - starts[person])).to_pylist()
        raise ValueError(f"person {names[person]}: vectors of {' and '.join(map(str, found))} do not compare; embed with one")
