"""`idcluster models`: the weight files that backends load, where they come from and what they may
be used for.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from pipeline.commands.explained import Usage, explained
from pipeline.commands.models_told import (
    HASHED_AT_ONCE,
    bars,
    files_of,
    remark,
    rows_of,
    size,
    state,
)
from pipeline.commands.options import Models, Sets, console

if TYPE_CHECKING:
    from stages.weights import LocalRegistry

models_app = typer.Typer(help="The weight files that backends load.", no_args_is_help=True)

Kind = Annotated[
    str | None,
    typer.Option(
        "--kind",
        metavar="KIND",
        help="only these: detect, embed, ... or a loader such as detect/scrfd",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="one JSON list, a file each")]
Dag = Annotated[
    Path | None, typer.Option("--dag", metavar="DAG", help="what the stages of this DAG file load")
]
Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="NAME", help="names as `idcluster models list` shows them"),
]


@models_app.command("list")
def models_list(
    models: Models = None,
    kind: Kind = None,
    all_names: Annotated[
        bool, typer.Option("--all", help="also weights that no backend can load yet")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the weights that backends can load: whether they are here, how large they are and what
    they may be used for.
    """
    with explained():
        from pipeline.weights.loadable import loadable
        from schemas.wording import counted, verb
        from stages.weights import registered

        folder = _folder(models)
        local = _registry(folder)
        known = loadable(local)
        model = {name: registered(name, local).bundle or name for name in _names(kind, local)}
        waiting = {one for one in model.values() if one not in known}
        chosen = [name for name, one in model.items() if all_names or one in known]
        rows = rows_of(folder, chosen, thorough=False) if chosen else []
        if as_json:
            print(json.dumps([row for _, parts in rows for row in parts], indent=1))
            return
        table = Table(box=None, pad_edge=False)
        for column in ("kind", "name", "state", "size", "use", "where, or how to get it"):
            table.add_column(column, justify="right" if column == "size" else "left")
        for name, parts in rows:
            table.add_row(
                parts[0]["kind"],
                name,
                state(parts),
                size(parts),
                parts[0]["use"],
                ("no backend yet; " if name in waiting else "") + remark(name, parts),
            )
        if rows:
            console().print(table)
        if waiting and not all_names:
            console().print(
                f"{counted(len(waiting), 'more model')} {verb(len(waiting), 'has', 'have')} no "
                "backend yet; `idcluster models list --all` shows them"
            )
        if any(row["state"] == "here" and row["by_size"] for _, parts in rows for row in parts):
            console().print(
                f"files of more than {HASHED_AT_ONCE // 1_000_000} MB are judged by size; "
                "`idcluster models verify` reads them"
            )


@models_app.command("verify")
def models_verify(names: Names = None, models: Models = None) -> None:
    """Read every weight file that is here and check size and SHA-256; exits with 1 if one is
    damaged, or one that was named is missing.
    """
    with explained():
        from schemas.wording import counted, verb

        shown, folder = console(), _folder(models)
        asked = names or _names(None, _registry(folder))
        rows = [row for _, parts in rows_of(folder, asked, thorough=True) for row in parts]
        bad = [
            row for row in rows if row["state"] == "damaged" or (names and row["state"] != "here")
        ]
        for row in rows:
            if row["state"] == "here" or row in bad:
                shown.print(f"{row['name']}: {row['state']} ({row['path'] or row['remark']})")
        here, damaged = (
            sum(row["state"] == state for row in rows) for state in ("here", "damaged")
        )
        shown.print(
            f"{counted(here, 'file')} {verb(here)} whole, {damaged} damaged, "
            f"{len(rows) - here - damaged} not here or not pinned"
        )
        if bad:
            raise typer.Exit(1)


