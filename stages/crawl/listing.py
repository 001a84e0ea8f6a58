"""What a source of images offers: people, and addresses of images of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from schemas.errors import UserError
from schemas.fetched import Fetched


@dataclass(frozen=True, slots=True)
class Offer:
    """One image that a source offers. `fingerprint` changes when the content behind the address
    has changed.
    """

    address: str
    fingerprint: str | None = None
    page: str | None = None
    licence: str | None = None
    author: str | None = None
    split: str | None = None
    attributes: str | None = None
    """What else the source states, as a JSON object."""
    reference: str | None = None
    """What the source says of whether this image surely shows the person; see `is_reference`."""


@dataclass(frozen=True)
class Listed:
    """One person as the source names them, with what it offers. `given` is an external id that
    stands for the person.
    """

    name: str
    offers: Sequence[Offer]
    given: str | None = None
    external_ids: dict[str, str] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    complete: bool = True
    """False: the source could not be asked about all of the person now, so what is not offered need
    not be gone.
    """


def is_reference(said: str | None) -> bool:
    """Whether a source's word for it means that the image is a reference: it surely shows the
    person.
    """
    return said is not None and said.strip().casefold() in (
        "1",
        "true",
        "t",
        "yes",
        "y",
        "x",
        "1.0",
    )


class SourceError(UserError, ValueError):
    """A source cannot be listed at all; the message names it and the remedy."""


class Shelf(Protocol):
    """Where texts are kept between two listings, by key."""

    def get(self, key: str) -> tuple[float, str] | None:
        """When a text was put down, in seconds since 1970, and the newest text."""
        ...

    def put(self, key: str, text: str) -> None:
        """Keep a text; at the latest `flush` makes it last."""
        ...

    def flush(self) -> None: ...


class Source(Protocol):
    """A source of images. `name` is what the DAG calls it; addresses carry it where they are not
    URLs.

    `web`: its addresses are canonical web addresses, which the pipeline fetches; its own `fetch` is
    never called then. One that could not read all of its list sets `incomplete` in `people`: what
    it does not list need not be gone then.
    """

    name: str
    web: bool

    def check(self) -> None:
        """Raise SourceError if the source cannot be listed at all; quick, whatever its size."""
        ...

    def people(self) -> tuple[list[Listed], list[str]]:
        """Everybody the source knows, and remarks on what it left out. Raises SourceError."""
        ...

    def fetch(self, addresses: Sequence[str]) -> list[Fetched]:
        """The bytes behind addresses of this source, in their order; failures have a status and a
        reason.
        """
        ...
