"""A crawl as a whole, against a real server: politely, once, without loss, whatever interrupts
it.
"""

import csv
import io
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from typer.testing import CliRunner

from idcluster.catalogue.connection import query
from idcluster.root import parquet
from idcluster.root.dataset_root import RunError, open_root
from idcluster.root.snapshot import load
from idcluster.root.spool import look, put, spool_path
from idcluster.root.storage import Store
from pipeline.cli import app
from pipeline.dag import load_dag
from pipeline.execution import crawl_rounds
from pipeline.execution.snapshot_tables import SnapshotTables
from pipeline.gc import collect
from pipeline.prepared_dag import Selection, prepare
from pipeline.record import Record
from schemas.fetched import Fetched
from stages.crawl.web.fetcher import WebFetcher
from tests.pipeline.drivers import Driver, starting
from tests.pipeline.in_process import run_here
from tests.stages.crawl.web.hostile import Answer, listening
from tests.stages.crawl.web.servers import PICTURE, Site, fixed, picture, serving

DAG = """
name: web
root: "{root}"
source: {{kind: urls, path: "{path}"}}
fetch:
  allow_hosts: ["*.test"]
  resolve: {{"*.test": 127.0.0.1}}
  attempts: 2
  politeness: {{rate: {rate}, concurrency: 4}}
stages:
  crawl: {{}}
"""


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(Site()) as found:
        yield found


@pytest.fixture
def starts() -> Iterator[Callable[..., Driver]]:
    with starting() as start:
        yield start


def listing(folder: Path, rows: list[tuple[str, str]]) -> Path:
    path = folder / "list.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "url", "license", "author", "page"])
        writer.writerows([*row, "CC0", "somebody", "http://page.test/"] for row in rows)
    return path


def dag_file(folder: Path, path: Path, rate: str = "null") -> Path:
    file = folder / "web.yaml"
    file.write_text(DAG.format(root=folder / "root", path=path, rate=rate))
    return file


def crawl(
    folder: Path, selection: Selection | None = None, sets: list[str] | None = None
) -> tuple[Record, str]:
    """One run without a cluster, and what it said."""
    said, chosen = io.StringIO(), selection or Selection()
    record = run_here(
        folder / "web.yaml",
        said,
        sets=sets or (),
        only=chosen.only,
        limit=chosen.limit,
        where=chosen.where,
        retry=chosen.retry,
    )
    return record, said.getvalue()


def ask(folder: Path, sql: str) -> list[dict[str, Any]]:
    return list(json.loads(query(open_root(str(folder / "root")), sql, "json") or "[]"))


def spooled(folder: Path) -> list[Path]:
    return list((folder / "root" / "parts" / "spool").rglob("*.spool"))


def test_every_address_gets_a_row_and_is_asked_for_once(site: Site, tmp_path: Path) -> None:
    site.robots["b.test"] = "User-agent: *\nDisallow: /"
    site.pages["/noai.jpg"] = fixed(PICTURE, X_Robots_Tag="noai")
    site.pages["/broken.jpg"] = fixed(PICTURE[:20])
    rows = [("Ada", site.address(f"/p/{n}.jpg")) for n in range(5)]
    rows += [("Ada", site.address("/p/0.jpg") + "#again"), ("Bob", site.address("/p/0.jpg"))]
    rows += [("Bob", site.address(path)) for path in ("/missing.jpg", "/noai.jpg", "/broken.jpg")]
    rows.append(("Bob", site.address("/p/9.jpg", "b.test")))
    dag_file(
        tmp_path, listing(tmp_path, [*rows, ("Bob", "ftp://a.test/x"), ("", "http://a.test/y")])
    )
    record, said = crawl(tmp_path)
    assert "1 address of" in said and "lacks a person" in said
    found = ask(
        tmp_path,
        "select i.status, i.reason, i.opt_out, c.licence from images i join candidates c using "
        "(image_id)",
    )
    outcomes = Counter(row["reason"] or row["status"] for row in found)
    assert outcomes == {"ok": 6, "http_404": 1, "opt_out": 1, "decode_error": 1, "robots": 1}
    assert {row["licence"] for row in found} == {"CC0"}
    refused = [row for row in found if row["reason"] in ("robots", "opt_out")]
    assert all(row["opt_out"] and row["status"] == "filtered" for row in refused)
    assert len(site.asked("/p/0.jpg")) == 1  # for two people
    assert not spooled(tmp_path)
    assert record.fetching["answers"] == 9
    before = len(site.log)
    again, said = crawl(tmp_path)
    assert len(site.log) == before
    assert again.snapshot == record.snapshot


