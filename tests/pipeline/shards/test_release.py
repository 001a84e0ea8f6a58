"""What may leave and what is withheld: every kept face is a sample or has a reason, and the set's
card says how many.
"""

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from idcluster.catalogue.connection import query
from idcluster.root.dataset_root import make_root
from idcluster.root.parquet import seal_table
from idcluster.root.snapshot import Snapshot, load, publish
from idcluster.root.storage import Store
from pipeline.forget.erase import forget
from pipeline.forget.preview import prepare
from pipeline.forget.verify import verify
from pipeline.forget.wish import Wish
from pipeline.gc import collect
from pipeline.history import rollback
from pipeline.shards.index import reindex
from pipeline.shards.scratch import ShardError
from pipeline.shards.split_lists import BadList, read
from pipeline.shards.writing import finish, plan_shards, write_shard
from schemas import TABLES, identity_id
from schemas.samples import METADATA
from stages.shard.params import ShardParams
from tests.pipeline.shards.test_writing import stream
from tests.pipeline.small_root import SmallPerson, small_root

PEOPLE = [
    SmallPerson("Ada Lovelace", 6, rejected=1, faceless=1),
    SmallPerson("Grace Hopper", 4),
    SmallPerson("Zoë Łuczak", 1),
]


def show(store: Store, snapshot: Snapshot, params: ShardParams) -> Snapshot:
    plan = plan_shards(store, snapshot, params)
    results = [
        json.loads(json.dumps(write_shard(store, json.loads(json.dumps(job))))) for job in plan.jobs
    ]
    entries = finish(store, snapshot, results, plan)
    return publish(
        store, snapshot.with_entries(entries).with_notes(**{f"index/{params.profile}": plan.note()})
    )


def changed(store: Store, table: str, change: Mapping[str, Any]) -> Snapshot:
    """The root where cells of a table have other values: column to a function of the row."""
    snapshot = load(store)
    entries = []
    for entry in snapshot.shown(table):
        rows = pq.read_table(io.BytesIO(store.read(entry.file))).to_pylist()
        for row in rows:
            row.update({column: value(row) for column, value in change.items()})
        schema = TABLES[table]
        sealed = seal_table(
            store, schema, entry.version, entry.bucket, entry.chunk, schema.build(rows)
        )
        entries.append(sealed.entry(schema, entry.version, entry.bucket, entry.chunk, "basis"))
    return publish(store, snapshot.with_entries(entries))


def added(store: Store, table: str, rows: list[dict[str, Any]]) -> Snapshot:
    snapshot, schema = load(store), TABLES[table]
    full = [{"status": "ok", "inputs": b"12345678", **row} for row in rows]
    sealed = seal_table(store, schema, "abcdef01", 0, 0, schema.build(full))
    return publish(store, snapshot.with_entries([sealed.entry(schema, "abcdef01", 0, 0, "basis")]))


def rows_of(store: Store, table: str) -> list[dict[str, Any]]:
    return [
        row
        for entry in load(store).shown(table)
        for row in pq.read_table(io.BytesIO(store.read(entry.file))).to_pylist()
    ]


def kept(store: Store) -> list[dict[str, Any]]:
    return json.loads(
        query(
            store,
            "SELECT identity_id, image_id, face_id FROM clusters WHERE keep ORDER BY face_id",
            "json",
        )
        or "[]"
    )


def withheld(store: Store) -> dict[str, int]:
    rows = json.loads(
        query(store, "SELECT reason, count(*) AS n FROM withheld GROUP BY ALL", "json") or "[]"
    )
    return {row["reason"]: row["n"] for row in rows}


