"""Sum up by person what cleaning found."""

from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from schemas.columns import vectors
from stages.clean.indicator import normalised, sums
from stages.people.silhouette import silhouettes
from stages.stage import Grain, Params, Picture, Services, Stage

_BLOCK = 65_536  # faces whose vectors are held in double precision at a time


class SummaryParams(Params):
    """Parameters of `SummaryPeople`."""

    min_kept: int = Field(3, ge=0)
    """A person with fewer kept faces is flagged few_images."""
    namesake_share: float = Field(0.6, gt=0, le=1)
    """A second cluster with at least this share of the images of the first is flagged
    second_cluster.
    """


class SummaryPeople(Stage):
    """One row of `people` a person, from all its rows of `clusters`.

    Flags: `weak_majority`, the largest cluster is in under half of the person's images.
    `second_cluster`, another one is in nearly as many images that do not show the largest:
    perhaps a namesake (a spouse stands beside the person and does not count). `near_tie`, cleaning
    refused to choose between two people, whose indicators are both here. `few_images`, few faces
    were kept. `reference_missing`, the source has a reference image, and no usable face was found
    in it. `reference_alone`, nothing else agrees with the reference image. An image and its copies
    are one image there.

    A person without any face has no row: nothing was cleaned (`identities` without a row here are
    those).
    """

    name: ClassVar[str] = "people"
    backend: ClassVar[str] = "summary"
    code_version: ClassVar[int] = 3
    grain: ClassVar[Grain] = "bucket"
    parent: ClassVar[str] = "clusters"
    Parameters: ClassVar[type[Params]] = SummaryParams
    reads: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "clusters": ("cluster", "keep", "duplicate_of", "reason", "margin"),
        "embeddings": ("vector",),
        "candidates": ("reference",),
    }

    def wants(self, rows: pa.Table) -> pa.ChunkedArray | pa.Array:
        """Every face that cleaning judged, kept or not: those left out make the counts and
        flags.
        """
        judged = pc.is_in(rows["clusters.status"], pa.array(["ok", "filtered"]))
        return pc.and_(judged, pc.fill_null(pc.equal(rows["embeddings.status"], "ok"), False))

    def run(self, rows: pa.Table, pictures: Mapping[str, Picture], services: Services) -> pa.Table:
        """Rows of `people` in the order of identity_id.

        People of whom nobody was kept are filtered: as near_tie where cleaning could not choose,
        else as nobody_kept.
        """
        params: SummaryParams = self.params
        codes = pc.dictionary_encode(rows["identity_id"])
        codes = codes.combine_chunks() if isinstance(codes, pa.ChunkedArray) else codes
        names = codes.dictionary.to_numpy(zero_copy_only=False)
        by_name = np.argsort(names)
        place = np.empty(len(names), dtype=np.int64)
        place[by_name] = np.arange(len(names))
        person = place[codes.indices.to_numpy()]
        count = len(names)

        keep = (
            pc.fill_null(rows["clusters.keep"], False).to_numpy(zero_copy_only=False)
            if rows.num_rows
            else np.zeros(0, bool)
        )
        cluster = pc.fill_null(rows["clusters.cluster"], -1).to_numpy().astype(np.int64)
        copy = (
            pc.is_valid(rows["clusters.duplicate_of"]).to_numpy(zero_copy_only=False)
            if rows.num_rows
            else keep
        )
        counted = (cluster >= 0) & ~copy
        kept = np.bincount(person[keep], minlength=count)
        shown, largest, second = _pictures(
            person[counted], rows["image_id"].filter(pa.array(counted)), cluster[counted], count
        )
        tied = _says(rows["clusters.reason"], "near_tie")
        tie = np.bincount(person[tied], minlength=count) > 0
        reference, other = (_says(rows["candidates.reference"], said) for said in ("yes", "no"))
        referred = np.bincount(person[reference], minlength=count) > 0
        agreeing = np.bincount(person[keep & ~reference], minlength=count) > 0
        flags = {
            "weak_majority": largest * 2 < shown,
            "second_cluster": (second > 0) & (second >= params.namesake_share * largest),
            "near_tie": tie,
            "few_images": kept < params.min_kept,
            "reference_missing": (np.bincount(person[other], minlength=count) > 0) & ~referred,
            "reference_alone": referred & ~agreeing,
        }
        by_face = _by_face(rows, person)
        # Where nobody was chosen both are told.
        indicator, second_indicator = (
            _indicators(rows, person, by_face[chosen[by_face]], count)
            for chosen in (keep | (tied & (cluster == 0)), tied & (cluster == 1))
        )
        silhouette = _silhouettes(rows, person, cluster, by_face[counted[by_face]], count)
        identity = pa.array(names[by_name], pa.string())
        somebody = pa.array(kept > 0)
        columns = {
            "identity_id": identity,
            "indicator": _lists(indicator, pa.float32(), (kept == 0) & ~tie),
            "images": pa.array(_distinct(person, rows["image_id"], count), pa.int32()),
            "faces": pa.array(np.bincount(person, minlength=count), pa.int32()),
            "kept": pa.array(kept, pa.int32()),
            "duplicates": pa.array(np.bincount(person[copy], minlength=count), pa.int32()),
            "clusters": pa.array(_clusters(person[counted], cluster[counted], count), pa.int32()),
            "largest": pa.array(largest, pa.int32()),
            "second": pa.array(second, pa.int32()),
            "silhouette": pa.array(silhouette.astype(np.float32), mask=np.isnan(silhouette)),
            "flags": _flag_lists(flags, count),
            "margin": _margins(rows["clusters.margin"], person, count),
            "second_indicator": _lists(second_indicator, pa.float32(), ~tie),
            "status": pc.if_else(somebody, "ok", "filtered"),
            "reason": pc.if_else(
                somebody,
                pa.scalar(None, pa.string()),
                pc.if_else(pa.array(tie), "near_tie", "nobody_kept"),
            ),
            "detail": pa.nulls(count, pa.string()),
        }
        schema = self.writes.arrow
        schema = schema.remove(schema.get_field_index("inputs"))
        return pa.table([columns[name] for name in schema.names], schema=schema)


