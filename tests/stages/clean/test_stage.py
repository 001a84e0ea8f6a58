"""The clean stage on tables: whole people in, one row a face out."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.execution.reconcile import Wanted, wanted
from schemas import TABLES
from stages.backends import backend
from stages.clean.indicator import normalised
from stages.clean.kmeans_paper import seed_of
from stages.clean.linkage import LinkageClean
from stages.detect.dlib import DlibDetect
from stages.embed.calibration import CALIBRATION
from stages.embed.dlib import DlibEmbed
from stages.pictures import decode
from stages.stage import Picture
from stages.weights import WeightFiles

NO_SERVICES: Any = None  # this stage asks nothing of the outside


def table(people: dict[str, np.ndarray], recogniser: str = "made-up") -> pa.Table:
    """Rows as the stage gets them: every vector of every person in an image of its own."""
    rows: list[dict[str, Any]] = []
    for identity, vectors in people.items():
        for at, vector in enumerate(vectors):
            face = f"{identity}-{at:03d}"
            rows.append(
                {
                    "identity_id": identity,
                    "image_id": f"image-{face}",
                    "face_id": face,
                    "embeddings.vector": vector.tolist(),
                    "embeddings.recogniser": recogniser,
                    "embeddings.status": "ok",
                    "faces.side": 50.0 + at,
                    "faces.sharpness": None if at == 0 else 80.0,
                    "faces.status": "ok",
                    "images.phash": None,
                    "images.width": 250,
                    "images.height": 250,
                    "images.status": "ok",
                    "screenings.compared": None,
                    "screenings.status": None,
                    "overrides.action": None,
                    "overrides.status": None,
                    "candidates.reference": None,
                }
            )
    kinds = {
        "screenings.compared": pa.bool_(),
        "embeddings.vector": pa.list_(pa.float32()),
        "images.phash": pa.uint64(),
    }
    kinds |= dict.fromkeys(("faces.side", "faces.sharpness"), pa.float32())
    kinds |= dict.fromkeys(("images.width", "images.height"), pa.int32())
    return pa.table(
        {
            name: pa.array([row[name] for row in rows], kinds.get(name, pa.string()))
            for name in rows[0]
        }
    )


def people(count: int, faces: int = 12, seed: int = 0) -> dict[str, np.ndarray]:
    """Made-up people, each with one stranger among the faces."""
    rng = np.random.default_rng(seed)
    found = {}
    for at in range(count):
        centre = normalised(rng.standard_normal(128))
        own = normalised(centre + 0.06 * rng.standard_normal((faces, 128)))
        found[f"{at:016x}"] = np.concatenate(
            [own, normalised(rng.standard_normal((1, 128)))]
        ).astype(np.float32)
    return found


def clean(rows: pa.Table, **params: Any) -> pa.Table:
    return LinkageClean({"similarity_threshold": 0.3, **params}).run(rows, {}, NO_SERVICES)


def test_one_row_a_face_in_order_and_in_schema() -> None:
    rows = table(people(3))
    shuffled = rows.take(pa.array(np.random.default_rng(1).permutation(rows.num_rows)))
    found = clean(shuffled)
    assert found["face_id"].to_pylist() == shuffled["face_id"].to_pylist()
    full = found.append_column("inputs", pa.array([b"12345678"] * found.num_rows, pa.binary(8)))
    TABLES["clusters"].check(full.select(TABLES["clusters"].names), "test")
    by_face = {row["face_id"]: row for row in found.to_pylist()}
    assert [by_face[f"{1:016x}-{at:03d}"]["keep"] for at in range(13)] == [True] * 12 + [False]
    assert by_face[f"{1:016x}-012"]["status"] == "filtered" and by_face[f"{1:016x}-012"]["reason"]


def test_a_person_is_judged_alike_alone_and_among_others() -> None:
    everybody = people(5)
    together = clean(table(everybody))
    for identity, vectors in everybody.items():
        alone = clean(table({identity: vectors}))
        mine = together.filter(pa.compute.equal(together["identity_id"], identity))
        assert alone.combine_chunks().equals(mine.combine_chunks())


def test_the_seed_is_the_same_in_every_process() -> None:
    """Python's own hash of a text is not, and would give another clustering after every restart."""
    code = "from stages.clean.kmeans_paper import seed_of; print(seed_of('person'))"
    root = Path(__file__).parents[3]
    other = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert int(other.stdout) == seed_of("person")


