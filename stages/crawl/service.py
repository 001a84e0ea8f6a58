"""People listed by asking a service over the network: politely, once, and so that it can be broken
off.

What was learnt of a person is put on a shelf at once. A listing that goes on, and a plan, take it
from there; whoever could not be asked about is listed with what the shelf has, and counts as not
completely listed.
"""

import asyncio
import hashlib
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import astuple, dataclass, field
from datetime import UTC, datetime
from urllib.parse import urlsplit

from schemas.wording import counted, verb
from stages.crawl.listing import Listed, Offer, Shelf, SourceError
from stages.crawl.names import Person
from stages.crawl.web.api import ApiClient, ApiError, Stopped
from stages.crawl.web.guard import Guard
from stages.crawl.web.params import FETCH, WebParams

BATCH = 50
"""People of one question, where a service takes several."""
_TOLD_EVERY = 30.0
"""Seconds between two lines on how far a listing is."""
_EXAMPLES = 5


@dataclass
class Asking:
    """What whoever lists gives a source that asks. `ask` False: nobody is asked, the shelf has to
    do.
    """

    params: WebParams = FETCH
    shelf: Shelf | None = None
    ask: bool = True
    say: Callable[[str], None] = lambda text: None
    stopped: Callable[[], bool] = lambda: False
    now: Callable[[], float] = time.time
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


@dataclass
class PersonFound:
    """What a service knows of a person. `left_out` counts images by the words for why, `note` is
    for the user.
    """

    name: str
    offers: list[Offer] = field(default_factory=list)
    aliases: tuple[str, ...] = ()
    external_ids: dict[str, str] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    note: str | None = None
    complete: bool = True

    def encode(self) -> str:
        data = {**vars(self), "offers": [astuple(offer) for offer in self.offers]}
        return json.dumps(data, ensure_ascii=False, separators=(",", ":"))

    @staticmethod
    def decode(text: str) -> "PersonFound":
        data = json.loads(text)
        offers = [Offer(*facts) for facts in data.pop("offers")]
        data |= {"aliases": tuple(data["aliases"]), "left_out": Counter(data["left_out"])}
        return PersonFound(**data, offers=offers)


Take = Callable[[Person, PersonFound], None]
Ask = Callable[[ApiClient, Sequence[Person], Take], Awaitable[None]]
"""Asks about some people and gives each to `Take`, finished. Raises ApiError where nobody else can
be asked about either.
"""


def check_contact(source: str, params: WebParams, *addresses: str) -> None:
    """Raise SourceError where somebody else's service would be asked without saying for whom."""
    guard = Guard(params.allow_hosts, params.resolve)
    for address in addresses:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SourceError(
                f"source {source!r}: {address!r} is no address of a service; it begins with "
                "https://"
            )
        if not params.contact and not guard.is_own(parts.hostname):
            raise SourceError(
                f"source {source!r}: {parts.hostname} would be asked without saying for whom: "
                "set fetch.contact in the DAG to an address or"
                " a page where its owner can complain (--set "
                "fetch.contact=mailto:you@example.org); it goes into the User-Agent"
            )


def list_people(
    source: str,
    people: Sequence[Person],
    settings: object,
    asking: Asking,
    relist_days: float,
    ask: Ask,
    client: Callable[[], ApiClient],
) -> tuple[list[Listed], list[str]]:
    """Everybody of `people`, as the shelf or the service knows them, and remarks.

    `settings` are all that decides what comes out: what was learnt under others counts for nothing.
    """
    keys = {person: _key(source, settings, person) for person in people}
    kept: dict[Person, tuple[float, PersonFound]] = {}
    for person, key in keys.items():
        there = asking.shelf.get(key) if asking.shelf else None
        if there is not None:
            kept[person] = there[0], PersonFound.decode(there[1])
    oldest = asking.now() - relist_days * 86_400
    fresh = {
        person
        for person, (at, found) in kept.items()
        if found.complete and (at > oldest or not asking.ask)
    }
    todo = [person for person in keys if person not in fresh]
    learnt: dict[Person, PersonFound] = {}
    remarks = []
    if todo and asking.ask:
        problem = _ask_all(source, todo, asking, ask, client, learnt, keys)
        missing = len(todo) - len(learnt)
        if problem:
            some = f"{missing} of {counted(len(keys), 'person')} {verb(missing)} not listed anew"
            remarks.append(f"{problem}: {some}; the next run goes on with them")
    elif todo:
        some = f"{len(todo)} of {counted(len(keys), 'person')} {verb(len(todo))} not listed yet"
        remarks.append(f"a plan asks nobody: {some}; a run asks {source} about them")
    if fresh and not asking.ask:
        times = [kept[person][0] for person in fresh]
        when = " to ".join(dict.fromkeys((_day(min(times)), _day(max(times)))))
        remarks.append(
            f"{source}: as listed {when}; a run asks about people anew after {relist_days:g} days"
        )
    listed = [
        _listed(person, learnt.get(person), kept.get(person), person in fresh) for person in keys
    ]
    shown = [learnt.get(person) or (kept[person][1] if person in kept else None) for person in keys]
    return listed, remarks + _remarks(source, [found for found in shown if found is not None])


