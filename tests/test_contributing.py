"""CONTRIBUTING.md names what is there: a newcomer who follows it finds the files."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_house import MAY_IMPORT

_ROOT = Path(__file__).resolve().parents[1]
_TEXT = re.sub(
    r"^```.*?^```$",
    "",
    (_ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"),
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
            if name.split("/")[0] in _TOP and "/" in name and not set("<*> ") & set(name)
        }
    )


def rooms() -> Iterator[tuple[str, str]]:
    """Rows of tables about one folder, with what they name in it."""
    for line in _TEXT.splitlines():
        cells = line.split(" | ")
        first = quoted(cells[0])
        if line.startswith("| `") and len(first) == 1 and first[0].endswith("/"):
            yield from ((first[0], name) for name in quoted(cells[1]))


@pytest.mark.parametrize("path", paths())
def test_paths_exist(path: str) -> None:
    assert (_ROOT / path).exists()


@pytest.mark.parametrize(("room", "name"), list(rooms()))
def test_what_rows_about_a_folder_name_lies_in_it(room: str, name: str) -> None:
    assert (_ROOT / room / f"{name}.py").is_file() or (_ROOT / room / name).is_dir()


def test_tables_are_read_at_all() -> None:
    """Else a change of their layout would make the tests above look at nothing."""
    assert len(paths()) > 50 and len(list(rooms())) > 80
    assert ("idcluster/root/", "lease") in rooms()
