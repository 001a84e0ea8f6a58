"""Captions of measured facts: a template is text from a DAG file, and what it says must be true of
the image.
"""

import re
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from schemas import TABLES
from stages.caption.attributes import TEMPLATE, AttributesCaption
from stages.caption.measures import FIELDS, Face, describe
from stages.pictures import decode
from stages.stage import Picture

NO_SERVICES: Any = None  # this stage asks nothing of the outside
BOX = [175.0, 76.0, 265.0, 166.0]
EYES = [195.0, 110.0, 240.0, 110.0, 218.0, 130.0, 200.0, 150.0, 236.0, 150.0]


@pytest.fixture(scope="module")
def portrait(astronaut: bytes) -> np.ndarray:
    """(512, 512, 3) uint8."""
    return decode(astronaut)


def a_face(**more: Any) -> Face:
    known: dict[str, Any] = {
        "box": BOX,
        "landmarks": EYES,
        "landmark_scheme": "arcface5",
        "sharpness": 300.0,
        "yaw": 0.0,
        "side": 90.0,
        "faces_in_image": 1,
    }
    return Face(**{**known, **more})


def rows_of(*faces: Face) -> pa.Table:
    names = ("box", "landmarks", "landmark_scheme", "sharpness", "yaw", "side", "faces_in_image")
    kinds = [
        pa.list_(pa.float32()),
        pa.list_(pa.float32()),
        pa.string(),
        *[pa.float32()] * 3,
        pa.int32(),
    ]
    columns = {
        f"faces.{name}": pa.array([getattr(face, name) for face in faces], kind)
        for name, kind in zip(names, kinds, strict=True)
    }
    ids = {
        "identity_id": ["p"] * len(faces),
        "image_id": ["one"] * len(faces),
        "face_id": [f"f{at}" for at in range(len(faces))],
    }
    return pa.table({**ids, **columns})


def caption(picture: np.ndarray, *faces: Face, **params: Any) -> list[dict[str, Any]]:
    found = AttributesCaption(params).run(
        rows_of(*faces), {"one": Picture("one", picture)}, NO_SERVICES
    )
    full = found.append_column("inputs", pa.array([b"12345678"] * len(faces), pa.binary(8)))
    TABLES["captions"].check(full.select(TABLES["captions"].names), "test")
    rows: list[dict[str, Any]] = found.to_pylist()
    return rows


def test_a_real_portrait(portrait: np.ndarray) -> None:
    row = caption(portrait, a_face())[0]
    text = row["caption"]
    assert text.startswith(
        "A half-length shot in colour of one person, facing the camera, head upright; "
    )
    assert text.endswith("square format") and "sharp face" in text
    assert row["tokens"] == len(text.split()) and row["model"] == "attributes-v1"


def test_nothing_is_guessed_about_the_person(portrait: np.ndarray) -> None:
    """Whatever is measured, no caption says gender, age or origin."""
    words = set()
    for scale in (0.2, 1.0, 3.0):
        for yaw in (-0.6, None, 0.6):
            box = [175.0, 76.0, 175 + 90 * scale, 76 + 90 * scale]
            words |= set(
                re.findall(
                    "[a-z]+", caption(portrait, a_face(box=box, yaw=yaw))[0]["caption"].lower()
                )
            )
    assert not words & {
        "man",
        "woman",
        "boy",
        "girl",
        "he",
        "she",
        "his",
        "her",
        "male",
        "female",
        "young",
        "old",
        "asian",
        "european",
    }


@pytest.mark.parametrize(
    ("change", "field", "phrase"),
    [
        ({"box": [100, 20, 400, 470]}, "framing", "an extreme close-up"),
        ({"box": [100, 100, 300, 380]}, "framing", "a close-up"),
        ({"box": [100, 100, 300, 300]}, "framing", "a head-and-shoulders shot"),
        ({"box": [100, 100, 130, 130]}, "framing", "a wide shot"),
        ({"yaw": -0.5}, "facing", "turned to the left"),
        ({"yaw": 0.5}, "facing", "turned to the right"),
        ({"yaw": None}, "facing", "with the face visible"),
        ({"faces_in_image": 3}, "people", "one of three people"),
        ({"faces_in_image": 40}, "people", "one of many people"),
        ({"sharpness": 5.0}, "focus", "blurred"),
        ({"sharpness": 60.0}, "focus", "slightly soft"),
        ({"landmarks": [195, 100, 235, 130, *EYES[4:]]}, "tilt", "head tilted to the right"),
        ({"landmarks": [195, 130, 235, 100, *EYES[4:]]}, "tilt", "head tilted to the left"),
        ({"landmarks": None}, "tilt", "head in view"),
        # dlib's five points begin at image right: read in the wrong order, every head would be
        # upside down.
        (
            {
                "landmarks": [245, 110, 230, 110, 190, 110, 205, 110, 218, 140],
                "landmark_scheme": "dlib5",
            },
            "tilt",
            "head upright",
        ),
        (
            {
                "landmarks": [190, 110, 205, 110, 245, 110, 230, 110, 218, 80],
                "landmark_scheme": "dlib5",
            },
            "tilt",
            "head upside down",
        ),
    ],
)
def test_facts_of_the_face(
    portrait: np.ndarray, change: dict[str, Any], field: str, phrase: str
) -> None:
    assert describe(a_face(**change), portrait)[field] == phrase


