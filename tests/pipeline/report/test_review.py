"""The page on which people are decided about: who is on it and in which order, what must never be
on it, and a whole sitting in a browser without a mouse.
"""

import html
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from idcluster.catalogue.connection import connect
from idcluster.root.dataset_root import make_root
from idcluster.root.parquet import read, seal_table
from idcluster.root.removals import Receipt, key_of, words
from idcluster.root.snapshot import Snapshot, load, publish
from idcluster.root.storage import Store
from pipeline.cli import app
from pipeline.correct import Decision, correct, read_csv
from pipeline.report.dataset_page import write_report
from pipeline.report.person_page import write_page
from pipeline.report.review_faces import chosen
from pipeline.report.review_page import NothingToReview, Review, Room, write_review
from schemas import TABLES, face_id, identity_id, image_id
from tests.pipeline.browser import Browser
from tests.pipeline.small_root import BOX, SmallPerson, small_root

HOSTILE = "</script><script>alert(1)</script><!-- <img src=x onerror=alert(2)> \u202egnp"
MAYBE = ("maybe_same",)
# fmt: off
PEOPLE = [
    SmallPerson("Ada", 4),
    SmallPerson("Ben", 4, rejected=2, shared=1),
    SmallPerson("Cleo", 5, near=("Dora", 0.7, MAYBE)),
    SmallPerson("Dora", 4, near=("Cleo", 0.7, MAYBE)),
    SmallPerson("Ed", 5, others=4, flags=("second_cluster",), margin=0.8),
    SmallPerson("Fay", 6, others=3, margin=0.55),
    SmallPerson("Gil", 0, rejected=3, reason="ambiguous", faceless=1),
    SmallPerson("Hal", 4, others=4, flags=("near_tie",), margin=0.95),
    SmallPerson("Ida", 5, others=4, flags=("second_cluster",), margin=0.9),
]
# fmt: on
ORDER = ["Gil", "Hal", "Ida", "Ed", "Fay", "Cleo", "Dora", "Ben"]


def make(folder: Path, people: list[SmallPerson] = PEOPLE) -> Store:
    store = make_root(str(folder), "small")
    small_root(store, people, chunks_per_bucket=2)
    return store


ROOMY = Room()


def written(store: Store, path: Path, room: Room = ROOMY, **choices: Any) -> Review:
    return write_review(store, load(store), path, room, **choices)


def inside(path: Path, what: str = "queue") -> dict[str, Any]:
    """Data of a page, as its script gets it."""
    found = re.search(
        rf'<script type="application/json" id="{what}">(.*?)</script>', path.read_text()
    )
    assert found, what
    return dict(json.loads(found[1]))


def names(path: Path) -> list[str]:
    return [person["name"] for person in inside(path)["people"]]


def face_of(name: str, number: int) -> str:
    return face_id(image_id(identity_id(name), f"local:{name}/{number}.jpg"), BOX)


def overrides(store: Store) -> set[tuple[str, str, str | None]]:
    connection = connect(store)
    rows = connection.execute("SELECT action, face_id, target FROM overrides").fetchall()
    connection.close()
    return set(rows)


# Without a browser


@pytest.mark.slow
def test_the_doubtful_come_first_and_the_others_when_asked_for(tmp_path: Path) -> None:
    store, page = make(tmp_path / "out"), tmp_path / "r.html"
    made = written(store, page)
    assert names(page) == ORDER
    assert (made.people, made.doubtful, made.left_out) == (8, 8, 0)
    assert inside(page)["people"][0]["why"] == ["ambiguous"]
    written(store, page, everybody=True)
    assert names(page) == [*ORDER, "Ada"]
    assert written(store, page, Room(people=3)).left_out == 5
    assert names(page) == ORDER[:3]
    assert "5 further people are not on this page" in inside(page)["left_out"]
    written(store, page, where="margin > 0.85")
    assert names(page) == ["Hal", "Ida"]
    with pytest.raises(NothingToReview, match="--where"):
        written(store, page, where="name = 'Ada'")


def test_who_has_been_decided_about_comes_after_the_others_of_a_kind(tmp_path: Path) -> None:
    store, page = make(tmp_path / "out"), tmp_path / "r.html"
    correct(store, [Decision("reject", face_of("Ida", 6))], "test")
    written(store, page)
    assert names(page) == ["Gil", "Hal", "Ed", "Ida", *ORDER[4:]]
    ida = inside(page)["people"][3]
    assert ida["earlier"] and ida["hand"] == {face_of("Ida", 6): "reject"}


