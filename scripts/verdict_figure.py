"""Draw a report's verdicts as one forest plot: `python scripts/verdict_figure.py REPORT/claims.json verdicts.png`.

Each row is one case of one claim, at its primary view. Effects of different units share the axis because each is divided
by its claim's smallest effect of interest (ratios as logarithms): the shaded band from -1 to 1 is what would not matter.
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

COLOURS = {"SUPPORTED": "#00704f", "CONTRADICTED": "#b34700", "NEGLIGIBLE": "#0072b2", "INCONCLUSIVE": "#5c636b"}
TICKS = [-100, -30, -10, -3, -1, 0, 1, 3, 10, 30, 100]
LINE = 46
"""Characters of a statement in a line."""


def load_verdicts(path: Path, names: Sequence[str]) -> list[Mapping[str, Any]]:
    """The verdicts at their primary views; only those of the claims in `names`, in that order, if any are given.

    `NAME:SETTING` picks the cases whose setting contains SETTING.
    """
    verdicts = [v for v in json.loads(path.read_text(encoding="utf-8")) if v["primary"] and v["n_seeds"]]
    if not names:
        return verdicts
    picks = [name.partition(":")[::2] for name in names]
    return [v for claim, setting in picks for v in verdicts if v["claim"] == claim and setting in v["setting"]]


def in_deltas(verdict: Mapping[str, Any], effect: float) -> float:
    """An effect in units of the claim's smallest effect of interest; positive supports the claim."""
    if verdict["scale"] == "log_ratio":
        return math.log(effect) / math.log(verdict["threshold"])
    return effect / verdict["threshold"]


def label(verdict: Mapping[str, Any]) -> str:
    case = ", ".join(text for text in (verdict["model"], verdict["data"], verdict["setting"]) if text)
    return "\n".join([*textwrap.wrap(verdict["statement"].rstrip("."), LINE), case])


def numbers(verdict: Mapping[str, Any]) -> str:
    effect, low, high = (f"{verdict[key]:.2g}" for key in ("effect", "ci_low", "ci_high"))
    unit = "\n".join(textwrap.wrap(verdict["unit"], 30))
    return f"{effect} ({low} to {high})\n{unit}, n = {verdict['n_seeds']}"


def draw(verdicts: Sequence[Mapping[str, Any]]) -> Figure:
    labels, texts = [label(v) for v in verdicts], [numbers(v) for v in verdicts]
    heights = [0.17 + 0.155 * max(2, text.count("\n") + 1, name.count("\n") + 1) for name, text in zip(labels, texts, strict=True)]
    middles = [sum(heights[:i]) + height / 2 for i, height in enumerate(heights)]
    figure = Figure(figsize=(9.4, sum(heights) + 1.0), layout="constrained")
    ax = figure.subplots()
    ax.set(xscale="symlog", ylim=(sum(heights), 0), yticks=middles, yticklabels=labels)
    ax.set_xscale("symlog", linthresh=1, linscale=0.7)
    ax.axvspan(-1, 1, color="#e4e7ea", zorder=0)
    ax.axvline(0, color="#999999", linewidth=0.8, zorder=1)
    for verdict, y, text in zip(verdicts, middles, texts, strict=True):
        colour = COLOURS[verdict["status"]]
        point, low, high = (in_deltas(verdict, verdict[key]) for key in ("effect", "ci_low", "ci_high"))
        ax.plot([low, high], [y, y], color=colour, linewidth=2.2, solid_capstyle="butt")
        ax.plot(point, y, "o", color=colour, markersize=6.5)
        side = {"transform": ax.get_yaxis_transform(), "va": "center"}
        ax.text(1.02, y, verdict["status"], color=colour, weight="bold", fontsize=8.5, **side)
        ax.text(1.22, y, text, fontsize=8.5, linespacing=1.25, **side)
    low, high = ax.get_xlim()
    ax.set_xlim(min(low, -2), max(high, 10))
    ax.xaxis.set_major_locator(FixedLocator(TICKS))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.set_xlabel("effect in smallest effects of interest: right of the band supports the claim, left contradicts it,\ninside it is negligible; bars are 95% intervals over n seeds")
    ax.tick_params(axis="y", length=0)
    ax.spines[["left", "right", "top"]].set_visible(False)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("claims_json", type=Path)
    parser.add_argument("image", type=Path)
    parser.add_argument("--claims", default="", help="names of claims, separated by commas; NAME:SETTING for one case")
    arguments = parser.parse_args()
    verdicts = load_verdicts(arguments.claims_json, [name for name in arguments.claims.split(",") if name])
    with rc_context({"font.size": 9, "text.parse_math": False}):
        draw(verdicts).savefig(arguments.image, dpi=130, metadata={"Software": None})


if __name__ == "__main__":
    main()
