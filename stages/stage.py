"""What a stage is.

A stage is one class per backend. Class attributes say what it reads and writes, so that the
pipeline can plan, check and fuse stages without knowing them; `run` turns rows into rows.

The **unit** of a stage is a row of its parent table: detect works on rows of `images`, embed on
rows of `faces`, clean on rows of `embeddings`. For every unit that `wants` accepts, `run` writes
one row or more (all of them together), each carrying the unit's key in the column
`writes.parent_key`.

Rows reach a stage as one Arrow table with a row a unit: the ids of the parent table (`identity_id`,
`image_id`, `face_id` as far as it has them) and one column `<table>.<column>` for everything in
`reads` and `selects`, and `<table>.status` for every table named there. Values of a table that has
no row for the unit are null.

**Optional tables.** A table of `reads` or `selects` that is also named in `optional` need not be
there:

- Where a stage of the DAG writes it, it is a table as any other: a unit without a row in it is not
  wanted yet.
- Where no stage of the DAG writes it but one could, all its values are null, whatever an earlier
  DAG left in the dataset.
- Where no stage can write it, as with decisions by hand, it is what the snapshot shows: null for
  units without a row.

Nulls of an optional table do not make `Stage.wants` false and are no part of `inputs`. So a dataset
that was made before the table was there is as it would be had the stage never named it, and only
units with values in it are computed again.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from schemas import TABLES, TableSchema
from schemas.errors import UserError
from schemas.fetched import Fetched
from schemas.tables import WRITTEN_BY
from stages.weights import NOTHING, LocalRegistry, Weights, knowing

Grain = Literal["slice", "bucket", "root"]
Device = Literal["cpu", "cuda"]


class NoDevice(UserError, RuntimeError):
    """A stage was given a GPU that this machine, or this build of a library, cannot use; the
    message says which.
    """


LATE: dict[str, Any] = {"late": True}
"""The `json_schema_extra` of a parameter that came later: at its default it changes no version, so
that nothing is computed anew.
"""


@dataclass(frozen=True)
class Calibrated:
    """A parameter that is a limit in the space of a recogniser: where a DAG leaves it open (None),
    the calibration of the recogniser that `embed` names fills it in.

    `needed`: the stage cannot do without. `shipped`: what a team's own calibration does not have is
    taken from the one that comes with the code.
    """

    needed: bool = False
    shipped: bool = True


class Params(BaseModel):
    """Parameters of a stage: typed, closed to unknown names, and a part of the stage's version."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    def hashed(self) -> dict[str, Any]:
        """What the version is a hash of, as JSON: a parameter that is `LATE` is left out at its
        default.
        """
        said = self.model_dump(mode="json")
        for name, field in type(self).model_fields.items():
            if field.json_schema_extra == LATE and getattr(self, name) == field.get_default(
                call_default_factory=True
            ):
                del said[name]
        return said


@dataclass(frozen=True)
class Picture:
    """A decoded image. `rgb`: (height, width, 3) uint8, upright (EXIF orientation applied),
    read-only.
    """

    image_id: str
    rgb: np.ndarray

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.rgb.shape[1], self.rgb.shape[0]


class Services(Protocol):
    """What stages may need from outside themselves; the pipeline provides it."""

    def fetch(self, addresses: Sequence[str]) -> list[Fetched]:
        """The bytes behind candidate addresses, in their order."""
        ...


class WeightFiles(Protocol):
    """Where weights lie on this machine, and what is registered about them."""

    @property
    def local(self) -> LocalRegistry:
        """What the team has pinned and added."""
        ...

    def entry(self, name: str) -> Weights:
        """What is registered about the weights `name`; raises UnknownWeights."""
        ...

    def path(self, name: str) -> str:
        """The verified local path of the registered weights `name`; raises MissingWeights
        otherwise.
        """
        ...

    def folder(self, name: str) -> str:
        """The local folder with the verified files of the registered bundle `name`; raises
        MissingWeights otherwise.
        """
        ...