def _says(column: pa.ChunkedArray, text: str) -> np.ndarray:
    """(n,) bool: where a column of texts says just that."""
    found: np.ndarray = pc.fill_null(pc.equal(column, text), False).to_numpy().astype(bool)
    return found


def _margins(column: pa.ChunkedArray, person: np.ndarray, count: int) -> pa.Array:
    """By person what all its rows say, float32; null where they say nothing."""
    said = np.full(count, np.nan, dtype=np.float32)
    values = column.cast(pa.float32()).to_numpy()
    told = ~np.isnan(values)
    said[person[told]] = values[told]
    return pa.array(said, mask=np.isnan(said))


def _distinct(person: np.ndarray, images: pa.ChunkedArray, count: int) -> np.ndarray:
    """Different images by person: (p,) int64."""
    seen = pa.table({"person": person, "image": images}).group_by(["person", "image"]).aggregate([])
    return np.bincount(seen["person"].to_numpy(), minlength=count)


def _clusters(person: np.ndarray, cluster: np.ndarray, count: int) -> np.ndarray:
    """Clusters by person: (p,) int64."""
    found = np.zeros(count, dtype=np.int64)
    np.maximum.at(found, person, cluster + 1)
    return found


def _pictures(
    person: np.ndarray, images: pa.ChunkedArray, cluster: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """By person, (p,) int64 each: images; those with cluster 0; the most with one other cluster
    and without cluster 0.
    """
    seen = (
        pa.table({"person": person, "image": images, "cluster": cluster})
        .group_by(["person", "image", "cluster"])
        .aggregate([])
    )
    by_picture = seen.group_by(["person", "image"]).aggregate([("cluster", "min")])
    pictures = np.bincount(by_picture["person"].to_numpy(), minlength=count)
    largest = np.bincount(
        by_picture["person"].to_numpy()[by_picture["cluster_min"].to_numpy() == 0], minlength=count
    )
    apart = seen.join(by_picture, ["person", "image"]).filter(pc.field("cluster_min") > 0)
    sizes = apart.group_by(["person", "cluster"]).aggregate([([], "count_all")])
    second = np.zeros(count, dtype=np.int64)
    np.maximum.at(second, sizes["person"].to_numpy(), sizes["count_all"].to_numpy())
    return pictures, largest, second


def _by_face(rows: pa.Table, person: np.ndarray) -> np.ndarray:
    """The rows by person and face: the order within a person fixes the bits of sums, whatever order
    the rows came in.
    """
    return np.lexsort((pc.rank(rows["face_id"]).to_numpy(), person))


def _indicators(rows: pa.Table, person: np.ndarray, kept: np.ndarray, count: int) -> np.ndarray:
    """Unit vectors (p, d) float32 from the rows `kept`, zeros for people without."""
    found = np.zeros((count, _width(rows)), dtype=np.float32)
    for block, taken in _taken(rows, person, kept):
        owners, group = np.unique(person[block], return_inverse=True)
        found[owners] = normalised(sums(taken, group, len(owners)))
    return found


def _silhouettes(
    rows: pa.Table, person: np.ndarray, cluster: np.ndarray, counted: np.ndarray, count: int
) -> np.ndarray:
    """(p,) float64, nan for people with fewer than two clusters."""
    found = np.full(count, np.nan)
    several = np.zeros(count, dtype=bool)
    several[person[counted][cluster[counted] > 0]] = True
    for block, taken in _taken(rows, person, counted[several[person[counted]]]):
        owners, group = np.unique(person[block], return_inverse=True)
        found[owners] = silhouettes(
            normalised(taken.astype(np.float64)), group, cluster[block], len(owners)
        )
    return found


def _width(rows: pa.Table) -> int:
    lengths = pc.list_value_length(rows["embeddings.vector"])
    return int(lengths[0].as_py()) if len(lengths) else 0


def _taken(
    rows: pa.Table, person: np.ndarray, chosen: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The rows `chosen`, sorted by person, in blocks of whole people, with their vectors (n, d)
    float32.
    """
    chunks = [vectors(chunk) for chunk in rows["embeddings.vector"].chunks if len(chunk)]
    first = np.cumsum([0, *map(len, chunks)])
    for block in _blocks(chosen, person):
        chunk_of = np.searchsorted(first, block, side="right") - 1
        taken = np.empty((len(block), chunks[0].shape[1]), dtype=np.float32)
        for chunk in np.unique(chunk_of):
            here = chunk_of == chunk
            taken[here] = chunks[chunk][block[here] - first[chunk]]
        yield block, taken


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
    return pa.ListArray.from_arrays(
        pa.array(offsets), pa.array(values.reshape(-1), kind), mask=pa.array(missing)
    )


def _flag_lists(flags: Mapping[str, np.ndarray], count: int) -> pa.ListArray:
    """The names of the flags that are raised, by person, in the order of `flags`."""
    raised = (
        np.stack(list(flags.values()), axis=1) if count else np.zeros((0, len(flags)), dtype=bool)
    )
    offsets = np.concatenate([[0], np.cumsum(raised.sum(axis=1))]).astype(np.int32)
    names = np.array(list(flags), dtype=object)[np.nonzero(raised)[1]]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(names, pa.string()))
