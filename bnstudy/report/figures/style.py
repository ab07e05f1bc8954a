"""The common style of all figures: sizes, colours, lines and legends, and rendering to bytes."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import PlaceHolderLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from bnstudy.claims.arms import BASELINES
from bnstudy.report.figures.colours import AXIS, BASELINE_COLOUR, COLOURS, GRID, NEUTRAL, TEXT, WHITE, shade
from bnstudy.validation import printable

WIDTH, NARROW = 6.2, 3.7
"""Figure widths in inches: of the text of a page, so that fonts appear at their nominal size, and of a phone, on which
such a figure is 390 pixels wide and a font of 8 points 11 pixels high."""

TITLE_LETTERS = 62
LEGEND_LETTERS = 80
"""Letters that fit in one line of a title and in one row of a legend, of a figure for a page."""
HANDLE_LETTERS = 8
"""Width of a legend entry's line and margins, in letters."""
LEGEND_ROW = 0.2
"""Height of a legend row in inches."""
TITLE_HEIGHT, TITLE_LINE = 0.25, 0.17
"""Of a title, which figures for a phone lack, and of each further line, in inches."""

FEW = 10
"""A line through at most so many points has markers."""

PNG_DPI = 200

RC: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": AXIS,
    "axes.facecolor": WHITE,
    "axes.grid": True,
    "axes.labelcolor": TEXT,
    "axes.labelsize": 9,
    "axes.linewidth": 0.7,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "figure.constrained_layout.h_pad": 0.06,
    "figure.facecolor": WHITE,
    "figure.titlesize": 10.5,
    "figure.titleweight": "bold",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "Helvetica"],
    "font.size": 9,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "bnstudy",
    "text.color": TEXT,
    "text.parse_math": False,
    "xtick.color": AXIS,
    "xtick.labelcolor": TEXT,
    "xtick.labelsize": 8.5,
    "ytick.color": AXIS,
    "ytick.labelcolor": TEXT,
    "ytick.labelsize": 8.5,
}

SMALL: Any = {
    "axes.labelsize": 8.5,
    "axes.titlesize": 8.5,
    "font.size": 8.5,
    "legend.fontsize": 8.5,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
}
"""Font sizes of figures for a phone."""

LINES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.2, 1, 1.2)))
DOTTED = (0, (1, 2))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h", "p")
MAX_SHADES = 6
"""Number of shades of one hue that a reader can tell apart."""


@dataclass(frozen=True)
class LineStyle:
    """Colour, dash pattern and marker of a family or an arm."""

    colour: str
    line: Any = "-"
    marker: str = "o"


@dataclass(frozen=True)
class Palette:
    """The line style of each family, the same in all figures of a report.

    The norm sets the hue; the baseline is dark grey. Other differences set the lightness and the dash pattern. If
    only other things differ, or if there are too many shades or norms, each family gets a colour of its own, and the
    dash pattern changes when the colours run out.

    norms: the line style of each norm, for axes that hold one family of each; empty if there are too many.
    """

    styles: Mapping[str, LineStyle]
    norms: Mapping[str, LineStyle] = field(default_factory=dict)

    @classmethod
    def of(cls, runs: pd.DataFrame) -> Palette:
        families = runs.drop_duplicates("family").sort_values("family")
        norms, rests = families["norm_label"].unique(), list(families["rest"].unique())
        is_baseline = families["norm"].isin(BASELINES)
        hues: dict[str, LineStyle] = {}
        if 1 < len(norms) <= len(COLOURS) + 1:
            hues = _cycle_styles(norms, set(families["norm_label"][is_baseline]))
        if not hues or len(rests) > MAX_SHADES:
            return cls(_cycle_styles(families["family"], set(families["family"][is_baseline][:1])), hues)
        rows = zip(families["family"], families["norm_label"], families["rest"], strict=True)
        return cls({f: _shade(hues[norm], rests.index(rest), len(rests)) for f, norm, rest in rows}, hues)

    def of_arms(self, arms: pd.DataFrame) -> dict[str, LineStyle]:
        """Styles of the rows of `Panel.arms`; arms of one family differ in the dash pattern."""
        nth = arms.groupby("family", observed=True).cumcount()
        rows = zip(arms["arm"], arms["family"], nth, strict=True)
        return {arm: replace(s, line=_line(LINES.index(s.line) + i)) for arm, f, i in rows for s in [self.styles[f]]}


