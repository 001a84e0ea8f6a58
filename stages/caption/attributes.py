"""Caption without a model: one line of facts that are measured in the image."""

import hashlib
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field, field_validator

from schemas.wording import near
from stages.caption.measures import FIELDS, Face, describe
from stages.selection import KEPT, kept
from stages.stage import Params, Picture, Services, Stage

TEMPLATE = (
    "{framing} {colour} of {people}, {facing}, {tilt}; {light} light, {contrast} contrast, "
    "{focus} face, "
    "{background} background, {orientation} format"
)
_FIELD = re.compile(r"\{([^{}]*)\}")
_COLUMNS = ("box", "landmarks", "landmark_scheme", "sharpness", "yaw", "side", "faces_in_image")


class AttributesParams(Params):
    """Parameters of `AttributesCaption`."""

    template: str = TEMPLATE
    """One line with fields in braces; stages/caption/measures.py lists them and what they say."""
    prompt_id: str | None = Field(None, min_length=1)
    """Name of the template in the table. None: attributes- and a hash of the template, so that a
    new one has a new name.
    """

    @field_validator("template")
    @classmethod
    def _known_fields(cls, template: str) -> str:
        """Fields are plain names: no str.format, whose attributes and indexes reach into the
        program.
        """
        if not template.strip() or len(template.splitlines()) > 1:
            raise ValueError("a caption template is one line with text in it")
        for name in _FIELD.findall(template):
            if name not in FIELDS:
                close = near(name, FIELDS)
                hint = (
                    f"did you mean {{{close[0]}}}?" if close else f"there are: {', '.join(FIELDS)}"
                )
                raise ValueError(f"no field {{{name}}}; {hint}")
        if set("{}") & set(_FIELD.sub("", template)):
            raise ValueError(
                "a brace without its other half; fields look like {framing}, braces have no "
                "other use"
            )
        return template

    @property
    def prompt(self) -> str:
        """What the table calls the template."""
        return (
            self.prompt_id
            or "attributes-" + hashlib.blake2b(self.template.encode(), digest_size=4).hexdigest()
        )


class AttributesCaption(Stage):
    """One row of `captions` a kept face. Says nothing of gender, age, origin or names: those cannot
    be measured here.
    """

    name: ClassVar[str] = "caption"
    backend: ClassVar[str] = "attributes"
    needs_pixels: ClassVar[bool] = True
    parent: ClassVar[str] = "faces"
    Parameters: ClassVar[type[Params]] = AttributesParams
    reads: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "faces": _COLUMNS,
        "images": ("sha256", "width", "height"),
    }
    selects: ClassVar[Mapping[str, tuple[str, ...]]] = KEPT

    def wants(self, rows: pa.Table) -> pa.ChunkedArray | pa.Array:
        """Kept faces."""
        return kept(self, rows)

    def run(self, rows: pa.Table, pictures: Mapping[str, Picture], services: Services) -> pa.Table:
        """Rows of `captions` in the order of `rows`."""
        params: AttributesParams = self.params
        prompt = params.prompt
        names = ("identity_id", "image_id", "face_id", *(f"faces.{name}" for name in _COLUMNS))
        found: list[dict[str, Any]] = []
        for identity, image, face, *values in zip(
            *(rows[name].to_pylist() for name in names), strict=True
        ):
            words = describe(Face(**dict(zip(_COLUMNS, values, strict=True))), pictures[image].rgb)
            text = fill(params.template, words)
            found.append(
                {
                    "identity_id": identity,
                    "image_id": image,
                    "face_id": face,
                    "caption": text,
                    "prompt_id": prompt,
                    "model": "attributes-v1",
                    "tokens": len(text.split()),
                    "status": "ok",
                }
            )
        return self.build(found)


def fill(template: str, words: Mapping[str, str]) -> str:
    """The template with its fields replaced, beginning with a capital."""
    text = _FIELD.sub(lambda match: words[match[1]], template)
    return text[:1].upper() + text[1:]
