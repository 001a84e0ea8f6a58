"""README, CONTRIBUTING and docs/: short enough to be read, without dead links, and their commands
exist.
"""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

from pipeline.cli import app

_ROOT = Path(__file__).resolve().parents[1]
_FRONT = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
_PAGES = (*_FRONT, *sorted(f"docs/{path.name}" for path in (_ROOT / "docs").glob("*.md")))
_FENCED = re.compile(r"^( *)```([^\n]*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)


def text_of(page: str) -> str:
    return (_ROOT / page).read_text(encoding="utf-8")


def prose_of(page: str) -> str:
    """Without blocks of code."""
    return _FENCED.sub("", text_of(page))


# How long.


@pytest.mark.parametrize(("page", "lines", "words"), [("README.md", 200, 2000)])
def test_a_newcomer_can_read_it_at_once(page: str, lines: int, words: int) -> None:
    assert len(text_of(page).splitlines()) <= lines
    assert len(text_of(page).split()) <= words


def test_contributing_is_short() -> None:
    assert len(text_of("CONTRIBUTING.md").splitlines()) <= 150


# Links.


def there(path: Path) -> bool:
    return path.exists()


def anchors(page: str) -> set[str]:
    """Of every heading, as GitHub makes them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", prose_of(page), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        number = 0
        while (name := f"{slug}-{number}" if number else slug) in found:
            number += 1
        found.add(name)
    return found


def links() -> Iterator[tuple[str, str]]:
    for page in _PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(page)):
            if not re.match(r"[a-z]+:", target):
                yield page, target


@pytest.mark.parametrize(("page", "target"), sorted(set(links())))
def test_links_lead_somewhere(page: str, target: str) -> None:
    name, _, anchor = target.partition("#")
    path = (_ROOT / page).parent / name if name else _ROOT / page
    assert there(path), f"{page} links to {target}"
    if anchor:
        assert anchor in anchors(str(path.resolve().relative_to(_ROOT))), f"{page}: {target}"


@pytest.mark.parametrize("page", _PAGES)
def test_paths_in_docs_that_are_named_exist(page: str) -> None:
    for path in re.findall(r"(?<![\w/.])docs/[\w./-]*\w", prose_of(page)):
        assert there(_ROOT / path), f"{page} names {path}"


def test_every_page_is_linked_from_another() -> None:
    """A page that nothing leads to is not read."""
    reached = {
        str(((_ROOT / page).parent / target.partition("#")[0]).resolve().relative_to(_ROOT))
        for page, target in links()
        if target.partition("#")[0]
    }
    assert {page for page in _PAGES if page.startswith("docs/")} <= reached


# Commands.


def commands() -> dict[tuple[str, ...], set[str]]:
    """Every command of the app, `("models", "list")`, with the names of its options."""

    def below(command: object, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], set[str]]]:
        inner = getattr(command, "commands", None)
        if inner is None:
            names = {
                name
                for parameter in getattr(command, "params", ())
                for name in (*parameter.opts, *parameter.secondary_opts)
                if name.startswith("-")
            }
            yield path, names | {"--help"}
        else:
            for name, one in inner.items():
                yield from below(one, (*path, name))

    return dict(below(get_command(app), ()))


COMMANDS = commands()


def console_lines(text: str) -> Iterator[str]:
    """What is typed in ```console blocks: after `$ `, up to where the quotes and the line end."""
    for _, kind, body in _FENCED.findall(text):
        if kind.strip() != "console":
            continue
        lines = iter(body.splitlines())
        for line in lines:
            if not line.startswith("$ "):
                continue
            typed = line[2:]
            while typed.endswith("\\") or _open_quote(typed):
                typed = typed.removesuffix("\\") + " " + next(lines).strip()
            yield typed


def _open_quote(typed: str) -> bool:
    try:
        shlex.split(typed, comments=True)
    except ValueError:
        return True
    return False


def calls(typed: str) -> Iterator[list[str]]:
    """The arguments of each `idcluster ...` in a line; others, `make`, are passed over."""
    tokens = shlex.shlex(typed, posix=True, punctuation_chars=True)
    tokens.whitespace_split = True
    here: list[str] = []
    for token in [*tokens, ";"]:
        if set(token) <= set("();<>|&"):
            if here and Path(here[0]).name == "idcluster":
                yield here[1:]
            here = []
        elif token == "--":  # ray job submit ... -- idcluster run
            here = []
        else:
            here.append(token)


def wrong(arguments: list[str]) -> str | None:
    """What of a call does not exist."""
    path = next(
        (tuple(arguments[:length]) for length in (2, 1) if tuple(arguments[:length]) in COMMANDS),
        None,
    )
    if path is None:
        return f"no command {' '.join(arguments[:2])}"
    for argument in arguments[len(path) :]:
        name = argument.partition("=")[0]
        if name.startswith("-") and name != "-" and name not in COMMANDS[path]:
            return f"{' '.join(path)} has no option {name}"
    return None


def typed_calls() -> list[tuple[str, str, list[str]]]:
    return [
        (page, typed, arguments)
        for page in _PAGES
        for typed in console_lines(text_of(page))
        for arguments in calls(typed)
    ]


@pytest.mark.parametrize(("page", "typed", "arguments"), typed_calls())
def test_commands_and_options_in_console_blocks_exist(
    page: str, typed: str, arguments: list[str]
) -> None:
    assert wrong(arguments) is None, f"{page}: {typed}"


def test_the_check_of_commands_finds_what_is_wrong() -> None:
    """Else the test above would pass over everything."""
    assert len(typed_calls()) > 20
    typed = "$ make x && idcluster run a.yaml \\\n   --lmit 3\n$ idcluster q 'a\n b'\n"
    lines = console_lines(f"```console\n{typed}```\n")
    found = [wrong(arguments) for line in lines for arguments in calls(line)]
    assert found == ["run has no option --lmit", "no command q a b"]


@pytest.mark.parametrize("path", sorted(COMMANDS), ids=" ".join)
def test_every_command_is_in_the_list_of_commands(path: tuple[str, ...]) -> None:
    pattern = rf"\bidcluster {re.escape(' '.join(path))}\b"
    assert re.search(pattern, text_of("docs/commands.md")), " ".join(path)


def test_options_in_the_list_of_commands_exist() -> None:
    known = {name for names in COMMANDS.values() for name in names} | {"--version"}
    said = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", text_of("docs/commands.md")))
    assert said <= known, sorted(said - known)
