"""What there is of somebody in a dataset: people, images of theirs and images of others in
which they are.

Everything is looked through that any snapshot names, in every version, file by file and never all
at once. People, their rows and their files are found by name or id in their bucket alone; for
images under other people's names all images are looked at: by address, by bytes, by perceptual
hash, by face and by name in the address or caption.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from idcluster.root.all_files import Files
from idcluster.root.dataset_root import AskedWrongly, RunError
from idcluster.root.parquet import DamagedFile, open_parquet, read
from idcluster.root.removals import folded, telling, words
from idcluster.root.snapshot import Entry, Snapshot
from idcluster.root.spellings import read_as, spellings
from idcluster.root.storage import Store
from pipeline.forget.near import Near
from pipeline.forget.text_columns import OF_PICTURES
from pipeline.forget.texts import Needles
from schemas import TABLES, identity_id
from schemas.columns import vectors
from schemas.wording import counted, near, verb
from stages.embed.calibration import CALIBRATION


@dataclass(frozen=True)
class Likeness:
    """Somebody known by a face: a unit vector in the space of a recogniser, from a photograph
    (`sha256`, `phash`) if there is one.
    """

    recogniser: str
    vector: tuple[float, ...]
    sha256: str | None = None
    phash: int | None = None
    looks: np.ndarray | None = field(default=None, compare=False)
    """Of the photograph, as `stages.lookalikes.looks` gives them."""


@dataclass(frozen=True)
class Wish:
    """Who or what is to go. `identities`: names or ids; `threshold`: least cosine at which a face
    is the person.
    """

    identities: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()
    sha256s: tuple[str, ...] = ()
    likes: tuple[Likeness, ...] = ()
    threshold: float | None = None
    others: bool = True
    """Whether images under other people's names are looked for by face and name."""
    unknown: bool = False
    """Whether what is not in the dataset is barred all the same."""
    bar_face: bool = False

    def __bool__(self) -> bool:
        return bool(self.identities or self.urls or self.sha256s or self.likes)

    def counts(self) -> dict[str, int]:
        found = {
            "identity": len(self.identities),
            "url": len(self.urls),
            "sha256": len(self.sha256s),
            "like": len(self.likes),
        }
        return {kind: count for kind, count in found.items() if count}


@dataclass
class Found:
    """All of it. `others`: images under other people's names, with why; `shared_names`: names of
    people who stay.
    """

    people: dict[str, str] = field(default_factory=dict)
    """identity_id to name."""
    why: dict[str, str] = field(default_factory=dict)
    images: set[str] = field(default_factory=set)
    faces: set[str] = field(default_factory=set)
    others: dict[str, str] = field(default_factory=dict)
    buckets: set[int] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    shared_names: set[str] = field(default_factory=set)
    shared_spellings: set[str] = field(default_factory=set)
    """Spellings of the names that somebody who stays has too, in whatever order or letters."""
    external_ids: set[str] = field(default_factory=set)
    addresses: set[str] = field(default_factory=set)
    sha256s: set[str] = field(default_factory=set)
    phashes: set[int] = field(default_factory=set)
    looks: dict[str, np.ndarray] = field(default_factory=dict)
    """By SHA-256, of images whose hash says which they are: (n, 2) perceptual hashes of what
    copies may look like.
    """
    vectors: list[np.ndarray] = field(default_factory=list)
    """Of the faces in the people's own images."""
    likenesses: list[Likeness] = field(default_factory=list)
    hashes: dict[str, tuple[str, int | None]] = field(default_factory=dict)
    """SHA-256 and perceptual hash by image_id, of images that decode."""
    with_face: set[str] = field(default_factory=set)
    faceless: set[str] = field(default_factory=set)
    """SHA-256 of images in which no version of the detector has found a face."""
    limits: dict[str, float] = field(default_factory=dict)
    """Least cosine by recogniser."""
    notes: list[str] = field(default_factory=list)

    @property
    def nothing(self) -> bool:
        return not (self.people or self.images)

    def needles(self) -> Needles:
        """What the texts of the dataset may not hold any more."""
        ids = {*self.people, *self.images, *self.faces, *self.sha256s}
        return Needles.of(
            self.names - self.shared_names,
            self.addresses,
            ids,
            self.external_ids,
            self.shared_spellings,
        )


