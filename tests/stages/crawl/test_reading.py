"""Lists as people have them: every row that can be read is read whole, and every other one is told
with its line.
"""

import csv
import gzip
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.crawl.listing import SourceError
from stages.crawl.table import TableSource
from stages.crawl.urls import UrlsSource

A, B, C, D = (f"http://h.test/{letter}.jpg" for letter in "abcd")
Shown = list[tuple[str, str]]


def written(folder: Path, content: str | bytes, name: str) -> Path:
    path = folder / name
    data = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def shown(path: Path, **columns: str) -> tuple[Shown, list[str]]:
    """Person and address of every row of a list, and the remarks without the path."""
    source = UrlsSource(path, columns=columns)
    listed, remarks = source.people()
    assert source.incomplete == any("not used: " in remark for remark in remarks)
    return [(person.name, offer.address) for person in listed for offer in person.offers], [
        remark.replace(str(path), "LIST") for remark in remarks
    ]


def refused(path: Path) -> str:
    with pytest.raises(SourceError) as caught:
        UrlsSource(path).people()
    return str(caught.value)


TWO = [("Ada", A), ("Zoë", B)]
TEXT = f"name,url\nAda,{A}\nZoë,{B}\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", TEXT),
        ("a.csv", "\ufeff" + TEXT),
        ("a.csv", TEXT.replace("\n", "\r\n")),
        ("a.csv", TEXT.replace("\n", "\r")),
        ("a.csv", TEXT.replace("\n", "\r\n", 1)),
        ("a.csv", TEXT.rstrip("\n")),
        ("a.csv", "\n\n" + TEXT.replace("\n", "\n\n")),
        ("a.csv", TEXT.replace(",", ";")),
        ("a.csv", "sep=;\n" + TEXT.replace(",", ";")),
        ("a.csv", TEXT.replace(",", "\t")),
        ("a.csv", TEXT.replace(",", "|")),
        ("a.csv", TEXT.replace(",", ", ")),
        ("a.csv", f'name, url\n"Ada", "{A}"\n"Zoë", "{B}"\n'),
        ("a.csv", f'"name","url"\n"Ada","{A}"\n"Zoë","{B}"\n'),
        ("a.csv", TEXT.replace("name,url\n", "name,url,,\n")),
        ("a.csv", TEXT.replace("\n", ",,\n")),
        ("a.csv", f",name,url\n0,Ada,{A}\n1,Zoë,{B}\n"),
        ("a.csv", TEXT.encode("utf-16")),
        ("a.csv", "\ufeff".encode("utf-16-be") + TEXT.encode("utf-16-be")),
        ("a.csv", TEXT.encode("utf-16-le")),
        ("a.csv.gz", TEXT),
        ("a.TSV", TEXT.replace(",", "\t")),
        ("a.tsv", TEXT.replace(",", "\t").encode("utf-16")),
        ("a.tsv.gz", f'name\turl\n"Ada"\t"{A}"\n"Zoë"\t{B}\n'),
        ("a.jsonl", f'{{"name": "Ada", "url": "{A}"}}\n{{"name": "Zoë", "url": "{B}"}}\n'),
        (
            "a.jsonl",
            f'\ufeff{{"name": "Ada", "url": "{A}"}}\r\n\r\n{{"url": "{B}", "name": "Zo\\u00eb"}}',
        ),
        ("a.ndjson.gz", f'{{"name": "Ada", "url": "{A}"}}\n{{"name": "Zoë", "url": "{B}"}}\n'),
        ("a.json", f'[{{"name": "Ada", "url": "{A}"}},\n {{"name": "Zoë", "url": "{B}"}}]\n'),
        ("a.json", json.dumps([{"name": "Ada", "url": A}, {"name": "Zoë", "url": B}], indent=2)),
        (
            "a.json.gz",
            f'\ufeff\n[{{"name": "Ada", "url": "{A}"}}, {{"name": "Zoë", "url": "{B}"}}]',
        ),
    ],
)
def test_a_list_is_read_whatever_program_wrote_it(
    tmp_path: Path, name: str, content: str | bytes
) -> None:
    """The list would have to be converted, by somebody who does not know what is wrong with it."""
    assert shown(written(tmp_path, content, name)) == (TWO, [])


