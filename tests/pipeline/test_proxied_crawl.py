"""A run through a proxy: nothing of it is in any version, and its password in no file."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from pipeline.execution.cluster import worker_environment
from pipeline.execution.fetching import Block, Haul
from pipeline.execution.ray_actors import FetchActor
from stages.crawl.web.proxy import CREDENTIALS, ProxyDenied
from tests.pipeline.test_crawl import crawl, listing
from tests.stages.crawl.web.proxies import Proxy, proxying
from tests.stages.crawl.web.servers import Site, serving

USER, WORD = "crawler", "s3cr3t-w0rd"


def test_a_run_through_a_proxy_leaves_no_trace_of_the_password_and_the_same_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CREDENTIALS[0], USER)
    monkeypatch.setenv(CREDENTIALS[1], WORD)
    with serving(Site()) as site, proxying(Proxy("http", login=(USER, WORD))) as proxy:
        path = listing(
            tmp_path, [("Ada", site.address(f"/p/{n}.jpg", "a.example")) for n in range(3)]
        )
        (tmp_path / "web.yaml").write_text(
            f'name: web\nroot: "{tmp_path}/root"\nsource: {{kind: urls, path: "{path}"}}\n'
            'fetch: {contact: "mailto:me@example.org", resolve: {"*.example": 93.184.216.34}, '
            "politeness: {rate: null},"
            f' proxy: "{proxy.url}"}}\nstages: {{crawl: {{}}}}\n'
        )
        first, said = crawl(tmp_path)
        assert first.fetching["outcomes"] == {"ok": 3}
        assert {address for address, _ in proxy.log} == {"93.184.216.34"}
        asked = len(site.log)
        again, _ = crawl(tmp_path, sets=["fetch.proxy=null"])
        assert (again.versions, again.snapshot) == (first.versions, first.snapshot)
        assert len(site.log) == asked
    everything = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.parent.name == "runs" for path in everything)
    for path in everything:
        assert WORD.encode() not in path.read_bytes(), path
    assert WORD not in said + json.dumps(dataclasses.asdict(first), default=str)


def test_workers_on_a_cluster_get_the_user_and_the_password() -> None:
    given = {CREDENTIALS[0]: USER, CREDENTIALS[1]: WORD, "HTTPS_PROXY": "http://elsewhere"}
    assert worker_environment(given) == {CREDENTIALS[0]: USER, CREDENTIALS[1]: WORD}


def test_what_a_proxy_wants_reaches_the_driver_in_its_own_words() -> None:
    def fetch(block: Block) -> Haul:
        if block.name == "b":
            raise ProxyDenied("proxy http://10.0.0.1:3128 wants a user and a password")
        return Haul(block.name)

    actor: Any = object.__new__(FetchActor)
    actor.worker = SimpleNamespace(fetch=fetch)
    rows = actor(
        pa.table({"block": [Block(name, (), 1.0, False).encode() for name in "ab"]})
    ).to_pylist()
    assert (Haul.decode(rows[0]["haul"]).block, rows[0]["denied"]) == ("a", None)
    assert rows[1] == {
        "haul": None,
        "denied": "proxy http://10.0.0.1:3128 wants a user and a password",
    }
