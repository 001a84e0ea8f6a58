"""The plots of a report: SVG images by matplotlib that follow the page into the dark, as
addresses of an <img>.
"""

import base64
import io
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

INK, FAINT, KEPT, REJECTED, BAR = "#010203", "#010204", "#010205", "#010206", "#010207"
"""Colours that stand for others until the image is written: what they are depends on how light
the reader's screen is.
"""
# fmt: off
_COLOURS = {  # light, dark
    INK: ("#222222", "#e4e4e4"), FAINT: ("#b8bcc4", "#565b64"), KEPT: ("#1f7a3a", "#63c17f"),
    REJECTED: ("#b23030", "#ef8a80"),
    BAR: ("#2b62a8", "#7fb0ea"),
}
# fmt: on
_SIZE = (4.4, 2.9)
# fmt: off
_SETTINGS: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "idcluster", "font.family": "sans-serif",
    "font.size": 12, "text.color": INK,
    "axes.labelcolor": INK, "axes.edgecolor": FAINT, "xtick.color": INK, "ytick.color": INK,
    "grid.color": FAINT, "axes.grid": True,
    "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False,
    "grid.linewidth": 0.5, "xtick.labelsize": 11,
    "ytick.labelsize": 11, "axes.titlesize": 12,
    "text.parse_math": False,  # names from the web are text, not formulas
}
# fmt: on
BARS_SHOWN = 20


def _drawn(draw: Callable[[Axes], None], size: tuple[float, float] = _SIZE) -> str:
    from matplotlib import rc_context

    with rc_context(_SETTINGS), warnings.catch_warnings():
        # Only the room for a text is measured with matplotlib's font; the browser draws it with
        # those of the reader.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.add_subplot())
        sink = io.StringIO()
        figure.savefig(
            sink, format="svg", transparent=True, metadata={"Date": None, "Creator": None}
        )
    return _address(sink.getvalue())


def _address(svg: str) -> str:
    """An SVG as the address of an image, with colours by the reader's screen."""
    names = {colour: f"c{number}" for number, colour in enumerate(_COLOURS)}
    # Attributes that name a colour become classes of a style sheet inside of the image.
    for colour, name in names.items():
        svg = re.sub(rf"(fill|stroke): {colour}", rf"\1: var(--{name})", svg)
    light = "".join(f"--{names[colour]}:{pair[0]};" for colour, pair in _COLOURS.items())
    dark = "".join(f"--{names[colour]}:{pair[1]};" for colour, pair in _COLOURS.items())
    style = (
        f"<style>svg{{{light}}}@media(prefers-color-scheme:dark){{svg{{{dark}}}}}"
        "text{font-family:system-ui,sans-serif}</style>"
    )
    start = svg.index("<svg")
    at = svg.index(">", start) + 1
    return (
        "data:image/svg+xml;base64,"
        + base64.b64encode((svg[start:at] + style + svg[at:]).encode()).decode()
    )


def shortened(text: str, most: int = 30) -> str:
    """A text that fits beside a bar."""
    printable = "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )
    return printable if len(printable) <= most else f"{printable[: most - 1]}…"


def bars(
    labels: Sequence[str],
    values: Sequence[float],
    axis: str,
    inner: Sequence[float] | None = None,
    log: bool = False,
) -> str:
    """Horizontal bars from the top down; `inner` are parts of them, drawn in another colour."""
    labels, values = labels[:BARS_SHOWN], values[:BARS_SHOWN]

    def draw(axes: Axes) -> None:
        places = np.arange(len(labels))
        axes.barh(places, values, color=FAINT if inner is not None else BAR, height=0.72)
        if inner is not None:
            axes.barh(places, inner[:BARS_SHOWN], color=BAR, height=0.72)
        for place, value in enumerate(values):
            shown = value if inner is None else inner[place]
            axes.annotate(
                number(shown),
                (value, place),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=10,
            )
        axes.set_yticks(places, [shortened(label) for label in labels])
        axes.set_ylim(len(labels) - 0.45, -0.55)
        axes.grid(axis="y", visible=False)
        axes.margins(x=0.16)
        if log:
            axes.set_xscale("log")
        axes.set_xlabel(axis)
        _plain_numbers(axes.xaxis)
        if not log:
            axes.locator_params(axis="x", nbins=5)

    return _drawn(draw, (_SIZE[0], 0.85 + 0.27 * len(labels)))


