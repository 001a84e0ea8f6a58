"""Each kind of source as a DAG names it, from the file to rows of images."""

import csv
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from idcluster.catalogue.connection import query
from idcluster.root.dataset_root import open_root
from pipeline.cli import app
from pipeline.dag import load_dag
from tests.pipeline.in_process import run_here
from tests.stages.crawl.web.servers import Site, fixed, picture, serving
from tests.stages.crawl.wiki import Openverse, Wiki, item, result

FETCH = (
    'fetch: {contact: "mailto:me@example.org", allow_hosts: ["*.test"], resolve: {"*.test": '
    "127.0.0.1}, politeness: {rate: null}}\n"
)


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(Site()) as found:
        yield found


def dag(folder: Path, source: str, fetch: str = "") -> Path:
    file = folder / "dag.yaml"
    file.write_text(
        f"name: x\nroot: {folder / 'root'}\nsource: {source}\n{fetch}stages: {{crawl: {{}}}}\n",
        encoding="utf-8",
    )
    return file


def run(file: Path, *sets: str, limit: int | None = None) -> str:
    """One run without a cluster; what it said."""
    said = io.StringIO()
    record = run_here(file, said, sets=sets, limit=limit)
    assert record.status == "done"
    return said.getvalue()


def plan(file: Path) -> str:
    answer = CliRunner().invoke(app, ["plan", str(file)], env={"COLUMNS": "300"})
    assert answer.exit_code == 0, answer.output
    return answer.output


def rows(folder: Path, sql: str) -> list[dict[str, Any]]:
    return list(json.loads(query(open_root(str(folder / "root")), sql, "json") or "[]"))


def images(folder: Path) -> list[tuple[str, str, str]]:
    sql = (
        "select n.name, c.address, coalesce(i.reason, i.status) said from images i join "
        "candidates c using (image_id)"
    )
    found = rows(folder, f"{sql} join identities n on n.identity_id = c.identity_id order by all")
    return [(row["name"], row["address"], row["said"]) for row in found]


def commons(site: Site, folder: Path) -> tuple[Wiki, Path]:
    """Two people with two files each, whose originals lie on the same site."""
    wiki = Wiki(site)
    site.pages["/w/api.php"] = wiki.answer
    for n, name in ((1, "Ada"), (2, "Bob")):
        wiki.items[f"Q{n}"] = item(f"Q{n}", name, P373=[name])
        titles = [f"{name}{k}.jpg" for k in range(2)]
        for k, title in enumerate(titles):
            wiki.add(title, url=site.address(f"/{title}", "upload.test"))
            site.pages[f"/{title}"] = fixed(picture(10 * n + k))
        wiki.members[f"Category:{name}"] = [f"File:{title}" for title in titles]
    (folder / "names.csv").write_text("name,wikidata\nAda,Q1\nBob,Q2\n")
    apis = (
        f"api: '{site.address('/w/api.php', 'api.test')}', wikidata: "
        f"'{site.address('/w/api.php', 'wikidata.test')}'"
    )
    return wiki, dag(folder, f"{{kind: commons, path: {folder / 'names.csv'}, {apis}}}", FETCH)


def test_commons_from_a_list_of_names_to_pictures(site: Site, tmp_path: Path) -> None:
    wiki, file = commons(site, tmp_path)
    before = plan(file)
    assert "a plan asks nobody: 2 of 2 people are not listed yet" in before and not site.log
    assert "commons: asking about 2 people" in run(file)
    assert images(tmp_path) == [
        (name, site.address(f"/{name}{k}.jpg", "upload.test"), "ok")
        for name in ("Ada", "Bob")
        for k in range(2)
    ]
    facts = rows(tmp_path, "select distinct licence, author, source from candidates")
    assert facts == [{"licence": "CC BY-SA 4.0", "author": "Zoë & others", "source": "commons"}]
    asked = len(wiki.asked)
    after = plan(file)
    assert "commons: as listed" in after and "nothing to do" in after
    assert "4 images; nothing new" in run(file)
    assert len(wiki.asked) == asked
    # A file that is gone is gone after the next listing; one that was overwritten is fetched again.
    wiki.members["Category:Bob"].pop()
    wiki.files["File:Ada0.jpg"]["imageinfo"][0]["sha1"] = "f" * 40
    assert "1 changed, 1 gone" in run(file, "source.relist_days=0")
    assert len(site.asked("/Ada0.jpg")) == 2 and len(site.asked("/Ada1.jpg")) == 1


def test_a_service_that_is_away_takes_nothing_away(site: Site, tmp_path: Path) -> None:
    """An hour without Wikimedia would empty a dataset; so would garbage collection followed by
    one.
    """
    _, file = commons(site, tmp_path)
    run(file)
    before = rows(tmp_path, "select * exclude (fingerprint) from candidates order by image_id")
    site.pages["/w/api.php"] = fixed(b"{}", 403)
    said = run(file, "source.relist_days=0")
    assert "2 of 2 people are not listed anew" in said and "4 images; nothing new" in said
    for kept in (tmp_path / "root" / "parts" / "listing").rglob("*.parquet"):
        kept.unlink()
    said = run(file)
    assert "0 images; nothing new" in said and "gone" not in said
    assert (
        rows(tmp_path, "select * exclude (fingerprint) from candidates order by image_id") == before
    )
    assert "0 gone" in plan(file)


