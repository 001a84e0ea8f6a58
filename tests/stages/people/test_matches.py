"""People and images that may be the same, over a whole dataset: what is missed here is never
found.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.clean.indicator import normalised
from stages.people.matches import near, pairs


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(0, 60),
    threshold=st.floats(-0.5, 0.99),
    block=st.integers(1, 70),
)
def test_all_pairs_and_no_others_whatever_the_blocks(
    seed: int, count: int, threshold: float, block: int
) -> None:
    rng = np.random.default_rng(seed)
    unit = normalised(rng.standard_normal((count, 8)) + rng.standard_normal(8)).astype(np.float32)
    i, j, cosine = pairs(unit, threshold, block)
    wide = unit.astype(np.float64)
    expected = {
        (a, b)
        for a in range(count)
        for b in range(a + 1, count)
        if np.einsum("d,d->", wide[a], wide[b]) >= threshold
    }
    assert set(zip(i.tolist(), j.tolist(), strict=True)) == expected and len(i) == len(expected)
    assert (np.diff(cosine) <= 0).all()
    whole = pairs(unit, threshold, 1000)
    assert [part.tobytes() for part in whole] == [part.tobytes() for part in (i, j, cosine)]


def test_a_threshold_is_met_exactly_though_single_precision_is_not_exact() -> None:
    rng = np.random.default_rng(0)
    unit = normalised(rng.standard_normal((200, 512))).astype(np.float32)
    wide = unit.astype(np.float64)
    exact = np.einsum("d,d->", wide[17], wide[150])
    assert (17, 150) in set(
        zip(*(part.tolist() for part in pairs(unit, float(exact))[:2]), strict=True)
    )
    assert (17, 150) not in set(
        zip(
            *(part.tolist() for part in pairs(unit, float(np.nextafter(exact, 2)))[:2]), strict=True
        )
    )


def test_people_without_an_indicator_match_nobody() -> None:
    unit = np.array([[0, 0], [1, 0], [np.nan, 0], [1, 0], [0, 0]], dtype=np.float32)
    i, j, cosine = pairs(unit, -1.0)
    assert (i.tolist(), j.tolist(), cosine.tolist()) == ([1], [3], [1.0])


def slowly(hashes: np.ndarray, distance: int) -> set[tuple[int, int]]:
    values = hashes.tolist()
    firsts = [at for at, value in enumerate(values) if value not in values[:at]]
    equal = {(values.index(value), at) for at, value in enumerate(values) if value in values[:at]}
    return equal | {
        (a, b)
        for a in firsts
        for b in firsts
        if a < b and (values[a] ^ values[b]).bit_count() <= distance
    }


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(0, 60), distance=st.integers(0, 8))
def test_every_near_pair_of_hashes_is_found(seed: int, count: int, distance: int) -> None:
    """A few hashes and what changes of up to ten bits make of them."""
    rng = np.random.default_rng(seed)
    roots = rng.integers(0, 2**64, 4, dtype=np.uint64)
    hashes = roots[rng.integers(0, 4, count)]
    for at in range(count):
        for bit in rng.choice(64, rng.integers(0, 11), replace=False):
            hashes[at] ^= np.uint64(1) << np.uint64(bit)
    i, j, bits = near(hashes, distance)
    assert set(zip(i.tolist(), j.tolist(), strict=True)) == slowly(hashes, distance)
    assert bits.tolist() == [
        (int(hashes[a]) ^ int(hashes[b])).bit_count() for a, b in zip(i, j, strict=True)
    ]


def test_a_picture_that_is_everywhere_does_not_fill_the_memory() -> None:
    hashes = np.full(300_000, 77, np.uint64)
    i, j, bits = near(hashes, 3)
    assert (
        len(i) == 299_999 and not i.any() and not bits.any() and (j == np.arange(1, 300_000)).all()
    )


def test_hashes_that_agree_in_much_are_compared_all_the_same() -> None:
    """Images with a white frame share most low frequencies; their hashes fall into one drawer."""
    hashes = np.arange(3000, dtype=np.uint64)
    i, _, bits = near(hashes, 2)
    all_bits = np.bitwise_count(hashes[:, None] ^ hashes[None])
    assert len(i) == (np.triu(all_bits <= 2, 1)).sum() and bits.max() == 2


def test_other_distances_are_refused() -> None:
    for distance in (-1, 9):
        with pytest.raises(ValueError, match="from 0 to 8"):
            near(np.zeros(1, np.uint64), distance)
