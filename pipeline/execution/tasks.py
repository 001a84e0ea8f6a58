"""What a worker is told and what it answers, as text that can travel: a task, the parts that it
wrote, a receipt.
"""

import json
from dataclasses import asdict, dataclass, field
from typing import Literal

from idcluster.root.snapshot import WHOLE


@dataclass(frozen=True)
class Task:
    """What a worker is told.

    `members` are image ids (slice) or identity ids (people), None for everybody of the stretch: for
    slice `number` the images of ranks `number * stretch` and up, for batch `number` of people
    those whose ids leave that remainder by `stretch`. `size` is how many members to expect. `shown`
    gives the files of the tables that the chain only reads, `pool` those of the tables that it
    writes, oldest first; `forced` the units by table that are computed even if they are there,
    `token` what tells such an order from an earlier one.
    """

    kind: Literal["slice", "people"]
    bucket: int
    chunk: int
    number: int
    members: tuple[str, ...] | None
    chain: tuple[str, ...]
    stretch: int = 1
    size: int = 0
    shown: dict[str, list[str]] = field(default_factory=dict)
    pool: dict[str, list[str]] = field(default_factory=dict)
    forced: dict[str, list[str]] = field(default_factory=dict)
    token: str = ""
    spool: dict[str, tuple[str, int, int]] | None = None
    """Where the answers of web servers lie (`idcluster.root.spool`), by address; None where the
    source is no crawl.
    """

    @property
    def name(self) -> str:
        chunk = "all" if self.chunk == WHOLE else f"{self.chunk:05d}"
        return f"{self.chain[0]}-{self.bucket:05d}-{chunk}-{self.number:05d}"

    @property
    def member_column(self) -> str:
        return "image_id" if self.kind == "slice" else "identity_id"

    def encode(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def decode(text: str) -> "Task":
        data = json.loads(text)
        members = data["members"]
        return Task(
            **{
                **data,
                "members": None if members is None else tuple(members),
                "chain": tuple(data["chain"]),
            }
        )


@dataclass
class Part:
    """A part that a task wrote or found, and what is in it. `outcomes` counts rows by `status` or
    `status:reason`.
    """

    stage: str
    table: str
    path: str
    rows: int
    units: int
    seconds: float
    adopted: bool
    outcomes: dict[str, int]


@dataclass
class TaskResult:
    """What came of a task.

    `seconds` by activity: each stage, setup, read, decode and write; these four `for` the first of
    its stages where the worker has only some of the chain.
    """

    task: str
    bucket: int
    chunk: int
    number: int
    members: int
    parts: list[Part]
    seconds: dict[str, float]
    began: float
    """Seconds since 1970, by the worker's clock."""
    skipped: bool = False
    deaths: int = 0

    def encode(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def decode(text: str) -> "TaskResult":
        data = json.loads(text)
        return TaskResult(**{**data, "parts": [Part(**part) for part in data["parts"]]})


def share(person: str, stretch: int) -> int:
    """Which of `stretch` batches a person falls into."""
    return int(person, 16) % stretch
