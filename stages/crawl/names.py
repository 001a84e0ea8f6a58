"""Lists of people whom a service is asked about: names, aliases, ids.

A CSV, TSV, JSON-lines or Parquet file (or a folder of them), or a text file with a name or a
Wikidata Q-id in each line.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from schemas.wording import counted, verb
from stages.crawl.listed_rows import Reading, check_columns, files_of, trimmed
from stages.crawl.listing import SourceError
from stages.crawl.reading import text_lines

SCHEMES = ("imdb", "tmdb", "viaf", "isni", "gnd", "lccn", "freebase", "musicbrainz", "vggface2")
"""Columns of these names are kept as external ids of the person."""

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "name": ("name", "identity", "person", "celebrity", "label"),
    "aliases": ("aliases", "alias", "also_known_as"),
    "wikidata": ("wikidata", "qid", "wikidata_id", "external_id"),
    **{scheme: (scheme,) for scheme in SCHEMES},
}
"""What a column may be called, whatever its case; the first that is there counts. Several aliases
have | between them.
"""

_QID = re.compile(
    r"(?:https?://www\.wikidata\.org/(?:wiki|entity)/)?(Q[1-9][0-9]{0,9})", re.IGNORECASE
)


@dataclass(frozen=True)
class Person:
    """Somebody of the list. `wikidata`: the Q-id, by which people are told apart where there is
    one, else by `name`.
    """

    name: str
    wikidata: str | None = None
    aliases: tuple[str, ...] = ()
    external_ids: dict[str, str] = field(default_factory=dict, hash=False)


def check_names(source: str, path: Path, columns: Mapping[str, str]) -> None:
    """Raise SourceError for a list that is not there."""
    if path.suffix.lower() != ".txt" or not path.is_file():
        files_of(source, path)
    check_columns(source, columns, COLUMNS)


def read_names(
    source: str, path: Path, columns: Mapping[str, str]
) -> tuple[list[Person], list[str]]:
    """The people of a list, each once, in its order, and remarks on rows that are not used. Raises
    SourceError, also for nobody.
    """
    check_names(source, path, columns)
    people: dict[str, Person] = {}
    left_out: Counter[str] = Counter()
    first: dict[str, str] = {}
    faults: list[str] = []
    for where, row in _rows(source, path, columns, faults):
        qid = row.get("wikidata")
        told = _QID.fullmatch(qid) if qid else None
        if qid and not told:
            left_out["bad"] += 1
            first.setdefault("bad", f"{where}: {qid[:40]!r}")
            continue
        number = told[1].upper() if told else None
        name = row.get("name") or number
        if name is None:
            left_out["nobody"] += 1
            first.setdefault("nobody", where)
            continue
        aliases = tuple(
            alias for text in (row.get("aliases") or "").split("|") if (alias := text.strip())
        )
        ids = {scheme: value for scheme in SCHEMES if (value := row.get(scheme))}
        key = number or " ".join(name.casefold().split())
        before = people.get(key)
        if before is None:
            people[key] = Person(name, number, aliases, ids)
        else:
            left_out["twice"] += 1
            first.setdefault("twice", where)
            others = tuple(
                alias
                for alias in dict.fromkeys((*before.aliases, name, *aliases))
                if alias not in (before.name, number)
            )
            people[key] = Person(before.name, number, others, {**ids, **before.external_ids})
    remarks = []
    if n := left_out["nobody"]:
        what = (
            f"{counted(n, 'row')} of {path} {verb(n, 'names', 'name')} nobody and {verb(n)} "
            "not used"
        )
        remarks.append(f"{what}; the first is {first['nobody']}")
    if n := left_out["bad"]:
        bad = (
            f"{counted(n, 'row')} of {path} {verb(n, 'has', 'have')} something else for a "
            "Wikidata Q-id"
        )
        remarks.append(f"{bad} and {verb(n)} not used; the first is {first['bad']}")
    if n := left_out["twice"]:
        what = (
            f"{counted(n, 'row')} of {path} {verb(n, 'names', 'name')} somebody for a second time"
        )
        remarks.append(f"{what}; the first is {first['twice']}")
    remarks += faults
    if not people:
        raise SourceError(
            f"source {source!r}: {path} names nobody" + "".join(f"; {text}" for text in remarks)
        )
    return list(people.values()), remarks


def _rows(
    source: str, path: Path, columns: Mapping[str, str], faults: list[str]
) -> Iterator[tuple[str, dict[str, str | None]]]:
    """Where a row stands, and what it says; at the end, remarks on rows that cannot be read go into
    `faults`.
    """
    if path.suffix.lower() == ".txt" and path.is_file():
        try:
            for number, line in text_lines(
                path, lambda number, why: faults.append(f"{path}: line {number} is not used: {why}")
            ):
                text = line.strip()
                if text and not text.startswith("#"):
                    yield f"line {number}", {"wikidata" if _QID.fullmatch(text) else "name": text}
        except (OSError, ValueError) as error:
            raise SourceError(
                f"source {source!r}: {path} cannot be read: "
                f"{getattr(error, 'strerror', None) or error}"
            ) from error
        return
    reading = Reading(source, path, COLUMNS, columns, ())
    for table in reading:
        if (
            all(table[name].null_count == table.num_rows for name in ("name", "wikidata"))
            and table.num_rows
        ):
            raise SourceError(
                f"source {source!r}: {path} names nobody: it needs a column name or wikidata; "
                "say which one it is by source.columns.name"
            )
        places = map(reading.where, table["place"].to_pylist())
        for where, row in zip(
            places,
            zip(*(trimmed(table[name]).to_pylist() for name in COLUMNS), strict=True),
            strict=True,
        ):
            yield where, dict(zip(COLUMNS, row, strict=True))
    faults += reading.remarks()
