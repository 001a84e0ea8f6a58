"""What a site allows: robots.txt (RFC 9309), X-Robots-Tag, and the reservation of text and data mining (TDMRep).

Pure functions of what a server sent. A refusal comes with its evidence in words, which is kept in the picture's row.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from protego import Protego

ROBOTS_BYTES = 512 * 1024
"""What of a robots.txt is read; RFC 9309, section 2.5 asks for 500 KiB at least."""

_REFUSING = {"noai", "noimageai", "noindex", "noimageindex", "none"}
_WITH_VALUES = {"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"}
"""Rules of X-Robots-Tag that have a colon of their own; any other word before a colon names a crawler."""


@dataclass(frozen=True)
class SitePolicy:
    """What a site said. `robots`: text of its robots.txt, "" where it has none, None where it could not be asked.

    `tdmrep`: text of its /.well-known/tdmrep.json, "" where it has none. `lasts`: seconds for which this holds. Where
    robots is None, `reason` is the code of a row (dns, connect, ..., or robots for a fault of the server) and `why` says it in words.
    """

    robots: str | None
    tdmrep: str
    lasts: float
    reason: str = "robots"
    why: str = ""


def robots_verdict(policy: SitePolicy, agent: str, address: str) -> str | None:
    """Why robots.txt forbids an address to the crawler `agent` (its product token); None if it does not.

    A site whose robots.txt cannot be had for a fault of its own is taken to forbid everything (RFC 9309, section 2.3.1.4).
    """
    if policy.robots is None:
        return f"robots.txt cannot be had: {policy.why}"
    if not policy.robots:
        return None
    return None if _parsed(policy.robots).can_fetch(address, agent) else f"robots.txt disallows {urlsplit(address).path or '/'}"


def crawl_delay(policy: SitePolicy, agent: str) -> float | None:
    """Seconds between two requests that robots.txt asks for: Crawl-delay, or the inverse of Request-rate."""
    if not policy.robots:
        return None
    rules = _parsed(policy.robots)
    delay = rules.crawl_delay(agent)
    rate = rules.request_rate(agent)
    delays = [float(delay)] if delay is not None else []
    if rate is not None and rate.requests:
        delays.append(rate.seconds / rate.requests)
    return max(delays, default=None)


def tdm_verdict(policy: SitePolicy, address: str) -> str | None:
    """Why /.well-known/tdmrep.json reserves an address; the first entry whose location matches decides (TDMRep, section 6)."""
    if not policy.tdmrep:
        return None
    try:
        entries = json.loads(policy.tdmrep)
    except ValueError:
        return None  # no valid statement is no statement
    parts = urlsplit(address)
    where = parts.path + (f"?{parts.query}" if parts.query else "")
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and isinstance(entry.get("location"), str) and _matches(entry["location"], where):
            return f"tdmrep.json reserves {entry['location']}" if _reserved(entry.get("tdm-reservation")) else None
    return None


def header_verdict(headers: Iterable[tuple[str, str]], agent: str) -> str | None:
    """Why the headers of an answer opt the picture out; None if they do not. Rules for other crawlers do not count."""
    for name, value in headers:
        low = name.lower()
        if low == "tdm-reservation" and _reserved(value.strip()):
            return "header tdm-reservation: 1"
        if low == "x-robots-tag":
            refused = _robots_tag(value, agent)
            if refused:
                return f"header X-Robots-Tag: {refused}"
    return None


def _robots_tag(value: str, agent: str) -> str | None:
    mine = True
    for rule in value.lower().split(","):
        name, colon, rest = (part.strip() for part in rule.partition(":"))
        if colon and name not in _WITH_VALUES:
            # A crawler's name holds for all rules up to the next name.
            mine, name = name in (agent.lower(), "*"), rest
        if mine and name in _REFUSING:
            return name
    return None


def _reserved(value: Any) -> bool:
    return value in (1, "1", True)


def _matches(pattern: str, where: str) -> bool:
    """Patterns as in robots.txt: a prefix, `*` for anything, `$` for the end."""
    end = pattern.endswith("$")
    body = ".*".join(re.escape(piece) for piece in pattern.removesuffix("$").split("*"))
    return re.match(body + ("$" if end else ""), where, re.DOTALL) is not None


@lru_cache(maxsize=1024)
def _parsed(robots: str) -> Protego:
    return Protego.parse(robots)
