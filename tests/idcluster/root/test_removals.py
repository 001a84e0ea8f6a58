"""What must not come back: names in any spelling, addresses, images and their copies; and nobody
else.
"""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from idcluster.root.dataset_root import RunError
from idcluster.root.removals import (
    KEY,
    NEAR_BITS,
    Bars,
    FaceBar,
    Key,
    Receipt,
    check_finished,
    key_of,
    load_bars,
    siphash,
    words,
)
from idcluster.root.spellings import read_as, spellings
from idcluster.root.storage import Store
from schemas import TABLES, identity_id
from stages.crawl.listing import Listed

KEY_OF = Key(bytes(range(32)))


def bars(**values: list[str]) -> Bars:
    return Bars(
        KEY_OF,
        {
            kind: frozenset(KEY_OF.text(kind, value) for value in some)
            for kind, some in values.items()
        },
    )


def phash_bar(value: int) -> Bars:
    return Bars(
        KEY_OF,
        {
            "phash": frozenset(
                f"{hashed:016x}" for hashed in KEY_OF.phashes(np.array([value], np.uint64)).tolist()
            )
        },
    )


def test_siphash_is_the_published_one() -> None:
    """Another function under that name would be weak, or other with the next version, and nothing
    would be barred any more.

    From the test vectors of the reference implementation: key 00..0f, message 00..07.
    """
    [found] = siphash(np.array([0x0706050403020100], np.uint64), bytes(range(16))).tolist()
    assert found.to_bytes(8, "little").hex() == "6224939a79f5f593"


@pytest.mark.parametrize(
    "listed",
    [
        Listed("Zoë  KRAVITZ", []),
        Listed("Zoe\u0308 Kravitz", []),
        Listed("zoë_kravitz", []),
        Listed("Zoë-Kravitz", []),
        Listed("Z. K.", [], aliases=("Zoë Kravitz",)),
        Listed("Z", [], given="Q1"),
        Listed("Z", [], external_ids={"imdb": "Q1"}),
        Listed("by id", []),
    ],
    ids=str,
)
def test_people_are_barred_in_any_spelling_and_by_any_id(listed: Listed) -> None:
    """A source that writes the name in another way, or knows an id, would bring the person back."""
    barred = bars(name=[words("Zoë Kravitz")], external_id=["Q1"], identity=[identity_id("by id")])
    assert barred.person(listed) and barred.people([listed]) == []


@pytest.mark.parametrize(
    "listed",
    [
        Listed("Zoë", []),
        Listed("Zoë Kravitz Senior", []),
        Listed("Q1", []),
        Listed("A", [], given="Q12"),
    ],
    ids=str,
)
def test_others_are_not_barred(listed: Listed) -> None:
    """Somebody with a part of the name would vanish from every dataset."""
    assert not bars(name=[words("Zoë Kravitz")], external_id=["Q1"]).person(listed)


@pytest.mark.parametrize(
    ("barred", "listed"),
    [
        ("Ada Lovelace", "Lovelace, Ada"),
        ("Ada Lovelace", "АDА lоvеlасе"),
        ("Ada Lovelace", "Ａｄａ Ｌｏｖｅｌａｃｅ"),
        ("Ada Lovelace", "A\u200bda  Love\u00adlace"),
        ("Zoë Kravitz", "Kravitz Zoe"),
        ("Zoe Kravitz", "Zoë Krävitz"),
        ("Аda Lovelace", "Ada Lovelace"),
        ("Søren Łuczak", "Soren Luczak"),
        ("Владимир Путин", "ПУТИН, ВЛАДИМИР"),
        ("Νίκος Παπάς", "ΠΑΠΑΣ ΝΙΚΟΣ"),
        ("王菲", "王 菲"),
        ("Conan O'Brien", "Conan OBrien"),
        ("Ada Lovelace", "AdaLovelace"),
        ("Jean-Luc Picard", "Picard, Jean Luc"),
    ],
)
def test_a_name_is_barred_in_every_spelling_that_means_the_same(barred: str, listed: str) -> None:
    """Whoever lists the person by another keyboard, with a letter that looks alike or the family
    name first, would bring them back.
    """
    found = bars(spelling=list(spellings(barred)))
    assert (
        found.name(listed)
        and found.person(Listed(listed, []))
        and found.person(Listed("A. L.", [], aliases=(listed,)))
    )
    assert not bars(name=[words(barred)]).name("somebody else")


@pytest.mark.parametrize(
    "listed",
    [
        "Ada",
        "Adam Lovelace",
        "Ada King Lovelace",
        "Ada Lovelace Senior",
        "Ava Lovelace",
        "Lina",
        "राम",
        "",
    ],
)
def test_a_spelling_of_another_name_is_not_barred(listed: str) -> None:
    assert not bars(
        spelling=[key for name in ("Ada Lovelace", "Li Na", "रम", "?!") for key in spellings(name)]
    ).name(listed)


