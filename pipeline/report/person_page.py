"""A page about one person: every face with what cleaning decided and why, to look at and to correct
by hand.

One HTML file without anything from outside. Decisions that are ticked there are saved by the
browser as the CSV file that `idcluster correct --csv` takes.
"""

import html
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from idcluster.catalogue.connection import connect
from idcluster.root.aside import write_text
from idcluster.root.dataset_root import AskedWrongly, RunError
from idcluster.root.snapshot import Snapshot
from idcluster.root.storage import Store
from pipeline.report.crops import crop, thumbnail
from pipeline.report.sheet import SheetFace, SheetPerson, contact_sheet
from schemas.wording import counted, verb

MOST_FACES = 1000
"""Faces on one page; the page says how many more there are."""

_FACES = """
SELECT k.face_id, k.image_id, c.address, c.page, c.licence, f.box, f.side, f.sharpness, k.cluster,
    k.similarity, k.keep, k.status, k.reason,
    k.detail, k.duplicate_of, o.action AS by_hand, i.bytes
FROM clusters k JOIN faces f USING (face_id) JOIN images i ON i.image_id = k.image_id
    JOIN candidates c ON c.image_id = k.image_id
LEFT JOIN overrides o ON o.face_id = k.face_id
WHERE k.identity_id = $1 AND i.identity_id = $1
ORDER BY NOT k.keep, k.reason NULLS FIRST, k.similarity DESC NULLS LAST, k.face_id LIMIT $2
"""
_WITHOUT = """
SELECT coalesce(f.reason, i.reason) AS reason, count(*) AS images FROM candidates c
LEFT JOIN images i USING (image_id) LEFT JOIN faces f USING (image_id) LEFT
    JOIN clusters k ON k.face_id = f.face_id
WHERE c.identity_id = ? AND k.face_id IS NULL GROUP BY 1 ORDER BY 2 DESC
"""


@dataclass(frozen=True)
class Page:
    """What was written, and what is on it."""

    html: Path
    png: Path
    name: str
    kept: int
    rejected: int


def write_page(store: Store, snapshot: Snapshot, person: str, folder: Path) -> Page:
    """Write `<identity_id>.html` and `.png` into `folder`. `person`: an identity_id or a name.
    Raises RunError.
    """
    connection = connect(store, snapshot)
    try:
        who = _person(connection, person)
        described = connection.execute(_FACES, [who["identity_id"], MOST_FACES])
        columns = [column[0] for column in described.description or []]
        faces = [dict(zip(columns, row, strict=True)) for row in described.fetchall()]
        total = int(
            connection.execute(
                "SELECT count(*) FROM clusters WHERE identity_id = ?", [who["identity_id"]]
            ).fetchall()[0][0]
        )
        without = connection.execute(_WITHOUT, [who["identity_id"]]).fetchall()
        about = _row(connection, "SELECT * FROM people WHERE identity_id = ?", who["identity_id"])
        match = _row(
            connection,
            "SELECT m.*, n.name AS nearest_name FROM matches m LEFT JOIN identities n ON "
            "n.identity_id = m.nearest"
            " WHERE m.identity_id = ?",
            who["identity_id"],
        )
    finally:
        connection.close()
    if not faces:
        raise RunError(
            f"{who['name']} ({who['identity_id']}) has no face that was cleaned; run clean "
            "first, or look at `status`"
        )
    crops = [crop(face["bytes"], face["box"]) for face in faces]
    folder.mkdir(parents=True, exist_ok=True)
    sheet = folder / f"{who['identity_id']}.png"
    contact_sheet(
        sheet,
        [
            SheetPerson(
                who["name"],
                [
                    SheetFace(rgb, face["keep"], face["reason"], face["similarity"])
                    for face, rgb in zip(faces, crops, strict=True)
                ],
            )
        ],
    )
    page = folder / f"{who['identity_id']}.html"
    write_text(page, _html(who, about, match, faces, crops, without, total))
    kept = sum(face["keep"] for face in faces)
    return Page(page, sheet, who["name"], kept, len(faces) - kept)


def _person(connection: Any, said: str) -> dict[str, Any]:
    sql = (
        "SELECT identity_id, name, aliases FROM identities WHERE identity_id = $1 OR "
        "lower(name) = lower($1)"
    )
    found = connection.execute(sql, [said]).fetchall()
    if not found:
        nearest = "NOT contains(lower(name), lower($1)), levenshtein(lower(name), lower($1))"
        near = connection.execute(
            f"SELECT name FROM identities ORDER BY {nearest} LIMIT 3",  # noqa: S608 - constants
            [said],
        ).fetchall()
        raise AskedWrongly(
            f"nobody here is called {said!r}; the nearest names are "
            f"{', '.join(repr(row[0]) for row in near) or 'none'}"
        )
    if len(found) > 1:
        raise AskedWrongly(
            f"{said!r} are {len(found)} people: {', '.join(row[0] for row in found)}; name one "
            "by its identity_id"
        )
    return {"identity_id": found[0][0], "name": found[0][1], "aliases": found[0][2] or []}


