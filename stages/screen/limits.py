"""Screening by limits on measured values.

The limits that are set by default leave out what no face model can use, and collages. Of the
largest faces of 868 photographs whose people were checked they filter none with SCRFD's boxes, and
5 as blurred with dlib's, which are wider.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, ValidationInfo, model_validator

from stages.detect.face_rows import crop
from stages.screen.classifiers import Classifier
from stages.screen.measures import chroma, light, seam
from stages.stage import Params, Picture, Services, Stage, WeightFiles
from stages.weights import WeightsName, known_to, names

Reason = Literal[
    "nsfw",
    "minor",
    "small_picture",
    "extreme_aspect",
    "collage",
    "greyscale",
    "small_face",
    "blurred",
    "dark",
    "overexposed",
    "flat",
]


class LimitsParams(Params):
    """Limits; null switches one off."""

    min_picture_side: int | None = Field(
        100, ge=1, description="least shorter side of an image, pixels (small_picture)"
    )
    max_aspect: float | None = Field(
        3.0, ge=1, description="most of the longer side over the shorter one (extreme_aspect)"
    )
    min_face_side: float | None = Field(
        40.0, gt=0, description="least side of a face, pixels (small_face)"
    )
    min_sharpness: float | None = Field(
        20.0, gt=0, description="least sharpness of a face, grey levels squared (blurred)"
    )
    max_seam: float | None = Field(
        0.65,
        gt=0,
        le=1,
        description="most clear edge across an image with two faces or more (collage)",
    )
    min_chroma: float | None = Field(
        None, gt=0, description="least spread of an image's colours; 3 finds grey ones (greyscale)"
    )
    min_brightness: float | None = Field(
        None, ge=0, le=255, description="least mean grey level of a face (dark)"
    )
    max_brightness: float | None = Field(
        None, ge=0, le=255, description="most mean grey level of a face (overexposed)"
    )
    min_contrast: float | None = Field(
        None, ge=0, description="least standard deviation of the grey levels of a face (flat)"
    )
    nsfw_model: Annotated[str, WeightsName("nsfw")] | None = None
    """Weights of kind nsfw/picture."""
    max_nsfw: float | None = Field(
        None, ge=0, le=1, description="most probability by nsfw_model (nsfw)"
    )
    age_model: Annotated[str, WeightsName("age")] | None = None
    """Weights of kind age/face. Apparent ages are several years off: a limit well above the age
    that is meant.
    """
    min_age: float | None = Field(
        None, ge=0, description="least apparent age by age_model, years (minor)"
    )
    compared: tuple[Reason, ...] = Field(
        (), description="reasons for which a filtered face still helps `clean` to find the person"
    )
    threads: int = Field(1, ge=1)
    """Of the network, in each worker. More than one may change the last bits of its numbers."""

    @model_validator(mode="after")
    def _models(self, info: ValidationInfo) -> "LimitsParams":
        for limit, model, subject in (
            ("max_nsfw", "nsfw_model", "nsfw"),
            ("min_age", "age_model", "age"),
        ):
            if getattr(self, limit) is not None and getattr(self, model) is None:
                there = names(subject, local=known_to(info))
                known = ", ".join(there) or "none is registered"
                raise ValueError(
                    f"{limit} is set but no model measures it; name one by {model} (registered: "
                    f"{known})"
                )
        return self


_LIMITS: tuple[tuple[Reason, str, str, bool, str], ...] = (
    (
        "nsfw",
        "nsfw",
        "max_nsfw",
        False,
        "is not safe for work with probability {value:.2f}, the most is {limit:g}",
    ),
    ("minor", "age", "min_age", True, "looks {value:.0f} years old, the least is {limit:g}"),
    (
        "small_picture",
        "picture_side",
        "min_picture_side",
        True,
        "the image's shorter side is {value:.0f} pixels, the least is {limit:g}",
    ),
    (
        "extreme_aspect",
        "aspect",
        "max_aspect",
        False,
        "the image's sides are as {value:.1f} to 1, the most is {limit:g} to 1",
    ),
    (
        "collage",
        "seam",
        "max_seam",
        False,
        "an edge runs across the image, clear by {value:.2f}; the most is {limit:g}",
    ),
    (
        "greyscale",
        "chroma",
        "min_chroma",
        True,
        "the image's colours spread by {value:.1f}, the least is {limit:g}",
    ),
    (
        "small_face",
        "face_side",
        "min_face_side",
        True,
        "the face has a side of {value:.0f} pixels, the least is {limit:g}",
    ),
    (
        "blurred",
        "sharpness",
        "min_sharpness",
        True,
        "the face's sharpness is {value:.1f}, the least is {limit:g}",
    ),
    (
        "dark",
        "brightness",
        "min_brightness",
        True,
        "the face's mean grey level is {value:.0f}, the least is {limit:g}",
    ),
    (
        "overexposed",
        "brightness",
        "max_brightness",
        False,
        "the face's mean grey level is {value:.0f}, the most is {limit:g}",
    ),
    (
        "flat",
        "contrast",
        "min_contrast",
        True,
        "the face's grey levels spread by {value:.1f}, the least is {limit:g}",
    ),
)
"""Reason, column, limit, whether it is a lower one, and the detail. The first that is missed is the
reason.
"""


class LimitsScreen(Stage):
    """One row of `screenings` a face: ok, or filtered by the first limit that it misses; `detail`
    names all of them.
    """

    name: ClassVar[str] = "screen"
    backend: ClassVar[str] = "limits"
    needs_pixels: ClassVar[bool] = True
    parent: ClassVar[str] = "faces"
    Parameters: ClassVar[type[Params]] = LimitsParams
    reads: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "faces": ("box", "side", "sharpness", "faces_in_image"),
        "images": ("sha256",),
    }

    @property
    def weights(self) -> tuple[str, ...]:
        return tuple(
            name for name in (self.params.nsfw_model, self.params.age_model) if name is not None
        )

    def setup(self, files: WeightFiles) -> None:
        """Open the classifiers. Raises MissingWeights, WrongModel, NoDevice."""
        self._nsfw, self._age = (
            None
            if name is None
            else Classifier(files.entry(name), files.path(name), self.params.threads, self.device)
            for name in (self.params.nsfw_model, self.params.age_model)
        )

    def run(self, rows: pa.Table, pictures: Mapping[str, Picture], services: Services) -> pa.Table:
        """Rows of `screenings` in the order of `rows`."""
        of_pictures: dict[str, dict[str, Any]] = {}
        found = []
        for face in rows.to_pylist():
            image = face["image_id"]
            rgb = pictures[image].rgb
            if image not in of_pictures:
                of_pictures[image] = self._of_picture(rgb)
            values = {**of_pictures[image], **self._of_face(face, rgb)}
            ids = {name: face[name] for name in ("identity_id", "image_id", "face_id")}
            found.append({**ids, **values, **self._verdict(values, face["faces.faces_in_image"])})
        return self.build(found)

    def _of_picture(self, rgb: np.ndarray) -> dict[str, Any]:
        short, long = sorted(rgb.shape[:2])
        nsfw = None if self._nsfw is None else self._nsfw.of_picture(rgb)
        return {
            "picture_side": short,
            "aspect": long / short,
            "chroma": chroma(rgb),
            "seam": seam(rgb),
            "nsfw": nsfw,
        }

    def _of_face(self, face: Mapping[str, Any], rgb: np.ndarray) -> dict[str, Any]:
        box = np.array(face["faces.box"], dtype=np.float64)
        brightness, contrast = light(crop(rgb, box))
        age = None if self._age is None else self._age.of_face(rgb, box)
        sizes = {"face_side": face["faces.side"], "sharpness": face["faces.sharpness"]}
        return {**sizes, "brightness": brightness, "contrast": contrast, "age": age}

    def _verdict(self, values: Mapping[str, Any], faces: int | None) -> dict[str, Any]:
        missed: list[Reason] = []
        details = []
        for reason, column, name, lower, text in _LIMITS:
            value, limit = values[column], getattr(self.params, name)
            if value is None or limit is None or (reason == "collage" and (faces or 0) < 2):
                continue
            # Rounded as it is stored, so that a query for the limit finds the very faces that were
            # filtered.
            value = float(np.float32(value))
            if value < limit if lower else value > limit:
                missed.append(reason)
                details.append(text.format(value=value, limit=limit))
        if not missed:
            return {"status": "ok"}
        compared = all(reason in self.params.compared for reason in missed)
        return {
            "status": "filtered",
            "reason": missed[0],
            "detail": "; ".join(details),
            "compared": compared,
        }
