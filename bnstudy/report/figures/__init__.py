"""The figures of a report, drawn from data frames. Only this folder and reproductions/ import matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from bnstudy.report.figures.style import Palette, ReportFigure, render
from bnstudy.report.panels import Panel
from bnstudy.report.targets import load_targets

__all__ = ["DrawFigure", "Palette", "ReportFigure", "draw_panel", "load_figures", "render"]

DrawFigure = Callable[[Panel, Palette], ReportFigure | None]
"""Draws a figure of a panel; None if the panel has no measurements for it."""


def load_figures(config_dirs: Sequence[Path] = ()) -> dict[str, DrawFigure]:
    """The kinds of figures in conf/figure and in `figure` of the user's folders, in the order of the report."""
    return load_targets("figure", config_dirs)


def draw_panel(
    panel: Panel, palette: Palette, figures: dict[str, DrawFigure], kinds: Collection[str] | None = None
) -> Iterator[ReportFigure]:
    """Draw the figures that the panel has measurements for, of all kinds or of `kinds`."""
    for kind, draw in figures.items():
        figure = draw(panel, palette) if kinds is None or kind in kinds else None
        if figure is not None:
            yield replace(figure, kind=kind)
