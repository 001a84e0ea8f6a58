"""Sum up by person what cleaning found."""

from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from stages.clean.indicator import normalised, quality_weights, weighted_sums
from stages.columns import floats, vectors
from stages.stage import Grain, Params, Picture, Services, Stage

_BLOCK = 65_536  # faces whose vectors are held in double precision at a time


class SummaryParams(Params):
    """Parameters of `SummaryPeople`."""

    min_kept: int = Field(3, ge=0)
    """A person with fewer kept faces is flagged few_images."""
    namesake_share: float = Field(0.6, gt=0, le=1)
    """A second cluster with at least this share of the pictures of the first is flagged second_cluster."""


class SummaryPeople(Stage):
    """One row of `people` a person, from all its rows of `clusters`.

    Flags: `weak_majority`, the largest cluster is in under half of the person's pictures. `second_cluster`, another one is
    in nearly as many pictures that do not show the largest: perhaps a namesake (a spouse stands beside the person and does
    not count). `few_images`, few faces were kept. `images` counts pictures with an embedded face.
    """

    name: ClassVar[str] = "people"
    backend: ClassVar[str] = "summary"
    grain: ClassVar[Grain] = "bucket"
    parent: ClassVar[str] = "clusters"
    Parameters: ClassVar[type[Params]] = SummaryParams
    reads: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "clusters": ("cluster", "similarity", "keep"),
        "embeddings": ("vector",),
        "faces": ("score", "side", "sharpness"),
    }

    def wants(self, rows: pa.Table) -> pa.ChunkedArray | pa.Array:
        """Every face that cleaning judged, kept or not: those left out make the counts and flags."""
        judged = pc.is_in(rows["clusters.status"], pa.array(["ok", "filtered"]))
        return pc.and_(judged, pc.fill_null(pc.equal(rows["embeddings.status"], "ok"), False))

    def run(self, rows: pa.Table, pictures: Mapping[str, Picture], services: Services) -> pa.Table:
        """Rows of `people` in the order of identity_id; people of whom nobody was kept are filtered as nobody_kept."""
        params: SummaryParams = self.params
        codes = pc.dictionary_encode(rows["identity_id"])
        codes = codes.combine_chunks() if isinstance(codes, pa.ChunkedArray) else codes
        names = codes.dictionary.to_numpy(zero_copy_only=False)
        by_name = np.argsort(names)
        place = np.empty(len(names), dtype=np.int64)
        place[by_name] = np.arange(len(names))
        person = place[codes.indices.to_numpy()]
        count = len(names)

        keep = pc.fill_null(rows["clusters.keep"], False).to_numpy(zero_copy_only=False) if rows.num_rows else np.zeros(0, bool)
        kept = np.bincount(person[keep], minlength=count)
        images, largest, other = _pictures(rows, person, count)
        flags = {
            "weak_majority": largest * 2 < images,
            "second_cluster": (other > 0) & (other >= params.namesake_share * largest),
            "few_images": kept < params.min_kept,
        }
        indicator = _indicators(rows, person, keep, count)
        identity = pa.array(names[by_name], pa.string())
        somebody = pa.array(kept > 0)
        columns = {
            "identity_id": identity,
            "indicator": _lists(indicator, pa.float32(), kept == 0),
            "images": pa.array(images, pa.int32()),
            "faces": pa.array(np.bincount(person, minlength=count), pa.int32()),
            "kept": pa.array(kept, pa.int32()),
            "flags": _flag_lists(flags, count),
            "same_as": identity,
            "status": pc.if_else(somebody, "ok", "filtered"),
            "reason": pc.if_else(somebody, pa.scalar(None, pa.string()), "nobody_kept"),
            "detail": pa.nulls(count, pa.string()),
        }
        schema = self.writes.arrow
        schema = schema.remove(schema.get_field_index("inputs"))
        return pa.table([columns[name] for name in schema.names], schema=schema)


def _pictures(rows: pa.Table, person: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """By person, (p,) int64 each: pictures; those with cluster 0; the most with one other cluster and without cluster 0."""
    cluster = floats(rows["clusters.cluster"])
    table = pa.table({"person": person, "image": rows["image_id"], "cluster": cluster})
    seen = table.group_by(["person", "image", "cluster"]).aggregate([])
    by_picture = seen.group_by(["person", "image"]).aggregate([("cluster", "min")])
    images = np.bincount(by_picture["person"].to_numpy(), minlength=count)
    largest = np.bincount(by_picture["person"].to_numpy()[by_picture["cluster_min"].to_numpy() == 0], minlength=count)
    apart = seen.join(by_picture, ["person", "image"]).filter(pc.field("cluster_min") > 0)
    sizes = apart.group_by(["person", "cluster"]).aggregate([([], "count_all")])
    other = np.zeros(count, dtype=np.int64)
    np.maximum.at(other, sizes["person"].to_numpy(), sizes["count_all"].to_numpy())
    return images, largest, other


def _indicators(rows: pa.Table, person: np.ndarray, keep: np.ndarray, count: int) -> np.ndarray:
    """Unit vectors (p, d) float32 from the kept faces, zeros for people without."""
    score, side, sharpness = (floats(rows[f"faces.{name}"]) for name in ("score", "side", "sharpness"))
    weights = quality_weights(score, side, sharpness, person)
    kept = np.flatnonzero(keep)
    # The order within a person fixes the bits of the sum, whatever order the rows came in.
    rank = pc.rank(rows["face_id"]).to_numpy()
    kept = kept[np.lexsort((rank[kept], person[kept]))]
    chunks = [vectors(chunk) for chunk in rows["embeddings.vector"].chunks if len(chunk)]
    first = np.cumsum([0, *map(len, chunks)])
    found = np.zeros((count, chunks[0].shape[1] if chunks else 0), dtype=np.float32)
    for block in _blocks(kept, person):
        chunk_of = np.searchsorted(first, block, side="right") - 1
        taken = np.empty((len(block), found.shape[1]), dtype=np.float32)
        for chunk in np.unique(chunk_of):
            here = chunk_of == chunk
            taken[here] = chunks[chunk][block[here] - first[chunk]]
        owners, starts = np.unique(person[block], return_index=True)
        found[owners] = normalised(weighted_sums(taken, weights[block], starts))
    return found


def _blocks(kept: np.ndarray, person: np.ndarray) -> Iterator[np.ndarray]:
    """Cut rows sorted by person into blocks of whole people, about _BLOCK rows each."""
    start = 0
    while start < len(kept):
        last = person[kept[min(start + _BLOCK, len(kept)) - 1]]
        stop = int(np.searchsorted(person[kept], last, side="right"))
        yield kept[start:stop]
        start = stop


def _lists(values: np.ndarray, kind: pa.DataType, missing: np.ndarray) -> pa.ListArray:
    """(p, d) as lists, null where `missing`."""
    offsets = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.reshape(-1), kind), mask=pa.array(missing))


def _flag_lists(flags: Mapping[str, np.ndarray], count: int) -> pa.ListArray:
    """The names of the flags that are raised, by person, in the order of `flags`."""
    raised = np.stack(list(flags.values()), axis=1) if count else np.zeros((0, len(flags)), dtype=bool)
    offsets = np.concatenate([[0], np.cumsum(raised.sum(axis=1))]).astype(np.int32)
    names = np.array(list(flags), dtype=object)[np.nonzero(raised)[1]]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(names, pa.string()))
