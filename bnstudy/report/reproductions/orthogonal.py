"""Meterez et al. 2024: no gradient explosion in linear networks with batch normalization and orthogonal weights."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bnstudy.report.figures import style
from bnstudy.report.figures.style import LineStyle, ReportFigure
from bnstudy.report.figures.titles import listed
from bnstudy.report.reproductions.base import Check, Expected
from bnstudy.report.reproductions.explosion import YangExplosion, check_growth, expected, label_growth, theory
from bnstudy.stats.intervals import summarize

COMPUTED = {"linear": 1.020, "relu": 1.53}
"""The growth by activation, for orthogonal weights, width 64 and batches of 32."""
WIDTH, BATCH = 64, 32
SOURCE = "our own computation on digits, as Meterez et al. 2024 predict no growth"
KEYS = ["init", "model.activation"]
STYLES = {
    ("Orthogonal", "linear"): LineStyle(style.COLOURS[0], "", "s"),
    ("KaimingNormal", "linear"): LineStyle(style.COLOURS[2], "-", "D"),
    ("Orthogonal", "relu"): LineStyle(style.COLOURS[1], "", "^"),
    ("KaimingNormal", "relu"): LineStyle(style.COLOURS[3], "-", "v"),
}


class OrthogonalLinear(YangExplosion):
    note = (
        f"{YangExplosion.note} All networks have batch normalization. Expected values of orthogonal weights are from "
        f"our own computation on digits, for width {WIDTH} and batches of {BATCH}; those of Gaussian weights are the "
        "theory of wide networks, (B - 2)/(B - 3) without an activation function."
    )

    def checks(self) -> list[Check]:
        runs, quantity, checks = self.runs(), "growth per layer", []
        for (init, activation, batch), own in runs.groupby([*KEYS, "batch_size"], observed=True):
            arm = f"{init}, {activation}, batch {batch}"
            if init == "KaimingNormal":
                value, source = theory("BatchNorm", activation, batch), expected("BatchNorm", activation, batch)
            elif batch == BATCH and (own["model.width"] == WIDTH).all() and activation in COMPUTED:
                value = COMPUTED[activation]
                source = Expected(f"{value:.3f}", "c", SOURCE)
            else:
                continue
            checks.append(check_growth(quantity, arm, source, own["growth"], value))
        return checks

    def draw(self) -> ReportFigure | None:
        runs = self.runs().dropna(subset=["growth"])
        if runs.empty:
            return None
        smallest, largest = (int(f(runs["batch_size"])) for f in (min, max))
        at = runs[runs["batch_size"] == largest].groupby(KEYS[::-1], observed=True)["growth"].mean()
        parts = [f"{_range(means)} ({activation})" for activation, means in at.groupby(level=0)]
        title = f"Growth of the squared gradient per layer with BatchNorm, batches of {largest}: {listed(parts)}"
        figure, axes = style.new_figure(1, 1, 3.6, title)
        ax, styles = axes[0, 0], {}
        sizes = np.arange(smallest, largest + 1)
        for key, rows in runs.groupby(KEYS, observed=True):
            styles[", ".join(map(str, key))] = line = STYLES.get(key, LineStyle(style.NEUTRAL, "", "o"))
            table = summarize(rows, ["batch_size"], "growth")
            half = (table["mean"] - table["low"]).fillna(0)
            ax.errorbar(table["batch_size"], table["mean"], half, color=line.colour, fmt=line.marker, capsize=2)
            if key[0] == "KaimingNormal":
                wide = [theory("BatchNorm", key[1], int(b)) for b in sizes]
                ax.plot(sizes, wide, color=line.colour, linestyle=line.line)
        style.draw_level(ax, 1)
        label_growth(ax, runs)
        style.add_legend(figure, style.line_handles(styles, marker=True))
        caption = (
            f"{self.note} Points are means over seeds with 95% t intervals. Lines are the theory of Gaussian "
            "weights. Dotted: no growth."
        )
        return ReportFigure(title, caption, f"Chart of growth against batch size. {title}.", figure)


def _range(means: pd.Series) -> str:
    """`"1.02x to 1.03x"`."""
    return " to ".join(dict.fromkeys(f"{mean:.2f}x" for mean in sorted(means)))
