"""Photographs and DAGs for the benchmarks."""

import shutil
from pathlib import Path

from pipeline.samples import compose

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = REPOSITORY.parent / "shared"


def photographs(folder: Path, count: int) -> tuple[Path, str]:
    """A folder of people with `count` photographs, and what they are: real ones where they are at
    hand, else the samples.
    """
    real = SHARED / "data" / "photos"
    people = folder / "people"
    if real.is_dir():
        found = sorted(path for path in real.glob("*/*") if path.suffix == ".jpg")
        found += sorted((SHARED / "data" / "group_photos").glob("*.jpg"))
        what = "photographs of LFW and other sets"
    else:
        compose(folder / "samples")
        found = sorted((folder / "samples" / "people").glob("*/*"))
        what = "composed sample images"
    for number in range(count):
        source = found[number % len(found)]
        target = people / source.parent.name / f"{number:05d}{source.suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    return people, f"{count} {what}"


def dag_file() -> tuple[Path, str | None, str]:
    """A DAG with real weights where they are at hand, else the quickstart; its models directory;
    what it is.
    """
    if (SHARED / "models").is_dir():
        return (
            REPOSITORY / "dags" / "photos_scrfd_edgeface.yaml",
            str(SHARED / "models"),
            "SCRFD 2.5G + EdgeFace-XS",
        )
    return REPOSITORY / "dags" / "quickstart.yaml", None, "dlib"
