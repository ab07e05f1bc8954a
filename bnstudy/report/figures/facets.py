"""Small multiples: axes for each setting, in which the norms have the same colours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnstudy.report.figures import layout, style
from bnstudy.report.figures.style import LineStyle, Palette
from bnstudy.report.panels import Panel

MOST = 9
"""With more settings, all arms are in one axes."""


@dataclass(frozen=True)
class Facets:
    """What is drawn in which axes.

    groups: names of arms or families, by the title of their axes; "" for the only axes.
    styles: by name. legend: by label. note: what the legend leaves out, for a caption.
    """

    groups: Mapping[str, list[str]]
    styles: Mapping[str, LineStyle]
    legend: Mapping[str, LineStyle]
    note: str = ""

    @property
    def is_split(self) -> bool:
        return len(self.groups) > 1


def split_families(runs: pd.DataFrame, palette: Palette) -> Facets:
    """The families of a panel: a group for each setting if several norms were tried with each, else one group."""
    table = runs.drop_duplicates("family").sort_values("family").astype({"family": str})
    by_rest = table.groupby("rest", observed=True, sort=True)
    if not (2 <= by_rest.ngroups <= MOST and palette.norms and by_rest.size().min() > 1):
        styles = {family: palette.styles[family] for family in table["family"]}
        return Facets({"": list(styles)}, styles, styles)
    norms = dict(zip(table["family"], table["norm_label"].astype(str), strict=True))
    legend = {norm: palette.norms[norm] for norm in dict.fromkeys(norms.values())}
    groups = {str(rest): list(own["family"]) for rest, own in by_rest}
    return Facets(groups, {family: palette.norms[norm] for family, norm in norms.items()}, legend)


def split_arms(panel: Panel, palette: Palette) -> Facets:
    """The same for the arms whose curves are drawn; one group if a family has several of them."""
    families, styles = panel.arms["family"].astype(str), palette.of_arms(panel.arms)
    split = split_families(panel.arm_runs, palette)
    if not split.is_split or families.duplicated().any():
        return Facets({"": list(styles)}, styles, {panel.labels[arm]: style for arm, style in styles.items()})
    arms = dict(zip(families, panel.arms["arm"].astype(str), strict=True))
    groups = {title: [arms[family] for family in own] for title, own in split.groups.items()}
    note = f" The arms are {'; '.join(panel.labels.values())}." if (panel.arms["label"] != families).any() else ""
    return Facets(groups, {arms[family]: style for family, style in split.styles.items()}, split.legend, note)


Block = list[Axes]
"""Axes above each other, with one x axis."""


def make_blocks(
    titles: Sequence[str], heights: Sequence[float], columns: int, title: str
) -> tuple[Figure, list[Block]]:
    """A figure with a block for each title, of axes with these heights in inches, filled from the left."""
    rows, parts = -(-len(titles) // columns), len(heights)
    height = layout.MARGINS + rows * (sum(heights) + 0.15 * (rows > 1))
    figure = style.empty_figure(height, title)
    axes = figure.subplots(rows * parts, columns, squeeze=False, height_ratios=[*heights] * rows)
    blocks = [[axes[parts * (i // columns) + j, i % columns] for j in range(parts)] for i in range(rows * columns)]
    for ax in (ax for block in blocks[len(titles) :] for ax in block):
        ax.set_visible(False)
    layout.title_axes([block[0] for block in blocks[: len(titles)]], titles)
    for block in blocks[: len(titles)]:
        for ax in block[1:]:
            ax.sharex(block[0])
        for ax in block[:-1]:
            ax.tick_params(labelbottom=False)
    return figure, blocks[: len(titles)]


def lowest(blocks: Sequence[Block]) -> list[Block]:
    """The last block of each column."""
    spec = blocks[0][0].get_subplotspec()
    return list(blocks[-spec.get_gridspec().ncols :]) if spec else list(blocks)


def share_limits(axes: Iterable[Axes]) -> None:
    """Give all axes the y limits that hold the data of each, and labels only to the leftmost."""
    axes = list(axes)
    low, high = (
        pick(limits) for pick, limits in zip((min, max), zip(*(ax.get_ylim() for ax in axes), strict=True), strict=True)
    )
    for ax in axes:
        ax.set_ylim(low, high)
    for ax in axes:
        ax.tick_params(labelleft=ax in layout.leftmost(axes))
