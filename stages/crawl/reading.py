"""Rows out of files as people have them: CSV, TSV, JSON lines or a JSON array, Parquet; packed with
gzip where they are text.

Text is read by `csv` and `json` of the standard library, which say of every row in which line it
stands; faster readers know that of no row that they accept. A row that cannot be read costs itself
alone, and is told with its line.
"""

import csv
import gzip
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".pq")
"""What names of lists end in; those of text may have `.gz` behind it."""

AT_ONCE = 2**16

_LONGEST = 2**26
"""Characters of the longest cell that is read."""

_NONE = pa.scalar(None, pa.large_string())

_DELIMITERS = (",", ";", "\t", "|")

Fault = Callable[[int, str], None]
"""Takes the line (or row) that cannot be read, and why."""

Rows = tuple[Sequence[int], Mapping[str, Any]]
"""Lines (or rows) of the file from 1, and the values by column: a list, or an Arrow array."""


class Unreadable(ValueError):
    """A file that cannot be read as a list at all; the message says where and why, without its
    name.
    """


def ending_of(file: Path) -> str:
    """The ending that says what is in a file, in small letters: `.csv` of list.CSV.gz."""
    ending = file.suffix.lower()
    inner = Path(file.stem).suffix.lower()
    return (
        inner
        if ending == ".gz" and inner in ENDINGS and inner not in (".parquet", ".pq")
        else ending
    )


def numbers_lines(file: Path) -> bool:
    """Whether the numbers of its rows are lines of text."""
    return ending_of(file) not in (".parquet", ".pq") and not _is_array(file)


def names_in(file: Path, likely: Collection[str]) -> list[str]:
    """The names of a file's columns, in its order. `likely`: names that columns may have, which
    tell the delimiter of a CSV file.

    Raises Unreadable, also where two columns have one name.
    """
    ending = ending_of(file)
    if ending in (".parquet", ".pq"):
        names = list(pyarrow.parquet.read_schema(file).names)
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise Unreadable(f"two columns are called {twice!r}; give one of them another name")
        return names
    if ending in (".csv", ".tsv"):
        with _text(file, newline="") as lines:
            return _Cells(lines, ending, likely).names
    found: dict[str, None] = {}
    for _, row in _objects(file, lambda line, why: None, json.JSONDecoder()):
        if not found.keys() >= row.keys():
            found.update(dict.fromkeys(row))
    return list(found)


def rows_in(
    file: Path, columns: Sequence[str], likely: Collection[str], fault: Fault
) -> Iterator[Rows]:
    """Those columns of a file, some rows at a time. Rows that cannot be read go to `fault`. Raises
    Unreadable.
    """
    ending = ending_of(file)
    if ending in (".parquet", ".pq"):
        first = 1
        with pyarrow.parquet.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(AT_ONCE, columns=list(columns)):
                yield range(first, first + batch.num_rows), {name: batch[name] for name in columns}
                first += batch.num_rows
        return
    if ending in (".csv", ".tsv"):
        with _text(file, newline="") as lines:
            yield from _Cells(lines, ending, likely).rows(columns, fault)
        return
    rows = _objects(file, fault)
    while some := list(islice(rows, AT_ONCE)):
        yield (
            [line for line, _ in some],
            {name: [row.get(name) for _, row in some] for name in columns},
        )