def find(store: Store, wish: Wish, say: Callable[[str], None] = lambda text: None) -> Found:
    """Everything that `wish` names. Raises RunError for who or what is not there (unless
    `wish.unknown`).
    """
    files = Files(store)
    found = Found(likenesses=list(wish.likes))
    known = _everybody(files)
    for said in wish.identities:
        _take_person(found, known, said, wish.unknown)
    found.limits = _limits(files.newest, wish)
    if wish.likes:
        _take_alike(files, found, known)
    _take_merged(files.newest, store, found, known)
    found.sha256s |= {*wish.sha256s, *(like.sha256 for like in wish.likes if like.sha256)}
    found.phashes |= {like.phash for like in wish.likes if like.phash is not None}
    found.addresses |= set(wish.urls)
    for person in found.people:
        row = known[person]
        found.names |= row["names"]
        found.external_ids |= row["ids"]
        found.buckets.add(row["bucket"])
    mine = {words(name) for name in found.names}
    found.shared_names = {
        name
        for row_id, row in known.items()
        if row_id not in found.people
        for name in row["names"]
        if words(name) in mine
    }
    shared = {words(other) for other in found.shared_names}
    found.shared_names |= {name for name in found.names if words(name) in shared}
    _take_spellings(found, known)
    _take_pictures(files, found, found.buckets, set(found.people), set())
    theirs = (
        f"{counted(len(found.people), 'person')}, {counted(len(found.images), 'image')} of theirs"
    )
    say(f"{theirs}; looking through the images of the others")
    _take_others(files, found, wish)
    _check_all_found(files, found, wish)
    return found


def _take_spellings(found: Found, known: Mapping[str, Mapping[str, Any]]) -> None:
    """Who stays and has one of the names in another order, in other letters, with other accents: it
    may be the same person.
    """
    mine = {key for name in found.names for key in spellings(name)}
    for person, row in known.items():
        theirs = (
            {}
            if person in found.people
            else {name: spellings(name) & mine for name in row["names"]}
        )
        found.shared_spellings |= {key for keys in theirs.values() for key in keys}
        said = sorted(
            name for name, keys in theirs.items() if keys and name not in found.shared_names
        )
        if said:
            found.notes.append(
                f"{said[0]!r} ({person}) is a name of theirs in another spelling and stays, and "
                "so it is not barred: if it is the same"
                f" person, name both: --identity {person}"
            )


def _everybody(files: Files) -> dict[str, dict[str, Any]]:
    """Everybody whom any snapshot knows: bucket, all names and external ids, by identity_id."""
    known: dict[str, dict[str, Any]] = {}
    columns = ("identity_id", "name", "aliases", "external_ids", "bucket")
    for rows in files.each("identities", columns, lambda entry, rows: rows.to_pylist()):
        for row in rows:
            one = known.setdefault(
                row["identity_id"],
                {"bucket": row["bucket"], "names": set(), "ids": set(), "name": row["name"]},
            )
            one["names"] |= {row["name"], *(row["aliases"] or ())}
            one["ids"] |= {value for _, value in row["external_ids"] or ()}
    return known


def _take_person(
    found: Found, known: Mapping[str, Mapping[str, Any]], said: str, unknown: bool
) -> None:
    if said in known:
        found.people[said], found.why[said] = known[said]["name"], "named"
        return
    wanted = folded(said)
    matches = sorted(
        person
        for person, row in known.items()
        if any(folded(name) == wanted for name in row["names"])
    )
    matches = matches or sorted(
        person
        for person, row in known.items()
        if said in row["ids"] or person == identity_id(said, said)
    )
    if not matches:
        asked = read_as(said)
        matches = sorted(
            person
            for person, row in known.items()
            if any(asked & spellings(name) for name in row["names"])
        )
    if len(matches) > 1:
        raise AskedWrongly(
            f"{said!r} are {len(matches)} people: {', '.join(matches)}; say which by "
            "identity_id, or all of them"
        )
    if matches:
        found.people[matches[0]], found.why[matches[0]] = known[matches[0]]["name"], "named"
    elif unknown:
        found.names.add(said)
        found.notes.append(f"nobody here is called {said!r}; the name is barred")
    else:
        nearest = near(wanted, [folded(row["name"]) for row in known.values()], 3)
        said_near = f"; the nearest names are {', '.join(map(repr, nearest))}" if nearest else ""
        raise AskedWrongly(
            f"nobody here is called {said!r}{said_near}. To bar a name that is not here (yet): "
            "--bar-unknown"
        )


def _limits(newest: Snapshot, wish: Wish) -> dict[str, float]:
    """The least cosine at which a face is the person, by recogniser: asked for, or calibrated, or
    that of cleaning.
    """
    versions = newest.notes.get("versions", {})
    limits = {
        name: wish.threshold
        if wish.threshold is not None
        else one.join_cosine or one.similarity_threshold
        for name, one in CALIBRATION.items()
    }
    cleaned = [
        versions[f"clusters/{e.version}"]
        for e in newest.shown("clusters")
        if f"clusters/{e.version}" in versions
    ][:1]
    for described in cleaned:
        own = described.get("params", {}).get("similarity_threshold")
        limits[""] = wish.threshold if wish.threshold is not None else own
    if wish.threshold is not None:
        limits[""] = wish.threshold
    return {name: limit for name, limit in limits.items() if limit is not None}


def _limit(found: Found, recogniser: str) -> float | None:
    return found.limits.get(recogniser, found.limits.get(""))