@pytest.mark.slow
def test_two_names_are_one_question_written_down_once(tmp_path: Path) -> None:
    store, page = make(tmp_path / "out"), tmp_path / "r.html"
    written(store, page)
    about = inside(page)
    by_name = {person["name"]: person for person in about["people"]}
    assert by_name["Cleo"]["pairs"] == by_name["Dora"]["pairs"] == [0]
    assert by_name["Cleo"]["only_pairs"] and not by_name["Ed"]["only_pairs"]
    assert {about["pairs"][0]["one"], about["pairs"][0]["other"]} == {
        identity_id("Cleo"),
        identity_id("Dora"),
    }
    written(store, page, where="name = 'Dora'")
    assert inside(page)["mates"] == {identity_id("Cleo"): "Cleo"}
    assert len(inside(page, f"p-{identity_id('Cleo')}")["faces"]) == 5


def test_an_answer_does_not_take_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    """A person's row has room for one other name; of three who look alike none is lost."""
    trio = [
        SmallPerson("A", 4, near=("B", 0.8, MAYBE)),
        SmallPerson("B", 4, near=("A", 0.8, MAYBE)),
        SmallPerson("C", 4, near=("A", 0.7, MAYBE)),
        SmallPerson("D", 4),
    ]
    store, page = make(tmp_path / "out", trio), tmp_path / "r.html"
    correct(store, [Decision("apart", "A", "D")], "test")
    written(store, page)
    owners = [pair["one"] for pair in inside(page)["pairs"]]
    assert len(owners) == len(set(owners)) == 3
    assert {(pair["one"], pair["hand"]) for pair in inside(page)["pairs"] if pair["hand"]} == {
        (identity_id("A"), "apart")
    }


@pytest.mark.slow
def test_a_page_keeps_to_its_size_and_says_what_is_left_out(tmp_path: Path) -> None:
    crowd = [SmallPerson(f"P{number:02d}", 30, margin=0.6) for number in range(12)]
    store, page = make(tmp_path / "out", crowd), tmp_path / "r.html"
    whole = written(store, page, Room(faces=30))
    assert (whole.faces, whole.more_faces, whole.photos) == (360, 0, 360)
    small = written(store, page, Room(faces=30, megabytes=0.5, photo_megabytes=0.0))
    assert small.people == 12 and 6 * 12 <= small.faces < 360
    assert small.faces + small.more_faces == 360 and small.photos == 0
    rest = inside(page, f"p-{identity_id('P00')}")["groups"][0]["rest"]
    assert len(rest) == small.more_faces / 12
    least = written(store, page, Room(faces=30, megabytes=0.1, photo_megabytes=0.0))
    assert 0 < least.people < 12 and least.people + least.left_out == 12
    assert least.bytes - 40_000 < 0.1e6  # the script and what else every page has
    one_each = written(store, page, Room(photo_megabytes=0.8))
    counts = [len(inside(page, f"p-{identity_id(p.name)}")["photos"]) for p in crowd]
    assert one_each.photos == sum(counts) == 13 and max(counts) == 2 and min(counts) == 1


def test_of_many_faces_some_of_every_cluster_are_drawn() -> None:
    groups = {
        "1": [{"n": n} for n in range(50)],
        "0": [{"n": n} for n in range(40)],
        "": [{"n": 0}],
    }
    found = chosen(groups, 9)
    assert [(name, len(drawn), len(rest)) for name, drawn, rest in found] == [
        ("0", 4, 36),
        ("1", 4, 46),
        ("", 1, 0),
    ]
    assert [face["n"] for face in found[0][1]] == [0, 13, 26, 39]
    assert sum(len(drawn) for _, drawn, _ in chosen(groups, 2)) == 2


def test_names_and_addresses_are_text(tmp_path: Path) -> None:
    """They come from strangers; a page that ran them would run them on the screens of the team."""
    people = [SmallPerson(HOSTILE, 3, margin=0.7), SmallPerson("Bo", 2, near=(HOSTILE, 0.6, MAYBE))]
    store, page = make(tmp_path / "out", people), tmp_path / "r.html"
    written(store, page)
    text = page.read_text()
    assert "alert(1)</script>" not in text and "<img src=x" not in text and "\u202e" not in text
    assert inside(page)["people"][0]["name"] == HOSTILE.replace(
        "\u202e", "\N{REPLACEMENT CHARACTER}"
    )
    policy = html.unescape(re.findall(r'Content-Security-Policy" content="(.*?)"', text)[0])
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy and "script-src 'sha256-" in policy
    title = write_page(store, load(store), HOSTILE, tmp_path).html.read_text()
    assert "alert(1)</script>" not in title and "&lt;/script&gt;" in title