def test_openverse_from_a_list_of_names_to_pictures(site: Site, tmp_path: Path) -> None:
    service = Openverse(
        site,
        results={
            '"Ada"': [result(n, url=site.address(f"/p/{n}.jpg", "flickr.test")) for n in range(3)]
        },
    )
    site.pages["/v1/images/"] = service.answer
    (tmp_path / "names.txt").write_text("Ada\n")
    api = site.address("/v1/images/", "openverse.test")
    file = dag(
        tmp_path,
        f"{{kind: openverse, path: {tmp_path / 'names.txt'}, api: '{api}', token_env: "
        f"IDCLUSTER_TEST_TOKEN}}",
        FETCH,
    )
    refused = CliRunner().invoke(app, ["run", str(file)])
    assert (
        refused.exit_code != 0
        and "IDCLUSTER_TEST_TOKEN" in refused.output
        and not (tmp_path / "root").exists()
    )
    os.environ["IDCLUSTER_TEST_TOKEN"] = "s3cr3t"
    try:
        said = run(file)
    finally:
        del os.environ["IDCLUSTER_TEST_TOKEN"]
    assert [row[2] for row in images(tmp_path)] == ["ok"] * 3
    assert service.tokens == {"Bearer s3cr3t"}
    written = b"".join(
        path.read_bytes() for path in (tmp_path / "root").rglob("*") if path.is_file()
    )
    assert b"s3cr3t" not in written and "s3cr3t" not in said


def test_a_table_of_files_to_pictures(tmp_path: Path) -> None:
    faces = tmp_path / "faces"
    faces.mkdir()
    for n in range(3):
        (faces / f"{n}.jpg").write_bytes(picture(n))
    with (tmp_path / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [("path", "name", "split"), *((f"{n}.jpg", f"P{n % 2}", "train") for n in range(4))]
        )
    path = dag(
        tmp_path, f"{{kind: table, path: {tmp_path / 'list.csv'}, base: faces, splits: [train]}}"
    )
    assert "1 file that" in run(path)
    assert images(tmp_path) == [
        ("P0", "table:0.jpg", "ok"),
        ("P0", "table:2.jpg", "ok"),
        ("P1", "table:1.jpg", "ok"),
        ("P1", "table:3.jpg", "not_found"),
    ]


def test_celeba_to_pictures(tmp_path: Path) -> None:
    folder = tmp_path / "celeba"
    (folder / "img_celeba").mkdir(parents=True)
    for n in range(1, 4):
        (folder / "img_celeba" / f"{n:06d}.jpg").write_bytes(picture(n))
    (folder / "identity_CelebA.txt").write_text("000001.jpg 12\n000002.jpg 7\n000003.jpg 12\n")
    run(dag(tmp_path, f"{{kind: table, layout: celeba, name: celeba, path: {folder}}}"))
    assert [(name, said) for name, _, said in images(tmp_path)] == [
        ("celeba 12", "ok"),
        ("celeba 12", "ok"),
        ("celeba 7", "ok"),
    ]


