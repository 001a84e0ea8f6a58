"""Compaction: a finished bucket has one file a table, and every reader sees the same rows as
before.
"""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from idcluster.catalogue.connection import connect
from idcluster.root.parquet import DamagedFile, places, read, read_entries, seal_table
from idcluster.root.snapshot import Entry, Snapshot, load, publish
from idcluster.root.storage import Store
from pipeline.execution import intake
from pipeline.execution.compact import compact
from pipeline.gc import collect
from schemas import TABLES

FACES, CANDIDATES = TABLES["faces"], TABLES["candidates"]
ROWS = 10


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(intake, "BUCKET_ROWS", 5 * ROWS)
    return Store(tmp_path / "root")


def faces(chunk: int, word: str = "a", rows: int = ROWS) -> pa.Table:
    return FACES.build(
        {
            "identity_id": "p",
            "image_id": f"i{chunk}-{n}",
            "face_id": f"f{chunk}-{n}",
            "landmark_scheme": word,
            "status": "ok",
            "inputs": bytes(8),
        }
        for n in range(rows)
    )


def candidates(chunk: int) -> pa.Table:
    ids = {"identity_id": "p", "address": "a", "source": "s", "status": "ok", "inputs": bytes(8)}
    return CANDIDATES.build({**ids, "image_id": f"i{chunk}-{n}", "rank": n} for n in range(ROWS))


def entry(store: Store, schema: object, chunk: int, table: pa.Table, live: bool = True) -> Entry:
    assert schema in (FACES, CANDIDATES)
    chosen = FACES if schema is FACES else CANDIDATES
    return seal_table(store, chosen, "v", 0, chunk, table).entry(
        chosen, "v", 0, chunk, f"basis {chunk}" if live else "", live
    )


def full(store: Store, chunks: int = 5) -> Snapshot:
    """A bucket with so many chunks of candidates and faces, chunk 1 without faces, chunk 2 with
    rows kept for a switch back.
    """
    made = [entry(store, CANDIDATES, chunk, candidates(chunk)) for chunk in range(chunks)]
    made += [
        entry(store, FACES, chunk, faces(chunk, rows=0 if chunk == 1 else ROWS + chunk))
        for chunk in range(chunks)
    ]
    made.append(entry(store, FACES, 2, faces(2, "old"), live=False))
    return Snapshot().with_entries(made)


def compacted(store: Store, snapshot: Snapshot) -> Snapshot:
    return snapshot.with_entries(compact(store, snapshot, [0]))


def files(snapshot: Snapshot, table: str) -> set[str]:
    return {entry.file for entry in snapshot.shown(table) if entry.file}


def views(store: Store, snapshot: Snapshot) -> list[list[tuple[object, ...]]]:
    connection = connect(store, snapshot)
    rows = [
        connection.execute(f"SELECT * FROM {name} ORDER BY ALL").fetchall()
        for name in ("candidates", "faces")
    ]
    connection.close()
    return rows


def test_a_finished_bucket_has_one_file_a_table(store: Store) -> None:
    """Five hundred million images would be ten million small files."""
    before = full(store)
    after = compacted(store, before)
    assert [len(files(before, name)) for name in ("candidates", "faces")] == [5, 4]
    assert [len(files(after, name)) for name in ("candidates", "faces")] == [1, 1]
    assert read_entries(store, "faces", after.shown("faces")).equals(
        read_entries(store, "faces", before.shown("faces"))
    )
    assert views(store, after) == views(store, before)


def test_nothing_that_follows_is_computed_again(store: Store) -> None:
    """All captions would be made anew because their faces moved to another file."""
    before = full(store)
    after = compacted(store, before)
    elsewhere = {
        replace(e, file="", offset=0, file_rows=0, file_bytes=0) for e in after.entries if e.file
    }
    assert elsewhere == {replace(e, file="") for e in before.entries if e.file}
    assert len(after.entries) == len(before.entries)
    assert [e for e in after.entries if not e.live] == [e for e in before.entries if not e.live]
    assert compact(store, after, [0]) == []


def test_each_chunk_is_read_alone(store: Store) -> None:
    """A slice would be computed with the rows of another chunk, or read a whole bucket."""
    snapshot = compacted(store, full(store))
    for chunk in (0, 2, 3, 4):
        [place] = places([e for e in snapshot.of("faces", 0, chunk) if e.live])
        assert read(store, FACES, place).equals(faces(chunk, rows=ROWS + chunk))
        found = read(store, FACES, place, ["face_id"], ("image_id", [f"i{chunk}-3", "i0-0"]))
        assert found["face_id"].to_pylist() == ([f"f{chunk}-0"] if chunk == 0 else []) + [
            f"f{chunk}-3"
        ]
    neighbours = [e for chunk in (2, 3) for e in snapshot.of("faces", 0, chunk) if e.live]
    [place] = places(neighbours)
    assert read(store, FACES, place).equals(
        pa.concat_tables([faces(2, rows=ROWS + 2), faces(3, rows=ROWS + 3)])
    )
    assert places(snapshot.shown("faces")) == [snapshot.shown("faces")[0].file]


