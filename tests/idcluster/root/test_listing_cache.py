"""The shelf: what was learnt is there next time, whatever ended the listing, and never wrong."""

from pathlib import Path

import pytest

from idcluster.root.listing_cache import ListingCache
from idcluster.root.storage import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "root")


def files(store: Store) -> list[str]:
    return store.list("parts/listing")


def text(shelf: ListingCache, key: str) -> str | None:
    found = shelf.get(key)
    return None if found is None else found[1]


def test_texts_are_there_for_the_next_listing(store: Store) -> None:
    """Everybody would be asked about again by the next run."""
    shelf = ListingCache(store, "commons")
    shelf.put("a", "1 ü")
    assert text(shelf, "a") == "1 ü" and text(shelf, "b") is None
    shelf.flush()
    shelf.flush()
    assert len(files(store)) == 1
    again = ListingCache(store, "commons")
    assert text(again, "a") == "1 ü" and again.get("a") == shelf.get("a")
    assert text(ListingCache(store, "openverse"), "a") is None


def test_the_newest_text_counts_and_replaced_files_go(store: Store) -> None:
    """What was learnt a year ago would hide what is known today; the folder would grow for ever."""
    for number in range(5):
        shelf = ListingCache(store, "commons")
        shelf.put("a", str(number))
        if number == 0:
            shelf.put("b", "kept")
        shelf.flush()
    assert [text(ListingCache(store, "commons"), key) for key in "ab"] == ["4", "kept"]
    assert len(files(store)) == 2


def test_a_listing_that_is_killed_keeps_what_was_put_down(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut in the tenth hour would cost ten hours."""
    monkeypatch.setattr("idcluster.root.listing_cache._TEXTS", 10)
    shelf = ListingCache(store, "commons")
    for number in range(35):
        shelf.put(str(number), "x" * number)
    del shelf
    again = ListingCache(store, "commons")
    assert [again.get(str(number)) is not None for number in range(35)] == [True] * 30 + [False] * 5
    assert all(text(again, str(number)) == "x" * number for number in range(30))


def test_damaged_files_are_as_if_they_were_not_there(store: Store) -> None:
    """A torn file would stop every run from then on."""
    shelf = ListingCache(store, "commons")
    shelf.put("a", "1")
    shelf.flush()
    (path,) = files(store)
    whole = store.read(path)
    for damaged in (b"", whole[:-3], whole[: len(whole) // 2]):
        store.put(path, damaged)
        assert text(ListingCache(store, "commons"), "a") is None
    late = ListingCache(store, "commons")
    store.put(path, whole)
    late.get("a")
    store.delete([path])
    assert text(ListingCache(store, "commons"), "a") is None
    late.put("b", "2")
    late.flush()
    assert text(late, "b") == "2"


def test_a_plan_leaves_nothing_behind(store: Store) -> None:
    """A plan would change the dataset."""
    shelf = ListingCache(store, "commons", write=False)
    shelf.put("a", "1")
    shelf.flush()
    assert text(shelf, "a") == "1" and not Path(store.root).exists()
