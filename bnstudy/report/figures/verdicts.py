"""The forest plot of all claims as one picture: a row for each claim, a bar for each of its cases."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bnstudy.claims.claim import Status
from bnstudy.claims.verdicts import WIDENED, Verdict
from bnstudy.report.figures.colours import BAND, GRID, NEUTRAL, SOFT_TEXT, STATUSES, TEXT, WHITE
from bnstudy.report.forest import Axis, axis_of, ends_of, multiple_of
from bnstudy.report.phrases import group_by_claim
from bnstudy.report.wording import count_statuses

WIDTH, STATEMENT, STRIP, STATUS = 9.4, 3.5, 2.3, 0.98
"""Inches: of the picture, of the columns of statements, bars and verdicts. The effects have the rest."""
LINE, CASE, GAP = 0.135, 0.085, 0.07
"""Inches: of a line of text, of a bar, and between claims."""
ABOVE, BELOW = 0.62, 0.62
LETTERS, EFFECT_LETTERS = 62, 46
"""In a line of a statement, and of an effect."""
SMALL = 7.2
"""Points of the letters."""
ABBREVIATIONS = (
    ("[Bb]atch normalization", "BN"), ("[Ll]ayer normalization", "LN"), ("[Gg]roup normalization", "GN"),
)  # fmt: skip
READING = (
    "Effect with 95% interval, in multiples of each claim's smallest effect of interest; several bars of a claim are "
    "its networks and settings. An interval right of the band: supported; left of it: contradicted, or supported if "
    "the claim is that something differs; inside: negligible; across an edge: inconclusive. Grey bars elsewhere have "
    "no verdict for a reason that the page gives, such as one seed that decides. Triangles: beyond the axis. *: wider "
    "than a 95% interval, by a step of the grid of learning rates. BN, LN, GN: batch, layer and group normalization."
)


@dataclass(frozen=True)
class Row:
    """A claim. effects: lines beside the verdicts. top: in inches from the top of all rows."""

    found: list[Verdict]
    statement: list[str]
    statuses: list[Status]
    effects: list[str]
    top: float

    @property
    def height(self) -> float:
        lines = LINE * max(len(self.statement), len(self.statuses), len(self.effects))
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
        rows.append(Row(of_claim, statement, *results(of_claim), top))
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


def results(of_claim: Sequence[Verdict]) -> tuple[list[Status], list[str]]:
    """The verdict and the effect of a single case; else the verdicts, and in how many cases each occurs."""
    if len(of_claim) > 1:
        counts = count_statuses(of_claim)
        return [status for status, _ in counts], [f"in {n} of {len(of_claim)}" for _, n in counts]
    verdict = of_claim[0]
    text = verdict.effect_text.replace(f", {WIDENED})", ")*").replace("percentage points", "points")
    return [verdict.status], textwrap.wrap(text, EFFECT_LETTERS) if verdict.interval else []


def set_axis(ax: Axes, axis: Axis, total: float) -> None:
    places, texts = zip(*axis.ticks, strict=True)
    ax.set(xlim=(0, 100), ylim=(total, 0), yticks=[], xticks=places, xticklabels=texts)
    ax.axvspan(axis.at(-1), axis.at(1), color=BAND, zorder=0)
    for place in places:
        ax.axvline(place, color=GRID, linewidth=0.6, zorder=0.5)
    ax.axvline(axis.at(0), color=NEUTRAL, linewidth=0.8, zorder=1)
    ax.tick_params(axis="x", top=True, labeltop=True, bottom=False, labelbottom=False, length=0, labelsize=SMALL)
    for place, text, side in (
        (0, "\N{LEFTWARDS ARROW} against the claim", "left"),
        (100, "for the claim \N{RIGHTWARDS ARROW}", "right"),
    ):
        ax.text(place, -2.3 * LINE, text, ha=side, fontsize=SMALL, color=SOFT_TEXT)
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
            multiple = multiple_of(verdict)
            marker = "<" if multiple < axis.low else ">" if multiple > axis.high else "D"
            ax.plot(axis.at(multiple), y, marker, color=colour, markersize=3.2, zorder=3)
    colours = [STATUSES[status] for status in row.statuses]
    for left, lines, inks, weight in (
        (-STATEMENT + 0.1, row.statement, [TEXT] * len(row.statement), "normal"),
        (STRIP + 0.1, row.statuses, colours, "bold"),
        (STRIP + 0.1 + STATUS, row.effects, [SOFT_TEXT] * len(row.effects), "normal"),
    ):
        top = row.middle - LINE * (len(lines) - 1) / 2
        for nth, (text, ink) in enumerate(zip(lines, inks, strict=True)):
            ax.text(100 * left / STRIP, top + LINE * nth, text, va="center", fontsize=SMALL, color=ink, weight=weight)
