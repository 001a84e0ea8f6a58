"""Names in every spelling that means the same: what two of them are compared by, and where one
stands in a text.

Compared are words, without case, accents and invisible characters, letters of other scripts and
widths that look like Latin ones (Unicode's list of confusables, UTS 39, as far as it has letters)
as those; and words in any order, or written as one. What is not the same: other words, nicknames,
transcriptions (Müller and Mueller), letters that are left out or typed wrongly.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote

AS_ONE = "="
"""Before the words of a name as one: no word begins with it."""
_LONG_WORD = 9
"""Letters of a word that is hardly a first name by chance."""
# fmt: off
_LOOKALIKES = (
    "AΑАᎪᗅꓮ BΒВᏴᗷꓐꞴ CСᏟⲤꓚ DᎠᗞᗪꓓ EΕЕᎬⴹꓰ FϜᖴꓝꞘ GԌᏀᏳꓖ HΗНᎻᕼⲎꓧ IƖǀΙІӀᛁⲒⵏꓲ JͿЈᎫᒍꓙꞲ KΚКᏦᛕⲔꓗ LᏞᒪⳐꓡ "
    "MΜϺМᎷᗰᛖⲘꓟ NΝⲚꓠ OΟОՕଠዐⲞⵔꓳ"
    " PΡРᏢᑭⲢꓑ Qⵕ RƦᎡᏒᖇꓣ SЅՏᏕᏚꓢ TΤТᎢⲦꓔ UՍሀᑌꓴ VѴᏙᐯⴸꓦꛟ WԜᎳᏔꓪ XΧХᚷⲬⵝꓫꞳ YΥУҮᎩᎽⲨꓬ ZΖᏃꓜ aɑαа bƄЬЬᏏᑲᖯвβ "
    "cсᴄⲥꮯ dԁᏧᑯꓒ eеҽꬲε fքẝꞙꬵ"
    " gƍɡցᶃ hһհᏂн iıɩɪιіӏᎥꙇꭵ jϳј kкκ mм nոռη oοσоօഠဝჿᴏᴑⲟꬽ pρрⲣ qԛգզ rгᴦⲅꭇꭈꮁ sƽѕꜱꮪ tтτ uʋυսᴜꞟꭎꭒ "
    "vνѵᴠꮩ wɯѡԝաᴡꮃ xхᕁᕽχ"
    " yɣʏγуүყᶌỿꭚ zᴢꮓζ"
)
# fmt: on
"""A Latin letter, and the letters that look like it or like its other case."""
_LIKE = {ord(other): group[0] for group in _LOOKALIKES.split() for other in group[1:]}
_WRITTEN = {
    "ø": "o",
    "ł": "l",
    "đ": "d",
    "ð": "d",
    "þ": "th",
    "æ": "ae",
    "œ": "oe",
    "ħ": "h",
    "ŧ": "t",
    "ŋ": "n",
    "ƒ": "f",
}
"""Latin letters that no accent can be taken from."""
_FILLERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
"""Letters and signs that show nothing, beside those of the category Cf and the variation
selectors.
"""
# fmt: off
_MARKS = (
    (0x0300, 0x036F), (0x0483, 0x0489), (0x0591, 0x05C7), (0x0610, 0x061A), (0x064B, 0x065F),
    (0x0670, 0x0670), (0x06D6, 0x06ED),
    (0x180B, 0x180F), (0x1AB0, 0x1AFF), (0x1DC0, 0x1DFF), (0x20D0, 0x20FF), (0xFE00, 0xFE0F),
    (0xFE20, 0xFE2F), (0xE0100, 0xE01EF),
)
# fmt: on
"""Accents, points and vowel signs that may be left out; those of other scripts make another word.
Variation selectors.
"""
_PERCENT = re.compile(r"(?:%[0-9A-Fa-f]{2})+")


class _Letters(dict[int, str]):
    """What each character is compared as, for `str.translate`; `shape`: whether capitals are what
    they look like.
    """

    def __init__(self, shape: bool) -> None:
        super().__init__()
        self.shape = shape

    def __missing__(self, code: int) -> str:
        self[code] = "".join(self._plain(one) for one in unicodedata.normalize("NFKD", chr(code)))
        return self[code]

    def _plain(self, letter: str) -> str:
        if self.shape:
            letter = _LIKE.get(ord(letter), letter)
        plain = []
        for one in unicodedata.normalize("NFKD", letter.casefold()):
            kind = unicodedata.category(one)
            if (
                kind == "Cf"
                or one in _FILLERS
                or any(first <= ord(one) <= last for first, last in _MARKS)
            ):
                continue
            like = _LIKE.get(ord(one), one).lower()
            plain.append(_WRITTEN.get(like, like) if like.isalnum() or kind[0] == "M" else " ")
        return "".join(plain)


_FOLDED, _SHAPES = _Letters(False), _Letters(True)
"""Capitals as their small letters, which keeps the case of other scripts out of it; and as the
Latin letters that they look like.
"""


def readings(text: str) -> list[list[str]]:
    """The words of a text or address as they are compared, in order: one list, or two where
    capitals look like Latin ones.
    """
    plain = unquote(text)
    if plain.isascii():
        return [plain.translate(_FOLDED).split()]
    first, second = (plain.translate(letters).split() for letters in (_FOLDED, _SHAPES))
    return [first] if first == second else [first, second]


def in_any_order(words: list[str]) -> str:
    """What words are compared by, whatever their order."""
    return " ".join(sorted(words))


def as_one(words: list[str]) -> str:
    """What words are compared by, whatever the blanks between them."""
    return AS_ONE + "".join(words)


def spellings(name: str) -> frozenset[str]:
    """What is kept of a name: texts that are spellings of it are `read_as` one of these. Empty for
    signs alone.
    """
    found = set()
    for words in filter(None, readings(name)):
        found.add(in_any_order(words))
        if len(words) > 1 or boundless(words[0]):
            found.add(as_one(words))
    return frozenset(found)


def read_as(name: str) -> frozenset[str]:
    """What a name may be a spelling of."""
    found = {in_any_order(words) for words in readings(name) if words}
    return frozenset(found | {as_one(words) for words in readings(name) if may_be_several(words)})


def may_be_several(words: list[str]) -> bool:
    """Whether words may be a name of other words, written with other blanks. A single short word
    may not: Lina is not Li Na.
    """
    return len(words) > 1 or (
        len(words) == 1 and (len(words[0]) >= _LONG_WORD or boundless(words[0]))
    )


def boundless(text: str) -> bool:
    """Whether a text is in a script that puts no blanks between words: Chinese, Japanese, Thai,
    Lao, Khmer, Burmese.
    """
    return any(
        "\u0e00" <= c <= "\u0eff"
        or "\u1000" <= c <= "\u109f"
        or "\u1780" <= c <= "\u17ff"
        or "\u2e80" <= c <= "\u9fff"
        or c >= "\U00020000"
        for c in text
    )


@dataclass(frozen=True)
class Word:
    """A word of a text as it is compared, and where it stands: first letter and last letter + 1."""

    plain: str
    first: int
    stop: int


def placed(text: str) -> list[list[Word]]:
    """As `readings`, with the places of the words in the text."""
    found = []
    for letters in (_FOLDED,) if text.isascii() else (_FOLDED, _SHAPES):
        words: list[Word] = []
        begin, plain, end = 0, "", 0
        for letter, first, stop in _letters(text):
            pieces = letters[ord(letter)].split(" ")
            for number, piece in enumerate(pieces):
                if number and plain:
                    words.append(Word(plain, begin, end))
                    plain = ""
                if piece:
                    begin, plain, end = (begin if plain else first), plain + piece, stop
                elif plain and not letters[ord(letter)]:
                    end = stop  # an accent or an invisible character belongs to the word before it
        if plain:
            words.append(Word(plain, begin, end))
        found.append(words)
    return found


def _letters(text: str) -> Iterator[tuple[str, int, int]]:
    """The characters of a text, those of percent signs decoded, and where they stand."""
    at = 0
    for match in _PERCENT.finditer(text):
        for place in range(at, match.start()):
            yield text[place], place, place + 1
        place = match.start()
        decoded = unquote(match[0])
        exact = sum(3 * len(one.encode()) for one in decoded) == len(match[0])
        for one in decoded:
            width = 3 * len(one.encode())
            yield (one, place, place + width) if exact else (one, *match.span())
            place += width
        at = match.end()
    for place in range(at, len(text)):
        yield text[place], place, place + 1