@pytest.mark.parametrize(
    ("colour", "tone"),
    [
        ((10, 10, 10), "black"),
        ((128, 128, 128), "grey"),
        ((250, 250, 250), "white"),
        ((200, 30, 30), "red"),
        ((110, 70, 30), "brown"),
        ((230, 140, 30), "orange"),
        ((225, 200, 170), "beige"),
        ((230, 220, 40), "yellow"),
        ((40, 150, 60), "green"),
        ((40, 90, 200), "blue"),
        ((130, 50, 180), "purple"),
        ((240, 100, 180), "pink"),
    ],
)
def test_background(portrait: np.ndarray, colour: tuple[int, int, int], tone: str) -> None:
    """The person in the middle is no background, whatever the person wears."""
    picture = np.full((400, 600, 3), colour, dtype=np.uint8)
    picture[60:, 200:400] = portrait[60:400, 200:400]
    assert describe(a_face(box=[250, 100, 350, 200]), picture)["background"] == tone


def test_facts_of_the_picture(portrait: np.ndarray) -> None:
    face = a_face()
    grey = cv2.cvtColor(cv2.cvtColor(portrait, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    assert (
        describe(face, portrait)["colour"] == "in colour"
        and describe(face, grey)["colour"] == "in black and white"
    )
    assert describe(face, portrait // 4)["light"] == "dim"
    assert describe(face, 255 - (255 - portrait) // 4)["light"] == "bright"
    assert describe(face, 100 + portrait // 10)["contrast"] == "low"
    assert describe(face, portrait[:, :300])["orientation"] == "portrait"
    assert describe(face, portrait[:300])["orientation"] == "landscape"
    assert describe(a_face(box=[20, 20, 490, 490]), portrait)["background"] == "no visible"
    assert describe(a_face(box=[0, 0, 1, 1]), portrait[:1, :1])["orientation"] == "square"


def test_every_field_is_described_and_used(portrait: np.ndarray) -> None:
    assert set(describe(a_face(), portrait)) == set(FIELDS)
    assert set(re.findall(r"\{(\w+)\}", TEMPLATE)) == set(FIELDS)


def test_a_new_template_is_a_new_prompt(portrait: np.ndarray) -> None:
    first = caption(portrait, a_face())[0]
    other = caption(portrait, a_face(), template="{people}, {orientation}")[0]
    assert other["caption"] == "One person, square"
    assert first["prompt_id"] != other["prompt_id"] and first["prompt_id"].startswith("attributes-")
    assert (
        caption(portrait, a_face(), prompt_id="short", template="{people}")[0]["prompt_id"]
        == "short"
    )


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{framming} of {people}", r"no field \{framming\}; did you mean \{framing\}\?"),
        ("{people.__class__}", "no field"),
        ("{people[0]}", "no field"),
        ("{people!r}", "no field"),
        ("{light:>99999999}", "no field"),
        ("{}", "no field"),
        ("{0}", "there are: framing"),
        ("{people", "brace"),
        ("{{people}}", "brace"),
        ("two\nlines", "one line"),
        ("  ", "one line"),
    ],
)
def test_templates_that_are_refused(template: str, message: str) -> None:
    """A DAG file is not code: nothing but field names may stand in braces."""
    with pytest.raises(ValidationError, match=message):
        AttributesCaption({"template": template})


def test_a_face_has_the_same_caption_alone_and_beside_others(portrait: np.ndarray) -> None:
    faces = [a_face(), a_face(yaw=0.7), a_face(box=[300, 300, 330, 330])]
    together = caption(portrait, *faces)
    assert [row["caption"] for row in together] == [
        caption(portrait, face)[0]["caption"] for face in faces
    ]