def test_the_threshold_must_be_there_when_it_runs() -> None:
    with pytest.raises(ValueError, match="similarity_threshold"):
        LinkageClean().run(table(people(1)), {}, NO_SERVICES)


def test_two_recognisers_are_not_compared() -> None:
    mixed = pa.concat_tables([table(people(1)), table(people(1, seed=1), "another")])
    with pytest.raises(ValueError, match="made-up and another"):
        clean(mixed)


def test_no_rows() -> None:
    assert clean(table(people(1)).slice(0, 0)).num_rows == 0


def screened(rows: pa.Table, verdicts: dict[str, tuple[str, bool | None]]) -> pa.Table:
    """`rows` with a status and `compared` for the faces named; all others are ok."""
    found = [verdicts.get(face, ("ok", None)) for face in rows["face_id"].to_pylist()]
    kinds = {"status": pa.string(), "compared": pa.bool_()}
    for (name, kind), said in zip(kinds.items(), zip(*found, strict=True), strict=True):
        values = pa.array(said, kind)
        rows = rows.set_column(
            rows.column_names.index(f"screenings.{name}"), f"screenings.{name}", values
        )
    return rows


def test_what_screening_filtered_is_left_out_or_only_compared() -> None:
    """A grey image would be kept although it was filtered, or would be lost as evidence of who
    the person is.
    """
    rows, who = table(people(1)), f"{0:016x}"
    verdicts = {
        f"{who}-003": ("filtered", False),
        f"{who}-004": ("filtered", True),
        f"{who}-005": ("failed", None),
    }
    marked = screened(rows, verdicts)
    wanted = LinkageClean().wants(marked)
    assert [
        face
        for face, is_wanted in zip(rows["face_id"].to_pylist(), wanted.to_pylist(), strict=True)
        if not is_wanted
    ] == [f"{who}-003", f"{who}-005"]
    assert LinkageClean().wants(rows).to_pylist() == [True] * rows.num_rows, (
        "without screening everything is looked at"
    )
    found = {row["face_id"]: row for row in clean(marked.filter(wanted)).to_pylist()}
    assert (
        found[f"{who}-004"]["keep"],
        found[f"{who}-004"]["status"],
        found[f"{who}-004"]["reason"],
    ) == (False, "filtered", "screened")
    assert found[f"{who}-004"]["cluster"] == 0 and sum(row["keep"] for row in found.values()) == 9
    plain = {row["face_id"]: row for row in clean(rows.filter(wanted)).to_pylist()}
    assert {face: row["similarity"] for face, row in plain.items()} == {
        face: row["similarity"] for face, row in found.items()
    }


def test_who_has_too_few_faces_after_screening_keeps_none() -> None:
    rows = table(people(1, faces=3))
    marked = screened(rows, {f"{0:016x}-000": ("filtered", True)})
    found = clean(marked, min_faces=3).to_pylist()
    assert [row["reason"] for row in found][:3] == ["screened", "too_few_faces", "too_few_faces"]
    assert sum(row["keep"] for row in clean(rows, min_faces=3).to_pylist()) == 3


def test_copies_are_named_and_the_best_is_kept() -> None:
    rows = table(people(1)).to_pylist()
    for at in (2, 5, 7):
        rows[at] |= {
            "images.phash": 0xABC,
            "embeddings.vector": rows[2]["embeddings.vector"],
            "faces.side": 300.0 + at,
        }
    found = {
        row["face_id"][-3:]: row
        for row in clean(pa.Table.from_pylist(rows, table(people(1)).schema)).to_pylist()
    }
    best = found["007"]
    assert best["keep"] and best["duplicate_of"] is None
    for copy in (found["002"], found["005"]):
        assert (copy["status"], copy["reason"], copy["duplicate_of"]) == (
            "filtered",
            "duplicate",
            best["face_id"],
        )
    assert sum(row["keep"] for row in found.values()) == 10
    without = clean(pa.Table.from_pylist(rows, table(people(1)).schema), duplicates=False)
    assert without["duplicate_of"].null_count == 13 and sum(without["keep"].to_pylist()) == 12


