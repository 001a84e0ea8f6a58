"""What a site allows: robots.txt (RFC 9309), X-Robots-Tag, and the reservation of text and data
mining (TDMRep).

Pure functions of what a server sent. A refusal comes with its evidence in words, which is kept in
the image's row.
"""

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import urlsplit

from protego import Protego

from stages.crawl.web.site_files import Reservation, is_reserved, spelled, ways_to

_REFUSING = {"noai", "noimageai", "noindex", "noimageindex", "none"}
_WITH_VALUES = {"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"}
"""Rules of X-Robots-Tag that have a colon of their own; any other word before a colon names a
crawler.
"""
_PARSED_CHARACTERS = 4 * 2**20
"""Of all robots.txt that are kept ready to be asked."""


_MOST_STEPS = 20_000_000
"""Wildcards times characters of an address. More would take longer than a tenth of a second, and
honest sites stay far below.
"""


@dataclass(frozen=True)
class SitePolicy:
    """What a site said. `robots`: what its robots.txt says to us (`read_robots`), "" for nothing,
    None where it could not be had.

    `tdmrep`: the entries of its /.well-known/tdmrep.json. `unclear`: why one of the two cannot be
    understood, in words, which forbids everything. `lasts`: seconds for which this holds. Where
    robots is None, `reason` is the code of a row (dns, connect, ..., or robots for a fault of the
    server), `why` says it in words, and `passing` is true where asking again later may help.
    """

    robots: str | None
    tdmrep: tuple[Reservation, ...]
    lasts: float
    reason: str = "robots"
    why: str = ""
    unclear_robots: str = ""
    unclear_tdmrep: str = ""
    passing: bool = False

    @cached_property
    def plain(self) -> dict[str, int]:
        """The entries of tdmrep.json that are prefixes: where each comes first."""
        found: dict[str, int] = {}
        for at, entry in enumerate(self.tdmrep):
            if len(entry.pieces) == 1 and not entry.to_the_end:
                found.setdefault(entry.pieces[0], at)
        return found

    @cached_property
    def patterns(self) -> tuple[int, ...]:
        """Where the other entries are."""
        return tuple(
            at for at, entry in enumerate(self.tdmrep) if len(entry.pieces) > 1 or entry.to_the_end
        )

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        return tuple({len(prefix) for prefix in self.plain})

    def reservation(self, where: str) -> Reservation | None:
        """The first entry that holds for a path with its query. Looks prefixes up, for there may be
        thousands.
        """
        hits = [
            self.plain[where[:length]] for length in self.lengths if where[:length] in self.plain
        ]
        first = min(hits, default=len(self.tdmrep))
        at = next(
            (at for at in self.patterns if at > first or self.tdmrep[at].holds_for(where)), first
        )
        at = min(at, first)
        return self.tdmrep[at] if at < len(self.tdmrep) else None

    @property
    def weight(self) -> int:
        """About how many bytes it takes."""
        return (
            500
            + len(self.robots or "")
            + sum(300 + 2 * len(entry.location) for entry in self.tdmrep)
        )


def robots_verdict(policy: SitePolicy, agent: str, address: str) -> str | None:
    """Why robots.txt forbids an address to the crawler `agent` (its product token); None if it does
    not.

    A site whose robots.txt cannot be had for a fault of its own is taken to forbid everything (RFC
    9309, section 2.3.1.4), and so is one whose robots.txt makes no sense.
    """
    if policy.robots is None:
        return f"robots.txt cannot be had: {policy.why}"
    if policy.unclear_robots:
        return f"robots.txt cannot be understood: {policy.unclear_robots}"
    if not policy.robots:
        return None
    if policy.robots.count("*") * len(address) > _MOST_STEPS:
        return "robots.txt has too many wildcards for an address of this length"
    rules = _parsed(policy.robots)
    allowed = all(rules.can_fetch(way, agent) for way in ways_to(address))
    return None if allowed else f"robots.txt disallows {urlsplit(address).path or '/'}"


def crawl_delay(policy: SitePolicy, agent: str) -> float | None:
    """Seconds between two requests that robots.txt asks for: Crawl-delay, or the inverse of
    Request-rate.
    """
    if not policy.robots:
        return None
    rules = _parsed(policy.robots)
    delay = rules.crawl_delay(agent)
    rate = rules.request_rate(agent)
    delays = [float(delay)] if delay is not None else []
    if rate is not None and rate.requests:
        try:
            delays.append(rate.seconds / rate.requests)
        except OverflowError:  # numbers of any length may stand there
            delays.append(float("inf"))
    return max(delays, default=None)


def tdm_verdict(policy: SitePolicy, address: str) -> str | None:
    """Why /.well-known/tdmrep.json reserves an address; the first entry whose location matches
    decides (TDMRep, section 6).
    """
    if policy.unclear_tdmrep:
        return f"tdmrep.json cannot be understood: {policy.unclear_tdmrep}"
    if len(policy.patterns) * len(address) > _MOST_STEPS:
        return "tdmrep.json has too many wildcards for an address of this length"
    for way in ways_to(address) if policy.tdmrep else ():
        parts = urlsplit(way)
        where = spelled(parts.path + (f"?{parts.query}" if parts.query else ""))
        entry = policy.reservation(where)
        if entry is not None and entry.reserved:
            return f"tdmrep.json reserves {entry.location}"
    return None


def header_verdict(headers: Iterable[tuple[str, str]], agent: str) -> str | None:
    """Why the headers of an answer opt the image out; None if they do not. Rules for other
    crawlers do not count.
    """
    for name, value in headers:
        low = name.lower()
        if low == "tdm-reservation" and is_reserved(value):
            return "header tdm-reservation: 1"
        if low == "x-robots-tag":
            refused = _robots_tag(value, agent)
            if refused:
                return f"header X-Robots-Tag: {refused}"
    return None


def _robots_tag(value: str, agent: str) -> str | None:
    mine = True
    for rule in value.lower().replace(";", ",").split(","):
        name, colon, rest = (part.strip() for part in rule.partition(":"))
        if colon and name not in _WITH_VALUES:
            # A crawler's name holds for all rules up to the next name.
            mine, name = name.partition("/")[0].strip() in (agent.lower(), "*"), rest
        if mine and name in _REFUSING:
            return name
    return None


class _Ready:
    """Parsers of the rules that were asked for last."""

    def __init__(self) -> None:
        self._parsers: dict[str, Protego] = {}
        self._characters = 0
        self._lock = threading.Lock()

    def __call__(self, robots: str) -> Protego:
        with self._lock:
            found = self._parsers.pop(robots, None)
            if found is None:
                found = Protego.parse(robots)
                self._characters += len(robots)
            self._parsers[robots] = found
            while self._characters > _PARSED_CHARACTERS and len(self._parsers) > 1:
                oldest = next(iter(self._parsers))
                del self._parsers[oldest]
                self._characters -= len(oldest)
            return found


_parsed = _Ready()
