"""What sites allow: robots.txt, X-Robots-Tag, the reservation of text and data mining."""

import json
import math
from typing import Any

import pytest
from protego import Protego

from stages.crawl.web.policy import (
    SitePolicy,
    crawl_delay,
    header_verdict,
    robots_verdict,
    tdm_verdict,
)
from stages.crawl.web.site_files import read_robots, read_tdmrep

ROBOTS = """
User-agent: *
Disallow: /private/
Allow: /private/open.jpg
Disallow: /*.gif$
Crawl-delay: 3

User-agent: idcluster
Disallow: /faces/
Request-rate: 1/10
"""


def site(
    robots: str | None = "", tdmrep: str = "", why: str = "", agent: str = "idcluster"
) -> SitePolicy:
    """What is learnt of a site from its files."""
    said = None if robots is None else read_robots(robots.encode(), agent)
    return SitePolicy(said, read_tdmrep(tdmrep.encode()), 60.0, "robots", why)


@pytest.mark.parametrize(
    ("agent", "path", "allowed"),
    [
        ("other", "/a.jpg", True),
        ("other", "/private/a.jpg", False),
        ("other", "/private/open.jpg", True),
        ("other", "/x/a.gif", False),
        ("other", "/x/a.gif?b", True),
        ("idcluster", "/faces/a.jpg", False),
        (
            "idcluster",
            "/private/a.jpg",
            True,
        ),  # the group that names the crawler replaces the one for all
    ],
)
def test_robots_txt_is_kept(agent: str, path: str, allowed: bool) -> None:
    assert (
        robots_verdict(site(ROBOTS, agent=agent), agent, f"https://a.example{path}") is None
    ) == allowed


def test_a_site_that_fails_to_answer_forbids_everything_and_one_without_rules_nothing() -> None:
    assert "HTTP 503" in (
        robots_verdict(site(None, why="HTTP 503"), "idcluster", "https://a.example/") or ""
    )
    assert robots_verdict(site(""), "idcluster", "https://a.example/x") is None
    assert (
        robots_verdict(site("<html>not found</html>"), "idcluster", "https://a.example/x") is None
    )


def test_delays_are_read_from_both_rules() -> None:
    assert crawl_delay(site(ROBOTS, agent="other"), "other") == 3
    assert crawl_delay(site(ROBOTS), "idcluster") == 10
    assert crawl_delay(site(""), "idcluster") is None
    far = f"User-agent: *\nRequest-rate: 1/1{'0' * 400}"
    assert crawl_delay(site(far), "idcluster") == math.inf


@pytest.mark.parametrize(
    ("value", "refused"),
    [
        ("noai", True),
        ("NoImageAI", True),
        ("nofollow, noindex", True),
        ("none", True),
        ("all", False),
        ("nofollow", False),
        ("googlebot: noindex", False),
        ("idcluster: noai", True),
        ("googlebot: nofollow, idcluster: noindex", True),
        ("googlebot: noindex, nofollow", False),
        ("unavailable_after: 25 Jun 2030 15:00:00 GMT, noai", True),
        ("max-image-preview: none", False),
        ("*: noai", True),
        ("idcluster/0.1: noai", True),
        ("index; noai", True),
    ],
)
def test_the_header_opts_out_for_this_crawler_only(value: str, refused: bool) -> None:
    assert (header_verdict([("X-Robots-Tag", value)], "idcluster") is not None) == refused


def test_all_headers_are_looked_at() -> None:
    assert (
        header_verdict([("X-Robots-Tag", "all"), ("x-robots-tag", "noai")], "idcluster")
        == "header X-Robots-Tag: noai"
    )
    assert header_verdict([("TDM-Reservation", "1")], "idcluster") == "header tdm-reservation: 1"
    assert header_verdict([("tdm-reservation", "yes")], "idcluster")
    assert (
        header_verdict([("tdm-reservation", "0"), ("Content-Type", "image/png")], "idcluster")
        is None
    )


def test_the_first_matching_reservation_decides() -> None:
    rep = json.dumps(
        [
            {"location": "/press/*", "tdm-reservation": 0},
            {"location": "/*.png$", "tdm-reservation": 1},
            {"location": "/photos/", "tdm-reservation": 1, "tdm-policy": "https://a.example/p"},
        ]
    )
    assert (
        tdm_verdict(site(tdmrep=rep), "https://a.example/photos/a.jpg")
        == "tdmrep.json reserves /photos/"
    )
    assert tdm_verdict(site(tdmrep=rep), "https://a.example/press/a.png") is None
    assert tdm_verdict(site(tdmrep=rep), "https://a.example/x/a.png")
    assert tdm_verdict(site(tdmrep=rep), "https://a.example/x/a.png?b") is None
    assert tdm_verdict(site(tdmrep=rep), "https://a.example/a.jpg") is None


def test_what_makes_no_sense_forbids_everything_and_says_why() -> None:
    unclear = SitePolicy("", (), 60.0, unclear_robots="no line of it is a rule")
    assert (
        robots_verdict(unclear, "idcluster", "https://a.example/x")
        == "robots.txt cannot be understood: no line of it is a rule"
    )
    unclear = SitePolicy("", (), 60.0, unclear_tdmrep="it is nested too deeply")
    assert (
        tdm_verdict(unclear, "https://a.example/x")
        == "tdmrep.json cannot be understood: it is nested too deeply"
    )


@pytest.mark.parametrize(
    "path",
    [
        "/a/../private/x.jpg",
        "/./private/x.jpg",
        "//private/x.jpg",
        "/a/%2e%2E/private/x.jpg",
        "/x/..//private/",
    ],
)
def test_a_detour_to_a_forbidden_place_is_forbidden(path: str) -> None:
    said = site(
        "User-agent: *\nDisallow: /private/", '[{"location": "/private/", "tdm-reservation": 1}]'
    )
    assert robots_verdict(said, "idcluster", f"https://a.example{path}")
    assert tdm_verdict(said, f"https://a.example{path}")
    assert (
        robots_verdict(said, "idcluster", "https://a.example/private/../open/x.jpg?private/")
        is not None
    )  # as it is written
    assert robots_verdict(said, "idcluster", "https://a.example/open//x.jpg") is None


def test_a_file_with_many_rules_is_read_once_and_not_for_every_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Half a megabyte of harmless rules took most of a second for every address."""
    read: list[int] = []

    class Counting(Protego):
        @classmethod
        def parse(cls, content: str) -> Any:
            read.append(len(content))
            return Protego.parse(content)

    monkeypatch.setattr("stages.crawl.web.policy.Protego", Counting)
    rules = [{"location": f"/albums/of/somebody/{n}/*", "tdm-reservation": 0} for n in range(5000)]
    said = site(
        "User-agent: *\n" + "\n".join(f"Disallow: /albums/of/somebody/{n}/" for n in range(12_000)),
        json.dumps(rules),
    )
    monkeypatch.setattr("json.loads", None)
    for n in range(100):
        assert robots_verdict(said, "idcluster", f"https://a.example/p/{n}.jpg") is None
        assert tdm_verdict(said, f"https://a.example/p/{n}.jpg") is None
    assert len(read) == 1
