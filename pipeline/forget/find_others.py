"""Images under other people's names that are of, or name, whoever goes."""

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from idcluster.root.all_files import Files
from idcluster.root.dataset_root import RunError
from idcluster.root.parquet import DamagedFile, read
from idcluster.root.removals import telling
from idcluster.root.snapshot import Entry
from pipeline.forget.near import Near
from pipeline.forget.rewrite import naming
from pipeline.forget.text_columns import OF_PICTURES
from pipeline.forget.texts import Needles
from pipeline.forget.wish import Found, Likeness, Wish
from schemas import TABLES
from schemas.columns import vectors
from schemas.wording import counted, verb


def limit_of(found: Found, recogniser: str) -> float | None:
    return found.limits.get(recogniser, found.limits.get(""))


def recogniser_of(files: Files) -> str | None:
    """Which space the vectors that the newest snapshot shows are in."""
    for entry in {
        entry.file: entry for entry in files.newest.shown("embeddings") if entry.file
    }.values():
        names = files.read("embeddings", entry, ("recogniser",))["recogniser"].drop_null()
        if len(names):
            return str(names[0].as_py())
    return None


def take_images(
    files: Files, found: Found, buckets: Iterable[int], people: set[str], images: set[str]
) -> None:
    """Take what there is of some people and some images: addresses, hashes, faces, vectors. All
    of it lies in `buckets`.
    """
    inside = set(buckets)
    whose, which = pa.array(sorted(people), pa.string()), pa.array(sorted(images), pa.string())

    def mine(rows: pa.Table) -> pa.Table:
        return rows.filter(
            pc.or_(
                pc.is_in(rows["identity_id"], value_set=whose),
                pc.is_in(rows["image_id"], value_set=which),
            )
        )

    for rows in files.each(
        "candidates", ("identity_id", "image_id", "address"), lambda entry, rows: mine(rows), inside
    ):
        found.images |= set(rows["image_id"].to_pylist())
        found.addresses |= set(rows["address"].to_pylist())
    columns = ("identity_id", "image_id", "sha256", "phash", "final_address", "status")
    for rows in files.each("images", columns, lambda entry, rows: mine(rows), inside):
        found.images |= set(rows["image_id"].to_pylist())
        # The same broken file, or the same word of a server, is at many addresses and nobody's
        # image.
        rows = rows.filter(pc.equal(rows["status"], "ok"))
        found.hashes |= dict(
            zip(
                rows["image_id"].to_pylist(),
                zip(*(rows[name].to_pylist() for name in ("sha256", "phash")), strict=True),
                strict=True,
            )
        )
        found.sha256s |= set(rows["sha256"].drop_null().to_pylist())
        found.phashes |= {
            value for value in rows["phash"].drop_null().to_pylist() if telling(value)
        }
        found.addresses |= set(rows["final_address"].drop_null().to_pylist())
    empty: set[str] = set()
    for rows in files.each(
        "faces",
        ("identity_id", "image_id", "face_id", "status"),
        lambda entry, rows: mine(rows),
        inside,
    ):
        found.faces |= set(rows["face_id"].to_pylist())
        ok = set(rows["image_id"].filter(pc.equal(rows["status"], "ok")).to_pylist())
        found.with_face |= ok
        empty |= set(rows["image_id"].to_pylist())
    found.faceless |= {
        found.hashes[image][0] for image in empty - found.with_face if image in found.hashes
    }
    for rows in files.each(
        "embeddings", ("identity_id", "image_id", "vector"), lambda entry, rows: mine(rows), inside
    ):
        # Of images under other names, the other faces are of people who stay.
        there = rows["vector"].filter(pc.is_in(rows["identity_id"], value_set=whose)).drop_null()
        if len(there):
            found.vectors += list(vectors(there))