@pytest.mark.parametrize(
    ("content", "expected", "remarks"),
    [
        (
            f"name,url\nAda\nZoë,{B}\n",
            [("Zoë", B)],
            ["LIST: line 2 is not used: it has 1 of 2 cells"],
        ),
        (
            f"name,url\n\nAda,{A},x\nZoë,{B}\n",
            [("Zoë", B)],
            ["LIST: line 3 is not used: it has 3 cells for 2 columns"],
        ),
        (
            f'name,url\nAda,"{A}" x\nZoë,{B}\n',
            [("Zoë", B)],
            [
                "LIST: line 2 is not used: a quote ends within a cell; within quotes write two "
                "quotes for one"
            ],
        ),
        (f'name,url\nAda "Byron",{A}\nZoë,{B}\n', [('Ada "Byron"', A), ("Zoë", B)], []),
        (
            f'name,url\n"Weird Al,{A}\nBob,{B}\nCy",{C}\nDi,{D}\n',
            [("Di", D)],
            [
                "LIST: line 2 is not used: its cell 'name' holds what looks like other rows; a "
                "quote may stand for a letter there,"
                " or not be closed"
            ],
        ),
        (
            f'name,url\n"Weird\nAl",{A}\nDi,{D}\n',
            [("Di", D)],
            [
                "LIST: line 2 is not used: its identity goes over several lines; a quote may "
                "stand for a letter there, or not be closed"
            ],
        ),
        (
            f'name,url,note\nAda,{A},"5 feet\nBob,{B},y\nCy,{C},6"\nDi,{D},z\n',
            [("Ada", A), ("Di", D)],
            [
                "LIST: line 2 is not used: its cell 'note' holds what looks like other rows; a "
                "quote may stand for a letter there,"
                " or not be closed"
            ],
        ),
        (
            f'name,url,note\nAda,{A},"two lines,\nas notes have: see\nhttp://h.test/"\nZoë,{B},\n',
            TWO,
            [],
        ),
        (
            f"name,url\nZo\udceb,{A}\nAda,{B}\nZo\udceb,{A}\n",
            [("Ada", B)],
            [
                "LIST: line 2 is not used: it is no UTF-8; save the file as UTF-8, and 1 more "
                "such rows"
            ],
        ),
        (f"name,url,note\nAda,{A},caf\udce9\nZoë,{B},\n", TWO, []),
        (
            f"name,url\nA\0da,{A}\nZoë,{B}\n",
            [("Zoë", B)],
            ["LIST: line 2 is not used: it holds a zero byte"],
        ),
    ],
)
def test_a_bad_row_of_csv_costs_itself_and_is_told_with_its_line(
    tmp_path: Path, content: str, expected: Shown, remarks: list[str]
) -> None:
    """One row of a million would refuse the list, or vanish without anybody knowing where to
    look.
    """
    path = written(tmp_path, content.encode("utf-8", "surrogateescape"), "list.csv")
    assert shown(path) == (expected, remarks)


@pytest.mark.parametrize("rows", [0, 3, 100_000])
def test_a_quote_that_nothing_closes_refuses_the_list(tmp_path: Path, rows: int) -> None:
    """All rows behind it would be one cell, and their images gone."""
    text = f'name,url\nAda,{A}\n"Bob,{B}\n' + f"Cy,{C}\n" * rows
    path = written(tmp_path, text, "list.csv")
    assert f"{path} cannot be read: line 3 opens a quote that nothing closes" in refused(path)


