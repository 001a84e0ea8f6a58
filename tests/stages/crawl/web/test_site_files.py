"""Files of sites as strangers write them: read as they were meant, and with limits."""

import codecs
import json
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.crawl.web.policy import SitePolicy, crawl_delay, robots_verdict, tdm_verdict
from stages.crawl.web.site_files import (
    FILE_BYTES,
    MOST_PATTERNS,
    NotUnderstood,
    Reservation,
    read_robots,
    read_tdmrep,
)

FORBIDDEN = "User-agent: *\nDisallow: /private/\n"
RESERVED = '[{"location": "/private/", "tdm-reservation": 1}]'
# fmt: off
MARKED = {
    "utf-8": codecs.BOM_UTF8, "utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE, "utf-32-be": codecs.BOM_UTF32_BE,
}
# fmt: on


def forbids(robots: bytes | str, path: str = "/private/x.jpg") -> bool:
    data = robots.encode() if isinstance(robots, str) else robots
    policy = SitePolicy(read_robots(data, "idcluster"), (), 60.0)
    return robots_verdict(policy, "idcluster", f"http://a.test{path}") is not None


def reserves(tdmrep: bytes | str, path: str = "/private/x.jpg") -> bool:
    data = tdmrep.encode() if isinstance(tdmrep, str) else tdmrep
    return tdm_verdict(SitePolicy("", read_tdmrep(data), 60.0), f"http://a.test{path}") is not None


@pytest.mark.parametrize("name", MARKED)
def test_a_byte_order_mark_hides_no_rule(name: str) -> None:
    assert forbids(MARKED[name] + FORBIDDEN.encode(name))
    assert reserves(MARKED[name] + RESERVED.encode(name))
    assert forbids(FORBIDDEN.encode("utf-16-le")) and forbids(
        FORBIDDEN.encode("utf-16-be")
    )  # nor does its absence
    assert forbids(codecs.BOM_UTF8 * 2 + FORBIDDEN.encode())
    assert forbids(
        b"User-agent: other\nDisallow: /\n" + codecs.BOM_UTF8 + FORBIDDEN.encode()
    )  # two files put together


@pytest.mark.parametrize(
    "who",
    [
        "idcluster",
        "IDCluster",
        "idcluster/0.1",
        "idcluster 1.0",
        "idcluster2",
        "idcluster*",
        "Googlebot, idcluster",
        "Mozilla/5.0 (compatible; idcluster/0.1; +http://a.test)",
        "idcluster # us",
    ],
)
def test_we_are_meant_by_our_name_with_a_version_or_among_others(who: str) -> None:
    assert forbids(f"User-agent: *\nDisallow: /no/\n\nUser-agent: {who}\nDisallow: /private/\n")
    assert not forbids(
        f"User-agent: {who}\nAllow: /\n\n{FORBIDDEN}"
    )  # our group replaces the one for all


@pytest.mark.parametrize(
    "who", ["otheridcluster", "idclusterer", "idcluster-images", "id", "Googlebot"]
)
def test_others_are_not_us(who: str) -> None:
    assert not forbids(f"User-agent: {who}\nDisallow: /\n")


@pytest.mark.parametrize(
    "robots",
    [
        FORBIDDEN.replace("\n", "\r"),
        FORBIDDEN.replace("\n", "\r\n"),
        FORBIDDEN.upper().replace("/PRIVATE/", "/private/"),
        "User agent: *\nDisallow /private/",
        "Useragent: *\nDissallow: /private/",
        "User-agent *\nDisallow : /private/",
        "User-agent: *\n\nDisallow: /private/",
        "User-agent: * Disallow: /private/",
        "Disallow: /private/",
        "User-agent:\nDisallow: /private/",
        "User-agent: *\nDisallow: private/",
        "User-agent: *\nDisallow: ./private/",
        "User-agent: *\nDisallow: http://a.test/private/",
        "User-agent: *\nDisallow: /open/../private/",
        "User-agent: *\nDisallow: *private",
        "User-agent: *\nDisallow: /%70rivate/",
        "User-agent: other\nUser-agent: *\nDisallow: /private/",
        "User-agent: *\nSitemap: http://a.test/s.xml\nUser-agent: other\nDisallow: /private/",
        "<pre>\n" + FORBIDDEN + "</pre>",
        "User-agent: *\nDisallow: /private/\nUser-agent: *\nDisallow: /more/",
    ],
)
def test_rules_are_read_as_they_were_meant(robots: str) -> None:
    assert forbids(robots)
    assert not forbids(robots, "/open/x.jpg")