def test_every_kept_face_is_a_sample_or_has_a_reason(tmp_path: Path) -> None:
    store = Store(tmp_path)
    small_root(store, [*PEOPLE, SmallPerson("Ada King", 2, same_as="Ada Lovelace")])
    stated = {"0": "CC BY-SA 4.0", "1": None, "2": "All rights reserved"}
    changed(store, "candidates", {"licence": lambda row: stated.get(row["address"][-5], "cc0 1.0")})
    params = ShardParams(target_mb=0.02, licences=("CC0*", "CC BY*"), min_pictures=2)
    show(store, load(store), params)
    faces = {row["face_id"] for row in kept(store)}
    samples = {json.loads(sample["json"])["face_id"] for sample in stream(store)}
    rows = json.loads(query(store, "SELECT face_id, reason, detail FROM withheld", "json") or "[]")
    assert samples | {row["face_id"] for row in rows} == faces and not samples & {
        row["face_id"] for row in rows
    }
    assert withheld(store) == {"licence": 5, "few_pictures": 1}
    assert {row["detail"] for row in rows} == {
        "none is stated",
        "stated as All rights reserved",
        None,
    }
    about = json.loads(store.read("shards/faces/dataset.json"))
    assert about["withheld"] == {"licence": 5, "few_pictures": 1}
    assert about["contents"]["licences"] == {"cc0 1.0": 4, "CC BY-SA 4.0": 3}
    assert about["contents"]["splits"]["train"]["people"] == 2
    card = store.read("shards/faces/README.md").decode()
    assert "| licence | the licence is not on the list" in card and "CC BY-SA 4.0" in card


@pytest.mark.slow
def test_small_pictures_small_faces_and_screened_ones_stay(tmp_path: Path) -> None:
    store = Store(tmp_path)
    small_root(store, PEOPLE)
    faces = kept(store)
    assert len(faces) == 11
    changed(
        store,
        "images",
        {"width": lambda row: 20 if row["image_id"] == faces[0]["image_id"] else 32},
    )
    changed(
        store,
        "faces",
        {"side": lambda row: 5.0 if row["face_id"] == faces[1]["face_id"] else row["side"]},
    )
    measured = [
        {**face, "nsfw": 0.9 if n == 2 else 0.1, "age": 12.0 if n == 3 else 40.0}
        for n, face in enumerate(faces)
        if n != 4
    ]
    snapshot = added(store, "screenings", measured)
    show(store, snapshot, ShardParams(min_side=24, min_face_side=10, max_nsfw=0.5, min_age=18))
    assert withheld(store) == {"small_picture": 1, "small_face": 1, "nsfw": 2, "minor": 1}, (
        "who was not measured is withheld too"
    )
    assert len(stream(store)) == 6


@pytest.mark.slow
def test_people_with_a_flag_stay_until_somebody_looked(tmp_path: Path) -> None:
    store = Store(tmp_path)
    small_root(store, PEOPLE)
    ada, zoe = identity_id("Ada Lovelace"), identity_id("Zoë Łuczak")
    changed(
        store,
        "people",
        {
            "flags": lambda row: {ada: ["second_cluster"], zoe: ["few_images"]}.get(
                row["identity_id"], []
            )
        },
    )
    show(
        store,
        load(store),
        ShardParams(target_mb=0.02, withhold_flags=("second_cluster", "maybe_same")),
    )
    assert withheld(store) == {
        "flagged": len([row for row in kept(store) if row["identity_id"] == ada])
    }
    assert json.loads(store.read("shards/faces/dataset.json"))["withheld"] == withheld(store)
    show(store, load(store), ShardParams(target_mb=0.02))
    assert withheld(store) == {}


def test_what_a_profile_needs_is_there_or_the_face_is_withheld(tmp_path: Path) -> None:
    store = Store(tmp_path)
    small_root(store, PEOPLE)
    show(store, load(store), ShardParams(need=("caption", "mask"), include=("mask",)))
    samples = [json.loads(sample["json"]) for sample in stream(store)]
    assert samples and all(sample["caption"] and sample["mask_window"] for sample in samples)
    assert (
        set(withheld(store)) == {"no_caption", "no_mask"}
        and len(samples) + sum(withheld(store).values()) == 11
    )


