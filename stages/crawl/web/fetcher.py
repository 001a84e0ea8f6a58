"""Fetching pictures: one event loop, one client, bounded in time and memory, each address ended in one answer.

An address is asked only after the site's rules allow it and the gate gives a slot. Redirects are followed by hand, each
step checked like a new address. A body is read in pieces and dropped as soon as it is too large or cannot be a picture.
"""

import asyncio
import random
import time
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

import aiohttp
from yarl import URL

from stages.crawl.web.address import BadAddress, canonical, host_of, origin_of, redirected
from stages.crawl.web.exchange import Told, explain, open_session, refusal, seconds_of, unpacker
from stages.crawl.web.gate import Gate, Outcome
from stages.crawl.web.guard import ForbiddenAddress, Guard
from stages.crawl.web.params import WebParams
from stages.crawl.web.policy import ROBOTS_BYTES, SitePolicy, crawl_delay, header_verdict, robots_verdict, tdm_verdict
from stages.crawl.web.proxy import ProxyDenied
from stages.picture_headers import PictureError, format_of
from stages.stage import Fetched

_PIECE = 2**16
_SNIFFED = 64
"""Bytes that tell a picture from anything else."""
_POLICY_SECONDS, _UNKNOWN_SECONDS, _PROXY_SECONDS = 24 * 3600.0, 600.0, 0.5
"""How long a site's rules are believed (RFC 9309, section 2.4), that they could not be had, and that a proxy was in the way:

no longer than the pauses between attempts, so that the last of them finds out anew.
"""


class Deferred(Exception):
    """No slot came in time."""


