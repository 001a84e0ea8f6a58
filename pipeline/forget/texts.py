"""What names somebody in texts: names by their words, addresses, ids and hashes as they are. Found,
or struck out.
"""

import html
import json
import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Any

from idcluster.root.removals import folded, words
from idcluster.root.spellings import (
    AS_ONE,
    boundless,
    in_any_order,
    may_be_several,
    placed,
    readings,
    spellings,
)

STRUCK = "(removed)"
_HEX = re.compile(
    r"(?<![0-9A-Za-z])(?:[0-9a-f]{16}|[0-9a-f]{24}|[0-9a-f]{32}|[0-9a-f]{64})(?![0-9A-Za-z])"
)
_TOKEN = re.compile(r"[0-9A-Za-z]+")
_ESCAPED = re.compile(r"(?:\\u[0-9a-fA-F]{4})+")
_LEAST = 3
"""Letters that a name of a single word must have to be looked for inside of other texts."""


@dataclass(frozen=True)
class Needles:
    """What is looked for. `names` are compared by their words, `spellings` in every spelling
    (`idcluster.root.spellings`); `addresses` as parts of a text; `ids` (hexadecimal ids and hashes)
    and `tokens` (external ids) as whole tokens.
    """

    names: frozenset[str] = frozenset()
    addresses: frozenset[str] = frozenset()
    ids: frozenset[str] = frozenset()
    tokens: frozenset[str] = frozenset()
    spellings: frozenset[str] = frozenset()

    @staticmethod
    def of(
        names: Iterable[str],
        addresses: Iterable[str],
        ids: Iterable[str],
        tokens: Iterable[str],
        others: Iterable[str] = (),
    ) -> "Needles":
        """`others`: spellings that mean somebody else too."""
        known = [name for name in names if folded(name)]
        return Needles(
            frozenset(map(words, known)),
            frozenset(addresses),
            frozenset(ids),
            frozenset(token for token in tokens if distinct(token)),
            frozenset(key for name in known for key in spellings(name)) - frozenset(others),
        )

    def as_json(self) -> dict[str, list[str]]:
        return {
            name: sorted(getattr(self, name))
            for name in ("names", "addresses", "ids", "tokens", "spellings")
        }

    @staticmethod
    def from_json(found: Mapping[str, Iterable[str]]) -> "Needles":
        return Needles(**{name: frozenset(values) for name, values in found.items()})

    @cached_property
    def telling(self) -> frozenset[str]:
        """Names that can only mean this person, whoever's text they are in: of two words or
        more.
        """
        return frozenset(name for name in self.names if " " in name)

    @cached_property
    def sure(self) -> "Needles":
        """Without names of one word, which may be a word like any other."""
        return replace(
            self,
            names=self.telling,
            spellings=frozenset(key for key in self.spellings if _is_telling(key)),
        )

    def mentions(self, text: str) -> bool:
        """Whether a telling name stands in a text or address, with any signs between its words."""
        return (
            bool(self.telling) and _has(f" {words(text)} ", self.telling)
        ) or self.sure._spelled(text)

    @cached_property
    def rough(self) -> str:
        """A regular expression (RE2) that all texts match in which a telling name is, and few
        others: the longest word of each, whatever is between its letters, and signs behind which
        any letter may hide.
        """
        rare = {
            max(key.split(), key=len)
            for key in (
                *self.telling,
                *(key.lstrip(AS_ONE) for key in self.spellings if _is_telling(key)),
            )
        }
        return "|".join(
            [
                r"[^\x00-\x7F]|%",
                *(
                    r"[\W_]*".join(word)
                    for word in sorted(rare)
                    if word.isascii() and word.isalnum()
                ),
            ]
        )

    def find(self, text: str) -> str | None:
        """The first of the needles in a text, by its kind; None if there is none."""
        if self.ids and any(found in self.ids for found in _HEX.findall(text)):
            return "id or hash"
        if self.addresses and (
            text in self.addresses or any(address in text for address in self._long)
        ):
            return "address"
        if self.tokens and any(token in self.tokens for token in _TOKEN.findall(text)):
            return "external id"
        plain = words(text) if self.names else ""
        if plain in self.names or (self._inside and _has(f" {plain} ", self._inside)):
            return "name"
        return "name" if self._spelled(text) else None

    def _spelled(self, text: str) -> bool:
        return bool(self.spellings) and any(
            next(self._places(found), None) is not None for found in readings(text)
        )

    def _places(self, found: list[str]) -> Iterator[tuple[int, int]]:
        """Where names stand among the words of a text: first and last word + 1."""
        bags, lengths, whole = self._looked_for
        if not lengths and not whole:
            return
        for at in (at for at, word in enumerate(found) if word in self._vocabulary):
            for length in lengths:
                for first in range(max(0, at - length + 1), min(at, len(found) - length) + 1):
                    if in_any_order(found[first : first + length]) in bags:
                        yield first, first + length
        together = "".join(found)
        for name in (name for name in whole if name in together):
            starts = [0, *accumulate(map(len, found))]
            at = together.find(name)
            while at >= 0:
                first, last = bisect_right(starts, at) - 1, bisect_left(starts, at + len(name))
                whole_words = (starts[first], starts[last]) == (at, at + len(name))
                if boundless(name) or (whole_words and may_be_several(found[first:last])):
                    yield first, last
                at = together.find(name, at + 1)

    @cached_property
    def _looked_for(self) -> tuple[frozenset[str], tuple[int, ...], tuple[str, ...]]:
        """Names by their words in order of the alphabet, how many words they have, and names as one
        word.
        """
        bags = frozenset(
            key
            for key in self.spellings
            if not key.startswith(AS_ONE) and (len(key) >= _LEAST or boundless(key))
        )
        lengths = tuple(sorted({key.count(" ") + 1 for key in bags}))
        return (
            bags,
            lengths,
            tuple(sorted(key[1:] for key in self.spellings if key.startswith(AS_ONE))),
        )

    @cached_property
    def _vocabulary(self) -> frozenset[str]:
        return frozenset(word for key in self._looked_for[0] for word in key.split())

    @cached_property
    def _inside(self) -> frozenset[str]:
        return frozenset(name for name in self.names if len(name) >= _LEAST or boundless(name))

    @cached_property
    def _long(self) -> tuple[str, ...]:
        """Addresses by falling length: one may be the beginning of another."""
        return tuple(sorted(self.addresses, key=lambda address: (-len(address), address)))

    @cached_property
    def _patterns(self) -> tuple[re.Pattern[str], ...]:
        longest = sorted(self._inside, key=lambda name: (-len(name), name))
        between = r"(?:[\W_]|%[0-9A-Fa-f]{2})+"
        parts = ((between.join(map(re.escape, name.split())), boundless(name)) for name in longest)
        return tuple(
            re.compile(part if free else rf"(?<![^\W_]){part}(?![^\W_])", re.IGNORECASE)
            for part, free in parts
        )

    def strike(self, text: str) -> str:
        """The text without the needles; all of it struck where a spelling does not show which part
        they are.
        """
        if self.find(text) is None:
            return text
        text = unicodedata.normalize("NFC", text)
        for address in self._long:
            text = text.replace(address, STRUCK)
        text = _HEX.sub(lambda match: STRUCK if match[0] in self.ids else match[0], text)
        text = _TOKEN.sub(lambda match: STRUCK if match[0] in self.tokens else match[0], text)
        for pattern in self._patterns:
            text = pattern.sub(STRUCK, text)
        for reading in (0, -1):
            if self.find(text) is None:
                return text
            found = placed(text)[reading]
            struck: list[tuple[int, int]] = []
            for first, last in sorted(self._places([word.plain for word in found]), reverse=True):
                stop = found[last - 1].stop
                if struck and stop > struck[-1][0]:  # of two that overlap, one place
                    stop = struck.pop()[1]
                struck.append((found[first].first, stop))
            for begin, stop in struck:
                text = text[:begin] + STRUCK + text[stop:]
        return STRUCK if self.find(text) is not None else text

    def strike_json(self, value: Any) -> Any:
        """A JSON value with every text and key struck. The words by which records say what they are
        stay as they are.
        """
        if isinstance(value, str):
            return self.strike(value)
        if isinstance(value, list):
            return [self.strike_json(item) for item in value]
        if isinstance(value, dict):
            return {
                self.strike(name): item if name in _OWN_WORDS else self.strike_json(item)
                for name, item in value.items()
            }
        return value


_OWN_WORDS = frozenset({"status", "started", "finished", "machine", "licences", "versions"})
"""Fields of records whose values are the program's own."""


def unescaped(text: str) -> str:
    """A text as whoever reads it sees it, where it is a part of JSON, HTML or XML."""
    return (
        html.unescape(_ESCAPED.sub(lambda match: json.loads(f'"{match[0]}"'), text))
        if "\\u" in text or "&" in text
        else text
    )


def distinct(token: str) -> bool:
    """Whether an external id can be nothing else in a text: Q42 and nm0000123 can not, 1234 is a
    number.
    """
    return any(map(str.isdigit, token)) and any(map(str.isalpha, token)) and token.isalnum()


def _is_telling(key: str) -> bool:
    """Whether a spelling is that of a name of several words."""
    return " " in key or (key.startswith(AS_ONE) and not boundless(key))


def _has(padded: str, names: Iterable[str]) -> bool:
    return any((name if boundless(name) else f" {name} ") in padded for name in names)
