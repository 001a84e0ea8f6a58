"""What names somebody in texts is found in any spelling and struck out, and nothing beside it."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idcluster.root.spellings import placed, readings, spellings
from pipeline.forget.texts import STRUCK, Needles, unescaped

NEEDLES = Needles.of(
    ["Ada Lovelace", "Zoë", "王菲"],
    ["https://x.org/a/1.jpg", "local:Ada/1.jpg"],
    ["0" * 16],
    ["Q42"],
)


@pytest.mark.parametrize(
    ("text", "struck"),
    [
        ("name = 'Ada Lovelace'", f"name = '{STRUCK}'"),
        ("ADA  LOVELACE and others", f"{STRUCK} and others"),
        ("https://c.org/File:Ada_Lovelace_and_B.jpg", f"https://c.org/File:{STRUCK}_and_B.jpg"),
        ("File:Ada%20Lovelace.jpg", f"File:{STRUCK}.jpg"),
        ("Zoe\u0308 is here", f"{STRUCK} is here"),
        ("see https://x.org/a/1.jpg?", f"see {STRUCK}?"),
        ("local:Ada/1.jpg", STRUCK),
        (f"train-{'0' * 16}-000-abcd1234.tar", f"train-{STRUCK}-000-abcd1234.tar"),
        (f"{'0' * 16}_{'1' * 24}", f"{STRUCK}_{'1' * 24}"),
        ("歌手王菲在舞台上", f"歌手{STRUCK}在舞台上"),
        ("wikidata Q42.", f"wikidata {STRUCK}."),
    ],
)
def test_spellings_are_found_and_struck(text: str, struck: str) -> None:
    """A record would go on naming somebody who was removed."""
    assert NEEDLES.find(text) is not None
    assert NEEDLES.strike(text) == struck and NEEDLES.find(struck) is None


@pytest.mark.parametrize(
    "text",
    [
        "Ada",
        "Lovelace and Ada",
        "Adam Lovelace",
        "Q421",
        "0" * 17,
        "https://x.org/a/2.jpg",
        "Zoëtrope",
        "",
    ],
)
def test_what_only_looks_like_it_stays(text: str) -> None:
    """Records of others would be spoilt."""
    assert NEEDLES.find(text) is None and NEEDLES.strike(text) == text


def test_records_keep_their_shape() -> None:
    """A struck record could not be read by `status` any more, or a name that is a word would strike
    what the program says.
    """
    needles = Needles.of(["done"], [], [], [])
    record = {
        "status": "done",
        "selection": {"where": "name = 'done'", "limit": 3},
        "Ada": [1.5, None, True, "done"],
    }
    assert needles.strike_json(record) == {
        "status": "done",
        "selection": {"where": f"name = '{STRUCK}'", "limit": 3},
        "Ada": [1.5, None, True, STRUCK],
    }


def test_only_names_of_several_words_tell_who_is_meant_in_other_peoples_texts() -> None:
    """All images with `Zoë` in their address would be deleted, whoever it is."""
    assert NEEDLES.mentions("File:Ada_Lovelace.jpg") and not NEEDLES.mentions("File:Zoë.jpg")


# fmt: off
SPELLINGS = [
    "Lovelace, Ada", "LOVELACE Ada", "Ａｄａ　Ｌｏｖｅｌａｃｅ", "Аdа Lоvеlасе", "АDА LОVЕLАСЕ",
    "Àda Lóvelace",
    "A\u0308da Lovelace",
    "Ada Love\u200blace", "Ada\u00adLovelace", "Ada \u00a0 Lovelace", "ada.lovelace", "AdaLovelace",
    "Ada%20L%6fvelace", "𝐀𝐝𝐚 𝓛𝓸𝓿𝓮𝓵𝓪𝓬𝓮",
    "Ada\u3164Lovelace",
]
# fmt: on


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_is_found_in_other_texts_and_struck(spelling: str) -> None:
    """Whoever writes the name in another way would keep it in a record, or the image that it is
    written under.
    """
    text = f"seen with {spelling}, smiling; Grace"
    assert (
        NEEDLES.find(text) == "name"
        and NEEDLES.mentions(text)
        and re.search(NEEDLES.sure.rough, text, re.IGNORECASE)
    )
    struck = NEEDLES.strike(text)
    assert NEEDLES.find(struck) is None and struck == f"seen with {STRUCK}, smiling; Grace"


def test_a_spelling_that_means_somebody_else_too_is_not_looked_for() -> None:
    """Images of Kim Lee would be deleted with those of Lee Kim."""
    needles = Needles.of(["Kim Lee"], [], [], [], spellings("Lee Kim"))
    assert (
        needles.find("by Kim Lee") == "name"
        and needles.find("by Lee Kim") is None
        and not needles.mentions("Lee, Kim")
    )


def test_a_name_of_two_words_is_no_name_of_one() -> None:
    """Everybody called Lina would go with Li Na."""
    needles = Needles.of(["Li Na"], [], [], [])
    assert (
        needles.find("by Lina") is None
        and not needles.mentions("Lina smiles")
        and needles.mentions("NA, Li")
    )


def test_names_in_scripts_without_blanks_are_found_with_blanks() -> None:
    assert (
        NEEDLES.find("歌手王 菲在舞台上") == "name"
        and NEEDLES.find("王、菲") == "name"
        and NEEDLES.find("王在菲") is None
    )


def test_two_that_overlap_are_struck_once() -> None:
    assert NEEDLES.strike("x Lovelace Ada Lovelace y") in (
        f"x {STRUCK} y",
        f"x Lovelace {STRUCK} y",
        f"x {STRUCK} Lovelace y",
    )


@pytest.mark.parametrize("text", ['{"by": "Zo\\u00eb"}', "<p>Zo&euml;</p>", "<p>Zo&#235;</p>"])
def test_texts_are_read_as_a_reader_sees_them(text: str) -> None:
    """A record or page that escapes letters would keep the name."""
    assert NEEDLES.find(unescaped(text)) == "name"


@given(st.text(max_size=40))
def test_any_text_can_be_searched_and_struck(text: str) -> None:
    struck = NEEDLES.strike(text + " Lovelace, Ada")
    assert NEEDLES.find(struck) is None
    for read, words in zip(readings(text), placed(text), strict=False):
        assert read == [word.plain for word in words]
        assert all(0 <= word.first < word.stop <= len(text) for word in words)
