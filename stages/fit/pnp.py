"""Fit the pose of the head: a model of average proportions is turned until its points fall on those
in the image.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
import pyarrow as pa
from pydantic import Field

from schemas.columns import floats
from stages.fit.head_model import image_points, model_points
from stages.selection import KEPT, kept
from stages.stage import Params, Picture, Services, Stage
from stages.weights import NOTHING, LocalRegistry

_IDS = ("identity_id", "image_id", "face_id")
_COMMON = {"images": ("width", "height")}
_READS: dict[str, Mapping[str, tuple[str, ...]]] = {
    "landmarks": {"landmarks": ("scheme", "points"), "faces": ("box",), **_COMMON},
    "five": {"faces": ("box", "landmarks", "landmark_scheme"), **_COMMON},
}


class PnpParams(Params):
    """Parameters of `PnpFit`."""

    points: Literal["landmarks", "five"] = "landmarks"
    """landmarks: the dense points of the landmark stage. five: the detector's own, rougher, above
    all in pitch.
    """
    max_error: float = Field(0.15, gt=0)
    """A fit that misses its points by more than this share of the face side (root mean square) has
    failed. On 124 faces of press and portrait photographs the largest was 0.064, the median 0.02.
    """


@dataclass(frozen=True)
class Pose:
    """A head before the camera. Angles in degrees by the rules of the table `heads`."""

    yaw: float
    pitch: float
    roll: float
    position: tuple[float, float, float]
    """Midway between the outer canthi, in head widths: x to image right, y down, z away from the
    camera.
    """
    error: float
    """Root mean square distance between the points and the projected model, pixels."""


class PnpFit(Stage):
    """One row of `heads` with scheme `pose` a kept face."""

    name: ClassVar[str] = "fit"
    backend: ClassVar[str] = "pnp"
    parent: ClassVar[str] = "faces"
    Parameters: ClassVar[type[Params]] = PnpParams
    reads: ClassVar[Mapping[str, tuple[str, ...]]] = _READS["landmarks"]
    selects: ClassVar[Mapping[str, tuple[str, ...]]] = KEPT

    def __init__(
        self, params: Params | Mapping[str, Any] | None = None, local: LocalRegistry = NOTHING
    ) -> None:
        super().__init__(params, local)
        # What is read depends on a parameter, and a table that is not used must not be asked for.
        self.reads = _READS[self.params.points]  # type: ignore[misc]

    def wants(self, rows: pa.Table) -> pa.ChunkedArray | pa.Array:
        """Kept faces."""
        return kept(self, rows)

    def run(self, rows: pa.Table, pictures: Mapping[str, Picture], services: Services) -> pa.Table:
        """Rows of `heads` in the order of `rows`; `fit_failed` where no pose explains the
        points.
        """
        scheme, points = "landmarks.scheme", "landmarks.points"
        if self.params.points == "five":
            scheme, points = ("faces.landmark_scheme", "faces.landmarks")
        columns = (*_IDS, scheme, points, "faces.box")
        units = zip(*(rows[name].to_pylist() for name in columns), strict=True)
        sizes = zip(floats(rows["images.width"]), floats(rows["images.height"]), strict=True)
        return self.build(
            [
                {
                    **dict(zip(_IDS, ids, strict=True)),
                    "scheme": "pose",
                    **self._fit(scheme, points, box, size),
                }
                for (*ids, scheme, points, box), size in zip(units, sizes, strict=True)
            ]
        )

    def _fit(
        self, scheme: str, points: list[float], box: list[float], size: tuple[float, float]
    ) -> dict[str, Any]:
        x1, y1, x2, y2 = box
        side = float(np.sqrt(max(x2 - x1, 0.0) * max(y2 - y1, 0.0)))
        try:
            pose = head_pose(
                scheme, np.asarray(points, dtype=np.float64), camera_matrix(size, side)
            )
        except (KeyError, ValueError, TypeError, cv2.error) as error:
            text = (
                f"no head model for the scheme {scheme!r}"
                if isinstance(error, KeyError)
                else str(error).strip()
            )
            return {"status": "failed", "reason": "fit_failed", "detail": text}
        share = pose.error / side if side > 0 else np.inf
        if not share <= self.params.max_error:
            detail = (
                f"the points lie {share:.2f} face sides off the model, at most "
                f"{self.params.max_error} is taken"
            )
            return {"status": "failed", "reason": "fit_failed", "detail": detail}
        angles = [pose.yaw, pose.pitch, pose.roll]
        return {"pose": angles, "camera": list(pose.position), "error": share, "status": "ok"}


def camera_matrix(size: tuple[float, float], face_side: float) -> np.ndarray:
    """A pinhole camera for an image of unknown origin: (3, 3), pixels, centre in the middle.

    The focal length is the image's longer side (a normal to wide lens), but at least five face
    sides: an image filled by a face is a crop or a portrait lens, for nobody is photographed from
    less than some 70 cm.
    """
    width, height = size
    focal = max(width, height, 5.0 * face_side)
    return np.array([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])


def head_pose(scheme: str, flat: np.ndarray, camera: np.ndarray) -> Pose:
    """The pose that brings the head model nearest to the points.

    `flat`: the points of `scheme` as a table holds them, pixels. `camera`: (3, 3). The start is
    SQPnP (Terzakis and Lourakis 2020), which needs no guess, refined by Levenberg-Marquardt. Few or
    nearly flat points allow more than one pose; of those with the face towards the camera the one
    with the least error is taken. Raises KeyError for an unknown scheme and ValueError where there
    is no such pose.
    """
    index, model = model_points(scheme)
    points = np.ascontiguousarray(image_points(scheme, flat)[index])
    _, rotations, shifts, _ = cv2.solvePnPGeneric(
        model, points, camera, None, flags=cv2.SOLVEPNP_SQPNP
    )
    poses = []
    for start, shift in zip(rotations, shifts, strict=True):
        turn, place = cv2.solvePnPRefineLM(model, points, camera, None, start.copy(), shift.copy())
        pose = _pose(model, points, camera, turn, place)
        if pose is not None:
            poses.append(pose)
    if not poses:
        raise ValueError("no pose has the face before the camera and towards it")
    return min(poses, key=lambda pose: pose.error)


def _pose(
    model: np.ndarray, points: np.ndarray, camera: np.ndarray, turn: np.ndarray, place: np.ndarray
) -> Pose | None:
    """The pose as angles, or None where it is not finite, behind the camera, or shows the back of
    the head.
    """
    if not (np.isfinite(turn).all() and np.isfinite(place).all() and place[2, 0] > 0):
        return None
    rotation = cv2.Rodrigues(turn)[0]
    if float(rotation[:, 2] @ place[:, 0]) <= 0:
        return None
    projected = cv2.projectPoints(model, turn, place, camera, None)[0].reshape(-1, 2)
    error = float(np.sqrt(((projected - points) ** 2).sum(axis=1).mean()))
    x, y, z = (float(value) for value in place[:, 0])
    return Pose(*angles_of(rotation), (x, y, z), error) if np.isfinite(error) else None


def angles_of(rotation: np.ndarray) -> tuple[float, float, float]:
    """Yaw, pitch and roll in degrees of a head turned by `rotation` (3, 3) from looking straight
    into the camera.

    rotation = Ry(-yaw) Rx(-pitch) Rz(roll) in camera axes (x right, y down, z away): yaw and pitch
    are the direction of the face, roll the turn about it, clockwise as seen in the image. Yaw
    within 180, pitch within 90 degrees.
    """
    x, y, z = -rotation[:, 2]
    yaw, pitch = np.arctan2(x, -z), np.arctan2(-y, np.hypot(x, z))
    untilted = rotation_of(float(np.degrees(yaw)), float(np.degrees(pitch)), 0.0).T @ rotation
    roll = np.arctan2(untilted[1, 0], untilted[0, 0])
    return float(np.degrees(yaw)), float(np.degrees(pitch)), float(np.degrees(roll))


def rotation_of(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """The rotation (3, 3) of a head with these angles in degrees; the inverse of `angles_of`."""
    (sa, ca), (sb, cb), (sc, cc) = (
        (np.sin(np.radians(angle)), np.cos(np.radians(angle))) for angle in (yaw, pitch, roll)
    )
    about_y = np.array([[ca, 0, -sa], [0, 1, 0], [sa, 0, ca]])
    about_x = np.array([[1, 0, 0], [0, cb, sb], [0, -sb, cb]])
    about_z = np.array([[cc, -sc, 0], [sc, cc, 0], [0, 0, 1]])
    rotation: np.ndarray = about_y @ about_x @ about_z
    return rotation
