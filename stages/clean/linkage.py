"""Clean by linkage: the faces of the group that hangs together and shows the person in most
photographs.
"""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from stages.clean.faces import Faces, Verdict
from stages.clean.rule import Rule, judge
from stages.clean.stage import Clean
from stages.stage import Params


class LinkageParams(Params):
    """Parameters of `LinkageClean`; cosines are in the scale of the recogniser. The pipeline fills
    in calibrated ones.
    """

    similarity_threshold: float | None = Field(None, ge=-1, le=1)
    """Least cosine of a face to the sum of the others of its group. None: the calibrated value of
    the recogniser.
    """
    merge_cosine: float | None = Field(None, ge=-1, le=1)
    """Least mean cosine between the faces of a group. None: as above; the similarity threshold if
    still None.
    """
    join_cosine: float | None = Field(None, ge=-1, le=1)
    """Least cosine to the indicator with which a face is the person whatever group it is in. None:
    the calibrated value, if there is one, else no face is; 1 says so, too.
    """
    same_cosine: float | None = Field(None, ge=-1, le=1)
    """Least cosine between the sums of two groups that are one. None: the calibrated value, if
    there is one, else only `merge_cosine` makes groups one.
    """
    near_tie: float = Field(0.9, gt=0)
    """A second group with at least this share of the votes or images of the first: nothing is kept,
    until somebody says who it is. Above 1 only a reference or a hand decides against the larger
    group; 1 refuses exact ties alone.
    """
    duplicates: bool = True
    """Whether to look for copies of a photograph, of which the best is kept, and for versions,
    which have one vote.
    """
    duplicate_cosine: float | None = Field(None, ge=-1, le=1)
    """Least cosine of two faces that must be from one photograph however it was cut. None: the
    calibrated value, if there is one, else copies are found by the look of the whole image alone.
    """
    vote_cosine: float | None = Field(None, ge=-1, le=1)
    """Least cosine of two faces that may be from one photograph, whose images then have one vote.
    None: the calibrated value, if there is one, else as duplicate_cosine.
    """
    min_faces: int = Field(1, ge=1)
    """A person with fewer kept faces keeps none."""


class LinkageClean(Clean):
    """One row of `clusters` a face; see stages/clean/rule.py for the rule and its reasons.

    A person's only face is kept with similarity 1. Two that agree (merge_cosine) are both kept, two
    that do not are `ambiguous`; so is a person of whom all agreeing faces are in one photograph.
    Where two people are in nearly as many, all is `near_tie`: one face kept by hand says who it is,
    and so does a reference image of the source.
    """

    backend: ClassVar[str] = "linkage"
    code_version: ClassVar[int] = 3
    Parameters: ClassVar[type[Params]] = LinkageParams
    reads: ClassVar[Mapping[str, tuple[str, ...]]] = {**Clean.reads, "candidates": ("reference",)}

    def rule(self) -> Rule:
        """The numbers that it judges by. Raises ValueError without a similarity threshold."""
        params: LinkageParams = self.params
        threshold = self.similarity_threshold()
        merge = threshold if params.merge_cosine is None else params.merge_cosine
        return Rule(
            threshold,
            merge,
            params.join_cosine,
            params.same_cosine,
            params.near_tie,
            params.min_faces,
        )

    def judge(self, faces: Faces, names: list[str]) -> Verdict:
        return judge(faces, self.rule())
