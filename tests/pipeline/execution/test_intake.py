"""Intake: places are given once and stay, whatever the source does afterwards."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idcluster.root.parquet import read_entries
from idcluster.root.snapshot import Snapshot, publish
from idcluster.root.storage import Store
from pipeline.execution import intake
from pipeline.execution.intake import Intake, take_in
from schemas import identity_id, image_id
from schemas.fetched import Fetched
from stages.crawl.folder import FolderSource
from stages.crawl.listing import Listed, Offer, SourceError


class Listing:
    """A source that lists what it was given."""

    web = False

    def __init__(self, listed: Sequence[Listed], name: str = "local") -> None:
        self.name, self.listed = name, list(listed)
        self.incomplete = False

    def check(self) -> None:
        return None

    def people(self) -> tuple[list[Listed], list[str]]:
        return self.listed, ["a remark"]

    def fetch(self, addresses: Sequence[str]) -> list[Fetched]:
        raise NotImplementedError


def listing(
    people: Mapping[str, Sequence[str] | Mapping[str, str]], name: str = "local"
) -> Listing:
    """People to images, or to images with their fingerprints."""

    def offers(person: str, pictures: Sequence[str] | Mapping[str, str]) -> list[Offer]:
        prints = pictures if isinstance(pictures, Mapping) else dict.fromkeys(pictures, "1")
        return [
            Offer(f"{name}:{person}/{picture}", fingerprint)
            for picture, fingerprint in prints.items()
        ]

    return Listing(
        [Listed(person, offers(person, pictures)) for person, pictures in people.items()], name
    )


class Root:
    """A dataset root that takes in what a source lists and publishes it."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder)
        self.snapshot = Snapshot()

    def take(self, source: Any) -> Intake:
        found = take_in(self.store, self.snapshot, source)
        self.snapshot = publish(self.store, self.snapshot.with_entries(found.entries))
        return found

    def candidates(self) -> list[dict[str, Any]]:
        """All rows, with the bucket and chunk that they are in."""
        rows = []
        for entry in self.snapshot.shown("candidates"):
            found = read_entries(self.store, "candidates", [entry]).to_pylist()
            assert [row["rank"] for row in found] == list(range(len(found)))
            rows += [{**row, "bucket": entry.bucket, "chunk": entry.chunk} for row in found]
        return rows

    def people(self) -> dict[str, dict[str, Any]]:
        rows = []
        for entry in self.snapshot.shown("identities"):
            found = read_entries(self.store, "identities", [entry]).to_pylist()
            assert {row["bucket"] for row in found} == {entry.bucket}
            rows += found
        assert len({row["identity_id"] for row in rows}) == len(rows)
        return {row["name"]: row for row in rows}

    def places(self) -> dict[str, tuple[int, int, int]]:
        return {
            row["address"]: (row["bucket"], row["chunk"], row["rank"]) for row in self.candidates()
        }

    def statuses(self) -> dict[str, tuple[str, str | None]]:
        return {
            row["address"].rpartition("/")[2]: (row["status"], row["reason"])
            for row in self.candidates()
        }


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path / "root")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "CHUNK_ROWS", 3)
    monkeypatch.setattr(intake, "BUCKET_ROWS", 5)


def counts(found: Intake) -> tuple[int, int, int, int, int]:
    return found.people, found.offered, found.new, found.changed, found.gone


def test_people_and_pictures_get_rows(root: Root) -> None:
    """An image that the source lists would not be fetched, or nobody would know whose it is."""
    found = root.take(listing({"Zoë": ["1", "2"], "Ada": ["1"]}))
    assert counts(found) == (2, 3, 3, 0, 0) and found.remarks == ["a remark"]
    assert root.places() == {
        "local:Ada/1": (0, 0, 0),
        "local:Zoë/1": (0, 0, 1),
        "local:Zoë/2": (0, 0, 2),
    }
    row = root.candidates()[1]
    assert (row["identity_id"], row["image_id"]) == (
        identity_id("Zoë"),
        image_id(identity_id("Zoë"), "local:Zoë/1"),
    )
    assert (row["source"], row["fingerprint"], row["status"], row["reason"]) == (
        "local",
        "1",
        "ok",
        None,
    )
    assert {name: (p["identity_id"], p["status"]) for name, p in root.people().items()} == {
        name: (identity_id(name), "ok") for name in ("Ada", "Zoë")
    }


