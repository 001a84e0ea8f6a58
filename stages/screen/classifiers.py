"""Classifiers of images and faces in ONNX: how likely an image is not safe for work, how old a
face looks.

Both take one input (n, 3, height, width) float32: RGB, shifted and scaled by the `normalisation` of
the registered weights. What the output means follows from its width:

- `nsfw/picture`: the whole image, stretched to the input. (n, 2) is normal and nsfw; (n, 5) is
  drawings, hentai,
  neutral, porn and sexy, of which the second, fourth and fifth count.
- `age/face`: a square about the box, 1.5 times its longer side, black beyond the image. (n, 3) is
  female, male and
  years / 100; (n, 50 or more) are the ages 0, 1, 2, ..., of which the mean counts.

Classes may be probabilities or logits; which of the two is found out once, from images of noise.
The five are those of GantMan's nsfw_model, the square and the three are insightface's `genderage`,
and the mean over single years is DEX (Rothe et al., "Deep expectation of real and apparent age from
a single image without facial landmarks", 2016).
"""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from stages.onnx_session import WrongModel, only_picture_input, open_session
from stages.stage import Device
from stages.weights import Weights

SIDE = 224
"""Pixels of inputs whose height and width the file leaves open."""

_FACE_SCALE = 1.5
_LEAST_AGES = 50
_PORN_OF_FIVE = [1, 3, 4]


class Classifier:
    """One ONNX file, open. Images go through one by one, so that a result depends on nothing
    beside it.
    """

    def __init__(self, weights: Weights, path: str, threads: int, device: Device) -> None:
        """Open registered weights that lie at `path`. Raises WrongModel for one that does not fit
        the table above.
        """
        self._session = open_session(path, threads, device)
        self._input = only_picture_input(self._session, path)
        self.height, self.width = (
            side if isinstance(side, int) else SIDE for side in self._input.shape[2:]
        )
        fixed = self._input.shape[0]
        self._batch = fixed if isinstance(fixed, int) else 1
        self._mean, self._std = (np.float32(value) for value in weights.normalisation)
        self._read = _reader(weights.subject, self._session.get_outputs()[0].shape, path)
        noise = np.random.default_rng(0).integers(
            0, 256, (3, self.height, self.width, 3), dtype=np.uint8
        )
        self._logits = not all(is_distribution(self._outputs(picture)) for picture in noise)

    def of_picture(self, rgb: np.ndarray) -> float:
        """The value for an image (height, width, 3) uint8."""
        shrinks = rgb.shape[0] * rgb.shape[1] > self.height * self.width
        return self._value(
            cv2.resize(
                rgb,
                (self.width, self.height),
                interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR,
            )
        )

    def of_face(self, rgb: np.ndarray, box: np.ndarray) -> float:
        """The value for the face in the box (4), pixels of `rgb` (height, width, 3) uint8."""
        x1, y1, x2, y2 = (float(value) for value in box)
        scale = self.width / (max(x2 - x1, y2 - y1) * _FACE_SCALE)
        shift = (self.width / 2 - scale * (x1 + x2) / 2, self.height / 2 - scale * (y1 + y2) / 2)
        frame = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
        return self._value(np.asarray(cv2.warpAffine(rgb, frame, (self.width, self.height))))

    def _value(self, rgb: np.ndarray) -> float:
        row = self._outputs(rgb)
        return self._read(softmax(row) if self._logits else row, row)

    def _outputs(self, rgb: np.ndarray) -> np.ndarray:
        blob = np.zeros((self._batch, 3, self.height, self.width), dtype=np.float32)
        blob[0] = (rgb.transpose(2, 0, 1).astype(np.float32) - self._mean) / self._std
        return np.asarray(self._session.run(None, {self._input.name: blob})[0][0], dtype=np.float64)


def _reader(subject: str, shape: list[Any], path: str) -> Callable[[np.ndarray, np.ndarray], float]:
    """What makes the value from the probabilities of the classes, and from the outputs as they
    are.
    """
    width = shape[1] if len(shape) == 2 and isinstance(shape[1], int) else None
    if subject == "nsfw" and width == 2:
        return lambda classes, _: float(classes[1])
    if subject == "nsfw" and width == 5:
        return lambda classes, _: float(classes[_PORN_OF_FIVE].sum())
    if subject == "age" and width == 3:
        return lambda _, outputs: float(outputs[2]) * 100
    if subject == "age" and width is not None and width >= _LEAST_AGES:
        return lambda classes, _: float((classes * np.arange(len(classes))).sum())
    known = {"nsfw": "(n, 2) or (n, 5)", "age": f"(n, 3) or (n, {_LEAST_AGES} or more)"}[subject]
    raise WrongModel(
        f"{path}: its output is {shape}; weights of {subject} have {known}, see "
        "stages/screen/classifiers.py"
    )


def is_distribution(row: np.ndarray) -> bool:
    """Whether the outputs (c) can be probabilities."""
    return bool((row >= 0).all()) and abs(float(row.sum()) - 1) < 1e-3


def softmax(row: np.ndarray) -> np.ndarray:
    """Probabilities (c) of logits (c) float64."""
    powers = np.exp(row - row.max())
    return np.asarray(powers / powers.sum())
