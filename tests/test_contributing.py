"""Pages for contributors name what is there: a newcomer who follows them finds the files."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_house import MAY_IMPORT

_ROOT = Path(__file__).resolve().parents[1]
_PAGES = (
    "CONTRIBUTING.md",
    "docs/adding-a-backend.md",
    "docs/adding-a-stage.md",
    "docs/architecture.md",
    "docs/decisions.md",
)
_TEXT = re.sub(
    r"^```.*?^```$",
    "",
    "\n".join((_ROOT / page).read_text(encoding="utf-8") for page in _PAGES),
    flags=re.DOTALL | re.MULTILINE,
)
_TOP = (*MAY_IMPORT, "tests", "dags")


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def paths() -> list[str]:
    """Every path below a package, wherever it stands; those with a gap for a name are patterns."""
    return sorted(
        {
            name
            for name in quoted(_TEXT)
            if name.split("/")[0] in _TOP and "/" in name and not set("<*> \n") & set(name)
        }
    )


def items() -> Iterator[str]:
    """Items of lists, each on one line."""
    joined = re.sub(r"\n +(?=[^ -])", " ", _TEXT)
    for line in joined.splitlines():
        if line.lstrip().startswith("- "):
            yield line.lstrip()


def rooms() -> Iterator[tuple[str, str]]:
    """Items about one folder, with what they name in it."""
    for item in items():
        first = re.match(r"- `([^`]+/)`: ", item)
        if first:
            yield from ((first[1], name) for name in quoted(item[first.end() :]))


@pytest.mark.parametrize("path", paths())
def test_paths_exist(path: str) -> None:
    assert (_ROOT / path).exists()


@pytest.mark.parametrize(("room", "name"), list(rooms()))
def test_what_items_about_a_folder_name_lies_in_it(room: str, name: str) -> None:
    assert (_ROOT / room / f"{name}.py").is_file() or (_ROOT / room / name).is_dir()


def test_items_are_read_at_all() -> None:
    """Else a change of their layout would make the tests above look at nothing."""
    assert len(paths()) > 50 and len(list(rooms())) > 80
    assert ("idcluster/root/", "lease") in rooms()
