"""Mistakes of users, of every command and every one of its options: one sentence with what to mend,
and never a traceback.

The commands and their options are asked of the program, so that a new one is walked as well.
"""

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import typer
from typer.main import get_command
from typer.models import ArgumentInfo, OptionInfo

from idcluster.root.dataset_root import make_root
from pipeline.cli import app
from pipeline.execution.inline import Inline
from tests.pipeline.small_root import SmallPerson, picture, small_root

DAG = """
name: people
root: {folder}/out
source: {{kind: folder, path: {folder}/people}}
stages: {{crawl: {{}}}}
"""

# fmt: off
GOOD: dict[str, tuple[str, ...]] = {
    "run": ("DAG",), "plan": ("DAG",), "status": ("ROOT",), "query": ("ROOT", "select 1"),
    "schema": (), "snapshots": ("ROOT",),
    "check": ("ROOT",),
    "diff": ("ROOT", "0"), "rollback": ("ROOT", "1"), "gc": ("ROOT", "--dry-run"),
    "inspect": ("ROOT", "Ada", "--output", "OUT"),
    "review": ("ROOT", "--all", "--output", "OUT/v.html"),
    "correct": ("ROOT",), "stats": ("ROOT", "--only", "funnel"), "report": ("ROOT", "--output",
        "OUT/r.html", "--people", "0"),
    "forget": ("ROOT", "--identity", "Ada", "--dry-run"), "eval clean": ("ROOT", "--labels",
        "LABELS"), "shards list": ("ROOT",),
    "init": ("OUT/d.yaml",), "stages": ("clean",),
    "shards verify": ("ROOT",), "shards splits": ("ROOT",),
    "shards export": ("ROOT", "--parquet", "OUT/p"), "models list": ("--kind", "screen"),
    "models verify": ("nsfw_marqo",),
    "models fetch": ("edgeface_xs", "--models", "MODELS"), "models licences": ("edgeface_xs",),
    "models pin": ("edgeface_xs", "LABELS", "--models", "MODELS"),
    "models add": ("mine", "LABELS", "--like", "glintr100", "--licence", "own", "--use", "any",
        "--models", "MODELS"),
    "models benchmark": ("EMPTY", "--models", "MODELS"),
}
# fmt: on
"""How each command is called rightly, or nearly so; words in capitals are places of the fixture."""

PROGRAM = get_command(app)
UNTRIED = {"demo": "runs the whole pipeline"}

FILES = (
    "",
    "NOWHERE",
    "EMPTY",
    "BLANK",
    "JUNK",
    "UNREADABLE",
    "BLANK/below",
    "~nobody_of_this_name/x",
)
TEXTS = ("", "nothing of this name", "'", "a=b", "JUNK", "\udcff")
ROOTS = ("s3://", "nothing://x", "DAMAGED", "x" * 5000)
SQL = (
    "",
    ";",
    "select",
    "select * from nothing",
    "select 1; select 2",
    "drop view images",
    "select 1/0",
    "')",
)
# fmt: off
SETS = (
    "x", "a.b=1", "root=", "root=~nobody_of_this_name/x", "source.path=~nobody_of_this_name/x",
    "stages=[", "models=JUNK", "source=3",
)
# fmt: on
NUMBERS = ("x", "-1", "0", "10000000000000000000000", "nan")


@dataclass(frozen=True)
class Parameter:
    """An argument or option of a command. `option`: how it is written, none for an argument."""

    name: str
    kind: type
    option: str | None


def commands(program: typer.Typer = app, before: str = "") -> Iterator[tuple[str, list[Parameter]]]:
    """Each command by its words, with what it takes."""
    for command in program.registered_commands:
        assert command.callback is not None
        yield (
            f"{before}{command.name or command.callback.__name__}",
            [*parameters(command.callback)],
        )
    for group in program.registered_groups:
        assert group.typer_instance is not None
        name = group.name if isinstance(group.name, str) else ""
        yield from commands(group.typer_instance, f"{name} " if name else before)


def parameters(function: Callable[..., Any]) -> Iterator[Parameter]:
    for name, hint in get_type_hints(function, include_extras=True).items():
        if name == "return":
            continue
        known = [one for one in parts(hint) if isinstance(one, ArgumentInfo | OptionInfo)]
        kind = next(one for one in (bool, int, float, Path, str) if one in parts(hint))
        option = None
        if not any(isinstance(one, ArgumentInfo) for one in known):
            option = next(
                (word for one in known for word in one.param_decls or ()),
                f"--{name.replace('_', '-')}",
            )
        yield Parameter(name, kind, option)


def parts(hint: Any) -> list[Any]:
    """A type hint and all that it is made of."""
    return [hint, *(part for inner in get_args(hint) for part in parts(inner))]


COMMANDS = {name: found for name, found in commands() if name not in UNTRIED}


def wrong(parameter: Parameter) -> tuple[str, ...]:
    """Values that an option or argument should refuse, or get along with."""
    if parameter.kind is bool:
        return ()
    if parameter.kind in (int, float):
        return NUMBERS
    if parameter.name in ("sql", "where", "retry"):
        return SQL
    if parameter.name == "sets":
        return SETS
    if parameter.name in ("root", "place"):
        return (*FILES, *ROOTS)
    return (
        FILES
        if parameter.kind is Path or parameter.name in ("models", "mirror", "output")
        else TEXTS
    )


