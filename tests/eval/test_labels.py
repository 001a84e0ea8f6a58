"""The one reader of label files: what it gives, and that a bad file is told by file and line."""

from pathlib import Path

import pytest

from eval.labels import BadLabels, LabelRow, read_rows


def test_rows_come_as_they_are_written_with_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_bytes(
        b'\xef\xbb\xbffile,person,n_faces,colour\r\n a/1.jpg ,Ada,2,red\r\n"b,\n2.jpg",,,\r\n'
    )
    assert list(read_rows(file)) == [
        LabelRow(f"{file}:2", "a/1.jpg", "Ada", "", "2"),
        LabelRow(f"{file}:4", "b,\n2.jpg", "", "", ""),
    ]


@pytest.mark.parametrize(
    ("text", "one_of", "said"),
    [
        ("name\nx\n", (), "has no column `file`; it has name"),
        ("", (), "has no column `file`; it has none"),
        ("file\na\n", ("person", "label_check"), "needs the columns file and person, label_check"),
        ("file,person\na,b\n,b\n", (), r"labels\.csv:3: the column file is empty"),
    ],
)
def test_a_file_that_cannot_be_used_is_told(
    text: str, one_of: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    file = tmp_path / "labels.csv"
    file.write_text(text)
    with pytest.raises(BadLabels, match=said):
        list(read_rows(file, one_of))


def test_measuring_and_judging_raise_the_same_error(tmp_path: Path) -> None:
    """Whoever calls both in a script catches one class."""
    from eval.cleaning.truth import read_labels
    from eval.recognition.photographs import labelled

    for call in (lambda: read_labels(tmp_path / "no.csv"), lambda: labelled(tmp_path / "no")):
        with pytest.raises(BadLabels):
            call()