@models_app.command("fetch")
def models_fetch(
    names: Names = None,
    models: Models = None,
    dag: Dag = None,
    sets: Sets = None,
    all_any: Annotated[
        bool,
        typer.Option(
            "--all-any", help="everything that may be used for any purpose and has an address"
        ),
    ] = False,
    mirror: Annotated[
        str | None,
        typer.Option(
            "--mirror",
            metavar="DIR|URL",
            help="look here first: a folder or https addresses, by path, name or sha256",
        ),
    ] = None,
    pin: Annotated[
        bool,
        typer.Option(
            "--pin", help="take what comes as the right file where no source states a hash"
        ),
    ] = False,
) -> None:
    """Bring weights into the models directory: resumed where it broke off, checked by sha256, whole
    or not at all.

    What owners hand out only in person is named with where to register and where to put it.
    """
    with explained():
        from pipeline.weights.supply import Supply

        top = _needed(models)
        chosen = _chosen(names, dag, sets, all_any, top)
        shown = console()
        with bars(shown) as bar:
            supply = Supply(top, mirror, pin, shown.print, bar)
            outcomes = []
            for outcome in supply.bring(chosen):
                outcomes.append(outcome)
                if outcome.state != "here":
                    shown.print(
                        f"{outcome.weights.name}: {outcome.state.replace('_', ' ')}"
                        f"{': ' if outcome.said else ''}{outcome.said}"
                    )
        counted = {
            state: sum(one.state == state for one in outcomes)
            for state in ("here", "fetched", "unpinned", "by_hand", "failed")
        }
        shown.print(
            ", ".join(
                f"{count} {state.replace('_', ' ')}" for state, count in counted.items() if count
            )
            or "nothing to fetch"
        )
        terms = {one.weights.use for one in outcomes if one.state == "fetched"} - {"any"}
        if terms:
            shown.print(
                f"some of them may not be used for everything ({', '.join(sorted(terms))}): "
                "`idcluster models licences`"
            )
        if counted["failed"] or counted["by_hand"] or counted["unpinned"]:
            raise typer.Exit(1)


@models_app.command("licences")
def models_licences(
    names: Names = None, models: Models = None, dag: Dag = None, sets: Sets = None
) -> None:
    """Show licence and allowed use of weights, which stages of a DAG load them, and what was
    accepted when.
    """
    with explained():
        from pipeline.weights.licences import accepted
        from stages.weights import USES, registered

        shown = console()
        users, local = _users(dag, sets, models) if dag is not None else ({}, _registry(models))
        known = accepted(models)
        chosen = (
            files_of(names, local)
            if names
            else list(users)
            if dag is not None
            else _names(None, local)
        )
        by_licence: dict[tuple[str, str], list[str]] = {}
        for name in chosen:
            entry = registered(name, local)
            group = by_licence.setdefault((entry.use, entry.licence), [])
            model = entry.bundle or entry.name
            group.extend([model] if model not in group else [])
        for use, licence in sorted(by_licence, key=lambda key: (list(USES).index(key[0]), key[1])):
            shown.print(f"{use} ({USES[use]}): {licence}")
            for model in by_licence[use, licence]:
                stages = sorted(
                    {
                        stage
                        for name, found in users.items()
                        if name.split("/")[0] == model
                        for stage in found
                    }
                )
                told = f", stage {', '.join(stages)}" if stages else ""
                if use != "any":
                    word = known.get(model)
                    same = word is not None and (word.licence, word.use) == (licence, use)
                    told += (
                        f", accepted {word.when} by {word.by}"
                        if word is not None and same
                        else ", not accepted"
                    )
                shown.print(f"  {model}{told}")


@models_app.command("pin")
def models_pin(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="the file; for a model of several files, the folder with them"
        ),
    ],
    models: Models = None,
    again: Annotated[bool, typer.Option("--again", help="in place of an earlier pin")] = False,
) -> None:
    """Say once which file a name stands for, where no source states its hash; the file is copied
    into the models directory.
    """
    with explained():
        from stages.weights.pinning import pin

        top = _needed(models)
        for entry in pin(top, name, file, again):
            console().print(
                f"{entry.name}: {top}/{entry.file}, {entry.bytes} bytes, sha256 {entry.sha256}"
            )


@models_app.command("add")
def models_add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="a name of your own")],
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="the file; for a model of several files, the folder with them"
        ),
    ],
    like: Annotated[
        str,
        typer.Option(
            "--like", metavar="NAME", help="the registered weights that are loaded in the same way"
        ),
    ],
    licence: Annotated[
        str, typer.Option("--licence", help="the licence of weights and training data")
    ],
    use: Annotated[str, typer.Option("--use", help="any, restricted, non-commercial or unstated")],
    models: Models = None,
    source: Annotated[
        str, typer.Option("--source", help="where the file comes from")
    ] = "added by hand",
    normalisation: Annotated[
        tuple[float, float] | None,
        typer.Option(
            "--normalisation", metavar="MEAN STD", help="of pixels of 0 to 255 (default: as --like)"
        ),
    ] = None,
) -> None:
    """Register weights of your own, to be named in DAG files like the others."""
    with explained():
        from stages.weights.pinning import add

        top = _needed(models)
        for entry in add(top, name, file, like, licence, use, source, normalisation):
            console().print(
                f"{entry.name}: {top}/{entry.file}, {entry.bytes} bytes, sha256 {entry.sha256}, "
                f"kind {entry.kind}"
            )