def _take_alike(files: Files, found: Found, known: Mapping[str, Mapping[str, Any]]) -> None:
    """People whose indicator is near one of the likenesses."""
    space = _recogniser(files)

    def look(entry: Entry, rows: pa.Table) -> list[tuple[str, float]]:
        there = rows.filter(rows["indicator"].is_valid())
        if not there.num_rows:
            return []
        unit = vectors(there["indicator"]).astype(np.float64)
        best = np.full(len(unit), -1.0)
        for like in found.likenesses:
            limit = _limit(found, like.recogniser)
            if like.recogniser == space and len(like.vector) == unit.shape[1] and limit is not None:
                cosines = unit @ np.array(like.vector)
                best = np.maximum(best, np.where(cosines >= limit, cosines, -1.0))
        return [
            (there["identity_id"][i].as_py(), float(best[i])) for i in np.flatnonzero(best > -1)
        ]

    for hits in files.each("people", ("identity_id", "indicator"), look):
        for person, cosine in hits:
            if person in known and person not in found.people:
                found.people[person], found.why[person] = (
                    known[person]["name"],
                    f"like the photograph ({cosine:.3f})",
                )


def _recogniser(files: Files) -> str | None:
    """Which space the vectors that the newest snapshot shows are in."""
    for entry in {
        entry.file: entry for entry in files.newest.shown("embeddings") if entry.file
    }.values():
        names = files.read("embeddings", entry, ("recogniser",))["recogniser"].drop_null()
        if len(names):
            return str(names[0].as_py())
    return None


def _take_merged(
    newest: Snapshot, store: Store, found: Found, known: Mapping[str, Mapping[str, Any]]
) -> None:
    """Whoever is one person with somebody who goes, by the stage match or by hand."""
    groups: dict[str, set[str]] = {}
    canonical: dict[str, str] = {}
    for entry in (entry for entry in newest.shown("matches") if entry.file):
        with open_parquet(store, TABLES["matches"], entry.file) as file:
            for row in (
                file.read(["identity_id", "same_as"]).slice(entry.offset, entry.rows).to_pylist()
            ):
                canonical[row["identity_id"]] = row["same_as"]
                groups.setdefault(row["same_as"], set()).add(row["identity_id"])
    for person in list(found.people):
        for other in sorted(
            {canonical.get(person, person), *groups.get(canonical.get(person, person), ())}
            - {*found.people}
        ):
            if other in known:
                found.people[other], found.why[other] = (
                    known[other]["name"],
                    f"one person with {found.people[person]}",
                )


def _take_pictures(
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


def _take_looks(files: Files, found: Found) -> None:
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


def _take_others(files: Files, found: Found, wish: Wish) -> None:
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
    _take_pictures(files, found, {bucket for _, bucket in others.values()}, set(), set(others))
    faceless = found.faceless - set(wish.sha256s)
    shown = {phash for sha256, phash in found.hashes.values() if sha256 not in faceless} | {
        like.phash for like in found.likenesses
    }
    digests, blank = (
        pa.array(sorted(some), pa.string()) for some in (found.sha256s - faceless, faceless)
    )
    _take_looks(files, found)
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
            like.recogniser for like in likenesses if _limit(found, like.recogniser) is None
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
    _take_pictures(files, found, {bucket for _, bucket in others.values()}, set(), set(others))
    _take_looks(files, found)
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
        if needles.telling or needles.spellings:
            # Longest word first: most texts do not even have that.
            mask = pc.match_substring_regex(rows[name], needles.rough, ignore_case=True)
            some = rows.filter(pc.fill_null(mask, False))
            pairs = zip(some["image_id"].to_pylist(), some[name].to_pylist(), strict=True)
            hits += [
                (image, f"named in the {name.replace('_', ' ')}")
                for image, text in pairs
                if text and needles.mentions(text)
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
    space = _recogniser(files)
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
        limit = _limit(found, space)
        for like in likenesses:
            if like.recogniser == space and len(like.vector) == unit.shape[1] and limit is not None:
                cosines = unit.astype(np.float64) @ np.array(like.vector)
                best[mine] = np.maximum(best[mine], np.where(cosines >= limit, cosines, -1.0))
    return [
        (there["image_id"][int(i)].as_py(), f"the face ({best[i]:.3f})")
        for i in np.flatnonzero(best > -1)
    ]


def _check_all_found(files: Files, found: Found, wish: Wish) -> None:
    """Raise RunError for an address or image that is not there."""
    if wish.unknown:
        return
    whys = Counter(why.split(" (")[0] for why in found.others.values())
    if wish.urls and not whys["the same address"] and not found.people:
        said = f"no image here is from {wish.urls[0]}; addresses are told apart to the letter"
        raise AskedWrongly(f"{said}. To bar it all the same: --bar-unknown")
    if wish.sha256s and not whys["the same image"] and not found.people:
        raise AskedWrongly(
            f"no image here has the SHA-256 {wish.sha256s[0][:16]}...; to bar it all the same: "
            "--bar-unknown"
        )
    if wish.likes and found.nothing:
        said = "nobody here is like the photograph; a lower --threshold finds more"
        raise AskedWrongly(f"{said}, --bar-unknown bars the image all the same")
