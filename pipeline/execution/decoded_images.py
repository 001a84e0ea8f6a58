"""The photographs of a task: original bytes read and checked once, decoded once."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from idcluster.root.parquet import DamagedFile, read
from idcluster.root.storage import Store
from schemas import TABLES
from stages.pictures import PictureError, decode
from stages.stage import Picture

_DETAIL = 300
"""Characters of an error that a row keeps."""


class Originals:
    """The bytes and the decoded images of a task's images."""

    def __init__(self, store: Store, paths: Sequence[str]) -> None:
        self.store, self.paths = store, paths
        self.data: dict[str, bytes] = {}
        self.decoded: dict[str, Picture | PictureError] = {}

    def add(self, rows: pa.Table) -> None:
        """Take the bytes of rows that were just fetched, instead of reading them back."""
        for image, data in zip(
            rows["image_id"].to_pylist(), rows["bytes"].to_pylist(), strict=True
        ):
            if data is not None:
                self.data[image] = data

    def load(self, images: Sequence[str], hashes: Mapping[str, str]) -> None:
        """Read the bytes of `images`. Raises DamagedFile when bytes are not there or not what their
        hash says.
        """
        absent = {image for image in images if image not in self.data}
        for path in reversed(self.paths):
            if not absent:
                break
            rows = read(
                self.store,
                TABLES["images"],
                path,
                ("image_id", "sha256", "bytes"),
                ("image_id", absent),
            )
            for image, sha256, data in zip(
                *(rows[name].to_pylist() for name in rows.column_names), strict=True
            ):
                if sha256 != hashes[image] or data is None:
                    continue  # an earlier state of an image that was replaced
                if hashlib.sha256(data).hexdigest() != sha256:
                    raise DamagedFile(
                        f"{self.store.uri(path)}: the bytes of image {image} are not those that "
                        "were stored"
                    )
                self.data[image] = data
                absent.discard(image)
        if absent:
            raise DamagedFile(
                f"{self.store.root}: the bytes of image {min(absent)} are in none of {self.paths}"
            )

    def picture(self, image: str) -> Picture | PictureError:
        if image not in self.decoded:
            try:
                self.decoded[image] = Picture(image, _read_only(decode(self.data.pop(image))))
            except PictureError as error:
                self.decoded[image] = error
            except MemoryError as error:
                self.decoded[image] = PictureError(
                    "error", f"MemoryError while it was decoded: {error}"[:_DETAIL]
                )
        return self.decoded[image]

    def forget(self) -> None:
        self.decoded.clear()


def _read_only(rgb: np.ndarray) -> np.ndarray:
    rgb.flags.writeable = False
    return rgb
