"""Openverse: openly licensed images that a search for people's names finds.

`GET /v1/images/`: at most 20 results a page and 240 in all for whoever has no token; answers say in
headers what is left of the minute's and the day's questions. Its terms forbid to copy the
catalogue: this is for lists of people, not for all of it. A search knows names, not people: what it
finds is cleaned like any other crawl.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.fetched import Fetched
from stages.crawl.listing import Listed, Offer, SourceError
from stages.crawl.names import Person, check_names, read_names
from stages.crawl.service import Asking, PersonFound, Take, check_contact, list_people
from stages.crawl.web.address import BadAddress, canonical
from stages.crawl.web.api import ApiClient, ApiError
from stages.crawl.web.gate import LocalGate
from stages.crawl.web.params import Politeness

PAGE, PAGE_WITH_TOKEN = 20, 50
ANONYMOUS_RATE = 1 / 3
"""Questions a second without a token: 20 a minute."""
_QUERY = 200
"""Characters of a query that are looked at."""
_WINDOWS = {
    "s": 1,
    "sec": 1,
    "second": 1,
    "m": 60,
    "min": 60,
    "minute": 60,
    "h": 3600,
    "hour": 3600,
    "d": 86_400,
    "day": 86_400,
}


@dataclass(frozen=True)
class OpenverseSettings:
    """What decides which images are offered; see `pipeline.sources.OpenverseConfig`."""

    per_person: int = 240
    licences: tuple[str, ...] = ("by", "by-sa", "cc0", "pdm")
    sources: tuple[str, ...] = ()
    aliases: bool = False
    exact: bool = True
    min_side: int = 0
    api: str = "https://api.openverse.org/v1/images/"


class OpenverseSource:
    """Images of the people in a list. `token`: an access token; `token_env`: the variable that
    should have held it.
    """

    web = True

    def __init__(
        self,
        path: Path,
        name: str = "openverse",
        settings: OpenverseSettings | None = None,
        columns: Mapping[str, str] | None = None,
        relist_days: float = 1.0,
        token: str | None = None,
        token_env: str | None = None,
        asking: Asking | None = None,
    ) -> None:
        self.path, self.name, self.settings = path, name, settings or OpenverseSettings()
        self.columns, self.relist_days, self.asking = (
            dict(columns or {}),
            relist_days,
            asking or Asking(),
        )
        self.token, self.token_env = token, token_env

    def check(self) -> None:
        check_names(self.name, self.path, self.columns)
        check_contact(self.name, self.asking.params, self.settings.api)
        if self.token_env and not self.token:
            raise SourceError(
                f"source {self.name!r}: the environment variable {self.token_env}, which "
                "source.token_env names, is not set; set it to an"
                " access token of Openverse, or leave token_env out to ask without one"
            )

    def people(self) -> tuple[list[Listed], list[str]]:
        self.check()
        names, remarks = read_names(self.name, self.path, self.columns)
        asking = self.asking

        def client() -> ApiClient:
            polite = asking.params.politeness
            if not self.token and polite.rate is not None:
                polite = Politeness(
                    **{
                        **polite.model_dump(),
                        "rate": min(polite.rate, ANONYMOUS_RATE),
                        "concurrency": 1,
                    }
                )
            headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
            gate = LocalGate(polite, asking.clock)
            return ApiClient(
                asking.params,
                gate,
                headers=headers,
                stopped=asking.stopped,
                sleep=asking.sleep,
                clock=asking.clock,
            )

        told: dict[str, str] = {}

        async def ask(asked: ApiClient, batch: Sequence[Person], take: Take) -> None:
            for person in batch:
                take(person, await self._about(asked, person, told))

        listed, more = list_people(
            self.name, names, self.settings, asking, self.relist_days, ask, client
        )
        return listed, remarks + more

    def fetch(self, addresses: Sequence[str]) -> list[Fetched]:
        raise NotImplementedError("web addresses are fetched by the pipeline")

    async def _about(self, asked: ApiClient, person: Person, told: dict[str, str]) -> PersonFound:
        """What a search finds. `told` are the headers of the last answer, of whomever it spoke."""
        found = PersonFound(person.name)
        taken: dict[str, Offer] = {}
        for name in (person.name, *(person.aliases if self.settings.aliases else ())):
            try:
                await self._search(asked, name, taken, found.left_out, told)
            except ApiError as error:
                if error.lasting:
                    raise
                found.complete, found.note = False, f"{person.name}: {error}"
        found.offers = list(taken.values())
        return found

    async def _search(
        self,
        asked: ApiClient,
        name: str,
        taken: dict[str, Offer],
        left_out: Counter[str],
        told: dict[str, str],
    ) -> None:
        settings, page = self.settings, 1
        phrase = " ".join(re.sub(r'["\\]', " ", name).split())[: _QUERY - 2]
        query: dict[str, str | int] = {
            "q": f'"{phrase}"' if settings.exact else phrase,
            "license": ",".join(settings.licences),
            "page_size": PAGE_WITH_TOKEN if self.token else PAGE,
        }
        if settings.sources:
            query["source"] = ",".join(settings.sources)
        while len(taken) < settings.per_person:
            await _wait(asked, told)
            try:
                answer = await asked.get(settings.api, {**query, "page": page})
            except ApiError as error:
                # Pages have an end that the number of results does not tell.
                if page > 1 and error.status in (400, 404):
                    return
                raise
            told.clear()
            told.update(answer.headers)
            body = answer.body if isinstance(answer.body, dict) else {}
            results = [result for result in body.get("results") or [] if isinstance(result, dict)]
            for result in results:
                if len(taken) < settings.per_person:
                    self._choose(result, taken, left_out)
            if not results or page >= int(body.get("page_count") or 0):
                return
            page += 1

    def _choose(
        self, result: Mapping[str, Any], taken: dict[str, Offer], left_out: Counter[str]
    ) -> None:
        code = str(result.get("license") or "").lower()
        sides = [result.get("width"), result.get("height")]
        known = [int(side) for side in sides if isinstance(side, int)]
        if code not in self.settings.licences:
            left_out["not under one of source.licences"] += 1
            return
        if known and min(known) < self.settings.min_side:
            left_out[f"less than {self.settings.min_side} pixels on a side"] += 1
            return
        try:
            address = canonical(str(result.get("url") or ""))
        except BadAddress:
            left_out["without an address of the web"] += 1
            return
        page, author = result.get("foreign_landing_url") or None, result.get("creator") or None
        taken.setdefault(
            address,
            Offer(
                address,
                page=page,
                licence=_licence(code, result.get("license_version")),
                author=author,
            ),
        )


def _licence(code: str, version: Any) -> str:
    """`CC BY-SA 2.0`, `CC0 1.0`, `PDM 1.0`."""
    name = code.upper() if code in ("cc0", "pdm") else f"CC {code.upper()}"
    return f"{name} {version}" if version else name


async def _wait(asked: ApiClient, headers: Mapping[str, str]) -> None:
    """Wait where a limit is used up (`x-ratelimit-available-anon_burst: 0`), before the service has
    to say so.

    Raises ApiError where it would be longer than a crawl waits.
    """
    for name, left in headers.items():
        if not name.startswith("x-ratelimit-available-") or left.strip() != "0":
            continue
        limit = headers.get(name.replace("available", "limit"), "")
        seconds = _WINDOWS.get(limit.rpartition("/")[2].strip().lower(), 60)
        if seconds > asked.params.longest_pause:
            raise ApiError(f"the limit of {limit or 'questions'} is used up", lasting=True)
        await asked.pause(seconds)
