"""The ledger of attempts: how a worker knows that it has died on this task before.

A worker writes a mark before it starts a task. Whoever finds the mark of the same run takes the
task up after a death: it goes member by member (image or person) and marks each step before it
takes it. A step that was marked and not left twice is **poisoned**: its rows say so, and its
neighbours are computed as always. Marks of other runs count for nothing, because whoever kills a
run kills its workers in the middle of innocent steps. So does a death whose node is gone too:
machines are taken away whatever they compute. Only a step that was at work on many lost nodes is
given up as well, for an image that takes its whole machine down must not go through all of them.

Setting a stage up (loading its models) is marked apart, node by node: what dies in it is the fault
of no image.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from idcluster.root.storage import Store

DEATHS = 2
"""Deaths on one step after which it is given up."""

LOST = 5
"""Lost nodes on one step after which it is given up."""

SETUP_DEATHS = 3
"""Workers of a node that may die one after the other while they set a stage up."""


class SetupDied(RuntimeError):
    """A stage kills the processes that set it up; the message says which and how often."""


@dataclass(frozen=True)
class Whereabouts:
    """Where a worker is: the id of its node, and what tells whether a node of some id is gone."""

    node: str = ""
    gone: Callable[[str], bool] = lambda node: False


HERE = Whereabouts()


def mark_path(run: str, task: str) -> str:
    return f"parts/attempts/{run}/{task}.json"


@dataclass
class Attempt:
    """One attempt at a task. `careful` says that an earlier one died; `deaths` and `lost` count by
    step.
    """

    store: Store
    path: str
    node: str = ""
    careful: bool = False
    deaths: dict[str, int] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)

    @staticmethod
    def begin(store: Store, run: str, task: str, place: Whereabouts = HERE) -> "Attempt":
        attempt = Attempt(store, mark_path(run, task), place.node)
        try:
            mark = json.loads(store.read(attempt.path))
        except FileNotFoundError:
            attempt._write(None)
            return attempt
        except ValueError:  # torn by a power cut: somebody began, nothing more is known
            mark = {}
        attempt.careful = True
        attempt.deaths, attempt.lost = dict(mark.get("deaths", {})), dict(mark.get("lost", {}))
        if mark.get("at"):
            found = mark.get("node", "")
            counted = attempt.lost if found != place.node and place.gone(found) else attempt.deaths
            counted[mark["at"]] = counted.get(mark["at"], 0) + 1
        attempt._write(None)
        return attempt

    def step(self, stage: str, member: str) -> bool:
        """Mark a step before taking it; False when it is poisoned and must not be taken."""
        key = f"{stage} {member}"
        if self.deaths.get(key, 0) >= DEATHS or self.lost.get(key, 0) >= LOST:
            return False
        self._write(key)
        return True

    def leave(self) -> None:
        """No step is being taken: what happens now is the fault of none."""
        self._write(None)

    def told(self, stage: str, member: str) -> str:
        """Why a step is poisoned."""
        key = f"{stage} {member}"
        lost = f", {self.lost[key]} times together with its node" if key in self.lost else ""
        return f"killed its worker {self.deaths.get(key, 0) + self.lost.get(key, 0)} times{lost}"

    def _write(self, at: str | None) -> None:
        mark = {"at": at, "node": self.node, "deaths": self.deaths, "lost": self.lost}
        self.store.put(self.path, json.dumps(mark).encode(), durable=False)


@contextmanager
def setting_up(store: Store, run: str, stage: str, node: str = "") -> Iterator[None]:
    """While a stage is set up. Raises SetupDied where processes of this node have died in that,
    several in a row.

    A mark is named by the process that wrote it, so that workers of a node that load their models
    at the same time do not take each other for dead.
    """
    folder = f"parts/attempts/{run}/setup/{stage}/{node or 'here'}"
    dead = [path for path in store.list(folder) if not _runs(path.rsplit("/", 1)[-1])]
    if len(dead) >= SETUP_DEATHS:
        raise SetupDied(
            f"{len(dead)} workers died one after the other while stage {stage} was set up (a "
            "crash in native code, or too little"
            " memory for its models); nothing is wrong with the images"
        )
    mark = f"{folder}/{os.getpid()}"
    store.put(mark, b"", durable=False)
    try:
        yield
    finally:  # an error is no death
        store.delete([mark, *dead])


def _runs(process: str) -> bool:
    try:
        about = Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return (
        about.rpartition(")")[2].split()[0] != "Z"
    )  # dead, and nobody has asked for its exit code yet
