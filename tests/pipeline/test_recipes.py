"""docs/adding-a-stage.md, followed to the letter: all that shows stages shows the new one."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = ("schemas", "idcluster", "stages", "eval", "pipeline")

SCRIPT = """
import json, sys
from pathlib import Path

import schemas
from idcluster import open as open_dataset
from idcluster.root.storage import Store
from pipeline.forget.verify import verify
from pipeline.report.dataset_page import write_report
from stages.light.grey import GreyLight
from tests.pipeline import toy
from tests.pipeline.forgotten import remove
from tests.pipeline.in_process import run_here

assert str(Path(schemas.__file__)).startswith(sys.argv[1]), schemas.__file__
folder = Path(sys.argv[2])
source = toy.people(folder / "people", count=3, pictures=4)
toy.register()
changed = toy.DAG.replace("  caption:", "  light: {{}}\\n  caption:")
changed = changed.replace("include: []", "include: [light], need: [light_words]")
dag = folder / "dag.yaml"
dag.write_text(changed.format(root=folder / "root", people=source))

# One image under another name says in the new stage's words who is on it.
real = GreyLight._row
def telling(self, face, rgb):
    row = real(self, face, rgb)
    return {**row, "words": "beside Person 01"} if rgb[0, 0, 0] == 12 and rgb[0, 0, 1] == 1 else row
GreyLight._row = telling

assert run_here(dag).status == "done"
dataset = open_dataset(folder / "root")
funnel = {row["step"]: row for row in dataset.stats("funnel")["funnel"].to_pylist()}
sample = next(dataset.samples())
write_report(Store(folder / "root"), folder / "report.html", 3)
print(json.dumps({
    "table": dataset.tables["lights"],
    "funnel": [funnel["lit"]["came"], funnel["lit"]["went_through"]],
    "columns": [sample.about["light"], sample.about["light_level"] > 0],
    "member": sample.member("light").shape[0] > 1,
    "json": json.loads(sample.members["json"])["light"],
    "report": "with light" in (folder / "report.html").read_text(),
    "card": "the face in grey" in (folder / "root/shards/faces/README.md").read_text(),
}))
named = dataset.sql("SELECT count(*) FROM lights WHERE words LIKE '%Person%'").fetchall()[0][0]
before = dataset.tables["images"]
own = dataset.sql("SELECT count(*) FROM images JOIN identities USING (identity_id) "
                  "WHERE name = 'person 01'").fetchall()[0][0]
remove(Store(folder / "root"), "person 01")
after = open_dataset(folder / "root")
left = after.sql("SELECT count(*) FROM lights WHERE words LIKE '%Person%'").fetchall()[0][0]
print(json.dumps({"named": named, "left": left, "others": before - after.tables["images"] - own,
                  "verified": [one.path for one in verify(Store(folder / "root")).leftovers]}))
"""


def blocks() -> list[str]:
    """The three pieces of code in the recipe: table, place, backend."""
    recipe = (_ROOT / "docs/adding-a-stage.md").read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", recipe, re.DOTALL)


def follow(tree: Path) -> list[Path]:
    """Do what the recipe says in a copy of the packages; the files that it touches."""
    table, place, module = blocks()
    tables, backends = tree / "schemas/tables.py", tree / "stages/backends.py"
    text = tables.read_text(encoding="utf-8")
    before = '    TableSchema(\n        "removals"'
    assert text.count(before) == 1
    tables.write_text(text.replace(before, table + before), encoding="utf-8")
    text = backends.read_text(encoding="utf-8")
    before = '    "caption": {'
    assert text.count(before) == 1
    backends.write_text(text.replace(before, place + before), encoding="utf-8")
    package = tree / "stages/light"
    package.mkdir()
    (package / "__init__.py").write_text('"""Light."""\n')
    (package / "grey.py").write_text(module, encoding="utf-8")
    return [tables, backends, package / "__init__.py", package / "grey.py"]


@pytest.mark.slow
def test_a_stage_by_the_recipe_is_in_the_funnel_report_card_shards_and_erasure(
    tmp_path: Path,
) -> None:
    """Somebody's new stage would run, and be forgotten by the page, the shards, or the erasure."""
    tree = tmp_path / "tree"
    for package in _PACKAGES:
        shutil.copytree(
            _ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    assert len(follow(tree)) == 4
    (tmp_path / "work").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tree), str(tmp_path / "work")],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{tree}:{_ROOT}", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    import json

    shown, erased = (json.loads(line) for line in done.stdout.splitlines())
    assert shown["table"] > 10 and shown["funnel"] == [shown["table"]] * 2
    assert shown["columns"] == ["a dark face", True] and shown["json"] == "a dark face"
    assert shown["member"] and shown["report"] and shown["card"]
    assert erased["named"] == 1 and erased["left"] == 0
    assert erased["others"] >= 1, "the image that the new stage's words name goes too"
    assert erased["verified"] == []
