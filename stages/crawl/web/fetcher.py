"""Fetching images: one event loop, one client, bounded in time and memory, each address ended in
one answer.

An address is asked only after the site's rules allow it and the gate gives a slot. Redirects are
followed by hand, each step checked like a new address. A body is read in pieces and dropped as soon
as it is too large or cannot be an image. Whatever a server sends costs its own address and no
other: what nobody thought of becomes an answer with the reason `error`.
"""

import asyncio
import random
import time
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

import aiohttp

from schemas.fetched import Fetched
from stages.crawl.web.address import BadAddress, canonical, host_of, redirected
from stages.crawl.web.asking import FINE, REDIRECTS, Asker, Deferred, GateLost
from stages.crawl.web.exchange import (
    Budget,
    Told,
    incomplete,
    open_session,
    printable,
    refusal,
    unpacker,
)
from stages.crawl.web.gate import Gate
from stages.crawl.web.guard import Guard
from stages.crawl.web.open_files import free
from stages.crawl.web.params import WebParams
from stages.crawl.web.policy import header_verdict
from stages.crawl.web.proxy import ProxyDenied
from stages.crawl.web.site_rules import SiteRules
from stages.picture_headers import PictureError, format_of

_PIECE = 2**16
_SNIFFED = 64
"""Bytes that tell an image from anything else."""
_ELSEWHERE = 5
"""Addresses of a host in a row that lead to another one without room, after which its others are
not tried for now: each waits.
"""
_RULES_AT_ONCE = 256
"""Files with rules that are asked for at a time, beside images: most hosts have few images, and
many hosts are away.
"""


@dataclass
class _Order:
    """One call of `fetch_all`: what it wants, and how many of its addresses have no answer yet."""

    take: Callable[[str, Fetched], Awaitable[None]]
    patience: float
    stop: Callable[[], bool]
    final: bool
    left: int = 0
    elsewhere: Counter[str] = field(default_factory=Counter)
    """By host, how many of its addresses in a row led to another one that had no room."""
    deferred: list[str] = field(default_factory=list)
    error: BaseException | None = None
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def settle(self, count: int = 1) -> None:
        self.left -= count
        if self.left <= 0:
            self.done.set()

    def put_off(self, addresses: Iterable[str]) -> None:
        before = len(self.deferred)
        self.deferred.extend(addresses)
        self.settle(len(self.deferred) - before)

    def fail(self, error: BaseException) -> None:
        self.error = self.error or error
        self.done.set()


