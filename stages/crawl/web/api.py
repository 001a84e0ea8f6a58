"""Asking services for JSON: in turn, as slowly as they want it, and within bounds.

The same guard and gate as for images keep requests from going inside and from coming too often.
robots.txt is not asked: it speaks of pages, and a service says what it allows by its terms, by 429
and 503, and by headers.
"""

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from yarl import URL

from stages.crawl.web.address import host_of
from stages.crawl.web.asking import FINE
from stages.crawl.web.exchange import (
    Told,
    explain,
    incomplete,
    open_session,
    refusal,
    seconds_of,
    unpacker,
)
from stages.crawl.web.gate import Gate, Outcome
from stages.crawl.web.guard import ForbiddenAddress, Guard
from stages.crawl.web.params import WebParams

MAX_BYTES = 64 * 2**20
"""Of an answer: fifty people with all that Wikidata knows of them stay far below."""
_PIECE = 2**16
_TURN = 1.0
"""Seconds between two looks at whether to stop."""


class ApiError(Exception):
    """One question was not answered. `lasting`: the service answers no other either, for now."""

    def __init__(
        self, text: str, status: int | None = None, lasting: bool = False, answer: Any = None
    ) -> None:
        super().__init__(text)
        self.status, self.lasting, self.answer = status, lasting, answer


class Stopped(Exception):
    """Whoever runs the program wants it to end."""


@dataclass(frozen=True)
class Answer:
    """What a service said. `body`: its JSON; `headers` by lower-case name."""

    body: Any
    headers: Mapping[str, str]


class ApiClient:
    """Asks services. Made inside of the event loop that it is used in; `close` it there.

    `wants_pause` looks at an answer with status 200 and says, in words, why it is none: the service
    is too busy now.
    """

    def __init__(
        self,
        params: WebParams,
        gate: Gate,
        *,
        headers: Mapping[str, str] | None = None,
        wants_pause: Callable[[Any], str | None] = lambda body: None,
        stopped: Callable[[], bool] = lambda: False,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.params, self.gate, self.headers = params, gate, dict(headers or {})
        self.wants_pause, self.stopped, self._sleep, self._clock = (
            wants_pause,
            stopped,
            sleep,
            clock,
        )
        self.guard = Guard(params.allow_hosts, params.resolve)
        self.session = open_session(params, self.guard, "application/json", "gzip, deflate")
        self.asked = 0

    async def close(self) -> None:
        await self.session.close()

    async def get(self, address: str, query: Mapping[str, str | int]) -> Answer:
        """The answer to one question. Raises ApiError, and Stopped.

        What may pass (no connection, 5xx) is asked `attempts` times; a service that asks for a
        pause gets it, as long as it is no longer than `longest_pause` and the gate has not given
        the host up.
        """
        url = f"{address}{'&' if '?' in address else '?'}{urlencode(query)}"
        attempts = refusals = 0
        while True:
            try:
                return await self._ask(url)
            except Told as told:
                said = f"{urlsplit(url).hostname}: {told.detail or told.reason}"
                if told.outcome.refused:
                    refusals += 1
                    if (told.pause or 0) > self.params.longest_pause:
                        raise ApiError(
                            f"{said}; it wants to be asked again in {told.pause:.0f} s",
                            told.http_status,
                            True,
                        ) from told
                    if refusals >= self.params.politeness.failures:
                        raise ApiError(
                            f"{said}, {refusals} times in a row", told.http_status, True
                        ) from told
                    continue  # the gate keeps the pause
                attempts += 1
                if not told.passing or attempts >= self.params.attempts:
                    lasting = told.reason in _LASTING or told.passing
                    raise ApiError(said, told.http_status, lasting) from told
                await self.pause(2.0**attempts / 4 * random.uniform(0.5, 1.5))  # noqa: S311  guards nothing

    async def pause(self, seconds: float) -> None:
        """Wait, unless stopped."""
        end = self._clock() + seconds
        while (left := end - self._clock()) > 0:
            if self.stopped():
                raise Stopped
            await self._sleep(min(left, _TURN))

    async def _ask(self, url: str) -> Answer:
        host = host_of(url)
        try:
            self.guard.check_host(URL(url, encoded=True).host or "")
        except ForbiddenAddress as error:
            raise Told("failed", "private_address", str(error)) from error
        await self._enter(host)
        outcome = Outcome(broken=True)
        try:
            async with asyncio.timeout(self.params.total_seconds):
                answer = await self._request(url)
            outcome = Outcome()
            return answer
        except Told as told:
            outcome = told.outcome
            raise
        except ApiError:
            outcome = Outcome()
            raise
        except Exception as error:
            ended = explain(error)
            outcome = ended.outcome
            raise ended from error
        finally:
            await self.gate.leave(host, outcome)

    async def _enter(self, host: str) -> None:
        while True:
            if self.stopped():
                raise Stopped
            permit = await self.gate.enter(host, self.params.longest_pause)
            if permit.wait == float("inf"):
                raise Told("failed", "host_down", "failed again and again in this run")
            await self.pause(permit.wait)
            if permit.go:
                return

    async def _request(self, url: str) -> Answer:
        self.asked += 1
        async with self.session.get(
            URL(url, encoded=True), allow_redirects=False, headers=self.headers
        ) as response:
            headers = {name.lower(): value for name, value in response.headers.items()}
            if response.status in (429, 503):
                raise refusal(response.status, headers.get("retry-after"))
            unpack = unpacker(response, MAX_BYTES)
            pieces = []
            async for raw in response.content.iter_chunked(_PIECE):
                pieces.append(unpack(raw))
                if unpack.size > MAX_BYTES:
                    raise Told(
                        "failed",
                        "too_large",
                        f"an answer of more than {MAX_BYTES} bytes",
                        response.status,
                    )
            if pieces and not unpack.whole:
                raise incomplete(response.status)
            body = _parsed(b"".join(pieces))
            if response.status not in FINE:
                if response.status >= 500:
                    raise refusal(response.status, None)
                said = f"{urlsplit(url).hostname}: HTTP {response.status}{_words(body)}"
                raise ApiError(
                    said, response.status, lasting=response.status in (401, 403), answer=body
                )
            if body is None:
                raise Told(
                    "failed",
                    "no_json",
                    "an answer that is no JSON",
                    response.status,
                    passing=True,
                    outcome=Outcome(broken=True),
                )
            busy = self.wants_pause(body)
            if busy:
                pause = seconds_of(headers.get("retry-after"))
                outcome = Outcome(refused=True, retry_after=pause)
                raise Told(
                    "failed",
                    "busy",
                    busy,
                    response.status,
                    passing=True,
                    outcome=outcome,
                    pause=pause,
                )
            return Answer(body, headers)


_LASTING = ("host_down", "private_address", "dns", "tls", "connect", "proxy")


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data.decode("utf-8-sig", "replace"))
    except (ValueError, RecursionError):
        return None


def _words(body: Any) -> str:
    """What an answer says is wrong, where it says so in one of the usual ways."""
    said = (
        body.get("detail") or body.get("error") or body.get("message")
        if isinstance(body, dict)
        else None
    )
    return f": {str(said)[:200]}" if said else ""
