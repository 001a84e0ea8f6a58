"""Tables of files and published data sets: every file is its person's, and none is from
elsewhere.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from stages.crawl.layouts import members
from stages.crawl.listing import Offer, SourceError
from stages.crawl.table import TableSource

# fmt: off
FFHQ = {
    "category": "training",
    "metadata": {
        "photo_url": "https://www.flickr.com/photos/x/1/", "photo_title": "Éveil",
        "author": "Jérôme",
        "country": "", "license": "Attribution-NonCommercial License",
        "license_url": "https://creativecommons.org/licenses/by-nc/4.0/",
    },
    "image": {"file_path": "images1024x1024/00000/00000.png", "face_landmarks": [[1.5, 2.5]] * 68},
    "in_the_wild": {"file_path": "in-the-wild-images/00000/00000.png", "face_rect": [1, 2, 3, 4]},
}
# fmt: on


def files(folder: Path, *paths: str) -> Path:
    """Files whose content is their own path."""
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(path.encode())
    return folder


def table(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    pyarrow.csv.write_csv(pa.Table.from_pylist(list(rows)), path)
    return path


def shown(source: TableSource) -> dict[str, dict[str, str]]:
    """What the source offers: person to address and the content behind it."""
    listed, _ = source.people()
    found = {}
    for person in listed:
        answers = source.fetch([offer.address for offer in person.offers])
        contents = [(answer.data or b"").decode() or str(answer.reason) for answer in answers]
        found[person.name] = dict(
            zip((offer.address for offer in person.offers), contents, strict=True)
        )
    return found


def refused(source: TableSource) -> str:
    with pytest.raises(SourceError) as caught:
        source.people()
    return str(caught.value)


def test_a_table_says_whose_each_file_is(tmp_path: Path) -> None:
    """Images that are not sorted into folders could not enter without being copied."""
    files(tmp_path, "faces/a/1.jpg", "faces/2 ü%.jpg", "faces/3.jpg")
    rows = [
        ("a/1.jpg", "Ada", "CC0"),
        ("./2 ü%.jpg", "Bob", None),
        ("a//../3.jpg", "Bob", None),
        ("3.jpg", "Ada", None),
    ]
    path = table(
        tmp_path / "list.csv",
        [{"file": file, "person": who, "license": licence} for file, who, licence in rows],
    )
    source = TableSource(path, base="faces")
    listed, remarks = source.people()
    assert remarks == [
        f"1 path of {path} leads out of {tmp_path / 'faces'} and is not used; the first is line "
        "4: 'a//../3.jpg'"
    ]
    assert shown(source) == {
        "Ada": {"table:a/1.jpg": "faces/a/1.jpg", "table:3.jpg": "faces/3.jpg"},
        "Bob": {"table:2 ü%25.jpg": "faces/2 ü%.jpg"},
    }
    assert [offer.licence for offer in listed[0].offers] == ["CC0", None]
    os.rename(tmp_path / "faces", tmp_path / "moved")
    assert shown(TableSource(path, base=str(tmp_path / "moved"))).keys() == {"Ada", "Bob"}


def test_absolute_paths_count_where_they_lie_in_the_folder(tmp_path: Path) -> None:
    """A table that was made by `find` would be refused, or ids depend on where the disk is
    mounted.
    """
    files(tmp_path, "faces/1.jpg", "secret.jpg")
    path = table(
        tmp_path / "list.csv",
        [{"path": str(tmp_path / file), "name": "Ada"} for file in ("faces/1.jpg", "secret.jpg")],
    )
    source = TableSource(path, base="faces")
    assert shown(source) == {"Ada": {"table:1.jpg": "faces/1.jpg"}}
    assert "1 path " in source.people()[1][0]


def test_splits_choose_rows(tmp_path: Path) -> None:
    """The test set of a paper would get into training."""
    files(tmp_path, "1.jpg", "2.jpg")
    rows = [
        {"path": f"{i}.jpg", "name": f"P{i}", "split": split}
        for i, split in ((1, "train"), (2, "test"))
    ]
    path = table(tmp_path / "list.csv", rows)
    assert shown(TableSource(path, splits=["train"])).keys() == {"P1"}
    assert (
        refused(TableSource(path, splits=["valid"]))
        == f"source 'table': no row is of split valid; {path} has: test, train"
    )


def test_what_a_table_says_beside_that_is_kept(tmp_path: Path) -> None:
    """Who has ages or attributes by hand would have to join them again, by paths that are addresses
    by then.
    """
    files(tmp_path, "1.jpg", "2.jpg", "3.jpg")
    rows: list[dict[str, Any]] = [
        {"path": "1.jpg", "name": "Ada", "split": "train", "Age": 36, "hat": True, "note": "é"},
        {"path": "2.jpg", "name": "Ada", "split": None, "Age": None, "hat": False, "note": ""},
        {"path": "3.jpg", "name": "Ada", "split": "test", "Age": None, "hat": None, "note": None},
    ]
    parquet = tmp_path / "list.parquet"
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), parquet)
    typed = ['{"Age": 36, "hat": true, "note": "é"}', '{"hat": false}', None]
    texts = ['{"Age": "36", "hat": "true", "note": "é"}', '{"hat": "false"}', None]
    for path, said in ((parquet, typed), (table(tmp_path / "list.csv", rows), texts)):
        offers = TableSource(path).people()[0][0].offers
        assert [offer.split for offer in offers] == ["train", None, "test"]
        assert [offer.attributes for offer in offers] == said


def test_files_that_are_not_there_have_rows_that_say_so(tmp_path: Path) -> None:
    """A download that broke off would pass for a complete data set."""
    files(tmp_path, "1.jpg")
    path = table(tmp_path / "list.csv", [{"path": f"{i}.jpg", "name": "Ada"} for i in range(1, 4)])
    source = TableSource(path)
    assert source.people()[1] == [
        f"2 files that {path} names are not there; their rows will say so; the first is line 3: "
        "'2.jpg'"
    ]
    assert shown(source) == {
        "Ada": {"table:1.jpg": "1.jpg", "table:2.jpg": "not_found", "table:3.jpg": "not_found"}
    }


@pytest.mark.parametrize(
    "address",
    [
        "table:../secret",
        "table:a/%2e%2e/../secret",
        "table:/etc/passwd",
        "other:1.jpg",
        "table:",
        "",
        "1.jpg",
    ],
)
def test_an_address_never_leads_out_of_the_folder(tmp_path: Path, address: str) -> None:
    """A crafted list of candidates would bring files of the machine into the dataset."""
    files(tmp_path, "faces/1.jpg", "secret")
    (found,) = TableSource(tmp_path / "faces" / "list.csv").fetch([address])
    assert (found.data, found.status, found.reason) == (None, "failed", "bad_address")


def test_celeba_enters_as_it_is_published(tmp_path: Path) -> None:
    """The papers' data set could not be used without a script of one's own."""
    files(
        tmp_path,
        *(
            f"Img/{folder}/00000{i}.jpg"
            for folder in ("img_celeba", "img_align_celeba")
            for i in (1, 2, 3)
        ),
    )
    files(tmp_path, "Anno/x", "Eval/x")
    (tmp_path / "Anno" / "identity_CelebA.txt").write_text(
        "000001.jpg 2880\n000002.jpg  2937\r\n000003.jpg 2880\n"
    )
    (tmp_path / "Eval" / "list_eval_partition.txt").write_text(
        "000001.jpg 0\n000002.jpg 1\n000003.jpg 2\n"
    )
    (tmp_path / "Anno" / "list_attr_celeba.txt").write_text(
        "2\nMale Young\n000001.jpg -1  1\n000003.jpg  1 -1\n"
    )
    told = {
        offer.address[-5]: offer
        for person in TableSource(tmp_path, "celeba", "celeba").people()[0]
        for offer in person.offers
    }
    assert [told[n].split for n in "123"] == ["train", "valid", "test"]
    assert [told[n].attributes for n in "123"] == [
        '{"Male": -1, "Young": 1}',
        None,
        '{"Male": 1, "Young": -1}',
    ]
    (tmp_path / "Anno" / "list_attr_celeba.txt").write_text("2\nMale Young\n000001.jpg -1\n")
    assert "000001.jpg has 1 values, there are 2 attributes" in refused(
        TableSource(tmp_path, "celeba", "celeba")
    )
    (tmp_path / "Anno" / "list_attr_celeba.txt").unlink()
    everything = shown(TableSource(tmp_path, "celeba", "celeba"))
    assert everything == {
        "celeba 2880": {
            f"celeba:Img/img_celeba/00000{i}.jpg": f"Img/img_celeba/00000{i}.jpg" for i in (1, 3)
        },
        "celeba 2937": {"celeba:Img/img_celeba/000002.jpg": "Img/img_celeba/000002.jpg"},
    }
    aligned = TableSource(
        tmp_path, "celeba", "celeba", base="Img/img_align_celeba", splits=["train", "valid"]
    )
    assert [len(pictures) for pictures in shown(aligned).values()] == [1, 1]
    assert all(
        "img_align" in address for pictures in shown(aligned).values() for address in pictures
    )
    (tmp_path / "Anno" / "identity_CelebA.txt").unlink()
    assert "has no identity_CelebA.txt, neither there nor in Anno/" in refused(
        TableSource(tmp_path, "celeba", "celeba")
    )


def test_ffhq_enters_with_licences_and_authors(tmp_path: Path) -> None:
    """70,000 images of Flickr would be used without a word of whose they are."""
    numbers = (0, 1, 1000)
    paths = [f"{number // 1000 * 1000:05d}/{number:05d}.png" for number in numbers]
    files(
        tmp_path,
        *(
            f"{folder}/{path}"
            for folder in ("images1024x1024", "in-the-wild-images", "thumbnails128x128")
            for path in paths
        ),
    )
    alone = TableSource(tmp_path, "ffhq", "ffhq")
    assert shown(alone) == {
        f"ffhq {Path(path).stem}": {f"ffhq:images1024x1024/{path}": f"images1024x1024/{path}"}
        for path in paths
    }
    about = {}
    for number, path in zip(numbers, paths, strict=True):
        entry = json.loads(json.dumps(FFHQ))
        for name in ("image", "in_the_wild"):
            entry[name]["file_path"] = f"{entry[name]['file_path'].partition('/')[0]}/{path}"
        about[str(number)] = {**entry, "category": "validation" if number == 1000 else "training"}
    (tmp_path / "ffhq-dataset-v2.json").write_text(json.dumps(about))
    assert shown(alone) == shown(
        TableSource(tmp_path, "ffhq", "ffhq", splits=["training", "validation"])
    )
    (first, *_), _ = alone.people()
    offer = first.offers[0]
    assert (offer.licence, offer.author, offer.page) == (
        "Attribution-NonCommercial License",
        "Jérôme",
        "https://www.flickr.com/photos/x/1/",
    )
    wild = shown(
        TableSource(tmp_path, "ffhq", "ffhq", base="in-the-wild-images", splits=["validation"])
    )
    assert wild == {
        "ffhq 01000": {
            "ffhq:in-the-wild-images/01000/01000.png": "in-the-wild-images/01000/01000.png"
        }
    }
    small = shown(TableSource(tmp_path, "ffhq", "ffhq", base="thumbnails128x128"))
    assert small["ffhq 00001"] == {
        "ffhq:thumbnails128x128/00000/00001.png": "thumbnails128x128/00000/00001.png"
    }


@pytest.mark.parametrize("at_once", [1, 2, 7, 100, 2**20])
@pytest.mark.parametrize("indent", [None, 1])
def test_a_large_object_is_read_piece_by_piece(
    tmp_path: Path, at_once: int, indent: int | None
) -> None:
    """Numbers or escapes that lie across two pieces would be cut in two."""
    content: dict[str, Any] = {
        "0": {"a": [1.5, -2e10, 12345678901234567890], "b": 'x "quoted" \\ ü\u2028😀'},
        "1": 123456,
        "2": "",
    }
    content |= {"3": None, "4": {}, "ü": True}
    file = tmp_path / "x.json"
    file.write_text(
        json.dumps(content, indent=indent, ensure_ascii=indent is None), encoding="utf-8"
    )
    assert dict(members(file, at_once)) == content
    file.write_text("{}")
    assert dict(members(file, at_once)) == {}


@pytest.mark.parametrize(
    "content", ["", "[1]", "{", '{"a": 1', '{"a": 1,', '{"a"', '{"a": {"b": 1}', '{"a": nothing}']
)
def test_a_large_object_that_breaks_off_is_told(tmp_path: Path, content: str) -> None:
    """Half a download would pass for a whole one."""
    file = tmp_path / "ffhq-dataset-v2.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=r"no JSON object|breaks off"):
        list(members(file))
    assert str(file) in refused(TableSource(tmp_path, "ffhq", "ffhq"))


@pytest.mark.parametrize(
    "content",
    [
        '{"a": {}}',
        '{"1": 2}',
        '{"1": {"image": [1]}}',
        '{"1": {"image": {"file_path": 7}}}',
        '{"1": {"metadata": 7}}',
    ],
)
def test_a_file_of_something_else_is_told(tmp_path: Path, content: str) -> None:
    """A wrong file under FFHQ's name would end in a stack trace."""
    (tmp_path / "ffhq-dataset-v2.json").write_text(content)
    assert "source 'ffhq'" in refused(TableSource(tmp_path, "ffhq", "ffhq"))


