"""The effect that a claim is judged by: the seeds' differences, their mean with its interval, and what is too small."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from bnstudy.claims.claim import Claim
from bnstudy.claims.verdicts import WIDENED, Verdict
from bnstudy.report.figures import style
from bnstudy.report.figures.colours import BAND, BASELINE_COLOUR, NEUTRAL, SOFT_TEXT, STATUSES
from bnstudy.report.figures.style import ReportFigure

MOST = 24
"""With more strips, only the primary view is drawn."""

LETTERS = 78
"""Letters of a case's name that fit in a line."""

CASE, LINE, STRIP = 0.26, 0.15, 0.48
"""Heights in inches: of a case's name, of each further line of it, and of a view with its dots."""
AROUND = 1.05
"""And of what is above and below all of them."""

TICKS = {4.0: (1, 1.25, 1.5, 2, 3, 4, 5, 6, 8), 200.0: (1, 2, 5), math.inf: (1,)}
"""Ticks of a ratio axis within a power of ten, by the largest factor that the axis may span."""

CAPTION = (
    "Each dot is the difference of one seed, the bar their mean with the 95% interval that decides the verdict. The "
    "shaded band holds effects too small to matter: below the smallest effect of interest, fixed before the runs."
)
WIDER = " The metric is known to within a step of the grid of learning rates, which widens the interval at both ends."


@dataclass(frozen=True)
class Strip:
    """A verdict at its height, in inches from the top. name: lines above it, where a case begins."""

    verdict: Verdict
    name: tuple[str, ...]
    top: float

    @property
    def label(self) -> float:
        """Height of its view and verdict."""
        return self.top + CASE * bool(self.name) + LINE * max(0, len(self.name) - 1) + 0.08

    @property
    def dots(self) -> float:
        return self.label + 0.17

    @property
    def bar(self) -> float:
        return self.dots + 0.12


def draw_effect(found: Sequence[Verdict]) -> ReportFigure:
    """The figure of the verdicts of one claim, in the claim's unit; on a log axis if that is a ratio."""
    shown = found if len(found) <= MOST else [verdict for verdict in found if verdict.contrast.is_primary]
    claim, strips = shown[0].contrast.claim, list(_strips(shown))
    height = strips[-1].bar + 0.15
    title = claim.statement.rstrip(".")
    figure, axes = style.new_figure(1, 1, AROUND + height, title)
    ax = axes[0, 0]
    ax.set_xscale("log" if claim.scale == "log_ratio" else "linear")
    ax.set(xlim=effect_limits(shown), ylim=(height, -0.2), yticks=[], xlabel=claim.unit)
    ax.spines["left"].set_visible(False)
    _directions(ax, claim)
    for strip, below in zip(strips, [*(s.top for s in strips[1:]), height], strict=True):
        _strip(ax, strip, below)
    if claim.scale == "log_ratio":
        set_ratio_ticks(ax)
    widened = any(verdict.contrast.slack > 0 for verdict in shown)
    style.add_legend(figure, effect_handles(widened), "differences by seed, in the unit of the axis")
    return ReportFigure(title, CAPTION + WIDER * widened, _alt(shown), figure)


def _strips(shown: Sequence[Verdict]) -> Iterator[Strip]:
    top, last = 0.0, ""
    for verdict in shown:
        name = tuple(textwrap.wrap(verdict.case, LETTERS)) if verdict.case != last else ()
        strip = Strip(verdict, name, top)
        yield strip
        top, last = strip.label + STRIP - 0.08, verdict.case


def effect_limits(shown: Sequence[Verdict]) -> tuple[float, float]:
    """Of the axis: all seeds, the intervals as far as they are finite, and the band with some room."""
    widest = 1.4 * max(verdict.contrast.threshold for verdict in shown)
    values = [widest, -widest, *(value for v in shown for value in (*v.contrast.d, v.low, v.high))]
    finite = [value for value in values if math.isfinite(value)]
    margin = 0.03 * (max(finite) - min(finite))
    claim = shown[0].contrast.claim
    return claim.in_unit(min(finite) - margin), claim.in_unit(max(finite) + margin)