TRAPS = {
    "location.test": {
        "location.test/0.jpg": Answer(
            b"HTTP/1.1 302 Found\r\nLocation: http://[\r\nContent-Length: 0\r\n\r\n"
        )
    },
    "deep.test": {
        "deep.test/.well-known/tdmrep.json": Answer(b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 200_000)
    },
    "stars.test": {
        "stars.test/.well-known/tdmrep.json": Answer(
            b'HTTP/1.1 200 OK\r\n\r\n[{"location": "%sb", "tdm-reservation": 1}]' % (b"*a" * 2000)
        ),
        "stars.test/0.jpg": Answer(
            b"HTTP/1.1 302 Found\r\nLocation: /"
            + b"a" * 4000
            + b".jpg\r\nContent-Length: 0\r\n\r\n"
        ),
    },
}
"""Hosts each of which ended or hung the crawl of all others."""


def test_one_bad_host_costs_its_own_rows(tmp_path: Path) -> None:
    with listening() as server:
        server.answers = {
            path: answer for answers in TRAPS.values() for path, answer in answers.items()
        }
        rows = [("Ada", f"http://{host}:{server.port}/0.jpg") for host in TRAPS]
        rows += [("Bob", f"http://good.test:{server.port}/{n}.jpg") for n in range(18)]
        dag_file(tmp_path, listing(tmp_path, rows))
        crawl(tmp_path)
    sql = "select c.address, i.reason from images i join candidates c using (image_id)"
    found = {
        row["address"].split("/")[2].split(":")[0]: row["reason"] for row in ask(tmp_path, sql)
    }
    assert found == {
        "location.test": "bad_redirect",
        "deep.test": "opt_out",
        "stars.test": None,
        "good.test": None,
    }
    assert len(ask(tmp_path, "select 1 from images where status = 'ok'")) == 19


