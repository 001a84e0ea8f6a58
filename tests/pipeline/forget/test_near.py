"""Perceptual hashes that are near one another are all found, and no others."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.forget import near
from pipeline.forget.near import Near

HASHES = st.lists(st.integers(0, 2**64 - 1), max_size=30)


@given(HASHES, HASHES, st.data())
def test_what_is_near_is_found(known: list[int], asked: list[int], data: st.DataObject) -> None:
    """A copy under another name would stay."""
    for value in known[:10]:
        for bit in data.draw(st.sets(st.integers(0, 63), max_size=5)):
            value ^= 1 << bit
        asked.append(value)
    one, other = np.array(known, np.uint64), np.array(asked, np.uint64)
    expected = [any((int(a) ^ int(b)).bit_count() <= 3 for b in known) for a in asked]
    assert Near(one).to(other).tolist() == expected


def test_many_at_once_are_compared_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory would grow with the square of what is alike."""
    monkeypatch.setattr(near, "_AT_ONCE", 50)
    known = np.arange(40, dtype=np.uint64) << np.uint64(50)
    asked = np.concatenate([known ^ np.uint64(7), known ^ np.uint64(15 << 20)])
    assert Near(known).to(asked).tolist() == [True] * 40 + [False] * 40
