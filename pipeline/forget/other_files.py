"""Every file of a root that no snapshot names, or that says something in words: which go, and from
which something is struck.

Work that is under way (parts, what the web answered) is deleted where the doomed are in it, and
done again; what sources listed and records of runs are kept without them; reports and contact
sheets that show them are deleted, for a command makes them again.
"""

import hashlib
import io
import json
import re
from collections.abc import Iterator, Set
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from idcluster.root import lease, listing_cache, removals, spool
from idcluster.root.storage import Store
from pipeline.forget.rewrite import Rewriter
from pipeline.forget.texts import STRUCK, Needles, unescaped
from pipeline.shards.split_lists import without

TEXTS = (
    ".json",
    ".jsonl",
    ".md",
    ".txt",
    ".csv",
    ".tsv",
    ".html",
    ".htm",
    ".yaml",
    ".yml",
    ".log",
    ".svg",
    ".xml",
)
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".pdf")
FEED = "removals.json"
_OWN = "dataset.json"
_BUCKET = re.compile(r"/bucket=(\d+)/")


@dataclass(frozen=True)
class Change:
    """What becomes of a file: `data` is its new content, None where it is deleted."""

    path: str
    data: bytes | None

    @property
    def what(self) -> str:
        return "deleted" if self.data is None else "struck from"


class Sweep:
    """Goes through all files of a root. `named`: those that a snapshot names, whose rows are
    somebody else's business.
    """

    def __init__(
        self, store: Store, rewriter: Rewriter, sha256s: Set[str], named: Set[str]
    ) -> None:
        self.store, self.rewriter, self.sha256s, self.named = store, rewriter, sha256s, named
        self.needles, self.doomed = rewriter.needles, rewriter.doomed

    def changes(self) -> Iterator[Change]:
        """What is to be done, in the order of names. Files that are gone meanwhile are left out."""
        yield from (
            Change(path, data) for path, data in without(self.store, self.doomed.people).items()
        )
        for path in self.store.list(""):
            try:
                change = self._look(path)
            except FileNotFoundError:
                continue
            if change is not None:
                yield change

    def _look(self, path: str) -> Change | None:
        top = path.split("/")[0]
        if (
            path in self.named
            or path == _OWN
            or top in ("snapshots", removals.FOLDER, lease.FOLDER, "lists")
        ):
            return Change(path, None) if path.endswith(".tmp") else None
        if path.endswith(".tmp"):
            return Change(path, None)  # nobody writes now: what was begun is never finished
        if top == "tables":
            bucket = _BUCKET.search(path)
            elsewhere = bucket is not None and int(bucket[1]) not in self.rewriter.buckets
            gone = (
                (not elsewhere and self.rewriter.holds(path))
                or self.rewriter.says(path)
                or self.rewriter.names_in(path)
            )
            return Change(path, None) if gone else None
        if top == "shards":
            return self._shard(path)
        if top == "parts":
            return self._part(path)
        return self._strike(path, self.needles) if top == "runs" else self._other(path)

    def _shard(self, path: str) -> Change | None:
        if path.endswith((".tar", ".parquet")):
            return Change(path, None) if self.rewriter.derived(path) else None
        # Cards and indexes name nobody; a name of one word would strike what they say.
        return None if path.endswith(f"/{FEED}") else self._strike(path, self.needles.sure)

    def _part(self, path: str) -> Change | None:
        if path.endswith(spool.ENDING):
            return Change(path, None) if self._answers(path) else None
        if not path.endswith(".parquet"):
            text = unescaped(self.store.read(path).decode(errors="replace"))
            return (
                Change(path, None) if self.needles.find(text) or self.needles.find(path) else None
            )
        if path.startswith(f"{listing_cache.FOLDER}/"):
            return self._shelf(path)
        gone = self.rewriter.holds(path) or self.rewriter.names_in(path)
        return Change(path, None) if gone else None

    def _shelf(self, path: str) -> Change | None:
        """A file of what a service listed, without the texts about the doomed; in the same order,
        under the same name.
        """
        try:
            table = pq.read_table(io.BytesIO(self.store.read(path)))
        except pa.ArrowException:
            return Change(path, None)  # torn: of no use to anybody
        pairs = zip(table["key"].to_pylist(), table["text"].to_pylist(), strict=True)
        kept = [
            not (self.needles.find(f"{key}") or self.needles.find(unescaped(text or "")))
            for key, text in pairs
        ]
        if all(kept):
            return None
        left = table.filter(pa.array(kept, pa.bool_()))
        sink = io.BytesIO()
        pq.write_table(left, sink, compression="zstd", write_page_checksum=True)
        return Change(path, sink.getvalue() if left.num_rows else None)

    def _answers(self, path: str) -> bool:
        """Whether a file of the spool has an answer that goes, by its address or by the image
        that came, or is damaged: it is deleted, and its addresses are asked again.
        """
        try:
            found = spool.answers(self.store, path)
        except spool.DamagedSpool:
            return True
        for address, answer in found or ():
            if answer.data is not None and hashlib.sha256(answer.data).hexdigest() in self.sha256s:
                return True
            if any(
                text and self.needles.find(text)
                for text in (address, answer.final_address, answer.opt_out, answer.detail)
            ):
                return True
        return found is None

    def _strike(self, path: str, needles: Needles) -> Change | None:
        text = self.store.read(path).decode(errors="replace")
        if needles.find(unescaped(text)) is None:
            return None
        try:
            value = json.loads(text)
        except ValueError:
            struck = needles.strike(text)
            return Change(
                path, (struck if needles.find(unescaped(struck)) is None else STRUCK).encode()
            )
        struck = needles.strike_json(value)
        if struck == value:
            return None
        return Change(
            path, json.dumps(struck, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"
        )

    def _other(self, path: str) -> Change | None:
        """Files that are none of the dataset's own: reports, contact sheets, exports."""
        lower = path.lower()
        if self.doomed.in_name(path) or self.needles.sure.find(path.replace("/", " ")):
            return Change(path, None)
        if lower.endswith(TEXTS):
            found = self.needles.find(unescaped(self.store.read(path).decode(errors="replace")))
            return Change(path, None) if found else None
        if lower.endswith(".parquet"):
            gone = self.rewriter.holds(path) or self.rewriter.names_in(path)
            return Change(path, None) if gone else None
        data = self.store.read(path)
        # An image at the top of a root is a contact sheet or a plot: nobody can tell who is on it.
        shows = "/" not in path and lower.endswith(PICTURES)
        return (
            Change(path, None)
            if shows or hashlib.sha256(data).hexdigest() in self.sha256s
            else None
        )
