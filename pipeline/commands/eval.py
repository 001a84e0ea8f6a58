"""The commands `idcluster eval ...`: a dataset against truth. `eval` is imported here alone, when a
command runs.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from pipeline.commands.explained import explained
from pipeline.commands.options import Root, SnapshotNumber, console

eval_app = typer.Typer(
    help="How good a dataset is, against truth that you have.", no_args_is_help=True
)

_PHOTOGRAPHS = """
SELECT i.name AS person, c.address, m.status AS image_status, m.reason AS image_reason,
    max(f.reason) FILTER (f.status <> 'ok') AS face_reason,
    coalesce(bool_or(k.keep OR k.reason = 'duplicate'), false) AS kept,
    max(k.similarity) FILTER (k.cluster = 0) AS similarity,
    min(k.reason) FILTER (k.reason <> 'other_cluster') AS reason, count(k.face_id) AS faces
FROM candidates c JOIN identities i USING (identity_id)
LEFT JOIN images m USING (image_id) LEFT JOIN faces f USING (image_id) LEFT
    JOIN clusters k USING (face_id)
WHERE c.reason IS DISTINCT FROM 'gone'
    AND (c.address IN (SELECT unnest($1)) OR substr(c.address, strpos(c.address,
        ':') + 1) IN (SELECT unnest($1)))
GROUP BY ALL ORDER BY c.address
"""
_COLUMNS = ("precision", "recall", "F1", "kept rightly", "kept wrongly", "lost")


@eval_app.callback()
def _group() -> None:
    """How good a dataset is, against truth that you have."""


@eval_app.command("clean")
def clean(
    root: Root,
    labels: Annotated[
        Path,
        typer.Option(
            "--labels",
            metavar="CSV",
            help="the truth: columns file (<folder>/<file> or the address), person, label_check",
        ),
    ],
    thresholds: Annotated[
        str | None,
        typer.Option(
            "--thresholds",
            metavar="T",
            help="from:to:step or a list (default: 21 from the least similarity on)",
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", help="draw precision and recall (.png, .svg, .pdf)"),
    ] = None,
    format: Annotated[str, typer.Option("--format", help="table or json")] = "table",
    snapshot: SnapshotNumber = None,
) -> None:
    """Precision and recall of what cleaning kept, by person and over thresholds, on photographs
    that somebody labelled.

    A photograph counts as kept if a face of it is, or if it is the copy of one that is kept.
    """
    with explained():
        from eval.cleaning.judge import as_json, judge, parse_thresholds
        from eval.cleaning.truth import read_labels
        from idcluster.catalogue.connection import QueryError
        from idcluster.root.dataset_root import open_root
        from idcluster.root.snapshot import load

        if format not in ("table", "json"):
            raise QueryError(f"no format {format!r}; there are table and json")
        truth = read_labels(labels)
        steps = None if thresholds is None else parse_thresholds(thresholds)
        store = open_root(root)
        shown = load(store, snapshot)
        photographs, others = _photographs(store, shown, list(truth))
        report = judge(photographs, truth, steps, others)
        used = _thresholds(shown)
        if plot is not None:
            from eval.cleaning.plot import plot as draw

            draw(report, plot, used)
        if format == "json":
            print(
                json.dumps(
                    {"snapshot": shown.number, "thresholds_used": used, **as_json(report)}, indent=1
                )
            )
        else:
            _print(console(), report, used)


def _photographs(store: Any, snapshot: Any, labelled: list[str]) -> tuple[list[Any], int]:
    """The photographs that have a label, and how many have none."""
    from eval.cleaning.judge import Judged
    from idcluster.catalogue.connection import connect

    connection = connect(store, snapshot)
    try:
        answer: Any = connection.sql(_PHOTOGRAPHS, params=[labelled])
        rows = answer.to_arrow_table().to_pylist()
        every = connection.execute(
            "SELECT count(*) FROM candidates WHERE reason IS DISTINCT FROM 'gone'"
        ).fetchall()[0][0]
    finally:
        connection.close()
    found = [
        Judged(
            row["person"],
            row["address"],
            row["kept"],
            row["similarity"],
            None if row["kept"] else _why(row),
        )
        for row in rows
    ]
    return found, every - len(found)


def _why(row: dict[str, Any]) -> str:
    """Why a photograph was not kept: the first thing on its way that went wrong."""
    if row["image_status"] != "ok":
        return str(row["image_reason"] or "not_read")
    if row["faces"]:
        return str(row["reason"] or "other_cluster")
    return str(row["face_reason"] or "not_cleaned")


def _thresholds(snapshot: Any) -> list[float]:
    """The similarity thresholds of the shown rows of `clusters`; usually one."""
    described = snapshot.notes.get("versions", {})
    shown = sorted({entry.version for entry in snapshot.shown("clusters")})
    found = {
        described.get(f"clusters/{version}", {}).get("params", {}).get("similarity_threshold")
        for version in shown
    }
    return sorted(value for value in found if value is not None)


def _print(to: Console, report: Any, used: list[float]) -> None:
    from schemas.wording import counted, verb

    total = report.total
    to.print(
        f"precision {total.precision:.4f}, recall {total.recall:.4f}, F1 {total.f1:.4f}: "
        f"{total.right} kept rightly, {total.wrong} kept wrongly, {total.lost} lost"
        + (
            f" ({', '.join(f'{count} {reason}' for reason, count in report.lost.items())})"
            if report.lost
            else ""
        )
    )
    for name, (there, kept) in report.apart.items():
        to.print(f"apart, {name}: {kept} of {there} kept")
    if report.unlabelled or report.missing:
        photographs = (
            f"{counted(report.unlabelled, 'photograph')} {verb(report.unlabelled, 'has', 'have')}"
        )
        labels = f"{counted(report.missing, 'label')} {verb(report.missing)}"
        to.print(f"{photographs} no label; {labels} of no photograph in the dataset")
    worst = report.worst()
    if worst:
        to.print()
        _table(to, ("person", *_COLUMNS), [(name, *_cells(one)) for name, one in worst])
    to.print(
        "\nif only the similarity threshold were another one"
        + (f" (it is {', '.join(f'{one:g}' for one in used)})" if used else "")
    )
    rows = [
        (f"{threshold:g}", *_cells(one))
        for threshold, one in zip(report.thresholds, report.curve, strict=True)
    ]
    _table(to, ("threshold", *_COLUMNS), rows)


def _cells(one: Any) -> tuple[str, ...]:
    return (
        *(f"{value:.4f}" for value in (one.precision, one.recall, one.f1)),
        str(one.right),
        str(one.wrong),
        str(one.lost),
    )


def _table(to: Console, names: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    table = Table(box=None, pad_edge=False)
    for at, name in enumerate(names):
        table.add_column(name, justify="right" if at else "left")
    for row in rows:
        table.add_row(*row)
    to.print(table)
