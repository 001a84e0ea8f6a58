"""What names somebody in texts: names by their words, addresses, ids and hashes as they are. Found, or struck out."""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from pipeline.root.removals import folded, words

STRUCK = "(removed)"
_HEX = re.compile(r"(?<![0-9A-Za-z])(?:[0-9a-f]{16}|[0-9a-f]{24}|[0-9a-f]{32}|[0-9a-f]{64})(?![0-9A-Za-z])")
_TOKEN = re.compile(r"[0-9A-Za-z]+")
_LEAST = 3
"""Letters that a name of a single word must have to be looked for inside of other texts."""


@dataclass(frozen=True)
class Needles:
    """What is looked for. `names` are compared by their words; `addresses` as parts of a text; `ids` (hexadecimal ids and
    hashes) and `tokens` (external ids) as whole tokens."""

    names: frozenset[str] = frozenset()
    addresses: frozenset[str] = frozenset()
    ids: frozenset[str] = frozenset()
    tokens: frozenset[str] = frozenset()

    @staticmethod
    def of(names: Iterable[str], addresses: Iterable[str], ids: Iterable[str], tokens: Iterable[str]) -> "Needles":
        return Needles(
            frozenset(words(name) for name in names if folded(name)), frozenset(addresses), frozenset(ids),
            frozenset(token for token in tokens if distinct(token)),
        )  # fmt: skip

    def as_json(self) -> dict[str, list[str]]:
        return {name: sorted(getattr(self, name)) for name in ("names", "addresses", "ids", "tokens")}

    @staticmethod
    def from_json(found: Mapping[str, Iterable[str]]) -> "Needles":
        return Needles(**{name: frozenset(values) for name, values in found.items()})

    @cached_property
    def telling(self) -> frozenset[str]:
        """Names that can only mean this person, whoever's text they are in: of two words or more."""
        return frozenset(name for name in self.names if " " in name)

    @cached_property
    def sure(self) -> "Needles":
        """Without names of one word, which may be a word like any other."""
        return replace(self, names=self.telling)

    def mentions(self, text: str) -> bool:
        """Whether a telling name stands in a text or address, with any signs between its words."""
        return bool(self.telling) and _has(f" {words(text)} ", self.telling)

    def find(self, text: str) -> str | None:
        """The first of the needles in a text, by its kind; None if there is none."""
        if self.ids and any(found in self.ids for found in _HEX.findall(text)):
            return "id or hash"
        if self.addresses and (text in self.addresses or any(address in text for address in self._long)):
            return "address"
        if self.tokens and any(token in self.tokens for token in _TOKEN.findall(text)):
            return "external id"
        plain = words(text) if self.names else ""
        if plain in self.names or (self._inside and _has(f" {plain} ", self._inside)):
            return "name"
        return None

    @cached_property
    def _inside(self) -> frozenset[str]:
        return frozenset(name for name in self.names if len(name) >= _LEAST or _boundless(name))

    @cached_property
    def _long(self) -> tuple[str, ...]:
        """Addresses by falling length: one may be the beginning of another."""
        return tuple(sorted(self.addresses, key=lambda address: (-len(address), address)))

    @cached_property
    def _patterns(self) -> tuple[re.Pattern[str], ...]:
        longest = sorted(self._inside, key=lambda name: (-len(name), name))
        between = r"(?:[\W_]|%[0-9A-Fa-f]{2})+"
        parts = ((between.join(map(re.escape, name.split())), _boundless(name)) for name in longest)
        return tuple(re.compile(part if free else rf"(?<![^\W_]){part}(?![^\W_])", re.IGNORECASE) for part, free in parts)

    def strike(self, text: str) -> str:
        """The text without the needles; all of it struck where a spelling does not show which part they are."""
        if self.find(text) is None:
            return text
        text = unicodedata.normalize("NFC", text)
        for address in self._long:
            text = text.replace(address, STRUCK)
        text = _HEX.sub(lambda match: STRUCK if match[0] in self.ids else match[0], text)
        text = _TOKEN.sub(lambda match: STRUCK if match[0] in self.tokens else match[0], text)
        for pattern in self._patterns:
            text = pattern.sub(STRUCK, text)
        return STRUCK if self.find(text) is not None else text

    def strike_json(self, value: Any) -> Any:
        """A JSON value with every text and key struck. The words by which records say what they are stay as they are."""
        if isinstance(value, str):
            return self.strike(value)
        if isinstance(value, list):
            return [self.strike_json(item) for item in value]
        if isinstance(value, dict):
            return {self.strike(name): item if name in _OWN_WORDS else self.strike_json(item) for name, item in value.items()}
        return value


_OWN_WORDS = frozenset({"status", "started", "finished", "machine", "licences", "versions"})
"""Fields of records whose values are the program's own."""


def distinct(token: str) -> bool:
    """Whether an external id can be nothing else in a text: Q42 and nm0000123 can not, 1234 is a number."""
    return any(map(str.isdigit, token)) and any(map(str.isalpha, token)) and token.isalnum()


def _boundless(name: str) -> bool:
    """Whether a name is in a script that puts no blanks between words: Chinese, Japanese, Thai, Lao, Khmer, Burmese."""
    return any("\u0e00" <= c <= "\u0eff" or "\u1000" <= c <= "\u109f" or "\u1780" <= c <= "\u17ff" or "\u2e80" <= c <= "\u9fff"
               or c >= "\U00020000" for c in name)  # fmt: skip


def _has(padded: str, names: Iterable[str]) -> bool:
    return any((name if _boundless(name) else f" {name} ") in padded for name in names)
