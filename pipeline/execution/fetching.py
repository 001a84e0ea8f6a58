"""Blocks of web addresses in, answers into the spool: what a worker of a crawl does. Nothing here
knows Ray.

A block names a few hundred addresses of many hosts. Its answers are put down every few seconds, and
a block that is given out again after a death goes on behind what is in the spool. A host without
room holds a block up no longer than `patience`: what waits for it comes back as put off.
"""

import asyncio
import contextlib
import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field

from idcluster.root.spool import folder_of, look, put, spool_path
from idcluster.root.storage import Store
from schemas.fetched import Fetched
from stages.crawl.web.address import BadAddress, canonical, host_of
from stages.crawl.web.fetcher import WebFetcher
from stages.crawl.web.gate import Gate
from stages.crawl.web.open_files import raise_limit
from stages.crawl.web.params import WebParams

BLOCK = 256
UNEXPECTED = 20
"""Hosts that are named with what went wrong there, where nobody had thought of it."""
_FLUSH_BYTES, _FLUSH_ROWS, _FLUSH_SECONDS = 16 * 2**20, 128, 2.0


@dataclass(frozen=True)
class Block:
    """Addresses to fetch. `final`: what would be put off is given up instead."""

    name: str
    addresses: tuple[str, ...]
    patience: float
    final: bool = False

    def encode(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def decode(text: str) -> "Block":
        data = json.loads(text)
        return Block(data["name"], tuple(data["addresses"]), data["patience"], data["final"])


@dataclass
class Haul:
    """What came of a block. `outcomes` counts answers by reason, `hosts` failures by host; `bytes`
    of images.

    `unexpected`: by host, in words, what nobody had thought of.
    """

    block: str
    answers: int = 0
    bytes: int = 0
    seconds: float = 0.0
    deferred: list[str] = field(default_factory=list)
    outcomes: dict[str, int] = field(default_factory=dict)
    hosts: dict[str, int] = field(default_factory=dict)
    unexpected: dict[str, str] = field(default_factory=dict)

    def encode(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def decode(text: str) -> "Haul":
        return Haul(**json.loads(text))


def blocks(
    addresses: Sequence[str], patience: float, final: bool = False, size: int = BLOCK
) -> Iterator[Block]:
    """Cut addresses into blocks so that each holds as many hosts as there are: no block is all of
    one slow host.
    """
    by_host: dict[str, list[str]] = {}
    for address in dict.fromkeys(addresses):
        try:
            by_host.setdefault(host_of(canonical(address)), []).append(address)
        except BadAddress:
            by_host.setdefault("", []).append(address)
    count = max(1, -(-sum(map(len, by_host.values())) // size))
    dealt: list[list[str]] = [[] for _ in range(count)]
    turn = 0
    for host in sorted(by_host, key=lambda name: (-len(by_host[name]), name)):
        for address in by_host[host]:
            dealt[turn % count].append(address)
            turn += 1
    for one in dealt:
        if one:
            name = hashlib.blake2b("\n".join(one).encode(), digest_size=8).hexdigest()
            yield Block(name, tuple(one), patience, final)


class FetchWorker:
    """Fetches blocks, several at a time from several threads, over one event loop and one
    client.
    """

    def __init__(
        self, store: Store, run: str, params: WebParams, gate: Gate, draining: Callable[[], bool]
    ) -> None:
        self.store, self.run, self.params, self.gate, self.draining = (
            store,
            run,
            params,
            gate,
            draining,
        )
        self._stopped = False
        raise_limit()  # the process is a worker's
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fetch", daemon=True)
        self._thread.start()
        self._fetcher = asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()

    async def _open(self) -> WebFetcher:
        return WebFetcher(self.params, self.gate)

    def fetch(self, block: Block) -> Haul:
        """Fetch what of a block is not in the spool yet. Raises what is not the fault of an
        address: a full disk.
        """
        return asyncio.run_coroutine_threadsafe(self._fetch(block), self._loop).result()

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._fetcher.close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _fetch(self, block: Block) -> Haul:
        began, haul = time.monotonic(), Haul(block.name)
        there = await asyncio.to_thread(look, self.store, folder_of(self.run, block.name))
        sink = _Sink(self.store, self.run, block.name, len(there.files), haul)
        left = [address for address in block.addresses if address not in there.places]
        watching = asyncio.create_task(self._watch())
        try:
            deferred = await self._fetcher.fetch_all(
                left, sink.take, block.patience, lambda: self._stopped, block.final
            )
            if block.final and not self._stopped:
                detail = f"its host had no room within {block.patience:g} s"
                for address in deferred:
                    await sink.take(
                        address,
                        Fetched(
                            None,
                            "failed",
                            "host_busy",
                            detail,
                            fetched_at=time.time_ns() // 1000,
                            attempts=0,
                        ),
                    )
                deferred = []
            await sink.flush()
        finally:
            watching.cancel()
            sink.stop()
        haul.deferred, haul.seconds = deferred, time.monotonic() - began
        return haul

    async def _watch(self) -> None:
        while not self._stopped:
            self._stopped = await asyncio.to_thread(self.draining)
            await asyncio.sleep(0.5)


class _Sink:
    """Puts answers down in small files, at the latest a few seconds after the first of them
    came.
    """

    def __init__(self, store: Store, run: str, block: str, number: int, haul: Haul) -> None:
        self.store, self.run, self.block, self.number, self.haul = store, run, block, number, haul
        self._waiting: list[tuple[str, Fetched]] = []
        self._size = 0
        self._writing = asyncio.Lock()
        self._timer = asyncio.create_task(self._tick())
        self._outcomes: Counter[str] = Counter()
        self._hosts: Counter[str] = Counter()

    async def take(self, address: str, answer: Fetched) -> None:
        self._waiting.append((address, answer))
        self._size += len(answer.data or b"")
        if len(self._waiting) >= _FLUSH_ROWS or self._size >= _FLUSH_BYTES:
            await self.flush()

    async def flush(self) -> None:
        async with self._writing:
            waiting, self._waiting, self._size = self._waiting, [], 0
            if not waiting:
                return
            path = spool_path(self.run, self.block, self.number)
            try:
                await asyncio.to_thread(put, self.store, path, waiting)
            except BaseException:
                self._waiting = waiting + self._waiting
                raise
            self.number += 1
            for address, answer in waiting:
                self.haul.answers += 1
                self.haul.bytes += len(answer.data or b"")
                self._outcomes[answer.reason or answer.status] += 1
                if answer.status == "failed" and answer.reason != "bad_address":
                    host = host_of(canonical(address))
                    self._hosts[host] += 1
                    if answer.reason == "error" and len(self.haul.unexpected) < UNEXPECTED:
                        self.haul.unexpected.setdefault(host, answer.detail or "")
            self.haul.outcomes, self.haul.hosts = (
                dict(self._outcomes),
                dict(self._hosts.most_common(20)),
            )

    def stop(self) -> None:
        self._timer.cancel()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_FLUSH_SECONDS)
            # What goes wrong here goes wrong again at the end of the block, where it is raised.
            with contextlib.suppress(OSError):
                await self.flush()
