"""People from the rows of a file, column by column: a list of millions of images stays in Arrow
until a bucket needs it.

Files are those of `stages.crawl.reading`, or folders of them, as large data sets are cut into
parts.
"""

import json
import math
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stages.crawl.listing import Listed, Offer, SourceError
from stages.crawl.reading import ENDINGS, ending_of, names_in, numbers_lines, rows_in

TEXT = pa.large_string()
"""Of every column: a string column of the plain kind ends at 2 GB."""

FACTS = ("address", "fingerprint", "page", "licence", "author", "split", "attributes", "reference")

_FILE = 2**40
"""What a place counts a file as; below that is the line in it."""


class OfferRows(Sequence[Offer]):
    """Some rows of a table with columns of `FACTS`, as offers that are made when they are looked
    at. A fact without a column is null.
    """

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __len__(self) -> int:
        return int(self._table.num_rows)

    @overload
    def __getitem__(self, index: int) -> Offer: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Offer]: ...
    def __getitem__(self, index: int | slice) -> Offer | Sequence[Offer]:
        if isinstance(index, slice):
            return list(self)[index]
        at = range(len(self))[index]
        return next(iter(OfferRows(self._table.slice(at, 1))))

    def __iter__(self) -> Iterator[Offer]:
        columns = [
            self._table[name].to_pylist()
            if name in self._table.column_names
            else [None] * len(self)
            for name in FACTS
        ]
        return (Offer(*facts) for facts in zip(*columns, strict=True))


def people_of(rows: pa.Table, scheme: str | None = None) -> list[Listed]:
    """The people of `rows`, in the order in which they first come.

    Columns: identity, external_id (null where the name alone tells a person), those of `FACTS`.
    `scheme` is what external ids are called, where they are to be kept; a person has the first one.
    """
    if not rows.num_rows:
        return []
    names, given = (
        rows[name].dictionary_encode().combine_chunks() for name in ("identity", "external_id")
    )
    # One number for each pair, in the order of first coming.
    pairs = names.indices.to_numpy().astype(np.int64) * (len(given.dictionary) + 1)
    pairs += given.indices.fill_null(len(given.dictionary)).to_numpy()
    order = np.argsort(pa.array(pairs).dictionary_encode().indices.to_numpy(), kind="stable")
    starts = np.flatnonzero(np.diff(pairs[order], prepend=-1))
    # Column by column, and only those that say something: each is copied.
    there = [
        name
        for name in FACTS
        if name in rows.column_names and rows[name].null_count < rows.num_rows
    ]
    facts = pa.table({name: rows[name].take(pa.array(order)) for name in there})
    firsts = pa.array(order[starts])
    counts = np.diff([*starts, rows.num_rows])
    return [
        Listed(
            name, OfferRows(facts.slice(start, count)), own, {scheme: own} if scheme and own else {}
        )
        for name, own, start, count in zip(
            names.take(firsts).to_pylist(),
            given.take(firsts).to_pylist(),
            starts.tolist(),
            counts.tolist(),
            strict=True,
        )
    ]


def files_of(source: str, path: Path) -> list[Path]:
    """The files that a path stands for: itself, or those in a folder. Raises SourceError."""
    if path.is_file():
        if ending_of(path) not in ENDINGS:
            raise SourceError(
                f"source {source!r}: {path} ends in {path.suffix or 'nothing'!r}; it has to be "
                f"one of {', '.join(ENDINGS)}"
            )
        return [path]
    if not path.is_dir():
        what = "is not a file" if path.exists() else "does not exist"
        raise SourceError(
            f"source {source!r}: {path} {what}; set source.path to a CSV, Parquet or JSON-lines "
            "file, or a folder of them"
        )
    try:
        found = sorted(
            file
            for file in path.iterdir()
            if ending_of(file) in ENDINGS and not file.name.startswith(".")
        )
    except OSError as error:
        raise SourceError(
            f"source {source!r}: {path} cannot be listed: {error.strerror}"
        ) from error
    if not found:
        raise SourceError(
            f"source {source!r}: {path} holds no files that end in {', '.join(ENDINGS)}"
        )
    return found


def check_columns(source: str, columns: Mapping[str, str], fields: Iterable[str]) -> None:
    """Raise SourceError where `columns` gives a column to something that is none of the fields."""
    unknown = sorted(columns.keys() - set(fields))
    if unknown:
        raise SourceError(
            f"source {source!r}: source.columns names {unknown[0]!r}; the fields are "
            f"{', '.join(fields)}"
        )


