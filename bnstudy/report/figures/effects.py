"""The effect that a claim is judged by: the seeds' differences, their mean with its interval, and what is too small."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator
from matplotlib.transforms import ScaledTranslation

from bnstudy.claims.claim import Claim
from bnstudy.claims.verdicts import WIDENED, Verdict
from bnstudy.report.figures import style
from bnstudy.report.figures.colours import BAND, BASELINE_COLOUR, NEUTRAL, SOFT_TEXT, STATUSES
from bnstudy.report.figures.style import ReportFigure
from bnstudy.report.wording import claim_title

MOST = 24
"""With more strips, only the primary view is drawn."""

GUTTER, LETTERS, NARROW_LETTERS = 2.15, 33, 52
"""Width in inches of the column of names, and letters that fit in it, or on a phone above a strip."""

UNIT_LETTERS = 42
"""Letters of the axis' label that fit in a line."""

LINE, STRIP, GAP = 0.145, 0.44, 0.1
"""Heights in inches: of a line of text, of the dots with their bar, and between strips."""
AROUND = 1.25
"""And of what is above and below all of them."""

THICK, THIN = 3.0, 1.2
"""Widths of a bar in points: of the interval of the mean, and of what a step of the grid adds."""

DOT, ROOM = 0.046, 0.24
"""Diameter of a dot, and height of the largest stack, in inches."""

TICKS = {4.0: (1, 1.25, 1.5, 2, 3, 4, 5, 6, 8), 200.0: (1, 2, 5), math.inf: (1,)}
"""Ticks of a ratio axis within a power of ten, by the largest factor that the axis may span."""

CAPTION = (
    "Each dot is the {difference} of one seed, the bar their {mean} with the 95% interval that decides the verdict. "
    "The shaded band holds effects too small to matter: below the smallest effect of interest, fixed before the runs."
)
WIDER = (
    " The metric is known to within a step of the grid of learning rates. So the interval is wider: the thick part of "
    "the bar is the 95% interval of the mean, the thin parts are the step."
)


@dataclass(frozen=True)
class Strip:
    """A verdict, the lines of text beside or above its dots, and its heights in inches from the top."""

    verdict: Verdict
    lines: list[tuple[str, dict[str, Any]]]
    top: float

    @property
    def dots(self) -> float:
        """The middle of the dots."""
        if style.is_narrow():
            return self.top + LINE * len(self.lines) + ROOM / 2 + 0.1
        return self.top + max(0.0, LINE * len(self.lines) - STRIP) / 2 + ROOM / 2 + 0.04

    @property
    def bar(self) -> float:
        return self.dots + ROOM / 2 + 0.08

    @property
    def below(self) -> float:
        return max(self.bar + 0.08, self.top + LINE * len(self.lines)) + GAP


def draw_effect(found: Sequence[Verdict]) -> ReportFigure:
    """The figure of the verdicts of one claim, in the claim's unit; on a log axis if that is a ratio."""
    shown = found if len(found) <= MOST else [verdict for verdict in found if verdict.contrast.is_primary]
    claim, strips = shown[0].contrast.claim, list(_strips(shown))
    height, title = strips[-1].below, claim_title(found)
    unit = textwrap.fill(claim.unit, UNIT_LETTERS)
    figure, axes = style.new_figure(1, 1, AROUND + height + LINE * unit.count("\n"), title)
    ax = axes[0, 0]
    ax.set_xscale("log" if claim.scale == "log_ratio" else "linear")
    ax.set(xlim=effect_limits(shown), ylim=(height, -0.2), yticks=[], xlabel=unit)
    ax.spines["left"].set_visible(False)
    if claim.scale == "log_ratio":
        set_ratio_ticks(ax)
    _directions(ax, claim)
    for strip in strips:
        _strip(ax, strip)
    widened = any(0 < verdict.contrast.slack < math.inf for verdict in shown)
    difference, mean = _kind(claim)
    style.add_legend(figure, _handles(widened), f"{difference}s by seed, in the unit of the axis")
    caption = CAPTION.format(difference=difference, mean=mean) + WIDER * widened
    return ReportFigure(title, caption, _alt(shown), figure)


def _kind(claim: Claim) -> tuple[str, str]:
    """What a dot is, and what the bar is of the dots."""
    return ("ratio", "geometric mean") if claim.scale == "log_ratio" else ("difference", "mean")


def _strips(shown: Sequence[Verdict]) -> Iterator[Strip]:
    top, last = 0.0, ""
    letters = NARROW_LETTERS if style.is_narrow() else LETTERS
    for verdict in shown:
        case = verdict.case if verdict.case != last else ""
        colour = STATUSES[verdict.status]
        texts: list[tuple[str, dict[str, Any]]] = [
            (case, {"fontweight": "bold"}),
            (verdict.view, {"color": SOFT_TEXT}),
            (f"{verdict.status}  {verdict.interval}".strip(), {"color": colour, "fontweight": "bold"}),
        ]
        lines = [
            (line, look)
            for text, look in texts
            for line in textwrap.wrap(text, letters - 4 if "fontweight" in look else letters)
        ]
        strip = Strip(verdict, lines, top)
        yield strip
        top, last = strip.below, verdict.case


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
    words = claim.directions
    zero, room = float(_share(ax, claim.in_unit(0.0))), 0.42 if style.is_narrow() else 0.38
    text: dict[str, Any] = {"fontsize": 8, "color": NEUTRAL, "va": "center", "transform": ax.get_yaxis_transform()}
    if zero > room:
        ax.text(zero - 0.02, -0.12, f"\N{LEFTWARDS ARROW} {words[0]}", ha="right", **text)
    if zero < 1 - room:
        ax.text(zero + 0.02, -0.12, f"{words[1]} \N{RIGHTWARDS ARROW}", ha="left", **text)


