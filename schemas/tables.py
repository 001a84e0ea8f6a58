"""Every table of a dataset: who writes it, what a row is, what each column means.

Boxes are x1, y1, x2, y2 and points x, y, both in pixels of the upright image (EXIF orientation
applied), with the origin at the outer corner of the top left pixel.
"""

from dataclasses import replace

import pyarrow as pa

from schemas.schema import Column, Member, Step, TableSchema

_TEXT, _F32, _I32, _I64 = pa.string(), pa.float32(), pa.int32(), pa.int64()
_FLOATS, _BYTES, _DIGEST = pa.list_(_F32), pa.large_binary(), pa.binary(8)

_IDENTITY = Column("identity_id", _TEXT, "the person: 16 hex digits", nullable=False, text=False)
_IMAGE = Column("image_id", _TEXT, "the image: 24 hex digits", nullable=False, text=False)
_FACE = Column(
    "face_id",
    _TEXT,
    "the face: 24 hex digits; where an image has none, the id of the row that says so",
    nullable=False,
    text=False,
)
_STATUS = (
    Column(
        "status",
        _TEXT,
        "ok, filtered (looked at and left out), failed or poisoned (killed its worker twice)",
        nullable=False,
        text=False,
    ),
    Column(
        "reason",
        _TEXT,
        "short code for anything but ok: no_face, decode_error, below_threshold, ...",
        text=False,
    ),
    Column("detail", _TEXT, "the same in words, where there is more to say", text=True),
    Column(
        "inputs",
        _DIGEST,
        "hash of the upstream values that the row was computed from",
        nullable=False,
    ),
)


def _table(
    name: str,
    by: str,
    description: str,
    key: str,
    parent: str | None,
    parent_key: str | None,
    *columns: Column,
    version: int = 1,
    step: Step | None = None,
) -> TableSchema:
    ids = {
        "identity_id": (_IDENTITY,),
        "image_id": (_IDENTITY, _IMAGE),
        "face_id": (_IDENTITY, _IMAGE, _FACE),
    }[key]
    every = (*ids, *columns, *_STATUS)
    return TableSchema(name, version, by, description, key, parent, parent_key, every, step)


def _faces(
    name: str,
    by: str,
    description: str,
    *columns: Column,
    step: Step | None = None,
    need: str | None = None,
) -> TableSchema:
    made = _table(name, by, description, "face_id", "faces", "face_id", *columns, step=step)
    return replace(made, need=need)


