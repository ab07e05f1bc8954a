"""The forest plot of all claims as one picture: a row for each claim, a bar for each of its cases."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bnstudy.claims.verdicts import Verdict
from bnstudy.report.figures.colours import BAND, GRID, NEUTRAL, SOFT_TEXT, STATUSES, TEXT, WHITE
from bnstudy.report.forest import Axis, axis_of, ends_of, multiple_of
from bnstudy.report.phrases import group_by_claim
from bnstudy.report.wording import count_statuses

WIDTH, STATEMENT, STRIP = 9.0, 3.45, 2.6
"""Inches: of the picture, of the column of statements and of that of the bars. The verdicts have the rest."""
LINE, CASE, GAP = 0.135, 0.085, 0.07
"""Inches: of a line of text, of a bar, and between claims."""
ABOVE, BELOW = 0.62, 0.62
LETTERS, RESULT_LETTERS = 60, 50
"""In a line of a statement, and of a verdict."""
SMALL = 7.2
"""Points of the letters."""
ABBREVIATIONS = (
    ("[Bb]atch normalization", "BN"), ("[Ll]ayer normalization", "LN"), ("[Gg]roup normalization", "GN"),
)  # fmt: skip
READING = (
    "Effect with 95% interval, in multiples of each claim's smallest effect of interest; several bars of a claim are "
    "its networks and settings. An interval right of the band: supported; left of it: contradicted; inside: "
    "negligible; across an edge: inconclusive. BN, LN, GN: batch, layer and group normalization."
)


@dataclass(frozen=True)
class Row:
    """A claim. top: in inches from the top of all rows."""

    found: list[Verdict]
    statement: list[str]
    results: list[tuple[str, dict[str, Any]]]
    top: float

    @property
    def height(self) -> float:
        lines = LINE * max(len(self.statement), len(self.results))
        return max(lines, CASE * len(self.found)) + GAP

    @property
    def middle(self) -> float:
        return self.top + self.height / 2


def draw_verdicts(primary: Sequence[Verdict], title: str) -> Figure:
    """The verdicts in their primary views, claims in the order in which they first occur; drawn and rendered in
    `report_style`."""
    rows: list[Row] = []
    for of_claim in group_by_claim(primary):
        top = rows[-1].top + rows[-1].height if rows else 0.0
        statement = textwrap.wrap(abbreviate(of_claim[0].contrast.claim.statement.rstrip(".")), LETTERS)
        rows.append(Row(of_claim, statement, result_lines(of_claim), top))
    total = rows[-1].top + rows[-1].height
    height = ABOVE + total + BELOW
    figure = Figure(figsize=(WIDTH, height), facecolor=WHITE)
    FigureCanvasAgg(figure)
    ax = figure.add_axes((STATEMENT / WIDTH, BELOW / height, STRIP / WIDTH, total / height))
    axis = axis_of([verdict for verdict in primary if verdict.interval])
    set_axis(ax, axis, total)
    for nth, row in enumerate(rows):
        draw_row(ax, axis, row, shaded=nth % 2 == 1)
    figure.text(0.1 / WIDTH, 1 - 0.1 / height, title, weight="bold", va="top", fontsize=9)
    figure.text(0.1 / WIDTH, 0.1 / height, textwrap.fill(READING, 165), va="bottom", linespacing=1.3, fontsize=SMALL)
    return figure


def abbreviate(text: str) -> str:
    """`"BN tolerates higher learning rates"`."""
    for words, short in ABBREVIATIONS:
        text = re.sub(words, short, text)
    return text


def result_lines(of_claim: Sequence[Verdict]) -> list[tuple[str, dict[str, Any]]]:
    """The verdict and the effect of a single case; else how often each verdict occurs."""
    if len(of_claim) == 1:
        verdict = of_claim[0]
        lines = textwrap.wrap(verdict.effect_text, RESULT_LETTERS) if verdict.interval else []
        return [_status(verdict.status, verdict.status), *((line, {"color": SOFT_TEXT}) for line in lines)]
    counts = count_statuses(of_claim)
    return [_status(f"{status} in {n} of {len(of_claim)}", status) for status, n in counts]


def _status(text: str, status: str) -> tuple[str, dict[str, Any]]:
    return text, {"color": STATUSES[status], "weight": "bold"}


def set_axis(ax: Axes, axis: Axis, total: float) -> None:
    places, texts = zip(*axis.ticks, strict=True)
    ax.set(xlim=(0, 100), ylim=(total, 0), yticks=[], xticks=places, xticklabels=texts)
    ax.axvspan(axis.at(-1), axis.at(1), color=BAND, zorder=0)
    for place in places:
        ax.axvline(place, color=GRID, linewidth=0.6, zorder=0.5)
    ax.axvline(axis.at(0), color=NEUTRAL, linewidth=0.8, zorder=1)
    ax.tick_params(axis="x", top=True, labeltop=True, bottom=False, labelbottom=False, length=0, labelsize=SMALL)
    ax.spines[:].set_visible(False)
    ax.grid(False)


def draw_row(ax: Axes, axis: Axis, row: Row, shaded: bool) -> None:
    if shaded:
        ax.axhspan(row.top, row.top + row.height, color=NEUTRAL, alpha=0.06, linewidth=0, zorder=0.2)
    begin = row.middle - CASE * (len(row.found) - 1) / 2
    for nth, verdict in enumerate(row.found):
        y, colour = begin + CASE * nth, STATUSES[verdict.status]
        if verdict.interval:
            low, high = (axis.at(value) for value in ends_of(verdict))
            ax.plot([low, high], [y, y], color=colour, linewidth=1.6, solid_capstyle="butt", zorder=2)
            ax.plot(axis.at(multiple_of(verdict)), y, "D", color=colour, markersize=3.2, zorder=3)
    columns: tuple[tuple[float, list[tuple[str, dict[str, Any]]]], ...] = (
        (-STATEMENT + 0.1, [(line, {"color": TEXT}) for line in row.statement]),
        (STRIP + 0.1, row.results),
    )
    for left, lines in columns:
        top = row.middle - LINE * (len(lines) - 1) / 2
        for nth, (text, look) in enumerate(lines):
            ax.text(100 * left / STRIP, top + LINE * nth, text, va="center", fontsize=SMALL, **look)