def test_a_copy_that_was_screened_out_stands_for_nobody() -> None:
    """Else both would go: the one as screened, the other as its copy."""
    rows = table(people(1)).to_pylist()
    for at in (2, 5):
        rows[at] |= {
            "images.phash": 0xABC,
            "embeddings.vector": rows[2]["embeddings.vector"],
            "faces.side": 300.0 + at,
        }
    marked = screened(
        pa.Table.from_pylist(rows, table(people(1)).schema), {f"{0:016x}-005": ("filtered", True)}
    )
    found = {row["face_id"][-3:]: row for row in clean(marked).to_pylist()}
    assert found["002"]["keep"] and found["005"]["reason"] == "duplicate"


def decided(rows: pa.Table, actions: dict[str, str]) -> pa.Table:
    """`rows` with decisions by hand, by the end of the face's name."""
    values = pa.array([actions.get(face[-3:]) for face in rows["face_id"].to_pylist()], pa.string())
    return rows.set_column(rows.column_names.index("overrides.action"), "overrides.action", values)


def test_decisions_by_hand_win() -> None:
    rows = table(people(1))
    found = {
        row["face_id"][-3:]: row
        for row in clean(
            decided(rows, {"012": "keep", "003": "reject", "004": "merge"})
        ).to_pylist()
    }
    assert (
        found["012"]["keep"] and found["012"]["status"] == "ok" and found["012"]["reason"] is None
    ), "a stranger, but somebody said so"
    assert (found["003"]["keep"], found["003"]["reason"], found["003"]["cluster"]) == (
        False,
        "rejected",
        None,
    )
    assert clean(decided(rows, {"004": "merge"})).equals(clean(rows)), (
        "merging people is not for this stage"
    )


def test_of_copies_the_one_that_was_kept_by_hand_stays() -> None:
    rows = table(people(1)).to_pylist()
    for at in (2, 5, 7):
        rows[at] |= {
            "images.phash": 0xABC,
            "embeddings.vector": rows[2]["embeddings.vector"],
            "faces.side": 300.0 + at,
        }
    same = pa.Table.from_pylist(rows, table(people(1)).schema)

    def reasons(actions: dict[str, str]) -> list[str | None]:
        found = {
            row["face_id"][-3:]: row["reason"] for row in clean(decided(same, actions)).to_pylist()
        }
        return [found[face] for face in ("002", "005", "007")]

    assert reasons({}) == ["duplicate", "duplicate", None]
    assert reasons({"002": "keep"}) == [None, "duplicate", "duplicate"]
    assert reasons({"002": "keep", "005": "keep"}) == [None, None, "duplicate"]
    assert reasons({"007": "reject"}) == ["duplicate", None, "rejected"], (
        "a rejected one stands for nobody"
    )


def test_a_face_that_was_screened_out_is_kept_if_somebody_says_so() -> None:
    rows = screened(
        table(people(1)),
        {f"{0:016x}-003": ("filtered", False), f"{0:016x}-004": ("filtered", True)},
    )
    marked = decided(rows, {"003": "keep", "004": "keep"})
    stage = LinkageClean()
    assert stage.wants(rows).to_pylist()[3] is False and all(stage.wants(marked).to_pylist())
    assert sum(row["keep"] for row in clean(marked).to_pylist()) == 12


def test_decisions_reach_the_faces_that_they_are_about() -> None:
    """And nobody's inputs change by a table of decisions about others, or about the person as a
    whole.
    """
    count, who = 5, f"{0:016x}"
    rows = table({who: people(1)[who][:count]})
    ids = {name: rows[name] for name in ("identity_id", "image_id", "face_id")}
    ok = pa.array(["ok"] * count)
    tables = {
        "embeddings": pa.table(
            {
                **ids,
                "vector": rows["embeddings.vector"],
                "recogniser": rows["embeddings.recogniser"],
                "status": ok,
            }
        ),
        "faces": pa.table(
            {**ids, "side": rows["faces.side"], "sharpness": rows["faces.sharpness"], "status": ok}
        ),
        "images": pa.table(
            {name: rows[name] for name in ("identity_id", "image_id")}
            | {name: rows[f"images.{name}"] for name in ("phash", "width", "height")}
            | {"status": ok}
        ),
        "candidates": pa.table(
            {name: rows[name] for name in ("identity_id", "image_id")}
            | {"reference": rows["candidates.reference"], "status": ok}
        ),
    }

    def given(*decisions: tuple[str, str, str | None]) -> Wanted:
        now = datetime(2026, 1, 1, tzinfo=UTC)
        made = [
            {
                "identity_id": who,
                "face_id": face,
                "action": action,
                "target": target,
                "decided_at": now,
                "status": "ok",
                "inputs": bytes(8),
            }
            for face, action, target in decisions
        ]
        return wanted(LinkageClean(), {**tables, "overrides": TABLES["overrides"].build(made)})

    plain = wanted(LinkageClean(), tables)
    merged = given((who, "merge", "f" * 16))
    assert merged.inputs == plain.inputs and merged.rows["overrides.action"].null_count == count
    rejected = given((who, "merge", "f" * 16), (f"{who}-002", "reject", None))
    assert rejected.rows["overrides.action"].to_pylist() == [None, None, "reject", None, None]
    assert rejected.inputs != plain.inputs


