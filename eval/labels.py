"""Label files: what somebody said of photographs, row by row. What a label means for a measurement
is said where that measurement is made.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import UserError


class BadLabels(UserError, ValueError):
    """Photographs or their labels cannot be used; the message names file, line and remedy."""

    exit_code = 2


@dataclass(frozen=True)
class LabelRow:
    """A row of a label file, its values as they are written, without spaces around them; empty
    where the file has no such column.
    """

    where: str
    """File and line, for messages."""
    file: str
    person: str
    label_check: str
    """What came out when somebody looked at it: `ok`, `wrong person`, `hard`, ..."""
    n_faces: str


def read_rows(path: Path, one_of: Sequence[str] = ()) -> Iterator[LabelRow]:
    """The rows of a CSV file with a column `file` and, where `one_of` is given, one of these
    columns at least. Raises BadLabels.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as opened:
            reader = csv.DictReader(opened)
            _check_columns(path, reader.fieldnames or (), one_of)
            for row in reader:
                file, person, check, faces = (
                    (row.get(name) or "").strip()
                    for name in ("file", "person", "label_check", "n_faces")
                )
                where = f"{path}:{reader.line_num}"
                if not file:
                    raise BadLabels(f"{where}: the column file is empty")
                yield LabelRow(where, file, person, check, faces)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadLabels(
            f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from error


def _check_columns(path: Path, columns: Sequence[str], one_of: Sequence[str]) -> None:
    there = f"it has {', '.join(columns) or 'none'}"
    if one_of and ("file" not in columns or not {*one_of} & {*columns}):
        wanted = f"file and {', '.join(one_of)} or both"
        raise BadLabels(f"{path}: needs the columns {wanted}; {there}")
    if "file" not in columns:
        raise BadLabels(f"{path}: has no column `file`; {there}")
