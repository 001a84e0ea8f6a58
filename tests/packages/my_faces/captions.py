"""A caption that says how large the image is."""

from collections.abc import Mapping
from typing import ClassVar

import pyarrow as pa

from stages.selection import KEPT, kept
from stages.stage import Picture, Services, Stage


class SizeCaption(Stage):
    """One row of `captions` a kept face."""

    name: ClassVar[str] = "caption"
    backend: ClassVar[str] = "size"
    needs_pixels: ClassVar[bool] = True
    parent: ClassVar[str] = "faces"
    reads: ClassVar[Mapping[str, tuple[str, ...]]] = {"images": ("sha256",)}
    selects: ClassVar[Mapping[str, tuple[str, ...]]] = KEPT

    def wants(self, rows: pa.Table) -> pa.ChunkedArray | pa.Array:
        """Kept faces."""
        return kept(self, rows)

    def run(self, rows: pa.Table, pictures: Mapping[str, Picture], services: Services) -> pa.Table:
        """Rows of `captions`."""
        ids = ("identity_id", "image_id", "face_id")
        return self.build(
            [
                {
                    **{name: row[name] for name in ids},
                    "caption": "{} x {}".format(*pictures[row["image_id"]].size),
                    "status": "ok",
                }
                for row in rows.to_pylist()
            ]
        )


class Usurper(SizeCaption):
    """One that takes the name of another."""

    backend: ClassVar[str] = "attributes"


class NoStage:
    """Something else."""
