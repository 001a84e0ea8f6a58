"""Lists of addresses: whatever the file is called and cut into, every usable row is somebody's
image, and the rest is told.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from stages.crawl.listing import Listed, Offer, SourceError
from stages.crawl.urls import UrlsSource

ROWS: list[Mapping[str, Any]] = [
    {
        "name": "Ada",
        "url": "https://a.test/1.jpg",
        "license": "CC0",
        "page": "https://a.test/1",
        "creator": "somebody",
    },
    {"name": "Bob", "url": "https://a.test/2.jpg", "license": None, "page": None, "creator": None},
    {
        "name": "Ada",
        "url": "HTTPS://A.test:443/3.jpg#x",
        "license": "CC BY 4.0",
        "page": None,
        "creator": "Zoë",
    },
]


def as_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    file = path / "list.csv"
    pyarrow.csv.write_csv(pa.Table.from_pylist(list(rows)), file)
    return file


def as_parquet(path: Path, rows: Sequence[Mapping[str, Any]], name: str = "list.parquet") -> Path:
    path.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), path / name)
    return path / name


def as_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    file = path / "list.jsonl"
    file.write_text(
        "\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8"
    )
    return file


def people(path: Path, **columns: str) -> dict[str, Listed]:
    listed, remarks = UrlsSource(path, columns=columns).people()
    assert not remarks
    return {person.name: person for person in listed}


def refused(path: Path, **columns: str) -> str:
    with pytest.raises(SourceError) as caught:
        UrlsSource(path, columns=columns).people()
    return str(caught.value)


@pytest.mark.parametrize("write", [as_csv, as_parquet, as_lines])
def test_every_format_says_the_same(
    tmp_path: Path, write: Callable[[Path, Sequence[Mapping[str, Any]]], Path]
) -> None:
    """A licence would be lost because the list came as CSV."""
    found = people(write(tmp_path, ROWS))
    assert {name: list(person.offers) for name, person in found.items()} == {
        "Ada": [
            Offer("https://a.test/1.jpg", None, "https://a.test/1", "CC0", "somebody"),
            Offer("https://a.test/3.jpg", None, None, "CC BY 4.0", "Zoë"),
        ],
        "Bob": [Offer("https://a.test/2.jpg")],
    }
    assert all(person.given is None for person in found.values())


@pytest.mark.parametrize("write", [as_csv, as_parquet, as_lines])
def test_names_that_look_like_numbers_or_nothing_stay_names(
    tmp_path: Path, write: Callable[[Path, Sequence[Mapping[str, Any]]], Path]
) -> None:
    """Person 007 would be mixed with person 7, and Mr Null left out."""
    names = ["007", "7", "NA", "null", "1e5"]
    found = people(
        write(
            tmp_path,
            [{"name": name, "url": f"https://a.test/{i}.jpg"} for i, name in enumerate(names)],
        )
    )
    assert list(found) == names


def test_numbers_as_people_are_taken_from_columns_of_numbers(tmp_path: Path) -> None:
    """A list whose people are numbers in Parquet or JSON would stop the run."""
    rows = [
        {"label": 7, "url": "https://a.test/1.jpg"},
        {"label": 12, "url": "https://a.test/2.jpg"},
    ]
    assert list(people(as_parquet(tmp_path, rows))) == ["7", "12"]
    assert list(people(as_lines(tmp_path, rows))) == ["7", "12"]


def test_a_file_in_the_layout_of_laion_is_told_which_column_names_the_person(
    tmp_path: Path,
) -> None:
    """Its URL would be found and its people not, or a caption be taken for a licence."""
    rows = [
        {
            "URL": f"https://a.test/{i}.jpg",
            "TEXT": "Ada Lovelace",
            "WIDTH": 5,
            "LICENSE": "?",
            "hash": 2**60 + i,
        }
        for i in range(3)
    ]
    path = as_parquet(tmp_path, rows)
    assert "has no column for identity" in refused(path) and "source.columns.identity" in refused(
        path
    )
    (person,) = people(path, identity="TEXT").values()
    assert (person.name, len(person.offers), person.offers[2]) == (
        "Ada Lovelace",
        3,
        Offer("https://a.test/2.jpg", licence="?"),
    )


def test_a_folder_of_parts_is_one_list(tmp_path: Path) -> None:
    """Of a data set in a hundred parts only one would be crawled, or a person of two parts be two
    people.
    """
    as_parquet(tmp_path / "parts", ROWS[:2], "part-0.parquet")
    as_parquet(tmp_path / "parts", ROWS[2:], "part-1.parquet")
    (tmp_path / "parts" / "_SUCCESS").write_text("")
    (tmp_path / "parts" / ".part.parquet.crc").write_text("")
    found = people(tmp_path / "parts")
    assert [len(found[name].offers) for name in ("Ada", "Bob")] == [2, 1]


def test_an_external_id_tells_people_of_one_name_apart(tmp_path: Path) -> None:
    """The images of two John Smiths would be mixed; two spellings of one person would be two
    people.
    """
    rows = [("John Smith", "Q1"), ("John Smith", "Q2"), ("J. Smith", "Q1"), ("John Smith", None)]
    path = as_parquet(
        tmp_path,
        [
            {"name": name, "wikidata": qid, "url": f"https://a.test/{i}"}
            for i, (name, qid) in enumerate(rows)
        ],
    )
    listed, _ = UrlsSource(path).people()
    assert [(person.name, person.given, len(person.offers)) for person in listed] == [
        (*row, 1) for row in rows
    ]


def test_what_is_left_out_is_counted_with_an_example(tmp_path: Path) -> None:
    """A user would wonder where half of the list went."""
    rows = [
        ("Ada", "https://a.test/1.jpg"),
        ("", "https://a.test/2.jpg"),
        (" ", "https://a.test/2.jpg"),
        ("Ada", None),
    ]
    rows += [("Ada", "ftp://a.test/3.jpg"), ("Ada", "https://name:password@a.test/4.jpg")]
    listed, remarks = UrlsSource(
        as_parquet(tmp_path, [{"name": name, "url": url} for name, url in rows])
    ).people()
    assert [len(person.offers) for person in listed] == [1]
    assert remarks[0].startswith("3 rows of") and remarks[0].endswith(
        "lack a person or an address and are not used; the first is row 2"
    )
    assert (
        remarks[1].startswith("2 addresses of")
        and "row 5: 'ftp://a.test/3.jpg': scheme 'ftp'" in remarks[1]
    )


@pytest.mark.parametrize(
    "text",
    ["name,url\n", "name,url\n,\nAda,\n", "name,url\nAda,ftp://a.test/1.jpg\n", "name,url\nAda\n"],
)
def test_a_list_without_a_usable_row_is_refused(tmp_path: Path, text: str) -> None:
    """An export that broke off would make everybody gone, and take their images out of the
    shards.
    """
    path = tmp_path / "list.csv"
    path.write_text(text)
    assert "names no image of anybody" in refused(path)


def test_a_list_that_cannot_be_read_says_what_to_mend(tmp_path: Path) -> None:
    """The first crawl of a new user would end in a stack trace."""
    assert refused(tmp_path / "none.csv").endswith(
        "set source.path to a CSV, Parquet or JSON-lines file, or a folder of them"
    )
    (tmp_path / "list.xlsx").write_bytes(b"")
    assert "list.xlsx ends in '.xlsx'; it has to be one of .csv" in refused(tmp_path / "list.xlsx")
    assert "holds no files that end in" in refused(tmp_path)
    path = as_csv(tmp_path, ROWS)
    assert refused(path, identity="nmae").endswith(
        "has no column 'nmae'; it has name, url, license, page, creator"
    )
    assert "names 'person'; the fields are identity, url" in refused(path, person="name")
    bad = {"a.parquet": b"PAR1", "b.jsonl": b'{"name": "Ada"', "c.jsonl": b"[1]", "e.csv": b""}
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
        assert refused(tmp_path / name).startswith(
            f"source 'web': {tmp_path / name} cannot be read: "
        )


def test_offers_are_a_sequence_like_any_other(tmp_path: Path) -> None:
    """Whoever looks at the tenth image of a person would get another one than by counting."""
    rows = [
        {
            "name": f"P{i % 7}",
            "url": f"https://a.test/{i}.jpg",
            "author": f"A{i}" if i % 3 else None,
        }
        for i in range(200)
    ]
    for person in people(as_parquet(tmp_path, rows)).values():
        offers = list(person.offers)
        assert [person.offers[i] for i in range(len(offers))] == offers == person.offers[:]
        assert [offer.address for offer in offers] == [
            f"https://a.test/{i}.jpg" for i in range(int(person.name[1]), 200, 7)
        ]
        assert all(
            offer.author == (f"A{n}" if (n := int(offer.address[15:-4])) % 3 else None)
            for offer in offers
        )
        assert person.offers[-1] == offers[-1]
