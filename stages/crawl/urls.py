"""Lists of addresses: CSV, Parquet or JSON-lines files with a person and a web address in each row.

Files in the layout of LAION (URL, TEXT, WIDTH, ...) are such lists: `columns` says which column
names the person.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from schemas.fetched import Fetched
from schemas.wording import counted, verb
from stages.crawl.listed_rows import TEXT, Reading, check_columns, files_of, people_of, trimmed
from stages.crawl.listing import Listed, SourceError
from stages.crawl.web.address import BadAddress, canonical

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "identity": ("identity", "name", "person", "celebrity", "label"),
    "url": ("url", "image_url", "address"),
    "licence": ("licence", "license"),
    "page": ("page", "page_url", "source_page", "foreign_landing_url"),
    "author": ("author", "creator", "artist"),
    "external_id": ("external_id", "wikidata", "qid"),
    "reference": ("reference", "is_reference"),
}
"""What a column may be called, whatever its case; the first that is there counts."""


class UrlsSource:
    """The rows of one file, or of all files in a folder. People are told apart by `external_id`
    where a row has it, else by name.
    """

    web = True

    def __init__(
        self, path: Path, name: str = "web", columns: Mapping[str, str] | None = None
    ) -> None:
        self.path, self.name, self.columns = path, name, dict(columns or {})
        self.incomplete = False

    def check(self) -> None:
        files_of(self.name, self.path)
        check_columns(self.name, self.columns, COLUMNS)

    def people(self) -> tuple[list[Listed], list[str]]:
        self.check()
        reading = Reading(
            self.name, self.path, COLUMNS, self.columns, ("identity", "url"), each="url"
        )
        left_out: Counter[str] = Counter()
        first: dict[str, tuple[int, str]] = {}
        parts = [_usable(rows, left_out, first) for rows in reading]
        remarks = []
        if n := left_out["nobody"]:
            what = (
                f"{counted(n, 'row')} of {self.path} {verb(n, 'lacks', 'lack')} a person or "
                f"an address and {verb(n)} not used"
            )
            remarks.append(f"{what}; the first is {reading.where(first['nobody'][0])}")
        if n := left_out["bad"]:
            place, example = first["bad"]
            bad = (
                f"{counted(n, 'address', 'addresses')} of {self.path} {verb(n)} none of the "
                f"web's and {verb(n)} not used"
            )
            remarks.append(f"{bad}; the first is in {reading.where(place)}: {example}")
        remarks += reading.remarks()
        self.incomplete = reading.incomplete
        listed = people_of(pa.concat_tables(parts)) if parts else []
        if not listed:
            raise SourceError(
                f"source {self.name!r}: {self.path} names no image of anybody"
                + "".join(f"; {text}" for text in remarks)
            )
        return listed, remarks

    def fetch(self, addresses: Sequence[str]) -> list[Fetched]:
        raise NotImplementedError("web addresses are fetched by the pipeline")


def _usable(rows: pa.Table, left_out: Counter[str], first: dict[str, tuple[int, str]]) -> pa.Table:
    """The rows that say who and where, as `people_of` takes them; of the others the count, and the
    first with what is wrong with it.
    """
    rows = pa.table(
        {name: rows[name] if name == "place" else trimmed(rows[name]) for name in rows.column_names}
    )
    told = pc.and_(rows["identity"].is_valid(), rows["url"].is_valid())
    without = rows["place"].filter(pc.invert(told))
    if len(without):
        left_out["nobody"] += len(without)
        first.setdefault("nobody", (without[0].as_py(), ""))
    rows = rows.filter(told)
    addresses: list[str | None] = []
    for place, url in zip(rows["place"].to_pylist(), rows["url"].to_pylist(), strict=True):
        try:
            addresses.append(canonical(url))
        except BadAddress as error:
            addresses.append(None)
            left_out["bad"] += 1
            first.setdefault("bad", (place, f"{url[:100]!r}: {error}"))
    column = pa.array(addresses, TEXT)
    nothing = pa.nulls(rows.num_rows, TEXT)
    rows = (
        rows.drop_columns(["url", "place"])
        .append_column("address", column)
        .append_column("fingerprint", nothing)
    )
    return rows.filter(column.is_valid())