def test_the_record_names_the_host_of_what_nobody_thought_of(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = WebFetcher._body

    async def broken(self: WebFetcher, response: Any) -> bytes:
        if response.url.host == "odd.test":
            raise ZeroDivisionError("unthought of")
        return await real(self, response)

    monkeypatch.setattr(WebFetcher, "_body", broken)
    rows = [
        ("Ada", site.address(f"/p/{n}.jpg", host))
        for n in range(3)
        for host in ("odd.test", "a.test")
    ]
    rows += [
        ("Bob", site.address("/missing.jpg", f"h{n}.test")) for n in range(30)
    ]  # as many hosts as fail in usual ways
    dag_file(tmp_path, listing(tmp_path, rows))
    record, said = crawl(tmp_path)
    assert record.fetching["unexpected"] == {
        f"odd.test:{site.port}": "ZeroDivisionError: unthought of"
    }
    assert "3 error" in said
    outcomes = Counter(row["reason"] for row in ask(tmp_path, "select reason from images"))
    assert outcomes == {"error": 3, None: 3, "http_404": 30}
    (file,) = (tmp_path / "root" / "runs").glob("*.json")
    assert json.loads(file.read_text())["fetching"]["unexpected"]


@pytest.mark.slow
def test_rules_that_cannot_be_had_for_now_are_asked_for_in_the_next_round(
    site: Site, tmp_path: Path
) -> None:
    """Two faults in a row cost all images of a host."""
    left = 3

    async def page(request: Any) -> web.Response:
        nonlocal left
        left -= 1
        return (
            web.Response(status=500)
            if left >= 0
            else web.Response(text="User-agent: *\nDisallow: /p/1.jpg")
        )

    site.pages["faltering.test/robots.txt"] = page
    rows = [("Ada", site.address(f"/p/{n}.jpg", "faltering.test")) for n in range(1, 9)]
    dag_file(tmp_path, listing(tmp_path, [*rows, ("Bob", site.address("/p/20.jpg"))]))
    record, _ = crawl(tmp_path)
    assert record.fetching["rounds"] == 2
    assert Counter(row["reason"] for row in ask(tmp_path, "select reason from images")) == {
        None: 8,
        "robots": 1,
    }


def test_a_host_that_refuses_for_ever_is_given_up_by_a_time_that_is_in_no_version(
    site: Site, tmp_path: Path
) -> None:
    site.pages["full.test/p/1.jpg"] = site.pages["full.test/p/2.jpg"] = fixed(
        status=429, Retry_After="3600"
    )
    rows = [("Ada", site.address(f"/p/{n}.jpg", "full.test")) for n in (1, 2)]
    dag_file(tmp_path, listing(tmp_path, [*rows, ("Bob", site.address("/p/3.jpg"))]))
    record, _ = crawl(tmp_path)
    assert Counter(row["reason"] for row in ask(tmp_path, "select reason from images")) <= Counter(
        {None: 1, "http_429": 2, "host_down": 1}
    )
    again, _ = crawl(tmp_path, sets=["fetch.politeness.refusal_seconds=5"])
    assert again.versions == record.versions
    assert again.snapshot == record.snapshot


def test_the_same_pictures_as_from_a_folder(site: Site, tmp_path: Path) -> None:
    people = tmp_path / "people"
    rows = []
    for n in range(12):
        file = people / f"P{n % 3}" / f"{n}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture(n))
        rows.append((f"P{n % 3}", site.address(f"/p/{n}.jpg", f"h{n % 4}.test")))
    dag_file(tmp_path, listing(tmp_path, rows))
    crawl(tmp_path)
    sql = (
        "select name, sha256, phash, format, width, height, size from images join identities "
        "using (identity_id) order by all"
    )
    from_web = ask(tmp_path, sql)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "web.yaml").write_text(
        f"name: folder\nroot: {tmp_path / 'other' / 'root'}\nsource: {{kind: folder, path: "
        f"{people}}}\nstages: {{crawl: {{}}}}\n"
    )
    crawl(tmp_path / "other")
    assert from_web == ask(tmp_path / "other", sql)
    assert len(from_web) == 12


@pytest.mark.slow
def test_real_photographs_over_several_hosts_are_those_of_the_folder(
    site: Site, tmp_path: Path, photos: Path
) -> None:
    rows = []
    for n, file in enumerate(sorted(photos.glob("*/*"))):
        site.pages[f"/{n}"] = fixed(file.read_bytes())
        rows.append((file.parent.name, site.address(f"/{n}", f"h{n % 7}.test")))
    dag_file(tmp_path, listing(tmp_path, rows))
    crawl(tmp_path)
    sql = (
        "select name, sha256, phash, format, width, height, orientation, size, images.status, "
        "images.reason from images"
    )
    sql += " join identities using (identity_id) order by all"
    from_web = ask(tmp_path, sql)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "web.yaml").write_text(
        f"name: folder\nroot: {tmp_path / 'other' / 'root'}\nsource: {{kind: folder, path: "
        f"{photos}}}\nstages: {{crawl: {{}}}}\n"
    )
    crawl(tmp_path / "other")
    assert len(from_web) == len(rows) > 100
    assert from_web == ask(tmp_path / "other", sql)


@pytest.mark.slow
def test_failures_are_asked_for_again_when_told_and_by_reason_alone(
    site: Site, tmp_path: Path
) -> None:
    site.pages["/x.jpg"] = fixed(status=500)
    site.pages["/y.jpg"] = fixed(status=404)
    dag_file(
        tmp_path,
        listing(
            tmp_path, [("Ada", site.address(path)) for path in ("/x.jpg", "/y.jpg", "/p/1.jpg")]
        ),
    )
    crawl(tmp_path)
    site.pages["/x.jpg"] = site.pages["/y.jpg"] = fixed(PICTURE)
    before = Counter(path for _, _, path in site.log)
    crawl(tmp_path)
    crawl(tmp_path, Selection(retry="reason = 'http_5xx'"))
    asked = Counter(path for _, _, path in site.log) - before
    assert {path for path in asked if not path.startswith(("/robots", "/.well"))} == {"/x.jpg"}
    assert {row["reason"] for row in ask(tmp_path, "select reason from images")} == {
        None,
        "http_404",
    }


