"""Operators: stages of a phase that share a worker, and how many workers each of them gets."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.dag import Resources, WorkerRange


@dataclass(frozen=True)
class Pool:
    """How many actors an operator gets: `now` fit today; it shrinks to `least` and grows to
    `most`.
    """

    least: int
    now: int
    most: int


@dataclass(frozen=True)
class Operator:
    """Stages of a phase that share an actor, and what an actor takes. `workers` is the size of the
    pool.

    `pool` says more of it on a cluster: how far it may shrink and grow.
    """

    stages: tuple[str, ...]
    resources: Resources
    workers: int
    pool: Pool | None = None


def operators(
    chain: Sequence[str], resources: Mapping[str, Resources], cores: int, gpus: float = 0
) -> list[Operator]:
    """Fuse neighbouring stages with equal resources. `auto` workers: as many as the cores (or GPUs)
    there are carry.
    """
    made = []
    for names, asked in fuse(chain, resources):
        fitting = max(1, int(gpus / asked.gpus if asked.gpus else cores / asked.cpus))
        if isinstance(asked.workers, WorkerRange):
            size = min(
                max(fitting, asked.workers.min), asked.workers.max
            )  # one machine does not grow
        else:
            size = fitting if asked.workers == "auto" else asked.workers
        made.append(Operator(names, asked, size))
    return made


def fuse(
    chain: Sequence[str], resources: Mapping[str, Resources]
) -> list[tuple[tuple[str, ...], Resources]]:
    groups: list[tuple[list[str], Resources]] = []
    for name in chain:
        if groups and groups[-1][1] == resources[name]:
            groups[-1][0].append(name)
        else:
            groups.append(([name], resources[name]))
    return [(tuple(names), asked) for names, asked in groups]


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
