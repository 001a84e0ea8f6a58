"""Whom a photograph is of, as far as boxes alone can tell."""

import numpy as np

_CENTRE = 2.0
"""What a pixel of distance counts against a pixel of area (insightface, `FaceAnalysis.get` with `max_num`)."""


def subject(boxes: np.ndarray, scores: np.ndarray, width: int, height: int) -> int:
    """The index of the face that the photograph is of: large and near the centre. Raises ValueError if there is none.

    `boxes`: (n, 4) and the picture's `width` and `height` in pixels; `scores`: (n), which decide between equals only,
    for they say how surely something is a face and not whose photograph it is. Of equals in that too, the first.
    """
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    if not len(boxes):
        raise ValueError("a picture without faces has no subject")
    extent = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    offset = (boxes[:, :2] + boxes[:, 2:]) / 2 - np.array([width, height]) / 2
    weight = extent[:, 0] * extent[:, 1] - _CENTRE * (offset**2).sum(axis=1)
    return int(np.lexsort((-np.asarray(scores, dtype=np.float64), -weight))[0])
