"""Who is to be looked at by hand, and in which order: the doubtful first, and with each of them why
somebody should look, and which other name may be the same person.

Reads the tables alone, no image. Whoever is gone or may not come back is not in it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from idcluster.catalogue.connection import QueryError, explain
from idcluster.root.removals import Bars, load_bars
from idcluster.root.storage import Store
from stages.crawl.listing import Listed

CLOSE = 0.5
"""From this share of the first group's votes on, the second one is near enough for somebody to
look.
"""

# fmt: off
REASONS: Mapping[str, str] = {
    "ambiguous": "no two photographs agree",
    "near_tie": "two people are in nearly as many photographs",
    "second_cluster": "another person is in nearly as many photographs",
    "close_second": "another group has many votes",
    "maybe_same": "may be the same person as another name",
    "same_person": "would be one person with another name",
    "shared_pictures": "a photograph is under another name as well",
    "weak_majority": "the largest cluster is in under half of the photographs",
    "reference_missing": "no usable face in the reference image",
    "reference_alone": "nothing else agrees with the reference image",
}
# fmt: on
"""Why somebody should look, the most doubtful first."""

ABOUT_PAIRS = frozenset({"maybe_same", "same_person"})
"""Reasons that an answer about two names settles."""

_PERSONS = """
SELECT i.identity_id, i.name, i.aliases, i.external_ids, i.bucket, k.cleaned, k.kept, p.images,
    p.clusters, p.margin, p.silhouette, m.nearest, m.nearest_cosine, m.same_as, m.dropped_faces,
    coalesce(m.shared, 0) AS shared, k.ambiguous,
    list_concat(coalesce(p.flags, []), coalesce(m.flags, [])) AS flags,
    coalesce(o.decisions, 0) AS decisions
FROM identities i JOIN (
    SELECT identity_id, count(*) AS cleaned, count(*) FILTER (keep) AS kept,
        count(*) FILTER (reason = 'ambiguous') AS ambiguous
    FROM clusters GROUP BY identity_id
) k ON k.identity_id = i.identity_id
LEFT JOIN people p ON p.identity_id = i.identity_id
LEFT JOIN matches m ON m.identity_id = i.identity_id
LEFT JOIN (SELECT identity_id, count(*) AS decisions FROM overrides GROUP BY identity_id) o
    ON o.identity_id = i.identity_id
WHERE i.status = 'ok'
"""
_DOUBTFUL = """
ambiguous > 0 OR shared > 0 OR coalesce(margin, 0) >= $close
    OR list_has_any(flags, $reasons)
"""
_BY_HAND = """
SELECT identity_id, face_id, action, target FROM overrides WHERE list_contains($1, identity_id)
    OR list_contains($1, coalesce(target, ''))
