"""What must not come back: keyed hashes of people, addresses and images that were removed, kept
in the root's receipts.

A receipt (`receipts/<id>.json`) is written by `pipeline.forget.erase` and says when, how much, and
what is barred since, as hashes under a key that lies beside it: whoever has the receipts or the
table `removals` alone cannot try names out on them. Whoever has the whole root can, so the key is
to be as private as the root. A root without receipts bars nothing.

Names are compared by their words, without case and punctuation (`name`, of which older receipts
have nothing else), and in every spelling that means the same (`spelling`, see
`idcluster.root.spellings`). Images are barred by their bytes, and by perceptual hashes that
differ in at most `NEAR_BITS` of 64 bits: of each new image all hashes that near are looked up
(SipHash-2-4, Aumasson and Bernstein 2012, of 43 745 of them at once), so that the hash itself need
not be kept. Mirrored, cropped and turned copies are known by `look`: hashes of what they may look
like (`stages.lookalikes`), packed, 2.7 kB an image.
"""

import hashlib
import json
import re
import secrets
import unicodedata
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import cache, cached_property
from itertools import combinations
from typing import Any, Protocol, TypeVar
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from idcluster.root.dataset_root import RunError
from idcluster.root.spellings import read_as
from idcluster.root.storage import Store
from schemas import identity_id
from schemas.columns import vectors

FOLDER = "receipts"
KEY = f"{FOLDER}/key.json"
UNFINISHED = f"{FOLDER}/unfinished.json"
"""What a removal that is at work has to do. It names the person, and is deleted when all is
done.
"""
FORMAT = 1
KINDS = (
    "identity",
    "name",
    "spelling",
    "external_id",
    "address",
    "image",
    "sha256",
    "phash",
    "vector",
)
LOOK = "look"
"""Beside KINDS: a text of base64, of eight bytes a hash. They are in receipts alone, for a table
would have hundreds of rows an image.
"""
NEAR_BITS = 3
"""Bits in which the perceptual hash of an image may differ from a barred one, as in the stage
match. (Photographs of one person are 8 apart and more, see stages.clean.duplicates; halved or
compressed copies mostly within 2.)
"""
REASON = "removed"


# Texts


def folded(name: str) -> str:
    """A name as `schemas.ids.identity_id` compares it: case-folded NFC, runs of white space as one
    blank.
    """
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    return " ".join(text.split())


def words(text: str) -> str:
    """The words of a text or address, case-folded, with single blanks between them; of signs alone,
    the signs.
    """
    plain = folded(unquote(text))
    return " ".join(re.findall(r"[^\W_]+", plain)) or plain


def telling(phash: int) -> bool:
    """Whether a perceptual hash says which image it is: flat and empty ones have hashes that many
    share.
    """
    return 8 <= phash.bit_count() <= 56


# Hashes under a key


@dataclass(frozen=True)
class Key:
    """The secret of a root: 32 bytes."""

    secret: bytes

    def text(self, kind: str, value: str) -> str:
        """32 hex digits of a text (names by their words, see `words`)."""
        return hashlib.blake2b(
            value.encode(), key=self.secret, digest_size=16, person=kind.encode()
        ).hexdigest()

    def vector(self, values: Sequence[float] | np.ndarray) -> str:
        """32 hex digits of an embedding in single precision, bit for bit."""
        data = np.ascontiguousarray(values, np.float32).tobytes()
        return hashlib.blake2b(data, key=self.secret, digest_size=16, person=b"vector").hexdigest()

    def phashes(self, hashes: np.ndarray) -> np.ndarray:
        """(n,) uint64 of (n,) uint64 perceptual hashes."""
        return siphash(
            hashes, hashlib.blake2b(self.secret, digest_size=16, person=b"phash").digest()
        )


def packed(hashes: np.ndarray) -> str:
    """(n,) uint64 as a text, each once."""
    return b64encode(np.unique(hashes).astype("<u8").tobytes()).decode()


