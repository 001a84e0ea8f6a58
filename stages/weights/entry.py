"""What the registry knows of one file of weights."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Weights:
    """One file of weights. `file` is its path below the models directory, or below the package `package` names.

    A file that is **pinned** has a sha256; nothing opens another file in its place. Where no source states the hash of
    a file it is not pinned (`sha256` is None), and a team pins it once: `idcluster models pin NAME FILE`.
    """

    name: str
    """`<bundle>/<path>` for the files of a model that comes as several."""
    file: str
    sha256: str | None
    bytes: int | None
    """None: not stated by any source."""
    licence: str
    use: str
    """What the licence of weights and training data allows: one of `USES`."""
    source: str
    """Where the file comes from and by whom it was made: for people, and for the record."""
    package: str | None = None
    normalisation: tuple[float, float] = (0.0, 1.0)
    """Mean and standard deviation by which the network expects RGB pixels of 0 to 255 to be shifted and scaled."""
    kind: str = ""
    """`<subject>/<loader>`: what can load the file, such as `detect/scrfd`. Files of one kind stand in for each other."""
    address: str | None = None
    """https address to fetch from; None where the file comes only by hand."""
    member: str | None = None
    """Path inside the zip or tar file behind `address`; None where `address` is the file itself."""
    sha256_prefix: str | None = None
    """First hex digits of the sha256, where a source states only those: a file that is pinned has to begin with them."""
    git_blob: str | None = None
    """Id of the file in a git repository, sha1 of `blob <bytes>\\0` and the content, where a source states only that."""
    md5: str | None = None
    """Where a source states only that."""
    by_hand: str | None = None
    """Where to register, which file to take and where to put it, for files that their owners hand out in person."""
    needed_by: tuple[str, ...] = ()
    """Backends and parts that load it, such as `detect:scrfd` or `eval:fid`."""

    @property
    def bundle(self) -> str | None:
        """The model that this file is a part of; None for a model of one file."""
        name, slash, _ = self.name.partition("/")
        return name if slash else None

    @property
    def subject(self) -> str:
        """First part of the kind: detect, embed, landmark, ..."""
        return self.kind.partition("/")[0]

    @property
    def stated(self) -> bool:
        """Whether a source states something by which the whole file can be told from another one."""
        return self.sha256 is not None or self.git_blob is not None or self.md5 is not None


USES = {
    "any": "any use, also commercial",
    "restricted": "also commercial use, but not for the purposes that the licence excludes",
    "non-commercial": "research and other non-commercial use only",
    "unstated": "nobody states a licence: the owner's permission is yours to find",
}
"""What `Weights.use` can be. All but `any` have to be accepted before a DAG that loads the file is run."""


def hub(repository: str, revision: str, path: str) -> str:
    """The address of a file in a repository of the Hugging Face hub."""
    return f"https://huggingface.co/{repository}/resolve/{revision}/{path}"


def hub_bundle(
    bundle: str,
    folder: str,
    repository: str,
    revision: str,
    files: Mapping[str, tuple[str | None, int | None]],
    *,
    kind: str,
    licence: str,
    use: str,
    needed_by: tuple[str, ...],
    by_hand: str | None = None,
) -> tuple[Weights, ...]:
    """The files of a model that is a repository of the Hugging Face hub, kept in its layout below `folder`/`bundle`.

    `files`: path in the repository to sha256 and bytes. Large files have theirs in the repository's LFS pointers; for
    small ones (configurations, vocabularies) the hub states no sha256.
    """
    return tuple(
        Weights(
            f"{bundle}/{path}",
            f"{folder}/{bundle}/{path}",
            sha256,
            size,
            licence,
            use,
            f"https://huggingface.co/{repository}, {path} at {revision}",
            kind=kind,
            address=None if by_hand else hub(repository, revision, path),
            by_hand=by_hand,
            needed_by=needed_by,
        )
        for path, (sha256, size) in files.items()
    )
