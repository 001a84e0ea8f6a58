"""People from the rows of a file, column by column: a list of millions of pictures stays in Arrow until a bucket needs it.

Files are CSV, TSV, JSON lines or Parquet, or folders of them, as large data sets are cut into parts.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from stages.crawl.listing import Listed, Offer, SourceError

TEXT = pa.large_string()
"""Of every column: a string column of the plain kind ends at 2 GB."""

FACTS = ("address", "fingerprint", "page", "licence", "author", "split", "attributes", "reference")

_AT_ONCE = 2**16

ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".pq")


class OfferRows(Sequence[Offer]):
    """Some rows of a table with columns of `FACTS`, as offers that are made when they are looked at. A fact without a column is null."""

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
            self._table[name].to_pylist() if name in self._table.column_names else [None] * len(self) for name in FACTS
        ]
        return (Offer(*facts) for facts in zip(*columns, strict=True))


def people_of(rows: pa.Table, scheme: str | None = None) -> list[Listed]:
    """The people of `rows`, in the order in which they first come.

    Columns: identity, external_id (null where the name alone tells a person), those of `FACTS`. `scheme` is what external
    ids are called, where they are to be kept; a person has the first one.
    """
    if not rows.num_rows:
        return []
    names, given = (rows[name].dictionary_encode().combine_chunks() for name in ("identity", "external_id"))
    # One number for each pair, in the order of first coming.
    pairs = names.indices.to_numpy().astype(np.int64) * (len(given.dictionary) + 1)
    pairs += given.indices.fill_null(len(given.dictionary)).to_numpy()
    order = np.argsort(pa.array(pairs).dictionary_encode().indices.to_numpy(), kind="stable")
    starts = np.flatnonzero(np.diff(pairs[order], prepend=-1))
    # Column by column, and only those that say something: each is copied.
    there = [name for name in FACTS if name in rows.column_names and rows[name].null_count < rows.num_rows]
    facts = pa.table({name: rows[name].take(pa.array(order)) for name in there})
    firsts = pa.array(order[starts])
    counts = np.diff([*starts, rows.num_rows])
    return [
        Listed(name, OfferRows(facts.slice(start, count)), own, {scheme: own} if scheme and own else {})
        for name, own, start, count in zip(
            names.take(firsts).to_pylist(), given.take(firsts).to_pylist(), starts.tolist(), counts.tolist(), strict=True
        )
    ]


def files_of(source: str, path: Path) -> list[Path]:
    """The files that a path stands for: itself, or those in a folder. Raises SourceError."""
    if path.is_file():
        if path.suffix.lower() not in ENDINGS:
            raise SourceError(f"source {source!r}: {path} ends in {path.suffix or 'nothing'!r}; it has to be one of {', '.join(ENDINGS)}")
        return [path]
    if not path.is_dir():
        what = "is not a file" if path.exists() else "does not exist"
        raise SourceError(f"source {source!r}: {path} {what}; set source.path to a CSV, Parquet or JSON-lines file, or a folder of them")
    found = sorted(file for file in path.iterdir() if file.suffix.lower() in ENDINGS and not file.name.startswith("."))
    if not found:
        raise SourceError(f"source {source!r}: {path} holds no files that end in {', '.join(ENDINGS)}")
    return found


def check_columns(source: str, columns: Mapping[str, str], fields: Iterable[str]) -> None:
    """Raise SourceError where `columns` gives a column to something that is none of the fields."""
    unknown = sorted(columns.keys() - set(fields))
    if unknown:
        raise SourceError(f"source {source!r}: source.columns names {unknown[0]!r}; the fields are {', '.join(fields)}")


def read_columns(
    source: str, path: Path, known: Mapping[str, Sequence[str]], asked: Mapping[str, str], needed: Sequence[str], rest: bool = False
) -> Iterator[pa.Table]:
    """The columns of the files behind `path`, as `TEXT`, by field, some rows at a time; a field that a file lacks is all null.

    `known` maps fields to the names that their columns may have, whatever their case: the first that is there counts.
    `asked` goes before. With `rest`, all other columns come as the field `attributes`, a JSON object a row. Raises SourceError,
    also where a field of `needed` has no column.
    """
    for file in files_of(source, path):
        try:
            names = _names(file)
            found = _columns(source, file, names, known, asked, needed)
            others = [name for name in names if name not in found.values()] if rest else []
            for rows in _read(file, sorted({*found.values(), *others})):
                nothing = pa.nulls(rows.num_rows, TEXT)
                fields = {field: _as_text(rows[found[field]]) if field in found else nothing for field in known}
                yield pa.table({**fields, **({"attributes": _attributes(rows.select(others))} if rest else {})})
        except (pa.ArrowException, OSError, ValueError) as error:
            if isinstance(error, SourceError):
                raise
            raise SourceError(f"source {source!r}: {file} cannot be read: {' '.join(str(error).split())}") from error


def trimmed(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Texts without white space around them; null where nothing is left."""
    bare = pc.utf8_trim_whitespace(column)
    return pc.if_else(pc.fill_null(pc.equal(bare, ""), True), pa.scalar(None, TEXT), bare)


