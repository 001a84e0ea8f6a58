"""A small Wikidata and Commons on 127.0.0.1, and a small Openverse: answers in the shape that the
services document.

MediaWiki: action API with formatversion=2 (API:Query, API:Continue, API:Categorymembers,
API:Search, API:Imageinfo, wbgetentities, Manual:Maxlag parameter). Openverse: `/v1/images/`
(result_count, page_count, page, results, rate limits).
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from stages.crawl.service import Asking
from stages.crawl.web.params import WebParams
from tests.stages.crawl.web.servers import Site, serving

Troubles = list[Callable[[], web.Response]]


class Clock:
    """Time that passes only by sleeping, and how long somebody slept."""

    def __init__(self) -> None:
        self.at = 1_000_000.0
        self.slept = 0.0

    def __call__(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.at += seconds
        self.slept += seconds


class Kept:
    """A shelf in memory."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.texts: dict[str, tuple[float, str]] = {}

    def get(self, key: str) -> tuple[float, str] | None:
        return self.texts.get(key)

    def put(self, key: str, text: str) -> None:
        self.texts[key] = self.clock(), text

    def flush(self) -> None:
        return None


@dataclass
class Service:
    """A service behind a site. `asked` holds the query of every request, `troubles` what is said
    instead, in order.
    """

    site: Site
    clock: Clock = field(default_factory=Clock)
    asked: list[dict[str, str]] = field(default_factory=list)
    agents: set[str] = field(default_factory=set)
    troubles: Troubles = field(default_factory=list)
    stop_after: int | None = None

    def asking(self, **changes: Any) -> Asking:
        """What the pipeline would give a source, in this service's time."""
        params: dict[str, Any] = {
            "allow_hosts": ["*.test"],
            "resolve": {"*.test": "127.0.0.1"},
            "contact": "mailto:me@example.org",
            "politeness": {"rate": None, "concurrency": 2},
        }
        params |= changes.pop("params", {})
        facts = {
            "shelf": Kept(self.clock),
            "clock": self.clock,
            "now": self.clock,
            "sleep": self.clock.sleep,
            "stopped": self.stopped,
        }
        return Asking(params=WebParams.model_validate(params), **{**facts, **changes})

    def stopped(self) -> bool:
        return self.stop_after is not None and len(self.asked) >= self.stop_after

    def trouble(self, request: web.Request) -> web.Response | None:
        self.asked.append(dict(request.query))
        self.agents.add(request.headers.get("User-Agent", ""))
        return self.troubles.pop(0)() if self.troubles else None


