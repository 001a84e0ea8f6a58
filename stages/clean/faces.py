"""What a rule of cleaning looks at and what it says: the faces of people as arrays, and a verdict
on each of them.

Two things are the same for every rule: what is left of its verdict when copies, decisions by hand
and further faces of one image are taken into account (`conclude`), and that decisions by hand win.
"""

from dataclasses import dataclass, fields

import numpy as np

KEEP, REJECT = 1, -1
REFERENCE, OTHER_IMAGE = 1, -1
# fmt: off
REASONS = (
    "", "other_cluster", "below_threshold", "other_face", "ambiguous", "duplicate", "too_few_faces",
    "rejected", "screened", "bad_vector",
    "near_tie",
)
# fmt: on
"""Why a face is not kept; the first stands for those that are."""
CODE = {reason: np.int8(code) for code, reason in enumerate(REASONS)}
ALONE = 1.0
"""The similarity of a person's only face: to itself."""


@dataclass(frozen=True)
class Faces:
    """The faces of p people, one person after the other; n in all."""

    vectors: np.ndarray
    """(n, d) float32, as `unit_vectors` gives them: zeros are set aside as bad_vector."""
    starts: np.ndarray
    """(p + 1,) int64: where each person begins, and n. Everybody has a face."""
    images: np.ndarray
    """(n,) int64: equal for faces of one image."""
    votes: np.ndarray
    """(n,) int64: equal for faces of images that may be versions of one photograph, which together
    have one vote.
    """
    forced: np.ndarray
    """(n,) int8: KEEP, REJECT or 0, as somebody decided by hand. What is kept by hand also says who
    the person is.
    """
    screened: np.ndarray
    """(n,) bool: counts as any other, but is not kept."""
    duplicate_of: np.ndarray
    """(n,) int64: the better copy, a row that is nobody's copy itself, or -1. See
    stages/clean/copies.py.
    """
    reference: np.ndarray
    """(n,) int8: REFERENCE where the source says that the image shows the person, OTHER_IMAGE where
    it says so of another image of this person, 0 where it says nothing.
    """

    @property
    def people(self) -> int:
        return len(self.starts) - 1

    @property
    def person(self) -> np.ndarray:
        """(n,) int64: whose face it is, 0 to p - 1."""
        return np.repeat(np.arange(self.people), np.diff(self.starts))

    def take(self, first: int, last: int) -> "Faces":
        """The people from `first` up to `last`."""
        start, stop = int(self.starts[first]), int(self.starts[last])
        own = {
            field.name: getattr(self, field.name)[start:stop]
            for field in fields(self)
            if field.name != "starts"
        }
        own["duplicate_of"] = np.where(own["duplicate_of"] < 0, -1, own["duplicate_of"] - start)
        return Faces(starts=self.starts[first : last + 1] - start, **own)

    def reorder(self, order: np.ndarray) -> "Faces":
        """The same faces in another order, in which people stay where they are: `order` (n,) int64,
        rows of these faces.
        """
        back = np.empty(len(order), dtype=np.int64)
        back[order] = np.arange(len(order))
        own = {
            field.name: getattr(self, field.name)[order]
            for field in fields(self)
            if field.name != "starts"
        }
        own["duplicate_of"] = np.where(own["duplicate_of"] < 0, -1, back[own["duplicate_of"]])
        return Faces(starts=self.starts, **own)


@dataclass(frozen=True)
class Verdict:
    """What a rule says of n faces of p people, in their order."""

    cluster: np.ndarray
    """(n,) int32: 0 is the main one, the others by falling size; -1 for what was not clustered."""
    similarity: np.ndarray
    """(n,) float32: cosine to the indicator. nan for bad vectors and where there is no
    indicator.
    """
    keep: np.ndarray
    """(n,) bool."""
    reason: np.ndarray
    """(n,) int8: index in REASONS."""
    indicator: np.ndarray
    """(p, d) float64: unit vector of the main cluster, zeros where its faces cancel out or there
    are none.
    """
    margin: np.ndarray
    """(p,) float32: the votes of the second group over those of the first; 0 where there is no
    second, nan without votes.
    """


def unit_vectors(vectors: np.ndarray) -> np.ndarray:
    """`vectors` (n, d) as float32 unit vectors, zeros for what is not finite or zero."""
    vectors = np.asarray(vectors, dtype=np.float32)
    square = np.einsum("nd,nd->n", vectors, vectors)
    fine = np.isfinite(square) & (square > 1e-12)
    if not fine.all():
        vectors = np.where(fine[:, None], vectors, np.float32(0))
    return vectors * np.divide(1.0, np.sqrt(square), out=np.zeros_like(square), where=fine)[:, None]


def conclude(
    faces: Faces, cluster: np.ndarray, similarity: np.ndarray, reason: np.ndarray, min_faces: int
) -> np.ndarray:
    """The last word on every face: (n,) int8, index in REASONS.

    `cluster`, `similarity`, `reason`: (n,), what the rule says of the faces that count (neither
    copies, nor rejected, nor bad vectors); what it says of the others is not looked at.
    """
    person, people = faces.person, faces.people
    fine, copy = faces.vectors.any(axis=1), faces.duplicate_of >= 0
    own = np.where(copy, faces.duplicate_of, np.arange(len(copy)))
    reason = reason.astype(np.int8)
    reason[~fine] = CODE["bad_vector"]
    reason[faces.forced == KEEP] = 0
    reason[faces.forced == REJECT] = CODE["rejected"]
    _one_face_an_image(reason, fine & (faces.forced != REJECT) & ~copy, similarity, faces)
    reason[(reason == 0) & faces.screened & (faces.forced != KEEP)] = CODE["screened"]
    reason[copy & (reason == 0)] = CODE["duplicate"]
    few = np.bincount(person[reason == 0], minlength=people) < min_faces
    reason[few[person] & (reason == 0) & (faces.forced != KEEP)] = CODE["too_few_faces"]
    # Copies share the lot of the face that they are copies of.
    shared = copy & ~np.isin(reason, [CODE["rejected"], CODE["bad_vector"]])
    reason[shared] = np.where(reason[own] == 0, CODE["duplicate"], reason[own])[shared]
    return reason


def _one_face_an_image(
    reason: np.ndarray, counted: np.ndarray, similarity: np.ndarray, faces: Faces
) -> None:
    """Leave in each image only the face nearest to the indicator, the first of equals; the others
    become other_face.

    Faces kept by hand all stay.
    """
    kept = np.flatnonzero((reason == 0) & (counted | (faces.forced == KEEP)))
    by_hand, person = faces.forced[kept] == KEEP, faces.person
    order = np.lexsort(
        (kept, -np.nan_to_num(similarity[kept]), ~by_hand, faces.images[kept], person[kept])
    )
    kept, by_hand = kept[order], by_hand[order]
    again = (
        (faces.images[kept][1:] == faces.images[kept][:-1])
        & (person[kept][1:] == person[kept][:-1])
        & ~by_hand[1:]
    )
    reason[kept[1:][again]] = CODE["other_face"]


def distinct(group: np.ndarray, things: np.ndarray, groups: int) -> np.ndarray:
    """How many different `things` there are in each group: (groups,) int64. `group`, `things`: (n,)
    integers.
    """
    order = np.lexsort((things, group))
    group, things = group[order], things[order]
    new = np.ones(len(order), dtype=bool)
    new[1:] = (group[1:] != group[:-1]) | (things[1:] != things[:-1])
    return np.bincount(group[new], minlength=groups)
