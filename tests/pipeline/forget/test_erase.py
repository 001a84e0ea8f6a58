"""Removing somebody: nothing of them is left anywhere, everything else is as if they had never been
there.
"""

import io
import json
import shutil
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import webdataset as wds
from PIL import Image, ImageOps

from idcluster.catalogue.connection import connect
from idcluster.root import spool
from idcluster.root.dataset_root import RunError, make_root
from idcluster.root.lease import Lease, LeaseHeld
from idcluster.root.listing_cache import ListingCache
from idcluster.root.snapshot import Snapshot, load, numbers, publish
from idcluster.root.storage import Store
from pipeline.correct import correct, pair_of
from pipeline.execution.intake import take_in
from pipeline.forget.erase import forget
from pipeline.forget.preview import prepare
from pipeline.forget.verify import verify
from pipeline.forget.wish import Wish
from pipeline.gc import collect
from pipeline.history import rollback
from pipeline.shards.check import check_set
from schemas import TABLES, identity_id, image_id
from schemas.fetched import Fetched
from stages.crawl.folder import FolderSource
from stages.crawl.listing import Listed, Offer
from tests.pipeline.forgotten import WHO, gallery, holding, remove, without
from tests.pipeline.rooms import bury, computed, run_toy, shown, small_buckets
from tests.pipeline.toy import DyingStore, Killed, people, picture


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gallery(tmp_path_factory.mktemp("source") / "people")


