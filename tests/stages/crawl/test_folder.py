"""Folders of photographs: what is listed, what is left out, and what a fetch says of files that are
none.
"""

import os
import resource
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas import identity_id
from schemas.fetched import Fetched
from stages.crawl.folder import FolderSource
from stages.crawl.listing import SourceError
from stages.crawl.table import TableSource

FILE_NAMES = [
    "1.jpg",
    "with blank.jpg",
    "100%.jpg",
    "%2e%2e",
    "%41",
    "Zoë-图片.png",
    "Zoe\u0308",
    "a:b",
    "back\\slash",
    "line\nbreak",
]
RAW_NAMES = [b"caf\xe9.jpg", b"\xff\xfe", b"100%\xff%FF", "Zoë".encode("latin-1"), "Zoë".encode()]


@pytest.fixture
def people(tmp_path: Path) -> Path:
    (tmp_path / "people" / "Ada").mkdir(parents=True)
    return tmp_path / "people"


def addresses(source: FolderSource) -> list[str]:
    return [offer.address for person in source.people()[0] for offer in person.offers]


def fetch(source: FolderSource, address: str) -> Fetched:
    (found,) = source.fetch([address])
    return found


def test_one_folder_is_one_person(people: Path) -> None:
    """People or images of the list would be missing, or in another order each time."""
    (people / "Zoë").mkdir()
    for name in ("b.jpg", "a.png", "notes.txt"):
        (people / "Ada" / name).write_bytes(name.encode())
    (people / "Zoë" / "1.jpg").write_bytes(b"z")
    source = FolderSource(people)
    listed, remarks = source.people()
    assert [person.name for person in listed] == ["Ada", "Zoë"] and remarks == []
    assert addresses(source) == [
        "local:Ada/a.png",
        "local:Ada/b.jpg",
        "local:Ada/notes.txt",
        "local:Zoë/1.jpg",
    ]
    assert [found.data for found in source.fetch(addresses(source))] == [
        b"a.png",
        b"b.jpg",
        b"notes.txt",
        b"z",
    ]


def test_addresses_do_not_depend_on_where_the_folder_is(people: Path) -> None:
    """The dataset would start again from nothing when the photographs move to another disk."""
    (people / "Ada" / "1.jpg").write_bytes(b"x")
    before = addresses(FolderSource(people, "album"))
    os.rename(people, people.with_name("moved"))
    assert (
        addresses(FolderSource(people.with_name("moved"), "album")) == before == ["album:Ada/1.jpg"]
    )


def test_hidden_nested_and_loose_files_are_left_out_with_a_remark(people: Path) -> None:
    """A user would wonder why a photograph in a subfolder is not in the dataset."""
    (people / ".cache").mkdir()
    (people / ".DS_Store").write_bytes(b"")
    (people / "loose.jpg").write_bytes(b"x")
    (people / "Ada" / ".hidden.jpg").write_bytes(b"x")
    (people / "Ada" / "1.jpg").write_bytes(b"x")
    for nested in ("2019", ".thumbs"):
        (people / "Ada" / nested).mkdir()
        (people / "Ada" / nested / "2.jpg").write_bytes(b"x")
    listed, remarks = FolderSource(people).people()
    assert [person.name for person in listed] == ["Ada"] and addresses(FolderSource(people)) == [
        "local:Ada/1.jpg"
    ]
    assert remarks == [
        f"1 file beside the folders of people in {people} is not used",
        f"1 folder inside {people / 'Ada'} is not used",
    ]


def test_a_person_without_files_is_listed(people: Path) -> None:
    """Somebody of the list would vanish."""
    (listed,), _ = FolderSource(people).people()
    assert (listed.name, listed.offers) == ("Ada", [])