def changed(store: Store, table: str, change: dict[str, dict[str, Any]], key: str) -> None:
    """Publish a snapshot with other values in some rows of a table."""
    snapshot, schema, entries = load(store), TABLES[table], []
    for entry in snapshot.shown(table):
        rows = [
            {**row, **change.get(row[key], {})}
            for row in read(store, schema, entry.file).to_pylist()
        ]
        fresh = seal_table(
            store, schema, entry.version, entry.bucket, entry.chunk, schema.build(rows)
        )
        entries.append(replace(entry, file=fresh.path, digest=fresh.digest, bytes=fresh.bytes))
    kept = [entry for entry in snapshot.entries if entry.table != table]
    publish(store, Snapshot(snapshot.number, tuple(sorted([*kept, *entries])), snapshot.notes))


def test_who_and_what_is_gone_or_barred_is_not_on_the_page(tmp_path: Path) -> None:
    store, page = make(tmp_path / "out"), tmp_path / "r.html"
    gone = {"status": "filtered", "reason": "gone"}
    changed(store, "identities", {identity_id("Cleo"): gone}, "identity_id")
    photo = image_id(identity_id("Ed"), "local:Ed/1.jpg")
    changed(store, "candidates", {photo: gone}, "image_id")
    key = key_of(store, make=True)
    assert key is not None
    hashes = {
        "name": [key.text("name", words("Hal"))],
        "address": [key.text("address", "local:Ed/2.jpg")],
    }
    barred = Receipt("r", "2026-01-02T03:04:05+00:00", hashes=hashes)
    store.put(barred.path, barred.encode())
    written(store, page, everybody=True)
    assert set(names(page)) == {"Ada", "Ben", "Dora", "Ed", "Fay", "Gil", "Ida"}
    text = page.read_text()
    for nobody in ("Cleo", "Hal", identity_id("Cleo"), identity_id("Hal"), photo, "Ed/2.jpg"):
        assert nobody not in text, nobody
    assert inside(page)["pairs"] == []
    assert len(inside(page, f"p-{identity_id('Ed')}")["faces"]) == 7


@pytest.mark.slow
def test_the_command_says_what_is_missing(tmp_path: Path) -> None:
    def said(*words: str) -> tuple[int, str]:
        answer = CliRunner().invoke(app, ["review", *words])
        return answer.exit_code, answer.output

    code, text = said(str(tmp_path / "nowhere"))
    assert code == 2 and "is no dataset" in text
    make_root(str(tmp_path / "empty"), "empty")
    code, text = said(str(tmp_path / "empty"))
    assert code == 1 and "no faces that were cleaned yet" in text
    make(tmp_path / "plain", [SmallPerson("Ada", 3)])
    code, text = said(str(tmp_path / "plain"), "-o", str(tmp_path / "r.html"))
    assert code == 0 and "nothing to review" in text and "--all" in text
    assert not (tmp_path / "r.html").exists()
    code, text = said(str(tmp_path / "plain"), "--all", "-o", str(tmp_path / "new" / "r.html"))
    assert code == 0 and text.splitlines()[-1] == str(tmp_path / "new" / "r.html")
    assert "1 person to look at, 0 of them doubtful; 3 faces" in text
    code, text = said(str(tmp_path / "plain"), "--all", "--where", "nam = 1")
    assert code == 2 and "--where" in text and "nam" in text


@pytest.mark.slow
def test_the_report_leads_to_the_page(tmp_path: Path) -> None:
    store = make(tmp_path / "out")
    write_report(store, tmp_path / "report.html", 0)
    assert "8 people are doubtful" in (tmp_path / "report.html").read_text()
    assert "idcluster review" in (tmp_path / "report.html").read_text()
    answer = CliRunner().invoke(
        app, ["report", store.root, "-o", str(tmp_path / "new" / "a.html"), "--review"]
    )
    assert answer.exit_code == 0, answer.output
    links = re.findall(r'href="([^"#:]+)"', (tmp_path / "new" / "a.html").read_text())
    assert links == ["a-review.html"]
    assert names(tmp_path / "new" / "a-review.html") == ORDER


# In a browser


