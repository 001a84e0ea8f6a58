"""The page on which people are looked at and decided about by hand, all of them in one sitting.

One HTML file without anything from outside. What it shows of a person lies in it as data that no
browser runs; the script draws the person who is looked at, and nobody else. It saves decisions as
the CSV file that `idcluster correct --csv` takes.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from idcluster.catalogue.connection import connect
from idcluster.root.aside import aside
from idcluster.root.dataset_root import RunError
from idcluster.root.snapshot import Snapshot
from idcluster.root.storage import Store
from pipeline.report.html import digest, escape, inert, visible
from pipeline.report.review_faces import FACE_BYTES, PHOTO_BYTES, Shown, show
from pipeline.report.review_queue import ABOUT_PAIRS, REASONS, Pair, Person, Queue, make_queue
from schemas.wording import counted, verb

FEWEST_FACES = 6
"""Of a person on a page with little room; beyond that people are left out."""
MATE_FACES = 6
"""Of somebody who is only there beside another one."""
_FACE_ROOM = FACE_BYTES * 4 // 3 + 500
_PHOTO_ROOM = PHOTO_BYTES * 4 // 3 + 50
_REST_ROOM = 40
_PERSON_ROOM = 1_000


@dataclass(frozen=True)
class Room:
    """What there is room for on a page: people, faces of each, megabytes of it all and of the whole
    photographs in that.
    """

    people: int | None = 1_000
    faces: int = 24
    megabytes: float = 128.0
    photo_megabytes: float = 24.0


@dataclass(frozen=True)
class Review:
    """What was written. `faces` are drawn, `more_faces` of the same people are not; `left_out`
    people are doubtful or asked for and not on the page; `photos` are there whole.
    """

    path: Path
    bytes: int
    people: int
    doubtful: int
    left_out: int
    faces: int
    more_faces: int
    photos: int
    more_photos: int


class NothingToReview(RunError):
    """There is nobody to look at; the message says why. Nothing is wrong with that."""

    exit_code = 0


def write_review(
    store: Store,
    snapshot: Snapshot,
    output: Path,
    room: Room = Room(),
    *,
    everybody: bool = False,
    where: str | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Review:
    """Write the page to `output`. Raises NothingToReview, RunError, QueryError, OSError.

    `where`: a condition in SQL on the people; `progress` hears how many people are done.
    """
    connection = connect(store, snapshot)
    try:
        cleaned = connection.execute("SELECT count(*) FROM clusters").fetchall()[0][0]
        if not cleaned:
            raise RunError(
                f"{store.root} has no faces that were cleaned yet: `idcluster run` with the stage "
                "clean makes them, `idcluster status` says how far it is"
            )
        queue = make_queue(store, connection, everybody=everybody, where=where, limit=room.people)
    finally:
        connection.close()
    if not queue.asked:
        raise NothingToReview(
            ("nobody matches --where" if everybody else "nobody doubtful matches --where")
            if where is not None
            else "nothing to review: nobody is doubtful"
            + ("" if everybody else "; --all shows everybody")
        )
    return write_queue(store, snapshot, queue, output, room, progress=progress)


def write_queue(
    store: Store,
    snapshot: Snapshot,
    queue: Queue,
    output: Path,
    room: Room,
    *,
    title: str = "Review",
    progress: Callable[[int, int], None] = lambda done, of: None,
    pixels: Callable[[Shown], None] | None = None,
) -> Review:
    """Write a page about the people of a queue. `pixels` hears of the faces of everybody, as they
    were cut out.
    """
    queue, faces = _fitting(queue, room)
    photos = _photographs(queue.asked, faces, room)
    everybody = [*queue.asked, *queue.mates]
    counts: dict[str, tuple[int, int]] = {}
    drawn = more = whole = not_whole = 0
    output.parent.mkdir(parents=True, exist_ok=True)
    asked = {person.identity_id for person in queue.asked}
    with aside(output) as place, place.open("w", encoding="utf-8", newline="") as page:
        script, style, body = (_part(f"review.{kind}") for kind in ("js", "css", "html"))
        page.write(_head(title, script, style, body))
        for done, one in enumerate(
            show(store, snapshot, everybody, faces, photos, pixels is not None), 1
        ):
            who, left = one.person.identity_id, sum(map(len, one.rest.values()))
            counts[who] = (len(one.faces), left)
            if pixels is not None:
                pixels(one)
            if who in asked:
                drawn, more = drawn + len(one.faces), more + left
                images = {face["image"] for face in one.faces}
                whole, not_whole = (
                    whole + len(one.photos),
                    not_whole + len(images) - len(one.photos),
                )
            _write_person(page, one)
            progress(done, len(everybody))
        about = _about(store, snapshot, title, queue, counts)
        page.write(f'<script type="application/json" id="queue">{inert(about)}</script>\n')
        page.write(f"<script>{script}</script>\n</body></html>\n")
    return Review(
        output,
        output.stat().st_size,
        len(queue.asked),
        sum(bool(person.why) for person in queue.asked),
        queue.left_out,
        drawn,
        more,
        whole,
        not_whole,
    )


def _fitting(queue: Queue, room: Room) -> tuple[Queue, dict[str, int]]:
    """The people for whom there is room, and how many faces of each.

    Where all that was asked for does not fit, everybody has fewer faces; where that is not enough,
    the end of the queue is left out.
    """
    bytes_left = (room.megabytes - room.photo_megabytes) * 1e6
    cleaned = np.array([person.cleaned for person in queue.asked], np.int64)
    mates = len(queue.mates) * (_PERSON_ROOM + MATE_FACES * _FACE_ROOM)

    def needed(each: int) -> np.ndarray:
        shown = np.minimum(cleaned, each)
        return np.cumsum(shown * _FACE_ROOM + (cleaned - shown) * _REST_ROOM + _PERSON_ROOM)

    least = min(FEWEST_FACES, room.faces)
    each = next(
        (n for n in range(room.faces, least, -1) if needed(n)[-1] + mates <= bytes_left), least
    )
    people = max(1, int(np.searchsorted(needed(each) + mates, bytes_left, side="right")))
    if people < len(queue.asked):
        asked = queue.asked[:people]
        ids = {person.identity_id for person in asked}
        pairs = tuple(pair for pair in queue.pairs if ids & {pair.one, pair.other})
        met = {who for pair in pairs for who in (pair.one, pair.other)} - ids
        known = (*queue.asked, *queue.mates)
        queue = replace(
            queue,
            asked=asked,
            pairs=pairs,
            mates=tuple(person for person in known if person.identity_id in met),
            left_out=queue.left_out + len(queue.asked) - people,
        )
    faces = {person.identity_id: min(each, person.cleaned) for person in queue.asked}
    for person in queue.mates:
        faces[person.identity_id] = min(MATE_FACES, person.cleaned)
    return queue, faces


def _photographs(people: Sequence[Person], faces: Mapping[str, int], room: Room) -> dict[str, int]:
    """How many whole photographs of each there is room for: everybody has one before anybody has
    two, the first of the queue first.
    """
    left = int(room.photo_megabytes * 1e6 // _PHOTO_ROOM)
    given = dict.fromkeys((person.identity_id for person in people), 0)
    while left > 0:
        wanting = [who for who in given if given[who] < faces[who]][:left]
        if not wanting:
            break
        for who in wanting:
            given[who] += 1
        left -= len(wanting)
    return given


def _part(name: str) -> str:
    return (files("pipeline.report") / name).read_text(encoding="utf-8")


def _head(title: str, script: str, style: str, body: str) -> str:
    policy = (
        f"default-src 'none'; img-src data:; style-src '{digest(style)}'; "
        f"script-src '{digest(script)}'; base-uri 'none'; form-action 'none'"
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta '
        'name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">'
        f'<link rel="icon" href="data:,"><title>{escape(title)}</title>'
        f"<style>{style}</style></head>\n<body>\n{body}"
    )


def _write_person(page: TextIO, one: Shown) -> None:
    """What the page has of a person, as an element that no browser runs."""
    groups = [{"name": name, "rest": rest} for name, rest in one.rest.items()]
    said = {
        "faces": one.faces,
        "groups": groups,
        "photos": one.photos,
        "without": [
            f"{counted(images, 'image')} without a face here: {visible(reason.replace('_', ' '))}"
            for reason, images in one.without
        ],
    }
    page.write(
        f'<script type="application/json" id="p-{escape(one.person.identity_id)}">'
        f"{inert(said)}</script>\n"
    )


def _about(
    store: Store,
    snapshot: Snapshot,
    title: str,
    queue: Queue,
    counts: Mapping[str, tuple[int, int]],
) -> dict[str, Any]:
    """What the script has to know of everybody from the start."""
    asked = [person for person in queue.asked if person.identity_id in counts]
    known = {person.identity_id for person in (*asked, *queue.mates)}
    pairs = [pair for pair in queue.pairs if {pair.one, pair.other} <= known]
    of = _pairs_of(pairs)
    left = (
        f"{counted(queue.left_out, 'further person')} {verb(queue.left_out)} not on this page: "
        "`idcluster review` takes --limit, --max-mb and --where."
        if queue.left_out
        else ""
    )
    return {
        "title": visible(title),
        "key": _key(store),
        "snapshot": snapshot.number,
        "left_out": left,
        "reasons": dict(REASONS),
        "people": [
            {
                "id": person.identity_id,
                "name": visible(person.name),
                "aliases": [visible(alias) for alias in person.aliases],
                "why": list(person.why),
                "facts": _facts(person, *counts[person.identity_id]),
                "pairs": of.get(person.identity_id, []),
                "only_pairs": bool(person.why) and set(person.why) <= ABOUT_PAIRS,
                "earlier": person.decisions > 0,
                "hand": dict(queue.by_hand.get(person.identity_id, {})),
            }
            for person in asked
        ],
        "mates": {person.identity_id: visible(person.name) for person in queue.mates},
        "pairs": [
            {
                "one": pair.one,
                "other": pair.other,
                "cosine": None if pair.cosine is None else round(pair.cosine, 3),
                "hand": pair.by_hand or "",
                "merged": pair.merged,
            }
            for pair in pairs
        ],
    }


def _pairs_of(pairs: Sequence[Pair]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for number, pair in enumerate(pairs):
        for who in (pair.one, pair.other):
            found.setdefault(who, []).append(number)
    return found


def _facts(person: Person, drawn: int, left: int) -> list[str]:
    facts = [f"{person.kept} of {counted(person.cleaned, 'face')} kept"]
    if left:
        facts.append(f"{drawn} of {drawn + left} faces {verb(drawn)} shown")
    if person.margin is not None:
        facts.append(f"second group: {person.margin:.2f} of the first one's votes")
    if person.silhouette is not None:
        facts.append(f"silhouette {person.silhouette:.2f}")
    told = {flag for flag in person.flags if flag in REASONS}
    facts += [
        f"flag: {visible(flag.replace('_', ' '))}" for flag in person.flags if flag not in told
    ]
    return facts


def _key(store: Store) -> str:
    """What decisions about a dataset are kept under in a browser: the same for every snapshot."""
    try:
        name = json.loads(store.read("dataset.json")).get("name")
    except (OSError, ValueError, AttributeError):
        name = None
    return hashlib.sha256(json.dumps([store.root, name]).encode()).hexdigest()[:16]
