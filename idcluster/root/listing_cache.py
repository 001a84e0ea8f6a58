"""What sources have learnt, kept in the dataset's root between two listings: small files of texts
by key.

Garbage collection may take them at any time: whatever is not there is asked about again.
"""

import io
import time
from functools import lru_cache

import pyarrow as pa
import pyarrow.parquet as pq

from idcluster.root.storage import Store

FOLDER = "parts/listing"

_SCHEMA = pa.schema([("key", pa.string()), ("at", pa.float64()), ("text", pa.large_string())])
_TEXTS, _BYTES, _SECONDS = 500, 16 * 2**20, 60.0
"""When what is gathered becomes a file: texts, their bytes, the age of the first."""
_KEPT_DAYS = 90.0


class ListingCache:
    """The texts of one source. Implements `stages.crawl.listing.Shelf`. Without `write` nothing new
    outlives the process.
    """

    def __init__(self, store: Store, source: str, write: bool = True) -> None:
        self.store, self.folder, self.write = store, f"{FOLDER}/{source}", write
        self._waiting: dict[str, tuple[float, str]] = {}
        self._size, self._since = 0, 0.0
        self._places: dict[str, tuple[float, str, int]] | None = None
        """Time, file and row of the newest text of each key."""
        self._texts = lru_cache(maxsize=8)(self._read)

    def get(self, key: str) -> tuple[float, str] | None:
        if key in self._waiting:
            return self._waiting[key]
        place = self._index().get(key)
        if place is None:
            return None
        at, path, row = place
        texts = self._texts(path)
        return None if texts is None else (at, texts[row].as_py())

    def put(self, key: str, text: str) -> None:
        now = time.time()
        if not self._waiting:
            self._size, self._since = 0, now
        self._waiting[key] = now, text
        self._size += len(text)
        if len(self._waiting) >= _TEXTS or self._size >= _BYTES or now - self._since >= _SECONDS:
            self.flush()

    def flush(self) -> None:
        if not self._waiting or not self.write:
            return
        places = self._index()
        rows = [(key, at, text) for key, (at, text) in self._waiting.items()]
        sink = io.BytesIO()
        columns = [
            pa.array(values, kind)
            for values, kind in zip(zip(*rows, strict=True), _SCHEMA.types, strict=True)
        ]
        pq.write_table(
            pa.table(columns, schema=_SCHEMA), sink, compression="zstd", write_page_checksum=True
        )
        path = f"{self.folder}/{time.time_ns():020d}.parquet"
        self.store.put(path, sink.getvalue(), durable=False)
        places.update((key, (at, path, number)) for number, (key, at, _) in enumerate(rows))
        self._waiting.clear()
        self._sweep(places)

    def _index(self) -> dict[str, tuple[float, str, int]]:
        if self._places is None:
            self._places = {}
            # Names begin with their time, so that the newest text of a key comes last.
            for path in (
                path for path in self.store.list(self.folder) if path.endswith(".parquet")
            ):
                heads = _columns(self.store, path, ["key", "at"])
                if heads is None:
                    continue  # torn by a power cut: as if it were not there
                for row, (key, at) in enumerate(
                    zip(heads["key"].to_pylist(), heads["at"].to_pylist(), strict=True)
                ):
                    self._places[key] = at, path, row
        return self._places

    def _read(self, path: str) -> pa.ChunkedArray | None:
        found = _columns(self.store, path, ["text"])
        return None if found is None else found["text"]

    def _sweep(self, places: dict[str, tuple[float, str, int]]) -> None:
        """Delete files of which every text has a newer one, or is old."""
        limit = time.time() - _KEPT_DAYS * 86_400
        needed = {path for at, path, _ in places.values() if at > limit}
        self.store.delete(
            [
                path
                for path in self.store.list(self.folder)
                if path.endswith(".parquet") and path not in needed
            ]
        )
        for key in [key for key, (_, path, _) in places.items() if path not in needed]:
            del places[key]


def _columns(store: Store, path: str, columns: list[str]) -> pa.Table | None:
    """Columns of a file; None for one that is damaged or gone."""

    def attempt() -> pa.Table | None:
        try:
            with store.open(path) as file:
                return pq.read_table(file, columns=columns, page_checksum_verification=True)
        except (pa.ArrowInvalid, FileNotFoundError):
            return None
        except OSError as error:
            if "checksum" in str(error) or "CRC" in str(error):
                return None
            raise

    return store.patiently(attempt)