def test_what_a_source_says_of_a_picture_is_kept(root: Root) -> None:
    """Licence and author would be lost, and with them the right to use the image."""
    offer = Offer("https://example.org/1", "etag", "https://example.org/page", "CC0", "A. Nobody")
    root.take(Listing([Listed("Ada", [offer], "Q7259", {"wikidata": "Q7259"})]))
    (row,) = root.candidates()
    assert [row[name] for name in ("address", "fingerprint", "page", "licence", "author")] == [
        offer.address,
        offer.fingerprint,
        offer.page,
        offer.licence,
        offer.author,
    ]
    person = root.people()["Ada"]
    assert person["identity_id"] == identity_id("anybody", "Q7259") and person["external_ids"] == [
        ("wikidata", "Q7259")
    ]
    assert (
        root.take(Listing([Listed("Ada", [offer], "Q7259", {"wikidata": "Q7259"})])).entries == []
    )


def test_every_image_of_a_person_knows_whether_there_is_a_reference(root: Root) -> None:
    """Cleaning sees the images with a face: one that has none must not make it forget that the
    person has a reference.
    """

    def said(**references: str | None) -> dict[str, str | None]:
        offers = [
            Offer(f"local:Ada/{name}", "1", reference=word) for name, word in references.items()
        ]
        root.take(Listing([Listed("Ada", offers), Listed("Grace", [Offer("local:Grace/1", "1")])]))
        return {row["address"].partition(":")[2]: row["reference"] for row in root.candidates()}

    assert said(a=None, b=None) == {"Ada/a": None, "Ada/b": None, "Grace/1": None}
    assert said(a="TRUE", b=None) == {"Ada/a": "yes", "Ada/b": "no", "Grace/1": None}
    assert said(a="false", b="0") == {"Ada/a": None, "Ada/b": None, "Grace/1": None}
    assert said(a="no", b="1") == {"Ada/a": "no", "Ada/b": "yes", "Grace/1": None}


@pytest.mark.usefixtures("small")
def test_nothing_new_changes_nothing(root: Root) -> None:
    """Every run would rewrite the lists, and with them everything behind."""
    source = listing({"Ada": "abcd", "Zoë": "ab", "Nobody": ""})
    root.take(source)
    files = root.store.list("tables")
    again = root.take(source)
    assert again.entries == [] and counts(again) == (3, 6, 0, 0, 0)
    assert root.store.list("tables") == files


@pytest.mark.usefixtures("small")
def test_growth_appends_chunks_and_moves_nothing(root: Root) -> None:
    """A new photograph would shift all others, and everything would be computed again."""
    root.take(listing({"Ada": "ab", "Zoë": "ab"}))
    before, files = root.places(), set(root.snapshot.files())
    assert Counter(place[:2] for place in before.values()) == {(0, 0): 3, (0, 1): 1}
    found = root.take(listing({"Ada": "0ab", "Zoë": "abc", "Bea": "a"}))
    assert counts(found) == (3, 7, 3, 0, 0)
    after = root.places()
    assert {address: after[address] for address in before} == before
    assert {after[a][:2] for a in after if a not in before} == {(0, 2), (1, 0)}
    assert files < set(root.snapshot.files())


@pytest.mark.usefixtures("small")
def test_a_full_bucket_takes_pictures_of_its_people_and_no_new_people(root: Root) -> None:
    """Buckets would grow without end, or a person would be spread over two, and clustered twice."""
    root.take(listing({"Ada": "abc", "Bea": "abc", "Cat": "a", "Dan": ""}))
    assert {name: p["bucket"] for name, p in root.people().items()} == {
        "Ada": 0,
        "Bea": 0,
        "Cat": 1,
        "Dan": 1,
    }
    root.take(listing({"Ada": "abcdefgh", "Bea": "abc", "Cat": "abcde", "Dan": "ab", "Aaa": "a"}))
    assert {name: p["bucket"] for name, p in root.people().items()} == {
        "Aaa": 1,
        "Ada": 0,
        "Bea": 0,
        "Cat": 1,
        "Dan": 1,
    }
    root.take(
        listing(
            {"Ada": "abcdefgh", "Bea": "abc", "Cat": "abcde", "Dan": "ab", "Aaa": "a", "Eve": "ab"}
        )
    )
    assert root.people()["Eve"]["bucket"] == 2
    bucket = {p["identity_id"]: p["bucket"] for p in root.people().values()}
    assert all(row["bucket"] == bucket[row["identity_id"]] for row in root.candidates())


