"""The spool: what was fetched once is there, whole or not at all."""

from pathlib import Path

import pytest

from idcluster.root.spool import DamagedSpool, SpoolServices, look, put, spool_path
from idcluster.root.storage import Store
from pipeline.execution.fetching import Block, blocks
from schemas.fetched import Fetched


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def answers(first: int, count: int) -> list[tuple[str, Fetched]]:
    return [
        (f"http://a/{n}", Fetched(bytes([n]) * n, fetched_at=n, http_status=200, attempts=1))
        for n in range(first, first + count)
    ]


def test_answers_come_back_as_they_were(store: Store) -> None:
    bad = Fetched(None, "filtered", "robots", "in words", "evidence", 7, 403, 2, "http://b/")
    put(store, spool_path("run", "block", 0), [*answers(1, 3), ("http://a/bad", bad)])
    put(store, spool_path("run", "block", 1), answers(10, 2))
    found = look(store)
    assert {path: len(rows) for path, rows in found.files.items()} == {
        spool_path("run", "block", 0): 4,
        spool_path("run", "block", 1): 2,
    }
    services = SpoolServices(store, found.places)
    got = services.fetch(["http://a/11", "http://a/bad", "http://a/2", "http://a/10"])
    assert [answer.data for answer in got] == [
        bytes([11]) * 11,
        None,
        b"\x02\x02",
        bytes([10]) * 10,
    ]
    assert got[1] == bad
    with pytest.raises(KeyError):
        services.fetch(["http://a/99"])


def test_the_newest_answer_counts_and_torn_files_do_not(store: Store, tmp_path: Path) -> None:
    put(store, spool_path("20250101", "b", 0), [("http://a/1", Fetched(b"old"))])
    put(store, spool_path("20250102", "a", 0), [("http://a/1", Fetched(b"new"))])
    torn = tmp_path / spool_path("20250103", "a", 0)
    torn.parent.mkdir(parents=True)
    whole = (tmp_path / spool_path("20250102", "a", 0)).read_bytes()
    torn.write_bytes(whole[: len(whole) // 2])
    assert [
        answer.data for answer in SpoolServices(store, look(store).places).fetch(["http://a/1"])
    ] == [b"new"]
    assert not torn.exists()


def test_an_answer_that_is_not_what_was_put_down_is_noticed(store: Store, tmp_path: Path) -> None:
    path = spool_path("run", "b", 0)
    put(store, path, answers(100, 20))
    places = look(store).places
    whole = (tmp_path / path).read_bytes()
    _, start, length = places["http://a/110"]
    (tmp_path / path).write_bytes(whole[: start + length - 5] + b"x" + whole[start + length - 4 :])
    services = SpoolServices(store, places)
    assert services.fetch(["http://a/109"])[0].data == bytes([109]) * 109
    with pytest.raises(DamagedSpool, match="retry"):
        services.fetch(["http://a/110"])


@pytest.mark.parametrize("cut", [0, 10, 15])
def test_a_file_without_a_whole_index_counts_as_not_there(
    store: Store, tmp_path: Path, cut: int
) -> None:
    path = spool_path("run", "b", 0)
    put(store, path, answers(1, 3))
    (tmp_path / path).write_bytes(
        (tmp_path / path).read_bytes()[:cut]
        if cut < 15
        else (tmp_path / path).read_bytes()[:-40] + bytes(40)
    )
    assert not look(store).files


def test_an_index_longer_than_what_is_read_at_once_is_read_whole(store: Store) -> None:
    many = [(f"http://a/{'x' * 500}{n}", Fetched(b"1")) for n in range(400)]
    put(store, spool_path("run", "b", 0), many)
    found = look(store)
    assert len(found.places) == 400
    assert SpoolServices(store, found.places).fetch([many[399][0]])[0].data == b"1"


def test_blocks_hold_every_address_once_and_many_hosts() -> None:
    addresses = [f"http://h{n % 10}.example/{n}" for n in range(1000)] + [
        "http://h1.example/1",
        "not an address",
    ]
    made = list(blocks(addresses, 5.0, size=100))
    assert sorted(a for block in made for a in block.addresses) == sorted(set(addresses))
    assert max(len(block.addresses) for block in made) <= 100
    for block in made:
        hosts = {address.split("/")[2] for address in block.addresses if "//" in address}
        assert len(hosts) == 10
        assert Block.decode(block.encode()) == block
    assert len({block.name for block in made}) == len(made)
    assert list(blocks(addresses, 5.0, size=100)) == made
    assert list(blocks([], 5.0)) == []
