"""Openverse against a server that answers as it does: within its limits, under the wanted licences,
and once.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from stages.crawl.listing import Listed, Offer, SourceError
from stages.crawl.openverse import OpenverseSettings, OpenverseSource
from stages.crawl.service import Asking
from tests.stages.crawl.wiki import Openverse, openverse, result


@pytest.fixture
def service() -> Iterator[Openverse]:
    with openverse() as found:
        yield found


def source(
    service: Openverse,
    folder: Path,
    names: str,
    asking: Asking | None = None,
    token: str | None = None,
    **settings: Any,
) -> OpenverseSource:
    path = folder / "names.csv"
    path.write_text(names, encoding="utf-8")
    api = service.site.address("/v1/images/", "openverse.test")
    chosen = OpenverseSettings(**{"api": api, **settings})
    return OpenverseSource(
        path, "openverse", chosen, token=token, asking=asking or service.asking()
    )


def listed(found: OpenverseSource) -> tuple[dict[str, Listed], list[str]]:
    people, remarks = found.people()
    return {person.name: person for person in people}, remarks


def test_all_pages_of_everybody_are_listed(service: Openverse, tmp_path: Path) -> None:
    """Of a person with two hundred images twenty would be found."""
    service.results = {
        '"Ada Lovelace"': [result(n) for n in range(55)],
        '"Zoë"': [result(99, license="cc0", license_version="1.0")],
    }
    people, remarks = listed(
        source(service, tmp_path, "name,wikidata\nAda Lovelace,Q7259\nZoë,\nNobody,\n")
    )
    assert [len(person.offers) for person in people.values()] == [55, 1, 0]
    assert people["Ada Lovelace"].offers[3] == Offer(
        "https://live.staticflickr.com/1/3_b.jpg",
        None,
        "https://www.flickr.com/photos/x/3",
        "CC BY-SA 2.0",
        "somebody",
    )
    assert people["Zoë"].offers[0].licence == "CC0 1.0"
    assert [person.given for person in people.values()] == ["Q7259", None, None]
    assert all(person.complete for person in people.values()) and not remarks
    assert [query["page"] for query in service.asked] == ["1", "2", "3", "1", "1"]
    assert {query["license"] for query in service.asked} == {"by,by-sa,cc0,pdm"}
    assert service.agents == {"idcluster/0.1 (+mailto:me@example.org)"}


def test_a_limit_is_kept_without_asking_for_more(service: Openverse, tmp_path: Path) -> None:
    """A day's questions would be spent on images that nobody wants."""
    service.results = {'"Ada"': [result(n) for n in range(200)]}
    people, _ = listed(source(service, tmp_path, "name\nAda\n", per_person=30))
    assert len(people["Ada"].offers) == 30 and len(service.asked) == 2


def test_pages_that_are_promised_and_refused_are_an_end(service: Openverse, tmp_path: Path) -> None:
    """Whoever has more results than the service gives out would have none."""
    service.results = {'"Ada"': [result(n) for n in range(60)]}
    answer = service.answer

    async def shallow(request: web.Request) -> web.Response:
        if int(request.query["page"]) > 2:
            return web.json_response(
                {"detail": {"page": ["Ensure this value is less than or equal to 2."]}}, status=400
            )
        return await answer(request)

    service.site.pages["/v1/images/"] = shallow
    people, remarks = listed(source(service, tmp_path, "name\nAda\n"))
    assert len(people["Ada"].offers) == 40 and people["Ada"].complete and not remarks


def test_aliases_collections_and_words_are_asked_for_as_told(
    service: Openverse, tmp_path: Path
) -> None:
    """A person would be searched for by a name that she no longer has, or in all collections."""
    service.results = {"Ada": [result(1)], "Countess": [result(1), result(2)]}
    settings: dict[str, Any] = {
        "exact": False,
        "aliases": True,
        "sources": ("flickr", "wikimedia"),
        "licences": ("by-sa",),
    }
    people, _ = listed(
        source(service, tmp_path, 'name,aliases\nAda,Countess|""x\\y""\n', **settings)
    )
    assert [offer.address[-7:] for offer in people["Ada"].offers] == ["1_b.jpg", "2_b.jpg"]
    assert [query["q"] for query in service.asked] == ["Ada", "Countess", "x y"]
    assert {(query["source"], query["license"]) for query in service.asked} == {
        ("flickr,wikimedia", "by-sa")
    }