def test_refusals_are_believed_until_they_are_old(site: Site, tmp_path: Path) -> None:
    site.robots["a.test"] = "User-agent: *\nDisallow: /"
    dag_file(tmp_path, listing(tmp_path, [("Ada", site.address("/p/1.jpg"))]))
    crawl(tmp_path)
    site.robots["a.test"] = ""
    before = len(site.log)
    crawl(tmp_path)
    assert len(site.log) == before
    time.sleep(0.01)
    crawl(tmp_path, sets=["fetch.opt_out_days=0.0000001"])
    assert [row["status"] for row in ask(tmp_path, "select status from images")] == ["ok"]


def test_old_refusals_in_finished_buckets_are_found_without_opening_every_file(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A root of a million images would be read through before a run that has nothing to do."""
    monkeypatch.setattr("pipeline.execution.intake.BUCKET_ROWS", 22)
    monkeypatch.setattr("pipeline.execution.intake.CHUNK_ROWS", 4)
    site.robots["no.test"] = "User-agent: *\nDisallow: /"
    site.pages["/missing.jpg"] = fixed(status=404)
    rows = [
        (f"P{n // 10}", site.address(f"/p/{n}.jpg", "no.test" if n in (13, 37) else "a.test"))
        for n in range(60)
    ]
    dag_file(
        tmp_path,
        listing(
            tmp_path,
            [*rows, ("P1", site.address("/missing.jpg")), ("P5", site.address("/missing.jpg"))],
        ),
    )
    crawl(tmp_path)
    store = open_root(str(tmp_path / "root"))
    prepared = prepare(load_dag(tmp_path / "web.yaml"), None)
    snapshot = load(store)
    assert len(snapshot.shown("images_light")) >= 2
    opened: list[str] = []
    real = parquet.read

    def counting(store: Store, schema: Any, place: str, *rest: Any) -> Any:
        opened.append(place)
        return real(store, schema, place, *rest)

    monkeypatch.setattr(crawl_rounds, "read", counting)
    view = SnapshotTables(store, snapshot, prepared.versions)
    now = time.time_ns() // 1000
    assert (
        list(crawl_rounds.missing(view, prepared.stages[0], set(), None, now - 3_600_000_000)) == []
    )
    assert opened and all("images_light" in place for place in opened)
    found = list(crawl_rounds.missing(view, prepared.stages[0], set(), None, now + 1))
    addresses = {address for one in found for address in one.addresses.values()}
    assert addresses == {site.address(f"/p/{n}.jpg", "no.test") for n in (13, 37)}
    assert {image for one in found for image in one.again} == {
        image for one in found for image in one.addresses
    }


@pytest.mark.slow
def test_a_slow_host_holds_up_nobody_and_is_finished_in_the_same_run(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.execution.crawl_rounds.PATIENCE", (0.3, 5.0, 5.0))
    site.robots["slow.test"] = "User-agent: *\nCrawl-delay: 1"
    rows = [("Ada", site.address(f"/p/{n}.jpg", "slow.test")) for n in range(3)]
    rows += [("Bob", site.address(f"/p/{n}.jpg", "a.test")) for n in range(10, 20)]
    dag_file(tmp_path, listing(tmp_path, rows))
    record, said = crawl(tmp_path)
    assert record.fetching["rounds"] >= 2
    assert "put off" in said
    assert [row["status"] for row in ask(tmp_path, "select status from images")] == ["ok"] * 13
    times = site.asked(host="slow.test")
    assert all(b - a > 0.95 for a, b in pairwise(times))


@pytest.mark.slow
def test_a_host_without_room_to_the_end_gets_rows_that_say_so(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.execution.crawl_rounds.PATIENCE", (0.1, 0.1, 0.1))
    site.robots["slow.test"] = "User-agent: *\nCrawl-delay: 50"
    dag_file(
        tmp_path,
        listing(tmp_path, [("Ada", site.address(f"/p/{n}.jpg", "slow.test")) for n in range(3)]),
    )
    crawl(tmp_path)
    found = Counter(row["reason"] for row in ask(tmp_path, "select reason from images"))
    assert found["host_busy"] >= 2
    assert sum(found.values()) == 3


def test_limit_and_where_keep_the_rest_for_later(site: Site, tmp_path: Path) -> None:
    dag_file(
        tmp_path,
        listing(
            tmp_path,
            [(name, site.address(f"/p/{n}.jpg")) for name in ("Ada", "Bob") for n in range(6)],
        ),
    )
    crawl(tmp_path, Selection(limit=4))
    assert len(site.asked()) == 4
    assert len(ask(tmp_path, "select 1 from images")) == 4
    crawl(tmp_path, Selection(where="name = 'Bob'"))
    crawl(tmp_path)
    assert len(ask(tmp_path, "select 1 from images where status = 'ok'")) == 12
    assert Counter(path for _, _, path in site.log)["/p/5.jpg"] <= 2


def broken_off(
    site: Site, folder: Path, monkeypatch: pytest.MonkeyPatch, sets: list[str] | None = None
) -> None:
    """A run that ends when all is fetched and nothing is in the tables."""

    def die(*_: object) -> None:
        raise RuntimeError("killed here")

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.phase.Phase.run", die)
        with pytest.raises(RuntimeError, match="killed here"):
            crawl(folder, sets=sets)


def test_garbage_collection_leaves_what_a_killed_crawl_has_fetched(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dag_file(tmp_path, listing(tmp_path, [("Ada", site.address(f"/p/{n}.jpg")) for n in range(5)]))
    broken_off(site, tmp_path, monkeypatch)
    store = open_root(str(tmp_path / "root"))
    before, asked = spooled(tmp_path), len(site.log)
    assert before
    assert not [path for path in collect(store, 1, "gc", dry=True).files if path.endswith(".spool")]
    collect(store, 1, "gc", current_only=True)
    assert spooled(tmp_path) == before
    crawl(tmp_path)
    assert len(site.log) == asked
    assert len(ask(tmp_path, "select 1 from images where status = 'ok'")) == 5


def test_garbage_collection_leaves_what_was_fetched_for_rows_that_are_to_be_replaced(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dag_file(tmp_path, listing(tmp_path, [("Ada", site.address("/p/1.jpg"))]))
    crawl(tmp_path)
    changed = ["stages.crawl.params.max_pixels=1000000"]
    monkeypatch.setattr(
        "pipeline.run.new_run_id",
        lambda: f"{datetime.now(UTC) + timedelta(seconds=2):%Y%m%dT%H%M%S}-aaaa",
    )
    broken_off(site, tmp_path, monkeypatch, changed)
    asked = len(site.asked())
    assert asked == 2
    collect(open_root(str(tmp_path / "root")), 1, "gc")
    assert spooled(tmp_path)
    crawl(tmp_path, sets=changed)
    assert len(site.asked()) == asked


def test_garbage_collection_takes_answers_that_nobody_waits_for(site: Site, tmp_path: Path) -> None:
    """Spools of lists that were changed, and torn files, would lie there for ever."""
    dag_file(tmp_path, listing(tmp_path, [("Ada", site.address(f"/p/{n}.jpg")) for n in range(3)]))
    crawl(tmp_path)
    store = open_root(str(tmp_path / "root"))
    answer = Fetched(picture(1), fetched_at=1)
    put(
        store, spool_path("20200101T000000-aaaa", "b", 0), [(site.address("/p/1.jpg"), answer)]
    )  # older than the row
    put(
        store, spool_path("20990101T000000-bbbb", "b", 0), [("http://nobody.test/x.jpg", answer)]
    )  # of no candidate
    store.put(spool_path("20990101T000000-cccc", "b", 0), b"torn", durable=False)
    dry = collect(store, 1, "gc", dry=True)
    assert sum(path.endswith(".spool") for path in dry.files) == 3
    assert len(spooled(tmp_path)) == 3
    collect(store, 1, "gc")
    assert not spooled(tmp_path)


def test_nobody_is_crawled_without_saying_for_whom(site: Site, tmp_path: Path) -> None:
    dag_file(tmp_path, listing(tmp_path, [("Ada", "https://images.example.com/a.jpg")]))
    with pytest.raises(RunError, match=r"images\.example\.com.*fetch\.contact"):
        crawl(tmp_path)


def test_a_plan_asks_nobody(site: Site, tmp_path: Path) -> None:
    file = dag_file(
        tmp_path, listing(tmp_path, [("Ada", site.address(f"/p/{n}.jpg")) for n in range(3)])
    )
    result = CliRunner().invoke(app, ["plan", str(file)])
    assert result.exit_code == 0, result.output
    assert "3 new" in result.output
    assert not site.log


@pytest.mark.ray
@pytest.mark.slow
def test_a_killed_crawl_asks_for_nothing_again_that_was_put_down(
    site: Site, tmp_path: Path, starts: Callable[..., Driver]
) -> None:
    count = 300
    file = dag_file(
        tmp_path,
        listing(
            tmp_path,
            [(f"P{n % 7}", site.address(f"/p/{n}.jpg", f"h{n % 5}.test")) for n in range(count)],
        ),
        "12",
    )
    driver = starts("pipeline.cli", "run", str(file))
    driver.when(lambda: len(spooled(tmp_path)) >= 3)
    for child in driver.workers():
        child.kill()
    driver.kill()
    put_down = _addresses(tmp_path)
    assert put_down
    before = len(site.log)
    starts("pipeline.cli", "run", str(file)).succeed()
    later = {f"http://{host}:{site.port}{path}" for _, host, path in site.log[before:]}
    assert not later & put_down
    assert len(ask(tmp_path, "select 1 from images where status = 'ok'")) == count
    assert not spooled(tmp_path)


@pytest.mark.ray
@pytest.mark.slow
def test_limits_hold_across_workers_by_the_servers_own_log(
    site: Site, tmp_path: Path, starts: Callable[..., Driver]
) -> None:
    # 1,500 addresses make six blocks, which go to two workers.
    rows = [(f"P{n % 9}", site.address(f"/p/{n}.jpg", f"h{n % 50}.test")) for n in range(1500)]
    file = dag_file(tmp_path, listing(tmp_path, rows), "5")
    starts("pipeline.cli", "run", str(file)).succeed()
    for number in range(50):
        times = [at for at, host, _ in site.log if host == f"h{number}.test"]
        assert len(times) == 32  # two of them for the rules of the site
        # 31 gaps of a fifth of a second; were the limit each worker's own, it would be half of
        # that. A busy machine shifts ends.
        assert times[-1] - times[0] > 0.75 * 31 / 5
        assert (
            len(
                [
                    path
                    for _, host, path in site.log
                    if host == f"h{number}.test" and path == "/robots.txt"
                ]
            )
            == 1
        )
    assert len(ask(tmp_path, "select 1 from images where status = 'ok'")) == 1500


@pytest.mark.ray
@pytest.mark.slow
def test_ctrl_c_keeps_what_was_fetched(
    site: Site, tmp_path: Path, starts: Callable[..., Driver]
) -> None:
    file = dag_file(
        tmp_path,
        listing(tmp_path, [("Ada", site.address(f"/p/{n}.jpg")) for n in range(200)]),
        "10",
    )
    driver = starts("pipeline.cli", "run", str(file))
    driver.when(lambda: len(site.asked()) > 20)
    driver.process.send_signal(2)
    code, output = driver.finish()
    assert code == 130, output
    asked = Counter(path for _, _, path in site.log)
    starts("pipeline.cli", "run", str(file), "--set", "fetch.politeness.rate=null").succeed()
    again = Counter(path for _, _, path in site.log) - asked
    assert all(asked[path] + again[path] == 1 for path in (f"/p/{n}.jpg" for n in range(200)))


def _addresses(folder: Path) -> set[str]:
    return set(look(open_root(str(folder / "root"))).places)
