"""Whether anything of what was removed is left: every value of every file of a root is looked at.

Files are found by listing, not by a snapshot: every page of every Parquet file is decoded, with its
statistics and its metadata, every member of every tar and every text; names of files count as well.
What is looked for are the hashes in the receipts, under the key of the root, and what the caller
names.
"""

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from idcluster.root import lease, removals, spool
from idcluster.root.dataset_root import RunError
from idcluster.root.removals import load_bars, words
from idcluster.root.spellings import as_one, boundless, in_any_order, may_be_several, readings
from idcluster.root.storage import Store
from pipeline.forget.other_files import FEED, PICTURES, TEXTS
from pipeline.forget.text_columns import CLOSED, NAMES
from pipeline.forget.texts import Needles, distinct, unescaped
from schemas import identity_id

_TOKEN = re.compile(r"[0-9A-Za-z]+")
_HEX = re.compile(r"[0-9a-f]+")
_NAME_WORDS = 6
"""A name of more words is found only where it stands alone, or where the caller names it."""
_NAME_LETTERS = 8
"""As many letters has a name that is looked for inside of words, in scripts without blanks between
these.
"""
_OF_LENGTH = {16: "identity", 24: "image", 64: "sha256"}
"""What hexadecimal digits may be, by how many there are."""
_LONG = 400
"""Letters after which a text is no name."""
_AT_ONCE = 64_000_000
"""Bytes of a row group up to which all its columns are decoded together."""
_ASKED = "what was asked for: "
_MOST = 1000
"""Places after which no more are listed."""


@dataclass(frozen=True)
class Leftover:
    """Something that was removed and is still there, without repeating it: `what` says its kind."""

    path: str
    where: str
    what: str


@dataclass
class Checked:
    """What came of it. `unread` are images and other files that are no part of a dataset and
    cannot be searched.
    """

    leftovers: list[Leftover] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    files: int = 0
    values: int = 0
    strangers: list[str] = field(default_factory=list)
    """What was asked for and neither is anywhere nor was ever removed or barred: it may be written
    wrongly.
    """


def verify(
    store: Store,
    identities: Iterable[str] = (),
    urls: Sequence[str] = (),
    sha256s: Sequence[str] = (),
) -> Checked:
    """Look through a root. Raises RunError where there is nothing to look for, and for damaged
    receipts.
    """
    bars = load_bars(store)
    given = list(identities)
    ids = {identity_id(name) for name in given} | {
        name for name in given if len(name) == 16 and _HEX.fullmatch(name)
    }
    needles = Needles.of((name for name in given if name not in ids), urls, {*ids, *sha256s}, ())
    if not (bars or given or needles.addresses or needles.ids):
        raise RunError(
            f"nothing was ever removed from {store.root}, so there is nothing to look for; name "
            "somebody by --identity"
        )
    checked = _Verifier(store, bars, needles).all()
    if not any(leftover.what.startswith(_ASKED) for leftover in checked.leftovers):
        checked.strangers = [
            *(name for name in given if not _was_removed(bars, name)),
            *(url for url in urls if not _was_barred(bars, url)),
            *(sha256 for sha256 in sha256s if not bars.text("sha256", sha256)),
        ]
    return checked


def _was_removed(bars: removals.Bars, said: str) -> bool:
    ids = (said, identity_id(said), identity_id(said, said))
    return (
        bars.name(said)
        or bars.text("external_id", said)
        or any(bars.text("identity", one) for one in ids)
    )


def _was_barred(bars: removals.Bars, url: str) -> bool:
    from stages.crawl.web.address import BadAddress, canonical

    try:
        return bars.address(url) or bars.address(canonical(url))
    except BadAddress:
        return False