class WebFetcher:
    """Fetches addresses. Made inside of the event loop that it is used in; `close` it there.

    Several calls of `fetch_all` may be under way at once: a host is asked by as many lanes as may
    ask it at a time, whoever wants something of it.
    """

    def __init__(self, params: WebParams, gate: Gate) -> None:
        self.params, self.gate = params, gate
        self.guard = Guard(params.allow_hosts, params.resolve)
        self.session = open_session(params, self.guard, "image/*,*/*;q=0.1", "identity")
        # A third of what may be opened each: images, rules of sites, connections that nobody
        # uses.
        share = max(2, free() // 3)
        self._slots = asyncio.Semaphore(min(params.connections, share))
        self.asker = Asker(self.session, self.guard, gate)
        self.rules = SiteRules(
            params,
            self.asker,
            asyncio.Semaphore(min(max(_RULES_AT_ONCE, params.connections), share)),
        )
        self._queues: dict[str, deque[tuple[str, _Order]]] = {}
        self._lanes: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        self.rules.close()
        await self.session.close()

    async def fetch_all(
        self,
        addresses: Iterable[str],
        take: Callable[[str, Fetched], Awaitable[None]],
        patience: float = 30.0,
        stop: Callable[[], bool] = lambda: False,
        final: bool = True,
    ) -> list[str]:
        """Fetch canonical addresses; `take` gets each answer at once, in any order. Returns the
        addresses that were put off:

        those whose host had no slot for them within `patience` seconds, and those not yet begun
        when `stop` said so. Unless this is `final`, also those of sites whose rules could not be
        had for a reason that may pass.
        """
        order = _Order(take, patience, stop, final)
        by_host: dict[str, list[str]] = defaultdict(list)
        for address in addresses:
            try:
                by_host[host_of(canonical(address))].append(address)
            except BadAddress as error:
                await take(
                    address,
                    Fetched(None, "failed", "bad_address", printable(str(error)), attempts=0),
                )
        order.left = sum(map(len, by_host.values()))
        for host, wanted in by_host.items():
            queue = self._queues.setdefault(host, deque())
            queue.extend((address, order) for address in wanted)
            for _ in range(min(len(queue), self.params.politeness.concurrency - self._lanes[host])):
                self._lanes[host] += 1
                task = asyncio.create_task(self._lane(host, queue))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        if order.left:
            try:
                await order.done.wait()
            except asyncio.CancelledError as error:
                order.fail(error)
                raise
        if order.error is not None:
            raise order.error
        return order.deferred

    async def _lane(self, host: str, queue: deque[tuple[str, _Order]]) -> None:
        """Addresses of a host, one after the other."""
        try:
            while queue:
                address, order = queue.popleft()
                if order.error is None:
                    await self._serve(host, address, order, queue)
        finally:
            self._lanes[host] -= 1
            if not self._lanes[host]:
                del self._lanes[host], self._queues[host]

    async def _serve(
        self, host: str, address: str, order: _Order, queue: deque[tuple[str, _Order]]
    ) -> None:
        if order.stop():
            order.put_off([address])
            return
        try:
            answer = await self._answer(address, order)
            await order.take(address, answer)
            order.elsewhere.pop(host, None)
        except Deferred as error:
            order.elsewhere[host] += error.host != host
            if error.host != host and order.elsewhere[host] < _ELSEWHERE:
                order.put_off([address])  # what it redirects to is not its host's fault
                return
            # The host has no room: what waits for it waits as well.
            rest = [other for other, whose in queue if whose is order]
            others = [item for item in queue if item[1] is not order]
            queue.clear()
            queue.extend(others)
            order.put_off([address, *rest])
        except Exception as error:  # noqa: BLE001  not the fault of an address: for whoever ordered it
            order.fail(
                error.__cause__
                if isinstance(error, GateLost) and error.__cause__ is not None
                else error
            )
        except asyncio.CancelledError as error:
            order.fail(error)
            raise
        else:
            order.settle()

    async def _answer(self, address: str, order: _Order) -> Fetched:
        """The one answer to an address, whatever happens. Raises Deferred, and what is not an
        address's fault.
        """
        try:
            return await self._fetch(address, order)
        except (Deferred, ProxyDenied, GateLost):
            raise
        except Exception as error:  # noqa: BLE001  the last net: what a stranger sent must not end the crawl
            return Fetched(
                None,
                "failed",
                "error",
                printable(f"{type(error).__name__}: {error}"[:300]),
                fetched_at=_now(),
                attempts=1,
            )

    async def _fetch(self, address: str, order: _Order) -> Fetched:
        attempts = 0
        while True:
            attempts += 1
            place = [address]
            try:
                data, http_status = await self._follow(place, order)
            except Told as told:
                if (
                    told.passing
                    and attempts < self.params.attempts
                    and (told.pause or 0.0) <= self.params.longest_pause
                ):
                    # How long the host wants to be left alone is the gate's to know; this spreads
                    # those who come back.
                    await asyncio.sleep(2.0**attempts / 4 * random.uniform(0.5, 1.5))  # noqa: S311  guards nothing
                    continue
                final = place[-1] if place[-1] != address else None
                detail, evidence = (
                    text and printable(text) for text in (told.detail, told.opt_out)
                )
                return Fetched(
                    None,
                    told.status,
                    told.reason,
                    detail,
                    evidence,
                    _now(),
                    http_status=told.http_status,
                    attempts=attempts,
                    final_address=final,
                )
            final = place[-1] if place[-1] != address else None
            return Fetched(
                data,
                fetched_at=_now(),
                http_status=http_status,
                attempts=attempts,
                final_address=final,
            )

    async def _follow(self, place: list[str], order: _Order) -> tuple[bytes, int]:
        """The bytes behind an address, over redirects, which are appended to `place`."""
        budget = Budget(self.params.total_seconds)
        for _ in range(self.params.redirects + 1):
            here = place[-1]
            await self.rules.check(here, order.patience, order.final)
            async with self.asker.ask(here, order.patience, budget, self._slots) as response:
                location = await self._read(here, response)
            if isinstance(location, tuple):
                return location
            try:
                following = redirected(here, location)
            except BadAddress as error:
                raise Told("failed", "bad_redirect", f"to {location[:200]!r}: {error}") from error
            if following in place:
                raise Told("failed", "redirect_loop", f"back to {following[:200]}")
            place.append(following)
        raise Told("failed", "too_many_redirects", f"more than {self.params.redirects}")

    async def _read(
        self, address: str, response: aiohttp.ClientResponse
    ) -> tuple[bytes, int] | str:
        """The bytes and the status of an answer, or where a redirect leads."""
        status = response.status
        if status in REDIRECTS:
            location = response.headers.get("Location")
            if not location:
                raise Told("failed", "bad_redirect", "no Location", status)
            return location
        if status not in FINE:
            raise refusal(status, response.headers.get("Retry-After"))
        if self.params.respect_opt_out:
            evidence = header_verdict(response.headers.items(), self.params.product)
            if evidence:
                raise Told(
                    "filtered", "opt_out", evidence, status, opt_out=f"{evidence} ({address})"
                )
        return await self._body(response), status

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        most, length = self.params.max_bytes, response.content_length
        if length is not None and length > most:
            raise Told(
                "failed",
                "too_large",
                f"{length} bytes announced, at most {most} are read",
                response.status,
            )
        unpack = unpacker(response, most)
        pieces, looked = [], False
        async for raw in response.content.iter_chunked(_PIECE):
            pieces.append(unpack(raw))
            if unpack.size > most:
                raise Told("failed", "too_large", f"more than {most} bytes", response.status)
            if not looked and unpack.size >= _SNIFFED:
                looked = True
                _look(b"".join(pieces), response.status)
        if not unpack.whole:
            raise incomplete(response.status)
        if not unpack.size:
            raise Told("failed", "empty", "a body without bytes", response.status)
        return b"".join(pieces)


def _look(head: bytes, status: int) -> None:
    """Raise for bytes that no image begins with: reading a film or a page to its end would be of
    no use.
    """
    try:
        format_of(head)
    except PictureError as error:
        if error.reason in ("not_an_image", "unsupported_format"):
            raise Told("failed", error.reason, error.detail, status) from error


def _now() -> int:
    return time.time_ns() // 1000
