"""Wikimedia Commons against a server that answers as it does: everybody's files with licence and
author, politely, and once.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from stages.crawl.commons import CommonsSettings, CommonsSource
from stages.crawl.commons_answers import plain_text
from stages.crawl.listing import Listed, Offer, SourceError
from stages.crawl.service import Asking
from tests.stages.crawl.wiki import Wiki, item, said, snak, wiki


@pytest.fixture
def commons() -> Iterator[Wiki]:
    with wiki() as found:
        yield found


def source(
    commons: Wiki, folder: Path, names: str, asking: Asking | None = None, **settings: Any
) -> CommonsSource:
    path = folder / "names.csv"
    path.write_text(names, encoding="utf-8")
    apis = {
        name: commons.site.address("/w/api.php", f"{name}.test") for name in ("api", "wikidata")
    }
    return CommonsSource(
        path, "commons", CommonsSettings(**{**apis, **settings}), asking=asking or commons.asking()
    )


def listed(found: CommonsSource) -> tuple[dict[str, Listed], list[str]]:
    people, remarks = found.people()
    return {person.name: person for person in people}, remarks


def files(person: Listed) -> list[str]:
    return [str(offer.page).partition("File:")[2] for offer in person.offers]


def busy(seconds: str = "5") -> web.Response:
    error = {
        "code": "maxlag",
        "info": "Waiting for 10.64.16.7: 9.2 seconds lagged.",
        "host": "10.64.16.7",
        "lag": 9.2,
        "type": "db",
    }
    return said({"error": error}, headers={"Retry-After": seconds, "X-Database-Lag": "9"})


def test_a_persons_files_come_from_item_category_and_statements(
    commons: Wiki, tmp_path: Path
) -> None:
    """Most images of a person would be missed, or be listed once for every way to them."""
    commons.items["Q7259"] = item(
        "Q7259",
        "Ada Lovelace",
        "Ada Byron",
        P18=["Ada portrait.jpg"],
        P373=["Ada Lovelace"],
        P345=["nm1"],
    )
    commons.add("Ada portrait.jpg", "a.jpg", "b.png", "c.jpg", "d.jpg", "e.jpg")
    commons.members = {
        "Category:Ada Lovelace": ["File:a.jpg", "File:Ada portrait.jpg", "File:b.png"],
        "Category:Ada in art": ["File:c.jpg"],
        "Category:Too deep": commons.add("deep.jpg"),
    }
    commons.below = {
        "Category:Ada Lovelace": ["Ada in art"],
        "Category:Ada in art": ["Ada Lovelace", "Too deep"],
    }
    commons.depicting["Q7259"] = ["File:e.jpg", "File:a.jpg", "File:d.jpg"]
    people, remarks = listed(
        source(
            commons, tmp_path, "name,wikidata,aliases\nAda King,q7259,Countess of Lovelace|Ada\n"
        )
    )
    person = people["Ada King"]
    assert files(person) == ["Ada_portrait.jpg", "a.jpg", "b.png", "c.jpg", "e.jpg", "d.jpg"]
    assert person.offers[0] == Offer(
        "https://upload.wikimedia.org/wikipedia/commons/0/01/Ada_portrait.jpg",
        f"{1:040x}",
        "https://commons.wikimedia.org/wiki/File:Ada_portrait.jpg",
        "CC BY-SA 4.0",
        "Zoë & others",
    )
    assert (person.given, person.external_ids) == ("Q7259", {"wikidata": "Q7259", "imdb": "nm1"})
    assert person.aliases == ("Countess of Lovelace", "Ada", "Ada Lovelace", "Ada Byron")
    assert person.complete and remarks == []
    assert commons.agents == {"idcluster/0.1 (+mailto:me@example.org)"}


def test_long_lists_go_on_to_their_end_and_stop_at_the_limit(commons: Wiki, tmp_path: Path) -> None:
    """Of a person with a thousand files only the first fifty would be found, or all although ten
    were wanted.
    """
    commons.most = 50
    commons.items["Q1"] = item("Q1", "Ada", P373=["Ada"])
    commons.members["Category:Ada"] = commons.add(*(f"{n:04d}.jpg" for n in range(730)))
    people, _ = listed(
        source(commons, tmp_path, "wikidata\nQ1\n", by=("category",), per_person=10_000)
    )
    assert files(people["Ada"]) == [f"{n:04d}.jpg" for n in range(730)]
    before = len(commons.asked)
    people, _ = listed(source(commons, tmp_path, "wikidata\nQ1\n", per_person=120))
    assert len(people["Ada"].offers) == 120
    assert len(commons.asked) - before == 1 + 3  # the item, and as many questions as that takes


def test_fifty_people_are_one_question(commons: Wiki, tmp_path: Path) -> None:
    """A list of 23,000 people would be 23,000 questions where 460 do, and be refused."""
    names = "wikidata\n" + "".join(f"Q{n}\n" for n in range(1, 61))
    for n in range(1, 61):
        commons.items[f"Q{n}"] = item(f"Q{n}", f"P{n}", P18=[f"{n}.jpg"])
        commons.add(f"{n}.jpg")
    people, _ = listed(source(commons, tmp_path, names, by=("image",)))
    assert [files(person) for person in people.values()] == [[f"{n}.jpg"] for n in range(1, 61)]
    assert [query["action"] for query in commons.asked] == ["wbgetentities", "query"] * 2


def test_names_are_looked_up_and_doubt_is_told(commons: Wiki, tmp_path: Path) -> None:
    """Images of a namesake would be mixed in."""
    commons.items = {
        "Q1": item("Q1", "Ada Lovelace", P18=["a.jpg"]),
        "Q2": item("Q2", "John Smith"),
        "Q3": item("Q3", "J. Smith", "john  SMITH"),
        "Q4": item("Q4", "Ada Lovelace Day"),
    }
    commons.found = {"Ada Lovelace": ["Q4", "Q1"], "John Smith": ["Q2", "Q3"]}
    commons.add("a.jpg")
    people, remarks = listed(source(commons, tmp_path, "name\nAda Lovelace\nJohn Smith\nNobody\n"))
    assert files(people["Ada Lovelace"]) == ["a.jpg"]
    # By the name, as the list has it: the id is the same whether Wikidata can be asked or not.
    assert (people["Ada Lovelace"].given, people["Ada Lovelace"].external_ids) == (
        None,
        {"wikidata": "Q1"},
    )
    assert not people["John Smith"].offers and not people["John Smith"].complete
    assert remarks == [
        "commons: John Smith may be Q2, Q3: put the Q-id that is meant into column wikidata of "
        "the list",
        "commons: Nobody: Wikidata knows no human of this name; put a Q-id into column wikidata "
        "of the list",
    ]


def test_items_and_files_that_have_moved_are_found(commons: Wiki, tmp_path: Path) -> None:
    """A person whose item was merged, or whose image was renamed, would have no images."""
    commons.items["Q2"] = item("Q2", "Ada", P18=["Old_name.jpg", "gone.jpg"])
    commons.redirects["Q1"] = "Q2"
    commons.add("New name.jpg")
    commons.moved["File:Old name.jpg"] = "File:New name.jpg"
    people, remarks = listed(source(commons, tmp_path, "name,wikidata\nAda,Q1\nBob,Q77\n"))
    assert files(people["Ada"]) == ["New_name.jpg"] and people["Ada"].given == "Q1"
    assert remarks == ["commons: Bob: Wikidata has no item Q77"] and not people["Bob"].complete


def test_one_impossible_number_does_not_refuse_the_others(commons: Wiki, tmp_path: Path) -> None:
    """A typing error in a list of a thousand people would end the listing."""
    for n in range(1, 6):
        commons.items[f"Q{n}"] = item(f"Q{n}", f"P{n}", P18=["a.jpg"])
    commons.add("a.jpg")
    people, remarks = listed(
        source(commons, tmp_path, "wikidata\nQ1\nQ2\nQ9999999999\nQ3\nQ4\nQ5\n")
    )
    assert [len(person.offers) for person in people.values()] == [1, 1, 0, 1, 1, 1]
    assert remarks == ["commons: Q9999999999: Wikidata has no item Q9999999999"]


def test_deprecated_claims_do_not_count_and_preferred_ones_come_first(
    commons: Wiki, tmp_path: Path
) -> None:
    """An image of somebody else, which Wikidata keeps as a known mistake, would be taken."""
    claims: list[Any] = [
        snak("P18", "wrong.jpg", "deprecated"),
        "usual.jpg",
        snak("P18", "best.jpg", "preferred"),
    ]
    claims.append({"mainsnak": {"snaktype": "novalue", "property": "P18"}, "rank": "normal"})
    commons.items["Q1"] = item("Q1", "Ada", P18=claims)
    commons.add("wrong.jpg", "usual.jpg", "best.jpg")
    people, _ = listed(source(commons, tmp_path, "wikidata\nQ1\n", per_person=5))
    assert files(people["Ada"]) == ["best.jpg", "usual.jpg"]


def test_what_is_no_picture_small_or_under_another_licence_is_counted(
    commons: Wiki, tmp_path: Path
) -> None:
    """Signatures, voices and stamps would be fetched, or vanish without a word."""
    commons.items["Q1"] = item("Q1", "Ada", P373=["Ada"])
    kinds = [
        commons.add("signature.svg", mime="image/svg+xml"),
        commons.add("voice.ogg", mime="application/ogg"),
        commons.add("s.jpg", width=90),
        commons.add("nc.jpg", meta={"License": "cc-by-nc-2.0"}),
        commons.add("pd.jpg", meta={"License": "pd-old-100"}),
        commons.add("a.jpg"),
    ]
    commons.members["Category:Ada"] = [title for kind in kinds for title in kind]
    people, remarks = listed(
        source(
            commons, tmp_path, "wikidata\nQ1\n", licences=("cc0", "PD*", "cc-by-sa-*"), min_side=100
        )
    )
    assert files(people["Ada"]) == ["pd.jpg", "a.jpg"]
    assert sorted(remarks) == [
        "commons: 1 image is left out: less than 100 pixels on a side",
        "commons: 1 image is left out: not under one of source.licences",
        "commons: 2 images are left out: no images by their type",
    ]


def test_missing_facts_are_missing_and_no_more(commons: Wiki, tmp_path: Path) -> None:
    """A file without a stated author would end the listing, or be said to be under a licence that
    nobody gave.
    """
    commons.items["Q1"] = item("Q1", "Ada", P373=["Ada"])
    bare = commons.add("bare.jpg", meta={"Artist": None, "License": None, "LicenseShortName": None})
    other = commons.add("other.jpg", meta={"Artist": None, "Credit": "<p>Own\nwork</p>"})
    empty, none = commons.add("empty.jpg"), ["File:gone.jpg"]
    commons.files[empty[0]]["imageinfo"][0]["extmetadata"] = []
    commons.add("hidden.jpg")
    commons.files["File:hidden.jpg"]["imageinfo"] = [{"filehidden": True}]
    commons.members["Category:Ada"] = [*bare, *empty, *other, *none, "File:hidden.jpg"]
    people, _ = listed(source(commons, tmp_path, "wikidata\nQ1\n"))
    assert [(offer.licence, offer.author) for offer in people["Ada"].offers] == [
        (None, None),
        (None, None),
        ("CC BY-SA 4.0", "Own work"),
    ]


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("Zoë", "Zoë"),
        ("A &amp; B\n&lt;x&gt;", "A & B <x>"),
        (
            '<a rel="nofollow" href="https://x.org">Jane   Doe</a> from <bdi><a '
            'href="//c">Berlin</a></bdi>, DE',
            "Jane Doe from Berlin, DE",
        ),
        (
            "<div class='vcard'><span class='fn'>NASA</span><span style='display:none'>Unknown "
            "author</span></div>",
            "NASAUnknown author",
        ),
        ("<style>.mw{}</style><ul><li>One</li><li>Two</li></ul>", "One Two"),
        ("<b>broken", "broken"),
        ("", ""),
    ],
)
def test_authors_are_text(markup: str, text: str) -> None:
    """Licence notes would be full of tags."""
    assert plain_text(markup) == text


def test_addresses_do_not_say_where_they_were_read(commons: Wiki, tmp_path: Path) -> None:
    """Every image would be fetched again when Commons marks its links otherwise."""
    commons.items["Q1"] = item("Q1", "Ada", P18=["a.jpg"])
    commons.add(
        "a.jpg",
        url="https://upload.wikimedia.org/wikipedia/commons/0/0a/%C3%84.jpg?utm_source=x&utm_content=original&v=2",
    )
    people, _ = listed(source(commons, tmp_path, "wikidata\nQ1\n"))
    assert (
        people["Ada"].offers[0].address
        == "https://upload.wikimedia.org/wikipedia/commons/0/0a/%C3%84.jpg?v=2"
    )


def test_a_busy_service_is_given_the_time_it_asks_for(commons: Wiki, tmp_path: Path) -> None:
    """The crawler would be shut out for asking on while Wikimedia's databases are behind."""
    commons.items["Q1"] = item("Q1", "Ada", P18=["a.jpg"])
    commons.add("a.jpg")
    refused = [
        busy,
        lambda: web.Response(status=429, headers={"Retry-After": "30"}),
        lambda: web.Response(status=503, text="Upstream"),
    ]
    commons.troubles = [
        *refused,
        lambda: web.Response(status=500),
        lambda: web.Response(text="<html>"),
    ]
    people, remarks = listed(source(commons, tmp_path, "wikidata\nQ1\n", by=("image",)))
    assert len(people["Ada"].offers) == 1 and people["Ada"].complete and not remarks
    assert len(commons.asked) == 2 + 5
    assert commons.clock.slept >= 5 + 30


