"""The figures of a report, drawn from data frames. Only this folder and reproductions/ import matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from bnstudy.report.figures.style import Palette, ReportFigure, render
from bnstudy.report.panels import Panel
from bnstudy.report.targets import load_targets

__all__ = ["DrawFigure", "Palette", "ReportFigure", "load_figures", "render"]

DrawFigure = Callable[[Panel, Palette], ReportFigure | None]
"""Draws a figure of a panel; None if the panel has no measurements for it."""


def load_figures(config_dirs: Sequence[Path] = ()) -> dict[str, DrawFigure]:
    """The kinds of figures in conf/figure and in `figure` of the user's folders, in the order of the report."""
    return load_targets("figure", config_dirs)
