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

from bnstudy.claims.claim import Claim, load_claims
from bnstudy.claims.effect_text import describe_effect
from bnstudy.report.figures.colours import BAND, NEUTRAL, STATUSES, TEXT, WHITE

NO_BREAK = "\N{NO-BREAK SPACE}"

TICKS = [-100, -30, -10, -3, -1, 0, 1, 3, 10, 30, 100]
WIDTH, MARGIN = 5.6, 0.15
"""Inches. Narrow, so that a phone shows the text almost as large as the page's own."""
LEFT, RIGHT = 0.027, 0.40
"""The axis spans these, as shares of the width; the results are right of it."""
ROW, ABOVE, BELOW = 0.92, 0.5, 1.27
"""Heights in inches."""
STATEMENT, RESULT, READING = 70, 50, 84
"""Characters in a line."""

Verdict = Mapping[str, Any]


def load_verdicts(claims_json: Path, claims: Sequence[str]) -> list[Verdict]:
    """The verdicts in their primary views, of all claims or of those named."""
    verdicts = [v for v in json.loads(claims_json.read_text(encoding="utf-8")) if v["primary"] and v["n_seeds"]]
    return [v for v in verdicts if not claims or v["claim"] in claims]


def bounds(verdict: Verdict) -> list[float]:
    """The effect and its interval on the scale of differences: ratios as logarithms."""
    values = [float(verdict[key]) for key in ("effect", "ci_low", "ci_high")]
    return [math.log(value) for value in values] if verdict["scale"] == "log_ratio" else values


def in_deltas(verdict: Verdict) -> list[float]:
    """The same in units of the smallest effect of interest; positive supports the claim."""
    delta = math.log(verdict["threshold"]) if verdict["scale"] == "log_ratio" else verdict["threshold"]
    return [value / delta for value in bounds(verdict)]


def statement(verdict: Verdict) -> str:
    """The claim, with the case's setting, and the learning rate where only one was tried."""
    at = f"at a fixed learning rate, {verdict['lr_with']:g}" if verdict["view"] == "fixed_rate" else ""
    notes = ", ".join(filter(None, (verdict["setting"], at)))
    text = verdict["statement"].rstrip(".") + (f" ({notes})" if notes else "")
    return textwrap.fill(text, len(text) // math.ceil(len(text) / STATEMENT) + 9)


def numbers(verdict: Verdict, claim: Claim) -> str:
    """The effect in the words of the report."""
    words = describe_effect(claim, *bounds(verdict), verdict["effect_is"])
    interval = f"({words.bounds})" + ("*" if verdict["slack"] > 0 else "")
    return textwrap.fill(f"{words.short} {interval.replace(' ', NO_BREAK)}", RESULT)


def draw(verdicts: Sequence[Verdict], claims: Mapping[str, Claim]) -> Figure:
    height = ABOVE + ROW * len(verdicts) + BELOW
    figure = Figure(figsize=(WIDTH, height), facecolor=WHITE)
    ax = figure.add_axes((LEFT, BELOW / height, RIGHT - LEFT, ROW * len(verdicts) / height))
    ax.set_xscale("symlog", linthresh=1, linscale=0.6)
    text: dict[str, Any] = {"transform": ax.get_yaxis_transform(), "linespacing": 1.25}
    for y, verdict in enumerate(verdicts):
        colour = STATUSES[verdict["status"]]
        point, low, high = in_deltas(verdict)
        ax.fill_between([-1, 1], y - 0.03, y + 0.35, color=BAND, linewidth=0, zorder=0)
        ax.plot([0, 0], [y - 0.03, y + 0.35], color=NEUTRAL, linewidth=0.8, zorder=1)
        ax.plot([low, high], [y + 0.16] * 2, color=colour, linewidth=2.4, solid_capstyle="butt")
        ax.plot(point, y + 0.16, "o", color=colour, markersize=7)
        ax.text(0, y - 0.09, statement(verdict), ha="left", va="bottom", color=TEXT, **text)
        ax.text(1.04, y + 0.04, verdict["status"], color=colour, weight="bold", va="center", **text)
        ax.text(1.04, y + 0.13, numbers(verdict, claims[verdict["claim"]]), va="top", color=TEXT, **text)
    networks = ", ".join(sorted({f"{v['model']} on {v['data']}" for v in verdicts}))
    seeds = {v["n_seeds"] for v in verdicts}
    title = f"{networks}, {min(seeds)}{'' if len(seeds) == 1 else f' to {max(seeds)}'} seeds"
    figure.text(LEFT, 1 - MARGIN / height, title, weight="bold", va="top", color=TEXT)
    low, high = ax.get_xlim()
    ax.set(xlim=(min(low, -3), max(high, 5)), ylim=(len(verdicts) - 0.5, -0.5), yticks=[])
    ax.xaxis.set_major_locator(FixedLocator(TICKS))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.spines[["left", "right", "top"]].set_visible(False)
    figure.text(LEFT, MARGIN / height, reading(verdicts), va="bottom", linespacing=1.35, color=TEXT)
    return figure


def reading(verdicts: Sequence[Verdict]) -> str:
    """How to read the axis, and each exception that these verdicts have."""
    lines = [
        "Effect with 95% interval, in multiples of the smallest effect of interest. An interval right of the band: "
        "supported; left of it: contradicted; across an edge: inconclusive. Inside the band: negligible"
    ]
    if any(v["status"] == "INCONCLUSIVE" and not crosses(v) for v in verdicts):
        lines[0] += ", or inconclusive for a reason in the report, such as that few units die on either side"
    lines[0] += "."
    if any(v["slack"] > 0 for v in verdicts):
        lines.append("* wider than a 95% interval, by a step of the grid of learning rates")
    return "\n".join(textwrap.fill(line, READING) for line in lines)


def crosses(verdict: Verdict) -> bool:
    """Whether the interval reaches across an edge of the band."""
    _, low, high = in_deltas(verdict)
    return any(low <= edge <= high for edge in (-1, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the verdicts of a report as a forest plot.")
    parser.add_argument("claims_json", type=Path)
    parser.add_argument("image", type=Path)
    parser.add_argument("--claims", nargs="*", default=(), help="names of claims; default all")
    arguments = parser.parse_args()
    with rc_context({"font.size": 9, "text.parse_math": False}):
        verdicts = load_verdicts(arguments.claims_json, arguments.claims)
        names = list(dict.fromkeys(verdict["claim"] for verdict in verdicts))
        figure = draw(verdicts, {claim.name: claim for claim in load_claims(names)})
        figure.savefig(arguments.image, dpi=200, metadata={"Software": None})


if __name__ == "__main__":
    main()