@pytest.mark.parametrize(
    "trouble",
    [
        lambda: busy("3600"),
        lambda: web.Response(status=429, headers={"Retry-After": "3600"}),
        lambda: web.Response(
            status=403, text="Please set a user-agent and respect our robot policy"
        ),
        lambda: web.Response(status=500),
    ],
)
def test_a_service_that_cannot_be_asked_now_takes_nothing_away(
    commons: Wiki, tmp_path: Path, trouble: Any
) -> None:
    """An hour without Wikimedia would declare everything gone; what was listed before it would be
    asked for again.
    """
    commons.items = {
        f"Q{n}": item(f"Q{n}", f"P{n}", P18=[f"{n}.jpg"], P373=[f"P{n}"]) for n in range(1, 4)
    }
    for n in range(1, 4):
        commons.add(f"{n}.jpg")
    one_by_one = {"rate": None, "concurrency": 1}
    names = "wikidata\n" + "".join(f"Q{n}\n" for n in range(1, 4))
    found = source(
        commons,
        tmp_path,
        names,
        commons.asking(params={"politeness": one_by_one}),
        by=("image", "category"),
        depth=0,
    )
    answer = commons.answer

    async def third(request: web.Request) -> web.Response:
        # Items, their images and the first person are told, then it begins.
        if len(commons.asked) >= 3:
            commons.troubles.append(trouble)
        return await answer(request)

    commons.site.pages["/w/api.php"] = third
    people, remarks = listed(found)
    assert [person.complete for person in people.values()] == [True, False, False]
    assert (
        len(remarks) == 1
        and "2 of 3 people are not listed anew; the next run goes on with them" in remarks[0]
    )
    commons.site.pages["/w/api.php"] = answer
    commons.troubles.clear()
    before = len(commons.asked)
    people, remarks = listed(found)
    assert (
        all(person.complete and len(person.offers) == 1 for person in people.values())
        and not remarks
    )
    assert "Q1" not in "".join(str(query) for query in commons.asked[before:])