@models_app.command("benchmark")
def models_benchmark(
    photographs: Annotated[
        Path,
        typer.Argument(
            metavar="PHOTOS",
            help="folder of photographs: one folder a person, or with a LABELS.csv",
        ),
    ],
    labels: Annotated[
        Path | None,
        typer.Option("--labels", metavar="CSV", help="columns file, person, label_check, n_faces"),
    ] = None,
    detect: Annotated[
        str, typer.Option("--detect", metavar="BACKEND[:WEIGHTS]", help="the detector")
    ] = "dlib",
    embed: Annotated[
        list[str] | None,
        typer.Option(
            "--embed",
            metavar="BACKEND[:WEIGHTS]",
            help="a recogniser; give it again for another one",
        ),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="STAGE.FIELD=VALUE", help="a parameter: --set detect.scales=[640,320]"
        ),
    ] = None,
    models: Models = None,
    device: Annotated[str, typer.Option("--device", help="cpu or cuda")] = "cpu",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="where report.json, roc.csv and roc.png go"
        ),
    ] = None,
    write_calibration: Annotated[
        bool,
        typer.Option(
            "--write-calibration",
            help="write the thresholds of `clean` into registry.yaml of the models directory",
        ),
    ] = False,
) -> None:
    """Measure a detector and recognisers on photographs whose people are known, and the thresholds
    of `clean` in their spaces.
    """
    with explained():
        from pipeline.commands.benchmark import benchmark

        if write_calibration:
            _needed(models)
        benchmark(
            console(),
            photographs,
            labels,
            detect,
            embed or [],
            sets or [],
            models,
            device,
            output,
            write_calibration,
        )


# What is chosen, and how it is shown


def _folder(models: str | None) -> str | None:
    """The models directory; raises Usage for one that is not there."""
    from pipeline.weights.stored import is_url, weight_files

    if is_url(models):
        raise Usage(
            f"{models}: these commands work on a folder; put it into the store afterwards, as it is"
        )
    folder = weight_files(models).models_dir
    if folder is not None and not Path(folder).is_dir():
        raise Usage(
            f"{folder} is no folder; --models or IDCLUSTER_MODELS names the folder that holds "
            "weight files"
        )
    return folder


def _needed(models: str | None) -> str:
    """The models directory, made if it is not there."""
    from pipeline.weights.stored import is_url, weight_files

    if models is None:
        raise Usage("name the models directory: --models DIR, or the variable IDCLUSTER_MODELS")
    if not is_url(models):
        Path(str(weight_files(models).models_dir)).mkdir(parents=True, exist_ok=True)
    return str(_folder(models))


def _registry(models: str | None) -> "LocalRegistry":
    """What the team registered in the models directory."""
    from pipeline.weights.stored import weight_files

    return weight_files(models).local


def _names(kind: str | None, local: "LocalRegistry") -> list[str]:
    """All files of a kind. Raises UnknownWeights for one that nothing has."""
    from schemas.wording import near
    from stages.weights import UnknownWeights, all_names, registered

    entries = [registered(name, local) for name in all_names(local)]
    found = [entry.name for entry in entries if kind is None or kind in (entry.kind, entry.subject)]
    if not found:
        kinds = sorted({entry.subject for entry in entries} | {entry.kind for entry in entries})
        meant = near(kind or "", kinds)
        instead = f"did you mean {meant[0]!r}?" if meant else f"there are: {', '.join(kinds)}"
        raise UnknownWeights(f"no weights of kind {kind!r}; {instead}")
    return found


def _users(
    dag: Path, sets: Sequence[str] | None, models: str | None
) -> tuple[dict[str, list[str]], "LocalRegistry"]:
    """By weight file, the stages of a DAG that load it; and what its team registered."""
    from pipeline.dag import load_dag

    loaded = load_dag(dag, sets or (), models)
    found: dict[str, list[str]] = {}
    for stage in loaded.build():
        for name in stage.weights:
            found.setdefault(name, []).append(stage.name)
    return found, loaded.local


def _chosen(
    names: Sequence[str] | None,
    dag: Path | None,
    sets: Sequence[str] | None,
    all_any: bool,
    models: str,
) -> list[str]:
    from stages.weights import UnknownWeights, registered

    local = _registry(models)
    chosen = files_of(names or [], local)
    if dag is not None:
        chosen += _users(dag, sets, models)[0]
    if all_any:
        entries = [registered(name, local) for name in _names(None, local)]
        chosen += [
            entry.name for entry in entries if entry.use == "any" and entry.address is not None
        ]
    if not chosen and dag is None and not all_any:
        raise UnknownWeights(
            "say what to fetch: names, --dag DAG or --all-any; `idcluster models list` shows "
            "what there is"
        )
    return list(dict.fromkeys(chosen))