@pytest.mark.parametrize("loose", [1, 3])
def test_a_view_shows_no_row_that_was_replaced(
    store: Store, monkeypatch: pytest.MonkeyPatch, loose: int
) -> None:
    """A person would have the faces of the old and of the new detection, or chunk 0 in place of the
    one that changed.
    """
    monkeypatch.setattr("pipeline.execution.compact.LOOSE", 4 / loose)
    snapshot = compacted(store, full(store))
    changed = [
        entry(store, FACES, chunk, faces(chunk, "new", ROWS - 1)) for chunk in (0, 3, 4)[:loose]
    ]
    following = snapshot.with_entries(changed)
    shown = views(store, following)
    assert [row for row in shown[1] if "new" in row] and len(shown[1]) == sum(
        e.rows for e in following.shown("faces")
    )
    expected = read_entries(store, "faces", following.shown("faces"))
    assert sorted(str(row[2]) for row in shown[1]) == sorted(expected["face_id"].to_pylist())
    again = compacted(store, following)
    assert views(store, again) == shown and len(files(again, "faces")) == 1


def test_few_new_files_are_left_beside(store: Store) -> None:
    """One new image would rewrite every table of its bucket."""
    snapshot = compacted(store, full(store, chunks=20))
    changed = snapshot.with_entries([entry(store, FACES, 0, faces(0, "new"))])
    assert compact(store, changed, [0]) == []
    changed = changed.with_entries(
        entry(store, FACES, chunk, faces(chunk, "new")) for chunk in (0, 2, 3)
    )
    assert len(files(compacted(store, changed), "faces")) == 1


