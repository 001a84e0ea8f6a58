"""What a site's files say to this crawler, read once a site: robots.txt (RFC 9309) and tdmrep.json
(TDMRep, section 6).

Strangers write these files, so sizes, depths and numbers of rules have limits, and nothing in them
becomes a regular expression. They are read as their authors meant them: with a byte order mark,
with our name beside a version, with directives that are spelled a little otherwise. In doubt the
answer is no: so it is for a file that cannot be understood.
"""

import codecs
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

FILE_BYTES = 512 * 1024
"""What of a file is read; RFC 9309, section 2.5 asks for 500 KiB at least."""
MOST_RULES = 50_000
"""Rules for this crawler; what fits into a file of that size and says something stays below."""
MOST_PATTERNS = 20_000
"""Of these, rules with wildcards: each is tried on every address."""

# fmt: off
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE,
        "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# fmt: on
# fmt: off
_DIRECTIVES = {
    **dict.fromkeys(("disallow", "dissallow", "dissalow", "disalow", "diasllow", "disallaw"),
        "Disallow"),
    "allow": "Allow", "useragent": "User-agent", "crawldelay": "Crawl-delay",
    "requestrate": "Request-rate",
    **dict.fromkeys(("sitemap", "sitemaps", "host", "visittime"), ""),
}
# fmt: on
"""Names without blanks and hyphens, and how they are written here; "" for those that are understood
and say nothing.
"""
_JOINED = re.compile(r"\s(?=(?:user-agent|disallow|allow):)", re.IGNORECASE)
"""Between two directives that stand in one line."""
_FIELD = re.compile(r"[A-Za-z][A-Za-z _-]{0,39}:")
_WORDS = re.compile(r"[a-z0-9_-]+")
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_SAFE = "!\"#$%&'()*+,/:;<=>?@[\\]^`{|}~"
_DOTS = re.compile(r"%2[eE]")
_RESERVED = {"0": False, "": False, "false": False, "none": False}
"""What a reservation that is none is written as; anything else reserves."""


class NotUnderstood(ValueError):
    """A site's file that is there and makes no sense; the message says why."""


@dataclass(frozen=True)
class Reservation:
    """An entry of tdmrep.json: which paths it holds for, and whether they are reserved."""

    location: str
    reserved: bool
    pieces: tuple[str, ...]
    """The location between its wildcards, escapes in one spelling."""
    to_the_end: bool

    @staticmethod
    def of(location: str, reserved: bool) -> "Reservation":
        pattern = spelled(_rooted(location))
        to_the_end = pattern.endswith("$")
        bare = (
            pattern.removesuffix("$") if to_the_end else pattern.rstrip("*")
        )  # a prefix matches whatever follows
        return Reservation(location[:200], reserved, tuple(bare.split("*")), to_the_end)

    def holds_for(self, where: str) -> bool:
        """Whether a path with its query is meant: a prefix, `*` for anything, `$` for the end.
        Takes time by lengths alone.
        """
        first, *others = self.pieces
        if not where.startswith(first):
            return False
        at = len(first)
        if not others:
            return not self.to_the_end or at == len(where)
        for piece in others[:-1]:
            found = where.find(piece, at)
            if found < 0:
                return False
            at = found + len(piece)
        last = others[-1]
        if self.to_the_end:
            return len(where) - len(last) >= at and where.endswith(last)
        return where.find(last, at) >= 0


def text_of(data: bytes) -> str:
    """A file as text, by its byte order mark or the zeros in it; else UTF-8, with a sign for what
    is none. Raises NotUnderstood.
    """
    for mark, name in _MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(name, "replace").replace("\ufeff", "")
    if b"\0" in data:
        even, odd = data[::2].count(0), data[1::2].count(0)
        name = "utf-16-be" if even > 9 * odd else "utf-16-le" if odd > 9 * even else ""
        if not name or max(even, odd) < len(data) // 4:
            raise NotUnderstood("it has zero bytes and is no text")
        return data.decode(name, "replace")
    return data.decode("utf-8", "replace").replace("\ufeff", "")


def spelled(text: str) -> str:
    """A path or a pattern with its escapes in one spelling (RFC 3986, section 6.2.2)."""
    return _ESCAPE.sub(_spelled_escape, quote(text, safe=_SAFE, errors="replace"))


def _spelled_escape(found: re.Match[str]) -> str:
    sign = chr(int(found[0][1:], 16))
    return sign if sign in _UNRESERVED else found[0].upper()


def ways_to(address: str) -> list[str]:
    """The address and what a server may take it for: dot segments resolved, slashes in a row as
    one.
    """
    parts = urlsplit(address)
    path = parts.path or "/"
    kept: list[str] = []
    for segment in _DOTS.sub(".", path).split("/"):
        if segment == "..":
            kept[-1:] = []
        elif segment not in (".", ""):
            kept.append(segment)
    ends = "/" if kept and path.endswith(("/", "/.", "/..")) else ""
    resolved = f"/{'/'.join(kept)}{ends}"
    query = f"?{parts.query}" if parts.query else ""
    return [
        f"{parts.scheme}://{parts.netloc}{way}{query}" for way in dict.fromkeys((path, resolved))
    ]


# robots.txt


