"""Photographs of a folder, by folders and by labels."""

from pathlib import Path

import pytest

from eval.labels import BadLabels
from eval.recognition.photographs import labelled


def image_file(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_folders_alone_are_labels(tmp_path: Path) -> None:
    for name in (
        "Ada/1.jpg",
        "Ada/2.PNG",
        "Grace/a.webp",
        "Grace/notes.txt",
        ".cache/x.jpg",
        "Grace/.hidden.jpg",
        "loose.jpg",
    ):
        image_file(tmp_path / name, b"")
    assert [
        (photo.path.name, photo.person, photo.undisputed, photo.faces)
        for photo in labelled(tmp_path)
    ] == [
        ("1.jpg", "Ada", True, None),
        ("2.PNG", "Ada", True, None),
        ("a.webp", "Grace", True, None),
    ]


def test_a_labels_file_says_who_how_surely_and_how_many(tmp_path: Path) -> None:
    for name in ("a/1.jpg", "a/2.jpg", "group.jpg"):
        image_file(tmp_path / name, b"")
    (tmp_path / "LABELS.csv").write_text(
        "file,person,label_check,n_faces\na/1.jpg,Ada,ok,\na/2.jpg,Ada,wrong "
        "person,2\ngroup.jpg,,,4\n"
    )
    found = [(photo.person, photo.undisputed, photo.faces) for photo in labelled(tmp_path)]
    assert found == [("Ada", True, None), ("Ada", False, 2), (None, True, 4)]
    other = tmp_path / "other.csv"
    other.write_text("file,person\na/1.jpg,Grace\n")
    assert [photo.person for photo in labelled(tmp_path, other)] == ["Grace"], (
        "a file that is named goes before the folder's own"
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("name\nx\n", "has no column `file`; it has name"),
        ("", "has no column `file`; it has none"),
        (
            "file\ngone.jpg\n",
            r"LABELS\.csv:2: .*gone\.jpg is not there; is this the labels file of that folder",
        ),
        ("file\n../x.jpg\n", r"LABELS\.csv:2: file '\.\./x\.jpg' is no path below"),
        ("file\n/etc/passwd\n", "is no path below"),
        ("file,n_faces\na/1.jpg,many\n", "n_faces 'many' is no number"),
        ("file\n", "no photographs; a folder has one folder a person"),
    ],
)
def test_labels_that_cannot_be_used_are_told_with_their_line(
    content: str, said: str, tmp_path: Path
) -> None:
    image_file(tmp_path / "a/1.jpg", b"")
    (tmp_path / "LABELS.csv").write_text(content)
    with pytest.raises(BadLabels, match=said):
        labelled(tmp_path)


def test_a_folder_that_is_none_and_one_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(BadLabels, match="is no folder"):
        labelled(tmp_path / "nowhere")
    with pytest.raises(BadLabels, match="no photographs"):
        labelled(tmp_path)
