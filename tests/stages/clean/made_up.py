"""Made-up faces of people for tests of cleaning."""

from typing import Any

import numpy as np

from stages.clean.faces import KEEP, REASONS, REJECT, Faces, Verdict, unit_vectors
from stages.clean.indicator import normalised

SIZE = 64


def faces_of(rng: np.random.Generator, count: int, likeness: float = 0.6) -> np.ndarray:
    """(count, SIZE) unit vectors of one made-up person, with a mean cosine of `likeness` among
    them.
    """
    centre = normalised(rng.standard_normal(SIZE))
    noise = rng.standard_normal((count, SIZE))
    noise = normalised(noise - (noise @ centre)[:, None] * centre)
    return np.sqrt(likeness) * centre + np.sqrt(1 - likeness) * noise


def person(vectors: np.ndarray, images: Any = None, **more: Any) -> Faces:
    """One person; `more`: fields of Faces. By default every face is in an image of its own, and
    nothing is said of any.
    """
    count = len(vectors)
    given = {name: np.asarray(values) for name, values in more.items()}
    where = np.array(range(count) if images is None else images)
    return Faces(
        unit_vectors(vectors),
        np.array([0, count]),
        where,
        given.get("votes", where),
        given.get("forced", np.zeros(count, np.int8)),
        given.get("screened", np.zeros(count, bool)),
        given.get("duplicate_of", np.full(count, -1)),
        given.get("reference", np.zeros(count, np.int8)),
    )


def together(people: list[Faces]) -> Faces:
    """All of them one after the other."""
    starts = np.cumsum([0, *(len(one.vectors) for one in people)])
    copies = [
        np.where(one.duplicate_of < 0, -1, one.duplicate_of + start)
        for one, start in zip(people, starts, strict=False)
    ]
    names = ("vectors", "images", "votes", "forced", "screened", "reference")
    joined = {name: np.concatenate([getattr(one, name) for one in people]) for name in names}
    return Faces(starts=starts, duplicate_of=np.concatenate(copies), **joined)


def reasons(verdict: Verdict) -> list[str]:
    return [REASONS[code] for code in verdict.reason]


def some_person(rng: np.random.Generator) -> Faces:
    """Anything that can come: several people in the images, copies, versions, decisions by hand,
    references, broken vectors.
    """
    count = int(rng.integers(1, 15))
    vectors = np.concatenate([faces_of(rng, count) for _ in range(rng.integers(1, 4))])
    total = len(vectors)
    copies = np.full(total, -1)
    for row in np.flatnonzero(rng.random(total) < 0.15):
        better = int(rng.integers(total))
        if better != row and copies[better] < 0 and not (copies == row).any():
            vectors[row], copies[row] = vectors[better], better
    forced = rng.choice(np.array([0, KEEP, REJECT], np.int8), total, p=[0.9, 0.05, 0.05])
    copies[(forced != 0) | (forced[copies] == REJECT)] = -1
    vectors[rng.random(total) < 0.05] = rng.choice([np.nan, 0.0])
    copies = np.where(np.isfinite(vectors.sum(axis=1)) & vectors.any(axis=1), copies, -1)
    copies[
        (copies >= 0) & ~(np.isfinite(vectors[copies].sum(axis=1)) & vectors[copies].any(axis=1))
    ] = -1
    images = rng.integers(0, total, total)
    votes = images if rng.random() < 0.5 else images // 2
    reference = np.where(np.isin(images, rng.integers(0, total, 2)), 1, -1).astype(
        np.int8
    ) * np.int8(rng.random() < 0.3)
    return person(
        vectors,
        images,
        votes=votes,
        forced=forced,
        screened=rng.random(total) < 0.1,
        duplicate_of=copies,
        reference=reference,
    )