class _Cells:
    """The rows of a CSV or TSV file: its heading first.

    In TSV files a quote is a letter like any other, except around a whole cell.
    """

    def __init__(self, lines: Iterator[str], ending: str, likely: Collection[str]) -> None:
        head = ""
        skipped = 0
        for head in lines:
            told = re.fullmatch(r"sep=(.)\s*", head, re.IGNORECASE)  # as Excel writes it
            if head.strip() and not told:
                break
            skipped += 1
            head = ""
        if not head:
            raise Unreadable("it is empty; the first line has to name the columns")
        self._tabs = ending == ".tsv"
        delimiter = "\t" if self._tabs else _delimiter(head, likely)
        self._skipped = skipped
        # A row within a cell: an address at the head of a line or of a cell.
        self._row_inside = re.compile(
            rf'[\r\n](?:[^\r\n]*{re.escape(delimiter)})?"?https?://[^\r\n]*'
        )
        self._delimiter = delimiter
        options: dict[str, Any] = {"delimiter": delimiter, "strict": True}
        # `name, url`: blanks behind delimiters are no part of the cells, and a quote may stand
        # behind them.
        options |= (
            {"quoting": csv.QUOTE_NONE}
            if self._tabs
            else {"skipinitialspace": f"{delimiter} " in head}
        )
        self._reader = csv.reader(chain([head], lines), **options)
        try:
            with _long_cells():
                heading = next(self._reader)
        except csv.Error as error:
            raise Unreadable(
                f"line {skipped + 1}, the names of the columns, cannot be read: {error}"
            ) from error
        if any("\0" in name or not _is_text(name) for name in heading):
            raise Unreadable(
                f"line {skipped + 1}, the names of the columns, is no UTF-8 text; save the file "
                "as UTF-8"
            )
        given = [(_unquoted(name) if self._tabs else name).strip() for name in heading]
        self._named = len(given) - next(
            (i for i, name in enumerate(reversed(given)) if name), len(given)
        )
        """Columns up to the last one with a name: what is behind it may be missing."""
        self.names = [name or f"column {number}" for number, name in enumerate(given, 1)]
        twice = next((name for name in self.names if self.names.count(name) > 1), None)
        if twice is not None:
            raise Unreadable(f"two columns are called {twice!r}; give one of them another name")

    def rows(self, columns: Sequence[str], fault: Fault) -> Iterator[Rows]:
        at = [self.names.index(name) for name in columns]
        while True:
            with _long_cells():
                places, rows = self._some(fault)
            if not places:
                return
            values = list(zip(*rows, strict=True))
            cells = [values[i] for i in at]
            # Looked at all at once: hardly ever is there anything to be found.
            texts = ["".join(column) for column in cells]
            if any("\0" in text or not (text.isascii() or _is_text(text)) for text in texts):
                good = [
                    i
                    for i, row in enumerate(zip(*cells, strict=True))
                    if self._is_sound("".join(row), places[i], fault)
                ]
                places, cells = (
                    [places[i] for i in good],
                    [tuple(column[i] for i in good) for column in cells],
                )
            if self._tabs:
                cells = [
                    tuple(map(_unquoted, column)) if '"' in text else column
                    for text, column in zip(texts, cells, strict=True)
                ]
            arrays = [pa.array(column, pa.large_string()) for column in cells]
            yield (
                places,
                {
                    name: pc.if_else(pc.equal(array, ""), _NONE, array)
                    for name, array in zip(columns, arrays, strict=True)
                },
            )

    def _some(self, fault: Fault) -> tuple[list[int], list[list[str]]]:
        """The next rows, at most `AT_ONCE`, none at the end: their lines and their cells, as many
        as there are names.
        """
        reader, width, skipped = self._reader, len(self.names), self._skipped
        places: list[int] = []
        rows: list[list[str]] = []
        while len(places) < AT_ONCE:
            before = reader.line_num
            try:
                row = next(reader)
            except StopIteration:
                break
            except csv.Error as error:
                fault(before + 1 + skipped, self._why(error, before + 1 + skipped))
                continue
            if len(row) != width:
                if not row:
                    continue
                if len(row) < self._named:
                    fault(before + 1 + skipped, f"it has {len(row)} of {self._named} cells")
                    continue
                if any(row[width:]):
                    fault(before + 1 + skipped, f"it has {len(row)} cells for {width} columns")
                    continue
                row = row[:width] + [""] * (width - len(row))
            if reader.line_num > before + 1:
                self._look_inside(before + 1 + skipped, row, fault)
            places.append(before + 1 + skipped)
            rows.append(row)
        return places, rows

    @staticmethod
    def _is_sound(cells: str, line: int, fault: Fault) -> bool:
        why = (
            "it holds a zero byte"
            if "\0" in cells
            else ""
            if _is_text(cells)
            else "it is no UTF-8; save the file as UTF-8"
        )
        if why:
            fault(line, why)
        return not why

    def _look_inside(self, line: int, row: Sequence[str], fault: Fault) -> None:
        """Tell where a cell seems to hold other rows, as one does whose quote was not meant as
        one.
        """
        for name, cell in zip(self.names, row, strict=False):
            found = self._row_inside.search(cell)
            if found and found[0].count(self._delimiter) >= len(self.names) - 2:
                fault(
                    line,
                    f"its cell {name!r} holds what looks like other rows; a quote may stand for "
                    "a letter there, or not be closed",
                )

    def _last(self) -> int:
        return self._reader.line_num + self._skipped

    def _why(self, error: csv.Error, line: int) -> str:
        last = self._last()
        if "unexpected end of data" in str(error):
            raise Unreadable(
                f"line {line} opens a quote that nothing closes, so that all behind it is one "
                "cell; close it, or write two quotes for one"
            )
        if "larger than field limit" in str(error):
            return f"a cell has more than {_LONGEST} characters" + (
                ", perhaps as a quote is not closed" if last > line else ""
            )
        behind = f", up to line {last}" if last > line else ""
        return f"a quote ends within a cell{behind}; within quotes write two quotes for one"


