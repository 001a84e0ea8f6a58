"""Clean with k-means: the faces that are the person are those of the largest cluster that are near its centre."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field
from threadpoolctl import ThreadpoolController

from stages.clean.indicator import quality_weights
from stages.clean.rule import PersonResult, Rule, clean_person
from stages.columns import floats, vectors
from stages.stage import Grain, Params, Picture, Services, Stage


class KMeansParams(Params):
    """Parameters of `KMeansClean`; cosines are in the scale of the recogniser."""

    k: int = Field(4, ge=1, le=64)
    """Clusters before those that agree are merged."""
    similarity_threshold: float | None = Field(None, ge=-1, le=1)
    """Least cosine of a kept face to the indicator. None: the calibrated value of the recogniser, which the pipeline fills in."""
    merge_cosine: float | None = Field(None, ge=-1, le=1)
    """Least mean cosine between the faces of two clusters that are one person. None: as above; the similarity threshold if still None."""
    min_faces: int = Field(1, ge=1)
    """A person with fewer kept faces keeps none."""


class KMeansClean(Stage):
    """One row of `clusters` a face; see stages/clean/rule.py for the rule and its reasons."""

    name: ClassVar[str] = "clean"
    backend: ClassVar[str] = "kmeans"
    grain: ClassVar[Grain] = "bucket"
    parent: ClassVar[str] = "embeddings"
    Parameters: ClassVar[type[Params]] = KMeansParams
    reads: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "embeddings": ("vector", "recogniser"),
        "faces": ("score", "side", "sharpness"),
        "screenings": ("compared",),
    }
    optional: ClassVar[frozenset[str]] = frozenset({"screenings"})

    def wants(self, rows: pa.Table) -> pa.ChunkedArray | pa.Array:
        """Embedded faces without those that screening filtered, unless they are to be compared all the same."""
        fit = pc.fill_null(pc.equal(rows["screenings.status"], "ok"), True)
        embedded = pc.and_(pc.equal(rows["embeddings.status"], "ok"), pc.equal(rows["faces.status"], "ok"))
        return pc.and_(pc.fill_null(embedded, False), pc.or_(fit, pc.fill_null(rows["screenings.compared"], False)))

    def run(self, rows: pa.Table, pictures: Mapping[str, Picture], services: Services) -> pa.Table:
        """Rows of `clusters`, in the order of `rows`, which holds all faces of every person in it.

        Raises ValueError without a similarity threshold and for a person with vectors of two recognisers.
        """
        rule = self._rule()
        if not rows.num_rows:
            return self.build([])
        people, person = np.unique(rows["identity_id"].to_numpy(), return_inverse=True)
        order = np.argsort(person, kind="stable")
        bounds = np.searchsorted(person[order], np.arange(len(people) + 1))
        found: list[dict[str, Any]] = [{}] * rows.num_rows
        # More threads make these small products slower, and the order of their sums, so the last bits, would vary.
        with ThreadpoolController().limit(limits=1):
            for at, identity in enumerate(people):
                members = order[bounds[at] : bounds[at + 1]]
                faces = rows.take(pa.array(members))
                for row, place in zip(_rows(faces, _judge(identity, faces, rule)), members, strict=True):
                    found[place] = row
        return self.build(found)

    def _rule(self) -> Rule:
        params: KMeansParams = self.params
        threshold = params.similarity_threshold
        if threshold is None:
            raise ValueError(
                "clean needs a similarity_threshold: it depends on the recogniser, so that it has no default here; "
                "the pipeline fills in the calibrated value of the embed backend, a caller of its own gives one"
            )
        merge = threshold if params.merge_cosine is None else params.merge_cosine
        return Rule(threshold, merge, params.k, params.min_faces)


def _judge(identity: str, faces: pa.Table, rule: Rule) -> PersonResult:
    recognisers = faces["embeddings.recogniser"].unique().to_pylist()
    if len(recognisers) > 1:
        raise ValueError(f"person {identity}: vectors of {' and '.join(map(str, recognisers))} do not compare; embed with one")
    score, side, sharpness = (floats(faces[f"faces.{name}"]) for name in ("score", "side", "sharpness"))
    weights = quality_weights(score, side, sharpness)
    images, ids = faces["image_id"].to_pylist(), faces["face_id"].to_pylist()
    found = clean_person(vectors(faces["embeddings.vector"]), weights, images, ids, rule, seed_of(identity))
    return _without(found, pc.fill_null(faces["screenings.compared"], False).to_numpy(), rule)


def _without(result: PersonResult, screened: np.ndarray, rule: Rule) -> PersonResult:
    """The result without the faces that only were there to be compared: `screened` (n,) bool."""
    if not (result.keep & screened).any():
        return result
    reason = np.array(result.reason, dtype=object)
    reason[result.keep & screened] = "screened"
    keep = result.keep & ~screened
    if keep.sum() < rule.min_faces:
        reason[keep], keep = "too_few_faces", np.zeros(len(keep), dtype=bool)
    return replace(result, keep=keep, reason=tuple(reason))


def _rows(faces: pa.Table, result: PersonResult) -> list[dict[str, Any]]:
    ids = zip(*(faces[name].to_pylist() for name in ("identity_id", "image_id", "face_id")), strict=True)
    return [
        {
            "identity_id": identity,
            "image_id": image,
            "face_id": face,
            "cluster": int(cluster),
            "similarity": float(similarity),
            "keep": bool(keep),
            "status": "ok" if keep else "filtered",
            "reason": reason,
        }
        for (identity, image, face), cluster, similarity, keep, reason in zip(
            ids, result.cluster, result.similarity, result.keep, result.reason, strict=True
        )
    ]


def seed_of(identity: str) -> int:
    """The seed of a person: 64 bits of a hash that is the same in every process, unlike Python's own."""
    return int.from_bytes(hashlib.blake2b(identity.encode(), digest_size=8, person=b"clean seed").digest(), "little")