# fmt: off
_ALL = (
    _table(
        "identities", "crawl", "The people.", "identity_id", None, None,
        Column("name", _TEXT, "as first seen", nullable=False, text=True, is_name=True),
        Column("aliases", pa.list_(_TEXT),
            "other spellings that stand for the same person, sorted", text=True, is_name=True),
        Column("external_ids", pa.map_(_TEXT, _TEXT), "scheme to id, for example wikidata: Q42",
            text=True),
        Column("bucket", _I32, "where all rows of the person are", nullable=False),
    ),
    _table(
        "candidates", "crawl", "Images that a source offers.", "image_id", "identities",
        "identity_id",
        Column("address", _TEXT, "canonical address: a URL, or source:relative/path for files",
            nullable=False, text=True),
        Column("page", _TEXT, "the page that shows the image", text=True),
        Column("source", _TEXT, "name of the source in the DAG", nullable=False, text=True),
        Column("licence", _TEXT, "as the source states it; null where it states none", text=True),
        Column("author", _TEXT, "as the source states it", text=True),
        Column("rank", _I32, "0-based place in its chunk; never changes", nullable=False),
        Column("fingerprint", _TEXT,
            "what tells that the content behind the address changed (size and time of a file, "
            "ETag)", text=True),
        Column("split", _TEXT,
            "as the source states it: train, valid, test, ...; null where it states none",
            late=True, text=True),
        Column("attributes", _TEXT,
            "what else the source states, as a JSON object; null where it states nothing",
               late=True, text=True),
        Column("reference", _TEXT,
            "yes: the source says that this image shows the person; no: it says so of another "
            "one of the person; "
               "null: it says nothing", late=True, text=True),
        version=2,
        step=Step("offered", None, "offered", "not offered", "images"),
    ),
    _table(
        "images", "crawl", "What was fetched, byte for byte.", "image_id", "candidates", "image_id",
        Column("bytes", _BYTES, "the original file, never re-encoded", blob=True),
        Column("sha256", _TEXT, "of the bytes, 64 hex digits", text=False),
        Column("phash", pa.uint64(),
            "64-bit perceptual hash (DCT) of the upright image; null if it does not decode"),
        Column("format", _TEXT, "jpeg, png, webp, gif, bmp or tiff, by content", text=False),
        Column("width", _I32, "pixels, upright"),
        Column("height", _I32, "pixels, upright"),
        Column("orientation", _I32, "EXIF orientation 1 to 8 that was applied"),
        Column("size", _I64, "bytes"),
        Column("fetched_at", pa.timestamp("us", tz="UTC"),
            "when it was fetched; null for files of a folder"),
        Column("opt_out", _TEXT, "evidence of an opt-out found while fetching", text=True),
        Column("http_status", _I32, "of the last answer of a web server"),
        Column("attempts", _I32, "requests that were made for it"),
        Column("final_address", _TEXT, "where redirects led, if there were any", text=True),
        version=2,
        step=Step("fetched", "offered", "fetched", "not fetched", "images"),
    ),
    _table(
        "faces", "detect",
        "Faces found in the images; an image without a face has one row that says so.",
        "face_id", "images", "image_id",
        Column("face", _I32, "0-based, by falling score"),
        Column("box", _FLOATS, "(4) x1 y1 x2 y2, pixels"),
        Column("landmarks", _FLOATS,
            "(10) five points x y, pixels, in the order of landmark_scheme"),
        Column("landmark_scheme", _TEXT,
            "arcface5: image-left eye, image-right eye, nose, image-left and image-right mouth "
            "corner; "
               "dlib5: image-right eye outer and inner corner, image-left eye outer and inner "
               "corner, nose base", text=False),
        Column("score", _F32, "the detector's own, 0 to 1 or a margin (see the backend)"),
        Column("side", _F32, "geometric mean of the box's sides, pixels"),
        Column("sharpness", _F32,
            "variance of the Laplacian of the face scaled to 112 pixels, grey levels squared"),
        Column("yaw", _F32,
            "rough left-right turn from the five points, -1 (image left) to 1 (image right)"),
        Column("faces_in_image", _I32, "faces found in the image"),
        Column("subject", pa.bool_(),
            "of the image's faces the one that it seems to be of, by size and place alone; "
            "null where unknown"),
        version=2,
        step=Step("with_face", "fetched", "with a face", "no face", "images"),
    ),
    _faces(
        "embeddings", "embed", "Identity vectors.",
        Column("recogniser", _TEXT, "which space the vector lives in", text=True,
            sample="recogniser"),
        Column("vector", _FLOATS,
            "unit length; rounded to half precision where the backend was told to",
            member=Member("arcface.npy", "identity vector, float32: **biometric data**")),
        Column("norm", _F32, "length before normalisation, a quality signal"),
        step=Step("embedded", "with_face", "embedded", "not embedded"),
    ),
    _faces(
        "screenings", "screen",
        "What makes a face unfit for a dataset, whoever it is: measured values, and which limit "
        "they miss.",
        Column("picture_side", _I32, "shorter side of the image, pixels"),
        Column("aspect", _F32, "longer side of the image over the shorter one, 1 or more"),
        Column("face_side", _F32, "as `side` in faces, pixels"),
        Column("sharpness", _F32, "as in faces, grey levels squared"),
        Column("brightness", _F32, "mean grey level inside the box, 0 to 255"),
        Column("contrast", _F32, "standard deviation of the grey levels inside the box"),
        Column("chroma", _F32,
            "spread of the image's colours about the tone of their lightness, CIELAB units; "
            "near 0 for grey images"),
        Column("seam", _F32,
            "the straightest edge across the image: share of its length, 0 to 1; near 1 where "
            "tiles meet"),
        Column("nsfw", _F32, "probability by nsfw_model; null without one"),
        Column("age", _F32, "apparent age by age_model, years; null without one"),
        Column("compared", pa.bool_(),
            "whether a filtered face is looked at by cleaning all the same; null where status is "
            "ok"),
    ),
    _faces(
        "clusters", "clean", "Which faces are the person.",
        Column("cluster", _I32,
            "0 is the person's main one, 1 the second; null for faces that were rejected by hand "
            "or have no usable "
               "vector"),
        Column("similarity", _F32,
            "cosine to the person's indicator; for faces of cluster 0 the face itself is left "
            "out of it"),
        Column("keep", pa.bool_(), "the face is the person and stays", nullable=False,
            default=False),
        Column("duplicate_of", _TEXT, "face_id of the better copy; null for what is nobody's copy",
            text=False),
        Column("margin", _F32,
            "of the person: the votes of the second group over those of the first; null where "
            "nothing was counted",
               late=True),
        step=Step("kept", "embedded", "kept", "not kept"),
    ),
    _table(
        "people", "people", "What cleaning found, by person.", "identity_id", "identities",
        "identity_id",
        Column("indicator", _FLOATS, "unit vector that stands for the person"),
        Column("images", _I32, "images with an embedded face"),
        Column("faces", _I32, "faces embedded"),
        Column("kept", _I32, "faces kept"),
        Column("duplicates", _I32, "faces that are worse copies of others"),
        Column("clusters", _I32, "clusters of faces, copies left out"),
        Column("largest", _I32, "images that show the largest cluster, copies left out"),
        Column("second", _I32,
            "the most images that show one other cluster and not the largest, copies left out"),
        Column("silhouette", _F32,
            "how well the clusters are apart, by cosine, -1 to 1; null with fewer than two"),
        Column("flags", pa.list_(_TEXT),
            "weak_majority, second_cluster, near_tie, few_images, reference_missing, "
            "reference_alone", text=False),
        Column("margin", _F32,
            "the votes of the second group over those of the first; null where nothing was counted",
            late=True),
        Column("second_indicator", _FLOATS,
            "unit vector of the second group where the flag near_tie is raised; else null",
            late=True),
        version=2,
    ),
    _table(
        "matches", "match", "Who is whom across the dataset.", "identity_id", "people",
        "identity_id",
        Column("same_as", _TEXT, "the canonical identity_id: itself unless merged", nullable=False,
            text=False),
        Column("kin", _TEXT,
            "first identity_id of those who stay on one side of a split with this person: itself "
            "if none", nullable=False, text=False),
        Column("nearest", _TEXT, "identity_id of the nearest person above near_cosine", text=False),
        Column("nearest_cosine", _F32, "cosine between the indicators"),
        Column("shared", _I32, "kept faces that are kept under another person's name as well"),
        Column("dropped_faces", pa.list_(_TEXT),
            "face_ids of kept images that are not used: nobody's, or a copy of a merged "
            "person's", text=False),
        Column("flags", pa.list_(_TEXT),
            "merged, same_person, maybe_same, dropped, near_person, shared_pictures", text=False),
    ),
    TableSchema(
        "overrides", 2, "correct",
        "Decisions by hand; they outlive re-runs and win over every rule.", "face_id", None, None,
        (
            _IDENTITY,
            Column("face_id", _TEXT,
                "the face; for a decision about the whole person the identity_id once more",
                nullable=False, text=False),
            Column("action", _TEXT, "keep or reject, of a face; merge, of a person",
                nullable=False, text=False),
            Column("target", _TEXT, "identity_id that a merge leads to", text=False),
            Column("author", _TEXT, "who decided", text=True),
            Column("decided_at", pa.timestamp("us", tz="UTC"), "when", nullable=False),
            *_STATUS,
        ),
    ),
    _faces(
        "captions", "caption", "What the images show, in words.",
        Column("caption", _TEXT, "one line", text=True, sample="caption"),
        Column("prompt_id", _TEXT, "which prompt or template", text=True, sample="prompt_id"),
        Column("model", _TEXT, "who wrote it", text=True, sample="caption_model"),
        Column("tokens", _I32, "generated tokens, or words for templates"),
        step=Step("captioned", "kept", "captioned", "no caption"), need="caption",
    ),
    _faces(
        "landmarks", "landmark", "Dense facial points.",
        Column("scheme", _TEXT, "dlib68, mediapipe478 or fan68", text=False,
            sample="points_scheme"),
        Column("points", _FLOATS, "x y (and z for mediapipe478) of each point, pixels",
            sample="points"),
        Column("blendshapes", _FLOATS, "(52) ARKit coefficients 0 to 1, mediapipe478 only"),
        Column("rotation", _FLOATS,
            "(9) head rotation matrix, row-major, where the scheme gives one"),
        step=Step("landmarked", "kept", "with dense points", "no dense points", usual=False),
        need="points",
    ),
    _faces(
        "heads", "fit", "The head in three dimensions.",
        Column("scheme", _TEXT, "flame, ict or pose", text=False, sample="head_scheme"),
        Column("shape", _FLOATS, "identity coefficients of the scheme", sample="head_shape"),
        Column("expression", _FLOATS, "expression coefficients of the scheme",
            sample="head_expression"),
        Column("pose", _FLOATS,
            "pose: (3) yaw, pitch, roll in degrees; yaw > 0 turns to image right, pitch > 0 "
            "looks up, "
               "roll > 0 tilts clockwise. flame: (6) axis-angle of head and jaw, radians",
               sample="head_pose"),
        Column("camera", _FLOATS,
            "pose: (3) x y z of the head in front of the camera, in head widths; flame: (3) "
            "scale tx ty", sample="head_camera"),
        Column("light", _FLOATS, "(27) spherical harmonics, flame only", sample="head_light"),
        Column("texture", _FLOATS, "albedo coefficients, flame only", sample="head_texture"),
        Column("error", _F32,
            "root mean square re-projection error over the points used, as a share of the face "
            "side"),
        step=Step("fitted", "kept", "with a head pose", "no head pose"), need="head",
    ),
    _faces(
        "affect", "affect", "Expression.",
        Column("valence", _F32, "-1 to 1", sample="valence"),
        Column("arousal", _F32, "-1 to 1", sample="arousal"),
        Column("emotions", _FLOATS, "class probabilities in the backend's order",
            sample="emotions"),
        step=Step("with_affect", "kept", "with affect", "no affect", usual=False), need="affect",
    ),
    _faces(
        "masks", "segment", "Who is where in the image.",
        Column("mask", _BYTES, "PNG, one byte a pixel, the class index", blob=True,
            member=Member("mask.png", "who is where, one byte a pixel")),
        Column("window", _FLOATS, "(4) x1 y1 x2 y2 of the mask in the image, pixels",
            sample="mask_window"),
        Column("classes", pa.list_(_TEXT), "names of the class indices", text=False,
            sample="mask_classes"),
        Column("coverage", _F32, "share of the window that is not background",
            sample="mask_coverage"),
        step=Step("segmented", "kept", "with a mask", "no mask", usual=False),
    ),
    _faces(
        "renders", "render", "Images rendered from the head.",
        Column("normal", _BYTES, "PNG", blob=True, member=Member("normal.png",
            "rendered surface normals")),
        Column("albedo", _BYTES, "PNG", blob=True, member=Member("albedo.png", "rendered albedo")),
        Column("lambertian", _BYTES, "PNG", blob=True, member=Member("lambertian.png",
            "rendered shading")),
        Column("landmark_picture", _BYTES, "PNG", blob=True, member=Member("landmarks.png",
            "drawn facial points")),
        Column("frame", _FLOATS,
            "(4) a b tx ty: similarity from image to frame, x' = a x - b y + tx, y' = b x + a "
            "y + ty", sample="frame"),
        step=Step("rendered", "kept", "rendered", "not rendered", usual=False),
    ),
    _faces(
        "latents", "latents", "VAE moments of the frame.",
        Column("moments", _BYTES, "float16, mean then log variance, C x H x W", blob=True),
        Column("dims", pa.list_(_I32), "(3) channels, height, width of the mean"),
        Column("frame", _FLOATS, "as in renders"),
        step=Step("with_latents", "kept", "with latents", "no latents", usual=False),
    ),
    TableSchema(
        "removals", 2, "forget",
        "Hashes, under a key of the root, of what must not come back; no personal data.", "hash",
        None, None,
        (
            Column("hash", _TEXT, "keyed hash, hexadecimal", nullable=False, text=False),
            Column("kind", _TEXT,
                "what is hashed: identity, name, spelling, external_id, address, image, sha256, "
                "phash or vector",
                   nullable=False, text=False),
            Column("removed_at", pa.timestamp("us", tz="UTC"), "when", nullable=False),
            Column("receipt", _TEXT, "the removal: receipts/<receipt>.json says how much went",
                nullable=False, text=False),
        ),
    ),
)
# fmt: on

TABLES: dict[str, TableSchema] = {schema.name: schema for schema in _ALL}
WRITTEN_BY: dict[str, str] = {schema.written_by: schema.name for schema in _ALL}
"""The table that a stage writes; the list of people and candidates is taken in before crawl fetches
any image.
"""
