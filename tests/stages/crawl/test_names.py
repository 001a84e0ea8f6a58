"""Lists of people for services: whoever is meant is found once, by name or by id, in any of the
usual files.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.crawl.listing import SourceError
from stages.crawl.names import Person, read_names


def written(folder: Path, text: str, name: str = "names.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_names_aliases_and_ids_are_read(tmp_path: Path) -> None:
    """An alias would be a person, or an id a name."""
    text = (
        "Name,aliases,QID,imdb,height\nAda Lovelace,Ada Byron | "
        "Countess,q7259,nm1,170\nZoë,,,,\n,,http://www.wikidata.org/entity/Q42,,\n"
    )
    people, remarks = read_names("x", written(tmp_path, text), {})
    assert people == [
        Person("Ada Lovelace", "Q7259", ("Ada Byron", "Countess"), {"imdb": "nm1"}),
        Person("Zoë"),
        Person("Q42", "Q42"),
    ]
    assert remarks == []


def test_parquet_may_hold_lists_of_aliases(tmp_path: Path) -> None:
    """The list that a data set brings would have to be rewritten."""
    path = tmp_path / "names.parquet"
    pq.write_table(
        pa.table(
            {
                "person": ["Ada", "Bob"],
                "also_known_as": [["A", "B"], None],
                "wikidata": [None, "Q5"],
            }
        ),
        path,
    )
    assert read_names("x", path, {})[0] == [Person("Ada", None, ("A", "B")), Person("Bob", "Q5")]


def test_a_text_file_has_a_name_or_id_a_line(tmp_path: Path) -> None:
    """The simplest list of all would need a heading."""
    path = written(tmp_path, "\ufeffAda Lovelace\n\n# somebody\nQ42\n  Zoë  \n", "names.txt")
    assert read_names("x", path, {})[0] == [
        Person("Ada Lovelace"),
        Person("Q42", "Q42"),
        Person("Zoë"),
    ]


def test_people_who_are_named_twice_are_one(tmp_path: Path) -> None:
    """A person would be asked about twice, and cost twice."""
    text = "name,wikidata,aliases,viaf\nAda,Q1,A,1\nAda Byron,Q1,,2\nzoë,,,\nZOË ,,Z,\n"
    people, remarks = read_names("x", written(tmp_path, text), {})
    assert people == [
        Person("Ada", "Q1", ("A", "Ada Byron"), {"viaf": "1"}),
        Person("zoë", None, ("ZOË", "Z")),
    ]
    assert [person.external_ids for person in people] == [{"viaf": "1"}, {}]
    assert remarks == [
        f"2 rows of {tmp_path / 'names.csv'} name somebody for a second time; the first is line 3"
    ]


def test_rows_that_name_nobody_are_counted(tmp_path: Path) -> None:
    """A user would wonder why forty of fifty people are missing."""
    people, remarks = read_names(
        "x", written(tmp_path, "name,wikidata\nAda,L123\n ,\nBob,Q12345678901234\n,Q1\n"), {}
    )
    assert people == [Person("Q1", "Q1")]
    assert (
        remarks[0]
        == f"1 row of {tmp_path / 'names.csv'} names nobody and is not used; the first is line 3"
    )
    assert "2 rows of" in remarks[1] and "the first is line 2: 'L123'" in remarks[1]


def test_a_list_that_is_none_says_what_to_mend(tmp_path: Path) -> None:
    """The first listing of a new user would end in a stack trace."""
    for path, columns, words in (
        (tmp_path / "none.csv", {}, "does not exist"),
        (tmp_path / "none.txt", {}, "does not exist"),
        (written(tmp_path, "a,b\n1,2\n"), {}, "needs a column name or wikidata"),
        (
            written(tmp_path, "a,b\n1,2\n"),
            {"names": "a"},
            "names 'names'; the fields are name, aliases, wikidata",
        ),
        (written(tmp_path, "a,b\n1,2\n"), {"name": "c"}, "has no column 'c'; it has a, b"),
    ):
        with pytest.raises(SourceError) as caught:
            read_names("x", path, columns)
        assert words in str(caught.value)
    assert read_names("x", written(tmp_path, "a,b\n1,2\n"), {"name": "a"})[0] == [Person("1")]
