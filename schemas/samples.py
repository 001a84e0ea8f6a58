"""What shards hold, and what was withheld from them: the files beside the tars."""

import pyarrow as pa

from schemas.schema import Column, Step, TableSchema
from schemas.tables import TABLES

_TEXT, _F32, _I32, _I64, _FLOATS = (
    pa.string(),
    pa.float32(),
    pa.int32(),
    pa.int64(),
    pa.list_(pa.float32()),
)

_METADATA = (
    Column(
        "key",
        _TEXT,
        "of the sample in the tar: identity_id, underscore, image_id",
        nullable=False,
        text=False,
    ),
    Column(
        "canonical_id",
        _TEXT,
        "the person, after merging; all samples of one are adjacent and in one split",
        nullable=False,
        text=False,
    ),
    Column("identity_id", _TEXT, "the person as listed", nullable=False, text=False),
    Column("image_id", _TEXT, "the image", nullable=False, text=False),
    Column("face_id", _TEXT, "the kept face in it", nullable=False, text=False),
    Column("split", _TEXT, "train, validation or benchmark", nullable=False, text=False),
    Column(
        "role",
        _TEXT,
        "in the benchmark: reference (shown to a method) or target (compared with); else null",
        text=False,
    ),
    Column(
        "role_number",
        _I32,
        "of the person's references or targets, from 1; null outside the benchmark",
    ),
    Column("name", _TEXT, "of the person, as first seen", text=True, is_name=True),
    Column("address", _TEXT, "where the image came from", text=True),
    Column("page", _TEXT, "the page that showed it", text=True),
    Column("source", _TEXT, "name of the source in the DAG", text=True),
    Column("licence", _TEXT, "as the source states it; null where it states none", text=True),
    Column("author", _TEXT, "as the source states it", text=True),
    Column("attributes", _TEXT, "what else the source states, as a JSON object", text=True),
    Column(
        "sha256", _TEXT, "of the original image's bytes, 64 hex digits", nullable=False, text=False
    ),
    Column(
        "format",
        _TEXT,
        "of the image, by content: jpeg, png, webp, ...",
        nullable=False,
        text=False,
    ),
    Column("width", _I32, "pixels, upright"),
    Column("height", _I32, "pixels, upright"),
    Column("orientation", _I32, "EXIF orientation: apply it before using boxes and points"),
    Column("box", _FLOATS, "(4) x1 y1 x2 y2 of the face, pixels of the upright image"),
    Column("landmarks", _FLOATS, "(10) five points x y, pixels"),
    Column("landmark_scheme", _TEXT, "arcface5 or dlib5", text=False),
    Column("score", _F32, "of the detector"),
    Column("side", _F32, "geometric mean of the box's sides, pixels"),
    Column("sharpness", _F32, "variance of the Laplacian of the face at 112 pixels"),
    Column("yaw", _F32, "rough turn, -1 (image left) to 1 (image right)"),
    Column("faces_in_image", _I32, "faces found in the image"),
    Column(
        "subject",
        pa.bool_(),
        "of those the one that the image seems to be of, by size and place; null where unknown",
    ),
    Column("similarity", _F32, "cosine to the person's indicator"),
    Column("caption", _TEXT, "one line; null where there is none", text=True),
    Column("prompt_id", _TEXT, "what the caption was made with", text=True),
    Column("caption_model", _TEXT, "who wrote the caption", text=True),
    Column(
        "points_scheme", _TEXT, "of the dense points: dlib68, mediapipe478 or fan68", text=False
    ),
    Column("points", _FLOATS, "dense points, pixels"),
    Column("head_scheme", _TEXT, "flame, ict or pose", text=False),
    Column("head_shape", _FLOATS, "identity coefficients"),
    Column("head_expression", _FLOATS, "expression coefficients"),
    Column("head_pose", _FLOATS, "as in the table heads"),
    Column("head_camera", _FLOATS, "as in the table heads"),
    Column("head_light", _FLOATS, "(27) spherical harmonics, flame only"),
    Column("head_texture", _FLOATS, "albedo coefficients, flame only"),
    Column(
        "mask_window",
        _FLOATS,
        "(4) x1 y1 x2 y2 of the mask in the image, pixels; null without a mask",
    ),
    Column("mask_classes", pa.list_(_TEXT), "names of the class indices", text=False),
    Column("mask_coverage", _F32, "share of the window that is not background"),
    Column(
        "frame",
        _FLOATS,
        "(4) of the rendered conditions: a b tx ty, similarity from the upright image, x' = a "
        "x - b y + tx, "
        "y' = b x + a y + ty; null without them",
    ),
    Column("valence", _F32, "-1 to 1"),
    Column("arousal", _F32, "-1 to 1"),
    Column("emotions", _FLOATS, "class probabilities in the order of the backend of affect"),
    Column(
        "recogniser",
        _TEXT,
        "space of the identity vector that travels along; null where none does",
        text=True,
    ),
)
_MEMBER = pa.struct([("name", _TEXT), ("offset", _I64), ("length", _I64), ("sha256", _TEXT)])
_PLACES = (
    Column("shard", _TEXT, "file name of the tar beside this file", nullable=False, text=False),
    Column("image_offset", _I64, "of the image's bytes in the tar", nullable=False),
    Column("image_length", _I64, "of the image, bytes", nullable=False),
    Column("mask_offset", _I64, "of the mask's bytes in the tar"),
    Column("mask_length", _I64, "of the mask, bytes"),
    Column(
        "members",
        pa.list_(_MEMBER),
        "everything of the sample in the tar: ending, place in bytes, sha256 as shipped",
        nullable=False,
        text=False,
    ),
)

_LATER = tuple(
    Column(
        str(column.sample),
        column.type,
        column.description,
        late=True,
        text=column.text,
        is_name=column.is_name,
    )
    for schema in TABLES.values()
    for column in schema.samples
    if column.sample not in {known.name for known in _METADATA}
)
"""What tables declare that samples carry, and did not from the first: absent where no sample of a
shard has it.
"""

SAMPLES = TableSchema(
    "samples",
    3,
    "shard",
    "What the shards hold: one row a sample, beside each tar.",
    "key",
    None,
    None,
    (*_METADATA, *_LATER, *_PLACES),
    Step("sharded", "kept", "in shards", "not in shards"),
)
SPLITS = ("train", "validation", "benchmark")
"""The splits of a set, in the order of its index."""
METADATA = tuple(column.name for column in (*_METADATA, *_LATER))
LATE = frozenset(column.name for column in _LATER)
"""Of these, those that are absent where there is nothing."""
"""The columns of SAMPLES that are known before the tar is written; they are the sample's .json as
well.
"""


# fmt: off
WITHHELD = TableSchema(
    "withheld", 1, "shard", "Kept faces that are in no shard of a profile, and why.", "face_id",
    None, None,
    (
        Column("profile", _TEXT, "the shard profile", nullable=False, text=False),
        Column("canonical_id", _TEXT, "the person, after merging", nullable=False, text=False),
        Column("identity_id", _TEXT, "the person as listed", nullable=False, text=False),
        Column("image_id", _TEXT, "the image", nullable=False, text=False),
        Column("face_id", _TEXT, "the kept face in it", nullable=False, text=False),
        Column("reason", _TEXT, "short code: licence, small_picture, near_benchmark, ...",
            nullable=False, text=False),
        Column("detail", _TEXT, "the same in words, where there is more to say", text=True),
    ),
)
# fmt: on