@dataclass
class _Order:
    """One call of `fetch_all`: what it wants, and how many of its addresses have no answer yet."""

    take: Callable[[str, Fetched], Awaitable[None]]
    patience: float
    stop: Callable[[], bool]
    left: int = 0
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

    Several calls of `fetch_all` may be under way at once: a host is asked by as many lanes as may ask it at a time, whoever
    wants something of it.
    """

    def __init__(self, params: WebParams, gate: Gate) -> None:
        self.params, self.gate = params, gate
        self.guard = Guard(params.allow_hosts, params.resolve)
        self.session = open_session(params, self.guard, "image/*,*/*;q=0.1", "identity")
        self._slots = asyncio.Semaphore(params.connections)
        self._queues: dict[str, deque[tuple[str, _Order]]] = {}
        self._lanes: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._learning: dict[str, asyncio.Task[SitePolicy]] = {}

    async def close(self) -> None:
        for task in [*self._tasks, *self._learning.values()]:
            task.cancel()
        await self.session.close()

    async def fetch_all(
        self, addresses: Iterable[str], take: Callable[[str, Fetched], Awaitable[None]], patience: float = 30.0,
        stop: Callable[[], bool] = lambda: False,
    ) -> list[str]:  # fmt: skip
        """Fetch canonical addresses; `take` gets each answer at once, in any order. Returns the addresses that were put off:

        those whose host had no slot for them within `patience` seconds, and those not yet begun when `stop` said so.
        """
        order = _Order(take, patience, stop)
        by_host: dict[str, list[str]] = defaultdict(list)
        for address in addresses:
            try:
                by_host[host_of(canonical(address))].append(address)
            except BadAddress as error:
                await take(address, Fetched(None, "failed", "bad_address", str(error), attempts=0))
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
                    await self._serve(address, order, queue)
        finally:
            self._lanes[host] -= 1
            if not self._lanes[host]:
                del self._lanes[host], self._queues[host]

    async def _serve(self, address: str, order: _Order, queue: deque[tuple[str, _Order]]) -> None:
        if order.stop():
            order.put_off([address])
            return
        try:
            answer = await self._fetch(address, order.patience)
            await order.take(address, answer)
        except Deferred:
            # The host has no room: what waits for it waits as well.
            rest = [other for other, whose in queue if whose is order]
            others = [item for item in queue if item[1] is not order]
            queue.clear()
            queue.extend(others)
            order.put_off([address, *rest])
        except Exception as error:  # noqa: BLE001  not the fault of an address: for whoever ordered it
            order.fail(error)
        except asyncio.CancelledError as error:
            order.fail(error)
            raise
        else:
            order.settle()

    async def _fetch(self, address: str, patience: float) -> Fetched:
        attempts = 0
        while True:
            attempts += 1
            place = [address]
            try:
                data, http_status = await self._follow(place, patience)
            except Told as told:
                if told.passing and attempts < self.params.attempts and (told.pause or 0.0) <= self.params.longest_pause:
                    # How long the host wants to be left alone is the gate's to know; this spreads those who come back.
                    await asyncio.sleep(2.0**attempts / 4 * random.uniform(0.5, 1.5))  # noqa: S311  guards nothing
                    continue
                final = place[-1] if place[-1] != address else None
                return Fetched(
                    None, told.status, told.reason, told.detail, told.opt_out, _now(),
                    http_status=told.http_status, attempts=attempts, final_address=final,
                )  # fmt: skip
            final = place[-1] if place[-1] != address else None
            return Fetched(data, fetched_at=_now(), http_status=http_status, attempts=attempts, final_address=final)

    async def _follow(self, place: list[str], patience: float) -> tuple[bytes, int]:
        """The bytes behind an address, over redirects, which are appended to `place`."""
        for _ in range(self.params.redirects + 1):
            here = place[-1]
            self._check_host(here)
            await self._check_policy(here, patience)
            location = await self._ask(here, patience)
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

    def _check_host(self, address: str) -> None:
        try:
            self.guard.check_host(URL(address, encoded=True).host or "")
        except ForbiddenAddress as error:
            raise Told("failed", "private_address", str(error)) from error

    async def _ask(self, address: str, patience: float) -> tuple[bytes, int] | str:
        """One request with a slot of its host: the bytes and the status, or where a redirect leads."""
        host = host_of(address)
        await self._enter(host, patience)
        outcome = Outcome(broken=True)
        try:
            async with self._slots, asyncio.timeout(self.params.total_seconds):
                answer = await self._request(address)
                outcome = Outcome()
                return answer
        except Told as told:
            outcome = told.outcome
            raise
        except ProxyDenied:
            raise  # no address is at fault: for whoever ordered it
        except Exception as error:
            ended = explain(error)
            outcome = ended.outcome
            raise ended from error
        finally:
            await self.gate.leave(host, outcome)

    async def _enter(self, host: str, patience: float) -> None:
        permit = await self.gate.enter(host, patience)
        if permit.wait == float("inf"):
            raise Told("failed", "host_down", f"{host} failed again and again in this run")
        if not permit.go:
            raise Deferred
        if permit.wait > 0:
            await asyncio.sleep(permit.wait)

    async def _request(self, address: str) -> tuple[bytes, int] | str:
        async with self.session.get(URL(address, encoded=True), allow_redirects=False) as response:
            status = response.status
            if status in (301, 302, 303, 307, 308):
                location = response.headers.get("Location")
                if not location:
                    raise Told("failed", "bad_redirect", "no Location", status)
                return location
            if status != 200:
                raise refusal(status, response.headers.get("Retry-After"))
            if self.params.respect_opt_out:
                evidence = header_verdict(response.headers.items(), self.params.product)
                if evidence:
                    raise Told("filtered", "opt_out", evidence, status, opt_out=f"{evidence} ({address})")
            return await self._body(response), status

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        most, length = self.params.max_bytes, response.content_length
        if length is not None and length > most:
            raise Told("failed", "too_large", f"{length} bytes announced, at most {most} are read", response.status)
        unpack = unpacker(response.headers.get("Content-Encoding", ""), response.status)
        pieces, size, looked = [], 0, False
        async for raw in response.content.iter_chunked(_PIECE):
            piece = raw if unpack is None else unpack.decompress(raw, most + 1 - size)
            pieces.append(piece)
            size += len(piece)
            if size > most:
                raise Told("failed", "too_large", f"more than {most} bytes", response.status)
            if not looked and size >= _SNIFFED:
                looked = True
                _look(b"".join(pieces), response.status)
        if unpack is not None and not unpack.eof:
            raise Told("failed", "truncated", "the packed body ends too early", response.status, passing=True, outcome=Outcome(broken=True))
        if not size:
            raise Told("failed", "empty", "a body without bytes", response.status)
        return b"".join(pieces)

    # What sites allow

    async def _check_policy(self, address: str, patience: float) -> None:
        if not (self.params.respect_robots or self.params.respect_opt_out):
            return
        policy = await self._policy(origin_of(address), host_of(address), patience)
        if policy.robots is None and policy.reason != "robots":
            raise Told("failed", policy.reason, policy.why, passing=policy.reason == "proxy")
        if self.params.respect_robots:
            why = robots_verdict(policy, self.params.product, address)
            if why:
                raise Told("filtered", "robots", why, opt_out=f"{why} ({origin_of(address)}/robots.txt)")
            delay = crawl_delay(policy, self.params.product)
            if delay is not None and delay > self.params.politeness.crawl_delay_limit:
                raise Told("filtered", "robots", f"robots.txt asks for {delay:g} s between two requests", opt_out=f"crawl-delay {delay:g}")
        if self.params.respect_opt_out:
            why = tdm_verdict(policy, address)
            if why:
                raise Told("filtered", "opt_out", why, opt_out=f"{why} ({origin_of(address)}/.well-known/tdmrep.json)")

    async def _policy(self, origin: str, host: str, patience: float) -> SitePolicy:
        policy, mine = await self.gate.policy(origin)
        if policy is not None:
            return policy
        # One of all that want something of the site finds out for them.
        task = self._learning.get(origin)
        if task is None:
            task = self._learning[origin] = asyncio.create_task(self._find_out(origin, host, patience, mine))
            task.add_done_callback(lambda _: self._learning.pop(origin, None))
        return await asyncio.shield(task)

    async def _find_out(self, origin: str, host: str, patience: float, mine: bool) -> SitePolicy:
        end = time.monotonic() + patience + self.params.total_seconds
        while not mine:
            if time.monotonic() > end:
                raise Deferred
            await asyncio.sleep(0.1)
            policy, mine = await self.gate.policy(origin)
            if policy is not None:
                return policy
        found = await self._learn(origin, patience)
        await self.gate.tell(origin, host, found, crawl_delay(found, self.params.product) if self.params.respect_robots else None)
        return found

    async def _learn(self, origin: str, patience: float) -> SitePolicy:
        robots: str | None = ""
        reason = why = ""
        if self.params.respect_robots:
            robots, reason, why = await self._rules(f"{origin}/robots.txt", patience)
        tdmrep: str | None = ""
        if self.params.respect_opt_out and robots is not None:
            # A tdmrep.json that cannot be had reserves nothing: it is no part of a site that has none.
            tdmrep, _, _ = await self._rules(f"{origin}/.well-known/tdmrep.json", patience)
        lasts = _POLICY_SECONDS if robots is not None else _PROXY_SECONDS if reason == "proxy" else _UNKNOWN_SECONDS
        return SitePolicy(robots, tdmrep or "", lasts, reason, why)

    async def _rules(self, address: str, patience: float) -> tuple[str | None, str, str]:
        """A small text file of a site: its text, "" where the site has none; None, a reason and words where it cannot be had."""
        place = address
        for _ in range(self.params.redirects + 1):
            asked = host_of(place)
            try:
                self._check_host(place)
                await self._enter(asked, patience)
            except Told as told:
                return None, told.reason, told.detail or told.reason
            outcome = Outcome(broken=True)
            try:
                url = URL(place, encoded=True)
                async with asyncio.timeout(self.params.total_seconds), self.session.get(url, allow_redirects=False) as answer:
                    outcome = Outcome()
                    if answer.status in (301, 302, 303, 307, 308) and "Location" in answer.headers:
                        place = redirected(place, answer.headers["Location"])
                        continue
                    if answer.status == 429 or answer.status >= 500:
                        outcome = Outcome(refused=True, retry_after=seconds_of(answer.headers.get("Retry-After")))
                        return None, "robots", f"HTTP {answer.status}"
                    if answer.status != 200:
                        return "", "", ""
                    return await self._text(answer), "", ""
            except Told as told:
                return None, "robots", told.detail or told.reason
            except BadAddress:
                return "", "", ""
            except ProxyDenied:
                raise
            except Exception as error:  # noqa: BLE001  whatever it was, the rules could not be had
                ended = explain(error)
                outcome = ended.outcome
                return None, ended.reason, ended.detail or ended.reason
            finally:
                await self.gate.leave(asked, outcome)
        return "", "", ""

    async def _text(self, answer: aiohttp.ClientResponse) -> str:
        unpack = unpacker(answer.headers.get("Content-Encoding", ""), answer.status)
        data = bytearray()
        async for raw in answer.content.iter_chunked(_PIECE):
            data += raw if unpack is None else unpack.decompress(raw, ROBOTS_BYTES)
            if len(data) > ROBOTS_BYTES:
                break
        return bytes(data[:ROBOTS_BYTES]).decode("utf-8", "replace")


def _look(head: bytes, status: int) -> None:
    """Raise for bytes that no picture begins with: reading a film or a page to its end would be of no use."""
    try:
        format_of(head)
    except PictureError as error:
        if error.reason in ("not_an_image", "unsupported_format"):
            raise Told("failed", error.reason, error.detail, status) from error


def _now() -> int:
    return time.time_ns() // 1000