def closed(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Folders that may not be listed, also by root, who runs tests in containers."""
    listing = os.scandir

    def scandir(path: str | os.PathLike[str]) -> object:
        if os.path.basename(path) in names:
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return listing(path)

    monkeypatch.setattr(os, "scandir", scandir)


def test_a_folder_that_cannot_be_listed_costs_only_itself(
    people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`lost+found` on a disk would refuse everybody, or a folder that is closed for an hour take
    its images out of the dataset.
    """
    for name in ("lost+found", "Zoë"):
        (people / name).mkdir()
        (people / name / "1.jpg").write_bytes(b"x")
    closed(monkeypatch, "lost+found")
    listed, remarks = FolderSource(people).people()
    assert [(person.name, len(person.offers), person.complete) for person in listed] == [
        ("Ada", 0, True),
        ("Zoë", 1, True),
        ("lost+found", 0, False),
    ]
    assert remarks == [
        f"{people / 'lost+found'} cannot be listed (Permission denied); its images stay as "
        "they were"
    ]
    closed(monkeypatch, "Ada", "Zoë", "lost+found")
    with pytest.raises(SourceError, match="Permission denied"):
        FolderSource(people).people()


@pytest.mark.parametrize("layout", ["lfw", "agedb", "ffhq"])
def test_a_published_data_set_is_told_of_what_cannot_be_listed(
    people: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    """Half of a data set would be gone without a word."""
    for name in ("Ada", "Zoë"):
        (people / "images1024x1024" / name).mkdir(parents=True, exist_ok=True)
        (people / "images1024x1024" / name / "0_Ada_3_f.png").write_bytes(b"x")
    path = people if layout == "ffhq" else people / "images1024x1024"
    closed(monkeypatch, "Zoë")
    source = TableSource(path, "table", layout)
    listed, remarks = source.people()
    assert sum(len(person.offers) for person in listed) == 1 and source.incomplete
    place = people / "images1024x1024" / "Zoë"
    assert f"{place} cannot be listed (Permission denied), and what is in it is not used" in remarks


@pytest.mark.parametrize("name", FILE_NAMES)
def test_any_name_leads_back_to_its_file(people: Path, name: str) -> None:
    """A photograph would be reported missing, or another one taken, because of a percent sign in
    its name.
    """
    (people / name).mkdir()
    (people / name / name).write_bytes(name.encode())
    source = FolderSource(people)
    (address,) = addresses(source)
    assert fetch(source, address).data == name.encode()
    assert name in {person.name for person in source.people()[0]}


@pytest.mark.parametrize("raw", RAW_NAMES)
def test_names_that_are_no_utf8_lead_back_to_their_file(people: Path, raw: bytes) -> None:
    """An old archive would stop the run, as such names cannot be written to a table."""
    folder = os.path.join(os.fsencode(people), raw)
    os.mkdir(folder)
    with open(os.path.join(folder, raw), "wb") as file:
        file.write(raw)
    source = FolderSource(people)
    (address,) = addresses(source)
    assert address.encode().decode() == address
    assert fetch(source, address).data == raw
    assert all(person.name.encode() and identity_id(person.name) for person in source.people()[0])


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.sets(
        st.lists(st.sampled_from([*range(1, 46), *range(48, 256)]), min_size=1, max_size=12).map(
            bytes
        ),
        max_size=4,
    )
)
def test_different_files_have_different_addresses(
    tmp_path_factory: pytest.TempPathFactory, names: set[bytes]
) -> None:
    """Two photographs whose names differ only in escapes would be one."""
    people = tmp_path_factory.mktemp("people")
    os.mkdir(people / "Ada")
    for name in names:
        with open(os.path.join(os.fsencode(people), b"Ada", name), "wb") as file:
            file.write(name)
    source = FolderSource(people)
    found = addresses(source)
    assert len(set(found)) == len(names)
    assert {fetched.data for fetched in source.fetch(found)} == names


ESCAPES = [
    "local:../secret",
    "local:Ada/../../secret",
    "local:Ada/..%2F..%2Fsecret",
    "local:%2e%2e/secret",
    "local:Ada/..",
    "local:Ada/.",
    "local:./secret",
    "local:Ada",
    "local:Ada/",
    "local:/secret",
    "local://secret",
    "local:Ada/%00",
    "local:Ada/2019/1.jpg",
    "local:",
    "",
    "Ada/1.jpg",
    "other:Ada/1.jpg",
    "/etc/passwd",
    "https://example.org/1.jpg",
]


@pytest.mark.parametrize("address", ESCAPES)
def test_an_address_never_leads_out_of_the_folder(people: Path, address: str) -> None:
    """A crafted list of candidates would bring files of the machine into the dataset."""
    (people.parent / "secret").write_bytes(b"secret")
    (people / "secret").write_bytes(b"secret")
    (people / "Ada" / "1.jpg").write_bytes(b"x")
    found = fetch(FolderSource(people), address)
    assert (found.data, found.status, found.reason) == (None, "failed", "bad_address")
    assert repr(address) in str(found.detail)


def test_what_cannot_be_read_has_a_reason_and_takes_nothing_along(people: Path) -> None:
    """One named pipe, broken link or folder would stop the run or let it wait for ever."""
    ada = people / "Ada"
    (ada / "good.jpg").write_bytes(b"good")
    (ada / "empty.jpg").write_bytes(b"")
    os.mkfifo(ada / "pipe")
    os.symlink("nowhere", ada / "dangling")
    os.symlink("loop", ada / "loop")
    os.symlink("good.jpg", ada / "link")
    (ada / "nested").mkdir()
    source = FolderSource(people)
    listed, remarks = source.people()
    names = [offer.address.rpartition("/")[2] for offer in listed[0].offers]
    assert (
        names == ["dangling", "empty.jpg", "good.jpg", "link", "loop", "pipe"] and len(remarks) == 1
    )
    prints = {offer.address.rpartition("/")[2]: offer.fingerprint for offer in listed[0].offers}
    assert prints["dangling"] == prints["loop"] == "unreadable" != prints["good.jpg"]
    files = len(os.listdir("/proc/self/fd"))
    found = {name: fetch(source, f"local:Ada/{name}") for name in [*names, "nested", "gone"]}
    assert len(os.listdir("/proc/self/fd")) == files
    assert {
        name: f.data if f.status == "ok" else (f.status, f.reason) for name, f in found.items()
    } == {
        "good.jpg": b"good",
        "link": b"good",
        "empty.jpg": b"",
        "dangling": ("failed", "not_found"),
        "gone": ("failed", "not_found"),
        "loop": ("failed", "unreadable"),
        "pipe": ("failed", "not_a_file"),
        "nested": ("failed", "not_a_file"),
    }
    assert all(f.detail for f in found.values() if f.status != "ok")
    assert all(f.data is None for f in found.values() if f.status != "ok")


def test_a_link_to_itself_beside_the_people_is_a_loose_file(people: Path) -> None:
    """One such link would stop the run."""
    os.symlink("loop", people / "loop")
    listed, remarks = FolderSource(people).people()
    assert [person.name for person in listed] == ["Ada"] and remarks[0].startswith("1 file ")


def test_a_folder_may_be_a_link(people: Path) -> None:
    """A list put together from links would be empty."""
    (people / "Ada" / "1.jpg").write_bytes(b"x")
    os.symlink("Ada", people / "Countess")
    source = FolderSource(people)
    assert addresses(source) == ["local:Ada/1.jpg", "local:Countess/1.jpg"]
    assert fetch(source, "local:Countess/1.jpg").data == b"x"


def test_a_file_too_large_is_not_read_into_memory(people: Path) -> None:
    """A video of 20 GB in a folder of photographs would kill the worker."""
    with open(people / "Ada" / "film.jpg", "wb") as file:
        file.truncate(20 << 30)
    (people / "Ada" / "just.jpg").write_bytes(b"x" * 100)
    source = FolderSource(people, max_bytes=100)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = fetch(source, "local:Ada/film.jpg")
    assert (found.data, found.status, found.reason, found.detail) == (
        None,
        "failed",
        "too_large",
        "more than 100 bytes",
    )
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000
    assert fetch(source, "local:Ada/just.jpg").data == b"x" * 100


def test_a_replaced_file_has_another_fingerprint(people: Path) -> None:
    """A new photograph under an old name would never be fetched."""
    file = people / "Ada" / "1.jpg"
    file.write_bytes(b"one")
    source = FolderSource(people)

    def mark() -> str | None:
        return source.people()[0][0].offers[0].fingerprint

    first = mark()
    assert first == mark()
    file.write_bytes(b"three")
    second = mark()
    os.utime(file, ns=(5, 5))
    assert len({first, second, mark()}) == 3


def test_a_source_that_cannot_be_listed_says_how_to_mend_it(tmp_path: Path) -> None:
    """The first run of a new user would end in a stack trace, or in an empty dataset."""
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "loose.jpg").write_bytes(b"")
    for name, words in {
        "none": "none does not exist; set source.path to a folder with one folder a person",
        "file": "file is not a folder; set source.path to a folder with one folder a person",
        "empty": "empty holds no folders; it needs one folder a person: people/<name>/*.jpg",
    }.items():
        with pytest.raises(SourceError) as caught:
            FolderSource(tmp_path / name, "album").people()
        assert str(caught.value) == f"source 'album': {tmp_path}/{words}"