class _Verifier:
    def __init__(self, store: Store, bars: removals.Bars, needles: Needles) -> None:
        self.store, self.bars, self.needles, self.checked = store, bars, needles, Checked()
        self.known = {kind: bars.hashes.get(kind, frozenset()) for kind in removals.KINDS}
        self.vectors = bool(self.known["vector"])
        self.named = bool(self.known["name"] or self.known["spelling"])

    def all(self) -> Checked:
        for path in self.store.list(""):
            receipt = path.startswith(f"{removals.FOLDER}/") and path != removals.UNFINISHED
            if receipt or path.startswith(f"{lease.FOLDER}/") or path == "dataset.json":
                continue
            self.checked.files += 1
            self._said(path, "name of the file", self._phrases(path))
            try:
                self._file(path)
            except FileNotFoundError:
                continue
            except (pa.ArrowException, tarfile.TarError, OSError) as error:
                self._leave(
                    path,
                    "the file",
                    "cannot be read, so nobody knows what is in it "
                    f"({' '.join(str(error).split())[:200]})",
                )
            if len(self.checked.leftovers) >= _MOST:
                self._leave(path, "from here on", "too many places to list")
                break
        return self.checked

    def _leave(self, path: str, where: str, what: str) -> None:
        self.checked.leftovers.append(Leftover(path, where, what))

    def _said(self, path: str, where: str, what: str | None) -> None:
        if what is not None:
            self._leave(path, where, what)

    def _file(self, path: str) -> None:
        lower = path.lower()
        if path == removals.UNFINISHED:
            self._leave(path, "the file", "a removal that was broken off: --resume finishes it")
        elif lower.endswith(".tmp"):
            self._leave(
                path, "the file", "something that was begun and never finished, with anything in it"
            )
        elif lower.endswith((".parquet", ".pq")):
            self._parquet(path)
        elif lower.endswith(".tar"):
            self._tar(path)
        elif lower.endswith(spool.ENDING):
            self._spool(path)
        elif lower.endswith(TEXTS) or path.startswith("parts/"):
            if not path.endswith(f"/{FEED}"):
                self._text(path, "the text", self.store.read(path))
        else:
            self._bytes(path, "the file", self.store.read(path))
            if lower.endswith(PICTURES):
                self.checked.unread.append(path)

    # Parquet

    def _parquet(self, path: str) -> None:
        with (
            self.store.open(path) as file,
            pq.ParquetFile(file, page_checksum_verification=True) as parquet,
        ):
            for key, value in (parquet.schema_arrow.metadata or {}).items():
                if not key.startswith(b"ARROW:"):
                    self._text(path, "metadata", value)
            for number in range(parquet.num_row_groups):
                self._statistics(path, parquet.metadata.row_group(number))
                small = parquet.metadata.row_group(number).total_byte_size < _AT_ONCE
                names = parquet.schema_arrow.names
                for together in [names] if small else [[name] for name in names]:
                    rows = self.store.patiently(partial(parquet.read_row_group, number, together))
                    for name in together:
                        self.checked.values += rows.num_rows
                        for what in self._column(name, rows[name].combine_chunks()):
                            self._leave(path, f"column {name}", what)
                            break

    def _statistics(self, path: str, group: Any) -> None:
        for at in range(group.num_columns):
            found = group.column(at).statistics
            for value in (found.min, found.max) if found is not None and found.has_min_max else ():
                if isinstance(value, str | bytes):
                    text = value if isinstance(value, str) else value.decode(errors="replace")
                    self._said(
                        path, f"statistics of {group.column(at).path_in_schema}", self._value(text)
                    )

    def _column(self, name: str, column: pa.Array) -> Iterator[str]:
        """What of the removed is in a column, by kind."""
        kind = column.type
        if pa.types.is_struct(kind):
            for place in range(kind.num_fields):
                yield from self._column(f"{name}.{kind.field(place).name}", column.field(place))
        elif pa.types.is_map(kind):
            yield from self._column(name, column.keys)
            yield from self._column(name, column.items)
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
            if pa.types.is_floating(kind.value_type):
                yield from self._vectors(column)
            else:
                yield from self._column(name, column.flatten())
        elif pa.types.is_dictionary(kind):
            yield from self._column(name, column.dictionary)
        elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
            top = name.split(".")[0]
            look = self._value if top in CLOSED or top in NAMES else self._phrases
            yield from (
                what
                for text in pc.unique(column).drop_null().to_pylist()
                if (what := look(text)) is not None
            )
        elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            yield from (
                what
                for data in column.drop_null().to_pylist()
                if (what := self._digest(data)) is not None
            )
        elif pa.types.is_uint64(kind) and (self.known["phash"] or len(self.bars.looks)):
            values = pc.unique(column).drop_null().to_numpy()
            hashes = self.bars.key.phashes(
                values[(np.bitwise_count(values) >= 8) & (np.bitwise_count(values) <= 56)]
            )
            if np.isin(hashes, self.bars.looks).any() or any(
                f"{value:016x}" in self.known["phash"] for value in hashes.tolist()
            ):
                yield "the perceptual hash of a removed image"

    def _vectors(self, column: pa.Array) -> Iterator[str]:
        if not self.vectors:
            return
        for values in column.drop_null():
            array = values.values.to_numpy(zero_copy_only=False)
            if len(array) and self.bars.key.vector(array) in self.known["vector"]:
                yield "the vector of a removed face"

    # Values

    def _value(self, text: str) -> str | None:
        """What of the removed a value is."""
        self.checked.values += 1
        kind = _OF_LENGTH.get(len(text))
        if kind is not None and _HEX.fullmatch(text):
            if self.known[kind] and self.bars.key.text(kind, text) in self.known[kind]:
                return f"the {kind} of somebody or something removed"
            return f"{_ASKED}id or hash" if text in self.needles.ids else None
        if self.known["address"] and self.bars.key.text("address", text) in self.known["address"]:
            return "the address of something removed"
        if self._external(text):
            return "the external_id of somebody removed"
        if self.named and len(text) < _LONG and self.bars.name(text):
            return "the name of somebody removed"
        found = self.needles.find(text)
        return None if found is None else f"{_ASKED}{found}"

    def _external(self, text: str) -> bool:
        known = self.known["external_id"]
        return (
            bool(known)
            and len(text) < 40
            and distinct(text)
            and self.bars.key.text("external_id", text) in known
        )

    def _phrases(self, text: str) -> str | None:
        """As `_words`; names of one word, which may be any word, only where they stand alone."""
        return self._words(text, 2)

    def _words(self, text: str, least: int = 1) -> str | None:
        """What of the removed stands somewhere in a text. `least`: words that a name has to
        have.
        """
        text = unescaped(text)
        found = self._value(text)
        if found is not None:
            return found
        for token in set(_TOKEN.findall(text)):
            kind = _OF_LENGTH.get(len(token))
            if kind is not None and _HEX.fullmatch(token):
                if self.known[kind] and self.bars.key.text(kind, token) in self.known[kind]:
                    return f"the {kind} of somebody or something removed"
            elif self._external(token):
                return "the external_id of somebody removed"
        if self.known["address"]:
            for address in _addresses(text):
                if self.bars.key.text("address", address) in self.known["address"]:
                    return "the address of something removed"
        return "the name of somebody removed" if self.named and self._names(text, least) else None

    def _names(self, text: str, least: int) -> bool:
        """Whether a name of `least` words or more stands in a text, in any spelling."""
        strict, known = self.known["name"], self.known["spelling"]
        ways: list[tuple[str, frozenset[str], Callable[[list[str]], str], list[str]]] = []
        if strict:
            ways.append(("name", strict, " ".join, words(text).split()))
        for said in readings(text) if known else ():
            ways += [("spelling", known, in_any_order, said), ("spelling", known, as_one, said)]
        for kind, hashes, key, said in ways:
            shortest = 1 if key is as_one else least
            for start in range(len(said)):
                for stop in range(start + shortest, min(start + _NAME_WORDS, len(said)) + 1):
                    window = said[start:stop]
                    if (key is not as_one or may_be_several(window)) and self.bars.key.text(
                        kind, key(window)
                    ) in hashes:
                        return True
            for word in filter(boundless, said if key is not in_any_order else ()):
                parts = (
                    word[at : at + size]
                    for size in range(2, _NAME_LETTERS + 1)
                    for at in range(len(word) - size + 1)
                )
                if any(self.bars.key.text(kind, key([part])) in hashes for part in parts):
                    return True
        return False

    def _digest(self, data: bytes) -> str | None:
        self.checked.values += 1
        return self._value(hashlib.sha256(data).hexdigest()) and "a removed image"

    # Tars and texts

    def _tar(self, path: str) -> None:
        with self.store.open(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                self._said(path, f"name of member {member.offset}", self._words(member.name))
                data = tar.extractfile(member)
                content = b"" if data is None else data.read()
                if member.name.endswith(TEXTS):
                    self._text(path, f"member {member.offset}", content)
                elif member.name.endswith(".npy"):
                    self._npy(path, f"member {member.offset}", content)
                else:
                    self._bytes(path, f"member {member.offset}", content)

    def _spool(self, path: str) -> None:
        found = spool.answers(self.store, path)
        if found is None:
            self._leave(path, "the file", "torn, with anything in it: the next run deletes it")
        for number, (address, answer) in enumerate(found or ()):
            for text in (address, answer.final_address, answer.opt_out, answer.detail):
                if text is not None:
                    self._said(path, f"answer {number}", self._words(text))
            if answer.data is not None:
                self._bytes(path, f"answer {number}", answer.data)

    def _npy(self, path: str, where: str, data: bytes) -> None:
        try:
            values = np.load(io.BytesIO(data), allow_pickle=False)
        except ValueError:
            values = np.zeros(0, np.float32)
        if (
            self.vectors
            and values.size
            and self.bars.key.vector(values.astype(np.float32).ravel()) in self.known["vector"]
        ):
            self._leave(path, where, "the vector of a removed face")

    def _bytes(self, path: str, where: str, data: bytes) -> None:
        self._said(path, where, self._digest(data))

    def _text(self, path: str, where: str, data: bytes) -> None:
        text = data.decode(errors="replace")
        look = self._phrases if path.startswith(("shards/", "snapshots/")) else self._words
        try:
            value = json.loads(text)
        except ValueError:
            for line in text.splitlines():
                what = look(unescaped(line))
                if what is not None:
                    self._leave(path, where, what)
                    return
            return
        for what in _in_json(value, look, self._number):
            self._leave(path, where, what)
            return

    def _number(self, values: list[Any]) -> str | None:
        """What of the removed a list of numbers is."""
        if (
            self.vectors
            and len(values) > 7
            and self.bars.key.vector(np.array(values, np.float32)) in self.known["vector"]
        ):
            return "the vector of a removed face"
        return None


def _addresses(text: str) -> Iterator[str]:
    """What may be an address in a text: what stands between blanks, quotes or brackets, from a
    scheme or source on.
    """
    for part in re.split(r"[\s\"'<>\\]+", text):
        if ":" in part:
            yield part.rstrip(".,;)")
    # Addresses of folders may have blanks in them.
    for match in re.finditer(r"[A-Za-z0-9_-]+:[^\"'<>\\]+", text):
        yield match[0].rstrip()


def _in_json(
    value: Any, look: Callable[[str], str | None], numbers: Callable[[list[Any]], str | None]
) -> Iterator[str]:
    if isinstance(value, str):
        what = look(value)
        if what is not None:
            yield what
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _in_json(name, look, numbers)
            yield from _in_json(item, look, numbers)
    elif isinstance(value, list):
        if value and all(
            isinstance(item, float | int) and not isinstance(item, bool) for item in value
        ):
            what = numbers(value)
            if what is not None:
                yield what
        else:
            for item in value:
                yield from _in_json(item, look, numbers)
