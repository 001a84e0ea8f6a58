"""Imports run downwards: between the packages, and between the rooms of `pipeline/`: whoever reads
a dataset needs no Ray.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.execution.cluster import SHIPPED

_ROOT = Path(__file__).resolve().parents[1]

MAY_IMPORT = {
    "schemas": set(),
    "idcluster": {"schemas"},
    "stages": {"schemas"},
    "eval": {"idcluster", "stages", "schemas"},
    "training": {"idcluster", "stages", "schemas"},
    "pipeline": {"idcluster", "stages", "schemas"},
}

FLOORS = {
    "idcluster": (
        ("root",),
        ("catalogue",),
        ("shards",),
        ("dataset",),
        ("own_packages",),
        ("api",),
        ("__main__",),
    ),
    "pipeline": (
        ("telling", "weights"),
        ("document", "sources"),
        ("dag",),
        ("execution", "shards", "report"),
        ("check", "correct", "gc", "history", "prepared_dag", "progress", "samples", "stage_facts"),
        ("record", "plan", "docs_pages"),
        ("run_state",),
        ("phase", "shard_phase"),
        ("run",),
        ("start",),
        ("demo", "forget"),
        ("commands",),
        ("cli",),
    ),
}
"""From the lowest: a room or file of a package imports from floors below its own, and within its
own room.
"""

FRONT_DOOR = {"idcluster/__init__.py", "idcluster/__main__.py", "idcluster/api.py"}
"""The one exception: the command line and the Python API start what lies above, when they are
called.
"""

RAY = {
    f"pipeline/execution/{name}.py" for name in ("ray_engine", "ray_actors", "cluster", "start_ray")
}


def sources() -> list[Path]:
    return sorted(file for package in MAY_IMPORT for file in (_ROOT / package).rglob("*.py"))


def imported(file: Path) -> Iterator[str]:
    """Dotted names of all modules that a file imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        yield from imported_by(node)


def imported_by(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        whole = node.module in FLOORS
        yield from (
            (f"{node.module}.{alias.name}" for alias in node.names) if whole else (node.module,)
        )


def room(path: Path) -> str:
    """`pipeline/execution/work.py` is in the room `execution`, `pipeline/run.py` is `run`."""
    return path.relative_to(_ROOT).parts[1].removesuffix(".py")


def test_packages_import_only_what_lies_below() -> None:
    for file in sources():
        package = file.relative_to(_ROOT).parts[0]
        ours = {name.split(".")[0] for name in imported(file)} & (set(MAY_IMPORT) | {"tests"}) - {
            package
        }
        if file.is_relative_to(_ROOT / "pipeline" / "commands"):
            ours -= {"eval", "training"}
        if file.relative_to(_ROOT).as_posix() in FRONT_DOOR:
            ours -= {"pipeline"}
        assert ours <= MAY_IMPORT[package], f"{file} imports {ours - MAY_IMPORT[package]}"


@pytest.mark.parametrize("package", FLOORS)
def test_rooms_import_only_from_floors_below(package: str) -> None:
    floor = {name: number for number, names in enumerate(FLOORS[package]) for name in names}
    for file in sorted((_ROOT / package).rglob("*.py")):
        own = room(file)
        if own == "__init__":
            continue
        assert own in floor, f"give {own} a floor above"
        for name in imported(file):
            other = name.split(".")[1] if name.startswith(f"{package}.") else own
            assert other == own or floor[other] < floor[own], (
                f"{file} imports {name}, which is not below"
            )


def test_only_the_front_door_imports_upwards_and_only_when_it_is_called() -> None:
    for file in (_ROOT / "idcluster").rglob("*.py"):
        above = {"pipeline", "stages", "eval", "training"}
        at_the_top = {
            name.split(".")[0]
            for node in ast.parse(file.read_text(encoding="utf-8")).body
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in imported_by(node)
        }
        assert not at_the_top & above, f"{file} imports {at_the_top & above}"


def test_ray_is_known_to_a_few_modules_of_the_pipeline() -> None:
    for file in sources():
        if "ray" in {name.split(".")[0] for name in imported(file)}:
            assert file.relative_to(_ROOT).as_posix() in RAY, f"{file} imports ray"


def test_all_packages_travel_to_a_cluster() -> None:
    there = {name for name in MAY_IMPORT if (_ROOT / name).is_dir()}
    assert set(SHIPPED) == there


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_every_folder_of_code_is_a_package(package: str) -> None:
    """Setuptools leaves folders without an __init__.py out of what it installs."""
    folders = {file.parent for file in sources() if file.is_relative_to(_ROOT / package)}
    assert {folder for folder in folders if not (folder / "__init__.py").is_file()} == set()