@pytest.mark.slow
def test_the_conditions_of_the_papers_travel_with_the_picture(tmp_path: Path) -> None:
    store = Store(tmp_path)
    small_root(store, PEOPLE)
    faces = kept(store)
    pictures = {
        name: f"{name} image".encode()
        for name in ("normal", "albedo", "lambertian", "landmark_picture")
    }
    added(
        store,
        "renders",
        [{**face, **pictures, "frame": [1.0, 0.0, 2.0, 3.0]} for face in faces[1:]],
    )
    snapshot = added(
        store,
        "affect",
        [{**face, "valence": 0.5, "arousal": -0.25, "emotions": [0.75, 0.25]} for face in faces],
    )
    show(
        store,
        snapshot,
        ShardParams(
            include=("mask", "normal", "albedo", "lambertian", "landmarks", "arcface"),
            need=("normal",),
        ),
    )
    samples = stream(store)
    assert len(samples) == 10 and withheld(store) == {"no_normal": 1}
    for sample in samples:
        about = json.loads(sample["json"])
        assert (
            sample["normal.png"] == b"normal image"
            and sample["landmarks.png"] == b"landmark_picture image"
        )
        assert np.load(io.BytesIO(sample["arcface.npy"]), allow_pickle=False).tolist() == [1.0, 0.0]
        assert about["recogniser"] == "test2" and about["frame"] == [1.0, 0.0, 2.0, 3.0]
        assert (about["valence"], about["arousal"], about["emotions"]) == (0.5, -0.25, [0.75, 0.25])
    rows = json.loads(
        query(
            store, "SELECT DISTINCT m.name FROM (SELECT unnest(members) AS m FROM samples)", "json"
        )
        or "[]"
    )
    assert {row["name"] for row in rows} >= {
        "normal.png",
        "albedo.png",
        "lambertian.png",
        "landmarks.png",
        "arcface.npy",
        "json",
    }
    card = store.read("shards/faces/README.md").decode()
    assert "identity vector, float32: **biometric data**" in card


def test_vectors_stay_unless_they_are_asked_for(tmp_path: Path) -> None:
    store = Store(tmp_path)
    show(store, small_root(store, PEOPLE), ShardParams())
    assert all(
        "arcface.npy" not in sample and json.loads(sample["json"])["recogniser"] == ""
        for sample in stream(store)
    )


def test_a_needed_picture_that_is_not_in_its_row_stops_the_shard(tmp_path: Path) -> None:
    store = Store(tmp_path)
    small_root(store, PEOPLE)
    snapshot = added(store, "renders", [{**face, "normal": None} for face in kept(store)])
    plan = plan_shards(store, snapshot, ShardParams(include=("normal",), need=("normal",)))
    with pytest.raises(ShardError, match="has no normal in renders, though its row is ok"):
        write_shard(store, plan.jobs[0])


def test_places_are_taken_out_when_asked(tmp_path: Path) -> None:
    store = Store(tmp_path)
    exif = Image.Exif()
    exif[271] = "A camera"
    exif.get_ifd(0x8825)[2] = (52.0, 31.0, 12.5)
    out = io.BytesIO()
    Image.new("RGB", (40, 30), "teal").save(out, "JPEG", exif=exif)
    data = out.getvalue()
    small_root(store, [SmallPerson("Ada Lovelace", 1)])
    values = {
        "bytes": data,
        "sha256": hashlib.sha256(data).hexdigest(),
        "size": len(data),
        "format": "jpeg",
    }
    changed(
        store,
        "images",
        {column: lambda row, value=value: value for column, value in values.items()},
    )
    show(store, load(store), ShardParams(profile="as_is"))
    show(store, load(store), ShardParams(profile="cleaned", strip_gps=True))
    as_is, cleaned = stream(store, "as_is")[0]["jpg"], stream(store, "cleaned")[0]["jpg"]
    assert as_is == data and Image.open(io.BytesIO(as_is)).getexif().get_ifd(0x8825)
    found = Image.open(io.BytesIO(cleaned)).getexif()
    assert not found.get_ifd(0x8825) and found[271] == "A camera" and len(cleaned) == len(data)
    assert "without the places" in store.read("shards/cleaned/README.md").decode()


