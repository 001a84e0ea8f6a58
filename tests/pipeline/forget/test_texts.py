"""What names somebody in texts is found in any spelling and struck out, and nothing beside it."""

import pytest

from pipeline.forget.texts import STRUCK, Needles

NEEDLES = Needles.of(["Ada Lovelace", "Zoë", "王菲"], ["https://x.org/a/1.jpg", "local:Ada/1.jpg"], ["0" * 16], ["Q42"])


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


@pytest.mark.parametrize("text", ["Ada", "Lovelace, Ada", "Adam Lovelace", "Q421", "0" * 17, "https://x.org/a/2.jpg", "Zoëtrope", ""])
def test_what_only_looks_like_it_stays(text: str) -> None:
    """Records of others would be spoilt."""
    assert NEEDLES.find(text) is None and NEEDLES.strike(text) == text


def test_records_keep_their_shape() -> None:
    """A struck record could not be read by `status` any more, or a name that is a word would strike what the program says."""
    needles = Needles.of(["done"], [], [], [])
    record = {"status": "done", "selection": {"where": "name = 'done'", "limit": 3}, "Ada": [1.5, None, True, "done"]}
    assert needles.strike_json(record) == {
        "status": "done", "selection": {"where": f"name = '{STRUCK}'", "limit": 3}, "Ada": [1.5, None, True, STRUCK],
    }  # fmt: skip


def test_only_names_of_several_words_tell_who_is_meant_in_other_peoples_texts() -> None:
    """All pictures with `Zoë` in their address would be deleted, whoever it is."""
    assert NEEDLES.mentions("File:Ada_Lovelace.jpg") and not NEEDLES.mentions("File:Zoë.jpg")