def test_what_is_left_out_is_counted(service: Openverse, tmp_path: Path) -> None:
    """An image whose licence is not known would get in, or vanish without a word."""
    bad = [
        result(1, license=None),
        result(2, width=90),
        result(3, url="ftp://x.org/1.jpg"),
        result(4, url=None),
    ]
    fine = [
        result(
            5, width=None, height=None, creator=None, license_version=None, foreign_landing_url=""
        )
    ]
    service.results = {'"Ada"': [*bad, *fine]}
    people, remarks = listed(source(service, tmp_path, "name\nAda\n", min_side=100))
    assert list(people["Ada"].offers) == [
        Offer("https://live.staticflickr.com/1/5_b.jpg", licence="CC BY-SA")
    ]
    assert sorted(remarks) == [
        "openverse: 1 image is left out: less than 100 pixels on a side",
        "openverse: 1 image is left out: not under one of source.licences",
        "openverse: 2 images are left out: without an address of the web",
    ]


def test_a_token_asks_for_larger_pages_and_stays_secret(service: Openverse, tmp_path: Path) -> None:
    """A registered user would be as slow as anybody; a token would be read in a log."""
    service.results = {'"Ada"': [result(n) for n in range(55)]}
    found = source(service, tmp_path, "name\nAda\n", token="s3cr3t")
    people, remarks = listed(found)
    assert len(people["Ada"].offers) == 55 and len(service.asked) == 2
    assert service.tokens == {"Bearer s3cr3t"}
    shelf: Any = found.asking.shelf
    assert "s3cr3t" not in f"{people}{remarks}{shelf.texts}{service.asked}"
    with pytest.raises(
        SourceError,
        match=r"environment variable OPENVERSE_TOKEN, which source\.token_env names, is not set",
    ):
        OpenverseSource(found.path, token_env="OPENVERSE_TOKEN", asking=service.asking()).check()


def test_a_used_up_minute_is_waited_for_and_a_used_up_day_ends_it(
    service: Openverse, tmp_path: Path
) -> None:
    """The crawler would run into refusals, or sit for a day; who was listed before would be
    lost.
    """
    service.results = {f'"P{n}"': [result(n)] for n in range(4)}
    service.headers = {
        "X-RateLimit-Limit-anon_burst": "20/min",
        "X-RateLimit-Available-anon_burst": "0",
    }
    found = source(service, tmp_path, "name\nP0\nP1\nP2\nP3\n")
    people, remarks = listed(found)
    assert all(person.complete for person in people.values()) and not remarks
    assert 180 <= service.clock.slept < 190
    service.headers = {
        "X-RateLimit-Limit-anon_sustained": "200/day",
        "X-RateLimit-Available-anon_sustained": "0",
    }
    service.clock.at += 200_000
    people, remarks = listed(found)
    assert [person.complete for person in people.values()] == [True, False, False, False]
    assert [len(person.offers) for person in people.values()] == [1, 1, 1, 1]
    assert remarks == [
        "openverse: the limit of 200/day is used up: 3 of 4 people are not listed anew; the next "
        "run goes on with them"
    ]


def test_without_a_token_it_is_asked_twenty_times_a_minute(
    service: Openverse, tmp_path: Path
) -> None:
    """The address of an institute would be refused after a minute."""
    service.results = {'"Ada"': [result(n) for n in range(200)]}
    polite = {"politeness": {"rate": 2.0, "concurrency": 2}}
    listed(source(service, tmp_path, "name\nAda\n", service.asking(params=polite)))
    assert len(service.asked) == 10 and 26 < service.clock.slept < 30


def test_nobody_is_asked_without_saying_for_whom(tmp_path: Path) -> None:
    """Openverse could not complain to anybody but a whole institute."""
    path = tmp_path / "names.txt"
    path.write_text("Ada Lovelace\n")
    with pytest.raises(
        SourceError,
        match=r"api\.openverse\.org would be asked without saying for whom: set fetch\.contact",
    ):
        OpenverseSource(path).check()
