"""Draw the verdicts of a report as a forest plot.

    python scripts/verdict_figure.py results/reports/quickstart/claims.json verdicts.png

Each row is one case of a claim in its primary view. Effects in different units share the axis because each is divided
by its claim's smallest effect of interest (ratios: by logarithms). So the band from -1 to 1 is negligible for all.
"""

from __future__ import annotations

import argparse
import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from bnstudy.claims.numbers import round_together
from bnstudy.report.figures.colours import BAND, NEUTRAL, STATUSES

TICKS = [-100, -30, -10, -3, -1, 0, 1, 3, 10, 30, 100]
WIDTH, LEFT, RIGHT = 9.0, 0.355, 0.645
"""Inches; the axis spans LEFT to RIGHT, as shares of the width."""
ROW, ABOVE, BELOW = 0.46, 0.35, 0.75
"""Heights in inches."""
LINE = 44
"""Characters of a statement in a line."""

Verdict = Mapping[str, Any]


def load_verdicts(claims_json: Path, claims: Sequence[str]) -> list[Verdict]:
    """The verdicts in their primary views, of all claims or of those named."""
    verdicts = [v for v in json.loads(claims_json.read_text(encoding="utf-8")) if v["primary"] and v["n_seeds"]]
    return [v for v in verdicts if not claims or v["claim"] in claims]


def in_deltas(verdict: Verdict, effect: float) -> float:
    """An effect in units of the smallest effect of interest; positive supports the claim."""
    if verdict["scale"] == "log_ratio":
        return math.log(effect) / math.log(verdict["threshold"])
    return effect / verdict["threshold"]


def statement(verdict: Verdict) -> str:
    """The claim, with the case's setting, and the learning rate where only one was tried."""
    at = f"at a fixed learning rate, {verdict['lr_with']:g}" if verdict["view"] == "fixed_rate" else ""
    notes = ", ".join(filter(None, (verdict["setting"], at)))
    text = verdict["statement"].rstrip(".") + (f" ({notes})" if notes else "")
    return textwrap.fill(text, len(text) // math.ceil(len(text) / LINE) + 7)


def numbers(verdict: Verdict) -> str:
    effect, low, high = round_together(*(verdict[key] for key in ("effect", "ci_low", "ci_high")))
    unit = textwrap.shorten(verdict["unit"].replace("percentage points", "points"), 24, placeholder=" ...")
    mark = "*" if verdict["slack"] > 0 else ""
    return f"{verdict['effect_is']} {effect} ({low} to {high}){mark}\n{unit}, n = {verdict['n_seeds']}".strip()


def draw(verdicts: Sequence[Verdict]) -> Figure:
    height = ABOVE + ROW * len(verdicts) + BELOW
    figure = Figure(figsize=(WIDTH, height))
    ax = figure.add_axes((LEFT, BELOW / height, RIGHT - LEFT, ROW * len(verdicts) / height))
    ax.set_xscale("symlog", linthresh=1, linscale=0.6)
    ax.axvspan(-1, 1, color=BAND, zorder=0)
    ax.axvline(0, color=NEUTRAL, linewidth=0.8, zorder=1)
    text: dict[str, Any] = {"transform": ax.get_yaxis_transform(), "va": "center", "linespacing": 1.25}
    for y, verdict in enumerate(verdicts):
        colour = STATUSES[verdict["status"]]
        point, low, high = (in_deltas(verdict, verdict[key]) for key in ("effect", "ci_low", "ci_high"))
        ax.plot([low, high], [y, y], color=colour, linewidth=2.4, solid_capstyle="butt")
        ax.plot(point, y, "o", color=colour, markersize=7)
        ax.text(-0.04, y, statement(verdict), ha="right", **text)
        ax.text(1.05, y, verdict["status"], color=colour, weight="bold", fontsize=8.5, **text)
        ax.text(1.48, y, numbers(verdict), fontsize=8.5, **text)
    networks = sorted({f"{v['model']} on {v['data']}" for v in verdicts})
    figure.text(0.012, 1 - 0.2 / height, ", ".join(networks), weight="bold", va="center")
    low, high = ax.get_xlim()
    ax.set(xlim=(min(low, -3), max(high, 3)), ylim=(len(verdicts) - 0.5, -0.5), yticks=[])
    ax.xaxis.set_major_locator(FixedLocator(TICKS))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    reading = "inside the band: negligible; right of it: supported; left: contradicted"
    if any(v["slack"] > 0 for v in verdicts):
        reading += "\n* wider than a 95% interval, by a step of the grid of learning rates"
    ax.set_xlabel(f"effect / smallest effect of interest, with 95% interval\n{reading}")
    ax.spines[["left", "right", "top"]].set_visible(False)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the verdicts of a report as a forest plot.")
    parser.add_argument("claims_json", type=Path)
    parser.add_argument("image", type=Path)
    parser.add_argument("--claims", nargs="*", default=(), help="names of claims; default all")
    arguments = parser.parse_args()
    with rc_context({"font.size": 9, "text.parse_math": False}):
        figure = draw(load_verdicts(arguments.claims_json, arguments.claims))
        figure.savefig(arguments.image, dpi=140, metadata={"Software": None})


if __name__ == "__main__":
    main()