def test_in_tsv_a_quote_is_a_letter(tmp_path: Path) -> None:
    """Three people would be one whose name is half of the list."""
    text = f'name\turl\n"Weird Al\t{A}\nBob\t{B}\nCy"\t{C}\n"Di ""D"""\t"{D}"\n'
    names = [('"Weird Al', A), ("Bob", B), ('Cy"', C), ('Di "D"', D)]
    assert shown(written(tmp_path, text, "list.tsv")) == (names, [])


def test_long_cells_beside_the_columns_that_are_read_do_no_harm(tmp_path: Path) -> None:
    """A description of three megabytes would refuse the list; and the limit for others' readers
    would be raised.
    """
    before = csv.field_size_limit()
    text = f"name,url,note\nAda,{A},n\nZoë,{B},{'x' * 3_000_000}\n"
    assert shown(written(tmp_path, text, "list.csv")) == (TWO, [])
    assert csv.field_size_limit() == before
    lines = (
        json.dumps({"name": "Ada", "url": A})
        + "\n"
        + json.dumps({"name": "Zoë", "url": B, "note": "x" * 3_000_000})
    )
    assert shown(written(tmp_path, lines, "list.jsonl")) == (TWO, [])


@pytest.mark.slow
def test_a_field_of_json_lines_counts_wherever_it_comes_first(tmp_path: Path) -> None:
    """Images whose licence the list states late would look like images without a licence."""
    rows: list[dict[str, Any]] = [
        {"name": "p", "url": f"http://h.test/{i}.jpg"} for i in range(70_000)
    ]
    rows += [{"name": "p", "url": "http://h.test/x.jpg", "licence": "CC BY-NC", "Wikidata": "Q1"}]
    listed, _ = UrlsSource(
        written(tmp_path, "".join(json.dumps(row) + "\n" for row in rows), "list.jsonl")
    ).people()
    found = [(person.given, len(person.offers), person.offers[0].licence) for person in listed]
    assert found == [(None, 70_000, None), ("Q1", 1, "CC BY-NC")]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"name": "Bob", "url": ', "it is no JSON object: Expecting value"),
        ("Bob", "it is no JSON object: Expecting value"),
        ("7", "it is no JSON object"),
        ('["Bob"]', "it is no JSON object"),
        ('{"name": "Bob", "name": "Cy"}', "it is no JSON object: a name stands in it twice"),
        ('{"name": "Bob"} {"name": "Cy"}', "it is no JSON object: Extra data"),
        ('{"name": "B\udcff"}', "it is no UTF-8; save the file as UTF-8"),
        ('{"name": "Bob", "x": ' + "[" * 200_000 + "}", "it is nested too deeply"),
        ('{"name": "Bob", "x": ' + "9" * 5000 + "}", "it is no JSON object: Exceeds the limit"),
        (
            '{"name": {"first": "Bob"}, "url": "http://h.test/"}',
            "an object stands where identity or url has to be a text",
        ),
        (
            '{"name": ["Bob", "Cy"], "url": "http://h.test/"}',
            "it names several people; give each a row of their own",
        ),
    ],
)
def test_a_bad_line_of_json_costs_itself_and_is_told(tmp_path: Path, line: str, why: str) -> None:
    """One broken line of a million would refuse the list."""
    rows = [json.dumps({"name": "Ada", "url": A}), "", line, json.dumps({"name": "Zoë", "url": B})]
    path = written(tmp_path, "\n".join(rows).encode("utf-8", "surrogateescape"), "list.jsonl")
    found, remarks = shown(path)
    assert found == TWO
    assert any(remark.startswith(f"LIST: line 3 is not used: {why}") for remark in remarks)


def as_lines(folder: Path, rows: list[dict[str, Any]]) -> Path:
    return written(
        folder, "".join(json.dumps(row, default=float) + "\n" for row in rows), "list.jsonl"
    )


def as_parquet(folder: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), folder / "list.parquet")
    return folder / "list.parquet"