@pytest.fixture
def sitting(tmp_path: Path) -> Iterator[tuple[Store, Path, Browser]]:
    """A dataset, its page, and a browser that has it open."""
    store, page = make(tmp_path / "out"), tmp_path / "review.html"
    written(store, page)
    with Browser(tmp_path / "profile") as browser:
        browser.downloads_to(tmp_path)
        browser.open(page.as_uri())
        yield store, page, browser
        assert browser.console == []
        assert not [
            address for address in browser.requests if address.startswith(("http:", "https:"))
        ]


def text(browser: Browser, part: str) -> str:
    return str(browser.value(f"document.getElementById('{part}').textContent"))


def faces(browser: Browser) -> list[str]:
    """What stands under every face."""
    found = browser.value("[...document.querySelectorAll('.face .told')].map(one => one.innerText)")
    return list(found)


def saved(browser: Browser, folder: Path) -> list[Decision]:
    (folder / "decisions.csv").unlink(missing_ok=True)
    browser.type("d")
    browser.await_download()
    return read_csv(folder / "decisions.csv")


@pytest.mark.slow
def test_a_sitting_by_keyboard_alone(sitting: tuple[Store, Path, Browser], tmp_path: Path) -> None:
    store, page, browser = sitting
    assert text(browser, "name").startswith("Gil") and "0 of 8 decided" in text(browser, "count")
    browser.press("Enter", 13)
    assert text(browser, "name").startswith("Hal") and "1 of 8 decided" in text(browser, "count")
    # The other cluster is Hal: keep it, reject the largest but for one face.
    browser.type("R]K")
    assert [line.split("\n")[0] for line in faces(browser)] == ["✗ rejected"] * 4 + ["✓ kept"] * 4
    browser.type("[")
    browser.press("ArrowRight", 39)
    browser.type("c")
    assert faces(browser)[1].startswith("✓ kept")
    browser.press("Enter", 13)
    # Of Ida one stranger is kept, which is taken back; another is rejected.
    browser.press("End", 35)
    browser.type("kuh")
    browser.type("r")
    assert "face 8 of 9: reject" in text(browser, "said")
    browser.press("Enter", 13)
    browser.open(page.as_uri())
    assert "3 of 8 decided" in text(browser, "count")
    assert text(browser, "name").startswith("Ed")
    browser.press("/", 191)
    browser.command("Input.insertText", text="cleo")
    browser.press("Enter", 13)
    browser.press("Escape", 27)
    browser.type("m")
    assert "is the same person as Dora" in text(browser, "said")
    assert "5 of 8 decided" in text(browser, "count")  # an answer is about both
    browser.type("n")
    pressed = "document.querySelector('[data-answer=merge]').getAttribute('aria-pressed')"
    assert text(browser, "name").startswith("Dora") and browser.value(pressed) == "true"
    browser.type("s")
    found = saved(browser, tmp_path)
    hal = [face_of("Hal", number) for number in range(8)]
    pair = inside(page)["pairs"][0]
    assert set(found) == {
        *[Decision("reject", hal[number]) for number in range(4)],
        *[Decision("keep", hal[number]) for number in range(4, 8)],
        *[Decision("reject", found[-2].subject)],
        Decision("apart", pair["one"], pair["other"]),
    } - {found_as_cleaned(browser, hal)}
    answer = CliRunner().invoke(
        app, ["correct", store.root, "--csv", str(tmp_path / "decisions.csv")]
    )
    assert answer.exit_code == 0, answer.output
    assert overrides(store) == {(one.action, one.subject, one.target) for one in found}
    # A page made anew knows what was written down, and asks for it no more.
    written(store, page)
    browser.open(page.as_uri())
    browser.type("d")
    assert "no decisions to download" in text(browser, "said")
    assert "5 of 8 decided" in text(browser, "count")


def found_as_cleaned(browser: Browser, hal: list[str]) -> Decision:
    """Of the faces of Hal's first cluster the second that is drawn."""
    expression = "JSON.parse(document.getElementById('p-{}').textContent).faces[1].id"
    drawn = browser.value(expression.format(identity_id("Hal")))
    assert drawn in hal[:4]
    return Decision("reject", str(drawn))


