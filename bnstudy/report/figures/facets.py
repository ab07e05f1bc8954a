"""Small multiples: axes for each setting, in which the norms have the same colours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from bnstudy.report.figures.style import LineStyle, Palette
from bnstudy.report.transforms import Panel

MOST = 9
"""With more settings, all arms are in one axes."""


@dataclass(frozen=True)
class Facets:
    """What is drawn in which axes.

    groups: names of arms or families, by the title of their axes; "" for the only axes.
    styles: by name. legend: by label.
    """

    groups: Mapping[str, list[str]]
    styles: Mapping[str, LineStyle]
    legend: Mapping[str, LineStyle]

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
    return Facets(groups, {arms[family]: style for family, style in split.styles.items()}, split.legend)
