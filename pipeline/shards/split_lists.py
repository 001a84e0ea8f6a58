"""Lists that say who is in which split: read once, kept in the dataset by their content.

The dataset's own copy, `lists/<sha256>.json`, has identity ids and no names; with it the shards can
be written again on another machine, and after a removal.
"""

import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq

from idcluster.catalogue.connection import connect
from idcluster.root.removals import load_bars
from idcluster.root.snapshot import Snapshot
from idcluster.root.storage import Store
from schemas import identity_id
from schemas.errors import UserError
from stages.shard.params import ShardParams
from stages.shard.splits import BARRED, FEW, LISTED_OUT, NOWHERE, SPLITS

_KNOWN = (*SPLITS, NOWHERE)
# fmt: off
STATED: Mapping[str, str] = {
    **{name: name for name in _KNOWN}, "training": "train", "valid": "validation",
    "val": "validation", "test": "benchmark",
    "testing": "benchmark",
}
# fmt: on
"""What data sets call splits, and what is meant here."""
_HEX = set("0123456789abcdef")


class BadList(UserError, ValueError):
    """A list of splits that cannot be used; the message names file, row and remedy."""

    exit_code = 2


class LostList(BadList):
    """The root's own copy of a list is gone or damaged."""

    exit_code = 1


def resolve(
    store: Store, params: ShardParams, write: bool = True
) -> tuple[ShardParams, dict[str, str]]:
    """`params` with its list named by its content alone, and the list: identity_id to split.

    The content is put into the dataset (`write`), so that parameters found there later say all.
    Raises BadList.
    """
    if params.split_list is not None:
        people = read(Path(params.split_list))
        data = _encode(people)
        digest = hashlib.sha256(data).hexdigest()
        if write and not store.exists(path_of(digest)):
            bars = load_bars(store)
            store.put(
                path_of(digest),
                _encode(
                    {who: split for who, split in people.items() if not bars.text("identity", who)}
                ),
            )
        return params.model_copy(update={"split_list": None, "split_list_sha256": digest}), people
    if params.split_list_sha256 is None:
        return params, {}
    path = path_of(params.split_list_sha256)
    try:
        return params, dict(json.loads(store.read(path))["people"])
    except FileNotFoundError:
        raise LostList(
            f"{store.uri(path)}: the list of splits is not there; name it again as split_list"
        ) from None
    except (ValueError, LookupError, TypeError) as error:
        raise LostList(
            f"{store.uri(path)}: damaged ({error}); delete it and name the list again as split_list"
        ) from error


def path_of(digest: str) -> str:
    return f"lists/{digest[:32]}.json"


def read(path: Path) -> dict[str, str]:
    """identity_id to split of a CSV or Parquet file. Raises BadList."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadList(
            f"{path}: {error.strerror or error}; split_list names a CSV or Parquet file"
        ) from error
    try:
        if data[:4] == b"PAR1":
            table = pq.read_table(io.BytesIO(data))
        else:
            table = csv.read_csv(
                io.BytesIO(data),
                convert_options=csv.ConvertOptions(
                    column_types={"identity": pa.string(), "split": pa.string()}
                ),
            )
        columns = [
            table.column(name).cast(pa.string()).to_pylist() for name in ("identity", "split")
        ]
    except KeyError as error:
        raise BadList(
            f"{path}: has no column {error.args[0].split(chr(34))[1]!r}; it needs identity and "
            "split"
        ) from error
    except (pa.ArrowException, ValueError) as error:
        raise BadList(f"{path}: {' '.join(str(error).split())}") from error
    found: dict[str, str] = {}
    for number, (name, split) in enumerate(zip(*columns, strict=True), 1):
        if not name or not name.strip():
            raise BadList(
                f"{path}: row {number}: identity is empty; it is a name or an identity_id"
            )
        stated, split = split, meant_split(split)
        if split is None:
            raise BadList(
                f"{path}: row {number}: no split {stated!r}; there are {', '.join(STATED)}"
            )
        who = name if len(name) == 16 and set(name) <= _HEX else identity_id(name)
        if found.setdefault(who, split) != split:
            raise BadList(
                f"{path}: row {number}: {name} is in {found[who]} and in {split}; a person is in "
                "one split"
            )
    return found


def meant_split(stated: str | None) -> str | None:
    """The split that is meant; None for what is no name of one."""
    return STATED.get((stated or "").strip().lower())


def write_csv(rows: Iterable[tuple[str, str, str]]) -> str:
    """A list as `read` takes it, from (identity_id, name, split); the name is for the reader."""
    lines = [("identity", "split", "name")]
    lines += [(who, split, name) for who, name, split in rows]
    return "".join(",".join(_field(cell) for cell in line) + "\n" for line in lines)


def drawn(store: Store, snapshot: Snapshot, profile: str) -> list[tuple[str, str, str]]:
    """(identity_id, name, split) of everybody with a kept face that a profile has in a split or
    bars from all, by id.
    """
    mine = tuple(
        e
        for e in snapshot.entries
        if e.table not in ("samples", "withheld") or e.file.startswith(f"shards/{profile}/")
    )
    with connect(store, Snapshot(snapshot.number, mine, snapshot.notes)) as connection:
        return connection.execute(_DRAWN, [NOWHERE, [BARRED, FEW, LISTED_OUT]]).fetchall()


_DRAWN = """
SELECT identity_id, any_value(coalesce(n.name, '')), min(split) FROM (
    SELECT identity_id, split FROM samples
    UNION ALL SELECT identity_id, $1 FROM withheld WHERE list_contains($2, reason)
        AND identity_id NOT IN (SELECT identity_id FROM samples)
) LEFT JOIN identities n USING (identity_id) GROUP BY identity_id ORDER BY identity_id
"""


def without(store: Store, gone: Iterable[str]) -> dict[str, bytes]:
    """Path to new content of the lists in the dataset that name one of the identities `gone`.

    The names of the files stay: parameters refer to them.
    """
    doomed = set(gone)
    changed = {}
    for path in store.list("lists"):
        people = json.loads(store.read(path))["people"]
        if doomed & people.keys():
            changed[path] = _encode(
                {who: split for who, split in people.items() if who not in doomed}
            )
    return changed


def _encode(people: Mapping[str, str]) -> bytes:
    return (
        json.dumps({"people": dict(sorted(people.items()))}, indent=0, sort_keys=True) + "\n"
    ).encode()


def _field(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\n\r') else text
