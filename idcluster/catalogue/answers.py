"""How rows are written: as a table to read, CSV, JSON, Parquet."""

import csv
import io
import json
from collections.abc import Callable
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from idcluster.root.aside import aside

TextFormat = Literal["table", "csv", "json"]
Format = Literal[TextFormat, "parquet"]
FORMATS: tuple[Format, ...] = ("table", "csv", "json", "parquet")
_LIST_SHOWN, _TEXT_SHOWN, _ROWS_SHOWN = 4, 60, 1000


def as_text(rows: pa.Table | pa.RecordBatchReader, format: TextFormat) -> str:
    """Rows as text. `table` shows at most 1,000, with long lists and texts cut; `json` is one array
    with one object a line.
    """
    text = io.StringIO()
    _WRITERS[format](rows.to_reader() if isinstance(rows, pa.Table) else rows, text)
    return text.getvalue()


def write(rows: pa.Table | pa.RecordBatchReader, format: Format, path: str) -> None:
    """Rows as a file, which is there once it is whole. Raises OSError."""
    reader = rows.to_reader() if isinstance(rows, pa.Table) else rows
    with aside(path) as place:
        if format == "parquet":
            with pq.ParquetWriter(
                place, reader.schema, compression="zstd", write_page_checksum=True
            ) as writer:
                for batch in reader:
                    writer.write_batch(batch)
            return
        with place.open("w", encoding="utf-8", newline="") as file:
            _WRITERS[format](reader, file)


def _plain(value: Any) -> Any:
    """A value in JSON types; bytes as hexadecimal digits."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list):
        # Arrow gives a map as a list of pairs.
        if value and all(isinstance(item, tuple) and len(item) == 2 for item in value):
            return {str(key): _plain(item) for key, item in value}
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value if value is None or isinstance(value, str | int | float) else str(value)


def as_json(rows: pa.Table) -> list[dict[str, Any]]:
    """Rows as JSON types."""
    return [{name: _plain(value) for name, value in row.items()} for row in rows.to_pylist()]


def _write_csv(reader: pa.RecordBatchReader, file: Any) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(reader.schema.names)
    for batch in reader:
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            values = (_plain(value) for value in row)
            writer.writerow(
                [
                    json.dumps(v, ensure_ascii=False) if isinstance(v, list | dict) else v
                    for v in values
                ]
            )


def _write_json(reader: pa.RecordBatchReader, file: Any) -> None:
    names, before = reader.schema.names, "[\n"
    for batch in reader:
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            file.write(
                before
                + json.dumps(dict(zip(names, map(_plain, row), strict=True)), ensure_ascii=False)
            )
            before = ",\n"
    file.write("[]\n" if before == "[\n" else "\n]\n")


def _write_table(reader: pa.RecordBatchReader, file: Any) -> None:
    names = [_printable(name) for name in reader.schema.names]
    rows: list[list[str]] = []
    more = False
    for batch in reader:
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            if len(rows) == _ROWS_SHOWN:
                more = True
                break
            rows.append([_cell(value) for value in row])
        if more:
            break
    numeric = [
        pa.types.is_integer(f.type) or pa.types.is_floating(f.type) or pa.types.is_decimal(f.type)
        for f in reader.schema
    ]
    widths = [max(map(_width, column)) for column in zip(names, *rows, strict=True)]
    for line in (names, ["-" * width for width in widths], *rows):
        cells = [
            " " * (width - _width(cell)) + cell if right else cell + " " * (width - _width(cell))
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ]
        file.write("  ".join(cells).rstrip() + "\n")
    if more:
        file.write(f"... more rows: a table shows {_ROWS_SHOWN}; the other formats show all\n")


def _cell(value: Any) -> str:
    if isinstance(value, bytes) and len(value) > 16:
        return f"<{len(value)} bytes>"
    if isinstance(value, float):
        return f"{value:.6g}"
    if (
        isinstance(value, list)
        and len(value) > _LIST_SHOWN
        and not isinstance(value[0], tuple | dict)
    ):
        return f"[{', '.join(map(_cell, value[:_LIST_SHOWN]))}, ... {len(value)}]"
    if isinstance(value, list) and not any(isinstance(item, tuple | dict) for item in value):
        return f"[{', '.join(map(_cell, value))}]"
    plain = _plain(value)
    if isinstance(plain, list | dict):
        plain = json.dumps(plain, ensure_ascii=False)
    text = "" if plain is None else _printable(str(plain))
    return text if len(text) <= _TEXT_SHOWN else f"{text[: _TEXT_SHOWN - 3]}..."


def _printable(text: str) -> str:
    """Names from the web must not steer a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _width(text: str) -> int:
    """Columns on a terminal: East Asian wide characters take two, combining marks none."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len  # slow to import, and rarely needed

    return cell_len(text)


_WRITERS: dict[str, Callable[[pa.RecordBatchReader, Any], None]] = {
    "table": _write_table,
    "csv": _write_csv,
    "json": _write_json,
}
