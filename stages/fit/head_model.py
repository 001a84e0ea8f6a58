"""A head of average proportions: where the facial points lie in space.

Written down for this project from published anthropometry, means of women and men: breadths and
heights after Farkas, Anthropometry of the Head and Face (1994): outer canthi 89 mm apart, inner
canthi 32.5, wings of the nose 33.5, mouth 52; nasion to subnasale 52, subnasale to mouth line 21.5,
to gnathion 69; the tip of the nose 19.5 before its base. Pupils 62 mm apart; the cornea about 11 mm
before the outer canthus (Hertel exophthalmometry). Depths of the other points are read off average
profiles and good to some 3 mm.

Axes are those of the camera for a head that looks straight into it: x to image right, y down, z
away from the camera. The origin lies midway between the outer canthi. Image right is the person's
left.
"""

import numpy as np

HEAD_WIDTH = 148.0
"""Millimetres: breadth of the head (eu-eu), the unit of distances in the table `heads`."""

POINTS: dict[str, tuple[float, float, float]] = {
    "left outer canthus": (-44.5, 0.0, 0.0),
    "left inner canthus": (-16.3, 1.5, -9.0),
    "right inner canthus": (16.3, 1.5, -9.0),
    "right outer canthus": (44.5, 0.0, 0.0),
    "left pupil": (-31.0, 0.0, -10.0),
    "right pupil": (31.0, 0.0, -10.0),
    "sellion": (0.0, -3.0, -20.0),
    "pronasale": (0.0, 33.0, -47.0),
    "subnasale": (0.0, 43.0, -31.0),
    "left nostril": (-14.0, 41.0, -25.0),
    "right nostril": (14.0, 41.0, -25.0),
    "left mouth corner": (-26.0, 65.0, -20.0),
    "right mouth corner": (26.0, 65.0, -20.0),
    "gnathion": (0.0, 112.0, -15.0),
}
"""Millimetres; left and right as seen in the image."""

_SCHEMES: dict[str, dict[int, str]] = {
    # The contour of the jaw slides over the head as it turns and brows and lips move with the
    # expression: not used.
    "dlib68": {
        8: "gnathion",
        27: "sellion",
        30: "pronasale",
        31: "left nostril",
        33: "subnasale",
        35: "right nostril",
        36: "left outer canthus",
        39: "left inner canthus",
        42: "right inner canthus",
        45: "right outer canthus",
        48: "left mouth corner",
        54: "right mouth corner",
    },
    "mediapipe478": {
        33: "left outer canthus",
        133: "left inner canthus",
        362: "right inner canthus",
        263: "right outer canthus",
        168: "sellion",
        1: "pronasale",
        2: "subnasale",
        98: "left nostril",
        327: "right nostril",
        61: "left mouth corner",
        291: "right mouth corner",
        152: "gnathion",
    },
    "arcface5": {
        0: "left pupil",
        1: "right pupil",
        2: "pronasale",
        3: "left mouth corner",
        4: "right mouth corner",
    },
    "dlib5": {
        0: "right outer canthus",
        1: "right inner canthus",
        2: "left outer canthus",
        3: "left inner canthus",
        4: "subnasale",
    },
}
_SCHEMES["fan68"] = _SCHEMES["dlib68"]
_COUNTS = {"dlib68": 68, "fan68": 68, "mediapipe478": 478, "arcface5": 5, "dlib5": 5}


def model_points(scheme: str) -> tuple[np.ndarray, np.ndarray]:
    """Which points of a landmark scheme are used, (n,) indices, and where they are on the head, (n,
    3) in head widths.

    Raises KeyError for a scheme that has no model.
    """
    used = _SCHEMES[scheme]
    return np.array(list(used)), np.array([POINTS[name] for name in used.values()]) / HEAD_WIDTH


def image_points(scheme: str, flat: np.ndarray) -> np.ndarray:
    """The x y of all points of a scheme, (n, 2) float64, from the flat list of a table, which may
    hold z as well.

    Raises ValueError where the list has not the length that the scheme has, or holds what is not
    finite.
    """
    count = _COUNTS[scheme]
    if flat.size not in (2 * count, 3 * count):
        raise ValueError(f"{scheme} has {count} points, the row holds {flat.size} numbers")
    if not np.isfinite(flat).all():
        raise ValueError(f"a point of {scheme} is not finite")
    points: np.ndarray = np.asarray(flat, dtype=np.float64).reshape(count, -1)[:, :2]
    return points