def test_what_is_known_is_not_asked_again_until_it_is_old(commons: Wiki, tmp_path: Path) -> None:
    """Every run, and every plan, would ask about 23,000 people."""
    commons.items["Q1"] = item("Q1", "Ada", P18=["a.jpg"])
    commons.add("a.jpg", "b.jpg")
    asking = commons.asking()
    found = source(commons, tmp_path, "wikidata\nQ1\n", asking)
    first = listed(found)
    count = len(commons.asked)
    assert listed(found) == first and len(commons.asked) == count
    commons.items["Q1"] = item("Q1", "Ada", P18=["b.jpg"])
    commons.clock.at += 86_401
    (people, remarks) = listed(
        source(commons, tmp_path, "wikidata\nQ1\n", replace(asking, ask=False))
    )
    assert files(people["Ada"]) == ["a.jpg"] and len(commons.asked) == count
    assert remarks == [
        "commons: as listed 1970-01-12 13:46 UTC; a run asks about people anew after 1 days"
    ]
    assert files(listed(found)[0]["Ada"]) == ["b.jpg"]
    asked = len(commons.asked)
    assert asked > count
    listed(source(commons, tmp_path, "wikidata\nQ1\n", asking, per_person=3))
    assert len(commons.asked) > asked  # other settings, other answers


