"""Which of many perceptual hashes are near one of many others."""

import numpy as np

from idcluster.root.removals import NEAR_BITS

_STRETCHES, _WIDTH = NEAR_BITS + 1, 64 // (NEAR_BITS + 1)
_AT_ONCE = 4_000_000


class Near:
    """Hashes to compare with: of two that differ in at most NEAR_BITS one stretch of NEAR_BITS + 1
    is equal, so only those that agree in one are compared (Norouzi et al., multi-index hashing,
    2012).
    """

    def __init__(self, hashes: np.ndarray) -> None:
        self.hashes = np.unique(hashes.astype(np.uint64))
        self.by_stretch: list[tuple[np.ndarray, np.ndarray]] = []
        for number in range(_STRETCHES if len(self.hashes) else 0):
            part = self._part(self.hashes, number)
            order = np.argsort(part, kind="stable")
            self.by_stretch.append(
                (order, np.searchsorted(part[order], np.arange((1 << _WIDTH) + 1)))
            )

    @staticmethod
    def _part(hashes: np.ndarray, number: int) -> np.ndarray:
        return ((hashes >> np.uint64(_WIDTH * number)) & np.uint64((1 << _WIDTH) - 1)).astype(
            np.int64
        )

    def to(self, values: np.ndarray) -> np.ndarray:
        """(n,) bool of (n,) uint64: whether one of the hashes differs from it in at most NEAR_BITS
        bits.
        """
        near = np.zeros(len(values), bool)
        for number, (order, begins) in enumerate(self.by_stretch):
            part = self._part(values, number)
            first, counts = begins[part], begins[part + 1] - begins[part]
            ends = np.cumsum(counts)
            at = 0
            while at < len(values):
                stop = max(
                    int(
                        np.searchsorted(ends, (ends[at - 1] if at else 0) + _AT_ONCE, side="right")
                    ),
                    at + 1,
                )
                mine = np.repeat(np.arange(at, stop), counts[at:stop])
                place = np.arange(len(mine)) - np.repeat(
                    ends[at:stop] - counts[at:stop] - (ends[at - 1] if at else 0), counts[at:stop]
                )
                other = self.hashes[order[np.repeat(first[at:stop], counts[at:stop]) + place]]
                near[mine[np.bitwise_count(values[mine] ^ other) <= NEAR_BITS]] = True
                at = stop
        return near
