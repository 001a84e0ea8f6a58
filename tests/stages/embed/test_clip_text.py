"""Token numbers of texts: OpenAI's, whatever file they come from."""

import gzip
import json
from pathlib import Path

import pytest

from stages.embed.clip_text import FIRST, LAST, ClipTokeniser, cleaned, from_folder, from_openai
from stages.torch_session import BadCheckpoint

MERGES = [
    ("d", "o"),
    ("do", "g</w>"),
    ("a", "n"),
    ("an", "d</w>"),
    ("2", "2</w>"),
    ("'", "s</w>"),
    ("l", "l</w>"),
    ("'", "ll</w>"),
]
CONTEXT = 9


def letters() -> list[str]:
    """The alphabet of bytes as Radford et al. chose it for GPT-2: those that print stand for
    themselves.
    """
    printed = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = [byte for byte in range(256) if byte not in printed]
    return [*map(chr, printed), *(chr(256 + number) for number in range(len(others)))]


def vocabulary() -> dict[str, int]:
    tokens = [
        *letters(),
        *(f"{letter}</w>" for letter in letters()),
        *("".join(pair) for pair in MERGES),
        FIRST,
        LAST,
    ]
    return {token: number for number, token in enumerate(tokens)}


def write_folder(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary()))
    (folder / "merges.txt").write_text(
        "\n".join(["#version: 0.2", *(" ".join(pair) for pair in MERGES)]) + "\n", encoding="utf-8"
    )
    return folder


def write_openai(path: Path) -> str:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write(
            "\n".join(
                ['"bpe_simple_vocab_16e6.txt#version: 0.2', *(" ".join(pair) for pair in MERGES)]
            )
            + "\n"
        )
    return str(path)


@pytest.fixture(scope="module", params=["folder", "openai"])
def tokeniser(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> ClipTokeniser:
    folder = tmp_path_factory.mktemp("vocabulary")
    if request.param == "folder":
        return from_folder(str(write_folder(folder)), CONTEXT)
    return from_openai(write_openai(folder / "pairs.txt.gz"), CONTEXT)


def read(tokeniser: ClipTokeniser, text: str) -> list[str]:
    names = {number: token for token, number in vocabulary().items()}
    (row,) = tokeniser([text]).tolist()
    return [names[number] for number in row[: row.index(vocabulary()[LAST]) + 1]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("Dog and dog", ["dog</w>", "and</w>", "dog</w>"]),
        ("  DOG\t&amp;amp;\n dog ", ["dog</w>", "&</w>", "dog</w>"]),
        ("dog’s", ["dog</w>", "'s</w>"]),
        ("dog'll", ["dog</w>", "'ll</w>"]),
        ("22a", ["2</w>", "2</w>", "a</w>"]),
        ("ü", ["Ã", "¼</w>"]),
        ("u\u0308", ["Ã", "¼</w>"]),
        ("ｄｏｇ\ufeff\x00", ["dog</w>"]),
        ("\ud83d", ["ï", "¿", "½</w>"]),
    ],
)
def test_texts_are_cut_into_the_known_pieces(
    tokeniser: ClipTokeniser, text: str, expected: list[str]
) -> None:
    assert read(tokeniser, text) == [FIRST, *expected, LAST]


def test_what_is_too_long_keeps_its_last_token(tokeniser: ClipTokeniser) -> None:
    """Its vector is the one at the last token; without one, scores of long captions collapse."""
    first, last, dog = (vocabulary()[token] for token in (FIRST, LAST, "dog</w>"))
    rows = tokeniser(["dog " * 7, "dog " * 8, "dog " * 500, "dog"])
    assert rows.shape == (4, CONTEXT)
    assert rows[:3].tolist() == [[first, *[dog] * 7, last]] * 3
    assert rows[3].tolist() == [first, dog, last, *[0] * 6]
    assert tokeniser([]).shape == (0, CONTEXT)


def test_cleaning_leaves_other_scripts_alone() -> None:
    assert cleaned("Ein „Bär“ – naïve 日本語 ﬁne") == 'ein "bär" – naïve 日本語 fine'
    assert cleaned("&lt;b&gt; It´s  fine\u00a0") == "<b> it´s fine"


def test_damaged_and_foreign_vocabularies_are_named(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "bundle")
    with pytest.raises(FileNotFoundError, match=r"vocab\.json"):
        from_folder(str(tmp_path), CONTEXT)
    without = {token: number for token, number in vocabulary().items() if token != LAST}
    for body, message in (
        ("[1, 2]", "not a vocabulary"),
        ("{", "not a vocabulary"),
        ('{"a": "b"}', "a token has no number"),
        (json.dumps(without), r"it lacks <\|endoftext\|>"),
        (json.dumps(vocabulary() | {"<pad>": 9999}), r"<\|endoftext\|> is not the last token"),
        (json.dumps({FIRST: 0, LAST: 1}), "do not fit each other"),
    ):
        (folder / "vocab.json").write_text(body)
        with pytest.raises(BadCheckpoint, match=rf"vocab\.json: .*{message}"):
            from_folder(str(folder), CONTEXT)
    (tmp_path / "pairs.txt.gz").write_bytes(b"not gzip")
    with pytest.raises(BadCheckpoint, match=r"pairs\.txt\.gz: not OpenAI's file of byte pairs"):
        from_openai(str(tmp_path / "pairs.txt.gz"), CONTEXT)
