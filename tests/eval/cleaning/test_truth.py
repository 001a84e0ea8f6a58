"""Labels as people write them."""

from pathlib import Path

import pytest

from eval.cleaning.truth import read_labels
from eval.labels import BadLabels


def test_labels_as_they_are_written(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text(
        "file,person,label_check\na/1.jpg,a,ok\na/2.jpg,a,single photo\na/3.jpg,a,wrong person "
        "(single face)\n"
        'a/4.jpg,a,scraped: agrees\na/5.jpg,,\n"a/6, b.jpg",a,hard (low)\n'
    )
    found = read_labels(file)
    assert [one.truth for one in found.values()] == [
        "right",
        "right",
        "wrong",
        "scraped",
        "right",
        "hard",
    ]
    assert found["a/5.jpg"].person is None and "a/6, b.jpg" in found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "name,person\nx,y\n",
            "needs the columns file and person, label_check or both; it has name, person",
        ),
        ("file\nx\n", "it has file"),
        ("", "it has none"),
        ("file,person\n", "there are no labels"),
        ("file,person\na.jpg,a\n,a\n", "labels.csv:3: the column file is empty"),
        ("file,person\na.jpg,a\na.jpg,b\n", "labels.csv:3: a.jpg is labelled twice"),
    ],
)
def test_labels_that_cannot_be_used_are_told_with_file_and_line(
    tmp_path: Path, text: str, said: str
) -> None:
    file = tmp_path / "labels.csv"
    file.write_text(text)
    with pytest.raises(BadLabels) as caught:
        read_labels(file)
    assert said in str(caught.value) and str(file) in str(caught.value)


def test_no_file_at_all_and_one_that_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(BadLabels, match="cannot be read: No such file"):
        read_labels(tmp_path / "nowhere.csv")
    (tmp_path / "bytes.csv").write_bytes(b"file,person\n\xff\xfe,a\n")
    with pytest.raises(BadLabels, match="cannot be read"):
        read_labels(tmp_path / "bytes.csv")
