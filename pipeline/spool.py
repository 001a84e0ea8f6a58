"""The spool: answers of web servers, put down as soon as they are there.

A small immutable file holds the answers of a few dozen addresses, each a row group of its own. What is in the spool is
never asked for again, however a run ends; the crawl stage takes rows of `images` from it, and files whose answers are in
the dataset are deleted.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.storage import Store
from stages.stage import Fetched

FOLDER = "parts/spool"

_COLUMNS = {
    "status": pa.string(), "reason": pa.string(), "detail": pa.string(), "opt_out": pa.string(), "fetched_at": pa.int64(),
    "http_status": pa.int32(), "attempts": pa.int32(), "final_address": pa.string(),
}  # fmt: skip
_SCHEMA = pa.schema([("address", pa.string()), *_COLUMNS.items(), ("data", pa.large_binary())])

Place = tuple[str, int]
"""Where an answer lies: spool file and row in it."""


@dataclass(frozen=True)
class Found:
    """What the spool holds: the place of the newest answer to each address, and the addresses of each file."""

    places: Mapping[str, Place]
    files: Mapping[str, Sequence[str]]


def folder_of(run: str, block: str) -> str:
    return f"{FOLDER}/{run}/{block}"


def spool_path(run: str, block: str, number: int) -> str:
    return f"{folder_of(run, block)}/{number:04d}.parquet"


def put(store: Store, path: str, answers: Sequence[tuple[str, Fetched]]) -> None:
    """Put answers down as one file."""
    columns = {name: pa.array([getattr(answer, name) for _, answer in answers], kind) for name, kind in _COLUMNS.items()}
    columns |= {"address": pa.array([address for address, _ in answers], pa.string())}
    columns |= {"data": pa.array([answer.data for _, answer in answers], pa.large_binary())}
    sink = io.BytesIO()
    table = pa.table([columns[name] for name in _SCHEMA.names], schema=_SCHEMA)
    how = {"compression": "NONE", "use_dictionary": False, "write_statistics": False, "write_page_checksum": True}
    pq.write_table(table, sink, row_group_size=1, **how)
    store.put(path, sink.getvalue(), durable=False)


def look(store: Store, folder: str = FOLDER) -> Found:
    """What is in the spool, or in a folder of it; the pictures are not read. Files that a power cut tore are deleted."""
    places: dict[str, Place] = {}
    files: dict[str, list[str]] = {}
    for path in (path for path in store.list(folder) if path.endswith(".parquet")):
        addresses = _addresses(store, path)
        if addresses is None:
            store.delete([path])
            continue
        files[path] = addresses
        # Names of runs begin with their time, so that the newest answer comes last.
        places.update((address, (path, row)) for row, address in enumerate(addresses))
    return Found(places, files)


def _addresses(store: Store, path: str) -> list[str] | None:
    def attempt() -> list[str] | None:
        with store.open(path) as file:
            try:
                found: list[str] = pq.read_table(file, columns=["address"])["address"].to_pylist()
            except pa.ArrowInvalid:
                return None
            return found

    return store.patiently(attempt)


class SpoolServices:
    """What the crawl stage of one task takes its pictures from. Implements `stages.stage.Services`."""

    def __init__(self, store: Store, places: Mapping[str, Place]) -> None:
        self.store, self.places = store, places

    def fetch(self, addresses: Sequence[str]) -> list[Fetched]:
        """The answers to addresses. Raises KeyError for one that was never asked: such a picture is in no task."""
        read = lru_cache(maxsize=1)(self._file)
        order = sorted(range(len(addresses)), key=lambda i: self.places[addresses[i]])
        found: dict[int, Fetched] = {i: _answer(self._row(read(self.places[addresses[i]][0]), self.places[addresses[i]][1])) for i in order}
        return [found[i] for i in range(len(addresses))]

    def _file(self, path: str) -> pq.ParquetFile:
        return pq.ParquetFile(self.store.open(path), page_checksum_verification=True)

    def _row(self, file: pq.ParquetFile, row: int) -> dict[str, Any]:
        [found] = self.store.patiently(lambda: file.read_row_group(row).to_pylist())
        return dict(found)


def _answer(row: dict[str, Any]) -> Fetched:
    return Fetched(row["data"], **{name: row[name] for name in _COLUMNS})
