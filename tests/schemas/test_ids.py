"""Ids: if any of these changes, every dataset there is loses its rows."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import face_id, identity_id, image_id, no_face_id

NAMES = st.text(max_size=30)
_SPACES = st.text(" \t\n\u00a0\u2003", min_size=1, max_size=3)


def test_ids_are_what_they_have_always_been() -> None:
    """A dataset would be computed again from nothing, and removals and corrections would point
    nowhere.
    """
    assert identity_id("Ada Lovelace") == "5977c87104155979"
    assert identity_id("Zoë Łuczak") == "26292342d3bc31d9"
    assert identity_id("Ada Lovelace", "Q7259") == "d6f9d50885fc4548"
    assert identity_id("") == "61786490afd11d7f"
    assert image_id("0011223344556677", "local:Ada Lovelace/1.jpg") == "1e5f34dbb3bac8481c3d7326"
    assert (
        face_id("00112233445566778899aabb", (1.0, 2.5, 30.03125, 40.0))
        == "4cc0a702cb160c81e08164dc"
    )
    assert no_face_id("00112233445566778899aabb") == "fa6d16e9295544b11425c09b"


@pytest.mark.parametrize(
    "name", ["Zoë", "ZOË", "zoe\u0308", "ZOE\u0308", " Zoë ", "\tZoë\n", "Zoë\u00a0"]
)
def test_spellings_of_a_name_are_one_person(name: str) -> None:
    """The same person would be collected twice because a file system decomposes names."""
    assert identity_id(name) == identity_id("Zoë")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Ada Lovelace", "ada\u2003 lovelace"),
        ("Straße", "STRASSE"),
        ("ΣΊΣΥΦΟΣ", "σίσυφος"),
        ("\uac00", "\u1100\u1161"),
        ("Å", "\u212b"),
    ],
)
def test_case_and_composition_do_not_make_people(one: str, other: str) -> None:
    """Greek, Korean and German people would be split by how their names are typed."""
    assert identity_id(one) == identity_id(other)


@pytest.mark.parametrize("other", ["Zoe", "Zoé", "Zoë2", "Zo ë", "Z", ""])
def test_other_names_are_other_people(other: str) -> None:
    """Two people would be merged for ever."""
    assert identity_id(other) != identity_id("Zoë")


@given(NAMES)
def test_normal_forms_are_one_person(name: str) -> None:
    """A folder copied from a Mac would be other people."""
    assert identity_id(unicodedata.normalize("NFC", name)) == identity_id(name)
    assert identity_id(unicodedata.normalize("NFD", name)) == identity_id(name)


@given(st.lists(st.text("abcÄßñΩ", min_size=1, max_size=5), min_size=1, max_size=4), st.data())
def test_white_space_does_not_count(words: list[str], data: st.DataObject) -> None:
    """`Ada  Lovelace` with two blanks would be somebody else."""
    spaced = "".join(data.draw(_SPACES) + word for word in words) + data.draw(_SPACES)
    assert identity_id(spaced) == identity_id(" ".join(words))


@given(st.text("abcäöüéñçßœøłžğαβγσωабвжя '-", max_size=20))
def test_case_does_not_count(name: str) -> None:
    """A list typed in capitals would be other people than the same list in lower case."""
    assert identity_id(name.upper()) == identity_id(name) == identity_id(name.casefold())


@given(NAMES)
def test_a_given_id_stands_for_itself(name: str) -> None:
    """A person would change when the spelling of the name is corrected; a name like an id would be
    taken for one.
    """
    assert identity_id(name, "Q42") == identity_id("Douglas Adams", "Q42")
    assert identity_id(name) != identity_id("Douglas Adams", name)


@given(st.text(max_size=8), st.text(max_size=8), st.text(max_size=8), st.text(max_size=8))
def test_where_the_parts_of_an_image_id_end_matters(
    person: str, address: str, person2: str, address2: str
) -> None:
    """Person `ab` with image `c` and person `a` with image `bc` would be one row."""
    assert (image_id(person, address) == image_id(person2, address2)) == (
        (person, address) == (person2, address2)
    )


def test_ids_are_text_that_fits_file_names_and_shard_keys() -> None:
    """A dot or a slash in a key would break every reader of the shards."""
    ids = {
        identity_id("Ada"): 16,
        image_id("a", "b"): 24,
        face_id("a", (0, 0, 1, 1)): 24,
        no_face_id("a"): 24,
    }
    for text, length in ids.items():
        assert len(text) == length and set(text) <= set("0123456789abcdef")
    assert len(ids) == 4


def test_a_box_is_known_to_a_sixteenth_of_a_pixel() -> None:
    """The last bits of a detector, which differ between chips, would make new faces of old ones."""
    box = (10.0, 20.0, 50.0, 60.0)
    assert face_id("i", [value + 0.03 for value in box]) == face_id("i", box)
    assert face_id("i", [value - 0.03 for value in box]) == face_id("i", box)
    assert face_id("i", (10.0, 20.0, 50.0, 60.0625)) != face_id("i", box)
    assert face_id("i", (10.0, 20.0, 50.0)) != face_id("i", box)
    assert face_id("i", (1, 12, 0, 0)) != face_id("i", (11, 2, 0, 0))
    assert face_id("i", (-0.0, -0.01, 0.01, 0)) == face_id("i", (0, 0, 0, 0))


def test_a_box_outside_the_picture_has_an_id_and_no_number_has_none() -> None:
    """Detectors draw boxes over the edge; a box that is not a number must not become a face."""
    assert face_id("i", (-10.0, -2.5, 50.0, 60.0)) != face_id("i", (10.0, 2.5, 50.0, 60.0))
    with pytest.raises(ValueError):
        face_id("i", (float("nan"), 0, 1, 1))


@given(st.lists(st.floats(-1e5, 1e5, width=32), min_size=4, max_size=4))
def test_a_box_read_back_from_a_file_names_the_same_face(box: list[float]) -> None:
    """Numpy's float32, Python's floats and integers that are equal would name different faces."""
    assert face_id("i", list(np.array(box, np.float32))) == face_id("i", box)
    whole = [float(round(value)) for value in box]
    assert face_id("i", [int(value) for value in whole]) == face_id("i", whole)
