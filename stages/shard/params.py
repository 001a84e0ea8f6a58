"""What a shard profile is: what travels with an image, which images may leave, and who is in
which split.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from schemas import TABLES
from schemas.schema import Member
from stages.stage import LATE, Params

Flag = Literal[
    "weak_majority",
    "second_cluster",
    "near_tie",
    "few_images",
    "reference_missing",
    "reference_alone",
    "merged",
    "same_person",
    "maybe_same",
    "near_person",
    "shared_pictures",
]
SOURCES: Mapping[str, tuple[str, str]] = {
    condition: (table, column.name)
    for table, schema in TABLES.items()
    for condition, column in schema.members.items()
}
"""The table and column that a condition comes from."""
MEMBERS: Mapping[str, Member] = {
    condition: column.member
    for schema in TABLES.values()
    for condition, column in schema.members.items()
    if column.member is not None
}
"""The member that carries a condition."""
TABLES_OF: Mapping[str, str] = {
    **{schema.need: table for table, schema in TABLES.items() if schema.need},
    **{condition: table for condition, (table, _) in SOURCES.items()},
}
"""The table in which a face has a row, if it has what is needed."""
_FIRST = (
    "caption",
    "points",
    "head",
    "affect",
    "mask",
    "normal",
    "albedo",
    "lambertian",
    "landmarks",
    "arcface",
)
NEEDED = (*_FIRST, *(name for name in TABLES_OF if name not in _FIRST))
"""In the order in which versions name them: it is a part of what these are a hash of."""

if TYPE_CHECKING:
    Condition = str
    Needed = str
else:
    Condition = Literal[tuple(name for name in NEEDED if name in MEMBERS)]
    Needed = Literal[NEEDED]

# fmt: off
PROFILES: Mapping[str, Mapping[str, Any]] = {
    # Several different images of a person, a caption, box and points; FlashFace keeps 200 people
    # apart, 4 + 1 images each.
    "flashface": {"need": ("caption",), "min_pictures": 2, "benchmark_people": 200},
    # Captions, three rendered conditions and the face mask, all in one frame.
    "caphuman": {
        "include": ("mask", "normal", "albedo", "lambertian"), "need": ("caption", "head", "mask",
            "normal", "albedo", "lambertian"),
    },
    # The identity vector, and a mask that hides the face in the style image.
    "facestudio": {"include": ("mask", "arcface"), "need": ("mask", "arcface")},
    # Images of landmarks, valence and arousal, the identity vector; two images of a person make
    # a pair.
    "facecrafter": {
        "include": ("mask", "landmarks", "arcface"), "need": ("mask", "landmarks", "arcface",
            "affect"), "min_pictures": 2,
    },
}
# fmt: on
"""What a profile of that name sets where the DAG leaves it open: what the paper's training
reads.
"""


class ShardParams(Params):
    """What a shard profile is."""

    profile: str = Field(default="faces", pattern=r"^[A-Za-z0-9_-]+$")
    """Name of the folder below `shards/`. Of the names flashface, caphuman, facestudio and
    facecrafter, each sets what its paper's training needs (`include`, `need`, `min_pictures`,
    `benchmark_people`) unless the DAG says otherwise.
    """
    target_mb: float = Field(default=256, gt=0)
    """Size that shards have on average, in 10^6 bytes. They end between people: usually half of it
    to twice it.
    """
    include: tuple[Condition, ...] = ()
    """Conditions that travel with the image, each as a member of the sample. `arcface` is the
    identity vector, which is biometric data: it leaves only when it is named here.
    """
    need: tuple[Needed, ...] = ()
    """What an image must have to become a sample."""
    strip_gps: bool = False
    """Take places (GPS in EXIF and XMP) out of the images; every other byte stays. What cannot be
    cleaned is withheld.
    """

    # Which images may leave
    licences: tuple[str, ...] | None = None
    """Licences that may leave, as patterns: ["CC0*", "CC BY*"], in capitals or not. None: every
    image, also without a licence.
    """
    min_side: int = Field(default=0, ge=0)
    """Shorter side of an image, pixels."""
    min_face_side: float = Field(default=0, ge=0)
    """Geometric mean of the sides of the face's box, pixels."""
    max_nsfw: float | None = Field(default=None, ge=0, le=1)
    """Largest probability by the screening's model. A face that was not measured is withheld."""
    min_age: float | None = Field(default=None, ge=0)
    """Least apparent age by the screening's model, years. A face that was not measured is
    withheld.
    """
    withhold_flags: tuple[Flag, ...] = Field(default=(), json_schema_extra=LATE)
    """People with one of these flags (of `people` or `matches`) are withheld until somebody looked:
    [second_cluster, maybe_same].
    """
    min_pictures: int = Field(default=1, ge=1)
    """Of a person, after all other rules; who has fewer is withheld."""

    # Who is in which split
    validation: float = Field(default=0.0, ge=0, le=1)
    """Share of the people that go into the split `validation`, drawn by a hash. People who are near
    one another, or share an image, are on one side.
    """
    validation_people: int = Field(default=200, ge=0)
    """Where `validation` gives fewer people, the share is raised to 1/2^n that gives as many, if
    1/4 is enough for that.
    """
    benchmark_people: int = Field(default=0, ge=0)
    """People of the split `benchmark`, drawn by a hash; neither they nor who is near them are in
    another split.
    """
    references: int = Field(default=4, ge=1)
    """Images of a benchmark's person that a method is shown."""
    targets: int = Field(default=1, ge=1)
    """Images of a benchmark's person that results are compared with."""
    split_source: bool = False
    """What the source states of its images (train, valid, test as benchmark) goes before the
    draw.
    """
    split_list: str | None = None
    """CSV or Parquet with the columns `identity` (name or identity_id) and `split` (train,
    validation, benchmark, none): goes before the draw and the source. `idcluster shards splits`
    writes one.
    """
    split_list_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """Set by the run: which content of the list is meant."""

    contact: str | None = None
    """Where people ask for removal, for the data card."""

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        return {**PROFILES.get(str(given.get("profile")), {}), **given}

    @field_validator("withhold_flags")
    @classmethod
    def _each_once(cls, given: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(sorted(set(given), key=get_args(Flag).index))

    @field_validator("include", "need")
    @classmethod
    def _in_order(cls, given: tuple[Any, ...]) -> tuple[Any, ...]:
        """In one order, each once: the order that somebody wrote makes no other version."""
        return tuple(sorted(set(given), key=NEEDED.index))

    @property
    def target(self) -> int:
        """Bytes."""
        return max(1, round(self.target_mb * 1_000_000))

    @property
    def members(self) -> dict[str, str]:
        """Condition to the ending of its member."""
        return {name: MEMBERS[name].ending for name in self.include}

    def tables(self) -> Iterator[str]:
        """The tables that must be there; captions, heads and landmarks are taken where they are."""
        yield from ("images", "faces", "clusters")
        wanted = {TABLES_OF[name] for name in (*self.include, *self.need)}
        yield from sorted(wanted)
        if (self.max_nsfw is not None or self.min_age is not None) and "screenings" not in wanted:
            yield "screenings"
        if self.withhold_flags:
            yield "people"