def take_looks(files: Files, found: Found) -> None:
    """Take of the images that were found what copies of them may look like. Their bytes are read
    for it.
    """
    from stages.lookalikes import looks

    for like in found.likenesses:
        if (
            like.sha256
            and like.looks is not None
            and like.phash is not None
            and telling(like.phash)
        ):
            found.looks[like.sha256] = like.looks
    wanted = {
        image: sha256
        for image, (sha256, phash) in found.hashes.items()
        if sha256 in found.sha256s
        and sha256 not in found.looks
        and phash is not None
        and telling(phash)
    }
    for entry in files.tables.get("images", {}).values():
        if not wanted or entry.bucket not in found.buckets:
            continue
        try:
            rows = read(
                files.store,
                TABLES["images"],
                entry.file,
                ["image_id", "bytes"],
                ("image_id", sorted(wanted)),
            )
        except (DamagedFile, FileNotFoundError):
            continue
        for image, data in zip(rows["image_id"].to_pylist(), rows["bytes"], strict=True):
            sha256 = wanted.pop(image, None)
            if sha256 is not None and sha256 not in found.looks and data.is_valid:
                found.looks[sha256] = looks(data.as_py())


def take_others(files: Files, found: Found, wish: Wish) -> None:
    """Images under other people's names in which somebody who goes is."""
    needles = found.needles()
    others: dict[str, tuple[str, int]] = {}

    def add(hits: Iterable[tuple[str, str]], bucket: int) -> None:
        for image, why in hits:
            if image not in found.images:
                others.setdefault(image, (why, bucket))

    addresses = pa.array(sorted(found.addresses), pa.string())
    by_name = needles.sure if wish.others else Needles()
    named = bool(by_name.telling or by_name.spellings)
    for table, columns in OF_PICTURES.items():
        wanted = [
            name for name in columns if named or (name.endswith("address") and len(addresses))
        ]

        def look_text(entry: Entry, rows: pa.Table) -> tuple[list[tuple[str, str]], int]:
            return _by_text(rows, addresses, by_name), entry.bucket

        for hits, bucket in files.each(table, ("image_id", *wanted), look_text) if wanted else ():
            add(hits, bucket)
    # What an address led to is looked for under all addresses.
    take_images(files, found, {bucket for _, bucket in others.values()}, set(), set(others))
    faceless = found.faceless - set(wish.sha256s)
    shown = {phash for sha256, phash in found.hashes.values() if sha256 not in faceless} | {
        like.phash for like in found.likenesses
    }
    digests, blank = (
        pa.array(sorted(some), pa.string()) for some in (found.sha256s - faceless, faceless)
    )
    take_looks(files, found)
    hashes = np.array(sorted(value for value in found.phashes if value in shown), np.uint64)
    copies = Near(
        np.concatenate(
            [
                hashes,
                *(
                    found.looks[sha256].reshape(-1)
                    for sha256 in sorted(found.looks.keys() - faceless)
                ),
            ]
        )
    )

    def look_picture(entry: Entry, rows: pa.Table) -> tuple[list[tuple[str, str]], int, list[str]]:
        theirs = rows.filter(pc.invert(pc.is_in(rows["image_id"], value_set=taken)))
        common = theirs["sha256"].filter(
            pc.fill_null(pc.is_in(theirs["sha256"], value_set=blank), False)
        )
        return _by_picture(theirs, digests, copies), entry.bucket, common.to_pylist()

    placeholders: set[str] = set()
    taken = pa.array(sorted({*found.images, *others}), pa.string())
    if len(digests) or len(hashes) or len(blank):
        for hits, bucket, common in files.each(
            "images", ("image_id", "sha256", "phash"), look_picture
        ):
            add(hits, bucket)
            placeholders.update(common)
    if placeholders:
        # What is under several names and shows nobody stands for an image that was not there.
        found.sha256s -= placeholders
        found.looks = {
            sha256: looks for sha256, looks in found.looks.items() if sha256 not in placeholders
        }
        found.phashes -= {
            phash
            for sha256, phash in found.hashes.values()
            if sha256 in placeholders and phash not in hashes
        }
        such = f"{counted(len(placeholders), 'image')} without a face {verb(len(placeholders))}"
        found.notes.append(f"{such} under other people's names too: those stay there")
    found.likenesses += _indicators(files, found) if found.people else []
    if wish.others and found.likenesses:
        likenesses = found.likenesses

        def look_face(entry: Entry, rows: pa.Table) -> tuple[list[tuple[str, str]], int]:
            return _by_face(rows, likenesses, found), entry.bucket

        unlimited = {
            like.recogniser for like in likenesses if limit_of(found, like.recogniser) is None
        }
        if unlimited:
            raise RunError(
                "no calibrated limit says when a face in the space of "
                f"{', '.join(sorted(unlimited))} is the person: give one by"
                " --threshold, or leave the images of others alone by --own-only"
            )
        for hits, bucket in files.each(
            "embeddings", ("image_id", "recogniser", "vector"), look_face
        ):
            add(hits, bucket)
    take_images(files, found, {bucket for _, bucket in others.values()}, set(), set(others))
    take_looks(files, found)
    found.others = {image: why for image, (why, _) in others.items()}
    found.images |= set(others)
    found.buckets |= {bucket for _, bucket in others.values()}


