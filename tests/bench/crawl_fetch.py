"""The fetching half of a crawl alone, for the benchmark: addresses of a DAG's list into the spool,
on Ray as in a run.

`python -m tests.bench.crawl_fetch DAG`.
"""

import sys
from pathlib import Path

from idcluster.root.dataset_root import make_root
from pipeline.dag import load_dag
from pipeline.execution.crawl_rounds import PATIENCE
from pipeline.execution.fetching import blocks
from pipeline.execution.ray_engine import RayEngine
from pipeline.execution.worker_spec import WorkerSpec, sources_of


def main() -> None:
    dag = load_dag(Path(sys.argv[1]))
    store = make_root(dag.root, dag.name)
    people, _ = sources_of(dag)[0].people()
    addresses = [offer.address for person in people for offer in person.offers]
    spec = WorkerSpec(store.root, dag, {}, None, "bench")
    engine = RayEngine(spec)
    try:
        answers = sum(
            haul.answers
            for haul in engine.fetch(spec, list(blocks(addresses, PATIENCE[-1], final=True)))
        )
    finally:
        engine.close()
    if answers != len(addresses):
        raise SystemExit(f"{answers} answers to {len(addresses)} addresses")


if __name__ == "__main__":
    main()
