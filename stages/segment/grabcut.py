"""Segment without a model: the person around a face, by GrabCut."""

from collections.abc import Mapping
from typing import Any, ClassVar

import cv2
import numpy as np
import pyarrow as pa
from pydantic import Field

from stages.selection import KEPT, kept
from stages.stage import Params, Picture, Services, Stage

CLASSES = ["background", "person"]
_SEED = 0
_FILLED = 0.3  # share of the window that the middle of a face has in a crop of little else


class GrabCutParams(Params):
    """Parameters of `GrabCutSegment`; margins in widths and heights of the face box."""

    margin_x: float = Field(1.4, ge=0.2, le=5)
    """How far the window reaches to each side of the box."""
    margin_top: float = Field(0.9, ge=0.2, le=5)
    """How far it reaches above the box, in heights of the box."""
    margin_bottom: float = Field(2.2, ge=0.2, le=10)
    """How far it reaches below the box, in heights of the box."""
    work_side: int = Field(256, ge=32, le=256)
    """Longer side, in pixels, of the scaled window that is cut: bounds the time."""
    iterations: int = Field(3, ge=1, le=20)
    """Rounds of the cut."""


class GrabCutSegment(Stage):
    """One row of `masks` with the classes background and person a kept face.

    GrabCut (Rother, Kolmogorov and Blake 2004) needs a first guess: the middle of the face is the
    person for certain, a head and shoulders around it probably, what is beside the head and above
    the shoulders at the window's rim is not.
    """

    name: ClassVar[str] = "segment"
    backend: ClassVar[str] = "grabcut"
    needs_pixels: ClassVar[bool] = True
    parent: ClassVar[str] = "faces"
    Parameters: ClassVar[type[Params]] = GrabCutParams
    reads: ClassVar[Mapping[str, tuple[str, ...]]] = {"faces": ("box",), "images": ("sha256",)}
    selects: ClassVar[Mapping[str, tuple[str, ...]]] = KEPT

    def wants(self, rows: pa.Table) -> pa.ChunkedArray | pa.Array:
        """Kept faces."""
        return kept(self, rows)

    def run(self, rows: pa.Table, pictures: Mapping[str, Picture], services: Services) -> pa.Table:
        """Rows of `masks` in the order of `rows`; `no_foreground` where the cut leaves no person or
        no face in it.
        """
        names = ("identity_id", "image_id", "face_id", "faces.box")
        found: list[dict[str, Any]] = []
        for identity, image, face, box in zip(
            *(rows[name].to_pylist() for name in names), strict=True
        ):
            row = {"identity_id": identity, "image_id": image, "face_id": face}
            found.append({**row, **self._mask(pictures[image].rgb, box)})
        return self.build(found)

    def _mask(self, rgb: np.ndarray, box: list[float]) -> dict[str, Any]:
        params: GrabCutParams = self.params
        window = window_around(box, (rgb.shape[1], rgb.shape[0]), params)
        x1, y1, x2, y2 = window
        if x2 - x1 < 2 or y2 - y1 < 2:
            return _failed("the face box lies outside the image")
        mask = person_mask(
            rgb[y1:y2, x1:x2],
            np.asarray(box) - (x1, y1, x1, y1),
            params.work_side,
            params.iterations,
        )
        if mask is None:
            return _failed("nothing around the face stands out from the background")
        png = cv2.imencode(".png", mask, [cv2.IMWRITE_PNG_COMPRESSION, 6])[1].tobytes()
        return {
            "mask": png,
            "window": window,
            "classes": CLASSES,
            "coverage": float(mask.mean()),
            "status": "ok",
        }


def _failed(detail: str) -> dict[str, Any]:
    return {"status": "failed", "reason": "no_foreground", "detail": detail}


def window_around(box: list[float], size: tuple[int, int], params: GrabCutParams) -> list[int]:
    """x1 y1 x2 y2 in whole pixels of the part of an image of (width, height) `size` that is looked
    at.
    """
    x1, y1, x2, y2 = box
    wide, tall = x2 - x1, y2 - y1
    aside, above, below = (
        params.margin_x * wide,
        params.margin_top * tall,
        params.margin_bottom * tall,
    )
    edges = (x1 - aside, y1 - above, x2 + aside, y2 + below)
    return [
        int(np.clip(round(edge), 0, limit))
        for edge, limit in zip(edges, (*size, *size), strict=True)
    ]