@pytest.mark.parametrize("write", [as_lines, as_parquet])
@pytest.mark.parametrize(
    ("value", "text"),
    [
        (7, "7"),
        (2**70, str(2**70)),
        (0.31, "0.31"),
        (True, "true"),
        (False, "false"),
        ("é", "é"),
        (["a"], "a"),
        (["a", "b"], "a|b"),
        ([1, 2], "1|2"),
        ([], ""),
        ({"a": 1}, '{"a": 1}'),
        (float("nan"), None),
        (None, None),
    ],
)
def test_columns_of_any_type_are_read_as_text(
    tmp_path: Path,
    write: Callable[[Path, list[dict[str, Any]]], Path],
    value: Any,
    text: str | None,
) -> None:
    """A licence that is a list, or a person who is a number, would refuse the whole list."""
    if write is as_parquet and text == str(2**70):
        value = Decimal(value)  # Parquet has no such integers
    (person,), _ = UrlsSource(
        write(tmp_path, [{"name": "Ada", "url": A, "licence": value}])
    ).people()
    assert person.offers[0].licence == (text or None)


@pytest.mark.parametrize("write", [as_lines, as_parquet])
def test_a_list_of_addresses_is_so_many_pictures(
    tmp_path: Path, write: Callable[[Path, list[dict[str, Any]]], Path]
) -> None:
    """Two addresses would be one that leads nowhere, or an image get the licence of its
    neighbour.
    """
    rows: list[dict[str, Any]] = [
        {"name": "Ada", "url": [A, B], "licence": ["CC0", "CC BY-NC"], "author": ["x", "y", "z"]},
        {"name": "Bob", "url": [C], "licence": None, "author": None},
        {"name": "Cy", "url": [], "licence": [], "author": []},
        {"name": "Di", "url": None, "licence": None, "author": None},
    ]
    listed, remarks = UrlsSource(write(tmp_path, rows)).people()
    found = [
        (person.name, offer.address, offer.licence, offer.author)
        for person in listed
        for offer in person.offers
    ]
    assert found == [
        ("Ada", A, "CC0", "x|y|z"),
        ("Ada", B, "CC BY-NC", "x|y|z"),
        ("Bob", C, None, None),
    ]
    assert (
        len(remarks) == 1
        and remarks[0].startswith("2 rows of ")
        and remarks[0].endswith(("is row 3", "is line 3"))
    )


@pytest.mark.parametrize("write", [as_lines, as_parquet])
def test_attributes_of_any_type_are_kept_as_json(
    tmp_path: Path, write: Callable[[Path, list[dict[str, Any]]], Path]
) -> None:
    """A table with a fraction would be refused, and infinity be written as something that no reader
    of JSON takes.
    """
    said = {
        "f": 0.5,
        "b": True,
        "l": ["a", "b"],
        "o": {"a": 1, "n": float("nan")},
        "nan": float("nan"),
        "inf": float("inf"),
        "i": 2**62,
    }
    said |= {
        "neg": [float("-inf")],
        "t": "",
        "none": None,
        "d": Decimal("1.5") if write is as_parquet else "1.5",
    }
    (tmp_path / "1.jpg").write_bytes(b"x")
    (person,), _ = TableSource(write(tmp_path, [{"name": "Ada", "path": "1.jpg", **said}])).people()
    kept = json.loads(
        person.offers[0].attributes or "",
        parse_constant=lambda name: pytest.fail(f"{name} is no JSON"),
    )
    assert kept == {
        "f": 0.5,
        "b": True,
        "l": ["a", "b"],
        "o": {"a": 1, "n": None},
        "inf": "Infinity",
        "neg": ["-Infinity"],
        "i": 2**62,
        "d": "1.5",
    }


def test_half_a_sign_in_a_text_is_replaced(tmp_path: Path) -> None:
    """Captions that an app cut within an emoji would stop the run, as they cannot be written to a
    table.
    """
    (tmp_path / "1.jpg").write_bytes(b"x")
    path = written(
        tmp_path,
        '{"name": "Ada \\ud83d", "path": "1.jpg", "note": "\\ud83d\\ude00 \\ude00"}',
        "list.jsonl",
    )
    (person,), _ = TableSource(path).people()
    assert (person.name, person.offers[0].attributes) == ("Ada \ufffd", '{"note": "😀 \ufffd"}')


