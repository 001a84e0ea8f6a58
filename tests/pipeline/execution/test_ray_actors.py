"""What actors count for dashboards. The engine as a whole is tested on a real Ray, in test_ray.py
and test_cluster.py.
"""

from collections import Counter
from typing import Any, ClassVar

import pytest
from ray.util import metrics

from pipeline.execution.ray_actors import Meters
from pipeline.execution.tasks import Part, TaskResult


class Recorded(metrics.Counter):
    """Ray's counter, which checks names, tags and values, and whose sums can be read."""

    sums: ClassVar[Counter[tuple[str, ...]]] = Counter()

    def inc(self, value: float = 1.0, tags: dict[str, str] | None = None) -> None:
        super().inc(value, tags)  # type: ignore[arg-type]
        self.sums[self.info["name"], *(tags or {}).values()] += value  # type: ignore[assignment]


def part(stage: str, adopted: bool = False, **outcomes: int) -> Part:
    told = {name.replace("__", ":"): rows for name, rows in outcomes.items()}
    return Part(stage, "t", "p", sum(outcomes.values()), 1, 1.0, adopted, told)


def test_dashboards_show_what_was_done_by_stage_status_and_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A team that watches a run of days would see a stage stand still that works, or not see it
    fail.
    """
    monkeypatch.setattr(metrics, "Counter", Recorded)
    Recorded.sums.clear()
    meters = Meters()
    done: list[Any] = [
        part("detect", ok=7, failed__decode_error=2, filtered__no_face=1),
        part("embed", ok=6, poisoned__worker_died=1),
        part("crawl", adopted=True, ok=10),
    ]
    meters.count(TaskResult("t", 0, 0, 0, 10, done, {"detect": 2.5, "read": 0.0}, 0.0, deaths=2))
    meters.count(
        TaskResult("t", 0, 0, 1, 10, [part("detect", ok=3)], {"detect": 1.0, "read": 0.5}, 0.0)
    )
    meters.count(TaskResult("t", 0, 0, 2, 10, [], {}, 0.0, skipped=True))
    assert Recorded.sums == {
        ("idcluster_rows", "detect", "ok"): 10,
        ("idcluster_rows", "detect", "failed"): 2,
        ("idcluster_rows", "detect", "filtered"): 1,
        ("idcluster_rows", "embed", "ok"): 6,
        ("idcluster_rows", "embed", "poisoned"): 1,
        ("idcluster_failures", "detect", "decode_error"): 2,
        ("idcluster_failures", "embed", "worker_died"): 1,
        ("idcluster_seconds", "detect"): 3.5,
        ("idcluster_seconds", "read"): 0.5,
        ("idcluster_deaths",): 2,
    }
