"""One look for all figures: sizes, colours, axes, and how a figure becomes bytes."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from bnstudy.claims.arms import BASELINES

WIDTH = 6.2
"""Inches, at which the text has its nominal size: the text width of a page."""

TITLE = 70
"""How many letters of a title fit in a line."""

LETTERS = 80
"""How many letters of a legend fit beside each other."""
HANDLE = 8
"""How many letters an entry's line and margins are as wide as."""

ROW = 0.2
"""Height of a row of the legend in inches."""

RC: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#555555",
    "axes.grid": True,
    "axes.labelsize": 9,
    "axes.linewidth": 0.7,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "figure.constrained_layout.h_pad": 0.06,
    "figure.titlesize": 10.5,
    "figure.titleweight": "bold",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "Helvetica"],
    "font.size": 9,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
    "savefig.facecolor": "white",
    "svg.fonttype": "none",
    "svg.hashsalt": "bnstudy",
    "text.parse_math": False,
    "xtick.color": "#333333",
    "xtick.labelsize": 8.5,
    "ytick.color": "#333333",
    "ytick.labelsize": 8.5,
}

BASELINE_COLOUR = "#333333"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442")
"""Okabe and Ito's, which people with any colour vision tell apart; yellow, weak on white, is last."""

LINES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.2, 1, 1.2)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h", "p")
SHADES = 6
"""So many variations of one hue can be told apart."""
PALEST = 0.6
"""Share of white in the lightest of them."""
NEUTRAL = "#777777"


@dataclass(frozen=True)
class Look:
    """How one family is drawn."""

    colour: str
    line: Any = "-"
    marker: str = "o"


@dataclass(frozen=True)
class Palette:
    """Family -> look, the same in all figures of a report.

    The norm gives the hue, the baseline's being dark grey; where something else differs too, that gives the lightness
    and the kind of line. Where only other things differ, or there are more than can be told apart so, every family
    has a colour of its own as long as they last, and then another kind of line.
    """

    looks: Mapping[str, Look]

    @classmethod
    def of(cls, runs: pd.DataFrame) -> Palette:
        families = runs.drop_duplicates("family").sort_values("family")
        norms, rests = families["norm_label"].unique(), list(families["rest"].unique())
        plain = families["norm"].isin(BASELINES)
        if len(norms) == 1 or len(norms) > len(COLOURS) + 1 or len(rests) > SHADES:
            return cls(_cycled(families["family"], set(families["family"][plain][:1])))
        base = _cycled(norms, set(families["norm_label"][plain]))
        rows = zip(families["family"], families["norm_label"], families["rest"], strict=True)
        return cls({f: _shaded(base[norm], rests.index(rest), len(rests)) for f, norm, rest in rows})

    def of_arms(self, shown: pd.DataFrame) -> dict[str, Look]:
        """Looks of the rows of `Panel.shown`; a family's further arms differ in the kind of line."""
        nth = shown.groupby("family", observed=True).cumcount()
        rows = zip(shown["arm"], shown["family"], nth, strict=True)
        return {arm: replace(k, line=_line(LINES.index(k.line) + i)) for arm, f, i in rows for k in [self.looks[f]]}


