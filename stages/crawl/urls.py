"""A list of addresses: a CSV, Parquet or JSON-lines file with a person and a web address in each row."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from stages.crawl.listing import Listed, Offer, SourceError
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
    """The rows of one file. People are told apart by `external_id` where the file has it, else by their names."""

    web = True

    def __init__(self, path: Path, name: str = "web", columns: Mapping[str, str] | None = None) -> None:
        self.path, self.name, self.columns = path, name, dict(columns or {})

    def check(self) -> None:
        if not self.path.is_file():
            what = "is not a file" if self.path.exists() else "does not exist"
            raise SourceError(f"source {self.name!r}: {self.path} {what}; set source.path to a CSV, Parquet or JSON-lines file")

    def people(self) -> tuple[list[Listed], list[str]]:
        self.check()
        rows = self._read()
        found = self._columns(rows.column_names)
        texts = {field: rows[column].cast(pa.string()).to_pylist() for field, column in found.items()}
        blank: list[str | None] = [None] * rows.num_rows
        people: dict[tuple[str, str | None], dict[str, Offer]] = {}
        nameless = bad = 0
        example = ""
        for i, (who, url) in enumerate(zip(texts["identity"], texts["url"], strict=True)):
            if not (who or "").strip() or not (url or "").strip():
                nameless += 1
                continue
            try:
                address = canonical(url)
            except BadAddress as error:
                bad += 1
                example = example or f"{url[:100]!r}: {error}"
                continue
            given = (texts.get("external_id", blank)[i] or "").strip() or None
            facts = {field: texts.get(field, blank)[i] or None for field in ("page", "licence", "author")}
            people.setdefault((who.strip(), given), {}).setdefault(address, Offer(address, **facts))
        remarks = []
        if nameless:
            remarks.append(f"{nameless} rows of {self.path} lack a person or an address and are not used")
        if bad:
            remarks.append(f"{bad} addresses of {self.path} are none of the web's and are not used; the first is {example}")
        return [Listed(name, list(offers.values()), given) for (name, given), offers in people.items()], remarks

    def fetch(self, addresses: Sequence[str]) -> list[Fetched]:
        raise NotImplementedError("web addresses are fetched by the pipeline")

    def _read(self) -> pa.Table:
        ending = self.path.suffix.lower()
        try:
            if ending in (".parquet", ".pq"):
                return pyarrow.parquet.read_table(self.path)
            if ending in (".jsonl", ".ndjson", ".json"):
                return pyarrow.json.read_json(self.path)
            if ending in (".csv", ".tsv"):
                parse = pyarrow.csv.ParseOptions(delimiter="\t" if ending == ".tsv" else ",", newlines_in_values=True)
                convert = pyarrow.csv.ConvertOptions(strings_can_be_null=True)
                return pyarrow.csv.read_csv(self.path, parse_options=parse, convert_options=convert)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise SourceError(f"source {self.name!r}: {self.path} cannot be read: {error}") from error
        raise SourceError(f"source {self.name!r}: {self.path} ends in {ending or 'nothing'!r}; it has to be .csv, .tsv, .jsonl or .parquet")

    def _columns(self, names: Sequence[str]) -> dict[str, str]:
        lower = {name.lower(): name for name in names}
        found = {}
        for field, known in COLUMNS.items():
            asked = self.columns.get(field)
            if asked is not None:
                if asked not in names:
                    raise SourceError(f"source {self.name!r}: {self.path} has no column {asked!r}; it has {', '.join(names)}")
                found[field] = asked
            else:
                match = next((lower[name] for name in known if name in lower), None)
                if match is not None:
                    found[field] = match
        for field in ("identity", "url"):
            if field not in found:
                raise SourceError(
                    f"source {self.name!r}: {self.path} has no column for {field} ({', '.join(COLUMNS[field])}); it has {', '.join(names)}:"
                    f" say which one it is by source.columns.{field}"
                )
        return found