def histogram(rows: Sequence[dict[str, Any]], axis: str, count: str, log: bool = False) -> str:
    """Bars over bins `from` to `to` (null: open) of rows with a `number`. Bins of different widths
    are drawn equally wide.
    """
    lows = [row["from"] for row in rows]
    widths = {round(row["to"] - row["from"], 6) for row in rows if row["to"] is not None}
    even = len(widths) <= 1 and all(row["to"] is not None for row in rows)

    def draw(axes: Axes) -> None:
        numbers = [row["number"] for row in rows]
        if even:
            width = widths.pop() if widths else 1.0
            axes.bar(lows, numbers, width=width * 0.94, align="edge", color=BAR)
            axes.locator_params(axis="x", integer=True)
        else:
            axes.bar(range(len(rows)), numbers, width=0.88, color=BAR)
            axes.set_xticks(
                range(len(rows)),
                [_bin(row) for row in rows],
                rotation=45,
                ha="right",
                rotation_mode="anchor",
            )
        _axes(axes, axis, count, log)

    return _drawn(draw)


def _bin(row: dict[str, Any]) -> str:
    low = f"{row['from']:g}"
    if row["to"] is None:
        return f"{low}+"
    high = row["to"] - 1
    return low if high <= row["from"] else f"{low}–{high:g}"


def layered(
    parts: Sequence[tuple[str, str, Sequence[dict[str, Any]]]],
    axis: str,
    count: str,
    log: bool = False,
) -> str:
    """Histograms over one another: name, colour, rows."""

    def draw(axes: Axes) -> None:
        for name, colour, rows in parts:
            lows = [row["from"] for row in rows]
            widths = [row["to"] - row["from"] for row in rows]
            axes.bar(
                lows,
                [row["number"] for row in rows],
                width=widths,
                align="edge",
                color=colour,
                alpha=0.65,
                label=name,
            )
        axes.legend(frameon=False, fontsize=11)
        _axes(axes, axis, count, log)

    return _drawn(draw)


def _axes(axes: Axes, axis: str, count: str, log: bool) -> None:
    if log:
        axes.set_yscale("log")
    axes.grid(axis="x", visible=False)
    axes.set_xlabel(axis)
    axes.set_ylabel(count)
    _plain_numbers(axes.yaxis)


def _plain_numbers(axis: Axis) -> None:
    """A logarithmic axis over less than a decade writes numbers at its small marks too, as formulas
    unless it is told otherwise.
    """
    axis.set_major_formatter(lambda value, _: number(value))
    if axis.get_scale() == "log":
        axis.set_minor_formatter(_FewNumbers())


class _FewNumbers(LogFormatter):
    """Which of the small marks get a number is matplotlib's choice; what it looks like is ours."""

    def __call__(self, value: float, place: int | None = None) -> str:
        return number(value) if super().__call__(value, place) else ""


def heat(
    rows: Sequence[dict[str, Any]],
    x: str,
    y: str,
    step: float,
    count: str,
    labels: tuple[str, str],
    limits: tuple[float, float] | None = None,
) -> str:
    """Counts over a plane cut into squares of side `step`; squares without any stay empty."""
    xs, ys = np.array([row[x] for row in rows], float), np.array([row[y] for row in rows], float)
    counts = np.array([row[count] for row in rows], float)

    def draw(axes: Axes) -> None:
        from matplotlib.colors import LogNorm

        if limits is None:
            reach_x, reach_y = (
                np.ceil(max(abs(v.min()), abs(v.max() + step), step) / step) * step
                for v in (xs, ys)
            )
            low_x, high_x, low_y, high_y = -reach_x, reach_x, -reach_y, reach_y
        else:
            low_x, high_x, low_y, high_y = (*limits, *limits)
        columns, lines = round((high_x - low_x) / step), round((high_y - low_y) / step)
        plane = np.full((lines, columns), np.nan)
        at_x = np.clip(np.round((xs - low_x) / step).astype(int), 0, columns - 1)
        at_y = np.clip(np.round((ys - low_y) / step).astype(int), 0, lines - 1)
        plane[at_y, at_x] = counts
        edges = np.linspace(low_x, high_x, columns + 1), np.linspace(low_y, high_y, lines + 1)
        mesh = axes.pcolormesh(
            *edges,
            np.ma.masked_invalid(plane),
            cmap="viridis",
            norm=LogNorm(1, max(2.0, counts.max())),
            linewidth=0,
        )
        axes.axhline(0, color=FAINT, linewidth=0.8)
        axes.axvline(0, color=FAINT, linewidth=0.8)
        axes.set_xlabel(labels[0])
        axes.set_ylabel(labels[1])
        axes.set_aspect("equal")
        bar = axes.figure.colorbar(mesh, ax=axes, shrink=0.9, format=lambda value, _: number(value))
        bar.ax.yaxis.set_minor_formatter(_FewNumbers())
        bar.outline.set_edgecolor(FAINT)
        bar.set_label("faces")

    return _drawn(draw)


def number(value: float) -> str:
    """1234567 as 1.23M."""
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            return f"{value / (1e3 if letter == 'k' else limit):.3g}{letter}"
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