@pytest.mark.parametrize("what", ["open", "a chunk missing", "rows missing", "two versions"])
def test_what_is_not_finished_is_left(
    store: Store, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Files would be merged over and over while they come in, or a view would lose chunks."""
    snapshot = full(store)
    last = next(e for e in snapshot.of("faces", 0, 4))
    if what == "open":
        monkeypatch.setattr(intake, "BUCKET_ROWS", 5 * ROWS + 1)
    elif what == "a chunk missing":
        snapshot = Snapshot(0, tuple(e for e in snapshot.entries if e != last))
    elif what == "rows missing":
        snapshot = snapshot.with_entries([replace(last, basis="")])
    else:
        snapshot = snapshot.with_entries([replace(last, version="w")])
    before = views(store, snapshot)
    after = compacted(store, snapshot)
    assert files(after, "faces") == files(snapshot, "faces") and views(store, after) == before


def test_a_damaged_file_does_not_stop_the_others(store: Store) -> None:
    """A run that has no need of that file would end without publishing its work."""
    snapshot = full(store)
    store.put(snapshot.of("faces", 0, 3)[0].file, b"damaged")
    after = compacted(store, snapshot)
    assert [len(files(after, name)) for name in ("candidates", "faces")] == [1, 4]


def test_a_shortened_file_is_named(store: Store) -> None:
    """Rows of another chunk would be taken for those that are lost."""
    with pytest.raises(DamagedFile, match="cannot be read"):
        read(store, FACES, f"{entry(store, FACES, 0, faces(0)).file}#5+20")


def test_gc_deletes_what_was_merged_away(store: Store) -> None:
    """The many small files would stay for ever."""
    publish(store, compacted(store, publish(store, full(store))))
    assert len(store.list("tables")) == 5 + 4 + 1 + 2
    collect(store, 1, "gc")
    assert len(store.list("tables")) == 1 + 2


# Companions: what a finished bucket has beside files with images


IMAGES = TABLES["images"]


def images(chunk: int, word: str = "jpeg") -> pa.Table:
    ids = {"identity_id": "p", "status": "ok", "inputs": bytes(8), "format": word}
    made = [
        {**ids, "image_id": f"i{chunk}-{n}", "bytes": f"{word} {chunk} {n}".encode() * 40}
        for n in range(39)
    ]
    return IMAGES.build(
        [*made, {**ids, "image_id": f"i{chunk}-39", "status": "failed", "reason": "http_404"}]
    )


def images_entry(store: Store, chunk: int, word: str = "jpeg", version: str = "v") -> Entry:
    return seal_table(store, IMAGES, version, 0, chunk, images(chunk, word)).entry(
        IMAGES, version, 0, chunk, f"{word} {chunk}"
    )


@pytest.fixture
def pictures(store: Store) -> Snapshot:
    made = [entry(store, CANDIDATES, chunk, candidates(chunk)) for chunk in range(5)]
    return Snapshot().with_entries([*made, *(images_entry(store, chunk) for chunk in range(5))])


def asked(store: Store, snapshot: Snapshot) -> tuple[list[tuple[object, ...]], int]:
    """All rows of `images`, and how many files are opened to count them."""
    connection = connect(store, snapshot)
    rows = connection.execute("SELECT * FROM images ORDER BY image_id").fetchall()
    connection.close()
    watched = Store(store.root)
    opened: list[str] = []
    read_whole = watched.read

    def read(path: str) -> bytes:
        opened.append(path)
        return read_whole(path)

    watched.read = read  # type: ignore[method-assign]
    connection = connect(watched, snapshot)
    opened.clear()
    assert connection.execute("SELECT format, count(*) FROM images GROUP BY ALL").fetchall()
    connection.close()
    return rows, len(set(opened))


def test_a_question_about_all_pictures_opens_one_file_a_bucket(
    store: Store, pictures: Snapshot
) -> None:
    """Eleven million images lie in 22,500 files, whose footers alone take most of a minute."""
    after = compacted(store, pictures)
    before_rows, before_files = asked(store, pictures)
    after_rows, after_files = asked(store, after)
    assert after_rows == before_rows
    assert len(after_rows) == 200
    assert (before_files, after_files) == (5, 1)
    assert files(after, "images") == files(pictures, "images")
    assert compact(store, after, [0]) == []


def test_a_picture_is_found_by_any_way_of_asking(store: Store, pictures: Snapshot) -> None:
    """Images are fetched row by row: filters, joins, orders and several threads must not mix them
    up.
    """
    connection = connect(store, compacted(store, pictures))
    one = connection.execute("SELECT bytes FROM images WHERE image_id = 'i3-37'").fetchall()
    assert one == [(b"jpeg 3 37" * 40,)]
    joined = connection.execute(
        "SELECT c.image_id, i.bytes FROM candidates c JOIN images i USING (image_id) ORDER BY "
        "c.rank"
    ).fetchall()
    assert len(joined) == 50
    assert all(
        data == f"jpeg {image[1:].replace('-', ' ')}".encode() * 40 for image, data in joined
    )
    assert connection.execute(
        "SELECT octet_length(bytes) FROM images ORDER BY image_id LIMIT 1"
    ).fetchall() == [(320,)]
    with pytest.raises(Exception, match="no companion of this snapshot"):
        connection.execute("SELECT idcluster_blob('bytes', '/etc/passwd', 0)")


@pytest.mark.slow
def test_a_companion_that_no_longer_holds_is_not_read_and_not_published(
    store: Store, pictures: Snapshot
) -> None:
    """What was forgotten of an image must not live on beside it."""
    first = publish(store, compacted(store, pictures))
    changed = first.with_entries([images_entry(store, 2, "png")])
    counted = "SELECT format, count(*) FROM images GROUP BY ALL ORDER BY ALL"
    assert connect(store, changed).execute(counted).fetchall() == [("jpeg", 160), ("png", 40)]
    second = publish(store, changed)
    assert not [e for e in load(store).entries if e.table == "images_light"]
    assert second.entries == load(store).entries
    third = publish(store, compacted(store, second))
    assert connect(store, third).execute(counted).fetchall() == [("jpeg", 160), ("png", 40)]
    assert asked(store, third)[1] == 1
    collect(store, 1, "gc", current_only=True)
    assert store.list("tables/images_light") == [
        e.file for e in third.entries if e.table == "images_light"
    ]


def test_a_switch_back_shows_the_companion_of_then(store: Store, pictures: Snapshot) -> None:
    first = compacted(store, pictures)
    newer = compacted(
        store, first.with_entries([images_entry(store, chunk, "png", "w") for chunk in range(5)])
    )
    assert [e.version for e in newer.shown("images_light")] == ["w"]
    older = [
        replace(e, current=True) for e in newer.entries if e.table == "images" and e.version == "v"
    ]
    back = compacted(store, newer.with_entries(older))
    assert [(e.version, e.file) for e in back.shown("images_light")] == [
        ("v", first.shown("images_light")[0].file)
    ]
    assert asked(store, back)[1] == 1


def test_a_lost_file_of_pictures_is_named_when_its_pictures_are_asked_for(
    store: Store, pictures: Snapshot
) -> None:
    after = compacted(store, pictures)
    lost = after.shown("images")[4].file
    Path(store.uri(lost)).unlink()
    connection = connect(store, after)
    assert connection.execute("SELECT count(*) FROM images").fetchall() == [(200,)]
    with pytest.raises(Exception, match=lost):
        connection.execute("SELECT bytes FROM images WHERE image_id = 'i4-0'").fetchall()