def test_a_broken_vector_is_a_failure_that_is_told() -> None:
    rows = table(people(2)).to_pylist()
    rows[3]["embeddings.vector"] = [float("nan")] * 128
    found = clean(pa.Table.from_pylist(rows, table(people(2)).schema)).to_pylist()
    broken = found[3]
    assert (broken["status"], broken["reason"], broken["cluster"], broken["similarity"]) == (
        "failed",
        "bad_vector",
        None,
        None,
    )
    assert sum(row["keep"] for row in found) == 23


def test_the_paper_s_rule_is_a_backend() -> None:
    stage = backend("clean", "kmeans_paper")({"similarity_threshold": 0.3, "k": 1})
    found = stage.run(table(people(2)), {}, NO_SERVICES).to_pylist()
    assert [row["keep"] for row in found] == [*[True] * 12, False] * 2
    with pytest.raises(ValueError, match="merge_cosine"):
        backend("clean", "kmeans_paper")({"merge_cosine": 0.3})
    with pytest.raises(ValueError, match="similarity_threshold"):
        backend("clean", "kmeans_paper")().run(table(people(1)), {}, NO_SERVICES)


def test_names_and_columns_are_those_of_the_contract() -> None:
    assert backend("clean") is LinkageClean
    for of_table, columns in LinkageClean.reads.items():
        assert set(columns) <= set(TABLES[of_table].names)


@pytest.mark.slow
def test_real_faces(photos: Path) -> None:
    """A folder of one person into which somebody else's photographs were put: those go, and only
    those.
    """
    names = [f"ariel_sharon/{at:03d}.jpg" for at in range(1, 11)]
    strangers = ["hugo_chavez/001.jpg", "jiri_novak/001.jpg", "ann_veneman/001.jpg"]
    pictures = {
        name: Picture(name, decode((photos / name).read_bytes())) for name in names + strangers
    }
    detect, embed = DlibDetect(), DlibEmbed()
    for stage in (detect, embed):
        stage.setup(WeightFiles())
    faces = detect.run(
        pa.table({"identity_id": ["person"] * len(pictures), "image_id": list(pictures)}),
        pictures,
        NO_SERVICES,
    )
    ids = ["identity_id", "image_id", "face_id"]
    rows = faces.rename_columns(
        [name if name in ids else f"faces.{name}" for name in faces.column_names]
    )
    vectors = embed.run(rows, pictures, NO_SERVICES)
    for name in ("vector", "recogniser", "status"):
        rows = rows.append_column(f"embeddings.{name}", vectors[name])
    rows = rows.append_column("screenings.compared", pa.nulls(rows.num_rows, pa.bool_()))
    rows = rows.append_column("overrides.action", pa.nulls(rows.num_rows, pa.string()))
    rows = rows.append_column("candidates.reference", pa.nulls(rows.num_rows, pa.string()))
    for column, kind in (("phash", pa.uint64()), ("width", pa.int32()), ("height", pa.int32())):
        rows = rows.append_column(f"images.{column}", pa.nulls(rows.num_rows, kind))
    limits = CALIBRATION["dlib_resnet_v1"]
    params = {
        "similarity_threshold": limits.similarity_threshold,
        "merge_cosine": limits.merge_cosine,
    }
    found = LinkageClean(params).run(rows, {}, NO_SERVICES).to_pylist()
    assert {row["image_id"] for row in found if row["keep"]} == set(names)