def _cycled(names: Iterable[str], plain: Set[str]) -> dict[str, Look]:
    """A colour and marker of its own for each name, the neutral one for those in `plain`."""
    others = [n for n in names if n not in plain]
    colours, n = (COLOURS, len(COLOURS)) if plain else ((*COLOURS, BASELINE_COLOUR), len(COLOURS) + 1)
    looks = {name: Look(colours[i % n], _line(i // n), MARKERS[1 + i % n]) for i, name in enumerate(others)}
    return {**dict.fromkeys(plain, Look(BASELINE_COLOUR)), **looks}


def _shaded(look: Look, i: int, n: int) -> Look:
    """The i-th of n variations, from light to dark."""
    white = PALEST * (1 - i / (n - 1)) if n > 1 else 0.0
    r, g, b = ((1 - white) * channel + white for channel in to_rgb(look.colour))
    return replace(look, colour=to_hex((r, g, b)), line=_line(n - 1 - i))


def _line(i: int) -> Any:
    return LINES[i % len(LINES)]


# ---------------------------------------------------------------------------------------------------- drawing


def canvas(rows: int, columns: int, height: float, title: str, **subplots: Any) -> tuple[Figure, np.ndarray]:
    """A figure of the common width, `height` inches tall without its legend, and its axes [rows, columns]."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(textwrap.fill(title, TITLE), x=0.01, ha="left")
    return figure, figure.subplots(rows, columns, squeeze=False, **subplots)


def band(ax: Axes, table: pd.DataFrame, x: str, look: Look, scale: float = 1.0, **line: Any) -> None:
    """A mean line over its interval; `table` as from `MeanBand`, values shown times `scale`."""
    rows = table.dropna(subset=[x, "mean"]).sort_values(x)
    ax.plot(rows[x], scale * rows["mean"], color=look.colour, linestyle=look.line, **line)
    ax.fill_between(rows[x], scale * rows["low"], scale * rows["high"], color=look.colour, alpha=0.17, linewidth=0)


def chance_line(ax: Axes, chance: float, named: Literal["left", "right"]) -> None:
    """A dotted line at the accuracy (share) of guessing, with its name at one end."""
    ax.axhline(100 * chance, color=NEUTRAL, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1)
    x = 0.01 if named == "left" else 1.0
    place: dict[str, Any] = {"transform": ax.get_yaxis_transform(), "ha": named, "va": "bottom"}
    ax.text(x, 100 * chance, "chance", fontsize=8, color=NEUTRAL, **place)


def cross(ax: Axes, x: pd.Series, y: pd.Series, look: Look) -> None:
    """Mark where runs diverged."""
    if x.empty:  # nothing, unclipped, would count as a point at the figure's corner in the layout
        return
    ax.plot(x, y, linestyle="", marker="x", color=look.colour, markersize=6, markeredgewidth=1.5, clip_on=False)


def log_ticks(axis: Axis) -> None:
    """Plain numbers; with 2 and 5 between the powers of ten where the axis spans less than two of them."""
    low, high = axis.get_view_interval()
    narrow = np.log10(max(high, 1e-300) / max(low, 1e-300)) < 2
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,), numticks=8))
    axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axis.set_minor_formatter(NullFormatter())
    if narrow:
        axis.set_minor_locator(NullLocator())


def legend(figure: Figure, handles: Sequence[Line2D], note: str = "means over seeds, with 95% intervals") -> None:
    """Below the axes, in one row if that fits, else in as many columns as do, with a note. The figure grows by it."""
    labels = [str(h.get_label()) for h in handles]
    widths = [len(label) + HANDLE for label in labels]
    columns = len(labels) if sum(widths) <= LETTERS else max(1, LETTERS // max(widths))
    figure.set_figheight(figure.get_figheight() + ROW * (1 + -(-len(labels) // columns)))
    figure.legend(
        list(handles),
        labels,
        loc="outside lower center",
        ncols=columns,
        handlelength=2.4,
        columnspacing=1.6,
        title=note,
        title_fontsize=8,
    )


def line_handles(looks: Mapping[str, Look], labels: Mapping[str, str], marker: bool = False) -> list[Line2D]:
    return [
        Line2D([], [], color=k.colour, linestyle=k.line, marker=k.marker if marker else "", label=labels[arm])
        for arm, k in looks.items()
    ]


def cross_handle(label: str) -> Line2D:
    return Line2D([], [], color=NEUTRAL, linestyle="", marker="x", markersize=6, markeredgewidth=1.5, label=label)


# -------------------------------------------------------------------------------------------------- rendering


@dataclass(frozen=True)
class Drawn:
    """A figure with what is said about it. alt: what is to be seen, for those who do not see it."""

    kind: str
    title: str
    caption: str
    alt: str
    figure: Figure


def styled() -> Any:
    """The context in which figures are drawn and rendered."""
    return mpl.rc_context(RC)


def render(figure: Figure, kind: str) -> bytes:
    """The figure as `svg` or `png` (200 dpi): the same bytes every time, without date or version.

    Its layout is settled when it is rendered first.
    """
    empty = {"svg": ("Creator", "Date", "Format", "Type"), "png": ("Software",)}[kind]
    buffer = io.BytesIO()
    if figure.get_layout_engine() is not None:
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    figure.savefig(buffer, format=kind, dpi=200, metadata=dict.fromkeys(empty))
    return buffer.getvalue()
