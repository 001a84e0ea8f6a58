"""How many changed copies of photographs the bars of a removal know again, and how many other
photographs they take for copies.

    python -m tests.bench.lookalikes PHOTOGRAPHS [--copies N] [--files N]

PHOTOGRAPHS: a folder with one folder a person. Each copy is scaled to 0.7 and compressed anew at
quality 85.
"""

import argparse
import io
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from idcluster.root.removals import telling
from stages.lookalikes import guesses, looks
from stages.pictures import perceptual_hash

_ONE_SIDE = ((0.1, 0.0, 0.0, 0.0), (0.0, 0.1, 0.0, 0.0), (0.0, 0.0, 0.1, 0.0), (0.0, 0.0, 0.0, 0.1))
_WAY = Image.Resampling.BILINEAR


def copy(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.resize(
        (round(image.width * 0.7), round(image.height * 0.7)), Image.Resampling.LANCZOS
    ).save(out, "JPEG", quality=85)
    return out.getvalue()


def cut(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    w, h = image.size
    return image.crop(
        (round(w * left), round(h * top), round(w * (1 - right)), round(h * (1 - bottom)))
    )


def anywhere(image: Image.Image, share: float, rng: random.Random) -> Image.Image:
    x, y = rng.random() * (1 - share), rng.random() * (1 - share)
    return cut(image, x, y, 1 - share - x, 1 - share - y)


def changes(rng: random.Random) -> dict[str, Callable[[Image.Image], Image.Image]]:
    return {
        "as it is": lambda image: image,
        "mirrored": ImageOps.mirror,
        "a tenth of width and height cut off, evenly": lambda image: cut(
            image, 0.05, 0.05, 0.05, 0.05
        ),
        "a tenth cut off at each side": lambda image: cut(image, 0.1, 0.1, 0.1, 0.1),
        "a tenth cut off at one side": lambda image: cut(image, *rng.choice(_ONE_SIDE)),
        "a tenth of width and height cut off, anywhere": lambda image: anywhere(image, 0.9, rng),
        "the same, mirrored": lambda image: ImageOps.mirror(anywhere(image, 0.9, rng)),
        "15 % of width and height cut off, anywhere": lambda image: anywhere(image, 0.85, rng),
        "turned by 1 degree": lambda image: image.rotate(1, _WAY),
        "turned by 2 degrees": lambda image: image.rotate(-2, _WAY),
        "turned by 3 degrees": lambda image: image.rotate(3, _WAY),
        "turned by 5 degrees": lambda image: image.rotate(-5, _WAY),
        "turned by 10 degrees": lambda image: image.rotate(10, _WAY),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("photographs", type=Path)
    parser.add_argument(
        "--copies",
        type=int,
        help="of how many photographs copies are made; other photographs are compared all",
    )
    parser.add_argument("--files", type=int, help="how many photographs are compared")
    given = parser.parse_args()
    rng = random.Random(0)
    files = sorted(given.photographs.glob("*/*.jpg"))
    rng.shuffle(files)
    files = files[: given.files]
    count = given.copies or len(files)
    known, asked = [], []
    found = dict.fromkeys(changes(rng), 0)
    for file in files:
        data = file.read_bytes()
        mine = looks(data)[:, 0]
        known.append(np.unique(mine[[telling(int(value)) for value in mine]]))
        asked.append(guesses(data))
        if len(known) > count:
            continue
        with Image.open(io.BytesIO(data)) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGB")
        for name, change in changes(rng).items():
            changed = copy(change(image))
            hash_ = perceptual_hash(changed)
            found[name] += (
                hash_ is not None
                and telling(hash_)
                and bool(np.isin(guesses(changed), known[-1]).any())
            )
    for name, hits in found.items():
        print(f"{name:50} {hits / min(count, len(files)):.3f}", flush=True)
    of = np.concatenate([np.full(len(values), number) for number, values in enumerate(known)])
    every = np.concatenate(known)
    order = np.argsort(every)
    every, of = every[order], of[order]
    pairs: set[tuple[str, str]] = set()
    for number, values in enumerate(asked):
        first, last = (
            np.searchsorted(every, values, "left"),
            np.searchsorted(every, values, "right"),
        )
        hit = {
            int(of[at])
            for low, high in zip(first[first < last], last[first < last], strict=True)
            for at in range(low, high)
        }
        pairs |= {
            (str(files[min(number, other)]), str(files[max(number, other)]))
            for other in hit - {number}
        }
    print(
        f"{len(pairs)} of {len(files) * (len(files) - 1) // 2} pairs of different files are "
        "taken for copies"
    )
    for pair in sorted(pairs):
        print("  ", *pair)


if __name__ == "__main__":
    main()