@pytest.mark.slow
def test_a_benchmark_has_its_references_and_targets_and_bars_who_is_near(tmp_path: Path) -> None:
    store = Store(tmp_path)
    people = [SmallPerson(f"Person {n}", 7) for n in range(16)] + [
        SmallPerson(f"Few {n}", 3) for n in range(4)
    ]
    small_root(store, people)
    everybody = {identity_id(person.name) for person in people}
    first, second = sorted(everybody)[:2]
    # All are near the next one, in pairs.
    pairs = dict(zip(sorted(everybody)[::2], sorted(everybody)[1::2], strict=True))
    kin = {**{a: a for a in pairs}, **{b: a for a, b in pairs.items()}}
    snapshot = changed(store, "matches", {"kin": lambda row: kin[row["identity_id"]]})
    show(store, snapshot, ShardParams(target_mb=0.05, benchmark_people=2, validation=0.3))
    rows = [
        json.loads(sample["json"])
        for split in ("train", "validation", "benchmark")
        for sample in stream(store, split=split)
    ]
    of = {row["canonical_id"]: row["split"] for row in rows}
    benchmark = [person for person, split in of.items() if split == "benchmark"]
    assert len(benchmark) == 2
    for person in benchmark:
        drawn = sorted(
            (row["role"], row["role_number"]) for row in rows if row["canonical_id"] == person
        )
        assert drawn == [
            ("reference", 1),
            ("reference", 2),
            ("reference", 3),
            ("reference", 4),
            ("target", 1),
        ]
        relative = next(
            other for other in everybody if kin[other] == kin[person] and other != person
        )
        assert relative not in of
    assert all(of[a] == of[b] for a, b in pairs.items() if a in of and b in of)
    assert {row["role"] for row in rows if row["split"] != "benchmark"} == {""}
    assert (
        set(withheld(store)) == {"near_benchmark", "benchmark_surplus"}
        and withheld(store)["benchmark_surplus"] == 4
    )
    assert "4 references and 1 target" in store.read("shards/faces/README.md").decode()
    assert first != second


def test_a_split_that_the_source_states_goes_before_the_draw_and_behind_a_list(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path / "root")
    people = [SmallPerson(f"Person {n}", 6) for n in range(12)]
    small_root(store, people)
    who = sorted(identity_id(person.name) for person in people)
    said = dict(zip(who, [*["train"] * 4, *["valid"] * 4, "test", None, None, None], strict=True))
    change = {
        "split": lambda row: said[row["identity_id"]],
        "attributes": lambda row: '{"age": 36}',
    }
    snapshot = changed(store, "candidates", change)
    lists = tmp_path / "splits.csv"
    lists.write_text(f"identity,split\n{min(said)},none\n")
    params = ShardParams(target_mb=0.05, validation=1.0, split_source=True, split_list=str(lists))
    show(store, snapshot, params)
    rows = [
        _about(sample)
        for split in ("train", "validation", "benchmark")
        for sample in stream(store, split=split)
    ]
    of = {row["canonical_id"]: row["split"] for row in rows}
    meant = {"train": "train", "valid": "validation", "test": "benchmark", None: "validation"}
    assert of == {who: meant[split] for who, split in said.items() if who != min(said)}
    assert {row["attributes"] for row in rows} == {'{"age": 36}'}
    changed(store, "candidates", {"split": lambda row: "holdout"})
    with pytest.raises(BadList, match="the source states split 'holdout'"):
        plan_shards(store, load(store), ShardParams(split_source=True))


