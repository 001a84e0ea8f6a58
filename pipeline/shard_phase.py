"""The last phase of a run: shards of what the dataset shows."""

import json
import time
from dataclasses import dataclass

from idcluster.root.storage import Store
from pipeline.dag import SHARD, shard_params
from pipeline.progress import ShardProgress, Working
from pipeline.run_state import RunState
from pipeline.shards.split_lists import resolve
from pipeline.shards.writing import finish, plan_shards, shard_basis, write_shard
from pipeline.telling import WARNING
from schemas.wording import counted


def write_shards(state: RunState) -> None:
    """Write what the set of shards lacks, its indexes, and publish. Nothing if all is as it was."""
    params, _ = resolve(state.store, shard_params(state.prepared.dag.stages[SHARD]))
    basis = shard_basis(state.snapshot, params)
    note = f"shards/{params.profile}"
    if state.snapshot.notes.get(note) == basis:
        return
    start = time.monotonic()
    with Working(state.console, f"{state.place}: planning shards"):
        plan = plan_shards(state.store, state.snapshot, params)
    workers = min(state.engine.cores(), len(plan.jobs)) if plan.jobs else 0
    results = []
    if plan.jobs:
        said = (
            f"{counted(len(plan.jobs), 'shard')} to write, "
            f"{len(plan.shards) - len(plan.jobs)} as they are"
        )
        state.console.print(f"shard: {said}", highlight=False)
        job = ShardJob(state.store.root)
        with ShardProgress(
            state.console, len(plan.jobs), state.place, lambda: state.engine.activity
        ) as progress:
            for text in state.engine.map(job, [json.dumps(item) for item in plan.jobs], workers):
                results.append(json.loads(text))
                progress.add()
    # Shards follow from all tables: had somebody else published meanwhile, this set would be of
    # nothing. Indexes are put over others.
    state.check_lease("nothing was published. Run again to go on")
    entries = finish(state.store, state.snapshot, results, plan)
    state.snapshot = state.snapshot.with_notes(
        **{note: basis, f"index/{params.profile}": plan.note()}
    )
    state.publish(entries)
    samples = sum(shard.samples for shard in plan.shards)
    seconds = time.monotonic() - start
    state.record.shards = {
        "shards": len(plan.shards),
        "written": len(plan.jobs),
        "samples": samples,
        "seconds": round(seconds, 3),
    }
    state.record.shards["withheld"] = dict(plan.contents["withheld"])
    why_not = ", ".join(f"{count} {why}" for why, count in plan.contents["withheld"].items())
    withheld = f"; withheld: {why_not}" if why_not else ""
    said = (
        f"{counted(samples, 'sample')} in {counted(len(plan.shards), 'shard')}, "
        f"{len(plan.jobs)} written"
    )
    state.console.print(f"  shard: {said}{withheld}", highlight=False)
    for remark in plan.contents.get("remarks", ()):
        state.console.print(
            f"note: shards of {params.profile}: {remark}", style=WARNING, highlight=False
        )
        state.record.shards.setdefault("remarks", []).append(remark)


@dataclass(frozen=True)
class ShardJob:
    """`write_shard` as a function of text that can travel."""

    root: str

    def __call__(self, item: str) -> str:
        return json.dumps(write_shard(Store(self.root), json.loads(item)))