@pytest.mark.parametrize(
    "robots",
    [
        "",
        "\n",
        "# nothing to say\n",
        "<!DOCTYPE html><title>Not found</title>",
        "Sitemap: http://a.test/s.xml",
        "User-agent: *\nDisallow:",
        "Content-Signal: search=yes",
        "\ufeff",
    ],
)
def test_a_file_without_rules_and_a_page_in_its_place_forbid_nothing(robots: str) -> None:
    assert not forbids(robots)


@pytest.mark.parametrize(
    "robots",
    [
        b"\0\1\2\3" * 50,
        b"GIF89a\1\0\1\0\x80\0\0",
        b"Forbidden",
        b'{"error": 1}',
        "Nö".encode("utf-32-le"),
    ],
)
def test_a_file_that_makes_no_sense_is_not_understood(robots: bytes) -> None:
    with pytest.raises(NotUnderstood):
        read_robots(robots, "idcluster")


@pytest.mark.slow
def test_a_file_of_any_size_has_an_end_and_so_have_its_rules() -> None:
    long = (FORBIDDEN + f"Disallow: /{'x' * 100}\n" * 10_000).encode()
    assert forbids(long[:FILE_BYTES])
    cut = ("User-agent: *\n" + f"Disallow: /{'a' * 50}\n" * 20_000).encode()
    for end in range(
        FILE_BYTES, FILE_BYTES + 62
    ):  # wherever the last line is cut, it does not forbid more than it did
        assert not forbids(cut[end - FILE_BYTES :][:FILE_BYTES], "/x.jpg")
    with pytest.raises(NotUnderstood, match="wildcard rules"):
        read_robots(
            (
                "User-agent: *\n" + "".join(f"Disallow: /*{n}\n" for n in range(MOST_PATTERNS + 1))
            ).encode(),
            "idcluster",
        )
    others = "".join(f"User-agent: bot{n}\nDisallow: /*{n}\n" for n in range(20_000))
    assert (
        read_robots(others.encode()[:FILE_BYTES], "idcluster") == ""
    )  # of others' rules nothing is kept


def test_delays_come_with_the_rules() -> None:
    robots = b"User-agent: *\nCrawl delay: 3\n\nUser-agent: idcluster/1\nRequest-rate: 1/10\n"
    assert crawl_delay(SitePolicy(read_robots(robots, "idcluster"), (), 60.0), "idcluster") == 10


@pytest.mark.parametrize(
    "nothing",
    [
        "",
        " \n",
        "<html>",
        "{}",
        "[]",
        "null",
        '{"location": "/"}',
        "[{}]",
        '[{"location": 3, "tdm-reservation": 0}]',
    ],
)
def test_what_states_nothing_reserves_nothing(nothing: str) -> None:
    assert not reserves(nothing)


@pytest.mark.parametrize(
    "broken",
    [
        "[" * 200_000,
        '{"a":' * 100_000,
        "not found",
        "[1]",
        '[{"location": 3, "tdm-reservation": 1}]',
        '[{"tdm-reservation": 1}]',
        RESERVED[:-1],
        "1" * 5000,
        '{"error": "not found"}',
        "[" + "{}," * 300_000,
        "\0" * 9,
    ],
)
def test_a_statement_that_cannot_be_understood_is_not_passed_over(broken: str) -> None:
    with pytest.raises(NotUnderstood):
        read_tdmrep(broken.encode()[:FILE_BYTES])


@pytest.mark.parametrize("value", ["1", "true", '"1"', '"yes"', "2", "[0]"])
def test_what_is_not_said_to_be_free_is_reserved(value: str) -> None:
    assert reserves(f'[{{"location": "/private/", "tdm-reservation": {value}}}]')
    assert reserves(
        f'{{"location": "/private/", "tdm-reservation": {value}}}'
    )  # one entry, without its list
    assert not reserves(
        f'[{{"location": "/private/", "tdm-reservation": 0}}, {{"location": "/", '
        f'"tdm-reservation": {value}}}]'
    )


