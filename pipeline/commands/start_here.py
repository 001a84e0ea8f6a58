"""The commands that a user needs before there is a dataset: `idcluster init` and `stages`."""

import json
import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.explained import Usage, explained
from pipeline.commands.options import AsJson, console, print_json

start_app = typer.Typer()

DAGS = Path(__file__).parents[1] / "dags"
"""The DAG files that are part of the package."""


@start_app.command()
def init(
    file: Annotated[Path, typer.Argument(help="the DAG file to write", metavar="FILE")] = Path(
        "dag.yaml"
    ),
    like: Annotated[
        str,
        typer.Option(
            "--like",
            metavar="NAME",
            help="which DAG to start from: quickstart, flashface, celeba, ... (--list shows all)",
        ),
    ] = "quickstart",
    list_all: Annotated[
        bool, typer.Option("--list", help="list the DAGs to start from, and write nothing")
    ] = False,
) -> None:
    """Write a DAG file with comments, to start from.

    `idcluster init` writes dag.yaml: from a folder of people to training shards, with backends that
    bring their weights along. Put photographs into people/<name>/ and run it.
    """
    with explained():
        from idcluster.root.aside import write_text
        from schemas.wording import near

        known = {path.stem: path for path in sorted(DAGS.glob("*.yaml"))}
        if list_all:
            for name, path in known.items():
                print(f"{name:24}{_first_sentence(path)}")
            return
        if like not in known:
            close = near(like, known)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
            raise Usage(f"idcluster has no DAG {like!r} to start from; {hint}")
        if file.exists() and file.is_dir():
            raise Usage(f"{file} is a folder; name the file to write, {file / 'dag.yaml'}")
        if file.exists():
            raise Usage(f"{file} is there already; name another file, or move it away")
        text = known[like].read_text(encoding="utf-8")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise Usage(f"{file.parent} is no folder; name another place for the DAG") from error
        write_text(file, text.replace(f"dags/{like}.yaml", str(file)))
        said = console()
        said.print(f"{file}: a DAG like {like}; its comments say what each line is for")
        said.print(f"next: put images into people/<name>/, then  idcluster run {file}")


def _first_sentence(path: Path) -> str:
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("# "):
            break
        lines.append(line[2:].strip())
    text = " ".join(lines)
    return re.split(r"(?<!\bal)\. ", text)[0].rstrip(".:") + "."


@start_app.command()
def stages(
    stage: Annotated[
        str | None, typer.Argument(help="one stage, with all its parameters", metavar="STAGE")
    ] = None,
    as_json: AsJson = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="print the page of the documentation")
    ] = False,
) -> None:
    """Print the stages of a DAG and their backends; of one stage all parameters.

    Types, defaults and descriptions come from the code. A DAG sets them under
    stages.<stage>.params, a command with --set stages.<stage>.params.<name>=<value>.
    """
    with explained():
        from pipeline.stage_facts import STAGES, stage_facts

        if markdown:
            from pipeline.docs_pages import stages_page

            sys.stdout.write(stages_page())
            return
        found = [stage_facts(name) for name in (STAGES if stage is None else [stage])]
        if as_json:
            print_json([json.loads(json.dumps(asdict(one))) for one in found])
            return
        said = console()
        if stage is None:
            for one in found:
                names = ", ".join(known.name for known in one.backends) or "none yet"
                said.print(f"{one.name:10}{names:40}  {one.text}")
            said.print("\nThe first backend is the default. `idcluster stages STAGE` says more.")
            return
        (one,) = found
        said.print(f"{one.name} writes the table {one.table}: {one.text}")
        if not one.backends:
            said.print("There is no backend yet; a package of your own can bring one.")
        for place, known in enumerate(one.backends):
            default = " (the default)" if not place and len(one.backends) > 1 else ""
            said.print(f"\nbackend: {known.name}{default}")
            if known.lacks:
                said.print(f"  cannot be loaded here: {known.lacks}")
                continue
            if known.text:
                said.print(f"  {known.text}")
            if known.weights:
                said.print(f"  weights by default: {', '.join(known.weights)}")
            for parameter in known.parameters:
                said.print(f"  {parameter.name}: {parameter.kind}; default {parameter.default}")
                if parameter.text:
                    said.print(f"      {parameter.text}")
            if not known.parameters:
                said.print("  no parameters")
