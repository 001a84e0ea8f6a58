"""Images that lie in folders, or wherever the fetch gate reads from: the bytes, and what their
headers say.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field

from schemas.fetched import Fetched
from stages.picture_frames import frames
from stages.pictures import MAX_PIXELS, Header, PictureError, perceptual_hash, read_header
from stages.stage import Params, Picture, Services, Stage


class FilesCrawlParams(Params):
    """Limits of what is taken in."""

    max_bytes: int = Field(25_000_000, ge=1, description="larger files are left out")
    max_pixels: int = Field(
        64_000_000, ge=1, le=MAX_PIXELS, description="images with more pixels are left out"
    )
    max_frames: int = Field(
        500,
        ge=1,
        description="files with more frames are left out; of others the first is the image",
    )
    min_bytes: int = Field(1, ge=1, description="smaller files are left out")
    min_side: int = Field(
        1, ge=1, description="images whose shorter side has fewer pixels are left out"
    )


class FilesCrawl(Stage):
    """Rows of `images`: every candidate has one, with its bytes or with the reason why there are
    none.
    """

    name: ClassVar[str] = "crawl"
    backend: ClassVar[str] = "files"
    parent: ClassVar[str] = "candidates"
    Parameters: ClassVar[type[Params]] = FilesCrawlParams
    reads: ClassVar[Mapping[str, tuple[str, ...]]] = {"candidates": ("address", "fingerprint")}

    def run(self, rows: pa.Table, pictures: Mapping[str, Picture], services: Services) -> pa.Table:
        fetched = services.fetch(rows["candidates.address"].to_pylist())
        units = rows.select(["identity_id", "image_id"]).to_pylist()
        return self.build(
            [{**ids, **self._describe(answer)} for ids, answer in zip(units, fetched, strict=True)]
        )

    def _describe(self, fetched: Fetched) -> dict[str, Any]:
        row: dict[str, Any] = {
            name: getattr(fetched, name)
            for name in ("fetched_at", "opt_out", "http_status", "attempts", "final_address")
        }
        data = fetched.data
        if fetched.status != "ok" or data is None:
            status = fetched.status if fetched.status != "ok" else "failed"
            return {
                **row,
                "status": status,
                "reason": fetched.reason or "no_bytes",
                "detail": fetched.detail,
            }
        # Kept for what is refused, too: it tells two bad files from one that is linked twice.
        row |= {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        try:
            header = self._checked(data)
        except PictureError as error:
            return {**row, "status": "failed", "reason": error.reason, "detail": error.detail}
        return {
            **row,
            "bytes": data,
            "phash": perceptual_hash(data),
            "format": header.format,
            "width": header.width,
            "height": header.height,
            "orientation": header.orientation,
            "status": "ok",
            "reason": fetched.reason,
            "detail": fetched.detail,
        }

    def _checked(self, data: bytes) -> Header:
        """The header of a file within the limits. Raises PictureError."""
        limits = self.params
        if len(data) > limits.max_bytes:
            raise PictureError(
                "too_large", f"{len(data)} bytes, at most {limits.max_bytes} are taken in"
            )
        header = read_header(data, limits.max_pixels)
        if len(data) < limits.min_bytes:
            raise PictureError(
                "too_small", f"{len(data)} bytes, at least {limits.min_bytes} are wanted"
            )
        if min(header.width, header.height) < limits.min_side:
            raise PictureError(
                "too_small",
                f"{header.width}x{header.height} pixels, at least {limits.min_side} on each side "
                "are wanted",
            )
        if frames(data, header, limits.max_frames) > limits.max_frames:
            raise PictureError("too_many_frames", f"more than {limits.max_frames} frames")
        return header