@pytest.fixture(scope="module")
def made(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with rows of an earlier parameter, rows set aside, and two profiles of shards."""
    folder = tmp_path_factory.mktemp("made")
    run_toy(
        folder,
        source,
        folder / "root",
        ("stages.caption.params.prompt=earlier", "stages.shard.params.profile=second"),
    )
    run_toy(folder, source, folder / "root", ("stages.clean.params.similarity_threshold=0.995",))
    run_toy(folder, source, folder / "root")
    return folder / "root"


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "root"))


def ids(source: Path, who: str = WHO) -> list[str]:
    """Everything that tells somebody in a root of the source: name, id, addresses, ids and hashes
    of images.
    """
    person = identity_id(who)
    [listed] = [one for one in FolderSource(source, "local").people()[0] if one.name == who]
    addresses = [offer.address for offer in listed.offers]
    return [who, person, *addresses, *(image_id(person, address) for address in addresses)]


@pytest.mark.slow
def test_nothing_is_left_and_the_rest_is_as_if_they_had_never_been_there(
    source: Path, root: Path, tmp_path: Path
) -> None:
    """Somebody who was removed would still be in an older version, a shard or a record; or others
    would be lost with them.
    """
    store = Store(root)
    run = json.dumps(
        {"run_id": "x", "selection": {"where": f"name = '{WHO}' or address like 'local:{WHO}/%'"}}
    )
    store.put("runs/20000101T000000-aaaa.json", run.encode())
    assert holding(store, ids(source))
    before = {path: store.read(path) for path in store.list("tables")}
    done = remove(store, WHO)
    assert holding(store, ids(source)) == []
    assert verify(store, [WHO]).leftovers == []
    assert done.receipt.removed["people"] == 1 and done.receipt.removed["of_others"] == 2
    connection = connect(str(root))
    barred = dict(
        connection.execute(
            "SELECT kind, count(DISTINCT hash) FROM removals GROUP BY kind"
        ).fetchall()
    )
    connection.close()
    # Toy images are flat, so that their perceptual hashes say nothing.
    assert (
        barred.keys() == {"identity", "name", "spelling", "address", "image", "sha256", "vector"}
        and barred["image"] == 13
    )
    kept = before.keys() & set(store.list("tables"))
    assert all(store.read(path) == before[path] for path in kept)
    for number in numbers(store):
        assert all(store.exists(entry.file) for entry in load(store, number).entries if entry.file)
    # The source still lists them: they must not come back, and nothing is computed but what the
    # images of others change.
    record = run_toy(tmp_path, source, root)
    assert set(computed(record)) <= {"clean", "people"} and record.intake["new"] == 0
    fresh = without(source, tmp_path / "fresh" / "people")
    run_toy(tmp_path, fresh, tmp_path / "fresh" / "root")
    old, new = shown(root), shown(tmp_path / "fresh" / "root")
    assert {name: value for name, value in old.items() if name != "shards"} == {
        k: v for k, v in new.items() if k != "shards"
    }
    assert {
        path: digest for path, digest in old["shards"].items() if path.startswith("shards/faces/")
    } == new["shards"]
    assert holding(store, ids(source)) == []


@pytest.mark.slow
def test_going_back_and_switching_back_bring_nobody_back(
    source: Path, root: Path, tmp_path: Path
) -> None:
    """An older snapshot, or the rows of an earlier parameter, would show the person again."""
    store = Store(root)
    remove(store, WHO)
    removed = load(store).shown("removals")
    for number in numbers(store)[:-1]:
        rollback(store, number, "back")
        assert load(store).shown("removals") == removed
        connection = connect(str(root))
        for name, schema in TABLES.items():
            if "identity_id" in schema.names:
                assert connection.execute(
                    f"SELECT count(*) FROM {name} WHERE identity_id = ?", [identity_id(WHO)]
                ).fetchone() == (0,)
        connection.close()
    run_toy(tmp_path, source, root, ("stages.caption.params.prompt=earlier",))
    assert holding(store, ids(source)) == []


@pytest.mark.slow
def test_a_picture_comes_back_under_no_other_name_or_address(
    source: Path, root: Path, tmp_path: Path
) -> None:
    """Whoever lists the person anew, under a nickname or from another page, would have them in the
    dataset again.
    """
    store = Store(root)
    remove(store, WHO)
    again = Path(shutil.copytree(source, tmp_path / "again"))
    shutil.copytree(source / WHO, again / "somebody")
    (again / "somebody" / "unseen.png").write_bytes(picture(77, noise=41))
    run_toy(tmp_path, again, root)
    connection = connect(str(root))
    counts = ", ".join(f"count({column})" for column in ("*", "sha256", "phash", "bytes"))
    sql = f"SELECT status, reason, {counts} FROM images WHERE identity_id = ? GROUP BY ALL"
    rows = connection.execute(sql, [identity_id("somebody")]).fetchall()
    connection.close()
    assert ("filtered", "removed", 9, 0, 0, 0) in rows
    assert sum(row[2] for row in rows if row[1] == "removed") == 9


@pytest.mark.slow
def test_mirrored_cropped_and_turned_copies_are_found_and_kept_out(
    astronaut: bytes, tmp_path: Path
) -> None:
    """A photograph that somebody has flipped, or put on another page without its margin, would
    stay, or come back.
    """

    def put(folder: Path, **copies: Image.Image) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, image in copies.items():
            image.convert("RGB").resize((300, 300)).save(folder / f"{name}.jpg", quality=85)

    original = Image.open(io.BytesIO(astronaut)).convert("RGB")
    home = people(tmp_path / "people", count=3, pictures=2)
    put(home / WHO, original=original)
    put(
        home / "person 00",
        mirrored=ImageOps.mirror(original),
        cropped=original.crop((51, 51, 461, 461)),
    )
    run_toy(tmp_path, home, tmp_path / "root")
    store = Store(tmp_path / "root")
    prepared = prepare(store, Wish(identities=(WHO,)))
    assert list(prepared.found.others.values()).count("a copy of the image") == 2
    done = forget(store, prepared, "forget-test")
    assert done.receipt.hashes["look"] and verify(store, [WHO]).leftovers == []
    put(
        home / "somebody",
        turned=original.rotate(2, Image.Resampling.BILINEAR),
        cropped=original.crop((0, 0, 461, 461)),
        mirrored=ImageOps.mirror(original.crop((51, 0, 512, 461))),
        other=ImageOps.flip(original),
    )
    run_toy(tmp_path, home, tmp_path / "root")
    connection = connect(str(tmp_path / "root"))
    sql = (
        "SELECT address, images.reason FROM images JOIN candidates USING (image_id) WHERE "
        "address LIKE '%somebody%' ORDER BY 1"
    )
    rows = connection.execute(sql).fetchall()
    connection.close()
    names = ("cropped", "mirrored", "other", "turned")
    assert rows == [
        (f"local:somebody/{name}.jpg", None if name == "other" else "removed") for name in names
    ]


@pytest.mark.slow
def test_a_name_in_another_spelling_does_not_come_back_and_who_stays_is_told(
    source: Path, root: Path, tmp_path: Path
) -> None:
    """A source that writes the family name first would bring the person back; a namesake in another
    order would vanish.
    """
    store = Store(root)
    assert set(prepare(store, Wish(identities=("01, PERSON",))).found.people) == {identity_id(WHO)}
    remove(store, WHO)
    again = Path(shutil.copytree(source, tmp_path / "again"))
    for number, name in enumerate(("01, person", "реrѕоn 01", "PÉRSON  01")):
        (again / name).mkdir()
        (again / name / "unseen.png").write_bytes(picture(80 + number, noise=43))
    run_toy(tmp_path, again, root)
    connection = connect(str(root))
    assert connection.execute("SELECT count(*) FROM identities").fetchone() == (3,)
    connection.close()
    (again / "00 person").mkdir()
    (again / "00 person" / "unseen.png").write_bytes(picture(90, noise=44))
    run_toy(tmp_path, again, root)
    prepared = prepare(store, Wish(identities=("person 00",)))
    assert any(
        note.startswith("'00 person' (") and "stays" in note for note in prepared.found.notes
    )
    forget(store, prepared, "forget-test")
    run_toy(tmp_path, again, root)
    connection = connect(str(root))
    names = {name for (name,) in connection.execute("SELECT name FROM identities").fetchall()}
    connection.close()
    assert names == {"00 person", "person 02", "person 03"}


def test_a_root_from_which_nobody_was_removed_is_as_before(source: Path, made: Path) -> None:
    """Every dataset would change, or ask for a file that it does not have."""
    store = Store(made)
    assert store.list("receipts") == [] and not load(store).shown("removals")


@pytest.mark.slow
def test_compacted_buckets_are_thinned_and_stay_whole(source: Path, tmp_path: Path) -> None:
    """Rows of many chunks lie in one file there; those of neighbours would be lost or shown
    twice.
    """
    with small_buckets():
        run_toy(tmp_path, source, tmp_path / "root")
        store = Store(tmp_path / "root")
        assert any(entry.file_rows for entry in load(store).entries)
        others = "SELECT * FROM {} WHERE identity_id <> ? AND NOT list_contains(?, {}) ORDER BY ALL"
        gone = list(prepare(store, Wish(identities=(WHO,))).found.images)

        def rest() -> dict[str, Any]:
            connection = connect(str(tmp_path / "root"))
            found = {}
            for name in ("candidates", "faces", "embeddings", "captions"):
                columns = ", ".join(column for column in TABLES[name].names if column != "rank")
                sql = others.format(name, "image_id").replace("*", columns, 1)
                found[name] = connection.execute(sql, [identity_id(WHO), gone]).fetchall()
            connection.close()
            return found

        before = rest()
        remove(store, WHO)
        assert rest() == before and holding(store, ids(source)) == []
        record = run_toy(tmp_path, source, tmp_path / "root")
        assert set(computed(record)) <= {"clean", "people"}
        assert rest() == before and holding(store, ids(source)) == []
        assert verify(store, [WHO]).leftovers == []


@pytest.mark.slow
def test_whoever_is_merged_with_them_goes_too_and_who_is_akin_stands_alone(
    source: Path, tmp_path: Path
) -> None:
    """Half of a person would stay under another name."""
    root = tmp_path / "root"
    run_toy(tmp_path, source, root)
    correct(Store(root), [pair_of("merge", "person 00=person 01")], "by hand", "me")
    run_toy(tmp_path, source, root)
    store = Store(root)
    prepared = prepare(store, Wish(identities=(WHO,)))
    assert set(prepared.found.people) == {identity_id("person 00"), identity_id(WHO)}
    forget(store, prepared, "forget-test")
    assert holding(store, [*ids(source), *ids(source, "person 00")]) == []
    assert verify(store, [WHO, "person 00"]).leftovers == []
    connection = connect(str(root))
    assert connection.execute("SELECT count(*) FROM overrides").fetchone() == (0,)
    connection.close()


@pytest.mark.slow
def test_decisions_by_hand_about_them_go_and_others_stay(source: Path, root: Path) -> None:
    """A decision names the person, by id and by the one it points to."""
    store = Store(root)
    correct(
        store,
        [pair_of("apart", "person 00=person 01"), pair_of("apart", "person 02=person 03")],
        "by hand",
        "me",
    )
    remove(store, WHO)
    connection = connect(str(root))
    left = connection.execute("SELECT identity_id, target FROM overrides").fetchall()
    assert left == [(identity_id("person 02"), identity_id("person 03"))]
    connection.close()
    assert verify(store, [WHO]).leftovers == []


@pytest.mark.slow
def test_a_single_picture_goes_by_address_or_by_hash(source: Path, root: Path) -> None:
    """Who asks for one photograph to be removed would lose all of them, or be told that it cannot
    be done.
    """
    store = Store(root)
    connection = connect(str(root))
    known = "candidates c JOIN images i USING (image_id)"
    sql = (
        f"SELECT c.address, i.image_id, i.sha256 FROM {known} WHERE address LIKE '%person "
        "02/0%' ORDER BY 1"
    )
    (first, image, _), (_, other, sha256), *_ = connection.execute(sql).fetchall()
    connection.close()
    done = forget(store, prepare(store, Wish(urls=(first,), sha256s=(sha256,))), "forget-test")
    assert (done.receipt.removed["people"], done.receipt.removed["pictures"]) == (0, 2)
    assert holding(store, [first, image, other, sha256]) == []
    connection = connect(str(root))
    assert connection.execute(
        "SELECT count(*) FROM images WHERE identity_id = ?", [identity_id("person 02")]
    ).fetchone() == (10,)
    connection.close()


@pytest.mark.slow
def test_what_is_not_there_is_told_and_can_be_barred_all_the_same(
    source: Path, root: Path, tmp_path: Path
) -> None:
    """A mistyped name would be taken for done; somebody who asks before the crawl could not be kept
    out.
    """
    store = Store(root)
    with pytest.raises(
        RunError, match=r"nobody here is called 'persn 01'; the nearest names are 'person 01'"
    ):
        prepare(store, Wish(identities=("persn 01",)))
    with pytest.raises(RunError, match=r"no image here is from https://example.org/x.jpg"):
        prepare(store, Wish(urls=("https://example.org/x.jpg",)))
    with pytest.raises(RunError, match="no image here has the SHA-256 0000000000000000"):
        prepare(store, Wish(sha256s=("0" * 64,)))
    forget(store, prepare(store, Wish(identities=("Person   04",), unknown=True)), "forget-test")
    people(tmp_path / "more", count=5)
    record = run_toy(tmp_path, tmp_path / "more", root)
    assert record.intake["people"] == 4 and holding(store, [identity_id("person 04")]) == []


class Namesakes:
    """Two people of one name, told apart by ids, and one who has it for an alias."""

    name, web = "made", True

    def check(self) -> None: ...

    def people(self) -> tuple[list[Listed], list[str]]:
        listed = [
            Listed(
                "Kim Lee", [Offer(f"https://example.org/{given}.jpg")], given, {"wikidata": given}
            )
            for given in ("Q1", "Q2")
        ]
        return [
            *listed,
            Listed("K. L.", [Offer("https://example.org/3.jpg")], "Q3", {}, ("Kim Lee",)),
        ], []

    def fetch(self, addresses: Sequence[str]) -> list[Fetched]:
        raise NotImplementedError


def test_a_name_that_somebody_who_stays_has_too_is_not_barred(tmp_path: Path) -> None:
    """A namesake would vanish from the dataset at the next run."""
    store = make_root(str(tmp_path / "root"), "made")
    publish(store, Snapshot().with_entries(take_in(store, Snapshot(), Namesakes()).entries))
    with pytest.raises(RunError, match=r"'Kim Lee' are 3 people: .* say which by identity_id"):
        prepare(store, Wish(identities=("Kim Lee",)))
    prepared = prepare(store, Wish(identities=("Q1",)))
    assert prepared.found.shared_names == {"Kim Lee"} and len(prepared.found.people) == 1
    forget(store, prepared, "forget-test")
    found = take_in(store, load(store), Namesakes())
    assert (found.people, found.new, found.gone) == (2, 0, 0)
    assert found.remarks == ["made lists 1 person who was removed and is left out"]
    assert holding(store, [identity_id("", "Q1"), "https://example.org/Q1.jpg"]) == [] and holding(
        store, ["Kim Lee"]
    )


def test_reports_and_work_under_way_in_the_root_go(source: Path, root: Path) -> None:
    """A contact sheet, a page or an answer of a web server in the root would show the person."""
    store = Store(root)
    person = identity_id(WHO)
    planted = {
        "report.html": f"<p>{WHO}</p>".encode(),
        "sheet.png": b"who knows who this is",
        f"pages/{person}.html": b"a page",
        "parts/attempts/r/detect.json": json.dumps(
            {"deaths": {f"detect {image_id(person, 'local:person 01/00.png')}": 1}}
        ).encode(),
        "tables/faces/.0123456789abcdef.tmp": b"half a file",
        "pages/other.html": b"person 02",
    }
    listed = {person: "train", identity_id("person 02"): "validation"}
    store.put("lists/0123.json", json.dumps({"people": listed}).encode())
    for path, data in planted.items():
        store.put(path, data)
    prepared = prepare(store, Wish(identities=(WHO,)))
    assert {path for path, _ in prepared.files} == {*planted, "lists/0123.json"} - {
        "pages/other.html"
    }
    forget(store, prepared, "forget-test")
    assert [path for path in planted if store.exists(path)] == ["pages/other.html"]
    assert json.loads(store.read("lists/0123.json"))["people"] == {
        identity_id("person 02"): "validation"
    }


@pytest.mark.slow
def test_answers_of_the_web_and_listings_go_and_those_of_others_stay(
    source: Path, root: Path
) -> None:
    """What was fetched or listed and not taken in yet would bring the person in at the next run; or
    everybody be asked anew.
    """
    store = Store(root)
    its = (source / WHO / "01.png").read_bytes()
    spool.put(
        store,
        "parts/spool/r/a/0000.spool",
        [("https://x.org/1.png", Fetched(its)), ("https://x.org/2.png", Fetched(b"other"))],
    )
    spool.put(store, "parts/spool/r/b/0000.spool", [(ids(source)[2], Fetched(b"other"))])
    spool.put(store, "parts/spool/r/c/0000.spool", [("https://x.org/3.png", Fetched(b"other"))])
    shelf = ListingCache(store, "service")
    for key, text in (("k1", json.dumps({"name": WHO})), ("k2", json.dumps({"name": "person 02"}))):
        shelf.put(key, text)
    shelf.flush()
    remove(store, WHO)
    assert store.list("parts/spool") == ["parts/spool/r/c/0000.spool"]
    again = ListingCache(store, "service")
    assert again.get("k1") is None and again.get("k2") is not None
    assert verify(store, [WHO]).leftovers == []


def test_a_run_that_was_killed_leaves_nothing_of_them(source: Path, tmp_path: Path) -> None:
    """Parts that no snapshot names hold the person's rows; the next run would take them for
    finished work.
    """
    root = tmp_path / "root"
    Store(root).put("dataset.json", b'{"format": 1, "name": "toy"}')
    with pytest.raises(Killed):
        run_toy(tmp_path, source, root, store=DyingStore(root, at=60))
    store = Store(root)
    bury(store.root)
    assert any(identity_id(WHO).encode() in store.read(path) for path in store.list("parts"))
    remove(store, WHO)
    assert holding(store, ids(source)) == [] and verify(store, [WHO]).leftovers == []
    run_toy(tmp_path, source, root)
    assert holding(store, ids(source)) == []


@pytest.mark.slow
def test_only_shards_around_them_are_written_anew(source: Path, tmp_path: Path) -> None:
    """Everybody who has a copy of the shards would have to fetch all of them again."""
    many = people(tmp_path / "many", count=12, pictures=4)
    sets = ("stages.shard.params.target_mb=0.02", "stages.shard.params.validation=0")
    run_toy(tmp_path, many, tmp_path / "root", sets)
    store = Store(tmp_path / "root")
    before = {
        path: store.read(path)
        for path in store.list("shards")
        if path.endswith((".tar", ".parquet"))
    }
    assert len(before) > 12
    touched = {
        path.rsplit(".", 1)[0]
        for path in holding(store, [identity_id("person 05")])
        if path in before
    }
    remove(store, "person 05")
    assert check_set(store, "shards/faces").faults == [], "the card counts who is left"
    after = {
        path: store.read(path)
        for path in store.list("shards")
        if path.endswith((".tar", ".parquet"))
    }
    assert len(before.keys() - after.keys()) <= 2 * len(touched) + 4
    assert (
        all(after[path] == before[path] for path in before.keys() & after.keys())
        and len(before.keys() & after.keys()) > 6
    )
    fresh = Path(shutil.copytree(many, tmp_path / "fresh" / "people"))
    shutil.rmtree(fresh / "person 05")
    run_toy(tmp_path, fresh, tmp_path / "fresh" / "root", sets)
    assert shown(tmp_path / "root")["shards"] == shown(tmp_path / "fresh" / "root")["shards"]


@pytest.mark.slow
def test_others_are_told_which_samples_of_their_copies_to_delete(source: Path, root: Path) -> None:
    """Who copied shards would train on the person for ever."""
    import hashlib

    store = Store(root)
    connection = connect(str(root))
    rows = connection.execute(
        "SELECT key, sha256 FROM samples WHERE canonical_id = ?", [identity_id(WHO)]
    ).fetchall()
    connection.close()
    remove(store, WHO)
    remove(store, "person 00")
    feed = json.loads(store.read("shards/faces/removals.json"))
    assert len(feed["removals"]) == 2
    said = {(sample["sample"], sample["picture"]) for sample in feed["removals"][0]["samples"]}
    hashed = {
        tuple(hashlib.sha256(f"idcluster removal\n{text}".encode()).hexdigest() for text in row)
        for row in rows
    }
    assert rows and hashed <= said


@pytest.mark.slow
def test_readers_have_the_old_bytes_or_are_told(source: Path, root: Path) -> None:
    """A training job or a notebook that is open would get half of something."""
    store = Store(root)
    connection = connect(str(root))
    [before] = connection.execute("SELECT count(*) FROM captions").fetchall()
    index = json.loads(store.read("shards/faces/index.json"))
    remove(store, WHO)
    old = [f"shards/faces/{shard['url']}" for shard in index["shardlist"]]
    assert not all(store.exists(path) for path in old)
    with pytest.raises(Exception, match="not there; ask again if it was deleted meanwhile"):
        connection.execute("SELECT caption FROM captions").fetchall()
    connection.close()
    connection = connect(str(root))
    [after] = connection.execute("SELECT count(*) FROM captions").fetchall()
    assert after < before
    connection.close()


@pytest.mark.slow
def test_who_streams_shards_meanwhile_gets_whole_samples_or_is_told(tmp_path: Path) -> None:
    """A training job that streams while somebody is removed would be fed halves of images, or
    silently less.
    """
    many = people(tmp_path / "many", count=12, pictures=4)
    run_toy(
        tmp_path,
        many,
        tmp_path / "root",
        ("stages.shard.params.target_mb=0.02", "stages.shard.params.validation=0"),
    )
    store = Store(tmp_path / "root")

    def tars() -> list[str]:
        return [
            store.uri(f"shards/faces/{one['url']}")
            for one in json.loads(store.read("shards/faces/index.json"))["shardlist"]
        ]

    def samples(urls: list[str]) -> Iterator[tuple[str, bytes]]:
        for sample in wds.WebDataset(urls, shardshuffle=False):
            yield sample["__key__"], sample["jpg"]

    before = dict(samples(tars()))
    epochs: list[tuple[dict[str, bytes], Exception | None]] = []
    under_way, removed = threading.Event(), threading.Event()

    def train() -> None:
        more = True
        while more:
            more = not removed.is_set()  # one epoch more after the end
            seen: dict[str, bytes] = {}
            try:
                for key, data in samples(tars()):
                    seen[key] = data
                    under_way.set()
            except FileNotFoundError as error:
                epochs.append((seen, error))
            else:
                epochs.append((seen, None))

    with ThreadPoolExecutor(1) as pool:
        training = pool.submit(train)
        assert under_way.wait(60)
        gone = remove(store, "person 05")
        removed.set()
        training.result(timeout=60)
    after = dict(samples(tars()))
    lost = before.keys() - after.keys()
    assert gone and lost and after == {key: data for key, data in before.items() if key not in lost}
    for seen, error in epochs:
        assert seen.items() <= before.items(), "what comes is whole"
        assert error is not None or seen in (before, after), (
            "an epoch without an error is all of one set"
        )
    assert epochs[-1] == (after, None)


def test_nobody_else_writes_meanwhile(source: Path, root: Path) -> None:
    """A run would publish the person again from what it has read."""
    store = Store(root)
    prepared = prepare(store, Wish(identities=(WHO,)))
    with Lease(store, "r9"), pytest.raises(LeaseHeld, match="run r9"):
        forget(store, prepared, "forget-test")
    collect(store, 1, "gc", current_only=True)
    with pytest.raises(RunError, match="was written meanwhile"):
        forget(store, prepared, "forget-test")
    remove(store, WHO)
    assert holding(store, ids(source)) == []


@pytest.mark.slow
def test_shards_behind_the_tables_lose_the_person_and_the_next_run_completes_them(
    source: Path, root: Path, tmp_path: Path
) -> None:
    """A run that broke off before its shards: all of them would be written anew, or the person stay
    in the old ones.
    """
    from pipeline.prepared_dag import Selection

    run_toy(
        tmp_path, source, root, ("stages.caption.params.prompt=new",), Selection(only=("caption",))
    )
    store = Store(root)
    done = remove(store, WHO)
    assert "faces" in done.unshown and holding(store, ids(source)) == []
    run_toy(tmp_path, source, root, ("stages.caption.params.prompt=new",))
    fresh = without(source, tmp_path / "fresh" / "people")
    run_toy(tmp_path, fresh, tmp_path / "fresh" / "root", ("stages.caption.params.prompt=new",))
    mine, new = (shown(place)["shards"] for place in (root, tmp_path / "fresh" / "root"))
    assert {
        path: digest for path, digest in mine.items() if path.startswith("shards/faces/")
    } == new
