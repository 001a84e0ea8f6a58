"""What recognisers have in common: where they stand in a DAG, and which space they write."""

from typing import ClassVar

from stages.stage import Stage


class Embedder(Stage):
    """A recogniser with a parameter `weights`, the network that it runs; vectors of two networks
    are never compared.
    """

    name: ClassVar[str] = "embed"
    needs_pixels: ClassVar[bool] = True
    parent: ClassVar[str] = "faces"
    landmarks_from: ClassVar[str | None] = "detect"

    @property
    def recogniser(self) -> str:
        """The space of its vectors, by name."""
        return str(self.params.weights)

    @property
    def weights(self) -> tuple[str, ...]:
        return (self.recogniser,)
