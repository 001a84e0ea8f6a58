"""Folders as they are found in the wild, through the real stages: every file becomes a row or a
sample, and its neighbours are unharmed.
"""

import io
import os
import shutil
import struct
import unicodedata
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from idcluster.catalogue.connection import connect
from pipeline.record import Record
from schemas import identity_id
from tests.pipeline.in_process import run_here

pytestmark = pytest.mark.slow

DAG = """
name: hostile
root: out
source: {kind: folder, path: people}
stages:
  crawl: {}
  detect: {backend: dlib}
  embed: {backend: dlib}
  clean: {params: {duplicates: false}}          # everybody here has the same few photographs
  match: {params: {same: report, shared: report}}
  shard: {params: {profile: faces, target_mb: 1, validation: 0}}
"""

NFC, NFD = (
    unicodedata.normalize("NFC", "Zoë Ångström"),
    unicodedata.normalize("NFD", "Zoë Ångström"),
)
LONG = "A" * 200
LATIN = "Jos%E9"
"""How the folder `Jos\\xe9` (Latin-1) is shown."""
# fmt: off
ODD_FILES = (
    "new\nline.jpg", "tab\t.jpg", "100%.jpg", "100%25.jpg", "%00.jpg", "%2e%2e%2fpasswd.jpg",
    "quo'te\".jpg", "glob*[a-z]?{x}.jpg",
    "semi;colon -- comment.jpg", "back\\slash.jpg", "-rf.jpg", " blanks at both ends ",
    "a.b.c.tar.gz", "no ending", "💚.jpg", "con.jpg",
    "C:drive.jpg", "a" * 196 + ".jpg", "\x1b[31mred.jpg", "$(reboot).jpg", "[red]markup.jpg",
    "<script>.jpg", "dot.",
)
# fmt: on
ODD_PEOPLE = ("J. R. R. Dotted, Jr.", "dots..", LONG, "'; DROP TABLE faces; --", "a%2Fb")
GOOD = 2
"""Photographs of every person who has some."""

BAD_FILES = {
    "cut.jpg": ("faces", "failed", "decode_error"),
    "cut.png": ("faces", "failed", "decode_error"),
    "empty.jpg": ("images", "failed", "empty"),
    "bomb.png": ("images", "failed", "too_many_pixels"),
    "text.jpg": ("images", "failed", "not_an_image"),
    "page.html": ("images", "failed", "not_an_image"),
    "noise.bin": ("images", "failed", "not_an_image"),
    "dangling.jpg": ("images", "failed", "not_found"),
    "loop.jpg": ("images", "failed", "unreadable"),
    "pipe.jpg": ("images", "failed", "not_a_file"),
    "device.jpg": ("images", "failed", "not_a_file"),
    "unreadable.jpg": ("images", "failed", "unreadable"),
    "large.jpg": ("images", "failed", "too_large"),
    "grey.png": ("faces", "filtered", "no_face"),
    "dot.gif": ("faces", "filtered", "no_face"),
}


