"""How long it takes to remove one person from a large root, and to look through all of it
afterwards.

`python -m tests.bench.forget FOLDER [small|tenth|paper]`: FOLDER is made if it is not there (see
`tests.bench.synthetic`); what is removed from it stays removed. Beside it, as a measure of the
machine and the root, how long the snapshot takes to load.
"""

import argparse
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from idcluster.root.snapshot import load
from idcluster.root.storage import Store
from pipeline.forget.erase import forget
from pipeline.forget.preview import prepare
from pipeline.forget.verify import verify
from pipeline.forget.wish import Wish
from schemas import identity_id
from tests.bench.synthetic import SIZES, build, name


@contextmanager
def timed(what: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    print(f"{what}: {time.perf_counter() - start:.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("size", choices=SIZES, nargs="?", default="small")
    parser.add_argument("--person", type=int, help="which person (default: one in the middle)")
    parser.add_argument("--verify", action="store_true", help="look through all of it, too")
    given = parser.parse_args()
    size = SIZES[given.size]
    if not (given.folder / "dataset.json").exists():
        with timed("build"):
            build(given.folder, size)
    store = Store(given.folder)
    with timed("load the snapshot"):
        load(store)
    who = name(size.people // 2 if given.person is None else given.person)
    with timed(f"find {who}"):
        prepared = prepare(store, Wish(identities=(who,)))
    with timed(f"remove {len(prepared.found.images)} images"):
        forget(store, prepared, "bench")
    if given.verify:
        with timed("look through everything"):
            found = verify(store)
        print(
            f"{found.files} files, {found.values} values: {len(found.leftovers)} places hold "
            "what was removed"
        )
    left = [path for path in store.list("") if identity_id(who) in path]
    print(
        f"{len(left)} files named by the person; "
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB of memory"
    )


if __name__ == "__main__":
    main()