def _strip(ax: Axes, strip: Strip) -> None:
    verdict, contrast = strip.verdict, strip.verdict.contrast
    claim, delta, colour = contrast.claim, contrast.threshold, STATUSES[verdict.status]
    top, bottom = strip.dots - ROOM / 2 - 0.06, strip.bar + 0.08
    ax.fill_betweenx([top, bottom], claim.in_unit(-delta), claim.in_unit(delta), color=BAND, linewidth=0, zorder=1)
    ax.plot([claim.in_unit(0.0)] * 2, [top, bottom], color=BASELINE_COLOUR, linewidth=0.9, zorder=2)
    d = np.sort(contrast.d.to_numpy(float))
    x = _in_unit(claim, d[np.isfinite(d)])
    places = stack(_share(ax, x) * (style.width() - GUTTER * (not style.is_narrow()) - 0.2), DOT)
    pitch = min(DOT, ROOM / max(1, np.ptp(places))) if len(places) else DOT
    ax.plot(
        x, strip.dots - pitch * (places - places.mean() if len(places) else places), "o", color=BASELINE_COLOUR,
        alpha=0.6, markersize=3.2, markeredgewidth=0, zorder=3,
    )  # fmt: skip
    if math.isfinite(verdict.effect):
        slack = contrast.slack if math.isfinite(contrast.slack) else 0.0
        for low, high, thickness in (
            (verdict.low, verdict.high, THIN),
            (verdict.low + slack, verdict.high - slack, THICK),
        ):
            ends = [v if math.isfinite(v) else verdict.effect for v in (low, high)]
            ax.plot(_in_unit(claim, np.array(ends)), [strip.bar] * 2, color=colour, linewidth=thickness, zorder=4)
        ax.plot(claim.in_unit(verdict.effect), strip.bar, "D", color=colour, markersize=5, zorder=5)
    _write_names(ax, strip)


def _write_names(ax: Axes, strip: Strip) -> None:
    """The lines of a strip, in the gutter to the left of the axes, or on a phone above its dots."""
    figure = ax.get_figure(root=True)
    shift = 0.0 if style.is_narrow() or figure is None else -GUTTER
    transform = ax.get_yaxis_transform()
    if shift and figure is not None:
        transform = transform + ScaledTranslation(shift, 0, figure.dpi_scale_trans)
    for i, (line, look) in enumerate(strip.lines):
        ax.text(0, strip.top + LINE * (i + 0.5), line, fontsize=8, va="center", transform=transform, zorder=5, **look)


def stack(positions: np.ndarray, diameter: float) -> np.ndarray:
    """Levels at which dots at these sorted positions do not overlap: 0, then 1 and -1, then 2 and -2, ..."""
    ends: dict[int, float] = {}
    levels = []
    for position in positions:
        nth = next(i for i in count() if position - ends.get(i, -math.inf) >= diameter)
        ends[nth] = position
        levels.append((nth + 1) // 2 * (1 if nth % 2 else -1))
    return np.array(levels, float)


def set_ratio_ticks(ax: Axes) -> None:
    """Plain numbers, closer where the axis is short."""
    low, high = ax.get_xlim()
    steps = next(steps for factor, steps in TICKS.items() if high / low <= factor)
    powers = 10.0 ** np.arange(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [tick for tick in np.outer(powers, steps).ravel() if low <= tick <= high]
    ticks = ticks[:: 1 + len(ticks) // 9]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.xaxis.set_minor_locator(NullLocator())


def _share(ax: Axes, x: Any) -> Any:
    """Places on the x axis as shares of its length."""
    scale = ax.xaxis.get_transform().transform
    low, high = scale(np.array(ax.get_xlim()))
    return (scale(np.asarray(x, float)) - low) / (high - low)


def _in_unit(claim: Claim, d: np.ndarray) -> np.ndarray:
    return np.array([claim.in_unit(float(value)) for value in d])


def _handles(widened: bool) -> list[Line2D]:
    handles = [
        Line2D([], [], linestyle="", marker="o", color=BASELINE_COLOUR, alpha=0.6, markersize=4, label="a seed"),
        Line2D([], [], color=BASELINE_COLOUR, linewidth=THICK, marker="D", markersize=5, label="mean, 95% interval"),
        Line2D([], [], color=BASELINE_COLOUR, linewidth=THIN, label=WIDENED),
        Line2D([], [], color=BAND, linewidth=9, label="too small to matter"),
    ]
    return [handle for handle in handles if widened or handle.get_label() != WIDENED]


def _alt(shown: Sequence[Verdict]) -> str:
    parts = [
        f"{v.case}, {v.view}: {v.status}" + (f", {v.effect_text}, {v.n} seeds" if v.interval else "") for v in shown
    ]
    difference, mean = _kind(shown[0].contrast.claim)
    return f"{difference.capitalize()}s by seed with their {mean}. {'; '.join(parts)}."
