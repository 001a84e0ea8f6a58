"""The report: what is on the page, what must never be on it, and that a browser shows it without a
script or a request.
"""

import base64
import html
import io
import json
import re
import warnings
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from idcluster.root.dataset_root import make_root
from idcluster.root.parquet import read, seal_table
from idcluster.root.removals import Receipt, key_of, words
from idcluster.root.snapshot import Snapshot, load, publish
from idcluster.root.storage import Store
from pipeline.cli import app
from pipeline.report.dataset_page import write_report
from pipeline.report.plots import KEPT, bars, heat, histogram, layered
from schemas import TABLES
from tests.pipeline.browser import Browser
from tests.pipeline.small_root import SmallPerson, small_root

HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(2)>\" onload='x' $\\frac{1}{0}$ "
    "\u202egnp.exe"
)
# fmt: off
PEOPLE = [
    SmallPerson("Ada Lovelace", 5, rejected=2, faceless=1), SmallPerson(HOSTILE, 4, rejected=1,
        caption=HOSTILE),
    SmallPerson("Zoë", 0, faceless=3),
]
# fmt: on


def make(folder: Path, people: list[SmallPerson] = PEOPLE, name: str = "small") -> Store:
    store = make_root(str(folder), name)
    small_root(store, people)
    record = {
        "run_id": "r1",
        "started": "2026-01-02T03:04:05+00:00",
        "status": "failed",
        "seconds": 7.5,
        "error": HOSTILE,
    }
    stages = {
        "detect": {"rows": 70, "seconds": 3.5, "units": 60, "failed": 1},
        "crawl": {"rows": 0, "seconds": 0.0},
    }
    store.put("runs/r1.json", json.dumps({**record, "stages": stages}).encode())
    return store


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    make(folder / "out", name=HOSTILE)
    path = folder / "report.html"
    write_report(Store(folder / "out"), path, 12)
    return path


def section(text: str, title: str) -> str:
    return text.split(f"<h2>{title}</h2>")[1].split("<h2>")[0]


def test_what_is_on_the_page(page: Path) -> None:
    text = page.read_text()
    facts = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", text))
    assert facts == {
        "people": "3",
        "people with a kept face": "2",
        "images offered": "16",
        "faces kept": "9",
        "samples in shards": "0",
    }
    assert "no face" in section(text, "Funnel")
    assert "5 to below 6 kept faces: 1 person" in section(text, "People")
    assert "CC0: 9 of 16" in section(text, "Pictures")
    assert "kept: 9 faces from 0.74 to 0.76" in section(text, "Who is who")
    assert "stage screen did not run" in section(text, "Who is who")
    heads = section(text, "Heads and expressions")
    assert "9 faces over yaw and pitch" in heads and "stage affect did not run" in heads
    assert "captions of 6 to" in section(text, "Captions")
    assert "Every image could be had and read." in section(text, "Failures")
    assert "detect: 20 rows a second" in section(text, "Speed and runs")
    people = section(text, "Sample people")
    assert people.count("<article") == 2
    assert "5 kept, 2 rejected" in people and "4 kept, 1 rejected" in people
    assert [people.count(f"<li class={word}>") for word in ("kept", "rejected")] == [9, 3]


def test_sample_faces_are_those_of_the_pictures(page: Path) -> None:
    """The crop of a generated image has its one colour."""
    people = section(page.read_text(), "Sample people")
    found = re.findall(r'src="data:image/jpeg;base64,(.*?)" alt="(.*?)"', people)
    assert len(found) == 12
    for data, alt in found:
        rgb = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))
        assert np.ptp(rgb.reshape(-1, 3).astype(int), axis=0).max() < 8, alt


def test_links_to_records_lead_there(page: Path) -> None:
    links = re.findall(r'href="([^"#:]+)"', page.read_text())
    assert [json.loads((page.parent / link).read_text())["run_id"] for link in links] == ["r1"]


def test_names_captions_and_errors_are_text(page: Path) -> None:
    """They come from strangers; a page that ran them would run them on the screens of the team."""
    text = page.read_text()
    assert html.escape("<script>alert(1)</script>") in section(text, "Sample people")
    assert "<script" not in text and "onerror=alert(2)>" not in text.replace("&gt;", "")
    assert "\u202e" not in text
    assert re.search(r"<title>&lt;script&gt;", text)
    plots = [
        base64.b64decode(data).decode()
        for data in re.findall(r"data:image/svg\+xml;base64,([^\"]+)", text)
    ]
    assert plots and not any("<script" in plot for plot in plots)
    policy = html.unescape(re.findall(r'Content-Security-Policy" content="(.*?)"', text)[0])
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")


@pytest.mark.slow
def test_the_same_dataset_gives_the_same_page(page: Path, tmp_path: Path) -> None:
    again = tmp_path / page.parent.name / "report.html"
    write_report(Store(page.parent / "out"), again, 12)
    unlinked = [re.sub(r'href="[^"]*runs/', 'href="', one.read_text()) for one in (page, again)]
    assert unlinked[0] == unlinked[1]


