"""Files that a table assigns to people, so that published data sets enter without a crawl."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from schemas.fetched import Fetched
from schemas.wording import counted, verb
from stages.crawl.folder import address_of, fingerprint_of, read_file, relative_of
from stages.crawl.layouts import LAYOUTS
from stages.crawl.listed_rows import TEXT, Reading, check_columns, files_of, people_of, trimmed
from stages.crawl.listing import Listed, SourceError

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "path": ("path", "file", "file_path", "filename", "file_name", "image", "image_path"),
    "identity": ("identity", "name", "person", "celebrity", "label", "identity_id", "subject"),
    "split": ("split", "partition", "subset", "set"),
    "licence": ("licence", "license"),
    "page": ("page", "page_url", "source_page", "photo_url"),
    "author": ("author", "creator", "artist"),
    "external_id": ("external_id", "wikidata", "qid"),
    "reference": ("reference", "is_reference"),
}
"""What a column may be called, whatever its case; the first that is there counts."""


class TableSource:
    """The rows of a table, or of a data set in a known layout. Addresses are `name:<path>`,
    relative to `base`.

    What a table has beside the columns of `COLUMNS` is kept as attributes. `splits` chooses rows.
    """

    web = False

    def __init__(
        self,
        path: Path,
        name: str = "table",
        layout: str = "columns",
        base: str | None = None,
        columns: Mapping[str, str] | None = None,
        splits: Sequence[str] = (),
        max_bytes: int = 25_000_000,
    ) -> None:
        self.path, self.name, self.layout, self.columns, self.splits = (
            path,
            name,
            layout,
            dict(columns or {}),
            tuple(splits),
        )
        self.max_bytes = max_bytes
        self._pictures = base if layout != "columns" else None
        folder = path if path.is_dir() else path.parent
        self.base = folder / os.path.expanduser(base) if base and layout == "columns" else folder
        self.incomplete = False

    def check(self) -> None:
        if not self.base.is_dir():
            raise SourceError(
                f"source {self.name!r}: {self.base} is not a folder, and paths start from it; "
                "set source.path or source.base"
            )
        if self.layout == "columns":
            files_of(self.name, self.path)
            check_columns(self.name, self.columns, COLUMNS)

    def people(self) -> tuple[list[Listed], list[str]]:
        self.check()
        left_out: Counter[str] = Counter()
        first: dict[str, tuple[int, str]] = {}
        splits: Counter[str | None] = Counter()
        reading: Reading | None = None
        faults: list[str] = []
        if self.layout == "columns":
            reading = Reading(
                self.name,
                self.path,
                COLUMNS,
                self.columns,
                ("path", "identity"),
                rest=True,
                each="path",
            )
            tables: Iterator[pa.Table] = iter(reading)
        else:
            tables = self._published(faults)
        parts = [self._usable(rows, left_out, splits, first) for rows in tables]
        if self.splits and left_out["split"] == sum(splits.values()):
            there = ", ".join(sorted(str(name) for name in splits)) or "none"
            raise SourceError(
                f"source {self.name!r}: no row is of split {', '.join(self.splits)}; {self.path} "
                f"has: {there}"
            )

        def example(kind: str) -> str:
            place, text = first[kind]
            said = ": ".join(
                part for part in ("" if reading is None else reading.where(place), text) if part
            )
            return f"; the first is {said}" if said else ""

        remarks = []
        if n := left_out["nobody"]:
            what = (
                f"{counted(n, 'row')} of {self.path} {verb(n, 'lacks', 'lack')} a person or a "
                f"path and {verb(n)} not used"
            )
            remarks.append(what + example("nobody"))
        if n := left_out["outside"]:
            out = (
                f"{counted(n, 'path')} of {self.path} {verb(n, 'leads', 'lead')} out of "
                f"{self.base} and {verb(n)} not used"
            )
            remarks.append(out + example("outside"))
        if n := left_out["missing"]:
            lost = (
                f"{counted(n, 'file')} that {self.path} names {verb(n)} not there; "
                f"{verb(n, 'its row', 'their rows')} will say so"
            )
            remarks.append(lost + example("missing"))
        faults += reading.remarks() if reading is not None else []
        self.incomplete = bool(faults)
        remarks += faults
        listed = people_of(pa.concat_tables(parts)) if parts else []
        if not listed:
            raise SourceError(
                f"source {self.name!r}: {self.path} names no image of anybody"
                + "".join(f"; {text}" for text in remarks)
            )
        return listed, remarks

    def fetch(self, addresses: Sequence[str]) -> list[Fetched]:
        return [self._fetch(address) for address in addresses]

    def _fetch(self, address: str) -> Fetched:
        relative = relative_of(self.name, address)
        if relative is None:
            return Fetched(
                None, "failed", "bad_address", f"{address!r} is no address of source {self.name!r}"
            )
        return read_file(self.base / relative, self.max_bytes)

    def _published(self, faults: list[str]) -> Iterator[pa.Table]:
        """The rows of a data set in its own layout; what cannot be read of it goes into `faults`,
        in words.
        """
        try:
            for rows in LAYOUTS[self.layout](self.path, self._pictures, faults.append):
                nothing, places = (
                    pa.nulls(rows.num_rows, TEXT),
                    pa.array(range(rows.num_rows), pa.int64()),
                )
                yield (
                    rows.append_column("external_id", nothing)
                    .append_column("reference", nothing)
                    .append_column("place", places)
                )
        except (OSError, ValueError, pa.ArrowException) as error:
            raise SourceError(f"source {self.name!r} with layout {self.layout}: {error}") from error

    def _usable(
        self,
        rows: pa.Table,
        left_out: Counter[str],
        splits: Counter[str | None],
        first: dict[str, tuple[int, str]],
    ) -> pa.Table:
        """The rows that say who and where, as `people_of` takes them; of the others the count, and
        the first of each kind.
        """
        as_they_are = ("path", "attributes", "place")
        rows = pa.table(
            {
                name: rows[name] if name in as_they_are else trimmed(rows[name])
                for name in rows.column_names
            }
        )
        if self.splits:
            for one in pc.value_counts(rows["split"]).to_pylist():
                splits[one["values"]] += one["counts"]
            chosen = pc.is_in(rows["split"], value_set=pa.array(self.splits, TEXT))
            left_out["split"] += rows.num_rows - (pc.sum(chosen).as_py() or 0)
            rows = rows.filter(chosen)
        told = pc.and_(
            rows["identity"].is_valid(), pc.fill_null(pc.not_equal(rows["path"], ""), False)
        )
        without = rows["place"].filter(pc.invert(told))
        if len(without):
            left_out["nobody"] += len(without)
            first.setdefault("nobody", (without[0].as_py(), ""))
        rows = rows.filter(told)
        addresses: list[str | None] = []
        prints: list[str | None] = []
        for place, path in zip(rows["place"].to_pylist(), rows["path"].to_pylist(), strict=True):
            relative = self._inside(path)
            addresses.append(None if relative is None else address_of(self.name, relative))
            prints.append(None if relative is None else fingerprint_of(self.base / relative))
            wrong = (
                "outside" if relative is None else "missing" if prints[-1] == "unreadable" else ""
            )
            if wrong:
                left_out[wrong] += 1
                first.setdefault(wrong, (place, repr(path[:100])))
        column = pa.array(addresses, TEXT)
        kept = (
            rows.drop_columns(["path", "place"])
            .append_column("address", column)
            .append_column("fingerprint", pa.array(prints, TEXT))
        )
        return kept.filter(column.is_valid())

    def _inside(self, path: str) -> str | None:
        """The path relative to `base`, in one spelling; None where it leads elsewhere."""
        parts = path.split("/")
        if ".." in parts or "\0" in path:
            return None
        relative = (
            os.path.relpath(path, self.base) if path.startswith("/") else os.path.normpath(path)
        )
        return None if relative.startswith(("..", "/")) or relative == "." else relative
