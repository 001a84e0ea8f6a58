"""Asking sites for their rules: once for all addresses of a site, more than once before they are
given up, read once.
"""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import aiohttp

from stages.crawl.web.address import BadAddress, host_of, origin_of, redirected
from stages.crawl.web.asking import FINE, REDIRECTS, Asker, Deferred, trusted
from stages.crawl.web.exchange import Budget, Told, incomplete, refusal, unpacker
from stages.crawl.web.params import WebParams
from stages.crawl.web.policy import SitePolicy, crawl_delay, robots_verdict, tdm_verdict
from stages.crawl.web.site_files import FILE_BYTES, NotUnderstood, read_robots, read_tdmrep

_PIECE = 2**16
_POLICY_SECONDS, _UNKNOWN_SECONDS, _SOON_SECONDS = 24 * 3600.0, 600.0, 0.5
"""How long a site's rules are believed (RFC 9309, section 2.4), that they could not be had, and the
same where they are to be

asked for anew by the next who wants something of the site: after a proxy was in the way, or in a
round that is not the last.
"""
_OURS = ("proxy", "open_files")
"""Reasons that no site is to blame for."""
_EARLY_ATTEMPTS = 2
"""Requests for rules in a round that is not the last."""
_THREAD_BYTES = 2**14
"""From this size on a file is read beside the event loop."""
_NO_DELAY: float | None = None
_T = TypeVar("_T")


