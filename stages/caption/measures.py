"""What can be said of a face and its image by measuring: phrases for captions."""

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

FIELDS: Mapping[str, str] = {
    "framing": "how near: an extreme close-up to a wide shot, by the face's share of the height",
    "colour": "in colour, or in black and white",
    "people": "how many faces were found",
    "facing": "where the face is turned, by its five points",
    "tilt": "how the head leans, by the line of the eyes",
    "light": "dim, medium or bright: mean luminance",
    "contrast": "low, medium or high: standard deviation of the luminance",
    "focus": "sharp, slightly soft or blurred: sharpness of the face",
    "background": "the commonest tone outside the person",
    "orientation": "portrait, landscape or square",
}
"""The fields of a caption template and what they say."""

_WORK_SIDE = 256
_FRAMINGS = (
    (0.75, "an extreme close-up"),
    (0.5, "a close-up"),
    (0.25, "a head-and-shoulders shot"),
    (0.12, "a half-length shot"),
)
_GREYS = ("black", "dark grey", "grey", "light grey", "white")
_TONES = (*_GREYS, "red", "brown", "orange", "beige", "yellow", "green", "blue", "purple", "pink")
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass(frozen=True)
class Face:
    """What the table `faces` says of one face, in its units; null where the detector does not
    tell.
    """

    box: list[float]
    landmarks: list[float] | None
    landmark_scheme: str | None
    sharpness: float | None
    yaw: float | None
    side: float | None
    faces_in_image: int | None


def describe(face: Face, rgb: np.ndarray) -> dict[str, str]:
    """A phrase for every field. `rgb`: (height, width, 3) uint8, the whole upright image."""
    height, width = rgb.shape[:2]
    scale = min(1.0, _WORK_SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    luminance = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    return {
        "framing": _framing((face.box[3] - face.box[1]) / height),
        "colour": "in black and white" if _is_grey(small) else "in colour",
        "people": _people(face.faces_in_image),
        "facing": _facing(face.yaw),
        "tilt": _tilt(face.landmarks, face.landmark_scheme),
        "light": _step(float(luminance.mean()), (70, "dim"), (170, "medium"), "bright"),
        "contrast": _step(float(luminance.std()), (40, "low"), (70, "medium"), "high"),
        "focus": "visible"
        if face.sharpness is None
        else _step(face.sharpness, (30, "blurred"), (100, "slightly soft"), "sharp"),
        "background": _background(
            small, np.array(face.box) * np.tile((size[0] / width, size[1] / height), 2)
        ),
        "orientation": _step(width / height, (0.95, "portrait"), (1.05, "square"), "landscape"),
    }


def _step(value: float, low: tuple[float, str], middle: tuple[float, str], high: str) -> str:
    return low[1] if value < low[0] else middle[1] if value <= middle[0] else high


def _framing(share: float) -> str:
    """`share`: of the face box in the height; a box reaches from brow to chin, about two thirds of
    the head.
    """
    return next((name for least, name in _FRAMINGS if share >= least), "a wide shot")


def _people(count: int | None) -> str:
    """Faces in the background are found or not, so that more than ten are many."""
    if count is None or count <= 1:
        return "one person"
    return f"one of {_NUMBERS[count]} people" if count < len(_NUMBERS) else "one of many people"


def _facing(yaw: float | None) -> str:
    """Left and right are those of the image, as the viewer has them."""
    if yaw is None:
        return "with the face visible"
    if abs(yaw) < 0.25:
        return "facing the camera"
    return "turned to the left" if yaw < 0 else "turned to the right"


def _tilt(landmarks: list[float] | None, scheme: str | None) -> str:
    eyes = eye_centres(landmarks, scheme)
    if eyes is None:
        return "head in view"
    across = eyes[1] - eyes[0]
    angle = float(np.degrees(np.arctan2(across[1], across[0])))
    if abs(angle) < 12:
        return "head upright"
    if abs(angle) > 120:
        return "head upside down"
    return "head tilted to the right" if angle > 0 else "head tilted to the left"


def eye_centres(landmarks: list[float] | None, scheme: str | None) -> np.ndarray | None:
    """(2, 2) x y of the image-left and image-right eye from five points, or None where they are not
    known.
    """
    if landmarks is None or len(landmarks) != 10:
        return None
    points = np.array(landmarks).reshape(5, 2)
    if scheme == "arcface5":
        return points[:2]
    if scheme == "dlib5":
        return np.array([points[2:4].mean(axis=0), points[:2].mean(axis=0)])
    return None


def _is_grey(rgb: np.ndarray) -> bool:
    """Whether the channels agree nearly everywhere; compression leaves a little colour in grey
    images.
    """
    spread = rgb.max(axis=2).astype(np.int16) - rgb.min(axis=2)
    return float(np.percentile(spread, 99)) < 16


def _background(rgb: np.ndarray, box: np.ndarray) -> str:
    """The commonest tone outside a head and shoulders drawn around the face box, `box` in pixels of
    `rgb`.
    """
    height, width = rgb.shape[:2]
    x1, y1, x2, y2 = box
    middle, wide, tall = (x1 + x2) / 2, x2 - x1, y2 - y1
    y, x = np.mgrid[0:height, 0:width] + 0.5
    head = (abs(x - middle) < 0.9 * wide) & (y > y1 - 0.6 * tall) & (y < y2 + 0.5 * tall)
    body = (abs(x - middle) < 1.8 * wide) & (y >= y2 + 0.1 * tall)
    outside = rgb[~(head | body)]
    if len(outside) < 0.03 * height * width:
        return "no visible"
    return _TONES[int(np.bincount(_tones(outside), minlength=len(_TONES)).argmax())]


def _tones(rgb: np.ndarray) -> np.ndarray:
    """Index into _TONES of every pixel: (n, 3) uint8 to (n,). Hues as in HSV; brown is dark orange
    and beige pale orange.
    """
    values = rgb.astype(np.float64)
    high, low = values.max(axis=1), values.min(axis=1)
    chroma = high - low
    saturation = chroma / np.maximum(high, 1.0)
    red, green, blue = values.T
    spread = np.maximum(chroma, 1.0)
    hue = 60 * np.select(
        [high == red, high == green],
        [((green - blue) / spread) % 6, (blue - red) / spread + 2],
        (red - green) / spread + 4,
    )
    warm = np.select(
        [high < 150, saturation < 0.4],
        [_TONES.index("brown"), _TONES.index("beige")],
        _TONES.index("orange"),
    )
    bands = (
        (14, "red"),
        (42, ""),
        (70, "yellow"),
        (165, "green"),
        (258, "blue"),
        (292, "purple"),
        (345, "pink"),
    )
    choices = [_TONES.index(name) if name else warm for _, name in bands]
    coloured = np.select([hue < end for end, _ in bands], choices, _TONES.index("red"))
    grey = np.searchsorted(
        [40, 95, 160, 220], 0.299 * red + 0.587 * green + 0.114 * blue, side="right"
    )
    named: np.ndarray = np.where((chroma < 24) | (saturation < 0.15) | (high < 45), grey, coloured)
    return named