def _by_text(rows: pa.Table, addresses: pa.Array, needles: Needles) -> list[tuple[str, str]]:
    hits: list[tuple[str, str]] = []
    for name in rows.column_names[1:]:
        if name.endswith("address"):
            same = pc.fill_null(pc.is_in(rows[name], value_set=addresses), False)
            hits += [
                (image, "the same address") for image in rows["image_id"].filter(same).to_pylist()
            ]
        named = sorted(naming(rows[name], needles))
        hits += [
            (image, f"named in the {name.replace('_', ' ')}")
            for image in rows["image_id"].take(pa.array(named, pa.int64())).to_pylist()
        ]
    return hits


def _by_picture(rows: pa.Table, digests: pa.Array, copies: Near) -> list[tuple[str, str]]:
    same = pc.fill_null(pc.is_in(rows["sha256"], value_set=digests), False)
    hits = [(image, "the same image") for image in rows["image_id"].filter(same).to_pylist()]
    there = rows.filter(rows["phash"].is_valid())
    if there.num_rows:
        values = there["phash"].to_numpy().astype(np.uint64)
        near = copies.to(values)
        near &= np.array(
            [
                telling(int(value)) if hit else False
                for value, hit in zip(values, near, strict=True)
            ],
            bool,
        )
        hits += [
            (image, "a copy of the image")
            for image in there["image_id"].filter(pa.array(near)).to_pylist()
        ]
    return hits


def _indicators(files: Files, found: Found) -> list[Likeness]:
    """The indicators of the people, as the newest snapshot shows them."""
    space = recogniser_of(files)
    if space is None:
        return []
    likenesses: list[Likeness] = []
    shown = {entry.file for entry in files.newest.shown("people")}
    for rows in files.each(
        "people",
        ("identity_id", "indicator"),
        lambda entry, rows: rows if entry.file in shown else rows.slice(0, 0),
    ):
        mine = (row["indicator"] for row in rows.to_pylist() if row["identity_id"] in found.people)
        likenesses += [Likeness(space, tuple(indicator)) for indicator in mine if indicator]
    return likenesses


def _by_face(rows: pa.Table, likenesses: Sequence[Likeness], found: Found) -> list[tuple[str, str]]:
    there = rows.filter(rows["vector"].is_valid())
    if not there.num_rows:
        return []
    best = np.full(there.num_rows, -1.0)
    names = there["recogniser"].to_pylist()
    for space in set(names):
        mine = np.array([name == space for name in names])
        unit = vectors(there["vector"].filter(pa.array(mine)))
        limit = limit_of(found, space)
        for like in likenesses:
            if like.recogniser == space and len(like.vector) == unit.shape[1] and limit is not None:
                cosines = unit.astype(np.float64) @ np.array(like.vector)
                best[mine] = np.maximum(best[mine], np.where(cosines >= limit, cosines, -1.0))
    return [
        (there["image_id"][int(i)].as_py(), f"the face ({best[i]:.3f})")
        for i in np.flatnonzero(best > -1)
    ]
