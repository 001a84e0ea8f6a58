"""A process that takes the lease of a root again and again, and says whether somebody else held it
meanwhile.

    python -m tests.pipeline.lease_contenders ROOT FILE ROUNDS SEED

While it holds the lease it locks FILE, without waiting: the kernel, not the lease, tells whether
two hold it. Sometimes it dies with the lease in its hand, or as good as: the lease then says that
it is of a process that is gone.
"""

import fcntl
import json
import random
import sys
import time
from pathlib import Path

from idcluster.root.lease import Lease, LeaseHeld
from idcluster.root.snapshot import load
from idcluster.root.storage import Store
from tests.pipeline.rooms import bury


def contend(root: str, file: Path, rounds: int, seed: int) -> dict[str, int]:
    store, chance = Store(root), random.Random(seed)
    found = {"held": 0, "twice": 0, "died": 0, "refused": 0, "published": 0}
    while found["held"] < rounds:
        lease = Lease(store, f"r{seed}")
        try:
            lease.__enter__()
        except LeaseHeld:
            found["refused"] += 1
            time.sleep(chance.uniform(0, 0.002))
            continue
        with file.open("r+b") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                found["twice"] += 1
            found["held"] += 1
            if chance.random() < 0.2:
                lease.publish(load(store))
                found["published"] += 1
            found["twice"] += not lease.held()
            fcntl.flock(lock, fcntl.LOCK_UN)
        if chance.random() < 0.25:
            lease._end_renewing()
            bury(root)
            found["died"] += 1
        else:
            lease.__exit__(None, None, None)
    return found


if __name__ == "__main__":
    print(json.dumps(contend(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))))
