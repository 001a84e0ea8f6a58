"""What answers of Wikidata and Wikimedia Commons say: people and files as plain facts. Pure
functions.
"""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from stages.crawl.listing import Offer
from stages.crawl.web.address import BadAddress, canonical

_SCHEMES = {"P345": "imdb", "P214": "viaf"}
"""Properties of Wikidata that are kept as external ids."""


@dataclass
class File:
    """A file as Commons describes it. `code`: its licence, as `cc-by-sa-4.0`; `side`: the shorter
    one, pixels.
    """

    title: str
    offer: Offer
    mime: str
    code: str
    side: int


@dataclass
class Item:
    """What Wikidata says of a person. `images`: titles of files (P18); `category`: of Commons
    (P373).
    """

    name: str
    aliases: tuple[str, ...] = ()
    external_ids: dict[str, str] = field(default_factory=dict)
    images: tuple[str, ...] = ()
    category: str | None = None


def item_of(entity: Mapping[str, Any], languages: Sequence[str]) -> Item:
    """An entity of `wbgetentities`; its name is the label in the first of the languages that has
    one.
    """
    # An empty mapping comes as an empty list.
    labels, aliases, claims = (entity.get(name) or {} for name in ("labels", "aliases", "claims"))
    names = [labels[language]["value"] for language in languages if language in labels]
    others = [alias["value"] for language in languages for alias in aliases.get(language, [])]
    ids = {
        scheme: values[0] for code, scheme in _SCHEMES.items() if (values := _values(claims, code))
    }
    every = dict.fromkeys((*names[1:], *others))
    name = names[0] if names else str(entity.get("id"))
    return Item(
        name,
        tuple(alias for alias in every if alias != name),
        ids,
        tuple(f"File:{title.replace('_', ' ')}" for title in _values(claims, "P18")),
        next(iter(_values(claims, "P373")), None),
    )


def _values(claims: Mapping[str, Any], code: str) -> list[str]:
    """The texts of a property, without what is deprecated, preferred ones first."""
    found: list[tuple[bool, int, str]] = []
    for claim in claims.get(code, []):
        snak = claim.get("mainsnak", {})
        value = (snak.get("datavalue") or {}).get("value")
        if (
            snak.get("snaktype") == "value"
            and isinstance(value, str)
            and claim.get("rank") != "deprecated"
        ):
            found.append((claim.get("rank") != "preferred", len(found), value))
    return [value for _, _, value in sorted(found)]


def file_of(page: Mapping[str, Any]) -> File | None:
    """What an answer says of a file; None for a page without one."""
    info = next(iter(page.get("imageinfo") or []), None)
    if not isinstance(info, dict) or not info.get("url"):
        return None
    said = info.get("extmetadata")
    # As an empty list where there is none.
    meta = (
        {name: plain_text(str(entry.get("value", ""))) for name, entry in said.items()}
        if isinstance(said, dict)
        else {}
    )
    try:
        address = canonical(_without_traces(str(info["url"])))
    except BadAddress:
        return None
    offer = Offer(
        address,
        fingerprint=info.get("sha1"),
        page=info.get("descriptionurl"),
        licence=meta.get("LicenseShortName") or meta.get("License") or None,
        author=meta.get("Artist") or meta.get("Credit") or None,
    )
    side = min(int(info.get("width") or 0), int(info.get("height") or 0))
    return File(
        str(page.get("title")),
        offer,
        str(info.get("mime", "")),
        meta.get("License", "").lower(),
        side,
    )


def _without_traces(url: str) -> str:
    """An address without what only says where it was read: it would change with every way to it."""
    parts = urlsplit(url)
    query = [
        (name, value)
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
        if not name.startswith("utm_")
    ]
    return urlunsplit(parts._replace(query=urlencode(query)))


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._silent += tag in ("style", "script")
        if tag in ("br", "p", "div", "li", "tr", "td", "th", "dd", "dt"):
            self.pieces.append(" ")

    def handle_endtag(self, tag: str) -> None:
        self._silent -= tag in ("style", "script") and self._silent > 0

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.pieces.append(data)


def plain_text(markup: str) -> str:
    """HTML as text in one line: authors come as links, lists and tables."""
    if "<" not in markup:
        return " ".join(html.unescape(markup).split())
    parser = _Text()
    parser.feed(markup)
    parser.close()
    return " ".join("".join(parser.pieces).split())
