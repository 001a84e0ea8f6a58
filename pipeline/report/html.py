"""The HTML of a report. Everything that comes from the dataset is escaped here; there is no
script.
"""

import base64
import hashlib
import html
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

from pipeline.report.people import SampleFace, SamplePerson
from pipeline.report.plots import number

ROWS_SHOWN = 200
_TEXT_SHOWN = 200


@dataclass(frozen=True)
class Run:
    """A run and where its record is, from the page's folder."""

    run_id: str
    started: datetime | None
    status: str | None
    seconds: float | None
    snapshot: int | None
    error: str | None
    link: str | None


def visible(value: Any) -> str:
    """A value as a text of bounded length. What cannot be seen is replaced: it could reorder the
    line.
    """
    text = str(value)
    text = text if len(text) <= _TEXT_SHOWN else f"{text[: _TEXT_SHOWN - 1]}…"
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def escape(value: Any) -> str:
    """A value as text of an element or a quoted attribute."""
    return html.escape(visible(value))


def inert(value: Any) -> str:
    """A value as JSON that can stand in an element `script` whose type no browser runs: nothing in
    it can end the element.
    """
    said = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return said.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def digest(text: str) -> str:
    """Of a style or a script, as a Content-Security-Policy names it."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def nothing(text: str) -> str:
    """What is not there, and why."""
    return f"<p class=nothing>{escape(text)}</p>"


def tiles(facts: Iterable[tuple[str, int]]) -> str:
    """The numbers that come first."""
    return (
        "<dl class=tiles>"
        + "".join(f"<div><dt>{escape(name)}</dt><dd>{value:,}</dd></div>" for name, value in facts)
        + "</dl>"
    )


def figure(title: str, address: str, alt: str, numbers: str) -> str:
    """A plot, in words for whoever does not see it, and its numbers to unfold."""
    said = html.escape(alt if len(alt) <= 1500 else f"{alt[:1499]}…")
    return (
        f'<figure class=card><h3>{escape(title)}</h3><img src="{address}" alt="{said}">'
        "<details><summary>Numbers<span class=hidden>: "
        f"{escape(title)}</span></summary>{numbers}</details></figure>"
    )


def table(
    rows: Sequence[dict[str, Any]],
    heads: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
) -> str:
    """Rows as a table that scrolls by itself where the screen is narrow."""
    if not rows:
        return nothing("No rows.")
    names = list(columns or rows[0])
    cells = [f"<th scope=col>{escape(head.replace('_', ' '))}</th>" for head in heads or names]
    lines = ["".join(_cell(row[name]) for name in names) for row in rows[:ROWS_SHOWN]]
    more = (
        f"<p>The first {ROWS_SHOWN} of {len(rows)} rows; `idcluster stats` has all.</p>"
        if len(rows) > ROWS_SHOWN
        else ""
    )
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    head = "".join(cells)
    return (
        "<div class=scroll tabindex=0 role=region "
        f'aria-label="table"><table><tr>{head}</tr>{body}</table></div>{more}'
    )


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return f"<td>{'yes' if value else 'no'}</td>"
    if isinstance(value, int):
        return f"<td class=n>{value:,}</td>"
    if isinstance(value, float):
        return f"<td class=n>{value:,.10g}</td>"
    return f"<td>{'' if value is None else escape(value)}</td>"


def people_section(people: Sequence[SamplePerson]) -> str:
    """Sample people with their kept and rejected faces."""
    if not people:
        return nothing("Nobody is shown: none were asked for, or no face was cleaned.")
    return "".join(_person(person) for person in people)


def _person(person: SamplePerson) -> str:
    rows = []
    for keep, word in ((True, "kept"), (False, "rejected")):
        faces = [face for face in person.faces if face.keep is keep]
        if faces:
            rows.append(
                "<ul class=faces "
                f"aria-label={word}>"
                f"{''.join(_face(face, person.name, word) for face in faces)}</ul>"
            )
    credit = "".join(
        "<li>"
        + " · ".join(
            escape(part)
            for place, part in enumerate((face.address, face.licence, face.author))
            if part or not place
        )
        + "</li>"
        for face in person.faces
    )
    sources = (
        f"<summary>Sources<span class=hidden> of {escape(person.name)}</span></summary><ul "
        f"class=sources>{credit}</ul>"
    )
    counts = f"<p>{person.kept:,} kept, {person.rejected:,} rejected</p>"
    return (
        "<article "
        f"class=card><h3>{escape(person.name)}</h3>{counts}{''.join(rows)}<details>{sources}</details></article>"
    )


def _face(face: SampleFace, name: str, word: str) -> str:
    likeness = "" if face.similarity is None else f"{face.similarity:.2f}"
    why = "" if face.keep else face.reason.replace("_", " ")
    alt = (
        f"{name}, {word}"
        + (f", {why}" if why else "")
        + (f", similarity {likeness}" if likeness else "")
    )
    alt += f": {face.caption}" if face.caption else ""
    said = " ".join(part for part in (likeness, why) if part) or word
    picture = (
        f'<img src="{face.picture}" alt="{escape(alt)}" title="{escape(face.caption or why)}">'
    )
    return f"<li class={word}>{picture}<span>{escape(said)}</span></li>"


def runs_table(runs: Sequence[Run]) -> str:
    """The newest runs, with links to their records."""
    if not runs:
        return nothing("No run left a record.")
    lines = []
    for run in runs:
        name = escape(run.run_id)
        linked = f'<a href="{html.escape(quote(run.link))}">{name}</a>' if run.link else name
        seconds = "" if run.seconds is None else f"{number(run.seconds)} s"
        started = "" if run.started is None else f"{run.started:%Y-%m-%d %H:%M}"
        cells = (
            started,
            run.status or "",
            seconds,
            "" if run.snapshot is None else run.snapshot,
            run.error or "",
        )
        lines.append(
            f"<tr><td>{linked}</td>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
        )
    head = "".join(
        f"<th scope=col>{name}</th>"
        for name in ("run", "started (UTC)", "status", "took", "snapshot", "error")
    )
    body = "".join(lines)
    inner = (
        "<div class=scroll tabindex=0 role=region "
        f'aria-label="runs"><table><tr>{head}</tr>{body}</table></div>'
    )
    return f"<div class='card wide'><h3>Runs</h3>{inner}</div>"


def page(name: str, about: str, head: str, sections: Sequence[tuple[str, str]]) -> str:
    """The whole page."""
    links = "".join(f'<a href="#{_anchor(title)}">{escape(title)}</a>' for title, _ in sections)
    body = "".join(
        f'<section id="{_anchor(title)}"><h2>{escape(title)}</h2><div '
        f"class=cards>{inner}</div></section>"
        for title, inner in sections
    )
    policy = (
        f"default-src 'none'; img-src data:; style-src '{digest(_STYLE)}'; base-uri 'none'; "
        "form-action 'none'"
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta '
        'name="color-scheme" content="light dark">'
        '<meta name="referrer" content="no-referrer"><link rel="icon" '
        f'href="data:,"><title>{escape(name)}: dataset report</title>'
        f"<style>{_STYLE}</style></head>\n<body><header><h1>{escape(name)}</h1><p>{escape(about)}</p>{head}"
        f'<nav aria-label="Sections">{links}</nav></header>\n<main>{body}</main>'
        "<footer>Faces are biometric data: keep this page as private as the dataset it "
        "shows.</footer></body></html>\n"
    )


def _anchor(title: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in title.lower())


_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --card: #f7f8fa; --ink: #222; --soft: #5a606b;
    --line: #d9dce2; --kept: #1f7a3a;
  --rejected: #b23030; --link: #1c55a0 }
@media (prefers-color-scheme: dark) { :root { --paper: #16181c; --card: #1f2227; --ink: #e4e4e4;
    --soft: #a4abb7; --line: #3a3f48;
  --kept: #63c17f; --rejected: #ef8a80; --link: #8fbcf0 } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 76rem; padding: 0 1rem 3rem;
    font: 16px/1.45 system-ui, sans-serif; color: var(--ink);
  background: var(--paper); overflow-wrap: anywhere }
h1 { margin: 1.2rem 0 0; font-size: 1.7rem } h2 { margin: 2.2rem 0 .8rem; font-size: 1.3rem;
    border-bottom: 1px solid var(--line) }
h3 { margin: 0 0 .5rem; font-size: 1rem } h4 { margin: .8rem 0 .3rem; font-size: .95rem }
header p, footer, .nothing { color: var(--soft) } footer { margin-top: 3rem; font-size: .9rem }
a { color: var(--link) } nav { display: flex; flex-wrap: wrap; gap: .3rem 1rem }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap:
    .6rem; margin: 1rem 0 }
.tiles div { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding:
    .6rem .8rem }
dt { color: var(--soft); font-size: .85rem } dd { margin: 0; font-size: 1.4rem;
    font-variant-numeric: tabular-nums }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 30rem),
    1fr)); gap: 1rem; align-items: start }
.card { margin: 0; min-width: 0; background: var(--card); border: 1px solid var(--line);
    border-radius: 8px; padding: .8rem }
.wide, .cards > p { grid-column: 1 / -1 } .cards > p { margin: 0 }
.card > img { display: block; width: 100%; height: auto; max-width: 28rem; margin: 0 auto }
summary { cursor: pointer; color: var(--link); padding: .3rem 0 }
.scroll { overflow-x: auto; max-height: 24rem }
table { border-collapse: collapse; font-size: .87rem } th, td { text-align: left; padding: .2rem
    .7rem .2rem 0; vertical-align: top;
  border-bottom: 1px solid var(--line); overflow-wrap: normal } td.n { text-align: right;
      font-variant-numeric: tabular-nums }
.faces { list-style: none; display: flex; flex-wrap: wrap; gap: .5rem; margin: .3rem 0
    .6rem; padding: 0 }
.faces li { width: 78px; font-size: .75rem; line-height: 1.2; color: var(--soft) }
.faces img { display: block; width: 78px; height: 78px; object-fit: cover;
    border: 3px solid var(--rejected); border-radius: 6px }
.kept img { border-color: var(--kept) }
.sources { font-size: .8rem; color: var(--soft); padding-left: 1.1rem; margin: .2rem 0 }
.hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%);
    white-space: nowrap }
"""