def cases() -> Iterator[tuple[str, tuple[str, ...]]]:
    for name, taken in COMMANDS.items():
        good = GOOD.get(name, ())
        yield name, good
        yield name, ()
        yield name, (*good, "--nothing-of-this-name")
        for place, argument in enumerate(one for one in taken if one.option is None):
            for value in wrong(argument):
                words = list(good)
                words[place : place + 1] = [value]
                yield name, tuple(words)
        for one in taken:
            if one.option is not None:
                for value in (
                    wrong(one) if name != "report" else wrong(one)[:2]
                ):  # which draws for seconds
                    yield name, (*good, one.option, value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("m")
    for name in ("empty", "out", "models", "people/Ada", "home"):
        (folder / name).mkdir(parents=True)
    (folder / "people/Ada/1.jpg").write_bytes(picture("1"))
    (folder / "dag.yaml").write_text(DAG.format(folder=folder))
    (folder / "labels.csv").write_text("file,person\nAda/1.jpg,Ada\n")
    (folder / "blank").write_bytes(b"")
    (folder / "junk").write_bytes(bytes(range(256)) * 4)
    small_root(
        make_root(str(folder / "root"), "people"),
        [SmallPerson("Ada", 2, rejected=1), SmallPerson("Zoë", 1)],
    )
    shutil.copytree(folder / "root", folder / "damaged")
    for file in (folder / "damaged" / "snapshots").iterdir():
        file.write_bytes(b"PAR1 and nothing else PAR1")
    return folder


def places(folder: Path) -> dict[str, str]:
    named = {
        "ROOT": "root",
        "DAG": "dag.yaml",
        "LABELS": "labels.csv",
        "NOWHERE": "nowhere",
        "DAMAGED": "damaged",
    }
    named |= {word: word.lower() for word in ("EMPTY", "BLANK", "JUNK", "OUT", "MODELS")}
    # Whoever tests as root may read every file but this one.
    return {
        **{word: str(folder / name) for word, name in named.items()},
        "UNREADABLE": "/proc/self/mem",
    }


def test_every_command_is_walked() -> None:
    """A new command would be the first to end in a traceback."""
    assert COMMANDS.keys() == GOOD.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_mistake_gets_a_sentence(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first hour of a new user would be spent reading our code."""
    monkeypatch.chdir(folder / "empty")
    monkeypatch.setenv("HOME", str(folder / "home"))
    monkeypatch.setattr(
        "pipeline.execution.ray_engine.RayEngine", lambda spec, address: Inline(spec.build)
    )
    for variable in ("IDCLUSTER_MODELS", "RAY_ADDRESS", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(Inline, "check", lambda self: None, raising=False)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    there = places(folder)
    for words in [words for called, words in cases() if called == name]:
        said = [
            there.get(word.partition("/")[0], word.partition("/")[0])
            + "".join(word.partition("/")[1:])
            for word in words
        ]
        code, output = call([*name.split(), *said])
        told = f"idcluster {name} {' '.join(words)[:200]}\n{output[-2000:]}"
        assert code in (0, 1, 2), told
        assert "Traceback" not in output and "Errno" not in output, told
        assert code == 0 or output.strip(), told


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"a,b\n1,2\n",
        b"a,b\n1,2,3\n",
        b"action,subject\n",
        b"action,subject\nkeep\n",
        b"action,subject\nkeep,x,y,z\n",
        b'action,subject\n"keep,x\n',
        b"action,subject\nfly,x\n",
        b"file,person\n",
        b"file,person\nx\n",
        b"file,person\n../x,Ada\n",
        b"file,person,n_faces\nAda/1.jpg,Ada,many\n",
        b"identity,split\nAda,nowhere\n",
        b"identity;split\nAda;train\n",
        b"\xff\xfea\0",
        b"\0" * 50,
        b"identity,identity,split\na,b,train\n",
        b"PAR1PAR1",
        b"x" * 200_000 + b",y\n",
    ],
)
def test_a_mistake_within_a_file_gets_a_sentence(
    content: bytes, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table of decisions, labels or splits comes out of a spreadsheet: anything may be in it."""
    monkeypatch.chdir(folder / "empty")
    file = folder / "given.csv"
    file.write_bytes(content)
    dag = folder / "splits.yaml"
    dag.write_text(
        DAG.format(folder=folder).replace(
            "{crawl: {}}", f"{{crawl: {{}}, shard: {{params: {{split_list: {file}}}}}}}"
        )
    )
    for words in (
        ["correct", str(folder / "root"), "--csv", str(file)],
        ["eval", "clean", str(folder / "root"), "--labels", str(file)],
        ["models", "benchmark", str(folder / "people"), "--labels", str(file)],
        ["plan", str(dag)],
    ):
        code, output = call(words)
        assert code in (0, 1, 2) and "Traceback" not in output and "Errno" not in output, (
            words,
            output,
        )
        assert code == 0 or output.strip(), words


def call(words: list[str]) -> tuple[int, str]:
    """Exit code and output of a command; whatever else it raises than an exit is the program's own
    fault.
    """
    output = io.StringIO()
    with redirect_stdout(output), redirect_stderr(output), pytest.raises(SystemExit) as ended:
        PROGRAM(words, prog_name="idcluster")
    code = ended.value.code
    return (code if isinstance(code, int) else 0 if code is None else 1), output.getvalue()


def test_a_terminal_that_knows_no_letters_gets_them_escaped(folder: Path) -> None:
    """A name with an accent would end every list on an old terminal."""
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    sql = "select name from identities order by name"
    words = [
        sys.executable,
        "-m",
        "pipeline.cli",
        "query",
        str(folder / "root"),
        sql,
        "--format",
        "csv",
    ]
    done = subprocess.run(
        words, env=environment, capture_output=True, cwd=Path(__file__).parents[2], check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"name\nAda\nZo\\xeb\n"
