"""A picture of any size on a canvas of a size that a network takes."""

import cv2
import numpy as np


def letterbox(
    rgb: np.ndarray, side: int, canvas_side: int | None, grain: int = 32, fill: tuple[int, int, int] = (0, 0, 0)
) -> tuple[np.ndarray, float]:
    """The picture (height, width, 3) uint8 with its longer side at `side` pixels, top left on `fill`; the factor from picture to canvas.

    The canvas is `canvas_side` square, or without it as large as the picture needs in multiples of `grain`, the largest
    stride of the network: a third less work for a usual photograph than a square.
    """
    height, width = rgb.shape[:2]
    ratio = side / max(height, width)
    new_height, new_width = max(1, round(height * ratio)), max(1, round(width * ratio))
    padded = (-(-new_height // grain) * grain, -(-new_width // grain) * grain)
    shape = padded if canvas_side is None else (canvas_side, canvas_side)
    # Only what the picture leaves is filled, and the picture is scaled in its place: no pixel is written twice.
    canvas = np.empty((*shape, 3), dtype=np.uint8)
    canvas[new_height:] = fill
    canvas[:new_height, new_width:] = fill
    way = cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR
    cv2.resize(rgb, (new_width, new_height), dst=canvas[:new_height, :new_width], interpolation=way)
    return canvas, ratio