class Reading:
    """The columns of the files behind `path`, by field: tables that come one after the other, and
    what could not be read of them.

    `known` maps fields to the names that their columns may have, whatever their case: the first
    that is there counts. `asked` goes before. A field that a file lacks is null. With `rest`, all
    other columns come as the field `attributes`, a JSON object a row. Columns are `TEXT`; of lists,
    the items with | between them. `each` names a field whose lists are unrolled: a row for each
    item, with the items of other lists that are as long. The field `place` is for `where`.
    """

    def __init__(
        self,
        source: str,
        path: Path,
        known: Mapping[str, Sequence[str]],
        asked: Mapping[str, str],
        needed: Sequence[str],
        rest: bool = False,
        each: str | None = None,
    ) -> None:
        self.source, self.path, self.known, self.asked, self.needed, self.rest, self.each = (
            source,
            path,
            known,
            asked,
            needed,
            rest,
            each,
        )
        self.files = files_of(source, path)
        self._likely = {name.lower() for names in known.values() for name in names} | {
            name.lower() for name in asked.values()
        }
        self._faults: Counter[str] = Counter()
        self._first: dict[str, int] = {}
        self._faulty: set[int] = set()

    def __iter__(self) -> Iterator[pa.Table]:
        """Raises SourceError, also where a field of `needed` has no column."""
        for number, file in enumerate(self.files):
            try:
                names = names_in(file, self._likely)
                found = self._columns(file, names)
                others = [name for name in names if name not in found.values()] if self.rest else []

                def fault(line: int, why: str, first: int = number * _FILE) -> None:
                    self.fault(first + line, why)

                for lines, columns in rows_in(
                    file, sorted({*found.values(), *others}), self._likely, fault
                ):
                    places = np.asarray(lines, np.int64) + number * _FILE
                    known = {field: columns[name] for field, name in found.items()}
                    yield self._table(places, known, {name: columns[name] for name in others})
            except (pa.ArrowException, OSError, EOFError, zlib.error, ValueError) as error:
                if isinstance(error, SourceError):
                    raise
                said = getattr(error, "strerror", None) or str(
                    error
                )  # of what Arrow says, several lines
                raise SourceError(
                    f"source {self.source!r}: {file} cannot be read: {' '.join(said.split())}"
                ) from error

    def fault(self, place: int, why: str) -> None:
        """Note a row that cannot be read or used as it stands in its file; once, however much is
        wrong with it.
        """
        if place in self._faulty:
            return
        self._faulty.add(place)
        self._faults[why] += 1
        self._first.setdefault(why, place)

    @property
    def incomplete(self) -> bool:
        """Whether there were rows that could not be read, so far."""
        return bool(self._faults)

    def remarks(self) -> list[str]:
        """On the rows that could not be read: how many, and the first of each kind."""
        made = []
        for why, count in self._faults.most_common():
            more = f", and {count - 1} more such rows" if count > 1 else ""
            made.append(f"{self.path}: {self.where(self._first[why])} is not used: {why}{more}")
        return made

    def where(self, place: int) -> str:
        """A place in words: `line 17`, with the file where there are several."""
        file = self.files[place // _FILE]
        told = f"{'line' if numbers_lines(file) else 'row'} {place % _FILE}"
        return told if len(self.files) == 1 else f"{told} of {file.name}"

    def _columns(self, file: Path, names: Sequence[str]) -> dict[str, str]:
        lower: dict[str, str] = {}
        for name in names:
            lower.setdefault(name.lower(), name)
        found = {}
        there = f"it has {', '.join(names)}" if names else "it has none"
        for field, usual in self.known.items():
            if field in self.asked:
                if self.asked[field] not in names:
                    raise SourceError(
                        f"source {self.source!r}: {file} has no column {self.asked[field]!r}; "
                        f"{there}"
                    )
                found[field] = self.asked[field]
            else:
                match = next((lower[name] for name in usual if name in lower), None)
                if match is not None:
                    found[field] = match
        for field in self.needed:
            if field not in found:
                raise SourceError(
                    f"source {self.source!r}: {file} has no column for {field} "
                    f"({', '.join(self.known[field])}); {there}:"
                    f" say which one it is by source.columns.{field}"
                )
        return found

    def _table(
        self, places: np.ndarray, columns: Mapping[str, Any], others: Mapping[str, Any]
    ) -> pa.Table:
        given = {
            name: self._told(column, places) if name in self.needed else column
            for name, column in columns.items()
        }
        made = {
            field: _as_text(given[field]) if field in given else pa.nulls(len(places), TEXT)
            for field in self.known
        }
        made["place"] = pa.array(places)
        if self.rest:
            made["attributes"] = _attributes(others, len(places))
        if self.each is not None and _is_list(made[self.each].type):
            made = self._unrolled(made)
        if "identity" in made and _is_list(made["identity"].type):
            made["identity"] = self._alone(made["identity"], made["place"])
        table = pa.table(
            {
                name: _joined(column) if _is_list(column.type) else column
                for name, column in made.items()
            }
        )
        for field in ("identity", "name", "url"):
            if field in made:
                table = self._without_line_ends(table, field)
        return table

    def _told(self, column: Any, places: np.ndarray) -> Any:
        """The column without what can be no name and no address, which is told."""
        if not isinstance(column, list):
            if not pa.types.is_struct(column.type) and not pa.types.is_map(column.type):
                return column
            column = column.to_pylist()
        for i in [i for i, value in enumerate(column) if isinstance(value, Mapping)]:
            self.fault(
                int(places[i]),
                f"an object stands where {' or '.join(self.needed)} has to be a text",
            )
            column[i] = None
        return column

    def _unrolled(self, columns: Mapping[str, pa.Array]) -> dict[str, pa.Array]:
        """A row for each item of the lists of `each`; one with a null for an empty list."""
        items = [item if item else [None] for item in columns[str(self.each)].to_pylist()]
        counts = [len(item) for item in items]
        at = pa.array(np.repeat(np.arange(len(items)), counts))
        made = {}
        for name, column in columns.items():
            taken = column.take(at)
            if name == self.each:
                taken = pa.array([one for item in items for one in item], TEXT)
            elif _is_list(column.type):
                shared = [
                    [[one] for one in own]
                    if own is not None and len(own) == count
                    else [own] * count
                    for own, count in zip(column.to_pylist(), counts, strict=True)
                ]
                taken = pa.array([one for own in shared for one in own], _TEXTS)
            made[name] = taken
        return made

    def _alone(self, column: pa.Array, places: pa.Array) -> pa.Array:
        """Who is meant, where a list has one name; a list of several is told."""
        names: list[str | None] = []
        for place, item in zip(places.to_pylist(), column.to_pylist(), strict=True):
            if item and len(item) > 1:
                self.fault(place, "it names several people; give each a row of their own")
            names.append(item[0] if item and len(item) == 1 else None)
        return pa.array(names, TEXT)

    def _without_line_ends(self, table: pa.Table, field: str) -> pa.Table:
        """Names and addresses are one line; where one is not, a quote was opened that was meant as
        a letter.
        """
        broken = pc.fill_null(
            pc.match_substring_regex(pc.utf8_trim_whitespace(table[field]), "[\r\n]"), False
        )
        for place in table["place"].filter(broken).to_pylist():
            self.fault(
                place,
                f"its {field} goes over several lines; a quote may stand for a letter there, or "
                "not be closed",
            )
        return table.filter(pc.invert(broken)) if pc.any(broken).as_py() else table


def trimmed(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Texts without white space around them; null where nothing is left."""
    bare = pc.utf8_trim_whitespace(column)
    return pc.if_else(pc.fill_null(pc.equal(bare, ""), True), pa.scalar(None, TEXT), bare)


def _attributes(columns: Mapping[str, Any], count: int) -> pa.Array:
    """One JSON object a row, without nulls; null where nothing is left."""
    lists = {
        name: values if isinstance(values, list) else values.to_pylist()
        for name, values in columns.items()
    }
    made = []
    for i in range(count):
        said = {
            name: value
            for name, values in lists.items()
            if (value := _plain(values[i])) is not None and value != ""
        }
        made.append(as_json(said))
    return pa.array(made, TEXT)


def as_json(attributes: Mapping[str, Any]) -> str | None:
    """Attributes as text that is the same for the same attributes; null for none."""
    return (
        json.dumps(attributes, sort_keys=True, ensure_ascii=False, allow_nan=False, default=str)
        if attributes
        else None
    )


def _plain(value: Any) -> Any:
    """A value as JSON has it: not a number is none, and infinity, for which there is no number, its
    name.
    """
    if isinstance(value, str):
        return _whole(value)
    if isinstance(value, float):
        return (
            None
            if math.isnan(value)
            else value
            if math.isfinite(value)
            else "Infinity"
            if value > 0
            else "-Infinity"
        )
    if isinstance(value, Mapping):
        return {_whole(str(name)): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value.hex()
    return value


def _whole(text: str) -> str:
    """The text, with a sign of replacement for half a sign, which JSON can hold and UTF-8
    cannot.
    """
    return (
        text
        if text.isascii()
        else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    )


_TEXTS = pa.large_list(TEXT)


def _is_list(kind: pa.DataType) -> bool:
    return (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _as_text(column: list[Any] | pa.Array) -> pa.Array:
    """A column as texts, or as lists of texts."""
    if isinstance(column, list):
        texts = [
            None
            if value is None
            else value
            if type(value) is str and value.isascii()
            else _said(value)
            for value in column
        ]
        if any(isinstance(text, list) for text in texts):
            return pa.array(
                [text if text is None or isinstance(text, list) else [text] for text in texts],
                _TEXTS,
            )
        return pa.array(texts, TEXT)
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if (
        _is_list(kind)
        or pa.types.is_nested(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
    ):
        return _as_text([_plain(value) for value in column.to_pylist()])
    if pa.types.is_floating(kind):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, kind), column)
    return column.cast(TEXT)


def _said(value: Any) -> Any:
    """A value of JSON as text; of a list, its items; None for none."""
    if isinstance(value, str):
        return _whole(value)
    if isinstance(value, list):
        return [
            _said(one) if not isinstance(one, list) else as_json({"": one})
            for one in value
            if one is not None
        ]
    plain = _plain(value)
    if isinstance(plain, bool | int | float | Mapping):
        return json.dumps(plain, sort_keys=True, ensure_ascii=False, default=str)
    return None if plain is None else str(plain)


def _joined(column: pa.Array) -> pa.Array:
    return pa.array(
        [None if items is None else "|".join(items) for items in column.to_pylist()], TEXT
    )