def test_agedb_enters_by_its_file_names(tmp_path: Path) -> None:
    """Every image would be a person of its own, or age 47 a person."""
    files(
        tmp_path,
        "0_MariaCallas_35_f.jpg",
        "12_ArielSharon_47_m.jpg",
        "13_ArielSharon_50_m.jpg",
        "readme.jpg",
        "14_A_B_Smith_9_f.JPG",
    )
    source = TableSource(tmp_path, "agedb", "agedb")
    assert {person: len(pictures) for person, pictures in shown(source).items()} == {
        "MariaCallas": 1,
        "ArielSharon": 2,
        "A_B_Smith": 1,
    }
    listed, remarks = source.people()
    assert remarks == [f"1 row of {tmp_path} lacks a person or a path and is not used"]
    (callas,) = (person for person in listed if person.name == "MariaCallas")
    assert [offer.attributes for offer in callas.offers] == ['{"age": 35, "gender": "f"}']


def test_lfw_enters_by_its_folders(tmp_path: Path) -> None:
    """People would be called `Aaron_Eckhart` and be nobody else's Aaron Eckhart."""
    files(tmp_path, "lfw/Aaron_Eckhart/Aaron_Eckhart_0001.jpg", "lfw/notes.txt", "lfw/x.jpg")
    files(tmp_path, "lfw/Zico/Zico_0001.jpg", "lfw/Zico/Zico_0002.jpg")
    found = shown(TableSource(tmp_path / "lfw", "lfw", "lfw"))
    assert {person: len(pictures) for person, pictures in found.items()} == {
        "Aaron Eckhart": 1,
        "Zico": 2,
    }
    assert shown(TableSource(tmp_path, "lfw", "lfw", base="lfw")).keys() == found.keys()


