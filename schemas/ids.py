"""Stable ids: a row is the same row in every run, on every machine, whatever was seen before it.

Ids are lower-case hexadecimal strings, so that they read well in SQL, file names and shard keys (no
dots, no slashes). Lengths follow the expected counts: 64 bits for people, 96 bits for images and
faces (under 1e-8 chance of any collision among 500 million images).
"""

import hashlib
import unicodedata
from collections.abc import Sequence


def _digest(domain: bytes, parts: Sequence[bytes], size: int) -> str:
    hasher = hashlib.blake2b(digest_size=size, person=domain)
    for part in parts:
        hasher.update(len(part).to_bytes(4, "little"))
        hasher.update(part)
    return hasher.hexdigest()


def identity_id(name: str, given: str | None = None) -> str:
    """The id of a person: `given` (an external id, such as a Wikidata Q-id) if there is one, else a
    hash of the name.

    The name is compared as case-folded NFC text with runs of white space as one blank, so that
    `Zoë`, `ZOË` and a decomposed `Zoë` are one person.
    """
    if given is not None:
        return _digest(b"external", [given.encode()], 8)
    # NFC once more after folding: case folding can leave a decomposed sequence behind.
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    return _digest(b"identity", [" ".join(folded.split()).encode()], 8)


def image_id(identity: str, address: str) -> str:
    """The id of an image of a person at a canonical address. The same image listed for two
    people has two ids.
    """
    return _digest(b"image", [identity.encode(), address.encode()], 12)


def face_id(image: str, box: Sequence[float]) -> str:
    """The id of a face in an image. `box` is (x1, y1, x2, y2) in pixels of the upright image,
    hashed at 1/16 pixel.
    """
    return _digest(
        b"face", [image.encode(), b",".join(b"%d" % round(value * 16) for value in box)], 12
    )


def no_face_id(image: str) -> str:
    """The id of the one row that says that an image has no face."""
    return _digest(b"no face", [image.encode()], 12)
