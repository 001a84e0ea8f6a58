"""Removing somebody from real photographs with real networks: the person alone goes, with copies
and with images of others.
"""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from idcluster.catalogue.connection import connect
from idcluster.root.storage import Store
from pipeline.forget.erase import forget
from pipeline.forget.like import likeness, write_sheet
from pipeline.forget.preview import prepare
from pipeline.forget.verify import verify
from pipeline.forget.wish import Wish
from schemas import identity_id
from tests.pipeline.forgotten import holding
from tests.pipeline.in_process import run_here
from tests.pipeline.rooms import shown

pytestmark = pytest.mark.slow

DAG = Path(__file__).parents[3] / "dags" / "photos_scrfd_edgeface.yaml"
WHO, SISTER, OTHERS = "serena_williams", "venus_williams", ("bbt_amy", "tony_blair")


def run(source: Path, root: Path, models: Path) -> None:
    sets = [f"source.path={source}", f"root={root}", "stages.shard.params.target_mb=1"]
    run_here(DAG, sets=sets, models=str(models), accept_licence="once")


def gathered(photos: Path, folder: Path) -> Path:
    """Six photographs a person; Tony Blair has one of Serena Williams at half its size, too, and
    one with both of them.
    """
    for person in (WHO, SISTER, *OTHERS):
        (folder / person).mkdir(parents=True)
        for file in sorted((photos / person).glob("*.jpg"))[:6]:
            shutil.copyfile(file, folder / person / file.name)
    hers, second = (opened(file) for file in sorted((photos / WHO).glob("*.jpg"))[:2])
    his = opened(sorted((photos / "tony_blair").glob("*.jpg"))[7])
    hers.resize((hers.width // 2, hers.height // 2)).save(
        folder / "tony_blair" / "half.jpg", quality=85
    )
    second = second.resize((round(second.width * his.height / second.height), his.height))
    both = Image.new("RGB", (his.width + second.width, his.height))
    both.paste(his, (0, 0))
    both.paste(second, (his.width, 0))
    both.save(folder / "tony_blair" / "both.jpg", quality=95)
    return folder


def opened(file: Path) -> Image.Image:
    with Image.open(file) as image:
        return image.convert("RGB")


def test_one_of_two_sisters_goes(photos: Path, models_dir: Path, tmp_path: Path) -> None:
    """The sister would go with her, or images under another name would stay; or nobody be found
    by a photograph.
    """
    source, root = gathered(photos, tmp_path / "people"), tmp_path / "root"
    run(source, root, models_dir)
    store = Store(root)
    photograph = sorted((photos / WHO).glob("*.jpg"))[8]
    alike = prepare(store, Wish(likes=(likeness(store, photograph, str(models_dir)),)))
    assert list(alike.found.people.values()) == [WHO]
    prepared = prepare(store, Wish(identities=(WHO,)))
    found = prepared.found
    assert set(found.people.values()) == {WHO} and len(found.images) == 8
    assert sorted(why.split(" (")[0] for why in found.others.values()) == [
        "a copy of the image",
        "the face",
    ]
    sheet = write_sheet(store, found, tmp_path / "sheet")
    assert sheet is not None and opened(sheet).height > 300
    forget(store, prepared, "forget-test")
    assert holding(store, [WHO, identity_id(WHO), *found.images, *found.sha256s]) == []
    assert verify(store, [WHO]).leftovers == []
    run(source, root, models_dir)
    fresh = Path(shutil.copytree(source, tmp_path / "fresh" / "people"))
    shutil.rmtree(fresh / WHO)
    for file in ("half.jpg", "both.jpg"):
        (fresh / "tony_blair" / file).unlink()
    run(fresh, tmp_path / "fresh" / "root", models_dir)
    assert shown(root) == shown(tmp_path / "fresh" / "root")
    connection = connect(str(root))
    kept = connection.execute(
        "SELECT face_id FROM clusters WHERE keep AND identity_id = ?", [identity_id(SISTER)]
    ).fetchall()
    assert len(kept) >= 5
    connection.close()
