"""A dataset as people use it from Python: questions, tables, numbers, and what goes wrong."""

import subprocess
import sys
from pathlib import Path

import pytest

import idcluster
from idcluster.root.storage import Store
from schemas.errors import UserError
from tests.pipeline.small_root import SmallPerson, small_root

_ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset") / "root"
    people = [SmallPerson("Ada Lovelace", 4, rejected=1), SmallPerson("Grace Hopper", 2)]
    small_root(Store(folder), people)
    (folder / "dataset.json").write_text('{"format": 1, "name": "small"}')
    return folder


def test_a_dataset_answers_questions(root: Path) -> None:
    with idcluster.open(root) as dataset:
        assert (dataset.root, dataset.snapshot, dataset.tables["images"]) == (str(root), 1, 7)
        assert dataset.sql("SELECT count(*) FROM clusters WHERE keep").fetchall() == [(6,)]
        asked = dataset.sql("SELECT name FROM identities WHERE name LIKE $1", ["Ada%"])
        assert asked.fetchall() == [("Ada Lovelace",)]
        assert dataset.people["name"].to_pylist() == ["Ada Lovelace", "Grace Hopper"]
        assert dataset.people["kept"].to_pylist() == [4, 2]
        images = dataset.table("images", ["image_id", "width"], where="width = 32")
        assert images.num_rows == 7 and images.column_names == ["image_id", "width"]
        assert "bytes" not in dataset.table("images").column_names, "images are asked for by name"
        assert len(dataset.table("images", ["bytes"])["bytes"][0].as_py()) > 100
        assert set(dataset.stats("funnel", "licences")) == {"funnel", "licences"}
        assert dataset.profiles == []
        assert repr(dataset) == f"Dataset({str(root)!r}, snapshot 1: 2 people, 7 images, 7 faces)"


def test_a_dataset_goes_on_after_it_was_closed(root: Path) -> None:
    dataset = idcluster.open(str(root))
    dataset.sql("SELECT 1")
    dataset.close()
    assert dataset.sql("SELECT count(*) FROM images").fetchall() == [(7,)]


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        ("dataset.sql('SELECT * FROM imges')", "no table 'imges'; did you mean 'images'?"),
        ("dataset.sql('SELECT wdith FROM images')", "wdith"),
        ("dataset.sql('')", "there is no question in it"),
        ("dataset.sql(\"COPY images TO '/tmp/x.parquet'\")", "no other file"),
        ("dataset.sql(\"SELECT * FROM '/etc/passwd'\")", ""),
        ("dataset.table('imges')", "no table 'imges'; did you mean 'images'?"),
        ("dataset.table('images', ['wdith'])", "no column 'wdith'; did you mean 'width'?"),
        ("dataset.stats('funel')", "did you mean 'funnel'?"),
        ("dataset.samples('faces')", "has no shards"),
        ("idcluster.open(dataset.root, snapshot=7)", "has no snapshot 7"),
        ("idcluster.open(dataset.root + '/nowhere')", "is no dataset"),
    ],
)
def test_what_cannot_be_answered_is_told_in_a_line(root: Path, ask: str, said: str) -> None:
    dataset = idcluster.open(root)
    calls = {"dataset": dataset, "idcluster": idcluster}
    with pytest.raises(UserError) as error:
        eval(ask, calls)  # noqa: S307 - the cases above
    assert said in str(error.value) and "\n" not in str(error.value)


def test_importing_brings_nothing_along() -> None:
    """A notebook would wait for Ray, and a reader of shards need OpenCV."""
    code = """
import sys
import idcluster
heavy = {"ray", "torch", "cv2", "duckdb", "pyarrow", "numpy", "pydantic", "pipeline", "stages"}
print(sorted(heavy & {name.split(".")[0] for name in sys.modules}))
assert set(idcluster.__all__) <= set(dir(idcluster))
print(callable(idcluster.run), callable(idcluster.open), idcluster.__version__ != "")
print(issubclass(idcluster.UserError, Exception))
print(sorted({"ray", "torch", "cv2"} & {name.split(".")[0] for name in sys.modules}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=_ROOT, capture_output=True, text=True, check=False
    )
    assert (done.stdout.splitlines(), done.stderr) == (["[]", "True True True", "True", "[]"], "")


@pytest.mark.slow
def test_reading_a_dataset_needs_neither_ray_nor_opencv(root: Path) -> None:
    code = f"""
import sys
for name in ("ray", "torch", "cv2", "onnxruntime", "simplejpeg", "webdataset", "aiohttp"):
    sys.modules[name] = None
import idcluster
dataset = idcluster.open({str(root)!r})
print(dataset.people.num_rows, len(dataset.stats()) > 10, dataset.table("images").num_rows)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=_ROOT, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("2 True 7\n", "")


def test_another_package_of_our_names_is_told(tmp_path: Path) -> None:
    """Standing in a folder with a `pipeline/` of one's own, and having imported it, one would get
    an error about something that is missing in it.
    """
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "__init__.py").write_text("")
    code = "import pipeline, idcluster\nidcluster.open('.')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": f".:{_ROOT}", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "ImportError: idcluster needs its own package 'pipeline', and " in done.stderr