def bomb(side: int) -> bytes:
    """A valid PNG of `side` x `side` black pixels in a few kilobytes for every 30,000 lines."""
    packer = zlib.compressobj(9)
    row = bytes(1 + (side + 7) // 8)
    data = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def saved(picture: Image.Image, kind: str) -> bytes:
    sink = io.BytesIO()
    picture.save(sink, kind)
    return sink.getvalue()


@pytest.fixture(scope="module")
def photographs() -> list[bytes]:
    """JPEGs of one face with margins that differ."""
    skimage = pytest.importorskip("skimage")
    with Image.open(Path(skimage.__file__).parent / "data" / "astronaut.png") as picture:
        rgb = picture.convert("RGB")
    crops = [
        rgb.crop((175 - m, 76 - m, 265 + m, 166 + m)).resize((200, 200)) for m in range(20, 70)
    ]
    return [saved(crop, "JPEG") for crop in crops]


def add_bad_files(folder: Path, photograph: bytes) -> None:
    """The files of BAD_FILES."""
    (folder / "cut.jpg").write_bytes(photograph[: len(photograph) // 2])
    (folder / "cut.png").write_bytes(saved(Image.effect_noise((64, 64), 50), "PNG")[:-2000])
    (folder / "empty.jpg").touch()
    (folder / "bomb.png").write_bytes(bomb(30_000))
    (folder / "text.jpg").write_text("this is no image\n" * 100)
    (folder / "page.html").write_text("<!DOCTYPE html><html><body>404</body></html>")
    (folder / "noise.bin").write_bytes(os.urandom(5000))
    (folder / "dangling.jpg").symlink_to(folder / "nowhere.jpg")
    (folder / "loop.jpg").symlink_to(folder / "loop.jpg")
    os.mkfifo(folder / "pipe.jpg")
    (folder / "device.jpg").symlink_to("/dev/zero")
    (folder / "unreadable.jpg").symlink_to(
        "/proc/self/mem"
    )  # opens, and cannot be read; root may read everything else
    with (folder / "large.jpg").open("wb") as file:
        file.truncate(25_000_001)
    (folder / "grey.png").write_bytes(saved(Image.new("RGB", (80, 80), (128, 128, 128)), "PNG"))
    (folder / "dot.gif").write_bytes(saved(Image.new("L", (1, 1)), "GIF"))


@dataclass(frozen=True)
class Found:
    """What a run made of a folder."""

    people: Path
    root: Path
    record: Record
    said: str

    def rows(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        connection = connect(str(self.root))
        try:
            return connection.execute(sql, parameters).fetchall()
        finally:
            connection.close()


def run(folder: Path, people: Path) -> Found:
    file = folder / "hostile.yaml"
    file.write_text(DAG)
    root = folder / "root"
    said = io.StringIO()
    record = run_here(file, said, sets=[f"source.path={people}", f"root={root}"])
    return Found(people, root, record, said.getvalue())


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, photographs: list[bytes]) -> Found:
    folder = tmp_path_factory.mktemp("hostile")
    people = folder / "people"
    spare = iter(photographs * 4)
    for name in ("neighbour", "trouble", "Same Name", "same NAME", NFC, NFD, *ODD_PEOPLE):
        (people / name).mkdir(parents=True)
        for number in range(GOOD):
            (people / name / f"{number}.jpg").write_bytes(next(spare))
    add_bad_files(people / "trouble", photographs[0])
    (people / "nobody").mkdir()
    (people / "only bad files").mkdir()
    (people / "only bad files" / "empty.jpg").touch()
    (people / "odd").mkdir()
    for name, data in zip(ODD_FILES, spare, strict=False):
        (people / "odd" / name).write_bytes(data)
    latin = os.fsencode(people) + b"/Jos\xe9"
    os.mkdir(latin)
    for number in range(GOOD):
        Path(os.fsdecode(latin + b"/caf\xe9 %d.jpg" % number)).write_bytes(next(spare))
    (people / "trouble" / "nested").mkdir()
    (people / "trouble" / ".hidden.jpg").write_bytes(photographs[0])
    (people / "loose.jpg").write_bytes(photographs[0])
    return run(folder, people)


def person(found: Found, name: str) -> list[tuple[Any, ...]]:
    """Address, status and reason of the images of a person, and whether a face of each is
    kept.
    """
    sql = """SELECT c.address, m.status, m.reason, coalesce(bool_or(k.keep), false)
        FROM candidates c
        LEFT JOIN images m USING (image_id) LEFT JOIN clusters k USING (image_id)
        WHERE c.identity_id = ? GROUP BY ALL ORDER BY ALL"""
    return found.rows(sql, identity_id(name))


@pytest.mark.slow
def test_nothing_vanishes(found: Found) -> None:
    """As many candidates as files; as many images as candidates; a face row for every image;
    and so on.
    """
    folders = [path for path in found.people.iterdir() if path.is_dir()]
    files = [
        path
        for folder in folders
        for path in folder.iterdir()
        if not path.is_dir() and not path.name.startswith(".")
    ]
    [(candidates, addresses)] = found.rows(
        "SELECT count(*), count(DISTINCT address) FROM candidates"
    )
    assert candidates == addresses == len(files)
    assert found.rows("SELECT count(*), count(DISTINCT image_id) FROM images") == [
        (len(files), len(files))
    ]
    assert found.rows(
        "SELECT count(*) FROM images WHERE status = 'ok' AND image_id NOT IN (SELECT image_id "
        "FROM faces)"
    ) == [(0,)]
    assert found.rows(
        "SELECT count(*) FROM faces WHERE status = 'ok' AND face_id NOT IN (SELECT face_id FROM "
        "clusters)"
    ) == [(0,)]
    assert found.rows("SELECT count(*) FROM clusters WHERE keep") == found.rows(
        "SELECT count(*) FROM samples"
    )
    assert found.rows(
        "SELECT count(*) FROM faces WHERE status NOT IN ('ok', 'filtered', 'failed')"
    ) == [(0,)]
    assert found.record.status == "done"


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_becomes_a_row_with_its_reason(found: Found, name: str) -> None:
    table, status, reason = BAD_FILES[name]
    address = f"local:trouble/{name}"
    [row] = found.rows(
        f"SELECT t.status, t.reason, t.detail FROM {table} t JOIN candidates USING (image_id) "
        "WHERE address = ?",
        address,
    )
    assert row[:2] == (status, reason)
    assert row[2] or status == "filtered", "a failure comes with a detail"
    if table == "images":
        assert found.rows(
            "SELECT bytes IS NULL FROM images JOIN candidates USING (image_id) WHERE address = ?",
            address,
        ) == [(True,)]
        assert (
            found.rows(
                "SELECT face_id FROM faces JOIN candidates USING (image_id) WHERE address = ?",
                address,
            )
            == []
        )


def test_all_kinds_of_bad_files_are_there(found: Found) -> None:
    there = {
        path.name
        for path in (found.people / "trouble").iterdir()
        if path.name not in ("nested", ".hidden.jpg")
    }
    assert there == {*BAD_FILES, *(f"{number}.jpg" for number in range(GOOD))}


def test_the_bomb_is_small_and_would_be_large() -> None:
    data = bomb(2000)
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.size == (2000, 2000)
        picture.load()
    assert len(bomb(30_000)) < 1_000_000


@pytest.mark.slow
def test_neighbours_are_as_if_they_were_alone(found: Found, tmp_path: Path) -> None:
    """Photographs beside bad files, and people beside bad people, have the same rows as in a folder
    of their own.
    """
    people = tmp_path / "people"
    for name in ("neighbour", "trouble"):
        (people / name).mkdir(parents=True)
        for number in range(GOOD):
            shutil.copy2(found.people / name / f"{number}.jpg", people / name)
    alone = run(tmp_path, people)
    good = [
        f"local:{name}/{number}.jpg" for name in ("neighbour", "trouble") for number in range(GOOD)
    ]
    for table in ("images", "faces", "embeddings", "clusters"):
        sql = (
            f"SELECT t.* FROM {table} t JOIN candidates USING (image_id) WHERE "
            "list_contains(?, address) ORDER BY ALL"
        )
        rows = found.rows(sql, good)
        assert len(rows) == 2 * GOOD
        assert rows == alone.rows(sql, good), table


@pytest.mark.parametrize("name", [*ODD_PEOPLE, LATIN])
def test_people_with_odd_names_have_all_their_pictures(found: Found, name: str) -> None:
    rows = person(found, name)
    assert [row[1:] for row in rows] == [("ok", None, True)] * GOOD


@pytest.mark.parametrize(
    ("first", "second"), [("Same Name", "same NAME"), (NFC, NFD)], ids=["case", "unicode"]
)
def test_folders_of_one_name_are_one_person(found: Found, first: str, second: str) -> None:
    assert identity_id(first) == identity_id(second)
    rows = person(found, first)
    assert len(rows) == 2 * GOOD
    assert {row[1:] for row in rows} == {("ok", None, True)}
    [(name, aliases)] = found.rows(
        "SELECT name, aliases FROM identities WHERE identity_id = ?", identity_id(first)
    )
    assert {name, *aliases} == {first, second}, "both spellings are kept"


def test_people_without_photographs_are_rows_that_say_so(found: Found) -> None:
    assert found.rows("SELECT status, reason FROM identities WHERE name = 'nobody'") == [
        ("filtered", "no_candidates")
    ]
    assert person(found, "only bad files") == [
        ("local:only bad files/empty.jpg", "failed", "empty", False)
    ]


@pytest.mark.parametrize("name", ODD_FILES)
def test_odd_file_names_lead_to_their_bytes(found: Found, name: str) -> None:
    """The right bytes under an address that leads back to the file."""
    data = (found.people / "odd" / name).read_bytes()
    address = f"local:odd/{name.replace('%', '%25')}"
    sql = """SELECT m.bytes, s.key, s.shard FROM candidates c
        JOIN images m USING (image_id) JOIN samples s USING (image_id) WHERE c.address = ?"""
    [(stored, key, shard)] = found.rows(sql, address)
    assert stored == data
    assert key and shard


def test_a_name_that_is_not_utf8_is_an_escaped_address(found: Found) -> None:
    addresses = [row[0] for row in person(found, LATIN)]
    assert addresses == [f"local:Jos%E9/caf%E9 {number}.jpg" for number in range(GOOD)]


def test_shards_open_with_plain_webdataset_and_have_safe_keys(found: Found) -> None:
    webdataset = pytest.importorskip("webdataset")
    tars = sorted(str(path) for path in (found.root / "shards").rglob("*.tar"))
    samples = list(webdataset.WebDataset(tars, shardshuffle=False))
    expected = {
        row[0]: row[1]
        for row in found.rows("SELECT s.key, m.bytes FROM samples s JOIN images m USING (image_id)")
    }
    assert {sample["__key__"]: sample["jpg"] for sample in samples} == expected
    assert len(samples) == len(expected) > 20
    safe = set("0123456789abcdef_-")
    for sample in samples:
        assert set(sample["__key__"]) <= safe, "names of people and files stay out of names in tars"
        assert set(sample) >= {"jpg", "json"}


def test_remarks_name_what_was_left_out(found: Found) -> None:
    assert f"note: 1 file beside the folders of people in {found.people} is not used" in found.said
    assert f"note: 1 folder inside {found.people / 'trouble'} is not used" in found.said


def test_a_second_run_has_nothing_to_do(found: Found) -> None:
    """Bad files are not tried again; but the one in /proc says that it changes all the time, so it
    is read again.
    """
    again = run(found.root.parent, found.people)
    assert {
        name: stage["units"] for name, stage in again.record.stages.items() if stage["units"]
    } in ({}, {"crawl": 1})
    assert again.rows("SELECT count(*) FROM samples") == found.rows("SELECT count(*) FROM samples")
