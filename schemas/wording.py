"""Numbers and names in messages: `1 image`, `2 images`, and which names are near one that does
not exist.
"""

from collections.abc import Iterable
from difflib import get_close_matches

_IRREGULAR = {"person": "people"}
_SHORTEST = 3
"""Letters that a word has at least, for the names that contain it to be meant."""


def counted(number: int, one: str, many: str = "") -> str:
    """A number with its noun: `1 image`, `2 images`. The last word of `one` gets an s, unless
    `many` says how it goes.
    """
    if number == 1:
        return f"{number} {one}"
    before, blank, last = one.rpartition(" ")
    return f"{number} {many or before + blank + _IRREGULAR.get(last, last + 's')}"


def verb(number: int, one: str = "is", many: str = "are") -> str:
    """The verb that goes with a number."""
    return one if number == 1 else many


def near(name: str, known: Iterable[str], most: int = 1, cutoff: float = 0.6) -> list[str]:
    """At most `most` of the `known` names that somebody who wrote `name` may have meant, the
    likeliest first.

    Names that contain the word, or are contained in it, come before those that are spelt like it.
    """
    names = list(known)
    word = _folded(name)
    inside = [one for one in names if len(word) >= _SHORTEST and word in _folded(one)]
    around = [one for one in names if len(_folded(one)) >= _SHORTEST and _folded(one) in word]
    inside.sort(key=lambda one: (not _folded(one).startswith(word), len(one)))
    around.sort(key=lambda one: -len(one))
    spelt = get_close_matches(name, names, most, cutoff)
    return list(dict.fromkeys([*inside, *around, *spelt]))[:most]


def _folded(name: str) -> str:
    return name.casefold().replace("-", "_").replace(" ", "_")