@pytest.mark.slow
def test_one_picture_of_two_people_puts_them_on_one_side(tmp_path: Path) -> None:
    store = Store(tmp_path)
    people = [SmallPerson(f"Person {n}", 2) for n in range(30)]
    small_root(store, people)
    who = sorted(identity_id(person.name) for person in people)
    data = Image.new("RGB", (20, 20), "red")
    out = io.BytesIO()
    data.save(out, "PNG")
    digest = hashlib.sha256(out.getvalue()).hexdigest()
    first = {row["identity_id"]: row["image_id"] for row in reversed(kept(store))}
    shared = {first[who[n]] for n in range(10)}
    change = {
        "bytes": lambda row: out.getvalue() if row["image_id"] in shared else row["bytes"],
        "sha256": lambda row: digest if row["image_id"] in shared else row["sha256"],
        "format": lambda row: "png" if row["image_id"] in shared else row["format"],
    }
    show(
        store,
        changed(store, "images", change),
        ShardParams(target_mb=0.05, validation=0.5, validation_people=0),
    )
    of = {
        row["canonical_id"]: row["split"]
        for split in ("train", "validation")
        for row in map(_about, stream(store, split=split))
    }
    assert len({of[person] for person in who[:10]}) == 1 and len(set(of.values())) == 2


