"""The ledger of attempts: how a worker knows that it has died on this task before.

A worker writes a mark before it starts a task. Whoever finds the mark of the same run takes the task up after a death:
it goes member by member (picture or person) and marks each step before it takes it. A step that was marked and not
left twice is **poisoned**: its rows say so, and its neighbours are computed as always. Marks of other runs count for
nothing, because whoever kills a run kills its workers in the middle of innocent steps.
"""

import json
from dataclasses import dataclass, field

from pipeline.storage import Store

DEATHS = 2
"""Deaths on one step after which it is given up."""


def mark_path(run: str, task: str) -> str:
    return f"parts/attempts/{run}/{task}.json"


@dataclass
class Attempt:
    """One attempt at a task. `careful` says that an earlier one died."""

    store: Store
    path: str
    careful: bool = False
    deaths: dict[str, int] = field(default_factory=dict)

    @staticmethod
    def begin(store: Store, run: str, task: str) -> "Attempt":
        attempt = Attempt(store, mark_path(run, task))
        try:
            mark = json.loads(store.read(attempt.path))
        except FileNotFoundError:
            attempt._write(None)
            return attempt
        except ValueError:  # torn by a power cut: somebody began, nothing more is known
            mark = {}
        attempt.careful = True
        attempt.deaths = dict(mark.get("deaths", {}))
        if mark.get("at"):
            attempt.deaths[mark["at"]] = attempt.deaths.get(mark["at"], 0) + 1
        attempt._write(None)
        return attempt

    def step(self, stage: str, member: str) -> bool:
        """Mark a step before taking it; False when it is poisoned and must not be taken."""
        key = f"{stage} {member}"
        if self.deaths.get(key, 0) >= DEATHS:
            return False
        self._write(key)
        return True

    def _write(self, at: str | None) -> None:
        self.store.put(self.path, json.dumps({"at": at, "deaths": self.deaths}).encode(), durable=False)