def unpacked(text: str) -> np.ndarray:
    """(n,) uint64 of a text."""
    return np.frombuffer(b64decode(text), "<u8").astype(np.uint64)


def siphash(values: np.ndarray, key: bytes) -> np.ndarray:
    """SipHash-2-4 of 64-bit numbers, each a message of 8 bytes: (n,) uint64. `key`: 16 bytes."""
    low, high = (np.uint64(int.from_bytes(key[at : at + 8], "little")) for at in (0, 8))
    message = np.ascontiguousarray(values, np.uint64)
    start = (
        low ^ np.uint64(0x736F6D6570736575),
        high ^ np.uint64(0x646F72616E646F6D),
        low ^ np.uint64(0x6C7967656E657261),
        high ^ np.uint64(0x7465646279746573),
    )
    v0, v1, v2, v3 = (np.full(len(message), value) for value in start)

    def turn(value: np.ndarray, bits: int) -> None:
        carry = value >> np.uint64(64 - bits)
        value <<= np.uint64(bits)
        value |= carry

    def rounds(count: int) -> None:
        nonlocal v0, v1, v2, v3
        for _ in range(count):
            v0 += v1
            turn(v1, 13)
            v1 ^= v0
            turn(v0, 32)
            v2 += v3
            turn(v3, 16)
            v3 ^= v2
            v0 += v3
            turn(v3, 21)
            v3 ^= v0
            v2 += v1
            turn(v1, 17)
            v1 ^= v2
            turn(v2, 32)

    for block in (message, np.uint64(8 << 56)):
        v3 ^= block
        rounds(2)
        v0 ^= block
    v2 ^= np.uint64(0xFF)
    rounds(4)
    mixed: np.ndarray = v0 ^ v1 ^ v2 ^ v3
    return mixed


@cache
def _changes() -> np.ndarray:
    """All changes of at most NEAR_BITS of 64 bits."""
    found = [0]
    for count in range(1, NEAR_BITS + 1):
        found += [sum(1 << bit for bit in bits) for bits in combinations(range(64), count)]
    return np.array(found, np.uint64)


# What is barred


class Person(Protocol):
    """Somebody as a source names them. `given` is an external id that stands for the person."""

    @property
    def name(self) -> str: ...

    @property
    def given(self) -> str | None: ...

    @property
    def aliases(self) -> tuple[str, ...]: ...

    @property
    def external_ids(self) -> Mapping[str, str]: ...


P = TypeVar("P", bound=Person)

Guesses = Callable[[bytes], np.ndarray]
"""Of an image's bytes the perceptual hashes of what it may be a copy of, (n,) uint64."""


@dataclass(frozen=True)
class FaceBar:
    """A face that is barred by its vector: biometric data, kept only if somebody asked for it."""

    recogniser: str
    threshold: float
    vector: tuple[float, ...]