def test_bars_of_older_receipts_keep_working() -> None:
    """They have hashes of names by their words, and of nothing else."""
    old = Bars(KEY_OF, {"name": frozenset({KEY_OF.text("name", "zoë kravitz")})})
    assert (
        old.name("ZOË_Kravitz") and old.name("Zoe\u0308-kravitz") and not old.name("Kravitz, Zoë")
    )
    assert KEY_OF.text("name", words("Zoë Kravitz")) == "91d1ec4e35fbd9abe8eb3b8be43cda4e"


@pytest.mark.slow
@given(st.text(max_size=30), st.text(max_size=30))
def test_spellings_do_not_hang_on_order_case_or_blanks(one: str, other: str) -> None:
    known = spellings(f"{one} {other}")
    assert not known or known & read_as(f"  {other}\t{one} \u200b")


@given(
    st.integers(0, 2**64 - 1).filter(lambda value: 12 <= value.bit_count() <= 52),
    st.sets(st.integers(0, 63), max_size=8),
)
def test_a_picture_is_barred_by_a_hash_that_differs_in_few_bits(value: int, bits: set[int]) -> None:
    """A copy at half the size would come back; another photograph would be refused."""
    near = value
    for bit in bits:
        near ^= 1 << bit
    assert phash_bar(value).picture(None, near) == (len(bits) <= NEAR_BITS)


def test_flat_pictures_are_barred_by_their_bytes_alone() -> None:
    """One black image would bar all black images."""
    assert not phash_bar(0).picture("a" * 64, 0) and bars(sha256=["a" * 64]).picture("a" * 64, 0)


def test_of_a_barred_picture_only_that_is_kept() -> None:
    """Its bytes, or the address that it came from, would be in the dataset again."""
    rows = [
        {
            "identity_id": "p",
            "image_id": f"i{n}",
            "bytes": b"x",
            "sha256": str(n) * 64,
            "phash": 7,
            "status": "ok",
            "final_address": "https://x",
        }
        for n in range(3)
    ]
    table = TABLES["images"].build_without("inputs", rows)
    screened = bars(sha256=["1" * 64]).screen("images", table)
    assert screened.schema == table.schema
    first, second, third = screened.to_pylist()
    assert (first, third) == (table.to_pylist()[0], table.to_pylist()[2])
    assert {name: value for name, value in second.items() if value is not None} == {
        "identity_id": "p",
        "image_id": "i1",
        "status": "filtered",
        "reason": "removed",
    }


def test_a_barred_face_loses_its_vector_and_others_do_not() -> None:
    """The face that somebody asked to be barred would be compared and kept."""
    near, far = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]
    barred = Bars(KEY_OF, {}, (FaceBar("space", 0.5, (1.0, 0.0, 0.0)),))
    rows = [
        {
            "identity_id": "p",
            "image_id": f"i{n}",
            "face_id": f"f{n}",
            "recogniser": space,
            "vector": vector,
            "status": "ok",
        }
        for n, (space, vector) in enumerate([("space", near), ("space", far), ("another", near)])
    ]
    screened = barred.screen(
        "embeddings", TABLES["embeddings"].build_without("inputs", rows)
    ).to_pylist()
    assert [(row["status"], row["reason"], row["vector"]) for row in screened] == [
        ("filtered", "removed", None),
        ("ok", None, far),
        ("ok", None, near),
    ]


def test_without_receipts_nothing_is_barred_and_nothing_is_written(tmp_path: Path) -> None:
    """Every root would get a key, and every row be looked at."""
    store = Store(tmp_path)
    found = load_bars(store)
    table = TABLES["images"].build_without("inputs", [])
    assert (
        not found
        and found.screen("images", table) is table
        and key_of(store) is None
        and store.list("") == []
    )
    check_finished(store)


def test_a_lost_key_or_receipt_is_told_and_not_passed_over(tmp_path: Path) -> None:
    """A run would take in again whoever was removed, without a word."""
    store = Store(tmp_path)
    key = key_of(store, make=True)
    assert key is not None
    receipt = Receipt(
        "20260101T000000-aaaa",
        "2026-01-01T00:00:00+00:00",
        hashes={"address": [key.text("address", "https://x")]},
    )
    store.put(receipt.path, receipt.encode())
    assert load_bars(store).address("https://x") and not load_bars(store).address("https://y")
    whole = store.read(receipt.path)
    store.put(receipt.path, whole[:-20])
    with pytest.raises(RunError, match=r"is damaged .* bring it back from a copy"):
        load_bars(store)
    store.put(receipt.path, whole)
    store.put(KEY, json.dumps({"key": "no"}).encode())
    with pytest.raises(RunError, match=r"key\.json is damaged"):
        load_bars(store)
    store.delete([KEY])
    with pytest.raises(RunError, match=r"key\.json is gone"):
        load_bars(store)


def test_hashes_say_nothing_without_the_key() -> None:
    """A list of removals would be a table to look names up in."""
    other = Key(bytes(32))
    assert KEY_OF.text("name", "ada") != other.text("name", "ada") != KEY_OF.text("address", "ada")
    assert KEY_OF.vector([1.0, 0.0]) != other.vector([1.0, 0.0])
    assert KEY_OF.phashes(np.array([7], np.uint64)) != other.phashes(np.array([7], np.uint64))
    assert "ada" not in json.dumps(pa.table({"hash": [KEY_OF.text("name", "ada")]}).to_pylist())