@pytest.mark.parametrize("name", ["list.csv", "list.parquet"])
def test_two_columns_of_one_name_are_told(tmp_path: Path, name: str) -> None:
    """Whose image it is would be a matter of chance, or the first run end in a stack trace."""
    path = tmp_path / name
    if name.endswith("csv"):
        path.write_text(f"name,url,name\nAda,{A},Bob\n")
    else:
        pq.write_table(pa.table([["Ada"], [A], ["Bob"]], names=["name", "url", "name"]), path)
    assert (
        refused(path)
        == f"source 'web': {path} cannot be read: two columns are called 'name'; give one of "
        "them another name"
    )


def test_rows_are_told_with_their_file_where_there_are_several(tmp_path: Path) -> None:
    """A user would look for line 3 in a thousand parts."""
    folder = tmp_path / "parts"
    folder.mkdir()
    written(folder, f"name,url\nAda,{A}\n", "0.csv")
    written(folder, f"name,url\nBob,{B}\nBob\nBob,ftp://h.test/\n", "1.csv")
    pq.write_table(pa.table({"name": ["Cy", None], "url": [C, D]}), folder / "2.parquet")
    found, remarks = shown(folder)
    assert found == [("Ada", A), ("Bob", B), ("Cy", C)]
    places = [remark.partition(":")[0].rpartition("first is ")[2] for remark in remarks]
    assert places == ["row 2 of 2.parquet", "in line 4 of 1.csv", "LIST"]
    assert remarks[2] == "LIST: line 3 of 1.csv is not used: it has 1 of 2 cells"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n\n",
        b"\x00" * 100,
        b"\xff" * 100,
        b"PK\x03\x04" + bytes(range(256)),
        b"PAR1",
        b"[",
        b"[{]",
        b'[{"name": "Ada"}',
        b"{",
    ],
)
@pytest.mark.parametrize(
    "name", ["a.csv", "a.tsv", "a.jsonl", "a.json", "a.parquet", "a.csv.gz", "a.jsonl.gz"]
)
def test_a_file_of_something_else_is_refused_with_its_name(
    tmp_path: Path, name: str, content: bytes
) -> None:
    """The first crawl of a new user would end in a stack trace."""
    path = tmp_path / name
    path.write_bytes(content)
    assert str(path) in refused(path)


def test_a_packed_file_that_ends_early_is_refused(tmp_path: Path) -> None:
    """Half a download would pass for a whole list."""
    path = written(
        tmp_path,
        "name,url\n" + "".join(f"P{i},http://h.test/{i * 7919 % 10007}\n" for i in range(5000)),
        "list.csv.gz",
    )
    path.write_bytes(path.read_bytes()[:-2000])
    assert f"{path} cannot be read: " in refused(path)


NAMES = (
    st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=20)
    .map(str.strip)
    .filter(bool)
)


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(NAMES, st.text(max_size=20)), min_size=1, max_size=30))
def test_what_writers_write_is_read(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    """A comma, a quote or a line end in a cell would move all cells behind it."""
    expected = [(name, f"http://h.test/{i}") for i, (name, _) in enumerate(rows)]
    clean = [note.replace("\0", "").encode("utf-8", "replace").decode() for _, note in rows]
    with (tmp_path / "list.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["note", "name", "url"])
        writer.writerows(
            [note, name, address] for note, (name, address) in zip(clean, expected, strict=True)
        )
    with (tmp_path / "list.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(
            json.dumps({"note": note, "name": n, "url": u}) + "\n"
            for note, (n, u) in zip(clean, expected, strict=True)
        )
    for name in ("list.csv", "list.jsonl"):
        found, remarks = shown(tmp_path / name)
        assert (sorted(found), remarks) == (sorted(expected), [])
