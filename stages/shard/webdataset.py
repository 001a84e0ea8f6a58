"""WebDataset tars with a Parquet sidecar: what is in a sample, and how its bytes are laid out."""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from stages.stage import Params


class ShardParams(Params):
    """What a shard profile is."""

    profile: str = Field(default="faces", pattern=r"^[A-Za-z0-9_-]+$")
    """Name of the folder below `shards/`."""
    target_mb: float = Field(default=256, gt=0)
    """Size that shards have about, in 10^6 bytes: they end between people, so they are half of it to twice it."""
    validation: float = Field(default=0.0, ge=0, le=1)
    """Share of the people that go into the split `validation`, drawn by a hash of the canonical identity."""
    include: tuple[Literal["mask"], ...] = ()
    """Conditions that travel with the picture, each as a member of the sample."""

    def tables(self) -> Iterator[str]:
        """The tables that must be there; captions, heads and landmarks are taken where they are."""
        yield from ("images", "faces", "clusters")
        if "mask" in self.include:
            yield "masks"