def _attributes(rows: pa.Table) -> pa.Array:
    """One JSON object a row, without nulls; null where nothing is left."""
    made = []
    for row in rows.to_pylist():
        said = {name: value for name, value in row.items() if value is not None and value != "" and value == value}
        made.append(as_json(said))
    return pa.array(made, TEXT)


def as_json(attributes: Mapping[str, Any]) -> str | None:
    """Attributes as text that is the same for the same attributes; null for none."""
    return json.dumps(attributes, sort_keys=True, ensure_ascii=False, default=str) if attributes else None


def _as_text(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """A column as texts; a list's items with | between them."""
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        return pc.binary_join(column.cast(pa.list_(pa.string())), "|").cast(TEXT)
    return column.cast(TEXT)


def _columns(
    source: str, file: Path, names: Sequence[str], known: Mapping[str, Sequence[str]], asked: Mapping[str, str], needed: Sequence[str]
) -> dict[str, str]:
    lower: dict[str, str] = {}
    for name in names:
        lower.setdefault(name.lower(), name)
    found = {}
    for field, usual in known.items():
        if field in asked:
            if asked[field] not in names:
                raise SourceError(f"source {source!r}: {file} has no column {asked[field]!r}; it has {', '.join(names)}")
            found[field] = asked[field]
        else:
            match = next((lower[name] for name in usual if name in lower), None)
            if match is not None:
                found[field] = match
    for field in needed:
        if field not in found:
            raise SourceError(
                f"source {source!r}: {file} has no column for {field} ({', '.join(known[field])}); it has {', '.join(names)}:"
                f" say which one it is by source.columns.{field}"
            )
    return found


def _parsing(file: Path) -> pyarrow.csv.ParseOptions:
    return pyarrow.csv.ParseOptions(delimiter="\t" if file.suffix.lower() == ".tsv" else ",", newlines_in_values=True)


def _names(file: Path) -> list[str]:
    ending = file.suffix.lower()
    if ending in (".parquet", ".pq"):
        return list(pyarrow.parquet.read_schema(file).names)
    if ending in (".csv", ".tsv"):
        with pyarrow.csv.open_csv(file, parse_options=_parsing(file)) as reader:
            return list(reader.schema.names)
    return list(_sampled(file))


def _read(file: Path, columns: list[str]) -> Iterator[pa.RecordBatch | pa.Table]:
    ending = file.suffix.lower()
    if ending in (".parquet", ".pq"):
        with pyarrow.parquet.ParquetFile(file) as parquet:
            yield from parquet.iter_batches(_AT_ONCE, columns=columns)
        return
    if ending in (".csv", ".tsv"):
        # As text: 007 is a name, and so is NA.
        convert = pyarrow.csv.ConvertOptions(
            include_columns=columns, column_types=dict.fromkeys(columns, TEXT), null_values=[""], strings_can_be_null=True
        )
        with pyarrow.csv.open_csv(file, parse_options=_parsing(file), convert_options=convert) as reader:
            yield from reader
        return
    texts = _sampled(file)
    schema = pa.schema([(name, pa.string() if texts[name] else pa.int64()) for name in columns])
    parse = pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore", newlines_in_values=False)
    yield pyarrow.json.read_json(file, parse_options=parse)


def _sampled(file: Path) -> dict[str, bool]:
    """The fields of the first thousand lines of a JSON-lines file, and whether they hold texts rather than numbers."""
    found: dict[str, bool] = {}
    with file.open(encoding="utf-8") as lines:
        for line in islice((line for line in lines if line.strip()), 1000):
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError("a line that is no JSON object: it has to be JSON lines, one object a line")
            for name, value in row.items():
                found[name] = found.get(name, True) and not isinstance(value, int)
    return found
