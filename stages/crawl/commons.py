"""Wikimedia Commons: files of people, found over Wikidata.

Wikidata (`wbgetentities`) knows a person's names, images (P18) and Commons category (P373);
Commons knows the members of the category, the files that say that they depict the person (P180, by
search), and of each file its address, licence and author (`imageinfo` with `extmetadata`). Asked as
Wikimedia wishes: with a contact in the User-Agent, maxlag, fifty titles a question, gzip, pauses as
told, and never more at a time than `fetch.politeness` allows.
"""

import asyncio
import re
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from schemas.fetched import Fetched
from stages.crawl.commons_answers import File, Item, file_of, item_of
from stages.crawl.listing import Listed, Offer
from stages.crawl.names import Person, check_names, read_names
from stages.crawl.service import Asking, PersonFound, Take, check_contact, list_people
from stages.crawl.web.api import ApiClient, ApiError
from stages.crawl.web.gate import LocalGate

MAXLAG = 5
"""Seconds that a database may be behind before questions are to wait (Manual:Maxlag parameter)."""
TITLES = 50
"""Titles of one question, for whoever has no bot's rights."""
CATEGORIES = 200
"""Categories of one person that are looked into."""
PICTURES = (
    "image/jpeg",
    "image/png",
    "image/webp",
    "image/gif",
    "image/tiff",
    "image/bmp",
    "image/x-ms-bmp",
)

_LOWER_LAG = ("maxlag", "ratelimited", "readonly")
# fmt: off
_FACTS: dict[str, str | int] = {
    "prop": "imageinfo", "iiprop": "url|size|mime|sha1|extmetadata", "iiextmetadatalanguage": "en",
    "iiextmetadatafilter": "LicenseShortName|License|Artist|Credit",
}
# fmt: on


@dataclass(frozen=True)
class CommonsSettings:
    """What decides which files are offered; see `pipeline.sources.CommonsConfig`."""

    by: tuple[str, ...] = ("image", "category", "depicts")
    per_person: int = 500
    depth: int = 1
    licences: tuple[str, ...] = ()
    min_side: int = 0
    languages: tuple[str, ...] = ("en",)
    api: str = "https://commons.wikimedia.org/w/api.php"
    wikidata: str = "https://www.wikidata.org/w/api.php"


class CommonsSource:
    """Files of the people in a list. Addresses are those of the originals; a new version of a file
    has another fingerprint.
    """

    web = True

    def __init__(
        self,
        path: Path,
        name: str = "commons",
        settings: CommonsSettings | None = None,
        columns: Mapping[str, str] | None = None,
        relist_days: float = 1.0,
        asking: Asking | None = None,
    ) -> None:
        self.path, self.name, self.settings = path, name, settings or CommonsSettings()
        self.columns, self.relist_days, self.asking = (
            dict(columns or {}),
            relist_days,
            asking or Asking(),
        )

    def check(self) -> None:
        check_names(self.name, self.path, self.columns)
        check_contact(self.name, self.asking.params, self.settings.api, self.settings.wikidata)

    def people(self) -> tuple[list[Listed], list[str]]:
        self.check()
        names, remarks = read_names(self.name, self.path, self.columns)

        def client() -> ApiClient:
            asking = self.asking
            gate = LocalGate(asking.params.politeness, asking.clock)
            return ApiClient(
                asking.params,
                gate,
                wants_pause=_busy,
                stopped=asking.stopped,
                sleep=asking.sleep,
                clock=asking.clock,
            )

        async def ask(asked: ApiClient, batch: Sequence[Person], take: Take) -> None:
            await _Listing(asked, self.settings).about(batch, take)

        listed, more = list_people(
            self.name, names, self.settings, self.asking, self.relist_days, ask, client
        )
        return listed, remarks + more

    def fetch(self, addresses: Sequence[str]) -> list[Fetched]:
        raise NotImplementedError("web addresses are fetched by the pipeline")