def test_a_plan_asks_nobody_and_says_so(commons: Wiki, tmp_path: Path) -> None:
    """A plan of a new list would ask for hours."""
    people, remarks = listed(
        source(commons, tmp_path, "wikidata\nQ1\nQ2\n", commons.asking(ask=False))
    )
    assert [(person.complete, len(person.offers)) for person in people.values()] == [(False, 0)] * 2
    assert remarks == [
        "a plan asks nobody: 2 of 2 people are not listed yet; a run asks commons about them"
    ]
    assert not commons.asked


def test_a_listing_that_is_stopped_goes_on_where_it_was(commons: Wiki, tmp_path: Path) -> None:
    """Ctrl-C in the second hour would cost two hours."""
    names = "wikidata\n" + "".join(f"Q{n}\n" for n in range(1, 101))
    for n in range(1, 101):
        commons.items[f"Q{n}"] = item(f"Q{n}", f"P{n}", P18=[f"{n}.jpg"])
        commons.add(f"{n}.jpg")
    lines: list[str] = []
    found = source(commons, tmp_path, names, commons.asking(say=lines.append), by=("image",))
    commons.stop_after = 2
    people, remarks = listed(found)
    assert sum(person.complete for person in people.values()) == 50
    assert remarks == [
        "commons: the listing was stopped: 50 of 100 people are not listed anew; the next run "
        "goes on with them"
    ]
    commons.stop_after = None
    people, remarks = listed(found)
    assert all(person.complete for person in people.values()) and len(commons.asked) == 4
    assert lines == ["commons: asking about 100 people", "commons: asking about 50 people"]


