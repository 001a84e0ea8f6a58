"""Detections of one image as rows of `faces`: what is the same for every detector."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from schemas import face_id, no_face_id
from stages.detect.subject import subject
from stages.pictures import sharpness

SCHEMES = ("arcface5", "dlib5")


def face_rows(
    ids: Mapping[str, str],
    rgb: np.ndarray,
    boxes: np.ndarray,
    points: np.ndarray,
    scores: np.ndarray,
    scheme: str,
    min_side: float,
) -> list[dict[str, Any]]:
    """Rows of `faces` for one image, by falling score; one row that says `no_face` if there is
    none.

    `ids` has identity_id and image_id. `rgb`: (height, width, 3) uint8. `boxes`: (n, 4), `points`:
    (n, 5, 2), both in pixels of `rgb`; `scores`: (n). Faces whose side is below `min_side` pixels
    are left out.
    """
    boxes = np.asarray(boxes, dtype=np.float32).reshape(-1, 4)
    points = np.asarray(points, dtype=np.float32).reshape(-1, 5, 2)
    scores = np.asarray(scores, dtype=np.float32).reshape(-1)
    extent = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    sides = np.sqrt(extent[:, 0] * extent[:, 1])
    large = (sides >= min_side) & (sides > 0)
    # Ties in score are broken by the box, so that the order is a function of the image and not of
    # the detector's.
    order = [i for i in np.lexsort((*boxes.T[::-1], -scores)) if large[i]]
    base = {"identity_id": ids["identity_id"], "image_id": ids["image_id"]}
    rows: list[dict[str, Any]] = []
    seen: set[str] = set()
    for i in order:
        # The id is made from the stored float32 values, so that whoever reads the row can make it
        # again.
        key = face_id(ids["image_id"], boxes[i].tolist())
        if key in seen:
            continue
        seen.add(key)
        rows.append(
            {
                **base,
                "face_id": key,
                "face": len(rows),
                "box": boxes[i].tolist(),
                "landmarks": points[i].reshape(-1).tolist(),
                "landmark_scheme": scheme,
                "score": float(scores[i]),
                "side": float(sides[i]),
                "sharpness": sharpness(crop(rgb, boxes[i])),
                "yaw": yaw(points[i], scheme),
                "status": "ok",
            }
        )
    if not rows:
        detail = f"{len(boxes)} found, all smaller than {min_side:g} pixels" if len(boxes) else None
        tombstone = {
            "face_id": no_face_id(ids["image_id"]),
            "status": "filtered",
            "reason": "no_face",
            "detail": detail,
        }
        return [{**base, **tombstone, "faces_in_image": 0}]
    shown = subject(
        np.array([row["box"] for row in rows]),
        np.array([row["score"] for row in rows]),
        rgb.shape[1],
        rgb.shape[0],
    )
    return [
        {**row, "faces_in_image": len(rows), "subject": i == shown} for i, row in enumerate(rows)
    ]


def crop(rgb: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The part of an image within a box (4, pixels), cut at the image's edge; may be empty."""
    height, width = rgb.shape[:2]
    x1, y1 = np.clip(np.floor(box[:2]), 0, (width, height)).astype(int)
    x2, y2 = np.clip(np.ceil(box[2:]), 0, (width, height)).astype(int)
    return rgb[y1:y2, x1:x2]


def yaw(points: np.ndarray, scheme: str) -> float | None:
    """Rough turn of the head from five points (5, 2): -1 is the nose below the image-left eye, 1
    below the image-right.

    Measured along the line through the eyes, so that a tilted head does not count as a turned one.
    None if the eyes coincide.
    """
    if scheme == "arcface5":
        left, right, nose = points[0], points[1], points[2]
    elif scheme == "dlib5":
        left, right, nose = (points[2] + points[3]) / 2, (points[0] + points[1]) / 2, points[4]
    else:
        raise ValueError(f"unknown landmark scheme {scheme!r}; there are: {', '.join(SCHEMES)}")
    axis = right - left
    length = float(axis @ axis)
    if not length > 0:
        return None
    return float(np.clip(2 * float((nose - (left + right) / 2) @ axis) / length, -1, 1))