class SiteRules:
    """What sites allow. Used in one event loop."""

    def __init__(self, params: WebParams, asker: Asker, room: asyncio.Semaphore) -> None:
        self.params, self.asker, self.room = params, asker, room
        self._learning: dict[tuple[str, bool], asyncio.Task[SitePolicy]] = {}

    def close(self) -> None:
        for task in self._learning.values():
            task.cancel()

    async def check(self, address: str, patience: float, final: bool) -> None:
        """Raise Told where a site forbids an address or its rules cannot be had; Deferred where
        they may be had later.

        With `final` there is no later.
        """
        if not (self.params.respect_robots or self.params.respect_opt_out):
            return
        origin, host, product = origin_of(address), host_of(address), self.params.product
        try:
            policy = await self._policy(origin, host, patience, final)
        except Deferred as error:
            raise Deferred(host) from error  # rules may lie elsewhere
        if policy.robots is None and policy.passing and not final:
            raise Deferred(host)
        if policy.robots is None and policy.reason != "robots":
            raise Told("failed", policy.reason, policy.why, passing=policy.reason in _OURS)
        if self.params.respect_robots:
            why = robots_verdict(policy, product, address)
            if why:
                raise Told("filtered", "robots", why, opt_out=f"{why} ({origin}/robots.txt)")
            delay = crawl_delay(policy, product)
            if delay is not None and delay > self.params.politeness.crawl_delay_limit:
                raise Told(
                    "filtered",
                    "robots",
                    f"robots.txt asks for {delay:g} s between two requests",
                    opt_out=f"crawl-delay {delay:g}",
                )
        if self.params.respect_opt_out:
            why = tdm_verdict(policy, address)
            if why:
                raise Told(
                    "filtered", "opt_out", why, opt_out=f"{why} ({origin}/.well-known/tdmrep.json)"
                )

    async def _policy(self, origin: str, host: str, patience: float, final: bool) -> SitePolicy:
        policy, mine = await trusted(self.asker.gate.policy(origin))
        if policy is not None:
            return policy
        # One of all that want something of the site finds out for them.
        key = (origin, final)
        task = self._learning.get(key)
        if task is None:
            task = self._learning[key] = asyncio.create_task(
                self._find_out(origin, host, patience, final, mine)
            )
            task.add_done_callback(lambda _: self._learning.pop(key, None))
        return await asyncio.shield(task)

    async def _find_out(
        self, origin: str, host: str, patience: float, final: bool, mine: bool
    ) -> SitePolicy:
        end = time.monotonic() + patience + self.params.total_seconds
        while not mine:
            if time.monotonic() > end:
                raise Deferred(host)
            await asyncio.sleep(0.1)
            policy, mine = await trusted(self.asker.gate.policy(origin))
            if policy is not None:
                return policy
        found, delay = SitePolicy(None, (), 0.0, why="nobody found out"), _NO_DELAY
        try:
            found = await self._learn(origin, patience, final)
            if self.params.respect_robots:
                found, delay = _with_delay(found, self.params.product)
        finally:
            # Also where nothing was found out: the next who wants something of the site asks.
            await trusted(self.asker.gate.tell(origin, host, found, delay))
        return found

    async def _learn(self, origin: str, patience: float, final: bool) -> SitePolicy:
        product, budget = self.params.product, Budget(self.params.total_seconds)
        policy = SitePolicy("", (), _POLICY_SECONDS)
        if self.params.respect_robots:
            try:
                data = await self._file(f"{origin}/robots.txt", patience, budget, final)
                policy = replace(
                    policy, robots=await _apart(lambda data: read_robots(data, product), data)
                )
            except NotUnderstood as error:
                policy = replace(policy, unclear_robots=str(error))
            except Told as told:
                passing = told.passing or told.outcome.refused
                soon = told.reason in _OURS or (passing and not final)
                lasts = _SOON_SECONDS if soon else _UNKNOWN_SECONDS
                reason = (
                    "robots"
                    if told.http_status is not None or told.reason == "decode_error"
                    else told.reason
                )
                return SitePolicy(
                    None, (), lasts, reason, told.detail or told.reason, passing=passing
                )
        if self.params.respect_opt_out:
            try:
                data = await self._file(
                    f"{origin}/.well-known/tdmrep.json", patience, budget, final
                )
                policy = replace(policy, tdmrep=await _apart(read_tdmrep, data))
            except NotUnderstood as error:
                policy = replace(policy, unclear_tdmrep=str(error))
            except Told as told:
                # One that cannot be had reserves nothing: it is no part of a site that has none.
                # One that is there and packed in a way that is not known here cannot be understood.
                if told.reason in ("unsupported_encoding", "decode_error"):
                    policy = replace(policy, unclear_tdmrep=told.detail or told.reason)
        return policy

    async def _file(self, address: str, patience: float, budget: Budget, final: bool) -> bytes:
        """A small file of a site, b"" where the site has none. Raises Told, after several attempts
        where these may help.
        """
        most = self.params.attempts if final else min(self.params.attempts, _EARLY_ATTEMPTS)
        for attempt in range(1, most + 1):
            try:
                return await self._attempt(address, patience, budget)
            except Told as told:
                if (
                    not told.passing
                    or attempt == most
                    or not budget.left
                    or (told.pause or 0.0) > self.params.longest_pause
                ):
                    raise
            await asyncio.sleep(2.0**attempt / 4 * random.uniform(0.5, 1.5))  # noqa: S311  guards nothing
        raise AssertionError("unreachable: attempts is 1 at least")

    async def _attempt(self, address: str, patience: float, budget: Budget) -> bytes:
        place = address
        for _ in range(self.params.redirects + 1):
            async with self.asker.ask(place, patience, budget, self.room) as answer:
                if answer.status in REDIRECTS and "Location" in answer.headers:
                    try:
                        place = redirected(place, answer.headers["Location"])
                    except BadAddress as error:
                        raise Told(
                            "failed",
                            "bad_redirect",
                            f"a redirect to nowhere: {error}",
                            answer.status,
                        ) from error
                    continue
                if answer.status == 429 or answer.status >= 500:
                    raise refusal(answer.status, answer.headers.get("Retry-After"))
                return await _body(answer) if answer.status in FINE else b""
        return b""  # RFC 9309, section 2.3.1.2


def _with_delay(policy: SitePolicy, agent: str) -> tuple[SitePolicy, float | None]:
    """The policy and the pause that it asks for; a pause that cannot be read makes no sense of the
    whole.
    """
    try:
        return policy, crawl_delay(policy, agent)
    except Exception as error:  # noqa: BLE001  else it would be found out anew for every address
        return replace(policy, unclear_robots=f"{type(error).__name__}: {error}"[:200]), None


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    """The first bytes of a file, unpacked. Raises Told."""
    unpack = unpacker(answer, FILE_BYTES)
    pieces = []
    async for raw in answer.content.iter_chunked(_PIECE):
        pieces.append(unpack(raw))
        if unpack.size > FILE_BYTES:
            break
    else:
        if pieces and not unpack.whole:
            raise incomplete(answer.status)
    return b"".join(pieces)[:FILE_BYTES]


async def _apart(read: Callable[[bytes], _T], data: bytes) -> _T:
    """What `read` makes of a file. Raises NotUnderstood, whatever it is that goes wrong."""
    try:
        return await asyncio.to_thread(read, data) if len(data) > _THREAD_BYTES else read(data)
    except NotUnderstood:
        raise
    except Exception as error:
        raise NotUnderstood(f"{type(error).__name__}: {error}"[:200]) from error
