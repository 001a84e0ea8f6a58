"""Clean as the FlashFace paper says, with k-means; for comparisons."""

import hashlib
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from stages.clean.faces import Faces, Verdict
from stages.clean.paper import PaperRule, judge
from stages.clean.stage import Clean
from stages.stage import Params


class KMeansPaperParams(Params):
    """Parameters of `KMeansPaperClean`."""

    k: int = Field(2, ge=1, le=64)
    """Clusters; the paper does not say how many."""
    similarity_threshold: float | None = Field(None, ge=-1, le=1)
    """Least cosine of a kept face to the indicator: 0.6 in the paper, with an ArcFace of its own.
    None: the calibrated value.
    """
    distance: Literal["cosine", "euclidean"] = "cosine"
    """By what k-means is done; the paper does not say. `euclidean` gives the clusters of
    scikit-learn.
    """
    duplicates: bool = False
    """Whether to look for copies of a photograph, of which the best is kept; the paper does not."""
    duplicate_cosine: float | None = Field(None, ge=-1, le=1)
    """As for `linkage`."""
    min_faces: int = Field(1, ge=1)
    """A person with fewer kept faces keeps none."""


class KMeansPaperClean(Clean):
    """One row of `clusters` a face, by FlashFace's rule to the letter; see stages/clean/paper.py
    for why there is a better one.
    """

    backend: ClassVar[str] = "kmeans_paper"
    code_version: ClassVar[int] = 2
    Parameters: ClassVar[type[Params]] = KMeansPaperParams

    def judge(self, faces: Faces, names: list[str]) -> Verdict:
        params: KMeansPaperParams = self.params
        seeds = np.array([seed_of(name) for name in names], dtype=np.uint64)
        rule = PaperRule(
            self.similarity_threshold(),
            params.k,
            params.min_faces,
            spherical=params.distance == "cosine",
        )
        return judge(faces, seeds, rule)


def seed_of(identity: str) -> int:
    """The seed of a person: 64 bits of a hash that is the same in every process, unlike Python's
    own.
    """
    return int.from_bytes(
        hashlib.blake2b(identity.encode(), digest_size=8, person=b"clean seed").digest(), "little"
    )