def test_a_vanished_picture_stays_as_a_row_that_says_so(root: Root) -> None:
    """An image would vanish without a trace, or be shown although its owner took it back."""
    root.take(listing({"Ada": "ab", "Zoë": "a"}))
    before = root.places()
    found = root.take(listing({"Ada": "b"}))
    assert counts(found) == (1, 1, 0, 0, 2)
    assert (
        root.statuses() == {"a": ("filtered", "gone"), "b": ("ok", None)}
        and root.places() == before
    )
    assert root.take(listing({"Ada": "b"})).entries == []  # gone once
    back = root.take(listing({"Ada": "ab", "Zoë": "a"}))
    assert counts(back) == (2, 3, 0, 2, 0)
    assert set(root.statuses().values()) == {("ok", None)} and root.places() == before
    assert all(row["detail"] is None for row in root.candidates())


def test_a_replaced_picture_keeps_its_place_and_has_a_new_fingerprint(root: Root) -> None:
    """A photograph that was replaced in its folder would be shown as it was."""
    root.take(listing({"Ada": {"a": "1", "b": "1"}}))
    before = root.places()
    found = root.take(listing({"Ada": {"a": "2", "b": "1"}}))
    assert counts(found) == (1, 2, 0, 1, 0) and len(found.entries) == 1
    assert [row["fingerprint"] for row in root.candidates()] == [
        "2",
        "1",
    ] and root.places() == before


def test_other_sources_are_left_alone(root: Root) -> None:
    """A run on one source would declare the images of another one gone."""
    root.take(listing({"Ada": "ab"}, "first"))
    found = root.take(listing({"Ada": "c", "Zoë": "d"}, "second"))
    assert found.gone == 0 and found.new == 2
    assert set(root.statuses().values()) == {("ok", None)}
    assert {row["source"] for row in root.candidates()} == {"first", "second"}


def test_nothing_is_gone_of_a_person_whom_the_source_could_not_be_asked_about(root: Root) -> None:
    """A service that is away for an hour would empty the dataset."""
    root.take(listing({"Ada": "abc", "Zoë": "ab"}))
    offers = [Offer("local:Ada/b", "1"), Offer("local:Ada/d", "1")]
    found = root.take(
        Listing([Listed("Ada", offers, complete=False), Listed("Zoë", [Offer("local:Zoë/a", "1")])])
    )
    assert counts(found) == (2, 3, 1, 0, 1)
    gone = [row["address"] for row in root.candidates() if row["reason"] == "gone"]
    assert gone == ["local:Zoë/b"]
    found = root.take(Listing([Listed("Ada", offers), Listed("Zoë", [], complete=False)]))
    assert (found.gone, root.people()["Zoë"]["status"]) == (2, "ok")


def test_of_a_list_that_could_not_be_read_whole_nobody_is_gone(tmp_path: Path) -> None:
    """A line that an editor broke would take somebody's images out of the shards, and nobody
    knows whose it was.
    """
    root = Root(tmp_path)
    root.take(listing({"Ada": ["a", "b"], "Zoë": ["a"]}))
    broken = listing({"Ada": ["b", "c"]})
    broken.incomplete = True
    found = root.take(broken)
    assert (found.new, found.gone) == (1, 0)
    assert {row["status"] for row in root.candidates()} == {"ok"}
    assert root.take(listing({"Ada": ["b"]})).gone == 3


def test_aliases_of_a_source_are_kept(root: Root) -> None:
    """A search for a person by another name would find nobody."""
    root.take(Listing([Listed("Ada", [Offer("local:1")], aliases=("Countess of Lovelace", "Ada"))]))
    root.take(Listing([Listed("Ada", [Offer("local:1")], aliases=("Ada Byron",))]))
    assert root.people()["Ada"]["aliases"] == ["Ada Byron", "Countess of Lovelace"]


def test_a_picture_listed_twice_is_one(root: Root) -> None:
    """An image would be fetched, counted and shown twice; for two people it is two on purpose."""
    assert counts(root.take(listing({"Ada": ["a"] * 2}))) == (1, 1, 1, 0, 0)
    twice = [
        Listed(name, [Offer("local:group/1"), Offer("local:group/1")]) for name in ("Ada", "Zoë")
    ]
    assert root.take(Listing(twice)).offered == 2
    assert len(root.candidates()) == 3


def test_a_person_without_pictures_has_a_row_that_says_so(root: Root) -> None:
    """Somebody of the list would be missing from the report without a reason."""
    root.take(listing({"Ada": ""}))
    person = root.people()["Ada"]
    assert (person["status"], person["reason"]) == ("filtered", "no_candidates") and person[
        "detail"
    ]
    assert root.candidates() == []
    assert root.take(listing({"Ada": ""})).entries == []
    root.take(listing({"Ada": "a"}))
    person = root.people()["Ada"]
    assert (person["status"], person["reason"], person["detail"]) == ("ok", None, None)


