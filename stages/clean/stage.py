"""What all backends of `clean` have in common: from rows to faces, and from a verdict to rows."""

from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from threadpoolctl import ThreadpoolController

from schemas.columns import floats, vectors
from stages.clean import copies
from stages.clean.faces import (
    KEEP,
    OTHER_IMAGE,
    REASONS,
    REFERENCE,
    REJECT,
    Faces,
    Verdict,
    unit_vectors,
)
from stages.stage import Calibrated, Grain, Picture, Services, Stage


class Clean(Stage):
    """One row of `clusters` a face. A backend says in `judge` who is the person.

    Its parameters have at least `similarity_threshold`, `duplicates` and `duplicate_cosine`.
    """

    name: ClassVar[str] = "clean"
    grain: ClassVar[Grain] = "bucket"
    parent: ClassVar[str] = "embeddings"
    reads: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "embeddings": ("vector", "recogniser"),
        "faces": ("side", "sharpness"),
        "images": ("phash", "width", "height"),
        "screenings": ("compared",),
        "overrides": ("action",),
    }
    optional: ClassVar[frozenset[str]] = frozenset({"screenings", "overrides"})
    calibrated: ClassVar[Mapping[str, Calibrated]] = {
        **dict.fromkeys(("similarity_threshold", "merge_cosine"), Calibrated(needed=True)),
        **dict.fromkeys(
            ("join_cosine", "same_cosine", "duplicate_cosine", "vote_cosine"), Calibrated()
        ),
    }

    def judge(self, faces: Faces, names: list[str]) -> Verdict:
        """The verdict on faces of the people `names` (identity_id). Linear algebra runs on one
        thread.
        """
        raise NotImplementedError

    def wants(self, rows: pa.Table) -> pa.ChunkedArray | pa.Array:
        """Embedded faces without those that screening filtered, unless they are to be compared or
        kept all the same.
        """
        fit = pc.fill_null(pc.equal(rows["screenings.status"], "ok"), True)
        fit = pc.or_(fit, pc.fill_null(rows["screenings.compared"], False))
        fit = pc.or_(fit, pc.fill_null(pc.equal(rows["overrides.action"], "keep"), False))
        embedded = pc.and_(
            pc.equal(rows["embeddings.status"], "ok"), pc.equal(rows["faces.status"], "ok")
        )
        return pc.and_(pc.fill_null(embedded, False), fit)

    def run(self, rows: pa.Table, pictures: Mapping[str, Picture], services: Services) -> pa.Table:
        """Rows of `clusters`, in the order of `rows`, which holds all faces of every person in it.

        Raises ValueError without a similarity threshold and for a person with vectors of two
        recognisers.
        """
        self.similarity_threshold()
        if not rows.num_rows:
            return self.build([])
        # By face within a person: the order in which the faces came must not change a bit.
        order = pc.sort_indices(rows, [("identity_id", "ascending"), ("face_id", "ascending")])
        ordered = rows.take(order)
        starts = _starts(ordered["identity_id"])
        names = ordered["identity_id"].take(pa.array(starts[:-1])).to_pylist()
        _check_recognisers(ordered["embeddings.recogniser"], starts, names)
        # More threads make these small products slower, and the order of their sums, so the last
        # bits, would vary.
        with _libraries().limit(limits=1):
            faces = self._faces(ordered, starts)
            verdict = self.judge(faces, names)
        made = self._table(ordered, faces, verdict)
        back = np.empty(rows.num_rows, dtype=np.int64)
        back[order.to_numpy()] = np.arange(rows.num_rows)
        return made.take(pa.array(back))

    def similarity_threshold(self) -> float:
        """Raises ValueError where there is none."""
        threshold: float | None = self.params.similarity_threshold
        if threshold is None:
            raise ValueError(
                "clean needs a similarity_threshold: it depends on the recogniser, so that it "
                "has no default here; "
                "the pipeline fills in the calibrated value of the embed backend, a caller of "
                "its own gives one"
            )
        return threshold

    def _faces(self, rows: pa.Table, starts: np.ndarray) -> Faces:
        """What a rule looks at, of rows sorted by person."""
        count, unit = rows.num_rows, unit_vectors(vectors(rows["embeddings.vector"]))
        images = _codes(rows["image_id"])
        screened = pc.fill_null(rows["screenings.compared"], False).to_numpy()
        by_hand = {
            action: pc.fill_null(pc.equal(rows["overrides.action"], action), False).to_numpy()
            for action in ("keep", "reject")
        }
        forced = np.where(by_hand["keep"], KEEP, np.where(by_hand["reject"], REJECT, 0)).astype(
            np.int8
        )
        reference = np.zeros(count, dtype=np.int8)
        if "candidates.reference" in rows.column_names:
            for said, code in (("yes", REFERENCE), ("no", OTHER_IMAGE)):
                reference[
                    pc.fill_null(pc.equal(rows["candidates.reference"], said), False).to_numpy()
                ] = code
        same = np.full(count, -1, dtype=np.int64)
        votes = images
        if self.params.duplicates:
            taking_part = (
                np.where((forced == REJECT)[:, None], np.float32(0), unit)
                if by_hand["reject"].any()
                else unit
            )
            hashes = pc.fill_null(rows["images.phash"], 0).to_numpy().astype(np.uint64)
            limits = [self.params.duplicate_cosine, getattr(self.params, "vote_cosine", None)]
            least = min((limit for limit in limits if limit is not None), default=None)
            side, sharpness = (floats(rows[f"faces.{name}"]) for name in ("side", "sharpness"))
            width, height = (floats(rows[f"images.{name}"]) for name in ("width", "height"))
            # A copy that was screened out stands for nobody, one that is kept by hand for all.
            rank = (
                copies.better(side, sharpness, width, height)
                + count * (screened & (forced != KEEP))
                - count * (forced == KEEP)
            )
            pairs = copies.alike(
                taking_part, starts, images, hashes, rank, self.similarity_threshold(), least
            )
            votes = copies.votes(images, pairs)
            same = copies.best_copies(pairs.copies(self.params.duplicate_cosine), rank)
        same[forced == KEEP] = -1
        return Faces(unit, starts, images, votes, forced, screened, same, reference)

    def _table(self, rows: pa.Table, faces: Faces, verdict: Verdict) -> pa.Table:
        reason = pa.DictionaryArray.from_arrays(
            pa.array(verdict.reason), pa.array([None, *REASONS[1:]], pa.string())
        ).cast(pa.string())
        bad = verdict.reason == REASONS.index("bad_vector")
        ids = (
            rows["face_id"].combine_chunks()
            if isinstance(rows["face_id"], pa.ChunkedArray)
            else rows["face_id"]
        )
        margin = verdict.margin[faces.person]
        columns: dict[str, Any] = {
            **{name: rows[name] for name in ("identity_id", "image_id", "face_id")},
            "cluster": pa.array(verdict.cluster, mask=verdict.cluster < 0),
            "similarity": pa.array(verdict.similarity, mask=np.isnan(verdict.similarity)),
            "keep": pa.array(verdict.keep),
            "duplicate_of": ids.take(pa.array(faces.duplicate_of, mask=faces.duplicate_of < 0)),
            "margin": pa.array(margin, mask=np.isnan(margin)),
            "status": pc.if_else(
                pa.array(verdict.keep), "ok", pc.if_else(pa.array(bad), "failed", "filtered")
            ),
            "reason": reason,
            "detail": pa.nulls(rows.num_rows, pa.string()),
        }
        schema = self.writes.arrow
        schema = schema.remove(schema.get_field_index("inputs"))
        return pa.table([columns[name] for name in schema.names], schema=schema)


@cache
def _libraries() -> ThreadpoolController:
    """The linear algebra of this process; to look for it takes milliseconds."""
    return ThreadpoolController()


def _starts(names: pa.ChunkedArray) -> np.ndarray:
    """(p + 1,) int64: where each of the names of a sorted column begins, and its length."""
    codes = _codes(names)
    return np.concatenate([[0], np.flatnonzero(np.diff(codes)) + 1, [len(codes)]]).astype(np.int64)


def _codes(column: pa.ChunkedArray) -> np.ndarray:
    """(n,) int64: equal for equal texts, from 0."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    codes: np.ndarray = pc.dictionary_encode(array).indices.to_numpy().astype(np.int64)
    return codes


def _check_recognisers(recognisers: pa.ChunkedArray, starts: np.ndarray, names: list[str]) -> None:
    codes = _codes(recognisers)
    for person in np.flatnonzero(
        np.maximum.reduceat(codes, starts[:-1]) != np.minimum.reduceat(codes, starts[:-1])
    ):
        found = pc.unique(
            recognisers.slice(starts[person], starts[person + 1] - starts[person])
        ).to_pylist()
        raise ValueError(
            f"person {names[person]}: vectors of {' and '.join(map(str, found))} do not compare; "
            "embed with one"
        )