def test_clips_to_pictures(tmp_path: Path) -> None:
    clip = tmp_path / "MEAD" / "M003" / "video" / "front" / "001.avi"
    clip.parent.mkdir(parents=True)
    writer = cv2.VideoWriter(os.fspath(clip), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    noise = np.random.default_rng(0)
    for _ in range(25):
        writer.write(noise.integers(0, 255, (48, 64, 3), dtype=np.uint8))
    writer.release()
    clip.with_name("bad.mp4").write_bytes(b"nothing of the kind")
    file = dag(tmp_path, f"{{kind: video, path: {tmp_path / 'MEAD'}, prefix: 'MEAD '}}")
    plan(file)
    assert not (tmp_path / "root").exists()
    run(file)
    times = [
        ("MEAD M003", f"video:M003/video/front/001.avi#t={second:.3f}", "ok") for second in range(3)
    ]
    assert images(tmp_path) == [
        *times,
        ("MEAD M003", "video:M003/video/front/bad.mp4#t=0.000", "not_a_video"),
    ]
    before = rows(tmp_path, "select sha256 from images order by image_id")
    (tmp_path / "other").mkdir()
    run(dag(tmp_path / "other", f"{{kind: video, path: {tmp_path / 'MEAD'}, prefix: 'MEAD '}}"))
    assert rows(tmp_path / "other", "select sha256 from images order by image_id") == before
    assert "nothing new" in run(file)


@pytest.mark.parametrize("name", ["celeba", "crawl_commons"])
def test_the_files_in_dags_are_read(name: str, tmp_path: Path) -> None:
    """A user's first step would be an error message."""
    text = (Path(__file__).parents[2] / "dags" / f"{name}.yaml").read_text(encoding="utf-8")
    file = tmp_path / f"{name}.yaml"
    file.write_text(text, encoding="utf-8")
    assert load_dag(file).name == name


def several(folder: Path, site: Site) -> Path:
    """A folder, a table and a list of addresses in one DAG: Ada is in all of them, one address in
    the list twice.
    """
    for path, number in (("people/Ada/1.jpg", 1), ("people/Bob/2.jpg", 2), ("files/3.jpg", 3)):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(picture(number))
    (folder / "files" / "table.csv").write_text("path,identity\n3.jpg,ada\n")
    address = site.address("/p/4.jpg")
    ours = f"ADA,{address},CC0\nAda,{address}#again,CC-BY\nCleo,{site.address('/p/5.jpg')},CC0\n"
    (folder / "list.csv").write_text(f"name,url,license\n{ours}")
    (folder / "more.csv").write_text(
        f"name,url,license\nAda,{address},PDM\nAda,{site.address('/p/6.jpg')},PDM\n"
    )
    listed = [
        f"{{kind: folder, path: {folder / 'people'}}}",
        f"{{kind: table, path: {folder / 'files' / 'table.csv'}}}",
    ]
    listed += [
        f"{{kind: urls, path: {folder / 'list.csv'}}}",
        f"{{kind: urls, path: {folder / 'more.csv'}, name: more}}",
    ]
    return dag(folder, f"[{', '.join(listed)}]", FETCH)


COUNTED = (
    "select name, c.source, count(*) as n from images i join candidates c using (image_id)"
    " join identities p on p.identity_id = c.identity_id"
)


def test_several_sources_in_one_dag_make_one_dataset(site: Site, tmp_path: Path) -> None:
    """Whoever has a folder and a list would need two datasets, or two runs in which each leaves the
    other's images alone.
    """
    file = several(tmp_path, site)
    assert "source: 3 people, 6 images: 6 new" in plan(file)
    run(file)
    found = rows(tmp_path, f"{COUNTED} where i.status = 'ok' group by all order by all")
    assert [(row["name"], row["source"], row["n"]) for row in found] == [
        ("Ada", "local", 1),
        ("Ada", "more", 1),
        ("Ada", "table", 1),
        ("Ada", "web", 1),
        ("Bob", "local", 1),
        ("Cleo", "web", 1),
    ]
    assert len(site.asked("/p/4.jpg")) == 1
    assert rows(tmp_path, "select licence from candidates where address like '%/p/4.jpg'") == [
        {"licence": "CC0"}
    ]
    assert "nothing new" in run(file)
    assert "nothing to do" in plan(file)


def test_a_picture_is_gone_when_no_source_lists_it_any_more(site: Site, tmp_path: Path) -> None:
    file = several(tmp_path, site)
    run(file)
    (tmp_path / "list.csv").write_text(f"name,url,license\nCleo,{site.address('/p/5.jpg')},CC0\n")
    before = len(site.asked())
    assert "1 changed" in run(file)  # the other list has it still
    assert rows(
        tmp_path, "select licence, source, status from candidates where address like '%/p/4.jpg'"
    ) == [{"licence": "PDM", "source": "more", "status": "ok"}]
    (tmp_path / "more.csv").write_text(f"name,url,license\nAda,{site.address('/p/6.jpg')},PDM\n")
    (tmp_path / "people" / "Ada" / "1.jpg").unlink()
    assert "2 gone" in run(file)
    assert len(site.asked()) == before


def test_a_source_that_is_left_out_of_the_dag_leaves_its_pictures_where_they_are(
    site: Site, tmp_path: Path
) -> None:
    file = several(tmp_path, site)
    run(file)
    file.write_text(
        file.read_text().replace(f", {{kind: urls, path: {tmp_path / 'more.csv'}, name: more}}", "")
    )
    assert "nothing new" in run(file)
    assert len(rows(tmp_path, "select 1 from images where status = 'ok'")) == 6


@pytest.mark.slow
def test_what_another_dag_has_yet_to_fetch_is_left_to_it(site: Site, tmp_path: Path) -> None:
    """A run that was stopped, and another DAG on the same root after it, would turn images into
    failures for good.
    """
    (tmp_path / "people" / "Ada").mkdir(parents=True)
    for number in range(3):
        (tmp_path / "people" / "Ada" / f"{number}.jpg").write_bytes(picture(number))
    (tmp_path / "list.csv").write_text(
        "name,url\n" + "".join(f"Bob,{site.address(f'/p/{n}.jpg')}\n" for n in range(3))
    )
    files, web = (
        f"{{kind: folder, path: {tmp_path / 'people'}}}",
        f"{{kind: urls, path: {tmp_path / 'list.csv'}}}",
    )
    for first, second, there in ((files, web, "http%"), (web, files, "local:%")):
        root = tmp_path / there[:4].strip(":")
        root.mkdir()
        run(dag(root, first, FETCH), limit=1)
        run(dag(root, second, FETCH))
        done = rows(
            root, "select c.address, i.status from images i join candidates c using (image_id)"
        )
        assert {row["status"] for row in done} == {"ok"} and len(done) == 4, done
        run(dag(root, first, FETCH))
        assert len(rows(root, "select 1 from images where status = 'ok'")) == 6
        assert "nothing new" in run(dag(root, second, FETCH))
