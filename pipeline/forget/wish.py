"""What is asked to be removed, and what that comes to."""

from dataclasses import dataclass, field

import numpy as np

from pipeline.forget.texts import Needles


@dataclass(frozen=True)
class Likeness:
    """Somebody known by a face: a unit vector in the space of a recogniser, from a photograph
    (`sha256`, `phash`) if there is one.
    """

    recogniser: str
    vector: tuple[float, ...]
    sha256: str | None = None
    phash: int | None = None
    looks: np.ndarray | None = field(default=None, compare=False)
    """Of the photograph, as `stages.lookalikes.looks` gives them."""


@dataclass(frozen=True)
class Wish:
    """Who or what is to go. `identities`: names or ids; `threshold`: least cosine at which a face
    is the person.
    """

    identities: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()
    sha256s: tuple[str, ...] = ()
    likes: tuple[Likeness, ...] = ()
    threshold: float | None = None
    others: bool = True
    """Whether images under other people's names are looked for by face and name."""
    unknown: bool = False
    """Whether what is not in the dataset is barred all the same."""
    bar_face: bool = False

    def __bool__(self) -> bool:
        return bool(self.identities or self.urls or self.sha256s or self.likes)

    def counts(self) -> dict[str, int]:
        found = {
            "identity": len(self.identities),
            "url": len(self.urls),
            "sha256": len(self.sha256s),
            "like": len(self.likes),
        }
        return {kind: count for kind, count in found.items() if count}


@dataclass
class Found:
    """All of it. `others`: images under other people's names, with why; `shared_names`: names of
    people who stay.
    """

    people: dict[str, str] = field(default_factory=dict)
    """identity_id to name."""
    why: dict[str, str] = field(default_factory=dict)
    images: set[str] = field(default_factory=set)
    faces: set[str] = field(default_factory=set)
    others: dict[str, str] = field(default_factory=dict)
    buckets: set[int] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    shared_names: set[str] = field(default_factory=set)
    shared_spellings: set[str] = field(default_factory=set)
    """Spellings of the names that somebody who stays has too, in whatever order or letters."""
    external_ids: set[str] = field(default_factory=set)
    addresses: set[str] = field(default_factory=set)
    sha256s: set[str] = field(default_factory=set)
    phashes: set[int] = field(default_factory=set)
    looks: dict[str, np.ndarray] = field(default_factory=dict)
    """By SHA-256, of images whose hash says which they are: (n, 2) perceptual hashes of what
    copies may look like.
    """
    vectors: list[np.ndarray] = field(default_factory=list)
    """Of the faces in the people's own images."""
    likenesses: list[Likeness] = field(default_factory=list)
    hashes: dict[str, tuple[str, int | None]] = field(default_factory=dict)
    """SHA-256 and perceptual hash by image_id, of images that decode."""
    with_face: set[str] = field(default_factory=set)
    faceless: set[str] = field(default_factory=set)
    """SHA-256 of images in which no version of the detector has found a face."""
    limits: dict[str, float] = field(default_factory=dict)
    """Least cosine by recogniser."""
    notes: list[str] = field(default_factory=list)

    @property
    def nothing(self) -> bool:
        return not (self.people or self.images)

    def needles(self) -> Needles:
        """What the texts of the dataset may not hold any more."""
        ids = {*self.people, *self.images, *self.faces, *self.sha256s}
        return Needles.of(
            self.names - self.shared_names,
            self.addresses,
            ids,
            self.external_ids,
            self.shared_spellings,
        )
