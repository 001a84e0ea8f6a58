"""Non-maximum suppression: of the boxes that stand for one face, the best."""

import numpy as np


def suppress(boxes: np.ndarray, scores: np.ndarray, limit: float) -> np.ndarray:
    """Indices of the boxes (n, 4) that no better box overlaps by more than `limit` (IoU), by
    falling score (n).

    Of equal scores the earlier box counts as better. Time grows with n times the boxes that stay,
    memory with n.
    """
    order = np.argsort(-scores, kind="stable")
    x1, y1, x2, y2 = boxes.T
    area = np.maximum(x2 - x1, 0) * np.maximum(y2 - y1, 0)
    kept = []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        wide = np.minimum(x2[best], x2[order]) - np.maximum(x1[best], x1[order])
        high = np.minimum(y2[best], y2[order]) - np.maximum(y1[best], y1[order])
        common = np.maximum(wide, 0) * np.maximum(high, 0)
        order = order[~(common > limit * (area[best] + area[order] - common))]
    return np.array(kept, dtype=np.intp)
