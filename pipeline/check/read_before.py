"""What earlier checks have read and found whole, kept in the root so that a check that was broken
off is gone on with.

Files are named by a hash: their names may hold ids of people, and these are to be found nowhere
once they are removed.
"""

import contextlib
import hashlib
import json
import time

from idcluster.root.storage import StorageError, Store

PATH = "checks/fine.json"
HOURS = 24.0
"""For how long a file that was read is not read again, unless it was put again since."""
_SAVE_SECONDS = 30.0


class Fine:
    """`deep`: whether this check looks at more than bytes; `again`: whether nothing that was found
    before counts.
    """

    def __init__(self, store: Store, deep: bool, again: bool) -> None:
        self.store, self.deep = store, deep
        self.oldest = time.time() - HOURS * 3600
        self.saved = time.monotonic()
        self.kept = True
        """Whether there is a place to write down what was found."""
        self._files: dict[str, tuple[int, str, float, bool]] = {} if again else self._load()

    def _load(self) -> dict[str, tuple[int, str, float, bool]]:
        try:
            found = json.loads(self.store.read(PATH))["files"]
            return {
                str(key): (int(size), str(mark), float(when), bool(deep))
                for key, (size, mark, when, deep) in found.items()
            }
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def knows(self, path: str, size: int, mark: str) -> bool:
        found = self._files.get(_key(path))
        return (
            found is not None
            and found[:2] == (size, mark)
            and found[2] > self.oldest
            and found[3] >= self.deep
        )

    def add(self, path: str, size: int, mark: str) -> None:
        self._files[_key(path)] = (size, mark, time.time(), self.deep)
        if time.monotonic() - self.saved > _SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Write down what was found. Where the root may not be written, the next check reads all of
        it again.
        """
        self.saved = time.monotonic()
        left = {key: value for key, value in self._files.items() if value[2] > self.oldest}
        try:
            self.store.put(
                PATH,
                json.dumps({"format": 1, "files": left}, sort_keys=True).encode(),
                durable=False,
            )
        except StorageError:
            self.kept = False

    def forget(self) -> None:
        """Nothing that was found counts any more."""
        self._files.clear()
        with contextlib.suppress(OSError):
            self.store.delete([PATH])


def _key(path: str) -> str:
    return hashlib.blake2b(path.encode(), digest_size=12).hexdigest()