@dataclass(frozen=True)
class Bars:
    """What may not come back, by kind; nothing without a key."""

    key: Key
    hashes: Mapping[str, frozenset[str]] = field(default_factory=dict)
    faces: tuple[FaceBar, ...] = ()
    guesses: Guesses | None = None
    """What knows mirrored, cropped and turned copies. It needs pixels, which whoever reads a
    dataset does without; whoever looks at images passes it to `load_bars`.
    """

    def __bool__(self) -> bool:
        return any(self.hashes.values()) or bool(self.faces)

    def text(self, kind: str, value: str) -> bool:
        known = self.hashes.get(kind)
        return known is not None and len(known) > 0 and self.key.text(kind, value) in known

    def name(self, name: str) -> bool:
        """Whether a name is barred, in any spelling."""
        if self.text("name", words(name)):
            return True
        return bool(self.hashes.get("spelling")) and any(
            self.text("spelling", key) for key in read_as(name)
        )

    def person(self, listed: Person) -> bool:
        """Whether somebody whom a source lists is barred: by id, by an external id or by any
        spelling of the name.
        """
        if not self:
            return False
        if self.text("identity", identity_id(listed.name, listed.given)):
            return True
        if any(self.name(name) for name in (listed.name, *listed.aliases)):
            return True
        ids = [*listed.external_ids.values(), *([] if listed.given is None else [listed.given])]
        return any(self.text("external_id", value) for value in ids)

    def people(self, listed: Sequence[P]) -> list[P]:
        """Those who are not barred."""
        return [person for person in listed if not self.person(person)] if self else list(listed)

    def address(self, address: str) -> bool:
        return self.text("address", address)

    def picture(self, sha256: str | None, phash: int | None, data: bytes | None = None) -> bool:
        """Whether an image is barred by its bytes, or looks like one that is: mirrored, cropped or
        turned if `data` is given.
        """
        if sha256 is not None and self.text("sha256", sha256):
            return True
        if phash is None or not telling(phash):
            return False
        if self._among(self._phashes, np.uint64(phash) ^ _changes()):
            return True
        if data is None or not len(self.looks):
            return False
        if self.guesses is None:
            raise ValueError("bars that look at images are loaded with `guesses`")
        return self._among(self.looks, self.guesses(data))

    def _among(self, known: np.ndarray, hashes: np.ndarray) -> bool:
        """Whether one of some perceptual hashes is, hashed, among sorted ones."""
        if not len(known):
            return False
        for at in range(0, len(hashes), 4096):  # in blocks that stay in the processor's cache
            hashed = self.key.phashes(hashes[at : at + 4096])
            if (known[np.minimum(np.searchsorted(known, hashed), len(known) - 1)] == hashed).any():
                return True
        return False

    @cached_property
    def looks(self) -> np.ndarray:
        """(n,) uint64, sorted: hashes under the key of what copies may look like."""
        return np.unique(
            np.concatenate([np.zeros(0, np.uint64), *map(unpacked, self.hashes.get(LOOK, ()))])
        )

    @cached_property
    def _phashes(self) -> np.ndarray:
        return np.sort(
            np.array([int(value, 16) for value in self.hashes.get("phash", ())], np.uint64)
        )

    def screen(self, table: str, rows: pa.Table) -> pa.Table:
        """Rows of `images` or `embeddings` as a stage has just written them; of those that are
        barred only that they are.
        """
        if not self or table not in ("images", "embeddings") or not rows.num_rows:
            return rows
        barred = self._pictures(rows) if table == "images" else self._near_faces(rows)
        if not barred.any():
            return rows
        keep = {"identity_id", "image_id", "face_id", "inputs"}
        said = {"status": "filtered", "reason": REASON}
        mask = pa.array(barred)
        columns = []
        for name in rows.column_names:
            column = rows[name]
            if name not in keep:
                column = pc.if_else(mask, pa.scalar(said.get(name), column.type), column)
            columns.append(column)
        return pa.table(columns, schema=rows.schema)

    def _pictures(self, rows: pa.Table) -> np.ndarray:
        pairs = zip(rows["sha256"].to_pylist(), rows["phash"].to_pylist(), strict=True)
        files = rows["bytes"] if "bytes" in rows.column_names and len(self.looks) else None
        barred = [
            self.picture(*pair, None if files is None else files[at].as_py())
            for at, pair in enumerate(pairs)
        ]
        return np.array(barred, bool)

    def _near_faces(self, rows: pa.Table) -> np.ndarray:
        barred = np.zeros(rows.num_rows, bool)
        for face in self.faces:
            mine = np.flatnonzero(
                pc.fill_null(
                    pc.and_(
                        pc.equal(rows["recogniser"], face.recogniser), rows["vector"].is_valid()
                    ),
                    False,
                )
            )
            if len(mine):
                unit = vectors(rows["vector"].take(pa.array(mine)))
                if unit.shape[1] == len(face.vector):
                    barred[mine] |= (
                        unit.astype(np.float64) @ np.array(face.vector) >= face.threshold
                    )
        return barred


NO_BARS = Bars(Key(b""))


# Receipts