def _about(sample: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(sample["json"])
    return found


def test_an_empty_split_is_told_on_the_card_and_to_programs_and_moves_nobody(
    tmp_path: Path,
) -> None:
    """Somebody asks for a fifth of eight people, and the draw by hashes puts nobody there."""
    people = [SmallPerson(f"P{n}", 3) for n in range(8)]
    store, plain = Store(tmp_path / "root"), Store(tmp_path / "plain")
    show(store, small_root(store, people), ShardParams(target_mb=0.05, validation=0.0001))
    show(plain, small_root(plain, people), ShardParams(target_mb=0.05))
    card, about = (
        store.read("shards/faces/README.md").decode(),
        json.loads(store.read("shards/faces/dataset.json")),
    )
    assert "**Note:** nobody is in validation: the draw put none of 8 there" in card
    said = (
        "nobody is in validation: the draw put none of 8 there (validation: 0.0001); a larger "
        "share or a split_list does"
    )
    assert about["remarks"] == [said]
    assert "remarks" not in json.loads(plain.read("shards/faces/dataset.json"))
    assert "Note" not in plain.read("shards/faces/README.md").decode()
    assert [e.digest for e in load(store).shown("shards")] == [
        e.digest for e in load(plain).shown("shards")
    ]


def test_going_back_brings_back_the_card_of_then(tmp_path: Path) -> None:
    store = make_root(str(tmp_path / "root"), "test")
    before = show(store, small_root(store, PEOPLE), ShardParams(contact="then@example.org"))
    card = store.read("shards/faces/README.md")
    show(store, before, ShardParams(contact="now@example.org"))
    assert store.read("shards/faces/README.md") != card
    rollback(store, before.number, "rollback-1", print)
    assert store.read("shards/faces/README.md") == card


def test_the_files_beside_shards_follow_from_the_snapshot_alone(tmp_path: Path) -> None:
    """What is counted is told by its rank, in whatever order a snapshot keeps it."""
    store = make_root(str(tmp_path / "root"), "test")
    small_root(store, PEOPLE)
    licences = {"jpeg": "Z", "png": "Z", "webp": "A"}
    formats = {"jpeg": "webp", "png": "webp", "webp": "jpeg"}
    changed(store, "images", {"format": lambda row: formats[row["format"]]})
    of = {row["image_id"]: row["format"] for row in rows_of(store, "images")}
    changed(store, "candidates", {"licence": lambda row: licences[of.get(row["image_id"], "jpeg")]})
    snapshot = show(store, load(store), ShardParams(benchmark_people=1, references=1))
    assert list(snapshot.notes["index/faces"]["contents"]["formats"]) == ["webp", "jpeg"]
    assert reindex(store, load(store), write=False) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("identity,splits\nAda,train\n", "has no column 'split'"),
        (
            "identity,split\nAda,trial\n",
            "no split 'trial'; there are train, validation, benchmark, none, training, valid",
        ),
        ("identity,split\nAda,train\nada ,benchmark\n", "row 2: ada  is in train and in benchmark"),
        ("identity,split\n,train\n", "row 1: identity is empty"),
    ],
)
def test_a_wrong_list_of_splits_is_told_by_row(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "splits.csv"
    path.write_text(text)
    with pytest.raises(BadList) as error:
        read(path)
    assert said in str(error.value) and str(path) in str(error.value)


def test_the_card_cannot_be_broken_by_what_sources_say(tmp_path: Path) -> None:
    store = Store(tmp_path)
    small_root(store, PEOPLE)
    snapshot = changed(
        store,
        "candidates",
        {"licence": lambda row: "a | b\n# no heading <script>alert(1)</script> [x](y)"},
    )
    show(store, snapshot, ShardParams(contact="privacy@example.org"))
    card = store.read("shards/faces/README.md").decode()
    assert (
        "\n# no heading" not in card
        and "<script>" not in card
        and "[x](y)" not in card.replace("\\[x](y)", "")
    )
    assert "Write to privacy@example.org." in card


def test_the_card_says_how_the_tables_were_made(tmp_path: Path) -> None:
    store = Store(tmp_path)
    snapshot = small_root(store, PEOPLE)
    version = snapshot.shown("embeddings")[0].version
    described = {
        "backend": "arcface",
        "params": {"batch": 16},
        "weights": {"edgeface_xs": "ab" * 32},
    }
    show(store, snapshot.with_notes(versions={f"embeddings/{version}": described}), ShardParams())
    assert (
        "| embeddings | arcface | batch 16 | edgeface_xs abababababab |"
        in store.read("shards/faces/README.md").decode()
    )
    assert json.loads(store.read("shards/faces/dataset.json"))["stages"] == {
        "embeddings": described
    }


@pytest.mark.slow
def test_a_picture_whose_attributes_name_somebody_goes_with_them(tmp_path: Path) -> None:
    """Captions that a table brings along would keep the name of a person who was removed."""
    store = make_root(str(tmp_path / "root"), "test")
    small_root(store, PEOPLE)
    said = '{"caption": "Grace Hopper and Ada Lovelace"}'
    changed(
        store,
        "candidates",
        {"attributes": lambda row: said if row["address"] == "local:Grace Hopper/2.jpg" else None},
    )
    ada = identity_id("Ada Lovelace")
    vector = {"vector": lambda row: [1.0, 0.0] if row["identity_id"] == ada else [0.0, 1.0]}
    changed(store, "embeddings", vector)
    changed(store, "people", {"indicator": vector["vector"]})
    show(store, load(store), ShardParams())
    # Older snapshots say that all have one face.
    collect(store, 1, "gc", current_only=True)
    assert verify(store, identities=["Ada Lovelace"]).leftovers
    done = forget(
        store, prepare(store, Wish(identities=("Ada Lovelace",), threshold=0.9)), "forget-test"
    )
    assert done.receipt.removed["of_others"] == 1
    assert not verify(store, identities=["Ada Lovelace"]).leftovers
    show(store, load(store), ShardParams())
    assert [_about(sample)["name"] for sample in stream(store)].count("Grace Hopper") == 3


def test_the_metadata_that_samples_have_is_what_the_schema_says(tmp_path: Path) -> None:
    store = Store(tmp_path)
    show(store, small_root(store, PEOPLE), ShardParams())
    assert set(json.loads(stream(store)[0]["json"])) == set(METADATA)