@pytest.mark.slow
def test_earlier_decisions_are_shown_and_taken_back(tmp_path: Path) -> None:
    store, page = make(tmp_path / "out"), tmp_path / "r.html"
    made = [Decision("reject", face_of("Ed", 0)), Decision("merge", "Cleo", "Dora")]
    correct(store, made, "test")
    written(store, page, where="name = 'Ed' or name = 'Cleo'")
    with Browser(tmp_path / "profile") as browser:
        browser.downloads_to(tmp_path)
        browser.open(page.as_uri())
        assert text(browser, "state") == "✓ decided earlier"
        assert sum("rejected\n" in line and "by hand" in line for line in faces(browser)) == 1
        browser.type("C")
        assert not any("by hand" in line for line in faces(browser))
        browser.type("na")
        found = saved(browser, tmp_path)
        assert browser.console == []
    assert found == [Decision("clear", face_of("Ed", 0)), Decision("clear", identity_id("Cleo"))]
    correct(store, found, "test")
    assert overrides(store) == set()


@pytest.mark.slow
def test_faces_that_are_not_drawn_are_decided_with_their_cluster(tmp_path: Path) -> None:
    store, page = make(tmp_path / "out"), tmp_path / "r.html"
    written(store, page, Room(faces=4), where="name = 'Ed'")
    with Browser(tmp_path / "profile") as browser:
        browser.downloads_to(tmp_path)
        browser.open(page.as_uri())
        assert len(faces(browser)) == 4 and "2 of 5 faces drawn" in text(browser, "person")
        browser.press("R", 82)  # caps lock is no Shift
        assert sum("by hand" in line for line in faces(browser)) == 1
        browser.type("R")
        found = saved(browser, tmp_path)
    assert set(found) == {Decision("reject", face_of("Ed", number)) for number in range(5)}


def test_the_photograph_and_the_keys_open_and_close_by_keyboard(
    sitting: tuple[Store, Path, Browser],
) -> None:
    _, _, browser = sitting
    browser.type("z")
    assert browser.value("document.getElementById('photo').open") is True
    assert browser.value("document.querySelector('#picture .box') !== null") is True
    before = text(browser, "photo-title")
    browser.press("ArrowRight", 39)
    browser.type("k")
    assert text(browser, "photo-title") != before
    assert text(browser, "photo-title").endswith("kept by hand")
    browser.press("Escape", 27)
    assert browser.value("document.getElementById('photo').open") is False
    browser.press("?", 191)
    assert "keep, reject this face" in text(browser, "help")
    browser.press("R", 82)  # nothing is decided behind the list
    browser.press("?", 191)
    assert sum("by hand" in line for line in faces(browser)) == 1
    assert browser.value("document.activeElement.classList.contains('face')") is True
    width = "parseFloat(getComputedStyle(document.activeElement).outlineWidth)"
    assert browser.value(width) >= 2


@pytest.mark.slow
def test_a_photograph_that_is_not_in_the_page_is_named(tmp_path: Path) -> None:
    store, page = make(tmp_path / "out"), tmp_path / "r.html"
    photo = image_id(identity_id("Ed"), "local:Ed/0.jpg")
    sly = image_id(identity_id("Ed"), "local:Ed/1.jpg")
    changed(
        store,
        "candidates",
        {photo: {"address": "https://example.org/a.jpg"}, sly: {"address": "javascript:alert(1)"}},
        "image_id",
    )
    written(store, page, Room(photo_megabytes=0), where="name = 'Ed'")
    with Browser(tmp_path / "profile") as browser:
        browser.open(page.as_uri())
        links = []
        for _ in range(9):
            browser.type("z")
            assert "not in this page" in text(browser, "photo-text")
            links += browser.value("[...document.querySelectorAll('#photo a')].map(a => a.href)")
            browser.type("zl")
        assert links == ["https://example.org/a.jpg"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (
            "Object.defineProperty(window, 'localStorage', {get() { throw new Error('no') }})",
            "keeps nothing",
        ),
        (
            "Storage.prototype.setItem = "
            "() => { throw new DOMException('', 'QuotaExceededError') }",
            "is full",
        ),
        ("Storage.prototype.getItem = () => '[1]'", "cannot be read"),
    ],
)
def test_storage_that_is_of_no_use_is_told(tmp_path: Path, broken: str, said: str) -> None:
    store, page = make(tmp_path / "out"), tmp_path / "r.html"
    written(store, page)
    with Browser(tmp_path / "profile") as browser:
        browser.downloads_to(tmp_path)
        browser.command("Page.addScriptToEvaluateOnNewDocument", source=broken)
        browser.open(page.as_uri())
        assert browser.value("document.getElementById('warning').hidden") is False
        assert said in text(browser, "warning")
        browser.type("r")
        assert len(saved(browser, tmp_path)) == 1
        assert browser.console == []