@dataclass
class Receipt:
    """What a removal leaves behind. `asked` and `removed` count; `hashes` are by kind;
    `finished_at` is null until all is done.
    """

    receipt: str
    removed_at: str
    finished_at: str | None = None
    asked: dict[str, int] = field(default_factory=dict)
    removed: dict[str, Any] = field(default_factory=dict)
    hashes: dict[str, list[str]] = field(default_factory=dict)
    faces: list[dict[str, Any]] = field(default_factory=list)
    unreachable: list[str] = field(default_factory=list)
    format: int = FORMAT

    @property
    def path(self) -> str:
        return f"{FOLDER}/{self.receipt}.json"

    def encode(self) -> bytes:
        return json.dumps(asdict(self), indent=1, sort_keys=True).encode() + b"\n"

    @staticmethod
    def decode(data: bytes, source: str) -> "Receipt":
        try:
            receipt = Receipt(**json.loads(data))
        except (ValueError, TypeError) as error:
            raise RunError(
                f"{source} is damaged ({error}); it says what must not come back: bring it back "
                "from a copy"
            ) from error
        if receipt.format != FORMAT:
            raise RunError(
                f"{source} has format {receipt.format}; this idcluster reads format {FORMAT}"
            )
        return receipt


def receipts(store: Store) -> list[Receipt]:
    """All receipts of a root, oldest first. Raises RunError for a damaged one: what is barred would
    be forgotten.
    """
    paths = [
        path
        for path in store.list(FOLDER)
        if path.endswith(".json") and path not in (KEY, UNFINISHED)
    ]
    found = [Receipt.decode(store.read(path), store.uri(path)) for path in paths]
    return sorted(found, key=lambda receipt: (receipt.removed_at, receipt.receipt))


def key_of(store: Store, make: bool = False) -> Key | None:
    """The key of a root; with `make` one is made where there is none."""
    try:
        data = store.read(KEY)
    except FileNotFoundError:
        if not make:
            return None
        fresh = json.dumps(
            {"key": secrets.token_hex(32), "use": "hashes in receipts; as private as the root"},
            indent=1,
        )
        store.put_new(KEY, fresh.encode() + b"\n")
        data = store.read(KEY)
    try:
        return Key(bytes.fromhex(json.loads(data)["key"]))
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{store.uri(KEY)} is damaged ({error}); without it nothing that was removed is "
            "known again"
        ) from error


def load_bars(store: Store, guesses: Guesses | None = None) -> Bars:
    """What must not come back into a root. `guesses` (`stages.lookalikes`) is for whoever takes
    images in.
    """
    found = receipts(store)
    if not found:
        return NO_BARS
    key = key_of(store)
    if key is None:
        raise RunError(
            f"{store.uri(KEY)} is gone; without it nothing that was removed is known again: "
            "bring it back from a copy"
        )
    hashes = {
        kind: frozenset(value for receipt in found for value in receipt.hashes.get(kind, ()))
        for kind in (*KINDS, LOOK)
    }
    faces = (face for receipt in found for face in receipt.faces)
    return Bars(
        key,
        hashes,
        tuple(
            FaceBar(face["recogniser"], face["threshold"], tuple(face["vector"])) for face in faces
        ),
        guesses,
    )


def check_finished(store: Store) -> None:
    """Raise RunError where a removal was broken off: nothing else may be written until it is
    done.
    """
    if store.exists(UNFINISHED):
        raise RunError(
            f"a removal from {store.root} was broken off; `idcluster forget {store.root} "
            "--resume` finishes it, then go on"
        )


def table_rows(found: Iterable[Receipt]) -> list[dict[str, Any]]:
    """Rows of the table `removals`, in a fixed order."""
    rows = []
    for receipt in found:
        when = datetime.fromisoformat(receipt.removed_at)
        about = {"removed_at": when, "receipt": receipt.receipt}
        rows += [
            {"hash": value, "kind": kind, **about}
            for kind in KINDS
            for value in sorted(receipt.hashes.get(kind, ()))
        ]
    return rows