@pytest.mark.parametrize(
    ("location", "path", "meant"),
    [
        ("/", "/x", True),
        ("/*", "/x", True),
        ("*", "/x", True),
        ("/a*b", "/a/x/b/c", True),
        ("/a*b$", "/a/x/b/c", False),
        ("/a*b$", "/abb", True),
        ("/a$", "/a", True),
        ("/a$", "/ab", False),
        ("/*.png$", "/x.png?y", False),
        ("/ä/", "/%C3%A4/x", True),
        ("/%7Ea", "/~a", True),
        ("/a%2fb", "/a/b", False),
        ("/a%2fb", "/a%2Fb", True),
        ("a/", "/a/x", True),
        ("http://a.test/a/", "/a/x", True),
        ("/*a*a$", "/a", False),
        ("", "/x", True),
        ("$", "/x", False),
    ],
)
def test_locations_are_patterns_of_paths(location: str, path: str, meant: bool) -> None:
    assert reserves(json.dumps([{"location": location, "tdm-reservation": 1}]), path) == meant


@settings(max_examples=300)
@given(st.text("ab*", max_size=8), st.booleans(), st.text("ab", max_size=10))
def test_patterns_match_what_trying_all_ways_matches(pattern: str, end: bool, rest: str) -> None:
    def tries(left: str, text: str) -> bool:
        if not left:
            return not text or not end
        if left[0] == "*":
            return any(tries(left[1:], text[at:]) for at in range(len(text) + 1))
        return bool(text) and text[0] == left[0] and tries(left[1:], text[1:])

    assert Reservation.of(f"/{pattern}{'$' * end}", True).holds_for(f"/{rest}") == tries(
        f"/{pattern}", f"/{rest}"
    )


@settings(max_examples=300)
@given(
    st.lists(
        st.tuples(st.text("ab*", max_size=3), st.sampled_from(["", "$"]), st.booleans()), max_size=8
    ),
    st.text("ab", max_size=5),
)
def test_the_first_entry_that_holds_decides(
    entries: list[tuple[str, str, bool]], path: str
) -> None:
    made = tuple(
        Reservation.of(f"/{location}{end}", reserved) for location, end, reserved in entries
    )
    first = next((entry for entry in made if entry.holds_for(f"/{path}")), None)
    assert SitePolicy("", made, 60.0).reservation(f"/{path}") is first


def test_rules_that_would_take_long_on_a_long_address_are_a_no() -> None:
    robots = "User-agent: *\n" + "".join(f"Disallow: /*ab{n}\n" for n in range(MOST_PATTERNS - 1))
    assert not forbids(robots, "/x.jpg")
    assert forbids(robots, "/" + "ab" * 4000)
    entries = json.dumps([{"location": f"/*{n}x", "tdm-reservation": 0} for n in range(9_000)])
    assert not reserves(entries, "/x.jpg")
    assert reserves(entries, "/" + "ab" * 4000)


def test_no_pattern_takes_long() -> None:
    """`*a*a…b` and a path of thousands of letters kept a regular expression busy for ever."""
    assert not reserves(
        json.dumps([{"location": "*a" * 3000 + "b", "tdm-reservation": 1}]), "/" + "a" * 4000
    )
    assert not forbids("User-agent: *\nDisallow: " + "*a" * 3000 + "b", "/" + "a" * 4000)


@settings(max_examples=200)
@given(st.binary(max_size=400) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_read_or_not_understood(data: bytes) -> None:
    for read in (read_tdmrep, lambda data: read_robots(data, "idcluster")):
        try:
            read(data)
        except NotUnderstood:
            continue


def test_what_is_kept_of_a_site_is_no_larger_than_what_it_said() -> None:
    data = ("User-agent: *\n" + "".join(f"Disallow: /{n}/\n" for n in range(30_000))).encode()[
        :FILE_BYTES
    ]
    tracemalloc.start()
    kept = SitePolicy(read_robots(data, "idcluster"), (), 60.0)
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert kept.weight < 2 * FILE_BYTES
    assert size < 4 * FILE_BYTES