def test_what_another_tab_decides_is_not_lost(sitting: tuple[Store, Path, Browser]) -> None:
    _, page, browser = sitting
    key = f"idcluster-review-{inside(page)['key']}"
    other = {"decisions": {identity_id("Hal"): {"f": {face_of("Hal", 0): "reject"}, "done": 1}}}
    event = {"key": key, "newValue": json.dumps(other)}
    browser.value(f"dispatchEvent(new StorageEvent('storage', {json.dumps(event)})), 0")
    assert "1 of 8 decided" in text(browser, "count")
    browser.type("r")
    kept = json.loads(str(browser.value(f"localStorage.getItem({json.dumps(key)})")))["decisions"]
    assert set(kept) == {identity_id("Hal"), identity_id("Gil")}


@pytest.mark.slow
def test_hostile_names_are_shown_as_they_are(tmp_path: Path) -> None:
    store, page = make(tmp_path / "out", [SmallPerson(HOSTILE, 3, margin=0.7)]), tmp_path / "r.html"
    written(store, page)
    with Browser(tmp_path / "profile") as browser:
        browser.open(page.as_uri())
        assert text(browser, "name").startswith("</script><script>alert(1)</script>")
        assert browser.value("document.querySelectorAll('#person script').length") == 0
        assert browser.console == []


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
def test_a_narrow_screen_has_nothing_beside_it_and_can_be_read(tmp_path: Path, dark: bool) -> None:
    store, page = make(tmp_path / "out"), tmp_path / "r.html"
    written(store, page)
    with Browser(tmp_path / "profile", 360, 740, dark) as browser:
        browser.open(page.as_uri())
        for _ in ORDER:
            assert browser.value("document.documentElement.scrollWidth") <= 360
            browser.type("n")
        browser.type("z")
        assert browser.value("document.getElementById('photo').scrollWidth") <= 360
        paper, ink = browser.value(
            "[getComputedStyle(document.body).backgroundColor, "
            "getComputedStyle(document.body).color]"
        )
        shades = [
            sum(int(part) for part in re.findall(r"\d+", colour)[:3]) / 3 for colour in (paper, ink)
        ]
        assert shades[0] < 60 < 200 < shades[1] if dark else shades[1] < 60 < 230 < shades[0]


def test_every_button_is_reached_by_tab(sitting: tuple[Store, Path, Browser]) -> None:
    _, _, browser = sitting
    browser.value("document.activeElement.blur()")
    wanted = browser.value(
        "[...document.querySelectorAll('button, input')].filter(one => one.tabIndex >= 0 && "
        "one.checkVisibility()).length"
    )
    seen = "(window.seen ??= new Set()).add(document.activeElement).size"
    for _ in range(wanted + 4):
        browser.press("Tab", 9)
        reached = browser.value(seen)
    assert reached >= wanted > 10


@pytest.mark.slow
def test_a_thousand_people(tmp_path: Path) -> None:
    kinds: list[dict[str, Any]] = [
        {"flags": ("near_tie",), "others": 2},
        {"flags": ("second_cluster",), "others": 1},
        {},
        {"shared": 1},
    ]
    crowd = [
        SmallPerson(f"P{number:04d}", 3, margin=0.1 + number / 2000, **kinds[number % 4])
        for number in range(1000)
    ]
    store, page = make_root(str(tmp_path / "out"), "crowd"), tmp_path / "r.html"
    small_root(store, crowd, people_per_chunk=50, chunks_per_bucket=5)
    made = written(store, page, everybody=True)
    assert (made.people, made.left_out) == (1000, 0)
    order = names(page)
    margins = {person.name: person.margin or 0.0 for person in crowd}
    ties, seconds = order[:250], order[250:500]
    assert all(int(name[1:]) % 4 == 0 for name in ties)
    assert all(int(name[1:]) % 4 == 1 for name in seconds)
    assert [margins[name] for name in ties] == sorted((margins[n] for n in ties), reverse=True)
    with Browser(tmp_path / "profile") as browser:
        browser.open(page.as_uri())
        assert text(browser, "where") == "person 1 of 1000"
        assert browser.value("document.querySelectorAll('.face').length") == 5
        browser.press("/", 191)
        browser.command("Input.insertText", text="p0777")
        browser.press("Enter", 13)
        browser.press("Escape", 27)
        assert text(browser, "name").startswith("P0777")
        assert browser.value("document.querySelectorAll('.face').length") == 4
        browser.type("r")
        browser.press("Enter", 13)
        assert "1 of 1000 decided" in text(browser, "count")
        assert browser.console == []