def read_robots(data: bytes, agent: str) -> str:
    """What a robots.txt says to the crawler `agent` (its product token), as a robots.txt of one
    group, "" for nothing.

    Raises NotUnderstood.
    """
    text = text_of(data)
    if len(data) >= FILE_BYTES:
        text = (
            text[: max(text.rfind("\n"), text.rfind("\r")) + 1] or text
        )  # the last line may be cut
    ours: dict[str, None] = {}
    everybodys: dict[str, None] = {}
    named, meant, naming, understood = False, everybodys, False, False
    into: list[dict[str, None]] = [everybodys]  # rules before any name are for everybody
    for line in _lines(text):
        name, value = _directive(line)
        understood = understood or name is not None or _FIELD.match(line) is not None
        if name == "User-agent":
            if not naming:
                into, naming = [], True
            whom = _whom(value, agent)
            if whom is not None:
                named = named or whom
                meant = ours if whom else everybodys
                into = into if any(meant is one for one in into) else [*into, meant]
        elif name:  # neither what holds for the site nor what is not known ends a group's names
            naming = False
            for rules in into if value else ():
                rules[f"{name}: {_rooted(value) if name == 'Disallow' else value}"] = None
    if not understood and text.strip() and not text.lstrip().startswith("<") and any(_lines(text)):
        raise NotUnderstood("no line of it is a rule")
    rules = ours if named else everybodys
    wild = sum("*" in rule or "$" in rule for rule in rules)
    if len(rules) > MOST_RULES or wild > MOST_PATTERNS:
        raise NotUnderstood(
            "it has more than "
            f"{MOST_RULES if len(rules) > MOST_RULES else f'{MOST_PATTERNS} wildcard'} rules"
        )
    return "\n".join(["User-agent: *", *rules]) if rules else ""


def _lines(text: str) -> Iterator[str]:
    for line in text.splitlines():
        for part in _JOINED.split(line.partition("#")[0]):
            if bare := part.strip():
                yield bare


def _directive(line: str) -> tuple[str | None, str]:
    """Name and value of a line; None where its name is none that is known. The colon may be
    missing.
    """
    head, colon, value = line.partition(":")
    if colon:
        name = _DIRECTIVES.get(_bare(head))
        if name is not None:
            return name, value.strip()
    words = line.split(None, 2)
    for count in (1, 2):
        name = _DIRECTIVES.get(_bare("".join(words[:count])))
        if name is not None and len(words) > count:
            return name, line.split(None, count)[count]
    return None, ""


def _bare(name: str) -> str:
    return "".join(sign for sign in name[:40].casefold() if sign.isalpha())


def _whom(value: str, agent: str) -> bool | None:
    """Whom a group is for: True: us by name, False: everybody, None: others. A version, or a name
    among others, is no matter.
    """
    said = value.casefold()
    if not said or (said.startswith("*") and not said[1:2].isalnum()):
        return False
    us = agent.casefold()
    named = any(
        word.startswith(us) and not word[len(us) :].strip("-_v0123456789")
        for word in _WORDS.findall(said)
    )
    return True if named else None


def _rooted(pattern: str) -> str:
    """A pattern from the root on: some are written without the first slash, some as whole
    addresses, some with dot segments.
    """
    if pattern.lower().startswith(("http://", "https://")):
        pattern = "/" + pattern.partition("://")[2].partition("/")[2]
    while pattern.startswith("./"):
        pattern = pattern[2:]
    if not pattern.startswith(("/", "*", "$")):
        pattern = f"/{pattern}"
    if "/." not in pattern:
        return pattern
    kept: list[str] = []
    *segments, last = pattern.split("/")
    for segment in segments:
        if segment == "..":
            kept[1:] = kept[1:-1]
        elif segment != ".":
            kept.append(segment)
    if last in (".", ".."):
        kept, last = (kept[:1] + kept[1:-1] if last == ".." else kept), ""
    return "/".join([*kept, last])


# tdmrep.json


def read_tdmrep(data: bytes) -> tuple[Reservation, ...]:
    """The entries of a tdmrep.json, in their order. Raises NotUnderstood."""
    text = text_of(data).strip()
    if not text or text.startswith("<"):
        return ()  # a page that says that there is no such file
    if len(data) >= FILE_BYTES:
        raise NotUnderstood(f"it is longer than {FILE_BYTES} bytes")
    try:
        said = json.loads(text)
    except RecursionError:
        raise NotUnderstood("it is nested too deeply") from None
    except ValueError as error:
        raise NotUnderstood(f"it is no JSON: {error}"[:200]) from None
    entries = [Reservation.of(location, reserved) for location, reserved in _entries(said)]
    if sum(len(entry.pieces) > 1 for entry in entries) > MOST_PATTERNS:
        raise NotUnderstood(f"it has more than {MOST_PATTERNS} wildcard rules")
    return tuple(entries)


def _entries(said: Any) -> Iterable[tuple[str, bool]]:
    if isinstance(said, dict) and said and not said.keys() & {"location", "tdm-reservation"}:
        raise NotUnderstood("it is no list of reservations")
    for entry in (
        [said]
        if isinstance(said, dict) and said
        else said
        if isinstance(said, list)
        else [said]
        if said
        else []
    ):
        if not isinstance(entry, dict):
            raise NotUnderstood("an entry of it is no object")
        location, reserved = entry.get("location"), is_reserved(entry.get("tdm-reservation"))
        if isinstance(location, str):
            yield location, reserved
        elif reserved:
            raise NotUnderstood("an entry of it reserves a location that is no text")


def is_reserved(value: Any) -> bool:
    """Whether a value of tdm-reservation reserves; the standard knows 1 and 0."""
    if value is None or isinstance(value, bool | int | float):
        return bool(value)
    return _RESERVED.get(str(value).strip().casefold()[:10], True)