def test_nobody_is_asked_without_saying_for_whom(tmp_path: Path) -> None:
    """Wikimedia would shut out the address of a whole institute."""
    path = tmp_path / "names.txt"
    path.write_text("Q7259\n")
    with pytest.raises(
        SourceError,
        match=r"commons\.wikimedia\.org would be asked without saying for whom: set fetch\.contact",
    ):
        CommonsSource(path).check()


def test_a_service_of_ones_own_inside_is_asked_only_where_it_is_allowed(
    commons: Wiki, tmp_path: Path
) -> None:
    """A DAG from a stranger would read a service inside the firm."""
    asking = commons.asking(params={"allow_hosts": [], "resolve": {}})
    inside = f"http://127.0.0.1:{commons.site.port}/w/api.php"
    people, remarks = listed(
        source(commons, tmp_path, "wikidata\nQ1\n", asking, api=inside, wikidata=inside)
    )
    assert not commons.asked and not people["Q1"].complete
    assert "127.0.0.1 is loopback" in remarks[0]


def test_an_error_about_one_person_is_told_and_costs_nobody_else(
    commons: Wiki, tmp_path: Path
) -> None:
    """One category that the search chokes on would end the listing of all."""
    commons.items = {f"Q{n}": item(f"Q{n}", f"P{n}", P373=[f"P{n}"]) for n in (1, 2)}
    commons.members = {f"Category:P{n}": commons.add(f"{n}.jpg") for n in (1, 2)}
    answer = commons.answer

    async def choking(request: web.Request) -> web.Response:
        if request.query.get("gcmtitle") == "Category:P1":
            return said(
                {"error": {"code": "internal_api_error_DBQueryError", "info": "Caught exception"}}
            )
        return await answer(request)

    commons.site.pages["/w/api.php"] = choking
    people, remarks = listed(source(commons, tmp_path, "wikidata\nQ1\nQ2\n", by=("category",)))
    assert [(len(person.offers), person.complete) for person in people.values()] == [
        (0, False),
        (1, True),
    ]
    assert remarks == [
        "commons: P1 (Q1): api.test: internal_api_error_DBQueryError: Caught exception"
    ]


def test_a_long_listing_says_how_far_it_is(commons: Wiki, tmp_path: Path) -> None:
    """A listing of two hours would look as if it had hung."""
    for n in range(1, 9):
        commons.items[f"Q{n}"] = item(f"Q{n}", f"P{n}", P373=[f"P{n}"])
        commons.members[f"Category:P{n}"] = commons.add(f"{n}.jpg")
    lines: list[str] = []
    asking = commons.asking(
        say=lines.append, params={"politeness": {"rate": 0.1, "concurrency": 1}}
    )
    listed(
        source(
            commons,
            tmp_path,
            "wikidata\n" + "".join(f"Q{n}\n" for n in range(1, 9)),
            asking,
            by=("category",),
            depth=0,
        )
    )
    assert lines[1:] == [
        "commons: 4 of 8 people listed, 4 images",
        "commons: 7 of 8 people listed, 7 images",
    ]