class Stage:
    """Base of all stages. Instances are cheap until `setup` and hold nothing but parameters and
    loaded models.
    """

    name: ClassVar[str]
    """The stage as the DAG names it: detect, embed, ..."""
    backend: ClassVar[str]
    """Which implementation of it this is: dlib, scrfd, ..."""
    code_version: ClassVar[int] = 1
    """Raised by whoever changes what `run` gives for the same rows; part of the version of every
    row.
    """
    grain: ClassVar[Grain] = "slice"
    """slice: any rows of one chunk. bucket: all rows of whole people, so that a unit is a person.
    root: all rows of the dataset at once, by `run_whole`, whenever any table that it reads shows
    something else.
    """
    needs_pixels: ClassVar[bool] = False
    parent: ClassVar[str]
    """The table whose rows are the units."""
    Parameters: ClassVar[type[Params]] = Params

    reads: ClassVar[Mapping[str, tuple[str, ...]]]
    """Table to columns that `run` uses: their values make the `inputs` of the unit."""
    selects: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Table to columns that only `wants` looks at: they decide whether there is a row, not what is
    in it.
    """
    optional: ClassVar[frozenset[str]] = frozenset()
    """Tables of `reads` and `selects`, never the parent, that need not be there; see above."""

    calibrated: ClassVar[Mapping[str, Calibrated]] = {}
    """Parameters that are filled in from the recogniser's calibration."""
    landmark_scheme: ClassVar[str | None] = None
    """The five points that the stage gives, or that it goes by; None: it goes by none."""
    landmarks_from: ClassVar[str | None] = None
    """The stage whose five points have to be those."""

    def __init__(
        self, params: Params | Mapping[str, Any] | None = None, local: LocalRegistry = NOTHING
    ) -> None:
        """Parameters that are not a `Params` yet are checked; they may name weights of `local`."""
        self.params: Any = (
            params
            if isinstance(params, Params)
            else self.Parameters.model_validate(dict(params or {}), context=knowing(local))
        )
        self.device: Device = "cpu"
        """Where networks run, set before `setup` from the resources of the DAG. Not a part of the
        version.
        """

    @property
    def writes(self) -> TableSchema:
        """The table whose `written_by` is the name of the stage."""
        return TABLES[WRITTEN_BY[self.name]]

    @property
    def weights(self) -> tuple[str, ...]:
        """Names in the weights registry of the files that `setup` loads; their hashes are part of
        the version.
        """
        return ()

    def wants(self, rows: pa.Table) -> pa.ChunkedArray | pa.Array:
        """Which units are to have rows: bool for every row.

        By default those whose every table has status ok; an optional table may also say nothing.
        """
        mask = pa.array(np.ones(rows.num_rows, dtype=bool))
        for table in dict.fromkeys((*self.reads, *self.selects)):
            mask = pc.and_(
                mask, pc.fill_null(pc.equal(rows[f"{table}.status"], "ok"), table in self.optional)
            )
        return mask

    def setup(self, files: WeightFiles) -> None:
        """Load weights once a worker. Raises MissingWeights when a file is not there."""

    def run(self, rows: pa.Table, pictures: Mapping[str, Picture], services: Services) -> pa.Table:
        """Rows of `writes` without the column `inputs`, all rows of a unit together.

        `pictures` maps image_id to the decoded image for every row when `needs_pixels`, and is
        empty otherwise; units whose image does not decode never get here. What goes wrong with
        one unit by its own fault becomes a row with a status and a reason; an exception makes the
        caller try the units one by one and record the ones that fail. The rows of a unit depend on
        that unit alone, never on its neighbours in the call (bucket grain: on its person).
        """
        raise NotImplementedError

    def run_whole(self, tables: Mapping[str, pa.Table]) -> pa.Table:
        """At grain root, in place of `run`: rows of `writes` without the column `inputs`, at most
        one a person.

        `tables`: all rows that the tables in `reads` show, with ids, status and the columns named
        there; optional ones may lack.
        """
        raise NotImplementedError

    def build(self, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
        """What `run` returns, from dictionaries. Addresses in memory, which are others in every
        run, are taken out of `detail`.
        """
        told = [
            {**row, "detail": _ADDRESS.sub("", row["detail"])}
            if " at 0x" in (row.get("detail") or "")
            else row
            for row in rows
        ]
        return self.writes.build_without("inputs", told)


_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+(?=>)")
"""As Python shows an object that has nothing better to say."""