@pytest.mark.slow
def test_who_is_gone_or_barred_is_not_shown(tmp_path: Path) -> None:
    store = make(tmp_path / "out")
    snapshot = load(store)
    entry = snapshot.shown("identities")[0]
    schema = TABLES["identities"]
    rows = read(store, schema, entry.file).to_pylist()
    changed = [
        {**row, "status": "filtered", "reason": "gone"} if row["name"] == "Ada Lovelace" else row
        for row in rows
    ]
    fresh = seal_table(
        store, schema, entry.version, entry.bucket, entry.chunk, schema.build(changed)
    )
    changed_entry = replace(entry, file=fresh.path, digest=fresh.digest, bytes=fresh.bytes)
    entries = tuple(sorted(changed_entry if e is entry else e for e in snapshot.entries))
    publish(store, Snapshot(snapshot.number, entries, snapshot.notes))
    made = write_report(store, tmp_path / "r.html", 12)
    assert made.samples == 1
    assert "Ada Lovelace" not in (tmp_path / "r.html").read_text()
    key = key_of(store, make=True)
    assert key is not None
    barred = Receipt(
        "r", "2026-01-02T03:04:05+00:00", hashes={"name": [key.text("name", words(HOSTILE))]}
    )
    store.put(barred.path, barred.encode())
    assert write_report(store, tmp_path / "r.html", 12).samples == 0
    write_report(store, tmp_path / "none.html", 0)
    assert "none were asked for" in (tmp_path / "none.html").read_text()


def test_an_empty_dataset_and_the_command(tmp_path: Path) -> None:
    make_root(str(tmp_path / "out"), "nothing yet")
    answer = CliRunner().invoke(
        app, ["report", str(tmp_path / "out"), "--output", str(tmp_path / "new" / "r.html")]
    )
    assert answer.exit_code == 0, answer.output
    assert answer.output.splitlines()[-1] == str(tmp_path / "new" / "r.html")
    text = (tmp_path / "new" / "r.html").read_text()
    assert text.count("did not run") >= 3 and "<dd>0</dd>" in text
    missing = CliRunner().invoke(app, ["report", str(tmp_path / "elsewhere")])
    assert missing.exit_code == 2 and "is no dataset" in missing.output


