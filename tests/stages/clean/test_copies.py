"""Copies of a photograph: each that stays makes a generator learn it by heart, each false one costs
a photograph.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from stages.clean import copies as module
from stages.clean.copies import HASH_DISTANCE, MIRROR, alike, best_copies, better, votes
from stages.clean.indicator import normalised
from stages.pictures import perceptual_hash

SAME_PERSON, SAME_PHOTOGRAPH = 0.5, 0.95


def near_ones(rng: np.random.Generator, count: int, noise: float, size: int = 32) -> np.ndarray:
    return normalised(
        normalised(rng.standard_normal(size))
        + noise * normalised(rng.standard_normal((count, size)))
    ).astype(np.float32)


def copies(
    unit: np.ndarray,
    hashes: Any,
    rank: Any = None,
    images: Any = None,
    starts: Any = None,
    same_photograph: float | None = SAME_PHOTOGRAPH,
) -> list[int]:
    count = len(unit)
    rank = np.arange(count) if rank is None else np.array(rank)
    pairs = alike(
        unit,
        np.array([0, count] if starts is None else starts),
        np.arange(count) if images is None else np.array(images),
        np.array(hashes, np.uint64),
        rank,
        SAME_PERSON,
        same_photograph,
    )
    return best_copies(pairs.copies(same_photograph), rank).tolist()


def test_the_same_picture_of_the_same_person_is_a_copy() -> None:
    rng = np.random.default_rng(0)
    unit = np.concatenate([near_ones(rng, 2, 0.5), near_ones(rng, 1, 0.5)])
    assert SAME_PERSON < unit[0] @ unit[1] < SAME_PHOTOGRAPH
    assert copies(unit, [0b1111, 0b11111111, 0b1111]) == [-1, 0, -1], (
        "four bits apart; somebody else in the same image"
    )
    assert copies(unit, [0b1111, 0b111111111, 1 << 40]) == [-1, -1, -1], "five bits apart"
    assert copies(unit, [7, 7, 7], rank=[1, 0, 2]) == [1, -1, -1], "the better one stays"
    assert copies(unit, [0, 0, 0]) == [-1, -1, -1], (
        "images without a hash, or without anything on them, are not alike"
    )
    assert copies(unit, [7, 7, 7], images=[5, 5, 6]) == [-1, -1, -1], (
        "two faces of one image are two faces"
    )
    assert copies(unit, [7, 7, 7], starts=[0, 1, 3]) == [-1, -1, -1], (
        "the same image under two names is not this step's"
    )


def test_a_cut_of_the_same_photograph_is_a_copy_whatever_the_picture_looks_like() -> None:
    unit = near_ones(np.random.default_rng(1), 3, 0.1)
    assert copies(unit, [1 << 8, 0xFFFF, 0xFF0000]) == [-1, 0, 0]
    assert copies(unit, [1 << 8, 0xFFFF, 0xFF0000], same_photograph=None) == [-1, -1, -1]


def test_a_series_does_not_become_a_chain() -> None:
    """Each image is near the next, the first and the last are far apart: all but one would go."""
    angles = np.linspace(0, np.pi / 3, 5)
    unit = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert copies(unit, [0] * 5, same_photograph=float(np.cos(np.pi / 12)) - 1e-4) == [
        -1,
        0,
        -1,
        2,
        -1,
    ]


def test_faces_without_a_vector_take_no_part() -> None:
    assert copies(np.zeros((3, 8), np.float32), [7, 7, 7]) == [-1, -1, -1]
    assert copies(np.zeros((0, 8), np.float32), [], starts=[0]) == []


def test_the_better_copy_is_large_and_sharp() -> None:
    side, sharpness = np.array([100, 120, 120, 120, np.nan]), np.array([300, 20, 300, 300, 300])
    width, height = np.array([500, 900, 500, 600, 900]), np.full(5, 500)
    assert better(side, sharpness, width, height).tolist() == [2, 3, 1, 0, 4]
    assert better(side[:2], np.array([np.nan, np.nan]), width[:2], height[:2]).tolist() == [1, 0]


def slowly(unit: np.ndarray, hashes: np.ndarray, rank: np.ndarray, images: np.ndarray) -> list[int]:
    """Every face in the order of rank: the copy of the best that stays and is alike, or it
    stays.
    """
    stays: list[int] = []
    found = [-1] * len(unit)
    for row in np.argsort(rank):
        for one in stays:
            cosine = float(unit[row] @ unit[one])
            turned = int(hashes[row] ^ MIRROR ^ hashes[one]).bit_count() <= module.MIRROR_DISTANCE
            near = (
                (int(hashes[row] ^ hashes[one]).bit_count() <= HASH_DISTANCE or turned)
                and hashes[row]
                and hashes[one]
            )
            if images[row] != images[one] and (
                cosine >= SAME_PHOTOGRAPH or (near and cosine >= SAME_PERSON)
            ):
                found[row] = one
                break
        else:
            stays.append(int(row))
    return found


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_it_is_what_looking_at_one_face_after_the_other_gives(seed: int) -> None:
    rng = np.random.default_rng(seed)
    people = []
    for _ in range(int(rng.integers(1, 5))):
        count = int(rng.integers(1, 30))
        unit = near_ones(rng, count, float(rng.uniform(0.05, 1.5)), 6)
        hashes = rng.choice(
            np.array([0, 1, 3, 0xFF, 0xFFF, 1 << 40, int(MIRROR) ^ 3], np.uint64), count
        )
        people.append((unit, hashes, rng.permutation(count), rng.integers(0, count, count)))
    starts = np.cumsum([0, *(len(unit) for unit, *_ in people)])
    expected = [
        at + start if at >= 0 else -1
        for one, start in zip(people, starts, strict=False)
        for at in slowly(*one)
    ]
    unit, hashes, rank, images = (np.concatenate(parts) for parts in zip(*people, strict=True))
    assert copies(unit, hashes, rank, images, starts) == expected
    small = module._TILE
    try:
        module._TILE = 4  # as for one person of thousands of faces
        assert copies(unit, hashes, rank, images, starts) == expected
    finally:
        module._TILE = small


@pytest.mark.slow
def test_ten_thousand_copies_of_one_picture() -> None:
    unit = np.repeat(near_ones(np.random.default_rng(2), 1, 0.1, 64), 10_000, axis=0)
    assert copies(unit, [9] * 10_000) == [-1] + [0] * 9_999
    assert set(copies(unit, [9] * 10_000, rank=np.arange(10_000)[::-1])) == {9_999, -1}


def test_a_photograph_has_one_vote_in_however_many_versions_it_came() -> None:
    """One image of a stranger that the web likes would outvote the person."""
    rng = np.random.default_rng(3)
    unit = np.concatenate([near_ones(rng, 3, 0.1), near_ones(rng, 2, 0.5)])
    images = np.arange(5)
    pairs = alike(
        unit, np.array([0, 5]), images, np.zeros(5, np.uint64), images, SAME_PERSON, SAME_PHOTOGRAPH
    )
    found = votes(images, pairs)
    assert len(set(found[:3].tolist())) == 1 and len(set(found.tolist())) == 3
    chain = module.Alike(
        np.array([0, 1]), np.array([1, 2]), np.ones(2, np.float32), np.zeros(2, bool)
    )
    assert len(set(votes(images, chain)[:3].tolist())) == 1, "a version of a version, too"
    assert votes(images, chain.copies(2.0)).tolist() == images.tolist()


def test_a_mirrored_photograph_is_a_copy(photos: Path) -> None:
    files = sorted(photos.glob("*/001.jpg"))[:40]
    found, hashes = 0, []
    for file in files:
        out = io.BytesIO()
        ImageOps.mirror(Image.open(file).convert("RGB")).save(out, "JPEG", quality=90)
        hashes.append(
            (perceptual_hash(file.read_bytes()) or 0, perceptual_hash(out.getvalue()) or 0)
        )
    unit = np.ones((2, 1), np.float32)
    for at, (before, _) in enumerate(hashes):
        for other, (_, after) in enumerate(hashes):
            said = copies(unit, [before, after], same_photograph=None) == [-1, 0]
            found += said
            assert not said or at == other
    assert found >= len(files) - 2


def test_real_photographs_that_were_compressed_and_shrunk_again(photos: Path) -> None:
    near = far = 0
    files = sorted(photos.glob("*/001.jpg"))[:40]
    hashes = []
    for file in files:
        data = file.read_bytes()
        picture, out = Image.open(io.BytesIO(data)).convert("RGB"), io.BytesIO()
        picture.resize((picture.width * 2 // 3, picture.height * 2 // 3)).save(
            out, "JPEG", quality=60
        )
        hashes.append((perceptual_hash(data) or 0, perceptual_hash(out.getvalue()) or 0))
    for at, (before, _) in enumerate(hashes):
        for other, (_, after) in enumerate(hashes):
            if (before ^ after).bit_count() <= HASH_DISTANCE:
                near, far = near + (at == other), far + (at != other)
    assert near >= len(files) - 1 and far == 0
