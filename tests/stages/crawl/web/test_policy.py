"""What sites allow: robots.txt, X-Robots-Tag, the reservation of text and data mining."""

import json

import pytest

from stages.crawl.web.policy import SitePolicy, crawl_delay, header_verdict, robots_verdict, tdm_verdict

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


def site(robots: str | None = "", tdmrep: str = "", reason: str = "robots", why: str = "") -> SitePolicy:
    return SitePolicy(robots, tdmrep, 60.0, reason, why)


@pytest.mark.parametrize(
    ("agent", "path", "allowed"),
    [
        ("other", "/a.jpg", True),
        ("other", "/private/a.jpg", False),
        ("other", "/private/open.jpg", True),
        ("other", "/x/a.gif", False),
        ("other", "/x/a.gif?b", True),
        ("idcluster", "/faces/a.jpg", False),
        ("idcluster", "/private/a.jpg", True),  # the group that names the crawler replaces the one for all
    ],
)
def test_robots_txt_is_kept(agent: str, path: str, allowed: bool) -> None:
    assert (robots_verdict(site(ROBOTS), agent, f"https://a.example{path}") is None) == allowed


def test_a_site_that_fails_to_answer_forbids_everything_and_one_without_rules_nothing() -> None:
    assert "HTTP 503" in (robots_verdict(site(None, why="HTTP 503"), "idcluster", "https://a.example/") or "")
    assert robots_verdict(site(""), "idcluster", "https://a.example/x") is None
    assert robots_verdict(site("<html>not found</html>"), "idcluster", "https://a.example/x") is None


def test_delays_are_read_from_both_rules() -> None:
    assert crawl_delay(site(ROBOTS), "other") == 3
    assert crawl_delay(site(ROBOTS), "idcluster") == 10
    assert crawl_delay(site(""), "idcluster") is None


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
    ],
)
def test_the_header_opts_out_for_this_crawler_only(value: str, refused: bool) -> None:
    assert (header_verdict([("X-Robots-Tag", value)], "idcluster") is not None) == refused


def test_all_headers_are_looked_at() -> None:
    assert header_verdict([("X-Robots-Tag", "all"), ("x-robots-tag", "noai")], "idcluster") == "header X-Robots-Tag: noai"
    assert header_verdict([("TDM-Reservation", "1")], "idcluster") == "header tdm-reservation: 1"
    assert header_verdict([("tdm-reservation", "0"), ("Content-Type", "image/png")], "idcluster") is None


def test_the_first_matching_reservation_decides() -> None:
    rep = json.dumps(
        [
            {"location": "/press/*", "tdm-reservation": 0},
            {"location": "/*.png$", "tdm-reservation": 1},
            {"location": "/photos/", "tdm-reservation": 1, "tdm-policy": "https://a.example/p"},
        ]
    )
    assert tdm_verdict(site(tdmrep=rep), "https://a.example/photos/a.jpg") == "tdmrep.json reserves /photos/"
    assert tdm_verdict(site(tdmrep=rep), "https://a.example/press/a.png") is None
    assert tdm_verdict(site(tdmrep=rep), "https://a.example/x/a.png")
    assert tdm_verdict(site(tdmrep=rep), "https://a.example/x/a.png?b") is None
    assert tdm_verdict(site(tdmrep=rep), "https://a.example/a.jpg") is None


@pytest.mark.parametrize("broken", ["", "<html>", "{}", '{"location": "/"}', "[1, null, {}]", '[{"location": 3, "tdm-reservation": 1}]'])
def test_what_is_no_statement_reserves_nothing(broken: str) -> None:
    assert tdm_verdict(site(tdmrep=broken), "https://a.example/a.jpg") is None