def _ask_all(
    source: str,
    todo: Sequence[Person],
    asking: Asking,
    ask: Ask,
    client: Callable[[], ApiClient],
    learnt: dict[Person, PersonFound],
    keys: dict[Person, str],
) -> str | None:
    """Ask about everybody; what comes back goes into `learnt` and onto the shelf. Why not everybody
    was asked, if so.
    """
    told = asking.clock()
    pictures = 0

    def take(person: Person, found: PersonFound) -> None:
        nonlocal told, pictures
        learnt[person] = found
        pictures += len(found.offers)
        if asking.shelf:
            asking.shelf.put(keys[person], found.encode())
        if asking.clock() - told >= _TOLD_EVERY:
            told = asking.clock()
            asking.say(
                f"{source}: {len(learnt)} of {counted(len(todo), 'person')} listed, "
                f"{counted(pictures, 'image')}"
            )

    async def everybody() -> str | None:
        asked = client()
        try:
            for start in range(0, len(todo), BATCH):
                await ask(asked, todo[start : start + BATCH], take)
        except Stopped:
            return f"{source}: the listing was stopped"
        except ApiError as error:
            return f"{source}: {error}"
        finally:
            await asked.close()
        return None

    asking.say(f"{source}: asking about {counted(len(todo), 'person')}")
    try:
        return asyncio.run(everybody())
    finally:
        if asking.shelf:
            asking.shelf.flush()


def _listed(
    person: Person, learnt: PersonFound | None, kept: tuple[float, PersonFound] | None, fresh: bool
) -> Listed:
    found = learnt or (kept[1] if kept else None)
    ids = {**person.external_ids, **({"wikidata": person.wikidata} if person.wikidata else {})}
    if found is None:
        return Listed(person.name, [], person.wikidata, ids, person.aliases, complete=False)
    complete = found.complete and (learnt is not None or fresh)
    # Without a Q-id the name is what tells the person: it stays as the list has it.
    name = found.name if person.name == person.wikidata else person.name
    aliases = tuple(
        alias
        for alias in dict.fromkeys((*person.aliases, found.name, *found.aliases))
        if alias not in (name, person.wikidata)
    )
    return Listed(
        name, found.offers, person.wikidata, {**found.external_ids, **ids}, aliases, complete
    )


def _remarks(source: str, found: Sequence[PersonFound]) -> list[str]:
    left_out: Counter[str] = Counter()
    for one in found:
        left_out.update(one.left_out)
    remarks = [
        f"{source}: {counted(count, 'image')} {verb(count)} left out: {why}"
        for why, count in left_out.most_common()
    ]
    notes = [one.note for one in found if one.note]
    remarks += [f"{source}: {note}" for note in notes[:_EXAMPLES]]
    if len(notes) > _EXAMPLES:
        remarks.append(
            f"{source}: {counted(len(notes) - _EXAMPLES, 'more person')} with such remarks"
        )
    return remarks


def _key(source: str, settings: object, person: Person) -> str:
    said = json.dumps(
        [source, settings, person.name, person.wikidata, person.aliases],
        ensure_ascii=False,
        sort_keys=True,
        default=str,
    )
    return hashlib.blake2b(said.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