def _directions(ax: Axes, claim: Claim) -> None:
    """The meaning of either side of zero, where there is room for the words."""
    words = ("less with it", "more with it") if claim.better == "either" else ("against the claim", "for the claim")
    zero = float(ax.transAxes.inverted().transform(ax.transData.transform((claim.in_unit(0.0), 0)))[0])
    text: dict[str, Any] = {
        "fontsize": 7.5,
        "color": NEUTRAL,
        "va": "center",
        "transform": ax.get_yaxis_transform(),
    }
    if zero > 0.3:
        ax.text(zero - 0.01, -0.12, f"\N{LEFTWARDS ARROW} {words[0]}", ha="right", **text)
    if zero < 0.7:
        ax.text(zero + 0.01, -0.12, f"{words[1]} \N{RIGHTWARDS ARROW}", ha="left", **text)


def _strip(ax: Axes, strip: Strip, below: float) -> None:
    verdict, contrast = strip.verdict, strip.verdict.contrast
    draw_verdict(ax, verdict, strip.top, below, strip.dots, strip.bar)
    text: dict[str, Any] = {"fontsize": 8, "va": "center", "transform": ax.get_yaxis_transform(), "zorder": 5}
    for i, line in enumerate(strip.name):
        ax.text(0, strip.top + 0.13 + LINE * i, line, fontweight="bold", **text)
    result = f"{verdict.status}  {verdict.interval}".strip()
    fits = len(verdict.view) + len(result) < LETTERS
    ax.text(0, strip.label, verdict.view if fits else contrast.view_name, color=SOFT_TEXT, **text)
    ax.text(1, strip.label, result, color=STATUSES[verdict.status], ha="right", fontweight="bold", **text)


def draw_verdict(ax: Axes, verdict: Verdict, top: float, below: float, dots: float, bar: float) -> None:
    """A dot for each seed, the mean with its interval, and the band of what is too small, at these heights."""
    contrast, claim = verdict.contrast, verdict.contrast.claim
    colour, delta = STATUSES[verdict.status], contrast.threshold
    ax.fill_betweenx([top, below], claim.in_unit(-delta), claim.in_unit(delta), color=BAND, linewidth=0, zorder=1)
    zero = claim.in_unit(0.0)
    ax.plot([zero] * 2, [dots - 0.08, bar + 0.1], color=BASELINE_COLOUR, linewidth=0.9, zorder=2)
    d = np.sort(contrast.d.to_numpy(float))
    d = d[np.isfinite(d)]
    y = dots + ((np.arange(len(d)) * 0.618) % 1 - 0.5) * 0.13
    ax.plot(_in_unit(claim, d), y, "o", color=BASELINE_COLOUR, alpha=0.45, markersize=3, markeredgewidth=0, zorder=3)
    if math.isfinite(verdict.effect):
        ends = [v if math.isfinite(v) else verdict.effect for v in (verdict.low, verdict.high)]
        ax.plot(_in_unit(claim, np.array(ends)), [bar] * 2, color=colour, linewidth=2.2, zorder=4)
        ax.plot(claim.in_unit(verdict.effect), bar, "D", color=colour, markersize=5, zorder=5)


def set_ratio_ticks(ax: Axes) -> None:
    """Plain numbers, closer where the axis is short."""
    low, high = ax.get_xlim()
    steps = next(steps for factor, steps in TICKS.items() if high / low <= factor)
    powers = 10.0 ** np.arange(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [tick for tick in np.outer(powers, steps).ravel() if low <= tick <= high]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.xaxis.set_minor_locator(NullLocator())


def _in_unit(claim: Claim, d: np.ndarray) -> np.ndarray:
    return np.array([claim.in_unit(float(value)) for value in d])


def effect_handles(widened: bool) -> list[Line2D]:
    bar = f"mean, 95% interval{f' {WIDENED}' if widened else ''}"
    return [
        Line2D([], [], linestyle="", marker="o", color=BASELINE_COLOUR, alpha=0.45, markersize=4, label="a seed"),
        Line2D([], [], color=BASELINE_COLOUR, linewidth=2.2, marker="D", markersize=5, label=bar),
        Line2D([], [], color=BAND, linewidth=9, label="too small to matter"),
    ]


def _alt(shown: Sequence[Verdict]) -> str:
    parts = [
        f"{v.case}, {v.view}: {v.status}" + (f", {v.effect_text}, {v.n} seeds" if v.interval else "") for v in shown
    ]
    return f"Differences by seed with their mean. {'; '.join(parts)}."
