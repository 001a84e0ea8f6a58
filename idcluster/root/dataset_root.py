"""A dataset root as a whole: opening it, and counting what it shows. Needs nothing beyond the core
packages.
"""

import json
import secrets
from collections import Counter
from collections.abc import Collection
from datetime import UTC, datetime

from idcluster.root.parquet import read_entries
from idcluster.root.snapshot import Snapshot
from idcluster.root.storage import Store
from schemas import TABLES
from schemas.errors import UserError

ROOT_FORMAT = 1
"""Of a root as a whole, as `dataset.json` names it: which folders there are and how their files are
named.
"""


class RunError(UserError, RuntimeError):
    """A command cannot start or go on with a root; the message says why and what to do."""


class UsageError(RunError):
    """What was named on the command line is not there, or is not of the kind that is asked for."""

    exit_code = 2


def new_run_id() -> str:
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"


def open_root(root: str | Store) -> Store:
    """The store of a dataset that is there, with its `dataset.json` checked. Raises RunError."""
    store = root if isinstance(root, Store) else Store(root)
    if not _is_one(store):
        raise UsageError(
            f"{store.root} is no dataset (it has no dataset.json); `idcluster run` makes one"
        )
    return store


def make_root(root: str | Store, name: str) -> Store:
    """As `open_root`; where there is no dataset yet, one is made. Raises RunError."""
    store = root if isinstance(root, Store) else Store(root)
    if not _is_one(store):
        about = json.dumps({"format": ROOT_FORMAT, "name": name}, indent=1).encode() + b"\n"
        store.put_new("dataset.json", about)
    return store


def _is_one(store: Store) -> bool:
    """Whether there is a dataset. Raises RunError for one that this program does not read."""
    try:
        about = json.loads(store.read("dataset.json"))
    except FileNotFoundError:
        return False
    except ValueError as error:
        raise RunError(f"{store.uri('dataset.json')} is damaged: {error}") from error
    if not isinstance(about, dict):
        raise RunError(
            f'{store.uri("dataset.json")} is damaged: it is to hold {{"format": {ROOT_FORMAT}, '
            f'"name": ...}}'
        )
    if about.get("format") != ROOT_FORMAT:
        raise RunError(
            f"{store.root} has format {about.get('format')}; this idcluster reads format "
            f"{ROOT_FORMAT}"
        )
    return True


def counts(
    store: Store, snapshot: Snapshot, without: Collection[str] = ()
) -> dict[str, Counter[str]]:
    """Rows by status of every table, those in the files `without` left out. Only files that hold
    rows of another status than ok are read.
    """
    result = {}
    for table, schema in TABLES.items():
        entries = [entry for entry in snapshot.shown(table) if entry.file not in without]
        if entries and "status" in schema.names:
            mixed = [entry for entry in entries if entry.ok != entry.rows]
            states = Counter(read_entries(store, table, mixed, ["status"])["status"].to_pylist())
            states["ok"] += sum(entry.rows for entry in entries if entry.ok == entry.rows)
            result[table] = states
    return result
