"""Addresses in one spelling: what is the same image, and what is no address of the web."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.crawl.web.address import BadAddress, canonical, host_of, origin_of, redirected


@pytest.mark.parametrize(
    ("given_", "one"),
    [
        ("HTTP://Example.COM:80/a.jpg#top", "http://example.com/a.jpg"),
        ("https://example.com:443", "https://example.com/"),
        ("https://example.com.:8443/a", "https://example.com:8443/a"),
        (
            "https://bücher.example/ü b.jpg?q=ä&x=%2F",
            "https://xn--bcher-kva.example/%C3%BC%20b.jpg?q=%C3%A4&x=%2F",
        ),
        (" https://example.com/a\n.jpg ", "https://example.com/a.jpg"),
        ("http://[2001:DB8:0:0::1]:8080/a", "http://[2001:db8::1]:8080/a"),
    ],
)
def test_one_picture_has_one_address(given_: str, one: str) -> None:
    assert canonical(given_) == one


def test_what_a_server_may_have_signed_stays_as_it_is() -> None:
    signed = "https://cdn.example/a%2Fb/~x;v=1?sig=a+b%2B%7e&Expires=1"
    assert canonical(signed) == signed


@pytest.mark.parametrize(
    "bad",
    [
        "ftp://a/b",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "data:image/png;base64,AA",
        "//a/b",
        "a.jpg",
        "",
        "http://",
        "http:///a",
        "http://user:secret@example.com/",
        "http://user@example.com/",
        "http://exa mple.com/",
        "http://a..b/",
        "http://a:99999/",
        "http://a:b/",
        "http://[::1/",
        "http://a\x00b/",
        "http://" + "a" * 254 + "/",
        "http://example.com/" + "a" * 9000,
        "http://-a.com/",
        "http://a/\ud800",
    ],
)
def test_what_is_no_address_of_the_web_is_refused_in_words(bad: str) -> None:
    with pytest.raises(BadAddress, match=r".+"):
        canonical(bad)


@given(st.text(max_size=40), st.text(max_size=40))
def test_the_one_spelling_is_its_own(path: str, query: str) -> None:
    try:
        once = canonical(f"http://example.com/{path}?{query}")
    except BadAddress:
        return
    assert canonical(once) == once
    assert once.isascii()
    assert host_of(once) == "example.com"


def test_redirects_are_resolved_and_checked() -> None:
    assert redirected("https://a.example/x/y.jpg?z", "../w.jpg") == "https://a.example/w.jpg"
    assert redirected("https://a.example/x", "//b.example/y") == "https://b.example/y"
    with pytest.raises(BadAddress):
        redirected("https://a.example/x", "file:///etc/passwd")
    with pytest.raises(BadAddress):
        redirected("https://a.example/x", "http://me:secret@b.example/")
    assert origin_of("https://a.example:8443/x") == "https://a.example:8443"


@given(
    st.text(max_size=60) | st.text("htp:/[]@.%#?x1é\udc80", max_size=40),
    st.sampled_from(["", "http://", "https://[", "//", "http://a.test/"]),
)
def test_whatever_stands_in_a_list_or_a_redirect_is_an_address_or_a_bad_one(
    text: str, before: str
) -> None:
    for read in (canonical, lambda location: redirected("https://a.test/b/c?d", location)):
        try:
            address = read(before + text)
        except BadAddress:
            continue
        assert address.isascii() and address.isprintable()
        assert canonical(address) == address
        assert host_of(address)


@pytest.mark.parametrize(
    "location",
    [
        "http://[",
        "//[",
        "http://[::1",
        "http://a.test:99999/",
        "http://" + "ä" * 4000 + "/",
        "http://" + "a." * 4000,
    ],
)
def test_redirects_that_cannot_be_taken_apart_are_bad_addresses(location: str) -> None:
    with pytest.raises(BadAddress):
        redirected("http://a.test/x", location)


def test_bytes_that_are_no_text_are_escaped_in_redirects() -> None:
    assert (
        redirected("http://a.test/x", "/\udce9t\u00e9.jpg?\udcff")
        == "http://a.test/%E9t%C3%A9.jpg?%FF"
    )
