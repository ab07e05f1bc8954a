"""The verdicts of several claims side by side: a row for each network, a column for each claim."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from bnstudy.claims.verdicts import Verdict
from bnstudy.report.figures import style
from bnstudy.report.figures.colours import STATUSES
from bnstudy.report.figures.effects import (
    CAPTION,
    WIDER,
    draw_verdict,
    effect_handles,
    effect_limits,
    set_ratio_ticks,
)
from bnstudy.report.figures.style import ReportFigure

MOST_CLAIMS = 3
"""Columns that fit."""
TITLE = "Effects by network, each network alone"
ROW, AROUND = 0.56, 1.4
"""Heights in inches."""
TITLE_LETTERS = 88
"""Letters of all columns' titles that fit in one line."""


def draw_networks(found: Sequence[Verdict]) -> ReportFigure | None:
    """The verdicts on the cases that all claims have, in the claims' primary views.

    None for one claim or one network, or for more claims than fit.
    """
    by_claim: dict[str, dict[str, Verdict]] = {}
    for verdict in found:
        if verdict.contrast.is_primary:
            by_claim.setdefault(verdict.contrast.claim.name, {}).setdefault(verdict.case, verdict)
    columns = list(by_claim.values())
    rows = [case for case in columns[0] if all(case in column for column in columns)] if columns else []
    networks = {columns[0][case].contrast.case.panel for case in rows}
    if len(networks) < 2 or not 2 <= len(columns) <= MOST_CLAIMS:
        return None
    height = ROW * len(rows)
    figure, axes = style.new_figure(1, len(columns), AROUND + height, TITLE)
    letters = TITLE_LETTERS // len(columns)
    for ax, column in zip(axes[0], columns, strict=True):
        shown = [column[case] for case in rows]
        claim = shown[0].contrast.claim
        ax.set_xscale("log" if claim.scale == "log_ratio" else "linear")
        ax.set(xlim=effect_limits(shown), ylim=(height, 0), xlabel=claim.unit)
        ax.set_title(textwrap.fill(claim.statement.rstrip("."), letters), fontsize=8)
        ax.spines["left"].set_visible(False)
        ax.set_yticks([ROW * (i + 0.6) for i in range(len(rows))], [])
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="y", visible=False)
        for i, verdict in enumerate(shown):
            top = ROW * i
            draw_verdict(ax, verdict, top, top + ROW, top + 0.3, top + 0.42)
            text: dict[str, Any] = {
                "fontsize": 7.5,
                "fontweight": "bold",
                "color": STATUSES[verdict.status],
                "zorder": 5,
            }
            ax.text(1, top + 0.11, verdict.status, ha="right", va="center", transform=ax.get_yaxis_transform(), **text)
        if claim.scale == "log_ratio":
            set_ratio_ticks(ax)
    axes[0, 0].set_yticklabels([textwrap.fill(case, 16) for case in rows], fontsize=8)
    all_shown = [column[case] for column in columns for case in rows]
    widened = any(verdict.contrast.slack > 0 for verdict in all_shown)
    style.add_legend(figure, effect_handles(widened), "differences by seed, in the unit of each axis")
    return ReportFigure(TITLE, CAPTION + WIDER * widened, _alt(all_shown), figure)


def _alt(shown: Sequence[Verdict]) -> str:
    results = (f"{v.case}, {v.contrast.claim.statement} {v.status}" for v in shown)
    return f"Dots by seed with their mean and interval, a row for each network. {'; '.join(results)}."
