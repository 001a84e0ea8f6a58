"""The sources that a DAG can name: the fields of each kind."""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Source(BaseModel):
    """What every kind has."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(min_length=1)
    """Relative to the current directory, as `root` is."""
    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    """What the images' rows call the source. Addresses of files begin with it
    (`local:Anna/1.jpg`), so that ids do not depend on where the folder lies.
    """

    def anchored(self) -> str:
        """`path` for processes with another current directory."""
        return self.path if "://" in self.path else str(self.place())

    def place(self) -> Path:
        """`path` as this machine finds it."""
        return Path(
            os.path.expanduser(self.path)
        ).absolute()  # of an unknown user as it is, not an error


class FolderConfig(_Source):
    """One directory a person below `path`, with the images in it. `path` may lie in an object
    store: s3://bucket/people.
    """

    kind: Literal["folder"]
    name: str = Field(default="local", pattern=r"^[A-Za-z0-9_-]+$")


class UrlsConfig(_Source):
    """A CSV, TSV, JSON-lines or Parquet file, or a folder of them: a person and a web address in
    each row.
    """

    kind: Literal["urls"]
    name: str = Field(default="web", pattern=r"^[A-Za-z0-9_-]+$")
    columns: dict[str, str] = {}
    """Which columns hold what, where their names do not say it: identity, url, licence, page,
    author, external_id.
    """


class TableConfig(_Source):
    """Files that a table assigns to people: a CSV, TSV, JSON-lines or Parquet file, or a known data
    set's own layout.
    """

    kind: Literal["table"]
    name: str = Field(default="table", pattern=r"^[A-Za-z0-9_-]+$")
    layout: Literal["columns", "celeba", "ffhq", "agedb", "lfw"] = "columns"
    """`columns`: a file with a column for each field. The others: `path` is the folder of that data
    set, as published.
    """
    base: str | None = Field(default=None, min_length=1)
    """The folder that paths start from; relative to that of the table, or to `path` where that is a
    folder.
    """
    columns: dict[str, str] = {}
    """Which columns hold what, where their names do not say it: path, identity, split, licence,
    page, author, external_id.
    """
    splits: tuple[str, ...] = ()
    """Rows of these splits only, as the table names them (celeba: train, valid, test; ffhq:
    training, validation).
    """


class VideoConfig(_Source):
    """Frames of clips: one directory a person below `path`, clips anywhere below it."""

    kind: Literal["video"]
    name: str = Field(default="video", pattern=r"^[A-Za-z0-9_-]+$")
    rate: float = Field(default=1.0, gt=0, le=1000)
    """Frames a second of a clip."""
    per_clip: int | None = Field(default=None, ge=1)
    """At most so many frames of one clip, spread over it."""
    clips: tuple[str, ...] = ("*",)
    """Patterns of clips to take, below the person's directory: `video/front/*`. `*` matches slashes
    too.
    """
    prefix: str = ""
    """Put before the names of directories, so that person M003 is not anybody else's M003:
    `MEAD `.
    """
    format: Literal["png", "jpeg"] = "png"
    """How frames are kept: png without loss, jpeg (quality 95, full colour) at a tenth of the
    size.
    """


class _Service(_Source):
    per_person: int = Field(default=500, ge=1)
    """At most so many images of one person."""
    columns: dict[str, str] = {}
    """Which columns of the list of people hold what, where their names do not say it: name,
    aliases, wikidata.
    """
    relist_days: float = Field(default=1.0, ge=0)
    """Days after which a run asks about a person again."""


class CommonsConfig(_Service):
    """Wikimedia Commons: files of the people in a list (`path`), found over Wikidata."""

    kind: Literal["commons"]
    name: str = Field(default="commons", pattern=r"^[A-Za-z0-9_-]+$")
    by: tuple[Literal["image", "category", "depicts"], ...] = Field(
        default=("image", "category", "depicts"), min_length=1
    )
    """Where files come from, in this order until there are enough: the item's own images (P18),
    the members of its Commons category (P373), files that say that they depict the person (P180).
    """
    depth: int = Field(default=1, ge=0, le=5)
    """Levels of categories below the person's that are looked at."""
    licences: tuple[str, ...] = ()
    """Patterns of licence codes to take: cc0, pd*, cc-by-*. None given: all."""
    min_side: int = Field(default=0, ge=0)
    """Pixels of the shorter side below which a file is left out."""
    languages: tuple[str, ...] = Field(default=("en",), min_length=1)
    """Languages of names and aliases."""
    api: str = "https://commons.wikimedia.org/w/api.php"
    wikidata: str = "https://www.wikidata.org/w/api.php"


class OpenverseConfig(_Service):
    """Openverse: openly licensed images that a search for the names in a list (`path`) finds."""

    kind: Literal["openverse"]
    name: str = Field(default="openverse", pattern=r"^[A-Za-z0-9_-]+$")
    per_person: int = Field(default=240, ge=1)
    licences: tuple[
        Literal[
            "by",
            "by-sa",
            "by-nc",
            "by-nd",
            "by-nc-sa",
            "by-nc-nd",
            "cc0",
            "pdm",
            "sampling+",
            "nc-sampling+",
        ],
        ...,
    ] = ("by", "by-sa", "cc0", "pdm")
    sources: tuple[str, ...] = ()
    """Collections to search, as Openverse names them: flickr, wikimedia. None given: all."""
    aliases: bool = False
    """Search for aliases too, where the name has not brought enough."""
    exact: bool = True
    """Search for the name as a phrase, not for its words."""
    min_side: int = Field(default=0, ge=0)
    """Pixels of the shorter side below which an image is left out."""
    token_env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """The environment variable that holds an access token; none: asked as anybody, 20 requests a
    minute and 200 a day.
    """
    api: str = "https://api.openverse.org/v1/images/"


Source = Annotated[
    FolderConfig | UrlsConfig | TableConfig | VideoConfig | CommonsConfig | OpenverseConfig,
    Field(discriminator="kind"),
]
"""Where people come from."""

# fmt: off
KINDS: dict[str, type[_Source]] = {
    "folder": FolderConfig, "urls": UrlsConfig, "table": TableConfig, "video": VideoConfig,
    "commons": CommonsConfig,
    "openverse": OpenverseConfig,
}
# fmt: on