def said(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(
        text=json.dumps(body), status=status, content_type="application/json", headers=headers
    )


# Wikimedia


def snak(code: str, value: Any, rank: str = "normal") -> dict[str, Any]:
    """A statement of an item, with references and qualifiers left out."""
    shown = {
        "snaktype": "value",
        "property": code,
        "datavalue": {"value": value, "type": "string"},
        "datatype": "string",
    }
    return {"mainsnak": shown, "type": "statement", "id": f"Q1${code}", "rank": rank}


def item(number: str, name: str, *aliases: str, **claims: list[Any]) -> dict[str, Any]:
    """An item as `wbgetentities` gives it; claims by property."""
    return {
        "type": "item",
        "id": number,
        "labels": {"en": {"language": "en", "value": name}},
        "aliases": {"en": [{"language": "en", "value": alias} for alias in aliases]}
        if aliases
        else [],
        "claims": {
            code: [value if isinstance(value, dict) else snak(code, value) for value in values]
            for code, values in claims.items()
        },
    }


def image(title: str, number: int, **changes: Any) -> dict[str, Any]:
    """A file page as `prop=imageinfo` gives it."""
    name = title.replace(" ", "_")
    meta = {
        "Artist": '<a href="//commons.wikimedia.org/wiki/User:Zo%C3%AB" title="User:Zoë">Zoë</a> '
        '&amp; <span class="fn">others</span>',
        "License": "cc-by-sa-4.0",
        "LicenseShortName": "CC BY-SA 4.0",
    } | changes.pop("meta", {})
    info = {
        "size": 4_000_000,
        "width": 3000,
        "height": 2000,
        "mime": "image/jpeg",
        "sha1": f"{number:040x}",
        "url": f"https://upload.wikimedia.org/wikipedia/commons/0/0{number % 10}/{name}",
        "descriptionurl": f"https://commons.wikimedia.org/wiki/File:{name}",
        "extmetadata": {
            key: {"value": value, "source": "commons-desc-page"}
            for key, value in meta.items()
            if value is not None
        },
    } | changes
    return {
        "pageid": number,
        "ns": 6,
        "title": f"File:{title}",
        "imagerepository": "local",
        "imageinfo": [info],
    }


@dataclass
class Wiki(Service):
    """Items by Q-id; files by title; members of categories; files by the Q-id that they depict."""

    items: dict[str, dict[str, Any]] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    members: dict[str, list[str]] = field(default_factory=dict)
    below: dict[str, list[str]] = field(default_factory=dict)
    depicting: dict[str, list[str]] = field(default_factory=dict)
    found: dict[str, list[str]] = field(default_factory=dict)
    most: int = 2
    """Results of one answer: few, so that everything goes on."""

    def add(self, *titles: str, **changes: Any) -> list[str]:
        for title in titles:
            self.files[f"File:{title}"] = image(title, len(self.files) + 1, **changes)
        return [f"File:{title}" for title in titles]

    async def answer(self, request: web.Request) -> web.Response:
        trouble = self.trouble(request)
        if trouble is not None:
            return trouble
        query = request.query
        assert (
            query["maxlag"] == "5" and query["format"] == "json" and query["formatversion"] == "2"
        )
        if query["action"] == "wbgetentities":
            return said(self._entities(query["ids"].split("|")))
        if query.get("list") == "search":
            name = query["srsearch"].split('"')[1]
            return said(
                {
                    "batchcomplete": True,
                    "query": {
                        "search": [{"ns": 0, "title": hit} for hit in self.found.get(name, [])]
                    },
                }
            )
        if query.get("list") == "categorymembers":
            return said(
                self._part(
                    self.below.get(query["cmtitle"], []), query, "cmcontinue", self._subcategories
                )
            )
        if query.get("generator") == "categorymembers":
            return said(
                self._part(
                    self.members.get(query["gcmtitle"], []), query, "gcmcontinue", self._pages
                )
            )
        if query.get("generator") == "search":
            depicted = self.depicting.get(
                query["gsrsearch"].removeprefix("haswbstatement:P180="), []
            )
            return said(self._part(depicted, query, "gsroffset", self._pages))
        titles = query["titles"].split("|")
        assert len(titles) <= 50
        shown: dict[str, Any] = {"normalized": [], "redirects": []}
        for title in titles:
            place = title
            if "_" in place:
                shown["normalized"].append(
                    {"fromencoded": False, "from": place, "to": place.replace("_", " ")}
                )
                place = place.replace("_", " ")
            if place in self.moved:
                shown["redirects"].append({"from": place, "to": self.moved[place]})
                place = self.moved[place]
            shown.setdefault("pages", []).append(
                self.files.get(place, {"ns": 6, "title": place, "missing": True})
            )
        return said(
            {
                "batchcomplete": True,
                "query": {name: value for name, value in shown.items() if value},
            }
        )

    def _entities(self, numbers: list[str]) -> dict[str, Any]:
        assert len(numbers) <= 50
        found = {}
        for number in numbers:
            if int(number[1:]) > 2**31:
                return {
                    "error": {
                        "code": "no-such-entity",
                        "info": f'Could not find an entity with the ID "{number}".',
                        "id": number,
                    }
                }
            place = self.redirects.get(number, number)
            entity = dict(self.items.get(place, {"id": number, "missing": ""}))
            if place != number:
                entity["redirects"] = {"from": number, "to": place}
            found[place] = entity
        return {"entities": found, "success": 1}

    def _part(
        self,
        everything: list[str],
        query: Any,
        name: str,
        show: Callable[[list[str]], dict[str, Any]],
    ) -> dict[str, Any]:
        start = int(query.get(name, "0").rpartition("|")[2])
        part = everything[start : start + self.most]
        answer: dict[str, Any] = {"batchcomplete": True}
        if part:
            answer["query"] = show(part)
        if start + self.most < len(everything):
            more = f"page|{start + self.most}" if name != "gsroffset" else start + self.most
            answer["continue"] = {name: more, "continue": "gcmcontinue||"}
        return answer

    def _pages(self, titles: list[str]) -> dict[str, Any]:
        pages = [
            {**self.files.get(title, {"ns": 6, "title": title}), "index": place}
            for place, title in enumerate(titles)
        ]
        return {"pages": sorted(pages, key=lambda page: str(page["title"]), reverse=True)}

    def _subcategories(self, titles: list[str]) -> dict[str, Any]:
        return {
            "categorymembers": [
                {"pageid": 1, "ns": 14, "title": f"Category:{title}"} for title in titles
            ]
        }


@contextmanager
def wiki() -> Iterator[Wiki]:
    with serving(Site()) as site:
        found = Wiki(site)
        site.pages["/w/api.php"] = found.answer
        yield found


# Openverse


def result(number: int, **changes: Any) -> dict[str, Any]:
    """An image as the search gives it."""
    return {
        "id": f"00000000-0000-4000-8000-{number:012d}",
        "title": f"Image {number}",
        "url": f"https://live.staticflickr.com/1/{number}_b.jpg",
        "creator": "somebody",
        "creator_url": "https://www.flickr.com/photos/x",
        "license": "by-sa",
        "license_version": "2.0",
        "license_url": "https://creativecommons.org/licenses/by-sa/2.0/",
        "provider": "flickr",
        "source": "flickr",
        "mature": False,
        "width": 1024,
        "height": 683,
        "foreign_landing_url": f"https://www.flickr.com/photos/x/{number}",
        "tags": [],
        "filetype": None,
    } | changes


@dataclass
class Openverse(Service):
    """Results by the words of a query."""

    results: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    most: int = 240
    headers: dict[str, str] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)

    async def answer(self, request: web.Request) -> web.Response:
        trouble = self.trouble(request)
        if trouble is not None:
            return trouble
        self.tokens.add(request.headers.get("Authorization", ""))
        size, page = int(request.query["page_size"]), int(request.query["page"])
        if size > 20 and "Authorization" not in request.headers:
            return said({"detail": "Ensure this value is less than or equal to 20."}, 401)
        everything = self.results.get(request.query["q"], [])
        wanted = request.query["license"].split(",")
        shown = [one for one in everything if one["license"] in wanted or one["license"] is None][
            : self.most
        ]
        count = -(-len(shown) // size)
        if page > max(count, 1):
            return said({"detail": "Invalid page."}, 404)
        part = shown[(page - 1) * size : page * size]
        answer = {
            "result_count": len(shown),
            "page_count": count,
            "page_size": size,
            "page": page,
            "results": part,
            "warnings": None,
        }
        return said(answer, headers=self.headers)


@contextmanager
def openverse() -> Iterator[Openverse]:
    with serving(Site()) as site:
        found = Openverse(site)
        site.pages["/v1/images/"] = found.answer
        yield found
