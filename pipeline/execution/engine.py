"""What executes a run, tasks in and results out: Ray (`ray_engine`), or this process (`inline`)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from pipeline.dag import Resources
from pipeline.execution.fetching import Block, Haul
from pipeline.execution.operators import Operator
from pipeline.execution.tasks import Task, TaskResult
from pipeline.execution.worker_spec import WorkerSpec
from schemas.errors import UserError


class EngineError(UserError, RuntimeError):
    """The execution cannot start or broke off; the message is the cause, not Ray's account of
    it.
    """


class Engine(Protocol):
    """What a run needs of an engine. One is made for a run, and closed by it."""

    activity: str
    """What holds up the first result, as long as nothing else is known."""
    say: Callable[[str], None]
    """Takes what a user should hear of meanwhile."""
    detail: Callable[[str], None]
    """Takes what a user may want to know."""

    def check(self) -> None:
        """Refuse what cannot do the run, before there is a root. Raises EngineError."""
        ...

    def cores(self) -> int:
        """Cores that workers may use."""
        ...

    def operators(self, chain: Sequence[str], resources: Mapping[str, Resources]) -> list[Operator]:
        """The operators of a chain of stages, with how many workers each gets."""
        ...

    def run(self, tasks: Sequence[Task], chain: Sequence[Operator]) -> Iterator[TaskResult]:
        """Results in the order in which tasks finish. Raises EngineError."""
        ...

    def fetch(self, spec: WorkerSpec, blocks: Sequence[Block]) -> Iterator[Haul]:
        """Hauls in the order in which blocks of web addresses end."""
        ...

    def map(
        self, function: Callable[[str], str], items: Sequence[str], workers: int
    ) -> Iterator[str]:
        """`function` of every item, in no order."""
        ...

    def close(self) -> None: ...


MakeEngine = Callable[[WorkerSpec], Engine]
"""Makes the engine of a run from what its workers are made from."""