def _row(connection: Any, sql: str, person: str) -> dict[str, Any]:
    answer = connection.execute(sql, [person])
    names = [column[0] for column in answer.description]
    rows = answer.fetchall()
    return dict(zip(names, rows[0], strict=True)) if rows else {}


def _html(
    who: dict[str, Any],
    about: dict[str, Any],
    match: dict[str, Any],
    faces: list[dict[str, Any]],
    crops: list[np.ndarray],
    without: list[Any],
    total: int,
) -> str:
    groups: dict[str, list[str]] = {}
    for face, rgb in zip(faces, crops, strict=True):
        title = "kept" if face["keep"] else (face["reason"] or face["status"]).replace("_", " ")
        groups.setdefault(title, []).append(_figure(face, rgb))
    facts = [f"{about.get('kept', 0)} of {counted(total, 'face')} kept"]
    facts += [
        f"flag: {flag.replace('_', ' ')}"
        for flag in (*(about.get("flags") or ()), *(match.get("flags") or ()))
    ]
    if about.get("silhouette") is not None:
        facts.append(f"silhouette {about['silhouette']:.2f}")
    if match.get("nearest_name"):
        facts.append(f"nearest: {match['nearest_name']} ({match['nearest_cosine']:.2f})")
    if len(faces) < total:
        facts.append(f"the first {counted(len(faces), 'face')} {verb(len(faces))} shown")
    for reason, count in without:
        facts.append(
            f"{counted(count, 'image')} without a face here: "
            f"{(reason or 'not looked at yet').replace('_', ' ')}"
        )
    sections = "".join(
        f"<section><h2>{html.escape(title)} <small>{len(figures)}</small></h2><div "
        f"class=faces>{''.join(figures)}</div></section>"
        for title, figures in groups.items()
    )
    listed = "".join(f"<li>{html.escape(fact)}</li>" for fact in facts)
    names = ", ".join([who["name"], *who["aliases"]])
    return _PAGE.format(
        title=html.escape(who["name"]),
        names=html.escape(names),
        id=who["identity_id"],
        facts=listed,
        sections=sections,
    )


def _figure(face: dict[str, Any], rgb: np.ndarray) -> str:
    similarity = "" if face["similarity"] is None else f"{face['similarity']:.3f}"
    said = " · ".join(
        part
        for part in (
            similarity,
            f"cluster {face['cluster']}" if face["cluster"] is not None else "",
            f"{face['side']:.0f} px" if face["side"] else "",
        )
        if part
    )
    hint = "\n".join(
        str(part) for part in (face["address"], face["detail"], face["licence"]) if part
    )
    chosen = face["by_hand"] or ""
    options = "".join(
        f'<option value="{value}"{" selected" if value == chosen else ""}>{text}</option>'
        for value, text in (
            ("", "as decided"),
            ("keep", "keep by hand"),
            ("reject", "reject by hand"),
        )
    )
    return (
        f'<figure class="{"kept" if face["keep"] else "rejected"}" title="{html.escape(hint)}">'
        f'<img alt="" loading="lazy" src="{thumbnail(rgb)}">'
        f'<figcaption>{html.escape(said)}<select data-face="{html.escape(face["face_id"])}" '
        f'data-was="{html.escape(chosen)}"'
        f' aria-label="decision">{options}</select></figcaption></figure>'
    )


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,
    initial-scale=1"><title>{title}</title>
<style>
body {{ font: 15px/1.4 system-ui, sans-serif; margin: 1.5rem; color: #222; background: #fff }}
h1 {{ margin: 0 }} h2 {{ margin: 1.5rem 0 .5rem; font-size: 1.1rem }} small {{ color: #777;
    font-weight: normal }}
ul {{ padding-left: 1.2rem; color: #444 }}
.faces {{ display: flex; flex-wrap: wrap; gap: .6rem }}
figure {{ margin: 0; width: 168px; border: 4px solid #b33; border-radius: 6px; overflow: hidden }}
    figure.kept {{ border-color: #2a8a43 }}
img {{ display: block; width: 160px; height: 160px; object-fit: contain; background: #eee }}
figcaption {{ font-size: 12px; padding: .25rem; color: #555 }} select {{ width: 100%; margin-top:
    .2rem; font-size: 12px }}
#bar {{ position: sticky; top: 0; background: #fff; padding: .6rem 0;
    border-bottom: 1px solid #ddd }}
button {{ font-size: 14px; padding: .35rem .8rem }}
</style></head><body>
<h1>{names}</h1><small>{id}</small><ul>{facts}</ul>
<div id="bar"><button id="save">Save decisions as CSV</button> <span id="count"></span></div>
{sections}
<script>
const selects = [...document.querySelectorAll("select[data-face]")];
const changed = () => selects.filter(s => s.value !== s.dataset.was);
const tell = () => document.getElementById("count").textContent = changed().length + " changed";
selects.forEach(s => s.addEventListener("change", tell)); tell();
document.getElementById("save").addEventListener("click", () => {{
  const lines = ["action,subject,target", ...changed().map(s => (s.value || "clear") + "," +
      s.dataset.face + ",")];
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([lines.join("\\n") + "\\n"], {{type: "text/csv"}}));
  link.download = "{id}.csv"; link.click();
}});
</script></body></html>
"""