@pytest.mark.slow
def test_a_dataset_in_an_object_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same numbers and images as from a disk; records there have no link, for nobody could
    open it.
    """
    pytest.importorskip("s3fs", reason="object stores need the group s3")
    from tests.pipeline.s3 import serving

    with serving() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        server.make_bucket("report")
        store = make_root("s3://report/out", "small")
        small_root(store, PEOPLE)
        store.put("runs/r1.json", b'{"run_id": "r1", "status": "done"}')
        made = write_report(store, tmp_path / "r.html", 12)
    assert (made.people, made.kept, made.samples) == (3, 9, 2)
    text = (tmp_path / "r.html").read_text()
    assert text.count("data:image/jpeg") == 12 and "of s3://report/out" in text
    assert "<td>r1</td>" in text and not re.findall(r'href="([^"#:]+)"', text)


def affect_rows(store: Store, valences: list[float]) -> None:
    snapshot = load(store)
    faces = [
        row
        for e in snapshot.shown("captions")
        for row in read(store, TABLES["captions"], e.file).to_pylist()
    ]
    schema = TABLES["affect"]
    ids = ("identity_id", "image_id", "face_id")
    rows = [
        {
            **{name: face[name] for name in ids},
            "valence": value,
            "arousal": -value,
            "emotions": [0.1, 0.9],
            "status": "ok",
            "inputs": bytes(8),
        }
        for face, value in zip(faces, valences, strict=False)
    ]
    made = seal_table(store, schema, "a", 0, 0, schema.build(rows)).entry(
        schema, "a", 0, 0, "basis"
    )
    publish(store, snapshot.with_entries([made]))


@pytest.mark.slow
def test_affect_is_drawn_where_there_is_some(tmp_path: Path) -> None:
    store = make(tmp_path / "out")
    affect_rows(store, [1.0, -1.0, 0.25, float("nan")])
    write_report(store, tmp_path / "r.html", 0)
    heads = section((tmp_path / "r.html").read_text(), "Heads and expressions")
    assert "3 faces over valence and arousal; 67% have a valence of 0 or more" in heads
    assert "class 1: 4" in heads


def test_a_plot_of_one_value_and_of_odd_ones_is_drawn() -> None:
    one = [{"from": 0.0, "to": None, "number": 3}]
    assert histogram(one, "x", "y").startswith("data:image/svg+xml;base64,")
    assert layered(
        [("kept", "#010205", [{"from": 0.0, "to": 0.02, "number": 1}])], "x", "y", log=True
    )


@pytest.mark.parametrize("counts", [[1], [1, 2], [3, 7], [20, 25], [1, 5000]], ids=str)
def test_numbers_at_a_logarithmic_axis_are_numbers(counts: list[int]) -> None:
    """Over less than a decade the small marks of an axis get numbers too, which matplotlib writes
    as formulas.
    """
    rows = [
        {"from": 0.5 + 0.02 * i, "to": 0.52 + 0.02 * i, "number": count}
        for i, count in enumerate(counts)
    ]
    plane = [{"x": 10.0 * i, "y": 0.0, "faces": count} for i, count in enumerate(counts)]
    drawn = [
        layered([("kept", KEPT, rows)], "cosine", "faces", log=True),
        histogram(rows, "x", "y", log=True),
        bars(["a", "b"][: len(counts)], counts, "rows a second", log=True),
        heat(plane, "x", "y", 10, "faces", ("x", "y")),
    ]
    for picture in drawn:
        svg = base64.b64decode(picture.partition(",")[2]).decode()
        words = [
            word
            for word in re.findall(r"<text[^>]*>([^<]*)</text>", svg)
            if word not in ("x", "y", "a", "b")
        ]
        assert all(re.fullmatch(r"[\d.,−]+[kMG]?|[a-z ]+", word) for word in words), words
        assert any(word[0].isdigit() for word in words)


def test_labels_of_plots_are_text_in_every_script() -> None:
    """Licences and hosts come from the web: neither formulas nor letters that matplotlib's font
    lacks may stop the report.
    """
    labels = ["$\\frac{1}{0", "$x_2$", "<script>alert(1)</script>", "图片 \u202e", "x" * 300]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = bars(labels, [1, 2, 3, 4, 5], "images")
    svg = base64.b64decode(drawn.split(",")[1]).decode()
    shown = [html.unescape(text) for text in re.findall(r"<text[^>]*>([^<]*)</text>", svg)]
    assert {labels[0], labels[1], labels[2], "图片 \N{REPLACEMENT CHARACTER}"} <= set(shown)
    assert "<script" not in svg and max(map(len, shown)) <= 30


# In a browser


FOCUSABLE = (
    "[...document.querySelectorAll('a[href], summary, [tabindex=\"0\"]')].filter(e => "
    "e.checkVisibility())"
)


@pytest.fixture(scope="module")
def wide(page: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("wide")) as browser:
        browser.open(page.as_uri())
        yield browser


def test_a_browser_shows_every_picture_and_complains_about_nothing(
    wide: Browser, page: Path
) -> None:
    assert wide.console == []
    assert [address for address in wide.requests if not address.startswith("data:")] == [
        page.as_uri()
    ]
    pictures = wide.value("[...document.images].map(image => [image.naturalWidth, image.alt])")
    assert len(pictures) > 20
    assert all(width > 0 and alt for width, alt in pictures)
    assert wide.value("document.scripts.length") == 0
    assert wide.value("document.title").startswith("<script>alert(1)")


def test_headings_go_down_one_by_one(wide: Browser) -> None:
    """Screen readers jump by them."""
    levels = wide.value("[...document.querySelectorAll('h1,h2,h3,h4')].map(h => +h.tagName[1])")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_the_keyboard_reaches_everything_and_shows_where_it_is(wide: Browser) -> None:
    wide.value("document.querySelectorAll('details').forEach(d => d.open = false), scrollTo(0, 0)")
    wanted = wide.value(f"{FOCUSABLE}.length")
    reached = 0
    for _ in range(wanted):
        wide.press("Tab", 9)
        reached += wide.value(f"{FOCUSABLE}.includes(document.activeElement)")
        assert wide.value("parseFloat(getComputedStyle(document.activeElement).outlineWidth)") >= 2
    assert reached == wanted > 10
    wide.value("document.querySelector('summary').focus()")
    wide.press("Enter", 13)
    assert wide.value("document.querySelector('details').open") is True
    assert wide.value("document.querySelector('details table').checkVisibility()") is True


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
def test_a_narrow_screen_has_nothing_beside_it_and_can_be_read(
    page: Path, tmp_path: Path, dark: bool
) -> None:
    with Browser(tmp_path, 360, 740, dark) as browser:
        browser.open(page.as_uri())
        browser.value("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert browser.value("document.documentElement.scrollWidth") <= 360
        paper, ink = browser.value(
            "[getComputedStyle(document.body).backgroundColor, "
            "getComputedStyle(document.body).color]"
        )
        shades = [
            sum(int(part) for part in re.findall(r"\d+", colour)[:3]) / 3 for colour in (paper, ink)
        ]
        assert (
            (shades[0] < 60 and shades[1] > 200) if dark else (shades[0] > 230 and shades[1] < 60)
        )
        browser.screenshot(tmp_path / "page.png")
        with Image.open(tmp_path / "page.png") as picture:
            assert picture.width == 360 < picture.height
