"""Removing somebody from a root in an object store, with old versions of objects, and with a store
that is away for a while.
"""

from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from idcluster.root.storage import Store
from pipeline.forget.erase import forget
from pipeline.forget.preview import kept_versions, prepare
from pipeline.forget.verify import verify
from pipeline.forget.wish import Wish
from schemas import identity_id
from tests.pipeline.forgotten import WHO, contents, gallery, holding, remove
from tests.pipeline.rooms import run_toy, shown
from tests.pipeline.s3 import S3Server, serving


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with pytest.MonkeyPatch.context() as patch, serving() as server:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        server.make_bucket("plain")
        server.make_bucket("kept")
        client = boto3.client("s3", endpoint_url=server.url)
        client.put_bucket_versioning(Bucket="kept", VersioningConfiguration={"Status": "Enabled"})
        yield server


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gallery(tmp_path_factory.mktemp("source") / "people", count=4, pictures=2)


def copied(root: Path, url: str) -> Store:
    local, remote = Store(root), Store(url)
    for path in local.list(""):
        remote.put(path, local.read(path))
    return remote


@pytest.mark.slow
def test_in_a_store_as_on_a_disk(server: S3Server, source: Path, tmp_path: Path) -> None:
    """What is deleted on a disk would stay in a store, or the rest be another dataset there."""
    run_toy(tmp_path, source, tmp_path / "root")
    remote, local = copied(tmp_path / "root", "s3://plain/root"), Store(tmp_path / "root")
    prepared = prepare(remote, Wish(identities=(WHO,)))
    server.refuse = 3  # overloaded while it is at work
    forget(remote, prepared, "forget-test")
    forget(local, prepared, "forget-test")
    assert holding(remote, [WHO, identity_id(WHO)]) == [] and verify(remote, [WHO]).leftovers == []
    mine, theirs = contents(remote), contents(local)
    key = {"receipts/key.json"}
    hashed = {path for path in mine.keys() ^ theirs.keys() if "removals" in path}
    assert mine.keys() - hashed == theirs.keys() - hashed
    tables = {path for path in mine if path.startswith(("tables/", "shards/"))} - hashed - key
    assert all(mine[path] == theirs[path] for path in tables)
    assert shown(remote.root) == shown(tmp_path / "root")
    run_toy(tmp_path, source, "s3://plain/root", store=remote)
    assert holding(remote, [WHO, identity_id(WHO)]) == []


@pytest.mark.slow
def test_a_bucket_that_keeps_old_versions_is_told(
    server: S3Server, source: Path, tmp_path: Path
) -> None:
    """Somebody would be told that they were removed, while every old version of every object still
    shows them.
    """
    run_toy(tmp_path, source, tmp_path / "root")
    store = copied(tmp_path / "root", "s3://kept/root")
    prepared = prepare(store, Wish(identities=(WHO,)))
    assert (
        "the bucket of s3://kept/root keeps old versions of objects (versioning is enabled)"
        in prepared.warnings[0]
    )
    done = remove(store, WHO)
    assert done.receipt.unreachable[0] == prepared.warnings[0]
    assert (
        kept_versions(Store("s3://plain/root")) is None and kept_versions(Store(tmp_path)) is None
    )
    for place in ("s3://nowhere/root", "memory://root"):
        assert "could not be asked" in (kept_versions(Store(place)) or "")
