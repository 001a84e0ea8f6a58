"""What makes a set of shards known: one index a split and one over all, `dataset.json`, the data
card, and `croissant.json`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from idcluster.root import parquet
from idcluster.root.intact import digest_of
from idcluster.root.snapshot import Entry, Snapshot
from idcluster.root.storage import Store
from pipeline.shards.tars import sha256_beside
from schemas import TABLES
from schemas.samples import METADATA, SAMPLES
from stages.shard.card import Contents, data_card, dataset_json
from stages.shard.croissant import croissant_json
from stages.shard.splits import SPLITS

_INDEX = "index.json"


def put_indexes(
    store: Store,
    snapshot: Snapshot,
    profile: str,
    note: Mapping[str, Any],
    tars: Iterable[tuple[Entry, int]],
    hashes: Mapping[str, str] | None = None,
) -> None:
    """Put all of a set but its shards, and replaced shards aside. `tars` are the entries of the
    shards in their order with their people, `hashes` the SHA-256 of those written now, by name.
    `note` is `ShardPlan.note`. The index over all is put last.
    """
    tars = list(tars)
    known = {**_hashes(_read_index(store, f"shards/{profile}/{_INDEX}")), **(hashes or {})}
    listed = [_listed(tar, people, _sha256(store, tar, known)) for tar, people in tars]
    made = _indexes(profile, note["version"], note["description"], listed)
    last = made.pop(f"shards/{profile}/{_INDEX}")
    if note.get("contents"):
        made |= _about(snapshot, profile, note, listed)
    for path, data in {**made, f"shards/{profile}/{_INDEX}": last}.items():
        store.put(path, data)
    _arrange(store, profile, (tar for tar, _ in tars))


def _arrange(store: Store, profile: str, tars: Iterable[Entry]) -> None:
    """The shards of the set into its folder, where a `*.tar` finds them, all others aside."""
    names = {tar.file for tar in tars}
    beside = {f"{name.removesuffix('.tar')}.parquet" for name in names}
    store.arrange(f"shards/{profile}", names | beside)


def _hashes(index: Mapping[str, Any]) -> dict[str, str]:
    """The SHA-256 of tars by name, as an index tells them."""
    return {str(item.get("url")): str(item.get("sha256")) for item in index.get("shardlist", ())}


def _sha256(store: Store, tar: Entry, known: Mapping[str, str]) -> str:
    """64 hex digits: of the index before, or of the file beside the tar."""
    sha256 = known.get(tar.file.rpartition("/")[2], "")
    if len(sha256) == 64 and sha256.startswith(tar.digest):
        return sha256
    beside = tar.file.removesuffix(".tar") + ".parquet"
    # Those of an earlier version do not tell it.
    return sha256_beside(store, beside) or digest_of(store, tar.file)[1]


def _about(
    snapshot: Snapshot, profile: str, note: Mapping[str, Any], listed: Sequence[Mapping[str, Any]]
) -> dict[str, bytes]:
    known = snapshot.notes.get("versions", {})
    stages = {}
    for table in sorted(
        {entry.table for entry in snapshot.entries if entry.current} & TABLES.keys()
    ):
        described = [
            known[name]
            for name in sorted({f"{table}/{e.version}" for e in snapshot.shown(table)})
            if name in known
        ]
        if described:
            stages[table] = described[-1]
    given = (profile, note["version"], note["description"]["params"], note["contents"], stages)
    return {
        f"shards/{profile}/dataset.json": dataset_json(*given),
        f"shards/{profile}/README.md": data_card(*given, listed),
        f"shards/{profile}/croissant.json": croissant_json(*given, listed),
    }


def _listed(tar: Entry, identities: int, sha256: str = "") -> dict[str, Any]:
    url = tar.file.rsplit("/", 1)[-1]
    return {
        "url": url,
        "nsamples": tar.rows,
        "filesize": tar.bytes,
        "split": url.split("-")[0],
        "identities": identities,
        "digest": tar.digest,
        "sha256": sha256,
    }


def _indexes(
    profile: str, version: str, description: Mapping[str, Any], listed: Sequence[Mapping[str, Any]]
) -> dict[str, bytes]:
    """One index a split, then `index.json` over all: a format of ours, with the fields that those
    of wids had.
    """
    made = {}
    for split in (*SPLITS, None):
        shown = [item for item in listed if split in (None, item["split"])]
        # A person in numbered parts is counted with the first.
        people = {(item["split"], item["url"].split("-")[-3]): item["identities"] for item in shown}
        index = {
            "wids_version": 1,
            "name": f"{profile}-{split}" if split else profile,
            "shardlist": shown,
            "samples": sum(item["nsamples"] for item in shown),
            "identities": sum(people.values()),
            "bytes": sum(item["filesize"] for item in shown),
            "version": version,
            "description": dict(description),
        }
        data = json.dumps(index, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        made[f"shards/{profile}/{split or 'index'}.json"] = data.encode()
    return made


def reindex(store: Store, snapshot: Snapshot, write: bool = True) -> list[str]:
    """Put the index files of every profile whose indexes do not list the shards that `snapshot`
    shows; their names.

    Without `write` they are only named.

    For what publishes a snapshot without planning shards: going back, and tidying up after a run
    that broke off.
    """
    tars: dict[str, list[Entry]] = {
        path.split("/")[1]: [] for path in store.list("shards") if path.endswith(".json")
    }
    for entry in snapshot.shown("shards"):
        tars.setdefault(entry.file.split("/")[1], []).append(entry)
    order = {split: place for place, split in enumerate(SPLITS)}
    renewed = []
    for profile, entries in sorted(tars.items()):
        # As `plan_shards` orders them: names without their ending.
        entries.sort(key=lambda e: (order[_listed(e, 0)["split"]], e.file.removesuffix(".tar")))
        found = {path: _read_index(store, path) for path in _indexes(profile, "", {}, [])}
        about = snapshot.notes.get(f"index/{profile}") or found[f"shards/{profile}/{_INDEX}"]
        version, description = about.get("version", ""), about.get("description", {})
        expected = _indexes(profile, version, description, [_listed(e, 0) for e in entries])
        contents = about.get("contents")
        if contents:
            contents = _counted(store, contents, entries)
        note = {"version": version, "description": description, "contents": contents}
        known = _hashes(found[f"shards/{profile}/{_INDEX}"])
        named = [_listed(e, 0, known.get(e.file.rpartition("/")[2], "")) for e in entries]
        cards = _about(snapshot, profile, note, named) if note["contents"] else {}
        same = all(
            _digests(json.loads(data)) == _digests(found[path]) for path, data in expected.items()
        )
        if same and all(_read(store, path) == data for path, data in cards.items()):
            if write:
                _arrange(store, profile, entries)
            continue
        renewed.append(profile)
        if not write:
            continue
        listed: list[tuple[Entry, int]] = []
        for entry in entries:
            people = parquet.read(
                store, SAMPLES, entry.file.removesuffix(".tar") + ".parquet", ["canonical_id"]
            )["canonical_id"]
            listed.append((entry, len(people.unique())))
        put_indexes(store, snapshot, profile, note, listed)
    return renewed


def _counted(
    store: Store, contents: Mapping[str, Any], entries: Sequence[Entry]
) -> Mapping[str, Any]:
    """What is in a set: `contents`, counted again where shards are gone since, by an erasure."""
    told = sum(counts["samples"] for counts in contents["splits"].values())
    if told == sum(entry.rows for entry in entries):
        return contents
    found = Contents()
    for entry in entries:
        beside = entry.file.removesuffix(".tar") + ".parquet"
        for row in parquet.read(store, SAMPLES, beside, (*METADATA, "image_length")).to_pylist():
            found.add({**row, "size": row["image_length"]})
    return {
        **{name: value for name, value in contents.items() if name != "late"},
        **found.as_json(),
    }


def _read(store: Store, path: str) -> bytes | None:
    try:
        return store.read(path)
    except FileNotFoundError:
        return None


def _read_index(store: Store, path: str) -> Mapping[str, Any]:
    try:
        found = json.loads(store.read(path))
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _digests(index: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    """What tells one list of shards from another."""
    return [(item.get("url"), item.get("digest")) for item in index.get("shardlist", ())]
