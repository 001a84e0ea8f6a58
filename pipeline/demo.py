"""The demo: sample people through the quickstart DAG, and how well cleaning did on them.

The sample people are crops and re-encodings of three photographs, so the precision and recall
printed here are a smoke test of the installation, not a measurement of the method.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from idcluster.catalogue.connection import connect
from idcluster.root.parquet import read
from idcluster.root.snapshot import Snapshot, load
from idcluster.root.storage import Store
from pipeline.execution.snapshot_tables import SnapshotTables
from pipeline.progress import summarise
from pipeline.report.sheet import SheetFace, SheetPerson, contact_sheet
from pipeline.samples import Truth, compose, without_six
from pipeline.start import start
from schemas import TABLES
from stages.pictures import decode

DAG_FILE = Path(__file__).parent / "dags" / "quickstart.yaml"

_JUDGED = """
SELECT i.name, c.address, m.image_id, f.face_id, f.box, f.status AS face_status,
    f.reason AS face_reason,
    coalesce(k.keep, false) AS keep, k.reason, k.similarity, m.status, m.reason AS image_reason,
        c.bucket
FROM (SELECT c.*, i.bucket FROM candidates c JOIN identities i USING (identity_id)) c
JOIN identities i USING (identity_id)
LEFT JOIN images m USING (image_id)
LEFT JOIN faces f USING (image_id)
LEFT JOIN clusters k USING (face_id)
ORDER BY i.name, k.similarity DESC NULLS LAST, c.address
"""


@dataclass(frozen=True)
class Score:
    """How cleaning did on photographs whose truth is known. A photograph counts as kept if a face
    of it is kept.
    """

    right: int
    wrong: int
    missed: int

    @property
    def precision(self) -> float:
        return self.right / (self.right + self.wrong) if self.right + self.wrong else 0.0

    @property
    def recall(self) -> float:
        return self.right / (self.right + self.missed) if self.right + self.missed else 0.0


def run_demo(folder: Path, seed: int, console: Console) -> bool:
    """Compose, run, score, and print what was made and where. False if cleaning was not perfect."""
    remedy = without_six()
    if remedy:
        console.print(
            "two sample people instead of eight: the photograph of the others comes with the "
            f"package insightface, which is not installed (`{remedy}`)"
        )
    truths = compose(folder, seed)
    roles = {truth.role for truth in truths}
    console.print(
        f"{len({truth.person for truth in truths})} sample people, {len(truths)} files in "
        f"{folder}/people "
        f"({sum(not truth.expected_keep for truth in truths)} of them do not belong: "
        f"{', '.join(sorted(roles - {'person', 'with_other'}))})"
    )
    root = folder / "dataset"
    # All sample people are copies of a few photographs, and cleaning would find them out.
    sets = [
        f"source.path={_quoted(folder / 'people')}",
        f"root={_quoted(root)}",
        "stages.clean.params.duplicates=false",
    ]
    run = start(DAG_FILE, sets=sets, accept_licence="once", console=console)
    for one in run.prepared.licences:
        console.print(
            f"the demo loads {one['weights']}, which is for {one['use']} use; accepted for the "
            "demo alone"
        )
    record = run.execute()
    store = run.store
    summarise(console, vars(record))
    snapshot = load(store)
    rows = _judged(store, snapshot)
    score = score_rows(rows, truths)
    sheet = folder / "contact_sheet.png"
    contact_sheet(sheet, _sheet(store, snapshot, run.prepared.versions, rows))
    _print_results(console, store, snapshot, score, sheet)
    return score.wrong == 0 and score.missed == 0


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"


def _judged(store: Store, snapshot: Snapshot) -> list[dict[str, Any]]:
    connection = connect(store, snapshot)
    try:
        answer: Any = connection.sql(_JUDGED)
        rows: list[dict[str, Any]] = answer.to_arrow_table().to_pylist()
        return rows
    finally:
        connection.close()


def score_rows(rows: list[dict[str, Any]], truths: list[Truth]) -> Score:
    """Kept photographs against the truth."""
    kept = {row["address"].split(":", 1)[1] for row in rows if row["keep"]}
    wanted = {f"{truth.person}/{truth.file}" for truth in truths if truth.expected_keep}
    return Score(len(kept & wanted), len(kept - wanted), len(wanted - kept))


def _sheet(
    store: Store, snapshot: Snapshot, versions: dict[str, str], rows: list[dict[str, Any]]
) -> list[SheetPerson]:
    view = SnapshotTables(store, snapshot, versions)
    pictures: dict[str, Any] = {}
    for bucket, chunk in snapshot.chunks("images"):
        for path in view.files("images", (bucket, chunk)):
            table = read(store, TABLES["images"], path, ("image_id", "bytes"))
            pictures |= dict(
                zip(table["image_id"].to_pylist(), table["bytes"].to_pylist(), strict=True)
            )
    people: dict[str, list[SheetFace]] = {}
    for row in rows:
        if row["box"] is not None and pictures.get(row["image_id"]):
            face = SheetFace(
                _crop(decode(pictures[row["image_id"]]), row["box"]),
                row["keep"],
                row["reason"],
                row["similarity"],
            )
            people.setdefault(row["name"], []).append(face)
    return [SheetPerson(name, faces) for name, faces in people.items()]


def _crop(rgb: Any, box: list[float]) -> Any:
    """The face with a margin of a third of its side."""
    height, width = rgb.shape[:2]
    margin = (box[2] - box[0]) / 3
    left, top = max(0, int(box[0] - margin)), max(0, int(box[1] - margin))
    return rgb[top : min(height, int(box[3] + margin)), left : min(width, int(box[2] + margin))]


def _print_results(
    console: Console, store: Store, snapshot: Snapshot, score: Score, sheet: Path
) -> None:
    table = Table(title="shards", title_justify="left", box=None, pad_edge=False)
    for column in ("file", "samples", "MB"):
        table.add_column(column, justify="left" if column == "file" else "right")
    for entry in snapshot.shown("shards"):
        table.add_row(entry.file, str(entry.rows), f"{entry.bytes / 1e6:.2f}")
    console.print(table)
    console.print(
        f"cleaning (smoke test): precision {score.precision:.3f}, recall {score.recall:.3f} "
        f"({score.right} kept rightly, {score.wrong} kept wrongly, {score.missed} missed)"
    )
    console.print(f"dataset:       {store.root}")
    console.print(f"contact sheet: {sheet}")
    question = "select name, count(*) from samples group by all order by all"
    console.print(f'ask it:        idcluster query {store.root} "{question}"')