def test_a_table_that_cannot_be_read_says_what_to_mend(tmp_path: Path) -> None:
    """The first import of a new user would end in a stack trace."""
    assert "does not exist" in refused(TableSource(tmp_path / "none.csv"))
    path = table(tmp_path / "list.csv", [{"path": "1.jpg", "who": "Ada"}])
    assert "has no column for identity" in refused(TableSource(path))
    assert "is not a folder, and paths start from it; set source.path or source.base" in refused(
        TableSource(path, base="none")
    )
    assert "names 'person'; the fields are path, identity" in refused(
        TableSource(path, columns={"person": "who"})
    )
    empty = table(tmp_path / "empty.csv", [{"path": None, "name": "Ada"}])
    assert "names no image of anybody" in refused(TableSource(empty))
    assert "is not a folder" in refused(TableSource(tmp_path / "nowhere", "lfw", "lfw"))


def test_links_are_followed_and_traps_are_rows(tmp_path: Path) -> None:
    """One named pipe would let the run wait for ever."""
    files(tmp_path, "faces/1.jpg")
    os.symlink("1.jpg", tmp_path / "faces" / "2.jpg")
    os.symlink("3.jpg", tmp_path / "faces" / "3.jpg")
    os.mkfifo(tmp_path / "faces" / "4.jpg")
    path = table(
        tmp_path / "faces" / "list.csv", [{"path": f"{i}.jpg", "name": "Ada"} for i in range(1, 5)]
    )
    contents = list(shown(TableSource(path))["Ada"].values())
    assert contents == ["faces/1.jpg", "faces/1.jpg", "unreadable", "not_a_file"]
    assert TableSource(path).people()[0][0].offers[0] != Offer("table:1.jpg")