"""


@dataclass(frozen=True)
class Person:
    """Somebody with faces that were cleaned. `doubt`: the larger, the earlier among those with the
    same first reason; `by_hand`: decisions about faces that were made earlier.
    """

    identity_id: str
    name: str
    aliases: tuple[str, ...]
    bucket: int
    cleaned: int
    kept: int
    images: int | None
    clusters: int | None
    margin: float | None
    silhouette: float | None
    flags: tuple[str, ...]
    nearest: str | None
    nearest_cosine: float | None
    same_as: str | None
    dropped_faces: frozenset[str]
    why: tuple[str, ...]
    decisions: int


@dataclass(frozen=True)
class Pair:
    """Two names that may be one person. A decision is a row of `one`; `by_hand`: merge or apart,
    where somebody has decided before; `merged`: they are one person as it is.
    """

    one: str
    other: str
    cosine: float | None
    by_hand: str | None
    merged: bool


@dataclass(frozen=True)
class Queue:
    """`asked`: in the order in which they are looked at; `mates`: who stands in a pair with one of
    them; `by_hand`: decisions about faces by person; `left_out`: people beyond the limit.
    """

    asked: tuple[Person, ...]
    mates: tuple[Person, ...]
    pairs: tuple[Pair, ...]
    by_hand: Mapping[str, Mapping[str, str]]
    left_out: int


def make_queue(
    store: Store,
    connection: duckdb.DuckDBPyConnection,
    *,
    everybody: bool = False,
    where: str | None = None,
    limit: int | None = None,
    people: Sequence[str] | None = None,
) -> Queue:
    """The queue of the doubtful, then with `everybody` of all others; with `people`, of these.

    `where`: a condition in SQL on columns of `Person`. Raises QueryError.
    """
    bars = load_bars(store)
    found = _persons(connection, everybody or people is not None, where, people, bars)
    found.sort(key=_place)
    asked = found if limit is None else found[:limit]
    ids = {person.identity_id for person in asked}
    rows = connection.execute(_BY_HAND, [sorted(ids)]).fetchall()
    by_hand: dict[str, dict[str, str]] = {}
    about_people: dict[str, tuple[str, str]] = {}
    for who, face, action, target in rows:
        if action in ("merge", "apart"):
            if target:
                about_people[who] = (action, target)
        elif who in ids:
            by_hand.setdefault(who, {})[face] = action
    named = _named(connection, asked, about_people)
    others = sorted(named - ids)
    mates = _persons(connection, True, None, others, bars) if others else []
    known = {person.identity_id: person for person in [*asked, *mates]}
    pairs = _pairs(known, ids, about_people)
    met = {who for pair in pairs for who in (pair.one, pair.other)}
    mates = [person for person in mates if person.identity_id in met]
    return Queue(tuple(asked), tuple(mates), tuple(pairs), by_hand, len(found) - len(asked))


def doubtful(connection: duckdb.DuckDBPyConnection) -> int:
    """How many people somebody should look at."""
    values = {"close": CLOSE, "reasons": list(REASONS)}
    sql = f"SELECT count(*) FROM ({_PERSONS}) WHERE {_DOUBTFUL}"  # noqa: S608 - constants
    return int(connection.execute(sql, values).fetchall()[0][0])


def _persons(
    connection: duckdb.DuckDBPyConnection,
    everybody: bool,
    where: str | None,
    people: Sequence[str] | None,
    bars: Bars,
) -> list[Person]:
    values: dict[str, Any] = {}
    sql = f"SELECT * FROM ({_PERSONS}) WHERE true"  # noqa: S608 - constants
    if not everybody:
        sql += f" AND ({_DOUBTFUL})"
        values |= {"close": CLOSE, "reasons": list(REASONS)}
    if people is not None:
        sql += " AND list_contains($people, identity_id)"
        values["people"] = list(people)
    if where is not None:
        sql = f"SELECT * FROM ({sql}) WHERE ({where}\n)"  # noqa: S608 - a user's own question
    try:
        answer = connection.execute(sql, values)
        names = [column[0] for column in answer.description or []]
        rows = [dict(zip(names, row, strict=True)) for row in answer.fetchall()]
    except duckdb.Error as error:
        if where is None:
            raise
        raise QueryError(f"--where: {explain(connection, error)}") from error
    return [_person(row) for row in rows if not _barred(row, bars)]


def _barred(row: dict[str, Any], bars: Bars) -> bool:
    listed = Listed(
        row["name"],
        [],
        aliases=tuple(row["aliases"] or ()),
        external_ids=dict(row["external_ids"] or {}),
    )
    return bars.text("identity", row["identity_id"]) or bars.person(listed)


def _person(row: dict[str, Any]) -> Person:
    raised = {
        *(row["flags"] or ()),
        *["ambiguous"] * bool(row["ambiguous"]),
        *["shared_pictures"] * bool(row["shared"]),
        *["close_second"] * ((row["margin"] or 0.0) >= CLOSE),
    }
    if raised & {"near_tie", "second_cluster"}:
        raised.discard("close_second")  # says the same once more
    values = {
        name: row[name] for name in Person.__dataclass_fields__ if name in row and name != "flags"
    }
    return Person(
        **{
            **values,
            "aliases": tuple(row["aliases"] or ()),
            "dropped_faces": frozenset(row["dropped_faces"] or ()),
        },
        flags=tuple(row["flags"] or ()),
        why=tuple(reason for reason in REASONS if reason in raised),
    )


def _place(person: Person) -> tuple[Any, ...]:
    """Those whom somebody has decided about come after the others with the same reason; two names
    that may be one person come one after the other.
    """
    order = list(REASONS)
    first = order.index(person.why[0]) if person.why else len(order)
    about_pair = bool(person.why) and person.why[0] in ABOUT_PAIRS
    doubt = (person.nearest_cosine if about_pair else person.margin) or 0.0
    together = min(person.identity_id, person.nearest or "~") if about_pair else ""
    who = (person.name.casefold(), person.identity_id)
    return (first, person.decisions > 0, -round(doubt, 6), together, *who)


def _named(
    connection: duckdb.DuckDBPyConnection,
    asked: Sequence[Person],
    about_people: Mapping[str, tuple[str, str]],
) -> set[str]:
    """Ids of all who may stand in a pair with somebody who is asked about."""
    ids = [person.identity_id for person in asked]
    found = {person.nearest for person in asked if set(person.flags) & ABOUT_PAIRS}
    found |= {person.same_as for person in asked}
    sql = """
        SELECT identity_id FROM matches WHERE (list_contains($ids, nearest)
            AND list_has_any(flags, $about)) OR list_contains($ids, same_as)
    """
    rows = connection.execute(sql, {"ids": ids, "about": sorted(ABOUT_PAIRS)}).fetchall()
    found |= {row[0] for row in rows}
    found |= {who for one, (_, other) in about_people.items() for who in (one, other)}
    return {who for who in found if who}


def _pairs(
    known: Mapping[str, Person], ids: set[str], about_people: Mapping[str, tuple[str, str]]
) -> list[Pair]:
    """Each two of whom one is asked about, once, the likest first.

    A person has room for one decision about another one. So a pair is written down with the one of
    the two who has room for it.
    """
    cosines: dict[tuple[str, str], float | None] = {}
    for person in known.values():
        met = [person.same_as, *[person.nearest] * bool(set(person.flags) & ABOUT_PAIRS)]
        for other in met:
            if other is not None and other in known and other != person.identity_id:
                both = _both(person.identity_id, other)
                near = person.nearest_cosine if other == person.nearest else None
                cosines[both] = near if near is not None else cosines.get(both)
    decided = {
        _both(one, other): (one, action)
        for one, (action, other) in about_people.items()
        if one in known and other in known
    }
    for both in decided:
        cosines.setdefault(both, None)
    taken = set(about_people)
    pairs = []
    by_likeness = sorted(cosines, key=lambda both: (-(cosines[both] or -2.0), both))
    for both in (both for both in by_likeness if ids & set(both)):
        one, action = decided.get(both, (_with_room(both, known, taken), None))
        taken.add(one)
        other = both[1] if one == both[0] else both[0]
        merged = known[one].same_as == known[other].same_as and known[one].same_as is not None
        pairs.append(Pair(one, other, cosines[both], action, merged))
    return pairs


def _both(one: str, other: str) -> tuple[str, str]:
    return (one, other) if one < other else (other, one)


def _with_room(both: Iterable[str], known: Mapping[str, Person], taken: set[str]) -> str:
    one, other = both
    nearest = [who for who in (one, other) if known[who].nearest in (one, other)]
    return next((who for who in [*nearest, one, other] if who not in taken), one)