def _delimiter(head: str, likely: Collection[str]) -> str:
    """What stands between the names of a heading: what gives most names that are known, else most
    names.
    """

    def worth(delimiter: str) -> tuple[int, int]:
        names = [name.strip().strip('"').lower() for name in head.split(delimiter)]
        return sum(name in likely for name in names), len(names)

    return max(_DELIMITERS, key=worth)


def _unquoted(cell: str) -> str:
    """The cell without quotes around it, where all quotes inside are doubled."""
    inside = cell[1:-1]
    quoted = len(cell) >= 2 and cell[0] == cell[-1] == '"' and '"' not in inside.replace('""', "")
    return inside.replace('""', '"') if quoted else cell


@contextmanager
def _long_cells() -> Iterator[None]:
    """The limit on the length of cells is the whole process's, so it is put back whenever rows are
    handed out.
    """
    before = csv.field_size_limit(_LONGEST)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _objects(
    file: Path, fault: Fault, decoder: json.JSONDecoder | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file of JSON lines or of one JSON array, each with its line or number."""
    good = 0
    first = ""
    for number, row, why in (
        _items(file) if _is_array(file) else _lines_of_json(file, decoder or _JSON)
    ):
        if not why and isinstance(row, dict):
            good += 1
            yield number, row
        else:
            why = why or "it is no JSON object"
            first = first or f"{'line' if numbers_lines(file) else 'row'} {number}: {why}"
            fault(number, why)
    if first and not good:
        raise Unreadable(
            f"{first}; it has to be JSON lines, one object a line, or one array of objects"
        )


def _items(file: Path) -> Iterator[tuple[int, Any, str]]:
    with _text(file) as lines:
        for number, row in enumerate(json_values(lambda size: _some_text(lines, size), "["), 1):
            yield number, row, ""


def _lines_of_json(file: Path, decoder: json.JSONDecoder) -> Iterator[tuple[int, Any, str]]:
    """Number of the line, its value, and why it has none."""
    with _text(file) as lines:
        for number, text in enumerate(lines, 1):
            if not text.strip():
                continue
            row, why = None, ""
            try:
                row = decoder.decode(text)
            except RecursionError:
                why = "it is nested too deeply"
            except ValueError as error:
                why = f"it is no JSON object: {getattr(error, 'msg', str(error))[:100]}"
            if not why and not text.isascii() and not _is_text(text):
                why = "it is no UTF-8; save the file as UTF-8"
            yield number, row, why


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a name stands in it twice")
    return made


_JSON = json.JSONDecoder(object_pairs_hook=_no_doubles)


def json_values(read: Callable[[int], str], opening: str, at_once: int = 2**20) -> Iterator[Any]:
    """The items of a JSON array, or members (name and value) of an object, one after the other as
    `read` gives their text.

    Raises ValueError for anything else, and for what breaks off.
    """
    closing = {"[": "]", "{": "}"}[opening]
    text = read(at_once).lstrip()
    if not text.startswith(opening):
        raise ValueError(f"is no JSON {'array' if opening == '[' else 'object'}")
    at, ended, larger = 1, False, at_once
    while True:
        try:
            start = _past(text, at, ", \t\r\n")
            if text[start] == closing:
                return
            item: Any
            if opening == "[":
                item, end = _JSON.raw_decode(text, start)
            else:
                name, colon = _JSON.raw_decode(text, start)
                value, end = _JSON.raw_decode(text, _past(text, colon, ": \t\r\n"))
                item = name, value
            # A value that ends where the text does may go on behind it.
            if end == len(text):
                raise IndexError
        except (IndexError, ValueError) as error:
            if ended:
                raise ValueError("ends or breaks off in the middle") from error
            more = read(larger)
            text, at, ended = text[at:] + more, 0, not more
            larger *= 2  # a value that is still not whole is decoded again from its beginning
            continue
        yield item
        at, larger = end, at_once


def _past(text: str, at: int, skipped: str) -> int:
    while text[at] in skipped:
        at += 1
    return at


def _is_array(file: Path) -> bool:
    """Whether a JSON file is one array, not lines. Of one whose every line is an array that is no
    matter: neither is a list of people.
    """
    if ending_of(file) in (".csv", ".tsv", ".parquet", ".pq"):
        return False
    with _text(file) as lines:
        for text in lines:
            if text.strip():
                return text.lstrip().startswith("[")
    return False


@contextmanager
def _text(file: Path, newline: str | None = None) -> Iterator[Iterator[str]]:
    """The lines of a text file, unpacked, without a byte order mark; bytes that are no UTF-8 become
    lone surrogates.
    """
    opened: Any = gzip.open if file.suffix.lower() == ".gz" else open
    with opened(file, "rb") as data:
        encoding = _encoding(data.read(4096))
    errors = "surrogateescape" if encoding == "utf-8-sig" else "replace"
    with opened(file, "rt", encoding=encoding, errors=errors, newline=newline) as text:
        yield text


def text_lines(file: Path, fault: Fault) -> Iterator[tuple[int, str]]:
    """The lines of a plain text file, with their numbers. Those that are no UTF-8 go to `fault`.
    Raises Unreadable, OSError.
    """
    with _text(file) as lines:
        for number, line in enumerate(lines, 1):
            if _is_text(line):
                yield number, line
            else:
                fault(number, "it is no UTF-8; save the file as UTF-8")


def _some_text(lines: Iterator[str], size: int) -> str:
    """Whole lines of together at least `size` characters, while there are any."""
    some: list[str] = []
    length = 0
    for line in lines:
        some.append(line)
        length += len(line)
        if length >= size:
            break
    text = "".join(some)
    if not text.isascii() and not _is_text(text):
        raise Unreadable("it is no UTF-8; save the file as UTF-8")
    return text


def _encoding(head: bytes) -> str:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):  # what Excel calls Unicode text
        return "utf-16"
    if head[1:2] == b"\0" and b"\0" in head[3:4]:
        return "utf-16-le"
    return "utf-8-sig"


def _is_text(text: str) -> bool:
    """Whether there are no lone surrogates in it, which stand for bytes that are no text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