class _Listing:
    """Asks about some people. One for each batch."""

    def __init__(self, client: ApiClient, settings: CommonsSettings) -> None:
        self.client, self.settings = client, settings

    async def about(self, batch: Sequence[Person], take: Take) -> None:
        """Give every person of the batch to `take`, each as soon as it is known."""
        numbers, notes = await self._numbers(
            [person for person in batch if person.wikidata is None]
        )
        by_number = {
            number: person for person in batch if (number := person.wikidata or numbers.get(person))
        }
        items = await self._items(list(by_number))
        for person in batch:
            if person in notes:
                # Not that there is nothing of the person: somebody has to say who it is.
                take(person, PersonFound(person.name, note=notes[person], complete=False))
        images = (
            await self._images([title for item in items.values() for title in item.images])
            if "image" in self.settings.by
            else {}
        )

        async def one(number: str, person: Person) -> None:
            item = items.get(number)
            if item is None:
                take(
                    person,
                    PersonFound(
                        person.name,
                        note=f"{person.name}: Wikidata has no item {number}",
                        complete=False,
                    ),
                )
                return
            take(
                person,
                await self._files(
                    number, item, [images[title] for title in item.images if title in images]
                ),
            )

        lanes = asyncio.Semaphore(self.client.params.politeness.concurrency)

        async def lane(number: str, person: Person) -> None:
            async with lanes:
                await one(number, person)

        tasks = [asyncio.create_task(lane(number, person)) for number, person in by_number.items()]
        try:
            # The first that cannot be asked ends it for all: a group would wrap its error.
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # Who is meant

    async def _numbers(
        self, people: Iterable[Person]
    ) -> tuple[dict[Person, str], dict[Person, str]]:
        """Q-ids of people who are known by name, where a human of exactly that name is the only
        one; else what to say.
        """
        numbers: dict[Person, str] = {}
        notes: dict[Person, str] = {}
        for person in people:
            try:
                items = await self._items(await self._humans(person.name))
            except ApiError as error:
                if error.lasting:
                    raise
                notes[person] = f"{person.name}: {error}"
                continue
            wanted = _folded(person.name)
            exact = [
                number
                for number, item in items.items()
                if wanted in map(_folded, (item.name, *item.aliases))
            ]
            if len(exact) == 1:
                numbers[person] = exact[0]
            elif exact:
                notes[person] = (
                    f"{person.name} may be {', '.join(exact)}: put the Q-id that is meant into "
                    "column wikidata of the list"
                )
            else:
                notes[person] = (
                    f"{person.name}: Wikidata knows no human of this name; put a Q-id into "
                    "column wikidata of the list"
                )
        return numbers, notes

    async def _humans(self, name: str) -> list[str]:
        """Q-ids of humans whom a search for a name finds."""
        phrase = re.sub(r'["\\]', " ", name)
        query: dict[str, str | int] = {
            "list": "search",
            "srsearch": f'"{phrase}" haswbstatement:P31=Q5',
            "srlimit": 10,
            "srprop": "",
        }
        answer = await self._ask(self.settings.wikidata, {"action": "query", **query})
        titles = [str(hit.get("title")) for hit in answer.get("query", {}).get("search", [])]
        return [title for title in titles if re.fullmatch(r"Q\d+", title)]

    async def _items(self, numbers: Sequence[str]) -> dict[str, Item]:
        """Items by the Q-id that was asked for, which may lead on to another. Without those that
        are not there.
        """
        found: dict[str, Item] = {}
        for start in range(0, len(numbers), TITLES):
            for entity in await self._entities(numbers[start : start + TITLES]):
                asked = (entity.get("redirects") or {}).get("from") or entity.get("id")
                if "missing" not in entity and asked:
                    found[asked] = item_of(entity, self.settings.languages)
        return found

    async def _entities(self, numbers: Sequence[str]) -> list[Mapping[str, Any]]:
        query = {
            "ids": "|".join(numbers),
            "props": "labels|aliases|claims",
            "languages": "|".join(self.settings.languages),
        }
        try:
            answer = await self._ask(
                self.settings.wikidata, {"action": "wbgetentities", "redirects": "yes", **query}
            )
        except ApiError as error:
            # One number that cannot be refuses the question for all.
            if error.lasting or error.answer is None:
                raise
            if len(numbers) == 1:
                return []
            half = len(numbers) // 2
            return [*await self._entities(numbers[:half]), *await self._entities(numbers[half:])]
        entities = answer.get("entities")
        return list(entities.values()) if isinstance(entities, dict) else []

    # Files

    async def _images(self, titles: Sequence[str]) -> dict[str, File]:
        """Files by the title that was asked for."""
        found: dict[str, File] = {}
        for start in range(0, len(titles), TITLES):
            some = titles[start : start + TITLES]
            async for files, moved in self._query(
                {"titles": "|".join(some), "redirects": 1, **_FACTS}
            ):
                by_title = {file.title: file for file in files}
                for title in some:
                    place = title
                    for _ in range(3):  # a title may be spelt otherwise, and then lead on
                        place = moved.get(place, place)
                    if place in by_title:
                        found[title] = by_title[place]
        return found

    async def _files(self, number: str, item: Item, images: Sequence[File]) -> PersonFound:
        """The person with as many files as are wanted and there are."""
        found = PersonFound(
            item.name, aliases=item.aliases, external_ids={**item.external_ids, "wikidata": number}
        )
        taken: dict[str, Offer] = {}
        seen: set[str] = set()
        for way in self.settings.by:
            try:
                async for files in self._by(way, number, item, images):
                    for file in files:
                        if len(taken) < self.settings.per_person and file.title not in seen:
                            seen.add(file.title)
                            self._choose(file, taken, found.left_out)
                    if len(taken) >= self.settings.per_person:
                        break
            except ApiError as error:
                if error.lasting:
                    raise
                found.complete, found.note = False, f"{item.name} ({number}): {error}"
            if len(taken) >= self.settings.per_person:
                break
        found.offers = list(taken.values())
        return found

    def _by(
        self, way: str, number: str, item: Item, images: Sequence[File]
    ) -> AsyncIterator[Sequence[File]]:
        if way == "image":
            return _known(images)
        return self._category(item.category) if way == "category" else self._depicting(number)

    def _choose(self, file: File, taken: dict[str, Offer], left_out: Counter[str]) -> None:
        settings = self.settings
        if file.mime not in PICTURES:
            left_out["no images by their type"] += 1
        elif settings.licences and not any(
            fnmatchcase(file.code, pattern.lower()) for pattern in settings.licences
        ):
            left_out["not under one of source.licences"] += 1
        elif file.side < settings.min_side:
            left_out[f"less than {settings.min_side} pixels on a side"] += 1
        else:
            taken.setdefault(file.offer.address, file.offer)

    async def _category(self, name: str | None) -> AsyncIterator[Sequence[File]]:
        """The files of a category and, level by level, of those below it."""
        if name is None:
            return
        level, seen = deque([(name, 0)]), {name}
        while level:
            title, depth = level.popleft()
            # Oldest members first, so that new ones do not push others out of what is wanted.
            order: dict[str, str | int] = {
                "gcmsort": "timestamp",
                "gcmdir": "asc",
                "gcmtype": "file",
                "gcmlimit": TITLES,
            }
            async for files, _ in self._query(
                {"generator": "categorymembers", "gcmtitle": f"Category:{title}", **order, **_FACTS}
            ):
                yield files
            if depth >= self.settings.depth or len(seen) >= CATEGORIES:
                continue
            query: dict[str, str | int] = {
                "list": "categorymembers",
                "cmtitle": f"Category:{title}",
                "cmtype": "subcat",
                "cmlimit": 500,
            }
            async for answer in self._pages({"action": "query", **query}):
                for member in answer.get("query", {}).get("categorymembers", []):
                    below = str(member.get("title", "")).partition(":")[2]
                    if below and below not in seen and len(seen) < CATEGORIES:
                        seen.add(below)
                        level.append((below, depth + 1))

    async def _depicting(self, number: str) -> AsyncIterator[Sequence[File]]:
        """The files whose structured data say that they depict the person."""
        search: dict[str, str | int] = {
            "generator": "search",
            "gsrsearch": f"haswbstatement:P180={number}",
            "gsrnamespace": 6,
            "gsrlimit": TITLES,
            "gsrsort": "create_timestamp_asc",
        }
        async for files, _ in self._query({**search, **_FACTS}):
            yield files

    async def _query(
        self, query: Mapping[str, str | int]
    ) -> AsyncIterator[tuple[list[File], dict[str, str]]]:
        """The files of each answer, and which titles lead to which others."""
        partial: dict[str, dict[str, Any]] = {}
        async for answer in self._pages({"action": "query", **query}):
            said = answer.get("query", {})
            for page in said.get("pages", []):
                # What one answer says of a page may go on in the next.
                before = partial.setdefault(str(page.get("title")), {})
                before.update(
                    {
                        name: value
                        for name, value in page.items()
                        if name not in before or name != "imageinfo"
                    }
                )
            if "continue" in answer and not answer.get("batchcomplete"):
                continue
            moved = {
                str(one["from"]): str(one["to"])
                for name in ("normalized", "redirects")
                for one in said.get(name, [])
            }
            pages = sorted(
                partial.values(), key=lambda page: (page.get("index", 0), page.get("pageid", 0))
            )
            partial = {}
            yield [file for page in pages if (file := file_of(page)) is not None], moved

    async def _pages(self, query: Mapping[str, str | int]) -> AsyncIterator[dict[str, Any]]:
        """The answers to a question, as far as it goes on."""
        more: dict[str, str | int] = {}
        while True:
            answer = await self._ask(self.settings.api, {**query, **more})
            yield answer
            following = answer.get("continue")
            if not isinstance(following, dict) or following == more:
                return
            more = following

    async def _ask(self, api: str, query: Mapping[str, str | int]) -> dict[str, Any]:
        answer = await self.client.get(
            api, {"format": "json", "formatversion": 2, "maxlag": MAXLAG, **query}
        )
        body = answer.body
        if not isinstance(body, dict):
            raise ApiError(f"{urlsplit(api).hostname}: an answer that is no object")
        if "error" in body:
            raise ApiError(f"{urlsplit(api).hostname}: {_words(body['error'])}", answer=body)
        return body


async def _known(files: Sequence[File]) -> AsyncIterator[Sequence[File]]:
    yield files


def _busy(body: Any) -> str | None:
    error = body.get("error") if isinstance(body, dict) else None
    return _words(error) if isinstance(error, dict) and error.get("code") in _LOWER_LAG else None


def _words(error: Any) -> str:
    return (
        f"{error.get('code')}: {str(error.get('info', ''))[:200]}"
        if isinstance(error, dict)
        else str(error)[:200]
    )


def _folded(name: str) -> str:
    return " ".join(name.casefold().split())
