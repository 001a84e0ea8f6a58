"""Lists of addresses: CSV, Parquet or JSON-lines files with a person and a web address in each row.

Files in the layout of LAION (URL, TEXT, WIDTH, ...) are such lists: `columns` says which column names the person.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from schemas.wording import counted, verb
from stages.crawl.listing import Listed
from stages.crawl.rows import TEXT, check_columns, files_of, people_of, read_columns, trimmed
from stages.crawl.web.address import BadAddress, canonical
from stages.stage import Fetched

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "identity": ("identity", "name", "person", "celebrity", "label"),
    "url": ("url", "image_url", "address"),
    "licence": ("licence", "license"),
    "page": ("page", "page_url", "source_page", "foreign_landing_url"),
    "author": ("author", "creator", "artist"),
    "external_id": ("external_id", "wikidata", "qid"),
}
"""What a column may be called, whatever its case; the first that is there counts."""


class UrlsSource:
    """The rows of one file, or of all files in a folder. People are told apart by `external_id` where a row has it, else by name."""

    web = True

    def __init__(self, path: Path, name: str = "web", columns: Mapping[str, str] | None = None) -> None:
        self.path, self.name, self.columns = path, name, dict(columns or {})

    def check(self) -> None:
        files_of(self.name, self.path)
        check_columns(self.name, self.columns, COLUMNS)

    def people(self) -> tuple[list[Listed], list[str]]:
        self.check()
        parts = []
        left_out: Counter[str] = Counter()
        example = ""
        for rows in read_columns(self.name, self.path, COLUMNS, self.columns, ("identity", "url")):
            part, why = _usable(rows, left_out)
            example = example or why
            parts.append(part)
        everything = pa.concat_tables(parts) if parts else None
        remarks = []
        if n := left_out["nobody"]:
            remarks.append(f"{counted(n, 'row')} of {self.path} {verb(n, 'lacks', 'lack')} a person or an address and {verb(n)} not used")
        if n := left_out["bad"]:
            bad = f"{counted(n, 'address', 'addresses')} of {self.path} {verb(n)} none of the web's"
            remarks.append(f"{bad} and {verb(n)} not used; the first is {example}")
        return ([] if everything is None else people_of(everything)), remarks

    def fetch(self, addresses: Sequence[str]) -> list[Fetched]:
        raise NotImplementedError("web addresses are fetched by the pipeline")


def _usable(rows: pa.Table, left_out: Counter[str]) -> tuple[pa.Table, str]:
    """The rows that say who and where, as `people_of` takes them, and an example of an address that is none."""
    rows = pa.table({name: trimmed(rows[name]) for name in rows.column_names})
    told = pc.and_(rows["identity"].is_valid(), rows["url"].is_valid())
    left_out["nobody"] += rows.num_rows - (pc.sum(told).as_py() or 0)
    rows = rows.filter(told)
    addresses: list[str | None] = []
    example = ""
    for url in rows["url"].to_pylist():
        try:
            addresses.append(canonical(url))
        except BadAddress as error:
            addresses.append(None)
            left_out["bad"] += 1
            example = example or f"{url[:100]!r}: {error}"
    column = pa.array(addresses, TEXT)
    nothing = pa.nulls(rows.num_rows, TEXT)
    rows = rows.drop_columns(["url"]).append_column("address", column).append_column("fingerprint", nothing)
    return rows.filter(column.is_valid()), example