def test_folders_that_differ_in_bytes_that_are_no_text_stay_two_people(tmp_path: Path) -> None:
    """Images of two people would be mixed in one."""
    for name in (b"Jos\xe9", b"Jos\xe8"):
        folder = os.fsencode(tmp_path) + b"/" + name
        os.mkdir(folder)
        with open(folder + b"/1.jpg", "wb") as file:
            file.write(b"x")
    listed, _ = FolderSource(tmp_path).people()
    assert sorted(person.name for person in listed) == ["Jos%E8", "Jos%E9"]


def test_check_tells_a_bad_source_without_listing_it(tmp_path: Path) -> None:
    """A typing error in a path would leave an empty dataset behind."""
    with pytest.raises(SourceError, match="does not exist"):
        FolderSource(tmp_path / "nowhere").check()
    with pytest.raises(SourceError, match="holds no folders"):
        FolderSource(tmp_path).check()


def test_images_in_the_folder_of_references_say_who_the_person_is(people: Path) -> None:
    (people / "Ada" / "1.jpg").write_bytes(b"x")
    (people / "Ada" / "_reference").mkdir()
    (people / "Ada" / "_reference" / "passport.jpg").write_bytes(b"p")
    (people / "Ada" / "_reference" / ".hidden").write_bytes(b"h")
    (people / "Ada" / "other").mkdir()
    source = FolderSource(people)
    [person], remarks = source.people()
    said = {offer.address: offer.reference for offer in person.offers}
    assert said == {"local:Ada/1.jpg": None, "local:Ada/_reference/passport.jpg": "yes"}
    assert len(remarks) == 1 and "1 folder" in remarks[0]
    assert fetch(source, "local:Ada/_reference/passport.jpg").data == b"p"
    assert fetch(source, "local:Ada/other/passport.jpg").reason == "bad_address"
