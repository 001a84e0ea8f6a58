"""Sample people for the demo, composed from photographs that installed packages ship: nothing is
downloaded.

Three photographs show eight people. Each person gets a folder of "photographs": crops around the
head that vary in size, framing, tilt, light, colour, sharpness and file format, among them images
that do not belong there, as a search on the web brings them. Which is which is written down, so
that cleaning can be scored.

The portraits of Eileen Collins and Grace Hopper are works of NASA and the US Navy. The names given
to the six people of insightface's image are invented.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, cast

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from schemas.errors import UserError

Role = Literal["person", "other_person", "no_face", "corrupt", "with_other"]
Box = tuple[int, int, int, int]


class MissingSample(UserError, FileNotFoundError):
    """A photograph that the samples are made from is not there; the message names the package that
    ships it.
    """


@dataclass(frozen=True)
class Truth:
    """What one file is. Of a file that `expected_keep`, exactly one face, the person's, belongs in
    the dataset.
    """

    person: str
    file: str  # inside people/<person>/
    role: Role
    shows: str  # the names of all people in it, joined by " | "
    expected_keep: bool


@dataclass(frozen=True)
class _Photograph:
    package: str
    file: str
    install: str


@dataclass(frozen=True)
class _Sitter:
    """A person in a photograph, boxes drawn by hand: the face, and the room around it in which
    nobody else is seen.

    `upright` is the turn in degrees that sets the head straight.
    """

    name: str
    photograph: _Photograph
    face: Box
    room: Box
    upright: float = 0.0


_COLLINS = _Photograph("skimage", "data/astronaut.png", "scikit-image")
_HOPPER = _Photograph("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", "matplotlib")
_SIX = _Photograph("insightface", "data/images/t1.jpg", "--no-deps insightface")

_SITTERS = (
    _Sitter("Eileen Collins", _COLLINS, (175, 76, 265, 166), (60, 0, 360, 320)),
    _Sitter("Grace M. Hopper", _HOPPER, (178, 138, 362, 322), (0, 0, 512, 600)),
    _Sitter("Mara Ellison", _SIX, (68, 284, 172, 388), (0, 130, 260, 560)),
    _Sitter("Zoë Lindqvist", _SIX, (275, 174, 365, 264), (190, 66, 462, 400), -14.0),
    _Sitter("Daniel Hart", _SIX, (452, 292, 558, 398), (424, 190, 735, 570)),
    _Sitter("Theo Marchetti", _SIX, (724, 364, 832, 472), (620, 250, 905, 600)),
    _Sitter("Oskar Winther", _SIX, (882, 72, 992, 182), (770, 0, 1112, 300), -12.0),
    _Sitter("Lena Fairfax", _SIX, (1116, 282, 1226, 392), (1062, 214, 1280, 590)),
)

_FACELESS = tuple(
    _Photograph("skimage", f"data/{file}", "scikit-image")
    for file in (
        "coffee.png",
        "rocket.jpg",
        "motorcycle_left.png",
        "hubble_deep_field.jpg",
        "gravel.png",
        "brick.png",
    )
)


def compose(target_dir: Path, seed: int = 0) -> list[Truth]:
    """Write `people/<name>/*` and `truth.csv` below `target_dir`; returns what is in truth.csv.

    Without insightface's photograph there are the two people of the others (`without_six`). The
    same seed gives the same bytes (with the same Pillow). Files that are already right are not
    touched, files of an earlier call that no longer belong are deleted. Raises MissingSample.
    """
    wanted = (_COLLINS, _HOPPER, *(() if without_six() else (_SIX,)), *_FACELESS)
    pictures = {photograph: _load(photograph) for photograph in wanted}
    truths: list[Truth] = []
    for index, sitter in enumerate(_SITTERS):
        if sitter.photograph in pictures:
            rng = np.random.default_rng([seed, index])
            truths += _folder(target_dir / "people" / sitter.name, sitter, pictures, rng)
    _forget_earlier(target_dir, truths)
    _write(target_dir / "truth.csv", _as_csv(truths))
    return truths


def without_six() -> str | None:
    """What to install for the six people of insightface's photograph; None where it is there.

    Nothing else of that package is used, and installed whole it brings a second OpenCV.
    """
    return None if _path(_SIX) else f"pip install {_SIX.install}"


def read_truth(target_dir: Path) -> list[Truth]:
    """What `compose` wrote into `target_dir`."""
    with (target_dir / "truth.csv").open(newline="", encoding="utf-8") as lines:
        return [
            Truth(
                row["person"],
                row["file"],
                cast(Role, row["role"]),
                row["shows"],
                row["expected_keep"] == "true",
            )
            for row in csv.DictReader(lines)
        ]


def _folder(
    folder: Path,
    sitter: _Sitter,
    pictures: dict[_Photograph, Image.Image],
    rng: np.random.Generator,
) -> list[Truth]:
    others = [one for one in _SITTERS if one is not sitter and one.photograph in pictures]
    strangers = [others[i] for i in rng.permutation(len(others))]
    contents: list[tuple[Role, tuple[_Sitter, ...], bytes, str]] = []

    def add(role: Role, shown: tuple[_Sitter, ...], picture: Image.Image) -> None:
        contents.append((role, shown, *_encode(picture, rng)))

    for _ in range(rng.integers(10, 15)):
        add("person", (sitter,), _photograph_of(sitter, pictures, rng))
    for stranger in strangers[: rng.integers(2, 4)]:
        add("other_person", (stranger,), _photograph_of(stranger, pictures, rng))
    for i in rng.permutation(len(_FACELESS))[: rng.integers(1, 3)]:
        add("no_face", (), _view(pictures[_FACELESS[i]], rng))
    add("with_other", (sitter, strangers[-1]), _pair(sitter, strangers[-1], pictures, rng))
    whole, kind = _encode(_photograph_of(sitter, pictures, rng), rng)
    # A download that broke off: the header and a first strip, too little to show a face.
    contents.append(("corrupt", (), whole[: len(whole) // 5], kind))

    truths = []
    for number, i in enumerate(rng.permutation(len(contents)), start=1):
        role, shown, data, kind = contents[i]
        file = f"{number:03d}.{kind}"
        _write(folder / file, data)
        names = " | ".join(one.name for one in shown)
        truths.append(Truth(sitter.name, file, role, names, role in ("person", "with_other")))
    return truths


def _photograph_of(
    sitter: _Sitter, pictures: dict[_Photograph, Image.Image], rng: np.random.Generator
) -> Image.Image:
    """One more "photograph" of a person: another crop, tilt, light, sharpness, sometimes mirrored
    or mounted on paper.
    """
    picture = _portrait(
        sitter, pictures, rng, side=float(rng.uniform(100, 190)), tilt=float(rng.uniform(-6, 6))
    )
    if rng.random() < 0.35:
        picture = _mounted([picture], rng)
    return _developed(picture, rng)


def _pair(
    first: _Sitter,
    second: _Sitter,
    pictures: dict[_Photograph, Image.Image],
    rng: np.random.Generator,
) -> Image.Image:
    """Two people side by side."""
    side = float(rng.uniform(110, 150))
    portraits = [_portrait(one, pictures, rng, side, tilt=0.0) for one in (first, second)]
    if rng.random() < 0.5:
        portraits.reverse()
    return _developed(_mounted(portraits, rng), rng)


def _portrait(
    sitter: _Sitter,
    pictures: dict[_Photograph, Image.Image],
    rng: np.random.Generator,
    side: float,
    tilt: float,
) -> Image.Image:
    """The head and some of what is around it, the face `side` pixels wide, `tilt` degrees from
    upright, half of them mirrored.
    """
    x1, y1, x2, y2 = sitter.face
    scale = side / (x2 - x1)
    room = pictures[sitter.photograph].crop(sitter.room)
    room = room.resize(
        (round(room.width * scale), round(room.height * scale)), Image.Resampling.LANCZOS
    )
    centre_x = ((x1 + x2) / 2 - sitter.room[0]) * scale
    centre_y = ((y1 + y2) / 2 - sitter.room[1]) * scale
    edge = room.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
    room = room.rotate(
        sitter.upright + tilt, Image.Resampling.BICUBIC, center=(centre_x, centre_y), fillcolor=edge
    )
    left, right, above, below = rng.uniform((0.95, 0.95, 0.95, 0.9), (1.7, 1.7, 1.4, 2.0)) * side
    picture = room.crop(
        (
            max(0, round(centre_x - left)),
            max(0, round(centre_y - above)),
            min(room.width, round(centre_x + right)),
            min(room.height, round(centre_y + below)),
        )
    )
    return ImageOps.mirror(picture) if rng.random() < 0.5 else picture


def _mounted(portraits: Sequence[Image.Image], rng: np.random.Generator) -> Image.Image:
    """Images beside each other on a sheet of paper in some colour, with margins."""
    margin, gap = (int(value) for value in rng.integers(12, 60, size=2))
    size = (
        sum(p.width for p in portraits) + gap * (len(portraits) - 1) + 2 * margin,
        max(p.height for p in portraits) + 2 * margin,
    )
    sheet = Image.new("RGB", size, tuple(int(value) for value in rng.integers(40, 240, size=3)))
    x = margin
    for portrait in portraits:
        sheet.paste(portrait, (x, margin))
        x += portrait.width + gap
    return sheet


def _view(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A part of an image, developed like the others."""
    width, height = (round(length * float(rng.uniform(0.6, 0.95))) for length in picture.size)
    x, y = (
        int(rng.integers(0, picture.width - width)),
        int(rng.integers(0, picture.height - height)),
    )
    part = picture.crop((x, y, x + width, y + height))
    part.thumbnail((480, 480), Image.Resampling.LANCZOS)
    return _developed(part, rng)