def person_mask(
    rgb: np.ndarray, box: np.ndarray, work_side: int, iterations: int
) -> np.ndarray | None:
    """Where the person with the face `box` (x1 y1 x2 y2 in pixels of `rgb`) is: (height, width)
    uint8 of 0 and 1.

    None where GrabCut finds no person: less than half of the middle of the face, hardly more than
    that middle, which was given as certain, or nearly everything: then nothing told the head from
    what is around it. Only a crop that its face fills may be all person.
    """
    height, width = rgb.shape[:2]
    scale = min(1.0, work_side / max(height, width))
    size = max(2, round(width * scale)), max(2, round(height * scale))
    small = np.ascontiguousarray(
        cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), dtype=np.uint8
    )
    guess, face = first_guess(size, box * np.tile((size[0] / width, size[1] / height), 2))
    if np.isin(guess, (cv2.GC_FGD, cv2.GC_PR_FGD)).all():
        return np.ones(
            (height, width), dtype=np.uint8
        )  # GrabCut needs some background to learn from
    # GrabCut starts its colour models with random centres; the seed makes a mask the same in any
    # order of faces.
    cv2.setRNGSeed(_SEED)
    try:
        cv2.grabCut(
            small,
            guess,
            (0, 0, 0, 0),
            np.zeros((1, 65)),
            np.zeros((1, 65)),
            iterations,
            cv2.GC_INIT_WITH_MASK,
        )
    except cv2.error:
        return None
    person = _with_face(np.isin(guess, (cv2.GC_FGD, cv2.GC_PR_FGD)), face)
    if not face.any() or person[face].mean() < 0.5 or person.sum() < 1.5 * face.sum():
        return None
    if person.mean() > 0.98 and face.mean() < _FILLED:
        return None
    # Scaled as shades and cut at one half, the outline comes out smooth instead of in steps.
    shades = cv2.resize(person.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return (shades >= 0.5).astype(np.uint8)


def first_guess(size: tuple[int, int], box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """GrabCut's labels to start from, (height, width) uint8, and the part that is the face for
    certain, bool.
    """
    width, height = size
    x1, y1, x2, y2 = box
    middle, wide, tall = (x1 + x2) / 2, x2 - x1, y2 - y1
    y, x = np.mgrid[0:height, 0:width] + 0.5

    def ellipse(centre: float, half_wide: float, half_tall: float) -> np.ndarray:
        inside: np.ndarray = ((x - middle) / (half_wide * wide)) ** 2 + (
            (y - centre) / (half_tall * tall)
        ) ** 2 < 1
        return inside

    face = ellipse((y1 + y2) / 2, 0.36, 0.42)
    head = ellipse(y1 + 0.35 * tall, 0.72, 0.95)
    # Neck, then shoulders that slope from the chin to about three face widths.
    below = (y - y2) / tall
    torso = (below > -0.1) & (
        abs(x - middle) < wide * np.clip(0.45 + 2.2 * (below - 0.15), 0.45, 1.6)
    )
    guess = np.full((height, width), cv2.GC_PR_BGD, dtype=np.uint8)
    guess[(below < 0) & (abs(x - middle) > 1.25 * wide)] = cv2.GC_BGD
    guess[y < y1 - 0.75 * tall] = cv2.GC_BGD
    guess[head | torso] = cv2.GC_PR_FGD
    guess[face] = cv2.GC_FGD
    return guess, face


def _with_face(person: np.ndarray, face: np.ndarray) -> np.ndarray:
    """Only the pieces that touch the face, without holes: what else has the colours of the person
    is something else.
    """
    labels = cv2.connectedComponents(person.astype(np.uint8), connectivity=4)[1]
    touching = np.unique(labels[face & person])
    whole = np.isin(labels, touching[touching > 0])
    gaps = cv2.connectedComponents((~whole).astype(np.uint8), connectivity=4)[1]
    # The background may reach the window's rim on any side; a gap that does not is a hole.
    rim = np.unique(np.concatenate([gaps[0], gaps[-1], gaps[:, 0], gaps[:, -1]]))
    filled: np.ndarray = whole | ~np.isin(gaps, rim[rim > 0])
    return filled
