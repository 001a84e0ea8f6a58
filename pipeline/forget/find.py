"""What there is of somebody in a dataset: people, images of theirs and images of others in
which they are.

Everything is looked through that any snapshot names, in every version, file by file and never all
at once. People, their rows and their files are found by name or id in their bucket alone; for
images under other people's names all images are looked at: by address, by bytes, by perceptual
hash, by face and by name in the address or caption.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from idcluster.root.all_files import Files
from idcluster.root.dataset_root import UsageError
from idcluster.root.parquet import open_parquet
from idcluster.root.removals import folded, words
from idcluster.root.snapshot import Entry, Snapshot
from idcluster.root.spellings import read_as, spellings
from idcluster.root.storage import Store
from pipeline.forget.find_others import limit_of, recogniser_of, take_images, take_others
from pipeline.forget.wish import Found, Wish
from schemas import TABLES, identity_id
from schemas.columns import vectors
from schemas.wording import counted, near
from stages.embed.calibration import CALIBRATION


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
    take_images(files, found, found.buckets, set(found.people), set())
    theirs = (
        f"{counted(len(found.people), 'person')}, {counted(len(found.images), 'image')} of theirs"
    )
    say(f"{theirs}; looking through the images of the others")
    take_others(files, found, wish)
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
        raise UsageError(
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
        raise UsageError(
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


def _take_alike(files: Files, found: Found, known: Mapping[str, Mapping[str, Any]]) -> None:
    """People whose indicator is near one of the likenesses."""
    space = recogniser_of(files)

    def look(entry: Entry, rows: pa.Table) -> list[tuple[str, float]]:
        there = rows.filter(rows["indicator"].is_valid())
        if not there.num_rows:
            return []
        unit = vectors(there["indicator"]).astype(np.float64)
        best = np.full(len(unit), -1.0)
        for like in found.likenesses:
            limit = limit_of(found, like.recogniser)
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


def _check_all_found(files: Files, found: Found, wish: Wish) -> None:
    """Raise RunError for an address or image that is not there."""
    if wish.unknown:
        return
    whys = Counter(why.split(" (")[0] for why in found.others.values())
    if wish.urls and not whys["the same address"] and not found.people:
        said = f"no image here is from {wish.urls[0]}; addresses are told apart to the letter"
        raise UsageError(f"{said}. To bar it all the same: --bar-unknown")
    if wish.sha256s and not whys["the same image"] and not found.people:
        raise UsageError(
            f"no image here has the SHA-256 {wish.sha256s[0][:16]}...; to bar it all the same: "
            "--bar-unknown"
        )
    if wish.likes and found.nothing:
        said = "nobody here is like the photograph; a lower --threshold finds more"
        raise UsageError(f"{said}, --bar-unknown bars the image all the same")