def test_two_spellings_are_one_person_with_an_alias(tmp_path: Path, root: Root) -> None:
    """`Zoë` and `ZOE` with combining marks, as two computers name the folder, would be two
    people.
    """
    for name in ("ZOE\u0308", "Zo\u00eb", "Ada"):
        (tmp_path / "people" / name).mkdir(parents=True)
        (tmp_path / "people" / name / f"{len(name)}.jpg").write_bytes(b"x")
    found = root.take(FolderSource(tmp_path / "people"))
    assert counts(found) == (2, 3, 3, 0, 0)
    (name,) = set(root.people()) - {"Ada"}
    assert {name, *root.people()[name]["aliases"]} == {"ZOE\u0308", "Zo\u00eb"}
    os.rename(tmp_path / "people" / name, tmp_path / "people" / "zoë")
    found = root.take(FolderSource(tmp_path / "people"))
    assert (found.new, found.gone) == (1, 1)
    assert root.people()[name]["aliases"] == sorted({"ZOE\u0308", "Zo\u00eb", "zoë"} - {name})


def test_nothing_is_written_by_a_plan(root: Root) -> None:
    """`idcluster plan` would change the dataset."""
    root.take(listing({"Ada": "ab"}))
    files = root.store.list("")
    found = take_in(
        root.store, root.snapshot, listing({"Ada": {"b": "2", "c": "1"}, "Zoë": "a"}), write=False
    )
    assert counts(found) == (2, 3, 2, 1, 1) and found.entries == []
    assert root.store.list("") == files
    empty = Store(f"{root.store.root}-never")
    assert take_in(empty, Snapshot(), listing({"Ada": "a"}), write=False).new == 1
    assert not Path(empty.root).exists()


def test_a_source_that_cannot_be_listed_takes_nothing_away(tmp_path: Path, root: Root) -> None:
    """A share that is not mounted would declare everything gone."""
    root.take(listing({"Ada": "ab"}))
    with pytest.raises(SourceError, match="does not exist"):
        take_in(root.store, root.snapshot, FolderSource(tmp_path / "not mounted"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="holds no folders"):
        take_in(root.store, root.snapshot, FolderSource(tmp_path / "empty"))


NAMES = ("Ada", "bea", "Cat", "Zoë")
ROUNDS = st.lists(
    st.dictionaries(
        st.sampled_from(NAMES),
        st.dictionaries(st.sampled_from("abcdef"), st.sampled_from("12"), max_size=5),
    ),
    min_size=1,
    max_size=4,
)


@pytest.mark.slow
@pytest.mark.usefixtures("small")
@settings(max_examples=15, deadline=None)
@given(rounds=ROUNDS, data=st.data())
def test_whatever_a_source_does_places_stay_and_rows_say_what_is(
    rounds: list[dict[str, dict[str, str]]], data: st.DataObject
) -> None:
    """Some order of additions, removals and changes would lose, double or move an image."""
    with TemporaryDirectory() as folder:
        root, twin = Root(Path(folder) / "root"), Root(Path(folder) / "twin")
        places: dict[str, tuple[int, int, int]] = {}
        buckets: dict[str, int] = {}
        for people in rounds:
            found = root.take(listing(people))
            now = {
                f"local:{person}/{picture}": mark
                for person, marks in people.items()
                for picture, mark in marks.items()
            }
            rows = {row["address"]: row for row in root.candidates()}
            assert len(rows) == len(root.candidates())
            assert {a: r["fingerprint"] for a, r in rows.items() if r["status"] == "ok"} == now
            assert (
                set(rows) == {*places, *now}
                and found.offered == len(now)
                and found.new == len(set(now) - set(places))
            )
            assert root.places() | places == root.places()
            places = root.places()
            assert max(Counter(place[:2] for place in places.values()).values(), default=0) <= 3
            bucket_of = {name: person["bucket"] for name, person in root.people().items()}
            assert bucket_of | buckets == bucket_of and set(bucket_of) == {*buckets, *people}
            buckets = bucket_of
            assert take_in(root.store, root.snapshot, listing(people)).entries == []
            # The same people in another order, on another machine.
            twin.take(
                listing({name: people[name] for name in data.draw(st.permutations(sorted(people)))})
            )
            assert twin.snapshot == root.snapshot