def _cycle_styles(names: Iterable[str], baselines: Set[str]) -> dict[str, LineStyle]:
    """A colour and a marker for each name; the names in `baselines` are dark grey."""
    others = [n for n in names if n not in baselines]
    colours = COLOURS if baselines else (*COLOURS, BASELINE_COLOUR)
    n = len(colours)
    styles = {name: LineStyle(colours[i % n], _line(i // n), MARKERS[1 + i % n]) for i, name in enumerate(others)}
    return {**dict.fromkeys(baselines, LineStyle(BASELINE_COLOUR)), **styles}


def _shade(style: LineStyle, i: int, n: int) -> LineStyle:
    """The i-th of n shades, from light to dark."""
    return replace(style, colour=shade(style.colour, i, n), line=_line(n - 1 - i))


def _line(i: int) -> Any:
    return LINES[i % len(LINES)]


def new_figure(rows: int, columns: int, height: float, title: str, **subplots: Any) -> tuple[Figure, np.ndarray]:
    """A figure and its axes [rows, columns]; `height` in inches, without the legend.

    For a phone, the axes of a row are below each other, and the title is left to the page.
    """
    if is_narrow():
        return _stack(rows, columns, height, **subplots)
    figure = empty_figure(height, title)
    return figure, figure.subplots(rows, columns, squeeze=False, **subplots)


def empty_figure(height: float, title: str) -> Figure:
    """A figure without axes; `height` in inches."""
    lines = [] if is_narrow() else textwrap.wrap(title, TITLE_LETTERS)
    figure = Figure(figsize=(width(), height + TITLE_LINE * max(0, len(lines) - 1)), layout="constrained")
    FigureCanvasAgg(figure)
    if lines:
        figure.suptitle("\n".join(lines), x=0.01, ha="left")
    return figure


def _stack(
    rows: int, columns: int, height: float, sharex: Any = False, sharey: Any = False, **subplots: Any
) -> tuple[Figure, np.ndarray]:
    """Axes [rows, columns], all below each other, that share scales as `Figure.subplots` says."""
    figure = empty_figure(height * columns - TITLE_HEIGHT, "")
    ratios = np.repeat(subplots.pop("height_ratios", np.ones(rows)), columns).tolist()
    axes = figure.subplots(rows * columns, 1, squeeze=False, height_ratios=ratios, **subplots).reshape(rows, columns)
    for (i, j), ax in np.ndenumerate(axes):
        for share, how in ((ax.sharex, sharex), (ax.sharey, sharey)):
            first = {"row": axes[i, 0], "col": axes[0, j]}.get(how, axes[0, 0] if how else ax)
            if first is not ax:
                share(first)
        ax.tick_params(labelbottom=i == rows - 1 or not sharex)
    return figure, axes


def draw_band(ax: Axes, table: pd.DataFrame, x: str, style: LineStyle, scale: float = 1.0, **line: Any) -> None:
    """Draw a mean line over its interval; `table` comes from `mean_band`, its values are multiplied by `scale`.

    Up to `FEW` points have markers: a line through one point is invisible.
    """
    rows = table.dropna(subset=[x, "mean"]).sort_values(x)
    line = {"marker": style.marker if len(rows) <= FEW else "", **line}
    ax.plot(rows[x], scale * rows["mean"], color=style.colour, linestyle=style.line, **line)
    low, high = scale * rows["low"], scale * rows["high"]
    if len(rows) == 1:
        ax.vlines(rows[x], low, high, color=style.colour, linewidth=1)
    else:
        ax.fill_between(rows[x], low, high, color=style.colour, alpha=0.17, linewidth=0)


def draw_level(ax: Axes, y: float) -> None:
    """Draw a dotted reference line across the axes, behind the data."""
    ax.axhline(y, color=NEUTRAL, linewidth=0.8, linestyle=DOTTED, zorder=1)


def draw_chance_level(ax: Axes, chance: float, side: Literal["left", "right"]) -> None:
    """Draw a dotted line at chance accuracy (a share) and label it at one end."""
    draw_level(ax, 100 * chance)
    place: dict[str, Any] = {"transform": ax.get_yaxis_transform(), "ha": side, "va": "bottom"}
    ax.text(0.01 if side == "left" else 1.0, 100 * chance, "chance", fontsize=8, color=NEUTRAL, **place)


def draw_crosses(ax: Axes, x: pd.Series, y: pd.Series, style: LineStyle, marker: str = "x") -> None:
    """Mark where runs diverged or, with "+", did not learn."""
    if x.empty:  # the layout would count an empty unclipped line as a point in the corner of the figure
        return
    ax.plot(x, y, linestyle="", marker=marker, color=style.colour, markersize=6, markeredgewidth=1.5, clip_on=False)


def limit_accuracies(ax: Axes, lowest: float, highest: float) -> None:
    """Limit the y axis (per cent) to a range of accuracies with a margin."""
    ax.set_ylim(max(0.0, lowest - 4), min(102.0, highest + 5))


def set_log_ticks(axis: Axis) -> None:
    """Plain numbers at powers of ten, and at 2 and 5 between them if the axis spans less than two decades."""
    low, high = axis.get_view_interval()
    is_narrow = np.log10(max(high, 1e-300) / max(low, 1e-300)) < 2
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if is_narrow else (1,), numticks=8))
    axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axis.set_minor_formatter(NullFormatter())
    if is_narrow:
        axis.set_minor_locator(NullLocator())


def add_legend(figure: Figure, handles: Sequence[Line2D], note: str = "means over seeds, with 95% intervals") -> None:
    """Add a legend with a note below the axes, in as many columns as fit. The figure grows by its height."""
    room = fit(LEGEND_LETTERS)
    labels = [textwrap.fill(str(h.get_label()), room - HANDLE_LETTERS) for h in handles]
    lines = [label.count("\n") + 1 for label in labels]
    widths = [max(map(len, label.split("\n"))) + HANDLE_LETTERS for label in labels]
    columns = len(labels) if sum(widths) <= room else max(1, room // max(widths))
    rows = -(-len(labels) // columns) + sum(lines) - len(lines)
    figure.set_figheight(figure.get_figheight() + LEGEND_ROW * (1 + rows))
    figure.legend(
        list(handles),
        labels,
        loc="outside lower center",
        ncols=columns,
        handlelength=2.4,
        columnspacing=1.6,
        title=textwrap.fill(note, room),
        title_fontsize=8,
    )


def line_handles(
    styles: Mapping[str, LineStyle], labels: Mapping[str, str] | None = None, marker: bool = False
) -> list[Line2D]:
    """Legend entries; without `labels` the keys of `styles` are the labels."""
    return [
        Line2D(
            [], [], color=s.colour, linestyle=s.line, marker=s.marker if marker else "", label=(labels or {}).get(k, k)
        )
        for k, s in styles.items()
    ]


def cross_handle(label: str, marker: str = "x") -> Line2D:
    return Line2D([], [], color=NEUTRAL, linestyle="", marker=marker, markersize=6, markeredgewidth=1.5, label=label)


@dataclass(frozen=True)
class ReportFigure:
    """A figure and its texts. alt: what it shows, for readers who cannot see it."""

    title: str
    caption: str
    alt: str
    figure: Figure


def report_style(width: float = WIDTH) -> Any:
    """The context in which figures of a width in inches are drawn and rendered."""
    return mpl.rc_context({**RC, **(SMALL if width < WIDTH else {}), "figure.figsize": (width, width)})


def width() -> float:
    """The width of the figures that are drawn in this context, in inches."""
    return float(mpl.rcParams["figure.figsize"][0])


def is_narrow() -> bool:
    """Whether figures are drawn for a phone."""
    return width() < WIDTH


def fit(letters: float) -> int:
    """As many letters as fit where `letters` fit in a figure for a page."""
    return int(letters * width() / WIDTH)


GEOMETRY = re.compile(r'\b(?:d|x|y)="[^"]*"')
"""Attributes of an SVG that are coordinates, in points: a hundredth of one cannot be seen, and processors may differ in
the decimals behind it."""


def render(figure: Figure, kind: Literal["svg", "png"]) -> bytes:
    """Render a figure to the same bytes every time: without date and version.

    The first call fixes the layout. Control characters in texts, which make an SVG invalid, are shown as escapes.
    """
    engine = figure.get_layout_engine()
    if not isinstance(engine, PlaceHolderLayoutEngine):  # what `set_layout_engine("none")` leaves in its place
        for text in figure.findobj(Text):
            text.set_text(printable(text.get_text()))
        if engine is not None:
            engine.execute(figure)
            figure.set_layout_engine("none")
    buffer = io.BytesIO()  # the canvases' own functions draw once, `savefig` twice
    if kind == "png":
        figure.dpi = PNG_DPI
        FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
        return buffer.getvalue()
    FigureCanvasSVG(figure).print_svg(buffer, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return GEOMETRY.sub(_round_numbers, printable(buffer.getvalue().decode())).encode()


def _round_numbers(attribute: re.Match[str]) -> str:
    return re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", attribute[0])