def _developed(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Other light, contrast, colours, sharpness and grain."""
    picture = ImageEnhance.Brightness(picture).enhance(float(rng.uniform(0.75, 1.25)))
    picture = ImageEnhance.Contrast(picture).enhance(float(rng.uniform(0.8, 1.25)))
    picture = ImageEnhance.Color(picture).enhance(
        0.0 if rng.random() < 0.15 else float(rng.uniform(0.6, 1.3))
    )
    picture = picture.filter(ImageFilter.GaussianBlur(float(rng.uniform(0, 0.9))))
    cast, grain = rng.uniform(0.93, 1.07, size=3), float(rng.uniform(0, 5))
    pixels = np.asarray(picture, dtype=np.float64) * cast + rng.normal(
        0, grain, size=(picture.height, picture.width, 1)
    )
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def _encode(picture: Image.Image, rng: np.random.Generator) -> tuple[bytes, str]:
    """The bytes of a file and its ending: mostly JPEG, some PNG and WebP."""
    kind = str(rng.choice(["jpg", "png", "webp"], p=[0.7, 0.15, 0.15]))
    quality, file = int(rng.integers(60, 96)), io.BytesIO()
    if kind == "jpg":
        picture.save(file, "JPEG", quality=quality)
    elif kind == "png":
        picture.save(file, "PNG")
    else:
        picture.save(file, "WEBP", quality=quality)
    return file.getvalue(), kind


def _path(photograph: _Photograph) -> Path | None:
    """Where the photograph lies, if it does. The package is looked up, not imported."""
    spec = find_spec(photograph.package)
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0], photograph.file)
    return path if path.is_file() else None


def _load(photograph: _Photograph) -> Image.Image:
    """The photograph as RGB. Raises MissingSample."""
    path = _path(photograph)
    if path is None:
        raise MissingSample(
            f"the sample people need {photograph.file} of the package {photograph.package}, "
            f"which is not here: `pip install {photograph.install}`"
        )
    with Image.open(path) as picture:
        return picture.convert("RGB")


def _as_csv(truths: Sequence[Truth]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(field.name for field in fields(Truth))
    for truth in truths:
        *values, keep = astuple(truth)
        writer.writerow([*values, "true" if keep else "false"])
    return text.getvalue().encode()


def _forget_earlier(target_dir: Path, truths: Sequence[Truth]) -> None:
    if not (target_dir / "truth.csv").is_file():
        return
    current = {(truth.person, truth.file) for truth in truths}
    for old in read_truth(target_dir):
        if (old.person, old.file) not in current:
            (target_dir / "people" / old.person / old.file).unlink(missing_ok=True)


def _write(path: Path, data: bytes) -> None:
    if not (path.is_file() and path.read_bytes() == data):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
